"""Scores of positions, and scores that depend on earlier weights, against their papers' equations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_scorers import (
    LENGTHS,
    MASK,
    A,
    Array,
    B,
    K,
    Q,
    S,
    T,
    arrays,
    random,
    scores,
    sigmoid,
    weights,
)
from torch.testing import assert_close

from seq2attn.attention import Attention, Past, Scorer
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.scorers import (
    Additive,
    Coverage,
    Fertility,
    Location,
    LocationSensitive,
    NeuralCoverage,
)
from seq2attn.attention.state import reorder
from seq2attn.errors import Seq2attnError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


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
