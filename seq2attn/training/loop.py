"""The training loop `fit`, and saving and resuming without changing the result."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

from seq2attn.data.batch_plan import Indices
from seq2attn.data.batches import AnyBatch, AnyBatchLoader
from seq2attn.errors import Seq2attnError, first_line
from seq2attn.metrics.registry import ranking_value
from seq2attn.recipe import AnyLearningRecipe
from seq2attn.runtime.devices import out_of_memory
from seq2attn.runtime.distributed import Group
from seq2attn.training.deferred_signals import DeferredSignals
from seq2attn.training.empty_folder import afresh
from seq2attn.training.run_folder import RunError, RunFolder
from seq2attn.training.sharding import whole
from seq2attn.training.trainer import Trainer, UpdateStats
from seq2attn.training.weights import average, load_weights, weights_name, weights_of

LOGGED = ("step", "epoch", "loss", "norm", "learning_rate", "tokens", "seconds")  # keys of log.jsonl
Validate = Callable[[int | None], dict[str, float]]  # number of batches, or all -> loss, and metrics by name
Record = dict[str, Any]
Report = Callable[[Record], None]


# What to do if the loss, the gradient or probabilities are not finite.
NOT_FINITE = (
    "Lower training.learning_rate, raise the schedule's warmup, or train with precision fp32; if a scorer, a "
    "loss or another part is your own, look there first"
)


class TrainingError(Seq2attnError):
    """Training cannot continue."""


class UpdatePlan(NamedTuple):
    """The batches of one update, and the position in the data after it."""

    batches: list[Indices]
    epoch: int
    next_epoch: int
    next_batch: int


@dataclass
class Progress:
    """The position of a training. It holds numbers only, so that it can be saved as it is."""

    step: int = 0  # updates made
    epoch: int = 0
    batch: int = 0  # the next batch in the epoch's plan
    tokens: int = 0  # target tokens in all updates so far
    seconds: float = 0.0
    best: list[float] = field(default_factory=list)  # `_ranking_value` of the best validation so far
    waited: int = 0  # validations since the best
    interrupted: int = 0  # the signal that ended training early, 0 = none
    processes: int = 0  # that made the updates, or the last of them; 0 = unknown


def fit(
    run: RunFolder,
    trainer: Trainer,
    loader: AnyBatchLoader,
    validate: Validate,
    report: Report = lambda record: None,
    logged: Report = lambda record: None,
    resumed: Callable[[Progress], object] = lambda progress: None,
    illustrate: Callable[[int], object] = lambda step: None,
) -> Progress:
    """Train from the state in the run's folder until a limit of the recipe; keep the best weights there.

    validate(n) scores the model on the first n batches of the dev set (None = all). report is called with a
    record after every update and every validation; logged with the records of log.jsonl, when they and the
    state of their step are saved; resumed with the state that was read, before anything is written;
    illustrate with the step of each validation, while the model has its weights. Ctrl-C and SIGTERM
    end training after this update.
    """
    recipe, group, progress = trainer.recipe, trainer.group, resume(run, trainer)
    if not progress.step:
        _validated(validate, 2, "before the first update")  # what raises does so now, not after hours
    resumed(progress)
    _prepare_folder(run, trainer, progress)
    with DeferredSignals() as signals:
        clock = time.monotonic() - progress.seconds
        for plan in _update_plans(loader, progress, recipe):
            step, began = progress.step + 1, time.monotonic()
            batches, company = _own_batches(trainer, loader, plan)
            with error_context(step, plan, batches, trainer):
                stats = trainer.update(batches, step, company)
            trainer.pace.add(stats.tokens, time.monotonic() - began)
            progress.step, progress.epoch, progress.batch = step, plan.next_epoch, plan.next_batch
            progress.tokens += stats.tokens
            progress.seconds = time.monotonic() - clock
            record = {**stats._asdict(), **stats.parts, **asdict(progress), "total": trainer.total}
            report(record | trainer.pace.last)
            records = _log_update(run, trainer, stats, record)
            progress.seconds, received = _agreed(group, progress.seconds, signals.received)
            ended = _has_ended(progress, recipe)
            if step % recipe.interval == 0 or ended:
                scores = _validate_and_keep(run, trainer, progress, validate, illustrate)
                records.append({"step": step, **scores})
                report(records[-1])
                run.log(records[-1])
                ended = ended or _has_ended(progress, recipe)
                progress.seconds, received = _agreed(group, time.monotonic() - clock, signals.received)
            due = [every for every in (recipe.interval, recipe.save_every) if every and step % every == 0]
            if due or received or ended:
                save(run, trainer, progress)
                _prune_weights(run, recipe)  # only now: the saved state must never refer to deleted weights
            for written in records:
                logged(written)
            if received or ended:
                progress.interrupted = 0 if ended else received
                break
    if recipe.average and not progress.interrupted and not run.version.average:
        logged(average_last(run, trainer, recipe.average, validate, report))
    return progress


def _log_update(run: RunFolder, trainer: Trainer, stats: UpdateStats, record: Record) -> list[Record]:
    """Write what log.jsonl has of an update; return its record, if it is one that is logged."""
    if stats.unused:
        run.log({"step": record["step"], "unused": stats.unused})
    if record["step"] % trainer.recipe.log_every:
        return []
    pace = trainer.pace.line(trainer.group, trainer.sharded)
    run.log(line := {key: record[key] for key in (*LOGGED, *stats.parts)} | pace)
    return [line]


def _own_batches(
    trainer: Trainer, loader: AnyBatchLoader, plan: UpdatePlan
) -> tuple[list[AnyBatch], AnyBatch | None]:
    """Return this process's batches of an update, and the company of `Trainer.update`."""
    group, own = trainer.group, list[AnyBatch]()
    for _, indices in group.share(plan.batches):
        with trainer.pace.own():
            own.append(loader.batch(indices, plan.epoch))
    is_short = len(own) * group.size < len(plan.batches)
    return own, loader.batch(plan.batches[0], plan.epoch) if trainer.sharded and is_short else None


