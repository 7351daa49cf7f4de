"""Tags against hand-written sentences, against conlleval's reading, and over all spans that hypothesis thinks of."""

import itertools
import re

import conlleval
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2attn.text.tag_schemes import (
    SCHEMES,
    Constraints,
    Repaired,
    Scheme,
    Span,
    TagError,
    allowed,
    constraints,
    convert,
    guess_scheme,
    is_tag,
    read,
    repair,
    spans,
    tags,
)

SENTENCE = {  # x over 3 words, x over 1, outside, y-z over 2 directly before y-z over 1
    "iob1": "I-x I-x I-x B-x O I-y-z I-y-z B-y-z",
    "bio": "B-x I-x I-x B-x O B-y-z I-y-z B-y-z",
    "bioes": "B-x I-x E-x S-x O B-y-z E-y-z S-y-z",
    "bioul": "B-x I-x L-x U-x O B-y-z L-y-z U-y-z",
}
SPANS = [Span("x", 0, 3), Span("x", 3, 4), Span("y-z", 5, 7), Span("y-z", 7, 8)]

schemes = st.sampled_from(sorted(SCHEMES))


@st.composite
def sentences(draw: st.DrawFn) -> tuple[list[Span], int]:
    """Spans that do not overlap, and the number of words."""
    found, end = [], 0
    for kind, gap, words in draw(
        st.lists(
            st.tuples(st.sampled_from(["x", "y", "x-y"]), st.integers(0, 2), st.integers(1, 4)), max_size=5
        )
    ):
        found.append(Span(kind, end + gap, end + gap + words))
        end = found[-1].end
    return found, end + draw(st.integers(0, 2))


def letters(scheme: Scheme) -> list[str]:
    return sorted(set("".join(filter(None, SCHEMES[scheme]))))


def every(scheme: Scheme, kinds: str = "xy") -> list[str]:
    return ["O", *(f"{letter}-{kind}" for letter in letters(scheme) for kind in kinds)]


# ---- reading and writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_sentence_in_each_scheme(scheme):
    written = SENTENCE[scheme].split()
    assert spans(written, scheme) == SPANS and tags(SPANS[::-1], 8, scheme) == written
    assert guess_scheme([["O", "O"], [], written]) == scheme


@settings(max_examples=100, deadline=None)
@given(sentences(), schemes)
def test_reading_what_was_written_gives_it_back(sentence, scheme):
    written = tags(*sentence, scheme)
    assert spans(written, scheme) == sentence[0] == read(written) and len(written) == sentence[1]
    assert repair(written, scheme) == Repaired(written, 0)


@settings(max_examples=100, deadline=None)
@given(sentences(), schemes, schemes)
def test_converting_there_and_back_changes_nothing(sentence, source, target):
    written = tags(*sentence, source)
    there = convert(written, source, target)
    assert there == tags(*sentence, target) and convert(there, target, source) == written


@settings(max_examples=100, deadline=None)
@given(sentences(), schemes)
def test_the_scheme_of_tags_with_spans_is_found(sentence, scheme):
    short = all(span.end - span.start == 1 for span in sentence[0])
    written = tags(*sentence, scheme)
    found = guess_scheme([written])
    assert found == (scheme if sentence[0] else "bio") or (short and written == tags(*sentence, found))


@settings(max_examples=100, deadline=None)
@given(st.data(), schemes)
def test_any_tags_are_read_as_conlleval_reads_them(data, scheme):
    found = data.draw(st.lists(st.sampled_from(every(scheme)), max_size=11))
    as_conlleval = [tag.replace("L-", "E-").replace("U-", "S-") for tag in found]
    assert read(found) == read(found, scheme) == [Span(*chunk) for chunk in conlleval.chunks(as_conlleval)]


@settings(max_examples=100, deadline=None)
@given(st.data(), schemes)
def test_repaired_tags_keep_to_the_scheme_and_have_the_same_spans(data, scheme):
    found = data.draw(st.lists(st.sampled_from(every(scheme)), max_size=11))
    repaired, count = repair(found, scheme)
    assert spans(repaired, scheme) == read(found)
    assert count == sum(one != other for one, other in zip(found, repaired, strict=True))


