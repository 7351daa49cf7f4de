"""The commands `pull` and `push`: runs on the Hugging Face hub."""

from pathlib import Path

import click

from seq2attn.cli.options import OWN_RUN, cli


@cli.command()
@click.argument("name")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The folder of the run.  [default: runs/NAME]"
)
def pull(name: str, output: Path | None) -> None:
    """Copy the run NAME, hf://user/name[@revision], from the hub into a folder; a Marian model is imported.

    Every command that reads a run takes such a name, too, and keeps the run in a cache.

    \b
    seq2attn pull hf://someone/quickstart-de-en
    seq2attn pull hf://Helsinki-NLP/opus-mt-de-en@main -o runs/opus
    seq2attn translate hf://Helsinki-NLP/opus-mt-de-en in.de
    """
    from seq2attn.pretrained.hub import HubName, pull

    repository = HubName.parse(name).repository
    folder = pull(name, output or Path("runs") / repository.split("/")[1])
    click.echo(folder.path)


@cli.command()
@OWN_RUN
@click.argument("name")
@click.option(
    "--license", "licence", help="Licence of the weights, as the hub names it: apache-2.0, cc-by-4.0."
)
@click.option("--private", is_flag=True, help="Only you can see a repository that is made.")
@click.option(
    "--data",
    type=click.Choice(["test", "dev"]),
    help="Score it on this set, for the card.",
)
def push(run: Path, name: str, licence: str | None, private: bool, data: str | None) -> None:
    """Upload RUN to the hub as NAME, hf://user/name: recipe, vocabularies, best weights and a card.

    The licence is asked for, if it is not given. The recipe is uploaded as it is, with the paths in it. Log
    in with `hf auth login` before.

    \b
    seq2attn push runs/quickstart hf://me/quickstart-de-en --license apache-2.0 --data test
    """
    from seq2attn.runs.publishing import push

    if licence is None:
        licence = str(click.prompt("Licence of the weights (apache-2.0, cc-by-4.0, ...)", err=True))
    click.echo(push(run, name, licence, private, data))  # type: ignore[arg-type]
