"""The command `compare`: systems on the same inputs, with tests of their differences."""

import json
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from seq2attn.cli.completion import run_folders
from seq2attn.cli.inputs import lines
from seq2attn.cli.options import (
    BEAM,
    CHECKPOINT,
    DECODING,
    DEVICE,
    LENGTH_PENALTY,
    RunPath,
    cli,
    formats,
    refuse,
)
from seq2attn.errors import Seq2attnError

if TYPE_CHECKING:
    from seq2attn.metrics.comparison_report import ComparisonReport
    from seq2attn.runs.evaluation import GivenTexts
    from seq2attn.runs.system_outputs import System

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PARTS = ("length", "frequency", "copied", "ngrams", "attention")  # a test compares it with the library's


@cli.command()
@click.argument("systems", nargs=-1, metavar="[NAME=]PATH[,PATH]...", shell_complete=run_folders)
@click.option(
    "--data",
    type=click.Choice(["dev", "test"]),
    default="test",
    show_default=True,
    help="The data set of runs.",
)
@click.option(
    "--source", type=FILE, help="Sources, one a line: what runs read, or what files are outputs for."
)
@click.option("--references", multiple=True, type=FILE, help="References of --source. May be repeated.")
@click.option(
    "--metric", "metrics", multiple=True, help="As of score. May be repeated.  [default: the recipe's]"
)
@click.option(
    "--parts",
    default=",".join(PARTS),
    show_default=True,
    help="Parts of the data to compare on, separated by commas, or none: inputs by length, words by how "
    "frequent they are in training, words that are copied from the source, n-grams that one system has right "
    "and another has not, where runs look as they read the references.",
)
@click.option(
    "--gold",
    type=FILE,
    help="Links between sources and first references, a pair a line (0-0 1?2): AER of attention.",
)
@click.option(
    "--training",
    multiple=True,
    type=FILE,
    help="Target texts to count the frequency of words in.  [default: the training data of the first run]",
)
@click.option(
    "--most", type=click.IntRange(0), default=10, show_default=True, help="Inputs that differ most."
)
@click.option(
    "--samples",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Resampled corpora of the bootstrap; 0 = no tests.",
)
@click.option(
    "--trials",
    type=click.IntRange(0),
    default=10_000,
    show_default=True,
    help="Exchanges of the randomization test; 0 = none.",
)
@click.option("--seed", type=int, default=12345, show_default=True, help="Seed of both.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the first metric by the length of the source: .png, .svg or .pdf.",
)
@formats("text; json: all numbers; html: one page with the figure, for -o.", "json", "html")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the report.  [default: standard output]",
)
@BEAM
@LENGTH_PENALTY
@CHECKPOINT
@DEVICE
@click.pass_context
def compare(
    context: click.Context,
    systems: tuple[str, ...],
    data: Literal["dev", "test"],
    source: Path | None,
    references: tuple[Path, ...],
    metrics: tuple[str, ...],
    parts: str,
    gold: Path | None,
    training: tuple[Path, ...],
    most: int,
    samples: int,
    trials: int,
    seed: int,
    plot: Path | None,
    form: str,
    output: Path | None,
    checkpoint: str,
    device: str,
) -> None:
    """Compare systems on the same inputs: is the difference more than chance, and where is it?

    A system is a run, or a file with an output a line. Several runs of one system, such as trainings with
    other seeds, are separated by commas, or a pattern in quotes. All are compared with the first, by paired
    bootstrap and approximate randomization.

    \b
    seq2attn compare runs/quickstart runs/general
    seq2attn compare a.txt b.txt --source in.de --references gold.en --metric chrf
    seq2attn compare "A=runs/a-seed*" "B=runs/b-seed*" --plot length.svg
    seq2attn compare runs/quickstart other.txt --format html -o compared.html
    """
    from seq2attn.metrics.alignments import GoldFile
    from seq2attn.metrics.significance import Resampling
    from seq2attn.runs.system_comparison import compare_systems
    from seq2attn.runs.system_outputs import Decoding, collect

    chosen = [] if parts == "none" else parts.split(",")
    if wrong := [part for part in chosen if part not in PARTS]:
        raise click.UsageError(f"--parts: expected some of {', '.join(PARTS)}, or none; got {wrong[0]!r}")
    _refuse_unused(context, references, chosen)
    named = _named(systems)
    paths = [path for system in named for path in system.paths]
    texts = {path: list(lines((path,))) for path in dict.fromkeys(paths) if not path.is_dir()}
    if len(texts) == len({*paths}):
        refuse(context, ("data", "beam", "length_penalty", "checkpoint", "device"), "files are not decoded")
    decoding = Decoding(data, context.meta.get(DECODING, {}), checkpoint, device, "attention" in chosen)
    links = None if gold is None else GoldFile.parse(list(lines((gold,))), str(gold))
    collected = collect(named, texts, metrics, _given(source, references), decoding, links)
    training_texts = list(lines(training)) if training else None
    resampling = Resampling(samples, trials, seed)
    report = compare_systems(
        named, collected, chosen, training_texts, resampling, most, None if links is None else links.links
    )
    _write(report, form, output)
    if plot is not None:
        from seq2attn.views.comparison_page import length_figure
        from seq2attn.views.pictures import save

        save(length_figure(report), plot)


