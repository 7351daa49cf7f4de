"""Additive scores: the hidden layer, its memory, and its variants."""

import math

import pytest
import torch
from tiny_scorers import (
    MASK,
    A,
    B,
    K,
    Q,
    S,
    Sizes,
    T,
    random,
    scores,
    weights,
)
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention.scorers import (
    Additive,
    Concat,
)
from seq2attn.errors import Seq2attnError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


# ---- additive -------------------------------------------------------------------------------------------


def test_additive_is_nonlinear_so_that_queries_matter():
    query, states, scorer = random(B, T, Q), random(B, S, K), Additive(Q, K, size=A)
    ours = weights(scorer, query, states)
    assert (ours[0, 0] - ours[0, 1]).abs().max() > 1e-3
    linear = scorer.energy(scorer.query(query).unsqueeze(-2) + scorer.keys(states).unsqueeze(-3)).squeeze(-1)
    same = linear.masked_fill(~MASK, -torch.inf).softmax(-1)
    assert_close(same, same[:, :1].expand_as(same))  # without the tanh, all queries look alike


def test_no_tanh_outside_bounds_the_weights():
    scorer = Additive(Q, K, size=A).double()
    scorer.energy.weight.data.mul_(20)
    ours = weights(scorer, random(B, T, Q), random(B, S, K))[0]
    bound = 1 / (1 + (S - 1) * math.exp(-2))
    assert bound == pytest.approx(0.552, abs=1e-3) and ours.max() > bound


def test_normalized_additive_does_not_know_the_length_of_v():
    scorer, query, states = Additive(Q, K, size=A, normalize=True).double(), random(B, T, Q), random(B, S, K)
    assert scorer.gain.item() == pytest.approx(A**-0.5)
    before = scores(scorer, query, states)
    scorer.energy.weight.data.mul_(1e3)
    assert_close(scores(scorer, query, states), before)
    assert before.abs().max() <= 1  # |g v / |v|| <= g sqrt(A) = 1
    before.sum().backward()
    assert scorer.energy.weight.grad is not None


def test_a_score_bias_is_for_those_who_see_it():
    plain, biased = Additive(Q, K), Additive(Q, K, score_bias=-4.0)
    missing, unexpected = biased.load_state_dict(plain.state_dict(), strict=False)
    assert missing == ["score_bias"] and not unexpected
    query, states = random(B, T, Q), random(B, S, K)
    assert_close(scores(biased, query, states), scores(plain, query, states) - 4)
    assert_close(weights(biased, query, states), weights(plain, query, states))


@pytest.mark.parametrize("budget", [1, B * S * A, 2 * B * S * A, 5 * B * S * A - 1])
@pytest.mark.parametrize("options", [{}, {"bias": True, "normalize": True, "score_bias": 0.5}])
def test_little_memory_gives_the_same_scores_and_gradients(budget, options):
    query, states = random(B, T, Q).requires_grad_(), random(B, S, K).requires_grad_()
    scorer, towards = Additive(Q, K, size=A, **options).double(), random(B, T, S)
    parts = (query, states, *scorer.parameters())
    whole = scores(scorer, query, states)
    expected = torch.autograd.grad(whole, parts, towards)
    scorer.budget = budget
    with Sizes() as sizes:
        few = scores(scorer, query, states)
        gradients = torch.autograd.grad(few, parts, towards)
    assert_close(few, whole)
    assert_close(gradients, expected)
    assert max(sizes.seen) <= max(budget, B * S * A)


def test_little_memory_is_little_also_for_the_way_back():
    def kept(budget: int) -> int:
        sizes = {}

        def pack(part: Tensor) -> Tensor:
            sizes[part.data_ptr()] = part.numel()
            return part

        scorer.budget = budget
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda part: part):
            held.append(scores(scorer, query, states))
        return sum(sizes.values())

    held: list[Tensor] = []
    query, states = random(B, 9 * T, Q), random(B, S, K)
    scorer = Additive(Q, K, size=A)
    assert kept(2**26) > B * 9 * T * S * A > 3 * kept(B * S * A)


def test_little_memory_without_gradients_makes_nothing_twice():
    scorer, query, states = Additive(Q, K, size=A).double(), random(B, T, Q), random(B, S, K)
    whole = scores(scorer, query, states)
    scorer.budget = B * S * A
    with torch.no_grad():
        few = scores(scorer, query, states)
    assert_close(few, whole.detach()) and not few.requires_grad


def test_concat_with_identical_keys():
    scorer = Concat(Q, K, key_identity=True)
    states = torch.randn(B, S, K)
    assert scorer.keys(states) is states
    assert sum(part.numel() for part in scorer.parameters()) == K * Q + K
    with pytest.raises(
        Seq2attnError, match=r"expected size 13 \(that of the keys\), got 17; leave size away"
    ):
        Concat(Q, K, size=A, key_identity=True)
