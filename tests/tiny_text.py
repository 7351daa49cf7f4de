"""German sentences for tests, and vocabularies of them."""

import lzma
from functools import cache
from pathlib import Path

from hypothesis import example
from hypothesis import strategies as st

import seq2attn
from seq2attn.text.vocabulary_training import train_vocabulary

SAMPLE = Path(seq2attn.__file__).parent / "samples" / "tatoeba_de_en" / "dev.tsv.xz"
with lzma.open(SAMPLE, "rt", encoding="utf-8") as lines:
    GERMAN = [line.split("\t")[0] for line in lines]
OPTIONS = {
    "unigram": {},
    "bpe": {"model": "bpe"},
    "char": {"model": "char"},
    "lowercase": {"lowercase": True},
    "as it is": {"nfkc": False, "words": "spaces"},
    "as it is, lowercase": {"nfkc": False, "lowercase": True},
}


HARD = [
    "Ich  habe Hunger😀 日本語 \u200b xÄ\x00y a\nb ﬁ é",
    "GPT日3本語です, กินข้าวแล้ว",
    "e\u0301 A\u0308\u0323 \u0301",
    "\u200b",
    " \u200bfoo\u200b bar \u200b ",
    "a\u3000b\u2028c\x85d\vf",
    "👩‍👩‍👧 ﷺ ½ ´",
    "▁a▁ b▁",
]
some_text = st.text(max_size=30) | st.text("aÄß 日ーのกิ\u0301\u200b ﬁ\n▁😀", max_size=20)


def hard(test):
    for text in HARD:
        test = example(text=text)(test)
    return test


@cache
def vocabularies():
    """Train a vocabulary with each of OPTIONS."""
    return {name: train_vocabulary(GERMAN, size=600, **options) for name, options in OPTIONS.items()}


def bare(text):
    return "".join(text.split())
