"""Sections of a recipe: networks that find objects in images, and their training."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import Self

from seq2attn.attention.positions import POSITIONS
from seq2attn.layers.basic import ACTIVATIONS
from seq2attn.layers.convolution import NORMS
from seq2attn.recipe.attention import AttentionRecipe
from seq2attn.recipe.box_data import DetectionDataRecipe
from seq2attn.recipe.graph import NORM
from seq2attn.recipe.image_data import FITTED
from seq2attn.recipe.image_training import ImageBatchesRecipe
from seq2attn.recipe.kinds import ByKind
from seq2attn.recipe.markers import OneOrMore
from seq2attn.recipe.root import LEARNING, TASK, AnyRecipe
from seq2attn.recipe.sections import Choice, Fault, Name, Part, Rate, Section, Size, filled
from seq2attn.recipe.training import BEST, BestBy, Factor, MetricOf
from seq2attn.recipe.vision_model import AnyBackbone, ResNetRecipe, grid_positions

BoxMetric = Annotated[str, MetricOf("boxes")]
MEASURED_BOXES = "Metrics of the final scores, of `score` and of validation."


class PointLossRecipe(Section):
    """Loss of the points of grids. A point is to learn the box with which t = score^alpha * overlap^beta is
    high (the task-aligned assigner of Feng et al. 2021). The losses of an update are divided once, by the sum
    of its target scores."""

    box: Factor = Field(7.5, description="Factor of 1 - CIoU of predicted and gold box (Zheng et al. 2020).")
    distances: Factor = Field(
        1.5, description="Factor of the distribution focal loss of the four distances (Li et al. 2020)."
    )
    classes: Factor = Field(0.5, description="Factor of the binary cross-entropy of the classes.")
    alpha: Factor = Field(0.5, description="Exponent of a point's score for the class of a box.")
    beta: Factor = Field(6.0, description="Exponent of the CIoU of its box with that box.")
    top: Size = Field(10, description="Number of points that learn a box: those with the highest t.")


class PointHeadRecipe(Section):
    """A head that predicts a box and classes at each point of several grids, without anchors (Tian et al.
    2019; Li et al. 2020)."""

    kind: Literal["points"] = Field(description="Type of head.")
    grids: Size | None = Field(
        None, description="Number of grids of the network, the coarsest ones; null = all."
    )
    width: Size = Field(64, description="Channels of the two convolutions before the outputs.")
    bins: Annotated[int, Field(ge=3, le=512)] = Field(
        16,
        description="Bins of the distance from a point to a side of its box, in multiples of the stride: the "
        "largest is bins - 1 strides.",
    )
    norm: Annotated[str, Name(lambda: NORMS)] = Field("batch", description=NORM)
    loss: PointLossRecipe = Field(PointLossRecipe(), description="Factors of the losses.")

    def stages(self, count: int) -> range:
        """Return which of the stages of a backbone it reads."""
        return range(count)[-(self.grids or count) :]

    def head_faults(self, count: int) -> Iterator[Fault]:
        """Find grids that a backbone with so many stages does not have."""
        if self.grids is not None and self.grids > count:
            yield Fault("grids", f"the network has {_counted(count)}, got {self.grids}")


class QueryLossRecipe(Section):
    """Loss of queries, which are matched one to one with boxes, at the least cost (Carion et al. 2020). The
    same factors are those of the cost."""

    classes: Factor = Field(1.0, description="Factor of the cross-entropy of the classes.")
    l1: Factor = Field(
        5.0, description="Factor of the absolute differences of centre and size, as shares of the image."
    )
    giou: Factor = Field(
        2.0, description="Factor of 1 - GIoU of predicted and gold box (Rezatofighi et al. 2019)."
    )
    nothing: Factor = Field(0.1, description="Weight of queries without a box in the cross-entropy.")


class QueryHeadRecipe(Section):
    """A head of learned queries that attend to one grid; each predicts a box, or nothing (Carion et al.
    2020)."""

    kind: Literal["queries"] = Field(description="Type of head.")
    grid: int = Field(-1, description="Grid of the network, from 0 = the finest; -1 = the coarsest.")
    queries: Size = Field(25, description="Number of queries: the most objects in an image.")
    size: Size = Field(128, description="Size of the states.")
    layers: Size = Field(2, description="Number of layers: attention to queries and grid, feed-forward.")
    self_attention: AttentionRecipe = Field(
        AttentionRecipe(heads=4), description="Attention of the queries to each other."
    )
    cross_attention: AttentionRecipe = Field(
        AttentionRecipe(heads=4), description="Attention of the queries to the grid."
    )
    positions: Annotated[Part, Choice(POSITIONS)] = Field(
        "sinusoidal_2d",
        validate_default=True,
        description="Positions of rows and columns that are added to the features of the grid.",
    )
    feed_forward: Size = Field(256, description="Inner size of the feed-forward layers.")
    activation: Annotated[str, Name(lambda: ACTIVATIONS)] = Field(
        "relu", description="Activation of the feed-forward layers."
    )
    norm: Literal["pre", "post"] = Field(
        "pre", description="Layer normalization before each sublayer (pre) or after its residual (post)."
    )
    dropout: Rate = Field(0.0, description="Dropout rate of each sublayer.")
    loss: QueryLossRecipe = Field(QueryLossRecipe(), description="Factors of the losses.")

    def stages(self, count: int) -> range:
        """Return which of the stages of a backbone it reads."""
        index = self.grid % count
        return range(index, index + 1)

    def faults(self) -> Iterator[Fault]:
        """Find attentions that do not fit queries, and positions that are not added on a grid."""
        for path in ("self_attention", "cross_attention"):
            section: AttentionRecipe = getattr(self, path)
            yield from section.head_size_faults(path, self.size)
            yield from section.incompatibilities(path, "pooling")
        yield from grid_positions(self.positions)

    def head_faults(self, count: int) -> Iterator[Fault]:
        """Find a grid that a backbone with so many stages does not have."""
        if not -count <= self.grid < count:
            yield Fault("grid", f"the network has {_counted(count)}, 0 to {count - 1}; got {self.grid}")


AnyBoxHead = Annotated[
    PointHeadRecipe | QueryHeadRecipe, ByKind({"points": PointHeadRecipe, "queries": QueryHeadRecipe})
]


class DetectorRecipe(Section):
    """A network that finds objects in images."""

    backbone: AnyBackbone = Field(ResNetRecipe(kind="resnet"), description="Network of the features.")
    head: AnyBoxHead = Field(PointHeadRecipe(kind="points"), description="What predicts the boxes.")

    @property
    def attention_path(self) -> str | None:
        """Return the key of the attention of the queries to the grid, below the section; None without."""
        return "head.cross_attention" if isinstance(self.head, QueryHeadRecipe) else None

    def faults(self) -> Iterator[Fault]:
        """Find grids that the network does not have."""
        for fault in self.head.head_faults(len(self.backbone.strides)):
            yield Fault(f"head.{fault.path}", fault.message)


class DetectionTrainingRecipe(ImageBatchesRecipe):
    """Training settings of object detection. The losses are those of `model.head.loss`."""

    metric: Annotated[str, BestBy("boxes")] = Field("ap", description=BEST)
    metrics: Annotated[list[BoxMetric], Field(min_length=1), OneOrMore()] = Field(
        ["ap", "ap50", "ap75"], description=MEASURED_BOXES
    )


class DetectionRecipe(AnyRecipe):
    """The recipe of a network that finds objects in images."""

    task: Literal["detection"] = Field(description=TASK)
    data: DetectionDataRecipe = Field(description="Corpora of images with boxes.")
    text: None = Field(None, description="Images have no vocabulary: leave it out.")
    model: DetectorRecipe = Field(DetectorRecipe(), description="Network.")
    training: DetectionTrainingRecipe = Field(description=LEARNING)

    @property
    def attention_path(self) -> str | None:
        """The key of the attention of queries to the grid, which comparisons vary; None if there is none."""
        path = self.model.attention_path
        return None if path is None else f"model.{path}"

    @property
    def blocks_path(self) -> str | None:
        """See the base class."""
        return "model.backbone.blocks" if self.model.backbone.takes_blocks else None

    def fitted_as(self, begun: AnyRecipe) -> Self:
        """See the base class."""
        recipe = super().fitted_as(begun)
        if not isinstance(begun, DetectionRecipe):
            return recipe
        return recipe.model_copy(update={"data": filled(self.data, begun.data, *FITTED)})


def _counted(count: int) -> str:
    return f"{count} grids" if count > 1 else "a single grid"
