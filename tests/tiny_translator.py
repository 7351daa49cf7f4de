"""Sentences, and calls of a translator."""

from typing import Any

import pytest
from torch.testing import assert_close

from seq2attn.inference.results import Translation
from seq2attn.inference.translator import Translator

SENTENCES = [
    "Tom ist nicht hier.",
    "Ja.",
    "Das Buch, das du mir gestern gegeben hast, ist wirklich gut.",
    "Wo ist mein Buch?",
    "",
    "Ich weiß nicht, warum Tom nicht kommt.",
    "Wir haben Zeit.",
]
KINDS = ["model", "lstm", "transformer"]
DRAWN: dict[str, Any] = {"sample": True, "nbest": 9, "temperature": 0.5}  # texts of many kinds


def several(translator: Translator, texts: list[str], **settings: Any) -> list[Translation]:
    return translator.translate(texts, **settings)


def one(translator: Translator, text: str = SENTENCES[0], **settings: Any) -> Translation:
    return translator.translate(text, **settings)


def assert_same(found: Translation, expected: Translation) -> None:
    """The same translation, its other hypotheses included."""
    for a, b in zip(found.nbest, expected.nbest, strict=True):
        assert (a.text, a.target, a.source) == (b.text, b.target, b.source)
        assert (a.score, a.log_probability) == pytest.approx((b.score, b.log_probability), abs=1e-5)
        assert_close((a.alignment, a.weights, a.end_of_sentence), (b.alignment, b.weights, b.end_of_sentence))


def retold(translator: Translator, said: Translation) -> bool:
    """Whether the text is cut into the pieces of which it was made."""
    return bool(said.source.ids) and said.target.ids == translator.target.encode([said.text])[0]
