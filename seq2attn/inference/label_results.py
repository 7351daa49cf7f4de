"""What was found in a text: its entities, or what it is about, and which words were looked at for that."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from seq2attn.errors import Seq2attnError
from seq2attn.text.word_vocabulary import Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UNSEEN = (
    "this annotation has no weights: its model has no attention, or nobody asked for them; use a recipe with "
    "attention, and leave weights on"
)


class Entity(NamedTuple):
    """Something named. Characters `start` to `end - 1` of the text; words `first` to `last`, from 0."""

    type: str
    text: str
    start: int
    end: int
    probability: float  # that exactly these words are an entity of this type
    first: int
    last: int


@dataclass(frozen=True, eq=False, repr=False)
class Annotation:
    """A text whose words are tagged. `str` gives the tags (bio) with single spaces between.

    weights: what each word's decision looked at, (Sw, Sw), the mean of the heads; None without attention.
    """

    text: str
    words: list[Word]
    tags: list[str]
    entities: list[Entity]
    weights: Float[Tensor, "Sw Sw"] | None = None

    def __str__(self) -> str:
        return " ".join(self.tags)

    def __repr__(self) -> str:
        found = ", ".join(f"{one.text!r}: {one.type}" for one in self.entities)
        return f"Annotation({found or 'no entity'})"

    def conll(self) -> str:
        """A word and its tag a line, a tab between; a blank line at the end."""
        rows = (f"{word.text}\t{tag}\n" for word, tag in zip(self.words, self.tags, strict=True))
        return "".join(rows) + "\n"

    def to_json(self) -> dict[str, Any]:
        """What json.dumps takes."""
        entities = [{**one._asdict(), "probability": round(one.probability, 4)} for one in self.entities]
        return {"text": self.text, "entities": entities, "words": [word.text for word in self.words]} | {
            "tags": self.tags
        }

    def plot(self, path: str | Path | None = None, title: str | None = None) -> "Figure":
        """The heat map: which words (columns) each word's tag (rows) looked at. Saved, if a path is given.

        Raises Seq2attnError without weights, PlotError for an empty text or a bad path.
        """
        if self.weights is None:
            raise Seq2attnError(_UNSEEN)
        words = [word.text for word in self.words]
        rows = [word if tag == "O" else f"{word}  {tag}" for word, tag in zip(words, self.tags, strict=True)]
        return _drawn(self.weights, words, rows, title, path)


@dataclass(frozen=True, eq=False, repr=False)
class Category:
    """A text and its label. `str` gives the label.

    weights: the words that were looked at, (r, Sw), by each query of the pooling; None if there is none.
    """

    text: str
    words: list[Word]
    label: str
    probabilities: dict[str, float]
    weights: Float[Tensor, "r Sw"] | None = None

    @property
    def probability(self) -> float:
        """Of the label."""
        return self.probabilities[self.label]

    def __str__(self) -> str:
        return self.label

    def __repr__(self) -> str:
        return f"Category({self.label!r}, probability={self.probability:.3f})"

    def to_json(self) -> dict[str, Any]:
        """What json.dumps takes."""
        rounded = {label: round(value, 4) for label, value in self.probabilities.items()}
        return {"text": self.text, "label": self.label, "probabilities": rounded}

    def plot(self, path: str | Path | None = None, title: str | None = None) -> "Figure":
        """The heat map: which words each query of the pooling looked at. Saved, if a path is given.

        Raises Seq2attnError without weights, PlotError for an empty text or a bad path.
        """
        if self.weights is None:
            raise Seq2attnError(_UNSEEN)
        count = len(self.weights)
        rows = [self.label] if count == 1 else [f"{self.label} {number}" for number in range(1, count + 1)]
        return _drawn(self.weights, [word.text for word in self.words], rows, title, path)


def _drawn(
    weights: Tensor, columns: list[str], rows: list[str], title: str | None, path: str | Path | None
) -> "Figure":
    from seq2attn.views import heatmaps as plots

    figure = plots.heatmap(weights, columns, rows, title)
    if path is not None:
        plots.save(figure, path)
    return figure
