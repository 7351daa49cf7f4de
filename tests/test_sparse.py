"""Sparse normalizers against a search over all supports, the `entmax` package where it is, and their limits."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Past
from seq2attn.attention.normalizers import Entmax, Normalizer, Sparsemax
from seq2attn.attention.normalizers.sparse import entmax
from seq2attn.errors import Seq2attnError

B, T, S = 3, 5, 7
NO_PAST = Past(None, None, 0)
ALPHAS = (1.05, 1.25, 1.5, 1.7, 2.0)
GOLDEN = {  # of the scores 0.5, -0.3, 0.1, 1.2, -2, from `searched` below
    2.0: [0.15, 0.0, 0.0, 0.85, 0.0],
    1.7: [0.2146776, 0.0, 0.01822737, 0.76709503, 0.0],
    1.5: [0.22922133, 0.00620481, 0.07771307, 0.68686078, 0.0],
    1.25: [0.235437798, 0.0608059295, 0.126667626, 0.577062399, 2.62476668e-05],
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def weigh(normalize: Normalizer, scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """The weights; all may be seen without a mask."""
    mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    return normalize(scores, mask, NO_PAST, torch.zeros(*scores.shape[:-1], 1, dtype=scores.dtype))


def normalizer(alpha: float) -> Normalizer:
    return Sparsemax() if alpha == 2 else Entmax(alpha=alpha)


def searched(scores: np.ndarray, alpha: float) -> np.ndarray:
    """The one support on which a threshold exists that leaves out all others, by trying every support."""
    x, power = (alpha - 1) * scores, alpha - 1
    for size in range(1, len(x) + 1):
        for support in map(list, itertools.combinations(range(len(x)), size)):
            low, high = x[support].max() - 1, x[support].min()
            if low > high or ((x[support] - high) ** (1 / power)).sum() > 1:
                continue
            for _ in range(80):
                middle = (low + high) / 2
                more = ((x[support] - middle) ** (1 / power)).sum() > 1
                low, high = (middle, high) if more else (low, middle)
            if np.delete(x, support).max(initial=-np.inf) <= low + 1e-12:
                weights = np.zeros(len(x))
                weights[support] = (x[support] - low) ** (1 / power)
                return weights
    raise ArithmeticError("no support")


# ---- values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", GOLDEN)
def test_golden_weights(alpha):
    scores = torch.tensor([[[0.5, -0.3, 0.1, 1.2, -2.0]]], dtype=torch.float64)
    expected = torch.tensor([[GOLDEN[alpha]]], dtype=torch.float64)
    assert_close(weigh(normalizer(alpha), scores), expected, atol=1e-8, rtol=0)
    assert_close(weigh(normalizer(alpha), scores.float()), expected.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("size", [0.1, 1.0, 5.0])
def test_weights_are_those_of_the_support_that_fits(alpha, size):
    scores = size * torch.randn(2, 3, 5, dtype=torch.float64)
    expected = np.apply_along_axis(searched, -1, scores.numpy(), alpha)
    assert_close(weigh(normalizer(alpha), scores), torch.from_numpy(expected), atol=1e-10, rtol=0)


def test_sparsemax_is_the_nearest_distribution():
    scores = torch.randn(1, 1, S, dtype=torch.float64)
    weights = weigh(Sparsemax(), scores)
    others = torch.distributions.Dirichlet(torch.full((S,), 0.3).double()).sample((4001,))
    assert ((others - scores[0]).norm(dim=-1) >= (weights - scores).norm()).all()


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("length", [1, 2, S, 301])
@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_value_and_gradient_are_those_of_the_entmax_package(alpha, length, size):
    package = pytest.importorskip("entmax")
    theirs = {2.0: package.sparsemax, 1.5: package.entmax15}.get(
        alpha, lambda scores, dim: package.entmax_bisect(scores, alpha, dim, n_iter=80)
    )
    scores = (size * torch.randn(B, T, length, dtype=torch.float64)).requires_grad_()
    towards, answers = torch.randn(B, T, length, dtype=torch.float64), []
    for weights in (weigh(normalizer(alpha), scores), theirs(scores, -1)):
        answers.append((weights, *torch.autograd.grad(weights, scores, towards)))
    assert_close(*answers, atol=1e-9, rtol=1e-7)


def test_the_gradient_of_alpha_is_that_of_the_entmax_package():
    package = pytest.importorskip("entmax")
    scores, towards = torch.randn(2, B, T, S).double(), torch.randn(B, T, S).double()
    alpha = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    theirs = package.entmax_bisect(scores, alpha, -1, n_iter=80)
    ours = entmax(scores, (alpha - 1).view(1, 1, 1))
    gradients = [
        torch.autograd.grad(weights, alpha, towards.expand(2, B, T, S))[0] for weights in (ours, theirs)
    ]
    assert_close(*gradients)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_bisection_and_sorting_agree(alpha):
    for size in (0.1, 1.0, 5.0):
        scores = size * torch.randn(B, T, 101, dtype=torch.float64)
        bisected = entmax(scores, torch.full((1, 1, 1), alpha - 1, dtype=torch.float64))
        assert_close(bisected, weigh(normalizer(alpha), scores), atol=1e-12, rtol=0)


@pytest.mark.parametrize("power", [1e-3, 1e-5, 1e-7])
def test_towards_one_it_is_softmax_also_in_single_precision(power):
    scores = 2 * torch.randn(B, T, 101)
    assert_close(entmax(scores, power), scores.softmax(-1), atol=5 * power + 1e-6, rtol=0)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_one_slot_takes_all_if_it_is_so_much_better(alpha):
    gap = 1 / (alpha - 1)
    for distance, alone in ((gap + 1e-4, True), (gap - 0.2, False)):
        scores = torch.tensor([0.0, distance, 0.0, -50.0]).view(1, 1, 4)
        weights = weigh(normalizer(alpha), scores)
        assert torch.equal(weights, torch.tensor([[[0.0, 1.0, 0.0, 0.0]]])) == alone
        assert (weights[..., 3] == 0).all()


def test_the_size_of_the_scores_decides_how_many_slots_stay():
    scores = torch.tensor([1.0, 0.7, 0.3, 0.0, -0.2, -0.6, -1.0], dtype=torch.float64).view(1, 1, S)
    support = [int((weigh(Sparsemax(), size * scores) > 0).sum()) for size in (0.1, 1.0, 10.0)]
    assert support == [7, 2, 1]
    by_alpha = [int((weigh(normalizer(alpha), 2 * scores) > 0).sum()) for alpha in ALPHAS]
    assert by_alpha == sorted(by_alpha, reverse=True) and by_alpha[0] == S and by_alpha[-1] == 2


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 100.0])
def test_long_rows_sum_to_one_in_single_precision(alpha, size):
    weights = weigh(normalizer(alpha), size * torch.randn(2, 3, 3001))
    assert_close(weights.sum(-1), torch.ones(2, 3), atol=1e-5, rtol=0)
    lone = torch.full((1, 1, 3001), -1 / (alpha - 1)).index_fill(-1, torch.tensor([17]), 0.0)
    assert_close(weigh(normalizer(alpha), lone).sum(-1), torch.ones(1, 1))  # all on the border of the support


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_number_added_to_all_scores_changes_nothing(alpha):
    scores = torch.randn(B, T, S, dtype=torch.float64)
    assert_close(weigh(normalizer(alpha), scores + 1000), weigh(normalizer(alpha), scores))


# ---- gradients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradients_are_those_of_the_formula(alpha):
    scores = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, True, False, True, True]).expand(2, 3, 5)
    assert torch.autograd.gradcheck(lambda scores: weigh(normalizer(alpha), scores, mask), (scores,))


@pytest.mark.parametrize("alpha", [1.02, 1.3, 1.9])
def test_the_gradient_of_a_learned_alpha_is_that_of_the_formula(alpha):
    scores = torch.randn(2, 2, 3, 5, dtype=torch.float64, requires_grad=True)
    power = torch.tensor([alpha - 1, 0.5], dtype=torch.float64).view(2, 1, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda scores, power: entmax(scores, power), (scores, power))


def test_the_gradient_of_alpha_keeps_its_digits_near_one():
    scores, towards = torch.randn(B, T, 101), torch.randn(B, T, 101)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        power = torch.full((1, 1, 1), 1e-3, dtype=dtype, requires_grad=True)
        gradients.append(torch.autograd.grad(entmax(scores.to(dtype), power), power, towards.to(dtype))[0])
    assert_close(gradients[0].double(), gradients[1], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_outside_of_the_support_nothing_is_learned(alpha):
    scores = (10 * torch.randn(B, T, 31, dtype=torch.float64)).requires_grad_()
    weights = weigh(normalizer(alpha), scores)
    outside = weights == 0
    assert outside.any()
    gradient = torch.autograd.grad((weights * torch.randn(31)).sum(), scores)[0]
    assert (gradient[outside] == 0).all()
    assert_close(gradient.sum(-1), torch.zeros(B, T).double())  # along the distributions


@pytest.mark.parametrize("alpha", ALPHAS)
def test_no_row_is_ever_all_masked_inside(alpha):
    mask, scores = torch.zeros(1, 2, S, dtype=torch.bool), torch.randn(1, 2, S, requires_grad=True)
    mask[0, 0, 3] = True  # sorting a row of -inf finds no support and raises, bisecting one gives nan
    weights = weigh(normalizer(alpha), scores, mask)
    assert torch.equal(weights, mask.float())
    assert (torch.autograd.grad(weights.square().sum(), scores)[0] == 0).all()


# ---- the learned alpha -------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1.05, 1.5, 1.9])
def test_a_learned_alpha_starts_where_it_is_told_and_moves(alpha):
    scores = torch.randn(B, 2, T, S)
    learned = Entmax(11, 2, alpha=alpha, learned=True)
    weights = weigh(learned, scores)
    assert_close(weights, weigh(Entmax(alpha=alpha), scores), atol=1e-5, rtol=0)
    weights.square().sum().backward()
    assert learned.log_odds.shape == (2, 1, 1) and (learned.log_odds.grad > 0).all()  # higher is sharper


@pytest.mark.parametrize("log_odds", [-60.0, -12.0, 12.0, 60.0])
def test_a_learned_alpha_may_go_to_its_ends(log_odds):
    scores, learned = torch.randn(B, 2, T, S), Entmax(11, 2, learned=True)
    with torch.no_grad():
        learned.log_odds.fill_(log_odds)
    weights = weigh(learned, scores)
    limit = scores.softmax(-1) if log_odds < 0 else weigh(Sparsemax(), scores)
    assert_close(weights, limit, atol=1e-4, rtol=0)
    weights.square().sum().backward()
    assert learned.log_odds.grad.isfinite().all()


def test_a_learned_alpha_cannot_start_at_its_end():
    with pytest.raises(Seq2attnError, match=r"less than 2: got alpha=2; start lower, .* or use sparsemax"):
        Entmax(alpha=2.0, learned=True)


def test_a_fixed_alpha_has_no_parameters():
    assert not list(Entmax(11, 2).parameters()) and not list(Sparsemax(11, 2).parameters())
