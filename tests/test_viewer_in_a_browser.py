"""The page itself in Chromium: what it shows and says, how it is pointed at and typed into, what it saves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_browser
import tiny_pages
import torch
from tiny_browser import Browser
from tiny_pages import CHOSEN, SOURCE, TARGET

from seq2attn.alignment.word_alignment import Gold, Link, by_words, error_rate, links, pharaoh
from seq2attn.views.viewer import Entry, Group, Item, Layer, MapOfImage, Output, Page, Picture, Side, TreeNode
from seq2attn.views.viewer.packing import packed, unpacked

WORDS = "[role=grid] td[data-row]"
SAVED = """window.saved = []; URL.createObjectURL = (blob) => { blob.text().then((text) => saved.push([blob.size, text])); return '#'; };
HTMLAnchorElement.prototype.click = function () { saved.push(this.download); }; 1"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with tiny_browser.browser() as one:
        yield one


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    """Open a page, and at the end see that it had no fault and asked no network for anything."""

    def opened(page: Page, fragment: str = "", **options: Any) -> Browser:
        page.save(tmp_path / "page.html")
        browser.open(tmp_path / "page.html", fragment, **options)
        return browser

    yield opened
    assert browser.faults == []


def expected(entry: Entry, layer: int, head: int | None, words: bool = True) -> Any:
    """The weights that a page should show: those of Python, after packing."""
    output = entry.outputs[0]
    weights = unpacked(packed(output.groups[0].layers[layer].weights))
    of_head = torch.tensor(weights.mean(0) if head is None else weights[head])[: len(output.target.pieces)]
    return by_words(of_head, output.target.word_of, entry.source.word_of, True) if words else of_head


def cells(browser: Browser) -> list[str]:
    """The names of the cells of the table beside the view."""
    code = f"new Promise((done) => setTimeout(() => done([...document.querySelectorAll('{WORDS}')].map((one) => one.ariaLabel)), 30))"
    return list(browser.run(code))


def said(weights: Any, columns: list[str], rows: list[str]) -> list[str]:
    return [
        f"{column} to {row} {float(weights[y, x]):.2f}"
        for y, row in enumerate(rows)
        for x, column in enumerate(columns)
    ]


def close(found: list[str], wanted: list[str]) -> bool:
    """The same names, and weights that differ by at most the rounding of the last digit."""
    pairs = [(one.rsplit(" ", 1), other.rsplit(" ", 1)) for one, other in zip(found, wanted, strict=True)]
    return all(a[0] == b[0] and abs(float(a[1]) - float(b[1])) < 0.011 for a, b in pairs)


def test_the_weights_between_words_and_pieces_are_those_of_python(show: Any) -> None:
    entry = tiny_pages.entry()
    browser = show(tiny_pages.page(entry))
    layer, head = CHOSEN  # the page begins with the head of alignments
    found = expected(entry, layer, head)
    both = torch.cat([found.weights, found.end_of_sentence[:, None]], 1)
    assert close(cells(browser), said(both, [*SOURCE.words, "</s>"], TARGET.words))
    browser.press("w")
    pieces = [piece.replace("▁", "·") for piece in [*SOURCE.pieces, "</s>"]]
    names = [piece.replace("▁", "·") for piece in TARGET.pieces]
    assert close(cells(browser), said(expected(entry, layer, head, False), pieces, names))
    for key, choice in [("m", (1, None)), ("h", (1, 0)), ("h", (1, 1)), ("h", (1, 0)), ("l", (0, 0))]:
        browser.press(key)
        assert close(cells(browser), said(expected(entry, *choice, False), pieces, names)), key


