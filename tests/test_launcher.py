"""`--processes N` ends with one message and the exit status of one process, never with a traceback of torchrun."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed.run
from tiny_cli import ENVIRONMENT, MODEL
from torch.distributed.elastic.multiprocessing.api import SignalException

from seq2attn.runtime import launcher, process
from seq2attn.runtime.process import leave_to_first

COMMAND = [sys.executable, "-m", "seq2attn"]


@pytest.mark.parametrize(
    ("ends", "status", "lines"),
    [
        ({0: 1, 1: -15}, 1, []),
        ({1: 2, 0: -15, 2: -15}, 2, []),
        ({0: 143, 1: 143}, 143, []),
        (
            {0: -15, 1: -9},
            137,
            [
                "process 1 was ended by SIGKILL, as when memory runs out, or when it hangs after another has failed"
            ],
        ),
        ({0: 1, 3: -11}, 139, ["process 3 was ended by SIGSEGV"]),
        ({1: -15, 0: -15}, 143, ["process 0 was ended by SIGTERM", "process 1 was ended by SIGTERM"]),
    ],
)
def test_the_cause_is_told_from_those_that_were_ended_for_it(
    ends: dict[int, int], status: int, lines: list[str]
) -> None:
    failures = {rank: SimpleNamespace(exitcode=end) for rank, end in ends.items()}
    assert launcher.told(failures) == (status, lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_exit_status(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    def run(options: Any) -> None:
        assert (options.nproc_per_node, options.training_script) == ("3", "seq2attn")
        assert options.training_script_args == ["train", "x", "--run", "y"] and options.module
        raise SignalException("stopped", number)

    monkeypatch.setenv(launcher.LEVEL, "WARNING")  # or logs would be turned off in this process
    monkeypatch.setattr(torch.distributed.run, "run", run)
    assert launcher.launch(3, ["train", "x", "--run", "y"]) == 128 + number


def test_a_fault_of_all_processes_is_one_line() -> None:
    command = [*COMMAND, "train", "quickstart", "training.sharded=maybe", "--processes", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    said = "seq2attn: command line: training.sharded: expected true or false, got 'maybe'\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", said)


def test_what_a_process_alone_knows_it_says_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = list[float]()
    monkeypatch.setattr(process, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    leave_to_first()
    for rank in "01":
        monkeypatch.setitem(os.environ, "LOCAL_RANK", rank)
        leave_to_first()
    assert waited == [process.SAID]
    process.OWN_FAULT.set()
    try:
        leave_to_first()
    finally:
        process.OWN_FAULT.clear()
    assert waited == [process.SAID]


def test_a_fault_of_the_first_process_is_one_line_too() -> None:
    """The others wait for what it reads from a closed standard input."""
    command = f"exec '{sys.executable}' -m seq2attn translate {MODEL} --processes 2 <&-"
    ended = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    said = "standard input is closed: give a file, or send texts to it (/dev/null for none)"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"seq2attn: {said}\n")
