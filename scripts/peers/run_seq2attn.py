"""Run seq2attn: the updates of `seq2attn train`, and `Translator.translate`."""

import itertools

import torch
from measuring import Clocks, Job, run

import seq2attn
from seq2attn.inference.engines.registry import make_engine
from seq2attn.recipe import Recipe, read
from seq2attn.runtime.process import keep_memory
from seq2attn.tasks.sequence_tasks import SequenceTask, TranslationTask
from seq2attn.training.trainer import Trainer

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}


def make_task(job: Job) -> SequenceTask:
    """Return the task, with the shared vocabulary; keep freed memory, as the command line does."""
    keep_memory()
    torch.set_num_threads(job.threads)
    torch.manual_seed(1)
    recipe = read(
        job.path / f"seq2attn_{job.model}.yaml",
        [f"training.precision={PRECISIONS.get(job.precision, 'fp32')}"],
    )
    if not isinstance(recipe, Recipe):
        raise TypeError(f"expected a translation recipe, got {type(recipe).__name__}")
    return TranslationTask.learn(recipe)


def train(job: Job) -> None:
    """Train on the batches of the first epochs, as `fit` does."""
    task = make_task(job)
    loader = task.loader(task.examples("train"), training=True)
    model, settings = task.build(), task.recipe.training
    trainer = Trainer(model, task.objective(model, True), settings, torch.device("cpu"), None)
    clocks, steps = Clocks(job, seq2attn, torch), itertools.count(1)
    for epoch in itertools.count():
        for indices in loader.epoch(epoch):
            clocks.updated(trainer.update([loader.batch(indices, epoch)], next(steps)).tokens)


def decode(job: Job) -> None:
    """Translate with random weights. Each translation has one piece fewer than steps, and then </s>."""
    task = make_task(job)
    translator = task.predictor(task.build(), torch.device("cpu"), PRECISIONS.get(job.precision, "fp32"))
    quantize = "int8" if job.precision == "int8" else None
    translator = translator.with_engine(make_engine(job.engine, task.recipe, translator, quantize))
    length = job.steps - 1
    translator = translator.configured(
        {"beam": job.beam, "min_length": length, "max_length": length, "batch_tokens": 1_000_000}
    )

    def translate(texts: list[str]) -> list[str]:
        return [
            result.text
            for batch in job.batches(texts)
            for result in translator.stream_chunks([batch], exact=False)
        ]

    Clocks(job, seq2attn, torch).decoded(translate)


if __name__ == "__main__":
    run(train, decode)
