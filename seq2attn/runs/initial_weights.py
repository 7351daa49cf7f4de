"""`init`: a training starts from the weights of another run, by the names of tensors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seq2attn.pretrained.located import located
from seq2attn.recipe import AnyRecipe
from seq2attn.recipe.root import InitRecipe
from seq2attn.recipe.wording import shown
from seq2attn.runs.initial_sections import OF_ITS_OWN
from seq2attn.tasks.loading import learn
from seq2attn.tasks.registry import TASKS
from seq2attn.tasks.task import LABELS, Task
from seq2attn.training.run_folder import RunError, RunFolder
from seq2attn.training.weights import Weights, tensors_of

VOCABULARIES = "text/"  # the folder of a run with vocabularies
MAX_LISTED = 12  # parts of a model in a line of the report
MAX_CHANGED = 20  # tensors in an error message
# The tensors that others are, in a run whose model is tied.
_TIED = {
    "all": ("encoder.embedding.table.weight", ("decoder.embedding.table.weight", "decoder.output.weight")),
    "decoder": ("decoder.embedding.table.weight", ("decoder.output.weight",)),
}


class Taken(NamedTuple):
    """What was taken from a run, by names of tensors."""

    run: Path
    taken: list[str]
    matched: dict[str, tuple[int, int]]  # of those, tensors whose rows were matched: how many, of how many
    new: list[str]  # of the model, that start at random
    left: list[str]  # of the run
    other_labels: bool  # so that tensors with a row for each label are new

    def lines(self) -> Iterator[str]:
        """Yield lines for a report; a part whose tensors are all of one kind stands for them."""
        names = {*self.taken, *self.new, *self.left}
        yield f"{len(self.taken)} tensors from {self.run}: {parts_of(self.taken, names)}"
        for name, (count, size) in self.matched.items():
            yield f"{count:,} of {size:,} rows of {name} matched"
        if self.new:
            why = " (the labels are others than there)" if self.other_labels else ""
            yield f"{len(self.new)} new tensors: {parts_of(self.new, names)}{why}"
        if self.left:
            yield f"{len(self.left)} tensors of {self.run} left: {parts_of(self.left, names)}"


class InitialWeights:
    """The best weights of another run, and its vocabularies. RunError if it is missing or damaged."""

    def __init__(self, settings: InitRecipe | str | Path) -> None:
        if not isinstance(settings, InitRecipe):
            settings = InitRecipe(run=str(settings))
        self.settings = settings
        try:
            self.folder = folder = RunFolder.open(located(settings.run))
            self.weights = folder.load_weights("best")
            self.recipe = folder.recipe
            names = [name for name in folder.version.checksums if name.startswith(VOCABULARIES)]
            self.files = {name: folder.content(name) for name in names}
        except RunError as error:
            raise RunError(f"init: {error}") from error
        self.run = folder.path
        best = folder.version.best
        checksum = folder.version.checksums[f"weights/{best}"]
        self.origin = {"init": settings.run, "weights": best, "sha256": checksum}  # for the record
        chosen = {name for pattern in settings.take for name in self._matching(pattern)}
        self.given = {name: tensor for name, tensor in self.weights.items() if name in chosen}

    def task(self, recipe: AnyRecipe) -> Task[Any]:
        """Return the task of a new run: with the vocabularies of the run, or with those of the recipe.

        RunError if the recipe describes another vocabulary than the one that is kept.
        """
        if self.settings.vocabulary == "match" or type(recipe.text) is not type(self.recipe.text):
            return learn(recipe)
        if recipe.text is None:
            return learn(recipe)
        here, there = (
            text.model_dump(mode="json", exclude={*OF_ITS_OWN}) for text in (recipe.text, self.recipe.text)
        )
        if others := [key for key in here if here[key] != there.get(key)]:
            listed = "; ".join(
                f"text.{key} is {shown(here[key])}, there {shown(there.get(key))}" for key in others
            )
            raise RunError(
                f"init: with vocabulary: keep, it is that of {self.run}, and this recipe describes another: "
                f"{listed}. Leave out text, or set init.vocabulary: match"
            )
        return TASKS[recipe.task].keep(recipe, self.folder)

    def give(self, model: nn.Module, task: Task[Any]) -> Taken:
        """Copy tensors into a model of a task by their names, and return which. RunError if there is none, or
        if some have another shape there, which it lists."""
        own, given = tensors_of(model), {**self.given, **self._repeated()}
        files, other_labels = task.files(), False
        skipped: tuple[str, ...] = ()
        if (labels := files.get(LABELS)) is not None and self.files.get(LABELS) != labels:
            skipped, other_labels = task.label_tensors, bool(task.label_tensors)
        matched = dict[str, tuple[int, int]]()
        vocabularies = {name: content for name, content in files.items() if name != LABELS}
        if any(self.files.get(name) != content for name, content in vocabularies.items()):
            skipped += task.vocabulary_tensors
            if self.settings.vocabulary == "match" and self.recipe.task == task.recipe.task:
                matched = _match(
                    own, given, task.rows_of(TASKS[task.recipe.task].open(self.recipe, self.folder))
                )
        shared = [name for name in own if name in given and not name.startswith(skipped)]
        changed = [
            f"{name} is {tuple(given[name].shape)} there, {tuple(own[name].shape)} here"
            for name in shared
            if given[name].shape != own[name].shape
        ]
        if changed:
            more = f"; and {len(changed) - MAX_CHANGED} more" if len(changed) > MAX_CHANGED else ""
            raise RunError(
                f"init: tensors of {self.run} have other shapes: {'; '.join(changed[:MAX_CHANGED])}"
                f"{more}. Give these parts the sizes that they have there, or leave them out of init.take"
            )
        if not shared and not matched:
            theirs, ours = (parts_of(names, {*given, *own}) for names in (given, own))
            raise RunError(f"init: {self.run} has {theirs}, and the model {ours}: no name is the same")
        model.load_state_dict({name: given[name] for name in shared}, strict=False)
        taken = {*shared, *matched}
        new, left = ([name for name in names if name not in taken] for names in (own, self.weights))
        return Taken(self.run, [*shared, *matched], matched, new, left, other_labels)

    def _matching(self, pattern: str) -> list[str]:
        return matching(pattern, self.weights, "take", str(self.folder.path))

    def _repeated(self) -> Weights:
        """Return the tensors that are tied in the run, and so are saved once, by their other names."""
        name, others = _TIED.get(getattr(self.recipe.model, "tied", ""), ("", ()))
        return {other: self.given[name] for other in others if name in self.given}


def initial_weights(recipe: AnyRecipe, folder: RunFolder | None = None) -> InitialWeights | None:
    """Return the weights that a training starts from; None if they are random, or if the training of a folder
    has been saved, so that it goes on from there. RunError if their run is missing or damaged."""
    if recipe.init is None or (folder is not None and folder.load_state() is not None):
        return None
    return InitialWeights(recipe.init)


def freeze(model: nn.Module, recipe: AnyRecipe) -> list[str]:
    """Let no gradient reach the tensors that `init.freeze` names, but for those that it names after a !;
    return their names. RunError if there are none of a name, or if nothing is left to train."""
    patterns = [] if recipe.init is None else recipe.init.freeze
    state = model.state_dict(keep_vars=True)
    named = [
        (one[:1] == "!", matching(one.removeprefix("!"), state, "freeze", "the model")) for one in patterns
    ]
    trained = {name for kept, found in named if kept for name in found}
    names = {name for kept, found in named if not kept for name in found} - trained
    for parameter in (state[name] for name in names):
        if isinstance(parameter, nn.Parameter):
            parameter.requires_grad_(False)
    if names and not any(parameter.requires_grad for parameter in model.parameters()):
        raise RunError("init.freeze: names all that the model has: leave something to train")
    return sorted(names)


def unused_note(names: Iterable[str], model: nn.Module) -> str:
    """Return the note on trained parameters to which no gradient has come."""
    parts = parts_of(names, {name for name, _ in model.named_parameters()})
    return (
        f"no gradient comes to {parts}, so that training leaves them as they are: leave their part out of "
        "the model, or name them in init.freeze if that is meant"
    )


def matching(pattern: str, names: Iterable[str], key: str, owner: str) -> list[str]:
    """Return the names that a pattern matches, whole or down to a dot. RunError if there is none."""
    names = list(names)
    found = [name for name in names if any(fnmatchcase(prefix, pattern) for prefix in _prefixes(name))]
    if not found:
        raise RunError(
            f"init.{key}: {owner} has no tensor or part {pattern}; it has "
            f"{parts_of(names, {*names}, depth=3)}"
        )
    return found


def _match(
    own: Weights, given: Mapping[str, Tensor], rows: Mapping[str, Sequence[Sequence[int]]]
) -> dict[str, tuple[int, int]]:
    """Set rows of our tensors to means of rows of theirs; return how many, of how many, by tensor."""
    counts = {}
    for name, origins in rows.items():
        if name not in own or name not in given:
            continue
        if own[name].shape[1:] != given[name].shape[1:]:
            continue  # to be reported as new
        with torch.no_grad():
            for row, origin in enumerate(origins):
                if origin:
                    chosen = given[name][list(origin)]
                    own[name][row] = chosen[0] if len(origin) == 1 else chosen.float().mean(0)
        counts[name] = (sum(bool(origin) for origin in origins), len(origins))
    return counts


def parts_of(names: Iterable[str], every: set[str], depth: int = 0) -> str:
    """Return names in words: the shortest prefixes, of `depth` words or more, that no other names begin
    with."""
    wanted = set(names)
    others = {prefix for name in every - wanted for prefix in _prefixes(name)}
    short = (
        next((prefix for prefix in [*_prefixes(name)][max(0, depth - 1) :] if prefix not in others), name)
        for name in wanted
    )
    listed = sorted(set(short))
    more = f" and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
    return ", ".join(listed[:MAX_LISTED]) + more


def _prefixes(name: str) -> Iterator[str]:
    words = name.split(".")
    return (".".join(words[:count]) for count in range(1, len(words) + 1))
