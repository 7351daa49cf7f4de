"""Sentences and turns of a source that stay visible, and several references."""

import gzip
import itertools
import json
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import tiny_documents
from tiny_documents import ROWS, SOURCES, TARGETS, lines, prepared, recipe, texts

from seq2attn.data import DataError, Report, pairs, prepare, training_text
from seq2attn.metrics import score, transposed
from seq2attn.text.sentence_splitter import sentences
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.vocabulary_training import train_vocabulary

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def vocabularies() -> tuple[Vocabulary, Vocabulary]:
    return tiny_documents.vocabularies()


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Any]:
    return lines(tmp_path / "x.jsonl", ROWS)


def test_lists_of_sentences_and_of_references_are_read(corpus: dict[str, Any]) -> None:
    found = list(pairs(recipe(corpus).train[0], ("doc", "sum"), Report()))
    assert [pair.source for pair in found] == SOURCES
    assert [[pair.target, *pair.references] for pair in found] == TARGETS
    assert [pair.line for pair in found] == [1, 2, 3, 4]
    assert sentences(found[0].source) == ["It rained.", "Tom had no hat.", "He sneezed."]
    assert [[one.target for one in pair.per_reference()] for pair in found] == TARGETS
    assert all(not one.references and one.source == found[0].source for one in found[0].per_reference())


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
