"""The command `align`: links between the words of a parallel corpus."""

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import click

from seq2attn.cli.completion import run_folders
from seq2attn.cli.inputs import lines
from seq2attn.cli.options import CHECKPOINT, DEVICE, PRECISION, OwnRunPath, RunPath, cli, refuse

if TYPE_CHECKING:
    from seq2attn.alignment.statistical import Kind
    from seq2attn.alignment.word_alignment import Gold, Link
    from seq2attn.inference.translator import TextPredictor
    from seq2attn.runs.corpus_alignment import Aligner, LinkedPair, Pair

# Listed here so that help need not import numpy; a test compares the lists.
# Those of alignment.symmetrize, which imports torch, and two that are none of its.
SYMMETRIZATIONS = (
    "intersection", "union", "grow-diag", "grow-diag-final", "grow-diag-final-and", "agreement", "forward",
)  # fmt: skip
DEFAULT = "grow-diag"


class Reading(NamedTuple):
    """How links are read from attention; what is None is the run's."""

    layer: int | None
    head: int | None
    shift: int | None
    method: str | None

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given."""
        return {name: value for name, value in self._asdict().items() if value is not None}


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@cli.command()
@click.argument("files", nargs=-1, metavar="[RUN] SOURCE TARGET")
@click.option(
    "--with",
    "kind",
    type=click.Choice(["hmm", "ibm1"]),
    help="Instead of RUN: learn an HMM, or only IBM model 1, from SOURCE and TARGET in both directions.",
)
@click.option(
    "--learn",
    nargs=2,
    type=FILE,
    metavar="SOURCE TARGET",
    help="More parallel files to learn from with --with, whose links are not wanted.",
)
@click.option("--iterations", type=click.IntRange(1), help="Of each model of --with.  [default: 5]")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="File for the links.  [default: standard output; none with --gold or --choose]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["pharaoh", "json"]),
    default="pharaoh",
    show_default=True,
    help="pharaoh: 0-0 1-2 (source-target) a line; json: a pair a line, with its texts and links.",
)
@click.option("--layer", type=int, help="Layer, from 0; -1 = the last.  [default: the run's]")
@click.option("--head", type=int, help="Attention head, from 0; -1 = the last.  [default: the run's]")
@click.option(
    "--shift",
    type=click.IntRange(0, 1),
    help="0: weights are of the word that their step predicts; 1: that it has read.  [default: the run's]",
)
@click.option(
    "--method",
    type=click.Choice(["attention", "norms"]),
    help="attention: weights; norms: those of the weighted vectors (Kobayashi et al. 2020).  [default: the "
    "run's]",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Link all words with a larger weight than this, instead of each target word to the source word with "
    "the largest; for agreement, the least mean of two directions.  [default: none; for agreement 0.25]",
)
@click.option("--reverse", metavar="RUN", shell_complete=run_folders, help="A run from target to source.")
@click.option(
    "--symmetrize",
    type=click.Choice(SYMMETRIZATIONS),
    help="How the links of both directions are made one; agreement: those whose weights in both have a "
    "geometric mean above --threshold; forward: only those from source to target.  [default: grow-diag]",
)
@click.option("--gold", type=FILE, help="Gold links, a pair a line (0-0 1?2): print AER.")
@click.option(
    "--choose",
    metavar="GOLD|agreement",
    help="Try all layers, heads, shifts and methods, and write the best into RUN: by gold links, or by "
    "agreement with --reverse.",
)
@CHECKPOINT
@DEVICE
@PRECISION
@click.pass_context
def align(
    context: click.Context,
    files: tuple[str, ...],
    kind: "Kind | None",
    learn: tuple[Path, Path] | None,
    iterations: int | None,
    output: Path | None,
    form: str,
    layer: int | None,
    head: int | None,
    shift: int | None,
    method: str | None,
    threshold: float | None,
    reverse: str | None,
    symmetrize: str | None,
    gold: Path | None,
    choose: str | None,
    checkpoint: str,
    device: str,
    precision: str,
) -> None:
    """Link the words of SOURCE and TARGET, parallel files, by the attention of RUN in forced decoding; or by
    a statistical aligner that learns from them.

    Words are separated by white space and counted from 0. With --reverse or --with, the links of both
    directions are symmetrized. --gold prints the alignment error rate, precision and recall with 95 %
    intervals.

    \b
    seq2attn align runs/de_en in.de out.en -o links.pharaoh
    seq2attn align runs/de_en in.de out.en --reverse runs/en_de --symmetrize grow-diag-final-and
    seq2attn align runs/de_en dev.de dev.en --choose dev.gold
    seq2attn align --with hmm train.de train.en -o links.pharaoh
    """
    _refuse_unused(context, kind, reverse, symmetrize, choose)
    texts = _texts(files, kind)
    runs = [_run(given, choose is not None) for given in (*files[:-2], reverse) if given is not None]
    pairs, known = _pairs(*texts), None
    if gold is not None:
        pairs = iter(listed := list(pairs))
        known = _gold(gold, listed)[0]
    if kind is not None:
        links = _learnt(list(pairs), kind, learn, iterations, symmetrize, threshold)
    else:
        load = partial(_load, Reading(layer, head, shift, method), checkpoint, device, precision)
        if choose is not None:
            _choose(runs, load, list(pairs), choose, threshold, form)
            return
        links = _linked(pairs, [load(run).align_pairs for run in runs], symmetrize, threshold)
    _report(_write(links, output, form, known is not None), known, form)


def _refuse_unused(
    context: click.Context, kind: str | None, reverse: str | None, symmetrize: str | None, choose: str | None
) -> None:
    """Raise UsageError for options that have no effect beside the others."""
    heads = ("layer", "head", "shift", "method")
    if kind is not None:
        of_runs = ("choose", "reverse", *heads, "checkpoint", "device", "precision")
        refuse(context, of_runs, "--with learns its own links")
        return
    refuse(context, ("learn", "iterations"), "without --with nothing is learnt")
    if reverse is None:
        refuse(context, ("symmetrize",), "links of one direction, without --reverse, are not symmetrized")
    elif symmetrize == "forward":
        refuse(context, ("reverse",), "--symmetrize forward takes the links of RUN alone")
    if choose is not None:
        unused = (*heads, "symmetrize", "gold", "output")
        refuse(context, unused, "--choose tries all heads and writes the best into RUN")


def _texts(files: tuple[str, ...], kind: str | None) -> tuple[Path, Path]:
    """Return the source and the target of the arguments. UsageError for a wrong number, or no such file."""
    if len(files) != 2 + (kind is None):
        raise click.UsageError(
            f"expected RUN SOURCE TARGET, or --with hmm SOURCE TARGET; got {len(files)} arguments"
        )
    source, target = map(Path, files[-2:])
    for file in (source, target):
        if not file.exists() or file.is_dir():
            raise click.UsageError(f"expected a file of texts, one a line; there is no file {file}")
    return source, target


def _run(text: str, writes: bool) -> Path:
    """Return the folder of a run, which may be one of the hub if it is only read."""
    kind = OwnRunPath if writes else RunPath
    return Path(kind(path_type=Path).convert(text, None, None))


def _pairs(source: Path, target: Path) -> "Iterator[Pair]":
    from seq2attn.runs.corpus_alignment import paired

    return paired(lines((source,)), lines((target,)))


def _linked(
    pairs: "Iterable[Pair]", aligners: "Sequence[Aligner]", symmetrize: str | None, threshold: float | None
) -> "Iterator[LinkedPair]":
    from seq2attn.runs.corpus_alignment import linked

    if symmetrize == "forward":
        return linked(pairs, aligners[:1], threshold=threshold)
    return linked(pairs, aligners, symmetrize or DEFAULT, threshold)


def _learnt(
    pairs: "list[Pair]",
    kind: "Kind",
    learn: tuple[Path, Path] | None,
    iterations: int | None,
    symmetrize: str | None,
    threshold: float | None,
) -> "Iterator[LinkedPair]":
    """Return the links of an aligner that learns from the pairs, and from further files."""
    from seq2attn.alignment.statistical import ITERATIONS
    from seq2attn.runs.statistical_alignment import learnt_aligners

    corpus = [*pairs, *(_pairs(*learn) if learn else ())]
    both = symmetrize != "forward"
    report = partial(click.echo, err=True)
    aligners = learnt_aligners(kind, corpus, both, iterations or ITERATIONS, report)
    return _linked(pairs, aligners, symmetrize, threshold)


def _gold(file: Path, pairs: "Sequence[Pair]") -> "tuple[list[Gold], str]":
    """Return the gold links of pairs, and their SHA-256. AlignmentError if they are those of others."""
    from seq2attn.metrics.alignments import GoldFile

    read = list(lines((file,)))
    checksum = hashlib.sha256("".join(f"{line}\n" for line in read).encode()).hexdigest()
    return GoldFile.parse(read, str(file)).of(pairs), checksum


def _load(reading: Reading, checkpoint: str, device: str, precision: str, run: Path) -> "TextPredictor":
    """Return the model of a run, which links as the options say. Seq2attnError if it writes no text from
    text."""
    from seq2attn.inference.translator import TextPredictor
    from seq2attn.tasks.loading import load_for

    predictor: TextPredictor = load_for("align", run, checkpoint, device, precision, kind=TextPredictor)
    chosen = predictor.alignment._replace(**reading.given)
    return predictor.with_alignment(*chosen)


def _write(pairs: "Iterable[LinkedPair]", output: Path | None, form: str, scored: bool) -> "list[list[Link]]":
    """Write the links of pairs as they come, and return them if they are scored."""
    kept: list[list[Link]] = []
    with _opened(output, scored) as file:
        for number, (pair, links) in enumerate(pairs, 1):
            if scored:
                kept.append(links)
            if file is None:
                continue
            text = " ".join(map(str, links))
            if form == "json":
                text = json.dumps({"number": number, **pair.to_json(links)}, ensure_ascii=False)
            file.write(f"{text}\n")
    return kept


@contextlib.contextmanager
def _opened(output: Path | None, scored: bool) -> Iterator[IO[str] | None]:
    """Open the file for links: standard output if none is named; None if links are only scored."""
    if output is None or str(output) == "-":
        yield None if output is None and scored else sys.stdout
        return
    with output.open("w", encoding="utf-8") as file:
        yield file


def _report(links: "list[list[Link]]", gold: "list[Gold] | None", form: str) -> None:
    """Print the scores of links; nothing without gold links."""
    if gold is None:
        return
    from seq2attn.metrics import score_lines
    from seq2attn.metrics.alignments import alignment_scores

    scores = alignment_scores(links, gold)
    if form == "json":
        click.echo(json.dumps({"scores": [score.to_json() for score in scores]}, indent=2))
        return
    for line in score_lines(("", score) for score in scores):
        click.echo(line)


def _choose(
    runs: list[Path],
    load: "Callable[[Path], TextPredictor]",
    pairs: "list[Pair]",
    gold: str,
    threshold: float | None,
    form: str,
) -> None:
    """Choose the heads of the models, print what was tried, and write the best into the runs."""
    from seq2attn.runs.alignment_choice import choose_by_agreement, choose_by_gold

    checksum = ""
    if gold == "agreement":
        if len(runs) < 2:
            raise click.UsageError("--choose agreement compares two directions: give --reverse, too")
        choices = [*choose_by_agreement(load(runs[0]), load(runs[1]), pairs, threshold)]
    else:
        if len(runs) > 1:
            raise click.UsageError("--choose GOLD chooses for one run: leave out --reverse")
        if not Path(gold).exists() or Path(gold).is_dir():
            raise click.UsageError(f"--choose takes a file of gold links, or agreement: no such file: {gold}")
        links, checksum = _gold(Path(gold), pairs)
        choices = [choose_by_gold(load(runs[0]), pairs, links, threshold)]
    for folder, choice in zip(runs, choices, strict=True):
        choice.write(folder, checksum)
        if form == "json":
            click.echo(json.dumps({"run": str(folder), **choice.to_json()}, indent=2))
            continue
        for line in (*choice.table(), choice.summary(), f"written into {folder / 'version.json'}"):
            click.echo(line)
