"""The weights of all layers and heads of a model for one text, and pictures of those that are chosen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.alignment.word_alignment import by_words, shifted
from seq2attn.data.batches import PairIds
from seq2attn.data.sources import PairTokenizer, SourceIds
from seq2attn.errors import Seq2attnError
from seq2attn.inference.activations import Activations, activations
from seq2attn.inference.forced import head_name, numbered
from seq2attn.inference.generator import DEFAULT_HEAD, AlignmentHead, Generator
from seq2attn.inference.predictor import PlotOptions
from seq2attn.inference.results import Translation
from seq2attn.models.encoders import EncoderLayer
from seq2attn.models.tagger_layers import SelfAttention
from seq2attn.text.vocabulary import Tokens

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seq2attn.views.heatmaps import Texts

SELF_TITLES = "words attended to", "source"


class AttentionMaps(NamedTuple):
    """The weights of every layer for one text, between its words or pieces."""

    layers: list[Tensor]  # (H, T, S) of each layer
    columns: list[str]  # S
    rows: list[str]  # T
    texts: "Texts"  # titles of the axes

    def draw(self, options: PlotOptions) -> "Figure":
        """Return the heat map of the layer and head that are chosen, or a grid of several.

        Without a choice they are the last layer, and the mean of its heads.
        """
        from seq2attn.views.grids import Panel, grid
        from seq2attn.views.heatmaps import Look, heatmap

        look = Look(options.text_scale, options.right_to_left)
        layers = chosen(options.layer, len(self.layers), "layer", "the model") or [len(self.layers) - 1]
        panels = []
        for layer in layers:
            weights = self.layers[layer]
            heads: list[int | None] = [*chosen(options.head, len(weights), "head", f"layer {layer}")]
            panels.append(
                [
                    Panel(
                        f"layer {layer}, mean of heads" if head is None else f"layer {layer}, head {head}",
                        weights.mean(0) if head is None else weights[head],
                    )
                    for head in heads or [None]
                ]
            )
        if len(panels) == len(panels[0]) == 1:
            name = head_name(layer, len(self.layers), (heads or [None])[0], len(weights))
            texts = self.texts._replace(caption=name)
            return heatmap(panels[0][0].weights, self.columns, self.rows, texts=texts, look=look)
        return grid(panels, self.columns, self.rows, self.texts, look)


def chosen(choice: int | str | None, count: int, what: str, owner: str) -> list[int]:
    """Return the indices of the layers or heads that are chosen: one, counted from the end if negative, or
    all; [] if none is. Seq2attnError for one that does not exist."""
    if choice is None or choice == "all":
        return list(range(count)) if choice else []
    if not isinstance(choice, int) or not -count <= choice < count:
        raise Seq2attnError(f"{owner} has {numbered(count, what)}; got {what} {choice}")
    return [choice % count]


def self_attentions(model: nn.Module) -> list[nn.Module]:
    """Return the self-attentions of a model that read the source, in their order. Seq2attnError if it has
    none."""
    found: list[nn.Module] = []
    for part in model.modules():
        if isinstance(part, EncoderLayer):
            found.append(part.self_attention)
        elif isinstance(part, SelfAttention):
            found.append(part.attention)
    if not found:
        raise Seq2attnError(
            "this model has no self-attention on its source, as its encoder is no Transformer: leave out self"
        )
    return found


def cross_attention_maps(
    generator: Generator[PairTokenizer],
    source: SourceIds,
    result: Translation,
    pieces: bool,
    head: AlignmentHead,
) -> AttentionMaps:
    """Return the weights of all layers and heads of the decoder, for a text and its translation.

    Words are those of the source and </s>; pieces: between pieces; head: how rows are shifted. Seq2attnError
    without attention.
    """
    from seq2attn.views.heatmaps import Texts

    generator.alignment_head(DEFAULT_HEAD)  # raises for a model without attention
    weights = _activations(generator, source, result).cross_attention
    decoder = generator.model.decoder
    shifts = [head._replace(layer=layer).shift_of(decoder) for layer in range(decoder.attention_layers)]
    layers = [
        torch.stack([shifted(of_head, shift) for of_head in layer])
        for layer, shift in zip(cast(Tensor, weights)[0], shifts, strict=True)
    ]
    columns, rows = _with_end(result.source), result.target
    return _maps(layers, rows, columns, Texts("source", "target"), pieces)


def self_attention_maps(
    generator: Generator[PairTokenizer], source: SourceIds, result: Translation, pieces: bool
) -> AttentionMaps:
    """Return the weights of all layers and heads of the encoder. Arguments: see `cross_attention_maps`."""
    from seq2attn.views.heatmaps import Texts

    self_attentions(generator.model)  # raises for a model without
    weights = _activations(generator, source, result).encoder_attention
    tokens = _with_end(result.source)
    return _maps([layer[0] for layer in weights], tokens, tokens, Texts(*SELF_TITLES), pieces)


def drawn_maps(
    generator: Generator[PairTokenizer],
    source: SourceIds,
    result: Translation,
    options: PlotOptions,
    head: AlignmentHead,
) -> "Figure | None":
    """Return the heat maps of a text and its translation that the options choose; None if there is one head
    only, whose picture is that of the translation itself. head: whose layer is drawn if they choose none, and
    how rows are shifted."""
    if options.self_attention:
        return self_attention_maps(generator, source, result, options.pieces).draw(options)
    maps = cross_attention_maps(generator, source, result, options.pieces, head)
    if [len(heads) for heads in maps.layers] == [1]:
        return None
    layer, _ = generator.alignment_head(head)
    return maps.draw(options if options.layer is not None else options._replace(layer=layer))


def _activations(generator: Generator[PairTokenizer], source: SourceIds, result: Translation) -> Activations:
    names = [*result.source.pieces, "</s>"], [*result.target.pieces, "</s>"]
    return activations(generator, PairIds(source, result.target.ids), names)


def _with_end(source: Tokens) -> Tokens:
    """Return a source with its </s> as a piece and a word of its own."""
    end = ["</s>"]
    word_of = [*source.word_of, len(source.words)]
    return Tokens(source.ids, [*source.pieces, *end], [*source.words, *end], word_of)


def _maps(layers: list[Tensor], rows: Tokens, columns: Tokens, texts: "Texts", pieces: bool) -> AttentionMaps:
    """Return the maps of weights (H, T, S) between pieces, or between their words."""
    if pieces:
        return AttentionMaps(layers, columns.pieces, rows.pieces, texts)
    of_words = [between_words(layer, rows.word_of, columns.word_of) for layer in layers]
    return AttentionMaps(of_words, columns.words, rows.words, texts)


def between_words(
    weights: Float[Tensor, "H T S"], rows: Sequence[int], columns: Sequence[int]
) -> Float[Tensor, "H Tw Sw"]:
    """Return the weights of each head between words. rows, columns: the index of the word of each piece."""
    return torch.stack([by_words(head, rows, columns, source_eos=False).weights for head in weights])
