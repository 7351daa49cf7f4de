"""Blocks whose positions attend to each other: against dense attention, and their fast paths against it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from seq2attn.attention.blocks import BLOCKS
from seq2attn.attention.blocks.looks import rows
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import SCORERS
from seq2attn.errors import Seq2attnError

FORMS = ["embedded", "dot", "concat", "gaussian", "sagan"]
SPARSE = [("criss_cross", {}), ("window", {"size": 3}), ("window", {"size": 3, "shift": True})]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(6)


def block(name, channels=8, **options):
    """A block with random parameters, so that nothing starts as an identity."""
    made = BLOCKS[name](channels, **options).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5)
    return made


def image(height=5, width=7, channels=8):
    return torch.randn(2, channels, height, width)


def linear(layer, x):
    return F.linear(x, layer.weight, getattr(layer, "bias", None))


@pytest.mark.parametrize("form", FORMS)
def test_a_non_local_block_is_its_equation(form):
    made, x = block("nonlocal", form=form, norm="none"), image()
    states = rows(x)  # (B, N, C)
    query, key, value = (layer(states) for layer in (made.query, made.key, made.value))
    if form == "sagan":
        key, value = (
            F.max_pool2d(part.mT.unflatten(-1, (5, 7)), 2, ceil_mode=True).flatten(2).mT
            for part in (key, value)
        )
    products = query @ key.mT
    if form == "embedded":
        weights = (products / math.sqrt(4)).softmax(-1)
    elif form == "dot":
        weights = products / 35
    elif form == "concat":
        score = made.attention.score
        weights = (linear(score.of_query, query) + linear(score.of_key, key).mT).relu() / 35
    else:
        weights = products.softmax(-1)
    context = made.out(weights @ value).mT.unflatten(-1, (5, 7))
    gamma = made.norm.gamma if form == "sagan" else 1.0
    looked = made.look(x)
    assert_close(looked.features, x + gamma * context, atol=1e-4, rtol=1e-4)
    assert_close(looked.maps["affinity"].weights, weights.unsqueeze(1), atol=1e-5, rtol=1e-5)
    keys = (3, 4) if form == "sagan" else (5, 7)
    assert (looked.maps["affinity"].grid, looked.maps["affinity"].keys) == ((5, 7), keys)


def test_position_attention_is_softmax_attention():
    made, x = block("pam"), image()
    query, key, value = (layer(rows(x)).unsqueeze(1) for layer in (made.query, made.key, made.value))
    context = F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]
    expected = x + made.residual.gamma * context.mT.unflatten(-1, (5, 7))
    assert_close(made(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("sign", ["similar", "dissimilar"])
def test_channel_attention_compares_channels(sign, normalize):
    made, x = block("cam", sign=sign, normalize=normalize), image() / 4
    channels = x.flatten(2)
    energy = torch.einsum("bcn,bdn->bcd", *[F.normalize(channels, dim=-1) if normalize else channels] * 2)
    if sign == "dissimilar":  # as the release has it
        energy = energy.amax(-1, keepdim=True) - energy
    weights = energy.softmax(-1)
    looked = made.look(x)
    assert_close(looked.maps["channels"].weights, weights, atol=1e-5, rtol=1e-5)
    assert_close(looked.features, x + made.residual.gamma * (weights @ channels).view_as(x))
    diagonal = looked.maps["channels"].weights.diagonal(dim1=1, dim2=2)
    off = (1 - diagonal) / 7
    assert ((diagonal > off) == (sign == "similar")).all() or not normalize


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (4, 5), (7, 3), (9, 8)])
@pytest.mark.parametrize(("name", "options"), SPARSE)
def test_the_fast_path_is_the_masked_attention_of_the_whole_grid(name, options, height, width, masked):
    made, x = block(name, **options), image(height, width)
    mask = None
    if masked:
        mask = torch.ones(2, 1, height, width, dtype=torch.bool)
        mask[0, :, height // 2 + 1 :] = False
        mask[1, :, :, width // 2 + 1 :] = False
    assert_close(made(x, mask), made.look(x, mask).features, atol=1e-4, rtol=1e-4)


def test_criss_cross_has_a_key_for_each_position_of_row_and_column():
    once, x = block("criss_cross", repeats=1), image(4, 5)
    weights = once.look(x).maps["affinity"].weights[:, 0]
    assert ((weights > 0).sum(-1) == 4 + 5 - 1).all()
    assert_close(weights.sum(-1), torch.ones(2, 20))


@pytest.mark.parametrize(("repeats", "reached"), [(1, 8), (2, 20)])
def test_two_crossings_reach_all_positions(repeats, reached):
    made, x = block("criss_cross", repeats=repeats), image(4, 5).requires_grad_()
    made(x)[0, :, 1, 2].sum().backward()
    assert int((x.grad[0].abs().sum(0) > 0).sum()) == reached


@pytest.mark.parametrize(("shift", "boundaries"), [(False, [3, 6]), (True, [1, 4, 7])])
def test_windows_do_not_see_each_other(shift, boundaries):
    made, x = block("window", size=3, shift=shift), image(8, 8)
    weights = made.look(x).maps["affinity"].weights.mean(1).unflatten(1, (8, 8)).unflatten(3, (8, 8))
    number = torch.bucketize(torch.arange(8), torch.tensor(boundaries), right=True)
    same = number[:, None] == number
    seen = (weights > 0).any(0)
    assert torch.equal(seen, same[:, None, :, None] & same[None, :, None, :])


def test_one_window_is_not_shifted():
    made, x = block("window", size=7, shift=True), image(5, 7)
    made.shift, plain = False, made(x)
    assert_close(made(x), plain)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("size", [3, 4, 8])
@pytest.mark.parametrize(("height", "width"), [(2, 9), (5, 9), (6, 6), (9, 3)])
def test_windows_are_no_larger_than_the_grid_and_hold_the_same_positions(height, width, size, shift):
    made, x = block("window", size=size, shift=shift), image(height, width)
    before = (size + 1) // 2 if shift and max(height, width) > size else 0
    row, column = ((torch.arange(length) + before) // size for length in (height, width))
    number = (row[:, None] * 100 + column).flatten()
    assert torch.equal(made.same_window((height, width), x.device), number[:, None] == number)
    windows = made.windows(torch.ones(1, height, width, 1))
    assert windows.sum() == height * width and windows.flatten(1).any(-1).all()
    assert windows.shape[1] <= min(size, height) * min(size, width)
    assert made.pairs((height, width)) == made.heads * windows.shape[0] * windows.shape[1] ** 2
    assert_close(made(x), made.look(x).features, atol=1e-4, rtol=1e-4)


def test_a_window_beyond_the_grid_costs_what_the_grid_costs():
    made, x = block("window", size=99), image(6, 5)
    assert made.pairs((6, 5)) == made.heads * 30**2
    assert_close(made(x), made.look(x).features, atol=1e-4, rtol=1e-4)
    assert made.attention.relative.table.shape[:2] == (197, 197)


def test_full_self_attention_adds_row_and_column_terms():
    made, x = block("mhsa", heads=2, reach=3), image(3, 4)
    query, key, value = (made.split(layer(rows(x))) for layer in (made.query, made.key, made.value))
    bias = made.attention.relative.bias(query, 12, (3, 4))
    context = F.scaled_dot_product_attention(query, key, value, bias).transpose(1, 2).flatten(2)
    assert_close(made(x), context.mT.unflatten(-1, (3, 4)), atol=1e-5, rtol=1e-5)
    assert made.look(x).maps["affinity"].weights.shape == (2, 2, 12, 12)


SCORES = [name for name, kind in SCORERS.items() if not kind.stateful]
NORMALIZES = [
    name for name, kind in NORMALIZERS.items() if not (kind.stateful or kind.ordered or kind.needs_positive)
]


@pytest.mark.parametrize("score", SCORES)
def test_any_scorer_compares_positions(score):
    made, x = block("nonlocal", score=score), image(3, 3)
    assert made(x).isfinite().all() and not torch.equal(made(x), x)


@pytest.mark.parametrize("normalize", NORMALIZES)
def test_any_normalizer_weights_positions(normalize):
    made, x = block("nonlocal", normalize={"name": normalize}), image(3, 3)
    looked = made.look(x)
    assert looked.features.isfinite().all()
    if NORMALIZERS[normalize]().sums_to_one:
        assert_close(looked.maps["affinity"].total(), torch.ones(2, 1, 9))


def test_wrong_parts_are_named():
    with pytest.raises(Seq2attnError, match="unknown part 'dott': expected one of additive"):
        BLOCKS["nonlocal"](8, score="dott")
    with pytest.raises(Seq2attnError, match=r"dot does not take these options: .*size"):
        BLOCKS["nonlocal"](8, score={"name": "dot", "size": 3})
    with pytest.raises(Seq2attnError, match="Coverage needs a target"):
        BLOCKS["nonlocal"](8, score="coverage")


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("nonlocal", {}, 8480),
        ("nonlocal", {"form": "gaussian"}, 4320),
        ("nonlocal", {"form": "concat"}, 8544),
        ("nonlocal", {"form": "sagan"}, 5121),
        ("pam", {}, 5201),
        ("criss_cross", {}, 5201),
        ("cam", {}, 1),
        ("window", {}, 17316),
        ("mhsa", {}, 13152),
    ],
)
def test_numbers_of_parameters(name, options, count):
    assert sum(parameter.numel() for parameter in BLOCKS[name](64, **options).parameters()) == count


def test_the_spectral_norm_of_sagan_is_one():
    made = BLOCKS["nonlocal"](16, form="sagan").train()
    for _ in range(30):
        made(image(channels=16))
    layers = [layer for layer in (made.query, made.key, made.value, made.out) if isinstance(layer, nn.Linear)]
    for layer in layers:
        assert_close(torch.linalg.matrix_norm(layer.weight, 2), torch.ones(()), atol=1e-3, rtol=0)


def test_the_weight_of_the_residual_learns_from_the_start():
    for name in ("pam", "cam", "criss_cross"):
        made = BLOCKS[name](8)
        made(image()).square().sum().backward()
        assert made.residual.gamma.grad.abs() > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [("nonlocal", {}), ("nonlocal", {"form": "sagan"}), ("nonlocal", {"pool": 3}), ("pam", {}), ("mhsa", {})],
)
def test_the_pairs_that_a_block_weighs_are_its_weights(name, options):
    looked = block(name, **options).look(image(5, 7))
    assert block(name, **options).pairs((5, 7)) == looked.maps["affinity"].weights[0].numel()


@pytest.mark.parametrize("name", ["criss_cross", "window"])
def test_masked_pairs_are_not_weighed(name):
    looked = block(name).look(image(14, 14)).maps["affinity"]
    assert block(name).pairs((14, 14)) == (looked.weights[0] > 0).sum()
    assert block("danet").pairs((5, 7)) == 35**2 and block("se").pairs((5, 7)) == 0
