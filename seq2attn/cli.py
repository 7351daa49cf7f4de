"""The command line: each command calls the function of its name. Heavy imports wait for their command."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seq2attn import __version__
from seq2attn.errors import Seq2attnError

if TYPE_CHECKING:
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="seq2attn")
def cli() -> None:
    """Train, score, translate with, and look into sequence-to-sequence models with pluggable attention.

    \b
    seq2attn recipes                              what ships
    seq2attn train quickstart --run runs/quickstart
    echo "Ich habe Hunger." | seq2attn translate runs/quickstart
    seq2attn heatmap runs/quickstart "Ich habe Hunger." -o hunger.png
    """


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
    from seq2attn.recipe import read
    from seq2attn.runs import signature, train

    read_recipe = read(recipe, overrides)
    trained = train(read_recipe, run, resume=resume, device=device)
    if trained.progress.interrupted:
        again = " ".join(["seq2attn train", recipe, *overrides, *(["--run", str(run)] if run else [])])
        click.echo(
            f"stopped after step {trained.progress.step}, all saved; go on with: {again} --resume", err=True
        )
        context.exit(128 + trained.progress.interrupted)
    for score in trained.scores:
        click.echo(score)
    if trained.scores:
        click.echo(signature(trained.model, read_recipe))
    click.echo(f"the run is in {trained.run}", err=True)


@cli.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--pairs", default=50_000, show_default=True, help="Read at most so many of each training corpus."
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
@click.option("--beam", type=int, help="Hypotheses that are followed; 1 = greedy.")
@click.option("--length-penalty", type=float, help="Exponent of the length that scores are divided by.")
@click.option("--nbest", type=int, help="Print so many translations of each line.")
@click.option("--sample", is_flag=True, default=None, help="Draw translations at random.")
@click.option("--top-k", type=int, help="Sample from the k likeliest pieces.")
@click.option("--top-p", type=float, help="Sample from the likeliest pieces of this total probability.")
@click.option("--temperature", type=float, help="Of sampling.")
@click.option("--seed", type=int, help="Of sampling.")
@click.option("--batch-tokens", type=int, help="Source tokens that are translated at once.")
@click.option("--scores", is_flag=True, help="Print each translation's score before it, and a tab.")
@click.option(
    "--alignments", type=click.Choice(["pharaoh", "json"]), help="Print alignments: a column, or JSON."
)
@CHECKPOINT
@DEVICE
def translate(
    run: Path,
    files: tuple[Path, ...],
    scores: bool,
    alignments: str | None,
    checkpoint: str,
    device: str,
    **settings: Any,
) -> None:
    """Translate FILES, or standard input, line by line to standard output, in order.

    \b
    echo "Wo ist der Bahnhof?" | seq2attn translate runs/quickstart
    seq2attn translate runs/quickstart in.de --beam 10 --nbest 3 --scores > out.en
    seq2attn translate runs/quickstart in.de --alignments pharaoh | cut -f 2
    """
    from seq2attn.translator import CHUNK, load

    translator = load(run, checkpoint, device)
    decoding = translator.settings(settings)
    interactive = not files and sys.stdin.isatty()
    found = translator.stream(
        _lines(files), decoding, alignment=alignments is not None, chunk=1 if interactive else CHUNK
    )
    for translation in found:
        for one in translation.nbest:
            click.echo(_line(one, scores, alignments))


def _lines(files: tuple[Path, ...]) -> Iterator[str]:
    """The lines of files, or of standard input; only a line feed ends one."""
    for file in files or (Path("-"),):
        with click.open_file(str(file), "rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    yield line.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise Seq2attnError(
                        f"{file}:{number}: expected UTF-8, got {error.object[error.start]:#x}"
                    ) from error


def _line(one: "Translation", scores: bool, alignments: str | None) -> str:
    if alignments == "json":
        return json.dumps(
            {key: value for key, value in one.to_json().items() if key != "nbest"}, ensure_ascii=False
        )
    columns = [f"{one.score:.4f}"] if scores else []
    columns.append(one.text)
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
@click.option("--beam", type=int, help="Hypotheses that are followed; 1 = greedy.")
@click.option("--length-penalty", type=float, help="Exponent of the length that scores are divided by.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@CHECKPOINT
@DEVICE
def score(run: Path | None, form: str, **options: Any) -> None:
    """BLEU, chrF and TER with sacreBLEU's signatures and 95 % bootstrap intervals.

    \b
    seq2attn score runs/quickstart
    seq2attn score runs/quickstart --source in.de --references out.en --beam 10
    seq2attn score --hypotheses mine.txt --references gold.txt --format json
    """
    made, scores = _scores(run, options)
    if form == "json":
        click.echo(json.dumps({"signature": made, "scores": [one.to_json() for one in scores]}, indent=2))
        return
    for one in scores:
        click.echo(one)
    if made:
        click.echo(made)


def _scores(run: Path | None, options: dict[str, Any]) -> tuple[str | None, list[Any]]:
    """Where the scores come from, and the scores."""
    from seq2attn.metrics import METRICS

    hypotheses, source, references = options["hypotheses"], options["source"], options["references"]
    if hypotheses is not None:
        if run is not None or not references:
            raise click.UsageError("--hypotheses needs --references, and no RUN")
        texts, gold = list(_lines((hypotheses,))), [list(_lines((file,))) for file in references]
        return None, [METRICS[name](texts, gold) for name in ("bleu", "chrf", "ter")]
    if run is None:
        raise click.UsageError("give a RUN, or --hypotheses and --references")
    if (source is None) != (not references):
        raise click.UsageError("--source and --references go together")
    from seq2attn.checkpoint import RunFolder
    from seq2attn.display import Display
    from seq2attn.runs import score_pairs, score_run, signature
    from seq2attn.translator import load

    translator = load(run, options["checkpoint"], options["device"])
    translator.decoding = translator.settings({key: options[key] for key in ("beam", "length_penalty")})
    recipe = RunFolder.open(run).recipe
    if source is not None:
        sources, gold = list(_lines((source,))), [list(_lines((file,))) for file in references]
        scores = score_pairs(translator, sources, gold)
    else:
        scores = score_run(translator, recipe, options["data"], Display())
    return signature(translator, recipe, options["checkpoint"]), scores


@cli.command()
@RUN
@click.argument("sentence")
@click.option("--target", help="Align with this translation instead of the model's own.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="A .png, .svg or .pdf file."
)
@click.option("--pieces", is_flag=True, help="By pieces instead of words.")
@click.option("--layer", type=int, help="Of a Transformer, from 0.  [default: the one before the last]")
@click.option("--head", type=int, help="From 0.  [default: the mean of all]")
@click.option("--beam", type=int, help="Hypotheses that are followed; 1 = greedy.")
@CHECKPOINT
@DEVICE
def heatmap(
    run: Path,
    sentence: str,
    target: str | None,
    output: Path,
    pieces: bool,
    layer: int | None,
    head: int | None,
    beam: int | None,
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
    if target is None:
        target = str(translator.translate(sentence, beam=beam, nbest=1, alignment=False))
    aligned = translator.align(sentence, target, layer, head)
    aligned.plot(output, pieces=pieces)
    click.echo(f"{aligned.text}\n{output}")


@cli.command()
@RUN
@click.option("--last", type=int, required=True, help="So many of the last kept weights.")
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
