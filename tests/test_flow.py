"""Attention in both directions against the paper's formula written out, and its laws over all parts.

Sizes are different primes: 3 contexts of 7 words, 5 words of their queries, states of 11. The second
pair is shorter on both sides, the last query is empty.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import choose
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention, incompatibilities
from seq2attn.attention.bidirectional import BidirectionalFlow
from seq2attn.attention.normalizers import NORMALIZERS, Softmax
from seq2attn.attention.scorers import SCORERS, Additive, MultiScorer, Trilinear
from seq2attn.errors import Seq2attnError

B, T, J, D = 3, 7, 5, 11
CONTEXT = torch.arange(T) < torch.tensor([7, 4, 6])[:, None]
QUERY = torch.arange(J) < torch.tensor([5, 3, 0])[:, None]
CHOICES = ("hardmax", "hard")  # one slot of several: not differentiable


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def may_flow() -> list[tuple[str, str]]:
    """Every scorer and every normalizer, with the other part the paper's."""
    pairs = [("trilinear", normalize) for normalize in NORMALIZERS]
    pairs += [(score, "softmax") for score in SCORERS if score != "trilinear"]
    return [
        (score, normalize)
        for score, normalize in pairs
        if not list(incompatibilities(SCORERS[score], NORMALIZERS[normalize], "bidirectional attention"))
    ]


def independent_of_positions(pair: tuple[str, str]) -> bool:
    return not (SCORERS[pair[0]].position_dependent or NORMALIZERS[pair[1]].position_dependent)


@pytest.fixture(params=may_flow(), ids="-".join)
def flow(request: pytest.FixtureRequest) -> BidirectionalFlow:
    score, normalize = request.param
    return BidirectionalFlow(D, SCORERS[score](D, D), NORMALIZERS[normalize](D)).double().eval()


@pytest.fixture
def h() -> Tensor:
    return random(B, T, D) * CONTEXT[..., None]


@pytest.fixture
def u() -> Tensor:
    return random(B, J, D)


# ---- the paper's equations ---------------------------------------------------------------------------------


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def test_it_is_the_concatenation_of_seo(h, u):
    module = BidirectionalFlow(D).double()
    w = module.score.weight.detach().numpy().ravel()
    assert 3 * D == sum(p.numel() for p in module.parameters()) == 3 * D
    states, query_weights, context_weights = module(h, u, CONTEXT, QUERY)
    assert states.shape == (B, T, 4 * D)
    for row, length, words in ((0, 7, 5), (1, 4, 3)):
        H, U = h[row, :length].numpy(), u[row, :words].numpy()
        scores = np.array([[w @ np.concatenate([a, b, a * b]) for b in U] for a in H])
        a = np.array([softmax(row) for row in scores])
        b = softmax(scores.max(1))
        asked, told = a @ U, np.tile(b @ H, (length, 1))
        G = np.concatenate([H, asked, H * asked, H * told], 1)
        assert_close(states[row, :length].detach().numpy(), G)
        assert_close(query_weights[row, :length, :words].detach().numpy(), a)
        assert_close(context_weights[row, :length].detach().numpy(), b)


def test_the_words_of_the_context_matter_only_towards_the_context(h, u):
    """w1 . h is the same for all words of the query, so it cancels there; the maximum keeps it."""
    module = BidirectionalFlow(D).double()
    before = module(h, u, CONTEXT, QUERY)
    with torch.no_grad():
        module.score.weight[0] += 1
    after = module(h, u, CONTEXT, QUERY)
    assert_close(after.query_weights, before.query_weights)
    assert (after.context_weights - before.context_weights)[:2].abs().max() > 0.01


def test_towards_the_query_it_is_plain_attention(flow, h, u):
    attention = Attention(flow.score, flow.normalize)
    plain = attention(h, attention.remember(u, QUERY[:, None] & CONTEXT[..., None]))
    flowed = flow(h, u, CONTEXT, QUERY)
    assert_close(flowed.query_weights, plain.weights)
    assert_close(flowed.states[..., D : 2 * D], plain.context)
    assert_close(flowed.states[..., 2 * D : 3 * D], h * plain.context)


# ---- laws --------------------------------------------------------------------------------------------------


def test_padding_and_what_stands_there_change_nothing(flow, h, u):
    plain = flow(h, u, CONTEXT, QUERY)
    garbage = 1e3 * torch.ones(D).double()
    h2 = F.pad(torch.where(CONTEXT[..., None], h, garbage), (0, 0, 0, 2), value=-9.0)
    u2 = F.pad(torch.where(QUERY[..., None], u, garbage), (0, 0, 0, 3), value=50.0)
    padded = flow(h2, u2, F.pad(CONTEXT, (0, 2)), F.pad(QUERY, (0, 3)))
    assert_close(padded.states[:, :T][CONTEXT], plain.states[CONTEXT])
    assert_close(padded.query_weights, F.pad(plain.query_weights, (0, 3, 0, 2)))
    assert_close(padded.context_weights, F.pad(plain.context_weights, (0, 2)))
    assert (plain.states[~CONTEXT] == 0).all()


