"""Decoders: `start(encoded) -> state`, `step(token, state) -> logits, state`, `forward` = all steps at once.

The same gold tokens through `forward` and through `step` give the same logits. Tokens are what is read:
the first is the begin-of-sentence, and logits of step t predict the token that step t + 1 reads.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention import Attended, Attention, Memory, MultiHead, Past
from seq2attn.encoders import CELLS, Encoded
from seq2attn.errors import Seq2attnError
from seq2attn.layers import Dropout, Embedding, FeedForward, Maxout, Residual


class Decoded(NamedTuple):
    """What a decoder makes of the tokens that it has read."""

    logits: Tensor  # (B, T, V)
    weights: Tensor | None  # (B, L, H, T, S) of the layers that were asked for, float32


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


class Cell(nn.Module):
    """A (layered) LSTM or GRU whose state is batch first and starts from the source's summary.

    State: a tuple of (B, layers, size), h and for an LSTM c; each starts as tanh(W summary).
    """

    def __init__(
        self, kind: str, input_size: int, size: int, summary_size: int, layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.rnn = CELLS[kind](input_size, size, layers, batch_first=True, dropout=between)
        parts = 2 if kind == "lstm" else 1
        self.bridge = nn.ModuleList(nn.Linear(summary_size, layers * size) for _ in range(parts))

    def start(self, summary: Float[Tensor, "B D"]) -> tuple[Tensor, ...]:
        """The state before the first token."""
        return tuple(
            bridge(summary).tanh().unflatten(-1, (self.rnn.num_layers, -1)) for bridge in self.bridge
        )

    def forward(
        self, entering: Float[Tensor, "B T I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "B T D"], tuple[Tensor, ...]]:
        """The top layer's outputs, and the state after the last of them."""
        before = [part.transpose(0, 1).contiguous() for part in state]
        outputs, after = self.rnn(entering, tuple(before) if len(before) > 1 else before[0])
        parts = after if isinstance(after, tuple) else (after,)
        return outputs, tuple(part.transpose(0, 1) for part in parts)


class Readout(nn.Module):
    """From state, context and word to what the output layer reads.

    tanh: tanh(W [context; state]), no bias (Luong et al. 2015, eq. 5);
    maxout: of W [context; state; word] (Bahdanau et al. 2015, A.2.2).
    """

    def __init__(self, kind: str, state: int, context: int, word: int, size: int) -> None:
        super().__init__()
        self.kind, self.size = kind, size
        if kind == "tanh":
            self.combine = nn.Linear(context + state, size, bias=False)
        else:
            self.combine = nn.Linear(context + state + word, 2 * size)
        self.activation: nn.Module = nn.Tanh() if kind == "tanh" else Maxout()

    def forward(self, state: Tensor, context: Tensor | None, word: Tensor) -> Tensor:
        """(B, T, size)."""
        parts = [state] if context is None else [context, state]
        parts += [word] if self.kind == "maxout" else []
        return self.activation(self.combine(torch.cat(parts, -1)))  # type: ignore[no-any-return]


class RecurrentState(NamedTuple):
    """Batch first, so that a search can reorder it."""

    hidden: tuple[Tensor, ...]  # of the cell
    feed: Tensor | None  # (B, R), the attentional vector that enters the next step
    summary: Tensor | None  # (B, D), the source in one vector, where it enters every step
    memory: Memory | None
    past: Past | None


