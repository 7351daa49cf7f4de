"""Attention to positions on a grid: 2-D positions, and convolution of weights over rows and columns."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from seq2attn.attention import Attention, MultiHead
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.positions import (
    POSITIONS,
    Axial,
    Distance,
    Learned2d,
    Rotary2d,
    Sinusoidal,
    Sinusoidal2d,
    Swin,
)
from seq2attn.attention.scorers import LocationSensitive, ScaledDot
from seq2attn.attention.state import reorder
from seq2attn.errors import Seq2attnError

ROWS, COLUMNS = 3, 5
GRID = (ROWS, COLUMNS)
OF_GRIDS = [name for name, kind in POSITIONS.items() if kind.needs_grid]
ABSOLUTE = [name for name in OF_GRIDS if not issubclass(POSITIONS[name], Distance)]
RELATIVE = [name for name in OF_GRIDS if issubclass(POSITIONS[name], Distance)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(4)


def numbered():
    """(row, column) of each position."""
    return [(row, column) for row in range(ROWS) for column in range(COLUMNS)]


@pytest.mark.parametrize("size", [8, 10, 7])
def test_sines_of_the_row_and_of_the_column(size):
    of_rows = size - size // 2
    row = Sinusoidal(of_rows)(torch.zeros(1, ROWS, of_rows), 0)[0]
    column = Sinusoidal(size // 2)(torch.zeros(1, COLUMNS, size // 2), 0)[0]
    expected = torch.stack([torch.cat([row[r], column[c]]) for r, c in numbered()])
    assert_close(Sinusoidal2d(size)(torch.zeros(2, 15, size), 0, GRID)[1], expected)


def test_learned_rows_and_columns():
    positions = Learned2d(6, rows=4, columns=5)
    expected = torch.stack(
        [torch.cat([positions.rows.weight[r], positions.columns.weight[c]]) for r, c in numbered()]
    )
    assert_close(positions(torch.zeros(1, 15, 6), 0, GRID)[0], expected)
    with pytest.raises(Seq2attnError, match=r"5 rows and 3 columns is larger .* 4 and 5: raise"):
        positions(torch.zeros(1, 15, 6), 0, (5, 3))


def test_rotary_products_depend_on_both_distances_only():
    rotary, (query, key) = Rotary2d(8), torch.randn(2, 8, dtype=torch.float64)
    turned = [rotary(x.expand(1, 1, 15, 8), 0, GRID)[0, 0] for x in (query, key)]
    products = (turned[0] @ turned[1].mT).reshape(ROWS, COLUMNS, ROWS, COLUMNS)
    assert_close(products[0, 0, 1, 2], products[1, 2, 2, 4], rtol=1e-5, atol=1e-6)
    assert abs(products[0, 0, 1, 2] - products[0, 0, 2, 1]) > 1e-4  # rows are not columns
    assert_close(turned[0].norm(dim=-1), query.norm().expand(15))


def test_rotary_turns_by_the_row_and_then_by_the_column():
    x = torch.randn(1, 1, 15, 8, dtype=torch.float64)
    pairs = x.numpy()[..., 0::2] + 1j * x.numpy()[..., 1::2]
    frequencies = 100.0 ** (-np.array([0, 2]) / 4)
    angle = np.array([[*(r * frequencies), *(c * frequencies)] for r, c in numbered()])
    turned = pairs * np.exp(1j * angle)
    expected = torch.from_numpy(np.stack([turned.real, turned.imag], -1)).flatten(-2)
    assert_close(Rotary2d(8)(x, 0, GRID), expected, rtol=1e-5, atol=1e-5)


def test_swin_adds_an_entry_of_its_table_for_each_pair():
    swin, reach = Swin(2, 4, window=3), 2
    assert swin.table.numel() == (2 * 3 - 1) ** 2 * 2
    bias = swin.bias(torch.zeros(1, 2, 15, 4), 15, GRID)
    for t, (row, column) in enumerate(numbered()):
        for s, (other_row, other_column) in enumerate(numbered()):
            entry = (
                min(max(other_row - row, -reach), reach) + reach,
                min(max(other_column - column, -reach), reach) + reach,
            )
            assert_close(bias[:, t, s], swin.table[entry])


def test_axial_adds_products_of_the_query_for_each_pair():
    axial, query, reach = Axial(2, 4, reach=3), torch.randn(2, 2, 15, 4), 2
    bias = axial.bias(query, 15, GRID)
    for t, (row, column) in enumerate(numbered()):
        for s, (other_row, other_column) in enumerate(numbered()):
            vector = axial.of_rows[min(max(other_row - row, -reach), reach) + reach]
            vector = vector + axial.of_columns[min(max(other_column - column, -reach), reach) + reach]
            assert_close(bias[..., t, s], (query[..., t, :] * vector).sum(-1) / math.sqrt(4))


@pytest.mark.parametrize("name", RELATIVE)
def test_relative_positions_transpose_with_the_grid(name):
    positions = POSITIONS[name](2, 4)
    query = torch.randn(1, 2, 15, 4)
    order = torch.arange(15).reshape(GRID).mT.flatten()  # of the transposed grid's positions
    bias = positions.bias(query, 15, GRID).expand(1, 2, 15, 15)
    with torch.no_grad():
        if isinstance(positions, Swin):
            positions.table.copy_(positions.table.transpose(0, 1).clone())
        else:
            rows, columns = positions.of_rows.clone(), positions.of_columns.clone()
            positions.of_rows.copy_(columns)
            positions.of_columns.copy_(rows)
    transposed = positions.bias(query[..., order, :], 15, (COLUMNS, ROWS)).expand(1, 2, 15, 15)
    assert_close(transposed, bias[..., order, :][..., order])


@pytest.mark.parametrize("name", OF_GRIDS)
def test_without_a_grid_an_error_says_what_to_do(name):
    kind = POSITIONS[name]
    heads = () if kind.where == "embedding" else (2,)
    with pytest.raises(Seq2attnError, match="positions are for images: give `remember` the grid"):
        if issubclass(kind, Distance):
            kind(2, 4).bias(torch.zeros(1, 2, 6, 4), 6)
        else:
            kind(4)(torch.zeros(1, *heads, 6, 4), 0)
    with pytest.raises(Seq2attnError, match="expected 6 vectors, one for each position of the grid 2x3"):
        if issubclass(kind, Distance):
            kind(2, 4).bias(torch.zeros(1, 2, 5, 4), 6, (2, 3))
        else:
            kind(4)(torch.zeros(1, *heads, 5, 4), 0, (2, 3))


@pytest.mark.parametrize("name", OF_GRIDS)
def test_self_attention_of_a_grid_uses_its_positions(name):
    kind, size = POSITIONS[name], 8
    relative = kind(2, size // 2) if issubclass(kind, Distance) else None
    rotary = kind(size // 2) if kind.where == "rotation" else None
    attention = Attention(ScaledDot(size // 2, size // 2), Softmax(), relative=relative)
    heads = MultiHead(2, size, size, attention, rotary)
    x, mask = torch.randn(2, 15, size), torch.ones(2, 15, dtype=torch.bool)
    if kind.where == "embedding":
        x = kind(size)(x, 0, GRID)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.normal_()
    wide = heads(x, heads.remember(x, mask, grid=GRID)).weights
    high = heads(x, heads.remember(x, mask, grid=(COLUMNS, ROWS))).weights
    assert (wide - high).abs().max() > 1e-4 or kind.where == "embedding"
    fused = heads(x, heads.remember(x, mask, grid=GRID), need_weights=False).context
    assert_close(fused, heads(x, heads.remember(x, mask, grid=GRID)).context, atol=1e-5, rtol=1e-5)


def test_a_grid_of_another_size_than_the_states_is_refused():
    attention = Attention(ScaledDot(4, 4), Softmax())
    with pytest.raises(Seq2attnError, match=r"3 rows and 4 columns has 12 positions, got 15 states"):
        attention.remember(torch.zeros(1, 15, 4), torch.ones(1, 15, dtype=torch.bool), grid=(3, 4))


@pytest.mark.parametrize(("width", "last"), [((3, 5), True), ((1, 3), False), (3, True)])
def test_weights_are_convolved_over_rows_and_columns(width, last):
    cumulative = True if last else "only"
    scorer = LocationSensitive(4, 4, size=6, filters=2, width=width, cumulative=cumulative)
    attention = Attention(scorer, Softmax())
    memory = attention.remember(torch.randn(2, 15, 4), torch.ones(2, 15, dtype=torch.bool), grid=GRID)
    past = attention(torch.randn(2, 2, 4), memory).past
    channels = [past.weights, past.coverage] if last else [past.coverage]
    image = torch.stack([channel.reshape(2, *GRID) for channel in channels], 1)
    rows, columns = (1, width) if isinstance(width, int) else width
    kernel = scorer.convolve.weight.reshape(2, len(channels), rows, columns)
    padded = F.pad(image, (columns // 2, columns // 2, rows // 2, rows // 2))
    patches = padded.unfold(2, rows, 1).unfold(3, columns, 1)  # (B, channels, *GRID, rows, columns)
    expected = torch.einsum("bcijhw,fchw->bijf", patches, kernel).flatten(1, 2)
    assert_close(scorer.features(memory.keys, past), expected)
    assert past.grid == GRID and reorder(past, torch.tensor([1, 1])).grid == GRID


def test_a_filter_of_rows_needs_a_grid():
    attention = Attention(LocationSensitive(4, 4, width=(3, 3)), Softmax())
    memory = attention.remember(torch.randn(1, 6, 4), torch.ones(1, 6, dtype=torch.bool))
    with pytest.raises(Seq2attnError, match="width of rows and columns is for a grid"):
        attention(torch.randn(1, 1, 4), memory)


def test_a_filter_has_a_centre():
    with pytest.raises(Seq2attnError, match=r"odd width, .* got 4; take 5"):
        LocationSensitive(4, 4, width=(3, 4))
