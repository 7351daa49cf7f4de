"""Read text files, plain or compressed; every fault is reported with file and line."""

import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from seq2attn.alignment.word_alignment import AlignmentError, Link, beyond, parse_pharaoh
from seq2attn.data.remote_files import is_remote, local_copy
from seq2attn.data.report import DataError, Report
from seq2attn.runtime.files import COMPRESSED
from seq2attn.text.words import as_lines

_NO_TEXT = "is this a file of texts, one a line?"
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_END = re.compile("\r\n?")
LONGEST = 1 << 24  # bytes of a line
MOST_BLANK = 1_000_000  # blank lines in a row
TOLD = 1000  # lines between two looks at how much of a file has been read
_COLUMNS = "wrong number of columns"


class Pair(NamedTuple):
    """A source and a target as they are in the data."""

    source: str
    target: str
    line: int  # line of the file, from 1; or row of the dataset, from 0
    links: tuple[Link, ...] | None = None  # between words of `gold_alignments.words`; None: not given
    references: tuple[str, ...] = ()  # further targets

    def per_reference(self) -> "Iterator[Pair]":
        """Yield a pair for each target."""
        for target in (self.target, *self.references):
            yield self._replace(target=target, references=())


# Makes a pair of a row, given the keys of its sides, its number, its "file:line", and the report of bad
# lines.
Pick = Callable[[Any, tuple[str, str], int, str, Report], Pair | None]


def missing(path: str) -> str | None:
    """Return why the file that a recipe names cannot be read; None if it can."""
    if Path(path).is_file():
        return None
    return f"{path} is a folder" if Path(path).is_dir() else f"no such file: {path}"


def existing(file: str, key: str) -> Path:
    """Return the path of a file that a recipe names under a key; of one that is named by a URL, that of a
    copy. DataError if it cannot be read."""
    if not is_remote(file) and (fault := missing(file)) is not None:
        raise DataError(f"{key}: {fault}")
    return fetched(file, key)


def fetched(file: str, key: str) -> Path:
    """Return the path of a file that a recipe names under a key, or of its copy, as `existing`; whether there
    is a file at a path is not checked."""
    return local_copy(file, key) if is_remote(file) else Path(file)


