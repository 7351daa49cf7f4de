"""Routes of texts: the results are those of the model, whatever else is asked; errors say what was expected."""

import json
import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_serving import SENTENCES, client, translator

pytest.importorskip("fastapi")

from seq2attn.data.sources import SourceIds
from seq2attn.serving.limits import Limits
from seq2attn.serving.log_records import LOGGER, JsonFormatter
from seq2attn.serving.pairs import Pair
from seq2attn.serving.schemas import Request
from seq2attn.serving.text_works import Draft, Writing
from seq2attn.text.sentence_splitter import in_sentences


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    with client() as opened:
        yield opened


def post(served: Any, path: str, **body: Any) -> Any:
    answer = served.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def alone(text: str, **options: Any) -> Any:
    return translator().translate(text, **options)


def same(entry: dict[str, Any], result: Any) -> None:
    """A served translation is the same text, with the same score but for rounding."""
    assert entry["text"] == result.text
    assert entry["score"] == pytest.approx(result.score, abs=1e-5)
    assert entry["log_probability"] == pytest.approx(result.log_probability, abs=1e-5)
    others = [other["text"] for other in entry.get("alternatives", [])]
    assert others == [other.text for other in result.others]


def test_a_served_translation_is_that_of_the_line_alone_at_any_concurrency(served: Any) -> None:
    """Ten clients at once, with settings of their own; each line is translated alone for comparison."""
    settings: list[dict[str, Any]] = [{}, {"beam": 1}, {"beam": 3, "nbest": 2}, {"alignment": True}]
    sampled = {"sample": True, "seed": 3, "nbest": 2}
    answers: dict[int, tuple[list[str], dict[str, Any], Any]] = {}

    def ask(number: int) -> None:
        texts = [SENTENCES[(number * 3 + n) % len(SENTENCES)] for n in range(1 + number % 3)]
        options = sampled if number % 5 == 4 else settings[number % 4]
        answers[number] = (
            texts,
            options,
            post(served, "/v1/translate", texts=texts, **options)["translations"],
        )

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert len(answers) == 10
    for texts, options, entries in answers.values():
        plain = {name: value for name, value in options.items() if name != "alignment"}
        if plain.get("sample"):  # samples depend on the place of a line in its request
            results = translator().translate(texts, alignment=False, **plain)
        else:
            results = [alone(text, alignment=False, **plain) for text in texts]
        for entry, result in zip(entries, results, strict=True):
            same(entry, result)


def test_words_have_probabilities_and_the_source_words_that_they_look_at(served: Any) -> None:
    (entry,) = post(served, "/v1/translate", text="Tom ist nicht hier.", weights=True)["translations"]
    result = alone("Tom ist nicht hier.")
    assert entry["alignment"] == result.pharaoh() and entry["source_words"] == result.source_words
    assert [word["text"] for word in entry["words"]] == result.words
    assert entry["weights"] == result.to_json()["alignment"]
    product = math.prod(word["probability"] for word in entry["words"])
    assert product == pytest.approx(float(result.probabilities.prod()), rel=1e-2)
    for index, word in enumerate(entry["words"]):
        assert all([source, index] in [[*link] for link in result.links()] for source in word["sources"])


def test_a_word_has_the_product_of_the_probabilities_of_its_pieces() -> None:
    result, generator = translator().translate("Ich weiß nicht, wo er ist."), translator().generator
    source = generator.tokenizer.collate([SourceIds(result.source.ids)])
    read = torch.tensor([[translator().target.bos, *result.target.ids]])
    with torch.no_grad():
        of_steps = generator.model(source, read).logits[0].softmax(-1)
    expected = [1.0] * len(result.words)
    for step, (piece, word) in enumerate(zip(result.target.ids, result.target.word_of, strict=True)):
        expected[word] *= float(of_steps[step, piece])
    assert result.probabilities.tolist() == pytest.approx(expected, rel=1e-4) and len(expected) > 2
    assert len(result.target.ids) > len(expected)


