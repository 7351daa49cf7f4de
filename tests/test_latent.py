"""Latent alignments against enumeration, and against the equations written out."""

import itertools
import re
from typing import Any

import pytest
import tiny
import torch
from cases import choose
from decoder_laws import changed
from jaxtyping import TypeCheckError
from pydantic import ValidationError
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention.attention import Attention
from seq2attn.attention.interfaces import Normalizer
from seq2attn.attention.memory import Past
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import SCORERS, Additive
from seq2attn.errors import Seq2attnError
from seq2attn.inference.beam_search import beam_search
from seq2attn.inference.search import Rules
from seq2attn.models.decoders import LatentAlignment, LuongDecoder, OutputLayers
from seq2attn.models.decoders.latent import PositionPredictions, mixture, posterior, top_k
from seq2attn.models.encoders import Encoded
from seq2attn.models.seq2seq import Seq2Seq

S, T = 5, 3
LATENT = choose(tiny.MODELS, lambda name: "marginal" in name or "posterior" in name, at_least=5)
POSTERIOR = choose(LATENT, lambda name: "posterior" in name, at_least=2)


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
    """A model in float64, a source, and the input of the decoder."""
    decoder = tiny.recurrent_decoder("luong", "additive", latent=latent, **options)
    model = tiny.model({"encoder": tiny.recurrent_encoder(), "decoder": decoder}, seed).double()
    with torch.no_grad():
        model.decoder.readout.combine.weight.mul_(3)  # positions that predict differently
        model.decoder.attention.score.energy.weight.mul_(9)
    return model, model.encode(tiny.sources(S, seed=seed)), tiny.reads(1, T + 1, seed)


def chained(normalize: Normalizer, latent: Any = "posterior") -> tuple[Seq2Seq, Encoded, Tensor]:
    """A decoder in Luong's order with that normalizer; its states do not depend on alignments."""
    model, encoded, tokens = decoder_of("marginal")
    old = model.decoder
    attention = Attention(old.attention.score, normalize.double())
    layers = OutputLayers(old.readout, old.output, old.dropout)
    model.decoder = LuongDecoder(old.embedding, old.cell, attention, layers, latent=LatentAlignment(latent))
    return model.eval(), encoded, tokens


