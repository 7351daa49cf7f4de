"""Weights on every slot that may be seen."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from seq2attn.attention import Memory, Normalizer, Past


def seen(mask: Bool[Tensor, "*c M S"]) -> Bool[Tensor, "*c M S"]:
    """The mask, but all true where a query sees nothing: normalise over this, then multiply by the mask.

    That keeps value and gradient finite and zero where a softmax of -inf alone would give nan.
    """
    return mask | ~mask.any(-1, keepdim=True)


class Softmax(Normalizer):
    """exp(e) / sum exp(e) over the slots that may be seen."""

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        return scores.masked_fill(~seen(mask), float("-inf")).softmax(-1) * mask

    def shortcut(
        self, dot: Tensor, memory: Memory, bias: Tensor | None, dropout: float
    ) -> Float[Tensor, "*b T V"] | None:
        """torch's fused kernel, with the relative bias in the place of its mask."""
        mask = memory.mask if bias is None else bias.masked_fill(~memory.mask, float("-inf")).to(dot.dtype)
        return F.scaled_dot_product_attention(dot, memory.keys, memory.values, mask, dropout, scale=1.0)