def test_texts_with_several_sentences_are_split_and_joined(served: Any) -> None:
    text = "\n Wo ist Tom?  Tom ist nicht hier.\n\nHilfe! "
    (entry,) = post(served, "/v1/translate", text=text, split=True)["translations"]
    one, two, three = (alone(part).text for part in ("Wo ist Tom?", "Tom ist nicht hier.", "Hilfe!"))
    assert entry["text"] == f"\n {one}  {two}\n\n{three} "
    assert [part["text"] for part in entry["sentences"]] == ["", one, two, three]


@pytest.mark.parametrize(
    "text", ["", " ", "a", " a. b \n", "Dr. No? Ja! 好。是。", "\n\na.\n", "a.\u00a0b. c"]
)
def test_sentences_and_what_is_between_them_are_the_text(text: str) -> None:
    parts = in_sentences(text)
    assert "".join(sentence + after for sentence, after in parts) == text
    assert all(sentence == sentence.strip() and not after.strip() for sentence, after in parts)


def test_markup_stays_around_its_words(served: Any) -> None:
    marked = "<p>Wo ist <b>Tom</b>?</p>"
    (entry,) = post(served, "/v1/translate", text=marked, markup="html")["translations"]
    assert entry["text"] == alone(marked, markup="html").text and "<b>" in entry["text"]


def test_marked_texts_are_read_sentence_by_sentence_and_say_what_was_cut(served: Any) -> None:
    marked = "<p>Wo ist <b>Tom</b>? Hilfe!</p>"
    (entry,) = post(served, "/v1/translate", text=marked, markup="html")["translations"]
    one, two = alone("Wo ist <b>Tom</b>?", markup="html").text, alone("Hilfe!").text
    assert entry == {"text": f"<p>{one} {two}</p>", "cut": False, "truncated": False}
    long = f"<i>{'Tom ' * 1_100}</i>. Hilfe!"
    short = {"markup": "html", "max_length": 2, "beam": 1}
    (entry,) = post(served, "/v1/translate", text=long, **short)["translations"]
    assert entry["cut"] and entry["truncated"]
    answer = served.post("/v1/translate", json={"text": long, "markup": "html", "long": "refuse"})
    assert answer.status_code == 422 and "longer than the model reads" in answer.json()["error"]


def test_joined_sentences_say_whether_one_was_truncated(served: Any) -> None:
    body = {"text": "Hilfe! Wo ist Tom?", "split": True}
    (entry,) = post(served, "/v1/translate", **body)["translations"]
    assert entry["truncated"] is False
    (entry,) = post(served, "/v1/translate", **body, max_length=2)["translations"]
    assert entry["truncated"] is True


def test_texts_that_are_not_blank_begin_with_the_tag_that_is_asked_for(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(translator().source), "has_tag", lambda _, tag: tag == "Tom")
    entries = post(served, "/v1/translate", texts=["ist nicht hier.", " "], tag="Tom")["translations"]
    assert [entry["text"] for entry in entries] == [alone("Tom ist nicht hier.").text, ""]


