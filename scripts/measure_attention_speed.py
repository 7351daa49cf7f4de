"""How fast each attention trains in the recurrent decoder of a recipe: target pieces a second.

python scripts/measure_attention_speed.py RECIPE [--rounds 5] [--threads 1]

All variants take turns on the same batches in one process, so that whatever else the machine does hits all of
them; the median over rounds is reported. One update is forward, loss, backward and Adam.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch

from seq2attn.attention import incompatibilities
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import SCORERS
from seq2attn.recipe import ModelRecipe, Recipe, read
from seq2attn.tasks.sequence_tasks import TranslationTask, token_objective
from seq2attn.training.loop import Trainer


def variants(recipe: Recipe) -> Iterator[tuple[str, ModelRecipe]]:
    """Every scorer with the softmax, every normalizer with additive scores, and the latent alignments."""
    tree = recipe.model.model_dump()
    pairs = [("additive", name) for name in NORMALIZERS] + [(name, "softmax") for name in SCORERS]
    pairs += [("linear", "sum")]
    changes: list[tuple[str, dict[str, Any]]] = [
        (f"{score} + {normalize}", {"attention": {"score": sized(score), "normalize": normalize}})
        for score, normalize in dict.fromkeys(pairs)
        if not any(
            True for _ in incompatibilities(SCORERS[score], NORMALIZERS[normalize], "target to source")
        )
    ]
    changes += [("marginal", {"latent": "marginal"}), ("marginal, best 4", {"latent": "marginal", "top": 4})]
    for name, change in changes:
        yield name, ModelRecipe.model_validate({**tree, "decoder": {**tree["decoder"], **change}})


def sized(score: str) -> Any:
    """A scorer with the hidden layer of the recipe, where it has one."""
    return {"name": score, "size": 256} if "size" in SCORERS[score].__init__.__annotations__ else score


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    recipe = read(asked.recipe)
    task = TranslationTask.learn(recipe)
    loader = task.loader(task.examples("train"))
    batches = [loader.batch(numbers, 0) for numbers in loader.epoch(0)[: asked.rounds]]
    learners = {}
    for name, model in variants(recipe):
        torch.manual_seed(1)
        try:
            built = TranslationTask(recipe.model_copy(update={"model": model}), task.vocabularies).build()
        except ValueError as error:
            print(f"{name}: {error}")
            continue
        objective = token_objective(built, recipe.training)
        learners[name] = Trainer(built, objective, recipe.training, torch.device("cpu"), None)
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    for batch, (name, trainer) in itertools.product(batches, learners.items()):
        trainer.update([batch], 1)  # the memory that it needs is there the next time
        tokens = batch.units
        begun = time.perf_counter()
        trainer.update([batch], 1)
        seconds[name].append((time.perf_counter() - begun) / tokens)
    speed = {name: 1 / statistics.median(some) for name, some in seconds.items()}
    print("| attention | target pieces a second | of additive's |\n|---|---|---|")
    for name, value in speed.items():
        print(f"| {name} | {value:,.0f} | {value / speed['additive + softmax']:.2f} |")


if __name__ == "__main__":
    main()
