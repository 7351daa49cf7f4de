"""Norms of weighted vectors: equal to what the decoder adds up, computed one by one; and rows that sum to 1."""

import pytest
import tiny
import torch
from torch.testing import assert_close

from seq2attn.inference.attention_norms import multi_head, recorded_vectors, vector_norms

KINDS = [
    "bahdanau-additive-gru-1-maxout",
    "luong-heads-lstm-2-tanh",
    "feeding-additive-lstm-1-tanh",
    "transformer-pre-rotary",
    "transformer-rotary-sinks",
]


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_the_recorded_vectors_sum_to_the_context(name):
    """sum_s sum_h alpha_h f_h(x_s) is what the attention returns, but for the bias of its output."""
    model = tiny.model(tiny.MODELS[name]).eval()
    decoder, source = model.decoder, tiny.sources(5, 3, model=model)
    layer = decoder.attention_layers - 1
    owner, outputs = multi_head(decoder, layer), []
    module = owner or decoder.cross_attention(layer)
    module.register_forward_hook(lambda *call: outputs.append(call[2].context))
    with recorded_vectors(decoder, [layer]) as vectors:
        decoded = model(source, tiny.reads(2, 4), [layer])
    bias = 0 if owner is None else owner.out.bias
    context = torch.einsum("bhts,bhsd->btd", decoded.weights[:, 0], vectors[layer])
    assert_close(context + bias, torch.cat(outputs, 1)[:, : context.shape[1]])


def test_norms_of_a_head_and_of_all_heads_one_by_one():
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(2, 3, 4, 5, generator=generator)
    vectors = 0.01 * torch.randn(2, 3, 5, 6, generator=generator)
    for head in (None, 0, 2, -1):
        found = vector_norms(weights, vectors, head)
        assert_close(found.sum(-1), torch.ones(2, 4))
        for b in range(2):
            for t in range(4):
                heads = range(3) if head is None else [head]
                sums = [sum(weights[b, h, t, s] * vectors[b, h, s] for h in heads).norm() for s in range(5)]
                assert_close(found[b, t], torch.stack(sums) / sum(sums))


def test_vectors_of_equal_length_leave_the_weights_as_they_are():
    weights = torch.rand(1, 2, 3, 4).softmax(-1)
    vectors = torch.nn.functional.normalize(torch.randn(1, 2, 4, 5), dim=-1)
    assert_close(vector_norms(weights, vectors, 1), weights[:, 1])


def test_a_row_without_weights_stays_without():
    assert (vector_norms(torch.zeros(1, 2, 3, 4), torch.randn(1, 2, 4, 5), None) == 0).all()
