"""States that a search reorders, and what its hypotheses share."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Memory
from seq2attn.attention.state import (
    GrowingBuffer,
    PerSource,
    expand_to_hypotheses,
    fold_hypotheses,
    reorder,
    unfold_hypotheses,
)


def test_reorder_walks_any_nesting():
    class Inner(NamedTuple):
        numbers: Tensor
        nothing: None

    class Outer(NamedTuple):
        pair: tuple[Tensor, Inner]
        memory: Memory | None

    rows = torch.arange(3)
    state = Outer((rows, Inner(rows[:, None] * 2, None)), Memory(rows, rows, rows))
    taken = reorder(state, torch.tensor([2, 0, 0, 1]))
    assert isinstance(taken, Outer) and isinstance(taken.pair[1], Inner) and isinstance(taken.memory, Memory)
    assert taken.pair[0].tolist() == taken.memory.mask.tolist() == [2, 0, 0, 1]
    assert taken.pair[1].numbers.tolist() == [[4], [0], [0], [2]] and taken.pair[1].nothing is None


class Kept(NamedTuple):
    moving: Tensor
    source: PerSource[Memory | None]


def state(sentences: int, beam: int) -> Kept:
    rows = torch.arange(sentences)
    return Kept(torch.arange(sentences * beam), PerSource(Memory(rows, 10 * rows, rows)))


def test_what_is_shared_moves_with_sentences_only():
    taken = reorder(state(3, 2), torch.tensor([5, 4, 1, 1]), torch.tensor([0, 2]))
    assert taken.moving.tolist() == [5, 4, 1, 1] and taken.source.value.values.tolist() == [0, 20]


def test_what_is_shared_stays_where_it_is_while_all_sentences_stay():
    before = state(3, 2)
    after = reorder(before, torch.tensor([1, 1, 2, 3, 5, 4]), torch.arange(3))
    assert all(a is b for a, b in zip(after.source.value[:3], before.source.value[:3], strict=True))


def test_with_one_hypothesis_each_what_is_shared_moves_as_all_else():
    taken = reorder(state(3, 1), torch.tensor([2, 0, 0, 1]))
    assert taken.moving.tolist() == taken.source.value.keys.tolist() == [2, 0, 0, 1]
    assert reorder(Kept(torch.arange(2), PerSource(None)), torch.tensor([1])).source.value is None


def test_what_is_shared_is_spread_for_each_hypothesis():
    memory = state(3, 2).source.value
    assert expand_to_hypotheses(memory, 6).values.tolist() == [0, 0, 10, 10, 20, 20]
    assert expand_to_hypotheses(memory, 3).values is memory.values and expand_to_hypotheses(None, 6) is None


@pytest.mark.parametrize("heads", [(), (2,)])
def test_what_stands_together_comes_apart(heads):
    x = torch.arange(6 * 2 * 5).view(6, 2, 5)[:, : sum(heads) or 1].view(6, *heads, 1, 5).float()
    beside = fold_hypotheses(x, 3)
    assert beside.shape == (3, *heads, 2, 5) and torch.equal(unfold_hypotheses(beside), x)
    assert all(torch.equal(beside[n // 2, ..., n % 2, :], x[n, ..., 0, :]) for n in range(6))
    assert fold_hypotheses(x, 6) is x


def test_slots_grow_without_changing_those_that_were_there():
    some = [torch.full((2, 3, n, 4), float(n)) for n in (1, 2, 1, 3)]
    with torch.no_grad():
        first = GrowingBuffer.of(some[0]).append(some[1])
        longer = first.append(some[2])
        other = first.append(some[3])  # as a second hypothesis of the same past
        assert torch.equal(longer.append(some[0]).all, torch.cat([*some[:3], some[0]], -2))
    assert longer.storage is first.storage and other.storage is not first.storage
    assert torch.equal(first.all, torch.cat(some[:2], -2)) and torch.equal(some[0], torch.ones(2, 3, 1, 4))
    assert torch.equal(longer.all, torch.cat(some[:3], -2))
    assert torch.equal(other.all, torch.cat([*some[:2], some[3]], -2))


def test_slots_that_stay_keep_their_room():
    with torch.no_grad():
        kept = PerSource(GrowingBuffer.of(torch.randn(3, 1, 4)).append(torch.randn(3, 1, 4)))
    index = torch.tensor([1, 0, 2, 2, 5, 4])
    assert reorder(kept, index, torch.arange(3)).value is kept.value
    fewer = reorder(kept, index[:4], torch.tensor([0, 2])).value
    assert torch.equal(fewer.all, kept.value.all[[0, 2]])


def test_slots_that_have_been_used_keep_their_gradient():
    x = torch.randn(2, 5, 4, requires_grad=True)
    slots, squares = GrowingBuffer.of(x[:, :1]), []
    for place in range(1, 5):
        slots = slots.append(x[:, place : place + 1])
        squares.append(slots.all.square().sum())  # which remembers what it has read
    torch.stack(squares).sum().backward()
    times = torch.tensor([4, 4, 3, 2, 1])
    assert torch.equal(slots.all, x) and torch.equal(x.grad, 2 * x * times[:, None])


def test_slots_of_constants_keep_the_gradient_of_who_has_used_them():
    x, weight = torch.randn(2, 5, 4), torch.ones(4, requires_grad=True)
    slots, products = GrowingBuffer.of(x[:, :1]), []
    for place in range(1, 5):
        slots = slots.append(x[:, place : place + 1])
        products.append((slots.all * weight).sum())
    torch.stack(products).sum().backward()
    assert_close(weight.grad, sum(x[:, : place + 1].sum((0, 1)) for place in range(1, 5)))
