"""Train a small model in four processes, disturb them, compare: python scripts/check_distributed.py

Two network namespaces that a virtual cable joins stand for two machines; they, and a disk that is full, need
root on Linux and are left out without it. Only addresses of this machine are used. Arguments are names of
checks, which choose some. About six minutes on two idle cores.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from seq2attn.errors import Seq2attnError
from seq2attn.training.run_folder import RunFolder

STEPS, INTERVAL = 120, 40
RECIPE = [
    "copy_additive",
    "training.accumulate=4",
    "training.batch_tokens=250",
    f"training.max_steps={STEPS}",
]
RECIPE += [
    f"training.validate_every={INTERVAL}",
    "training.save_every=10",
    "training.metric=loss",
    "data.test=null",
]
# Adam would turn rounding into steps where a gradient is nearly 0.
RECIPE += ["training.optimizer=sgd", "training.learning_rate=0.5"]
ROUNDING = 1e-5  # of weights after all updates, beside the norm of their tensor
SOON = 60  # seconds within which processes end that have lost another
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "SEQ2ATTN_TIMEOUT": "60"}
# How often TCP asks again on a cable that is cut. With the usual 15, torchrun itself waits for its store a
# quarter of an hour; 8 are about 100 seconds, the least that RFC 1122 allows.
RETRIES = 8
NODES = {"a": "10.77.0.1", "b": "10.77.0.2"}  # namespaces, and the addresses of their ends of the cable


class Launch:
    """A call of torchrun that trains the recipe in a folder, perhaps within a network namespace."""

    def __init__(self, run: Path, options: Sequence[str], namespace: str = "") -> None:
        self.log = run.parent / f"{run.name}{namespace and '-' + namespace}.log"
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        environment = ENVIRONMENT | ({"GLOO_SOCKET_IFNAME": f"v{namespace}"} if namespace else {})
        torchrun = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "--", "seq2attn", "train"]
        command = [*inside, *torchrun, *RECIPE, "--run", str(run), "--device", "cpu", "--resume-or-start"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def ended(self, seconds: float = 600) -> int | None:
        """Return the exit status, None after so many seconds; the processes are then killed."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            for pid in [*self.workers(), self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return None

    def workers(self) -> list[int]:
        """Return the processes that torchrun has started, in the order of their ranks."""
        return [
            pid
            for _, pid in sorted((int(environment(pid)["RANK"]), pid) for pid in children(self.process.pid))
        ]

    def said(self) -> str:
        """Return the first line of the log that tells of another process."""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line for line in lines if line.startswith("seq2attn: ")), "nothing")


def children(pid: int) -> list[int]:
    """Return the processes below one that train."""
    found = list[int]()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child] if "RANK" in environment(child) else []
            found += children(child)
    return found


def environment(pid: int) -> dict[str, str]:
    """Return the environment of a process; empty if it has ended."""
    with contextlib.suppress(OSError):
        pairs = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return {}


def reached(run: Path, step: int) -> None:
    """Wait until a training has saved a step."""
    while True:
        with contextlib.suppress(OSError, Seq2attnError):
            state = RunFolder.open(run).load_state()
            if state is not None and state["progress"]["step"] >= step:
                return
        time.sleep(0.1)


def local(count: int, *options: str) -> list[str]:
    """Return the options of torchrun for processes on this machine."""
    return ["--standalone", "--nproc-per-node", str(count), *options]


def node(name: str) -> list[str]:
    """Return the options of torchrun for two processes on one of two machines."""
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{NODES['a']}:29400", "--rdzv-id", "check"]
    # Both have the host name of this machine, so torchrun cannot tell which of them is the host.
    rendezvous += ["--rdzv-conf", f"is_host={str(name == 'a').lower()}", "--local-addr", NODES[name]]
    return ["--nnodes", "2", "--nproc-per-node", "2", *rendezvous]


