"""Multi-head attention: projections, grouped keys, talking heads, sliding windows."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.attention import Attention
from seq2attn.attention.interfaces import Normalizer, Scorer
from seq2attn.attention.masks import check_queries, check_sentences, source_mask
from seq2attn.attention.memory import Attended, Grid, Memory, Past
from seq2attn.attention.renamed import warn_renamed
from seq2attn.errors import Seq2attnError, require_type


class MultiHead(nn.Module):
    """H attentions side by side, each in its own projection of queries, keys and values (Vaswani et al.
    2017).

    rotary: rotates projected queries and keys by their positions; None: no rotation.
    key_heads: G heads of keys and values for the H heads of queries; query head h attends to key head
        h // (H / G) (Ainslie et al. 2023), and G = 1 is multi-query attention (Shazeer 2019). None: G = H.
        The memory holds G heads, so the key-value cache of decoding shrinks by H / G.
    query_key_norm: layer normalization of each projected query and key, before rotation (Dehghani et al.
        2023): their dot products stay bounded.
    """

    def __init__(
        self,
        heads: int,
        query_size: int,
        key_size: int,
        attention: Attention,
        rotary: Callable[..., Tensor] | None = None,
        key_heads: int | None = None,
        query_key_norm: bool = False,
    ) -> None:
        super().__init__()
        require_type(
            attention, Attention, "an Attention, whose scorer and normalizer have the size of a head"
        )
        self.width = head_size(query_size, heads)
        key_heads = heads if key_heads is None else key_heads
        if key_heads < 1 or heads % key_heads:
            raise Seq2attnError(f"key_heads must divide heads: got key_heads={key_heads} for heads={heads}")
        self.heads, self.attention, self.rotary = heads, attention, rotary
        self.group = heads // key_heads
        self.stateful = attention.stateful
        shared = self.width * key_heads
        sizes = (query_size, query_size), (key_size, shared), (key_size, shared), (query_size, query_size)
        self.query, self.key, self.value, self.out = (nn.Linear(*size) for size in sizes)
        self.query_norm, self.key_norm = (
            nn.LayerNorm(self.width, bias=False) if query_key_norm else nn.Identity() for _ in range(2)
        )

    def remember(
        self,
        states: Tensor,
        mask: Tensor,
        start: int = 0,
        sentences: Tensor | None = None,
        grid: Grid | None = None,
    ) -> Memory:
        """Return the memory of states (B, S, K) with a mask (B, S) or (B, 1 or T, S); start: position of the
        first state; sentences (B, S) and grid: see `Attention.remember`; each head scores sentences in its
        own projection.

        Keys and values are (B, G, S, D), the mask (B, 1, 1 or T, S).
        """
        mask = source_mask(mask, states)
        sentence_ids = None if sentences is None else check_sentences(sentences, states).unsqueeze(1)
        keys = self.key_norm(self._split_heads(self.key(states)))
        values = self._split_heads(self.value(states))
        keys = self._rotate(keys, start, grid)
        return self.attention.remember(keys, mask.unsqueeze(1), values, sentence_ids, grid)

    def context_size(self, value_size: int) -> int:
        """Return the width of the context of values of this width: that of the queries."""
        return self.out.out_features

    def initial_state(self, memory: Memory) -> Past:
        """Return the past before the first query."""
        past = self.attention.initial_state(memory)
        if self.group == 1:
            return past
        # Repeated here, and not in the memory: a past is much smaller than keys and values.
        return past._replace(
            weights=self._repeat_heads(past.weights),
            coverage=self._repeat_heads(past.coverage),
            alignment_state=self._repeat_heads(past.alignment_state),
            trace=self._repeat_heads(past.trace),
        )

    def begin(self, memory: Memory) -> Past:
        """The deprecated name of `initial_state`."""
        warn_renamed("MultiHead", "begin", "initial_state")
        return self.initial_state(memory)

    def forward(
        self,
        query: Float[Tensor, "B T Q"],
        memory: Memory,
        past: Past | None = None,
        need_weights: bool = True,
    ) -> Attended:
        """Attend with T queries: context (B, T, Q), weights (B, H, T, S)."""
        check_queries(query, memory.keys.shape[0], 3)
        queries = self.query_norm(self._split_heads(self.query(query)))
        queries = self._rotate(queries, 0 if past is None else past.step, memory.grid)
        attended: Attended = self.attention(queries, self._repeat_key_heads(memory), past, need_weights)
        return attended._replace(context=self.out(attended.context.transpose(1, 2).flatten(2)))

    def _split_heads(self, x: Tensor) -> Tensor:  # (B, L, heads * D) -> (B, heads, L, D)
        heads: Tensor = x.unflatten(-1, (-1, self.width))
        return heads.transpose(1, 2)

    def _rotate(self, x: Tensor, start: int, grid: Grid | None) -> Tensor:
        if self.rotary is None:
            return x
        return self.rotary(x, start) if grid is None else self.rotary(x, start, grid)

    def _repeat_heads(self, x: Tensor | None) -> Tensor | None:  # (B, G, ...) -> (B, H, ...)
        return None if x is None else x.repeat_interleave(self.group, 1)

    def _repeat_key_heads(self, memory: Memory) -> Memory:
        """Repeat each head of keys and values for the heads of its group, which are neighbours."""
        if self.group == 1:
            return memory
        keys, values = (part.repeat_interleave(self.group, 1) for part in (memory.keys, memory.values))
        sentences = memory.sentences
        if sentences is not None:
            sentences = sentences._replace(keys=sentences.keys.repeat_interleave(self.group, 1))
        return memory._replace(keys=keys, values=values, sentences=sentences)


def head_size(size: int, heads: int) -> int:
    """Return the width of one head; Seq2attnError if the heads do not divide the size."""
    for number in (size, heads):
        require_type(number, int, "the size of an attention and its heads as whole numbers")
    if heads < 1 or size % heads:
        raise Seq2attnError(f"heads must divide the size: got heads={heads} for size={size}")
    return size // heads


class Window(NamedTuple):
    """A sliding window of self-attention: a query attends to the `size` positions |i - j| < size, its own
    included, and to the first `sinks` positions.

    Softmax puts the weight that it has no use for on the first positions, so a window that loses them breaks
    (Xiao et al. 2024). A stack reaches further than one window: each layer adds size - 1 positions.
    """

    size: int
    sinks: int = 0

    def mask(self, length: int, device: torch.device) -> Bool[Tensor, "L L"]:
        """Return which positions each query may attend to, before and after its own; a decoder masks the
        future itself."""
        positions = torch.arange(length, device=device)
        return ((positions[:, None] - positions).abs() < self.size) | (positions < self.sinks)

    def keep(self, memory: Memory) -> Memory:
        """Return the part of a memory that the query at the next position may attend to."""
        length = memory.keys.shape[-2]
        start = length - (self.size - 1)
        if start <= self.sinks:
            return memory
        kept = [*range(self.sinks), *range(start, length)]
        index = torch.tensor(kept, dtype=torch.long, device=memory.keys.device)
        keys, values = memory.keys.index_select(-2, index), memory.values.index_select(-2, index)
        return Memory(keys, values, memory.mask.index_select(-1, index))


# ---- talking heads -----------------------------------------------------------------------------------


class TalkingScorer(Scorer):
    """e'_g = sum_h P_hg e_h: mixes the scores of the heads (Shazeer et al. 2020); P = I at the start."""

    def __init__(self, score: Scorer, heads: int) -> None:
        super().__init__()
        _require_talking(score)
        self.score, self.mix = score, nn.Parameter(torch.eye(heads))
        self.stateful, self.position_dependent = score.stateful, score.position_dependent

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """Return the keys of the inner scorer."""
        return self.score.keys(states)

    def initial_state(self, keys: Float[Tensor, "*b S K"]) -> Float[Tensor, "*b S C"] | None:
        """Return the initial state of the inner scorer."""
        return self.score.initial_state(keys)

    def update_trace(
        self,
        query: Float[Tensor, "*b T Q"],
        keys: Float[Tensor, "*b S K"],
        weights: Float[Tensor, "*b T S"],
        past: Past,
    ) -> Float[Tensor, "*b S C"] | None:
        """Return the next trace of the inner scorer."""
        return self.score.update_trace(query, keys, weights, past)

    def forward(
        self, query: Float[Tensor, "*b T Q"], keys: Float[Tensor, "*b S K"], past: Past
    ) -> Float[Tensor, "*b T S"]:
        """See the class; the mask is applied later, so that nothing infinite is mixed."""
        return _mix_heads(self.score(query, keys, past), self.mix)


