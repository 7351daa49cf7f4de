"""What a recipe may say about the model: encoder, decoder, and what does not go together."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from seq2attn.attention import misfits
from seq2attn.normalizers import NORMALIZERS
from seq2attn.positions import POSITIONS
from seq2attn.recipe.parts import Choice, Fault, Part, Section, told_by_kind
from seq2attn.recipe.sections import Rate, Size
from seq2attn.scorers import SCORERS


class AttentionRecipe(Section):
    """One attention: how it scores and normalizes, and with how many heads."""

    score: Annotated[Part, Choice(SCORERS)] = Field(
        "scaled_dot", validate_default=True, description="How queries and keys are scored."
    )
    normalize: Annotated[Part, Choice(NORMALIZERS)] = Field(
        "softmax", validate_default=True, description="How scores become weights."
    )
    heads: Size = Field(1, description="In a recurrent decoder, one head attends without projections.")
    dropout: Rate = Field(0.0, description="Of the weights, in training.")

    def divided(self, path: str, size: int, rotary: bool = False) -> Iterator[Fault]:
        """Faults of dividing a size among the heads."""
        if size % self.heads:
            yield Fault(f"{path}.heads", f"{self.heads} heads do not divide the size {size}")
        elif rotary and (size // self.heads) % 2:
            yield Fault(f"{path}.heads", f"rotary positions need an even head size, got {size // self.heads}")

    def misfits(self, path: str, role: str) -> Iterator[Fault]:
        """Faults of parts that make no sense together, or in this role."""
        for field, why in misfits(SCORERS[self.score.name], NORMALIZERS[self.normalize.name], role):
            yield Fault(f"{path}.{field}", why)


class _Recurrent(Section):
    kind: Literal["recurrent"] = Field(description="Tells the kinds apart.")
    cell: Literal["lstm", "gru"] = Field("lstm", description="What remembers.")
    embedding: Size = Field(256, description="Width of the embeddings.")
    layers: Size = Field(1, description="How many, one upon the other.")
    dropout: Rate = Field(0.0, description="Between layers and of the output.")
    embedding_dropout: Rate = Field(0.0, description="Of embeddings.")
    word_dropout: Rate = Field(0.0, description="Rate at which a whole input word is dropped.")
    variational: bool = Field(False, description="One dropout mask for all steps (Gal & Ghahramani 2016).")


class RecurrentEncoderRecipe(_Recurrent):
    """LSTM or GRU over the source."""

    size: Size = Field(256, description="Of each direction.")
    bidirectional: bool = Field(True, description="Also read from right to left; states are joined.")

    @property
    def output_size(self) -> int:
        """The width of its states."""
        return self.size * (2 if self.bidirectional else 1)


class RecurrentDecoderRecipe(_Recurrent):
    """LSTM or GRU over the target."""

    size: Size = Field(256, description="Width of the states.")
    order: Literal["bahdanau", "luong", "cho", "sutskever"] = Field(
        description="bahdanau: the previous state asks; luong: the current state asks; without attention: "
        "cho feeds the source's summary into every step, sutskever only starts from it."
    )
    attention: AttentionRecipe | None = Field(None, description="To the source; bahdanau and luong need it.")
    input_feeding: bool = Field(False, description="luong: the attentional vector enters the next step.")
    readout: Literal["tanh", "maxout"] = Field(
        "tanh", description="tanh(W [context; state]) (Luong), maxout over state, word, context (Bahdanau)."
    )
    readout_size: Size | None = Field(None, description="The size, if null.")

    @property
    def output_size(self) -> int:
        """What the output layer reads."""
        return self.readout_size or self.size

    def faults(self) -> Iterator[Fault]:
        """The order decides what else makes sense."""
        attends = self.order in ("bahdanau", "luong")
        if attends and self.attention is None:
            yield Fault(
                "attention", f"the order {self.order} needs an attention, for example {{score: additive}}"
            )
        if not attends and self.attention is not None:
            yield Fault(
                "attention",
                f"the order {self.order} has no attention: set it to null, or use bahdanau or luong",
            )
        if self.input_feeding and self.order != "luong":
            yield Fault("input_feeding", f"belongs to the order luong; {self.order} reads its context anyway")
        if self.attention is not None:
            yield from self.attention.misfits("attention", "target to source")
            if self.attention.heads > 1:
                yield from self.attention.divided("attention", self.size)


class _Transformer(Section):
    kind: Literal["transformer"] = Field(description="Tells the kinds apart.")
    size: Size = Field(512, description="Width of embeddings and states.")
    layers: Size = Field(6, description="How many, one upon the other.")
    feed_forward: Size = Field(2048, description="Width within the feed-forward step.")
    activation: Literal["relu", "gelu", "silu"] = Field("relu", description="Of the feed-forward step.")
    norm: Literal["pre", "post"] = Field(
        "pre",
        description="Layer normalization before each step (more stable), or after it (Vaswani et al. 2017).",
    )
    positions: Annotated[Part, Choice(POSITIONS)] = Field(
        "sinusoidal", validate_default=True, description="How a token's place is told."
    )
    self_attention: AttentionRecipe = Field(description="To the own side.")
    dropout: Rate = Field(0.1, description="Of embeddings and of what each step adds.")
    feed_forward_dropout: Rate = Field(0.0, description="Within the feed-forward step.")
    word_dropout: Rate = Field(0.0, description="Rate at which a whole input word is dropped.")

    @property
    def embedding(self) -> int:
        """The width of its embeddings."""
        return self.size

    @property
    def output_size(self) -> int:
        """The width of its states."""
        return self.size

    def faults(self) -> Iterator[Fault]:
        """Heads divide the size; self-attention has no past."""
        yield from self.self_attention.divided("self_attention", self.size, self.positions.name == "rotary")
        yield from self.self_attention.misfits("self_attention", "self-attention")


class TransformerEncoderRecipe(_Transformer):
    """Self-attention over the source."""


class TransformerDecoderRecipe(_Transformer):
    """Causal self-attention over the target, cross-attention to the source."""

    cross_attention: AttentionRecipe = Field(description="To the source.")

    def faults(self) -> Iterator[Fault]:
        """Heads divide the size."""
        yield from super().faults()
        yield from self.cross_attention.divided("cross_attention", self.size)
        yield from self.cross_attention.misfits("cross_attention", "target to source")


AnyEncoder = Annotated[
    RecurrentEncoderRecipe | TransformerEncoderRecipe,
    told_by_kind({"recurrent": RecurrentEncoderRecipe, "transformer": TransformerEncoderRecipe}),
]
AnyDecoder = Annotated[
    RecurrentDecoderRecipe | TransformerDecoderRecipe,
    told_by_kind({"recurrent": RecurrentDecoderRecipe, "transformer": TransformerDecoderRecipe}),
]


class ModelRecipe(Section):
    """An encoder, a decoder, and what they share; the two may be of different kinds."""

    encoder: AnyEncoder = Field(description="What reads the source.")
    decoder: AnyDecoder = Field(description="What writes the target.")
    tied: Literal["none", "decoder", "all"] = Field(
        "none",
        description="The output layer shares its matrix with the target's embeddings, or with both sides'.",
    )

    def faults(self) -> Iterator[Fault]:
        """Sizes that must agree."""
        decoder, encoder = self.decoder, self.encoder
        if isinstance(decoder, RecurrentDecoderRecipe) and decoder.attention and decoder.attention.heads == 1:
            score = decoder.attention.score.name
            if score in ("dot", "scaled_dot") and decoder.size != encoder.output_size:
                yield Fault(
                    "decoder.attention.score",
                    f"{score} needs equal sizes: the decoder has {decoder.size}, the encoder's states "
                    f"{encoder.output_size}; use general or additive, several heads, or equal sizes",
                )
        if self.tied != "none" and decoder.embedding != decoder.output_size:
            yield Fault(
                "tied",
                f"the output layer reads {decoder.output_size} values, embeddings have {decoder.embedding}; "
                "set decoder.readout_size to the embedding's size",
            )
        if self.tied == "all" and encoder.embedding != decoder.embedding:
            yield Fault("tied", f"embeddings differ in size: {encoder.embedding} and {decoder.embedding}")
