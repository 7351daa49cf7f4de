"""The batch plan: pure, complete, within its budget, and of sentences of one length."""

import itertools
from collections.abc import Sequence
from math import inf
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.testing import assert_close

from seq2attn.data import batch_plan
from seq2attn.data.batch_plan import fill, plan, plan_size
from seq2attn.data.batches import Batch, BatchLoader, PairIds, collate
from seq2attn.data.sources import PairTokenizer, SourceIds, pad
from seq2attn.data.word_batches import LabelledBatchLoader, collate_words
from seq2attn.errors import Seq2attnError
from seq2attn.recipe import SamplingRecipe
from seq2attn.text.word_vocabulary import PADDING, Labels, WordVocabulary

lengths = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60).map(
    lambda pairs: tuple(np.array(pairs, dtype=np.int32).reshape(-1, 2).T)
)


def realistic(count: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Lengths like those of real sentences and their translations."""
    generator = np.random.default_rng(7)
    source = np.clip(generator.lognormal(3, 0.5, count), 1, 120)
    target = np.clip(source * generator.normal(1.05, 0.15, count), 1, 120)
    return source.astype(np.int32), target.astype(np.int32)


def size(numbers: NDArray[np.int64], source: NDArray[np.int32], target: NDArray[np.int32]) -> int:
    """Tokens of a batch on its longer side, with padding and one special token."""
    return len(numbers) * (1 + max(source[numbers].max(), target[numbers].max()))


def padding(plan: list[NDArray[np.int64]], *sides: NDArray[np.int32]) -> float:
    """The share of all places that hold no token."""
    places = sum(len(numbers) * (1 + side[numbers].max()) for numbers in plan for side in sides)
    return 1 - sum((1 + side[numbers]).sum() for numbers in plan for side in sides) / places


@settings(max_examples=100, deadline=None)
@given(lengths, st.integers(1, 200), st.integers(0, 9), st.sampled_from([5, 50_000]))
def test_every_example_comes_once_in_a_batch_that_is_not_too_large(sides, budget, seed, stretch):
    examples = np.arange(len(sides[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_plan, "STRETCH", stretch)
        planned = plan(*sides, examples, budget, (seed, 1))
        assert plan_size(*sides, examples, budget, (seed, 1)) == len(planned)
    assert sorted(np.concatenate([[], *planned])) == examples.tolist()
    assert all(len(numbers) == 1 or size(numbers, *sides) <= budget for numbers in planned)


@settings(max_examples=100, deadline=None)
@given(lengths, st.integers(1, 200))
def test_a_batch_takes_examples_in_order_as_long_as_they_fit(sides, budget):
    order, batches = np.arange(len(sides[0])), list[list[int]]()
    for number in order.tolist():
        if batches and size(np.array([*batches[-1], number]), *sides) <= budget:
            batches[-1].append(number)
        else:
            batches.append([number])
    assert [batch.tolist() for batch in fill(order, *sides, budget)] == batches


def test_a_plan_is_a_pure_function():
    sides, examples = realistic(500), np.arange(500)
    given = [*(side.copy() for side in sides), examples.copy()]
    first, again = (plan(*sides, examples, 300, (1, 3)) for _ in range(2))
    assert [numbers.tolist() for numbers in first] == [numbers.tolist() for numbers in again]
    assert all((a == b).all() for a, b in zip(given, (*sides, examples), strict=True))


def test_epochs_and_seeds_bring_other_batches_in_another_order():
    sides, examples = realistic(2000), np.arange(2000)
    plans = [
        [frozenset(n.tolist()) for n in plan(*sides, examples, 600, s)] for s in [(1, 1), (1, 2), (2, 1)]
    ]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert len(set(plans[one]) & set(plans[other])) < len(plans[one]) / 2
    longest = [max(sides[0][list(numbers)]) for numbers in plans[0]]
    assert longest != sorted(longest) and abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.3


def test_only_the_given_examples_are_planned():
    sides, some = realistic(100), np.array([5, 17, 93, 17])  # a weighted corpus may repeat one
    assert sorted(np.concatenate(plan(*sides, some, 300, (1, 1)))) == [5, 17, 17, 93]
    assert plan(*sides, some[:0], 300, (1, 1)) == []


def test_bucketing_keeps_padding_low():
    sides = realistic(20_000)
    planned = plan(*sides, np.arange(20_000), 4000, (1, 1))
    unsorted = fill(np.random.default_rng(1).permutation(20_000), *sides, 4000)
    assert padding(planned, *sides) < 0.07 < 0.4 < padding(unsorted, *sides)
    assert np.mean([size(numbers, *sides) for numbers in planned]) > 0.95 * 4000  # and batches full


@settings(max_examples=100, deadline=None)
@given(lengths, st.integers(1, 200), st.randoms(use_true_random=False))
def test_fill_keeps_the_order_and_wastes_no_room(sides, budget, random):
    order = np.array(random.sample(range(len(sides[0])), len(sides[0])), dtype=np.int64)
    filled = fill(order, *sides, budget)
    assert np.concatenate([[], *filled]).tolist() == order.tolist()
    assert all(len(numbers) == 1 or size(numbers, *sides) <= budget for numbers in filled)
    for one, following in itertools.pairwise(filled):
        assert size(np.append(one, following[0]), *sides) > budget


def test_pad_fills_on_the_right():
    ids, mask = pad([[5, 6, 7], [], np.array([8], dtype=np.int32)], 9)
    assert ids.tolist() == [[5, 6, 7], [9, 9, 9], [8, 9, 9]]
    assert mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert ids.dtype == torch.long and mask.dtype == torch.bool


@pytest.mark.parametrize("rows", [[[], []], []])
def test_pad_leaves_one_column_where_nothing_is(rows):
    ids, mask = pad(rows, 9)
    assert ids.tolist() == [[9]] * len(rows) and ids.shape == mask.shape == (len(rows), 1)
    assert not mask.any()


SOURCE, TARGET = (SimpleNamespace(pad=0, unk=1, bos=2 + n, eos=4 + n, size=200) for n in (0, 10))
SIDES = PairTokenizer(SOURCE, TARGET)


def batch(sources: list[list[int]], targets: list[list[int]], ended: Sequence[bool] = ()) -> Batch:
    whole = ended or [True] * len(sources)
    return collate(
        SIDES,
        [PairIds(SourceIds(source), *rest) for source, *rest in zip(sources, targets, whole, strict=True)],
    )


def same(one: Batch, other: Batch) -> None:
    assert_close(tuple(one.source[:2]) + tuple(one[1:]), tuple(other.source[:2]) + tuple(other[1:]))


def test_a_batch_begins_and_ends_its_sentences():
    made = batch([[7, 8], [9]], [[21], [22, 23, 24]])
    assert made.source.tokens.tolist() == [[7, 8, 4], [9, 4, 0]]
    assert made.source.mask.tolist() == [[True, True, True], [True, True, False]]
    assert made.target_input.tolist() == [[12, 21, 0, 0], [12, 22, 23, 24]]
    assert made.target.tolist() == [[21, 14, 0, 0], [22, 23, 24, 14]]
    assert made.target_mask.tolist() == [[True, True, False, False], [True] * 4]
    same(made.to(torch.device("cpu")), made)


def test_targets_that_were_cut_off_have_no_end():
    """Nothing is learnt, and nothing counted, where a target does not go on only because none was read."""
    ended = [True, False, False]
    made = batch([[7]] * 3, [[21], [22, 23, 24], [25, 26]], ended)
    assert made.target.tolist() == [[21, 14, 0], [22, 23, 24], [25, 26, 0]]
    assert made.target_input.tolist() == [[12, 21, 0], [12, 22, 23], [12, 25, 0]]
    assert made.target_mask.tolist() == [[True, True, False], [True] * 3, [True, True, False]]
    assert made.num_targets == 7


class Examples:
    """A corpus of sentences n n n ..."""

    def __init__(self, count: int) -> None:
        self.source_lengths, self.target_lengths = realistic(count)

    def source(self, number: int) -> NDArray[np.int32]:
        return np.full(self.source_lengths[number], number, dtype=np.int32)

    def target(self, number: int) -> NDArray[np.int32]:
        return np.full(self.target_lengths[number], number, dtype=np.int32)

    def source_text(self, number: int) -> str:
        return f"source {number}"

    def target_text(self, number: int) -> str:
        return f"target {number}"

    def epoch(self, epoch: int, seed: int) -> NDArray[np.int64]:
        return np.arange(len(self.source_lengths))[epoch::2]


def test_a_feed_plans_epochs_and_goes_through_once():
    loader = BatchLoader(Examples(100), SIDES, 200, seed=5)
    planned = [numbers.tolist() for numbers in loader.epoch(1)]
    expected = plan(*realistic(100), np.arange(100)[1::2], 200, (5, 1))
    assert planned == [numbers.tolist() for numbers in expected]
    assert loader.epoch_size(1) == len(planned)
    once = loader.evaluation_batches()
    assert sorted(np.concatenate(once)) == list(range(100))
    assert padding(once, *realistic(100)) < 0.2
    same(loader.batch(once[1]), loader.batch(once[1], epoch=1))
    assert set(loader.batch(np.array([7, 11])).source.tokens[1].tolist()) <= {11, SOURCE.eos, SOURCE.pad}


class Linked(Examples):
    """Every target id means the source id at its place, where there is one, and the first."""

    aligned = True

    def links(self, number: int) -> NDArray[np.int32]:
        both = min(self.source_lengths[number], self.target_lengths[number])
        return np.array([*((i, i) for i in range(both)), (0, both - 1)], dtype=np.int32)


def test_links_stand_where_their_tokens_are():
    corpus = Linked(50)
    loader = BatchLoader(corpus, SIDES, 200)
    for epoch, numbers in ((None, loader.evaluation_batches()[3]), (1, loader.epoch(1)[0])):
        made = loader.batch(numbers, epoch)
        assert made.links.dtype == torch.bool
        assert made.links.shape == (*made.target.shape, made.source.tokens.shape[1])
        for links, number in zip(made.links, numbers, strict=True):
            cells = {(t, s) for s, t in corpus.links(number).tolist()}
            assert {tuple(cell) for cell in links.nonzero().tolist()} == cells
        assert not (made.links & (made.target == TARGET.eos)[..., None]).any()
        assert not (made.links & (made.source.tokens == SOURCE.eos)[:, None]).any()
        assert not (made.links & ~(made.target_mask[..., None] & made.source.mask[:, None])).any()
        assert_close(made.to(torch.device("cpu")).links, made.links)


def test_only_an_aligned_corpus_has_links():
    assert BatchLoader(Examples(9), SIDES, 200).batch(np.array([1])).links is None
    corpus = Linked(9)
    corpus.aligned = False
    assert BatchLoader(corpus, SIDES, 200).batch(np.array([1])).links is None


def test_links_and_sampled_pieces_do_not_go_together():
    with pytest.raises(
        Seq2attnError, match=r"text\.sampling splits words anew in each epoch, but alignments need"
    ):
        BatchLoader(Linked(9), SIDES, 200, sampling=SamplingRecipe())


def test_sampled_pieces_are_a_function_of_seed_epoch_and_batch():
    asked = []

    def sample(texts: list[str], seed: int, nbest: int, alpha: float) -> list[list[int]]:
        asked.append((texts[0], seed, nbest, alpha))
        return [[seed % 1000]] * len(texts)

    sides = [SimpleNamespace(**vars(side), sample=sample) for side in (SOURCE, TARGET)]
    loader = BatchLoader(
        Examples(100), PairTokenizer(*sides), 200, seed=5, sampling=SamplingRecipe(nbest=7, alpha=0.3)
    )
    some, others = np.array([3, 5]), np.array([4, 5])
    first, again = loader.batch(some, epoch=2), loader.batch(some, epoch=2)
    same(first, again)
    assert asked[0] == asked[2] and asked[0][0] == "source 3" and asked[1][0] == "target 3"
    assert asked[0][2:] == (7, 0.3)
    loader.batch(others, epoch=2), loader.batch(some, epoch=3)
    assert len({seed for _, seed, _, _ in asked}) == 3
    assert (
        loader.batch(some).source.tokens[0, 0] == 3 and len(asked) == 8
    )  # outside of training nothing is sampled


@pytest.mark.parametrize(
    ("max_lengths", "sampled"),
    [((inf, inf), True), ((7, 7), True), ((6, 7), False), ((7, 6), False), ((6, inf), False)],
)
def test_no_sampled_segmentation_is_longer_than_the_model_can_read(
    max_lengths: tuple[float, float], sampled: bool
) -> None:
    """The pair then keeps its usual one, on both sides, which the filter has admitted."""
    sides = [
        SimpleNamespace(**vars(side), sample=lambda texts, *_: [[0] * 7, [0]]) for side in (SOURCE, TARGET)
    ]
    loader = BatchLoader(Examples(9), PairTokenizer(*sides), 200, 5, SamplingRecipe(), max_lengths)
    batch = loader.batch(np.array([3, 5]), epoch=2)
    assert batch.source.tokens[:, 0].tolist() == batch.target[:, 0].tolist() == [0 if sampled else 3, 0]


def test_words_are_spelt_once_in_blocks_of_words_about_as_long():
    word_vocabulary = WordVocabulary.learn(
        ["a bee sees the transformation of a bee", "https://a.b/very/long/address"]
    )
    sentences = [["a", "bee", "transformation"], ["https://a.b/very/long/address", "bee", "of", "sees"]]
    words = collate_words(
        sentences, word_vocabulary.encode([" ".join(sentence) for sentence in sentences]), word_vocabulary
    )
    assert [tuple(block.shape) for block in words.characters] == [(4, 4), (1, 14), (1, 29)]
    spellings = [row[row != PADDING].tolist() for block in words.characters for row in block]
    for sentence, places, mask in zip(sentences, words.character_rows, words.mask, strict=True):
        assert [spellings[place] for place in places[mask]] == [
            word_vocabulary.spell(word) for word in sentence
        ]


class Labelled(Examples):
    """Three sentences with labels."""

    texts = ("a b c", "b", "c c a a b")

    def __init__(self, word_vocabulary: WordVocabulary, labels: Labels, said: Sequence[str]) -> None:
        self.ids, self.labels = word_vocabulary.encode(self.texts), labels.encode(said)

    def source(self, number: int) -> NDArray[np.int32]:
        return np.array(self.ids[number], dtype=np.int32)

    def target(self, number: int) -> NDArray[np.int32]:
        return np.array(self.labels[number], dtype=np.int32)

    def source_text(self, number: int) -> str:
        return self.texts[number]


@pytest.mark.parametrize(
    ("said", "scheme", "units"), [(["x", "y", "x"], None, 3), (["B-p I-p O", "O", "O O O B-p O"], "bio", 9)]
)
def test_labelled_batches_count_what_is_labelled(said: list[str], scheme: Any, units: int):
    word_vocabulary, labels = WordVocabulary.learn(Labelled.texts), Labels.learn(said, scheme)
    made = LabelledBatchLoader(Labelled(word_vocabulary, labels, said), word_vocabulary, labels, 99).batch(
        np.arange(3)
    )
    assert made.num_targets == units and made.words.mask.sum(1).tolist() == [3, 1, 5]
    expected = labels.encode(said)
    if scheme is None:
        assert made.labels.tolist() == [label for (label,) in expected]
    else:
        assert [
            row[mask].tolist() for row, mask in zip(made.labels, made.words.mask, strict=True)
        ] == expected


def test_no_words_at_all_are_spelt_as_one_without_characters():
    words = collate_words([[]], [[]], WordVocabulary.learn(["a"]))
    assert len(words.characters) == 1 and len(words.characters[0]) == 1 and not words.mask.any()
