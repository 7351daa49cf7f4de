"""Images with texts, made small: strips of coloured squares, whose text names the colours from left to right."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 60), "red": (210, 30, 50)}
SIDE = 8


def strip(words: list[str], random: np.random.Generator) -> Any:
    """Return a strip (8, 8 n, 3) of noisy squares."""
    squares = [np.tile(np.array(COLOURS[word]), (SIDE, SIDE, 1)) for word in words]
    pixels = np.concatenate(squares, 1)
    return (pixels + random.integers(-20, 20, pixels.shape)).clip(0, 255).astype(np.uint8)


def write_tables(folder: Path, counts: dict[str, int], longest: int = 3) -> None:
    """Write a table for each of these counts, with this many strips of up to `longest` squares. In those whose
    name begins with two, every second strip has a second text, `a strip`."""
    random = np.random.default_rng(5)
    for table, count in counts.items():
        rows = []
        for number in range(count):
            words = random.choice([*COLOURS], random.integers(1, longest + 1)).tolist()
            Image.fromarray(strip(words, random)).save(folder / f"{table}{number}.png")
            text = " ".join(words)
            rows.append(
                {
                    "id": f"{table}{number}",
                    "text": [text, "a strip"] if number % 2 and table.startswith("two") else text,
                }
            )
        (folder / f"{table}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def recipe(folder: Path, prefix: str = "", **data: Any) -> dict[str, Any]:
    """Return a recipe for the tables whose name begins so."""
    tables = {
        role: {"table": str(folder / f"{prefix}{role}.jsonl"), "columns": ["id", "text"], "path": "{}.png"}
        for role in ("train", "dev", "test")
    }
    attention = {"score": {"name": "location_sensitive", "width": [3, 3], "filters": 4}}
    return {
        "name": "strips",
        "task": "image_to_text",
        "data": {**tables, **data},
        "text": {"model": "word"},
        "model": {
            "encoder": {
                "backbone": {"kind": "convolutional", "sizes": [6, 8, 12, 12]},
                "size": 16,
                "dropout": 0,
            },
            "decoder": {
                "kind": "recurrent",
                "cell": "gru",
                "embedding": 12,
                "size": 16,
                "order": "bahdanau",
                "attention": attention,
            },
        },
        "training": {
            "learning_rate": 0.01,
            "batch_images": 8,
            "max_epochs": 2,
            "validate_every": 6,
            "log_every": 1,
            "metric": "exact",
            "metrics": ["exact", "bleu"],
        },
        "decoding": {"beam": 2},
    }
