"""Gold alignments of a corpus: links between words become links between pieces."""

import io
import itertools
from pathlib import Path

import datasets
import numpy as np
import pytest
import sentencepiece
from tiny_corpora import PACK, SAMPLE, SENTENCES, read, recipe, skipped, table, write

from seq2attn.alignment.word_alignment import Link
from seq2attn.data import DataError, Report, known_alignment, pairs, prepare
from seq2attn.data.gold_alignments import between_pieces, words
from seq2attn.data.report import Reason
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.vocabulary_training import train_vocabulary

pytestmark = pytest.mark.usefixtures("own_cache")


LINKS = ["0-0 1-1", "", "1-0 0-1 1-0"]


def aligned(folder, links, sentences=SENTENCES, suffix=""):
    """A corpus of files with links between its words."""
    german, english = (
        write(folder / name, "".join(f"{pair[i]}\n" for pair in sentences))
        for i, name in enumerate(("x.de", "x.en"))
    )
    content = "".join(f"{line}\n" for line in links).encode()
    path = write(folder / f"links.pharaoh{suffix}", PACK[suffix](content))
    return {"files": [german, english], "alignments": path}


def read_links(corpus, report=None):
    found = pairs(recipe(corpus).train[0], ("de", "en"), report or Report(), "train", "data.train.0")
    return [[str(link) for link in pair.links] for pair in found]


@pytest.mark.parametrize("suffix", PACK)
def test_links_come_with_their_pair(tmp_path, suffix):
    corpus = aligned(tmp_path, LINKS, suffix=suffix)
    assert read_links(corpus) == [["0-0", "1-1"], [], ["1-0", "0-1", "1-0"]]
    assert read(corpus | {"limit": 2}) == SENTENCES[:2]
    (first, *_) = pairs(recipe({"files": corpus["files"]}).train[0], ("de", "en"), Report())
    assert first.links is None


def test_faults_of_links(tmp_path):
    sentences = [("a b c", "x y")] * 7
    lines = ["0-0 2-1", "0-0 1:1", "3-0", "0-2", "-1-0", "0?1", "2-0"]
    corpus = aligned(tmp_path, lines, sentences)
    report = Report(stop=False)
    assert read_links(corpus, report) == [["0-0", "2-1"], ["2-0"]]
    path = corpus["alignments"]
    expected = "expected links such as 0-0 1-2 (source-target, from 0), got"
    sizes = "words count from 0, the source has 3 and the target 2"
    assert {reason: (entry.count, entry.examples) for reason, entry in report.reasons.items()} == {
        "not an alignment": (
            3,
            [
                f"{path}:2: {expected} '1:1'",
                f"{path}:5: {expected} '-1-0'",
                f"{path}:6: {expected} '0?1'",
            ],
        ),
        "link beyond the sentence": (
            2,
            [
                f"{path}:3: the link 3-0 leads beyond the sentence: {sizes}",
                f"{path}:4: the link 0-2 leads beyond the sentence: {sizes}",
            ],
        ),
    }
    with pytest.raises(DataError, match=r"links\.pharaoh:2: expected links such as .* data\.bad_lines: skip"):
        read(corpus)
    write(tmp_path / "links.pharaoh", b"0-0\n\xff\n")
    found, report = skipped(corpus)
    assert found == sentences[:1]
    assert report.reasons["broken UTF-8"].examples == [f"{path}:2: byte 0xff in column 1 is no UTF-8"]
    assert (report.reasons["unequal number of lines"].count, report.kept) == (5, 1)
    with pytest.raises(DataError, match=rf"data\.train\.0\.alignments: no such file: {tmp_path}/gone"):
        read(corpus | {"alignments": str(tmp_path / "gone")})


