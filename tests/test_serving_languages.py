"""Models of several languages are served by language: their tags are told by the recipe, and put by the target."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_runs
from tiny_serving import client, serving, summarizer, translator

pytest.importorskip("fastapi")

from seq2attn.recipe import read
from seq2attn.serving import server
from seq2attn.serving.counters import Counters
from seq2attn.serving.languages import code_of, same_language
from seq2attn.serving.limits import Limits
from seq2attn.serving.opening import open_models
from seq2attn.serving.pairs import Pair, pairs_of
from seq2attn.text.given_ids import Numbering
from seq2attn.text.vocabulary import Vocabulary

MODEL = (tiny_runs.MODEL / "text" / "source.model").read_bytes()


def pairs(
    languages: list[str], train: Any, tags: list[str], known: list[str] | None = None
) -> list[tuple[str, str, str | None]]:
    """The pairs of a recipe. known: the tags of the vocabulary; None: all of them."""
    data = {"languages": languages, "train": train, "dev": {"files": ["dev.a", "dev.b"]}}
    part = {"kind": "transformer", "size": 8, "layers": 1, "feed_forward": 8, "self_attention": {"heads": 2}}
    sections = {
        "data": data,
        "text": {"tags": tags},
        "model": {"encoder": part, "decoder": {**part, "cross_attention": {"heads": 2}}},
        "training": {"max_steps": 1},
    }
    recipe = read(sections, check_files=False)
    numbering = Numbering(tags=tags if known is None else known)
    return [(*pair,) for pair in pairs_of(recipe, Vocabulary(MODEL, numbering=numbering))]


def corpus(source: str, tag: str | None = None) -> dict[str, Any]:
    return {"files": [source, "target.txt"], "tag": tag}


@pytest.mark.parametrize(
    ("languages", "train", "tags", "expected"),
    [
        (["de", "en"], [corpus("a.de")], [], [("de", "en", None)]),
        (  # the files tell the sources; the last suffix does
            ["source", "target"],
            [corpus("train.fr.en.gz", "<2de>"), corpus("train.de.gz", "<2en>"), corpus("more.de", "<2fr>")],
            ["<2de>", "<2en>", "<2fr>"],
            [("en", "de", "<2de>"), ("de", "en", "<2en>"), ("de", "fr", "<2fr>")],
        ),
        (["en", "many"], [corpus("a.en", "<2de>"), corpus("b.en", "<2de>")], ["<2de>"], [("en", "de", "<2de>")]),
        (["EN", "many"], corpus("a", "<2de>"), ["<2de>"], [("en", "de", "<2de>")]),
        (["en", "many"], [{"table": "a.tsv", "tag": "<2de>"}], ["<2de>"], [("en", "de", "<2de>")]),
        (["en", "many"], [corpus("a", "<2de>"), corpus("b", ">>fra<<")], ["<2de>", ">>fra<<"],
         [("en", "de", "<2de>"), ("en", "fr", ">>fra<<")]),
        (["a", "b"], [corpus("x", "<de>"), corpus("y", "<en>")], ["<de>", "<en>"],
         [("en", "de", "<de>"), ("de", "en", "<en>")]),
        (["de", "en"], [corpus("x", "<2de>"), corpus("y", "<2fr>")], ["<2de>", "<2fr>"],  # into each other
         [("en", "de", "<2de>"), ("fr", "de", "<2de>"), ("de", "fr", "<2fr>"), ("en", "fr", "<2fr>")]),
        (["de", "en"], [corpus("a.de"), corpus("b.de", "<bt>")], ["<bt>"], [("de", "en", None)]),
    ],
)  # fmt: skip
def test_tags_that_name_languages_are_targets(
    languages: list[str], train: Any, tags: list[str], expected: list[Any]
) -> None:
    assert pairs(languages, train, tags) == expected


def test_tags_that_the_vocabulary_lacks_are_no_targets() -> None:
    train = [corpus("a", "<2de>"), corpus("b", "<2fr>")]
    found = pairs(["en", "many"], train, ["<2de>", "<2fr>"], known=["<2fr>"])
    assert found == [("en", "fr", "<2fr>")]


def test_the_tags_of_an_imported_model_are_pieces_of_its_vocabulary() -> None:
    class Source:
        names = ["</s>", "▁a", "▁de", ">>fra<<", ">>por<<", ">>x<<"]

    data = SimpleNamespace(languages=("en", "ROMANCE"), train=[])
    text = SimpleNamespace(tags="marked")
    found = pairs_of(SimpleNamespace(data=data, text=text), Source())  # type: ignore[arg-type]
    assert found == (Pair("en", "fr", ">>fra<<"), Pair("en", "pt", ">>por<<"))


@pytest.mark.parametrize(
    ("own", "asked", "same"),
    [("de", "DE", True), ("de", "de_DE", True), ("deu", "de", True), ("de", " de ", True), ("zh_Hans", "zh", True),
     ("zh-Hans", "zh-Hant", False), ("de", "en", False)],
)  # fmt: skip
def test_codes_of_a_language_fit_each_other(own: str, asked: str, same: bool) -> None:
    assert same_language(own, asked) == same == same_language(asked, own)
    assert code_of("deu_DE") == "de-de"


def test_the_target_puts_the_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(translator().source), "has_tag", lambda _, tag: tag in ("Tom", "Ich"))
    with client() as served:
        model = served.serving.models["de-en"]
        model.pairs = [Pair("de", "en", "Tom"), Pair("de", "fr", "Ich"), Pair("en", "de", "Tom")]
        codes = {one["code"]: one["targets"] for one in served.get("/languages").json()}
        assert codes == {"de": ["en", "fr"], "en": ["de"], "fr": []}
        text, expected = "ist nicht hier.", [translator().translate("Tom ist nicht hier.").text]
        expected.append(translator().translate("Ich ist nicht hier.").text)
        for target, result in zip(("EN", "fr_FR"), expected, strict=True):
            body = {"q": text, "source": "de_DE", "target": target}
            assert served.post("/translate", json=body).json() == {"translatedText": result}
            html = served.post("/translate", json={**body, "format": "html"}).json()
            assert html == {"translatedText": result}
            (entry,) = served.post("/v1/translate", json={"text": text, "target": target}).json()[
                "translations"
            ]
            assert entry["text"] == result
        answer = served.post("/v1/translate", json={"text": text, "source": "de"})
        assert (answer.status_code, answer.json()["error"]) == (422, "expected target, one of en, fr")
        auto = served.post("/translate", json={"q": text, "source": "auto", "target": "de"}).json()
        assert auto["detectedLanguage"] == {"confidence": 0.0, "language": "en"}
        pair = {"sources": [text], "targets": ["Tom isn't here."], "target": "en"}
        (aligned,) = served.post("/v1/align", json=pair).json()["alignments"]
        assert aligned["source"] == text and all(source < 3 for source, _ in aligned["links"])
        (listed,) = served.get("/v1/models").json()["models"]
        assert listed["pairs"] == [["de", "en"], ["de", "fr"], ["en", "de"]] and listed["languages"] is None


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a model of several languages, whose tags are words."""
    monkeypatch.setattr(type(translator().source), "has_tag", lambda _, tag: tag in ("Tom", "Ich"))
    with client() as served:
        served.serving.models["de-en"].pairs = [Pair("de", "en", "Tom"), Pair("de", "fr", "Ich")]
        yield served


