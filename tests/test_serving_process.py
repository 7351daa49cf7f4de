"""A real server: clients that leave or are slow, SIGTERM in the middle of its work, and its log."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_cli
import tiny_runs
import tiny_serving

pytest.importorskip("fastapi")

from seq2attn.serving.limits import Limits

PATIENCE = 60  # seconds, on a machine that does much else
SECRET = "Geheimnis"


class Served:
    """A server in a process of its own."""

    def __init__(self, token: Path, *options: str) -> None:
        command = [sys.executable, "-m", "seq2attn", "serve", f"de-en={tiny_runs.MODEL}", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--token-file", str(token), "--device", "cpu", *options],
            env=tiny_cli.ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stderr is not None
        self.log: list[dict[str, Any]] = [json.loads(self.process.stderr.readline())]
        assert self.log[0]["event"] == "listening", self.log
        self.port = self.log[0]["port"]
        self.headers = {
            "Authorization": f"Bearer {token.read_text().strip()}",
            "Content-Type": "application/json",
        }

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and the JSON, or text, of an answer; status 0 if the server listens no longer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            method = "GET" if body is None else "POST"
            connection.request(method, path, None if body is None else json.dumps(body), self.headers)
            answer = connection.getresponse()
            content = answer.read().decode()
            return answer.status, json.loads(content) if content.startswith("{") else content
        except (ConnectionError, http.client.RemoteDisconnected):
            return 0, None
        finally:
            connection.close()

    def counted(self, name: str) -> int:
        """A number of /metrics."""
        text = self.ask("/metrics")[1]
        lines = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return int(lines[0].rsplit(" ", 1)[1]) if lines else 0

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    def stop(self) -> int:
        """Wait for the end of the process; return its exit status."""
        _, rest = self.process.communicate(timeout=PATIENCE)
        self.log += [json.loads(line) for line in rest.splitlines()]
        return self.process.returncode


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("s3cret\n")
    server = Served(token, "--max-body", "200000", "--timeout", "30")
    yield server
    with contextlib.suppress(ProcessLookupError):
        server.process.kill()
    server.process.communicate()


def test_lines_of_a_client_that_leaves_are_not_computed(served: Served) -> None:
    before = served.counted("seq2attn_lines_total")
    body = json.dumps({"texts": [f"Tom ist {number} mal nicht hier." for number in range(2000)]}).encode()
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        head = f"POST /v1/translate HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in served.headers.items())
        connection.sendall(head.encode() + b"\r\n" + body)
        served.wait(lambda: served.counted("seq2attn_waiting_lines") > 0)
    served.wait(lambda: served.counted("seq2attn_waiting_lines") == 0)
    assert served.ask("/v1/translate", {"text": "Hilfe!"})[0] == 200  # the batch in hand is at its end
    assert served.counted("seq2attn_lines_total") - before < 1000


def test_a_slow_client_and_broken_ones_hold_nothing_up(served: Served) -> None:
    slow = socket.create_connection(("127.0.0.1", served.port))
    slow.sendall(b"POST /v1/translate HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nAuthor")
    for rubbish in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 70_000,
        b"\r\n\r\n\r\n",
    ):
        with (
            socket.create_connection(("127.0.0.1", served.port)) as broken,
            contextlib.suppress(ConnectionError),
        ):
            broken.sendall(rubbish)
            broken.shutdown(socket.SHUT_WR)
            assert b"Traceback" not in broken.recv(10_000)
    assert served.ask("/v1/translate", {"text": "Hilfe!"})[1]["translations"][0]["text"] == "Please help."
    assert served.ask("/v1/translate", {"text": "a" * 200_000})[0] == 413
    slow.close()


def test_sigterm_lets_accepted_requests_end_and_refuses_new_ones(served: Served) -> None:
    answers: dict[int, tuple[int, Any]] = {}

    def ask(number: int) -> None:
        answers[number] = served.ask("/v1/translate", {"texts": [f"{SECRET} {number}."] * 40})

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for one in asking:
        one.start()
    served.wait(lambda: served.counted("seq2attn_waiting_lines") > 100)
    served.process.send_signal(signal.SIGTERM)
    late = [served.ask("/v1/translate", {"text": SECRET})]
    while late[-1][0] not in (503, 0):  # until the signal has arrived
        late.append(served.ask("/v1/translate", {"text": SECRET}))
    ready = served.ask("/readyz")[0]
    for one in asking:
        one.join(PATIENCE)
    assert len(answers) == 5
    for status, answer in answers.values():
        assert status == 200 and len(answer["translations"]) == 40, answer
    assert all(status in (200, 503, 0) for status, _ in late) and ready in (503, 0)
    assert late[-1][0] == 503 and "being stopped" in late[-1][1]["error"]
    assert served.stop() == 0


def test_its_log_is_json_without_texts_and_tokens(served: Served) -> None:
    """After the test above: its server has ended."""
    assert served.process.returncode == 0
    events = [entry["event"] for entry in served.log]
    assert events[0] == "listening" and events[-1] == "stopped" and "draining" in events
    assert served.log[-1]["unanswered"] == 0
    requests = [entry for entry in served.log if entry["event"] == "request"]
    assert {"method", "route", "status", "seconds"} <= requests[0].keys()
    assert any(entry["route"] == "/v1/translate" and entry.get("lines") == 40 for entry in requests)
    assert any(entry["status"] == 499 for entry in requests)
    written = json.dumps(served.log)
    assert SECRET not in written and "s3cret" not in written and "Hilfe" not in written


def test_sigkill_loses_no_answer_unnoticed_and_a_new_start_serves(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    killed, answers = Served(tmp_path / "token"), list[tuple[int, Any]]()

    def ask() -> None:
        answers.append(killed.ask("/v1/translate", {"texts": [f"{SECRET}."] * 400}))

    asking = [threading.Thread(target=ask) for _ in range(5)]
    for one in asking:
        one.start()
    killed.wait(lambda: killed.counted("seq2attn_waiting_lines") > 100)
    killed.process.kill()
    for one in asking:
        one.join(PATIENCE)
    assert killed.stop() == -signal.SIGKILL
    assert len(answers) == 5 and any(status == 0 for status, _ in answers)
    assert all(status == 0 or len(answer["translations"]) == 400 for status, answer in answers)
    again = Served(tmp_path / "token", "--port", str(killed.port))  # nothing is left that is in its way
    assert again.port == killed.port
    assert again.ask("/v1/translate", {"text": "Hilfe!"})[1]["translations"][0]["text"] == "Please help."
    again.process.terminate()
    assert again.stop() == 0


def test_what_is_not_done_within_the_grace_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In this process, with a model that takes its time for each batch."""
    import uvicorn

    from seq2attn.serving.app import make_app
    from seq2attn.serving.server import DrainingServer

    def slow(_: Any, texts: list[str], *__: Any, **___: Any) -> list[Any]:
        time.sleep(0.1)
        return [None] * len(texts)

    state = tiny_serving.serving(limits=Limits(grace=0.0))
    monkeypatch.setattr(type(tiny_serving.translator()), "results", slow)
    server = DrainingServer(uvicorn.Config(make_app(state), port=0, log_config=None), state)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    body = json.dumps({"texts": ["Tom"] * 10_000})
    connection.request("POST", "/v1/translate", body, {"Content-Type": "application/json"})
    while not state.models["de-en"].waiting.weight:
        time.sleep(0.01)
    server.handle_exit(signal.SIGTERM, None)
    answer = connection.getresponse()
    assert answer.status == 503 and "the server stopped before this was computed" in answer.read().decode()
    thread.join(PATIENCE)
    assert not thread.is_alive() and not state.accepted


