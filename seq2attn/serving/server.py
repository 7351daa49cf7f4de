"""A server: it listens, and when it is told to stop, it answers what it has accepted."""

import logging
import socket
import sys
import time
import warnings
from types import FrameType

import uvicorn

from seq2attn.errors import Seq2attnError
from seq2attn.serving.app import make_app
from seq2attn.serving.log_records import log_to, record
from seq2attn.serving.serving import Serving

_CONNECTIONS = 4096  # at the same time; more are refused
_CLOSING = 2  # seconds for connections that are still open when all is answered


class DrainingServer(uvicorn.Server):
    """Stops at the first signal once all accepted requests are answered, or the grace is over; and at the
    second signal at once. In the meantime it goes on listening, and says that it is being stopped."""

    def __init__(self, config: uvicorn.Config, serving: Serving) -> None:
        super().__init__(config)
        self.serving, self._until, self._told = serving, 0.0, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. Nothing is logged here: a handler may interrupt the writing of a record."""
        if self.serving.draining:
            self.force_exit = self.should_exit = True
        else:
            self.serving.draining, self._until = True, time.monotonic() + self.serving.limits.grace

    async def on_tick(self, counter: int) -> bool:
        """Return whether it is time to stop."""
        ended = await super().on_tick(counter)
        if not self.serving.draining:
            return ended
        if not self._told:
            self._told = True
            record("draining", {"accepted": self.serving.accepted})
        overdue = time.monotonic() > self._until
        if overdue and self.serving.accepted:
            self.serving.give_up()
        return ended or overdue or not self.serving.accepted


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Seq2attnError if the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Seq2attnError(
            f"cannot listen on {host}:{port}: {reason}; give another --host or --port"
        ) from error


def run(serving: Serving, host: str, port: int) -> None:
    """Serve until a signal ends it."""
    listening = listen(host, port)
    log_to(sys.stderr)
    warnings.simplefilter("ignore", UserWarning)  # of predictors: they quote texts
    if not serving.token and host not in ("127.0.0.1", "::1", "localhost"):
        record("no token: anybody who reaches this address may ask", {"host": host}, logging.WARNING)
    for pair, names in serving.pairs().items():
        if len(names) > 1:
            several = {"source": pair.source, "target": pair.target, "models": names}
            record(
                "several models have these languages: /translate takes the first", several, logging.WARNING
            )
    config = uvicorn.Config(
        make_app(serving),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_CLOSING,
    )
    address = {"host": host, "port": listening.getsockname()[1]}
    record("listening", {**address, "models": list(serving.models)})
    DrainingServer(config, serving).run(sockets=[listening])
    record("stopped", {"unanswered": serving.accepted})
