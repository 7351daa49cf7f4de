"""A network that labels images."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from seq2attn.attention.blocks.looks import rows
from seq2attn.attention.memory import Grid
from seq2attn.errors import Seq2attnError
from seq2attn.models.tagger_layers import AttentivePooling, PlainPooling
from seq2attn.models.vision.backbone import Backbone, Features


class ImageScores(NamedTuple):
    """Scores of labels, and how the features were pooled."""

    scores: Tensor  # (B, K), logits
    weights: Tensor | None = None  # (B, H, N), of the positions for each query and head of the pooling
    grid: Grid | None = None  # of the N positions
    penalty: Tensor | None = None  # (B,), see attention.pooling.penalty
    vectors: Tensor | None = None  # (B, C), of which the scores are a linear function


class ImageClassifier(nn.Module):
    """Predicts a label for each image, from one vector that is pooled from the last stage of a backbone.

    pooling: None: the vector is the state of the backbone's class token.
    """

    def __init__(
        self,
        backbone: Backbone,
        labels: Sequence[str],
        pooling: AttentivePooling | PlainPooling | None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone, self.labels, self.pooling = backbone, list(labels), pooling
        size = backbone.sizes[-1] if pooling is None else pooling.size
        self.dropout, self.output = nn.Dropout(dropout), nn.Linear(size, len(labels))

    def forward(self, images: Tensor, mask: Tensor | None = None, need_weights: bool = False) -> ImageScores:
        """Return the scores of labels for images (B, C, H, W), and the weights of the pooling if needed."""
        return self.head(self.backbone(images, mask)[-1], need_weights)

    def head(self, features: Features, need_weights: bool = False) -> ImageScores:
        """Return the scores of labels for the features of the last stage."""
        grid = features.states.shape[2], features.states.shape[3]
        if self.pooling is None:
            if features.token is None:
                raise Seq2attnError(
                    "without a pooling, the network must have a class token: build one with it"
                )
            token = features.token
            return ImageScores(self.output(self.dropout(token)), None, grid, None, token)
        states = rows(features.states)  # (B, N, C)
        real = states.new_ones(states.shape[:2]) > 0 if features.mask is None else features.mask.flatten(1)
        pooled = self.pooling(states, real, need_weights)
        scores, vectors = self.output(self.dropout(pooled.vector)), pooled.vector
        return ImageScores(scores, pooled.weights, grid, pooled.penalty, vectors)
