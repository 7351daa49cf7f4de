"""Long texts: sentences and turns that stay visible, several references, and how much of a text is read."""

import gzip
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from seq2attn.alignment.word_alignment import Link
from seq2attn.data import DataError, Examples, Report, Role, pairs, prepare, training_text
from seq2attn.data.batches import BatchLoader
from seq2attn.data.gold_alignments import between_pieces
from seq2attn.inference.translator import Translator
from seq2attn.metrics import score, transposed
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import DataRecipe, ModelRecipe, SamplingRecipe, TruncateRecipe, WindowRecipe
from seq2attn.text.sentence_splitter import sentences
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.vocabulary_training import train_vocabulary

ROWS: list[dict[str, Any]] = [
    {"article": ["It rained.", "Tom had\nno hat. ", "He sneezed."], "highlights": ["Tom got wet .", "Rain fell ."]},
    {"article": ["Only one."], "highlights": ["One .", "One .", "One is there ."]},
    {"article": "Ann: Hi\r\nBob: Hello\r\rAnn: Bye", "highlights": "They met\r\nand parted ."},
    {"article": [], "highlights": ["Nothing .", ""]},
]  # fmt: skip
SOURCES = ["It rained.\nTom had no hat. \nHe sneezed.", "Only one.", "Ann: Hi\nBob: Hello\n\nAnn: Bye", ""]
TARGETS = [
    ["Tom got wet .", "Rain fell ."],
    ["One .", "One .", "One is there ."],
    ["They met\nand parted ."],
    ["Nothing .", ""],
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.fixture(scope="module")
def vocabularies() -> tuple[Vocabulary, Vocabulary]:
    source, target = (text for text in (SOURCES * 9, list(itertools.chain(*TARGETS)) * 9))
    return train_vocabulary(source, size=293, model="bpe"), train_vocabulary(target, size=283, model="bpe")


def lines(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"table": str(path), "columns": ["article", "highlights"]}


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Any]:
    return lines(tmp_path / "x.jsonl", ROWS)


def recipe(corpus: dict[str, Any], **options: Any) -> DataRecipe:
    return DataRecipe.model_validate(
        {"languages": ["doc", "sum"], "train": [corpus], "dev": corpus, **options}
    )


def prepared(
    corpus: dict[str, Any], sides: tuple[Vocabulary, Vocabulary], role: Role = "train", **options: Any
) -> Examples:
    data = recipe(corpus, **options)
    return prepare(data.train if role == "train" else [data.dev], data, sides, role)


def texts(examples: Examples) -> list[tuple[str, str]]:
    return [(examples.source_text(n), examples.target_text(n)) for n in range(len(examples))]


# ---- sentences, turns, references -------------------------------------------------------------------


def test_lists_of_sentences_and_of_references_are_read(corpus: dict[str, Any]) -> None:
    found = list(pairs(recipe(corpus).train[0], ("doc", "sum"), Report()))
    assert [pair.source for pair in found] == SOURCES
    assert [[pair.target, *pair.references] for pair in found] == TARGETS
    assert [pair.line for pair in found] == [1, 2, 3, 4]
    assert sentences(found[0].source) == ["It rained.", "Tom had no hat.", "He sneezed."]
    assert [[one.target for one in pair.apart()] for pair in found] == TARGETS
    assert all(not one.references and one.source == found[0].source for one in found[0].apart())


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "json", "folder"])
@pytest.mark.parametrize("columns", [("article", "highlights"), ("document", "summary")])
def test_datasets_of_the_hub_are_read_the_same(
    tmp_path: Path, kind: str, columns: tuple[str, str], streaming: bool
) -> None:
    plain = [0, 1] if columns[0] == "article" else [2]  # a column is of lists, or of texts
    rows = [{"id": str(n), columns[0]: ROWS[n]["article"], columns[1]: ROWS[n]["highlights"]} for n in plain]
    folder = tmp_path / "hub"
    folder.mkdir()
    datasets.disable_progress_bars()
    dataset = datasets.Dataset.from_list(rows)
    file = folder / ("train.jsonl" if kind == "json" else "train.parquet")
    _ = dataset.to_json(file) if kind == "json" else dataset.to_parquet(file)
    named = {"dataset": str(folder)} if kind == "folder" else {"dataset": kind, "data_files": str(file)}
    data = recipe({**named, "columns": list(columns), "streaming": streaming})
    found = list(pairs(data.train[0], data.languages, Report()))
    assert [pair.source for pair in found] == [SOURCES[n] for n in plain]
    assert [[pair.target, *pair.references] for pair in found] == [TARGETS[n] for n in plain]


