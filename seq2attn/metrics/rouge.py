"""ROUGE (Lin 2004): F1 of the overlap of a summary with a reference.

Words are those of `rouge-score`: runs of a-z and 0-9 in lower case, by default stemmed (Porter 1980). So it
is a metric for English.

    ROUGE-n     common n-grams ROUGE-L     the longest common subsequence of words of the whole summaries
    ROUGE-Lsum  for each sentence of the reference, the union of its longest common subsequences with the
    sentences
                of the summary; each word counts as often as it occurs in both
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
    UndefinedScoreError,
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
    """Return 100 * the mean F1 of the documents by a variant of ROUGE. For Lsum, `sentences` splits texts.

    If a document has more than one reference, the one with the best F1 counts, for each variant separately:
    -f B of the original, whose default is -f A, the mean. The bootstrap resamples documents. Raises
    UndefinedScoreError if most letters of the references are not counted.
    """
    check_bootstrap(bootstrap)
    golds = by_hypothesis(hypotheses, references)
    _check_letters(golds)
    scores = 100 * np.array(_f1(hypotheses, golds, variant, stem))
    split = "|split:line feeds, else stops" if variant == "Lsum" else ""
    how = f"measure:f1|refs:best|stem:{'porter' if stem else 'no'}{split}"
    versions = f"rouge-score {version('rouge-score')}, seq2attn {__version__}"

    def mean(chosen: Chosen) -> float:
        return float(scores[chosen].mean())

    def signature(resampling: str) -> str:
        return f"{nrefs(golds)}{resampling}|{how}|version:{versions}"

    return resampled(f"ROUGE-{variant}", mean, len(scores), signature, bootstrap, seed)


def _f1(
    hypotheses: Sequence[str], golds: Sequence[Sequence[str]], variant: Variant, stem: bool
) -> list[float]:
    """Return the F1 of each hypothesis with the best of its references, from 0 to 1."""
    from rouge_score.rouge_scorer import RougeScorer

    kind = f"rouge{variant}"
    scorer = RougeScorer([kind], use_stemmer=stem)

    def lines(text: str) -> str:
        return "\n".join(sentences(text)) if variant == "Lsum" else text

    return [
        scorer.score_multi([lines(gold) for gold in references], lines(hypothesis))[kind].fmeasure
        for hypothesis, references in zip(hypotheses, golds, strict=True)
    ]


def _check_letters(golds: Sequence[Sequence[str]]) -> None:
    """Raise UndefinedScoreError if most letters of the references are not counted, as in other scripts."""
    texts = [gold for references in golds for gold in references if gold.strip()]
    lost = [sum(char.isalpha() and not char.isascii() for char in text) for text in texts]
    counted = [len(re.findall("[A-Za-z]", text)) for text in texts]
    if texts and (sum(lost) > sum(counted) or not re.search("[A-Za-z0-9]", "".join(texts))):
        shown = texts[int(np.argmax(lost))]
        raise UndefinedScoreError(
            f"rouge counts only words of the letters a to z, and {sum(lost):,} of the "
            f"{sum(lost) + sum(counted):,} letters of the references are others (one reference is "
            f"{shown:.40}): use chrf"
        )
