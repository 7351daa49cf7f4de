"""The routes of LibreTranslate, so that its clients can use a server of ours.

Only the interface is LibreTranslate's: what requests, answers and errors look like.
"""

from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from seq2attn.inference.translator import Translator
from seq2attn.serving.answering import decoding_of, results
from seq2attn.serving.bodies import json_of, media_type
from seq2attn.serving.documentation import answers
from seq2attn.serving.gate import bearer
from seq2attn.serving.languages import code_of, name_of
from seq2attn.serving.pairs import Pair
from seq2attn.serving.refusals import INVALID, TOO_LARGE, RefusedError
from seq2attn.serving.schemas import is_text
from seq2attn.serving.served_model import ServedModel
from seq2attn.serving.serving import Serving
from seq2attn.serving.text_routes import TextRoutes
from seq2attn.serving.text_works import Draft, Writing
from seq2attn.text.given_ids import with_tag

_EXAMPLE = {"q": "Das ist ein Haus.", "source": "de", "target": "en", "format": "text", "alternatives": 2}
_ANSWER = {"translatedText": "That is a house.", "alternatives": ["This is a house.", "It is a house."]}
_FIELDS = {
    "q": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "source": {"type": "string", "description": "A code of /languages, or auto."},
    "target": {"type": "string"},
    "format": {"type": "string", "enum": ["text", "html"], "default": "text"},
    "alternatives": {"type": "integer", "default": 0},
    "api_key": {"type": "string", "description": "The token of this server."},
}
_SCHEMA = {"type": "object", "required": ["q", "source", "target"], "properties": _FIELDS}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _SCHEMA, "example": _EXAMPLE},
            "application/x-www-form-urlencoded": {"schema": _SCHEMA},
        },
    }
}
# All that is wrong with a request is 400 here, as in LibreTranslate, and a wrong token 403.
_TOLD = {
    status: told
    for status, told in answers(_ANSWER, "A translation.").items()
    if status not in (401, 404, 415, INVALID)
} | {403: {"description": "api_key is missing or wrong."}}


class _Asked(NamedTuple):
    """A request for translations."""

    texts: list[str]
    several: bool  # whether q is a list
    source: str
    target: str
    html: bool
    alternatives: int

    @property
    def wanted(self) -> int:
        """The number of translations of each text."""
        return 1 + self.alternatives

    @property
    def options(self) -> dict[str, Any]:
        """The settings of the search that replace those of the recipe."""
        return {"nbest": self.wanted} if self.alternatives else {}

    @property
    def given_source(self) -> str | None:
        """The source language; None if it is to be found."""
        return None if self.source == "auto" else self.source


