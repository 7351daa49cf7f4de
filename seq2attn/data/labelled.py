"""Read labelled data: sentences whose words have tags, or that have a label.

A sentence becomes a pair. Its source is its words with single spaces between; its target is its tags (always
in bio) with spaces between, or its label.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from seq2attn.data.files import Pair, at, decoded, halved, lines, table
from seq2attn.data.files import names as column_names
from seq2attn.data.report import DataError, Report
from seq2attn.text.tag_schemes import TagError, convert, guess_scheme, is_tag, repair
from seq2attn.text.word_vocabulary import join_words, split_words, tokenize

GUESSING = 1000  # number of sentences from which the scheme is guessed
# Control characters, among them tabs, and all that `str.splitlines` takes for the end of a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CELL = re.compile(r"[^ \t]+")  # other spaces, such as U+00A0, are part of a word


def ends_sentence(line: bytes) -> bool:
    """Whether a line of a CoNLL file ends a sentence: a blank one, or one between the documents of
    CoNLL-2003."""
    return line.split(None, 1)[:1] in ([], [b"-DOCSTART-"])


class Layout:
    """Tells comments from words in a CoNLL file by the columns of its first lines.

    A comment begins with # before the first word of a sentence, and has another number of columns than most
    lines, or no tab where most have tabs.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        rows = [line for line in lines if not ends_sentence(line) and not line.startswith(b"#")]
        self._columns = Counter(len(line.split()) for line in rows).most_common(1)
        self._tabs = sum(b"\t" in line for line in rows) > len(rows) / 2

    def is_comment(self, line: bytes) -> bool:
        """Whether a line before the first word of a sentence is a comment."""
        usual = [len(line.split())] == [count for count, _ in self._columns]
        return line.startswith(b"#") and not (usual and (b"\t" in line or not self._tabs))


def columns(path: Path, chosen: tuple[int, int], report: Report) -> Iterator[Pair]:
    """Yield the sentences of a CoNLL file: one word per line, columns with spaces or tabs between, blank
    lines between sentences.

    A sentence also ends where a document begins, and comments before it are counted. A sentence with a line
    that cannot be read is left out as a whole. Columns can be counted from the last only if all lines have
    the same number of columns.
    """
    rows: list[tuple[str, str]] = []
    begin, expected, whole = 0, 0, True
    stream = lines(path)
    first = list(islice(stream, GUESSING))
    layout = Layout(first)
    for number, line in enumerate(chain(first, stream, [b""]), 1):
        if whole and not rows and layout.is_comment(line):
            report.note("comment", f"{path}:{number}")
        elif ends_sentence(line):
            if whole and rows:
                words, tags = zip(*rows, strict=True)
                yield Pair(join_words(words), join_words(tags), begin)
            rows, whole = [], True
        elif whole:
            begin = begin if rows else number
            where = f"{path}:{number}"
            text = decoded(line, where, report)
            cells = [] if text is None else _CELL.findall(text)
            fault = None if text is None else _count_fault(cells, chosen, expected)
            if fault is not None:
                report.bad("wrong number of columns", where, fault)
            if text is None or fault is not None:
                whole = False
                continue
            rows.append((cells[chosen[0]], cells[chosen[1]]))
            expected = expected or len(cells)


def _count_fault(cells: list[str], chosen: tuple[int, int], expected: int) -> str | None:
    """Return what is wrong with the number of columns; `expected` is that of the lines before, 0 at the
    first."""
    came = f"{len(cells)} column{'s' * (len(cells) != 1)} where"
    if len(cells) < max(2, *(column + 1 if column >= 0 else -column for column in chosen)):
        return f"{came} {list(chosen)} were expected"
    if min(chosen) < 0 and len(cells) != (expected or len(cells)):
        return (
            f"{came} {expected} were expected, as before (spaces and tabs separate columns; count columns "
            "from the first, as in [0, 1], if lines may have more)"
        )
    return None


def pick(
    row: Any,
    keys: tuple[str, str],
    number: int,
    where: str,
    report: Report,
    names: Sequence[str] | None = None,
    words: str = "auto",
    tags: bool = True,
) -> Pair | None:
    """Return the pair of a row: words (a list, or a text that is tokenized) and tags (a list), or a text and
    a label.

    names: the names of labels that are numbers, by number; None if labels are names themselves.
    words: how a text is tokenized.
    tags: whether words have tags; otherwise the row has one label, which may be alone in a list.
    """
    try:
        text, labels = (at(row, key) for key in keys)
    except LookupError as error:
        there = ", ".join(column_names(row)) or "none"
        report.bad("missing column", where, f"no column {error}; there are: {there}")
        return None
    if not tags and isinstance(labels, list) and len(labels) == 1:
        labels = labels[0]
    elif not tags and isinstance(labels, list) and labels:
        shown = json.dumps(labels, default=str, ensure_ascii=False)
        expected = "one label was expected: a text has exactly one"
        report.bad("several labels", where, f"{keys[1]} is {shown[:40]} where {expected}")
        return None
    values = labels if isinstance(labels, list) else [labels]
    if names is not None:
        numbers = [label for label in values if type(label) is int]
        if beyond := sorted({*numbers} - {*range(len(names))}):
            none = "-1, which stands for no label" if beyond[0] == -1 else f"{beyond[0]}, which has no name"
            report.bad("unknown label", where, f"{keys[1]} is or has {none}: expected 0 to {len(names) - 1}")
            return None
        values = [names[label] if type(label) is int else label for label in values]
    values = [json.dumps(label) if isinstance(label, int) else label for label in values]  # 1, true
    faults = _text_fault(keys[0], text, text), _text_fault(keys[1], labels, values, or_empty=False)
    for fault in filter(None, faults):
        report.bad("not a text", where, fault)
        return None
    texts = text if isinstance(text, list) else [text]
    if halved(texts, keys[0], where, report) or halved(values, keys[1], where, report):
        return None
    source = join_words(text) if isinstance(text, list) else _tokenized(text, words)
    target = join_words(values) if isinstance(labels, list) else values[0]
    return Pair(source, target, number)


