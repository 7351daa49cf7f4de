"""Latent alignments against enumeration, and against the equations written out."""

import itertools
import re
from typing import Any

import pytest
import tiny
import torch
from jaxtyping import TypeCheckError
from pydantic import ValidationError
from tiny_training import loader
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention, Normalizer, Past
from seq2attn.attention.normalizers import NORMALIZERS, Hard
from seq2attn.attention.scorers import SCORERS, Additive
from seq2attn.errors import Seq2attnError
from seq2attn.inference.search import Rules, beam_search
from seq2attn.models.decoders.latent import PositionPredictions, mixture, posterior, top_k
from seq2attn.models.decoders.recurrent import RecurrentDecoder
from seq2attn.models.encoders import Encoded
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.recipe import TrainingRecipe
from seq2attn.tasks.sequence_tasks import token_objective
from seq2attn.training.loop import Trainer
from seq2attn.training.objectives import AttentionLosses

S, T = 5, 3
LATENT = [name for name in tiny.MODELS if "marginal" in name or "posterior" in name]


class Chain(Normalizer):
    """The prior of a hidden Markov model that never goes back, as a matrix of transitions."""

    stateful = True

    def initial_state(self, zeros: Tensor) -> Tensor:
        return torch.eye(zeros.shape[-1], dtype=zeros.dtype)[0].expand_as(zeros)

    def transitions(self, scores: Tensor, mask: Tensor) -> Tensor:
        """(..., S, S): from where to where."""
        ahead = torch.ones(scores.shape[-1], scores.shape[-1], dtype=torch.bool).triu() & mask
        return scores.masked_fill(~ahead, -1e30).softmax(-1)

    def step(self, scores: Tensor, mask: Tensor, past: Past, query: Tensor) -> tuple[Tensor, Tensor]:
        weights = past.alignment_state.unsqueeze(-2) @ self.transitions(scores, mask) * mask
        return weights, weights.squeeze(-2)


def decoder_of(latent: str, seed: int = 1, **options: Any) -> tuple[Seq2Seq, Encoded, Tensor]:
    """A model in float64, a source, and what is read."""
    decoder = tiny.recurrent_decoder("luong", "additive", latent=latent, **options)
    model = tiny.model({"encoder": tiny.recurrent_encoder(), "decoder": decoder}, seed).double()
    with torch.no_grad():
        model.decoder.readout.combine.weight.mul_(3)  # slots that predict differently
        model.decoder.attention.score.energy.weight.mul_(9)
    return model, model.encoder(*tiny.sources(S, seed=seed)), tiny.reads(1, T + 1, seed)


def chained(normalize: Normalizer, latent: str = "posterior") -> tuple[Seq2Seq, Encoded, Tensor]:
    """A decoder in Luong's order whose normalizer is that one; its states know nothing of alignments."""
    model, encoded, tokens = decoder_of("marginal")
    old = model.decoder
    old.readout.latent = latent
    attention = Attention(old.attention.score, normalize.double())
    parts = old.embedding, old.cell, "luong", attention, old.readout, old.output, old.dropout
    model.decoder = RecurrentDecoder(*parts).eval()
    return model, encoded, tokens


