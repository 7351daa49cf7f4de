"""Paths in a recipe: `${VARIABLES}` are replaced, relative paths become absolute, missing files are faults.

Which fields are paths is marked in the sections (`PathField`).
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

from seq2attn.recipe.markers import PathField
from seq2attn.recipe.sections import Section
from seq2attn.recipe.yaml_source import Keys

_VARIABLE = re.compile(r"\$\{(\w+)\}")
Note = Callable[[Keys, str], None]


def expand_variables(recipe: dict[str, Any], note: Note) -> dict[str, Any]:
    """Return a copy of the recipe with each ${VARIABLE} in its section `data` replaced by its value.

    note: called for each environment variable that is not set, with the key where it occurs first.
    """
    unset: set[str] = set()

    def expanded(value: Any, keys: Keys) -> Any:
        if isinstance(value, dict):
            return {key: expanded(inner, (*keys, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [expanded(inner, (*keys, index)) for index, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        for name in _VARIABLE.findall(value):
            if not os.environ.get(name) and name not in unset:
                unset.add(name)
                note(keys, f"${{{name}}} is not set: give the environment variable {name} a value")
        return _VARIABLE.sub(lambda match: os.environ.get(match[1]) or match[0], value)

    return {key: expanded(value, (key,)) if key == "data" else value for key, value in recipe.items()}


def make_absolute(
    recipe: dict[str, Any], kind: type[Section], folder: Callable[[Keys], Path], note: Note | None
) -> None:
    """Make the paths of a recipe absolute, in place.

    kind: the recipe's class, whose sections mark which fields are paths.
    folder: returns the folder to which a path is relative, given its keys.
    note: called for each missing file, and each folder of data that is a URL; None: these are no faults.
    """
    for field in {field.keys: field for field in _path_fields(kind, recipe, ())}.values():
        text = field.container[field.key]
        if "://" in text or _VARIABLE.search(text):
            of_data = field.keys[0] == "data" and field.marker.kind == "folder"
            if note and of_data and "://" in text and field.marker.applies(field.section, text, Path(text)):
                note(field.keys, f"a folder cannot be a URL: copy {text} to this machine, or name an archive")
            continue
        path = folder(field.keys) / os.path.expanduser(text)  # noqa: PTH111 (no error for an unknown user)
        if not field.marker.applies(field.section, text, path):
            continue
        field.container[field.key] = os.path.normpath(path)
        if note is None or not field.marker.required:
            continue
        if not (path.exists() or (field.marker.wildcards and _matches(path))):
            note(field.keys, f"no such {field.marker.kind}: {os.path.normpath(path)}")


class _PathText(NamedTuple):
    """A text in a recipe that may be a path."""

    container: Any  # the section or list that holds it
    key: Any  # its key or index there
    keys: Keys  # from the recipe's top
    section: dict[str, Any]
    marker: PathField


def _path_fields(section: type[Section], values: dict[str, Any], keys: Keys) -> Iterator[_PathText]:
    """Find the path fields of a section as written, and of the sections in it.

    A section that can be of several classes is searched as each of them.
    """
    for name, field in section.model_fields.items():
        types = [*field.metadata, *_within(field.annotation)]
        marker = next((type_ for type_ in types if isinstance(type_, PathField)), None)
        below = [type_ for type_ in types if isinstance(type_, type) and issubclass(type_, Section)]
        for container, key, at in _items(values, name, keys):
            if marker is not None and isinstance(container[key], str):
                yield _PathText(container, key, at, values, marker)
            for inner in below if isinstance(container[key], dict) else ():
                yield from _path_fields(inner, container[key], at)


def _within(annotation: Any) -> Iterator[Any]:
    """Return an annotation and all types and markers that it is made of."""
    yield annotation
    for inner in get_args(annotation):
        yield from _within(inner)


def _items(values: dict[str, Any], name: str, keys: Keys) -> Iterator[tuple[Any, Any, Keys]]:
    """Return the value of a key, or each item if it is a list: its container, its key there, and all keys."""
    value = values.get(name)
    if isinstance(value, list):
        for index in range(len(value)):
            yield value, index, (*keys, name, index)
    elif value is not None:
        yield values, name, (*keys, name)


def _matches(path: Path) -> bool:
    """Whether there is a file for a path with wildcards."""
    wild = any(letter in str(path) for letter in "*?[")
    return wild and any(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
