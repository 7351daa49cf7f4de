"""The command `import`: makes run folders of models of other tools."""

from pathlib import Path

import click

from seq2attn.cli.options import cli


@cli.group("import")
def import_group() -> None:
    """Make a run folder of a model that another tool trained. Then every command works on it.

    \b
    seq2attn import marian opus-mt-de-en -o runs/opus-de-en
    """


@import_group.command()
@click.argument("model")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder of the new run."
)
def marian(model: str, output: Path) -> None:
    """Import a Marian model (OPUS-MT) in the form of Transformers.

    MODEL is a folder with config.json, model.safetensors, source.spm, target.spm and vocab.json, or a name on
    the hub.

    \b
    seq2attn import marian opus-mt-de-en -o runs/opus-de-en
    seq2attn import marian hf://Helsinki-NLP/opus-mt-de-en -o runs/opus-de-en
    echo "Das ist ein Haus." | seq2attn translate runs/opus-de-en
    """
    from seq2attn.pretrained.hub import PREFIX, HubName, fetched
    from seq2attn.pretrained.marian import import_marian

    if model.startswith(PREFIX):
        name = HubName.parse(model)
        snapshot = fetched(name)
        imported = import_marian(snapshot.folder, output, name.repository, snapshot.commit)
        click.echo(f"{name.repository} at commit {snapshot.commit}", err=True)
    else:
        imported = import_marian(model, output)
    click.echo(
        f"{imported.folder.path}: {imported.parameters:,} parameters, all {imported.tensors} tensors of the "
        "file are used"
    )
    click.echo(
        "alignments are those of the layer before the last; to choose the layer and head that align best: "
        f"seq2attn align {output} --choose GOLD",
        err=True,
    )
