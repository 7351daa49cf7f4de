"""Labelled data as people have it: CoNLL files of any scheme, JSONL, TSV, datasets with class labels."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from seq2attn.data import DataError, Report, pairs
from seq2attn.recipe import ClassificationRecipe, RecipeError, TaggingRecipe, read

IOB1 = """-DOCSTART- -X- -X- O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
British JJ I-NP B-MISC
. . O O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
"""
BIO = [("EU rejects German British .", "B-ORG O B-MISC B-MISC O"), ("Peter Blackburn", "B-PER I-PER")]


def found(corpus: dict[str, Any], scheme: str | None = "auto", report: Report | None = None) -> list[Any]:
    """(words, labels) of a corpus."""
    kind = TaggingRecipe if scheme else ClassificationRecipe
    recipe = kind.model_validate(
        {
            "task": "tagging" if scheme else "classification",
            "data": {"train": corpus, "dev": corpus},
            "training": {"metric": "loss", "metrics": ["f1" if scheme else "accuracy"], "max_steps": 1},
        }
    )
    some = pairs(recipe.data.train[0], ("words", "labels"), report or Report(), scheme=scheme)
    return [(pair.source, pair.target) for pair in some]


def test_conll_columns_become_sentences_with_bio_tags(tmp_path: Path) -> None:
    file = tmp_path / "eng.train"
    file.write_text(IOB1, encoding="utf-8")
    assert found({"conll": str(file)}) == BIO
    assert found({"conll": str(file), "columns": [0, 1]}, None)[1] == ("Peter Blackburn", "NNP NNP")


def test_a_last_sentence_needs_no_blank_line_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_bytes(b"\xef\xbb\xbfAnna\tB-PER\r\n \r\n\r\nBo\tS-PER")
    assert found({"conll": str(file)}, "bioes") == [("Anna", "B-PER"), ("Bo", "B-PER")]


def test_what_breaks_the_scheme_is_repaired_and_said(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text("a I-PER\nb I-PER\n\nc B-LOC\nd I-PER\n", encoding="utf-8")
    report = Report()
    assert found({"conll": str(file)}, "bio", report) == [("a b", "B-PER I-PER"), ("c d", "B-LOC B-PER")]
    assert report.reasons["tags repaired to bio"].count == 2
    with pytest.raises(DataError, match=r"(?s)no scheme fits all tags.*data\.scheme"):
        found({"conll": str(file)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a O\nb\n", r"a\.conll:2: 1 column where \[0, -1\] were expected"),
        ("a X-PER\n", "tag 1 of 1 is 'X-PER'"),
        ("a O\nb\tO\n\nc d e\n", r"a\.conll:4: tag 1 of 1 is 'e'"),
    ],
)
def test_a_bad_line_is_named_or_left_out(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.conll"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        found({"conll": str(file)}, "bio")


def test_jsonl_has_lists_of_words_and_tags(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [{"tokens": ["New York", "!"], "tags": ["S-LOC", "O"]}, {"tokens": ["a"], "tags": ["O", "O"]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report = Report(stop=False)
    # a space within a word would make two of it
    assert found({"table": str(file)}, "bioes", report) == [("New\u00a0York !", "B-LOC O")]
    assert report.reasons["tags do not fit"].examples == [f"{file}:2: 1 words and 2 tags"]


def test_texts_with_a_label_are_cut_into_words(tmp_path: Path) -> None:
    file, table = tmp_path / "a.jsonl", tmp_path / "a.tsv"
    file.write_text('{"text": "It\'s spam!", "label": 1}\n{"text": ["as", "is!"], "label": "very good"}\n')
    corpus = {"table": str(file), "columns": ["text", "label"]}
    assert found(corpus, None) == [("It 's spam !", "1"), ("as is!", "very good")]
    table.write_text("ham\tHello, you\n")
    assert found({"table": str(table), "columns": [1, 0]}, None) == [("Hello , you", "ham")]


def test_datasets_with_class_labels_are_read_by_their_names(tmp_path: Path) -> None:
    names = ["O", "B-person", "I-person"]
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names)),
            "kind": datasets.ClassLabel(names=["ham", "spam"]),
        }
    )
    rows = {"tokens": [["Jo", "Do", "is"], ["in"]], "ner_tags": [[1, 2, 0], [0]], "kind": [1, 0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-0.parquet")
    corpus = {"dataset": str(tmp_path), "split": "train"}
    assert found(corpus) == [("Jo Do is", "B-person I-person O"), ("in", "O")]
    assert found(corpus | {"columns": ["tokens", "kind"]}, None) == [("Jo Do is", "spam"), ("in", "ham")]
    with pytest.raises(DataError, match="no column label; there are: tokens"):
        found(corpus | {"columns": ["tokens", "label"]}, None)


def test_a_sample_has_two_languages() -> None:
    some = found({"sample": "tatoeba_de_en", "limit": 4}, None)
    assert [label for _, label in some] == ["de", "en"] * 2
    assert all(word for text, _ in some for word in text.split(" "))


def test_recipes_of_labels_say_what_does_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "task: tagging\n"
        "data: {train: {sample: tatoeba_de_en}, dev: {conll: missing.conll, weight: 2}}\n"
        "model: {encoder: {kind: recurrent}, head: {kind: linear}, decoder: {kind: recurrent}}\n"
        "training: {metrics: [bleu], max_steps: 1}\n",
        encoding="utf-8",
    )
    with pytest.raises(RecipeError) as error:
        read(file)
    text = str(error.value)
    assert f"r.yaml:2  data.dev.conll: no such file: {tmp_path / 'missing.conll'}" in text
    assert "model.decoder: unknown key 'decoder'" in text
    file.write_text(file.read_text().replace(", decoder: {kind: recurrent}", "").replace("missing", "r"))
    (tmp_path / "r.conll").write_text("a O\n")
    with pytest.raises(RecipeError) as error:
        read(file)
    text = str(error.value)
    assert "its sentences have a language each, and its words no tags" in text
    assert "dev.weight: only training corpora have weights" in text
