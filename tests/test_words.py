"""Word embeddings against each word encoded alone and the papers' formulas written out.

Sizes are different primes: words of 7, characters of 5, LSTMs of 3 (each direction) or 11 filters.
"""

import copy

import numpy as np
import pytest
import tiny_words
import torch
import torch.nn.functional as F
from tiny import tensors
from torch import nn
from torch.testing import assert_close

from seq2attn.attention.positions import Sinusoidal
from seq2attn.data.word_batches import LabelledBatch
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Dropout, Gate
from seq2attn.layers.word_embedding import CharacterEncoder, CharCNN, CharLSTM, WordEmbedding, word_table
from seq2attn.models.encoders import RecurrentEncoder
from seq2attn.text.word_vocabulary import UNKNOWN

ENCODERS = {
    "lstm": lambda: CharLSTM(tiny_words.CHARACTERS, 5, 3),
    "cnn": lambda: CharCNN(tiny_words.CHARACTERS, 5, 11),
    "cnn-even": lambda: CharCNN(tiny_words.CHARACTERS, 5, 11, window=4),
}
SENTENCES = tiny_words.sentences(7, 4, 0, 1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


@pytest.fixture(params=ENCODERS)
def character_encoder(request: pytest.FixtureRequest) -> CharacterEncoder:
    return ENCODERS[request.param]().double().eval()


def embedding(character_encoder: CharacterEncoder | None = None, **options: object) -> WordEmbedding:
    table = word_table(tiny_words.WORDS, 7)
    return WordEmbedding(table, Dropout(0.0), character_encoder, **options).double().eval()


# ---- characters --------------------------------------------------------------------------------------


def test_a_word_is_encoded_as_if_alone(character_encoder):
    words = tiny_words.batch(*SENTENCES, garbage=True)
    for block in words.characters:
        whole = character_encoder(block)
        assert whole.shape == (len(block), character_encoder.size)
        for row, characters in enumerate(block):
            alone = character_encoder(characters[characters != 0][None])
            assert_close(whole[row], alone[0])


def test_a_word_without_characters_is_zeros_without_gradients(character_encoder):
    vectors = character_encoder(torch.tensor([[3, 4, 5], [0, 0, 0]]))
    assert (vectors[1] == 0).all() and (vectors[0] != 0).any()
    vectors[1].sum().backward()
    assert all((p.grad == 0).all() for p in character_encoder.parameters() if p.grad is not None)


def test_the_lstm_is_torchs_last_states():
    character_encoder = ENCODERS["lstm"]().double()
    characters = torch.tensor([4, 9, 2, 7])
    x = character_encoder.table(characters)[None]
    (forwards, backwards), *_ = character_encoder.rnn.layers
    (forward, _), (backward, _) = forwards(x), backwards(x.flip(1))
    vectors = character_encoder(F.pad(characters, (0, 3))[None])
    assert_close(vectors[0], torch.cat([forward[0, -1], backward[0, -1]]))


@pytest.mark.parametrize(("window", "before"), [(3, 1), (4, 1), (1, 0)])
def test_the_cnn_is_the_formula(window, before):
    """Ma & Hovy 2016: the largest of each filter over all windows, with zeros beyond the word."""
    character_encoder = CharCNN(tiny_words.CHARACTERS, 5, 11, window).double()
    characters = [4, 9]
    x = np.zeros((len(characters) + window - 1, 5))
    x[before : before + 2] = character_encoder.table(torch.tensor(characters)).detach().numpy()
    kernel, bias = (
        p.detach().numpy() for p in (character_encoder.convolution.weight, character_encoder.convolution.bias)
    )
    windows = [np.einsum("we,few->f", x[start : start + window], kernel) + bias for start in range(2)]
    assert_close(
        character_encoder(torch.tensor([[*characters, 0, 0, 0]]))[0].detach().numpy(),
        np.tanh(np.max(windows, 0)),
    )


def test_the_order_of_characters_matters(character_encoder):
    one, other = character_encoder(torch.tensor([[2, 3, 4, 5], [5, 4, 3, 2]]))
    assert (one - other).abs().max() > 1e-3


def test_gradients_of_characters_are_those_of_the_formula(character_encoder):
    characters = torch.tensor([[3, 4, 5], [6, 0, 0]])
    table = character_encoder.table.weight.detach().clone().requires_grad_()

    def encode(table: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(character_encoder, {"table.weight": table}, (characters,))

    assert torch.autograd.gradcheck(encode, (table,))


def test_a_character_encoder_must_implement_forward():
    with pytest.raises(NotImplementedError, match=r"CharacterEncoder must implement forward\(\)"):
        CharacterEncoder(5, 3, 0.0)(torch.ones(1, 2, dtype=torch.long))


# ---- words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("join", ["concat", "gate"])
def test_a_word_does_not_depend_on_its_batch(character_encoder, join):
    part = embedding(character_encoder, joined=join)
    words = tiny_words.batch(*SENTENCES, garbage=True)
    whole = part(words)
    assert whole.shape == (*words.ids.shape, part.size)
    assert part.size == (7 if join == "gate" else 7 + character_encoder.size)
    for row, sentence in enumerate(SENTENCES):
        for position, word in enumerate(sentence):
            assert_close(whole[row, position], part(tiny_words.batch([word]))[0, 0])


def test_concat_is_word_then_characters(character_encoder):
    part, words = embedding(character_encoder), tiny_words.batch(*SENTENCES)
    expected = torch.cat(
        [
            part.table(words.ids),
            torch.cat([character_encoder(block) for block in words.characters])[words.character_rows],
        ],
        -1,
    )
    assert torch.equal(part(words), expected)


def test_the_gate_is_the_formula(character_encoder):
    """Rei et al. 2016: z = sigmoid(W3 tanh(W1 x + W2 m)), z x + (1 - z) m with m = tanh(W h + b)."""
    part, words = embedding(character_encoder, joined="gate"), tiny_words.batch(SENTENCES[0])
    x = part.table(words.ids)[0].detach().numpy()
    h = (
        torch.cat([character_encoder(block) for block in words.characters])[words.character_rows][0]
        .detach()
        .numpy()
    )
    weights = {name: p.detach().numpy() for name, p in part.named_parameters()}
    m = np.tanh(h @ weights["enter.0.weight"].T + weights["enter.0.bias"])
    inner = np.tanh(x @ weights["gate.one.weight"].T + m @ weights["gate.other.weight"].T)
    z = 1 / (1 + np.exp(-inner @ weights["gate.choice.weight"].T))
    assert_close(part(words)[0].detach().numpy(), z * x + (1 - z) * m)


def test_an_open_gate_passes_x_and_a_closed_one_m():
    gate, x, m = Gate(7).double(), torch.rand(5, 7).double() + 1, torch.randn(5, 7).double()
    with torch.no_grad():
        for layer in (gate.one, gate.choice):
            layer.weight.copy_(torch.eye(7) * 1e3)
        gate.other.weight.zero_()
        assert_close(gate(x, m), x)
        gate.one.weight.neg_()
        assert_close(gate(x, m), m)
        gate.one.weight.zero_()
        assert_close(gate(x, m), (x + m) / 2)


def test_gradients_of_the_gate_are_those_of_the_formula():
    gate = Gate(3).double()
    x, m = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(gate, (x, m))


def test_each_distinct_word_is_encoded_once(character_encoder, monkeypatch):
    shapes = []
    monkeypatch.setattr(character_encoder, "dropout", nn.Identity())
    character_encoder.table.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape))
    words = tiny_words.batch([3, 3, 3], [3, 4])
    embedding(character_encoder)(words)
    assert shapes == [block.shape for block in words.characters]
    assert sum(len(block) for block in words.characters) == 2


