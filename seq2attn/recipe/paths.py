"""Where a recipe's data lie: `${VARIABLES}` and relative paths become absolute, files are looked for."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seq2attn.recipe.data import FORMATS
from seq2attn.recipe.yaml_source import Keys

_VARIABLE = re.compile(r"\$\{(\w+)\}")
Note = Callable[[Keys, str], None]


def expand_variables(recipe: dict[str, Any], note: Note) -> dict[str, Any]:
    """A copy of the recipe with each ${VARIABLE} in the strings of its data section from the environment.

    note: called with the first place of each variable that is not set.
    """
    unset: set[str] = set()

    def expanded(value: Any, path: Keys) -> Any:
        if isinstance(value, dict):
            return {key: expanded(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [expanded(inner, (*path, index)) for index, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        for name in _VARIABLE.findall(value):
            if not os.environ.get(name) and name not in unset:
                unset.add(name)
                note(path, f"${{{name}}} is not set: give the environment variable {name} a value")
        return _VARIABLE.sub(lambda match: os.environ.get(match[1]) or match[0], value)

    return {key: expanded(value, (key,)) if key == "data" else value for key, value in recipe.items()}


def make_absolute(recipe: dict[str, Any], folder: Callable[[Keys], Path], note: Note | None) -> None:
    """Makes paths absolute in place; `folder` says what a path in the recipe is relative to.

    note: called with each file that is missing, if that matters.
    """
    for holder, key, path in _paths(recipe):
        value = holder[key]
        if not isinstance(value, str) or "://" in value or _VARIABLE.search(value):
            continue
        place = folder(path) / os.path.expanduser(value)  # noqa: PTH111 (of an unknown user: no error)
        if path[-1] == "dataset" and not _is_local(value, place):
            continue
        holder[key] = os.path.normpath(place)
        if note is not None and not _exists(place):
            note(path, f"no such {'folder' if path[-1] == 'dataset' else 'file'}: {holder[key]}")


def _paths(recipe: dict[str, Any]) -> Iterator[tuple[Any, Any, Keys]]:
    """Each place that may hold a path: its container, its key there, and its path in the recipe."""
    for corpus, path in _corpora(recipe.get("data")):
        yield from _items(corpus, "files", path)
        yield from _items(corpus, "alignments", path)
        yield from _items(corpus, "table", path)
        yield from _items(corpus, "conll", path)
        yield from _items(corpus, "dataset", path)
        if str(corpus.get("dataset")) in FORMATS:
            yield from _items(corpus, "data_files", path)
    if isinstance(text := recipe.get("text"), dict):
        yield from _items(text, "files", ("text",))
        yield from _items(text, "vectors", ("text",))


def _corpora(data: Any) -> Iterator[tuple[dict[str, Any], Keys]]:
    for use in ("train", "dev", "test"):
        found = data.get(use) if isinstance(data, dict) else None
        if isinstance(found, dict):
            yield found, ("data", use)
        elif isinstance(found, list):
            for index, corpus in enumerate(found):
                if isinstance(corpus, dict):
                    yield corpus, ("data", use, index)


def _items(holder: dict[str, Any], key: str, path: Keys) -> Iterator[tuple[Any, Any, Keys]]:
    value = holder.get(key)
    if isinstance(value, str):
        yield holder, key, (*path, key)
    elif isinstance(value, list):
        for index in range(len(value)):
            yield value, index, (*path, key, index)


def _is_local(dataset: str, place: Path) -> bool:
    """Whether a dataset is a folder: by its looks, or because there is one of the name."""
    return dataset not in FORMATS and (dataset.startswith((".", "/", "~")) or place.is_dir())


def _exists(place: Path) -> bool:
    if any(letter in str(place) for letter in "*?["):
        return any(Path(place.anchor).glob(str(place.relative_to(place.anchor)))) or place.exists()
    return place.exists()
