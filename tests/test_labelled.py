"""Labelled data as people have it: CoNLL files of any scheme, JSONL, TSV, datasets with class labels."""

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from seq2attn.data import DataError, Pair, Report, pairs
from seq2attn.data.corpora import Use, open_corpus
from seq2attn.data.labelled import pick
from seq2attn.recipe import ClassificationRecipe, RecipeError, TaggingRecipe, read
from seq2attn.recipe.labelled_data import CategorizedDataRecipe
from seq2attn.text.word_vocabulary import join_words, tokenize

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


def found(
    corpus: dict[str, Any], scheme: str | None = "auto", report: Report | None = None, words: str = "auto"
) -> list[Any]:
    """(words, labels) of a corpus."""
    kind = TaggingRecipe if scheme else ClassificationRecipe
    recipe = kind.model_validate(
        {
            "task": "tagging" if scheme else "classification",
            "data": {"train": corpus, "dev": corpus},
            "training": {"metric": "loss", "metrics": ["f1" if scheme else "accuracy"], "max_steps": 1},
        }
    )
    train = recipe.data.train[0]
    some = pairs(train, ("words", "labels"), report or Report(), scheme=scheme, words=words)
    return [(pair.source, pair.target) for pair in some]


def test_conll_columns_become_sentences_with_bio_tags(tmp_path: Path) -> None:
    file = tmp_path / "eng.train"
    file.write_text(IOB1, encoding="utf-8")
    assert found({"conll": str(file)}) == BIO


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
    with pytest.raises(
        DataError, match=r"(?s)data\.scheme: no scheme fits all.*bio: 2 of.*a\.conll:1: tag 1"
    ):
        found({"conll": str(file)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a O\nb\n", r"a\.conll:2: 1 column where \[0, -1\] were expected"),
        ("a X-PER\n", r"a\.conll:1: word 1, 'a', has 'X-PER', a tag of no scheme \(O, B-TYPE, I-TYPE, "),
        ("\na O\nb b-PER\n", r"a\.conll:2: word 2, 'b', has 'b-PER', .*: is data\.columns \[0, -1\] right\?"),
        ("a S-PER\n", r"a\.conll:1: tag 1 of 1 is 'S-PER': expected one of O, B-TYPE, I-TYPE \(data\.scheme"),
        ("a O\nb\tO\n\nc d O\n", r"a\.conll:4: 3 columns where 2 were expected, as before"),
        ("a b O\nc O\n", r"a\.conll:2: 2 columns where 3 were expected, as before"),
    ],
)
def test_a_bad_line_is_named_or_left_out(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.conll"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        found({"conll": str(file)}, "bio")


def test_spaces_that_are_no_column_ends_stay_in_the_word(tmp_path: Path) -> None:
    """A no-break or an ideographic space within a word does not part it, nor lose its rest."""
    file, table = tmp_path / "a.conll", tmp_path / "a.tsv"
    file.write_text("10\u00a0000\tO\n\u6771\u3000\u4eac  \t B-LOC \n", encoding="utf-8")
    there = [("10\u00a0000 \u6771\u00a0\u4eac", "O B-LOC")]
    assert found({"conll": str(file)}) == there
    table.write_text("10\u00a0000  \u6771\u3000\u4eac\tO B-LOC\n", encoding="utf-8")
    assert found({"table": str(table), "columns": [0, 1]}) == there


def test_lines_may_have_any_number_of_columns_if_these_count_from_the_first(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text("-DOCSTART- O\n\na O x y\nb B-PER\n", encoding="utf-8")
    assert found({"conll": str(file), "columns": [0, 1]}) == [("a b", "O B-PER")]
    file.write_text("-DOCSTART- O\n\na x O\n\n-DOCSTART- O\n\nb x O\n", encoding="utf-8")
    assert found({"conll": str(file)}) == [("a", "O"), ("b", "O")]


def test_a_sentence_with_a_bad_line_is_left_out_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_bytes(b"a O\nb\nc\nd O\n\ne O\n\nf\nO\n\n\xff O\ng O\n\nh O\n")
    report = Report(stop=False)
    assert found({"conll": str(file)}, "bio", report) == [("e", "O"), ("h", "O")]
    assert {name: reason.count for name, reason in report.reasons.items()} == {
        "wrong number of columns": 2,  # sentences
        "broken UTF-8": 1,
    }


def test_a_tag_that_is_none_does_not_hide_the_scheme(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text("a I-PER\n\nb EU\nc O\n\nd I-LOC\ne B-LOC\n", encoding="utf-8")
    report = Report(stop=False)
    assert found({"conll": str(file)}, "auto", report) == [("a", "B-PER"), ("d e", "B-LOC B-LOC")]
    assert report.schemes == ["iob1"] and report.reasons["not a tag"].count == 1


def test_the_begin_of_a_document_takes_no_sentence_with_it(tmp_path: Path) -> None:
    """Not all who convert such files leave a blank line behind it, or before."""
    file = tmp_path / "a.conll"
    file.write_text("-DOCSTART- -X- O\na x O\nb x B-PER\n-DOCSTART- -X- O\n\nc x O\n-DOCSTART-\nd x O\n")
    assert found({"conll": str(file)}) == [("a b", "O B-PER"), ("c", "O"), ("d", "O")]
    file.write_text("-DOCSTART-s O\n- O\n")  # words, however odd
    assert found({"conll": str(file)}) == [("-DOCSTART-s -", "O O")]


def test_tags_that_cannot_be_ask_for_the_columns_of_their_corpus(tmp_path: Path) -> None:
    file, table = tmp_path / "a.conll", tmp_path / "a.jsonl"
    file.write_text("O a\n", encoding="utf-8")
    table.write_text('{"tokens": ["a"], "tags": ["a"]}\n', encoding="utf-8")
    for corpus, asked in (
        ({"conll": str(file), "columns": [0, 1]}, "data.columns [0, 1]"),
        ({"table": str(table)}, "data.columns ['tokens', 'tags']"),
    ):
        with pytest.raises(
            DataError, match=re.escape(f"a tag of no scheme (O, B-TYPE, I-TYPE, ...): is {asked} right?")
        ):
            found(corpus)


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
    assert found({"table": str(file)}, None) == [("It 's spam !", "1"), ("as is!", "very good")]
    table.write_text("ham\tHello, you\n")
    assert found({"table": str(table), "columns": [1, 0]}, None) == [("Hello , you", "ham")]


def test_texts_are_cut_as_the_recipe_says(tmp_path: Path) -> None:
    """Else training sees other words than those who use the model afterwards."""
    raw, rows = "It's a\u3000test.", [{"text": "It's a\u3000test.", "label": 0}]
    file, table, folder = tmp_path / "a.jsonl", tmp_path / "a.tsv", tmp_path / "set"
    file.write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    table.write_text(f"{raw}\t0\n", encoding="utf-8")
    folder.mkdir()
    datasets.Dataset.from_list(rows).to_parquet(folder / "train-0.parquet")
    corpora = [{"table": str(file)}, {"table": str(table), "columns": [0, 1]}, {"dataset": str(folder)}]
    for words in ("auto", "spaces"):
        expected = join_words(word.text for word in tokenize(raw, words))
        for corpus in corpora:
            assert found(corpus, None, words=words) == [(expected, "0")]
    sample = {"sample": "tatoeba_de_en", "split": "dev", "limit": 2}
    assert [pair[0] for pair in found(sample, None, words="spaces")] == [
        "Er sagt, er wird kommen.",
        "He says he will come.",
    ]
    file.write_text('{"tokens": "It\'s Bo", "tags": ["O", "B-PER"]}\n', encoding="utf-8")
    assert found({"table": str(file)}, words="spaces") == [("It's Bo", "O B-PER")]


@pytest.mark.parametrize("corpus", [{"table": "a.jsonl"}, {"sample": "tatoeba_de_en"}])
def test_what_is_cut_otherwise_is_stored_apart(
    corpus: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 0}\n')
    monkeypatch.chdir(tmp_path)
    data = CategorizedDataRecipe.model_validate({"train": corpus, "dev": corpus})
    states = [
        open_corpus(data.dev, Use(data.languages, "dev", "data.dev", None, words)).state
        for words in ("auto", "spaces")
    ]
    assert states[0] != states[1]


def test_half_a_surrogate_pair_is_a_bad_line(tmp_path: Path) -> None:
    """It can be written in JSON, and nowhere else: not in the store either."""
    file, report = tmp_path / "a.jsonl", Report(stop=False)
    half = '"\\ud83d"'
    file.write_text(
        f'{{"tokens": ["a", {half}], "tags": ["O", "O"]}}\n{{"tokens": {half}, "tags": ["O"]}}\n'
        f'{{"tokens": ["a"], "tags": [{half}]}}\n{{"tokens": ["\\ud83d\\ude00"], "tags": ["O"]}}\n'
    )
    assert found({"table": str(file)}, "bio", report) == [("\U0001f600", "O")]
    assert {name: reason.count for name, reason in report.reasons.items()} == {"broken UTF-16": 3}
    file.write_text(f'{{"text": "a", "label": {half}}}\n')
    with pytest.raises(
        DataError, match=r"a\.jsonl:1: label has half a surrogate pair, which is no character"
    ):
        found({"table": str(file)}, None)


def test_a_sentence_without_a_label_is_a_bad_line(tmp_path: Path) -> None:
    """Else there is a class of all that nobody has labelled."""
    table, file = tmp_path / "a.tsv", tmp_path / "a.jsonl"
    table.write_text("one\tham\ntwo\t\nthree\t \nfour\tspam\n", encoding="utf-8")
    report, corpus = Report(stop=False), {"table": str(table), "columns": [0, 1]}
    assert found(corpus, None, report) == [("one", "ham"), ("four", "spam")]
    assert report.reasons["no label"].count == 2
    with pytest.raises(DataError, match=r"a\.tsv:2: expected a label \(a text\), got an empty one"):
        found(corpus, None)
    file.write_text('{"text": "a", "label": []}\n{"text": [], "label": []}\n{"text": "a", "label": -1}\n')
    report = Report(stop=False)
    assert found({"table": str(file)}, None, report) == [("a", "-1")]  # a number without names is a name
    assert report.reasons["no label"].count == 2
    file.write_text('{"tokens": [], "tags": []}\n{"tokens": ["a"], "tags": ["O"]}\n')
    assert found({"table": str(file)}) == [("", ""), ("a", "O")]  # what has no word needs no tag


def test_labels_and_texts_that_are_none_are_named(tmp_path: Path) -> None:
    file, report = tmp_path / "a.jsonl", Report(stop=False)
    rows = [
        {"text": "", "label": "ham"},  # an empty example is what filters leave out
        {"text": "a", "label": True},
        {"text": "a", "label": ""},
        {"text": None, "label": "ham"},
        {"text": "a", "label": {"b": 1}},
        {"text": "a", "label": 1.5},
        {"text": ["a", ""], "label": "ham"},
        {"text": 7, "label": "ham"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert found({"table": str(file)}, None, report) == [("", "ham"), ("a", "true")]
    reason = report.reasons["not a text"]
    assert reason.count == 6 and reason.examples[:2] == [
        f"{file}:3: label has an empty text",
        f"{file}:4: text is null where a text, or a list of them, was expected",
    ]
    for line, message in {
        5: 'label is {"b": 1} where a label (a text or a whole number), or a list of them, was expected',
        6: "label is 1.5 where a label",
        7: "text has an empty text at position 2 of 2",
        8: "text is 7 where a text",
    }.items():
        file.write_text(json.dumps(rows[line - 1]) + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=re.escape(f"{file}:1: {message}")):
            found({"table": str(file)}, None)


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


def test_class_labels_without_a_name_are_none(tmp_path: Path) -> None:
    """The hub writes -1 where it keeps the labels of a test set to itself."""
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"])),
            "kind": datasets.ClassLabel(names=["ham", "spam"]),
        }
    )
    rows = {"tokens": [["a", "b"]] * 2, "ner_tags": [[0, -1], [0, 1]], "kind": [-1, 0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-0.parquet")
    corpus = {"dataset": str(tmp_path), "split": "train"}
    kinds = corpus | {"columns": ["tokens", "kind"]}
    for report, labels in ((Report(stop=False), "O B-PER"), (Report(stop=False), "ham")):
        some = found(*((corpus, "auto") if " " in labels else (kinds, None)), report)
        assert some == [("a b", labels)] and report.reasons["unknown label"].count == 1
    with pytest.raises(
        DataError, match=r"\[train\]:0: kind is or has -1, which stands for no label: expected 0 to 1"
    ):
        found(kinds, None)


def test_a_number_beyond_the_names_is_no_label() -> None:
    report = Report(stop=False)
    keys = ("text", "label")
    for label in (2, [0, 2], -2):
        assert pick({"text": "a", "label": label}, keys, 7, "x:7", report, ["ham", "spam"]) is None
    assert (
        report.reasons["unknown label"].examples[:2]
        == ["x:7: label is or has 2, which has no name: expected 0 to 1"] * 2
    )
    assert pick({"text": "a", "label": 1}, keys, 7, "x:7", report, ["ham", "spam"]) == Pair("a", "spam", 7)


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
    assert (
        "data.train: labels sentences with their language and has no tags of words: set task: class" in text
    )
    file.write_text(file.read_text().replace("{sample: tatoeba_de_en}", "{conll: r.conll}"))
    with pytest.raises(
        RecipeError, match=r"r\.yaml:2  data\.dev\.weight: only training corpora have weights"
    ):
        read(file)


def test_words_with_tags_are_no_sentences_with_a_label(tmp_path: Path) -> None:
    """Else each sequence of tags would be a label of its own."""
    (tmp_path / "a.conll").write_text("a O\n")
    file = tmp_path / "r.yaml"
    file.write_text(
        "task: classification\ndata:\n  train: {conll: a.conll}\n  dev: {table: a.tsv, columns: [0, 1]}\n"
        "training: {max_steps: 1}\n",
        encoding="utf-8",
    )
    with pytest.raises(
        RecipeError, match=r"r\.yaml:3  data\.train.*no labels of sentences: set task: tagging"
    ):
        read(file)
