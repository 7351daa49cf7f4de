"""Decoders: the papers' equations written out, the recurrent cell, and torch's own layers."""

import numpy as np
import pytest
import tiny
import torch
from decoder_laws import encode
from jaxtyping import TypeCheckError
from torch import nn
from torch.testing import assert_close
from torchs import load_decoder_layer, randomised

from seq2attn.attention.attention import Attention
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.scorers import ScaledDot
from seq2attn.attention.state import PerSource
from seq2attn.layers.basic import Dropout, FeedForward
from seq2attn.models.decoders import (
    BahdanauDecoder,
    Cell,
    DecoderLayer,
    LuongDecoder,
    OutputLayers,
    SelfAttentionMasks,
    SummaryState,
)
from seq2attn.models.encoders import Encoded

# ---- the papers' equations ---------------------------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numbers(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: parameter.detach().double().numpy() for name, parameter in module.named_parameters()}


def cell_equation(
    kind: str, p: dict[str, np.ndarray], x: np.ndarray, state: list[np.ndarray]
) -> list[np.ndarray]:
    """One step of torch's GRU or LSTM."""
    inner = p["rnn.weight_ih_l0"] @ x + p["rnn.bias_ih_l0"]
    outer = p["rnn.weight_hh_l0"] @ state[0] + p["rnn.bias_hh_l0"]
    if kind == "gru":
        (r, z), (xn, hn) = (
            sigmoid(inner + outer).reshape(3, -1)[:2],
            (a.reshape(3, -1)[2] for a in (inner, outer)),
        )
        return [(1 - z) * np.tanh(xn + r * hn) + z * state[0]]
    i, f, g, o = (inner + outer).reshape(4, -1)
    c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def attention_equation(
    p: dict[str, np.ndarray], query: np.ndarray, states: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    energies = (
        np.tanh(query @ p["score.query.weight"].T + states @ p["score.key.weight"].T)
        @ p["score.energy.weight"][0]
    )
    weights = np.exp(energies) / np.exp(energies).sum()
    return weights @ states, weights


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("order", ["bahdanau", "luong", "feeding"])
def test_recurrent_is_its_papers_equations(order, cell):
    readout = "maxout" if order == "bahdanau" else "tanh"
    model = tiny.model(tiny.MODELS[f"{order}-additive-{cell}-1-{readout}"]).double()
    decoder, tokens = model.decoder, tiny.reads(1, 3)
    encoded = model.encode(tiny.sources(7))
    states, summary = (part[0].detach().numpy() for part in (encoded.states, encoded.summary))
    cells, attention = numbers(decoder.cell), numbers(decoder.attention)
    combine, output = numbers(decoder.readout.combine), numbers(decoder.output)
    state = [
        np.tanh(cells[f"bridge.{n}.weight"] @ summary + cells[f"bridge.{n}.bias"])
        for n in range(2 if cell == "lstm" else 1)
    ]
    vector, logits, weights = np.zeros(9), [], []
    for word in decoder.embedding.table.weight.detach().numpy()[tokens[0]]:
        if order == "bahdanau":
            query = state[0]  # the state before this step
            context, step_weights = attention_equation(attention, query, states)
            state = cell_equation(cell, cells, np.concatenate([word, context]), state)
            read = combine["weight"] @ np.concatenate([context, query, word]) + combine["bias"]
            read = read.reshape(-1, 2).max(1)
        else:
            state = cell_equation(
                cell, cells, np.concatenate([word, vector]) if order == "feeding" else word, state
            )
            context, step_weights = attention_equation(attention, state[0], states)
            vector = read = np.tanh(combine["weight"] @ np.concatenate([context, state[0]]))
        logits.append(output["weight"] @ read + output["bias"])
        weights.append(step_weights)
    decoded = decoder(tokens, encoded, [0])
    assert_close(decoded.logits[0], torch.from_numpy(np.stack(logits)))
    assert_close(decoded.weights[0, 0, 0], torch.from_numpy(np.stack(weights)))


def test_cho_feeds_the_summary_into_every_step_and_sutskever_only_starts_from_it():
    cho, sutskever = (tiny.model(tiny.MODELS[n]) for n in ("cho-gru-1-maxout", "sutskever-lstm-2-tanh"))
    token = tiny.reads(3, 1)[:, 0]
    state = cho.decoder.start(encode(cho))
    other = state._replace(summary=PerSource(state.summary.value + 1))
    (before, after), (changed, moved) = cho.decoder.step(token, state), cho.decoder.step(token, other)
    assert not torch.allclose(before, changed) and not torch.allclose(after.hidden[0], moved.hidden[0])
    assert after.summary is state.summary
    started = sutskever.decoder.start(encode(sutskever))
    assert started.summary.value is None and type(started) is type(state) is SummaryState


def test_the_attentional_vector_is_fed_back_without_dropout():
    recipe = tiny.MODELS["feeding-additive-lstm-1-tanh"]
    model = tiny.model({**recipe, "decoder": {**recipe["decoder"], "dropout": 0.9}}).train()
    _, state = model.decoder.step(tiny.reads(3, 1)[:, 0], model.decoder.start(encode(model)))
    vector = state.attentional_vector
    assert (vector != 0).all() and (model.decoder.dropout(vector[:, None]) == 0).any()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_layer_is_torchs(norm):
    torch.manual_seed(2)
    theirs = nn.TransformerDecoderLayer(
        22, 2, 17, 0.0, batch_first=True, norm_first=norm == "pre", dtype=torch.float64
    )
    randomised(theirs)
    self_attention, cross_attention = (
        MultiHead(2, 22, 22, Attention(ScaledDot(11, 11), Softmax())) for _ in range(2)
    )
    ours = DecoderLayer(self_attention, cross_attention, FeedForward(22, 17), norm, 0.0).double()
    load_decoder_layer(ours, theirs)
    mask = torch.arange(7) < torch.tensor([7, 4, 1])[:, None]
    x, states = (torch.randn(3, size, 22, dtype=torch.float64) for size in (5, 7))
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    expected = theirs(x, states, tgt_mask=~causal, memory_key_padding_mask=~mask)
    start = ours.start(Encoded(states, mask[:, None], states[:, 0]))
    output, _, _ = ours(x, SelfAttentionMasks(0, causal.expand(3, -1, -1), None), start)
    assert_close(output, expected)


@pytest.mark.parametrize("kind", [BahdanauDecoder, LuongDecoder])
def test_the_papers_orders_need_an_attention(kind):
    decoder = tiny.model(tiny.MODELS["bahdanau-additive-gru-1-tanh"]).decoder
    layers = OutputLayers(decoder.readout, decoder.output, decoder.dropout)
    with pytest.raises(TypeCheckError, match="parameter 'attention'"):
        kind(decoder.embedding, decoder.cell, None, layers)


# ---- the recurrent cell ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_step_in_training_drops_between_layers(kind):
    """With a rate of nearly 1, as if the second layer read nothing."""
    torch.manual_seed(2)
    cell = Cell(kind, 11, 7, 5, layers=2, dropout=1 - 2**-16)
    start, inputs = cell.start(torch.randn(3, 5)), torch.randn(3, 1, 11)
    output, state = cell(inputs, start)
    with torch.no_grad():
        cell.rnn.weight_ih_l1.zero_()
    expected, after = cell.eval()(inputs, start)
    assert_close(output, expected)
    assert_close(state, after)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_step_is_one_of_torchs_layers(kind):
    """And drops nothing in evaluation."""
    torch.manual_seed(2)
    cell = Cell(kind, 11, 7, 5, layers=2, dropout=0.5).eval()
    start, inputs = cell.start(torch.randn(3, 5)), torch.randn(3, 1, 11)
    before = tuple(part.transpose(0, 1).contiguous() for part in start)
    output, state = cell(inputs, start)
    expected, after = cell.rnn(inputs, before if len(before) > 1 else before[0])
    assert_close(output, expected)
    for ours, theirs in zip(state, after if isinstance(after, tuple) else (after,), strict=True):
        assert_close(ours, theirs.transpose(0, 1))


def test_shapes_are_types():
    cell = Cell("gru", 11, 7, 5)
    with pytest.raises(TypeCheckError, match="parameter 'summary'"):
        cell.start(torch.zeros(3, 2, 5))
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        Dropout(0.1)(torch.zeros(3, 5))
