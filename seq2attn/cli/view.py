"""The command `view`: attention, decoding and alignments of sentences or images, as one HTML file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seq2attn.cli.completion import run_folders
from seq2attn.cli.inputs import lines, refuse_inputs
from seq2attn.cli.options import (
    BEAM,
    CHECKPOINT,
    DECODING,
    DEVICE,
    RUN,
    RunPath,
    cli,
    decoding_option,
    refuse,
)

if TYPE_CHECKING:
    from seq2attn.alignment.word_alignment import Gold

FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)


@cli.command()
@RUN
@click.argument("sentences", metavar="[SENTENCE|IMAGE]...", nargs=-1)
@click.option("--file", "-f", "file", type=FILE, help="A file of sentences, one a line; - = standard input.")
@click.option("--seed", type=int, help="Show the image that is generated with this seed, in place of IMAGE.")
@click.option("--target", help="Show this translation of the only sentence instead of the model's own.")
@click.option("--targets", type=FILE, help="A file of given translations, one a line.")
@click.option(
    "--gold", type=FILE, help="Gold links of the given translations, a pair a line (0-0 1?2), shown with AER."
)
@click.option(
    "--compare",
    metavar="RUN",
    type=RunPath(path_type=Path),
    shell_complete=run_folders,
    help="A second run, beside the first.",
)
@click.option(
    "--self", "self_attention", is_flag=True, help="Show also the self-attention of encoder and decoder."
)
@click.option("--exact", is_flag=True, help="Weights as 32-bit numbers, instead of the nearest of 256 steps.")
@click.option(
    "-o",
    "--output",
    default="view.html",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write.",
)
@BEAM
@decoding_option("--nbest", int, "Show this many hypotheses of each sentence.")
@CHECKPOINT
@DEVICE
@click.pass_context
def view(
    context: click.Context,
    run: Path,
    sentences: tuple[str, ...],
    file: Path | None,
    seed: int | None,
    target: str | None,
    targets: Path | None,
    gold: Path | None,
    compare: Path | None,
    self_attention: bool,
    exact: bool,
    output: Path,
    checkpoint: str,
    device: str,
) -> None:
    """Write a page with the attention of each SENTENCE or IMAGE: one HTML file, which needs no network.

    It shows words with lines as strong as their weights, the matrix, all layers and heads, each step of
    decoding with its candidates, the tree of the beam search; of images, where each word or part of a network
    looks. Press ? in the page for its keys.

    \b
    seq2attn view runs/quickstart "Ich habe Hunger." -o hunger.html
    seq2attn view runs/quickstart -f sentences.de --nbest 3
    seq2attn view runs/de_en "Guten Morgen!" --target "Good morning!" --compare runs/de_en_transformer
    seq2attn view runs/de_en -f dev.de --targets dev.en --gold dev.gold
    seq2attn view runs/flickr8k_show_attend_tell dog.jpg -o dog.html
    """
    from seq2attn.inference.viewing import page_of
    from seq2attn.tasks.loading import load, require_same_task

    texts: list[Any] = [
        *sentences,
        *([] if file is None else lines((file,))),
        *([] if seed is None else [seed]),
    ]
    if not texts:
        raise click.UsageError("give at least one SENTENCE or IMAGE, a --file of sentences, or --seed")
    refuse_inputs([output], sentences)
    given = _targets(len(texts), target, targets)
    if target is not None or targets is not None:
        refuse(context, ("beam", "nbest"), "given translations are not searched for")
    links = _gold(texts, gold, given)
    options = [_options(one, self_attention, gold is not None) for one in given]
    runs = [run] if compare is None else [run, compare]
    names = [folder.resolve().name for folder in runs]
    if len({*names}) < len(runs):
        names = [str(folder) for folder in runs]
    if len({*names}) < len(runs):
        raise click.UsageError("--compare takes another run")
    require_same_task(runs)
    predictors = {name: load(folder, checkpoint, device) for name, folder in zip(names, runs, strict=True)}
    page = page_of(predictors, texts, options, context.meta.get(DECODING, {}), links, exact)
    page.save(output)
    click.echo(output)


def _options(target: str | None, self_attention: bool, spaces: bool) -> Any:
    from seq2attn.inference.viewing import ViewOptions

    return ViewOptions(target, self_attention, spaces=spaces)


def _targets(count: int, target: str | None, targets: Path | None) -> list[str | None]:
    """Return the given translation of each sentence, or None. UsageError for a wrong number."""
    if target is not None and targets is not None:
        raise click.UsageError("give either --target or --targets")
    given: list[str | None] = [None] * count
    if target is not None or targets is not None:
        given = [target] if targets is None else [*lines((targets,))]
    if len(given) != count:
        raise click.UsageError(f"expected a translation for each of {count} sentences, got {len(given)}")
    return given


def _gold(texts: Sequence[Any], gold: Path | None, given: Sequence[str | None]) -> "list[Gold]":
    """Return the gold links of each sentence. UsageError without given translations."""
    if gold is None:
        return []
    from seq2attn.metrics.alignments import GoldFile

    pairs = [(str(text), target) for text, target in zip(texts, given, strict=True) if target is not None]
    if len(pairs) < len(texts):
        raise click.UsageError("--gold links the words of given translations: give --targets, too")
    return GoldFile.parse([*lines((gold,))], str(gold)).of(pairs)
