"""seq2attn as a contender: the updates of `seq2attn train`, and `Translator.translate`."""

import itertools

import torch
from measuring import Clocks, Job, run

import seq2attn
from seq2attn.recipe import Recipe, read
from seq2attn.runtime.process import keep_memory
from seq2attn.tasks.sequence_tasks import SequenceTask, TranslationTask
from seq2attn.training.loop import Trainer

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}


def task(job: Job) -> SequenceTask:
    """With the vocabulary that all contenders have, and freed memory as the command line keeps it."""
    keep_memory()
    torch.set_num_threads(job.threads)
    torch.manual_seed(1)
    recipe = read(
        job.path / f"seq2attn_{job.model}.yaml", [f"training.precision={PRECISIONS[job.precision]}"]
    )
    if not isinstance(recipe, Recipe):
        raise TypeError(f"expected a translation recipe, got {type(recipe).__name__}")
    return TranslationTask.learn(recipe)


def train(job: Job) -> None:
    """Batches of the first epochs, as `fit` makes them."""
    learnt = task(job)
    loader = learnt.loader(learnt.examples("train"), training=True)
    model, settings = learnt.build(), learnt.recipe.training
    trainer = Trainer(model, learnt.objective(model, True), settings, torch.device("cpu"), None)
    clocks, steps = Clocks(job, seq2attn, torch), itertools.count(1)
    for epoch in itertools.count():
        for numbers in loader.epoch(epoch):
            clocks.updated(trainer.update([loader.batch(numbers, epoch)], next(steps)).tokens)


def decode(job: Job) -> None:
    """Random weights; pieces before the end are forced to be one fewer than steps."""
    learnt = task(job)
    translator = learnt.predictor(learnt.build(), torch.device("cpu"), PRECISIONS[job.precision])
    length = job.steps - 1

    def translate(texts: list[str]) -> list[str]:
        return [
            found.text
            for some in job.cut(texts)
            for found in translator.translate(
                some,
                beam=job.beam,
                min_length=length,
                max_length=length,
                batch_tokens=1_000_000,
                alignment=False,
            )
        ]

    Clocks(job, seq2attn, torch).decoded(translate)


if __name__ == "__main__":
    run(train, decode)
