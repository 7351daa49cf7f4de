"""What the command line asks of the machine: only what nobody else has said."""

import ctypes
import os
import subprocess
import sys

import pytest
import tiny_cli

from seq2attn.runtime.process import KEPT_MEMORY, MMAP_THRESHOLD, TRIM_THRESHOLD, keep_memory, spin_briefly

WAITS = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.mark.parametrize(
    ("said", "waits"),
    [
        ({}, ("6000", "1")),
        ({"GOMP_SPINCOUNT": "7"}, ("7", "1")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, (None, None)),
    ],
)
def test_waiting_threads_spin_as_long_as_the_user_says(monkeypatch, said, waits):
    monkeypatch.setattr(os, "environ", dict(said))
    spin_briefly()
    assert tuple(map(os.environ.get, WAITS)) == waits


class Library:
    """What stands for the C library, which refuses what is too large."""

    def __init__(self, most: int = KEPT_MEMORY) -> None:
        self.tuned: list[tuple[int, int]] = []
        self.most = most

    def mallopt(self, name: int, value: int) -> int:
        if name == MMAP_THRESHOLD and value > self.most:
            return 0
        self.tuned.append((name, value))
        return 1


@pytest.mark.parametrize(
    ("platform", "said", "tuned"),
    [
        ("linux", {}, [(MMAP_THRESHOLD, KEPT_MEMORY), (TRIM_THRESHOLD, KEPT_MEMORY)]),
        ("linux", {"MALLOC_ARENA_MAX": "2"}, [(MMAP_THRESHOLD, KEPT_MEMORY), (TRIM_THRESHOLD, KEPT_MEMORY)]),
        ("linux", {"MALLOC_TRIM_THRESHOLD_": "1"}, []),
        ("linux", {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1"}, []),
        ("darwin", {}, []),
        ("win32", {}, []),
    ],
)
def test_memory_is_kept_where_nobody_says_otherwise(monkeypatch, platform, said, tuned):
    library = Library()
    monkeypatch.setattr(os, "environ", dict(said))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_memory()
    assert library.tuned == tuned


@pytest.mark.parametrize(
    ("most", "tuned"), [(2**25, [(MMAP_THRESHOLD, 2**25), (TRIM_THRESHOLD, KEPT_MEMORY)]), (2**20, [])]
)
def test_an_older_library_gets_what_it_takes_or_keeps_its_own_rule(monkeypatch, most, tuned):
    library = Library(most)
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_memory()
    assert library.tuned == tuned


def test_a_library_that_cannot_be_tuned_is_left_alone(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_memory()


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told")
def test_the_command_line_settles_before_torch_is_there():
    """In a process of its own: its environment, and pages that stay when memory is freed."""
    code = """
import os, sys
from seq2attn import __main__, cli
class Command:
    def main(**options): print("torch" in sys.modules, os.environ["GOMP_SPINCOUNT"], resident())
cli.cli = Command
def resident():
    def pages(): return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    block, before = bytearray(200_000_000), pages()
    del block
    return before - pages() < 100_000_000
__main__.main()
"""
    free = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", *WAITS)}
    free = {name: value for name, value in free.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=free, check=True)
    kept = str("CS_GNU_LIBC_VERSION" in os.confstr_names)
    assert done.stdout.split() == ["False", "6000", kept]


INTERRUPTING = """
import os, signal, sys
module = sys.argv.pop(1)
class Finder:
    def find_spec(name, path=None, target=None):
        if name == module:
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                if name == "click":
                    raise
                raise AttributeError("half a module") from None
sys.meta_path.insert(0, Finder)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a process in the background
from seq2attn.__main__ import main
sys.argv.insert(1, "translate")
main()
"""


@pytest.mark.parametrize("module", ["click", "torch"])
def test_ctrl_c_during_imports_ends_silently(module):
    """In those of the command line, and in a library that catches it and then fails."""
    words = [sys.executable, "-c", INTERRUPTING, module, tiny_cli.MODEL]
    done = subprocess.run(words, capture_output=True, text=True, env=tiny_cli.ENVIRONMENT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_a_process_of_torchrun_ends_when_torchrun_is_killed(tmp_path):
    """A stands for torchrun, and B for its process, which writes a file when it has got SIGTERM."""
    child = (
        "import pathlib, signal, sys, time\n"
        "from seq2attn.runtime.process import end_with_parent\n"
        f"told = pathlib.Path({str(tmp_path / 'told')!r})\n"
        "signal.signal(signal.SIGTERM, lambda *_: (told.touch(), sys.exit()))\n"
        "end_with_parent()\n"
        "print('ready', flush=True)\n"
        "time.sleep(20)\n"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "1"}
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env=environment) as started:
        assert started.stdout.readline() == b"ready\n"
        started.kill()
        started.stdout.read()  # until the child has closed it, too
    assert (tmp_path / "told").exists()
