"""Rows as wide as the vocabulary, in blocks: a CPU keeps a few of them in its caches while it works on them,
where all of them would pass through its memory once for each operation. A GPU wants all at once."""

import torch

ROWS = 32  # of some thousand numbers each


def blocks(count: int, device: torch.device) -> list[slice]:
    """Slices that cover `count` rows, in their order; none of them is empty, but that of no rows."""
    size = ROWS if device.type == "cpu" else count
    return [slice(start, start + size) for start in range(0, max(count, 1), max(size, 1))]
