"""Decoders: the laws that hold for every one of them, and the papers' equations written out."""

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.testing import assert_close
from torchs import load_decoder_layer, randomised

from seq2attn.attention import Attention
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.scorers import ScaledDot
from seq2attn.attention.state import PerSource, reorder
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Dropout, FeedForward
from seq2attn.models.decoders import Cell, Decoder, DecoderLayer, Sight
from seq2attn.models.encoders import Encoded
from seq2attn.models.seq2seq import Seq2Seq

LENGTHS = (7, 3, 0)
LOOKING = [name for name in tiny.MODELS if not name.startswith(("cho", "sutskever"))]


@pytest.fixture(params=tiny.MODELS)
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return tiny.model(tiny.MODELS[request.param])


@pytest.fixture(params=LOOKING)
def looking(request: pytest.FixtureRequest) -> Seq2Seq:
    """A model that has an attention."""
    return tiny.model(tiny.MODELS[request.param])


def all_layers(model: Seq2Seq) -> list[int]:
    return list(range(model.decoder.attention_layers))


def encode(model: Seq2Seq) -> Encoded:
    return model.encoder(*tiny.sources(*LENGTHS))


def step_by_step(decoder: Decoder, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Logits (B, T, V) and the state behind them."""
    logits = []
    for token in tokens.unbind(1):
        one, state = decoder.step(token, state)
        logits.append(one)
    return torch.stack(logits, 1), state


def check_reordering(decoder: Decoder, start: Any) -> None:
    """To step and then move three sentences, or to move them first, is the same."""
    tokens, index = tiny.reads(3, 3), torch.tensor([2, 0, 0, 1, 1])
    _, state = step_by_step(decoder, tokens[:, :2], start)
    logits, after = decoder.step(tokens[:, 2], state)
    moved, after_moving = decoder.step(tokens[index, 2], reorder(state, index))
    assert_close(moved, logits[index], atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(tiny.tensors(after_moving), tiny.tensors(reorder(after, index)), strict=True):
        assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


# ---- laws --------------------------------------------------------------------------------------------

# Where no gradient is recorded, some states grow in place.
recording = pytest.mark.parametrize("gradients", [False, True], ids=["without gradients", "with gradients"])


@recording
def test_steps_and_forward_agree(model, gradients):
    with torch.set_grad_enabled(gradients):
        encoded, tokens = encode(model), tiny.reads(3, 5)
        stepped, _ = step_by_step(model.decoder, tokens, model.decoder.start(encoded))
        assert_close(stepped, model.decoder(tokens, encoded).logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
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
def test_who_has_begun_in_inference_mode_may_go_on_without(name):
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
    encoded = model.encoder(*(part[:0] for part in tiny.sources(*LENGTHS)))
    logits, _ = model.decoder.step(tiny.reads(3, 1)[:0, 0], model.decoder.start(encoded))
    assert logits.shape == (0, tiny.TARGET)


def test_weights_are_a_distribution_over_the_source(looking):
    encoded, tokens = encode(looking), tiny.reads(3, 5)
    layers = all_layers(looking)
    decoded = looking.decoder(tokens, encoded, layers)
    logits, weights = decoded.logits, decoded.weights
    assert weights.shape[:2] == (3, len(layers)) and weights.shape[3:] == (5, 7)
    assert weights.dtype == torch.float32 and (weights >= 0).all()
    seen = encoded.mask[:, None, None].expand_as(weights)
    assert (weights[~seen] == 0).all()
    assert_close(weights.sum(-1), seen.any(-1).float())
    assert_close(logits, looking.decoder(tokens, encoded).logits, atol=1e-5, rtol=1e-5)


def test_who_asks_for_some_layers_gets_those_in_that_order():
    model = tiny.model(tiny.MODELS["transformer-pre-rotary"])
    encoded, tokens = encode(model), tiny.reads(3, 5)
    first, second = model.decoder(tokens, encoded, [0, 1]).weights.unbind(1)
    assert first.shape == (3, 5, 5, 7) and not torch.allclose(first[:2], second[:2])  # 5 heads
    assert_close(model.decoder(tokens, encoded, [1, 0]).weights, torch.stack([second, first], 1))
    assert_close(model.decoder(tokens, encoded, [1]).weights, second[:, None])


def test_the_future_is_not_seen(model):
    encoded, tokens = encode(model), tiny.reads(3, 5)
    before = model.decoder(tokens, encoded).logits
    tokens[:, 3] = (tokens[:, 3] - tiny.SPECIALS + 1) % (tiny.TARGET - tiny.SPECIALS) + tiny.SPECIALS
    after = model.decoder(tokens, encoded).logits
    assert_close(after[:, :3], before[:, :3], atol=1e-6, rtol=0)
    assert ((after[:, 3:] - before[:, 3:]).abs().amax(-1) > 1e-4).all()  # and the past is


@recording
@pytest.mark.parametrize("counting", [False, True])
def test_reordering_commutes_with_stepping(model, counting, gradients):
    with torch.set_grad_enabled(gradients):
        start = model.decoder.start(encode(model))
        check_reordering(model.decoder, model.decoder.track_coverage(start) if counting else start)


@torch.no_grad()
@pytest.mark.parametrize("counting", [False, True])
def test_hypotheses_of_a_sentence_step_as_sentences_do(model, counting):
    """Three for each sentence, as a beam search moves them, beside rows that share nothing."""
    encoded, tokens = encode(model), tiny.reads(9, 4)
    start = model.decoder.start(encoded)
    start = model.decoder.track_coverage(start) if counting else start
    each = torch.arange(3).repeat_interleave(3)
    sharing, alone = reorder(start, each, torch.arange(3)), reorder(start, each)
    moves = [  # of the hypotheses, and the sentences that stay
        ([2, 0, 0, 4, 4, 3, 6, 8, 7], [0, 1, 2]),
        ([1, 1, 1, 8, 8, 6], [0, 2]),
        ([0, 2, 1, 3, 3, 5], [0, 1]),
        ([5, 4, 3], [1]),
    ]
    rows = len(each)
    for token, (index, stay) in zip(tokens.T, moves, strict=True):
        ours, sharing = model.decoder.step(token[:rows], sharing)
        theirs, alone = model.decoder.step(token[:rows], alone)
        assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        rows = len(index)
        sharing = reorder(sharing, torch.tensor(index), torch.tensor(stay))
        alone = reorder(alone, torch.tensor(index))


@pytest.mark.parametrize("name", [name for name in tiny.MODELS if name.startswith("transformer")])
def test_hypotheses_share_what_they_have_read_where_nobody_asks_for_its_place(name):
    model = tiny.model(tiny.MODELS[name])
    _, state = model.decoder.step(tiny.reads(3, 1)[:, 0], model.start(*tiny.sources(*LENGTHS)))
    apart = {
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
    ] == apart
    assert (state.seen is None) == (apart == [0, 1])


def test_coverage_is_what_all_steps_have_looked_at(looking):
    """In the last layer, the mean of the heads; padding needs no look; and counting changes no step."""
    decoder, encoded, tokens = looking.decoder, encode(looking), tiny.reads(3, 5)
    state = decoder.track_coverage(decoder.start(encoded))
    assert (decoder.coverage(state) == (~encoded.mask[:, 0]).float()).all()  # no look so far
    logits, state = step_by_step(decoder, tokens, state)
    decoded = decoder(tokens, encoded, all_layers(looking)[-1:])
    assert_close(logits, decoded.logits, atol=1e-5, rtol=1e-5)
    covered = decoder.coverage(state)
    assert covered.dtype == torch.float32
    assert (covered[~encoded.mask[:, 0]] == 1).all() and (covered[2] == 1).all()
    if getattr(getattr(decoder, "readout", None), "latent", "") != "posterior":
        expected = decoded.weights[:, 0].mean(1).sum(1)
        assert_close(covered[:2], torch.where(encoded.mask[:2, 0], expected[:2], 1.0), atol=1e-5, rtol=1e-5)


def test_a_transformer_counts_in_its_last_layer_and_if_asked_to():
    model = tiny.model(tiny.MODELS["transformer-pre-rotary"])
    start = model.decoder.start(encode(model))
    _, state = step_by_step(model.decoder, tiny.reads(3, 2), start)
    assert model.decoder.coverage(start) is model.decoder.coverage(state) is None
    _, state = step_by_step(model.decoder, tiny.reads(3, 2), model.decoder.track_coverage(start))
    assert [layer.cross_past.coverage is None for layer in state.layers] == [True, False]
    assert state.layers[-1].cross_past.step == 2


@pytest.mark.parametrize("name", ["cho-gru-1-maxout", "sutskever-lstm-2-tanh"])
def test_without_attention_there_is_nothing_to_count(name):
    decoder = tiny.model(tiny.MODELS[name]).decoder
    state = decoder.start(encode(tiny.model(tiny.MODELS[name])))
    assert decoder.track_coverage(state) is state and decoder.coverage(state) is None


def test_padding_of_the_source_changes_nothing(model):
    tokens, layers = tiny.reads(3, 5), all_layers(model)
    source, mask = tiny.sources(*LENGTHS)
    garbage, wider = tiny.sources(*LENGTHS, width=11, seed=5)
    garbage[:, :7] = torch.where(mask, source, garbage[:, :7])
    plain, padded = model(source, mask, tokens, layers), model(garbage, wider, tokens, layers)
    assert_close(padded.logits, plain.logits, atol=1e-5, rtol=1e-5)
    if layers:
        assert_close(padded.weights[..., :7], plain.weights, atol=1e-6, rtol=1e-5)
        assert (padded.weights[..., 7:] == 0).all()


def test_a_batch_is_a_list_of_sentences(model):
    source, mask = tiny.sources(*LENGTHS)
    tokens = tiny.reads(3, 5)
    whole = model(source, mask, tokens).logits
    for row, length in enumerate(LENGTHS):
        one = slice(row, row + 1)
        alone = model(source[one, : max(length, 1)], mask[one, : max(length, 1)], tokens[one]).logits
        assert_close(alone, whole[one], atol=1e-5, rtol=1e-5)


def test_the_source_is_read(model):
    tokens = tiny.reads(1, 5)
    one, other = (model(*tiny.sources(7, seed=seed), tokens).logits for seed in (1, 2))
    assert ((one - other).abs().amax(-1) > 1e-4).all()


def test_every_parameter_learns(model):
    model.train()
    model(*tiny.sources(7, 3), tiny.reads(2, 5)).logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_source_is_remembered_once(looking, monkeypatch):
    remembered = []
    remember = Attention.remember
    monkeypatch.setattr(
        Attention, "remember", lambda self, *a, **k: remembered.append(self) or remember(self, *a, **k)
    )
    state = looking.decoder.start(encode(looking))
    assert len(remembered) == looking.decoder.attention_layers + looking_inwards(looking.encoder)
    remembered.clear()
    step_by_step(looking.decoder, tiny.reads(3, 4), state)
    assert len(remembered) == 4 * looking_inwards(looking.decoder)


def looking_inwards(part: nn.Module) -> int:
    """How many of its layers have self-attention."""
    return len(getattr(part, "layers", []))


@pytest.mark.parametrize("name", ["cho-gru-1-maxout", "sutskever-lstm-2-tanh"])
def test_without_attention_there_are_no_weights(name):
    model = tiny.model(tiny.MODELS[name])
    assert model(*tiny.sources(*LENGTHS), tiny.reads(3, 5), [0]).weights is None
    assert model.decoder.attention_layers == 0


@pytest.mark.parametrize("name", LOOKING)
def test_nobody_who_does_not_ask_gets_weights(name):
    assert tiny.model(tiny.MODELS[name])(*tiny.sources(*LENGTHS), tiny.reads(3, 5)).weights is None


@pytest.mark.parametrize(
    "name",
    [
        "bahdanau-heads-lstm-1-tanh",
        "luong-heads-gru-1-tanh",
        "feeding-heads-gru-2-tanh",
        "transformer-pre-rotary",
    ],
)
def test_an_attention_that_follows_its_past_does_so_in_steps_too(name):
    model = tiny.model(tiny.MODELS[name])
    layers = getattr(model.decoder, "layers", None)
    for heads in [model.decoder.attention] if layers is None else [layer.cross_attention for layer in layers]:
        size = heads.query.out_features // heads.heads
        heads.attention = Attention(tiny.Fading(size, size), Softmax())
    test_steps_and_forward_agree(model, True)
    for counting in (False, True):
        test_reordering_commutes_with_stepping(model, counting, True)


@pytest.mark.parametrize("own", [{"score": "location"}, {"normalize": "local_p"}])
def test_self_attention_that_reads_places_does_so_in_steps_too(own):
    looking = {"self_attention": {"heads": 2, **own}}
    recipe = {"encoder": tiny.transformer(), "decoder": tiny.transformer(decoder=True) | looking}
    model = tiny.model(recipe)
    assert not model.decoder.shares
    for gradients in (False, True):
        test_steps_and_forward_agree(model, gradients)
    test_hypotheses_of_a_sentence_step_as_sentences_do(model, False)


# ---- which token the weights belong to ---------------------------------------------------------------


@pytest.mark.parametrize("name", LOOKING)
def test_weights_know_the_token_that_was_read_but_in_bahdanaus_order(name):
    """So only there can the weights of a step depend on nothing but what came before its token."""
    model = tiny.model(tiny.MODELS[name])
    encoded, tokens = encode(model), tiny.reads(3, 5)
    other = tokens.clone()
    other[:, 4] = (tokens[:, 4] - tiny.SPECIALS + 1) % (tiny.TARGET - tiny.SPECIALS) + tiny.SPECIALS
    before, after = (
        model.decoder(t, encoded, all_layers(model)).weights[:2, ..., 4, :] for t in (tokens, other)
    )
    assert torch.equal(before, after) == name.startswith("bahdanau")
    assert model.decoder.alignment_shift == 0  # measured: scripts/measure_alignment_shift.py


@pytest.mark.parametrize("order", ["bahdanau", "luong", "feeding"])
def test_the_top_layer_asks_before_or_after_it_has_read(order):
    model = tiny.model(tiny.MODELS[f"{order}-additive-lstm-2-tanh"])
    asked: list[Tensor] = []
    model.decoder.attention.register_forward_pre_hook(lambda module, given: asked.append(given[0]))
    before = model.decoder.start(encode(model))
    _, after = model.decoder.step(tiny.reads(3, 1)[:, 0], before)
    (query,) = asked
    assert_close(query, (before if order == "bahdanau" else after).hidden[0][:, 1:])


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


def look_equation(
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
    encoded = model.encoder(*tiny.sources(7))
    states, summary = (part[0].detach().numpy() for part in (encoded.states, encoded.summary))
    cells, looks = numbers(decoder.cell), numbers(decoder.attention)
    combine, output = numbers(decoder.readout.combine), numbers(decoder.output)
    state = [
        np.tanh(cells[f"bridge.{n}.weight"] @ summary + cells[f"bridge.{n}.bias"])
        for n in range(2 if cell == "lstm" else 1)
    ]
    loader, logits, weights = np.zeros(9), [], []
    for word in decoder.embedding.table.weight.detach().numpy()[tokens[0]]:
        if order == "bahdanau":
            asking = state[0]  # the state before this step
            context, looked = look_equation(looks, asking, states)
            state = cell_equation(cell, cells, np.concatenate([word, context]), state)
            read = combine["weight"] @ np.concatenate([context, asking, word]) + combine["bias"]
            read = read.reshape(-1, 2).max(1)
        else:
            state = cell_equation(
                cell, cells, np.concatenate([word, loader]) if order == "feeding" else word, state
            )
            context, looked = look_equation(looks, state[0], states)
            loader = read = np.tanh(combine["weight"] @ np.concatenate([context, state[0]]))
        logits.append(output["weight"] @ read + output["bias"])
        weights.append(looked)
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
    assert started.summary.value is started.memory.value is started.past is started.feed is None


def test_what_is_fed_back_is_not_dropped():
    recipe = tiny.MODELS["feeding-additive-lstm-1-tanh"]
    model = tiny.model({**recipe, "decoder": {**recipe["decoder"], "dropout": 0.9}}).train()
    _, state = model.decoder.step(tiny.reads(3, 1)[:, 0], model.decoder.start(encode(model)))
    assert (state.feed != 0).all() and (model.decoder.dropout(state.feed[:, None]) == 0).any()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_layer_is_torchs(norm):
    torch.manual_seed(2)
    theirs = nn.TransformerDecoderLayer(
        22, 2, 17, 0.0, batch_first=True, norm_first=norm == "pre", dtype=torch.float64
    )
    randomised(theirs)
    own, source = (MultiHead(2, 22, 22, Attention(ScaledDot(11, 11), Softmax())) for _ in range(2))
    ours = DecoderLayer(own, source, FeedForward(22, 17), norm, 0.0).double()
    load_decoder_layer(ours, theirs)
    mask = torch.arange(7) < torch.tensor([7, 4, 1])[:, None]
    x, states = (torch.randn(3, size, 22, dtype=torch.float64) for size in (5, 7))
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    expected = theirs(x, states, tgt_mask=~causal, memory_key_padding_mask=~mask)
    begun = ours.start(Encoded(states, mask[:, None], states[:, 0]))
    assert_close(ours(x, Sight(0, causal.expand(3, -1, -1), None), begun)[0], expected)


# ---- what cannot be ----------------------------------------------------------------------------------


def test_positions_beyond_the_learned_ones_are_an_error_in_steps_too():
    recipe = tiny.transformer(decoder=True, positions={"name": "learned", "length": 2})
    model = tiny.model({"encoder": tiny.recurrent_encoder(), "decoder": recipe})
    with pytest.raises(Seq2attnError, match="position 2 is beyond the 2 learned positions"):
        step_by_step(model.decoder, tiny.reads(3, 3), model.decoder.start(encode(model)))
    with pytest.raises(Seq2attnError, match="position 2 is beyond the 2 learned positions"):
        model.decoder(tiny.reads(3, 3), encode(model))


def test_an_order_that_looks_needs_an_attention():
    decoder = tiny.model(tiny.MODELS["bahdanau-additive-gru-1-tanh"]).decoder
    decoder.attention = None
    state = decoder.start(Encoded(torch.zeros(1, 7, 10), torch.ones(1, 1, 7).bool(), torch.zeros(1, 10)))
    with pytest.raises(Seq2attnError, match="the order bahdanau needs an attention; give the decoder one"):
        decoder.step(tiny.reads(1, 1)[:, 0], state)


def test_a_decoder_must_say_what_it_does():
    class Idle(Decoder):
        pass

    idle, encoded = Idle(), Encoded(torch.zeros(1, 7, 10), torch.ones(1, 1, 7).bool(), torch.zeros(1, 10))
    with pytest.raises(NotImplementedError, match=r"Idle must say how it starts: write start\(\)"):
        idle.start(encoded)
    with pytest.raises(NotImplementedError, match=r"Idle must say how it steps: write step\(\)"):
        idle.step(tiny.reads(1, 1)[:, 0], None)
    with pytest.raises(NotImplementedError, match=r"Idle must say how it decodes: write forward\(\)"):
        idle(tiny.reads(1, 1), encoded)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_step_in_training_drops_between_layers(kind):
    """What is dropped at nearly every place might as well not be read."""
    torch.manual_seed(2)
    cell = Cell(kind, 11, 7, 5, layers=2, dropout=1 - 2**-16)
    start, entering = cell.start(torch.randn(3, 5)), torch.randn(3, 1, 11)
    output, state = cell(entering, start)
    with torch.no_grad():
        cell.rnn.weight_ih_l1.zero_()
    expected, after = cell.eval()(entering, start)
    assert_close(output, expected)
    assert_close(state, after)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_step_is_one_of_torchs_layers(kind):
    """And drops nothing where nobody trains."""
    torch.manual_seed(2)
    cell = Cell(kind, 11, 7, 5, layers=2, dropout=0.5).eval()
    start, entering = cell.start(torch.randn(3, 5)), torch.randn(3, 1, 11)
    before = tuple(part.transpose(0, 1).contiguous() for part in start)
    output, state = cell(entering, start)
    expected, after = cell.rnn(entering, before if len(before) > 1 else before[0])
    assert_close(output, expected)
    for ours, theirs in zip(state, after if isinstance(after, tuple) else (after,), strict=True):
        assert_close(ours, theirs.transpose(0, 1))


def test_shapes_are_types():
    cell = Cell("gru", 11, 7, 5)
    with pytest.raises(TypeCheckError, match="parameter 'summary'"):
        cell.start(torch.zeros(3, 2, 5))
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        Dropout(0.1)(torch.zeros(3, 5))
