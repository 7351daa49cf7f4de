"""Warnings of blocks that do not suit the grid on which they stand."""

from collections.abc import Iterator

import torch

from seq2attn.attention.blocks import BLOCKS
from seq2attn.recipe.sections import Part

MANY = 2**28  # weights of an image that are worth a warning: 1 GiB in float32


def grid_notes(part: Part, channels: int, where: str, stride: int, sides: tuple[int, int]) -> Iterator[str]:
    """Yield warnings of a block or a head.

    channels: that it gets. where: it stands, for the message. stride: pixels between two positions there.
    sides: height and width of the largest image, in pixels.
    """
    grid = -(-sides[0] // stride), -(-sides[1] // stride)
    if wide := [rate for rate in part.options.get("rates", ()) if 2 * rate > max(grid)]:
        yield (
            f"{where}: of 3x3 convolutions with the rates {', '.join(map(str, wide))}, most positions of a "
            f"grid of {grid[0]}x{grid[1]} see only the middle: use smaller rates"
        )
    if part.name not in BLOCKS:
        return
    with torch.device("meta"):
        pairs = part.make(BLOCKS, channels).pairs(grid)
    if pairs >= MANY:
        yield (
            f"{where}: on a grid of {grid[0]}x{grid[1]} it weighs {pairs:,} pairs of positions, which takes "
            f"{4 * pairs / 2**30:.1f} GiB for each image if the weights are kept, as in heat maps, and much "
            "time: let it stand on a coarser grid, or use criss_cross or window"
        )
