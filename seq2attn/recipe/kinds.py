"""Sections chosen by their key `kind`: built-in ones, and those of encoders and decoders of plugins.

The section of a plugin's class is read from its constructor, as the options of a scorer are.
"""

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, Literal, Union

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from seq2attn.errors import Seq2attnError
from seq2attn.recipe.attention import AttentionRecipe
from seq2attn.recipe.sections import (
    Fault,
    Rate,
    Section,
    Size,
    fault,
    option_fields,
    section_by,
    section_class,
)
from seq2attn.recipe.wording import from_plugins, shown
from seq2attn.registry import Registry
from seq2attn.runtime.plugin_errors import blaming

ENCODERS: Registry[type] = Registry("ENCODERS")  # of plugins, by kind: subclasses of models.encoders.Encoder
DECODERS: Registry[type] = Registry("DECODERS")  # of plugins, by kind: subclasses of models.decoders.Decoder


class ByKind:
    """Marks a field that takes one of these sections, chosen by the value of its key `kind`.

    registry: classes of plugins by kind, whose sections extend `custom`.
    """

    def __init__(
        self,
        sections: dict[str, type[Section]],
        registry: dict[str, type] | None = None,
        custom: type["CustomRecipe"] | None = None,
    ) -> None:
        self.sections: Mapping[str, type[Section]] = sections
        self.extends = registry is not None and custom is not None
        if registry is not None and custom is not None:
            self.sections = _Kinds(sections, registry, custom)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.section, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        every: Any = Union[tuple(self.sections.values())]  # noqa: UP007 (of the values of a mapping)
        return handler(TypeAdapter(every).core_schema)

    def section(self, value: Any) -> Section:
        """Return the section that a value of the recipe stands for."""
        if isinstance(value, Section):
            return value
        if not isinstance(value, dict):
            raise fault(f"expected a section with kind: {' or '.join(self.sections)}, got {shown(value)}")
        more = from_plugins() if self.extends else ""
        return section_by("kind", value, self.sections, self.sections.__getitem__, more)


class CustomRecipe(Section):
    """The base class of sections of plugins' classes. A subclass adds the options of a class."""

    kind: str = Field(description="Type of encoder or decoder.")
    given: ClassVar[tuple[str, ...]] = ("embedding",)  # to a constructor, before its options
    reserved: ClassVar[tuple[str, ...]] = ()  # names that no option may have
    suffix: ClassVar[str] = "Recipe"  # of the section's name, behind that of the class
    part: ClassVar[type]  # the class

    @classmethod
    def of(cls, kind: str, part: type) -> type["CustomRecipe"]:
        """Return the section of a class. Seq2attnError if its constructor cannot be called, or if one of its
        parameters cannot be an option."""
        options = option_fields(part)
        for name in options:
            if name in cls.reserved or name in cls.model_fields or hasattr(cls, name):
                raise Seq2attnError(
                    f"{part.__name__}: every section of this kind has something named {name}: give the "
                    "option another name"
                )
        kind_field = {"kind": (Literal[kind], cls.model_fields["kind"])}
        name, fields = part.__name__ + cls.suffix, kind_field | cls.given_fields(part) | options
        section = section_class(name, part, cls, fields)
        section.part = part
        return section

    @classmethod
    def given_fields(cls, part: type) -> dict[str, Any]:
        """Return the fields of what a constructor is given beyond `given`. Seq2attnError if it is called in
        another way."""
        if _positional(part)[len(cls.given) :] or len(_positional(part)) < len(cls.given):
            raise cls._other_parameters(part)
        return {}

    @classmethod
    def _other_parameters(cls, part: type, more: str = "") -> Seq2attnError:
        signature = inspect.signature(part)
        bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
        return Seq2attnError(
            f"{part.__name__} must take the parameters ({', '.join(cls.given)}{more}), then its options "
            f"behind a *; it takes {inspect.Signature(bare)}"
        )

    @property
    def output_size(self) -> int | None:
        """Return the size of its states; None: only the part itself knows it."""
        return None

    @property
    def options(self) -> dict[str, Any]:
        """Return all options as the constructor takes them, defaults included."""
        return {name: getattr(self, name) for name in option_fields(self.part)}

    def make(self, *given: Any) -> Any:
        """Construct the part. Seq2attnError for whatever its constructor raises."""
        with blaming(self.part):
            return self.part(*given, **self.options)


def _positional(part: type) -> list[inspect.Parameter]:
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [parameter for parameter in inspect.signature(part).parameters.values() if parameter.kind in kinds]


