"""Base class of a recipe's sections, and markers of fields that name an entry of a registry.

Choices are read from the registries when a recipe is validated, and the options of a part are the
keyword-only parameters of its constructor. So a new scorer can be named in a recipe without a line here.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PydanticUserError,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema
from typing_extensions import Self

from seq2attn.errors import Seq2attnError
from seq2attn.recipe.wording import closest, corpus_key, expectation, from_plugins, same, shown, unknown
from seq2attn.runtime.plugin_errors import blaming

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Size = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Fault(NamedTuple):
    """A fault of a section: the dotted path of the key, below the section, and a message."""

    path: str
    message: str


class Section(BaseModel):
    """Base class of a recipe's sections: frozen, no unknown keys, and checks across fields (`faults`).

    No value is converted: 3 is not a text, '3' and true are not numbers. Errors are worded for the user.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    def faults(self) -> Iterator[Fault]:
        """Find combinations that make no sense. Each field is already valid by itself."""
        yield from ()

    @classmethod
    def written_faults(cls, value: Any, error: ValidationError) -> Iterator[Fault]:
        """Find such combinations in a section as it is written, of which some fields are wrong by themselves:
        those of `error`, which is reported anyway."""
        yield from ()

    @field_validator("*", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any, info: ValidationInfo) -> Any:
        """Turn lists into tuples: YAML has only lists, which a strict tuple would refuse."""
        length = _tuple_length(cls.model_fields[info.field_name or ""].annotation)
        if length is None or not isinstance(value, list):
            return value
        if len(value) != length:
            raise fault(f"expected a list of {length}, got {shown(value)}")
        return tuple(value)

    @model_validator(mode="wrap")
    @classmethod
    def _worded(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            section = handler(value)
        except ValidationError as error:
            lines = list(_reworded(error, value, cls.model_fields))
            faults = cls.written_faults(value, error)
        else:
            lines, faults = [], section.faults()
        lines += [_line(_keys(fault.path), fault.message) for fault in faults]
        if lines:
            raise ValidationError.from_exception_data(cls.__name__, lines)
        return section


class Part(Section):
    """An entry of a registry with its options: `additive`, or `{name: additive, size: 128}`."""

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Return all options as the constructor takes them, defaults included."""
        return self.model_dump(exclude={"name"})

    def make(self, registry: Mapping[str, type], *given: Any) -> Any:
        """Construct the part. given: the positional arguments, which follow from the recipe around it.

        Seq2attnError for whatever the constructor of a plugin's class raises.
        """
        part = registry[self.name]
        with blaming(part):
            return part(*given, **self.options)


AnySection = TypeVar("AnySection", bound=Section)


S = TypeVar("S", bound=Section)


def filled(section: S, other: Section, *keys: str) -> S:
    """Return a section that has another's values of those of these keys that it has and that are null."""
    mine = [key for key in keys if key in type(section).model_fields and getattr(section, key) is None]
    return section.model_copy(update={key: getattr(other, key, None) for key in mine})


def learned_positions(section: Section) -> int | None:
    """Return the number of positions that an encoder or decoder learns; None if it learns none."""
    positions = getattr(section, "positions", None)
    length = positions.options.get("length") if isinstance(positions, Part) else None
    return length if isinstance(length, int) else None


class Choice:
    """Marks a field that takes a name of the registry, with or without options."""

    def __init__(self, registry: Mapping[str, type]) -> None:
        self.registry = registry

    def __get_pydantic_core_schema__(self, source: type[Part], handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = core_schema.no_info_before_validator_function(self.part, handler(source))
        schema["serialization"] = core_schema.plain_serializer_function_ser_schema(self.written)
        return schema

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        with_options = [part_section(name, part).model_json_schema() for name, part in self.registry.items()]
        return {"anyOf": [{"enum": list(self.registry)}, *with_options]}

    def written(self, part: Part) -> Any:
        """Return a part as a recipe has it: with all options, or its bare name if it has none."""
        return part.model_dump() if part.options else part.name

    def part(self, value: Any) -> Section:
        """Return the part that a value of the recipe stands for."""
        registry = self.registry
        if isinstance(value, Part):
            return value
        if isinstance(value, str) and value not in registry:
            raise fault(unknown(value, registry, more=from_plugins()))
        if not isinstance(value, str | dict):
            raise fault(f"expected a name, or {{name: ..., and its options}}, got {shown(value)}")
        given = {"name": value} if isinstance(value, str) else value
        return section_by(
            "name", given, registry, lambda name: part_section(name, registry[name]), from_plugins()
        )


class Name:
    """Marks a text field that takes one of the names that `names` returns.

    It is called whenever a recipe is validated, so that a name added to a registry counts at once.
    """

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self.names = names

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"enum": list(self.names()), "type": "string"}

    def check(self, value: Any) -> str:
        """Return the value, if it is one of the names."""
        names = list(self.names())
        if isinstance(value, str) and value in names:
            return value
        if isinstance(value, str):
            raise fault(unknown(value, names))
        raise fault(f"expected {' or '.join([', '.join(names[:-1]), names[-1]])}, got {shown(value)}")


@cache  # the same class each time, so that equal recipes are equal
def part_section(name: str, part: type) -> type[Part]:
    """Return the options of a part as a section, read from its constructor's signature."""
    fields = {**option_fields(part), "name": (Literal[name], ...)}
    return section_class(part.__name__, part, Part, fields)


def option_fields(part: type) -> dict[str, Any]:
    """Return the keyword-only parameters of a constructor as fields of a section. Seq2attnError if one has an
    annotation that cannot be evaluated."""
    empty = inspect.Parameter.empty
    try:
        parameters = inspect.signature(part, eval_str=True).parameters.values()
    except Exception as error:  # annotations are code of the part's module
        raise Seq2attnError(f"{part.__name__}: an annotation of its constructor is wrong: {error}") from error
    return {
        parameter.name: (
            Any if parameter.annotation is empty else parameter.annotation,
            ... if parameter.default is empty else parameter.default,
        )
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def section_class(name: str, part: type, base: type[AnySection], fields: dict[str, Any]) -> type[AnySection]:
    """Return a section with the fields of a part. Seq2attnError if one has a type that no recipe can have."""
    module, doc = part.__module__, inspect.getdoc(part)
    try:
        return create_model(name, __base__=base, __module__=module, __doc__=doc, **fields)
    except (PydanticUserError, NameError, TypeError) as error:
        message = str(error).split(". ")[0]
        raise Seq2attnError(f"{part.__name__}: no recipe can have one of its options: {message}") from error


def by_key(sections: Mapping[str, type[Section]]) -> BeforeValidator:
    """Choose between sections by which of these keys is there."""
    expected = f"expected a section with one of the keys {', '.join(sections)}"

    def check(value: Any) -> Any:
        if isinstance(value, Section):
            return value
        if not isinstance(value, dict):
            guess = corpus_key(value, sections) if isinstance(value, str) else None
            hint = f" (did you mean {{{guess}: {value}}}?)" if guess else ""
            raise fault(f"{expected}; got {shown(value)}{hint}")
        present = [key for key in sections if key in value]
        if len(present) > 1:
            raise fault(f"{expected}; got {' and '.join(present)} together")
        meant = present or [key for name in value if (key := closest(str(name), sections))]
        if not meant:
            raise fault(f"{expected}; got {shown(value)}")
        return sections[meant[0]].model_validate(value)

    return BeforeValidator(check)


def section_by(
    key: str,
    value: dict[str, Any],
    names: Iterable[str],
    section: Callable[[str], type[Section]],
    more: str = "",
) -> Section:
    """Return the section that the value of a key names. If it is misspelt, the other keys are checked, too.

    more: where other names come from.
    """
    names = list(names)
    written = key if key in value else closest(key, value)  # the key itself may be misspelt
    if written is None:
        raise fault(f"missing key '{key}' (one of {', '.join(names)})")
    name = value[written]
    if not isinstance(name, str):
        lines = [_line((written,), f"expected one of {', '.join(names)}, got {shown(name)}")]
    elif name in names:
        try:
            chosen = section(name)
        except Seq2attnError as error:  # the class of a plugin is wrong
            lines = [_line((written,), str(error))]
        else:
            return chosen.model_validate(value)
    else:
        lines = [_line((written,), unknown(name, names, more=more))]
        if (meant := closest(name, names)) is not None:
            try:
                section(meant).model_validate({**value, written: meant})
            except ValidationError as error:
                lines += [_line(line["loc"], line["msg"]) for line in error.errors()]
            except Seq2attnError:
                pass  # to be reported once the name is right
    raise ValidationError.from_exception_data(key, lines)


# ---- errors in words for the user -----------------------------------------------------------------


def fault(message: str) -> PydanticCustomError:
    """Make an error for a validator to raise, whose message is reported as it is."""
    return PydanticCustomError("fault", "{message}", {"message": message})


def _line(path: tuple[int | str, ...], message: str) -> InitErrorDetails:
    return InitErrorDetails(type=fault(message), loc=path, input=None)


def _keys(path: str) -> tuple[int | str, ...]:
    return tuple(int(key) if key.isdigit() else key for key in path.split(".")) if path else ()


def _tuple_length(annotation: Any) -> int | None:
    """Return the length of the tuple that a field may take; None if it takes no tuple."""
    if get_origin(annotation) is tuple:
        return len(get_args(annotation))
    if get_origin(annotation) is list:
        return None
    lengths = [_tuple_length(inner) for inner in get_args(annotation)]
    return next((length for length in lengths if length is not None), None)


def _reworded(
    error: ValidationError, given: Any, fields: Mapping[str, FieldInfo]
) -> Iterator[InitErrorDetails]:
    """Turn pydantic's errors into faults, one for each key."""
    errors = error.errors(include_url=False)
    absent = [key for key in fields if key not in given] if isinstance(given, dict) else []
    extra = [str(line["loc"][0]) for line in errors if line["type"] == "extra_forbidden"]
    meant = {key: closest(key, absent) for key in extra}
    expected: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for line in errors:
        path, kind = line["loc"], line["type"]
        if kind == "fault":
            yield _line(path, line["msg"])
        elif kind == "extra_forbidden":
            guess = meant[str(path[0])]
            choices = [] if list(fields) == ["name"] and guess is None else list(fields)
            yield _line(path, unknown(str(path[0]), choices, "key ", guess or _place(str(path[0]), fields)))
        elif kind == "missing" and len(path) == 1:
            if path[0] not in meant.values():
                yield _line((), _missing(str(path[0]), fields))
        elif kind == "literal_error" and isinstance(line["input"], str):
            yield _line(path, unknown(line["input"], _literals(fields[str(path[0])].annotation)))
        else:
            key = (*path[:1], *(part for part in path[1:] if isinstance(part, int)))  # no names of types
            expected.setdefault(key, []).append(line)
    for path, lines in expected.items():
        wanted = " or ".join(dict.fromkeys(expectation(line) for line in lines))
        hint = _within(given, fields) if not path else ""
        yield _line(path, f"expected {wanted}, got {shown(lines[0]['input'])}{hint}")


def _place(key: str, fields: Mapping[str, FieldInfo]) -> str | None:
    """Return where a key belongs that is a level too high: training.learning_rate for learning_rate."""
    for name, field in fields.items():
        for section in _sections(field.annotation):
            if (inner := same(key, section.model_fields)) is not None:
                return f"{name}.{inner}"
    return None


def _within(value: Any, fields: Mapping[str, FieldInfo]) -> str:
    """Return a hint, if a name is given instead of the section with it: {score: additive} for additive."""
    for key, field in fields.items():
        for choice in field.metadata:
            named = isinstance(value, str) and isinstance(choice, Choice)
            if named and (name := same(value, choice.registry)) is not None:
                return f" (did you mean {{{key}: {name}}}?)"
    return ""


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """Yield the sections that a field may take."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)


def _missing(key: str, fields: Mapping[str, FieldInfo]) -> str:
    choices = _literals(fields[key].annotation)
    return f"missing key '{key}'" + (f" (one of {', '.join(choices)})" if choices else "")


def _literals(annotation: Any) -> list[str]:
    """Return the strings that a field takes, if they are listed in its type."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [literal for inner in get_args(annotation) for literal in _literals(inner)]
