"""Closed streams, other encodings and Ctrl-C: an error or an exit status, never a traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_runs

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "seq2attn"]


def run(shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell command in which `seq2attn` is this package."""
    script = f"seq2attn() {{ '{sys.executable}' -m seq2attn \"$@\"; }}; {shell}"
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=settings, check=False)


def test_a_closed_standard_input_is_an_error() -> None:
    """Unlike an empty one. A command that does not read it works."""
    found = run(f"seq2attn recipes <&- >/dev/null && seq2attn translate {tiny_runs.MODEL} <&-")
    message = "standard input is closed: give a file, or send texts to it (/dev/null for none)"
    assert (found.returncode, found.stdout, found.stderr) == (1, "", f"seq2attn: {message}\n")


def test_a_closed_standard_output_is_an_error() -> None:
    found = run("seq2attn recipes >&-")
    assert (found.returncode, found.stderr) == (
        1,
        "seq2attn: standard output is closed: send it to a file, or to /dev/null\n",
    )


def test_what_is_said_to_a_closed_standard_error_is_not_among_the_results() -> None:
    found = run("seq2attn train nowhere 2>&-")
    assert (found.returncode, found.stdout) == (1, "")


def test_a_character_that_the_output_cannot_have_is_an_error() -> None:
    found = run(
        f"echo '語 語' | seq2attn translate {tiny_runs.MODEL} --format json", PYTHONIOENCODING="latin-1"
    )
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert "U+8A9E" in found.stderr and "PYTHONIOENCODING=utf-8" in found.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """`true` has ended before anything is written, so that the pipe is broken."""
    found = run("seq2attn schema | true; echo ${PIPESTATUS[0]}")
    assert (found.stdout, found.stderr) == ("1\n", "")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
@pytest.mark.parametrize("moment", ["torch loads", "the model waits"])
def test_ctrl_c_ends_a_command_with_130(moment: str) -> None:
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [*COMMAND, "translate", str(tiny_runs.MODEL)]
    with subprocess.Popen(command, env=settings, text=True, **pipes) as process:
        while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8"):
            time.sleep(0.01)
        if moment == "the model waits":
            time.sleep(4)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors.strip()) == (130, "", "")
