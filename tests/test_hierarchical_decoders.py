"""Decoders that attend to words and sentences: the laws of decoders hold for them, too."""

from typing import Any

import decoder_laws as laws
import pytest
import tiny
import torch
from cases import choose_names
from decoder_laws import has_posterior, step_by_step
from torch.testing import assert_close

from seq2attn.attention.attention import Attention
from seq2attn.errors import Seq2attnError
from seq2attn.models.seq2seq import Seq2Seq


def recurrent(order: str = "luong", sentences: Any = None, attention: Any = None, **options: Any) -> Any:
    decoder = tiny.recurrent_decoder(order, **options)
    decoder["attention"] = {"score": "additive", **(attention or {}), "sentences": sentences or {}}
    return {"encoder": tiny.recurrent_encoder(), "decoder": decoder}


def transformer(*layers: Any, **options: Any) -> Any:
    cross = [{"heads": 5, **layer} for layer in layers]
    decoder = tiny.transformer(decoder=True, cross_attention=cross if len(cross) > 1 else cross[0], **options)
    return {"encoder": tiny.transformer(), "decoder": decoder}


SENTENCES: dict[str, Any] = {"sentences": {"score": {"name": "additive", "size": 7}}}
MODELS = {
    "luong": recurrent(),
    "bahdanau": recurrent("bahdanau", {"score": "general"}, readout="maxout", cell="gru"),
    "feeding-heads": recurrent(attention={"score": "scaled_dot", "heads": 2}, input_feeding=True),
    "coverage": recurrent("bahdanau", attention={"score": "coverage"}),
    "sparse": recurrent(attention={"normalize": "sparsemax"}),
    "marginal": recurrent(latent="marginal"),
    "posterior": recurrent(latent="posterior", input_feeding=True, top=3),
    "transformer": transformer({"sentences": {"score": "scaled_dot"}}),
    "transformer-one-layer": transformer({}, SENTENCES),
    "transformer-shared": transformer(
        {"heads": 4, "key_heads": 2, "query_key_norm": True, **SENTENCES}, norm="post"
    ),
    "transformer-talking": transformer(
        {"talking": True, **SENTENCES}, {"score": "general"}, positions="rotary"
    ),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return tiny.model(MODELS[request.param])


recording = pytest.mark.parametrize("gradients", [False, True], ids=["without gradients", "with gradients"])


@recording
def test_steps_and_forward_agree(model, gradients):
    with torch.set_grad_enabled(gradients):
        laws.steps_and_forward_agree(model)


def test_weights_are_a_distribution_over_the_source(model):
    laws.weights_are_a_distribution_over_the_source(model)


def test_only_past_tokens_matter(model):
    laws.only_past_tokens_matter(model)


@recording
@pytest.mark.parametrize("coverage", [False, True])
def test_reordering_commutes_with_stepping(model, coverage, gradients):
    with torch.set_grad_enabled(gradients):
        laws.reordering_commutes_with_stepping(model, coverage)


def test_tracking_coverage_changes_no_step(model):
    laws.tracking_coverage_changes_no_step(model)


@pytest.mark.parametrize("name", choose_names(MODELS, lambda r: not has_posterior(r), at_least=10))
def test_coverage_is_the_sum_of_weights(name):
    laws.coverage_is_the_sum_of_weights(tiny.model(MODELS[name]))


def test_padding_of_the_source_changes_nothing(model):
    laws.padding_of_the_source_changes_nothing(model)
    laws.padding_has_no_weights(model)


def test_a_batch_is_a_list_of_sentences(model):
    laws.a_batch_is_a_list_of_sentences(model)


def test_every_parameter_learns(model):
    laws.every_parameter_learns(model)


def test_sentences_matter(model):
    """Other sentences, other logits; with a single one, those of the model without a hierarchy."""
    source, tokens = tiny.sources(7, 3, model=model), tiny.reads(2, 5)
    assert model.decoder.hierarchical and (source.sentence_ids > 0).any()
    single = source._replace(sentence_ids=source.mask.long() - 1)
    logits, of_single = model(source, tokens).logits, model(single, tokens).logits
    assert ((logits - of_single).abs().amax(-1) > 1e-6).any()
    for part in model.modules():
        if isinstance(part, Attention):
            part.hierarchy = None
    assert not model.decoder.hierarchical
    plain = model(source._replace(sentence_ids=None), tokens).logits
    assert_close(of_single, plain, atol=1e-5, rtol=1e-5)  # a fused kernel may differ


def test_a_hierarchy_needs_sentence_ids():
    plain = tiny.model(MODELS["luong"])
    with pytest.raises(Seq2attnError, match=r"this attention .* sentences"):
        plain(tiny.sources(7), tiny.reads(1, 3))


def test_it_copies():
    model = tiny.model(recurrent(copying=True))
    source, tokens = tiny.sources(7, 3, model=model), tiny.reads(2, 5)
    assert source.copy_ids is not None and source.sentence_ids is not None
    whole = model(source, tokens).logits
    assert_close(whole.softmax(-1).sum(-1), torch.ones(2, 5))
    stepped, _ = step_by_step(model.decoder, tokens, model.start(source))
    assert_close(stepped, whole, atol=1e-5, rtol=1e-5)
