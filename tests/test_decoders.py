"""Decoders: the laws that hold for every one of them, and the token that weights belong to."""

import itertools
from typing import Any

import decoder_laws as laws
import pytest
import tiny
import torch
from cases import choose, choose_names
from decoder_laws import LENGTHS, all_layers, attends, changed, encode, has_posterior, step_by_step
from torch import Tensor, nn
from torch.testing import assert_close

from seq2attn.attention.attention import Attention
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.state import PerSource
from seq2attn.errors import Seq2attnError
from seq2attn.models.decoders import Decoder
from seq2attn.models.encoders import Encoded
from seq2attn.models.seq2seq import Seq2Seq

ATTENDING = choose_names(tiny.MODELS, attends, at_least=68)
WITHOUT_ATTENTION = choose_names(tiny.SOME, lambda recipe: not attends(recipe), at_least=2)
PRIORS = choose_names(tiny.MODELS, lambda r: attends(r) and not has_posterior(r), at_least=66)
TRANSFORMERS = choose(tiny.MODELS, lambda name: name.startswith("transformer"), at_least=14)


@pytest.fixture(params=tiny.MODELS)
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return tiny.model(tiny.MODELS[request.param])


@pytest.fixture(params=ATTENDING)
def attending(request: pytest.FixtureRequest) -> Seq2Seq:
    """A model with cross-attention."""
    return tiny.model(tiny.MODELS[request.param])


# ---- laws --------------------------------------------------------------------------------------------

GRADIENTS = [False, True]  # where none is recorded, some states grow in place


def test_steps_and_forward_agree(model):
    for gradients in GRADIENTS:
        with torch.set_grad_enabled(gradients):
            laws.steps_and_forward_agree(model)


