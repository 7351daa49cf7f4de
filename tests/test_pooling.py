"""Pooling against the papers' formulas written out, and laws over every scorer and normalizer that may pool."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_pooling import (
    CHOICES,
    MASK,
    REAL,
    SPANS,
    B,
    D,
    Q,
    R,
    S,
    V,
    array,
    attention,
    may_pool,
    perceptron,
    position_dependent,
    random,
    softmax,
)
from torch import Tensor, nn
from torch.testing import assert_close

from seq2attn.attention import Attention, Relative
from seq2attn.attention.heads import MultiHead, TalkingNormalizer, TalkingScorer
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.pooling import Pooling, SpanPooling, penalty
from seq2attn.attention.scorers import Additive, Dot, General, ScaledDot
from seq2attn.errors import Seq2attnError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


# ---- laws ------------------------------------------------------------------------------------------------


@pytest.fixture(params=may_pool(), ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Pooling, Tensor]:
    """A pooling and states."""
    part, size = attention(*request.param)
    return Pooling(part, R, Q).eval().double(), random(B, S, size)


def test_the_content_scorers_may_pool():
    assert {(score, "softmax") for score in ("additive", "perceptron", "dot", "general")} < set(may_pool())
    assert len(may_pool()) >= 100 and len(may_pool(lambda part: not position_dependent(part))) >= 81


def test_padding_and_what_stands_there_change_nothing(case):
    pooling, states = case
    plain = pooling(states, MASK)
    garbage = F.pad(states.masked_fill(~MASK[..., None], 1e3), (0, 0, 0, 2), value=-9.0)
    padded = pooling(garbage, F.pad(MASK, (0, 2)))
    assert_close(padded.context, plain.context)
    assert_close(padded.weights, F.pad(plain.weights, (0, 2)))


def test_a_sentence_is_pooled_as_if_alone(case):
    pooling, states = case
    whole = pooling(states, MASK)
    assert whole.context.shape == (B, R, states.shape[-1]) and whole.weights.shape == (B, R, S)
    for row, length in enumerate((7, 4)):
        alone = pooling(states[row : row + 1, :length], MASK[row : row + 1, :length])
        assert_close(alone.context[0], whole.context[row])
        assert_close(alone.weights[0], whole.weights[row, :, :length])


def test_an_empty_sentence_is_zeros_without_gradients(case):
    pooling, states = case
    pooled = pooling(states.requires_grad_(), MASK)
    assert (pooled.context[2] == 0).all() and (pooled.weights[2] == 0).all()
    (pooled.context.square().sum() + penalty(pooled.weights).sum()).backward()
    assert (states.grad[2] == 0).all()
    assert all(p.grad.isfinite().all() for p in pooling.parameters() if p.grad is not None)
    before = {name: p.grad.clone() for name, p in pooling.named_parameters() if p.grad is not None}
    pooling.zero_grad()
    pooled = pooling(states[:2], MASK[:2])
    (pooled.context.square().sum() + penalty(pooled.weights).sum()).backward()
    assert_close(before, {name: p.grad for name, p in pooling.named_parameters() if p.grad is not None})


@pytest.mark.parametrize(
    "case", may_pool(lambda part: not position_dependent(part)), indirect=True, ids="-".join
)
def test_permuting_tokens_permutes_weights(case):
    pooling, states = case
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    plain, permuted = pooling(states, MASK), pooling(states[:, order], MASK[:, order])
    assert_close(permuted.context, plain.context)
    assert_close(permuted.weights, plain.weights[..., order])


def test_hops_look_differently(case):
    """Of many sentences, as hops may well choose the same token of one."""
    pooling, states = case
    many = random(64, *states.shape[1:])
    weights = pooling(many, torch.ones(64, S, dtype=torch.bool)).weights
    assert (weights[:, 0] - weights[:, 3]).abs().max() > 1e-4


@pytest.mark.parametrize(
    "case", [parts for parts in may_pool() if parts[1] not in CHOICES], indirect=True, ids="-".join
)
def test_gradients_are_those_of_the_formula(case):
    pooling, states = case
    states = states[:2, :3].clone().requires_grad_()
    mask = torch.tensor([[True, True, True], [True, False, False]])

    def context(states: Tensor, queries: Tensor) -> Tensor:
        pooled = torch.func.functional_call(pooling, {"queries": queries}, (states, mask))
        return torch.cat([pooled.context.flatten(), penalty(pooled.weights)])

    queries = pooling.queries.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(context, (states, queries), fast_mode=True)


@pytest.mark.parametrize(
    ("score", "normalize"),
    [
        (score, normalize)
        for score, normalize in may_pool(lambda part: not part.normalize.position_dependent)
        if score in ("dot", "scaled_dot", "general", "perceptron") and normalize not in CHOICES
    ],
)
def test_queries_of_zeros_take_the_mean(score, normalize):
    part, size = attention(score, normalize)
    states = random(B, S, size)
    pooled = Pooling(part, 2, Q, zeros=True).double().eval()(states, MASK)
    first = pooled.weights[..., :1]
    assert_close(pooled.weights, (first * MASK.unsqueeze(1)))
    if part.normalize.sums_to_one:
        mean = (states * MASK[..., None]).sum(1) / torch.tensor([7.0, 4.0, 1.0]).double()[:, None]
        assert_close(pooled.context, mean.unsqueeze(1).expand(-1, 2, -1))


# ---- the papers' equations ---------------------------------------------------------------------------------


def test_one_query_is_the_word_attention_of_yang():
    pooling, states = perceptron(1), random(B, S, D)
    layer, u_w = pooling.attention.score.key, array(pooling.queries)[0]
    pooled = pooling(states, MASK)
    for row, length in enumerate((7, 4)):
        h = array(states)[row, :length]
        alpha = softmax(np.tanh(h @ array(layer.weight).T + array(layer.bias)) @ u_w)
        assert_close(array(pooled.weights)[row, 0, :length], alpha)
        assert_close(array(pooled.context)[row, 0], alpha @ h)
    assert sum(p.numel() for p in pooling.parameters()) == Q * D + Q + Q


def test_it_is_additive_attention_with_a_constant_query():
    pooling, states = perceptron(1), random(B, S, D)
    layer = pooling.attention.score.key
    scorer = Additive(2, D, size=Q, bias=True).double()
    with torch.no_grad():
        scorer.key.weight.copy_(layer.weight)
        scorer.key.bias.copy_(layer.bias)
        scorer.energy.weight.copy_(pooling.queries)
    additive = Attention(scorer, Softmax())
    expected = additive(random(B, 1, 2) * 0, additive.remember(states, MASK[:, None]))
    assert_close(pooling(states, MASK)[:2], expected[:2])
    # A query that isn't zero is one more bias, the same for all.
    with torch.no_grad():
        scorer.query.weight.normal_()
        layer.bias += scorer.query.weight @ torch.tensor([2.0, -3.0]).double()
    query = torch.tensor([2.0, -3.0]).double().expand(B, 1, 2)
    assert_close(pooling(states, MASK)[:2], additive(query, additive.remember(states, MASK[:, None]))[:2])


def test_several_hops_are_the_embedding_of_lin():
    pooling, states = perceptron(R, bias=False), random(B, S, D)
    w1, w2 = array(pooling.attention.score.key.weight), array(pooling.queries)
    pooled = pooling(states, MASK)
    for row, length in enumerate((7, 4)):
        h = array(states)[row, :length]
        a = softmax(w2 @ np.tanh(w1 @ h.T))  # (r, n)
        assert_close(array(pooled.weights)[row, :, :length], a)
        assert_close(array(pooled.context)[row], a @ h)
        expected = np.linalg.norm(a @ a.T - np.eye(R), "fro") ** 2
        assert_close(penalty(pooled.weights)[row].item(), expected)
    assert sum(p.numel() for p in pooling.parameters()) == Q * D + R * Q


def test_heads_pool_as_torchs_do():
    heads, size = 2, 22
    ours = MultiHead(heads, size, D, Attention(ScaledDot(Q, Q), Softmax()))
    pooling, states = Pooling(ours, R, size).double(), random(2, S, D)
    theirs = nn.MultiheadAttention(size, heads, kdim=D, vdim=D, batch_first=True).double()
    with torch.no_grad():
        for weight, layer in zip(
            (theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight),
            (ours.query, ours.key, ours.value),
            strict=True,
        ):
            weight.copy_(layer.weight)
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    expected = theirs(
        pooling.queries.expand(2, -1, -1), states, states, ~MASK[:2], average_attn_weights=False
    )
    for need_weights in (True, False):
        assert_close(pooling(states, MASK[:2], need_weights).context, expected[0])
    assert_close(pooling(states, MASK[:2]).weights, expected[1])


def test_a_memory_may_hold_other_values():
    pooling, states, values = perceptron(R), random(B, S, D), random(B, S, V)
    pooled = pooling.pool(pooling.attention.remember(states, MASK[:, None], values))
    assert_close(pooled.weights, pooling(states, MASK).weights)
    assert_close(pooled.context, pooled.weights @ values)


# ---- the penalty -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hops", [1, 2, 5])
def test_penalty_is_zero_for_distinct_and_greatest_for_equal_hops(hops):
    distinct = torch.eye(S)[None, :hops]
    same = torch.eye(S)[None, :1].expand(1, hops, S)
    even = torch.full((1, hops, S), 1 / S)
    expected = hops * (1 / S - 1) ** 2 + hops * (hops - 1) / S**2
    assert_close(
        penalty(torch.cat([distinct, same, even])), torch.tensor([0.0, hops * (hops - 1.0), expected])
    )


def test_penalty_is_squared():
    """Not the norm itself, as in some published code: 12 = 4 * 3, not its root."""
    assert penalty(torch.eye(S)[None, :1].expand(1, 4, S)).item() == 12


def test_an_empty_sentence_owes_no_penalty():
    weights = torch.zeros(2, R, S).requires_grad_()
    owed = penalty(torch.cat([weights, torch.eye(S)[None, :1].expand(1, R, S)]))
    assert owed.tolist() == [0, 0, R * (R - 1)]
    owed.sum().backward()
    assert (weights.grad == 0).all()


def test_penalty_is_of_each_head():
    weights = torch.rand(B, 2, R, S)
    assert_close(penalty(weights)[1, 1], penalty(weights[1:2, 1])[0])


def test_penalty_is_exact_under_autocast():
    weights = torch.rand(B, R, S).softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        owed = penalty(weights)
    assert owed.dtype == torch.float32 and torch.equal(owed, penalty(weights))


def test_the_penalty_drives_hops_apart():
    pooling, states = perceptron(3).float(), random(1, S, D).float()
    optimizer = torch.optim.Adam(pooling.parameters(), lr=0.05)
    before = penalty(pooling(states, MASK[:1]).weights).item()
    for _ in range(150):
        optimizer.zero_grad()
        penalty(pooling(states, MASK[:1]).weights).sum().backward()
        optimizer.step()
    weights = pooling(states, MASK[:1]).weights[0]
    assert before > 1 and penalty(weights[None]).item() < 0.05
    assert len(set(weights.argmax(-1).tolist())) == 3


# ---- everywhere --------------------------------------------------------------------------------------------


def test_weights_are_wide_under_autocast():
    states = random(2, S, D).float()
    pooling = perceptron(R).float()
    spanning = SpanPooling(Attention(General(Q, D), Softmax()), Q)
    with torch.autocast("cpu", torch.bfloat16):
        pooled, spans = pooling(states, MASK[:2]), spanning(states, SPANS, REAL)
    assert pooled.weights.dtype == spans.weights.dtype == torch.float32
    assert_close(pooled.context.float(), pooling(states, MASK[:2]).context, atol=0.05, rtol=0.05)
    assert_close(spans.vector.float(), spanning(states, SPANS, REAL).vector, atol=0.05, rtol=0.05)


def test_a_fused_kernel_pools_alike():
    pooling, states = Pooling(Attention(Dot(Q, Q), Softmax()), R, Q).double(), random(B, S, Q)
    fused = pooling(states, MASK, need_weights=False)
    assert fused.weights is None
    assert_close(fused.context, pooling(states, MASK).context)


class Following(Dot):
    """As if its scores depended on the last query."""

    stateful = True


def test_what_goes_along_a_target_cannot_pool():
    part = Attention(Following(Q, Q), Softmax())
    for looking in (part, MultiHead(2, 2 * Q, D, part)):
        with pytest.raises(Seq2attnError, match=r"Following needs a target .*; pooling has none"):
            Pooling(looking, R, Q)
    talking = Attention(TalkingScorer(Following(Q, Q), 2), TalkingNormalizer(Softmax(), 2))
    with pytest.raises(Seq2attnError, match=r"TalkingScorer needs a target .*; pooling has none"):
        Pooling(MultiHead(2, 2 * Q, D, talking), R, Q)


def test_queries_stand_nowhere():
    part = Attention(Dot(Q, Q), Softmax(), relative=Relative())
    with pytest.raises(Seq2attnError, match="pooling cannot use relative positions"):
        Pooling(part, R, Q)


def test_there_is_at_least_one_query():
    with pytest.raises(Seq2attnError, match="at least one query, got queries=0"):
        Pooling(Attention(Dot(Q, Q), Softmax()), 0, Q)
