"""Losses of attention weights: by hand, by the gradient and by enumeration; and their factors."""

import itertools

import pytest
import tiny
import torch
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Past
from seq2attn.attention.normalizers import Softmax
from seq2attn.errors import Seq2attnError
from seq2attn.models.decoders import Decoded, PointerGenerator
from seq2attn.training.objectives import (
    AttentionLosses,
    coverage,
    doubly_stochastic,
    entropy,
    guided,
    reinforce,
)

B, T, V = 3, 5, 17
MASK = torch.arange(T) < torch.tensor([5, 2, 0])[:, None]


# ---- of weights -------------------------------------------------------------------------------------

S = 7
SOURCES = torch.arange(S) < torch.tensor([7, 4, 1])[:, None]


def looks(seed: int = 1) -> Tensor:
    """Weights (B, T, S) in float64 that learn."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(B, T, S, generator=generator, dtype=torch.float64)
    return scores.masked_fill(~SOURCES[:, None], float("-inf")).softmax(-1).requires_grad_()


def test_coverage_is_what_a_loop_computes():
    weights, expected = looks(), 0.0
    for b, t, s in itertools.product(range(B), range(T), range(S)):
        if MASK[b, t]:
            expected += min(weights[b, t, s].item(), weights[b, :t, s].sum().item())
    assert coverage(weights, MASK).item() == pytest.approx(expected)


def test_coverage_counts_what_was_looked_at_before():
    """The usual mistake has the weights of the step itself in the sum: a constant 1, with no gradient."""
    once, again = torch.eye(4)[None], torch.eye(4)[:1].expand(1, 4, 4)
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert coverage(once, mask) == 0  # every slot once
    assert coverage(again, mask) == 3  # one slot four times: the first look is free
    weights = looks()
    coverage(weights, MASK).backward()
    assert weights.grad.unique().numel() > 1
    assert coverage(weights[:, :1], MASK[:, :1]) == 0


def test_doubly_stochastic_by_hand():
    weights = torch.tensor([[[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]])
    both, first = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    source = torch.tensor([[True, True, False]])
    assert doubly_stochastic(weights, both, source) == 0.25**2 + 0.25**2  # what is padding owes nothing
    assert doubly_stochastic(weights, first, source) == 0.5**2 + 0.5**2
    assert doubly_stochastic(torch.eye(3)[None], torch.ones(1, 3).bool(), torch.ones(1, 3).bool()) == 0


def test_guided_is_what_a_loop_computes_and_zero_on_the_links():
    weights = looks()
    links = torch.rand(B, T, S, generator=torch.Generator().manual_seed(3)) < 0.3
    links &= SOURCES[:, None]
    expected = 0.0
    for b, t in itertools.product(range(B), range(T)):
        if MASK[b, t] and links[b, t].any():
            expected -= weights[b, t][links[b, t]].log().mean().item()
    assert guided(weights, links, MASK).item() == pytest.approx(expected)
    assert guided(weights, links.double(), MASK).item() == pytest.approx(expected)
    assert guided(weights, torch.zeros_like(links), MASK) == 0
    one = torch.eye(S)[None, :T].expand(B, T, S)
    assert guided(one, one.bool(), MASK) == 0


def test_guided_by_weights_that_vanish_is_finite_and_still_learns():
    scores = torch.tensor([[[0.0, 130.0, 200.0]]], requires_grad=True)
    links = torch.tensor([[[True, True, False]]])
    loss = guided(scores.softmax(-1), links, torch.tensor([[True]]))
    loss.backward()
    assert (
        loss.isfinite() and scores.grad.isfinite().all() and scores.grad[0, 0, 1] < 0 < scores.grad[0, 0, 2]
    )


def test_entropy_and_its_gradient():
    weights = looks()
    expected = torch.distributions.Categorical(probs=weights[MASK] + 1e-300).entropy().sum()
    assert_close(entropy(weights, MASK), expected)
    assert entropy(torch.eye(S)[None, :T].expand(B, T, S), MASK) == 0  # 0 log 0
    heads = torch.stack([weights, weights.flip(1)], 1)  # (B, H, T, S)
    assert_close(entropy(heads, MASK), expected + entropy(weights.flip(1), MASK))
    scores = torch.randn(3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: entropy(x.softmax(-1)[None, None], torch.tensor([[True]])), scores
    )


@pytest.mark.parametrize("baseline", [0.0, -2.5, 7.0])
def test_reinforcing_climbs_the_expected_reward_whatever_the_baseline(baseline):
    """All draws of two steps over three slots, each with its probability."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    mask, every = torch.tensor([[True, True]]), list(itertools.product(range(3), repeat=2))
    rewards = dict(zip(every, torch.randn(9, generator=generator, dtype=torch.float64), strict=True))
    weights = scores.softmax(-1)
    chances = {d: weights[0, d[0]] * weights[1, d[1]] for d in every}
    (slope,) = torch.autograd.grad(sum(chances[d] * rewards[d] for d in every), scores, retain_graph=True)
    estimate = torch.zeros_like(scores)
    for d in every:
        drawn = torch.eye(3, dtype=torch.float64)[list(d)][None]
        loss = reinforce(weights[None], drawn, (rewards[d] - baseline)[None], mask)
        estimate += chances[d].detach() * torch.autograd.grad(loss, scores, retain_graph=True)[0]
    assert_close(estimate, -slope)  # the loss is minimised: down its gradient, rewards go up


