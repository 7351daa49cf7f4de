"""Metrics of generated images: distances between the features of two sets of images, and their neighbours.

Each number depends on what computes the features, so that its name says what it was: `FD(resnet20@1a2b3c)` is
the Frechet distance on the features of a run that we have trained. It is no FID, which is defined by one
network with one set of weights, and cannot be compared with any.

Letters: N and M images, D features, K classes.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2attn.metrics.base import SEED, Score, ScoringError, UndefinedScoreError

Matrix = NDArray[np.float64]
NEIGHBOURS = 3  # k of precision and recall (Kynkaanniemi et al. 2019)
ROWS = 1024  # of a matrix of pairs that are in memory at once


class ImageFeatures(NamedTuple):
    """Features of a set of images."""

    source: str  # what computed them: resnet20@1a2b3c, pixels8x8
    vectors: Matrix  # (N, D)
    probabilities: Matrix | None = None  # (N, K), of classes; None: it is no classifier


@dataclass(frozen=True)
class Distance(Score):
    """A score with three digits, whatever its size."""

    @property
    def number(self) -> str:
        """Return the value as text, without the signature."""
        return f"{self.name} = {self.value:.3g}"


# ---- the formulas ----------------------------------------------------------------------------------------


def frechet_distance(mean: Matrix, covariance: Matrix, other_mean: Matrix, other_covariance: Matrix) -> float:
    """Return the squared Frechet distance of two Gaussians (Dowson & Landau 1982):
    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2).

    The last trace is a sum of roots of eigenvalues, which are real and not negative: no root of a matrix that
    is not symmetric, as C1 C2, is taken.
    """
    root = square_root(covariance)
    values = np.linalg.eigvalsh(root @ other_covariance @ root)
    traces = np.trace(covariance) + np.trace(other_covariance) - 2 * np.sqrt(values.clip(min=0)).sum()
    return float(np.square(mean - other_mean).sum() + traces)


def square_root(matrix: Matrix) -> Matrix:
    """Return the square root of a symmetric matrix without negative eigenvalues but those of rounding."""
    values, vectors = np.linalg.eigh(matrix)
    root: Matrix = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def kernel_distance(vectors: Matrix, others: Matrix) -> float:
    """Return the unbiased estimate of MMD^2 with the kernel (x . y / D + 1)^3 (Binkowski et al. 2018), which
    may be negative."""
    count, other_count = len(vectors), len(others)
    own, other_own = (_kernel_sum(part, part, same=True) for part in (vectors, others))
    cross = _kernel_sum(vectors, others, same=False)
    return float(
        own / (count * (count - 1))
        + other_own / (other_count * (other_count - 1))
        - 2 * cross / (count * other_count)
    )


def _kernel_sum(vectors: Matrix, others: Matrix, same: bool) -> float:
    """Return the sum of the kernel over all pairs; of the same images, without pairs of one with itself."""
    total = sum(float(((part @ others.T / vectors.shape[1] + 1) ** 3).sum()) for part in _parts(vectors))
    return total - float(((np.square(vectors).sum(1) / vectors.shape[1] + 1) ** 3).sum()) if same else total


def share_within(vectors: Matrix, others: Matrix, neighbours: int = NEIGHBOURS) -> float:
    """Return the share of vectors that lie in the support of others: not farther from one of them than its
    k-th nearest neighbour (Kynkaanniemi et al. 2019, eq. 1)."""
    radii = np.concatenate(
        [np.partition(_squares(part, others), neighbours, axis=1)[:, neighbours] for part in _parts(others)]
    )  # (M,); the nearest is the vector itself
    inside = [(_squares(part, others) <= radii).any(1) for part in _parts(vectors)]
    return float(np.concatenate(inside).mean())


def _parts(vectors: Matrix) -> list[Matrix]:
    return [vectors[start : start + ROWS] for start in range(0, len(vectors), ROWS)]


def _squares(vectors: Matrix, others: Matrix) -> Matrix:
    """Return squared distances (N, M)."""
    lengths, other_lengths = np.square(vectors).sum(1)[:, None], np.square(others).sum(1)
    squares: Matrix = (lengths + other_lengths - 2 * vectors @ others.T).clip(min=0)
    return squares


# ---- the metrics: functions of generated and real images ---------------------------------------------------


def frechet(hypotheses: Any, references: Any, bootstrap: int = 1000, seed: int = SEED) -> Score:
    """The squared Frechet distance of Gaussians with the means and covariances of the features. It is too
    large for few images, by about 1/n: compare distances of equally many."""
    samples, real = _checked(hypotheses, references)
    moments = [part(vectors) for vectors in (samples.vectors, real.vectors) for part in (_mean, _covariance)]
    return Distance(f"FD({real.source})", frechet_distance(*moments), _signature(samples, real))


def kernel(hypotheses: Any, references: Any, bootstrap: int = 1000, seed: int = SEED) -> Score:
    """1000 times the unbiased MMD^2 of the features with a cubic kernel, whose mean does not depend on n."""
    samples, real = _checked(hypotheses, references)
    value = 1000 * kernel_distance(samples.vectors, real.vectors)
    return Distance(f"1000 MMD2({real.source})", value, f"kernel:cubic|{_signature(samples, real)}")


def sample_precision(hypotheses: Any, references: Any, bootstrap: int = 1000, seed: int = SEED) -> Score:
    """The percentage of generated images that are like real ones: in the support of their features."""
    samples, real = _checked(hypotheses, references)
    return _share("precision", samples, real, samples, real)


def sample_recall(hypotheses: Any, references: Any, bootstrap: int = 1000, seed: int = SEED) -> Score:
    """The percentage of real images that are like generated ones."""
    samples, real = _checked(hypotheses, references)
    return _share("recall", real, samples, samples, real)


def class_entropy(hypotheses: Any, references: Any, bootstrap: int = 1000, seed: int = SEED) -> Score:
    """The entropy of the classes that a classifier sees in generated images, as a percentage of that of
    equally frequent ones."""
    samples, real = _checked(hypotheses, references)
    if samples.probabilities is None:
        raise ScoringError(
            f"class-entropy needs a classifier's features, and {samples.source} has no classes"
        )
    count = samples.probabilities.shape[1]
    shares = np.bincount(samples.probabilities.argmax(1), minlength=count) / len(samples.vectors)
    entropy = (shares[shares > 0] * np.log(1 / shares[shares > 0])).sum() / np.log(max(count, 2))
    return Score(f"class-entropy({real.source})", 100 * float(entropy), _signature(samples, real))


def _share(
    name: str, of: ImageFeatures, within: ImageFeatures, samples: ImageFeatures, real: ImageFeatures
) -> Score:
    neighbours = min(NEIGHBOURS, len(within.vectors) - 1)
    value = 100 * share_within(of.vectors, within.vectors, neighbours)
    return Score(f"{name}({real.source})", value, f"k:{neighbours}|{_signature(samples, real)}")


def _mean(vectors: Matrix) -> Matrix:
    mean: Matrix = vectors.mean(0)
    return mean


def _covariance(vectors: Matrix) -> Matrix:
    return np.atleast_2d(np.cov(vectors, rowvar=False))


def _signature(samples: ImageFeatures, real: ImageFeatures) -> str:
    return f"features:{real.source}|n:{len(samples.vectors)}|real:{len(real.vectors)}"


def _checked(hypotheses: Any, references: Any) -> tuple[ImageFeatures, ImageFeatures]:
    """Return features of generated and real images. ScoringError for anything else."""
    both = hypotheses, references
    if not all(isinstance(part, ImageFeatures) for part in both):
        got = " and ".join(type(part).__name__ for part in both)
        raise ScoringError(f"metrics of generated images compare ImageFeatures with ImageFeatures, got {got}")
    samples, real = both
    if samples.source != real.source:
        raise ScoringError(
            f"expected features of one source, got those of {samples.source} and {real.source}"
        )
    if (fewest := min(len(samples.vectors), len(real.vectors))) < 2:
        raise UndefinedScoreError(
            f"expected at least two images on both sides, got {fewest}: they have no variance"
        )
    return samples, real
