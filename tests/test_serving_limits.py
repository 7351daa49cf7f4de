"""What would hold others up for long is refused, and what takes longer counts for more in the queue."""

from pathlib import Path
from typing import Any

import pytest
from tiny_serving import (
    SENTENCES,
    base64,
    client,
    image_predictors,
    label_predictors,
    png,
    summarizer,
    translator,
)

pytest.importorskip("fastapi")

from seq2attn.errors import Seq2attnError
from seq2attn.serving import schemas
from seq2attn.serving.limits import Limits
from seq2attn.serving.text_works import Aligning, Continuing, Draft, OfDrafts, Writing

MOST = 256  # decoding.max_length
LONG = "no " * (MOST + 1)
PAIRS = "1,024 pieces in the source and 256 in the target (decoding.max_source and max_length, or the decoder's positions)"
IMPATIENT = Limits(timeout=0.05)  # what is not refused at once is not waited for
THIRTY = "Tom is not here. " * 30  # as many characters as two lines


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (
            "/v1/translate",
            {"texts": ["Ja.", "Hilfe!"], "prefix": LONG},
            "the prefix of text 0 has 257 pieces, and",
        ),
        (
            "/v1/next",
            {"text": "Hilfe!", "prefix": LONG},
            "the prefix of text 0 has 257 pieces, and outputs at most 256",
        ),
        (
            "/v1/align",
            {"sources": ["Ja.", "Hilfe!"], "targets": ["Yes.", LONG]},
            f"pair 1 is too long: expected at most {PAIRS}",
        ),
        (
            "/v1/align",
            {"sources": ["ja " * 1_025], "targets": ["Yes."]},
            f"pair 0 is too long: expected at most {PAIRS}",
        ),
    ],
)
def test_prefixes_and_pairs_are_no_longer_than_what_the_model_writes(
    path: str, body: dict[str, Any], message: str
) -> None:
    with client(limits=IMPATIENT, started=False) as served:  # refused before anything is computed
        answer = served.post(path, json=body)
    assert answer.status_code == 422 and answer.json()["error"].startswith(message)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/translate", {"text": "Ja.", "prefix": "b" * 101}),
        ("/v1/summarize", {"text": "Ja.", "prefix": "b" * 101}),
        ("/v1/next", {"text": "Ja.", "prefix": "b" * 101}),
        ("/v1/next", {"text": "b" * 101}),
        ("/v1/align", {"sources": ["Ja.", "b" * 101], "targets": ["Yes.", "b"]}),
        ("/v1/align", {"sources": ["Ja."], "targets": ["b" * 101]}),
        ("/v1/caption", {"image": base64(png(8, 8)), "prefix": "b" * 101}),
    ],
)
def test_all_texts_have_at_most_so_many_characters(path: str, body: dict[str, Any]) -> None:
    models = {"de-en": translator(), "sum": summarizer(), "caption": image_predictors()["caption"]}
    model = {"model": "de-en"} if path == "/v1/next" else {}
    for characters, statuses in ((100, {413}), (101, {422, 503})):  # 503: it would be computed
        with client(models, IMPATIENT._replace(characters=characters), started=False) as served:
            answer = served.post(path, json={**body, **model})
            assert answer.status_code in statuses, answer.text
        expected = f"expected texts of at most {characters} characters, got one of 101"
        assert (answer.json()["error"] == expected) == (characters == 100)


def test_a_request_has_at_most_so_many_texts() -> None:
    for lines, status in ((1, 413), (2, 503)):
        with client(limits=IMPATIENT._replace(lines=lines), started=False) as served:
            assert served.post("/v1/translate", json={"texts": ["Ja.", "Nein."]}).status_code == status


@pytest.mark.parametrize(("name", "most"), [("beam", 3), ("nbest", 3), ("max_length", MOST)])
def test_a_search_is_as_large_as_the_server_lets_it(name: str, most: int) -> None:
    with client(limits=IMPATIENT._replace(beam=3), started=False) as served:
        for value, status in ((most, 503), (most + 1, 422)):
            answer = served.post("/v1/translate", json={"text": "Ja.", "beam": 3, name: value})
            assert answer.status_code == status, answer.text
    assert answer.json() == {"error": f"{name}: expected at most {most}"}


def test_a_prefix_counts_in_the_queue() -> None:
    work = Writing(translator(), translator().decoding)
    plain, begun = (work.lines([Draft("Ja.", prefix)])[0] for prefix in ("", THIRTY))
    assert (plain.weight, begun.weight) == (1, 2)
    assert begun.length == len(translator().target.encode([THIRTY])[0]) > plain.length


def test_a_pair_counts_by_its_longer_text() -> None:
    for side, pair in enumerate((("Ja.", THIRTY), (THIRTY, "Ja."))):
        (line,) = Aligning(translator()).lines([pair])
        coder = translator().source if side else translator().target
        assert line.weight == 2 and line.length == len(coder.encode([THIRTY])[0])


def test_a_prefix_leaves_the_decoder_a_position(monkeypatch: pytest.MonkeyPatch) -> None:
    length, work = len(translator().target.encode([THIRTY])[0]), Writing(translator(), translator().decoding)
    drafts = [Draft("Ja."), Draft("Ja.", THIRTY)]
    monkeypatch.setattr(type(translator().model.decoder), "max_length", length, raising=False)
    with pytest.raises(Seq2attnError, match="the prefix of text 1 is longer than the decoder can read"):
        work.lines(drafts)
    monkeypatch.setattr(type(translator().model.decoder), "max_length", length + 1)
    assert len(work.lines(drafts)) == 2


@pytest.mark.parametrize("work", [Writing, Continuing])
def test_texts_of_a_batch_have_their_own_prefixes(work: type[OfDrafts]) -> None:
    """A batch has lines of several requests, and each of these has a prefix."""
    of_lines = work(translator(), translator().decoding)
    drafts = [Draft("Wo ist Tom?", "Where "), Draft("Hilfe!", "I need"), Draft("Wo ist Tom?")]
    alone = [of_lines.compute(of_lines.lines([draft]))[0] for draft in drafts]
    together = of_lines.compute([line for draft in drafts for line in of_lines.lines([draft])])
    texts = [[getattr(result, "text", result) for result in results] for results in (alone, together)]
    if work is Writing:
        assert (
            texts[0]
            == texts[1]
            == [translator().translate(one.text, prefix=one.prefix).text for one in drafts]
        )
    else:
        words = [translator().next_words(one.text, one.prefix) for one in drafts]
        assert [[word.text for word in one] for one in texts[1]] == [
            [word.text for word in one] for one in words
        ]


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


def test_the_longest_output_follows_the_source_as_it_is_asked_to() -> None:
    text = " ".join(SENTENCES)
    with client() as served:
        body = {"text": text, "max_length_ratio": 0.01, "beam": 1}
        (entry,) = served.post("/v1/translate", json=body).json()["translations"]
    expected = translator().translate(text, max_length_ratio=0.01, beam=1, alignment=False)
    assert entry["truncated"] and entry["text"] == expected.text and len(expected.target.ids) == 10


def test_the_page_of_the_server_names_every_field() -> None:
    text = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
    requests = (
        cls for cls in vars(schemas).values() if isinstance(cls, type) and issubclass(cls, schemas.Request)
    )
    missing = {name for request in requests for name in request.model_fields if f"`{name}`" not in text}
    assert not missing
