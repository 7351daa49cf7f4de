"""Sections of a recipe: attention blocks, and where they stand in a network."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, get_args

import torch
from pydantic import Field, ValidationError

from seq2attn.attention.blocks import BLOCKS
from seq2attn.attention.blocks.block import Place, keeping_channels
from seq2attn.errors import Seq2attnError
from seq2attn.recipe.grid_notes import grid_notes
from seq2attn.recipe.part_beside import PartBeside
from seq2attn.recipe.sections import Choice, Fault, Name, Part, Section, Size
from seq2attn.recipe.seq2seq_model import TOO_LARGE

PLACES: tuple[str, ...] = get_args(Place)


class AnyBlockRecipe(PartBeside):
    """A block of attention with its options."""

    block: Annotated[Part, Choice(BLOCKS)] = Field(
        description="Name of the block; its options stand beside it, or {name: ..., and its options}."
    )
    part_key: ClassVar[str] = "block"

    def misfit(self, channels: int) -> str | None:
        """Return why the block cannot have this number of channels; None if it can."""
        try:  # only its constructor knows which options can be combined
            with torch.device("meta"), contextlib.suppress(*TOO_LARGE):
                keeping_channels(self.block.make(BLOCKS, channels))
        except Seq2attnError as error:
            return str(error)
        return None


class BlockRecipe(AnyBlockRecipe):
    """A block of attention, and where it stands: {block: se}, {block: se, ratio: 8, stages: [2, 3]}."""

    stages: list[Size] | None = Field(None, description="Stages with the block, from 1; null = all.")
    every: Size = Field(1, description="Only every n-th unit of a stage has the block, from the n-th on.")
    at: Annotated[str, Name(lambda: PLACES)] | None = Field(
        None,
        description="residual: the last thing in a residual branch; middle: after its 3x3 convolution; "
        "after: behind a unit; between: behind a stage; replace: instead of a 3x3 convolution. null = the "
        "block's own place.",
    )

    @property
    def place(self) -> str:
        """Return where the block stands."""
        return self.at or BLOCKS[self.block.name].at

    def faults(self) -> Iterator[Fault]:
        """Find a block that replaces a convolution, at another place."""
        own = BLOCKS[self.block.name].at
        if own == "replace" and self.place != own:
            yield Fault("at", f"{self.block.name} stands in the place of a convolution: leave at out")


def block_faults(
    key: str, sections: Sequence[BlockRecipe], widths_at: Callable[[str], list[int] | None]
) -> Iterator[Fault]:
    """Find blocks in stages that there are none of, and options that do not fit.

    key: of the list of blocks; widths_at: returns the channels at a place, in each stage; None where there is
    no such place, which is another fault.
    """
    for index, section in enumerate(sections):
        path, widths = f"{key}.{index}", widths_at(section.place)
        if widths is None:
            continue
        numbers = section.stages or [*range(1, len(widths) + 1)]
        if (last := max(numbers)) > len(widths):
            yield Fault(f"{path}.stages", f"there are {len(widths)} stages, and none with number {last}")
            continue
        for number in numbers:
            try:  # only its constructor knows which options can be combined
                with torch.device("meta"), contextlib.suppress(*TOO_LARGE):
                    keeping_channels(section.block.make(BLOCKS, widths[number - 1]))
            except Seq2attnError as error:
                yield Fault(f"{path}.block", f"{error} (stage {number} has {widths[number - 1]} channels)")
                break


def readable_faults(
    network: type[Section], value: Any, error: ValidationError, *keys: str
) -> Iterator[Fault]:
    """Find the faults of a network with lists of blocks at these keys, of which some blocks are wrong by
    themselves: those of all others. Nothing if other keys are wrong, too."""
    if {line["loc"][0] for line in error.errors() if line["loc"]} - {*keys} or not isinstance(value, dict):
        return
    blocks, numbers = dict[str, list[BlockRecipe]](), dict[str, list[int]]()
    for key in keys:
        listed = value.get(key, [])
        if not isinstance(listed, list):
            return
        wrong = {line["loc"][1:2] for line in error.errors() if line["loc"][:1] == (key,)}
        numbers[key] = [number for number in range(len(listed)) if (number,) not in wrong]
        (kind,) = get_args(network.model_fields[key].annotation)
        blocks[key] = [kind.model_validate(listed[number]) for number in numbers[key]]
    try:
        bare = network.model_validate({**value, **{key: [] for key in keys}})
    except ValidationError as faulty:
        yield from (Fault(".".join(map(str, line["loc"])), line["msg"]) for line in faulty.errors())
        return
    for path, message in bare.model_copy(update=blocks).faults():
        key, _, rest = path.partition(".")
        number, _, below = rest.partition(".")
        yield Fault(f"{key}.{numbers[key][int(number)]}.{below}" if key in keys else path, message)


def notes_of(
    blocks: Sequence[BlockRecipe],
    strides: Sequence[int],
    widths: Callable[[str], Sequence[int]],
    sides: tuple[int, int],
) -> Iterator[str]:
    """Yield warnings of blocks that do not suit the grids of their stages, of the largest image."""
    for section in blocks:
        for number, (stride, channels) in enumerate(zip(strides, widths(section.place), strict=True), 1):
            if number in (section.stages or [number]):
                where = f"{section.block.name} in stage {number}"
                yield from grid_notes(section.block, channels, where, stride, sides)
