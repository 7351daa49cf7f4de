"""Comparison of attentions: variants of a recipe with other scorers and normalizers, measured."""

import math
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from seq2attn.alignment.word_alignment import Gold, Link, error_rate
from seq2attn.data import known_alignment
from seq2attn.errors import for_caller
from seq2attn.inference.faithfulness import RANDOM, Faithfulness, faithfulness
from seq2attn.inference.translator import TextPredictor
from seq2attn.metrics.alignments import GoldFile
from seq2attn.recipe import AnyRecipe, TaskCorpus
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

FAITHFUL = ("attention", "occlusion")  # whose faithfulness is measured, beside orders at random
SOURCES = 100  # of the test set that it is measured on

COLUMNS = (
    Column("perplexity", "perplexity", "{:.2f}".format),  # per piece, on the dev set
    Column("aer", "AER", "{:.1f}".format),  # of word alignments, in percent, if there are gold alignments
    Column("entropy", "entropy", "{:.2f}".format),  # of the weights of a target piece, in nats
    Column("zeros", "zeros", "{:.0%}".format),  # share of the weights that are exactly 0
    Column("training_speed", "training", "{:,.0f}/s".format),  # target pieces
    Column("decoding_speed", "decoding", "{:,.0f}/s".format),
    Column("memory", "memory", lambda size: f"{1e-6 * size:,.0f} MB"),  # at the peak of training
    Column("parameters", "parameters", "{:,.0f}".format),
    Column("updates", "updates", "{:,.0f}".format),
)
FAITHFUL_COLUMNS = (  # of rows that have them; of the model's tokens, in nats (inference.faithfulness)
    *(
        Column(f"{measure}_{method}", f"{measure}, {method}", "{:.2f}".format)
        for measure in Faithfulness._fields
        for method in (*FAITHFUL, RANDOM)
    ),
    Column("tau", "tau of attention and occlusion", "{:.2f}".format),
)


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
            name = " + ".join(display_name(part) for part in changed.values()) or "as it is"
            overrides = tuple(f"{path}.{key}={inline_yaml(part)}" for key, part in changed.items())
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
    faithful: bool = False,
) -> list[Row]:
    """Train and measure each variant with each seed: see `comparison.compare`.

    gold: a file of word alignments of the test set, one pair per line (`0-0 1?2`);
    faithful: also measure whether the model needs the words that attention names.
    """
    alignments = None
    if gold is not None:
        alignments = GoldFile.parse(gold.read_text(encoding="utf-8").splitlines(), str(gold))

    def measured(folder: Path) -> Measured:
        return measure(folder, alignments, faithful)

    needed = ("tau",) if faithful else ()
    return compare_variants(recipe, compared, out, measured, seeds, budget, overrides, report, needed)


def measure(folder: Path, gold: GoldFile | None = None, faithful: bool = False) -> Measured:
    """Return the measurements of a trained run. Entropy and zeros are of reference targets.

    gold: word alignments of the test set; None: those of a synthetic data set are known.
    """
    run = TrainedRun.load(folder)
    sources = list(run.task.inputs(run.examples, range(len(run.examples))))
    targets = [run.examples.target_text(index) for index in range(len(run.examples))]
    measured, data = run.measure(folder), run.task.recipe.data
    numbers = {**measured.numbers, **_of_weights(run.predictor.attention_weights(sources, targets))}
    if faithful:
        numbers |= _faithful(run.predictor, sources[:SOURCES])
    corpus, pairs = data.test or data.dev, list(zip(sources, targets, strict=True))
    known = None if gold is None else gold.of(pairs)
    if known is None and isinstance(corpus, TaskCorpus):
        known = [_known_gold(corpus.task, source) for source in sources]
    if known is None or not run.predictor.aligns:
        return measured._replace(numbers=numbers)
    links = [run.predictor.links(*pair) for pair in pairs]
    return measured._replace(numbers={**numbers, "aer": 100 * error_rate(links, known)})


def _faithful(predictor: object, sources: Sequence[str]) -> dict[str, float]:
    """Return the faithfulness of FAITHFUL methods. BenchError for models that write no text from text."""
    if not isinstance(predictor, TextPredictor):
        option = for_caller("--faithful", "faithful=True")
        raise BenchError(f"only models that write text from text have faithfulness: leave out {option}")
    found = faithfulness(predictor, sources, FAITHFUL)
    numbers = {
        f"{measure}_{method}": value
        for method, values in found.methods.items()
        for measure, value in values._asdict().items()
    }
    return {**numbers, "tau": found.agreement[FAITHFUL]}


def _known_gold(task: str, source: str) -> Gold:
    """Return the alignment of a pair of a synthetic data set."""
    positions = known_alignment(task, source)
    links = frozenset(Link(position, index) for index, position in enumerate(positions))
    return Gold(links, links)


def _of_weights(weights: Sequence[torch.Tensor]) -> dict[str, float]:
    """Return the mean entropy of the rows of weights, in nats, and the share of zeros.

    weights: a matrix (T, S) for each pair; if there are none, there is nothing to return.
    """
    if not weights:
        return {}
    entropies = torch.cat([torch.special.entr(matrix.clamp(min=0)).sum(-1) for matrix in weights])
    zeros = sum(int((matrix == 0).sum()) for matrix in weights)
    share = zeros / sum(matrix.numel() for matrix in weights)
    return {"entropy": float(entropies.mean()), "zeros": share}


# ---- table and figure --------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table with a line per variant: the mean over its seeds.

    Scores have their confidence interval or, with more than one seed, their range.
    """
    metrics, lines = metric_names(rows), dict[str, list[str]]()
    faithful = any("tau" in row.numbers for row in rows)
    columns = [*COLUMNS, *(FAITHFUL_COLUMNS if faithful else ())]
    for name, of_variant in by_variant(rows).items():
        measured = measured_rows(of_variant)
        scores = [_score_cell([row.scores[metric] for row in measured]) for metric in metrics if measured]
        lines[name] = [*scores, *mean_cells(measured, columns)] if measured else [of_variant[0].failed]
    return markdown(["attention", *metrics, *(column.heading for column in columns)], lines)


def figure(rows: Sequence[Row], path: Path) -> None:
    """Draw the first metric of each variant with its interval, and its speed in training.

    path: of a .png, .svg or .pdf file.
    """
    measured = by_variant(measured_rows(rows))
    metric = next(iter(metric_names(rows)), "")
    scores = [_value_and_interval([row.scores[metric] for row in own]) for own in measured.values()]
    speeds = [mean(row.numbers.get("training_speed", math.nan) for row in own) for own in measured.values()]
    bars = Panel("target pieces per second in training", np.array(speeds))
    several = max(map(len, measured.values()), default=0) > 1
    label = f"{metric}, {'least to greatest of the seeds' if several else '95 % interval'}"
    draw(list(measured), Panel(label, np.array(scores)), bars, path)


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
