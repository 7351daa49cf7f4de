"""The commands `recipes` and `schema`: list what recipes there are, and what keys they have."""

import json

import click

from seq2attn.cli.options import cli, formats


@cli.command()
@formats("text; json: each recipe with its file.", "json")
def recipes(form: str) -> None:
    """List the recipes that ship, with training time and score.

    \b
    seq2attn recipes
    """
    from seq2attn.recipe import head, shipped

    if form == "json":
        listed = [{"name": name, "file": str(path), "about": head(path)} for name, path in shipped().items()]
        click.echo(json.dumps(listed, indent=2, ensure_ascii=False))
        return
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
