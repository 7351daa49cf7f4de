"""Training: `fit` is the loop; around it stands what makes a run exact, resumable and readable."""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from seq2attn.data.batch_plan import Indices
from seq2attn.data.batches import AnyBatch, AnyBatchLoader
from seq2attn.errors import Seq2attnError
from seq2attn.metrics import METRICS
from seq2attn.optim import SCHEDULES, Schedule, optimizer
from seq2attn.recipe import LearningRecipe
from seq2attn.runtime.devices import autocast, out_of_memory
from seq2attn.training.objectives import Losses, Objective
from seq2attn.training.run_folder import (
    RunError,
    RunFolder,
    Weights,
    average,
    load_weights,
    tensors_of,
    weights_name,
    weights_of,
)

Validate = Callable[[int | None], dict[str, float]]  # at most so many batches -> loss, and metrics by name
Report = Callable[[dict[str, Any]], None]


class TrainingError(Seq2attnError):
    """Training cannot go on; what was saved last is kept."""


class UpdateStats(NamedTuple):
    """What an update was like."""

    loss: float  # smoothed, per token, in nats
    norm: float  # of the gradient, before clipping
    learning_rate: float
    tokens: int  # target tokens
    parts: dict[str, float]  # what else is learnt, per token, before its factor


class UpdatePlan(NamedTuple):
    """The batches of one update, and where the plan stands after it."""

    batches: list[Indices]
    epoch: int
    then: tuple[int, int]  # epoch, batch


@dataclass
class Progress:
    """Where training stands; numbers only, so that it can be saved as it is."""

    step: int = 0  # updates made
    epoch: int = 0
    batch: int = 0  # the next batch in the epoch's plan
    tokens: int = 0  # target tokens learned from
    seconds: float = 0.0
    best: list[float] = field(default_factory=list)  # the best validation so far, as `_value` says
    waited: int = 0  # validations since the best
    interrupted: int = 0  # the signal that ended training before its end, 0 = none


