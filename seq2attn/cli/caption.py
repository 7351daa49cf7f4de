"""The command `caption`: write a text from each image."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from seq2attn.cli.inputs import chunks
from seq2attn.cli.options import DECODING, RUN, cli, engine_options, formats
from seq2attn.cli.sharing import print_lines
from seq2attn.cli.translate import generation_options


@cli.command()
@RUN
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@formats(
    "text; json: one object for each image, with the attention of each word to the places of the image.",
    "json",
)
@generation_options
@engine_options
def caption(
    context: click.Context,
    run: Path,
    images: tuple[str, ...],
    prefix: str,
    scores: bool,
    form: str,
    checkpoint: str,
    device: str,
    precision: str,
    engine: str,
    quantize: str | None,
) -> None:
    """Write a text from each IMAGE: a caption, or the formula that it shows.

    Prints a line for each image, or with --nbest some for each: the text, and if there are several images,
    the file and a tab before it.

    \b
    seq2attn caption runs/flickr8k_show_attend_tell photo.jpg
    seq2attn caption runs/crohme_wap formulas/*.png --beam 10 --format json > formulas.jsonl
    """
    from seq2attn.inference.image_input import CHUNK
    from seq2attn.tasks.loading import load_for

    captioner = load_for("caption", run, checkpoint, device, precision, engine, quantize)
    captioner = captioner.configured(context.meta.get(DECODING, {}))

    def written(first: int, given: list[str]) -> Iterator[str]:
        shown = form == "json"
        for result in captioner.stream(given, None, shown, prefix, first, exact=shown or scores):
            if form == "json":
                yield json.dumps(result.to_json(), ensure_ascii=False)
                continue
            for one in result.nbest:
                name = [one.name] if len(images) > 1 else []
                yield "\t".join([*name, *([f"{one.score:.4f}"] if scores else []), one.text])

    print_lines(chunks(images, CHUNK, None), written)
