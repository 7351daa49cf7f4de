"""What holds for each dense, sparse and sampled normalizer: what is masked, huge, equal or alone."""

import pytest
import torch
from pydantic import ValidationError
from tiny_normalizers import (
    NO_PAST,
    ONE_SLOT,
    VARIANTS,
    B,
    Biased,
    H,
    Positive,
    S,
    T,
    energies,
    made,
    scattered,
    weigh,
)
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import ScaledDot
from seq2attn.recipe.sections import part_section


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


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
@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if made(variant).sums_to_one])
def test_a_single_slot_has_all_the_weight(variant, training):
    scores = energies(variant, B, H, T, 1)
    assert_close(weigh(made(variant).train(training), scores), torch.ones_like(scores))


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
