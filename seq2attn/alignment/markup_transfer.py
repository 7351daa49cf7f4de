"""The second half of `markup`: tags of a segment put into its translation, by alignment."""

import html
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from seq2attn.alignment.markup import ID, Kind, Marker, Segment, Stack
from seq2attn.alignment.word_alignment import Link


class Part(NamedTuple):
    """A word, or the signs before or after it, in a text."""

    start: int
    end: int
    word: int  # the index of the word that it belongs to
    kind: int  # 0: signs before the word, 1: the word, 2: signs after it


def parts(text: str, words: Sequence[str]) -> list[Part]:
    """Return the parts of the words of a text, in order. Words that are not in it have none."""
    found, position = list[Part](), 0
    for index, word in enumerate(words):
        start = text.find(word, position)
        if start < 0 or not word:
            continue
        position = start + len(word)
        inner = [at for at, character in enumerate(word) if character.isalnum() or character == "_"]
        edges = (0, inner[0], inner[-1] + 1, len(word)) if inner else (0, 0, len(word), len(word))
        for kind, (begin, end) in enumerate(pairwise(edges)):
            if begin < end:
                found.append(Part(start + begin, start + end, index, kind))
    return found


def transfer(
    segment: Segment, text: str, words: tuple[Sequence[str], Sequence[str]], links: Iterable[Link], kind: Kind
) -> str:
    """Return the translation `text` of a segment with its markup; see `transfer_parts`.

    words: of the source and of the translation, which the links are between.
    """
    return transfer_parts(segment, text, (parts(segment.text, words[0]), parts(text, words[1])), links, kind)


def transfer_parts(
    segment: Segment,
    text: str,
    found: tuple[Sequence[Part], Sequence[Part]],
    links: Iterable[Link],
    kind: Kind,
) -> str:
    """Return the translation `text` of a segment with its markup.

    Each word of the translation gets the elements around the source word that it is linked to, and one
    without a link those of the word on its left, else on its right; signs at the edges of a word likewise get
    those of the signs at the edges of the source word. Markers stand before the word that is linked to the
    word after them. An element that gets no word is empty. An `id` is kept at the first of several parts of
    an element.

    found: the parts of the source and of the translation, between whose words the links are.
    """
    source, target = found
    linked = {link.target: link.source for link in links}
    stacks = _stacks(segment, source, target, linked)
    living = {element for stack in {*stacks} for element in stack}
    markers = [replace(marker, stack=_prefix(marker.stack, living)) for marker in segment.markers]
    lost = {*range(len(segment.elements))} - living
    for offset, stack in enumerate(segment.stacks):
        if not lost:
            break
        for depth, element in enumerate(stack):
            if element in lost:
                lost.remove(element)
                opening, closing = segment.elements[element]
                markers.append(Marker(opening + closing, offset, _prefix(stack[:depth], living), " ", " "))
    places, placed = _Places(source, target, linked), [list[Marker]() for _ in (*target, None)]
    for marker in sorted(markers, key=lambda marker: marker.offset):
        placed[places.of(marker)].append(marker)
    writer = _Writer(segment, text, kind)
    for index, (part, stack) in enumerate(zip(target, stacks, strict=True)):
        writer.write(part.start, part.end, stack, placed[index])
    writer.write(len(text), len(text), (), placed[len(target)])
    return "".join(writer.out)


def _stacks(
    segment: Segment, source: Sequence[Part], target: Sequence[Part], linked: dict[int, int]
) -> list[Stack]:
    """Return the elements around each part of the translation."""
    of_source = {(part.word, part.kind): segment.stacks[part.start] for part in source}
    own = [
        None
        if (word := linked.get(part.word)) is None
        else of_source.get((word, part.kind), of_source.get((word, 1)))
        for part in target
    ]
    following: Stack = next((stack for stack in own if stack is not None), ())
    stacks: list[Stack] = []
    for stack in own:
        following = following if stack is None else stack
        stacks.append(following)
    return stacks


def _prefix(stack: Stack, living: set[int]) -> Stack:
    """Return the elements of a stack up to the first that gets no word."""
    lost = next((depth for depth, element in enumerate(stack) if element not in living), len(stack))
    return stack[:lost]


