"""Overlaps, losses, suppression and assignment of boxes, against slow references written as loops."""

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_boxes import slow_assignment, slow_ciou, slow_giou, slow_iou, slow_suppression
from torch import Tensor
from torch.testing import assert_close

from seq2attn.layers.box_assignment import Alignment, assign_aligned, match
from seq2attn.layers.box_losses import distribution_focal_loss, expected_distances
from seq2attn.layers.boxes import center_size, complete_iou, corners, generalized_iou, iou, suppressed


def some_boxes(count: int, seed: int, side: float = 40.0) -> Tensor:
    random = np.random.default_rng(seed)
    low = random.uniform(0, side, (count, 2))
    return torch.tensor(np.concatenate([low, low + random.uniform(1, side / 2, (count, 2))], 1)).float()


# ---- overlaps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fast", "slow"), [(iou, slow_iou), (generalized_iou, slow_giou), (complete_iou, slow_ciou)]
)
def test_overlaps_are_those_of_the_formula(fast: Any, slow: Any) -> None:
    ours, others = some_boxes(12, 1), some_boxes(9, 2)
    others[0] = ours[0]  # equal
    others[1] = torch.tensor([200.0, 200.0, 210.0, 220.0])  # far away
    expected = [[slow(a, b) for b in others.tolist()] for a in ours.tolist()]
    assert_close(fast(ours[:, None], others[None]), torch.tensor(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fast", [iou, generalized_iou, complete_iou])
def test_overlaps_have_finite_gradients_for_empty_equal_and_distant_boxes(fast: Any) -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 1, 1], [5, 5, 5, 9], [0, 0, 4, 4]]).requires_grad_()
    gold = torch.tensor([[0.0, 0, 4, 4], [1, 1, 1, 1], [50, 60, 70, 80], [100, 0, 101, 1]])
    value = fast(boxes, gold)
    assert value.isfinite().all()
    value.sum().backward()
    assert boxes.grad is not None and boxes.grad.isfinite().all()


def test_the_share_of_the_shape_term_gets_no_gradient() -> None:
    gold = torch.tensor([[2.0, 1, 9, 30]], dtype=torch.float64)
    boxes = torch.tensor([[1.0, 3, 12, 17]], dtype=torch.float64).requires_grad_()
    overlap = iou(boxes, gold)
    both = torch.cat([boxes, gold])
    hull = torch.stack([both[:, 2].max() - both[:, 0].min(), both[:, 3].max() - both[:, 1].min()])
    centres = center_size(both)[:, :2]
    ratio = torch.atan((boxes[0, 2] - boxes[0, 0]) / (boxes[0, 3] - boxes[0, 1])) - math.atan(7 / 29)
    v = 4 / math.pi**2 * ratio**2
    share = (v / (1 - overlap + v)).detach()
    expected = overlap - (centres[0] - centres[1]).square().sum() / hull.square().sum() - share * v
    for mine, theirs in zip(
        torch.autograd.grad(complete_iou(boxes, gold).sum(), boxes),
        torch.autograd.grad(expected.sum(), boxes),
        strict=True,
    ):
        assert_close(mine, theirs)


def test_corners_are_the_inverse_of_centre_and_size() -> None:
    boxes = some_boxes(7, 3)
    assert_close(corners(center_size(boxes)), boxes)


# ---- distances -------------------------------------------------------------------------------------------


