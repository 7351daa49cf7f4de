"""The bodies of requests: JSON, or forms with files."""

import binascii
import json
from base64 import b64decode
from typing import Any, NamedTuple, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from seq2attn.serving.refusals import INVALID, RefusedError

NO_JSON = "the body is not valid JSON in UTF-8"
S = TypeVar("S", bound=BaseModel)


class Sent(NamedTuple):
    """What a client has sent: the values of a request, and the contents of files."""

    values: dict[str, Any]
    files: list[bytes]
    form: bool = False  # whether all values are texts


def checked(schema: type[S], sent: Sent) -> S:
    """Return the request that was sent. RequestValidationError if its values are bad."""
    try:
        return schema.model_validate(sent.values, strict=not sent.form)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


async def sent_in(request: Request) -> Sent:
    """Return what a request has in JSON, or as multipart. RefusedError if it is neither."""
    kind = media_type(request)
    if kind == "multipart/form-data":
        return await _of_form(request)
    if kind != "application/json":
        raise RefusedError(415, "expected application/json or multipart/form-data")
    values = await json_of(request)
    if not isinstance(values, dict):
        raise RefusedError(INVALID, "expected a JSON object")
    return Sent(values, [])


def require_json(request: Request) -> None:
    """RefusedError if a body says that it is something else than JSON, or nothing."""
    if media_type(request) != "application/json":
        raise RefusedError(415, "expected application/json as the Content-Type")


def media_type(request: Request) -> str:
    """Return what a body is, as the request says: application/json, or something else."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def json_of(request: Request) -> Any:
    """Return the JSON of a body. RefusedError if it is none."""
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, NO_JSON) from error


async def _of_form(request: Request) -> Sent:
    """Return the fields of a form, and its files, which are all named image."""
    values, files = dict[str, Any](), list[bytes]()
    try:
        async with request.form(max_files=1000, max_fields=1000) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name not in ("image", "images"):
                        raise RefusedError(INVALID, "expected files named image")
                    files.append(await value.read())
                elif name in ("image", "images"):
                    raise RefusedError(INVALID, f"{name}: expected a file")
                else:
                    values[name] = value
    except HTTPException as error:  # of the parser: the form is broken
        raise RefusedError(400, "the body is no valid multipart/form-data") from error
    return Sent(values, files, form=True)


def from_base64(text: str) -> bytes:
    """Return the content of a file from base64, with or without `data:image/png;base64,` before it."""
    _, comma, data = text.partition(",")
    try:
        return b64decode(data if comma and text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(INVALID, "image: expected the content of a file in base64") from error
