"""Distances of the sides of boxes as distributions, and their loss.

Letters: P boxes, R bins of a distance.
"""

import torch
from jaxtyping import Float
from torch import Tensor

_BEFORE_LAST = 0.01  # how far the largest target of a distance stays below the last bin


def expected_distances(logits: Float[Tensor, "*b R"]) -> Float[Tensor, "*b"]:
    """Return sum_k k softmax(logits)_k, the distance that a distribution over the bins 0 ... R - 1 stands for
    (Li et al. 2020, eq. 5)."""
    bins = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    return logits.softmax(-1) @ bins


def distribution_focal_loss(
    logits: Float[Tensor, "P 4 R"], distances: Float[Tensor, "P 4"]
) -> Float[Tensor, " P"]:
    """Return the cross-entropy with the two bins around each distance, weighted by how near they are (Li et
    al. 2020, eq. 6), as the mean of the four sides.

    A distance is cut to 0 ... R - 1.01.
    """
    target = distances.clamp(0, logits.shape[-1] - 1 - _BEFORE_LAST)
    left = target.long()
    share = target - left  # of the right bin
    log_p = logits.log_softmax(-1)  # (P, 4, R)
    below, above = (log_p.gather(-1, bin.unsqueeze(-1)).squeeze(-1) for bin in (left, left + 1))
    return -((1 - share) * below + share * above).mean(-1)
