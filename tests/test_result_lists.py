"""A list of results stays a list, and notebooks show it as one table; methods are known by their own names."""

import inspect
import json
import pydoc
from typing import Any

import pytest
import tiny_runs
import torch
from html_page import Page

import seq2attn
from seq2attn import Summarizer, Translator
from seq2attn.inference.decoding_options import DecodingOptions
from seq2attn.inference.label_results import Annotation, Category, Entity
from seq2attn.inference.result_list import SHOWN, Results
from seq2attn.inference.results import Translation
from seq2attn.text.vocabulary import Tokens
from seq2attn.text.word_vocabulary import Word

WORDS = [Word("Bo", 0, 2), Word("<b>", 3, 6)]
TEXT = "Bo <b>"
ENTITY = Entity("PER&", "Bo", 0, 2, 0.5, 0, 0)


def translation(text: str, source: str = "Ja <b>.") -> Translation:
    return Translation(Tokens([], [], source.split(), []), Tokens([], [], [], []), text, -0.25, -1.5)


SHOWN_AS: dict[str, tuple[Any, list[str], list[str]]] = {
    "translation": (translation("<i>&"), ["source", "target", "score"], ["Ja <b>.", "<i>&", "-0.250"]),
    "annotation": (
        Annotation(TEXT, WORDS, ["B-PER&", "O"], [ENTITY]),
        ["text"],
        ["Bo ", "PER& 0.50", " <b>"],
    ),
    "category": (
        Category(TEXT, WORDS, "<en>", {"<en>": 0.9, "de": 0.1}, torch.ones(1, 2)),
        ["text", "label", "probability"],
        [TEXT, "<en>", "0.900"],
    ),
}


@pytest.mark.parametrize("kind", SHOWN_AS)
def test_notebooks_show_a_list_as_one_table(kind: str) -> None:
    result, headings, cells = SHOWN_AS[kind]
    html = Results([result, result])._repr_html_()
    assert html is not None and html.count("<table") == 1
    assert Page(html).texts == [*headings, "0", *cells, "1", *cells]  # escaped: they come back as text


def test_a_long_list_says_how_many_more() -> None:
    results = Results([translation(str(number)) for number in range(SHOWN + 1200)])
    page = Page(results._repr_html_() or "")
    assert (
        page.texts[-1] == "and 1,200 more" and str(SHOWN - 1) in page.texts and str(SHOWN) not in page.texts
    )
    assert "more" not in (results[:SHOWN]._repr_html_() or "")
    assert Page(results[-2:]._repr_html_() or "").texts[-2] == str(SHOWN + 1199)
    assert len(Results([translation("a", "long " * 10**5)])._repr_html_() or "") < 3000
    assert Results[Translation]([])._repr_html_() is None


def test_a_list_stays_a_list() -> None:
    first, second = Category("a", [], "x", {"x": 1.0}), Category("b", [], "y", {"y": 1.0})
    results = Results([first, second])
    assert results == [first, second] and isinstance(results, list) and results[1] is second
    assert repr(results) == repr([first, second]) and json.dumps(Results[Any]([])) == "[]"
    assert type(results[1:]) is Results and results[1:] == [second] and results[-1] is second


def test_models_return_such_lists() -> None:
    model = seq2attn.load(tiny_runs.MODEL, device="cpu", kind=Translator)
    results = model.translate(["Ja.", "Nein."], beam=1)
    assert type(results) is Results and len(results) == 2
    assert [str(result) for result in results] == [
        str(model.translate(text, beam=1)) for text in ("Ja.", "Nein.")
    ]
    assert seq2attn.translate([], model) == []


@pytest.mark.parametrize(("kind", "name"), [(Translator, "translate"), (Summarizer, "summarize")])
def test_methods_are_known_by_their_own_names(kind: Any, name: str) -> None:
    method = getattr(kind, name)
    assert (method.__name__, method.__qualname__, method.__code__.co_name) == (
        name,
        f"{kind.__name__}.{name}",
        name,
    )
    page = pydoc.render_doc(method, renderer=pydoc.plaintext)
    assert f"\n{name}(self, text: " in page and "_generate" not in page and "beam: int | None = None" in page
    parameters = inspect.signature(method).parameters
    assert [*parameters] == [
        "self",
        "text",
        "prefix",
        "alignment",
        "markup",
        *DecodingOptions.__annotations__,
    ]
    assert page.count("Return the result of a text") == 1
