"""Decoders whose attention weights sentences, too: the laws of all decoders, and copying."""

from typing import Any

import pytest
import tiny
import torch
from test_decoders import (  # noqa: F401 - collected again, with the models of this file
    step_by_step,
    test_coverage_is_what_all_steps_have_looked_at,
    test_every_parameter_learns,
    test_padding_of_the_source_changes_nothing,
    test_reordering_commutes_with_stepping,
    test_steps_and_forward_agree,
    test_the_future_is_not_seen,
    test_weights_are_a_distribution_over_the_source,
)
from test_decoders import test_a_batch_is_a_list_of_sentences as test_batches_of_decoders  # noqa: F401
from tiny_hierarchical import ABOVE, recurrent, transformer
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention
from seq2attn.errors import Seq2attnError
from seq2attn.models.seq2seq import Seq2Seq

# ---- the laws of decoders ----------------------------------------------------------------------------


MODELS = {
    "luong": recurrent(),
    "bahdanau": recurrent("bahdanau", {"score": "general"}, readout="maxout", cell="gru"),
    "feeding-heads": recurrent(attention={"score": "scaled_dot", "heads": 2}, input_feeding=True),
    "coverage": recurrent("bahdanau", attention={"score": "coverage"}),
    "sparse": recurrent(attention={"normalize": "sparsemax"}),
    "marginal": recurrent(latent="marginal"),
    "posterior": recurrent(latent="posterior", input_feeding=True, top=3),
    "transformer": transformer({"sentences": {"score": "scaled_dot"}}),
    "transformer-one-layer": transformer({}, ABOVE),
    "transformer-shared": transformer(
        {"heads": 4, "key_heads": 2, "query_key_norm": True, **ABOVE}, norm="post"
    ),
    "transformer-talking": transformer({"talking": True, **ABOVE}, {"score": "general"}, positions="rotary"),
}


def told(tokens: Tensor, mask: Tensor) -> Tensor:
    """Which sentence each token is of: some tokens begin one."""
    return (tokens % 3 == 0).long().cumsum(-1).masked_fill(~mask, -1)


class ToldModel(Seq2Seq):
    """A model that is told them."""

    def forward(self, source: Tensor, mask: Tensor, reads: Tensor, look: Any = (), copies: Any = None) -> Any:
        return super().forward(source, mask, reads, look, copies, told(source, mask))


def tiny_model(name: str) -> Seq2Seq:
    made = tiny.model(MODELS[name])
    made.encoder.register_forward_hook(lambda _, given, found: found._replace(sentences=told(*given)))
    made.__class__ = ToldModel
    return made


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return tiny_model(request.param)


@pytest.fixture(params=MODELS)
def looking(request: pytest.FixtureRequest) -> Seq2Seq:
    return tiny_model(request.param)


def test_sentences_count(model):
    """Other sentences, other answers; one alone, those of the model without."""
    (source, mask), tokens = tiny.sources(7, 3), tiny.reads(2, 5)
    assert model.decoder.hierarchical
    said, one = model(source, mask, tokens).logits, (mask.long() - 1)
    alone = Seq2Seq.forward(model, source, mask, tokens, sentences=one).logits
    assert ((said - alone).abs().amax(-1) > 1e-6).any()
    for part in model.modules():
        if isinstance(part, Attention):
            part.hierarchy = None
    assert not model.decoder.hierarchical
    plain = Seq2Seq.forward(model, source, mask, tokens).logits
    assert_close(alone, plain, atol=1e-5, rtol=1e-5)  # a fused kernel may differ


def test_a_decoder_that_is_not_told_says_so():
    plain = tiny.model(MODELS["luong"])
    with pytest.raises(Seq2attnError, match="weights the sentences of a source: pass the sentence of each"):
        plain(*tiny.sources(7), tiny.reads(1, 3))


def copy_ids(source: Tensor, mask: Tensor) -> Tensor:
    """The ids that tokens are copied as: those from 11 on are not in the target's vocabulary."""
    ids = torch.full_like(source, tiny.TARGET + 1)
    for row, length in enumerate(mask.sum(1).tolist()):
        tokens = source[row, :length].tolist()
        ids[row, :length] = torch.tensor([t if t < 11 else tiny.TARGET + tokens.index(t) for t in tokens])
    return ids


def test_it_copies():
    recipe = recurrent(copying=True)
    pointer_generator, (source, mask), tokens = tiny.model(recipe), tiny.sources(7, 3), tiny.reads(2, 5)
    copies, of = copy_ids(source, mask), told(source, mask)
    whole = pointer_generator(source, mask, tokens, (), copies, of).logits
    assert_close(whole.softmax(-1).sum(-1), torch.ones(2, 5))
    stepped, _ = step_by_step(
        pointer_generator.decoder, tokens, pointer_generator.start(source, mask, copies, of)
    )
    assert_close(stepped, whole, atol=1e-5, rtol=1e-5)