def test_a_distance_is_learned_by_its_two_bins() -> None:
    logits = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1))
    distances = torch.tensor([[0.0, 2.25, 3.0, 4.99], [9.0, 5.0, 4.995, -3.0], [1.5, 1.5, 1.5, 1.5]])
    expected = []
    for row, sides in zip(logits.tolist(), distances.tolist(), strict=True):
        losses = []
        for values, distance in zip(row, sides, strict=True):
            whole = math.log(sum(map(math.exp, values)))
            cut = min(max(distance, 0.0), 6 - 1.01)
            left = int(cut)
            losses.append(
                (left + 1 - cut) * (whole - values[left]) + (cut - left) * (whole - values[left + 1])
            )
        expected.append(sum(losses) / 4)
    assert_close(distribution_focal_loss(logits, distances), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert_close(
        expected_distances(torch.tensor([[0.0, 0.0, 0.0], [0.0, 99.0, 0.0]])), torch.tensor([1.0, 1.0])
    )


# ---- suppression -----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(0, 40), overlap=st.sampled_from([0.0, 0.3, 0.7]))
def test_suppression_is_that_of_the_loop(seed: int, count: int, overlap: float) -> None:
    random = np.random.default_rng(seed)
    boxes = some_boxes(count, seed, 15.0)
    scores = torch.tensor(random.integers(0, 6, count) / 5).float()  # with ties
    classes = torch.tensor(random.integers(0, 2, count))
    expected = slow_suppression(boxes.tolist(), scores.tolist(), classes.tolist(), overlap)
    assert suppressed(boxes, scores, classes, overlap).tolist() == expected


def test_suppression_does_not_depend_on_the_order_of_different_scores() -> None:
    boxes, scores, classes = some_boxes(30, 4, 12.0), torch.linspace(0, 1, 30), torch.arange(30) % 3
    order = torch.tensor(np.random.default_rng(1).permutation(30))
    kept = suppressed(boxes, scores, classes, 0.2)
    assert order[suppressed(boxes[order], scores[order], classes[order], 0.2)].tolist() == kept.tolist()
    assert 3 < len(kept) < 30


# ---- assignment ------------------------------------------------------------------------------------------


def grid_points(side: int, strides: tuple[int, ...]) -> Tensor:
    return torch.tensor(
        [
            [(x + 0.5) * s, (y + 0.5) * s]
            for s in strides
            for y in range(-(-side // s))
            for x in range(-(-side // s))
        ]
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(0, 9), top=st.sampled_from([1, 3, 10]))
def test_the_assignment_is_that_of_the_loops(seed: int, count: int, top: int) -> None:
    random = np.random.default_rng(seed)
    points = grid_points(48, (8, 16))
    low = points - torch.tensor(random.uniform(1, 14, (len(points), 2))).float()
    boxes = torch.cat([low, points + torch.tensor(random.uniform(1, 14, (len(points), 2))).float()], 1)
    gold, labels = some_boxes(count, seed, 30.0), random.integers(0, 3, count)
    if count > 2:
        gold[1] = torch.tensor([12.5, 12.5, 15.5, 14.5])  # between the points
        gold[2] = gold[0] + 0.25  # nearly the same place
    scores, real = random.uniform(0.01, 1, (len(points), 3)), random.uniform(size=len(points)) < 0.9
    rule = Alignment(top=top)
    assigned = assign_aligned(
        torch.tensor(scores).float(),
        boxes,
        points,
        torch.tensor(real),
        gold,
        torch.tensor(labels).long(),
        rule,
    )
    box_of, target = slow_assignment(
        scores.tolist(), boxes.tolist(), points.tolist(), real.tolist(), gold.tolist(), labels.tolist(), rule
    )
    learning = [n for n, score in enumerate(target) if score > 0]
    assert assigned.box[learning].tolist() == [box_of[n] for n in learning]
    assert_close(assigned.score, torch.tensor(target).float(), atol=1e-4, rtol=1e-3)
    assert (assigned.box[~torch.tensor(real)] == -1).all()


def test_more_boxes_than_points_are_assigned() -> None:
    points, gold = torch.tensor([[4.0, 4.0], [12.0, 4.0]]), some_boxes(30, 5, 8.0)
    boxes = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8]])
    everywhere, labels = torch.ones(2, dtype=torch.bool), torch.zeros(30).long()
    assigned = assign_aligned(torch.full((2, 1), 0.5), boxes, points, everywhere, gold, labels)
    assert (assigned.box >= 0).all() and len({*assigned.box.tolist()}) == 2


def test_an_image_without_boxes_assigns_nothing() -> None:
    points = grid_points(16, (8,))
    assigned = assign_aligned(
        torch.full((4, 2), 0.5),
        torch.zeros(4, 4),
        points,
        torch.ones(4) > 0,
        torch.zeros(0, 4),
        torch.zeros(0).long(),
    )
    assert assigned.box.tolist() == [-1] * 4 and assigned.score.tolist() == [0.0] * 4


def test_of_equal_points_the_first_are_taken() -> None:
    points = grid_points(32, (8,))
    boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0]]).expand(16, 4)  # all as good as any other
    gold, labels = torch.tensor([[0.0, 0.0, 32.0, 32.0]]), torch.tensor([0])
    assigned = assign_aligned(
        torch.full((16, 1), 0.5), boxes, points, torch.ones(16) > 0, gold, labels, Alignment(top=3)
    )
    assert assigned.box.tolist() == [0] * 3 + [-1] * 13
    assert assigned.score.tolist() == pytest.approx([1.0] * 3 + [0.0] * 13)


# ---- matching --------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(0, 5), columns=st.integers(0, 6))
def test_the_matching_costs_as_little_as_the_best_permutation(seed: int, rows: int, columns: int) -> None:
    cost = np.random.default_rng(seed).integers(-4, 5, (rows, columns)).astype(float)  # with ties
    found = match(cost)
    few, many = min(rows, columns), max(rows, columns)
    wide = cost if rows <= columns else cost.T
    best = min(sum(wide[n, k] for n, k in enumerate(order)) for order in permutations(range(many), few))
    assert len(found[0]) == few and len({*found[0].tolist()}) == few and len({*found[1].tolist()}) == few
    assert cost[found].sum() == pytest.approx(best)
    assert found[0].tolist() == sorted(found[0].tolist())


def test_a_large_matching_is_that_of_scipy() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    cost = np.random.default_rng(3).normal(size=(40, 100))
    assert cost[match(cost)].sum() == pytest.approx(cost[optimize.linear_sum_assignment(cost)].sum())
