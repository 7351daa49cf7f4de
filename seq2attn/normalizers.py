"""Normalizers: scores (..., T, S) and mask (..., 1 or T, S) -> weights (..., T, S).

To add one: write the class, add its line to NORMALIZERS. Keyword-only parameters are its options in a recipe.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from seq2attn.attention import Normalizer, Past


class Softmax(Normalizer):
    """exp(e) / sum exp(e) over the slots that may be seen."""

    is_softmax = True

    def forward(
        self, scores: Float[Tensor, "*b T S"], mask: Bool[Tensor, "*c M S"], past: Past
    ) -> Float[Tensor, "*b T S"]:
        """See the class. A row with nothing to see is normalised over everything and then set to zero:
        that keeps value and gradient finite where a softmax of -inf alone would give nan."""
        safe = mask | ~mask.any(-1, keepdim=True)
        return scores.masked_fill(~safe, float("-inf")).softmax(-1) * mask


NORMALIZERS: dict[str, type[Normalizer]] = {"softmax": Softmax}
