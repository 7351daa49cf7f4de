"""Tag schemes: tags of words <-> spans of words (named entities, chunks).

A tag is `O` (outside of all spans), or a letter and a type: `B-PER`. A scheme (SCHEMES) defines the letters.
Tags are read in one way, that of conlleval (Tjong Kim Sang & Buchholz 2000), which finds spans in any
sequence of tags; they are written in one way for each scheme. Tags are valid in a scheme if writing the spans
that were read gives the same tags: `spans` refuses other tags, `repair` corrects and counts them, and the
`constraints` of a CRF are the pairs of tags that can be written.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from seq2attn.errors import Seq2attnError

Scheme = Literal["iob1", "bio", "bioes", "bioul"]
OUTSIDE = "O"
MAJORITY = 0.95  # share of sentences that show a scheme; the others are taken for mistakes of annotators


class TagError(Seq2attnError):
    """Invalid tags, or spans that cannot be written as tags."""


class Letters(NamedTuple):
    """The letters of a scheme, by the position of a word in its span."""

    first: str
    inside: str
    last: str
    only: str  # the word of a span of one word
    next: str | None = None  # instead of them, the first word right after a span of the same type


SCHEMES: dict[Scheme, Letters] = {
    "iob1": Letters("I", "I", "I", "I", next="B"),  # Ramshaw & Marcus 1995; CoNLL-2003 as it was published
    "bio": Letters("B", "I", "I", "B"),  # also IOB2
    "bioes": Letters("B", "I", "E", "S"),  # also IOBES
    "bioul": Letters("B", "I", "L", "U"),  # also BILOU
}
_EVERY = frozenset("BIELSU")
_OPEN, _CONTINUES = frozenset("BI"), frozenset("IEL")  # letters that may be continued, and continue


class Span(NamedTuple):
    """A span of words of one type: words start, start + 1, ..., end - 1, counted from 0."""

    type: str
    start: int
    end: int


class Repaired(NamedTuple):
    """Valid tags, and the number of tags that were changed."""

    tags: list[str]
    repairs: int


class Constraints(NamedTuple):
    """Which of K labels may be first, follow each other, and be last; True = allowed."""

    start: list[bool]  # (K,)
    transition: list[list[bool]]  # (K, K), from the row's label to the column's
    end: list[bool]  # (K,)


def spans(tags: Sequence[str], scheme: Scheme) -> list[Span]:
    """Return the spans of tags. Raises TagError at the first tag that is not valid in the scheme."""
    result = read(tags, scheme)
    if fault := _fault(tags, scheme):
        raise TagError(f"{fault}; repair the tags, or name another scheme (guess_scheme)")
    return result


def tags(spans: Sequence[Span], length: int, scheme: Scheme) -> list[str]:
    """Return the tags of `length` words with these spans, given in any order.

    Raises TagError if spans overlap, are empty, are not within the words, or have no type.
    """
    ordered, free = sorted(spans, key=lambda span: span.start), 0
    for span in ordered:
        if not free <= span.start < span.end <= length or not span.type:
            raise TagError(
                f"expected spans of one word or more, with a type, that do not overlap, within {length} words"
                f", got {', '.join(f'{type!r} {start}:{end}' for type, start, end in ordered)}"
            )
        free = span.end
    return _write(ordered, length, scheme)


def convert(tags: Sequence[str], source: Scheme, target: Scheme) -> list[str]:
    """Convert tags from one scheme to another. Raises TagError if they are not valid: use `repair` first."""
    return _write(spans(tags, source), len(tags), target)


def repair(tags: Sequence[str], scheme: Scheme) -> Repaired:
    """Return valid tags with the spans that conlleval reads in these tags; valid tags do not change.

    Raises TagError only for a tag that the scheme does not have.
    """
    written = _write(read(tags, scheme), len(tags), scheme)
    return Repaired(written, sum(tag != right for tag, right in zip(tags, written, strict=True)))


def read(tags: Sequence[str], scheme: Scheme | None = None) -> list[Span]:
    """Return the spans that conlleval reads in any tags of the scheme (None: of all schemes).

    A word continues the span of the word before it if both have the same type, its letter is I, E or L, and
    the letter before it is B or I. Any other tag except `O` starts a span. Raises TagError for a tag that the
    scheme does not have.
    """
    letters = frozenset("".join(filter(None, _letters(scheme)))) if scheme else _EVERY
    spans: list[Span] = []
    before, kind = OUTSIDE, ""
    for index, tag in enumerate(tags):
        letter, _, type = tag.partition("-")  # types may have hyphens of their own
        if tag != OUTSIDE and not (letter in letters and type):
            known = ", ".join([OUTSIDE, *(f"{letter}-TYPE" for letter in sorted(letters))])
            raise TagError(f"tag {index + 1} of {len(tags)} is {tag!r}: expected one of {known}")
        if letter in _CONTINUES and before in _OPEN and type == kind:
            spans[-1] = spans[-1]._replace(end=index + 1)
        elif tag != OUTSIDE:
            spans.append(Span(type, index, index + 1))
        before, kind = letter, type
    return spans


def is_tag(tag: str) -> bool:
    """Whether this is a tag of any scheme: O, or a letter and a type."""
    letter, _, type = tag.partition("-")
    return tag == OUTSIDE or (letter in _EVERY and bool(type))


def guess_scheme(sentences: Sequence[Sequence[str]], names: Sequence[str] = ()) -> Scheme:
    """Return the scheme in which the most of these sentences are valid; bio if there are no spans at all.

    names: those of the sentences in errors; by default `sentence 1` and so on.
    Raises TagError if no scheme has a clear majority (MAJORITY of the sentences with spans), with the number
    of invalid sentences in each and the first fault.
    """
    schemes = sorted(SCHEMES, key=lambda scheme: scheme != "bio")
    faults = {
        scheme: [(n, fault) for n, tags in enumerate(sentences) if (fault := _fault(tags, scheme))]
        for scheme in schemes
    }
    best = min(schemes, key=lambda scheme: len(faults[scheme]))
    with_spans = sum(any(tag != OUTSIDE for tag in tags) for tags in sentences)
    if len(faults[best]) <= (1 - MAJORITY) * with_spans:
        return best
    why = []
    for scheme in schemes:
        number, first = faults[scheme][0]
        name = names[number] if names else f"sentence {number + 1}"
        count = f"{len(faults[scheme])} of {len(sentences)}"
        why.append(f"{scheme}: {count} sentences break it, first {name}: {first}")
    raise TagError(
        "\n  ".join(["no scheme fits all tags: name the nearest, and tags that break it are repaired", *why])
    )


def constraints(labels: Sequence[str], scheme: Scheme) -> Constraints:
    """Return which labels the scheme allows after which: those that follow each other in valid tags.

    Raises TagError if a label occurs twice or is not a tag of the scheme.
    """
    read(labels, scheme)
    if len(set(labels)) < len(labels):
        raise TagError(f"expected each label once, got {', '.join(labels)}")
    types = sorted({label.partition("-")[2] for label in labels if label != OUTSIDE})
    sentences = list(_neighbours(types, scheme))
    firsts, lasts = ({sentence[index] for sentence in sentences} for index in (0, -1))
    pairs = {pair for sentence in sentences for pair in itertools.pairwise(sentence)}
    return Constraints(
        [label in firsts for label in labels],
        [[(before, after) in pairs for after in labels] for before in labels],
        [label in lasts for label in labels],
    )


def allowed(span: Span, length: int, labels: Sequence[str], scheme: Scheme) -> list[list[bool]]:
    """Return the labels (length, K) with which this span is read: all labels outside of its `window`."""
    inner = window(span, length, labels, scheme)
    before, after = span.start, length - span.start - len(inner)
    return [
        *([True] * len(labels) for _ in range(before)),
        *inner,
        *([True] * len(labels) for _ in range(after)),
    ]


def window(span: Span, length: int, labels: Sequence[str], scheme: Scheme) -> list[list[bool]]:
    """Return the labels (n, K) that words may have if this span is to be read: its tags at its words, and at
    the word after it, if there is one, all labels that do not continue it. For its probability under a CRF
    (`CRF.within`).

    Raises TagError for iob1, where a span's tags depend on the type of the span before it.
    """
    if _letters(scheme).next is not None:
        raise TagError(
            f"the tags of a span in {scheme} depend on the span before it; convert to bio or bioes"
        )
    size = span.end - span.start
    own = tags([Span(span.type, 0, size)], size, scheme)
    after = [read([*own, label])[0].end == size for label in labels]
    return [*([label == tag for label in labels] for tag in own), *([after] if span.end < length else [])]


def _fault(tags: Sequence[str], scheme: Scheme) -> str | None:
    """Return a message about the first invalid tag, with its neighbours; None if all are valid."""
    try:
        repaired = repair(tags, scheme).tags
    except TagError as error:
        return str(error)
    pairs = enumerate(zip(tags, repaired, strict=True))
    index = next((index for index, (tag, right) in pairs if tag != right), None)
    if index is None:
        return None
    before = f"after {tags[index - 1]!r}" if index else "at the start"
    after = f"before {tags[index + 1]!r}" if index + 1 < len(tags) else "at the end"
    what = f"tag {index + 1} of {len(tags)} is {tags[index]!r} ({before}, {after})"
    return f"{what}: {scheme} expects {repaired[index]!r}"


def _letters(scheme: Scheme) -> Letters:
    if scheme not in SCHEMES:
        raise TagError(f"unknown scheme {scheme!r}: expected one of {', '.join(SCHEMES)}")
    return SCHEMES[scheme]


def _write(spans: Sequence[Span], length: int, scheme: Scheme) -> list[str]:
    """Return the tags of spans that are in order and do not overlap."""
    letters, written, before = _letters(scheme), [OUTSIDE] * length, Span("", 0, 0)
    for span in spans:
        inside = [letters.inside] * (span.end - span.start - 2)
        own = [letters.only] if span.end - span.start == 1 else [letters.first, *inside, letters.last]
        if letters.next is not None and (before.type, before.end) == (span.type, span.start):
            own[0] = letters.next
        written[span.start : span.end] = [f"{letter}-{span.type}" for letter in own]
        before = span
    return written


def _neighbours(types: Sequence[str], scheme: Scheme) -> Iterator[list[str]]:
    """Yield tags of sentences that together have all possible first, last and neighbouring tags: in spans of
    up to four words, and in rows of spans of which two have the same type.
    """
    yield [OUTSIDE, OUTSIDE]
    rows = [[Span(type, 0, words)] for type in types for words in (1, 2, 3, 4)]
    for type, other, n, m in itertools.product(types, types, (1, 2), (1, 2)):
        rows.append([Span(type, 0, n), Span(type, n, 2 * n), Span(other, 2 * n, 2 * n + m)])
    for row in rows:
        written = _write(row, row[-1].end, scheme)
        yield from (written, [OUTSIDE, *written, OUTSIDE])
