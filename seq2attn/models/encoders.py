"""Encoders: from source tokens to a state for each token, and a summary that the decoder starts from.

Padding never leaks: recurrent encoders read it last in either direction, self-attention masks it, and the
states at padding are zero.

Letters: B batch, S source tokens, E width of an embedding, D of a state.
"""

from typing import Any, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.heads import MultiHead, Window
from seq2attn.attention.masks import check_mask
from seq2attn.attention.memory import Grid
from seq2attn.attention.renamed import RenamedHooks
from seq2attn.errors import NotDefinedError
from seq2attn.layers.basic import Dropout, Embeds, FeedForward, Residual
from seq2attn.layers.recurrent import Recurrent
from seq2attn.recipe.kinds import ENCODERS

__all__ = [
    "ENCODERS",
    "Encoded",
    "Encoder",
    "EncoderLayer",
    "RecurrentEncoder",
    "TransformerEncoder",
]


class Encoded(NamedTuple):
    """The output of an encoder, and the ids of the source that decoders need."""

    states: Tensor  # (B, S, D), zero at padding
    mask: Tensor  # (B, 1, S), bool, True = a token
    summary: Tensor  # (B, D), one vector for the whole sentence
    copy_ids: Tensor | None = None  # (B, S), see data.sources.Source
    sentence_ids: Tensor | None = None  # (B, S), see data.sources.Source
    grid: Grid | None = None  # that the S positions lie on, as those of an image; None: a sequence


class Encoder(RenamedHooks, nn.Module):
    """The base class of encoders. Subclass it, and add a line to ENCODERS.

    The constructor takes the embedding; its keyword-only parameters are the options that a recipe may set. It
    sets `embedding`, and `size`, which is D, the width of states and summary. A subclass defines `encode`.
    Tokens are the input of the embedding: ids, or words with their characters.
    """

    size: int
    embedding: Embeds

    @property
    def max_length(self) -> int | None:
        """The largest number of tokens that it can read; None: any."""
        return self.embedding.max_length

    def forward(self, tokens: Any, mask: Bool[Tensor, "B S"]) -> Encoded:
        """Encode a batch, padded on the right; True in the mask = a token."""
        return self.encode(self.embedding(tokens), mask)

    def encode(self, vectors: Float[Tensor, "B S E"], mask: Bool[Tensor, "B S"]) -> Encoded:
        """Encode the embeddings of the tokens; states at padding are zero, and no state depends on it."""
        raise NotDefinedError(f"{type(self).__name__} must implement encode()")


class RecurrentEncoder(Encoder):
    """An LSTM or GRU, also bidirectional or with more than one layer. The summary is the last state of each
    direction."""

    def __init__(
        self, embedding: Embeds, cell: str, size: int, layers: int, bidirectional: bool, dropout: Dropout
    ) -> None:
        super().__init__()
        self.embedding, self.dropout = embedding, dropout
        between = dropout.rate if layers > 1 else 0.0
        self.rnn = Recurrent(cell, embedding.size, size, layers, bidirectional, between)
        self.size = self.rnn.size

    def encode(self, vectors: Float[Tensor, "B S E"], mask: Bool[Tensor, "B S"]) -> Encoded:
        """See the base class. A source without any token gets states and a summary of zeros."""
        outputs = self.rnn(vectors, check_mask(mask, vectors.shape[:2], "(B, S), True = a token"))
        states = self.dropout(outputs.states) * mask.unsqueeze(-1)  # (B, S, D)
        return Encoded(states, mask.unsqueeze(1), outputs.last * mask.any(-1, keepdim=True))


class EncoderLayer(nn.Module):
    """Self-attention, in a sliding window if `window` is set, then feed-forward, each with its residual.

    drop_path: the rate of both (`DropPath`).
    """

    def __init__(
        self,
        self_attention: MultiHead,
        feed_forward: FeedForward,
        norm: str,
        dropout: float,
        window: Window | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        size = self_attention.out.out_features
        self.self_attention, self.feed_forward, self.window = self_attention, feed_forward, window
        self.self_attention_residual = Residual(size, norm, dropout, drop_path)
        self.feed_forward_residual = Residual(size, norm, dropout, drop_path)

    def forward(
        self, x: Float[Tensor, "B S D"], mask: Bool[Tensor, "B 1 S"], grid: Grid | None = None
    ) -> Float[Tensor, "B S D"]:
        """See the class."""
        if self.window is not None:
            mask = mask & self.window.mask(x.shape[1], x.device)  # (B, S, S)
        y = self.self_attention_residual.enter(x)
        attended = self.self_attention(
            y, self.self_attention.remember(y, mask, grid=grid), need_weights=False
        )
        x = self.self_attention_residual.leave(x, attended.context)
        y = self.feed_forward_residual.enter(x)
        return self.feed_forward_residual.leave(x, self.feed_forward(y))


class TransformerEncoder(Encoder):
    """Layers of self-attention (Vaswani et al. 2017); the summary is the mean state."""

    def __init__(self, embedding: Embeds, layers: list[EncoderLayer], norm: str) -> None:
        super().__init__()
        self.size = embedding.size
        self.embedding, self.layers = embedding, nn.ModuleList(layers)
        self.norm = nn.LayerNorm(self.size) if norm == "pre" else nn.Identity()

    def encode(
        self, vectors: Float[Tensor, "B S E"], mask: Bool[Tensor, "B S"], grid: Grid | None = None
    ) -> Encoded:
        """See the base class. grid: the rows and columns that the vectors lie on; None: a sequence."""
        x, mask = vectors, check_mask(mask, vectors.shape[:2], "(B, S), True = a token")
        for layer in self.layers:
            x = layer(x, mask.unsqueeze(1), grid)
        states = self.norm(x) * mask.unsqueeze(-1)
        summary = states.sum(1) / mask.sum(-1, keepdim=True).clamp(min=1)
        return Encoded(states, mask.unsqueeze(1), summary)
