"""BLOCKS: all attention blocks for images, by the names that they have in recipes."""

from seq2attn.attention.blocks.block import Block
from seq2attn.attention.blocks.channel import SE

BLOCKS: dict[str, type[Block]] = {
    "se": SE,
}