def test_lines_without_links_are_counted_and_a_file_of_them_is_an_error(tmp_path):
    report = Report()
    read_links(aligned(tmp_path, LINKS), report)
    (reason,) = report.reasons.items()
    assert reason == ("without links", Reason(1, [f"{tmp_path}/links.pharaoh:2"]))
    corpus = aligned(tmp_path, ["", " ", ""])
    message = (
        r"links\.pharaoh: expected links such as 0-0 1-2, and no line has one: align the sentences again"
    )
    for stop in (True, False):
        with pytest.raises(DataError, match=message):
            read_links(corpus, Report(stop=stop))
    assert read_links(corpus | {"limit": 2}) == [[], []]  # links may come later
    broken = aligned(tmp_path, ["x"] * 3)  # no line of this is blank
    assert read_links(broken, Report(stop=False)) == []


@pytest.mark.parametrize(("count", "longer", "shorter"), [(2, "x.de", "links"), (5, "links", "x.de")])
def test_as_many_lines_of_links_as_of_sentences(tmp_path, count, longer, shorter):
    corpus = aligned(tmp_path, ["0-0"] * count)
    message = rf"{longer}.*:{min(3, count) + 1}: no counterpart: this file has {max(3, count)} lines, but .*{shorter}"
    with pytest.raises(DataError, match=message):
        read(corpus)
    assert skipped(corpus)[0] == SENTENCES[:count]


def between(source, target, *links, sides):
    """Links between the pieces, as texts."""
    found = between_pieces([Link(*link) for link in links], (source, target), sides)
    first, second = sides[0].split(source).pieces, sides[1].split(target).pieces
    return [(first[link.source], second[link.target]) for link in found]


@pytest.fixture(scope="module")
def letters():
    """Every character is a piece, so that pieces can be told by eye."""
    return [train_vocabulary(["abcdefgh日本語"], size=20, model="char", byte_fallback=False)] * 2


def test_pieces_are_linked_as_their_words_are(letters):
    assert between("ab c", "d ef", (0, 1), (1, 1), sides=letters) == [
        *itertools.product("▁ab", "▁ef"),
        *itertools.product("▁c", "▁ef"),
    ]
    assert between("ab c", "d ef", sides=letters) == []
    assert between("a b", "c d", (0, 1), (0, 1), sides=letters) == [*itertools.product("▁a", "▁d")]


def test_words_are_what_stands_between_ascii_spaces(letters):
    """As fast_align and GIZA++ count them: a no-break space is no space, and Han is not cut."""
    assert words(" a\u00a0b \t c\u3000d\n") == ["a\u00a0b", "c\u3000d"]
    assert between("a\u00a0b c", "d", (0, 0), sides=letters) == [*itertools.product("▁a▁b", "▁d")]
    assert between("a\u00a0b c", "d", (1, 0), sides=letters) == [*itertools.product("▁c", "▁d")]
    assert letters[0].split("a日本 b").words == ["a", "日", "本", "b"]
    assert between("a日本 b", "d", (0, 0), sides=letters) == [*itertools.product("▁a日本", "▁d")]
    assert between("a日本 b", "d", (1, 0), sides=letters) == [*itertools.product("▁b", "▁d")]


def test_what_has_no_piece_has_no_link(letters):
    text = "a \u200b b"  # a word that normalisation deletes still counts
    assert len(words(text)) == 3
    assert between(text, "d", (1, 0), sides=letters) == []
    assert between(text, "d", (2, 0), sides=letters) == [*itertools.product("▁b", "▁d")]
    assert between("\u200b", "d", (0, 0), sides=letters) == []


