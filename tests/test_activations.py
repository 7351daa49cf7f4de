"""What is inside a model: all attention weights and hidden states of a pair, also as parts of a graph."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from seq2attn.inference.activations import Activations
from seq2attn.inference.generator import AlignmentHead

SOURCE, TARGET = "Wo ist mein Buch?", "Where is my book?"
KINDS = ["model", "lstm", "transformer"]


def look(translators: Any, kind: str, **options: Any) -> tuple[Any, Activations]:
    model = translators[kind]
    return model, model.look(SOURCE, TARGET, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_all_layers_are_those_of_forced_decoding(translators: Any, kind: str) -> None:
    model, found = look(translators, kind)
    layers, heads = found.cross_attention.shape[1:3]
    assert found.cross_attention.shape[3:] == (len(found.target), len(found.source))
    assert (found.source[-1], found.target[-1]) == ("</s>", "</s>")
    for layer in range(layers):
        for head in range(heads):
            (forced,) = model._force([SOURCE], [TARGET], AlignmentHead(layer, head))
            assert_close(found.cross_attention[0, layer, head], forced.weights)
    assert layers * heads == {"model": 1, "lstm": 1, "transformer": 6}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_the_model(translators: Any, kind: str) -> None:
    model, found = look(translators, kind)
    (expected,) = model.log_probabilities([SOURCE], [TARGET])
    assert float(found.target_log_probabilities.sum()) == pytest.approx(expected, abs=1e-4)
    assert_close(found.log_probabilities.exp().sum(-1), torch.ones(1, len(found.target)))


def test_self_attention_is_of_every_layer_and_the_decoders_sees_no_later_piece(translators: Any) -> None:
    _, found = look(translators, "transformer")
    assert [one.shape[1] for one in found.encoder_attention] == [2]
    assert [one.shape[1] for one in found.decoder_attention] == [4, 4, 4]
    for weights in (*found.encoder_attention, *found.decoder_attention):
        assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert all(not one.triu(1).any() for one in found.decoder_attention)
    _, recurrent = look(translators, "lstm")
    assert recurrent.encoder_attention == recurrent.decoder_attention == ()


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_of_every_layer(translators: Any, kind: str) -> None:
    model, found = look(translators, kind)
    layers = {"model": (1, 1), "lstm": (1, 1), "transformer": (2, 3)}[kind]  # after the embeddings
    assert (len(found.encoder_states) - 1, len(found.decoder_states) - 1) == layers
    assert {one.shape[1] for one in found.encoder_states} == {len(found.source)}
    assert {one.shape[1] for one in found.decoder_states} == {len(found.target)}
    source = model.generator.tokenizer.collate([model._tokenize(SOURCE).ids])
    with torch.no_grad():
        assert_close(found.encoder_states[-1], model.model.encode(source).states)
        assert_close(found.encoder_states[0], model.model.encoder.embedding(source.tokens))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_on_what_is_seen_have_gradients(translators: Any, kind: str) -> None:
    _, found = look(translators, kind, gradients=True)
    _, plain = look(translators, kind)
    assert_close([part.detach() for part in found.encoder_states], [*plain.encoder_states])
    assert_close(found.cross_attention.detach(), plain.cross_attention)
    assert not plain.log_probabilities.requires_grad
    for value in (found.target_log_probabilities.sum(), found.cross_attention.square().sum()):
        parts = [found.encoder_states[0], found.decoder_states[0]]
        gradients = torch.autograd.grad(value, parts, retain_graph=True)
        assert all(one.isfinite().all() and one.abs().max() > 0 for one in gradients)


def test_the_gradient_of_an_embedding_is_what_a_small_change_does(translators: Any) -> None:
    """Input x gradient is made of this one; it is compared with a difference of two passes."""
    model, found = look(translators, "lstm", gradients=True)
    (gradient,) = torch.autograd.grad(found.target_log_probabilities.sum(), [found.encoder_states[0]])
    change = torch.zeros_like(gradient)
    change[0, 2, 3] = 1e-2
    values = []
    for sign in (1, -1):
        hook = model.model.encoder.embedding.register_forward_hook(lambda _, __, x, s=sign: x + s * change)
        values.append(float(model.look(SOURCE, TARGET).target_log_probabilities.sum()))
        hook.remove()
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(float(gradient[0, 2, 3]), rel=0.05, abs=2e-4)


def test_without_a_target_it_is_the_models_own(translators: Any) -> None:
    model = translators["model"]
    assert model.look(SOURCE).target == [*model.translate(SOURCE).tokens, "</s>"]
