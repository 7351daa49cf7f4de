"""BLOCKS, the table of blocks by their names. It stands apart from the classes, so that a block can hold
another one by its name; registry.py fills it."""

from seq2attn.attention.blocks.block import Block
from seq2attn.registry import Registry

BLOCKS: Registry[type[Block]] = Registry("BLOCKS", Block)
