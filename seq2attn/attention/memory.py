"""The values that go into and come out of an attention: `Memory`, `Past` and `Attended`.

Letters: B batch, H heads, T queries (target positions), S source positions, N sentences of a source,
Q/K/V feature sizes of queries, keys and values. "..." is (B,) for plain attention and (B, H) inside
MultiHead.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seq2attn.attention.renamed import warn_renamed

Grid = tuple[int, int]  # rows and columns of positions, which are numbered row by row


class Sentences(NamedTuple):
    """The sentences (or turns, or paragraphs) of each source, for an attention with a `Hierarchy`."""

    keys: Tensor  # (..., N, K), a key for each sentence, projected by its scorer
    mask: Tensor  # (..., N), bool, True = the sentence has a source position
    ids: Tensor  # (..., S), the sentence (0 ... N-1) of each source position; -1 = none, as on padding


class Memory(NamedTuple):
    """The keys and values that queries attend to. A memory is made once per source, then only read."""

    keys: Tensor  # (..., S, K), projected by the scorer
    values: Tensor  # (..., S, V)
    mask: Tensor  # (..., 1 or T, S), bool, True = the query may attend to this source position
    sentences: Sentences | None = None  # for an attention with a hierarchy
    grid: Grid | None = None  # that the source positions lie on, as those of an image; None: a sequence

    def append(self, other: "Memory") -> "Memory":
        """Return this memory followed by the positions of another, as self-attention grows step by step."""
        keys = torch.cat([self.keys, other.keys], -2)
        values = torch.cat([self.values, other.values], -2)
        return Memory(keys, values, torch.cat([self.mask, other.mask], -1))


class Past(NamedTuple):
    """State carried from query to query; None: no part of this attention uses the field."""

    weights: Tensor | None  # (..., S), the last query's weights, zeros before the first query
    coverage: Tensor | None  # (..., S), the sum of all weights so far
    step: int  # the number of queries so far, the same in every row
    alignment_state: Tensor | None = None  # (..., S), the position of a normalizer along the source
    trace: Tensor | None = None  # (..., S, C), features that a scorer keeps for each source position
    grid: Grid | None = None  # that the source positions lie on; None: a sequence

    @property
    def belief(self) -> Tensor | None:
        """The deprecated name of `alignment_state`."""
        warn_renamed("Past", "belief", "alignment_state")
        return self.alignment_state

    def then(
        self,
        weights: Tensor | None,
        queries: int,
        alignment_state: Tensor | None = None,
        trace: Tensor | None = None,
    ) -> "Past":
        """Return the past after `queries` more queries with these weights (..., T, S)."""
        if not queries:
            return self
        step = self.step + queries
        if weights is None or self.coverage is None:
            return Past(None, None, step, alignment_state, trace, self.grid)
        # Positions that were appended since (self-attention) have had no weight.
        before = F.pad(self.coverage, (0, weights.shape[-1] - self.coverage.shape[-1]))
        coverage = before + weights.sum(-2)
        return Past(weights[..., -1, :], coverage, step, alignment_state, trace, self.grid)


class Attended(NamedTuple):
    """The output of an attention call."""

    context: Tensor  # (..., T, V)
    weights: Tensor | None  # (..., T, S), float32, before dropout; None if they were not needed
    past: Past
    sampled: Tensor | None = None  # (..., T, S), the weights that were used, if sampled from `weights`