@pytest.mark.parametrize(
    "scheme, found, right",
    [
        ("bio", "O I-x I-x", "O B-x I-x"),
        ("bio", "B-x I-y I-x", "B-x B-y B-x"),
        ("iob1", "B-x I-x O B-y", "I-x I-x O I-y"),
        ("iob1", "I-x B-x I-x", "I-x B-x I-x"),
        ("bioes", "B-x O I-x E-x S-x I-x", "S-x O B-x E-x S-x S-x"),
        ("bioul", "L-x U-y I-y", "U-x U-y U-y"),
    ],
)
def test_repairs(scheme, found, right):
    repaired = repair(found.split(), scheme)
    assert repaired.tags == right.split()
    assert repaired.repairs == sum(map(str.__ne__, found.split(), right.split()))


# ---- constraints -------------------------------------------------------------------------------------------


def test_constraints_of_bio_by_hand():
    labels = ["O", "B-x", "I-x", "B-y", "I-y"]
    assert constraints(labels, "bio") == Constraints(
        [True, True, False, True, False],
        [
            [True, True, False, True, False],
            [True, True, True, True, False],
            [True, True, True, True, False],
            [True, True, False, True, True],
            [True, True, False, True, True],
        ],
        [True] * 5,
    )


def test_constraints_of_bioes_by_hand():
    labels = ["O", "B-x", "I-x", "E-x", "S-x", "B-y", "I-y", "E-y", "S-y"]
    start, transition, end = constraints(labels, "bioes")
    opens, closed = {"O", "B-x", "S-x", "B-y", "S-y"}, {"O", "E-x", "S-x", "E-y", "S-y"}
    assert {label for label, may in zip(labels, start, strict=True) if may} == opens
    assert {label for label, may in zip(labels, end, strict=True) if may} == closed
    for one, row in zip(labels, transition, strict=True):
        expected = opens if one in closed else {f"I-{one[2:]}", f"E-{one[2:]}"}
        assert {label for label, may in zip(labels, row, strict=True) if may} == expected


@pytest.mark.parametrize("scheme", SCHEMES)
def test_constraints_allow_exactly_what_keeps_to_the_scheme(scheme):
    labels = every(scheme)
    start, transition, end = constraints(labels, scheme)
    for length in (1, 2, 3, 4):
        for ids in itertools.product(range(len(labels)), repeat=length):
            may = start[ids[0]] and end[ids[-1]] and all(transition[i][j] for i, j in itertools.pairwise(ids))
            assert may == (repair([labels[i] for i in ids], scheme).repairs == 0)


def test_constraints_of_labels_that_are_not_all_there():
    start, transition, end = constraints(["I-x", "O", "B-y"], "bio")
    assert start == [False, True, True] and end == [True] * 3
    assert transition == [[True, True, True], [False, True, True], [False, True, True]]


def test_labels_with_which_a_span_is_a_span():
    labels = ["O", "B-x", "I-x", "B-y", "I-y"]
    assert allowed(Span("x", 1, 3), 5, labels, "bio") == [
        [True] * 5,
        [False, True, False, False, False],
        [False, False, True, False, False],
        [True, True, False, True, True],
        [True] * 5,
    ]
    assert allowed(Span("z", 0, 1), 1, labels, "bio") == [[False] * 5]
    assert all(allowed(Span("x", 0, 1), 2, ["O", "S-x", "B-x", "I-x", "E-x"], "bioes")[1])


