"""The base class of decoders, and their output."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention import Attention, Memory, Past
from seq2attn.attention.renamed import RenamedHooks
from seq2attn.attention.state import expand_to_hypotheses
from seq2attn.errors import NotDefinedError, Seq2attnError
from seq2attn.layers.basic import Embedding, Projection
from seq2attn.models.decoders.copying import CopySource, PointerGenerator
from seq2attn.models.decoders.shift_head import ShiftHead
from seq2attn.models.encoders import Encoded


class Decoded(NamedTuple):
    """The output of a decoder for T target tokens.

    A loss may use the weights. But they are stacked from those that the logits are computed with, so that the
    gradient of the logits with respect to them is None. For that gradient, take the tensors that pass
    `cross_attention(layer).hook_weights` by a forward hook, in a call with the layer in `weights_of`.
    """

    predicted: Tensor | Projection  # `logits`, or the projection that they are computed from
    weights: Tensor | None = None  # (B, L, H, T, S), float32, of the L layers in `weights_of`
    sampled: Tensor | None = None  # (B, L, H, T, S), samples of hard attention; zeros in other layers
    gate: Tensor | None = None  # (B, T), float32, the pointer generator's probability of generating

    @property
    def logits(self) -> Tensor:
        """(B, T, V), log-probabilities of the next token up to a constant; (B, T, V + S) with copying."""
        return self.predicted.whole() if isinstance(self.predicted, Projection) else self.predicted


class Decoder(RenamedHooks, nn.Module):
    """The base class of decoders. Subclass it, and add a line to DECODERS.

    The constructor takes the embedding, the output layer, and the width of the encoder's states; then
    `attention`, or `attentions`, if the decoder attends to the source as its recipe says. Its keyword-only
    parameters are the options that a recipe may set. It sets `embedding` and `output`. A subclass defines
    `start`, `step` and `forward`; with attention also `attention_layers` and `cross_attention`.

    attention_layers: the number of layers with cross-attention (0 = none); a shift head (`add_shift_head`)
    counts as one more, the last;
    alignment_shift: 0 if the weights of step t belong to the token that the step predicts, 1 if to the token
    that it has read. In the literature, a query that has read a token attends to the source word of that
    token (Luong 2016, thesis, ch. 4; Chen et al. 2020). In measurements (docs/results.md) all decoders here
    attend to the source word of the next token.

    With a pointer generator there are more logits than the vocabulary has tokens: one for each position of
    the source follows (decoders/copying.py). The decoder reads such a token as <unk>.
    """

    attention_layers = 0
    alignment_shift = 0
    embedding: Embedding
    output: nn.Linear

    def __init__(self) -> None:
        super().__init__()
        self.pointer_generator: PointerGenerator | None = None
        self.shift_head: ShiftHead | None = None

    @property
    def own_layers(self) -> int:
        """The number of layers with cross-attention that logits depend on."""
        return self.attention_layers - (self.shift_head is not None)

    def add_shift_head(self, head: ShiftHead) -> None:
        """Add a head for alignments, whose weights are then those of one more layer.

        The decoder's forward must return them, and its cross_attention its attention.
        """
        self.shift_head = head
        self.attention_layers += 1

    def is_shift_head(self, layer: int | None) -> bool:
        """Whether a layer, from 0, -1 or None, is the shift head: None is the layer of alignments."""
        last = self.attention_layers - 1
        return self.shift_head is not None and layer in (None, -1, last)

    @property
    def max_length(self) -> int | None:
        """The largest number of tokens that it can read, <s> included; None: any."""
        return self.embedding.max_length

    def cross_attention(self, layer: int) -> Attention:
        """Return the cross-attention of one of the attention_layers, from 0."""
        raise NotDefinedError(f"{type(self).__name__} must implement cross_attention()")

    @property
    def hierarchical(self) -> bool:
        """Whether an attention is hierarchical, so that the source needs sentence_ids (hierarchy.py)."""
        layers = range(self.own_layers)
        return any(self.cross_attention(layer).hierarchy is not None for layer in layers)

    def start(self, encoded: Encoded) -> Any:
        """Return the state before the first token; keys and values of the source are computed here, once."""
        raise NotDefinedError(f"{type(self).__name__} must implement start()")

    def step(self, token: Int[Tensor, " B"], state: Any) -> tuple[Float[Tensor, "B V"], Any]:
        """Read one token; return the logits of the next one, and the state after it."""
        raise NotDefinedError(f"{type(self).__name__} must implement step()")

    def forward(
        self, tokens: Int[Tensor, "B T"], encoded: Encoded, weights_of: Sequence[int] = ()
    ) -> Decoded:
        """Read T tokens at once.

        weights_of: the layers whose cross-attention weights are returned, in this order.
        """
        raise NotDefinedError(f"{type(self).__name__} must implement forward()")

    def track_coverage(self, state: Any) -> Any:
        """Return a state of start(), changed so that the steps after it track coverage.

        In a Transformer one layer then cannot use its fused kernel.
        """
        return state

    def coverage(self, state: Any) -> Float[Tensor, "B S"] | None:
        """Return the sum of the attention weights of the steps so far, averaged over heads; 1 at padding, so
        that it gets no penalty. None if the steps do not track coverage."""
        return None

    def _check_copying(self, pointer_generator: PointerGenerator | None) -> PointerGenerator | None:
        """Return the pointer generator. Seq2attnError if this decoder cannot copy with it."""
        if pointer_generator is None:
            return None
        count = self.own_layers
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
        return pointer_generator

    def _copy_source(self, encoded: Encoded) -> CopySource | None:
        """Return the copy ids of a source; None if this decoder does not copy."""
        if self.pointer_generator is None:
            return None
        if encoded.copy_ids is None:
            raise Seq2attnError(
                "this decoder copies from its source: give the model a Source with copy_ids "
                "(data.sources.PairTokenizer with copying=True makes it)"
            )
        return CopySource.of(encoded.copy_ids, encoded.mask.squeeze(1))


def masked_coverage(memory: Memory, past: Past) -> Float[Tensor, "B S"] | None:
    """Return `Decoder.coverage` of one attention, with or without heads, from its memory and its past."""
    if past.coverage is None:
        return None
    real = expand_to_hypotheses(memory.mask.any(-2), len(past.coverage))
    coverage = past.coverage.masked_fill(~real, 1.0)  # (B, S) or (B, H, S)
    return coverage.mean(1) if coverage.dim() == 3 else coverage


def stack_layers(layers: Sequence[Tensor | None]) -> Tensor | None:
    """Return `Decoded.weights` from those of each layer, (B, T, S) or (B, H, T, S); None without layers."""
    by_head = [
        weights if weights.dim() == 4 else weights.unsqueeze(1) for weights in layers if weights is not None
    ]
    return torch.stack(by_head, 1) if by_head else None
