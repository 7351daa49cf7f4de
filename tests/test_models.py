"""From recipes to models: sizes, options and tied matrices arrive, and the seed says the rest."""

import re
from typing import Any

import pytest
import tiny
import torch
from cases import choose, choose_names
from decoder_laws import all_layers, attends
from pydantic import ValidationError
from torch import Tensor, nn
from torch.testing import assert_close

from seq2attn.attention import ROLES, Attention, incompatibilities
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import SCORERS, Additive
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Dropout, Embedding
from seq2attn.models.decoders import BahdanauDecoder, LuongDecoder, SummaryDecoder
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import ModelRecipe

# Sizes that agree wherever matrices are to be tied.
EVEN = {"embedding": 14, "size": 14, "readout_size": 14, "attention": {"score": "additive"}}
TYING = {
    "recurrent": {
        "encoder": {"kind": "recurrent", "embedding": 14, "size": 5},
        "decoder": {"kind": "recurrent", "order": "luong", **EVEN},
    },
    "transformer": {"encoder": tiny.transformer(), "decoder": tiny.transformer(decoder=True)},
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def parameters(model: Seq2Seq) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def decode(model: Seq2Seq) -> Tensor:
    return model(tiny.sources(7, 3, 0), tiny.reads(3, 5)).logits


# ---- every part of the registries in every place -----------------------------------------------------


def fit(score: str, normalize: str, role: str) -> bool:
    return not any(incompatibilities(SCORERS[score], NORMALIZERS[normalize], role))


PAIRS = [(score, "softmax") for score in SCORERS]
PAIRS += [("dot" if fit("dot", name, ROLES[0]) else "linear", name) for name in NORMALIZERS]


@pytest.mark.parametrize(("score", "normalize"), PAIRS)
@pytest.mark.parametrize("heads", [1, 2])
def test_every_part_goes_into_every_decoder(score, normalize, heads):
    attention = {"score": score, "normalize": normalize, "heads": heads}
    fits = fit(score, normalize, "self-attention")
    recurrent = {**tiny.recurrent_decoder("luong"), "size": 10, "attention": attention}
    transformer = {
        **tiny.transformer(decoder=True),
        "cross_attention": attention,
        "self_attention": attention if fits else {"heads": heads},
    }
    for decoder in (recurrent, {**recurrent, "order": "bahdanau"}, transformer):
        model = tiny.model({"encoder": tiny.recurrent_encoder(), "decoder": decoder})
        decoded = model(tiny.sources(7, 3, 0), tiny.reads(3, 5), [0])
        logits, weights = decoded.logits, decoded.weights
        assert logits.shape == (3, 5, tiny.TARGET) and logits.isfinite().all()
        assert weights.shape == (3, 1, heads, 5, 7)
        attentions = [m for m in model.decoder.modules() if isinstance(m, Attention) and m.relative is None]
        assert any(type(part.normalize) is NORMALIZERS[normalize] for part in attentions)
        scorers = [module for module in model.decoder.modules() if type(module) is SCORERS[score]]
        everywhere = attentions if decoder["kind"] == "recurrent" or fits else attentions[1::2]
        assert len(scorers) == len(everywhere) * NORMALIZERS[normalize].n_scores


def test_one_head_of_a_recurrent_decoder_has_no_projections():
    one, two = (
        tiny.model(tiny.MODELS[f"luong-{a}-gru-1-tanh"]).decoder.attention for a in ("additive", "heads")
    )
    assert type(one) is Attention and type(two) is MultiHead and two.heads == 2
    assert one.score.key.in_features == 10 and two.key.in_features == 10  # the encoder's two directions


def test_options_of_a_part_reach_it():
    attention = {"score": {"name": "additive", "size": 7, "bias": True}, "dropout": 0.3}
    decoder = {**tiny.recurrent_decoder("bahdanau"), "attention": attention}
    made = tiny.model({"encoder": tiny.recurrent_encoder(), "decoder": decoder}).decoder.attention
    assert isinstance(made.score, Additive) and made.dropout == 0.3
    assert made.score.energy.in_features == 7 and made.score.key.bias is not None
    rotary = {"positions": {"name": "rotary", "base": 50.0}}
    recipe = {"encoder": tiny.transformer(**rotary), "decoder": tiny.transformer(decoder=True, **rotary)}
    model = tiny.model(recipe)
    turned = [m.rotary for m in model.modules() if isinstance(m, MultiHead)]
    assert [None if r is None else (r.base, r.size) for r in turned] == [(50.0, 10)] * 2 + [
        (50.0, 10),
        None,
    ] * 2
    assert model.encoder.embedding.positions is None


def test_rates_of_dropout_reach_their_layers():
    rates = {"dropout": 0.1, "embedding_dropout": 0.2, "word_dropout": 0.3, "variational": True, "layers": 2}
    model = tiny.model(
        {
            "encoder": tiny.recurrent_encoder(**rates),
            "decoder": tiny.recurrent_decoder("luong", "additive", **rates),
        }
    )
    for side in (model.encoder, model.decoder):
        words, states = side.embedding.dropout, side.dropout
        assert (words.rate, words.word, words.variational) == (0.2, 0.3, True)
        assert (states.rate, states.word, states.variational) == (0.1, 0.0, True)
    assert model.encoder.rnn.dropout.rate == model.decoder.cell.rnn.dropout == 0.1  # between layers
    rates = {
        "dropout": 0.1,
        "feed_forward_dropout": 0.2,
        "word_dropout": 0.3,
        "self_attention": {"heads": 2, "dropout": 0.4},
    }
    layer = tiny.model(
        {"encoder": tiny.transformer(**rates), "decoder": tiny.transformer(decoder=True, **rates)}
    ).decoder
    assert (layer.embedding.dropout.rate, layer.embedding.dropout.word) == (0.1, 0.3)
    layer = layer.layers[0]
    assert {m.dropout.rate for n, m in layer.named_children() if n.endswith("residual")} == {0.1}
    assert layer.feed_forward.dropout.rate == 0.2
    assert (layer.self_attention.attention.dropout, layer.cross_attention.attention.dropout) == (0.4, 0.0)


@pytest.mark.parametrize("name", tiny.SOME)
def test_a_model_is_its_encoder_and_its_decoder(name):
    model = tiny.model(tiny.SOME[name])
    source, tokens = tiny.sources(7, 3, 0), tiny.reads(3, 5)
    logits = model(source, tokens).logits
    assert_close(logits, model.decoder(tokens, model.encoder(source.tokens, source.mask)).logits)
    first, _ = model.step(tokens[:, 0], model.start(source))
    assert_close(first, logits[:, 0], atol=1e-5, rtol=1e-5)
    assert model.decoder.embedding.table.num_embeddings == tiny.TARGET == logits.shape[-1]
    assert model.encoder.embedding.table.num_embeddings == tiny.SOURCE


SPECIAL = [f"transformer-{name}" for name in tiny.SIGHTS]
AUTOCAST = {name: tiny.MODELS[name] for name in (*tiny.SOME, *SPECIAL)}


@pytest.mark.parametrize("name", choose_names(AUTOCAST, attends, at_least=15))
def test_weights_stay_wide_in_bfloat16(name):
    model, source, tokens = tiny.model(tiny.MODELS[name]), tiny.sources(7, 3, 0), tiny.reads(3, 5)
    exact = model(source, tokens, all_layers(model)).weights
    with torch.autocast("cpu", torch.bfloat16):
        narrow = model(source, tokens, all_layers(model)).weights
    assert narrow.dtype == torch.float32
    assert_close(narrow.sum(-1), exact.sum(-1))


@pytest.mark.parametrize("name", AUTOCAST)
def test_a_model_runs_in_bfloat16(name):
    model, source, tokens = tiny.model(tiny.MODELS[name]), tiny.sources(7, 3, 0), tiny.reads(3, 5)
    layers = all_layers(model)
    exact = model(source, tokens, layers)
    with torch.autocast("cpu", torch.bfloat16):
        narrow, fused = model(source, tokens, layers), model(source, tokens).logits
        stepped, _ = model.step(tokens[:, 0], model.start(source))
    for logits, expected in (
        (narrow.logits, exact.logits),
        (fused, exact.logits),
        (stepped, exact.logits[:, 0]),
    ):
        assert_close(logits.float(), expected, atol=0.25, rtol=0)
    fused.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# ---- parameters --------------------------------------------------------------------------------------


def test_the_parameters_of_an_lstm_are_counted():
    recipe = {
        "encoder": {"kind": "recurrent", "embedding": 11, "size": 5, "layers": 2},
        "decoder": {**tiny.recurrent_decoder("luong", "additive", readout_size=9), "input_feeding": True},
    }
    lstm = lambda inputs, size: 4 * size * (inputs + size + 2)  # noqa: E731
    encoder = tiny.SOURCE * 11 + 2 * lstm(11, 5) + 2 * lstm(10, 5)
    bridge, attention, readout = 2 * (10 * 14 + 14), 14 * 14 + 10 * 14 + 14, (10 + 14) * 9
    decoder = tiny.TARGET * 13 + lstm(13 + 9, 14) + bridge + attention + readout + (9 + 1) * tiny.TARGET
    model = tiny.model(recipe)
    assert (count(model.encoder), count(model.decoder)) == (encoder, decoder)


def test_the_parameters_of_a_transformer_are_counted():
    heads, feed_forward, norm = 4 * (20 * 20 + 20), 20 * 23 + 23 + 23 * 20 + 20, 2 * 20
    encoder = tiny.SOURCE * 20 + 2 * (heads + feed_forward + 2 * norm)
    decoder = tiny.TARGET * 20 + 2 * (2 * heads + feed_forward + 3 * norm) + 20 * tiny.TARGET + tiny.TARGET
    for order, last in (("post", 0), ("pre", norm)):  # pre normalises once more behind the last layer
        recipe = {
            "encoder": tiny.transformer(norm=order),
            "decoder": tiny.transformer(decoder=True, norm=order),
        }
        model = tiny.model(recipe)
        assert (count(model.encoder), count(model.decoder)) == (encoder + last, decoder + last)


@pytest.mark.parametrize("kind", TYING)
def test_tied_matrices_stay_one(kind):
    free, half, whole = (
        tiny.model({**TYING[kind], "tied": tied}, target=tiny.SOURCE) for tied in ("none", "decoder", "all")
    )
    matrix = free.decoder.output.weight.numel()
    assert [count(free) - count(model) for model in (half, whole)] == [matrix, 2 * matrix]
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)
    before = parameters(whole)
    decode(whole).square().sum().backward()
    optimizer.step()
    tables = whole.encoder.embedding.table.weight, whole.decoder.embedding.table.weight
    assert all(table is whole.decoder.output.weight for table in tables)
    assert not torch.equal(tables[0], before["encoder.embedding.table.weight"])
    assert (
        half.encoder.embedding.table.weight
        is not half.decoder.output.weight
        is half.decoder.embedding.table.weight
    )


