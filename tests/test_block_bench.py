"""Blocks side by side: each in the place of the recipe's, with the same seeds as none."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_cli
import tiny_runs

import seq2attn
from seq2attn.errors import Seq2attnError
from seq2attn.metrics.base import ScoringError
from seq2attn.metrics.paired import paired_difference, t_quantile
from seq2attn.recipe import read
from seq2attn.runs.block_bench import NONE, differences, figure, summary, table, variants
from seq2attn.runs.comparison import BenchError, Row, Variant

BLOCKS = "model.backbone.blocks"
TINY = [
    "data.train.0.limit=16",
    "data.dev.limit=4",
    "data.test.limit=10",
    "model.backbone={kind: convolutional, sizes: [4]}",
    "training.max_steps=2",
    "training.validate_every=2",
    "training.log_every=1",
    "training.batch_images=8",
    "training.schedule=constant",
]


def row(name: str, seed: int, top: float, failed: str = "") -> Row:
    scores = {} if failed else {"top-1": [top, top - 1, top + 1]}
    return Row(name, seed, [], failed, scores, {"training_speed": 500.0, "memory": 2e8, "updates": 7})


ROWS = [
    *(row(NONE, seed, top) for seed, top in ((1, 90.0), (2, 92.0), (3, 97.0))),
    *(row("se", seed, top) for seed, top in ((1, 91.0), (2, 94.0), (3, 100.0))),  # 1, 2 and 3 better
    row("eca", 1, 0, "no memory"),
    row("eca", 2, 95.0),
    *(row("sk", seed, 0, "the grid is too small") for seed in (1, 2, 3)),
]


# ---- statistics ------------------------------------------------------------------------------------------


def test_the_quantiles_are_those_of_the_tables() -> None:
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 30: 2.042, 120: 1.980}
    assert {degrees: round(t_quantile(0.95, degrees), 3) for degrees in table} == table
    assert t_quantile(0.99, 4) == pytest.approx(4.604, abs=1e-3)


def test_a_difference_is_paired() -> None:
    """What both have in common, as a hard seed, is no part of it."""
    found = paired_difference([91.0, 94.0, 100.0], [90.0, 92.0, 97.0])
    margin = 4.302653 * 1.0 / 3**0.5
    assert found == pytest.approx((2.0, 2.0 - margin, 2.0 + margin, 3), abs=1e-4)
    assert paired_difference([3.0], [1.0]) == (2.0, None, None, 1)
    assert paired_difference([3.0, 4.0], [1.0, 2.0])[:3] == (2.0, 2.0, 2.0)
    for values, others in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(ScoringError, match="as many values as others"):
            paired_difference(values, others)


def test_seeds_are_paired_with_their_own() -> None:
    found = differences([*ROWS[::-1], row("eca", 4, 50.0)], "top-1")  # none has no seed 4
    assert found.keys() == {"se", "eca"}
    assert found["se"].value == pytest.approx(2) and found["se"].pairs == 3
    assert found["eca"] == (3.0, None, None, 1)  # of seed 2
    assert differences(ROWS[3:], "top-1") == {}  # without none


# ---- variants --------------------------------------------------------------------------------------------


def test_each_block_takes_the_place_of_the_recipes() -> None:
    blocks = [
        "se",
        {"block": "eca", "stages": [1]},
        {"block": {"name": "se", "ratio": 8}, "at": "after"},
        "none",
        "se",
    ]
    assert variants(read("digits"), blocks) == [
        Variant("none", (f"{BLOCKS}=[]",)),
        Variant("se", (f"{BLOCKS}=[{{block: se}}]",)),
        Variant("eca (stages [1])", (f"{BLOCKS}=[{{block: eca, stages: [1]}}]",)),
        Variant("se (ratio 8, at after)", (f"{BLOCKS}=[{{at: after, block: {{name: se, ratio: 8}}}}]",)),
    ]
    placed = variants(read("digits"), blocks[:3], at="middle")[1:]
    assert [variant.name for variant in placed] == [
        "se (at middle)",
        "eca (stages [1], at middle)",
        "se (ratio 8, at after)",
    ]
    for variant in variants(read("digits"), blocks[:3]):
        read("digits", variant.overrides)
    with pytest.raises(BenchError, match="copy_additive has no places for blocks"):
        variants(read("copy_additive"), ["se"])
    with pytest.raises(BenchError, match=r"digits has no places for blocks .* compare the runs"):
        variants(read("digits", ["model.backbone={kind: vit}"]), ["se"])


# ---- table and figure ------------------------------------------------------------------------------------


def test_the_table_has_deviations_and_differences(tmp_path: Path) -> None:
    lines = table(ROWS).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[0].startswith("| block | seeds | top-1 | to none | training | inference | memory |")
    assert lines[2].startswith(
        f"| none | 3 | 93.00 ± {statistics.stdev([90, 92, 97]):.2f} |  | 2.00 ms |  | 200 MB |"
    )
    assert "| se | 3 | 95.00 ± 4.58 | +2.00 [-0.48, +4.48] |" in lines[3]
    assert lines[4].startswith("| eca | 1 | 95.00 | +3.00 | 2.00 ms |")
    assert lines[5].startswith("| sk | 0 | the grid is too small |")
    (none, se, eca) = summary(ROWS)
    assert none["difference"] is None and se["difference"]["pairs"] == 3 and eca["deviation"] is None
    assert [line["mean"] for line in (none, se, eca)] == [93.0, 95.0, 95.0]
    for number, rows in enumerate((ROWS, ROWS[3:])):  # also if the trainings without blocks failed
        figure(rows, tmp_path / f"{number}.svg")
        assert (tmp_path / f"{number}.svg").stat().st_size > 1000
    short = [dataclasses.replace(row, numbers={}) for row in ROWS]  # of too few updates for a speed
    figure([*ROWS[:3], *short[3:]], tmp_path / "short.svg")
    figure(short, tmp_path / "shorter.svg")
    with pytest.raises(BenchError, match="nothing to draw"):
        figure(ROWS[-3:], tmp_path / "none.svg")


# ---- the command -----------------------------------------------------------------------------------------


def test_blocks_are_compared_and_what_is_done_stays_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each variant is trained here, which is quicker; tests/test_bench.py trains in processes."""

    def train(recipe: Any, overrides: Sequence[str], folder: Path) -> int:
        seq2attn.train(recipe, folder, overrides, display=tiny_runs.silent(), device="cpu")
        return 200_000_000

    monkeypatch.setattr("seq2attn.runs.comparison._train", train)
    out = tmp_path / "bench"
    words = ["bench", "blocks", "digits", *TINY, "--blocks", "se", "--at", "after", "--seeds", "2"]
    words += ["--out", str(out)]
    result = tiny_cli.run(*words)
    none, se = result.stdout.splitlines()[2:]
    assert none.startswith("| none | 2 |") and se.startswith("| se (at after) | 2 |") and "[" in se
    assert (out / "table.md").read_text() == result.stdout
    assert (out / "table.png").read_bytes()[:4] == b"\x89PNG"

    def again(*arguments: object) -> int:
        raise AssertionError("trained again")

    monkeypatch.setattr("seq2attn.runs.comparison._train", again)
    report = json.loads(tiny_cli.run(*words, "--format", "json").stdout)
    assert [(line["name"], line["seed"]) for line in report["rows"]] == [
        ("none", 1),
        ("none", 2),
        ("se (at after)", 1),
        ("se (at after)", 2),
    ]
    with_se, without = report["rows"][2], report["rows"][0]
    assert (
        with_se["parameters"] - without["parameters"] == 2 * 4 * 4 + 4 + 4
    )  # one block of 4 channels, hidden 4
    assert with_se["training_speed"] > 0 and with_se["decoding_speed"] > 0 and with_se["memory"] == 2e8
    assert {line["metric"] for line in report["summary"]} == {"top-1", "top-5"}


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    words = ["bench", "blocks", "digits", "--out", str(tmp_path), "--blocks"]
    for blocks, message in (
        ("sqeeze", "--blocks: unknown 'sqeeze'"),
        ("{block: ecaa}", "--blocks: unknown 'ecaa' (did you mean eca?"),
        ("{se", "--blocks: expected names separated by commas, as in"),
    ):
        status, error = tiny_cli.fails(*words, blocks)
        assert status == 1 and message in error
    with pytest.raises(Seq2attnError):
        read("digits", [f"{BLOCKS}=[{{block: sk, at: after}}]"])
