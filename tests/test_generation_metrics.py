"""Distances between sets of images: closed forms, slow loops, and names that say what was measured."""

from itertools import combinations, product

import numpy as np
import pytest

from seq2attn.metrics import METRICS, ScoringError, metrics_of, score
from seq2attn.metrics.generation import (
    ImageFeatures,
    frechet_distance,
    kernel_distance,
    share_within,
    square_root,
)

RANDOM = np.random.default_rng(7)


def covariance(size: int) -> np.ndarray:
    root = RANDOM.normal(size=(size, 2 * size))
    return root @ root.T / size


def test_the_frechet_distance_of_gaussians_on_a_line() -> None:
    for m1, s1, m2, s2 in ((0.0, 1.0, 0.0, 1.0), (1.0, 2.0, -3.0, 0.5), (0.0, 0.0, 0.0, 3.0)):
        one, other = (np.array([m1]), np.array([[s1**2]])), (np.array([m2]), np.array([[s2**2]]))
        assert frechet_distance(*one, *other) == pytest.approx((m1 - m2) ** 2 + (s1 - s2) ** 2, abs=1e-12)


def test_the_frechet_distance_of_rotated_ellipses() -> None:
    """With common axes it is the sum over them."""
    axes, _ = np.linalg.qr(RANDOM.normal(size=(5, 5)))
    first, second = RANDOM.uniform(0.1, 2, 5), RANDOM.uniform(0.1, 2, 5)
    one, other = (axes @ np.diag(deviations**2) @ axes.T for deviations in (first, second))
    mean = RANDOM.normal(size=5)
    expected = np.square(mean).sum() + np.square(first - second).sum()
    assert frechet_distance(mean, one, np.zeros(5), other) == pytest.approx(expected, rel=1e-10)


def test_the_trace_of_the_root_is_that_of_the_product() -> None:
    """tr (C1^1/2 C2 C1^1/2)^1/2 = the sum of the roots of the eigenvalues of C1 C2."""
    one, other, zero = covariance(6), covariance(6), np.zeros(6)
    roots = np.sqrt(np.linalg.eigvals(one @ other).real).sum()
    expected = np.trace(one) + np.trace(other) - 2 * roots
    assert frechet_distance(zero, one, zero, other) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(zero, one, zero, one) == pytest.approx(0, abs=1e-10)
    np.testing.assert_allclose(square_root(one) @ square_root(one), one, atol=1e-12)
    singular = np.outer(zero + 1, zero + 1)
    np.testing.assert_allclose(square_root(singular) @ square_root(singular), singular, atol=1e-7)


def test_the_kernel_distance_is_a_sum_over_pairs() -> None:
    vectors, others = RANDOM.normal(size=(5, 4)), RANDOM.normal(size=(7, 4)) + 0.5

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 4 + 1) ** 3)

    own, other_own = (
        np.mean([kernel(x, y) for i, x in enumerate(part) for j, y in enumerate(part) if i != j])
        for part in (vectors, others)
    )
    cross = np.mean([kernel(x, y) for x, y in product(vectors, others)])
    assert kernel_distance(vectors, others) == pytest.approx(own + other_own - 2 * cross, rel=1e-10)


def test_the_kernel_distance_has_no_bias() -> None:
    """Over all ways to divide vectors into two sets its mean is exactly 0."""
    vectors = RANDOM.normal(size=(6, 3))
    distances = [
        kernel_distance(vectors[list(chosen)], np.delete(vectors, chosen, 0))
        for chosen in combinations(range(6), 3)
    ]
    assert np.mean(distances) == pytest.approx(0, abs=1e-12)
    assert min(distances) < 0 < max(distances)


def test_precision_and_recall_count_who_lies_near_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    real = np.array([[0.0], [1.0], [2.0], [10.0]])  # with k = 1, radii 1, 1, 1, 8
    samples = np.array([[-0.5], [3.5], [20.0], [30.0], [2.9]])
    assert share_within(samples, real, 1) == 3 / 5  # -0.5 and 2.9 near 0 and 2; 3.5 within the radius of 10
    points, others = RANDOM.normal(size=(30, 3)), RANDOM.normal(size=(40, 3))
    expected = 0
    for point in points:
        radii = [sorted(np.linalg.norm(others - other, axis=1))[3] for other in others]
        expected += bool((np.linalg.norm(others - point, axis=1) <= radii).any())
    for rows in (1024, 7):
        monkeypatch.setattr("seq2attn.metrics.generation.ROWS", rows)
        assert share_within(points, others) == expected / 30


def features(count: int, shift: float = 0.0, source: str = "net@1a2b3c") -> ImageFeatures:
    vectors = np.random.default_rng(count).normal(size=(count, 3)) + shift
    return ImageFeatures(source, vectors, np.eye(4)[np.arange(count) % 2])


def test_a_score_says_by_which_features_and_how_many_images() -> None:
    far = {
        name: METRICS[name].function(features(40, 1.0), features(50), 0)
        for name in metrics_of("generated images")
    }  # type: ignore[arg-type]
    assert far["frechet"].name == "FD(net@1a2b3c)" and "FID" not in str(far)
    assert far["frechet"].signature == "features:net@1a2b3c|n:40|real:50"
    assert far["kernel"].signature.startswith("kernel:cubic|") and far["sample-recall"].signature.startswith(
        "k:3|"
    )
    assert far["class-entropy"].value == pytest.approx(50.0)  # two of four classes, equally often
    near = {name: METRICS[name].function(features(41), features(50), 0) for name in far}  # type: ignore[arg-type]
    assert near["frechet"].value < 0.5 < 2 < far["frechet"].value
    assert near["kernel"].value < far["kernel"].value
    assert near["sample-precision"].value > far["sample-precision"].value


def test_what_cannot_be_compared_is_an_error() -> None:
    for samples, real, fault in (
        (features(1), features(9), "at least two images on both sides, got 1"),
        (features(9), features(9, source="pixels8x8"), "features of one source"),
        (["a"], ["b"], "compare ImageFeatures with ImageFeatures, got list and list"),
    ):
        with pytest.raises(ScoringError, match=fault):
            METRICS["frechet"].function(samples, real, 0)  # type: ignore[arg-type]
    alike = features(9)._replace(probabilities=np.eye(4)[[2] * 9])
    assert not METRICS["class-entropy"].function(alike, alike, 0).number.startswith("-")  # type: ignore[arg-type]
    plain = features(9)._replace(probabilities=None)
    with pytest.raises(ScoringError, match="needs a classifier's features"):
        METRICS["class-entropy"].function(plain, plain, 0)  # type: ignore[arg-type]
    with pytest.raises(ScoringError, match="got list and list"):
        score(["a"], ["a"], ["frechet"], bootstrap=0)
