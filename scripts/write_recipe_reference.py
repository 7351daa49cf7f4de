"""Write docs/recipes.md, the reference of all keys of a recipe, from the recipe's schema.

python scripts/write_recipe_reference.py            write docs/recipes.md
python scripts/write_recipe_reference.py --check    exit status 1 if docs/recipes.md is not up to date
"""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seq2attn.recipe import head, schema, shipped
from seq2attn.recipe.registry import RECIPES

PLACE = Path(__file__).parents[1] / "docs" / "recipes.md"
HEAD = """\
# Recipes

<!-- Written by scripts/write_recipe_reference.py from the recipe's schema: do not edit. -->

A recipe is a YAML file that describes a training run: data, vocabulary, model, training and decoding. Keys
that it leaves out have the defaults below. `seq2attn check RECIPE` reports all faults of a recipe at once,
each with its key, its line and a suggestion, and then runs a few steps to try it out. `seq2attn schema`
prints the JSON schema, from which editors complete keys.

- **On the command line**, `key=value` sets any key by its dotted path: `training.learning_rate=1e-4`,
  `data.train.0.limit=1000` (items of a list are numbered from 0), `data.dev={files: [dev.de, dev.en]}` (a
  whole section). The value is YAML and is checked like the file.
- **Paths** are relative to the recipe's folder; on the command line, to the working directory. `${NAME}` in
  the section `data` is replaced by the environment variable NAME.
- **null** as the default of `text.size`, `training.validate_every`, a schedule's `warmup` and
  `decoding.max_length_ratio` means that they follow the training data; `check` prints them, and the run's
  `recipe.yaml` has them. [How much data?](how_much_data.md) has measured scores.
- **Parts** such as scorers and schedules are given by name, `score: additive`, or with options,
  `score: {name: additive, size: 128}`.
- **YAML**: only `true` and `false` are booleans (`no` is Norwegian), and `1e-3` is a number.
"""
TASKS = """\
All other keys depend on the task and are in its chapter. The default metrics of each task:
"""


def reference() -> str:
    """Return the whole document."""
    lines = [
        HEAD,
        "## Recipes that ship",
        "",
        "| name | task and model | training time | score |",
        "|---|---|---|---|",
    ]
    for name, path in shipped().items():
        description, how_long, score = head(path)
        cells = (description, how_long.removeprefix("How long: "), score.removeprefix("Score: "))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join([*lines, *Reference().chapters()]) + "\n"


