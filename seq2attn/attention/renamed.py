"""Old names of hooks, fields and methods. They still work, with a warning."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from seq2attn.errors import RenamedWarning, Seq2attnError


class RenamedHooks:
    """Base of the classes that users subclass. A hook must take the parameters that it has in the base class.
    A hook that a subclass defines under its old name gets the new name as well.

    Reading an old name returns the value of the new one, so that `super().move(...)` and `scorer.looks_back`
    work in such a class. A class that defines both names is left as it is.
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
                setattr(cls, old, (_OldFlag if isinstance(value, int) else _OldMethod)(old, new, value))
        _check_parameters(cls)


def _check_parameters(cls: type) -> None:
    """Raise Seq2attnError if a hook of a class cannot be called as that of its base, such as Scorer."""
    base = next(base for base in cls.__mro__ if RenamedHooks in base.__bases__)
    for name, method in vars(cls).items():
        hook = vars(base).get(name)
        if name == "__init__" or not inspect.isfunction(hook) or not inspect.isfunction(method):
            continue
        expected = inspect.signature(hook)
        try:
            inspect.signature(method).bind(*expected.parameters)
        except (TypeError, ValueError) as error:
            raise Seq2attnError(
                f"{cls.__name__}.{name} must take the parameters ({', '.join(expected.parameters)}), as in "
                f"{base.__name__}; it takes ({', '.join(inspect.signature(method).parameters)})"
            ) from error


class _OldMethod:
    """The old name of a method. It is set on each class that defines the method, so that super() finds it."""

    def __init__(self, old: str, new: str, value: Any) -> None:
        self.old, self.new, self.value = old, new, value

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None:
            try:  # a layer or a parameter may have this name
                return nn.Module.__getattr__(instance, self.old)
            except AttributeError:
                pass
        return self.read(instance, owner)

    def read(self, instance: Any, owner: type) -> Any:
        """Return the method."""
        return self.value.__get__(instance, owner)


class _OldFlag(_OldMethod):
    """The old name of a flag, which may be set on an instance as well."""

    def read(self, instance: Any, owner: type) -> Any:
        """Return the flag."""
        if instance is None:
            return getattr(owner, self.new)
        return vars(instance).get(self.old, getattr(instance, self.new))

    def __set__(self, instance: Any, value: Any) -> None:
        if not isinstance(value, int):  # an attribute of a subclass with the same name
            vars(instance)[self.old] = value
            return
        warn_renamed(type(instance).__name__, self.old, self.new, 4)  # Module.__setattr__ is one more frame
        setattr(instance, self.new, value)


def warn_renamed(owner: str, old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that a name of `owner` has changed; the warning is that of the caller's caller."""
    message = f"{owner}.{old} is deprecated: use its new name, {owner}.{new}"
    warnings.warn(message, RenamedWarning, stacklevel)
