"""Positions against their formulas, and the same positions step by step as all at once."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention
from seq2attn.errors import Seq2attnError
from seq2attn.heads import MultiHead
from seq2attn.normalizers import Softmax
from seq2attn.positions import POSITIONS, Learned, Rotary, Sinusoidal
from seq2attn.scorers import ScaledDot

START = torch.tensor([0, 7, 23])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def sentences(kind: str, length: int, size: int) -> Tensor:
    """(B, L, D) for an embedding, (B, H, L, D) for an attention."""
    heads = (2,) if POSITIONS[kind].where == "attention" else ()
    return torch.randn(3, *heads, length, size)


@pytest.mark.parametrize("size", [12, 11, 1])
def test_sinusoidal_is_its_formula(size):
    table = np.empty((3, 5, size))
    for row, place, i in np.ndindex(*table.shape):
        angle = (START[row].item() + place) / 10000 ** (2 * (i // 2) / size)
        table[row, place, i] = np.cos(angle) if i % 2 else np.sin(angle)
    x = torch.randn(3, 5, size, dtype=torch.float64)
    assert_close(Sinusoidal(size)(x, START), x + torch.from_numpy(table), atol=1e-5, rtol=0)
    assert_close(Sinusoidal(size)(x, None)[0], x[0] + torch.from_numpy(table[0]), atol=1e-5, rtol=0)


def test_rotary_turns_complex_numbers():
    size, base = 14, 100.0
    x = torch.randn(3, 2, 5, size, dtype=torch.float64)
    pairs = x.numpy()[..., 0::2] + 1j * x.numpy()[..., 1::2]
    frequencies = base ** (-2 * np.arange(size // 2) / size)
    positions = START.numpy()[:, None, None, None] + np.arange(5)[:, None]
    turned = pairs * np.exp(1j * positions * frequencies)
    expected = np.stack([turned.real, turned.imag], -1).reshape(x.shape)
    assert_close(Rotary(size, base=base)(x, START), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_rotary_products_depend_on_the_distance_only():
    rotary = Rotary(14)
    query, key = torch.randn(2, 1, 1, 1, 14)

    def product(m: int, n: int) -> Tensor:
        return (rotary(query, torch.tensor([m])) * rotary(key, torch.tensor([n]))).sum()

    assert_close(product(17, 5), product(12, 0), atol=1e-5, rtol=1e-4)
    assert_close(product(3, 11), product(0, 8), atol=1e-5, rtol=1e-4)
    assert (product(17, 5) - product(5, 17)).abs() > 0.01
    assert_close(rotary(query, torch.tensor([9])).norm(), query.norm())


def test_rotary_attention_does_not_know_where_the_sentence_stands():
    heads = MultiHead(2, 28, 28, Attention(ScaledDot(14, 14), Softmax()), Rotary(14)).double()
    x, mask = torch.randn(3, 5, 28).double(), torch.ones(3, 1, 5, dtype=torch.bool)
    here, there = heads.remember(x, mask), heads.remember(x, mask, START)
    past = heads.begin(there)
    moved = heads(x, there, past._replace(step=START))
    assert not torch.allclose(here.keys[1:], there.keys[1:])
    assert_close(moved.weights, heads(x, here).weights, atol=1e-5, rtol=0)
    assert not torch.allclose(moved.weights, heads(x, there).weights)


def test_learned_positions_are_rows_of_the_table():
    learned, x = Learned(11, length=28), torch.randn(3, 5, 11)
    expected = torch.stack([learned.table.weight[n : n + 5] for n in START.tolist()])
    assert_close(learned(x, START), x + expected)
    assert_close(learned(x, None), x + learned.table.weight[:5])


@pytest.mark.parametrize("start", [None, torch.tensor([0, 3])])
def test_beyond_the_learned_positions_is_an_error(start):
    message = "is beyond the 5 learned positions; give learned positions a larger length, filter longer"
    learned, length = Learned(11, length=5), 6 if start is None else 3
    learned(torch.zeros(2, length - 1, 11), start)  # the last one is still learned
    with pytest.raises(Seq2attnError, match="position 5 " + re.escape(message)):
        learned(torch.zeros(2, length, 11), start)


@pytest.mark.parametrize("kind", POSITIONS)
def test_one_by_one_stands_where_all_at_once_does(kind):
    positions, x = POSITIONS[kind](14), sentences(kind, 5, 14)
    steps = [positions(one, START + n) for n, one in enumerate(x.split(1, -2))]
    assert_close(torch.cat(steps, -2), positions(x, START))
    assert_close(positions(x, None), positions(x, torch.zeros(3, dtype=torch.long)))


@pytest.mark.parametrize("kind", POSITIONS)
def test_different_positions_differ(kind):
    same = sentences(kind, 1, 14).expand_as(sentences(kind, 5, 14))
    placed = POSITIONS[kind](14)(same, None)
    distances = (placed.unsqueeze(-2) - placed.unsqueeze(-3)).norm(dim=-1)
    assert (distances[..., ~torch.eye(5, dtype=torch.bool)] > 0.1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["sinusoidal", "rotary"])
def test_far_positions_are_exact_in_any_precision(kind, dtype):
    """In bfloat16 the positions 1001 and 1002 would be one."""
    x, far = sentences(kind, 1, 14), torch.tensor([1001, 1002, 1003])
    exact, placed = POSITIONS[kind](14)(x.to(dtype).float(), far), POSITIONS[kind](14)(x.to(dtype), far)
    assert placed.dtype == dtype
    assert_close(placed.float(), exact, atol=0.05, rtol=0.02)


def test_rotary_needs_pairs():
    with pytest.raises(Seq2attnError, match="rotary positions need an even head size, got 11"):
        Rotary(11)
