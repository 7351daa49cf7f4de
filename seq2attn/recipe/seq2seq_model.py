"""Sections of a recipe: the encoder-decoder model."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, SerializeAsAny

from seq2attn.attention import Normalizer, Scorer
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.positions import POSITIONS, SEQUENCE_POSITIONS, Distance
from seq2attn.attention.scorers import SCORERS
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import ACTIVATIONS
from seq2attn.layers.recurrent import CELLS
from seq2attn.recipe.attention import AttendingDecoderRecipe, AttentionRecipe, PerLayer
from seq2attn.recipe.kinds import DECODERS, ENCODERS, ByKind, CustomDecoderRecipe, CustomEncoderRecipe
from seq2attn.recipe.sections import Choice, Fault, Name, Part, Rate, Section, Size

TOO_LARGE = (RuntimeError, TypeError, OverflowError)  # raised by torch for sizes beyond any memory


class _Recurrent(Section):
    kind: Literal["recurrent"] = Field(description="Type of encoder or decoder.")
    cell: Annotated[str, Name(lambda: CELLS)] = Field("lstm", description="Type of the recurrent cells.")
    embedding: Size = Field(256, description="Size of the embeddings.")
    layers: Size = Field(1, description="Number of stacked layers.")
    dropout: Rate = Field(0.0, description="Dropout rate between layers and of the output.")
    embedding_dropout: Rate = Field(0.0, description="Dropout rate of the embeddings.")
    word_dropout: Rate = Field(
        0.0, description="Rate at which the embeddings of whole input tokens are dropped."
    )
    variational: bool = Field(
        False, description="Variational dropout: one mask for all time steps (Gal & Ghahramani 2016)."
    )


class RecurrentEncoderRecipe(_Recurrent):
    """A recurrent encoder (LSTM or GRU)."""

    size: Size = Field(256, description="Size of the hidden states of each direction.")
    bidirectional: bool = Field(
        True, description="Also read from right to left; the states of both directions are concatenated."
    )

    @property
    def output_size(self) -> int:
        """Return the size of its states."""
        return self.size * (2 if self.bidirectional else 1)


class RecurrentDecoderRecipe(_Recurrent, AttendingDecoderRecipe):
    """A recurrent decoder (LSTM or GRU)."""

    size: Size = Field(256, description="Size of the hidden states.")
    order: Literal["bahdanau", "luong", "cho", "sutskever"] = Field(
        description="bahdanau: the previous state is the query; luong: the current state is the query. "
        "Without attention: cho feeds the summary of the source into every step, sutskever only into the "
        "initial state."
    )
    attention: AttentionRecipe | None = Field(
        None, description="Attention to the source; required by bahdanau and luong."
    )
    input_feeding: bool = Field(
        False, description="Feed the attentional vector into the next step (luong only)."
    )
    readout: Literal["tanh", "maxout"] = Field(
        "tanh",
        description="Input of the output layer: tanh(W [context; state]) (Luong et al. 2015), or maxout over "
        "state, embedding and context (Bahdanau et al. 2015).",
    )
    readout_size: Size | None = Field(None, description="Size of the readout; null = `size`.")
    latent: Literal["none", "marginal", "posterior"] = Field(
        "none",
        description="Alignment as a latent variable. none: predict from the context vector (soft attention); "
        "marginal: predict from each source position, and mix the predictions by the weights; posterior: "
        "also pass on the posterior of the alignment, given the token, to the next step.",
    )
    top: Size | None = Field(
        None, description="Restrict a latent alignment to the k most probable positions; null = all."
    )

    @property
    def output_size(self) -> int:
        """Return the size of the output layer's input."""
        return self.readout_size or self.size

    @property
    def cross_attentions(self) -> list[AttentionRecipe]:
        """Return the attention to the source as a list, empty if there is none."""
        return [] if self.attention is None else [self.attention]

    @property
    def attention_key(self) -> str | None:
        """Return the key of its attention to the source; None if it has none."""
        return None if self.attention is None else "attention"

    @property
    def unprojected_attentions(self) -> dict[str, AttentionRecipe]:
        """Return its attentions of one head, by path: they have no projections."""
        if self.attention is None or self.attention.heads > 1:
            return {}
        return {"attention": self.attention}

    def faults(self) -> Iterator[Fault]:
        """Find settings that the order does not have."""
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
            yield Fault("input_feeding", f"is for the order luong, not for {self.order}")
        if self.attention is not None:
            yield from self.attention.source_faults("attention", self.size)
        yield from self._latent_faults()
        yield from self.shift_head_faults(self.cross_attentions)
        if self.copying is None:
            return
        if self.attention is None:
            yield Fault(
                "copying", f"the order {self.order} has no attention to copy by: use bahdanau or luong"
            )
            return
        yield from self.copying.incompatibilities([self.attention])
        if self.latent != "none":
            yield Fault(
                "copying",
                f"with latent {self.latent} each source position has its own prediction, and there is no "
                "single distribution to mix with: set latent to none",
            )

    def _latent_faults(self) -> Iterator[Fault]:
        """Find settings without which the alignment is no random variable over source positions."""
        if self.latent == "none":
            if self.top is not None:
                yield Fault("top", "is for a latent alignment: set latent to marginal or posterior")
            return
        if self.attention is None:
            yield Fault("latent", f"the order {self.order} has no alignment: use bahdanau or luong")
            return
        with torch.random.fork_rng(devices=()):  # its options decide whether weights sum to 1
            normalize = self.attention.normalize.make(NORMALIZERS)
        name = self.attention.normalize.name
        if self.attention.heads > 1:
            yield Fault(
                "latent",
                f"needs one alignment, and {self.attention.heads} heads make {self.attention.heads}: set "
                "heads to 1",
            )
        if not normalize.sums_to_one:
            why = f"needs weights that sum to 1, and those of {name} may sum to less or more"
            yield Fault("latent", why)
        if normalize.samples():
            yield Fault("latent", f"sums over the positions, and {name} samples one: use only one of them")
        if self.latent == "marginal":
            return
        scorers, normalizers = _posterior_readers(SCORERS), _posterior_readers(NORMALIZERS)
        if normalize.n_scores > 1:
            yield Fault(
                "latent", f"posterior: the state of {name} is not the distribution that it attends by"
            )
        elif not (
            self.input_feeding
            or self.attention.score.name in scorers
            or self.attention.normalize.name in normalizers
        ):
            feeding = "input_feeding" if self.order == "luong" else "the order luong with input_feeding"
            yield Fault(
                "latent",
                "posterior would equal marginal: nothing here depends on the posterior of the last step; use "
                f"{feeding}, the scorer {' or '.join(scorers)}, or the normalizer {' or '.join(normalizers)}",
            )


