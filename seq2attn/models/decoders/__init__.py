"""Decoders: `start(encoded) -> state`, `step(token, state) -> logits, state`, `forward` = all steps at once.

The same gold tokens through `forward` and through `step` give the same logits. Tokens are what is read:
the first is the begin-of-sentence, and logits of step t predict the token that step t + 1 reads.
"""

from seq2attn.models.decoders.base import Decoded, Decoder, Projection
from seq2attn.models.decoders.copying import Copies, PointerGenerator
from seq2attn.models.decoders.recurrent import Cell, Readout, RecurrentDecoder, RecurrentState
from seq2attn.models.decoders.transformer import (
    DecoderLayer,
    LayerState,
    Sight,
    TransformerDecoder,
    TransformerState,
)

__all__ = [
    "Cell",
    "Copies",
    "Decoded",
    "Decoder",
    "DecoderLayer",
    "LayerState",
    "PointerGenerator",
    "Projection",
    "Readout",
    "RecurrentDecoder",
    "RecurrentState",
    "Sight",
    "TransformerDecoder",
    "TransformerState",
]
