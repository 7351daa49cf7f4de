"""docs/attention.md: its table is the code's, and no mechanism is left out."""

import re
import runpy
from pathlib import Path

import pytest

from seq2attn.attention import ROLES, incompatibilities
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.positions import POSITIONS
from seq2attn.attention.scorers import SCORERS

SCRIPT = Path(__file__).parents[1] / "scripts" / "write_attention_table.py"
WRITTEN = (Path(__file__).parents[1] / "docs" / "attention.md").read_text(encoding="utf-8")


def test_the_table_is_up_to_date():
    assert runpy.run_path(str(SCRIPT))["document"]() == WRITTEN, "run `make docs`"


@pytest.mark.parametrize("name", [*SCORERS, *NORMALIZERS, *POSITIONS])
def test_every_mechanism_is_explained(name):
    before = WRITTEN.split("## Combinations")[0]
    assert re.search(rf"^\|.*`{name}`.*\|", before, re.MULTILINE)


@pytest.mark.parametrize(
    ("score", "normalize", "role", "reason"),
    [
        (
            "additive",
            "monotonic",
            "self-attention",
            "Monotonic needs a target .*; self-attention has none",
        ),
        ("additive", "local_m", "self-attention", "LocalM needs a target .*; self-attention has none"),
        ("coverage", "softmax", "pooling", "Coverage needs a target .*; pooling has none"),
        ("dot", "sum", "target to source", "Sum divides by the scores' sum.* use the scorer linear"),
    ],
)
def test_what_makes_no_sense_has_its_reason(score, normalize, role, reason):
    parts = SCORERS[score], NORMALIZERS[normalize]
    (_, why), *others = incompatibilities(*parts, role)
    assert re.search(reason, why) and not others
    ((_, why),) = incompatibilities(*parts, role, names=(score, normalize))  # as a recipe calls them
    name, rest = why.split(" ", 1)
    assert name in (score, normalize)
    assert re.search(rf"- .*{name}.* {re.escape(rest)}", WRITTEN)


def test_what_makes_sense_has_none():
    for role in ROLES:
        assert not list(incompatibilities(SCORERS["additive"], NORMALIZERS["entmax"], role))
    assert not list(incompatibilities(SCORERS["linear"], NORMALIZERS["sum"], "self-attention"))
    assert list(incompatibilities(SCORERS["linear"], NORMALIZERS["sum"], "self-attention", relative=True))
