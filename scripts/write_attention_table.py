"""Writes the table of what goes with what into docs/attention.md, from the parts themselves.

python scripts/write_attention_table.py            writes it
python scripts/write_attention_table.py --check    exit status 1 if docs/attention.md is not up to date
"""

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch

from seq2attn.attention.attention import ROLES, Memory, Normalizer, Scorer, incompatibilities
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import SCORERS

PLACE = Path(__file__).parents[1] / "docs" / "attention.md"
BEGIN = "<!-- Written by scripts/write_attention_table.py from the parts themselves: do not edit. -->\n"
END = "<!-- end of what is written -->\n"


def table() -> str:
    """Both registries: in which roles, step by step or at once, with which others, through which kernel."""
    roles = " | ".join(ROLES)
    lines = [
        "Target to source: recurrent decoders of the orders bahdanau and luong, and cross-attention.",
        "",
        f"| scorer | {roles} | steps in training | without weights |",
        "|---" * (len(ROLES) + 3) + "|",
        *(scorer(name, part) for name, part in SCORERS.items()),
        "",
        f"| normalizer | {roles} | steps in training | without weights | with which scorers |",
        "|---" * (len(ROLES) + 4) + "|",
        *(normalizer(name, part) for name, part in NORMALIZERS.items()),
        "",
        "The reasons, as the recipe check gives them:",
        "",
        *(f"- {reason}" for reason in reasons()),
    ]
    return "\n".join(lines) + "\n"


def scorer(name: str, part: type[Scorer]) -> str:
    """One line of the first table."""
    in_roles = [fits(any(sensible(part, other, role) for other in NORMALIZERS.values())) for role in ROLES]
    kernel = "dot product: can be fused" if part.dot is not Scorer.dot else "scores are made"
    return row(name, *in_roles, steps(part), kernel)


def normalizer(name: str, part: type[Normalizer]) -> str:
    """One line of the second table."""
    in_roles = [fits(any(sensible(other, part, role) for other in SCORERS.values())) for role in ROLES]
    kernel = "fused kernel" if fused(part) else "weights are made"
    partners = [other for other, score in SCORERS.items() if sensible(score, part, ROLES[0])]
    partners = ["all"] if len(partners) == len(SCORERS) else partners
    return row(name, *in_roles, steps(part), kernel, ", ".join(partners))


def reasons() -> Iterator[str]:
    """Each reason once, with all whom it concerns."""
    whom: dict[str, dict[str, None]] = {}
    for role, *names in product(ROLES, SCORERS, NORMALIZERS):
        parts = SCORERS[names[0]], NORMALIZERS[names[1]]
        for _, why in incompatibilities(*parts, role, names=(names[0], names[1])):
            name, reason = why.split(" ", 1)
            whom.setdefault(reason, {})[name] = None
    for reason, names in whom.items():
        yield f"{', '.join(names)} {reason}"


def fused(part: type[Normalizer]) -> bool:
    """Whether it takes a shortcut when it may."""
    few = torch.zeros(1, 50, 3)
    memory = Memory(few, few, torch.ones(1, 1, 50, dtype=torch.bool))
    return part(3).eval().fused(few, memory, None, 0.0) is not None


def sensible(score: type[Scorer], normalize: type[Normalizer], role: str) -> bool:
    """Whether two parts make sense together in a role."""
    return not any(True for _ in incompatibilities(score, normalize, role))


def steps(part: type[Scorer] | type[Normalizer]) -> str:
    """Whether queries wait for each other."""
    return "one by one" if part.stateful else "all at once"


def fits(yes: bool) -> str:
    """A cell."""
    return "yes" if yes else "no"


def row(name: str, *cells: str) -> str:
    """A line of a table."""
    return f"| `{name}` | {' | '.join(cells)} |"


def document() -> str:
    """docs/attention.md with its table as it should be."""
    before, rest = PLACE.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PLACE.write_text(document(), encoding="utf-8")
    elif PLACE.read_text(encoding="utf-8") != document():
        sys.exit(f"{PLACE} is not up to date: run {Path(__file__).name}")
