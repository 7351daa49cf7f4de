"""Decoders: `start(encoded) -> state`, `step(token, state) -> logits, state`, `forward` = all steps at once.

The same target tokens through `forward` and through `step` give the same logits. Tokens are the decoder's
input: the first is the begin-of-sentence, and logits of step t predict the token that step t + 1 reads.
"""

from seq2attn.layers.basic import Projection
from seq2attn.models.decoders.base import Decoded, Decoder, stack_layers
from seq2attn.models.decoders.cell import Cell
from seq2attn.models.decoders.copying import CopySource, PointerGenerator
from seq2attn.models.decoders.latent import LatentAlignment
from seq2attn.models.decoders.readout import OutputLayers, Readout
from seq2attn.models.decoders.recurrent import (
    BahdanauDecoder,
    LuongDecoder,
    RecurrentDecoder,
    RecurrentState,
)
from seq2attn.models.decoders.shift_head import ShiftHead
from seq2attn.models.decoders.summary import SummaryDecoder, SummaryState
from seq2attn.models.decoders.transformer import (
    DecoderLayer,
    LayerState,
    SelfAttentionMasks,
    TransformerDecoder,
    TransformerState,
)
from seq2attn.recipe.kinds import DECODERS

__all__ = [
    "DECODERS",
    "BahdanauDecoder",
    "Cell",
    "CopySource",
    "Decoded",
    "Decoder",
    "DecoderLayer",
    "LatentAlignment",
    "LayerState",
    "LuongDecoder",
    "OutputLayers",
    "PointerGenerator",
    "Projection",
    "Readout",
    "RecurrentDecoder",
    "RecurrentState",
    "SelfAttentionMasks",
    "ShiftHead",
    "SummaryDecoder",
    "SummaryState",
    "TransformerDecoder",
    "TransformerState",
    "stack_layers",
]