class TalkingNormalizer(Normalizer):
    """a'_g = sum_h P_hg a_h: mixes the weights of the heads (Shazeer et al. 2020); P = I at the start.

    A head's weights may then sum to less or more than 1, and be negative.
    """

    sums_to_one = False

    def __init__(self, normalize: Normalizer, heads: int) -> None:
        super().__init__()
        _require_talking(normalize)
        self.normalize, self.mix = normalize, nn.Parameter(torch.eye(heads))
        self.position_dependent = normalize.position_dependent

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*d T Q"],
    ) -> Float[Tensor, "*e T S"]:
        """See the class."""
        return _mix_heads(self.normalize(scores, mask, past, query), self.mix)


def talking_incompatibility(part: type[Scorer] | type[Normalizer]) -> str | None:
    """Return the reason why the heads of a scorer or a normalizer cannot talk; None if they can."""
    name = part.__name__
    if issubclass(part, Scorer):
        why = (
            f"{name} has a score for positions that get no weight, which mixing heads would lose: no talking"
        )
        return None if part.allows_talking_heads else why
    if part.needs_positive:
        return f"{name} divides by the scores' sum, and mixed scores may be negative: no talking"
    if part.stateful or part.n_scores > 1 or part.samples():
        return f"{name} follows the weights of its own head, which mixing heads would change: no talking"
    return None


def _require_talking(part: Scorer | Normalizer) -> None:
    if (why := talking_incompatibility(type(part))) is not None:
        raise Seq2attnError(why)


def _mix_heads(x: Tensor, mix: Tensor) -> Tensor:  # (..., H, T, S)
    return torch.einsum("...hts,hg->...gts", x, mix)