def test_a_piece_of_several_words_has_the_links_of_all():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["ja ja so nun"]), model_writer=model, vocab_size=20, hard_vocab_limit=False,
        split_by_whitespace=False, user_defined_symbols=["▁ja", "▁so▁so"], minloglevel=2,
    )  # fmt: skip
    sides = [Vocabulary(model.getvalue())] * 2
    assert sides[0].split("ja so so ja").pieces == ["▁ja", "▁so▁so", "▁ja"]
    for word, piece in enumerate(("▁ja", "▁so▁so", "▁so▁so", "▁ja")):
        assert between("ja so so ja", "ja", (word, 0), sides=sides) == [(piece, "▁ja")]


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("mode", ["auto", "spaces", "pieces"])
def test_the_pieces_of_a_word_are_those_that_it_has_alone(model, mode):
    """SentencePiece cuts at spaces first, so that the pieces of a sentence are those of its words in turn."""
    sentences = read(SAMPLE | {"split": "dev"})
    sides = [
        train_vocabulary([pair[side] for pair in sentences], model=model, size=400, words=mode)
        for side in (0, 1)
    ]
    generator = np.random.default_rng(1)
    for pair in sentences[:50]:
        spans = []
        for text, side in zip(pair, sides, strict=True):
            ends = np.cumsum([0, *(len(side.encode([word])[0]) for word in text.split())])
            assert ends[-1] == len(side.encode([text])[0])
            spans.append([range(*span) for span in itertools.pairwise(ends)])
        links = {Link(*(int(generator.integers(len(side))) for side in spans)) for _ in range(7)}
        expected = {cell for s, t in links for cell in itertools.product(spans[0][s], spans[1][t])}
        assert between_pieces(links, pair, sides) == sorted(expected)


def test_links_are_stored_with_their_pair_and_left_out_with_it(tmp_path, vocabularies):
    sentences = [*SENTENCES, ("", "Nothing."), SENTENCES[0], ("Tom regnet.", "Tom rains.")]
    corpus = aligned(tmp_path, [*LINKS, "", "1-0", "0-1"], sentences)
    data = recipe(corpus)
    for _ in range(2):  # from the cache, too
        examples = prepare(data.train, data, vocabularies, "train")
        assert examples.aligned and len(examples) == 4  # without the empty one and the duplicate
        for number, links in enumerate([[(0, 0), (1, 1)], [], [(1, 0), (0, 1)], [(0, 1)]]):
            texts = examples.source_text(number), examples.target_text(number)
            expected = between_pieces([Link(*link) for link in links], texts, vocabularies)
            assert [tuple(link) for link in examples.links(number).tolist()] == expected
        assert examples.links(1).shape == (0, 2) and examples.links(0).dtype == np.int32
    limited = recipe(corpus | {"limit": 1})
    assert len(prepare(limited.train, limited, vocabularies, "train").links(0)) == len(examples.links(0))


def test_links_are_stored_for_who_asks(tmp_path, own_cache, vocabularies):
    corpus = aligned(tmp_path, LINKS)

    def prepared(*train):
        data = recipe(*train)
        return prepare(data.train, data, vocabularies, "train")

    without = prepared({"files": corpus["files"]})
    assert not without.aligned
    (store,) = own_cache.glob("*.arrow")
    assert datasets.Dataset.from_file(str(store)).column_names == [
        "source",
        "target",
        "source_text",
        "target_text",
        "references",
        "ended",
    ]
    first = prepared(corpus)
    assert (
        first.aligned
        and first.fingerprint != without.fingerprint == prepared(table(tmp_path / "y", SENTENCES)).fingerprint
    )
    assert not prepared(corpus, table(tmp_path / "z", SENTENCES)).aligned
    write(Path(corpus["alignments"]), "0-1\n\n\n")  # made anew, and other examples
    again = prepared(corpus)
    assert again.fingerprint != first.fingerprint and again.links(0).tolist() != first.links(0).tolist()


@pytest.mark.parametrize("task", ["copy", "reverse", "sort"])
def test_a_task_brings_its_alignment_when_asked(task, letters):
    corpus = {"task": task, "symbols": 8, "count": 30}
    assert read(corpus | {"alignments": True}) == read(corpus)
    assert all(pair.links is None for pair in pairs(recipe(corpus).train[0], ("x", "y"), Report()))
    for pair in pairs(recipe(corpus | {"alignments": True}).train[0], ("x", "y"), Report()):
        assert [tuple(link) for link in pair.links] == [
            (place, number) for number, place in enumerate(known_alignment(task, pair.source))
        ]
        for link in pair.links:
            assert pair.source.split()[link.source][0] == pair.target.split()[link.target]
    data = recipe(corpus | {"alignments": True})
    assert prepare(data.train, data, letters, "train").aligned
