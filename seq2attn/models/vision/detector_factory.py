"""Functions that build the network of a detection recipe."""

from collections.abc import Sequence

import torch

from seq2attn.attention.positions import POSITIONS
from seq2attn.layers.basic import FeedForward
from seq2attn.models.decoders.transformer import DecoderLayer
from seq2attn.models.seq2seq_factory import initialise, multi_head
from seq2attn.models.vision.backbone import Backbone
from seq2attn.models.vision.detector import ObjectDetector, PointHead, QueryHead
from seq2attn.models.vision.factory import build_backbone
from seq2attn.recipe.detection import DetectorRecipe, PointHeadRecipe, QueryHeadRecipe
from seq2attn.runtime.devices import TOO_LARGE, explain_out_of_memory


def build_detector(recipe: DetectorRecipe, channels: int, labels: Sequence[str]) -> ObjectDetector:
    """Return the network that a recipe describes, for images with this number of channels, freshly
    initialised. Seed torch before: initial weights are random."""
    with explain_out_of_memory(TOO_LARGE), torch.device("cpu"):  # whatever torch's default device is
        backbone = build_backbone(recipe.backbone, channels)
        grids = recipe.head.stages(len(backbone.strides))
        if isinstance(recipe.head, PointHeadRecipe):
            return ObjectDetector(backbone, _points(recipe.head, backbone, grids, len(labels)), labels, grids)
        head = _queries(recipe.head, backbone, grids[0], len(labels))
        return ObjectDetector(backbone, head, labels, grids)


def _points(recipe: PointHeadRecipe, backbone: Backbone, grids: Sequence[int], classes: int) -> PointHead:
    sizes, strides = [backbone.sizes[grid] for grid in grids], [backbone.strides[grid] for grid in grids]
    return PointHead(sizes, strides, classes, recipe.width, recipe.bins, recipe.norm)


def _queries(recipe: QueryHeadRecipe, backbone: Backbone, grid: int, classes: int) -> QueryHead:
    size = recipe.size
    layers = [
        DecoderLayer(
            multi_head(recipe.self_attention, size, size),
            multi_head(recipe.cross_attention, size, size),
            FeedForward(size, recipe.feed_forward, recipe.activation, recipe.dropout),
            recipe.norm,
            recipe.dropout,
        )
        for _ in range(recipe.layers)
    ]
    positions = recipe.positions.make(POSITIONS, size)
    channels, stride = backbone.sizes[grid], backbone.strides[grid]
    head = QueryHead(channels, stride, classes, recipe.queries, layers, recipe.norm, positions)
    initialise(head)
    head.start()
    return head
