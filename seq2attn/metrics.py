"""Metrics of translations: each number with its signature and its confidence interval.

BLEU, chrF and TER are sacreBLEU's. Where a target is right or wrong (sounds of a word, commands, made tasks),
two others say more: how many are right as a whole, and how many edits would right them.

To add one: write a function (hypotheses, references, bootstrap, seed) -> Score and add its line to METRICS.
"""

import difflib
import functools
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from seq2attn import __version__
from seq2attn.errors import Seq2attnError

if TYPE_CHECKING:
    import sacrebleu.metrics.base

References = Sequence[str] | Sequence[Sequence[str]]
DEFAULT = ("bleu", "chrf", "ter")  # of METRICS
Numbers = NDArray[np.int64]
AT_ONCE = 512  # pairs whose edits are counted together
SEED = 12345  # sacreBLEU's own, so that its command line gives the same interval
_environment = threading.Lock()


class ScoringError(Seq2attnError):
    """Hypotheses and references that cannot be compared, or an unknown metric."""


@dataclass(frozen=True)
class Score:
    """A number that says how it was made. 0 to 100, higher is better; of LOWER_IS_BETTER: 0 is best.

    `low` and `high` bound the 95 % confidence interval (None without bootstrap). They lie evenly around the
    mean of the resampled corpora, as sacreBLEU reports it, and so not quite evenly around `value`.
    """

    name: str
    value: float
    signature: str
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.1f}, {self.high:.1f}]"
        return f"{self.name} = {self.value:.1f}{interval} |{self.signature}|"

    def to_json(self) -> dict[str, str | float | None]:
        """The fields by name, ready for json.dumps."""
        return asdict(self)


class Metric(Protocol):
    """What every line of METRICS can be called with; `score` explains the parameters."""

    def __call__(
        self, hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
    ) -> Score:
        """The score of the whole corpus."""


