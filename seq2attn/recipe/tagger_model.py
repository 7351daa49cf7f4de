"""What a recipe may say about models that label words, spans or sentences."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field

from seq2attn.attention.scorers import SCORERS
from seq2attn.errors import Seq2attnError
from seq2attn.layers.recurrent import CELLS
from seq2attn.recipe.attention import AttentionRecipe, PerLayer
from seq2attn.recipe.sections import Choice, Count, Fault, Name, Part, Rate, Section, Size, told_by_kind
from seq2attn.recipe.seq2seq_model import TOO_LARGE, TransformerEncoderRecipe

Join = Literal["concat", "gate"]

# ---- words -----------------------------------------------------------------------------------------------


class CharLSTMRecipe(Section):
    """Words by the last states of an LSTM over their characters, in each direction (Lample et al. 2016)."""

    kind: Literal["lstm"] = Field(description="Tells the kinds apart.")
    embedding: Size = Field(25, description="Width of the characters' embeddings.")
    size: Size = Field(25, description="Of each direction.")
    dropout: Rate = Field(0.0, description="Of the characters' embeddings.")


class CharCNNRecipe(Section):
    """Words by the largest values of a convolution over their characters (Ma & Hovy 2016)."""

    kind: Literal["cnn"] = Field(description="Tells the kinds apart.")
    embedding: Size = Field(30, description="Width of the characters' embeddings.")
    size: Size = Field(30, description="How many filters.")
    window: Size = Field(3, description="Characters that a filter sees.")
    dropout: Rate = Field(0.0, description="Of the characters' embeddings.")


AnySpelling = Annotated[
    CharLSTMRecipe | CharCNNRecipe,
    told_by_kind({"lstm": CharLSTMRecipe, "cnn": CharCNNRecipe}),
]


class WordEmbeddingRecipe(Section):
    """Vectors of words: their own, and one that is made of their characters."""

    size: Size = Field(100, description="Width of a word's own vector.")
    frozen: bool = Field(False, description="Words' own vectors stay as they are given.")
    characters: AnySpelling | None = Field(
        CharLSTMRecipe(kind="lstm"), description="What reads the characters; null: nothing does."
    )
    join: Join = Field(
        "concat", description="The two side by side, or a gate between them (Rei et al. 2016)."
    )
    dropout: Rate = Field(0.5, description="Of the vectors.")
    variational: bool = Field(False, description="One dropout mask for all words (Gal & Ghahramani 2016).")
    word_dropout: Rate = Field(0.0, description="Rate at which a word is unknown; its characters stay.")

    def faults(self) -> Iterator[Fault]:
        """A gate is between two."""
        if self.join == "gate" and self.characters is None:
            yield Fault("join", "a gate chooses between words and characters: set characters, or use concat")


# ---- encoders --------------------------------------------------------------------------------------------


class RecurrentReaderRecipe(Section):
    """LSTM or GRU over the vectors of words."""

    kind: Literal["recurrent"] = Field(description="Tells the kinds apart.")
    cell: Annotated[str, Name(lambda: CELLS)] = Field("lstm", description="Type of the recurrent cells.")
    size: Size = Field(200, description="Of each direction.")
    layers: Size = Field(1, description="How many, one upon the other.")
    bidirectional: bool = Field(True, description="Also read from right to left; states are joined.")
    dropout: Rate = Field(0.5, description="Between layers and of the output.")
    variational: bool = Field(False, description="One dropout mask for all steps (Gal & Ghahramani 2016).")

    @property
    def output_size(self) -> int:
        """The width of its states."""
        return self.size * (2 if self.bidirectional else 1)


class TransformerReaderRecipe(TransformerEncoderRecipe):
    """Self-attention over the vectors of words, which are projected to its size."""

    size: Size = Field(128, description="Width of the states.")
    layers: Size = Field(2, description="How many, one upon the other.")
    feed_forward: Size = Field(256, description="Width within the feed-forward step.")
    self_attention: PerLayer = Field(
        AttentionRecipe(heads=4), description="To the sentence; a list has a section for each layer."
    )

    def faults(self) -> Iterator[Fault]:
        """Words are dropped where they become vectors."""
        yield from super().faults()
        if self.word_dropout:
            yield Fault("word_dropout", "belongs to the embedding here: set model.embedding.word_dropout")


AnyReader = Annotated[
    RecurrentReaderRecipe | TransformerReaderRecipe,
    told_by_kind({"recurrent": RecurrentReaderRecipe, "transformer": TransformerReaderRecipe}),
]

# ---- attention -------------------------------------------------------------------------------------------


class SelfAttentionRecipe(AttentionRecipe):
    """What each word finds when it looks at the words of its sentence; one head has no projections."""

    join: Join = Field("concat", description="Word's state and context: side by side, or a gate between.")
    exclude_self: bool = Field(False, description="A word does not look at itself.")


class LabelAttentionRecipe(AttentionRecipe):
    """What each word finds when it looks at learned vectors of the labels (Cui & Zhang 2019)."""

    size: Size | None = Field(None, description="Width of the labels' vectors; that of the states, if null.")


class AttentivePoolingRecipe(AttentionRecipe):
    """A sentence in one vector: what learned queries find in it."""

    kind: Literal["attention"] = Field(description="Tells the kinds apart.")
    score: Annotated[Part, Choice(SCORERS)] = Field(
        "perceptron", validate_default=True, description="How queries and keys are scored."
    )
    queries: Size = Field(1, description="How many; what they find stands side by side.")
    size: Size | None = Field(None, description="Width of a query; that of the states, if null.")
    penalty: float = Field(
        0.0, ge=0, description="Times |A A' - I|^2: queries should differ (Lin et al. 2017)."
    )

    def faults(self) -> Iterator[Fault]:
        """Only several queries can differ."""
        yield from super().faults()
        if self.penalty and self.queries == 1:
            yield Fault("penalty", "one query has none to differ from: set queries, or penalty to 0")


class PlainPoolingRecipe(Section):
    """A sentence in one vector, without attention: what attention is to be compared with."""

    kind: Literal["mean", "max"] = Field(description="The mean, or the largest, of each value.")


AnyPooling = Annotated[
    AttentivePoolingRecipe | PlainPoolingRecipe,
    told_by_kind(
        {"attention": AttentivePoolingRecipe, "mean": PlainPoolingRecipe, "max": PlainPoolingRecipe}
    ),
]

# ---- heads -----------------------------------------------------------------------------------------------


class TagHeadRecipe(Section):
    """A label for each word."""

    kind: Literal["linear", "crf"] = Field(
        description="linear: each by itself; crf: all of a sentence together (Lample et al. 2016)."
    )


class SpanHeadRecipe(Section):
    """A type, or none, for each span, by its ends and what its attention finds within (Lee et al. 2017)."""

    kind: Literal["spans"] = Field(description="Tells the kinds apart.")
    width: Size = Field(8, description="Words of the widest span; wider ones are never found.")
    attention: AttentionRecipe = Field(
        AttentionRecipe.model_validate({"score": "perceptron"}), description="To the words within a span."
    )
    hidden: Size = Field(150, description="Width of the layer between a span and its scores.")
    width_size: Count = Field(20, description="Width of the vector that says how wide a span is; 0: none.")


AnyHead = Annotated[
    TagHeadRecipe | SpanHeadRecipe,
    told_by_kind({"linear": TagHeadRecipe, "crf": TagHeadRecipe, "spans": SpanHeadRecipe}),
]

# ---- models ----------------------------------------------------------------------------------------------


class _Reading(Section):
    embedding: WordEmbeddingRecipe = Field(WordEmbeddingRecipe(), description="Words and characters.")
    encoder: AnyReader = Field(
        RecurrentReaderRecipe(kind="recurrent"), description="What reads the sentence."
    )

    def _of_pooling(self, pooling: AnyPooling | None) -> Iterator[Fault]:
        if isinstance(pooling, AttentivePoolingRecipe):
            size = pooling.size or self.encoder.output_size
            yield from _attention_faults("pooling", pooling, "pooling", size, self.encoder.output_size)


class TaggerRecipe(_Reading):
    """A model that labels words, or spans of them."""

    attention: SelfAttentionRecipe | None = Field(None, description="Of each word, to its sentence.")
    label_attention: LabelAttentionRecipe | None = Field(None, description="Of each word, to the labels.")
    pooling: AnyPooling | None = Field(None, description="The sentence in one vector, told to each word.")
    head: AnyHead = Field(TagHeadRecipe(kind="crf"), description="What is decided, and how.")

    def faults(self) -> Iterator[Fault]:
        """Attentions fit the states; spans have an attention of their own."""
        size = self.encoder.output_size
        if self.attention is not None:
            yield from _attention_faults("attention", self.attention, "self-attention", size, size)
        if (labels := self.label_attention) is not None:
            yield from _attention_faults("label_attention", labels, "pooling", size, labels.size or size)
        yield from self._of_pooling(self.pooling)
        if isinstance(self.head, SpanHeadRecipe):
            if self.head.attention.heads > 1:
                yield Fault("head.attention.heads", "one head finds the head of a span: set heads to 1")
            yield from _attention_faults("head.attention", self.head.attention, "pooling", size, size)
            for key in ("attention", "label_attention", "pooling"):
                if getattr(self, key) is not None:
                    yield Fault(key, "belongs to words, and the head spans has its own: set head.attention")


class ClassifierRecipe(_Reading):
    """A model that labels sentences."""

    pooling: AnyPooling = Field(
        AttentivePoolingRecipe(kind="attention"), description="The sentence in one vector."
    )

    def faults(self) -> Iterator[Fault]:
        """Attention fits the states."""
        yield from self._of_pooling(self.pooling)


def _attention_faults(
    path: str, section: AttentionRecipe, role: str, query_size: int, key_size: int
) -> Iterator[Fault]:
    """Faults of an attention in its role, for queries and keys of these sizes."""
    yield from section.incompatibilities(path, role)
    if section.heads > 1:
        yield from section.divided(path, query_size)
        query_size = key_size = max(1, query_size // section.heads)
    elif section.query_key_norm:
        yield Fault(
            f"{path}.query_key_norm", "one head has no projections to normalize: set heads, or use cosine"
        )
    try:  # a scorer knows best which sizes and options go together
        with torch.device("meta"), contextlib.suppress(*TOO_LARGE):
            section.score.make(SCORERS, query_size, key_size)
    except Seq2attnError as error:
        yield Fault(f"{path}.score", f"{error} (queries have {query_size}, keys {key_size})")
