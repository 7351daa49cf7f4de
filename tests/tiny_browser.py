"""A browser without a window, by Chromium's own protocol over pipes: pages are opened, clicked and typed into."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe",
    "--no-first-run", "--disable-extensions", "--disable-background-networking", "--force-device-scale-factor=1",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-features=IsolateSandboxedIframes",
]  # fmt: skip
ARROWS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Escape": 27}


def found() -> str | None:
    """The program of a browser that is installed."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page in a browser."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer, self._number = write, read, b"", 0
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and keep the events that come before its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            content = os.read(self._read, 1 << 20)
            assert content, "the browser has ended"
            self._buffer += content
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def open(self, path: Path, fragment: str = "", size: tuple[int, int] = (1180, 800)) -> None:
        """Open a file, with nothing left of the page before."""
        self.visit(path.resolve().as_uri() + fragment, size)

    def visit(self, url: str, size: tuple[int, int] = (1180, 800)) -> None:
        """Open an address, likewise."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events[-1:]):
            self.events.append(self._next())
            if self.run("document.readyState") == "complete" and self.run("location.href") != "about:blank":
                break

    def run(self, code: str) -> Any:
        """The value of an expression in the page; of a promise, what it becomes."""
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def await_(self, condition: str) -> None:
        """Wait until an expression in the page is true."""
        code = f"const look = () => ({condition}) ? done() : tries++ > 6000 ? fail() : setTimeout(look, 10)"
        self.run(f"new Promise((done, fail) => {{ let tries = 0; {code}; look(); }})")

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        text = {} if key in ARROWS else {"text": key}
        code = {"windowsVirtualKeyCode": ARROWS.get(key, ord(key[0].upper()))}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, **code, **(text if kind == "keyDown" else {})
            )

    def move(self, selector: str, click: bool = False) -> None:
        """Move the pointer to the middle of an element, and click if that is wanted."""
        code = f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'nearest'}}); "
        code += (
            "const b = e.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        x, y = self.run(code)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a selector finds."""
        return list(
            self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)")
        )

    def dark(self, wanted: bool) -> None:
        """Let the system prefer dark colours, or light ones."""
        value = "dark" if wanted else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def picture(self, path: Path) -> None:
        """Write a screenshot, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    @property
    def faults(self) -> list[str]:
        """The errors and warnings of the page since it was opened, and what it asked a network for."""
        texts = []
        for event in self.events:
            content = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                texts.append(str(content["exceptionDetails"]))
            elif event.get("method") == "Log.entryAdded":
                texts.append(content["entry"]["text"])
            elif event.get("method") == "Network.requestWillBeSent":
                url = content["request"]["url"]
                texts += [] if url.startswith(("file:", "data:", "blob:", "about:")) else [url]
        return texts


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser; tests that use it are skipped where none is installed."""
    program = found()
    if program is None:
        pytest.skip(f"no browser: install one of {', '.join(NAMES)}")
    to_read, write = os.pipe()
    read, to_write = os.pipe()
    pipes = f"3<&{to_read} 4>&{to_write}"
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" {pipes}', "bash", program, *OPTIONS],
        pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_read)
    os.close(to_write)
    try:
        yield Browser(write, read)
    finally:
        os.close(write)
        os.close(read)
        process.terminate()
        process.wait(10)
