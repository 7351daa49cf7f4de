"""Laws: what is true of every attention for which a predicate holds. None passes without a check.

The predicate decides when tests are collected, so that a law never returns early; and each law names the number
of mechanisms that it must be checked on at least: `test_floors.py` fails if there are fewer.
"""

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


def over(laws: Sequence[Law], every: Sequence[Mechanism]) -> pytest.MarkDecorator:
    """Parametrize a test by each law, each mechanism that it holds for, and each variant."""
    return pytest.mark.parametrize(
        ("law", "mechanism", "options"),
        [
            pytest.param(
                law, mechanism, options, id="-".join(map(str, [law.name, *options.values(), mechanism]))
            )
            for law in laws
            for mechanism in law.mechanisms(every)
            for options in law.variants()
        ],
    )


def check(law: Law, mechanism: Mechanism, options: dict[str, Any]) -> None:
    """Check a law on a mechanism."""
    if law.check_shapes:
        law.check(build(mechanism), **options)
        return
    with unchecked():
        law.check(build(mechanism), **options)
