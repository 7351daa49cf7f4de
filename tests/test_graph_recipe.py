"""Faults of graphs: all at once, each with its row, its line and a guess."""

import re
from pathlib import Path
from typing import Any

import pytest
from tiny_graphs import ROWS, graph

from seq2attn.recipe import RecipeError, read, schema, write
from seq2attn.recipe.graph import GraphRecipe
from seq2attn.recipe.yaml_source import parse

HEAD = """\
task: image_classification
data: {train: {sample: digits}, dev: {sample: digits}}
training: {max_epochs: 1}
model:
  backbone:
    kind: graph
"""


def faults(tmp_path: Path, text: str) -> list[str]:
    """The faults of a recipe with this graph, each from its line on: `3 rows.1.from: ...`; lines are counted
    from that of `kind` on."""
    file = tmp_path / "net.yaml"
    file.write_text(HEAD + text)
    with pytest.raises(RecipeError) as error:
        read(file)
    return [
        f"{(fault.line or 0) - HEAD.count(chr(10))} {fault.path.removeprefix('model.backbone.')}: {fault.message}"
        for fault in error.value.faults
    ]


def test_every_fault_at_once_with_its_line(tmp_path: Path) -> None:
    """Those within rows and those between them: a row that is wrong does not hide what others read."""
    found = faults(
        tmp_path,
        """\
    rows:
      - {name: stem, module: conv, size: 8, kernel: 6, stride: 2}
      - {name: p2, module: conv, size: 16, strid: 2}
      - name: c2
        module: c3
        repeat: two
      - {name: c2, module: conv, from: stem}
      - {module: cbam, size: 32}
      - {name: half, module: conv}
      - {name: cat, module: concat, from: [-1, stm]}
      - {name: later, module: add, from: [-1, fin]}
      - {module: conv, from: 3}
      - {name: a b, module: conv}
      - {name: fin, module: cbamm}
    outputs: [fin, nothing]
""",
    )
    expected = [
        "3 rows.1.strid: unknown key 'strid' (did you mean stride?",
        "6 rows.2.repeat: expected a whole number, got 'two'",
        "7 rows.3.name: another row is called c2, too",
        "8 rows.4: cbam has no size: the channels are those that it reads; leave size out",
        "9 rows.5.name: no row can be called half, a name of PyTorch",
        "10 rows.6.from: unknown row 'stm' (did you mean stem? one of stem, p2, c2, c2, half)",
        "11 rows.7.from: row fin stands below: a row reads rows above it",
        "12 rows.8.from: expected the name of a row, or -1 for the row before (other numbers would change",
        "13 rows.9.name: expected letters, digits and _, a letter first; got 'a b'",
        "14 rows.10.module: unknown 'cbamm' (did you mean cbam?",
        "15 outputs.1: unknown row 'nothing'",
    ]
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


def test_what_does_not_fit_says_what_it_reads(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """\
    rows:
      - {name: stem, module: conv, size: 8, stride: 2}
      - {name: c2, module: conv, size: 32, stride: 2}
      - {name: join, module: concat, from: [-1, stem]}
      - {name: sum, module: add, from: [stem, c2]}
      - {name: up, module: upsample, from: c2, factor: 8}
      - {name: groups, module: conv, size: 9, groups: 2, from: c2}
      - {name: both, module: conv, from: [c2, stem]}
      - {name: even, module: sppf, kernel: 4, from: c2}
      - {name: skip, module: shortcut, from: [stem, c2]}
      - {name: alone, module: add, from: c2}
      - {name: look, module: nonlocal, score: dott, from: c2}
    outputs: [join, sum, up, groups, both, even, skip, alone, look]
""",
    )
    expected = [
        "4 rows.2.module: row join: reads rows with different grids: bring them to one by upsample, or a stride "
        "(it reads c2: 32 channels, 1/4 of the size, stem: 8 channels, 1/2 of the size)",
        "5 rows.3.module: row sum: adds rows with different numbers of channels",
        "6 rows.4.module: row up: cannot enlarge the grid 8 times: its stride of 4 is no multiple of it",
        "7 rows.5.module: row groups: groups must divide 32 channels that it reads and 9 that it makes, got 2",
        "8 rows.6.from: conv reads one row: concat joins several; got 2 in row both",
        "9 rows.7.module: row even: sppf needs an odd kernel",
        "10 rows.8.module: row skip: the second row that it reads must have the finer grid",
        "11 rows.9.from: add reads at least 2 rows: from: [-1, NAME]; got 1 in row alone",
        "12 rows.10.module: row look: unknown part 'dott'",
    ]
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


