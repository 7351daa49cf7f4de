"""The keys of recipes: choices from registries, parts of one's own, JSON schema, descriptions."""

import ast
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny_recipes import KEPT, SHIPPED, faults

import seq2attn.recipe
from seq2attn.attention.scorers import SCORERS, General
from seq2attn.layers.basic import ACTIVATIONS
from seq2attn.layers.recurrent import CELLS
from seq2attn.metrics import METRICS, Metric
from seq2attn.optim import OPTIMIZERS
from seq2attn.recipe import Part, RecipeError, Section, TrainingRecipe, head, read, schema, write
from seq2attn.recipe.detection import DetectionTrainingRecipe
from seq2attn.recipe.image_generation import GenerationTrainingRecipe
from seq2attn.recipe.image_training import ImageTrainingRecipe
from seq2attn.recipe.segmentation import SegmentationTrainingRecipe
from seq2attn.recipe.training import ClassificationTrainingRecipe, TaggingTrainingRecipe
from seq2attn.recipe.wording import closest
from seq2attn.recipe.yaml_source import parse
from seq2attn.runtime.devices import PRECISIONS
from seq2attn.text.tag_schemes import SCHEMES

pytestmark = pytest.mark.usefixtures("corpora")


class Mine(General):
    """q . W k, sharper."""

    def __init__(
        self, query_size: int, key_size: int, *, sharpness: float, sizes: tuple[int, int] = (2, 3)
    ) -> None:
        super().__init__(query_size, key_size)
        self.sharpness, self.sizes = sharpness, sizes


def test_a_scorer_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SCORERS, "mine", Mine)
    recipe = read("quickstart", ["model.decoder.attention.score={name: mine, sharpness: 2, sizes: [5, 7]}"])
    write(recipe, tmp_path / "recipe.yaml")
    assert read(tmp_path / "recipe.yaml") == recipe
    scorer = recipe.model_dump()["model"]["decoder"]["attention"]["score"]
    assert scorer == {"name": "mine", "sharpness": 2.0, "sizes": (5, 7)}
    made = recipe.model.decoder.attention.score.make(SCORERS, 3, 5)  # type: ignore[union-attr]
    assert (made.sharpness, made.sizes) == (2.0, (5, 7))
    score = schema()["$defs"]["AttentionRecipe"]["properties"]["score"]["anyOf"]
    assert "mine" in score[0]["enum"]
    assert score[-1]["properties"]["sharpness"]["type"] == "number"
    assert score[-1]["required"] == ["name", "sharpness"]


def test_faults_of_a_scorer_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORERS, "mine", Mine)
    score = "model.decoder.attention.score"
    assert faults(KEPT["quickstart"], f"{score}=mine") == [f"overrides: {score}: missing key 'sharpness'"]
    assert faults(KEPT["quickstart"], f"{score}={{name: mine, sharpness: x, sizes: [1]}}") == [
        f"overrides: {score}.sizes: expected a list of 2, got [1]",
        f"overrides: {score}.sharpness: expected a number, got 'x'",
    ]
    with pytest.raises(RecipeError, match="did you mean mine"):
        read("quickstart", [f"{score}=mien"])


def test_schema_takes_what_ships_and_refuses_what_read_refuses() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    whole = schema()
    jsonschema.Draft202012Validator.check_schema(whole)
    validator = jsonschema.Draft202012Validator(whole)
    for path in SHIPPED.values():
        tree = parse(path.read_text(encoding="utf-8")).tree
        validator.validate(tree)
        tree["training"]["lr"] = 1
        assert not validator.is_valid(tree)
    tree = parse(KEPT["quickstart"].read_text(encoding="utf-8")).tree
    for score, valid in [("additive", True), ("additve", False), ({"name": "additive", "size": 3}, True),
                         ({"name": "additive", "sise": 3}, False), ({"size": 3}, False)]:  # fmt: skip
        tree["model"]["decoder"]["attention"]["score"] = score
        assert validator.is_valid(tree) is valid, score


def sections(of: type[Section] = Section) -> Iterator[type[Section]]:
    for section in of.__subclasses__():
        yield section
        yield from sections(section)


def test_every_key_is_described() -> None:
    own = [section for section in sections() if section.__module__.startswith("seq2attn.")]  # no plugin's
    described = [section for section in own if not issubclass(section, Part)]
    assert len(described) > 15
    for section in described:
        for key, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{key}"


def test_the_reference_is_up_to_date() -> None:
    script = Path(__file__).parents[1] / "scripts" / "write_recipe_reference.py"
    written = (script.parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(script))["reference"]() == written, "run make docs"


def choices(section: type[Section], key: str) -> list[str]:
    """The names that the JSON schema allows for a key."""
    field = section.model_json_schema()["properties"][key]
    names: list[str] = field.get("enum") or field["anyOf"][0]["enum"]
    return names


def test_choices_are_those_of_the_registries() -> None:
    assert choices(TrainingRecipe, "optimizer") == [*OPTIMIZERS]
    assert choices(TrainingRecipe, "precision") == [*PRECISIONS]
    assert choices(seq2attn.recipe.TransformerEncoderRecipe, "activation") == [*ACTIVATIONS]
    assert choices(seq2attn.recipe.RecurrentEncoderRecipe, "cell") == [*CELLS]
    assert choices(seq2attn.recipe.TaggedDataRecipe, "scheme") == ["auto", *SCHEMES]
    kinds = (TrainingRecipe, TaggingTrainingRecipe, ClassificationTrainingRecipe, ImageTrainingRecipe)
    kinds += (DetectionTrainingRecipe, SegmentationTrainingRecipe, GenerationTrainingRecipe)
    assert [name for kind in kinds for name in choices(kind, "metrics")] == [*METRICS]
    for kind in kinds:
        assert choices(kind, "metric") == ["loss", *kind.measurable()] == ["loss", *choices(kind, "metrics")]


def test_a_metric_that_is_added_can_be_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    training = {"max_steps": 1, "metric": "shout", "metrics": ["shout"]}
    with pytest.raises(ValidationError, match="unknown 'shout'"):
        TrainingRecipe.model_validate(training)
    monkeypatch.setitem(METRICS, "shout", Metric(METRICS["exact"], "texts", lower_is_better=True))
    assert TrainingRecipe.model_validate(training).metrics == ["shout"]
    assert "shout" in choices(TrainingRecipe, "metric") and "shout" in TrainingRecipe.measurable()
    assert "shout" not in TaggingTrainingRecipe.measurable()
    with pytest.raises(ValidationError, match=r"unknown 'shuot' \(did you mean shout\?"):
        TrainingRecipe.model_validate({"max_steps": 1, "metric": "shuot"})


@pytest.mark.parametrize("recipe", SHIPPED)
def test_heads(recipe: str) -> None:
    """What, how long on which machine, which score."""
    what, how_long, score = head(SHIPPED[recipe])
    assert what.endswith(".")
    assert how_long.startswith("How long: ")
    assert score.startswith("Score: ")


def test_guesses() -> None:
    names = ["learning_rate", "size", "batch_tokens", "embedding"]
    assert [closest(word, names) for word in ("learning-rate", "LR", "bt", "sise", "embed", "xyz", "")] == [
        "learning_rate", "learning_rate", "batch_tokens", "size", "embedding", None, None
    ]  # fmt: skip


def test_small_files_small_functions() -> None:
    for path in Path(seq2attn.recipe.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}: {node.name}"
