"""Functions that build the network of a sequence-to-sequence recipe."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from seq2attn.attention import Attention, Relative
from seq2attn.attention.heads import MultiHead, TalkingNormalizer, TalkingScorer, Window, head_size
from seq2attn.attention.hierarchy import SentenceAttention
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.positions import POSITIONS, Distance, Position
from seq2attn.attention.scorers import SCORERS, MultiScorer
from seq2attn.layers.basic import Dropout, Embedding, Embeds, FeedForward, depth_rates, tie
from seq2attn.models.decoders import (
    BahdanauDecoder,
    Cell,
    Decoder,
    DecoderLayer,
    LatentAlignment,
    LuongDecoder,
    OutputLayers,
    PointerGenerator,
    Readout,
    ShiftHead,
    SummaryDecoder,
    TransformerDecoder,
)
from seq2attn.models.encoders import Encoder, EncoderLayer, RecurrentEncoder, TransformerEncoder
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.models.trial import try_decoder, try_encoder
from seq2attn.recipe import (
    AttentionRecipe,
    ModelRecipe,
    RecurrentDecoderRecipe,
    RecurrentEncoderRecipe,
    TransformerDecoderRecipe,
    TransformerEncoderRecipe,
)
from seq2attn.recipe.attention import ShiftHeadRecipe
from seq2attn.recipe.kinds import CustomDecoderRecipe, CustomRecipe
from seq2attn.recipe.tagger_model import RecurrentWordEncoderRecipe
from seq2attn.runtime.devices import TOO_LARGE, explain_out_of_memory


def build(recipe: ModelRecipe, source_size: int, target_size: int) -> Seq2Seq:
    """Return the model that a recipe describes, for vocabularies of these sizes, freshly initialised.

    Seed torch before: initial weights are random.
    """
    with explain_out_of_memory(TOO_LARGE), torch.device("cpu"):  # whatever torch's default device is
        embedding = _embedding(recipe.encoder, source_size)
        encoder = build_encoder(recipe.encoder, embedding)
        decoder = _decoder(recipe.decoder, target_size, encoder.size)
    if isinstance(encoder, TransformerEncoder):
        initialise(encoder)
    _finish(decoder, recipe.tied)
    if recipe.tied == "all":
        tie(decoder.output, embedding)
    return Seq2Seq(encoder, decoder)


def build_decoder(
    recipe: RecurrentDecoderRecipe | TransformerDecoderRecipe | CustomDecoderRecipe,
    vocabulary: int,
    source: int,
    tied: str = "none",
) -> Decoder:
    """Return the decoder of a recipe, freshly initialised.

    source: the width of the encoder's states; tied: none, or else the output layer and the embeddings share
    their weights.
    """
    decoder = _decoder(recipe, vocabulary, source)
    _finish(decoder, tied)
    return decoder


def _finish(decoder: Decoder, tied: str) -> None:
    """Initialise a Transformer, then tie the weights."""
    if isinstance(decoder, TransformerDecoder):
        initialise(decoder)
    if tied != "none":
        tie(decoder.output, decoder.embedding)


def attention(
    recipe: AttentionRecipe, query_size: int, key_size: int, heads: int = 1, relative: Relative | None = None
) -> Attention:
    """Return an attention for queries and keys of these sizes; in MultiHead, of one head among `heads`."""
    n_scores = NORMALIZERS[recipe.normalize.name].n_scores
    scores = [recipe.score.make(SCORERS, query_size, key_size) for _ in range(n_scores)]
    score = scores[0] if n_scores == 1 else MultiScorer(scores)
    normalize = recipe.normalize.make(NORMALIZERS, query_size, heads)
    if recipe.talking:
        score, normalize = TalkingScorer(score, heads), TalkingNormalizer(normalize, heads)
    hierarchy = None
    if recipe.sentences is not None:
        hierarchy = SentenceAttention(recipe.sentences.score.make(SCORERS, query_size, key_size))
    return Attention(score, normalize, recipe.dropout, relative, hierarchy)


def multi_head(
    recipe: AttentionRecipe,
    query_size: int,
    key_size: int,
    rotary: Position | None = None,
    relative: Relative | None = None,
) -> MultiHead:
    """Return the multi-head attention of a recipe."""
    head = head_size(query_size, recipe.heads)
    inner = attention(recipe, head, head, recipe.heads, relative)
    return MultiHead(
        recipe.heads, query_size, key_size, inner, rotary, recipe.key_heads, recipe.query_key_norm
    )


def attention_of(recipe: AttentionRecipe, query_size: int, key_size: int) -> Attention | MultiHead:
    """Return the attention of a recipe where a single head has no projections."""
    if recipe.heads > 1:
        return multi_head(recipe, query_size, key_size)
    return attention(recipe, query_size, key_size)


def _embedding(recipe: Any, vocabulary: int) -> Embedding:
    if not isinstance(recipe, TransformerEncoderRecipe | TransformerDecoderRecipe):
        dropout = Dropout(recipe.embedding_dropout, variational=recipe.variational, word=recipe.word_dropout)
        return Embedding(vocabulary, recipe.embedding, dropout)
    dropout = Dropout(recipe.dropout, word=recipe.word_dropout)
    added = POSITIONS[recipe.positions.name].where == "embedding"
    positions = recipe.positions.make(POSITIONS, recipe.size) if added else None
    return Embedding(vocabulary, recipe.size, dropout, positions, scaled=True)


def _self_attentions(
    recipe: TransformerEncoderRecipe | TransformerDecoderRecipe, causal: bool
) -> Iterator[tuple[MultiHead, Window | None]]:
    """Yield the self-attention and the window of each layer."""
    kind, relative = POSITIONS[recipe.positions.name], None
    for section in recipe.self_attentions:
        head, rotary = head_size(recipe.size, section.heads), None
        if issubclass(kind, Distance):
            if relative is None or not kind.shared:
                relative = recipe.positions.make(POSITIONS, section.heads, head, causal)
        elif kind.where == "rotation":
            rotary = recipe.positions.make(POSITIONS, head)
        self_attention = multi_head(section, recipe.size, recipe.size, rotary, relative)
        yield self_attention, None if section.window is None else Window(section.window, section.sinks)


def _feed_forward(recipe: TransformerEncoderRecipe | TransformerDecoderRecipe) -> FeedForward:
    return FeedForward(recipe.size, recipe.feed_forward, recipe.activation, recipe.feed_forward_dropout)


def build_encoder(
    recipe: RecurrentEncoderRecipe | RecurrentWordEncoderRecipe | TransformerEncoderRecipe | CustomRecipe,
    embedding: Embeds,
) -> Encoder:
    """Return the encoder of a recipe with this embedding. The weights of a Transformer still need
    `initialise`."""
    if isinstance(recipe, CustomRecipe):
        return try_encoder(recipe.make(embedding), embedding)
    if isinstance(recipe, TransformerEncoderRecipe):
        return TransformerEncoder(embedding, encoder_layers(recipe), recipe.norm)
    dropout = Dropout(recipe.dropout, variational=recipe.variational)
    return RecurrentEncoder(embedding, recipe.cell, recipe.size, recipe.layers, recipe.bidirectional, dropout)


def encoder_layers(recipe: TransformerEncoderRecipe, drop_path: float = 0.0) -> list[EncoderLayer]:
    """Return the layers of a Transformer encoder, whose weights still need `initialise`.

    drop_path: the rate of `DropPath` in the last layer.
    """
    return [
        EncoderLayer(self_attention, _feed_forward(recipe), recipe.norm, recipe.dropout, window, rate)
        for (self_attention, window), rate in zip(
            _self_attentions(recipe, causal=False), depth_rates(drop_path, recipe.layers), strict=True
        )
    ]


def _decoder(
    recipe: RecurrentDecoderRecipe | TransformerDecoderRecipe | CustomDecoderRecipe,
    vocabulary: int,
    source: int,
) -> Decoder:
    """Return the decoder of a recipe; source: the width of the encoder's states."""
    embedding, output = _embedding(recipe, vocabulary), nn.Linear(recipe.output_size, vocabulary)
    if isinstance(recipe, CustomDecoderRecipe):
        attentions = [attention_of(section, recipe.size, source) for section in recipe.cross_attentions]
        custom = recipe.make(embedding, output, source, *recipe.given_attentions(attentions))
        return try_decoder(custom, embedding, output, source, len(attentions))
    decoder: Decoder
    if isinstance(recipe, TransformerDecoderRecipe):
        decoder = _transformer_decoder(recipe, embedding, output, source)
    elif recipe.attention is None:
        return _summary_decoder(recipe, embedding, output, source)
    else:
        decoder = _attentional_decoder(recipe, recipe.attention, embedding, output, source)
    if recipe.shift_head is not None:
        decoder.add_shift_head(_shift_head(recipe.shift_head, recipe, source))
    return decoder


