"""Every scorer against its paper's equation, written out in NumPy; printed examples, and what cannot be."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from tiny_scorers import MASK, A, Array, B, K, Q, S, T, arrays, random, scores, weights
from torch.testing import assert_close

from seq2attn.attention import Attention, Scorer
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
from seq2attn.errors import Seq2attnError
from seq2attn.recipe.sections import part_section


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


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
    with pytest.raises(Seq2attnError, match="as many positions before as after; got 4; take 5"):
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
