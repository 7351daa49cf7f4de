"""LSTM and GRU decoders, in the orders of the papers."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seq2attn.attention import Attended, Attention, Memory, Past
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.state import PerSource, expand_to_hypotheses
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Dropout, Embedding, Maxout, dropped
from seq2attn.layers.recurrent import CELLS
from seq2attn.models.decoders.base import Decoded, Decoder, Projection, covered
from seq2attn.models.decoders.copying import Copies, PointerGenerator
from seq2attn.models.decoders.latent import PositionPredictions, mixture, posterior, top_k
from seq2attn.models.encoders import Encoded


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
        if entering.shape[1] == 1:
            return self._step(entering.squeeze(1), state)
        before = [part.transpose(0, 1).contiguous() for part in state]
        outputs, after = self.rnn(entering, tuple(before) if len(before) > 1 else before[0])
        parts = after if isinstance(after, tuple) else (after,)
        return outputs, tuple(part.transpose(0, 1) for part in parts)

    def _step(self, x: Float[Tensor, "B I"], state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The same for one token: a CPU would pack the weights of torch's layers anew for every one."""
        layers: list[tuple[Tensor, ...]] = []
        for weights, *before in zip(self.rnn.all_weights, *(part.unbind(1) for part in state), strict=True):
            if layers and self.training:
                x = dropped(x, self.rnn.dropout)
            if len(before) > 1:
                layers.append(torch.lstm_cell(x, before, *weights))
            else:
                layers.append((torch.gru_cell(x, *before, *weights),))
            x = layers[-1][0]
        return x.unsqueeze(1), tuple(torch.stack(parts, 1) for parts in zip(*layers, strict=True))


class Readout(nn.Module):
    """From state, context and word to what the output layer reads.

    tanh: tanh(W [context; state]), no bias (Luong et al. 2015, eq. 5);
    maxout: of W [context; state; word] (Bahdanau et al. 2015, A.2.2).
    latent, top: from which context, see RecurrentDecoder.
    """

    def __init__(
        self,
        kind: str,
        state: int,
        context: int,
        word: int,
        size: int,
        latent: str = "none",
        top: int | None = None,
    ) -> None:
        super().__init__()
        self.kind, self.size, self.latent, self.top = kind, size, latent, top
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
    summary: PerSource[Tensor | None]  # (B, D), the source in one vector, where it enters every step
    memory: PerSource[Memory | None]
    past: Past | None
    predictions: PositionPredictions | None = None  # where the posterior waits for the token to be known
    copies: PerSource[Copies | None] = PerSource(None)  # of the source, where it is copied from


class Reading(NamedTuple):
    """What T steps have made of the tokens that they read."""

    words: Tensor  # (B, T, E)
    asked: Tensor  # (B, T, D), the states that the readout sees
    read: Tensor  # (B, T, R), the readouts
    attended: Attended | None
    logits: Tensor | None = None  # (B, T, V), where every slot predicts by itself


