"""Positions against their formulas, and the same positions step by step as all at once."""

import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.positions import (
    POSITIONS,
    SEQUENCE_POSITIONS,
    T5,
    Alibi,
    Distance,
    Learned,
    NoPosition,
    Rotary,
    Shaw,
    Sinusoidal,
)
from seq2attn.attention.scorers import ScaledDot
from seq2attn.errors import Seq2attnError

START = 7
ABSOLUTE = [name for name, kind in SEQUENCE_POSITIONS.items() if not issubclass(kind, Distance)]
RELATIVE = [name for name, kind in SEQUENCE_POSITIONS.items() if issubclass(kind, Distance)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def sentences(kind: str, length: int, size: int) -> Tensor:
    """(B, L, D) for an embedding, (B, H, L, D) for an attention."""
    heads = (2,) if POSITIONS[kind].where == "rotation" else ()
    return torch.randn(3, *heads, length, size)


@pytest.mark.parametrize("start", [0, 7, 23])
@pytest.mark.parametrize("size", [12, 11, 1])
def test_sinusoidal_is_its_formula(size, start):
    table = np.empty((5, size))
    for place, i in np.ndindex(*table.shape):
        angle = (start + place) / 10000 ** (2 * (i // 2) / size)
        table[place, i] = np.cos(angle) if i % 2 else np.sin(angle)
    x = torch.randn(3, 5, size, dtype=torch.float64)
    assert_close(Sinusoidal(size)(x, start), x + torch.from_numpy(table), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [12, 11, 1])
def test_sinusoidal_in_halves_has_the_same_columns_sines_first(size):
    x = torch.zeros(1, 5, size)
    columns = [*range(0, size, 2), *range(1, size, 2)]
    assert_close(Sinusoidal(size, layout="halves")(x, START), Sinusoidal(size)(x, START)[..., columns])


def test_rotary_turns_complex_numbers():
    size, base = 14, 100.0
    x = torch.randn(3, 2, 5, size, dtype=torch.float64)
    pairs = x.numpy()[..., 0::2] + 1j * x.numpy()[..., 1::2]
    frequencies = base ** (-2 * np.arange(size // 2) / size)
    positions = START + np.arange(5)[:, None]
    turned = pairs * np.exp(1j * positions * frequencies)
    expected = np.stack([turned.real, turned.imag], -1).reshape(x.shape)
    assert_close(Rotary(size, base=base)(x, START), torch.from_numpy(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_rotary_products_depend_on_the_distance_only(layout):
    rotary = Rotary(14, layout=layout)
    query, key = torch.randn(2, 1, 1, 1, 14)

    def product(m: int, n: int) -> Tensor:
        return (rotary(query, m) * rotary(key, n)).sum()

    assert_close(product(17, 5), product(12, 0), atol=1e-5, rtol=1e-4)
    assert_close(product(3, 11), product(0, 8), atol=1e-5, rtol=1e-4)
    assert (product(17, 5) - product(5, 17)).abs() > 0.01
    assert_close(rotary(query, 9).norm(), query.norm())


def test_rotary_attention_does_not_know_where_the_sentence_stands():
    heads = MultiHead(2, 28, 28, Attention(ScaledDot(14, 14), Softmax()), Rotary(14)).double()
    x, mask = torch.randn(3, 5, 28).double(), torch.ones(3, 1, 5, dtype=torch.bool)
    here, there = heads.remember(x, mask), heads.remember(x, mask, START)
    past = heads.initial_state(there)
    moved = heads(x, there, past._replace(step=START))
    assert not torch.allclose(here.keys, there.keys)
    assert_close(moved.weights, heads(x, here).weights, atol=1e-5, rtol=0)
    assert not torch.allclose(moved.weights, heads(x, there).weights)


def test_learned_positions_are_rows_of_the_table():
    learned, x = Learned(11, length=28), torch.randn(3, 5, 11)
    for start in (0, START):
        assert_close(learned(x, start), x + learned.table.weight[start : start + 5])


@pytest.mark.parametrize("start", [0, 3])
def test_beyond_the_learned_positions_is_an_error(start):
    message = "is beyond the 5 learned positions; give learned positions a larger length, filter longer"
    learned, length = Learned(11, length=5), 6 - start
    learned(torch.zeros(2, length - 1, 11), start)  # the last one is still learned
    with pytest.raises(Seq2attnError, match="position 5 " + re.escape(message)):
        learned(torch.zeros(2, length, 11), start)


@pytest.mark.parametrize("kind", ABSOLUTE)
def test_one_by_one_stands_where_all_at_once_does(kind):
    positions, x = POSITIONS[kind](14), sentences(kind, 5, 14)
    steps = [positions(one, START + n) for n, one in enumerate(x.split(1, -2))]
    assert_close(torch.cat(steps, -2), positions(x, START))


@pytest.mark.parametrize("kind", [name for name in ABSOLUTE if name != "none"])
def test_different_positions_differ(kind):
    same = sentences(kind, 1, 14).expand_as(sentences(kind, 5, 14))
    placed = POSITIONS[kind](14)(same, 0)
    distances = (placed.unsqueeze(-2) - placed.unsqueeze(-3)).norm(dim=-1)
    assert (distances[..., ~torch.eye(5, dtype=torch.bool)] > 0.1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["sinusoidal", "rotary"])
def test_far_positions_are_exact_in_any_precision(kind, dtype):
    """In bfloat16 the positions 1001 and 1002 would be one."""
    x, far = sentences(kind, 3, 14), 1001
    exact, placed = POSITIONS[kind](14)(x.to(dtype).float(), far), POSITIONS[kind](14)(x.to(dtype), far)
    assert placed.dtype == dtype
    assert_close(placed.float(), exact, atol=0.05, rtol=0.02)


def test_rotary_needs_pairs():
    with pytest.raises(Seq2attnError, match="rotary positions need an even head size, got 11"):
        Rotary(11)


def test_rotary_layouts_are_one_in_another_order():
    x, order = torch.randn(3, 2, 5, 14), torch.tensor([*range(0, 14, 2), *range(1, 14, 2)])
    interleaved, half = Rotary(14)(x, START), Rotary(14, layout="half")(x[..., order], START)
    assert_close(interleaved[..., order], half)
    assert not torch.allclose(Rotary(14, layout="half")(x, START), interleaved)


def test_rotary_half_is_llamas():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    query, key = torch.randn(2, 3, 2, 5, 14)
    places = (torch.arange(5) + START).expand(3, -1)
    angles = places[..., None] * 10000.0 ** (-torch.arange(0, 14, 2) / 14)
    angles = torch.cat([angles, angles], -1)
    expected = llama.apply_rotary_pos_emb(query, key, angles.cos(), angles.sin())
    rotary = Rotary(14, layout="half")
    assert_close((rotary(query, START), rotary(key, START)), expected, atol=1e-5, rtol=1e-5)


def test_nowhere_is_nowhere():
    x = torch.randn(3, 5, 11)
    assert torch.equal(NoPosition(11)(x, START), x)


# ---- relative ----------------------------------------------------------------------------------------


def test_alibis_slopes_are_those_of_the_paper():
    """Written out: powers of two are geometric; between them every second slope of the next."""
    two, four, eight = [2**-4, 2**-8], [2**-2, 2**-4, 2**-6, 2**-8], [2.0**-n for n in range(1, 9)]
    sixteen = [2 ** (-n / 2) for n in range(1, 17)]
    expected = {1: [2**-8], 2: two, 3: [*two, 2**-2], 4: four, 5: [*four, 2**-1], 6: [*four, 2**-1, 2**-3]}
    expected |= {7: [*four, 2**-1, 2**-3, 2**-5], 8: eight, 16: sixteen}
    expected |= {8 + n: [*eight, *sixteen[0::2][:n]] for n in range(1, 8)}
    assert expected[12][8:] == pytest.approx([0.70710678, 0.35355339, 0.17677670, 0.08838835])
    for heads in range(1, 17):
        assert Alibi(heads, 11).slopes == pytest.approx(expected[heads]), heads


def test_alibi_falls_with_the_distance():
    bias = Alibi(2, 11).bias(torch.randn(3, 2, 3, 11), 5)  # queries at 2, 3 and 4
    assert bias[1].mul(256).tolist() == [[-2, -1, 0, -1, -2], [-3, -2, -1, 0, -1], [-4, -3, -2, -1, 0]]
    assert_close(bias[0], bias[1] * 16)


def test_alibi_is_exact_far_away_in_any_precision():
    bias = Alibi(1, 11).bias(torch.zeros(3, 1, 1, 11, dtype=torch.bfloat16), 400)
    assert bias.dtype == torch.float32 and bias.mul(-256).int().flatten().tolist() == [*range(399, -1, -1)]


def test_t5s_buckets():
    offsets = torch.arange(-20, 21, 5)
    assert T5(1, 11).buckets(offsets).tolist() == [10, 9, 8, 5, 0, 21, 24, 25, 26]
    causal = T5(1, 11, True).buckets(
        torch.tensor([3, 0, -1, -15, -16, -17, -19, -64, -113, -127, -128, -900])
    )
    assert causal.tolist() == [0, 0, 1, 15, 16, 16, 17, 26, 31, 31, 31, 31]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (17, 100), (64, 256), (24, 24)])
def test_t5s_buckets_are_those_of_transformers(causal, buckets, distance):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    offsets = torch.arange(-300, 301)
    expected = t5.T5Attention._relative_position_bucket(offsets, not causal, buckets, distance)
    ours = T5(1, 11, causal, buckets=buckets, max_distance=distance)
    assert torch.equal(ours.buckets(offsets), expected)


def test_t5_looks_its_table_up():
    t5 = T5(2, 11, buckets=8, max_distance=9)
    bias = t5.bias(torch.randn(3, 2, 2, 11), 5)  # queries at 3 and 4
    for head, query, slot in np.ndindex(2, 2, 5):
        bucket = t5.buckets(torch.tensor(slot - (query + 3)))
        assert bias[head, query, slot] == t5.table.weight[bucket, head]


def test_t5_needs_distances_for_its_buckets():
    """Those of one direction: a query that sees both sides has half of the buckets for each."""
    with pytest.raises(
        Seq2attnError, match=r"32 buckets are more than max_distance 31 has .* raise it to 32, or"
    ):
        T5(1, 11, True, max_distance=31)
    with pytest.raises(
        Seq2attnError, match="32 buckets, 16 for each direction, are more than max_distance 15 "
    ):
        T5(1, 11, max_distance=15)
    for t5 in (T5(1, 11, True, max_distance=32), T5(1, 11, max_distance=16)):
        assert t5.buckets(torch.arange(-40, 41)).unique()[[0, -1]].tolist() == [0, 31]


@pytest.mark.parametrize("causal", [True, False])
def test_shaw_is_its_equations(causal):
    torch.manual_seed(5)
    shaw = Shaw(2, 11, causal, reach=2).double()
    query, weights = torch.randn(3, 2, 3, 11).double(), torch.rand(3, 2, 3, 7).double()
    if causal:
        weights = weights.tril(4)
    a, b = shaw.of_keys, shaw.of_values
    scores, context = torch.zeros(3, 2, 3, 7).double(), torch.zeros(3, 2, 3, 11).double()
    for i, j in np.ndindex(3, 7):
        row = min(max(j - (i + 4), -2), 0 if causal else 2) + 2
        scores[..., i, j] = query[..., i, :] @ a[row] / math.sqrt(11)
        context[..., i, :] += weights[..., i, j, None] * b[row]
    assert len(a) == len(b) == (3 if causal else 5)
    assert_close(shaw.bias(query, 7), scores)
    assert_close(shaw.values(weights), context)
    assert Shaw(2, 11, values=False).values(weights) is None


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", RELATIVE)
def test_relative_positions_know_the_distance_alone(kind, causal):
    """And the last query stands at the last slot, so one query is the last row of many."""
    relative = POSITIONS[kind](2, 14, causal)
    query = torch.randn(3, 2, 1, 14).expand(-1, -1, 5, -1)
    bias = relative.bias(query, 7).expand(3, 2, 5, 7)
    assert_close(bias[..., 1:, 1:], bias[..., :-1, :-1])
    assert_close(relative.bias(query[..., -1:, :], 7).expand(3, 2, 1, 7), bias[..., -1:, :])
    assert_close(relative.bias(query[..., :3, :], 5).expand(3, 2, 3, 5), bias[..., -3:, 2:])
    assert (bias[..., 4, 3:] - bias[..., 4, 2:-1]).abs().min() > 1e-4  # near distances differ
    ahead = (bias[..., 0, 3] - bias[..., 0, 1]).abs().max()  # one ahead, one behind
    assert (ahead > 1e-4) == (kind != "alibi")
    weights = torch.rand(3, 2, 5, 7)
    added = relative.values(weights)
    assert (added is not None) == relative.adds_values == (kind == "shaw")
    if added is not None:
        assert_close(relative.values(weights[..., -1:, :]), added[..., -1:, :])


@pytest.mark.parametrize("kind", RELATIVE)
def test_gradients_of_relative_positions(kind):
    relative = POSITIONS[kind](2, 4).double()
    heads = MultiHead(2, 8, 8, Attention(ScaledDot(4, 4), Softmax(), relative=relative)).double()
    mask = torch.tensor([[[True, True, True]], [[True, False, False]]])

    def context(states: Tensor) -> Tensor:
        return heads(states, heads.remember(states, mask)).context

    assert torch.autograd.gradcheck(context, torch.randn(2, 3, 8).double().requires_grad_(), fast_mode=True)
