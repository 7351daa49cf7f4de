"""Attention blocks for images: features (B, C, H, W) -> features of the same shape.

To add a block, write its class and add its line to BLOCKS (registry.py). Its keyword-only parameters are its
options in a recipe.
"""

from seq2attn.attention.blocks.block import Block, Gate, Looked, Map
from seq2attn.attention.blocks.registry import BLOCKS

__all__ = [
    "BLOCKS",
    "Block",
    "Gate",
    "Looked",
    "Map",
]
