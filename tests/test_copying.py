"""Copying: one mixture for every decoder, which sums to one, and says words that nobody knew."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from pages import Page
from test_decoders import check_reordering, step_by_step
from tiny_runs import silent
from tiny_training import Rows
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

import seq2attn
from seq2attn.data.batches import Batch, BatchLoader, batch
from seq2attn.errors import Seq2attnError
from seq2attn.inference.results import Translation
from seq2attn.inference.search import Rules, beam_search, greedy, sample
from seq2attn.inference.translator import Translator
from seq2attn.models.decoders import Copies, PointerGenerator
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import DecodingRecipe, ModelRecipe, SamplingRecipe, TruncateRecipe
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.vocabulary_training import train_vocabulary
from seq2attn.training.objectives import AttentionLosses, TokenObjective
from seq2attn.training.token_loss import cross_entropy

V = tiny.TARGET
LENGTHS = (7, 3, 5)
NEVER = float("-inf")


def recurrent(order: str = "luong", attention: Any = None, **options: Any) -> dict[str, Any]:
    decoder = tiny.recurrent_decoder(order, **{"copying": True, **options})
    decoder["attention"] = attention or {"score": "additive"}
    return {"encoder": tiny.recurrent_encoder(), "decoder": decoder}


def transformer(copying: Any = True, **options: Any) -> dict[str, Any]:
    return {
        "encoder": tiny.transformer(),
        "decoder": tiny.transformer(decoder=True, copying=copying, **options),
    }


MODELS = {
    "luong": recurrent(),
    "luong-lstm-2": recurrent(layers=2, readout="maxout"),
    "luong-heads": recurrent(attention={"score": "scaled_dot", "heads": 2}, cell="gru"),
    "luong-one-head": {
        **(one := recurrent(attention={"score": "scaled_dot", "heads": 7})),
        "decoder": {**one["decoder"], "copying": {"head": 4}},
    },
    "feeding": recurrent(input_feeding=True),
    "bahdanau": recurrent("bahdanau", readout="maxout", cell="gru"),
    "sparse-tanh": recurrent("bahdanau", {"score": "additive", "normalize": "sparsemax"}),
    "coverage": recurrent(attention={"score": "coverage"}),
    "entmax": recurrent(attention={"score": "general", "normalize": "entmax"}),
    "transformer": transformer(),
    "transformer-post": transformer(norm="post", positions="rotary"),
    "transformer-first": transformer({"layer": 0, "head": 3}, layers=3),
    "transformer-window": transformer(
        {"layer": -2}, self_attention={"heads": 2, "window": 2}, cross_attention={"heads": 5, "key_heads": 1}
    ),
}


def slots(tokens: Tensor, mask: Tensor) -> Tensor:
    """What the source's tokens are copied as: from 11 on the target lacks them. Padding copies garbage."""
    ids = torch.full_like(tokens, V + 1)
    for row, length in enumerate(mask.sum(1).tolist()):
        seen = tokens[row, :length].tolist()
        ids[row, :length] = torch.tensor([t if t < 11 else V + seen.index(t) for t in seen])
    return ids


