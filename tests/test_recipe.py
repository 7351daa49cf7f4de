"""Recipes are read and written: files, YAML, overrides, paths; all faults at once."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_recipes import KEPT, OTHERS, SHIPPED, faults, trees, words

from seq2attn.recipe import Recipe, RecipeError, read, write
from seq2attn.recipe.yaml_source import dump, parse

pytestmark = pytest.mark.usefixtures("corpora")


def keys_of(text: str) -> Iterator[tuple[str, int, yaml.ScalarNode]]:
    """Each key of a YAML text: the path of its section, its line, its node."""

    def walk(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[str, int, yaml.ScalarNode]]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield ".".join(path), key.start_mark.line + 1, key
                yield from walk(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                yield from walk(item, (*path, str(index)))

    yield from walk(yaml.compose(text), ())


@pytest.mark.parametrize("recipe", SHIPPED)
def test_every_key_misspelt(recipe: str, tmp_path: Path) -> None:
    text = SHIPPED[recipe].read_text(encoding="utf-8")
    file = tmp_path / "recipe.yaml"
    for section, line, node in keys_of(text):
        key, start = str(node.value), node.start_mark.index
        for drop in range(len(key)) if recipe == "quickstart" else [len(key) // 2]:
            wrong = key[:drop] + key[drop + 1 :]
            file.write_text(text[:start] + wrong + text[start + len(key) :], encoding="utf-8")
            path = f"{section}.{wrong}" if section else wrong
            found = faults(file)
            expected = f"recipe.yaml:{line}  {path}: unknown key '{wrong}' (did you mean {key}? one of "
            assert any(fault.startswith(expected) for fault in found), found
            assert len(found) == 1 or key == "task"  # without its task a recipe is one of translation


def test_all_faults_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "many.yaml"
    file.write_text(
        """
data:
  languages: [de, no]
  train:
    - {sampl: tatoeba_de_en, limt: 3}
    - {table: x.tsv, columns: [0, 1, 2]}
  dev: {sample: tatoeba_de_en}
text: {size: 3, size: 4, joint: on}
model:
  encoder: {kind: recurent, sizee: 3}
  decoder:
    kind: transformer
    self_attention: {score: {name: dott, scale: 2}}
training:
  betas: [2, x]
  early_stopping: {patience: 0}
