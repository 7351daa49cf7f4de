"""The loop: exact losses, schedules, what is kept, how it ends, and what it says when it cannot go on."""

import gzip
import math
import os
import signal
import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from rich.console import Console
from tiny_runs import log, silent, weights_hash
from tiny_training import KINDS, Scores, loader, number, scripted, steps, trainer
from torch import Tensor

import seq2attn.runs.training_run
import seq2attn.tasks.sequence_tasks
import seq2attn.training.loop
import seq2attn.training.objectives
from seq2attn.alignment.word_alignment import Gold, Link, error_rate, parse_pharaoh
from seq2attn.attention.attention import Past
from seq2attn.attention.normalizers import Softmax
from seq2attn.data import Report, known_alignment
from seq2attn.data.batches import Batch
from seq2attn.data.synthetic import make
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Dropout
from seq2attn.recipe import TaskCorpus, TrainingRecipe, read
from seq2attn.runs.evaluation import held_out, source_and_reference_texts
from seq2attn.runs.training_run import Trained
from seq2attn.tasks.loading import reopen
from seq2attn.tasks.sequence_tasks import token_objective
from seq2attn.training.display import Display
from seq2attn.training.loop import Progress, Trainer, TrainingError, fit, total_steps
from seq2attn.training.objectives import AttentionLosses
from seq2attn.training.run_folder import RunFolder, Version, average, tensors_of, weights_of
from seq2attn.training.token_loss import Loss


def sgd(
    kind: str = KINDS[0], dtype: torch.dtype = torch.float32, device: str = "cpu", **training: Any
) -> Trainer:
    """A learner whose weights move by minus the gradient."""
    plain = {"optimizer": "sgd", "learning_rate": 1.0, "clip": None, "label_smoothing": 0.1}
    return trainer(kind, None, dtype, device, **{**plain, **training})


def batch(rows: range) -> Batch:
    return loader().batch(np.array(rows))


def moved(one: Trainer, batches: list[Batch]) -> tuple[dict[str, Tensor], seq2attn.training.loop.UpdateStats]:
    """By how much an update moves each tensor."""
    before = weights_of(one.model)
    updated = one.update(batches, 1)
    return {name: before[name] - tensor for name, tensor in weights_of(one.model).items()}, updated


def norm(tensors: Any) -> float:
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


# ---- one update -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_does_not_depend_on_how_an_update_is_cut(
    kind: str, dtype: torch.dtype, tolerance: float
) -> None:
    pieces = [range(1), range(1, 4), range(4, 11), range(11, 16)]
    one, whole = moved(sgd(kind, dtype), [batch(range(16))])
    four, parts = moved(sgd(kind, dtype), [batch(rows) for rows in pieces])
    assert len({int(batch(rows).target_mask.sum()) for rows in pieces}) == 4  # unequal token counts
    assert (whole.tokens, whole.loss, whole.norm) == pytest.approx((parts.tokens, parts.loss, parts.norm))
    for name, gradient in one.items():
        torch.testing.assert_close(four[name], gradient, rtol=0, atol=tolerance)


def test_dropout_is_named_by_seed_step_and_batch() -> None:
    """Whatever was drawn before: so a batch has the same gradient in any process, and after any resumption."""
    batches = [batch(range(8)), batch(range(8))]

    def gradients(seed: int, step: int, noise: int, chosen: list[Batch]) -> dict[str, torch.Tensor]:
        one = sgd(dtype=torch.float64)
        one.seed = seed
        for part in one.model.modules():
            if isinstance(part, Dropout):
                part.rate = 0.3
        torch.manual_seed(noise)
        before = {name: tensor.clone() for name, tensor in one.model.named_parameters()}
        one.update(chosen, step)
        return {name: tensor - before[name] for name, tensor in one.model.named_parameters()}

    def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(one[name], other[name]) for name in one)

    first = gradients(1, 1, 0, batches[:1])
    assert equal(first, gradients(1, 1, 9, batches[:1]))
    assert not equal(first, gradients(2, 1, 0, batches[:1]))
    assert not equal(first, gradients(1, 2, 0, batches[:1]))
    # twice the same batch in an update: each has its own dropout, so their mean is not that of one
    assert not torch.allclose(
        first["decoder.output.weight"], gradients(1, 1, 0, batches)["decoder.output.weight"]
    )


