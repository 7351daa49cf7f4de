"""Sections with a part whose options may stand beside its name: {block: se, ratio: 8}."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import ConfigDict, model_validator

from seq2attn.recipe.sections import Choice, Section, option_fields
from seq2attn.recipe.wording import closest


class PartBeside(Section):
    """The base class of sections with a part, whose options may stand beside its name."""

    part_key: ClassVar[str]  # the key of the part

    @classmethod
    def options_beside(cls, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options that stand beside a part's name. A subclass may refuse some with an error."""
        return options

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, value: Any) -> Any:
        """Put options that stand beside the part's name into its section."""
        key = cls.part_key
        if isinstance(value, dict) and key not in value:  # options are not faults, too, if it is misspelt
            kept = cls.model_fields.keys() | value.keys() - _options(cls)
            return {name: inner for name, inner in value.items() if name in kept}
        if not isinstance(value, dict) or not isinstance(value.get(key), str):
            return value
        known = _own_options(cls, value[key])
        own = {name: inner for name, inner in value.items() if name in cls.model_fields}
        # What is no option of the part, and nearly a key of the section, is one that is misspelt.
        own |= {name: value[name] for name in value.keys() - known if closest(name, cls.model_fields)}
        options = {name: inner for name, inner in value.items() if name not in own}
        options = cls.options_beside(value[key], options)
        return {**own, key: {"name": value[key], **options}} if options else value

    @staticmethod
    def _with_options(schema: dict[str, Any], kind: type["PartBeside"]) -> None:
        """Let the JSON schema take the options of all parts beside the keys of the section."""
        options = _options(kind)
        schema.pop("additionalProperties", None)
        schema["propertyNames"] = {"enum": [*kind.model_fields, *sorted(options - kind.model_fields.keys())]}

    model_config = ConfigDict(json_schema_extra=_with_options)


def _own_options(kind: type[PartBeside], name: str) -> set[str]:
    """Return the names of the options of a part; of all parts, if there is none with this name."""
    part = _registry(kind).get(name)
    return _options(kind) if part is None else {*option_fields(part)}


def _options(kind: type[PartBeside]) -> set[str]:
    """Return the names of the options of all parts that a section may have."""
    return {name for part in _registry(kind).values() for name in option_fields(part)}


def _registry(kind: type[PartBeside]) -> Mapping[str, Any]:
    """Return the parts that a section may have, by name."""
    field = kind.model_fields[kind.part_key]
    return next(mark.registry for mark in field.metadata if isinstance(mark, Choice))