class Reference:
    """The keys of all recipes, then the other keys of each task. Each section is described once."""

    def __init__(self) -> None:
        self.whole = schema()
        self.tasks = {task: kind.__name__ for task, kind in RECIPES.items()}
        self.recipes = {name: self.whole["$defs"][name] for name in dict.fromkeys(self.tasks.values())}
        self.paths: dict[str, dict[str, list[str]]] = {}  # of each section, by recipe
        for recipe, top in self.recipes.items():
            find_paths(top, self.whole, "", recipe, self.paths)
        self.described: dict[str, None] = {}  # sections
        self.choices: list[tuple[Any, str]] = []  # the parts of a key, and the section that lists them

    def chapters(self) -> Iterator[str]:
        """Yield the lines of all chapters: all tasks, then each task."""
        first = next(iter(self.recipes.values()))
        every = [key for key in first["properties"] if self.shared(key)]
        yield from ("", "## All tasks", "", *self.table(first, every, "All tasks"))
        yield from ("", TASKS, "| `task` | `training.metric` | `training.metrics` |", "|---|---|---|")
        for task in self.tasks:
            fields = RECIPES[task].model_fields["training"].annotation.model_fields
            metric, metrics = (shown_default(fields[key].default) for key in ("metric", "metrics"))
            yield f"| `{task}` | {metric} | {metrics} |"
        yield from self.sections(
            [name for name, by in self.paths.items() if by.keys() == self.recipes.keys()]
        )
        for recipe, top in self.recipes.items():
            title = " and ".join(task for task, of in self.tasks.items() if of == recipe).capitalize()
            own = [key for key in top["properties"] if key not in every]
            yield from ("", f"## {title}", "", top["description"], "", *self.table(top, own, title))
            yield from self.sections([name for name, by in self.paths.items() if recipe in by])

    def shared(self, key: str) -> bool:
        """Whether a key is the same in all recipes."""
        first, *others = (recipe["properties"].get(key) for recipe in self.recipes.values())
        return all(other == first for other in others)

    def sections(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the lines of sections that are not described yet: description, paths, and keys.

        A section that extends another lists only the keys that differ.
        """
        for name in names:
            if name in self.described:
                continue
            paths = dict.fromkeys(path for in_recipe in self.paths[name].values() for path in in_recipe)
            section = self.whole["$defs"][name]
            description = " ".join(section["description"].split())
            yield from (
                "",
                f"### {name}",
                "",
                f"{description} In {', '.join(f'`{path}`' for path in paths)}.",
                "",
            )
            keys = list(section["properties"])
            if base := next((other for other in self.described if self.extends(name, other)), None):
                known = self.whole["$defs"][base]["properties"]
                keys = [key for key in keys if section["properties"][key] != known.get(key)]
                more = "; these are new or different:" if keys else "."
                yield from (f"It has the keys of [{base}](#{base.lower()}){more}", *[""] * bool(keys))
            if keys:
                yield from self.table(section, keys, name)
            self.described[name] = None

    def extends(self, name: str, other: str) -> bool:
        """Whether a section has all keys of another, with values of the same types."""
        own, known = (self.whole["$defs"][section]["properties"] for section in (name, other))
        same = own.keys() >= known.keys() and all(takes(own[key]) == takes(known[key]) for key in known)
        return same and len(known) > 2

    def table(self, section: dict[str, Any], keys: Iterable[str], title: str) -> Iterator[str]:
        """Yield a table of keys of a section, and after it tables of the parts that they can name."""
        yield "| key | values | default | meaning |"
        yield "|---|---|---|---|"
        values = {key: section["properties"][key] for key in keys}
        for key, value in values.items():
            required = key in section.get("required", [])
            default = "(required)" if required else shown_default(changed(value, self.whole))
            described = value if "description" in value else self.whole["$defs"][next(references(value))]
            yield f"| `{key}` | {takes(value)} | {default} | {first(described)} |"
        for key, value in values.items():
            if parts := [kind for kind in value.get("anyOf", []) if "name" in kind.get("properties", {})]:
                yield from ("", *self.choice(key, parts, title))

    def choice(self, key: str, parts: list[dict[str, Any]], title: str) -> Iterator[str]:
        """Yield a table of the parts that a key can name."""
        listed_at = next((section for listed, section in self.choices if listed == parts), None)
        if listed_at is not None:
            yield f"The choices of `{key}` are listed at [{listed_at}](#{listed_at.lower()})."
            return
        self.choices.append((parts, title))
        yield from (f"Choices of `{key}`:", "", "| name | description | options |", "|---|---|---|")
        for part in parts:
            yield f"| `{part['properties']['name']['const']}` | {first(part)} | {options(part)} |"


def find_paths(
    node: dict[str, Any],
    whole: dict[str, Any],
    path: str,
    recipe: str,
    paths: dict[str, dict[str, list[str]]],
) -> None:
    """Record the paths of each section in a recipe, in the order of the file."""
    for key, value in node["properties"].items():
        below = f"{path}.{key}" if path else key
        for name in dict.fromkeys(references(value)):
            known = paths.setdefault(name, {}).setdefault(recipe, [])
            if below not in known:
                known.append(below)
                find_paths(whole["$defs"][name], whole, below, recipe, paths)


def changed(value: dict[str, Any], whole: dict[str, Any]) -> Any:
    """Return the default of a key; of a section, only the keys that differ from its own defaults."""
    default = value["default"]
    if not isinstance(default, dict):
        return default
    for name in references(value):
        own = whole["$defs"][name]["properties"]
        if own.keys() == default.keys() and own.get("kind", {}).get("const") == default.get("kind"):
            default = {
                key: inner for key, inner in default.items() if bare(inner) != bare(own[key].get("default"))
            }
            break
    return default


def bare(value: Any) -> Any:
    """Return a part by its name alone."""
    return value.get("name", value) if isinstance(value, dict) else value


def references(value: Any) -> Iterator[str]:
    """Yield the sections that a value may be."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rsplit("/", 1)[1]
        for key in ("anyOf", "items"):
            yield from references(value.get(key))
    elif isinstance(value, list):
        for kind in value:
            yield from references(kind)


def takes(value: dict[str, Any]) -> str:
    """Return the values that a key takes, in words."""
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in value or "enum" in value:
        return " or ".join(f"`{name}`" for name in value.get("enum", [value.get("const")]))
    if "anyOf" in value:
        if len(value["anyOf"]) == 2 and value["anyOf"][1].get("items") == value["anyOf"][0]:
            return f"{takes(value['anyOf'][0])}; or a list of these"
        kinds = [takes(kind) for kind in value["anyOf"] if "name" not in kind.get("properties", {})]
        return " or ".join(dict.fromkeys(kinds))
    if value["type"] == "array":
        if "prefixItems" in value:
            return "[" + ", ".join(takes(item) for item in value["prefixItems"]) + "]"
        return f"a list of {takes(value['items'])}"
    kind = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
    return f"{kind.get(value['type'], value['type'])}{limits(value)}"


def limits(value: dict[str, Any]) -> str:
    """Return the range of a number."""
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {value[key]}".removesuffix(".0") for key, sign in words.items() if key in value]
    return f" ({', '.join(bounds)})" if bounds else ""


def shown_default(default: Any) -> str:
    """Return a default on one line; nothing for a section with its own defaults."""
    if isinstance(default, dict):
        default = {key: bare(value) for key, value in default.items()}
    return "" if default == {} else f"`{json.dumps(default)}`".replace('"', "")


def options(part: dict[str, Any]) -> str:
    """Return the options of a part with their defaults."""
    cells = [
        f"`{key}` = {shown_default(value['default'])}" if "default" in value else f"`{key}` (required)"
        for key, value in part["properties"].items()
        if key != "name"
    ]
    return ", ".join(cells)


def first(part: dict[str, Any]) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join(str(part.get("description", "")).split("\n\n")[0].split()).replace("|", "\\|")


def main() -> int:
    """Write the document, or with --check compare it."""
    if "--check" not in sys.argv[1:]:
        PLACE.write_text(reference(), encoding="utf-8")
    elif not PLACE.is_file() or PLACE.read_text(encoding="utf-8") != reference():
        print(f"{PLACE} is not up to date: run python {Path(__file__).name}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
