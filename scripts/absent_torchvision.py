"""Import timm without torchvision, which it asks for and which does not run everywhere."""

import enum
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import nn

NAMES = [
    *("", ".ops", ".ops.misc", ".transforms", ".transforms.functional", ".datasets", ".utils"),
    *(".models", ".models.feature_extraction"),
]


class Absent(ModuleType):
    """A module in which every name is a class."""

    __path__ = []  # noqa: RUF012 (as of a package)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "InterpolationMode":
            return enum.Enum(name, ["NEAREST", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS"])
        return type(name, (nn.Module,), {})


@contextmanager
def absent_torchvision() -> Iterator[None]:
    """Put empty modules in the place of torchvision's until the end of the context."""
    modules = {f"torchvision{name}": Absent(f"torchvision{name}") for name in NAMES}
    for name, module in modules.items():
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(modules[parent], last, module)
    before = {name: module for name, module in sys.modules.items() if name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:  # what was imported meanwhile stays
        for name in modules:
            del sys.modules[name]
        sys.modules.update(before)
