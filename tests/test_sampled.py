"""Normalizers that choose a position: gradients straight through, counts of samples, hard attention."""

import pytest
import torch
import torch.nn.functional as F
from tiny_normalizers import B, H, S, T, energies, made, scattered, weigh
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention, Normalizer, Past, Scorer
from seq2attn.attention.normalizers import NORMALIZERS, Hard, Hardmax, Softmax
from seq2attn.attention.scorers import ScaledDot


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


# ---- straight through --------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["hardmax", "gumbel, hard"])
def test_forward_is_one_hot_and_backward_is_the_softmaxs(variant):
    normalize, mask, towards = made(variant), scattered(), torch.randn(B, H, T, S).double()
    scores = energies(variant).requires_grad_()
    weights = weigh(normalize, scores, mask)
    best = F.one_hot(scores.masked_fill(~mask, -1e9).argmax(-1), S) * mask
    assert torch.equal(weights, best.double())
    plain = weigh(Softmax(), scores, mask)
    assert_close(*(torch.autograd.grad(w, scores, towards)[0] for w in (weights, plain)))


def test_one_hot_is_exact_in_single_precision():
    scores = torch.randn(B, H, 1009, S)
    p = scores.softmax(-1)
    naive = F.one_hot(p.argmax(-1), S) + p - p.detach()
    assert not ((naive == 0) | (naive == 1)).all()  # rounding
    for normalize in (Hardmax(), NORMALIZERS["gumbel"](hard=True).train()):
        weights = weigh(normalize, scores)
        assert ((weights == 0) | (weights == 1)).all() and (weights.sum(-1) == 1).all()


def test_the_best_is_by_the_scores_where_their_exponentials_are_equal():
    scores = torch.tensor([[[1e-9, 2e-9, 0.0]]])
    assert len(scores.softmax(-1).unique()) == 1
    assert weigh(Hardmax(), scores).tolist() == [[[0.0, 1.0, 0.0]]]


def test_the_temperature_of_hardmax_is_that_of_its_gradient():
    scores = energies("hardmax").requires_grad_()
    weights = weigh(Hardmax(temperature=3.0), scores)
    assert torch.equal(weights, weigh(Hardmax(), scores))
    towards = torch.randn_like(scores)
    assert_close(*(torch.autograd.grad(w, scores, towards)[0] for w in (weights, (scores / 3).softmax(-1))))


# ---- draws -------------------------------------------------------------------------------------------

LOGITS = torch.tensor([1.0, 0.0, -1.0, 2.0, 9.0])  # the last is masked
PROBABLE = torch.tensor([0.2368828, 0.0871443, 0.0320586, 0.6439143, 0.0])
DRAWS = 40_009


def samples(normalize: Normalizer) -> Tensor:
    torch.manual_seed(7)
    mask = (torch.arange(5) < 4).view(1, 1, 5)
    return weigh(normalize.train(), LOGITS.expand(1, DRAWS, 5), mask)[0]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_the_best_of_noisy_scores_is_as_frequent_as_it_is_probable(temperature):
    soft = samples(NORMALIZERS["gumbel"](temperature=temperature))
    assert (soft[:, 4] == 0).all()
    assert_close(soft.sum(-1), torch.ones(DRAWS))
    frequent = F.one_hot(soft.argmax(-1), 5).float().mean(0)
    assert_close(frequent, PROBABLE, atol=0.008, rtol=0)  # more than three standard errors
    hard = samples(NORMALIZERS["gumbel"](temperature=temperature, hard=True))
    assert_close(hard.mean(0), frequent)


def test_relaxed_samples_are_not_right_in_the_mean():
    mean = samples(NORMALIZERS["gumbel"](temperature=1.0)).mean(0)
    assert_close(mean, torch.tensor([0.271, 0.132, 0.062, 0.535, 0.0]), atol=0.006, rtol=0)


@pytest.mark.parametrize("hard", [False, True])
def test_evaluation_has_no_noise(hard):
    normalize = NORMALIZERS["gumbel"](temperature=0.1, hard=hard).eval()
    scores, mask = energies("gumbel"), scattered()
    reference = weigh(Hardmax() if hard else Softmax(), scores, mask)
    assert torch.equal(weigh(normalize, scores, mask), reference)
    assert not torch.equal(weigh(normalize.train(), scores, mask), reference)


@pytest.mark.parametrize("variant", ["gumbel", "gumbel, hard", "hard"])
def test_draws_follow_the_seed(variant):
    normalize, scores = made(variant).train(), energies(variant)
    answers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        answers.append(weigh(normalize, scores))
    assert torch.equal(answers[0], answers[1]) and not torch.equal(answers[0], answers[2])