def _agreed(group: Group, seconds: float, signal: int) -> tuple[float, int]:
    """Return the seconds of the first process, and the signal that any process has received, 0 = none."""
    values = group.all([seconds, signal])
    return values[0][0], max(received for _, received in values)


def _prepare_folder(run: RunFolder, trainer: Trainer, progress: Progress) -> None:
    """Remove what was written after the saved state, and save the first one; note who goes on."""
    progress.processes, ended = trainer.group.size, _has_ended(progress, trainer.recipe)
    run.rewind(progress.step, ended)
    if ended:
        _prune_weights(run, trainer.recipe)  # training may have been killed in the midst of it
    if not progress.step:
        save(run, trainer, progress)  # before there are any weights: a run with weights can be resumed


def resume(run: RunFolder, trainer: Trainer) -> Progress:
    """Restore the trainer from the run's folder, or start at step 0 if nothing was trained yet."""
    state, file = trainer.group.from_first(partial(_saved_state, run)), run.path / "training_state.pt"
    if state is None:
        return Progress()
    try:
        trainer.restore(state["trainer"])
        progress = Progress(**state["progress"])
        validated = progress.step - progress.step % trainer.recipe.interval
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RunError(
            f"{file} does not fit the recipe's model and optimizer: {first_line(error)}"
        ) from error
    if validated and run.version.last < weights_name(validated):
        raise RunError(
            f"{run.path / 'version.json'} is older than {file}, of step {progress.step}: copy both again"
        )
    return progress


def _saved_state(run: RunFolder) -> Any:
    """Return the state in the run's folder, None if nothing was trained yet."""
    state = run.load_state()
    if state is None and (run.weights or any(run.path.glob("weights/[!.]*"))):
        raise RunError(
            f"{run.path / 'training_state.pt'} is missing, but {run.path} has trained weights, which a "
            f"training from step 1 would replace. Copy it, too, or {afresh(run.path)}"
        )
    return state


def save(run: RunFolder, trainer: Trainer, progress: Progress) -> None:
    """Save everything that resuming needs."""
    run.save_state({"trainer": trainer.state(), "progress": asdict(progress)})


def average_last(
    run: RunFolder, trainer: Trainer, count: int, validate: Validate, report: Report = lambda record: None
) -> Record:
    """Average and validate the weights of the last validations; they become the best if they score best.

    Returns the record of log.jsonl.
    """
    names = run.last_weights(count)
    weights = trainer.group.from_first(lambda: average(run.load_weights(name) for name in names))
    load_weights(trainer.model, weights)
    scores = validate(None)
    value = ranking_value(scores, trainer.recipe.metric)
    name = f"average-{len(names)}.safetensors"
    run.save_weights(name, weights_of(trainer.model))
    run.version.average, run.version.scores[name] = name, value
    if value > run.version.scores.get(run.version.best, []):
        run.version.best = name
    run.commit()
    record = {"average": len(names), **scores}
    report(record)
    run.log(record)
    return record


def epoch_steps(recipe: AnyLearningRecipe, loader: AnyBatchLoader, epoch: int = 0) -> int:
    """Return the number of updates of an epoch."""
    return math.ceil(loader.epoch_size(epoch) / recipe.accumulate)


