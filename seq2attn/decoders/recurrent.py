"""LSTM and GRU decoders, in the orders of the papers."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention import Attended, Attention, Memory, Past
from seq2attn.decoders.base import Decoded, Decoder
from seq2attn.encoders import CELLS, Encoded
from seq2attn.errors import Seq2attnError
from seq2attn.heads import MultiHead
from seq2attn.layers import Dropout, Embedding, Maxout


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
