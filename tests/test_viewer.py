"""Pages of the viewer: what they hold, that they need nothing else, and how weights are packed."""

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny_pages
from numpy.testing import assert_allclose, assert_array_equal

from seq2attn.alignment.word_alignment import Gold, Link
from seq2attn.errors import Seq2attnError
from seq2attn.views.viewer import Entry, Item, MapOfImage, Output, Page, Picture, Side, ViewError, packing
from seq2attn.views.viewer import page as pages
from seq2attn.views.viewer.packing import KEPT, packed, unpacked

# ---- packing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low", [0.0, -3.0])
def test_packed_weights_are_wrong_by_at_most_half_a_step(low: float) -> None:
    weights = np.random.default_rng(1).uniform(low, 2.5, (3, 7, 11)).astype(np.float32)
    back = unpacked(json.loads(json.dumps(packed(weights))))
    assert np.abs(back - weights).max() <= (weights.max() - min(0, low)) / 510 + 1e-5
    assert_array_equal(unpacked(packed(weights, exact=True)), weights)


def test_zero_stays_zero_and_the_largest_weight_stays_the_largest() -> None:
    weights = np.array([[[0.0, 0.3, 0.0, 0.7]]], np.float32)
    back = unpacked(packed(weights))
    assert (back == 0).tolist() == (weights == 0).tolist() and back.max() == np.float32(0.7)
    assert not unpacked(packed(np.zeros((1, 2, 3)))).any() and unpacked(
        packed(np.zeros((1, 0, 3)))
    ).shape == (1, 0, 3)


def test_of_large_matrices_the_largest_weights_of_each_row_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "DENSE", 100)
    weights = np.random.default_rng(2).uniform(0, 1, (2, 5, 40)).astype(np.float32)
    back = unpacked(packed(weights))
    assert ((back > 0).sum(-1) == KEPT).all()
    for row, own in zip(back.reshape(-1, 40), weights.reshape(-1, 40), strict=True):
        assert {*np.flatnonzero(row).tolist()} == {*np.argsort(own)[-KEPT:].tolist()}
        assert_allclose(row[row > 0], own[row > 0], atol=1 / 500)
    assert_array_equal(unpacked(packed(weights, exact=True)), weights)


def test_what_cannot_be_shown_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (np.full((1, 2, 2), np.nan), np.zeros((2, 2))):
        with pytest.raises(ViewError, match="expected finite weights of heads, rows and columns"):
            packed(wrong)
    monkeypatch.setattr(packing, "MOST", 9)
    with pytest.raises(ViewError, match="at most 9 weights of a head, and these texts have 2 times 5"):
        packed(np.zeros((1, 2, 5)))


# ---- the file --------------------------------------------------------------------------------------------

NASTY = "</script><script>alert(1)</script> & <!-- \u2028 \u2029 👩‍👩‍👧 日本 مرحبا \\ \" ' $& %s {0}"


def test_a_page_is_one_file_that_needs_nothing_else() -> None:
    html = tiny_pages.page(tiny_pages.entry()).html()
    code = html.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    for sign in (
        "http",
        "//cdn",
        "@import",
        "url(",
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "sendBeacon",
        "eval(",
    ):
        assert sign not in code, sign
    assert not re.search(r"<[^>]*\son\w+\s*=", html.partition("<body>")[2].partition("<script")[0])
    assert len(re.findall("<script", html)) == 2 and "<link" not in html and " src=" not in html
    assert len(html) < 100_000


def test_only_the_script_of_the_page_may_run() -> None:
    html = tiny_pages.page(tiny_pages.entry()).html()
    (script,) = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    checksum = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall('Content-Security-Policy" content="(.*?)"', html)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["script-src"] == f"'sha256-{checksum}'" and rules["img-src"] == "data: blob:"


def test_code_and_style_are_small() -> None:
    assert len((pages._script() + pages._style()).encode()) <= 60_000


def test_texts_come_back_whatever_they_are() -> None:
    source = tiny_pages.spaced(NASTY.split(" "))
    made = Page(NASTY, [NASTY], [Item([tiny_pages.entry(source=source)])])
    html = made.html()
    data = tiny_pages.validated(html)
    assert data == json.loads(json.dumps(made.to_json()))
    assert data["title"] == NASTY and data["items"][0]["of"][0]["source"]["words"] == NASTY.split(" ")
    assert html.count("</script>") == 2 and "<!--" not in html
    assert tiny_pages.data_of(made.in_notebook()) == data


@pytest.mark.parametrize("words", [1, 300])
def test_weights_come_back_from_a_page(words: int) -> None:
    text = tiny_pages.spaced([f"w{number}" for number in range(words)])
    entry = tiny_pages.entry(source=text, target=text, layers=1)
    data = tiny_pages.validated(tiny_pages.page(entry, exact=True).html())
    (layer,) = data["items"][0]["of"][0]["outputs"][0]["groups"][0]["layers"]
    assert_allclose(unpacked(layer), entry.outputs[0].groups[0].layers[0].weights, rtol=1e-6)


def test_a_page_without_weights_and_a_page_of_an_image() -> None:
    blank = Entry([Output("")], Side([], ""))
    pixels = np.random.default_rng(1).integers(0, 256, (900, 30, 3)).astype(np.uint8)
    place = MapOfImage("pooling", "place", np.ones((1, 1, 6)) / 6, (2, 3), limits=(0.0, 1.0))
    affinity = MapOfImage("affinity", "place", np.ones((2, 4, 6)) / 6, (2, 3), (2, 2))
    image = Entry([Output("cat", maps=[place, affinity])], image=Picture("cat.png", pixels))
    data = tiny_pages.validated(Page("two", ["run"], [Item([blank]), Item([image])]).html())
    shown = data["items"][1]["of"][0]["image"]
    assert (shown["name"], shown["height"]) == ("cat.png", 640) and shown["width"] < 30
    assert [one.get("queries") for one in data["items"][1]["of"][0]["outputs"][0]["maps"]] == [None, [2, 2]]


def test_gold_links_are_sure_or_possible() -> None:
    gold = Gold(frozenset({Link(0, 0)}), frozenset({Link(0, 0), Link(2, 1)}))
    data = tiny_pages.validated(tiny_pages.page(tiny_pages.entry(), gold=gold).html())
    assert data["items"][0]["gold"] == [[0, 0, "S"], [2, 1, "P"]]


def test_pages_that_cannot_be_made_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ViewError, match="give at least one sentence or image"):
        Page("empty", ["run"], []).html()
    made = tiny_pages.page(tiny_pages.entry())
    with pytest.raises(Seq2attnError, match=f"cannot write {tmp_path}/no/page.html: No such file"):
        made.save(tmp_path / "no" / "page.html")
    monkeypatch.setattr(pages, "LARGEST", 1000)
    with pytest.raises(
        ViewError, match="the page would have 0 MB, more than 0: give fewer or shorter sentences"
    ):
        made.html()


def test_notebooks_show_the_page_in_a_frame_of_its_own() -> None:
    html = tiny_pages.page(tiny_pages.entry()).in_notebook("<b>static</b>")
    assert html.startswith('<iframe srcdoc="') and 'sandbox="allow-scripts allow-downloads"' in html
    assert "<script" not in html and "&lt;noscript&gt;&lt;b&gt;static&lt;/b&gt;&lt;/noscript&gt;" in html
