"""Common to all metrics: scores, lists of references, bootstrap confidence intervals."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seq2attn.errors import Seq2attnError

# A reference for each hypothesis; or lists of them, one for each translator, with None where one is missing.
References = Sequence[str] | Sequence[Sequence[str | None]]
Numbers = NDArray[np.int64]
Chosen = NDArray[np.int64]  # indices of the hypotheses in a resampled corpus, with repetitions
SEED = 12345  # that of sacreBLEU, so that its command line gives the same interval


class ScoringError(Seq2attnError):
    """Hypotheses and references that do not fit together, or an unknown metric."""


class UndefinedScoreError(ScoringError):
    """A metric has no value on these references, whatever the hypotheses: they lack what it measures, as
    small objects. A task leaves the metric out."""


@dataclass(frozen=True)
class Score:
    """The value of a metric on a corpus, with the signature that says how it was computed.

    It is a percentage (0 to 100), the higher the better; for metrics with `lower_is_better` 0 is best.

    `low` and `high` bound the 95 % confidence interval (None without bootstrap): the percentiles 2.5 and 97.5
    of the values of the resampled corpora (Efron 1979), which are always possible values of the metric.
    """

    name: str
    value: float
    signature: str
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{self.number} |{self.signature}|"

    @property
    def number(self) -> str:
        """Return the value and its interval as text, without the signature."""
        interval = "" if self.low is None else f" [{self.low:.1f}, {self.high:.1f}]"
        return f"{self.name} = {self.value:.1f}{interval}"

    def to_json(self) -> dict[str, str | float | None]:
        """Return the fields by name, ready for json.dumps."""
        return asdict(self)


def score_lines(scores: Iterable[tuple[str, Score]]) -> list[str]:
    """Return scores as lines of text, each after its label ("" = none). A signature that scores share comes
    last."""
    scores, names = list(scores), dict[str, list[str]]()
    for _, score in scores:
        names.setdefault(score.signature, []).append(score.name)
    return [
        *(
            f"{label}{': ' * bool(label)}{score.number if len(names[score.signature]) > 1 else score}"
            for label, score in scores
        ),
        *(
            f"{', '.join(dict.fromkeys(sharing))} |{signature}|"
            for signature, sharing in names.items()
            if len(sharing) > 1
        ),
    ]


class MetricFunction(Protocol):
    """A function that scores a whole corpus; `score` explains the parameters."""

    def __call__(
        self, hypotheses: Sequence[Any], references: Any, bootstrap: int = 1000, seed: int = SEED
    ) -> Score:
        """Return the score of the corpus."""


@dataclass(frozen=True)
class Metric:
    """An entry of METRICS: the function, what it is a metric of, and how its values are read.

    It is called like its function. measures: which tasks can use it: those whose outputs are texts, tags of
    words, or labels of texts.
    """

    function: MetricFunction
    measures: str
    lower_is_better: bool = False
    slow: bool = False  # minutes for a large corpus, where the others take seconds: not used in validation
    table: str = ""  # which of TABLES shows more of it

    def __post_init__(self) -> None:
        try:
            inspect.signature(self.function).bind([], [], 0, SEED)
        except TypeError as error:
            raise ScoringError(
                f"a metric is called as function(hypotheses, references, bootstrap, seed), and this function "
                f"does not allow it ({error})"
            ) from error

    def __call__(
        self, hypotheses: Sequence[Any], references: Any, bootstrap: int = 1000, seed: int = SEED
    ) -> Score:
        """Return the score of the corpus."""
        return self.function(hypotheses, references, bootstrap, seed)


def resampled(
    name: str,
    statistic: Callable[[Chosen], float],
    count: int,
    signature: Callable[[str], str],
    bootstrap: int,
    seed: int,
) -> Score:
    """Return a statistic of a corpus of `count` hypotheses, with its interval (`Score`).

    The corpora are resampled as in sacreBLEU, for the same seed.

    statistic: returns the value of a corpus, given the indices of its hypotheses, with repetitions.
    signature: returns the signature, given its part about resampling ("|bs:1000|seed:12345|ci:percentile",
        or "").
    """
    (value,) = resampled_together(
        [name],
        lambda chosen: [statistic(chosen)],
        count,
        lambda _, resampling: signature(resampling),
        bootstrap,
        seed,
    )
    return value


def resampled_together(
    names: Sequence[str],
    statistics: Callable[[Chosen], Sequence[float]],
    count: int,
    signature: Callable[[int, str], str],
    bootstrap: int,
    seed: int,
) -> list[Score]:
    """Return several statistics of a corpus, of the same resampled corpora; see `resampled`.

    statistics: returns their values. One may be nan, as the mean over objects that a resampled corpus has
        not; then that corpus does not count for its interval.
    signature: is also given the index of the statistic.
    """
    check_bootstrap(bootstrap)
    samples = bootstrap if count > 1 else 0  # resampling a single hypothesis has no variance
    values = statistics(np.arange(count))
    generator = np.random.default_rng(seed)
    drawn = np.array([statistics(generator.integers(count, size=count)) for _ in range(samples)])
    scores = []
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        known = np.sort(drawn[~np.isnan(drawn[:, number]), number]) if samples else np.zeros(0)
        if not len(known):
            scores.append(Score(name, value, signature(number, "")))
            continue
        tail = len(known) // 40
        described = signature(number, f"|bs:{samples}|seed:{seed}|ci:percentile")
        scores.append(Score(name, value, described, float(known[tail]), float(known[-1 - tail])))
    return scores


def check_bootstrap(bootstrap: int) -> None:
    """Raise ScoringError for fewer samples than a 95 % interval needs."""
    if bootstrap < 0 or 0 < bootstrap < 40:
        raise ScoringError(
            f"bootstrap is 0 (no interval) or at least 40 (95 % leaves 1 of 40 at each end), got {bootstrap}"
        )


def transposed(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Turn the references of each hypothesis into lists by translator, as `score` takes them; None where a
    hypothesis has fewer references."""
    return [list(row) for row in zip_longest(*references)]


