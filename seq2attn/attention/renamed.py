"""Old names of hooks, fields and methods: they go on working, with a DeprecationWarning that names the new
one."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar


class RenamedHooks:
    """Base of the classes that users subclass: takes a hook that a subclass defines under its old name.

    The old names also read as the new ones, so that `super().move(...)` and `scorer.looks_back` work in such
    a class. A class that defines both names is left as it is.
    """

    renamed: ClassVar[Mapping[str, str]] = {}  # old name -> new name

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        mixins = [base for base in cls.__bases__ if not issubclass(base, RenamedHooks)]
        for old, new in cls.renamed.items():
            if new not in vars(cls):
                owner = next((owner for owner in (cls, *mixins) if old in vars(owner)), None)
                if owner is None:
                    continue
                warn_renamed(owner.__name__, old, new)
                setattr(cls, new, vars(owner)[old])
            if old not in vars(cls) or vars(cls)[old] is vars(cls)[new]:
                value = vars(cls)[new]
                setattr(cls, old, _OldFlag(old, new) if isinstance(value, int) else value)


class _OldFlag:
    """The old name of a flag: reads and sets the flag under its new name."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def __get__(self, instance: Any, owner: type) -> Any:
        return getattr(owner if instance is None else instance, self.new)

    def __set__(self, instance: Any, value: Any) -> None:
        warn_renamed(type(instance).__name__, self.old, self.new)
        setattr(instance, self.new, value)


def warn_renamed(owner: str, old: str, new: str) -> None:
    """Warn whoever called the caller that a name of `owner` has changed."""
    warnings.warn(
        f"{owner}.{old} is deprecated: use its new name, {owner}.{new}", DeprecationWarning, stacklevel=3
    )
