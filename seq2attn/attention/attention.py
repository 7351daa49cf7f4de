"""Attention: a query looks at a memory and comes back with a context.

Letters: B batch, H heads, T queries (target), S memory slots (source), Q/K/V feature sizes.
"..." is (B,) for plain attention and (B, H) inside MultiHead; nothing below cares which.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.state import expand_to_hypotheses, fold_hypotheses, unfold_hypotheses
from seq2attn.errors import Seq2attnError


class Sentences(NamedTuple):
    """The sentences (or turns, or paragraphs) that slots stand in, for a `Hierarchy`."""

    keys: Tensor  # (..., N, K), projected by its scorer
    there: Tensor  # (..., N), bool, True = a sentence with a slot
    of: Tensor  # (..., S), which of the N a slot stands in; -1 = in none, as padding


class Memory(NamedTuple):
    """What may be looked at. Made once per source sentence, then only read."""

    keys: Tensor  # (..., S, K), projected by the scorer
    values: Tensor  # (..., S, V)
    mask: Tensor  # (..., 1 or T, S), bool, True = may be looked at
    sentences: Sentences | None = None  # where they are looked at, too

    def append(self, other: "Memory") -> "Memory":
        """This memory with the slots of another behind it: how self-attention grows, step by step."""
        keys, values = (torch.cat(parts, -2) for parts in zip(self[:2], other[:2], strict=True))
        return Memory(keys, values, torch.cat([self.mask, other.mask], -1))


class Past(NamedTuple):
    """All that an attention may know of its own past; None is what nobody asked for or nobody keeps."""

    weights: Tensor | None  # (..., S), the last query's weights, zeros before the first
    coverage: Tensor | None  # (..., S), the sum of all weights so far
    step: int  # queries answered so far, as many by each row
    alignment_state: Tensor | None = None  # (..., S), where a normalizer that moves along the memory stands
    trace: Tensor | None = None  # (..., S, C), what a scorer has noted at every slot

    def then(
        self,
        weights: Tensor | None,
        queries: int,
        alignment_state: Tensor | None = None,
        trace: Tensor | None = None,
    ) -> "Past":
        """The past after `queries` more queries with these weights (..., T, S)."""
        step = self.step + queries
        if weights is None or self.coverage is None:
            return Past(None, None, step, alignment_state, trace)
        # A memory that has grown since (self-attention) had no weight on its new slots.
        before = F.pad(self.coverage, (0, weights.shape[-1] - self.coverage.shape[-1]))
        return Past(weights[..., -1, :], before + weights.sum(-2), step, alignment_state, trace)


class Attended(NamedTuple):
    """What came back from looking."""

    context: Tensor  # (..., T, V)
    weights: Tensor | None  # (..., T, S), float32, before dropout; None when nobody asked
    past: Past
    sampled: Tensor | None = None  # (..., T, S), what was looked at, where it was drawn from the weights


class Scorer(nn.Module):
    """How well a query and a key go together. Subclass it, and add a line to SCORERS.

    The constructor takes `query_size` and `key_size`; its keyword-only parameters are the options that a
    recipe may set. A scorer sees no mask and does not normalise. It says how it scores in `forward`; or, if
    its scores are dot products with the keys, in `dot` alone. A `forward` of a subclass replaces both.
    """

    stateful = False  # True: the scores depend on the past, so queries are answered one by one
    position_dependent = False  # True: the scores depend on where a slot stands, or on past.step
    allows_talking_heads = (
        True  # False: some scores stand for "never", which is lost among those of other heads
    )
    positive = False  # True: no score is ever negative

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """What is kept of the memory's states for scoring: done once per source."""
        return states

    def dot(self, query: Float[Tensor, "*b T Q"]) -> Float[Tensor, "*b T K"] | None:
        """The q' whose dot products with the keys are the scores, so that a fused kernel may take over."""
        return None

    def initial_state(self, keys: Float[Tensor, "*b S K"]) -> Float[Tensor, "*b S C"] | None:
        """What is noted at every slot before the first query."""
        return None

    def update_trace(
        self,
        query: Float[Tensor, "*b T Q"],
        keys: Float[Tensor, "*b S K"],
        weights: Float[Tensor, "*b T S"],
        past: Past,
    ) -> Float[Tensor, "*b S C"] | None:
        """What is noted at every slot once a query has its weights: the next `past.trace`."""
        return past.trace

    def forward(
        self, query: Float[Tensor, "*b T Q"], keys: Float[Tensor, "*b S K"], past: Past
    ) -> Float[Tensor, "*b T S"]:
        """Scores of every query and key."""
        dot = self.dot(query)
        if dot is None:
            raise NotImplementedError(f"{_name(self)} must say how it scores: write forward() or dot()")
        return shaped(self, "dot", dot, query.shape[:-1], keys.shape[-1]) @ keys.mT