@contextlib.contextmanager
def two_machines() -> Iterator[None]:
    """Make two network namespaces, joined by a virtual cable, until the end of the context."""
    ip("link add va type veth peer name vb")
    try:
        for name, address in NODES.items():
            ip(f"netns add {name}")
            ip(f"link set v{name} netns {name}")
            ip(f"-n {name} addr add {address}/24 dev v{name}")
            ip(f"-n {name} link set v{name} up")
            ip(f"-n {name} link set lo up")
            ip(f"netns exec {name} sysctl -qw net.ipv4.tcp_retries2={RETRIES}")
        yield
    finally:
        for name in NODES:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[Path]:
    """Mount a disk of this size until the end of the context."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={int(megabytes * 2**20)}", "tmpfs", folder], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def four_are_one(home: Path) -> str:
    """Four processes have the weights of one."""
    for name, count in (("one", 1), ("four", 4)):
        expect(Launch(home / name, local(count)).ended() == 0, f"{name}: it failed")
    found = same(home / "one", home / "four", ROUNDING)
    return f"weights differ by {found:.1e}"


def killed_worker(home: Path) -> str:
    """A worker is killed; torchrun starts the group again, and the weights are those of no disturbance."""
    run = home / "killed"
    launch = Launch(run, local(4, "--max-restarts", "2"))
    reached(run, 50)
    os.kill(launch.workers()[2], signal.SIGKILL)
    goes_on(launch)
    same(home / "four", run)
    return "the same weights, bit by bit"


def killed_agent(home: Path) -> str:
    """The launcher is killed with all its workers, and the training is called again."""
    run = home / "agent"
    launch = Launch(run, local(4))
    reached(run, 50)
    for pid in [launch.process.pid, *launch.workers()]:
        os.kill(pid, signal.SIGKILL)
    launch.ended()
    goes_on(Launch(run, local(4)))
    same(home / "four", run)
    return "the same weights, bit by bit"


def killed_launcher(home: Path) -> str:
    """The launcher alone is killed: its workers stop and save, and the training is called again."""
    run = home / "launcher"
    launch = Launch(run, local(4))
    reached(run, 30)
    workers, start = launch.workers(), time.monotonic()
    os.kill(launch.process.pid, signal.SIGKILL)
    launch.ended()
    while any(environment(pid) for pid in workers):
        expect(time.monotonic() - start < SOON, f"workers still ran after {SOON} s")
        time.sleep(0.1)
    seconds = time.monotonic() - start
    goes_on(Launch(run, local(4)))
    same(home / "four", run)
    return f"its workers ended after {seconds:.0f} s; then the same weights, bit by bit"


def preempted(home: Path) -> str:
    """The launcher gets SIGTERM: all stop at one update and save it, and the training is called again."""
    run = home / "preempted"
    launch = Launch(run, local(4))
    reached(run, 30)
    launch.process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    expect(launch.ended(SOON) is not None, f"it did not end in {SOON} s")
    seconds, step = time.monotonic() - start, RunFolder.open(run).load_state()["progress"]["step"]
    goes_on(Launch(run, local(4)))
    same(home / "four", run)
    return f"stopped after {seconds:.0f} s at update {step}; then the same weights, bit by bit"


def full_disk(home: Path) -> str:
    """The first process cannot write: all end, and what was saved before is whole."""
    with small_disk(home / "disk", 2.5) as disk:
        run = disk / "run"
        launch = Launch(run, local(4))
        reached(run, 20)
        with contextlib.suppress(OSError), (disk / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(2**14))
                filler.flush()
        expect(launch.ended(SOON) not in (0, None), "it did not end")
        said = launch.said()
        (disk / "filler").unlink()
        goes_on(Launch(run, local(4)))
        same(home / "four", run)
    return f"{said!r}; then the same weights, bit by bit"


def machines(home: Path) -> str:
    """Two machines with two processes each have the weights of four processes on one."""
    with two_machines():
        launches = [Launch(home / "machines", node(name), name) for name in NODES]
        expect([launch.ended() for launch in launches] == [0, 0], "they failed")
    found = same(home / "four", home / "machines", ROUNDING)
    return f"weights differ by {found:.1e} from those on one machine"


def cut_cable(home: Path) -> str:
    """The cable between two machines is cut in the middle; then the training is called again."""
    run = home / "cut"
    with two_machines():
        launches = [Launch(run, node(name), name) for name in NODES]
        reached(run, 50)
        ip("-n a link set va down")
        start = time.monotonic()
        ends = [launch.ended(5 * SOON) for launch in launches]
        seconds, said = time.monotonic() - start, [launch.said() for launch in launches]
        expect(0 not in ends and None not in ends, f"exit status {ends}")
    goes_on(Launch(run, local(4)))
    found = same(home / "four", run, ROUNDING)
    return f"both ended after {seconds:.0f} s: {said}; then weights that differ by {found:.1e}"


CHECKS = [four_are_one, killed_worker, killed_agent, killed_launcher, preempted]
AS_ROOT = [full_disk, machines, cut_cable]


class CheckFailedError(Exception):
    """A check found what must not be."""


def expect(holds: bool, fault: str) -> None:
    if not holds:
        raise CheckFailedError(fault)


def goes_on(launch: Launch) -> None:
    """Let a training end that was disturbed before."""
    expect(launch.ended() == 0, "it did not go on")


def same(run: Path, other: Path, rounding: float = 0.0) -> float:
    """Return the largest difference of two trainings' last weights, beside the norm of each tensor, which is
    at most the rounding."""
    one, two = (RunFolder.open(folder).load_weights("last") for folder in (run, other))
    differences = [
        (two[name] - tensor).norm() / tensor.norm().clamp(min=1e-6) for name, tensor in one.items()
    ]
    found = max(map(float, differences))
    expect(found <= rounding, f"weights differ by {found:.1e}")
    return found


def tried(check: Callable[[Path], str], home: Path) -> bool:
    """Print what a check found, and return whether it held."""
    start = time.monotonic()
    try:
        holds, found = True, check(home)
    except CheckFailedError as error:
        holds, found = False, str(error)
    result = {
        "check": check.__name__,
        "holds": holds,
        "seconds": round(time.monotonic() - start),
        "found": found,
    }
    print(json.dumps(result, ensure_ascii=False), flush=True)
    return holds


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="check-distributed-"))
    ENVIRONMENT["SEQ2ATTN_CACHE"] = str(home / "cache")
    is_root = os.geteuid() == 0 and shutil.which("ip") is not None
    chosen = sys.argv[1:]
    checks = [
        check for check in [*CHECKS, *(AS_ROOT if is_root else [])] if not chosen or check.__name__ in chosen
    ]
    held = [tried(check, home) for check in checks]
    if not is_root:
        print("two machines and a full disk need root and the command ip: left out")
    print(f"logs and runs: {home}")
    raise SystemExit(0 if all(held) else 1)


main()
