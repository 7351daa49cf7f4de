"""The laws of attention, over every scorer and normalizer of the registries, plain and with heads.

Sizes are different primes, so that two swapped sizes cannot agree by luck: 3 sentences, 5 queries, 7 slots,
queries of 11 per head, states of 13. The second sentence is shorter, the last is empty.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from tiny import Fading
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention.attention import Attended, Attention, Normalizer, Past, Scorer, incompatibilities
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import NORMALIZERS, Softmax
from seq2attn.attention.scorers import SCORERS, Several
from seq2attn.attention.state import reorder
from seq2attn.errors import Seq2attnError

LENGTHS = torch.tensor([7, 4, 0])


class Inert(Softmax):
    """A normalizer that follows its past: where it looked last it likes to look again."""

    stateful = True

    def initial_state(self, zeros: Tensor) -> Tensor:
        return zeros + 1

    def step(self, scores: Tensor, mask: Tensor, past: Past, query: Tensor) -> tuple[Tensor, Tensor]:
        weights = self(scores + past.alignment_state.unsqueeze(-2), mask, past, query)
        return weights, weights.squeeze(-2)


# Parts with the options that make them another mechanism; evaluation mode unless a law says otherwise.
# Windows and chunks are smaller than a sentence, or they would be none.
NEAR: dict[str, dict[str, Any]] = {"local_m": {"reach": 1}, "local_p": {"reach": 1}, "mocha": {"width": 2}}
SCORES: dict[str, tuple[type[Scorer], dict[str, Any]]] = {
    **{name: (part, {}) for name, part in SCORERS.items()},
    "fading": (Fading, {}),
}
NORMALIZES: dict[str, tuple[type[Normalizer], dict[str, Any]]] = {
    **{name: (part, NEAR.get(name, {})) for name, part in NORMALIZERS.items()},
    "monotonic expected": (NORMALIZERS["monotonic"], {"hard": False}),
    "mocha expected": (NORMALIZERS["mocha"], {"hard": False, "width": 2}),
    "milk expected": (NORMALIZERS["milk"], {"hard": False}),
    "monotonic zero": (NORMALIZERS["monotonic"], {"hard": False, "exhausted": "zero"}),
    "sigmoid normalized": (NORMALIZERS["sigmoid"], {"normalized": True}),
    "local_p renormalised": (NORMALIZERS["local_p"], {"renormalise": True, "reach": 1}),
    "entmax learned": (NORMALIZERS["entmax"], {"learned": True}),
    "inert": (Inert, {}),
}


def parts_named(*names: str) -> tuple[type[Normalizer], ...]:
    return tuple(NORMALIZERS[name] for name in names)


WINDOWS = parts_named("local_m", "local_p")
SMOOTH = parts_named("softmax", "sum")
NOISY = parts_named("gumbel", "hard", "monotonic", "mocha", "milk")  # in training
ONE_SLOT = parts_named("hardmax", "hard", "monotonic", "mocha", "milk")  # a choice, which has no gradient


class Case(NamedTuple):
    """An attention and what it is asked."""

    module: Attention | MultiHead
    query: Tensor  # (3, 5, 11 per head)
    states: Tensor  # (3, 7, 13)
    mask: Tensor  # (3, 1 or 5, 7)

    def attend(self, need_weights: bool = True) -> Attended:
        memory = self.module.remember(self.states, self.mask)
        return self.module(self.query, memory, need_weights=need_weights)

    def with_(self, **changes: Tensor) -> Attended:
        return self._replace(**changes).attend()

    def single(self) -> "Case":
        """In float32."""
        return Case(self.module.float(), self.query.float(), self.states.float(), self.mask)

    def dropping(self, rate: float) -> "Case":
        self.attention.dropout = rate
        return self

    @property
    def heads(self) -> bool:
        return isinstance(self.module, MultiHead)

    @property
    def attention(self) -> Attention:
        return self.module.attention if self.heads else self.module

    @property
    def normalize(self) -> Normalizer:
        return self.attention.normalize

    @property
    def position_dependent(self) -> bool:
        return self.attention.score.position_dependent or self.normalize.position_dependent

    def nothing(self) -> Tensor:
        """The context of a query that sees nothing: zero, then projected."""
        return self.module.out.bias if self.heads else torch.zeros_like(self.states[0, 0])

    def seen(self, weights: Tensor) -> Tensor:
        """Whether each weight's slot may be seen."""
        return (self.mask.unsqueeze(1) if self.heads else self.mask).expand_as(weights)


