"""docs/blocks.md: its table is the code's, its kinds of maps are all, and its Python runs."""

import re
import runpy
from pathlib import Path
from typing import get_args

import pytest

from seq2attn.attention.blocks import BLOCKS
from seq2attn.attention.blocks.block import Kind, Place

ROOT = Path(__file__).parents[1]
WRITTEN = (ROOT / "docs" / "blocks.md").read_text(encoding="utf-8")


def test_the_table_is_up_to_date():
    document = runpy.run_path(str(ROOT / "scripts" / "write_block_table.py"))["document"]
    assert document() == WRITTEN, "run `make docs`"


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_has_a_row(name):
    assert re.search(rf"^\| `{name}` \|", WRITTEN, re.MULTILINE)


def test_kinds_and_places_are_explained():
    maps = WRITTEN.split("## Maps")[1].split("## ")[0]
    places = WRITTEN.split("*Place* is")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", maps)) >= set(get_args(Kind))
    assert set(re.findall(r"`(\w+)`", places)) >= set(get_args(Place))


def test_the_python_runs(tmp_path, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", WRITTEN, re.DOTALL)
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    runpy.run_path(str(tmp_path / "example.py"))
    assert capsys.readouterr().out == "torch.Size([2, 64, 1, 1]) torch.Size([2, 1, 14, 14])\n"
