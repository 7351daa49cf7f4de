"""What would hold others up for long is refused, and what takes longer counts for more in the queue."""

from pathlib import Path
from typing import Any

import pytest
from tiny_serving import client, image_predictors, label_predictors, translator

pytest.importorskip("fastapi")

from seq2attn.serving import schemas
from seq2attn.serving.text_works import Draft, Writing

MOST = 256  # decoding.max_length


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/translate", {"text": "Hilfe!", "prefix": "no " * (MOST + 1)}),
        ("/v1/next", {"text": "Hilfe!", "prefix": "no " * (MOST + 1)}),
        ("/v1/align", {"sources": ["Ja.", "Hilfe!"], "targets": ["Yes.", "no " * (MOST + 1)]}),
        ("/v1/align", {"sources": ["ja " * 1_025], "targets": ["Yes."]}),
    ],
)
def test_prefixes_and_pairs_are_no_longer_than_what_the_model_writes(path: str, body: dict[str, Any]) -> None:
    with client(started=False) as served:  # refused before anything is computed
        answer = served.post(path, json=body)
    error = answer.json()["error"]
    assert answer.status_code == 422 and f"at most {MOST}" in error.replace(
        "1,024 pieces in the source and ", ""
    )


def test_a_prefix_counts_in_the_queue() -> None:
    work = Writing(translator(), translator().decoding)
    plain, begun = (work.lines([Draft("Ja.", prefix)])[0] for prefix in ("", "Tom is not here. " * 30))
    assert (plain.weight, begun.weight) == (1, 2)
    assert begun.length == len(translator().target.encode(["Tom is not here. " * 30])[0]) > plain.length


@pytest.mark.parametrize("path", ["/v1/translate", "/v1/align", "/v1/generate"])
def test_a_body_that_does_not_say_that_it_is_json_is_refused_as_such(path: str) -> None:
    with client(started=False) as served:
        for headers in (
            {},
            {"content-type": "text/plain"},
            {"content-type": "application/x-www-form-urlencoded"},
        ):
            answer = served.post(path, content=b'{"text": "a"}', headers=headers)
            assert answer.status_code == 415 and answer.json()["error"].startswith(
                "expected application/json"
            )


@pytest.mark.parametrize("path", ["/v1/translate", "/v1/classify", "/translate"])
def test_all_that_is_no_json_has_one_message(path: str) -> None:
    with client(started=False) as served:
        for content in (b"[" * 100_000, b'{"text": ', b"\xff"):
            answer = served.post(path, content=content, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()) == (
                400,
                {"error": "the body is not valid JSON in UTF-8"},
            )


def test_a_model_that_reads_something_else_says_what() -> None:
    with client({"digits": image_predictors()["classify"], "ner": label_predictors()["tag"]}) as served:
        for named in ({}, {"model": "digits"}):
            answer = served.post("/v1/classify", json={"text": "seven", **named})
            assert answer.status_code == 422
            assert answer.json()["error"] == "digits reads images, and its route is /v1/classify"
        answer = served.post("/v1/translate", json={"text": "seven", "model": "ner"})
        assert answer.json()["error"] == "ner reads texts, and its route is /v1/tag"
        assert served.post("/v1/translate", json={"text": "seven"}).status_code == 404


def test_an_output_has_the_least_length_that_is_asked_for() -> None:
    with client() as served:
        body = {"text": "Hilfe!", "min_length": 20, "beam": 1}
        (entry,) = served.post("/v1/translate", json=body).json()["translations"]
    expected = translator().translate("Hilfe!", min_length=20, beam=1, alignment=False)
    assert entry["text"] == expected.text and len(expected.target.ids) >= 20


def test_the_page_of_the_server_names_every_field() -> None:
    text = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
    requests = (
        cls for cls in vars(schemas).values() if isinstance(cls, type) and issubclass(cls, schemas.Request)
    )
    missing = {name for request in requests for name in request.model_fields if f"`{name}`" not in text}
    assert not missing
