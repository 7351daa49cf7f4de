"""Read recipes from YAML and write them. All faults are reported at once, with key, line and a suggestion."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Union

from pydantic import TypeAdapter, ValidationError

from seq2attn.errors import Seq2attnError, for_caller, require_type
from seq2attn.recipe.paths import expand_variables, make_absolute
from seq2attn.recipe.plain_values import plain
from seq2attn.recipe.plugins import load_plugins
from seq2attn.recipe.registry import RECIPES
from seq2attn.recipe.root import AnyRecipe
from seq2attn.recipe.roots import Recipe
from seq2attn.recipe.wording import closest, from_plugins, shown, unknown
from seq2attn.recipe.yaml_source import LONGEST, Keys, Source, SourceFault, dump, parse
from seq2attn.runtime.files import write as write_atomically

LONGEST_KEY = 1000  # characters of a dotted key


class LocatedFault(NamedTuple):
    """A fault and its location. The line counts from 1; 0 = the whole file, None = an override."""

    file: str
    line: int | None
    path: str
    message: str
    given: str = ""  # the argument that overrides were given in; empty: that of the command, or `overrides`

    def __str__(self) -> str:
        """Return one line: `quickstart.yaml:14  model.decoder.attention.score: unknown 'additve' (...)`."""
        where = f"{self.file}:{self.line}  " if self.line else f"{self.file}  "
        if self.line is None:
            where = f"{self.given or for_caller('command line', 'overrides')}: "
        path = self.path if len(self.path) <= LONGEST_KEY else f"{self.path[:60]}..."
        return f"{where}{path}{': ' if path else ''}{self.message}"


class RecipeError(Seq2attnError):
    """All faults of a recipe, in the order of the file; `str` has one line for each."""

    def __init__(self, faults: Sequence[LocatedFault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = list(faults)

    def of_overrides(self, name: str) -> "RecipeError":
        """Return the same error with the name of the argument that overrides were given in."""
        return RecipeError([fault._replace(given=name) for fault in self.faults])


Overrides = str | Sequence[str] | Mapping[str, Any]


def read(
    recipe: str | Path | Mapping[str, Any],
    overrides: Overrides = (),
    check_files: bool = True,
    complete: Callable[[str, dict[str, Any]], dict[str, Any]] | None = None,
) -> AnyRecipe:
    """Read a recipe from its file, by the name of one that ships, or from its sections in a dict.

    overrides: `training.learning_rate=0.1`, `data.train.0.limit=100`, `data.train={files: [a, b]}`, whose
        values are YAML; or a dict of keys and values. Relative paths are relative to the working directory.
    check_files: whether data files that do not exist are faults.
    complete: returns the sections of a recipe of a task with those that it leaves to another run (`init`).
    Raises RecipeError with every fault.
    """
    if isinstance(overrides, Mapping):
        try:
            return read(recipe, assignments(overrides), check_files, complete)
        except RecipeError as error:
            raise error.of_overrides("overrides") from None
    load_plugins()
    file, recipe_path, written = _written(recipe)
    faults: list[tuple[int | None, Keys, str]] = [
        (fault.line, fault.path, fault.message) for fault in written.faults
    ]
    if written.tree is None and not faults:
        faults = [(1, (), "is empty; it needs at least data, model and training")]
    elif not isinstance(written.tree, dict) and not faults:
        faults = [(1, (), f"expected sections (data: ..., model: ...), got {shown(written.tree)}")]
    if not isinstance(written.tree, dict):
        raise _all(file, faults)
    for override in assignments(overrides):
        faults += [(None, at, message) for at, message in _override(written, override)]

    def note(at: Keys, message: str) -> None:
        faults.append((written.line(at), at, message))

    def folder(at: Keys) -> Path:
        return Path.cwd() if written.line(at) is None else recipe_path.parent.absolute()

    tree = expand_variables({"name": recipe_path.stem, **written.tree}, note)
    if (task := _task(tree, note)) is None:  # without a task, nothing else can be checked
        raise _all(file, faults)
    make_absolute(tree, RECIPES[task], folder, note if check_files else None)
    tree = tree if complete is None else complete(task, tree)
    try:
        checked = RECIPES[task].model_validate({**tree, "task": task})
    except ValidationError as error:
        broken = {fault.path for fault in written.faults}
        for line in error.errors(include_url=False):
            if (at := _as_written(line["loc"], tree)) not in broken:
                note(at, line["msg"])
    if faults:
        raise _all(file, faults)
    return checked


def assignments(overrides: object) -> list[str]:
    """Return overrides as `key=value`, as on the command line. Seq2attnError if they are none."""
    expected = 'overrides as ["key=value"] or {"key": value}'
    listed: Any = [overrides] if isinstance(overrides, str) else overrides
    require_type(listed, (list, tuple, Mapping), expected)
    for override in listed:
        require_type(override, str, expected)
    if not isinstance(listed, Mapping):
        return list(listed)
    texts = [(key, *_dumped(value)) for key, value in listed.items()]
    if faults := [(None, (key, *at), message) for key, _, found in texts for at, message in found]:
        raise _all("", list(faults)).of_overrides("overrides")
    return [f"{key}={text}" for key, text, _ in texts]


def write(recipe: AnyRecipe, path: str | Path) -> None:
    """Write a recipe with all its values, atomically. `read` returns the same recipe."""
    write_atomically(Path(path), dump(recipe.model_dump(mode="json")).encode())


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a recipe, with the names and options of all parts."""
    load_plugins()
    every: Any = Union[tuple(RECIPES.values())]  # noqa: UP007 (of the values of a dict)
    whole = TypeAdapter(every).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | whole