@pytest.mark.parametrize("noise", [0.0, float("inf"), 1e-45])
def test_the_noise_may_be_anything(noise, monkeypatch):
    monkeypatch.setattr(Tensor, "exponential_", lambda self: self.fill_(min(noise, 104.0)))
    for variant in ("gumbel", "gumbel, hard", "hard"):
        scores = energies(variant).float().requires_grad_()
        weights = weigh(made(variant).float().train(), scores)
        assert_close(weights.sum(-1), torch.ones(B, H, T))
        assert torch.autograd.grad((weights + 0 * scores).square().sum(), scores)[0].isfinite().all()


# ---- hard attention ----------------------------------------------------------------------------------


def looking(soft_rate: float, scorer: Scorer | None = None) -> Attention:
    return Attention(scorer or ScaledDot(11, 11), Hard(11, soft_rate=soft_rate)).double()


def asked() -> tuple[Tensor, Tensor, Tensor]:
    query, states = torch.randn(B, T, 11).double(), torch.randn(B, S, 11).double()
    return query, states, (torch.arange(S) < torch.tensor([7, 4, 0])[:, None])[:, None]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_one_slot_is_read_and_the_weights_are_its_probabilities(training, need_weights):
    (query, states, mask), attention = asked(), looking(0.0).train(training)
    attended = attention(query, attention.remember(states, mask), need_weights=need_weights)
    plain = Attention(ScaledDot(11, 11), Softmax())(query, attention.remember(states, mask)).weights
    assert_close(attended.weights, plain)
    assert ((attended.sampled == 0) | (attended.sampled == 1)).all()
    assert attended.sampled.sum(-1)[:2].eq(1).all() and attended.sampled[2].eq(0).all()
    assert attended.sampled.masked_select(~mask).eq(0).all()
    assert_close(attended.context, attended.sampled @ states)
    if not training:
        assert torch.equal(attended.sampled[:2].argmax(-1), plain[:2].argmax(-1))


def test_slots_are_drawn_as_often_as_they_are_probable():
    drawn = samples(Hard(soft_rate=0.0))
    assert (drawn.sum(-1) == 1).all() and (drawn[:, 4] == 0).all()
    assert_close(drawn.mean(0), PROBABLE, atol=0.008, rtol=0)


def test_no_gradient_goes_through_a_draw():
    (query, states, mask), attention = asked(), looking(0.0).train()
    query.requires_grad_()
    attended = attention(query, attention.remember(states, mask))
    assert (
        not attended.sampled.requires_grad
        or (torch.autograd.grad(attended.context.sum(), query, retain_graph=True)[0] == 0).all()
    )
    chosen = (attended.sampled * attended.weights.clamp(min=1e-9).log()).sum()
    assert (torch.autograd.grad(chosen, query)[0][:2] != 0).any()  # its log-probability has one


@pytest.mark.parametrize("soft_rate", [0.0, 0.3, 1.0])
def test_the_coin_is_thrown_once_for_a_batch(soft_rate):
    (query, states, mask), attention = asked(), looking(soft_rate).train()
    memory = attention.remember(states, mask)
    coins = torch.stack([attention.initial_state(memory).alignment_state for _ in range(997)])
    assert torch.equal(coins, coins[:, :1, :1].expand_as(coins))
    assert abs(coins.mean() - soft_rate) < 0.06  # four standard errors
    assert (attention.eval().initial_state(memory).alignment_state == 0).all()
    attention.train()
    for _ in range(7):
        past, answers = attention.initial_state(memory), []
        for one in query.split(1, 1):
            answers.append(attention(one, memory, past))
            past = answers[-1].past
        soft = {torch.equal(answer.sampled, answer.weights) for answer in answers}
        assert soft == {bool(past.alignment_state[0, 0])}


def test_the_expectation_has_the_gradient_of_soft_attention():
    (query, states, mask), attention = asked(), looking(1.0).train()
    soft, gradients = Attention(ScaledDot(11, 11), Softmax()), []
    for module in (attention, soft):
        asks = query.clone().requires_grad_()
        context = module(asks, module.remember(states, mask)).context
        gradients.append((context, torch.autograd.grad(context.square().sum(), asks)[0]))
    assert_close(*gradients)


def test_the_coin_is_kept_where_the_memory_grows():
    normalize = Hard(soft_rate=1.0).train()
    weights = torch.rand(B, 1, S + 1)
    alignment_state = normalize.initial_state(torch.zeros(B, S))
    grown = Past(None, None, 0, alignment_state)
    assert torch.equal(normalize.sample(weights, grown), weights)
