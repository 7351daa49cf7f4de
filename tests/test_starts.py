"""How a training starts: what it records of its surroundings, and that a failed start leaves nothing."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch

import seq2attn
from seq2attn.training.display import Display
from seq2attn.training.loop import TrainingError
from seq2attn.training.run_folder import RunError, RunFolder
from seq2attn.training.trainer import Trainer

QUICK = [*tiny_runs.MODELS["lstm"], *tiny_runs.READY, "data.test=null", "data.dev.limit=2"]
STEPS = ["training={max_steps: 4, validate_every: 2, log_every: 1}"]


def failing(at: int, error: Exception) -> Any:
    """An update that fails at a step."""
    update = Trainer.update

    def fail(self: Trainer, batches: Any, step: int, company: Any = None) -> Any:
        if step == at:
            raise error
        return update(self, batches, step, company)

    return fail


FAILURES: dict[str, tuple[str, Any]] = {
    "limits": ("seq2attn.runs.training_run.total_steps", RunError("at the start")),
    "validation": ("seq2attn.runs.training_run.validator", RunError("at the start")),
    "memory": ("Trainer.update", torch.OutOfMemoryError("CUDA out of memory")),
    "loss": ("Trainer.update", FloatingPointError("the loss is nan")),
    "interrupt": ("Trainer.update", KeyboardInterrupt()),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_start_that_fails_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    place, error = FAILURES[failure]
    if place == "Trainer.update":
        monkeypatch.setattr(Trainer, "update", failing(1, error))
    else:

        def fail(*given: Any, **options: Any) -> Any:
            raise error

        monkeypatch.setattr(place, fail)
    with pytest.raises((RunError, TrainingError, KeyboardInterrupt)) as caught:
        tiny_runs.train(tmp_path / "run", *QUICK, *STEPS)
    assert not [*tmp_path.iterdir()]
    assert str(caught.value).endswith(". Nothing is saved") == isinstance(caught.value, TrainingError)
    monkeypatch.undo()


def test_a_training_that_fails_later_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (at, settings) in enumerate([(2, STEPS), (2, [*STEPS, "training.log_every=9", "training.save_every=1"]), (4, STEPS)]):  # fmt: skip
        saved = rf"\. The training until step {(0, 1, 2)[number]} is saved$"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingError, match=saved):
            patch.setattr(Trainer, "update", failing(at, FloatingPointError("the loss is nan")))
            tiny_runs.train(tmp_path / f"run-{number}", *QUICK, *settings)
        run = RunFolder.open(tmp_path / f"run-{number}")
        assert run.load_state() is not None
        assert tiny_runs.train(run.path, *QUICK, *settings, resume=True).progress.step == 4


def test_a_resume_that_fails_changes_nothing_and_unlocks(
    tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(runs["lstm"], tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.setattr("seq2attn.runs.training_run.RunFolder.load_state", lambda self: 1 / 0)
    for limits in ([], ["training.max_steps=60"]):
        with pytest.raises(ZeroDivisionError):
            tiny_runs.train(run, *tiny_runs.MODELS["lstm"], *limits, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_two_trainings_of_one_folder_make_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one began before the first had made the folder."""
    say, first = Display.say, []

    def overtaken(self: Display, text: str) -> None:
        if not first:
            first.append(True)
            tiny_runs.train(tmp_path / "run", *QUICK, *STEPS)
        say(self, text)

    monkeypatch.setattr(Display, "say", overtaken)
    monkeypatch.setattr(
        "seq2attn.runs.training_run.read_examples",
        lambda task, role, display: (display.say(role), task.examples(role))[1],
    )
    with pytest.raises(RunError, match="run exists and is not overwritten"):
        tiny_runs.train(tmp_path / "run", *QUICK, *STEPS)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert RunFolder.open(tmp_path / "run").version.last == "step-00000004.safetensors"


def test_the_surroundings_of_a_training_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["seq2attn", "train", "my recipe.yaml", "seed=3"])
    run = tiny_runs.train(tmp_path / "run", *QUICK, *STEPS).run
    kept = json.loads((run / "version.json").read_text())["environment"]
    assert kept["command"] == "seq2attn train 'my recipe.yaml' seed=3"
    assert kept["threads"] == str(torch.get_num_threads())
    assert kept["python"] == sys.version.split()[0]
    assert f"torch {torch.__version__}" in kept["packages"]
    assert kept.keys() == {"python", "platform", "cores", "threads", "packages", "command", "date"}
    seq2attn.train(
        run / "recipe.yaml", run, ["training.max_steps=5"], resume=True, display=tiny_runs.silent()
    )
    assert RunFolder.open(run).version.environment == kept


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_recipe_is_replaced_so_that_a_kill_does_no_harm(
    tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    run = RunFolder.open(shutil.copytree(runs["lstm"], tmp_path / "run"))
    before = run.recipe
    longer = before.model_copy(update={"training": before.training.model_copy(update={"max_steps": 60})})
    replaced, rename = [], Path.replace

    def killed(self: Path, target: Path) -> Path:
        if len(replaced) == at:
            raise KeyboardInterrupt
        replaced.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run.replace_recipe(longer)
    monkeypatch.undo()
    assert RunFolder.open(run.path).recipe == (longer if at == 2 else before)
    RunFolder.open(run.path).replace_recipe(longer)
    assert RunFolder.open(run.path).recipe == longer
    assert len(RunFolder.open(run.path).version.recipe) == 1


def test_an_edited_recipe_is_refused_until_it_is_accepted(tmp_path: Path, runs: dict[str, Path]) -> None:
    run = Path(shutil.copytree(runs["lstm"], tmp_path / "run"))
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("beam: 5", "beam: 4"))
    for use in (
        lambda: seq2attn.load(run),
        lambda: tiny_runs.train(run, *tiny_runs.MODELS["lstm"], resume=True),
    ):
        with pytest.raises(
            RunError, match=rf"{recipe} is damaged or was edited: .* {run}/version.json\. Restore"
        ):
            use()
    RunFolder.open(run).accept_recipe()
    assert "beam:4" in seq2attn.load(run, device="cpu").signature
