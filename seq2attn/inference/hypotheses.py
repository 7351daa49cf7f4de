"""What results of search have in common: a text, and the next best hypotheses of the same input."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import Self

from seq2attn.text.vocabulary import Tokens


class Hypothesis:
    """The base class of written texts, which are frozen dataclasses with these fields, too."""

    if TYPE_CHECKING:
        target: Tokens
        others: tuple[Self, ...]  # the next best hypotheses, best first, if nbest > 1

    def among(self, hypotheses: Sequence[Self]) -> Self:
        """Return this text with the other hypotheses of its input as `others`."""
        others = tuple(other for other in hypotheses if other is not self)
        return cast("Self", replace(cast("Any", self), others=others))

    @property
    def nbest(self) -> tuple[Self, ...]:
        """All hypotheses, best first: this one and the others."""
        return (self, *self.others)

    @property
    def words(self) -> list[str]:
        """The words of the text, the rows of `alignment`."""
        return self.target.words

    @property
    def tokens(self) -> list[str]:
        """The pieces of the text, the rows of `weights`."""
        return self.target.pieces