def given(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p of the tokens (T) that follow."""
    return logits.log_softmax(-1)[0, :T].gather(-1, tokens[0, 1:, None]).squeeze(-1)


def by_position(decoder: LuongDecoder, encoded: Encoded, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """log p(token t | position) and the scores, (T, S) each, of a decoder without input feeding."""
    words = decoder.embedding(tokens[:, :T])
    states, _ = decoder.cell(words, decoder.start(encoded).hidden)
    memory = decoder.attention.remember(encoded.states, encoded.mask)
    scores = decoder.attention.score(states, memory.keys, decoder.attention.initial_state(memory))[0]
    log_p = torch.empty(T, S, dtype=torch.float64)
    for t, s in itertools.product(range(T), range(S)):
        readout = decoder.readout(states[:, t : t + 1], encoded.states[:, s : s + 1], words[:, t : t + 1])
        log_p[t, s] = decoder.output(readout)[0, 0].log_softmax(-1)[tokens[0, t + 1]]
    return log_p, scores


# ---- exact sums --------------------------------------------------------------------------------------


def test_the_likelihood_is_the_sum_over_all_alignments():
    model, encoded, tokens = decoder_of("marginal")
    log_p, scores = by_position(model.decoder, encoded, tokens)
    prior = scores.log_softmax(-1)
    every = [
        sum(prior[t, a] + log_p[t, a] for t, a in enumerate(alignment))
        for alignment in itertools.product(range(S), repeat=T)
    ]
    assert len(every) == S**T
    assert_close(given(model.decoder(tokens, encoded).logits, tokens).sum(), torch.stack(every).logsumexp(0))


@pytest.mark.parametrize("normalize", [Chain, *filter(None, [NORMALIZERS.get("hard_monotonic")])])
def test_with_an_alignment_state_the_posterior_filters_a_hidden_markov_model_exactly(normalize):
    model, encoded, tokens = chained(normalize())
    log_p, scores = by_position(model.decoder, encoded, tokens)
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
    # Mixing without filtering gives another number: the alignment state depends on the tokens.
    unfiltered, _, _ = chained(normalize(), "marginal")
    other = given(unfiltered.decoder(tokens, encoded).logits, tokens)
    assert_close(other[0], together[0])
    assert (other - together).abs().max() > 1e-3
    # The filtered alignment state is the forward algorithm's.
    forward = scores[0].softmax(-1) * log_p[0].exp()
    before = (forward / forward.sum()) @ Chain().transitions(scores[1:2], torch.ones(1, S).bool())
    assert_close(decoded.weights[0, 0, 0, 1], before)


def test_expected_likelihoods_are_in_the_order_of_jensen():
    model, encoded, tokens = decoder_of("marginal")
    log_p, scores = by_position(model.decoder, encoded, tokens)
    prior = scores.softmax(-1)
    expected = (prior * log_p).sum(-1)
    marginal = given(model.decoder(tokens, encoded).logits, tokens)
    assert (expected < marginal).all()
    after = (scores.log_softmax(-1) + log_p).softmax(-1)  # the bound is tight at the posterior
    tight = (after * (log_p + scores.log_softmax(-1) - after.log())).sum(-1)
    assert_close(tight, marginal)


@pytest.mark.parametrize("options", [{}, {"input_feeding": True}, {"readout": "maxout"}])
def test_with_one_position_there_is_nothing_to_mix(options):
    tokens, source = tiny.reads(1, T), tiny.sources(1)
    soft, *others = (
        decoder_of(latent, **options)[0](source, tokens).logits.log_softmax(-1)
        for latent in ("none", "marginal", *["posterior"] * ("input_feeding" in options))
    )
    for other in others:
        assert_close(other, soft)


def test_dropout_drops_the_same_at_every_position():
    """So that with one position it is the same as without a mixture; and all steps may share one mask."""
    for options in ({"dropout": 0.5}, {"dropout": 0.5, "variational": True}):
        logits = []
        for latent in ("none", "marginal"):
            model = decoder_of(latent, **options)[0].train()
            torch.manual_seed(3)
            logits.append(model(tiny.sources(1), tiny.reads(1, T)).logits.log_softmax(-1))
        assert_close(*logits)


@pytest.mark.parametrize("top", [1, 2, S, S + 2])
def test_the_top_positions_share_all_the_weight(top):
    model, encoded, tokens = decoder_of("marginal", top=top)
    log_p, scores = by_position(model.decoder, encoded, tokens)
    best = scores.topk(min(top, S))
    expected = (best.values.log_softmax(-1) + log_p.gather(-1, best.indices)).logsumexp(-1)
    assert_close(given(model.decoder(tokens, encoded).logits, tokens), expected)
    exact = given(decoder_of("marginal")[0].decoder(tokens, encoded).logits, tokens)
    assert torch.allclose(expected, exact) == (top >= S)


def test_a_mixture_is_normalised():
    for name in LATENT:
        logits = tiny.model(tiny.MODELS[name])(tiny.sources(7, 3, 0), tiny.reads(3, 5)).logits
        assert_close(logits.logsumexp(-1), torch.zeros(3, 5), atol=1e-5, rtol=0)


# ---- the posterior -----------------------------------------------------------------------------------


def test_equal_predictions_at_all_positions_leave_the_prior():
    model, encoded, tokens = decoder_of("posterior", input_feeding=True)
    torch.nn.init.zeros_(model.decoder.output.weight)
    _, state = model.decoder.step(tokens[:, 0], model.decoder.start(encoded))
    prior, vector = state.past.weights, state.attentional_vector
    state = model.decoder.observe(tokens[:, 1], state)
    assert_close(state.past.weights, prior)
    assert_close(state.attentional_vector, vector)
    assert state.predictions is None


@pytest.mark.parametrize("readout", ["tanh", "maxout"])
@pytest.mark.parametrize("top", [None, 2])
def test_the_next_step_uses_the_posterior(readout, top):
    """Posterior attention with input feeding, written out step by step."""
    model, encoded, tokens = decoder_of("posterior", input_feeding=True, readout=readout, top=top)
    decoder, states = model.decoder, encoded.states
    state = decoder.start(encoded)
    hidden, vector, coverage, weights, expected = state.hidden, state.attentional_vector, 0.0, None, []
    for t in range(T + 1):
        word = decoder.embedding(tokens[:, t : t + 1])
        query, hidden = decoder.cell(torch.cat([word, vector[:, None]], -1), hidden)
        prior = decoder.attention(query, state.memory.value).weights[0, 0]
        if top:
            prior = torch.where(prior >= prior.topk(top).values[-1], prior, 0)
        prior = prior / prior.sum()
        readouts = [decoder.readout(query, states[:, s : s + 1], word) for s in range(S)]
        p = torch.cat([decoder.output(readout)[0].softmax(-1) for readout in readouts])  # (S, V)
        expected.append((prior @ p).log())
        if t < T:
            weights = prior * p[:, tokens[0, t + 1]]
            weights = weights / weights.sum()
            coverage = coverage + weights
            vector = decoder.readout(query, (weights @ states[0])[None, None], word)[:, 0]
    logits = decoder(tokens, encoded).logits
    assert_close(logits[0], torch.stack(expected))
    for t in range(T):
        _, state = decoder.step(tokens[:, t], state)
    state = decoder.observe(tokens[:, T], state)
    assert_close(state.past.weights[0], weights)
    assert_close(state.past.coverage[0], coverage)
    assert_close(state.attentional_vector, vector)
    assert_close(state.past.weights.sum(-1), torch.ones(1, dtype=torch.float64))


def test_a_token_changes_nothing_at_the_step_that_predicts_it():
    """The posterior depends on the token: only the step that reads it may use it."""
    for name in POSTERIOR:
        model = tiny.model(tiny.MODELS[name])
        encoded, tokens = model.encode(tiny.sources(7, 3, 0)), tiny.reads(3, 5)
        before = model.decoder(tokens, encoded, [0])
        after = model.decoder(changed(tokens, 3), encoded, [0])
        assert torch.equal(before.logits[:, :3], after.logits[:, :3])
        assert torch.equal(before.weights[..., :3, :], after.weights[..., :3, :])
        assert not torch.allclose(before.weights[:2, ..., 4, :], after.weights[:2, ..., 4, :])


@pytest.mark.parametrize("order", ["luong", "bahdanau"])
def test_the_advice_for_a_posterior_without_effect_is_right(order):
    """With each part that it names the posterior differs from the marginal; other parts are refused."""

    def decode(latent, options, **decoder):
        recipe = tiny.recurrent_decoder(order, latent=latent, attention=None) | decoder
        recipe["attention"] = {"score": "additive", **options}
        model = tiny.model({"encoder": tiny.recurrent_encoder(), "decoder": recipe}).train()
        torch.manual_seed(3)  # monotonic attention draws noise
        return model(tiny.sources(7, 5), tiny.reads(2, 5)).logits

    with pytest.raises(ValidationError) as error:
        decode("posterior", {})
    advice = re.search(r"use (.*?), the scorer (.*?), or the normalizer (\S+(?: or \S+)*)", str(error.value))
    named = [{"score": name} for name in advice[2].split(" or ")]
    named += [{"normalize": name} for name in advice[3].split(" or ")]
    for options in named:
        assert not torch.allclose(decode("posterior", options), decode("marginal", options), atol=1e-6)
    assert advice[1] == {"luong": "input_feeding", "bahdanau": "the order luong with input_feeding"}[order]
    feeding = {"order": "luong", "input_feeding": True}
    assert not torch.allclose(
        decode("posterior", {}, **feeding), decode("marginal", {}, **feeding), atol=1e-6
    )
    others = [{"score": name} for name in SCORERS] + [{"normalize": name} for name in NORMALIZERS]
    for options in choose(others, lambda part: part not in named, at_least=15):
        with pytest.raises(ValidationError):
            decode("posterior", options)


def test_all_masked_rows_have_no_posterior():
    model = tiny.model(tiny.MODELS["feeding-posterior"])
    encoded, tokens = model.encode(tiny.sources(7, 0)), tiny.reads(2, 2)
    _, state = model.decoder.step(tokens[:, 0], model.decoder.start(encoded))
    state = model.decoder.observe(tokens[:, 1], state)
    assert_close(state.past.weights.sum(-1), torch.tensor([1.0, 0.0]))


def test_a_posterior_by_hand():
    """Prior 1/4 and 3/4; the first position predicts token 0 with 4/5, the second with 1/5."""
    output = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        output.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    readouts = torch.tensor([[[4.0], [0.25]]]).log() / 2
    log_weights, positions = top_k(torch.tensor([[0.25, 0.75]]), None)
    mixed, normalizers = mixture(readouts, log_weights, output)
    assert_close(mixed.exp(), torch.tensor([[0.35, 0.65]]))
    predictions = PositionPredictions(torch.zeros(1, 1, 1), readouts, normalizers, log_weights, positions)
    assert_close(posterior(predictions, torch.tensor([0]), output, 2), torch.tensor([[4 / 7, 3 / 7]]))


# ---- gradients and numbers ---------------------------------------------------------------------------


def test_the_gradient_is_that_of_the_sum():
    model, encoded, tokens = decoder_of("marginal")
    model.train()
    encoded = encoded._replace(states=encoded.states.detach(), summary=encoded.summary.detach())
    parameters = list(model.decoder.parameters())
    log_p, scores = by_position(model.decoder, encoded, tokens)
    expected = torch.autograd.grad((scores.log_softmax(-1) + log_p).logsumexp(-1).sum(), parameters)
    gradients = torch.autograd.grad(given(model.decoder(tokens, encoded).logits, tokens).sum(), parameters)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("top", [None, 2])
def test_gradcheck(top):
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    weights[0, 1] = 0.0
    weights = weights / weights.sum(-1, keepdim=True)
    readouts = torch.randn(2, top or 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    output = torch.nn.Linear(4, 5, dtype=torch.float64)

    def mixed(scores: Tensor, readouts: Tensor) -> Tensor:
        return mixture(readouts, top_k(scores.softmax(-1), top)[0], output)[0]

    scores = weights.clamp(min=1e-3).log().requires_grad_()
    assert torch.autograd.gradcheck(mixed, (scores, readouts))


@pytest.mark.parametrize("weights", [[[1.0, 0.0, 0.0]], [[0.0, 0.5, 0.5]], [[0.0, 0.0, 0.0]]])
def test_weights_of_zero_have_no_gradient_of_nan(weights):
    given = torch.tensor(weights, requires_grad=True)
    readouts, output = torch.randn(1, 3, 4, requires_grad=True), torch.nn.Linear(4, 5)
    log_weights, _ = top_k(given, None)
    mixed, _ = mixture(readouts, log_weights, output)
    mixed.square().sum().backward()
    for tensor in (mixed, given.grad, readouts.grad, output.weight.grad):
        assert tensor.isfinite().all()
    assert (readouts.grad[0, given[0] == 0] == 0).all() or not given.any()
    assert_close(log_weights.exp().sum(-1), torch.ones(1))


def test_unlikely_everywhere_is_finite():
    readouts = torch.tensor([[[1e4], [-1e4]]], requires_grad=True)
    output = torch.nn.Linear(1, 3)
    mixed, _ = mixture(readouts, top_k(torch.tensor([[0.5, 0.5]]), None)[0], output)
    mixed.sum().backward()
    assert mixed.isfinite().all() and readouts.grad.isfinite().all()


def test_the_widest_tensors_are_never_kept_for_all_steps():
    """(B, S, V) numbers of T steps would be most of the memory: none of them is kept for the gradient."""
    model, vocabulary = tiny.model(tiny.MODELS["luong-marginal"], target=997), 997
    encoded, kept = model.encode(tiny.sources(S)), []
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


def test_a_latent_alignment_needs_probabilities_of_single_positions():
    decoder = tiny.model(tiny.MODELS["luong-heads-lstm-1-tanh"]).decoder
    layers = OutputLayers(decoder.readout, decoder.output, decoder.dropout)

    def with_latent(attention: Any) -> LuongDecoder:
        latent = LatentAlignment("marginal")
        return LuongDecoder(decoder.embedding, decoder.cell, attention, layers, latent=latent)

    with pytest.raises(
        Seq2attnError, match="to one position at a time: give the decoder an attention of one"
    ):
        with_latent(decoder.attention)
    with pytest.raises(TypeCheckError, match="parameter 'attention'"):
        with_latent(None)
    loose = Chain()
    loose.sums_to_one = False
    with pytest.raises(Seq2attnError, match="are probabilities, and those of Chain need not sum to 1"):
        with_latent(Attention(Additive(14, 10), loose))


def test_shapes_are_types():
    with pytest.raises(TypeCheckError):
        top_k(torch.zeros(2, 3, 4), None)
