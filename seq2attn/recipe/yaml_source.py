"""Parse the YAML of a recipe: plain values, with the line of each.

The YAML dialect has few surprises: only true and false are booleans (`no` can be a language), 1e-3 is a
number and 1e3 a whole one, dates and base-60 numbers are text, and a key that occurs twice is a fault.
"""

import re
from typing import Any, NamedTuple

import yaml

Keys = tuple[str | int, ...]

LONGEST = 1 << 18  # characters of a recipe; PyYAML reads this many in seconds
MOST_VALUES = 20_000  # of a recipe, those of aliases counted each time
LARGEST = 10**10  # whole number; no size, number of steps or seed is larger

_MERGE = "tag:yaml.org,2002:merge"

_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|\.[0-9]+([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+)$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)


class SourceFault(NamedTuple):
    """A fault of the YAML itself."""

    line: int
    path: Keys
    message: str


class Source(NamedTuple):
    """Plain values, the line of each key (from 1; None = the command line), and the faults of the YAML."""

    tree: Any
    lines: dict[Keys, int | None]
    faults: list[SourceFault]

    def line(self, path: Keys) -> int | None:
        """Return the line of a key, or of the nearest key above it that has a line."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Quotes texts that _Loader would not read as text; puts short lists on one line."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        """Write values out each time, also if they are the same object."""
        return True


for _tag, _pattern, _first in [
    ("bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("merge", re.compile(r"<<$"), "<"),
]:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, list(_first))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    """Return a number. 1e3 is a whole one: it has no point."""
    value: float = loader.construct_yaml_float(node)
    is_whole = "." not in node.value and abs(value) <= LARGEST and value.is_integer()
    return int(value) if is_whole else value


_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Dumper.add_representer(  # PyYAML takes odd line breaks for plain ones unless they are escaped
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    ),
)
_Dumper.add_representer(
    list,
    lambda dumper, items: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", items, flow_style=not any(isinstance(item, dict | list) for item in items)
    ),
)


class _TooManyValuesError(Exception):
    """A recipe has more than MOST_VALUES values."""


def parse(text: str) -> Source:
    """Parse a YAML text. Faults are returned, never raised."""
    faults: list[SourceFault] = []
    lines: dict[Keys, int | None] = {(): 1}
    if len(text) > LONGEST:
        message = f"has more than {LONGEST:,} characters, too many for a recipe: is this the right file?"
        return Source(None, lines, [SourceFault(1, (), message)])
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        tree = None if node is None else _Values(loader, lines, faults).value(node, (), ())
    except yaml.MarkedYAMLError as error:
        faults.append(_syntax(error))
        tree = None
    except _TooManyValuesError as error:
        faults.append(SourceFault(error.args[0], (), f"has more than {MOST_VALUES:,} values (with aliases)"))
        tree = None
    except RecursionError:
        faults.append(SourceFault(1, (), "is nested too deeply for a recipe"))
        tree = None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        faults.append(SourceFault(line, (), f"the character {chr(error.character)!r} cannot stand in YAML"))
        tree = None
    return Source(tree, lines, faults)


def dump(tree: Any) -> str:
    """Return values as YAML, which `parse` reads back as the same values."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def dump_line(value: Any) -> str:
    """Return a value as YAML on one line."""
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
        default_flow_style=True,
    )
    return text.removesuffix("\n")


def _syntax(error: yaml.MarkedYAMLError) -> SourceFault:
    mark = error.problem_mark or error.context_mark
    problem = f"column {mark.column + 1 if mark else 1}: {error.problem or error.context or 'not YAML'}"
    if "'\\t'" in problem:
        problem += "; indent with spaces, not with tabs"
    return SourceFault(mark.line + 1 if mark else 1, (), problem)


class _Values:
    """Turns nodes into values, and records their lines."""

    def __init__(self, loader: _Loader, lines: dict[Keys, int | None], faults: list[SourceFault]) -> None:
        self.loader, self.lines, self.faults = loader, lines, faults
        self.count = 0

    def value(self, node: yaml.Node, path: Keys, above: tuple[yaml.Node, ...]) -> Any:
        """Return the value of a node with this path, below the nodes `above`."""
        if node in above:
            self.fault(node, path, "is an alias of a node that contains it")
            return None
        above = (*above, node)
        self.tally(node)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, above)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self.lines[(*path, index)] = item.start_mark.line + 1
                items.append(self.value(item, (*path, index), above))
            return items
        return self.scalar(node, path)

    def scalar(self, node: yaml.Node, path: Keys) -> Any:
        """Return a text, number, boolean or null."""
        kind = node.tag.rpartition(":")[2]
        try:
            value = self.loader.construct_object(node)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            value = node  # PyYAML's errors for `!!int abc`
        if isinstance(value, int) and abs(value) > LARGEST:
            self.fault(
                node,
                path,
                f"expected a number of at most {LARGEST:,}, got one of {len(str(node.value))} digits",
            )
        elif not isinstance(value, str | int | float | None):
            self.fault(
                node,
                path,
                f"expected text, a number, true, false or null, got {kind} {str(node.value)[:40]!r}",
            )
        else:
            return value
        return None

    def mapping(self, node: yaml.MappingNode, path: Keys, above: tuple[yaml.Node, ...]) -> dict[str, Any]:
        """Return the values of a mapping. Its own keys take precedence over those merged in with <<."""
        values: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in sorted(node.value, key=lambda pair: pair[0].tag != _MERGE):
            if key_node.tag == _MERGE:
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in reversed(sources):
                    self.tally(source)
                    if isinstance(source, yaml.MappingNode) and source not in above:
                        merged |= self.mapping(source, path, (*above, source))
                    else:
                        self.fault(key_node, path, "<< merges a mapping, or a list of them")
            elif not isinstance(key_node, yaml.ScalarNode):
                self.fault(key_node, path, "a key must be a word")
            else:
                key = str(key_node.value)
                line = key_node.start_mark.line + 1
                if key in values:
                    first = self.lines[(*path, key)]
                    self.fault(key_node, (*path, key), f"occurs twice (first in line {first})")
                    continue
                self.lines[(*path, key)] = line
                values[key] = self.value(value_node, (*path, key), above)
        return {**merged, **values}

    def tally(self, node: yaml.Node) -> None:
        """Count a value. Aliases of aliases can stand for billions of them."""
        self.count += 1
        if self.count > MOST_VALUES:
            raise _TooManyValuesError(node.start_mark.line + 1)

    def fault(self, node: yaml.Node, path: Keys, message: str) -> None:
        """Record a fault at a node."""
        self.faults.append(SourceFault(node.start_mark.line + 1, path, message))