def given(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p of the tokens (T) that follow."""
    return logits.log_softmax(-1)[0, :T].gather(-1, tokens[0, 1:, None]).squeeze(-1)


def slots(decoder: RecurrentDecoder, encoded: Encoded, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """log p(token t | slot) and the scores, (T, S) each, of a decoder in Luong's order without feeding."""
    words = decoder.embedding(tokens[:, :T])
    states, _ = decoder.cell(words, decoder.start(encoded).hidden)
    memory = decoder.attention.remember(encoded.states, encoded.mask)
    scores = decoder.attention.score(states, memory.keys, decoder.attention.initial_state(memory))[0]
    found = torch.empty(T, S, dtype=torch.float64)
    for t, s in itertools.product(range(T), range(S)):
        read = decoder.readout(states[:, t : t + 1], encoded.states[:, s : s + 1], words[:, t : t + 1])
        found[t, s] = decoder.output(read)[0, 0].log_softmax(-1)[tokens[0, t + 1]]
    return found, scores


# ---- exact sums --------------------------------------------------------------------------------------


def test_the_likelihood_is_the_sum_over_all_alignments():
    model, encoded, tokens = decoder_of("marginal")
    log_p, scores = slots(model.decoder, encoded, tokens)
    prior = scores.log_softmax(-1)
    every = [
        sum(prior[t, a] + log_p[t, a] for t, a in enumerate(alignment))
        for alignment in itertools.product(range(S), repeat=T)
    ]
    assert len(every) == S**T
    assert_close(given(model.decoder(tokens, encoded).logits, tokens).sum(), torch.stack(every).logsumexp(0))


@pytest.mark.parametrize("normalize", [Chain, *filter(None, [NORMALIZERS.get("hard_monotonic")])])
def test_with_a_belief_the_posterior_filters_a_hidden_markov_model_exactly(normalize):
    model, encoded, tokens = chained(normalize())
    log_p, scores = slots(model.decoder, encoded, tokens)
    every = []
    for alignment in itertools.product(range(S), repeat=T):
        if list(alignment) == sorted(alignment):
            total, before = torch.zeros(()), 0
            for t, a in enumerate(alignment):
                total = total + scores[t, before:].log_softmax(-1)[a - before] + log_p[t, a]
                before = a
            every.append(total)
    decoded = model.decoder(tokens, encoded, [0])
    together = given(decoded.logits, tokens)
    assert_close(together.sum(), torch.stack(every).logsumexp(0))
    # Mixing without filtering is another number: the belief must have learnt from the tokens.
    unfiltered, _, _ = chained(normalize(), "marginal")
    other = given(unfiltered.decoder(tokens, encoded).logits, tokens)
    assert_close(other[0], together[0])
    assert (other - together).abs().max() > 1e-3
    # The filtered belief is the forward algorithm's.
    forward = scores[0].softmax(-1) * log_p[0].exp()
    before = (forward / forward.sum()) @ Chain().transitions(scores[1:2], torch.ones(1, S).bool())
    assert_close(decoded.weights[0, 0, 0, 1], before)


def test_expected_likelihoods_are_in_the_order_of_jensen():
    model, encoded, tokens = decoder_of("marginal")
    log_p, scores = slots(model.decoder, encoded, tokens)
    prior = scores.softmax(-1)
    expected = (prior * log_p).sum(-1)
    marginal = given(model.decoder(tokens, encoded).logits, tokens)
    assert (expected < marginal).all()
    after = (scores.log_softmax(-1) + log_p).softmax(-1)  # the bound is tight at the posterior
    tight = (after * (log_p + scores.log_softmax(-1) - after.log())).sum(-1)
    assert_close(tight, marginal)


@pytest.mark.parametrize("options", [{}, {"input_feeding": True}, {"readout": "maxout"}])
def test_with_one_slot_there_is_nothing_to_mix(options):
    tokens, source = tiny.reads(1, T), tiny.sources(1)
    soft, *others = (
        decoder_of(latent, **options)[0](*source, tokens).logits.log_softmax(-1)
        for latent in ("none", "marginal", *["posterior"] * ("input_feeding" in options))
    )
    for other in others:
        assert_close(other, soft)


def test_dropout_drops_the_same_of_every_slot():
    """So that with one slot it does what it does without a mixture; and one mask may serve all steps."""
    for options in ({"dropout": 0.5}, {"dropout": 0.5, "variational": True}):
        logits = []
        for latent in ("none", "marginal"):
            model = decoder_of(latent, **options)[0].train()
            torch.manual_seed(3)
            logits.append(model(*tiny.sources(1), tiny.reads(1, T)).logits.log_softmax(-1))
        assert_close(*logits)


@pytest.mark.parametrize("top", [1, 2, S, S + 2])
def test_the_likeliest_slots_share_all_the_weight(top):
    model, encoded, tokens = decoder_of("marginal", top=top)
    log_p, scores = slots(model.decoder, encoded, tokens)
    best = scores.topk(min(top, S))
    expected = (best.values.log_softmax(-1) + log_p.gather(-1, best.indices)).logsumexp(-1)
    assert_close(given(model.decoder(tokens, encoded).logits, tokens), expected)
    exact = given(decoder_of("marginal")[0].decoder(tokens, encoded).logits, tokens)
    assert torch.allclose(expected, exact) == (top >= S)


def test_a_mixture_is_normalised():
    for name in LATENT:
        logits = tiny.model(tiny.MODELS[name])(*tiny.sources(7, 3, 0), tiny.reads(3, 5)).logits
        assert_close(logits.logsumexp(-1), torch.zeros(3, 5), atol=1e-5, rtol=0)


# ---- the posterior -----------------------------------------------------------------------------------


def test_what_does_not_tell_slots_apart_leaves_the_prior():
    model, encoded, tokens = decoder_of("posterior", input_feeding=True)
    torch.nn.init.zeros_(model.decoder.output.weight)
    _, state = model.decoder.step(tokens[:, 0], model.decoder.start(encoded))
    prior, feed, guess = state.past.weights, state.feed, state.predictions
    state = model.decoder._known(tokens[:, 1], state, guess)
    assert_close(state.past.weights, prior)
    assert_close(state.feed, feed)
    assert state.predictions is None


@pytest.mark.parametrize("readout", ["tanh", "maxout"])
@pytest.mark.parametrize("top", [None, 2])
def test_the_posterior_is_what_the_next_step_knows(readout, top):
    """Posterior attention with input feeding, written out step by step."""
    model, encoded, tokens = decoder_of("posterior", input_feeding=True, readout=readout, top=top)
    decoder, states = model.decoder, encoded.states
    state = decoder.start(encoded)
    hidden, feed, covered, weights, expected = state.hidden, state.feed, 0.0, None, []
    for t in range(T + 1):
        word = decoder.embedding(tokens[:, t : t + 1])
        asked, hidden = decoder.cell(torch.cat([word, feed[:, None]], -1), hidden)
        prior = decoder.attention(asked, state.memory.value).weights[0, 0]
        if top:
            prior = torch.where(prior >= prior.topk(top).values[-1], prior, 0)
        prior = prior / prior.sum()
        each = [decoder.readout(asked, states[:, s : s + 1], word) for s in range(S)]
        p = torch.cat([decoder.output(read)[0].softmax(-1) for read in each])  # (S, V)
        expected.append((prior @ p).log())
        if t < T:
            weights = prior * p[:, tokens[0, t + 1]]
            weights = weights / weights.sum()
            covered = covered + weights
            feed = decoder.readout(asked, (weights @ states[0])[None, None], word)[:, 0]
    logits = decoder(tokens, encoded).logits
    assert_close(logits[0], torch.stack(expected))
    for t in range(T):
        _, state = decoder.step(tokens[:, t], state)
    state = decoder._known(tokens[:, T], state, state.predictions)
    assert_close(state.past.weights[0], weights)
    assert_close(state.past.coverage[0], covered)
    assert_close(state.feed, feed)
    assert_close(state.past.weights.sum(-1), torch.ones(1, dtype=torch.float64))


def test_a_token_changes_nothing_at_the_step_that_predicts_it():
    """The posterior has seen the token: it may only be known to the step that reads it."""
    for name in [name for name in LATENT if "posterior" in name]:
        model = tiny.model(tiny.MODELS[name])
        encoded, tokens = model.encoder(*tiny.sources(7, 3, 0)), tiny.reads(3, 5)
        before = model.decoder(tokens, encoded, [0])
        tokens[:, 3] = (tokens[:, 3] - tiny.SPECIALS + 1) % (tiny.TARGET - tiny.SPECIALS) + tiny.SPECIALS
        after = model.decoder(tokens, encoded, [0])
        assert torch.equal(before.logits[:, :3], after.logits[:, :3])
        assert torch.equal(before.weights[..., :3, :], after.weights[..., :3, :])
        assert not torch.allclose(before.weights[:2, ..., 4, :], after.weights[:2, ..., 4, :])


@pytest.mark.parametrize("order", ["luong", "bahdanau"])
def test_the_advice_for_a_posterior_that_nothing_follows_leads_somewhere(order):
    """Whatever it names makes a posterior that differs from the marginal; nothing else does."""

    def read(latent, options, **decoder):
        recipe = tiny.recurrent_decoder(order, latent=latent, attention=None) | decoder
        recipe["attention"] = {"score": "additive", **options}
        model = tiny.model({"encoder": tiny.recurrent_encoder(), "decoder": recipe}).train()
        torch.manual_seed(3)  # monotonic attention draws noise
        return model(*tiny.sources(7, 5), tiny.reads(2, 5)).logits

    with pytest.raises(ValidationError) as error:
        read("posterior", {})
    said = re.search(r"use (.*?), the scorer (.*?), or the normalizer (\S+(?: or \S+)*)", str(error.value))
    named = [{"score": name} for name in said[2].split(" or ")]
    named += [{"normalize": name} for name in said[3].split(" or ")]
    for options in named:
        assert not torch.allclose(read("posterior", options), read("marginal", options), atol=1e-6)
    assert said[1] == {"luong": "input_feeding", "bahdanau": "the order luong with input_feeding"}[order]
    feeding = {"order": "luong", "input_feeding": True}
    assert not torch.allclose(read("posterior", {}, **feeding), read("marginal", {}, **feeding), atol=1e-6)
    others = [{"score": name} for name in SCORERS] + [{"normalize": name} for name in NORMALIZERS]
    for options in [one for one in others if one not in named]:
        with pytest.raises(ValidationError):
            read("posterior", options)


def test_who_sees_nothing_has_no_posterior():
    model = tiny.model(tiny.MODELS["feeding-posterior"])
    encoded, tokens = model.encoder(*tiny.sources(7, 0)), tiny.reads(2, 2)
    _, state = model.decoder.step(tokens[:, 0], model.decoder.start(encoded))
    state = model.decoder._known(tokens[:, 1], state, state.predictions)
    assert_close(state.past.weights.sum(-1), torch.tensor([1.0, 0.0]))


def test_a_posterior_by_hand():
    """Prior 1/4 and 3/4; the first slot says token 0 with 4/5, the second with 1/5."""
    output = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        output.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    reads = torch.tensor([[[4.0], [0.25]]]).log() / 2
    log_weights, places = top_k(torch.tensor([[0.25, 0.75]]), None)
    mixed, normalizers = mixture(reads, log_weights, output)
    assert_close(mixed.exp(), torch.tensor([[0.35, 0.65]]))
    guess = PositionPredictions(torch.zeros(1, 1, 1), reads, normalizers, log_weights, places)
    assert_close(posterior(guess, torch.tensor([0]), output, 2), torch.tensor([[4 / 7, 3 / 7]]))


# ---- gradients and numbers ---------------------------------------------------------------------------


def test_the_gradient_is_that_of_the_sum():
    model, encoded, tokens = decoder_of("marginal")
    model.train()
    encoded = encoded._replace(states=encoded.states.detach(), summary=encoded.summary.detach())
    parameters = list(model.decoder.parameters())
    log_p, scores = slots(model.decoder, encoded, tokens)
    expected = torch.autograd.grad((scores.log_softmax(-1) + log_p).logsumexp(-1).sum(), parameters)
    found = torch.autograd.grad(given(model.decoder(tokens, encoded).logits, tokens).sum(), parameters)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("top", [None, 2])
def test_gradcheck(top):
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    weights[0, 1] = 0.0
    weights = weights / weights.sum(-1, keepdim=True)
    reads = torch.randn(2, top or 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    output = torch.nn.Linear(4, 5, dtype=torch.float64)

    def mixed(scores: Tensor, reads: Tensor) -> Tensor:
        return mixture(reads, top_k(scores.softmax(-1), top)[0], output)[0]

    scores = weights.clamp(min=1e-3).log().requires_grad_()
    assert torch.autograd.gradcheck(mixed, (scores, reads))


@pytest.mark.parametrize("weights", [[[1.0, 0.0, 0.0]], [[0.0, 0.5, 0.5]], [[0.0, 0.0, 0.0]]])
def test_weights_of_zero_have_no_gradient_of_nan(weights):
    given = torch.tensor(weights, requires_grad=True)
    reads, output = torch.randn(1, 3, 4, requires_grad=True), torch.nn.Linear(4, 5)
    log_weights, _ = top_k(given, None)
    mixed, _ = mixture(reads, log_weights, output)
    mixed.square().sum().backward()
    for tensor in (mixed, given.grad, reads.grad, output.weight.grad):
        assert tensor.isfinite().all()
    assert (reads.grad[0, given[0] == 0] == 0).all() or not given.any()
    assert_close(log_weights.exp().sum(-1), torch.ones(1))


def test_unlikely_everywhere_is_finite():
    reads = torch.tensor([[[1e4], [-1e4]]], requires_grad=True)
    output = torch.nn.Linear(1, 3)
    mixed, _ = mixture(reads, top_k(torch.tensor([[0.5, 0.5]]), None)[0], output)
    mixed.sum().backward()
    assert mixed.isfinite().all() and reads.grad.isfinite().all()


def test_the_widest_numbers_are_never_kept_for_all_steps():
    """(B, S, V) numbers of T steps would be most of the memory: none of them waits for the gradient."""
    model, vocabulary = tiny.model(tiny.MODELS["luong-marginal"], target=997), 997
    encoded, kept = model.encoder(*tiny.sources(S)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        logits = model.decoder(tiny.reads(1, T), encoded).logits
    assert logits.shape == (1, T, vocabulary)
    assert kept and not [shape for shape in kept if shape[-1] == vocabulary]
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.decoder.parameters())


def test_the_best_of_a_search_has_the_score_of_the_sum():
    model, encoded, _ = decoder_of("posterior", input_feeding=True)
    rules = Rules(tiny.BOS, tiny.EOS, (tiny.PAD, tiny.BOS), length_normalization="none")
    with torch.no_grad():
        ((best, *_),) = beam_search(model.step, model.decoder.start(encoded), rules, torch.tensor([4]), 3)
        tokens = torch.tensor([[tiny.BOS, *best.tokens, tiny.EOS]])
        log_p = model.decoder(tokens[:, :-1], encoded).logits.log_softmax(-1)
    assert best.log_probability == pytest.approx(
        log_p[0].gather(1, tokens[0, 1:, None]).sum().item(), abs=1e-4
    )


# ---- what cannot be ----------------------------------------------------------------------------------


def test_a_latent_alignment_is_to_one_slot_with_a_probability():
    decoder = tiny.model(tiny.MODELS["luong-heads-lstm-1-tanh"]).decoder
    parts = decoder.embedding, decoder.cell, "luong"
    decoder.readout.latent = "marginal"
    behind = decoder.readout, decoder.output, decoder.dropout
    for attention in (decoder.attention, None):
        with pytest.raises(
            Seq2attnError, match="to one slot at a time: give the decoder an attention of one"
        ):
            RecurrentDecoder(*parts, attention, *behind)
    loose = Chain()
    loose.sums_to_one = False
    with pytest.raises(Seq2attnError, match="are probabilities, and those of Chain need not sum to 1"):
        RecurrentDecoder(*parts, Attention(Additive(14, 10), loose), *behind)


def test_shapes_are_types():
    with pytest.raises(TypeCheckError):
        top_k(torch.zeros(2, 3, 4), None)


# ---- drawn slots in cross-attention ------------------------------------------------------------------


class Chosen(Hard):
    """Draws what it is told to."""

    def __init__(self) -> None:
        super().__init__(soft_rate=0.0)
        self.choice = torch.zeros(1, dtype=torch.long)

    def sample(self, weights: Tensor, past: Past) -> Tensor:
        one_hot = torch.eye(weights.shape[-1], dtype=weights.dtype)[self.choice]
        return one_hot.expand(weights.shape)


def hard_transformer(*normalizers: Any, heads: int = 5) -> Seq2Seq:
    """Cross-attention of two layers, to be trained."""
    looks = [{"heads": heads, "normalize": normalize} for normalize in normalizers]
    decoder = tiny.transformer(decoder=True, cross_attention=looks)
    return tiny.model({"encoder": tiny.transformer(), "decoder": decoder}).train()


def test_layers_give_what_they_drew_in_the_order_asked_for():
    model = hard_transformer({"name": "hard", "soft_rate": 0.0}, "softmax")
    source, tokens = tiny.sources(7, 3, 0), tiny.reads(3, 5)
    _, weights, drawn, _ = model(*source, tokens, [1, 0])
    assert drawn.shape == weights.shape == (3, 2, 5, 5, 7)
    assert (drawn[:, 0] == 0).all()  # the softmax does not draw
    hard, seen = drawn[:, 1], source[1].any(-1).float()
    assert ((hard == 0) | (hard == 1)).all() and (hard.sum(-1) == seen[:, None, None]).all()
    assert (hard.transpose(0, 3)[:, ..., 1][3:] == 0).all()  # nothing on padding
    assert (
        len({tuple(row) for row in hard[0, :, 0].argmax(-1, keepdim=True).tolist()}) > 1
    )  # heads by themselves
    assert model(*source, tokens, [1]).sampled is None and model(*source, tokens).sampled is None
    model.eval()
    _, weights, drawn, _ = model(*source, tokens, [0])
    assert torch.equal(drawn[:2].argmax(-1), weights[:2].argmax(-1))
    model.train().decoder.layers[0].cross_attention.attention.normalize.soft_rate = 1.0
    _, weights, drawn, _ = model(*source, tokens, [0])
    assert torch.equal(drawn, weights)  # an expectation


def test_self_attention_begins_where_its_normalizer_says():
    """With a rate of 1 the coin always says that nothing is drawn."""
    looking = {"self_attention": {"heads": 2, "normalize": "hard"}}
    recipe = {"encoder": tiny.recurrent_encoder(), "decoder": tiny.transformer(decoder=True) | looking}
    model, read = tiny.model(recipe).train(), (*tiny.sources(7, 3), tiny.reads(2, 5))
    logits = {}
    for rate in (1.0, 0.0):
        for layer in model.decoder.layers:
            layer.self_attention.attention.normalize.soft_rate = rate
        logits[rate] = [model(*read).logits for _ in range(2)]
    assert torch.equal(*logits[1.0]) and not torch.equal(*logits[0.0])


def test_reinforcing_cross_attention_climbs_the_expected_log_likelihood():
    """Of a Transformer with two layers, over all draws of both: a draw changes what the next layer asks."""
    model = hard_transformer("hard", "hard", heads=1).double()
    chosen = [Chosen(), Chosen()]
    for layer, normalize in zip(model.decoder.layers, chosen, strict=True):
        layer.cross_attention.attention.normalize = normalize
    source, reads, steps, slots = tiny.sources(3), tiny.reads(1, 3), 2, 3
    gold, mask = reads[:, 1:], torch.ones(1, steps, dtype=torch.bool)
    taught = AttentionLosses(
        {"reinforce": float(steps)}, model.decoder
    )  # the reward is the mean of the steps
    taught.baseline = -1.7
    parameters = list(model.parameters())
    truth, estimate = ([torch.zeros_like(parameter) for parameter in parameters] for _ in range(2))
    for samples in itertools.product(range(slots), repeat=2 * steps):
        for number, normalize in enumerate(chosen):
            normalize.choice = torch.tensor(samples[number * steps : (number + 1) * steps])
        decoded = model(*source, reads[:, :steps], taught.look)
        log_p = decoded.logits.log_softmax(-1).gather(-1, gold[..., None]).sum()
        chance = (decoded.weights * decoded.sampled).sum(-1).prod()
        loss = taught.total(taught.terms(decoded, gold, mask, source[1], None)) - log_p
        uphill = torch.autograd.grad(chance * log_p, parameters, retain_graph=True)
        downhill = torch.autograd.grad(chance.detach() * loss, parameters)
        for total, slope in zip([*truth, *estimate], [*uphill, *downhill], strict=True):
            total += slope
    for ours, theirs in zip(estimate, truth, strict=True):
        assert_close(ours, -theirs, atol=1e-6, rtol=1e-5)
    queries = [layer.cross_attention.query.weight for layer in model.decoder.layers]
    learnt = [
        slope
        for parameter, slope in zip(parameters, truth, strict=True)
        if any(parameter is q for q in queries)
    ]
    assert [bool((slope.abs() > 1e-3).any()) for slope in learnt] == [True, True]


def test_a_transformer_with_hard_attention_is_reinforced_as_it_trains():
    """No gradient goes through a draw, so what asks in the last layer learns from the reward alone."""
    moved = {}
    for factors in ({"reinforce": 1.0, "entropy": 1e-3}, {"coverage": 1e-9}):
        model = hard_transformer({"name": "hard", "soft_rate": 0.0}, {"name": "hard", "soft_rate": 0.0})
        recipe = TrainingRecipe.model_validate({"max_steps": 9, "attention_losses": factors})
        trainer, some = (
            Trainer(model, token_objective(model, recipe), recipe, torch.device("cpu"), None),
            loader(),
        )
        asking = model.decoder.layers[1].cross_attention.query.weight
        before = asking.detach().clone()
        found = [trainer.update([some.batch(some.epoch(0)[0], 0)], step) for step in range(1, 10)]
        moved["reinforce" in factors] = (asking - before).abs().max().item()
        assert found[-1].loss < found[0].loss
        if "reinforce" in factors:
            rewards = [one.parts["reinforce"] for one in found]
            assert rewards[0] == 0 and all(rewards[1:])
    assert moved[True] > 1e-3 > 100 * moved[False]
