"""Make scenes of several digits with exact boxes from MNIST: python scripts/make_mnist_scenes.py MNIST FOLDER

MNIST has the four files as published (train-images-idx3-ubyte.gz, ...). FOLDER gets train.npz with 10,000
scenes of the first 55,000 training digits, dev.npz with 500 of the others, and test.npz with 500 of the test
digits, in the format that recipes read as {npz: train.npz}, and with the masks of the digits beside.

A scene is black, 128 x 128 pixels, with 1 to 8 digits, each scaled to 16 to 56 pixels and put where it lies
within the scene. Its box is that around its pixels of at least 64. A place whose box has an IoU of more than
0.1 with one before is drawn again, at most 20 times; then the digit is left out. Of pixels on one another the
brighter one is seen; the mask has the number of the last digit that is at least 64 there, and as bright.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seq2attn.data.idx import idx_rows

SIZE, BRIGHT, TRIES, MEET = 128, 64, 20, 0.1
SPLITS = {
    "train": ("train", 10_000, 1),
    "dev": ("train", 500, 2),
    "test": ("t10k", 500, 0),
}  # digits, scenes, seed

Pixels = NDArray[np.uint8]


def make(images: Pixels, digits: Pixels, count: int, seed: int) -> dict[str, NDArray[np.generic]]:
    """Return the scenes of a split, as arrays by name: images, masks, and boxes (number of the scene, left,
    top, right, bottom, digit)."""
    random = np.random.default_rng(seed)
    canvases, masks, rows = [], [], []
    for number in range(count):
        canvas, mask = np.zeros((SIZE, SIZE), np.uint8), np.zeros((SIZE, SIZE), np.uint8)
        boxes: list[list[int]] = []
        for digit in random.choice(len(images), int(random.integers(1, 9)), replace=False):
            box = put(images[digit], canvas, mask, boxes, random)
            if box is not None:
                boxes.append(box)
                rows.append([number, *box, int(digits[digit])])
        canvases.append(canvas)
        masks.append(mask)
    return {"images": np.stack(canvases), "masks": np.stack(masks), "boxes": np.asarray(rows, np.int32)}


def put(
    image: Pixels, canvas: Pixels, mask: Pixels, boxes: list[list[int]], random: np.random.Generator
) -> list[int] | None:
    """Put a digit into a scene, and return its box; None if there is no place."""
    for _ in range(TRIES):
        side = int(random.integers(16, 57))
        left, top = (int(place) for place in random.integers(0, SIZE - side + 1, 2))
        scaled = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
        rows, columns = np.where(scaled >= BRIGHT)
        if not len(rows):
            continue
        box = [left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1]
        if all(iou(box, other) <= MEET for other in boxes):
            window = slice(top, top + side), slice(left, left + side)
            mask[window][(scaled >= BRIGHT) & (scaled >= canvas[window])] = len(boxes) + 1
            np.maximum(canvas[window], scaled, out=canvas[window])
            return [int(side) for side in box]
    return None


def iou(box: list[int], other: list[int]) -> float:
    """Return the intersection over union of two boxes."""
    width, height = (min(box[end], other[end]) - max(box[end - 2], other[end - 2]) for end in (2, 3))
    both = max(width, 0) * max(height, 0)
    one, two = ((part[2] - part[0]) * (part[3] - part[1]) for part in (box, other))
    return both / (one + two - both)


def main(mnist: str, folder: str) -> None:
    """Write the three files."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for split, (name, which, count, seed) in SPLITS.items():
        files = (Path(mnist) / f"{name}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        images, digits = zip(*idx_rows(*files), strict=True)
        scenes = make(np.stack(images[which]), np.array(digits[which], np.uint8), count, seed)
        np.savez_compressed(Path(folder) / f"{split}.npz", **scenes)
        print(f"{split}: {count:,} scenes, {len(scenes['boxes']):,} boxes")


if __name__ == "__main__":
    main(*sys.argv[1:])
