"""Several attentions side by side: in projections of their own, sharing keys, talking, within a window."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.attention import Attended, Attention, Memory, Normalizer, Past, Scorer
from seq2attn.errors import Seq2attnError


class MultiHead(nn.Module):
    """Several attentions side by side, each in its own projection of the space (Vaswani et al. 2017).

    rotary: turns projected queries and keys by their positions; None leaves them.
    key_heads: G heads of keys and values for the H heads of queries; query head h looks at number
        h // (H / G) (Ainslie et al. 2023), and 1 is multi-query attention (Shazeer 2019). None: G = H.
        The memory holds G heads, so that what decoding keeps shrinks by H / G.
    query_key_norm: layer normalization of each projected query and key, before they are turned (Dehghani et
        al. 2023): their dot products stay bounded.
    """

    def __init__(
        self,
        heads: int,
        query_size: int,
        key_size: int,
        attention: Attention,
        rotary: Callable[[Tensor, int], Tensor] | None = None,
        key_heads: int | None = None,
        query_key_norm: bool = False,
    ) -> None:
        super().__init__()
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
    ) -> Memory:
        """States (B, S, K); mask (B, 1 or T, S); start: position of the first state;
        sentences (B, S): see `Attention.remember`, each head looks at them in its own projection.

        Keys and values (B, G, S, D), mask (B, 1, 1 or T, S).
        """
        of = None if sentences is None else sentences.unsqueeze(1)
        keys, values = self.key_norm(self._split(self.key(states))), self._split(self.value(states))
        return self.attention.remember(self._turn(keys, start), mask.unsqueeze(1), values, of)

    def initial_state(self, memory: Memory) -> Past:
        """The past before the first query."""
        past = self.attention.initial_state(memory)
        if self.group == 1:
            return past

        def each(x: Tensor | None) -> Tensor | None:  # narrow: keys and values need not be repeated for it
            return None if x is None else x.repeat_interleave(self.group, 1)

        weights, coverage, step, alignment_state, trace = past
        return Past(each(weights), each(coverage), step, each(alignment_state), each(trace))

    def forward(
        self,
        query: Float[Tensor, "B T Q"],
        memory: Memory,
        past: Past | None = None,
        need_weights: bool = True,
    ) -> Attended:
        """Context (B, T, Q), weights (B, H, T, S)."""
        queries = self.query_norm(self._split(self.query(query)))
        queries = self._turn(queries, 0 if past is None else past.step)
        attended: Attended = self.attention(queries, self._for_all(memory), past, need_weights)
        return attended._replace(context=self.out(attended.context.transpose(1, 2).flatten(2)))

    def _split(self, x: Tensor) -> Tensor:  # (B, L, heads * D) -> (B, heads, L, D)
        heads: Tensor = x.unflatten(-1, (-1, self.width))
        return heads.transpose(1, 2)

    def _turn(self, x: Tensor, start: int) -> Tensor:
        return x if self.rotary is None else self.rotary(x, start)

    def _for_all(self, memory: Memory) -> Memory:
        """Each head of keys and values once for every head of its group: neighbours share, no tiling."""
        if self.group == 1:
            return memory
        keys, values = (part.repeat_interleave(self.group, 1) for part in (memory.keys, memory.values))
        sentences = memory.sentences
        if sentences is not None:
            sentences = sentences._replace(keys=sentences.keys.repeat_interleave(self.group, 1))
        return memory._replace(keys=keys, values=values, sentences=sentences)


def head_size(size: int, heads: int) -> int:
    """The width of one head; an error if the heads do not divide the size."""
    if heads < 1 or size % heads:
        raise Seq2attnError(f"heads must divide the size: got heads={heads} for size={size}")
    return size // heads


class Window(NamedTuple):
    """What self-attention sees: |i - j| < size, so `size` slots with its own; and the first `sinks` slots.

    Softmax parks the weight that it has no use for on the first slots, so a window that loses them breaks
    (Xiao et al. 2024). Layers see further than one window: each reaches size - 1 slots beyond the one below.
    """

    size: int
    sinks: int = 0

    def mask(self, length: int, device: torch.device) -> Bool[Tensor, "L L"]:
        """Which of the slots each query sees, both sides of its own; a decoder cuts off the future itself."""
        place = torch.arange(length, device=device)
        return ((place[:, None] - place).abs() < self.size) | (place < self.sinks)

    def keep(self, memory: Memory) -> Memory:
        """What the next query can still see of a memory that ends at this one."""
        slots, gone = memory.keys.shape[-2], memory.keys.shape[-2] - (self.size - 1)
        if gone <= self.sinks:
            return memory
        kept = [*range(self.sinks), *range(gone, slots)]
        index = torch.tensor(kept, dtype=torch.long, device=memory.keys.device)
        keys, values = (part.index_select(-2, index) for part in memory[:2])
        return Memory(keys, values, memory.mask.index_select(-1, index))


# ---- talking heads -----------------------------------------------------------------------------------


class TalkingScorer(Scorer):
    """e'_g = sum_h P_hg e_h: the heads' scores together (Shazeer et al. 2020); P = I at the start."""

    def __init__(self, score: Scorer, heads: int) -> None:
        super().__init__()
        _may_talk(score)
        self.score, self.mix = score, nn.Parameter(torch.eye(heads))
        self.stateful, self.position_dependent = score.stateful, score.position_dependent

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """Those of the scorer."""
        return self.score.keys(states)

    def initial_state(self, keys: Float[Tensor, "*b S K"]) -> Float[Tensor, "*b S C"] | None:
        """That of the scorer."""
        return self.score.initial_state(keys)

    def update_trace(
        self,
        query: Float[Tensor, "*b T Q"],
        keys: Float[Tensor, "*b S K"],
        weights: Float[Tensor, "*b T S"],
        past: Past,
    ) -> Float[Tensor, "*b S C"] | None:
        """That of the scorer."""
        return self.score.update_trace(query, keys, weights, past)

    def forward(
        self, query: Float[Tensor, "*b T Q"], keys: Float[Tensor, "*b S K"], past: Past
    ) -> Float[Tensor, "*b T S"]:
        """See the class; the mask comes after, so that nothing infinite is mixed."""
        return _mixed(self.score(query, keys, past), self.mix)


class TalkingNormalizer(Normalizer):
    """a'_g = sum_h P_hg a_h: the heads' weights together (Shazeer et al. 2020); P = I at the start.

    A head's weights may then sum to less or more than 1, and be negative.
    """

    sums_to_one = False

    def __init__(self, normalize: Normalizer, heads: int) -> None:
        super().__init__()
        _may_talk(normalize)
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
        return _mixed(self.normalize(scores, mask, past, query), self.mix)


def talking_incompatibility(part: type[Scorer] | type[Normalizer]) -> str | None:
    """Why the heads of a scorer or a normalizer cannot talk; None if they can."""
    name = part.__name__
    if issubclass(part, Scorer):
        why = f"{name} has a score for places that are never seen: mixed with others' it is none, no talking"
        return None if part.allows_talking_heads else why
    if part.needs_positive:
        return f"{name} divides by the scores' sum, and mixed scores may be negative: no talking"
    if part.stateful or part.n_scores > 1 or part.samples():
        return f"{name} follows the weights of its own head: mixed with others' they are none"
    return None


def _may_talk(part: Scorer | Normalizer) -> None:
    if (why := talking_incompatibility(type(part))) is not None:
        raise Seq2attnError(why)


def _mixed(x: Tensor, mix: Tensor) -> Tensor:  # (..., H, T, S)
    return torch.einsum("...hts,hg->...gts", x, mix)
