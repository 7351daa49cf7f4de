"""Pooling against the papers' formulas written out, and laws over every scorer and normalizer that may pool.

Sizes are different primes: 3 sentences of 7 slots (the second shorter, the last empty), 5 queries of 11,
states of 13, values of 17.
"""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from seq2attn.attention import Attention, Relative, incompatibilities
from seq2attn.attention.heads import MultiHead, TalkingNormalizer, TalkingScorer
from seq2attn.attention.normalizers import NORMALIZERS, Softmax
from seq2attn.attention.pooling import Hierarchical, Pooling, SpanPooling, penalty
from seq2attn.attention.scorers import SCORERS, Additive, Dot, General, Location, Perceptron, ScaledDot
from seq2attn.errors import Seq2attnError

B, R, S, Q, D, V = 3, 5, 7, 11, 13, 17
MASK = torch.arange(S) < torch.tensor([7, 4, 0])[:, None]
CHOICES = ("hardmax", "hard")  # one slot of several: neither even nor differentiable


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def array(x: Tensor) -> np.ndarray:
    return x.detach().numpy()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def perceptron(queries: int, size: int = D, *, bias: bool = True, zeros: bool = False) -> Pooling:
    return Pooling(Attention(Perceptron(Q, size, bias=bias), Softmax()), queries, Q, zeros=zeros).double()


# ---- laws ------------------------------------------------------------------------------------------------


def may_pool() -> list[tuple[str, str]]:
    return [
        (score, normalize)
        for score, normalize in itertools.product(SCORERS, NORMALIZERS)
        if not list(incompatibilities(SCORERS[score], NORMALIZERS[normalize], "pooling"))
    ]


def attention(score: str, normalize: str) -> tuple[Attention, int]:
    """And the size of the states: that of the queries where only things of one size can be compared."""
    try:
        scorer, size = SCORERS[score](Q, D), D
    except Seq2attnError:
        scorer, size = SCORERS[score](Q, Q), Q
    return Attention(scorer, NORMALIZERS[normalize](Q)).eval(), size


@pytest.fixture(params=may_pool(), ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Pooling, Tensor]:
    """A pooling and states."""
    part, size = attention(*request.param)
    return Pooling(part, R, Q).eval().double(), random(B, S, size)


def test_the_content_scorers_may_pool():
    assert {(score, "softmax") for score in ("additive", "perceptron", "dot", "general")} < set(may_pool())


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


def test_permuting_tokens_permutes_weights(case):
    pooling, states = case
    if pooling.attention.score.position_dependent or pooling.attention.normalize.position_dependent:
        return
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    plain, permuted = pooling(states, MASK), pooling(states[:, order], MASK[:, order])
    assert_close(permuted.context, plain.context)
    assert_close(permuted.weights, plain.weights[..., order])


def test_hops_look_differently(case):
    weights = case[0](case[1], MASK).weights[:1]
    if not isinstance(case[0].attention.score, Location) and not (weights == weights.round()).all():
        assert (weights[:, 0] - weights[:, 3]).abs().max() > 1e-4


def test_gradients_are_those_of_the_formula(case, request):
    if request.node.callspec.params["case"][1] in CHOICES:
        return
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
        for score, normalize in may_pool()
        if score in ("dot", "scaled_dot", "general", "perceptron") and normalize not in CHOICES
    ],
)
def test_queries_of_zeros_take_the_mean(score, normalize):
    part, size = attention(score, normalize)
    if part.normalize.position_dependent:
        return
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


# ---- documents ---------------------------------------------------------------------------------------------

# Two documents of five sentences: an empty one between others and one at the end; and a document of nothing.
WORDS = torch.arange(S) < torch.tensor([[7, 0, 2, 1, 0], [3, 5, 0, 0, 0], [0, 0, 0, 0, 0]])[..., None]


class Mixing(nn.Module):
    """States of sentences with a bias, so that empty sentences do not stay zero."""

    def __init__(self, size: int, to: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, to)
        self.mask = torch.empty(0)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        self.mask = mask
        return torch.tanh(self.layer(states))


