"""Callbacks see what the log has, may end a training, and cannot change one."""

import json
import random
import re
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, call

import numpy as np
import pytest
import tiny_runs
import torch

import seq2attn
from seq2attn.errors import Seq2attnError
from seq2attn.runs.training_run import Trained
from seq2attn.training.loop import Progress
from seq2attn.training.run_folder import RunFolder

PART = {"kind": "recurrent", "embedding": 6, "size": 6}
RECIPE: dict[str, Any] = {
    "data": {"languages": ["de", "en"]},
    "text": {"files": [f"{tiny_runs.MODEL}/text/{side}.model" for side in ("source", "target")]},
    "model": {
        "encoder": {**PART, "dropout": 0.2},
        "decoder": {**PART, "order": "bahdanau", "attention": {"score": "additive"}},
    },
    "training": {
        "max_steps": 5,
        "validate_every": 2,
        "log_every": 1,
        "keep_last": 3,
        "average": 2,
        "metric": "exact",
        "metrics": ["exact"],
        "attention_losses": {"coverage": 0.5},
    },
    "decoding": {"max_length": 5},
}
PAIRS = [(f"Guten Tag {n}!", f"Good day {n}!") for n in range(30)]
DATA = {"train": PAIRS, "dev": PAIRS[:3]}


def train(run: Path, *callbacks: Any, **options: Any) -> Trained:
    return seq2attn.train(
        RECIPE, run, device="cpu", display=tiny_runs.silent(), data=DATA, callbacks=callbacks, **options
    )


def log(run: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines()))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("callbacks") / "run").run


def test_callbacks_see_each_record_when_it_is_written(tmp_path: Path) -> None:
    run, seen, known = tmp_path / "run", list[dict[str, Any]](), list[bool]()

    def see(record: dict[str, Any]) -> None:
        seen.append(record)
        known.append(record in log(run))

    train(run, see)
    assert seen == log(run) and all(known)
    updates = [record for record in seen if "norm" in record]
    validations = [record for record in seen if "norm" not in record and "step" in record]
    assert [record["step"] for record in updates] == [1, 2, 3, 4, 5]
    assert [record["step"] for record in validations] == [2, 4, 5]
    keys = {"step", "epoch", "loss", "norm", "learning_rate", "tokens", "seconds", "coverage"}
    assert updates[0].keys() == keys and validations[0].keys() == {"step", "loss", "perplexity", "exact"}
    assert seen[-1].keys() == {"average", "loss", "perplexity", "exact"}


def test_callbacks_cannot_change_training(tmp_path: Path, undisturbed: Path) -> None:
    def disturb(record: dict[str, Any]) -> None:
        record.clear()
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(3)

    seen: list[dict[str, Any]] = []
    run = train(tmp_path / "run", disturb, seen.append).run
    assert seen == log(run)
    assert tiny_runs.log(run) == tiny_runs.log(undisturbed)
    assert tiny_runs.weights_hash(run) == tiny_runs.weights_hash(undisturbed)


class PrunedError(Exception):
    """As that of Optuna: no error of ours."""


@pytest.mark.parametrize(("step", "validation"), [(3, False), (4, True)])
def test_an_exception_goes_through_and_the_run_can_be_resumed(
    step: int, validation: bool, tmp_path: Path, undisturbed: Path
) -> None:
    def prune(record: dict[str, Any]) -> None:
        if record.get("step") == step and ("norm" not in record) == validation:
            raise PrunedError("enough")

    run = tmp_path / "run"
    with pytest.raises(PrunedError, match=r"^enough$"):
        train(run, prune)
    state = RunFolder.open(run).load_state()
    assert state is not None and state["progress"]["step"] == step - step % 2  # saved at each validation
    steps: list[int] = []
    assert train(run, lambda record: steps.append(record.get("step", 0)), resume=True).progress.step == 5
    assert min(filter(None, steps)) == step - step % 2 + 1
    assert tiny_runs.log(run) == tiny_runs.log(undisturbed)
    assert tiny_runs.weights_hash(run) == tiny_runs.weights_hash(undisturbed)


@pytest.mark.parametrize(
    "callbacks", [print, [3], ["print"], [lambda: None], [lambda a, b: None], {print}, None]
)
def test_what_is_no_callback_is_refused_before_anything_is_made(callbacks: Any, tmp_path: Path) -> None:
    rows = iter(PAIRS)
    with pytest.raises(Seq2attnError, match="expected callbacks as a list of functions that take a record"):
        seq2attn.train(RECIPE, tmp_path / "run", data={"train": rows, "dev": PAIRS}, callbacks=callbacks)
    assert not (tmp_path / "run").exists() and next(rows) == PAIRS[0]


RECORDS = [
    {"step": 1, "loss": 2.0, "norm": 1.0},
    {"step": 1, "loss": 3.0, "bleu": 9.0},
    {"average": 2, "loss": 3.0, "bleu": 9.5},
]


def test_the_examples_of_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for the libraries, and for training."""
    text = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    section = text.partition("\n## Callbacks")[2].partition("\n## ")[0]
    libraries = {name: MagicMock() for name in ("wandb", "mlflow", "optuna")}
    libraries["optuna"].TrialPruned = PrunedError
    for name, library in libraries.items():
        monkeypatch.setitem(sys.modules, name, library)
    names: dict[str, Any] = {"seq2attn": MagicMock()}

    def pretend(*arguments: Any, callbacks: Any) -> Any:
        for record in RECORDS:
            for callback in callbacks:
                callback(record)
        return MagicMock(progress=Progress(best=[9.0, -3.0]))

    names["seq2attn"].train = pretend
    for example in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(compile(example, "python.md", "exec"), names)  # noqa: S102 - the project's own page
    written = [
        call({"train/loss": 2.0, "train/norm": 1.0}, step=1),
        call({"dev/loss": 3.0, "dev/bleu": 9.0}, step=1),
        call({"average/average": 2, "average/loss": 3.0, "average/bleu": 9.5}, step=None),
    ]
    assert libraries["mlflow"].log_metrics.mock_calls == written
    assert libraries["wandb"].init.return_value.__enter__.return_value.log.mock_calls == written
    trial = MagicMock()
    trial.should_prune.return_value = False
    assert names["objective"](trial) == 9.0
    assert trial.report.mock_calls == [call(9.0, 1)]
    trial.should_prune.return_value = True
    with pytest.raises(PrunedError):
        names["objective"](trial)
