"""Monotonic attention against the enumeration of every path, and against the scan that decodes."""

import itertools
import math

import numpy as np
import pytest
import torch
from tiny_monotonic import (
    EXHAUSTED,
    LENGTHS,
    MASK,
    B,
    S,
    T,
    energies,
    every,
    one_hot,
    random,
    run,
    scores_of,
)
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention, Past
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import Monotonic
from seq2attn.attention.normalizers.monotonic import arrivals
from seq2attn.attention.scorers import Additive
from seq2attn.attention.state import reorder
from seq2attn.errors import Seq2attnError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


# ---- the oracles -------------------------------------------------------------------------------------


def enumerated(chances: np.ndarray, exhausted: str) -> np.ndarray:
    """The expected weights (U, S) over every path of a scan with these chances, path by path."""
    queries, slots = chances.shape
    weights = np.zeros((queries, slots))
    for path in itertools.product(range(slots + 1), repeat=queries):  # `slots`: no slot has stopped it
        chance, at = 1.0, 0
        looked: list[int | None] = []
        for p, stop in zip(chances, path, strict=True):
            gone = at == slots
            if gone or stop < at:
                chance *= gone and stop == slots
                looked.append(None)
                continue
            chance *= np.prod(1 - p[at:stop])
            if stop < slots:
                chance *= p[stop]
            at = stop if stop < slots else {"zero": slots, "keep": at, "last": slots - 1}[exhausted]
            looked.append(at if stop < slots or exhausted == "last" else None)
        for query, slot in enumerate(looked):
            if slot is not None:
                weights[query, slot] += chance
    return weights


def greedy(fires: list[list[bool]], visible: list[bool], exhausted: str) -> list[int | None]:
    """Where a scan looks that stops at the first slot that fires: plain Python, a slot at a time."""
    at, looked, gone = 0, [], False
    last = max((j for j, see in enumerate(visible) if see), default=None)
    for row in fires:
        found = next((j for j in range(at, len(row)) if visible[j] and row[j]), None)
        if last is None or gone:
            found = None
        elif found is None and exhausted == "last":
            found = last
        elif found is None:
            gone = exhausted == "zero"
        at = at if found is None else found
        looked.append(found)
    return looked


def clipped(stops: Tensor, before: Tensor) -> Tensor:
    """The closed form with a floor, as it is usually found."""
    passed = torch.cat([torch.ones_like(stops[..., :1]), (1 - stops).cumprod(-1)[..., :-1]], -1)
    return stops * passed * (before / passed.clamp(1e-10, 1)).cumsum(-1)


# ---- monotonic ---------------------------------------------------------------------------------------

CHANCES = np.array(  # 4 queries, 6 slots
    [
        [0.1, 0.6, 0.3, 0.2, 0.5, 0.4],
        [0.7, 0.2, 0.4, 0.1, 0.3, 0.6],
        [0.2, 0.5, 0.1, 0.8, 0.6, 0.3],
        [0.4, 0.3, 0.9, 0.2, 0.1, 0.5],
    ]
)
LAST = {  # the last query's weights, in exact fractions
    "zero": [0.0056, 0.02802, 0.086796, 0.052876, 0.0330844, 0.19283796],
    "keep": [0.0104055981, 0.0476868197, 0.1461621890, 0.0678799052, 0.0465449406, 0.3406602737],
    "last": [0.0056, 0.02802, 0.086796, 0.052876, 0.0330844, 0.7936236],
}


@pytest.mark.parametrize("exhausted", EXHAUSTED)
def test_the_expectation_is_that_of_all_paths(exhausted):
    scores = scores_of(torch.from_numpy(CHANCES))[None]
    weights, _ = run(Monotonic(noise=0.0, exhausted=exhausted), scores, torch.ones(1, 1, 6, dtype=torch.bool))
    assert_close(weights[0], torch.from_numpy(enumerated(CHANCES, exhausted)), atol=1e-12, rtol=0)
    assert_close(weights[0, -1], torch.tensor(LAST[exhausted], dtype=torch.float64), atol=1e-10, rtol=0)
    sums = weights[0].sum(-1)
    if exhausted == "last":
        assert_close(sums, torch.ones_like(sums))
    elif exhausted == "zero":
        assert (sums.diff() < 0).all() and sums[0] < 1


