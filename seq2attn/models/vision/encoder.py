"""The encoder of images for decoders of text: a state for each position of a grid."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.blocks.looks import rows
from seq2attn.attention.positions import Position
from seq2attn.layers.basic import Dropout
from seq2attn.models.encoders import Encoded
from seq2attn.models.vision.backbone import Backbone


class ImageEncoder(nn.Module):
    """The last stage of a backbone, projected to `size` features for each position of its grid, with position
    encodings, a layer norm and dropout. The summary is the mean state.

    positions: are added to the projected features; None: none are.
    """

    max_length: int | None = None  # positions of any grid can be read

    def __init__(self, backbone: Backbone, size: int, positions: Position | None, dropout: Dropout) -> None:
        super().__init__()
        self.backbone, self.size, self.positions, self.dropout = backbone, size, positions, dropout
        self.project = nn.Linear(backbone.sizes[-1], size)
        self.norm = nn.LayerNorm(size)

    @property
    def stride(self) -> int:
        """How many pixels there are between two positions."""
        return self.backbone.strides[-1]

    def forward(
        self, images: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B 1 H W"] | None = None
    ) -> Encoded:
        """Encode images, padded at the bottom and on the right; True in the mask = a pixel of the image."""
        features = self.backbone(images, mask)[-1]
        grid = features.states.shape[2], features.states.shape[3]
        states = self.project(rows(features.states))  # (B, N, size)
        if self.positions is not None:
            states = self.positions(states, 0, grid)
        states = self.dropout(self.norm(states))
        real = states.new_ones(states.shape[:2]) > 0 if features.mask is None else features.mask.flatten(1)
        states = states * real.unsqueeze(-1)
        summary = states.sum(1) / real.sum(-1, keepdim=True).clamp(min=1)
        return Encoded(states, real.unsqueeze(1), summary, grid=grid)
