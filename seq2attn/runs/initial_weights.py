"""`init_from`: a training starts from the weights of another run, by the names of tensors."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from seq2attn.recipe import AnyRecipe
from seq2attn.tasks.task import LABELS, Task
from seq2attn.training.run_folder import RunError, RunFolder
from seq2attn.training.weights import tensors_of

VOCABULARIES = "text/"  # the folder of a run with vocabularies
MAX_LISTED = 12  # parts of a model in a line of the report
MAX_CHANGED = 20  # tensors in an error message


class Taken(NamedTuple):
    """The names of tensors that were taken from a run, of those of the model that are new, and of those that
    were left in the run."""

    run: Path
    taken: list[str]
    new: list[str]
    left: list[str]
    other_labels: bool  # so that tensors with a row for each label are new

    def lines(self) -> Iterator[str]:
        """Yield lines for a report; a part whose tensors are all of one kind stands for them."""
        names = {*self.taken, *self.new, *self.left}
        yield f"{len(self.taken)} tensors from {self.run}: {_parts(self.taken, names)}"
        if self.new:
            why = " (the labels are others than there)" if self.other_labels else ""
            yield f"{len(self.new)} new tensors: {_parts(self.new, names)}{why}"
        if self.left:
            yield f"{len(self.left)} tensors of {self.run} left: {_parts(self.left, names)}"


class InitialWeights:
    """The best weights of another run, and its vocabularies. RunError if it is missing or damaged."""

    def __init__(self, run: str | Path) -> None:
        try:
            folder = RunFolder.open(run)
            self.weights = folder.load_weights("best")
            names = [name for name in folder.version.checksums if name.startswith(VOCABULARIES)]
            self.files = {name: folder.content(name) for name in names}
        except RunError as error:
            raise RunError(f"init_from: {error}") from error
        self.run = folder.path
        best = folder.version.best
        checksum = folder.version.checksums[f"weights/{best}"]
        self.origin = {"init_from": str(folder.path), "weights": best, "sha256": checksum}  # for the record

    def require_vocabulary(self, task: Task[Any]) -> None:
        """Raise RunError unless the vocabularies of a task are those of the run: otherwise rows of embeddings
        would stand for other pieces or words."""
        files = task.files()
        others = sorted(name for name in files if name != LABELS and self.files.get(name) != files[name])
        if not others:
            return
        models = [str(self.run / name) for name in self.files if name.endswith(".model")]
        advice = "they are learned from the training data, which have to be those of that run"
        if models:
            advice = f"use those of that run, by text.files or text.file: {', '.join(models)}"
        raise RunError(
            f"init_from: {', '.join(others)} of this recipe and of {self.run} differ, so that rows of "
            f"embeddings would stand for other pieces or words: {advice}"
        )

    def give(self, model: nn.Module, task: Task[Any]) -> Taken:
        """Copy tensors into a model of a task by their names, and return which. RunError if there is none, or
        if some have another shape there, which it lists."""
        own, given, labels = tensors_of(model), self.weights, task.files().get(LABELS)
        other_labels = labels is not None and self.files.get(LABELS) != labels and bool(task.label_tensors)
        of_labels = task.label_tensors if other_labels else ()
        shared = [name for name in own if name in given and not name.startswith(of_labels)]
        changed = [
            f"{name} is {tuple(given[name].shape)} there, {tuple(own[name].shape)} here"
            for name in shared
            if given[name].shape != own[name].shape
        ]
        if changed:
            more = f"; and {len(changed) - MAX_CHANGED} more" if len(changed) > MAX_CHANGED else ""
            raise RunError(
                f"init_from: tensors of {self.run} have other shapes: {'; '.join(changed[:MAX_CHANGED])}"
                f"{more}. Give these parts the sizes that they have there"
            )
        if not shared:
            theirs, ours = (_parts(names, {*given, *own}) for names in (given, own))
            raise RunError(f"init_from: {self.run} has {theirs}, and the model {ours}: no name is the same")
        model.load_state_dict({name: given[name] for name in shared}, strict=False)
        taken = set(shared)
        new, left = ([name for name in names if name not in taken] for names in (own, given))
        return Taken(self.run, shared, new, left, other_labels)


def initial_weights(recipe: AnyRecipe, folder: RunFolder | None = None) -> InitialWeights | None:
    """Return the weights that a training starts from; None if they are random, or if the training of a folder
    has been saved, so that it goes on from there. RunError if their run is missing or damaged."""
    if recipe.init_from is None or (folder is not None and folder.load_state() is not None):
        return None
    return InitialWeights(recipe.init_from)


def _parts(names: Iterable[str], every: set[str]) -> str:
    """Return names in words: the shortest prefixes that no other names begin with."""
    wanted = set(names)
    others = {prefix for name in every - wanted for prefix in _prefixes(name)}
    short = (next((prefix for prefix in _prefixes(name) if prefix not in others), name) for name in wanted)
    parts = sorted(set(short))
    more = f" and {len(parts) - MAX_LISTED} more" if len(parts) > MAX_LISTED else ""
    return ", ".join(parts[:MAX_LISTED]) + more


def _prefixes(name: str) -> Iterator[str]:
    words = name.split(".")
    return (".".join(words[:count]) for count in range(1, len(words) + 1))