class Normalizer(nn.Module):
    """From scores to weights. Subclass it, and add a line to NORMALIZERS.

    The constructor takes the queries' size and the number of heads; its keyword-only parameters are the
    options that a recipe may set. Parameters of shape (heads, 1, 1) belong to one head each. Masked slots get
    weight 0, and a query with nothing to see gets weights 0 and gradients 0, never nan.
    """

    stateful = False  # True: the weights depend on the past, so queries are answered one by one
    ordered = False  # True: queries must come in the order of a target that is read along a source
    position_dependent = False  # True: the weights depend on where a slot stands, or on past.step
    sums_to_one = True  # False: the weights of a query may sum to less or more
    needs_positive = False  # True: scores must not be negative
    n_scores = 1  # how many scores it needs for each query and key: (n, ..., T, S) if more than one

    def __init__(self, query_size: int = 1, heads: int = 1) -> None:
        super().__init__()

    def initial_state(self, zeros: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"] | None:
        """Where it stands before the first query: the first `past.belief`."""
        return None

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """Weights; the mask broadcasts to the scores (M is 1 or T)."""
        raise NotImplementedError(f"{type(self).__name__} must say how it normalises: write forward()")

    def step(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> tuple[Float[Tensor, "*b T S"], Float[Tensor, "*b S"] | None]:
        """The weights, and where it stands now: the next `past.belief`."""
        return self(scores, mask, past, query), past.alignment_state

    def sample(self, weights: Float[Tensor, "*b T S"], past: Past) -> Float[Tensor, "*b T S"] | None:
        """What is looked at, if it is drawn from the weights; None: the weights themselves."""
        return None

    @classmethod
    def samples(cls) -> bool:
        """Whether it draws what is looked at: it has a draw() of its own."""
        return cls.sample is not Normalizer.sample

    def fused(
        self, dot: Tensor, memory: Memory, bias: Tensor | None, dropout: float
    ) -> Float[Tensor, "*b T V"] | None:
        """The context (..., T, V) by a faster way; a subclass that writes another forward() has none.

        dot: (..., T, K), the queries whose dot products with memory.keys are the scores; bias: added to them.
        """
        return None


class Relative(nn.Module):
    """How the distance between query and key counts in self-attention. The last query stands at the last key.

    Subclass it, and add a line to POSITIONS.
    """

    def bias(self, query: Float[Tensor, "*b T Q"], slots: int) -> Tensor:
        """What is added to the scores (..., T, S), for T queries that stand at the last of the S slots."""
        raise NotImplementedError(f"{type(self).__name__} must say what it adds to scores: write bias()")

    def values(self, weights: Float[Tensor, "*b T S"]) -> Float[Tensor, "*b T V"] | None:
        """What is added to the context (..., T, V); None: nothing, so that a fused kernel may be used."""
        return None

    adds_values = False  # True: values() is not None


class Hierarchy(nn.Module):
    """How the sentences that slots stand in count, whatever the slots themselves are. See hierarchy.py."""

    def remember(self, states: Tensor, of: Tensor) -> Sentences:
        """From states (..., S, K), and the number of each one's sentence (..., S): -1 = of none."""
        raise NotImplementedError(f"{type(self).__name__} must say what it keeps: write remember()")

    def bias(self, query: Float[Tensor, "*b T Q"], sentences: Sentences) -> Float[Tensor, "*b T S"]:
        """What is added to the scores of the slots."""
        raise NotImplementedError(f"{type(self).__name__} must say what it adds to scores: write bias()")


class Attention(nn.Module):
    """Score, normalize, sum. Write a new scorer or normalizer; never subclass this.

    >>> attention = Attention(Additive(query_size=4, key_size=6), Softmax())
    >>> memory = attention.remember(states, mask)            # (B, S, 6), (B, 1, S): once per source
    >>> context, weights, past, _ = attention(query, memory)  # (B, T, 4) -> (B, T, 6), (B, T, S)
    """

    def __init__(
        self,
        score: Scorer,
        normalize: Normalizer,
        dropout: float = 0.0,
        relative: Relative | None = None,
        hierarchy: Hierarchy | None = None,
    ) -> None:
        super().__init__()
        self.score, self.normalize, self.dropout, self.relative = score, normalize, dropout, relative
        self.hierarchy = hierarchy
        self.stateful = score.stateful or normalize.stateful
        places = score.position_dependent or normalize.position_dependent or relative is not None
        self.foldable = not (self.stateful or places)  # queries and slots may stand beside those of others
        self._fast = _own(score, "dot", "forward") and _own(normalize, "fused", "forward", "step", "sample")
        role = "target to source" if relative is None else "self-attention"
        for _, why in incompatibilities(score, normalize, role, relative is not None, hierarchy is not None):
            raise Seq2attnError(why)

    def remember(
        self, states: Tensor, mask: Tensor, values: Tensor | None = None, sentences: Tensor | None = None
    ) -> Memory:
        """States (..., S, K) to look at; mask (..., 1 or T, S); values (..., S, V), the states if None.

        sentences (..., S): the number of each slot's sentence, for a hierarchy; -1 = of none.
        """
        keys = self.score.keys(states)
        shaped(self.score, "keys", keys, states.shape[:-1], keys.shape[-1])
        memory = Memory(keys, states if values is None else values, mask)
        if self.hierarchy is None:
            return memory
        if sentences is None:
            raise Seq2attnError("this attention looks at sentences: say which slots are of which `sentences`")
        return memory._replace(sentences=self.hierarchy.remember(states, sentences))

    def initial_state(self, memory: Memory) -> Past:
        """The past before the first query."""
        zeros = torch.zeros_like(_wide(memory.values[..., 0]))
        trace = None
        if (
            type(self.score).initial_state is not Scorer.initial_state
        ):  # casting keys takes as long as a look at them
            with torch.autocast(zeros.device.type, enabled=False):
                trace = self.score.initial_state(_wide(memory.keys))
        return Past(zeros, zeros, 0, self.normalize.initial_state(zeros), trace)

    def forward(
        self,
        query: Float[Tensor, "*b T Q"],
        memory: Memory,
        past: Past | None = None,
        need_weights: bool = True,
    ) -> Attended:
        """Answer T queries. Without need_weights a fused kernel is used where the parts allow it.

        Seq2attnError, with its name, for a part that gives another shape than it must.
        """
        past = self.initial_state(memory) if past is None else past
        if len(query) > (sources := len(memory.keys)):
            if not sources or len(query) % sources or query.shape[-2] > 1:
                raise Seq2attnError(f"queries {tuple(query.shape)} for memories of {sources} sources")
            if self.foldable:
                return self._together(query, memory, past, need_weights)
            memory = expand_to_hypotheses(memory, len(query))
        if not memory.keys.shape[-2]:  # no slot at all, and sums over none
            none = _wide(query[..., :0])
            empty = none.to(memory.values.dtype) @ memory.values
            return Attended(empty, none, past.then(none, query.shape[-2], past.alignment_state, past.trace))
        if self.stateful and query.shape[-2] > 1:
            return self._one_by_one(query, memory, past)
        dropout = self.dropout if self.training else 0.0
        if not need_weights and (context := self._fused(query, memory, dropout)) is not None:
            return Attended(context, None, past.then(None, query.shape[-2], past.alignment_state, past.trace))
        with torch.autocast(query.device.type, enabled=False):
            asked, keys = _wide(query), _wide(memory.keys)
            several = () if self.normalize.n_scores == 1 else (self.normalize.n_scores,)
            before, slots = asked.shape[:-1], keys.shape[-2]
            scores = shaped(self.score, "scores", self.score(asked, keys, past), (*several, *before), slots)
            if (bias := self._bias(asked, memory)) is not None:
                scores = scores + bias
            weights, alignment_state = self.normalize.step(scores, memory.mask, past, asked)
            shaped(self.normalize, "weights", weights, before, slots)
            drawn = self.normalize.sample(weights, past)
            trace = self.score.update_trace(asked, keys, weights, past)
        looked = F.dropout(weights if drawn is None else drawn, dropout).to(memory.values.dtype)
        context = looked @ memory.values
        if self.relative is not None and (added := self.relative.values(looked)) is not None:
            context = context + added
        return Attended(context, weights, past.then(weights, query.shape[-2], alignment_state, trace), drawn)

    def _together(self, query: Tensor, memory: Memory, past: Past, need_weights: bool) -> Attended:
        """Several hypotheses of each source ask, a query each. Where what one looked at before does not
        matter, they ask as the queries of one do, so that the memory need not be copied for each."""
        answer = self(
            fold_hypotheses(query, len(memory.keys)), memory, Past(None, None, past.step), need_weights
        )
        weights, drawn = (
            None if x is None else unfold_hypotheses(x) for x in (answer.weights, answer.sampled)
        )
        return Attended(
            unfold_hypotheses(answer.context),
            weights,
            past.then(weights, 1, past.alignment_state, past.trace),
            drawn,
        )

    def _fused(self, query: Tensor, memory: Memory, dropout: float) -> Tensor | None:
        dot = self.score.dot(query) if self._fast else None
        if dot is None or (self.relative is not None and self.relative.adds_values):
            return None
        shaped(self.score, "dot", dot, query.shape[:-1], memory.keys.shape[-1])
        return self.normalize.fused(dot, memory, self._bias(query, memory), dropout)

    def _bias(self, query: Tensor, memory: Memory) -> Tensor | None:
        """What is added to the scores, whatever the slots hold."""
        if self.hierarchy is None or (sentences := memory.sentences) is None:
            return None if self.relative is None else self.relative.bias(query, memory.keys.shape[-2])
        with torch.autocast(query.device.type, enabled=False):
            return self.hierarchy.bias(_wide(query), sentences._replace(keys=_wide(sentences.keys)))

    def _one_by_one(self, query: Tensor, memory: Memory, past: Past) -> Attended:
        masks = memory.mask.expand(*memory.mask.shape[:-2], query.shape[-2], -1).split(1, dim=-2)
        answers = []
        for one, mask in zip(query.split(1, dim=-2), masks, strict=True):
            answers.append(self(one, memory._replace(mask=mask), past))
            past = answers[-1].past
        context, weights = (torch.cat([answer[part] for answer in answers], -2) for part in (0, 1))
        drawn = [answer.sampled for answer in answers if answer.sampled is not None]
        return Attended(context, weights, past, torch.cat(drawn, -2) if drawn else None)


_MADE = {
    "keys": "keys, one for every slot",
    "dot": "queries in dot(), as wide as the keys",
    "scores": "scores of every query and slot",
    "weights": "weights of every query and slot",
}


def shaped(part: Scorer | Normalizer, what: str, made: Tensor, before: Sequence[int], last: int) -> Tensor:
    """What a part has made, if its shape is (*before, last); Seq2attnError if not."""
    if made.shape != (*before, last):
        raise Seq2attnError(
            f"{type(part).__name__}: expected {_MADE[what]}, of the shape {(*before, last)}; got "
            f"{tuple(made.shape)}: mend the class"
        )
    return made


ROLES = ("target to source", "self-attention", "pooling")


def incompatibilities(
    score: Scorer | type[Scorer],
    normalize: Normalizer | type[Normalizer],
    role: str,
    relative: bool = False,
    hierarchy: bool = False,
    names: tuple[str, str] | None = None,
) -> Iterator[tuple[str, str]]:
    """Why parts make no sense together or in a role: ("score", "normalize" or "sentences", the reason).

    relative: whether positions are added to the scores; hierarchy: whether sentences are looked at, too;
    names: what the two parts are called, as their classes are if None.
    """
    scorer, normalizer = names or (_name(score), _name(normalize))
    parts: tuple[tuple[str, str, Any], ...] = (("score", scorer, score), ("normalize", normalizer, normalize))
    for field, name, part in parts:
        if role != "target to source" and (part.stateful or getattr(part, "ordered", False)):
            yield field, f"{name} needs a target that is written step by step; {role} has none"
    if hierarchy and role != "target to source":
        yield "sentences", f"scale what a target looks at in its source: no sense in {role}, set them to null"
    if hierarchy and normalize.needs_positive:
        why = f"add log-weights to the scores, and {normalizer} needs scores that are never negative"
        yield "sentences", f"{why}: use another normalizer, or set them to null"
    if normalize.needs_positive and (relative or not score.positive):
        yield (
            "normalize",
            f"{normalizer} divides by the scores' sum, so none may be negative: use the scorer linear, and "
            "no positions that are added to scores",
        )


def _own(part: nn.Module, fast: str, *slow: str) -> bool:
    """Whether a part's fast way is its own, and not that of a parent whose slow way it has overwritten."""
    kinds = (set(vars(kind)) for kind in type(part).__mro__)
    return fast in next(kind for kind in kinds if not kind.isdisjoint({fast, *slow}))


def _name(part: Any) -> str:
    return part.__name__ if isinstance(part, type) else type(part).__name__


def _wide(x: Tensor) -> Tensor:
    """Scores and weights are made in float32, also under autocast (float64 stays)."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
