"""Tiny runs on the sentences that ship: the quickstart recipe, made small.

Their results are not sensible texts; those of `MODEL`, a run of the present format, are.
"""

import json
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

import seq2attn.runs.training_run
from seq2attn.runs.training_run import Trained
from seq2attn.training.display import Display
from seq2attn.training.run_folder import FORMAT, RunFolder

MODEL = Path(__file__).parent / f"model_{FORMAT}" / "run"

SMALL = [
    "data.train.0.limit=200",
    "data.dev.limit=15",
    "data.test.limit=15",
    "text={size: 400, byte_fallback: false}",
    "training={optimizer: adam, learning_rate: 0.01, max_steps: 48, validate_every: 12, keep_last: 3}",
    "training.batch_tokens=200",
    "training.log_every=1",
    "decoding={min_length: 3, max_length: 12}",
]
MODELS = {
    "lstm": [
        "model.encoder={kind: recurrent, embedding: 12, size: 10}",
        "model.decoder={kind: recurrent, order: bahdanau, embedding: 11, size: 14, attention: {score: additive}}",
        "model.tied=none",
    ],
    "transformer": [
        "model.encoder={kind: transformer, size: 16, layers: 1, feed_forward: 20, self_attention: {heads: 2}}",
        "model.decoder={kind: transformer, size: 16, layers: 3, feed_forward: 20, self_attention: {heads: 4}}",
        "model.decoder.cross_attention.heads=2",
        "model.tied=all",
        "text.joint=true",
        "training.learning_rate=0.005",
    ],
}
READY = [f"text={{files: [{MODEL}/text/source.model, {MODEL}/text/target.model]}}"]  # nothing to learn


def silent() -> Display:
    """A display that shows nothing."""
    return Display(Console(file=StringIO()))


def recording() -> Display:
    """A display whose lines `said` returns."""
    return Display(Console(file=StringIO(), width=10_000))


def said(display: Display) -> str:
    """What was shown, on one line."""
    stream = display.console.file
    return " ".join(stream.getvalue().split()) if isinstance(stream, StringIO) else ""


def train(path: Path | None, *overrides: str, **options: Any) -> Trained:
    """A run of the small recipe."""
    return seq2attn.runs.training_run.train(
        "quickstart", path, [*SMALL, *overrides], **{"display": silent(), **options}
    )


def weights_hash(run: Path) -> str:
    """Of the weights that training ended with."""
    folder = RunFolder.open(run)
    return sha256(folder.content(f"weights/{folder.version.last}")).hexdigest()


def log(run: Path) -> list[dict[str, Any]]:
    """The records of log.jsonl, without times."""
    records = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]
