"""Make scenes of several digits with exact boxes from MNIST: python scripts/make_mnist_scenes.py MNIST FOLDER

MNIST has the four files as published (train-images-idx3-ubyte.gz, ...). FOLDER gets train.npz with 10,000
scenes of the first 55,000 training digits, dev.npz with 500 of the others, and test.npz with 500 of the test
digits, as recipes read them by {npz: train.npz}. The scenes are those of `seq2attn.data.scenes`.
"""

import sys
from pathlib import Path

import numpy as np

from seq2attn.data.idx import idx_rows
from seq2attn.data.scenes import make_scenes

SPLITS = {  # file, digits of it, number of scenes, seed
    "train": ("train", slice(0, 55_000), 10_000, 1),
    "dev": ("train", slice(55_000, None), 500, 2),
    "test": ("t10k", slice(None), 500, 3),
}


def main(mnist: str, folder: str) -> None:
    """Write the three files."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for split, (name, which, count, seed) in SPLITS.items():
        files = (Path(mnist) / f"{name}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        digits, labels = zip(*idx_rows(*files), strict=True)
        scenes = list(make_scenes(digits[which], labels[which], count, seed))
        boxes = [
            [number, *box, label]
            for number, scene in enumerate(scenes)
            for box, label in zip(scene.boxes, scene.labels, strict=True)
        ]
        images = np.stack([scene.pixels[..., 0] for scene in scenes])
        np.savez_compressed(Path(folder) / f"{split}.npz", images=images, boxes=np.array(boxes, np.int32))
        print(f"{split}: {count:,} scenes, {len(boxes):,} boxes")


if __name__ == "__main__":
    main(*sys.argv[1:])