class LibreTranslateRoutes:
    """The handlers of the routes."""

    def __init__(self, serving: Serving) -> None:
        self.serving, self.texts = serving, TextRoutes(serving)

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(tags=["LibreTranslate"])
        router.add_api_route(
            "/translate",
            self.translate,
            methods=["POST"],
            response_model=None,
            responses=_TOLD,
            openapi_extra=_BODY,
            summary="Translate, as LibreTranslate does",
        )
        for path, handler in (
            ("/languages", self.languages),
            ("/health", self.health),
            ("/frontend/settings", self.settings),
        ):
            router.add_api_route(path, handler, methods=["GET"], response_model=None, summary=path)
        return router

    async def translate(self, request: Request) -> Response:
        """Translate a text or several, sentence by sentence."""
        try:
            return await self._translated(request)
        except RefusedError as refused:
            bad = refused.status in (404, INVALID, TOO_LARGE, 415)
            raise RefusedError(
                400 if bad else refused.status, refused.message, refused.retry_after
            ) from refused

    async def languages(self) -> Response:
        """List the languages, and those that each can be translated into."""
        targets: dict[str, list[str]] = {}
        for pair in self.serving.pairs():
            targets.setdefault(pair.source, []).append(pair.target)
            targets.setdefault(pair.target, [])
        return JSONResponse(
            [{"code": code, "name": name_of(code), "targets": of} for code, of in sorted(targets.items())]
        )

    async def health(self) -> Response:
        """Say whether the server lives."""
        alive = self.serving.alive
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    async def settings(self) -> Response:
        """Tell a page of LibreTranslate what the server allows."""
        source, target, _ = next(iter(self.serving.pairs()), Pair("auto", "en"))
        return JSONResponse(
            {
                "charLimit": self.serving.limits.characters,
                "frontendTimeout": 500,
                "apiKeys": bool(self.serving.token),
                "keyRequired": bool(self.serving.token),
                "suggestions": False,
                "filesTranslation": False,
                "supportedFilesFormat": [],
                "language": {
                    "source": {"code": source, "name": name_of(source)},
                    "target": {"code": target, "name": name_of(target)},
                },
            }
        )

    async def _translated(self, request: Request) -> Response:
        """Return the answer to a request for translations. RefusedError with the statuses of other routes."""
        asked = _asked(await self._values(request))
        model, most = self._model(asked), self.serving.limits.beam - 1
        if asked.alternatives > most:
            raise RefusedError(400, f"alternatives: expected at most {most}")
        translate = self._marked if asked.html else self._plain
        ranks = await translate(request, model, asked)
        written = [[*dict.fromkeys(ranked)] for ranked in zip(*ranks, strict=True)]
        entry: dict[str, Any] = {"translatedText": [texts[0] for texts in written]}
        if asked.alternatives:
            entry["alternatives"] = [texts[1:] for texts in written]
        if not asked.several:
            entry = {name: value[0] for name, value in entry.items()}
        if asked.source == "auto":
            # Nothing was detected: it is the only language that is translated into this one.
            source = next(pair.source for pair in model.pairs if pair.fits(None, asked.target))
            language = {"confidence": 0.0, "language": code_of(source)}
            entry["detectedLanguage"] = [language] * len(asked.texts) if asked.several else language
        return JSONResponse(entry)

    async def _marked(
        self, request: Request, model: ServedModel[Translator], asked: _Asked
    ) -> list[list[str]]:
        """Return the translations of texts with tags: see `_plain`."""
        tag = model.tag(asked.given_source, asked.target)
        ranks, _ = await self.texts.translate_marked(request, model, asked.texts, "html", asked.options, tag)
        return [[one.text for one in rank] for rank in ranks[: asked.wanted]]

    async def _plain(
        self, request: Request, model: ServedModel[Translator], asked: _Asked
    ) -> list[list[str]]:
        """Return the best translations of all texts, the second best, and so on: those of their sentences,
        joined. Where a sentence has fewer, its last one stands again."""
        self.serving.check(asked.texts)
        decoding = decoding_of(model.predictor, asked.options, self.serving.limits.beam)
        tag = model.tag(asked.given_source, asked.target)
        parts = await self.texts.sentences(asked.texts)
        drafts = [Draft(with_tag(sentence, tag)) for text in parts for sentence, _ in text]
        _, found = await results(request, model, Writing(model.predictor, decoding), drafts)
        ranks = []
        for rank in range(asked.wanted):
            texts = (result.nbest[min(rank, len(result.nbest) - 1)].text for result in found)
            ranks.append(["".join(next(texts) + after for _, after in text) for text in parts])
        return ranks

    async def _values(self, request: Request) -> dict[str, Any]:
        """Return what was sent, as JSON or a form. RefusedError if it is neither, or the token is wrong."""
        values: Any
        if media_type(request) in ("application/x-www-form-urlencoded", "multipart/form-data"):
            try:
                async with request.form(max_files=0, max_fields=1000) as form:
                    values = dict(form)
                    if len(several := form.getlist("q")) > 1:
                        values["q"] = several
            except HTTPException as error:
                raise RefusedError(400, "Invalid request: the form is broken") from error
        else:
            values = await json_of(request)
        if not isinstance(values, dict):
            raise RefusedError(400, "Invalid request: expected a JSON object")
        key = values.get("api_key")
        token = bearer(request.headers) or (key if isinstance(key, str) else "")
        if not self.serving.permits(token):
            raise RefusedError(
                403, "Invalid API key" if token else "Please contact the server operator to get an API key"
            )
        return values

    def _model(self, asked: _Asked) -> ServedModel[Translator]:
        """Return the model for these languages. RefusedError if there is none."""
        pairs = self.serving.pairs()
        if asked.source == "auto":
            sources = dict.fromkeys(pair.source for pair in pairs if pair.fits(None, asked.target))
            if len(sources) > 1:
                raise RefusedError(
                    400, f"languages are not detected: give source, one of {', '.join(sources)}"
                )
        elif not any(pair.fits(asked.source, None) for pair in pairs):
            raise RefusedError(400, f"{asked.source:.20} is not supported")
        source = asked.given_source
        if not any(pair.fits(source, asked.target) for pair in pairs):
            raise RefusedError(400, f"{asked.target:.20} is not supported")
        return self.serving.model(Translator, None, source, asked.target, first=True)


def _asked(values: dict[str, Any]) -> _Asked:
    """Return a request of these values. RefusedError if one is missing or bad."""
    for name in ("q", "source", "target"):
        if name not in values:
            raise RefusedError(400, f"Invalid request: missing {name} parameter")
    q, several = values["q"], isinstance(values["q"], list)
    texts = q if several else [q]
    if not all(isinstance(text, str) and is_text(text) for text in texts):
        raise RefusedError(400, "Invalid request: q is a text or a list of texts, in Unicode and without NUL")
    for name in ("source", "target", "format"):
        if not isinstance(values.get(name, ""), str) or not is_text(values.get(name, "")):
            raise RefusedError(400, f"Invalid request: {name} is a text")
    form = values.get("format") or "text"
    if form not in ("text", "html"):
        raise RefusedError(400, f"{form:.20} format is not supported")
    count = str(values.get("alternatives") or 0)
    if not count.isdecimal() or len(count) > 4:
        raise RefusedError(400, "Invalid request: alternatives is a number from 0 on")
    return _Asked(texts, several, values["source"], values["target"], form == "html", int(count))
