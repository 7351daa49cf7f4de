"""What a process asks of the machine before it works: how threads wait, and where freed memory stays.

The command line does it; a program of your own may call `settle()` before it imports torch. What the user
has said in the environment is left as it is.
"""

import ctypes
import os
import sys

WAITING = {"GOMP_SPINCOUNT": "6000", "KMP_BLOCKTIME": "1"}  # GNU's OpenMP: spins; LLVM's and Intel's: ms
SAID = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
KEPT = 2**30  # bytes: larger blocks, or more that is free at the heap's end, go back to the system
KEPT_BEFORE = 2**25
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's names for them in mallopt(3), without their M_


def settle() -> None:
    """Set the machine for batches of tensors that are made and freed without end."""
    spin_briefly()
    keep_memory()


def spin_briefly() -> None:
    """How long OpenMP's threads spin before they sleep. Its own default makes each step several times as slow
    where anything else wants the cores, and sleeping at once makes it up to three times as slow where nothing
    does (docs/benchmarks.md). Before torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in WAITING.items():
            os.environ.setdefault(name, value)


def keep_memory() -> None:
    """Let glibc keep what is freed, for the next update wants as much again: from the system each page comes
    with a fault and zeros. No more memory is held than at the peak. Elsewhere it does nothing."""
    if sys.platform != "linux" or any(name in os.environ for name in SAID):
        return
    tune = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    # An older glibc may take no more than 32 MB. Where none is taken, its own rule must stay.
    if tune is not None and (tune(MMAP_THRESHOLD, KEPT) or tune(MMAP_THRESHOLD, KEPT_BEFORE)):
        tune(TRIM_THRESHOLD, KEPT)
