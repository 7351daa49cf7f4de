"""Trying a recipe before the clock starts: data, vocabulary, model, one step of each kind, memory, time."""

import resource
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch

from seq2attn.batches import Feed, Numbers
from seq2attn.data import Examples, prepare
from seq2attn.display import clock
from seq2attn.models import build, pick_device
from seq2attn.recipe import Recipe
from seq2attn.runs import learn_vocabularies
from seq2attn.training import Learner, Turn, naming, total_steps
from seq2attn.translator import Translator

STEPS = 3  # training steps that are timed, after one that is not


def check(recipe: Recipe, pairs: int = 50_000, device: str = "auto") -> Iterator[str]:
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
    vocabularies = learn_vocabularies(recipe)
    source, target = vocabularies[0], vocabularies[-1]
    kind = "joint" if recipe.text.joint else "source and target"
    yield f"vocabulary  {kind}: {' and '.join(f'{one.size:,}' for one in vocabularies)} pieces"
    training = prepare(data.train, data, (source, target), "train")
    yield f"data.train  {_described(training)}"
    yield f"data.dev    {_described(prepare([data.dev], data, (source, target), 'dev'))}"
    if data.test is not None:
        yield f"data.test   {_described(prepare([data.test], data, (source, target), 'test'))}"
    torch.manual_seed(recipe.seed)
    model = build(recipe.model, source.size, target.size)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    yield f"model       {parameters:,} parameters ({parameters * 4 / 2**20:.0f} MiB in float32)"
    feed = Feed(training, source, target, recipe.training.batch_tokens, recipe.seed, recipe.text.sampling)
    yield from _steps(
        recipe, feed, Learner(model, recipe.training, place, total_steps(recipe.training, feed))
    )
    translator = Translator(
        model, source, target, recipe.decoding.model_copy(update={"max_length": 20}), place
    )
    begun = time.monotonic()
    rows = range(min(8, len(training)))
    translator.hypotheses([training.source(row) for row in rows], translator.decoding)
    yield f"decoding    {len(rows)} sentences of at most 20 pieces in {time.monotonic() - begun:.2f} s"
    yield f"memory      {_peak(place) / 2**20:,.0f} MiB at the most so far, the widest batch included"


def _described(examples: Examples) -> str:
    return f"{examples.target_lengths.mean():.1f} target pieces a sentence; {examples.report}"


def _steps(recipe: Recipe, feed: Feed, learner: Learner) -> Iterator[str]:
    """Train on the widest batch, then on some others, and say what an epoch would take."""
    plan = feed.epoch(0)
    lengths = feed.examples.source_lengths + feed.examples.target_lengths
    widest = max(plan, key=lambda numbers: len(numbers) * int(lengths[numbers].max()))

    def updated(numbers: Numbers, step: int) -> int:
        turn, batches = Turn([numbers], 0, (0, 0)), [feed.batch(numbers, 0)]
        with naming(step, turn, batches, learner):
            return learner.update(batches, step).tokens

    updated(widest, 1)
    generator = np.random.default_rng(recipe.seed)
    chosen = [plan[i] for i in generator.choice(len(plan), min(STEPS, len(plan)), replace=False)]
    begun, tokens = time.monotonic(), 0
    for step, numbers in enumerate(chosen, 2):
        tokens += updated(numbers, step)
    seconds = (time.monotonic() - begun) / len(chosen)
    rate = tokens / len(chosen) / seconds
    yield f"training    {rate:,.0f} target tokens/s on {learner.device}"
    yield f"time        {clock(seconds * len(plan))} an epoch of what was read ({len(plan):,} batches)"
    if learner.total is not None:
        updates = learner.total * recipe.training.accumulate
        steps = f"{learner.total:,} steps" + ("" if recipe.training.max_steps else " of what was read")
        yield f"            {clock(seconds * updates)} in all for {steps}, without validation"


def _peak(device: torch.device) -> float:
    """The most memory that was in use, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
