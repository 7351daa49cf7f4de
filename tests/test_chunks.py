"""Chunkwise attention against its definition, and the chain of hard monotonic attention."""

import itertools
import math

import numpy as np
import pytest
import torch
from tiny_monotonic import (
    MASK,
    B,
    S,
    T,
    energies,
    one_hot,
    random,
    run,
)
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Past
from seq2attn.attention.normalizers import HardMonotonic, MILk, MoChA, Monotonic


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


# ---- chunks ------------------------------------------------------------------------------------------


def chunked(stops: Tensor, scores: Tensor, mask: Tensor, width: int) -> Tensor:
    """Chiu & Raffel's beta, one chunk after the other; (S,) each."""
    spread = torch.zeros_like(stops)
    for k in range(len(stops)):
        chunk = [j for j in range(max(k - width + 1, 0), k + 1) if mask[j]]
        if chunk:
            spread[chunk] += stops[k] * scores[chunk].softmax(0)
    return spread


@pytest.mark.parametrize("width", [1, 2, 3, 7, 50, None])
@pytest.mark.parametrize("training", [True, False])
def test_chunks_are_the_definition(width, training):
    options = {"noise": 0.0, "exhausted": "keep"}
    normalize = (MILk(**options) if width is None else MoChA(width=width, **options)).train(training)
    scores = energies(normalize, B, T, S)
    mask = MASK.clone()
    mask[0, 0, [0, 3]] = False
    stops, pointer = run(Monotonic(**options).train(training), scores[0], mask)
    weights, beliefs = run(normalize, scores, mask)
    for b, t in np.ndindex(B, T):
        expected = chunked(stops[b, t], scores[1, b, t], mask[b, 0], S if width is None else width)
        assert_close(weights[b, t], expected)
    assert_close(beliefs, pointer)  # the pointer, not the chunk
    assert_close(weights.sum(-1), stops.sum(-1))
    assert width != 1 or torch.allclose(weights, stops)


def test_milk_is_mocha_with_the_widest_chunk_and_a_softmax_at_the_end():
    scores = energies(MILk(), B, T, S)
    milk, mocha = run(MILk(noise=0.0), scores, MASK), run(MoChA(noise=0.0, width=S), scores, MASK)
    assert_close(milk, mocha)
    at_end = torch.stack([torch.full_like(scores[0], -1e4), scores[1]])
    assert_close(run(MILk(noise=0.0), at_end, MASK)[0][0], scores[1, 0].softmax(-1))


def test_an_outlier_in_one_chunk_does_not_silence_the_others():
    """Moving sums of exp(u - max u) have nothing left where a chunk lies 60 nats below the highest u."""
    chunk = torch.tensor([0.0, 1.0, 60.0, 0.5, 2.0, 1.0])
    stops = torch.tensor([[-1e4, 1e4, -1e4, -1e4, -1e4, -1e4], [-1e4] * 4 + [1e4, -1e4]])
    seen = torch.ones(1, 1, 6, dtype=torch.bool)
    weights, _ = run(MoChA(noise=0.0, width=2), torch.stack([stops, chunk.expand(2, -1)])[:, None], seen)
    expected = torch.tensor([[1.0, math.e, 0, 0, 0, 0], [0, 0, 0, math.exp(0.5), math.exp(2), 0]])
    expected = expected / expected.sum(-1, keepdim=True)
    assert_close(weights[0], expected)
    powers = torch.nn.functional.pad((chunk - chunk.max()).exp(), (1, 1))
    shares = torch.tensor([0, 1.0, 0, 0, 0, 0]) / (powers[1:-1] + powers[:-2] + 1e-10)
    fast = powers[1:-1] * (shares + torch.nn.functional.pad(shares[1:], (0, 1)))
    assert fast.sum() < 1e-6  # the fast form finds no chunk at all


def test_only_the_energies_of_the_scan_are_noisy():
    normalize = MoChA(width=S, bias=1e4, noise=1.0)  # stops at the first slot, whatever the noise
    scores = energies(normalize, B, T, S)
    assert_close(run(normalize, scores, MASK)[0], run(normalize.eval(), scores, MASK)[0])
    mild = MoChA(width=S, noise=1.0)
    assert not torch.allclose(run(mild, scores, MASK)[0], run(mild, scores, MASK)[0])


# ---- the chain of Wu & Cotterell ---------------------------------------------------------------------


def transitions(scores: Tensor, visible: Tensor) -> Tensor:
    """softmax over k >= i in every row i, (S, S); the last visible slot keeps what is behind it."""
    slots = len(scores)
    matrix = torch.zeros(slots, slots, dtype=scores.dtype)
    for i in range(slots):
        ahead = [k for k in range(i, slots) if visible[k]] or [int(visible.nonzero().max())]
        matrix[i, ahead] = scores[ahead].softmax(0)
    return matrix


def test_the_chain_is_its_transition_matrix():
    scores, mask = 3 * random(B, T, S), MASK.clone()
    mask[0, 0, [2, 6]] = False
    weights, beliefs = run(HardMonotonic(), scores, mask)
    for b in range(B):
        alignment_state = one_hot([0], S)[0]
        for t in range(T):
            alignment_state = alignment_state @ transitions(scores[b, t], mask[b, 0])
            assert_close(weights[b, t], alignment_state)
    assert torch.equal(beliefs, weights)
    assert_close(weights.sum(-1), torch.ones(B, T, dtype=torch.float64))


def test_with_posteriors_the_chain_gives_the_likelihood_of_all_monotone_paths():
    queries, slots = 4, 6
    scores, chances = random(1, queries, slots), torch.rand(queries, slots, dtype=torch.float64)  # p(y_t | a)
    matrices = [transitions(row, torch.ones(slots, dtype=torch.bool)) for row in scores[0]]
    total = 0.0
    for path in itertools.combinations_with_replacement(range(slots), queries):
        one, at = 1.0, 0
        for t, place in enumerate(path):
            one, at = one * matrices[t][at, place] * chances[t, place], place
        total += one
    normalize, seen = HardMonotonic(), torch.ones(1, 1, slots, dtype=torch.bool)
    alignment_state, likelihood = one_hot([0], slots), 1.0
    for t in range(queries):
        past = Past(None, None, t, alignment_state)
        prior = run(normalize, scores[:, t : t + 1], seen, past)[0][:, 0]
        joint = prior * chances[t]
        likelihood, alignment_state = likelihood * joint.sum(), joint / joint.sum()
    assert_close(likelihood, total)


def test_the_chain_survives_scores_far_apart():
    """exp(e_j) sum_i belief_i / Z_i over- and underflows; its ratios do not."""
    scores = torch.tensor([[[0.0, 500.0, 3.0, 2.0, -300.0], [1000.0, -1000.0, -990.0, -991.0, -2000.0]]])
    weights, _ = run(HardMonotonic(), scores, torch.ones(1, 1, 5, dtype=torch.bool))
    ahead = torch.tensor([-1000.0, -990.0, -991.0, -2000.0]).softmax(0)
    assert_close(weights[0], torch.stack([torch.eye(5)[1], torch.nn.functional.pad(ahead, (1, 0))]))
