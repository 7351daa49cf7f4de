"""Functions that build the network of a tagger or classifier recipe."""

from collections.abc import Sequence

import torch
from torch import Tensor

from seq2attn.attention.heads import Window
from seq2attn.attention.pooling import Pooling, SpanPooling
from seq2attn.attention.positions import POSITIONS
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Dropout
from seq2attn.layers.word_embedding import CharacterEncoder, CharCNN, CharLSTM, WordEmbedding, word_table
from seq2attn.models.encoders import Encoder, TransformerEncoder
from seq2attn.models.seq2seq_factory import attention, attention_of, build_encoder, initialise
from seq2attn.models.tagger_layers import AttentivePooling, LabelAttention, PlainPooling, SelfAttention
from seq2attn.models.taggers import Classifier, SpanTagger, Tagger
from seq2attn.recipe import ClassifierRecipe, TaggerRecipe
from seq2attn.recipe.tagger_model import (
    AnyWordEncoder,
    AttentivePoolingRecipe,
    CharLSTMRecipe,
    LabelAttentionRecipe,
    PlainPoolingRecipe,
    SelfAttentionRecipe,
    SpanHeadRecipe,
    TransformerWordEncoderRecipe,
    WordEmbeddingRecipe,
)
from seq2attn.runtime.devices import TOO_LARGE, explain_out_of_memory
from seq2attn.text.tag_schemes import Scheme


def build_tagger(
    recipe: TaggerRecipe | ClassifierRecipe,
    words: int,
    characters: int,
    labels: Sequence[str],
    scheme: Scheme | None,
    vectors: Tensor | None = None,
) -> Tagger | SpanTagger | Classifier:
    """Return the model that a recipe describes, freshly initialised. Seed torch before: initial weights are
    random.

    words, characters: the sizes of their vocabularies, including padding and unknown; labels: their names;
    scheme: the tag scheme, None for labels of sentences; vectors (words, size): the initial embeddings of
    words, nan for words without one.
    """
    with explain_out_of_memory(TOO_LARGE), torch.device("cpu"):  # whatever torch's default device is
        embedding = _embedding(recipe.embedding, recipe.encoder, words, characters, vectors)
        encoder = build_encoder(recipe.encoder, embedding)
        if isinstance(encoder, TransformerEncoder):
            initialise(encoder)
        if isinstance(recipe, ClassifierRecipe):
            return Classifier(encoder, labels, build_pooling(recipe.pooling, encoder.size))
        if scheme is None:
            raise Seq2attnError("words are labelled with tags of a scheme: expected its name, got None")
        return _tagger(recipe, encoder, labels, scheme)


def _embedding(
    recipe: WordEmbeddingRecipe,
    encoder: AnyWordEncoder,
    words: int,
    characters: int,
    vectors: Tensor | None,
) -> WordEmbedding:
    character_encoder: CharacterEncoder | None = None
    if isinstance(section := recipe.characters, CharLSTMRecipe):
        character_encoder = CharLSTM(characters, section.embedding, section.size, section.dropout)
    elif section is not None:
        character_encoder = CharCNN(
            characters, section.embedding, section.size, section.window, section.dropout
        )
    size, positions = None, None
    if isinstance(encoder, TransformerWordEncoderRecipe):
        size = encoder.size
        if POSITIONS[encoder.positions.name].where == "embedding":
            positions = encoder.positions.make(POSITIONS, size)
    table = word_table(words, recipe.size, vectors, recipe.frozen)
    dropout = Dropout(recipe.dropout, variational=recipe.variational)
    return WordEmbedding(table, dropout, character_encoder, recipe.join, recipe.word_dropout, size, positions)


def _tagger(
    recipe: TaggerRecipe,
    encoder: Encoder,
    labels: Sequence[str],
    scheme: Scheme,
) -> Tagger | SpanTagger:
    size, head = encoder.size, recipe.head
    if isinstance(head, SpanHeadRecipe):
        span_attention = attention(head.attention, size, size)
        spans = SpanPooling(span_attention, size, widths=head.width, width_size=head.width_size)
        return SpanTagger(encoder, labels, scheme, spans, head.width, head.hidden)
    return Tagger(
        encoder,
        labels,
        scheme,
        head.kind == "crf",
        None if recipe.attention is None else _self_attention(recipe.attention, size),
        None
        if recipe.label_attention is None
        else _label_attention(recipe.label_attention, size, len(labels)),
        None if recipe.pooling is None else build_pooling(recipe.pooling, size),
    )


def _self_attention(recipe: SelfAttentionRecipe, size: int) -> SelfAttention:
    window = None if recipe.window is None else Window(recipe.window, recipe.sinks)
    inner = attention_of(recipe, size, size)
    return SelfAttention(inner, size, recipe.join, exclude_self=recipe.exclude_self, window=window)


def _label_attention(recipe: LabelAttentionRecipe, size: int, labels: int) -> LabelAttention:
    width = recipe.size or size
    context = size if recipe.heads > 1 else width
    return LabelAttention(attention_of(recipe, size, width), labels, width, context)


def build_pooling(
    recipe: AttentivePoolingRecipe | PlainPoolingRecipe, size: int
) -> AttentivePooling | PlainPooling:
    """Return the pooling of a recipe, for states of this width."""
    if isinstance(recipe, PlainPoolingRecipe):
        return PlainPooling(recipe.kind, size)
    query = recipe.size or size
    pooling = Pooling(attention_of(recipe, query, size), recipe.queries, query)
    return AttentivePooling(pooling, query if recipe.heads > 1 else size)
