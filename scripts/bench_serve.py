"""Measure a server under load: lines a second, latency, memory, and whether every answer is right.

    python scripts/bench_serve.py runs/quickstart --clients 1,8,64
    python scripts/bench_serve.py runs/quickstart --clients 1000 --seconds 300
    python scripts/bench_serve.py runs/quickstart --beside 10000

It starts `seq2attn serve` on a free port of 127.0.0.1, and ends it. Each client sends a line, waits for its
translation, and sends the next one, for --seconds. Before, `Translator.translate` translates the same lines
at once with as many threads: the column `of translate` is the share of its speed, and an answer is wrong if
its text is not that of translate. `CPU` is the processor time of the server for a line, in milliseconds, and
`CPU of translate` that of translate divided by it: it does not depend on what else the machine does.
p50, p95 and p99 are percentiles of the time of a request in milliseconds. Memory is that of the server's
process, in MB.

With --beside, one request has so many lines, and a single client sends lines in the meantime: `batches` is
the largest number of batches that were computed while one of its requests waited.
"""

import argparse
import http.client
import json
import lzma
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from bench_models import positive, positives

from seq2attn.inference.translator import Translator
from seq2attn.tasks.loading import load

SAMPLE = Path(__file__).parents[1] / "seq2attn" / "samples" / "tatoeba_de_en" / "test.tsv.xz"
HEADS = (
    *("clients", "lines/s", "of translate", "CPU", "CPU of translate", "p50", "p95", "p99"),
    *("requests", "refused", "wrong", "lost", "memory"),
)
PATIENCE = 600  # seconds that a client waits for an answer


class Answer(NamedTuple):
    """An answer to a client."""

    seconds: float
    status: int  # 0: there was none
    right: bool


