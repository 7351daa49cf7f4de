"""Shared code of the benchmarks: models, data, facts about the machine, and measurements in turns.

This module is imported by the scripts beside it. SEQ2ATTN_DATA names a folder with multi30k/ in it; without
it, the text is the German-English sample that ships.
"""

import argparse
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.recipe import Recipe
from seq2attn.runtime.process import settle
from seq2attn.tasks.sequence_tasks import SequenceTask, TranslationTask
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.version import __version__

Case = TypeVar("Case")
Sample = dict[str, Any]  # the measurements of one turn
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
PIECES = 8000  # joint, of both languages
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


# ---- arguments ---------------------------------------------------------------------------------------


def positive(word: str) -> int:
    """Read a whole number of at least 1, for argparse."""
    if int(word) < 1:
        raise ValueError
    return int(word)


def positives(word: str) -> list[int]:
    """Read such numbers, separated by commas."""
    return [positive(part) for part in word.split(",")]


def precisions(word: str) -> list[str]:
    """Read names of TYPES, separated by commas."""
    if unknown := set(word.split(",")) - TYPES.keys():
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}: expected {', '.join(TYPES)}")
    return word.split(",")


# ---- models ------------------------------------------------------------------------------------------


def _recurrent(score: str, feeding: bool) -> dict[str, Any]:
    """Return a bidirectional encoder of 2 x 256 and a decoder of 512, as is usual with JoeyNMT and Eole."""
    side = {"kind": "recurrent", "embedding": 256, "dropout": 0.2, "embedding_dropout": 0.1}
    attention = {"order": "luong", "attention": {"score": score}, "input_feeding": feeding}
    return {"encoder": {**side, "size": 256}, "decoder": {**side, "size": 512, **attention}}


def _transformer(layers: int, size: int, heads: int) -> dict[str, Any]:
    side = {"kind": "transformer", "size": size, "layers": layers, "feed_forward": 4 * size, "dropout": 0.1}
    side |= {"feed_forward_dropout": 0.1, "self_attention": {"heads": heads}}
    return {"encoder": side, "decoder": {**side, "cross_attention": {"heads": heads}}, "tied": "all"}


MODELS: dict[str, dict[str, Any]] = {
    "additive": _recurrent("additive", True),
    "luong": _recurrent("general", False),
    "transformer": _transformer(3, 256, 4),
    "base": _transformer(6, 512, 8),
    "big": _transformer(6, 1024, 16),
}
TABLES = {"big": 32_000}  # rows of the embeddings, if not PIECES; the text uses PIECES of them


def recipe(model: str, pieces: Path | None = None, **training: Any) -> Recipe:
    """Return the recipe of one of MODELS on the available text; pieces: a trained vocabulary."""
    folder = os.environ.get("SEQ2ATTN_DATA")
    data: dict[str, Any] = {"languages": ["de", "en"]}
    data |= {role: {"sample": "tatoeba_de_en"} for role in ("train", "dev", "test")}
    if folder and (Path(folder) / "multi30k").is_dir():
        names = {"train": "train", "dev": "val", "test": "test_2016_flickr"}
        data = {"languages": ["en", "de"]}
        for role, name in names.items():
            data[role] = {"files": [f"{folder}/multi30k/{name}.{side}.gz" for side in data["languages"]]}
    text = {"model": "bpe", "size": PIECES, "joint": True, "files": [str(pieces)] * 2 if pieces else None}
    learning = {"label_smoothing": 0.1, "learning_rate": 1e-4, "max_epochs": 1, **training}
    return Recipe.model_validate({"data": data, "text": text, "model": MODELS[model], "training": learning})


def corpus() -> str:
    """Return the name of the available text."""
    return "multi30k" if recipe("transformer").data.languages == ("en", "de") else "tatoeba_de_en"


def task(model: str, pieces: Path | None, **training: Any) -> SequenceTask:
    """Return the task of one of MODELS; without pieces, for random ids."""
    vocabulary = cast(Vocabulary, Specials()) if pieces is None else Vocabulary.load(pieces)
    vocabulary.size = TABLES.get(model, PIECES)
    return TranslationTask(recipe(model, pieces, **training), [vocabulary])


def learn_pieces(folder: Path) -> Path:
    """Train a joint vocabulary on the training text; return its file in the folder."""
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn")
    ) as process:  # so that no peak has its memory
        return process.submit(_learn_pieces, folder).result()


def _learn_pieces(folder: Path) -> Path:
    task = TranslationTask.learn(recipe("transformer"))
    task.vocabularies[0].save(folder / "joint.model")
    TranslationTask(recipe("transformer", folder / "joint.model"), task.vocabularies).examples("train")
    return folder / "joint.model"