def _posterior_readers(parts: Mapping[str, type[Scorer] | type[Normalizer]]) -> list[str]:
    """Return the parts whose next step depends on the posterior of the last alignment.

    Excluded are parts with a trace, which is updated before the token is known, and those whose state is not
    the distribution that they attend by.
    """
    return [
        name
        for name, part in parts.items()
        if part.stateful and getattr(part, "update_trace", Scorer.update_trace) is Scorer.update_trace
        if getattr(part, "n_scores", 1) == 1
    ]


class _Transformer(Section):
    kind: Literal["transformer"] = Field(description="Type of encoder or decoder.")
    size: Size = Field(512, description="Size of embeddings and hidden states.")
    layers: Size = Field(6, description="Number of stacked layers.")
    feed_forward: Size = Field(2048, description="Inner size of the feed-forward layers.")
    activation: Annotated[str, Name(lambda: ACTIVATIONS)] = Field(
        "relu", description="Activation function of the feed-forward layers."
    )
    norm: Literal["pre", "post"] = Field(
        "pre",
        description="Layer normalization before each sublayer (more stable) or after it (Vaswani et al. "
        "2017).",
    )
    positions: Annotated[Part, Choice(SEQUENCE_POSITIONS)] = Field(
        "sinusoidal", validate_default=True, description="Position encoding."
    )
    self_attention: PerLayer = Field(
        description="Self-attention: one section for all layers, or a list with one for each layer."
    )
    dropout: Rate = Field(
        0.1, description="Dropout rate of the embeddings and of the output of each sublayer."
    )
    feed_forward_dropout: Rate = Field(0.0, description="Dropout rate within the feed-forward layers.")
    word_dropout: Rate = Field(
        0.0, description="Rate at which the embeddings of whole input tokens are dropped."
    )
    causal: ClassVar[bool] = False  # True: no token sees later ones

    @property
    def embedding(self) -> int:
        """Return the size of its embeddings."""
        return self.size

    @property
    def output_size(self) -> int:
        """Return the size of its states."""
        return self.size

    @property
    def self_attentions(self) -> list[AttentionRecipe]:
        """Return the self-attention of each layer."""
        return _each(self.self_attention, self.layers)

    def faults(self) -> Iterator[Fault]:
        """Find faults of head sizes, of self-attention, and of its positions."""
        yield from _length("self_attention", self.self_attention, self.layers)
        rotary = self.positions.name == "rotary"
        for path, section in _with_paths("self_attention", self.self_attention):
            yield from section.head_size_faults(path, self.size, rotary)
            yield from section.incompatibilities(path, "self-attention")
            if issubclass(POSITIONS[self.positions.name], Distance):
                yield from self._distances(path, section)
        if issubclass(POSITIONS[self.positions.name], Distance):
            try:  # only its constructor knows which options can be combined
                with torch.device("meta"), contextlib.suppress(*TOO_LARGE):
                    self.positions.make(POSITIONS, 1, self.size, self.causal)
            except Seq2attnError as error:
                yield Fault("positions", str(error))

    def _distances(self, path: str, section: AttentionRecipe) -> Iterator[Fault]:
        """Find faults of relative positions in one of the layers."""
        name, heads = self.positions.name, self.self_attentions[0].heads
        if NORMALIZERS[section.normalize.name].needs_positive:
            yield Fault(
                f"{path}.normalize",
                f"divides by the sum of the scores, and with {name} positions scores may be negative; use "
                "others",
            )
        kind = POSITIONS[name]
        if issubclass(kind, Distance) and kind.shared and section.heads != heads:
            yield Fault(
                f"{path}.heads", f"the layers share one table of {name} positions: all need {heads} heads"
            )


