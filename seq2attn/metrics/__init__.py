"""Metrics of a model's outputs: each score has a signature and a confidence interval.

BLEU, chrF and TER (for translations) are sacreBLEU's, ROUGE (for summaries) is rouge-score's. Where an output
is right or wrong (the sounds of a word, commands, synthetic tasks), exact match counts the outputs that are
right as a whole, and error rates count the edits that would correct them. Tags and labels (`entities`) are
texts, too: the tags of a sentence with spaces between, or its label.

To add a metric, write a function (hypotheses, references, bootstrap, seed) -> Score and add it to METRICS:

    METRICS["my-metric"] = Metric(my_function, "texts")

It raises UndefinedScoreError where references lack what it measures, and is then left out.
"""

from seq2attn.metrics.base import (
    Metric,
    MetricFunction,
    References,
    Score,
    ScoringError,
    UndefinedScoreError,
    by_hypothesis,
    score_lines,
    transposed,
)
from seq2attn.metrics.edits import edit_distances, exact, sentence_errors, word_errors
from seq2attn.metrics.registry import DEFAULT, METRICS, defined_scores, metrics_of, score, tables
from seq2attn.metrics.rouge import rouge
from seq2attn.metrics.translation import bleu, chrf, ter

__all__ = [
    "DEFAULT",
    "METRICS",
    "Metric",
    "MetricFunction",
    "References",
    "Score",
    "ScoringError",
    "UndefinedScoreError",
    "bleu",
    "by_hypothesis",
    "chrf",
    "defined_scores",
    "edit_distances",
    "exact",
    "metrics_of",
    "rouge",
    "score",
    "score_lines",
    "sentence_errors",
    "tables",
    "ter",
    "transposed",
    "word_errors",
]
