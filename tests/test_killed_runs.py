"""A run that is killed at any moment loads, and its training goes on."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import log
from tiny_training import loader, scripted, trainer
from torch.testing import assert_close

from seq2attn.recipe import read
from seq2attn.runtime import files as atomic
from seq2attn.training.loop import fit
from seq2attn.training.run_folder import (
    RunFolder,
    Version,
)


class KilledError(BaseException):
    """SIGKILL: nothing is tidied up."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the n-th rename from now the last thing that happens; `done`: whether it still does."""

    def at(number: int, done: bool) -> list[Path]:
        seen: list[Path] = []
        rename = os.replace

        def replace(source: Path, target: Path) -> Path:
            seen.append(Path(target))
            if len(seen) == number and done:
                rename(source, target)
            if len(seen) >= number:
                raise KilledError
            rename(source, target)
            return Path(target)

        def unlink(path: Path, missing_ok: bool = False) -> None:
            if len(seen) >= number:
                raise KilledError
            os.unlink(path)  # noqa: PTH108 - Path.unlink is what is replaced

        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(Path, "unlink", unlink)
        return seen

    return at


def test_a_file_is_as_before_or_as_after(tmp_path: Path, kill: Any) -> None:
    path = tmp_path / "file"
    atomic.write(path, b"before")
    for done, content in ((False, b"before"), (True, b"after")):
        with pytest.raises(KilledError), pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda handle: None)
            kill(1, done)
            atomic.write(path, b"after")
        assert path.read_bytes() == content


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def full(file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        atomic.write(tmp_path / "file", full)
    assert not [*tmp_path.iterdir()]


SETTINGS: dict[str, Any] = {"max_steps": 6, "validate_every": 2, "keep_last": 1}
SCORES = (1, 3, 2)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunFolder]:
    """A run that stands at step 2, and the same at its end."""
    folder = tmp_path_factory.mktemp("half")
    whole = RunFolder.create(folder / "whole", read("quickstart"), Version(seq2attn="0.1.0"))

    def report(record: dict[str, Any]) -> None:
        if record["step"] == 3:
            shutil.copytree(whole.path, folder / "half")

    fit(whole, trainer(**SETTINGS), loader(), scripted(*SCORES), report)
    return folder / "half", whole


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("number", range(1, 11))
def test_killed_at_any_rename_it_loads_and_goes_on(
    tmp_path: Path,
    half: tuple[Path, RunFolder],
    kill: Any,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    done: bool,
) -> None:
    begun, whole = half
    path = Path(shutil.copytree(begun, tmp_path / "run"))
    seen = kill(number, done)
    with pytest.raises(KilledError):
        fit(RunFolder.open(path), trainer(**SETTINGS), loader(), scripted(*SCORES[1:]))
    assert len(seen) == number
    monkeypatch.undo()
    killed = RunFolder.open(path)
    assert all(killed.content(name) for name in killed.version.checksums)
    best = whole.load_weights("best") if killed.version.best == whole.version.best else None
    assert_close(killed.load_weights("best"), best or killed.load_weights("step-00000002.safetensors"))
    state = killed.load_state()
    assert state is not None
    left = SCORES[state["progress"]["step"] // 2 :]

    def report(record: dict[str, Any]) -> None:
        RunFolder.open(path).load_weights("best")  # there is always a best

    fit(RunFolder.open(path), trainer(**SETTINGS), loader(), scripted(*left, SCORES[-1]), report)
    assert RunFolder.open(path).version == whole.version
    assert log(path) == log(whole.path)
    assert {file.name for file in path.rglob("*")} == {file.name for file in whole.path.rglob("*")}


def test_these_are_all_renames(tmp_path: Path, half: tuple[Path, RunFolder], kill: Any) -> None:
    path = Path(shutil.copytree(half[0], tmp_path / "run"))
    seen = kill(1000, False)
    fit(RunFolder.open(path), trainer(**SETTINGS), loader(), scripted(*SCORES[1:]))
    assert len(seen) == 10
    state, version = path / "training_state.pt", path / "version.json"
    weights = [path / "weights" / f"step-{step:08d}.safetensors" for step in (4, 6)]
    saved = [[one, version, state, version] for one in weights]
    assert seen == [version, path / "log.jsonl", *saved[0], *saved[1]]


AVERAGED: dict[str, Any] = {"max_steps": 2, "validate_every": 1, "keep_last": 2, "average": 2}


@pytest.mark.parametrize("done", [False, True])
def test_killed_at_any_rename_from_the_start_it_can_be_resumed(
    tmp_path: Path, kill: Any, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """From before the first state to after the average. Weights are never lost without newer ones."""

    def train(run: RunFolder) -> None:
        state = run.load_state()
        at = 0 if state is None else state["progress"]["step"]
        fit(run, trainer(**AVERAGED), loader(), scripted(*(3, 1, 2)[at:]))

    whole = RunFolder.create(tmp_path / "whole", read("quickstart"), Version(seq2attn="0.1.0"))
    seen = kill(1000, False)
    train(whole)
    monkeypatch.undo()
    assert [path.name for path in seen[:2]] == ["version.json", "training_state.pt"]
    for number in range(1, len(seen) + 1):
        run = RunFolder.create(tmp_path / f"run-{number}", read("quickstart"), Version(seq2attn="0.1.0"))
        kill(number, done)
        with pytest.raises(KilledError):
            train(run)
        monkeypatch.undo()
        killed = RunFolder.open(run.path)
        assert all(killed.content(name) for name in killed.version.checksums)
        assert killed.version.best in (*killed.weights, "")
        train(killed)
        assert RunFolder.open(run.path).version == whole.version
        assert {file.name for file in run.path.rglob("*")} == {file.name for file in whole.path.rglob("*")}


def test_creation_is_whole_or_not_there(tmp_path: Path, kill: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 4):
        kill(number, False)
        with pytest.raises(KilledError):
            RunFolder.create(tmp_path / "run", read("quickstart"), Version(seq2attn="0.1.0"))
        monkeypatch.undo()
        assert not (tmp_path / "run").exists()
    RunFolder.create(tmp_path / "run", read("quickstart"), Version(seq2attn="0.1.0"))
