"""Make the sample of digits that ships with seq2attn from MNIST: python scripts/make_digits.py FOLDER

FOLDER has the four files of MNIST as published (train-images-idx3-ubyte.gz, ...). The sample is 2,000 images
to train and 250 dev from MNIST's training images, and 250 test from its test images, as many of each digit:
the first in the order of the SHA-256 of the image, which is a random sample. Each split is in that order.
"""

import hashlib
import lzma
import struct
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seq2attn.data.idx import idx_rows

SAMPLE = Path(__file__).parent.parent / "seq2attn" / "samples" / "digits"
COUNTS = {"train": (0, 200), "dev": (200, 225), "test": (0, 25)}  # of each digit: from, to
SOURCES = {"train": "train", "dev": "train", "test": "t10k"}


def choose(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the images (N, 28, 28) and digits (N,) of a split."""
    name = SOURCES[split]
    files = folder / f"{name}-images-idx3-ubyte.gz", folder / f"{name}-labels-idx1-ubyte.gz"
    rows = sorted(idx_rows(*files), key=lambda row: (hashlib.sha256(row[0].tobytes()).digest(), row[1]))
    begin, end = COUNTS[split]
    seen = dict.fromkeys(range(10), 0)
    chosen = []
    for image, digit in rows:
        if begin <= seen[digit] < end:
            chosen.append((image, digit))
        seen[digit] += 1
    images, digits = zip(*chosen, strict=True)
    return np.stack(images), np.array(digits, np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    """Return an array in the format idx."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def main(folder: Path) -> None:
    """Write the files of the sample."""
    SAMPLE.mkdir(exist_ok=True)
    for split in COUNTS:
        for name, array in zip(("images", "labels"), choose(folder, split), strict=True):
            path = SAMPLE / f"{split}.{name}.idx.xz"
            path.write_bytes(lzma.compress(idx(array), preset=9 | lzma.PRESET_EXTREME))
            print(f"{path}: {array.shape}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
