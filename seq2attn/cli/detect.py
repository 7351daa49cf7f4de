"""The command `detect`: find the objects in images."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from seq2attn.cli.inputs import chunks, own_files
from seq2attn.cli.options import CHECKPOINT, DEVICE, PRECISION, RUN, cli
from seq2attn.cli.sharing import PROCESSES, print_lines


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
@CHECKPOINT
@DEVICE
@PRECISION
@PROCESSES
def detect(
    run: Path,
    images: tuple[str, ...],
    output: Path | None,
    threshold: float,
    checkpoint: str,
    device: str,
    precision: str,
) -> None:
    """Find the objects in each IMAGE.

    Prints an object a line, as JSON in the form in which COCO has results: bbox is left, top, width and
    height, in pixels of the image as it is. With -o it writes photo.boxes.png for photo.jpg, with a box, the
    label and the score of each object, and prints the file, a tab, and the objects.

    \b
    seq2attn detect runs/bccd_yolo blood.jpg > blood.jsonl
    seq2attn detect runs/bccd_yolo slides/*.jpg -o found
    """
    from seq2attn.inference.image_input import CHUNK
    from seq2attn.tasks.loading import load_for

    pictures = [] if output is None else own_files(images, output, [".boxes.png"], "pictures", "draw")
    detector = load_for("detect", run, checkpoint, device, precision)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)

    def found(first: int, given: list[str]) -> Iterator[str]:
        for number, result in enumerate(detector.stream(given, threshold), first):
            if output is None:
                yield from (json.dumps(line, ensure_ascii=False) for line in result.to_coco())
                continue
            result.plot(pictures[number][0])
            yield f"{result.name}\t{result}"

    print_lines(chunks(images, CHUNK, None), found)
