"""Sections with a part whose options may stand beside its name: {block: se, ratio: 8}."""

from typing import Any, ClassVar

from pydantic import ConfigDict, model_validator

from seq2attn.recipe.sections import Choice, Section, option_fields


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
        if not isinstance(value, dict) or not isinstance(value.get(key), str):
            return value
        own = {name: inner for name, inner in value.items() if name in cls.model_fields}
        options = {name: inner for name, inner in value.items() if name not in own}
        options = cls.options_beside(value[key], options)
        return {**own, key: {"name": value[key], **options}} if options else value

    @staticmethod
    def _with_options(schema: dict[str, Any], kind: type["PartBeside"]) -> None:
        """Let the JSON schema take the options of all parts beside the keys of the section."""
        field = kind.model_fields[kind.part_key]
        registry = next(mark.registry for mark in field.metadata if isinstance(mark, Choice))
        options = {name for part in registry.values() for name in option_fields(part)}
        schema.pop("additionalProperties", None)
        schema["propertyNames"] = {"enum": [*kind.model_fields, *sorted(options - kind.model_fields.keys())]}

    model_config = ConfigDict(json_schema_extra=_with_options)