def score(
    hypotheses: Sequence[str],
    references: References,
    metrics: Sequence[str] = DEFAULT,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> list[Score]:
    """The scores of a corpus by the named METRICS.

    `references` is one sentence for each hypothesis or, as in sacreBLEU, several lists (one a translator).
    `bootstrap` resampled corpora give the confidence interval; 0 gives none and is fast; a corpus of one
    sentence has none. Raises ScoringError for lists that do not fit together and for unknown names.
    """
    for name in metrics:
        if name not in METRICS:
            guess = difflib.get_close_matches(name, METRICS, n=1)
            meant = f"did you mean {guess[0]}? " if guess else ""
            raise ScoringError(f"unknown metric {name!r} ({meant}one of {', '.join(METRICS)})")
    return [METRICS[name](hypotheses, references, bootstrap, seed) for name in metrics]


def bleu(
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int = 1000,
    seed: int = SEED,
    tokenize: str = "13a",
) -> Score:
    """BLEU (Papineni et al. 2002), cased, on plain text; `tokenize` is sacreBLEU's: 13a, zh, char, ..."""
    from sacrebleu.metrics.bleu import BLEU

    if tokenize not in BLEU.TOKENIZERS:
        raise ScoringError(f"unknown tokenize {tokenize!r}: sacreBLEU has {', '.join(BLEU.TOKENIZERS)}")
    return _score(BLEU(tokenize=tokenize), hypotheses, references, bootstrap, seed)


def chrf(
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int = 1000,
    seed: int = SEED,
    word_order: int = 0,
) -> Score:
    """chrF2 (Popovic 2015); with word_order 2 chrF2++ (Popovic 2017)."""
    from sacrebleu.metrics.chrf import CHRF

    return _score(CHRF(word_order=word_order), hypotheses, references, bootstrap, seed)


def ter(hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED) -> Score:
    """Translation edit rate (Snover et al. 2006), lower-cased as usual: the lower the better."""
    from sacrebleu.metrics.ter import TER

    return _score(TER(), hypotheses, references, bootstrap, seed)


def exact(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """Exact match (sentence accuracy): the share of sentences that are right, word for word, of 100."""
    right = 1 - _wrong(hypotheses, references)
    return _mean("exact", right, np.ones_like(right), references, bootstrap, seed, "unit:sentence")


def sentence_errors(
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int = 1000,
    seed: int = SEED,
    name: str = "SER",
) -> Score:
    """The share of sentences with any error: 100 - exact match.

    Grapheme to phoneme calls it word error rate, as there a sentence is the sounds of one word (SIGMORPHON
    2020, Gorman et al. 2020).
    """
    wrong = _wrong(hypotheses, references)
    return _mean(name, wrong, np.ones_like(wrong), references, bootstrap, seed, "unit:sentence")


def word_errors(
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int = 1000,
    seed: int = SEED,
    name: str = "WER",
) -> Score:
    """Word error rate: 100 * edits / words of the references, over the corpus (Levenshtein 1966).

    Words are what stands between spaces, as they are written; where words are sounds, this is the phone error
    rate. May be above 100. Of several references, that with the fewest edits counts.
    """
    lists = _by_translator(hypotheses, references)
    found = [[sentence.split() for sentence in sentences] for sentences in (hypotheses, *lists)]
    edits = np.stack([edit_distances(found[0], gold) for gold in found[1:]])
    words = np.array([[len(sentence) for sentence in gold] for gold in found[1:]])
    nearest = edits.argmin(0)[None]
    edits, words = (np.take_along_axis(values, nearest, 0)[0] for values in (edits, words))
    return _mean(name, edits, words, references, bootstrap, seed, "unit:word")


METRICS: dict[str, Metric] = {
    "bleu": bleu,
    "bleu-zh": functools.partial(bleu, tokenize="zh"),
    "bleu-char": functools.partial(bleu, tokenize="char"),
    "chrf": chrf,
    "chrf++": functools.partial(chrf, word_order=2),
    "ter": ter,
    "exact": exact,
    "wer": word_errors,
    "per": functools.partial(word_errors, name="PER"),
    "g2p-wer": functools.partial(sentence_errors, name="g2p-WER"),
}
LOWER_IS_BETTER = {"ter", "wer", "per", "g2p-wer"}
SLOW = {"ter"}  # minutes for a large corpus; the others take seconds


def edit_distances(first: Sequence[Sequence[str]], second: Sequence[Sequence[str]]) -> Numbers:
    """The edits (a word put in, left out, or replaced) that make each `first` the `second` of its number.

    The recursion of Wagner & Fischer (1974), D[i, j] = min(D[i-1, j] + 1, D[i, j-1] + 1, D[i-1, j-1] +
    [a_i != b_j]), a row at a time for many pairs at once. Within a row D[i, j-1] + 1 runs on, which is a
    running minimum of D[i, j] - j.
    """
    distances = np.zeros(len(first), dtype=np.int64)
    differ = [n for n, pair in enumerate(zip(first, second, strict=True)) if list(pair[0]) != list(pair[1])]
    differ.sort(key=lambda n: (len(second[n]), len(first[n])))  # little padding
    for begin in range(0, len(differ), AT_ONCE):
        some = differ[begin : begin + AT_ONCE]
        numbers: dict[str, int] = {}
        a, b = (_padded([side[n] for n in some], numbers) for side in (first, second))
        across, rows = np.arange(b.shape[1] + 1), np.arange(len(some))
        lengths = [np.array([len(side[n]) for n in some]) for side in (first, second)]
        row = np.tile(across, (len(some), 1))
        distances[some] = row[rows, lengths[1]]
        for i in range(a.shape[1]):
            replaced = row[:, :-1] + (a[:, i : i + 1] != b)
            row = np.concatenate([row[:, :1] + 1, np.minimum(row[:, 1:] + 1, replaced)], axis=1)
            row = np.minimum.accumulate(row - across, axis=1) + across
            ended = lengths[0] == i + 1
            distances[np.array(some)[ended]] = row[ended, lengths[1][ended]]
    return distances


def _padded(sentences: Sequence[Sequence[str]], numbers: dict[str, int]) -> Numbers:
    """Sentences as rows of numbers, one for each word; -1 behind their ends."""
    rows = np.full((len(sentences), max(map(len, sentences))), -1)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence)] = [numbers.setdefault(word, len(numbers)) for word in sentence]
    return rows


