"""Decoders that copy: the laws of decoders, and their recipes."""

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from decoder_laws import reordering_commutes, step_by_step
from tiny_copying import (
    LENGTHS,
    MODELS,
    V,
    decode,
    mixture_equation,
    recurrent,
    set_gate,
    sources,
    transformer,
)
from torch import Tensor, nn
from torch.testing import assert_close

from seq2attn.data.batches import Batch
from seq2attn.errors import Seq2attnError
from seq2attn.layers.token_loss import CrossEntropy, cross_entropy
from seq2attn.models.decoders import (
    LatentAlignment,
    LuongDecoder,
    OutputLayers,
    PointerGenerator,
    TransformerDecoder,
)
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.recipe import ModelRecipe
from seq2attn.training.objectives import AttentionLosses, TokenObjective

NEVER = float("-inf")


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return tiny.model(MODELS[request.param])


def test_autocast_leaves_it_in_float32(model):
    with torch.autocast("cpu", torch.bfloat16):
        decoded = decode(model)
    assert decoded.logits.dtype == decoded.gate.dtype == torch.float32
    assert_close(decoded.logits.softmax(-1).sum(-1), torch.ones(3, 5))


# ---- laws of decoders --------------------------------------------------------------------------------


def test_the_gate_shut_is_the_model_without_copying(model):
    set_gate(model, 1e4)
    copying = decode(model, 7, 3, 0)
    layer, model.decoder.pointer_generator = model.decoder.pointer_generator.layer, None
    plain = decode(model, 7, 3, 0, weights_of=[layer])  # without its fused kernel, whose last digits differ
    assert plain.gate is None and (copying.gate == 1).all()
    assert torch.equal(copying.logits[..., :V], plain.logits)
    assert (copying.logits.softmax(-1)[..., V:] == 0).all()


