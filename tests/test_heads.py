"""Heads that share keys, norm, talk, or see a window; and every way to see by its fused and its dense path."""

import itertools
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torchs import load_attention, randomised

from seq2attn.attention import Attention, Memory, incompatibilities
from seq2attn.attention.heads import MultiHead, TalkingNormalizer, TalkingScorer, Window
from seq2attn.attention.normalizers import NORMALIZERS, Normalizer, Softmax
from seq2attn.attention.positions import POSITIONS, T5
from seq2attn.attention.scorers import SCORERS, Location, ScaledDot
from seq2attn.errors import Seq2attnError
from seq2attn.models.seq2seq_factory import multi_head
from seq2attn.recipe.seq2seq_model import AttentionRecipe
from seq2attn.training.run_folder import load_weights, tensors_of, weights_of

B, T, S, D = 3, 5, 7, 24
MASK = (torch.arange(S) < torch.tensor([7, 4, 0])[:, None])[:, None]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def made(heads: int = 4, key_size: int = D, relative: Any = None, **options: Any) -> MultiHead:
    """Double precision, no bias at its 0 and no norm at its 1."""
    section = AttentionRecipe(heads=heads, **options)
    return randomised(multi_head(section, D, key_size, relative=relative))


def head(size: int = D // 4) -> Attention:
    return Attention(ScaledDot(size, size), Softmax())


# ---- sharing keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_neighbours_share_a_head_of_keys(key_heads):
    heads = made(key_heads=key_heads, key_size=13)
    query, states = random(B, T, D), random(B, S, 13)
    memory = heads.remember(states, MASK)
    assert memory.keys.shape == memory.values.shape == (B, key_heads, S, 6)  # all that decoding keeps
    split = heads.query(query).view(B, T, 4, 6).transpose(1, 2)
    expected = F.scaled_dot_product_attention(split, *memory[:3], enable_gqa=True)
    joined = heads.out(expected.transpose(1, 2).reshape(B, T, D))
    for need_weights in (True, False):
        assert_close(heads(query, memory, need_weights=need_weights).context, joined)
    tiled = memory._replace(keys=memory.keys.repeat(1, 4 // key_heads, 1, 1))
    products = split @ tiled.keys.mT / 6**0.5
    alike = torch.allclose(products[0].softmax(-1), heads(query, memory).weights[0])
    assert alike == (key_heads != 2)  # number h // (H / G), not h % G
    matrices = 2 * D * D + 2 * 13 * key_heads * 6
    assert sum(p.numel() for p in heads.parameters() if p.dim() == 2) == matrices


def test_shared_keys_are_equal_keys_in_many_heads():
    """Multi-query attention is torch's, with one head's matrices given to all."""
    theirs = randomised(nn.MultiheadAttention(D, 4, batch_first=True))
    with torch.no_grad():
        for part in (theirs.in_proj_weight, theirs.in_proj_bias):
            for matrix in part.view(3, 4, 6, *part.shape[1:])[1:]:
                matrix[1:] = matrix[0]
    ours, every = made(key_heads=1), made()
    load_attention(every, theirs)
    for name in ("query", "out", "key", "value"):
        part, whole = getattr(ours, name), getattr(every, name)
        rows = len(part.weight)
        part.load_state_dict({"weight": whole.weight[:rows], "bias": whole.bias[:rows]})
    query, states, mask = random(B, T, D), random(B, S, D), MASK | (torch.arange(S) < 1)
    context, weights = theirs(query, states, states, key_padding_mask=~mask[:, 0], average_attn_weights=False)
    attended = ours(query, ours.remember(states, mask))
    assert_close(attended.context, context)
    assert_close(attended.weights, weights)


@pytest.mark.parametrize("key_heads", [0, 3, 8])
def test_heads_of_keys_divide_the_heads(key_heads):
    with pytest.raises(
        Seq2attnError, match=f"key_heads must divide heads: got key_heads={key_heads} for heads=4"
    ):
        MultiHead(4, D, D, head(), key_heads=key_heads)


# ---- norm and talk -----------------------------------------------------------------------------------


def test_normed_queries_and_keys_are_each_heads_own():
    heads, query, states = made(query_key_norm=True), random(B, T, D), random(B, S, D)
    normed = []
    for part, norm, x in ((heads.query, heads.query_norm, query), (heads.key, heads.key_norm, states)):
        split = part(x).view(B, -1, 4, 6).transpose(1, 2)
        deviation = split.var(-1, correction=0, keepdim=True).add(1e-5).sqrt()
        normed.append((split - split.mean(-1, keepdim=True)) / deviation * norm.weight)
    expected = (normed[0] @ normed[1].mT / 6**0.5).masked_fill(~MASK[:, None], -torch.inf).softmax(-1)
    assert_close(heads(query, heads.remember(states, MASK)).weights[:2], expected[:2])
    huge = heads(1e4 * query, heads.remember(1e4 * states, MASK)).weights
    bound = (normed[0].norm(dim=-1).amax() * normed[1].norm(dim=-1).amax() / 6**0.5).exp() ** 2 * 2
    assert huge[0].amax() / huge[0].amin() < bound  # scores stay within the norms


def test_values_are_not_normed():
    heads, states = made(query_key_norm=True), random(B, S, D)
    expected = heads.value(states).view(B, S, 4, 6).transpose(1, 2)
    assert_close(heads.remember(states, MASK).values, expected)


def test_heads_begin_to_talk_as_if_alone():
    talking, alone = made(talking=True), made()
    alone.load_state_dict({k: v for k, v in talking.state_dict().items() if "mix" not in k})
    query, states = random(B, T, D), random(B, S, D)
    said, heard = (heads(query, heads.remember(states, MASK)) for heads in (talking, alone))
    assert_close((said.context, said.weights), (heard.context, heard.weights))


def test_talking_heads_are_shazeers_equations():
    heads, query, states = made(talking=True), random(B, T, D), random(B, S, D)
    before, after = heads.attention.score.mix, heads.attention.normalize.mix
    nn.init.normal_(before), nn.init.normal_(after)
    split = heads.query(query).view(B, T, 4, 6).transpose(1, 2)
    keys, values, *_ = heads.remember(states, MASK)
    scores, logits, weights = split @ keys.mT / 6**0.5, 0, 0
    logits = torch.stack([sum(before[h, g] * scores[:, h] for h in range(4)) for g in range(4)], 1)
    each = logits.masked_fill(~MASK[:, None], -torch.inf).softmax(-1)
    weights = torch.stack([sum(after[h, g] * each[:, h] for h in range(4)) for g in range(4)], 1)
    attended = heads(query, heads.remember(states, MASK))
    assert_close(attended.weights[:2], weights[:2])
    assert (attended.weights[2] == 0).all() and (attended.weights[1, ..., 4:] == 0).all()
    context = heads.out((attended.weights @ values).transpose(1, 2).reshape(B, T, D))
    assert_close(attended.context, context)
    assert_close(heads(query, heads.remember(states, MASK), need_weights=False).context, context)
    assert not TalkingNormalizer(Softmax(), 4).sums_to_one


def test_a_scorer_that_looks_back_may_talk():
    class Noting(tiny.Fading):
        def initial_state(self, keys: Tensor) -> Tensor:
            return torch.zeros_like(keys[..., :1])

        def update_trace(self, query: Tensor, keys: Tensor, weights: Tensor, past: Any) -> Tensor:
            return past.trace + weights.mT

    heads = made()
    heads.attention = Attention(TalkingScorer(Noting(6, 6), 4), TalkingNormalizer(Softmax(), 4)).double()
    query, memory = random(B, T, D), heads.remember(random(B, S, D), MASK)
    assert heads.attention.stateful
    attended = heads(query, memory)
    assert_close(attended.past.trace[..., 0], attended.weights.sum(-2))
    assert_close(attended.past.coverage, attended.weights.sum(-2))


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("needs_positive", "mixed scores may be negative"),
        ("stateful", "follows the weights of its own head"),
    ],
)
def test_heads_that_cannot_talk(flag, why):
    unfit = type("Unfit", (Softmax,), {flag: True})
    with pytest.raises(Seq2attnError, match=f"Unfit .*{why}"):
        TalkingNormalizer(unfit(), 4)
    with pytest.raises(Seq2attnError, match="Location has a score for positions that get no weight"):
        TalkingScorer(Location(6, 6, length=3), 4)
    drawn = type("Drawn", (Softmax,), {"sample": lambda self, weights, past: weights})
    with pytest.raises(Seq2attnError, match="Drawn follows the weights of its own head"):
        TalkingNormalizer(drawn(), 4)


# ---- windows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "sinks"), [(1, 0), (3, 0), (2, 2), (9, 0), (1, 1)])
def test_a_window_is_its_mask(size, sinks):
    mask = Window(size, sinks).mask(7, torch.device("cpu"))
    for i, j in torch.cartesian_prod(torch.arange(7), torch.arange(7)).tolist():
        assert mask[i, j] == (abs(i - j) < size or j < sinks)
    assert mask.tril()[6].sum() == min(7, size + sinks)  # keys, with its own


@pytest.mark.parametrize(("size", "sinks"), [(1, 0), (3, 0), (2, 2), (9, 0), (1, 1)])
def test_a_window_keeps_what_the_next_query_sees(size, sinks):
    kept = torch.empty(2, 3, 0, 1)
    for step in range(8):
        slot = torch.full((2, 3, 1, 1), float(step))
        keys = torch.cat([kept, slot], -2)
        seen = [j for j in range(step + 1) if step - j < size or j < sinks]
        assert keys[0, 0, :, 0].tolist() == seen
        memory = Memory(keys, -keys, torch.ones(2, 1, 1, keys.shape[2]))
        kept, values, mask, *_ = Window(size, sinks).keep(memory)
        assert torch.equal(values, -kept) and mask.shape == (2, 1, 1, kept.shape[2])
        assert kept.shape[2] <= size - 1 + sinks  # it does not grow


@pytest.mark.parametrize("name", ["alibi-window", "shaw-keys-window", "rotary-sinks"])
def test_what_a_decoder_keeps_does_not_grow(name):
    model = tiny.model(tiny.MODELS[f"transformer-{name}"])
    state, kept = model.start(tiny.sources(7, 3, 0)), []
    for token in tiny.reads(3, 9).unbind(1):
        _, state = model.step(token, state)
        kept.append([part.shape for part in tiny.tensors(state)])
    (_, _, own, _) = tiny.SIGHTS[name]
    keeps = own["window"] - 1 + own.get("sinks", 0)
    assert state.layers[0].self_memory.keys.shape[1:3] == (own.get("key_heads", own["heads"]), keeps)
    assert kept[-1] == kept[4] and state.step == 9


def test_a_window_is_not_wider_than_it_says():
    """Two layers of a window of 3 reach 4 tokens back, and 4 ahead in an encoder."""
    model = tiny.model(tiny.MODELS["transformer-alibi-window"])
    source, tokens = tiny.sources(15), tiny.reads(1, 15)
    states, logits = model.encode(source).states, model(source, tokens).logits
    encoded = model.encode(source)
    source.tokens[:, 7], tokens[:, 7] = 5 if source.tokens[0, 7] != 5 else 6, 5 if tokens[0, 7] != 5 else 6
    around = (model.encode(source).states - states).abs().amax(-1)[0] > 1e-6
    behind = (model.decoder(tokens, encoded).logits - logits).abs().amax(-1)[0] > 1e-6
    assert around.nonzero().flatten().tolist() == [*range(3, 12)]
    assert behind.nonzero().flatten().tolist() == [*range(7, 12)]


# ---- positions in models -----------------------------------------------------------------------------

TRANSFORMERS = [f"transformer-{name}" for name in tiny.SIGHTS]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_padding_does_not_move_what_an_encoder_sees(name):
    encoder = tiny.model(tiny.MODELS[name]).encoder
    tokens, mask = tiny.sources(7, 3, 1)[:2]
    garbage, wider = tiny.sources(7, 3, 1, width=11, seed=5)[:2]
    garbage[:, :7] = torch.where(mask, tokens, garbage[:, :7])
    expected = encoder(tokens, mask)
    padded = encoder(garbage, wider)
    assert_close(padded.states, F.pad(expected.states, (0, 0, 0, 4)), atol=1e-5, rtol=1e-5)
    alone = encoder(tokens[1:2, :3], mask[1:2, :3])
    assert_close(alone.states, expected.states[1:2, :3], atol=1e-5, rtol=1e-5)


def test_layers_share_t5s_table_and_it_is_kept_once():
    one, other = (tiny.model(tiny.MODELS["transformer-t5-dot"], seed) for seed in (1, 2))
    tables = [module for module in one.modules() if isinstance(module, T5)]
    assert len(tables) == 2 and [t.causal for t in tables] == [False, True]  # encoder, decoder
    assert (
        one.decoder.layers[0].self_attention.attention.relative
        is one.decoder.layers[1].self_attention.attention.relative
    )
    names = [name for name in weights_of(one) if "relative" in name]
    assert names == [
        "encoder.layers.0.self_attention.attention.relative.table.weight",
        "decoder.layers.0.self_attention.attention.relative.table.weight",
    ]
    assert sum(p.numel() for p in one.parameters()) == sum(t.numel() for t in tensors_of(one).values())
    load_weights(other, weights_of(one))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    one.train()
    optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
    before = one.decoder.layers[1].self_attention.attention.relative.table.weight.detach().clone()
    one(tiny.sources(7, 3), tiny.reads(2, 5)).logits.square().sum().backward()
    optimizer.step()
    after = one.decoder.layers[0].self_attention.attention.relative.table.weight
    assert not torch.equal(before, after)
    assert torch.equal(weights_of(one)[names[1]], after)


def test_shaws_vectors_are_each_layers_own():
    layers = tiny.model(tiny.MODELS["transformer-shaw"]).decoder.layers
    own = [layer.self_attention.attention.relative for layer in layers]
    assert own[0] is not own[1] and own[0].of_keys.shape == (2 + 1, 5)
    assert not torch.equal(own[0].of_keys, own[1].of_keys)


def test_each_layer_may_attend_in_its_own_way():
    model = tiny.model(tiny.MODELS["transformer-by-layer"])
    first, second = model.decoder.layers
    assert [
        first.self_attention.heads,
        second.self_attention.heads,
        first.cross_attention.group,
        second.cross_attention.group,
    ] == [2, 5, 2, 1]
    assert [first.window, second.window] == [None, Window(1)]
    assert isinstance(second.self_attention.attention.score, TalkingScorer)
    assert type(second.cross_attention.attention.score) is SCORERS["additive"]
    assert [layer.self_attention.rotary.size for layer in model.encoder.layers] == [10, 4]


# ---- fused and dense ---------------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"key_heads": 2, "query_key_norm": True},
    "talking": {"talking": True},
}


