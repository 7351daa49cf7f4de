"""LSTM and GRU decoders without attention. Their only input from the source is its summary, one vector."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seq2attn.attention.state import PerSource, expand_to_hypotheses
from seq2attn.layers.basic import Embedding, Projection
from seq2attn.models.decoders.base import Decoded, Decoder
from seq2attn.models.decoders.cell import Cell
from seq2attn.models.decoders.readout import OutputLayers
from seq2attn.models.encoders import Encoded


class SummaryState(NamedTuple):
    """Batch first, so that a search can reorder it."""

    hidden: tuple[Tensor, ...]  # (B, layers, H) each, of the cell
    summary: PerSource[Tensor | None]  # (B, D), if it enters every step


class SummaryDecoder(Decoder):
    """An LSTM or GRU that starts from the source's summary.

    summary_in_steps: the summary also enters every step and the readout (Cho et al. 2014); else only the
    initial state (Sutskever et al. 2014).
    """

    def __init__(
        self, embedding: Embedding, cell: Cell, layers: OutputLayers, summary_in_steps: bool
    ) -> None:
        super().__init__()
        self.embedding, self.cell = embedding, cell
        self.readout, self.output, self.dropout = layers.readout, layers.output, layers.dropout
        self.summary_in_steps = summary_in_steps

    def start(self, encoded: Encoded) -> SummaryState:
        """See the base class."""
        summary = encoded.summary if self.summary_in_steps else None
        return SummaryState(self.cell.start(encoded.summary), PerSource(summary))

    def step(
        self, token: Int[Tensor, " B"], state: SummaryState
    ) -> tuple[Float[Tensor, "B V"], SummaryState]:
        """See the base class."""
        decoded, state = self._advance(token.unsqueeze(1), state)
        return decoded.logits.squeeze(1), state

    def forward(
        self, tokens: Int[Tensor, "B T"], encoded: Encoded, weights_of: Sequence[int] = ()
    ) -> Decoded:
        """See the base class; there are no weights."""
        decoded, _ = self._advance(tokens, self.start(encoded))
        return decoded

    def _advance(self, tokens: Int[Tensor, "B T"], state: SummaryState) -> tuple[Decoded, SummaryState]:
        words = self.embedding(tokens)  # (B, T, E)
        inputs, context = words, None
        if state.summary.value is not None:
            summary = expand_to_hypotheses(state.summary.value, words.shape[0])  # (B, D)
            context = summary.unsqueeze(1).expand(-1, words.shape[1], -1)  # (B, T, D)
            inputs = torch.cat([words, context], -1)  # (B, T, E + D)
        outputs, hidden = self.cell(inputs, state.hidden)  # (B, T, H)
        readouts = self.dropout(self.readout(outputs, context, words))  # (B, T, R)
        return Decoded(Projection.of(readouts, self.output)), state._replace(hidden=hidden)
