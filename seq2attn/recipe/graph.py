"""Sections of a recipe: a network of images that is written as a graph."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, create_model

from seq2attn.attention.blocks import BLOCKS
from seq2attn.layers.convolution import NORMS
from seq2attn.layers.graph_modules import Shape
from seq2attn.recipe.graph_plan import (
    ROW_MODULES,
    Plan,
    PlannedStyle,
    Scale,
    Written,
    WrittenEdit,
    WrittenReplacement,
    WrittenRow,
    reads_of,
)
from seq2attn.recipe.grid_notes import grid_notes
from seq2attn.recipe.markers import OneOrMore
from seq2attn.recipe.part_beside import PartBeside
from seq2attn.recipe.sections import Choice, Fault, Name, Part, Section, Size, fault, option_fields
from seq2attn.recipe.wording import shown
from seq2attn.recipe.yaml_source import parse

FOLDER = Path(__file__).parents[1] / "graphs"
MODULE = "What the row does; options stand beside the name, or {name: ..., and its options}."
NORM = "Norm of convolutions. masked_batch: batch norm whose statistics leave the padding of images out."


def shipped_graphs() -> dict[str, Path]:
    """Return the files of the graphs that ship with seq2attn, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def _row_name(value: Any) -> Any:
    if isinstance(value, str) and not (value.isidentifier() and value.isascii()):
        raise fault(f"expected letters, digits and _, a letter first; got {shown(value)}")
    return value


def _references(value: Any) -> Any:
    """Refuse numbers of rows but -1."""
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str) and (isinstance(item, bool) or item != -1):
            raise fault(
                "expected the name of a row, or -1 for the row before (other numbers would change when a row "
                f"is inserted), or a list of these; got {shown(value)}"
            )
    return value


RowName = Annotated[str, BeforeValidator(_row_name)]
References = Annotated[int | str | list[int | str], BeforeValidator(_references)]