class RecurrentDecoder(Decoder):
    """LSTM or GRU. `order` says who asks when:

    - bahdanau: the previous state asks, the context enters the cell; a maxout readout sees the state that
      asked (Bahdanau et al. 2015);
    - luong: the cell reads the word (and, with input feeding, the last attentional vector, before dropout),
      then its state asks (Luong et al. 2015);
    - cho: no attention, the source's summary enters every step and the readout (Cho et al. 2014);
    - sutskever: no attention, the summary only starts the state (Sutskever et al. 2014).
    """

    def __init__(
        self,
        embedding: Embedding,
        cell: Cell,
        order: str,
        attention: Attention | MultiHead | None,
        readout: Readout,
        output: nn.Linear,
        dropout: Dropout,
    ) -> None:
        super().__init__()
        self.embedding, self.cell, self.order, self.attention = embedding, cell, order, attention
        self.readout, self.output, self.dropout = readout, output, dropout
        self.feeds = order == "luong" and cell.rnn.input_size > embedding.table.embedding_dim
        self.sequential = order == "bahdanau" or self.feeds
        self.attention_layers = int(attention is not None)

    def start(self, encoded: Encoded) -> RecurrentState:
        """See the base class."""
        memory = past = feed = None
        if self.attention is not None:
            memory = self.attention.remember(encoded.states, encoded.mask)
            past = self.attention.begin(memory)
        if self.feeds:
            feed = encoded.summary.new_zeros(len(encoded.summary), self.readout.size)
        summary = encoded.summary if self.order == "cho" else None
        return RecurrentState(self.cell.start(encoded.summary), feed, summary, memory, past)

    def step(
        self, token: Int[Tensor, " B"], state: RecurrentState
    ) -> tuple[Float[Tensor, "B V"], RecurrentState]:
        """See the base class."""
        read, _, state = self._advance(self.embedding(token.unsqueeze(1)), state, need_weights=False)
        return self.output(self.dropout(read)).squeeze(1), state

    def forward(self, tokens: Int[Tensor, "B T"], encoded: Encoded, look: Sequence[int] = ()) -> Decoded:
        """All steps in one go where no step waits for the one before."""
        state, words = self.start(encoded), self.embedding(tokens)
        reads, weights = [], []
        for some in words.split(1, dim=1) if self.sequential else [words]:
            read, looked_at, state = self._advance(some, state, need_weights=bool(look))
            reads.append(read)
            weights.append(looked_at)
        logits = self.output(self.dropout(torch.cat(reads, 1)))
        if not look or self.attention is None:
            return Decoded(logits, None)
        together = torch.cat(cast("list[Tensor]", weights), -2)
        heads = together if together.dim() == 4 else together.unsqueeze(1)
        return Decoded(logits, torch.stack([heads] * len(look), 1))

    def _advance(
        self, words: Tensor, state: RecurrentState, need_weights: bool
    ) -> tuple[Tensor, Tensor | None, RecurrentState]:
        """Read words (B, T, E): the readouts (B, T, R), the weights, and the state after them."""
        context: Tensor | None
        weights, past = None, state.past
        if self.order == "bahdanau":
            asking = state.hidden[0][:, -1:]
            context, weights, past, _ = self._look(asking, state, need_weights)
            outputs, hidden = self.cell(torch.cat([words, context], -1), state.hidden)
            read = self.readout(asking if self.readout.kind == "maxout" else outputs, context, words)
        elif self.order == "luong":
            entering = words if state.feed is None else torch.cat([words, state.feed.unsqueeze(1)], -1)
            outputs, hidden = self.cell(entering, state.hidden)
            context, weights, past, _ = self._look(outputs, state, need_weights)
            read = self.readout(outputs, context, words)
        else:
            context = (
                None if state.summary is None else state.summary.unsqueeze(1).expand(-1, words.shape[1], -1)
            )
            entering = words if context is None else torch.cat([words, context], -1)
            outputs, hidden = self.cell(entering, state.hidden)
            read = self.readout(outputs, context, words)
        feed = read[:, -1] if self.feeds else None
        return read, weights, RecurrentState(hidden, feed, state.summary, state.memory, past)

    def _look(self, asking: Tensor, state: RecurrentState, need_weights: bool) -> Attended:
        if self.attention is None or state.memory is None:
            raise Seq2attnError(f"the order {self.order} needs an attention; give the decoder one")
        attended: Attended = self.attention(asking, state.memory, state.past, need_weights)
        return attended