class TransformerEncoderRecipe(_Transformer):
    """A Transformer encoder."""


class TransformerDecoderRecipe(_Transformer, AttendingDecoderRecipe):
    """A Transformer decoder: causal self-attention, and cross-attention to the source."""

    causal = True
    attention_key: ClassVar[str] = "cross_attention"
    unprojected_attentions: ClassVar[Mapping[str, AttentionRecipe]] = {}
    cross_attention: PerLayer = Field(
        description="Cross-attention to the source: one section for all layers, or a list with one for each "
        "layer."
    )

    @property
    def cross_attentions(self) -> list[AttentionRecipe]:
        """Return the cross-attention of each layer."""
        return _each(self.cross_attention, self.layers)

    def faults(self) -> Iterator[Fault]:
        """Find faults of both attentions, and of the window that is kept in decoding."""
        yield from super().faults()
        for path, section in _with_paths("self_attention", self.self_attention):
            yield from section.window_faults(path)
        yield from _length("cross_attention", self.cross_attention, self.layers)
        for path, section in _with_paths("cross_attention", self.cross_attention):
            yield from section.head_size_faults(path, self.size)
            yield from section.incompatibilities(path, "target to source")
            if section.heads != (heads := self.cross_attentions[0].heads):
                yield Fault(
                    f"{path}.heads",
                    f"weights of all layers are put into one tensor: all layers need {heads} heads",
                )
        if self.copying is not None:
            yield from self.copying.incompatibilities(self.cross_attentions)
        yield from self.shift_head_faults(self.cross_attentions)

    def _distances(self, path: str, section: AttentionRecipe) -> Iterator[Fault]:
        yield from super()._distances(path, section)
        if section.sinks:
            yield Fault(
                f"{path}.sinks",
                f"a decoder keeps no keys between the sinks and the window, so {self.positions.name} "
                "positions would take the sinks for near tokens: use rotary, or no sinks",
            )


