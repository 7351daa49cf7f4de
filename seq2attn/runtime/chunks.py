"""Blocks of rows that are as wide as the vocabulary.

On a CPU, a few such rows stay in the caches from one operation to the next, while all rows together would go
through main memory for each operation. On a GPU it is fastest to compute all rows at once.
"""

import torch

ROWS = 32  # per core: rows of a few thousand numbers each, as many as its caches hold


def blocks(count: int, device: torch.device, rows: int = 1) -> list[slice]:
    """Return slices that cover `count` items of `rows` rows each, in order.

    No slice is empty, except the single slice for count 0.
    """
    size = max(1, ROWS * torch.get_num_threads() // rows) if device.type == "cpu" else count
    return [slice(start, start + size) for start in range(0, max(count, 1), max(size, 1))]