def test_arrivals_are_the_recursion():
    for slots in (1, 2, 3, 8, 13):
        going, alignment_state = (
            torch.rand(B, slots, dtype=torch.float64),
            torch.rand(B, slots, dtype=torch.float64),
        )
        going[0] = (going[0] > 0.5).double()
        expected = [alignment_state[:, 0]]
        for j in range(1, slots):
            expected.append(going[:, j - 1] * expected[-1] + alignment_state[:, j])
        assert_close(arrivals(going, alignment_state), torch.stack(expected, -1))
        inputs = going.requires_grad_(), alignment_state.requires_grad_()
        assert torch.autograd.gradcheck(arrivals, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_mass_is_lost_far_along_a_source(dtype):
    before = (torch.arange(400) == 200).to(dtype)[None]
    stops = torch.full((1, 400), 0.3, dtype=dtype)
    assert clipped(stops, before).sum() < 1e-15  # what is usually written has lost it all
    normalize = Monotonic(noise=0.0, exhausted="zero")
    past = Past(None, None, 9, before)
    weights, _ = run(normalize, scores_of(stops)[:, None], torch.ones(1, 1, 400, dtype=torch.bool), past)
    assert_close(weights.sum(), torch.ones((), dtype=dtype))
    expected = 0.3 * 0.7 ** (torch.arange(400, dtype=torch.float64) - 200) * (torch.arange(400) >= 200)
    assert_close(weights[0, 0].double(), expected, atol=1e-6, rtol=0)


def test_a_sure_stop_before_the_pointer_stops_nobody():
    before = torch.tensor([[0.0, 0, 1, 0, 0]])
    scores = torch.tensor([[[1e4, 1.0, 1.0, 1.0, 1.0]]])
    assert clipped((scores[0] - 1).sigmoid(), before).sum() == 0
    past = Past(None, None, 1, before)
    seen = torch.ones(1, 1, 5, dtype=torch.bool)
    weights, _ = run(Monotonic(noise=0.0, exhausted="zero"), scores, seen, past)
    assert_close(weights, torch.tensor([[[0, 0, 0.5, 0.25, 0.125]]]))


@pytest.mark.parametrize("exhausted", EXHAUSTED)
@pytest.mark.parametrize("how", ["sure chances, in training", "any chances, in evaluation"])
def test_what_is_trained_is_what_is_decoded(exhausted, how):
    normalize = Monotonic(bias=0.0, noise=0.0, exhausted=exhausted).train("training" in how)
    rows, queries, slots = 50, 6, 5
    scores = random(rows, queries, slots) - 0.7
    mask = torch.rand(rows, 1, slots) < 0.8
    mask[0] = False
    given = scores if "evaluation" in how else scores.sign() * 1e4
    weights, beliefs = run(normalize, given, mask)
    looked = [greedy((scores[b] >= 0).tolist(), mask[b, 0].tolist(), exhausted) for b in range(rows)]
    assert_close(weights, torch.stack([one_hot(places, slots) for places in looked]))
    assert any(None in places[:-1] and places[-1] is not None for places in looked) == (exhausted == "keep")
    if exhausted == "keep":  # the pointer is always somewhere
        assert_close(beliefs.sum(-1), torch.ones(rows, queries, dtype=torch.float64))
    elif exhausted == "last":
        assert_close(beliefs[1:], weights[1:])
    assert (beliefs[0] == one_hot([0], slots)).all()  # who sees nothing stays


def test_evaluation_thresholds_at_a_half_and_may_take_the_expectation():
    scores = torch.tensor([[[-1e-3, 0.0, 5.0]]])
    seen = torch.ones(1, 1, 3, dtype=torch.bool)
    weights, _ = run(Monotonic(bias=0.0).eval(), scores, seen)
    assert weights.tolist() == [[[0, 1, 0]]]
    soft, _ = run(Monotonic(bias=0.0, hard=False).eval(), scores, seen)
    trained, _ = run(Monotonic(bias=0.0, noise=0.0), scores, seen)
    assert_close(soft, trained)
    assert 0.4 < soft[0, 0, 0] < 0.6


def test_noise_is_a_standard_deviation_and_for_training_alone():
    normalize = Monotonic(noise=3.0, exhausted="zero", hard=False)
    scores, seen = torch.zeros(20000, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool)
    noisy = run(normalize, scores, seen)[0].logit()
    assert abs(noisy.std() - 3) < 0.1 and abs(noisy.mean() + 1) < 0.1
    calm = run(normalize.eval(), scores, seen)[0]
    assert_close(calm, torch.full_like(calm, 1 / (1 + math.e)))


def test_each_head_learns_a_bias_of_its_own():
    attention = Attention(Additive(11, 11), Monotonic(11, 2, bias=-0.5, noise=0.0, hard=False))
    heads = MultiHead(2, 22, 13, attention).double()
    assert attention.normalize.bias.shape == (2, 1, 1) and (attention.normalize.bias == -0.5).all()
    memory = heads.remember(random(B, S, 13), MASK)
    query = random(B, T, 22)
    before = heads(query, memory).weights
    with torch.no_grad():
        attention.normalize.bias[1] = 100
    after = heads(query, memory).weights
    assert_close(after[:, 0], before[:, 0])
    assert (after[:, 1, :, 0] > 0.99).all()  # stops at once, every time
    after.square().sum().backward()
    assert attention.normalize.bias.grad[0] != 0


def test_the_last_visible_slot_takes_what_is_left():
    mask = torch.tensor([[[True, False, True, False]]])
    weights, beliefs = run(Monotonic(noise=0.0), torch.full((1, 2, 4), -1e4), mask)
    assert weights.tolist() == beliefs.tolist() == [[[0, 0, 1, 0], [0, 0, 1, 0]]]


# ---- what holds for all ------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_seen_under_the_mask_and_the_sums_are_as_said(make, training):
    normalize = make().train(training)
    scores = energies(normalize, B, T, S)
    mask = (torch.rand(B, T, S) < 0.6) & MASK
    mask[0, 2] = False
    mask[2] = False
    weights, beliefs = run(normalize, scores, mask)
    assert (weights >= 0).all() and (weights[~mask] == 0).all()
    if normalize.sums_to_one:
        assert_close(weights.sum(-1), mask.any(-1).double())
    assert (beliefs.sum(-1) < 1 + 1e-9).all()
    assert torch.equal(beliefs[0, 2], beliefs[0, 1])  # who sees nothing stands still
    assert normalize.sums_to_one == (getattr(normalize, "exhausted", "last") == "last")


@every
def test_sentences_and_pads_do_not_matter_to_each_other(make):
    normalize = make()
    scores = energies(normalize, B, T, S)
    weights, beliefs = run(normalize, scores, MASK)
    for b in range(B):
        length = int(LENGTHS[b])
        alone = run(normalize, scores[..., b : b + 1, :, :length], MASK[b : b + 1, :, :length])
        assert_close((weights[b : b + 1, ..., :length], beliefs[b : b + 1, ..., :length]), alone)
    garbage = scores.masked_fill(~MASK, 1e4)
    assert_close(run(normalize, garbage, MASK)[0], weights)


@every
def test_the_future_changes_nothing_and_the_past_does(make):
    normalize = make()
    scores = energies(normalize, B, T, S)
    weights = run(normalize, scores, MASK)[0]
    for changed, moved in ((T - 1, False), (0, True)):
        other = scores.clone()
        other[..., changed, :] += random(S)
        again = run(normalize, other, MASK)[0]
        assert torch.equal(again[:, 1:-1], weights[:, 1:-1]) != moved
        assert not torch.allclose(again[0, changed], weights[0, changed])


@every
def test_reordering_commutes(make):
    normalize, index = make(), torch.tensor([1, 1, 0])
    scores = energies(normalize, B, 2, S)
    _, beliefs = run(normalize, scores, MASK)
    past = Past(None, None, 2, beliefs[:, -1])
    after = [part[index] for part in run(normalize, scores, MASK, past)]
    batch = scores.ndim - 3
    before = run(normalize, scores.index_select(batch, index), MASK[index], reorder(past, index))
    assert_close(tuple(before), tuple(after))


@every
def test_gradients_are_exact_and_zero_where_nothing_is_seen(make):
    normalize = make().double()
    scores = energies(normalize, B, 3, 4).requires_grad_()
    mask = MASK[..., :4].clone()
    mask[0, 0, 2] = False
    mask[2] = False
    assert torch.autograd.gradcheck(lambda s: run(normalize, s, mask), scores)
    with torch.autograd.set_detect_anomaly(True):  # no nan on the way either
        (found,) = torch.autograd.grad(run(normalize, scores, mask)[0].square().sum(), scores)
    assert (found[..., 2, :, :] == 0).all() and (found[..., 0, :, 2] == 0).all()
    assert (found[..., 0, :, :2] != 0).any()


@every
@pytest.mark.parametrize("training", [True, False])
def test_extremes_are_finite(make, training):
    normalize = make().train(training)
    for size, shift in ((1e4, 0.0), (0.0, 0.0), (0.0, 1e4), (0.0, -1e4)):
        scores = (size * energies(normalize, B, T, 97) + shift).float().requires_grad_()
        mask = (torch.rand(B, T, 97) < 0.6) & (torch.arange(97) < 90)
        weights, beliefs = run(normalize, scores, mask)
        total = weights.square().sum() + beliefs.square().sum()
        parts = [scores, *normalize.parameters()]
        found = torch.autograd.grad(total, parts, materialize_grads=True) if total.requires_grad else []
        assert all(part.isfinite().all() for part in (weights, beliefs, *found))
    lone = run(normalize, energies(normalize, 1, 1, 1) + 9, torch.ones(1, 1, 1, dtype=torch.bool))[0]
    assert lone.item() > 0.99


@every
def test_who_has_no_place_is_told_where_to_begin(make):
    normalize = make()
    nowhere = Past(None, None, 0)
    name = type(normalize).__name__
    with pytest.raises(
        Seq2attnError, match=rf"{name} needs the alignment state of the last query, .* start with Attention"
    ):
        run(normalize, energies(normalize, B, 1, S), MASK, nowhere)
