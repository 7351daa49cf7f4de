"""Signals end training after the update, and a resumed training ends with the same weights."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import log
from tiny_training import KINDS, Scores, loader, norm, scripted, trainer

from seq2attn.layers.basic import Dropout
from seq2attn.recipe import read
from seq2attn.training.loop import Progress, fit
from seq2attn.training.run_folder import RunFolder, Version, tensors_of
from seq2attn.training.trainer import Trainer


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", read("quickstart"), Version())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_update_saved(run: RunFolder, handlers: list[Any], number: int) -> None:
    def report(record: dict[str, Any]) -> None:
        if record["step"] == 3:
            os.kill(os.getpid(), number)

    progress = fit(run, trainer(), loader(), scripted(1.0), report)
    assert (progress.step, progress.interrupted) == (3, number)
    state = run.load_state()
    assert state is not None
    assert Progress(**state["progress"]).step == 3
    assert Progress(**state["progress"]).interrupted == 0
    assert fit(run, trainer(), loader(), scripted(1.0)).step == 8


def test_a_thread_leaves_signals_alone(run: RunFolder, handlers: list[Any]) -> None:
    ended: list[Progress] = []
    thread = threading.Thread(target=lambda: ended.append(fit(run, trainer(), loader(), scripted(1.0))))
    thread.start()
    thread.join()
    assert ended[0].step == 8


def test_a_second_ctrl_c_ends_at_once(run: RunFolder, handlers: list[Any]) -> None:
    def report(record: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(run, trainer(), loader(), scripted(1.0), report)


def test_a_signal_at_the_end_changes_nothing(run: RunFolder, handlers: list[Any]) -> None:
    def report(record: dict[str, Any]) -> None:
        if record["step"] == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    assert fit(run, trainer(), loader(), scripted(1.0), report).interrupted == 0


# ---- going on ---------------------------------------------------------------------------------------

EVERYTHING: dict[str, Any] = {
    "max_steps": None,
    "max_epochs": 3,
    "accumulate": 2,
    "ema": 0.7,
    "label_smoothing": 0.1,
    "validate_every": 2,
    "schedule": {"name": "plateau", "patience": 0, "warmup": 2},
    "keep_last": 2,
}


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize(
    ("kind", "options"), [(KINDS[0], {}), (KINDS[1], {"optimizer": "sgd", "momentum": 0.9})]
)
def test_resuming_is_exact(
    tmp_path: Path, kind: str, options: dict[str, Any], every: int, handlers: list[Any]
) -> None:
    def report(record: dict[str, Any]) -> None:
        if record["step"] % every == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    def scores(one: Trainer) -> Scores:
        """Of the weights themselves, so that they show whether they are the same."""

        def validate(limit: int | None) -> dict[str, float]:
            value = norm(tensors_of(one.model).values())
            return {"loss": value, "perplexity": value, "bleu": -value, "chrf": value}

        return validate

    def once(run: RunFolder, report: Any) -> Progress:
        one = trainer(kind, **{**EVERYTHING, **options})
        for part in one.model.modules():
            if isinstance(part, Dropout):
                part.rate = 0.3
        torch.manual_seed(5)
        return fit(run, one, loader(), scores(one), report)

    whole = RunFolder.create(tmp_path / "whole", read("quickstart"), Version())
    assert once(whole, lambda record: None).step == 9
    parts = RunFolder.create(tmp_path / "parts", read("quickstart"), Version())
    sessions = 1
    while once(RunFolder.open(parts.path), report).interrupted:
        sessions += 1
    assert sessions == 9 // every + (every > 1)
    assert RunFolder.open(parts.path).version == whole.version
    assert log(parts.path) == log(whole.path)
