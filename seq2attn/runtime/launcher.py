"""The program behind `--processes N`: torchrun on this machine, without its tracebacks.

Whoever fails says why. Here only those are named that could not: processes that a signal has ended. The exit
status is that of the process that failed, or 128 + the signal that this program has received.
"""

import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

LEVEL = "LOGLEVEL"  # what torchrun logs, if the user says so
KILLED = "SIGKILL, as when memory runs out, or when it hangs after another has failed"


class Failure(Protocol):
    """How a process has ended, as torchrun tells it."""

    @property
    def exitcode(self) -> int:
        """Its exit status, or minus the signal that has ended it."""


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run this many processes of seq2attn with these arguments; return the exit status of all together."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    if LEVEL not in os.environ:
        logging.disable(logging.ERROR)  # torch's, in this process alone
    # After "--" torchrun does not take options of seq2attn for its own.
    options = ["--standalone", "--nproc-per-node", str(count), "-m", "--", "seq2attn"]
    try:
        run(parse_args([*options, *arguments]))
    except ChildFailedError as error:
        status, lines = told(error.failures)
        for line in lines:
            print(f"seq2attn: {line}", file=sys.stderr)
        return status
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def told(failures: Mapping[int, Failure]) -> tuple[int, list[str]]:
    """Return the exit status for failed processes, by rank, and lines about those that a signal has ended.

    torchrun ends the others by SIGTERM when one has failed: they are no cause.
    """
    ends = {rank: failure.exitcode for rank, failure in sorted(failures.items())}
    causes = {rank: end for rank, end in ends.items() if end != -signal.SIGTERM} or ends
    killed = {rank: -end for rank, end in causes.items() if end < 0}
    lines = [f"process {rank} was ended by {_name(number)}" for rank, number in killed.items()]
    if killed:
        return 128 + next(iter(killed.values())), lines
    return next(iter(causes.values())), lines


def _name(number: int) -> str:
    return KILLED if number == signal.SIGKILL else signal.Signals(number).name


if __name__ == "__main__":
    try:
        sys.exit(launch(int(sys.argv[1]), sys.argv[2:]))
    except KeyboardInterrupt:  # while torch was imported
        sys.exit(128 + signal.SIGINT)
