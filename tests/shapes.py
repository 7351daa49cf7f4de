"""Checks of shapes at every call, by jaxtyping, can be switched off: they take longer than the calls."""

import contextlib
from collections.abc import Iterator

from jaxtyping import config


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Call without checks, where calls of the same shapes are checked elsewhere."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)
