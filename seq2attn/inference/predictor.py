"""The base class of predictors: trained models that take texts and return results."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn, cast

from torch import Tensor
from typing_extensions import Self

from seq2attn.alignment.word_alignment import Link
from seq2attn.errors import Seq2attnError


class WrongTaskError(Seq2attnError, AttributeError):
    """A predictor was asked for the method of another task."""


class PlotOptions(NamedTuple):
    """Options of a heat map."""

    target: str | None = None  # the translation to align with, instead of the model's own
    pieces: bool = False  # a row and a column for each piece instead of each word
    layer: int | None = None
    head: int | None = None


class Predictor(ABC):
    """A trained model. Its public method is named after the task's command: `translate`, `tag`, ...

    A subclass names its `task` and `command`, and has a method of the command's name. The methods of other
    tasks' predictors are refused with an error that names its own.
    """

    task: ClassVar[str]
    command: ClassVar[str]
    parts: ClassVar[str] = ""  # what a text may be a list of; empty: a text is a str
    aligns: ClassVar[bool] = False  # whether it has links()
    commands: ClassVar[dict[str, str]] = {}  # of all predictors, by task

    model: Any
    device: Any

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "task" in vars(cls):
            Predictor.commands[cls.task] = cls.command

    @abstractmethod
    def stream(self, lines: Iterable[str]) -> Iterator[Any]:
        """Yield the result of each line of a data set, in their order. The `str` of a result is what metrics
        compare with the reference."""

    def configured(self, options: Mapping[str, Any]) -> Self:
        """Return this predictor with other decoding options. Seq2attnError where it has none of that name."""
        if options:
            raise Seq2attnError(
                f"{', '.join(options)}: only for models that write text, and this one was trained for "
                f"{self.task}"
            )
        return self

    def example_text(self, line: str) -> str:
        """Return a line of a user's file as the task's data sets have it."""
        return line

    def num_targets(self, texts: Sequence[str]) -> int:
        """Return how many predictions these results are: pieces, tags, labels."""
        return len(texts)

    def attention_weights(self, sources: Sequence[str], targets: Sequence[str]) -> list[Tensor]:
        """Return the weights (steps, positions) with which each target is predicted; [] without attention."""
        return []

    def links(self, source: str, target: str) -> list[Link]:
        """Return the links between the words of a pair. Only predictors that align have them."""
        raise Seq2attnError(f"models for {self.task} align no words")

    def plot(self, text: str, path: Path, options: PlotOptions) -> Any:
        """Draw the attention of a text to a file; return the result that was drawn."""
        raise Seq2attnError(f"models for {self.task} have no heat map")

    @property
    def signature(self) -> str:
        """The decoding options as a part of a score's signature; empty without."""
        return ""

    @property
    def memory_advice(self) -> str:
        """What to lower when memory runs out."""
        return "the length of the longest text"

    def texts(self, given: object) -> list[str | Sequence[str]]:
        """Return the texts of a call as a list. Seq2attnError for anything but texts."""
        several = isinstance(given, Iterable) and not isinstance(given, str | Mapping | Set)
        texts: list[Any] = list(cast(Iterable[Any], given)) if several else [given]
        if not all(isinstance(text, str) or (self.parts and _is_list_of_str(text)) for text in texts):
            lists = f", or lists of {self.parts}" if self.parts else ""
            raise Seq2attnError(f"expected a text or a list of texts (str{lists}), got {given!r:.60}")
        return texts

    def wrong_task(self, method: str) -> WrongTaskError:
        """Return the error for the method of another task."""
        return WrongTaskError(
            f"this model was trained for {self.task}, not to {method}: use its method {self.command}"
        )

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return f"{type(self).__name__}({parameters:,} parameters, on {self.device})"

    if not TYPE_CHECKING:  # a type checker knows which methods there are

        def __getattr__(self, name: str) -> NoReturn:
            if name in Predictor.commands.values():
                raise self.wrong_task(name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _is_list_of_str(given: object) -> bool:
    return isinstance(given, Sequence) and all(isinstance(part, str) for part in given)
