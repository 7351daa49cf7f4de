"""Annotations (the words of a text with tags, and its entities) and categories (the label of a text)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from seq2attn.errors import Seq2attnError
from seq2attn.text.word_vocabulary import Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WITHOUT_WEIGHTS = (
    "this annotation has no weights: its model has no attention, or they were turned off; use a recipe with "
    "attention, and leave weights on"
)


class Entity(NamedTuple):
    """An entity in a text, as characters and as words; both are counted from 0."""

    type: str
    text: str
    start: int  # the first character
    end: int  # the character after the last
    probability: float  # that exactly these words are an entity of this type
    first: int  # the first word
    last: int  # the last word


@dataclass(frozen=True, eq=False, repr=False)
class Annotation:
    """A text with a tag for each word. `str` gives the tags (bio), separated by single spaces.

    weights: attention of each of the Sw words that were read (rows) to all of them, the mean of the heads;
        None without attention.
    """

    text: str
    words: list[Word]
    tags: list[str]
    entities: list[Entity]
    weights: Float[Tensor, "Sw Sw"] | None = None

    def __str__(self) -> str:
        return " ".join(self.tags)

    def __repr__(self) -> str:
        entities = ", ".join(f"{entity.text!r}: {entity.type}" for entity in self.entities)
        return f"Annotation({entities or 'no entity'})"

    def conll(self) -> str:
        """Return a line per word, with the word, a tab and the tag; and a blank line at the end."""
        rows = (f"{word.text}\t{tag}\n" for word, tag in zip(self.words, self.tags, strict=True))
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

    def plot(self, path: str | Path | None = None, title: str | None = None) -> "Figure":
        """Return the heat map of the attention of each word (rows) to all words; save it if a path is given.

        Raises Seq2attnError without weights, PlotError for an empty text or a bad path.
        """
        if self.weights is None:
            raise Seq2attnError(_WITHOUT_WEIGHTS)
        words = [word.text for word in self.words]
        rows = [word if tag == "O" else f"{word}  {tag}" for word, tag in zip(words, self.tags, strict=True)]
        return _plot(self.weights, words, rows, title, path)


@dataclass(frozen=True, eq=False, repr=False)
class Category:
    """A text and its label. `str` gives the label.

    weights: attention of each of the pooling's r queries to the Sw words; None without attention.
    """

    text: str
    words: list[Word]
    label: str
    probabilities: dict[str, float]
    weights: Float[Tensor, "r Sw"] | None = None

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

    def plot(self, path: str | Path | None = None, title: str | None = None) -> "Figure":
        """Return the heat map of the attention of the pooling's queries (rows) to the words; save it if a
        path is given.

        Raises Seq2attnError without weights, PlotError for an empty text or a bad path.
        """
        if self.weights is None:
            raise Seq2attnError(_WITHOUT_WEIGHTS)
        count = len(self.weights)
        rows = [self.label] if count == 1 else [f"{self.label} {number}" for number in range(1, count + 1)]
        return _plot(self.weights, [word.text for word in self.words], rows, title, path)


def _plot(
    weights: Tensor, columns: list[str], rows: list[str], title: str | None, path: str | Path | None
) -> "Figure":
    from seq2attn.views import heatmaps

    read_rows, read_columns = weights.shape  # a very long text is not read to its end
    figure = heatmaps.heatmap(weights, columns[:read_columns], rows[:read_rows], title)
    if path is not None:
        heatmaps.save(figure, path)
    return figure
