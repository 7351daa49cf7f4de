"""Lines of text files, plain or packed, with every fault named by file and line."""

import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from seq2attn.alignment.word_alignment import AlignmentError, Link, parse_pharaoh
from seq2attn.data.gold_alignments import beyond
from seq2attn.data.report import DataError, Report
from seq2attn.runtime.files import COMPRESSED

_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_END = re.compile("\r\n?")
_COLUMNS = "wrong number of columns"


class Pair(NamedTuple):
    """A sentence and its translation, as they stand in the data."""

    source: str
    target: str
    line: int  # of the file, from 1; of a dataset, the row, from 0
    links: tuple[Link, ...] | None = None  # between words, as `alignments.words` cuts them; None: not known
    references: tuple[str, ...] = ()  # other targets, as good as the first

    def apart(self) -> "Iterator[Pair]":
        """A pair for each target."""
        for target in (self.target, *self.references):
            yield self._replace(target=target, references=())


# From a row, the keys of its two sides, its number, where it stands, and the report of bad lines.
Pick = Callable[[Any, tuple[str, str], int, str, Report], Pair | None]


def missing(path: str) -> str | None:
    """Why the file that a recipe names cannot be read; None if it can."""
    if Path(path).is_file():
        return None
    return f"{path} is a folder" if Path(path).is_dir() else f"no such file: {path}"


def lines(path: Path) -> Iterator[bytes]:
    r"""The lines of a file, without their ends. Only \n separates lines, as in `wc -l`."""
    unpack = COMPRESSED.get(path.suffix, open)
    try:
        with unpack(path, "rb") as stream:
            for number, line in enumerate(stream):
                start = len(_BOM) if number == 0 and line.startswith(_BOM) else 0
                yield line[start:].rstrip(b"\r\n")
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged, or not packed as its name says: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def parallel(source: Path, target: Path, alignments: Path | None, report: Report) -> Iterator[Pair]:
    """Pairs of two files that have a sentence a line; and of a third, if any, the links of each pair.

    DataError if that one is read to its end and has no link at all.
    """
    files = [path for path in (source, target, alignments) if path is not None]
    counts = [0] * len(files)
    linked: set[bool] = set()  # whether pairs have links: some, and some not
    for number, row in enumerate(zip_longest(*map(lines, files)), 1):
        counts = [count + (line is not None) for count, line in zip(counts, row, strict=True)]
        if None in row:
            continue
        places = [f"{path}:{number}" for path in files]
        texts = [decoded(line, where, report) for line, where in zip(row, places, strict=True)]
        first, second = texts[:2]
        if first is None or second is None:
            continue
        if alignments is None:
            yield Pair(first, second, number)
        elif (found := _links(texts[2], first, second, places[2], report)) is not None:
            linked.add(bool(found))
            yield Pair(first, second, number, found)
    fewest, most = min(counts), max(counts)
    if linked == {False}:
        raise DataError(
            f"{alignments}: expected links such as 0-0 1-2, and no line has any, so that nothing can be "
            "learnt from it: align the sentences anew, or leave alignments out"
        )
    if fewest != most:
        shorter, longer = files[counts.index(fewest)], files[counts.index(most)]
        report.bad(
            "unequal number of lines",
            f"{longer}:{fewest + 1}",
            f"no counterpart: this file has {most} lines, but {shorter} has {fewest}",
            most - fewest,
        )


def table(path: Path, columns: tuple[int, int], report: Report) -> Iterator[Pair]:
    """Pairs of a file with tab-separated columns, by their numbers from 0; quotes mean nothing."""
    expected = 0
    for number, line in enumerate(lines(path), 1):
        text = _row(line, f"{path}:{number}", report)
        if text is None:
            continue
        cells = text.split("\t")
        came = f"{len(cells)} column{'s' * (len(cells) != 1)} where"
        if len(cells) <= max(columns):
            came = f"{came} at least {max(columns) + 1} were expected"
            hint = f" (tabs part columns; CSV is read by dataset: csv, data_files: {path})"
            report.bad(_COLUMNS, f"{path}:{number}", came + hint * (".csv" in path.suffixes))
        elif len(cells) != (expected or len(cells)):
            report.bad(_COLUMNS, f"{path}:{number}", f"{came} {expected} were expected, as before")
        else:
            expected = len(cells)
            yield Pair(cells[columns[0]], cells[columns[1]], number)


