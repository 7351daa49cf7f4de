"""The routes of models that read or make images, and the route to classify texts or images."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from seq2attn.inference.captioner import Captioner
from seq2attn.inference.detector import Detector
from seq2attn.inference.image_categorizer import ImageCategorizer
from seq2attn.inference.image_generator import ImageGenerator
from seq2attn.inference.recognizer import Categorizer
from seq2attn.inference.segmenter import Segmenter
from seq2attn.serving.answering import decoding_of, named, results
from seq2attn.serving.answers import captioned, found, generated, labelled_image, looked_at, segmented
from seq2attn.serving.bodies import checked, from_base64, require_json, sent_in
from seq2attn.serving.documentation import add_route, image_body
from seq2attn.serving.image_works import (
    Captioning,
    Detecting,
    Generating,
    LabellingImages,
    Looking,
    Picture,
    Seeing,
    Segmenting,
    decoded,
    reader_of,
)
from seq2attn.serving.refusals import INVALID, TOO_LARGE, RefusedError, refused
from seq2attn.serving.schemas import (
    CaptionRequest,
    DetectRequest,
    GenerateRequest,
    ImagesRequest,
    LabelRequest,
    SegmentRequest,
)
from seq2attn.serving.served_model import ServedModel
from seq2attn.serving.serving import Serving
from seq2attn.serving.text_routes import TextRoutes
from seq2attn.serving.waiting import Work

_OBJECT = {"label": "cell", "score": 0.91, "box": [12.5, 8.0, 60.2, 55.1]}
_FOUND = {"width": 640, "height": 480, "objects": [_OBJECT]}
_SEGMENTED = {
    "width": 640,
    "height": 480,
    "shares": {"road": 0.42},
    "classes": [{"name": "road", "color": [128, 64, 128]}],
    "mask": "iVBORw0KGgo...",
}


class ImageRoutes:
    """The handlers of the routes."""

    def __init__(self, serving: Serving) -> None:
        self.serving, self.texts = serving, TextRoutes(serving)

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(prefix="/v1", tags=["images"])
        label = {"label": "7", "probabilities": {"7": 0.99, "1": 0.01}}
        caption = {"text": "a dog runs"}
        for path, handler, schema, key, result, text in (
            ("/caption", self.caption, CaptionRequest, "captions", caption, "Texts of images."),
            ("/detect", self.detect, DetectRequest, "images", _FOUND, "Objects, from the surest on."),
            ("/segment", self.segment, SegmentRequest, "images", _SEGMENTED, "Shares of classes, and masks."),
            (
                "/classify",
                self.classify,
                ImagesRequest,
                "categories",
                label,
                "Labels of images, or of texts.",
            ),
        ):
            example = {key: [result], "model": "name"}
            add_route(router, path, handler, example, text, body=image_body(schema))
        image = {"name": "seed 1, image 0", "image": "iVBORw0KGgo..."}
        only_json = [Depends(require_json)]
        add_route(
            router, "/generate", self.generate, {"images": [image]}, "New images.", dependencies=only_json
        )
        return router

    async def caption(self, request: Request) -> Response:
        """Write a text from each image."""
        sent = await sent_in(request)
        body = checked(CaptionRequest, sent)
        model = self.serving.model(Captioner, body.model)
        self.serving.check([body.prefix])
        decoding = decoding_of(model.predictor, body.decoding(), self.serving.limits.beam)
        work = Captioning(model.predictor, decoding, body.alignment)
        captions = await self._results(request, model, work, body, sent.files, captioned)
        return JSONResponse({"captions": captions, **named(model)})

    async def detect(self, request: Request) -> Response:
        """Find the objects in images. Boxes are left, top, right, bottom in pixels of the image, upright."""
        sent = await sent_in(request)
        body = checked(DetectRequest, sent)
        model = self.serving.model(Detector, body.model)
        work = Detecting(model.predictor, body.threshold)
        images = await self._results(request, model, work, body, sent.files, found)
        return JSONResponse({"images": images, **named(model)})

    async def segment(self, request: Request) -> Response:
        """Give each pixel of images a class."""
        sent = await sent_in(request)
        body = checked(SegmentRequest, sent)
        model = self.serving.model(Segmenter, body.model)
        shown, work = partial(segmented, mask=body.mask), Segmenting(model.predictor)
        images = await self._results(request, model, work, body, sent.files, shown)
        return JSONResponse({"images": images, **named(model)})

    async def classify(self, request: Request) -> Response:
        """Label images; or texts, if the body has `text` or `texts`, as the route `tag` takes them."""
        sent = await sent_in(request)
        if sent.values.keys() & {"text", "texts"}:
            texts = checked(LabelRequest, sent)
            return await self.texts.label(
                request, self.serving.model(Categorizer, texts.model), texts, "categories"
            )
        body = checked(ImagesRequest, sent)
        model = self.serving.model(ImageCategorizer, body.model)
        work = LabellingImages(model.predictor)
        images = await self._results(request, model, work, body, sent.files, labelled_image)
        return JSONResponse({"categories": images, **named(model)})

    async def generate(self, request: Request, body: GenerateRequest) -> Response:
        """Make new images."""
        model = self.serving.model(ImageGenerator, body.model)
        if body.count > self.serving.limits.images:
            raise RefusedError(
                TOO_LARGE, f"expected at most {self.serving.limits.images} images, got {body.count:,}"
            )
        work = Generating(model.predictor, body.seed, body.label, body.truncation)
        _, (images,) = await results(request, model, work, [body.count])
        return JSONResponse({"images": [generated(one) for one in images], **named(model)})

    async def _results(
        self,
        request: Request,
        model: ServedModel[Seeing],
        work: Work,
        body: ImagesRequest,
        files: Sequence[bytes],
        answer: Callable[[Any], dict[str, Any]],
    ) -> list[dict[str, Any]]:
        """Return the answers for the images of a request. answer: makes one of a result."""
        pictures = await self._pictures(model, body, files)
        entries = [answer(one) for one in (await results(request, model, work, pictures))[1]]
        if not body.maps:
            return entries
        _, seen = await results(request, model, Looking(model.predictor), pictures)
        return [{**entry, **looked_at(*one)} for entry, one in zip(entries, seen, strict=True)]

    async def _pictures(
        self, model: ServedModel[Seeing], body: ImagesRequest, files: Sequence[bytes]
    ) -> list[Picture]:
        """Return the images of a request, decoded. RefusedError if they are none, too many or bad."""
        limits, reader = self.serving.limits, reader_of(model.predictor)
        encoded = [*(body.images or ())] if body.image is None else [body.image]
        if len(encoded) + len(files) > limits.images:
            raise RefusedError(TOO_LARGE, f"expected at most {limits.images} images")
        if not encoded and not files:
            raise RefusedError(
                INVALID, "expected image or images in JSON, or files named image as multipart/form-data"
            )
        contents = [*files, *(from_base64(text) for text in encoded)]
        prefix = body.prefix if isinstance(body, CaptionRequest) else ""

        def read() -> list[Picture]:
            return [Picture(decoded(content, reader, limits.pixels), prefix) for content in contents]

        try:
            return await asyncio.to_thread(read)
        except Exception as error:
            raise refused(error) from error
