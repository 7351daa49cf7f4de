"""Attention: a query looks at a memory and comes back with a context.

Letters: B batch, H heads, T queries (target), S memory slots (source), Q/K/V feature sizes.
"..." is (B,) for plain attention and (B, H) inside MultiHead; nothing below cares which.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seq2attn.errors import Seq2attnError

State = TypeVar("State")


class Memory(NamedTuple):
    """What may be looked at. Made once per source sentence, then only read."""

    keys: Tensor  # (..., S, K), projected by the scorer
    values: Tensor  # (..., S, V)
    mask: Tensor  # (..., 1 or T, S), bool, True = may be looked at

    def append(self, other: "Memory") -> "Memory":
        """This memory with the slots of another behind it: how self-attention grows, step by step."""
        return Memory(
            torch.cat([self.keys, other.keys], -2),
            torch.cat([self.values, other.values], -2),
            torch.cat([self.mask, other.mask], -1),
        )


class Past(NamedTuple):
    """All that an attention may know of its own past; weights are None where nobody asked for them."""

    weights: Tensor | None  # (..., S), the last query's weights
    coverage: Tensor | None  # (..., S), the sum of all weights so far
    step: Tensor  # (B,), queries answered so far

    def then(self, weights: Tensor | None, queries: int) -> "Past":
        """The past after `queries` more queries with these weights (..., T, S)."""
        step = self.step + queries
        if weights is None or self.coverage is None:
            return Past(None, None, step)
        # A memory that has grown since (self-attention) had no weight on its new slots.
        before = F.pad(self.coverage, (0, weights.shape[-1] - self.coverage.shape[-1]))
        return Past(weights[..., -1, :], before + weights.sum(-2), step)


class Attended(NamedTuple):
    """What came back from looking."""

    context: Tensor  # (..., T, V)
    weights: Tensor | None  # (..., T, S), float32, before dropout; None when nobody asked
    past: Past


class Scorer(nn.Module):
    """How well a query and a key go together. Subclass it, and add a line to SCORERS.

    The constructor takes `query_size` and `key_size`; its keyword-only parameters are the options that a
    recipe may set. A scorer sees no mask and does not normalise.
    """

    looks_back = False  # True: the scores depend on the past, so queries are answered one by one

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """What is kept of the memory's states for scoring: done once per source."""
        return states

    def dot_scale(self, size: int) -> float | None:
        """The factor c if the scores are exactly c (query . key), so that a fused kernel may take over."""
        return None

    def forward(
        self, query: Float[Tensor, "*b T Q"], keys: Float[Tensor, "*b S K"], past: Past
    ) -> Float[Tensor, "*b T S"]:
        """Scores of every query and key."""
        raise NotImplementedError(f"{type(self).__name__} must say how it scores: write forward()")