def _tokenized(text: str, words: str) -> str:
    """Return the words of a raw text, with spaces between."""
    return join_words(word.text for word in tokenize(text, words))


def _text_fault(key: str, came: Any, value: Any, or_empty: bool = True) -> str | None:
    """Return why the value under a key is not a text or a list of non-empty texts; None if it is.

    came: the value as it is in the data.
    value: the value, perhaps as a list, with numbers turned into texts.
    """
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        expected = "a text" if or_empty else "a label (a text or a whole number)"
        shown = json.dumps(came, default=str, ensure_ascii=False)
        return f"{key} is {shown[:40]} where {expected}, or a list of them, was expected"
    if not all(texts) and (isinstance(came, list) or not or_empty):
        position = f" at position {texts.index('') + 1} of {len(texts)}" if isinstance(came, list) else ""
        return f"{key} has an empty text{position}"
    return None


def cells(path: Path, chosen: tuple[int, int], tags: bool, words: str, report: Report) -> Iterator[Pair]:
    """Yield the sentences of a TSV file: words and tags with spaces between, or a raw text and its label."""
    for pair in table(path, chosen, report):
        if tags:
            source, target = (join_words(_CELL.findall(side)) for side in pair[:2])
            yield pair._replace(source=source, target=target)
        else:
            yield pair._replace(source=_tokenized(pair.source, words))


def each_side(path: Path, labels: tuple[str, str], words: str, report: Report) -> Iterator[Pair]:
    """Yield the sentences of both columns of a TSV file, each with its column's label."""
    for pair in table(path, (0, 1), report):
        for text, label in zip(pair[:2], labels, strict=True):
            yield Pair(_tokenized(text, words), label, pair.line)


def labelled(pairs: Iterator[Pair], name: str, report: Report) -> Iterator[Pair]:
    """Yield the pairs that have a label of one line, without tabs; report the others as bad lines."""
    for pair in pairs:
        where = f"{name}:{pair.line}"
        if not pair.target.strip():
            report.bad("no label", where, "expected a label (a text), got an empty one")
        elif _CONTROL.search(pair.target):
            # `classify` prints a label a line, and a tab behind it
            shown = f"{pair.target!r:.60}"
            report.bad("not a label", where, f"expected a label without tabs and line breaks, got {shown}")
        else:
            yield pair


def tagged(pairs: Iterator[Pair], scheme: str, name: str, columns: str, report: Report) -> Iterator[Pair]:
    """Yield pairs with a tag for each word, in bio. Tags are repaired as conlleval reads them, and reported.

    scheme: auto = guess it from the first sentences.
    columns: the key and value of the columns in the recipe, for errors.
    A sentence with an invalid tag, or with another number of tags than words, is a bad line.
    """
    pairs = with_tags(pairs, name, columns, report)
    first = list(islice(pairs, GUESSING))
    actual: Any = scheme
    if scheme == "auto":
        try:
            actual = guess_scheme(
                [split_words(pair.target) for pair in first], [f"{name}:{pair.line}" for pair in first]
            )
        except TagError as error:
            raise DataError(f"data.scheme: {error}") from error
    report.schemes = sorted({*report.schemes, actual})
    for pair in chain(first, pairs):
        where = f"{name}:{pair.line}"
        try:
            written, repairs = repair(split_words(pair.target), actual)
        except TagError as error:
            report.bad("not a tag", where, f"{error} (data.scheme is {actual})")
            continue
        if repairs:
            report.note(f"tags repaired to {actual}", where, repairs)
        yield pair._replace(target=join_words(convert(written, actual, "bio")))


def with_tags(pairs: Iterator[Pair], name: str, columns: str, report: Report) -> Iterator[Pair]:
    """Yield the pairs with a tag of any scheme for each word."""
    for pair in pairs:
        where = f"{name}:{pair.line}"
        words, tags = split_words(pair.source), split_words(pair.target)
        if len(words) != len(tags):
            report.bad("tags do not fit", where, f"{len(words)} words and {len(tags)} tags")
            continue
        index = next((index for index, tag in enumerate(tags) if not is_tag(tag)), None)
        if index is None:
            yield pair
            continue
        report.bad(
            "not a tag",
            where,
            f"word {index + 1}, {words[index]!r}, has {tags[index]!r}, a tag of no scheme (O, B-TYPE, "
            f"I-TYPE, ...): is {columns} right?",
        )