# ---- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: spans(["O", "I-x"], "bio"),
            "tag 2 of 2 is 'I-x' (after 'O', at the end): bio expects 'B-x'; repair",
        ),
        (
            lambda: spans(["B-x", "O"], "bioes"),
            "tag 1 of 2 is 'B-x' (at the start, before 'O'): bioes expects 'S-x'",
        ),
        (
            lambda: spans(["B-x"], "iob1"),
            "tag 1 of 1 is 'B-x' (at the start, at the end): iob1 expects 'I-x'",
        ),
        (lambda: convert(["I-x"], "bio", "bioes"), "bio expects 'B-x'"),
        (lambda: spans(["O", "E-x"], "bio"), "tag 2 of 2 is 'E-x': expected one of O, B-TYPE, I-TYPE"),
        (
            lambda: repair(["S-x"], "bioul"),
            "tag 1 of 1 is 'S-x': expected one of O, B-TYPE, I-TYPE, L-TYPE, U-TYPE",
        ),
        (lambda: read(["PER"]), "tag 1 of 1 is 'PER': expected one of O, B-TYPE, E-TYPE"),
        (lambda: read(["B"]), "tag 1 of 1 is 'B'"),
        (lambda: read(["B-"]), "tag 1 of 1 is 'B-'"),
        (lambda: read(["-x"]), "tag 1 of 1 is '-x'"),
        (lambda: read(["O-x"]), "tag 1 of 1 is 'O-x'"),
        (lambda: read(["b-x"]), "tag 1 of 1 is 'b-x'"),
        (lambda: read([""]), "tag 1 of 1 is ''"),
        (lambda: spans(["O"], "iob3"), "unknown scheme 'iob3': expected one of iob1, bio, bioes, bioul"),
        (
            lambda: tags([Span("x", 0, 2), Span("y", 1, 3)], 3, "bio"),
            "do not overlap, within 3 words, got 'x' 0:2, 'y'",
        ),
        (lambda: tags([Span("x", 1, 1)], 3, "bio"), "expected spans of one word or more, with a type"),
        (lambda: tags([Span("x", 1, 4)], 3, "bio"), "within 3 words, got 'x' 1:4"),
        (
            lambda: tags([Span("", 1, 2)], 3, "bio"),
            "with a type, that do not overlap, within 3 words, got '' 1:2",
        ),
        (lambda: constraints(["O", "B-x", "O"], "bio"), "expected each label once, got O, B-x, O"),
        (lambda: constraints(["O", "S-x"], "bio"), "tag 2 of 2 is 'S-x': expected one of O, B-TYPE, I-TYPE"),
        (
            lambda: allowed(Span("x", 0, 1), 1, ["I-x"], "iob1"),
            "a span in iob1 depend on the span before it; convert",
        ),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(TagError, match=re.escape(message)):
        call()


def test_an_error_tells_why_no_scheme_fits():
    mixed = [["O"], ["B-x", "I-x"], ["O", "I-x"], ["O", "I-x", "B-y"]]
    with pytest.raises(TagError) as error:
        guess_scheme(mixed)
    first, *lines = str(error.value).split("\n  ")
    assert first == "no scheme fits all tags: name the nearest, and tags that break it are repaired"
    expected = {"bio": (2, 3), "iob1": (2, 2), "bioes": (3, 2), "bioul": (3, 2)}
    assert len(lines) == 4
    for line, (scheme, (count, number)) in zip(lines, expected.items(), strict=True):
        assert line.startswith(f"{scheme}: {count} of 4 sentences break it, first sentence {number}: tag ")
    assert lines[0].endswith("tag 2 of 2 is 'I-x' (after 'O', at the end): bio expects 'B-x'")
    with pytest.raises(TagError, match=r"first f\.conll:9: tag 2 of 2 is 'I-x'"):
        guess_scheme(mixed, ["f.conll:1", "f.conll:5", "f.conll:9", "f.conll:12"])


@pytest.mark.parametrize("tag", ["b-x", "EU", "B", "B-", "-x", "O-x", "", "X-x", "BI-x", "-"])
def test_what_is_a_tag_of_no_scheme(tag):
    assert not is_tag(tag)
    with pytest.raises(TagError):
        read([tag])
    assert all(map(is_tag, [*SENTENCE["bio"].split(), *SENTENCE["bioes"].split(), "U-x", "L-x-", "I--"]))