class LayerState(NamedTuple):
    """What one layer of a Transformer decoder keeps between steps."""

    own: Memory | None  # keys and values of the tokens read so far
    own_past: Past | None
    source: Memory
    source_past: Past


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention, feed-forward, each with its residual."""

    def __init__(
        self, own: MultiHead, source: MultiHead, feed_forward: FeedForward, norm: str, dropout: float
    ) -> None:
        super().__init__()
        size = own.out.out_features
        self.own, self.source, self.feed_forward = own, source, feed_forward
        self.around_own, self.around_source, self.around_feed_forward = (
            Residual(size, norm, dropout) for _ in range(3)
        )

    def start(self, encoded: Encoded) -> LayerState:
        """Keys and values of the source, once."""
        memory = self.source.remember(encoded.states, encoded.mask)
        return LayerState(None, None, memory, self.source.begin(memory))

    def forward(
        self, x: Tensor, mask: Tensor, state: LayerState, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None, LayerState]:
        """x (B, T, D); mask (B, T, T) of the new tokens among themselves; weights (B, H, T, S)."""
        y = self.around_own.enter(x)
        own = self.own.remember(y, mask, state.own_past.step if state.own_past else None)
        own = state.own.append(own) if state.own else own
        attended = self.own(y, own, state.own_past or self.own.begin(own), need_weights=False)
        x, own_past = self.around_own.leave(x, attended.context), attended.past
        y = self.around_source.enter(x)
        attended = self.source(y, state.source, state.source_past, need_weights)
        x = self.around_source.leave(x, attended.context)
        x = self.around_feed_forward.leave(x, self.feed_forward(self.around_feed_forward.enter(x)))
        return x, attended.weights, LayerState(own, own_past, state.source, attended.past)


class TransformerState(NamedTuple):
    """Batch first, so that a search can reorder it."""

    step: Tensor  # (B,), tokens read so far
    layers: tuple[LayerState, ...]


class TransformerDecoder(Decoder):
    """Layers of self- and cross-attention (Vaswani et al. 2017)."""

    def __init__(
        self, embedding: Embedding, layers: list[DecoderLayer], norm: str, output: nn.Linear
    ) -> None:
        super().__init__()
        self.embedding, self.layers, self.output = embedding, nn.ModuleList(layers), output
        self.norm = nn.LayerNorm(output.in_features) if norm == "pre" else nn.Identity()
        self.attention_layers = len(layers)

    def start(self, encoded: Encoded) -> TransformerState:
        """See the base class."""
        step = torch.zeros(len(encoded.states), dtype=torch.long, device=encoded.states.device)
        layers = cast("list[DecoderLayer]", list(self.layers))
        return TransformerState(step, tuple(layer.start(encoded) for layer in layers))

    def step(
        self, token: Int[Tensor, " B"], state: TransformerState
    ) -> tuple[Float[Tensor, "B V"], TransformerState]:
        """See the base class."""
        mask = torch.ones(len(token), 1, 1, dtype=torch.bool, device=token.device)
        decoded, state = self._advance(token.unsqueeze(1), mask, state)
        return decoded.logits.squeeze(1), state

    def forward(self, tokens: Int[Tensor, "B T"], encoded: Encoded, look: Sequence[int] = ()) -> Decoded:
        """See the base class."""
        length = tokens.shape[1]
        causal = torch.ones(1, length, length, dtype=torch.bool, device=tokens.device).tril()
        return self._advance(tokens, causal.expand(len(tokens), -1, -1), self.start(encoded), look)[0]

    def _advance(
        self, tokens: Tensor, mask: Tensor, state: TransformerState, look: Sequence[int] = ()
    ) -> tuple[Decoded, TransformerState]:
        x, states, weights = self.embedding(tokens, state.step), [], {}
        for number, (layer, before) in enumerate(zip(self.layers, state.layers, strict=True)):
            x, weights[number], after = layer(x, mask, before, number in look)
            states.append(after)
        logits = self.output(self.norm(x))
        looked = torch.stack([weights[number] for number in look], 1) if look else None
        return Decoded(logits, looked), TransformerState(state.step + tokens.shape[1], tuple(states))
