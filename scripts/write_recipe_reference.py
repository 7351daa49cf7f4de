"""Writes docs/recipes.md, the reference of all keys of a recipe, from the recipe's own schema.

python scripts/write_recipe_reference.py            writes docs/recipes.md
python scripts/write_recipe_reference.py --check    exit status 1 if docs/recipes.md is not up to date
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seq2attn.recipe import head, schema, shipped

PLACE = Path(__file__).parents[1] / "docs" / "recipes.md"
HEAD = """\
# Recipes

<!-- Written by scripts/write_recipe_reference.py from the recipe's schema: do not edit. -->

A recipe is one YAML file that says all a run is made from. It says only what is special: the rest has the
defaults below. `seq2attn check RECIPE` finds every fault of it at once, each with its path, its line and a
guess, and then tries the recipe out; `seq2attn schema` prints its JSON schema, for completion in an editor.

- **On the command line**, `key=value` sets any key by its dotted path: `training.learning_rate=1e-4`,
  `data.train.0.limit=1000` (entries of a list are numbered from 0), `data.dev={files: [dev.de, dev.en]}`
  (a whole section). The value is YAML, and goes through the same checks as the file.
- **Paths** are relative to the recipe's folder; on the command line, to the working directory. `${NAME}` in
  the section `data` is the environment variable NAME.
- **A part** (a scorer, a schedule, ...) is given by its name, `score: additive`, or with its options,
  `score: {name: additive, size: 128}`.
- **YAML** as one means it: only `true` and `false` are booleans (`no` is Norwegian), `1e-3` is a number.
"""


def reference() -> str:
    """The whole document."""
    whole = schema()
    lines = [HEAD, "## Recipes that ship", "", "| name | what | how long | score |", "|---|---|---|---|"]
    for name, path in shipped().items():
        what, how_long, score = head(path)
        cells = (what, how_long.removeprefix("How long: "), score.removeprefix("Score: "))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += ["", "## All keys", ""]
    lines += table(whole, whole)
    places: dict[str, list[str]] = {}
    find_places(whole, whole, "", places)
    for name, paths in places.items():
        section = whole["$defs"][name]
        lines += [
            "",
            f"### {name}",
            "",
            f"{section['description']} At {', '.join(f'`{path}`' for path in paths)}.",
        ]
        lines.append("")
        lines += table(section, whole)
    return "\n".join(lines) + "\n"


def table(section: dict[str, Any], whole: dict[str, Any]) -> Iterator[str]:
    """The keys of a section, and after them the parts that some of them choose from."""
    yield "| key | takes | default | meaning |"
    yield "|---|---|---|---|"
    for key, value in section["properties"].items():
        required = key in section.get("required", [])
        default = "(required)" if required else shown_default(value["default"])
        told = value if "description" in value else whole["$defs"][next(references(value))]
        yield f"| `{key}` | {takes(value)} | {default} | {told['description']} |"
    for key, value in section["properties"].items():
        if parts := [kind for kind in value.get("anyOf", []) if "name" in kind.get("properties", {})]:
            yield ""
            yield f"What `{key}` chooses from:"
            yield ""
            yield "| name | what | options |"
            yield "|---|---|---|"
            for part in parts:
                yield f"| `{part['properties']['name']['const']}` | {first(part)} | {options(part)} |"


def find_places(node: dict[str, Any], whole: dict[str, Any], path: str, places: dict[str, list[str]]) -> None:
    """Notes for each section at which paths it stands, in the order of the file."""
    for key, value in node["properties"].items():
        below = f"{path}.{key}" if path else key
        for name in dict.fromkeys(references(value)):
            known = places.setdefault(name, [])
            if below not in known:
                known.append(below)
                find_places(whole["$defs"][name], whole, below, places)


def references(value: Any) -> Iterator[str]:
    """The sections that a value may be."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rsplit("/", 1)[1]
        for key in ("anyOf", "items"):
            yield from references(value.get(key))
    elif isinstance(value, list):
        for kind in value:
            yield from references(kind)


def takes(value: dict[str, Any]) -> str:
    """The kinds of values that a key takes, in words."""
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in value or "enum" in value:
        return " or ".join(f"`{name}`" for name in value.get("enum", [value.get("const")]))
    if "anyOf" in value:
        kinds = [takes(kind) for kind in value["anyOf"] if "name" not in kind.get("properties", {})]
        return " or ".join(dict.fromkeys(kinds))
    if value["type"] == "array":
        if "prefixItems" in value:
            return "[" + ", ".join(takes(item) for item in value["prefixItems"]) + "]"
        return f"a list of {takes(value['items'])}"
    kind = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
    return f"{kind.get(value['type'], value['type'])}{limits(value)}"


def limits(value: dict[str, Any]) -> str:
    """The range of a number."""
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {value[key]}".removesuffix(".0") for key, sign in words.items() if key in value]
    return f" ({', '.join(found)})" if found else ""


def shown_default(default: Any) -> str:
    """A default on one line; that of a section is told by the section."""
    return "" if isinstance(default, dict) else f"`{json.dumps(default)}`".replace('"', "")


def options(part: dict[str, Any]) -> str:
    """The options of a part with their defaults."""
    found = [
        f"`{key}` = {shown_default(value['default'])}" if "default" in value else f"`{key}` (required)"
        for key, value in part["properties"].items()
        if key != "name"
    ]
    return ", ".join(found)


def first(part: dict[str, Any]) -> str:
    """The first paragraph of a part's docstring, on one line."""
    return " ".join(str(part.get("description", "")).split("\n\n")[0].split()).replace("|", "\\|")


def main() -> int:
    """Writes the document, or with --check compares it."""
    if "--check" not in sys.argv[1:]:
        PLACE.write_text(reference(), encoding="utf-8")
    elif not PLACE.is_file() or PLACE.read_text(encoding="utf-8") != reference():
        print(f"{PLACE} is not up to date: run python {Path(__file__).name}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
