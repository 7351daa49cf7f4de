"""Run folders: recipe, vocabularies, weights, training state and log of one training.

    recipe.yaml           the complete recipe of the run
    text/*                vocabularies: SentencePiece models, or JSON for words and labels
    weights/*.safetensors never changed once written
    version.json          format, checksums, and which weights are best, last and average
    training_state.pt     everything that resuming needs, read as plain tensors only
    log.jsonl             one record per line
    samples/step-*.png    a picture of each validation, if the task has one; nothing depends on it
    .lock                 the process that is writing to the folder, while it does

Each file is written under a temporary name and then renamed, version.json last: if the process is killed or
the power fails, the folder is in the state before or after the change. Loading executes no code from it.
Nothing outside the folder is ever written or removed: names in version.json are plain, and links are refused.
"""

import contextlib
import hashlib
import json
import pickle
import re
import secrets
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from seq2attn.errors import first_line, for_caller
from seq2attn.recipe import AnyRecipe, read
from seq2attn.recipe.yaml_source import dump
from seq2attn.runtime import files as atomic
from seq2attn.runtime.drafts import draft_folder
from seq2attn.training.empty_folder import afresh, require_empty, unmakeable
from seq2attn.training.log_lines import kept_lines, log_checksum
from seq2attn.training.version_file import (
    FORMAT,
    READABLE,
    RESUMABLE,
    RunError,
    Version,
    read_version,
    write_version,
)
from seq2attn.training.weights import (
    Weights,
    average,
    load_weights,
    renamed,
    tensors_of,
    weights_name,
    weights_of,
)

__all__ = [
    "FORMAT",
    "READABLE",
    "RunError",
    "RunFolder",
    "Version",
    "Weights",
    "average",
    "load_weights",
    "require_empty",
    "tensors_of",
    "weights_name",
    "weights_of",
]

LOCK = ".lock"  # the name of the lock file

_OF_TRAINING = re.compile(
    r"(step-\d{8}|average-\d+)\.safetensors"
)  # the names that training gives to weights
# Errors that torch.load may raise for a damaged file, besides its own.
_LOAD_ERRORS = (RuntimeError, NotImplementedError, EOFError, OSError, ValueError, LookupError, TypeError)


