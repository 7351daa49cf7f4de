"""What the OpenAPI document says of routes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.params import Depends
from pydantic import BaseModel


def add_route(
    router: APIRouter,
    path: str,
    handler: Callable[..., Any],
    example: Mapping[str, Any],
    description: str,
    body: dict[str, Any] | None = None,
    dependencies: Sequence[Depends] = (),
) -> None:
    """Add a route for POST requests to a router.

    example, description: of a good answer. body: what the document says of requests, if the handler's
    parameters do not; dependencies: of this route.
    """
    router.add_api_route(
        path,
        handler,
        methods=["POST"],
        response_model=None,
        responses=answers(example, description),
        summary=path[1:].capitalize(),
        openapi_extra=body,
        dependencies=dependencies,
    )


def answers(example: Mapping[str, Any], description: str) -> dict[int | str, dict[str, Any]]:
    """Return the answers of a route for POST requests: an example of a good one, and errors."""
    error = {"application/json": {"schema": _ERROR, "example": {"error": "expected at most 10,000 texts"}}}
    good = {"application/json": {"schema": {"type": "object"}, "example": example}}
    texts = {
        400: "The body is not what its content type says.",
        401: "The token is missing or wrong.",
        404: "There is no such model.",
        408: "The body did not come in time.",
        413: "The request, a text or an image is too large.",
        415: "The body has another content type.",
        422: "The request is bad: the error says what was expected.",
        429: "Too many lines wait: ask again after the seconds of Retry-After.",
        503: "The server is being stopped, or the request was not begun in time.",
    }
    return {
        200: {"description": description, "content": good},
        **{status: {"description": text, "content": error} for status, text in texts.items()},
    }


_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def image_body(schema: type[BaseModel]) -> dict[str, Any]:
    """Return what the document says of a body that is JSON, or multipart with files."""
    whole = schema.model_json_schema(ref_template="#/components/schemas/{model}")
    (example,) = whole.pop("examples")
    fields = {name: value for name, value in whole["properties"].items() if name not in ("image", "images")}
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = {"type": "object", "required": ["image"], "properties": {"image": files, **fields}}
    content = {
        "application/json": {"schema": whole, "example": example},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}