def scorer(name: str, width: int, key_size: int) -> tuple[Scorer, int]:
    """For queries of a width; the keys' size is theirs, too, where only things of one size can be compared."""
    part, options = SCORES[name]
    try:
        return part(width, key_size, **options), key_size
    except Seq2attnError:
        return part(width, width, **options), width


def build(score: str, normalize: str, heads: int, width: int = 11) -> Case:
    torch.manual_seed(3)
    normalizer, options = NORMALIZES[normalize]
    pairs = [scorer(score, width, width if heads else 13) for _ in range(normalizer.n_scores)]
    made, sizes = zip(*pairs, strict=True)
    size = 13 if heads else sizes[0]
    both = made[0] if len(made) == 1 else Several(list(made))
    module = Attention(both, normalizer(width, heads or 1, **options))
    if heads:
        module = MultiHead(heads, width * heads, size, module)
    query, states = torch.randn(3, 5, width * (heads or 1)), torch.randn(3, 7, size)
    mask = (torch.arange(7) < LENGTHS[:, None])[:, None]
    return Case(module.double().eval(), query.double(), states.double(), mask)


def sensible() -> Iterator[tuple[Any, ...]]:
    """Every scorer with every normalizer, in turn plain, with one head and with two; the usual ones in all,
    and with them the variants of normalizers. Linear attention also so narrow that its sums are the less."""
    yield from (("linear", "sum", heads, 3) for heads in (0, 1, 2))
    for number, (score, normalize) in enumerate(itertools.product(SCORES, NORMALIZES)):
        parts = SCORES[score][0], NORMALIZES[normalize][0]
        usual = score == "additive" or normalize == "softmax"
        if any(True for _ in incompatibilities(*parts, "target to source")) or not (
            usual or normalize in NORMALIZERS
        ):
            continue
        for heads in (0, 1, 2) if usual else (number % 3,):
            yield score, normalize, heads


@pytest.fixture(params=sensible(), ids=lambda p: "-".join(map(str, p)))
def case(request: pytest.FixtureRequest) -> Case:
    return build(*request.param)


def parts(attended: Attended) -> list[Tensor]:
    """Context, weights, and all tensors that are remembered."""
    return [attended.context, attended.weights, *(part for part in attended.past if isinstance(part, Tensor))]


def scattered(case: Case) -> Case:
    """Each query sees other slots; one sees none."""
    torch.manual_seed(5)
    mask = (torch.rand(3, 5, 7) < 0.6) & case.mask
    mask[0, 2] = False
    return case._replace(mask=mask)


masks = pytest.mark.parametrize("masked", [lambda case: case, scattered], ids=["one mask", "a mask each"])


@masks
def test_many_queries_are_one_by_one(case, masked):
    case = masked(case)
    whole, past, answers = case.attend(), None, []
    for query, mask in zip(case.query.split(1, 1), case.mask.expand(-1, 5, -1).split(1, 1), strict=True):
        memory = case.module.remember(case.states, mask)
        answers.append(case.module(query, memory, past))
        past = answers[-1].past
    assert_close(whole.context, torch.cat([answer.context for answer in answers], -2))
    assert_close(whole.weights, torch.cat([answer.weights for answer in answers], -2))
    assert_close(parts(whole)[2:], parts(answers[-1])[2:])