def test_faults_of_lists(tmp_path: Path) -> None:
    rows = [
        {"article": ["a", 3], "highlights": ["x"]},
        {"article": ["a"], "highlights": []},
        {"article": ["a"], "highlights": [["x"]]},
        {"article": ["a\ud83d"], "highlights": ["x"]},
        {"article": ["a"], "highlights": {"0": "x"}},
    ]
    data = recipe(lines(tmp_path / "x.jsonl", rows), bad_lines="skip")
    report = Report(stop=False)
    assert list(pairs(data.train[0], data.languages, report)) == []
    path, expected = tmp_path / "x.jsonl", "where a text, or a list of texts, was expected"
    assert {reason: entry.examples for reason, entry in report.reasons.items()} == {
        "not a text": [
            f'{path}:1: article is ["a", 3] {expected}',
            f'{path}:3: highlights is [["x"]] {expected}',
            f'{path}:5: highlights is {{"0": "x"}} {expected}',
        ],
        "no reference": [f"{path}:2: highlights is an empty list where at least one text was expected"],
        "broken UTF-16": [f"{path}:4: article has half a surrogate pair, which is no character"],
    }
    with pytest.raises(DataError, match=r"x\.jsonl:1: article is .* data\.bad_lines: skip"):
        list(pairs(data.train[0], data.languages, Report()))


def test_each_reference_is_a_pair_in_training(
    corpus: dict[str, Any], vocabularies: tuple[Vocabulary, Vocabulary]
) -> None:
    examples = prepared(corpus, vocabularies)
    expected = [
        (source, target) for source, several in zip(SOURCES, TARGETS, strict=True) for target in several
    ]
    assert texts(examples) == list(dict.fromkeys(expected))[:-2]  # without the duplicate and the empty ones
    assert all(
        examples.references(number) == [examples.target_text(number)] for number in range(len(examples))
    )
    counts = {reason: entry.count for reason, entry in examples.report.reasons.items()}
    assert (examples.report.read, examples.report.kept, counts) == (8, 5, {"duplicate": 1, "empty": 2})
    assert len(prepared(corpus | {"limit": 1}, vocabularies)) == 2  # a limit counts what is read
    assert list(training_text(recipe(corpus))) == [
        text for source, several in zip(SOURCES, TARGETS, strict=True) for text in (source, *several)
    ]
    assert list(training_text(recipe(corpus), (0,))) == SOURCES


def test_all_references_are_kept_for_measuring(
    corpus: dict[str, Any], vocabularies: tuple[Vocabulary, Vocabulary]
) -> None:
    for _ in range(2):  # from the cache, too
        examples = prepared(corpus, vocabularies, "dev")
        assert texts(examples) == [(s, several[0]) for s, several in zip(SOURCES, TARGETS, strict=True)]
        assert [examples.references(number) for number in range(4)] == TARGETS
    with pytest.raises(IndexError, match="example 4 of 4"):
        examples.references(4)
    golds = transposed([examples.references(number) for number in range(3)])
    said = ["Rain fell .", "One is there .", "They met and parted ."]
    assert [one.value for one in score(said, golds, ["rouge-l", "exact"], bootstrap=0)] == [100.0, 100.0]
    fewer = [{**row, "highlights": TARGETS[n][0]} for n, row in enumerate(ROWS)]
    changed = prepared(lines(Path(corpus["table"]).with_name("y.jsonl"), fewer), vocabularies, "dev")
    assert texts(changed) == texts(examples) and changed.fingerprint != examples.fingerprint


@pytest.mark.parametrize("options", [{}, {"nfkc": False}, {"lowercase": True}, {"model": "word"}])
def test_a_vocabulary_reads_line_feeds_as_spaces(options: dict[str, Any]) -> None:
    vocabulary = train_vocabulary(
        [*SOURCES, *TARGETS[0], *TARGETS[2]], **{"size": 300, "model": "bpe", **options}
    )
    for text in SOURCES:
        assert vocabulary.encode([text]) == vocabulary.encode([text.replace("\n", " ")])
    assert not any("\n" in piece for text in SOURCES for piece in vocabulary.split(text).pieces)


def test_plain_files_stay_one_sentence_a_line(tmp_path: Path) -> None:
    for name, text in (("a", "x\ry\r\nz\n"), ("b", "1\n2\n")):
        (tmp_path / name).write_bytes(text.encode())
    data = recipe({"files": [str(tmp_path / "a"), str(tmp_path / "b")]})
    assert [pair[:2] for pair in pairs(data.train[0], data.languages, Report())] == [
        ("x\ry", "1"),
        ("z", "2"),
    ]


