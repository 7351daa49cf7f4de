"""What a search says is decided never changes, and watching it changes nothing."""

import lzma
from importlib.resources import files
from typing import Any

import pytest
import torch
from tiny_runs import MODEL
from tiny_search import BOS, EOS, RULES, Toy, greedily, sampled

from seq2attn.inference.beam_search import beam_search
from seq2attn.inference.search import Hypothesis, Rules
from seq2attn.tasks.loading import load

SENTENCES = 24
SAMPLE = files("seq2attn") / "samples" / "tatoeba_de_en" / "dev.tsv.xz"


class Told:
    """What a search has told of each sentence; each time it is more than before, and begins with that."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.times = 0

    def __call__(self, sentence: int, tokens: list[int]) -> None:
        before = self.tokens.get(sentence, [])
        assert len(tokens) > len(before) and tokens[: len(before)] == before
        self.tokens[sentence], self.times = tokens, self.times + 1

    def begins(self, best: list[Hypothesis]) -> None:
        """Check that each result begins with what was told of it."""
        for sentence, tokens in self.tokens.items():
            assert [*best[sentence].tokens, EOS][: len(tokens)] == tokens, sentence


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"length_penalty": 0.4},
        {"length_penalty": 3.0},
        {"length_normalization": "gnmt", "length_penalty": 0.8},
        {"length_normalization": "none"},
        {"min_length": 2, "no_repeat_ngram": 2},
        {"renormalize": True, "estimated_end": True},
        {"coverage_penalty": 0.5, "coverage": lambda state: (state.past % 5)[:, None] / 4},
    ],
)
@pytest.mark.parametrize("bonus", [-2, 0, 2])
def test_a_beam_never_takes_back_what_it_told(changes: dict[str, Any], bonus: int) -> None:
    rules = Rules(**{"bos": BOS, "eos": EOS, "never": (BOS,), **changes})
    toy = Toy(sentences=SENTENCES, vocabulary=9)
    toy.logits[..., EOS] += bonus  # short, middling and long targets
    start, most = toy.start(*range(SENTENCES)), torch.arange(SENTENCES) % 9
    before_the_end = 0
    for beam, nbest in ((2, 1), (4, 3)):
        for prefix in (None, torch.full((SENTENCES, 1), 4)):
            told = Told()
            found = beam_search(toy.step, start, rules, most, beam, prefix, nbest, watch=told)
            assert found == beam_search(toy.step, start, rules, most, beam, prefix, nbest)
            told.begins([nbest[0] for nbest in found])
            before_the_end += told.times - SENTENCES
    assert before_the_end > SENTENCES


@pytest.mark.parametrize("way", [greedily, sampled])
def test_every_token_is_told_where_one_hypothesis_is_followed(way: Any) -> None:
    toy, most = Toy(sentences=SENTENCES), torch.arange(SENTENCES) % 9
    told = Told()
    found = way(toy.step, toy.start(*range(SENTENCES)), RULES, most, watch=told)
    assert told.tokens == {row: [*one.tokens, EOS] for row, one in enumerate(found)}
    assert told.times == sum(len(one.tokens) + 1 for one in found)


@pytest.mark.filterwarnings("ignore::seq2attn.errors.LengthWarning")
@pytest.mark.parametrize(
    "options",
    [{}, {"beam": 1, "replace_unknown": True}],
)
def test_words_that_are_told_begin_the_translation(options: dict[str, Any]) -> None:
    lines = lzma.decompress(SAMPLE.read_bytes()).decode().splitlines()
    texts = ["", *(line.split("\t")[0] for line in lines[:7])]
    model: Any = load(MODEL, device="cpu")
    decoding, told = model.settings(options), [list[str]() for _ in texts]
    listeners = {row: heard.append for row, heard in enumerate(told) if row % 2}
    given = texts, decoding, False, [""] * len(texts), range(len(texts))
    found, plain = model.results(*given, listeners=listeners), model.results(*given)
    assert [(one.text, one.score) for one in found] == [(one.text, one.score) for one in plain]
    for result, heard in zip(found, told, strict=True):
        assert all(result.text.startswith(text) for text in heard)
        words = [text.split() for text in heard]
        assert all(result.text.split()[: len(part)] == part for part in words)  # whole words
    assert not any(told[::2]) and sum(len(set(heard)) for heard in told) > len(listeners)
