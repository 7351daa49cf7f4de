"""Read documents for `summarize`: lines, rows of JSONL, or whole files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seq2attn.cli.inputs import Pipe, is_json_lines, lines
from seq2attn.data.files import Pair, at, json_lines, names, pick
from seq2attn.data.report import DataError, Report
from seq2attn.errors import Seq2attnError


class _Strict(Report):
    """Ends the command at a line that cannot be read, because the output has one line for each input line."""

    def bad(self, reason: str, where: str, message: str, count: int = 1) -> None:
        """Raise DataError."""
        raise DataError(f"{where}: {message}")


def documents(files: tuple[Path, ...], key: str, whole: bool, pipe: Pipe | None = None) -> Iterator[str]:
    """Yield the documents of files, or of standard input. In JSONL a document may be a list of
    sentences."""
    for file in files or (Path("-"),):
        if is_json_lines(file):
            if whole:
                raise Seq2attnError(
                    f"--whole: each row of {file} is a document, because it is JSONL; leave the option out"
                )
            for row in json_lines(file, (key, key), _Strict(), _document):
                yield row.source
        elif whole:
            yield "\n".join(lines((file,), pipe))
        else:
            yield from lines((file,), pipe)


def _document(row: Any, keys: tuple[str, str], number: int, where: str, report: Report) -> Pair | None:
    """Return the document of a row, read as in training; an empty list is an empty document."""
    try:
        empty = at(row, keys[0]) == []
    except LookupError as error:
        keys_of_row = ", ".join(names(row)) or "none"
        raise DataError(
            f"{where}: no key {keys[0]} (keys: {keys_of_row}); name the key of the documents with --key"
        ) from error
    return Pair("", "", number) if empty else pick(row, keys, number, where, report)