def test_a_pair_is_read_as_if_alone(flow, h, u):
    whole = flow(h, u, CONTEXT, QUERY)
    for row, length, words in ((0, 7, 5), (1, 4, 3)):
        pair = h[row : row + 1, :length], u[row : row + 1, :words]
        alone = flow(*pair, *(torch.ones(part.shape[:2], dtype=torch.bool) for part in pair))
        assert_close(alone.states[0], whole.states[row, :length])
        assert_close(alone.query_weights[0], whole.query_weights[row, :length, :words])
        assert_close(alone.context_weights[0], whole.context_weights[row, :length])


def test_nothing_flows_from_an_empty_query_or_to_an_empty_context(flow, h, u):
    contexts = CONTEXT.clone()
    contexts[1] = False
    h, u = h.requires_grad_(), u.requires_grad_()
    states, query_weights, context_weights = flow(h, u, contexts, QUERY)
    assert torch.equal(states[1:], F.pad(h[1:], (0, 3 * D)))
    assert (query_weights[1:] == 0).all() and (context_weights[1:] == 0).all()
    states[..., D:].square().sum().backward()
    assert h.grad.isfinite().all() and u.grad.isfinite().all()
    assert (h.grad[1:] == 0).all() and (u.grad[1:] == 0).all() and (h.grad[0] != 0).any()
    assert all(p.grad.isfinite().all() for p in flow.parameters() if p.grad is not None)


@pytest.mark.parametrize("flow", choose(may_flow(), independent_of_positions, at_least=10), indirect=True)
def test_the_order_of_words_does_not_matter(flow, h, u):
    plain = flow(h, u, CONTEXT, QUERY)
    order = torch.tensor([3, 0, 4, 2, 1])
    permuted = flow(h, u[:, order], CONTEXT, QUERY[:, order])
    assert_close(permuted.states, plain.states)
    assert_close(permuted.query_weights, plain.query_weights[..., order])
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    permuted = flow(h[:, order], u, CONTEXT[:, order], QUERY)
    assert_close(permuted.states, plain.states[:, order])
    assert_close(permuted.context_weights, plain.context_weights[:, order])


@pytest.mark.parametrize(
    "flow", choose(may_flow(), lambda pair: pair[1] not in CHOICES, at_least=15), indirect=True
)
def test_gradients_are_those_of_the_formula(flow):
    masks = (
        torch.tensor([[True, True, True], [True, True, False]]),
        torch.tensor([[True, True], [True, False]]),
    )
    parts = random(2, 3, D).requires_grad_(), random(2, 2, D).requires_grad_()
    assert torch.autograd.gradcheck(lambda h, u: flow(h, u, *masks).states, parts, fast_mode=True)


def test_huge_scores_are_no_nan(flow):
    h, u = ((1e4 * random(B, n, D)).float().requires_grad_() for n in (T, J))
    states = flow.float()(h, u, CONTEXT, QUERY).states
    assert states.isfinite().all()
    states[..., : 2 * D].sum().backward()
    assert h.grad.isfinite().all() and u.grad.isfinite().all()


def test_weights_are_wide_under_autocast(h, u):
    module = BidirectionalFlow(D)
    h, u = h.float(), u.float()
    exact = module(h, u, CONTEXT, QUERY)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = module(h, u, CONTEXT, QUERY)
        module(h.bfloat16(), u.bfloat16(), CONTEXT, QUERY)
    assert narrow.query_weights.dtype == narrow.context_weights.dtype == torch.float32
    assert_close(narrow[1:], exact[1:], rtol=1e-6, atol=1e-6)
    assert_close(narrow.states.float(), exact.states, rtol=0.05, atol=0.05)


def test_what_is_drawn_is_what_is_looked_at(h, u):
    class First(Softmax):
        def sample(self, weights: Tensor, past: object) -> Tensor:
            return F.one_hot(torch.zeros_like(weights[..., 0]).long(), weights.shape[-1]).to(weights)

    states, query_weights, context_weights = BidirectionalFlow(D, normalize=First()).double()(
        h, u, CONTEXT, QUERY
    )
    assert_close(states[..., D : 2 * D], u[:, :1].expand(-1, T, -1))
    assert_close(states[..., 3 * D :], h * h[:, :1])
    assert (query_weights[0] > 0).all() and (context_weights[0] > 0).all()


def test_scorer_and_normalizer_are_the_papers_unless_said_otherwise():
    assert isinstance(BidirectionalFlow(D).score, Trilinear)
    assert isinstance(BidirectionalFlow(D).normalize, Softmax)
    score = Additive(D, D)
    assert BidirectionalFlow(D, score).score is score


class Following(Trilinear):
    """As if its scores depended on the last query."""

    stateful = True


def test_what_goes_along_a_target_does_not_flow():
    with pytest.raises(Seq2attnError, match=r"Following needs a target .*; bidirectional attention has"):
        BidirectionalFlow(D, Following(D, D))
    with pytest.raises(Seq2attnError, match=r"MultiScorer needs a target .*; bidirectional attention has"):
        BidirectionalFlow(D, MultiScorer([Following(D, D)]))
