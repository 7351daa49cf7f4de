"""Measure how fast each attention trains in the recurrent decoder of a recipe, in target pieces a second.

    python scripts/measure_attention_speed.py RECIPE [--rounds 5] [--threads 1]

All variants take turns on the same batches in one process, so that other work on the machine affects all of
them. Prints medians over the rounds. An update is forward, loss, backward and Adam.
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
from seq2attn.training.trainer import Trainer


def variants(recipe: Recipe) -> Iterator[tuple[str, ModelRecipe]]:
    """Yield every scorer with softmax, every normalizer with additive scores, and latent alignments."""
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
    """Return a scorer; if it has a hidden layer, with the size of the recipe's."""
    return {"name": score, "size": 256} if "size" in SCORERS[score].__init__.__annotations__ else score


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = read(options.recipe)
    task = TranslationTask.learn(recipe)
    loader = task.loader(task.examples("train"))
    batches = [loader.batch(indices, 0) for indices in loader.epoch(0)[: options.rounds]]
    trainers = {}
    for name, model in variants(recipe):
        torch.manual_seed(1)
        try:
            network = TranslationTask(recipe.model_copy(update={"model": model}), task.vocabularies).build()
        except ValueError as error:
            print(f"{name}: {error}")
            continue
        objective = token_objective(network, recipe.training)
        trainers[name] = Trainer(network, objective, recipe.training, torch.device("cpu"), None)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for batch, (name, trainer) in itertools.product(batches, trainers.items()):
        trainer.update([batch], 1)  # allocates memory
        begun = time.perf_counter()
        trainer.update([batch], 1)
        seconds[name].append((time.perf_counter() - begun) / batch.num_targets)
    speed = {name: 1 / statistics.median(times) for name, times in seconds.items()}
    print("| attention | target pieces a second | of additive's |\n|---|---|---|")
    for name, value in speed.items():
        print(f"| {name} | {value:,.0f} | {value / speed['additive + softmax']:.2f} |")


if __name__ == "__main__":
    main()
