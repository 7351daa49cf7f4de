"""Every scorer against its paper's equation, written out in NumPy; and what usual implementations get wrong."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from seq2attn.attention import Attention, Past, Scorer
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.scorers import (
    SCORERS,
    Additive,
    Concat,
    Cosine,
    Coverage,
    Dot,
    Fertility,
    Gaussian,
    General,
    Linear,
    Location,
    LocationSensitive,
    MultiScorer,
    NeuralCoverage,
    Perceptron,
    ScaledDot,
    Trilinear,
)
from seq2attn.attention.state import reorder
from seq2attn.errors import Seq2attnError
from seq2attn.recipe.sections import part_section

B, T, S, Q, K, A = 3, 5, 7, 11, 13, 17
LENGTHS = (7, 4, 1)
MASK = (torch.arange(S) < torch.tensor(LENGTHS)[:, None])[:, None]
NO_PAST = Past(None, None, 0)
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def scores(scorer: Scorer, query: Tensor, states: Tensor) -> Tensor:
    scorer = scorer.double()
    return scorer(query, scorer.keys(states), NO_PAST)


def weights(scorer: Scorer, query: Tensor, states: Tensor, mask: Tensor = MASK) -> Tensor:
    attention = Attention(scorer, Softmax()).double()
    return attention(query, attention.remember(states, mask)).weights


def arrays(scorer: Scorer) -> dict[str, Array]:
    """The parameters by name, without the endings that torch gives them."""
    named = scorer.double().named_parameters()
    return {name.removesuffix(".weight"): part.detach().numpy() for name, part in named}


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


# ---- without a past: one equation for a query and a key -------------------------------------------------


def additive(q: Array, k: Array, p: dict[str, Array]) -> Any:
    return p["energy"][0] @ np.tanh(p["query"] @ q + p["key"] @ k + p.get("key.bias", 0))


def normalized(q: Array, k: Array, p: dict[str, Array]) -> Any:
    v = p["energy"][0]
    together = np.tanh(p["query"] @ q + p["key"] @ k + p["key.bias"])
    return p["gain"] * (v / np.sqrt((v**2).sum())) @ together + p["score_bias"]


def cosine(q: Array, k: Array, p: dict[str, Array]) -> Any:
    return np.exp(p["start"]) * (q @ k) / np.sqrt((q @ q) * (k @ k))


def content(q: Array, k: Array, p: dict[str, Array]) -> Any:
    beta = np.log(1 + np.exp(p["strength"][0] @ q + p["start"]))
    return beta * (q @ k) / np.sqrt((q @ q) * (k @ k))


def gaussian(q: Array, k: Array, p: dict[str, Array]) -> Any:
    k = p["project"] @ k if "project" in p else k
    return -((q - k) ** 2).sum() / (2 * np.exp(p["log_width"]) ** 2)


def linear(q: Array, k: Array, p: dict[str, Array]) -> Any:
    def phi(x: Array) -> Array:
        return np.where(x > 0, x + 1, np.exp(x))

    return phi(q) @ phi(k)


def trilinear(q: Array, k: Array, p: dict[str, Array]) -> Any:
    return p["weight"].reshape(-1) @ np.concatenate([q, k, q * k])


def concat(q: Array, k: Array, p: dict[str, Array]) -> Any:
    return p["energy"][0] @ np.tanh(np.c_[p["query"], p["key"]] @ np.r_[q, k])


def identical(q: Array, k: Array, p: dict[str, Array]) -> Any:
    return p["energy"][0] @ np.tanh(k + p["query"] @ q + p["query.bias"])


EQUATIONS: list[tuple[type[Scorer], int, dict[str, Any], Callable[[Array, Array, dict[str, Array]], Any]]] = [
    (Additive, K, {"size": A}, additive),
    (Additive, K, {"size": A, "bias": True}, additive),
    (Additive, K, {"size": A, "bias": True, "normalize": True, "score_bias": -4.0}, normalized),
    (Concat, K, {"size": A}, concat),
    (Concat, K, {"key_identity": True, "bias": True}, identical),
    (Cosine, Q, {}, cosine),
    (Cosine, Q, {"sharpness": 3.0, "strength": "query"}, content),
    (Dot, Q, {}, lambda q, k, p: q @ k),
    (Gaussian, Q, {}, gaussian),
    (Gaussian, K, {"project": True, "width": 0.7}, gaussian),
    (General, K, {}, lambda q, k, p: q @ p["project"] @ k),
    (General, K, {"rank": 2}, lambda q, k, p: q @ (p["query"].T @ p["project"]) @ k),
    (Linear, Q, {}, linear),
    (Perceptron, K, {}, lambda q, k, p: q @ np.tanh(p["key"] @ k + p["key.bias"])),
    (Perceptron, K, {"bias": False}, lambda q, k, p: q @ np.tanh(p["key"] @ k)),
    (ScaledDot, Q, {}, lambda q, k, p: q @ k / np.sqrt(Q)),
    (Trilinear, Q, {}, trilinear),
]


@pytest.mark.parametrize(("part", "key_size", "options", "equation"), EQUATIONS)
def test_scores_are_the_papers_equation(part, key_size, options, equation):
    scorer, query, states = part(Q, key_size, **options), random(B, T, Q), random(B, S, key_size)
    parameters, ours = arrays(scorer), scores(scorer, query, states)
    expected = np.empty((B, T, S))
    for n, t, s in np.ndindex(B, T, S):
        expected[n, t, s] = equation(query[n, t].numpy(), states[n, s].numpy(), parameters)
    assert_close(ours, torch.from_numpy(expected))
    dot = scorer.dot(query)
    if dot is not None:  # what a fused kernel would compute
        assert_close(dot @ scorer.keys(states).mT, ours)


def test_every_scorer_is_tested_here():
    looking = {LocationSensitive, Coverage, Fertility, NeuralCoverage}
    assert {part for part, *_ in EQUATIONS} | looking | {Location} == set(SCORERS.values())
    assert {part for part in SCORERS.values() if part.stateful} == looking
    assert [name for name, part in SCORERS.items() if part.positive] == ["linear"]
    assert [name for name, part in SCORERS.items() if not part.allows_talking_heads] == ["location"]
    assert [n for n, part in SCORERS.items() if part.position_dependent] == ["location", "location_sensitive"]


# ---- printed examples -----------------------------------------------------------------------------------


def test_a_worked_example_whose_printed_numbers_are_wrong():
    query = torch.tensor([[[1.0, 0.8]]])
    keys = torch.tensor([[[0.9, 0.1], [0.8, 0.2], [0.7, 0.9]]])
    values = torch.tensor([[[1.0, 0.1], [0.9, 0.2], [0.8, 0.3]]])
    attention = Attention(ScaledDot(2, 2), Softmax())
    memory = attention.remember(keys, torch.ones(1, 1, 3, dtype=torch.bool), values)
    context, looked, *_ = attention(query, memory)
    assert_close(looked[0, 0], torch.tensor([0.2984255, 0.2942348, 0.4073396]), atol=1e-6, rtol=0)
    assert_close(context[0, 0], torch.tensor([0.8891086, 0.2108914]), atol=1e-6, rtol=0)
    assert_close(context, F.scaled_dot_product_attention(query, keys, values))
    printed_weights, printed = torch.tensor([0.4761, 0.2678, 0.2561]), torch.tensor([0.9529, 0.1797])
    assert not torch.allclose(printed_weights, looked[0, 0], atol=1e-2)
    assert not torch.allclose(printed, context[0, 0], atol=1e-2)
    # Each value sums to 1.1, and so must every mixture of them: no weights give what is printed.
    assert context.sum().item() == pytest.approx(1.1) and printed.sum().item() > 1.13
    assert looked.argmax() == 2 and printed_weights.argmax() == 0


def test_another_one():
    looked = weights(
        ScaledDot(3, 3),
        torch.tensor([[[2.0, 3, 1]]]).double(),
        torch.tensor([[[1.0, 2, 1], [1, 1, 2]]]).double(),
        torch.ones(1, 1, 2, dtype=torch.bool),
    ).float()[0, 0]
    assert_close(looked, torch.tensor([0.7603684, 0.2396316]), atol=1e-6, rtol=0)
    printed = torch.tensor([0.6225, 0.3775])
    assert not torch.allclose(printed, looked, atol=1e-2)
    assert_close(torch.tensor([0.5, 0]).softmax(-1), printed, atol=1e-4, rtol=0)  # as if d were 16


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


class Sizes(TorchDispatchMode):
    """Sees how many numbers each operation returns."""

    def __enter__(self) -> Any:
        self.seen: list[int] = []
        return super().__enter__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen += [
            part.numel() for part in torch.utils._pytree.tree_leaves(result) if torch.is_tensor(part)
        ]
        return result


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


# ---- location -------------------------------------------------------------------------------------------


def test_location_is_luongs_equation():
    query, scorer = random(B, T, Q), Location(Q, K, length=19, bias=True).double()
    whole = query.numpy() @ arrays(scorer)["place"].T + arrays(scorer)["place.bias"]
    expected = torch.from_numpy(whole[..., :S]).masked_fill(~MASK, -torch.inf).softmax(-1)
    ours = weights(scorer, query, random(B, S, K))
    assert_close(ours, expected)
    cut = torch.from_numpy(whole).softmax(-1)[..., :S]  # a softmax before the cut loses mass
    assert cut.sum(-1).max() < 0.9


def test_location_does_not_read_what_stands_there():
    query, states, scorer = random(B, T, Q), random(B, S, K), Location(Q, K)
    ours = weights(scorer, query, states)
    assert_close(weights(scorer, query, states.flip(1)), ours)
    assert not torch.allclose(ours, ours.flip(-1))
    assert scorer.keys(states).shape == (B, S, 0)
    assert reorder(scorer.keys(states), torch.tensor([2, 2])).shape == (2, S, 0)


def test_places_behind_all_known_ones_get_nothing():
    query, scorer = random(B, T, Q), Location(Q, K, length=3)
    ours = weights(scorer, query, random(B, S, K))
    assert (ours[..., 3:] == 0).all()
    only = weights(scorer, query, random(B, S, K), MASK & (torch.arange(S) >= 3))  # nothing else is there
    assert_close(only[0], torch.tensor([0.0] * 3 + [0.25] * 4).double().expand(T, S))
    assert_close(ours.sum(-1), torch.ones(B, T).double())
    behind = MASK & (torch.arange(S) >= 3)
    only = weights(scorer, query, random(B, S, K), behind)
    assert_close(only, (behind / behind.sum(-1, keepdim=True).clamp(min=1)).double().expand(-1, T, -1))


# ---- with a past ----------------------------------------------------------------------------------------


def history(scorer: Scorer) -> Callable[..., Any]:
    """What a scorer adds inside the tanh, from the lists of earlier weights (S,) and queries, in NumPy."""
    p = arrays(scorer)

    def covered(past: list[Array]) -> Any:
        return np.sum(past, axis=0) if past else np.zeros(S)

    def coverage(past: list[Array], queries: list[Array], k: Array) -> Any:
        return covered(past)[:, None]

    def fertility(past: list[Array], queries: list[Array], k: Array) -> Any:
        return (covered(past) / (scorer.most * sigmoid(k @ p["fertility"][0])))[:, None]

    def location(past: list[Array], queries: list[Array], k: Array) -> Any:
        none = np.eye(S)[0] if scorer.start == "first" else np.zeros(S)
        channels = [past[-1] if past else none, covered(past)][: 1 + scorer.cumulative]
        kernel = p["convolve"]  # (filters, channels, width)
        seen, reach = np.zeros((S, len(kernel))), kernel.shape[-1] // 2
        for s, f, c, w in np.ndindex(S, *kernel.shape):
            if 0 <= s + w - reach < S:
                seen[s, f] += kernel[f, c, w] * channels[c][s + w - reach]
        return seen

    def neural(past: list[Array], queries: list[Array], k: Array) -> Any:
        state = torch.zeros(S, scorer.cell.hidden_size).double()
        for a, q in zip(past, queries, strict=False):
            inputs = np.concatenate([a[:, None], k, np.tile(q, (S, 1))], -1)
            state = scorer.cell(torch.from_numpy(inputs), state).detach()
        return state.numpy()

    kinds = {Coverage: coverage, Fertility: fertility, LocationSensitive: location, NeuralCoverage: neural}
    return kinds[type(scorer)]


LOOKING = {
    "coverage": (Coverage, {}),
    "coverage without a bias": (Coverage, {"bias": False}),
    "fertility": (Fertility, {"most": 3.0, "bias": True}),
    "location": (LocationSensitive, {"filters": 5, "width": 3}),
    "location, wider than the source": (LocationSensitive, {"filters": 2, "width": 17}),
    "location, Chorowski": (LocationSensitive, {"cumulative": False, "start": "first", "width": 5}),
    "location, all": (LocationSensitive, {"start": "first", "width": 5}),
    "neural": (NeuralCoverage, {}),
    "neural, narrow": (NeuralCoverage, {"width": 2, "bias": True}),
}


def looking(name: str) -> Scorer:
    """With a history that counts."""
    part, options = LOOKING[name]
    scorer = part(Q, K, size=A, **options).double()
    scorer.history.weight.data.mul_(5)
    return scorer


@pytest.mark.parametrize("name", LOOKING)
def test_those_that_look_back_are_their_papers_equations(name):
    scorer = looking(name)
    query, states, p, features = random(B, T, Q), random(B, S, K), arrays(scorer), history(scorer)
    states = states.masked_fill(~MASK.mT, 50.0)  # what is padding must not matter
    expected = np.zeros((B, T, S))
    for n, length in enumerate(LENGTHS):
        k, past, queries = states[n].numpy(), [], list(query[n].numpy())
        for t, q in enumerate(queries):
            inside = p["query"] @ q + k @ p["key"].T + p.get("key.bias", 0)
            inside = inside + features(past, queries, k) @ p["history"].T
            e = np.exp((np.tanh(inside) @ p["energy"][0])[:length])
            expected[n, t, :length] = e / e.sum()
            past.append(expected[n, t])
    assert_close(weights(scorer, query, states), torch.from_numpy(expected))


@pytest.mark.parametrize("name", LOOKING)
def test_the_past_counts_and_without_its_weight_all_is_additive(name):
    scorer, query, states = looking(name), random(B, 1, Q).expand(-1, T, -1), random(B, S, K)
    ours = weights(scorer, query, states)
    assert (ours[0, 0] - ours[0, 1]).abs().max() > 1e-3  # the same question, but not the same past
    scorer.history.weight.data.zero_()
    plain = Additive(Q, K, size=A, bias="key.bias" in dict(scorer.named_parameters())).double()
    plain.load_state_dict(scorer.state_dict(), strict=False)
    assert_close(weights(scorer, query, states), weights(plain, query, states))


@pytest.mark.parametrize("name", LOOKING)
def test_all_at_once_is_step_by_step_also_with_heads(name):
    part, options = LOOKING[name]
    module = MultiHead(2, 22, K, Attention(part(11, 11, **options), Softmax())).double()
    query, memory = random(B, T, 22), module.remember(random(B, S, K), MASK)
    whole, past, steps = module(query, memory), None, []
    for one in query.split(1, 1):
        steps.append(module(one, memory, past, need_weights=False))
        past = steps[-1].past
    assert_close(torch.cat([step.context for step in steps], 1), whole.context)
    assert_close(past, whole.past)


def test_coverage_is_made_of_weights_before_dropout():
    attention = Attention(looking("coverage"), Softmax(), dropout=0.5).train()
    query, memory = random(B, T, Q), attention.remember(random(B, S, K), MASK)
    dropping = attention(query, memory)
    assert_close(dropping.weights, attention.eval()(query, memory).weights)
    before = dropping.weights.cumsum(-2) - dropping.weights
    last = Past(None, before[..., -1, :], 0)
    expected = attention.score(query[:, -1:], memory.keys, last).masked_fill(~MASK, -torch.inf).softmax(-1)
    assert_close(dropping.weights[:, -1:], expected)


def test_the_convolution_sees_zeros_over_pads():
    scorer, query, states = looking("location"), random(B, 1, Q), random(B, S, K)
    attention = Attention(scorer, Softmax())
    memory = attention.remember(states, MASK)
    past = attention(query, memory).past
    assert (past.weights[~MASK[:, 0]] == 0).all()
    garbage = past._replace(weights=past.weights.masked_fill(~MASK[:, 0], 1.0))
    clean, dirty = (scorer(query, memory.keys, some)[1, 0] for some in (past, garbage))
    assert (clean - dirty)[3].abs() > 1e-3  # the last word's score would know how many pads follow
    assert_close(clean[:3], dirty[:3])


def test_the_first_slot_is_only_where_a_sentence_begins():
    scorer = looking("location, Chorowski")
    query, keys = random(2, 1, Q), scorer.keys(random(2, S, K))
    zeros = torch.zeros(2, S).double()
    begun, later = (scorer(query, keys, Past(zeros, zeros, step)) for step in (0, 3))
    changed = (begun - later).abs() > 1e-6
    assert changed.tolist() == [[[True] * 3 + [False] * 4]] * 2  # a width of 5 reaches two slots


def test_a_fertile_word_is_covered_more_slowly():
    scorer = Fertility(Q, K, size=A).double()
    keys = scorer.keys(random(B, S, K))
    past = Past(None, torch.ones(B, S).double(), 1)
    fertility = keys[..., -1:]
    assert ((fertility > 0) & (fertility < 2)).all()
    assert_close(scorer.features(keys, past), 1 / fertility)
    sterile = scorer.keys(-1e6 * torch.sign(scorer.fertility.weight).expand(B, S, K))
    assert scorer.features(sterile, past).isfinite().all()
    assert (scorer.features(sterile, past._replace(coverage=torch.zeros(B, S).double())) == 0).all()


def test_who_saw_nothing_has_nothing_to_note():
    scorer = NeuralCoverage(Q, K, size=A).double()
    attention = Attention(scorer, Softmax())
    mask = MASK.expand(-1, 2, -1).clone()
    mask[0, 1] = False
    query, states = random(B, 2, Q), random(B, S, K)
    one = attention(query[:, :1], attention.remember(states, mask[:, :1])).past
    two = attention(query, attention.remember(states, mask)).past
    assert_close(two.trace[0], one.trace[0])
    assert not torch.allclose(two.trace[1], one.trace[1])


@pytest.mark.parametrize("name", LOOKING)
def test_who_looks_back_needs_a_past(name):
    scorer = looking(name)
    with pytest.raises(
        Seq2attnError,
        match=r"depends on earlier weights, but the past does not hold them: start with Attention",
    ):
        scores(scorer, random(B, 1, Q), random(B, S, K))


# ---- several --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORERS)
def test_several_are_each_for_itself(name):
    one_size = name in ("cosine", "dot", "gaussian", "linear", "scaled_dot", "trilinear")
    key_size = Q if one_size else K
    scorers = [SCORERS[name](Q, key_size).double() for _ in range(3)]
    both, states, query = MultiScorer(scorers), random(B, S, key_size), random(B, 1, Q)
    parts = [Attention(scorer, Softmax()) for scorer in scorers]
    memories = [part.remember(states, MASK) for part in parts]
    keys = both.keys(states)
    pasts = [part.initial_state(memory) for part, memory in zip(parts, memories, strict=True)]
    past = pasts[0]._replace(trace=both.initial_state(keys))
    for _ in range(3):
        energies = both(query, keys, past)
        expected = [s(query, m.keys, p) for s, m, p in zip(scorers, memories, pasts, strict=True)]
        assert energies.shape == (3, B, 1, S)
        assert_close(energies, torch.stack(expected))
        looked = energies[0].masked_fill(~MASK, -torch.inf).softmax(-1)
        traces = [
            s.update_trace(query, m.keys, looked, p) for s, m, p in zip(scorers, memories, pasts, strict=True)
        ]
        pasts = [p.then(looked, 1, trace=trace) for p, trace in zip(pasts, traces, strict=True)]
        past = past.then(looked, 1, trace=both.update_trace(query, keys, looked, past))
    assert both.stateful == scorers[0].stateful and both.positive == scorers[0].positive
    assert both.position_dependent == scorers[0].position_dependent
    assert both.dot(query) is None


def test_several_have_weights_of_their_own():
    both = MultiScorer([General(Q, K), General(Q, K)]).double()
    first, second = scores(both, random(B, T, Q), random(B, S, K))
    assert not torch.allclose(first, second)
    assert sum(part.numel() for part in both.parameters()) == 2 * Q * K


@pytest.mark.parametrize(
    ("scorers", "got"),
    [
        ([General(Q, K), Dot(Q, Q)], "General, Dot"),
        ([Additive(Q, K), Additive(Q, K, size=3)], "Additive, Additive"),
        ([], "none"),
    ],
)
def test_several_of_different_kinds_are_refused(scorers, got):
    with pytest.raises(Seq2attnError, match=f"needs scorers of the same class and sizes, got {got}; make"):
        MultiScorer(scorers)


# ---- what cannot be -------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [Cosine, Dot, Gaussian, Linear, ScaledDot, Trilinear])
def test_only_things_of_one_size_can_be_compared(part):
    with pytest.raises(
        Seq2attnError, match=f"{part.__name__} needs queries and keys of one size, got 11 and"
    ):
        part(Q, K)


def test_gaussian_says_how_to_compare_things_of_two_sizes():
    with pytest.raises(Seq2attnError, match="got 11 and 13; give it project: true, or make the sizes equal"):
        Gaussian(Q, K)


def test_a_convolution_has_a_middle():
    with pytest.raises(Seq2attnError, match="as many positions before as behind; got 4; take 5"):
        LocationSensitive(Q, K, width=4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cosine", {"sharpness": 0}),
        ("cosine", {"strength": "lerned"}),
        ("gaussian", {"width": -1.0}),
        ("general", {"rank": 0}),
        ("location", {"length": 0}),
        ("location_sensitive", {"start": "last"}),
        ("fertility", {"most": 0.0}),
        ("neural_coverage", {"width": 0}),
        ("dot", {"bias": True}),
    ],
)
def test_a_recipe_refuses_options_that_make_no_sense(name, options):
    section = part_section(name, SCORERS[name])
    section.model_validate({"name": name})
    with pytest.raises(ValidationError):
        section.model_validate({"name": name, **options})
