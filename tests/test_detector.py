"""Heads of detectors and their losses: laws, and slow references written as loops."""

import math
from typing import Any

import numpy as np
import pytest
import tiny_detector
import torch
import torch.nn.functional as F
from slow_boxes import slow_point_loss, slow_query_loss
from torch import Tensor
from torch.testing import assert_close

from seq2attn.data.box_batches import BoxBatch, BoxedImage
from seq2attn.models.vision.detector import ObjectDetector
from seq2attn.recipe.detection import DetectionTrainingRecipe
from seq2attn.training.trainer import Trainer

HEADS = sorted(tiny_detector.HEADS)
EMPTY = BoxedImage(np.zeros((24, 16, 1), np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64))


def several() -> list[BoxedImage]:
    """Images of several sizes, one of them without boxes."""
    sizes = (40, 48), (33, 20), (17, 47), (40, 48), (21, 21)
    return [tiny_detector.scene(seed, *size) for seed, size in enumerate(sizes, 3)] + [EMPTY]


# ---- images in a batch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_an_image_has_the_same_boxes_in_any_batch(head: str) -> None:
    model = tiny_detector.moved_weights(tiny_detector.detector(head)).eval()
    scenes = several()
    whole = tiny_detector.batch(scenes)
    assert whole.mask is not None
    with torch.no_grad():
        together = model(whole.images, whole.mask).candidates()
        for row, one in enumerate(scenes):
            alone = model(tiny_detector.batch([one]).images).candidates()
            there = together.scores[row].sum(-1) > 0
            assert_close(together.scores[row, there], alone.scores[0], atol=1e-5, rtol=1e-4)
            assert_close(together.boxes[row, there], alone.boxes[0], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_of_a_batch_is_the_sum_of_its_images(head: str) -> None:
    # Divisors of points are sums of products, for which the order counts; queries have positions in float32.
    dtype = torch.float64 if head == "points" else torch.float32
    model = tiny_detector.moved_weights(tiny_detector.detector(head)).eval().to(dtype)
    objective, scenes = tiny_detector.objective(head), several()
    batches = [
        batch._replace(images=batch.images.to(dtype), boxes=batch.boxes.to(dtype))
        for batch in (tiny_detector.batch(scenes), *(tiny_detector.batch([one]) for one in scenes))
    ]
    whole, *single = (objective.loss(objective.forward(model, batch), batch) for batch in batches)
    assert_close(whole.whole, torch.stack([losses.whole for losses in single]).sum())
    assert whole.divisor_in(batches[0]) == pytest.approx(
        sum(losses.divisor_in(batch) for losses, batch in zip(single, batches[1:], strict=True))
    )
    for name, part in whole.parts.items():
        assert_close(part, torch.stack([losses.parts[name] for losses in single]).sum())


def updated(head: str, batches: list[BoxBatch]) -> tuple[dict[str, Tensor], Any]:
    """Return the gradients of one update, and its stats."""
    settings = {"optimizer": "sgd", "learning_rate": 1.0, "clip": None, "max_steps": 1}
    model = tiny_detector.moved_weights(tiny_detector.detector(head))
    recipe = DetectionTrainingRecipe.model_validate(settings)
    before = {name: part.detach().clone() for name, part in model.named_parameters()}
    trainer = Trainer(model, tiny_detector.objective(head), recipe, torch.device("cpu"), 1)
    stats = trainer.update(batches, 1)
    return {name: before[name] - part.detach() for name, part in model.named_parameters()}, stats


@pytest.mark.parametrize("head", HEADS)
def test_the_gradient_does_not_depend_on_how_an_update_is_cut(head: str) -> None:
    """Though the divisor, the sum of target scores, is known only after the last batch."""
    scenes = several()
    one, whole = updated(head, [tiny_detector.batch(scenes)])
    four, parts = updated(
        head, [tiny_detector.batch(scenes[a:b]) for a, b in ((0, 1), (1, 3), (3, 5), (5, 6))]
    )
    assert (whole.loss, whole.norm) == pytest.approx((parts.loss, parts.norm), rel=1e-4)
    assert whole.parts == pytest.approx(parts.parts, rel=1e-4)
    for name, gradient in one.items():
        assert_close(four[name], gradient, rtol=1e-3, atol=1e-4 * whole.norm)


@pytest.mark.parametrize("head", HEADS)
def test_the_gradient_is_that_of_the_losses_divided_by_their_divisor(head: str) -> None:
    batch = tiny_detector.batch(several())
    gradient, stats = updated(head, [batch])
    model = tiny_detector.moved_weights(tiny_detector.detector(head)).train()
    objective = tiny_detector.objective(head)
    losses = objective.loss(objective.forward(model, batch), batch)
    divisor = losses.divisor_in(batch)
    assert stats.loss == pytest.approx(float(losses.loss.detach()) / divisor, rel=1e-4)
    assert head == "queries" or divisor != pytest.approx(batch.num_targets, rel=0.01)
    (losses.whole / divisor).backward()
    for name, expected in tiny_detector.gradients(model).items():
        assert_close(gradient[name], expected, rtol=1e-3, atol=1e-4 * stats.norm)


@pytest.mark.parametrize("head", HEADS)
def test_a_batch_without_boxes_teaches_that_there_is_nothing(head: str) -> None:
    gradient, stats = updated(head, [tiny_detector.batch([EMPTY, EMPTY])])
    assert math.isfinite(stats.loss) and stats.norm > 0 and stats.tokens == 0
    assert all(part.isfinite().all() for part in gradient.values())
    assert [stats.parts[name] for name in stats.parts if name != "classes"] == [0.0, 0.0]


# ---- points ----------------------------------------------------------------------------------------------


def output_of(model: ObjectDetector, batch: BoxBatch) -> Any:
    with torch.no_grad():
        return model.eval()(batch.images, batch.mask)


def test_the_loss_of_points_is_that_of_the_loops() -> None:
    model = tiny_detector.moved_weights(tiny_detector.detector("points"))
    tiny = BoxedImage(several()[0].image, np.array([[9.0, 9, 11, 12], [20, 6, 38, 33]]), np.array([1, 0]))
    batch = tiny_detector.batch([*several(), tiny])
    output, objective = output_of(model, batch), tiny_detector.objective("points")
    losses = objective.loss(output, batch)
    whole, count = slow_point_loss(output, batch)
    assert float(losses.whole) == pytest.approx(whole, rel=1e-4)
    assert losses.divisor_in(batch) == pytest.approx(count, rel=1e-4) and 0.5 < count < 50


def test_points_lie_in_the_middle_of_their_cells_and_boxes_around_them() -> None:
    output = output_of(
        tiny_detector.detector("points"), tiny_detector.batch([tiny_detector.scene(1, 40, 48)])
    )
    assert output.points[:3].tolist() == [[2.0, 2.0], [6.0, 2.0], [10.0, 2.0]]  # stride 4
    assert output.points[10 * 12].tolist() == [4.0, 4.0] and output.strides.unique().tolist() == [4.0, 8.0]
    sides = torch.full_like(output.sides, -60.0)
    for side, distance in enumerate((1, 2, 3, 4)):
        sides[..., side, distance] = 60.0
    x, y = output.points[5].tolist()
    boxes = output._replace(sides=sides).boxes()
    assert boxes[0, 5].tolist() == pytest.approx([x - 4, y - 8, x + 12, y + 16], abs=1e-4)


def test_classes_start_as_rare_as_objects_are() -> None:
    model = tiny_detector.detector("points")
    for stride, tower in zip(model.head.strides, model.head.classes, strict=True):
        assert tower.out.bias.exp().tolist() == pytest.approx([5 / 2 / (640 / stride) ** 2] * 2)


# ---- queries ---------------------------------------------------------------------------------------------


def test_the_loss_of_queries_is_that_of_the_best_permutation() -> None:
    model = tiny_detector.moved_weights(tiny_detector.detector("queries"))
    batch = tiny_detector.batch(several())
    output, objective = output_of(model, batch), tiny_detector.objective("queries")
    losses = objective.loss(output, batch)
    assert float(losses.whole) == pytest.approx(slow_query_loss(output, batch), rel=1e-4)
    assert losses.divisor_in(batch) == batch.num_targets > 3


def test_more_boxes_than_queries_are_trained_on() -> None:
    model = tiny_detector.detector("queries", queries=2)
    boxes = np.array([[x, 4.0, x + 8, 12.0] for x in range(1, 30, 4)])
    batch = tiny_detector.batch([BoxedImage(several()[0].image, boxes, np.zeros(len(boxes), np.int64))])
    losses = tiny_detector.objective("queries").loss(output_of(model, batch), batch)
    assert losses.whole.isfinite() and losses.divisor_in(batch) == 8


def test_a_box_stands_where_its_query_attends() -> None:
    """At the start there is no shift yet: the centre is the mean position under the weights."""
    output = output_of(tiny_detector.detector("queries"), tiny_detector.batch(several()))
    rows, columns = output.grid
    share = output.weights.mean(1).unflatten(-1, output.grid)
    x = (share.sum(2) * (torch.arange(columns) + 0.5)).sum(-1) * 8
    y = (share.sum(3) * (torch.arange(rows) + 0.5)).sum(-1) * 8
    centres = (output.boxes()[..., :2] + output.boxes()[..., 2:]) / 2
    assert_close(centres, torch.stack([x, y], -1))
    assert F.relu(-output.weights).sum() == 0
