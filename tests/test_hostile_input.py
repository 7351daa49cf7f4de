"""Input that is hostile or damaged: each ends quickly, with an error that has the file and the line."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import seq2attn.data.files
from seq2attn.data import DataError, Report, lines, pairs
from seq2attn.data.files import json_lines
from seq2attn.recipe import FilesCorpus, RecipeError, read
from seq2attn.recipe.yaml_source import MOST_VALUES, parse
from seq2attn.tasks.loading import learn
from seq2attn.text.word_vocabulary import Labels, WordVocabularyError

HEAD = "data: {}\nmodel: {}\n"


def faults(folder: Path, text: str) -> list[str]:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        read(path)
    return str(error.value).replace(f"{folder}/", "").splitlines()


# ---- recipes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge", ["", "<<: "])
def test_aliases_of_aliases_end(tmp_path: Path, merge: str) -> None:
    levels = ["x0: &x0 {a: 1}" if merge else "x0: &x0 [a, b]"]
    for n in range(1, 40):
        inner = ", ".join(f"k{i}: *x{n - 1}" if merge else f"*x{n - 1}" for i in range(9))
        levels.append(f"x{n}: &x{n} " + (f"{{<<: *x{n - 1}, {inner}}}" if merge else f"[{inner}]"))
    found = faults(tmp_path, "\n".join(levels))
    assert any(line.endswith(f"has more than {MOST_VALUES:,} values (with aliases)") for line in found)


def test_a_recipe_of_megabytes_is_refused(tmp_path: Path) -> None:
    for text in ("a: [" + "1, " * 4_000_000 + "]\n", "x" * (1 << 18) + "ä" * (1 << 20)):
        (found,) = faults(tmp_path, text)
        assert (
            found
            == "r.yaml:1  has more than 262,144 characters, too many for a recipe: is this the right file?"
        )


@pytest.mark.parametrize(
    ("value", "came"),
    [
        ("!!int abc", "int 'abc'"), ("!!float x", "float 'x'"), ("!!bool maybe", "bool 'maybe'"),
        ("!!timestamp x", "timestamp 'x'"), ("!!timestamp 2020-01-01", "timestamp '2020-01-01'"),
        ("!!binary YQ==", "binary 'YQ=='"), ("!!int ''", "int ''"),
        ("9" * 5000, f"int '{'9' * 40}'"),
    ],
)  # fmt: skip
def test_values_of_no_plain_type_are_faults(tmp_path: Path, value: str, came: str) -> None:
    assert f"r.yaml:3  seed: expected text, a number, true, false or null, got {came}" in faults(
        tmp_path, f"{HEAD}seed: {value}\n"
    )


@pytest.mark.parametrize("value", [10**18, -(10**18), 10**4000])
def test_huge_numbers_are_faults(tmp_path: Path, value: int) -> None:
    said = f"expected a number of at most 10,000,000,000, got one of {len(str(value))} digits"
    assert f"r.yaml:3  seed: {said}" in faults(tmp_path, f"{HEAD}seed: {value}\n")
    with pytest.raises(RecipeError, match="seed: the value is not YAML: expected a number of at most"):
        read("quickstart", [f"seed={value}"])
    assert parse("10000000000").tree == 10**10


def test_limits_are_written_out_and_names_have_no_line_breaks() -> None:
    with pytest.raises(RecipeError, match=r"seed: expected at most 4294967295, got 4294967296$"):
        read("quickstart", ["seed=4294967296"])
    for name in ("a\\nb", "a\\tb", "a\\0", "a\\L"):
        with pytest.raises(RecipeError, match="name: names a folder: no line breaks or control characters"):
            read("quickstart", [f'name="{name}"'])


def test_a_folder_does_not_hide_a_recipe_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "mine").mkdir()
    assert read("quickstart").name == "quickstart"
    with pytest.raises(RecipeError, match="mine  is a folder; give the recipe's file"):
        read("mine")


# ---- data -------------------------------------------------------------------------------------------


def test_json_that_is_nested_too_deeply_is_a_bad_line(tmp_path: Path) -> None:
    path, report = tmp_path / "x.jsonl", Report(stop=False)
    row = json.dumps({"a": "x", "b": "y"})
    deep = ["[" * 100_000, '{"a":' * 100_000, "9" * 5000]
    path.write_text("\n".join([row, *deep, row]), encoding="utf-8")
    assert [pair.line for pair in json_lines(path, ("a", "b"), report)] == [1, 5]
    assert report.reasons["not JSON"].count == 3
    with pytest.raises(DataError, match=r"x\.jsonl:2: not JSON: .*; fix it"):
        list(json_lines(path, ("a", "b"), Report()))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_endless_lines_and_endless_blank_lines(tmp_path: Path, monkeypatch: Any, suffix: str) -> None:
    monkeypatch.setattr(seq2attn.data.files, "LONGEST", 1000)
    monkeypatch.setattr(seq2attn.data.files, "MOST_BLANK", 10)
    pack = gzip.compress if suffix else bytes
    path = tmp_path / f"x{suffix}"
    path.write_bytes(pack(b"a\n" + b"x" * 999 + b"\n" + b" \r\n" * 10 + b"b\n"))
    assert [len(line) for line in lines(path)] == [1, 999, *[1] * 11]
    path.write_bytes(pack(b"a\n" + b"x" * 1001 + b"\n"))
    with pytest.raises(
        DataError, match=rf"x{suffix}:2: a line of more than 1,000 bytes: is this a file of texts"
    ):
        list(lines(path))
    path.write_bytes(pack(b"a\n" * 3 + b"\n" * 99))
    with pytest.raises(DataError, match=rf"x{suffix}:14: more than 10 blank lines in a row"):
        corpus = FilesCorpus(files=(str(path), str(path)))
        list(pairs(corpus, ("a", "b"), Report(stop=False)))


def test_thousands_of_types_of_tags_are_refused() -> None:
    texts = [f"B-type{n}" for n in range(10_000)]
    with pytest.raises(
        WordVocabularyError, match=r"at most 500 types of spans, got 10,000 \(type0, .*column"
    ):
        Labels.learn(texts, "bio")
    assert len(Labels.learn(texts).names) == 10_000


def test_a_dev_set_without_any_text_is_refused(tmp_path: Path) -> None:
    """All of its references are empty, as is all that any model writes for them: 100 % exact."""
    blank = tmp_path / "blank"
    blank.write_text("\n\n\n", encoding="utf-8")
    task = learn(read("copy_additive", [f"data.dev={{files: [{blank}, {blank}]}}", "data.train.count=50"]))
    with pytest.raises(
        DataError, match=r"data\.dev: expected pairs with text on both sides, and all 3 are empty"
    ):
        task.examples("dev")
    assert len(task.examples("train")) == 50
