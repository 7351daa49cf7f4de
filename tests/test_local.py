"""Local attention against the paper's equations in NumPy, and against global attention at its limits."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention, Past
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import LocalM, LocalP, Softmax
from seq2attn.attention.normalizers.local import lengths
from seq2attn.attention.scorers import Additive

B, T, S, Q = 3, 5, 23, 11
LENGTHS = torch.tensor([23, 7, 2])
MASK = (torch.arange(S) < LENGTHS[:, None])[:, None]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def past(step: int = 0) -> Past:
    return Past(None, None, step)


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max())
    return x / x.sum()


def test_a_row_ends_behind_its_last_visible_slot():
    mask = torch.tensor([[[True, False, True, False]], [[False] * 4], [[True] * 4]])
    assert lengths(mask).tolist() == [[[3]], [[0]], [[4]]]


# ---- local-m -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 2, 9])
@pytest.mark.parametrize("pace", [1.0, 0.5, 2.5])
def test_local_m_is_a_softmax_over_its_window(pace, step):
    energies = random(B, T, S)
    weights = LocalM(reach=3, pace=pace)(energies, MASK, past(step), random(B, T, Q))
    expected = np.zeros((B, T, S))
    for b, t in np.ndindex(B, T):
        centre = min(int((step + t) * pace + 0.5), LENGTHS[b].item() - 1)
        window = range(max(centre - 3, 0), min(centre + 3, LENGTHS[b].item() - 1) + 1)
        expected[b, t, window] = softmax(energies[b, t, list(window)].numpy())
    assert_close(weights, torch.from_numpy(expected))


def test_local_m_with_a_reach_of_all_is_global():
    energies, query = random(B, T, S), random(B, T, Q)
    whole = Softmax()(energies, MASK, past(), query)
    assert_close(LocalM(reach=S)(energies, MASK, past(), query), whole)
    assert not torch.allclose(LocalM(reach=5)(energies, MASK, past(), query)[0], whole[0])


def test_local_m_with_no_reach_copies_slot_by_slot_and_stays_at_the_last():
    attention = Attention(Additive(Q, 13), LocalM(reach=0))
    states = torch.randn(B, S, 13)
    context, _, now, _ = attention(torch.randn(B, T, Q), attention.remember(states, MASK))
    places = torch.arange(T).minimum(LENGTHS[:, None] - 1)  # the last row has two slots only
    assert_close(context, states.gather(1, places[..., None].expand(-1, -1, 13)))
    later = attention(torch.randn(B, T, Q), attention.remember(states, MASK), now)
    assert later.weights[0].argmax(-1).tolist() == [5, 6, 7, 8, 9]
    assert later.weights[1].argmax(-1).tolist() == [5, 6, 6, 6, 6]


def test_local_m_counts_alike_in_all_heads():
    heads = MultiHead(2, 22, 13, Attention(Additive(11, 11), LocalM(reach=0)))
    weights = heads(torch.randn(B, T, 22), heads.remember(torch.randn(B, S, 13), MASK)).weights
    assert weights[0, 0].argmax(-1).tolist() == weights[0, 1].argmax(-1).tolist() == list(range(T))


def test_local_m_reads_the_length_of_each_query_and_slots_between_gaps():
    mask = MASK.expand(B, T, S).clone()
    mask[0, 2, 1:] = False  # this query sees slot 0 alone
    mask[0, 3, 2:5] = False  # nothing near its place
    weights = LocalM(reach=1)(random(B, T, S), mask, past(), random(B, T, Q))
    assert weights[0, 2].nonzero().tolist() == [[0]]
    assert (weights[0, 3] == 0).all()
    assert weights[0, 4].nonzero().tolist() == [[3], [4], [5]]


# ---- local-p -----------------------------------------------------------------------------------------


def predicted(normalize: LocalP, query: Tensor, length: int) -> float:
    v, w = (part.weight.detach().numpy() for part in (normalize.place, normalize.hidden))
    return length / (1 + np.exp(-(v[0] @ np.tanh(w @ query.numpy()))))


@pytest.mark.parametrize("renormalise", [False, True])
def test_local_p_is_the_papers_equation(renormalise):
    normalize = LocalP(Q, size=17, reach=4, renormalise=renormalise).double()
    energies, query = random(B, T, S), 3 * random(B, T, Q)
    weights = normalize(energies, MASK, past(), query)
    expected = np.zeros((B, T, S))
    for b, t in np.ndindex(B, T):
        length = LENGTHS[b].item()
        p = predicted(normalize, query[b, t], length)
        window = [s for s in range(length) if abs(s - min(int(p), length - 1)) <= 4]
        gaussian = np.exp([-((s - p) ** 2) / (2 * 2.0**2) for s in window])
        expected[b, t, window] = softmax(energies[b, t, window].numpy()) * gaussian
        if renormalise:
            expected[b, t] /= expected[b, t].sum()
    assert_close(weights, torch.from_numpy(expected))
    assert normalize.sums_to_one == renormalise
    assert ((weights.sum(-1) - 1).abs() < 1e-9).all() == renormalise


def test_the_softmax_of_local_p_comes_before_the_gaussian():
    normalize = LocalP(Q, reach=2).double()
    normalize.place.weight.data.zero_()  # p = 3.5 in the row of 7
    energies = torch.zeros(B, 1, S, dtype=torch.float64)
    weights = normalize(energies, MASK, past(), random(B, 1, Q))
    gaussian = np.exp([-((s - 3.5) ** 2) / 2 for s in range(1, 6)])
    assert_close(weights[1, 0, 1:6], torch.from_numpy(gaussian / 5))
    assert weights[1].sum() < 0.5  # the paper's weights do not sum to one


def test_the_window_of_local_p_has_the_same_width_everywhere_within():
    normalize = LocalP(Q, reach=4).double()
    energies, query = random(1, 100, S), 5 * random(1, 100, Q)
    weights = normalize(energies, MASK[:1], past(0), query)
    p = torch.tensor([predicted(normalize, one, S) for one in query[0]])
    within = (p >= 4) & (p < S - 4)
    assert within.sum() > 20 and (weights[0][within] > 0).sum(-1).unique().tolist() == [9]


def test_local_p_looks_within_the_true_length():
    normalize = LocalP(Q, reach=1).double()
    with torch.no_grad():
        normalize.hidden.weight.zero_()[:, 0] = 100
        normalize.place.weight.fill_(100)  # p is the length itself: behind the last slot
    query = torch.ones(B, 1, Q, dtype=torch.float64)
    weights = normalize(random(B, 1, S), MASK, past(), query)
    assert [row.nonzero()[:, 1].tolist() for row in weights] == [[21, 22], [5, 6], [0, 1]]


def test_local_p_with_a_wide_window_is_global():
    normalize = LocalP(Q, reach=10**6).double()
    energies, query = random(B, T, S), random(B, T, Q)
    assert_close(normalize(energies, MASK, past(), query), Softmax()(energies, MASK, past(), query))


def test_place_and_scores_of_local_p_learn():
    normalize = LocalP(Q, reach=3).double()
    energies, query = random(B, T, S).requires_grad_(), random(B, T, Q).requires_grad_()
    assert torch.autograd.gradcheck(lambda e, q: normalize(e, MASK, past(), q), (energies, query))
    normalize(energies, MASK, past(), query)[..., 0].sum().backward()
    assert all((p.grad != 0).any() for p in normalize.parameters())


# ---- both --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [LocalM, lambda: LocalP(Q), lambda: LocalP(Q, renormalise=True)])
def test_extremes_are_finite(make):
    normalize = make().train()
    query = torch.randn(B, T, Q, requires_grad=True)
    for energies in (1e4 * torch.randn(B, T, S), torch.zeros(B, T, S), torch.full((B, T, S), -1e4)):
        energies.requires_grad_()
        mask = MASK.clone()
        mask[1] = False
        weights = normalize(energies, mask, past(), query)
        found = torch.autograd.grad(weights.square().sum(), (energies, query), materialize_grads=True)
        assert weights.isfinite().all() and all(g.isfinite().all() for g in found)
        assert (weights[1] == 0).all() and all((g[1] == 0).all() for g in found)
        assert (weights.amax(-1)[0] > 0).all()
    lone = normalize(torch.zeros(1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool), past(3), query[:1, :1])
    assert 0 < lone.item() <= 1


@pytest.mark.parametrize("make", [LocalM, lambda: LocalP(Q)])
def test_no_fused_kernel_forgets_the_window(make):
    attention = Attention(Additive(Q, 13), make())
    query, memory = torch.randn(B, T, Q), attention.remember(torch.randn(B, S, 13), MASK)
    assert_close(attention(query, memory, need_weights=False).context, attention(query, memory).context)
    assert attention.normalize.fused(query, memory, None, 0.0) is None