class _Places:
    """Finds where the markers of a source stand in its translation."""

    def __init__(self, source: Sequence[Part], target: Sequence[Part], linked: dict[int, int]) -> None:
        self.source, self.end = source, len(target)
        of_words = dict[int, tuple[int, int]]()  # the first part of a word, and the first one after it
        for index, part in enumerate(target):
            of_words[part.word] = of_words.get(part.word, (index, 0))[0], index + 1
        # By source word: where the first word that is linked to it begins, and where the last one ends.
        self.spans = dict[int, tuple[int, int]]()
        for word, (begin, end) in of_words.items():
            if (linked_to := linked.get(word)) is not None:
                self.spans[linked_to] = self.spans.get(linked_to, (begin, 0))[0], end
        self.ends = [part.end for part in source]
        # Of each part of the source: where the last linked word up to it ends; 0: there is none.
        self.before, after = list[int](), 0
        for part in source:
            after = self.spans.get(part.word, (0, after))[1]
            self.before.append(after)

    def of(self, marker: Marker) -> int:
        """Return the index of the part of the translation before which a marker stands."""
        following = bisect_right(self.ends, marker.offset)
        if following < len(self.source) and self.source[following].word in self.spans:
            return self.spans[self.source[following].word][0]
        if following and self.before[following - 1]:
            return self.before[following - 1]
        return self.end if following == len(self.source) else 0


def _common(first: Stack, second: Stack) -> int:
    """Return how many elements two stacks share."""
    depth = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        depth += 1
    return depth


class _Writer:
    """Writes a translation with its tags, part by part."""

    def __init__(self, segment: Segment, text: str, kind: Kind) -> None:
        self.segment, self.text, self.kind = segment, text, kind
        self.out: list[str] = []
        self.stack: Stack = ()
        self.position, self.opened = 0, set[int]()

    def write(self, start: int, end: int, stack: Stack, markers: list[Marker]) -> None:
        """Write the markers before a part of the text, and the part, within the elements of its stack."""
        gap = self.text[self.position : start]
        if markers:
            self._write_markers(stack, markers, gap, self.text[start:end][:1])
        else:
            self._move(stack, gap)
        self.out.append(self._escaped(self.text[start:end]))
        self.position = end

    def _write_markers(self, stack: Stack, markers: list[Marker], gap: str, following: str) -> None:
        before, base = self.stack, _common(self.stack, stack)
        ending, starting = list[tuple[Stack, Marker]](), list[tuple[Stack, Marker]]()
        for marker in markers:
            left, right = _common(marker.stack, before), _common(marker.stack, stack)
            if left > max(right, base):
                ending.append((before[:left], marker))
            else:
                starting.append((stack[: max(right, base)], marker))
        ending.sort(key=lambda item: -len(item[0]))
        starting.sort(key=lambda item: len(item[0]))
        previous = self.text[max(0, self.position - 1) : self.position]
        space = bool(self.out) and _spaced(markers[0].before, previous, gap)
        for place, marker in (*ending, *starting):
            self._move(place, " " * (space or (bool(self.out) and marker.before == " ")))
            self.out.append(marker.content)
            space = marker.after == " "
        self._move(stack, " " * (bool(following) and _spaced(markers[-1].after, following, gap)))

    def _move(self, stack: Stack, between: str) -> None:
        """Close and open elements to those of a stack; what stands between words is between the two."""
        common = _common(self.stack, stack)
        for element in reversed(self.stack[common:]):
            self.out.append(self.segment.elements[element][1])
        self.out.append(self._escaped(between))
        for element in stack[common:]:
            opening = self.segment.elements[element][0]
            self.out.append(ID.sub("", opening) if element in self.opened else opening)
            self.opened.add(element)
        self.stack = stack

    def _escaped(self, text: str) -> str:
        return text if self.kind == "placeholders" else html.escape(text, quote=False)


def _spaced(own: str, neighbour: str, gap: str) -> bool:
    """Whether a space is between a marker and a character of the translation: as in the source, unless a
    marker that was beside a sign is now beside a word."""
    if own == " ":
        return True
    return bool(gap) and neighbour.isalnum() and not own.isalnum()
