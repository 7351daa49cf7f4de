"""Data given in Python: they are written once to a table in the cache, which a recipe names like any other.

The table is named by its content, so that the same data are the same corpus whenever they are given.
"""

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Set
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seq2attn.data.cache import cache_folder, checksum_of, move
from seq2attn.data.corpora import Role
from seq2attn.data.files import Pair, Pick, items_at, names, pick
from seq2attn.data.hub import class_names, selected_rows
from seq2attn.data.labelled import labelled, with_tags
from seq2attn.data.labelled import pick as pick_labelled
from seq2attn.data.report import DataError, Report
from seq2attn.recipe import DataRecipe, LabelledDataRecipe
from seq2attn.runtime.files import append
from seq2attn.text.word_vocabulary import split_words

FOLDER = "given"  # in the cache folder
ROWS = 1000  # written at a time
Keys = tuple[str, ...]


class Form(NamedTuple):
    """The columns of a task: those of its table, and those that rows given as dicts may have."""

    columns: Keys  # also of rows that are pairs
    accepted: tuple[Keys, ...]  # dotted keys; the first that a row has are taken
    words: tuple[bool, bool] = (False, False)  # whether source and target are lists of words


class OpenRows(NamedTuple):
    """Rows that have been opened, and can be read once."""

    rows: Iterator[Any]
    keys: Keys  # of the rows that are dicts
    labels: list[str] | None  # the names of labels that are numbers


class Strict(Report):
    """A report that stops at every bad row: there is no file that somebody else has written."""

    def bad(self, reason: str, where: str, message: str, count: int = 1) -> None:
        """Raise DataError."""
        raise DataError(f"{where}: {message}")


def given_table(
    rows: Any, role: Role, data: DataRecipe | LabelledDataRecipe, words: str = "auto"
) -> dict[str, Any]:
    """Write rows to a table in the cache folder, and return the corpus with which a recipe names it.

    The rows are read once, in their order, and are never in memory together. The table is JSONL.

    rows: an iterable of pairs (source, target), (words, tags) or (text, label), or of dicts; or a dataset of
        the library `datasets`, whose class labels are read as their names. Their values are those that JSONL
        may have: a target may be a list of references.
    role: the key in `data` that the rows are for.
    data: the recipe's data section, which says what rows are.
    words: how labelled raw text is tokenized, see the recipe's `text.words`.

    Raises DataError, with the index of the row, if one cannot be read, and if there is none.
    """
    name, form, report = f'data["{role}"]', _form(data), Strict()
    opened = open_rows(rows, name, form)
    if isinstance(data, DataRecipe):
        pairs = _pairs(opened, name, report, pick)
    else:
        tags = data.tag_scheme is not None
        read = partial(pick_labelled, names=opened.labels, words=words, tags=tags)
        pairs = _pairs(opened, name, report, read)
        order = "the order of words and tags"
        pairs = with_tags(pairs, name, order, report) if tags else labelled(pairs, name, report)
    path = _write(_line(pair, form) for pair in pairs)
    return {"table": str(path), "columns": list(form.columns)}


def _form(data: DataRecipe | LabelledDataRecipe) -> Form:
    """Return the columns of the data of a recipe."""
    if isinstance(data, DataRecipe):
        source, target = data.languages
        columns = "source", "target"
        if source == target:  # a row has each key only once
            return Form(columns, (columns,))
        accepted = (data.languages, (f"translation.{source}", f"translation.{target}"), columns)
        return Form(columns, tuple(dict.fromkeys(accepted)))
    if data.tag_scheme is None:
        return Form(("text", "label"), (("text", "label"),), (True, False))
    return Form(
        ("words", "tags"), (("words", "tags"), ("tokens", "tags"), ("tokens", "ner_tags")), (True, True)
    )


# ---- reading -----------------------------------------------------------------------------------------


