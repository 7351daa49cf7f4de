"""What every request goes through: its token, the size and the time of its body, errors, counts, the log."""

import asyncio
import json
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seq2attn.inference.engines.registry import TORCH
from seq2attn.serving.log_records import fault, record
from seq2attn.serving.refusals import FAILED, LEFT, TOO_LARGE, UNAVAILABLE, RefusedError
from seq2attn.serving.serving import Serving

# Without a token: whether the server lives, and the page, which asks for the token itself.
OPEN = {"/", "/healthz", "/readyz", "/health", "/languages", "/frontend/settings", "/openapi.json"}
LIBRE = "/translate"  # has its token in the body, and checks it itself


class Gate:
    """Reads the whole body of a request before the routes see it, so that a slow client holds nothing up."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self.app, self.serving = app, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, answer = time.monotonic(), _Answer(send, scope)
        error: BaseException | None = None
        try:
            await self._pass(scope, receive, answer)
        except RefusedError as refused:
            error = refused.__cause__ if refused.status == FAILED else None
            await answer.refuse(refused)
        except Exception as raised:  # noqa: BLE001 - it is logged, without its message
            error = raised
            await answer.refuse(RefusedError(FAILED, "internal error: see the log of the server"))
        finally:
            route = _route(scope)
            seconds = time.monotonic() - begin
            status = answer.status or LEFT
            self.serving.counters.request(route, status, seconds)
            fields = {"method": scope["method"], "route": route, "status": status}
            more = scope.get("state", {}).get("log", {})
            more = more if error is None else {**more, **fault(error)}
            record("request", {**fields, "seconds": round(seconds, 4), **more})

    async def _pass(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        """Let the routes answer a request, if it is accepted."""
        headers, serving = Headers(scope=scope), self.serving
        scope.setdefault("state", {})["log"] = {}
        self._require_token(scope, headers)
        body = await self._body(headers, receive)
        works = scope["method"] == "POST"
        if works and serving.draining:
            raise RefusedError(UNAVAILABLE, "the server is being stopped: ask again later", retry_after=5)
        serving.accepted += works
        try:
            await self.app(scope, _replayed(body, receive), answer)
        finally:
            serving.accepted -= works

    def _require_token(self, scope: Scope, headers: Headers) -> None:
        """RefusedError without the right token, if there is one."""
        path = scope["path"]
        if path not in OPEN and path != LIBRE and not self.serving.permits(bearer(headers)):
            raise RefusedError(401, "expected the token of this server: Authorization: Bearer TOKEN")

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """Return the body. RefusedError if it is too large, or does not come in time."""
        limits = self.serving.limits
        most = limits.body
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > most:
            raise RefusedError(TOO_LARGE, f"expected a body of at most {most:,} bytes")
        try:
            return await asyncio.wait_for(_read(receive, most), limits.timeout)
        except asyncio.TimeoutError as error:
            raise RefusedError(408, f"the body did not come within {limits.timeout:g} seconds") from error


async def _read(receive: Receive, most: int) -> bytes:
    """Return a body. RefusedError if it has more than so many bytes, or if the client leaves."""
    parts, size = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(LEFT, "the client has left")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise RefusedError(TOO_LARGE, f"expected a body of at most {most:,} bytes")
        if not message.get("more_body", False):
            return b"".join(parts)


def _route(scope: Scope) -> str:
    """Return the path of the route that was asked for, also if the request was refused before it got there.
    Paths without a route are "other", so that nobody can let the counters grow."""
    if (found := scope.get("route")) is not None:
        return str(found.path)
    path: str = scope["path"]
    return path if path in scope["app"].openapi()["paths"] else "other"


def bearer(headers: Headers) -> str:
    """Return the token of a request; empty if it has none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` with this body; what comes after it is that the client leaves."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


class _Answer:
    """Sends an answer, and knows its status."""

    def __init__(self, send: Send, scope: Scope) -> None:
        self.send, self.scope, self.status, self.begun = send, scope, 0, False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Send a part of an answer."""
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-content-type-options"] = "nosniff"
            headers.setdefault("cache-control", "no-store")
            if (engine := self.scope.get("state", {}).get("engine", TORCH)) != TORCH:
                headers["x-engine"] = engine
        await self.send(message)

    async def refuse(self, refusal: RefusedError) -> None:
        """Send an error, unless an answer has begun."""
        if self.begun:
            return
        body, headers = error_answer(refusal)
        # The rest of a body that was not read would be taken for the next request.
        if refusal.status in (408, TOO_LARGE, UNAVAILABLE):
            headers["connection"] = "close"
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": refusal.status, "headers": raw})
        await self({"type": "http.response.body", "body": body})


def error_answer(refusal: RefusedError) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of an error."""
    body = json.dumps({"error": refusal.message}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return body, headers
