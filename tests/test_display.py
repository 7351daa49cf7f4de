"""The lines that report training."""

import os
import re
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_runs
from rich.console import Console

import seq2attn.training.display
from seq2attn.recipe import read
from seq2attn.tasks.registry import TASKS
from seq2attn.training.display import Display, clock, training_line, validation_line


def test_the_progress_line() -> None:
    record = {"step": 50, "total": 200, "epoch": 1, "loss": 2.5, "learning_rate": 5e-4, "seconds": 60.0}
    record["batch"] = 3
    assert training_line(record, 12345.6) == (
        "step 50/200  epoch 2  12,346 tokens/s  loss 2.500  learning rate 5.00e-04  1:00  3:00 left"
    )
    assert "  12 images/s  loss" in training_line({**record, "unit": "images"}, 12.3)
    assert training_line({**record, "total": None}, 0.0).startswith("step 50  epoch 2  loss 2.500")
    assert "left" not in training_line({**record, "total": None}, 0.0)
    ended = {**record, "batch": 0}  # the next batch is another epoch's first
    assert training_line(ended, 0.0).startswith("step 50/200  epoch 1  loss 2.500")
    assert [clock(59.6), clock(3600 + 61)] == ["1:00", "1:01:01"]
    waited = {**record, "slowest_process": 3, "slowest_seconds": 0.75, "mean_seconds": 0.5}
    assert training_line(waited, 0.0).endswith("  3:00 left  process 3 takes 1.5 times the mean")
    assert training_line({**waited, "mean_seconds": 0.7}, 0.0).endswith("  3:00 left")


def test_the_validation_line() -> None:
    scores = {"loss": 1.5, "perplexity": 4.48, "bleu": 33.333, "chrf": 60.0}
    line = "dev loss 1.500  perplexity 4.48  BLEU 33.33  chrF 60.00"
    assert validation_line({"step": 7, **scores}) == f"step 7: {line}"
    assert validation_line({"average": 3, **scores}) == f"average of the last 3: {line}"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_display_shows_updates_and_keeps_validations(terminal: bool) -> None:
    file = StringIO()
    with Display(Console(file=file, force_terminal=terminal, width=120, highlight=False)) as display:
        for step in (1, 2):
            record = {"step": step, "total": 9, "epoch": 0, "loss": 2.5, "learning_rate": 1.0, "norm": 1.0}
            record["batch"] = step
            display({**record, "seconds": 2.0 * step, "tokens": 1000 * step})
        display({"step": 2, "loss": 1.5, "perplexity": 4.48, "bleu": 33.3, "chrf": 60.0})
        display.say("a [line] that stays")
    shown = file.getvalue()
    assert "step 2: dev loss 1.500" in shown
    assert "a [line] that stays" in shown
    assert ("step 2/9  epoch 1  500 tokens/s" in shown) == terminal  # without one, a line every 15 seconds


def test_progress_that_comes_fast_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(seq2attn.training.display.time, "monotonic", lambda: now[0])
    file = StringIO()
    with Display(Console(file=file, width=120, highlight=False)) as display:
        for count in range(1, 41):
            display.show(f"data.train: {count:,}000 examples read")
            now[0] += 1
    assert [int(line.split()[1][:-3]) for line in file.getvalue().splitlines()] == [1, 17, 33]


def test_a_training_says_that_it_reads(tmp_path: Path) -> None:
    shown = []

    class Listening(Display):
        def show(self, line: str) -> None:
            shown.append(line)

    display = Listening(Console(file=StringIO()))
    rows = [f"{number}\t{'a' * (number % 9)}" for number in range(1500)]
    table = tmp_path / "x.tsv"
    table.write_text("\n".join(rows), encoding="utf-8")
    settings = [f"data.train={{table: {table}}}", "training.max_steps=1", "data.test=null", *tiny_runs.READY]
    tiny_runs.train(tmp_path / "run", *tiny_runs.MODELS["lstm"], *settings, display=display)
    bar = re.compile(r"[━┄]+ +\d+%  \d+:\d\d left  ")  # of which the time is not known here
    assert all(bar.search(line) for line in shown[:2])
    assert [bar.sub("", line) for line in shown[:2]] == [
        "data.train: 1,000 examples read, 112 empty",
        "data.train: 1,500 examples read, 167 empty",
    ]