class RecurrentDecoder(Decoder):
    """LSTM or GRU. `order` says who asks when:

    - bahdanau: the previous state asks, the context enters the cell; a maxout readout sees the state that
      asked (Bahdanau et al. 2015);
    - luong: the cell reads the word (and, with input feeding, the last attentional vector, before dropout),
      then its state asks (Luong et al. 2015);
    - cho: no attention, the source's summary enters every step and the readout (Cho et al. 2014);
    - sutskever: no attention, the summary only starts the state (Sutskever et al. 2014).

    `readout.latent` says from what the next token is predicted (decoders/latent.py):

    - none: from the context, the mean of the slots (soft attention);
    - marginal: from every slot by itself, mixed by the weights; only from the `readout.top` likeliest, if
      given. States go on with the mean. In the order luong without input feeding no state depends on where
      was looked, and the likelihood is exactly that of a model that draws each alignment by itself (Wu et al.
      2018); else states remember a mean, as in Deng et al. 2018;
    - posterior: as well, once a token is known, what it says about the alignment takes the place of the
      weights: in the past, in the belief of a normalizer that keeps one (if the belief is the weights, that
      is exact filtering in a hidden Markov model, Wu and Cotterell 2019), and in the context of what is fed
      to the next step. In the order bahdanau the cell has read the mean by then.

    The logits of a mixture are log-probabilities. It costs an output layer for every slot; in training, the
    (B, S, V) numbers of a step are made anew for its gradient, so that they never stand for all T.
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
        self.input_feeding = order == "luong" and cell.rnn.input_size > embedding.table.embedding_dim
        self.sequential = order == "bahdanau" or self.input_feeding or readout.latent == "posterior"
        self.attention_layers = int(attention is not None)
        if readout.latent != "none":
            _check_latent(attention)

    def start(self, encoded: Encoded) -> RecurrentState:
        """See the base class."""
        memory = past = feed = None
        if self.attention is not None:
            memory = self.attention.remember(encoded.states, encoded.mask, sentences=encoded.sentence_ids)
            past = self.attention.initial_state(memory)
        if self.input_feeding:
            feed = encoded.summary.new_zeros(len(encoded.summary), self.readout.size)
        summary = encoded.summary if self.order == "cho" else None
        hidden, copies = self.cell.start(encoded.summary), PerSource(self.copies(encoded))
        return RecurrentState(hidden, feed, PerSource(summary), PerSource(memory), past, copies=copies)

    def step(
        self, token: Int[Tensor, " B"], state: RecurrentState
    ) -> tuple[Float[Tensor, "B V"], RecurrentState]:
        """See the base class."""
        tokens = token.unsqueeze(1)
        # One query's weights cost nothing, and with them the state knows its coverage.
        reading, state = self._read(tokens, self.embedding(tokens), state, self._kept(tokens), True)
        predicted, _ = self._predicted([reading], expand_to_hypotheses(state.copies.value, len(token)))
        return Decoded(predicted, None).logits.squeeze(1), state

    def forward(self, tokens: Int[Tensor, "B T"], encoded: Encoded, look: Sequence[int] = ()) -> Decoded:
        """All steps in one go where no step waits for the one before."""
        state, words, kept = self.start(encoded), self.embedding(tokens), self._kept(tokens)
        readings: list[Reading] = []
        together = 1 if self.sequential else tokens.shape[1]
        need_weights = bool(look) or self.pointer_generator is not None
        for place in range(0, tokens.shape[1], together):
            some = (slice(None), slice(place, place + together))
            of_these = None if kept is None else kept[some]
            reading, state = self._read(tokens[some], words[some], state, of_these, need_weights)
            readings.append(reading)
        predicted, gate = self._predicted(readings, state.copies.value)
        answers = [reading.attended for reading in readings if reading.attended is not None]
        if not look or not answers:
            return Decoded(predicted, None, gate=gate)
        weights = _layers([answer.weights for answer in answers], len(look))
        return Decoded(predicted, weights, _layers([answer.sampled for answer in answers], len(look)), gate)

    def copying(self, pointer_generator: PointerGenerator) -> None:
        """See the base class."""
        if self.readout.latent != "none":
            raise Seq2attnError("a latent alignment predicts from every slot by itself: no copying with it")
        super().copying(pointer_generator)

    def cross_attention(self, layer: int) -> Attention:
        """See the base class."""
        looks = self.attention.attention if isinstance(self.attention, MultiHead) else self.attention
        return cast(Attention, looks)

    def coverage(self, state: RecurrentState) -> Float[Tensor, "B S"] | None:
        """See the base class."""
        memory, past = state.memory.value, state.past
        return None if memory is None or past is None else covered(memory, past)

    def _kept(self, tokens: Tensor) -> Tensor | None:
        """(B, T, R): what dropout leaves of the readouts, the same at every slot; None if all are one."""
        if self.readout.latent == "none":
            return None
        ones = self.output.weight.new_ones(*tokens.shape, self.readout.size)
        return self.dropout(ones)  # type: ignore[no-any-return]

    def _predicted(
        self, readings: list[Reading], copies: Copies | None
    ) -> tuple[Tensor | Projection, Tensor | None]:
        """(B, T, V), and the gate (B, T) where it copies; the output layer works once, on all steps."""
        mixed = [reading.logits for reading in readings if reading.logits is not None]
        if mixed:
            return torch.cat(mixed, 1), None
        reads = self.dropout(torch.cat([reading.read for reading in readings], 1))
        predicted = Projection.of(reads, self.output)
        if self.pointer_generator is None or copies is None:
            return predicted, None
        answers = [cast(Attended, reading.attended) for reading in readings]
        parts = zip(
            *((a.context, r.asked, r.words) for a, r in zip(answers, readings, strict=True)), strict=True
        )
        weights = torch.cat([cast(Tensor, answer.weights) for answer in answers], -2)
        gate_input = [torch.cat(part, 1) for part in parts]
        mixed_logits, gate = self.pointer_generator(predicted.whole(), gate_input, weights, copies)
        return mixed_logits, gate

    def _read(
        self, tokens: Tensor, words: Tensor, state: RecurrentState, kept: Tensor | None, need_weights: bool
    ) -> tuple[Reading, RecurrentState]:
        """Read tokens (B, T), whose embeddings are the words; what comes of it, and the state after them."""
        if state.predictions is not None:
            state = self._known(tokens[:, 0], state, state.predictions)
        reading, after = self._advance(words, state, need_weights or kept is not None)
        memory = state.memory.value
        if kept is None or memory is None:
            return reading, after
        logits, predictions = self._mixed(reading, kept, expand_to_hypotheses(memory.values, len(tokens)))
        return reading._replace(logits=logits), after._replace(predictions=predictions)

    def _advance(
        self, words: Tensor, state: RecurrentState, need_weights: bool
    ) -> tuple[Reading, RecurrentState]:
        """Read words (B, T, E) and look at the source, in the order of the paper."""
        context: Tensor | None
        attended, past = None, state.past
        if self.order == "bahdanau":
            asking = state.hidden[0][:, -1:]
            attended = self._look(asking, state, need_weights)
            context, past = attended.context, attended.past
            outputs, hidden = self.cell(torch.cat([words, context], -1), state.hidden)
            asked = asking if self.readout.kind == "maxout" else outputs
        elif self.order == "luong":
            entering = words if state.feed is None else torch.cat([words, state.feed.unsqueeze(1)], -1)
            asked, hidden = self.cell(entering, state.hidden)
            attended = self._look(asked, state, need_weights)
            context, past = attended.context, attended.past
        else:
            summary = state.summary.value
            context = (
                None
                if summary is None
                else expand_to_hypotheses(summary, len(words)).unsqueeze(1).expand(-1, words.shape[1], -1)
            )
            entering = words if context is None else torch.cat([words, context], -1)
            asked, hidden = self.cell(entering, state.hidden)
        read = self.readout(asked, context, words)
        feed = read[:, -1] if self.input_feeding else None
        after = state._replace(hidden=hidden, feed=feed, past=past)
        return Reading(words, asked, read, attended), after

    def _look(self, asking: Tensor, state: RecurrentState, need_weights: bool) -> Attended:
        memory = state.memory.value
        if self.attention is None or memory is None:
            raise Seq2attnError(f"the order {self.order} needs an attention; give the decoder one")
        attended: Attended = self.attention(asking, memory, state.past, need_weights)
        return attended

    def _mixed(
        self, reading: Reading, kept: Tensor, values: Tensor
    ) -> tuple[Tensor, PositionPredictions | None]:
        """What all slots together predict (B, T, V), and what the posterior of the last step needs."""
        weights = cast(Tensor, cast(Attended, reading.attended).weights)
        mixed, predictions = [], None
        for step in zip(*(x.split(1, 1) for x in (reading.words, reading.asked, weights, kept)), strict=True):
            if torch.is_grad_enabled():
                logits, predictions = checkpoint(
                    self._guess, values, *step, use_reentrant=False, preserve_rng_state=False
                )
            else:
                logits, predictions = self._guess(values, *step)
            mixed.append(logits)
        return torch.stack(mixed, 1), predictions if self.readout.latent == "posterior" else None

    def _guess(
        self, values: Tensor, word: Tensor, asked: Tensor, weights: Tensor, kept: Tensor
    ) -> tuple[Tensor, PositionPredictions]:
        """One step (B, 1, .) at all the slots (B, S, .): the mixture (B, V), and what it is made of."""
        weights = weights.squeeze(1)
        log_weights, places = top_k(weights, self.readout.top)
        if places.shape[1] < values.shape[1]:
            values = values.gather(1, places.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
        values = values * (weights.sum(-1) > 0)[:, None, None]  # who sees nothing has a context of 0
        each = (-1, places.shape[1], -1)
        reads = self.readout(asked.expand(each), values, word.expand(each)) * kept
        mixed, normalizers = mixture(reads, log_weights, self.output)
        return mixed, PositionPredictions(word, reads, normalizers, log_weights, places)

    def _known(
        self, token: Tensor, state: RecurrentState, predictions: PositionPredictions
    ) -> RecurrentState:
        """The state once its token is known: the posterior takes the place of the weights."""
        memory, past = cast(Memory, state.memory.value), cast(Past, state.past)
        prior, coverage = cast(Tensor, past.weights), cast(Tensor, past.coverage)
        seen = prior.sum(-1, keepdim=True) > 0
        weights = posterior(predictions, token, self.output, prior.shape[-1]) * seen
        alignment_state = None if past.alignment_state is None else weights
        past = past._replace(
            weights=weights, coverage=coverage - prior + weights, alignment_state=alignment_state
        )
        feed = state.feed
        if feed is not None:
            values = expand_to_hypotheses(memory.values, len(weights))
            context = weights.to(values.dtype).unsqueeze(1) @ values
            feed = self.readout(state.hidden[0][:, -1:], context, predictions.word).squeeze(1)
        return state._replace(past=past, feed=feed, predictions=None)


def _check_latent(attention: nn.Module | None) -> None:
    if not isinstance(attention, Attention):
        raise Seq2attnError(
            "a latent alignment is to one slot at a time: give the decoder an attention of one head, without "
            "projections"
        )
    if not attention.normalize.sums_to_one:
        raise Seq2attnError(
            "a latent alignment needs weights that are probabilities, and those of "
            f"{type(attention.normalize).__name__} need not sum to 1"
        )


def _layers(steps: list[Tensor | None], count: int) -> Tensor | None:
    """(B, T, S) or (B, H, T, S) of some steps as (B, L, H, T, S); None if there are none."""
    there = [step for step in steps if step is not None]
    if not there:
        return None
    together = torch.cat(there, -2)
    heads = together if together.dim() == 4 else together.unsqueeze(1)
    return torch.stack([heads] * count, 1)
