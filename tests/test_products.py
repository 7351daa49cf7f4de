"""Scores by dot products and kernels: what usual implementations get wrong."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_scorers import (
    MASK,
    NO_PAST,
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
from torch import nn
from torch.testing import assert_close

from seq2attn.attention import Attention
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.scorers import (
    Additive,
    Cosine,
    Dot,
    Gaussian,
    General,
    Linear,
    Perceptron,
    ScaledDot,
    Trilinear,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


# ---- products -------------------------------------------------------------------------------------------


def test_general_is_torchs_bilinear():
    query, states, scorer = random(B, T, Q), random(B, S, K), General(Q, K).double()
    expected = F.bilinear(
        query[:, :, None].expand(-1, -1, S, -1).contiguous(),
        states[:, None].expand(-1, T, -1, -1).contiguous(),
        scorer.project.weight[None],
    )
    assert_close(scores(scorer, query, states), expected.squeeze(-1))


def test_low_rank_is_low_rank_and_a_full_rank_can_be_any_matrix():
    low = General(Q, K, rank=2).double()
    matrix = low.query.weight.T @ low.project.weight
    assert torch.linalg.matrix_rank(matrix) == 2
    assert sum(part.numel() for part in low.parameters()) == 2 * (Q + K)
    full = General(Q, K).double()
    full.project.weight.data.copy_(matrix)
    query, states = random(B, T, Q), random(B, S, K)
    assert_close(scores(low, query, states), scores(full, query, states))


def test_a_bias_on_the_keys_would_cancel():
    query, states, bias = random(B, T, Q), random(B, S, K), random(Q)
    scorer = General(Q, K).double()
    with_bias = scores(scorer, query, states) + (query @ bias).unsqueeze(-1)
    plain = weights(scorer, query, states)
    assert_close(with_bias.masked_fill(~MASK, -torch.inf).softmax(-1), plain)
    assert [name for name, _ in scorer.named_parameters()] == ["project.weight"]


def test_the_variance_of_a_dot_product_is_its_size():
    query, states = torch.randn(1, 700, 64).double(), torch.randn(1, 700, 64).double()
    assert 55 < scores(Dot(64, 64), query, states).var() < 73
    assert 0.85 < scores(ScaledDot(64, 64), query, states).var() < 1.15


def test_cosine_is_torchs_and_bounded_whatever_the_lengths():
    query, states = 1e3 * random(B, T, Q), 1e-3 * random(B, S, Q)
    scorer = Cosine(Q, Q, sharpness=3.0)
    ours = scores(scorer, query, states)
    assert_close(ours, 3 * F.cosine_similarity(query[:, :, None], states[:, None], dim=-1))
    itself = scores(scorer, query, 7 * query)
    assert_close(itself.diagonal(dim1=-2, dim2=-1), torch.full((B, T), 3.0).double())
    assert itself.abs().max() < 3 + 1e-6


def test_a_vector_of_zeros_has_cosine_zero_and_no_nan():
    query, states = torch.randn(B, T, Q, requires_grad=True), torch.zeros(B, S, Q, requires_grad=True)
    scorer = Cosine(Q, Q)
    ours = scorer(query, scorer.keys(states), NO_PAST)
    assert (ours == 0).all()
    ours.sum().backward()
    assert query.grad.isfinite().all() and states.grad.isfinite().all()


@pytest.mark.parametrize("sharpness", [0.01, 1.0, 10.0, 1000.0])
def test_sharpness_is_what_it_starts_with_and_stays_positive(sharpness):
    for strength in ("learned", "fixed", "query"):
        scorer = Cosine(Q, Q, sharpness=sharpness, strength=strength).double()
        if strength == "query":
            nn.init.zeros_(scorer.strength.weight)
        query = random(B, T, Q)
        assert_close(
            scorer.dot(query).norm(dim=-1), torch.full((B, T), sharpness).double(), rtol=1e-4, atol=0
        )
        assert scorer.start.requires_grad == (strength != "fixed")
        scorer.start.data.fill_(-50)
        assert (scorer.dot(query).norm(dim=-1) > 0).all()


def test_ntm_queries_say_how_sharply_they_look():
    scorer = Cosine(Q, Q, strength="query").double()
    direction = scorer.strength.weight[0].detach()
    calm, keen = (sign * direction / direction.norm() for sign in (-9, 9))
    flat, sharp = scorer.dot(torch.stack([calm, keen])[None])[0].norm(dim=-1).tolist()
    assert flat < sharp


# ---- the gaussian kernel --------------------------------------------------------------------------------


def test_gaussian_is_nadaraya_watson():
    query, states = random(B, T, Q), random(B, S, Q)
    kernel = np.exp(-((query.numpy()[:, :, None] - states.numpy()[:, None]) ** 2).sum(-1) / (2 * 1.5**2))
    kernel = kernel * MASK.numpy()
    ours = weights(Gaussian(Q, Q, width=1.5), query, states)
    assert_close(ours, torch.from_numpy(kernel / kernel.sum(-1, keepdims=True)))
    identity = (query @ states.mT - states.square().sum(-1)[:, None] / 2) / 1.5**2
    assert_close(ours, identity.masked_fill(~MASK, -torch.inf).softmax(-1))


def test_gaussian_starts_as_scaled_dot_for_keys_of_one_length():
    query, states = random(B, T, Q), F.normalize(random(B, S, Q), dim=-1)
    assert_close(weights(Gaussian(Q, Q), query, states), weights(ScaledDot(Q, Q), query, states))


def test_gaussian_widths_lead_from_the_nearest_to_the_mean():
    query, states = random(B, T, Q), random(B, S, Q)
    apart = (query[:, :, None] - states[:, None]).square().sum(-1).masked_fill(~MASK, torch.inf)
    nearest = F.one_hot(apart.argmin(-1), S).double()
    assert_close(weights(Gaussian(Q, Q, width=1e-2), query, states), nearest)
    mean = MASK.double() / MASK.sum(-1, keepdim=True)
    assert_close(weights(Gaussian(Q, Q, width=1e4), query, states), mean.expand(-1, T, -1), atol=1e-6, rtol=0)


def test_gaussian_only_knows_differences_also_far_from_zero():
    query, states, scorer = torch.randn(B, T, Q), torch.randn(B, S, Q), Gaussian(Q, Q, width=1.0)
    there = torch.full((Q,), 1024.0)
    here, far = (scorer(query + x, scorer.keys(states + x), NO_PAST) for x in (torch.zeros(Q), there))
    assert_close(far, here, atol=0.02, rtol=1e-3)
    by_squares = (query + there) @ (states + there).mT  # what is expanded loses it all
    by_squares = by_squares - (states + there).square().sum(-1)[:, None] / 2
    by_squares = by_squares - (query + there).square().sum(-1, keepdim=True) / 2
    assert (by_squares - here).abs().max() > 0.2
    same = scorer(query, scorer.keys(query), NO_PAST)
    assert (same <= 0).all() and (same.diagonal(dim1=-2, dim2=-1) == 0).all()


def test_gaussian_is_finite_for_queries_far_from_all_keys():
    query, states = 1e3 + random(B, T, Q), random(B, S, Q)
    kernel = torch.exp(-(query[:, :, None] - states[:, None]).square().sum(-1) / 2)
    assert (kernel / kernel.sum(-1, keepdim=True)).isnan().all()  # the textbook's quotient is 0 / 0
    ours = weights(Gaussian(Q, Q, width=1.0), query, states)
    assert_close(ours.sum(-1), torch.ones(B, T).double())


def test_gaussian_widths_may_be_fixed():
    assert Gaussian(Q, Q, learned=False).log_width.requires_grad is False
    assert Gaussian(Q, Q).log_width.requires_grad is True
    assert Gaussian(Q, Q, width=0.3).log_width.exp().item() == pytest.approx(0.3)


@pytest.mark.parametrize("need_weights", [True, False])
def test_gaussian_sees_small_differences_far_from_zero_who_ever_asks(need_weights):
    query, states = 100 + 0.05 * random(B, T, Q), 100 + 0.05 * random(B, S, Q)
    scorer = Gaussian(Q, Q, width=0.05)
    answers = []
    for dtype in (torch.float64, torch.float32):
        attention = Attention(scorer.to(dtype), Softmax())
        memory = attention.remember(states.to(dtype), MASK)
        answers.append(attention(query.to(dtype), memory, need_weights=need_weights).context - 100)
    assert_close(answers[1].double(), answers[0], atol=2e-4, rtol=0)


# ---- linear attention -----------------------------------------------------------------------------------


def test_linear_keeps_its_digits_below_zero():
    x, scorer = torch.tensor([[-80.0, -20.0, -9.0, -1e-3, 0.0, 1e-3, 3.0, 1e30]]), Linear(8, 8)
    wide = x.double().numpy()
    exact = torch.from_numpy(np.where(wide > 0, wide + 1, np.exp(np.minimum(wide, 0))))
    for made in (scorer.keys(x), scorer.dot(x)):
        assert_close(made.double(), exact, rtol=1e-6, atol=0)
    assert (F.elu(x) + 1)[0, 1] == 0  # what is added and taken away again is lost
    narrow = scorer.keys(torch.full((1, 8), -4.0, dtype=torch.bfloat16))[0, 0].item()
    assert narrow == pytest.approx(np.exp(-4.0), rel=4e-3)
    x = torch.tensor([[-200.0, -1.0, 0.0, 2.0, 200.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(scorer.keys(x).sum(), x)
    assert_close(gradient, torch.tensor([[-200.0, -1.0, 0.0, 0.0, 0.0]], dtype=torch.float64).exp())


# ---- trilinear and perceptron ---------------------------------------------------------------------------


def test_what_depends_on_the_query_alone_cancels_over_keys_but_not_over_queries():
    query, states, scorer = random(B, T, Q), random(B, S, Q), Trilinear(Q, Q).double()
    whole = scores(scorer, query, states)
    scorer.weight.data[0] = 0
    without = scores(scorer, query, states)
    assert_close(whole.softmax(-1), without.softmax(-1))
    assert not torch.allclose(whole.amax(-1).softmax(-1), without.amax(-1).softmax(-1), atol=1e-2)


def test_trilinear_never_builds_the_triple():
    query, scorer = random(B, T, Q), Trilinear(Q, Q).double()
    with Sizes() as sizes:
        scores(scorer, query, random(B, S, Q))
    assert max(sizes.seen) < B * T * S * Q


def test_perceptron_is_additive_with_a_constant_query():
    scorer, other, states = (
        Perceptron(A, K).double(),
        Additive(Q, K, size=A, bias=True).double(),
        random(B, S, K),
    )
    other.key.load_state_dict(scorer.key.state_dict())
    vector = random(A)
    other.energy.weight.data.copy_(vector[None])
    ours = scores(scorer, vector.expand(B, 1, A), states)
    assert_close(ours, scores(other, torch.zeros(B, 1, Q).double(), states))
    mean = weights(scorer, torch.zeros(B, 1, A).double(), states)
    assert_close(mean, MASK.double() / MASK.sum(-1, keepdim=True))
