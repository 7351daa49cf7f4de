"""The Transformer's decoder."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention.attention import Attended, Attention, Memory, Past
from seq2attn.attention.heads import MultiHead, Window
from seq2attn.attention.state import Shared, Slots, spread, together
from seq2attn.layers.basic import Embedding, FeedForward, Residual
from seq2attn.models.decoders.base import Decoded, Decoder, Projection, covered
from seq2attn.models.decoders.copying import Copies
from seq2attn.models.encoders import Encoded

Own = Memory | Shared[tuple[Slots, Slots]]  # keys and values: of each hypothesis, or of all of a sentence


class LayerState(NamedTuple):
    """What one layer of a Transformer decoder keeps between steps."""

    own: Own | None  # of the tokens that can still be seen
    source: Shared[Memory]
    source_past: Past  # with its weights and coverage where it counts, or looks back


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
        own: MultiHead,
        source: MultiHead,
        feed_forward: FeedForward,
        norm: str,
        dropout: float,
        window: Window | None = None,
    ) -> None:
        super().__init__()
        size = own.out.out_features
        # All hypotheses of a sentence write into one memory, if it matters to nobody where a slot stands.
        self.shares = window is None and own.attention.placeless
        self.own, self.source, self.feed_forward, self.window = own, source, feed_forward, window
        self.around_own, self.around_source, self.around_feed_forward = (
            Residual(size, norm, dropout) for _ in range(3)
        )

    def start(self, encoded: Encoded) -> LayerState:
        """Keys and values of the source, once."""
        memory = self.source.remember(encoded.states, encoded.mask, sentences=encoded.sentences)
        past = self.source.begin(memory)
        if not self.source.attention.looks_back:
            past = past._replace(weights=None, coverage=None)
        return LayerState(None, Shared(memory), past)

    def counting(self, state: LayerState) -> LayerState:
        """The same start, which counts how much it looks at each slot; no fused kernel then."""
        return state._replace(source_past=self.source.begin(state.source.value))

    def forward(
        self, x: Tensor, sight: Sight, state: LayerState, need_weights: bool = False
    ) -> tuple[Tensor, Attended, LayerState]:
        """x (B, T, D), and what came back from the source."""
        y = self.around_own.enter(x)
        memory, own = self._remember(y, sight, state.own)
        past = self.own.begin(memory)._replace(weights=None, coverage=None, step=sight.step)
        attended = self.own(y, memory, past, need_weights=False)
        x = self.around_own.leave(x, attended.context)
        y = self.around_source.enter(x)
        need_weights = need_weights or state.source_past.coverage is not None
        attended = self.source(y, state.source.value, state.source_past, need_weights)
        x = self.around_source.leave(x, attended.context)
        x = self.around_feed_forward.leave(x, self.feed_forward(self.around_feed_forward.enter(x)))
        return x, attended, LayerState(own, state.source, attended.past)

    def _remember(self, y: Tensor, sight: Sight, own: Own | None) -> tuple[Memory, Own]:
        """What the new tokens look at, themselves included, and what is kept of it."""
        mask = sight.mask if self.window is None else sight.mask & self.window.mask(y.shape[1], y.device)
        new = self.own.remember(y, mask, sight.step)
        if self.shares and sight.seen is not None:
            parts = [together(part, len(sight.seen)) for part in new[:2]]
            if isinstance(own, Shared):
                keys, values = (kept.append(part) for kept, part in zip(own.value, parts, strict=True))
            else:
                keys, values = map(Slots.of, parts)
            return Memory(keys.all, values.all, sight.seen), Shared((keys, values))
        memory = own.append(new) if isinstance(own, Memory) else new
        return memory, memory if self.window is None else self.window.keep(memory)


class TransformerState(NamedTuple):
    """Batch first, so that a search can reorder it."""

    step: int  # tokens read so far, as many by each hypothesis
    seen: (
        Tensor | None
    )  # (N, slots), which of the tokens that its sentence shares a hypothesis has read, if any
    layers: tuple[LayerState, ...]
    copies: Shared[Copies | None]  # of the source, where it is copied from


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
        return TransformerState(0, None, starts, Shared(self.copies(encoded)))

    def step(
        self, token: Int[Tensor, " B"], state: TransformerState
    ) -> tuple[Float[Tensor, "B V"], TransformerState]:
        """See the base class."""
        rows, sentences = len(token), len(state.layers[0].source.value.keys)
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

    def counting(self, state: TransformerState) -> TransformerState:
        """See the base class: the layer that copies counts, else the last one."""
        layers, number = list(state.layers), self._counted
        layers[number] = cast(DecoderLayer, self.layers[number]).counting(layers[number])
        return state._replace(layers=tuple(layers))

    def coverage(self, state: TransformerState) -> Float[Tensor, "B S"] | None:
        """See the base class; of the layer that counts."""
        counted = state.layers[self._counted]
        return covered(counted.source.value, counted.source_past)

    @property
    def _counted(self) -> int:
        return len(self.layers) - 1 if self.copier is None else self.copier.layer

    def source_attention(self, layer: int) -> Attention:
        """See the base class."""
        return cast(DecoderLayer, self.layers[layer]).source.attention

    def _advance(
        self, tokens: Tensor, sight: Sight, state: TransformerState, look: Sequence[int] = ()
    ) -> tuple[Decoded, tuple[LayerState, ...]]:
        words, states, answers = self.embedding(tokens, state.step), [], dict[int, Attended]()
        wanted = [*look] if self.copier is None else [*look, self.copier.layer]
        x = words
        for number, (layer, before) in enumerate(zip(self.layers, state.layers, strict=True)):
            x, attended, after = layer(x, sight, before, number in wanted)
            if number in wanted:
                answers[number] = attended
            states.append(after)
        x, gate = self.norm(x), None
        projection = Projection.of(x, self.output)
        predicted: Tensor | Projection = projection
        copies = spread(state.copies.value, len(tokens))
        if self.copier is not None and copies is not None:
            looked = answers[self.copier.layer]
            predicted, gate = self.copier(
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
        torch.zeros_like(looked) if answer.drawn is None else answer.drawn
        for answer, looked in zip(answers, weights, strict=True)
    ]
    draws = any(answer.drawn is not None for answer in answers)
    return torch.stack(weights, 1), torch.stack(drawn, 1) if draws else None
