"""Search over a toy that can be searched by brute force, and over the tiny models."""

import itertools
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any, NamedTuple

import pytest
import tiny
import torch
from torch import Tensor

from seq2attn.data.sources import Source
from seq2attn.inference.beam_search import beam_search
from seq2attn.inference.search import Hypothesis, Rules, greedy, sample
from seq2attn.models.seq2seq import Seq2Seq

BOS, EOS, VOCABULARY, LONGEST = 0, 1, 5, 4
ALL = 200  # more than there are hypotheses
RULES = Rules(BOS, EOS, never=(BOS,))


class ToyState(NamedTuple):
    sentence: Tensor  # (N,)
    past: Tensor  # (N,), a number that tells what has been read


class Toy:
    """Logits that depend on the sentence and on all that has been read; counts the rows and the sentences of each step."""

    def __init__(self, sentences: int = 3, seed: int = 1, vocabulary: int = VOCABULARY) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.logits = 1.5 * torch.randn(sentences, 997, vocabulary, generator=generator)
        self.vocabulary = vocabulary
        self.rows: list[int] = []
        self.sentences: list[int] = []

    def start(self, *sentences: int) -> ToyState:
        return ToyState(torch.tensor(sentences), torch.zeros(len(sentences), dtype=torch.long))

    def step(self, token: Tensor, state: ToyState) -> tuple[Tensor, ToyState]:
        self.rows.append(len(token))
        self.sentences.append(len(state.sentence.unique()))
        past = (self.vocabulary * state.past + token) % 997
        return self.logits[state.sentence, past], ToyState(state.sentence, past)

    def probabilities(self, sentence: int, *tokens: int) -> Tensor:
        """Of what follows these tokens."""
        past = reduce(lambda past, token: self.vocabulary * past + token, tokens, BOS)
        return self.logits[sentence, past % 997].softmax(-1)

    def log_probability(self, sentence: int, *tokens: int) -> float:
        each = [self.probabilities(sentence, *tokens[:n])[token] for n, token in enumerate(tokens)]
        return float(torch.stack(each).log().sum())


def repeats(tokens: list[int] | tuple[int, ...], n: int) -> bool:
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) < len(grams)


def every_sentence(rules: Rules = RULES, prefix: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """All that the rules allow."""
    free = [token for token in range(VOCABULARY) if token not in (EOS, *rules.never)]
    for length in range(rules.min_length, LONGEST + 1):
        for tokens in itertools.product(free, repeat=length):
            if tokens[: len(prefix)] == prefix and not (
                rules.no_repeat_ngram and repeats(tokens, rules.no_repeat_ngram)
            ):
                yield tokens


def limits(*most: int) -> Tensor:
    return torch.tensor(most)


REAL = Rules(tiny.BOS, tiny.EOS, never=(tiny.PAD, tiny.BOS))
Way = Callable[..., list[Hypothesis]]


def greedily(step: Any, state: Any, rules: Rules, most: Tensor, **options: Any) -> list[Hypothesis]:
    return greedy(step, state, rules, most, **options)


def beamed(step: Any, state: Any, rules: Rules, most: Tensor, **options: Any) -> list[Hypothesis]:
    return [found[0] for found in beam_search(step, state, rules, most, 3, **options)]


def sampled(step: Any, state: Any, rules: Rules, most: Tensor, **options: Any) -> list[Hypothesis]:
    return sample(step, state, rules, most, range(len(most)), **options)


ways = pytest.mark.parametrize("way", [greedily, beamed, sampled])


@torch.no_grad()
def search(
    model: Seq2Seq, way: Way, lengths: list[int], most: int = 6, rules: Rules = REAL, **options: Any
) -> list[Any]:
    state = model.start(Source(*tiny.sources(*lengths)))
    if rules.coverage_penalty:
        state = model.decoder.track_coverage(state)
    return way(model.step, state, rules, limits(*[most] * len(lengths)), **options)


@torch.no_grad()
def forced(model: Seq2Seq, lengths: list[int], found: list[list[Hypothesis]]) -> list[list[float]]:
    """Log-probabilities of the hypotheses by teacher forcing."""
    source, mask = tiny.sources(*lengths)[:2]
    values = []
    for row, hypotheses in enumerate(found):
        values.append([])
        for hypothesis in hypotheses:
            tokens = torch.tensor([tiny.BOS, *hypothesis.tokens, tiny.EOS])
            logits = model(Source(source[row : row + 1], mask[row : row + 1]), tokens[None, :-1]).logits
            values[-1].append(logits[0].log_softmax(-1).gather(1, tokens[1:, None]).sum().item())
    return values
