"""Images as sources of texts: batches of them, and of the texts that a model learns to write."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.attention.memory import Grid
from seq2attn.data.batch_plan import Indices
from seq2attn.data.batches import Batch, PairIds, collate
from seq2attn.data.corpora import Role
from seq2attn.data.image_batches import ImageBatches, collate_images
from seq2attn.data.image_corpora import ImageRow, open_images
from seq2attn.data.image_corpora import ImageSource as Images
from seq2attn.data.image_plan import BatchLimits, by_size, fill_images
from seq2attn.data.images import PLAIN, ImageExamples, ImageKind, image_parts
from seq2attn.data.report import Report, silent
from seq2attn.images.decoding import Pixels
from seq2attn.recipe.image_data import (
    AnyImageDataRecipe,
    AnyImageTexts,
    ImageTextDataRecipe,
    NormalizeRecipe,
)
from seq2attn.text.vocabulary import Vocabulary


def prepare_image_texts(
    corpora: Sequence[AnyImageTexts],
    data: ImageTextDataRecipe,
    role: Role,
    progress: Callable[[Report], object] = silent,
) -> ImageExamples:
    """Read and decode images with texts, as `prepare_images` does. Of training data, texts of more than
    `data.max_words` words are left out, and images that are left without a text."""
    most = data.max_words if role == "train" else None
    kind = PLAIN if most is None else ImageKind(partial(_open_short, most))
    return ImageExamples(image_parts(corpora, data, role, kind, progress), data.reader())


def _open_short(most: int, corpus: AnyImageTexts, role: Role, key: str) -> Images:
    """Open a corpus whose texts have at most this many words."""
    source = open_images(corpus, role, key)

    def read(report: Report) -> Iterator[ImageRow]:
        for row in source.read(report):
            short = [text for text in row.targets if len(text.split()) <= most]
            if len(short) < len(row.targets):
                report.note(f"text of more than {most} words", row.where, len(row.targets) - len(short))
            report.read += not short
            if short:
                yield row._replace(targets=short)

    return source._replace(state=[source.state, most], read=read)


class ImageSource(NamedTuple):
    """A batch of images, normalised, and padded with zeros at the bottom and on the right."""

    images: Tensor  # (B, C, H, W), float32
    pixel_mask: Tensor | None  # (B, 1, H, W), bool, True = a pixel of the image; None: there is no padding
    mask: Tensor  # (B, S), bool, True = a position of the encoder's grid that lies on the image

    @property
    def inputs(self) -> tuple[Tensor, Tensor | None]:
        """What the encoder reads."""
        return self.images, self.pixel_mask

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the batch, for messages."""
        return tuple(self.images.shape)

    @property
    def copy_ids(self) -> None:
        """None: nothing is copied from an image."""

    @property
    def sentence_ids(self) -> None:
        """None: an image has no sentences."""

    def to(self, device: torch.device) -> "ImageSource":
        """Move to a device."""
        images, mask = (part.to(device, non_blocking=True) for part in (self.images, self.mask))
        pixels = None if self.pixel_mask is None else self.pixel_mask.to(device, non_blocking=True)
        return ImageSource(images, pixels, mask)


class ImageTokenizer:
    """Turns images into batches of sources, and has the vocabulary of their texts.

    stride: how many pixels there are between two positions of the encoder's grid.
    """

    smaller = "smaller images"

    def __init__(self, target: Vocabulary, normalize: NormalizeRecipe, stride: int) -> None:
        self.target, self.normalize, self.stride = target, normalize, stride

    def grid(self, image: Pixels) -> Grid:
        """Return the rows and columns of the encoder's states of an image."""
        rows, columns = (-(-side // self.stride) for side in image.shape[:2])
        return rows, columns

    def lengths(self, sources: Sequence[Pixels]) -> NDArray[np.int32]:
        """See Collator."""
        rows, columns = self._grids(sources)
        return rows * columns

    def plan(
        self, sources: Sequence[Pixels], batch_tokens: int, target_lengths: NDArray[np.int32] | None = None
    ) -> list[Indices]:
        """See Collator; lengths of targets, which are short beside images, change nothing."""
        rows, columns = self._grids(sources)
        order = by_size(rows, columns, np.arange(len(sources)))
        return fill_images(order, rows, columns, BatchLimits(max(1, len(sources)), batch_tokens))

    def collate(self, sources: Sequence[Pixels]) -> ImageSource:
        """See Collator."""
        images, mask = collate_images(sources, self.normalize)
        whole = (
            torch.ones(len(images), 1, *images.shape[2:], dtype=torch.bool, device="cpu")
            if mask is None
            else mask
        )
        return ImageSource(images, mask, whole[..., :: self.stride, :: self.stride].flatten(1))

    def _grids(self, sources: Sequence[Pixels]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        grids = np.array([self.grid(image) for image in sources], dtype=np.int32).reshape(-1, 2)
        return grids[:, 0], grids[:, 1]


class ImageTextLoader(ImageBatches):
    """Loads images and their texts as batches.

    In an epoch of training one of the texts of an image is drawn, by (seed, epoch, index); otherwise it is
    the first.
    """

    def __init__(
        self,
        examples: ImageExamples,
        tokenizer: ImageTokenizer,
        data: AnyImageDataRecipe,
        limits: BatchLimits,
        seed: int = 1,
    ) -> None:
        super().__init__(examples, data, limits, seed)
        self.tokenizer = tokenizer
        self._targets = [tokenizer.target.encode(examples.references(row)) for row in range(len(examples))]
        self.lengths = np.array([len(first) for first, *_ in self._targets], dtype=np.int32)

    def batch(self, indices: Indices, epoch: int | None = None) -> Batch:
        """Return the images with these indices."""
        return collate(self.tokenizer, [self._pair(row, epoch) for row in indices.tolist()])

    def _pair(self, row: int, epoch: int | None) -> PairIds:
        targets: list[Any] = self._targets[row]
        number = 0
        if epoch is not None and len(targets) > 1:
            number = int(np.random.default_rng([self.seed, epoch, row, 2]).integers(len(targets)))
        return PairIds(self.image(row, epoch), targets[number])