def test_only_what_was_drawn_is_reinforced():
    weights, advantage = looks(), torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    assert reinforce(weights, weights, advantage, MASK) == 0  # an expectation
    assert reinforce(weights, torch.zeros_like(weights), advantage, MASK) == 0  # nothing to see
    drawn = torch.eye(S, dtype=torch.float64)[0].expand(B, T, S)
    expected = -(weights[..., 0].log() * MASK * advantage[:, None]).sum()
    assert_close(reinforce(weights, drawn, advantage, MASK), expected)


@pytest.mark.parametrize("name", ["coverage", "doubly_stochastic", "guided", "entropy", "reinforce"])
def test_losses_of_weights_are_sums_over_sentences_and_blind_to_padding(name):
    links = torch.rand(B, T, S, generator=torch.Generator().manual_seed(3)) < 0.5
    drawn = torch.eye(S, dtype=torch.float64)[:1].expand(B, T, S)
    advantage = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)

    def loss(weights: Tensor, rows: slice, steps: int = T, slots: int = S) -> Tensor:
        weights, mask = weights[rows, :steps, :slots], MASK[rows, :steps]
        if name == "coverage":
            return coverage(weights, mask)
        if name == "doubly_stochastic":
            return doubly_stochastic(weights, mask, SOURCES[rows, :slots])
        if name == "guided":
            return guided(weights, links[rows, :steps, :slots] & SOURCES[rows, None, :slots], mask)
        if name == "entropy":
            return entropy(weights, mask)
        return reinforce(weights, drawn[rows, :steps, :slots], advantage[rows], mask)

    weights = looks()
    whole = loss(weights, slice(None))
    parts = [loss(weights, slice(row, row + 1)) for row in range(B)]
    assert_close(sum(parts), whole)
    assert_close(parts[1], loss(weights, slice(1, 2), 2, 4))  # without its padding
    garbage = torch.where(MASK[..., None], weights.detach(), 1 / 3)
    assert_close(loss(garbage, slice(None)), whole.detach())
    weights.grad = None
    whole.backward()
    assert (weights.grad[~MASK] == 0).all() and weights.grad.isfinite().all()


# ---- what a model is taught --------------------------------------------------------------------------


def taught(
    layers: int = 3,
    layer: int | None = None,
    head: int | None = None,
    pointer_generator: PointerGenerator | None = None,
    **factors: float,
) -> tuple[AttentionLosses, Decoded]:
    """Two heads; weights whose layer and head can be told by their loss."""
    decoder = tiny.model(tiny.MODELS["transformer-pre-rotary"]).decoder
    decoder.attention_layers, decoder.pointer_generator = layers, pointer_generator
    one = AttentionLosses(factors, decoder, layer, head)
    every = torch.stack([torch.stack([looks(10 * n + h) for h in range(2)], 1) for n in range(layers)], 1)
    return one, Decoded(torch.zeros(B, T, V), every[:, list(one.layers)])


def told(one: AttentionLosses, decoded: Decoded, links: Tensor | None = None) -> dict[str, Tensor]:
    return one.terms(decoded, torch.zeros(B, T, dtype=torch.long), MASK, SOURCES, links)


@pytest.mark.parametrize(
    ("layer", "head", "covered", "guides"),
    [
        (None, None, (20, 21), (10,)),
        (0, None, (0, 1), (0,)),
        (-1, 1, (21,), (21,)),
    ],
)
def test_layer_and_head_say_which_weights_are_taught(layer, head, covered, guides):
    links = SOURCES[:, None].expand(B, T, S)
    one, decoded = taught(3, layer, head, coverage=1.0, guided=1.0)
    found = told(one, decoded, links)
    assert_close(found["coverage"], coverage(sum(looks(n) for n in covered) / len(covered), MASK))
    assert_close(found["guided"], guided(sum(looks(n) for n in guides) / len(guides), links, MASK))
    assert len(one.layers) == len({*covered, *guides} - {1, 21}) or layer is not None


