"""Metrics of detected boxes, as COCO defines them (Lin et al. 2014); equal to those of pycocotools.

They are called as all metrics are, with the `Detections` of each image in the place of a hypothesis, and its
`Objects` in that of a reference. Boxes are compared in the pixels of the original images, in which COCO says
which objects are small and which are large.

- Detections of an image and a class, at most 100, are matched from the surest on: each to the free object
  with the largest intersection over union, if that reaches a threshold (.50, .55, ... .95).
- Average precision (AP) is the mean of the interpolated precision at 101 recalls, over thresholds and classes
  that occur; average recall (AR) the mean of the largest recall.
- Crowds, and objects of other areas than those that are asked for, are neither found nor missed: detections
  that match them are left out, and so are unmatched detections of other areas. A crowd may be matched any
  number of times, by the share of a detection that lies in it.

Letters: N images, D detections of a class, T thresholds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2attn.metrics.base import SEED, Score, ScoringError, UndefinedScoreError, resampled_together
from seq2attn.version import __version__

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
MOST = 100  # detections of an image and a class that count
_TINY = np.finfo(np.float64).tiny

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Objects(NamedTuple):
    """The objects of an image, in its original pixels."""

    boxes: Floats  # (n, 4): left, top, right, bottom
    labels: Sequence[str]
    crowds: Flags  # (n,): regions in which detections are neither right nor wrong
    areas: Floats  # (n,), in pixels: of the object, if the data have it, or of its box


class Detections(NamedTuple):
    """The objects that a model has found in an image, in its original pixels."""

    boxes: Floats  # (n, 4): left, top, right, bottom
    labels: Sequence[str]
    scores: Floats  # (n,): the higher, the surer

    def to_json(self) -> tuple[list[list[float]], list[str], list[float]]:
        """Return boxes, labels and scores as JSON."""
        return self.boxes.tolist(), list(self.labels), self.scores.tolist()


class Statistic(NamedTuple):
    """What a metric is the mean of."""

    name: str
    recall: bool = False  # the largest recall; otherwise the precision
    threshold: int | None = None  # the index of one; None: all
    area: str = "all"
    most: int = MOST

    @property
    def signature(self) -> str:
        """Return all that the value depends on, beside the boxes."""
        iou = ".50:.05:.95" if self.threshold is None else f"{THRESHOLDS[self.threshold]:.2f}".lstrip("0")
        points = "" if self.recall else "|points:101"
        return f"COCO|iou:{iou}|area:{self.area}|max:{self.most}{points}"


STATISTICS = {
    "ap": Statistic("AP"),
    "ap50": Statistic("AP50", threshold=0),
    "ap75": Statistic("AP75", threshold=5),
    "ap-small": Statistic("AP-small", area="small"),
    "ap-medium": Statistic("AP-medium", area="medium"),
    "ap-large": Statistic("AP-large", area="large"),
    "ar-1": Statistic("AR@1", recall=True, most=1),
    "ar-10": Statistic("AR@10", recall=True, most=10),
    "ar-100": Statistic("AR@100", recall=True),
    "ar-small": Statistic("AR-small", recall=True, area="small"),
    "ar-medium": Statistic("AR-medium", recall=True, area="medium"),
    "ar-large": Statistic("AR-large", recall=True, area="large"),
}


def box_score(
    hypotheses: Sequence[Any], references: Any, bootstrap: int = 1000, seed: int = SEED, metric: str = "ap"
) -> Score:
    """Return the value of one of the STATISTICS; see `box_scores`."""
    (value,) = box_scores(hypotheses, references, [metric], bootstrap, seed)
    return value


def box_scores(
    detections: Sequence[Detections],
    objects: Sequence[Objects],
    metrics: Sequence[str],
    bootstrap: int = 1000,
    seed: int = SEED,
) -> list[Score]:
    """Return several of the STATISTICS, for which boxes are matched only once.

    The intervals are those of resampled images. ScoringError if the lists do not fit together,
    UndefinedScoreError if a metric has no object to find.
    """
    statistics = [STATISTICS[metric] for metric in metrics]
    tables = _matched(detections, objects, list(dict.fromkeys(statistic.area for statistic in statistics)))
    for metric, reason in unfindable(objects, metrics).items():
        raise UndefinedScoreError(f"{metric}: {reason}: leave {metric} out")
    labels = {label for image in objects for label in image.labels}

    def values(chosen: NDArray[np.int64]) -> list[float]:
        weights = np.bincount(chosen, minlength=len(objects)).astype(np.float64)
        curves = {
            key: [_curve(table, weights, key[1]) for table in tables[key[0]]]
            for key in dict.fromkeys((statistic.area, statistic.most) for statistic in statistics)
        }
        return [_mean(statistic, curves[statistic.area, statistic.most]) for statistic in statistics]

    def signature(statistic: Statistic, resampling: str) -> str:
        counts = f"|images:{len(objects)}|classes:{len(labels)}"
        return f"{statistic.signature}{counts}{resampling}|version:seq2attn {__version__}"

    return resampled_together(
        [statistic.name for statistic in statistics],
        values,
        len(objects),
        lambda number, resampling: signature(statistics[number], resampling),
        bootstrap,
        seed,
    )


def unfindable(objects: Sequence[Objects], metrics: Sequence[str]) -> dict[str, str]:
    """Return the metrics without an object to find, with the reasons: crowds, and objects of other areas, are
    none."""
    reasons = {}
    for metric in metrics:
        area = STATISTICS[metric].area
        low, high = AREAS[area]
        if not any((~image.crowds & (image.areas >= low) & (image.areas <= high)).any() for image in objects):
            reasons[metric] = f"no image has {'' if area == 'all' else f'{area} '}objects to find"
    return reasons


# ---- matching -------------------------------------------------------------------------------------------


class _Table(NamedTuple):
    """The detections of a class in all images, from the surest on."""

    label: str
    images: NDArray[np.int64]  # (D,)
    ranks: NDArray[np.int64]  # (D,), among those of the class in the image
    right: Flags  # (T, D): whether it has found an object
    counted: Flags  # (T, D): whether it is right or wrong
    objects: Floats  # (N,): the number of those that are to be found


class _Matches(NamedTuple):
    """The detections of a class in one image, from the surest on."""

    scores: Floats  # (D,)
    right: Flags  # (T, D)
    counted: Flags  # (T, D)
    objects: int


def _matched(
    detections: Sequence[Detections], objects: Sequence[Objects], areas: Sequence[str]
) -> dict[str, list[_Table]]:
    """Return the tables of all classes that objects have, sorted by their names, for each range of areas."""
    _check(detections, objects)
    labels = sorted({label for image in objects for label in image.labels})
    tables: dict[str, list[_Table]] = {area: [] for area in areas}
    for label in labels:
        by_area: dict[str, list[_Matches]] = {area: [] for area in areas}
        for found, there in zip(detections, objects, strict=True):
            for area, matches in zip(areas, _image(found, there, label, areas), strict=True):
                by_area[area].append(matches)
        for area in areas:
            tables[area].append(_table(label, by_area[area]))
    return tables


def _check(detections: Sequence[Detections], objects: Sequence[Objects]) -> None:
    """Raise ScoringError for what are no boxes of images."""
    if len(detections) != len(objects) or not len(objects):
        counts = f"got {len(detections)} and {len(objects)}"
        raise ScoringError(f"expected detections and objects of as many images, at least one; {counts}")
    for number, (found, there) in enumerate(zip(detections, objects, strict=True)):
        for value, kind in ((found, Detections), (there, Objects)):
            if not isinstance(value, kind):
                expected = f"image {number}: expected {kind.__name__}, for these metrics compare boxes"
                raise ScoringError(f"{expected}; got {type(value).__name__}")
            sizes = {len(part) for part in value}
            if len(sizes) > 1 or np.shape(value.boxes)[1:] != (4,):
                shape = f"boxes {np.shape(value.boxes)}, {len(value.labels)} labels"
                raise ScoringError(f"image {number}: expected boxes (n, 4) with a label each; got {shape}")
            if not np.isfinite(value.boxes).all() or not np.isfinite(value[-1]).all():
                raise ScoringError(f"image {number}: expected finite numbers in {kind.__name__}")


def _image(found: Detections, there: Objects, label: str, areas: Sequence[str]) -> Iterator[_Matches]:
    """Yield the matches of a class in an image, for each range of areas."""
    mine = np.array([name == label for name in found.labels], dtype=np.bool_)
    theirs = np.array([name == label for name in there.labels], dtype=np.bool_)
    boxes, scores = found.boxes[mine], found.scores[mine]
    order = np.argsort(-scores, kind="stable")[:MOST]
    boxes, scores = boxes[order], scores[order]
    crowds, sizes = there.crowds[theirs], there.areas[theirs]
    overlaps = _overlaps(boxes, there.boxes[theirs], crowds)
    own_areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for area in areas:
        low, high = AREAS[area]
        ignored = crowds | (sizes < low) | (sizes > high)
        right, counted = _assigned(overlaps, crowds, ignored)
        counted &= right | ~((own_areas < low) | (own_areas > high))
        yield _Matches(scores, right & counted, counted, int((~ignored).sum()))


def _overlaps(found: Floats, there: Floats, crowds: Flags) -> Floats:
    """Return intersection over union of detections and objects, (D, G); over the detection, with crowds."""
    corners = (
        np.minimum(found[:, None, 2:], there[None, :, 2:]),
        np.maximum(found[:, None, :2], there[None, :, :2]),
    )
    shared = np.prod(np.maximum(corners[0] - corners[1], 0.0), axis=2)
    mine, theirs = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (found, there))
    union = np.where(crowds[None], mine[:, None], mine[:, None] + theirs[None] - shared)
    overlaps: Floats = shared / np.maximum(union, _TINY)
    return overlaps


def _assigned(overlaps: Floats, crowds: Flags, ignored: Flags) -> tuple[Flags, Flags]:
    """Match detections, from the surest on, to objects; (T, D) each: whether a detection has an object, and
    whether it counts, as those do not that have an ignored one.

    An object that is not ignored is preferred, and of equal overlaps the last.
    """
    count, objects = overlaps.shape
    right, counted = np.zeros((len(THRESHOLDS), count), np.bool_), np.ones((len(THRESHOLDS), count), np.bool_)
    free = np.ones((len(THRESHOLDS), objects), np.bool_)
    order = np.arange(objects)[::-1]  # from the last on, of which argmax takes the first of the largest
    for number in np.flatnonzero((overlaps >= THRESHOLDS[0]).any(axis=1)):
        reaching = (overlaps[number] >= THRESHOLDS[:, None]) & (free | crowds)  # (T, G)
        for of_kind in (~ignored, ignored):
            open_here = reaching & of_kind & ~right[:, [number]]
            some = np.flatnonzero(open_here.any(axis=1))
            best = order[np.where(open_here, overlaps[number], -1.0)[some][:, order].argmax(axis=1)]
            right[some, number], counted[some, number] = True, ~ignored[best]
            free[some, best] = False
    return right, counted


def _table(label: str, images: Sequence[_Matches]) -> _Table:
    """Return the detections of all images together, from the surest on."""
    scores = np.concatenate([image.scores for image in images])
    order = np.argsort(-scores, kind="stable")
    lengths = [len(image.scores) for image in images]
    numbers = np.repeat(np.arange(len(images)), lengths)
    ranks = np.concatenate([np.arange(length) for length in lengths])
    right, counted = (
        np.concatenate([getattr(image, name) for image in images], axis=1)[:, order]
        for name in ("right", "counted")
    )
    objects = np.array([image.objects for image in images], np.float64)
    return _Table(label, numbers[order], ranks[order], right, counted, objects)


# ---- precision and recall -------------------------------------------------------------------------------


class _Curve(NamedTuple):
    """The precision of a class at RECALLS, and its largest recall, for each threshold."""

    precision: Floats  # (T, 101)
    recall: Floats  # (T,)


def _curve(table: _Table, weights: Floats, most: int) -> _Curve | None:
    """Return precision and recall of a class; None if it has no object to be found.

    weights: (N,), how often each image counts. most: detections of an image that count.
    """
    total = float(table.objects @ weights)
    if not total:
        return None
    kept = table.ranks < most
    weight = weights[table.images[kept]]
    right = np.cumsum(table.right[:, kept] * weight, axis=1)
    counted = np.cumsum(table.counted[:, kept] * weight, axis=1)
    precision, recall = np.zeros((len(THRESHOLDS), len(RECALLS))), np.zeros(len(THRESHOLDS))
    if not right.shape[1]:
        return _Curve(precision, recall)
    exact = right / np.maximum(counted, _TINY)
    highest = np.maximum.accumulate(exact[:, ::-1], axis=1)[:, ::-1]  # from here to the end
    for number, found in enumerate(right / total):
        places = np.searchsorted(found, RECALLS, side="left")
        reached = places < len(found)
        precision[number, reached] = highest[number, places[reached]]
    return _Curve(precision, right[:, -1] / total)


def _mean(statistic: Statistic, curves: Sequence[_Curve | None]) -> float:
    """Return the mean over classes and thresholds, in per cent; nan if there is none."""
    thresholds = slice(None) if statistic.threshold is None else [statistic.threshold]
    values = [
        (curve.recall if statistic.recall else curve.precision)[thresholds]
        for curve in curves
        if curve is not None
    ]
    return 100 * float(np.mean(values)) if values else float("nan")


# ---- per class ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BoxReport:
    """Average precision and recall of each class."""

    rows: list[tuple[str, int, float, float, float]]  # label, objects, AP, AP50, AR@100, in per cent

    def __str__(self) -> str:
        width = max(len("class"), *(len(row[0]) for row in self.rows))
        lines = [f"{'class':{width}}  objects      AP    AP50  AR@100"]
        for label, count, *values in self.rows:
            numbers = "  ".join(f"{value:6.2f}" for value in values)
            lines.append(f"{label:{width}}  {count:7,}  {numbers}")
        return "\n".join(lines)

    def to_json(self) -> list[dict[str, Any]]:
        """Return a value for json.dumps."""
        names = "label", "objects", "ap", "ap50", "ar-100"
        return [dict(zip(names, row, strict=True)) for row in self.rows]


def box_report(detections: Sequence[Detections], objects: Sequence[Objects]) -> BoxReport:
    """Return AP, AP50 and AR@100 of each class that has an object to be found."""
    weights, rows = np.ones(len(objects)), []
    for table in _matched(detections, objects, ["all"])["all"]:
        curve = _curve(table, weights, MOST)
        if curve is not None:
            values = [_mean(STATISTICS[name], [curve]) for name in ("ap", "ap50", "ar-100")]
            rows.append((table.label, int(table.objects.sum()), values[0], values[1], values[2]))
    return BoxReport(rows)
