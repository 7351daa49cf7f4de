"""Sections of a recipe: networks that give each pixel a class, and their training."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError
from typing_extensions import Self

from seq2attn.attention.blocks import BLOCKS
from seq2attn.attention.blocks.block import keeping_channels
from seq2attn.errors import Seq2attnError
from seq2attn.layers.convolution import NORMS
from seq2attn.recipe.blocks import BlockRecipe, block_faults, notes_of, readable_faults
from seq2attn.recipe.graph import NORM
from seq2attn.recipe.grid_notes import grid_notes
from seq2attn.recipe.image_data import FITTED
from seq2attn.recipe.image_training import ImageBatchesRecipe
from seq2attn.recipe.kinds import ByKind
from seq2attn.recipe.markers import OneOrMore
from seq2attn.recipe.mask_data import SegmentationDataRecipe
from seq2attn.recipe.root import LEARNING, TASK, AnyRecipe
from seq2attn.recipe.sections import Choice, Fault, Name, Part, Rate, Section, Size, filled
from seq2attn.recipe.training import (
    AUTO_SIZE,
    BEST,
    MEASURED_LABELS,
    BatchSize,
    BestBy,
    Factor,
    MetricOf,
    PredictionTrainingRecipe,
)
from seq2attn.recipe.vision_model import (
    AnyBackbone,
    ResNetRecipe,
    ViTRecipe,
)

ROW_BLOCKS = (
    "Attention blocks behind the convolutions of the {rows}, in this order; their stages are rows, from 1, "
    "the finest."
)


class RowBlockRecipe(BlockRecipe):
    """A block of attention behind the convolutions of the rows of a U-Net: {block: scse, stages: [2, 3]}."""

    every: Literal[1] = Field(1, description="Leave it out: a row has one place for a block.")
    at: Literal["after"] | None = Field(
        None, description="Leave it out: blocks stand behind the convolutions of a row."
    )

    @property
    def place(self) -> str:
        """See the base class."""
        return "after"

    def faults(self) -> Iterator[Fault]:
        """Find nothing: behind the convolutions there is a place for any block."""
        yield from ()


class UNetRecipe(Section):
    """A U-Net (Ronneberger et al. 2015): rows of two 3x3 convolutions, to half of the size and back."""

    kind: Literal["unet"] = Field(description="Type of network.")
    base: Size = Field(16, description="Channels of the first row; each further row has twice as many.")
    levels: Annotated[Size, Field(ge=2, le=8)] = Field(
        4, description="Number of rows; each has half the size of the one before."
    )
    norm: Annotated[str, Name(lambda: NORMS)] = Field("batch", description=NORM)
    encoder_blocks: list[RowBlockRecipe] = Field(
        [], description=ROW_BLOCKS.format(rows="rows on the way down")
    )
    decoder_blocks: list[RowBlockRecipe] = Field(
        [], description=ROW_BLOCKS.format(rows="rows on the way up") + " The coarsest row is none of them."
    )
    dropout: Rate = Field(0.0, description="Rate at which whole channels are dropped before the classifier.")

    @property
    def sizes(self) -> list[int]:
        """The channels of the rows."""
        return [self.base * 2**level for level in range(self.levels)]

    @property
    def blocks_path(self) -> str:
        """The key of the blocks that comparisons vary."""
        return "decoder_blocks"

    def faults(self) -> Iterator[Fault]:
        """Find blocks in rows that there are none of, and options that do not fit."""
        yield from block_faults("encoder_blocks", self.encoder_blocks, lambda place: self.sizes)
        yield from block_faults("decoder_blocks", self.decoder_blocks, lambda place: self.sizes[:-1])

    @classmethod
    def written_faults(cls, value: Any, error: ValidationError) -> Iterator[Fault]:
        """See the base class: those of the blocks that can be read."""
        yield from readable_faults(cls, value, error, "encoder_blocks", "decoder_blocks")

    def grid_notes(self, height: int, width: int) -> Iterator[str]:
        """Yield warnings of blocks that do not suit their grid, for the largest image."""
        sizes, strides = self.sizes, [2**level for level in range(self.levels)]
        yield from notes_of(self.encoder_blocks, strides, lambda place: sizes, (height, width))
        yield from notes_of(self.decoder_blocks, strides[:-1], lambda place: sizes[:-1], (height, width))


class HeadNetRecipe(Section):
    """A fully convolutional network (Long et al. 2015): a backbone, and a head over its last stage.

    DeepLabv3 is the head aspp, DANet is danet, CCNet is criss_cross.
    """

    kind: Literal["fcn"] = Field(description="Type of network.")
    backbone: AnyBackbone = Field(
        ResNetRecipe(kind="resnet", depth=18, output_stride=8), description="Network of the features."
    )
    head: Annotated[Part, Choice(BLOCKS)] = Field(
        "aspp",
        validate_default=True,
        description="aspp and danet are heads of their own; any other block, as criss_cross, stands between "
        "two 3x3 convolutions, and their result is joined with the features, as in CCNet.",
    )
    size: Size | None = Field(
        None,
        description="Channels of the head (of aspp: of a branch; danet has its ratio instead); null = a "
        "quarter of those of the features.",
    )
    norm: Annotated[str, Name(lambda: NORMS)] = Field(
        "batch", description=f"{NORM} Of the convolutions around the block and of the auxiliary classifiers."
    )
    dropout: Rate = Field(
        0.1,
        description="Rate at which whole channels are dropped before classifiers; aspp and danet have their "
        "own.",
    )
    auxiliary: Factor = Field(
        0.4,
        description="Factor of the losses of auxiliary classifiers, which only training uses: on the stage "
        "before the last (0.4 in CCNet), or of danet one on each of its two branches (1 in the paper); 0 = "
        "none.",
    )

    @property
    def blocks_path(self) -> str | None:
        """The key of the blocks that comparisons vary; None if the backbone has no places for any."""
        return "backbone.blocks" if hasattr(self.backbone, "blocks") else None

    @property
    def width(self) -> int:
        """The channels of the head."""
        return self.size or max(1, self.backbone.output_size // 4)

    def faults(self) -> Iterator[Fault]:
        """Find a head that cannot be built, and auxiliary classifiers without a place."""
        head, features = self.head.name, self.backbone.output_size
        if head == "danet" and self.size is not None:
            yield Fault("size", "danet takes its width from its ratio: leave size out")
        if head in ("aspp", "danet") and self.head.options.get("size") is not None:
            yield Fault("head.size", "is a key of the section: leave it out here")
        try:  # only its constructor knows which options can be combined
            with torch.device("meta"):
                block = self.head.make(BLOCKS, features if head in ("aspp", "danet") else self.width)
                if head not in ("aspp", "danet"):
                    keeping_channels(block)
        except Seq2attnError as error:
            yield Fault("head", str(error))
        strides: list[int] = getattr(self.backbone, "strides", [])
        if self.auxiliary and head != "danet" and len(strides) < 2:
            yield Fault(
                "auxiliary", "needs a stage before the last one, and the backbone has one: set it to 0"
            )

    def grid_notes(self, height: int, width: int) -> Iterator[str]:
        """Yield warnings of blocks and of a head that do not suit their grid, for the largest image."""
        if not isinstance(self.backbone, ViTRecipe):
            yield from self.backbone.grid_notes(height, width)
        channels = self.backbone.output_size if self.head.name in ("aspp", "danet") else self.width
        yield from grid_notes(self.head, channels, "model.head", self.backbone.stride, (height, width))


AnySegmenterRecipe = Annotated[UNetRecipe | HeadNetRecipe, ByKind({"unet": UNetRecipe, "fcn": HeadNetRecipe})]


class SegmentationTrainingRecipe(PredictionTrainingRecipe, ImageBatchesRecipe):
    """Training settings of segmentation."""

    batch_images: BatchSize = Field(16, description=f"Largest number of images in a batch. {AUTO_SIZE}")
    dice: Factor = Field(
        0.0,
        description="Factor of the soft Dice loss, beside the loss of each pixel: for each image 1 - the "
        "mean of 2 sum p t / (sum p + sum t) over the classes that it has, times its pixels; 0 = none.",
    )
    metric: Annotated[str, BestBy("masks")] = Field("miou", description=BEST)
    metrics: Annotated[list[Annotated[str, MetricOf("masks")]], Field(min_length=1), OneOrMore()] = Field(
        ["miou", "pixel-accuracy", "dice"], description=MEASURED_LABELS
    )


class SegmentationRecipe(AnyRecipe):
    """The recipe of a network that gives each pixel of an image a class."""

    task: Literal["segmentation"] = Field(description=TASK)
    data: SegmentationDataRecipe = Field(description="Corpora of images with masks.")
    text: None = Field(None, description="Images have no vocabulary: leave it out.")
    model: AnySegmenterRecipe = Field(UNetRecipe(kind="unet"), description="Network.")
    training: SegmentationTrainingRecipe = Field(description=LEARNING)

    @property
    def blocks_path(self) -> str | None:
        """See the base class."""
        path = self.model.blocks_path
        return None if path is None else f"model.{path}"

    def fitted_as(self, begun: AnyRecipe) -> Self:
        """See the base class."""
        recipe = super().fitted_as(begun)
        if not isinstance(begun, SegmentationRecipe):
            return recipe
        return recipe.model_copy(update={"data": filled(self.data, begun.data, *FITTED)})
