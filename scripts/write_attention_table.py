"""Write the tables of combinations into docs/attention.md, from the classes of the parts.

python scripts/write_attention_table.py            write it
python scripts/write_attention_table.py --check    exit status 1 if docs/attention.md is not up to date
"""

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch

from seq2attn.attention import ROLES, Memory, Normalizer, Scorer, incompatibilities
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import SCORERS

PLACE = Path(__file__).parents[1] / "docs" / "attention.md"
BEGIN = "<!-- Written by scripts/write_attention_table.py from the parts themselves: do not edit. -->\n"
END = "<!-- end of what is written -->\n"


def table() -> str:
    """Return a table for each registry: roles, steps, kernel, and combinations."""
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
        "The reasons, as in the messages of the recipe check:",
        "",
        *(f"- {reason}" for reason in reasons()),
    ]
    return "\n".join(lines) + "\n"


def scorer(name: str, part: type[Scorer]) -> str:
    """Return a row of the first table."""
    in_roles = [fits(any(sensible(part, other, role) for other in NORMALIZERS.values())) for role in ROLES]
    kernel = "dot product: can be fused" if part.dot is not Scorer.dot else "scores are computed"
    return row(name, *in_roles, steps(part), kernel)


def normalizer(name: str, part: type[Normalizer]) -> str:
    """Return a row of the second table."""
    in_roles = [fits(any(sensible(other, part, role) for other in SCORERS.values())) for role in ROLES]
    kernel = "fused kernel" if fused(part) else "weights are computed"
    partners = [other for other, score in SCORERS.items() if sensible(score, part, ROLES[0])]
    partners = ["all"] if len(partners) == len(SCORERS) else partners
    return row(name, *in_roles, steps(part), kernel, ", ".join(partners))


def reasons() -> Iterator[str]:
    """Yield each reason once, with the names of all parts that it concerns."""
    concerned: dict[str, dict[str, None]] = {}
    for role, *names in product(ROLES, SCORERS, NORMALIZERS):
        parts = SCORERS[names[0]], NORMALIZERS[names[1]]
        for _, why in incompatibilities(*parts, role, names=(names[0], names[1])):
            name, reason = why.split(" ", 1)
            concerned.setdefault(reason, {})[name] = None
    for reason, names in concerned.items():
        yield f"{', '.join(names)}: {reason}"


def fused(part: type[Normalizer]) -> bool:
    """Whether it has a fused path."""
    states = torch.zeros(1, 50, 3)
    memory = Memory(states, states, torch.ones(1, 1, 50, dtype=torch.bool))
    return part(3).eval().fused(states, memory, None, 0.0) is not None


def sensible(score: type[Scorer], normalize: type[Normalizer], role: str) -> bool:
    """Whether two parts can be combined in a role."""
    return not any(True for _ in incompatibilities(score, normalize, role))


def steps(part: type[Scorer] | type[Normalizer]) -> str:
    """Whether queries are computed one by one in training."""
    return "one by one" if part.stateful else "all at once"


def fits(yes: bool) -> str:
    """Return a cell."""
    return "yes" if yes else "no"


def row(name: str, *cells: str) -> str:
    """Return a row of a table."""
    return f"| `{name}` | {' | '.join(cells)} |"


def document() -> str:
    """Return docs/attention.md with the tables as they should be."""
    before, rest = PLACE.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PLACE.write_text(document(), encoding="utf-8")
    elif PLACE.read_text(encoding="utf-8") != document():
        sys.exit(f"{PLACE} is not up to date: run {Path(__file__).name}")
