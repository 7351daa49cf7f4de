"""The commands `train`, `check` and `bench`, as a user types them: runs, and faults of recipes."""

import json
import re
from pathlib import Path

import pytest
import tiny_runs
from tiny_cli import fails, run

from seq2attn.recipe import shipped
from seq2attn.training.run_folder import RunFolder


def test_train_to_its_end_and_on(tmp_path: Path) -> None:
    path = str(tmp_path / "run")
    words = [
        "train",
        "quickstart",
        *tiny_runs.SMALL,
        *tiny_runs.MODELS["lstm"],
        *tiny_runs.READY,
        "--run",
        path,
    ]
    words.append("training.validate_every=2")
    result = run(*words, "training.max_steps=2", "--device", "cpu")
    lines = result.stdout.splitlines()
    assert [line.partition(" = ")[0] for line in lines[:3]] == ["BLEU", "chrF2", "TER"]
    assert lines[3].startswith("recipe:quickstart|checkpoint:best|beam:5|length:simple^1|seed:1|")
    assert "step 2: dev loss" in result.stderr and re.search(
        "[0-9] pairs, [0-9,]+ parameters, ", result.stderr
    )
    assert re.search(r"^best: step-00000002\.safetensors \(bleu \d+\.\d\d\)$", result.stderr, re.MULTILINE)
    assert result.stderr.endswith(f"the run is in {path}\n")
    status, error = fails(*words)
    assert (status, error.startswith(f"seq2attn: {path} exists and is not overwritten")) == (1, True)
    resumed = run(*words, "training.max_steps=4", "--resume", "--format", "json")
    report = json.loads(resumed.stdout)
    assert (report["run"], report["updates"]) == (path, 4)
    assert [score["name"] for score in report["scores"]] == ["BLEU", "chrF2", "TER"]
    assert RunFolder.open(path).version.last == "step-00000004.safetensors"


def test_check_tries_everything(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*tiny_runs.SMALL, *tiny_runs.MODELS["lstm"], *tiny_runs.READY, "--pairs", "50"]
    output = run("check", "quickstart", *words).stdout
    for title in (
        "recipe",
        "vocabulary",
        "data.train",
        "data.dev",
        "data.test",
        "model",
        "training",
        "decoding",
    ):
        assert re.search(rf"^{title} ", output, re.MULTILINE), title
    assert "50 examples read" in output
    rows = json.loads(run("check", "quickstart", *words, "--format", "json").stdout)
    assert {"recipe", "vocabulary", "data.train", "model", "memory"} <= {row["about"] for row in rows}
    assert [row["about"] for row in rows] == [line.split()[0] for line in output.splitlines()]
    assert all(row["about"] and row["text"] == row["text"].strip() for row in rows)


@pytest.mark.parametrize("command", ["train", "check"])
def test_an_unknown_recipe_lists_those_that_ship(command: str) -> None:
    status, error = fails(command, "quikstart")
    assert status == 1
    assert (
        error
        == "seq2attn: quikstart  no such file (did you mean quickstart? `seq2attn recipes` lists those that ship)\n"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "task: taging",
            "unknown 'taging' (did you mean tagging? one of translation, summarization, tagging, ",
        ),
        (
            "task: 3",
            "expected one of translation, summarization, tagging, classification, image_classification, image_to_text, detection, segmentation, image_generation, got 3",
        ),
        ("", "is missing, and this reads as tagging: without it, it would be translation"),
    ],
)
def test_without_its_task_a_recipe_has_one_fault(tmp_path: Path, line: str, message: str) -> None:
    path, place = tmp_path / "mine.yaml", f"{{conll: {__file__}, columns: [0, -1]}}"
    data = f"data: {{train: {place}, dev: {place}}}\nmodel: {{head: {{kind: crf}}}}\ntraining: {{max_steps: 3}}\n"
    path.write_text(f"{line}\n{data}", encoding="utf-8")
    status, error = fails("check", str(path))
    assert (status, error.count("\n")) == (1, 1)
    assert error.startswith(f"seq2attn: {path}:1  task: {message}")


@pytest.mark.parametrize("part", ["--scorers", "--normalizers"])
@pytest.mark.parametrize("name", ["additve, dot", "{name: additve, size: 3}"])
def test_a_comparison_of_unknown_parts_does_not_begin(tmp_path: Path, part: str, name: str) -> None:
    status, error = fails("bench", "attention", "copy_additive", part, name, "--out", str(tmp_path / "out"))
    assert (status, error.startswith(f"seq2attn: {part}: unknown 'additve' (")) == (1, True)
    assert not (tmp_path / "out").exists()
    assert part == "--normalizers" or "did you mean additive?" in error


@pytest.mark.parametrize("command", ["train", "check"])
def test_a_faulty_recipe_has_a_line_for_each_fault(tmp_path: Path, command: str) -> None:
    path = tmp_path / "mine.yaml"
    text = shipped()["quickstart"].read_text(encoding="utf-8")
    text = text.replace("score: additive", "score: additve").replace("batch_tokens:", "batch_token:")
    path.write_text(text + "colour: red\n", encoding="utf-8")
    status, error = fails(command, str(path), "training.max_epochs=many")
    assert status == 1
    lines = error.removeprefix("seq2attn: ").splitlines()
    assert [
        re.sub(r"^.*?mine.yaml:\d+  |^command line: ", "", line).partition(": ")[0] for line in lines
    ] == [
        "model.decoder.attention.score",
        "training.batch_token",
        "colour",
        "training.max_epochs",
    ]
    assert "did you mean additive?" in lines[0]
