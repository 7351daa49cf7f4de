"""Write the table of blocks into docs/blocks.md, from the classes themselves.

python scripts/write_block_table.py            write it
python scripts/write_block_table.py --check    exit status 1 if docs/blocks.md is not up to date
"""

import inspect
import sys
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import torch

from seq2attn.attention.blocks import BLOCKS, Block

PLACE = Path(__file__).parents[1] / "docs" / "blocks.md"
BEGIN = "<!-- Written by scripts/write_block_table.py from the blocks themselves: do not edit. -->\n"
END = "<!-- end of what is written -->\n"


def table() -> str:
    """Return a row for each block."""
    lines = [
        "| name | what it computes | maps | place | parameters | options, the default first | source |",
        "|---|---|---|---|---|---|---|",
        *(row(name, block) for name, block in BLOCKS.items()),
    ]
    return "\n".join(lines) + "\n"


def row(name: str, block: type[Block]) -> str:
    """Return what the class and a block of 64 channels say."""
    made = block(64).eval()
    maps = made.look(torch.zeros(1, 64, 8, 8)).maps
    kinds = ", ".join(name if name == map.kind else f"{name} ({map.kind})" for name, map in maps.items())
    summary = " ".join((inspect.getdoc(block) or "").split("\n\n")[0].split()).rstrip(".")
    summary += "; the identity at the start" if block.identity_at_start else ""
    count = sum(parameter.numel() for parameter in made.parameters())
    cells = (summary, kinds or "none", block.at, f"{count:,}", options(block) or "none", block.paper)
    return f"| `{name}` | {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def options(block: type[Block]) -> str:
    """Return the options of a recipe with their values."""
    parameters = inspect.signature(block, eval_str=True).parameters.values()
    return "; ".join(
        f"`{parameter.name}` {', '.join(map(written, values(parameter)))}"
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    )


def values(parameter: inspect.Parameter) -> list[Any]:
    """Return the default, and the other choices if they are few, or null beside numbers."""
    annotation, default = parameter.annotation, parameter.default
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    choices = (None,) if NoneType in get_args(annotation) else choices
    return [default, *(choice for choice in choices if choice != default)]


def written(value: Any) -> str:
    """Return a value as YAML has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(written, value))}]"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def document() -> str:
    """Return docs/blocks.md with the table as it should be."""
    before, rest = PLACE.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PLACE.write_text(document(), encoding="utf-8")
    elif PLACE.read_text(encoding="utf-8") != document():
        sys.exit(f"{PLACE} is not up to date: run {Path(__file__).name}")