def hierarchical(mixing: bool = True) -> tuple[Hierarchical, Tensor]:
    encode = Mixing(2 * D, 17) if mixing else None
    words, sentences = perceptron(2), perceptron(1, 17 if mixing else 2 * D)
    return Hierarchical(words, sentences, encode).double(), random(3, 5, S, D)


@pytest.mark.parametrize("mixing", [True, False])
def test_documents_are_pooled_sentence_by_sentence(mixing):
    module, words = hierarchical(mixing)
    document = module(words, WORDS)
    assert document.words.shape == (3, 5, 2, S) and document.sentences.shape == (3, 1, 5)
    for row in (0, 1):
        real = [n for n in range(5) if WORDS[row, n].any()]
        states = []
        for n in real:
            alone = words[row, n][WORDS[row, n]][None]
            pooled = module.words(alone, torch.ones(alone.shape[:2], dtype=torch.bool))
            assert_close(document.words[row, n][:, WORDS[row, n]], pooled.weights[0])
            states.append(pooled.context.flatten())
        sentences = torch.stack(states)[None]
        sentences = module.encode(sentences, torch.ones(1, len(real))) if mixing else sentences
        pooled = module.sentences(sentences, torch.ones(1, len(real), dtype=torch.bool))
        assert_close(document.vector[row], pooled.context[0, 0])
        assert_close(document.sentences[row, 0, real], pooled.weights[0, 0])
        assert_close(document.sentences[row].sum(), torch.tensor(1.0).double())


def test_empty_sentences_and_documents_count_for_nothing():
    module, words = hierarchical()
    document = module(words.requires_grad_(), WORDS)
    assert torch.equal(module.encode.mask, WORDS.any(-1))
    assert (document.sentences.squeeze(1)[~WORDS.any(-1)] == 0).all() and (
        document.words[~WORDS.any(-1)] == 0
    ).all()
    assert (document.vector[2] == 0).all()
    document.vector.square().sum().backward()
    assert (words.grad[~WORDS] == 0).all() and words.grad.isfinite().all()
    assert (words.grad[WORDS] != 0).any(-1).all()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in module.parameters())


def test_padding_of_documents_changes_nothing():
    module, words = hierarchical()
    garbage = F.pad(words.masked_fill(~WORDS[..., None], 1e3), (0, 0, 0, 2, 0, 3), value=-9.0)
    padded, plain = module(garbage, F.pad(WORDS, (0, 2, 0, 3))), module(words, WORDS)
    assert_close(padded.vector, plain.vector)
    assert_close(padded.words, F.pad(plain.words, (0, 2, 0, 0, 0, 3)))
    assert_close(padded.sentences, F.pad(plain.sentences, (0, 3)))


def test_documents_of_zero_queries_are_means_of_means():
    """The limit of HAN before training: each word counts by one over its sentence's length."""
    module = Hierarchical(perceptron(1, zeros=True), perceptron(1, zeros=True))
    words = random(3, 5, S, D)
    expected = torch.stack([words[0, n][WORDS[0, n]].mean(0) for n in (0, 2, 3)]).mean(0)
    assert_close(module(words, WORDS).vector[0], expected)


# ---- spans -------------------------------------------------------------------------------------------------

SPANS = torch.tensor([[[0, 2], [4, 4], [1, 5], [6, 6]], [[2, 3], [0, 3], [-1, -1], [9, 2]]])
REAL = torch.tensor([[True, True, True, True], [True, True, False, False]])


@pytest.mark.parametrize(("score", "normalize"), may_pool())
def test_spans_are_a_loop_over_spans(score, normalize):
    part, size = attention(score, normalize)
    module = SpanPooling(part, Q, widths=4, width_size=3).double().eval()
    states, values = random(2, S, size), random(2, S, V)
    spans = module(states, SPANS, REAL, values)
    assert spans.weights.shape == (2, 4, 5) and spans.vector.shape == (2, 4, 2 * size + V + 3)
    for row, n in REAL.nonzero().tolist():
        first, last = SPANS[row, n].tolist()
        within = states[row : row + 1, first : last + 1]
        memory = part.remember(within, torch.ones(1, 1, last - first + 1, dtype=torch.bool))
        answer = part(module.pooling.queries[None], memory)
        weights = answer.weights[0, 0]
        looked = weights if answer.sampled is None else answer.sampled[0, 0]
        attended = looked @ values[row, first : last + 1]
        width = module.width.weight[min(last - first, 3)]
        assert_close(spans.weights[row, n], F.pad(weights, (0, 4 - last + first)))
        expected = torch.cat([states[row, first], states[row, last], attended, width])
        assert_close(spans.vector[row, n], expected)
    for part in spans:
        assert (part[~REAL] == 0).all()


