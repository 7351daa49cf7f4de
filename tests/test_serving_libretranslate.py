"""The routes of LibreTranslate, by requests as its clients send them."""

from collections.abc import Iterator
from typing import Any

import pytest
from tiny_serving import client, translator

pytest.importorskip("fastapi")

from seq2attn.serving.limits import Limits
from seq2attn.serving.pairs import Pair


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    with client() as opened:
        yield opened


def of(text: str, **options: Any) -> Any:
    return translator().translate(text, **options)


CLIENTS: dict[str, tuple[dict[str, Any], Any]] = {
    # what is sent, and the answer to "Wo ist Tom?" and "Hilfe!"
    "a form, as of libretranslatepy": (
        {"data": {"q": "Wo ist Tom?", "source": "de", "target": "en"}},
        {"translatedText": "Where's Tom?"},
    ),
    "a form with an empty key, as of Weblate 4": (
        {"data": {"api_key": "", "q": "Hilfe!", "source": "de", "target": "en"}},
        {"translatedText": "Please help."},
    ),
    "JSON with a list, as of Weblate 5": (
        {"json": {"api_key": None, "q": ["Wo ist Tom?", "Hilfe!"], "source": "de", "target": "en"}},
        {"translatedText": ["Where's Tom?", "Please help."]},
    ),
    "JSON as of pages": (
        {"json": {"q": "Hilfe!", "source": "auto", "target": "en", "format": "text", "api_key": ""}},
        {"translatedText": "Please help.", "detectedLanguage": {"confidence": 0.0, "language": "de"}},
    ),
    "JSON without its content type, as of curl": (
        {"content": b'{"q": "Hilfe!", "source": "de", "target": "en"}'},
        {"translatedText": "Please help."},
    ),
    "a form with several texts": (
        {"data": {"q": ["Wo ist Tom?", "Hilfe!"], "source": "de", "target": "en"}},
        {"translatedText": ["Where's Tom?", "Please help."]},
    ),
    "nothing at all": ({"json": {"q": [], "source": "de", "target": "en"}}, {"translatedText": []}),
    "a blank text": ({"json": {"q": " \n", "source": "de", "target": "en"}}, {"translatedText": " \n"}),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_clients_of_libretranslate_get_what_they_expect(served: Any, name: str) -> None:
    sent, expected = CLIENTS[name]
    answer = served.post("/translate", **sent)
    assert (answer.status_code, answer.json()) == (200, expected)


def test_paragraphs_are_translated_sentence_by_sentence(served: Any) -> None:
    body = {"q": "Wo ist Tom? Hilfe!\n\nTom ist nicht hier.", "source": "de", "target": "en"}
    expected = f"{of('Wo ist Tom?')} {of('Hilfe!')}\n\n{of('Tom ist nicht hier.')}"
    assert served.post("/translate", json=body).json() == {"translatedText": expected}


def test_alternatives_are_the_next_best_translations(served: Any) -> None:
    body = {"q": "Wo ist Tom?", "source": "de", "target": "en", "alternatives": 3}
    best = of("Wo ist Tom?", nbest=4)
    expected = {"translatedText": best.text, "alternatives": [other.text for other in best.others]}
    assert served.post("/translate", json=body).json() == expected
    several = served.post("/translate", json={**body, "q": ["Wo ist Tom?"]}).json()
    assert several == {name: [value] for name, value in expected.items()}


@pytest.mark.parametrize("form", ["text", "html"])
def test_alternatives_are_as_many_as_are_asked_for_and_all_different(form: str) -> None:
    """Whatever number the recipe has; a blank text has none."""
    with client({"de-en": translator().configured({"nbest": 4})}) as served:
        body = {
            "q": ["Wo ist Tom?", " "],
            "source": "auto",
            "target": "en",
            "format": form,
            "alternatives": 2,
        }
        answer = served.post("/translate", json=body).json()
        best = of("Wo ist Tom?", nbest=4).nbest
        assert answer == {
            "translatedText": [best[0].text, " "],
            "alternatives": [[one.text for one in best[1:3]], []],
            "detectedLanguage": [{"confidence": 0.0, "language": "de"}] * 2,
        }
        assert "alternatives" not in served.post("/translate", json={**body, "alternatives": 0}).json()


def test_tags_stay_around_their_words(served: Any) -> None:
    body = {"q": "Wo ist <b>Tom</b>?", "source": "de", "target": "en", "format": "html"}
    assert served.post("/translate", json=body).json()["translatedText"] == of(body["q"], markup="html").text


def test_texts_with_tags_have_alternatives_too(served: Any) -> None:
    body = {"q": "Wo ist <b>Tom</b>?", "source": "de", "target": "en", "format": "html", "alternatives": 2}
    answer = served.post("/translate", json=body).json()
    plain = [one.text for one in of("Wo ist Tom?", nbest=3).nbest]
    texts = [answer["translatedText"], *answer["alternatives"]]
    assert [text.replace("<b>", "").replace("</b>", "") for text in texts] == plain


def test_languages_and_settings_are_listed(served: Any) -> None:
    assert served.get("/languages").json() == [
        {"code": "de", "name": "German", "targets": ["en"]},
        {"code": "en", "name": "English", "targets": []},
    ]
    assert served.get("/health").json() == {"status": "ok"}
    settings = served.get("/frontend/settings").json()
    assert settings["charLimit"] == 20_000 and settings["keyRequired"] is False
    assert settings["language"] == {
        "source": {"code": "de", "name": "German"},
        "target": {"code": "en", "name": "English"},
    }


GOOD = {"q": "Hilfe!", "source": "de", "target": "en"}
ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "no text": ({"source": "de", "target": "en"}, "Invalid request: missing q parameter"),
    "no source": ({"q": "a", "target": "en"}, "Invalid request: missing source parameter"),
    "no target": ({"q": "a", "source": "de"}, "Invalid request: missing target parameter"),
    "another language": ({**GOOD, "source": "xx"}, "xx is not supported"),
    "another target": ({**GOOD, "target": "fr"}, "fr is not supported"),
    "a number": (
        {**GOOD, "q": 3},
        "Invalid request: q is a text or a list of texts, in Unicode and without NUL",
    ),
    "another format": ({**GOOD, "format": "pdf"}, "pdf format is not supported"),
    "too many alternatives": ({**GOOD, "alternatives": 100}, "alternatives: expected at most 19"),
    "negative alternatives": (
        {**GOOD, "alternatives": -1},
        "Invalid request: alternatives is a number from 0 on",
    ),
    "a long text": (
        {**GOOD, "q": "a" * 20_001},
        "expected texts of at most 20,000 characters, got one of 20,001",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_have_the_form_and_the_status_of_libretranslate(served: Any, name: str) -> None:
    body, message = ERRORS[name]
    answer = served.post("/translate", json=body)
    assert (answer.status_code, answer.json()) == (400, {"error": message})


def test_the_key_is_the_token_of_the_server() -> None:
    with client(token="s3cret", started=False) as served:
        for key, message in (
            ("", "Please contact the server operator to get an API key"),
            ("x", "Invalid API key"),
        ):
            answer = served.post("/translate", json={**GOOD, "api_key": key})
            assert (answer.status_code, answer.json()) == (403, {"error": message})
        good = served.post("/translate", json={**GOOD, "source": "xx", "api_key": "s3cret"})
        assert good.status_code == 400  # the key was right
        header = {"authorization": "Bearer s3cret"}
        assert served.post("/translate", json={**GOOD, "source": "xx"}, headers=header).status_code == 400


def test_a_language_is_not_guessed_among_several() -> None:
    models = {"one": translator(), "two": translator()}
    with client(models, Limits(timeout=0.05), started=False) as served:
        served.serving.models["two"].pairs = [Pair("fr", "en")]
        answer = served.post("/translate", json={**GOOD, "source": "auto"})
        assert answer.status_code == 400 and answer.json()["error"].endswith("give source, one of de, fr")
        served.serving.models["two"].pairs = [Pair("de", "en-US")]  # the same language, and another English
        auto = served.post("/translate", json={**GOOD, "source": "auto"})
        assert auto.status_code == 503  # it would be computed