nonsense: 1
""",
        encoding="utf-8",
    )
    assert faults(file, "seed=x", "training.max_steps=0") == [
        "many.yaml:5  data.train.0.sampl: unknown key 'sampl' (did you mean sample? one of sample, split, tag, "
        "weight, limit)",
        "many.yaml:5  data.train.0.limt: unknown key 'limt' (did you mean limit? one of sample, split, tag, weight, limit)",
        "many.yaml:6  data.train.1.table: no such file: x.tsv",
        "many.yaml:6  data.train.1.columns: expected a list of 2, got [0, 1, 2]",
        "many.yaml:8  text.size: occurs twice (first in line 8)",
        "many.yaml:8  text.joint: expected true or false, got 'on'",
        "many.yaml:10  model.encoder.kind: unknown 'recurent' (did you mean recurrent? one of recurrent, "
        f"transformer{OTHERS})",
        "many.yaml:10  model.encoder.sizee: unknown key 'sizee' (did you mean size? one of kind, cell, embedding, "
        "layers, dropout, embedding_dropout, word_dropout, variational, ...)",
        "many.yaml:11  model.decoder: missing key 'cross_attention'",
        "many.yaml:13  model.decoder.self_attention.score.name: unknown 'dott' (did you mean dot? one of additive, "
        "concat, cosine, "
        f"coverage, dot, fertility, gaussian, general, ...{OTHERS})",
        "many.yaml:13  model.decoder.self_attention.score.scale: unknown key 'scale' (there are no options)",
        "many.yaml:15  training.betas.0: expected less than 1, got 2",
        "many.yaml:15  training.betas.1: expected a number, got 'x'",
        "many.yaml:16  training.early_stopping.patience: expected at least 1, got 0",
        "many.yaml:17  nonsense: unknown key 'nonsense' (one of name, task, seed, init, origin, data, text, model, "
        "training, decoding)",
        "overrides: training.max_steps: expected at least 1, got 0",
        "overrides: seed: expected a whole number, got 'x'",
    ]


@given(recipe=st.sampled_from(list(SHIPPED)), place=st.randoms(use_true_random=False), value=trees)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_any_value_anywhere_is_taken_or_refused_in_plain_words(
    tmp_path: Path, recipe: str, place: Random, value: Any
) -> None:
    tree = parse(SHIPPED[recipe].read_text(encoding="utf-8")).tree
    holder, key = tree, place.choice(list(tree))
    while isinstance(holder[key], dict | list) and place.random() < 0.8:
        holder = holder[key]
        key = place.choice(list(holder)) if isinstance(holder, dict) else place.randrange(len(holder))
    holder[key] = value
    file = tmp_path / "recipe.yaml"
    file.write_text(dump(tree), encoding="utf-8")
    try:
        read(file)
    except RecipeError as error:
        for fault in error.faults:
            assert not re.search(
                r"\b(Input|valid|instance|dict|tuple|NoneType|type|another value)\b", fault.message
            )


# ---- files that are no recipes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "r.yaml:1  is empty; it needs at least data, model and training"),
        (b"# only this\n", "r.yaml:1  is empty; it needs at least data, model and training"),
        (b"- data\n- model\n", "r.yaml:1  expected sections (data: ..., model: ...), got ['data', 'model']"),
        (b"hello", "r.yaml:1  expected sections (data: ..., model: ...), got 'hello'"),
        (b"a: 1\nb: \xff\n", "r.yaml:2  is not UTF-8 text"),
        (b"a: 1\nb: \x07\n", "r.yaml:2  the character '\\x07' cannot stand in YAML"),
        (b"a: 1\n---\nb: 2\n", "r.yaml:2  column 1: but found another document"),
    ],
)
def test_not_a_recipe(content: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    assert faults(tmp_path / "r.yaml") == [fault]


def test_not_a_file(tmp_path: Path) -> None:
    ships = ", ".join(SHIPPED)
    assert faults(tmp_path) == [
        f"{tmp_path}  is a folder; give the recipe's file".replace(f"{tmp_path.parent}/", "")
    ]
    with pytest.raises(RecipeError, match=re.escape(f"no.yaml  no such file (recipes that ship: {ships})")):
        read(tmp_path / "no.yaml")
    with pytest.raises(RecipeError, match=re.escape("quikstart  no such file (did you mean quickstart? ")):
        read("quikstart")


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "recipes/quickstart.yaml"])
def test_shipped_by_name_from_anywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read(name) == read(SHIPPED["quickstart"])


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    text = SHIPPED["quickstart"].read_text(encoding="utf-8").replace("\n", "\r\n")
    (tmp_path / "quickstart.yaml").write_text(text, encoding="utf-8-sig", newline="")
    assert read(tmp_path / "quickstart.yaml") == read("quickstart")


# ---- YAML as people mean it -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1E5", 100000), ("1e3", 1000), ("1e30", 1e30), ("1.5e1", 15.0), ("15e-1", 1.5), ("-.5", -0.5), ("+3", 3), ("10_000", 10000), ("1_0.5", 10.5), ("no", "no"),
        ("[en, no, on, y]", ["en", "no", "on", "y"]), ("True", True), ("false", False), ("~", None), ("", None),
        ("12:30", "12:30"), ("2020-01-01", "2020-01-01"), ("0x10", "0x10"), ("010", "010"), ("1e", "1e"), ("=", "="),
        (".nan", pytest.approx(float("nan"), nan_ok=True)), ("a: &x {b: 1}\nc: {<<: *x, d: 2}",
        {"a": {"b": 1}, "c": {"b": 1, "d": 2}}), ("a: {b: 1, <<: {b: 2, c: 3}}", {"a": {"b": 1, "c": 3}}),
        ("{1: 2, true: 3}", {"1": 2, "true": 3}),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    parsed = parse(text)
    assert parsed.tree == value
    assert type(parsed.tree) is type(value) or "nan" in text
    assert parsed.faults == []


@given(st.dictionaries(words.filter(lambda word: word != "<<"), trees, min_size=1))
@settings(max_examples=40, deadline=None)
def test_what_is_dumped_parses_back(tree: Any) -> None:
    assert parse(dump(tree)).tree == tree


# ---- overrides ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "of"),
    [
        ("training.learning_rate=1e-4", lambda recipe: recipe.training.learning_rate == 1e-4),
        ("data.train.0.limit=100", lambda recipe: recipe.data.train[0].limit == 100),
        ("data.train.1={sample: tatoeba_de_en, split: dev}", lambda recipe: len(recipe.data.train) == 2),
        ("data.train={sample: tatoeba_de_en, limit: 7}", lambda recipe: recipe.data.train[0].limit == 7),
        ("data.languages.0=en", None),
        ("data.languages=[en, de]", lambda recipe: recipe.data.languages == ("en", "de")),
        (
            "model.decoder.attention.score.size=7",
            lambda recipe: recipe.model.decoder.attention.score.size == 7,
        ),
        ("training.early_stopping.patience=3", lambda recipe: recipe.training.early_stopping.patience == 3),
        ("decoding={beam: 2}", lambda recipe: recipe.decoding.beam == 2),
        ("name=other", lambda recipe: recipe.name == "other"),
        ("data.test=null", lambda recipe: recipe.data.test is None),
        (" seed = 5 ", lambda recipe: recipe.seed == 5),
    ],
)
def test_override(override: str, of: Callable[[Any], bool] | None) -> None:
    if of is None:
        with pytest.raises(RecipeError, match="tatoeba_de_en has"):
            read(KEPT["quickstart"], [override])
    else:
        assert of(read(KEPT["quickstart"], [override]))


def test_one_training_corpus_is_number_0_in_a_list_or_not(tmp_path: Path) -> None:
    for override in ("data.train.0.limit=5", "data.train.limit=5"):
        assert read("multi30k_additive", [override]).data.train[0].limit == 5
    assert read("multi30k_additive", ["data.train.0={sample: tatoeba_de_en}"]).data.train[0].weight == 1


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("training.lr=3", "training.lr: unknown key 'lr' (did you mean learning_rate? one of optimizer, "
         "learning_rate, schedule, weight_decay, betas, eps, momentum, clip, ...)"),
        ("trainin.max_steps=3", "trainin: unknown key 'trainin' (did you mean training? one of name, task, seed, "
         "init, origin, data, text, model, ...)"),
        ("training.max_steps=ten", "training.max_steps: expected a whole number, got 'ten'"),
        ("data.train.3.limit=3", "data.train.3.limit: data.train is a list: give the number of an item, 0 to 0"),
        ("data.train.limit=3", "data.train.limit: data.train is a list: give the number of an item, 0 to 0"),
        ("data.train.0.limt=3", "data.train.0.limt: unknown key 'limt' (did you mean limit? one of sample, split, "
         "tag, weight, limit)"),
        ("text.size.x=3", "text.size.x: text.size is 4000, which has no keys"),
        ("beam", "expected key=value, got 'beam'"),
        ("=3", "expected key=value, got '=3'"),
        ("seed=[", "seed: the value is not YAML: column 2: expected the node content, but found '<stream end>'"),
        ("model.decoder.attention=null", "model.decoder.attention: the order luong needs an attention, for example "
         "{score: additive}"),
        ("data.dev={table: '${NOWHERE}/x'}", "data.dev.table: ${NOWHERE} is not set: give the environment variable "
         "NOWHERE a value"),
    ],
)  # fmt: skip
def test_fault_of_an_override(override: str, fault: str) -> None:
    assert faults(KEPT["quickstart"], override) == [f"overrides: {fault}"]


# ---- places ---------------------------------------------------------------------------------------------


def test_paths_are_relative_to_the_recipe_or_to_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("recipe", "here"):
        (tmp_path / folder / "hub").mkdir(parents=True)
        for name in ("a.tsv", "b.parquet", "de.model", "en.model"):
            (tmp_path / folder / name).touch()
    text = KEPT["quickstart"].read_text(encoding="utf-8")
    text = re.sub("  dev: .*", "  dev: {dataset: parquet, data_files: '*.parquet', columns: [de, en]}", text)
    text = re.sub("  test: .*", "  test: {dataset: hub, columns: [de, en]}", text)
    text = text.replace("size: 4000", "files: [de.model, en.model]")
    (tmp_path / "recipe" / "r.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    recipe = read("../recipe/r.yaml", ["data.train={table: a.tsv}"]).model_dump()
    assert recipe["data"]["train"][0]["table"] == str(tmp_path / "here" / "a.tsv")
    assert recipe["data"]["dev"]["data_files"] == str(tmp_path / "recipe" / "*.parquet")
    assert recipe["data"]["test"]["dataset"] == str(tmp_path / "recipe" / "hub")
    assert recipe["text"]["files"] == (f"{tmp_path}/recipe/de.model", f"{tmp_path}/recipe/en.model")


def test_hub_names_and_addresses_stay() -> None:
    corpus = "{dataset: json, data_files: ['https://example.org/a.jsonl'], columns: [de, en]}"
    recipe = read("wmt_transformer", [f"data.dev={corpus}"]).model_dump()
    assert recipe["data"]["train"][0]["dataset"] == "wmt/wmt14"
    assert recipe["data"]["dev"]["data_files"] == ["https://example.org/a.jsonl"]


def test_files_need_not_be_there(tmp_path: Path) -> None:
    recipe = read("quickstart", [f"data.dev={{table: {tmp_path}/x.tsv}}"], check_files=False)
    assert recipe.model_dump()["data"]["dev"]["table"] == f"{tmp_path}/x.tsv"


def test_an_unset_variable_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEQ2ATTN_DATA")
    (fault,) = faults(KEPT["multi30k_additive"])
    assert fault.endswith("${SEQ2ATTN_DATA} is not set: give the environment variable SEQ2ATTN_DATA a value")


# ---- what is written ------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", SHIPPED)
def test_written_recipes_read_back(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read(recipe)
    write(before, tmp_path / "recipe.yaml")
    monkeypatch.delenv("SEQ2ATTN_DATA")
    monkeypatch.chdir(tmp_path)
    assert read("recipe.yaml") == before
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@given(
    name=words.map(lambda word: re.sub(r"[/\\\x00-\x1f\x7f-\x9f\u2028\u2029]", "", word)).filter(bool),
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(0, exclude_min=True, allow_infinity=False),
    language=words,
    size=st.none() | st.integers(1, 10**10),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_any_recipe_reads_back(
    tmp_path: Path, name: str, seed: int, rate: float, language: str, size: int | None
) -> None:
    tree = read("wmt_bahdanau").model_dump()
    tree |= {"name": name, "seed": seed}
    tree["data"]["languages"] = ["no", language]
    tree["training"]["learning_rate"] = rate
    tree["model"]["decoder"]["attention"]["score"]["size"] = size
    recipe = Recipe.model_validate(tree)
    write(recipe, tmp_path / "recipe.yaml")
    assert read(tmp_path / "recipe.yaml") == recipe


def test_a_written_recipe_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read("quickstart")
    write(recipe, tmp_path / "recipe.yaml")

    def broken(handle: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="no space left"):
        write(recipe.model_copy(update={"seed": 9}), tmp_path / "recipe.yaml")
    assert read(tmp_path / "recipe.yaml") == recipe
