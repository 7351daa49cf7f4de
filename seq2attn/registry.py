"""Registries: parts by the names that they have in recipes."""

from typing import Any, TypeVar

from typing_extensions import Self

from seq2attn.errors import Seq2attnError

Entry = TypeVar("Entry")


class Registry(dict[str, Entry]):
    """A dict of subclasses of a class, by their names. It takes nothing else: so a mistake is an error in the
    line of the plugin that makes it.

    name: of the registry, for messages; bases: the classes, any class if there are none. instances: whether
    the entries are instances of the bases, instead of subclasses.
    """

    def __init__(self, name: str, *bases: type, instances: bool = False) -> None:
        super().__init__()
        self.name, self.bases, self.instances = name, bases or (object,), instances
        self.expected = " or ".join(f"{base.__name__} ({base.__module__})" for base in bases)

    def __setitem__(self, name: str, entry: Entry) -> None:
        """Add an entry. Seq2attnError unless the name is a text and the entry is of this registry's kind."""
        if not isinstance(name, str):
            raise Seq2attnError(f"{self.name}: expected a name as text, got {name!r:.60}")
        if self.instances:
            fits, expected = isinstance(entry, self.bases), f"a {self.expected}"
        else:
            fits = isinstance(entry, type) and issubclass(entry, self.bases)
            expected = f"a subclass of {self.expected}" if self.expected else "a class"
        if not fits:
            raise Seq2attnError(f"{self.name}[{name!r:.60}]: expected {expected}, got {entry!r:.100}")
        super().__setitem__(name, entry)

    def update(self, other: Any = ()) -> None:  # type: ignore[override]  # no keywords: names are data
        """Add entries. Seq2attnError, see `__setitem__`."""
        for name, entry in dict(other).items():
            self[name] = entry

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]  # narrower than that of dict
        """Add entries. Seq2attnError, see `__setitem__`."""
        self.update(other)
        return self

    def setdefault(self, name: str, entry: Any = None) -> Entry:
        """Return an entry, and add it if there is none. Seq2attnError, see `__setitem__`."""
        if name not in self:
            self[name] = entry
        return self[name]
