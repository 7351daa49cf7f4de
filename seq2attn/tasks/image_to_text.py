"""The task that writes a text from an image: captions, handwritten formulas."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import Self

from seq2attn.data import DataError, Role
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.data.files import fetched
from seq2attn.data.image_batches import normalization
from seq2attn.data.image_texts import ImageTextLoader, ImageTokenizer, prepare_image_texts
from seq2attn.data.images import ImageExamples
from seq2attn.data.report import Report, silent
from seq2attn.inference.captioner import Captioner
from seq2attn.inference.generator import Generator
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.models.vision.factory import build_image_to_text
from seq2attn.recipe.roots import ImageToTextRecipe
from seq2attn.recipe.sections import learned_positions
from seq2attn.tasks.image_task import ImageTask
from seq2attn.tasks.sequence_tasks import token_objective, validating_settings
from seq2attn.tasks.task import Rows, Units, read_part
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.vocabulary_training import train_vocabulary
from seq2attn.training.objectives import TokenObjective
from seq2attn.training.run_folder import RunFolder

NAME = "text/target.model"


class ImageToTextTask(ImageTask[ImageToTextRecipe]):
    """Writing a text from an image."""

    units = Units("images", "pieces of its text an image", "target tokens")
    vocabulary_tensors = ("decoder.embedding.table.", "decoder.output.")

    def __init__(self, recipe: ImageToTextRecipe, target: Vocabulary) -> None:
        self.recipe, self.target = recipe, target

    @classmethod
    def learned(cls, recipe: ImageToTextRecipe) -> str:
        """See the base class."""
        return "the vocabulary" if recipe.text.file is None else ""

    @classmethod
    def learn(cls, recipe: ImageToTextRecipe) -> Self:
        """See the base class: the vocabulary of all texts of the training images."""
        text = recipe.text
        if text.file is not None:
            return cls(recipe, Vocabulary.load(fetched(text.file, "text.file"), text.words))
        training = prepare_image_texts(recipe.data.train, recipe.data, "train")
        target = train_vocabulary(
            list(chain.from_iterable(map(training.references, range(len(training))))),
            model=text.model,
            size=text.size,
            byte_fallback=text.byte_fallback,
            character_coverage=text.character_coverage,
            lowercase=text.lowercase,
            nfkc=text.nfkc,
            words=text.words,
            seed=recipe.seed,
        )
        text = text.model_copy(update={"size": text.size or target.size})
        return cls(recipe.model_copy(update={"text": text}), target)

    @classmethod
    def keep(cls, recipe: ImageToTextRecipe, folder: RunFolder) -> Self:
        """See the base class."""
        return cls.open(recipe, folder)

    def rows_of(self, other: Self) -> Mapping[str, Rows]:
        """See the base class."""
        names = ("decoder.embedding.table.weight", "decoder.output.weight", "decoder.output.bias")
        return dict.fromkeys(names, self.target.rows_in(other.target))

    @classmethod
    def open(cls, recipe: ImageToTextRecipe, folder: RunFolder) -> Self:
        """See the base class."""
        return cls(recipe, read_part(folder, NAME, partial(Vocabulary, words=recipe.text.words)))

    def files(self) -> dict[str, bytes]:
        """See the base class."""
        return {NAME: self.target.model}

    @property
    def vocabulary(self) -> str:
        """See the base class."""
        return f"{self.target.size:,} pieces"

    @property
    def tokenizer(self) -> ImageTokenizer:
        """What makes batches of images, and has the vocabulary of texts."""
        stride = self.recipe.model.encoder.backbone.stride
        return ImageTokenizer(self.target, normalization(self.recipe.data), stride)

    def examples(self, role: Role, progress: Callable[[Report], object] = silent) -> ImageExamples:
        """See the base class. DataError also for a text that the decoder has no positions for."""
        examples = prepare_image_texts(self.corpora(role), self.recipe.data, role, progress)
        limit = learned_positions(self.recipe.model.decoder)
        if limit is None or role == "test":
            return examples
        texts = chain.from_iterable(map(examples.references, range(len(examples))))
        longest = max(map(len, self.target.encode(list(texts))))
        if longest >= limit:
            raise DataError(
                f"data.{role}: a text has {longest:,} pieces, and with its learned positions the decoder can "
                f"write {limit - 1:,}: raise model.decoder.positions.length to {longest + 1}"
            )
        return examples

    def lengths(self, examples: ImageExamples) -> NDArray[np.int32]:
        """See the base class: those of first texts."""
        return np.array([len(ids) for ids in self.target.encode(examples.targets)], dtype=np.int32)

    def fitted(self, training: ImageExamples) -> Self:
        """See the base class; also the longest output as a multiple of the number of the encoder's states."""
        stride = self.recipe.model.encoder.backbone.stride
        positions = -(-training.heights // stride) * -(-training.widths // stride)
        decoding = self.recipe.decoding.fitted(positions + 1, self.lengths(training))
        recipe = self.recipe.model_copy(update={"decoding": decoding})
        return super(ImageToTextTask, self.with_recipe(recipe)).fitted(training)

    def batches(self, examples: ImageExamples) -> AnyBatchLoader:
        """See the base class."""
        return ImageTextLoader(examples, self.tokenizer, self.recipe.data, self.limits, self.recipe.seed)

    def build(self) -> Seq2Seq:
        """See the base class."""
        return build_image_to_text(self.recipe.model, self.recipe.data.num_channels, self.target.size)

    def objective(self, model: Seq2Seq, training: bool = False) -> TokenObjective:
        """See the base class: in training the losses of the recipe, else cross-entropy."""
        return token_objective(model, self.recipe.training) if training else TokenObjective()

    def predictor(
        self, model: Seq2Seq, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> Captioner:
        """See the base class."""
        decoding = self.recipe.decoding
        decoding = validating_settings(decoding) if validating else decoding
        generator = Generator(model, self.tokenizer, device, precision)
        return Captioner(generator, decoding, reader=self.recipe.data.reader(limited=True))

    @property
    def baselines(self) -> Mapping[str, Callable[[Any], str]]:
        """See the base class: the most frequent text of the training data."""
        return {"most frequent": lambda _: self._most_frequent}

    @cached_property
    def _most_frequent(self) -> str:
        training = prepare_image_texts(self.recipe.data.train, self.recipe.data, "train")
        counts = Counter(chain.from_iterable(map(training.references, range(len(training)))))
        return max(sorted(counts), key=counts.__getitem__)

    def summary(self, training: ImageExamples, dev: ImageExamples) -> Iterator[tuple[str, str]]:
        """See the base class: sizes of images, numbers of texts, and texts that cannot be written."""
        sides = f"{np.median(training.widths):.0f}x{np.median(training.heights):.0f}"
        most = f"{training.widths.max()}x{training.heights.max()}"
        yield "images", f"median {sides} pixels (width x height), largest sides {most}"
        counts = [len(training.references(row)) for row in range(len(training))]
        if max(counts) > 1:
            yield "texts", f"{min(counts)} to {max(counts)} an image; each epoch draws one"
        texts = list(chain.from_iterable(map(dev.references, range(len(dev)))))
        written = [self.target.decode(ids) for ids in self.target.encode(texts)]
        lost = [pair for pair in zip(texts, written, strict=True) if pair[0].split() != pair[1].split()]
        if lost:
            text, best = lost[0]
            yield (
                "targets",
                f"{len(lost):,} of {len(texts):,} in dev cannot be written as they are (text.model, nfkc, "
                f"lowercase, byte_fallback): {text[:40]!r} becomes {best[:40]!r}",
            )

    @classmethod
    def reinforced(cls, recipe: ImageToTextRecipe, path: str) -> bool:
        """See the base class."""
        losses = recipe.training.attention_losses
        return losses is not None and losses.reinforce > 0 and "self_attention" not in path