def parts(name: str) -> dict[str, str]:
    """A normalizer with a scorer that it goes with."""
    return {"normalize": name, "score": "linear" if NORMALIZERS[name].needs_positive else "dot"}


WAYS = [
    (normalize, options, relative)
    for normalize, options, relative in itertools.product(NORMALIZERS, OPTIONS, (None, "alibi", "t5", "shaw"))
    if not any(incompatibilities(ScaledDot, NORMALIZERS[normalize], "self-attention"))
    and NORMALIZERS[normalize].sample is Normalizer.sample  # chance would differ
]
WAYS += [("sum", options, None) for options in ("plain", "grouped")]


@pytest.mark.parametrize(("normalize", "options", "relative"), WAYS)
def test_fused_and_dense_agree(normalize, options, relative):
    position = POSITIONS[relative](4, 6, True) if relative else None
    heads = made(relative=position, **parts(normalize), **OPTIONS[options])
    mask = Window(3, 1).mask(S, MASK.device).tril() & (
        torch.arange(S) < torch.tensor([7, 4, 0])[:, None, None]
    )
    states = random(B, S, D).requires_grad_()
    results = []
    for need_weights in (True, False):
        attended = heads(states, heads.remember(states, mask), need_weights=need_weights)
        leaves = [states, *heads.parameters()]
        gradients = torch.autograd.grad(attended.context.square().sum(), leaves, materialize_grads=True)
        results.append((attended.context, *gradients))
    assert_close(*results)


