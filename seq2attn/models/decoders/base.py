"""What every decoder can do, and what it gives back."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention import Attention, Memory, Past
from seq2attn.attention.state import expand_to_hypotheses
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Embedding
from seq2attn.models.decoders.copying import Copies, PointerGenerator
from seq2attn.models.encoders import Encoded


class Projection(NamedTuple):
    """Logits (B, T, V) that are still to be made, so that a loss can make them piece by piece."""

    states: Tensor  # (B, T, R), what the output layer reads, in the precision in which it is to multiply
    layer: nn.Linear

    @classmethod
    def of(cls, states: Tensor, layer: nn.Linear) -> "Projection":
        """In the precision of now."""
        kind = states.device.type
        narrow = states.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states
        return cls(narrow, layer)

    def whole(self) -> Tensor:
        """All the logits at once."""
        other = self.states.dtype != self.layer.weight.dtype
        with torch.autocast(self.states.device.type, self.states.dtype if other else None, other):
            return F.linear(self.states, self.layer.weight, self.layer.bias)


class Decoded(NamedTuple):
    """What a decoder makes of the tokens that it has read: all that a loss may ask for."""

    predicted: Tensor | Projection  # `logits`, or what they are to be made from
    weights: Tensor | None  # (B, L, H, T, S) of the layers that were asked for, float32
    sampled: Tensor | None = None  # (B, L, H, T, S), what those that draw looked at; zeros of the others
    gate: Tensor | None = None  # (B, T), float32, the share that is generated and not copied, where it copies

    @property
    def logits(self) -> Tensor:
        """(B, T, V), up to a constant the log-probabilities of the next token; (B, T, V + S) if it copies."""
        return self.predicted.whole() if isinstance(self.predicted, Projection) else self.predicted


class Decoder(nn.Module):
    """The base of decoders.

    attention_layers: how many layers look at the source (0 = none);
    alignment_shift: 0 if the weights of step t belong to the token that the step predicts, 1 if to the token
    that it has read. Queries that have read a token are said to look for that token's source word (Luong
    2016, thesis, ch. 4; Chen et al. 2020); measured (docs/results.md), all of these decoders look ahead.

    With a copier (`copying`) its logits go on beyond the vocabulary, with one for each slot of the source
    (decoders/copying.py); it reads such a token as the vocabulary's sign for unknown pieces.
    """

    attention_layers = 0
    alignment_shift = 0
    embedding: Embedding
    output: nn.Linear

    def __init__(self) -> None:
        super().__init__()
        self.pointer_generator: PointerGenerator | None = None

    def copying(self, pointer_generator: PointerGenerator) -> None:
        """Copy from the source from now on. Seq2attnError if this decoder cannot."""
        count = self.attention_layers
        if not 0 <= pointer_generator.layer < count:
            raise Seq2attnError(
                f"copying needs one of the {count} layers that attend to the source; got layer "
                f"{pointer_generator.layer}"
            )
        normalize = self.cross_attention(pointer_generator.layer).normalize
        if not normalize.sums_to_one:
            raise Seq2attnError(
                f"copying needs weights that sum to 1, and those of {type(normalize).__name__} may sum to "
                "less or more"
            )
        self.pointer_generator = pointer_generator

    def cross_attention(self, layer: int) -> Attention:
        """What looks at the source in one of the attention_layers, from 0."""
        raise NotImplementedError(f"{type(self).__name__} must say what looks: write source_attention()")

    @property
    def hierarchical(self) -> bool:
        """Whether it looks at sentences, and must be told where they are (hierarchy.py)."""
        layers = range(self.attention_layers)
        return any(self.cross_attention(layer).hierarchy is not None for layer in layers)

    def copies(self, encoded: Encoded) -> Copies | None:
        """What the slots of a source copy, if this decoder copies."""
        if self.pointer_generator is None:
            return None
        if encoded.copy_ids is None:
            raise Seq2attnError(
                "this decoder copies from its source: give the model a Source with copy_ids "
                "(data.sources.PairTokenizer with copying=True makes it)"
            )
        return Copies.of(encoded.copy_ids, encoded.mask.squeeze(1))

    def start(self, encoded: Encoded) -> Any:
        """The state before the first token; keys and values of the source are made here, once."""
        raise NotImplementedError(f"{type(self).__name__} must say how it starts: write start()")

    def step(self, token: Int[Tensor, " B"], state: Any) -> tuple[Float[Tensor, "B V"], Any]:
        """Read one token; logits of the next, and the state after it."""
        raise NotImplementedError(f"{type(self).__name__} must say how it steps: write step()")

    def forward(self, tokens: Int[Tensor, "B T"], encoded: Encoded, look: Sequence[int] = ()) -> Decoded:
        """Read T tokens at once; `look` names the layers whose weights on the source are wanted."""
        raise NotImplementedError(f"{type(self).__name__} must say how it decodes: write forward()")

    def track_coverage(self, state: Any) -> Any:
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
    seen = expand_to_hypotheses(memory.mask.any(-2), len(past.coverage))
    coverage = past.coverage.masked_fill(~seen, 1.0)
    return coverage.mean(1) if coverage.dim() == 3 else coverage