def test_large_and_exact_weights_are_read_like_others(show: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seq2attn.views.viewer.packing.DENSE", 100)
    text = tiny_pages.spaced([f"w{number}" for number in range(30)])
    entry = tiny_pages.entry(source=text, target=text, layers=2)
    for exact in (False, True):
        browser = show(tiny_pages.page(entry, exact=exact))
        browser.press("h")  # to the second head
        wanted = torch.tensor(entry.outputs[0].groups[0].layers[1].weights[1][:30])
        if not exact:
            wanted = expected(entry, 1, 1, False)
        assert close(cells(browser), said(wanted, [*text.words, "</s>"], text.words))


def test_error_rate_and_links_are_those_of_python(show: Any) -> None:
    wrong = Link(1, 0)
    for seed in (1, 2, 5):
        entry = tiny_pages.entry(seed)
        alignment = expected(entry, *CHOSEN)
        found = links(alignment)
        gold = Gold(frozenset({wrong}), frozenset({wrong, *found}))  # what was found is only possible
        browser = show(tiny_pages.page(entry, gold=gold))
        error = 100 * error_rate([found], [gold])
        assert f"AER {error:.1f} %" in browser.texts(".title")[0]
        browser.run(SAVED)
        browser.move("[aria-label=Pharaoh]", click=True)
        name, (_, text) = browser.run("new Promise((done) => setTimeout(() => done(saved), 30))")
        assert (name, text) == ("a-page-1.pharaoh", f"{pharaoh(alignment)}\n")


def test_words_are_pointed_at_pinned_and_let_go(show: Any) -> None:
    browser = show(tiny_pages.page(tiny_pages.entry()))
    faint = "[...document.querySelectorAll('.view path')].filter((one) => one.getAttribute('opacity') === '0.05').length"
    assert browser.run(faint) == 0 and browser.texts(".say") == [""]
    browser.move(".word[data-kind=row][data-index='1']")
    assert browser.texts(".say")[0].startswith("amish: ") and browser.run(faint) > 0
    browser.move("h1")
    assert browser.run(faint) == 0
    browser.move(".word[data-kind=column][data-index='2']", click=True)
    browser.move("h1")
    assert browser.texts(".say")[0].startswith("Hunger.: ") and browser.run(faint) > 0
    browser.press("Escape")
    assert browser.run(faint) == 0


def test_arrow_keys_move_over_the_weights(show: Any) -> None:
    browser = show(tiny_pages.page(tiny_pages.entry()), "#matrix")
    for key, start in [
        ("ArrowDown", "I: "),
        ("ArrowRight", "Ich to I 0."),
        ("ArrowRight", "habe to I "),
        ("ArrowDown", "habe to amish "),
    ]:
        browser.press(key)
        assert browser.texts(".say")[0].startswith(start)
    browser.press("Enter")
    browser.press("ArrowUp")
    assert browser.texts(".say")[0].startswith("habe to I ")
    browser.run("document.querySelector('td[tabindex=\"0\"]').focus()")
    browser.press("ArrowRight")
    assert browser.run("document.activeElement.ariaLabel").startswith("habe to I ")


def test_every_view_is_there_and_keys_open_them(show: Any) -> None:
    entry = tiny_pages.entry()
    tree = [
        [TreeNode("▁I", 0, -0.2, False), TreeNode("▁You", 0, -1.5, False)],
        [TreeNode("</s>", 0, -0.3, True)],
    ]
    output = entry.outputs[0]._replace(end=(1, 0))
    made = Entry([output, output._replace(text="another")], entry.source, beam=tree)
    browser = show(Page("a page", ["run"], [Item([made]), Item([tiny_pages.entry(4)])]))
    assert browser.texts("[role=tab]") == ["Words", "Matrix", "Heads", "Steps", "Beam"]
    for number, (view, inside) in enumerate(
        [
            ("words", "svg .word"),
            ("matrix", "canvas"),
            ("heads", "button.head canvas"),
            ("steps", ".candidates li"),
            ("beam", "svg text"),
        ],
        1,
    ):
        browser.press(str(number))
        assert browser.run(f"document.querySelectorAll('.view.{view} {inside}').length") > 0
    browser.press("4")
    assert browser.texts(".candidates .written b") == ["·I"] and browser.texts(".candidates b")[0] == "·you"
    browser.press("ArrowRight")
    assert browser.texts(".candidates .written b") == ["·am"] and browser.texts(".piece.now") == ["·am"]
    browser.move("[aria-label='hypothesis 2']", click=True)
    assert browser.texts(".result, .title .text") == ["another"]
    browser.press("n")
    assert browser.run("document.querySelector('[aria-label=sentence]').selectedIndex") == 1
    browser.press("?")
    assert "light or dark" in browser.texts("dialog")[0]


def test_two_runs_stand_beside_each_other_and_are_subtracted(show: Any) -> None:
    one, two = tiny_pages.entry(1), tiny_pages.entry(5)
    browser = show(tiny_pages.page(one, two))
    assert browser.texts("h2") == ["first", "second"] and browser.texts("[role=tab]")[-1] == "A − B"
    browser.move("[aria-label='A − B']", click=True)
    found, other = (expected(entry, *CHOSEN) for entry in (one, two))
    both = [torch.cat([part.weights, part.end_of_sentence[:, None]], 1) for part in (found, other)]
    wanted = said(both[0] - both[1], [*SOURCE.words, "</s>"], TARGET.words)
    assert close(cells(browser), wanted) and browser.texts("h2") == ["first − second"]
    other_words = tiny_pages.entry(5, target=tiny_pages.spaced(["Me", "too"]))
    assert "A − B" not in show(tiny_pages.page(one, other_words)).texts("[role=tab]")


@pytest.mark.parametrize("direction", ["ltr", "rtl"])
def test_words_run_in_the_direction_of_their_script(show: Any, direction: str) -> None:
    text = ["اشترى", "توم", "سيارة"] if direction == "rtl" else ["Tom", "kauft", "車"]
    browser = show(tiny_pages.page(tiny_pages.entry(source=tiny_pages.spaced(text))))
    lefts = browser.run(
        "[...document.querySelectorAll('.word[data-kind=column] rect')].map((one) => Number(one.getAttribute('x')))"
    )
    assert lefts == sorted(lefts, reverse=direction == "rtl")
    lefts = browser.run(
        "[...document.querySelectorAll('.word[data-kind=row] rect')].map((one) => Number(one.getAttribute('x')))"
    )
    assert lefts == sorted(lefts)


def test_colours_are_the_systems_or_the_users(show: Any, browser: Browser) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    try:
        browser.dark(True)
        show(tiny_pages.page(tiny_pages.entry()))
        assert browser.run(colour) == "rgb(16, 21, 27)"
        browser.press("t")
        assert browser.run(colour) == "rgb(251, 251, 249)"
        browser.press("t")
        assert browser.run(colour) == "rgb(16, 21, 27)"
    finally:
        browser.dark(False)


def test_thousands_of_tokens_are_drawn_only_where_they_are_seen(show: Any) -> None:
    count = 2000
    text = tiny_pages.spaced([f"word{number}" for number in range(count)])
    weights = np.zeros((1, count + 1, count + 1), np.float32)
    weights[0, np.arange(count), np.arange(count)] = 1
    group = Group("attention", "target", "source", [Layer("layer 0", weights)], after=["</s>"])
    side = Side.of(text, " ".join(text.words))
    page = tiny_pages.page(Entry([Output(side.text, side, [group])], side))
    assert len(page.html()) < 500_000
    browser = show(page)
    browser.move(".flow span[data-kind=row][data-index='7']")
    assert browser.texts(".say") == ["word7: word7 1.00"]
    assert browser.run("document.querySelectorAll('span[style]').length") == 2
    browser.press("2")
    width, height = browser.run(
        "[...document.querySelectorAll('.scroll canvas')].map((one) => [one.width, one.height])[0]"
    )
    assert width <= 1180 and height <= 700 and len(browser.texts("path")) == 0
    browser.run("document.querySelector('.scroll').scrollTo(9000, 9000)")
    browser.move(".scroll")
    assert int(browser.texts(".say")[0].split(" ")[0].removeprefix("word")) > 1000


def test_drawings_are_saved_as_files(show: Any) -> None:
    browser = show(tiny_pages.page(tiny_pages.entry()))
    browser.run(SAVED)
    browser.move("[aria-label=SVG]", click=True)
    browser.move("[aria-label=PNG]", click=True)
    saved = browser.run("new Promise((done) => setTimeout(() => done(saved), 300))")
    names = [one for one in saved if isinstance(one, str)]
    contents = [one[1] for one in saved if not isinstance(one, str)]
    assert names == ["a-page-1.svg", "a-page-1.png"]
    assert contents[0].startswith("<svg") and "Hunger." in contents[0] and "PNG" in contents[1][:5]


def test_an_image_has_its_maps_at_each_word(show: Any) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 40, 3)).astype(np.uint8)
    weights = tiny_pages.weights(len(TARGET.pieces) + 1, 6)
    group = Group("attention", "target", "image", [Layer("layer 0", weights, (2, 3))])
    caption = Entry(
        [Output("I amish", Side.of(TARGET, "I amish"), [group])], image=Picture("cat.png", pixels)
    )
    browser = show(tiny_pages.page(caption))
    assert browser.texts("[role=tab]") == ["Image"] and browser.texts(".card span") == ["I", "amish"]
    browser.press("ArrowRight")
    assert browser.texts(".card.now span") == ["I"] and browser.texts(".say")[0].startswith("I: row ")
    affinity = MapOfImage("affinity", "place", tiny_pages.weights(8, 6), (2, 3), (2, 4))
    bars = MapOfImage("channels", "channel", np.ones((1, 2, 5)))
    maps = Entry([Output("cat", maps=[affinity, bars])], image=Picture("cat.png", pixels))
    browser = show(tiny_pages.page(maps))
    browser.move(".large canvas")
    assert "asked from row 1, column 2" in browser.texts(".large .note")[0]
    browser.move(".card:nth-child(2)", click=True)
    assert browser.texts(".large .note")[0].startswith("channels, ")