class Normalizer(nn.Module):
    """From scores to weights. Subclass it, and add a line to NORMALIZERS.

    Keyword-only constructor parameters are the options that a recipe may set. Masked slots get weight 0
    and a query with nothing to see gets weights 0 and gradients 0, never nan.
    """

    looks_back = False
    is_softmax = False  # True: exactly the softmax, so that a fused kernel may take over

    def first(self, zeros: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"]:
        """The weights that the very first query finds in its past."""
        return zeros

    def forward(
        self, scores: Float[Tensor, "*b T S"], mask: Bool[Tensor, "*c M S"], past: Past
    ) -> Float[Tensor, "*b T S"]:
        """Weights; the mask broadcasts to the scores (M is 1 or T)."""
        raise NotImplementedError(f"{type(self).__name__} must say how it normalises: write forward()")


class Attention(nn.Module):
    """Score, normalize, sum. Write a new scorer or normalizer; never subclass this.

    >>> attention = Attention(Additive(query_size=4, key_size=6), Softmax())
    >>> memory = attention.remember(states, mask)            # (B, S, 6), (B, 1, S): once per source
    >>> context, weights, past = attention(query, memory)    # (B, T, 4) -> (B, T, 6), (B, T, S)
    """

    def __init__(self, score: Scorer, normalize: Normalizer, dropout: float = 0.0) -> None:
        super().__init__()
        self.score, self.normalize, self.dropout = score, normalize, dropout
        self.looks_back = score.looks_back or normalize.looks_back

    def remember(self, states: Tensor, mask: Tensor, values: Tensor | None = None) -> Memory:
        """States (..., S, K) to look at; mask (..., 1 or T, S); values (..., S, V), the states if None."""
        return Memory(self.score.keys(states), states if values is None else values, mask)

    def begin(self, memory: Memory) -> Past:
        """The past before the first query."""
        zeros = torch.zeros_like(_wide(memory.values)[..., 0])
        return Past(self.normalize.first(zeros), zeros, zeros.new_zeros(len(zeros), dtype=torch.long))

    def forward(
        self,
        query: Float[Tensor, "*b T Q"],
        memory: Memory,
        past: Past | None = None,
        need_weights: bool = True,
    ) -> Attended:
        """Answer T queries. Without need_weights a fused kernel is used where the scores allow it."""
        past = self.begin(memory) if past is None else past
        if self.looks_back and query.shape[-2] > 1:
            return self._one_by_one(query, memory, past)
        scale = self.score.dot_scale(query.shape[-1]) if self.normalize.is_softmax else None
        if scale is not None and not need_weights:
            dropout = self.dropout if self.training else 0.0
            context = F.scaled_dot_product_attention(
                query, memory.keys, memory.values, memory.mask, dropout, scale=scale
            )
            return Attended(context, None, past.then(None, query.shape[-2]))
        with torch.autocast(query.device.type, enabled=False):
            scores = self.score(_wide(query), _wide(memory.keys), past)
            weights = self.normalize(scores, memory.mask, past)
        context = F.dropout(weights, self.dropout, self.training).to(memory.values.dtype) @ memory.values
        return Attended(context, weights, past.then(weights, query.shape[-2]))

    def _one_by_one(self, query: Tensor, memory: Memory, past: Past) -> Attended:
        queries = query.shape[-2]
        masks = memory.mask.expand(*memory.mask.shape[:-2], queries, -1).split(1, dim=-2)
        contexts, weights = [], []
        for one, mask in zip(query.split(1, dim=-2), masks, strict=True):
            attended = self(one, memory._replace(mask=mask), past)
            past = attended.past
            contexts.append(attended.context)
            weights.append(attended.weights)
        return Attended(torch.cat(contexts, -2), torch.cat(weights, -2), past)


class MultiHead(nn.Module):
    """Several attentions side by side, each in its own projection of the space (Vaswani et al. 2017).

    `rotary` turns projected queries and keys by their positions; `None` leaves them.
    """

    def __init__(
        self,
        heads: int,
        query_size: int,
        key_size: int,
        attention: Attention,
        rotary: Callable[[Tensor, Tensor | None], Tensor] | None = None,
    ) -> None:
        super().__init__()
        head_size(query_size, heads)
        self.heads, self.attention, self.rotary = heads, attention, rotary
        self.looks_back = attention.looks_back
        self.query, self.key, self.value, self.out = (
            nn.Linear(size, query_size) for size in (query_size, key_size, key_size, query_size)
        )

    def remember(self, states: Tensor, mask: Tensor, start: Tensor | None = None) -> Memory:
        """States (B, S, K); mask (B, 1 or T, S); start (B,): position of the first state (0 if None)."""
        keys, values = self._split(self.key(states)), self._split(self.value(states))
        return self.attention.remember(self._turn(keys, start), mask.unsqueeze(1), values)

    def begin(self, memory: Memory) -> Past:
        """The past before the first query."""
        return self.attention.begin(memory)

    def forward(
        self,
        query: Float[Tensor, "B T Q"],
        memory: Memory,
        past: Past | None = None,
        need_weights: bool = True,
    ) -> Attended:
        """Context (B, T, Q), weights (B, H, T, S)."""
        queries = self._turn(self._split(self.query(query)), None if past is None else past.step)
        context, weights, past = self.attention(queries, memory, past, need_weights)
        return Attended(self.out(context.transpose(1, 2).flatten(2)), weights, past)

    def _split(self, x: Tensor) -> Tensor:  # (B, L, H*D) -> (B, H, L, D)
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)

    def _turn(self, x: Tensor, start: Tensor | None) -> Tensor:
        return x if self.rotary is None else self.rotary(x, start)


def head_size(size: int, heads: int) -> int:
    """The width of one head; an error if the heads do not divide the size."""
    if heads < 1 or size % heads:
        raise Seq2attnError(f"heads must divide the size: got heads={heads} for size={size}")
    return size // heads


def reorder(state: State, index: Int[Tensor, " N"]) -> State:
    """Take rows of every tensor in a (nested) NamedTuple: the only thing a search asks of a state.

    Rows may be repeated, dropped and permuted; None stays None.
    """
    return _reorder(state, index)  # type: ignore[no-any-return]


def _reorder(state: Any, index: Tensor) -> Any:
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state.index_select(0, index)
    parts = [_reorder(part, index) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def _wide(x: Tensor) -> Tensor:
    """Scores and weights are made in float32, also under autocast (float64 stays)."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