def _each(sections: AttentionRecipe | list[AttentionRecipe], layers: int) -> list[AttentionRecipe]:
    return sections if isinstance(sections, list) else [sections] * layers


def _with_paths(
    path: str, sections: AttentionRecipe | list[AttentionRecipe]
) -> Iterator[tuple[str, AttentionRecipe]]:
    """Return each section with its path."""
    if not isinstance(sections, list):
        yield path, sections
        return
    for layer, section in enumerate(sections):
        yield f"{path}.{layer}", section


def _length(path: str, sections: AttentionRecipe | list[AttentionRecipe], layers: int) -> Iterator[Fault]:
    if isinstance(sections, list) and len(sections) != layers:
        yield Fault(
            path,
            f"expected a section for each of the {layers} layers, got a list of {len(sections)}; a section "
            "without a list is for all layers",
        )


AnyEncoder = Annotated[
    RecurrentEncoderRecipe | TransformerEncoderRecipe | SerializeAsAny[CustomEncoderRecipe],
    ByKind(
        {"recurrent": RecurrentEncoderRecipe, "transformer": TransformerEncoderRecipe},
        ENCODERS,
        CustomEncoderRecipe,
    ),
]
AnyDecoder = Annotated[
    RecurrentDecoderRecipe | TransformerDecoderRecipe | SerializeAsAny[CustomDecoderRecipe],
    ByKind(
        {"recurrent": RecurrentDecoderRecipe, "transformer": TransformerDecoderRecipe},
        DECODERS,
        CustomDecoderRecipe,
    ),
]


class AnyModelRecipe(Section):
    """The base class of models with a decoder. A subclass narrows the type of the encoder."""

    encoder: Any = Field(description="Encoder of the source.")
    decoder: AnyDecoder = Field(description="Decoder of the target.")
    tied: Literal["none", "decoder", "all"] = Field(
        "none",
        description="Weight tying: the output layer shares its matrix with the target embeddings (decoder), "
        "or with source and target embeddings (all).",
    )

    def faults(self) -> Iterator[Fault]:
        """Find sizes that must agree and do not."""
        decoder, width = self.decoder, self.encoder.output_size
        for key, section in decoder.unprojected_attentions.items() if width else ():
            for path, score in section.scorers():
                try:  # only its constructor knows which sizes and options can be combined
                    with torch.device("meta"), contextlib.suppress(*TOO_LARGE):
                        score.make(SCORERS, decoder.size, width)
                except Seq2attnError as error:
                    sizes = f"the decoder has {decoder.size}, the encoder's states {width}"
                    yield Fault(f"decoder.{key}.{path}", f"{error} ({sizes})")
        if self.tied != "none" and decoder.embedding != decoder.output_size:
            yield Fault(
                "tied",
                f"the output layer reads {decoder.output_size} values, embeddings have {decoder.embedding}; "
                "set decoder.readout_size to the embedding's size",
            )


class ModelRecipe(AnyModelRecipe):
    """An encoder and a decoder, which may be of different types."""

    encoder: AnyEncoder = Field(description="Encoder of the source.")

    def faults(self) -> Iterator[Fault]:
        """See the base class; also find embeddings that cannot be tied."""
        yield from super().faults()
        if self.tied == "all" and (size := self.encoder.embedding) != self.decoder.embedding:
            yield Fault("tied", f"embeddings differ in size: {size} and {self.decoder.embedding}")
