"""The batch size `auto`: the largest that fits, found by trial, and then a number of the run's recipe."""

from pathlib import Path

import pytest
import tiny_runs
import torch
from hypothesis import given
from hypothesis import strategies as st

from seq2attn.errors import Seq2attnError
from seq2attn.recipe import RecipeError, TrainingRecipe, read
from seq2attn.recipe.image_training import ImageTrainingRecipe
from seq2attn.runs import batch_size, opening
from seq2attn.runs.batch_size import LARGEST, SMALLEST, largest, try_update, widest, with_batch_size
from seq2attn.runs.dry_run import check
from seq2attn.runs.training_run import train
from seq2attn.tasks.loading import learn
from seq2attn.training.run_folder import RunError

SMALL = [*tiny_runs.SMALL, *tiny_runs.READY, *tiny_runs.MODELS["lstm"]]
CPU = torch.device("cpu")


@given(st.integers(0, 3 * LARGEST))
def test_the_largest_size_is_found_to_a_16th(most: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= most

    found = largest(fits)
    assert found <= most and (found or most < SMALLEST)
    assert found >= min(most, LARGEST) * 16 / 17 - 1 or not found
    assert len(tried) <= 24 and len({*tried}) == len(tried)


def test_a_recipe_may_leave_the_size_to_the_device_and_nothing_else() -> None:
    assert TrainingRecipe(max_steps=1, batch_tokens="auto").batch_tokens == "auto"
    assert ImageTrainingRecipe(max_steps=1, batch_images="auto").batch_images == "auto"
    with pytest.raises(Seq2attnError, match="batch_tokens: auto is found when training begins"):
        TrainingRecipe(max_steps=1, batch_tokens="auto").batch_size  # noqa: B018
    with pytest.raises(RecipeError, match=r"batch_tokens: expected a whole number, or auto, got 'largest'$"):
        read("quickstart", ["training.batch_tokens=largest"])


def test_a_cpu_is_refused_with_the_reason_before_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_data", None)
    with pytest.raises(
        RunError, match=r"training\.batch_tokens: auto needs a GPU, and this is cpu: .*number"
    ):
        tiny_runs.train(tmp_path / "run", *SMALL, "training.batch_tokens=auto", device="cpu")
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunError, match="auto needs a GPU"):
        next(check(read("quickstart", [*SMALL, "training.batch_tokens=auto"]), device="cpu"))


def test_the_size_is_found_once_and_stands_in_the_recipe_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read("quickstart", [*SMALL, "training.max_steps=2", "data.test=null"])
    task = learn(recipe)
    training = task.examples("train")
    asked: list[str] = []

    def found(task, training, device, say):
        asked.append(task.recipe.training.batch_tokens)
        sized = task.recipe.training.model_copy(update={"batch_tokens": 160})
        return task.with_recipe(task.recipe.model_copy(update={"training": sized}))

    monkeypatch.setattr(opening, "with_batch_size", found)
    monkeypatch.setattr(opening, "require_gpu", lambda settings, device: None)
    overrides = [*SMALL, "data.test=null", "training.batch_tokens=auto"]
    options = {"display": tiny_runs.silent(), "device": "cpu"}
    run = train("quickstart", tmp_path / "run", [*overrides, "training.max_steps=2"], **options).run
    again = train("quickstart", run, [*overrides, "training.max_steps=3"], resume=True, **options)
    assert again.progress.step == 3 and asked == ["auto"]
    assert read(run / "recipe.yaml").training.batch_tokens == 160
    assert len(training) == 200


def test_the_trial_is_an_update_of_the_widest_batch_and_leaves_random_numbers_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = learn(read("quickstart", SMALL))
    training = task.examples("train")
    loader, costs = task.loader(training, training=True), task.costs(training)
    chosen = widest(loader, costs)
    sizes = [len(batch) * int(costs[batch].max()) for batch in loader.epoch(0)]
    assert len(chosen) * int(costs[chosen].max()) == max(sizes)
    updates = []
    monkeypatch.setattr(batch_size.Trainer, "update", lambda self, batches, step: updates.append(batches))
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    try_update(task, training, CPU)
    assert torch.equal(torch.rand(3), expected)
    assert [batch.shape for (batch,) in updates] == [loader.batch(chosen, 0).shape]


def test_sizes_are_tried_on_a_gpu_until_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a GPU is played by a number; a real one needs a real GPU."""
    task = learn(read("quickstart", [*SMALL, "training.batch_tokens=auto"]))
    said: list[str] = []
    monkeypatch.setattr(batch_size, "_peak", lambda task, *_: task.recipe.training.batch_tokens / 1000)
    sized = with_batch_size(task, task.examples("train"), torch.device("cuda:0"), said.append)
    assert 850 <= sized.recipe.training.batch_tokens <= 900
    assert said == [
        f"training.batch_tokens: {sized.recipe.training.batch_tokens}, the largest that fits into 90% of the "
        "memory of cuda:0"
    ]
    monkeypatch.setattr(batch_size, "_peak", lambda *_: float("inf"))
    with pytest.raises(RunError, match="auto: not even 64 fit into the memory of cuda:0"):
        with_batch_size(task, task.examples("train"), torch.device("cuda:0"), said.append)
