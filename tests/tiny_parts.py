"""The encoder, the decoder and the loss of docs/add_a_part.md, as a plugin; and plugins that differ from it."""

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seq2attn import DECODERS, ENCODERS, LOSSES

DOCUMENT = (Path(__file__).parents[1] / "docs" / "add_a_part.md").read_text(encoding="utf-8")
MODULE = "\n\n".join(re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL))
(RECIPE,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
COMMANDS = re.findall(r"^\$ (.*)$", DOCUMENT, re.MULTILINE)

ENCODER: dict[str, Any] = {"kind": "convolution", "embedding": 11, "size": 10, "kernel": 3}
DECODER: dict[str, Any] = {"kind": "forget", "embedding": 13, "size": 14, "attention": {"score": "additive"}}
COPY: dict[str, Any] = {"task": "copy", "count": 60}  # a corpus


def recipe(**model: Any) -> dict[str, Any]:
    """A recipe of the parts that is trained in no time."""
    return {
        "data": {"languages": ["x", "y"], "train": COPY, "dev": {**COPY, "count": 9}},
        "text": {"model": "word", "size": 40, "byte_fallback": False},
        "model": {"encoder": ENCODER, "decoder": DECODER, **model},
        "training": {"max_steps": 1, "loss": "focal"},
    }


@contextlib.contextmanager
def plugin(folder: Path, *changes: tuple[str, str]) -> Iterator[Any]:
    """The plugin, imported as `my_parts` from this folder, with some of its code replaced."""
    code = MODULE
    for old, new in changes:
        assert old in code, old
        code = code.replace(old, new)
    (folder / "my_parts.py").write_text(code, encoding="utf-8")
    before = [(registry, dict(registry)) for registry in (ENCODERS, DECODERS, LOSSES)]
    imported = sys.modules.pop("my_parts", None)  # by a plugin around this one
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("SEQ2ATTN_IMPORT", "")  # --import sets it for processes that a command starts
        try:
            yield importlib.import_module("my_parts")
        finally:
            sys.modules.pop("my_parts", None)
            if imported is not None:
                sys.modules["my_parts"] = imported
            for registry, known in before:
                registry.clear()
                registry.update(known)
