"""The words of fault messages: the expected and the given value, and a suggestion. No pydantic terms."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import ErrorDetails

from seq2attn.errors import for_caller

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "is_instance_of": "a list",  # of a Sequence, which options of parts are
    "none_required": "null",
    "model_type": "a section of keys and values",
    "model_attributes_type": "a section of keys and values",
    "dict_type": "a section of keys and values",
}


def _number(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


_LIMITS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda limit: f"more than {_number(limit['gt'])}",
    "greater_than_equal": lambda limit: f"at least {_number(limit['ge'])}",
    "less_than": lambda limit: f"less than {_number(limit['lt'])}",
    "less_than_equal": lambda limit: f"at most {_number(limit['le'])}",
    "too_short": lambda limit: f"a list of at least {limit['min_length']}",
    "too_long": lambda limit: f"a list of at most {limit['max_length']}",
    "string_too_short": lambda limit: "some text",
    "literal_error": lambda limit: limit["expected"].replace("'", ""),
}
# Names of papers and other toolkits, and the names that a recipe has for them.
_SYNONYMS = {
    "lstm": "recurrent",
    "gru": "recurrent",
    "rnn": "recurrent",
    "bahdanau": "additive",
    "mlp": "additive",
    "luong": "general",
    "vaswani": "scaled_dot",
    "vocab_size": "size",
    "vocabulary_size": "size",
}
_ALSO = {"lstm": " with cell: lstm", "gru": " with cell: gru"}  # what a synonym says beyond the name
_TABLES = (".tsv", ".csv", ".jsonl", ".ndjson")
_LONGEST = 100  # characters of a name that a message has
_LISTED = 8  # names listed after a guess; without a guess all are listed


def expectation(error: ErrorDetails) -> str:
    """Return the words for the values that pydantic expected where it raised an error."""
    kind = error["type"]
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in _LIMITS:
        return _LIMITS[kind](error["ctx"])
    return "another value"


def from_plugins() -> str:
    """Return where parts that a registry lacks may come from, for `unknown`; see plugins.py."""
    module = for_caller("by --import MODULE", "by importing their module")
    return f"; others {module}, SEQ2ATTN_IMPORT or an entry point"


def unknown(
    name: str, choices: Iterable[str], what: str = "", guess: str | None = None, more: str = ""
) -> str:
    """Return a message such as `unknown 'additve' (did you mean additive? one of additive, concat, ...)`.

    what: the kind of name, with a space after it.
    guess: the choice that was probably meant; by default the closest.
    more: where other choices come from.
    """
    choices, name = list(choices), name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    if not choices:
        return f"unknown {what}'{name}' (there are no options)"
    guess = guess or closest(name, choices)
    if guess is None:
        return f"unknown {what}'{name}' (one of {', '.join(choices)}{more})"
    listed = ", ".join([*choices[:_LISTED], *["..."][: len(choices) > _LISTED]])
    return (
        f"unknown {what}'{name}' (did you mean {guess}{_ALSO.get(name.lower(), '')}? one of {listed}{more})"
    )


def closest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice that was probably meant: a synonym, misspelt, or initials (lr: learning_rate)."""
    plain = {choice.lower().replace("-", "_"): choice for choice in choices}
    name = name.lower().replace("-", "_")
    if (synonym := _SYNONYMS.get(name)) in plain:
        return plain[synonym]
    near = difflib.get_close_matches(name, plain, n=1)
    near = near or [
        choice
        for choice in plain
        if "_" in choice and name == "".join(word[:1] for word in choice.split("_"))
    ]
    return plain[near[0]] if near else None


def same(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice that has this name, or of which it is a synonym."""
    choices = list(choices)
    synonym = _SYNONYMS.get(name.lower().replace("-", "_"))
    return next((choice for choice in (name, synonym) if choice in choices), None)


def corpus_key(path: str, keys: Iterable[str]) -> str | None:
    """Return the key of the section that reads a file with this path."""
    suffixes = Path(path.lower()).suffixes
    guess = "table" if set(_TABLES) & set(suffixes) else "conll"
    return guess if suffixes and guess in keys else None


def shown(value: object) -> str:
    """Return a value as a recipe would have it, on one short line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a section with " + ", ".join(str(key) for key in value) if value else "an empty section"
    if isinstance(value, list | tuple):
        text = "[" + ", ".join(shown(item) for item in value) + "]"
    else:
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
