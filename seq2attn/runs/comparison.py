"""Comparison of variants of a recipe: train each with the same budget and seeds, and measure it.

Each variant is trained in a separate process, so that its peak memory can be measured, and a failure is a row
of the table like any other. Finished rows are kept: a second call continues where the first stopped.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import yaml

from seq2attn.errors import Seq2attnError
from seq2attn.metrics import METRICS
from seq2attn.recipe import read
from seq2attn.runs.evaluation import held_out
from seq2attn.runtime.files import write
from seq2attn.tasks.loading import load_with_task
from seq2attn.tasks.task import Task
from seq2attn.views.variant_chart import Panel


class BenchError(Seq2attnError):
    """The comparison cannot be made, or the training of a variant failed."""


class Variant(NamedTuple):
    """A variant of a recipe: the overrides that make it, and a name for the table."""

    name: str
    overrides: tuple[str, ...]


class Measured(NamedTuple):
    """The measurements of a trained run."""

    scores: dict[str, list[float]]  # value, low and high by metric
    numbers: dict[str, float]  # all others, by name; a number that a run does not have is left out


@dataclass(frozen=True)
class Row:
    """A variant with one seed, and its measurements (`Measured`)."""

    name: str
    seed: int
    overrides: list[str]
    failed: str = ""  # the reason; empty if the variant was trained and measured
    scores: dict[str, list[float]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps. Numbers stand beside the other fields."""
        fields: dict[str, Any] = asdict(self)
        numbers = fields.pop("numbers")
        return {**fields, **numbers}

    @classmethod
    def from_json(cls, fields: Any) -> "Row":
        """Return the row of a value that `to_json` returned. TypeError or LookupError for any other value."""
        known = {key: fields[key] for key in ("name", "seed", "overrides", "failed", "scores")}
        numbers = {key: value for key, value in fields.items() if key not in known and value is not None}
        return cls(**known, numbers=numbers)


class Column(NamedTuple):
    """A column of a table: the mean over the seeds of a number."""

    number: str
    heading: str
    form: Callable[[float], str]


Measure = Callable[[Path], Measured]  # of a run's folder


def compare(
    recipe: str | Path,
    compared: Sequence[Variant],
    out: Path,
    measure: Measure,
    seeds: int = 1,
    budget: float | None = None,
    overrides: Sequence[str] = (),
    report: Callable[[str], None] = print,
    needed: Sequence[str] = (),
) -> list[Row]:
    """Train and measure each variant with each seed. Rows are written to `out` as soon as they are finished.

    A variant whose recipe has a fault is not trained; all faults are reported before the first training.

    budget: minutes of training for each; if None, the recipe's limits hold;
    overrides: of all variants;
    needed: numbers without which a finished row is measured again.
    """
    out.mkdir(parents=True, exist_ok=True)
    limit = [] if budget is None else [f"training.max_minutes={float(budget)}"]
    faults = {variant: _fault(recipe, [*overrides, *variant.overrides, *limit]) for variant in compared}
    for variant, fault in faults.items():
        if fault:
            report(f"{variant.name}: {fault}")
    rows = []
    for variant, fault in faults.items():
        for seed in range(1, seeds + 1):
            row = Row(variant.name, seed, [*overrides, *variant.overrides, *limit, f"seed={seed}"], fault)
            folder = out / f"{_file_name(variant.name)}-{seed}"
            finished = finished_row(_sibling(folder, "json"), row, needed)
            if finished is None:
                if not fault:
                    report(f"{variant.name}, seed {seed}")
                    row = _trained_row(recipe, row, folder, measure)
                text = json.dumps(row.to_json(), indent=2, ensure_ascii=False)
                write(_sibling(folder, "json"), f"{text}\n".encode())
            rows.append(finished or row)
            if rows[-1].failed and not fault:
                report(f"{variant.name}, seed {seed}: {rows[-1].failed}")
    return rows


def finished_row(path: Path, row: Row, needed: Sequence[str] = ()) -> Row | None:
    """Return the row of an earlier call with the same overrides, if there is one.

    None if it failed or lacks a needed number, or if its file is damaged or of another version: the variant
    is then trained again or, if it was trained to its end, only measured.
    """
    try:
        earlier = Row.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError, LookupError):
        return None
    complete = not earlier.failed and earlier.numbers.keys() >= {*needed}
    return earlier if earlier.overrides == row.overrides and complete else None


def _trained_row(recipe: str | Path, row: Row, folder: Path, measure: Measure) -> Row:
    """Train a variant; return its row with the measurements, or the reason why there are none."""
    try:
        memory = _train(recipe, row.overrides, folder)
        measured = measure(folder)
    except (Seq2attnError, RuntimeError, OSError) as error:
        return Row(row.name, row.seed, row.overrides, _one_line(error))
    numbers = {**measured.numbers, "memory": memory}
    return Row(row.name, row.seed, row.overrides, scores=measured.scores, numbers=numbers)


def _fault(recipe: str | Path, overrides: Sequence[str]) -> str:
    """Return the fault of a variant's recipe, empty if it has none."""
    try:
        read(recipe, overrides)
    except Seq2attnError as error:
        return _one_line(error)
    return ""


def _one_line(error: Exception) -> str:
    """Return the message of an error on a single line, for a cell of a Markdown table."""
    return "; ".join(str(error).replace("|", "/").splitlines())


