"""Pictures of validations in a run's folder: samples/step-00001000.png."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seq2attn.runtime.files import write
from seq2attn.training.run_folder import RunFolder


def save_sample(folder: RunFolder, step: int, picture: bytes) -> None:
    """Write the picture of a validation (PNG). It stays when weights are pruned; nothing depends on it."""
    path = folder.target(_name(step))
    path.parent.mkdir(exist_ok=True)
    write(path, picture)


def sample(folder: RunFolder, step: int) -> NDArray[np.uint8] | None:
    """Return the pixels (H, W, C) of the picture of a validation; None if there is none."""
    path = folder.path / _name(step)
    if not path.exists():
        return None
    with Image.open(path) as image:
        return np.atleast_3d(np.asarray(image))


def _name(step: int) -> str:
    return f"samples/step-{step:08d}.png"
