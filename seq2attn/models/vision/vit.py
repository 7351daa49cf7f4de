"""Vision Transformers: the encoder of the text half, over patches of an image (Dosovitskiy et al. 2021)."""

from collections.abc import Sequence

import torch
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

    embedding: of patches; norm: pre or post, of the layers. class_token: a learned vector stands before the
    patches, as one more position that is on no grid, and its state is returned, too.
    """

    token: nn.Parameter | None

    def __init__(
        self, embedding: PatchEmbedding, layers: list[EncoderLayer], norm: str, class_token: bool = False
    ) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(embedding, layers, norm)
        self.embedding = embedding
        self.sizes, self.strides = [embedding.size], [embedding.patch]
        self.token = nn.Parameter(torch.empty(embedding.size)) if class_token else None
        if self.token is not None:
            nn.init.trunc_normal_(self.token, std=0.02)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> list[Features]:
        """See the base class."""
        vectors, patch_mask, grid = self.embedding(images, mask)
        if self.token is None:
            states = self.encoder.encode(vectors, _allowed(vectors, patch_mask), grid).states
            return [Features(on_grid(states, grid), patch_mask)]
        token = self.embedding.dropout(self.token.expand(len(vectors), 1, -1))
        x = torch.cat([token.to(vectors.dtype), vectors], 1)
        allowed = _allowed(x, patch_mask).unsqueeze(1)
        for layer in self.encoder.layers[:-1]:
            x = layer(x, allowed)
        return [self.finish(x, patch_mask, grid)]

    def finish(self, x: Tensor, mask: Tensor | None, grid: Grid) -> Features:
        """Return the features of a network with a class token, from what its last layer reads: (B, 1 + N, C),
        the token first."""
        allowed = _allowed(x, mask)
        states = self.encoder.norm(self.encoder.layers[-1](x, allowed.unsqueeze(1))) * allowed.unsqueeze(-1)
        return Features(on_grid(states[:, 1:], grid), mask, states[:, 0], x)


def _allowed(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return which of the vectors (B, N, C) or (B, 1 + N, C) may be attended to: a token always."""
    if mask is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    of_patches = mask.flatten(1)
    return F.pad(of_patches, (x.shape[1] - of_patches.shape[1], 0), value=True)
