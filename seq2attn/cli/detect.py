"""The command `detect`: find the objects in images."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seq2attn.cli.inputs import chunks, own_files
from seq2attn.cli.options import CHECKPOINT, DEVICE, PRECISION, RUN, cli
from seq2attn.cli.sharing import PROCESSES, print_lines
from seq2attn.errors import Seq2attnError

if TYPE_CHECKING:
    from seq2attn.data.coco_ids import Id


@cli.command()
@RUN
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Draw the boxes into pictures in this folder, which is made if there is none.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.25,
    show_default=True,
    help="The least score of an object; 0.001 for results that are to be scored.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "text"]),
    help="json: an object a line, as COCO has results; text: an image a line, with its surest objects.  "
    "[default: json; with -o text]",
)
@click.option(
    "--coco",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take image_id, by file_name, and category_id, by name, from this .json file of COCO.",
)
@CHECKPOINT
@DEVICE
@PRECISION
@PROCESSES
def detect(
    run: Path,
    images: tuple[str, ...],
    output: Path | None,
    threshold: float,
    form: str | None,
    coco: Path | None,
    checkpoint: str,
    device: str,
    precision: str,
) -> None:
    """Find the objects in each IMAGE.

    Prints an object a line, as JSON in the form in which COCO has results: bbox is left, top, width and
    height, in pixels of the image as it is; category_id is that of the files of COCO that RUN was trained on,
    or else the number of the label, from 1; image_id is the name of the file. With -o it writes
    photo.boxes.png for photo.jpg, with a box, the label and the score of each object, and prints the file, a
    tab, and the objects.

    \b
    seq2attn detect runs/bccd_yolo blood.jpg > blood.jsonl
    seq2attn detect runs/bccd_yolo slides/*.jpg -o found
    seq2attn detect runs/coco val/*.jpg --coco instances_val.json --threshold 0.001 > results.jsonl
    """
    from seq2attn.data.coco_ids import category_ids
    from seq2attn.inference.image_input import CHUNK
    from seq2attn.tasks.loading import load_for

    form = form or ("json" if output is None else "text")
    ids, given_ids = _ids(images, coco) if form == "json" else ([], {})
    pictures = [] if output is None else own_files(images, output, [".boxes.png"], "pictures", "draw")
    detector = load_for("detect", run, checkpoint, device, precision)
    categories = category_ids(detector.labels, given_ids, detector.category_ids)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)

    def found(first: int, given: list[str]) -> Iterator[str]:
        for number, result in enumerate(detector.stream(given, threshold), first):
            if pictures:
                result.plot(pictures[number][0])
            if form == "text":
                yield f"{result.name}\t{result}"
                continue
            for line in result.to_coco(ids[number], categories):
                yield json.dumps(line, ensure_ascii=False)

    print_lines(chunks(images, CHUNK, None), found)


def _ids(images: Sequence[str], coco: Path | None) -> "tuple[list[Id], Mapping[str, Id]]":
    """Return the ids of images, and those of categories in a file of COCO, if there is one. Seq2attnError if
    two images have one id."""
    from seq2attn.data.coco_ids import CocoIds
    from seq2attn.inference.found_objects import image_id_of

    known = None if coco is None else CocoIds.read(coco)
    ids = [image_id_of(image) if known is None else known.image_id(image) for image in images]
    most, count = Counter(ids).most_common(1)[0]
    if count > 1:
        first, second = [image for image, own in zip(images, ids, strict=True) if own == most][:2]
        raise Seq2attnError(
            f"{first} and {second} would both have the image_id {json.dumps(most)}: give --coco with the "
            "file that has their ids, or use --format text"
        )
    return ids, {} if known is None else known.categories
