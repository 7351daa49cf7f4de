"""Settings of a process for training and decoding: how threads wait, and whether freed memory is kept.

The command line calls `settle()`; other programs may call it before they import torch. Settings that the user
made with environment variables are not changed.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import NoReturn

# How long OpenMP's threads spin before they sleep: GNU's in rounds, LLVM's and Intel's in milliseconds.
SPINNING = {"GOMP_SPINCOUNT": "6000", "KMP_BLOCKTIME": "1"}
MALLOC_SETTINGS = (
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "GLIBC_TUNABLES",
)
# Bytes: larger blocks, and more free memory at the end of the heap, are returned to the system.
KEPT_MEMORY = 2**30
KEPT_MEMORY_OLD_GLIBC = 2**25
ENDING = 600  # seconds; torchrun's own 30 may be less than an update or a validation takes
# Set while what fails here may be another fault than that of the first process of this machine: from when
# this process begins to meet the others until it learns that one has failed, which says so itself.
OWN_FAULT = threading.Event()
SAID = 20.0  # seconds within which the first process of a machine says what is wrong
PR_SET_PDEATHSIG = 1  # option of prctl(2)
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # numbers of M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in mallopt(3)


def settle() -> None:
    """Set up the process for computing with batches, whose tensors are made and freed all the time."""
    spin_briefly()
    keep_memory()


def spin_briefly() -> None:
    """Set how long OpenMP's threads spin before they sleep. Call it before torch is imported.

    With OpenMP's default each step takes several times as long if other processes use the cores; if threads
    sleep at once, it takes up to three times as long if none does (docs/benchmarks.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in SPINNING.items():
            os.environ.setdefault(name, value)


def keep_memory() -> None:
    """Let glibc keep freed memory for the next update, which needs as much again.

    Memory from the system costs a page fault and zeroing for each page. The process never holds more memory
    than at its peak. Without glibc this does nothing.
    """
    if sys.platform != "linux" or any(name in os.environ for name in MALLOC_SETTINGS):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    # Older versions of glibc accept at most 32 MB. If it accepts neither, its defaults must stay as they are.
    if mallopt is not None and (
        mallopt(MMAP_THRESHOLD, KEPT_MEMORY) or mallopt(MMAP_THRESHOLD, KEPT_MEMORY_OLD_GLIBC)
    ):
        mallopt(TRIM_THRESHOLD, KEPT_MEMORY)


def start_processes(count: int, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by one that starts this many processes of seq2attn with these arguments, as
    torchrun does (`runtime/launcher.py`).

    The cores are divided among them, unless OMP_NUM_THREADS is set. At Ctrl-C and SIGTERM they have
    ENDING seconds to save, unless TORCH_ELASTIC_SHUTDOWN_TIMEOUT is set.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(ENDING))
    os.execv(sys.executable, [sys.executable, "-m", "seq2attn.runtime.launcher", str(count), *arguments])


def end_with_parent() -> None:
    """Let this process get SIGTERM when the torchrun that has started it ends, however that ends. Without it
    a process would go on alone. Does nothing for other processes, and where there is no Linux."""
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def leave_to_first() -> None:
    """Wait until torchrun ends this process, before it says what is wrong, if the first one of its machine
    says the same, or the cause: what fails before processes meet, as a recipe with a fault, fails in all of
    them."""
    if not OWN_FAULT.is_set() and os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(SAID)


def is_first() -> bool:
    """Whether this process is alone or the first one of torchrun, which alone writes to the terminal."""
    return int(os.environ.get("RANK", "0")) == 0
