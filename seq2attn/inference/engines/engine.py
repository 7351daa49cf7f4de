"""What an engine is: it searches for targets, and says which searches it leaves to torch.

An engine computes with rounding of its own. So its log-probabilities only choose the hypotheses; those that
are shown are of forced decoding in torch, as are alignments (`Generator.decode`).
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from seq2attn.data.sources import Row
from seq2attn.errors import Seq2attnError
from seq2attn.inference.search import Hypothesis
from seq2attn.recipe import DecodingRecipe
from seq2attn.recipe.sections import Fault


class EngineError(Seq2attnError):
    """An engine is not installed, or cannot compute a model."""


class Request(NamedTuple):
    """A source that a target is searched for."""

    source: Any  # what the tokenizer takes: ids without </s>
    prefix: Row  # ids that the target must begin with
    limit: int  # the largest number of pieces of the target


Answer = list[Hypothesis] | str  # hypotheses, best first; or the reason why torch has to search


@runtime_checkable
class Engine(Protocol):
    """A model in the form of another program, which searches as `Generator.search` does."""

    name: str  # with the precision: "ctranslate2 int8"
    # How far off its log-probability of a token may be: between hypotheses that differ by less, torch
    # decides. 0: its own order stands, unless torch computes the scores in any case.
    rounding: float

    def unsupported(self, decoding: DecodingRecipe) -> str | None:
        """Return the setting that this engine does not have as torch has it; None if it has them all."""

    def search(self, requests: Sequence[Request], decoding: DecodingRecipe) -> list[Answer]:
        """Return at most `beam` finished hypotheses of each request, with the engine's log-probabilities."""


def changed_keys(section: Any, handled: Collection[str]) -> Iterator[str]:
    """Yield the keys of a recipe's section that are not handled and do not have their default.

    Defaults change nothing: an engine that lists the keys that it handles refuses those of later versions
    until it handles them, too.
    """
    for name, field in type(section).model_fields.items():
        if name not in handled and getattr(section, name) != field.default:
            yield name


def missing(path: str, section: Any, handled: Collection[str]) -> Iterator[Fault]:
    """Yield the changed keys of a section of the model, at this path, that an engine does not have."""
    for key in changed_keys(section, handled):
        yield Fault(f"{path}.{key}", "it does not have it")
