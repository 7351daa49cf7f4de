"""The addressing of the Neural Turing Machine against its paper's equations, written out in NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention, Past
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import NTM, Softmax
from seq2attn.attention.scorers import Additive
from seq2attn.attention.state import reorder
from seq2attn.errors import Seq2attnError
from seq2attn.recipe import AttentionRecipe

B, T, S, Q = 3, 5, 7, 11
LENGTHS = torch.tensor([7, 4, 1])
MASK = (torch.arange(S) < LENGTHS[:, None])[:, None]
FAR = 1e3  # a logit that leaves nothing to the others


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def standing(alignment_state: Tensor) -> Past:
    return Past(None, None, 0, alignment_state)


def run(normalize: NTM, scores: Tensor, mask: Tensor, query: Tensor, past: Past | None = None) -> Tensor:
    """The weights of all queries (B, T, S)."""
    past = past or standing(normalize.initial_state(torch.zeros_like(scores[:, 0])))
    answers = []
    for t in range(scores.shape[1]):
        now = slice(t, t + 1)
        seen = mask if mask.shape[1] == 1 else mask[:, now]
        weights, alignment_state = normalize.step(scores[:, now], seen, past, query[:, now])
        past = past.then(weights, 1, alignment_state)
        answers.append(weights)
    return torch.cat(answers, 1)


def fixed(gate: float, shift: list[float], gamma: float, **options: bool) -> NTM:
    """One that does the same at every query: these logits for gate and shift, this power."""
    normalize = NTM(Q, shifts=len(shift) // 2, **options).double()
    with torch.no_grad():
        for part in normalize.parameters():
            part.zero_()
        normalize.gate.bias.fill_(gate)
        normalize.shift.bias.copy_(torch.tensor(shift))
        softplus = gamma - 1  # whose inverse is the bias
        normalize.sharpen.bias.fill_(np.log(np.expm1(softplus)) if softplus else -FAR)
    return normalize


def standing_at(*places: int, length: int = S) -> Past:
    return standing(F.one_hot(torch.tensor(places), length).double())


# ---- the equations -----------------------------------------------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max())
    return x / x.sum()


@pytest.mark.parametrize(("shifts", "circular"), [(1, True), (2, True), (1, False), (3, False), (0, True)])
def test_every_stage_is_the_papers(shifts, circular):
    normalize = NTM(Q, shifts=shifts, circular=circular).double()
    scores, query = random(B, T, S), random(B, T, Q)
    weights = run(normalize, scores, MASK, query)
    w, b = ([part[name].numpy() for part in map(dict, _parts(normalize))] for name in ("weight", "bias"))
    for row, length in enumerate(LENGTHS.tolist()):
        last = np.eye(length)[0]
        for t in range(T):
            q = query[row, t].numpy()
            gate, chances, sharp = (w[i] @ q + b[i] for i in range(3))
            gate, chances, gamma = sigmoid(gate[0]), softmax(chances), 1 + np.log1p(np.exp(sharp[0]))
            gated = gate * softmax(scores[row, t, :length].numpy()) + (1 - gate) * last
            moved = np.zeros(length)
            for j in range(length):
                for offset in range(-shifts, shifts + 1):
                    if circular or 0 <= j + offset < length:
                        moved[(j + offset) % length] += gated[j] * chances[offset + shifts]
            last = moved**gamma / (moved**gamma).sum()
            assert_close(weights[row, t, :length].detach(), torch.from_numpy(last))
    assert (weights[~MASK.expand_as(weights)] == 0).all()


def _parts(normalize: NTM) -> list[list[tuple[str, Tensor]]]:
    stages = normalize.gate, normalize.shift, normalize.sharpen
    return [[(name, part.detach()) for name, part in stage.named_parameters()] for stage in stages]


def test_content_alone_is_a_softmax():
    scores, query = random(B, T, S), random(B, T, Q)
    alone = run(fixed(FAR, [-FAR, 0, -FAR], 1.0), scores, MASK, query)
    assert_close(alone, Softmax()(scores, MASK, standing(scores[:, 0]), query))


def test_sharpening_a_softmax_multiplies_its_logits():
    scores, query = random(B, T, S), random(B, T, Q)
    sharp = run(fixed(FAR, [-FAR, 0, -FAR], 3.0), scores, MASK, query)
    assert_close(sharp, Softmax()(3 * scores, MASK, standing(scores[:, 0]), query))


@pytest.mark.parametrize(
    ("shift", "ends"),
    [([-FAR, -FAR, 0.0], 3), ([0.0, -FAR, -FAR], 1), ([-FAR, 0.0, -FAR], 2)],
)
def test_a_shift_goes_where_the_paper_says(shift, ends):
    """Offset +1 goes to the next slot; what deep learning calls a convolution would go back."""
    weights = run(
        fixed(-FAR, shift, 1.0), random(1, 1, S), MASK[:1], random(1, 1, Q), standing_at(2)
    ).squeeze()
    assert_close(weights, torch.eye(S, dtype=torch.float64)[ends])
    kernel = torch.tensor(shift).softmax(-1)[None, None]
    wrong = F.conv1d(torch.eye(S)[2][None, None], kernel, padding=1).squeeze().argmax().item()
    assert wrong == 4 - ends  # cross-correlation: the other way round


def test_a_ring_closes_at_each_rows_own_length():
    forward, back = [-FAR, -FAR, 0.0], [0.0, -FAR, -FAR]
    scores, query = random(B, T, S), random(B, T, Q)
    there = run(fixed(-FAR, forward, 1.0), scores, MASK, query).argmax(-1).tolist()
    assert there == [[1, 2, 3, 4, 5], [1, 2, 3, 0, 1], [0, 0, 0, 0, 0]]
    again = run(fixed(-FAR, back, 1.0), scores, MASK, query).argmax(-1).tolist()
    assert again == [[6, 5, 4, 3, 2], [3, 2, 1, 0, 3], [0, 0, 0, 0, 0]]


def test_without_a_ring_what_leaves_is_lost_and_the_rest_sums_to_one():
    normalize = fixed(-FAR, [-FAR, 0.0, 0.0], 1.0, circular=False)  # half stays, half goes on
    alignment_state = torch.tensor([[0, 0, 0.5, 0.5, 0, 0, 0]], dtype=torch.float64)
    query, scores = random(1, 1, Q), random(1, 1, S)
    weights = run(normalize, scores, MASK[1:2], query, standing(alignment_state))
    assert_close(weights, torch.tensor([[[0, 0, 1 / 3, 2 / 3, 0, 0, 0]]], dtype=torch.float64))
    ring = run(fixed(-FAR, [-FAR, 0.0, 0.0], 1.0), scores, MASK[1:2], query, standing(alignment_state))
    assert_close(ring, torch.tensor([[[0.25, 0, 0.25, 0.5, 0, 0, 0]]], dtype=torch.float64))


def test_the_gate_keeps_what_was():
    scores, query = random(B, 4, S), random(B, 4, Q)
    stays = run(fixed(-FAR, [-FAR, 0.0, -FAR], 1.0), scores, MASK, query)
    assert (stays[..., 0] == 1).all()
    half = run(fixed(0.0, [-FAR, 0.0, -FAR], 1.0), scores, MASK, query)
    content = scores[0].softmax(-1)
    assert_close(half[0, 1], content[1] / 2 + content[0] / 4 + torch.eye(S, dtype=torch.float64)[0] / 4)


# ---- what holds for all ------------------------------------------------------------------------------


def test_a_recipe_cannot_ask_for_shifts_beyond_all_sentences():
    attention = {"score": "cosine", "normalize": {"name": "ntm", "shifts": 101}}
    with pytest.raises(ValidationError, match="expected at most 100, got 101"):
        AttentionRecipe.model_validate(attention)
    attention["normalize"]["shifts"] = 100
    assert AttentionRecipe.model_validate(attention)


MAKE = {"ring": lambda: NTM(Q), "line": lambda: NTM(Q, circular=False), "wide": lambda: NTM(Q, shifts=9)}
every = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def gaps() -> Tensor:
    mask = (torch.rand(B, T, S) < 0.6) & MASK
    mask[0, 2] = False
    mask[2] = False
    return mask


@every
def test_a_mask_with_gaps_hides_and_rows_sum_to_one(make):
    mask, normalize = gaps(), make().double()
    weights = run(normalize, random(B, T, S), mask, random(B, T, Q))
    assert (weights >= 0).all() and (weights[~mask] == 0).all()
    assert_close(weights.sum(-1), mask.any(-1).double())


@every
def test_who_sees_nothing_stays_and_has_no_gradient(make):
    mask, normalize = gaps(), make().double()
    scores, query = random(B, T, S).requires_grad_(), random(B, T, Q).requires_grad_()
    weights = run(normalize, scores, mask, query)
    found = torch.autograd.grad(weights.square().sum(), (scores, query))
    blind = ~mask.any(-1)
    assert all((g[blind] == 0).all() and g.isfinite().all() for g in found)
    shorter = [part[:1, [0, 1, 3, 4]] for part in (scores, mask, query)]
    assert_close(run(normalize, *shorter), weights[:1, [0, 1, 3, 4]])


@every
def test_sentences_and_pads_do_not_matter_to_each_other(make):
    normalize, scores, query = make().double(), random(B, T, S), random(B, T, Q)
    weights = run(normalize, scores, MASK, query)
    for b, length in enumerate(LENGTHS.tolist()):
        one = slice(b, b + 1)
        alone = run(normalize, scores[one, :, :length], MASK[one, :, :length], query[one])
        assert_close(alone, weights[one, :, :length])
    assert_close(run(normalize, scores.masked_fill(~MASK, 1e4), MASK, query), weights)


@every
def test_gradients_are_exact(make):
    normalize, mask = make().double(), MASK[..., :4].clone()
    mask[0, 0, 1] = False
    scores, query = random(B, 3, 4).requires_grad_(), random(B, 3, Q).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, q: run(normalize, s, mask, q), (scores, query), fast_mode=True)
    run(normalize, scores, mask, query).square().sum().backward()
    assert all((p.grad != 0).any() for p in normalize.parameters())


@every
def test_extremes_are_finite(make):
    for size, shift in ((1e4, 0.0), (0.0, 1e4), (0.0, -1e4)):
        normalize = make()
        scores = (size * torch.randn(B, T, 97) + shift).requires_grad_()
        query = (30 * torch.randn(B, T, Q)).requires_grad_()  # a saturated gate, and a steep power
        mask = torch.arange(97) < torch.tensor([97, 40, 1])[:, None, None]
        weights = run(normalize, scores, mask, query)
        assert_close(weights.sum(-1), torch.ones(B, T))
        found = torch.autograd.grad(weights.square().sum(), (scores, query, *normalize.parameters()))
        assert all(g.isfinite().all() for g in found)


def test_a_power_of_tiny_weights_does_not_underflow():
    scores = torch.tensor([[[0.0, -60.0, -61.0]]])
    normalize = fixed(FAR, [-FAR, 0.0, -FAR], 40.0).float()
    seen = torch.tensor([[[False, True, True]]])
    weights = run(normalize, scores, seen, torch.zeros(1, 1, Q))
    assert_close(weights, torch.tensor([[[0.0, 1.0, 0.0]]]))
    alignment_state = torch.tensor([[1e-30, 3e-30, 0.0]])  # its 40th power is 0 in float32
    stays = fixed(-FAR, [-FAR, 0.0, -FAR], 1.5).float()
    weights = run(
        stays, scores, torch.ones(1, 1, 3, dtype=torch.bool), torch.zeros(1, 1, Q), standing(alignment_state)
    )
    assert_close(weights[0, 0, 1] / weights[0, 0, 0], torch.tensor(3.0) ** 1.5)


def test_the_past_matters_and_the_future_does_not():
    normalize, scores, query = NTM(Q).double(), random(B, T, S), random(B, T, Q)
    weights = run(normalize, scores, MASK, query)
    for changed, moved in ((T - 1, False), (0, True)):
        other = query.clone()
        other[:, changed] += 1
        again = run(normalize, scores, MASK, other)
        assert torch.equal(again[:, 1:-1], weights[:, 1:-1]) != moved
        assert not torch.allclose(again[0, changed], weights[0, changed])


def test_in_heads_step_by_step_and_reordered():
    heads = MultiHead(2, 22, 13, Attention(Additive(11, 11), NTM(11, 2))).double()
    query, memory = random(B, T, 22), heads.remember(random(B, S, 13), MASK)
    whole = heads(query, memory)
    assert_close(whole.past.alignment_state, whole.weights[..., -1, :])
    past = heads(query[:, :2], memory).past
    rest = heads(query[:, 2:], memory, past)
    assert_close(rest.weights, whole.weights[:, :, 2:])
    index = torch.tensor([1, 1, 0])
    again = heads(query[index, 2:], reorder(memory, index), reorder(past, index))
    assert_close(again.weights, rest.weights[index])


def test_who_has_no_place_is_told_where_to_begin():
    past = Past(None, None, 0)
    with pytest.raises(
        Seq2attnError, match=r"NTM needs the alignment state of the last query, .* start with Attention"
    ):
        run(NTM(Q), torch.randn(B, 1, S), MASK, torch.randn(B, 1, Q), past)
