"""The recipe of models that generate images, and its sections."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from seq2attn.recipe.blocks import AnyBlockRecipe
from seq2attn.recipe.image_data import ImageDataRecipe, NormalizeRecipe
from seq2attn.recipe.markers import OneOrMore, PathField
from seq2attn.recipe.root import LEARNING, TASK, AnyRecipe
from seq2attn.recipe.sections import Count, Fault, Section, Size
from seq2attn.recipe.training import AUTO_SIZE, BEST, AnyLearningRecipe, BatchSize, BestBy, MetricOf

OF_CLASSES = "class-entropy"  # the metric that needs probabilities of classes
GenerationMetric = Annotated[str, MetricOf("generated images")]
Sizes = Annotated[list[Size], Field(min_length=1, max_length=8)]
GridNorm = Literal["batch", "group", "none"]
KIND = (
    "residual: units of two 3x3 convolutions (Zhang et al. 2019, SAGAN); dcgan: 4x4 convolutions with a "
    "stride of 2 (Radford et al. 2016)."
)
SPECTRAL = (
    "Divide the weights of all layers, but that of latent vectors, by their largest singular value "
    "(Miyato et al. 2018)."
)


class GenerationDataRecipe(ImageDataRecipe):
    """Corpora of images to be imitated. Their labels count only if the model is conditional."""

    @property
    def scale(self) -> NormalizeRecipe:
        """The normalisation that brings pixels to -1 to 1."""
        half = [0.5] * self.num_channels
        return NormalizeRecipe(mean=half, std=half)

    def scaled(self) -> "GenerationDataRecipe":
        """Return the section with this normalisation."""
        return self.model_copy(update={"normalize": self.scale})

    def faults(self) -> Iterator[Fault]:
        """See the base class; also find sizes that differ, another scale of pixels, and mixed images."""
        yield from super().faults()
        if not self.fixed_size:
            yield Fault(
                "size", "generated images have one size: set size, as 32, and resize to crop or stretch"
            )
        if self.normalize is not None and {*self.normalize.mean, *self.normalize.std} != {0.5}:
            yield Fault("normalize", "generated pixels are from -1 to 1: leave it out")
        if any(part.name == "mixup" for part in self.augment):
            yield Fault("augment", "the model would learn to generate mixed images: leave mixup out")


class GridBlockRecipe(AnyBlockRecipe):
    """A block of attention, and the grid on which it stands: {block: nonlocal, form: sagan, grid: 16}."""

    grid: Size = Field(description="Height of the grid, in positions.")


class _PlayerRecipe(Section):
    kind: Literal["residual", "dcgan"] = Field("residual", description=KIND)
    blocks: list[GridBlockRecipe] = Field([], description="Attention blocks, on grids of these heights.")

    def grids(self, height: int) -> dict[int, int]:
        """Return the channels of each grid on which a block may stand, by its height, for images of this
        height."""
        raise NotImplementedError(f"{type(self).__name__} must define grids()")

    def misplaced(self, height: int) -> Iterator[Fault]:
        """Find blocks on grids that there are none of, and options that do not fit their channels."""
        grids = self.grids(height)
        for index, section in enumerate(self.blocks):
            if section.grid not in grids:
                there = ", ".join(map(str, grids))
                yield Fault(
                    f"blocks.{index}.grid",
                    f"expected the height of a grid of this network, {there}; got {section.grid}",
                )
            elif (why := section.misfit(channels := grids[section.grid])) is not None:
                yield Fault(f"blocks.{index}.block", f"{why} (this grid has {channels} channels)")


class GeneratorRecipe(_PlayerRecipe):
    """The network that generates images."""

    sizes: Sizes = Field(
        [128, 64, 32],
        description="Channels from the smallest grid on, each of which doubles it: three make 32x32 of 4x4.",
    )
    norm: GridNorm = Field(
        "batch",
        description="Norm before each ReLU; in conditional models its gain and bias belong to the class.",
    )
    spectral_norm: bool = Field(True, description=SPECTRAL)

    def grids(self, height: int) -> dict[int, int]:
        """See the base class."""
        base = height // 2 ** len(self.sizes)
        if self.kind == "dcgan":
            return {base * 2**number: size for number, size in enumerate(self.sizes)}
        return {base * 2**number: size for number, size in enumerate([self.sizes[0], *self.sizes])}


class DiscriminatorRecipe(_PlayerRecipe):
    """The network that tells generated images from real ones."""

    sizes: Sizes = Field([32, 64, 128], description="Channels after each halving of the grid.")
    norm: GridNorm = Field(
        "none", description="Norm within the network; batch belongs to DCGAN, and not to wgan_gp."
    )
    spectral_norm: bool = Field(True, description=SPECTRAL)

    def grids(self, height: int) -> dict[int, int]:
        """See the base class."""
        return {height // 2**number: size for number, size in enumerate(self.sizes, 1)}


class GenerationModelRecipe(Section):
    """A generator and a discriminator, which are trained against each other."""

    latent: Size = Field(128, description="Size of the random vectors that images are made of.")
    conditional: bool = Field(
        False,
        description="Generate images of given classes: gain and bias of the generator's norms belong to the "
        "class (Dumoulin et al. 2017), and the discriminator scores it by a projection (Miyato & Koyama "
        "2018).",
    )
    generator: GeneratorRecipe = Field(GeneratorRecipe(), description="Network that generates images.")
    discriminator: DiscriminatorRecipe = Field(
        DiscriminatorRecipe(), description="Network that tells generated images from real ones."
    )

    def faults(self) -> Iterator[Fault]:
        """Find a conditional generator that never learns of the class."""
        if self.conditional and self.generator.norm == "none":
            yield Fault(
                "generator.norm", "in a conditional model the norm brings in the class: use batch or group"
            )


class GenerationTrainingRecipe(AnyLearningRecipe):
    """Training settings of models that generate images. Steps count updates of the discriminator."""

    batch_key, example_setting = "batch_images", "data.size"
    batch_images: BatchSize = Field(64, description=f"Largest number of images in a batch. {AUTO_SIZE}")
    loss: Literal["hinge", "non_saturating", "wgan_gp"] = Field(
        "hinge",
        description="hinge: of both margins (Lim & Ye 2017); non_saturating: cross-entropy, "
        "for the generator with exchanged labels (Goodfellow et al. 2014); wgan_gp: mean scores, and a "
        "penalty of the discriminator's gradient (Gulrajani et al. 2017).",
    )
    gradient_penalty: float = Field(
        10.0, ge=0, description="Factor of (|gradient| - 1)^2 between real and generated images, for wgan_gp."
    )
    discriminator_steps: Size = Field(
        1, description="Updates of the discriminator for each of the generator, with a new batch each."
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="Optimizer.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate of the generator.")
    discriminator_learning_rate: float | None = Field(
        4e-4,
        gt=0,
        description="Peak learning rate of the discriminator (Heusel et al. 2017); null = the same.",
    )
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.0, 0.9), description="Decay rates of the moment estimates of adam and adamw."
    )
    clip: float | None = Field(
        None, gt=0, description="Largest norm of the gradient, to which it is clipped; null = no clipping."
    )
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999,
        description="Decay of an exponential moving average of the generator's weights, with which images "
        "are generated; 0 = none. It rises to this value: after n updates it is at most (1 + n) / (10 + n).",
    )
    features: Annotated[str, PathField("folder")] | None = Field(
        None,
        description="Run of image classification whose features metrics compare, a folder or "
        "hf://user/name; null = pixels, averaged to 8x8.",
    )
    sheet: Count = Field(
        64,
        description="Images in samples/step-N.png of the run folder, of the same latents at each validation.",
    )
    metric: Annotated[str, BestBy("generated images")] = Field("frechet", description=BEST)
    metrics: Annotated[list[GenerationMetric], Field(min_length=1), OneOrMore()] = Field(
        ["frechet", "kernel", "sample-precision", "sample-recall"],
        description="Metrics of the final scores, of `score` and of validation.",
    )

    def rate_of(self, player: str) -> float:
        """See the base class."""
        if player == "discriminator" and self.discriminator_learning_rate is not None:
            return self.discriminator_learning_rate
        return self.learning_rate

    def faults(self) -> Iterator[Fault]:
        """See the base class; also find a metric of classes without a classifier."""
        yield from super().faults()
        if self.features is None and OF_CLASSES in (self.metric, *self.metrics):
            yield Fault("features", f"{OF_CLASSES} needs a classifier: name a run of image classification")
        if self.sharded:
            yield Fault("sharded", "generator and discriminator train in turns, as a whole: leave it out")


class ImageGenerationRecipe(AnyRecipe):
    """The recipe of a model that generates images."""

    task: Literal["image_generation"] = Field(description=TASK)
    data: GenerationDataRecipe = Field(description="Corpora of images.")
    text: None = Field(None, description="Images have no vocabulary: leave it out.")
    model: GenerationModelRecipe = Field(GenerationModelRecipe(), description="Generator and discriminator.")
    training: GenerationTrainingRecipe = Field(description=LEARNING)

    def fitted_as(self, begun: AnyRecipe) -> "ImageGenerationRecipe":
        """See the base class."""
        recipe = super().fitted_as(begun)
        return recipe.model_copy(update={"data": self.data.scaled()})

    def faults(self) -> Iterator[Fault]:
        """See the base class; also find grids that do not become the images, and blocks on none of them."""
        yield from super().faults()
        shape = self.data.shape
        if shape is None:
            return
        for name in ("generator", "discriminator"):
            player = getattr(self.model, name)
            times = 2 ** len(player.sizes)
            if any(side % times for side in shape):
                yield Fault(
                    f"model.{name}.sizes",
                    f"{len(player.sizes)} sizes are for images of a multiple of {times} pixels, and "
                    f"data.size is {shape[0]}x{shape[1]}: give fewer sizes, or another data.size",
                )
                continue
            for fault in player.misplaced(shape[0]):
                yield Fault(f"model.{name}.{fault.path}", fault.message)
