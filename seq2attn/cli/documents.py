"""Documents from files: a line, a row of JSONL, or a whole file is one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seq2attn.cli.inputs import lines
from seq2attn.data.files import Pair, at, json_lines, names, pick
from seq2attn.data.report import DataError, Report
from seq2attn.errors import Seq2attnError


class _Strict(Report):
    """A line that cannot be read ends the command: what comes out has a line for each that came in."""

    def bad(self, reason: str, where: str, message: str, count: int = 1) -> None:
        """DataError."""
        raise DataError(f"{where}: {message}")


def documents(files: tuple[Path, ...], key: str, whole: bool) -> Iterator[str]:
    """The documents of files, or of standard input. Sentences of a document in JSONL may be a list."""
    for file in files or (Path("-"),):
        if {".jsonl", ".ndjson"} & {suffix.lower() for suffix in file.suffixes}:
            if whole:
                raise Seq2attnError(
                    f"--whole: each row of {file} is a document, as JSONL has it; leave it out"
                )
            for row in json_lines(file, (key, key), _Strict(), _document):
                yield row.source
        elif whole:
            yield "\n".join(lines((file,)))
        else:
            yield from lines((file,))


def _document(row: Any, keys: tuple[str, str], number: int, where: str, report: Report) -> Pair | None:
    """What training would read of a row; a list without a sentence is an empty document."""
    try:
        empty = at(row, keys[0]) == []
    except LookupError as error:
        there = ", ".join(names(row)) or "none"
        raise DataError(
            f"{where}: no {keys[0]} in it (there are: {there}): name what is to be summarized with --key"
        ) from error
    return Pair("", "", number) if empty else pick(row, keys, number, where, report)