@torch.no_grad()
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_state_that_was_kept_can_be_stepped_again(model):
    """With other tokens, which others have not read: a state is a value."""
    decoder, tokens = model.decoder, tiny.reads(3, 4)
    state = decoder.start(encode(model))
    states = [state := decoder.step(token, state)[1] for token in tokens.unbind(1)]
    for length in (3, 1, 4, 2):
        for last in range(tiny.SPECIALS, tiny.SPECIALS + 2):
            read = torch.cat([tokens[:, :length], torch.full((3, 1), last)], 1)
            logits, _ = decoder.step(read[:, -1], states[length - 1])
            assert_close(logits, decoder(read, encode(model)).logits[:, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["transformer-pre-rotary", "transformer-rotary-sinks", "luong-heads-lstm-2-tanh"]
)
def test_decoding_that_begins_in_inference_mode_may_go_on_without(name):
    model = tiny.model(tiny.MODELS[name])
    encoded, tokens = encode(model), tiny.reads(3, 5)
    with torch.inference_mode():
        state = model.decoder.start(encoded)
        for token in tokens[:, :3].unbind(1):
            _, state = model.decoder.step(token, state)
    with torch.no_grad():
        logits, _ = step_by_step(model.decoder, tokens[:, 3:], state)
        assert_close(logits, model.decoder(tokens, encoded).logits[:, 3:], atol=1e-5, rtol=1e-5)


def test_a_step_of_no_sentences_is_empty(model):
    encoded = model.encode(tiny.rows(tiny.sources(*LENGTHS), slice(0)))
    logits, _ = model.decoder.step(tiny.reads(3, 1)[:0, 0], model.decoder.start(encoded))
    assert logits.shape == (0, tiny.TARGET)


def test_weights_are_a_distribution_over_the_source(attending):
    laws.weights_are_a_distribution_over_the_source(attending)


def test_weights_are_of_the_layers_asked_for_in_their_order():
    model = tiny.model(tiny.MODELS["transformer-pre-rotary"])
    encoded, tokens = encode(model), tiny.reads(3, 5)
    first, second = model.decoder(tokens, encoded, [0, 1]).weights.unbind(1)
    assert first.shape == (3, 5, 5, 7) and not torch.allclose(first[:2], second[:2])  # 5 heads
    assert_close(model.decoder(tokens, encoded, [1, 0]).weights, torch.stack([second, first], 1))
    assert_close(model.decoder(tokens, encoded, [1]).weights, second[:, None])


def test_only_past_tokens_matter(model):
    laws.only_past_tokens_matter(model)


@pytest.mark.usefixtures("unchecked_shapes")
def test_reordering_commutes_with_stepping(model):
    for gradients, coverage in itertools.product(GRADIENTS, (False, True)):
        with torch.set_grad_enabled(gradients):
            laws.reordering_commutes_with_stepping(model, coverage)


@torch.no_grad()
@pytest.mark.usefixtures("unchecked_shapes")
def test_hypotheses_of_a_sentence_step_as_sentences_do(model):
    for coverage in (False, True):
        laws.hypotheses_step_as_sentences_do(model, coverage)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_hypotheses_share_the_memory_of_their_tokens_if_positions_in_it_do_not_matter(name):
    model = tiny.model(tiny.MODELS[name])
    _, state = model.decoder.step(tiny.reads(3, 1)[:, 0], model.start(tiny.sources(*LENGTHS)))
    separate = {
        "transformer-alibi-window": [0, 1],
        "transformer-t5-dot": [0, 1],
        "transformer-shaw": [0, 1],
        "transformer-shaw-keys-window": [0, 1],
        "transformer-rotary-sinks": [0, 1],
        "transformer-by-layer": [1],
        "transformer-nowhere": [0, 1],
    }.get(name, [])
    assert [
        n for n, layer in enumerate(state.layers) if not isinstance(layer.self_memory, PerSource)
    ] == separate
    assert (state.own_tokens is None) == (separate == [0, 1])


@pytest.mark.usefixtures("unchecked_shapes")
def test_tracking_coverage_changes_no_step(attending):
    laws.tracking_coverage_changes_no_step(attending)


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.usefixtures("unchecked_shapes")
def test_coverage_is_the_sum_of_weights(name):
    laws.coverage_is_the_sum_of_weights(tiny.model(tiny.MODELS[name]))


def test_a_transformer_tracks_coverage_in_its_last_layer_and_only_on_request():
    model = tiny.model(tiny.MODELS["transformer-pre-rotary"])
    start = model.decoder.start(encode(model))
    _, state = step_by_step(model.decoder, tiny.reads(3, 2), start)
    assert model.decoder.coverage(start) is model.decoder.coverage(state) is None
    _, state = step_by_step(model.decoder, tiny.reads(3, 2), model.decoder.track_coverage(start))
    assert [layer.cross_past.coverage is None for layer in state.layers] == [True, False]
    assert state.layers[-1].cross_past.step == 2


@pytest.mark.parametrize("name", WITHOUT_ATTENTION)
def test_without_attention_there_is_no_coverage(name):
    decoder = tiny.model(tiny.MODELS[name]).decoder
    state = decoder.start(encode(tiny.model(tiny.MODELS[name])))
    assert decoder.track_coverage(state) is state and decoder.coverage(state) is None


def test_padding_of_the_source_changes_nothing(model):
    laws.padding_of_the_source_changes_nothing(model)


def test_padding_has_no_weights(attending):
    laws.padding_has_no_weights(attending)


def test_a_batch_is_a_list_of_sentences(model):
    laws.a_batch_is_a_list_of_sentences(model)


def test_the_source_is_read(model):
    tokens = tiny.reads(1, 5)
    one, other = (model(tiny.sources(7, seed=seed), tokens).logits for seed in (1, 2))
    assert ((one - other).abs().amax(-1) > 1e-4).all()


def test_every_parameter_learns(model):
    laws.every_parameter_learns(model)


def test_the_source_is_remembered_once(attending, monkeypatch):
    remembered = []
    remember = Attention.remember
    monkeypatch.setattr(
        Attention, "remember", lambda self, *a, **k: remembered.append(self) or remember(self, *a, **k)
    )
    state = attending.decoder.start(encode(attending))
    assert len(remembered) == attending.decoder.attention_layers + self_attentions(attending.encoder)
    remembered.clear()
    step_by_step(attending.decoder, tiny.reads(3, 4), state)
    assert len(remembered) == 4 * self_attentions(attending.decoder)


def self_attentions(part: nn.Module) -> int:
    """The number of its layers with self-attention."""
    return len(getattr(part, "layers", []))


@pytest.mark.parametrize("name", WITHOUT_ATTENTION)
def test_without_attention_there_are_no_weights(name):
    model = tiny.model(tiny.MODELS[name])
    assert model(tiny.sources(*LENGTHS), tiny.reads(3, 5), [0]).weights is None
    assert model.decoder.attention_layers == 0


@pytest.mark.parametrize("name", ATTENDING)
def test_weights_are_returned_only_on_request(name):
    assert tiny.model(tiny.MODELS[name])(tiny.sources(*LENGTHS), tiny.reads(3, 5)).weights is None


@pytest.mark.parametrize(
    "name",
    [
        "bahdanau-heads-lstm-1-tanh",
        "luong-heads-gru-1-tanh",
        "feeding-heads-gru-2-tanh",
        "transformer-pre-rotary",
    ],
)
def test_a_stateful_attention_is_so_in_steps_too(name):
    model = tiny.model(tiny.MODELS[name])
    layers = getattr(model.decoder, "layers", None)
    for heads in [model.decoder.attention] if layers is None else [layer.cross_attention for layer in layers]:
        size = heads.query.out_features // heads.heads
        heads.attention = Attention(tiny.Fading(size, size), Softmax())
    laws.steps_and_forward_agree(model)
    for coverage in (False, True):
        laws.reordering_commutes_with_stepping(model, coverage)


@pytest.mark.parametrize("section", [{"score": "location"}, {"normalize": "local_p"}])
def test_position_dependent_self_attention_is_so_in_steps_too(section):
    self_attention = {"self_attention": {"heads": 2, **section}}
    recipe = {"encoder": tiny.transformer(), "decoder": tiny.transformer(decoder=True) | self_attention}
    model = tiny.model(recipe)
    assert not model.decoder.shares
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            laws.steps_and_forward_agree(model)
    with torch.no_grad():
        laws.hypotheses_step_as_sentences_do(model, False)


# ---- which token the weights belong to ---------------------------------------------------------------


@pytest.mark.parametrize("name", ATTENDING)
@pytest.mark.usefixtures("unchecked_shapes")
def test_weights_depend_on_the_token_that_was_read_but_in_bahdanaus_order(name):
    """So only there can the weights of a step depend on nothing but the tokens before."""
    model = tiny.model(tiny.MODELS[name])
    encoded, tokens = encode(model), tiny.reads(3, 5)
    before, after = (
        model.decoder(t, encoded, all_layers(model)).weights[:2, ..., 4, :]
        for t in (tokens, changed(tokens, 4))
    )
    assert torch.equal(before, after) == name.startswith("bahdanau")
    assert model.decoder.alignment_shift == 0  # measured: scripts/measure_alignment_shift.py


@pytest.mark.parametrize("order", ["bahdanau", "luong", "feeding"])
def test_the_query_is_the_top_layers_state_before_or_after_it_has_read(order):
    model = tiny.model(tiny.MODELS[f"{order}-additive-lstm-2-tanh"])
    queries: list[Tensor] = []
    model.decoder.attention.register_forward_pre_hook(lambda module, given: queries.append(given[0]))
    before = model.decoder.start(encode(model))
    _, after = model.decoder.step(tiny.reads(3, 1)[:, 0], before)
    (query,) = queries
    assert_close(query, (before if order == "bahdanau" else after).hidden[0][:, 1:])


# ---- what cannot be ----------------------------------------------------------------------------------


def test_positions_beyond_the_learned_ones_are_an_error_in_steps_too():
    recipe = tiny.transformer(decoder=True, positions={"name": "learned", "length": 2})
    model = tiny.model({"encoder": tiny.recurrent_encoder(), "decoder": recipe})
    with pytest.raises(Seq2attnError, match="position 2 is beyond the 2 learned positions"):
        step_by_step(model.decoder, tiny.reads(3, 3), model.decoder.start(encode(model)))
    with pytest.raises(Seq2attnError, match="position 2 is beyond the 2 learned positions"):
        model.decoder(tiny.reads(3, 3), encode(model))


def test_a_decoder_must_implement_its_methods():
    class Idle(Decoder):
        pass

    idle, encoded = Idle(), Encoded(torch.zeros(1, 7, 10), torch.ones(1, 1, 7).bool(), torch.zeros(1, 10))
    calls: dict[str, Any] = {
        "start": lambda: idle.start(encoded),
        "step": lambda: idle.step(tiny.reads(1, 1)[:, 0], None),
        "forward": lambda: idle(tiny.reads(1, 1), encoded),
        "cross_attention": lambda: idle.cross_attention(0),
    }
    for name, call in calls.items():
        with pytest.raises(NotImplementedError, match=rf"Idle must implement {name}\(\)"):
            call()