def test_the_gradient_is_that_of_the_mean_over_all_tokens() -> None:
    one, some = sgd(dtype=torch.float64), batch(range(16))
    logits = one.model.train()(some.source, some.target_input).logits
    gold = some.target.masked_fill(~some.target_mask, -100)
    loss = F.cross_entropy(logits.flatten(0, 1), gold.flatten(), label_smoothing=0.1)
    gradients = dict(
        zip(
            dict(one.model.named_parameters()),
            torch.autograd.grad(loss, [*one.model.parameters()]),
            strict=True,
        )
    )
    steps, updated = moved(one, [some])
    assert updated.loss == pytest.approx(loss.item())
    assert updated.norm == pytest.approx(norm(gradients.values()))
    for name, gradient in gradients.items():
        torch.testing.assert_close(steps[name], gradient, rtol=0, atol=1e-13)


def test_clipping_shortens_the_gradient_and_reports_its_length() -> None:
    free, updated = moved(sgd(), [batch(range(9))])
    short, clipped = moved(sgd(clip=0.01), [batch(range(9))])
    assert clipped.norm == updated.norm == pytest.approx(norm(free.values()), rel=1e-4)
    assert norm(short.values()) == pytest.approx(0.01, rel=1e-3)
    loose, _ = moved(sgd(clip=1000.0), [batch(range(9))])
    assert norm(loose.values()) == pytest.approx(norm(free.values()), rel=1e-6)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ({"name": "constant", "warmup": 2}, [1 / 2, 1, 1, 1]),
        ({"name": "inverse_sqrt", "warmup": 2}, [1 / 2, 1, (2 / 3) ** 0.5, (2 / 4) ** 0.5]),
        ("linear", [3 / 4, 1 / 2, 1 / 4, 0]),
        ("cosine", [(1 + math.cos(math.pi * step / 4)) / 2 for step in (1, 2, 3, 4)]),
    ],
)
def test_the_schedule_makes_the_learning_rate(schedule: Any, factors: list[float]) -> None:
    one = trainer(total=4, max_steps=4, learning_rate=0.25, schedule=schedule)
    for step, factor in enumerate(factors, 1):
        updated = one.update([batch(range(3))], step)
        used = [group["lr"] for group in one.optimizer.param_groups]
        assert [updated.learning_rate, *used] == pytest.approx([0.25 * factor] * 3)


def test_ema_is_what_a_hand_computes() -> None:
    one = trainer(ema=0.8)
    by_hand = {name: tensor.double() for name, tensor in weights_of(one.model).items()}
    for step in range(1, 6):
        one.update([batch(range(step, step + 5))], step)
        for name, tensor in weights_of(one.model).items():
            by_hand[name] = 0.8 * by_hand[name] + 0.2 * tensor.double()
    own = weights_of(one.model)
    with one.averaged() as weights:
        for name, tensor in tensors_of(one.model).items():
            torch.testing.assert_close(tensor.double(), by_hand[name], rtol=1e-5, atol=1e-7)
            assert torch.equal(tensor, weights[name])
    assert all(torch.equal(tensor, own[name]) for name, tensor in tensors_of(one.model).items())
    assert any(not torch.equal(weights[name], own[name]) for name in own)


def test_averaged_weights_leave_when_validation_fails() -> None:
    one = trainer(ema=0.5)
    one.update([batch(range(5))], 1)
    own = weights_of(one.model)
    with pytest.raises(KeyError), one.averaged():
        raise KeyError
    assert all(torch.equal(tensor, own[name]) for name, tensor in tensors_of(one.model).items())


HALVES = [("bf16", "cpu"), ("bf16", "cuda"), ("fp16", "cuda")]


