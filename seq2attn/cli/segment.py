"""The command `segment`: give each pixel of images a class."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from seq2attn.cli.inputs import chunks, own_files
from seq2attn.cli.options import CHECKPOINT, DEVICE, PRECISION, RUN, cli, formats
from seq2attn.cli.sharing import PROCESSES, print_lines


@cli.command()
@RUN
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder to write to; it is made if there is none.",
)
@formats("text; json: one object for each image: its size, the shares of its classes, and the files.", "json")
@CHECKPOINT
@DEVICE
@PRECISION
@PROCESSES
def segment(
    run: Path,
    images: tuple[str, ...],
    output: Path,
    form: str,
    checkpoint: str,
    device: str,
    precision: str,
) -> None:
    """Give each pixel of each IMAGE a class, in the size of the image.

    For photo.jpg it writes photo.mask.png, whose pixels are class numbers with a palette of colours, and
    photo.overlay.png, the classes over the image with a legend. Prints a line for each image: its file, a
    tab, and the classes with their shares of the pixels.

    \b
    seq2attn segment runs/camvid_unet_scse street.jpg -o masks
    seq2attn segment runs/nuclei_unet_scse slides/*.png -o masks
    """
    from seq2attn.inference.image_input import CHUNK
    from seq2attn.tasks.loading import load_for

    files = own_files(images, output, [".mask.png", ".overlay.png"], "masks", "segment")
    segmenter = load_for("segment", run, checkpoint, device, precision)
    output.mkdir(parents=True, exist_ok=True)

    def segmented(first: int, given: list[str]) -> Iterator[str]:
        for number, result in enumerate(segmenter.stream(given), first):
            mask, overlay = files[number]
            result.save_mask(mask)
            result.plot(overlay)
            content = {**result.to_json(), "mask": str(mask), "overlay": str(overlay)}
            yield json.dumps(content, ensure_ascii=False) if form == "json" else f"{result.name}\t{result}"

    print_lines(chunks(images, CHUNK, None), segmented)
