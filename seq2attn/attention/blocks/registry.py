"""BLOCKS: all attention blocks for images, by the names that they have in recipes."""

from seq2attn.attention.blocks.block import Block
from seq2attn.attention.blocks.channel import SE
from seq2attn.attention.blocks.looks import CAM, PAM, NonLocal
from seq2attn.attention.blocks.windows import MHSA, CrissCross, WindowAttention

BLOCKS: dict[str, type[Block]] = {
    "se": SE,
    "nonlocal": NonLocal,
    "criss_cross": CrissCross,
    "pam": PAM,
    "cam": CAM,
    "window": WindowAttention,
    "mhsa": MHSA,
}