def total_steps(recipe: AnyLearningRecipe, loader: AnyBatchLoader) -> int | None:
    """Return the number of updates; None if the recipe limits neither steps nor epochs."""
    if recipe.max_epochs is None:
        return recipe.max_steps
    total, limit = 0, recipe.max_steps or math.inf
    for epoch in range(recipe.max_epochs):  # not all epochs have the same number of batches
        total += epoch_steps(recipe, loader, epoch)
        if total >= limit:
            return recipe.max_steps
    return total


def _update_plans(
    loader: AnyBatchLoader, progress: Progress, recipe: AnyLearningRecipe
) -> Iterator[UpdatePlan]:
    """Yield the remaining updates: the batches of each epoch, `accumulate` at a time."""
    epoch, batch = progress.epoch, progress.batch
    while not _has_ended(progress, recipe):
        epoch_batches = loader.epoch(epoch)
        if not epoch_batches[:1]:
            raise TrainingError("there is nothing to learn from: expected training examples, got none")
        # The length of a plan in windows takes time: slices tell whether it goes on.
        while batches := epoch_batches[batch : batch + recipe.accumulate]:
            batch += len(batches)
            goes_on = bool(epoch_batches[batch : batch + 1])
            yield UpdatePlan([*batches], epoch, *((epoch, batch) if goes_on else (epoch + 1, 0)))
        epoch, batch = epoch + 1, 0


def _has_ended(progress: Progress, recipe: AnyLearningRecipe) -> bool:
    """Return whether a limit of the recipe is reached: steps, epochs, minutes, or patience."""
    patience = recipe.early_stopping.patience if recipe.early_stopping else math.inf
    return (
        progress.step >= (recipe.max_steps or math.inf)
        or progress.epoch >= (recipe.max_epochs or math.inf)
        or progress.seconds >= 60 * (recipe.max_minutes or math.inf)
        or progress.waited >= patience
    )


def _validate_and_keep(
    run: RunFolder,
    trainer: Trainer,
    progress: Progress,
    validate: Validate,
    illustrate: Callable[[int], object],
) -> dict[str, float]:
    """Validate and save the weights as the run's last and, if they score best so far, as its best."""
    recipe, version, name = trainer.recipe, run.version, weights_name(progress.step)
    with trainer.averaged() as weights:
        scores = _validated(validate, None, f"after step {progress.step:,}")
        illustrate(progress.step)
        run.save_weights(name, weights)
    value = ranking_value(scores, recipe.metric)
    improved = value > progress.best
    version.last, version.scores[name] = name, value
    if value >= progress.best:  # of equal ones the later: what is trained may have no effect on the scores
        version.best, progress.best = name, value
    version.best, progress.waited = version.best or name, 0 if improved else progress.waited + 1
    trainer.schedule.validated(improved)
    run.commit()
    return scores


def _validated(validate: Validate, limit: int | None, when: str) -> dict[str, float]:
    """Return the scores of a validation. Its TrainingErrors say when it was."""
    try:
        return validate(limit)
    except TrainingError as error:
        raise TrainingError(f"{when}: {error}") from error


def _prune_weights(run: RunFolder, recipe: AnyLearningRecipe) -> None:
    """Delete all weights but the best `keep_best` and the last `keep_last`."""
    scores = run.version.scores
    ranked = sorted(scores, key=lambda name: scores[name])[::-1]  # the later of equal ones first
    run.prune([*run.last_weights(recipe.keep_last), *ranked[: recipe.keep_best]])


@contextlib.contextmanager
def error_context(
    step: int, plan: UpdatePlan, batches: Sequence[AnyBatch], trainer: Trainer
) -> Iterator[None]:
    """Re-raise non-finite losses and out-of-memory errors with the batch and a remedy."""
    examples = ", ".join(str(indices[:8].tolist()) for indices in plan.batches)
    where = f"step {step}, epoch {plan.epoch + 1}, in the batch with the examples {examples}"
    try:
        yield
    except FloatingPointError as error:
        squares = (whole(p.detach()).float().square().sum() for p in trainer.model.parameters())
        norm = math.sqrt(sum(map(float, squares)))
        raise TrainingError(
            f"{error} at {where} (norm of the parameters {norm:.4g}). {NOT_FINITE}"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        shapes = " and ".join(batch.shape for batch in batches)
        raise TrainingError(
            f"out of memory at {where} ({shapes}). Lower {trainer.recipe.batch_setting} and raise "
            "training.accumulate by the same factor, for the same updates; or lower "
            f"{trainer.recipe.example_setting}"
        ) from error
