"""Resuming never loses what was trained: it is exact, or refused with advice."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import log
from tiny_training import loader, scripted, steps, trainer

import seq2attn
from seq2attn.recipe import read
from seq2attn.training.loop import fit
from seq2attn.training.run_folder import RunError, RunFolder, Version

SETTINGS: dict[str, Any] = {"max_steps": 6, "validate_every": 2, "keep_last": 9}
OLD = Path(__file__).parent


class StoppedError(Exception):
    """Training is ended here."""


def new(path: Path) -> RunFolder:
    return RunFolder.create(path, read("quickstart"), Version(seq2attn="0.1.0"))


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; beside it are the states of its steps."""
    run = new(tmp_path_factory.mktemp("trained") / "run")

    def report(record: dict[str, Any]) -> None:
        if record["step"] % 2:
            shutil.copy(run.path / "training_state.pt", run.path.with_name(f"state-{record['step'] - 1}.pt"))
            shutil.copy(run.path / "version.json", run.path.with_name(f"version-{record['step'] - 1}.json"))

    fit(run, trainer(**SETTINGS), loader(), scripted(1, 3, 2), report)
    return run.path


@pytest.fixture
def copy(tmp_path: Path, trained: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.parametrize("every", [1, 2, 100])
def test_weights_without_a_state_are_never_trained_over(tmp_path: Path, every: int) -> None:
    run = new(tmp_path / "run")
    fit(run, trainer(max_steps=4, validate_every=every), loader(), scripted(1))
    (run.path / "training_state.pt").unlink()
    before = contents(run.path)
    with pytest.raises(RunError, match=rf"training_state.pt is missing, but {run.path} has trained weights"):
        fit(RunFolder.open(run.path), trainer(max_steps=4, validate_every=every), loader(), scripted(1))
    assert contents(run.path) == before


def test_weights_that_version_json_does_not_name_are_weights(copy: Path) -> None:
    (copy / "training_state.pt").unlink()
    shutil.copy(new(copy.with_name("fresh")).path / "version.json", copy)
    before = contents(copy)
    with pytest.raises(RunError, match="has trained weights"):
        fit(RunFolder.open(copy), trainer(**SETTINGS), loader(), scripted(1))
    assert contents(copy) == before


@pytest.mark.parametrize(("version", "message"), [("0.1", "cannot be resumed"), ("0.2", "has trained weights"), ("0.3", "has trained weights")])  # fmt: skip
def test_the_fixtures_of_all_formats_are_kept(tmp_path: Path, version: str, message: str) -> None:
    run = Path(shutil.copytree(OLD / f"model_{version}" / "run", tmp_path / "run"))
    before = contents(run)
    with pytest.raises(RunError, match=message):
        fit(RunFolder.open(run), trainer(**SETTINGS), loader(), scripted(1))
    assert contents(run) == before


def test_a_run_that_is_killed_before_its_first_update_can_be_resumed(tmp_path: Path) -> None:
    for at in (1, 2):
        run, whole = new(tmp_path / f"run-{at}"), new(tmp_path / f"whole-{at}")

        def stop(record: dict[str, Any], at: int = at) -> None:
            if record["step"] == at:
                raise StoppedError

        with pytest.raises(StoppedError):
            fit(run, trainer(**SETTINGS), loader(), scripted(1, 3, 2), stop)
        fit(RunFolder.open(run.path), trainer(**SETTINGS), loader(), scripted(1, 3, 2))
        fit(whole, trainer(**SETTINGS), loader(), scripted(1, 3, 2))
        assert RunFolder.open(run.path).version == RunFolder.open(whole.path).version
        assert log(run.path) == log(whole.path)


@pytest.mark.parametrize("step", [2, 4])
def test_later_weights_stay_until_newer_ones_are_saved(copy: Path, trained: Path, step: int) -> None:
    """An earlier state of the run is resumed, and training fails at once."""
    shutil.copy(trained.with_name(f"state-{step}.pt"), copy / "training_state.pt")
    weights = {name: content for name, content in contents(copy).items() if name.startswith("weights")}

    def stop(record: dict[str, Any]) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        fit(RunFolder.open(copy), trainer(**SETTINGS), loader(), scripted(1), stop)
    assert {name: contents(copy)[name] for name in weights} == weights
    assert steps(RunFolder.open(copy)) == [2, 4, 6]
    assert RunFolder.open(copy).load_weights("best").keys()
    fit(RunFolder.open(copy), trainer(**SETTINGS), loader(), scripted(*(3, 2)[step // 2 - 1 :]))
    assert RunFolder.open(copy).version == RunFolder.open(trained).version


def test_the_average_of_a_finished_run_stays(copy: Path) -> None:
    run = RunFolder.open(copy)
    run.save_weights("average-2.safetensors", run.load_weights("last"))
    run.version.average, run.version.scores["average-2.safetensors"] = "average-2.safetensors", [99.0, 0.0]
    run.version.best = "average-2.safetensors"
    run.commit()
    run.log({"average": 2})
    before = (RunFolder.open(copy).version, log(copy))
    fit(RunFolder.open(copy), trainer(**SETTINGS), loader(), scripted(1))
    assert (RunFolder.open(copy).version, log(copy)) == before
    assert RunFolder.open(copy).load_weights("average").keys()


def test_the_state_of_another_run_is_refused(tmp_path: Path, copy: Path) -> None:
    """Also that of the same recipe, whose tensors fit."""
    other = new(tmp_path / "other")
    fit(other, trainer(**SETTINGS), loader(), scripted(1))
    shutil.copy(other.path / "training_state.pt", copy)
    before = contents(copy)
    with pytest.raises(RunError, match=f"{copy / 'training_state.pt'} is that of another run"):
        fit(RunFolder.open(copy), trainer(**SETTINGS), loader(), scripted(1))
    assert contents(copy) == before


def test_an_older_version_json_is_refused(copy: Path, trained: Path) -> None:
    shutil.copy(trained.with_name("version-2.json"), copy / "version.json")
    before = contents(copy)
    with pytest.raises(
        RunError, match=f"{copy / 'version.json'} is older than .*, of step 6: copy both again"
    ):
        fit(RunFolder.open(copy), trainer(**SETTINGS), loader(), scripted(1))
    assert contents(copy) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("trainer"),
        lambda state: state.pop("progress"),
        lambda state: state["progress"].update(colour=3),
        lambda state: state["progress"].update(step="x"),
        lambda state: state.update(progress=None),
        lambda state: state["trainer"].update(model=[]),
        lambda state: state["trainer"]["model"].popitem(),
        lambda state: state["trainer"].update(optimizer={}),
    ],
)
def test_a_state_that_does_not_fit_is_named(copy: Path, damage: Any) -> None:
    state = torch.load(copy / "training_state.pt", weights_only=True)
    damage(state)
    torch.save(state, copy / "training_state.pt")
    with pytest.raises(
        RunError, match=f"{copy / 'training_state.pt'} does not fit the recipe's model and optim"
    ):
        fit(RunFolder.open(copy), trainer(**SETTINGS), loader(), scripted(1))


@pytest.mark.parametrize("damage", ["digit", "word", "byte", "line", "cut", "gone", "list"])
def test_a_damaged_log_is_set_aside(copy: Path, damage: str) -> None:
    path = copy / "log.jsonl"
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    changed = {
        "digit": content.replace(b'"bleu": 1', b'"bleu": 9', 1),
        "word": content.replace(b'"step"', b'"stop"', 1),
        "byte": b"\xff" + content[1:],
        "line": b"".join([lines[0], b"no record\n", *lines[1:]]),
        "cut": content[: len(content) // 2],
        "gone": b"",
        "list": b"[" * 100_000 + b"\n" + content,
    }[damage]
    assert changed != content
    path.write_bytes(changed)
    records = len(log(copy)) if damage in ("digit", "word", "gone") else None
    with pytest.warns(UserWarning, match=f"{path} is damaged .* was set aside as log.damaged.jsonl"):
        fit(RunFolder.open(copy), trainer(**SETTINGS), loader(), scripted(1))
    assert (copy / "log.damaged.jsonl").read_bytes() == changed
    assert records is None or len(log(copy)) == records - (damage == "word")
    fit(RunFolder.open(copy), trainer(**SETTINGS), loader(), scripted(1))  # without a warning
    assert json.loads((copy / "version.json").read_text())["log"][0] == path.stat().st_size


def test_a_run_of_another_task_is_refused(tmp_path: Path) -> None:
    """Also if the recipe leaves settings to the training data, which the run's recipe does not have."""
    run = RunFolder.create(tmp_path / "run", read("languages"), Version(seq2attn="0.1.0"))
    before = contents(run.path)
    with pytest.raises(
        RunError, match=r"was begun with another recipe: .*task was 'classification', now 'transl"
    ):
        seq2attn.train("quickstart", run.path, resume=True, device="cpu")
    assert contents(run.path) == before
