"""A short training on reversed letters, and batches of random ids, for several processes."""

import json
from pathlib import Path
from typing import Any

PIECES = [range(1), range(1, 4), range(4, 11), range(11, 16), range(16, 18)]  # the rows of batches

RECIPE = {
    "data": {
        "languages": ["letters", "letters"],
        "train": {"task": "reverse", "symbols": 8, "lengths": [2, 5], "count": 120},
        "dev": {"task": "reverse", "symbols": 8, "lengths": [2, 5], "count": 11},
    },
    "text": {"model": "word", "size": 50},
    "model": {
        "encoder": {"kind": "recurrent", "embedding": 8, "size": 8, "dropout": 0.1},
        "decoder": {
            "kind": "recurrent",
            "embedding": 8,
            "size": 8,
            "order": "luong",
            "attention": {"score": "additive"},
        },
    },
    "training": {
        "optimizer": "sgd",
        "learning_rate": 0.3,
        "batch_tokens": 60,
        "accumulate": 3,
        "max_steps": 6,
        "validate_every": 3,
        "average": 2,
        "keep_last": 2,
        "metric": "loss",
        "metrics": ["exact", "wer"],
    },
}


def records(run: Path) -> list[Any]:
    """The lines of log.jsonl, without times."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
