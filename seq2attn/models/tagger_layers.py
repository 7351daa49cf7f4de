"""The layers between the encoder and the labels: attention among words and to labels, and pooling.

Letters: B batch, S words, D width of their states, E of a result, H heads, K labels, P of a sentence's
vector.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.attention import Attention
from seq2attn.attention.compatibility import incompatibilities
from seq2attn.attention.heads import MultiHead, Window
from seq2attn.attention.masks import check_mask
from seq2attn.attention.pooling import Pooling, penalty
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Gate


class SelfAttention(nn.Module):
    """Joins the state h of each word with its context c from the sentence: [h; c], or z * h + (1 - z) * c
    (`Gate`).

    attention: its queries, keys and contexts have the size `width`, that of states. exclude_self: a word does
    not attend to itself. window: a word attends only to words in its window. A word that may attend to
    nothing has the context 0. `size` is the width of the result.
    """

    def __init__(
        self,
        attention: Attention | MultiHead,
        width: int,
        join: Literal["concat", "gate"] = "concat",
        *,
        exclude_self: bool = False,
        window: Window | None = None,
    ) -> None:
        super().__init__()
        _check_role(attention, "self-attention")
        self.attention, self.exclude_self, self.window = attention, exclude_self, window
        self.gate = Gate(width) if join == "gate" else None
        self.size = width if join == "gate" else 2 * width

    def forward(
        self, states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"], need_weights: bool = True
    ) -> tuple[Float[Tensor, "B S E"], Float[Tensor, "B H S S"] | None]:
        """Return the joined vectors, and the weights if they are needed (zero at padding)."""
        check_mask(mask, states.shape[:2], "(B, S), True = a word")
        visible, real = mask.unsqueeze(1), mask.unsqueeze(-1)  # (B, 1, S), (B, S, 1)
        if self.window is not None:
            visible = visible & self.window.mask(mask.shape[1], mask.device)  # (B, S, S)
        if self.exclude_self:
            visible = visible & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        attended = self.attention(states, self.attention.remember(states, visible), need_weights=need_weights)
        context = attended.context * (real & visible.any(-1, keepdim=True))  # (B, S, D)
        joined = torch.cat([states, context], -1) if self.gate is None else self.gate(states, context)
        return joined, _by_head(attended.weights) * real.unsqueeze(1) if need_weights else None


class LabelAttention(nn.Module):
    """Attention of each word to learned embeddings of the labels (Cui & Zhang 2019, one layer).

    attention: queries are states, keys and values are the label embeddings, of size `width`. `size` is the
    width of the context: `width` for a single head, that of a query for MultiHead.
    """

    def __init__(self, attention: Attention | MultiHead, labels: int, width: int, size: int) -> None:
        super().__init__()
        _check_role(attention, "pooling")
        self.attention, self.size = attention, size
        self.labels = nn.Parameter(torch.randn(labels, width) * width**-0.5)

    def forward(
        self, states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"], need_weights: bool = True
    ) -> tuple[Float[Tensor, "B S E"], Float[Tensor, "B H S K"] | None]:
        """Return contexts, and the weights of the labels if they are needed; both zero at padding."""
        check_mask(mask, states.shape[:2], "(B, S), True = a word")
        labels, real = self.labels.expand(len(states), -1, -1), mask.unsqueeze(-1)  # (B, K, W), (B, S, 1)
        memory = self.attention.remember(labels, mask.new_ones(len(mask), 1, labels.shape[1]))
        attended = self.attention(states, memory, need_weights=need_weights)
        weights = _by_head(attended.weights) * real.unsqueeze(1) if need_weights else None
        return attended.context * real, weights


class Pooled(NamedTuple):
    """A vector for each sentence, and the weights that it was pooled with."""

    vector: Tensor  # (B, P)
    weights: Tensor | None  # (B, H, S), of each query and head
    penalty: Tensor | None = None  # (B,), see attention.pooling.penalty


class AttentivePooling(nn.Module):
    """Concatenates the contexts of learned queries (`Pooling`); `size` is their total width."""

    def __init__(self, pooling: Pooling, width: int) -> None:
        super().__init__()
        self.pooling, self.size = pooling, width * len(pooling.queries)

    def forward(
        self, states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"], need_weights: bool = True
    ) -> Pooled:
        """Return vectors; weights and penalty only if weights are needed."""
        attended = self.pooling(states, mask, need_weights)
        vector = attended.context.flatten(1)  # (B, r D) of r queries
        if not need_weights:
            return Pooled(vector, None)
        weights = _by_head(attended.weights)  # (B, H, r, S)
        return Pooled(vector, weights.flatten(1, 2), penalty(weights).sum(1))


class PlainPooling(nn.Module):
    """The mean or the maximum of each feature; the weight of a word is its mean share in the features."""

    def __init__(self, kind: Literal["mean", "max"], width: int) -> None:
        super().__init__()
        self.kind, self.size = kind, width

    def forward(
        self, states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"], need_weights: bool = True
    ) -> Pooled:
        """See the class. The vector of an empty sentence is zero."""
        check_mask(mask, states.shape[:2], "(B, S), True = a word")
        real, states = mask.unsqueeze(-1), wide(states)  # (B, S, 1), (B, S, D)
        if self.kind == "mean":
            shares = (real / real.sum(1, keepdim=True).clamp(min=1)).to(states.dtype).expand_as(states)
            vector = (states * shares).sum(1)  # (B, D)
        else:
            vector, position = states.masked_fill(~real, float("-inf")).max(1)  # (B, D) each
            vector = vector.masked_fill(~mask.any(1, keepdim=True), 0)
            shares = torch.zeros_like(states).scatter(1, position.unsqueeze(1), 1.0) * real  # (B, S, D)
        return Pooled(vector, shares.detach().mean(-1).unsqueeze(1) if need_weights else None)


def wide(x: Tensor) -> Tensor:
    """Return x in float32, if it is narrower."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_role(attention: Attention | MultiHead, role: str) -> None:
    """Raise Seq2attnError if an attention cannot be used in a role."""
    inner = attention.attention
    for _, why in incompatibilities(inner.score, inner.normalize, role):
        raise Seq2attnError(why)


def _by_head(weights: Tensor | None) -> Tensor:
    """Return weights (B, H, T, S), with H = 1 for attention without heads."""
    if weights is None:
        raise Seq2attnError("an attention returned no weights although they were needed: fix its normalizer")
    return weights if weights.ndim == 4 else weights.unsqueeze(1)