def shipped() -> dict[str, Path]:
    """Return the files of the recipes that ship with seq2attn, by name."""
    package = Path(__file__).parents[1]
    folders = (package / "recipes", package.parent / "recipes")  # installed, or in a checkout
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def head(path: str | Path) -> list[str]:
    """Return the comment lines that open a recipe: what it is for, how long it takes, and its score."""
    lines: list[str] = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return lines


def _task(tree: dict[str, Any], note: Callable[[Keys, str], None]) -> str | None:
    """Return the task of a recipe. If it is missing or misspelt, note a fault and return the likeliest one,
    None if there is none."""
    if "task" not in tree:
        meant = _unnamed(tree)
        if meant != "translation":
            note(("task",), f"is missing, and this reads as {meant}: without it, it would be translation")
        return meant
    task = tree["task"]
    if isinstance(task, str) and task in RECIPES:
        return task
    if not isinstance(task, str):
        note(("task",), f"expected one of {', '.join(RECIPES)}, got {shown(task)}")
        return None
    note(("task",), unknown(task, RECIPES, more=from_plugins()))
    return closest(task, RECIPES)


def _unnamed(tree: dict[str, Any]) -> str:
    """Return the likeliest task of a recipe that names none: translation if it has a decoder, else the task
    with the fewest faults."""
    model = tree.get("model")
    if isinstance(model, dict) and "decoder" in model:
        return "translation"
    counts = {task: _count(task, tree) for task, kind in RECIPES.items() if not issubclass(kind, Recipe)}
    meant = min(counts, key=counts.__getitem__)
    clear = counts[meant] + 1 < _count("translation", tree)  # a missing model alone is one fault
    return meant if clear else "translation"


def _count(task: str, tree: dict[str, Any]) -> int:
    """Return the number of faults of a recipe, if it is read as a recipe of this task."""
    try:
        RECIPES[task].model_validate({**tree, "task": task})
    except ValidationError as error:
        return error.error_count()
    return 0


def _all(file: str, faults: list[tuple[int | None, Keys, str]]) -> RecipeError:
    """Return all faults as one error, in the order of the file; those of the command line come last."""
    faults = sorted(faults, key=lambda fault: (fault[0] is None, fault[0] or 0))
    return RecipeError([LocatedFault(file, line, _dotted(at), message) for line, at, message in faults])


# ---- finding the file ------------------------------------------------------------------------------


def _written(recipe: str | Path | Mapping[str, Any]) -> tuple[str, Path, Source]:
    """Return the name of a recipe for messages, its path, and its values. A dict is read as if it were a file
    `recipe.yaml` in the working directory, but without line numbers."""
    require_type(
        recipe,
        (str, Path, Mapping),
        "a recipe: the name of one that ships, a path, or a dict of its sections",
    )
    if not isinstance(recipe, Mapping):
        path = _find(recipe)
        file = str(recipe) if path == Path(recipe) else _short(path)
        return file, path, parse(_text(path, file))
    text, broken = _dumped(recipe)
    written = parse(text)
    faults = [fault._replace(line=0) for fault in written.faults]
    faults += [SourceFault(0, at, message) for at, message in broken]
    return "recipe", Path("recipe.yaml"), Source(written.tree, dict.fromkeys(written.lines, 0), faults)


def _dumped(value: Any) -> tuple[str, list[tuple[Keys, str]]]:
    """Return a Python value as YAML, and the faults of what is no value of a recipe."""
    faults = list[tuple[Keys, str]]()
    try:
        return dump(plain(value, lambda at, message: faults.append((at, message)))), faults
    except RecursionError:
        return "", [((), "is nested too deeply for a recipe")]


