"""Sampling: frequencies, top-k, top-p, temperature and seeds."""

import re
from collections import Counter

import pytest
import torch
from tiny_search import BOS, EOS, RULES, Toy, limits, sampled
from torch import Tensor

from seq2attn.errors import Seq2attnError
from seq2attn.inference.beam_search import beam_search
from seq2attn.inference.search import greedy, sample


def share(probabilities: Tensor, **options: float) -> Tensor:
    """The distribution that is drawn from, in plain words."""
    p = (probabilities.log() / options.get("temperature", 1.0)).softmax(-1)
    order = p.argsort(descending=True).tolist()
    kept = order[: int(options.get("top_k", 0)) or len(order)]
    p = torch.tensor([value if token in kept else 0.0 for token, value in enumerate(p.tolist())])
    p, nucleus, mass = p / p.sum(), [], 0.0
    while mass < options.get("top_p", 1.0) and len(nucleus) < len(kept):
        nucleus.append(order[len(nucleus)])
        mass += p[nucleus[-1]].item()
    p = torch.tensor([value if token in nucleus else 0.0 for token, value in enumerate(p.tolist())])
    return p / p.sum()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 2},
        {"top_p": 0.6},
        {"top_k": 3, "top_p": 0.7},
    ],
)
def test_samples_come_as_often_as_they_should(options):
    count, toy = 3000, Toy()
    bound = 4 * (0.25 / count) ** 0.5  # four standard deviations at most
    found = sample(toy.step, toy.start(*[1] * count), RULES, limits(*[2] * count), range(count), **options)
    said = Counter(tuple([*h.tokens, EOS][:2]) for h in found)

    def expected(*tokens: int) -> Tensor:
        return share(toy.probabilities(1, *tokens).index_fill(0, torch.tensor(BOS), 0), **options)

    for first, p in enumerate(expected().tolist()):
        once = sum(n for tokens, n in said.items() if tokens[0] == first)
        assert once / count == pytest.approx(p, abs=bound) and (once > 0) == (p > 0)
        if first in (BOS, EOS):
            continue
        for second, q in enumerate(expected(first).tolist()):
            assert said[first, second] / count == pytest.approx(p * q, abs=bound)
            assert q > 0 or said[first, second] == 0


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_a_sample_without_chance_is_greedy(options):
    toy = Toy(sentences=20)
    start, most = toy.start(*range(20)), limits(*[9] * 20)
    assert sampled(toy.step, start, RULES, most, **options) == greedy(toy.step, start, RULES, most)


def test_another_seed_is_another_sample():
    toy = Toy(sentences=1)
    one, other = (
        sample(toy.step, toy.start(*[0] * 20), RULES, limits(*[9] * 20), seeds)
        for seeds in (range(20), range(20, 40))
    )
    assert one != other and len({tuple(h.tokens) for h in one}) > 5


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 1e-39},
        {"temperature": 1e300},
        {"temperature": -1.0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
    ],
)
def test_impossible_options_of_sampling_are_refused(options):
    given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **options}
    message = ", ".join(f"{name}={value}" for name, value in given.items())
    with pytest.raises(
        Seq2attnError,
        match=rf"needs a temperature from 1e-06 to 1e\+06, top_k >= 0 and 0 < top_p <= 1; got {re.escape(message)}",
    ):
        sampled(Toy().step, Toy().start(0), RULES, limits(3), **options)


def test_a_beam_holds_something():
    with pytest.raises(Seq2attnError, match=r"a beam holds at least one hypothesis.* got beam=0"):
        beam_search(Toy().step, Toy().start(0), RULES, limits(3), 0)
