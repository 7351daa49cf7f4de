"""Attention: compares queries with the keys of a memory, and returns a weighted sum of its values.

Letters and shapes: see `seq2attn.attention`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention.compatibility import incompatibilities
from seq2attn.attention.interfaces import Hierarchy, Normalizer, Relative, Scorer, check_shape
from seq2attn.attention.masks import (
    check_grid,
    check_mask_of_queries,
    check_queries,
    check_sentences,
    source_mask,
)
from seq2attn.attention.memory import Attended, Grid, Memory, Past
from seq2attn.attention.precision import full_precision
from seq2attn.attention.renamed import warn_renamed
from seq2attn.attention.state import expand_to_hypotheses, fold_hypotheses, unfold_hypotheses
from seq2attn.errors import Seq2attnError, require_type


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
        require_type(score, Scorer, 'a scorer first, such as SCORERS["additive"](query_size, key_size)')
        require_type(normalize, Normalizer, 'then a normalizer, such as NORMALIZERS["softmax"](query_size)')
        require_type(relative, (Relative, type(None)), "relative positions (a Relative), or None")
        require_type(hierarchy, (Hierarchy, type(None)), "a Hierarchy, or None")
        if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
            raise Seq2attnError(
                f"expected the dropout rate as a number from 0 to below 1, got {dropout!r:.60}"
            )
        self.score, self.normalize, self.dropout, self.relative = score, normalize, dropout, relative
        self.hierarchy = hierarchy
        #: Weights (..., T, S) pass here before they are used (T = 1 in a stateful attention). In calls that
        #: need weights, a forward hook gets the tensors that the context has gradients with respect to.
        self.hook_weights = nn.Identity()
        self.stateful = score.stateful or normalize.stateful
        positions = score.position_dependent or normalize.position_dependent or relative is not None
        self.foldable = not (self.stateful or positions)  # the order of queries and keys does not matter
        self._may_fuse = _is_current(score, "dot", "forward") and _is_current(
            normalize, "fused", "forward", "step", "sample"
        )
        role = "target to source" if relative is None else "self-attention"
        for _, why in incompatibilities(score, normalize, role, relative is not None, hierarchy is not None):
            raise Seq2attnError(why)

    def remember(
        self,
        states: Tensor,
        mask: Tensor,
        values: Tensor | None = None,
        sentences: Tensor | None = None,
        grid: Grid | None = None,
    ) -> Memory:
        """Return the memory of states (..., S, K), with a mask (..., S), or (..., 1 or T, S) if the T queries
        have masks of their own; True = may be attended to.

        values (..., S, V): the states if None. sentences (..., S): the sentence of each state as a number,
        for a hierarchy; -1 = none. grid: the rows and columns that the S states lie on, row by row; None: a
        sequence. Seq2attnError if a mask is not boolean, or a shape is another.
        """
        mask = source_mask(mask, states)
        if values is not None and values.shape[:-1] != states.shape[:-1]:
            raise Seq2attnError(
                f"expected a value for each of the states {tuple(states.shape)}, got {tuple(values.shape)}"
            )
        keys = self.score.keys(states)
        check_shape(self.score, "keys", keys, states.shape[:-1], keys.shape[-1])
        memory = Memory(keys, states if values is None else values, mask, grid=check_grid(grid, states))
        if self.hierarchy is None:
            return memory
        if sentences is None:
            raise Seq2attnError(
                "this attention weights the sentences of a source: pass the sentence of each source position "
                "as `sentences`"
            )
        return memory._replace(sentences=self.hierarchy.remember(states, check_sentences(sentences, states)))

    @property
    def attention(self) -> "Attention":
        """This attention: as MultiHead.attention, that of a head."""
        return self

    def context_size(self, value_size: int) -> int:
        """Return the width of the context of values of this width."""
        return value_size

    def initial_state(self, memory: Memory) -> Past:
        """Return the past before the first query."""
        zeros = torch.zeros_like(_at_least_float32(memory.values[..., 0]))
        trace = None
        if type(self.score).initial_state is not Scorer.initial_state:  # casting keys is as slow as a query
            with full_precision(zeros.device):
                trace = self.score.initial_state(_at_least_float32(memory.keys))
        return Past(zeros, zeros, 0, self.normalize.initial_state(zeros), trace, memory.grid)

    def begin(self, memory: Memory) -> Past:
        """The deprecated name of `initial_state`."""
        warn_renamed("Attention", "begin", "initial_state")
        return self.initial_state(memory)

    def forward(
        self,
        query: Float[Tensor, "*b T Q"],
        memory: Memory,
        past: Past | None = None,
        need_weights: bool = True,
    ) -> Attended:
        """Attend with T queries. Without need_weights a fused kernel is used where the parts allow it.

        Raise Seq2attnError if the queries do not fit the memory, or, with the name of the part, if a part
        returns a tensor of the wrong shape.
        """
        # Not len(): a trace of these steps has numbers of rows that vary.
        check_queries(query, sources := memory.keys.shape[0], memory.keys.dim())
        past = self.initial_state(memory) if past is None else past
        if query.shape[0] > sources:
            if self.foldable:
                return self._attend_folded(query, memory, past, need_weights)
            memory = expand_to_hypotheses(memory, query.shape[0])
        check_mask_of_queries(memory.mask, query)
        queries, keys = query.shape[-2], memory.keys.shape[-2]
        if not keys:  # an empty source: the sum over it is zero
            weights = _at_least_float32(query[..., :0])  # (..., T, 0)
            context = weights.to(memory.values.dtype) @ memory.values
            return Attended(context, weights, past.then(weights, queries, past.alignment_state, past.trace))
        if self.stateful and queries > 1:
            return self._attend_stepwise(query, memory, past)
        dropout = self.dropout if self.training else 0.0
        if not need_weights and (fused := self._fused(query, memory, dropout)) is not None:
            return Attended(fused, None, past.then(None, queries, past.alignment_state, past.trace))
        return self._attend(query, memory, past, dropout)

    def _attend(self, query: Tensor, memory: Memory, past: Past, dropout: float) -> Attended:
        """Score, normalize, sum. A stateful part takes a single query, T = 1."""
        leading, n_scores = query.shape[:-1], self.normalize.n_scores
        with full_precision(query.device):
            wide_query, keys = _at_least_float32(query), _at_least_float32(memory.keys)
            scores = self.score(wide_query, keys, past)  # (..., T, S), or (n_scores, ..., T, S)
            expected = leading if n_scores == 1 else (n_scores, *leading)
            check_shape(self.score, "scores", scores, expected, keys.shape[-2])
            if (bias := self._bias(wide_query, memory)) is not None:
                scores = scores + bias
            weights, alignment_state = self.normalize.step(scores, memory.mask, past, wide_query)
            weights = self.hook_weights(weights)
            check_shape(self.normalize, "weights", weights, leading, keys.shape[-2])
            sampled = self.normalize.sample(weights, past)
            trace = self.score.update_trace(wide_query, keys, weights, past)
        used = F.dropout(weights if sampled is None else sampled, dropout).to(memory.values.dtype)
        context = used @ memory.values  # (..., T, V)
        if self.relative is not None and (added := self.relative.values(used)) is not None:
            context = context + added
        past = past.then(weights, query.shape[-2], alignment_state, trace)
        return Attended(context, weights, past, sampled)

    def _attend_folded(self, query: Tensor, memory: Memory, past: Past, need_weights: bool) -> Attended:
        """Fold the K hypotheses of a source into the query axis instead of copying its memory K times; valid
        only if weights depend on neither state nor position."""
        folded = fold_hypotheses(query, memory.keys.shape[0])
        attended: Attended = self(folded, memory, Past(None, None, past.step), need_weights)
        weights = None if attended.weights is None else unfold_hypotheses(attended.weights)
        sampled = None if attended.sampled is None else unfold_hypotheses(attended.sampled)
        past = past.then(weights, 1, past.alignment_state, past.trace)
        return Attended(unfold_hypotheses(attended.context), weights, past, sampled)

    def _attend_stepwise(self, query: Tensor, memory: Memory, past: Past) -> Attended:
        """Attend with the T queries in order, each with the past after the previous query."""
        masks = memory.mask.expand(*memory.mask.shape[:-2], query.shape[-2], -1)
        steps: list[Attended] = []
        for step_query, mask in zip(query.split(1, dim=-2), masks.split(1, dim=-2), strict=True):
            steps.append(self(step_query, memory._replace(mask=mask), past))
            past = steps[-1].past
        context = torch.cat([step.context for step in steps], -2)
        weights = torch.cat([step.weights for step in steps if step.weights is not None], -2)
        samples = [step.sampled for step in steps if step.sampled is not None]
        return Attended(context, weights, past, torch.cat(samples, -2) if samples else None)

    def _fused(self, query: Tensor, memory: Memory, dropout: float) -> Tensor | None:
        """Return the context by the fused path of the normalizer; None if the parts do not allow it."""
        dot = self.score.dot(query) if self._may_fuse else None
        if dot is None or (self.relative is not None and self.relative.adds_values):
            return None
        check_shape(self.score, "dot", dot, query.shape[:-1], memory.keys.shape[-1])
        return self.normalize.fused(dot, memory, self._bias(query, memory), dropout)

    def _bias(self, query: Tensor, memory: Memory) -> Tensor | None:
        """Return the term that relative positions or sentences add to the scores (..., T, S)."""
        if self.hierarchy is None or (sentences := memory.sentences) is None:
            if self.relative is None:
                return None
            grid = () if memory.grid is None else (memory.grid,)
            return self.relative.bias(query, memory.keys.shape[-2], *grid)
        with full_precision(query.device):
            sentences = sentences._replace(keys=_at_least_float32(sentences.keys))
            return self.hierarchy.bias(_at_least_float32(query), sentences)


def _is_current(part: nn.Module, fast: str, *slow: str) -> bool:
    """Whether the fast path of a part computes the same as its slow one: no subclass of the class that
    defines the fast one has overridden a slow one."""
    definitions = (set(vars(kind)) for kind in type(part).__mro__)
    return fast in next(names for names in definitions if not names.isdisjoint({fast, *slow}))


def _at_least_float32(x: Tensor) -> Tensor:
    """Widen half precision: scores and weights are float32, also under autocast (float64 stays)."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
