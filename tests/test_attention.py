"""Attention against torch's own, against the papers' formulas written out, and what it remembers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.testing import assert_close
from torchs import load_attention, randomised

from seq2attn.attention import Attention, Normalizer, Past, Scorer
from seq2attn.attention.heads import MultiHead, head_size
from seq2attn.attention.normalizers import NORMALIZERS, Hard, MoChA, Softmax
from seq2attn.attention.scorers import Additive, Concat, Dot, General, Linear, MultiScorer, ScaledDot
from seq2attn.errors import Seq2attnError

B, T, S, Q, K = 3, 5, 7, 11, 13
MASK = (torch.arange(S) < torch.tensor([7, 4, 1])[:, None])[:, None]
NO_PAST = Past(None, None, 0)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def scores(scorer: Scorer, query: Tensor, states: Tensor) -> Tensor:
    scorer = scorer.double()
    return scorer(query, scorer.keys(states), NO_PAST)


# ---- the same as elsewhere ---------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "size"), [(2, 22), (3, 15), (1, 11)])
@pytest.mark.parametrize("key_size", [None, K])
def test_multi_head_is_torchs(heads, size, key_size):
    theirs = randomised(nn.MultiheadAttention(size, heads, kdim=key_size, vdim=key_size, batch_first=True))
    head = Attention(ScaledDot(size // heads, size // heads), Softmax())
    ours = MultiHead(heads, size, key_size or size, head).double()
    load_attention(ours, theirs)
    query, states = random(B, T, size), random(B, S, key_size or size)
    context, weights = theirs(query, states, states, key_padding_mask=~MASK[:, 0], average_attn_weights=False)
    attended = ours(query, ours.remember(states, MASK))
    assert_close(attended.context, context)
    assert_close(attended.weights, weights)


@pytest.mark.parametrize(("scorer", "scale"), [(ScaledDot, None), (Dot, 1.0)])
def test_dot_products_are_torchs(scorer, scale):
    query, states, values = random(B, T, Q), random(B, S, Q), random(B, S, K)
    mask = (torch.rand(B, T, S) < 0.5) & MASK
    attention = Attention(scorer(Q, Q), Softmax())
    attended = attention(query, attention.remember(states, mask, values))
    expected = F.scaled_dot_product_attention(query, states, values, mask, scale=scale)
    assert_close(attended.context, expected)


@pytest.mark.parametrize("bias", [False, True])
def test_additive_is_bahdanaus_equation(bias):
    scorer = Additive(Q, K, size=17, bias=bias).double()
    query, states = random(B, T, Q), random(B, S, K)
    w, u, v = (part.weight.detach().numpy() for part in (scorer.query, scorer.key, scorer.energy))
    b = scorer.key.bias.detach().numpy() if bias else 0.0
    expected = np.empty((B, T, S))
    for n, t, s in np.ndindex(B, T, S):
        hidden = np.tanh(w @ query[n, t].numpy() + u @ states[n, s].numpy() + b)
        expected[n, t, s] = v[0] @ hidden
    assert_close(scores(scorer, query, states), torch.from_numpy(expected))
    assert sum(p.numel() for p in scorer.parameters()) == 17 * (Q + K + 1) + 17 * bias


def test_concat_is_additive_with_one_matrix():
    scorer = Concat(Q, K).double()
    query, states = random(B, T, Q), random(B, S, K)
    matrix = torch.cat([scorer.query.weight, scorer.key.weight], 1)  # (Q, Q + K)
    pairs = torch.cat([query[:, :, None].expand(-1, -1, S, -1), states[:, None].expand(-1, T, -1, -1)], -1)
    expected = (pairs @ matrix.T).tanh() @ scorer.energy.weight[0]
    assert_close(scores(scorer, query, states), expected)


def test_dot_scaled_dot_and_general_are_their_equations():
    query, states, other = random(B, T, Q), random(B, S, Q), random(B, S, K)
    product = torch.einsum("btd,bsd->bts", query, states)
    assert_close(scores(Dot(Q, Q), query, states), product)
    assert_close(scores(ScaledDot(Q, Q), query, states), product / Q**0.5)
    general = General(Q, K).double()
    expected = torch.einsum("btq,qk,bsk->bts", query, general.project.weight, other)
    assert_close(scores(general, query, other), expected)


def test_the_softmax_is_torchs_over_what_may_be_seen():
    energies = random(B, T, S)
    weights = Softmax()(energies, MASK, NO_PAST, random(B, T, Q))
    for row, length in enumerate((7, 4, 1)):
        assert_close(weights[row, :, :length], energies[row, :, :length].softmax(-1))


# ---- who computes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scorer", "need_weights", "fused"),
    [(ScaledDot, False, True), (General, False, True), (ScaledDot, True, False), (Additive, False, False)],
)
def test_the_fused_kernel_is_used_where_it_can_be(scorer, need_weights, fused, monkeypatch):
    calls = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(a) or kernel(*a, **k))
    attention = Attention(scorer(Q, Q), Softmax()).double()
    query, memory = random(B, T, Q), attention.remember(random(B, S, Q), MASK)
    attended = attention(query, memory, need_weights=need_weights)
    assert bool(calls) == fused == (attended.weights is None)
    if fused:
        assert attended.past.weights is attended.past.coverage is None
    assert attended.past.step == T
    again = attention(query, memory, attended.past, need_weights=True)  # who asks later gets them
    assert again.weights is not None and again.past.step == 2 * T


class Squared(Softmax):
    """Another forward than its parent, and no shortcut of its own."""

    def forward(self, scores: Tensor, mask: Tensor, past: Past, query: Tensor) -> Tensor:
        return super().forward(scores * scores, mask, past, query)


class Moved(Softmax):
    def step(self, scores: Tensor, mask: Tensor, past: Past, query: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().step(3 * scores, mask, past, query)


class Drawn(Softmax):
    def sample(self, weights: Tensor, past: Past) -> Tensor:
        return weights.square()


class Doubled(ScaledDot):
    def forward(self, query: Tensor, keys: Tensor, past: Past) -> Tensor:
        return 2 * super().forward(query, keys, past)


class Halved(ScaledDot):
    def dot(self, query: Tensor) -> Tensor | None:
        return query / 2


@pytest.mark.parametrize(
    ("score", "normalize", "fused"),
    [
        (ScaledDot, Squared, False),
        (ScaledDot, type("Heir", (Squared,), {}), False),
        (ScaledDot, Moved, False),
        (ScaledDot, Drawn, False),
        (Doubled, Softmax, False),
        (Halved, Softmax, True),  # of which forward() is made
        (Halved, type("Warm", (Softmax,), {"initial_state": lambda self, zeros: zeros}), True),
    ],
)
def test_the_same_model_whether_or_not_weights_are_asked_for(score, normalize, fused):
    attention = Attention(score(Q, Q), normalize()).double()
    query, memory = random(B, T, Q), attention.remember(random(B, S, Q), MASK)
    asked, unasked = (attention(query, memory, need_weights=need) for need in (True, False))
    assert_close(unasked.context, asked.context)
    assert (unasked.weights is None) == fused


class Counting(ScaledDot):
    """Scores by the number of queries answered so far, and notes how many it was asked at once."""

    stateful = True

    def __init__(self) -> None:
        super().__init__(Q, Q)
        self.asked: list[int] = []

    def forward(self, query: Tensor, keys: Tensor, past: Past) -> Tensor:
        self.asked.append(query.shape[-2])
        return super().forward(query, keys, past) * past.step


def test_a_part_that_looks_back_is_asked_one_by_one():
    scorer = Counting()
    attention = Attention(scorer, Softmax())
    memory = attention.remember(random(B, S, Q), MASK)
    weights = attention(random(B, T, Q), memory).weights
    assert scorer.asked == [1] * T
    assert_close(weights[0, 0], torch.full_like(weights[0, 0], 1 / S))  # no query before the first
    assert MultiHead(1, Q, Q, attention).stateful and not Attention(Dot(Q, Q), Softmax()).stateful


# ---- what is remembered ------------------------------------------------------------------------------


def test_keys_are_made_once_and_values_are_the_states():
    attention = Attention(General(Q, K), Softmax()).double()
    states = random(B, S, K)
    memory = attention.remember(states, MASK)
    assert memory.values is states and memory.mask is MASK
    assert_close(memory.keys, attention.score.project(states))


def test_nothing_stays_on_the_module():
    attention = MultiHead(2, 22, K, Attention(Additive(11, 11), Softmax())).double()
    before = {name: set(vars(module)) for name, module in attention.named_modules()}
    query, one, other = random(B, T, 22), random(B, S, K), random(B, S, K)
    first = attention(query, attention.remember(one, MASK)).context
    attention(query, attention.remember(other, MASK))
    assert torch.equal(attention(query, attention.remember(one, MASK)).context, first)
    assert {name: set(vars(module)) for name, module in attention.named_modules()} == before


def test_a_memory_grows_by_slots():
    attention = Attention(Additive(Q, K), Softmax()).double()
    states, query = random(B, S, K), random(B, T, Q)
    first, rest = (
        attention.remember(states[:, part], MASK[..., part]) for part in (slice(3), slice(3, None))
    )
    grown = first.append(rest)
    assert_close(tuple(grown), tuple(attention.remember(states, MASK)))
    past = attention(query, first).past
    after = attention(query, grown, past)
    assert_close(after.past.coverage, F.pad(past.coverage, (0, 4)) + after.weights.sum(-2))


def test_the_past_forgets_what_nobody_asked_for():
    begun = Past(torch.zeros(B, S), torch.zeros(B, S), 0)
    unseen = begun.then(None, 2)
    assert unseen.weights is unseen.coverage is None and unseen.step == 2
    late = unseen.then(torch.rand(B, T, S), T)
    assert late.coverage is None and late.step == 2 + T


def test_the_normalizer_says_where_the_past_begins():
    class FirstSlot(Softmax):
        def initial_state(self, zeros: Tensor) -> Tensor:
            return F.one_hot(torch.tensor(0), zeros.shape[-1]).expand_as(zeros)

    attention = MultiHead(2, 22, K, Attention(Dot(11, 11), FirstSlot()))
    past = attention.initial_state(attention.remember(torch.randn(B, S, K), MASK))
    assert past.weights.shape == past.coverage.shape == (B, 2, S)
    assert (past.alignment_state[..., 0] == 1).all() and (past.alignment_state[..., 1:] == 0).all()
    assert (past.coverage == 0).all() and past.step == 0


@pytest.mark.parametrize("name", NORMALIZERS)
@pytest.mark.parametrize("heads", [0, 2])
@pytest.mark.parametrize("need_weights", [True, False])
def test_of_no_slots_nothing_is_seen(name, heads, need_weights):
    part = NORMALIZERS[name]
    scores = [(Linear if part.needs_positive else Additive)(Q, Q) for _ in range(part.n_scores)]
    module = Attention(scores[0] if part.n_scores == 1 else MultiScorer(scores), part(Q, heads or 1))
    module = MultiHead(heads, Q * heads, K, module) if heads else module
    states = torch.randn(B, 0, K if heads else Q, requires_grad=True)
    query = torch.randn(B, T, Q * (heads or 1), requires_grad=True)
    memory = module.remember(states, MASK[..., :0])
    context, weights, past, _ = module(query, memory, need_weights=need_weights)
    assert weights.shape == (B, *([heads] if heads else []), T, 0) and past.step == T
    assert_close(context, module.out.bias.expand_as(context) if heads else torch.zeros_like(context))
    context.sum().backward()
    assert (query.grad == 0).all() and states.grad.shape == states.shape
    after = module(query[:, :1], memory, past)
    assert after.past.step == T + 1


# ---- what cannot be ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dot(Q, K), "Dot needs queries and keys of one size, got 11 and 13; use general or additive"),
        (lambda: ScaledDot(Q, K), "ScaledDot needs queries and keys of one size"),
        (lambda: head_size(11, 2), "heads must divide the size: got heads=2 for size=11"),
        (lambda: MultiHead(0, Q, K, Attention(Dot(Q, Q), Softmax())), "got heads=0 for size=11"),
    ],
)
def test_impossible_sizes_are_refused(make, message):
    with pytest.raises(Seq2attnError, match=message):
        make()


def test_a_part_must_say_what_it_does():
    class Idle(Scorer):
        pass

    class Loose(Normalizer):
        pass

    with pytest.raises(NotImplementedError, match=r"Idle must define how it scores: write forward\(\)"):
        Idle()(random(B, T, Q), random(B, S, Q), NO_PAST)
    with pytest.raises(NotImplementedError, match=r"Loose must define how it normalizes: write forward\(\)"):
        Loose()(random(B, T, S), MASK, NO_PAST, random(B, T, Q))


class Wrong(Scorer):
    """Scores by a product, but one of its parts has another shape than it must."""

    def __init__(self, part: str, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = {part: change}

    def made(self, part: str, x: Tensor) -> Tensor:
        return self.change.get(part, lambda same: same)(x)

    def keys(self, states: Tensor) -> Tensor:
        return self.made("keys", states)

    def dot(self, query: Tensor) -> Tensor | None:
        return self.made("dot", query) if "dot" in self.change else None

    def forward(self, query: Tensor, keys: Tensor, past: Past) -> Tensor:
        if "dot" in self.change:
            return super().forward(query, keys, past)
        return self.made("scores", query @ keys.mT)


class WrongWeights(Softmax):
    """Forgets the queries."""

    def step(self, scores: Tensor, mask: Tensor, past: Past, query: Tensor) -> tuple[Tensor, None]:
        return scores.softmax(-1)[..., 0, :], None


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        (
            "scores",
            lambda x: x.mT,
            r"scores of every query and source position, of the shape \(3, 5, 7\); got \(3, 7, 5\)",
        ),
        ("scores", lambda x: x[..., None], r"scores .* \(3, 5, 7\); got \(3, 5, 7, 1\): fix the class"),
        ("scores", lambda x: x[0], r"scores .* \(3, 5, 7\); got \(5, 7\)"),
        (
            "keys",
            lambda x: x.mean(-2),
            r"keys, one for every source position, of the shape \(3, 7, 11\); got \(3, 11\)",
        ),
        (
            "dot",
            lambda x: x[..., 1:],
            r"queries in dot\(\), as wide as the keys, .* \(3, 5, 11\); got \(3, 5, 10\)",
        ),
    ],
)
@pytest.mark.parametrize("need_weights", [True, False])
def test_a_part_of_ones_own_that_gives_another_shape_is_named(part, change, said, need_weights):
    attention = Attention(Wrong(part, change), Softmax()).double()
    query, states = random(B, T, Q), random(B, S, Q)
    with pytest.raises(Seq2attnError, match=f"^Wrong: expected {said}"):
        attention(query, attention.remember(states, MASK), need_weights=need_weights)


def test_so_is_a_normalizer_also_behind_heads_and_several_scorers():
    attention = Attention(Dot(Q, Q), WrongWeights()).double()
    with pytest.raises(Seq2attnError, match=r"^WrongWeights: expected weights .* \(3, 5, 7\); got \(3, 7\)"):
        attention(random(B, T, Q), attention.remember(random(B, S, Q), MASK))
    heads = MultiHead(2, 22, K, Attention(Wrong("scores", lambda x: x.mT), Softmax())).double()
    with pytest.raises(Seq2attnError, match=r"^Wrong: .* \(3, 2, 5, 7\); got \(3, 2, 7, 5\)"):
        heads(random(B, T, 22), heads.remember(random(B, S, K), MASK))
    chunks = Attention(MultiScorer([Dot(Q, Q), Dot(Q, Q)]), MoChA()).double()
    assert chunks(random(B, T, Q), chunks.remember(random(B, S, 2 * Q)[..., :Q], MASK)).weights.shape == (
        B,
        T,
        S,
    )


def test_who_draws_says_so():
    assert [name for name, part in NORMALIZERS.items() if part.samples()] == ["hard"]
    assert Hard().samples() and not Softmax().samples()


def test_shapes_are_types():
    attention = Attention(Dot(Q, Q), Softmax()).double()
    memory = attention.remember(random(B, S, Q), MASK)
    with pytest.raises(Seq2attnError, match=f"queries .* for memories of {B} sources"):
        attention(random(B + 2, T, Q), memory)  # sentences of another batch
    none = attention.remember(random(0, S, Q), MASK[:0])
    for part in (attention, Attention(Dot(Q, Q), NORMALIZERS["monotonic"]()).double()):
        with pytest.raises(Seq2attnError, match=r"queries \(2, 1, 11\) for memories of 0 sources"):
            part(random(2, 1, Q), none)
        with pytest.raises(Seq2attnError, match=rf"queries \(5, 1, 11\) for memories of {B} sources"):
            part(random(5, 1, Q), memory)
    with pytest.raises(TypeCheckError, match=r"parameter 'mask'"):
        attention(random(B, T, Q), memory._replace(mask=MASK.long()))
