"""Comparison of attention blocks for images: each in the place of a recipe's blocks, beside none.

Differences between blocks are often smaller than those between seeds. So each block is trained with several
seeds, and compared with the network without blocks seed by seed: data, their order and their augmentation
are then the same.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from seq2attn.metrics.paired import Difference, paired_difference
from seq2attn.recipe import AnyRecipe
from seq2attn.runs.comparison import (
    BenchError,
    Column,
    Measured,
    Row,
    TrainedRun,
    Variant,
    by_variant,
    display_name,
    draw,
    inline_yaml,
    markdown,
    mean_cells,
    measured_rows,
    metric_names,
)
from seq2attn.runs.comparison import compare as compare_variants
from seq2attn.views.variant_chart import Panel

NONE = "none"  # the variant without blocks
TRAINING = "training_speed"  # images a second; a training of few updates has none

COLUMNS = (
    Column(TRAINING, "training", lambda speed: f"{1000 / speed:.2f} ms"),  # an image
    Column("decoding_speed", "inference", lambda speed: f"{1000 / speed:.2f} ms"),
    Column("memory", "memory", lambda size: f"{1e-6 * size:,.0f} MB"),  # at the peak of training
    Column("parameters", "parameters", "{:,.0f}".format),
    Column("updates", "updates", "{:,.0f}".format),
)


def variants(recipe: AnyRecipe, blocks: Sequence[Any], at: str | None = None) -> list[Variant]:
    """Return the variant without blocks, and one for each block, in the place of the recipe's blocks.

    blocks: names, or mappings as in a recipe ({"block": "se", "ratio": 8, "stages": [2]});
    at: where blocks stand that do not say it themselves; None: at their own places.
    """
    path = recipe.blocks_path
    if path is None:
        raise BenchError(
            f"the network of the recipe {recipe.name} has no places for blocks (key blocks). If it is a "
            "graph, train it with several seeds as it is, and with blocks by model.backbone.insert; then "
            "compare the runs (docs/compare.md)"
        )
    sections = [block if isinstance(block, Mapping) else {"block": block} for block in blocks]
    placed = [section if at is None or "at" in section else {**section, "at": at} for section in sections]
    named = {_name(section): section for section in placed if section != {"block": NONE}}
    others = [Variant(name, (f"{path}={inline_yaml([section])}",)) for name, section in named.items()]
    return [Variant(NONE, (f"{path}=[]",)), *others]


def _name(section: Mapping[str, Any]) -> str:
    """Return the name of a block with its options: se (ratio 8)."""
    options = {key: value for key, value in section.items() if key != "block"}
    block = section["block"]
    return display_name({**(block if isinstance(block, Mapping) else {"name": block}), **options})


def compare(
    recipe: str | Path,
    compared: Sequence[Variant],
    out: Path,
    seeds: int = 3,
    budget: float | None = None,
    overrides: Sequence[str] = (),
    report: Callable[[str], None] = print,
) -> list[Row]:
    """Train and measure each variant with each seed: see `comparison.compare`."""
    return compare_variants(recipe, compared, out, measure, seeds, budget, overrides, report)


def measure(folder: Path) -> Measured:
    """Return the measurements of a trained run."""
    return TrainedRun.load(folder).measure(folder)


def differences(rows: Sequence[Row], metric: str) -> dict[str, Difference]:
    """Return by how much a metric is better with each block than without, paired by seed.

    Variants without a seed that both have are left out, as is the one without blocks.
    """
    values = {
        name: {row.seed: row.scores[metric][0] for row in own if metric in row.scores}
        for name, own in by_variant(measured_rows(rows)).items()
    }
    without = values.pop(NONE, {})
    found = dict[str, Difference]()
    for name, by_seed in values.items():
        if seeds := sorted(by_seed.keys() & without.keys()):
            pairs = ([scores[seed] for seed in seeds] for scores in (by_seed, without))
            found[name] = paired_difference(*pairs)
    return found


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return mean, standard deviation and difference of each variant and metric, for json.dumps."""
    lines = list[dict[str, Any]]()
    for metric in metric_names(rows):
        found = differences(rows, metric)
        for name, own in by_variant(measured_rows(rows)).items():
            values = [row.scores[metric][0] for row in own]
            line = {"name": name, "metric": metric, "mean": mean(values), "seeds": len(values)}
            line["deviation"] = stdev(values) if len(values) > 1 else None
            line["difference"] = found[name]._asdict() if name in found else None
            lines.append(line)
    return lines


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table with a line per variant: mean and standard deviation over its seeds, and the
    difference to the variant without blocks with its 95 % interval."""
    metrics, lines = metric_names(rows), dict[str, list[str]]()
    found = {metric: differences(rows, metric) for metric in metrics}
    for name, own in by_variant(rows).items():
        measured = measured_rows(own)
        cells = list[str]()
        for metric in metrics:
            cells.append(_mean_cell([row.scores[metric][0] for row in measured]))
            cells.append(_difference_cell(found[metric].get(name)))
        lines[name] = [str(len(measured)), *cells, *mean_cells(measured, COLUMNS)]
        if not measured:
            lines[name] = ["0", own[0].failed]
    headings = [heading for metric in metrics for heading in (metric, f"to {NONE}")]
    return markdown(["block", "seeds", *headings, *(column.heading for column in COLUMNS)], lines)


def _mean_cell(values: Sequence[float]) -> str:
    """Return mean and standard deviation; of a single value, the value."""
    if not values:
        return ""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _difference_cell(difference: Difference | None) -> str:
    if difference is None:
        return ""
    value, low, high, _ = difference
    return f"{value:+.2f}" if low is None or high is None else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def figure(rows: Sequence[Row], path: Path) -> None:
    """Draw the difference of each block to none in the first metric, and the time of an image in training.

    path: of a .png, .svg or .pdf file. Where there is no difference, because the training without blocks of
    the same seed failed, there is only the time.
    """
    measured = by_variant(measured_rows(rows))
    metric = next(iter(metric_names(rows)), "")
    found, intervals = differences(rows, metric), list[list[float]]()
    for name in measured:
        value, low, high, _ = found.get(name, Difference(0.0 if name == NONE else math.nan, None, None, 0))
        intervals.append([value, value if low is None else low, value if high is None else high])
    speeds = [[row.numbers[TRAINING] for row in own if TRAINING in row.numbers] for own in measured.values()]
    times = [1000 / mean(own) if own else math.nan for own in speeds]
    label = f"{metric}, difference to no blocks, 95 % interval"
    bars = Panel("ms an image in training", np.array(times))
    draw(list(measured), Panel(label, np.array(intervals)), bars, path, signed=True)
