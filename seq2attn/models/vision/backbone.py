"""The base class of networks that turn images into features on a grid."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from seq2attn.attention.blocks.block import Place
from seq2attn.errors import NotDefinedError
from seq2attn.layers.convolution import Blocks

# (stage, number of the unit within it, place, channels) -> the blocks there; the unit is -1 between stages
BlocksAt = Callable[[int, int, Place, int], Blocks]


def no_blocks(stage: int, unit: int, place: Place, channels: int) -> Blocks:
    """Return no blocks, for a plain network."""
    return Blocks()


class Features(NamedTuple):
    """Features of images."""

    states: Tensor  # (B, C, H, W), zero outside the mask
    mask: Tensor | None  # (B, 1, H, W), bool, True = a position of the image; None: everywhere
    token: Tensor | None = None  # (B, C), the state of a class token, if the network has one
    read: Tensor | None = None  # (B, 1 + N, C), what the last layer then reads, the token first


class Backbone(nn.Module):
    """The base class of networks of images: features of each stage, from fine to coarse.

    sizes: the channels of each stage; strides: how many pixels there are between two of its positions.
    """

    sizes: list[int]
    strides: list[int]

    def forward(self, images: Tensor, mask: Tensor | None = None) -> list[Features]:
        """Return the features of each stage, for images (B, C, H, W), padded at the bottom and on the right.

        mask (B, 1, H, W): True = a pixel of the image.
        """
        raise NotDefinedError(f"{type(self).__name__} must define its stages: write forward()")