def test_faults_of_edits(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """\
    base: yolov5s
    insert:
      - {after: p22, module: cbam}
      - {module: cbam}
      - {after: c4, module: concat}
      - {before: join4, module: cbam}
      - {after: c5, module: cbam, name: sppf}
    replace: {rows: [c2, cc3], module: sppf, kernel: 4}
    inside: {c3: {name: cbam, ratoi: 3}}
""",
    )
    expected = [
        "3 insert.0.after: unknown row 'p22' (did you mean p2? one of stem, p2, c2, ",
        "4 insert.1: expected either after or before, with the name of a row",
        "5 insert.2.module: concat reads several rows, and an inserted row reads one",
        "6 insert.3.before: row join4 reads several: insert after one of them",
        "7 insert.4.name: another row is called sppf, too",
        "8 replace.rows.1: unknown row 'cc3' (did you mean c3?",
        "8 replace.module: row c2: sppf needs an odd kernel",
        "9 inside.c3.ratoi: unknown key 'ratoi' (did you mean ratio?",
    ]
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        (
            "    norm: batch\n",
            "expected rows, or the name of a graph as base: yolo_small or yolov5n or yolov5s",
        ),
        ("    base: yolov5m\n", "base: unknown 'yolov5m' (did you mean yolov5"),
        ("    base: yolov5s\n    rows: [{module: conv}]\n", "rows: expected either base or rows"),
        (
            "    base: yolov5s\n    outputs: [n5, n3]\n",
            "outputs: go from fine to coarse: these are n5 1/32, n3 1/8",
        ),
        (
            "    rows: [{name: a, module: conv}, {name: b, module: conv}, {module: se, from: a}]\n",
            "rows.1: nothing that leads to outputs reads row b",
        ),
        ("    base: yolov5s\n    scale: {width: 0}\n", "scale.width: expected more than 0, got 0"),
    ],
)
def test_faults_of_whole_graphs(tmp_path: Path, keys: str, fault: str) -> None:
    (found,) = faults(tmp_path, keys)
    assert fault in found


def test_a_misspelt_module_with_options_beside_it_is_at_its_own_key(tmp_path: Path) -> None:
    (found,) = faults(tmp_path, "    rows: [{name: a, module: conf, size: 8}]\n")
    assert "rows.0.module: unknown 'conf' (did you mean conv?" in found


def test_a_reference_by_number_cannot_be_written(tmp_path: Path) -> None:
    """What an inserted row moves is no number: that of a row below would then mean another row."""
    for number in ("6", "-2", "true", "[-1, 6]"):
        rows = f"    rows: [{{module: conv}}, {{module: concat, from: {number}}}]\n"
        assert "rows.1.from: expected the name of a row, or -1" in faults(tmp_path, rows)[0]


def test_a_run_has_the_graph_as_it_was_read(tmp_path: Path) -> None:
    model = {"model.backbone": graph(insert={"after": "c2", "module": "se"}).model_dump(mode="json")}
    recipe = read("digits", model)
    write(recipe, tmp_path / "recipe.yaml")
    assert read(tmp_path / "recipe.yaml", check_files=False) == recipe
    assert recipe.blocks_path is None and recipe.model.backbone.output_size == 24


def test_warnings_of_wide_blocks_name_the_row() -> None:
    (warning,) = graph(insert={"after": "c2", "module": "aspp", "rates": [1, 6]}).grid_notes(32, 40)
    assert warning.startswith("aspp in row c2_aspp: of 3x3 convolutions with the rates 6, most")


def test_the_schema_takes_options_beside_the_name_of_a_module() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())

    def valid(backbone: dict[str, Any]) -> bool:
        recipe = read("digits").model_dump(mode="json")
        recipe["model"]["backbone"] = backbone
        return bool(validator.is_valid(recipe))

    assert valid({"kind": "graph", "rows": ROWS, "outputs": ["n2"]})
    assert valid(
        {"kind": "graph", "base": "yolov5s", "insert": {"after": "c5", "module": "cbam", "ratio": 4}}
    )
    assert valid({"kind": "resnet", "blocks": [{"block": "se", "ratio": 8}]})
    assert not valid({"kind": "graph", "rows": [{"module": "conv", "sise": 3}]})
    assert not valid({"kind": "graph", "rows": [{"module": "convv"}]})
    assert not valid({"kind": "resnet", "blocks": [{"block": "se", "ratoi": 8}]})


def test_the_examples_of_the_documentation_are_graphs() -> None:
    page = Path(__file__).parents[1] / "docs" / "images.md"
    whole, base, *edits = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    of_rows, inserted = (parse(text).tree["model"]["backbone"] for text in (whole, base))
    assert len(GraphRecipe.model_validate(of_rows).plan().outputs) == 2 and "insert" in inserted
    for edit in ({"insert": inserted["insert"]}, *(parse(text).tree for text in edits)):
        assert graph(base=inserted["base"], **edit) != graph(base="yolov5s")
    assert len(edits) == 2
