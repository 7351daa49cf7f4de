"""Progress of training: one live line on a terminal or in a notebook, anywhere else a new line every 15
seconds."""

import math
import sys
import time
from collections import deque
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from seq2attn.metrics import METRICS

DISPLAY_NAMES = {"bleu": "BLEU", "chrf": "chrF", "wer": "WER", "per": "PER"}
LINE_INTERVAL = 15.0  # seconds between lines if the output is not a terminal
BAR = 20  # characters
AVERAGED = 100  # updates whose mean loss is shown: that of a single one jumps
CELL_INTERVAL = 0.5  # seconds between updates of a notebook's cell
SLOW = 1.2  # times the mean: a process that takes so long for its batches is named


class Display:
    """Shows the progress of training (step, speed, loss, learning rate, time left) and the scores of
    validations.

    The loss is the mean of the last AVERAGED updates of this process; log.jsonl has that of single updates.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _StandardError()
        self._live: Live | None = None
        self._output: Any = None  # the one output of a notebook's cell, which has all lines
        self._lines: list[str] = []  # that remain in it
        self._last_record: dict[str, Any] = {}
        self._speed = 0.0  # in units of the loss per second, smoothed
        self._losses: deque[float] = deque(maxlen=AVERAGED)
        self._last_line_time = -math.inf

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        elif self.console.is_jupyter:
            self._output = sys.modules["IPython.display"].display(_Lines([]), display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()
        self._show_in_cell()

    def say(self, text: str) -> None:
        """Print a line that remains above the live line."""
        if self._output is None:
            try:
                self.console.print(text, markup=False, soft_wrap=True)
            except BrokenPipeError:  # of other consoles, and of rich before 13.8
                self.console.quiet = True
        else:
            self._lines.append(text)
            self._show_in_cell()

    def __call__(self, record: dict[str, Any]) -> None:
        """Show the record of an update or of a validation, as `fit` reports them.

        record["unit"]: what its "tokens" are: images, words.
        """
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
        self._losses.append(record["loss"])
        self.show(training_line({**record, "loss": fmean(self._losses)}, self._speed))

    def show(self, line: str) -> None:
        """Show a line of progress, in the place of the one before."""
        if self._live is not None:
            self._live.update(Text(line))
        elif self._output is not None:
            if time.monotonic() - self._last_line_time > CELL_INTERVAL:
                self._last_line_time = time.monotonic()
                self._show_in_cell(line)
        elif time.monotonic() - self._last_line_time > LINE_INTERVAL:
            self._last_line_time = time.monotonic()
            self.say(line)

    def _show_in_cell(self, *live: str) -> None:
        """Replace the output of a notebook's cell by the lines that remain, and a live line."""
        if self._output is not None:
            self._output.update(_Lines([*self._lines, *live]))


class _StandardError(Console):
    """Standard error. If it is a pipe that nobody reads any more (`| head`), training goes on in silence.

    rich would end the process, and what was trained since the last saved state would be lost.
    """

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False)

    def on_broken_pipe(self) -> None:
        """See the base class."""
        self.quiet = True


class _Lines:
    """Lines that notebooks show as text."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def __repr__(self) -> str:
        return "\n".join(self.lines)


def training_line(record: dict[str, Any], speed: float) -> str:
    """Return the line that reports an update; speed in its units per second."""
    step, total = record["step"], record["total"]
    of = f"/{total}" if total else ""
    left = f"  {clock((total - step) * record['seconds'] / step)} left" if total else ""
    # The record has the position of the next batch: at batch 0 it names the epoch after the current one.
    epoch = record["epoch"] + bool(record["batch"])
    rate = f"{speed:,.0f} {record.get('unit', 'tokens')}/s  " if speed else ""
    return (
        f"step {step}{of}  epoch {epoch}  {rate}loss {record['loss']:.3f}  "
        f"learning rate {record['learning_rate']:.2e}  {clock(record['seconds'])}{left}{_slow(record)}"
    )


def _slow(record: dict[str, Any]) -> str:
    """Return which process the others have to wait for, if they have to; see `Pace`."""
    seconds, mean = record.get("slowest_seconds", 0.0), record.get("mean_seconds", 0.0)
    if not seconds > SLOW * mean:
        return ""
    return f"  process {record['slowest_process']} takes {seconds / mean:.1f} times the mean"


def validation_line(record: dict[str, Any]) -> str:
    """Return the line that reports a validation."""
    weights = f"step {record['step']}" if "step" in record else f"average of the last {record['average']}"
    metrics = [f"{DISPLAY_NAMES.get(name, name)} {record[name]:.2f}" for name in METRICS if name in record]
    perplexity = [f"perplexity {record['perplexity']:.2f}"] if "perplexity" in record else []
    values = [f"loss {record['loss']:.3f}", *perplexity, *metrics]
    return f"{weights}: dev {'  '.join(values)}"


def progress_bar(share: float, seconds: float) -> str:
    """Return a bar, the share in percent and the time that is left, for the beginning of a line; nothing if
    the share of the work that is done after these seconds is 0, which means that it is unknown."""
    if not share:
        return ""
    done = round(BAR * share)
    left = clock(seconds * (1 - share) / share)
    return f"{'━' * done}{'┄' * (BAR - done)} {share:4.0%}  {left} left  "


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
