"""A network that finds objects in images, and its heads: boxes at the points of grids, or boxes of queries.

Boxes are (left, top, right, bottom) in pixels of the images of a batch. Letters: B batch, N points of all
grids or positions of one, r queries, K classes, R bins of a distance, D width of a state, H heads.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.blocks.looks import rows
from seq2attn.attention.memory import Grid
from seq2attn.attention.positions import Position
from seq2attn.attention.precision import full_precision
from seq2attn.layers.box_losses import expected_distances
from seq2attn.layers.boxes import corners
from seq2attn.layers.convolution import Convolution
from seq2attn.models.decoders.transformer import DecoderLayer, SelfAttentionMasks
from seq2attn.models.encoders import Encoded
from seq2attn.models.vision.backbone import Backbone, Features

USUAL_SIZE = 640  # pixels of the image for which the start of the class biases is meant
USUAL_OBJECTS = 5  # in such an image
START_OF_BOXES = 2.0  # the bias of the bins of a distance


class Candidates(NamedTuple):
    """Boxes that an image may have, with their probabilities."""

    boxes: Tensor  # (B, N, 4), float32
    scores: Tensor  # (B, N, K), float32, 0 for points outside the image


class PointOutput(NamedTuple):
    """What a `PointHead` returns."""

    logits: Tensor  # (B, N, K)
    sides: Tensor  # (B, N, 4, R), logits of the bins of the distances to left, top, right and bottom
    points: Tensor  # (N, 2), float32, x and y in pixels
    strides: Tensor  # (N,), float32
    real: Tensor | None  # (B, N), bool, True = the point is on the image; None: all are

    def boxes(self) -> Float[Tensor, "B N 4"]:
        """Return the box that each point predicts."""
        with full_precision(self.sides.device):
            distances = expected_distances(self.sides.float()) * self.strides[:, None]  # (B, N, 4)
            return torch.cat([self.points - distances[..., :2], self.points + distances[..., 2:]], -1)

    def candidates(self) -> Candidates:
        """Return the boxes of all points; neighbours predict the same object."""
        scores = self.logits.float().sigmoid()
        return Candidates(self.boxes(), scores if self.real is None else scores * self.real.unsqueeze(-1))


class QueryOutput(NamedTuple):
    """What a `QueryHead` returns."""

    logits: Tensor  # (B, r, K + 1), the last of `nothing`
    centre_sizes: Tensor  # (B, r, 4), float32: x and y of the centre, width, height, as shares of the image's
    sizes: Tensor  # (B, 2), float32, width and height of each image, in pixels
    weights: Tensor  # (B, H, r, N), of the cross-attention of the last layer
    grid: Grid  # of the N positions

    def boxes(self) -> Float[Tensor, "B r 4"]:
        """Return the box that each query predicts."""
        return corners(self.centre_sizes) * self.sizes.repeat(1, 2).unsqueeze(1)

    def candidates(self) -> Candidates:
        """Return the boxes of all queries, of which each stands for at most one object."""
        return Candidates(self.boxes(), self.logits.float().softmax(-1)[..., :-1])


class Head(Protocol):
    """What turns features into boxes."""

    suppresses: bool  # whether several of its boxes may stand for one object, and all but the best go

    def __call__(
        self, features: Sequence[Features], sizes: Float[Tensor, "B 2"]
    ) -> PointOutput | QueryOutput:
        """Return the boxes of images with these widths and heights."""


class ObjectDetector(nn.Module):
    """Finds the objects in images: a backbone, and a head on some of its grids.

    labels: the names of the classes; grids: indices of the backbone's stages.
    """

    def __init__(
        self, backbone: Backbone, head: "PointHead | QueryHead", labels: Sequence[str], grids: Sequence[int]
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.labels, self.grids = backbone, head, list(labels), list(grids)

    def forward(
        self, images: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B 1 H W"] | None = None
    ) -> PointOutput | QueryOutput:
        """Return what the head predicts for images, padded at the bottom and on the right."""
        stages = self.backbone(images, mask)
        head = cast(Head, self.head)
        return head([stages[grid] for grid in self.grids], _sizes(images, mask))


class PointHead(nn.Module):
    """Predicts a box and classes at each point of several grids, without anchors (Tian et al. 2019; Li et al.
    2020).

    On each grid two towers, of two 3x3 convolutions with SiLU, lead to the distances of the four sides, each
    as a distribution over `bins` multiples of the stride, and to the classes. The point of row i and column j
    is ((j + 1/2) stride, (i + 1/2) stride).

    sizes, strides: of the grids; width: channels of the towers. At the start a class has the probability
    that about five objects in an image of 640 x 640 pixels give it.
    """

    suppresses = True

    def __init__(
        self,
        sizes: Sequence[int],
        strides: Sequence[int],
        classes: int,
        width: int = 64,
        bins: int = 16,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.strides, self.bins = list(strides), bins
        self.sides = nn.ModuleList(Tower(size, width, 4 * bins, norm) for size in sizes)
        self.classes = nn.ModuleList(Tower(size, width, classes, norm) for size in sizes)
        for stride, of_sides, of_classes in zip(strides, self.sides, self.classes, strict=True):
            chance = USUAL_OBJECTS / classes / (USUAL_SIZE / stride) ** 2
            cast(Tower, of_sides).start(START_OF_BOXES)
            cast(Tower, of_classes).start(math.log(chance))

    def forward(self, features: Sequence[Features], sizes: Float[Tensor, "B 2"]) -> PointOutput:
        """See the class."""
        logits, sides, points, strides, real = [], [], [], [], []
        grids = zip(features, self.strides, self.sides, self.classes, strict=True)
        for (states, mask, *_), stride, of_sides, of_classes in grids:
            logits.append(rows(of_classes(states, mask)))
            sides.append(rows(of_sides(states, mask)))
            points.append(grid_points((states.shape[2], states.shape[3]), stride, states.device))
            strides.append(torch.full_like(points[-1][:, 0], stride))
            real.append(None if mask is None else mask.flatten(1))
        masks = [mask for mask in real if mask is not None]
        return PointOutput(
            torch.cat(logits, 1),
            torch.cat(sides, 1).unflatten(-1, (4, self.bins)),
            torch.cat(points),
            torch.cat(strides),
            torch.cat(masks, 1) if masks else None,
        )


class Tower(nn.Module):
    """Two 3x3 convolutions with a norm and SiLU, and a 1x1 convolution to `out` channels."""

    def __init__(self, channels: int, width: int, out: int, norm: str) -> None:
        super().__init__()
        self.first = Convolution(channels, width, norm=norm, activation=False)
        self.second = Convolution(width, width, norm=norm, activation=False)
        self.out = nn.Conv2d(width, out, 1)

    def start(self, bias: float) -> None:
        """Set the bias of all outputs."""
        if self.out.bias is not None:
            nn.init.constant_(self.out.bias, bias)

    def forward(self, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B 1 H W"] | None) -> Tensor:
        """Return the outputs (B, out, H, W)."""
        for convolution in (self.first, self.second):
            x = F.silu(convolution(x, mask)[0])  # silu(0) = 0: padding stays
        return self.out(x)  # type: ignore[no-any-return]


class QueryHead(nn.Module):
    """Learned queries attend to one grid; each predicts a box with its class, or nothing (Carion et al.
    2020).

    The centre of a box is the mean position under the weights of the query's last cross-attention, plus a
    predicted shift: so a query is trained to attend to its object from the first update on, and its heat map
    shows what its box stands on.

    channels, stride: of the grid; layers: attention of the queries to each other and to the grid; norm: of
    the layers, pre or post; positions: are added to the projected features.
    """

    suppresses = False

    def __init__(
        self,
        channels: int,
        stride: int,
        classes: int,
        queries: int,
        layers: Sequence[DecoderLayer],
        norm: str,
        positions: Position,
    ) -> None:
        super().__init__()
        size = layers[0].self_attention.out.out_features
        self.stride, self.positions = stride, positions
        self.project, self.enter = nn.Linear(channels, size), nn.LayerNorm(size)
        self.queries = nn.Parameter(torch.randn(queries, size))
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(size) if norm == "pre" else nn.Identity()
        self.classes = nn.Linear(size, classes + 1)
        self.box = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, 4))

    def start(self) -> None:
        """Let boxes start without a shift, with a quarter of the sides of the image; call it last."""
        last = cast(nn.Linear, self.box[-1])
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([0.0, 0.0, -1.1, -1.1], device=last.bias.device))

    def forward(self, features: Sequence[Features], sizes: Float[Tensor, "B 2"]) -> QueryOutput:
        """See the class."""
        (states, mask, *_) = features[0]
        grid = states.shape[2], states.shape[3]
        keys = self.enter(self.positions(self.project(rows(states)), 0, grid))  # (B, N, D)
        real = keys.new_ones(keys.shape[:2]) > 0 if mask is None else mask.flatten(1)
        encoded = Encoded(keys, real.unsqueeze(1), keys[:, 0], grid=grid)
        x = self.queries.expand(len(keys), -1, -1).to(keys.dtype)
        everyone = torch.ones(len(x), x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        masks, weights = SelfAttentionMasks(0, everyone, None), keys[:, :0]
        for number, layer in enumerate(self.layers, 1):
            one = cast(DecoderLayer, layer)
            x, attended, _ = one(x, masks, one.start(encoded), number == len(self.layers))
            weights = weights if attended.weights is None else attended.weights
        x = self.norm(x)
        with full_precision(x.device):
            centres = _mean_position(weights, grid_points(grid, self.stride, x.device)) / sizes.unsqueeze(1)
            shift, extent = self.box(x.float()).split(2, -1)
            centre_sizes = torch.cat([centres + shift, extent.sigmoid()], -1)
        return QueryOutput(self.classes(x), centre_sizes, sizes, weights, grid)


def grid_points(grid: Grid, stride: int, device: torch.device) -> Float[Tensor, "N 2"]:
    """Return x and y of the middle of each position of a grid, in pixels, row by row."""
    y, x = ((torch.arange(length, device=device) + 0.5) * stride for length in grid)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)


def _mean_position(weights: Tensor, points: Tensor) -> Float[Tensor, "B r 2"]:
    """Return the mean of points under weights (B, H, r, N), whose sum may be any."""
    share = weights.float().clamp(min=0).mean(1)
    return share @ points / share.sum(-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)


def _sizes(images: Tensor, mask: Tensor | None) -> Float[Tensor, "B 2"]:
    """Return the width and height of each image in pixels, without its padding."""
    if mask is None:
        height, width = images.shape[2:]
        whole = torch.tensor([width, height], dtype=torch.float32, device=images.device)
        return whole.expand(len(images), 2)
    return torch.stack([mask.any(2).sum((1, 2)), mask.any(3).sum((1, 2))], -1).float()
