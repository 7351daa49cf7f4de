"""Sections of a recipe: images with masks, and what the values of masks mean."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from seq2attn.images.masks import MAX_CLASSES, MaskReader
from seq2attn.recipe.data import DEV, TEST, TRAIN, Corpus, Limit, Weight
from seq2attn.recipe.image_data import ARCHIVE, AnyImageDataRecipe, ImageDataset, ImageTable, Skip
from seq2attn.recipe.markers import FilePath, OneOrMore, PathField
from seq2attn.recipe.sections import Fault, by_key

FolderPath = Annotated[str, PathField("folder", lambda corpus, text, path: corpus.get("archive") is None)]
Byte = Annotated[int, Field(ge=0, le=255)]
IGNORED = "ignore"  # the name of what has no class, among colours


class MaskFolders(Corpus):
    """A folder of images, and one of masks with the same names (the suffix may differ)."""

    images: FolderPath = Field(description="Folder of the images; if there is an archive, the one in it.")
    masks: FolderPath = Field(description="Folder of the masks, likewise.")
    archive: FilePath | None = Field(
        None, description=f"{ARCHIVE[0].upper()}{ARCHIVE[1:]}, with both folders."
    )
    weight: Weight = 1.0
    limit: Limit = None
    skip: Skip = 0


class MaskTable(ImageTable):
    """A JSONL file with an image and its mask in each row. Paths as in ImageTable."""

    columns: tuple[str, str] = Field(
        ("image", "mask"), description="Columns of images and masks, by dotted key."
    )
    mask_path: str = Field("{}", description="Path of a mask; {} is what its column has: masks/{}.png.")

    def faults(self) -> Iterator[Fault]:
        """See the base class; also find one path for all masks."""
        yield from super().faults()
        if "{}" not in self.mask_path:
            yield Fault(
                "mask_path", f"needs {{}}, which stands for what the column of masks has: {self.mask_path}"
            )


class MaskDataset(ImageDataset):
    """A dataset that `datasets.load_dataset` loads, with a column of images and one of masks."""

    columns: tuple[str, str] = Field(("image", "mask"), description="Columns of images and masks.")


AnyMasks = Annotated[
    MaskTable | MaskDataset | MaskFolders,
    by_key({"table": MaskTable, "dataset": MaskDataset, "images": MaskFolders}),
]


class SegmentationDataRecipe(AnyImageDataRecipe):
    """Corpora of images and masks, and the classes of their pixels. Masks have the size of their images."""

    train: Annotated[list[AnyMasks], Field(min_length=1), OneOrMore()] = Field(description=TRAIN)
    dev: AnyMasks = Field(description=DEV)
    test: AnyMasks | None = Field(None, description=TEST)
    classes: Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(min_length=2, max_length=MAX_CLASSES)
    ] = Field(description="Names of the classes, by their number in masks (of a palette: its index).")
    ignore: Annotated[list[Byte], OneOrMore()] = Field(
        [255],
        description="Numbers in masks of pixels that neither loss nor metrics count, as those without a "
        "class; [] = none. Not with colors or instances.",
    )
    colors: dict[str, Annotated[list[Byte], Field(min_length=3, max_length=3)]] | None = Field(
        None,
        description="Masks are pictures in these colours, [red, green, blue] by the name of the class, and "
        "`ignore` for pixels that do not count; null = they have numbers.",
    )
    instances: bool = Field(
        False,
        description="Masks have numbers of objects, up to 65535: 0 is the first class, the background, and "
        "all others are the second.",
    )

    def mask_reader(self) -> MaskReader:
        """Return what reads masks as this section says."""
        colors = None
        if self.colors is not None:
            numbers = {name: number for number, name in enumerate(self.classes)}
            colors = {
                (red, green, blue): numbers.get(name) for name, (red, green, blue) in self.colors.items()
            }
        return MaskReader(len(self.classes), () if self.instances else self.ignore, colors, self.instances)

    def faults(self) -> Iterator[Fault]:
        """See the base class; also find classes that do not fit what masks have."""
        yield from super().faults()
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            yield Fault("classes", f"{twice[0]} occurs twice: each class has its own name")
        for number in sorted({number for number in self.ignore if number < len(self.classes)}):
            why = f"{number} is the number of the class {self.classes[number]}, which cannot be ignored"
            yield Fault("ignore", f"{why}: leave it out, or the class, which must then be the last")
        if self.instances and len(self.classes) != 2:
            yield Fault(
                "classes",
                f"instances are of two classes, the background and the objects; got {len(self.classes)}",
            )
        if self.instances and self.colors is not None:
            yield Fault(
                "colors", "masks have colours or numbers of objects: leave one of colors and instances out"
            )
        yield from self._of_colors()

    def _of_colors(self) -> Iterator[Fault]:
        """Find classes without a colour, colours without a class, and two with the same colour."""
        if self.colors is None:
            return
        for name in self.classes:
            if name not in self.colors:
                yield Fault("colors", f"has no colour of the class {name}")
        for name in self.colors:
            if name not in (*self.classes, IGNORED):
                yield Fault(f"colors.{name}", f"is no class: expected one of data.classes, or {IGNORED}")
        by_color = dict[tuple[int, ...], str]()
        for name, color in self.colors.items():
            if (other := by_color.setdefault(tuple(color), name)) != name:
                yield Fault(f"colors.{name}", f"is the colour of {other}, too: {color}")
