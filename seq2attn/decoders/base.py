"""What every decoder can do, and what it gives back."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention import Memory, Past
from seq2attn.encoders import Encoded
from seq2attn.layers import Embedding


class Decoded(NamedTuple):
    """What a decoder makes of the tokens that it has read: all that a loss may ask for."""

    logits: Tensor  # (B, T, V), up to a constant the log-probabilities of the next token
    weights: Tensor | None  # (B, L, H, T, S) of the layers that were asked for, float32
    drawn: Tensor | None = None  # (B, L, H, T, S), what those that draw looked at; zeros of the others


class Decoder(nn.Module):
    """The base of decoders.

    attention_layers: how many layers look at the source (0 = none);
    alignment_shift: 0 if the weights of step t belong to the token that the step predicts, 1 if to the token
    that it has read. Queries that have read a token are said to look for that token's source word (Luong
    2016, thesis, ch. 4; Chen et al. 2020); measured (docs/results.md), all of these decoders look ahead.
    """

    attention_layers = 0
    alignment_shift = 0
    embedding: Embedding
    output: nn.Linear

    def start(self, encoded: Encoded) -> Any:
        """The state before the first token; keys and values of the source are made here, once."""
        raise NotImplementedError(f"{type(self).__name__} must say how it starts: write start()")

    def step(self, token: Int[Tensor, " B"], state: Any) -> tuple[Float[Tensor, "B V"], Any]:
        """Read one token; logits of the next, and the state after it."""
        raise NotImplementedError(f"{type(self).__name__} must say how it steps: write step()")

    def forward(self, tokens: Int[Tensor, "B T"], encoded: Encoded, look: Sequence[int] = ()) -> Decoded:
        """Read T tokens at once; `look` names the layers whose weights on the source are wanted."""
        raise NotImplementedError(f"{type(self).__name__} must say how it decodes: write forward()")

    def counting(self, state: Any) -> Any:
        """What start() has given, if its steps are to count where they look: for that, a Transformer has to
        do without a fused kernel in one layer."""
        return state

    def coverage(self, state: Any) -> Float[Tensor, "B S"] | None:
        """How much each slot of the source has been looked at until this state, the mean of the heads; 1 for
        slots under the mask, which need no look. None if the steps keep no count."""
        return None


def covered(memory: Memory, past: Past) -> Float[Tensor, "B S"] | None:
    """`Decoder.coverage` of one attention, with or without heads, from its memory and its past."""
    if past.coverage is None:
        return None
    coverage = past.coverage.masked_fill(~memory.mask.any(-2), 1.0)
    return coverage.mean(1) if coverage.dim() == 3 else coverage