@pytest.mark.parametrize(
    ("options", "relative", "fused"),
    [
        ({}, None, True),
        ({}, "alibi", True),
        ({}, "t5", True),
        ({"key_heads": 1, "query_key_norm": True}, "alibi", True),
        ({}, "shaw", False),  # its values need the weights
        ({"talking": True}, None, False),
        ({"score": "additive"}, None, False),
    ],
)
def test_what_can_be_fused_is(options, relative, fused, monkeypatch):
    position = POSITIONS[relative](4, 6) if relative else None
    heads, states, asked = made(relative=position, **options), random(B, S, D), []
    theirs = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: asked.append(a) or theirs(*a, **k))
    memory = heads.remember(states, MASK)
    assert (heads(states, memory, need_weights=False).weights is None) == fused == bool(asked)
    heads(states, memory)
    assert len(asked) == fused  # who asks for weights gets the exact ones


@pytest.mark.parametrize("relative", ["t5", "shaw", "alibi"])
def test_relative_positions_in_bfloat16(relative):
    heads = made(relative=POSITIONS[relative](4, 6)).float()
    states = random(B, S, D).float()
    exact = heads(states, heads.remember(states, MASK))
    with torch.autocast("cpu", torch.bfloat16):
        for need_weights in (True, False):
            narrow = heads(states, heads.remember(states, MASK), need_weights=need_weights)
            assert_close(narrow.context.float(), exact.context, atol=0.15, rtol=0.05)
            assert narrow.weights is None or narrow.weights.dtype == torch.float32


def test_linear_attention_is_its_quadratic_form():
    heads, states = made(score="linear", normalize="sum"), random(B, S, D)
    query, key, values = (
        part(states).view(B, S, 4, 6).transpose(1, 2) for part in (heads.query, heads.key, heads.value)
    )
    query, key = (torch.where(x > 0, x + 1, x.exp()) for x in (query, key))
    key = key * MASK[:, None].mT
    sums = torch.einsum("bhsk,bhsv->bhkv", key, values), key.sum(-2, keepdim=True)  # linear in S
    expected = ((query @ sums[0]) / (query * sums[1]).sum(-1, keepdim=True))[:2]
    for need_weights in (True, False):
        attended = heads(states, heads.remember(states, MASK), need_weights=need_weights)
        context = heads.out(expected.transpose(1, 2).reshape(2, S, D))
        assert_close(attended.context[:2], context, atol=1e-5, rtol=1e-4)
        assert (attended.context[2] == heads.out.bias).all()
