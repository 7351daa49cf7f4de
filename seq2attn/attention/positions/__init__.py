"""Positions: added to embeddings, encoded by rotating queries and keys, or added to scores.

Keyword-only parameters are options in a recipe. `start` is the position of the first token, so that decoding
step by step uses the same positions as decoding all at once. Relative positions need no start: the last query
is at the last key. Positions with `needs_grid` are for images.
"""

from seq2attn.attention.positions.absolute import Learned, NoPosition, Position, Rotary, Sinusoidal
from seq2attn.attention.positions.grid import Axial, Learned2d, Rotary2d, Sinusoidal2d, Swin
from seq2attn.attention.positions.registry import POSITIONS, SEQUENCE_POSITIONS
from seq2attn.attention.positions.relative import T5, Alibi, Distance, Shaw, slopes

__all__ = [
    "POSITIONS",
    "SEQUENCE_POSITIONS",
    "T5",
    "Alibi",
    "Axial",
    "Distance",
    "Learned",
    "Learned2d",
    "NoPosition",
    "Position",
    "Rotary",
    "Rotary2d",
    "Shaw",
    "Sinusoidal",
    "Sinusoidal2d",
    "Swin",
    "slopes",
]
