"""Progress of training: one live line on a terminal, and a new line every 15 seconds anywhere else."""

import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from seq2attn.metrics import METRICS

DISPLAY_NAMES = {"bleu": "BLEU", "chrf": "chrF", "wer": "WER", "per": "PER"}
LINE_INTERVAL = 15.0  # seconds between lines if the output is not a terminal


class Display:
    """Shows the progress of training (step, speed, loss, learning rate, time left) and the scores of
    validations."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._last_record: dict[str, Any] = {}
        self._speed = 0.0  # target tokens per second, smoothed
        self._last_line_time = 0.0

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line that remains above the live line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def __call__(self, record: dict[str, Any]) -> None:
        """Show the record of an update or of a validation, as `fit` reports them."""
        if "norm" in record:
            self._show_update(record)
        else:
            self.say(validation_line(record))

    def _show_update(self, record: dict[str, Any]) -> None:
        last = self._last_record
        if last and record["seconds"] > last["seconds"]:
            speed = (record["tokens"] - last["tokens"]) / (record["seconds"] - last["seconds"])
            self._speed = 0.9 * self._speed + 0.1 * speed if self._speed else speed
        self._last_record = record
        line = training_line(record, self._speed)
        if self._live is not None:
            self._live.update(Text(line))
        elif time.monotonic() - self._last_line_time > LINE_INTERVAL:
            self._last_line_time = time.monotonic()
            self.say(line)


def training_line(record: dict[str, Any], speed: float) -> str:
    """Return the line that reports an update; speed in target tokens per second."""
    step, total = record["step"], record["total"]
    of = f"/{total}" if total else ""
    left = f"  {clock((total - step) * record['seconds'] / step)} left" if total else ""
    # The record has the position of the next batch: at batch 0 it names the epoch after the current one.
    epoch = record["epoch"] + bool(record["batch"])
    rate = f"{speed:,.0f} tokens/s  " if speed else ""
    return (
        f"step {step}{of}  epoch {epoch}  {rate}loss {record['loss']:.3f}  "
        f"learning rate {record['learning_rate']:.2e}  {clock(record['seconds'])}{left}"
    )


def validation_line(record: dict[str, Any]) -> str:
    """Return the line that reports a validation."""
    weights = f"step {record['step']}" if "step" in record else f"average of the last {record['average']}"
    metrics = [f"{DISPLAY_NAMES.get(name, name)} {record[name]:.2f}" for name in METRICS if name in record]
    values = [f"loss {record['loss']:.3f}", f"perplexity {record['perplexity']:.2f}", *metrics]
    return f"{weights}: dev {'  '.join(values)}"


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