# ---- how much is read -------------------------------------------------------------------------------


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
    loader = BatchLoader(examples, *vocabularies, 99, 5, SamplingRecipe(alpha=0.6), truncate)
    numbers = np.arange(len(examples))
    batch, free = (
        loader.batch(numbers, 1),
        BatchLoader(examples, *vocabularies, 99, 5, SamplingRecipe(alpha=0.6)),
    )
    assert batch.source_mask.sum(1).tolist() == [
        min(5, n) + 1 for n in free.batch(numbers, 1).source_mask.sum(1) - 1
    ]
    assert batch.gold_mask.sum(1).max() == 4  # an end that was cut off is not learnt
    whole = free.batch(numbers, 1).source[0].tolist()
    length = int(free.batch(numbers, 1).source_mask[0].sum()) - 1
    assert batch.source[0, :5].tolist() == whole[:2] + whole[length - 3 : length]
    assert not torch.equal(batch.source, loader.batch(numbers, 2).source)  # still drawn anew


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
    yield Translator(model, *vocabularies, truncate=truncate)


def test_inference_reads_what_training_read(
    corpus: dict[str, Any], vocabularies: tuple[Vocabulary, Vocabulary], translator: Translator
) -> None:
    examples = prepared(corpus, vocabularies, "dev", truncate=translator.truncate.model_dump())
    plain = Translator(translator.model, *vocabularies)
    found = translator.translate(SOURCES[:3])
    for number, one in enumerate(found):
        ids = examples.source(number).tolist()
        assert one.source.ids == ids
        assert (len(one.alignment), len(one.alignment[0])) == (len(one.target.words), len(one.source.words))
        [searched] = plain.hypotheses([ids], plain.decoding)
        assert one.score == pytest.approx(searched[0].score, abs=1e-5)
        target = TARGETS[number][0]
        forced = translator.align(SOURCES[number], target)
        assert forced.source.ids == ids and forced.text == target  # what is given is not cut
        [known] = plain.forced_decoding([ids], vocabularies[1].encode([target]), weights=False)
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
            r"truncate\.source\n +keeps 201 pieces, but filter\.max_length leaves out what has more than 200: "
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


# ---- real data --------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.environ.get("SEQ2ATTN_DATA"), reason="needs samsum in $SEQ2ATTN_DATA")
def test_samsum() -> None:
    folder = Path(os.environ["SEQ2ATTN_DATA"]) / "samsum"
    corpus = {"table": str(folder / "dev.jsonl.gz"), "columns": ["source", "target"]}
    found = list(pairs(recipe(corpus).train[0], ("x", "y"), Report()))
    assert len(found) == 818 and not any("\r" in pair.source + pair.target for pair in found)
    turns = [len(sentences(pair.source)) for pair in found]
    assert np.mean(turns) == pytest.approx(10.83, abs=0.5) and not any(pair.references for pair in found)
    speakers = [line.partition(":")[0] for line in sentences(found[0].source)]
    assert set(speakers) == {"A", "B"}


@pytest.mark.skipif(not os.environ.get("SEQ2ATTN_DATA"), reason="needs scitldr in $SEQ2ATTN_DATA")
def test_scitldr() -> None:
    folder = Path(os.environ["SEQ2ATTN_DATA"]) / "scitldr"
    train, dev = ({"table": str(folder / f"{split}.jsonl.gz"), "columns": ["source", "targets"]}
                  for split in ("train", "dev"))  # fmt: skip
    data = recipe(train, dev=dev, truncate={"source": 200, "target": 40})
    vocabulary = train_vocabulary(itertools.islice(training_text(data), 500), size=1000)
    held = prepare([data.dev], data, (vocabulary, vocabulary), "dev")
    counts = [len(held.references(number)) for number in range(len(held))]
    assert len(held) == 619 and min(counts) == 1 and max(counts) > 2
    assert (held.source_lengths.max(), held.target_lengths.max()) == (200, 40)
    rows = (folder / "dev.jsonl.gz").read_bytes()
    first = json.loads(gzip.decompress(rows).split(b"\n")[0])
    assert sentences(held.source_text(0)) == [" ".join(one.split("\n")).strip() for one in first["source"]]
    assert held.references(0) == first["targets"]
    training = prepare(data.train, data, (vocabulary, vocabulary), "train")
    assert len(training) == training.report.kept > 1900