def test_the_measure_of_a_server_counts_what_is_refused_wrong_and_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(tiny_cli.ROOT / "scripts"))
    from bench_serve import Answer, Speed, row

    answers = [Answer(0.1, 200, True)] * 6 + [
        Answer(0.3, 200, False),
        Answer(0.1, 429, False),
        Answer(9.0, 0, False),
    ]
    told = row(answers, 3, Speed(7.0, 40.0), Speed(10.0, 50.0), 2**20)
    assert {name: told[name] for name in ("requests", "refused", "wrong", "lost")} == {
        "requests": 9, "refused": 1, "wrong": 1, "lost": 1
    }  # fmt: skip
    assert (told["of translate"], told["CPU of translate"], told["CPU"]) == (0.7, 0.8, 25.0)
    assert (told["p50"], told["p99"], told["memory"]) == (100.0, 288.0, 1)


def test_an_address_that_is_taken_and_a_token_that_is_none_are_errors(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    run = str(tiny_runs.MODEL)
    status, message = tiny_cli.fails("serve", run, "--token-file", str(tmp_path / "token"))
    assert status == 1 and "expected a token" in message
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, message = tiny_cli.fails("serve", run, "--port", port, "--device", "cpu")
    assert (
        status == 1 and f"cannot listen on 127.0.0.1:{port}" in message and "give another --host" in message
    )
    for words in (["a=x", "a=y"], ["=x"]):
        assert "expected a name of its own for each run" in tiny_cli.fails("serve", *words)[1]
