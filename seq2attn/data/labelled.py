"""Labelled words: sentences whose words have tags, or that have a label themselves.

A sentence becomes a pair: its words with single spaces between, and its tags (always bio) likewise, or its
label.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from seq2attn.data.files import Pair, at, decoded, lines, table
from seq2attn.data.files import names as column_names
from seq2attn.data.report import DataError, Report
from seq2attn.lexicon import cut, joined, split
from seq2attn.tags import TagError, convert, guess_scheme, repair

GUESSING = 1000  # sentences by which a scheme is told
_DOCUMENT = "-DOCSTART-"  # a line of CoNLL-2003 that is no sentence


def columns(path: Path, chosen: tuple[int, int], report: Report) -> Iterator[Pair]:
    """Sentences of a CoNLL file: a word a line, columns with white space between, a blank line at the end."""
    words: list[str] = []
    tags: list[str] = []
    begin = 1
    for number, line in enumerate(chain(lines(path), [b""]), 1):
        if line.strip():
            where = f"{path}:{number}"
            cells = (decoded(line, where, report) or "").split()
            if len(cells) < max(2, *(column + 1 if column >= 0 else -column for column in chosen)):
                came = f"{len(cells)} column{'s' * (len(cells) != 1)} where {list(chosen)} were expected"
                report.bad("wrong number of columns", where, came)
                continue
            word, tag = (cells[column] for column in chosen)
            begin = begin if words else number
            words.append(word)
            tags.append(tag)
        elif words:
            if words[0] != _DOCUMENT:
                yield Pair(joined(words), joined(tags), begin)
            words, tags = [], []


def pick(
    row: Any,
    keys: tuple[str, str],
    number: int,
    where: str,
    report: Report,
    names: Sequence[str] | None = None,
) -> Pair | None:
    """The pair of a row: words (a list, or a text that is cut) and tags (a list), or a text and its label.

    names: of labels that are numbers, by number; None if they are names themselves.
    """
    try:
        words, labels = (at(row, key) for key in keys)
    except LookupError as error:
        there = ", ".join(column_names(row)) or "none"
        report.bad("missing column", where, f"no column {error}; there are: {there}")
        return None
    several = labels if isinstance(labels, list) else [labels]
    if names is not None:
        try:
            several = [names[label] if isinstance(label, int) and label >= 0 else label for label in several]
        except IndexError:
            report.bad("unknown label", where, f"{keys[1]} has a number beyond its {len(names)} names")
            return None
    several = [str(label) if isinstance(label, int | bool) else label for label in several]
    texts = [words] if isinstance(words, str) else words
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in [*texts, *several]):
        report.bad("not a text", where, f"{keys[0]} and {keys[1]} must be texts, or lists of texts")
        return None
    source = joined(words) if isinstance(words, list) else joined(word.text for word in cut(words))
    target = joined(several) if isinstance(labels, list) else several[0]
    return Pair(source, target, number)


def cells(path: Path, chosen: tuple[int, int], tags: bool, report: Report) -> Iterator[Pair]:
    """Sentences of a TSV file: words and tags with spaces between, or a raw text and its label."""
    for pair in table(path, chosen, report):
        words = pair.source.split() if tags else [word.text for word in cut(pair.source)]
        yield pair._replace(source=joined(words), target=joined(pair.target.split()) if tags else pair.target)


def each_side(path: Path, labels: tuple[str, str], report: Report) -> Iterator[Pair]:
    """The sentences of both columns of a TSV file, each labelled with its column's label."""
    for pair in table(path, (0, 1), report):
        for text, label in zip(pair[:2], labels, strict=True):
            yield Pair(joined(word.text for word in cut(text)), label, pair.line)


def tagged(pairs: Iterator[Pair], scheme: str, name: str, report: Report) -> Iterator[Pair]:
    """Pairs with a tag for each word, in bio. What conlleval's reading must repair is reported.

    scheme: auto = as the first sentences tell. A sentence with another number of tags than words, or with
    what is no tag, is a bad line.
    """
    first = list(islice(pairs, GUESSING))
    known: Any = scheme
    if scheme == "auto":
        try:
            known = guess_scheme([split(pair.target) for pair in first])
        except TagError as error:
            raise DataError(f"{name}: {error} (data.scheme: bio, say)") from error
    for pair in chain(first, pairs):
        where = f"{name}:{pair.line}"
        words, tags = split(pair.source), split(pair.target)
        if len(words) != len(tags):
            report.bad("tags do not fit", where, f"{len(words)} words and {len(tags)} tags")
            continue
        try:
            written, repairs = repair(tags, known)
        except TagError as error:
            report.bad("not a tag", where, str(error))
            continue
        if repairs:
            report.note(f"tags repaired to {known}", where, repairs)
        yield pair._replace(target=joined(convert(written, known, "bio")))
