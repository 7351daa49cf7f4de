"""From pieces to words: mass is kept, rows and columns go where they belong, links survive the round trip."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from seq2attn.alignment.word_alignment import (
    AlignmentError,
    Link,
    WordAlignment,
    by_words,
    error_rate,
    links,
    parse_gold,
    parse_pharaoh,
    pharaoh,
    shifted,
)


@st.composite
def word_maps(draw: st.DrawFn) -> list[int]:
    """For each piece its word: every word has a piece, in order."""
    lengths = draw(st.lists(st.integers(1, 4), max_size=7))
    return [word for word, length in enumerate(lengths) for _ in range(length)]


@st.composite
def sentences(draw: st.DrawFn) -> tuple[Tensor, list[int], list[int], bool]:
    """Weights of rows that sum to anything up to 1, with the words of both sides."""
    target, source, eos = draw(word_maps()), draw(word_maps()), draw(st.booleans())
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    weights = torch.rand(len(target), len(source) + eos, generator=generator)
    return weights / weights.sum(1, keepdim=True).clamp(min=1), target, source, eos


@settings(max_examples=200, deadline=None)
@given(sentences())
def test_mass_is_conserved(sentence: tuple[Tensor, list[int], list[int], bool]) -> None:
    weights, target, source, eos = sentence
    alignment = by_words(weights, target, source, eos)
    got = alignment.weights.sum(1) + alignment.end_of_sentence
    sums = weights.sum(1)
    expected = [sums[[i for i, w in enumerate(target) if w == word]].mean() for word in sorted(set(target))]
    assert_close(got, torch.tensor([float(e) for e in expected]))
    if not eos:
        assert (alignment.end_of_sentence == 0).all()


@settings(max_examples=100, deadline=None)
@given(sentences())
def test_every_weight_goes_to_its_words(sentence: tuple[Tensor, list[int], list[int], bool]) -> None:
    weights, target, source, eos = sentence
    alignment = by_words(weights, target, source, eos)
    assert alignment.weights.shape == (len(set(target)), len(set(source)))
    for t, row in enumerate(alignment.weights):
        rows = [i for i, word in enumerate(target) if word == t]
        for s, weight in enumerate(row):
            columns = [j for j, word in enumerate(source) if word == s]
            assert_close(weight, weights[rows][:, columns].sum() / len(rows))
        if eos:
            assert_close(alignment.end_of_sentence[t], weights[rows, -1].mean())


def test_summed_over_the_source_averaged_over_the_target() -> None:
    weights = torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.1, 0.2, 0.4, 0.3], [0.0, 0.0, 0.0, 1.0]])
    alignment = by_words(weights, [0, 0, 1], [0, 0, 1], source_eos=True)
    assert_close(alignment.weights, torch.tensor([[0.5, 0.3], [0.0, 0.0]]))
    assert_close(alignment.end_of_sentence, torch.tensor([0.2, 1.0]))


def test_one_piece_a_word_changes_nothing() -> None:
    weights = torch.rand(5, 7)
    assert_close(by_words(weights, range(5), range(7), source_eos=False).weights, weights)


def test_words_leave_the_graph_and_half_precision() -> None:
    weights = torch.rand(2, 3, dtype=torch.float16, requires_grad=True)
    alignment = by_words(weights, [0, 1], [0, 1], source_eos=True)
    assert alignment.weights.dtype == torch.float32 and not alignment.weights.requires_grad


def test_shifted_rows_of_both_conventions() -> None:
    steps = torch.arange(4.0)[:, None].expand(4, 3)  # three tokens and the end; each row is its step
    assert shifted(steps, 0)[:, 0].tolist() == [0, 1, 2]
    assert shifted(steps, 1)[:, 0].tolist() == [1, 2, 3]
    assert shifted(steps[:1], 1).shape == (0, 3)


def test_links_are_the_largest_weights_and_skip_the_end_of_sentence() -> None:
    alignment = WordAlignment(
        torch.tensor([[0.6, 0.3], [0.2, 0.3], [0.0, 0.0], [0.4, 0.4], [0.1, 0.5]]),
        torch.tensor([0.1, 0.5, 0.0, 0.2, 0.5]),
    )
    assert links(alignment) == [Link(0, 0), Link(0, 3), Link(1, 4)]
    assert pharaoh(alignment) == "0-0 0-3 1-4"


def test_every_link_above_the_threshold() -> None:
    alignment = WordAlignment(torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.05, 0.7]]), torch.zeros(2))
    assert pharaoh(alignment, threshold=0.25) == "0-0 1-0 2-1"
    assert pharaoh(alignment, threshold=0.0) == "0-0 1-0 0-1 1-1 2-1"


@settings(max_examples=100, deadline=None)
@given(sentences(), st.none() | st.floats(0, 1), st.sets(st.integers(0, 6)))
def test_a_word_that_looked_at_nothing_has_no_link(
    sentence: tuple[Tensor, list[int], list[int], bool], threshold: float | None, blind: set[int]
) -> None:
    weights, target, *rest = sentence
    weights = weights * torch.tensor([word not in blind for word in target])[:, None]
    found = links(by_words(weights, target, *rest), threshold)
    assert not {link.target for link in found} & blind
    if threshold == 0:  # all of the others
        assert len(found) == len({*target} - blind) * len({*rest[0]})


@settings(max_examples=100, deadline=None)
@given(sentences(), st.none() | st.floats(0, 1))
def test_pharaoh_round_trip(
    sentence: tuple[Tensor, list[int], list[int], bool], threshold: float | None
) -> None:
    alignment = by_words(*sentence)
    assert parse_pharaoh(pharaoh(alignment, threshold)) == links(alignment, threshold)


def test_nothing_aligned_is_an_empty_line() -> None:
    assert pharaoh(by_words(torch.zeros(0, 1), [], [], source_eos=True)) == ""
    assert pharaoh(by_words(torch.ones(2, 1), [0, 1], [], source_eos=True)) == ""
    assert parse_pharaoh(" \n") == []


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: by_words(torch.ones(3, 4), [0, 1], [0, 1], True),
            r"2 target by 2 source pieces \+ 1 .*\(3, 4\)",
        ),
        (lambda: by_words(torch.ones(2, 3), [0, 1], [0, 1], False), r"2 source pieces, got \(2, 3\)"),
        (lambda: by_words(torch.ones(2, 1), [0, 2], [0], False), r"without a gap, got \[0, 2\]"),
        (lambda: by_words(torch.ones(1, 1), [0], [1], False), r"without a gap, got \[1\]"),
        (lambda: shifted(torch.ones(2, 2), 2), "alignment_shift is 0 .* or 1 .*, got 2"),
        (lambda: shifted(torch.ones(0, 2), 0), "got no rows"),
        (lambda: links(WordAlignment(torch.ones(1, 1), torch.zeros(1)), 1.5), "between 0 and 1, got 1.5"),
        (lambda: parse_pharaoh("0-0 1:2"), "expected links such as 0-0 1-2 .*, got '1:2'"),
        (lambda: parse_pharaoh("-1-2"), "got '-1-2'"),
    ],
)
def test_errors_say_what_is_wrong(call: Callable[[], object], message: str) -> None:
    with pytest.raises(AlignmentError, match=message):
        call()


def test_the_error_rate_by_hand():
    gold = parse_gold("0-0 1-1 1?2 2?2")
    assert gold.sure == {Link(0, 0), Link(1, 1)} and gold.possible == gold.sure | {Link(1, 2), Link(2, 2)}
    assert error_rate([[Link(0, 0), Link(1, 1)]], [gold]) == 0
    assert error_rate([[Link(0, 0), Link(1, 2), Link(3, 3)]], [gold]) == 1 - (1 + 2) / (3 + 2)
    assert error_rate([[], [Link(0, 0)]], [gold, parse_gold("0-0")]) == 1 - 2 / (1 + 3)
    with pytest.raises(AlignmentError, match="links for each of 1 pairs of sentences, got 2"):
        error_rate([[], []], [gold])
    with pytest.raises(AlignmentError, match="neither predicted nor sure"):
        error_rate([[]], [parse_gold("")])
    with pytest.raises(AlignmentError, match="got '1x2'"):
        parse_gold("0-0 1x2")


@pytest.mark.parametrize(
    ("system", "published"),
    [("giza.test.roen", 28.7), ("giza.test.roen.grow-diagonal", 27.9), ("fastalign.test.roen", 33.8)],
)
def test_the_error_rate_is_the_published_one(system, published):
    """Of GIZA++ and fast_align on Romanian-English."""
    folder = Path(os.environ.get("SEQ2ATTN_DATA", "")) / "align"
    if not os.environ.get("SEQ2ATTN_DATA") or not folder.exists():
        pytest.skip("needs SEQ2ATTN_DATA with align/ in it")
    found = [parse_pharaoh(line) for line in (folder / f"{system}.talp").read_text().splitlines()]
    gold = [parse_gold(line) for line in (folder / "ro-en.align").read_text().splitlines()]
    assert round(100 * error_rate(found, gold), 1) == published
