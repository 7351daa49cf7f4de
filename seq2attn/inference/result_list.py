"""Lists of results, which notebooks show as one table."""

from collections.abc import Sequence
from typing import ClassVar, Protocol, SupportsIndex, TypeVar, overload

from seq2attn.views.html_table import block, listing

SHOWN = 50  # results


class Tabular(Protocol):
    """A result that has a row in the table of a list."""

    html_headings: ClassVar[Sequence[str]]

    def html_cells(self) -> list[str]:
        """Return the HTML below each heading."""


T = TypeVar("T", bound=Tabular)


class Results(list[T]):
    """The results of a list of texts, in their order: a list that notebooks show as one table.

    A slice is also shown so. Each result can be shown by itself, with its weights.
    """

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> "Results[T]": ...

    def __getitem__(self, index: SupportsIndex | slice) -> "T | Results[T]":
        """Return a result, or the results of a slice."""
        return Results(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)

    def _repr_html_(self) -> str | None:
        """A table with a row for each of the first results, for notebooks."""
        if not self:
            return None  # IPython then shows []
        rows = [result.html_cells() for result in self[:SHOWN]]
        return block(listing(self[0].html_headings, rows, len(self) - len(rows)))
