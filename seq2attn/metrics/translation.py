"""Metrics of translation: sacreBLEU's, with its values, signatures and intervals."""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from seq2attn.metrics.base import SEED, References, Score, ScoringError, by_translator, check_bootstrap

if TYPE_CHECKING:
    import sacrebleu.metrics.base

_environment = threading.Lock()


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
    """chrF2 (Popovic 2015); with word_order 2, chrF2++ (Popovic 2017)."""
    from sacrebleu.metrics.chrf import CHRF

    return _score(CHRF(word_order=word_order), hypotheses, references, bootstrap, seed)


def ter(hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED) -> Score:
    """Translation edit rate (Snover et al. 2006), in lower case, as usual: the lower the better."""
    from sacrebleu.metrics.ter import TER

    return _score(TER(), hypotheses, references, bootstrap, seed)


def _score(
    metric: "sacrebleu.metrics.base.Metric",
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int,
    seed: int,
) -> Score:
    """Score a corpus with a metric of sacreBLEU, and read the interval from its public JSON."""
    check_bootstrap(bootstrap)
    lists: Any = by_translator(hypotheses, references)  # it takes None, although its annotations do not
    samples = bootstrap if len(hypotheses) > 1 else 0  # resampling a single sentence has no variance
    with _sacrebleu_seed(seed):
        try:
            result = metric.corpus_score(list(hypotheses), lists, n_bootstrap=samples)
        except TypeError:  # sacreBLEU cannot take the mean if a resampled corpus has no text at all
            samples, result = 0, metric.corpus_score(list(hypotheses), lists)
    signature = metric.get_signature().format()
    if not samples:
        return Score(result.name, result.score, signature)
    report = json.loads(result.format(width=9, signature=signature, is_json=True))
    # sacreBLEU leaves the interval out if all resampled corpora score 0
    mean, half = report.get("confidence_mean", 0.0), report.get("confidence_var", 0.0)
    return Score(result.name, result.score, signature, mean - half, mean + half)


@contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """Set the seed of sacreBLEU's bootstrap, which it reads only from the environment."""
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
