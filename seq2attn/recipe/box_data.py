"""Sections of a recipe: images with boxes, in the formats that detection has."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from seq2attn.images.decoding import Resize
from seq2attn.recipe.data import DEV, TEST, TRAIN, Corpus, Limit, Weight
from seq2attn.recipe.image_data import (
    ARCHIVE,
    RESIZE,
    AnyImageDataRecipe,
    ImageDataset,
    ImageTable,
    Skip,
)
from seq2attn.recipe.markers import FilePath, OneOrMore, PathField
from seq2attn.recipe.sections import Fault, by_key

BoxFormat = Annotated[
    Literal["xyxy", "xywh", "cxcywh"],
    Field(
        description="Numbers of a box, in pixels of the upright image. xyxy: left, top, right, bottom; xywh: "
        "left, top, width, height; cxcywh: centre, width, height."
    ),
]
FolderPath = Annotated[str, PathField("folder")]
INCLUSIVE = (
    "Whether pixels are counted from 1 and right and bottom are the last ones of the box, as in Pascal VOC; "
    "otherwise from 0, and right and bottom lie behind the box."
)


class CocoCorpus(Corpus):
    """A JSON file in the format of COCO, and its images."""

    coco: FilePath = Field(description="The .json file with images, annotations and categories.")
    images: FolderPath | None = Field(
        None, description="Folder of the images; null = that of the file, or an archive."
    )
    archive: FilePath | None = Field(
        None, description=f"{ARCHIVE[0].upper()}{ARCHIVE[1:]}, in which the images lie; null = none."
    )
    weight: Weight = 1.0
    limit: Limit = None
    skip: Skip = 0

    def faults(self) -> Iterator[Fault]:
        """Find two places of images."""
        if self.images is not None and self.archive is not None:
            yield Fault("images", "the images lie in the archive: leave out one of images and archive")


class VocCorpus(Corpus):
    """A folder of XML files in the format of Pascal VOC, one for each image."""

    voc: FolderPath = Field(description="Folder of the .xml files.")
    images: FolderPath | None = Field(
        None,
        description="Folder of the images; null = JPEGImages beside the folder, if there is one, or else the "
        "folder.",
    )
    names: FilePath | None = Field(
        None,
        description="File with the names of the images to read, one a line, without suffix, as those in "
        "ImageSets/Main; null = all.",
    )
    inclusive: bool = Field(True, description=INCLUSIVE)
    weight: Weight = 1.0
    limit: Limit = None
    skip: Skip = 0


class YoloCorpus(Corpus):
    """A folder of images, and a text file for each with a box a line: class, centre and size, as shares of
    the image. An image without a file has no boxes."""

    yolo: FolderPath = Field(description="Folder of the images.")
    labels: FolderPath | None = Field(
        None,
        description="Folder of the .txt files; null = that of the images, with `labels` in the place of its "
        "last `images`, if there is one.",
    )
    classes: list[str] | FilePath = Field(
        description="Names of the classes, by number; or the file that has them: a name a line, or .yaml "
        "with `names`."
    )
    weight: Weight = 1.0
    limit: Limit = None
    skip: Skip = 0


class NpzCorpus(Corpus):
    """Arrays in a .npz file of NumPy: `images` (N, H, W) or (N, H, W, 3) of bytes; `boxes` (M, 6): number of
    the image, left, top, right, bottom, class."""

    npz: FilePath = Field(description="The .npz file.")
    classes: list[str] | None = Field(
        None, description="Names of the classes, by number; null = the numbers themselves."
    )
    weight: Weight = 1.0
    limit: Limit = None
    skip: Skip = 0


class BoxSample(Corpus):
    """Scenes that are made of the handwritten digits that ship with seq2attn: 128 by 128 pixels, 1 to 8
    digits."""

    sample: Literal["digit_scenes"] = Field(description="Name of the sample: 1,000 scenes to train on.")
    split: Literal["train", "dev", "test"] | None = Field(
        None, description="Split of the sample; null = the one that the corpus is used for."
    )
    weight: Weight = 1.0
    limit: Limit = None
    skip: Skip = 0


class BoxTable(ImageTable):
    """A JSONL file with an image and its boxes in each row. Paths as in ImageTable."""

    columns: tuple[str, str, str] = Field(  # type: ignore[assignment]
        ("image", "boxes", "labels"),
        description="Columns of images, boxes (a list of lists of four numbers) and labels (a list), by "
        "dotted key.",
    )
    label: str | None = Field(
        None, min_length=1, description="Label of all boxes, if there is no column of labels."
    )
    format: BoxFormat = "xyxy"
    inclusive: bool = Field(False, description=INCLUSIVE)


class BoxDataset(ImageDataset):
    """A dataset that `datasets.load_dataset` loads, with boxes in a column of objects."""

    columns: tuple[str, str, str] = Field(  # type: ignore[assignment]
        ("image", "objects.bbox", "objects.category"),
        description="Columns of images, boxes and labels, by dotted key.",
    )
    label: str | None = Field(
        None, min_length=1, description="Label of all boxes, if there is no column of labels."
    )
    format: BoxFormat = "xywh"
    inclusive: bool = Field(False, description=INCLUSIVE)


AnyBoxes = Annotated[
    CocoCorpus | VocCorpus | YoloCorpus | NpzCorpus | BoxTable | BoxDataset | BoxSample,
    by_key(
        {
            "coco": CocoCorpus,
            "voc": VocCorpus,
            "yolo": YoloCorpus,
            "npz": NpzCorpus,
            "table": BoxTable,
            "dataset": BoxDataset,
            "sample": BoxSample,
        }
    ),
]


class DetectionDataRecipe(AnyImageDataRecipe):
    """Corpora of images with boxes. A bad box is left out of its image with `bad_lines: skip`; the image
    stays."""

    follows: ClassVar[frozenset[str]] = frozenset({"mosaic"})

    train: Annotated[list[AnyBoxes], Field(min_length=1), OneOrMore()] = Field(description=TRAIN)
    dev: AnyBoxes = Field(description=DEV)
    test: AnyBoxes | None = Field(None, description=TEST)
    resize: Resize = Field("fit", description=RESIZE)
