"""Sections of a recipe: models that label words, spans or sentences."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field, SerializeAsAny

from seq2attn.attention.scorers import SCORERS
from seq2attn.errors import Seq2attnError
from seq2attn.layers.recurrent import CELLS
from seq2attn.recipe.attention import AttentionRecipe, PerLayer
from seq2attn.recipe.kinds import ENCODERS, ByKind, CustomWordEncoderRecipe
from seq2attn.recipe.sections import Choice, Count, Fault, Name, Part, Rate, Section, Size
from seq2attn.recipe.seq2seq_model import TOO_LARGE, TransformerEncoderRecipe

Join = Literal["concat", "gate"]

# ---- words -----------------------------------------------------------------------------------------------


class CharLSTMRecipe(Section):
    """A character encoder: the last states of a bidirectional LSTM (Lample et al. 2016)."""

    kind: Literal["lstm"] = Field(description="Type of character encoder.")
    embedding: Size = Field(25, description="Size of the character embeddings.")
    size: Size = Field(25, description="Size of the hidden states of each direction.")
    dropout: Rate = Field(0.0, description="Dropout rate of the character embeddings.")


class CharCNNRecipe(Section):
    """A character encoder: a convolution and max-pooling over the characters (Ma & Hovy 2016)."""

    kind: Literal["cnn"] = Field(description="Type of character encoder.")
    embedding: Size = Field(30, description="Size of the character embeddings.")
    size: Size = Field(30, description="Number of filters.")
    window: Size = Field(3, description="Width of the filters, in characters.")
    dropout: Rate = Field(0.0, description="Dropout rate of the character embeddings.")


AnyCharacterEncoder = Annotated[
    CharLSTMRecipe | CharCNNRecipe,
    ByKind({"lstm": CharLSTMRecipe, "cnn": CharCNNRecipe}),
]


class WordEmbeddingRecipe(Section):
    """Word vectors: a word embedding, and the output of a character encoder."""

    size: Size = Field(100, description="Size of the word embeddings.")
    frozen: bool = Field(False, description="Do not train the word embeddings.")
    characters: AnyCharacterEncoder | None = Field(
        CharLSTMRecipe(kind="lstm"), description="Character encoder; null = none."
    )
    join: Join = Field(
        "concat",
        description="How the two are combined: concatenated, or mixed by a learned gate (Rei et al. 2016).",
    )
    dropout: Rate = Field(0.5, description="Dropout rate of the word vectors.")
    variational: bool = Field(
        False, description="Variational dropout: one mask for all words (Gal & Ghahramani 2016)."
    )
    word_dropout: Rate = Field(
        0.0, description="Rate at which a word is replaced by the unknown word; its characters stay."
    )

    def faults(self) -> Iterator[Fault]:
        """Find a gate without a character encoder."""
        if self.join == "gate" and self.characters is None:
            yield Fault("join", "a gate mixes words and characters: set characters, or use concat")


# ---- encoders --------------------------------------------------------------------------------------------


class RecurrentWordEncoderRecipe(Section):
    """A recurrent encoder (LSTM or GRU) of word vectors."""

    kind: Literal["recurrent"] = Field(description="Type of encoder.")
    cell: Annotated[str, Name(lambda: CELLS)] = Field("lstm", description="Type of the recurrent cells.")
    size: Size = Field(200, description="Size of the hidden states of each direction.")
    layers: Size = Field(1, description="Number of stacked layers.")
    bidirectional: bool = Field(
        True, description="Also read from right to left; the states of both directions are concatenated."
    )
    dropout: Rate = Field(0.5, description="Dropout rate between layers and of the output.")
    variational: bool = Field(
        False, description="Variational dropout: one mask for all time steps (Gal & Ghahramani 2016)."
    )

    @property
    def output_size(self) -> int:
        """Return the size of its states."""
        return self.size * (2 if self.bidirectional else 1)


class TransformerWordEncoderRecipe(TransformerEncoderRecipe):
    """A Transformer encoder of word vectors, which are projected to its size."""

    size: Size = Field(128, description="Size of the hidden states.")
    layers: Size = Field(2, description="Number of stacked layers.")
    feed_forward: Size = Field(256, description="Inner size of the feed-forward layers.")
    self_attention: PerLayer = Field(
        AttentionRecipe(heads=4),
        description="Self-attention: one section for all layers, or a list with one for each layer.",
    )

    def faults(self) -> Iterator[Fault]:
        """Find word dropout, which belongs to the embedding."""
        yield from super().faults()
        if self.word_dropout:
            yield Fault("word_dropout", "belongs to the embedding here: set model.embedding.word_dropout")


AnyWordEncoder = Annotated[
    RecurrentWordEncoderRecipe | TransformerWordEncoderRecipe | SerializeAsAny[CustomWordEncoderRecipe],
    ByKind(
        {"recurrent": RecurrentWordEncoderRecipe, "transformer": TransformerWordEncoderRecipe},
        ENCODERS,
        CustomWordEncoderRecipe,
    ),
]

# ---- attention -------------------------------------------------------------------------------------------


class SelfAttentionRecipe(AttentionRecipe):
    """Self-attention of each word over its sentence. A single head has no projections."""

    join: Join = Field(
        "concat", description="How state and context are combined: concatenated, or mixed by a learned gate."
    )
    exclude_self: bool = Field(False, description="Mask the word itself.")


class LabelAttentionRecipe(AttentionRecipe):
    """Attention of each word to learned label embeddings (Cui & Zhang 2019)."""

    size: Size | None = Field(None, description="Size of the label embeddings; null = that of the states.")


class AttentivePoolingRecipe(AttentionRecipe):
    """Attentive pooling of a sentence into one vector, by learned queries."""

    kind: Literal["attention"] = Field(description="Type of pooling.")
    score: Annotated[Part, Choice(SCORERS)] = Field(
        "perceptron", validate_default=True, description="Scoring function of queries and keys."
    )
    queries: Size = Field(1, description="Number of learned queries, whose context vectors are concatenated.")
    size: Size | None = Field(None, description="Size of a query; null = that of the states.")
    penalty: float = Field(
        0.0,
        ge=0,
        description="Factor of the penalty |A A' - I|^2 on the weights A, which makes queries differ (Lin et "
        "al. 2017).",
    )

    def faults(self) -> Iterator[Fault]:
        """Find a penalty on the weights of a single query."""
        yield from super().faults()
        if self.penalty and self.queries == 1:
            yield Fault("penalty", "compares queries, and there is only one: set queries, or penalty to 0")


class PlainPoolingRecipe(Section):
    """Pooling of a sentence into one vector without attention, as a baseline."""

    kind: Literal["mean", "max"] = Field(description="Mean pooling or max pooling.")


AnyPooling = Annotated[
    AttentivePoolingRecipe | PlainPoolingRecipe,
    ByKind({"attention": AttentivePoolingRecipe, "mean": PlainPoolingRecipe, "max": PlainPoolingRecipe}),
]

# ---- heads -----------------------------------------------------------------------------------------------


class TagHeadRecipe(Section):
    """A tagging head: a label for each word."""

    kind: Literal["linear", "crf"] = Field(
        description="linear: labels are predicted independently; crf: a linear-chain CRF over the labels of "
        "a sentence (Lample et al. 2016)."
    )


class SpanHeadRecipe(Section):
    """A span head: a type, or none, for each span, from the states at its ends and attention over its words
    (Lee et al. 2017)."""

    kind: Literal["spans"] = Field(description="Type of head.")
    width: Size = Field(8, description="Largest width of a span, in words; wider spans are never predicted.")
    attention: AttentionRecipe = Field(
        AttentionRecipe.model_validate({"score": "perceptron"}),
        description="Attention over the words of a span.",
    )
    hidden: Size = Field(150, description="Size of the hidden layer of the span classifier.")
    width_size: Count = Field(20, description="Size of the embedding of a span's width; 0 = none.")


AnyHead = Annotated[
    TagHeadRecipe | SpanHeadRecipe,
    ByKind({"linear": TagHeadRecipe, "crf": TagHeadRecipe, "spans": SpanHeadRecipe}),
]

# ---- models ----------------------------------------------------------------------------------------------


class _WordModel(Section):
    embedding: WordEmbeddingRecipe = Field(WordEmbeddingRecipe(), description="Word vectors.")
    encoder: AnyWordEncoder = Field(
        RecurrentWordEncoderRecipe(kind="recurrent"), description="Encoder of the sentence."
    )


class TaggerRecipe(_WordModel):
    """A model that labels words or spans of words."""

    attention: SelfAttentionRecipe | None = Field(
        None, description="Self-attention of each word over its sentence; null = none."
    )
    label_attention: LabelAttentionRecipe | None = Field(
        None, description="Attention of each word to label embeddings; null = none."
    )
    pooling: AnyPooling | None = Field(
        None,
        description="Pooling of the sentence into one vector, which is concatenated to the state of each "
        "word; null = none.",
    )
    head: AnyHead = Field(TagHeadRecipe(kind="crf"), description="Output layer.")

    def faults(self) -> Iterator[Fault]:
        """Find attentions that do not fit the states or the head."""
        size = self.encoder.output_size
        if self.attention is not None:
            yield from _attention_faults("attention", self.attention, "self-attention", size, size)
        if (labels := self.label_attention) is not None:
            yield from _attention_faults("label_attention", labels, "pooling", size, labels.size or size)
        yield from pooling_faults(self.pooling, self.encoder.output_size)
        if isinstance(self.head, SpanHeadRecipe):
            if self.head.attention.heads > 1:
                yield Fault("head.attention.heads", "attention over a span has a single head: set heads to 1")
            yield from _attention_faults("head.attention", self.head.attention, "pooling", size, size)
            for key in ("attention", "label_attention", "pooling"):
                if getattr(self, key) is not None:
                    yield Fault(
                        key,
                        "is for labels of words, and the head spans has its own attention: set "
                        "head.attention",
                    )


class ClassifierRecipe(_WordModel):
    """A model that labels sentences."""

    pooling: AnyPooling = Field(
        AttentivePoolingRecipe(kind="attention"), description="Pooling of the sentence into one vector."
    )

    def faults(self) -> Iterator[Fault]:
        """Find an attention that does not fit the states."""
        yield from pooling_faults(self.pooling, self.encoder.output_size)


def pooling_faults(pooling: AnyPooling | None, width: int | None) -> Iterator[Fault]:
    """Find faults of the attention of a pooling, if it has one, for states of this width (None: unknown)."""
    if isinstance(pooling, AttentivePoolingRecipe):
        yield from _attention_faults("pooling", pooling, "pooling", pooling.size or width, width)


def _attention_faults(
    path: str, section: AttentionRecipe, role: str, query_size: int | None, key_size: int | None
) -> Iterator[Fault]:
    """Find faults of an attention in its role, for queries and keys of these sizes; None: not known."""
    yield from section.incompatibilities(path, role)
    if section.heads > 1 and query_size is not None:
        yield from section.head_size_faults(path, query_size)
        query_size = key_size = max(1, query_size // section.heads)
    if section.heads == 1 and section.query_key_norm:
        yield Fault(
            f"{path}.query_key_norm",
            "a single head has no projections to normalize: set heads, or use cosine",
        )
    if query_size is None or key_size is None:
        return
    try:  # only its constructor knows which sizes and options can be combined
        with torch.device("meta"), contextlib.suppress(*TOO_LARGE):
            section.score.make(SCORERS, query_size, key_size)
    except Seq2attnError as error:
        yield Fault(f"{path}.score", f"{error} (queries have {query_size}, keys {key_size})")
