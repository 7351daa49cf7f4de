"""A field that has no effect beside the others, or with this model, is refused with the reason."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tiny_serving import client, translator, without_attention

pytest.importorskip("fastapi")

from seq2attn.serving import text_routes
from seq2attn.serving.limits import Limits

LIBRE = {"source": "de", "target": "en"}


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    with client({"de-en": translator(), "plain": without_attention()}, Limits(lines=3)) as opened:
        yield opened


def refused(served: Any, path: str = "/v1/translate", **body: Any) -> str:
    answer = served.post(path, json=body)
    assert answer.status_code == (400 if path == "/translate" else 422), answer.text
    error: str = answer.json()["error"]
    return error


@pytest.mark.parametrize(
    ("name", "value"),
    [("prefix", "No"), ("alignment", True), ("weights", True), ("split", True), ("nbest", 2)],
)
def test_texts_with_markup_come_back_as_texts_alone(served: Any, name: str, value: Any) -> None:
    body = {"text": "Hilfe!", "markup": "html", "model": "de-en"}
    assert (
        refused(served, **body, **{name: value}) == f"markup goes without {name}: the text alone comes back"
    )
    for same in ({"nbest": 1}, {"alignment": False}, {"prefix": ""}):
        assert served.post("/v1/translate", json={**body, **same}).status_code == 200


def test_texts_with_markup_do_not_stream(served: Any) -> None:
    body = {"text": "Hilfe!", "markup": "html", "model": "de-en"}
    answer = served.post("/v1/translate", json=body, headers={"accept": "text/event-stream"})
    assert answer.status_code == 422 and "do not stream" in answer.json()["error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 3}, "seed has no effect: set sample, too"),
        ({"sample": True, "beam": 3}, "beam has no effect: nbest is the number of samples"),
    ],
)
def test_options_of_the_other_search_are_refused(served: Any, options: dict[str, Any], message: str) -> None:
    assert refused(served, text="Hilfe!", model="de-en", **options) == f"decoding: {message}"


@pytest.mark.filterwarnings("ignore::seq2attn.errors.LengthWarning")
def test_a_model_without_attention_aligns_nothing_and_says_so(served: Any) -> None:
    message = "plain has no attention: it cannot align words"
    for options in ({"alignment": True}, {"weights": True}, {"markup": "html"}, {"replace_unknown": True}):
        assert refused(served, text="Hilfe!", model="plain", **options) == message
    assert refused(served, "/v1/align", sources=["a"], targets=["b"], model="plain") == message
    with client({"plain": without_attention()}) as other:
        assert refused(other, "/translate", q="Hilfe!", format="html", **LIBRE) == message
    (entry,) = served.post("/v1/translate", json={"text": "Hilfe!", "model": "plain"}).json()["translations"]
    assert entry["text"] == without_attention().translate("Hilfe!").text
    listed = {model["name"]: model["aligns"] for model in served.get("/v1/models").json()["models"]}
    assert listed == {"de-en": True, "plain": False}


def test_words_are_there_if_they_are_asked_for(served: Any) -> None:
    """Of a blank text, too; and not because the search needs them."""
    body = {"texts": ["Hilfe!", " "], "model": "de-en"}
    for options, keys in (
        ({"alignment": True}, {"words", "source_words", "alignment"}),
        ({"weights": True}, {"words", "source_words", "alignment", "weights", "end_of_sentence"}),
        ({"replace_unknown": True}, set()),
    ):
        entries = served.post("/v1/translate", json={**body, **options}).json()["translations"]
        assert all(
            {*entry} == {"text", "score", "log_probability", "truncated", "cut"} | keys for entry in entries
        )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/translate", {"texts": ["Ja. Nein.", "Ja. Nein."], "split": True, "model": "de-en"}),
        ("/v1/translate", {"text": "Ja. <b>Nein.</b><p>Ja. Nein.", "markup": "html", "model": "de-en"}),
        ("/translate", {"q": "Ja. Nein. Ja. Nein.", **LIBRE}),
        ("/translate", {"q": ["Ja. Nein.", "Ja. Nein."], "format": "html", **LIBRE}),
    ],
)
def test_sentences_are_as_many_as_texts_may_be(served: Any, path: str, body: dict[str, Any]) -> None:
    answer = served.post(path, json=body)
    assert answer.status_code == (400 if path == "/translate" else 413)
    assert answer.json() == {"error": "expected at most 3 sentences, got 4"}


def test_long_texts_are_divided_beside_the_event_loop(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds for the largest body, in which nobody else would get an answer."""

    def divide(text: str) -> list[tuple[str, str]]:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return [(text, "")]

    monkeypatch.setattr(text_routes, "in_sentences", divide)
    for path, body in (
        ("/v1/translate", {"text": "Hilfe!", "split": True, "model": "de-en"}),
        ("/translate", {"q": "Hilfe!", **LIBRE}),
    ):
        assert served.post(path, json=body).status_code == 200
