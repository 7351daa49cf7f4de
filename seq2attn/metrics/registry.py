"""METRICS by name, and scores of a corpus."""

import difflib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from seq2attn.metrics.base import SEED, Metric, References, Score, ScoringError, UndefinedScoreError
from seq2attn.metrics.detection import STATISTICS, box_report, box_score
from seq2attn.metrics.edits import exact, sentence_errors, word_errors
from seq2attn.metrics.entities import accuracy, f1, macro_f1, precision, recall, report, tag_accuracy
from seq2attn.metrics.formulas import expression_rate, token_errors
from seq2attn.metrics.generation import class_entropy, frechet, kernel, sample_precision, sample_recall
from seq2attn.metrics.images import class_report, top
from seq2attn.metrics.rouge import rouge
from seq2attn.metrics.segmentation import (
    mean_dice,
    mean_dice_of_images,
    mean_iou,
    mean_iou_of_images,
    pixel_accuracy,
    segmentation_report,
)
from seq2attn.metrics.translation import bleu, chrf, ter
from seq2attn.registry import Registry

DEFAULT = ("bleu", "chrf", "ter")  # the metrics of `score`

METRICS: Registry[Metric] = Registry("METRICS", Metric, instances=True)
METRICS |= {
    "bleu": Metric(bleu, "texts"),
    "bleu-zh": Metric(partial(bleu, tokenize="zh"), "texts"),
    "bleu-char": Metric(partial(bleu, tokenize="char"), "texts"),
    "chrf": Metric(chrf, "texts"),
    "chrf++": Metric(partial(chrf, word_order=2), "texts"),
    "ter": Metric(ter, "texts", lower_is_better=True, slow=True),
    "exact": Metric(exact, "texts"),
    "wer": Metric(word_errors, "texts", lower_is_better=True),
    "per": Metric(partial(word_errors, name="PER"), "texts", lower_is_better=True),
    "g2p-wer": Metric(partial(sentence_errors, name="g2p-WER"), "texts", lower_is_better=True),
    "exprate": Metric(expression_rate, "texts"),
    "exprate-1": Metric(partial(expression_rate, errors=1), "texts"),
    "exprate-2": Metric(partial(expression_rate, errors=2), "texts"),
    "token-er": Metric(token_errors, "texts", lower_is_better=True),
    "rouge-1": Metric(partial(rouge, variant="1"), "texts"),
    "rouge-2": Metric(partial(rouge, variant="2"), "texts"),
    "rouge-l": Metric(partial(rouge, variant="L"), "texts"),
    "rouge-lsum": Metric(partial(rouge, variant="Lsum"), "texts"),
    "f1": Metric(f1, "tagged words", table="entities"),
    "precision": Metric(precision, "tagged words", table="entities"),
    "recall": Metric(recall, "tagged words", table="entities"),
    "tag-accuracy": Metric(tag_accuracy, "tagged words"),
    "accuracy": Metric(accuracy, "labelled texts"),
    "macro-f1": Metric(macro_f1, "labelled texts"),
    "top-1": Metric(partial(top, k=1), "labelled images", table="classes"),
    "top-5": Metric(partial(top, k=5), "labelled images", table="classes"),
    **{name: Metric(partial(box_score, metric=name), "boxes", table="boxes") for name in STATISTICS},
    "miou": Metric(mean_iou, "masks", table="masks"),
    "miou-image": Metric(mean_iou_of_images, "masks"),
    "dice": Metric(mean_dice, "masks", table="masks"),
    "dice-image": Metric(mean_dice_of_images, "masks"),
    "pixel-accuracy": Metric(pixel_accuracy, "masks"),
    "frechet": Metric(frechet, "generated images", lower_is_better=True),
    "kernel": Metric(kernel, "generated images", lower_is_better=True),
    "sample-precision": Metric(sample_precision, "generated images"),
    "sample-recall": Metric(sample_recall, "generated images"),
    "class-entropy": Metric(class_entropy, "generated images"),
}


TABLES: dict[str, Callable[[Sequence[Any], Any], Any]] = {
    "entities": report,
    "classes": class_report,
    "boxes": box_report,
    "masks": segmentation_report,
}


def metrics_of(measures: str) -> list[str]:
    """Return the names of the METRICS of texts, tagged words, labelled texts, labelled images, boxes, masks
    or generated images."""
    return [name for name, metric in METRICS.items() if metric.measures == measures]


def score(
    hypotheses: Sequence[Any],
    references: References,
    metrics: Sequence[str] = DEFAULT,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> list[Score]:
    """Return the scores of a corpus by the named METRICS, or by one of them.

    hypotheses: texts; for metrics of masks see `metrics.segmentation`.
    references: a sentence for each hypothesis; or, as in sacreBLEU, a list of such lists, one for each
        translator, with None where a hypothesis has fewer references (`transposed` makes such lists).
    bootstrap: number of resampled corpora for the confidence interval; 0 = no interval, which is fast. A
        corpus of one sentence has no interval.
    Raises ScoringError for lists that do not fit together and for unknown names.
    """
    metrics = [metrics] if isinstance(metrics, str) else metrics
    for name in metrics:
        if name not in METRICS:
            guess = difflib.get_close_matches(name, METRICS, n=1)
            meant = f"did you mean {guess[0]}? " if guess else ""
            raise ScoringError(f"unknown metric {name!r} ({meant}one of {', '.join(METRICS)})")
    return [METRICS[name](hypotheses, references, bootstrap, seed) for name in metrics]


def defined_scores(
    hypotheses: Any, references: Any, metrics: Sequence[str], bootstrap: int = 1000
) -> tuple[dict[str, Score], dict[str, str]]:
    """Return the scores of a corpus by name, as `score` does, and of the metrics that have no value on it the
    reasons."""
    scores, undefined = dict[str, Score](), dict[str, str]()
    for name in metrics:
        try:
            found = METRICS[name](hypotheses, references, bootstrap)
        except UndefinedScoreError as error:
            undefined[name] = str(error)
            continue
        if math.isnan(found.value):
            undefined[name] = "its value is nan"
        else:
            scores[name] = found
    return scores, undefined


def tables(
    hypotheses: Sequence[Any], references: References, metrics: Sequence[str] = DEFAULT
) -> dict[str, Any]:
    """Return the tables with more of the named METRICS, by name: their `str` is for people, `to_json` not."""
    names = dict.fromkeys(METRICS[name].table for name in metrics if METRICS[name].table)
    return {name: TABLES[name](hypotheses, references) for name in names}


def ranking_value(scores: dict[str, float], metric: str) -> list[float]:
    """Return numbers to rank scores by, larger is better: the metric, then the loss, for ties such as BLEU
    0."""
    if metric == "loss":
        return [-scores["loss"]]
    sign = -1.0 if METRICS[metric].lower_is_better else 1.0
    return [sign * scores[metric], -scores["loss"]]
