"""The page: nothing of it comes from elsewhere, and a browser shows what the models say."""

import json
import re
import shutil
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import tiny_cli
from PIL import Image
from tiny_browser import Browser, browser
from tiny_serving import base64, client, image_predictors, png, serving, translator

import seq2attn
from seq2attn.inference.recognizer import Recognizer

pytest.importorskip("fastapi")

TEXT = "Ich wei\u00df nicht, wo er ist."
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Attributes(HTMLParser):
    """The attributes of all elements, and the texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_a_browser_may_run_only_what_is_in_the_page() -> None:
    with client(started=False) as served:
        answer = served.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "http" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        assert b64encode(sha256(content.encode()).digest()).decode() in policy
    page = Attributes(answer.text)
    assert not [
        name for _, name, _ in page.names if name in ("style", "src", "href") or name.startswith("on")
    ]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|eval\(|document\.write", answer.text)
    assert len(answer.text) < 24_000


@cache
def tagger() -> Recognizer:
    """A tagger that finds something."""
    found: Recognizer = seq2attn.load(Path(tiny_cli.MODEL).parent / "tagger" / "run", device="cpu")
    return found


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server of this process."""
    import uvicorn

    from seq2attn.serving.app import make_app

    models = {"de-en": translator(), "ner": tagger(), **image_predictors()}
    app = make_app(serving(models))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def shown(address: str, text: str, folder: Path) -> tuple[Any, str]:
    """The page that a browser makes of a text, and what it complains about."""
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={folder}",
    ]
    command = [
        str(CHROMIUM),
        *options,
        "--virtual-time-budget=10000",
        "--dump-dom",
        f"{address}/#{quote(text)}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Attributes(done.stdout), "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_a_translation_with_its_words(address: str, tmp_path: Path) -> None:
    text = "Ich wei\u00df nicht, wo er ist."
    page, complaints = shown(address, text, tmp_path)
    result = translator().translate(text, nbest=3)
    assert "Refused" not in complaints and "Error" not in complaints, complaints
    assert result.text in page.texts and f"score {result.score:.3f}" in page.texts
    for word, probability in zip(result.words, result.probabilities.tolist(), strict=True):
        assert word in page.texts and f"{100 * probability:.0f} %" in page.texts
    assert all(other.text in page.texts for other in result.others)
    cells = [value for tag, name, value in page.names if (tag, name) == ("td", "title")]
    assert len(cells) == len(result.words) * len(result.source_words)
    assert f"know \u2013 wei\u00df: {float(result.alignment[2, 1]):.2f}" in cells


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Browser]:
    """A browser with the page."""
    with browser() as opened:
        opened.visit(address + "/#" + quote(TEXT))
        yield opened
        assert not [fault for fault in opened.faults if not fault.startswith(("http://127", "[DOM]"))]


def test_a_word_has_alternatives_and_the_rest_follows_the_one_that_is_chosen(page: Browser) -> None:
    plain = translator().translate(TEXT, nbest=3)
    page.await_("document.querySelector('.below .word')")
    page.move(".below .word:nth-child(3)", click=True)
    page.await_("document.querySelector('.menu button')")
    prefix = " ".join(plain.words[:2]) + " "
    words = translator().next_words(TEXT, prefix)
    shown = page.texts(".menu button")
    assert len(shown) == len(words) and shown[0].startswith(plain.words[2])
    assert all(
        text.startswith(word.text) and text.endswith(" %") for text, word in zip(shown, words, strict=True)
    )
    page.press("ArrowDown")
    page.run("document.activeElement.click()")  # as Enter does
    page.await_("document.querySelector('.given')")
    chosen = translator().translate(TEXT, nbest=3, prefix=words[1].prefix)
    assert page.texts("article .text") == [chosen.text] != [plain.text]
    given = [
        text.removesuffix(small)
        for text, small in zip(page.texts(".given"), page.texts(".given small"), strict=True)
    ]
    assert given == chosen.words[:3]
    page.move("article .link", click=True)
    assert page.texts("article .text") == [plain.text] and not page.texts(".menu, .given")


DROP = """
(() => {
  const bytes = Uint8Array.from(atob("%s"), (one) => one.charCodeAt(0)), dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], "image.png", {type: "image/png"}));
  const model = document.getElementById("model");
  model.value = "%s";
  model.dispatchEvent(new Event("change"));
  document.dispatchEvent(new DragEvent("drop", {dataTransfer, cancelable: true}));
})()
"""


