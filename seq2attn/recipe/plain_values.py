"""Python values as plain values, those that YAML has: dicts, lists, texts, numbers, true, false and null."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from pydantic import BaseModel

from seq2attn.recipe.yaml_source import MOST_VALUES, Keys

EXPECTED = "expected text, numbers, true, false, None, lists and dicts"
Note = Callable[[Keys, str], object]


def plain(value: Any, note: Note) -> Any:
    """Return a value as plain values: paths as text, NumPy's numbers and arrays as numbers and lists, all
    mappings and sections as dicts, and all sequences as lists.

    note: is called with the path and a message for each value that is none of these, which becomes None.
    """
    return _Plain(note).value(value, (), ())


class _Plain:
    """Counts values, of which one object may stand for billions if it is used again and again."""

    def __init__(self, note: Note) -> None:
        self.note = note
        self.count = 0

    def value(self, value: Any, path: Keys, above: tuple[int, ...]) -> Any:
        """Return a value with this path, below the objects with the ids `above`."""
        self.count += 1
        if self.count == MOST_VALUES:
            self.note((), f"has more than {MOST_VALUES:,} values, too many for a recipe")
        if self.count >= MOST_VALUES:
            return None
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str.__str__(value)  # also of an enumeration, whose own is its name
        for kind in (int, float):
            if isinstance(value, kind):
                return kind(value)
        return str(value) if isinstance(value, PurePath) else self.items(value, path, above)

    def items(self, value: Any, path: Keys, above: tuple[int, ...]) -> Any:
        """Return a mapping as a dict and a sequence as a list."""
        if id(value) in above:
            self.note(path, "contains itself")
            return None
        above = (*above, id(value))
        if isinstance(value, BaseModel):
            return self.items(value.model_dump(mode="json"), path, above)
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    self.note(path, f"expected keys that are text, got {key!r:.60}")
            texts = {key: item for key, item in value.items() if isinstance(key, str)}
            return {str.__str__(key): self.value(item, (*path, key), above) for key, item in texts.items()}
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
            return [self.value(item, (*path, index), above) for index, item in enumerate(value)]
        self.note(path, f"{EXPECTED}, got {value!r:.60}")
        return None
