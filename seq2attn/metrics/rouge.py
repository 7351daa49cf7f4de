"""ROUGE (Lin 2004): how much of a reference summary is in a summary, and of the summary in the reference.

What is counted are words as `rouge-score` cuts them: runs of a-z and 0-9, lower-cased, and by default stemmed
(Porter 1980). So it is a metric for English.

    ROUGE-n     n-grams in common
    ROUGE-L     the longest common subsequence of words of the whole summaries
    ROUGE-Lsum  for each sentence of the reference the words that are in its longest common subsequence with
                any sentence of the summary, each word counted as often as it stands in both
"""

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Literal

import numpy as np

from seq2attn.metrics.base import (
    SEED,
    Chosen,
    References,
    Score,
    ScoringError,
    by_hypothesis,
    check_bootstrap,
    nrefs,
    resampled,
)
from seq2attn.text.sentence_splitter import sentences
from seq2attn.version import __version__

Variant = Literal["1", "2", "L", "Lsum"]


def rouge(
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int = 1000,
    seed: int = SEED,
    variant: Variant = "L",
    stem: bool = True,
) -> Score:
    """100 * the mean F1 of the documents by a variant of ROUGE. For Lsum, sentences are those of `sentences`.

    Of several references the one with the best F1 counts, for each variant anew: the original's -f B, which
    is not its default (-f A, the mean). The bootstrap draws documents. Raises ScoringError if no reference
    has a word that is counted.
    """
    check_bootstrap(bootstrap)
    golds = by_hypothesis(hypotheses, references)
    _check_letters(golds)
    found = 100 * np.array(_f1(hypotheses, golds, variant, stem))
    split = "|split:line feeds, else stops" if variant == "Lsum" else ""
    how = f"measure:f1|refs:best|stem:{'porter' if stem else 'no'}{split}"
    versions = f"rouge-score {version('rouge-score')}, seq2attn {__version__}"

    def mean(chosen: Chosen) -> float:
        return float(found[chosen].mean())

    def signature(drawn: str) -> str:
        return f"{nrefs(golds)}{drawn}|{how}|version:{versions}"

    return resampled(f"ROUGE-{variant}", mean, len(found), signature, bootstrap, seed)


def _f1(
    hypotheses: Sequence[str], golds: Sequence[Sequence[str]], variant: Variant, stem: bool
) -> list[float]:
    """The F1 of each hypothesis with the best of its references, from 0 to 1."""
    from rouge_score.rouge_scorer import RougeScorer

    kind = f"rouge{variant}"
    scorer = RougeScorer([kind], use_stemmer=stem)

    def lines(text: str) -> str:
        return "\n".join(sentences(text)) if variant == "Lsum" else text

    return [
        scorer.score_multi([lines(gold) for gold in several], lines(one))[kind].fmeasure
        for one, several in zip(hypotheses, golds, strict=True)
    ]


def _check_letters(golds: Sequence[Sequence[str]]) -> None:
    """Raise ScoringError for references in a script of which no word would be counted."""
    texts = [gold for several in golds for gold in several]
    if any(text.strip() for text in texts) and not any(re.search("[A-Za-z0-9]", text) for text in texts):
        shown = next(text for text in texts if text.strip())
        raise ScoringError(
            "rouge counts words of the letters a to z alone, and no reference has one (the first is "
            f"{shown:.40}): take chrf"
        )
