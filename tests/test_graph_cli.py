"""The command `graph`: rows of a network with their costs, and graphs whose rows name each other by number."""

import json
from pathlib import Path

import pytest
import torch
from tiny_cli import fails, run
from tiny_graphs import ROWS

from seq2attn.recipe import RecipeError
from seq2attn.recipe.graph import GraphRecipe, shipped_graph
from seq2attn.recipe.graph_import import import_graph
from seq2attn.recipe.yaml_source import parse

YOLO = """\
nc: 80
depth_multiple: 0.33
width_multiple: 0.50
backbone:
  [
    [-1, 1, Conv, [64, 6, 2, 2]],
    [-1, 1, Conv, [128, 3, 2]],
    [-1, 3, C3, [128]],
    [-1, 1, Conv, [256, 3, 2]],
    [-1, 6, C3, [256]],
    [-1, 1, Conv, [512, 3, 2]],
    [-1, 9, C3, [512]],
    [-1, 1, Conv, [1024, 3, 2]],
    [-1, 3, C3, [1024]],
    [-1, 1, SPPF, [1024, 5]],
  ]
head:
  [
    [-1, 1, Conv, [512, 1, 1]],
    [-1, 1, nn.Upsample, [None, 2, "nearest"]],
    [[-1, 6], 1, Concat, [1]],
    [-1, 3, C3, [512, False]],
    [-1, 1, Conv, [256, 1, 1]],
    [-1, 1, nn.Upsample, [None, 2, "nearest"]],
    [[-1, 4], 1, Concat, [1]],
    [-1, 3, C3, [256, False]],
    [-1, 1, Conv, [256, 3, 2]],
    [[-1, 14], 1, Concat, [1]],
    [-1, 3, C3, [512, False]],
    [-1, 1, Conv, [512, 3, 2]],
    [[-1, 10], 1, Concat, [1]],
    [-1, 3, C3, [1024, False]],
    [[17, 20, 23], 1, Detect, [nc, anchors]],
  ]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    rows = "\n".join(f"      - {json.dumps(row)}" for row in ROWS)
    text = (
        f"task: image_classification\ndata: {{train: {{sample: digits}}, dev: {{sample: digits}}}}\nmodel:\n  \
backbone:\n    kind: graph\n    rows:\n{rows}\n    outputs: [n2, n3]\ntraining: {{max_epochs: 1}}\n"
    )
    (tmp_path / "net.yaml").write_text(text)
    return str(tmp_path / "net.yaml")


def test_rows_with_their_costs(recipe: str) -> None:
    output = run("graph", recipe, "--size", "40", "48").stdout
    assert output == run("graph", "show", recipe, "--size", "40", "48").stdout
    lines = [line.split() for line in output.splitlines()]
    assert lines[0] == ["row", "module", "reads", "channels", "grid", "parameters", "multiply-adds"]
    # 20 x 24 positions of a 6x6 convolution from 3 to 8 channels
    assert lines[1] == ["stem", "conv", "8", "20x24", f"{3 * 8 * 36 + 16:,}", f"{20 * 24 * 3 * 8 * 36:,}"]
    assert lines[8][:5] == ["join", "concat", "up,", "c2", "40"] and lines[9][:2] == ["n2*", "c3"]
    rows = json.loads(
        run("graph", recipe, "data.channels=rgb", "data.size=[40, 48]", "--format", "json").stdout
    )
    assert lines[-1] == [
        "total", "without", "the", "head", *(f"{sum(row[key] for row in rows):,}" for key in ("parameters", "multiply_adds"))
    ]  # fmt: skip
    assert [row["name"] for row in rows if row["output"]] == ["n2", "n3"]
    assert rows[7] == {
        "name": "join", "module": "concat", "reads": ["up", "c2"], "channels": 40, "height": 10, "width": 12,
        "parameters": 0, "multiply_adds": 0, "output": False,
    }  # fmt: skip


def test_costs_are_those_of_the_edited_graph(recipe: str) -> None:
    edited = run(
        "graph", recipe, "model.backbone.insert={after: c2, module: nonlocal}", "--format", "json"
    ).stdout
    rows = {row["name"]: row for row in json.loads(edited)}
    assert rows["c2_nonlocal"]["reads"] == ["c2"] and rows["p3"]["reads"] == ["c2_nonlocal"]
    positions, channels, inner = 160 * 160, 16, 8  # queries, keys, values and output; then scores and sums
    assert rows["c2_nonlocal"]["multiply_adds"] >= 2 * positions**2 * inner + 4 * positions * channels * inner


def test_a_graph_that_ships_needs_no_recipe() -> None:
    assert "7,006,144" in run("graph", "yolov5s", "--size", "64", "64").stdout.splitlines()[-1]
    assert "takes no KEY=VALUE" in fails("graph", "yolov5s", "seed=2")[1]
    assert "is not written as a graph" in fails("graph", "digits")[1]


def test_imported_rows_have_names(tmp_path: Path) -> None:
    """Of the rows of YOLOv5s, the graph that ships; and a recipe has them as they are printed."""
    (tmp_path / "yolov5s.yaml").write_text(YOLO)
    printed = run("graph", "import", str(tmp_path / "yolov5s.yaml")).stdout
    run("graph", "import", str(tmp_path / "yolov5s.yaml"), "-o", str(tmp_path / "named.yaml"))
    assert (tmp_path / "named.yaml").read_text() == printed and "size: 1024, kernel: 5}\n" in printed
    graph = GraphRecipe.model_validate(parse(printed).tree)
    assert (graph.rows, graph.outputs, graph.scaling) == (
        shipped_graph("yolov5s").rows, ["n3", "n4", "n5"], shipped_graph("yolov5s").scaling
    )  # fmt: skip


def test_an_inserted_row_that_was_not_renumbered_is_found(tmp_path: Path) -> None:
    """CBAM before SPPF moves all rows below by one. If the numbers of the head stay, concatenated rows have
    different grids, or the head reads others than it should: then rows that nothing reads say so."""
    text = YOLO.replace("    [-1, 1, SPPF", "    [-1, 1, CBAM, [1024]],\n    [-1, 1, SPPF")
    (tmp_path / "cbam.yaml").write_text(text)
    with pytest.raises(RecipeError) as error:
        import_graph(tmp_path / "cbam.yaml")
    assert "cbam.yaml:33  head.13: nothing that leads to outputs reads row" in str(error.value)
    for number in (14, 10):
        text = text.replace(f"[-1, {number}]", f"[-1, {number + 1}]")
    (tmp_path / "cbam.yaml").write_text(text.replace("[17, 20, 23]", "[18, 21, 24]"))
    assert [row["module"] for row in import_graph(tmp_path / "cbam.yaml")["rows"]][9] == "cbam"


def test_a_file_with_several_scales(tmp_path: Path) -> None:
    (tmp_path / "v8.yaml").write_text(
        "scales:\n  n: [0.33, 0.25, 512]\n  s: [0.33, 0.50, 1024]\nbackbone:\n"
        "  - [-1, 1, Conv, [64, 3, 2]]\n  - [-1, 3, C2f, [1024, True]]\n"
        "head:\n  - [-1, 2, Bottleneck, [32]]\n  - [[2], 1, Detect, [nc]]\n"
    )
    section = import_graph(tmp_path / "v8.yaml", "n")
    assert section["scale"] == {"depth": 0.33, "width": 0.25, "divisor": 8}
    assert section["rows"] == [
        {"name": "stem", "module": "conv", "size": 64, "stride": 2},
        {"name": "c1", "module": "c2f", "size": 512, "repeat": 3},
        {"name": "n1", "module": "bottleneck", "size": 32, "repeat": 2},
    ]
    with pytest.raises(RecipeError, match=r"v8.yaml:1  scales: unknown scale 'None' \(one of n, s\): choose"):
        import_graph(tmp_path / "v8.yaml")


def test_every_fault_of_a_file_at_once(tmp_path: Path) -> None:
    """Text is never evaluated: what is no plain value is a fault."""
    (tmp_path / "bad.yaml").write_text(
        """\
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, C33, [64]]
  - [-3, 1, Conv, [64]]
  - [-1, 2, SPPF, [64]]
  - [-1, 1, Conv, [64, 3, 1, 0]]
  - [-1, 1, Conv, ["__import__('os').getcwd()"]]
  - [-1, 1, CBAM, [64, 16]]
  - [-1, Conv]
  - [-1, 1, nn.Upsample, [None, 2, bilinear]]
  - [[-1, x], 1, Concat, [1]]
