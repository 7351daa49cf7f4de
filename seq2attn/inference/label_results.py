"""Annotations (the words of a text with tags, and its entities) and categories (the label of a text)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from seq2attn.errors import Seq2attnError
from seq2attn.text.word_vocabulary import Word, join_words
from seq2attn.views.html_table import MAX_CELLS, beginning, block, marked, pale, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from seq2attn.views.viewer import Group, Output, Page

_WITHOUT_WEIGHTS = (
    "this annotation has no weights: its model has no attention, or they were turned off; use a recipe with "
    "attention, and leave weights on"
)

_SHOWN_LABELS = 5  # in notebooks
_IN_PAGE = 20  # labels


class Entity(NamedTuple):
    """An entity in a text, as characters and as words; both are counted from 0."""

    type: str
    text: str
    start: int  # the first character
    end: int  # the character after the last
    probability: float  # that exactly these words are an entity of this type
    first: int  # the first word
    last: int  # the last word


class _Plotted:
    """The base class of results that have attention weights, in a row for each of `rows`, on their words."""

    text: str
    words: list[Word]
    weights: Tensor | None
    row_title: ClassVar[str]
    attention = ""  # the name of the heads that the weights are from

    @property
    def rows(self) -> list[str]:
        """The names of the rows of `plot`."""
        raise NotImplementedError

    @property
    def columns(self) -> list[str]:
        """The words that have weights, the columns of `plot`: a very long text is not read to its end."""
        read = 0 if self.weights is None else self.weights.shape[1]
        return [word.text for word in self.words[:read]]

    def plot(
        self,
        path: str | Path | None = None,
        title: str | None = None,
        *,
        scale: Literal["fixed", "auto"] = "fixed",
        right_to_left: bool = False,
        ax: "Axes | None" = None,
    ) -> "Figure":
        """Return the heat map of the attention of the words, or of a pooling's queries (rows), to the words;
        save it if a path is given. Notebooks show the figure.

        Options are those of `Translation.plot`. Raises Seq2attnError without weights, PlotError for an empty
        or a very long text or a bad path.
        """
        if self.weights is None:
            raise Seq2attnError(_WITHOUT_WEIGHTS)
        from seq2attn.views import heatmaps

        look = heatmaps.Look(scale, right_to_left)
        texts = heatmaps.Texts("words attended to", self.row_title, self.attention)
        rows = self.rows[: len(self.weights)]
        figure = heatmaps.heatmap(self.weights, self.columns, rows, title, texts=texts, look=look, ax=ax)
        if path is not None:
            heatmaps.save(figure, path)
        return figure

    def output(self, groups: "Sequence[Group]") -> "Output":
        """Return what a page of the viewer shows of the result, with these weights."""
        raise NotImplementedError

    def view(self, path: str | Path | None = None) -> "Page":
        """Return a page with the weights of the result, which notebooks show; save it if a path is given.

        `Predictor.view` makes one with the weights of each head. Seq2attnError without weights.
        """
        if self.weights is None:
            raise Seq2attnError(_WITHOUT_WEIGHTS)
        from seq2attn.views.viewer import Entry, Group, Item, Layer, Page, Side
        from seq2attn.views.viewer.document import SOURCE

        layer = Layer(self.attention or "attention", self.weights[None].numpy())
        group = Group("attention", self.rows[: len(self.weights)], SOURCE, [layer])
        page = Page(
            "attention", ["attention"], [Item([Entry([self.output([group])], Side(self.columns, self.text))])]
        )
        if path is not None:
            page.save(path)
        return page

    def _in_notebook(self, static: str) -> str:
        """Return HTML of the page; static HTML where scripts are off, without weights, and with too many."""
        if self.weights is None or not 0 < self.weights.numel() <= MAX_CELLS:
            return static
        return self.view().in_notebook(static)


@dataclass(frozen=True, eq=False, repr=False)
class Annotation(_Plotted):
    """A text with a tag for each word. `str` gives the tags (bio), separated by single spaces.

    weights: attention of each of the Sw words that were read (rows) to all of them, the mean of the heads;
        None without attention.
    attention: which heads the weights are from, "mean of 4 heads".
    """

    text: str
    words: list[Word]
    tags: list[str]
    entities: list[Entity]
    weights: Float[Tensor, "Sw Sw"] | None = None
    attention: str = ""

    row_title = "words and their tags"
    html_headings: ClassVar[Sequence[str]] = ("text",)

    def __str__(self) -> str:
        return join_words(self.tags)

    def __repr__(self) -> str:
        entities = ", ".join(f"{entity.text!r}: {entity.type}" for entity in self.entities)
        return f"Annotation({entities or 'no entity'})"

    def conll(self) -> str:
        """Return a line per word, with the word, a tab and the tag; and a blank line at the end. A space
        or tab within a word or tag becomes a no-break space."""
        words = (word.text for word in self.words)
        pairs = (map(join_words, zip(cells)) for cells in (words, self.tags))
        rows = (f"{word}\t{tag}\n" for word, tag in zip(*pairs, strict=True))
        return "".join(rows) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps."""
        return {
            "text": self.text,
            "entities": [
                {**entity._asdict(), "probability": round(entity.probability, 4)} for entity in self.entities
            ],
            "words": [word.text for word in self.words],
            "tags": self.tags,
        }

    @property
    def rows(self) -> list[str]:
        """The words with their tags, the rows of `plot`."""
        pairs = zip(self.words, self.tags, strict=True)
        return [word.text if tag == "O" else f"{word.text}  {tag}" for word, tag in pairs]

    def html_cells(self) -> list[str]:
        """Return the text with its entities marked: the row that a list of annotations has for it."""
        html, position = "", 0
        for entity in sorted(self.entities, key=lambda entity: entity.start):
            kind = pale(f"{escape(entity.type)} {entity.probability:.2f}")
            html += escape(self.text[position : entity.start]) + marked(f"{escape(entity.text)} {kind}")
            position = entity.end
        return [html + escape(self.text[position:])]

    def output(self, groups: "Sequence[Group]") -> "Output":
        """See the base class."""
        from seq2attn.views.viewer import Output

        found = [f"{entity.text} {entity.type} {entity.probability:.2f}" for entity in self.entities]
        return Output(" \u00b7 ".join(found) or "no entity", groups=groups)

    def _repr_html_(self) -> str:
        """The text with its entities marked, and its weights, for notebooks."""
        return self._in_notebook(block(*self.html_cells()))


