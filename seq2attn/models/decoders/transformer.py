"""The Transformer's decoder."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention import Attended, Attention, Memory, Past
from seq2attn.attention.heads import MultiHead, Window
from seq2attn.attention.state import GrowingBuffer, PerSource, expand_to_hypotheses, fold_hypotheses
from seq2attn.layers.basic import Embedding, FeedForward, Residual
from seq2attn.models.decoders.base import Decoded, Decoder, Projection, covered
from seq2attn.models.decoders.copying import Copies
from seq2attn.models.encoders import Encoded

SelfMemory = (
    Memory | PerSource[tuple[GrowingBuffer, GrowingBuffer]]
)  # keys and values: of each hypothesis, or of all of a sentence


class LayerState(NamedTuple):
    """What one layer of a Transformer decoder keeps between steps."""

    self_memory: SelfMemory | None  # of the tokens that can still be seen
    cross_memory: PerSource[Memory]
    cross_past: Past  # with its weights and coverage where it counts, or looks back


class Sight(NamedTuple):
    """Which tokens are read now, and which of them and of those before each may look at."""

    step: int  # how many came before them
    mask: Tensor  # (N, T, T), of the new ones
    seen: (
        Tensor | None
    )  # (B, 1, K, slots), of what a sentence's hypotheses share, while they read a token each


class DecoderLayer(nn.Module):
    """Causal self-attention (in a window, if any), cross-attention, feed-forward, each with its residual."""

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
        # All hypotheses of a sentence write into one memory, if it matters to nobody where a slot stands.
        self.shares = window is None and self_attention.attention.foldable
        self.self_attention, self.cross_attention = self_attention, cross_attention
        self.feed_forward, self.window = feed_forward, window
        self.self_attention_residual, self.cross_attention_residual, self.feed_forward_residual = (
            Residual(size, norm, dropout) for _ in range(3)
        )

    def start(self, encoded: Encoded) -> LayerState:
        """Keys and values of the source, once."""
        memory = self.cross_attention.remember(encoded.states, encoded.mask, sentences=encoded.sentence_ids)
        past = self.cross_attention.initial_state(memory)
        if not self.cross_attention.attention.stateful:
            past = past._replace(weights=None, coverage=None)
        return LayerState(None, PerSource(memory), past)

    def track_coverage(self, state: LayerState) -> LayerState:
        """The same start, which counts how much it looks at each slot; no fused kernel then."""
        return state._replace(cross_past=self.cross_attention.initial_state(state.cross_memory.value))

    def forward(
        self, x: Tensor, sight: Sight, state: LayerState, need_weights: bool = False
    ) -> tuple[Tensor, Attended, LayerState]:
        """x (B, T, D), and what came back from the source."""
        y = self.self_attention_residual.enter(x)
        memory, kept = self._remember(y, sight, state.self_memory)
        past = self.self_attention.initial_state(memory)._replace(
            weights=None, coverage=None, step=sight.step
        )
        attended = self.self_attention(y, memory, past, need_weights=False)
        x = self.self_attention_residual.leave(x, attended.context)
        y = self.cross_attention_residual.enter(x)
        need_weights = need_weights or state.cross_past.coverage is not None
        attended = self.cross_attention(y, state.cross_memory.value, state.cross_past, need_weights)
        x = self.cross_attention_residual.leave(x, attended.context)
        x = self.feed_forward_residual.leave(x, self.feed_forward(self.feed_forward_residual.enter(x)))
        return x, attended, LayerState(kept, state.cross_memory, attended.past)

    def _remember(self, y: Tensor, sight: Sight, before: SelfMemory | None) -> tuple[Memory, SelfMemory]:
        """What the new tokens look at, themselves included, and what is kept of it."""
        mask = sight.mask if self.window is None else sight.mask & self.window.mask(y.shape[1], y.device)
        new = self.self_attention.remember(y, mask, sight.step)
        if self.shares and sight.seen is not None:
            parts = [fold_hypotheses(part, len(sight.seen)) for part in new[:2]]
            if isinstance(before, PerSource):
                keys, values = (kept.append(part) for kept, part in zip(before.value, parts, strict=True))
            else:
                keys, values = map(GrowingBuffer.of, parts)
            return Memory(keys.all, values.all, sight.seen), PerSource((keys, values))
        memory = before.append(new) if isinstance(before, Memory) else new
        return memory, memory if self.window is None else self.window.keep(memory)


class TransformerState(NamedTuple):
    """Batch first, so that a search can reorder it."""

    step: int  # tokens read so far, as many by each hypothesis
    seen: (
        Tensor | None
    )  # (N, slots), which of the tokens that its sentence shares a hypothesis has read, if any
    layers: tuple[LayerState, ...]
    copies: PerSource[Copies | None]  # of the source, where it is copied from


class TransformerDecoder(Decoder):
    """Layers of self- and cross-attention (Vaswani et al. 2017)."""

    def __init__(
        self, embedding: Embedding, layers: list[DecoderLayer], norm: str, output: nn.Linear
    ) -> None:
        super().__init__()
        self.embedding, self.layers, self.output = embedding, nn.ModuleList(layers), output
        self.norm = nn.LayerNorm(output.in_features) if norm == "pre" else nn.Identity()
        self.attention_layers, self.shares = len(layers), any(layer.shares for layer in layers)

    def start(self, encoded: Encoded) -> TransformerState:
        """See the base class."""
        layers = cast("list[DecoderLayer]", list(self.layers))
        starts = tuple(layer.start(encoded) for layer in layers)
        return TransformerState(0, None, starts, PerSource(self.copies(encoded)))

    def step(
        self, token: Int[Tensor, " B"], state: TransformerState
    ) -> tuple[Float[Tensor, "B V"], TransformerState]:
        """See the base class."""
        rows, sentences = len(token), len(state.layers[0].cross_memory.value.keys)
        seen = shared = None
        if self.shares and rows:
            # Each hypothesis of a sentence writes a slot, and sees the slots of the tokens that led to it.
            own = torch.eye(rows // sentences, dtype=torch.bool, device=token.device).repeat(sentences, 1)
            seen = own if state.seen is None else torch.cat([state.seen, own], 1)
            shared = seen.unflatten(0, (sentences, -1)).unsqueeze(1)
        mask = torch.ones(rows, 1, 1, dtype=torch.bool, device=token.device)
        decoded, layers = self._advance(token.unsqueeze(1), Sight(state.step, mask, shared), state)
        after = TransformerState(state.step + 1, seen, layers, state.copies)
        return decoded.logits.squeeze(1), after

    def forward(self, tokens: Int[Tensor, "B T"], encoded: Encoded, look: Sequence[int] = ()) -> Decoded:
        """See the base class."""
        length = tokens.shape[1]
        causal = torch.ones(1, length, length, dtype=torch.bool, device=tokens.device).tril()
        sight = Sight(0, causal.expand(len(tokens), -1, -1), None)
        return self._advance(tokens, sight, self.start(encoded), look)[0]

    def track_coverage(self, state: TransformerState) -> TransformerState:
        """See the base class: the layer that copies counts, else the last one."""
        layers, number = list(state.layers), self._counted
        layers[number] = cast(DecoderLayer, self.layers[number]).track_coverage(layers[number])
        return state._replace(layers=tuple(layers))

    def coverage(self, state: TransformerState) -> Float[Tensor, "B S"] | None:
        """See the base class; of the layer that counts."""
        counted = state.layers[self._counted]
        return covered(counted.cross_memory.value, counted.cross_past)

    @property
    def _counted(self) -> int:
        return len(self.layers) - 1 if self.pointer_generator is None else self.pointer_generator.layer

    def cross_attention(self, layer: int) -> Attention:
        """See the base class."""
        return cast(DecoderLayer, self.layers[layer]).cross_attention.attention

    def _advance(
        self, tokens: Tensor, sight: Sight, state: TransformerState, look: Sequence[int] = ()
    ) -> tuple[Decoded, tuple[LayerState, ...]]:
        words, states, answers = self.embedding(tokens, state.step), [], dict[int, Attended]()
        wanted = [*look] if self.pointer_generator is None else [*look, self.pointer_generator.layer]
        x = words
        for number, (layer, before) in enumerate(zip(self.layers, state.layers, strict=True)):
            x, attended, after = layer(x, sight, before, number in wanted)
            if number in wanted:
                answers[number] = attended
            states.append(after)
        x, gate = self.norm(x), None
        projection = Projection.of(x, self.output)
        predicted: Tensor | Projection = projection
        copies = expand_to_hypotheses(state.copies.value, len(tokens))
        if self.pointer_generator is not None and copies is not None:
            looked = answers[self.pointer_generator.layer]
            predicted, gate = self.pointer_generator(
                projection.whole(), (looked.context, x, words), looked.weights, copies
            )
        decoded = Decoded(predicted, *_looked([answers[number] for number in look]), gate)
        return decoded, tuple(states)


def _looked(answers: list[Attended]) -> tuple[Tensor | None, Tensor | None]:
    """Weights (B, L, H, T, S) of some layers, and what they drew: zeros where a layer does not draw."""
    weights = [cast(Tensor, answer.weights) for answer in answers]
    if not weights:
        return None, None
    drawn = [
        torch.zeros_like(looked) if answer.sampled is None else answer.sampled
        for answer, looked in zip(answers, weights, strict=True)
    ]
    draws = any(answer.sampled is not None for answer in answers)
    return torch.stack(weights, 1), torch.stack(drawn, 1) if draws else None
