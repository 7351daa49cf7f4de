"""The commands `recipes` and `schema`: list what recipes there are, and what keys they have."""

import json

import click

from seq2attn.cli.options import cli


@cli.command()
def recipes() -> None:
    """List the recipes that ship, with training time and score.

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
    """Print the JSON schema of recipes, for editors.

    \b
    seq2attn schema > recipe.schema.json
    """
    from seq2attn.recipe import schema

    click.echo(json.dumps(schema(), indent=2))
