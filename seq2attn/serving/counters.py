"""What a server counts, in the text format that Prometheus reads."""

import math
import os
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from seq2attn.serving.model_thread import Computed

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LINES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """How many values are at most as large as each of some bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts, self.sum = [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: Labels) -> Iterator[str]:
        """Yield the lines of the histogram."""
        for bound, count in zip((*self.bounds, math.inf), accumulate(self.counts), strict=True):
            text = "+Inf" if bound == math.inf else f"{bound:g}"
            yield f"{name}_bucket{_written((*labels, ('le', text)))} {count}"
        yield f"{name}_sum{_written(labels)} {self.sum:g}"
        yield f"{name}_count{_written(labels)} {sum(self.counts)}"


class Counters:
    """Counts requests and batches. It may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[Labels] = Counter()
        self._lines: Counter[Labels] = Counter()
        self._failed: Counter[Labels] = Counter()
        self._answering: dict[Labels, Histogram] = {}
        self._computing: dict[Labels, Histogram] = {}
        self._batch: dict[Labels, Histogram] = {}
        self._fill: dict[Labels, Histogram] = {}

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        with self._lock:
            self._requests[("route", route), ("code", str(status))] += 1
            self._answering.setdefault((("route", route),), Histogram(_SECONDS)).add(seconds)

    def batch(self, model: str, computed: Computed) -> None:
        """Count a batch."""
        labels = (("model", model),)
        with self._lock:
            self._lines[labels] += computed.lines
            self._failed[labels] += computed.failed
            self._computing.setdefault(labels, Histogram(_SECONDS)).add(computed.seconds)
            self._batch.setdefault(labels, Histogram(_LINES)).add(computed.lines)
            fill = min(1.0, (computed.length + computed.lines) / computed.padded)
            self._fill.setdefault(labels, Histogram(_SHARES)).add(fill)

    def text(self, waiting: Iterable[tuple[str, int]]) -> str:
        """Return all that was counted. waiting: the names of models, and the lines that wait for each."""
        lines = list[str]()

        def add(name: str, kind: str, help: str, written: Iterable[str]) -> None:
            lines.extend((f"# HELP {name} {help}", f"# TYPE {name} {kind}", *written))

        with self._lock:
            for name, help, counter in (
                ("seq2attn_requests_total", "Answers by route and status.", self._requests),
                ("seq2attn_lines_total", "Lines that were computed.", self._lines),
                ("seq2attn_failed_lines_total", "Lines whose computation failed.", self._failed),
            ):
                add(name, "counter", help, (f"{name}{_written(of)} {n}" for of, n in sorted(counter.items())))
            for name, help, histograms in (
                ("seq2attn_request_seconds", "Seconds from request to answer.", self._answering),
                ("seq2attn_batch_seconds", "Seconds in which a batch was computed.", self._computing),
                ("seq2attn_batch_lines", "Lines of a batch.", self._batch),
                ("seq2attn_batch_fill", "The share of a batch that is no padding.", self._fill),
            ):
                written = (line for of, one in sorted(histograms.items()) for line in one.lines(name, of))
                add(name, "histogram", help, written)
        name = "seq2attn_waiting_lines"
        rows = (f"{name}{_written((('model', model),))} {count}" for model, count in waiting)
        add(name, "gauge", "Lines that wait for a model.", rows)
        if memory := resident_memory():
            name = "seq2attn_resident_memory_bytes"
            add(name, "gauge", "Memory of the process.", [f"{name} {memory}"])
        return "\n".join(lines) + "\n"


def _written(labels: Labels) -> str:
    """Return labels as Prometheus writes them."""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{','.join(pairs)}}}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resident_memory() -> int:
    """Return the bytes of memory that the process has; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
