"""The CRF against the sum over all labellings, against `torchcrf` where it is installed, and in its limits.

Sizes are different primes: 5 labels, 7 sentences of 0 to 5 tokens in 11 positions at most.
"""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from seq2attn.errors import Seq2attnError
from seq2attn.layers.crf import CRF, Best
from seq2attn.text.tag_schemes import SCHEMES, Span, allowed, constraints, spans

B, T, K = 7, 5, 3
LENGTHS = (5, 3, 0, 1, 4, 2, 5)
MASK = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
BIO = ("O", "B-x", "I-x", "B-y", "I-y")
FREE = "free"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def crf(*may: object, size: int = K) -> CRF:
    """With scores of a size that matters."""
    made = CRF(size, *may).double()
    for scores in made.parameters():
        scores.data.normal_()
    return made


def tagger(scheme: str = "bio", labels: tuple[str, ...] = BIO) -> CRF:
    return crf(*constraints(labels, scheme), size=len(labels))


@pytest.fixture(params=[FREE, "bio", "unreachable"])
def part(request: pytest.FixtureRequest) -> CRF:
    """A CRF in which all is allowed, one of a tag scheme, and one where a label is out of reach."""
    if request.param == "unreachable":
        follow = [[True, False, True], [True, False, True], [False, False, True]]
        return crf([True, False, True], follow, [True, True, True])
    return crf() if request.param == FREE else tagger()


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def emissions(part: CRF) -> Tensor:
    return random(B, T, len(part.start))


# ---- the sum over all labellings ---------------------------------------------------------------------------


