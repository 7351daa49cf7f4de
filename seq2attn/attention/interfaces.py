"""The exchangeable parts of an attention, as base classes: Scorer, Normalizer, Relative and Hierarchy."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.memory import Grid, Memory, Past, Sentences
from seq2attn.attention.renamed import RenamedHooks
from seq2attn.errors import NotDefinedError, Seq2attnError


class Scorer(RenamedHooks, nn.Module):
    """Scores how well a query matches a key. Subclass it, and add a line to SCORERS.

    The constructor takes `query_size` and `key_size`; its keyword-only parameters are the options that a
    recipe may set. A scorer does not use the mask and does not normalize. A subclass defines `forward`;
    or, if its scores are dot products with the keys, `dot` alone. If it defines `forward`, the `dot` of its
    parent is not used.
    """

    renamed: ClassVar[Mapping[str, str]] = {
        "looks_back": "stateful",
        "reads_places": "position_dependent",
        "mixes": "allows_talking_heads",
        "first": "initial_state",
        "note": "update_trace",
    }

    stateful = False  # True: the scores depend on the past, so queries are computed one after the other
    position_dependent = False  # True: the scores depend on the positions of keys, or on past.step
    allows_talking_heads = True  # False: a score may mean "no weight", which mixing heads would undo
    positive = False  # True: no score is ever negative

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """Return the keys of source states: projected once per source, not at every query."""
        return states

    def dot(self, query: Float[Tensor, "*b T Q"]) -> Float[Tensor, "*b T K"] | None:
        """Return the vectors whose dot products with the keys are the scores, so that a fused kernel can be
        used; None if the scores are no dot products."""
        return None

    def initial_state(self, keys: Float[Tensor, "*b S K"]) -> Float[Tensor, "*b S C"] | None:
        """Return the features of each source position before the first query: the first `past.trace`."""
        return None

    def update_trace(
        self,
        query: Float[Tensor, "*b T Q"],
        keys: Float[Tensor, "*b S K"],
        weights: Float[Tensor, "*b T S"],
        past: Past,
    ) -> Float[Tensor, "*b S C"] | None:
        """Return the features of each source position after this query: the next `past.trace`."""
        return past.trace

    def forward(
        self, query: Float[Tensor, "*b T Q"], keys: Float[Tensor, "*b S K"], past: Past
    ) -> Float[Tensor, "*b T S"]:
        """Return the score of every query and key."""
        dot = self.dot(query)
        if dot is None:
            raise NotDefinedError(
                f"{type(self).__name__} must define how it scores: write forward() or dot()"
            )
        return check_shape(self, "dot", dot, query.shape[:-1], keys.shape[-1]) @ keys.mT


class Normalizer(RenamedHooks, nn.Module):
    """Turns scores into weights. Subclass it, and add a line to NORMALIZERS.

    The constructor takes the size of the queries and the number of heads; its keyword-only parameters are the
    options that a recipe may set. Parameters of shape (heads, 1, 1) belong to one head each. Masked positions
    get weight 0; a query whose positions are all masked gets weights 0 and gradients 0, never nan.
    """

    renamed: ClassVar[Mapping[str, str]] = {
        "looks_back": "stateful",
        "reads_places": "position_dependent",
        "energies": "n_scores",
        "first": "initial_state",
        "move": "step",
        "draw": "sample",
        "draws": "samples",
        "shortcut": "fused",
    }

    stateful = False  # True: the weights depend on the past, so queries are computed one after the other
    ordered = False  # True: queries must come in target order, and the target follows the source's order
    position_dependent = False  # True: the weights depend on the positions of keys, or on past.step
    sums_to_one = True  # False: the weights of a query may sum to less or more
    needs_positive = False  # True: scores must not be negative
    n_scores = 1  # the number of scores for each query and key: (n, ..., T, S) if more than one

    def __init__(self, query_size: int = 1, heads: int = 1) -> None:
        super().__init__()

    def initial_state(self, zeros: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"] | None:
        """Return the alignment state before the first query: the first `past.alignment_state`."""
        return None

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """Return the weights; the mask broadcasts to the scores (M is 1 or T)."""
        raise NotDefinedError(f"{type(self).__name__} must define how it normalizes: write forward()")

    def step(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> tuple[Float[Tensor, "*b T S"], Float[Tensor, "*b S"] | None]:
        """Return the weights and the next `past.alignment_state`."""
        return self(scores, mask, past, query), past.alignment_state

    def sample(self, weights: Float[Tensor, "*b T S"], past: Past) -> Float[Tensor, "*b T S"] | None:
        """Return a sample from the weights, to be used in their place; None: the weights are used."""
        return None

    @classmethod
    def samples(cls) -> bool:
        """Whether it samples from its weights: whether it overrides sample()."""
        return cls.sample is not Normalizer.sample

    def fused(
        self, dot: Tensor, memory: Memory, bias: Tensor | None, dropout: float
    ) -> Float[Tensor, "*b T V"] | None:
        """Return the context (..., T, V) by a faster path, without weights; None if there is none.

        dot: (..., T, K), the vectors whose dot products with memory.keys are the scores; bias: (..., T, S),
        added to the scores. A subclass that overrides forward() does not use its parent's path.
        """
        return None


class Relative(nn.Module):
    """Makes self-attention depend on the distance between query and key. The last query is at the last key.

    Subclass it, and add a line to POSITIONS.
    """

    adds_values = False  # True: values() is not None

    def bias(self, query: Float[Tensor, "*b T Q"], n_keys: int, grid: Grid | None = None) -> Tensor:
        """Return the term added to the scores (..., T, S); the T queries are at the last T of n_keys
        positions, which lie on the grid, if there is one."""
        raise NotDefinedError(f"{type(self).__name__} must implement bias()")

    def values(self, weights: Float[Tensor, "*b T S"]) -> Float[Tensor, "*b T V"] | None:
        """Return the term added to the context (..., T, V); None: nothing, so a fused kernel can be used."""
        return None


class Hierarchy(nn.Module):
    """Scales the weights of source positions by the weights of their sentences. See hierarchy.py."""

    def remember(self, states: Tensor, sentence_ids: Tensor) -> Sentences:
        """Return the sentences of states (..., S, K), given each state's sentence (..., S); -1 = none."""
        raise NotDefinedError(f"{type(self).__name__} must implement remember()")

    def bias(self, query: Float[Tensor, "*b T Q"], sentences: Sentences) -> Float[Tensor, "*b T S"]:
        """Return the term added to the scores of source positions."""
        raise NotDefinedError(f"{type(self).__name__} must implement bias()")


_EXPECTED = {
    "keys": "keys, one for every source position",
    "dot": "queries in dot(), as wide as the keys",
    "scores": "scores of every query and source position",
    "weights": "weights of every query and source position",
}


def check_shape(
    part: Scorer | Normalizer, output: str, tensor: Tensor, leading: Sequence[int], last: int
) -> Tensor:
    """Return an output of a part if its shape is (*leading, last); Seq2attnError if not."""
    if tensor.shape != (*leading, last):
        own = type(part).__module__.startswith("seq2attn.")
        advice = "give queries and states of the sizes that it was made for" if own else "fix the class"
        raise Seq2attnError(
            f"{type(part).__name__}: expected {_EXPECTED[output]}, of the shape {(*leading, last)}; got "
            f"{tuple(tensor.shape)}: {advice}"
        )
    return tensor
