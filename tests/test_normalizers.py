"""Normalizers against torch's own, closed forms and counts of draws; what is masked, huge, equal or alone.

What only sparse ones do is in test_sparse.py. Sizes are different primes, as everywhere.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention, Normalizer, Past, Scorer
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import NORMALIZERS, Hard, Hardmax, Softmax, nonempty
from seq2attn.attention.scorers import Dot, ScaledDot
from seq2attn.errors import Seq2attnError
from seq2attn.recipe.sections import part_section

B, H, T, S = 3, 2, 5, 7
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "softmax": ("softmax", {}),
    "softmax, cool": ("softmax", {"temperature": 0.5}),
    "softmax, learned": ("softmax", {"temperature": 2.0, "learned_temperature": True}),
    "sink": ("softmax_sink", {"start": 0.7}),
    "plus one": ("softmax_sink", {"learned": False}),
    "sigmoid": ("sigmoid", {}),
    "sigmoid, learned": ("sigmoid", {"start": -1.5}),
    "smoothing": ("sigmoid", {"normalized": True}),
    "smoothing, learned": ("sigmoid", {"normalized": True, "start": -1.5}),
    "sum": ("sum", {}),
    "sparsemax": ("sparsemax", {}),
    "entmax": ("entmax", {}),
    "entmax, 1.25": ("entmax", {"alpha": 1.25}),
    "entmax, learned": ("entmax", {"alpha": 1.4, "learned": True}),
    "hardmax": ("hardmax", {}),
    "gumbel": ("gumbel", {"temperature": 0.5}),
    "gumbel, hard": ("gumbel", {"hard": True}),
    "hard": ("hard", {}),
}
ONE_SLOT = {"hardmax", "gumbel, hard"}  # in evaluation: the first of equals, the gradient of another function


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


def made(variant: str, heads: int = H) -> Normalizer:
    """In float64 and evaluation."""
    name, options = VARIANTS[variant]
    return NORMALIZERS[name](11, heads, **options).double().eval()


NO_PAST = Past(None, None, 0)


def weigh(normalize: Normalizer, scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """The weights, by the draw if there is one; all may be seen without a mask."""
    mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    weights = normalize(scores, mask, NO_PAST, torch.zeros(*scores.shape[:-1], 11, dtype=scores.dtype))
    drawn = normalize.sample(weights, NO_PAST)
    return weights if drawn is None or not normalize.training else drawn


def energies(variant: str, *shape: int, size: float = 2.0) -> Tensor:
    scores = size * torch.randn(*(shape or (B, H, T, S)), dtype=torch.float64)
    return scores.abs() if variant == "sum" else scores


def scattered() -> Tensor:
    """(B, 1, T, S): each query sees other slots; one sees none, nor does the last sentence."""
    mask = torch.rand(B, 1, T, S) < 0.6
    mask[0, 0, 2] = mask[2] = False
    return mask


# ---- what holds for each -----------------------------------------------------------------------------


def test_every_normalizer_of_these_files_has_its_variant():
    files = {f"seq2attn.attention.normalizers.{file}" for file in ("dense", "sparse", "sampled")}
    here = {name for name, part in NORMALIZERS.items() if part.__module__ in files}
    assert here == {name for name, _ in VARIANTS.values()}


@pytest.mark.parametrize("training", [True, False])
def test_who_sees_nothing_has_no_weight_no_gradient_and_disturbs_nobody(variant, training):
    mask, normalize = scattered(), made(variant).train(training)
    blind = ~mask.any(-1).expand(B, H, T)

    def answer(scores: Tensor) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        scores = scores.clone().requires_grad_()
        torch.manual_seed(5)
        weights = weigh(normalize, scores, mask)
        normalize.zero_grad()
        (weights + 0 * scores).square().sum().backward()
        return weights.detach(), scores.grad, [p.grad for p in normalize.parameters()]

    scores = energies(variant)
    weights, gradient, of_parameters = answer(scores)
    assert (weights[blind] == 0).all() and (gradient[blind] == 0).all()
    assert (weights.masked_select(~mask) == 0).all() and (gradient.masked_select(~mask) == 0).all()
    assert weights.isfinite().all() and gradient.isfinite().all()
    assert all(g.isfinite().all() for g in of_parameters)
    others, of_others, of_others_parameters = answer(scores.masked_fill(blind.unsqueeze(-1), 1e4))
    assert torch.equal(weights, others) and torch.equal(gradient, of_others)
    assert_close(of_parameters, of_others_parameters, rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_masked_scores_do_not_count_however_large(variant, training):
    scores, mask = energies(variant), torch.arange(S) < torch.tensor([7, 4, 1])[:, None, None, None]
    normalize = made(variant).train(training)
    torch.manual_seed(5)
    weights = weigh(normalize, scores, mask)
    torch.manual_seed(5)
    assert torch.equal(weights, weigh(normalize, scores.masked_fill(~mask, 1e4), mask))
    assert (weights.masked_select(~mask) == 0).all()
    if not training:
        for row, length in enumerate((7, 4, 1)):
            alone = weigh(normalize, scores[row, :, :, :length].unsqueeze(0))
            assert_close(weights[row, :, :, :length], alone[0])


def test_weights_sum_to_one_or_it_says_that_they_do_not(variant):
    normalize = made(variant)
    sums = weigh(normalize, energies(variant)).sum(-1)
    assert torch.allclose(sums, torch.ones_like(sums)) == normalize.sums_to_one


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [1e4, 1e-30])
def test_huge_and_tiny_scores_are_no_nan(variant, size, training):
    normalize = made(variant).float().train(training)
    signs = torch.tensor([1.0, -1.0, 1.0, 0.0, -1.0, 1.0, 0.5])
    scores = (size * signs.expand(B, H, T, S)).abs() if variant == "sum" else size * signs.expand(B, H, T, S)
    scores = scores.clone().requires_grad_()
    weights = weigh(normalize, scores)
    assert weights.dtype == torch.float32 and weights.isfinite().all() and (weights >= 0).all()
    if normalize.sums_to_one:
        assert_close(weights.sum(-1), torch.ones(B, H, T))
    (weights * torch.randn(S) + 0 * scores).sum().backward()
    assert scores.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in normalize.parameters() if p.grad is not None)


@pytest.mark.parametrize("value", [-1e4, -60.0, 0.0, 3.0, 1e4])
def test_equal_scores_have_equal_weights(variant, value):
    value = abs(value) + 1 if variant == "sum" else value
    normalize = made(variant).float()
    weights = weigh(normalize, torch.full((B, H, T, S), value))
    if variant in ONE_SLOT:
        assert (weights[..., 0] == 1).all() and (weights[..., 1:] == 0).all()
    else:
        assert_close(weights, weights[..., :1].expand_as(weights))
    if normalize.sums_to_one:
        assert_close(weights.sum(-1), torch.ones(B, H, T))


@pytest.mark.parametrize("training", [True, False])
def test_a_single_slot_has_all_the_weight(variant, training):
    normalize = made(variant).train(training)
    if normalize.sums_to_one:
        scores = energies(variant, B, H, T, 1)
        assert_close(weigh(normalize, scores), torch.ones_like(scores))


def test_permuting_slots_permutes_weights(variant):
    scores, mask, order = energies(variant), scattered(), torch.tensor([4, 0, 6, 2, 1, 5, 3])
    permuted = weigh(made(variant), scores[..., order], mask[..., order])
    assert_close(permuted, weigh(made(variant), scores, mask)[..., order])


@pytest.mark.parametrize("training", [True, False])
def test_the_scores_of_the_caller_stay_as_they_are(variant, training):
    scores = energies(variant)
    before = scores.clone()
    weigh(made(variant).train(training), scores, scattered())
    assert torch.equal(scores, before)


@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - ONE_SLOT))
def test_gradients_are_those_of_the_formula(variant):
    normalize, mask = made(variant), scattered()
    parameters = dict(normalize.named_parameters())

    def weights(scores: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(normalize, given, (scores, mask, NO_PAST, torch.zeros(B, H, T, 11)))

    scores = (energies(variant) + (variant == "sum")).requires_grad_()
    assert torch.autograd.gradcheck(weights, (scores, *parameters.values()), fast_mode=True)


def test_each_head_has_its_own_parameter(variant):
    normalize = made(variant)
    before = weigh(normalize, scores := energies(variant))
    for parameter in normalize.parameters():
        assert parameter.shape == (H, 1, 1)
        with torch.no_grad():
            parameter[1] += 0.8
        after = weigh(normalize, scores)
        assert torch.equal(after[:, 0], before[:, 0]) and not torch.allclose(after[:, 1], before[:, 1])


@pytest.mark.parametrize("heads", [0, H])
@pytest.mark.parametrize("training", [True, False])
def test_it_works_plain_and_with_heads_under_autocast(variant, heads, training):
    score = Positive(11, 11) if variant == "sum" else ScaledDot(11, 11)
    attention = Attention(score, made(variant, heads or 1).float())
    module = (MultiHead(heads, 22, 11, attention) if heads else attention).train(training)
    query, states = torch.randn(B, T, 11 * (heads or 1)), torch.randn(B, S, 11)
    mask = (torch.arange(S) < torch.tensor([7, 4, 0])[:, None])[:, None]
    with torch.autocast("cpu", torch.bfloat16):
        for need_weights in (True, False):
            attended = module(query, module.remember(states, mask), need_weights=need_weights)
            assert attended.context.isfinite().all()
            if attended.weights is not None:
                assert attended.weights.dtype == torch.float32


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("heads", [0, H])
def test_without_weights_the_context_and_all_gradients_are_the_same(variant, heads, relative):
    normalize = made(variant, heads or 1)
    score, leading = Positive(11, 11) if variant == "sum" else ScaledDot(11, 11), (B, H) if heads else (B,)
    attention = Attention(score, normalize, relative=None).eval()
    attention.relative = Biased() if relative else None
    query, keys, values = (
        torch.randn(*leading, n, d, dtype=torch.float64) for n, d in ((T, 11), (S, 11), (S, 13))
    )
    mask = scattered() if heads else scattered()[:, 0]
    for seen_by in (mask, mask[..., 1:2, :]):  # a mask for each query, one for all
        inputs = [part.clone().requires_grad_() for part in (query, keys, values)]
        inputs += normalize.parameters()
        towards, answers = torch.randn(*leading, T, 13, dtype=torch.float64), []
        for need_weights in (True, False):
            memory = attention.remember(inputs[1], seen_by, inputs[2])
            context = attention(inputs[0], memory, need_weights=need_weights).context
            gradients = torch.autograd.grad(
                context, inputs, towards, allow_unused=True, materialize_grads=True
            )
            answers.append((context, *gradients))
        assert_close(*answers)


class Positive(Dot):
    """Scores that are never negative."""

    positive = True

    def keys(self, states: Tensor) -> Tensor:
        return F.elu(states) + 1

    def dot(self, query: Tensor) -> Tensor:
        return F.elu(query) + 1


class Biased(torch.nn.Module):
    """Adds a score of its own to each pair."""

    adds_values = False

    def bias(self, query: Tensor, slots: int) -> Tensor:
        return torch.arange(query.shape[-2] * slots).view(-1, slots).to(query.dtype) / 17

    def values(self, weights: Tensor) -> None:
        return None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("softmax", {"temperature": 0}),
        ("softmax", {"temperature": -1.0}),
        ("gumbel", {"temperature": 0.0}),
        ("entmax", {"alpha": 1.0}),
        ("entmax", {"alpha": 2.5}),
        ("hard", {"soft_rate": 1.5}),
        ("sigmoid", {"normalised": True}),
        ("sparsemax", {"temperature": 2.0}),
    ],
)
def test_a_recipe_refuses_options_that_make_no_sense(name, options):
    section = part_section(name, NORMALIZERS[name])
    section.model_validate({"name": name})
    with pytest.raises(ValidationError):
        section.model_validate({"name": name, **options})


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