FRENCH = {"text": "ist nicht hier.", "target": "fr"}
TEXT = "Ich ist nicht hier."  # as the model reads it


def test_every_sentence_begins_with_the_tag(several: Any) -> None:
    plain = [translator().translate(f"Ich {part}").text for part in ("ist nicht hier.", "bin da.")]
    of_markup = {"text": "bin <b>da</b>.", "markup": "html", "target": "fr"}
    (entry,) = several.post("/v1/translate", json=of_markup).json()["translations"]
    assert entry["text"] == translator().translate("Ich bin <b>da</b>.", markup="html").text
    (entry,) = several.post(
        "/v1/translate", json={**FRENCH, "text": "ist nicht hier. bin da.", "split": True}
    ).json()["translations"]
    assert [one["text"] for one in entry["sentences"]] == plain
    stream = several.post("/v1/translate", json=FRENCH, headers={"accept": "text/event-stream"}).text
    assert json.dumps(plain[0], ensure_ascii=False) in stream
    body = {"q": "ist nicht hier. bin da.", "source": "de", "target": "fr"}
    assert several.post("/translate", json=body).json() == {"translatedText": " ".join(plain)}


def test_a_text_without_tag_and_languages_begins_with_none(several: Any) -> None:
    (entry,) = several.post("/v1/translate", json={"text": FRENCH["text"]}).json()["translations"]
    plain = translator().translate(FRENCH["text"]).text
    assert entry["text"] == plain != translator().translate(TEXT).text


@pytest.mark.usefixtures("several")  # has the tags
def test_summaries_are_those_of_the_text_with_its_tag() -> None:
    with client({"sum": summarizer()}) as served:
        for tag, text in ((None, FRENCH["text"]), ("Ich", TEXT)):
            body = {"text": FRENCH["text"], "tag": tag, "prefix": "Tom"}
            (entry,) = served.post("/v1/summarize", json=body).json()["summaries"]
            assert entry["text"] == summarizer().summarize(text, prefix="Tom").text
        answer = served.post("/v1/summarize", json={"text": "bin da.", "tag": "Du"})
        assert answer.status_code == 422 and "no such tag" in answer.json()["error"]