def json_lines(path: Path, keys: tuple[str, str], report: Report, read: Pick | None = None) -> Iterator[Pair]:
    """Pairs of a file with a JSON object a line, by dotted keys such as translation.de; `read` makes the pair
    of a row, `pick` if it is not given."""
    for number, line in enumerate(lines(path), 1):
        where = f"{path}:{number}"
        text = _row(line, where, report)
        if text is None:
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            report.bad("not JSON", where, f"not JSON: {error}")
            continue
        pair = (read or pick)(row, keys, number, where, report)
        if pair is not None:
            yield pair


def pick(row: Any, keys: tuple[str, str], number: int, where: str, report: Report) -> Pair | None:
    """The pair of a row of this number; None, and a bad line, if a text is missing or none.

    A source that is a list of texts is those texts, a line each (sentences, turns of a dialogue); a target
    that is a list is several references. Line ends within a text become line feeds.
    """
    found: list[str | list[str]] = []
    for key in keys:
        value = _text(row, key, where, report)
        if value is None:
            return None
        found.append(value)
    source, target = found
    if isinstance(source, list):  # a line feed within would end a sentence that is not over
        source = "\n".join(text.replace("\n", " ") for text in source)
    targets = [target] if isinstance(target, str) else target
    if not targets:
        report.bad("no reference", where, f"{keys[1]} is an empty list where at least one text was expected")
        return None
    return Pair(source, targets[0], number, references=tuple(targets[1:]))


def _text(row: Any, key: str, where: str, report: Report) -> str | list[str] | None:
    """The text, or the list of texts, under a key; None, and a bad line, if there is none."""
    try:
        value = at(row, key)
    except LookupError:
        there = ", ".join(names(row)) or "none"
        report.bad("missing column", where, f"no column {key}; there are: {there}")
        return None
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        came = json.dumps(value, default=str)
        expected = "a text, or a list of texts, was expected"
        report.bad("not a text", where, f"{key} is {came[:40]} where {expected}")
        return None
    if halved(texts, key, where, report):
        return None
    texts = [_LINE_END.sub("\n", text) for text in texts]
    return texts if isinstance(value, list) else texts[0]


def halved(texts: list[str], key: str, where: str, report: Report) -> bool:
    """Whether the texts under a key have half a surrogate pair, which nobody can write; then a bad line."""
    found = any(map(_SURROGATE.search, texts))
    if found:
        report.bad("broken UTF-16", where, f"{key} has half a surrogate pair, which is no character")
    return found


def at(row: Any, key: str) -> Any:
    """What lies under a dotted key, in objects and lists. LookupError if nothing does."""
    if isinstance(row, dict) and key in row:
        return row[key]
    for part in key.split("."):
        if isinstance(row, list) and part.isdigit():
            row = row[int(part)]
        elif isinstance(row, dict):
            row = row[part]
        else:
            raise LookupError(part)
    return row


def names(row: Any, prefix: str = "") -> list[str]:
    """The dotted names of all columns of a row."""
    if not isinstance(row, dict):
        return [prefix.rstrip(".")] if prefix else []
    return [name for key, value in row.items() for name in names(value, f"{prefix}{key}.")]


def _row(line: bytes, where: str, report: Report) -> str | None:
    """The text of a line of a table; None if it is blank or cannot be read."""
    if not line.strip():
        report.note("blank line", where)
        return None
    return decoded(line, where, report)


def _links(text: str | None, source: str, target: str, where: str, report: Report) -> tuple[Link, ...] | None:
    """The links of a line; None if it has others, or cannot be read."""
    if text is None:
        return None
    try:
        found = parse_pharaoh(text)
    except AlignmentError as error:
        report.bad("not an alignment", where, str(error))
        return None
    fault = beyond(found, source, target)
    if fault is not None:
        report.bad("link beyond the sentence", where, fault)
        return None
    if not found:
        report.note("without links", where)
    return tuple(found)


def decoded(line: bytes, where: str, report: Report) -> str | None:
    """The text of a line; None, and a bad line, if it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        broken = line[error.start]
        report.bad("broken UTF-8", where, f"byte 0x{broken:02x} in column {error.start + 1} is no UTF-8")
        return None
