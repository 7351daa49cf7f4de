"""Transformer decoders.

Letters: B sentences, K hypotheses of each (N = K B), T new tokens, S source positions, D width, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention import Attended, Attention, Memory, Past
from seq2attn.attention.heads import MultiHead, Window
from seq2attn.attention.state import GrowingBuffer, PerSource, expand_to_hypotheses, fold_hypotheses
from seq2attn.layers.basic import Embedding, FeedForward, Projection, Residual
from seq2attn.models.decoders.base import Decoded, Decoder, masked_coverage, stack_layers
from seq2attn.models.decoders.copying import CopySource, PointerGenerator
from seq2attn.models.encoders import Encoded

# Keys and values of the tokens so far: of each hypothesis, or in one buffer for all hypotheses of a sentence.
SelfMemory = Memory | PerSource[tuple[GrowingBuffer, GrowingBuffer]]


class LayerState(NamedTuple):
    """The state of one layer of a Transformer decoder between steps."""

    self_memory: SelfMemory | None  # of the tokens that later ones can still attend to
    cross_memory: PerSource[Memory]
    cross_past: Past  # with weights and coverage if it tracks coverage or its attention is stateful


class SelfAttentionMasks(NamedTuple):
    """Which tokens the new ones may attend to."""

    step: int  # the number of tokens before the new ones
    causal: Tensor  # (N, T, T), among the new ones
    # (B, 1, K, L), in steps: which of the L tokens in the shared memory of the K hypotheses of a sentence
    # belong to each hypothesis
    shared: Tensor | None


class DecoderLayer(nn.Module):
    """Causal self-attention, in a sliding window if `window` is set, cross-attention and feed-forward, each
    with its residual."""

    def __init__(
        self,
        self_attention: MultiHead,
        cross_attention: MultiHead,
        feed_forward: FeedForward,
        norm: str,
        dropout: float,
        window: Window | None = None,
    ) -> None:
        super().__init__()
        size = self_attention.out.out_features
        # All hypotheses of a sentence share a memory, if weights do not depend on positions in it.
        self.shares = window is None and self_attention.attention.foldable
        self.self_attention, self.cross_attention = self_attention, cross_attention
        self.feed_forward, self.window = feed_forward, window
        self.self_attention_residual, self.cross_attention_residual, self.feed_forward_residual = (
            Residual(size, norm, dropout) for _ in range(3)
        )

    def start(self, encoded: Encoded) -> LayerState:
        """Compute keys and values of the source, once."""
        memory = self.cross_attention.remember(
            encoded.states, encoded.mask, sentences=encoded.sentence_ids, grid=encoded.grid
        )
        past = self.cross_attention.initial_state(memory)
        if not self.cross_attention.attention.stateful:
            past = past._replace(weights=None, coverage=None)
        return LayerState(None, PerSource(memory), past)

    def track_coverage(self, state: LayerState) -> LayerState:
        """Return a state of start(), changed so that steps track coverage; they cannot use a fused kernel."""
        return state._replace(cross_past=self.cross_attention.initial_state(state.cross_memory.value))

    def forward(
        self,
        x: Float[Tensor, "N T D"],
        masks: SelfAttentionMasks,
        state: LayerState,
        need_weights: bool = False,
    ) -> tuple[Float[Tensor, "N T D"], Attended, LayerState]:
        """Return the layer's output, that of its cross-attention, and the state after the new tokens."""
        y = self.self_attention_residual.enter(x)
        memory, self_memory = self._remember(y, masks, state.self_memory)
        past = self.self_attention.initial_state(memory)._replace(
            weights=None, coverage=None, step=masks.step
        )
        attended = self.self_attention(y, memory, past, need_weights=False)
        x = self.self_attention_residual.leave(x, attended.context)
        y = self.cross_attention_residual.enter(x)
        need_weights = need_weights or state.cross_past.coverage is not None
        attended = self.cross_attention(y, state.cross_memory.value, state.cross_past, need_weights)
        x = self.cross_attention_residual.leave(x, attended.context)
        x = self.feed_forward_residual.leave(x, self.feed_forward(self.feed_forward_residual.enter(x)))
        return x, attended, LayerState(self_memory, state.cross_memory, attended.past)

    def _remember(
        self, y: Float[Tensor, "N T D"], masks: SelfAttentionMasks, before: SelfMemory | None
    ) -> tuple[Memory, SelfMemory]:
        """Return the memory that the new tokens attend to, including themselves, and the memory to keep."""
        causal = masks.causal  # (N, T, T)
        if self.window is not None:
            causal = causal & self.window.mask(y.shape[1], y.device)
        new = self.self_attention.remember(y, causal, masks.step)  # keys (N, heads, T, K)
        if self.shares and masks.shared is not None:
            sentences = len(masks.shared)
            new_keys, new_values = (fold_hypotheses(part, sentences) for part in (new.keys, new.values))
            if isinstance(before, PerSource):
                old_keys, old_values = before.value
                keys, values = old_keys.append(new_keys), old_values.append(new_values)
            else:
                keys, values = GrowingBuffer.of(new_keys), GrowingBuffer.of(new_values)
            return Memory(keys.all, values.all, masks.shared), PerSource((keys, values))
        memory = before.append(new) if isinstance(before, Memory) else new
        return memory, memory if self.window is None else self.window.keep(memory)


