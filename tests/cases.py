"""Cases of tests, chosen at collection: a condition chooses them, and a floor says how many there must be.

A test that returned early where its condition does not hold would pass without having checked anything.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

Case = TypeVar("Case")


def choose(cases: Iterable[Case], condition: Callable[[Case], Any], at_least: int) -> list[Case]:
    """Return the cases for which the condition holds; an error if they are fewer than at_least."""
    chosen = [case for case in cases if condition(case)]
    if len(chosen) < at_least:
        raise ValueError(f"expected at least {at_least} cases, got {len(chosen)}: {chosen}")
    return chosen


def choose_names(cases: Mapping[str, Case], condition: Callable[[Case], Any], at_least: int) -> list[str]:
    """Return the names of the cases for which the condition holds, likewise."""
    return choose(cases, lambda name: condition(cases[name]), at_least)
