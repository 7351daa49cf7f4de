"""A disk that is full: the error names the file, nothing unfinished stays, and training resumes exactly."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_cli import fails
from tiny_runs import log
from tiny_training import loader, scripted, trainer

from seq2attn.recipe import read
from seq2attn.runtime import files as atomic
from seq2attn.training.loop import fit
from seq2attn.training.run_folder import RunError, RunFolder, Version

SETTINGS: dict[str, Any] = {"max_steps": 6, "validate_every": 2, "keep_last": 1, "log_every": 1}
SCORES = (1, 3, 2)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing more than this to a file fails, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def drafts(folder: Path) -> list[Path]:
    return [*folder.rglob(f"{atomic.DRAFT}*")]


@pytest.mark.parametrize("size", [0, 10, 64, 5000])
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"as before")
    tensors = {"a": torch.zeros(10_000), "b": torch.ones(3)}
    for content in (bytes(10_000), lambda file: torch.save(tensors, file)):
        with files_of_at_most(size), pytest.raises(OSError, match=r"File too large: .*/file'"):
            atomic.write(path, content)
        assert [*tmp_path.iterdir()] == [path] and path.read_bytes() == b"as before"
    with files_of_at_most(size), pytest.raises(OSError, match=r"File too large: .*/file'"):
        atomic.append(path, bytes(10_000))


def test_what_is_written_is_what_torch_writes(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(10_000), "b": torch.ones(3, dtype=torch.bfloat16), "c": [1, "x"]}
    atomic.write(tmp_path / "file", lambda file: torch.save(tensors, file))
    loaded = torch.load(tmp_path / "file", weights_only=True)
    assert all(torch.equal(loaded[name], tensors[name]) for name in "ab") and loaded["c"] == tensors["c"]


def test_a_faulty_function_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    for error in (RuntimeError("faulty"), KeyboardInterrupt()):

        def content(file: Any, error: BaseException = error) -> None:
            file.write(b"half")
            raise error

        with pytest.raises(type(error)):
            atomic.write(tmp_path / "file", content)
    assert not [*tmp_path.iterdir()]


def full_at(number: int, patch: pytest.MonkeyPatch) -> list[int]:
    """Make all writes fail from the n-th on; return a list with their count."""
    count = [0]
    write = atomic._Recorder.write

    def counted(self: Any, content: Any) -> int:
        count[0] += 1
        if count[0] >= number:
            with files_of_at_most(0):
                return write(self, content)
        return write(self, content)

    patch.setattr(atomic._Recorder, "write", counted)
    return count


def test_full_at_any_write_training_resumes_to_the_same(tmp_path: Path) -> None:
    whole = RunFolder.create(tmp_path / "whole", read("quickstart"), Version())
    with pytest.MonkeyPatch.context() as patch:
        count = full_at(10**9, patch)
        fit(whole, trainer(**SETTINGS), loader(), scripted(*SCORES))
    writes = count[0]
    assert writes > 100  # an archive is written in many pieces
    for number in (1, 2, 3, *range(4, writes, writes // 20), writes - 1, writes):
        run = RunFolder.create(tmp_path / f"run-{number}", read("quickstart"), Version())
        with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match=str(run.path)):
            full_at(number, patch)
            fit(run, trainer(**SETTINGS), loader(), scripted(*SCORES))
        assert not drafts(run.path)
        again = RunFolder.open(run.path)
        state = again.load_state()
        done = 0 if state is None else state["progress"]["step"]
        fit(again, trainer(**SETTINGS), loader(), scripted(*SCORES[done // 2 :]))
        assert RunFolder.open(run.path).version == RunFolder.open(whole.path).version
        assert log(run.path) == log(whole.path)


def test_a_run_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    for size in (0, 10, 200, 2000):
        with files_of_at_most(size), pytest.raises((OSError, RunError), match="File too large"):
            RunFolder.create(tmp_path / "run", read("quickstart"), Version(), {"text/a": bytes(10_000)})
        assert not [*tmp_path.iterdir()]


def test_the_command_line_names_the_file(tmp_path: Path) -> None:
    with files_of_at_most(100):
        status, said = fails("train", "copy_additive", "training.max_steps=1", "--run", str(tmp_path / "run"))
    assert status == 1 and "File too large: /" in said
    assert not [*tmp_path.iterdir()]
