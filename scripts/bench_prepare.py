"""Measure how fast pairs of texts are prepared, what memory it takes, and how fast an epoch is planned.

    python scripts/bench_prepare.py --pairs 200000                         # a minute
    python scripts/bench_prepare.py --pairs 1000000,5000000 --workers 1,2
    python scripts/bench_prepare.py --pairs 0 --plan 1000000,100000000     # only the plan of an epoch

Pairs are synthesised: each joins four pairs of the sample corpus at random, about 26 words a side, and one in
a hundred is there twice. Pieces are those of a vocabulary of 8,000. The limit is what SentencePiece takes in
one thread, for both sides. Every figure is of a process of its own; memory is the peak of its resident set,
that of the processes that encode aside.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from seq2attn.data import Report, pairs, prepare, training_text
from seq2attn.data.batch_plan import Batches
from seq2attn.data.cache import cache_folder
from seq2attn.data.window_plan import LARGE, blocks
from seq2attn.recipe import DataRecipe
from seq2attn.text import Vocabulary, train_vocabulary

SAMPLE = {"sample": "tatoeba_de_en"}
JOINED, TWICE = 4, 0.01
LIMIT = 20_000  # pairs on which SentencePiece is measured


def main() -> None:
    """Print a line for each measurement."""
    options = _options()
    if options.stage:
        print(json.dumps(STAGES[options.stage](*options.arguments)))
        return
    with contextlib.ExitStack() as context:
        given = options.folder or context.enter_context(tempfile.TemporaryDirectory(prefix="bench_prepare."))
        folder = Path(given)
        folder.mkdir(exist_ok=True, parents=True)
        for count in options.pairs:
            if count:
                _prepare(folder, count, options.workers)
        for count in options.plan:
            _show(f"plan of {count:,} examples", _run("plan", str(count)))


def _prepare(folder: Path, count: int, workers: list[int]) -> None:
    _vocabularies(folder)
    _corpus(folder, count)
    size = sum((folder / f"{count}.{side}").stat().st_size for side in ("de", "en"))
    print(f"\n{count:,} pairs, {size / 1e9:.2f} GB of text")
    _show("SentencePiece alone, one thread", _run("limit", str(folder), str(count)))
    _show("reading alone", _run("read", str(folder), str(count)))
    for number in workers:
        _show(f"prepare, {number} workers", _run("prepare", str(folder), str(count), str(number)))
    _show("opening", _run("open", str(folder), str(count)))


def _show(name: str, figures: dict[str, float]) -> None:
    text = ", ".join(
        f"{key} {value:,.3g}" if value < 100 else f"{key} {value:,.0f}" for key, value in figures.items()
    )
    print(f"{name}: {text}", flush=True)


def _run(stage: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--stage", stage, *arguments]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return figures


# ---- the stages, each in a process of its own ------------------------------------------------------------


def _limit(folder: str, count: str) -> dict[str, float]:
    rows = [
        pair[:2] for pair in islice(pairs(_recipe(folder, count).train[0], ("de", "en"), Report()), LIMIT)
    ]
    vocabularies = _vocabularies(Path(folder))
    begun, pieces = time.process_time(), 0
    for side, vocabulary in enumerate(vocabularies):
        pieces += sum(map(len, vocabulary.encode([row[side] for row in rows], threads=1)))
    seconds = time.process_time() - begun
    return {"pairs a CPU second": len(rows) / seconds, "pieces a pair": pieces / len(rows)}


def _read(folder: str, count: str) -> dict[str, float]:
    begun = time.process_time()
    read = sum(1 for _ in pairs(_recipe(folder, count).train[0], ("de", "en"), Report()))
    return {"pairs a CPU second": read / (time.process_time() - begun)}


def _prepared(folder: str, count: str, workers: str) -> dict[str, float]:
    cache = Path(os.environ.setdefault("SEQ2ATTN_CACHE", f"{folder}/cache"))
    for path in cache.glob("*"):
        path.unlink()
    data, vocabularies = _recipe(folder, count, workers), _vocabularies(Path(folder))
    before, begun, cpu = _memory(), time.perf_counter(), _cpu()
    examples = prepare(data.train, data, vocabularies, "train")
    seconds, cpu, read = time.perf_counter() - begun, _cpu() - cpu, examples.report.read
    figures = {"pairs/s": read / seconds, "pairs a CPU second": read / cpu, "seconds": seconds}
    figures |= {"CPU seconds of the first process": time.process_time(), "kept": examples.report.kept}
    store = sum(path.stat().st_size for path in cache.glob("*.arrow"))
    return {**figures, "GB of store": store / 1e9, "MB before": before, "MB at the peak": _memory()}


def _open(folder: str, count: str) -> dict[str, float]:
    os.environ.setdefault("SEQ2ATTN_CACHE", f"{folder}/cache")
    data, vocabularies = _recipe(folder, count), _vocabularies(Path(folder))
    cache_folder()  # imports what is slow to import
    begun, cpu = time.perf_counter(), time.process_time()
    examples = prepare(data.train, data, vocabularies, "train")
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    begun, generator = time.process_time(), np.random.default_rng(1)
    for number in generator.integers(0, len(examples), 10_000).tolist():
        examples.source(number), examples.target(number)
    pair = 100 * (time.process_time() - begun)
    return {"seconds": seconds, "CPU seconds": cpu, "µs a random pair": pair, "MB": _memory()}


def _plan(count: str) -> dict[str, float]:
    examples = _Lengths(int(count))
    before, begun = _memory(), time.process_time()
    batches = Batches(examples, 4096)  # type: ignore[arg-type]
    plan = batches.epoch(0)
    first = plan[:1]
    seconds = time.process_time() - begun
    size = len(plan)
    whole = time.process_time() - begun
    figures = {"CPU seconds to the first batch": seconds, "to the number of batches": whole, "batches": size}
    return {
        **figures,
        "examples of the first": len(first[0]),
        "MB before": before,
        "MB at the peak": _memory(),
    }


class _Lengths:
    """A corpus that has lengths only."""

    def __init__(self, count: int) -> None:
        generator = np.random.default_rng(7)
        self.source_lengths = generator.integers(1, 80, count, dtype=np.int32)
        self.target_lengths = np.clip(self.source_lengths + generator.integers(-9, 10, count), 1, 99).astype(
            np.int32
        )

    def epoch(self, epoch: int, seed: int) -> Any:
        return np.arange(len(self.source_lengths))

    def blocks(self, epoch: int, seed: int) -> Any:
        count = len(self.source_lengths)
        return blocks([count], [1.0], (seed, epoch)) if count > LARGE else None


STAGES: dict[str, Callable[..., dict[str, float]]] = {
    "limit": _limit, "read": _read, "prepare": _prepared, "open": _open, "plan": _plan
}  # fmt: skip


# ---- data ------------------------------------------------------------------------------------------------


def _recipe(folder: str, count: str, workers: str = "1") -> DataRecipe:
    corpus = {"files": [f"{folder}/{count}.{side}" for side in ("de", "en")]}
    return DataRecipe.model_validate(
        {"languages": ["de", "en"], "train": [corpus], "dev": SAMPLE, "workers": int(workers)}
    )


def _vocabularies(folder: Path) -> tuple[Vocabulary, Vocabulary]:
    paths = [folder / f"{side}.model" for side in ("de", "en")]
    data = DataRecipe.model_validate({"languages": ["de", "en"], "train": [SAMPLE], "dev": SAMPLE})
    for side, path in enumerate(paths):
        if not path.exists():
            train_vocabulary(training_text(data, (side,)), size=8000).save(path)
    return Vocabulary.load(paths[0]), Vocabulary.load(paths[1])


def _corpus(folder: Path, count: int) -> None:
    """Write `count` pairs, if they are not there yet."""
    if (folder / f"{count}.done").exists():
        return
    data = DataRecipe.model_validate({"languages": ["de", "en"], "train": [SAMPLE], "dev": SAMPLE})
    rows = [pair[:2] for pair in pairs(data.train[0], data.languages, Report())]
    for side, name in enumerate(("de", "en")):
        texts = [row[side] for row in rows]
        with (folder / f"{count}.{name}").open("w", encoding="utf-8") as file:
            file.writelines(_lines(texts, count))
    (folder / f"{count}.done").touch()


def _lines(texts: list[str], count: int) -> Iterator[str]:
    generator, last = np.random.default_rng(5), "Ja.\n"  # the same rows for both sides
    for begin in range(0, count, 10_000):
        size = min(10_000, count - begin)
        chosen = generator.integers(0, len(texts), (size, JOINED)).tolist()
        twice = (generator.random(size) < TWICE).tolist()
        for row, again in zip(chosen, twice, strict=True):
            last = last if again else " ".join([texts[number] for number in row]) + "\n"
            yield last


def _cpu() -> float:
    """Return the CPU seconds of this process, and of those that it has started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _memory() -> float:
    """Return the peak of this process's resident set, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--pairs", type=_numbers, default=[200_000], help="numbers of pairs, 200000 by default"
    )
    parser.add_argument(
        "--workers", type=_numbers, default=[1, 2], help="numbers of processes, 1,2 by default"
    )
    parser.add_argument(
        "--plan", type=_numbers, default=[], help="numbers of examples of which to plan an epoch"
    )
    parser.add_argument("--folder", help="where the pairs are written; by default a temporary folder")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
