"""What the shell completes: names of recipes and their keys, and run folders."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from seq2attn.errors import Seq2attnError


def recipe_names(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the recipes that ship, and let the shell complete files."""
    from seq2attn.recipe import shipped

    names = [CompletionItem(name) for name in shipped() if name.startswith(begun)]
    return [*names, CompletionItem(begun, type="file")]


def recipe_keys(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the keys of the recipe that the command line names, each with its `=`."""
    from seq2attn.recipe import read

    try:
        recipe = read(str(context.params.get("recipe")))
    except (Seq2attnError, OSError):
        return []
    return [
        CompletionItem(f"{key}=") for key in _keys(recipe.model_dump(mode="json")) if key.startswith(begun)
    ]


def run_folders(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the runs in `runs/`, and let the shell complete folders."""
    runs = (path.parent.as_posix() for path in sorted(Path("runs").glob("*/version.json")))
    names = [CompletionItem(name) for name in runs if name.startswith(begun)]
    return [*names, CompletionItem(begun, type="dir")]


def _keys(tree: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted keys of a tree. Items of lists are numbered from 0."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        name = f"{path}.{key}" if path else str(key)
        yield name
        yield from _keys(value, name)