def _train(recipe: str | Path, overrides: Sequence[str], folder: Path) -> int:
    """Train in a separate process, or resume a training that was stopped; return the peak memory in bytes."""
    command = [sys.executable, "-m", "seq2attn", "train", str(recipe), *overrides, "--run", str(folder)]
    command += ["--resume"] if folder.exists() else []
    with _sibling(folder, "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = _sibling(folder, "log").read_text(encoding="utf-8").strip().splitlines()
        raise BenchError(lines[-1] if lines else f"training ended with status {process.returncode}")
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


# ---- measurements ------------------------------------------------------------------------------------


class TrainedRun(NamedTuple):
    """A trained run, and the examples that it is measured on: its test set, or else its dev set."""

    task: Task[Any]
    predictor: Any
    examples: Any

    @classmethod
    def load(cls, folder: Path) -> "TrainedRun":
        """Load the run of a folder."""
        task, predictor = load_with_task(folder)
        examples = held_out(task, "test" if task.recipe.data.test is not None else "dev")
        return cls(task, predictor, examples)

    def measure(self, folder: Path) -> Measured:
        """Return the scores, and the numbers that all tasks have. Speeds are in targets per second: pieces,
        labels, images."""
        task, predictor, examples = self
        inputs = list(task.inputs(examples, range(len(examples))))
        start = time.perf_counter()
        texts = [task.scored_text(result) for result in predictor.stream(inputs)]
        speed = predictor.num_targets(texts) / (time.perf_counter() - start)
        metrics = [name for name in task.recipe.training.metrics if not METRICS[name].slow]
        scores = dict[str, list[float]]()
        for score in task.evaluate(predictor, examples, metrics).scores.values():
            interval = (score.value if bound is None else bound for bound in (score.low, score.high))
            scores[score.name] = [score.value, *interval]
        parameters = sum(parameter.numel() for parameter in predictor.model.parameters())
        numbers = {"parameters": parameters, "decoding_speed": speed}
        return Measured(scores, {**log_numbers(folder / "log.jsonl"), **numbers})


def log_numbers(path: Path) -> dict[str, float]:
    """Return the numbers of the log of a training: `updates`, `training_speed` (targets per second, the
    median) and `perplexity` (the best on the dev set). Those that were not logged are left out."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [record for record in records if "tokens" in record]
    speeds = [
        (after["tokens"] - before["tokens"]) / (after["seconds"] - before["seconds"])
        for before, after in pairwise(steps)
    ]
    speeds = speeds or [record["tokens"] / record["seconds"] for record in steps]
    perplexities = [record["perplexity"] for record in records if "perplexity" in record]
    numbers: dict[str, float] = {"updates": max((record.get("step", 0) for record in records), default=0)}
    numbers |= {"training_speed": median(speeds)} if speeds else {}
    return numbers | ({"perplexity": min(perplexities)} if perplexities else {})


# ---- tables and figures ------------------------------------------------------------------------------


def by_variant(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each variant, by its name."""
    names = dict.fromkeys(row.name for row in rows)
    return {name: [row for row in rows if row.name == name] for name in names}


def measured_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without those that failed."""
    return [row for row in rows if not row.failed]


def metric_names(rows: Sequence[Row]) -> list[str]:
    """Return the names of the metrics that any row has."""
    return list(dict.fromkeys(name for row in rows for name in row.scores))


def markdown(headings: Sequence[str], lines: Mapping[str, Sequence[str]]) -> str:
    """Return a Markdown table. Each line begins with its name; one that is too short is filled up."""
    filled = [[name, *cells, *[""] * (len(headings) - 1 - len(cells))] for name, cells in lines.items()]
    texts = [f"| {' | '.join(cells)} |" for cells in (headings, *filled)]
    return "\n".join([texts[0], "|---" * len(headings) + "|", *texts[1:]]) + "\n"


def mean_cells(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Return the means over rows of the numbers of columns; empty where no row has a number."""
    cells = []
    for column in columns:
        values = [row.numbers[column.number] for row in rows if column.number in row.numbers]
        cells.append(column.form(mean(values)) if values else "")
    return cells


def draw(names: Sequence[str], intervals: Panel, bars: Panel, path: Path, signed: bool = False) -> None:
    """Draw numbers of variants with their intervals, and other numbers as bars beside them (`variant_chart`).

    path: of a .png, .svg or .pdf file. BenchError if there is no variant.
    """
    from seq2attn.views.pictures import save
    from seq2attn.views.variant_chart import variant_chart

    if not names:
        raise BenchError("no variant was trained to its end, so there is nothing to draw")
    save(variant_chart(names, intervals, bars, signed), path)


# ---- names -------------------------------------------------------------------------------------------


def display_name(part: Any, key: str = "name") -> str:
    """Return the name of a part, with its options in brackets."""
    if isinstance(part, dict):
        options = ", ".join(f"{name} {value}" for name, value in part.items() if name != key)
        return f"{part.get(key)} ({options})" if options else str(part.get(key))
    return str(part)


def inline_yaml(part: Any) -> str:
    """Return a part as YAML in one line, for an override."""
    return yaml.safe_dump(part, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _file_name(variant: str) -> str:
    return "".join(char if char.isalnum() or char in "._-" else "_" for char in variant)


def _sibling(folder: Path, suffix: str) -> Path:
    """Return the path of a file beside a run's folder. The folder's name may contain dots."""
    return folder.with_name(f"{folder.name}.{suffix}")