class Trainer:
    """A model, and all that changes with it: optimizer, schedule, moving average.

    Everything random in an update (dropout, sampled attention) is named by (seed, step, index of the batch in
    the update), so that a checkpoint needs no generators, and a batch is the same wherever it is computed.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        recipe: LearningRecipe,
        device: torch.device,
        total: int | None,
        seed: int = 1,
    ) -> None:
        self.model, self.objective = model.to(device), objective
        self.recipe, self.device, self.total, self.seed = recipe, device, total, seed
        self.optimizer = optimizer(
            recipe.optimizer,
            model.parameters(),
            recipe.learning_rate,
            recipe.weight_decay,
            recipe.betas,
            recipe.eps,
            recipe.momentum,
        )
        self.schedule: Schedule = recipe.schedule.make(SCHEDULES)
        self.moving: Weights | None = None
        if recipe.ema:
            self.moving = {name: tensor.clone() for name, tensor in tensors_of(self.model).items()}
        autocast(device, recipe.precision)  # an error now, if the device cannot
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")

    def update(self, batches: Sequence[AnyBatch], step: int) -> UpdateStats:
        """One update from one or several batches.

        Losses are summed over all the batches' tokens and divided once, so that the gradient does not
        depend on how an update is cut into batches. Raises FloatingPointError, with the weights as they
        were, if the loss or the gradient is not finite.
        """
        self.model.train()
        rate = self.recipe.learning_rate * self.schedule.factor(step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        tokens = sum(batch.num_targets for batch in batches)
        total, parts = 0.0, dict[str, float]()
        for index, batch in enumerate(batches):
            seed_batch(self.seed, step, index)
            losses = self._losses(batch.to(self.device))
            self.scaler.scale(losses.whole / tokens).backward()
            total += losses.loss.item() / tokens
            parts = {name: parts.get(name, 0.0) + one.item() / tokens for name, one in losses.parts.items()}
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip or math.inf))
        # With fp16 an infinite gradient is the scaler's business: it skips the step and scales down.
        finite = math.isfinite(total + sum(parts.values()))
        if not finite or not (self.scaler.is_enabled() or math.isfinite(norm)):
            raise FloatingPointError(f"the loss is {total}, the gradient's norm {norm}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.moving is not None:
            for name, tensor in tensors_of(self.model).items():
                self.moving[name].lerp_(tensor, 1 - self.recipe.ema)
        self.objective.updated()
        return UpdateStats(total, norm, rate, tokens, parts)

    def _losses(self, batch: AnyBatch) -> Losses:
        with autocast(self.device, self.recipe.precision):
            answer = self.objective.forward(self.model, batch)
        return self.objective.loss(answer, batch)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[Weights]:
        """The weights that are validated and kept: the moving average, where there is one."""
        own = weights_of(self.model)
        if self.moving is None:
            yield own
            return
        load_weights(self.model, self.moving)
        try:
            yield self.moving
        finally:
            load_weights(self.model, own)

    def state(self) -> dict[str, Any]:
        """Return all that changes in training."""
        return {
            "model": weights_of(self.model),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state(),
            "moving": self.moving,
            "scaler": self.scaler.state_dict(),
            "objective": self.objective.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on exactly from a state."""
        load_weights(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.restore(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        if self.moving is not None:
            self.moving = {name: tensor.to(self.device) for name, tensor in state["moving"].items()}
        self.objective.restore(state["objective"])


def seed_batch(seed: int, step: int, index: int) -> None:
    """Seed torch, on all devices, for one batch of an update."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, index]).generate_state(1)[0]))


def fit(
    run: RunFolder,
    trainer: Trainer,
    loader: AnyBatchLoader,
    validate: Validate,
    report: Report = lambda record: None,
) -> Progress:
    """Train until the recipe's end, from where the run's folder stands. The best weights are in the folder.

    validate(n) scores the model on the first n batches of the dev set (None = all). report is called with a
    record after every update and every validation. Ctrl-C and SIGTERM end it after the update, saved.
    """
    recipe, progress = trainer.recipe, resume(run, trainer)
    if not progress.step:
        validate(2)  # a metric that fails, fails now
    run.rewind(progress.step)
    with Interruption() as interruption:
        clock = time.monotonic() - progress.seconds
        for turn in _update_plans(loader, progress, recipe):
            step = progress.step + 1
            batches = [loader.batch(numbers, turn.epoch) for numbers in turn.batches]
            with error_context(step, turn, batches, trainer):
                updated = trainer.update(batches, step)
            progress.step, (progress.epoch, progress.batch) = step, turn.then
            progress.tokens += updated.tokens
            progress.seconds = time.monotonic() - clock
            record = {**updated._asdict(), **updated.parts, **asdict(progress), "total": trainer.total}
            report(record)
            if step % recipe.log_every == 0:
                run.log({key: record[key] for key in (*LOGGED, *updated.parts)})
            ended = _ended(progress, recipe)
            if step % recipe.validate_every == 0 or ended:
                scores = _validated(run, trainer, progress, validate)
                report({"step": step, **scores})
                run.log({"step": step, **scores})
                ended = ended or _ended(progress, recipe)
                progress.seconds = time.monotonic() - clock
            saving = step % (recipe.save_every or recipe.validate_every) == 0
            if saving or step % recipe.validate_every == 0 or interruption.signal or ended:
                save(run, trainer, progress)
                _prune(run, recipe)  # not before: whenever training is killed, it finds what it saved
            if interruption.signal or ended:
                progress.interrupted = 0 if ended else interruption.signal
                break
    if recipe.average and not progress.interrupted:
        average_last(run, trainer, recipe.average, validate, report)
    return progress


LOGGED = ("step", "epoch", "loss", "norm", "learning_rate", "tokens", "seconds")


def resume(run: RunFolder, trainer: Trainer) -> Progress:
    """Restore the trainer from the run's folder, or start at step 0 if nothing was saved."""
    state = run.load_state()
    if state is None:
        first = weights_name(trainer.recipe.validate_every)
        if any(name > first for name in run.version.scores):  # else it was killed before it first saved
            raise RunError(f"{run.path / 'training_state.pt'} is missing: this run cannot go on exactly")
        return Progress()
    trainer.restore(state["trainer"])
    return Progress(**state["progress"])


def save(run: RunFolder, trainer: Trainer, progress: Progress) -> None:
    """Everything that resuming needs."""
    run.save_state({"trainer": trainer.state(), "progress": asdict(progress)})


def average_last(
    run: RunFolder, trainer: Trainer, count: int, validate: Validate, report: Report = lambda record: None
) -> None:
    """Average the weights of the last validations; if they score better than the best, they are the best."""
    names = run.last_weights(count)
    load_weights(trainer.model, average(run.load_weights(name) for name in names))
    scores = validate(None)
    value = _value(scores, trainer.recipe.metric)
    name = f"average-{len(names)}.safetensors"
    run.save_weights(name, weights_of(trainer.model))
    run.version.average, run.version.scores[name] = name, value
    if value > run.version.scores.get(run.version.best, []):
        run.version.best = name
    run.commit()
    report({"average": len(names), **scores})
    run.log({"average": len(names), **scores})


def total_steps(recipe: LearningRecipe, loader: AnyBatchLoader) -> int | None:
    """The number of updates, where the recipe fixes it."""
    by_epochs = None
    if recipe.max_epochs is not None:
        by_epochs = recipe.max_epochs * math.ceil(len(loader.epoch(0)) / recipe.accumulate)
    return min((steps for steps in (recipe.max_steps, by_epochs) if steps is not None), default=None)


def _update_plans(loader: AnyBatchLoader, progress: Progress, recipe: LearningRecipe) -> Iterator[UpdatePlan]:
    """The updates that are left: every epoch's plan, `accumulate` batches at a time."""
    epoch, batch = progress.epoch, progress.batch
    while not _ended(progress, recipe):
        plan = loader.epoch(epoch)
        if not plan:
            raise TrainingError("there is nothing to learn from: expected training examples, got none")
        while batch < len(plan):
            some = plan[batch : batch + recipe.accumulate]
            batch += len(some)
            yield UpdatePlan(some, epoch, (epoch, batch) if batch < len(plan) else (epoch + 1, 0))
        epoch, batch = epoch + 1, 0


def _ended(progress: Progress, recipe: LearningRecipe) -> bool:
    patience = recipe.early_stopping.patience if recipe.early_stopping else math.inf
    return (
        progress.step >= (recipe.max_steps or math.inf)
        or progress.epoch >= (recipe.max_epochs or math.inf)
        or progress.seconds >= 60 * (recipe.max_minutes or math.inf)
        or progress.waited >= patience
    )


def _value(scores: dict[str, float], metric: str) -> list[float]:
    """Larger is better: the metric, and where that is equal (a BLEU of 0) the loss."""
    if metric == "loss":
        return [-scores["loss"]]
    return [-scores[metric] if METRICS[metric].lower_is_better else scores[metric], -scores["loss"]]


def _validated(run: RunFolder, trainer: Trainer, progress: Progress, validate: Validate) -> dict[str, float]:
    """Validate, and keep the weights: the last ones, and the best ones so far."""
    recipe, version, name = trainer.recipe, run.version, weights_name(progress.step)
    with trainer.averaged() as weights:
        scores = validate(None)
        run.save_weights(name, weights)
    value = _value(scores, recipe.metric)
    improved = value > progress.best
    version.last, version.scores[name] = name, value
    if improved:
        version.best, progress.best, progress.waited = name, value, 0
    else:
        version.best, progress.waited = version.best or name, progress.waited + 1
    trainer.schedule.validated(improved)
    run.commit()
    return scores


def _prune(run: RunFolder, recipe: LearningRecipe) -> None:
    """Keep the best and the last weights only."""
    scores = run.version.scores
    ranked = sorted(scores, key=lambda name: scores[name], reverse=True)
    run.prune([*run.last_weights(recipe.keep_last), *ranked[: recipe.keep_best]])


@contextlib.contextmanager
def error_context(
    step: int, turn: UpdatePlan, batches: Sequence[AnyBatch], trainer: Trainer
) -> Iterator[None]:
    """Say which batch it was, and what to do, when the numbers or the memory end."""
    examples = ", ".join(str(some[:8].tolist()) for some in turn.batches)
    place = f"step {step}, epoch {turn.epoch + 1}, in the batch with the examples {examples}"
    try:
        yield
    except FloatingPointError as error:
        norm = math.sqrt(sum(float(p.detach().float().square().sum()) for p in trainer.model.parameters()))
        raise TrainingError(
            f"{error} at {place} (norm of the parameters {norm:.4g}). What was saved before is kept. "
            "Lower training.learning_rate, raise the schedule's warmup, or train with precision fp32"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        shapes = " and ".join(batch.shape for batch in batches)
        raise TrainingError(
            f"out of memory at {place} ({shapes}). What was saved before is kept. "
            f"Lower training.batch_tokens (now {trainer.recipe.batch_tokens}) and raise "
            "training.accumulate by as much, which learns the same; or lower data.filter.max_length"
        ) from error


class Interruption:
    """Ctrl-C and SIGTERM are noted, so that the update can end; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not in the main thread: whoever owns it handles signals
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
