"""Read graphs whose rows name each other by number, as YOLOv5 and YOLOv8 have them, and give the rows names.

A row is [from, number, module, args]. Values are only read, never evaluated.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from seq2attn.attention.blocks import BLOCKS
from seq2attn.errors import Seq2attnError
from seq2attn.recipe.graph import GraphRecipe
from seq2attn.recipe.reading import LocatedFault, RecipeError
from seq2attn.recipe.wording import shown, unknown
from seq2attn.recipe.yaml_source import Keys, Source, dump_line, parse
from seq2attn.runtime import files

HEADS = ("Detect", "Segment", "Pose", "OBB", "Classify")
Options = dict[str, Any]


class _NotReadError(Seq2attnError):
    """Something in a row that has no meaning here."""


class _Row(NamedTuple):
    """A row that has been read: its numbers of rows, and what it is here."""

    reads: list[int]
    module: str
    options: Options
    stride: int
    head: bool  # whether it is in the section `head`


def import_graph(path: str | Path, scale: str | None = None) -> dict[str, Any]:
    """Return the section of a backbone for a file with rows of numbers.

    scale: one of the file's `scales`, if it has several. RecipeError with all faults, each with its line.
    """
    file = Path(path)
    try:
        source = parse(files.read(file).decode("utf-8-sig"))
    except OSError as error:
        raise RecipeError([LocatedFault(str(file), 0, "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise RecipeError([LocatedFault(str(file), 0, "", "is not UTF-8 text")]) from error
    importer = _Importer(source, str(file))
    for fault in source.faults:
        importer.faults.append(LocatedFault(str(file), fault.line, "", fault.message))
    graph = importer.graph(scale)
    if not importer.faults:
        importer.check(graph)
    if importer.faults:
        raise RecipeError(sorted(importer.faults, key=lambda fault: fault.line or 0))
    return graph


def written(graph: dict[str, Any]) -> str:
    """Return a graph as YAML, a line for each row."""
    rows = [f"  - {dump_line(row)}" for row in graph["rows"]]
    first, last = (f"{key}: {dump_line(graph[key])}" for key in ("scale", "outputs"))
    return "\n".join([f"kind: {graph['kind']}", first, "rows:", *rows, last, ""])


class _Importer:
    """Reads the rows of a file, and notes its faults."""

    def __init__(self, source: Source, file: str) -> None:
        self.source, self.file = source, file
        self.faults = list[LocatedFault]()
        self.rows = list[_Row]()
        self.outputs = list[int]()
        self.places = list[Keys]()  # of the rows in the file

    def fault(self, at: Keys, message: str) -> None:
        """Note a fault at a key."""
        path = ".".join(map(str, at))
        self.faults.append(LocatedFault(self.file, self.source.line(at), path, message))

    def graph(self, scale: str | None) -> dict[str, Any]:
        """Return the section."""
        tree = self.source.tree
        if not isinstance(tree, dict) or not isinstance(tree.get("backbone"), list):
            if not self.source.faults:
                self.fault((), "expected a section backbone with rows [from, number, module, args]")
            return {}
        factors, largest = self.scale(tree, scale)
        for section in ("backbone", "head"):
            rows = tree.get(section) or []
            for number, row in enumerate(rows if isinstance(rows, list) else []):
                self.places.append((section, number))
                try:
                    self.read(row, section == "head", largest)
                except _NotReadError as error:
                    self.fault((section, number), str(error))
                    self.rows.append(_Row([], "", {}, 1, section == "head"))
        if self.faults:
            return {}
        names = self.names()
        return {
            "kind": "graph",
            "scale": factors,
            "rows": [self.written(number, names) for number in range(len(self.rows))],
            "outputs": [names[number] for number in self.outputs or [len(self.rows) - 1]],
        }

    def check(self, graph: dict[str, Any]) -> None:
        """Note what does not fit between the rows."""
        try:
            GraphRecipe.model_validate(graph)
        except ValidationError as error:
            for line in error.errors():
                key, number = [*line["loc"], 0][:2]
                self.fault(self.places[int(number)] if key == "rows" else (), line["msg"])

    def scale(self, tree: Mapping[str, Any], name: str | None) -> tuple[dict[str, Any], float]:
        """Return depth, width and divisor, and the largest size before it is multiplied."""
        scales = tree.get("scales")
        values: Any = [tree.get("depth_multiple", 1.0), tree.get("width_multiple", 1.0)]
        if isinstance(scales, dict):
            if name not in scales:
                self.fault(("scales",), unknown(str(name), scales, "scale ") + ": choose one by --scale")
                return {}, 0
            values = scales[name]
        elif name is not None:
            self.fault((), f"has no scales, and so no {name}: leave --scale out")
        if not isinstance(values, list) or len(values) < 2 or not all(map(_is_number, values)):
            self.fault(("scales",), f"expected [depth, width, largest size], got {shown(values)}")
            return {}, 0
        return {"depth": values[0], "width": values[1], "divisor": 8}, [*values, float("inf")][2]

    def read(self, row: Any, head: bool, largest: float) -> None:
        """Add a row."""
        if not isinstance(row, list) or len(row) != 4 or not isinstance(row[3], list):
            raise _NotReadError(f"expected [from, number, module, args], got {shown(row)}")
        reference, count, name, args = row
        index = len(self.rows)
        reads = []
        for number in reference if isinstance(reference, list) else [reference]:
            if not isinstance(number, int) or isinstance(number, bool):
                raise _NotReadError(f"expected numbers of rows, got {shown(reference)}")
            absolute = index + number if number < 0 else number
            if not (0 <= absolute < index or (index == 0 and number == -1)):
                raise _NotReadError(f"reads row {number}, which is none of the {index} above it")
            reads.append(absolute)
        if name in HEADS:
            self.outputs = reads
            return
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise _NotReadError(f"expected how often the module stands there, got {shown(count)}")
        module, options = _module(str(name), args)
        if "size" in options and largest < options["size"]:
            options["size"] = int(largest)
        if count > 1:
            if module not in ("c3", "c2f", "bottleneck"):
                raise _NotReadError(f"{module} stands once in a row: write {count} rows")
            options["repeat"] = count
        stride = max((self.rows[number].stride for number in reads if number >= 0), default=1)
        stride = stride * options.get("stride", 1) // options.get("factor", 2 if module == "upsample" else 1)
        self.rows.append(_Row(reads, module, options, max(1, stride), head))

    def names(self) -> list[str]:
        """Return a name for each row, by what it is and by the power of two that its stride is."""
        names = list[str]()
        for number, row in enumerate(self.rows):
            level = row.stride.bit_length() - 1
            stem = {"upsample": "up", "concat": "join"}.get(row.module, row.module)
            if number in self.outputs:
                stem = "n" if row.head else "c"
            elif row.module == "conv" and row.options.get("stride", 1) > 1:
                stem = "down" if row.head else "p"
            elif row.module == "conv" and row.head:
                stem = "lateral"
            elif row.module in ("c3", "c2f"):
                stem = "m" if row.head else "c"
            name = "stem" if not number else row.module if row.module == "sppf" else f"{stem}{level}"
            numbered = (f"{name}_{count}" for count in range(2, len(self.rows) + 2))
            names.append(next(free for free in (name, *numbered) if free not in names))
        return names

    def written(self, number: int, names: list[str]) -> dict[str, Any]:
        """Return a row as a recipe has it."""
        row = self.rows[number]
        reads: Any = [-1 if read == number - 1 else names[read] for read in row.reads]
        written = {"name": names[number], "module": row.module}
        if reads != [-1]:
            written["from"] = reads if len(reads) > 1 else reads[0]
        return {**written, **row.options}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _module(name: str, args: list[Any]) -> tuple[str, Options]:
    """Return the module of a row and its options. _NotReadError if it, or one of them, is unknown."""
    if name in _ARGUMENTS:
        module, read = _ARGUMENTS[name]
        return module, read(args)
    if name.lower() in BLOCKS:
        if len(args) > 1 or not all(map(_is_number, args)):
            raise _NotReadError(
                f"args of {name}: only a number of channels is read, which is inferred; give {name.lower()} "
                "its options by their names afterwards"
            )
        return name.lower(), {}
    raise _NotReadError(unknown(name, [*_ARGUMENTS, *HEADS], "module "))


def _numbers(args: list[Any], names: list[str], defaults: list[Any]) -> Options:
    """Return args as options, without those that have the values that they have here anyway."""
    if len(args) > len(names):
        raise _NotReadError(f"expected at most {len(names)} args ({', '.join(names)}), got {shown(args)}")
    options = dict(zip(names, [*args, *defaults[len(args) :]], strict=True))
    for key, value in options.items():
        if not (isinstance(value, bool) if key == "shortcut" else _is_number(value) or value is None):
            kind = "true or false" if key == "shortcut" else "a number"
            raise _NotReadError(f"{key}: expected {kind}, got {shown(value)}")
    return options


def _conv(args: list[Any]) -> Options:
    options = _numbers(
        [None if value == "None" else value for value in args],
        ["size", "kernel", "stride", "padding", "groups"],
        [None, 1, 1, None, 1],
    )
    padding, middle = options.pop("padding"), (options["kernel"] - 1) // 2
    if padding is not None and padding != middle:
        raise _NotReadError(f"a padding of {padding}: here a kernel of {options['kernel']} has {middle}")
    return _without(options, kernel=3, stride=1, groups=1)


def _csp(shortcut: bool) -> Callable[[list[Any]], Options]:
    def read(args: list[Any]) -> Options:
        names = ["size", "shortcut", "groups", "expansion"]
        return _without(
            _numbers(args, names, [None, shortcut, 1, 0.5]), shortcut=True, groups=1, expansion=0.5
        )

    return read


def _sppf(args: list[Any]) -> Options:
    return _numbers(args, ["size", "kernel"], [None, 5])


def _upsample(args: list[Any]) -> Options:
    if (
        len(args) != 3
        or args[0] not in (None, "None")
        or args[2] != "nearest"
        or not isinstance(args[1], int)
    ):
        raise _NotReadError(f"expected the args [None, 2, nearest], got {shown(args)}")
    return {} if args[1] == 2 else {"factor": args[1]}


def _concat(args: list[Any]) -> Options:
    if args not in ([1], []):
        raise _NotReadError(f"channels are concatenated, axis 1; got {shown(args)}")
    return {}


def _without(options: Options, **defaults: Any) -> Options:
    return {key: value for key, value in options.items() if key not in defaults or value != defaults[key]}


_ARGUMENTS: dict[str, tuple[str, Callable[[list[Any]], Options]]] = {
    "Conv": ("conv", _conv),
    "C3": ("c3", _csp(True)),
    "C2f": ("c2f", _csp(False)),
    "Bottleneck": ("bottleneck", _csp(True)),
    "SPPF": ("sppf", _sppf),
    "Concat": ("concat", _concat),
    "nn.Upsample": ("upsample", _upsample),
}