def open_rows(rows: Any, name: str, form: Form, count: int = ROWS) -> OpenRows:
    """Read the first row, and find the columns in it. DataError if there is none, or it lacks them.

    count: rows of a dataset that are read at a time.
    """
    if isinstance(rows, Set) or not isinstance(rows, Iterable):  # a set has no order
        raise DataError(
            f"{name}: expected a list or an iterator of pairs or dicts, a dataset, or a corpus as recipes "
            f"have it, such as {{'table': 'x.tsv'}}; got {rows!r:.60}"
        )
    iterator = iter(rows)
    first = list(islice(iterator, 1))
    if not first:
        raise DataError(f"{name} is empty: expected at least one row (an iterator can be read only once)")
    if not isinstance(first[0], Mapping):
        return OpenRows(chain(first, iterator), form.columns, None)
    keys = _keys(plain(first[0]), name, form)
    if not is_dataset(rows):
        return OpenRows(chain(first, iterator), keys, None)
    columns = dict.fromkeys(key if key in first[0] else key.split(".")[0] for key in keys)
    return OpenRows(selected_rows(rows, list(columns), count), keys, class_names(rows, keys[-1]))


def is_dataset(rows: Any) -> bool:
    """Whether rows are a dataset of the library `datasets`, which need not be imported to say no."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(rows, library.Dataset | library.IterableDataset)


def _keys(row: dict[str, Any], name: str, form: Form) -> Keys:
    """Return the keys of source and target in a row."""
    for keys in form.accepted:
        with contextlib.suppress(LookupError):
            for key in keys:
                items_at(row, key)
            return keys
    expected = ", or ".join(" and ".join(keys) for keys in form.accepted)
    renaming = ", ".join(f"'...': '{key}'" for key in form.accepted[0])
    what = "pairs" if len(form.columns) == 2 else "tuples"
    raise DataError(
        f"{name}: expected rows with {expected}; there are: {', '.join(names(row)) or 'none'}. Rename "
        f"them, as in dataset.rename_columns({{{renaming}}}), or give {what}"
    )


def _pairs(opened: OpenRows, name: str, report: Report, read: Pick) -> Iterator[Pair]:
    """Yield the pairs of rows; `read` makes the pair of a row."""
    source, target = opened.keys
    for index, row in enumerate(opened.rows):
        where = f"{name}:{index}"
        values = plain(row)
        if isinstance(values, list) and len(values) == 2:
            values = dict(zip(opened.keys, values, strict=True))
        elif not isinstance(values, dict):
            size = f"{len(values)} values" if isinstance(values, list) else f"{row!r:.60}"
            expected = f"a pair ({', '.join(opened.keys)}), or a dict"
            report.bad("not a pair", where, f"expected {expected}, got {size}")
            continue
        if (pair := read(values, (source, target), index, where, report)) is not None:
            yield pair


def plain(value: Any) -> Any:
    """Return a value as JSON has it: tuples and arrays are lists, and numbers of NumPy are numbers."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


# ---- writing -----------------------------------------------------------------------------------------


def _line(pair: Pair, form: Form) -> bytes:
    """Return the line of a pair in the table."""
    source: Any = split_words(pair.source) if form.words[0] else pair.source
    target: Any = split_words(pair.target) if form.words[1] else pair.target
    if pair.references:
        target = [pair.target, *pair.references]
    row = dict(zip(form.columns, (source, target), strict=True))
    return f"{json.dumps(row, ensure_ascii=False)}\n".encode()


def _write(lines: Iterator[bytes]) -> Path:
    """Write lines to a file that is named by their hash, and return its path.

    It is written to a temporary folder first.
    """
    with tempfile.TemporaryDirectory(dir=cache_folder(FOLDER)) as folder:
        draft = Path(folder) / "rows.jsonl"
        while chunk := b"".join(islice(lines, ROWS)):
            append(draft, chunk)
        return kept(draft)


def kept(draft: Path) -> Path:
    """Move a file to the cache folder, where its hash is its name, and return its path.

    A file that is there already stays, unless it is damaged: its date is part of the names of the stores.
    """
    checksum = checksum_of(draft)
    path = cache_folder(FOLDER).absolute() / f"{checksum[:16]}{draft.suffix}"
    if not path.is_file() or checksum_of(path) != checksum:
        move(draft, path)
    return path
