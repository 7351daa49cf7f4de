"""Pages of the viewer: made without a model, and read back."""

import json
import re
from collections.abc import Sequence
from html import unescape
from importlib.resources import files
from typing import Any

import numpy as np

from seq2attn.alignment.word_alignment import Gold
from seq2attn.text.vocabulary import Tokens
from seq2attn.views.viewer import Entry, Group, Item, Layer, Output, Page, Side, Step

SOURCE = Tokens([5, 6, 7, 8], ["▁Ich", "▁habe", "▁Hung", "er."], ["Ich", "habe", "Hunger."], [0, 1, 2, 2])
TARGET = Tokens([9, 3, 4], ["▁I", "▁am", "ish"], ["I", "amish"], [0, 1, 1])
CHOSEN = (1, 0)


def weights(rows: int, columns: int, heads: int = 2, seed: int = 1) -> Any:
    """Weights of heads that sum to 1 over the columns."""
    scores = np.random.default_rng(seed).normal(0, 2, (heads, rows, columns))
    return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)


def entry(seed: int = 1, source: Tokens = SOURCE, target: Tokens = TARGET, layers: int = 2) -> Entry:
    """An entry with the weights of two layers, and the steps of decoding."""
    rows, columns = len(target.pieces) + 1, len(source.pieces) + 1
    made = [Layer(f"layer {number}", weights(rows, columns, 2, seed + number)) for number in range(layers)]
    group = Group("attention to the source", "target", "source", made, after=["</s>"], chosen=CHOSEN)
    steps = [Step(piece, -0.5, 1, [("▁you", 0.61), (piece, 0.39)]) for piece in [*target.pieces, "</s>"]]
    output = Output(
        " ".join(target.words), Side.of(target, " ".join(target.words)), [group], steps, score=-0.5
    )
    return Entry([output], Side.of(source, " ".join(source.words)))


def spaced(words: Sequence[str]) -> Tokens:
    """A text of which each word is a piece."""
    return Tokens([*range(len(words))], [*words], [*words], [*range(len(words))])


def page(*entries: Entry, gold: Gold | None = None, **options: Any) -> Page:
    """A page with the entries of each run for one sentence."""
    names = ["first", "second"][: len(entries)]
    return Page("a page", names, [Item(entries, gold)], **options)


def data_of(html: str) -> Any:
    """The data of a page, also of one that a notebook has in an iframe."""
    found = re.search('srcdoc="([^"]*)"', html)
    html = unescape(found[1]) if found else html
    return json.loads(
        re.findall('<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[0]
    )


def validated(html: str) -> Any:
    """The data of a page, which are as its schema says."""
    import jsonschema

    data = data_of(html)
    schema = json.loads(files("seq2attn.views.viewer").joinpath("schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(data)
    return data