"""
    )
    with pytest.raises(RecipeError) as error:
        import_graph(tmp_path / "bad.yaml")
    expected = [
        (3, "unknown module 'C33' (did you mean C3?"),
        (4, "reads row -3, which is none of the 2 above it"),
        (5, "sppf stands once in a row: write 2 rows"),
        (6, "a padding of 0: here a kernel of 3 has 1"),
        (7, "size: expected a number, got"),
        (8, "args of CBAM: only a number of channels is read"),
        (9, "expected [from, number, module, args], got [-1, 'Conv']"),
        (10, "expected the args [None, 2, nearest], got ['None', 2, 'bilinear']"),
        (11, "expected numbers of rows, got [-1, 'x']"),
    ]
    found = error.value.faults
    assert [
        (fault.line, fault.message[: len(start)]) for fault, (_, start) in zip(found, expected, strict=True)
    ] == expected
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        import_graph(tmp_path / "none.yaml")
    (tmp_path / "text.yaml").write_text("hello")
    with pytest.raises(RecipeError, match="expected a section backbone"):
        import_graph(tmp_path / "text.yaml")


def test_nothing_is_computed(recipe: str) -> None:
    """An image that no memory has."""
    state = torch.random.get_rng_state()
    assert "50000x50000" in run("graph", recipe, "--size", "100000", "100000").stdout
    assert torch.equal(state, torch.random.get_rng_state())
