"""The run's folder for the processes that do not write it: those of a group except the first."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seq2attn.recipe import AnyRecipe, read
from seq2attn.training.run_folder import RunError, RunFolder
from seq2attn.training.version_file import Version
from seq2attn.training.weights import Weights


class Onlooker(RunFolder):
    """A run whose files another process writes. Names and scores of weights are kept as there, so that all
    processes decide alike; nothing is written or deleted.

    parts: the run's vocabularies, by the names of their files.
    """

    def __init__(self, path: Path, version: Version, recipe: AnyRecipe, parts: Mapping[str, bytes]) -> None:
        super().__init__(path, version)
        self._recipe, self._parts = recipe, parts

    @classmethod
    def of(cls, path: Path, shown: Mapping[str, Any]) -> "Onlooker":
        """Return a run of which the first process has told `to_json`."""
        recipe = read(shown["recipe"], check_files=False)
        parts = {name: base64.b64decode(content) for name, content in shown["parts"].items()}
        return cls(path, Version(**shown["version"]), recipe, parts)

    @property
    def recipe(self) -> AnyRecipe:
        """See the base class."""
        return self._recipe

    def content(self, name: str) -> bytes:
        """See the base class: only vocabularies are known here."""
        if name not in self._parts:
            raise RunError(f"{self.path / name} is read by the first process only")
        return self._parts[name]

    def add(self, name: str, content: bytes) -> None:
        """See the base class: only the name is noted."""
        self.version.checksums[name] = ""

    def save_weights(self, name: str, weights: Weights) -> None:
        """See the base class: only the name is noted."""
        self.add(f"weights/{name}", b"")

    def prune(self, keep: Iterable[str]) -> None:
        """See the base class: only names are forgotten."""
        self.forget_all_but(keep)

    def rewind(self, step: int, ended: bool = False) -> None:
        """See the base class: only scores are forgotten."""
        self.forget_later(step, ended)

    def commit(self) -> None:
        """See the base class."""

    def replace_recipe(self, recipe: AnyRecipe) -> None:
        """See the base class."""
        self._recipe = recipe

    def save_state(self, state: Mapping[str, Any]) -> None:
        """See the base class."""

    def log(self, record: Mapping[str, Any]) -> None:
        """See the base class."""


def to_json(folder: RunFolder, recipe: AnyRecipe) -> dict[str, Any]:
    """Return what another process must know of a run to train it: recipe, version and vocabularies."""
    names = [name for name in folder.version.checksums if name.startswith("text/")]
    parts = {name: base64.b64encode(folder.content(name)).decode() for name in names}
    return {
        "recipe": recipe.model_dump(mode="json"),
        "version": asdict(folder.version),
        "parts": parts,
    }
