"""Trying a recipe before the clock starts: data, vocabulary, model, one step of each kind, memory, time."""

import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from seq2attn.data import Examples
from seq2attn.data.batch_plan import Indices
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.recipe import AnyRecipe
from seq2attn.runtime.devices import pick_device
from seq2attn.tasks.loading import learn
from seq2attn.tasks.registry import TASKS
from seq2attn.tasks.task import Task
from seq2attn.training.display import clock
from seq2attn.training.loop import Trainer, UpdatePlan, error_context, total_steps

STEPS = 3  # training steps that are timed, after one that is not


def check(recipe: AnyRecipe, pairs: int = 50_000, device: str = "auto") -> Iterator[str]:
    """Do once what training does many times, and say what it found, a line each.

    pairs: read at most so many of each training corpus; counts and times are of what was read.
    """
    data = recipe.data.model_copy(
        update={
            "train": [
                corpus.model_copy(update={"limit": min(pairs, corpus.limit or pairs)})
                for corpus in recipe.data.train
            ]
        }
    )
    recipe = recipe.model_copy(update={"data": data})
    place = pick_device(device)
    yield f"recipe      {recipe.name}: no fault"
    yield from (f"note        {warning}" for warning in TASKS[recipe.task].warnings(recipe))
    task = learn(recipe)
    yield f"vocabulary  {task.vocabulary}"
    training, dev = task.examples("train"), task.examples("dev")
    roles = {"train": training, "dev": dev, **({} if data.test is None else {"test": task.examples("test")})}
    for role, examples in roles.items():
        length = f"{task.lengths(examples).mean():.1f} {task.units.lengths}"
        yield f"{f'data.{role}':12}{length}; {examples.report}"
    yield from (f"{heading:12}{line}" for heading, line in task.summary(training, dev))
    torch.manual_seed(recipe.seed)
    model = task.build()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    yield f"model       {parameters:,} parameters ({parameters * 4 / 2**20:.0f} MiB in float32)"
    loader, objective = task.loader(training, training=True), task.objective(model, training=True)
    total = total_steps(recipe.training, loader)
    yield from _steps(task, training, loader, Trainer(model, objective, recipe.training, place, total))
    predictor = task.predictor(model, place, validating=True)
    begun, rows = time.monotonic(), range(min(8, len(training)))
    texts = [str(found) for found in predictor.stream([training.source_text(row) for row in rows])]
    yield f"decoding    {len(texts)} examples in {time.monotonic() - begun:.2f} s, untrained"
    yield f"memory      {_peak(place) / 2**20:,.0f} MiB at the most so far, the widest batch included"


def _steps(task: Task[Any], examples: Examples, loader: AnyBatchLoader, trainer: Trainer) -> Iterator[str]:
    """Train on the widest batch, then on some others, and say what an epoch would take."""
    plan = loader.epoch(0)
    lengths = examples.source_lengths + examples.target_lengths
    widest = max(plan, key=lambda numbers: len(numbers) * int(lengths[numbers].max()))

    def updated(numbers: Indices, step: int) -> int:
        plan, batches = UpdatePlan([numbers], 0, 0, 0), [loader.batch(numbers, 0)]
        with error_context(step, plan, batches, trainer):
            return trainer.update(batches, step).tokens

    updated(widest, 1)
    generator = np.random.default_rng(task.recipe.seed)
    chosen = [plan[i] for i in generator.choice(len(plan), min(STEPS, len(plan)), replace=False)]
    begun, tokens = time.monotonic(), 0
    for step, numbers in enumerate(chosen, 2):
        tokens += updated(numbers, step)
    seconds = (time.monotonic() - begun) / len(chosen)
    rate = tokens / len(chosen) / seconds
    yield f"training    {rate:,.0f} {task.units.targets}/s on {trainer.device}"
    yield f"time        {clock(seconds * len(plan))} an epoch of what was read ({len(plan):,} batches)"
    if trainer.total is not None:
        updates = trainer.total * task.recipe.training.accumulate
        steps = f"{trainer.total:,} steps" + ("" if task.recipe.training.max_steps else " of what was read")
        yield f"            {clock(seconds * updates)} in all for {steps}, without validation"


def _peak(device: torch.device) -> float:
    """The most memory that was in use, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