@masks
def test_nothing_under_the_mask_is_seen_and_rows_sum_to_one(case, masked):
    case = masked(case)
    weights = case.attend().weights
    seen = case.seen(weights)
    assert (weights >= 0).all() and (weights[~seen] == 0).all()
    if not case.normalize.sums_to_one:
        return
    sums, expected = weights.sum(-1), seen.any(-1).double()
    if isinstance(case.normalize, WINDOWS):  # a window may lie where nothing is to be seen
        assert masked is scattered or (sums > 0.5).tolist() == expected.bool().tolist()
        expected = expected * (sums > 0.5)
    assert_close(sums, expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_who_sees_nothing_gets_nothing_and_disturbs_nobody(case, training, need_weights):
    def gradients(case: Case) -> tuple[Tensor, Tensor]:
        parts = case.query.requires_grad_(), case.states.requires_grad_(), *case.module.parameters()
        context = case.attend(need_weights).context.square().sum()
        found = torch.autograd.grad(context, parts, materialize_grads=True)
        assert all(gradient.isfinite().all() for gradient in found)
        return found[:2]

    case = scattered(case)
    case.module.train(training)
    blind = ~case.mask.any(-1)  # one query of the first sentence, all of the last
    context = case.attend(need_weights).context
    assert_close(context[blind], case.nothing().expand_as(context[blind]), rtol=0, atol=0)
    of_query, of_states = gradients(case)
    assert (of_query[blind] == 0).all() and (of_states[2] == 0).all()
    alone = gradients(Case(case.module, *(part[:2].detach().clone() for part in case[1:])))
    if not (training and isinstance(case.normalize, NOISY)):
        assert_close((of_query[:2], of_states[:2]), alone)


def test_padding_changes_nothing(case):
    garbage = case.states.masked_fill(~case.mask.mT, 1e3)
    padded = case.with_(states=F.pad(garbage, (0, 0, 0, 2), value=-9.0), mask=F.pad(case.mask, (0, 2)))
    assert_close(padded.context, case.attend().context)
    assert_close(padded.weights, F.pad(case.attend().weights, (0, 2)))


def test_a_batch_is_a_list_of_sentences(case):
    whole = case.attend()
    for row in range(3):
        alone = Case(case.module, *(part[row : row + 1] for part in case[1:])).attend()
        for part, expected in zip(parts(alone), parts(whole), strict=True):
            assert_close(part, expected[row : row + 1])


def test_sentences_do_not_touch_each_other(case):
    before = case.attend().context
    changed = case.with_(states=case.states.index_fill(0, torch.tensor([1]), 5.0)).context
    assert torch.equal(changed[[0, 2]], before[[0, 2]]) and not torch.allclose(changed[1], before[1])


@pytest.mark.parametrize("index", [[1, 1, 0], [2], [2, 0, 0, 1, 2]])
def test_reordering_commutes_with_attending(case, index):
    index = torch.tensor(index)
    memory = case.module.remember(case.states, case.mask)
    past = case.module(case.query[:, :2], memory).past
    after = reorder(case.module(case.query[:, 2:], memory, past), index)
    before = case.module(case.query[index, 2:], reorder(memory, index), reorder(past, index))
    assert_close(parts(before), parts(after))


def test_hypotheses_share_the_memory_of_their_source(case):
    """Several for each source, with pasts of their own: the same as if each had a copy of it."""
    each = torch.arange(3).repeat_interleave(2)
    query = case.query[each] + torch.linspace(-1, 1, 6)[:, None, None]
    memory = case.module.remember(case.states, case.mask[:, :1])
    copies = reorder(memory, each)
    past = case.module(query[:, :2], copies).past
    for need_weights in (True, False):
        together, each = (case.module(query[:, 2:3], held, past, need_weights) for held in (memory, copies))
        assert_close(together.context, each.context)
        assert together.past.step == each.past.step
        if need_weights:
            assert_close(parts(together), parts(each))


def test_the_past_is_what_happened(case):
    _, weights, past, _ = case.attend()
    assert_close(past.weights, weights[..., -1, :])
    assert_close(past.coverage, weights.sum(-2))
    assert past.step == 5


def test_the_past_matters_to_who_looks_back(case):
    whole = case.attention.score.positive  # its scores are so large that a scan stops where it stands
    chosen = getattr(case.normalize, "hard", False) or isinstance(case.normalize, parts_named("hardmax"))
    if not case.attention.stateful or whole or chosen:
        return  # two queries may well choose the same slot
    memory, query = case.module.remember(case.states, case.mask), case.query[:, 2:3]
    past, begun = case.module(case.query[:, :2], memory).past, case.module.initial_state(memory)
    weights = case.module(query, memory, past).weights[0]
    forgotten = [begun._replace(step=past.step)]
    forgotten += [past._replace(alignment_state=begun.alignment_state)] * case.normalize.stateful
    forgotten += [past._replace(trace=begun.trace)] * (past.trace is not None)
    for other in forgotten:
        assert (case.module(query, memory, other).weights[0] - weights).abs().max() > 1e-6


def test_gradients_are_those_of_the_formula(case):
    query, states = (part[:2, :3, :].detach().requires_grad_() for part in (case.query, case.states))
    mask = torch.tensor([[[True, True, True]], [[True, False, False]]])

    if isinstance(case.normalize, parts_named("hardmax")):
        return  # straight through: the gradient of another function

    def context(query: Tensor, states: Tensor) -> Tensor:
        return case.with_(query=query, states=states, mask=mask).context

    assert torch.autograd.gradcheck(context, (query, states), fast_mode=True)


def test_different_queries_look_differently(case):
    sharp = case.attention.score.positive  # its scores are large, and weights may be 0 or 1
    if isinstance(case.normalize, ONE_SLOT) or (sharp and not isinstance(case.normalize, SMOOTH)):
        return  # two queries may well choose the same slot
    weights = case.attend().weights[:2]  # of sentences that have slots
    first, second = weights[..., 0, :], weights[..., 3, :]
    assert ((first - second).abs().amax(-1) > 1e-6).all()


def test_weights_are_wide_under_autocast(case):
    case = case.single()
    exact = case.attend()
    with torch.autocast("cpu", torch.bfloat16):
        narrow, fused = case.attend(), case.attend(need_weights=False)
    assert narrow.weights.dtype == narrow.past.coverage.dtype == torch.float32
    if isinstance(case.normalize, ONE_SLOT):
        return  # rounding may choose another slot
    assert_close(narrow.weights, exact.weights, atol=0.03, rtol=0)
    for context in (narrow.context, fused.context):
        assert_close(context.float(), exact.context, atol=0.1, rtol=0.1)


def test_weights_are_those_before_dropout(case):
    calm = case.attend()
    case = case.dropping(0.5)
    case.module.train()
    if not isinstance(case.normalize, NOISY):
        assert_close(case.attend().weights, calm.weights)
    for need_weights in (True, False):
        case.module.train()
        assert not torch.allclose(case.attend(need_weights).context[:2], calm.context[:2])
        case.module.eval()
        assert_close(case.attend(need_weights).context, calm.context)


@masks
def test_context_is_the_same_when_nobody_asks_for_weights(case, masked):
    case = masked(case).single()
    parts = case.query.requires_grad_(), case.states.requires_grad_(), *case.module.parameters()
    contexts = [case.attend(need_weights).context for need_weights in (True, False)]
    assert_close(*contexts, atol=1e-5, rtol=0)
    towards = torch.randn_like(contexts[0])
    gradients = [torch.autograd.grad(c, parts, towards, materialize_grads=True) for c in contexts]
    assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_permuting_slots_permutes_weights(case):
    if case.position_dependent:
        return
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    permuted, plain = case.with_(states=case.states[:, order], mask=case.mask[..., order]), case.attend()
    assert_close(permuted.weights, plain.weights[..., order])
    assert_close(permuted.context, plain.context)


def test_a_single_slot_has_all_the_weight(case):
    only = case.with_(states=case.states[:, :1], mask=case.mask[..., :1])
    if case.normalize.sums_to_one:
        assert_close(only.weights[:2], torch.ones_like(only.weights[:2]))
    assert (only.weights[2] == 0).all()


@pytest.mark.parametrize("size", [1, 1e4])
def test_equal_slots_are_looked_at_equally(case, size):
    if case.position_dependent or isinstance(case.normalize, parts_named("hardmax")):
        return  # of equal ones, hardmax takes the first
    weights = case.with_(states=size * case.states[:, :1].expand(-1, 7, -1)).weights
    seen = case.seen(weights).double()
    expected = seen / seen.sum(-1, keepdim=True).clamp(min=1)
    assert_close(weights, expected * weights.sum(-1, keepdim=True))


@pytest.mark.parametrize("need_weights", [True, False])
def test_huge_scores_are_no_nan(case, need_weights):
    case = case.single()._replace(states=(1e4 * case.states).float().requires_grad_())
    context, weights, *_ = case.attend(need_weights)
    assert context.isfinite().all()
    assert torch.autograd.grad(context.sum(), case.states)[0].isfinite().all()
    if weights is not None and case.normalize.sums_to_one:
        assert_close(weights[:2].sum(-1), torch.ones_like(weights[:2, ..., 0]))
