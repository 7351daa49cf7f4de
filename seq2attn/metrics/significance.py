"""Do systems differ? Paired bootstrap and approximate randomization, of any metric of a corpus.

Both compare the outputs of systems for the same inputs. All that they ask of a metric is its value on a part
of the corpus (`Score.statistic`): the outputs of all runs, one run after another, are one corpus, and a part
of it is a resampled run, or two runs whose outputs are exchanged at random.

Letters: N inputs.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2attn.metrics.base import SEED, ScoringError, Statistic, check_bootstrap, interval
from seq2attn.metrics.registry import METRICS

SAMPLES, TRIALS = 1000, 10_000  # those of sacreBLEU
_AT_ONCE = 320  # trials whose exchanges are drawn together: a multiple of 32, the bits of a random number
_TIE = 1e-9  # values are percentages, and closer ones differ by rounding

Values = NDArray[np.float64]


class Resampling(NamedTuple):
    """How often, and from which seed, the tests draw."""

    samples: int = SAMPLES  # resampled corpora
    trials: int = TRIALS  # exchanges; 0 = no randomization test
    seed: int = SEED


class SystemValue(NamedTuple):
    """The value of a metric for a system: the mean over its runs."""

    value: float
    low: float | None  # of the 95 % interval; None without resampling
    high: float | None
    runs: tuple[float, ...]  # the value of each

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the runs; None of a single one."""
        return stdev(self.runs) if len(self.runs) > 1 else None


class SystemDifference(NamedTuple):
    """By how much a system exceeds the first one. The p-values are two-sided; None: not tested."""

    value: float
    low: float | None
    high: float | None
    p_bootstrap: float | None
    p_randomization: float | None


class Comparison(NamedTuple):
    """The values of systems by a metric, and the differences of all but the first from the first."""

    values: list[SystemValue]
    differences: list[SystemDifference]


def joint_statistic(metric: str, outputs: Sequence[Sequence[Any]], references: Any) -> Statistic:
    """Return the statistic of a metric on the outputs of several runs, one run after another.

    outputs: of each run, N of them; references: as the metric takes them for one run; lists by translator are
        `list`s. ScoringError if the metric has no value on a part of a corpus, as distances of whole sets.
    """
    if len({len(run) for run in outputs}) != 1:
        counts = ", ".join(str(len(run)) for run in outputs)
        raise ScoringError(f"expected as many outputs of each run, for the same inputs; got {counts}")
    times, entry = len(outputs), METRICS[metric]
    if not entry.shared_references:
        nested = len(references) > 0 and isinstance(references[0], list)
        references = [[*part] * times for part in references] if nested else [*references] * times
    found = entry([output for run in outputs for output in run], references, bootstrap=0)
    if found.statistic is None:
        raise ScoringError(
            f"{metric} has one value for a whole set, and none for parts of it, so that it cannot be "
            "resampled: choose another metric"
        )
    return found.statistic


def compare(
    statistic: Statistic, count: int, systems: Sequence[int], resampling: Resampling, part: Any = None
) -> Comparison:
    """Compare systems by a statistic of the outputs of all their runs, for `count` inputs each.

    systems: the number of runs of each, in the order of the outputs;
    part: the indices of the inputs that count; None: all.

    With one run each the test resamples inputs (Koehn 2004). With more it resamples runs, too, in each sample
    (Sellam et al. 2022, the multi-bootstrap): inputs alone leave out the variance of training. The interval
    is that of the percentiles, and the p-value of the bootstrap that of sacreBLEU: how often | d | - mean
    | d | of the resampled differences d is at least the difference. The randomization test exchanges the
    outputs of two runs for each input with probability 1/2 (Noreen 1989; Riezler and Maxwell 2005), and
    counts how often the difference is at least as large; with several runs there is none.
    """
    check_bootstrap(resampling.samples)
    rows = np.arange(count) if part is None else np.asarray(part)
    runs = _runs(systems)
    samples = resampling.samples if len(rows) > 1 else 0
    of_runs = [[statistic(rows + run * count) for run in own] for own in runs]
    drawn = _bootstrap(statistic, rows, count, runs, samples, resampling.seed)
    values = []
    for own, sampled in zip(of_runs, drawn, strict=True):
        low, high = _interval(sampled)
        values.append(SystemValue(fmean(own), low, high, tuple(own)))
    differences = []
    for number in range(1, len(systems)):
        difference = values[number].value - values[0].value
        sampled = drawn[number] - drawn[0]
        p_bootstrap = p_randomization = None
        if samples:
            sizes = np.abs(sampled)
            p_bootstrap = p_value(sizes - np.nanmean(sizes), abs(difference))
        if samples and resampling.trials and systems[0] == systems[number] == 1:
            pair = runs[0][0] * count, runs[number][0] * count
            exchanged = _randomized(statistic, rows, pair, resampling.trials, resampling.seed)
            p_randomization = p_value(exchanged, abs(difference))
        low, high = _interval(sampled)
        differences.append(SystemDifference(difference, low, high, p_bootstrap, p_randomization))
    return Comparison(values, differences)


def p_value(drawn: Values, observed: float) -> float:
    """Return how often drawn values are at least as large as the observed one, which counts itself.

    sacreBLEU does not count equal ones. Where none is equal the p-value is the same; where some are, as of
    two systems of the same output, or of metrics that count few sentences, its test rejects too often.
    """
    drawn = drawn[~np.isnan(drawn)]
    return float((np.count_nonzero(drawn >= observed - _TIE) + 1) / (len(drawn) + 1))


def _runs(systems: Sequence[int]) -> list[range]:
    """Return the indices of the runs of each system."""
    ends = np.cumsum(systems).tolist()
    return [range(end - count, end) for count, end in zip(systems, ends, strict=True)]


def _interval(sampled: Values) -> tuple[float, float] | tuple[None, None]:
    return interval(sampled) if len(sampled) else (None, None)


def _bootstrap(
    statistic: Statistic, rows: NDArray[np.int64], count: int, runs: Sequence[range], samples: int, seed: int
) -> Values:
    """Return the values of systems (systems, samples) on resampled inputs, the same for all, and runs."""
    of_inputs, of_runs = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    values = np.empty((len(runs), samples))
    for sample in range(samples):
        chosen = rows[of_inputs.integers(len(rows), size=len(rows))]
        for system, own in enumerate(runs):
            drawn = of_runs.choice(own, len(own)) if len(own) > 1 else np.array(own)
            different, times = np.unique(drawn, return_counts=True)
            of_each = [statistic(chosen + run * count) for run in different]
            values[system, sample] = np.average(of_each, weights=times)
    return values


def _randomized(
    statistic: Statistic, rows: NDArray[np.int64], pair: tuple[int, int], trials: int, seed: int
) -> Values:
    """Return the sizes of the differences (trials,) of two runs whose outputs are exchanged at random.

    pair: the index of the first output of each.
    """
    first, second = pair
    sizes = [
        abs(statistic(rows + np.where(kept, first, second)) - statistic(rows + np.where(kept, second, first)))
        for kept in _exchanges(len(rows), trials, seed)
    ]
    return np.array(sizes)


def _exchanges(count: int, trials: int, seed: int) -> Iterator[NDArray[np.bool_]]:
    """Yield for each trial whether the outputs of an input stay where they are. They are sacreBLEU's, which
    draws those of all trials at once."""
    generator = np.random.default_rng(seed)
    for start in range(0, trials, _AT_ONCE):
        size = min(_AT_ONCE, trials - start), count
        yield from generator.integers(2, size=size, dtype=bool)
