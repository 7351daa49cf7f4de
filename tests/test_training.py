"""The loop: exact losses, schedules, what is kept, how it ends, and what it says when it cannot go on."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import log
from tiny_training import VOCABULARIES, Sentences, loader, norm, number, scripted, steps, trainer

import seq2attn.layers.token_loss
import seq2attn.runs.training_run
import seq2attn.tasks.sequence_tasks
import seq2attn.training.loop
from seq2attn.data.batches import BatchLoader
from seq2attn.data.sources import PairTokenizer
from seq2attn.layers.token_loss import Loss
from seq2attn.recipe import TrainingRecipe, read
from seq2attn.training.loop import Progress, TrainingError, fit, total_steps
from seq2attn.training.run_folder import RunFolder, Version, average, weights_of
from seq2attn.training.trainer import Trainer

# ---- the loop ---------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", read("quickstart"), Version())


@pytest.mark.parametrize(
    ("metric", "values"),
    [("bleu", (1, 5, 3, 4, 2)), ("chrf", (1, 5, 3, 4, 2)), ("loss", (5, 1, 3, 2, 4))],
)
def test_the_best_and_the_last_stay(run: RunFolder, metric: str, values: tuple[float, ...]) -> None:
    one = trainer(max_steps=10, validate_every=2, metric=metric, keep_best=2, keep_last=1)
    fit(run, one, loader(), scripted(*values, metric=metric))
    assert steps(run) == [4, 8, 10]
    version = RunFolder.open(run.path).version
    assert (number(version.best), number(version.last)) == (4, 10)
    assert all(
        torch.equal(tensor, one.model.state_dict()[name]) for name, tensor in run.load_weights("last").items()
    )
    assert [record[metric] for record in log(run.path) if metric in record and "norm" not in record] == [
        *values
    ]


def test_of_equals_the_last_is_the_best(run: RunFolder) -> None:
    fit(run, trainer(max_steps=6, validate_every=2), loader(), scripted(3, 3, 3))
    assert (steps(run), number(run.version.best)) == ([6], 6)


@pytest.mark.parametrize(("metric", "sign"), [("bleu", 1), ("exact", 1), ("wer", -1), ("loss", -1)])
def test_early_stopping_waits_for_the_metric(run: RunFolder, metric: str, sign: int) -> None:
    one = trainer(max_steps=100, validate_every=2, metric=metric, early_stopping={"patience": 3})
    values = [sign * value for value in (1, 2, 1, 1, 3, 2, 2, 3, 9, 9)]
    progress = fit(run, one, loader(), scripted(*values, metric=metric))
    assert (progress.step, progress.waited, progress.best[0]) == (16, 3, 3)
    assert number(run.version.best) == 16  # as good as after step 10, and later


def test_plateau_lowers_the_rate_after_its_patience(run: RunFolder) -> None:
    seen: list[float] = []
    schedule = {"name": "plateau", "decay": 0.1, "patience": 1}
    one = trainer(max_steps=7, validate_every=1, learning_rate=1.0, optimizer="sgd", schedule=schedule)
    fit(
        run,
        one,
        loader(),
        scripted(1, 2, 2, 2, 2, 2),
        lambda record: seen.append(record.get("learning_rate", -1)),
    )
    assert [rate for rate in seen if rate >= 0] == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("ends", "accumulate", "expected"),
    [
        ({"max_steps": 5}, 1, 5),
        ({"max_epochs": 2, "max_steps": None}, 1, 12),
        ({"max_epochs": 2, "max_steps": None}, 4, 4),  # 6 batches: 4 + 2
        ({"max_epochs": 2, "max_steps": 3}, 4, 3),
        ({"max_minutes": 1e-9, "max_steps": None}, 1, None),
    ],
)
def test_it_ends_where_the_recipe_says(
    run: RunFolder, ends: dict[str, Any], accumulate: int, expected: int | None
) -> None:
    some = loader()
    assert len(some.epoch(0)) == 6
    recipe = TrainingRecipe.model_validate({"accumulate": accumulate, **ends})
    assert total_steps(recipe, some) == expected
    progress = fit(run, trainer(accumulate=accumulate, **ends), some, scripted(1.0))
    assert progress.step == (expected or 1)
    assert steps(run) == [progress.step]  # the end is validated


class Growing(Sentences):
    """A corpus of which each epoch sees more."""

    def epoch(self, epoch: int, seed: int) -> Any:
        return np.arange(4 + 7 * epoch)


@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_a_schedule_ends_with_the_last_update_of_epochs_of_different_lengths(
    run: RunFolder, accumulate: int
) -> None:
    rates: list[float] = []
    growing = BatchLoader(Growing(), PairTokenizer(*VOCABULARIES), 40)
    settings = {"accumulate": accumulate, "max_epochs": 3, "max_steps": None, "schedule": {"name": "linear"}}
    total = total_steps(TrainingRecipe.model_validate(settings), growing)
    one = trainer(total=total, learning_rate=0.01, validate_every=100, **settings)
    progress = fit(
        run, one, growing, scripted(1.0), lambda record: rates.append(record.get("learning_rate", -1))
    )
    assert progress.step == total and len({growing.epoch_size(epoch) for epoch in range(3)}) == 3
    assert [rate for rate in rates if rate >= 0] == pytest.approx(
        [0.01 * (1 - n / total) for n in range(1, total + 1)]
    )


def test_every_example_is_learned_from_once_an_epoch(run: RunFolder) -> None:
    some, seen = loader(), []
    plain = some.batch
    some.batch = lambda numbers, epoch=None: (seen.append((epoch, numbers.tolist())), plain(numbers, epoch))[
        1
    ]  # type: ignore[method-assign]
    progress = fit(run, trainer(accumulate=4, max_epochs=2, max_steps=None), some, scripted(1.0))
    for epoch in (0, 1):
        assert sorted(row for at, rows in seen if at == epoch for row in rows) == [*range(23)]
    assert (progress.epoch, progress.batch) == (2, 0)
    assert progress.tokens == 2 * (int(some.examples.target_lengths.sum()) + 23)


def test_a_broken_metric_fails_before_the_first_step(run: RunFolder) -> None:
    asked = []

    def validate(limit: int | None) -> dict[str, float]:
        asked.append(limit)
        raise ZeroDivisionError

    one = trainer()
    before = weights_of(one.model)
    with pytest.raises(ZeroDivisionError):
        fit(run, one, loader(), validate)
    assert asked == [2]
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(one.model).items())


def test_no_examples_is_an_error(run: RunFolder) -> None:
    with pytest.raises(TrainingError, match="expected training examples, got none"):
        fit(run, trainer(), loader(count=0), scripted(1.0))


def test_the_log_has_every_nth_step_and_every_validation(run: RunFolder) -> None:
    shown: list[dict[str, Any]] = []
    fit(run, trainer(max_steps=7, log_every=3, validate_every=4), loader(), scripted(1, 2), shown.append)
    assert [(record["step"], "bleu" in record) for record in log(run.path)] == [
        (3, False), (4, True), (6, False), (7, True),
    ]  # fmt: skip
    updates = [record for record in shown if "norm" in record]
    assert [record["step"] for record in updates] == [*range(1, 8)]
    wanted = {"loss", "norm", "learning_rate", "tokens", "seconds", "epoch", "total"}
    assert all(wanted <= record.keys() for record in updates)


# ---- averages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "best"), [(9.0, "average-3.safetensors"), (3.0, "step-00000004.safetensors")]
)
def test_the_average_of_the_last_is_the_best_if_it_scores_better(
    run: RunFolder, value: float, best: str
) -> None:
    one = trainer(max_steps=8, validate_every=2, keep_last=3, average=3)
    fit(run, one, loader(), scripted(1, 5, 2, 3, value))
    version = RunFolder.open(run.path).version
    assert (version.average, version.best, steps(run)) == ("average-3.safetensors", best, [4, 6, 8])
    last = [run.load_weights(f"step-{step:08d}.safetensors") for step in (4, 6, 8)]
    for name, tensor in run.load_weights("average").items():
        by_hand = sum(weights[name].double() for weights in last) / 3
        torch.testing.assert_close(tensor.double(), by_hand, rtol=1e-6, atol=1e-8)
    assert log(run.path)[-1]["average"] == 3
    assert average(last).keys() == last[0].keys()


def test_to_finish_twice_is_to_finish_once(run: RunFolder) -> None:
    settings: dict[str, Any] = {"max_steps": 6, "validate_every": 2, "keep_last": 2, "average": 2}
    fit(run, trainer(**settings), loader(), scripted(1, 5, 2, 9))
    version, records = (run.path / "version.json").read_text(), log(run.path)
    fit(RunFolder.open(run.path), trainer(**settings), loader(), scripted(9))
    assert (run.path / "version.json").read_text() == version
    assert log(run.path) == records


def test_a_longer_run_goes_on_and_forgets_the_average(run: RunFolder) -> None:
    settings: dict[str, Any] = {"validate_every": 2, "keep_last": 2, "average": 2, "max_steps": 4}
    fit(run, trainer(**settings), loader(), scripted(1, 2, 9))
    assert run.version.best == "average-2.safetensors"
    longer = trainer(**{**settings, "max_steps": 8})
    fit(run, longer, loader(), scripted(3, 4, 1))
    assert (steps(run), number(run.version.best)) == ([6, 8], 8)
    assert "average" in log(run.path)[-1]
    assert len([record for record in log(run.path) if "average" in record]) == 1


# ---- when it cannot go on ---------------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, value: float, after: int) -> None:
    """From some update on, the loss is `value`, though its gradient is finite."""
    count = iter(range(10_000))
    plain = seq2attn.layers.token_loss._cross_entropy

    def loss(*given: Any) -> Loss:
        found = plain(*given)
        return Loss(found.smoothed + value, found.nll) if next(count) >= after else found

    monkeypatch.setattr(seq2attn.layers.token_loss, "_cross_entropy", loss)


def stopped(run: RunFolder, one: Trainer) -> str:
    """Train until it stops with an error; what it says. Weights and checkpoint are those of step 4."""
    some, kept = loader(), {}
    shown: list[dict[str, Any]] = []

    def report(record: dict[str, Any]) -> None:
        shown.append(record)
        kept.update(weights_of(one.model))

    with pytest.raises(TrainingError) as caught:
        fit(run, one, some, scripted(2, 1), report)
    assert shown[-1]["step"] == 5
    assert all(torch.equal(tensor, kept[name]) for name, tensor in weights_of(one.model).items())
    assert all(bool(tensor.isfinite().all()) for tensor in kept.values())
    opened = RunFolder.open(run.path)
    assert (number(opened.version.best), number(opened.version.last)) == (2, 4)
    assert all(bool(tensor.isfinite().all()) for tensor in opened.load_weights("best").values())
    state = opened.load_state()
    assert state is not None
    assert Progress(**state["progress"]).step == 4
    wanted = some.epoch(0)[5].tolist()
    assert len(some.epoch(0)) == 6
    message = str(caught.value)
    assert f"at step 6, epoch 1, in the batch with the examples {wanted[:8]}" in message
    return message


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    poison(monkeypatch, value, after=5)
    one = trainer(validate_every=2)
    message = stopped(run, one)
    assert f"the loss is {value}" in message
    assert f"norm of the parameters {norm(one.model.parameters()):.4g}" in message
    assert "Lower training.learning_rate" in message


def test_a_gradient_that_is_infinite_stops(run: RunFolder) -> None:
    one = trainer(validate_every=2)
    count = iter(range(100))
    next(one.model.parameters()).register_hook(
        lambda gradient: gradient + math.inf if next(count) == 5 else gradient
    )
    assert "the gradient's norm inf" in stopped(run, one)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_names_the_batch_and_what_to_lower(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    one = trainer(validate_every=2, batch_tokens=50)
    count, plain = iter(range(100)), one.model.forward

    def forward(*given: Any) -> Any:
        if next(count) == 5:
            raise error
        return plain(*given)

    monkeypatch.setattr(one.model, "forward", forward)
    message = stopped(run, one)
    some = loader()
    widest = some.batch(some.epoch(0)[5])
    assert message.startswith("out of memory")
    assert (
        f"source by target {tuple(widest.source.tokens.shape)} by {tuple(widest.target_input.shape)}"
        in message
    )
    assert "Lower training.batch_tokens (now 50) and raise training.accumulate" in message


def test_other_errors_pass(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer()

    def forward(*given: Any) -> Any:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(one.model, "forward", forward)
    with pytest.raises(RuntimeError, match="shapes differ"):
        fit(run, one, loader(), scripted(1.0))
