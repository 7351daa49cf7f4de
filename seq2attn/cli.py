"""The command line: each command calls the function of its name. Heavy imports wait for their command."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from seq2attn import __version__
from seq2attn.errors import Seq2attnError

if TYPE_CHECKING:
    from seq2attn.metrics import References
    from seq2attn.results import Translation

DEVICE = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps; auto = the best."
)
CHECKPOINT = click.option(
    "--checkpoint",
    default="best",
    show_default=True,
    help="best, last, average, or a file below RUN/weights.",
)
RUN = click.argument("run", type=click.Path(path_type=Path))

DECODING = "seq2attn.decoding"  # where a command finds the decoding options that were given


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name:
        context.meta.setdefault(DECODING, {})[parameter.name] = value


def _decoding(flag: str, kind: type, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option that changes the recipe's decoding."""
    options: dict[str, Any] = {"is_flag": True, "default": None} if kind is bool else {"type": kind}
    return click.option(flag, help=text, expose_value=False, callback=_remember, **options)


BEAM = _decoding("--beam", int, "Hypotheses that are followed; 1 = greedy.")
LENGTH_PENALTY = _decoding("--length-penalty", float, "Exponent of the length that scores are divided by.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="seq2attn")
@click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    envvar="SEQ2ATTN_IMPORT",
    help="Import a module that adds scorers or normalizers of your own. Also as SEQ2ATTN_IMPORT.",
)
def cli(modules: tuple[str, ...]) -> None:
    """Train, score, translate with, and look into sequence-to-sequence models with pluggable attention.

    \b
    seq2attn recipes                              what ships
    seq2attn train quickstart --run runs/quickstart
    echo "Ich habe Hunger." | seq2attn translate runs/quickstart
    seq2attn heatmap runs/quickstart "Ich habe Hunger." -o hunger.png
    """
    if modules:
        sys.path.insert(0, "")  # modules of the working directory, as for `python -m`
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise Seq2attnError(f"--import {module}: {error}") from error


@cli.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--run", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/NAME]")
@click.option("--resume", is_flag=True, help="Go on exactly where the run in the folder stopped.")
@DEVICE
@click.pass_context
def train(
    context: click.Context,
    recipe: str,
    overrides: tuple[str, ...],
    run: Path | None,
    resume: bool,
    device: str,
) -> None:
    """Train what RECIPE says (a file, or the name of one that ships).

    \b
    seq2attn train recipes/quickstart.yaml
    seq2attn train quickstart model.decoder.attention.score=general --run runs/general
    seq2attn train quickstart --resume
    """
    from seq2attn.runs import signature, train

    trained = train(recipe, run, overrides, resume, device)
    if trained.progress.interrupted:
        words = ["seq2attn", "train", recipe, *overrides, "--run", str(trained.run), "--device", device]
        again = shlex.join([*words, "--resume"])
        click.echo(f"stopped after step {trained.progress.step}, all saved; go on with: {again}", err=True)
        context.exit(128 + trained.progress.interrupted)
    for score in trained.scores:
        click.echo(score)
    if trained.scores:
        click.echo(signature(trained.run, trained.model))
    click.echo(f"the run is in {trained.run}", err=True)


@cli.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--pairs",
    type=click.IntRange(1),
    default=50_000,
    show_default=True,
    help="Read at most so many of each training corpus.",
)
@DEVICE
def check(recipe: str, overrides: tuple[str, ...], pairs: int, device: str) -> None:
    """Try RECIPE before training: faults, data, vocabulary, model, one step, memory and time.

    \b
    seq2attn check recipes/wmt_transformer.yaml
    seq2attn check my.yaml data.train.0.limit=1000
    """
    from seq2attn.checking import check
    from seq2attn.recipe import read

    for line in check(read(recipe, overrides), pairs, device):
        click.echo(line)


