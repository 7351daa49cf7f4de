"""Metrics of what a model says: each number with its signature and its confidence interval.

BLEU, chrF and TER (translations) are sacreBLEU's, ROUGE (summaries) is rouge-score's. Where a target is right
or wrong (sounds of a word, commands, made tasks), two others say more: how many are right as a whole, and
how many edits would right them. Tags and labels (`entities`) are given as texts, too: a sentence is its tags
with spaces between, or its label.

To add one: write a function (hypotheses, references, bootstrap, seed) -> Score and add its line to METRICS.
"""

import difflib
import functools
from collections.abc import Sequence

from seq2attn.metrics.base import (
    SEED,
    Metric,
    References,
    Score,
    ScoringError,
    by_hypothesis,
    score_lines,
    transposed,
)
from seq2attn.metrics.edits import edit_distances, exact, sentence_errors, word_errors
from seq2attn.metrics.entities import accuracy, f1, macro_f1, precision, recall, tag_accuracy
from seq2attn.metrics.rouge import rouge
from seq2attn.metrics.translation import bleu, chrf, ter

__all__ = [
    "DEFAULT",
    "LOWER_IS_BETTER",
    "METRICS",
    "SLOW",
    "Metric",
    "References",
    "Score",
    "ScoringError",
    "bleu",
    "by_hypothesis",
    "chrf",
    "edit_distances",
    "exact",
    "rouge",
    "score",
    "score_lines",
    "sentence_errors",
    "ter",
    "transposed",
    "word_errors",
]

DEFAULT = ("bleu", "chrf", "ter")  # of METRICS

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
    "rouge-1": functools.partial(rouge, variant="1"),
    "rouge-2": functools.partial(rouge, variant="2"),
    "rouge-l": functools.partial(rouge, variant="L"),
    "rouge-lsum": functools.partial(rouge, variant="Lsum"),
    "f1": f1,
    "precision": precision,
    "recall": recall,
    "tag-accuracy": tag_accuracy,
    "accuracy": accuracy,
    "macro-f1": macro_f1,
}
LOWER_IS_BETTER = {"ter", "wer", "per", "g2p-wer"}
SLOW = {"ter"}  # minutes for a large corpus; the others take seconds


def score(
    hypotheses: Sequence[str],
    references: References,
    metrics: Sequence[str] = DEFAULT,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> list[Score]:
    """The scores of a corpus by the named METRICS.

    `references` is one sentence for each hypothesis or, as in sacreBLEU, several lists (one a translator;
    None where a hypothesis has fewer than another: `transposed` makes such lists).
    `bootstrap` resampled corpora give the confidence interval; 0 gives none and is fast; a corpus of one
    sentence has none. Raises ScoringError for lists that do not fit together and for unknown names.
    """
    for name in metrics:
        if name not in METRICS:
            guess = difflib.get_close_matches(name, METRICS, n=1)
            meant = f"did you mean {guess[0]}? " if guess else ""
            raise ScoringError(f"unknown metric {name!r} ({meant}one of {', '.join(METRICS)})")
    return [METRICS[name](hypotheses, references, bootstrap, seed) for name in metrics]
