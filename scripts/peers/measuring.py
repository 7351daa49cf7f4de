"""Shared code of the contenders of bench_peers.py: the job of a process, its clocks and its report.

It runs in the virtual environment of every toolkit, so it needs the standard library only.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class Job:
    """A measurement of a contender."""

    folder: str  # with data, vocabularies and configurations
    kind: str  # train or decode
    model: str = "transformer"  # or lstm
    threads: int = 1
    warmup: int = 3  # updates that are not measured
    updates: int = 10
    sentences: int = 1000
    batch: int = 64  # sentences
    beam: int = 5
    steps: int = 16  # of every sentence, </s> included
    precision: str = "float32"
    engine: str = "torch"  # of seq2attn

    @classmethod
    def given(cls) -> "Job":
        """Return the job on the command line."""
        return cls(**json.loads(sys.argv[1]))

    @property
    def path(self) -> Path:
        """The folder, as a path."""
        return Path(self.folder)

    def texts(self) -> list[str]:
        """Return source sentences of all lengths, longest first."""
        lines = (self.path / "sorted.en").read_text(encoding="utf-8").splitlines()
        return lines[:: max(1, len(lines) // self.sentences)][: self.sentences]

    def batches(self, texts: list[str]) -> Iterator[list[str]]:
        """Yield batches of consecutive sentences."""
        for begin in range(0, len(texts), self.batch):
            yield texts[begin : begin + self.batch]


class Clocks:
    """Wall and CPU time between `start` and `report`."""

    def __init__(self, job: Job, *packages: ModuleType) -> None:
        self.job, self.packages, self.made = job, packages, 0
        self.start()

    def start(self) -> None:
        """Start the clocks."""
        self.tokens, self.wall, self.cpu = 0, time.perf_counter(), time.process_time()

    def updated(self, tokens: int) -> None:
        """Count an update from this many target tokens. After the last update, report and end the process."""
        self.made += 1
        self.tokens += tokens
        if self.made == self.job.warmup:
            self.start()
        if self.made == self.job.warmup + self.job.updates:
            self.report(self.job.updates)
            sys.exit(0)

    def decoded(self, translate: Callable[[list[str]], list[str]]) -> None:
        """Measure a translator on the job's sentences, after a first batch."""
        texts = self.job.texts()
        translate(texts[: self.job.batch])
        self.start()
        translations = translate(texts)
        self.tokens = len(translations) * self.job.steps
        self.report(len(translations))

    def report(self, parts: int) -> None:
        """Print the measurement as a line of JSON; parts: the number of updates or sentences."""
        seconds, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        measured = {
            "tokens": self.tokens,
            "parts": parts,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "peak_memory": peak if sys.platform == "darwin" else peak * 1024,
            "versions": {package.__name__: str(package.__version__) for package in self.packages},
        }
        print("\n" + json.dumps(measured), flush=True)


def run(train: Callable[[Job], None], decode: Callable[[Job], None]) -> None:
    """Run the job on the command line."""
    job = Job.given()
    if job.kind == "decode":
        decode(job)
    else:
        train(job)
        sys.exit("training ended before all updates were made")