def file_state(path: Path) -> list[Any]:
    """Return a JSON value that changes when a file does."""
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def lines(path: Path, report: Report | None = None) -> Iterator[bytes]:
    r"""Yield the lines of a file without their ends. Only \n separates lines, as in `wc -l`.

    report: is told now and then which share of the file has been read.

    Raises DataError if the file cannot be read, for a line of more than LONGEST bytes, and for more than
    MOST_BLANK blank lines in a row.
    """
    opener = COMPRESSED.get(path.suffix, open)
    try:
        with opener(path, "rb") as stream:
            size, file = path.stat().st_size, getattr(getattr(stream, "raw", stream), "fileobj", stream)
            blank = 0
            for number, line in enumerate(iter(lambda: stream.readline(LONGEST + 1), b""), 1):
                if len(line) > LONGEST:
                    raise DataError(f"{path}:{number}: a line of more than {LONGEST:,} bytes: {_NO_TEXT}")
                if number == 1 and b"\r" in line.rstrip() and not line.endswith(b"\n"):
                    raise DataError(
                        f"{path}: its lines end in CR alone, as on an old Mac: give them line feeds, as "
                        r"`tr '\r' '\n'` does"
                    )
                if report is not None and number % TOLD == 0:
                    report.share = min(1.0, file.tell() / max(1, size))
                blank = 0 if line.strip() else blank + 1
                if blank > MOST_BLANK:
                    raise DataError(
                        f"{path}:{number}: more than {MOST_BLANK:,} blank lines in a row: {_NO_TEXT}"
                    )
                yield line.removeprefix(_BOM if number == 1 else b"").rstrip(b"\r\n")
            if report is not None:
                report.share = 1.0
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged, or not compressed as its name says: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def parallel(source: Path, target: Path, alignments: Path | None, report: Report) -> Iterator[Pair]:
    """Yield the pairs of two parallel files, with links from a third if it is given.

    Raises DataError if the third is read to its end and has no link at all.
    """
    files = [path for path in (source, target, alignments) if path is not None]
    counts = [0] * len(files)
    linked: set[bool] = set()  # whether pairs have links
    streams = [lines(path, None if number else report) for number, path in enumerate(files)]
    for number, row in enumerate(zip_longest(*streams), 1):
        counts = [count + (line is not None) for count, line in zip(counts, row, strict=True)]
        if None in row:
            continue
        positions = [f"{path}:{number}" for path in files]
        texts = [decoded(line, where, report) for line, where in zip(row, positions, strict=True)]
        first, second = texts[:2]
        if first is None or second is None:
            continue
        if alignments is None:
            yield Pair(first, second, number)
        elif (links := _links(texts[2], first, second, positions[2], report)) is not None:
            linked.add(bool(links))
            yield Pair(first, second, number, links)
    fewest, most = min(counts), max(counts)
    if linked == {False}:
        raise DataError(
            f"{alignments}: expected links such as 0-0 1-2, and no line has one: align the sentences again, "
            "or leave alignments out"
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
    """Yield the pairs of a file with tab-separated columns, given by number from 0. Quotes have no
    meaning."""
    expected = 0
    for number, line in enumerate(lines(path, report), 1):
        text = _row(line, f"{path}:{number}", report)
        if text is None:
            continue
        cells = text.split("\t")
        came = f"{len(cells)} column{'s' * (len(cells) != 1)} where"
        if len(cells) <= max(columns):
            came = f"{came} at least {max(columns) + 1} were expected"
            hint = f" (tabs separate columns; CSV is read by dataset: csv, data_files: {path})"
            report.bad(_COLUMNS, f"{path}:{number}", came + hint * (".csv" in path.suffixes))
        elif len(cells) != (expected or len(cells)):
            report.bad(_COLUMNS, f"{path}:{number}", f"{came} {expected} were expected, as before")
        else:
            expected = len(cells)
            yield Pair(cells[columns[0]], cells[columns[1]], number)


def json_rows(path: Path, report: Report) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each line of a file with one JSON object per line."""
    for number, line in enumerate(lines(path, report), 1):
        where = f"{path}:{number}"
        text = _row(line, where, report)
        if text is None:
            continue
        try:
            row = json.loads(text, object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            report.bad("not JSON", where, f"not JSON: {error}")
            continue
        yield number, row


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. ValueError if a key occurs twice, of which one value would be lost."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {max(keys, key=keys.count)!r:.40} occurs twice")
    return made


def json_lines(path: Path, keys: tuple[str, str], report: Report, read: Pick | None = None) -> Iterator[Pair]:
    """Yield the pairs of a file with one JSON object per line, by dotted keys such as translation.de.

    read: makes the pair of a row; `pick` by default.
    """
    for number, row in json_rows(path, report):
        pair = (read or pick)(row, keys, number, f"{path}:{number}", report)
        if pair is not None:
            yield pair


def pick(row: Any, keys: tuple[str, str], number: int, where: str, report: Report) -> Pair | None:
    """Return the pair of a row; None, and a bad line in the report, if a text is missing or is not a text.

    If the source is a list of texts (sentences, turns of a dialogue), they become the lines of a text; if the
    target is a list, its items are references. Line ends within a text become line feeds.
    """
    sides: list[str | list[str]] = []
    for key in keys:
        value = _text(row, key, where, report)
        if value is None:
            return None
        sides.append(value)
    source, target = sides
    if isinstance(source, list):
        source = as_lines(source)
    targets = [target] if isinstance(target, str) else target
    if not targets:
        report.bad("no reference", where, f"{keys[1]} is an empty list where at least one text was expected")
        return None
    return Pair(source, targets[0], number, references=tuple(targets[1:]))


def _text(row: Any, key: str, where: str, report: Report) -> str | list[str] | None:
    """Return the text, or the list of texts, under a key; None, and a bad line, if there is none."""
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
    """Whether a text under a key has half a surrogate pair, which cannot be encoded; if so, report a bad
    line."""
    broken = any(map(_SURROGATE.search, texts))
    if broken:
        report.bad("broken UTF-16", where, f"{key} has half a surrogate pair, which is no character")
    return broken


def at(row: Any, key: str) -> Any:
    """Return the value under a dotted key, in objects and lists. Raises LookupError if there is none."""
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


def items_at(row: Any, key: str) -> Any:
    """Return the value under a dotted key, as `at`; of a list of objects, a list of their values:
    objects.bbox."""
    head, separator, last = key.rpartition(".")
    if separator and isinstance(objects := at(row, head), list) and not last.isdigit():
        return [at(item, last) for item in objects]
    return at(row, key)


def names(row: Any, prefix: str = "") -> list[str]:
    """Return the dotted names of all columns of a row."""
    if not isinstance(row, dict):
        return [prefix.rstrip(".")] if prefix else []
    return [name for key, value in row.items() for name in names(value, f"{prefix}{key}.")]


def _row(line: bytes, where: str, report: Report) -> str | None:
    """Return the text of a line of a table; None if it is blank or cannot be decoded."""
    if not line.strip():
        report.note("blank line", where)
        return None
    return decoded(line, where, report)


def _links(text: str | None, source: str, target: str, where: str, report: Report) -> tuple[Link, ...] | None:
    """Return the links of a line; None, and a bad line, if it has invalid ones."""
    if text is None:
        return None
    try:
        links = parse_pharaoh(text)
    except AlignmentError as error:
        report.bad("not an alignment", where, str(error))
        return None
    fault = beyond(links, source, target)
    if fault is not None:
        report.bad("link beyond the sentence", where, fault)
        return None
    if not links:
        report.note("without links", where)
    return tuple(links)


def decoded(line: bytes, where: str, report: Report) -> str | None:
    """Return the text of a line; None, and a bad line, if it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        broken = line[error.start]
        report.bad("broken UTF-8", where, f"byte 0x{broken:02x} in column {error.start + 1} is no UTF-8")
        return None
