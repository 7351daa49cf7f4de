"""The routes of models that read texts: translate, summarize, align, tag, classify."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from seq2attn.alignment.markup import Kind
from seq2attn.errors import Seq2attnError
from seq2attn.inference.marked_text import MarkedTexts, MarkedTranslation
from seq2attn.inference.predictor import Predictor
from seq2attn.inference.recognizer import LabelPredictor, Recognizer
from seq2attn.inference.results import Translation
from seq2attn.inference.translator import Summarizer, TextPredictor, Translator
from seq2attn.inference.writing_predictor import WritingPredictor
from seq2attn.recipe import DecodingRecipe
from seq2attn.serving.answers import aligned, joined, labelled, marked, written
from seq2attn.serving.beginnings import Added, Beginnings
from seq2attn.serving.bodies import require_json
from seq2attn.serving.documentation import answers
from seq2attn.serving.refusals import INVALID, TOO_LARGE, RefusedError, refused
from seq2attn.serving.schemas import (
    AlignRequest,
    LabelRequest,
    NextRequest,
    SummarizeRequest,
    TranslateRequest,
    WritingRequest,
)
from seq2attn.serving.served_model import ServedModel
from seq2attn.serving.serving import Serving
from seq2attn.serving.text_works import Aligning, Continuing, Draft, Labelling, Writing
from seq2attn.serving.waiting import Ticket, Work
from seq2attn.text.given_ids import with_tag
from seq2attn.text.sentence_splitter import in_sentences

STREAM = "text/event-stream"
_WRITTEN = {
    "text": "Where is the station?",
    "score": -0.31,
    "log_probability": -1.86,
    "truncated": False,
    "cut": False,
}
_TRANSLATED = {
    "translations": [
        {
            **_WRITTEN,
            "words": [
                {"text": "Where", "probability": 0.93, "sources": [0]},
                {"text": "is", "probability": 0.98, "sources": [1]},
            ],
            "source_words": ["Wo", "ist", "der", "Bahnhof?"],
            "alignment": "0-0 1-1 2-2 3-3",
        }
    ],
    "model": "de-en",
    "checksum": "3f0a1b2c4d5e",
}
_ALIGNED = {
    "alignments": [{"source": "Wo ist er?", "target": "Where is he?", "links": [[0, 0]], "alignment": "0-0"}],
    "model": "de-en",
}
_NEXT = {
    "words": [{"text": "station?", "probability": 0.81, "prefix": "Where is the station? "}],
    "model": "de-en",
}
_ENTITY = {
    "type": "LOC",
    "text": "Hamburg",
    "start": 26,
    "end": 33,
    "probability": 0.999,
    "first": 5,
    "last": 5,
}
_TAGGED = {
    "annotations": [{"text": "...", "entities": [_ENTITY], "words": ["..."], "tags": ["O"]}],
    "model": "ner",
}


def decoding_of(predictor: WritingPredictor[Any], options: dict[str, Any], beam: int) -> DecodingRecipe:
    """Return the settings of a search. RefusedError for a bad one, or one that is too large for a server.

    beam: the largest beam and number of results that is allowed.
    """
    for name in ("beam", "nbest"):
        if options.get(name, 1) > beam:
            raise RefusedError(INVALID, f"{name}: expected at most {beam}")
    if options.get("max_length", 1) > predictor.decoding.max_length:
        raise RefusedError(INVALID, f"max_length: expected at most {predictor.decoding.max_length}")
    try:
        return predictor.settings(options) if options else predictor.decoding
    except Seq2attnError as error:
        raise refused(error) from error


async def left(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def results(
    request: Request, model: ServedModel[Predictor], work: Work, items: Sequence[Any], whole: bool = False
) -> tuple[Ticket, list[Any]]:
    """Return the results of a request's items, with their ticket. whole: see `ServedModel.submit`."""
    log(request, model, len(items))
    ticket = await model.submit(work, items, whole)
    return ticket, await model.results(ticket, lambda: left(request))


def log(request: Request, model: ServedModel[Predictor], lines: int) -> None:
    """Add model and number of lines to the log of a request, and the engine to the headers of its answer."""
    request.scope["state"]["engine"] = model.engine
    request.scope["state"]["log"] |= {"model": model.name, "lines": lines}


class _Part(NamedTuple):
    """A line of a text: the whole text, or a sentence of it."""

    text: int  # the number of the text
    sentence: str
    after: str  # the white space after it


