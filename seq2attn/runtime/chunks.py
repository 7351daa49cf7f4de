"""Rows as wide as the vocabulary, in blocks: a CPU keeps a few of them in its caches while it works on them,
where all of them would pass through its memory once for each operation. A GPU wants all at once."""

import torch

ROWS = 32  # of some thousand numbers each, for the caches of one core


def blocks(count: int, device: torch.device, rows: int = 1) -> list[slice]:
    """Slices that cover `count` things of so many rows each, in their order; none of them is empty, but that
    of nothing."""
    size = max(1, ROWS * torch.get_num_threads() // rows) if device.type == "cpu" else count
    return [slice(start, start + size) for start in range(0, max(count, 1), max(size, 1))]
