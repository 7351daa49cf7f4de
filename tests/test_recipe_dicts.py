"""A recipe as a dict is the recipe of a file with the same values, and its faults are as clear."""

from pathlib import Path
from typing import Any

import pytest
import tiny_runs

import seq2attn
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


@pytest.mark.parametrize("value", [{1, 2}, object])
def test_values_that_no_recipe_has(tmp_path: Path, value: Any) -> None:
    recipe = sections(tmp_path)
    recipe["training"]["betas"] = value
    with pytest.raises(RecipeError, match=r"recipe  (expected text, numbers|training\.betas: expected)"):
        read(recipe)


def test_an_empty_dict() -> None:
    with pytest.raises(RecipeError, match="recipe  "):
        read({})