def test_without_characters_it_is_a_table():
    part, words = embedding(), tiny_words.batch(*SENTENCES)
    assert part.size == 7 and torch.equal(part(words), part.table(words.ids))


def test_a_dropped_word_is_unknown_and_keeps_its_characters(character_encoder):
    part, words = embedding(character_encoder, word_dropout=0.4), tiny_words.batch(*[[5, 6, 7]] * 200)
    assert torch.equal(part(words), part(words))
    part.train()
    vectors = part(words)
    unknown = (vectors[..., :7] == part.table.weight[UNKNOWN]).all(-1)
    assert 0.3 < unknown.double().mean() < 0.5
    assert torch.equal(vectors[..., :7][~unknown], part.table(words.ids)[~unknown])
    assert torch.equal(
        vectors[..., 7:],
        torch.cat([part.character_encoder(block) for block in words.characters])[words.character_rows],
    )


def test_a_projection_and_positions_come_last():
    part = embedding(size=11, positions=Sinusoidal(11))
    words = tiny_words.batch(SENTENCES[0])
    projected = part.project(part.table(words.ids)) * 11**0.5
    assert part.size == 11
    assert_close(part(words), part.positions(projected, 0))


def test_an_encoder_reads_words():
    encoder = RecurrentEncoder(embedding(ENCODERS["cnn"]()), "lstm", 3, 1, True, Dropout(0.0)).double()
    words = tiny_words.batch(*SENTENCES, garbage=True)
    encoded = encoder(words, words.mask)
    assert (encoded.states[~words.mask] == 0).all()
    for row, sentence in enumerate(SENTENCES):
        alone = tiny_words.batch(sentence)
        expected = encoder(alone, alone.mask)
        assert_close(encoded.states[row, : len(sentence)], expected.states[0, : len(sentence)])
        assert_close(encoded.summary[row], expected.summary[0])


