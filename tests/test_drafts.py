"""Temporary folders: what a killed process leaves is removed by the next one, and nothing else is."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_cli import ENVIRONMENT
from tiny_corpora import SAMPLE, recipe

from seq2attn.data import prepare
from seq2attn.recipe import read
from seq2attn.runtime import locks
from seq2attn.runtime.drafts import LOCK, draft_folder
from seq2attn.training.run_folder import RunFolder, Version

MAKING = """
import sys, time
from pathlib import Path
from seq2attn.runtime.drafts import draft_folder
with draft_folder(Path(sys.argv[1]), "run") as folder:
    (folder / "half").write_text("x")
    print(folder, flush=True)
    sys.stdin.readline()
"""


def left_behind(parent: Path, name: str = "old") -> Path:
    """The draft of a process that is gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    folder = parent / f".unfinished.{name}.x"
    folder.mkdir(parents=True)
    (folder / "half").touch()
    content = {"host": socket.gethostname(), "process": process.pid, "since": "yesterday"}
    (folder / LOCK).write_text(json.dumps(content))
    return folder


def test_a_draft_ends_with_its_context(tmp_path: Path) -> None:
    for error in (None, ZeroDivisionError):
        try:
            with draft_folder(tmp_path, "run") as folder:
                assert folder.parent == tmp_path and (folder / LOCK).exists()
                (folder / "inner").mkdir()
                if error:
                    raise error
        except ZeroDivisionError:
            pass
        assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("system", [True, False])
def test_drafts_of_killed_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: bool
) -> None:
    if not system:  # as on a file system without locks

        def flock(handle: int, operation: int) -> None:
            raise OSError(37, "No locks available")

        monkeypatch.setattr(locks.fcntl, "flock", flock)
    process = subprocess.Popen(
        [sys.executable, "-c", MAKING, str(tmp_path)],
        env=ENVIRONMENT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    theirs = Path(process.stdout.readline().strip())
    with draft_folder(tmp_path, "run") as ours:
        assert {*tmp_path.iterdir()} == {theirs, ours}
        with draft_folder(tmp_path, "run"):
            assert ours.exists() and (theirs / "half").exists()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with draft_folder(tmp_path, "run"):
            assert ours.exists() and not theirs.exists()


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    outside = left_behind(tmp_path / "outside")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".unfinished.link").symlink_to(outside)
    for name, content in (
        ("none", None),
        ("empty", ""),
        ("mine", "x"),
        ("elsewhere", '{"host": "elsewhere"}'),
    ):
        (folder / f".unfinished.{name}").mkdir()
        if content is not None:
            (folder / f".unfinished.{name}" / LOCK).write_text(content)
    (folder / ".unfinished.pipe").mkdir()
    os.mkfifo(folder / ".unfinished.pipe" / LOCK)
    (folder / "visible").mkdir()
    (folder / "visible" / LOCK).write_text((outside / LOCK).read_text())
    before = {*tmp_path.rglob("*")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "fcntl", None)  # the content decides
        with draft_folder(folder, "run"):
            pass
    assert {*tmp_path.rglob("*")} == before


@pytest.mark.usefixtures("own_cache")
def test_runs_and_stores_sweep(tmp_path: Path, own_cache: Path, vocabularies) -> None:
    left_behind(own_cache, "store")
    data = recipe(SAMPLE | {"limit": 30})
    prepare(data.train, data, vocabularies, "train")
    assert sorted(path.suffix for path in own_cache.iterdir()) == [".arrow", ".json"]
    left_behind(tmp_path / "runs")
    RunFolder.create(tmp_path / "runs" / "new", read("quickstart"), Version()).sweep()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["new"]
    folder = left_behind(tmp_path / "runs" / "new")  # in a run whose folder is the parent of another
    RunFolder.open(tmp_path / "runs" / "new").sweep()
    assert folder.exists()
