"""Rows of labelled data that are easily misread: comments, lists of labels, labels below a dotted key."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import tiny_runs
from click.testing import CliRunner

from seq2attn import load
from seq2attn.cli import cli
from seq2attn.data import DataError, Report, pairs
from seq2attn.recipe import RECIPES
from seq2attn.runs.training_run import train
from seq2attn.tasks.loading import learn
from seq2attn.text.word_vocabulary import WordVocabularyError

pytestmark = pytest.mark.usefixtures("own_cache")


def found(corpus: dict[str, Any], scheme: str | None, report: Report | None = None) -> list[tuple[str, str]]:
    """(words, labels) of a corpus."""
    task = "tagging" if scheme else "classification"
    metric = "f1" if scheme else "accuracy"
    recipe = RECIPES[task].model_validate(
        {
            "task": task,
            "data": {"train": corpus, "dev": corpus},
            "training": {"metric": metric, "metrics": [metric], "max_steps": 1},
        }
    )
    rows = pairs(recipe.data.train[0], ("words", "labels"), report or Report(), scheme=scheme)
    return [(pair.source, pair.target) for pair in rows]


# ---- comments, and lists of labels ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "comments"),
    [
        ("# sent_id = 1\na O\n# O\n\n#\tO\nb O\n", 1),  # a sign that is a word is none
        ("# one\n# two words or more\n\n# 3 = 3\na\tO\n# O\n\n# O\nb\tO\n", 4),
        ("a O\n# O\n\n# O\nb O\n", 0),
    ],
)
def test_a_comment_is_no_word_and_loses_no_sentence(tmp_path: Path, text: str, comments: int) -> None:
    file, report = tmp_path / "a.conll", Report()
    file.write_text(text, encoding="utf-8")
    sentences = found({"conll": str(file)}, "bio", report)
    assert sentences[0] == ("a #", "O O") and sentences[-1] in (("# b", "O O"), ("b", "O"))
    assert len(sentences) == 2 and ("comment" in report.reasons) == (comments > 0)
    assert not comments or report.reasons["comment"].count == comments


def test_a_text_has_one_label(tmp_path: Path) -> None:
    """Else `joy love` and `love joy` are two labels more."""
    file, report = tmp_path / "a.jsonl", Report(stop=False)
    rows = [{"text": "a", "label": label} for label in (["x", "y"], ["x"], "x y", [1, 2], [True], ["a", "a"])]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    assert found({"table": str(file)}, None, report) == [("a", "x"), ("a", "x y"), ("a", "true")]
    assert report.reasons["several labels"].count == 3
    assert report.reasons["several labels"].examples[0] == (
        f'{file}:1: label is ["x", "y"] where one label was expected: a text has exactly one'
    )


def test_a_label_is_one_line_without_tabs(tmp_path: Path) -> None:
    """Else `classify` prints more lines than it reads, or more columns than two."""
    file, report = tmp_path / "a.jsonl", Report(stop=False)
    labels = ["x\ty", "x\ny", "x\ry", "x\x00", "x\x85", "x\u2028y", "x y", "x\u200dy"]
    rows = [{"text": "a", "label": label} for label in labels]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    assert found({"table": str(file)}, None, report) == [("a", "x y"), ("a", "x\u200dy")]
    assert report.reasons["not a label"].count == 6
    expected = f"{file}:1: expected a label without tabs and line breaks, got 'x\\ty'"
    assert report.reasons["not a label"].examples[0] == expected


def test_a_corpus_with_a_single_label_is_named(tmp_path: Path) -> None:
    table = tmp_path / "one.tsv"
    table.write_text("a b\tx\nc d\tx\n", encoding="utf-8")
    corpus = {"table": str(table), "columns": [0, 1]}
    data = {"train": corpus, "dev": corpus}
    training = {"metric": "accuracy", "metrics": ["accuracy"], "max_steps": 1}
    recipe = RECIPES["classification"].model_validate(
        {"task": "classification", "data": data, "training": training}
    )
    with pytest.raises(WordVocabularyError, match=rf"^{table}: expected at least two labels, got x"):
        learn(recipe)


def test_class_labels_below_a_dotted_key_have_their_names(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["ham", "spam"])
    text = datasets.Value("string")
    cases = [
        ({"a": {"t": text, "l": label}}, {"a": {"t": "u", "l": 1}}, ["a.t", "a.l"]),
        ({"t": text, "l": datasets.List(label)}, {"t": "u", "l": [0, 1]}, ["t", "l.1"]),
        ({"t": text, "l": datasets.List({"k": label})}, {"t": "u", "l": [{"k": 1}]}, ["t", "l.0.k"]),
        ({"t": text, "l.k": label}, {"t": "u", "l.k": 1}, ["t", "l.k"]),
    ]
    for number, (features, row, columns) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows = datasets.Dataset.from_list([row], features=datasets.Features(features))
        rows.to_parquet(folder / "train-0.parquet")
        assert found({"dataset": str(folder), "columns": columns}, None) == [("u", "spam")]


# ---- the scheme of tags -----------------------------------------------------------------------------

SENTENCE = "Ana B-PER\nMas I-PER\nva O\na O\nRiga B-LOC\n\n"
BROKEN = "Ana B-PER\nde I-LOC\n\n"  # as in the training data of CoNLL-2002


def tagging(folder: Path, **texts: str) -> Any:
    for role, text in texts.items():
        (folder / role).write_text(text, encoding="utf-8")
    return RECIPES["tagging"].model_validate(
        {
            "task": "tagging",
            "data": {role: {"conll": str(folder / role)} for role in texts},
            "training": {"metric": "f1", "metrics": ["f1"], "max_steps": 1},
        }
    )


def test_a_clear_majority_shows_the_scheme_and_the_rest_is_repaired(tmp_path: Path) -> None:
    """A wrong tag in a thousand sentences does not stop the program, in none of the data sets."""
    task = learn(
        tagging(
            tmp_path,
            train=SENTENCE * 500 + BROKEN + SENTENCE * 499,
            dev=BROKEN,  # by itself of no scheme
            test="Ana I-PER\nva O\n\n" * 3,  # by itself iob1
        )
    )
    for role, repaired in (("train", 1), ("dev", 1), ("test", 3)):
        examples = task.examples(role)
        assert examples.report.schemes == ["bio"]
        assert examples.report.reasons["tags repaired to bio"].count == repaired
    assert task.examples("dev").target_text(0) == "B-PER B-LOC"
    assert task.examples("test").target_text(0) == "B-PER O"


def test_without_a_majority_the_scheme_must_be_named(tmp_path: Path) -> None:
    recipe = tagging(tmp_path, train=SENTENCE * 9 + BROKEN, dev=SENTENCE)
    with pytest.raises(DataError, match=r"(?s)no scheme fits all tags.*bio: 1 of 10 sentences break it"):
        learn(recipe)
    task = learn(tagging(tmp_path, train=SENTENCE * 99 + "a O\n\n" * 999, dev=SENTENCE))
    (tmp_path / "train").unlink()  # as where a trained model is scored
    assert task.examples("dev").report.schemes == ["bio"]


def test_a_type_with_spaces_comes_back_as_it_is(tmp_path: Path) -> None:
    rows = [(["EU", "x"], ["B-Medical Device", "O"]), (["New York", "a"], ["B-Some Place", "I-Some Place"])]
    lines = [json.dumps({"tokens": words, "tags": tags}) for words, tags in rows * 9]
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "r.yaml").write_text(
        "task: tagging\ndata: {train: {table: x.jsonl}, dev: {table: x.jsonl}, test: {table: x.jsonl}}\n"
        "model: {embedding: {size: 16, dropout: 0}, encoder: {kind: recurrent, size: 16, dropout: 0}}\n"
        "training: {max_steps: 60, validate_every: 60, learning_rate: 0.02}\n",
        encoding="utf-8",
    )
    run = tmp_path / "run"
    trained = train(tmp_path / "r.yaml", run, display=tiny_runs.silent())
    assert trained.scores[0].value == 100
    (annotation,) = load(run).tag([["EU", "x"]])
    assert [entity.type for entity in annotation.entities] == ["Medical Device"]
    assert annotation.tags == ["B-Medical Device", "O"] and str(annotation) == "B-Medical\u00a0Device O"
    (tmp_path / "in.conll").write_text("EU\nx\n\n", encoding="utf-8")
    output = CliRunner().invoke(cli, ["tag", str(run), "--conll", str(tmp_path / "in.conll")]).stdout
    assert output == "EU B-Medical\u00a0Device\nx O\n\n"  # columns stay columns