def test_every_row_is_the_mixture_of_its_own_weights(model):
    """With the weights of the recipe's layer and head; also for an empty source."""
    source, tokens, part = sources(7, 3, 0), tiny.reads(3, 5), model.decoder.pointer_generator
    decoded = model(source, tokens, [part.layer])
    weights = decoded.weights[:, 0].mean(1) if part.head is None else decoded.weights[:, 0, part.head]
    model.decoder.pointer_generator = None
    plain = model(source, tokens).logits
    parts = (x.detach().double().numpy() for x in (plain, decoded.gate, weights))
    expected = mixture_equation(*parts, source.copy_ids.numpy())
    np.testing.assert_allclose(expected.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(decoded.logits.softmax(-1).detach().numpy(), expected, atol=1e-5)
    assert torch.equal(decoded.logits[2, :, :V], plain[2]) and (decoded.gate[2] == 1).all()


@pytest.mark.parametrize("name", ["luong", "bahdanau", "transformer-first"])
def test_the_gate_reads_context_state_and_word(name):
    model, seen = tiny.model(MODELS[name]), dict[str, list[Any]]()
    decoder = model.decoder
    layers = getattr(decoder, "layers", None)
    parts = {
        "word": decoder.embedding,
        "context": decoder.attention
        if layers is None
        else layers[decoder.pointer_generator.layer].cross_attention,
        "state": decoder.cell if layers is None else decoder.norm,
    }
    for part, module in parts.items():
        module.register_forward_hook(
            lambda module, given, answer, part=part: seen.setdefault(part, []).append(answer)
        )
    gate, state = decode(model).gate, [x[0] if isinstance(x, tuple) else x for x in seen["state"]]
    if name == "bahdanau":  # there the readout takes the state before
        first = decoder.cell.start(model.encode(sources(*LENGTHS)).summary)[0]
        state = [first, *state[:-1]]
    context = torch.cat([answer.context for answer in seen["context"]], 1)
    gate_input = torch.cat([context, torch.cat(state, 1), *seen["word"]], -1)
    assert_close(gate, decoder.pointer_generator.gate(gate_input).squeeze(-1).sigmoid())


def test_the_gate_open_copies_the_position_with_all_the_weight():
    model = tiny.model(MODELS["luong"])
    set_gate(model, -1e4)
    where = torch.tensor([[0, 2, 6, 1, 4]] * 3)
    weights = nn.functional.one_hot(where, 7).float()
    attention = model.decoder.attention

    class Fixed(nn.Module):
        remember, initial_state = attention.remember, attention.initial_state

        def forward(self, query: Tensor, memory: Any, past: Any, need_weights: bool) -> Any:
            return attention(query, memory, past, True)._replace(weights=weights[:, : query.shape[1]])

    model.decoder.attention = Fixed()
    source = sources(7, 7, 7)
    predicted = model(source, tiny.reads(3, 5)).logits.argmax(-1)
    assert torch.equal(predicted, source.copy_ids.gather(1, where))
    assert (predicted >= V).any() and (predicted < V).any()


def test_steps_and_forward_agree(model):
    source, tokens = sources(7, 3, 0), tiny.reads(3, 5)
    stepped, _ = step_by_step(model.decoder, tokens, model.start(source))
    assert_close(stepped, model(source, tokens).logits, atol=1e-5, rtol=1e-5)


def test_reordering_commutes_with_stepping(model):
    reordering_commutes(model.decoder, model.decoder.track_coverage(model.start(sources(*LENGTHS))))


def test_a_batch_is_a_list_of_sentences(model):
    """Though the width depends on the longest. Padding is never copied, whatever it seems to be."""
    source, tokens = sources(*LENGTHS, width=11), tiny.reads(3, 5)
    whole = model(source, tokens).logits.log_softmax(-1)
    for row, length in enumerate(LENGTHS):
        index = slice(row, row + 1)
        log_p = model(tiny.rows(source, index, length), tokens[index]).logits.log_softmax(-1)
        assert_close(whole[index, :, : V + length], log_p, atol=1e-5, rtol=1e-5)
        present = {*source.copy_ids[row, :length].tolist()}
        assert (whole[row, :, V + length :] < -80).all()
        absent = [V + n for n in range(length) if V + n not in present | {V + 1}]
        assert (whole[row][:, absent] == NEVER).all()


def test_every_parameter_learns(model):
    model.train()
    decoded = decode(model)
    target = torch.full((3, 5), V + 2)
    cross_entropy(decoded.logits, target, target > 0, 0.1, 7).smoothed.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert (model.decoder.pointer_generator.gate.weight.grad != 0).all()


def test_only_the_layer_that_copies_gives_up_its_kernel(monkeypatch):
    model = tiny.model(MODELS["transformer-first"])
    need_weights: list[tuple[int, bool]] = []
    for number, layer in enumerate(model.decoder.layers):
        layer.cross_attention.register_forward_pre_hook(
            lambda module, given, number=number: need_weights.append((number, given[3]))
        )
    decode(model)
    assert need_weights == [(0, True), (1, False), (2, False)]


@pytest.mark.parametrize("name", ["coverage", "luong", "transformer-first"])
def test_coverage_is_trained_beside_copying(name):
    """And the coverage of steps is the one that is trained (See et al. 2017, eqs. 11 to 13)."""
    model = tiny.model(MODELS[name]).train()
    source, tokens, decoder = sources(*LENGTHS), tiny.reads(3, 5), model.decoder
    target = torch.full((3, 5), V + 2)
    batch = Batch(source, tokens, target, target > 0)
    objective = TokenObjective(CrossEntropy(0.1), AttentionLosses({"coverage": 1.0}, decoder))
    losses = objective.loss(objective.forward(model, batch), batch)
    assert losses.parts["coverage"] > 0 and losses.whole > losses.loss
    losses.whole.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    decoded = model(source, tokens, [decoder.pointer_generator.layer])
    _, state = step_by_step(decoder, tokens, decoder.track_coverage(model.start(source)))
    expected = torch.where(source.mask, decoded.weights[:, 0].mean(1).sum(1), 1.0)
    assert_close(decoder.coverage(state), expected, atol=1e-5, rtol=1e-5)


def test_copying_needs_copy_ids(model):
    source = sources(*LENGTHS)._replace(copy_ids=None)
    message = "this decoder copies from its source: give the model a Source with copy_ids"
    with pytest.raises(Seq2attnError, match=message):
        model(source, tiny.reads(3, 5))
    with pytest.raises(Seq2attnError, match=message):
        model.start(source)


def copying_decoder(decoder: Any, latent: Any = None, layer: int = 0) -> LuongDecoder:
    """A decoder made of the parts of another one, with a pointer generator."""
    layers = OutputLayers(decoder.readout, decoder.output, decoder.dropout)
    parts = decoder.embedding, decoder.cell, decoder.attention, layers
    return LuongDecoder(*parts, latent=latent, pointer_generator=PointerGenerator(3, layer))


def test_decoders_that_cannot_copy_are_refused():
    decoder = tiny.model(tiny.MODELS["luong-marginal"]).decoder
    with pytest.raises(Seq2attnError, match="predicts from each position separately: no copying"):
        copying_decoder(decoder, LatentAlignment("marginal"))
    assert copying_decoder(decoder).pointer_generator.layer == 0
    with pytest.raises(Seq2attnError, match="of the 1 layers that attend to the source; got layer 1"):
        copying_decoder(decoder, layer=1)
    decoder.attention.normalize.sums_to_one = False
    with pytest.raises(Seq2attnError, match="weights that sum to 1, and those of Softmax may sum to less"):
        copying_decoder(decoder)
    tiny_transformer = tiny.model(tiny.MODELS["transformer-pre-rotary"]).decoder
    parts = tiny_transformer.embedding, list(tiny_transformer.layers), "pre", tiny_transformer.output
    for layer in (2, -1):
        message = f"one of the 2 layers that attend to the source; got layer {layer}"
        with pytest.raises(Seq2attnError, match=message):
            TransformerDecoder(*parts, PointerGenerator(3, layer))
    with pytest.raises(Seq2attnError, match="one of the 0 layers that attend to the source; got layer 0"):
        TransformerDecoder(
            tiny_transformer.embedding, [], "pre", tiny_transformer.output, PointerGenerator(3)
        )


# ---- the recipe --------------------------------------------------------------------------------------


def test_a_recipe_switches_it_on_and_off():
    for off in (None, False):
        recipe = recurrent()
        recipe["decoder"]["copying"] = off
        assert ModelRecipe.model_validate(recipe).decoder.copying is None
        assert tiny.model(recipe).decoder.pointer_generator is None
    on = ModelRecipe.model_validate(transformer({"head": 1}, layers=3))
    assert on.decoder.copying.model_dump() == {"layer": -1, "head": 1}
    assert ModelRecipe.model_validate(on.model_dump()) == on
    part = tiny.model(transformer({"head": 1}, layers=3)).decoder.pointer_generator
    assert part.layer == 2 and part.head == 1
    assert part.gate.in_features == 60
    assert tiny.model(MODELS["luong"]).decoder.pointer_generator.gate.in_features == 10 + 14 + 13


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (recurrent(copying=3), r"expected true, false, or {layer: ..., head: ...}, got 3"),
        (
            recurrent(attention={"normalize": "sigmoid"}),
            "copying.*sum to 1, and those of sigmoid may sum to less or more",
        ),
        (
            recurrent(latent="marginal"),
            "copying.*with latent marginal each source position has its own prediction, and the",
        ),
        (recurrent(copying={"layer": 1}), r"copying.layer.*layers with attention are 0 to 0, got 1"),
        (recurrent(copying={"head": 1}), r"copying.head.*the heads are 0 to 0, got 1"),
        (transformer({"layer": -3}), r"copying.layer.*are 0 to 1, got -3"),
        (
            transformer(cross_attention={"heads": 5, "talking": True}),
            "copying.*those of talking heads may sum to less or more",
        ),
        (
            transformer({"layer": 0}, cross_attention=[{"heads": 5, "normalize": "sigmoid"}, {"heads": 5}]),
            "copying.*those of sigmoid may sum to less or more",
        ),
    ],
)
def test_faults_of_the_recipe(recipe, message):
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        ModelRecipe.model_validate(recipe)


def test_without_attention_there_is_nothing_to_copy():
    recipe = {"encoder": tiny.recurrent_encoder(), "decoder": tiny.recurrent_decoder("cho", copying=True)}
    with pytest.raises(ValueError, match="the order cho has no attention to copy by: use bahdanau or luong"):
        ModelRecipe.model_validate(recipe)


def test_other_layers_may_have_weights_that_do_not_sum_to_one():
    recipe = transformer({"layer": 1}, cross_attention=[{"heads": 5, "normalize": "sigmoid"}, {"heads": 5}])
    assert tiny.model(recipe).decoder.pointer_generator.layer == 1
