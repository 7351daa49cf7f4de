"""Section of a recipe: training of networks of images."""

from typing import Annotated

from pydantic import Field

from seq2attn.recipe.markers import OneOrMore
from seq2attn.recipe.sections import Size
from seq2attn.recipe.training import (
    AUTO_SIZE,
    BEST,
    MEASURED_LABELS,
    AnyLearningRecipe,
    BatchSize,
    BestBy,
    MetricOf,
    PredictionTrainingRecipe,
)

ImageMetric = Annotated[str, MetricOf("labelled images")]


class ImageBatchesRecipe(AnyLearningRecipe):
    """Training settings of tasks that read images."""

    batch_key, example_setting = "batch_images", "data.size"
    batch_images: BatchSize = Field(128, description=f"Largest number of images in a batch. {AUTO_SIZE}")
    batch_pixels: Size | None = Field(
        None,
        description="Largest number of pixels in a batch, padding included, for images of several sizes; "
        "null = any.",
    )


class ImageTrainingRecipe(PredictionTrainingRecipe, ImageBatchesRecipe):
    """Training settings of image classification."""

    metric: Annotated[str, BestBy("labelled images")] = Field("top-1", description=BEST)
    metrics: Annotated[list[ImageMetric], Field(min_length=1), OneOrMore()] = Field(
        ["top-1", "top-5"], description=MEASURED_LABELS
    )
