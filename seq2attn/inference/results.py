"""Translations: the text with its score, its words, and their alignment with the source."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from seq2attn.alignment.word_alignment import Link, WordAlignment, links, pharaoh
from seq2attn.errors import Seq2attnError
from seq2attn.inference.hypotheses import Hypothesis
from seq2attn.text.vocabulary import Tokens
from seq2attn.text.words import SEPARATORS
from seq2attn.text.words import words as split_words
from seq2attn.views.html_table import MAX_CELLS, beginning, pale, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNALIGNED = (
    "this translation has no alignment: its model has no attention, or it was translated with "
    "alignment=False; use a model with attention and leave alignment on"
)


@dataclass(frozen=True, eq=False, repr=False)
class Translation(Hypothesis):
    """A translated sentence. Letters: Tp, Sp pieces and Tw, Sw words of the target and the source.

    A row of `alignment` plus its `end_of_sentence` has the same sum as the rows of the attention weights
    (softmax: 1). All tensors are None if the model has no attention or the call had alignment=False; `copied`
    is also None if the model does not copy. For a blank source, `alignment` is always an empty tensor. A
    copied piece that the target vocabulary lacks has an id beyond its size.
    """

    source: Tokens
    target: Tokens
    text: str
    score: float  # ranks hypotheses: log_probability, normalised for length
    log_probability: float  # of all pieces and </s>, in nats
    alignment: Float[Tensor, "Tw Sw"] | None = None  # attention of each target word to each source word
    end_of_sentence: Float[Tensor, " Tw"] | None = None  # attention of each target word to the source's </s>
    weights: Float[Tensor, "Tp Sp1"] | None = None  # attention between pieces; the last column is </s>
    copied: Float[Tensor, " Tw"] | None = None  # the share of each word's probability that is copied, 0 to 1
    truncated: bool = False  # whether it has the largest length that decoding allows, and so may be cut
    attention: str = ""  # the layer and head that the weights are from: "layer 4 (0 to 5), mean of 8 heads"
    probabilities: Float[Tensor, " Tw"] | None = (
        None  # of each word, given the source and the words before it
    )
    others: tuple["Translation", ...] = ()  # the next best hypotheses, best first, if nbest > 1

    html_headings: ClassVar[Sequence[str]] = ("source", "target", "score")

    @classmethod
    def empty(cls, source: Tokens) -> "Translation":
        """Return the translation of a blank sentence: no words, log-probability 0."""
        return cls(
            source,
            target=Tokens([], [], [], []),
            text="",
            score=0.0,
            log_probability=0.0,
            alignment=torch.zeros(0, len(source.words), device="cpu"),
            end_of_sentence=torch.zeros(0, device="cpu"),
            weights=torch.zeros(0, len(source.pieces) + 1, device="cpu"),
        )

    @property
    def source_words(self) -> list[str]:
        """The words of the source, the columns of `alignment`."""
        return self.source.words

    @property
    def source_tokens(self) -> list[str]:
        """The pieces of the source, the columns of `weights` except the last."""
        return self.source.pieces

    def known(self, unknown: int) -> "Translation":
        """Replace each unknown word (piece id `unknown`) by the source word with the largest attention
        weight.

        After Luong et al. 2015 ("Addressing the rare word problem") and Jean et al. 2015. The pieces stay as
        they are. Raises Seq2attnError without an alignment.
        """
        weights = self._word_alignment().weights
        words, text, position = list(self.words), "", 0
        unknown_words = {
            word for word, piece in zip(self.target.word_of, self.target.ids, strict=True) if piece == unknown
        }
        if not unknown_words:
            return self
        for index, word in enumerate(self.words):
            # spaces within a word are single ones; in the text there may be more
            match = re.compile(f"[{SEPARATORS}]+".join(map(re.escape, split_words(word)))).search(
                self.text, position
            )
            if match is None:
                raise Seq2attnError(
                    f"expected the words of the text, got {word!r}, which is not in {self.text!r}"
                )
            replaced = index in unknown_words and bool(weights[index].any())
            words[index] = self.source_words[int(weights[index].argmax())] if replaced else word
            text += self.text[position : match.start()] + (words[index] if replaced else match[0])
            position = match.end()
        # SentencePiece adds spaces around its symbol for an unknown piece to those between words
        text = " ".join(split_words(text + self.text[position:]))
        return replace(self, target=self.target._replace(words=words), text=text)

    def links(self, threshold: float | None = None) -> list[Link]:
        """Return the hard links between words. For the threshold see `alignment.word_alignment.links`."""
        return links(self._word_alignment(), threshold)

    def pharaoh(self, threshold: float | None = None) -> str:
        """Return the links as a line of Pharaoh's format: `source-target source-target ...`."""
        return pharaoh(self._word_alignment(), threshold)

    def plot(
        self,
        path: str | Path | None = None,
        pieces: bool = False,
        title: str | None = None,
        *,
        scale: Literal["fixed", "auto"] = "fixed",
        right_to_left: bool = False,
        ax: "Axes | None" = None,
    ) -> "Figure":
        """Return the heat map of the alignment of words, or of `pieces`; save it if a path is given.

        The path ends in .png, .svg or .pdf. Notebooks show the figure.

        scale: the darkest colour is that of the weight 1 (fixed) or of the largest weight (auto);
        right_to_left: draw the source words from right to left;
        ax: axes of your own to draw into.
        Raises Seq2attnError without an alignment, and PlotError for an empty or a very long translation, or a
        bad path.
        """
        from seq2attn.views import heatmaps

        columns: tuple[Tensor | None, Tensor | None]
        if pieces:
            if self.weights is None:
                raise Seq2attnError(_UNALIGNED)
            weights, columns = self.weights[:, :-1], (self.weights[:, -1], None)
            words = self.source_tokens, self.tokens
        else:
            weights, columns = self._word_alignment().weights, (self.end_of_sentence, self.copied)
            words = self.source_words, self.words
        texts = heatmaps.Texts("source", "target", self.attention)
        look = heatmaps.Look(scale, right_to_left)
        figure = heatmaps.heatmap(weights, *words, title, *columns, texts=texts, look=look, ax=ax)
        if path is not None:
            heatmaps.save(figure, path)
        return figure

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps. Tensors may be None; the key `nbest` exists if there are others."""
        entry = {
            "text": self.text,
            "score": round(self.score, 6),
            "log_probability": round(self.log_probability, 6),
            "truncated": self.truncated,
            "words": self.words,
            "source_words": self.source_words,
            "alignment": _rounded(self.alignment),
            "end_of_sentence": _rounded(self.end_of_sentence),
            "copied": _rounded(self.copied),
        }
        if self.others:
            entry["nbest"] = [replace(hypothesis, others=()).to_json() for hypothesis in self.nbest]
        return entry

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Translation({self.text!r}, score={self.score:.3f})"

    def _repr_png_(self) -> bytes | None:
        """The heat map, for notebooks."""
        if self.alignment is None:
            return None  # IPython then shows another representation
        from seq2attn.views import heatmaps

        try:
            return heatmaps.render(self.plot())
        except heatmaps.PlotError:  # there is nothing to draw, or too much
            return None

    def _repr_html_(self) -> str:
        """The translation, its alignment as a shaded table, and the other hypotheses, for notebooks."""
        others = "".join(
            f"<li><span dir='auto'>{escape(other.text)}</span> {pale(f'{other.score:.3f}')}</li>"
            for other in self.others
        )
        scores = f"score {self.score:.3f} · log-probability {self.log_probability:.3f}"
        return (
            "<div style='font-family:system-ui,sans-serif;overflow-x:auto'>"
            f"<div dir='auto' style='font-size:1.3em;font-weight:600'>{escape(self.text)}</div>"
            f"<div style='margin:.1em 0 .7em'>{pale(scores)}</div>"
            + self._html_table()
            + (f"<ol start='2' style='margin:.7em 0 0;padding-left:1.6em'>{others}</ol>" if others else "")
            + "</div>"
        )

    def html_cells(self) -> list[str]:
        """Return the cells of the row that a list of translations has for it, for notebooks."""
        return [beginning(" ".join(self.source_words)), beginning(self.text), f"{self.score:.3f}"]

    def _html_table(self) -> str:
        if self.alignment is None or not 0 < self.alignment.numel() <= MAX_CELLS:
            return ""
        extra = {"</s>": self.end_of_sentence, "copied": self.copied}
        columns = {heading: column for heading, column in extra.items() if column is not None}
        weights = torch.cat([self.alignment, *(column[:, None] for column in columns.values())], 1)
        return table(weights.tolist(), [*self.source_words, *columns], self.words)

    def _word_alignment(self) -> WordAlignment:
        if self.alignment is None:
            raise Seq2attnError(_UNALIGNED)
        end_of_sentence = self.end_of_sentence
        if end_of_sentence is None:
            end_of_sentence = self.alignment.new_zeros(len(self.words))
        return WordAlignment(self.alignment, end_of_sentence)


def _rounded(weights: Tensor | None) -> Any:
    """Return weights as nested lists, with four digits."""
    return None if weights is None else weights.double().round(decimals=4).tolist()
