"""Sections of a recipe: labelled images, how they are read, and how they are changed in training."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from typing_extensions import Self

from seq2attn.images.augmentation import AUGMENTATIONS
from seq2attn.images.decoding import Channels, ImageReader, Resize
from seq2attn.recipe.data import BAD_LINES, DEV, TEST, TRAIN, Corpus, DatasetCorpus, Limit, Weight
from seq2attn.recipe.markers import FilePath, OneOrMore, PathField
from seq2attn.recipe.sections import Choice, Count, Fault, Part, Section, Size, by_key

Side = Annotated[int, Field(ge=1, le=16_384)]
Skip = Annotated[
    Count, Field(description="Leave out this many images at the start, as for a dev set of the last ones.")
]
RESIZE = (
    "How images come to this size. crop: scale until it is filled, and cut out the middle; stretch: scale "
    "both sides; fit: scale until the image fits within it (batches are padded); shrink: likewise, but never "
    "enlarge."
)
# Changes that not all tasks can follow, and why.
LIMITED = {
    "mixup": "mixes labels, and only images with one label each can be mixed",
    "mosaic": "puts four images into one, which only images with boxes can be",
    "elastic": "bends images, and boxes and masks do not bend with them",
}
FITTED = ("normalize", "max_pixels")  # the keys of images that training data may fill
SPARE, LEAST_MOST = 64, 2**22  # see max_pixels
ARCHIVE = "a .tar archive, plain or compressed (.gz, .xz, .bz2)"


def _is_folder(corpus: Mapping[str, Any], text: str, path: Path) -> bool:
    """Whether a folder is one of the file system; otherwise it lies in an archive, or an unknown key may be
    meant as `archive`."""
    return corpus.get("archive") is None and corpus.keys() <= FolderCorpus.model_fields.keys()


class FolderCorpus(Corpus):
    """A folder with a sub-folder of images for each class, which has the name of the class."""

    folder: Annotated[str, PathField("folder", _is_folder)] = Field(
        description="The folder; if there is an archive, the one in it (. = the whole archive)."
    )
    archive: FilePath | None = Field(None, description=f"{ARCHIVE[0].upper()}{ARCHIVE[1:]}, with the folder.")
    weight: Weight = 1.0
    limit: Limit = None
    skip: Skip = 0


class ImageTable(Corpus):
    """A JSONL file with an image and its label in each row. Paths of images are relative to the file, and
    `pictures.tar::cat.png` is an image in an archive."""

    table: FilePath = Field(description="A .jsonl file, plain or compressed (.gz, .xz, .bz2).")
    columns: tuple[str, str] = Field(
        ("image", "label"), description="Columns of images and labels, by dotted key."
    )
    path: str = Field(
        "{}", description="Path of an image; {} is what its column has, as a name: photos/{}.jpg."
    )
    archive: FilePath | None = Field(
        None, description=f"{ARCHIVE[0].upper()}{ARCHIVE[1:]}, in which all images lie; null = none."
    )
    weight: Weight = 1.0
    limit: Limit = None
    skip: Skip = 0

    def faults(self) -> Iterator[Fault]:
        """Find a path that is the same for all images."""
        if "{}" not in self.path:
            yield Fault("path", f"needs {{}}, which stands for what the column of images has: {self.path}")


class ImageDataset(DatasetCorpus):
    """A dataset that `datasets.load_dataset` loads; class labels are read as their names."""

    columns: tuple[str, str] = Field(("image", "label"), description="Columns of images and labels.")
    skip: Skip = 0


class IdxCorpus(Corpus):
    """Two files in the format of MNIST: images and labels."""

    idx: tuple[FilePath, FilePath] = Field(
        description="The file of images and that of labels, plain or compressed (.gz, .xz, .bz2)."
    )
    classes: list[str] | None = Field(
        None, description="Names of the labels, by number; null = the numbers themselves."
    )
    weight: Weight = 1.0
    limit: Limit = None
    skip: Skip = 0


class ImageSample(Corpus):
    """Labelled images that ship with seq2attn."""

    sample: Literal["digits"] = Field(description="Name of the sample: 2,500 handwritten digits of MNIST.")
    split: Literal["train", "dev", "test"] | None = Field(
        None, description="Split of the sample; null = the one that the corpus is used for."
    )
    weight: Weight = 1.0
    limit: Limit = None
    skip: Skip = 0


class StrokeTable(Corpus):
    """A JSONL file with a picture in strokes of a pen and its label in each row. A row's strokes are lists of
    points, [[x, y], ...] or [x, y, x, y, ...]; x goes to the right and y down."""

    strokes: FilePath = Field(description="A .jsonl file, plain or compressed (.gz, .xz, .bz2).")
    columns: tuple[str, str] = Field(
        ("strokes", "label"), description="Columns of strokes and labels, by dotted key."
    )
    scale: Annotated[float, Field(gt=0)] = Field(1.0, description="Pixels for a unit of the strokes.")
    pen: Annotated[float, Field(gt=0)] = Field(2.0, description="Width of the pen in pixels.")
    margin: Annotated[float, Field(ge=0, le=1024)] = Field(
        6.0, description="Pixels between the outermost points and the sides of the image."
    )
    ink: Literal["black", "white"] = Field(
        "black", description="black: on white, as on paper; white: on black."
    )
    weight: Weight = 1.0
    limit: Limit = None
    skip: Skip = 0


class StrokeTextTable(StrokeTable):
    """A JSONL file with strokes and their text, or a list of texts, in each row. Strokes as in
    StrokeTable."""

    columns: tuple[str, str] = Field(
        ("strokes", "text"),
        description="Columns of strokes and texts, by dotted key. A list of texts is several for one.",
    )


class ImageTextTable(ImageTable):
    """A JSONL file with an image and its text, or a list of texts, in each row. Paths as in ImageTable."""

    columns: tuple[str, str] = Field(
        ("image", "text"),
        description="Columns of images and texts, by dotted key. A list of texts is several for one image.",
    )


class ImageTextDataset(ImageDataset):
    """A dataset that `datasets.load_dataset` loads, with a text or a list of texts for each image."""

    columns: tuple[str, str] = Field(("image", "text"), description="Columns of images and texts.")


AnyImages = Annotated[
    FolderCorpus | ImageTable | StrokeTable | ImageDataset | IdxCorpus | ImageSample,
    by_key(
        {
            "folder": FolderCorpus,
            "table": ImageTable,
            "strokes": StrokeTable,
            "dataset": ImageDataset,
            "idx": IdxCorpus,
            "sample": ImageSample,
        }
    ),
]


AnyImageTexts = Annotated[
    ImageTextTable | StrokeTextTable | ImageTextDataset,
    by_key({"table": ImageTextTable, "strokes": StrokeTextTable, "dataset": ImageTextDataset}),
]


class NormalizeRecipe(Section):
    """Normalisation of pixels, which are from 0 to 1: (pixel - mean) / std, for each channel."""

    mean: list[float] = Field(description="Mean of each channel.")
    std: list[Annotated[float, Field(gt=0)]] = Field(description="Standard deviation of each channel.")


class AnyImageDataRecipe(Section):
    """The base class of the data of tasks that read images. A subclass narrows the types of its corpora."""

    follows: ClassVar[frozenset[str]] = frozenset()  # the LIMITED changes that the task can follow

    train: Any = Field(description=TRAIN)
    dev: Any = Field(description=DEV)
    test: Any = Field(None, description=TEST)
    channels: Channels = Field("rgb", description="Whether images are read in colour or in grey.")
    size: Side | tuple[Side, Side] | None = Field(
        None,
        description="Height and width of all images, or one number for both; null = images keep their own "
        "sizes.",
    )
    resize: Resize = Field("crop", description=RESIZE)
    normalize: NormalizeRecipe | None = Field(
        None,
        description="Normalisation of pixels; null = by mean and standard deviation of the training data.",
    )
    max_pixels: Size | None = Field(
        None,
        description="Largest image that a trained model accepts, in pixels, if size is null; null = "
        f"{SPARE} times the largest training image, at least {LEAST_MOST:,}.",
    )
    augment: Annotated[list[Annotated[Part, Choice(AUGMENTATIONS)]], OneOrMore()] = Field(
        [],
        description="Random changes of training images, in this order, but those that move pixels first; "
        "[] = none.",
    )
    workers: Annotated[Count, Field(le=64)] = Field(
        1,
        description="Threads that prepare the next batches beside training; 0 = none. Batches are the same.",
    )
    bad_lines: Literal["stop", "skip"] = Field("stop", description=BAD_LINES)

    @property
    def shape(self) -> tuple[int, int] | None:
        """The height and width that images are resized to; None if they keep their own."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def fixed_size(self) -> bool:
        """Whether all images are brought to one size."""
        return self.size is not None and self.resize in ("crop", "stretch")

    @property
    def num_channels(self) -> int:
        """The number of channels of an image."""
        return 3 if self.channels == "rgb" else 1

    def reader(self, limited: bool = False) -> ImageReader:
        """Return what reads images as this section says.

        limited: refuse images of more than max_pixels, which is for what a trained model is given.
        """
        return ImageReader(self.channels, self.shape, self.resize, self.max_pixels if limited else None)

    def original_reader(self) -> ImageReader:
        """Return what reads images that a trained model is given in the size that they have."""
        return ImageReader(self.channels, most=self.max_pixels if self.size is None else None)

    def fitted(self, mean: list[float], std: list[float], largest: int) -> Self:
        """Return the section with what it leaves to the training data: the normalisation, by their mean and
        standard deviation; and the largest image, by that of theirs, in pixels."""
        values: dict[str, Any] = {}
        if self.normalize is None:
            values["normalize"] = NormalizeRecipe(mean=mean, std=std)
        if self.max_pixels is None and self.size is None:
            values["max_pixels"] = max(SPARE * largest, LEAST_MOST)
        return self.model_copy(update=values)

    def faults(self) -> Iterator[Fault]:
        """Find misplaced weights, another number of channels, and changes that do not fit."""
        for use, corpus in (("dev", self.dev), ("test", self.test)):
            if corpus is not None and corpus.weight != 1:
                yield Fault(f"{use}.weight", "only training corpora have weights")
        for key in ("mean", "std") if self.normalize is not None else ():
            count = len(getattr(self.normalize, key))
            if count != self.num_channels:
                yield Fault(
                    f"normalize.{key}",
                    f"expected a list of {self.num_channels}, a number for each channel of {self.channels}, "
                    f"got {count}",
                )
        names = [part.name for part in self.augment]
        for name in (name for name in LIMITED if name in names and name not in self.follows):
            yield Fault("augment", f"{name} {LIMITED[name]}: leave it out")
        if "mosaic" in names[1:]:
            yield Fault("augment", "mosaic comes first, and once: the other changes follow it")
        if "redraw" in names and not any(isinstance(corpus, StrokeTable) for corpus in self.train):
            yield Fault("augment", "redraw draws strokes, and no corpus of train has any (key strokes)")
        if "redraw" in names[1:]:
            yield Fault("augment", "redraw comes first, and once: the other changes follow it")
        if "mixup" in names[:-1]:
            yield Fault("augment", "mixup comes last, and once: no other change can follow it")
        if "mixup" in names and self.size is not None and not self.fixed_size:
            yield Fault("augment", "mixup needs images of one size: set resize to crop or stretch")


class ImageDataRecipe(AnyImageDataRecipe):
    """Corpora of labelled images."""

    follows: ClassVar[frozenset[str]] = frozenset({"mixup", "elastic"})

    train: Annotated[list[AnyImages], Field(min_length=1), OneOrMore()] = Field(description=TRAIN)
    dev: AnyImages = Field(description=DEV)
    test: AnyImages | None = Field(None, description=TEST)


class ImageTextDataRecipe(AnyImageDataRecipe):
    """Corpora of images and texts that are written from them."""

    follows: ClassVar[frozenset[str]] = frozenset({"elastic"})

    train: Annotated[list[AnyImageTexts], Field(min_length=1), OneOrMore()] = Field(description=TRAIN)
    dev: AnyImageTexts = Field(description=DEV)
    test: AnyImageTexts | None = Field(None, description=TEST)
    max_words: Size | None = Field(
        None,
        description="Longest text of a training image, in words; longer ones are left out; null = any.",
    )
