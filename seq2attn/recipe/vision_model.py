"""Sections of a recipe: networks of images."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator

from seq2attn.attention.positions import POSITIONS
from seq2attn.errors import NotDefinedError, Seq2attnError
from seq2attn.layers.convolution import NORMS
from seq2attn.layers.resnet_forms import DEPTHS, EXPANSION, Form, Stem, form_of
from seq2attn.recipe.attention import AttentionRecipe, PerLayer
from seq2attn.recipe.blocks import PLACES, BlockRecipe, block_faults, notes_of, readable_faults
from seq2attn.recipe.graph import NORM, GraphRecipe
from seq2attn.recipe.kinds import ByKind
from seq2attn.recipe.sections import Choice, Fault, Name, Part, Rate, Section, Size, fault
from seq2attn.recipe.seq2seq_model import TransformerEncoderRecipe
from seq2attn.recipe.tagger_model import AttentivePoolingRecipe, PlainPoolingRecipe, pooling_faults

DROP_PATH = (
    "Stochastic depth (Huang et al. 2016): rate at which a residual branch of the last {unit} is dropped "
    "for each image in training; it rises linearly with depth."
)
BLOCKS_TEXT = "Attention blocks, in this order; two at one place are applied one after the other."


class ConvolutionalRecipe(Section):
    """The base class of networks of convolutions, in which blocks have places."""

    norm: Annotated[str, Name(lambda: NORMS)] = Field("batch", description=NORM)
    blocks: list[BlockRecipe] = Field([], description=BLOCKS_TEXT)
    places: ClassVar[tuple[str, ...]]  # that there are in this kind of network
    takes_blocks: ClassVar[bool] = True

    def widths(self, place: str) -> list[int]:
        """Return the channels at a place, in each stage."""
        raise NotDefinedError(f"{type(self).__name__} must define widths()")

    @property
    def strides(self) -> list[int]:
        """Return how many pixels there are between two positions of each stage."""
        return [self.first_stride * 2**stage for stage in range(len(self.widths("after")))]

    @property
    def output_size(self) -> int:
        """Return the channels of the last stage."""
        return self.widths("after")[-1]

    @property
    def stride(self) -> int:
        """Return how many pixels there are between two positions of the last stage."""
        return self.strides[-1]

    @property
    def first_stride(self) -> int:
        """Return how many pixels there are between two positions of the first stage."""
        return 1

    def faults(self) -> Iterator[Fault]:
        """Find blocks at places or in stages that there are none of, and options that do not fit."""
        for index, section in enumerate(self.blocks):
            if section.place not in self.places:
                own = "" if section.at else f", which is the place of {section.block.name}"
                yield Fault(
                    f"blocks.{index}.at",
                    f"there is no place {section.place} in this network{own}: use {' or '.join(self.places)}",
                )
        yield from block_faults("blocks", self.blocks, self._widths_at)

    @classmethod
    def written_faults(cls, value: Any, error: ValidationError) -> Iterator[Fault]:
        """See the base class: those of the blocks that can be read."""
        yield from readable_faults(cls, value, error, "blocks")

    def _widths_at(self, place: str) -> list[int] | None:
        return self.widths(place) if place in self.places else None

    def grid_notes(self, height: int, width: int) -> Iterator[str]:
        """Yield warnings of blocks that do not suit their grid, for the largest image."""
        yield from notes_of(self.blocks, self.strides, self.widths, (height, width))


class ResNetRecipe(ConvolutionalRecipe):
    """A residual network (He et al. 2016), for small images or in the form for ImageNet."""

    kind: Literal["resnet"] = Field(description="Type of network.")
    depth: Size = Field(
        20,
        description="Number of layers: 20, 32, 44, 56, 110 and others of 6 k + 2, for small images (3 stages "
        "of 16, 32, 64 channels); 18, 34, 50, 101, for large ones (4 stages, 1/32 of the size).",
    )
    width: float = Field(
        1.0, gt=0, le=64, description="Channels of all stages, as a multiple of those that the depth names."
    )
    stem: Stem | None = Field(
        None,
        description="small: a 3x3 convolution that keeps the size, and shortcuts without weights; large: a "
        "7x7 convolution and a maximum, to 1/4 of the size, and shortcuts that are 1x1 convolutions; null = "
        "that of the depth.",
    )
    last_norm_zero: bool = Field(
        False,
        description="Let the last norm of each residual branch start at 0 (Goyal et al. 2017).",
    )
    drop_path: Rate = Field(0.0, description=DROP_PATH.format(unit="unit"))
    output_stride: Literal[1, 2, 4, 8, 16] | None = Field(
        None,
        description="Largest number of pixels between two positions: stages that would be coarser keep their "
        "grid, and their 3x3 convolutions are dilated instead (Chen et al. 2017). null = no limit.",
    )
    places: ClassVar[tuple[str, ...]] = PLACES

    @property
    def stride(self) -> int:
        """See the base class."""
        return self.form.strides[-1]

    @property
    def first_stride(self) -> int:
        """See the base class."""
        return self.form.first_stride

    @property
    def form(self) -> Form:
        """Return the form that depth, width and stem name."""
        form = form_of(self.depth)
        if form is None:
            raise fault(f"expected {DEPTHS}, got {self.depth}")
        widths = tuple(max(1, round(width * self.width)) for width in form.widths)
        return form._replace(widths=widths, stem=self.stem or form.stem, output_stride=self.output_stride)

    @property
    def strides(self) -> list[int]:
        """See the base class."""
        return self.form.strides

    def faults(self) -> Iterator[Fault]:
        """See the base class; also find a limit that is finer than the first stage."""
        yield from super().faults()
        if self.output_stride is not None and self.output_stride < self.first_stride:
            yield Fault(
                "output_stride",
                f"the first stage has a position for every {self.first_stride} pixels: set it to that or "
                "more, or stem to small",
            )

    @field_validator("depth")
    @classmethod
    def _known_depth(cls, depth: int) -> int:
        if form_of(depth) is None:
            raise fault(f"expected {DEPTHS}; got {depth}")
        return depth

    def widths(self, place: str) -> list[int]:
        """See the base class."""
        inner = place in ("middle", "replace")
        return [width * (1 if inner or not self.form.bottleneck else EXPANSION) for width in self.form.widths]


class ConvNetRecipe(ConvolutionalRecipe):
    """A plain convolutional network: 3x3 convolutions with a maximum over 2x2 positions between them."""

    kind: Literal["convolutional"] = Field(description="Type of network.")
    sizes: Annotated[list[Size], Field(min_length=1, max_length=12)] = Field(
        [32, 64], description="Channels of each stage."
    )
    places: ClassVar[tuple[str, ...]] = ("after", "between")

    def widths(self, place: str) -> list[int]:
        """See the base class."""
        return self.sizes


class DenseNetRecipe(ConvolutionalRecipe):
    """A densely connected network (Huang et al. 2017), by default the one that reads handwritten formulas in
    Zhang et al. (2018): 684 channels at 1/16 of the size."""

    kind: Literal["densenet"] = Field(description="Type of network.")
    layers: Annotated[list[Size], Field(min_length=1, max_length=6)] = Field(
        [16, 16, 16], description="Layers of each stage, at 1/4, 1/8, 1/16, ... of the size."
    )
    growth: Size = Field(24, description="Channels that each layer adds.")
    stem: Size = Field(48, description="Channels of the first convolution.")
    dropout: Rate = Field(0.2, description="Dropout rate after each layer and between stages.")
    places: ClassVar[tuple[str, ...]] = ("between",)

    @property
    def first_stride(self) -> int:
        """See the base class."""
        return 4

    def widths(self, place: str) -> list[int]:
        """See the base class."""
        widths, width = list[int](), 2 * self.stem
        for count in self.layers:
            width = width // 2 + count * self.growth
            widths.append(width)
        return widths


class ViTRecipe(TransformerEncoderRecipe):
    """A vision Transformer (Dosovitskiy et al. 2021)."""

    kind: Literal["vit"] = Field(description="Type of network.")  # type: ignore[assignment]
    patch: Size = Field(4, description="Height and width of a patch, in pixels.")
    stem: list[Size] = Field(
        [],
        description="Channels of 3x3 convolutions of stride 2 before the patches are projected, a "
        "convolutional stem (Xiao et al. 2021); each halves what is left of a patch. [] = none.",
    )
    size: Size = Field(192, description="Size of the hidden states.")
    layers: Size = Field(6, description="Number of stacked layers.")
    feed_forward: Size = Field(384, description="Inner size of the feed-forward layers.")
    drop_path: Rate = Field(0.0, description=DROP_PATH.format(unit="layer"))
    positions: Annotated[Part, Choice(POSITIONS)] = Field(
        "sinusoidal_2d", validate_default=True, description="Position encoding."
    )
    self_attention: PerLayer = Field(
        AttentionRecipe(heads=3),
        description="Self-attention: one section for all layers, or a list with one for each layer.",
    )

    takes_blocks: ClassVar[bool] = False

    @property
    def stride(self) -> int:
        """Return how many pixels there are between two patches."""
        return self.patch

    @property
    def strides(self) -> list[int]:
        """Return the stride of its only grid."""
        return [self.patch]

    def faults(self) -> Iterator[Fault]:
        """Find patches that the stem does not divide, and what images do not have."""
        yield from super().faults()
        kind = POSITIONS[self.positions.name]
        for section in self.self_attentions if kind.where == "rotation" else ():
            try:  # only its constructor knows the sizes of heads that it can rotate
                self.positions.make(POSITIONS, max(1, self.size // section.heads))
            except Seq2attnError as error:
                yield Fault("positions", str(error))
                break
        if self.patch % 2 ** len(self.stem):
            yield Fault(
                "stem",
                f"{len(self.stem)} convolutions of stride 2 need a patch of a multiple of "
                f"{2 ** len(self.stem)}, got {self.patch}",
            )
        if self.word_dropout:
            yield Fault("word_dropout", "is for texts: leave it out")
        sections = self.self_attention if isinstance(self.self_attention, list) else [self.self_attention]
        if any(section.window is not None for section in sections):
            yield Fault("self_attention", "windows of self-attention are for texts: leave window out")


AnyBackbone = Annotated[
    ResNetRecipe | ConvNetRecipe | DenseNetRecipe | ViTRecipe | GraphRecipe,
    ByKind(
        {
            "resnet": ResNetRecipe,
            "convolutional": ConvNetRecipe,
            "densenet": DenseNetRecipe,
            "vit": ViTRecipe,
            "graph": GraphRecipe,
        }
    ),
]


class ClassTokenRecipe(Section):
    """A class token in the place of pooling: a learned vector that a vision Transformer reads beside the
    patches, and whose last state stands for the image (Dosovitskiy et al. 2021)."""

    kind: Literal["class_token"] = Field(description="Type of pooling.")


POOLINGS = {
    "attention": AttentivePoolingRecipe,
    "mean": PlainPoolingRecipe,
    "max": PlainPoolingRecipe,
    "class_token": ClassTokenRecipe,
}
AnyImagePooling = Annotated[AttentivePoolingRecipe | PlainPoolingRecipe | ClassTokenRecipe, ByKind(POOLINGS)]


class ImageClassifierRecipe(Section):
    """A network that labels images."""

    backbone: AnyBackbone = Field(ResNetRecipe(kind="resnet"), description="Network of the features.")
    pooling: AnyImagePooling = Field(
        PlainPoolingRecipe(kind="mean"),
        description="Pooling of the features of all positions into one vector, or a class token.",
    )
    dropout: Rate = Field(0.0, description="Dropout rate of this vector.")

    def faults(self) -> Iterator[Fault]:
        """Find an attention that does not fit the features, and a class token without a place."""
        if not isinstance(self.pooling, ClassTokenRecipe):
            yield from pooling_faults(self.pooling, self.backbone.output_size)
        elif not isinstance(self.backbone, ViTRecipe):
            why = f"a class token needs a network of attention, and this one is {self.backbone.kind}"
            yield Fault("pooling.kind", f"{why}: use backbone.kind vit, or mean, max or attention")
        elif (kind := POSITIONS[self.backbone.positions.name]).needs_grid and kind.where != "embedding":
            yield Fault(
                "backbone.positions",
                f"{self.backbone.positions.name} is for the positions of a grid, and a class token has none: "
                "use sinusoidal_2d or learned_2d, or another pooling",
            )


def grid_positions(positions: Part, others: str = "") -> Iterator[Fault]:
    """Find positions that are not added to states, or not on a grid; others: what else is possible."""
    fitting = {name for name, part in POSITIONS.items() if part.where == "embedding" and part.needs_grid}
    if positions.name not in fitting:
        yield Fault(
            "positions",
            f"expected positions of rows and columns that are added, {' or '.join(sorted(fitting))}{others}; "
            f"got {positions.name}",
        )
