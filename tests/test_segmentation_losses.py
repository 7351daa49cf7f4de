"""Losses of pixels: sums that do not depend on batches, pixels that do not count, soft Dice, auxiliary losses."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from seq2attn.data.mask_batches import MaskBatch
from seq2attn.models.vision.segmenters import PixelScores
from seq2attn.training.segmentation_objective import SegmentationObjective, soft_dice

OBJECTIVE = SegmentationObjective(dice=0.7, auxiliary=0.4)


def batch(count: int = 4, height: int = 6, width: int = 5, classes: int = 3) -> MaskBatch:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(classes, (count, height, width), generator=generator)
    counted = torch.rand(count, height, width, generator=generator) < 0.7
    return MaskBatch(torch.zeros(count, 3, height, width), None, labels * counted, counted)


def outputs(batch: MaskBatch, classes: int = 3) -> PixelScores:
    generator = torch.Generator().manual_seed(5)
    shape = len(batch.labels), classes, *batch.labels.shape[1:]
    scores, other = (torch.randn(shape, generator=generator).requires_grad_() for _ in range(2))
    return PixelScores(scores, (other,))


def rows(batch: MaskBatch, output: PixelScores, part: slice) -> tuple[PixelScores, MaskBatch]:
    some = MaskBatch(batch.images[part], None, batch.labels[part], batch.counted[part])
    return PixelScores(output.scores[part], tuple(scores[part] for scores in output.auxiliary)), some


@pytest.mark.parametrize("at", [1, 2, 3])
def test_the_losses_of_a_batch_are_those_of_its_parts(at: int) -> None:
    """So an update has the same gradient, however it is split into batches."""
    whole = batch()
    output = outputs(whole)
    losses = OBJECTIVE.loss(output, whole)
    parts = [OBJECTIVE.loss(*rows(whole, output, part)) for part in (slice(0, at), slice(at, None))]
    assert losses.parts.keys() == {"dice", "auxiliary"}
    for key in ("whole", "loss", "nll"):
        assert_close(getattr(losses, key), sum(getattr(part, key) for part in parts))
    for key, value in losses.parts.items():
        assert_close(value, sum(part.parts[key] for part in parts))
    assert whole.num_targets == sum(
        rows(whole, output, part)[1].num_targets for part in (slice(0, at), slice(at, None))
    )


def test_the_loss_of_pixels_is_the_cross_entropy_of_those_that_count() -> None:
    one = batch()
    output = outputs(one)
    target = one.labels.masked_fill(~one.counted, 255)
    expected = F.cross_entropy(output.scores, target, ignore_index=255, reduction="sum")
    assert_close(SegmentationObjective().loss(output, one).loss, expected)
    auxiliary = F.cross_entropy(output.auxiliary[0], target, ignore_index=255, reduction="sum")
    losses = SegmentationObjective(auxiliary=0.4).loss(output, one)
    assert_close(losses.whole, expected + 0.4 * auxiliary)
    assert_close(losses.parts["auxiliary"], auxiliary)


def test_pixels_that_do_not_count_have_no_gradient_and_change_nothing() -> None:
    one = batch()
    output = outputs(one)
    losses = OBJECTIVE.loss(output, one)
    losses.whole.backward()
    for scores in (output.scores, *output.auxiliary):
        assert scores.grad is not None
        assert not scores.grad.movedim(1, -1)[~one.counted].any()
        assert scores.grad.movedim(1, -1)[one.counted].abs().sum(-1).min() > 0
    other = one._replace(labels=one.labels.masked_fill(~one.counted, 2))
    assert_close(OBJECTIVE.loss(output, other).whole, losses.whole)


def dice_by_hand(scores: Tensor, labels: Tensor, counted: Tensor) -> float:
    """Image by image, class by class."""
    total = 0.0
    for image, target, use in zip(scores.softmax(1), labels, counted, strict=True):
        there = sorted({*target[use].tolist()})
        values = []
        for number in there:
            p, t = image[number][use], (target[use] == number).float()
            values.append(1 - 2 * float((p * t).sum()) / float(p.sum() + t.sum()))
        total += int(use.sum()) * sum(values) / max(len(values), 1)
    return total


def test_soft_dice_is_that_of_each_image_and_class_by_the_pixels_of_the_image() -> None:
    one = batch()
    one.labels[1] = 0  # an image with a single class
    scores = outputs(one).scores.detach()
    assert float(soft_dice(scores, one.labels, one.counted)) == pytest.approx(
        dice_by_hand(scores, one.labels, one.counted), rel=1e-5
    )


def test_soft_dice_of_a_sure_and_right_answer_is_0_and_of_a_wrong_one_all_pixels() -> None:
    labels = torch.tensor([[[0, 1], [1, 1]]])
    sure = 50 * F.one_hot(labels, 2).movedim(-1, 1).float()
    everywhere = torch.ones_like(labels, dtype=torch.bool)
    assert float(soft_dice(sure, labels, everywhere)) == pytest.approx(0, abs=1e-5)
    assert float(soft_dice(-sure, labels, everywhere)) == pytest.approx(4, abs=1e-5)
    half = torch.zeros_like(sure)  # 1 - 2 (1/2) / (2 + 1) and 1 - 2 (3/2) / (2 + 3): 2/3 and 2/5
    assert float(soft_dice(half, labels, everywhere)) == pytest.approx(4 * (2 / 3 + 2 / 5) / 2)


def test_a_batch_without_a_pixel_that_counts_has_no_loss() -> None:
    one = batch()._replace(counted=torch.zeros(4, 6, 5, dtype=torch.bool))
    output = outputs(one)
    losses = OBJECTIVE.loss(output, one)
    losses.whole.backward()
    assert one.num_targets == 1 and float(losses.whole) == 0 and not output.scores.grad.any()
