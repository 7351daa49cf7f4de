"""Normalizers with options that make them another mechanism, and scores and masks for them.

Sizes are different primes, as everywhere.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seq2attn.attention import Normalizer, Past
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import Dot

B, H, T, S = 3, 2, 5, 7
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "softmax": ("softmax", {}),
    "softmax, cool": ("softmax", {"temperature": 0.5}),
    "softmax, learned": ("softmax", {"temperature": 2.0, "learned_temperature": True}),
    "sink": ("softmax_sink", {"start": 0.7}),
    "plus one": ("softmax_sink", {"learned": False}),
    "sigmoid": ("sigmoid", {}),
    "sigmoid, learned": ("sigmoid", {"start": -1.5}),
    "smoothing": ("sigmoid", {"normalized": True}),
    "smoothing, learned": ("sigmoid", {"normalized": True, "start": -1.5}),
    "sum": ("sum", {}),
    "sparsemax": ("sparsemax", {}),
    "entmax": ("entmax", {}),
    "entmax, 1.25": ("entmax", {"alpha": 1.25}),
    "entmax, learned": ("entmax", {"alpha": 1.4, "learned": True}),
    "hardmax": ("hardmax", {}),
    "gumbel": ("gumbel", {"temperature": 0.5}),
    "gumbel, hard": ("gumbel", {"hard": True}),
    "hard": ("hard", {}),
}
ONE_SLOT = {"hardmax", "gumbel, hard"}  # in evaluation: the first of equals, the gradient of another function


def made(variant: str, heads: int = H) -> Normalizer:
    """In float64 and evaluation."""
    name, options = VARIANTS[variant]
    return NORMALIZERS[name](11, heads, **options).double().eval()


NO_PAST = Past(None, None, 0)


def weigh(normalize: Normalizer, scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """The weights, by the draw if there is one; all may be seen without a mask."""
    mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    weights = normalize(scores, mask, NO_PAST, torch.zeros(*scores.shape[:-1], 11, dtype=scores.dtype))
    drawn = normalize.sample(weights, NO_PAST)
    return weights if drawn is None or not normalize.training else drawn


def energies(variant: str, *shape: int, size: float = 2.0) -> Tensor:
    scores = size * torch.randn(*(shape or (B, H, T, S)), dtype=torch.float64)
    return scores.abs() if variant == "sum" else scores


def scattered() -> Tensor:
    """(B, 1, T, S): each query sees other slots; one sees none, nor does the last sentence."""
    mask = torch.rand(B, 1, T, S) < 0.6
    mask[0, 0, 2] = mask[2] = False
    return mask


class Positive(Dot):
    """Scores that are never negative."""

    positive = True

    def keys(self, states: Tensor) -> Tensor:
        return F.elu(states) + 1

    def dot(self, query: Tensor) -> Tensor:
        return F.elu(query) + 1


class Biased(torch.nn.Module):
    """Adds a score of its own to each pair."""

    adds_values = False

    def bias(self, query: Tensor, slots: int) -> Tensor:
        return torch.arange(query.shape[-2] * slots).view(-1, slots).to(query.dtype) / 17

    def values(self, weights: Tensor) -> None:
        return None
