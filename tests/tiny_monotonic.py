"""Monotonic normalizers, and how to run them over queries."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from seq2attn.attention import Past
from seq2attn.attention.normalizers import HardMonotonic, MILk, MoChA, Monotonic
from seq2attn.attention.normalizers.monotonic import MonotonicScan

B, T, S, Q = 3, 5, 7, 11
LENGTHS = torch.tensor([7, 4, 1])
MASK = (torch.arange(S) < LENGTHS[:, None])[:, None]
EXHAUSTED = ("zero", "keep", "last")
Make = Callable[[], MonotonicScan]
EVERY: dict[str, Make] = {
    **{f"monotonic {e}": lambda e=e: Monotonic(noise=0.0, exhausted=e) for e in EXHAUSTED},
    **{f"mocha {e}": lambda e=e: MoChA(width=3, noise=0.0, exhausted=e) for e in EXHAUSTED},
    "milk": lambda: MILk(noise=0.0),
    "hard_monotonic": HardMonotonic,
}
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def energies(normalize: MonotonicScan, *shape: int) -> Tensor:
    """Random scores, as many as it needs."""
    return random(*shape) if normalize.n_scores == 1 else random(normalize.n_scores, *shape)


def run(
    normalize: MonotonicScan, scores: Tensor, mask: Tensor, past: Past | None = None
) -> tuple[Tensor, Tensor]:
    """The weights of all queries (..., T, S), and where each left it (..., T, S)."""
    zeros = scores[0, ..., 0, :] if normalize.n_scores > 1 else scores[..., 0, :]
    zeros = torch.zeros_like(zeros)
    past = past or Past(zeros, zeros, 0, normalize.initial_state(zeros))
    weights, beliefs = [], []
    mask = mask.expand(*mask.shape[:-2], scores.shape[-2], -1)
    for t in range(scores.shape[-2]):
        now = slice(t, t + 1)
        query = zeros.unsqueeze(-2)
        answer, alignment_state = normalize.step(scores[..., now, :], mask[..., now, :], past, query)
        past = past.then(answer, 1, alignment_state)
        weights.append(answer), beliefs.append(alignment_state)
    return torch.cat(weights, -2), torch.stack(beliefs, -2)


def scores_of(stops: Tensor) -> Tensor:
    """What gives these chances to a part whose bias is -1."""
    return stops.logit() + 1


def one_hot(places: list[int | None], slots: int) -> Tensor:
    rows = [[float(j == place) for j in range(slots)] for place in places]
    return torch.tensor(rows, dtype=torch.float64)
