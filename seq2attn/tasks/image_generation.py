"""The task that generates images like those of the data."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from typing_extensions import Self

from seq2attn.data import Role
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.data.image_plan import BatchLimits
from seq2attn.data.images import ImageExamples, learn_labels, prepare_images
from seq2attn.data.latent_batches import LatentBatchLoader
from seq2attn.data.report import Report, silent
from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import Pixels
from seq2attn.inference.image_features import ClassifierFeatures, FeatureExtractor, PixelFeatures
from seq2attn.inference.image_generator import ImageGenerator
from seq2attn.metrics import Score, defined_scores
from seq2attn.metrics.generation import ImageFeatures
from seq2attn.models.vision.discriminators import AdversarialPair
from seq2attn.models.vision.factory import build_adversarial
from seq2attn.pretrained.located import located
from seq2attn.recipe.image_generation import ImageGenerationRecipe
from seq2attn.recipe.roots import ImageClassificationRecipe
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.tasks.image_task import ImageTask
from seq2attn.tasks.image_tasks import ImageClassificationTask
from seq2attn.tasks.task import LABELS, Evaluation, Outputs, Units, read_part
from seq2attn.text.word_vocabulary import Labels
from seq2attn.training.adversarial import AdversarialObjective
from seq2attn.training.run_folder import RunError, RunFolder
from seq2attn.training.weights import load_weights
from seq2attn.views.sheets import png, sheet

NOISE = 0.1  # standard deviation of the noise of a baseline; pixels are from 0 to 1
HASH = 6  # digits of the hash of a classifier's weights, in the names of scores
COLUMNS = 8  # of the sheet of a validation


class ImageGenerationTask(ImageTask[ImageGenerationRecipe]):
    """Generation of images. labels: the classes, None if the model is not conditional."""

    units = Units("images", "pixels an image", "images")
    hub_name = "unconditional-image-generation"
    refusal = (
        "generated images have no sources and no references: score the run by itself, or with --data dev"
    )

    def __init__(self, recipe: ImageGenerationRecipe, labels: Labels | None) -> None:
        self.recipe, self.labels = recipe, labels

    @classmethod
    def learn(cls, recipe: ImageGenerationRecipe) -> Self:
        """See the base class: if the model is conditional, the labels of training data and dev set."""
        return cls(recipe, learn_labels(recipe.data) if recipe.model.conditional else None)

    @classmethod
    def learned(cls, recipe: ImageGenerationRecipe) -> str:
        """See the base class."""
        return super().learned(recipe) if recipe.model.conditional else ""

    @classmethod
    def open(cls, recipe: ImageGenerationRecipe, folder: RunFolder) -> Self:
        """See the base class."""
        conditional = recipe.model.conditional
        return cls(recipe, read_part(folder, LABELS, Labels.read) if conditional else None)

    def files(self) -> dict[str, bytes]:
        """See the base class."""
        return {} if self.labels is None else {LABELS: self.labels.content}

    @property
    def vocabulary(self) -> str:
        """See the base class."""
        return "none: labels do not count" if self.labels is None else f"{len(self.labels.names)} classes"

    def examples(self, role: Role, progress: Callable[[Report], object] = silent) -> ImageExamples:
        """See the base class."""
        return prepare_images(self.corpora(role), self.recipe.data, role, progress)

    @classmethod
    def warnings(cls, recipe: ImageGenerationRecipe) -> Iterator[str]:
        """See the base class; also of a norm that the gradient penalty does not allow for."""
        yield from super().warnings(recipe)
        if recipe.training.loss == "wgan_gp" and recipe.model.discriminator.norm == "batch":
            yield (
                "model.discriminator.norm: with batch norm a score depends on all images of a batch, and the "
                "penalty of wgan_gp is on the gradient at a single one (Gulrajani et al. 2017): use group or "
                "none"
            )

    def fitted(self, training: ImageExamples) -> Self:
        """See the base class; the pixels are scaled for tanh, whatever their mean."""
        recipe = self.recipe.model_copy(update={"data": self.recipe.data.scaled()})
        return super(ImageGenerationTask, self.with_recipe(recipe)).fitted(training)

    @property
    def limits(self) -> BatchLimits:
        """See the base class: all images have one size."""
        return BatchLimits(self.recipe.training.batch_size)

    def batches(self, examples: ImageExamples) -> AnyBatchLoader:
        """See the base class."""
        recipe, data, limits = self.recipe, self.recipe.data.scaled(), self.limits
        return LatentBatchLoader(examples, self.labels, data, limits, recipe.model.latent, recipe.seed)

    def build(self) -> AdversarialPair:
        """See the base class."""
        data, names = self.recipe.data, () if self.labels is None else self.labels.names
        if data.shape is None:
            raise Seq2attnError("expected data.size, the size of the images; got null")
        return build_adversarial(self.recipe.model, data.num_channels, data.shape, names)

    def objective(self, model: AdversarialPair, training: bool = False) -> AdversarialObjective:
        """See the base class."""
        settings = self.recipe.training
        return AdversarialObjective(
            model, settings.loss, settings.gradient_penalty, settings.discriminator_steps, training
        )

    def predictor(
        self, model: Any, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> ImageGenerator:
        """See the base class."""
        return ImageGenerator(model, self.recipe.data, device, precision)

    def illustration(self, predictor: ImageGenerator) -> bytes | None:
        """See the base class: a sheet of images, of the same latent vectors each time."""
        count = self.recipe.training.sheet
        if not count:
            return None
        return png(sheet([image.pixels for image in predictor.generate(count, self.recipe.seed)], COLUMNS))

    # ---- scores ----------------------------------------------------------------------------------------

    def measured_by(self, features: str) -> Self:
        """See the base class: a run of image classification."""
        training = self.recipe.training.model_copy(update={"features": features})
        return self.with_recipe(self.recipe.model_copy(update={"training": training}))

    def features(self, device: torch.device) -> FeatureExtractor:
        """Return what computes the features that metrics compare. RunError if the recipe names a run of
        another task."""
        run = self.recipe.training.features
        if run is None:
            return PixelFeatures()
        folder = RunFolder.open(located(run))
        recipe = folder.recipe
        if not isinstance(recipe, ImageClassificationRecipe):
            raise RunError(f"{run} was trained for {recipe.task}: features are those of image_classification")
        task = ImageClassificationTask.open(recipe, folder)
        model = task.empty()
        load_weights(model, folder.load_weights("best"), folder.path)
        checksum = folder.version.checksums[f"weights/{folder.version.best}"]
        return ClassifierFeatures(task.predictor(model, device), f"{recipe.name}@{checksum[:HASH]}")

    def evaluate(
        self,
        predictor: ImageGenerator,  # type: ignore[override]
        examples: ImageExamples,
        metrics: Sequence[str],
        rows: Sequence[int] | None = None,
        bootstrap: int = 1000,
        group: Group = ALONE,
    ) -> Evaluation:
        """Compare as many generated images with real ones, of the same classes if that counts.

        All processes of a group compute all of it: distances are of whole sets."""
        rows = range(len(examples)) if rows is None else rows
        labels = None if self.labels is None else [examples.target_text(row) for row in rows]
        latents = predictor.latents(self.recipe.seed, range(len(rows)))
        features = self.features(predictor.device)
        samples, real = features(predictor.pixels(latents, labels)), features(self.inputs(examples, rows))
        scores, undefined = defined_scores(samples, real, metrics, 0)
        return Evaluation(scores, undefined=undefined)

    def undefined(
        self, examples: ImageExamples, rows: Sequence[int], metrics: Sequence[str]
    ) -> Mapping[str, str]:
        """See the base class: by the features of real images."""
        real = self.features(torch.device("cpu"))(self.inputs(examples, rows))
        return defined_scores(real, real, metrics, 0)[1]

    def outputs(
        self,
        predictor: ImageGenerator,
        examples: ImageExamples,
        rows: Sequence[int] | None = None,
        group: Group = ALONE,
    ) -> Outputs:
        """Refuse: metrics compare whole sets of images. Seq2attnError."""
        raise Seq2attnError(
            "metrics of generated images have one value for a whole set, which cannot be resampled by image"
        )

    def evaluate_baselines(self, examples: ImageExamples, metrics: Sequence[str]) -> dict[str, list[Score]]:
        """See the base class: as many training images, the floor that no model is expected to go below; and
        the real images with noise."""
        features, rows = self.features(torch.device("cpu")), range(len(examples))
        real = features(self.inputs(examples, rows))
        training, random = self.examples("train"), np.random.default_rng(self.recipe.seed)
        chosen = random.permutation(len(training))[: len(rows)].tolist()
        floor = features(map(training.image, chosen))
        noisy = features(map(partial(_noisy, random), self.inputs(examples, rows)))
        return {
            "training images": _scores(floor, real, metrics),
            f"noise of {NOISE}": _scores(noisy, real, metrics),
        }

    def summary(self, training: ImageExamples, dev: ImageExamples) -> Iterator[tuple[str, str]]:
        """See the base class: how often each class occurs, and by what metrics compare."""
        if self.labels is not None:
            counts = Counter(training.targets)
            yield "classes", ", ".join(f"{label} {count:,}" for label, count in counts.most_common(12))
        yield (
            "features",
            self.recipe.training.features or "pixels, averaged to 8x8 (training.features names none)",
        )


def _scores(samples: ImageFeatures, real: ImageFeatures, metrics: Sequence[str]) -> list[Score]:
    return [*defined_scores(samples, real, metrics, 0)[0].values()]


def _noisy(random: np.random.Generator, image: Pixels) -> Pixels:
    """Return an image with Gaussian noise in each of its values."""
    noise = random.normal(0.0, 255 * NOISE, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
