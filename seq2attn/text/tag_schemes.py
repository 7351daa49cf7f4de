"""Tags <-> spans: named entities and chunks, written as one tag for each word.

A tag is `O`, outside of all spans, or a letter and a type, `B-PER`. What the letters say, a scheme (SCHEMES)
says. There is one reading, that of conlleval (Tjong Kim Sang & Buchholz 2000), which makes spans of any tags
whatsoever, and one writing for each scheme. Tags keep to a scheme if writing what was read gives them back:
`spans` insists on that, `repair` makes it so and says how often, and the `constraints` of a CRF are the
pairs of tags that writing makes.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from seq2attn.errors import Seq2attnError

Scheme = Literal["iob1", "bio", "bioes", "bioul"]
OUTSIDE = "O"


class TagError(Seq2attnError):
    """Tags that are none, or do not keep to their scheme; spans that cannot be written as tags."""


class Letters(NamedTuple):
    """The letters of the words of a span."""

    first: str
    inside: str
    last: str
    only: str  # of a span of one word
    next: str | None = None  # first word, in place of the others, where a span of the same type ends before


SCHEMES: dict[Scheme, Letters] = {
    "iob1": Letters("I", "I", "I", "I", next="B"),  # Ramshaw & Marcus 1995; CoNLL-2003 as it was published
    "bio": Letters("B", "I", "I", "B"),  # also IOB2
    "bioes": Letters("B", "I", "E", "S"),  # also IOBES
    "bioul": Letters("B", "I", "L", "U"),  # also BILOU
}
_EVERY = frozenset("BIELSU")
_GOES_ON, _CONTINUES = frozenset("BI"), frozenset("IEL")  # letters after, and of, which a span may go on


class Span(NamedTuple):
    """Words start, start + 1, ..., end - 1, counted from 0, of one type."""

    type: str
    start: int
    end: int


class Repaired(NamedTuple):
    """Tags that keep to their scheme, and how many of them had to be changed for that."""

    tags: list[str]
    repairs: int


class Constraints(NamedTuple):
    """Which of K labels may come first, follow each other, and come last; True = may."""

    start: list[bool]  # (K,)
    transition: list[list[bool]]  # (K, K), from the label of the row to that of the column
    end: list[bool]  # (K,)


def spans(tags: Sequence[str], scheme: Scheme) -> list[Span]:
    """The spans of tags that keep to the scheme. Raises TagError at the first tag that does not."""
    found = read(tags, scheme)
    if fault := _fault(tags, scheme):
        raise TagError(f"{fault}; repair the tags, or name another scheme (guess_scheme)")
    return found


def tags(spans: Sequence[Span], length: int, scheme: Scheme) -> list[str]:
    """The tags of `length` words with these spans, in any order. Raises TagError if they overlap, are empty
    or not within the words, or have no type.
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
    """The tags of one scheme in another. Raises TagError if they do not keep to the first: `repair` them."""
    return _write(spans(tags, source), len(tags), target)


def repair(tags: Sequence[str], scheme: Scheme) -> Repaired:
    """The tags of the scheme that have the spans which conlleval reads; tags that keep to it stay as they
    are. Raises TagError only at what is no tag of the scheme.
    """
    written = _write(read(tags, scheme), len(tags), scheme)
    return Repaired(written, sum(tag != right for tag, right in zip(tags, written, strict=True)))


def read(tags: Sequence[str], scheme: Scheme | None = None) -> list[Span]:
    """The spans that conlleval reads in any tags, with the letters of the scheme (None: of all of them).

    A word continues the span of the word before it if both have one type, its letter is I, E or L, and that
    before it B or I; any other but `O` starts a span. Raises TagError at what is no tag of the scheme.
    """
    letters = frozenset("".join(filter(None, _letters(scheme)))) if scheme else _EVERY
    found: list[Span] = []
    before, kind = OUTSIDE, ""
    for place, tag in enumerate(tags):
        letter, _, type = tag.partition("-")  # types may have hyphens of their own
        if tag != OUTSIDE and not (letter in letters and type):
            known = ", ".join([OUTSIDE, *(f"{letter}-TYPE" for letter in sorted(letters))])
            raise TagError(f"tag {place + 1} of {len(tags)} is {tag!r}: expected one of {known}")
        if letter in _CONTINUES and before in _GOES_ON and type == kind:
            found[-1] = found[-1]._replace(end=place + 1)
        elif tag != OUTSIDE:
            found.append(Span(type, place, place + 1))
        before, kind = letter, type
    return found


def is_tag(tag: str) -> bool:
    """Whether it is a tag of any scheme: O, or one of its letters and a type."""
    letter, _, type = tag.partition("-")
    return tag == OUTSIDE or (letter in _EVERY and bool(type))