def by_translator(hypotheses: Sequence[str], references: References) -> list[list[str | None]]:
    """Return the references as lists as long as the hypotheses; sacreBLEU would silently truncate longer
    ones."""
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise ScoringError("expected lists of sentences, got one string; give [sentence]")
    if not hypotheses:
        raise ScoringError("expected at least one hypothesis to score, got an empty list")
    single: list[str | None] = [reference for reference in references if isinstance(reference, str)]
    lists = (
        [single] if len(single) == len(references) else [list(sentences or ()) for sentences in references]
    )
    for number, sentences in enumerate(lists, 1):
        if len(sentences) != len(hypotheses):
            which = f" in list {number} of {len(lists)}" if len(lists) > 1 else ""
            raise ScoringError(
                f"expected a reference for each of {len(hypotheses)} hypotheses, got {len(sentences)}{which} "
                "(further references are given as further lists, each as long as the hypotheses)"
            )
    for number, row in enumerate(zip(*lists, strict=True), 1):
        if all(reference is None for reference in row):
            raise ScoringError(f"expected a reference for hypothesis {number}, got None in all lists")
    return lists


def by_hypothesis(hypotheses: Sequence[str], references: References) -> list[list[str]]:
    """Return the references of each hypothesis, at least one, in the order of their lists."""
    rows = zip(*by_translator(hypotheses, references), strict=True)
    return [[reference for reference in row if reference is not None] for row in rows]


def nrefs(references: Sequence[Sequence[str]]) -> str:
    """Return the number of references of a hypothesis, as it is in sacreBLEU's signatures."""
    counts = {len(golds) for golds in references}
    return f"nrefs:{counts.pop() if len(counts) == 1 else 'var'}"