@pytest.mark.filterwarnings("ignore::seq2attn.errors.LengthWarning")
@pytest.mark.parametrize("command", ["classify", "segment", "caption", "detect"])
def test_an_image_that_is_dropped_is_shown_with_its_result_and_its_maps(page: Browser, command: str) -> None:
    content, model = png(24, 32), image_predictors()[command]
    page.run(DROP % (base64(content), command))
    page.await_("document.querySelector('article') && !document.getElementById('state').textContent")
    image = np.asarray(Image.open(BytesIO(content)))
    if command == "caption":
        result: Any = model.caption(image)
        assert page.texts("article .text") == [result.text] and page.texts(".maps button") == result.words
    else:
        maps: Any = model.maps(image)  # type: ignore[attr-defined]
        places = [name for name, map in maps.items() if map.kind not in ("channel", "branch", "channels")]
        assert page.texts(".maps button") == places
    natural = "[...document.querySelectorAll('.image img')].map((one) => one.naturalWidth)"
    page.await_(f"{natural}.every((width) => width)")
    assert page.run(natural)[0] == 32


def typed(page: Browser, model: str, text: str) -> None:
    """Choose a model, write a text, and wait for what the page makes of it."""
    values = json.dumps([model, text])
    page.run(
        f"(() => {{ const [model, text] = {values}, input = document.getElementById('input'); "
        "document.getElementById('model').value = model; input.value = text; "
        "document.getElementById('model').dispatchEvent(new Event('change')); })()"
    )
    page.await_("document.querySelector('article') && !document.getElementById('state').textContent")


LINES = "[...document.querySelectorAll('.pair line')].map((one) => Number(one.getAttribute('stroke-width')))"


def test_a_word_has_lines_to_what_it_looks_at_while_it_is_pointed_at(page: Browser) -> None:
    typed(page, "de-en", TEXT)
    result = translator().translate(TEXT)
    for place in (2, 0):
        page.move(f".below .word:nth-child({place + 1})")
        weights = [weight for weight in result.alignment[place].tolist() if weight >= 0.05]
        assert page.run(LINES) == pytest.approx([1 + 5 * weight for weight in weights], abs=1e-3)
        assert len(page.texts(".word.on")) == 1 + len(weights)
    page.move("h1")
    assert page.run(LINES) == [] and not page.texts(".word.on")


@pytest.mark.parametrize(("text", "direction"), [(TEXT, "ltr"), ("هل توم هنا الآن", "rtl")])
def test_words_and_arrow_keys_follow_the_direction_of_the_text(
    page: Browser, text: str, direction: str
) -> None:
    typed(page, "de-en", text)
    above = "[...document.querySelector('.words').children]"
    lefts = page.run(f"{above}.map((one) => one.getBoundingClientRect().left)")
    assert lefts == sorted(lefts, reverse=direction == "rtl") and len(lefts) > 2
    assert page.run("getComputedStyle(document.getElementById('input')).direction") == direction
    page.run(f"{above}[0].focus()")
    page.press("ArrowLeft" if direction == "rtl" else "ArrowRight")
    assert page.run(f"{above}.indexOf(document.activeElement)") == 1
    assert page.run(LINES)  # a word that has the focus has lines, too


def test_colours_are_those_that_the_system_prefers(page: Browser) -> None:
    colours = "[document.body, document.querySelector('article')].map((one) => getComputedStyle(one).%s)"
    typed(page, "de-en", TEXT)
    try:
        for dark, paper, ink in (
            (True, "rgb(20, 23, 27)", "rgb(230, 232, 235)"),
            (False, "rgb(255, 255, 255)", "rgb(27, 31, 36)"),
        ):
            page.dark(dark)
            assert page.run(colours % "backgroundColor")[0] == paper
            assert page.run(colours % "color") == [ink] * 2
    finally:
        page.dark(False)


def test_spans_of_a_tagger_are_marked_with_their_types(page: Browser) -> None:
    text = "Anna \U0001f642 went to Rome ."
    result = tagger().tag(text)
    typed(page, "ner", text)
    labels = page.texts("mark small")
    marked = zip(page.texts("mark"), labels, strict=True)
    spans = [(one.text, one.type) for one in result.entities]
    assert spans and [(text.removesuffix(label), label.split()[0]) for text, label in marked] == spans
    whole = page.texts("article .text")[0]
    for label in labels:
        whole = whole.replace(label, "", 1)
    assert whole == text


def test_a_narrow_screen_needs_no_scrolling_to_the_side(page: Browser, address: str) -> None:
    page.visit(address + "/#" + quote(f"{TEXT} {TEXT} {TEXT}"), (380, 700))
    page.await_("document.querySelector('.below .word')")
    assert page.run("document.documentElement.scrollWidth") <= 380
