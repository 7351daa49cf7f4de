"""What all routes of models do: settle how to search, let a request's items wait, and name the model."""

from collections.abc import Sequence
from typing import Any

from fastapi import Request

from seq2attn.errors import Seq2attnError
from seq2attn.inference.predictor import Predictor
from seq2attn.inference.writing_predictor import WritingPredictor
from seq2attn.recipe import DecodingRecipe
from seq2attn.serving.refusals import INVALID, RefusedError, refused
from seq2attn.serving.served_model import ServedModel
from seq2attn.serving.waiting import Ticket, Work


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


async def results(
    request: Request, model: ServedModel[Predictor], work: Work, items: Sequence[Any], whole: bool = False
) -> tuple[Ticket, list[Any]]:
    """Return the results of a request's items, with their ticket. whole: see `ServedModel.submit`."""
    log(request, model, len(items))
    ticket = await model.submit(work, items, whole)
    return ticket, await model.results(ticket, lambda: left(request))


async def left(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def log(request: Request, model: ServedModel[Predictor], lines: int) -> None:
    """Add model and number of lines to the log of a request, and the engine to the headers of its answer."""
    request.scope["state"]["engine"] = model.engine
    request.scope["state"]["log"] |= {"model": model.name, "lines": lines}


def named(model: ServedModel[Predictor]) -> dict[str, str]:
    """Return what each answer says of its model."""
    return {"model": model.name, "checksum": model.checksum, "engine": model.engine}
