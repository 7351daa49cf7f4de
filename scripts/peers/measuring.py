"""What the contenders of bench_peers.py do alike: read their job, run the clocks, report.

It runs in the environment of every peer, so it needs nothing but Python.
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
    """One measurement of one contender."""

    folder: str  # of the data, the vocabularies and the configurations
    kind: str  # train or decode
    model: str = "transformer"  # or lstm
    threads: int = 1
    warmup: int = 3  # updates that are not measured
    updates: int = 10
    sentences: int = 1000
    batch: int = 64  # sentences
    beam: int = 5
    steps: int = 16  # of every sentence, the end included
    precision: str = "float32"

    @classmethod
    def given(cls) -> "Job":
        """The job on the command line."""
        return cls(**json.loads(sys.argv[1]))

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    def texts(self) -> list[str]:
        """Source sentences, longest first, of all lengths."""
        lines = (self.path / "sorted.en").read_text(encoding="utf-8").splitlines()
        return lines[:: max(1, len(lines) // self.sentences)][: self.sentences]

    def cut(self, texts: list[str]) -> Iterator[list[str]]:
        """Batches of neighbours."""
        for begin in range(0, len(texts), self.batch):
            yield texts[begin : begin + self.batch]


class Clocks:
    """Wall and CPU time of the work between `start` and `report`."""

    def __init__(self, job: Job, *packages: ModuleType) -> None:
        self.job, self.packages, self.made = job, packages, 0
        self.start()

    def start(self) -> None:
        """From here on it counts."""
        self.tokens, self.wall, self.cpu = 0, time.perf_counter(), time.process_time()

    def updated(self, tokens: int) -> None:
        """An update from so many target tokens is made. After the last it reports, and ends the process."""
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
        found = translate(texts)
        self.tokens = len(found) * self.job.steps
        self.report(len(found))

    def report(self, parts: int) -> None:
        """What was measured, as a line of JSON; parts: updates or sentences."""
        seconds, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        measured = {
            "tokens": self.tokens,
            "parts": parts,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "peak_memory": peak if sys.platform == "darwin" else peak * 1024,
            "versions": {one.__name__: str(one.__version__) for one in self.packages},
        }
        print("\n" + json.dumps(measured), flush=True)


def run(train: Callable[[Job], None], decode: Callable[[Job], None]) -> None:
    """Do the job on the command line."""
    job = Job.given()
    if job.kind == "decode":
        decode(job)
    else:
        train(job)
        sys.exit("training ended before all updates were made")