def _transformer_decoder(
    recipe: TransformerDecoderRecipe, embedding: Embedding, output: nn.Linear, source: int
) -> TransformerDecoder:
    layers = [
        DecoderLayer(
            self_attention,
            multi_head(section, recipe.size, source),
            _feed_forward(recipe),
            recipe.norm,
            recipe.dropout,
            window,
        )
        for (self_attention, window), section in zip(
            _self_attentions(recipe, causal=True), recipe.cross_attentions, strict=True
        )
    ]
    pointer_generator = None
    if recipe.copying is not None:
        layer = recipe.copying.layer % recipe.layers
        pointer_generator = PointerGenerator(3 * recipe.size, layer, recipe.copying.head)
    return TransformerDecoder(embedding, layers, recipe.norm, output, pointer_generator)


def _shift_head(
    section: ShiftHeadRecipe, recipe: RecurrentDecoderRecipe | TransformerDecoderRecipe, source: int
) -> ShiftHead:
    """Return a shift head with as many heads as the decoder's attention has."""
    layers = recipe.cross_attentions
    heads, width = layers[0].heads, head_size(recipe.size, layers[0].heads)
    layer = (len(layers) - 1) // 2 if section.layer is None else section.layer % len(layers)
    one = attention(AttentionRecipe(score=section.score), width, width)
    return ShiftHead(heads, recipe.size, source, one, layer)


