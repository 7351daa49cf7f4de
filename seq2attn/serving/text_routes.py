"""The routes of models that read texts: translate, summarize, next, align, tag."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from seq2attn.alignment.markup import Kind
from seq2attn.errors import Seq2attnError
from seq2attn.inference.marked_text import MarkedTexts, MarkedTranslation
from seq2attn.inference.recognizer import LabelPredictor, Recognizer
from seq2attn.inference.translator import Summarizer, TextPredictor, Translator
from seq2attn.serving.answering import decoding_of, left, log, named, results
from seq2attn.serving.answers import aligned, joined, labelled, marked, written
from seq2attn.serving.beginnings import Added, Beginnings
from seq2attn.serving.bodies import require_json
from seq2attn.serving.documentation import add_route
from seq2attn.serving.refusals import INVALID, RefusedError, refused
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
from seq2attn.serving.waiting import Ticket
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
            add_route(router, path, handler, example, text)
        return router

    async def translate(self, request: Request, body: TranslateRequest) -> Response:
        """Translate texts, each as if it were alone. With `Accept: text/event-stream` one by one."""
        model = self.serving.model(Translator, body.model, body.source, body.target)
        tag = _tag_of(model, body.tag, body.source, body.target)
        if body.markup is None:
            return await self._written(request, model, body, "translations", tag)
        if _streams(request):
            raise RefusedError(INVALID, "texts with markup do not stream: leave out Accept, or markup")
        return await self._marked(request, model, body, body.markup, tag)

    async def summarize(self, request: Request, body: SummarizeRequest) -> Response:
        """Summarize texts, whose sentences or turns are separated by line feeds."""
        model = self.serving.model(Summarizer, body.model)
        return await self._written(request, model, body, "summaries", _tag_of(model, body.tag))

    async def next(self, request: Request, body: NextRequest) -> Response:
        """Find the words by which a translation or a summary may go on after the words of a prefix. The
        prefix of a word is for a further request; a word without text is the end."""
        model = self.serving.model(TextPredictor, body.model, body.source, body.target)
        self.serving.check([body.text, body.prefix])
        work = Continuing(model.predictor, model.predictor.decoding, count=body.count)
        tag = _tag_of(model, body.tag, body.source, body.target)
        draft = Draft(with_tag(body.text, tag), body.prefix)
        _, (words,) = await results(request, model, work, [draft], whole=True)
        entries = [{**word._asdict(), "probability": round(word.probability, 6)} for word in words]
        return JSONResponse({"words": entries, **named(model)})

    async def align(self, request: Request, body: AlignRequest) -> Response:
        """Link the words of texts with those of their translations."""
        model = self.serving.model(Translator, body.model, body.source, body.target)
        self.serving.check([*body.sources, *body.targets])
        tag = model.tag(body.source, body.target)
        pairs = [(with_tag(one, tag), other) for one, other in zip(body.sources, body.targets, strict=True)]
        _require_attention(model)
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
        self,
        request: Request,
        model: ServedModel[TextPredictor],
        body: TranslateRequest,
        kind: Kind,
        tag: str | None,
    ) -> Response:
        """Return the translations of texts with markup."""
        (best, *_), cut = await self.translate_marked(
            request, model, body.items, kind, body.decoding(), tag, body.long == "refuse"
        )
        left = iter(cut)
        entries = [marked(one.text, one.segments, [next(left) for _ in one.segments]) for one in best]
        return JSONResponse({"translations": entries, **named(model)})

    async def translate_marked(
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
        _require_attention(model)
        self.serving.check(texts)
        try:
            parsed = await asyncio.to_thread(MarkedTexts, texts, kind)
        except Seq2attnError as error:
            raise refused(error) from error
        decoding = decoding_of(model.predictor, options, self.serving.limits.beam)
        plain = parsed.plain
        self.serving.check(plain, "sentences")
        work = Writing(model.predictor, decoding, alignment=True)
        drafts = [Draft(with_tag(text, tag)) for text in plain]
        ticket, found = await results(request, model, work, drafts, whole)

        def ranked() -> list[list[MarkedTranslation]]:
            nbests = [translation.nbest for translation in found]
            return [
                parsed.translated([nbest[min(rank, len(nbest) - 1)] for nbest in nbests])
                for rank in range(decoding.nbest)
            ]

        return await asyncio.to_thread(ranked), [line.cut for line in ticket.lines]

    async def sentences(self, texts: Sequence[str]) -> list[list[tuple[str, str]]]:
        """Return the sentences of texts, each with the white space after it. RefusedError if they are too
        many or too long."""
        # in a thread: it takes seconds for the largest body, in which the loop would answer nobody
        divided = await asyncio.to_thread(lambda: [in_sentences(text) for text in texts])
        self.serving.check([sentence for text in divided for sentence, _ in text], "sentences")
        return divided

    async def _written(
        self,
        request: Request,
        model: ServedModel[TextPredictor],
        body: WritingRequest,
        key: str,
        tag: str | None,
    ) -> Response:
        """Return what is written from texts, at once or one by one."""
        self.serving.check([body.prefix])
        if body.split:
            parts = await self.sentences(body.items)
        else:
            self.serving.check(body.items)
            parts = [[(text, "")] for text in body.items]
        if body.looked or body.replace_unknown:
            _require_attention(model)
        decoding = decoding_of(model.predictor, body.decoding(), self.serving.limits.beam)
        work, whole = Writing(model.predictor, decoding, body.looked), body.long == "refuse"
        drafts = [Draft(with_tag(line, tag), body.prefix) for text in parts for line, _ in text]
        if _streams(request):
            log(request, model, len(drafts))
            beginnings = Beginnings(len(drafts))
            drafts = [draft._replace(listen=beginnings.listener(n)) for n, draft in enumerate(drafts)]
            ticket = await model.submit(work, drafts, whole)
            places = [(number, after) for number, text in enumerate(parts) for _, after in text]
            events = self._events(request, model, body, places, ticket, beginnings)
            return StreamingResponse(events, media_type=STREAM)
        ticket, found = await results(request, model, work, drafts, whole)
        pairs = zip(found, ticket.lines, strict=True)
        entries = [written(one, line.cut, body.looked, body.weights) for one, line in pairs]
        if body.split:
            waiting = iter(entries)
            entries = [joined(text, [next(waiting) for _ in text]) for text in parts]
        return JSONResponse({key: entries, **named(model)})

    async def _events(
        self,
        request: Request,
        model: ServedModel[TextPredictor],
        body: WritingRequest,
        places: Sequence[tuple[int, str]],
        ticket: Ticket,
        beginnings: Beginnings,
    ) -> AsyncIterator[str]:
        """Yield an event for each result, before it those of its words that can no longer change, and one at
        the end: `end`, or `error`.

        places: of each result, the number of its text, and the white space after it.
        """
        index = 0
        try:
            async for result in model.stream(ticket, lambda: left(request), beginnings):
                number, after = places[index]
                if isinstance(result, Added):
                    yield event("words", {"number": number, "text": result.text})
                    continue
                entry = written(result, ticket.lines[index].cut, body.looked, body.weights)
                yield event("result", {"number": number, **entry, "after": after})
                index += 1
        except RefusedError as refused:
            yield event("error", {"error": refused.message, "status": refused.status})
            return
        yield event("end", named(model))


def event(name: str, data: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def _streams(request: Request) -> bool:
    """Whether a client asks for events in the place of one answer."""
    return STREAM in request.headers.get("accept", "")


def _tag_of(
    model: ServedModel[TextPredictor], given: str | None, source: str | None = None, target: str | None = None
) -> str | None:
    """Return the tag that texts begin with: the one that is given, or that of the languages. RefusedError if
    the model has no such tag, or the languages have another one."""
    if given is None:
        return model.tag(source, target)
    if not model.predictor.source.has_tag(given):
        raise RefusedError(INVALID, "the model has no such tag: expected one of its text.tags")
    if (tags := model.tags(source, target)) and given not in tags:
        raise RefusedError(INVALID, "these languages have another tag: leave out tag, or source and target")
    return given


def _require_attention(model: ServedModel[TextPredictor]) -> None:
    """RefusedError if there are no alignments."""
    if not model.aligns:
        raise RefusedError(INVALID, f"{model.name} has no attention: it cannot align words")
