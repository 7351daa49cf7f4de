"""Texts with what their words owe to the words of their source, by one of ATTRIBUTIONS."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float
from torch import Tensor

from seq2attn.alignment.word_alignment import by_words, shifted
from seq2attn.data.batches import PairIds, collate
from seq2attn.data.sources import PairTokenizer, SourceIds
from seq2attn.errors import Seq2attnError
from seq2attn.inference.attribution import ATTRIBUTIONS, Pairs, completeness, word_numbers
from seq2attn.inference.generator import AlignmentHead, Generator
from seq2attn.inference.predictor import PlotOptions
from seq2attn.inference.results import Translation
from seq2attn.recipe.wording import from_plugins, unknown
from seq2attn.runtime.devices import require_float32
from seq2attn.text.vocabulary import Tokens

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class AttributedText:
    """A text, and what each of its words owes to each word of its source.

    Letters: Tp, Sp pieces and Tw, Sw words of the target and the source. Numbers of gradients and occlusion
    are differences of the log-probability, in nats: the mean over the pieces of a target word, the sum over
    those of a source word. Those of attention are weights.
    """

    method: str
    result: Translation  # whose alignment and weights are shares: sizes of scores, in rows that sum to 1
    scores: Float[Tensor, "Tw Sw"]  # with their signs
    end_of_sentence: Float[Tensor, " Tw"]  # of the source's </s>
    pieces: Float[Tensor, "Tp Sp1"]  # between pieces; the last column is </s>
    error: float | None  # of integrated gradients: the largest error of a row's sum, in nats

    @property
    def words(self) -> list[str]:
        """The words of the text, the rows of `scores`."""
        return self.result.words

    @property
    def source_words(self) -> list[str]:
        """The words of the source, the columns of `scores`."""
        return self.result.source_words

    def plot(
        self,
        path: str | Path | None = None,
        pieces: bool = False,
        title: str | None = None,
        *,
        scale: Literal["fixed", "auto"] = "fixed",
        right_to_left: bool = False,
    ) -> "Figure":
        """Return the heat map of the shares; see `Translation.plot`."""
        return self.result.plot(path, pieces, title, scale=scale, right_to_left=right_to_left)

    def drawn(self, options: PlotOptions) -> "tuple[Translation, Figure]":
        """Return the shares and their heat map. Seq2attnError for options of attention only."""
        options.refuse(("self_attention",), "heat maps of attention, without a method")
        if "all" in (options.layer, options.head):
            raise Seq2attnError("one method has one heat map: leave out layer all and head all")
        if ATTRIBUTIONS[self.method].of_probability:
            options.refuse(("layer", "head"), "methods of attention")
        looks: dict[str, Any] = {"scale": options.text_scale, "right_to_left": options.right_to_left}
        return self.result, self.plot(pieces=options.pieces, **looks)

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps."""
        return {
            "text": str(self),
            "method": self.method,
            "words": self.words,
            "source_words": self.source_words,
            "scores": self.scores.double().round(decimals=6).tolist(),
            "end_of_sentence": self.end_of_sentence.double().round(decimals=6).tolist(),
            "error": self.error,
        }

    def __str__(self) -> str:
        return str(self.result)

    def __repr__(self) -> str:
        return f"AttributedText({str(self)!r}, {self.method})"

    def _repr_png_(self) -> bytes | None:
        return self.result._repr_png_()

    def _repr_html_(self) -> str:
        return self.result._repr_html_()


def attributed(
    generator: Generator[PairTokenizer],
    source: SourceIds,
    result: Translation,
    method: str,
    head: AlignmentHead,
) -> AttributedText:
    """Return what a text owes to its source by one of ATTRIBUTIONS. Seq2attnError for an unknown one, for a
    model that it does not fit, and for a blank text.

    head: the cross-attention, for the methods of attention.
    """
    if method not in ATTRIBUTIONS:
        raise Seq2attnError(unknown(method, list(ATTRIBUTIONS), "attribution ", more=from_plugins()))
    if not result.source.ids or not result.target.ids:
        raise Seq2attnError("nothing to attribute: expected a source and a target that are not blank")
    pairs = pairs_of(generator, [PairIds(source, result.target.ids)], [result.source], head)
    found = ATTRIBUTIONS[method](pairs)
    of_probability = ATTRIBUTIONS[method].of_probability
    error = None
    if method == "integrated":
        error = float(completeness(pairs, found).abs().max())
    shift = 0 if of_probability else head.shift_of(generator.model.decoder)
    pieces = shifted(found[0].float().cpu(), shift)  # (Tp, Sp + 1)
    words = by_words(pieces, result.target.word_of, result.source.word_of, source_eos=True)
    total = words.weights.abs().sum(1) + words.end_of_sentence.abs()  # (Tw,)
    total = total.masked_fill(total == 0, 1.0)
    of_pieces = pieces.abs().sum(1, keepdim=True)
    shares = replace(
        result,
        alignment=words.weights.abs() / total[:, None],
        end_of_sentence=words.end_of_sentence.abs() / total,
        weights=pieces.abs() / of_pieces.masked_fill(of_pieces == 0, 1.0),
        copied=None,
        attention=_caption(method, of_probability, error),
        others=(),
    )
    return AttributedText(method, shares, words.weights, words.end_of_sentence, pieces, error)


def pairs_of(
    generator: Generator[PairTokenizer], pairs: list[PairIds], sources: list[Tokens], head: AlignmentHead
) -> Pairs:
    """Return pairs as a batch for ATTRIBUTIONS. sources: their sources again, with words.

    The pieces of a source of one word, such as the letters of a spelling, count as words. A model without
    attention has no head to choose.
    """
    model = generator.model.eval()
    require_float32(model)
    chosen = generator.alignment_head(head) if model.decoder.attention_layers else (0, None)
    batch = collate(generator.tokenizer, pairs).to(generator.device)
    words = [[*range(len(one.ids))] if len(one.words) == 1 else one.word_of for one in sources]
    return Pairs(model, batch, word_numbers(words).to(generator.device), *chosen)


def _caption(method: str, of_probability: bool, error: float | None) -> str:
    """Return what a heat map shows, in words."""
    what = ", shares of log p" if of_probability else ""
    return f"{method}{what}" + ("" if error is None else f", completeness error {error:.1g}")