@dataclass(frozen=True, eq=False, repr=False)
class Category(_Plotted):
    """A text and its label. `str` gives the label.

    weights: attention of each of the pooling's r queries to the Sw words; None without attention.
    """

    text: str
    words: list[Word]
    label: str
    probabilities: dict[str, float]
    weights: Float[Tensor, "r Sw"] | None = None

    row_title = "queries"
    html_headings: ClassVar[Sequence[str]] = ("text", "label", "probability")

    @property
    def probability(self) -> float:
        """The probability of the label."""
        return self.probabilities[self.label]

    def __str__(self) -> str:
        return self.label

    def __repr__(self) -> str:
        return f"Category({self.label!r}, probability={self.probability:.3f})"

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps."""
        rounded = {label: round(value, 4) for label, value in self.probabilities.items()}
        return {"text": self.text, "label": self.label, "probabilities": rounded}

    @property
    def rows(self) -> list[str]:
        """The label, with the number of the query if there is more than one: the rows of `plot`."""
        count = 1 if self.weights is None else len(self.weights)
        return [self.label] if count == 1 else [f"{self.label} {number}" for number in range(1, count + 1)]

    def html_cells(self) -> list[str]:
        """Return the cells of the row that a list of categories has for it, for notebooks."""
        return [beginning(self.text), escape(self.label), f"{self.probability:.3f}"]

    def output(self, groups: "Sequence[Group]") -> "Output":
        """See the base class: the probabilities of labels are those of a single step."""
        from seq2attn.views.viewer import Output, Step

        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        step = Step(self.label, math.log(max(self.probability, 1e-30)), 0, ranked[:_IN_PAGE])
        return Output(f"{self.label} {self.probability:.3f}", groups=groups, steps=[step])

    def _repr_html_(self) -> str:
        """The text, its most probable labels and the weights as a shaded table, for notebooks."""
        best = sorted(self.probabilities.items(), key=lambda item: -item[1])[:_SHOWN_LABELS]
        labels = ", ".join(f"{escape(label)} {probability:.3f}" for label, probability in best)
        html = f"<div>{escape(self.text)}</div><div><b>{escape(self.label)}</b> {pale(labels)}</div>"
        if self.weights is not None and 0 < self.weights.numel() <= MAX_CELLS:
            html += table(self.weights.tolist(), self.columns, self.rows)
        return self._in_notebook(block(html))