class AnyRowRecipe(PartBeside):
    """A row with the name of its module."""

    module: Annotated[Part, Choice(ROW_MODULES)] = Field(description=MODULE)
    part_key: ClassVar[str] = "module"

    @classmethod
    def options_beside(cls, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """See the base class; also say what a module needs no number for."""
        for key, why in (("size", "the channels are those that it reads"), ("repeat", "it stands once")):
            if key in options and name in ROW_MODULES and key not in option_fields(ROW_MODULES[name]):
                raise fault(f"{name} has no {key}: {why}; leave {key} out")
        return options


class _Row(AnyRowRecipe):
    name: RowName | None = Field(
        None,
        description="Name of the row, by which others read it and its weights are found; null = that of the "
        "last row above with a name, _ and the module.",
    )

    def written(self, path: str) -> WrittenRow:
        """Return the row for a plan, with its path in the recipe."""
        reads = getattr(self, "from")
        return WrittenRow(self.name, self.module, reads if isinstance(reads, list) else [reads], path)


if TYPE_CHECKING:
    RowRecipe = _Row
else:  # `from` is a word of Python: no class statement can have it as a field
    RowRecipe = create_model(
        "RowRecipe",
        __base__=_Row,
        __module__=__name__,
        __doc__="A row of a graph: {name: c5, module: c3, size: 1024, repeat: 3}.",
        **{
            "from": (
                References,
                Field(
                    -1,
                    description="Name of the row above that it reads; -1 = the row before, for the first row "
                    "the image; a list for modules that read several.",
                ),
            )
        },
    )


class InsertRecipe(AnyRowRecipe):
    """A row to be put into a graph: {after: c5, module: cbam}."""

    after: str | None = Field(
        None,
        description="Row behind which it stands: all that read that row now read this one, and outputs, too. "
        "A second one after the same row stands behind the first.",
    )
    before: str | None = Field(
        None, description="Row before which it stands: only that row reads it. Either after or before."
    )
    name: RowName | None = Field(
        None, description="Name of the row; null = c5_cbam for cbam after c5, cbam_c5 before it."
    )

    def written(self, path: str) -> WrittenEdit:
        """Return the edit for a plan, with its path in the recipe."""
        return WrittenEdit(WrittenRow(self.name, self.module, [], path), self.after, self.before)

    def faults(self) -> Iterator[Fault]:
        """Find a row without a place, and modules that read several rows."""
        if (self.after is None) == (self.before is None):
            yield Fault("", "expected either after or before, with the name of a row")
        if reads_of(self.module)[0] > 1:
            yield Fault("module", f"{self.module.name} reads several rows, and an inserted row reads one")


class ReplaceRecipe(AnyRowRecipe):
    """Another module in the place of rows: {rows: [c2, c3, c4, c5], module: cbam}."""

    rows: Annotated[list[str], Field(min_length=1), OneOrMore()] = Field(
        description="Names of the rows. They keep their names and what they read."
    )

    def written(self, path: str) -> WrittenReplacement:
        """Return the edit for a plan, with its path in the recipe."""
        return WrittenReplacement(self.rows, self.module, path)


class ScaleRecipe(Section):
    """What sizes and repeats of rows are multiplied by. Options of attention blocks are taken as they are."""

    depth: float | None = Field(
        None, gt=0, le=16, description="Factor of repeats above 1; null = that of the base, or 1."
    )
    width: float | None = Field(
        None, gt=0, le=16, description="Factor of sizes; null = that of the base, or 1."
    )
    divisor: Size | None = Field(
        None, description="Sizes are rounded up to multiples of it; null = that of the base, or 1."
    )


InsideBlocks = Annotated[list[Annotated[Part, Choice(BLOCKS)]], OneOrMore()]


class InsideRecipe(Section):
    """Attention blocks inside modules: at the end of each bottleneck, before its shortcut is added."""

    c3: InsideBlocks = Field([], description="Blocks inside each c3.")
    c2f: InsideBlocks = Field([], description="Blocks inside each c2f.")
    bottleneck: InsideBlocks = Field([], description="Blocks inside each bottleneck.")


class GraphRecipe(Section):
    """A network that is written as a graph: one that ships, with edits, or rows of your own."""

    kind: Literal["graph"] = Field(description="Type of network.")
    base: Annotated[str, Name(shipped_graphs)] | None = Field(
        None, description="Name of a graph that ships; null = rows of your own."
    )
    scale: ScaleRecipe = Field(ScaleRecipe(), description="Depth and width of the network.")
    rows: list[RowRecipe] = Field([], description="Rows of your own, from the image on.")
    outputs: list[str] = Field(
        [],
        description="Names of the rows that are returned, from fine to coarse; [] = as in the base, or the "
        "last row.",
    )
    insert: Annotated[list[InsertRecipe], OneOrMore()] = Field([], description="Rows to be inserted.")
    replace: Annotated[list[ReplaceRecipe], OneOrMore()] = Field([], description="Rows to be replaced.")
    inside: InsideRecipe = Field(InsideRecipe(), description="Attention blocks inside modules.")
    norm: Annotated[str, Name(lambda: NORMS)] = Field("batch", description=NORM)
    takes_blocks: ClassVar[bool] = False  # in a list with places, as `bench blocks` gives them

    @property
    def scaling(self) -> Scale:
        """Return the scale of the rows."""
        return _scaling(self.base, self.scale)

    @property
    def style(self) -> PlannedStyle:
        """Return what all rows have in common."""
        return PlannedStyle(self.norm, dict(self.inside))

    def plan(self) -> Plan:
        """Return the rows with their shapes, and all faults."""
        plan = self.wired()
        plan.finish(self.scaling, self.style)
        return plan

    def wired(self, ships: bool = False) -> Plan:
        """Return the rows after all edits, without shapes.

        ships: whether this graph does: no key of a recipe is then the place of its faults.
        """

        def path(key: str, number: int) -> str:
            return "" if ships else f"{key}.{number}"

        written = Written(
            [row.written(path("rows", number)) for number, row in enumerate(self.rows)],
            [edit.written(path("replace", number)) for number, edit in enumerate(self.replace)],
            [edit.written(path("insert", number)) for number, edit in enumerate(self.insert)],
            self.outputs,
        )
        return written.wired(_plan_of(self.base))

    def faults(self) -> Iterator[Fault]:
        """Find rows that cannot be found, or do not fit what they read."""
        if self.base is not None and self.rows:
            yield Fault("rows", "expected either base or rows; a base is edited by insert and replace")
        elif self.base is None and not self.rows:
            yield Fault("", f"expected rows, or the name of a graph as base: {' or '.join(shipped_graphs())}")
        else:
            yield from self.plan().faults

    @classmethod
    def written_faults(cls, value: Any, error: ValidationError) -> Iterator[Fault]:
        """See the base class: those between the rows that can be read."""
        wrong = {line["loc"][0] for line in error.errors() if line["loc"]}
        base, rows = (value.get(key) for key in ("base", "rows")) if isinstance(value, dict) else (None, None)
        if "base" in wrong or (base is None) == (not rows) or not isinstance(rows or [], list):
            return
        written = Written(
            [_readable_row(row, f"rows.{number}") for number, row in enumerate(rows or [])],
            [edit.written(path) for path, edit in _valid(ReplaceRecipe, "replace", value)],
            [edit.written(path) for path, edit in _valid(InsertRecipe, "insert", value)],
            value.get("outputs", []) if "outputs" not in wrong else [],
        )
        others = {"scale", "inside", "norm"} & value.keys() - wrong
        basis = next(iter(shipped_graphs()))
        sound = cls.model_validate({"kind": "graph", "base": basis, **{key: value[key] for key in others}})
        plan = written.wired(_plan_of(base))
        plan.finish(_scaling(base, sound.scale), sound.style)
        yield from plan.faults

    # ---- what other sections ask of a network -----------------------------------------------------------

    @property
    def output_size(self) -> int:
        """Return the channels of the last output."""
        return self._last.channels

    @property
    def stride(self) -> int:
        """Return how many pixels there are between two positions of the last output."""
        return self._last.stride

    @property
    def strides(self) -> list[int]:
        """Return how many pixels there are between two positions of each output."""
        return [output.known_shape.stride for output in self.plan().outputs]

    @property
    def _last(self) -> Shape:
        return self.plan().outputs[-1].known_shape

    def grid_notes(self, height: int, width: int) -> Iterator[str]:
        """Yield warnings of blocks that do not suit their grid, for the largest image."""
        for node in self.plan().nodes:
            if node.module is not None:
                where, shape = f"{node.module.name} in row {node.name}", node.known_shape
                yield from grid_notes(node.module, shape.channels, where, shape.stride, (height, width))


@cache
def shipped_graph(name: str) -> GraphRecipe:
    """Return a graph that ships with seq2attn."""
    tree = parse(shipped_graphs()[name].read_text(encoding="utf-8")).tree
    return GraphRecipe.model_validate({"kind": "graph", **tree})


def _plan_of(base: str | None) -> Plan | None:
    return None if base is None else shipped_graph(base).wired(ships=True)


def _scaling(base: str | None, scale: ScaleRecipe) -> Scale:
    """Return the scale of a base with what a recipe sets."""
    above = Scale() if base is None else shipped_graph(base).scaling
    return above._replace(**scale.model_dump(exclude_none=True))


def _readable_row(value: Any, path: str) -> WrittenRow:
    """Return a row for a plan. Of one with faults, its name and what it reads remain, if they are right."""
    try:
        return RowRecipe.model_validate(value).written(path)
    except ValidationError as error:
        wrong = {line["loc"][0] for line in error.errors() if line["loc"]}
        sound = (
            {key: value[key] for key in {"name", "from"} & value.keys() - wrong}
            if isinstance(value, dict)
            else {}
        )
        reads = sound.get("from", [] if "from" in wrong else -1)
        return WrittenRow(sound.get("name"), None, reads if isinstance(reads, list) else [reads], path)


def _valid(kind: type[Any], key: str, graph: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the edits of a graph that are valid by themselves, each with its path."""
    given = graph.get(key, [])
    for number, value in enumerate(given if isinstance(given, list) else [given]):
        try:
            yield f"{key}.{number}", kind.model_validate(value)
        except ValidationError:
            continue