def softly(states: Tensor, **options: int) -> SpanPooling:
    return SpanPooling(Attention(Dot(Q, Q), Softmax()), Q, **options).to(states.dtype)


def test_a_high_score_outside_disturbs_no_span():
    """Sums of exp over prefixes, the usual shortcut, lose all that comes after a score of +40."""
    scores = torch.tensor([0.3, 40.0, 0.1, -0.2, 0.4, 0.0, 0.2])
    values = random(1, S, V).float()
    module = SpanPooling(Attention(Dot(1, 1), Softmax()), 1)
    nn.init.ones_(module.pooling.queries)
    spans = torch.tensor([[[2, 4]]])
    pooled = module(scores[None, :, None], spans, torch.tensor([[True]]), values)
    expected = scores[2:5].softmax(-1)
    assert_close(pooled.weights[0, 0], expected)
    assert_close(pooled.attended[0, 0], expected @ values[0, 2:5])
    prefix = (scores - scores.max()).exp().cumsum(0)
    assert (prefix[4] - prefix[1]).item() == 0  # what the shortcut would divide by


@pytest.mark.parametrize("outside", [1e4, -1e4])
def test_gradients_stay_within_the_span(outside):
    states = random(1, S, Q).float()
    states[0, [0, 1, 6]] = outside
    states.requires_grad_()
    softly(states)(states, torch.tensor([[[2, 5]]]), torch.tensor([[True]])).vector.sum().backward()
    assert states.grad.isfinite().all()
    assert (states.grad[0, [0, 1, 6]] == 0).all() and (states.grad[0, 2:6] != 0).any(-1).all()


def test_gradients_of_spans_are_those_of_the_formula():
    states, values = random(2, S, Q).requires_grad_(), random(2, S, V).requires_grad_()
    module = softly(states)
    assert torch.autograd.gradcheck(
        lambda states, values: module(states, SPANS, REAL, values).vector, (states, values), fast_mode=True
    )


def test_what_is_no_span_changes_nothing():
    states = random(2, S, Q)
    module = softly(states)
    plain = module(states, SPANS, REAL)
    alone = module(states[1:], SPANS[1:, :2], REAL[1:, :2])
    assert_close(plain.vector[1:, :2], alone.vector)
    other = module(states, SPANS.masked_fill(~REAL[..., None], 10**6), REAL)
    assert all(torch.equal(one, two) for one, two in zip(plain, other, strict=True))
    assert alone.weights.shape[-1] == 4  # the widest real span, whatever is masked


def test_there_may_be_no_span_at_all():
    states = random(2, S, Q).requires_grad_()
    module = softly(states)
    spans = module(states, SPANS, torch.zeros_like(REAL))
    spans.vector.sum().backward()
    assert (spans.vector == 0).all() and (states.grad == 0).all()
    assert module(states, SPANS[:, :0], REAL[:, :0]).vector.shape == (2, 0, 3 * Q + 20)


def test_the_width_may_be_left_out():
    states = random(2, S, Q)
    spans = softly(states, width_size=0)(states, SPANS, REAL)
    assert spans.vector.shape == (2, 4, 3 * Q)
    assert_close(spans.vector, torch.cat([spans.start, spans.end, spans.attended], -1))


@pytest.mark.parametrize("wrong", [[3, 2], [-1, 2], [5, 7]])
def test_spans_lie_within_the_sentence(wrong):
    states, spans = random(2, S, Q), SPANS.clone()
    spans[1, 0] = torch.tensor(wrong)
    with pytest.raises(Seq2attnError) as error:
        softly(states)(states, spans, REAL)
    assert str(error.value) == (
        f"span 0 of sentence 1 is {wrong}: expected its first and last token, 0 <= first <= last < 7; "
        "set its mask to false if it is none"
    )


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
