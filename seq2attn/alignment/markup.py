"""Markup of a text (HTML, XML, placeholders) taken out, and put into its translation where the words went.

A translation model reads plain text. So tags are taken out first, and then each word of the translation gets
the elements around the source word that it is aligned to (Zenkel et al. 2020).
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from seq2attn.alignment.word_alignment import AlignmentError

Kind = Literal["html", "xml", "placeholders"]
Stack = tuple[int, ...]  # the elements around a character, the outermost first, by their numbers

_TAG = re.compile(
    r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<[!?][^>]*>|</?[A-Za-z_](?:\"[^\"]*\"|'[^']*'|[^\"'<>])*>", re.DOTALL
)
_PLACEHOLDER = re.compile(
    r"\$?\{\{[^{}]*\}\}|\$?\{[^{}]*\}|%\([^)]*\)[a-z]|%(?:\d+\$)?[-+0#]*\d*(?:\.\d+)?[a-zA-Z@](?![a-zA-Z])|⟦[^⟧]*⟧"
)
_NAME = re.compile(r"</?([^\s/>]+)")
ID = re.compile(r"\s+id\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s>]+)", re.IGNORECASE)
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
    pattern, position = _PLACEHOLDER if kind == "placeholders" else _TAG, 0
    while match := pattern.search(text, position):
        if match.start() > position:
            yield Token("text", text[position : match.start()])
        tag, position = match[0], match.end()
        name = _NAME.match(tag)
        named = name[1].lower() if name and kind == "html" else ""
        if kind == "placeholders" or name is None:
            yield Token("block" if tag.lower().startswith(("<!doc", "<?xml")) else "marker", tag)
        elif tag.startswith("</"):
            yield Token("block" if named in _BLOCK else "close", tag)
        elif tag.endswith("/>") or named in _VOID:
            yield Token("marker", tag)
        elif named in _OPAQUE or _UNTRANSLATED.search(tag):
            position = _end(text, match.end(), name[1])
            yield Token("block" if named in _BLOCK else "marker", text[match.start() : position])
        else:
            yield Token("block" if named in _BLOCK else "open", tag)
    if text[position:]:
        yield Token("text", text[position:])


def _end(text: str, position: int, name: str) -> int:
    """Return where the element ends whose start tag ends at a position; the same place if it never does."""
    depth = 1
    for match in re.compile(rf"<(/?){re.escape(name)}\b[^<>]*>", re.IGNORECASE).finditer(text, position):
        if not match[0].endswith("/>"):
            depth += -1 if match[1] else 1
        if not depth:
            return match.end()
    return position


def _matched(tokens: list[Token]) -> list[Token]:
    """Turn tags without their counterpart, and elements without text, into markers."""
    opened, partners = list[int](), dict[int, int]()
    for index, token in enumerate(tokens):
        if token.kind == "open":
            opened.append(index)
        elif token.kind == "close":
            name = _named(token)
            while any(_named(tokens[start]) == name for start in opened):
                start = opened.pop()
                if _named(tokens[start]) == name:
                    partners[start] = index
                    break
    matched, index = list[Token](), 0
    ends = {*partners.values()}
    while index < len(tokens):
        token, end = tokens[index], partners.get(index)
        inside = tokens[index : index + 1] if end is None else tokens[index : end + 1]
        if end is not None and not any(t.kind == "text" and t.content.strip() for t in inside):
            matched.append(Token("marker", "".join(part.content for part in inside)))
            index = end
        elif token.kind in ("open", "close") and end is None and index not in ends:
            matched.append(Token("marker", token.content))
        else:
            matched.append(token)
        index += 1
    return matched


def _named(token: Token) -> str:
    name = _NAME.match(token.content)
    return "" if name is None else name[1]


def _segmented(tokens: list[Token], kind: Kind) -> list[str | Segment]:
    """Return a segment, and the white space and markers around it as they are."""
    texts = [index for index, token in enumerate(tokens) if token.kind == "text" and token.content.strip()]
    if not texts:
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
    return token.kind == "marker" or (token.kind == "text" and not token.content.strip())


def _segment(tokens: list[Token], kind: Kind) -> Segment:
    """Return the plain text of tokens, with single spaces, and the markup in it."""
    segment, letters, stack, space, last = Segment(), list[str](), list[int](), False, None
    for token in tokens:
        if token.kind == "open":
            stack.append(len(segment.elements))
            segment.elements.append((token.content, f"</{_named(token)}>"))
        elif token.kind == "close":
            stack.pop()
        elif token.kind == "marker":
            before = " " if space else last.content[-1:] if last else letters[-1] if letters else ""
            last = Marker(token.content, len(letters), tuple(stack), before)
            segment.markers.append(last)
            space = False
        else:
            content = token.content if kind == "placeholders" else html.unescape(token.content)
            for letter in content:
                if last is not None and not last.after:
                    last.after = " " if letter.isspace() else letter
                if letter.isspace():
                    space = True
                    continue
                if letters and (space or last is not None):
                    letters.append(" ")
                    segment.stacks.append(tuple(stack))
                letters.append(letter)
                segment.stacks.append(tuple(stack))
                space, last = False, None
    segment.text = "".join(letters)
    return segment
