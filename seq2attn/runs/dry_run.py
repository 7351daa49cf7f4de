"""Trying a recipe before the clock starts: data, vocabulary, model, one step of each kind, memory, time."""

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.data import Examples
from seq2attn.data.batches import AnyBatchLoader, Indices
from seq2attn.data.pretrained_vectors import coverage
from seq2attn.recipe import AnyRecipe, AttentionRecipe, Recipe
from seq2attn.recipe.sections import Section
from seq2attn.runtime.devices import pick_device
from seq2attn.tasks.labelling_tasks import LabellingTask
from seq2attn.tasks.loading import learn
from seq2attn.text.tag_schemes import read
from seq2attn.text.word_vocabulary import split_words
from seq2attn.training.display import clock
from seq2attn.training.loop import Trainer, UpdatePlan, error_context, total_steps

STEPS = 3  # training steps that are timed, after one that is not
MOST, RAREST = 12, 3  # labels whose counts are said


class Units(NamedTuple):
    """What is counted in the examples of a task, and what its loss is the mean of."""

    length: str
    learnt: str


UNITS = {
    "translation": Units("target pieces a sentence", "target tokens"),
    "summarization": Units("target pieces a summary", "target tokens"),
    "tagging": Units("words a sentence", "words"),
    "classification": Units("words a sentence", "sentences"),
}


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
    yield from (f"note        {note}" for note in _notes(recipe))
    task = learn(recipe)
    yield f"vocabulary  {task.vocabulary}"
    training, dev = task.examples("train"), task.examples("dev")
    if isinstance(task, LabellingTask) and (vectors := task.recipe.text.vectors) is not None:
        read_of = map(training.source_text, range(len(training)))
        yield f"vectors     {coverage(Path(vectors), task.word_vocabulary, read_of)}"
    yield f"data.train  {_described(recipe, training)}"
    yield f"data.dev    {_described(recipe, dev)}"
    if data.test is not None:
        yield f"data.test   {_described(recipe, task.examples('test'))}"
    if isinstance(task, LabellingTask):
        yield f"labels      {_labels(task, training, dev)}"
    torch.manual_seed(recipe.seed)
    model = task.build()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    yield f"model       {parameters:,} parameters ({parameters * 4 / 2**20:.0f} MiB in float32)"
    loader, objective = task.loader(training, training=True), task.objective(model, training=True)
    total = total_steps(recipe.training, loader)
    yield from _steps(recipe, training, loader, Trainer(model, objective, recipe.training, place, total))
    predictor = task.predictor(model, place, validating=True)
    begun, rows = time.monotonic(), range(min(8, len(training)))
    texts = [str(found) for found in predictor.stream([training.source_text(row) for row in rows])]
    yield f"decoding    {len(texts)} examples in {time.monotonic() - begun:.2f} s, untrained"
    yield f"memory      {_peak(place) / 2**20:,.0f} MiB at the most so far, the widest batch included"


def _notes(recipe: AnyRecipe) -> Iterator[str]:
    """What is no fault, but may not be meant."""
    losses = recipe.training.attention_losses if isinstance(recipe, Recipe) else None
    for path, section in _attentions(recipe.model, "model"):
        reinforced = losses is not None and losses.reinforce > 0 and "self_attention" not in path
        if NORMALIZERS[name := section.normalize.name].samples() and not reinforced:
            yield (
                f"{path}.normalize: nothing reinforces what {name} draws, so that where to look is learnt "
                "only from what it does not draw (soft_rate); for attention to the source, set "
                "training.attention_losses.reinforce"
            )
    if isinstance(recipe, Recipe) and recipe.decoding.sample and recipe.decoding.coverage_penalty:
        yield "decoding.coverage_penalty: changes no draw of sample, but ranks those of a sentence (nbest)"


def _attentions(part: Any, path: str) -> Iterator[tuple[str, AttentionRecipe]]:
    """Every attention of a section, with its path."""
    if isinstance(part, AttentionRecipe):
        yield path, part
    elif isinstance(part, Section):
        for name in type(part).model_fields:
            yield from _attentions(getattr(part, name), f"{path}.{name}")
    elif isinstance(part, list):
        for number, inner in enumerate(part):
            yield from _attentions(inner, f"{path}.{number}")


def _described(recipe: AnyRecipe, examples: Examples) -> str:
    lengths = examples.target_lengths if isinstance(recipe, Recipe) else examples.source_lengths
    return f"{lengths.mean():.1f} {UNITS[recipe.task].length}; {examples.report}"


def _labels(task: LabellingTask, training: Examples, dev: Examples) -> str:
    """How often each label occurs in the training data (of tags, spans of each type); which only dev has."""
    scheme = task.labels.scheme

    def counted(examples: Examples) -> Counter[str]:
        texts = map(examples.target_text, range(len(examples)))
        if scheme is None:
            return Counter(texts)
        return Counter(span.type for text in texts for span in read(split_words(text)))

    def shown(counts: Iterable[tuple[str, int]]) -> str:
        return ", ".join(f"{label} {count:,}" for label, count in counts)

    seen, held = counted(training), counted(dev)
    ranked = seen.most_common()
    text = shown(ranked[:MOST])
    if len(ranked) > MOST:
        text += (
            f", and {len(ranked) - MOST} more, the rarest {shown(ranked[max(MOST, len(ranked) - RAREST) :])}"
        )
    if training.report.schemes:
        text += f"; tags written in {' and '.join(training.report.schemes)}"
    if alone := held.keys() - seen.keys():
        absent = shown((label, held[label]) for label in sorted(alone))
        text += f"; only in data.dev, and so never learnt: {absent}"
    return text


def _steps(recipe: AnyRecipe, examples: Examples, loader: AnyBatchLoader, trainer: Trainer) -> Iterator[str]:
    """Train on the widest batch, then on some others, and say what an epoch would take."""
    plan = loader.epoch(0)
    lengths = examples.source_lengths + examples.target_lengths
    widest = max(plan, key=lambda numbers: len(numbers) * int(lengths[numbers].max()))

    def updated(numbers: Indices, step: int) -> int:
        turn, batches = UpdatePlan([numbers], 0, (0, 0)), [loader.batch(numbers, 0)]
        with error_context(step, turn, batches, trainer):
            return trainer.update(batches, step).tokens

    updated(widest, 1)
    generator = np.random.default_rng(recipe.seed)
    chosen = [plan[i] for i in generator.choice(len(plan), min(STEPS, len(plan)), replace=False)]
    begun, tokens = time.monotonic(), 0
    for step, numbers in enumerate(chosen, 2):
        tokens += updated(numbers, step)
    seconds = (time.monotonic() - begun) / len(chosen)
    rate = tokens / len(chosen) / seconds
    yield f"training    {rate:,.0f} {UNITS[recipe.task].learnt}/s on {trainer.device}"
    yield f"time        {clock(seconds * len(plan))} an epoch of what was read ({len(plan):,} batches)"
    if trainer.total is not None:
        updates = trainer.total * recipe.training.accumulate
        steps = f"{trainer.total:,} steps" + ("" if recipe.training.max_steps else " of what was read")
        yield f"            {clock(seconds * updates)} in all for {steps}, without validation"


def _peak(device: torch.device) -> float:
    """The most memory that was in use, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
