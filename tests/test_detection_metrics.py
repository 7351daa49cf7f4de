"""AP and AR of boxes: equal to a slow reference by their definition, and to pycocotools."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from seq2attn.metrics import METRICS, ScoringError, metrics_of, score, tables
from seq2attn.metrics.detection import STATISTICS, Detections, Objects, box_scores

CLASSES = ["a", "b", "c"]
RANGES = {"small": (0, 1024), "medium": (1024, 9216), "large": (9216, 1e10)}
Images = tuple[list[Detections], list[Objects]]


def corpus(seed: int, count: int = 8, ties: bool = False, many: int = 0) -> Images:
    """Random objects, and detections near and far from them; many: further ones in every fifth image."""
    random = np.random.default_rng(seed)
    detections, objects = [], []
    for number in range(count):
        here = int(random.integers(0, 7))
        here = here if number else 5  # the first has every size, and no crowd
        sizes = (
            random.choice([8, 20, 40, 90, 190], (here, 2)) if number else np.array([[8, 20, 40, 90, 190]]).T
        )
        sides = sizes * random.uniform(0.7, 1.3, (here, 2))
        corner = random.uniform(0, 200, (here, 2))
        boxes = np.concatenate([corner, corner + sides], axis=1)
        labels = random.choice(CLASSES, here).tolist()
        areas = sides.prod(1) * random.uniform(0.5, 1, here)
        objects.append(Objects(boxes, labels, random.random(here) < (0.15 if number else 0), areas))
        free = 5 + (many if number % 5 == 4 else 0)
        corner = random.uniform(0, 200, (free, 2))
        near = [boxes + random.normal(0, 4, boxes.shape) * random.random((here, 1)) for _ in range(2)]
        found = np.concatenate(
            [*near, np.concatenate([corner, corner + random.uniform(5, 120, (free, 2))], 1)]
        )
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 0.5)
        scores = random.random(len(found))
        names = [*labels, *labels, *random.choice(CLASSES, free).tolist()]
        detections.append(Detections(found, names, scores.round(1) if ties else scores))
    return detections, objects


# ---- the slow reference ----------------------------------------------------------------------------------


def overlap(box: Any, other: Any, crowd: bool) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    area, other_area = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return shared / (area if crowd else area + other_area - shared)


def judged(found: Detections, there: Objects, label: str, threshold: float, low: float, high: float) -> Any:
    """Return (score, right or wrong) of the detections of an image that count, and the number of objects."""
    mine = [n for n, name in enumerate(found.labels) if name == label]
    mine = sorted(mine, key=lambda n: -found.scores[n])[:100]
    theirs = [n for n, name in enumerate(there.labels) if name == label]
    ignored = {n: bool(there.crowds[n]) or not low <= there.areas[n] <= high for n in theirs}
    taken: set[int] = set()
    results = []
    for rank, n in enumerate(mine):
        best = None
        for wanted in (False, True):  # first objects that count, then the others
            for g in (g for g in theirs if ignored[g] == wanted and (g not in taken or there.crowds[g])):
                value = overlap(found.boxes[n], there.boxes[g], there.crowds[g])
                if value >= threshold and (best is None or value >= best[0]):
                    best = value, g
            if best is not None:
                break
        left, top, right, bottom = found.boxes[n]
        if best is not None:
            taken.add(best[1])
            if not ignored[best[1]]:
                results.append((found.scores[n], True, rank))
        elif low <= (right - left) * (bottom - top) <= high:
            results.append((found.scores[n], False, rank))
    return results, sum(not value for value in ignored.values())


def reference(detections: list[Detections], objects: list[Objects], metric: str) -> float:
    statistic = STATISTICS[metric]
    low, high = RANGES.get(statistic.area, (0, 1e10))
    thresholds = [0.5 + 0.05 * number for number in range(10)]
    if statistic.threshold is not None:
        thresholds = [thresholds[statistic.threshold]]
    values = []
    for label in CLASSES:
        for threshold in thresholds:
            results, total = [], 0
            for found, there in zip(detections, objects, strict=True):
                some, count = judged(found, there, label, round(threshold, 2), low, high)
                results += [(value, good) for value, good, rank in some if rank < statistic.most]
                total += count
            if not total:
                continue
            results.sort(key=lambda result: -result[0])
            goods = np.cumsum([good for _, good in results])
            if statistic.recall:
                values.append(goods[-1] / total if len(goods) else 0.0)
                continue
            precisions = []
            for recall in np.linspace(0, 1, 101):
                after = [goods[n] / (n + 1) for n in range(len(goods)) if goods[n] / total >= recall]
                precisions.append(max(after, default=0.0))
            values.append(np.mean(precisions))
    return 100 * float(np.mean(values))


@pytest.mark.parametrize("seed", range(4))
def test_every_metric_equals_the_slow_reference(seed):
    detections, objects = corpus(seed, ties=seed == 3)
    ours = box_scores(detections, objects, [*STATISTICS], bootstrap=0)
    for metric, found in zip(STATISTICS, ours, strict=True):
        assert found.value == pytest.approx(reference(detections, objects, metric), abs=1e-9), metric
        assert METRICS[metric](detections, objects, 0) == found


def test_every_metric_equals_pycocotools():
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    coco = pytest.importorskip("pycocotools.coco")
    for seed in range(4):
        detections, objects = corpus(seed, count=20, ties=seed == 1, many=150)
        truths, results = [], []
        for number, (found, there) in enumerate(zip(detections, objects, strict=True), 1):
            for box, label, crowd, area in zip(
                there.boxes, there.labels, there.crowds, there.areas, strict=True
            ):
                row = {"id": len(truths) + 1, "image_id": number, "category_id": CLASSES.index(label)}
                truths.append(
                    row | {"bbox": [*box[:2], *(box[2:] - box[:2])], "iscrowd": int(crowd), "area": area}
                )
            for box, label, value in zip(found.boxes, found.labels, found.scores, strict=True):
                row = {"image_id": number, "category_id": CLASSES.index(label), "score": value}
                results.append(row | {"bbox": [*box[:2], *(box[2:] - box[:2])]})
        with contextlib.redirect_stdout(io.StringIO()):
            truth = coco.COCO()
            truth.dataset = {
                "images": [{"id": number + 1} for number in range(20)],
                "annotations": truths,
                "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES)],
            }
            truth.createIndex()
            theirs = evaluation.COCOeval(truth, truth.loadRes(results), "bbox")
            theirs.evaluate()
            theirs.accumulate()
            theirs.summarize()
        ours = [found.value / 100 for found in box_scores(detections, objects, [*STATISTICS], bootstrap=0)]
        assert ours == pytest.approx(list(theirs.stats), abs=1e-6)


# ---- golden values ---------------------------------------------------------------------------------------


def image(boxes: Any, labels: Any = None, crowds: Any = None, scores: Any = None) -> Any:
    numbers = np.array(boxes, np.float64).reshape(-1, 4)
    labels = labels or ["a"] * len(numbers)
    if scores is not None:
        return Detections(numbers, labels, np.array(scores, np.float64))
    crowds = np.array(crowds or [False] * len(numbers), np.bool_)
    return Objects(numbers, labels, crowds, (numbers[:, 2:] - numbers[:, :2]).prod(1))


def values(found: Any, there: Any, *metrics: str) -> list[float]:
    return [value.value for value in box_scores([found], [there], metrics, 0)]


def test_golden_values():
    there = image([[0, 0, 10, 20], [30, 0, 50, 10]])
    found = image([[0, 0, 10, 20], [32, 0, 52, 10]], scores=[0.9, 0.8])  # the second overlaps by 18 of 22
    assert values(found, there, "ap", "ap50", "ap75") == pytest.approx([85.148515, 100, 100], abs=1e-5)
    assert values(found, there, "ar-1", "ar-100", "ap-small") == pytest.approx([50, 85, 85.148515], abs=1e-5)


def test_nothing_found_is_0_and_false_detections_count_by_their_scores():
    there = image([[0, 0, 10, 10]])
    assert values(image([], scores=[]), there, "ap", "ar-100") == [0, 0]
    far = [100, 100, 110, 110]
    assert values(image([far, [0, 0, 10, 10]], scores=[0.9, 0.5]), there, "ap50") == [pytest.approx(50)]
    assert values(image([far, [0, 0, 10, 10]], scores=[0.5, 0.9]), there, "ap50") == [pytest.approx(100)]


def test_an_object_is_found_once_and_a_crowd_any_number_of_times():
    twice = image([[0, 0, 10, 10]] * 2 + [[50, 0, 60, 10]], scores=[0.9, 0.8, 0.7])
    objects = image([[0, 0, 10, 10], [50, 0, 60, 10]])
    assert values(twice, objects, "ap50")[0] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    crowd = image([[0, 0, 30, 10], [50, 0, 60, 10]], crowds=[True, False])
    assert values(twice, crowd, "ap50") == [pytest.approx(100)]


def test_of_equal_overlaps_the_last_object_is_taken():
    there = image([[0, 0, 10, 10], [4, 0, 14, 10]])
    found = image([[2, 0, 12, 10], [5, 0, 15, 10]], scores=[0.9, 0.8])  # the second overlaps the last alone
    assert values(found, there, "ap50") == [pytest.approx(100 * 51 / 101)]
    assert values(found, image(there.boxes[::-1]), "ap50") == [pytest.approx(100)]


def test_the_area_of_the_object_decides_and_not_that_of_what_found_it():
    there, found = image([[0, 0, 31, 31]]), image([[0, 0, 33, 33]], scores=[0.9])  # .88 of a larger area
    assert values(found, there, "ap-small", "ar-small") == pytest.approx([80, 80])


def test_a_class_that_only_detections_have_does_not_count():
    there, right = image([[0, 0, 10, 10]]), [0, 0, 10, 10]
    found = image([right, right], labels=["a", "b"], scores=[0.9, 1.0])
    assert values(found, there, "ap") == [pytest.approx(100)]


# ---- intervals, signatures, errors -----------------------------------------------------------------------


def test_intervals_are_those_of_resampled_images():
    detections, objects = corpus(6, count=9)
    metrics = ["ap", "ap50", "ar-small"]
    ours = box_scores(detections, objects, metrics, bootstrap=40, seed=4)
    generator, drawn = np.random.default_rng(4), []
    for _ in range(40):
        rows = generator.integers(9, size=9)
        again = [detections[row] for row in rows], [objects[row] for row in rows]
        drawn.append([found.value for found in box_scores(*again, metrics, bootstrap=0)])
    for found, resampled in zip(ours, np.sort(np.array(drawn), axis=0).T, strict=True):
        assert (found.low, found.high) == pytest.approx((resampled[1], resampled[-2]), abs=1e-9)
        assert found.low < found.value < found.high


def test_corpora_without_an_object_of_a_range_do_not_count_for_its_interval():
    objects = [image([[0, 0, 200, 200]]), *[image([[0, 0, 10, 10]])] * 5]
    detections = [image(there.boxes, scores=[0.5]) for there in objects]
    (found,) = box_scores(detections, objects, ["ap-large"], bootstrap=100)
    assert (found.value, found.low, found.high) == pytest.approx((100, 100, 100))


def test_the_signature_says_everything():
    detections, objects = corpus(1)
    signatures = {found.name: found.signature for found in box_scores(detections, objects, [*STATISTICS], 40)}
    assert signatures["AP"].startswith(
        "COCO|iou:.50:.05:.95|area:all|max:100|points:101|images:8|classes:3|bs:40|"
    )
    assert signatures["AP75"].startswith("COCO|iou:.75|area:all|max:100|")
    assert signatures["AR@10"].startswith("COCO|iou:.50:.05:.95|area:all|max:10|images:8")
    assert "|area:medium|" in signatures["AP-medium"] and "|version:seq2attn " in signatures["AP"]


def test_the_metrics_are_in_the_registry_and_have_a_table():
    assert metrics_of("boxes") == [*STATISTICS]
    detections, objects = corpus(2)
    (found,) = score(detections, objects, ["ap50"], bootstrap=0)
    report = tables(detections, objects, ["ap", "ap50"])["boxes"]
    assert found.value == pytest.approx(np.mean([row["ap50"] for row in report.to_json()]))
    assert str(report).splitlines()[0].split() == ["class", "objects", "AP", "AP50", "AR@100"]
    assert [line.split()[0] for line in str(report).splitlines()[1:]] == CLASSES


@pytest.mark.parametrize(
    ("detections", "objects", "message"),
    [
        (["a"], ["b"], "image 0: expected Detections, for these metrics compare boxes; got str"),
        ([], [], "at least one"),
        ([image([], scores=[])], [image([])] * 2, "of as many images"),
        ([image([], scores=[])], [image([])], "ap: no image has objects to find: leave ap out"),
        ([image([[0, 0, 1, 1]], scores=[np.nan])], [image([[0, 0, 1, 1]])], "finite numbers in Detections"),
        ([image([[0, 0, 1, 1]], labels=["a", "b"], scores=[1])], [image([])], "with a label each"),
    ],
)
def test_what_cannot_be_compared_is_an_error(detections, objects, message):
    with pytest.raises(ScoringError, match=message):
        score(detections, objects, ["ap"])
