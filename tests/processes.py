"""Several processes for tests, forked from this one: importing torch again would take seconds."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

TIMEOUT = 60  # seconds for which a result is waited for


def in_processes(size: int, work: Callable[[], Any]) -> list[Any]:
    """What a function returns in each of some processes, which find each other as those of torchrun do.
    RuntimeError, with the first traceback, if it raises."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ends, started = [], []
    for rank in range(size):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(there, rank, size, port, work), daemon=True)
        process.start()
        there.close()
        ends.append(here)
        started.append(process)
    try:
        results = [end.recv() if end.poll(TIMEOUT) else ("", "no answer") for end in ends]
    finally:
        for process in started:
            process.join(5)
            process.kill()
    for _, fault in results:
        if fault:
            raise RuntimeError(fault)
    return [result for result, _ in results]


def _work(end: Connection, rank: int, size: int, port: int, work: Callable[[], Any]) -> None:
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in values.items()}, MASTER_ADDR="127.0.0.1")
    try:
        end.send((work(), ""))
    except (Exception, SystemExit):  # noqa: BLE001 - it goes to the process that waits
        end.send((None, traceback.format_exc()))
