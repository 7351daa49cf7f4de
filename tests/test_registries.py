"""Registries take only what a recipe can name, and say at once what was expected."""

import operator
import re
from pathlib import Path

import pytest

from seq2attn import BLOCKS, DECODERS, ENCODERS, LOSSES, POSITIONS
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import SCORERS
from seq2attn.errors import Seq2attnError
from seq2attn.images import AUGMENTATIONS
from seq2attn.inference.attribution import ATTRIBUTIONS
from seq2attn.metrics import METRICS
from seq2attn.optim import SCHEDULES
from seq2attn.tasks.registry import TASKS

REGISTRIES = [
    ATTRIBUTIONS,
    AUGMENTATIONS,
    BLOCKS,
    DECODERS,
    ENCODERS,
    LOSSES,
    METRICS,
    NORMALIZERS,
    POSITIONS,
    SCHEDULES,
    SCORERS,
    TASKS,
]


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.name)
@pytest.mark.parametrize("entry", [3, "softmax", Path, Path()], ids=repr)
def test_a_registry_takes_only_what_a_recipe_can_name(registry, entry):
    """However it is added; what is there already stays."""
    before = dict(registry)
    if entry is Path and registry in (DECODERS, ENCODERS):
        return  # any class, as their base classes are not known yet; tried when a model is built
    kind = (
        registry.bases[0].__name__
        if registry.instances
        else "class"
        if registry in (DECODERS, ENCODERS)
        else "subclass of [A-Z]"
    )
    expected = rf"^{registry.name}\['mine'\]: expected a {kind}.*, got {re.escape(repr(entry))}$"
    for add in (
        lambda: operator.setitem(registry, "mine", entry),
        lambda: registry.update({"mine": entry}),
        lambda: operator.ior(registry, {"mine": entry}),
        lambda: registry.setdefault("mine", entry),
    ):
        with pytest.raises(Seq2attnError, match=expected):
            add()
    with pytest.raises(Seq2attnError, match=f"^{registry.name}: expected a name as text, got 3$"):
        registry[3] = entry
    assert registry == before
