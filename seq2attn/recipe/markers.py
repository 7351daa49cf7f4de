"""Markers of fields of a recipe: paths, and lists that may be given as their only item."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


def _always(section: Mapping[str, Any], text: str, path: Path) -> bool:
    return True


@dataclass(frozen=True)
class PathField:
    """Marks a text field that is the path of a file or folder (`kind`), see paths.py.

    applies: returns whether the text is a path, given its section as written, the text, and that path.
    wildcards: whether the path may have wildcards; a file whose name has them itself takes precedence.
    required: whether a path that does not exist is a fault of the recipe.
    """

    kind: Literal["file", "folder"] = "file"
    applies: Callable[[Mapping[str, Any], str, Path], bool] = _always
    wildcards: bool = False
    required: bool = True


FilePath = Annotated[str, PathField()]


class OneOrMore:
    """Marks a list that may also be given as its only item."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.as_list, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        list_schema = handler(schema)
        return {"anyOf": [list_schema["items"], list_schema]}

    def as_list(self, value: Any) -> Any:
        """Return the value as a list."""
        return value if isinstance(value, list) else [value]
