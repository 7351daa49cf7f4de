"""Images with boxes, made small: coloured rectangles on grey, whose boxes are known to the pixel."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 60), "red": (210, 30, 50)}
GREY = 90


def scene(random: np.random.Generator, height: int = 40, width: int = 48) -> tuple[Any, list[Any], list[str]]:
    """Return pixels, boxes (left, top, right, bottom) and labels of one to four rectangles, none over others."""
    pixels = np.full((height, width, 3), GREY, np.uint8)
    boxes: list[list[int]] = []
    labels = []
    for _ in range(int(random.integers(1, 5))):
        rows, columns = random.integers(6, 16, size=2).tolist()
        left, top = int(random.integers(0, width - columns)), int(random.integers(0, height - rows))
        if (pixels[top : top + rows, left : left + columns] != GREY).any():
            continue
        label = str(random.choice([*COLOURS]))
        pixels[top : top + rows, left : left + columns] = COLOURS[label]
        boxes.append([left, top, left + columns, top + rows])
        labels.append(label)
    return pixels, boxes, labels


def write_scenes(folder: Path, counts: dict[str, int], **sizes: int) -> None:
    """Write a table NAME.jsonl for each of these counts, with images, boxes and labels."""
    random = np.random.default_rng(7)
    for table, count in counts.items():
        rows = []
        for number in range(count):
            pixels, boxes, labels = scene(random, **sizes)
            Image.fromarray(pixels).save(folder / f"{table}{number}.png")
            rows.append({"image": f"{table}{number}.png", "boxes": boxes, "labels": labels})
        (folder / f"{table}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def seen_box(pixels: Any, colour: tuple[int, int, int]) -> list[int] | None:
    """Return the box around the pixels that have nearly a colour; None if there is none."""
    near = (np.abs(pixels.astype(int) - colour) < 60).all(axis=2)
    if not near.any():
        return None
    rows, columns = np.nonzero(near)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
