"""Markup of a text (HTML, XML, placeholders) taken out, and put into its translation where the words went.

A translation model reads plain text. So tags are taken out first, and then each word of the translation gets
the elements around the source word that it is aligned to (Zenkel et al. 2020).
"""

import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Literal, NamedTuple, get_args

from seq2attn.alignment.word_alignment import AlignmentError

Kind = Literal["html", "xml", "placeholders"]
Stack = tuple[int, ...]  # the elements around a character, the outermost first, by their numbers

MAX_DEPTH = 100  # elements around a character, within a segment

# No pattern reads anything twice for each place where it may begin: texts of strangers have no other limit.
_TAG = re.compile(r"</?[A-Za-z_](?:\"[^\"]*\"|'[^']*'|[^\"'<>])*>")
_START = re.compile(r"<(?=[!?/A-Za-z_])")
_KEPT = (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<!", ">"), ("<?", ">"))  # beginnings and ends; no elements
_CLOSING = re.compile(r"</[A-Za-z_][^<>]*>")
_PLACEHOLDER = re.compile(
    r"\$?\{\{[^{}]*\}\}|\$?\{[^{}]*\}|%\([^()]*\)[a-z]"
    r"|%(?:\d+\$)?[-+0#]*(?:[1-9]\d*)?(?:\.\d+)?[a-zA-Z@](?![a-zA-Z])|⟦[^⟦⟧]*⟧"
)
_NAME = re.compile(r"</?([^\s/>]+)")
ID = re.compile(r"(?<!\s)\s+id\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s>]+)", re.IGNORECASE)
_UNTRANSLATED = re.compile(r"\stranslate\s*=\s*[\"']?no\b", re.IGNORECASE)
_VOID = {"area", "base", "br", "col", "embed", "img", "input", "link", "meta", "source", "track", "wbr"}
_OPAQUE = {"code", "kbd", "samp", "var", "script", "style", "pre", "textarea", "svg", "math"}
_BLOCK = {
    *("address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "dialog", "div", "dl"),
    *("dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head"),
    *("header", "hr", "html", "legend", "li", "main", "nav", "ol", "option", "p", "pre", "script", "section"),
    *(
        "select",
        "style",
        "summary",
        "table",
        "tbody",
        "td",
        "textarea",
        "tfoot",
        "th",
        "thead",
        "title",
        "tr",
    ),
    "ul",
}


class Token(NamedTuple):
    """A part of a marked text."""

    kind: Literal["text", "open", "close", "marker", "block"]
    content: str  # as it is written


@dataclass
class Marker:
    """What stands between words and is kept as it is: an empty element, a comment, a placeholder."""

    content: str
    offset: int  # of the plain text, where it stands
    stack: Stack
    before: str = ""  # the character before it: " ", that of a word or a sign, or "" at the edge
    after: str = ""


@dataclass
class Segment:
    """A plain text to be translated, and the markup in it."""

    text: str = ""
    stacks: list[Stack] = field(default_factory=list)  # of each character
    elements: list[tuple[str, str]] = field(default_factory=list)  # their tags
    markers: list[Marker] = field(default_factory=list)


def parse(text: str, kind: Kind) -> list[str | Segment]:
    """Return a marked text as segments to be translated, and what stands between them as it is.

    html: block elements separate segments; `<code>`, `<pre>` and the like and `translate="no"` are kept as
    they are. xml: all elements are within a segment. placeholders: `{name}`, `%s`, `${x}`, `⟦1⟧`. A tag
    without its counterpart in the segment is kept as a marker.
    """
    if kind not in get_args(Kind):
        raise AlignmentError(f"expected the markup html, xml or placeholders, got {kind!r:.60}")
    parts: list[str | Segment] = []
    tokens: list[Token] = []
    for token in [*_tokens(text, kind), Token("block", "")]:
        if token.kind != "block":
            tokens.append(token)
            continue
        parts += _segmented(_matched(tokens), kind)
        parts.append(token.content)
        tokens = []
    return [part for part in parts if part]


def _tokens(text: str, kind: Kind) -> Iterator[Token]:
    """Yield the tokens of a text. An element that is not translated is one token."""
    tags, position = _Tags(text), 0
    while span := _placeholder(text, position) if kind == "placeholders" else tags.next(position):
        start, end = span
        if start > position:
            yield Token("text", text[position:start])
        tag, position = text[start:end], end
        name = _NAME.match(tag)
        named = name[1].lower() if name and kind == "html" else ""
        if kind == "placeholders" or name is None:
            yield Token("block" if tag.lower().startswith(("<!doc", "<?xml")) else "marker", tag)
        elif tag.startswith("</"):
            yield Token("block" if named in _BLOCK else "close", tag)
        elif tag.endswith("/>") or named in _VOID:
            yield Token("marker", tag)
        elif named in _OPAQUE or _UNTRANSLATED.search(tag):
            position = tags.ends.get(start, end)
            yield Token("block" if named in _BLOCK else "marker", text[start:position])
        else:
            yield Token("block" if named in _BLOCK else "open", tag)
    if text[position:]:
        yield Token("text", text[position:])


def _placeholder(text: str, position: int) -> tuple[int, int] | None:
    """Return where the next placeholder begins and ends."""
    match = _PLACEHOLDER.search(text, position)
    return match and match.span()


class _Tags:
    """The tags of a text, in a time that grows with its length."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._missing: set[str] = set()  # ends of comments and the like that do not come any more

    def next(self, position: int) -> tuple[int, int] | None:
        """Return where the next tag, comment or declaration begins and ends; None if there is no more."""
        while found := _START.search(self.text, position):
            start = found.start()
            if end := self._end_of_kept(start):
                return start, end
            if match := _TAG.match(self.text, start):
                return match.span()
            position = start + 1
        return None

    def _end_of_kept(self, start: int) -> int:
        """Return where a comment or a declaration that begins here ends; 0 if it does not."""
        for beginning, end in _KEPT:
            if end in self._missing or not self.text.startswith(beginning, start):
                continue
            found = self.text.find(end, start + len(beginning))
            if found >= 0:
                return found + len(end)
            self._missing.add(end)
        return 0

    @cached_property
    def ends(self) -> dict[int, int]:
        """Where elements end, by the places where they begin; those that end nowhere are missing."""
        opened, ends = dict[str, list[int]](), dict[int, int]()
        for place in _START.finditer(self.text):
            start = place.start()
            closing = self.text.startswith("</", start)
            if (match := (_CLOSING if closing else _TAG).match(self.text, start)) is None:
                continue
            of_name = opened.setdefault(_element(match[0]).lower(), [])
            if not closing and not match[0].endswith("/>"):
                of_name.append(start)
            elif closing and of_name:
                ends[of_name.pop()] = match.end()
        return ends


def _matched(tokens: list[Token]) -> list[Token]:
    """Turn tags without their counterpart, and elements without text, into markers."""
    partners = _partners(tokens)
    filled = [0, *accumulate(_is_text(token) for token in tokens)]  # texts before each token
    matched, index, ends = list[Token](), 0, {*partners.values()}
    while index < len(tokens):
        token, end = tokens[index], partners.get(index)
        if end is not None and filled[end] == filled[index]:
            matched.append(Token("marker", "".join(part.content for part in tokens[index : end + 1])))
            index = end
        elif token.kind in ("open", "close") and end is None and index not in ends:
            matched.append(Token("marker", token.content))
        else:
            matched.append(token)
        index += 1
    return matched


def _partners(tokens: list[Token]) -> dict[int, int]:
    """Return the end tag of each start tag that has one, by their indices."""
    opened, open_names, partners = list[int](), Counter[str](), dict[int, int]()
    for index, token in enumerate(tokens):
        if token.kind == "open":
            opened.append(index)
            open_names[_element(token.content)] += 1
        elif token.kind == "close":
            name = _element(token.content)
            while open_names[name]:
                start = opened.pop()
                opening = _element(tokens[start].content)
                open_names[opening] -= 1
                if opening == name:
                    partners[start] = index
                    break
    return partners


def _is_text(token: Token) -> bool:
    return token.kind == "text" and bool(token.content.strip())


def _element(tag: str) -> str:
    """Return the name of the element of a tag."""
    name = _NAME.match(tag)
    return "" if name is None else name[1]


def _segmented(tokens: list[Token], kind: Kind) -> list[str | Segment]:
    """Return a segment, and the white space and markers around it as they are."""
    if not any(map(_is_text, tokens)):
        return ["".join(token.content for token in tokens)]
    first = next(index for index, token in enumerate(tokens) if not _is_edge(token))
    last = next(index for index in reversed(range(len(tokens))) if not _is_edge(tokens[index]))
    before, after = (
        "".join(token.content for token in part) for part in (tokens[:first], tokens[last + 1 :])
    )
    inner = tokens[first : last + 1]
    if inner[0].kind == "text":
        bare = inner[0].content.lstrip()
        before += inner[0].content[: len(inner[0].content) - len(bare)]
        inner[0] = Token("text", bare)
    if inner[-1].kind == "text":
        bare = inner[-1].content.rstrip()
        after = inner[-1].content[len(bare) :] + after
        inner[-1] = Token("text", bare)
    return [before, _segment(inner, kind), after]


def _is_edge(token: Token) -> bool:
    return token.kind == "marker" or (token.kind == "text" and not _is_text(token))


def _segment(tokens: list[Token], kind: Kind) -> Segment:
    """Return the plain text of tokens, with single spaces, and the markup in it."""
    segment, letters, space, last = Segment(), list[str](), False, None
    around: list[Stack] = [()]  # the stack within each open element: letters share it
    for token in tokens:
        if token.kind == "open":
            around.append((*around[-1], len(segment.elements)))
            if len(around) > MAX_DEPTH + 1:
                raise AlignmentError(
                    f"expected at most {MAX_DEPTH} elements within each other, in a paragraph"
                )
            segment.elements.append((token.content, f"</{_element(token.content)}>"))
        elif token.kind == "close":
            around.pop()
        elif token.kind == "marker":
            before = " " if space else last.content[-1:] if last else letters[-1] if letters else ""
            last = Marker(token.content, len(letters), around[-1], before)
            segment.markers.append(last)
            space = False
        else:
            for letter in token.content if kind == "placeholders" else _unescaped(token.content):
                if last is not None and not last.after:
                    last.after = " " if letter.isspace() else letter
                if letter.isspace():
                    space = True
                    continue
                if letters and (space or last is not None):
                    letters.append(" ")
                    segment.stacks.append(around[-1])
                letters.append(letter)
                segment.stacks.append(around[-1])
                space, last = False, None
    segment.text = "".join(letters)
    return segment


def _unescaped(text: str) -> str:
    """Return a text with the characters that its entities stand for."""
    try:
        return html.unescape(text)
    except ValueError:  # a number of more digits than Python converts
        return text
