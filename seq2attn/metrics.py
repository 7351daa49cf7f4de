"""Metrics of translations, by sacreBLEU: each number with its signature and its confidence interval.

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

from seq2attn.errors import Seq2attnError

if TYPE_CHECKING:
    import sacrebleu.metrics.base

References = Sequence[str] | Sequence[Sequence[str]]
SEED = 12345  # sacreBLEU's own, so that its command line gives the same interval
_environment = threading.Lock()


class ScoringError(Seq2attnError):
    """Hypotheses and references that cannot be compared, or an unknown metric."""


@dataclass(frozen=True)
class Score:
    """A number that says how it was made. BLEU and chrF: 0 to 100, higher is better; TER: 0 is best.

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
    metrics: Sequence[str] = ("bleu", "chrf", "ter"),
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


METRICS: dict[str, Metric] = {
    "bleu": bleu,
    "bleu-zh": functools.partial(bleu, tokenize="zh"),
    "bleu-char": functools.partial(bleu, tokenize="char"),
    "chrf": chrf,
    "chrf++": functools.partial(chrf, word_order=2),
    "ter": ter,
}


def _score(
    metric: "sacrebleu.metrics.base.Metric",
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int,
    seed: int,
) -> Score:
    """Score a corpus with one of sacreBLEU's metrics and take the interval out of its public JSON."""
    if bootstrap < 0 or 0 < bootstrap < 40:
        raise ScoringError(
            f"bootstrap is 0 (no interval) or at least 40 (95 % leaves 1 of 40 at each end), got {bootstrap}"
        )
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