def _find(path: str | Path) -> Path:
    """Return the path of a recipe's file, or of the shipped recipe of that name."""
    file_path = Path(path)
    if file_path.exists() and not file_path.is_dir():
        return file_path
    ships = shipped()
    if file_path.stem in ships and str(file_path) in (
        file_path.stem,
        file_path.name,
        str(Path("recipes") / file_path.name),
    ):
        return ships[file_path.stem]
    if file_path.is_dir():
        raise RecipeError([LocatedFault(str(path), 0, "", "is a folder; give the recipe's file")])
    guess = closest(file_path.stem, ships)
    listed = f"recipes that ship: {', '.join(ships)}"
    if guess:
        every = for_caller("`seq2attn recipes` lists", "seq2attn.recipe.shipped() has")
        listed = f"did you mean {guess}? {every} those that ship"
    message = f"no such file ({listed})"
    raise RecipeError([LocatedFault(str(path), 0, "", message)])


def _short(file_path: Path) -> str:
    """Return a path relative to the working directory, if it is below it."""
    return str(file_path.relative_to(Path.cwd())) if file_path.is_relative_to(Path.cwd()) else str(file_path)


def _text(file_path: Path, file: str) -> str:
    try:
        with file_path.open("rb") as stream:
            content = stream.read(4 * LONGEST + 1)  # a longer text is refused by `parse`, whatever follows
        return content.decode("utf-8-sig", "strict" if len(content) <= 4 * LONGEST else "replace")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RecipeError([LocatedFault(file, line, "", "is not UTF-8 text")]) from None
    except OSError as error:
        raise RecipeError([LocatedFault(file, 0, "", f"cannot be read: {error.strerror}")]) from None


# ---- overrides and paths ---------------------------------------------------------------------------


def _override(written: Source, override: str) -> Iterator[tuple[Keys, str]]:
    """Set a value in the tree; yield the faults of the override."""
    name, equals, text = (piece.strip() for piece in override.partition("="))
    if not equals or not name:
        yield (), f"expected key=value, got {shown(override)}"
        return
    if len(name) > LONGEST_KEY:
        yield (), f"no recipe has a key of {len(name):,} characters: {shown(name)}"
        return
    if not text:
        yield (name,), "expected a value after =; null stands for none"
        return
    value = parse(text)
    if value.faults:
        yield (name,), f"the value is not YAML: {value.faults[0].message}"
        return
    holder: Any = written.tree
    path: Keys = ()
    *above, last = _steps(name, written.tree)
    for key in above:
        if not isinstance(holder, list) and holder.get(key) is None:
            written.lines[(*path, key)] = None
            holder[key] = {}
        elif not isinstance(holder, list) and isinstance(holder[key], str):
            holder[key] = {"name": holder[key]}  # a part given by its name gets an option
        if (step := _step(holder, key)) is None:
            break
        holder, path = holder[step], (*path, step)
        if not isinstance(holder, dict | list):
            yield (name,), f"{_dotted(path)} is {shown(holder)}, which has no keys"
            return
    else:
        if isinstance(holder, list) and last == str(len(holder)):
            holder.append(None)
        step = _step(holder, last)
    if step is None:
        yield (name,), f"{_dotted(path)} is a list: give the number of an item, 0 to {len(holder) - 1}"
        return
    holder[step] = value.tree
    path = (*path, step)
    for below in [known for known in written.lines if known[: len(path)] == path]:
        del written.lines[below]
    written.lines[path] = None


def _steps(name: str, tree: dict[str, Any]) -> list[str]:
    """Return the keys of a dotted name; a single training corpus is number 0, in a list or not."""
    keys = name.split(".")
    data = tree.get("data")
    if keys[:3] == ["data", "train", "0"] and isinstance(data, dict) and isinstance(data.get("train"), dict):
        del keys[2]
    return keys


def _step(holder: Any, key: str) -> str | int | None:
    """Return a key as the index of a list or the key of a mapping; None if the list has no such item."""
    if not isinstance(holder, list):
        return key
    return int(key) if key.isdigit() and int(key) < len(holder) else None


def _as_written(path: Keys, tree: Any) -> Keys:
    """Return the path as the recipe has it: a single corpus or metric need not be in a list, and options may
    stand beside the name of a part."""
    kept: Keys = ()
    section: dict[str, Any] = {}  # that has the last key
    for key in path:
        if isinstance(key, int) and not isinstance(tree, list):
            continue
        if isinstance(tree, str) and key == "name":
            continue  # of a part, which is all that is written of it
        if isinstance(tree, str) and key in section:
            kept, tree = kept[:-1], section
        kept = (*kept, key)
        if isinstance(tree, dict):
            section, tree = tree, tree.get(str(key))
        elif isinstance(tree, list) and isinstance(key, int) and key < len(tree):
            tree = tree[key]
    return kept


def _dotted(path: Keys) -> str:
    return ".".join(str(key) for key in path)
