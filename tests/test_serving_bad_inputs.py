"""Two hundred bad requests: each has its status and an error in JSON that says what was expected, and none a traceback."""

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from tiny_serving import base64, client, image_predictors, label_predictors, png, translator

pytest.importorskip("fastapi")

from seq2attn.serving.limits import Limits

JSON = {"content-type": "application/json"}
LIMITS = Limits(lines=5, characters=100, images=2, pixels=1000, body=20_000, beam=4)


class Bad(NamedTuple):
    """A request, and the statuses that its answer may have."""

    name: str
    path: str
    status: int
    content: bytes = b""
    headers: dict[str, str] = JSON
    method: str = "POST"


def of(name: str, path: str, status: int, body: Any) -> Bad:
    return Bad(name, path, status, json.dumps(body).encode("utf-8", "surrogatepass"))


def header(width: int, height: int) -> bytes:
    """The beginning of a PNG file that says it is this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


BROKEN = {
    "nothing": b"",
    "no JSON": b"hello",
    "half": b'{"text": "a',
    "a comma": b'{"text": "a",}',
    "single quotes": b"{'text': 'a'}",
    "two values": b'{"text": "a"} {}',
    "bad UTF-8": b'{"text": "\xff\xfe\xfa"}',
    "Latin 1": '{"text": "Tür"}'.encode("latin-1"),
    "deep": b'{"text": ' + b"[" * 9000 + b"]" * 9000 + b"}",
    "deep and open": b"[" * 19_000,
    "a huge number": b'{"text": ' + b"9" * 9000 + b"}",
    "a control character": b'{"text": "a\x01b"}',
}
TEXT_VALUES: dict[str, Any] = {
    "null": None,
    "a number": 3,
    "true": True,
    "a list": ["a"],
    "an object": {"a": "b"},
    "NUL": "a\0b",
    "half a surrogate pair": "a\ud800b",
    "the other half": "\udc00",
    "pairs in the wrong order": "\udc00\ud800",
    "101 characters": "a" * 101,
}
TEXTS_VALUES: dict[str, Any] = {
    "null": None,
    "a text": "a",
    "a number": 1,
    "an object": {},
    "null within": ["a", None],
    "a number within": ["a", 1],
    "a list within": [["a"]],
    "NUL within": ["a", "\0"],
    "half a pair within": ["\ud83d"],
    "too many": ["a"] * 6,
    "a long one": ["a", "a" * 101],
}
OPTIONS: dict[str, list[Any]] = {
    "beam": [0, -1, 5, 10**30, 1.5, "2", True, []],
    "nbest": [0, 5, "1"],
    "length_penalty": [-1, 11, "1", float("nan"), float("inf")],
    "coverage_penalty": [-0.5, {}],
    "max_length": [0, -3, 10**6, "9"],
    "max_length_ratio": [0, -1.0, "2", float("nan")],
    "no_repeat_ngram": [-1, 0.5],
    "sample": [1, "yes", 0],
    "temperature": [0.5, "hot"],  # without sample it has no effect
    "top_k": [-1, 3],
    "top_p": [0, 1.5],
    "seed": [-1, "1"],
    "prefix": [1, None, "\0", ["a"]],
    "alignment": ["true", 1],
    "weights": [0, "no"],
    "split": ["x", 2],
    "markup": ["pdf", 1, True],
    "tag": [1, "", ">>fra<<", "\0"],
    "long": ["maybe", 1],
    "model": [1, ["de-en"], {}],
    "source": [1, []],
    "target": [2, {}],
    "batch_tokens": [10**9],  # not for clients
    "replace_unknown": ["x"],
    "unknown": [1],
    "": [1],
    "\ud800": [1],
}


def _texts() -> Iterator[Bad]:
    for path in ("/v1/translate", "/v1/classify", "/translate", "/v1/align"):
        for name, content in BROKEN.items():
            status = 422 if name == "nothing" and path in ("/v1/translate", "/v1/align") else 400
            yield Bad(f"{path} {name}", path, status, content)
    for path in ("/v1/translate", "/v1/tag", "/v1/classify"):
        for name, value in TEXT_VALUES.items():
            yield of(f"{path} text: {name}", path, 413 if "characters" in name else 422, {"text": value})
        for name, value in TEXTS_VALUES.items():
            too_large = name in ("too many", "a long one")
            yield of(f"{path} texts: {name}", path, 413 if too_large else 422, {"texts": value})
    for option, values in OPTIONS.items():
        for value in values:
            yield of(f"{option}: {value}", "/v1/translate", 422, {"text": "a", option: value})
    yield of("markup and prefix", "/v1/translate", 422, {"text": "a", "markup": "html", "prefix": "b"})
    yield of("prefix and split", "/v1/translate", 422, {"text": "a", "split": True, "prefix": "b"})
    for path in ("/v1/translate", "/v1/next"):
        yield of(f"{path} a prefix of many characters", path, 413, {"text": "a", "prefix": "b" * 101})
    yield of("both", "/v1/translate", 422, {"text": "a", "texts": ["b"]})
    yield of("neither", "/v1/translate", 422, {})
    yield of("a list", "/v1/translate", 422, ["a"])
    yield of("a text alone", "/v1/translate", 422, "a")
    yield of("another model", "/v1/translate", 404, {"text": "a", "model": "fr-en"})
    yield of("a path as model", "/v1/translate", 404, {"text": "a", "model": "../../etc/passwd"})
    yield of("another language", "/v1/translate", 404, {"text": "a", "source": "xx"})
    yield of("no such task", "/v1/summarize", 404, {"text": "a"})
    yield of("many sentences", "/v1/translate", 413, {"text": "Ja! " * 30, "split": True})
    yield of("fewer targets", "/v1/align", 422, {"sources": ["a", "b"], "targets": ["c"]})
    yield of("no targets", "/v1/align", 422, {"sources": ["a"]})
    yield of("a bad threshold", "/v1/align", 422, {"sources": ["a"], "targets": ["b"], "threshold": 2})
    yield of("a long target", "/v1/align", 413, {"sources": ["a"], "targets": ["b" * 101]})
    for name, value in TEXT_VALUES.items():
        if name != "a list":
            yield of(f"q: {name}", "/translate", 400, {"q": value, "source": "de", "target": "en"})
    for field in ("source", "target", "format", "alternatives"):
        for value in (3, ["de"], {"a": 1}, "\ud800"):
            if (field, value) != ("alternatives", 3):
                bad = {"q": "a", "source": "de", "target": "en", field: value}
                yield of(f"{field} of LibreTranslate: {value}", "/translate", 400, bad)


def _bodies() -> Iterator[Bad]:
    small = b'{"text": "a"}'
    for path in ("/v1/translate", "/v1/detect", "/translate"):
        yield Bad(f"{path} a huge body", path, 413, b" " * 20_001)
        yield Bad(f"{path} a huge one announced", path, 413, small, {**JSON, "content-length": "9" * 12})
    yield Bad("no content type", "/v1/translate", 415, small, {})
    yield Bad("text/plain", "/v1/translate", 415, small, {"content-type": "text/plain"})
    yield Bad(
        "a form", "/v1/translate", 415, b"text=a", {"content-type": "application/x-www-form-urlencoded"}
    )
    yield Bad("no content type for images", "/v1/detect", 415, small, {})
    yield Bad("plain images", "/v1/detect", 415, small, {"content-type": "image/png"})
    for form in (
        b"",
        b"--x",
        b"--y\r\n\r\n--y--",
        b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n",
    ):
        sent = {"content-type": "multipart/form-data; boundary=x"}
        yield Bad(
            f"a broken form {form!r}",
            "/v1/detect",
            400 if form[:3] in (b"--y", b"--x") and form != b"--x" else 422,
            form,
            sent,
        )
    yield Bad("no boundary", "/v1/detect", 400, b"--x--", {"content-type": "multipart/form-data"})
    for method, path, status in (
        *(("GET", "/v1/translate", 405), ("PUT", "/v1/translate", 405), ("DELETE", "/", 405)),
        *(("GET", "/v1/nothing", 404), ("POST", "/etc/passwd", 404), ("GET", "/../page.html", 404)),
        *(("GET", "/v1/translate/", 405), ("POST", "/v1/", 404), ("GET", "/docs", 404), ("GET", "/%00", 404)),
    ):
        yield Bad(f"{method} {path}", path, status, method=method)


def _images() -> Iterator[Bad]:
    good = base64(png(8, 8))
    for name, value, status in (
        ("no base64", "###", 422), ("not ASCII", "ü", 422), ("half a surrogate pair", "\ud800", 422),
        ("empty", "", 422), ("a number", 3, 422), ("a list", [good], 422), ("null", None, 422),
        ("a text", base64(b"hello"), 422), ("the start of a file", base64(png(8, 8)[:40]), 422),
        ("a damaged file", base64(png(8, 8)[:-20] + bytes(20)), 422),
        ("a bomb", base64(header(60_000, 60_000)), 413), ("a larger bomb", base64(header(2**30, 2**30)), 413),
        ("no pixels", base64(header(0, 5)), 422), ("a bit too large", base64(png(40, 26)), 413),
        ("an SVG", base64(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 422),
        ("PostScript", base64(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), 422),
        ("a path", "/etc/passwd", 422),
    ):  # fmt: skip
        for path in ("/v1/detect", "/v1/classify", "/v1/caption"):
            yield of(f"{path} {name}", path, status, {"image": value})
    for path in ("/v1/detect", "/v1/segment"):
        yield of(f"{path} three images", path, 413, {"images": [good] * 3})
        yield of(f"{path} both", path, 422, {"images": [good], "image": good})
        yield of(f"{path} none", path, 422, {})
        yield of(f"{path} a text in the place of an image", path, 422, {"text": "a"})
        yield of(f"{path} a list as the body", path, 422, [good])
    for value in (-0.1, 1.1, "x", True, None, float("nan")):
        yield of(f"threshold {value}", "/v1/detect", 422, {"image": good, "threshold": value})
    for option, value in (("mask", 1), ("beam", 2), ("model", 3)):
        yield of(f"segment {option}", "/v1/segment", 422, {"image": good, option: value})
    for option, value in (("beam", 9), ("max_length", 99), ("prefix", "\0"), ("replace_unknown", True)):
        yield of(f"caption {option}", "/v1/caption", 422, {"image": good, option: value})
    many: dict[str, list[Any]] = {
        "count": [0, -1, "2", 1.5, True], "seed": [-1, 2**40], "label": ["emu", 3], "truncation": [0, "a"]
    }  # fmt: skip
    for option, values in many.items():
        for value in values:
            yield of(f"generate {option} {value}", "/v1/generate", 422, {option: value})
    yield of("generate 3", "/v1/generate", 413, {"count": 3})
    file = b'Content-Disposition: form-data; name="%s"; filename="a.png"\r\n\r\n%s\r\n--x--\r\n'
    sent = {"content-type": "multipart/form-data; boundary=x"}
    for name, key, content, status in (
        ("a file of another name", b"file", png(8, 8), 422), ("a file that is no image", b"image", b"hello", 422),
        ("an empty file", b"image", b"", 422), ("a bomb as a file", b"image", header(60_000, 60_000), 413),
    ):  # fmt: skip
        yield Bad(name, "/v1/detect", status, b"--x\r\n" + file % (key, content), sent)


BAD = [*_texts(), *_bodies(), *_images()]


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    labels = label_predictors()
    models = {**image_predictors(), "classify texts": labels["classify"], "tag": labels["tag"]}
    with client({"de-en": translator(), **models}, LIMITS) as opened:
        yield opened


def test_there_are_two_hundred() -> None:
    assert len({bad.name for bad in BAD}) == len(BAD) >= 200


@pytest.mark.parametrize("part", range(8))
def test_bad_requests_are_refused_with_a_reason(
    served: Any, part: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In eight parts: a test of each would take longer to report."""
    wrong = []
    for bad in BAD[part::8]:
        answer = served.request(bad.method, bad.path, content=bad.content, headers=bad.headers)
        told = answer.json() if answer.headers.get("content-type") == "application/json" else None
        good = isinstance(told, dict) and isinstance(told.get("error"), str) and 0 < len(told["error"]) < 1000
        if answer.status_code != bad.status or not good or "Traceback" in answer.text:
            wrong.append((bad.name, answer.status_code, bad.status, answer.text[:200]))
    assert not wrong
    assert not [record for record in caplog.records if record.exc_info]


def test_a_body_without_a_length_is_counted_as_it_comes(served: Any) -> None:
    answer = served.post("/v1/translate", content=(b" " * 1000 for _ in range(30)), headers=JSON)
    assert answer.status_code == 413 and answer.json() == {"error": "expected a body of at most 20,000 bytes"}


def test_a_server_works_after_all_of_them(served: Any) -> None:
    assert (
        served.post("/v1/translate", json={"text": "Hilfe!"}).json()["translations"][0]["text"]
        == "Please help."
    )
    assert served.get("/healthz").status_code == 200 and served.serving.accepted == 0


def test_an_error_does_not_repeat_what_came(served: Any) -> None:
    for body in (
        {"text": ["secret"]},
        {"text": "a", "long": "secret"},
        {"text": "secret", "texts": ["secret"]},
    ):
        assert "secret" not in served.post("/v1/translate", json=body).text
