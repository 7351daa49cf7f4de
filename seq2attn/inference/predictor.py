"""What all trained models share in people's hands: one method, named as the task's command."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from seq2attn.errors import Seq2attnError

COMMANDS = {  # by task; in Python the methods are called the same
    "translation": "translate",
    "summarization": "summarize",
    "tagging": "tag",
    "classification": "classify",
}


class WrongTaskError(Seq2attnError, AttributeError):
    """A model is asked for what another task's would do."""


class Predictor:
    """A model of a task. What is asked of it that another task's would do, it refuses by its own method."""

    task: ClassVar[str]  # one of COMMANDS
    parts: ClassVar[str] = ""  # what a text may be a list of; empty: it may not

    def as_data(self, line: str) -> str:
        """A line of a file as the task's data have it."""
        return line

    def listed(self, given: object) -> list[str | Sequence[str]]:
        """The texts of a call, or the only one. Seq2attnError for what is neither."""
        several = isinstance(given, Iterable) and not isinstance(given, str | Mapping | Set)
        items: list[Any] = list(cast(Iterable[Any], given)) if several else [given]
        if not all(isinstance(one, str) or (self.parts and _texts(one)) for one in items):
            lists = f", or lists of {self.parts}" if self.parts else ""
            raise Seq2attnError(f"expected a text or a list of texts (str{lists}), got {given!r:.60}")
        return items

    def wrong(self, method: str) -> WrongTaskError:
        """The error of another task's method."""
        return WrongTaskError(
            f"this model was trained for {self.task}, not to {method}: use its method {COMMANDS[self.task]}"
        )

    if not TYPE_CHECKING:  # a type checker knows which methods there are

        def __getattr__(self, name: str) -> NoReturn:
            if name in COMMANDS.values():
                raise self.wrong(name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _texts(given: object) -> bool:
    return isinstance(given, Sequence) and all(isinstance(one, str) for one in given)