@pytest.mark.parametrize(
    ("recipe", "override", "made"),
    [
        ("quickstart", [], "the vocabulary"), ("quickstart", tiny_runs.READY, ""), ("languages", [], "the vocabulary"),
        ("digits", [], "the labels"), ("mnist_sagan", ["data.train.limit=3"], "the labels"), ("camvid_danet", [], ""), ("crohme_wap", [], "the vocabulary"),
    ],
)  # fmt: skip
def test_only_what_is_made_is_said_to_be(corpora: Path, recipe: str, override: list[str], made: str) -> None:
    checked = read(recipe, override, check_files=False)
    assert TASKS[checked.task].learned(checked) == made


def test_a_resumed_training_makes_no_vocabulary(tmp_path: Path) -> None:
    shown: list[str] = []

    class Listening(Display):
        def show(self, line: str) -> None:
            shown.append(line)

    settings = [
        "training.validate_every=1",
        "data.test=null",
        "data.train.0.limit=30",
        "text={model: char}",
        *tiny_runs.MODELS["lstm"],
    ]
    for resume, steps in ((False, 1), (True, 2)):
        display = Listening(Console(file=StringIO()))
        tiny_runs.train(
            tmp_path / "run", *settings, f"training.max_steps={steps}", display=display, resume=resume
        )
        assert ("making the vocabulary from data.train" in shown) != resume
        shown.clear()


def test_the_loss_is_a_mean_of_many_updates() -> None:
    file = StringIO()
    with Display(Console(file=file, force_terminal=True, width=120, highlight=False)) as display:
        record = {"total": 999, "epoch": 0, "learning_rate": 1.0, "norm": 1.0, "batch": 1}
        for step in range(1, 301):
            loss = 1.0 if step <= 200 else 2.0 + step % 2
            display({**record, "step": step, "loss": loss, "seconds": 2.0 * step, "tokens": 1000 * step})
    assert "step 300/999  epoch 1  500 tokens/s  loss 2.500" in file.getvalue()


def test_a_cell_of_a_notebook_has_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replaced: the lines that stay, and one line of progress."""
    shown: list[list[str]] = []
    handle = SimpleNamespace(update=lambda lines: shown.append(repr(lines).split("\n")))
    outputs: list[object] = []
    module = SimpleNamespace(display=lambda lines, display_id: outputs.append(lines) or handle)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(seq2attn.training.display, "CELL_INTERVAL", -1.0)
    file = StringIO()
    with Display(Console(file=file, force_jupyter=True, force_terminal=False)) as display:
        display.say("begun")
        record = {"total": 9, "epoch": 0, "loss": 2.5, "learning_rate": 1.0, "norm": 1.0, "batch": 1}
        for step in (1, 2):
            display({**record, "step": step, "seconds": 2.0 * step, "tokens": 1000 * step})
        display({"step": 2, "loss": 1.5, "perplexity": 4.48, "bleu": 33.3, "chrf": 60.0})
    assert len(outputs) == 1 and file.getvalue() == ""
    assert [len(lines) for lines in shown] == [1, 2, 2, 2, 2]
    assert (
        shown[1][0] == "begun" and shown[1][1].startswith("step 1/9") and shown[2][1].startswith("step 2/9")
    )
    assert shown[-1][1].startswith("step 2: dev loss 1.500")


def test_a_training_goes_on_if_nobody_reads_its_lines() -> None:
    """As in `seq2attn train quickstart 2>&1 | head -1`. Standard output is not touched."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = open(writing, "w", buffering=1)  # noqa: SIM115 - closing it raises the error again
    with pytest.MonkeyPatch.context() as patch, Display() as display:
        patch.setattr(sys, "stderr", stream)
        patch.setattr(os, "dup2", None)
        display.say("first")
        display.say("second")
    assert display.console.quiet
    with pytest.raises(BrokenPipeError):
        stream.close()
