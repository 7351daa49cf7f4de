"""Encoders against torch's own on each sentence alone, and padding that never leaks."""

import pytest
import tiny
import torch
from torch import nn
from torch.testing import assert_close
from torchs import load_encoder_layer, randomised

from seq2attn.attention import Attention
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.scorers import ScaledDot
from seq2attn.layers.basic import ACTIVATIONS, Dropout, Embedding, FeedForward
from seq2attn.layers.recurrent import CELLS
from seq2attn.models.encoders import Encoder, EncoderLayer, RecurrentEncoder

ENCODERS = {
    "lstm": tiny.recurrent_encoder(),
    "gru-2-one-way": tiny.recurrent_encoder(cell="gru", layers=2, bidirectional=False),
    **{
        f"{norm}-{positions}": tiny.transformer(norm=norm, positions=positions)
        for norm in ("pre", "post")
        for positions in ("sinusoidal", "learned", "rotary")
    },
}


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    decoder = tiny.recurrent_decoder("sutskever")
    return tiny.model({"encoder": ENCODERS[request.param], "decoder": decoder}).encoder


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_is_torchs_on_each_sentence_alone(cell, layers, bidirectional):
    torch.manual_seed(2)
    embedding = Embedding(tiny.SOURCE, 11, Dropout(0.0))
    ours = RecurrentEncoder(embedding, cell, 7, layers, bidirectional, Dropout(0.0)).eval()
    theirs = CELLS[cell](11, 7, layers, batch_first=True, bidirectional=bidirectional)
    theirs.load_state_dict(
        {
            f"{name.removesuffix('_l0')}_l{layer}{'_reverse' * direction}": tensor
            for layer, directions in enumerate(ours.rnn.layers)
            for direction, rnn in enumerate(directions)
            for name, tensor in rnn.state_dict().items()
        }
    )
    source = tiny.sources(3, 7, 1, 5)  # not sorted
    encoded = ours(source.tokens, source.mask)
    assert ours.size == encoded.states.shape[-1] == encoded.summary.shape[-1] == 7 * (1 + bidirectional)
    for row, length in enumerate((3, 7, 1, 5)):
        states, last = theirs(embedding.table(source.tokens[row : row + 1, :length]))
        hidden = last[0] if cell == "lstm" else last
        assert_close(encoded.states[row : row + 1, :length], states)
        top = hidden.view(layers, 1 + bidirectional, 1, 7)[-1]
        assert_close(encoded.summary[row], top.flatten())


def test_the_summary_is_of_the_whole_sentence():
    """Forwards the last state, backwards the first."""
    model = tiny.model(tiny.MODELS["bahdanau-additive-lstm-1-tanh"])
    encoded = model.encode(tiny.sources(3, 7))
    assert_close(encoded.summary[0], torch.cat([encoded.states[0, 2, :5], encoded.states[0, 0, 5:]]))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_layer_is_torchs(norm, activation):
    torch.manual_seed(2)
    theirs = nn.TransformerEncoderLayer(
        22, 2, 17, 0.0, activation, batch_first=True, norm_first=norm == "pre", dtype=torch.float64
    )
    randomised(theirs)
    heads = MultiHead(2, 22, 22, Attention(ScaledDot(11, 11), Softmax()))
    ours = EncoderLayer(heads, FeedForward(22, 17, activation), norm, 0.0).double().eval()
    load_encoder_layer(ours, theirs)
    mask = torch.arange(7) < torch.tensor([7, 4, 1])[:, None]
    x = torch.randn(3, 7, 22, dtype=torch.float64)
    expected = theirs.train()(x, src_key_padding_mask=~mask)  # its path of evaluation zeroes padding
    assert_close(ours(x, mask[:, None])[mask], expected[mask])
    assert activation in ACTIVATIONS


def test_padding_never_leaks(encoder):
    source, wider = tiny.sources(7, 3, 1), tiny.sources(7, 3, 1, width=11, seed=5)
    encoded = encoder(source.tokens, source.mask)
    wider.tokens[:, :7] = torch.where(source.mask, source.tokens, wider.tokens[:, :7])
    padded = encoder(wider.tokens, wider.mask)
    assert torch.equal(padded.mask, wider.mask[:, None]) and (encoded.states[~source.mask] == 0).all()
    assert_close(padded.states[:, :7], encoded.states)
    assert (padded.states[:, 7:] == 0).all()
    assert_close(padded.summary, encoded.summary)


def test_a_batch_is_a_list_of_sentences(encoder):
    source = tiny.sources(7, 3, 5)
    encoded = encoder(source.tokens, source.mask)
    for row, length in enumerate((7, 3, 5)):
        sentence = tiny.rows(source, [row], length)
        alone = encoder(sentence.tokens, sentence.mask)
        assert_close(alone.states, encoded.states[row : row + 1, :length])
        assert_close(alone.summary, encoded.summary[row : row + 1])


def test_an_empty_source_gives_zeros_and_disturbs_nobody(encoder):
    encoder.train()  # all dropout rates are 0
    source = tiny.sources(7, 0, 3)
    encoded = encoder(source.tokens, source.mask)
    assert (encoded.states[1] == 0).all() and (encoded.summary[1] == 0).all()
    (encoded.states.square().sum() + encoded.summary.square().sum()).backward()
    gradients = {name: p.grad.clone() for name, p in encoder.named_parameters()}
    encoder.zero_grad()
    alone = encoder(source.tokens[[0, 2]], source.mask[[0, 2]])
    (alone.states.square().sum() + alone.summary.square().sum()).backward()
    assert_close(encoded.states[[0, 2]], alone.states)
    for name, parameter in encoder.named_parameters():
        assert gradients[name].isfinite().all()
        assert_close(gradients[name], parameter.grad, atol=1e-4, rtol=1e-4)


def test_order_matters(encoder):
    source = tiny.sources(7)
    source.tokens[0, :2] = torch.tensor([5, 9])
    swapped = source.tokens.clone()
    swapped[0, :2] = torch.tensor([9, 5])
    before, after = (encoder(tokens, source.mask).states for tokens in (source.tokens, swapped))
    assert (before[0, 2] - after[0, 2]).abs().max() > 1e-3  # the state of a later token


@pytest.mark.parametrize("name", ["lstm", "pre-sinusoidal", "post-rotary"])
def test_dropout_is_drawn_in_training_alone(name):
    recipe = {**ENCODERS[name], "dropout": 0.5}
    model = tiny.model({"encoder": recipe, "decoder": tiny.recurrent_decoder("sutskever")})
    source = tiny.sources(7, 3)
    assert torch.equal(model.encode(source).states, model.encode(source).states)
    model.train()
    assert not torch.allclose(model.encode(source).states, model.encode(source).states)


def test_an_encoder_must_implement_encode():
    class Idle(Encoder):
        pass

    with pytest.raises(NotImplementedError, match=r"Idle must implement encode\(\)"):
        Idle().encode(torch.zeros(1, 3, 5), tiny.sources(3).mask)