class TextRoutes:
    """The handlers of the routes."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(prefix="/v1", tags=["texts"], dependencies=[Depends(require_json)])
        for path, handler, example, text in (
            ("/translate", self.translate, _TRANSLATED, "Translations, in the order of the texts."),
            ("/summarize", self.summarize, {"summaries": [_WRITTEN], "model": "samsum"}, "Summaries."),
            ("/next", self.next, _NEXT, "Words that may be next, the most probable first."),
            ("/align", self.align, _ALIGNED, "Links between words, counted from 0."),
            ("/tag", self.tag, _TAGGED, "Words with tags, and entities in characters."),
        ):
            router.add_api_route(
                path,
                handler,
                methods=["POST"],
                response_model=None,
                responses=answers(example, text),
                summary=path[1:].capitalize(),
            )
        return router

    async def translate(self, request: Request, body: TranslateRequest) -> Response:
        """Translate texts, each as if it were alone. With `Accept: text/event-stream` one by one."""
        model = self.serving.model(Translator, body.model, body.source, body.target)
        tag = model.tag(body.source, body.target) if body.tag is None else body.tag
        if body.markup is not None:
            return await self._marked(request, model, body, tag)
        return await self._written(request, model, body, "translations", tag)

    async def summarize(self, request: Request, body: SummarizeRequest) -> Response:
        """Summarize texts, whose sentences or turns are separated by line feeds."""
        model = self.serving.model(Summarizer, body.model)
        return await self._written(request, model, body, "summaries", body.tag)

    async def next(self, request: Request, body: NextRequest) -> Response:
        """Find the words by which a translation or a summary may go on after the words of a prefix. The
        prefix of a word is for a further request; a word without text is the end."""
        model = self.serving.model(TextPredictor, body.model, body.source, body.target)
        self.serving.check([body.text, body.prefix])
        work = Continuing(model.predictor, model.predictor.decoding, count=body.count)
        tag = model.tag(body.source, body.target) if body.tag is None else body.tag
        draft = Draft(self._tagged(model, body.text, tag), body.prefix)
        _, (words,) = await results(request, model, work, [draft], whole=True)
        entries = [{**word._asdict(), "probability": round(word.probability, 6)} for word in words]
        return JSONResponse({"words": entries, **named(model)})

    async def align(self, request: Request, body: AlignRequest) -> Response:
        """Link the words of texts with those of their translations."""
        model = self.serving.model(Translator, body.model, body.source, body.target)
        self.serving.check([*body.sources, *body.targets])
        tag = model.tag(body.source, body.target)
        pairs = [(with_tag(one, tag), other) for one, other in zip(body.sources, body.targets, strict=True)]
        if not model.predictor.model.decoder.attention_layers:
            raise RefusedError(INVALID, f"{model.name} has no attention: it cannot align")
        _, pairs_aligned = await results(request, model, Aligning(model.predictor), pairs)
        if tag is not None:
            both = zip(pairs_aligned, body.sources, strict=True)
            pairs_aligned = [pair.untagged(source) for pair, source in both]
        entries = [aligned(pair, body.threshold) for pair in pairs_aligned]
        return JSONResponse({"alignments": entries, **named(model)})

    async def tag(self, request: Request, body: LabelRequest) -> Response:
        """Tag the words of texts, and find entities."""
        return await self.label(request, self.serving.model(Recognizer, body.model), body, "annotations")

    async def label(
        self, request: Request, model: ServedModel[LabelPredictor[Any, Any]], body: LabelRequest, key: str
    ) -> Response:
        """Return the tags or the labels of texts."""
        self.serving.check(body.items)
        work = Labelling(model.predictor, body.weights)
        ticket, found = await results(request, model, work, body.items, body.long == "refuse")
        entries = [labelled(one, line.cut) for one, line in zip(found, ticket.lines, strict=True)]
        return JSONResponse({key: entries, **named(model)})

    async def _marked(
        self, request: Request, model: ServedModel[TextPredictor], body: TranslateRequest, tag: str | None
    ) -> Response:
        """Return the translations of texts with markup."""
        (best, *_), cut = await self.marked(
            request,
            model,
            body.items,
            body.markup or "html",
            body.decoding(),
            tag,
            body.long == "refuse",
        )
        left = iter(cut)
        entries = [marked(one.text, one.segments, [next(left) for _ in one.segments]) for one in best]
        return JSONResponse({"translations": entries, **named(model)})

    async def marked(
        self,
        request: Request,
        model: ServedModel[TextPredictor],
        texts: list[str],
        kind: Kind,
        options: dict[str, Any],
        tag: str | None = None,
        whole: bool = False,
    ) -> tuple[list[list[MarkedTranslation]], list[bool]]:
        """Return the translations of texts with markup, sentence by sentence: the best of all texts, the
        second best, and so on; and whether only the beginning of each sentence was read.

        whole: see `ServedModel.submit`.
        """
        self.serving.check(texts)
        try:
            parsed = await asyncio.to_thread(MarkedTexts, texts, kind)
        except Seq2attnError as error:
            raise refused(error) from error
        decoding = decoding_of(model.predictor, options, self.serving.limits.beam)
        if len(parsed.plain) > self.serving.limits.lines:
            raise RefusedError(TOO_LARGE, f"expected at most {self.serving.limits.lines:,} sentences")
        work = Writing(model.predictor, decoding, alignment=True)
        drafts = [Draft(self._tagged(model, text, tag)) for text in parsed.plain]
        ticket, found = await results(request, model, work, drafts, whole)

        def ranked() -> list[list[MarkedTranslation]]:
            nbests = [translation.nbest for translation in found]
            return [
                parsed.translated([nbest[min(rank, len(nbest) - 1)] for nbest in nbests])
                for rank in range(decoding.nbest)
            ]

        return await asyncio.to_thread(ranked), [line.cut for line in ticket.lines]

    async def _written(
        self,
        request: Request,
        model: ServedModel[TextPredictor],
        body: WritingRequest,
        key: str,
        tag: str | None,
    ) -> Response:
        """Return what is written from texts, at once or one by one."""
        parts = self._parts(body)
        looked = body.alignment or body.weights
        decoding = decoding_of(model.predictor, body.decoding(), self.serving.limits.beam)
        work = Writing(model.predictor, decoding, looked)
        log(request, model, len(parts))
        drafts = [Draft(self._tagged(model, part.sentence, tag), body.prefix) for part in parts]
        if STREAM in request.headers.get("accept", ""):
            beginnings = Beginnings(len(drafts))
            drafts = [draft._replace(listen=beginnings.listener(n)) for n, draft in enumerate(drafts)]
            ticket = await model.submit(work, drafts, body.long == "refuse")
            events = self._events(request, model, body, parts, ticket, beginnings)
            return StreamingResponse(events, media_type=STREAM)
        ticket = await model.submit(work, drafts, body.long == "refuse")
        found: list[Translation] = await model.results(ticket, lambda: left(request))
        pairs = zip(found, ticket.lines, strict=True)
        entries = [written(one, line.cut, body.weights) for one, line in pairs]
        if body.split:
            of_texts: list[list[int]] = [[] for _ in body.items]
            for index, part in enumerate(parts):
                of_texts[part.text].append(index)
            entries = [
                joined([parts[i][1:] for i in indices], [entries[i] for i in indices]) for indices in of_texts
            ]
        return JSONResponse({key: entries, **named(model)})

    def _tagged(self, model: ServedModel[TextPredictor], text: str, tag: str | None) -> str:
        """Return a text that begins with a tag. RefusedError if the model has no such tag."""
        if tag is not None and not model.predictor.source.has_tag(tag):
            raise RefusedError(INVALID, "the model has no such tag: expected one of its text.tags")
        return with_tag(text, tag)

    def _parts(self, body: WritingRequest) -> list[_Part]:
        """Return the lines of a request. RefusedError if they are too many or too long, or the prefix is."""
        self.serving.check([body.prefix])
        if not body.split:
            self.serving.check(body.items)
            return [_Part(number, text, "") for number, text in enumerate(body.items)]
        parts = [_Part(n, *sentence) for n, text in enumerate(body.items) for sentence in in_sentences(text)]
        self.serving.check([part.sentence for part in parts])
        return parts

    async def _events(
        self,
        request: Request,
        model: ServedModel[TextPredictor],
        body: WritingRequest,
        parts: Sequence[_Part],
        ticket: Ticket,
        beginnings: Beginnings,
    ) -> AsyncIterator[str]:
        """Yield an event for each result, before it those of its words that can no longer change, and one at
        the end: `end`, or `error`."""
        number = 0
        try:
            async for result in model.stream(ticket, lambda: left(request), beginnings):
                place = {"number": parts[number].text}
                if isinstance(result, Added):
                    yield event("words", {**place, "text": result.text})
                    continue
                entry = written(result, ticket.lines[number].cut, body.weights)
                yield event("result", {**place, **entry, "after": parts[number].after})
                number += 1
        except RefusedError as refused:
            yield event("error", {"error": refused.message, "status": refused.status})
            return
        yield event("end", named(model))


def event(name: str, data: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def named(model: ServedModel[Predictor]) -> dict[str, str]:
    """Return what each answer says of its model."""
    return {"model": model.name, "checksum": model.checksum, "engine": model.engine}
