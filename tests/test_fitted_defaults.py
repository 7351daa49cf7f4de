"""Settings on which a recipe is silent follow the training data: vocabulary size, warm-up, validation."""

from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text import GERMAN

from seq2attn.optim import SCHEDULES
from seq2attn.recipe import RecipeError, TextRecipe, TrainingRecipe, read, shipped
from seq2attn.runs.dry_run import check
from seq2attn.text.vocabulary_training import MOST_LEARNED, train_vocabulary
from seq2attn.text.vocabulary_training import _size as size_of
from seq2attn.training.advice import advice
from seq2attn.training.run_folder import RunFolder

TOTALS = [1, 2, 9, 10, 11, 99, 300, 1155, 9999, 10_001, 39_999, 50_000, 10**6, 10**7]
MODELS = ["unigram", "bpe", "char", "word"]
SILENT = [
    *tiny_runs.MODELS["lstm"],
    "text={byte_fallback: false}",
    "training.validate_every=null",
    "training.schedule=inverse_sqrt",
    "data.test=null",
    "data.dev.limit=2",
]


def warmup(settings: TrainingRecipe) -> Any:
    return settings.schedule.options["warmup"]


# ---- training -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total", TOTALS)
def test_warmup_and_validation_follow_the_number_of_updates(total: int, schedule: str) -> None:
    fitted = TrainingRecipe(schedule=schedule, max_steps=total).fitted(total, 5)
    assert 0 <= warmup(fitted) <= min(4000, total / 10)
    assert warmup(fitted) == min(4000, total // 10)
    assert 1 <= fitted.interval <= 1000
    assert total <= 10 * fitted.interval or fitted.interval == 1000
    assert (fitted.interval - 1) * 10 < total  # no less than ten validations, or each step
    # What is noticed is the number of updates and the end of the schedule, which the recipe gives.
    given = ("training: ", "training.schedule: ")
    assert [
        note for note in advice(fitted, torch.device("cpu"), total, 5, "pairs") if not note.startswith(given)
    ] == []


@pytest.mark.parametrize(("epoch", "expected"), [(1, (1, 1)), (17, (17, 17)), (4500, (4000, 1000))])
def test_a_training_without_a_known_end_has_those_of_an_epoch(epoch: int, expected: tuple[int, int]) -> None:
    fitted = TrainingRecipe(max_minutes=3.0).fitted(None, epoch)
    assert (warmup(fitted), fitted.interval) == expected


@pytest.mark.parametrize("total", [None, *TOTALS])
def test_settings_that_are_given_stay(total: int | None) -> None:
    schedule = {"name": "plateau", "warmup": 0}
    settings = TrainingRecipe(schedule=schedule, max_steps=total, max_minutes=1.0, validate_every=7)
    assert settings.fitted(total, 5) == settings


def test_recipes_that_ship_give_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their scores were measured with these."""
    monkeypatch.setenv("SEQ2ATTN_DATA", str(tmp_path))
    for name in sorted(shipped()):
        recipe = read(name, check_files=False)
        assert recipe.text is None or recipe.text.size is not None, name
        assert recipe.training.fitted(1000, 5) == recipe.training, name


# ---- vocabularies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 10, 1000, 10**5, 10**7])
@pytest.mark.parametrize("model", MODELS)
def test_the_size_grows_with_the_root_of_the_text(length: int, model: Any) -> None:
    learned = (
        size_of(["ab" * 500] * (length // 1000) + ["a" * (length % 1000), "b"], model, True) - 4 - 256 - 3
    )
    if model == "word":
        assert learned + 263 == MOST_LEARNED
    else:
        assert learned == pytest.approx(3 * (length + 1) ** 0.5, abs=1)


def test_the_size_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seq2attn.text.vocabulary_training.MOST_LEARNED", 500)
    assert [size_of(["a" * n], "unigram", False) - 6 for n in (10**4, 10**5)] == [300, 500]


@settings(deadline=None, max_examples=15)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"]), max_size=30), max_size=4),
    model=st.sampled_from(MODELS),
    byte_fallback=st.booleans(),
)
def test_any_text_gives_a_vocabulary(texts: list[str], model: Any, byte_fallback: bool) -> None:
    train_vocabulary([*texts, "some text"], model=model, byte_fallback=byte_fallback)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [1, 10, 300])
def test_the_size_that_a_run_records_gives_the_same_vocabulary(model: Any, count: int) -> None:
    fitted = train_vocabulary(GERMAN[:count], model=model)
    assert train_vocabulary(GERMAN[:count], model=model, size=fitted.size).model == fitted.model


def test_a_joint_vocabulary_has_one_size() -> None:
    assert TextRecipe(size=(300, 400)).sizes == (300, 400)
    with pytest.raises(RecipeError, match=r"text\.size: a joint vocabulary has one size"):
        read("quickstart", ["text={size: [300, 400], joint: true}", "model.tied=none"])


# ---- runs -----------------------------------------------------------------------------------------------


def test_a_run_records_them_and_resumes_exactly(tmp_path: Path) -> None:
    steps = [*SILENT, "training.max_steps=11"]
    whole = tiny_runs.train(tmp_path / "whole", *steps)
    begun = RunFolder.open(whole.run).recipe
    source, target = begun.text.size
    assert min(source, target) > 200 and max(source, target) < 800
    assert (begun.training.validate_every, warmup(begun.training)) == (2, 1)
    tiny_runs.train(tmp_path / "run", *steps, "training.max_minutes=1e-9")
    tiny_runs.train(tmp_path / "run", *steps, resume=True)
    assert tiny_runs.weights_hash(tmp_path / "run") == tiny_runs.weights_hash(whole.run)
    resumed = RunFolder.open(tmp_path / "run").recipe
    assert resumed == begun


def test_a_silent_recipe_resumes_a_run_that_was_begun_with_other_values() -> None:
    """As runs of before, whose recipes have the constants that were the defaults."""
    schedule = "training.schedule={name: inverse_sqrt, warmup: 4000}"
    begun = read("quickstart", [*SILENT, "text.size=8000", "training.validate_every=500", schedule])
    silent = read("quickstart", SILENT)
    assert silent.fitted_as(begun) == begun.model_copy(update={"decoding": silent.decoding})
    other = read("quickstart", [*SILENT, "training.validate_every=3"])
    assert other.fitted_as(begun).training.validate_every == 3


def test_check_says_what_they_are() -> None:
    def said(*overrides: str) -> list[str]:
        recipe = read("quickstart", [*tiny_runs.SMALL, *overrides])
        return [text for heading, text in check(recipe, device="cpu") if heading == "defaults"]

    (line,) = said(*SILENT)
    assert line.startswith("from the training data: text.size ")
    assert " and " in line and "training.schedule.warmup 4, training.validate_every 5, " in line
    assert "decoding.max_length_ratio 1." in line
    chosen = ["text.size=400", "training.schedule.warmup=0", "training.validate_every=9"]
    assert said(*SILENT, *chosen, "decoding.max_length_ratio=3") == []


@pytest.mark.parametrize("epochs", [2, 4])
def test_labelling_tasks_have_them_too(epochs: int) -> None:
    small = ["data.train.0.limit=100", "data.dev.limit=5", "data.test=null", f"training.max_epochs={epochs}"]
    silent = ["training.validate_every=null", "training.schedule=cosine", "training.batch_tokens=100"]
    lines = list(check(read("languages", [*small, *silent]), device="cpu"))
    (line,) = [text for heading, text in lines if heading == "defaults"]
    per_epoch = int(next(text for heading, text in lines if heading == "time").split("(")[1].split()[0])
    total = per_epoch * epochs
    assert line == (
        f"from the training data: training.schedule.warmup {total // 10}, "
        f"training.validate_every {-(-total // 10)}"
    )
