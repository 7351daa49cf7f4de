"""A run that was stopped or killed goes on to the same weights."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from rich.console import Console
from tiny_runs import log, weights_hash

import seq2attn
from seq2attn.training.display import Display
from seq2attn.training.run_folder import RunError, RunFolder

STATEFUL = [
    "text.sampling={alpha: 0.2}",
    "model.encoder.dropout=0.1",
    "model.encoder.embedding_dropout=0.2",
    "model.decoder.dropout=0.3",
    "model.decoder.word_dropout=0.1",
    "training.schedule={name: plateau, patience: 0, warmup: 3}",
    "training.label_smoothing=0.1",
    "training.accumulate=2",
    "training.ema=0.9",
    "training.metric=loss",
    "training.keep_best=2",
    "training.save_every=3",
    "training.max_steps=null",
    "training.max_epochs=3",
    "data.dev.limit=5",
    "data.test=null",
]
STEPS = 30  # ten an epoch
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}

PAUSE = 8  # the step at which the process waits for its signal, before the step is logged
PAUSING = f"""
import sys
from seq2attn.__main__ import main
from seq2attn.training.display import Display
show = Display.__call__
def pause(self, record):
    show(self, record)
    if "norm" in record and record["step"] == {PAUSE}:
        print("step", record["step"], flush=True)
        sys.stdin.readline()
Display.__call__ = pause
main()
"""


class Stopping(Display):
    """Sends itself a signal every few steps, as if somebody had."""

    def __init__(self, every: int) -> None:
        super().__init__(Console(file=StringIO()))
        self.every = every

    def __call__(self, record: dict[str, Any]) -> None:
        if "norm" in record and record["step"] % self.every == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, stores: None) -> Path:
    """The stateful run, uninterrupted."""
    path = tmp_path_factory.mktemp("whole") / "run"
    trained = tiny_runs.train(path, *tiny_runs.MODELS["lstm"], *STATEFUL)
    assert trained.progress.step == STEPS
    return path


def assert_the_same(run: Path, whole: Path) -> None:
    """Two runs ended with the same weights, by the same way."""
    assert weights_hash(run) == weights_hash(whole)
    assert RunFolder.open(run).version == RunFolder.open(whole).version
    assert log(run) == log(whole)


# ---- resume -----------------------------------------------------------------------------------------


def test_stopped_every_few_steps_is_as_never_stopped(tmp_path: Path, whole: Path) -> None:
    options: dict[str, Any] = {"display": Stopping(4)}
    sessions = 1
    while tiny_runs.train(
        tmp_path / "run", *tiny_runs.MODELS["lstm"], *STATEFUL, **options
    ).progress.interrupted:
        options["resume"], sessions = True, sessions + 1
    assert sessions == 8
    assert_the_same(tmp_path / "run", whole)


def test_a_training_in_half_precision_goes_on_exactly(tmp_path: Path, stores: None) -> None:
    options = [*tiny_runs.MODELS["lstm"], "training.precision=bf16", "data.dev.limit=5", "data.test=null"]
    for run, steps in (("whole", (4,)), ("parts", (2, 4))):
        for number, step in enumerate(steps):
            tiny_runs.train(tmp_path / run, *options, f"training.max_steps={step}", resume=number > 0)
    assert weights_hash(tmp_path / "parts") == weights_hash(tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "status", "last_word"),
    [
        (signal.SIGKILL, -9, None),
        (signal.SIGTERM, 143, "stopped after step {step}, everything is saved; resume with: seq2attn train "),
        (signal.SIGINT, 130, "stopped after step {step}, everything is saved; resume with: seq2attn train "),
    ],
)
def test_a_killed_process_goes_on_exactly(
    tmp_path: Path, whole: Path, number: signal.Signals, status: int, last_word: str | None
) -> None:
    run = tmp_path / "run"
    words = [*tiny_runs.SMALL, *tiny_runs.MODELS["lstm"], *STATEFUL, "--run", str(run)]
    command = [sys.executable, "-c", PAUSING, "train", "quickstart", *words]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, env=ENVIRONMENT, text=True, **pipes)
    assert process.stdin and process.stdout and process.stderr
    assert process.stdout.readline() == f"step {PAUSE}\n", process.stderr.read()
    process.send_signal(number)
    with contextlib.suppress(BrokenPipeError):  # of the process that was killed
        process.stdin.write("\n")
        process.stdin.flush()
    assert process.wait(60) == status
    said = process.stderr.read()
    assert "Traceback" not in said
    killed = [record["step"] for record in log(run) if "norm" in record]
    assert killed[-1] == PAUSE - (number == signal.SIGKILL)
    if last_word:
        line = said.splitlines()[-1]
        assert line.startswith(last_word.format(step=killed[-1]))
        assert line.endswith(f"--run {run} --device auto --resume")
    if number == signal.SIGTERM:
        again = said.partition("resume with: ")[2]  # what it says to do is done
        subprocess.run(
            f"{sys.executable} -m {again}", shell=True, env=ENVIRONMENT, check=True, capture_output=True
        )
    else:
        tiny_runs.train(run, *tiny_runs.MODELS["lstm"], *STATEFUL, resume=True)
    assert_the_same(run, whole)


def test_another_recipe_is_refused(tmp_path: Path, runs: dict[str, Path]) -> None:
    run = shutil.copytree(runs["lstm"], tmp_path / "run")
    other = ["training.learning_rate=0.5", "model.decoder.size=15", "training.max_steps=60"]
    before = RunFolder.open(run).recipe
    with pytest.raises(RunError) as caught:
        tiny_runs.train(run, *tiny_runs.MODELS["lstm"], *other, resume=True)
    assert (
        f"{run} was begun with another recipe: model.decoder.size was 14, now 15; "
        "training.learning_rate was 0.01, now 0.5. Continue"
    ) in str(caught.value)
    assert f"Continue with `train('{run}/recipe.yaml', run='{run}', resume=True)`" in str(caught.value)
    assert RunFolder.open(run).recipe == before


def test_a_run_may_last_longer(tmp_path: Path, runs: dict[str, Path]) -> None:
    run = shutil.copytree(runs["lstm"], tmp_path / "run")
    longer = tiny_runs.train(
        run,
        *tiny_runs.MODELS["lstm"],
        "training.max_steps=52",
        "training.early_stopping={patience: 9}",
        resume=True,
    )
    assert longer.progress.step == 52
    assert [record["step"] for record in log(run) if "norm" in record] == [*range(1, 53)]
    assert RunFolder.open(run).recipe.training.max_steps == 52
    again = seq2attn.train(run / "recipe.yaml", run, resume=True, display=tiny_runs.silent())
    assert again.progress.step == 52


def test_other_data_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "pairs.tsv"
    text.write_text("Guten Tag!\tGood day!\n" * 3)
    recipe = [f"data.train={{table: {text}}}", "data.dev.limit=2", "data.test=null", *tiny_runs.READY]
    recipe += ["data.filter.duplicates=true", "training.max_steps=2"]
    run = tiny_runs.train(tmp_path / "run", *tiny_runs.MODELS["lstm"], *recipe).run
    text.write_text("Guten Tag!\tGood morning!\n" * 3)
    with pytest.raises(RunError, match=f"the training data are not those with which {run} was begun"):
        tiny_runs.train(run, *tiny_runs.MODELS["lstm"], *recipe, resume=True)
