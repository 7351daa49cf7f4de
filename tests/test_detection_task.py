"""Object detection from recipe to result: training, scoring, checking, finding objects, and their pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_boxes
import tiny_cli
import tiny_runs
import torch
from PIL import Image

import seq2attn
from seq2attn.errors import Seq2attnError
from seq2attn.inference.detector import Detector, best_boxes
from seq2attn.metrics.detection import STATISTICS
from seq2attn.runs.dry_run import check
from seq2attn.runs.evaluation import score_run
from seq2attn.runs.training_run import Trained

BACKBONE = {
    "kind": "convolutional",
    "sizes": [16, 24, 32],
    "norm": "group",
    "blocks": [{"block": "se", "at": "after"}],
}
HEADS: dict[str, dict[str, Any]] = {
    "points": {"kind": "points", "grids": 1, "width": 24, "bins": 6, "norm": "group"},
    "queries": {"kind": "queries", "queries": 6, "size": 32, "feed_forward": 32},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boxes")
    tiny_boxes.write_scenes(folder, {"train": 8, "dev": 3, "test": 2}, height=32, width=40)
    return folder


def recipe(images: Path, head: str = "points", **training: Any) -> dict[str, Any]:
    tables = {role: {"table": str(images / f"{role}.jsonl")} for role in ("train", "dev", "test")}
    return {
        "name": "squares",
        "task": "detection",
        "data": tables,
        "model": {"backbone": BACKBONE, "head": HEADS[head]},
        "training": {
            "learning_rate": 0.01,
            "batch_images": 8,
            "max_steps": 4,
            "log_every": 1,
            "validate_every": 2,
            **training,
        },
    }


def train(sections: dict[str, Any], run: Path, **options: Any) -> Trained:
    return seq2attn.train(sections, run, display=tiny_runs.silent(), device="cpu", **options)


@pytest.fixture(scope="module")
def overfitted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows its eight images, which are its dev and test sets, too."""
    steps = {"schedule": {"name": "cosine", "warmup": 10}, "max_steps": 150, "validate_every": 150}
    sections = recipe(images, metrics=["ap", "ap50"], **steps)
    for role in ("dev", "test"):
        sections["data"][role] = sections["data"]["train"]
    return train(sections, tmp_path_factory.mktemp("runs") / "squares").run


def test_a_few_squares_are_learned_by_heart(overfitted: Path) -> None:
    scores = score_run(overfitted, device="cpu").evaluation.scores
    assert scores["ap50"].value > 90, scores