class _Kinds(Mapping[str, type[Section]]):
    """The sections of all kinds: built-in ones, and those of a registry of plugins' classes, at any time."""

    def __init__(
        self, sections: dict[str, type[Section]], registry: dict[str, type], custom: type[CustomRecipe]
    ) -> None:
        self.sections, self.registry, self.custom = sections, registry, custom

    def __iter__(self) -> Iterator[str]:
        return iter(self.sections | self.registry)

    def __len__(self) -> int:
        return len(self.sections | self.registry)

    def __getitem__(self, kind: str) -> type[Section]:
        if kind not in self.registry:
            return self.sections[kind]
        if kind in self.sections:
            raise Seq2attnError(f"{kind} is built in: give {self.registry[kind]!r:.60} another name")
        return _custom(kind, self.registry[kind], self.custom)


@cache  # the same class each time, so that equal recipes are equal
def _custom(kind: str, part: type, custom: type[CustomRecipe]) -> type[CustomRecipe]:
    return custom.of(kind, part)


# ---- encoders and decoders of plugins ----------------------------------------------------------------


class CustomWordEncoderRecipe(CustomRecipe):
    """An encoder of a plugin, of word vectors."""

    suffix = "OfWordsRecipe"


class _Embedding(CustomRecipe):
    embedding: Size = Field(256, description="Size of the embeddings.")
    embedding_dropout: Rate = Field(0.0, description="Dropout rate of the embeddings.")
    word_dropout: Rate = Field(
        0.0, description="Rate at which the embeddings of whole input tokens are dropped."
    )
    variational: ClassVar[bool] = False


class CustomEncoderRecipe(_Embedding):
    """An encoder of a plugin."""


class CustomDecoderRecipe(_Embedding):
    """A decoder of a plugin. If its constructor has a parameter `attention`, the section has one, too."""

    size: Size = Field(
        256, description="Size of the output layer's input, and of the queries of its attention."
    )
    given = ("embedding", "output", "source_size")
    reserved = ("attention", "attentions")
    copying: ClassVar[None] = None
    shift_head: ClassVar[None] = None

    @classmethod
    def given_fields(cls, part: type) -> dict[str, Any]:
        """See the base class."""
        more = _positional(part)[len(cls.given) :]
        if not more:
            return super().given_fields(part)
        kinds: dict[str, Any] = {"attention": AttentionRecipe, "attentions": list[AttentionRecipe]}
        if len(more) > 1 or more[0].name not in kinds:
            raise cls._other_parameters(part, " and, if it attends, attention or attentions")
        name, kind = more[0].name, kinds[more[0].name]
        if more[0].default is more[0].empty:
            return {name: (kind, Field(description="Attention to the source."))}
        return {name: (kind | None, Field(None, description="Attention to the source; null = none."))}

    @property
    def output_size(self) -> int:
        """Return the size of the output layer's input."""
        return self.size

    @property
    def attention_key(self) -> str | None:
        """Return the key of its attention to the source; None if it has none."""
        return next((name for name in self.reserved if getattr(self, name, None)), None)

    @property
    def cross_attentions(self) -> list[AttentionRecipe]:
        """Return its attentions to the source."""
        given = [] if self.attention_key is None else getattr(self, self.attention_key)
        return given if isinstance(given, list) else [given]

    def given_attentions(self, attentions: list[Any]) -> list[Any]:
        """Return what the constructor is given of its attentions: all, the only one or None, or nothing."""
        if "attentions" in type(self).model_fields:
            return [attentions]
        return [*attentions, None][:1] if "attention" in type(self).model_fields else []

    @property
    def unprojected_attentions(self) -> dict[str, AttentionRecipe]:
        """Return its attentions of one head, by path: they have no projections."""
        by_path = zip(self._paths, self.cross_attentions, strict=True)
        return {path: section for path, section in by_path if section.heads == 1}

    @property
    def _paths(self) -> list[str]:
        if self.attention_key == "attention":
            return ["attention"]
        return [f"attentions.{layer}" for layer in range(len(self.cross_attentions))]

    def faults(self) -> Iterator[Fault]:
        """Find attentions that do not fit the decoder, or each other."""
        yield from super().faults()
        sections = self.cross_attentions
        for path, section in zip(self._paths, sections, strict=True):
            yield from section.source_faults(path, self.size)
            if section.heads != sections[0].heads:
                yield Fault(
                    f"{path}.heads",
                    f"weights of all layers are put into one tensor: all need {sections[0].heads} heads",
                )