def _wrong(hypotheses: Sequence[str], references: References) -> Numbers:
    """1 for each hypothesis that is none of its references, word for word; 0 for the others."""
    lists = [[one.split() for one in sentences] for sentences in _by_translator(hypotheses, references)]
    golds = zip(*lists, strict=True)
    return np.array([one.split() not in gold for one, gold in zip(hypotheses, golds, strict=True)], np.int64)


def _mean(
    name: str, counts: Numbers, units: Numbers, references: References, bootstrap: int, seed: int, unit: str
) -> Score:
    """100 * counts / units over the corpus, with the bootstrap interval as sacreBLEU takes it."""
    _check_bootstrap(bootstrap)
    several = 1 if isinstance(references[0], str) else len(references)
    samples = bootstrap if len(counts) > 1 else 0
    drawn = f"|bs:{samples}|seed:{seed}" if samples else ""
    signature = f"nrefs:{several}{drawn}|case:mixed|{unit}|version:seq2attn {__version__}"

    def share(chosen: Numbers) -> float:
        return 100 * float(counts[chosen].sum()) / max(1, int(units[chosen].sum()))

    value = share(np.arange(len(counts)))
    if not samples:
        return Score(name, value, signature)
    generator = np.random.default_rng(seed)
    shares = sorted(share(generator.integers(len(counts), size=len(counts))) for _ in range(samples))
    tail = samples // 40
    mean, half = sum(shares) / samples, (shares[-1 - tail] - shares[tail]) / 2
    return Score(name, value, signature, mean - half, mean + half)


def _score(
    metric: "sacrebleu.metrics.base.Metric",
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int,
    seed: int,
) -> Score:
    """Score a corpus with one of sacreBLEU's metrics and take the interval out of its public JSON."""
    _check_bootstrap(bootstrap)
    lists = _by_translator(hypotheses, references)
    samples = bootstrap if len(hypotheses) > 1 else 0  # one sentence, drawn again and again, has no spread
    with _sacrebleu_seed(seed):
        try:
            result = metric.corpus_score(list(hypotheses), lists, n_bootstrap=samples)
        except TypeError:  # sacreBLEU cannot take the mean if some resampled corpora have no text at all
            samples, result = 0, metric.corpus_score(list(hypotheses), lists)
    signature = metric.get_signature().format()
    if not samples:
        return Score(result.name, result.score, signature)
    report = json.loads(result.format(width=9, signature=signature, is_json=True))
    # sacreBLEU leaves the interval out when every resampled corpus scores 0
    mean, half = report.get("confidence_mean", 0.0), report.get("confidence_var", 0.0)
    return Score(result.name, result.score, signature, mean - half, mean + half)


def _check_bootstrap(bootstrap: int) -> None:
    if bootstrap < 0 or 0 < bootstrap < 40:
        raise ScoringError(
            f"bootstrap is 0 (no interval) or at least 40 (95 % leaves 1 of 40 at each end), got {bootstrap}"
        )


def _by_translator(hypotheses: Sequence[str], references: References) -> list[list[str]]:
    """The references as lists as long as the hypotheses; sacreBLEU itself would silently cut the longer."""
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise ScoringError("expected lists of sentences, got one string; give [sentence]")
    if not hypotheses:
        raise ScoringError("expected at least one hypothesis to score, got an empty list")
    single = [reference for reference in references if isinstance(reference, str)]
    lists = [single] if len(single) == len(references) else [list(sentences) for sentences in references]
    for number, sentences in enumerate(lists, 1):
        if len(sentences) != len(hypotheses):
            which = f" in list {number} of {len(lists)}" if len(lists) > 1 else ""
            raise ScoringError(
                f"expected a reference for each of {len(hypotheses)} hypotheses, got {len(sentences)}{which} "
                "(several references are given as several lists, each as long as the hypotheses)"
            )
    return lists


@contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """sacreBLEU takes the seed of its bootstrap from the environment alone."""
    with _environment:
        before = os.environ.get("SACREBLEU_SEED")
        os.environ["SACREBLEU_SEED"] = str(seed)
        try:
            yield
        finally:
            if before is None:
                del os.environ["SACREBLEU_SEED"]
            else:
                os.environ["SACREBLEU_SEED"] = before
