"""LSTM and GRU decoders with attention, each in the order of its paper.

Letters: B batch, T steps, S source positions, E width of an embedding, H of a hidden state, D of the
encoder's states, R of a readout, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seq2attn.attention import Attended, Attention, Memory, Past
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.state import PerSource, expand_to_hypotheses
from seq2attn.errors import NotDefinedError, Seq2attnError
from seq2attn.layers.basic import Embedding, Projection
from seq2attn.models.decoders.base import Decoded, Decoder, masked_coverage, stack_layers
from seq2attn.models.decoders.cell import Cell
from seq2attn.models.decoders.copying import CopySource, PointerGenerator
from seq2attn.models.decoders.latent import LatentAlignment, PositionPredictions
from seq2attn.models.decoders.readout import OutputLayers
from seq2attn.models.encoders import Encoded


class RecurrentState(NamedTuple):
    """The state of a recurrent decoder with attention. Batch first, so that a search can reorder it."""

    hidden: tuple[Tensor, ...]  # (B, layers, H) each, of the cell
    attentional_vector: Tensor | None  # (B, R), enters the next step with input feeding
    memory: PerSource[Memory]
    past: Past
    predictions: PositionPredictions | None = None  # with a posterior alignment, until the token is known
    copy_source: PerSource[CopySource | None] = PerSource(None)  # with copying


class RecurrentSteps(NamedTuple):
    """Intermediate results of T decoder steps."""

    words: Tensor  # (B, T, E), embeddings of the tokens that are read
    hidden: Tensor  # (B, T, H), the hidden states that the readout takes
    readouts: Tensor  # (B, T, R)
    read: Tensor  # (B, T, H), the hidden states that have read the tokens
    attended: Attended  # context (B, T, D), weights (B, T, S) or (B, heads, T, S)
    log_p: Tensor | None = None  # (B, T, V), of the mixture over positions, with a latent alignment


class RecurrentDecoder(Decoder):
    """The base class of LSTM and GRU decoders with attention; subclasses define when the cell attends.

    latent: the alignment as a latent variable; it cannot be combined with a pointer generator. None: soft
    attention, the next token is predicted from the context.
    """

    def __init__(
        self,
        embedding: Embedding,
        cell: Cell,
        attention: Attention | MultiHead,
        layers: OutputLayers,
        latent: LatentAlignment | None = None,
        pointer_generator: PointerGenerator | None = None,
    ) -> None:
        super().__init__()
        self.embedding, self.cell, self.attention = embedding, cell, attention
        self.readout, self.output, self.dropout = layers.readout, layers.output, layers.dropout
        self.attention_layers, self.latent = 1, latent
        if latent is not None:
            latent.check(attention)
            if pointer_generator is not None:
                raise Seq2attnError("a latent alignment predicts from each position separately: no copying")
        self.pointer_generator = self._check_copying(pointer_generator)

    @property
    def sequential(self) -> bool:
        """Whether each step needs the result of the previous one, so that T steps cannot be computed at
        once."""
        raise NotDefinedError(f"{type(self).__name__} must implement sequential")

    def _advance(
        self, words: Float[Tensor, "B T E"], state: RecurrentState, need_weights: bool
    ) -> tuple[RecurrentSteps, RecurrentState]:
        """Read words and attend to the source, in the order of the paper; return the state after them."""
        raise NotDefinedError(f"{type(self).__name__} must implement _advance()")

    def start(self, encoded: Encoded) -> RecurrentState:
        """See the base class."""
        memory = self.attention.remember(
            encoded.states, encoded.mask, sentences=encoded.sentence_ids, grid=encoded.grid
        )
        past = self.attention.initial_state(memory)
        hidden, copy_source = self.cell.start(encoded.summary), PerSource(self._copy_source(encoded))
        return RecurrentState(hidden, None, PerSource(memory), past, copy_source=copy_source)

    def step(
        self, token: Int[Tensor, " B"], state: RecurrentState
    ) -> tuple[Float[Tensor, "B V"], RecurrentState]:
        """See the base class."""
        tokens = token.unsqueeze(1)  # (B, 1)
        # The weights of a single query cost nothing, and with them the past tracks coverage.
        steps, state = self._read(tokens, self.embedding(tokens), state, self._dropout_mask(tokens), True)
        decoded = self._decoded([steps], expand_to_hypotheses(state.copy_source.value, token.shape[0]))
        return decoded.logits.squeeze(1), state

    def forward(
        self, tokens: Int[Tensor, "B T"], encoded: Encoded, weights_of: Sequence[int] = ()
    ) -> Decoded:
        """See the base class. All steps are computed at once unless the decoder is sequential."""
        state, words, dropout_mask = self.start(encoded), self.embedding(tokens), self._dropout_mask(tokens)
        need_weights = bool(weights_of) or self.pointer_generator is not None
        length = 1 if self.sequential else tokens.shape[1]
        all_steps: list[RecurrentSteps] = []
        for start in range(0, tokens.shape[1], length):
            chunk = slice(start, start + length)
            mask = None if dropout_mask is None else dropout_mask[:, chunk]
            steps, state = self._read(tokens[:, chunk], words[:, chunk], state, mask, need_weights)
            all_steps.append(steps)
        decoded = self._decoded(all_steps, state.copy_source.value)
        if not weights_of:
            return decoded
        weights = _joined([steps.attended.weights for steps in all_steps])
        sampled = _joined([steps.attended.sampled for steps in all_steps])
        of_head = none_sampled = None
        if self.shift_head is not None and self.attention_layers - 1 in weights_of:
            of_head = self.shift_head(torch.cat([steps.read for steps in all_steps], 1), encoded).weights
            none_sampled = None if sampled is None else torch.zeros_like(sampled)
        of_heads = [self.is_shift_head(layer) for layer in weights_of]
        return decoded._replace(
            weights=stack_layers([of_head if shifted else weights for shifted in of_heads]),
            sampled=stack_layers([none_sampled if shifted else sampled for shifted in of_heads]),
        )

    def observe(self, token: Int[Tensor, " B"], state: RecurrentState) -> RecurrentState:
        """Return the state once the token that its last step predicted is known.

        With a posterior alignment, the posterior replaces the weights of that step.
        """
        if self.latent is None or state.predictions is None:
            return state
        past = self.latent.condition(state.past, state.predictions, token, self.output)
        return state._replace(past=past, predictions=None)

    def cross_attention(self, layer: int) -> Attention:
        """See the base class."""
        if self.shift_head is not None and self.is_shift_head(layer):
            return self.shift_head.attention
        return self.attention.attention

    def coverage(self, state: RecurrentState) -> Float[Tensor, "B S"] | None:
        """See the base class."""
        return masked_coverage(state.memory.value, state.past)

    @property
    def _output_layers(self) -> OutputLayers:
        return OutputLayers(self.readout, self.output, self.dropout)

    def _dropout_mask(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T R"] | None:
        """Return the factors of dropout that all source positions of a latent alignment share."""
        return None if self.latent is None else self.latent.dropout_mask(tokens, self._output_layers)

    def _read(
        self,
        tokens: Int[Tensor, "B T"],
        words: Float[Tensor, "B T E"],
        state: RecurrentState,
        dropout_mask: Float[Tensor, "B T R"] | None,
        need_weights: bool,
    ) -> tuple[RecurrentSteps, RecurrentState]:
        """Read tokens, whose embeddings are the words; return the state after them."""
        if state.predictions is not None:
            state = self.observe(tokens[:, 0], state)
        steps, after = self._advance(words, state, need_weights or dropout_mask is not None)
        if self.latent is None or dropout_mask is None:
            return steps, after
        values = expand_to_hypotheses(state.memory.value.values, len(tokens))  # (B, S, D)
        weights = cast(Tensor, steps.attended.weights)  # (B, T, S)
        log_p, predictions = self.latent.predict(
            self._output_layers, values, (words, steps.hidden, weights, dropout_mask)
        )
        return steps._replace(log_p=log_p), after._replace(predictions=predictions)

    def _attend(self, query: Float[Tensor, "B T H"], state: RecurrentState, need_weights: bool) -> Attended:
        attended: Attended = self.attention(query, state.memory.value, state.past, need_weights)
        return attended

    def _decoded(self, all_steps: list[RecurrentSteps], copy_source: CopySource | None) -> Decoded:
        """Return the predictions of all steps, without weights; the output layer runs once."""
        mixed = [steps.log_p for steps in all_steps if steps.log_p is not None]
        if mixed:
            return Decoded(torch.cat(mixed, 1))
        readouts = torch.cat([steps.readouts for steps in all_steps], 1)  # (B, T, R)
        projection = Projection.of(self.dropout(readouts), self.output)
        if self.pointer_generator is None or copy_source is None:
            return Decoded(projection)
        gate_inputs = (
            torch.cat([steps.attended.context for steps in all_steps], 1),  # (B, T, D)
            torch.cat([steps.hidden for steps in all_steps], 1),  # (B, T, H)
            torch.cat([steps.words for steps in all_steps], 1),  # (B, T, E)
        )
        # (B, T, S) or (B, heads, T, S)
        weights = torch.cat([cast(Tensor, steps.attended.weights) for steps in all_steps], -2)
        logits, gate = self.pointer_generator(projection.whole(), gate_inputs, weights, copy_source)
        return Decoded(logits, gate=gate)


class BahdanauDecoder(RecurrentDecoder):
    """The previous hidden state is the query, and the context enters the cell (Bahdanau et al. 2015).

    A maxout readout takes the hidden state that was the query; tanh takes the one after it.
    """

    @property
    def sequential(self) -> bool:
        """See the base class."""
        return True

    def _advance(
        self, words: Float[Tensor, "B T E"], state: RecurrentState, need_weights: bool
    ) -> tuple[RecurrentSteps, RecurrentState]:
        """See the base class; T is 1."""
        query = state.hidden[0][:, -1:]  # (B, 1, H), of the top layer
        attended = self._attend(query, state, need_weights)
        outputs, hidden = self.cell(torch.cat([words, attended.context], -1), state.hidden)
        read_state = query if self.readout.kind == "maxout" else outputs  # (B, 1, H)
        readouts = self.readout(read_state, attended.context, words)  # (B, 1, R)
        after = state._replace(hidden=hidden, past=attended.past)
        return RecurrentSteps(words, read_state, readouts, outputs, attended), after


class LuongDecoder(RecurrentDecoder):
    """The cell reads the word, then its hidden state is the query (Luong et al. 2015).

    input_feeding: the cell also reads the attentional vector of the previous step (section 3.3), which is the
    readout of that step without dropout.
    """

    def __init__(
        self,
        embedding: Embedding,
        cell: Cell,
        attention: Attention | MultiHead,
        layers: OutputLayers,
        input_feeding: bool = False,
        latent: LatentAlignment | None = None,
        pointer_generator: PointerGenerator | None = None,
    ) -> None:
        super().__init__(embedding, cell, attention, layers, latent, pointer_generator)
        self.input_feeding = input_feeding

    @property
    def sequential(self) -> bool:
        """See the base class."""
        return self.input_feeding or (self.latent is not None and self.latent.kind == "posterior")

    def start(self, encoded: Encoded) -> RecurrentState:
        """See the base class."""
        state = super().start(encoded)
        if not self.input_feeding:
            return state
        zeros = encoded.summary.new_zeros(encoded.summary.shape[0], self.readout.size)  # (B, R)
        return state._replace(attentional_vector=zeros)

    def observe(self, token: Int[Tensor, " B"], state: RecurrentState) -> RecurrentState:
        """See the base class; the attentional vector is computed again, from the posterior's context."""
        after = super().observe(token, state)
        if state.predictions is None or not self.input_feeding:
            return after
        weights = cast(Tensor, after.past.weights)  # (B, S)
        values = expand_to_hypotheses(state.memory.value.values, len(weights))  # (B, S, D)
        context = weights.to(values.dtype).unsqueeze(1) @ values  # (B, 1, D)
        vector = self.readout(state.hidden[0][:, -1:], context, state.predictions.word)  # (B, 1, R)
        return after._replace(attentional_vector=vector.squeeze(1))

    def _advance(
        self, words: Float[Tensor, "B T E"], state: RecurrentState, need_weights: bool
    ) -> tuple[RecurrentSteps, RecurrentState]:
        """See the base class."""
        inputs = words  # (B, T, E); with input feeding (B, 1, E + R)
        if state.attentional_vector is not None:
            inputs = torch.cat([words, state.attentional_vector.unsqueeze(1)], -1)
        outputs, hidden = self.cell(inputs, state.hidden)  # (B, T, H)
        attended = self._attend(outputs, state, need_weights)
        readouts = self.readout(outputs, attended.context, words)  # (B, T, R)
        vector = readouts[:, -1] if self.input_feeding else None
        after = state._replace(hidden=hidden, attentional_vector=vector, past=attended.past)
        return RecurrentSteps(words, outputs, readouts, outputs, attended), after


def _joined(steps: list[Tensor | None]) -> Tensor | None:
    """Return the weights (B, T, S) or (B, H, T, S) of successive steps as those of all; None if there are
    none."""
    present = [step for step in steps if step is not None]
    return torch.cat(present, -2) if present else None
