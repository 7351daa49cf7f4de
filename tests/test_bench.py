"""Attentions side by side, on a made task: rows, what they measure, going on, and failures that are rows."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_summaries import train, write_corpus

from seq2attn.attention.scorers import SCORERS
from seq2attn.cli import cli
from seq2attn.recipe import read
from seq2attn.runs.attention_bench import (
    COLUMNS,
    FAITHFUL_COLUMNS,
    compare,
    figure,
    measure,
    table,
    variants,
)
from seq2attn.runs.comparison import BenchError, Row, Variant, finished_row, log_numbers
from seq2attn.views.variant_chart import Panel, variant_chart

TINY = [
    "data.train.0.count=400",
    "data.dev.count=20",
    "data.test.count=20",
    "model.encoder.embedding=16",
    "model.encoder.size=16",
    "model.decoder.embedding=16",
    "model.decoder.size=16",
    "training.max_steps=6",
    "training.validate_every=3",
    "training.log_every=2",
]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two variants that can be trained and one that cannot."""
    out = tmp_path_factory.mktemp("bench")
    some = variants(read("copy_additive"), ["additive"], ["softmax", "sum"])[:2]
    said: list[str] = []
    rows = compare("copy_additive", some, out, overrides=TINY, report=said.append)
    return out, some, rows, said


def test_every_pair_is_a_variant_and_overrides_are_one_more():
    recipe = read("copy_additive")
    found = variants(
        recipe, ["dot", {"name": "general", "rank": 3}], ["softmax"], ["model.decoder.top=2 'a={b: c}'"]
    )
    assert found == [
        Variant(
            "dot + softmax",
            ("model.decoder.attention.score=dot", "model.decoder.attention.normalize=softmax"),
        ),
        Variant(
            "general (rank 3) + softmax",
            (
                "model.decoder.attention.score={name: general, rank: 3}",
                "model.decoder.attention.normalize=softmax",
            ),
        ),
        Variant("model.decoder.top=2 'a={b: c}'", ("model.decoder.top=2", "a={b: c}")),
    ]
    assert variants(recipe) == [Variant("as it is", ())]
    crossed = variants(read("wmt_transformer"), ["dot"])
    assert crossed[0].overrides == ("model.decoder.cross_attention.score=dot",)
    assert len(variants(recipe, list(SCORERS))) == len(SCORERS)
    silent = read("copy_additive", ["model.decoder.order=cho", "model.decoder.attention=null"])
    with pytest.raises(BenchError, match="has no attention to vary"):
        variants(silent)


def test_a_row_says_what_was_measured(compared):
    out, _, rows, _ = compared
    done = rows[0]
    assert done.name == "additive + softmax" and not done.failed and done.numbers["updates"] == 6
    assert done.scores["exact"][1] <= done.scores["exact"][0] <= done.scores["exact"][2]
    numbers = done.numbers
    assert numbers["perplexity"] > 1 and 0 <= numbers["aer"] <= 100 and numbers["aer"] > 1
    assert numbers["entropy"] > 0 and numbers["zeros"] == 0
    assert numbers["training_speed"] > 0 and numbers["decoding_speed"] > 0 and numbers["parameters"] > 1000
    assert 50e6 < numbers["memory"] < 5e9
    written = json.loads((out / "additive___softmax-1.json").read_text())
    assert Row.from_json(written) == done and written["entropy"] == numbers["entropy"]


def test_what_fails_is_a_row_with_its_reason(compared):
    _, _, rows, said = compared
    assert "use the scorer linear" in rows[1].failed and any(rows[1].failed in line for line in said)
    lines = table(rows).splitlines()
    assert rows[1].failed in lines[3] and len({line.count("|") for line in lines}) == 1
    broken = [Variant("no such folder", ("data.test={files: [a.de, b.en]}",))]
    assert (
        "a.de; overrides: data.test"
        in compare("copy_additive", broken, compared[0], overrides=TINY, report=str)[0].failed
    )


def test_faithfulness_is_measured_if_it_is_asked_for(compared):
    out, _, rows, _ = compared
    run, columns = out / "additive___softmax-1", len(COLUMNS)
    numbers = measure(run, faithful=True).numbers
    added = {column.number for column in FAITHFUL_COLUMNS}
    assert added <= numbers.keys() and not added & rows[0].numbers.keys()
    assert numbers["comprehensiveness_occlusion"] >= numbers["comprehensiveness_random"]
    finished = replace(rows[0], numbers=numbers)
    headings = [table([row]).splitlines()[0].split(" | ") for row in (rows[0], finished)]
    assert len(headings[1]) == len(headings[0]) + len(added) > columns
    # a row without these numbers is not finished for a call that needs them
    assert finished_row(out / "additive___softmax-1.json", rows[0]) == rows[0]
    assert finished_row(out / "additive___softmax-1.json", rows[0], ["tau"]) is None


def test_what_is_done_stays_done(compared, monkeypatch):
    out, some, rows, _ = compared
    shutil.rmtree(out / "additive___softmax-1")  # its row is enough
    again = compare("copy_additive", some, out, overrides=TINY, report=str)
    assert again[0] == rows[0] and not (out / "additive___softmax-1").exists()
    shorter = [Variant("max.steps 4", ("training.max_steps=4",)), Variant("max.steps 5", ("text.size=x",))]
    other = compare("copy_additive", shorter, out, overrides=TINY, report=str)
    assert other[0].numbers["updates"] == 4 and other[1].failed
    assert (
        compare("copy_additive", shorter[:1], out, overrides=TINY, report=str) == other[:1]
    )  # each its own file


