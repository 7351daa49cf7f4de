"""A recipe as a dict is the recipe of a file with the same values, and its faults are as clear."""

from collections import OrderedDict, UserDict
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import tiny_runs
from shapes import unchecked

import seq2attn
from seq2attn.errors import Seq2attnError
from seq2attn.recipe import RecipeError, read, shipped
from seq2attn.recipe.yaml_source import parse

pytestmark = pytest.mark.usefixtures("corpora")


@pytest.mark.parametrize("name", shipped())
def test_a_dict_is_read_as_its_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shipped()[name]
    monkeypatch.chdir(path.parent)  # relative paths of a dict are relative to the working directory
    tree = parse(path.read_text(encoding="utf-8")).tree
    assert read({"name": name, **tree}) == read(path)
    assert read({"name": name, **tree}, ["seed=7"]).seed == 7


def sections(tmp_path: Path) -> dict[str, Any]:
    table = tmp_path / "pairs.tsv"
    table.write_text("".join(f"Guten Tag {n}!\tGood day {n}!\n" for n in range(40)), encoding="utf-8")
    return {
        "data": {
            "languages": ["de", "en"],
            "train": {"table": table},
            "dev": {"table": str(table), "limit": 3},
        },
        "text": {"model": "char", "byte_fallback": False},
        "model": {
            "encoder": {"kind": "recurrent", "embedding": 6, "size": 6},
            "decoder": {
                "kind": "recurrent",
                "order": "bahdanau",
                "embedding": 6,
                "size": 8,
                "attention": "dot",
            },
        },
        "training": {"max_steps": 2, "validate_every": 2},
    }


def test_a_dict_trains_and_resumes(tmp_path: Path) -> None:
    recipe = sections(tmp_path)
    recipe["model"]["decoder"]["attention"] = {"score": "additive"}
    run = tmp_path / "run"
    assert seq2attn.train(recipe, run, display=tiny_runs.silent(), device="cpu").progress.step == 2
    again = seq2attn.train(
        recipe, run, {"training.max_steps": 4}, resume=True, display=tiny_runs.silent(), device="cpu"
    )
    assert again.progress.step == 4


def test_faults_name_the_key_and_no_line(tmp_path: Path) -> None:
    recipe = sections(tmp_path)
    recipe["training"]["learning_rte"] = 0.1
    recipe["model"]["encoder"]["size"] = "large"
    del recipe["model"]["decoder"]["attention"]
    with pytest.raises(RecipeError) as caught:
        read(recipe)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("recipe  ") for line in lines)
    assert any(
        "training.learning_rte: unknown key 'learning_rte' (did you mean learning_rate?" in x for x in lines
    )
    assert any("model.encoder.size: expected a whole number, got 'large'" in line for line in lines)


class Order(str, Enum):
    bahdanau = "bahdanau"


class Lines(UserDict[str, Any]):
    """A mapping that is no dict."""


def complete(tmp_path: Path) -> dict[str, Any]:
    recipe = sections(tmp_path)
    recipe["model"]["decoder"]["attention"] = {"score": "additive"}
    return recipe


def test_python_values_are_read_as_their_plain_ones(tmp_path: Path) -> None:
    recipe = complete(tmp_path)
    recipe["model"]["decoder"]["size"] = np.int64(8)
    recipe["model"]["decoder"]["order"] = Order.bahdanau
    recipe["training"] = MappingProxyType({**recipe["training"], "betas": np.array([0.5, 0.75])})
    recipe["data"] = Lines(OrderedDict(recipe["data"]))
    recipe["text"] = read(complete(tmp_path)).text
    settings = {"max_steps": 2, "validate_every": 2, "betas": [0.5, 0.75]}
    assert read(recipe) == read({**complete(tmp_path), "training": settings})
    assert read(read(recipe).model_dump()) == read(recipe)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", "\U0001f600 a: b # c", None),
        ("name", "1e3", None),
        ("training.learning_rate", 1e-9, None),
        ("training.max_steps", np.int64(3), 3),
        ("data.dev.table", Path("README.md").absolute(), str(Path("README.md").absolute())),
        ("training.betas", (0.5, 0.75), None),
        ("text", {"model": "char", "byte_fallback": False}, None),
        ("training.schedule", {"name": "inverse_sqrt", "warmup": np.int32(5)}, "inverse_sqrt"),
    ],
)
def test_overrides_may_be_values(tmp_path: Path, key: str, value: Any, expected: Any) -> None:
    found: Any = read(complete(tmp_path), {key: value})
    for name in key.split("."):
        found = getattr(found, name)
    found = getattr(found, "name", found)
    assert found == (value if expected is None else expected) or found.model_dump().items() >= value.items()


WRONG: dict[str, tuple[Any, Any, str]] = {
    "a number": (3, (), "expected a recipe: the name of one that ships, a path, or a dict"),
    "none": (None, (), "expected a recipe: the name of one"),
    "bytes": (b"quickstart", (), "expected a recipe: the name of one"),
    "overrides": ("quickstart", 3, "expected overrides as"),
    "no overrides": ("quickstart", None, "expected overrides as"),
    "an override": ("quickstart", [3], "expected overrides as"),
    "a key": ("quickstart", {3: 3}, "expected overrides as"),
    "a value": ("quickstart", {"seed": {1}}, r"^overrides: seed: expected text, numbers.* got \{1\}"),
    "another value": ("quickstart", {"seed": "x"}, "^overrides: seed: expected a whole number, got 'x'"),
    "a part of it": ("quickstart", {"text": {"size": b"x"}}, r"^overrides: text\.size: expected text"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(name: str) -> None:
    recipe, overrides, message = WRONG[name]
    with unchecked(), pytest.raises(Seq2attnError, match=message):
        read(recipe, overrides)


def test_one_override_needs_no_list() -> None:
    assert read("quickstart", "seed=7") == read("quickstart", ["seed=7"])


def test_dicts_without_end_are_refused(tmp_path: Path) -> None:
    recipe = sections(tmp_path)
    recipe["data"]["train"]["again"] = recipe
    with pytest.raises(RecipeError, match=r"recipe  data\.train\.again: contains itself"):
        read(recipe)
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    with pytest.raises(RecipeError, match="recipe  is nested too deeply"):
        read({**sections(tmp_path), "x": deep})
    wide: list[Any] = [1]
    for _ in range(40):
        wide = [wide, wide]
    with pytest.raises(RecipeError, match="recipe  has more than 20,000 values"):
        read({**sections(tmp_path), "x": wide})


@pytest.mark.parametrize("value", [{1, 2}, object, {1: 2}, b"x"])
def test_values_that_no_recipe_has(tmp_path: Path, value: Any) -> None:
    recipe = sections(tmp_path)
    recipe["training"]["betas"] = value
    with pytest.raises(RecipeError, match=r"recipe  training\.betas: expected"):
        read(recipe)


def test_an_empty_dict() -> None:
    with pytest.raises(RecipeError, match="recipe  "):
        read({})