@pytest.mark.parametrize(("precision", "device"), HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_learns_nearly_the_same(kind: str, precision: str, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    _, whole = moved(sgd(kind), [batch(range(16))])
    one = sgd(kind, device=device, precision=precision)
    steps, half = moved(one, [batch(range(16))])
    while not math.isfinite(half.norm):  # fp16 finds the scale at which nothing overflows
        assert not norm(steps.values())
        steps, half = moved(one, [batch(range(16))])
    assert 0 < abs(half.loss - whole.loss) < 0.02 * whole.loss
    assert half.norm == pytest.approx(whole.norm, rel=0.05)
    assert norm(steps.values()) == pytest.approx(whole.norm, rel=0.05)
    assert {parameter.dtype for parameter in one.model.parameters()} == {torch.float32}


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(
        Seq2attnError, match="precision fp16 needs a GPU, and this is a CPU: use bf16 or fp32"
    ):
        sgd(precision="fp16").update([batch(range(2))], 1)


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


def test_of_equals_the_first_is_the_best(run: RunFolder) -> None:
    fit(run, trainer(max_steps=6, validate_every=2), loader(), scripted(3, 3, 3))
    assert (steps(run), number(run.version.best)) == ([2, 6], 2)


@pytest.mark.parametrize(("metric", "sign"), [("bleu", 1), ("exact", 1), ("wer", -1), ("loss", -1)])
def test_early_stopping_waits_for_the_metric(run: RunFolder, metric: str, sign: int) -> None:
    one = trainer(max_steps=100, validate_every=2, metric=metric, early_stopping={"patience": 3})
    values = [sign * value for value in (1, 2, 1, 1, 3, 2, 2, 3, 9, 9)]
    progress = fit(run, one, loader(), scripted(*values, metric=metric))
    assert (progress.step, progress.waited, progress.best[0]) == (16, 3, 3)
    assert number(run.version.best) == 10


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
    plain = seq2attn.training.objectives.cross_entropy

    def loss(*given: Any) -> Loss:
        found = plain(*given)
        return Loss(found.smoothed + value, found.nll) if next(count) >= after else found

    monkeypatch.setattr(seq2attn.training.objectives, "cross_entropy", loss)


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
    assert "The last saved state is kept" in message
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


# ---- signals ----------------------------------------------------------------------------------------


@pytest.fixture
def handlers() -> Iterator[list[Any]]:
    """What handles signals before; it must be so again."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield before
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_update_saved(run: RunFolder, handlers: list[Any], number: int) -> None:
    def report(record: dict[str, Any]) -> None:
        if record["step"] == 3:
            os.kill(os.getpid(), number)

    progress = fit(run, trainer(), loader(), scripted(1.0), report)
    assert (progress.step, progress.interrupted) == (3, number)
    state = run.load_state()
    assert state is not None
    assert Progress(**state["progress"]).step == 3
    assert Progress(**state["progress"]).interrupted == 0
    assert fit(run, trainer(), loader(), scripted(1.0)).step == 8


def test_a_thread_leaves_signals_alone(run: RunFolder, handlers: list[Any]) -> None:
    ended: list[Progress] = []
    thread = threading.Thread(target=lambda: ended.append(fit(run, trainer(), loader(), scripted(1.0))))
    thread.start()
    thread.join()
    assert ended[0].step == 8


def test_a_second_ctrl_c_ends_at_once(run: RunFolder, handlers: list[Any]) -> None:
    def report(record: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(run, trainer(), loader(), scripted(1.0), report)


def test_a_signal_at_the_end_changes_nothing(run: RunFolder, handlers: list[Any]) -> None:
    def report(record: dict[str, Any]) -> None:
        if record["step"] == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    assert fit(run, trainer(), loader(), scripted(1.0), report).interrupted == 0


# ---- going on ---------------------------------------------------------------------------------------

EVERYTHING: dict[str, Any] = {
    "max_steps": None,
    "max_epochs": 3,
    "accumulate": 2,
    "ema": 0.7,
    "label_smoothing": 0.1,
    "validate_every": 2,
    "schedule": {"name": "plateau", "patience": 0, "warmup": 2},
    "keep_last": 2,
}


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize(
    ("kind", "options"), [(KINDS[0], {}), (KINDS[1], {"optimizer": "sgd", "momentum": 0.9})]
)
def test_resuming_is_exact(
    tmp_path: Path, kind: str, options: dict[str, Any], every: int, handlers: list[Any]
) -> None:
    def report(record: dict[str, Any]) -> None:
        if record["step"] % every == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    def scores(one: Trainer) -> Scores:
        """Of the weights themselves, so that they show whether they are the same."""

        def validate(limit: int | None) -> dict[str, float]:
            value = norm(tensors_of(one.model).values())
            return {"loss": value, "perplexity": value, "bleu": -value, "chrf": value}

        return validate

    def once(run: RunFolder, report: Any) -> Progress:
        one = trainer(kind, **{**EVERYTHING, **options})
        for part in one.model.modules():
            if isinstance(part, Dropout):
                part.rate = 0.3
        torch.manual_seed(5)
        return fit(run, one, loader(), scores(one), report)

    whole = RunFolder.create(tmp_path / "whole", read("quickstart"), Version())
    assert once(whole, lambda record: None).step == 9
    parts = RunFolder.create(tmp_path / "parts", read("quickstart"), Version())
    sessions = 1
    while once(RunFolder.open(parts.path), report).interrupted:
        sessions += 1
    assert sessions == 9 // every + (every > 1)
    assert RunFolder.open(parts.path).version == whole.version
    assert log(parts.path) == log(whole.path)


# ---- what attention is taught ------------------------------------------------------------------------

LOSSES = {"coverage": 1.0, "doubly_stochastic": 0.5, "guided": 0.05, "entropy": 0.1}


def linked(rows: range) -> Batch:
    """A batch with a gold alignment: token t means source t, where there is one."""
    some = batch(rows)
    links = torch.eye(some.target.shape[1], some.source.tokens.shape[1], dtype=torch.bool)
    return some._replace(links=links & some.source.mask[:, None] & some.target_mask[..., None])


@pytest.mark.parametrize("kind", KINDS)
def test_what_attention_is_taught_does_not_depend_on_how_an_update_is_cut(kind: str) -> None:
    pieces = [range(1), range(1, 4), range(4, 11), range(11, 16)]
    one, whole = moved(sgd(kind, torch.float64, attention_losses=LOSSES), [linked(range(16))])
    four, parts = moved(sgd(kind, torch.float64, attention_losses=LOSSES), [linked(rows) for rows in pieces])
    assert whole.parts == pytest.approx(parts.parts) and whole.parts.keys() == LOSSES.keys()
    assert all(value > 0 for value in whole.parts.values())
    plain, without = moved(sgd(kind, torch.float64), [linked(range(16))])
    assert without.parts == {} and without.loss == pytest.approx(whole.loss)
    for name, gradient in one.items():
        torch.testing.assert_close(four[name], gradient, rtol=0, atol=1e-13)
    assert any(not torch.allclose(plain[name], gradient) for name, gradient in one.items())


def test_the_taught_gradient_is_that_of_the_mean_over_all_tokens() -> None:
    one, some = sgd(dtype=torch.float64, attention_losses={"coverage": 0.7}), batch(range(16))
    decoded = one.model.train()(some.source, some.target_input, [0])
    gold = some.target.masked_fill(~some.target_mask, -100)
    loss = F.cross_entropy(decoded.logits.flatten(0, 1), gold.flatten(), label_smoothing=0.1)
    looked = decoded.weights[:, 0, 0] * some.target_mask[..., None]
    again = torch.minimum(looked, looked.cumsum(1) - looked).sum() / some.target_mask.sum()
    parameters = dict(one.model.named_parameters())
    gradients = torch.autograd.grad(loss + 0.7 * again, [*parameters.values()])
    steps, updated = moved(one, [some])
    assert updated.parts == pytest.approx({"coverage": again.item()})
    for name, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(steps[name], gradient, rtol=0, atol=1e-13)


def test_what_attention_is_taught_is_reported_and_logged(run: RunFolder) -> None:
    shown: list[dict[str, Any]] = []
    one = trainer(max_steps=4, log_every=2, attention_losses={"coverage": 1.0})
    fit(run, one, loader(), scripted(1.0), shown.append)
    assert all(record["coverage"] > 0 for record in shown if "norm" in record)
    logged = [record["coverage"] for record in log(run.path) if "norm" in record]
    assert logged == [record["coverage"] for record in shown if record["step"] in (2, 4) and "norm" in record]


def test_coverage_is_learnt() -> None:
    one, some = trainer(learning_rate=0.05, attention_losses={"coverage": 30.0}), batch(range(8))
    first, *_, last = [one.update([some], step).parts["coverage"] for step in range(1, 40)]
    assert last < 0.8 * first


class Drawing(Softmax):
    """Draws in training: a stand-in for any normalizer that does."""

    def sample(self, weights: Tensor, past: Past) -> Tensor | None:
        if not self.training:
            return None
        drawn = torch.multinomial(weights.detach().flatten(0, -2) + 1e-30, 1)
        return torch.zeros_like(weights).flatten(0, -2).scatter(-1, drawn, 1.0).view_as(weights)


def test_reinforcement_resumes_with_its_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: list[Any]
) -> None:
    monkeypatch.setattr(
        seq2attn.tasks.sequence_tasks,
        "AttentionLosses",
        lambda factors, decoder, *a: AttentionLosses(factors, drawing(decoder), *a),
    )

    def drawing(decoder: Any) -> Any:
        decoder.attention.normalize = Drawing()
        return decoder

    def once(run: RunFolder, report: Any) -> Trainer:
        losses = {"reinforce": 0.3, "entropy": 0.01}
        one = trainer(max_steps=6, validate_every=3, accumulate=2, log_every=1, attention_losses=losses)
        torch.manual_seed(5)
        fit(run, one, loader(), scripted(1.0), report)
        return one

    whole = RunFolder.create(tmp_path / "whole", read("quickstart"), Version())
    expected = once(whole, lambda record: None)
    parts = RunFolder.create(tmp_path / "parts", read("quickstart"), Version())
    stopped = once(
        parts, lambda record: os.kill(os.getpid(), signal.SIGTERM) if record["step"] == 2 else None
    )
    assert stopped.objective.state() is not None
    resumed = once(RunFolder.open(parts.path), lambda record: None)
    assert expected.objective.state() == resumed.objective.state() != stopped.objective.state()
    assert log(parts.path) == log(whole.path)
    for name, tensor in tensors_of(expected.model).items():
        assert torch.equal(tensor, tensors_of(resumed.model)[name])


def test_guided_without_gold_alignments_is_an_error() -> None:
    with pytest.raises(Seq2attnError, match="needs gold alignments, and the training data have none"):
        trainer(attention_losses={"guided": 1.0}).update([batch(range(3))], 1)


def test_hard_attention_is_reinforced_from_the_second_update_on() -> None:
    """The real thing, in both of its moods: a draw is reinforced, an expectation is not."""
    for rate, reinforced in ((0.0, True), (1 - 1e-12, False)):
        attention = {"score": "additive", "normalize": {"name": "hard", "soft_rate": rate}}
        decoder = {**tiny.recurrent_decoder("luong"), "attention": attention}
        recipe = TrainingRecipe.model_validate({"max_steps": 2, "attention_losses": {"reinforce": 1.0}})
        model = tiny.model({"encoder": tiny.recurrent_encoder(), "decoder": decoder})
        one = Trainer(model, token_objective(model, recipe), recipe, torch.device("cpu"), None)
        first, second = (one.update([batch(range(5))], step).parts["reinforce"] for step in (1, 2))
        assert first == 0 and (second != 0) == reinforced


# ---- guided by gold alignments -------------------------------------------------------------------------

MADE = "symbols: 8, lengths: [3, 6]"
GUIDED = [
    *(f"data.{role}={{task: sort, {MADE}, count: 60}}" for role in ("dev", "test")),
    "text={model: char, size: 40, byte_fallback: false}",  # c2 is three pieces
    "model.encoder={kind: recurrent, embedding: 32, size: 16}",
    "model.decoder.size=32",
    "training={max_steps: 120, validate_every: 60, log_every: 1, batch_tokens: 200, learning_rate: 0.01, "
    "metric: loss, metrics: exact}",
]
LEARNT = [f"data.train={{task: sort, {MADE}, count: 1000}}"]
TAUGHT = [
    f"data.train={{task: sort, {MADE}, count: 1000, alignments: true}}",
    "training.attention_losses={guided: 0.5}",
]


def aligns(trained: Trained) -> float:
    """The alignment error rate of a run on the test set of its task."""
    examples = held_out(reopen(RunFolder.open(trained.run)), "test")
    pairs = [*zip(*source_and_reference_texts(examples), strict=True)]
    gold = []
    for source, _ in pairs:
        links = frozenset(Link(place, word) for word, place in enumerate(known_alignment("sort", source)))
        gold.append(Gold(links, links))
    return error_rate([parse_pharaoh(trained.model.align(*pair).pharaoh()) for pair in pairs], gold)


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory, stores: None) -> Trained:
    path = tmp_path_factory.mktemp("guided") / "run"
    return seq2attn.runs.training_run.train("sort_additive", path, [*GUIDED, *TAUGHT], display=silent())


def test_guided_attention_aligns(guided: Trained, tmp_path: Path) -> None:
    """Where to look is learnt long before what to say, and is not when nobody says it."""
    unguided = seq2attn.runs.training_run.train(
        "sort_additive", tmp_path / "run", [*GUIDED, *LEARNT], display=silent()
    )
    assert aligns(guided) < 0.15 < 0.6 < aligns(unguided)
    losses = [record["guided"] for record in log(guided.run) if "guided" in record]
    assert len(losses) == 120 and np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])
    assert not any("guided" in record for record in log(tmp_path / "run"))


def test_guided_training_resumes_exactly(guided: Trained, tmp_path: Path, handlers: list[Any]) -> None:
    class Stopping(Display):
        def __call__(self, record: dict[str, Any]) -> None:
            if "norm" in record and record["step"] % 50 == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    options: dict[str, Any] = {"display": Stopping(Console(file=StringIO()))}
    stops = 0
    while seq2attn.runs.training_run.train(
        "sort_additive", tmp_path / "run", [*GUIDED, *TAUGHT], resume=bool(stops), **options
    ).progress.interrupted:
        stops += 1
    assert stops == 2
    assert weights_hash(tmp_path / "run") == weights_hash(guided.run)
    assert log(tmp_path / "run") == log(guided.run)


def test_files_that_say_what_a_task_says_teach_the_same(guided: Trained, tmp_path: Path) -> None:
    corpus = TaskCorpus.model_validate(
        {"task": "sort", "symbols": 8, "lengths": (3, 6), "count": 1000, "alignments": True}
    )
    made = list(make(corpus, "train", Report()))
    columns = {
        "de": [pair.source for pair in made],
        "en": [pair.target for pair in made],
        "pharaoh": [" ".join(map(str, pair.links or ())) for pair in made],
    }
    for name, lines in columns.items():
        with gzip.open(tmp_path / f"{name}.gz", "wt", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    files = f"files: [{tmp_path}/de.gz, {tmp_path}/en.gz], alignments: {tmp_path}/pharaoh.gz"
    overrides = [*GUIDED, f"data.train={{{files}}}", *TAUGHT[1:]]
    trained = seq2attn.runs.training_run.train("sort_additive", tmp_path / "run", overrides, display=silent())
    assert weights_hash(trained.run) == weights_hash(guided.run)
    assert RunFolder.open(trained.run).version.data == RunFolder.open(guided.run).version.data