def _refuse_unused(context: click.Context, references: Sequence[Path], parts: Sequence[str]) -> None:
    """Raise UsageError for options that have no effect with given texts, or without a part."""
    if references:
        refuse(context, ("data",), "--references take the place of a data set")
    for part, option in (("attention", "gold"), ("frequency", "training")):
        if part not in parts:
            refuse(context, (option,), f"the part {part} is not compared")


def _given(source: Path | None, references: Sequence[Path]) -> "GivenTexts | None":
    """Return the texts of the options; None without any."""
    from seq2attn.runs.evaluation import GivenTexts

    if source is None and not references:
        return None
    if not references:
        raise click.UsageError("--source needs --references")
    texts = [] if source is None else list(lines((source,)))
    return GivenTexts(str(source), texts, [(str(file), list(lines((file,)))) for file in references])


def _named(arguments: Sequence[str]) -> "list[System]":
    """Return the systems of the arguments. UsageError for fewer than two, or a path that is not there."""
    from seq2attn.runs.system_outputs import System

    if len(arguments) < 2:
        raise click.UsageError(f"expected at least two systems to compare, got {len(arguments)}")
    found: list[System] = []
    for argument in arguments:
        name, equals, rest = argument.partition("=")
        if not equals or Path(argument).exists():
            name, rest = "", argument
        paths = [path for part in _parted(rest) for path in _matched(part)]
        found.append(System(name or _common([path.name or str(path) for path in paths]), paths))
    names = [system.name for system in found]
    if len({*names}) == len(names):
        return found
    return [system if names.count(system.name) == 1 else _by_path(system) for system in found]


def _by_path(system: "System") -> "System":
    """Return a system with a name that no other has: its paths."""
    return system._replace(name=",".join(map(str, system.paths)))


def _parted(text: str) -> list[str]:
    """Return the paths of a system."""
    return [text] if Path(text).exists() else text.split(",")


def _matched(text: str) -> list[Path]:
    """Return the path, or those whose names have the pattern, in alphabetical order."""
    path = RunPath(path_type=Path).convert(text, None, None)  # of the hub, too
    if path.exists():
        return [path]
    found = sorted(path.parent.glob(path.name)) if path.name else []
    if not found:
        raise Seq2attnError(f"{text}: expected the folder of a run, or a file of outputs; there is none")
    return found


def _common(names: Sequence[str]) -> str:
    """Return a name for several runs: what their names begin with."""
    if len(names) == 1:
        return names[0]
    alike = takewhile(lambda letters: len({*letters}) == 1, zip(*names, strict=False))
    return re.sub(r"[-_.]?(seed)?[-_.]?$", "", "".join(letter for letter, *_ in alike)) or names[0]


def _write(report: "ComparisonReport", form: str, output: Path | None) -> None:
    """Write a report to a file, or print it."""
    if form == "json":
        text = json.dumps(report.to_json(), indent=2, ensure_ascii=False)
    elif form == "html":
        from seq2attn.views.comparison_page import page

        text = page(report)
    else:
        text = str(report)
    if output is None:
        click.echo(text)
        return
    try:
        output.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise Seq2attnError(f"cannot write {output}: {error.strerror}") from error
