"""Object detection made small: bright squares and bars on noise, with their boxes, and networks that find them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seq2attn.data.box_batches import BoxBatch, BoxedImage, collate_boxes
from seq2attn.data.image_batches import collate_images
from seq2attn.models.vision.detector import ObjectDetector
from seq2attn.models.vision.detector_factory import build_detector
from seq2attn.recipe.detection import DetectorRecipe
from seq2attn.recipe.image_data import NormalizeRecipe
from seq2attn.training.detection_objectives import DetectionObjective, PointObjective, QueryObjective

LABELS = ["bar", "square"]
BACKBONE = {"kind": "convolutional", "sizes": [6, 8, 12, 12], "norm": "group"}
POINTS: dict[str, Any] = {"kind": "points", "grids": 2, "width": 8, "bins": 6, "norm": "group"}
QUERIES: dict[str, Any] = {"kind": "queries", "queries": 5, "size": 16, "feed_forward": 24}
HEADS = {"points": POINTS, "queries": QUERIES}


def scene(seed: int, height: int = 40, width: int = 48, most: int = 3) -> BoxedImage:
    """Return a grey image with up to `most` bright squares (1) and bars (0)."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 40, (height, width, 1)).astype(np.uint8)
    boxes, labels = [], []
    for _ in range(int(random.integers(0, most + 1))):
        label = int(random.integers(2))
        size = int(random.integers(8, 15))
        w, h = (size, size) if label else (size + 4, max(3, size // 3))
        x, y = (int(random.integers(0, side - part)) for side, part in ((width, w), (height, h)))
        pixels[y : y + h, x : x + w] = random.integers(180, 256)
        boxes.append([x, y, x + w, y + h])
        labels.append(label)
    return BoxedImage(pixels, np.array(boxes, np.float64).reshape(-1, 4), np.array(labels, np.int64))


def batch(scenes: list[BoxedImage]) -> BoxBatch:
    images, mask = collate_images([one.image for one in scenes], NormalizeRecipe(mean=[0.2], std=[0.25]))
    return BoxBatch(images, mask, *collate_boxes(scenes))


def detector(head: str, seed: int = 1, **options: Any) -> ObjectDetector:
    torch.manual_seed(seed)
    recipe = DetectorRecipe.model_validate({"backbone": BACKBONE, "head": {**HEADS[head], **options}})
    return build_detector(recipe, 1, LABELS)


def objective(head: str) -> DetectionObjective:
    return PointObjective() if head == "points" else QueryObjective()


def moved_weights(model: ObjectDetector, seed: int = 3) -> ObjectDetector:
    """Return the model with weights that are no longer those of the start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in model.parameters():
            part.add_(0.1 * torch.randn(part.shape, generator=generator))
    return model


def gradients(model: ObjectDetector) -> dict[str, Tensor]:
    return {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}
