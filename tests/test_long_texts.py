"""Long texts: how much of a text is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_documents
import torch
from pydantic import ValidationError
from tiny_documents import ROWS, SOURCES, TARGETS, lines, prepared, recipe, texts

from seq2attn.alignment.word_alignment import Link
from seq2attn.data import DataError, Role, prepare
from seq2attn.data.batches import BatchLoader
from seq2attn.data.gold_alignments import between_pieces
from seq2attn.data.sources import PairTokenizer, SourceIds
from seq2attn.inference.generator import Generator
from seq2attn.inference.translator import Translator
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import DecodingRecipe, ModelRecipe, SamplingRecipe, TruncateRecipe, WindowRecipe
from seq2attn.text.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def vocabularies() -> tuple[Vocabulary, Vocabulary]:
    return tiny_documents.vocabularies()


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Any]:
    return lines(tmp_path / "x.jsonl", ROWS)


@pytest.mark.parametrize(
    ("head", "tail", "kept"),
    [(3, 0, [0, 1, 2]), (0, 2, [5, 6]), (2, 3, [0, 1, 4, 5, 6]), (7, 0, None), (4, 3, None), (6, 9, None)],
)
def test_a_window_keeps_head_and_tail(head: int, tail: int, kept: list[int] | None) -> None:
    window = WindowRecipe(head=head, tail=tail)
    for row in (list(range(7)), range(7), np.arange(7, dtype=np.int32)):
        assert list(window.cut(row)) == (kept or list(range(7)))
    assert list(window.cut([])) == []


LIMITS = [
    {"source": 5},
    {"source": {"head": 2, "tail": 3}, "target": 2},
    {"source": {"head": 0, "tail": 4}, "target": {"head": 1, "tail": 1}},
]


@pytest.mark.parametrize("truncate", LIMITS)
@pytest.mark.parametrize("role", ["train", "dev"])
def test_long_texts_are_truncated_in_training_and_validation(
    corpus: dict[str, Any], vocabularies: tuple[Vocabulary, Vocabulary], truncate: dict[str, Any], role: Role
) -> None:
    whole = prepared(corpus, vocabularies, role)
    longest = 5 if "target" in truncate else 30
    examples = prepared(corpus, vocabularies, role, truncate=truncate, filter={"max_length": longest})
    assert texts(examples) == texts(whole)  # as they stand in the data; long ones pass the filter now
    assert [examples.references(n) for n in range(len(whole))] == [
        whole.references(n) for n in range(len(whole))
    ]
    cut = 0
    for number in range(len(whole)):
        for side, (found, long) in enumerate(
            ((examples.source, whole.source), (examples.target, whole.target))
        ):
            window, ids = truncate.get(("source", "target")[side]), long(number).tolist()
            head, tail = (
                (window, 0) if isinstance(window, int) else (window or {"head": 99, "tail": 0}).values()
            )
            expected = ids if len(ids) <= head + tail else ids[:head] + ids[len(ids) - tail :]
            assert found(number).tolist() == expected
            cut += len(expected) < len(ids) and side == 0
    assert examples.source_lengths.max() <= 5 < whole.source_lengths.max() and cut
    assert examples.report.reasons["truncated, but kept"].count >= cut
    assert "x.jsonl:1: " in examples.report.reasons["truncated, but kept"].examples[0]
    assert examples.fingerprint != whole.fingerprint
    assert prepared(corpus, vocabularies, role, truncate={"source": 150}).fingerprint == whole.fingerprint


def test_without_truncation_long_texts_are_left_out(
    corpus: dict[str, Any], vocabularies: tuple[Vocabulary, Vocabulary]
) -> None:
    with pytest.raises(DataError, match="too long"):
        prepared(corpus, vocabularies, filter={"max_length": 2})


@pytest.mark.parametrize("truncate", LIMITS)
def test_links_lead_to_the_pieces_that_are_read(
    tmp_path: Path, vocabularies: tuple[Vocabulary, Vocabulary], truncate: dict[str, Any]
) -> None:
    source, target = "It rained. Tom had no hat.", "Tom got wet . Rain fell ."
    for name, text in (("a", source), ("b", target), ("c", "0-0 1-4 1-5 2-0 5-6")):
        (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    corpus = {"files": [str(tmp_path / "a"), str(tmp_path / "b")], "alignments": str(tmp_path / "c")}
    data = recipe(corpus, truncate=truncate, dev={"files": corpus["files"]})
    examples = prepare(data.train, data, vocabularies, "train")
    links = [Link(0, 0), Link(1, 4), Link(1, 5), Link(2, 0), Link(5, 6)]
    wanted = {tuple(link) for link in between_pieces(links, (source, target), vocabularies)}
    kept = [
        data.truncate.cut(side, range(len(vocabularies[side].encode([text])[0])))
        for side, text in enumerate((source, target))
    ]
    found = {(kept[0][s], kept[1][t]) for s, t in examples.links(0).tolist()}  # as places in the whole texts
    assert found == {link for link in wanted if link[0] in kept[0] and link[1] in kept[1]}
    assert found and found != wanted


def test_sampled_pieces_are_truncated_the_same(
    corpus: dict[str, Any], vocabularies: tuple[Vocabulary, Vocabulary]
) -> None:
    truncate = TruncateRecipe.model_validate({"source": {"head": 2, "tail": 3}, "target": 4})
    examples = prepared(corpus, vocabularies, truncate=truncate.model_dump())
    sampling = SamplingRecipe(alpha=0.6)
    loader = BatchLoader(examples, PairTokenizer(*vocabularies, truncate), 99, 5, sampling)
    numbers = np.arange(len(examples))
    batch, free = (
        loader.batch(numbers, 1),
        BatchLoader(examples, PairTokenizer(*vocabularies), 99, 5, sampling),
    )
    assert batch.source.mask.sum(1).tolist() == [
        min(5, n) + 1 for n in free.batch(numbers, 1).source.mask.sum(1) - 1
    ]
    assert batch.target_mask.sum(1).max() == 4  # an end that was cut off is not learnt
    whole = free.batch(numbers, 1).source.tokens[0].tolist()
    length = int(free.batch(numbers, 1).source.mask[0].sum()) - 1
    assert batch.source.tokens[0, :5].tolist() == whole[:2] + whole[length - 3 : length]
    assert not torch.equal(batch.source.tokens, loader.batch(numbers, 2).source.tokens)  # still drawn anew


@pytest.fixture(scope="module")
def translator(vocabularies: tuple[Vocabulary, Vocabulary]) -> Iterator[Translator]:
    sizes = {"kind": "recurrent", "embedding": 5, "size": 7}
    decoder = {**sizes, "order": "bahdanau", "attention": {"score": "additive"}}
    torch.manual_seed(1)
    model = build(
        ModelRecipe.model_validate({"encoder": sizes, "decoder": decoder}),
        *(one.size for one in vocabularies),
    )
    truncate = TruncateRecipe.model_validate({"source": {"head": 4, "tail": 3}, "target": 2})
    yield Translator(Generator(model, PairTokenizer(*vocabularies, truncate)), DecodingRecipe())


def test_inference_reads_what_training_read(
    corpus: dict[str, Any], vocabularies: tuple[Vocabulary, Vocabulary], translator: Translator
) -> None:
    examples = prepared(
        corpus, vocabularies, "dev", truncate=translator.generator.tokenizer.truncate.model_dump()
    )
    plain = Generator(translator.model, PairTokenizer(*vocabularies))
    found = translator.translate(SOURCES[:3])
    for number, one in enumerate(found):
        ids = examples.source(number).tolist()
        assert one.source.ids == ids
        assert (len(one.alignment), len(one.alignment[0])) == (len(one.target.words), len(one.source.words))
        [searched] = plain.search([SourceIds(ids)], translator.decoding)
        assert one.score == pytest.approx(searched[0].score, abs=1e-5)
        target = TARGETS[number][0]
        forced = translator.align(SOURCES[number], target)
        assert forced.source.ids == ids and forced.text == target  # what is given is not cut
        [known] = plain.forced_decoding([SourceIds(ids)], vocabularies[1].encode([target]), 4096, None)
        assert forced.log_probability == pytest.approx(known.log_probability, abs=1e-5)
        [said] = translator.log_probabilities([SOURCES[number]], [target])
        assert said == pytest.approx(known.log_probability, abs=1e-5)
    assert found[0].source.words[0] == "It" and found[0].source.words[-1] == "sneezed."
    assert len(found[0].source.ids) == 7 < len(vocabularies[0].encode(SOURCES[:1])[0])


def test_tokens_at_places_keep_their_words(vocabularies: tuple[Vocabulary, Vocabulary]) -> None:
    tokens = vocabularies[0].split(SOURCES[0])
    assert tokens.at(range(len(tokens.ids))) == tokens
    assert tokens.at([]) == ([], [], [], [])
    some = tokens.at([1, 4, len(tokens.ids) - 1])
    assert [some.words[word] for word in some.word_of] == [
        tokens.words[tokens.word_of[place]] for place in (1, 4, len(tokens.ids) - 1)
    ]
    assert sorted(set(some.word_of)) == list(range(len(some.words)))
    assert some.ids == [tokens.ids[place] for place in (1, 4, -1)]


@pytest.mark.parametrize(
    ("truncate", "message"),
    [
        ({"source": 0}, r"truncate\.source\n +expected a whole number of at least 1, or \{head: .*\}, got 0"),
        ({"source": "all"}, r"expected a whole number of at least 1, or \{head: \.\.\., tail: \.\.\.\}, got 'all'"),
        ({"target": True}, r"truncate\.target\n +expected a whole number .* got true"),
        ({"source": {"head": 0}}, r"truncate\.source\n +keeps nothing: set head or tail"),
        ({"source": {"haed": 3}}, r"truncate\.source\.haed\n +unknown key 'haed' \(did you mean head\?"),
        ({"sorce": 3}, r"truncate\.sorce\n +unknown key 'sorce' \(did you mean source\?"),
        (
            {"source": {"head": 150, "tail": 51}},
            r"truncate\.source\n +keeps 201 pieces, but filter\.max_length leaves out texts of more than 200: "
            "raise it to 201",
        ),
    ],
)  # fmt: skip
def test_faults_of_truncation(truncate: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe({"sample": "tatoeba_de_en"}, languages=["de", "en"], truncate=truncate)


def test_a_window_may_be_a_number() -> None:
    short = TruncateRecipe.model_validate({"source": 3, "target": {"head": 2, "tail": 1}})
    assert short.source == WindowRecipe(head=3, tail=0)
    assert TruncateRecipe.model_validate(short.model_dump(mode="json")) == short
    assert short.cut(0, range(9)) == [0, 1, 2] and short.cut(1, range(9)) == [0, 1, 8]
    assert TruncateRecipe().cut(0, range(9)) == range(9)
    schema = TruncateRecipe.model_json_schema()["properties"]["source"]
    assert {"type": "integer", "minimum": 1} in schema["anyOf"]