@pytest.mark.parametrize("name", tiny.SOME)
def test_the_seed_decides_the_weights(name):
    first, again, other = (parameters(tiny.model(tiny.SOME[name], seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    random = [key for key, value in first.items() if value.dim() > 1]
    assert len(random) > 5 and all(not torch.equal(first[key], other[key]) for key in random)


def test_a_transformer_is_initialised_as_in_the_paper():
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"size": 64, "feed_forward": 256}
    recipe = {"encoder": tiny.transformer(**sizes), "decoder": tiny.transformer(decoder=True, **sizes)}
    recipe["decoder"]["cross_attention"] = {"heads": 4}
    model = build(ModelRecipe.model_validate({**recipe, "tied": "all"}), 997, 997)
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not model.decoder.output:
            bound = (6 / sum(module.weight.shape)) ** 0.5
            assert module.weight.abs().max() <= bound and module.weight.std() > bound / 2
            assert (module.bias == 0).all()
        if isinstance(module, Embedding):
            assert_close(module.table.weight.std(), torch.tensor(64**-0.5), atol=0.01, rtol=0)
            assert module.scale == 8
    assert all(isinstance(side.embedding.dropout, Dropout) for side in (model.encoder, model.decoder))


@pytest.mark.parametrize("name", tiny.SOME)
def test_weights_can_be_loaded_elsewhere(name):
    one, other = (tiny.model(tiny.SOME[name], seed) for seed in (1, 2))
    assert not torch.allclose(decode(one), decode(other))
    other.load_state_dict(one.state_dict())
    assert torch.equal(decode(one), decode(other))


def test_a_normalizer_of_two_scores_gets_two_scorers():
    attention = {"score": "additive", "normalize": "milk", "heads": 2}
    decoder = {**tiny.recurrent_decoder("luong"), "attention": attention}
    made = tiny.model({"encoder": tiny.recurrent_encoder(), "decoder": decoder}).decoder.attention
    one, other = (module for module in made.modules() if type(module) is Additive)
    assert NORMALIZERS["milk"].n_scores == 2
    assert not torch.equal(one.query.weight, other.query.weight)


# ---- orders and latent alignments --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "option"),
    [
        ("bahdanau-additive-gru-1-tanh", BahdanauDecoder, {"sequential": True}),
        ("luong-heads-lstm-1-tanh", LuongDecoder, {"sequential": False, "input_feeding": False}),
        ("feeding-additive-lstm-1-tanh", LuongDecoder, {"sequential": True, "input_feeding": True}),
        ("cho-gru-1-maxout", SummaryDecoder, {"summary_in_steps": True}),
        ("sutskever-lstm-2-tanh", SummaryDecoder, {"summary_in_steps": False}),
    ],
)
def test_every_order_has_its_decoder(name, kind, option):
    decoder = tiny.model(tiny.MODELS[name]).decoder
    assert type(decoder) is kind and {key: getattr(decoder, key) for key in option} == option


def latent_model(latent: str, attention: Any, **options: Any) -> Seq2Seq:
    decoder = tiny.recurrent_decoder("luong", latent=latent, input_feeding=True, **options)
    recipe = {"encoder": tiny.recurrent_encoder(size=7), "decoder": {**decoder, "attention": attention}}
    return tiny.model(recipe)


def test_a_latent_alignment_reaches_the_decoder():
    additive = {"score": "additive"}
    assert latent_model("none", additive).decoder.latent is None
    for kind, top in (("marginal", 3), ("posterior", None)):
        latent = latent_model(kind, additive, top=top).decoder.latent
        assert (latent.kind, latent.top) == (kind, top)


def section(normalize: str) -> dict[str, Any]:
    """The recipe of an attention with that normalizer."""
    return {
        "score": "linear" if NORMALIZERS[normalize].needs_positive else "additive",
        "normalize": normalize,
    }


def refusal(case: tuple[str, str]) -> str:
    """Why the recipe refuses a latent alignment with a normalizer; empty if it does not."""
    latent, normalize = case
    try:
        latent_model(latent, section(normalize))
    except (Seq2attnError, ValidationError) as error:
        return str(error)
    return ""


LATENT = [(latent, normalize) for latent in ("marginal", "posterior") for normalize in NORMALIZERS]


@pytest.mark.parametrize(("latent", "normalize"), choose(LATENT, refusal, at_least=6))
def test_the_recipe_says_why_a_normalizer_has_no_latent_alignment(latent, normalize):
    assert re.search(
        "sum to 1|samples one|not the distribution that it attends by", refusal((latent, normalize))
    )


@pytest.mark.parametrize(("latent", "normalize"), choose(LATENT, lambda case: not refusal(case), at_least=20))
def test_latent_alignments_work_with_every_other_normalizer(latent, normalize):
    """In steps, in training and without a source."""
    model = latent_model(latent, section(normalize))
    source, tokens = tiny.sources(7, 3, 0), tiny.reads(3, 4)
    logits, state = model(source, tokens).logits, model.start(source)
    for step, token in enumerate(tokens.unbind(1)):
        stepped, state = model.step(token, state)
        assert_close(stepped, logits[:, step], atol=1e-5, rtol=1e-5)
    model.train()(source, tokens).logits.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
