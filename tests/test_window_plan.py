"""The plan of a large corpus, a window at a time: complete, pure, and the same from any batch on."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2attn.data import window_plan
from seq2attn.data.batch_plan import Batches, plan
from seq2attn.data.batches import BatchLoader
from seq2attn.data.examples import ExampleSet
from seq2attn.data.window_plan import WindowPlan, blocks


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    for name, value in (("BLOCK", 8), ("WINDOW", 4)):
        monkeypatch.setattr(window_plan, name, value)


class Lengths:
    """A corpus of lengths, which counts how many of them are looked at."""

    def __init__(self, *sizes, weights=None):
        self.sizes, self.weights = sizes, weights or [1.0] * len(sizes)
        generator = np.random.default_rng(sum(sizes))
        self.source_lengths, self.target_lengths = (
            generator.integers(0, 30, sum(sizes)).astype(np.int32) for _ in range(2)
        )

    def blocks(self, epoch, seed):
        return blocks(self.sizes, self.weights, (seed, epoch))


def batches(*sizes, weights=None, budget=100):
    return Batches(Lengths(*sizes, weights=weights), budget, seed=3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 120), min_size=1, max_size=3), st.integers(1, 200), st.integers(0, 3))
def test_every_example_comes_once_in_an_epoch_in_batches_that_fit(sizes, budget, epoch):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("BLOCK", 8), ("WINDOW", 4)):
            patch.setattr(window_plan, name, value)
        made = batches(*sizes, budget=budget)
        planned = made.epoch(epoch)
        assert isinstance(planned, WindowPlan) and len(planned) == made.epoch_size(epoch)
        assert sorted(np.concatenate([*planned]).tolist()) == [*range(sum(sizes))]
    source, target = made.examples.source_lengths, made.examples.target_lengths
    for batch in planned:
        assert len(batch) == 1 or len(batch) * (1 + max(source[batch].max(), target[batch].max())) <= budget


def test_a_window_is_planned_as_a_small_corpus_is():
    made = batches(500)
    planned, begin = made.epoch(2), 0
    for window in range(planned.num_windows):
        examples = planned.examples(window)
        lengths = made.examples.source_lengths, made.examples.target_lengths
        own = plan(*lengths, examples, 100, (3, 2, window))
        found = planned[begin : begin + len(own)]
        assert [batch.tolist() for batch in found] == [batch.tolist() for batch in own]
        begin += len(own)
        neighbours = np.sort(examples)
        assert (np.diff(neighbours) == 1).mean() > 0.8  # what is read from the disk lies together
    assert begin == len(planned)


def test_any_part_of_a_plan_is_the_same_from_anywhere():
    whole = [batch.tolist() for batch in batches(700).epoch(1)]
    for begin in (0, 1, 37, len(whole) - 1, len(whole), len(whole) + 5):
        for size in (1, 4, 60):
            assert [batch.tolist() for batch in batches(700).epoch(1)[begin : begin + size]] == whole[
                begin : begin + size
            ]
    planned = batches(700).epoch(1)
    assert planned[-1].tolist() == whole[-1] and [one.tolist() for one in planned[::-7]] == whole[::-7]
    for outside in (len(whole), -len(whole) - 1):
        with pytest.raises(IndexError, match=f"batch {outside} of {len(whole)}"):
            planned[outside]


def test_the_first_batch_needs_the_first_window_only():
    asked = []

    def counted(number, examples):
        asked.append(number)
        return len(examples)

    def made(number, examples):
        asked.append(f"plan {number}")
        return [examples[row : row + 1] for row in range(len(examples))]

    planned = WindowPlan(blocks([1000], [1.0], (1, 1)), made, counted)
    assert len(planned[:10]) == 10 and asked == [0, "plan 0"]
    assert len(planned[30:40]) == 10 and asked == [0, "plan 0", 1, "plan 1"]


def test_epochs_and_seeds_differ_and_repeat():
    plans = [
        [batch.tolist() for batch in Batches(Lengths(400), 100, seed).epoch(epoch)]
        for seed, epoch in [(1, 0), (1, 0), (1, 1), (2, 0)]
    ]
    assert plans[0] == plans[1] and plans[0] != plans[2] != plans[3] != plans[0]


def counted(sizes, weights, seed):
    counts = np.zeros(sum(sizes), dtype=int)
    for begin, end in blocks(sizes, weights, seed).tolist():
        assert begin < end
        counts[begin:end] += 1
    return counts


def test_a_fraction_of_a_weight_is_that_fraction_of_the_examples():
    counts = counted([64, 80, 33], [1.0, 2.5, 0.4], (5, 1))
    assert (counts[:64] == 1).all() and {*counts[64:144]} == {2, 3} and {*counts[144:]} == {0, 1}
    assert (counts[64:144] == 3).sum() == 40 and (counts[144:] == 1).sum() == 13
    other = counted([64, 80, 33], [1.0, 2.5, 0.4], (5, 2))
    assert other.sum() == counts.sum() and (other != counts).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.floats(0.001, 4), st.integers(0, 9))
def test_a_corpus_of_less_than_a_block_has_its_share(size, weight, epoch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_plan, "BLOCK", 8)
        counts = counted([64, size], [1.0, weight], (3, epoch))[64:]
    whole, rest = divmod(weight, 1)
    assert counts.sum() == size * int(whole) + round(rest * size) and {*counts} <= {
        int(whole),
        int(whole) + 1,
    }


def test_every_example_is_as_likely_to_be_in_a_fraction():
    counts = sum(counted([20], [0.3], (7, epoch)) for epoch in range(2000))  # 600 expected of each
    assert abs(counts - 600).max() < 100  # 5 standard deviations
    neighbours = blocks([800], [0.25], (7, 1))
    assert len(neighbours) <= 200 // 8 + 1  # still blocks: only the first and the last are cut


def test_only_large_corpora_have_windows(monkeypatch):
    monkeypatch.setattr("seq2attn.data.examples.LARGE", 20)

    def corpus(*sizes, weights):
        made = ExampleSet([])
        made._sizes, made._weights = [*sizes], weights
        return made

    assert corpus(20, weights=[1.0]).blocks(0, 1) is None
    assert len(corpus(21, weights=[1.0]).blocks(0, 1)) == 3
    assert corpus(30, weights=[0.5]).blocks(0, 1) is None
    assert corpus(9, weights=[3.0]).blocks(0, 1).tolist().count([0, 8]) == 3


def test_a_loader_follows_the_windows():
    loader = BatchLoader(Lengths(60), SimpleNamespace(), 100, seed=3)
    assert [batch.tolist() for batch in loader.epoch(1)] == [batch.tolist() for batch in batches(60).epoch(1)]
