"""One process at a time writes to a run folder; what a killed one leaves is taken over."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from tiny_cli import ENVIRONMENT, fails

from seq2attn.runs.training_run import average_run
from seq2attn.runtime import locks
from seq2attn.runtime.locks import LockError, locked
from seq2attn.training.run_folder import LOCK

HOLDING = """
import sys, time
from pathlib import Path
from seq2attn.runtime.locks import locked
with locked(Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(path: Path) -> "subprocess.Popen[str]":
    """A process that holds a lock until it reads a line."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(path)], env=ENVIRONMENT, text=True, **pipes
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def no_system_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system without locks."""

    def flock(handle: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", flock)


def test_a_lock_names_its_process_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, pytest.fail):
        content = json.loads(path.read_text())
        assert (content["host"], content["process"]) == (socket.gethostname(), os.getpid())
        with pytest.raises(LockError, match=f"{tmp_path} is being written to by process {os.getpid()} on "):
            locked(path, pytest.fail).__enter__()
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), locked(path, pytest.fail):
        raise ZeroDivisionError
    assert not path.exists()


def test_only_one_of_many_threads_holds_it_at_a_time(tmp_path: Path) -> None:
    inside, most, entered, refused = [0], [0], [0], list[LockError]()

    def enter() -> None:
        try:
            locked(tmp_path / "lock", pytest.fail).__enter__()
        except LockError as error:
            refused.append(error)

    with locked(tmp_path / "lock", pytest.fail):
        others = [threading.Thread(target=enter) for _ in range(4)]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join()
    assert len(refused) == 4

    def work() -> None:
        while entered[0] < 40:
            try:
                with locked(tmp_path / "lock", lambda line: None):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    entered[0] += 1
                    inside[0] -= 1
            except LockError:
                continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and not (tmp_path / "lock").exists()


def test_a_lock_that_another_process_made_anew_is_left_to_it(tmp_path: Path) -> None:
    """As after a start that failed, which removes the folder of the new run."""
    path = tmp_path / "run" / "lock"
    path.parent.mkdir()
    with contextlib.ExitStack() as other:
        with locked(path, pytest.fail):
            shutil.rmtree(path.parent)
            path.parent.mkdir()
            other.enter_context(locked(path, pytest.fail))
        with pytest.raises(LockError):
            locked(path, pytest.fail).__enter__()
    assert not path.exists()


def test_a_lock_that_its_owner_removes_in_between_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock, removed = tmp_path / "lock", locks._lock, []

    def late(handle: int, path: Path) -> None:
        if not removed:
            removed.append(path.unlink())
        lock(handle, path)

    monkeypatch.setattr(locks, "_lock", late)
    with locked(path, pytest.fail):
        assert path.exists()
        with pytest.raises(LockError):
            locked(path, pytest.fail).__enter__()


@pytest.mark.parametrize("system", [True, False])
def test_a_lock_of_a_process_that_was_killed_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: bool
) -> None:
    path = tmp_path / "lock"
    process = holder(path)
    if not system:
        no_system_locks(monkeypatch)
    with pytest.raises(LockError, match=f"by process {process.pid} on {socket.gethostname()} "):
        locked(path, pytest.fail).__enter__()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists()
    notes: list[str] = []
    with locked(path, notes.append):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert len(notes) == 1 and f"left by process {process.pid} on" in notes[0]
    assert not path.exists()


def test_without_system_locks_another_host_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "process": 7, "since": "yesterday"}))
    no_system_locks(monkeypatch)
    with pytest.raises(LockError, match=rf"process 7 on elsewhere \(since yesterday\).* delete {path}$"):
        locked(path, pytest.fail).__enter__()
    assert path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"process": "x"}', '{"process": 1e400}', "\0" * 9999])
def test_a_lock_may_hold_anything(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    with locked(tmp_path / "lock", lambda line: None):
        pass
    assert not (tmp_path / "lock").exists()


def test_a_lock_is_not_a_link_a_pipe_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, error in (("link", OSError), ("pipe", LockError), ("folder", LockError)):
        with pytest.raises(error, match=name):
            locked(tmp_path / name, pytest.fail).__enter__()
    assert (tmp_path / "target").read_text() == "mine"


def test_a_run_that_is_written_to_is_left_alone(tmp_path: Path, runs: dict[str, Path]) -> None:
    run = Path(shutil.copytree(runs["lstm"], tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    process = holder(run / LOCK)
    with pytest.raises(LockError, match=f"{run} is being written to by process {process.pid}"):
        tiny_runs.train(run, *tiny_runs.MODELS["lstm"], "training.max_steps=60", resume=True)
    with pytest.raises(LockError, match="use another folder"):
        average_run(run, 2)
    status, said = fails("average", str(run), "--last", "2")
    assert status == 1 and f"process {process.pid}" in said
    process.communicate("\n")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    (run / "weights" / ".unfinished.average-2.safetensors.x").touch()  # of a process that was killed
    average_run(run, 2)
    assert not (run / LOCK).exists() and not [*run.rglob(".unfinished.*")]