def events(served: Any, **body: Any) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream, with their data."""
    answer = served.post("/v1/translate", json=body, headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_results_stream_one_by_one_in_order(served: Any) -> None:
    told = events(served, texts=SENTENCES[:4], beam=2)
    entries = [entry for name, entry in told if name == "result"]
    assert [entry["number"] for entry in entries] == [0, 1, 2, 3]
    for text, entry in zip(SENTENCES, entries, strict=False):
        same(entry, alone(text, beam=2))
    assert told[-1] == ("end", {"model": "de-en", "checksum": "0123456789ab", "engine": "torch"})


@pytest.mark.parametrize("options", [{"beam": 1}, {"nbest": 2, "split": True}])
def test_words_stream_before_their_sentence_is_there_and_begin_it(
    served: Any, options: dict[str, Any]
) -> None:
    """All of many lines, computed together; what was sent is never taken back, and a result is what it is
    without a stream."""
    body = {"texts": [*SENTENCES[4:7], "Wo ist Tom?  Tom ist nicht hier.\nHilfe!"], **options}
    plain = post(served, "/v1/translate", **body)["translations"]
    texts, sent, sentence = ["" for _ in plain], ["" for _ in plain], ""
    for name, entry in events(served, **body)[:-1]:
        if name == "words":
            sentence += entry["text"]
            sent[entry["number"]] = texts[entry["number"]] + sentence
        else:
            assert entry["text"].startswith(sentence) and name == "result"
            texts[entry["number"]] += entry["text"] + entry["after"]
            sentence = ""
    assert texts == [one["text"] for one in plain]
    assert all(text.startswith(beginning) for text, beginning in zip(texts, sent, strict=True))


def test_the_next_words_are_those_of_the_model(served: Any) -> None:
    words = post(served, "/v1/next", text="Wo ist Tom?", prefix="Where ", count=3)["words"]
    for entry, word in zip(words, translator().next_words("Wo ist Tom?", "Where ", 3), strict=True):
        assert (entry["text"], entry["prefix"]) == (word.text, word.prefix)
        assert entry["probability"] == pytest.approx(word.probability, abs=1e-5)
    (entry,) = post(served, "/v1/translate", text="Wo ist Tom?", prefix=words[1]["prefix"])["translations"]
    assert entry["text"].startswith(words[1]["prefix"].strip())
    long = "Tom " * (translator().decoding.max_source + 1)
    answer = served.post("/v1/next", json={"text": long})
    assert answer.status_code == 422 and "longer than the model reads" in answer.json()["error"]


def test_pairs_are_aligned_as_the_model_aligns_them(served: Any) -> None:
    pairs = [("Wo ist Tom?", "Where is Tom?"), ("Hilfe!", "Help!"), ("", "")]
    body = {"sources": [source for source, _ in pairs], "targets": [target for _, target in pairs]}
    entries = post(served, "/v1/align", **body)["alignments"]
    for entry, expected in zip(entries, translator().align_pairs(pairs), strict=True):
        assert entry["links"] == [[*link] for link in expected.links()]
    assert post(served, "/v1/align", **body, threshold=0)["alignments"][0]["links"] != entries[0]["links"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_text_that_is_longer_than_the_model_reads_is_cut_or_refused(served: Any) -> None:
    limit = translator().decoding.max_source
    text = "Tom " * (limit + 1)
    (entry,) = post(served, "/v1/translate", text=text, beam=1, max_length=1)["translations"]
    assert entry["cut"] and entry["truncated"]
    answer = served.post("/v1/translate", json={"texts": ["Tom", text], "long": "refuse"})
    assert answer.status_code == 422 and "text 1 is longer than the model reads" in answer.json()["error"]


def test_models_are_found_by_name_or_by_languages() -> None:
    both = {"one": translator(), "other": translator()}
    with client(both) as served:
        served.serving.models["other"].pairs = [Pair("de", "fr")]
        assert post(served, "/v1/translate", text="Hilfe!", model="other")["model"] == "other"
        assert post(served, "/v1/translate", text="Hilfe!", target="en")["model"] == "one"
        told = {
            (): "several models can translate this: give model, one of one (de to en), other (de to fr)",
            (("model", "three"),): "no such model: expected one of one (de to en), other (de to fr)",
            (("source", "fr"),): "no such model",
        }
        for body, message in told.items():
            answer = served.post("/v1/translate", json={"text": "Hilfe!", **dict(body)})
            assert answer.status_code in (404, 422) and message in answer.json()["error"]
        assert served.post("/v1/tag", json={"text": "Tom"}).status_code == 404


def test_a_token_is_asked_for_everywhere_but_at_the_page_and_its_like() -> None:
    with client(token="s3cret") as served:
        for path in (
            "/",
            "/healthz",
            "/readyz",
            "/health",
            "/languages",
            "/frontend/settings",
            "/openapi.json",
        ):
            assert served.get(path).status_code == 200, path
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}):
            for path in ("/v1/models", "/metrics"):
                assert served.get(path, headers=headers).status_code == 401
            answer = served.post("/v1/translate", json={"text": "Hilfe!"}, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        document = served.get("/openapi.json").json()
        assert document["components"]["securitySchemes"] == {
            "HTTPBearer": {"type": "http", "scheme": "bearer"}
        }
        asking = {path for path, told in document["paths"].items() if "security" in told.get("post", {})}
        assert "/v1/translate" in asking and "/v1/segment" in asking and "/translate" not in asking
        right = {"authorization": "Bearer s3cret"}
        counted = served.get("/metrics", headers=right).text
        assert 'seq2attn_requests_total{route="/v1/translate",code="401"} 3' in counted
        assert served.post("/v1/translate", json={"text": "Hilfe!"}, headers=right).status_code == 200


def test_other_pages_may_ask_only_if_they_are_let() -> None:
    asked = {"origin": "https://example.org", "access-control-request-method": "POST"}
    for cors, status, origin in (((), 405, None), (("https://example.org",), 200, "https://example.org")):
        with client(cors=cors) as served:
            answer = served.options("/v1/translate", headers=asked)
            assert answer.status_code == status
            assert answer.headers.get("access-control-allow-origin") == origin


def test_examples_of_the_documentation_are_good_requests(served: Any) -> None:
    document = served.get("/openapi.json").json()
    paths = {path: list(methods) for path, methods in document["paths"].items()}
    works = (
        "translate",
        "summarize",
        "next",
        "align",
        "tag",
        "caption",
        "detect",
        "segment",
        "classify",
        "generate",
    )
    assert all(paths[f"/v1/{name}"] == ["post"] for name in works) and paths["/translate"] == ["post"]
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            assert told["summary"] and told["description"], path
            if method == "post":
                content = told["responses"]["200"]["content"]["application/json"]
                assert content["example"]
                expected = {"400", "408", "413", "429", "503"} | (
                    {"403"} if path == "/translate" else {"401", "422"}
                )
                assert expected < told["responses"].keys(), path

    def kinds(kind: type[Request]) -> list[type[Request]]:
        return [kind, *(one for below in kind.__subclasses__() for one in kinds(below))]

    examples = 0
    for kind in kinds(Request):
        for example in (kind.model_config.get("json_schema_extra") or {}).get("examples", ()):  # type: ignore[union-attr]
            kind.model_validate(example)
            examples += 1
    assert examples >= 9


def test_what_was_counted_is_told(served: Any) -> None:
    post(served, "/v1/translate", texts=["Hilfe!", "Wo ist Tom?"])
    text = served.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert int(values['seq2attn_requests_total{route="/v1/translate",code="200"}']) >= 1
    assert int(values['seq2attn_lines_total{model="de-en"}']) >= 2
    assert values['seq2attn_waiting_lines{model="de-en"}'] == "0"
    for name in ("request_seconds", "batch_seconds", "batch_lines", "batch_fill"):
        assert any(key.startswith(f"seq2attn_{name}_bucket") for key in values), name
    assert len({line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}) == text.count(
        "# TYPE"
    )


def test_a_full_queue_is_429_and_a_late_request_503_and_neither_is_computed() -> None:
    with client(limits=Limits(waiting=1, timeout=0.05), started=False) as served:
        model = served.serving.models["de-en"]
        late = served.post("/v1/translate", json={"text": "Hilfe!"})
        assert late.status_code == 503 and "nothing of this was begun" in late.json()["error"]
        assert int(late.headers["retry-after"]) >= 1 and model.waiting.weight == 0
        work = Writing(model.predictor, model.predictor.decoding)
        model.waiting.add(work, work.lines([Draft("Tom")]))
        full = served.post("/v1/translate", json={"text": "Hilfe!"})
        assert full.status_code == 429 and int(full.headers["retry-after"]) >= 1


def test_a_server_that_is_being_stopped_refuses_new_work_and_says_so() -> None:
    with client(started=False) as served:
        served.serving.draining = True
        assert served.get("/readyz").status_code == 503
        answer = served.post("/v1/translate", json={"text": "Hilfe!"})
        assert answer.status_code == 503 and "being stopped" in answer.json()["error"]


def test_a_server_whose_model_has_ended_says_so() -> None:
    with client(started=False) as served:
        for path in ("/healthz", "/readyz", "/health"):
            assert served.get(path).status_code == 503


def test_a_failure_is_an_internal_error_and_no_text_is_told_or_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("of the secret text")

    with client() as served, caplog.at_level("INFO"):
        monkeypatch.setattr(type(translator()), "results", fail)
        answer = served.post("/v1/translate", json={"text": "a secret"})
    assert answer.status_code == 500 and answer.json() == {
        "error": "internal error: see the log of the server"
    }
    written = [JsonFormatter().format(record) for record in caplog.records if record.name == LOGGER.name]
    assert "RuntimeError" in written[0] and '"status": 500' in written[0] and "secret" not in "".join(written)
