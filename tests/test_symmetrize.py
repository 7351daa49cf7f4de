"""Two directions of links made one: between intersection and union, and the same from either side."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2attn.alignment.symmetrize import SYMMETRIZATIONS, reversed_links, symmetrized
from seq2attn.alignment.word_alignment import AlignmentError, Link, parse_gold, parse_pharaoh
from seq2attn.metrics.alignments import GoldFile, alignment_scores

LINKS = st.frozensets(st.builds(Link, st.integers(0, 5), st.integers(0, 5)), max_size=14)
METHODS = list(SYMMETRIZATIONS)


@settings(max_examples=60, deadline=None)
@given(LINKS, LINKS)
def test_each_method_lies_between_intersection_and_union(first, second):
    results = {name: set(symmetrized(first, second, name)) for name in METHODS}
    assert results["intersection"] == first & second and results["union"] == first | second
    chain = ["intersection", "grow-diag", "grow-diag-final-and", "grow-diag-final", "union"]
    for small, large in itertools.pairwise(chain):
        assert results[small] <= results[large]


@settings(max_examples=60, deadline=None)
@given(LINKS, LINKS)
def test_symmetrizing_turns_with_the_sentences_and_knows_no_first_direction(first, second):
    for name in METHODS:
        expected = symmetrized(first, second, name)
        assert symmetrized(second, first, name) == expected
        turned = symmetrized(reversed_links(first), reversed_links(second), name)
        assert sorted(reversed_links(turned)) == expected


@settings(max_examples=60, deadline=None)
@given(LINKS, LINKS)
def test_after_final_every_word_that_a_direction_links_has_a_link(first, second):
    links = symmetrized(first, second, "grow-diag-final")
    for side in (0, 1):
        assert {link[side] for link in links} == {link[side] for link in first | second}


def test_growing_by_hand():
    """Beside the intersection 1-1: 2-2 is diagonal; 3-2 is then beside it, and its source is free; 5-5 is beside
    nothing; 1-2 has no free word once 2-2 is in, but enters in the same round."""
    forward, backward = parse_pharaoh("1-1 2-2 5-5 1-2 5-1"), parse_pharaoh("1-1 3-2")
    assert parse_pharaoh("1-1 1-2 2-2 3-2") == symmetrized(forward, backward, "grow-diag")
    assert parse_pharaoh("1-1 1-2 2-2 3-2 5-5") == symmetrized(forward, backward, "grow-diag-final-and")
    assert parse_pharaoh("1-1 1-2 2-2 3-2 5-1 5-5") == symmetrized(forward, backward, "grow-diag-final")


def test_an_unknown_method_is_refused_with_those_that_exist():
    with pytest.raises(AlignmentError, match="'grow': expected one of intersection, union, grow-diag"):
        symmetrized([], [], "grow")


def test_scores_by_hand_with_an_interval():
    gold = [parse_gold("0-0 1-1 1?2"), parse_gold("0-0")]
    found = [[Link(0, 0), Link(1, 2), Link(3, 3)], [Link(0, 0)]]
    rate, precision, recall = alignment_scores(found, gold)
    assert rate.value == pytest.approx(100 * (1 - (2 + 3) / (4 + 3)))
    assert (precision.value, recall.value) == pytest.approx((100 * 3 / 4, 100 * 2 / 3))
    assert rate.low == 0 and rate.high == pytest.approx(100 * (1 - (1 + 2) / (3 + 2)))
    assert rate.signature.startswith("pairs:2|links:4|bs:1000|")
    with pytest.raises(AlignmentError, match="each of the 2 pairs, got 1"):
        alignment_scores(found, gold[:1])
    with pytest.raises(AlignmentError, match=r"gold\.txt:2: expected links such as"):
        GoldFile.parse(["0-0", "0:0"], "gold.txt")


def _read(name):
    return [parse_pharaoh(line) for line in (_folder() / f"{name}.talp").read_text().splitlines()]


def _folder():
    folder = Path(os.environ.get("SEQ2ATTN_DATA", "")) / "align"
    if not os.environ.get("SEQ2ATTN_DATA") or not folder.exists():
        pytest.skip("needs SEQ2ATTN_DATA with align/ in it")
    return folder


@pytest.mark.parametrize(
    ("system", "published"),  # AER, precision and recall, as published with the files
    [
        ("fastalign.test.roen", (33.8, 71.8, 61.3)),
        ("fastalign.test.roen.grow-diagonal", (32.1, 85.1, 56.5)),
        ("fastalign.test.roen.grow-diagonal-final", (32.2, 81.4, 58.1)),
        ("giza.test.roen", (28.7, 82.7, 62.6)),
        ("giza.test.roen.union", (30.3, 72.3, 67.4)),
    ],
)
def test_scores_are_those_published_for_fast_align_and_giza(system, published):
    gold = GoldFile.parse((_folder() / "ro-en.align").read_text().splitlines(), "ro-en").links
    scores = [score.value for score in alignment_scores(_read(system), gold, bootstrap=0)]
    assert scores == pytest.approx(published, abs=0.1)


@pytest.mark.parametrize("system", ["fastalign.test.roen", "giza.test.roen"])
def test_symmetrizing_their_two_directions_gives_their_intersection_and_union(system):
    backward = [reversed_links(links) for links in _read(f"{system}.reverse")]
    for name in ("intersection", "union"):
        found = [symmetrized(*both, name) for both in zip(_read(system), backward, strict=True)]
        assert found == [sorted(set(links)) for links in _read(f"{system}.{name}")]
