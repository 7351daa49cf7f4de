"""Softmax, sinks, sigmoid and sum against torch's own and closed forms; and what is usually done wrong."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_normalizers import (
    B,
    H,
    Positive,
    S,
    T,
    energies,
    weigh,
)
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention
from seq2attn.attention.normalizers import NORMALIZERS, Softmax, nonempty
from seq2attn.attention.scorers import Dot, ScaledDot
from seq2attn.errors import Seq2attnError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


# ---- what is usually done wrong ----------------------------------------------------------------------

DOMINATED = torch.tensor([[[-60.0, -61.0, 60.0]]]), torch.tensor([[[True, True, False]]])


@pytest.mark.parametrize("name", ["softmax", "gumbel", "hard"])
def test_masked_scores_that_dominate_take_nothing_away(name):
    scores, mask = DOMINATED
    wrong = scores.softmax(-1) * mask
    assert (wrong / wrong.sum(-1, keepdim=True)).isnan().any()
    weights = weigh(NORMALIZERS[name]().eval(), scores, mask)
    assert_close(weights, torch.tensor([[[0.7310586, 0.2689414, 0.0]]]))


def test_sigmoids_that_all_underflow_still_have_their_shares():
    scores, mask = DOMINATED
    wrong = (scores - 60).sigmoid() * mask
    assert (wrong / wrong.sum(-1, keepdim=True)).isnan().any()
    weights = weigh(NORMALIZERS["sigmoid"](normalized=True), scores - 60, mask)
    assert_close(weights, torch.tensor([[[0.7310586, 0.2689414, 0.0]]]))


def test_the_largest_score_is_taken_off_before_the_exponential():
    scores = torch.tensor([[[100.0, 99.0]]])
    assert (scores.exp() / scores.exp().sum(-1, keepdim=True)).isnan().any()
    assert_close(weigh(Softmax(), scores), torch.tensor([[[0.7310586, 0.2689414]]]))
    sunk = weigh(NORMALIZERS["softmax_sink"](start=99.0), scores)
    assert_close(sunk, torch.tensor([[[math.e, 1.0]]]) / (2 + math.e))


def test_nan_is_avoided_and_not_replaced():
    mask = torch.zeros(1, 1, S, dtype=torch.bool)

    def gradient(repaired: bool) -> Tensor:
        scores = torch.ones(1, 1, S, requires_grad=True)
        if repaired:
            added = torch.zeros(1, 1, S).masked_fill(~mask, float("-inf"))
            weights = (scores.square() + added).softmax(-1).nan_to_num(0.0)
        else:
            weights = weigh(Softmax(), scores.square(), mask)
        assert (weights == 0).all()
        return torch.autograd.grad(weights.sum(), scores)[0]

    assert gradient(repaired=True).isnan().all() and (gradient(repaired=False) == 0).all()


def test_filling_with_the_smallest_number_looks_at_padding():
    mask, scores = torch.zeros(1, 1, S, dtype=torch.bool), torch.randn(1, 1, S)
    assert (scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) > 0).all()
    assert (weigh(Softmax(), scores, mask) == 0).all() and nonempty(mask).all()


# ---- softmax and its temperature ---------------------------------------------------------------------


@pytest.mark.parametrize("learned", [False, True])
def test_scores_are_divided_by_the_temperature(learned):
    scores = energies("softmax")
    softmax = Softmax(11, H, temperature=0.25, learned_temperature=learned).double()
    assert_close(weigh(softmax, scores), (4 * scores).softmax(-1), atol=1e-7, rtol=1e-6)
    cold, warm = Softmax(temperature=1e-4), Softmax(temperature=1e6)
    assert_close(weigh(cold, scores), F.one_hot(scores.argmax(-1), S).double(), atol=1e-6, rtol=0)
    assert_close(weigh(warm, scores), torch.full_like(scores, 1 / S), atol=1e-5, rtol=0)


def test_a_learned_temperature_stays_positive_and_is_not_there_unless_asked_for():
    softmax = Softmax(11, H, learned_temperature=True)
    with torch.no_grad():
        softmax.log_temperature.fill_(-3.0)  # where a temperature itself would have become negative
    scores = energies("softmax").float()
    assert_close(weigh(softmax, scores), (scores * math.exp(3)).softmax(-1))
    assert not Softmax(11, H, temperature=0.5).state_dict()  # weights of older runs still fit


# ---- sinks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [-2.0, 0.0, 1.3])
def test_the_sink_is_one_more_score_and_the_same_as_a_gate(start):
    scores, sink = energies("sink"), torch.full((B, H, T, 1), start, dtype=torch.float64)
    weights = weigh(NORMALIZERS["softmax_sink"](11, H, start=start).double(), scores)
    assert_close(weights, torch.cat([scores, sink.float().double()], -1).softmax(-1)[..., :-1])
    gate = torch.sigmoid(scores.logsumexp(-1, keepdim=True) - sink.float().double())
    assert_close(weights, scores.softmax(-1) * gate)


def test_softmax_plus_one_is_the_sink_at_zero():
    scores = energies("sink")
    plus_one = NORMALIZERS["softmax_sink"](11, H, learned=False)
    assert not list(plus_one.parameters())
    assert_close(weigh(plus_one, scores), scores.exp() / (1 + scores.exp().sum(-1, keepdim=True)))
    assert weigh(plus_one, scores - 50).max() < 1e-15  # a query may look away from everything


def test_the_sink_goes_through_the_fused_kernel(monkeypatch):
    calls, kernel = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(a) or kernel(*a, **k))
    attention = Attention(ScaledDot(11, 11), NORMALIZERS["softmax_sink"](11))
    memory = attention.remember(torch.randn(B, S, 11), torch.ones(B, 1, S, dtype=torch.bool))
    assert attention(torch.randn(B, T, 11), memory, need_weights=False).weights is None and calls


# ---- sigmoid -----------------------------------------------------------------------------------------


def test_gates_do_not_depend_on_each_other():
    scores, sigmoid = energies("sigmoid"), NORMALIZERS["sigmoid"](11, H)
    assert_close(weigh(sigmoid, scores), (scores - math.log(S)).sigmoid())
    changed = weigh(sigmoid, scores.index_fill(-1, torch.tensor([3]), 9.0))
    assert torch.equal(changed[..., :3], weigh(sigmoid, scores)[..., :3])
    with_bias = weigh(NORMALIZERS["sigmoid"](11, H, start=-1.5).double(), scores)
    assert_close(with_bias, (scores - 1.5).sigmoid())


@pytest.mark.parametrize("visible", [1, 5, S])
def test_gates_start_with_about_all_the_mass_by_what_each_query_sees(visible):
    mask = (torch.arange(S) < visible).view(1, 1, S)
    weights = weigh(NORMALIZERS["sigmoid"](), torch.zeros(1, 1, S), mask)
    assert_close(
        weights.sum(-1), torch.tensor([[visible / (visible + 1)]])
    )  # S sigmoid(-log S) = S / (S + 1)


def test_smoothing_is_chorowskis_and_flatter_than_softmax():
    scores = energies("smoothing")
    gates = 1 / (1 + np.exp(-scores.numpy()))
    weights = weigh(NORMALIZERS["sigmoid"](normalized=True), scores)
    assert_close(weights, torch.from_numpy(gates / gates.sum(-1, keepdims=True)))
    assert (weights.amax(-1) < scores.softmax(-1).amax(-1)).all()
    golden = weigh(NORMALIZERS["sigmoid"](normalized=True), torch.tensor([[[2.0, 0.0, -1.0]]]).double())
    assert_close(golden, torch.tensor([[[0.5339010, 0.3030783, 0.1630206]]]).double(), atol=5e-7, rtol=0)


# ---- linear attention --------------------------------------------------------------------------------


def test_linear_attention_is_the_quadratic_form():
    attention = Attention(Positive(3, 3), NORMALIZERS["sum"]())
    query, keys = torch.randn(B, T, 3), torch.randn(B, S, 3)
    mask = (torch.arange(S) < torch.tensor([7, 4, 0])[:, None])[:, None]
    linear = attention(query, attention.remember(keys, mask), need_weights=False)
    assert linear.weights is None
    q, k = (np.where(x > 0, x + 1, np.exp(x)) for x in (query.double().numpy(), keys.double().numpy()))
    scores = np.einsum("btd,bsd->bts", q, k) * mask.numpy()
    weights = scores / np.maximum(scores.sum(-1, keepdims=True), 1e-300)
    assert_close(linear.context, torch.from_numpy(weights @ keys.double().numpy()).float(), atol=1e-5, rtol=0)
    assert (linear.context[2] == 0).all()


def test_linear_attention_makes_no_matrix_of_queries_and_slots(monkeypatch):
    many = 4001
    attention = Attention(Positive(3, 3), NORMALIZERS["sum"]())
    memory = attention.remember(torch.randn(1, many, 3), torch.ones(1, 1, many, dtype=torch.bool))
    largest, product = [], Tensor.__matmul__
    monkeypatch.setattr(
        Tensor, "__matmul__", lambda a, b: (largest.append((c := product(a, b)).numel()), c)[1]
    )
    attention(torch.randn(1, many, 3), memory, need_weights=False)
    assert largest and max(largest) <= 3 * many


def test_few_queries_make_their_weights_since_that_is_less():
    attention = Attention(Positive(11, 11), NORMALIZERS["sum"]())
    memory = attention.remember(torch.randn(B, S, 11), torch.ones(B, 1, S, dtype=torch.bool))
    assert attention(torch.randn(B, 1, 11), memory, need_weights=False).weights is not None


def test_sums_over_long_sources_do_not_overflow_in_float16():
    dot, keys = torch.full((1, 13, 5), 30.0).half(), torch.full((1, 3001, 5), 30.0).half()
    values, mask = torch.ones(1, 3001, 2).half(), torch.ones(1, 1, 3001, dtype=torch.bool)
    attention = Attention(Positive(5, 5), NORMALIZERS["sum"]())
    memory = attention.remember(keys, mask, values)
    assert keys.float().mul(30).sum() > torch.finfo(torch.float16).max
    context = attention.normalize.fused(dot, memory, None, 0.0)
    assert context.dtype == torch.float16
    assert_close(context, torch.ones(1, 13, 2).half())


def test_dropout_of_weights_needs_the_weights():
    normalize, memory = (
        NORMALIZERS["sum"](),
        Attention(Dot(5, 5), Softmax()).remember(torch.rand(B, S, 5), torch.ones(B, 1, S, dtype=torch.bool)),
    )
    assert normalize.fused(torch.rand(B, T, 5), memory, None, 0.1) is None
    assert normalize.fused(torch.rand(B, T, 5), memory, None, 0.0) is not None


def test_scores_that_are_all_zero_have_no_share():
    scores = torch.zeros(1, 1, S, requires_grad=True)
    weights = weigh(NORMALIZERS["sum"](), scores)
    weights.sum().backward()
    assert (weights == 0).all() and scores.grad.isfinite().all()


def test_a_sum_refuses_scores_that_may_be_negative():
    with pytest.raises(Seq2attnError, match="Sum divides by the scores' sum"):
        Attention(ScaledDot(5, 5), NORMALIZERS["sum"]())
