"""The content of a page: sentences or images, what models made of them, and the weights (`schema.json`)."""

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from seq2attn.alignment.word_alignment import Gold
from seq2attn.text.vocabulary import Tokens
from seq2attn.views.viewer.packing import packed

FORMAT = 1  # of the data of a page; a change that older code cannot read is a higher one
_LONGEST = 640  # pixels of the longer side of an image in a page

SOURCE, TARGET, IMAGE = "source", "target", "image"
Names = str | list[str]  # SOURCE, TARGET or IMAGE, or names of their own


class Side(NamedTuple):
    """A text as words, and the pieces that they consist of, if there are any."""

    words: list[str]
    text: str
    pieces: list[str] | None = None
    word_of: list[int] | None = None  # index of the word of each piece

    @classmethod
    def of(cls, tokens: Tokens, text: str) -> "Side":
        """Return the side of a tokenized text."""
        return cls(tokens.words, text, tokens.pieces, tokens.word_of)

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps."""
        return _given(self._asdict())


class Layer(NamedTuple):
    """The weights of a layer's heads."""

    name: str
    weights: ArrayLike  # (H, R, C)
    grid: tuple[int, int] | None = None  # of the C columns, if they are places of an image


class Group(NamedTuple):
    """The attentions of one kind: of the target to the source, of the source to itself, ...

    Row p + shift belongs to piece p of `rows`. The columns are those of `before`, the pieces of `columns`,
    and those of `after`, as </s>.
    """

    name: str
    rows: Names
    columns: Names
    layers: Sequence[Layer]
    shift: int = 0
    before: list[str] | None = None
    after: list[str] | None = None
    chosen: tuple[int, int | None] | None = None  # the layer and head that alignments are taken from

    def to_json(self, exact: bool) -> dict[str, Any]:
        """Return a value for json.dumps."""
        layers = [
            _given({"name": one.name, "grid": one.grid}) | packed(one.weights, exact) for one in self.layers
        ]
        return _given(self._asdict() | {"layers": layers})


class Step(NamedTuple):
    """A step of decoding: the piece that was written, and the most probable ones."""

    piece: str
    log_p: float
    rank: int  # of the piece in the model's distribution, from 0
    top: list[tuple[str, float]]  # pieces and their probabilities, best first

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps."""
        top = [[piece, round(probability, 5)] for piece, probability in self.top]
        return {"piece": self.piece, "log_p": round(self.log_p, 5), "rank": self.rank, "top": top}


class TreeNode(NamedTuple):
    """A hypothesis of a step of a beam search."""

    piece: str
    parent: int  # index of the node in the step before
    log_p: float  # of the hypothesis so far, in nats
    end: bool  # whether it ends with this piece

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps."""
        return self._asdict() | {"log_p": round(self.log_p, 5)}


class MapOfImage(NamedTuple):
    """A map of a network of images: of places (R = 1, or a row for each place that asks), of channels
    (R branches, C channels), or a matrix of channels."""

    name: str
    kind: str  # place, channel or matrix
    weights: ArrayLike  # (H, R, C)
    grid: tuple[int, int] | None = None  # of the C places
    queries: tuple[int, int] | None = None  # the grid of the R places that ask
    limits: tuple[float, float] | None = (
        None  # the weights at the ends of the colours; None: 0 and the largest
    )

    def to_json(self, exact: bool) -> dict[str, Any]:
        """Return a value for json.dumps."""
        fields = {"name": self.name, "kind": self.kind, "grid": self.grid, "queries": self.queries}
        return _given(fields | {"limits": self.limits}) | packed(self.weights, exact)


class Output(NamedTuple):
    """What a model made of a sentence or an image, and the weights by which it did."""

    text: str
    target: Side | None = None
    groups: Sequence[Group] = ()
    steps: Sequence[Step] = ()
    maps: Sequence[MapOfImage] = ()
    score: float | None = None
    note: str | None = None
    end: tuple[int, int] | None = None  # step and node at which it ends in the tree of the beam

    def to_json(self, exact: bool) -> dict[str, Any]:
        """Return a value for json.dumps."""
        entry = {
            "text": self.text,
            "target": None if self.target is None else self.target.to_json(),
            "score": None if self.score is None else round(self.score, 6),
            "note": self.note,
            "end": self.end,
            "groups": [group.to_json(exact) for group in self.groups] or None,
            "steps": [step.to_json() for step in self.steps] or None,
            "maps": [one.to_json(exact) for one in self.maps] or None,
        }
        return _given(entry)


class Picture(NamedTuple):
    """An image of a page."""

    name: str
    pixels: NDArray[np.uint8]  # (H, W, 1 or 3)

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps; a large image is made smaller."""
        pixels = self.pixels
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        image.thumbnail((_LONGEST, _LONGEST))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        content = base64.b64encode(buffer.getvalue()).decode()
        width, height = image.size
        source = f"data:image/png;base64,{content}"
        return {"name": self.name, "width": width, "height": height, "src": source}


class Entry(NamedTuple):
    """A sentence or an image, and the outputs of one model for it, best first."""

    outputs: Sequence[Output]
    source: Side | None = None
    image: Picture | None = None
    beam: Sequence[Sequence[TreeNode]] = ()  # the kept hypotheses of each step

    def to_json(self, exact: bool) -> dict[str, Any]:
        """Return a value for json.dumps."""
        entry = {
            "source": None if self.source is None else self.source.to_json(),
            "image": None if self.image is None else self.image.to_json(),
            "outputs": [output.to_json(exact) for output in self.outputs],
            "beam": [[node.to_json() for node in step] for step in self.beam] or None,
        }
        return _given(entry)


class Item(NamedTuple):
    """A sentence or an image with the entry of each run, and its gold links if they are known."""

    entries: Sequence[Entry]
    gold: Gold | None = None

    def to_json(self, exact: bool) -> dict[str, Any]:
        """Return a value for json.dumps. Gold links are [source, target, S for sure or P for possible]."""
        entry: dict[str, Any] = {"of": [one.to_json(exact) for one in self.entries]}
        if self.gold is not None:
            sure, possible = self.gold
            links = [[*link, "S" if link in sure else "P"] for link in sorted(possible)]
            entry["gold"] = links
        return entry


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