def guess_scheme(sentences: Sequence[Sequence[str]], places: Sequence[str] = ()) -> Scheme:
    """The scheme that all these tags keep to. Without any span all fit, and it is bio.

    places: what errors call the sentences, `sentence 1` and so on if not given. Raises TagError if no scheme
    fits, with how many sentences do not keep to each, and why the first.
    """
    why = []
    for scheme in sorted(SCHEMES, key=lambda scheme: scheme != "bio"):
        faults = [(n, fault) for n, tags in enumerate(sentences) if (fault := _fault(tags, scheme))]
        if not faults:
            return scheme
        number, first = faults[0]
        place = places[number] if places else f"sentence {number + 1}"
        why.append(f"{scheme}: {len(faults)} of {len(sentences)} sentences break it, first {place}: {first}")
    raise TagError(
        "\n  ".join(["no scheme fits all tags: name the nearest, and tags that break it are repaired", *why])
    )


def constraints(labels: Sequence[str], scheme: Scheme) -> Constraints:
    """What the scheme allows: a label may follow another if it does in the tags of some sentence.

    Raises TagError if a label is there twice or is no tag of the scheme.
    """
    read(labels, scheme)
    if len(set(labels)) < len(labels):
        raise TagError(f"expected each label once, got {', '.join(labels)}")
    types = sorted({label.partition("-")[2] for label in labels if label != OUTSIDE})
    sentences = list(_neighbours(types, scheme))
    firsts, lasts = ({sentence[place] for sentence in sentences} for place in (0, -1))
    pairs = {pair for sentence in sentences for pair in itertools.pairwise(sentence)}
    return Constraints(
        [label in firsts for label in labels],
        [[(one, other) in pairs for other in labels] for one in labels],
        [label in lasts for label in labels],
    )


def allowed(span: Span, length: int, labels: Sequence[str], scheme: Scheme) -> list[list[bool]]:
    """The labels (length, K) with which the span is a span: all, but in its `window`."""
    seen = window(span, length, labels, scheme)
    before, behind = span.start, length - span.start - len(seen)
    return [
        *([True] * len(labels) for _ in range(before)),
        *seen,
        *([True] * len(labels) for _ in range(behind)),
    ]


def window(span: Span, length: int, labels: Sequence[str], scheme: Scheme) -> list[list[bool]]:
    """The labels (n, K) with which the span is a span: its own tags within it, and at the word behind it, if
    there is one, none that continues it. For its probability under a CRF (`CRF.within`).

    Raises TagError for iob1, where a span's tags depend on the type of the span before it.
    """
    if _letters(scheme).next is not None:
        raise TagError(f"the tags of a span in {scheme} depend on what is before it; convert to bio or bioes")
    size = span.end - span.start
    own = tags([Span(span.type, 0, size)], size, scheme)
    behind = [read([*own, label])[0].end == size for label in labels]
    return [*([label == tag for label in labels] for tag in own), *([behind] if span.end < length else [])]


def _fault(tags: Sequence[str], scheme: Scheme) -> str | None:
    """The first tag that breaks the scheme, what is around it, and what conlleval takes it for."""
    try:
        repaired = repair(tags, scheme).tags
    except TagError as error:
        return str(error)
    place = next((n for n, (tag, right) in enumerate(zip(tags, repaired, strict=True)) if tag != right), None)
    if place is None:
        return None
    before = f"after {tags[place - 1]!r}" if place else "at the start"
    after = f"before {tags[place + 1]!r}" if place + 1 < len(tags) else "at the end"
    what = f"tag {place + 1} of {len(tags)} is {tags[place]!r} ({before}, {after})"
    return f"{what}: {scheme} expects {repaired[place]!r}"


def _letters(scheme: Scheme) -> Letters:
    if scheme not in SCHEMES:
        raise TagError(f"unknown scheme {scheme!r}: expected one of {', '.join(SCHEMES)}")
    return SCHEMES[scheme]


def _write(spans: Sequence[Span], length: int, scheme: Scheme) -> list[str]:
    """The tags of spans that are in order and do not overlap."""
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
    """The tags of sentences that have, together, all that can stand at an end or side by side: within a span
    of up to four words, and in a row of spans of which two have the same type.
    """
    yield [OUTSIDE, OUTSIDE]
    rows = [[Span(one, 0, words)] for one in types for words in (1, 2, 3, 4)]
    for one, other, n, m in itertools.product(types, types, (1, 2), (1, 2)):
        rows.append([Span(one, 0, n), Span(one, n, 2 * n), Span(other, 2 * n, 2 * n + m)])
    for row in rows:
        written = _write(row, row[-1].end, scheme)
        yield from (written, [OUTSIDE, *written, OUTSIDE])