def test_next_words_are_those_of_the_text_with_its_tag(several: Any) -> None:
    expected = [word.text for word in translator().next_words(TEXT, "", 3)]
    assert expected != [word.text for word in translator().next_words(FRENCH["text"], "", 3)]
    for asked in (FRENCH, {"text": FRENCH["text"], "tag": "Ich"}):
        words = several.post("/v1/next", json={**asked, "count": 3}).json()["words"]
        assert [word["text"] for word in words] == expected


def test_pairs_are_aligned_with_their_tag_which_is_no_word(several: Any) -> None:
    target = "isn't here."
    tagged, plain = translator().align_pairs([(TEXT, target), (FRENCH["text"], target)])
    body = {"sources": [FRENCH["text"]], "targets": [target], "target": "fr", "threshold": 0.1}
    (entry,) = several.post("/v1/align", json=body).json()["alignments"]
    assert entry["source"] == FRENCH["text"]
    assert entry["log_probability"] == pytest.approx(tagged.log_probability, abs=1e-5)
    assert entry["log_probability"] != pytest.approx(plain.log_probability, abs=1e-2)
    weights = tagged.alignment.weights[:, 1:].T
    assert sorted(entry["links"]) == (weights > 0.1).nonzero().tolist() != []


def test_a_tag_is_one_of_the_model_and_of_the_languages(several: Any) -> None:
    for path, body in (("/v1/translate", {}), ("/v1/next", {})):
        for given in ({"tag": "Ich"}, {"tag": "Ich", "target": "fr"}, {"tag": "Ich", "source": "de"}):
            answer = several.post(path, json={"text": "bin da.", **given, **body})
            assert answer.status_code == 200
        for given, message in (
            ({"tag": "Du"}, "the model has no such tag: expected one of its text.tags"),
            (
                {"tag": "Ich", "target": "en"},
                "these languages have another tag: leave out tag, or source and target",
            ),
        ):
            answer = several.post(path, json={"text": "bin da.", **given, **body})
            assert (answer.status_code, answer.json()) == (422, {"error": message})


def test_clients_that_cannot_name_a_model_get_the_first_of_a_pair() -> None:
    with client({"one": translator(), "two": translator()}) as served:
        assert served.serving.pairs() == {Pair("de", "en"): ["one", "two"]}
        body = {"q": "Hilfe!", "source": "de", "target": "en"}
        assert served.post("/translate", json=body).json() == {"translatedText": "Please help."}
        assert served.post("/v1/translate", json={"text": "Hilfe!"}).status_code == 422


def test_pairs_are_listed_by_their_codes_and_models_once() -> None:
    with client(started=False) as served:
        served.serving.models["de-en"].pairs = [Pair("DE", "eng", ">>x<<"), Pair("de", "en", ">>y<<")]
        assert served.serving.pairs() == {Pair("de", "en"): ["de-en"]}


@pytest.mark.parametrize("names", [["one"], ["one", "two"]])
def test_the_log_says_that_several_models_have_the_same_languages(
    names: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "log_to", lambda stream: None)
    monkeypatch.setattr(server.DrainingServer, "run", lambda self, sockets: [one.close() for one in sockets])
    with caplog.at_level("INFO"):
        server.run(serving({name: translator() for name in names}), "127.0.0.1", 0)
    told = [one.fields for one in caplog.records if one.getMessage().startswith("several models have")]  # type: ignore[attr-defined]
    assert told == [{"source": "de", "target": "en", "models": names}] * (len(names) - 1)


class Renamed:
    """An engine with a name, which leaves all to torch."""

    name, rounding, exact = "other", 0.0, True

    def supports(self, *_: Any) -> bool:
        return False


def test_an_engine_is_that_of_the_models_that_search() -> None:
    from tiny_serving import label_predictors

    predictors = {"de-en": translator(), "tag": label_predictors()["tag"]}
    asked: list[Any] = []

    def engine(recipe: Any, predictor: Any) -> Any:
        asked.append(predictor)
        return Renamed()

    runs = dict.fromkeys(predictors, tiny_runs.MODEL)
    waiting = iter(predictors.values())
    models = open_models(runs, lambda _: next(waiting), engine, Limits(), Counters())
    assert asked == [translator()]
    assert {name: model.engine for name, model in models.items()} == {"de-en": "other", "tag": "torch"}
