"""Progress on the terminal: one live line where there is a terminal, a line now and then where not."""

import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from seq2attn.metrics import METRICS

SHOWN = {"bleu": "BLEU", "chrf": "chrF", "wer": "WER", "per": "PER"}
EVERY = 15.0  # seconds between lines where there is no terminal


class Display:
    """Shows training's records: step, tokens/s, loss, learning rate, time left; validations stay."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._last: dict[str, Any] = {}
        self._speed = 0.0
        self._shown = 0.0

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)

    def __call__(self, record: dict[str, Any]) -> None:
        """Show a record of `training.fit`."""
        if "norm" in record:
            self._trained(record)
        else:
            self.say(validation_line(record))

    def _trained(self, record: dict[str, Any]) -> None:
        if self._last and record["seconds"] > self._last["seconds"]:
            speed = (record["tokens"] - self._last["tokens"]) / (record["seconds"] - self._last["seconds"])
            self._speed = 0.9 * self._speed + 0.1 * speed if self._speed else speed
        self._last = record
        line = training_line(record, self._speed)
        if self._live is not None:
            self._live.update(Text(line))
        elif time.monotonic() - self._shown > EVERY:
            self._shown = time.monotonic()
            self.say(line)


def training_line(record: dict[str, Any], speed: float) -> str:
    """An update in one line; speed in target tokens per second."""
    step, total = record["step"], record["total"]
    of = f"/{total}" if total else ""
    left = f"  {clock((total - step) * record['seconds'] / step)} left" if total else ""
    epoch = record["epoch"] + bool(record["batch"])  # the record says what is next: at batch 0, another epoch
    rate = f"{speed:,.0f} tokens/s  " if speed else ""
    return (
        f"step {step}{of}  epoch {epoch}  {rate}loss {record['loss']:.3f}  "
        f"learning rate {record['learning_rate']:.2e}  {clock(record['seconds'])}{left}"
    )


def validation_line(record: dict[str, Any]) -> str:
    """A validation in one line."""
    place = f"step {record['step']}" if "step" in record else f"average of the last {record['average']}"
    measured = [f"{SHOWN.get(name, name)} {record[name]:.2f}" for name in METRICS if name in record]
    found = [f"loss {record['loss']:.3f}", f"perplexity {record['perplexity']:.2f}", *measured]
    return f"{place}: dev {'  '.join(found)}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
