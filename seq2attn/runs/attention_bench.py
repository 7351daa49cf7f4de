"""Comparison of attentions: train variants of a recipe with the same budget, and report a row for each.

Each variant is trained in a separate process, so that its peak memory can be measured, and a failure is a row
of the table like any other. Finished rows are kept: a second call continues where the first stopped.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from seq2attn.alignment.word_alignment import Gold, Link, error_rate, parse_gold
from seq2attn.data import known_alignment
from seq2attn.errors import Seq2attnError
from seq2attn.metrics import METRICS
from seq2attn.recipe import AnyRecipe, TaskCorpus, read
from seq2attn.runs.evaluation import held_out
from seq2attn.runtime.files import write
from seq2attn.tasks.loading import load_with_task


class BenchError(Seq2attnError):
    """The comparison cannot be made, or the training of a variant failed."""


class Variant(NamedTuple):
    """A variant of a recipe: the overrides that make it, and a name for the table."""

    name: str
    overrides: tuple[str, ...]


@dataclass
class Row:
    """The measurements of a variant with one seed."""

    name: str
    seed: int
    overrides: list[str]
    failed: str = ""  # the reason; empty if the variant was trained and measured
    scores: dict[str, list[float]] = field(default_factory=dict)  # value, low and high by metric
    perplexity: float | None = None  # per piece, on the dev set
    error_rate: float | None = None  # of word alignments, if there are gold alignments
    entropy: float | None = None  # of the weights of a target piece, in nats
    zeros: float | None = None  # share of the weights that are exactly 0
    training_speed: float | None = None  # target pieces per second
    decoding_speed: float | None = None  # target pieces per second
    memory: int | None = None  # bytes at the peak of training
    parameters: int | None = None
    updates: int | None = None


def variants(
    recipe: AnyRecipe, scorers: Sequence[Any] = (), normalizers: Sequence[Any] = (), also: Iterable[str] = ()
) -> list[Variant]:
    """Return a variant for every scorer with every normalizer, and for every entry of `also`.

    scorers, normalizers: names, or mappings with options; if empty, the recipe's own;
    also: overrides of a variant, separated by spaces, quoted as in a shell if they contain spaces.
    """
    path = recipe.attention_path
    if path is None:
        raise BenchError(f"the recipe {recipe.name} has no attention to vary")
    others = [Variant(text, tuple(shlex.split(text))) for text in also]
    if others and not scorers and not normalizers:
        return others
    combinations = []
    for scorer in scorers or [None]:
        for normalizer in normalizers or [None]:
            parts = {"score": scorer, "normalize": normalizer}
            changed = {key: part for key, part in parts.items() if part is not None}
            name = " + ".join(_display_name(part) for part in changed.values()) or "as it is"
            overrides = tuple(f"{path}.{key}={_inline_yaml(part)}" for key, part in changed.items())
            combinations.append(Variant(name, overrides))
    return combinations + others


def compare(
    recipe: str | Path,
    compared: Sequence[Variant],
    out: Path,
    seeds: int = 1,
    budget: float | None = None,
    gold: Path | None = None,
    overrides: Sequence[str] = (),
    report: Callable[[str], None] = print,
) -> list[Row]:
    """Train and measure each variant with each seed. Rows are written to `out` as soon as they are finished.

    A variant whose recipe has a fault is not trained; all faults are reported before the first training.

    budget: minutes of training for each; if None, the recipe's limits hold;
    gold: a file of word alignments of the test set, one pair per line (`0-0 1?2`);
    overrides: of all variants.
    """
    out.mkdir(parents=True, exist_ok=True)
    alignments = None
    if gold is not None:
        alignments = [parse_gold(line) for line in gold.read_text(encoding="utf-8").splitlines()]
    limit = [] if budget is None else [f"training.max_minutes={float(budget)}"]
    faults = {variant: _fault(recipe, [*overrides, *variant.overrides, *limit]) for variant in compared}
    for variant, fault in faults.items():
        if fault:
            report(f"{variant.name}: {fault}")
    rows = []
    for variant, fault in faults.items():
        for seed in range(1, seeds + 1):
            all_overrides = [*overrides, *variant.overrides, *limit, f"seed={seed}"]
            row = Row(variant.name, seed, all_overrides, failed=fault)
            folder = out / f"{_file_name(variant.name)}-{seed}"
            finished = _finished_row(_sibling(folder, "json"), row)
            if finished is None:
                if not fault:
                    report(f"{variant.name}, seed {seed}")
                    _train_and_measure(recipe, row, folder, alignments)
                text = json.dumps(asdict(row), indent=2, ensure_ascii=False)
                write(_sibling(folder, "json"), f"{text}\n".encode())
            rows.append(finished or row)
            if rows[-1].failed and not fault:
                report(f"{variant.name}, seed {seed}: {rows[-1].failed}")
    return rows


def _finished_row(path: Path, row: Row) -> Row | None:
    """Return the row of an earlier call with the same overrides, if there is one.

    None if it failed, or if its file is damaged or of another version: the variant is then trained again.
    """
    try:
        earlier = Row(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return earlier if earlier.overrides == row.overrides and not earlier.failed else None


def _train_and_measure(recipe: str | Path, row: Row, folder: Path, gold: list[Gold] | None) -> None:
    """Train a variant, and write its measurements, or the reason of its failure, to the row."""
    try:
        row.memory = _train(recipe, row.overrides, folder)
        measure(row, folder, gold)
    except (Seq2attnError, RuntimeError, OSError) as error:
        row.failed = _one_line(error)


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


def measure(row: Row, folder: Path, gold: list[Gold] | None = None) -> None:
    """Write the measurements of a trained run to its row. Entropy and zeros are of reference targets.

    gold: word alignments of the test set; None: those of a synthetic data set are known.
    """
    task, predictor = load_with_task(folder)
    recipe = task.recipe
    examples = held_out(task, "test" if recipe.data.test is not None else "dev")
    sources = list(task.inputs(examples, range(len(examples))))
    targets = [examples.target_text(index) for index in range(len(examples))]
    row.parameters = sum(parameter.numel() for parameter in predictor.model.parameters())
    log = _read_log(folder / "log.jsonl")
    row.updates, row.training_speed, row.perplexity = log.updates, log.speed, log.perplexity
    start = time.perf_counter()
    texts = [task.scored_text(result) for result in predictor.stream(sources)]
    row.decoding_speed = predictor.num_targets(texts) / (time.perf_counter() - start)
    metrics = [name for name in recipe.training.metrics if not METRICS[name].slow]
    for score in task.evaluate(predictor, examples, metrics).scores.values():
        interval = [score.value if bound is None else bound for bound in (score.low, score.high)]
        row.scores[score.name] = [score.value, *interval]
    if weights := predictor.attention_weights(sources, targets):
        row.entropy, row.zeros = _mean_entropy(weights), _share_of_zeros(weights)
    corpus = recipe.data.test or recipe.data.dev
    if gold is None and isinstance(corpus, TaskCorpus):
        gold = [_known_gold(corpus.task, source) for source in sources]
    if gold is None or not predictor.aligns:
        return
    if len(gold) != len(sources):
        raise BenchError(f"expected gold alignments of the {len(sources)} test pairs, got {len(gold)} lines")
    links = [predictor.links(*pair) for pair in zip(sources, targets, strict=True)]
    row.error_rate = error_rate(links, gold)


def _known_gold(task: str, source: str) -> Gold:
    """Return the alignment of a pair of a synthetic data set."""
    positions = known_alignment(task, source)
    links = frozenset(Link(position, index) for index, position in enumerate(positions))
    return Gold(links, links)


class _TrainingLog(NamedTuple):
    """Numbers from the log of a training; None if they were not logged."""

    updates: int
    speed: float | None  # target tokens per second, the median
    perplexity: float | None  # the best one on the dev set


def _read_log(path: Path) -> _TrainingLog:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [record for record in records if "tokens" in record]
    speeds = [
        (after["tokens"] - before["tokens"]) / (after["seconds"] - before["seconds"])
        for before, after in pairwise(steps)
    ]
    perplexities = [record["perplexity"] for record in records if "perplexity" in record]
    speeds = speeds or [record["tokens"] / record["seconds"] for record in steps]
    updates = max((record.get("step", 0) for record in records), default=0)
    return _TrainingLog(updates, median(speeds) if speeds else None, min(perplexities, default=None))


def _mean_entropy(weights: Sequence[torch.Tensor]) -> float:
    """Return the mean entropy of the rows of weights, one matrix (T, S) for each pair, in nats."""
    entropies = torch.cat([torch.special.entr(matrix.clamp(min=0)).sum(-1) for matrix in weights])
    return float(entropies.mean())


def _share_of_zeros(weights: Sequence[torch.Tensor]) -> float:
    zeros = sum(int((matrix == 0).sum()) for matrix in weights)
    return zeros / sum(matrix.numel() for matrix in weights)


# ---- table and figure --------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table with a line per variant: the mean over its seeds.

    Scores have their confidence interval or, with more than one seed, their range.
    """
    metrics = list(dict.fromkeys(name for row in rows for name in row.scores))
    headings = ["attention", *metrics, "perplexity", "AER", "entropy", "zeros"]
    headings += ["training", "decoding", "memory", "parameters", "updates"]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for name in dict.fromkeys(row.name for row in rows):
        of_variant = [row for row in rows if row.name == name]
        measured = [row for row in of_variant if not row.failed]
        if not measured:
            lines.append(f"| {name} | {of_variant[0].failed} |" + " |" * (len(headings) - 2))
            continue
        cells = [name, *(_score_cell([row.scores[metric] for row in measured]) for metric in metrics)]
        cells += [
            _cell(measured, "perplexity", "{:.2f}"),
            _cell(measured, "error_rate", "{:.3f}"),
            _cell(measured, "entropy", "{:.2f}"),
            _cell(measured, "zeros", "{:.0%}"),
            _cell(measured, "training_speed", "{:,.0f}/s"),
            _cell(measured, "decoding_speed", "{:,.0f}/s"),
            _cell(measured, "memory", "{:,.0f} MB", 1e-6),
            _cell(measured, "parameters", "{:,.0f}"),
            _cell(measured, "updates", "{:,.0f}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(rows: Sequence[Row], path: Path) -> None:
    """Draw the first metric of each variant with its interval, and its speed in training.

    path: of a .png, .svg or .pdf file.
    """
    from matplotlib.figure import Figure

    measured = [row for row in rows if not row.failed]
    if not measured:
        raise BenchError("no variant was trained to its end, so there is nothing to draw")
    metric = next(iter(measured[0].scores))
    names = list(dict.fromkeys(row.name for row in measured))
    heights = np.arange(len(names))
    intervals = [
        _value_and_interval([row.scores[metric] for row in measured if row.name == name]) for name in names
    ]
    scores = np.array(intervals)  # (variants, 3): value, low, high
    speeds = [mean(row.training_speed or 0.0 for row in measured if row.name == name) for name in names]
    canvas = Figure(figsize=(9, 1 + 0.32 * len(names)), dpi=120, layout="constrained")
    left, right = canvas.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    errors = np.abs(scores[:, 1:].T - scores[:, 0])
    left.errorbar(scores[:, 0], heights, xerr=errors, fmt="o", color="#23589a", capsize=2)
    left.set_yticks(heights, names)
    left.invert_yaxis()
    left.set_xlabel(metric)
    left.grid(axis="x", color="#dddddd")
    right.barh(heights, speeds, color="#7fceea")
    right.set_xlabel("target pieces per second in training")
    canvas.savefig(path)


def _score_cell(scores: Sequence[Sequence[float]]) -> str:
    value, low, high = (round(number, 1) + 0.0 for number in _value_and_interval(scores))  # no -0.0
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _value_and_interval(scores: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Return value, low and high of a score; of more than one seed, the mean, minimum and maximum."""
    if len(scores) == 1:
        value, low, high = scores[0]
        return value, low, high
    values = [score[0] for score in scores]
    return mean(values), min(values), max(values)


def _cell(rows: Sequence[Row], name: str, form: str, factor: float = 1.0) -> str:
    values = [getattr(row, name) for row in rows if getattr(row, name) is not None]
    return form.format(factor * mean(values)) if values else ""


def _display_name(part: Any) -> str:
    """Return the name of a scorer or normalizer, with its options in brackets."""
    if isinstance(part, dict):
        options = ", ".join(f"{key} {value}" for key, value in part.items() if key != "name")
        return f"{part.get('name')} ({options})" if options else str(part.get("name"))
    return str(part)


def _inline_yaml(part: Any) -> str:
    return yaml.safe_dump(part, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _file_name(variant: str) -> str:
    return "".join(char if char.isalnum() or char in "._-" else "_" for char in variant)


def _sibling(folder: Path, suffix: str) -> Path:
    """Return the path of a file beside a run's folder. The folder's name may contain dots."""
    return folder.with_name(f"{folder.name}.{suffix}")
