"""The base class of predictors. A predictor is a trained model that takes texts and returns results."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, NoReturn, cast

from torch import Tensor
from typing_extensions import Self

from seq2attn.alignment.word_alignment import Link
from seq2attn.errors import Seq2attnError
from seq2attn.inference.viewing import DEFAULT_VIEW, ViewOptions, page_of
from seq2attn.views.viewer import Entry, Page

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class WrongTaskError(Seq2attnError, AttributeError):
    """A method of another task's predictor was called."""


Choice = int | Literal["all"] | None
MAPS = ("pooling", "place", "channel", "affinity", "rollout", "gradcam", "all")  # of images
OF_IMAGES, OF_TEXTS = (
    ("map", "at", "query"),
    ("pieces", "layer", "self_attention", "right_to_left", "method"),
)


class PlotOptions(NamedTuple):
    """The options of a heat map. More than one layer or head make a grid of heat maps."""

    target: str | None = None  # the text to align with, instead of the model's output
    pieces: bool = False  # a row and a column for each piece instead of each word
    layer: Choice = None  # from 0, -1 = the last, "all"; None: the predictor's
    head: Choice = None  # likewise; None: the mean of all
    self_attention: bool = False  # of the source to itself
    scale: Literal["fixed", "auto", "range"] | None = (
        None  # see views; range: only of images; None: their own
    )
    right_to_left: bool = False
    map: str | None = None  # of images: one of MAPS; None: the predictor's
    at: str | None = None  # of images: a part of the name of maps, or of the path of a module
    query: tuple[int, int] | None = (
        None  # of images: the pixel (x, y) of the original whose attention is shown
    )
    method: str | None = None  # of texts: one of ATTRIBUTIONS; None: attention

    @property
    def text_scale(self) -> Literal["fixed", "auto"]:
        """The scale of heat maps of texts; Seq2attnError for one that they do not have."""
        if self.scale == "range":
            raise Seq2attnError("the scale range is only for models of images: use fixed or auto")
        return self.scale or "fixed"

    @property
    def of_results(self) -> dict[str, Any]:
        """The options that results of texts have for their `plot`."""
        return {"pieces": self.pieces, "scale": self.text_scale, "right_to_left": self.right_to_left}

    def refuse(self, names: Sequence[str], owners: str) -> None:
        """Seq2attnError if any of these options is set; owners: the models that have them."""
        defaults = PlotOptions()
        wrong = [name for name in names if getattr(self, name) != getattr(defaults, name)]
        if wrong:
            raise Seq2attnError(
                f"{', '.join(wrong)}: only for {owners}: leave {'it' if len(wrong) == 1 else 'them'} out"
            )


DEFAULT_PLOT = PlotOptions()
NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