class Server:
    """A server in a process of its own."""

    def __init__(self, run: Path, options: Sequence[str]) -> None:
        command = [sys.executable, "-m", "seq2attn", "serve", f"model={run}", "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        log = cast(IO[str], self.process.stderr)
        first = log.readline()
        if not first.startswith("{"):
            sys.exit(first + log.read())
        self.port = json.loads(first)["port"]
        # its log must be read, or the server would wait
        threading.Thread(target=deque, args=(log, 0), daemon=True).start()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def counted(self, name: str) -> float:
        """A number of /metrics."""
        connection = self.connect()
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        found = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return float(found[0].rsplit(" ", 1)[1]) if found else 0.0

    def cpu(self) -> float:
        """The seconds of processor time that it has used; on Linux."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def ask(connection: http.client.HTTPConnection, texts: list[str]) -> tuple[int, list[str]]:
    """Return the status of an answer, and the translations."""
    body = json.dumps({"texts": texts})
    connection.request("POST", "/v1/translate", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    return answer.status, [entry["text"] for entry in content.get("translations", [])]


def work(
    server: Server, lines: list[str], expected: dict[str, str], start: int, end: float, answers: list[Answer]
) -> None:
    """Send line after line until the end."""
    connection, number = server.connect(), start
    while time.monotonic() < end:
        line = lines[number % len(lines)]
        begin, number = time.monotonic(), number + 1
        try:
            status, texts = ask(connection, [line])
        except (OSError, http.client.HTTPException):
            connection.close()
            connection = server.connect()
            answers.append(Answer(time.monotonic() - begin, 0, False))
            continue
        answers.append(Answer(time.monotonic() - begin, status, texts == [expected[line]]))
        if status in (429, 503):
            time.sleep(1)
    connection.close()


def loaded(
    server: Server, lines: list[str], expected: dict[str, str], clients: int, seconds: float
) -> tuple[list[Answer], float]:
    """Return the answers to so many clients, and the seconds until the last one."""
    begin, answers = time.monotonic(), list[Answer]()
    step = max(1, len(lines) // clients)
    threads = [
        threading.Thread(target=work, args=(server, lines, expected, n * step, begin + seconds, answers))
        for n in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, time.monotonic() - begin


class Speed(NamedTuple):
    """Lines a second, by the clock and of processor time."""

    clock: float
    cpu: float


def row(answers: Sequence[Answer], clients: int, speed: Speed, plain: Speed, memory: float) -> dict[str, Any]:
    """Return what was measured. plain: the speed of translate."""
    good = [answer for answer in answers if answer.status == 200]
    times = [1000 * answer.seconds for answer in good] or [float("nan")]
    p50, p95, p99 = (round(float(np.percentile(times, q)), 1) for q in (50, 95, 99))
    return {
        "clients": clients,
        "lines/s": round(speed.clock, 2),
        "of translate": round(speed.clock / plain.clock, 3),
        "CPU": round(1000 / speed.cpu, 2),
        "CPU of translate": round(speed.cpu / plain.cpu, 3),
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "requests": len(answers),
        "refused": sum(answer.status not in (0, 200) for answer in answers),
        "wrong": sum(not answer.right for answer in good),
        "lost": sum(not answer.status for answer in answers),
        "memory": round(memory / 2**20),
    }


def beside(server: Server, lines: list[str], count: int) -> dict[str, Any]:
    """Return how long a single client waits beside a request of `count` lines."""
    many = [lines[number % len(lines)] for number in range(count)]
    large = threading.Thread(target=ask, args=(server.connect(), many))
    large.start()
    while not server.counted("seq2attn_waiting_lines"):
        time.sleep(0.01)
    connection, times, batches = server.connect(), list[float](), list[float]()
    while large.is_alive() and len(times) < 200:
        before, begin = server.counted("seq2attn_batch_lines_count"), time.monotonic()
        ask(connection, [lines[len(times) % len(lines)]])
        times.append(1000 * (time.monotonic() - begin))
        batches.append(server.counted("seq2attn_batch_lines_count") - before)
    large.join()
    p50, p95 = (round(float(np.percentile(times, q)), 1) for q in (50, 95))
    # the last of them is its own
    return {"requests": len(times), "p50": p50, "p95": p95, "batches": int(max(batches)) - 1}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--clients", type=positives, default=[1, 8, 64], help="numbers of clients, such as 1,8,64"
    )
    parser.add_argument("--seconds", type=positive, default=20, help="of each measurement")
    parser.add_argument(
        "--lines", type=Path, help="a file of source lines; default: those of the sample that ships"
    )
    parser.add_argument("--limit", type=positive, default=500, help="lines that are used")
    parser.add_argument("--beside", type=positive, help="lines of a large request beside a single client")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("options", nargs="*", help="options of serve, after --")
    given = parser.parse_args(arguments)
    with (
        open(given.lines, encoding="utf-8")
        if given.lines
        else lzma.open(SAMPLE, "rt", encoding="utf-8") as file
    ):
        text = file.read()
    lines = [line.split("\t")[0] for line in text.splitlines() if line.strip()][: given.limit]
    translator = load(given.run, device="cpu", kind=Translator)
    translator.translate(lines[:20])  # the first one takes longer
    begin, used = time.monotonic(), time.process_time()
    results = translator.translate(lines, alignment=False)
    plain = Speed(len(lines) / (time.monotonic() - begin), len(lines) / (time.process_time() - used))
    expected = {line: result.text for line, result in zip(lines, results, strict=True)}
    print(f"translate: {plain.clock:.2f} lines/s, {1000 / plain.cpu:.2f} ms of CPU a line")
    del translator
    server, rows = Server(given.run, given.options), list[dict[str, Any]]()
    try:
        if given.beside:
            rows.append(beside(server, lines, given.beside))
            print("  ".join(f"{name} {value}" for name, value in rows[0].items()))
        else:
            print("  ".join(f"{name:>8}" for name in HEADS))
            for clients in given.clients:
                used = server.cpu()
                answers, seconds = loaded(server, lines, expected, clients, given.seconds)
                good = max(1, sum(answer.status == 200 for answer in answers))
                speed = Speed(good / seconds, good / (server.cpu() - used))
                memory = server.counted("seq2attn_resident_memory_bytes")
                rows.append(row(answers, clients, speed, plain, memory))
                print("  ".join(f"{rows[-1][name]:>{max(8, len(name))}}" for name in HEADS), flush=True)
    finally:
        server.stop()
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
