"""Metrics of what a model says: each number with its signature and its confidence interval.

BLEU, chrF and TER (translations) are sacreBLEU's, ROUGE (summaries) is rouge-score's. Where a target is right
or wrong (sounds of a word, commands, made tasks), two others say more: how many are right as a whole, and
how many edits would right them. Tags and labels (`entities`) are given as texts, too: a sentence is its tags
with spaces between, or its label.

To add one: write a function (hypotheses, references, bootstrap, seed) -> Score and add its line to METRICS
(registry.py).
"""

from seq2attn.metrics.base import (
    Metric,
    References,
    Score,
    ScoringError,
    by_hypothesis,
    score_lines,
    transposed,
)
from seq2attn.metrics.edits import edit_distances, exact, sentence_errors, word_errors
from seq2attn.metrics.registry import DEFAULT, LOWER_IS_BETTER, METRICS, SLOW, score
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