def sources(*lengths: int, width: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, some of them several times; mask; copies."""
    tokens, mask = tiny.sources(*lengths, width=width)
    tokens[:, 1::3] = tokens[:, :1]
    tokens[:, 2] = 13
    return tokens, mask, slots(tokens, mask)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return tiny.model(MODELS[request.param])


def decode(model: Seq2Seq, *lengths: int, look: Any = ()) -> Any:
    tokens, mask, copies = sources(*(lengths or LENGTHS))
    return model(tokens, mask, tiny.reads(len(tokens), 5), look, copies)


def shut(model: Seq2Seq, odds: float) -> None:
    """Set the gate: large = generate, small = copy."""
    with torch.no_grad():
        model.decoder.pointer_generator.gate.weight.zero_()
        model.decoder.pointer_generator.gate.bias.fill_(odds)


# ---- the mixture -------------------------------------------------------------------------------------


def mixture_equation(logits: Any, gate: Any, weights: Any, ids: Any) -> np.ndarray:
    """See et al. 2017, eq. 9, word by word; without weights only what is generated."""
    B, T, S = weights.shape
    p = np.zeros((B, T, logits.shape[-1] + S))
    for b in range(B):
        for t in range(T):
            g = gate[b, t] if weights[b, t].sum() else 1.0
            p[b, t, : logits.shape[-1]] = g * np.exp(logits[b, t]) / np.exp(logits[b, t]).sum()
            for s in range(S):
                p[b, t, ids[b, s]] += (1 - g) * weights[b, t, s]
    return p


def given(kind: torch.dtype = torch.float64) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """Logits, what the gate asks, weights, ids: repeated, beyond the vocabulary, and a row that sees nothing."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 5, 11, generator=generator, dtype=kind) * 3
    asked = [torch.randn(3, 5, size, generator=generator, dtype=kind) for size in (2, 7)]
    weights = torch.randn(3, 5, 7, generator=generator, dtype=kind).softmax(-1)
    ids = torch.tensor([[4, 5, 4, 4, 11 + 4, 11 + 4, 3], [11, 11, 11, 11, 11, 11, 11], [1, 2, 3, 4, 5, 6, 0]])
    weights[0, 1:3] = 0
    weights[1, 2] = torch.eye(7)[3]
    return logits, asked, weights, ids


ALL = torch.ones(3, 7, dtype=torch.bool)


def pointer_generator(kind: torch.dtype = torch.float64) -> PointerGenerator:
    torch.manual_seed(2)
    return PointerGenerator(9).to(kind)


def test_the_mixture_is_the_papers_equation():
    logits, asked, weights, ids = given()
    found, gate = (one := pointer_generator())(logits, asked, weights, Copies.of(ids, ALL))
    odds = one.gate(torch.cat(asked, -1)).squeeze(-1).detach()
    expected = mixture_equation(
        *(x.numpy() for x in (logits, odds.sigmoid(), weights, ids)),
    )
    np.testing.assert_allclose(expected.sum(-1), 1)
    np.testing.assert_allclose(found.softmax(-1).detach().numpy(), expected, atol=1e-12)
    seen = weights.sum(-1) > 0
    assert_close(gate, torch.where(seen, odds.sigmoid(), 1.0))
    assert torch.equal(found[0, 1:3, :11], logits[0, 1:3])  # who sees nothing generates


def test_the_usual_mistake_loses_repeated_pieces():
    """`p[ids] += weights` adds one of several; the masses of a row must come to 1."""
    logits, asked, weights, ids = given()
    found, gate = pointer_generator()(logits, asked, weights, Copies.of(ids, ALL))
    p = gate[0, 0] * F.pad(logits[0, 0].softmax(-1), (0, 7))
    p[ids[0]] += (1 - gate[0, 0]) * weights[0, 0]
    assert p.sum() < 0.99
    assert not torch.allclose(p, found[0, 0].softmax(-1), atol=0.01)


def test_gradients_are_those_of_the_equation():
    one, (logits, asked, weights, ids) = pointer_generator(), given()

    def finite(scores: Tensor, state: Tensor, word: Tensor, energies: Tensor) -> Tensor:
        shares = energies.softmax(-1) * (weights.sum(-1, keepdim=True) > 0)
        mixed, gate = one(scores, [state, word], shares, Copies.of(ids, ALL))
        return torch.cat([mixed[mixed.isfinite()], gate.flatten()])

    leaves = [x.clone().requires_grad_() for x in (logits, *asked, weights.clamp(min=0.01).log())]
    assert torch.autograd.gradcheck(finite, leaves)


def test_the_loss_and_its_gradient_are_those_of_the_plain_formula():
    """Smoothing spreads over the vocabulary alone; what no slot has costs nothing, and makes no nan."""
    one, (logits, asked, weights, ids) = pointer_generator(), given()
    gold = torch.tensor([[4, 5, 7, 11 + 4, 3], [11, 2, 11, 11, 3], [6, 7, 8, 0, 3]])
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[2, 3:] = False
    leaves = [x.clone().requires_grad_() for x in (logits, *asked, weights.clamp(min=0.01).log())]
    looked = leaves[3].softmax(-1) * (weights.sum(-1, keepdim=True) > 0)
    mixed, _ = one(leaves[0], leaves[1:3], looked, Copies.of(ids, ALL))
    loss = cross_entropy(mixed, gold, mask, 0.1, beyond=7).smoothed
    ours = torch.autograd.grad(loss, [*leaves, *one.parameters()], retain_graph=True)

    gate = one.gate(torch.cat(leaves[1:3], -1)).sigmoid()
    gate = torch.where(looked.sum(-1, keepdim=True) > 0, gate, 1.0)
    p = F.pad(gate * leaves[0].softmax(-1), (0, 7))
    p = p.scatter_add(-1, ids[:, None].expand(-1, 5, -1), (1 - gate) * looked)
    log_p = p.clamp(min=1e-300).log()
    nll = -log_p.gather(-1, gold[..., None]).squeeze(-1)
    expected = ((0.9 * nll - 0.1 * log_p[..., :11].mean(-1)) * mask).sum()
    assert_close(loss, expected)
    for our, their in zip(ours, torch.autograd.grad(expected, [*leaves, *one.parameters()]), strict=True):
        assert_close(our, their)


def test_nothing_is_lost_at_the_ends_of_float32():
    one = PointerGenerator(3)
    ids = torch.tensor([[4, 11 + 1, 12]])
    for odds, scale in ((-1e4, 1.0), (1e4, 1.0), (0.0, 1e-38), (-90.0, 1e-38)):
        with torch.no_grad():
            one.gate.weight.zero_()
            one.gate.bias.fill_(odds)
        one.zero_grad()
        logits = (torch.randn(1, 2, 11) * 50).requires_grad_()
        weights = torch.tensor([[[1 - scale, scale, 0.0], [0.0, 1.0, 0.0]]]).requires_grad_()
        mixed, gate = one(logits, [torch.randn(1, 2, 3)], weights, Copies.of(ids, ids > 0))
        assert not mixed.isnan().any() and gate.isfinite().all()
        assert_close(mixed.exp().isnan().any(), torch.tensor(False))
        assert_close(mixed.softmax(-1).sum(-1), torch.ones(1, 2))
        loss = cross_entropy(mixed, torch.tensor([[12, 4]]), torch.ones(1, 2, dtype=torch.bool), 0.1, 3)
        loss.smoothed.backward()
        assert loss.nll.isfinite()
        for part in (logits, weights, *one.parameters()):
            assert part.grad.isfinite().all()


def test_autocast_leaves_it_in_float32(model):
    with torch.autocast("cpu", torch.bfloat16):
        decoded = decode(model)
    assert decoded.logits.dtype == decoded.gate.dtype == torch.float32
    assert_close(decoded.logits.softmax(-1).sum(-1), torch.ones(3, 5))


# ---- laws of decoders --------------------------------------------------------------------------------


def test_the_gate_shut_is_the_model_without_copying(model):
    shut(model, 1e4)
    copying = decode(model, 7, 3, 0)
    layer, model.decoder.pointer_generator = model.decoder.pointer_generator.layer, None
    plain = decode(model, 7, 3, 0, look=[layer])  # without its fused kernel, whose last digits differ
    assert plain.gate is None and (copying.gate == 1).all()
    assert torch.equal(copying.logits[..., :V], plain.logits)
    assert (copying.logits.softmax(-1)[..., V:] == 0).all()


def test_every_row_is_the_mixture_of_its_own_weights(model):
    """With what the layers and heads of the recipe looked at; also from an empty source."""
    tokens, mask, copies = sources(7, 3, 0)
    reads, one = tiny.reads(3, 5), model.decoder.pointer_generator
    decoded = model(tokens, mask, reads, [one.layer], copies)
    looked = decoded.weights[:, 0].mean(1) if one.head is None else decoded.weights[:, 0, one.head]
    model.decoder.pointer_generator = None
    plain = model(tokens, mask, reads).logits
    parts = (x.detach().double().numpy() for x in (plain, decoded.gate, looked))
    expected = mixture_equation(*parts, copies.numpy())
    np.testing.assert_allclose(expected.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(decoded.logits.softmax(-1).detach().numpy(), expected, atol=1e-5)
    assert torch.equal(decoded.logits[2, :, :V], plain[2]) and (decoded.gate[2] == 1).all()


@pytest.mark.parametrize("name", ["luong", "bahdanau", "transformer-first"])
def test_the_gate_asks_context_state_and_word(name):
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
    if name == "bahdanau":  # what the readout sees there is the state before
        tokens, mask, _ = sources(*LENGTHS)
        first = decoder.cell.start(model.encoder(tokens, mask).summary)[0]
        state = [first, *state[:-1]]
    context = torch.cat([answer.context for answer in seen["context"]], 1)
    asked = torch.cat([context, torch.cat(state, 1), *seen["word"]], -1)
    assert_close(gate, decoder.pointer_generator.gate(asked).squeeze(-1).sigmoid())


def test_the_gate_open_copies_what_is_looked_at():
    model = tiny.model(MODELS["luong"])
    shut(model, -1e4)
    where = torch.tensor([[0, 2, 6, 1, 4]] * 3)
    looked = nn.functional.one_hot(where, 7).float()
    attention = model.decoder.attention

    class Fixed(nn.Module):
        remember, initial_state = attention.remember, attention.initial_state

        def forward(self, query: Tensor, memory: Any, past: Any, need_weights: bool) -> Any:
            return attention(query, memory, past, True)._replace(weights=looked[:, : query.shape[1]])

    model.decoder.attention = Fixed()
    tokens, mask, copies = sources(7, 7, 7)
    said = model(tokens, mask, tiny.reads(3, 5), (), copies).logits.argmax(-1)
    assert torch.equal(said, copies.gather(1, where))
    assert (said >= V).any() and (said < V).any()


def test_steps_and_forward_agree(model):
    tokens, mask, copies = sources(7, 3, 0)
    stepped, _ = step_by_step(model.decoder, reads := tiny.reads(3, 5), model.start(tokens, mask, copies))
    assert_close(stepped, model(tokens, mask, reads, (), copies).logits, atol=1e-5, rtol=1e-5)


def test_reordering_commutes_with_stepping(model):
    check_reordering(model.decoder, model.decoder.track_coverage(model.start(*sources(*LENGTHS))))


def test_a_batch_is_a_list_of_sentences(model):
    """Though the width depends on the longest. Padding is never copied, whatever it seems to be."""
    tokens, mask, copies = sources(*LENGTHS, width=11)
    reads = tiny.reads(3, 5)
    whole = model(tokens, mask, reads, (), copies).logits.log_softmax(-1)
    for row, length in enumerate(LENGTHS):
        one = slice(row, row + 1)
        alone = model(tokens[one, :length], mask[one, :length], reads[one], (), copies[one, :length])
        log_p = alone.logits.log_softmax(-1)
        assert_close(whole[one, :, : V + length], log_p, atol=1e-5, rtol=1e-5)
        there = {*copies[row, :length].tolist()}
        assert (whole[row, :, V + length :] < -80).all()
        absent = [V + place for place in range(length) if V + place not in there | {V + 1}]
        assert (whole[row][:, absent] == NEVER).all()


def test_every_parameter_learns(model):
    model.train()
    decoded = decode(model)
    gold = torch.full((3, 5), V + 2)
    cross_entropy(decoded.logits, gold, gold > 0, 0.1, 7).smoothed.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert (model.decoder.pointer_generator.gate.weight.grad != 0).all()


def test_only_the_layer_that_copies_gives_up_its_kernel(monkeypatch):
    model = tiny.model(MODELS["transformer-first"])
    asked: list[tuple[int, bool]] = []
    for number, layer in enumerate(model.decoder.layers):
        layer.cross_attention.register_forward_pre_hook(
            lambda module, given, number=number: asked.append((number, given[3]))
        )
    decode(model)
    assert asked == [(0, True), (1, False), (2, False)]


@pytest.mark.parametrize("name", ["coverage", "luong", "transformer-first"])
def test_coverage_is_taught_beside_copying(name):
    """And what is counted in steps is what was taught (See et al. 2017, eqs. 11 to 13)."""
    model = tiny.model(MODELS[name]).train()
    tokens, mask, copies = sources(*LENGTHS)
    reads, decoder = tiny.reads(3, 5), model.decoder
    gold = torch.full((3, 5), V + 2)
    made = Batch(tokens, mask, reads, gold, gold > 0, None, copies)
    objective = TokenObjective(0.1, AttentionLosses({"coverage": 1.0}, decoder))
    losses = objective.loss(objective.forward(model, made), made)
    assert losses.parts["coverage"] > 0 and losses.whole > losses.loss
    losses.whole.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    decoded = model(tokens, mask, reads, [decoder.pointer_generator.layer], copies)
    _, state = step_by_step(decoder, reads, decoder.track_coverage(model.start(tokens, mask, copies)))
    expected = torch.where(mask, decoded.weights[:, 0].mean(1).sum(1), 1.0)
    assert_close(decoder.coverage(state), expected, atol=1e-5, rtol=1e-5)


def test_who_copies_must_know_what(model):
    tokens, mask, _ = sources(*LENGTHS)
    with pytest.raises(
        Seq2attnError, match="this decoder copies, and was not told what: give the model `cop"
    ):
        model(tokens, mask, tiny.reads(3, 5))
    with pytest.raises(Seq2attnError, match="was not told what"):
        model.start(tokens, mask)


def test_what_cannot_copy_says_so():
    plain = {name: tiny.model(tiny.MODELS[name]).decoder for name in ("cho-gru-1-maxout", "luong-marginal")}
    with pytest.raises(
        Seq2attnError, match="needs one of the 0 layers that attend to the source; got layer 0"
    ):
        plain["cho-gru-1-maxout"].copying(PointerGenerator(3))
    with pytest.raises(Seq2attnError, match="predicts from every slot by itself: no copying with it"):
        plain["luong-marginal"].copying(PointerGenerator(3))
    decoder = tiny.model(recurrent(attention={"score": "additive"})).decoder
    decoder.attention.normalize.sums_to_one = False
    with pytest.raises(Seq2attnError, match="weights that sum to 1, and those of Softmax may sum to less"):
        decoder.copying(PointerGenerator(3))
    with pytest.raises(Seq2attnError, match="of the 1 layers that attend to the source; got layer 1"):
        decoder.copying(PointerGenerator(3, layer=1))


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
    assert (
        one := tiny.model(transformer({"head": 1}, layers=3)).decoder.pointer_generator
    ).layer == 2 and one.head == 1
    assert one.gate.in_features == 60
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
            "copying.*with latent marginal every slot predicts by itself, and the",
        ),
        (recurrent(copying={"layer": 1}), r"copying.layer.*layers with attention are 0 to 0, got 1"),
        (recurrent(copying={"head": 1}), r"copying.head.*the heads are 0 to 0, got 1"),
        (transformer({"layer": -3}), r"copying.layer.*are 0 to 1, got -3"),
        (
            transformer(cross_attention={"heads": 5, "talking": True}),
            "copying.*those of heads that talk may sum to less or more",
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
    with pytest.raises(ValueError, match="the order cho looks at nothing to copy: use bahdanau or luong"):
        ModelRecipe.model_validate(recipe)


def test_other_layers_may_have_weights_that_do_not_sum_to_one():
    recipe = transformer({"layer": 1}, cross_attention=[{"heads": 5, "normalize": "sigmoid"}, {"heads": 5}])
    assert tiny.model(recipe).decoder.pointer_generator.layer == 1


# ---- text --------------------------------------------------------------------------------------------

WORDS = ["the cat sees a dog", "a dog sees the cat", "the dog runs", "a cat runs", "who runs ?"]


def words(*more: str, model: Any = "word", size: int = 13, **options: Any) -> Vocabulary:
    return train_vocabulary([*WORDS, *more], model=model, size=size, **options)


def test_a_piece_copies_the_piece_of_its_name():
    source, target = words(), words("one two", size=99)
    pieces = source.split("the zork sees who zork two two").pieces
    the, sees, who, two = (target.encode([word])[0][0] for word in ("the", "sees", "who", "two"))
    again = target.size + 1
    assert target.copies(pieces) == [the, again, sees, who, again, two, two, target.eos]
    assert target.copies(["▁zork", "▁the", "▁zork", "▁two"])[:-1] == [target.size, the, target.size, two]
    assert target.copies([]) == [target.eos]
    assert target.copies(["<unk>", "▁the"]) == [target.unk, the, target.eos]


def test_an_unknown_target_word_has_the_id_of_its_source():
    vocabulary = words()
    there = vocabulary.split("the zork sees blub").pieces
    said = vocabulary.split("blub sees gnu the zork")
    ids = vocabulary.copied(said.ids, said.pieces, there)
    size, sees, the = vocabulary.size, said.ids[1], said.ids[3]
    assert ids == [size + 3, sees, vocabulary.unk, the, size + 1]
    joined = vocabulary.join(ids, there)
    assert joined.words == ["blub", "sees", "⁇", "the", "zork"] and joined.ids == ids
    assert vocabulary.decode(ids, there).split() == joined.words
    assert joined.pieces == ["▁blub", "▁sees", "<unk>", "▁the", "▁zork"]


@pytest.mark.parametrize("model", ["word", "char", "bpe"])
@pytest.mark.parametrize(
    "text", ["the zork sees a ﬁg", "zork", "dog 漢字 sees 漢", "", "漢 the", "who's Ａ?"]
)
def test_what_is_copied_whole_is_the_text(model, text):
    vocabulary = words(model=model, size=30 if model == "bpe" else 99, byte_fallback=False)
    tokens = vocabulary.split(text)
    assert vocabulary.pieces(tokens.ids, text) == tokens.pieces
    ids = vocabulary.copied(tokens.ids, tokens.pieces, tokens.pieces)
    assert [*ids, vocabulary.eos] == vocabulary.copies(tokens.pieces)
    assert vocabulary.unk not in ids
    assert vocabulary.decode(ids, tokens.pieces).strip() == vocabulary.normalize(text)
    assert " ".join(vocabulary.join(ids, tokens.pieces).words) == vocabulary.normalize(text)


class Pairs(Rows):
    """A corpus of sentences."""

    def __init__(self, vocabulary: Vocabulary, *pairs: tuple[str, str], cut: Any = None) -> None:
        self.pairs, self.asked = pairs, list[int]()
        sides = [vocabulary.encode([pair[side] for pair in pairs]) for side in (0, 1)]
        self.ends = [cut is None or cut.ends(row) for row in sides[1]]
        if cut is not None:
            sides = [[list(cut.cut(side, row)) for row in rows] for side, rows in enumerate(sides)]
        super().__init__([[np.array(row, dtype=np.int32) for row in rows] for rows in sides])

    def source_text(self, number: int) -> str:
        self.asked.append(number)
        return self.pairs[number][0]

    def target_text(self, number: int) -> str:
        self.asked.append(number)
        return self.pairs[number][1]

    def ended(self, number: int) -> bool:
        return self.ends[number]


def test_a_batch_says_what_is_copied():
    vocabulary = words()
    corpus = Pairs(vocabulary, ("the zork sees blub", "blub sees gnu"), ("a cat runs", "the cat"))
    loader = BatchLoader(corpus, vocabulary, vocabulary, 100)
    numbers = np.array([0, 1])
    plain = loader.batch(numbers)
    assert plain.copies is None and corpus.asked == []
    loader.copying = True
    made = loader.batch(numbers)
    assert corpus.asked == [0, 0]  # only those with unknown words are cut again
    size, unk, eos, pad = vocabulary.size, vocabulary.unk, vocabulary.eos, vocabulary.pad
    the, sees = (vocabulary.encode([word])[0][0] for word in ("the", "sees"))
    assert made.copies.tolist() == [[the, size + 1, sees, size + 3, eos], [*plain.source[1].tolist()]]
    assert made.gold[0].tolist() == [size + 3, sees, unk, eos]
    assert_close(made._replace(copies=None, gold=plain.gold), plain)  # what is read stays <unk>
    assert plain.copies is None and made.to(torch.device("cpu")).copies is not None and pad == 0


def test_what_is_truncated_is_not_copied():
    """Unknown words of head and tail keep their names."""
    vocabulary = words()
    truncate = TruncateRecipe.model_validate(
        {"source": {"head": 2, "tail": 2}, "target": {"head": 3, "tail": 3}}
    )
    text = "the eins cat zwei runs drei dog"
    corpus = Pairs(vocabulary, (text, "drei a zwei the eins a drei"), cut=truncate)
    loader = BatchLoader(corpus, vocabulary, vocabulary, 100, truncate=truncate)
    loader.copying = True
    made = loader.batch(np.array([0]))
    size, unk, eos = vocabulary.size, vocabulary.unk, vocabulary.eos
    the, dog, a = vocabulary.encode(["the dog a"])[0]
    assert made.copies.tolist() == [[the, size + 1, size + 2, dog, eos]]
    assert made.gold.tolist() == [[size + 2, a, unk, size + 1, a, size + 2, eos]]
    headed = TruncateRecipe.model_validate({"target": 3})
    loader = BatchLoader(
        Pairs(vocabulary, *corpus.pairs, cut=headed), vocabulary, vocabulary, 100, truncate=headed
    )
    loader.copying = True
    made = loader.batch(np.array([0]))
    assert made.gold.tolist() == [[size + 5, a, size + 3]]  # and what was cut off has no end
    assert made.reads.tolist() == [[vocabulary.bos, unk, a]]


def test_sampled_pieces_copy_what_stands_in_the_text():
    vocabulary = words(model="bpe", size=30, byte_fallback=False)
    corpus = Pairs(vocabulary, ("the 漢 sees 字字 a dog", "字字 the cat 漢"))
    loader = BatchLoader(corpus, vocabulary, vocabulary, 100, sampling=SamplingRecipe(alpha=0.5))
    loader.copying, lengths = True, set()
    for epoch in range(9):
        made = loader.batch(np.array([0]), epoch)
        length = made.source.shape[1]
        lengths.add(length)
        names = [vocabulary.decode([i], ["漢", "字字"]) for i in made.source[0].tolist()]
        there = [i for i in made.copies[0].tolist() if i >= vocabulary.size]
        unknown = (made.source[0] == vocabulary.unk).nonzero().squeeze(1) + vocabulary.size
        assert there == unknown.tolist() and len(names) == length
        assert [i for i in made.gold[0].tolist() if i >= vocabulary.size] == there[::-1]
    assert len(lengths) > 1


# ---- search ------------------------------------------------------------------------------------------

RULES = Rules(tiny.BOS, tiny.EOS, (tiny.PAD, tiny.BOS))


def stepping(model: Seq2Seq) -> Any:
    return lambda token, state: model.step(token.masked_fill(token >= V, tiny.UNK), state)


@pytest.mark.parametrize("name", ["luong", "feeding", "transformer", "transformer-first"])
@pytest.mark.parametrize("way", ["greedy", "beam", "sample"])
def test_a_search_scores_as_forcing_does_whoever_is_in_the_batch(name, way):
    model = tiny.model(MODELS[name])
    shut(model, -1.0)
    lengths = (7, 3, 5, 9)
    tokens, mask, copies = sources(*lengths)

    def search(rows: list[int], width: int) -> Any:
        state = model.start(tokens[rows, :width], mask[rows, :width], copies[rows, :width])
        most = torch.tensor([6] * len(rows))
        if way == "greedy":
            return [[h] for h in greedy(stepping(model), state, RULES, most)]
        if way == "sample":
            seeds = [[11 * row + n for row in rows] for n in range(4)]
            drawn = [sample(stepping(model), state, RULES, most, some) for some in seeds]
            return [list(some) for some in zip(*drawn, strict=True)]
        return beam_search(stepping(model), state, RULES, most, 4)

    with torch.inference_mode():
        together = search([0, 1, 2, 3], 9)
        said = set()
        for row, length in enumerate(lengths):
            (alone,) = search([row], length)
            assert [h.tokens for h in alone] == [h.tokens for h in together[row]]
            for one, other in zip(alone, together[row], strict=True):
                assert one.log_probability == pytest.approx(other.log_probability, abs=1e-5)
                ids = torch.tensor([[tiny.BOS, *one.tokens]])
                read, gold = ids.masked_fill(ids >= V, tiny.UNK), torch.tensor([*one.tokens, tiny.EOS])
                decoded = model(tokens[[row]], mask[[row]], read, (), copies[[row]])
                scores = decoded.logits[0].log_softmax(-1).gather(-1, gold[:, None]).sum()
                if len(one.tokens) < 6:
                    assert float(scores) == pytest.approx(one.log_probability, abs=1e-4)
                said |= {*one.tokens}
                assert {i for i in one.tokens if i >= V} <= {*copies[row, :length].tolist()}
    assert any(token >= V for token in said)


def test_a_beam_wider_than_what_can_be_said_stays_within_the_sentence():
    """What a batch mate alone could copy is never a continuation, not even the last."""
    model = tiny.model(MODELS["luong"])
    tokens, mask, copies = sources(3, 9)
    rules = Rules(tiny.BOS, tiny.EOS, tuple(i for i in range(V) if i not in (tiny.EOS, 5)), 2, 2)
    found = beam_search(stepping(model), model.start(tokens, mask, copies), rules, torch.tensor([6, 6]), 40)
    there = {5, *copies[0, :3].tolist()}
    assert found[0] and all({*h.tokens} <= there for h in found[0])
    rules = replace(rules, min_length=20, no_repeat_ngram=1)
    short, _ = greedy(stepping(model), model.start(tokens, mask, copies), rules, torch.tensor([30, 30]))
    assert {*short.tokens} == there and short.log_probability > NEVER  # and then there is nothing left


# ---- translating -------------------------------------------------------------------------------------

SOURCES = ["the zork sees a blub", "gnu runs", "the cat runs", "a dog 漢字 zork ?", "", "blub"]


def translator(name: str = "luong", odds: float = -2.0, seed: int = 1) -> Translator:
    torch.manual_seed(seed)
    vocabulary = words()
    model = build(ModelRecipe.model_validate(MODELS[name]), vocabulary.size, vocabulary.size).eval()
    shut(model, odds)
    return Translator(model, vocabulary, vocabulary, DecodingRecipe(max_length=7, min_length=3))


@pytest.mark.parametrize("name", ["luong", "transformer-first"])
@pytest.mark.parametrize(
    "settings", [{"beam": 1}, {"beam": 3, "nbest": 2}, {"sample": True, "nbest": 3}, {"min_length": 4}]
)
def test_translations_say_words_of_their_source(name, settings):
    predictor = translator(name)
    together = predictor.translate(SOURCES, **settings)
    new = set()
    for number, (text, said) in enumerate(zip(SOURCES, together, strict=True)):
        before = ["x"] * number  # a sentence draws by its number
        alone = predictor.translate([*before, text], **settings)[-1]
        for one, other in zip(alone.nbest, said.nbest, strict=True):
            assert (one.text, one.target) == (other.text, other.target)
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-5)
            assert_close((one.alignment, one.copied), (other.alignment, other.copied), atol=1e-5, rtol=1e-5)
        for one in said.nbest:
            known = {predictor.target.decode([i]) for i in range(predictor.target.size)} | {"⁇", "漢字 zork"}
            assert {*one.words} <= known | {*text.split()}
            new |= {word for word in one.words if word not in known}
            if not text:
                assert one.copied is None
                continue
            assert one.copied is not None and one.copied.shape == (len(one.words),)
            assert ((one.copied >= 0) & (one.copied <= 1)).all()
            for word, share in zip(one.words, one.copied.tolist(), strict=True):
                if word in ("zork", "blub", "gnu"):  # nothing else could have said them
                    assert share == pytest.approx(1, abs=1e-5)
                elif word not in text.split() and word != "漢字 zork":
                    assert share == 0
    assert new


def test_a_given_target_is_forced_with_its_names():
    predictor = translator("transformer-first", seed=5)
    said = predictor.translate("the zork sees a blub", beam=1, max_length=5)
    assert said.text == "a sees blub" and said.target.ids[2] == predictor.target.size + 4
    (forced,) = predictor.forced_decoding(
        [said.source.ids], [said.target.ids], copies=predictor.copies([said.source.ids], [said.source])
    )
    assert forced.log_probability == pytest.approx(said.log_probability, abs=1e-5)
    text = "a blub sees"
    aligned = predictor.align("the zork sees a blub", text)
    assert aligned.target.ids[1] == predictor.target.size + 4 and aligned.text == text
    assert aligned.copied is not None and aligned.copied[1] == pytest.approx(1, abs=1e-5)
    (score,) = predictor.log_probabilities(["the zork sees a blub"], [text])
    assert score == pytest.approx(aligned.log_probability, abs=1e-5)
    (other,) = predictor.log_probabilities(["the zork sees a gnu"], [text])  # there it can only be <unk>
    assert other != pytest.approx(score, abs=0.1)


@pytest.mark.parametrize("name", ["luong", "transformer-first"])
def test_what_is_said_has_the_probability_of_the_same_text(name):
    """Behind a copied word, too: search reads it as <unk>, as training does."""
    predictor, behind = translator(name), 0
    for text in SOURCES:
        if not text:
            continue
        said = predictor.translate(text, beam=1, min_length=5)
        behind += any(one >= predictor.target.size for one in said.target.ids[:-1])
        ids, copies = [said.source.ids], predictor.copies([said.source.ids], [said.source])
        (forced,) = predictor.forced_decoding(ids, [said.target.ids], copies=copies)
        assert said.log_probability == pytest.approx(forced.log_probability, abs=1e-5)
    assert behind


def test_what_copies_is_what_is_shown_and_taught():
    """One attention (layer 0, head 3), unless another is named."""
    predictor = translator("transformer-first")
    text, target = "the zork sees a blub", "a blub sees"
    shown = predictor.align(text, target).weights
    assert_close(shown, predictor.align(text, target, 0, 3).weights)
    assert_close(predictor.translate(text, prefix=target).weights[:3], shown[:3], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(shown, predictor.align(text, target, 1).weights)
    assert not torch.allclose(shown, predictor.align(text, target, head=2).weights)
    assert_close(predictor.align(text, target, head=2).weights, predictor.align(text, target, 0, 2).weights)
    assert_close(
        predictor.align(text, target, 2).weights,
        torch.stack([predictor.align(text, target, 2, head).weights for head in range(5)]).mean(0),
    )
    one = AttentionLosses({"coverage": 1.0, "guided": 1.0}, predictor.model.decoder)
    assert (one.layer, one.head, one.guided_layer, one.guided_head, one.look) == (0, 3, 0, 3, [0])


def test_a_prefix_may_name_a_word_of_the_source():
    predictor = translator()
    said = predictor.translate("the zork sees", prefix="zork runs", max_length=6)
    assert said.words[:2] == ["zork", "runs"] and said.target.ids[0] == predictor.target.size + 1


def test_the_share_that_was_copied_is_bayes():
    """(1 - g) sum a / P of each token, written out."""
    predictor = translator(odds=0.3)
    tokens = predictor.source.split("the zork sees the cat")
    copies = predictor.copies([tokens.ids], [tokens])
    target = [copies[0][1], copies[0][0], copies[0][4], 7]
    (forced,) = predictor.forced_decoding([tokens.ids], [target], copies=copies)
    some = batch([tokens.ids], [target], predictor.source, predictor.target, copies)
    with torch.no_grad():
        decoded = predictor.model(some.source, some.source_mask, some.reads, [0], some.copies)
    p, looked = decoded.logits[0].softmax(-1), decoded.weights[0, 0, 0]
    for step, gold in enumerate([*target, predictor.target.eos]):
        mass = sum(float(a) for a, i in zip(looked[step], copies[0], strict=True) if i == gold)
        share = (1 - float(decoded.gate[0, step])) * mass / float(p[step, gold])
        assert float(forced.copied[step]) == pytest.approx(share, abs=1e-5)
    assert forced.copied[0] == pytest.approx(1) and 0 < forced.copied[1] < 1


def test_without_texts_an_unknown_piece_is_copied_as_unknown():
    predictor = translator()
    ids = predictor.source.encode(["the zork"])
    assert predictor.copies(ids) == [[ids[0][0], predictor.target.unk, predictor.target.eos]]
    assert predictor.hypotheses(ids, predictor.decoding)[0]


def test_results_show_what_was_copied():
    said = translator().translate("the zork sees a blub", beam=1, max_length=5)
    assert said.copied is not None
    entry = json.loads(json.dumps(said.to_json()))
    assert entry["copied"] == [round(share, 4) for share in said.copied.double().tolist()]
    labels = [label.get_text() for label in said.plot().axes[0].get_xticklabels()]
    assert labels == [*said.source_words, "</s>", "copied"]
    page = Page(said._repr_html_())
    assert "copied" in page.texts
    assert len(page.styles) == len(said.words) * (len(said.source_words) + 2)
    plain = Translation(said.source, said.target, said.text, 0.0, 0.0, said.alignment, said.end_of_sentence)
    assert plain.to_json()["copied"] is None and "copied" not in Page(plain._repr_html_()).texts
    assert len(plain.plot().axes[0].get_xticklabels()) == len(labels) - 1


# ---- end to end --------------------------------------------------------------------------------------

FILLERS = ["please", "now", "then", "hello", "there", "maybe", "today", "later"]


def fresh(generator: random.Random) -> str:
    return "".join(generator.choices("bdfgklmnprstvz", k=6))


def calls(generator: random.Random, count: int) -> list[tuple[str, str]]:
    """Who is named stands after `ask`: a task of one word in many, which nobody has seen before."""
    made = []
    for _ in range(count):
        left, right = (generator.choices(FILLERS, k=generator.randint(0, 4)) for _ in range(2))
        name, other = fresh(generator), fresh(generator)
        asked, rest = ["ask", name], ["not", other]
        parts = [*left, *asked, "and", *rest] if generator.random() < 0.5 else [*left, *rest, "but", *asked]
        made.append((" ".join([*parts, *right]), f"call {name} now"))
    return made


def learn(folder: Path, decoder: str, *overrides: str) -> tuple[float, seq2attn.Translator]:
    """The share of names right in a test set of fresh ones, and the model."""
    generator = random.Random(1)
    rows = {"train": calls(generator, 3000), "dev": calls(generator, 20), "test": calls(generator, 200)}
    for role, pairs in rows.items():
        lines = "".join(f"{source}\t{target}\n" for source, target in pairs)
        (folder / f"{role}.tsv").write_text(lines, encoding="utf-8")
    (folder / "calls.yaml").write_text(
        f"""
data:
  languages: [en, en]
  train: {{table: train.tsv}}
  dev: {{table: dev.tsv}}
text: {{model: word, size: {4 + len(FILLERS) + 6}, joint: true}}
model:
  encoder: {{kind: recurrent, embedding: 24, size: 24}}
  decoder: {decoder}
training:
  {{optimizer: adam, learning_rate: 0.01, batch_tokens: 1000, max_epochs: 3, validate_every: 1000, metric: loss,
    metrics: exact}}
decoding: {{beam: 2, max_length: 8}}
""",
        encoding="utf-8",
    )
    trained = seq2attn.train(folder / "calls.yaml", folder / "run", overrides, display=silent(), device="cpu")
    model = seq2attn.load(trained.run, device="cpu")
    seen = " ".join(text for pair in rows["train"] for text in pair).split()
    names = [target.split()[1] for _, target in rows["test"]]
    assert not {*names} & {*seen}
    said = model.translate([source for source, _ in rows["test"]])
    right = [one.words[1:2] == [name] for one, name in zip(said, names, strict=True)]
    return sum(right) / len(right), model


RECURRENT = (
    "{kind: recurrent, embedding: 24, size: 48, order: luong, attention: {score: additive}, copying: %s}"
)


def test_words_that_nobody_knew_are_copied(tmp_path):
    right, model = learn(tmp_path, RECURRENT % "true")
    assert right >= 0.95
    said = model.translate("hello not gnurz but ask qwxyz maybe")
    assert said.text == "call qwxyz now"
    assert said.copied[1] > 0.99 > 0.5 > said.copied[0]
    assert model.align("ask qwxyz and not gnurz", "call qwxyz now").copied[1] > 0.99


def test_without_copying_they_cannot_be_said(tmp_path):
    right, model = learn(tmp_path, RECURRENT % "false", "training.max_epochs=1")
    assert right == 0
    assert model.translate("ask qwxyz and not gnurz").copied is None