class Specials:
    """The special ids of a vocabulary without text."""

    pad, unk, bos, eos, size = 0, 1, 2, 3, PIECES


class Synthetic:
    """Examples of random ids, with one length for all sources and one for all targets (without </s>)."""

    def __init__(self, source: int, target: int, size: int, count: int = 20_000) -> None:
        random = np.random.default_rng(1)
        self.sides = [
            random.integers(4, size, (count, length), dtype=np.int32) for length in (source, target)
        ]
        self.source_lengths, self.target_lengths = (
            np.full(count, length, dtype=np.int32) for length in (source, target)
        )

    def source(self, number: int) -> NDArray[np.int32]:
        """Return the ids of a source."""
        return cast(NDArray[np.int32], self.sides[0][number])

    def target(self, number: int) -> NDArray[np.int32]:
        """Return the ids of a target."""
        return cast(NDArray[np.int32], self.sides[1][number])

    def source_text(self, number: int) -> str:
        """Return no text."""
        return ""

    target_text = source_text

    def epoch(self, epoch: int, seed: int) -> NDArray[np.int64]:
        """Return the indices of all examples."""
        return np.arange(len(self.source_lengths))


# ---- the machine -------------------------------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished; read the clock only then."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: of the GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used * (1 if sys.platform == "darwin" else 1024)


class MatrixPeak:
    """Measures the operations a second of a large matrix product: the speed of the machine at that moment."""

    def __init__(self, device: torch.device, precision: str, clock: Clock) -> None:
        self.device, self.clock, size = device, clock, 8192 if device.type == "cuda" else 1024
        self.matrix: Tensor = torch.randn(size, size, device=device).to(TYPES[precision])
        self.out = torch.empty_like(self.matrix)
        self.operations = 2 * size**3
        self()

    def __call__(self) -> float:
        """Return the median of seven products."""
        seconds = []
        for _ in range(7):
            synchronize(self.device)
            begun = self.clock()
            torch.mm(self.matrix, self.matrix, out=self.out)
            synchronize(self.device)
            seconds.append(self.clock() - begun)
        return self.operations / statistics.median(seconds)


def processor() -> str:
    """Return the name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def signature(device: torch.device, threads: int) -> str:
    """Return date, machine and versions of a measurement, for the line below a table."""
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    facts = {
        "date": date.today().isoformat(),
        "machine": machine,
        "cores": os.cpu_count(),
        "threads": threads,
        "load": f"{os.getloadavg()[0]:.1f}",
        "device": device,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seq2attn": __version__,
    }
    return "|".join(f"{name}:{fact}" for name, fact in facts.items())


# ---- in turns ----------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """The measurements of a case: a sample of every turn, and the peak memory of its process in bytes."""

    samples: list[Sample]
    memory: int


def in_turns(
    cases: Sequence[Case],
    prepare: Callable[[Case], Callable[[int], Sample]],
    device: torch.device,
    repeat: int,
) -> list[Measured]:
    """Measure every case once, then every case again, and so on: other work affects all of them alike.

    Each case has a process of its own. `prepare` returns the function that measures a turn, by its number.
    One process measures at a time, but all exist at once, so their memory must fit together.
    """
    settle()  # as the command line does, for the processes that are started below
    spawn = multiprocessing.get_context("spawn")
    ends: list[Connection] = []
    for case in cases:
        end, other = spawn.Pipe()
        spawn.Process(target=_serve, args=(other, prepare, case, device), daemon=True).start()
        other.close()
        _answer(end, case)  # ready
        ends.append(end)
    samples: list[list[Sample]] = [[] for _ in cases]
    for turn in range(repeat):
        for end, case, some in zip(ends, cases, samples, strict=True):
            end.send(turn)
            some.append(_answer(end, case))
    found = []
    for end, case, some in zip(ends, cases, samples, strict=True):
        end.send(None)
        found.append(Measured(some, _answer(end, case)))
    return found


def _answer(end: Connection, case: object) -> Any:
    try:
        return end.recv()
    except EOFError:
        sys.exit(f"{case} failed: see the error of its process above")


def _serve(
    end: Connection, prepare: Callable[[Any], Callable[[int], Sample]], case: Any, device: Any
) -> None:
    settle()
    measure = prepare(case)
    end.send(None)
    while (turn := end.recv()) is not None:
        end.send(measure(turn))
    end.send(peak_memory(device))


# ---- results -----------------------------------------------------------------------------------------


def spread(values: Sequence[float], form: str = ",.0f", factor: float = 1.0) -> str:
    """Return the median and the range of values, as text."""
    median, low, high = (
        f"{value * factor:{form}}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} [{low}, {high}]"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows])
