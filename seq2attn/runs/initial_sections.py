"""Sections that a recipe leaves to the run that it starts from: the model or parts of it, and the vocabulary
it keeps."""

from typing import Any

from seq2attn.pretrained.located import located
from seq2attn.recipe import RECIPES
from seq2attn.training.run_folder import RunError, RunFolder

# Keys of `text` that are about training and results, not about the vocabulary.
OF_ITS_OWN = ("sampling", "words", "vectors")


def from_initial_run(task: str, tree: dict[str, Any]) -> dict[str, Any]:
    """Return the sections of a recipe with those of the run that `init` names, where they are left out.

    Nothing is filled in if the run cannot be read: a run that is resumed does not need it any more, and for a
    new one the error comes when its weights are read.
    """
    init = tree.get("init")
    given = {"run": init} if isinstance(init, str) else init
    if not isinstance(given, dict) or not isinstance(given.get("run"), str):
        return tree
    text = RECIPES[task].model_fields["text"].annotation
    try:
        begun = RunFolder.open(located(given["run"])).recipe
    except RunError:
        return tree
    if begun.model is not None:
        tree = {**tree, "model": _filled_model(tree.get("model"), begun.model.model_dump(mode="json"))}
    own = tree.get("text")
    fillable = begun.text is not None and type(begun.text) is text and isinstance(own, dict | None)
    if fillable and given.get("vocabulary", "keep") == "keep":
        kept = begun.text.model_dump(mode="json", exclude={*OF_ITS_OWN})
        tree = {**tree, "text": {**kept, **(own or {})}}
    return tree


def _filled_model(own: Any, begun: dict[str, Any]) -> Any:
    """Return the model of a recipe, with what it leaves to that of the run: all of it, or parts such as
    encoder and decoder, of which it gives no kind but only the keys that are others here."""
    if own is None:
        return begun
    if not isinstance(own, dict) or not own.keys() <= begun.keys():
        return own
    changed = {name: part for name, part in own.items() if isinstance(part, dict) and "kind" not in part}
    if not any(isinstance(begun[name], dict) and "kind" in begun[name] for name in changed):
        return own
    return {**begun, **own, **{name: {**(begun[name] or {}), **part} for name, part in changed.items()}}
