"""Laws: what is true of every attention for which a predicate holds. None passes without a check.

The predicate decides when tests are collected, so that a law never returns early; and each law names the number
of mechanisms that it must be checked on at least: `test_floors.py` fails if there are fewer.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from shapes import unchecked

from laws.mechanisms import Mechanism, build

REGISTRY: dict[str, "Law"] = {}


class Law(NamedTuple):
    """A law: its name is that of the function which checks it."""

    name: str
    topic: str  # the module that it is written in
    check: Callable[..., None]  # takes a case, and one of the options of each parameter
    holds: Callable[[Mechanism], bool]
    floor: int  # it is checked on so many mechanisms of the product of both registries, or on more
    check_shapes: bool
    options: dict[str, Sequence[Any]]

    def mechanisms(self, every: Sequence[Mechanism]) -> list[Mechanism]:
        """Those that the law holds for."""
        return [mechanism for mechanism in every if self.holds(mechanism)]

    def variants(self) -> Iterator[dict[str, Any]]:
        """Each combination of its options."""
        for values in itertools.product(*self.options.values()):
            yield dict(zip(self.options, values, strict=True))


def law(
    floor: int,
    holds: Callable[[Mechanism], bool] = lambda mechanism: True,
    check_shapes: bool = False,
    **options: Sequence[Any],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a law of a function.

    check_shapes: let jaxtyping check the shapes of all calls, which takes longer than the calls. Laws that
    call an attention in a way of their own do so: it need not be repeated by all others.
    """

    def register(check: Callable[..., None]) -> Callable[..., None]:
        name, topic = check.__name__, check.__module__.rpartition(".")[2]
        if name in REGISTRY:
            raise ValueError(f"two laws are called {name}")
        REGISTRY[name] = Law(name, topic, check, holds, floor, check_shapes, options)
        return check

    return register


def laws_of(topic: str) -> list[Law]:
    """The laws that a module has written."""
    return [law for law in REGISTRY.values() if law.topic == topic]


def over(every: Sequence[Mechanism]) -> pytest.MarkDecorator:
    """Parametrize a test by mechanism: a test for each law, too, would take longer to report than to check."""
    return pytest.mark.parametrize("mechanism", every, ids=str)


def check(laws: Sequence[Law], mechanism: Mechanism) -> None:
    """Check all laws that hold for a mechanism, in each variant. AssertionError that names all broken ones."""
    broken: dict[str, Exception] = {}
    for law in laws:
        for options in law.variants() if law.holds(mechanism) else ():
            with contextlib.nullcontext() if law.check_shapes else unchecked():
                try:
                    law.check(build(mechanism), **options)
                except Exception as error:  # noqa: BLE001 - it is raised below, with the others
                    broken["-".join(map(str, [law.name, *options.values()]))] = error
    if broken:
        faults = [f"{name}: {type(error).__name__}: {error}" for name, error in broken.items()]
        raise AssertionError("\n\n".join([f"{mechanism} breaks", *faults])) from next(iter(broken.values()))
