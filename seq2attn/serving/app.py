"""The application: all routes, the answers to errors, and what a server tells of itself."""

from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from seq2attn.serving import counters
from seq2attn.serving.bodies import NO_JSON
from seq2attn.serving.gate import Gate
from seq2attn.serving.image_routes import ImageRoutes
from seq2attn.serving.libretranslate import LibreTranslateRoutes
from seq2attn.serving.page import Page
from seq2attn.serving.refusals import INVALID
from seq2attn.serving.serving import Serving
from seq2attn.serving.text_routes import TextRoutes
from seq2attn.version import __version__

_ABOUT = """Translations, summaries, tags, labels, captions, objects and classes of pixels, by seq2attn.

A result does not depend on what else is asked at the same time. All errors are `{"error": "..."}`."""


def make_app(serving: Serving) -> FastAPI:
    """Return the application. It starts the threads of the models, and ends them when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        serving.start()
        yield
        serving.stop()

    app = FastAPI(
        title="seq2attn",
        description=_ABOUT,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        exception_handlers={RequestValidationError: _bad_request, HTTPException: _http_error},
    )
    # For the document alone: `Gate` asks for the token. LibreTranslate's is a value of its requests.
    token = [Security(HTTPBearer(auto_error=False))] if serving.token else []
    for routes in (TextRoutes(serving), ImageRoutes(serving)):
        app.include_router(routes.router(), dependencies=token)
    app.include_router(LibreTranslateRoutes(serving).router())
    status = _Status(serving)
    for path, handler in (
        ("/v1/models", status.models),
        ("/healthz", status.healthz),
        ("/readyz", status.readyz),
        ("/metrics", status.metrics),
    ):
        app.add_api_route(path, handler, methods=["GET"], response_model=None, tags=["server"], summary=path)
    app.add_api_route("/", status.page, methods=["GET"], response_model=None, include_in_schema=False)
    app.add_middleware(Gate, serving=serving)
    if serving.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(serving.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    return app


class _Status:
    """The handlers of what a server tells of itself."""

    def __init__(self, serving: Serving) -> None:
        self.serving, self._page = serving, Page.read()

    async def models(self) -> Response:
        """List the models, and the route of each."""
        entries = [
            {
                "name": model.name,
                "task": model.predictor.task,
                "route": f"/v1/{model.predictor.command}",
                "languages": [*model.pairs[0][:2]] if len(model.pairs) == 1 else None,
                "pairs": [[pair.source, pair.target] for pair in model.pairs],
                "aligns": model.aligns,
                "engine": model.engine,
                "checksum": model.checksum,
            }
            for model in self.serving.models.values()
        ]
        return JSONResponse({"models": entries})

    async def healthz(self) -> Response:
        """Say whether the server lives."""
        return _state(self.serving.alive, "a model has stopped")

    async def readyz(self) -> Response:
        """Say whether the server takes requests."""
        return _state(self.serving.alive and not self.serving.draining, "the server is being stopped")

    async def metrics(self) -> Response:
        """Tell what was counted, for Prometheus."""
        waiting = [(model.name, model.waiting.weight) for model in self.serving.models.values()]
        return PlainTextResponse(self.serving.counters.text(waiting), media_type=counters.MEDIA_TYPE)

    async def page(self) -> Response:
        """Show the page."""
        return HTMLResponse(self._page.html, headers=self._page.headers)


def _state(good: bool, fault: str) -> Response:
    return JSONResponse({"status": "ok"}) if good else JSONResponse({"error": fault}, 503)


async def _bad_request(request: Request, error: Exception) -> Response:
    """Return the answer to values that are bad: where, and what was expected; not what came."""
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    if any(fault["type"] == "json_invalid" for fault in faults):
        return JSONResponse({"error": NO_JSON}, 400)
    return JSONResponse({"error": "; ".join(map(_told, faults[:5]))}, INVALID)


def _told(fault: Mapping[str, Any]) -> str:
    """Return a fault: the name of the value, and what was expected."""
    path = [str(key) for key in fault["loc"] if key != "body"]
    name = ".".join(key if key.isprintable() and key.isascii() else "?" for key in path)[:100]
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{name}: {message}" if name else message


async def _http_error(request: Request, error: Exception) -> Response:
    """Return the answer to a path or a method that there is not, or a body that cannot be read."""
    if not isinstance(error, HTTPException):
        return JSONResponse({"error": "internal error"}, 500)
    if error.status_code == 400:  # of what reads JSON: its words tell less
        return JSONResponse({"error": NO_JSON}, 400)
    message = str(error.detail)
    if error.status_code == 404:
        message = "no such path: see /openapi.json"
    return JSONResponse({"error": message}, error.status_code, headers=error.headers)
