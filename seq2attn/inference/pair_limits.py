"""How long the texts of a pair may be whose words are linked: time and memory grow with their product."""

import warnings
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.recipe import DecodingRecipe


class PairLimits(NamedTuple):
    """The most pieces of both texts."""

    source: float
    target: float

    @classmethod
    def of(cls, model: Seq2Seq, decoding: DecodingRecipe) -> "PairLimits":
        """Return the limits of a model: those of what it translates, and of what its decoder can read."""
        readable = model.decoder.max_length or inf  # the decoder reads <s>, too
        return cls(decoding.max_source, min(decoding.max_length, readable - 1))

    def fit(self, source: int, target: int) -> bool:
        """Whether texts with so many pieces are within the limits."""
        return source <= self.source and target <= self.target

    def __str__(self) -> str:
        return (
            f"{self.source:,} pieces in the source and {self.target:,} in the target (decoding.max_source "
            "and max_length, or the decoder's positions)"
        )

    def warn(self, pairs: Sequence[int]) -> None:
        """Warn that the pairs of these lines are longer."""
        if pairs:
            more = f" and {len(pairs) - 1:,} others have" if len(pairs) > 1 else " has"
            warnings.warn(
                f"the pair of line {pairs[0]:,}{more} no links: they are made of pairs with at most {self}",
                stacklevel=3,
            )