class RunFolder:
    """A run on disk. `create` makes a new one, `open` reads an existing one."""

    def __init__(self, path: Path, version: Version) -> None:
        self.path, self.version = path, version

    @classmethod
    def create(
        cls, path: Path, recipe: AnyRecipe, version: Version, files: Mapping[str, bytes] | None = None
    ) -> "RunFolder":
        """Make a new run with these files, by name. RunError if the folder exists and is not empty."""
        require_empty(path)
        with contextlib.ExitStack() as context:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                draft = context.enter_context(draft_folder(path.parent, path.name)) / path.name
            except OSError as error:
                raise unmakeable(path, error) from error
            for folder in ("", "weights", "text"):
                (draft / folder).mkdir()
            version.id = version.id or secrets.token_hex(8)
            run = cls(draft, version)
            run._place_recipe(_yaml(recipe))
            for name, content in (files or {}).items():
                run.add(name, content)
            run.commit()
            try:
                return cls(draft.replace(path), version)  # atomic: there is never an incomplete folder
            except OSError:
                require_empty(path)  # another process may have made it in the meantime
                raise

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Open an existing run. RunError if it is missing, damaged, or of an unknown format."""
        path = Path(path)
        file = path / "version.json"
        if not file.exists():
            if not path.exists():
                fault = "does not exist"
                if path.parts[:1] == ("hf:",):  # what only reads a run has found its folder in the cache
                    fault = "is on the hub, and its copy in the cache is not written to: pull it first"
            else:
                fault = "has no version.json" if path.is_dir() else "is no folder"
            raise RunError(f"{path} {fault}: expected a run folder, as `seq2attn train` makes it")
        return cls(path, read_version(file))

    def commit(self) -> None:
        """Write version.json atomically: readers now see the new state."""
        atomic.write(self.target("version.json"), write_version(self.version))

    def add(self, name: str, content: bytes) -> None:
        """Write a file and note its checksum; `commit` makes it part of the run."""
        self.version.checksums[name] = _sha256(content)
        atomic.write(self.target(name), content)

    def content(self, name: str) -> bytes:
        """Return the bytes of a file. RunError if it is missing or its checksum differs."""
        content = self._read(name)
        if self.version.checksums.get(name) != _sha256(content):
            raise RunError(
                f"{self.path / name} is damaged: its checksum is not the one in {self.path}/version.json; "
                "copy it again"
            )
        return content

    def _read(self, name: str) -> bytes:
        """Return the bytes of a file, whatever its checksum is. RunError if it cannot be read."""
        try:
            return atomic.read(self.path / name)
        except OSError as error:
            raise RunError(
                f"{self.path / name} cannot be read: {error.strerror}; the run folder is incomplete"
            ) from error

    def target(self, name: str) -> Path:
        """Return the path of a file to be written or removed. RunError if a link leads out of the run."""
        path = self.path / name
        for part in (path, *path.parents[: len(Path(name).parts) - 1]):
            if part.is_symlink():
                raise RunError(
                    f"{part} is a link, and a run folder is not written to through links: replace it by what "
                    "it leads to"
                )
        return path

    # ---- recipe -------------------------------------------------------------------------------------

    @property
    def recipe(self) -> AnyRecipe:
        """The recipe of the run. Its data files need not exist any more. RunError if it was changed."""
        file = self.path / "recipe.yaml"
        if not file.exists():
            raise RunError(f"{file} is missing: the run folder is incomplete")
        checksum = _sha256(self._read("recipe.yaml"))
        if self.version.recipe and checksum not in self.version.recipe:
            keep = f"as arguments; RunFolder.open({str(self.path)!r}).accept_recipe() keeps a change"
            raise RunError(
                f"{file} is damaged or was edited: its checksum is not the one in {self.path}/version.json. "
                "Restore it, or train with it in a new folder. Limits of a resumed training, and decoding "
                f"options, are given {for_caller('on the command line', keep)}"
            )
        return read(file, check_files=False)

    def accept_recipe(self) -> None:
        """Take recipe.yaml as it is now for the run's recipe. RecipeError if it has faults."""
        read(self.path / "recipe.yaml", check_files=False)
        self.version.recipe = [_sha256(self._read("recipe.yaml"))]
        self.commit()

    def replace_recipe(self, recipe: AnyRecipe) -> None:
        """Write another recipe. version.json accepts both while it is replaced: a kill does no harm."""
        content = _yaml(recipe)
        if self.version.recipe == [_sha256(content)]:
            return
        self.version.recipe = [_sha256(self._read("recipe.yaml")), _sha256(content)]
        self.commit()
        self._place_recipe(content)
        self.commit()

    def _place_recipe(self, content: bytes) -> None:
        atomic.write(self.target("recipe.yaml"), content)
        self.version.recipe = [_sha256(content)]

    # ---- weights ------------------------------------------------------------------------------------

    @property
    def weights(self) -> list[str]:
        """The names of all weights of the run."""
        return [key.removeprefix("weights/") for key in self.version.checksums if key.startswith("weights/")]

    def save_weights(self, name: str, weights: Weights) -> None:
        """Write weights to weights/NAME as safetensors; `commit` makes them part of the run."""
        if self.version.format in RESUMABLE:  # a folder of 0.1 stays one, so that its training is not resumed
            self.version.format = FORMAT
        self.add(f"weights/{name}", save({key: value.contiguous() for key, value in weights.items()}))

    def load_weights(self, which: str = "best") -> Weights:
        """Return weights: best, last, average, or those of a file below weights/. Where a training has since
        replaced them, they are those that it has now."""
        name = self._named(which)
        if name not in self.weights:
            names = (
                ", ".join(sorted(self.weights)) or "none yet (training has not reached its first validation)"
            )
            raise RunError(f"{self.path}: no weights '{which}'; there are: {names}")
        try:
            return renamed(load(self.content(f"weights/{name}")))
        except SafetensorError as error:
            raise RunError(f"{self.path / 'weights' / name} is damaged: {error}") from error
        except RunError:
            now = RunFolder.open(self.path)
            if now._named(which) == name:
                raise
            return now.load_weights(which)

    def _named(self, which: str) -> str:
        """Return the name of the weights that are meant by best, last, average, or their own name."""
        return getattr(self.version, which) if which in ("best", "last", "average") else which

    def require_weights(self) -> None:
        """Raise RunError if weights of the run are gone. Make their folder if there are none yet."""
        folder = self.target("weights/all").parent
        if gone := sorted(name for name in self.weights if not (folder / name).is_file()):
            raise RunError(f"{folder / gone[0]} is missing: the run folder is incomplete; copy it again")
        folder.mkdir(exist_ok=True)

    def last_weights(self, count: int) -> list[str]:
        """Return the names of the last `count` validated weights, oldest first."""
        return sorted(name for name in self.version.scores if name.startswith("step-"))[-count:]

    def prune(self, keep: Iterable[str]) -> None:
        """Commit, and delete all weights but these and the best, last and average ones.

        Call it after something newer is saved. Weights that a killed call left are deleted, too.
        """
        folder = self.target("weights/all").parent
        stale = self.forget_all_but(keep)
        self.commit()  # before the files are deleted: version.json never names a file that is gone
        left = {file.name for file in folder.iterdir() if _OF_TRAINING.fullmatch(file.name)}
        for name in stale | (left - {*self.weights}):
            (folder / name).unlink(missing_ok=True)

    def forget_all_but(self, keep: Iterable[str]) -> set[str]:
        """Forget all weights but these, the best, last and average ones; return the names of the others."""
        kept = {*keep, self.version.best, self.version.last, self.version.average}
        stale = {name for name in self.weights if name not in kept}
        for name in stale:
            del self.version.checksums[f"weights/{name}"]
            self.version.scores.pop(name, None)
        return stale

    # ---- training state and log ---------------------------------------------------------------------

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write everything that resuming needs to one file."""
        state = {**state, "run": self.version.id}
        atomic.write(self.target("training_state.pt"), lambda file: torch.save(state, file))
        self.version.log = log_checksum(self._logged())

    def load_state(self) -> dict[str, Any] | None:
        """Return the saved training state, None if there is none. RunError if it cannot be resumed from."""
        file = self.path / "training_state.pt"
        if self.version.format not in RESUMABLE:
            raise RunError(
                f"{self.path} was begun by an earlier seq2attn (format {self.version.format}): its weights "
                "can be used, but its training cannot be resumed"
            )
        if not file.exists():
            return None
        try:
            atomic.require_regular(file)
            with zipfile.ZipFile(file) as archive:  # torch.load ignores the archive's checksums
                if (member := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"the checksum of {member} is wrong")
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            if not isinstance(state, dict):
                raise TypeError(f"expected names and values, got {type(state).__name__}")
        except pickle.UnpicklingError as error:  # torch's text says how to load it all the same
            raise RunError(
                f"{file} holds something other than tensors and numbers, which may be a program: it was not "
                f"loaded. Copy it again from who trained the run, or {afresh(self.path)}"
            ) from error
        except (zipfile.BadZipFile, *_LOAD_ERRORS) as error:
            raise RunError(
                f"{file} is damaged and training cannot be resumed from it: {first_line(error)}. Copy it "
                f"again, or {afresh(self.path)}"
            ) from error
        if state.get("run", "") != self.version.id:
            raise RunError(f"{file} is that of another run: copy the one that belongs to {self.path}")
        return self._upgraded(state) if "learner" in state else state

    def _upgraded(self, state: dict[str, Any]) -> dict[str, Any]:
        """Convert a training state of format 0.2 to this format, and set the folder's format to it."""
        warnings.warn(
            f"{self.path} was begun with run format 0.2: its training continues, but random numbers "
            "(dropout, sampled attention) are seeded in another way since 0.3, so that its weights "
            "will differ from those of an uninterrupted training",
            stacklevel=2,
        )
        self.version.format = FORMAT
        trainer = state["learner"]
        try:
            current = {key: trainer[key] and renamed(trainer[key]) for key in ("model", "moving")}
            return {"trainer": {**trainer, **current}, "progress": state["progress"]}
        except (LookupError, TypeError, AttributeError) as error:
            raise RunError(f"{self.path / 'training_state.pt'} is damaged: {error!r}") from error

    def has_begun(self) -> bool:
        """Return whether anything of a training was saved: a log, weights, or the state after an update."""
        if self.weights or (self.path / "log.jsonl").exists():
            return True
        state = self.load_state()
        return state is not None and state["progress"]["step"] > 0

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record to log.jsonl."""
        atomic.append(self.target("log.jsonl"), f"{json.dumps(record, ensure_ascii=False)}\n".encode())

    def _logged(self) -> bytes:
        """Return the content of log.jsonl, nothing if there is none."""
        return self._read("log.jsonl") if (self.path / "log.jsonl").exists() else b""

    def sweep(self) -> None:
        """Delete the unfinished files of a process that was killed."""
        for folder in ("", "weights/", "text/", "samples/"):
            for file in self.target(f"{folder}all").parent.glob(f"{atomic.DRAFT}*"):
                if file.is_symlink() or not file.is_dir():  # a folder is the draft of another run
                    file.unlink()

    def rewind(self, step: int, ended: bool = False) -> None:
        """Undo everything after a step in version.json and log.jsonl, and delete unfinished files of a killed
        training. Weights of later steps stay in the folder until `prune` is called.

        ended: whether training has ended with this step, so that averages that were made then are kept.
        """
        self.sweep()
        self.forget_later(step, ended)
        content = self._logged()
        kept, fault = kept_lines(content, step, ended)
        version = self.version
        size, checksum = version.log
        if checksum and log_checksum(content[:size]) != (size, checksum):
            fault = fault or "lines were changed or are missing"
        if fault or kept != content:
            version.log = log_checksum(kept)
        self.commit()
        file = self.target("log.jsonl")
        if fault:
            aside = self.target("log.damaged.jsonl")
            atomic.write(aside, content)
            warnings.warn(
                f"{file} is damaged ({fault}): it was set aside as {aside.name}, and the log continues with "
                "the lines that can be read",
                stacklevel=2,
            )
        if content:
            atomic.write(file, kept)

    def forget_later(self, step: int, ended: bool) -> None:
        """Forget the scores of weights of later steps; see `rewind`."""
        version, last = self.version, weights_name(step)
        for name in list(version.scores):
            if not (ended if name.startswith("average-") else name <= last):
                del version.scores[name]
        scores = version.scores
        if version.best not in scores:  # without any others, they stay until there are
            version.best = max(reversed(scores), key=lambda name: scores[name], default=version.best)
        version.last = max((name for name in scores if name.startswith("step-")), default=version.last)
        version.average = version.average if version.average in scores else ""


def _yaml(recipe: AnyRecipe) -> bytes:
    return dump(recipe.model_dump(mode="json")).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
