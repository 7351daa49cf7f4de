"""What a recipe may say about the model: encoder, decoder, and what does not go together."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from seq2attn.attention import Normalizer, Scorer
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.positions import POSITIONS, Distance
from seq2attn.attention.scorers import SCORERS
from seq2attn.errors import Seq2attnError
from seq2attn.recipe.attention import COPYING, AttentionRecipe, Copying, PerLayer
from seq2attn.recipe.sections import Choice, Fault, Part, Rate, Section, Size, told_by_kind

TOO_LARGE = (RuntimeError, TypeError, OverflowError)  # what torch says of sizes beyond all memory


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
    latent: Literal["none", "marginal", "posterior"] = Field(
        "none",
        description="none: predict from the mean of the slots (soft attention); marginal: from each slot, "
        "mixed by the weights; posterior: and what the token then says about the alignment goes on.",
    )
    top: Size | None = Field(None, description="A latent alignment is to the likeliest so many; null = all.")
    copying: Copying = Field(None, description=COPYING)

    @property
    def output_size(self) -> int:
        """What the output layer reads."""
        return self.readout_size or self.size

    @property
    def cross_attentions(self) -> list[AttentionRecipe]:
        """The attention to the source, if any."""
        return [] if self.attention is None else [self.attention]

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
            yield from self.attention.incompatibilities("attention", "target to source")
            if self.attention.heads > 1:
                yield from self.attention.divided("attention", self.size)
            else:
                yield from self.attention.plain("attention")
        yield from self._of_latent()
        if self.copying is None:
            return
        if self.attention is None:
            yield Fault("copying", f"the order {self.order} looks at nothing to copy: use bahdanau or luong")
            return
        yield from self.copying.incompatibilities([self.attention])
        if self.latent != "none":
            yield Fault(
                "copying",
                f"with latent {self.latent} every slot predicts by itself, and there is no one distribution "
                "to mix with: set latent to none",
            )

    def _of_latent(self) -> Iterator[Fault]:
        """A latent alignment is to one slot at a time, drawn from weights that are probabilities."""
        if self.latent == "none":
            if self.top is not None:
                yield Fault("top", "belongs to a latent alignment: set latent to marginal or posterior")
            return
        if self.attention is None:
            yield Fault("latent", f"the order {self.order} has no alignment: use bahdanau or luong")
            return
        with torch.random.fork_rng(devices=()):  # its options decide whether weights sum to 1
            normalize = self.attention.normalize.make(NORMALIZERS)
        name = self.attention.normalize.name
        if self.attention.heads > 1:
            yield Fault("latent", f"is to one slot at a time, {self.attention.heads} heads look at several")
        if not normalize.sums_to_one:
            why = f"needs weights that sum to 1, and those of {name} may sum to less or more"
            yield Fault("latent", why)
        if normalize.samples():
            yield Fault("latent", f"sums over the slots, and {name} draws one: choose")
        if self.latent == "marginal":
            return
        scorers, normalizers = _following(SCORERS), _following(NORMALIZERS)
        if normalize.n_scores > 1:
            yield Fault("latent", f"posterior: where {name} stands is not where it looks")
        elif not (
            self.input_feeding
            or self.attention.score.name in scorers
            or self.attention.normalize.name in normalizers
        ):
            feeding = "input_feeding" if self.order == "luong" else "the order luong with input_feeding"
            yield Fault(
                "latent",
                "posterior would be marginal: nothing here follows what a token tells of its alignment; use "
                f"{feeding}, the scorer {' or '.join(scorers)}, or the normalizer {' or '.join(normalizers)}",
            )


def _following(parts: Mapping[str, type[Scorer] | type[Normalizer]]) -> list[str]:
    """Those that go on from the posterior: not from notes that were made before the token was known, nor from
    a place that is not where they look."""
    return [
        name
        for name, part in parts.items()
        if part.stateful and getattr(part, "update_trace", Scorer.update_trace) is Scorer.update_trace
        if getattr(part, "n_scores", 1) == 1
    ]


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
    self_attention: PerLayer = Field(description="To the own side; a list has a section for each layer.")
    dropout: Rate = Field(0.1, description="Of embeddings and of what each step adds.")
    feed_forward_dropout: Rate = Field(0.0, description="Within the feed-forward step.")
    word_dropout: Rate = Field(0.0, description="Rate at which a whole input word is dropped.")
    causal: ClassVar[bool] = False  # True: no token sees those behind it

    @property
    def embedding(self) -> int:
        """The width of its embeddings."""
        return self.size

    @property
    def output_size(self) -> int:
        """The width of its states."""
        return self.size

    @property
    def self_attentions(self) -> list[AttentionRecipe]:
        """The self-attention of each layer."""
        return _each(self.self_attention, self.layers)

    def faults(self) -> Iterator[Fault]:
        """Heads divide the size; self-attention has no past, and its positions go with it."""
        yield from _length("self_attention", self.self_attention, self.layers)
        rotary = self.positions.name == "rotary"
        for path, section in _places("self_attention", self.self_attention):
            yield from section.divided(path, self.size, rotary)
            yield from section.incompatibilities(path, "self-attention")
            if issubclass(POSITIONS[self.positions.name], Distance):
                yield from self._distances(path, section)
        if issubclass(POSITIONS[self.positions.name], Distance):
            try:  # they know best which options go together
                with torch.device("meta"), contextlib.suppress(*TOO_LARGE):
                    self.positions.make(POSITIONS, 1, self.size, self.causal)
            except Seq2attnError as error:
                yield Fault("positions", str(error))

    def _distances(self, path: str, section: AttentionRecipe) -> Iterator[Fault]:
        """Faults of relative positions in one of the layers."""
        name, heads = self.positions.name, self.self_attentions[0].heads
        if NORMALIZERS[section.normalize.name].needs_positive:
            yield Fault(
                f"{path}.normalize",
                f"divides by the scores' sum, and with {name} positions scores may be negative; use others",
            )
        kind = POSITIONS[name]
        if issubclass(kind, Distance) and kind.shared and section.heads != heads:
            yield Fault(
                f"{path}.heads", f"the layers share one table of {name} positions: all need {heads} heads"
            )


class TransformerEncoderRecipe(_Transformer):
    """Self-attention over the source."""


class TransformerDecoderRecipe(_Transformer):
    """Causal self-attention over the target, cross-attention to the source."""

    causal = True
    cross_attention: PerLayer = Field(description="To the source; a list has a section for each layer.")
    copying: Copying = Field(None, description=COPYING)

    @property
    def cross_attentions(self) -> list[AttentionRecipe]:
        """The cross-attention of each layer."""
        return _each(self.cross_attention, self.layers)

    def faults(self) -> Iterator[Fault]:
        """Heads divide the size; what is kept while decoding."""
        yield from super().faults()
        for path, section in _places("self_attention", self.self_attention):
            yield from section.uncounted(path)
        yield from _length("cross_attention", self.cross_attention, self.layers)
        for path, section in _places("cross_attention", self.cross_attention):
            yield from section.divided(path, self.size)
            yield from section.incompatibilities(path, "target to source")
            if section.heads != (heads := self.cross_attentions[0].heads):
                yield Fault(
                    f"{path}.heads", f"weights of all layers are looked at together: all need {heads}"
                )
        if self.copying is not None:
            yield from self.copying.incompatibilities(self.cross_attentions)

    def _distances(self, path: str, section: AttentionRecipe) -> Iterator[Fault]:
        yield from super()._distances(path, section)
        if section.sinks:
            yield Fault(
                f"{path}.sinks",
                f"between the first tokens and the window there is a gap in what a decoder keeps, so "
                f"{self.positions.name} positions would take the first for near: use rotary, or no sinks",
            )


def _each(sections: AttentionRecipe | list[AttentionRecipe], layers: int) -> list[AttentionRecipe]:
    return sections if isinstance(sections, list) else [sections] * layers


def _places(
    path: str, sections: AttentionRecipe | list[AttentionRecipe]
) -> Iterator[tuple[str, AttentionRecipe]]:
    """Each section with its path."""
    if not isinstance(sections, list):
        yield path, sections
        return
    for layer, section in enumerate(sections):
        yield f"{path}.{layer}", section


def _length(path: str, sections: AttentionRecipe | list[AttentionRecipe], layers: int) -> Iterator[Fault]:
    if isinstance(sections, list) and len(sections) != layers:
        yield Fault(
            path,
            f"a list has a section for each of the {layers} layers, got {len(sections)}; one without a "
            "list is for all",
        )


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
            for path, score in decoder.attention.scores():
                try:  # a scorer knows best which sizes and options go together
                    with torch.device("meta"), contextlib.suppress(*TOO_LARGE):
                        score.make(SCORERS, decoder.size, encoder.output_size)
                except Seq2attnError as error:
                    sizes = f"the decoder has {decoder.size}, the encoder's states {encoder.output_size}"
                    yield Fault(f"decoder.attention.{path}", f"{error} ({sizes})")
        if self.tied != "none" and decoder.embedding != decoder.output_size:
            yield Fault(
                "tied",
                f"the output layer reads {decoder.output_size} values, embeddings have {decoder.embedding}; "
                "set decoder.readout_size to the embedding's size",
            )
        if self.tied == "all" and encoder.embedding != decoder.embedding:
            yield Fault("tied", f"embeddings differ in size: {encoder.embedding} and {decoder.embedding}")