class Predictor(ABC):
    """The base class of predictors; its public method is named after the task's command: `translate`, `tag`.

    A subclass sets `task` and `command`, and has a method with the command's name. Calling the method of
    another task raises a WrongTaskError that names the right one.
    """

    task: ClassVar[str]
    command: ClassVar[str]
    parts: ClassVar[str] = ""  # name of the items if a text may be a list; empty: a text must be a str
    aligns: ClassVar[bool] = False  # whether links() is implemented
    commands: ClassVar[dict[str, str]] = {}  # the commands of all predictors, by task
    by_task: ClassVar[dict[str, type["Predictor"]]] = {}  # the classes of all predictors

    model: Any
    device: Any

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "task" in vars(cls):
            Predictor.commands[cls.task] = cls.command
            Predictor.by_task[cls.task] = cls

    @abstractmethod
    def stream(self, lines: Iterable[str]) -> Iterator[Any]:
        """Yield the result of each line of a data set, in order. Metrics compare `str(result)` with the
        reference."""

    def stream_share(self, lines: Iterable[Any], first: int, step: int) -> Iterator[Any]:
        """Yield the result of each line of a share of a data set, in order: every `step`-th one, from the one
        with the index `first`. Samples are those of the whole data set, and warnings have its numbers."""
        return self.stream(lines)

    def configured(self, options: Mapping[str, Any]) -> Self:
        """Return this predictor with other decoding options. Seq2attnError for options that it does not
        have."""
        if options:
            raise Seq2attnError(
                f"{', '.join(options)}: only for models that write text, and this one was trained for "
                f"{self.task}"
            )
        return self

    def example_text(self, line: str) -> str:
        """Return a line of a user's file in the form of the task's data sets."""
        return line

    def num_targets(self, texts: Sequence[str]) -> int:
        """Return the number of predictions in these results: pieces, tags or labels."""
        return len(texts)

    def attention_weights(self, sources: Sequence[str], targets: Sequence[str]) -> list[Tensor]:
        """Return the weights (steps, source positions) of each pair; [] if the model has no attention."""
        return []

    def links(self, source: str, target: str) -> list[Link]:
        """Return the links between the words of a pair. Seq2attnError unless the predictor `aligns`."""
        raise Seq2attnError(f"models for {self.task} align no words")

    def draw(
        self, text: Any, options: PlotOptions = DEFAULT_PLOT, decoding: Mapping[str, object] = NO_OPTIONS
    ) -> tuple[Any, "Figure"]:
        """Return the result of a text or an image, and a picture of its attention weights.

        decoding: decoding options, as those of `configured`.
        """
        raise Seq2attnError(f"models for {self.task} have no heat map")

    def plot(
        self,
        text: Any,
        path: str | Path,
        options: PlotOptions = DEFAULT_PLOT,
        decoding: Mapping[str, object] = NO_OPTIONS,
    ) -> Any:
        """Draw the attention weights of a text or an image to a file, and return the result.

        Arguments: see `draw`.
        """
        from seq2attn.views.heatmaps import save

        result, figure = self.draw(text, options, decoding)
        save(figure, path)
        return result

    def entry(
        self, text: Any, options: ViewOptions = DEFAULT_VIEW, decoding: Mapping[str, object] = NO_OPTIONS
    ) -> Entry:
        """Return what a page of the viewer shows of a text or an image.

        decoding: decoding options, as those of `configured`.
        """
        raise Seq2attnError(f"models for {self.task} have nothing that the viewer shows")

    def view(
        self,
        text: Any,
        path: str | Path | None = None,
        *,
        target: str | None = None,
        self_attention: bool = False,
        decoding: Mapping[str, object] = NO_OPTIONS,
    ) -> Page:
        """Return a page with the attention of a text or an image, or of a list of them, which notebooks show;
        save it if a path is given.

        target: the text to align with, instead of the model's output, of a single text; self_attention: show
        also that of encoder and decoder; decoding: decoding options, as those of `configured`.
        """
        texts = [*text] if isinstance(text, list | tuple) else [text]
        if target is not None and len(texts) != 1:
            raise Seq2attnError(f"a target is of one text, got {len(texts)}")
        options = [ViewOptions(target, self_attention)] * len(texts)
        page = page_of({self.task: self}, texts, options, decoding)
        if path is not None:
            page.save(path)
        return page

    @property
    def signature(self) -> str:
        """The decoding options, for the signature of scores; empty if there are none."""
        return ""

    @property
    def memory_advice(self) -> str:
        """The setting to lower if memory runs out, for error messages."""
        return "the length of the longest text"

    def texts(self, argument: object) -> list[str | Sequence[str]]:
        """Return the argument of a call, a text or texts, as a list. Seq2attnError for anything else."""
        is_list = isinstance(argument, Iterable) and not isinstance(argument, str | bytes | Mapping | Set)
        texts: list[Any] = list(cast(Iterable[Any], argument)) if is_list else [argument]
        for index, text in enumerate(texts):
            inner = (
                text if self.parts and isinstance(text, Sequence) and not isinstance(text, bytes) else None
            )
            wrong = first_other(inner) if inner is not None else first_other([text])
            if wrong is not None:
                place = f"texts[{index}]" + ("" if inner is None else f"[{wrong}]")
                came = text if inner is None else inner[wrong]
                lists = f", or lists of {self.parts}" if self.parts else ""
                raise Seq2attnError(
                    f"expected a text or a list of texts (str{lists}), got {came!r:.60}"
                    + (f" at {place}" if is_list else "")
                )
        return texts

    def wrong_task(self, method: str) -> WrongTaskError:
        """Return the error for a call of another task's method."""
        return WrongTaskError(
            f"this model was trained for {self.task}, not to {method}: use its method {self.command}"
        )

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return f"{type(self).__name__}({parameters:,} parameters, on {self.device})"

    if not TYPE_CHECKING:  # with a __getattr__, type checkers would accept any attribute

        def __getattr__(self, name: str) -> NoReturn:
            if name in Predictor.commands.values():
                raise self.wrong_task(name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def require_lines(lines: object) -> None:
    """Raise Seq2attnError for lines that are one text, which would be read as a list of its letters."""
    if isinstance(lines, str | bytes) or not isinstance(lines, Iterable):
        raise Seq2attnError(f"expected lines as a list of texts (str), got {lines!r:.60}")


def first_other(texts: Iterable[object]) -> int | None:
    """Return the index of the first item that is no text; None if all are."""
    return next((index for index, text in enumerate(texts) if not isinstance(text, str)), None)


def all_texts(texts: object, name: str) -> list[str]:
    """Return texts as a list. Seq2attnError, with the index, for anything but a list of str."""
    expected = f"expected {name} as a list of texts (str), got"
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise Seq2attnError(f"{expected} {texts!r:.60}")
    listed: list[Any] = list(texts)
    if (wrong := first_other(listed)) is not None:
        raise Seq2attnError(f"{expected} {listed[wrong]!r:.60} at {name}[{wrong}]")
    return listed
