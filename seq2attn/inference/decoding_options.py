"""The options of a call that replace the recipe's decoding settings."""

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import TypedDict, TypeVar, cast

from pydantic import ValidationError

from seq2attn.data.sources import Row
from seq2attn.errors import LengthWarning, Seq2attnError
from seq2attn.inference.search import WORD_START
from seq2attn.recipe import DecodingRecipe
from seq2attn.recipe.decoding import RATIO
from seq2attn.recipe.wording import unknown

SAMPLING_OPTIONS = {"temperature", "top_k", "top_p", "seed"}  # without effect unless `sample` is set
SEARCH_OPTIONS = {"beam"}  # without effect if it is


class DecodingOptions(TypedDict, total=False):
    """The options of `translate` and `summarize`, which are explained in the recipe's `decoding` section.

    If an option is None or missing, the value of the recipe holds.
    """

    beam: int | None
    nbest: int | None
    length_penalty: float | None
    coverage_penalty: float | None
    min_length: int | None
    max_length: int | None
    max_length_ratio: float | None
    no_repeat_ngram: int | None
    replace_unknown: bool | None
    sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None
    batch_tokens: int | None


F = TypeVar("F", bound=Callable[..., object])


def published(method: F, qualified_name: str) -> F:
    """Return a copy of a method that takes **DecodingOptions. `help`, notebooks and tracebacks know it by its
    public name, such as `Translator.translate`, and its signature has each of the options."""
    function, name = cast(FunctionType, method), qualified_name.rpartition(".")[2]
    code = function.__code__.replace(co_name=name)
    copy = FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)
    functools.update_wrapper(copy, function, ("__doc__", "__annotations__", "__kwdefaults__"))
    copy.__qualname__ = qualified_name
    signature = inspect.signature(function)
    *parameters, _ = signature.parameters.values()
    options = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for option, annotation in DecodingOptions.__annotations__.items()
    ]
    copy.__signature__ = signature.replace(parameters=[*parameters, *options])  # type: ignore[attr-defined]
    return cast(F, copy)


def changed(decoding: DecodingRecipe, options: Mapping[str, object]) -> DecodingRecipe:
    """Return settings changed by the options that are not None. Seq2attnError for a bad option."""
    for name in options:
        if name not in DecodingOptions.__annotations__:
            raise Seq2attnError(f"decoding: {unknown(name, DecodingOptions.__annotations__, 'option ')}")
    changes = {name: value for name, value in options.items() if value is not None}
    nbest = changes.get("nbest")
    if isinstance(nbest, int) and nbest > decoding.beam:
        changes.setdefault("beam", nbest)
    try:
        result = DecodingRecipe.model_validate({**decoding.model_dump(), **changes})
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise Seq2attnError("decoding: " + "; ".join(faults)) from error
    given = {name for name, value in options.items() if value is not None}
    if unused := given & (SEARCH_OPTIONS if result.sample else SAMPLING_OPTIONS):
        remedy = "nbest is the number of samples" if result.sample else "set sample, too"
        raise Seq2attnError(f"decoding: {', '.join(sorted(unused))} has no effect: {remedy}")
    return result


def require_prefixes(prefixes: Sequence[Row], decoding: DecodingRecipe, names: Sequence[str]) -> None:
    """Raise Seq2attnError for a prefix with more pieces than an output may have. names: of their texts."""
    for prefix, name in zip(prefixes, names, strict=True):
        length = len(prefix) - (len(prefix) > 0 and prefix[-1] == WORD_START)
        if length > decoding.max_length:
            raise Seq2attnError(
                f"the prefix of {name} has {length:,} pieces, and outputs at most {decoding.max_length:,} "
                "(decoding.max_length): give a shorter one"
            )


def warn_of_limits(lines: Sequence[int], decoding: DecodingRecipe, readable: int | None = None) -> None:
    """Warn that the outputs of sentences with these numbers have the largest length allowed.

    readable: the number of positions of the decoder, None if they have no end.
    """
    if lines:
        others = f" and {len(lines) - 1:,} others have" if len(lines) > 1 else " has"
        positions = "" if readable is None else f"; the decoder has positions for {readable - 1:,} pieces"
        ratio = RATIO if decoding.max_length_ratio is None else decoding.max_length_ratio
        warnings.warn(
            f"the output of sentence {lines[0]:,}{others} the largest length allowed, and may be cut: raise "
            f"decoding.max_length_ratio ({ratio:g}) or max_length ({decoding.max_length})"
            f"{positions}",
            LengthWarning,
            stacklevel=2,
        )


@contextlib.contextmanager
def without_length_warnings() -> Iterator[None]:
    """Leave those warnings out, for a model that has not learned yet to end its outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LengthWarning)
        yield
