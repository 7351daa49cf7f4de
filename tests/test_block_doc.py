"""docs/blocks.md: its table is the code's, its kinds of maps are all, and its Python runs."""

import re
import runpy
import shlex
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from tiny_cli import run

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


SNIPPETS = re.findall(r"```python\n(.*?)```", WRITTEN, re.DOTALL)


def ran(code: str, folder: Path) -> dict[str, object]:
    """The names that a snippet has defined."""
    (folder / "example.py").write_text(code, encoding="utf-8")
    return runpy.run_path(str(folder / "example.py"))


def test_the_python_runs(tmp_path, capsys):
    assert len(SNIPPETS) == 2
    ran(SNIPPETS[0], tmp_path)
    assert capsys.readouterr().out == "torch.Size([2, 64, 1, 1]) torch.Size([2, 1, 14, 14])\n"


def test_the_commands_and_the_python_of_maps_run(tmp_path, monkeypatch, capsys):
    """After two updates with few images; the network is that of the document."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save("six.png")
    train, heatmap = (
        shlex.split(line)[1:] for line in re.findall(r"^\$ (seq2attn .*)$", WRITTEN, re.MULTILINE)
    )
    short = ["training.max_steps=2", "training.max_epochs=null", "training.validate_every=2"]
    rows = [f"data.{role}.limit=20" for role in ("train.0", "dev", "test")]
    run(*train, *short, *rows)
    run(*heatmap)
    assert Path("maps.png").read_bytes().startswith(b"\x89PNG")
    names = ran(SNIPPETS[1], tmp_path)
    assert names["gate"].shape == (1, 1, 7, 7) and len(names["figure"].axes) == 3
    assert "'pooling', " in capsys.readouterr().out and "cbam: channel" in str(names["maps"])
