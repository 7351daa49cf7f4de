"""Parts of a block that are named in its options: `score: additive`, `gate: {name: se, ratio: 8}`."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from seq2attn.errors import Seq2attnError

Part = str | dict[str, Any]  # of a registry: its name, or {name: ..., and its options}


def part(registry: Mapping[str, Callable[..., Any]], value: Part, *sizes: int) -> Any:
    """Return the part of a registry that a name, or a name with options, stands for.

    Seq2attnError if there is no such part, or it does not take the options.
    """
    options: dict[str, Any] = {"name": value} if isinstance(value, str) else dict(value)
    name = options.pop("name", "")
    if name not in registry:
        raise Seq2attnError(f"unknown part {name!r}: expected one of {', '.join(registry)}")
    try:
        return registry[name](*sizes, **_checked(name, registry[name], options))
    except TypeError as error:
        raise Seq2attnError(f"{name} does not take these options: {error}") from error


def _checked(part_name: str, kind: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as a constructor declares them: lists may be tuples there; nothing else is converted."""
    checked = dict(options)
    for name, parameter in inspect.signature(kind, eval_str=True).parameters.items():
        if name in options and parameter.annotation is not parameter.empty:
            adapter = TypeAdapter[Any](parameter.annotation)
            try:
                checked[name] = adapter.validate_json(json.dumps(options[name]), strict=True)
            except ValidationError as error:
                why = " or ".join(line["msg"].removeprefix("Input ") for line in error.errors())
                raise Seq2attnError(f"{name} of {part_name} {why}; got {options[name]!r}") from error
    return checked
