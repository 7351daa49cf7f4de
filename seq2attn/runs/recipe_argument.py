"""The recipe of a call from Python: a name, a path, a dict or a Recipe; with overrides and given data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from seq2attn.data import DataError, Role
from seq2attn.data.given import given_table
from seq2attn.data.given_images import given_images
from seq2attn.errors import require_type, with_article
from seq2attn.recipe import AnyRecipe, LabellingRecipe, LocatedFault, RecipeError, Section, assignments, read
from seq2attn.recipe.image_data import AnyImageDataRecipe
from seq2attn.recipe.wording import unknown
from seq2attn.runs.initial_sections import from_initial_run

_ROLES: tuple[Role, ...] = get_args(Role)
_OTHER_NAMES = {"validation": "dev", "valid": "dev", "val": "dev", "eval": "dev"}
# Tables of any task: those of texts need two columns, and those of images have names for theirs.
_UNREAD = {"table": "given.jsonl", "columns": ["source", "target"]}, {"table": "given.jsonl"}


def recipe_of(recipe: object, overrides: object = (), data: object = None) -> AnyRecipe:
    """Return the recipe that a function was called with.

    recipe: the name of one that ships, a path, a dict of its sections, or a Recipe.
    overrides: as on the command line, ["training.max_epochs=3"], or {"training.max_epochs": 3}.
    data: corpora or rows by role, see `train`. Rows are written to a table in the cache (`given_table`).

    Raises Seq2attnError: RecipeError with all faults of the recipe, before rows are read; DataError for rows.
    """
    kinds = "a recipe: the name of one that ships, a path, a dict of its sections, or a Recipe"
    require_type(recipe, (str, Path, Mapping, AnyRecipe), kinds)
    listed, given = assignments(overrides), _by_role(data)
    if isinstance(recipe, AnyRecipe):
        if listed:
            fault = "a Recipe cannot have overrides: give them to `read`"
            raise RecipeError([LocatedFault("recipe", 0, "", fault)])
        if not given:
            return recipe
        recipe = recipe.model_dump(mode="json")
    written = cast("str | Path | Mapping[str, Any]", recipe)
    try:
        return _read(written, listed, given)
    except RecipeError as error:
        faults = [fault._replace(given=_place(fault, overrides, given)) for fault in error.faults]
        raise RecipeError(faults) from None


def _read(written: str | Path | Mapping[str, Any], listed: list[str], given: dict[Role, Any]) -> AnyRecipe:
    """Read a recipe with given data. The recipe says what their rows are."""
    rows = {role: value for role, value in given.items() if not _is_corpus(value)}
    corpora = {role: value for role, value in given.items() if role not in rows}
    if rows:
        draft = _draft(written, listed, corpora, [*rows])
        corpora |= {role: _table(value, role, draft) for role, value in rows.items()}
    return read(written, [*_replacing(corpora), *listed], complete=from_initial_run)


def _draft(
    written: str | Path | Mapping[str, Any], listed: list[str], corpora: Mapping[Role, Any], roles: list[Role]
) -> AnyRecipe:
    """Return a recipe whose corpora for these roles cannot be read yet. RecipeError with its faults."""
    errors = []
    for table in _UNREAD:
        unread = _replacing({**corpora, **dict.fromkeys(roles, table)})
        try:
            return read(written, [*unread, *listed], check_files=False, complete=from_initial_run)
        except RecipeError as error:
            errors.append(error)
    raise min(errors, key=lambda error: len(error.faults))


def _table(rows: Any, role: Role, recipe: AnyRecipe) -> dict[str, Any]:
    """Write rows to the cache, and return the corpus that they then are."""
    if isinstance(recipe.data, AnyImageDataRecipe):
        return given_images(rows, role, recipe.data)
    words = recipe.text.words if isinstance(recipe, LabellingRecipe) else "auto"
    return given_table(rows, role, recipe.data, words)


def _place(fault: LocatedFault, overrides: object, given: dict[Role, Any]) -> str:
    """Return the argument that has the fault of an override."""
    if fault.path.startswith(tuple(f"data.{role}" for role in given)):
        return "data"
    return "overrides" if isinstance(overrides, Mapping) else fault.given


def _by_role(data: object) -> dict[Role, Any]:
    """Return given data by role. DataError if they are none."""
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise DataError(
            f"data: expected a dict with the keys {', '.join(_ROLES)}, as in "
            f'{{"train": pairs[:-500], "dev": pairs[-500:]}}; got {with_article(type(data).__name__)}'
        )
    for key in data:
        if key not in _ROLES:
            raise DataError(f"data: {unknown(str(key), _ROLES, guess=_OTHER_NAMES.get(str(key)))}")
        if data[key] is None and key != "test":
            raise DataError(f"data: expected rows or a corpus as {key}, got None; only test may be None")
    return dict(data)


def _is_corpus(value: object) -> bool:
    """Whether a value is a corpus as recipes have it: a section, or what the recipe's check has hints for."""
    return value is None or isinstance(value, Mapping | Section | str | Path)


def _replacing(corpora: Mapping[Role, Any]) -> list[str]:
    """Return the overrides that put corpora into a recipe."""
    sections = {
        role: corpus.model_dump(mode="json") if isinstance(corpus, Section) else corpus
        for role, corpus in corpora.items()
    }
    return assignments({f"data.{role}": section for role, section in sections.items()})
