"""Metrics of masks: one matrix over all images, means over images, classes that are there, intervals."""

import numpy as np
import pytest

from seq2attn.metrics import METRICS, ScoringError, score, tables
from seq2attn.metrics.segmentation import confusion, segmentation_report

NAMES = ["sky", "road", "car", "boat"]  # there is no boat
ALL = ["miou", "miou-image", "dice", "dice-image", "pixel-accuracy"]


def masks(seed: int = 1, count: int = 12, classes: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """True and predicted masks of several sizes, with pixels that do not count."""
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        shape = tuple(random.integers(4, 9, size=2))
        truth = random.integers(classes, size=shape).astype(np.uint8)
        predicted = np.where(random.random(shape) < 0.6, truth, random.integers(classes, size=shape))
        truth[random.random(shape) < 0.1] = 255
        pairs.append((truth, predicted.astype(np.uint8)))
    return pairs


def matrices(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int = 4) -> list[np.ndarray]:
    return [confusion(truth, predicted, classes) for truth, predicted in pairs]


def overlap(pairs: list[tuple[np.ndarray, np.ndarray]], number: int) -> tuple[int, int, int]:
    """Pixels of a class in both masks, in the true ones, in the predicted ones: by sets of positions."""
    true, taken = set(), set()
    for image, (truth, predicted) in enumerate(pairs):
        for place in np.ndindex(truth.shape):
            if truth[place] != 255:
                true |= {(image, place)} if truth[place] == number else set()
                taken |= {(image, place)} if predicted[place] == number else set()
    return len(true & taken), len(true), len(taken)


def test_scores_are_those_of_sets_of_pixels() -> None:
    pairs = masks()
    ious, dices = [], []
    for number in range(3):
        both, true, taken = overlap(pairs, number)
        ious.append(100 * both / (true + taken - both))
        dices.append(200 * both / (true + taken))
    values = [one.value for one in score(matrices(pairs), NAMES, ["miou", "dice"], bootstrap=0)]
    assert values == pytest.approx([np.mean(ious), np.mean(dices)])
    right = sum((truth == predicted).sum() for truth, predicted in pairs)
    (accuracy,) = score(matrices(pairs), NAMES, ["pixel-accuracy"], bootstrap=0)
    assert accuracy.value == pytest.approx(100 * right / sum((truth != 255).sum() for truth, _ in pairs))


def test_means_over_images_are_other_metrics() -> None:
    pairs = masks()
    of_images = [score(matrices([pair]), NAMES, ["miou", "dice"], bootstrap=0) for pair in pairs]
    means = [np.mean([scores[which].value for scores in of_images]) for which in (0, 1)]
    found = score(matrices(pairs), NAMES, ["miou-image", "dice-image"], bootstrap=0)
    assert [one.value for one in found] == pytest.approx(means)
    assert [one.name for one in found] == ["mIoU-image", "Dice-image"]
    assert "matrix:each image, mean of 12" in found[0].signature
    assert found[0].value != pytest.approx(score(matrices(pairs), NAMES, ["miou"], bootstrap=0)[0].value)


def test_of_two_classes_dice_is_that_of_the_second() -> None:
    truth, predicted = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    truth[:2], predicted[1:3] = 1, 1  # 4 in common, 8 and 8
    empty = np.zeros((4, 4), np.uint8)
    counts = [confusion(truth, predicted, 2), confusion(empty, empty, 2)]
    dice, of_images, iou = score(counts, ["background", "cell"], ["dice", "dice-image", "miou"], bootstrap=0)
    assert (dice.value, of_images.value) == (50, 50)  # the second image has no cell, and is left out
    assert iou.value == pytest.approx(100 * (4 / 12 + 20 / 28) / 2)
    assert dice.signature.startswith("class:second of two|matrix:all images|images:2|pixels:32|")


def test_a_class_that_is_only_predicted_lowers_others_and_is_not_one_of_the_mean() -> None:
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    (iou,) = score([confusion(truth, np.array([[0, 3, 1, 1]], np.uint8), 4)], NAMES, ["miou"], bootstrap=0)
    assert iou.value == 75


def test_intervals_resample_images() -> None:
    counts = matrices(masks())
    scores = score(counts, NAMES, ALL)
    assert all(one.low < one.value < one.high and "bs:1000" in one.signature for one in scores)
    assert scores == score(counts, NAMES, ALL)
    random, sums = np.random.default_rng(12345), []
    for _ in range(1000):  # the definition, for one of them
        total = sum(counts[index] for index in random.integers(12, size=12))
        sums.append(100 * total.trace() / total.sum())
    sums.sort()
    assert (scores[4].low, scores[4].high) == pytest.approx((sums[25], sums[-26]))


def test_the_table_has_a_row_for_each_class() -> None:
    counts = matrices(masks())
    report = tables(counts, NAMES, ["miou", "dice"])["masks"]
    assert [row.name for row in report.rows] == NAMES and report.rows[3].iou is None
    assert sum(row.share for row in report.rows) == pytest.approx(100)
    assert np.mean([row.iou.value for row in report.rows[:3]]) == pytest.approx(
        score(counts, NAMES, ["miou"])[0].value
    )
    lines = str(report).splitlines()
    assert (
        lines[0].split() == ["class", "pixels", "IoU", "95", "%", "Dice", "95", "%"]
        and lines[4].split()[-1] == "none"
    )
    assert report.to_json()[3] == {"class": "boat", "pixels": 0.0, "iou": None, "dice": None}
    assert str(segmentation_report(counts[:1], NAMES, 0)).count("[") == 0


def test_what_is_no_matrix_is_refused() -> None:
    for name in ALL:
        with pytest.raises(ScoringError, match="expected a confusion matrix of each image"):
            METRICS[name](["a text"], ["a text"])
    with pytest.raises(ScoringError, match="no reference has a pixel"):
        score([np.zeros((2, 2), int)], ["a", "b"], ["miou"])
    with pytest.raises(ScoringError, match="masks of one size"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)
