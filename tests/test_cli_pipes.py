"""Commands in a pipe answer each line as it comes; files are read in full chunks."""

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_cli import ENVIRONMENT, MODEL

from seq2attn.cli import inputs
from seq2attn.cli.inputs import Pipe, chunks, lines
from seq2attn.errors import Seq2attnError


def answers(process: "subprocess.Popen[bytes]", line: str, seconds: float) -> str:
    """Write a line to a process, and return what it writes until there is a line feed. Fails after a time."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line.encode())
    process.stdin.flush()
    output, end = b"", time.monotonic() + seconds
    while not output.endswith(b"\n"):
        assert select.select([process.stdout], [], [], max(0, end - time.monotonic()))[0], "no answer"
        output += os.read(process.stdout.fileno(), 1000)
    return output.decode()


def test_a_co_process_answers_line_by_line() -> None:
    command = [sys.executable, "-m", "seq2attn", "translate", MODEL]
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert answers(process, "Wo ist Tom?\n", 200) == "Where's Tom?\n"  # the first waits for the model
        assert answers(process, "Tom ist nicht hier.\n", 200) == "Tom isn't here.\n"
        assert process.communicate(b"Wo ist Tom?")[0] == b"Where's Tom?\n"  # without a line feed at the end
    assert process.returncode == 0


@pytest.fixture
def pipe() -> tuple[Pipe, int]:
    reading, writing = os.pipe()
    return Pipe(reading), writing


def test_lines_that_are_there_are_computed_together(pipe: tuple[Pipe, int]) -> None:
    source, writing = pipe
    together = chunks(lines((), source), 3, source)
    os.write(writing, b"a\nb\nc\nd\ne")
    assert next(together) == ["a", "b", "c"] and next(together) == ["d"]  # e has no end yet
    os.write(writing, b"e\n\nf\n")
    assert next(together) == ["ee", "", "f"]
    os.write(writing, b"g")
    os.close(writing)
    assert [*together] == [["g"]]


def test_a_line_waits_at_most_a_moment(pipe: tuple[Pipe, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if lines come all the time, each within the patience."""
    now = 0.0
    source, writing = pipe

    def wait(reading: list[int], _: object, __: object, left: float) -> tuple[list[int], ...]:
        nonlocal now
        now += min(left, 0.04)
        if left < 0.04:
            return [], [], []
        os.write(writing, b"x\n")
        return reading, [], []

    monkeypatch.setattr(inputs.time, "monotonic", lambda: now)
    monkeypatch.setattr(inputs.select, "select", wait)
    os.write(writing, b"x\n")
    assert next(chunks(lines((), source), 1000, source)) == ["x", "x", "x"]


def test_an_endless_line_is_refused(pipe: tuple[Pipe, int], tmp_path: Path) -> None:
    """As of /dev/zero. One byte less is a line."""
    file, named = (
        tmp_path / "in",
        rf"^{tmp_path}/in:2: a line of more than 9 bytes: expected texts, one a line",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "LONGEST", 9)
        file.write_text("12345678\n123456789\n")
        with pytest.raises(Seq2attnError, match=named):
            [*lines((file,))]
        source, writing = pipe
        os.write(writing, b"12345678\n123456789")
        read = lines((), source)
        assert next(read) == "12345678"
        os.write(writing, b"0")  # the line has no end yet
        with pytest.raises(Seq2attnError, match=r"^standard input:2: a line of more than 9 bytes"):
            next(read)


def test_a_file_is_read_in_full_chunks(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\nb\nc\nd\ne\n")
    assert Pipe.open((tmp_path / "in",)) is None
    assert [*chunks(lines((tmp_path / "in",)), 2, None)] == [["a", "b"], ["c", "d"], ["e"]]
    with (tmp_path / "in").open() as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", file)
        assert Pipe.open(()) is None  # `< in`
    reading, writing = os.pipe()
    with open(reading) as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", file)
        assert isinstance(Pipe.open(()), Pipe) and isinstance(Pipe.open((Path("-"),)), Pipe)
        assert Pipe.open((Path("-"), Path("-"))) is None
    os.close(writing)
