"""Metrics of masks, from the confusion matrices of images.

They are called as all metrics are, with a confusion matrix for each image in the place of a hypothesis and
the names of the classes in that of the references. A row of a matrix is a true class, a column a predicted
one, an entry the number of pixels; pixels without a class do not count.

Letters: N images, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2attn.metrics.base import SEED, Score, ScoringError, UndefinedScoreError, resampled
from seq2attn.version import __version__

Confusion = NDArray[np.int64]  # (K, K)
Values = NDArray[np.float64]


def confusion(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> Confusion:
    """Return the confusion matrix (K, K) of two masks of an image; true numbers from K on do not count."""
    if truth.shape != predicted.shape:
        raise ScoringError(f"expected masks of one size, got {truth.shape} and {predicted.shape}")
    counted = truth < classes
    codes = truth[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(codes, minlength=classes**2).reshape(classes, classes)


def mean_iou(hypotheses: Sequence[Any], references: Any, bootstrap: int = 1000, seed: int = SEED) -> Score:
    """Mean intersection over union of the classes that the references have, in per cent, from one matrix over
    all images."""
    return _whole("mIoU", ious, hypotheses, references, bootstrap, seed)


def mean_dice(hypotheses: Sequence[Any], references: Any, bootstrap: int = 1000, seed: int = SEED) -> Score:
    """Mean Dice coefficient of these classes, from one matrix over all images; of two classes, that of the
    second, the foreground."""
    return _whole("Dice", dices, hypotheses, references, bootstrap, seed)


def mean_iou_of_images(
    hypotheses: Sequence[Any], references: Any, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """Mean over images of the mean intersection over union of the classes that the image has."""
    return _of_images("mIoU-image", ious, hypotheses, references, bootstrap, seed)


def mean_dice_of_images(
    hypotheses: Sequence[Any], references: Any, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """Mean over images of the mean Dice coefficient of the classes that the image has; of two classes, that
    of the second, over the images that have it."""
    return _of_images("Dice-image", dices, hypotheses, references, bootstrap, seed)


def pixel_accuracy(
    hypotheses: Sequence[Any], references: Any, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """Percentage of counted pixels with the right class."""
    counts = _counts(hypotheses, references)

    def statistic(chosen: NDArray[np.int64]) -> float:
        right, true, _ = _summed(counts, chosen).sum(-1)
        return 100 * float(right / max(true, 1))

    signature = _signature("pixels:all", counts)
    return resampled("pixel-accuracy", statistic, len(counts), signature, bootstrap, seed)


def ious(counts: Values) -> Values:
    """Return the intersection over union of each class (..., K), in per cent; nan if the references lack it.

    counts: (..., 3, K), numbers of right, true and predicted pixels of each class.
    """
    right, true, taken = np.moveaxis(counts, -2, 0)
    return np.where(true > 0, 100 * right / np.maximum(true + taken - right, 1), np.nan)


def dices(counts: Values) -> Values:
    """Return the Dice coefficient of each class (..., K), in per cent, likewise."""
    right, true, taken = np.moveaxis(counts, -2, 0)
    return np.where(true > 0, 200 * right / np.maximum(true + taken, 1), np.nan)


def _counts(hypotheses: Sequence[Any], references: Any) -> Values:
    """Return the counts (N, 3, K) of confusion matrices. ScoringError for anything else."""
    shape = (len(references),) * 2
    if not len(hypotheses) or not all(getattr(matrix, "shape", None) == shape for matrix in hypotheses):
        raise ScoringError(
            "expected a confusion matrix of each image, with a row for each class, and the names of the "
            "classes: metrics of masks score a run (`seq2attn score RUN`)"
        )
    matrices = np.stack(hypotheses)
    right, true, taken = matrices.diagonal(axis1=1, axis2=2), matrices.sum(2), matrices.sum(1)
    return np.stack([right, true, taken], 1).astype(float)


def _summed(counts: Values, chosen: NDArray[np.int64]) -> Values:
    """Return the sum of the counts of chosen images, with repetitions. It is exact, as of whole numbers."""
    times = np.bincount(chosen, minlength=len(counts)).astype(float)
    return np.tensordot(times, counts, 1)


def _mean(name: str, values: Values) -> Values:
    """Return the mean of the classes that are there, (...); nan if there are none. The Dice of two classes
    is that of the second."""
    values = values[..., 1:] if name.startswith("Dice") and values.shape[-1] == 2 else values
    there = ~np.isnan(values)
    total = np.where(there, values, 0).sum(-1)
    return np.where(there.any(-1), total / np.maximum(there.sum(-1), 1), np.nan)


def _whole(
    name: str,
    of_classes: Callable[[Values], Values],
    hypotheses: Sequence[Any],
    references: Any,
    bootstrap: int,
    seed: int,
) -> Score:
    counts = _counts(hypotheses, references)
    _require_classes(name, _mean(name, of_classes(counts.sum(0))))

    def statistic(chosen: NDArray[np.int64]) -> float:
        # nan: none of the resampled images has any of the classes
        return float(np.nan_to_num(_mean(name, of_classes(_summed(counts, chosen)))))

    signature = _signature(f"{_averaged(name, counts)}|matrix:all images", counts)
    return resampled(name, statistic, len(counts), signature, bootstrap, seed)


def _of_images(
    name: str,
    of_classes: Callable[[Values], Values],
    hypotheses: Sequence[Any],
    references: Any,
    bootstrap: int,
    seed: int,
) -> Score:
    counts = _counts(hypotheses, references)
    values = _mean(name, of_classes(counts))  # (N,)
    there = values[~np.isnan(values)]
    _require_classes(name, there.mean() if len(there) else np.nan)
    signature = _signature(f"{_averaged(name, counts)}|matrix:each image, mean of {len(there)}", counts)
    return resampled(name, lambda chosen: float(there[chosen].mean()), len(there), signature, bootstrap, seed)


def _averaged(name: str, counts: Values) -> str:
    if name.startswith("Dice") and counts.shape[2] == 2:
        return "class:second of two"
    return "classes:in references"


def _signature(described: str, counts: Values) -> Callable[[str], str]:
    """Return the function that `resampled` takes."""
    pixels = f"images:{len(counts)}|pixels:{counts[:, 1].sum():.0f}"
    return lambda sampling: f"{described}|{pixels}{sampling}|seq2attn:{__version__}"


def _require_classes(name: str, value: Any) -> None:
    if np.isnan(value):
        raise UndefinedScoreError(f"{name}: no reference has a pixel of the classes that it is the mean of")


@dataclass(frozen=True)
class ClassScores:
    """The scores of a class."""

    name: str
    share: float  # of all counted pixels, in per cent
    iou: Score | None  # None: the references have none of it
    dice: Score | None


@dataclass(frozen=True)
class SegmentationReport:
    """Intersection over union and Dice of each class, with intervals."""

    rows: list[ClassScores]

    def __str__(self) -> str:
        width = max(len("class"), *(len(row.name) for row in self.rows))
        lines = [f"{'class':{width}}  pixels      IoU   95 %            Dice   95 %"]
        for row in self.rows:
            cells = [_cell(score) for score in (row.iou, row.dice)]
            lines.append(f"{row.name:{width}}  {row.share:5.1f}%  {cells[0]}  {cells[1]}")
        return "\n".join(line.rstrip() for line in lines)

    def to_json(self) -> list[dict[str, Any]]:
        """Return a value for json.dumps."""
        return [
            {
                "class": row.name,
                "pixels": row.share,
                **{
                    name: None if score is None else [score.value, score.low, score.high]
                    for name, score in (("iou", row.iou), ("dice", row.dice))
                },
            }
            for row in self.rows
        ]


def _cell(score: Score | None) -> str:
    if score is None:
        return f"{'none':>7}{'':15}"
    interval = "" if score.low is None else f"[{score.low:.1f}, {score.high:.1f}]"
    return f"{score.value:7.2f}  {interval:13}"


def segmentation_report(
    hypotheses: Sequence[Any], references: Any, bootstrap: int = 1000, seed: int = SEED
) -> SegmentationReport:
    """Return the scores of each class from one matrix over all images."""
    counts, names = _counts(hypotheses, references), list(references)
    true, rows = counts[:, 1].sum(0), list[ClassScores]()
    for number, name in enumerate(names):
        scores: list[Score | None] = [None, None]
        if true[number]:
            of_class = counts[:, :, number : number + 1]
            scores = [
                resampled(kind, _value(values, of_class), len(counts), str, bootstrap, seed)
                for kind, values in (("IoU", ious), ("Dice", dices))
            ]
        rows.append(ClassScores(name, 100 * float(true[number] / true.sum()), *scores))
    return SegmentationReport(rows)


def _value(values: Callable[[Values], Values], counts: Values) -> Callable[[NDArray[np.int64]], float]:
    """Return the function that `resampled` takes, for the counts (N, 3, 1) of a class."""
    return lambda chosen: float(np.nan_to_num(values(_summed(counts, chosen))[0]))
