"""Vision Transformers: the encoder of the text half, over patches of an image (Dosovitskiy et al. 2021)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from seq2attn.attention.blocks.looks import on_grid, rows
from seq2attn.attention.memory import Grid
from seq2attn.attention.positions import Position
from seq2attn.layers.basic import Dropout
from seq2attn.layers.convolution import Convolution, strided
from seq2attn.models.encoders import EncoderLayer, TransformerEncoder
from seq2attn.models.vision.backbone import Backbone, Features


class PatchEmbedding(nn.Module):
    """Images -> a vector for each patch of `patch` x `patch` pixels, with positions.

    widths: channels of 3x3 convolutions of stride 2 before, a convolutional stem (Xiao et al. 2021); what is
    then left of the patch is one convolution. Images are padded with zeros to whole patches.
    """

    max_length: int | None = None

    def __init__(
        self,
        channels: int,
        size: int,
        patch: int,
        dropout: Dropout,
        widths: Sequence[int] = (),
        positions: Position | None = None,
    ) -> None:
        super().__init__()
        self.size, self.patch, self.dropout, self.positions = size, patch, dropout, positions
        sizes = [channels, *widths]
        self.stem = nn.ModuleList(
            Convolution(before, width, stride=2) for before, width in zip(sizes, widths, strict=False)
        )
        rest = patch // 2 ** len(widths)
        self.project = nn.Conv2d(sizes[-1], size, rest, rest)

    def forward(self, images: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Grid]:
        """Return vectors (B, N, size), their mask (B, 1, H, W), and the grid H x W of the N patches."""
        right, below = (-length % self.patch for length in (images.shape[3], images.shape[2]))
        x = F.pad(images, (0, right, 0, below))
        whole = mask
        if mask is not None:
            whole = F.pad(mask, (0, right, 0, below))
        elif right or below:
            whole = F.pad(images.new_ones(len(images), 1, *images.shape[2:]) > 0, (0, right, 0, below))
        for convolution in self.stem:
            x, whole = convolution(x, whole)
        patches = self.project(x)
        grid = patches.shape[2], patches.shape[3]
        vectors = rows(patches)
        if self.positions is not None:
            vectors = self.positions(vectors, 0, grid)
        return self.dropout(vectors), None if mask is None else strided(mask, self.patch), grid


class ViT(Backbone):
    """Layers of self-attention over the patches of an image: a single stage.

    embedding: of patches; norm: pre or post, of the layers.
    """

    def __init__(self, embedding: PatchEmbedding, layers: list[EncoderLayer], norm: str) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(embedding, layers, norm)
        self.embedding = embedding
        self.sizes, self.strides = [embedding.size], [embedding.patch]

    def forward(self, images: Tensor, mask: Tensor | None = None) -> list[Features]:
        """See the base class."""
        vectors, patch_mask, grid = self.embedding(images, mask)
        real = vectors.new_ones(vectors.shape[:2]) > 0 if patch_mask is None else patch_mask.flatten(1)
        states = self.encoder.encode(vectors, real, grid).states
        return [Features(on_grid(states, grid), patch_mask)]
