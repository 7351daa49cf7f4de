"""Captions: a text that was written from an image, and where on the image each of its words looked."""

from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import Pixels
from seq2attn.inference.hypotheses import Hypothesis
from seq2attn.text.vocabulary import Tokens
from seq2attn.views.html_table import block, pale
from seq2attn.views.thumbnails import thumbnail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seq2attn.views.image_maps import Scale

_UNALIGNED = (
    "this text has no alignment: its model has no attention, or it was written with alignment=False; use a "
    "model with attention and leave alignment on"
)


@dataclass(frozen=True, eq=False, repr=False)
class Caption(Hypothesis):
    """A text that was written from an image. `str` gives the text. Letters: Tp pieces, Tw words.

    The weights of a word are the mean over its pieces. They are None if the model has no attention, or the
    call had alignment=False.
    """

    name: str  # of the image's file; "" if it came from memory
    pixels: Pixels  # (H, W, C), as the network has read them
    target: Tokens
    text: str
    score: float  # ranks hypotheses: log_probability, normalised for length
    log_probability: float  # of all pieces and </s>, in nats
    weights: Float[Tensor, "Tp rows columns"] | None = None  # attention of each piece
    alignment: Float[Tensor, "Tw rows columns"] | None = None  # attention of each word
    truncated: bool = False  # whether it has the largest length that decoding allows, and so may be cut
    attention: str = ""  # the layer and head that the weights are from: "layer 4 (0 to 5), mean of 8 heads"
    others: tuple["Caption", ...] = ()  # the next best hypotheses, best first, if nbest > 1

    def plot(
        self, path: str | Path | None = None, pieces: bool = False, *, scale: "Scale" = "auto"
    ) -> "Figure":
        """Return a picture with the image once for each word, or each piece, and over it where the word
        looked (Xu et al. 2015, figure 3). Save it if a path is given, which ends in .png, .svg or .pdf.

        scale: see views.image_maps.picture. Seq2attnError without weights; PlotError for a long text.
        """
        from seq2attn.views.image_maps import Overlay, picture
        from seq2attn.views.pictures import save

        weights = self.weights if pieces else self.alignment
        if weights is None:
            raise Seq2attnError(_UNALIGNED)
        names = self.tokens if pieces else self.words
        panels = [Overlay(name, map.numpy(), scale) for name, map in zip(names, weights, strict=True)]
        figure = picture(self.pixels, self.text, panels)
        if path is not None:
            save(figure, path)
        return figure

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps. The alignment may be None; `nbest` exists if there are others."""
        alignment = self.alignment
        entry = {
            "image": self.name,
            "text": self.text,
            "score": round(self.score, 6),
            "log_probability": round(self.log_probability, 6),
            "truncated": self.truncated,
            "words": self.words,
            "alignment": None if alignment is None else alignment.double().round(decimals=4).tolist(),
        }
        if self.others:
            entry["nbest"] = [replace(hypothesis, others=()).to_json() for hypothesis in self.nbest]
        return entry

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Caption({self.text!r}, score={self.score:.3f})"

    def _repr_html_(self) -> str:
        """The image, small, its name, and the text, for notebooks."""
        picture = thumbnail(self.pixels, self.text)
        score = pale(f"score {self.score:.3f}")
        return block(f"{picture} {escape(self.name)} <b dir='auto'>{escape(self.text)}</b> {score}")