def array(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def enumerated(part: CRF, e: np.ndarray) -> dict[tuple[int, ...], float]:
    """s(e, y) of every y that may be, from the definition."""
    start, follow, end = array(part.start), array(part.transition), array(part.end)
    scores = {}
    for y in itertools.product(range(e.shape[1]), repeat=len(e)):
        pairs = list(itertools.pairwise(y))
        if y and not (part.may_start[y[0]] and part.may_end[y[-1]]):
            continue
        if all(part.may_follow[pair] for pair in pairs):
            scores[y] = sum(e[t, k] for t, k in enumerate(y)) + sum(follow[pair] for pair in pairs)
            scores[y] += start[y[0]] + end[y[-1]] if y else 0
    return scores


def log_sum(scores: list[float]) -> float:
    top = max(scores)
    return top + float(np.log(np.exp(np.array(scores) - top).sum()))


def sentences(part: CRF, e: Tensor) -> list[dict[tuple[int, ...], float]]:
    return [enumerated(part, array(row[:n])) for row, n in zip(e, LENGTHS, strict=True)]


def test_log_partition_is_the_sum_over_all_labellings(part):
    e = emissions(part)
    log_z = part.log_partition(e, MASK)
    assert_close(log_z, torch.tensor([log_sum(list(s.values())) for s in sentences(part, e)]).double())


def test_cost_is_minus_log_probability_of_the_labels(part):
    e = emissions(part)
    every = sentences(part, e)
    for choice in range(4):
        labels, expected = torch.full((B, T), -100), []
        for row, scores in enumerate(every):
            y, score = list(scores.items())[choice * 7 % len(scores)]
            labels[row, : len(y)] = torch.tensor(y)
            expected.append(log_sum(list(scores.values())) - score)
        assert_close(part(e, labels, MASK), torch.tensor(expected).double())


def test_probabilities_of_all_labellings_sum_to_one(part):
    size = len(part.start)
    every = torch.cartesian_prod(*[torch.arange(size)] * 4)
    e, mask = random(1, 4, size).expand(len(every), -1, -1), torch.ones(len(every), 4, dtype=torch.bool)
    p = (part.score(e, every, mask) - part.log_partition(e, mask)).exp()
    assert_close(p.sum(), torch.tensor(1.0).double())
    assert (p > 0).sum() == len(enumerated(part, array(e[0])))


def test_marginals_are_the_sums_over_all_labellings(part):
    e = emissions(part)
    expected = np.zeros(e.shape)
    for row, scores in enumerate(sentences(part, e)):
        z = log_sum(list(scores.values()))
        for y, score in scores.items():
            expected[row, range(len(y)), list(y)] += np.exp(score - z)
    with torch.inference_mode():
        assert_close(part.marginals(e, MASK), torch.tensor(expected))


def test_marginals_are_the_gradient(part):
    e = emissions(part).requires_grad_()
    (gradient,) = torch.autograd.grad(part.log_partition(e, MASK).sum(), e)
    assert_close(part.marginals(e, MASK), gradient)


def test_the_best_labels_are_the_best_of_all(part):
    e = emissions(part)
    with torch.inference_mode():
        best = part.decode(e, MASK)
    assert isinstance(best, Best) and best.labels.shape == (B, T)
    for row, scores in enumerate(sentences(part, e)):
        y = max(scores, key=scores.__getitem__)
        assert best.labels[row].tolist() == [*y, *[0] * (T - len(y))]
        assert float(best.log_probability[row]) == pytest.approx(scores[y] - log_sum(list(scores.values())))


def test_allowed_labels_restrict_the_sum(part):
    e, may = emissions(part), torch.rand(B, T, len(part.start)) < 0.7
    log_z, expected = part.log_partition(e, MASK, may), []
    for row, scores in enumerate(sentences(part, e)):
        left = [s for y, s in scores.items() if all(may[row, t, k] for t, k in enumerate(y))]
        expected.append(log_sum(left) if left else -np.inf)
    assert_close(log_z, torch.tensor(expected).double())
    assert_close(part.probability(e, MASK, may), (log_z - part.log_partition(e, MASK)).exp())
    assert_close(part.probability(e, MASK, torch.ones_like(may)), torch.ones(B).double())


@pytest.mark.parametrize("scheme", ["bio", "bioes", "bioul"])
def test_the_probability_of_an_entity_is_that_of_all_labellings_which_have_it(scheme):
    first, inside, last, only = SCHEMES[scheme][:4]
    labels = tuple(
        dict.fromkeys(["O", *(f"{letter}-x" for letter in (first, inside, last, only)), f"{only}-y"])
    )
    part = tagger(scheme, labels)
    e = random(4, len(labels))
    scores = enumerated(part, array(e))
    z = log_sum(list(scores.values()))
    all_spans = [
        Span("x", 0, 1),
        Span("x", 1, 3),
        Span("x", 2, 4),
        Span("x", 0, 4),
        Span("y", 3, 4),
        Span("y", 1, 2),
    ]
    may = torch.tensor([allowed(span, 4, labels, scheme) for span in all_spans])
    mask = torch.ones(len(all_spans), 4, dtype=torch.bool)
    with torch.inference_mode():
        probabilities = part.probability(e.expand(len(all_spans), -1, -1), mask, may)
    for span, p in zip(all_spans, probabilities.tolist(), strict=True):
        having = [s for y, s in scores.items() if span in spans([labels[k] for k in y], scheme)]
        assert p == pytest.approx(np.exp(log_sum(having) - z)) and 0 < p < 1


# ---- another implementation --------------------------------------------------------------------------------


def test_as_torchcrf():
    torchcrf = pytest.importorskip("torchcrf")
    size, length = 11, 13
    part, theirs = crf(size=size), torchcrf.CRF(size, batch_first=True).double()
    theirs.start_transitions.data = part.start.data
    theirs.end_transitions.data = part.end.data
    theirs.transitions.data = part.transition.data
    e, labels = random(3, length, size), torch.randint(size, (3, length))
    mask = torch.arange(length) < torch.tensor([13, 7, 1])[:, None]  # theirs needs a token
    assert_close(part(e, labels, mask), -theirs(e, labels, mask, reduction="none"))
    best = part.decode(e, mask).labels
    assert [row[there].tolist() for row, there in zip(best, mask, strict=True)] == theirs.decode(e, mask)


# ---- gradients ---------------------------------------------------------------------------------------------


def legal(part: CRF) -> Tensor:
    return part.decode(random(B, T, len(part.start)), MASK).labels


def test_gradients(part):
    e, labels = emissions(part).requires_grad_(), legal(part)
    assert torch.autograd.gradcheck(lambda *_: part(e, labels, MASK), (e, *part.parameters()))


def test_gradients_where_nothing_is_possible_are_zero():
    part, e = tagger(), random(2, T, 5).requires_grad_()
    may = torch.ones(2, T, 5, dtype=torch.bool)
    may[0, 2] = False  # no label at all
    may[1, 0] = may[1, 1] = torch.tensor([True, False, False, False, False])
    may[1, 2] = torch.tensor([False, False, True, False, False])  # I-x after O
    log_z = part.log_partition(e, torch.ones(2, T, dtype=torch.bool), may)
    assert (log_z == -torch.inf).all()
    log_z.sum().backward()
    assert (e.grad == 0).all() and all((scores.grad == 0).all() for scores in part.parameters())


def test_an_empty_sentence_costs_nothing_and_teaches_nothing(part):
    e, labels = emissions(part).requires_grad_(), legal(part)
    cost = part(e, labels, MASK)
    assert cost[2] == 0 and (cost[MASK.any(1)] > 0).all()
    cost.sum().backward()
    assert (e.grad[~MASK] == 0).all() and (e.grad[MASK] != 0).any()
    before = [scores.grad.clone() for scores in part.parameters()]
    part.zero_grad()
    rest = torch.tensor([0, 1, 3, 4, 5, 6])
    part(e[rest], labels[rest], MASK[rest]).sum().backward()
    assert_close([scores.grad for scores in part.parameters()], before)
    assert part.decode(e, MASK).log_probability[2] == 0 and (part.marginals(e, MASK)[2] == 0).all()


def test_no_positions_at_all(part):
    e, mask = random(2, 0, len(part.start)).requires_grad_(), torch.ones(2, 0, dtype=torch.bool)
    cost = part(e, torch.zeros(2, 0, dtype=torch.long), mask)
    cost.sum().backward()
    assert cost.tolist() == [0, 0] and all((scores.grad == 0).all() for scores in part.parameters())
    assert part.decode(e, mask).labels.shape == (2, 0) and part.marginals(e, mask).shape == e.shape


def test_what_may_not_be_is_not_learnt():
    part = tagger()
    part(emissions(part), legal(part), MASK).sum().backward()
    assert (part.transition.grad[~part.may_follow] == 0).all()
    assert (part.transition.grad[part.may_follow] != 0).all()


# ---- laws --------------------------------------------------------------------------------------------------


def test_a_sentence_is_labelled_as_if_alone_whatever_is_on_padding(part):
    e, labels = emissions(part), legal(part)
    e[~MASK] = 1e30
    labels[~MASK] = 999
    e, labels, mask = F.pad(e, (0, 0, 0, 2), value=-9.0), F.pad(labels, (0, 2), value=-1), F.pad(MASK, (0, 2))
    cost, best, marginals = part(e, labels, mask), part.decode(e, mask), part.marginals(e, mask)
    assert (best.labels[~mask] == 0).all() and (marginals[~mask] == 0).all()
    for row, n in enumerate(LENGTHS):
        alone = e[row : row + 1, :n], mask[row : row + 1, :n]
        assert_close(part(alone[0], labels[row : row + 1, :n], alone[1])[0], cost[row])
        assert_close(part.decode(*alone).log_probability[0], best.log_probability[row])
        assert part.decode(*alone).labels[0].tolist() == best.labels[row, :n].tolist()
        assert_close(part.marginals(*alone)[0], marginals[row, :n])


def test_the_best_labels_keep_to_their_scheme_even_if_the_words_do_not():
    for scheme in SCHEMES:
        labels = tuple(
            dict.fromkeys(f"{letter}-{kind}" for kind in "xy" for letter in SCHEMES[scheme] if letter)
        )
        part = tagger(scheme, ("O", *labels))
        e = 30 * random(17, 11, len(labels) + 1)
        best = part.decode(e, torch.ones(17, 11, dtype=torch.bool))
        for row in best.labels.tolist():
            spans([("O", *labels)[k] for k in row], scheme)


def test_a_constant_for_all_labels_of_a_token_changes_nothing(part):
    e, labels = emissions(part), legal(part)
    assert_close(part(e + 100 * random(B, T, 1), labels, MASK), part(e, labels, MASK))


def test_long_and_steep_sentences_stay_exact():
    """In float32: scores in the hundreds, where sums of exp() without a logarithm would drown."""
    part, length = tagger(), 601
    e, mask = 300 * random(3, length, 5), torch.ones(3, length, dtype=torch.bool)
    labels = part.decode(random(3, length, 5), mask).labels
    exact, marginals = part(e, labels, mask), part.marginals(e, mask)
    part.float()
    assert_close(part(e.float(), labels, mask).double(), exact, rtol=1e-5, atol=0)
    assert_close(part.marginals(e.float(), mask).double(), marginals, rtol=0, atol=0.05)
    assert_close(part.marginals(e.float(), mask).sum(-1), torch.ones(3, length), rtol=1e-5, atol=0)


def test_sums_are_float32_under_autocast():
    part = tagger().float()
    e, labels = torch.randn(B, T, 5), legal(tagger())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = e.bfloat16().requires_grad_()
        cost = part(low, labels, MASK)
        cost.sum().backward()
        assert part.marginals(low, MASK).dtype == torch.float32
    assert cost.dtype == torch.float32 and low.grad.dtype == torch.bfloat16
    assert_close(cost, part(e.bfloat16().float(), labels, MASK))


def test_it_learns():
    part = CRF(5, *constraints(BIO, "bio"))
    words = torch.randint(3, (29, T))
    gold = part.decode(F.one_hot(words, 5) * 9.0, torch.ones(29, T, dtype=torch.bool)).labels
    table = torch.nn.Embedding(3, 5)
    optimizer = torch.optim.Adam([*part.parameters(), *table.parameters()], lr=0.1)
    mask = torch.arange(T) < torch.randint(1, T + 1, (29, 1))
    for _ in range(60):
        cost = part(table(words), gold, mask).mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
    assert (part.decode(table(words), mask).labels == gold)[mask].float().mean() > 0.9


def test_constraints_are_no_part_of_a_checkpoint():
    assert set(tagger().state_dict()) == {"start", "transition", "end"}
    assert {name for name, _ in tagger().named_buffers()} == {"may_start", "may_follow", "may_end"}


# ---- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [[True, False, True, False, False], [False, True, True, True, True]])
def test_a_mask_with_a_hole_is_an_error(mask):
    part, masks = crf(), torch.tensor([[True] * T, mask])
    calls = [
        lambda: part(random(2, T, K), torch.zeros(2, T, dtype=torch.long), masks),
        lambda: part.decode(random(2, T, K), masks),
        lambda: part.marginals(random(2, T, K), masks),
    ]
    for call in calls:
        with pytest.raises(Seq2attnError, match="mask of sentence 1 has a hole, or padding before tokens"):
            call()


@pytest.mark.parametrize(
    "labels, message",
    [
        ((0, 2, 0), r"token 1 of sentence 1 has label 2, which may not follow label 0: .* repair the tags"),
        ((2, 2, 0), "token 0 of sentence 1 has label 2, which may not come first"),
        ((1, 2, 4), "token 2 of sentence 1 has label 4, which may not follow label 2"),
        ((1, 2, 5), "token 2 of sentence 1 has label 5: expected one of 0 ... 4"),
        ((1, -1, 0), "token 1 of sentence 1 has label -1: expected one of 0 ... 4"),
    ],
)
def test_labels_that_cannot_be_are_an_error(labels, message):
    y = torch.tensor([[0, 0, 0, 2, 9], [*labels, 2, 9]])
    mask = torch.arange(T) < 3
    with pytest.raises(Seq2attnError, match=message):
        tagger()(random(2, T, 5), y, mask.expand(2, -1))


def test_a_last_label_that_may_not_end_is_an_error():
    part = tagger("bioes", ("O", "B-x", "I-x", "E-x", "S-x"))
    with pytest.raises(Seq2attnError, match="token 1 of sentence 0 has label 1, which may not come last"):
        part(random(1, 3, 5), torch.tensor([[0, 1, 0]]), torch.tensor([[True, True, False]]))
    score = part.score(random(1, 3, 5), torch.tensor([[0, 1, 0]]), torch.tensor([[True, True, False]]))
    assert score.tolist() == [-np.inf]


def test_constraints_that_leave_nothing_are_an_error():
    part = crf([True, False, False], [[False, True, False]] * 3, [False, False, True])
    with pytest.raises(Seq2attnError, match=r"no labels of sentence 0 \(5 tokens\) keep to the constraints"):
        part.decode(random(B, T, K), MASK)


def test_constraints_of_a_wrong_size_are_an_error():
    with pytest.raises(
        Seq2attnError, match=r"constraints 'start' of a CRF are bools \(3,\), .* got torch.bool \(2,\)"
    ):
        CRF(3, [True, False])
    with pytest.raises(
        Seq2attnError, match=r"'transition' of a CRF are bools \(3, 3\), True = allowed, got torch.float32"
    ):
        CRF(3, transition=torch.zeros(3, 3))
