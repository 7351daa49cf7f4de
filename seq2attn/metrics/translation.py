"""Metrics of translation: sacreBLEU's, with its values and signatures."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from seq2attn.metrics.base import SEED, Chosen, References, Score, ScoringError, by_translator, resampled

if TYPE_CHECKING:
    import sacrebleu.metrics.base


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
    found = _score(BLEU(tokenize=tokenize), hypotheses, references, bootstrap, seed)
    # sacreBLEU's 100 is 100.00000000000004, exp of a sum of logarithms.
    low, high = (None if bound is None else min(bound, 100.0) for bound in (found.low, found.high))
    return replace(found, value=min(found.value, 100.0), low=low, high=high)


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
    """Score a corpus with a metric of sacreBLEU, from its statistics of each sentence.

    sacreBLEU itself gives only the mean of the resampled corpora and half the width of their interval.
    """
    lists: Any = by_translator(hypotheses, references)  # it takes None, although its annotations do not
    sentences = metric._extract_corpus_statistics(list(hypotheses), lists)
    corpus = metric._aggregate_and_compute(sentences)
    table = np.array(sentences, dtype=np.float32)  # as in its resampling

    def value(chosen: Chosen) -> float:
        return float(metric._compute_score_from_stats(table[chosen].sum(0)).score)

    def signature(resampling: str) -> str:
        plain = metric.get_signature().format()
        references, rest = plain.split("|", 1)
        return f"{references}{resampling}|{rest}"

    found = resampled(corpus.name, value, len(table), signature, bootstrap, seed)
    return replace(found, value=corpus.score)  # the sums of a large corpus are not exact in float32
