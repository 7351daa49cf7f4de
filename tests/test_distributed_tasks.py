"""Every task, and every loss that is added to one, is learned by two processes as by one."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_boxes
import tiny_images
import torch
import torch._dynamo  # what optimizers import: once here, and not in each process
from processes import in_processes
from tiny_reversal import RECIPE, records
from tiny_runs import silent

from seq2attn.runs.training_run import train
from seq2attn.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("own_cache")

RANDOM = np.random.default_rng(3)
STEPS = 3
UPDATES: dict[str, Any] = {
    "optimizer": "sgd",  # Adam would turn rounding into steps where a gradient is nearly 0
    "learning_rate": 0.1,
    "accumulate": 3,  # 2 batches of one process and 1 of the other
    "max_steps": STEPS,
    "validate_every": STEPS,
    "log_every": 1,
}
WORDS = {
    "embedding": {"size": 6, "characters": {"kind": "cnn", "size": 5}, "word_dropout": 0.2},
    "encoder": {"kind": "recurrent", "size": 6, "dropout": 0.2},
}
NETWORK = {"kind": "convolutional", "sizes": [6, 8, 12, 12]}  # with batch norm
CHANGES = ["flip", {"name": "crop", "padding": 2}]


def images(**training: Any) -> dict[str, Any]:
    return {
        "data": {"augment": CHANGES},
        "model": {"backbone": NETWORK},
        "training": {"batch_images": 4, **training},
    }


OTHERS: dict[str, dict[str, Any]] = {  # by task, without corpora
    "tagging": {"model": {**WORDS, "head": {"kind": "crf"}}, "training": {"batch_tokens": 20}},
    "classification": {
        "model": {**WORDS, "pooling": {"kind": "attention", "queries": 2, "penalty": 0.5}},
        "training": {"batch_tokens": 20},
    },
    "image_classification": images(),
    "detection": images(),
    "segmentation": {
        "data": {"classes": ["ground", "thing"], "augment": CHANGES},
        "training": {"batch_images": 4},
    },
}


def rows_of(task: str) -> Sequence[Any]:
    """Examples of a task, as they are given in Python."""
    if task in ("tagging", "classification"):
        lengths = RANDOM.integers(1, 7, 24).tolist()
        words = [[f"w{number}" for number in RANDOM.integers(0, 9, length)] for length in lengths]
        if task == "tagging":
            return [(row, ["B-X" if word in ("w1", "w2") else "O" for word in row]) for row in words]
        return [(" ".join(row), "long" if len(row) > 3 else "short") for row in words]
    if task == "detection":
        return [tiny_boxes.scene(RANDOM) for _ in range(16)]
    pixels = [RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(16)]
    if task == "segmentation":
        return [(image, (image[..., 0] > 128).astype(np.uint8)) for image in pixels]
    return [(image, "ab"[number % 2]) for number, image in enumerate(pixels)]


def of_pairs(decoder: Any, aligned: bool = False, **losses: float) -> dict[str, Any]:
    """Reversed letters, perhaps with losses of the attention's weights."""
    recipe: dict[str, Any] = copy.deepcopy(RECIPE)
    recipe["data"]["train"]["alignments"] = aligned
    recipe["model"]["decoder"] |= decoder
    recipe["training"] |= {"average": 0, "attention_losses": losses or None, **UPDATES}
    return recipe


def of_samples() -> dict[str, Any]:
    """Pieces that are sampled anew in each epoch."""
    recipe = of_pairs({})
    corpus = {"sample": "tatoeba_de_en", "limit": 200}
    recipe["data"] = {"languages": ["de", "en"], "train": corpus, "dev": {**corpus, "limit": 5}}
    recipe["text"] = {"size": 400, "sampling": {"alpha": 0.1}}
    recipe["training"] |= {"metrics": ["bleu"], "batch_tokens": 200}
    return recipe


ADDED = {"guided": 0.3, "coverage": 0.5, "entropy": 0.01, "doubly_stochastic": 0.2}
TEXTS: dict[str, dict[str, Any]] = {
    "losses of attention": of_pairs({}, True, **ADDED),
    "reinforce": of_pairs({"attention": {"score": "additive", "normalize": "hard"}}, reinforce=0.5),
    "copying": of_pairs({"attention": {"score": "coverage"}, "copying": True}, coverage=1.0),
    "sampled pieces": of_samples(),
}


def same(one: Path, two: Path) -> None:
    """The first loss is equal to the bit; what follows is to rounding, as gradients are added in another order."""
    mine, others = records(one), records(two)
    assert len(mine) == len(others) == STEPS + 1 and mine[0]["loss"] == others[0]["loss"]
    for record, other in zip(mine, others, strict=True):
        assert {key: other[key] for key in record} == pytest.approx(record, rel=1e-5, abs=1e-6)
    first, second = (RunFolder.open(run).load_weights("last") for run in (one, two))
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-5, atol=1e-6)


def in_two(folder: Path, recipe: Any, **options: Any) -> None:
    """Train alone, and in two processes."""
    options |= {"device": "cpu", "display": silent()}
    train(recipe, folder / "one", **options)
    in_processes(2, lambda: train(recipe, folder / "two", **options).progress.step)
    same(folder / "one", folder / "two")


@pytest.mark.parametrize("kind", TEXTS)
def test_pairs_are_learned_alike_with_any_loss(kind: str, tmp_path: Path) -> None:
    in_two(tmp_path, TEXTS[kind])


@pytest.mark.parametrize("task", OTHERS)
def test_other_tasks_are_learned_alike(task: str, tmp_path: Path) -> None:
    recipe, rows = copy.deepcopy(OTHERS[task]), rows_of(task)
    recipe["training"] |= UPDATES
    in_two(tmp_path, {"task": task, **recipe}, data={"train": rows, "dev": rows[:6]})


def test_texts_of_images_are_learned_alike(tmp_path: Path) -> None:
    tiny_images.write_tables(tmp_path, {"train": 40, "dev": 6, "test": 6})
    recipe = tiny_images.recipe(tmp_path)
    recipe["training"] |= {**UPDATES, "max_epochs": None}
    in_two(tmp_path, recipe)
