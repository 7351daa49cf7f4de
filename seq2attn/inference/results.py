"""What a translation is: the text with its score, its words, and which source word each of them looked at."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from seq2attn.alignment.word_alignment import Link, WordAlignment, links, pharaoh
from seq2attn.errors import Seq2attnError
from seq2attn.text.vocabulary import Tokens
from seq2attn.views.html_table import pale, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UNALIGNED = (
    "this translation has no alignment: its model has no attention, or it was translated with "
    "alignment=False; use a model with attention and leave alignment on"
)


@dataclass(frozen=True, eq=False, repr=False)
class Translation:
    """A translated sentence. Letters: Tp, Sp pieces and Tw, Sw words of the target and the source.

    A row of `alignment` plus its `end_of_sentence` sums to what the attention's rows sum to (softmax: 1). All
    three tensors are None when the model has no attention or nobody asked for the alignment; `copied` also
    when the model does not copy. A copied piece that the target's vocabulary lacks has an id beyond its size.
    """

    source: Tokens
    target: Tokens
    text: str
    score: float  # by which the search ranks: log_probability, divided by its length norm
    log_probability: float  # of all pieces and the end of sentence, in nats
    alignment: Float[Tensor, "Tw Sw"] | None = None
    end_of_sentence: Float[Tensor, " Tw"] | None = None  # what each target word looked at the source's </s>
    weights: Float[Tensor, "Tp Sp1"] | None = None  # piece by piece; the last column is the source's </s>
    copied: Float[Tensor, " Tw"] | None = None  # how much of each word's probability was copied, 0 to 1
    others: tuple["Translation", ...] = ()  # the next best hypotheses, best first, if several were asked for

    @classmethod
    def empty(cls, source: Tokens) -> "Translation":
        """The translation of a blank sentence: no word, at no cost."""
        Sw, Sp = len(source.words), len(source.pieces)
        nothing = torch.zeros(0, Sw), torch.zeros(0), torch.zeros(0, Sp + 1)
        return cls(source, Tokens([], [], [], []), "", 0.0, 0.0, *nothing)

    def among(self, hypotheses: Sequence["Translation"]) -> "Translation":
        """The same translation, that knows the other hypotheses of its sentence."""
        return replace(self, others=tuple(other for other in hypotheses if other is not self))

    @property
    def nbest(self) -> tuple["Translation", ...]:
        """All hypotheses, best first: this one and the others."""
        return (self, *self.others)

    @property
    def words(self) -> list[str]:
        """The words of the translation, the rows of `alignment`."""
        return self.target.words

    @property
    def source_words(self) -> list[str]:
        """The words of the source, the columns of `alignment`."""
        return self.source.words

    @property
    def tokens(self) -> list[str]:
        """The pieces of the translation, the rows of `weights`."""
        return self.target.pieces

    @property
    def source_tokens(self) -> list[str]:
        """The pieces of the source, the columns of `weights` but for the last."""
        return self.source.pieces

    def known(self, unknown: int) -> "Translation":
        """With each unknown word (id `unknown`) replaced by the source word that it looked at most.

        After Luong et al. 2015 ("Addressing the rare word problem") and Jean et al. 2015. The pieces stay as
        they are. Raises Seq2attnError without an alignment.
        """
        looked = self._aligned().weights
        words, text, place = list(self.words), "", 0
        strange = {
            w for w, piece in zip(self.target.word_of, self.target.ids, strict=True) if piece == unknown
        }
        if not strange:
            return self
        for number, word in enumerate(self.words):
            # a word's spaces are single, those of the text may not be
            found = re.compile(r"\s+".join(map(re.escape, word.split()))).search(self.text, place)
            if found is None:
                raise Seq2attnError(
                    f"expected the words of the text, got {word!r}, which is not in {self.text!r}"
                )
            copied = number in strange and bool(looked[number].any())
            words[number] = self.source_words[int(looked[number].argmax())] if copied else word
            text += self.text[place : found.start()] + (words[number] if copied else found[0])
            place = found.end()
        # SentencePiece sets spaces around its sign for an unknown piece, so that some came twice
        text = " ".join((text + self.text[place:]).split())
        return replace(self, target=self.target._replace(words=words), text=text)

    def links(self, threshold: float | None = None) -> list[Link]:
        """The hard links between words, see alignment.links for the threshold."""
        return links(self._aligned(), threshold)

    def pharaoh(self, threshold: float | None = None) -> str:
        """The same as `source-target source-target ...`, a line of Pharaoh's format."""
        return pharaoh(self._aligned(), threshold)

    def plot(
        self, path: str | Path | None = None, pieces: bool = False, title: str | None = None
    ) -> "Figure":
        """The heat map of the alignment by words, or by `pieces`; a path saves it as png, svg or pdf.

        Raises Seq2attnError without an alignment, and PlotError for an empty translation or a bad path.
        """
        from seq2attn.views import heatmaps as plots

        if pieces:
            if self.weights is None:
                raise Seq2attnError(_UNALIGNED)
            weights, end = self.weights[:, :-1], self.weights[:, -1]
            figure = plots.heatmap(weights, self.source_tokens, self.tokens, title, end)
        else:
            words = self._aligned().weights
            beside = self.end_of_sentence, self.copied
            figure = plots.heatmap(words, self.source_words, self.words, title, *beside)
        if path is not None:
            plots.save(figure, path)
        return figure

    def to_json(self) -> dict[str, Any]:
        """What json.dumps takes; `alignment` may be None, `nbest` is there if several were asked for."""
        entry = {
            "text": self.text,
            "score": round(self.score, 6),
            "log_probability": round(self.log_probability, 6),
            "words": self.words,
            "source_words": self.source_words,
            "alignment": _rounded(self.alignment),
            "end_of_sentence": _rounded(self.end_of_sentence),
            "copied": _rounded(self.copied),
        }
        if self.others:
            entry["nbest"] = [replace(one, others=()).to_json() for one in self.nbest]
        return entry

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Translation({self.text!r}, score={self.score:.3f})"

    def _repr_png_(self) -> bytes | None:
        """The heat map, for notebooks."""
        if self.alignment is None or not self.alignment.numel():
            return None  # IPython then shows something else
        from seq2attn.views import heatmaps as plots

        return plots.drawn(self.plot())

    def _repr_html_(self) -> str:
        """The translation, its alignment as a shaded table, and the other hypotheses, for notebooks."""
        others = "".join(
            f"<li><span dir='auto'>{escape(one.text)}</span> {pale(f'{one.score:.3f}')}</li>"
            for one in self.others
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

    def _html_table(self) -> str:
        if self.alignment is None or not self.alignment.numel():
            return ""
        beside = {"</s>": self.end_of_sentence, "copied": self.copied}
        more = {head: column for head, column in beside.items() if column is not None}
        weights = torch.cat([self.alignment, *(column[:, None] for column in more.values())], 1)
        return table(weights.tolist(), [*self.source_words, *more], self.words)

    def _aligned(self) -> WordAlignment:
        if self.alignment is None:
            raise Seq2attnError(_UNALIGNED)
        end = self.end_of_sentence
        return WordAlignment(
            self.alignment, self.alignment.new_zeros(len(self.words)) if end is None else end
        )


def _rounded(weights: Tensor | None) -> Any:
    """Nested lists with four digits."""
    return None if weights is None else weights.double().round(decimals=4).tolist()