# ---- given vectors -----------------------------------------------------------------------------------


def test_given_vectors_are_the_start_of_words_that_have_one():
    vectors = torch.randn(11, 7)
    vectors[[0, 3]] = float("nan")
    table = word_table(11, 7, vectors)
    known = [number for number in range(11) if number not in (0, 3)]
    assert torch.equal(table.weight[known], vectors[known]) and table.weight.isfinite().all()
    assert table.weight[[0, 3]].abs().max() <= (3 / 7) ** 0.5 and table.weight.requires_grad


def test_frozen_vectors_are_not_trained():
    table = word_table(11, 7, torch.randn(11, 7), frozen=True)
    assert not table.weight.requires_grad


def test_new_vectors_are_uniform():
    table = word_table(997, 12).weight
    assert table.abs().max() <= 0.5 and abs(table.std() - 0.5 / 3**0.5) < 0.01


@pytest.mark.parametrize("shape", [(11, 5), (10, 7)])
def test_vectors_of_another_shape_are_refused(shape):
    expected = rf"expected vectors of 11 words with 7 values each, got \({shape[0]}, {shape[1]}\): set "
    with pytest.raises(Seq2attnError, match=expected + r"model\.embedding\.size"):
        word_table(11, 7, torch.randn(shape))


# ---- batches -----------------------------------------------------------------------------------------


def test_a_batch_goes_to_a_device_as_a_whole():
    words = tiny_words.batch(*SENTENCES)
    batch = LabelledBatch(words, torch.zeros(4, 7, dtype=torch.long), 12, "4 sentences of 7")
    moved = batch.to(torch.device("meta"))
    assert {part.device.type for part in (*tensors(moved.words), moved.labels)} == {"meta"}
    assert (moved.num_targets, moved.shape) == (12, "4 sentences of 7")
    same = copy.copy(batch).to(torch.device("cpu"))
    pairs = zip(tensors(same.words), tensors(words), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_unknown_words_and_characters_start_at_zero(character_encoder):
    for table in (word_table(11, 5), character_encoder.table):
        assert (table.weight[UNKNOWN] == 0).all() and (table.weight[UNKNOWN + 1] != 0).any()
