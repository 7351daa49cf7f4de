"""From the recipe of a sequence-to-sequence model to its network."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from seq2attn.attention import Attention, Relative
from seq2attn.attention.heads import MultiHead, TalkingNormalizer, TalkingScorer, Window, head_size
from seq2attn.attention.hierarchy import SentenceAttention
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.positions import POSITIONS, Distance, Position
from seq2attn.attention.scorers import SCORERS, MultiScorer
from seq2attn.layers.basic import Dropout, Embedding, Embeds, FeedForward, tie
from seq2attn.models.decoders import (
    Cell,
    DecoderLayer,
    PointerGenerator,
    Readout,
    RecurrentDecoder,
    TransformerDecoder,
)
from seq2attn.models.encoders import EncoderLayer, RecurrentEncoder, TransformerEncoder
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.recipe import (
    AttentionRecipe,
    ModelRecipe,
    RecurrentDecoderRecipe,
    RecurrentEncoderRecipe,
    TransformerDecoderRecipe,
    TransformerEncoderRecipe,
)
from seq2attn.runtime.devices import fitting


def build(recipe: ModelRecipe, source_size: int, target_size: int) -> Seq2Seq:
    """The model that a recipe describes, for vocabularies of these sizes, freshly initialised.

    Seed torch before: initial weights are random.
    """
    with fitting():
        embedding = _embedding(recipe.encoder, source_size)
        encoder = build_encoder(recipe.encoder, embedding)
        decoder = _decoder(recipe.decoder, target_size, encoder.size)
    for module in (encoder, decoder):
        if isinstance(module, (TransformerEncoder, TransformerDecoder)):
            initialise(module)
    if recipe.tied != "none":
        tie(decoder.output, decoder.embedding)
    if recipe.tied == "all":
        tie(decoder.output, embedding)
    return Seq2Seq(encoder, decoder)


def attention(
    recipe: AttentionRecipe, query_size: int, key_size: int, heads: int = 1, relative: Relative | None = None
) -> Attention:
    """One attention for queries and keys of these sizes, for one head or for several side by side."""
    energies = NORMALIZERS[recipe.normalize.name].n_scores
    scores = [recipe.score.make(SCORERS, query_size, key_size) for _ in range(energies)]
    score = scores[0] if energies == 1 else MultiScorer(scores)
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
    """Heads of that attention, each in its own projection."""
    head = head_size(query_size, recipe.heads)
    looks = attention(recipe, head, head, recipe.heads, relative)
    return MultiHead(
        recipe.heads, query_size, key_size, looks, rotary, recipe.key_heads, recipe.query_key_norm
    )


def _embedding(recipe: Any, vocabulary: int) -> Embedding:
    if recipe.kind == "recurrent":
        dropout = Dropout(recipe.embedding_dropout, variational=recipe.variational, word=recipe.word_dropout)
        return Embedding(vocabulary, recipe.embedding, dropout)
    dropout = Dropout(recipe.dropout, word=recipe.word_dropout)
    added = POSITIONS[recipe.positions.name].where == "embedding"
    positions = recipe.positions.make(POSITIONS, recipe.size) if added else None
    return Embedding(vocabulary, recipe.size, dropout, positions, scaled=True)


def _self_attentions(
    recipe: TransformerEncoderRecipe | TransformerDecoderRecipe, causal: bool
) -> Iterator[tuple[MultiHead, Window | None]]:
    """The self-attention of each layer, with its positions, and its window."""
    kind, relative = POSITIONS[recipe.positions.name], None
    for section in recipe.self_attentions:
        head, rotary = head_size(recipe.size, section.heads), None
        if issubclass(kind, Distance):
            if relative is None or not kind.shared:
                relative = recipe.positions.make(POSITIONS, section.heads, head, causal)
        elif kind.where == "rotation":
            rotary = recipe.positions.make(POSITIONS, head)
        looks = multi_head(section, recipe.size, recipe.size, rotary, relative)
        yield looks, None if section.window is None else Window(section.window, section.sinks)


def _feed_forward(recipe: TransformerEncoderRecipe | TransformerDecoderRecipe) -> FeedForward:
    return FeedForward(recipe.size, recipe.feed_forward, recipe.activation, recipe.feed_forward_dropout)


def build_encoder(
    recipe: RecurrentEncoderRecipe | TransformerEncoderRecipe, embedding: Embeds
) -> RecurrentEncoder | TransformerEncoder:
    """The encoder of a recipe upon that embedding; a Transformer is still to be initialised."""
    if isinstance(recipe, RecurrentEncoderRecipe):
        dropout = Dropout(recipe.dropout, variational=recipe.variational)
        return RecurrentEncoder(
            embedding, recipe.cell, recipe.size, recipe.layers, recipe.bidirectional, dropout
        )
    layers = [
        EncoderLayer(own, _feed_forward(recipe), recipe.norm, recipe.dropout, window)
        for own, window in _self_attentions(recipe, causal=False)
    ]
    return TransformerEncoder(embedding, layers, recipe.norm)


def _decoder(
    recipe: RecurrentDecoderRecipe | TransformerDecoderRecipe, vocabulary: int, source: int
) -> RecurrentDecoder | TransformerDecoder:
    embedding, output = _embedding(recipe, vocabulary), nn.Linear(recipe.output_size, vocabulary)
    if isinstance(recipe, RecurrentDecoderRecipe):
        return _recurrent_decoder(recipe, embedding, output, source)
    layers = [
        DecoderLayer(
            own,
            multi_head(section, recipe.size, source),
            _feed_forward(recipe),
            recipe.norm,
            recipe.dropout,
            window,
        )
        for (own, window), section in zip(
            _self_attentions(recipe, causal=True), recipe.cross_attentions, strict=True
        )
    ]
    decoder = TransformerDecoder(embedding, layers, recipe.norm, output)
    if recipe.copying is not None:
        layer = recipe.copying.layer % recipe.layers
        decoder.copying(PointerGenerator(3 * recipe.size, layer, recipe.copying.head))
    return decoder


def _recurrent_decoder(
    recipe: RecurrentDecoderRecipe, embedding: Embedding, output: nn.Linear, source: int
) -> RecurrentDecoder:
    looks: Attention | MultiHead | None = None
    context = 0 if recipe.order == "sutskever" else source
    if recipe.attention is not None and recipe.attention.heads == 1:
        looks = attention(recipe.attention, recipe.size, source)
    elif recipe.attention is not None:
        looks, context = multi_head(recipe.attention, recipe.size, source), recipe.size
    entering = {"bahdanau": context, "cho": context, "sutskever": 0, "luong": 0}[recipe.order]
    if recipe.input_feeding:
        entering = recipe.output_size
    cell = Cell(recipe.cell, recipe.embedding + entering, recipe.size, source, recipe.layers, recipe.dropout)
    sizes = recipe.size, context, recipe.embedding, recipe.output_size
    readout = Readout(recipe.readout, *sizes, recipe.latent, recipe.top)
    dropout = Dropout(recipe.dropout, variational=recipe.variational)
    decoder = RecurrentDecoder(embedding, cell, recipe.order, looks, readout, output, dropout)
    if recipe.copying is not None:
        decoder.copying(PointerGenerator(context + recipe.size + recipe.embedding, head=recipe.copying.head))
    return decoder


def initialise(module: nn.Module) -> None:
    """Xavier for matrices, zero for biases (as in Vaswani et al. 2017); embeddings keep their own."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