def test_without_weights_a_page_says_so_and_a_notebook_shows_it_in_a_frame(
    show: Any, browser: Browser, tmp_path: Path
) -> None:
    blank = tiny_pages.page(Entry([Output("Yes.")], Side(["Ja."], "Ja.")))
    assert show(blank).texts(".view") == ["This model has no attention."]
    notebook = tmp_path / "notebook.html"
    notebook.write_text(
        f"<!doctype html><h1>notebook</h1>{tiny_pages.page(tiny_pages.entry()).in_notebook('static')}",
        encoding="utf-8",
    )
    browser.open(notebook)
    assert (
        browser.run("document.querySelector('iframe').contentDocument") is None
    )  # neither reaches the other
    nodes = json.dumps(browser.call("DOM.getDocument", depth=-1, pierce=True))
    assert "Hunger." in nodes and '"Words"' in nodes


def test_nothing_but_the_script_of_the_page_runs(show: Any) -> None:
    browser = show(
        tiny_pages.page(tiny_pages.entry(source=tiny_pages.spaced(["<img src=x onerror=bad=1>", "<b>b</b>"])))
    )
    assert browser.run("typeof bad") == "undefined" and browser.texts("img, b") == []
    browser.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.bad = 1'}))"
    )
    asked = "fetch('data:text/plain,x').then(() => 'sent', () => 'refused')"
    assert (browser.run("typeof bad"), browser.run(asked)) == ("undefined", "refused")
    assert all("Content Security Policy" in fault for fault in browser.faults) and browser.faults
    browser.events.clear()