@cli.command()
@RUN
@click.argument(
    "files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@BEAM
@LENGTH_PENALTY
@_decoding("--nbest", int, "Print so many translations of each line.")
@_decoding("--min-length", int, "Fewest pieces of a translation.")
@_decoding("--max-length", int, "Most pieces of a translation.")
@_decoding("--no-repeat-ngram", int, "No n-gram of so many pieces twice.")
@_decoding("--replace-unknown", bool, "Unknown pieces become the source word looked at most.")
@_decoding("--sample", bool, "Draw translations at random.")
@_decoding("--top-k", int, "Sample from the k likeliest pieces.")
@_decoding("--top-p", float, "Sample from the likeliest pieces of this total probability.")
@_decoding("--temperature", float, "Of sampling.")
@_decoding("--seed", int, "Of sampling.")
@_decoding("--batch-tokens", int, "Source tokens times beam that are worked on at once.")
@click.option("--scores", is_flag=True, help="Print each translation's score before it, and a tab.")
@click.option(
    "--alignments", type=click.Choice(["pharaoh", "json"]), help="Print alignments: a column, or JSON."
)
@CHECKPOINT
@DEVICE
@click.pass_context
def translate(
    context: click.Context,
    run: Path,
    files: tuple[Path, ...],
    scores: bool,
    alignments: str | None,
    checkpoint: str,
    device: str,
) -> None:
    """Translate FILES, or standard input, line by line to standard output, in order.

    \b
    echo "Wo ist der Bahnhof?" | seq2attn translate runs/quickstart
    seq2attn translate runs/quickstart in.de --beam 10 --nbest 3 --scores > out.en
    seq2attn translate runs/quickstart in.de --alignments pharaoh | cut -f 2
    """
    from seq2attn.results import Translation
    from seq2attn.translator import CHUNK, load

    translator = load(run, checkpoint, device)
    decoding = translator.settings(context.meta.get(DECODING, {}))
    interactive = not files and sys.stdin.isatty()
    found = translator.stream(
        _lines(files), decoding, alignment=alignments is not None, chunk=1 if interactive else CHUNK
    )
    for translation in found:
        lacking = decoding.nbest - len(translation.nbest)  # every sentence has as many lines
        for one in (*translation.nbest, *[Translation.empty(translation.source)] * lacking):
            click.echo(_line(one, scores, alignments))


def _lines(files: tuple[Path, ...]) -> Iterator[str]:
    """The lines of files, or of standard input; only a line feed ends one."""
    for file in files or (Path("-"),):
        with click.open_file(str(file), "rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    yield line.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    name = "standard input" if str(file) == "-" else file
                    raise Seq2attnError(
                        f"{name}:{number}: expected UTF-8, got the byte {error.object[error.start]:#x} "
                        f"at position {error.start + 1} of the line"
                    ) from error


def _line(one: "Translation", scores: bool, alignments: str | None) -> str:
    if alignments == "json":
        return json.dumps(
            {key: value for key, value in one.to_json().items() if key != "nbest"}, ensure_ascii=False
        )
    columns = [f"{one.score:.4f}"] if scores else []
    columns.append(" ".join(one.text.split("\n")))  # a model may say a line feed by its byte
    if alignments == "pharaoh":
        columns.append(one.pharaoh())
    return "\t".join(columns)


@cli.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Choice(["dev", "test"]), default="test", show_default=True, help="Which set."
)
@click.option("--source", type=click.Path(exists=True, path_type=Path), help="Translate this file instead.")
@click.option(
    "--hypotheses", type=click.Path(exists=True, path_type=Path), help="Score this file; needs no RUN."
)
@click.option(
    "--references",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="For --source or --hypotheses.",
)
@BEAM
@LENGTH_PENALTY
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@CHECKPOINT
@DEVICE
@click.pass_context
def score(
    context: click.Context,
    run: Path | None,
    data: Literal["dev", "test"],
    source: Path | None,
    hypotheses: Path | None,
    references: tuple[Path, ...],
    form: str,
    checkpoint: str,
    device: str,
) -> None:
    """BLEU, chrF and TER with sacreBLEU's signatures and 95 % bootstrap intervals.

    \b
    seq2attn score runs/quickstart
    seq2attn score runs/quickstart --source in.de --references out.en --beam 10
    seq2attn score --hypotheses mine.txt --references gold.txt --format json
    """
    if (run is None) == (hypotheses is None):
        raise click.UsageError("give either a RUN, or --hypotheses and --references")
    if (source is not None or hypotheses is not None) != bool(references):
        raise click.UsageError("--references goes with --source or --hypotheses, and they with it")
    made = None
    gold: References = [list(_lines((file,))) for file in references]
    if run is None or hypotheses is not None:
        from seq2attn.metrics import score

        scores = score(list(_lines((cast(Path, hypotheses),))), gold)
    else:
        from seq2attn.runs import held_out, score_pairs, signature
        from seq2attn.translator import load

        translator = load(run, checkpoint, device)
        translator.decoding = translator.settings(context.meta.get(DECODING, {}))
        if source is None:
            sources, gold = held_out(run, translator, data)
        else:
            sources = list(_lines((source,)))
        scores = score_pairs(translator, sources, gold)
        made = signature(run, translator, checkpoint)
    if form == "json":
        click.echo(json.dumps({"signature": made, "scores": [one.to_json() for one in scores]}, indent=2))
        return
    for line in (*scores, *([made] if made else [])):
        click.echo(line)


@cli.command()
@RUN
@click.argument("sentence")
@click.option("--target", help="Align with this translation instead of the model's own.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="A .png, .svg or .pdf file."
)
@click.option("--pieces", is_flag=True, help="By pieces instead of words.")
@click.option(
    "--layer", type=int, help="Of a Transformer, from 0 (-1 = the last).  [default: the one before the last]"
)
@click.option("--head", type=int, help="From 0 (-1 = the last).  [default: the mean of all]")
@BEAM
@CHECKPOINT
@DEVICE
@click.pass_context
def heatmap(
    context: click.Context,
    run: Path,
    sentence: str,
    target: str | None,
    output: Path,
    pieces: bool,
    layer: int | None,
    head: int | None,
    checkpoint: str,
    device: str,
) -> None:
    """Draw which source word each word of the translation looked at.

    \b
    seq2attn heatmap runs/quickstart "Ich habe Hunger." -o hunger.png
    seq2attn heatmap runs/quickstart "Ich habe Hunger." --target "I am hungry." -o hunger.svg
    """
    from seq2attn.translator import load

    translator = load(run, checkpoint, device)
    translator.decoding = translator.settings({**context.meta.get(DECODING, {}), "nbest": 1})
    translator.alignment_layer, translator.alignment_head = layer, head
    if target is None:
        (aligned,) = translator.stream([sentence], translator.decoding, alignment=True)
    else:
        aligned = translator.align(sentence, target)
    aligned.plot(output, pieces=pieces)
    click.echo(f"{aligned.text}\n{output}")


@cli.command()
@RUN
@click.option("--last", type=click.IntRange(1), required=True, help="So many of the last kept weights.")
@DEVICE
def average(run: Path, last: int, device: str) -> None:
    """Average the last weights of RUN; they become its best if they score better on the dev set.

    \b
    seq2attn average runs/quickstart --last 5
    seq2attn translate runs/quickstart --checkpoint average in.de
    """
    from seq2attn.runs import average_run

    folder = average_run(run, last, device)
    click.echo(f"{folder.path / 'weights' / folder.version.average}; best: {folder.version.best}")


@cli.command()
def recipes() -> None:
    """List the recipes that ship.

    \b
    seq2attn recipes
    """
    from seq2attn.recipe import head, shipped

    for name, path in shipped().items():
        click.echo(name)
        for line in head(path):
            click.echo(f"    {line}")


@cli.command()
def schema() -> None:
    """Print the JSON schema of a recipe, for editors.

    \b
    seq2attn schema > recipe.schema.json
    """
    from seq2attn.recipe import schema

    click.echo(json.dumps(schema(), indent=2))
