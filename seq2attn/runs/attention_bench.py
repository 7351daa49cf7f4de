"""Attentions side by side: one recipe, one budget, a row for each.

Every variant is trained in a process of its own, so that its peak memory is its own and its failure is a row.
What is done stays done: a second call goes on where the first stopped.
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

Say = Callable[[str], None]


class BenchError(Seq2attnError):
    """A comparison that cannot be made."""


class Variant(NamedTuple):
    """What one row changes in the recipe."""

    name: str
    overrides: tuple[str, ...]


@dataclass
class Row:
    """What was measured of one variant with one seed."""

    name: str
    seed: int
    overrides: list[str]
    failed: str = ""  # the reason, if it did
    scores: dict[str, list[float]] = field(default_factory=dict)  # value and interval by metric
    perplexity: float | None = None  # per piece, on the dev set
    error_rate: float | None = None  # of word alignments, where gold ones are given
    entropy: float | None = None  # of a target piece's weights, in nats
    zeros: float | None = None  # share of the weights that are exactly 0
    training_speed: float | None = None  # target pieces a second
    decoding_speed: float | None = None  # target pieces a second
    memory: int | None = None  # bytes at the peak of training
    parameters: int | None = None
    updates: int | None = None


def variants(
    recipe: AnyRecipe, scorers: Sequence[Any] = (), normalizers: Sequence[Any] = (), also: Iterable[str] = ()
) -> list[Variant]:
    """Every scorer with every normalizer (the recipe's own if none is given), and overrides of one's own.

    Scorers and normalizers are names, or mappings with their options; `also` are overrides, several of a
    variant separated by blanks, and quoted as in a shell where they have blanks.
    """
    place, found = recipe.attention_path, []
    if place is None:
        raise BenchError(f"the recipe {recipe.name} has no attention to vary")
    for scorer in scorers or [None]:
        for normalizer in normalizers or [None]:
            parts = {"score": scorer, "normalize": normalizer}
            chosen = {key: part for key, part in parts.items() if part is not None}
            name = " + ".join(_short(part) for part in chosen.values()) or "as it is"
            overrides = tuple(f"{place}.{key}={_flow(part)}" for key, part in chosen.items())
            found.append(Variant(name, overrides))
    own = [Variant(text, tuple(shlex.split(text))) for text in also]
    return found[1:] + own if own and found[0].name == "as it is" and not scorers else found + own


def compare(
    recipe: str | Path,
    some: Sequence[Variant],
    out: Path,
    seeds: int = 1,
    budget: float | None = None,
    gold: Path | None = None,
    overrides: Sequence[str] = (),
    say: Say = print,
) -> list[Row]:
    """Train and measure each variant with each seed; rows are kept in `out` as they come. A variant whose
    recipe has a fault is not trained; all faults are said before the first training.

    budget: minutes of training for each (the recipe's own end if None); gold: alignments of the test set's
    words, one line a pair (`0-0 1?2`); overrides: for all variants.
    """
    out.mkdir(parents=True, exist_ok=True)
    drawn = [parse_gold(line) for line in gold.read_text(encoding="utf-8").splitlines()] if gold else None
    limit = [] if budget is None else [f"training.max_minutes={float(budget)}"]
    rows = []
    faults = {variant: _fault(recipe, [*overrides, *variant.overrides, *limit]) for variant in some}
    for variant, fault in faults.items():
        if fault:
            say(f"{variant.name}: {fault}")
    for variant, fault in faults.items():
        for seed in range(1, seeds + 1):
            changed = [*overrides, *variant.overrides, *limit, f"seed={seed}"]
            row = Row(variant.name, seed, changed, failed=fault)
            folder = out / f"{_file(variant.name)}-{seed}"
            known = _known(_beside(folder, "json"), row)
            if known is None:
                if not fault:
                    say(f"{variant.name}, seed {seed}")
                    _run(recipe, row, folder, drawn)
                text = json.dumps(asdict(row), indent=2, ensure_ascii=False)
                write(_beside(folder, "json"), f"{text}\n".encode())
            rows.append(known or row)
            if rows[-1].failed and not fault:
                say(f"{variant.name}, seed {seed}: {rows[-1].failed}")
    return rows


def _known(path: Path, row: Row) -> Row | None:
    """What an earlier call measured of the same variant; failures are tried again, and so is what cannot be
    read, be it damaged or of another version."""
    try:
        known = Row(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return known if known.overrides == row.overrides and not known.failed else None


def _run(recipe: str | Path, row: Row, folder: Path, gold: list[Gold] | None) -> None:
    """Train in a process of its own, then measure; what goes wrong becomes the row's reason."""
    try:
        row.memory = _train(recipe, row.overrides, folder)
        measure(row, folder, gold)
    except (Seq2attnError, RuntimeError, OSError) as error:
        row.failed = _reason(error)


def _fault(recipe: str | Path, overrides: Sequence[str]) -> str:
    """What is wrong with a variant's recipe; nothing, if that is empty."""
    try:
        read(recipe, overrides)
    except Seq2attnError as error:
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    """An error in one line, as a table can hold it."""
    return "; ".join(str(error).replace("|", "/").splitlines())


def _train(recipe: str | Path, overrides: Sequence[str], folder: Path) -> int:
    """The peak memory of a training in bytes. Goes on with a training that was stopped."""
    command = [sys.executable, "-m", "seq2attn", "train", str(recipe), *overrides, "--run", str(folder)]
    command += ["--resume"] if folder.exists() else []
    with _beside(folder, "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = _beside(folder, "log").read_text(encoding="utf-8").strip().splitlines()
        raise BenchError(lines[-1] if lines else f"training ended with status {process.returncode}")
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def measure(row: Row, folder: Path, gold: list[Gold] | None = None) -> None:
    """Put what a trained run is like into its row; entropy and zeros are on reference targets."""
    task, predictor = load_with_task(folder)
    recipe = task.recipe
    examples = held_out(task, "test" if recipe.data.test is not None else "dev")
    sources = [examples.source_text(number) for number in range(len(examples))]
    targets = [examples.target_text(number) for number in range(len(examples))]
    row.parameters = sum(parameter.numel() for parameter in predictor.model.parameters())
    row.updates, row.training_speed, row.perplexity = _from_log(folder / "log.jsonl")
    begun = time.perf_counter()
    texts = [str(result) for result in predictor.stream(sources)]
    row.decoding_speed = predictor.num_targets(texts) / (time.perf_counter() - begun)
    metrics = [name for name in recipe.training.metrics if not METRICS[name].slow]
    for score in task.evaluate(predictor, examples, metrics).scores.values():
        bounds = [score.value if bound is None else bound for bound in (score.low, score.high)]
        row.scores[score.name] = [score.value, *bounds]
    row.entropy, row.zeros = _spread(predictor.attention_weights(sources, targets))
    corpus = recipe.data.test or recipe.data.dev
    if gold is None and isinstance(corpus, TaskCorpus):
        gold = [_by_construction(corpus.task, source) for source in sources]
    if gold is None or not predictor.aligns:
        return
    if len(gold) != len(sources):
        raise BenchError(f"expected gold alignments of the {len(sources)} test pairs, got {len(gold)} lines")
    links = [predictor.links(*pair) for pair in zip(sources, targets, strict=True)]
    row.error_rate = error_rate(links, gold)


def _by_construction(task: str, source: str) -> Gold:
    """The alignment of a made pair."""
    links = frozenset(Link(place, number) for number, place in enumerate(known_alignment(task, source)))
    return Gold(links, links)


def _from_log(path: Path) -> tuple[int, float | None, float | None]:
    """Updates, the usual number of target pieces a second and the best perplexity, where they were logged."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [record for record in records if "tokens" in record]
    speeds = [
        (after["tokens"] - before["tokens"]) / (after["seconds"] - before["seconds"])
        for before, after in pairwise(steps)
    ]
    perplexities = [record["perplexity"] for record in records if "perplexity" in record]
    speeds = speeds or [record["tokens"] / record["seconds"] for record in steps]
    updates = max((record.get("step", 0) for record in records), default=0)
    return updates, median(speeds) if speeds else None, min(perplexities, default=None)


def _spread(rows: Sequence[torch.Tensor]) -> tuple[float | None, float | None]:
    """Mean entropy of what a step looks at, and the share of exact zeros; None without attention."""
    if not rows:
        return None, None
    entropies = torch.cat([torch.special.entr(weights.clamp(min=0)).sum(-1) for weights in rows])
    zeros = sum(int((weights == 0).sum()) for weights in rows) / sum(weights.numel() for weights in rows)
    return float(entropies.mean()), zeros


# ---- what comes out ----------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, seeds averaged; scores with their interval or, over seeds, with their range."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.scores))
    heads = ["attention", *metrics, "perplexity", "AER", "entropy", "zeros", "training", "decoding", "memory"]
    lines = [f"| {' | '.join([*heads, 'parameters', 'updates'])} |", "|---" * (len(heads) + 2) + "|"]
    for name in dict.fromkeys(row.name for row in rows):
        some = [row for row in rows if row.name == name]
        done = [row for row in some if not row.failed]
        if not done:
            lines.append(f"| {name} | {some[0].failed} |" + " |" * len(heads))
            continue
        cells = [name, *(_interval([row.scores[metric] for row in done]) for metric in metrics)]
        cells += [
            _cell(done, "perplexity", "{:.2f}"),
            _cell(done, "error_rate", "{:.3f}"),
            _cell(done, "entropy", "{:.2f}"),
            _cell(done, "zeros", "{:.0%}"),
            _cell(done, "training_speed", "{:,.0f}/s"),
            _cell(done, "decoding_speed", "{:,.0f}/s"),
            _cell(done, "memory", "{:,.0f} MB", 1e-6),
            _cell(done, "parameters", "{:,.0f}"),
            _cell(done, "updates", "{:,.0f}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(rows: Sequence[Row], path: Path) -> None:
    """The first metric of each variant with its interval, and its speed in training: .png, .svg or .pdf."""
    from matplotlib.figure import Figure

    done = [row for row in rows if not row.failed]
    if not done:
        raise BenchError("no variant was trained to its end, so there is nothing to draw")
    metric = next(iter(done[0].scores))
    names = list(dict.fromkeys(row.name for row in done))
    places = np.arange(len(names))
    scores = np.array([_mean([row.scores[metric] for row in done if row.name == name]) for name in names])
    speeds = [mean(row.training_speed or 0.0 for row in done if row.name == name) for name in names]
    drawn = Figure(figsize=(9, 1 + 0.32 * len(names)), dpi=120, layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    spread = np.abs(scores[:, 1:].T - scores[:, 0])
    left.errorbar(scores[:, 0], places, xerr=spread, fmt="o", color="#23589a", capsize=2)
    left.set_yticks(places, names)
    left.invert_yaxis()
    left.set_xlabel(metric)
    left.grid(axis="x", color="#dddddd")
    right.barh(places, speeds, color="#7fceea")
    right.set_xlabel("target pieces a second in training")
    drawn.savefig(path)


def _interval(values: Sequence[Sequence[float]]) -> str:
    value, low, high = (round(bound, 1) + 0.0 for bound in _mean(values))  # no -0.0
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _mean(values: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """The value with its interval; of several seeds their mean and range."""
    if len(values) == 1:
        value, low, high = values[0]
        return value, low, high
    every = [value[0] for value in values]
    return mean(every), min(every), max(every)


def _cell(rows: Sequence[Row], name: str, form: str, factor: float = 1.0) -> str:
    values = [getattr(row, name) for row in rows if getattr(row, name) is not None]
    return form.format(factor * mean(values)) if values else ""


def _short(part: Any) -> str:
    if isinstance(part, dict):
        options = ", ".join(f"{key} {value}" for key, value in part.items() if key != "name")
        return f"{part.get('name')} ({options})" if options else str(part.get("name"))
    return str(part)


def _flow(part: Any) -> str:
    return yaml.safe_dump(part, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _file(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in name)


def _beside(folder: Path, ending: str) -> Path:
    """A file beside a run's folder, whose name may have dots in it."""
    return folder.with_name(f"{folder.name}.{ending}")