def _summary_decoder(
    recipe: RecurrentDecoderRecipe, embedding: Embedding, output: nn.Linear, source: int
) -> SummaryDecoder:
    summary_in_steps = recipe.order == "cho"
    context = source if summary_in_steps else 0
    cell = _cell(recipe, context, source)
    layers = _output_layers(recipe, context, output)
    return SummaryDecoder(embedding, cell, layers, summary_in_steps)


def _attentional_decoder(
    recipe: RecurrentDecoderRecipe,
    section: AttentionRecipe,
    embedding: Embedding,
    output: nn.Linear,
    source: int,
) -> BahdanauDecoder | LuongDecoder:
    cross_attention = attention_of(section, recipe.size, source)
    context = cross_attention.context_size(source)
    fed = context if recipe.order == "bahdanau" else recipe.output_size if recipe.input_feeding else 0
    cell, layers = _cell(recipe, fed, source), _output_layers(recipe, context, output)
    latent = None if recipe.latent == "none" else LatentAlignment(recipe.latent, recipe.top)
    pointer_generator = None
    if recipe.copying is not None:
        size = context + recipe.size + recipe.embedding
        pointer_generator = PointerGenerator(size, head=recipe.copying.head)
    if recipe.order == "bahdanau":
        return BahdanauDecoder(embedding, cell, cross_attention, layers, latent, pointer_generator)
    return LuongDecoder(
        embedding, cell, cross_attention, layers, recipe.input_feeding, latent, pointer_generator
    )


def _cell(recipe: RecurrentDecoderRecipe, fed: int, source: int) -> Cell:
    """Return the cell; fed: the width of its input in addition to the embedding."""
    return Cell(recipe.cell, recipe.embedding + fed, recipe.size, source, recipe.layers, recipe.dropout)


def _output_layers(recipe: RecurrentDecoderRecipe, context: int, output: nn.Linear) -> OutputLayers:
    readout = Readout(recipe.readout, recipe.size, context, recipe.embedding, recipe.output_size)
    return OutputLayers(readout, output, Dropout(recipe.dropout, variational=recipe.variational))


def initialise(module: nn.Module) -> None:
    """Initialise linear layers: Xavier for matrices, zero for biases (as in Vaswani et al. 2017)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