class TransformerState(NamedTuple):
    """Batch first, so that a search can reorder it."""

    step: int  # the number of tokens that each hypothesis has read
    # (N, L): which of the L tokens that all hypotheses of its sentence have read belong to a hypothesis
    own_tokens: Tensor | None
    layers: tuple[LayerState, ...]
    copy_source: PerSource[CopySource | None]  # with copying


class TransformerDecoder(Decoder):
    """Layers of self- and cross-attention (Vaswani et al. 2017)."""

    def __init__(
        self,
        embedding: Embedding,
        layers: list[DecoderLayer],
        norm: str,
        output: nn.Linear,
        pointer_generator: PointerGenerator | None = None,
    ) -> None:
        super().__init__()
        self.embedding, self.layers, self.output = embedding, nn.ModuleList(layers), output
        self.norm = nn.LayerNorm(output.in_features) if norm == "pre" else nn.Identity()
        self.attention_layers, self.shares = len(layers), any(layer.shares for layer in layers)
        self.pointer_generator = self._check_copying(pointer_generator)

    def start(self, encoded: Encoded) -> TransformerState:
        """See the base class."""
        layers = cast("list[DecoderLayer]", list(self.layers))
        states = tuple(layer.start(encoded) for layer in layers)
        return TransformerState(0, None, states, PerSource(self._copy_source(encoded)))

    def step(
        self, token: Int[Tensor, " N"], state: TransformerState
    ) -> tuple[Float[Tensor, "N V"], TransformerState]:
        """See the base class."""
        rows, sentences = len(token), len(state.layers[0].cross_memory.value.keys)
        own_tokens = shared = None
        if self.shares and rows:
            # Each hypothesis of a sentence appends one key, and attends to the keys of its own tokens.
            new = torch.eye(rows // sentences, dtype=torch.bool, device=token.device).repeat(sentences, 1)
            own_tokens = new if state.own_tokens is None else torch.cat([state.own_tokens, new], 1)  # (N, L)
            shared = own_tokens.unflatten(0, (sentences, -1)).unsqueeze(1)  # (B, 1, K, L)
        causal = torch.ones(rows, 1, 1, dtype=torch.bool, device=token.device)
        masks = SelfAttentionMasks(state.step, causal, shared)
        decoded, layers = self._advance(token.unsqueeze(1), masks, state)
        after = TransformerState(state.step + 1, own_tokens, layers, state.copy_source)
        return decoded.logits.squeeze(1), after

    def forward(
        self, tokens: Int[Tensor, "B T"], encoded: Encoded, weights_of: Sequence[int] = ()
    ) -> Decoded:
        """See the base class."""
        length = tokens.shape[1]
        causal = torch.ones(1, length, length, dtype=torch.bool, device=tokens.device).tril()
        masks = SelfAttentionMasks(0, causal.expand(len(tokens), -1, -1), None)
        decoded, _ = self._advance(tokens, masks, self.start(encoded), weights_of, encoded)
        return decoded

    def track_coverage(self, state: TransformerState) -> TransformerState:
        """See the base class. The coverage is that of the pointer generator's layer, else of the last."""
        layers, tracking = list(state.layers), self._tracking_layer
        layers[tracking] = cast(DecoderLayer, self.layers[tracking]).track_coverage(layers[tracking])
        return state._replace(layers=tuple(layers))

    def coverage(self, state: TransformerState) -> Float[Tensor, "B S"] | None:
        """See the base class. The coverage is that of the layer that tracks it."""
        layer = state.layers[self._tracking_layer]
        return masked_coverage(layer.cross_memory.value, layer.cross_past)

    @property
    def _tracking_layer(self) -> int:
        return len(self.layers) - 1 if self.pointer_generator is None else self.pointer_generator.layer

    def cross_attention(self, layer: int) -> Attention:
        """See the base class."""
        if self.shift_head is not None and self.is_shift_head(layer):
            return self.shift_head.attention
        return cast(DecoderLayer, self.layers[layer]).cross_attention.attention

    def _advance(
        self,
        tokens: Int[Tensor, "N T"],
        masks: SelfAttentionMasks,
        state: TransformerState,
        weights_of: Sequence[int] = (),
        encoded: Encoded | None = None,
    ) -> tuple[Decoded, tuple[LayerState, ...]]:
        """Read T tokens; return the decoder's output and the states of the layers after them.

        encoded: the source, for the weights of a shift head.
        """
        words = self.embedding(tokens, state.step)  # (N, T, D)
        with_weights = {*weights_of}
        if self.pointer_generator is not None:
            with_weights.add(self.pointer_generator.layer)
        x, states, outputs, by_layer = words, list[LayerState](), list[Tensor](), dict[int, Attended]()
        for index, (layer, before) in enumerate(zip(self.layers, state.layers, strict=True)):
            x, attended, after = layer(x, masks, before, index in with_weights)
            if index in with_weights:
                by_layer[index] = attended
            states.append(after)
            outputs.append(x)
        if self.shift_head is not None and encoded is not None and len(self.layers) in with_weights:
            by_layer[len(self.layers)] = self.shift_head(outputs[self.shift_head.layer], encoded)
        x = self.norm(x)
        projection, gate = Projection.of(x, self.output), None
        predicted: Tensor | Projection = projection
        copy_source = expand_to_hypotheses(state.copy_source.value, len(tokens))
        if self.pointer_generator is not None and copy_source is not None:
            attended = by_layer[self.pointer_generator.layer]
            gate_inputs = attended.context, x, words  # (N, T, D) each
            predicted, gate = self.pointer_generator(
                projection.whole(), gate_inputs, attended.weights, copy_source
            )
        returned = [by_layer[layer] for layer in weights_of]
        weights = stack_layers([attended.weights for attended in returned])
        decoded = Decoded(predicted, weights, _stack_samples(returned), gate)
        return decoded, tuple(states)


def _stack_samples(layers: list[Attended]) -> Tensor | None:
    """Return the samples (B, L, H, T, S) of layers, zeros for a layer that does not sample; None if no layer
    samples."""
    if all(attended.sampled is None for attended in layers):
        return None
    samples = [
        torch.zeros_like(cast(Tensor, attended.weights)) if attended.sampled is None else attended.sampled
        for attended in layers
    ]
    return torch.stack(samples, 1)
