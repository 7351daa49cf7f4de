"""Sentences end at line feeds, or where a reader would say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2attn.text.sentence_splitter import sentences


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" \n ", []),
        ("One", ["One"]),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("one. two.  three.", ["one.", "two.", "three."]),  # lower-cased texts, too
        ("Ann: Hi. How are you?\r\nBob: Fine. \r\n\r\nAnn: :)", ["Ann: Hi. How are you?", "Bob: Fine.", "Ann: :)"]),
        ("One line. Two sentences.\n", ["One line.", "Two sentences."]),  # a line feed at the end parts nothing
        ("Dr. No met Mr. Bond. They left.", ["Dr. No met Mr. Bond.", "They left."]),
        ("J. R. Smith et al. were here. So was I. And he.", ["J. R. Smith et al. were here.", "So was I.", "And he."]),
        ("Fruit, e.g. apples. From the U.S. only.", ["Fruit, e.g. apples.", "From the U.S. only."]),
        ("It costs 3.50 at www.shop.com. Cheap!", ["It costs 3.50 at www.shop.com.", "Cheap!"]),
        ('He said "Go!" Then (at last.) he went.', ['He said "Go!"', "Then (at last.)", "he went."]),
        ("Well... fine. Well... No. So… yes", ["Well... fine.", "Well...", "No.", "So… yes"]),
        ("Really?! yes", ["Really?!", "yes"]),
        ("今日は雨です。明日は？「晴れ！」と言った。", ["今日は雨です。", "明日は？", "「晴れ！」", "と言った。"]),
    ],
)  # fmt: skip
def test_sentences_end_where_a_reader_would_say(text: str, found: list[str]) -> None:
    assert sentences(text) == found


@given(st.text(alphabet="ab.!?… \n\"'I"))
def test_nothing_but_space_is_lost(text: str) -> None:
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(one and one == one.strip() and "\n" not in one for one in found)