@pytest.mark.parametrize("kept", ['{"name": "half', '{"older": 1}', "[]", "\udc80"])
def test_a_row_that_cannot_be_read_is_made_again(compared, kept, tmp_path):
    (tmp_path / "broken-1.json").write_text(kept, encoding="utf-8", errors="surrogateescape")
    broken = [Variant("broken", ("data.test={files: [a.de, b.en]}",))]
    (row,) = compare("copy_additive", broken, tmp_path, overrides=TINY, report=str)
    assert row.failed and Row.from_json(json.loads((tmp_path / "broken-1.json").read_text())) == row


def test_a_row_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    broken = [Variant("broken", ("data.test={files: [a.de, b.en]}",))]
    compare("copy_additive", broken, tmp_path, overrides=TINY, report=str)
    before = (tmp_path / "broken-1.json").read_text()

    def stopped(*asked: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare("copy_additive", broken, tmp_path, overrides=[*TINY, "seed=2"], report=str)
    assert (tmp_path / "broken-1.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["broken-1.json"]


def test_a_training_that_was_never_validated_has_no_perplexity(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 2, "tokens": 60, "seconds": 2.0}\n')
    assert log_numbers(log) == {"updates": 2, "training_speed": 30.0}
    log.write_text("")
    assert log_numbers(log) == {"updates": 0}


def test_the_table_takes_seeds_together(tmp_path):
    rows = [
        Row("a", 1, [], "", {"BLEU": [10.0, 9.0, 11.0]}, {"perplexity": 4.0, "training_speed": 100.0}),
        Row("a", 2, [], "", {"BLEU": [14.0, 13.0, 15.0]}, {"perplexity": 6.0, "training_speed": 300.0}),
        Row("b", 1, [], scores={"BLEU": [7.0, 6.0, 8.0]}),
    ]
    lines = table(rows).splitlines()
    assert "| a | 12.0 [10.0, 14.0] | 5.00 |" in lines[2] and "200/s" in lines[2]
    assert "| b | 7.0 [6.0, 8.0] |" in lines[3]
    figure(rows, tmp_path / "all.svg")
    assert "BLEU" in (tmp_path / "all.svg").read_text() or (tmp_path / "all.svg").stat().st_size > 1000
    with pytest.raises(BenchError, match="nothing to draw"):
        figure([Row("a", 1, [], failed="no")], tmp_path / "none.svg")


def test_the_figure_has_a_number_at_each_point_and_bar():
    scores = Panel("exact, 95 % interval", np.array([[97.9, 97.0, 98.6], [99.7, 99.4, 100.0]]))
    speeds = Panel("pieces per second", np.array([12345.0, 0.25]))
    left, right = variant_chart(["additive", "dot"], scores, speeds).axes
    assert [text.get_text() for text in left.texts] == ["97.9", "99.7"]
    assert [text.get_text() for text in right.texts] == ["12,345", "0.25"]
    zeros = Panel("exact", np.zeros((2, 3)))
    low, high = variant_chart(["additive", "dot"], zeros, speeds).axes[0].get_xlim()
    assert -0.05 < low < 0 and high > 1  # and not 0.04 on either side
    signed = variant_chart(
        ["none", "se"], Panel("to none", np.array([[0.0] * 3, [np.nan] * 3])), speeds, True
    )
    assert [text.get_text() for text in signed.axes[0].texts] == ["+0.00"]


def test_the_command(tmp_path):
    out = tmp_path / "bench"
    asked = ["bench", "attention", "copy_additive", *TINY, "--normalizers", "{name: entmax, alpha: 1.5}"]
    result = CliRunner().invoke(cli, [*asked, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "| entmax (alpha 1.5) |" in (out / "table.md").read_text()
    assert (out / "table.png").read_bytes()[:4] == b"\x89PNG"
    result = CliRunner().invoke(cli, [*asked, "-o", str(out), "--format", "json"])
    (row,) = json.loads(result.stdout)
    assert row["name"] == "entmax (alpha 1.5)" and row["scores"] and row["failed"] == ""
    result = CliRunner().invoke(cli, [*asked[:4], "--scorers", "{dot"])
    assert "--scorers: expected names separated by commas" in str(result.exception)


SMALL = ["model.encoder.size=8", "model.embedding.size=8"]
BENCHES = {
    "chats": ("additive", []),
    "conll2003_pooling": ("scaled_dot", [*SMALL, "model.head.kind=linear"]),
    "languages": (
        "perceptron",
        [*SMALL, "data.train.0.limit=60", "data.dev.limit=20", "data.test.limit=20"],
    ),
}


@pytest.mark.parametrize("name", BENCHES)
def test_attentions_are_compared_whatever_the_task(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, overrides = BENCHES[name]
    monkeypatch.setenv("SEQ2ATTN_DATA", str(tmp_path))
    (tmp_path / "conll2003").mkdir()
    for part in ("train", "testa"):
        packed = gzip.compress(b"EU I-ORG\nrejects O\nlamb O\n\nBen I-PER\nsleeps O\n\n")
        (tmp_path / f"conll2003/eng.{part}.gz").write_bytes(packed)
    recipe = write_corpus(tmp_path) if name == "chats" else name
    few = ["training.max_steps=2", "training.validate_every=2", "training.log_every=1"]
    few += ["training.schedule=constant", *overrides]
    some = variants(read(recipe, few), [scorer], ["softmax", "sparsemax"])
    assert len(some) == 2
    for number, variant in enumerate(some):  # `compare` does the same in processes of their own
        measured = measure(train(tmp_path / f"{number}", recipe, *few, *variant.overrides))
        assert measured.scores and measured.numbers["updates"] == 2 and measured.numbers["parameters"]
        assert measured.numbers.keys() >= {"perplexity", "entropy", "zeros"}
    if name == "languages":
        with pytest.raises(BenchError, match="only models that write text from text have faithfulness"):
            measure(tmp_path / "0", faithful=True)
