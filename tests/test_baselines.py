"""Baselines give sentences of the source as they are."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from seq2attn.errors import Seq2attnError
from seq2attn.inference.baselines import BASELINES, lead, longest
from seq2attn.metrics import score

ROUGES = ["rouge-1", "rouge-2", "rouge-l", "rouge-lsum"]
DIALOGUE = (
    "Ann: Hi\r\nBob: Hello there, how are you?\r\n\r\nAnn: Fine\r\nBob: Glad to hear that\r\nAnn: Bye now Bob"
)
ARTICLE = "It rained. Mr. Poe went out without a hat. He sneezed! Why did he not take one?"


def test_lead_is_the_beginning() -> None:
    assert lead(DIALOGUE, 2) == "Ann: Hi\nBob: Hello there, how are you?"
    assert lead(ARTICLE, 2) == "It rained.\nMr. Poe went out without a hat."
    assert lead("One. Two.") == "One.\nTwo." and lead("") == ""


def test_longest_has_the_most_words_in_their_order() -> None:
    assert longest(DIALOGUE, 2) == "Bob: Hello there, how are you?\nBob: Glad to hear that"
    assert longest(ARTICLE, 2) == "Mr. Poe went out without a hat.\nWhy did he not take one?"
    assert (
        longest("aa bb. incomprehensibilities cc. dd ee ff.", 2) == "aa bb.\ndd ee ff."
    )  # of two as long, the earlier
    assert longest("One. Two.") == "One.\nTwo." and longest("") == ""


@pytest.mark.parametrize("baseline", [lead, longest])
def test_no_sentence_at_all_is_no_baseline(baseline: Callable[[str, int], str]) -> None:
    with pytest.raises(Seq2attnError, match="a baseline keeps at least 1 sentence, got 0"):
        baseline(ARTICLE, 0)


@pytest.mark.skipif(not os.environ.get("SEQ2ATTN_DATA"), reason="needs samsum in $SEQ2ATTN_DATA")
def test_baselines_of_samsum() -> None:
    path = Path(os.environ["SEQ2ATTN_DATA"]) / "samsum" / "dev.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    golds, found = [row["target"] for row in rows], {}
    for name, make in BASELINES.items():
        scores = score([make(row["source"]) for row in rows], golds, ROUGES, bootstrap=0)
        found[name] = [one.value for one in scores]
    assert found["lead-3"] == pytest.approx([32.5, 10.1, 25.4, 30.9], abs=0.05)
    assert found["longest-3"] == pytest.approx([33.1, 11.3, 25.5, 31.0], abs=0.05)