@pytest.mark.parametrize(
    ("layer", "head", "copies", "expected"),
    [
        (None, None, (0, 1), [(1,), (1,)]),
        (None, None, (0, None), [(0, 1), (0, 1)]),
        (None, 0, (1, 1), [(10,), (10,)]),
        (2, None, (0, 1), [(20, 21), (20,)]),  # who names a layer means it
    ],
)
def test_where_a_decoder_copies_it_is_taught_unless_told_otherwise(layer, head, copies, expected):
    links = SOURCES[:, None].expand(B, T, S)
    one, decoded = taught(
        3, layer, head, PointerGenerator(7, *copies), coverage=1.0, doubly_stochastic=1.0, guided=1.0
    )
    found = told(one, decoded, links)
    covers, guides = (sum(looks(n) for n in some) / len(some) for some in expected)
    assert_close(found["coverage"], coverage(covers, MASK))
    assert_close(found["doubly_stochastic"], doubly_stochastic(covers, MASK, SOURCES))
    assert_close(found["guided"], guided(guides, links, MASK))
    assert len(one.layers) == 1


def test_nothing_is_looked_at_that_is_not_needed():
    assert taught(coverage=1.0)[0].layers == [2] and taught(guided=1.0)[0].layers == [1]
    assert taught(coverage=1.0, guided=1.0)[0].layers == [1, 2]
    assert taught(entropy=1.0)[0].layers == [0, 1, 2]


def test_factors_weigh_and_entropy_is_a_reward():
    one, decoded = taught(coverage=2.0, entropy=0.5)
    found = told(one, decoded)
    assert_close(one.total(found), 2 * found["coverage"] - 0.5 * found["entropy"])


def test_the_baseline_is_a_moving_average_of_what_sentences_are_worth():
    hard = tiny.recurrent_decoder("luong", attention="additive")
    decoder = tiny.model({"encoder": tiny.recurrent_encoder(), "decoder": hard}).decoder
    decoder.attention.normalize = Drawing()
    one, means = AttentionLosses({"reinforce": 1.0}, decoder), []
    for update in range(3):
        rewards, losses = [], []
        for seed in (update, update + 10):  # two batches of an update have one baseline
            torch.manual_seed(seed)
            logits, gold = torch.randn(B, T, V), torch.randint(0, V, (B, T))
            drawn = torch.eye(S, dtype=torch.float64)[torch.randint(0, S, (B, T))]
            weights = looks(seed).detach() + 0.01
            log_p = logits.log_softmax(-1).gather(-1, gold[..., None]).squeeze(-1)
            rewards.append((log_p * MASK).sum(1) / MASK.sum(1).clamp(min=1))
            decoded = Decoded(logits, weights[:, None, None], drawn[:, None, None])
            found = one.terms(decoded, gold, MASK, SOURCES, None)["reinforce"]
            advantage = rewards[-1] - (one.baseline or 0.0)
            expected = reinforce(weights, drawn, advantage, MASK)
            losses.append((found, expected if update else torch.zeros(())))
        one.updated()
        for found, expected in losses:
            assert found.item() == pytest.approx(expected.item(), abs=1e-5)
        mean = torch.cat(rewards).mean().item()
        means.append(mean if not means else 0.9 * means[-1] + 0.1 * mean)
        assert one.baseline == pytest.approx(means[-1])


class Drawing(Softmax):
    """A normalizer that draws."""

    def sample(self, weights: Tensor, past: Past) -> Tensor:
        return torch.eye(weights.shape[-1])[torch.multinomial(weights.flatten(0, -2), 1)].view_as(weights)


def test_what_cannot_be_taught_is_refused():
    decoder = tiny.model(tiny.MODELS["cho-gru-1-maxout"]).decoder
    with pytest.raises(Seq2attnError, match="attention_losses need attention, and this decoder has none"):
        AttentionLosses({"coverage": 1.0}, decoder)
    with pytest.raises(Seq2attnError, match="layer: the decoder has 3 attention layers, 0 to 2; got 3"):
        taught(layer=3, coverage=1.0)
    with pytest.raises(Seq2attnError, match="needs sampled positions: set the decoder's normalizer to hard"):
        taught(reinforce=1.0)
    one, decoded = taught(guided=1.0)
    with pytest.raises(Seq2attnError, match="guided needs gold alignments, and the training data have none"):
        told(one, decoded)
    with pytest.raises(
        Seq2attnError, match="returned no weights: its forward must return those of the layers weights_of"
    ):
        told(one, decoded._replace(weights=None))
    one, decoded = taught(coverage=1.0, head=2)
    with pytest.raises(Seq2attnError, match="head: the layer has 2 heads; got 2"):
        told(one, decoded)
    one.factors = {"reinforce": 1.0}
    with pytest.raises(Seq2attnError, match=r"reinforce needs Decoded\.sampled, and this decoder does not"):
        told(one, decoded)
