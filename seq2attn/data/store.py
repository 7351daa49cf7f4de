"""Pairs of texts -> a tokenised Arrow store, cached on disk and memory-mapped -> examples."""

import base64
import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seq2attn.data.cache import Notes, grown
from seq2attn.data.corpora import Role, Source, Use, open_corpus
from seq2attn.data.examples import Examples, Part, digest
from seq2attn.data.growing_file import FilePart, GrowingFile
from seq2attn.data.pair_rows import Coder, Coders, Options, Rows, columns, content_of, rows_of, units
from seq2attn.data.report import DataError, Report, silent
from seq2attn.data.seen_pairs import SeenPairs, keys_of
from seq2attn.recipe import AnyCorpus, AnyLabelled, DataRecipe, LabelledDataRecipe
from seq2attn.text.encoding_processes import encoded

__all__ = ["Coder", "Coders", "prepare"]

FORMAT = 7  # version of the store's format; stores of other versions are made again


def prepare(
    corpora: Sequence[AnyCorpus | AnyLabelled],
    data: DataRecipe | LabelledDataRecipe,
    vocabularies: Coders,
    role: Role,
    progress: Callable[[Report], object] = silent,
    words: str = "auto",
) -> Examples:
    """Read, filter and tokenise corpora, or take the result from the cache if nothing has changed.

    Ids are truncated by `data.truncate`; texts are whole. Only training pairs are filtered, and each of their
    references makes a pair. Dev and test sets stay as they are, with all references; their empty sentences
    are only reported. Each corpus has its own store, in $SEQ2ATTN_CACHE or the cache folder of `datasets`,
    which is named by a hash of the data, the vocabularies and the options. One that is damaged is made again;
    one that was not finished is gone on with. `data.workers` processes tokenise, with the same result.

    Args:
        corpora: `data.train`, or `[data.dev]`.
        role: what they are used for.
        progress: called now and then with the report of a corpus, while it is read; not if the cache has it.
        words: how labelled raw text is tokenized, see the recipe's `text.words`.

    Raises:
        DataError: data cannot be read, there is a bad line and `data.bad_lines` is stop, or no pair is left.
    """
    parts = []
    for number, corpus in enumerate(corpora):
        key = f"data.{role}" + (f".{number}" if role == "train" else "")
        source = open_corpus(corpus, Use(data.languages, role, key, data.tag_scheme, words))
        options = Options(corpus, data, vocabularies, role == "train")
        store = grown(_name(source, options), partial(_write, source, options, progress))
        parts.append(Part(store, corpus.weight))
    temperature = getattr(data, "temperature", None) if role == "train" else None
    return Examples(parts if temperature is None else mixed(parts, temperature))


def mixed(parts: Sequence[Part], temperature: float) -> list[Part]:
    """Return corpora with weights by which their shares of an epoch are in proportion to n^(1/temperature),
    for their sizes n; the epoch has as many examples as all of them."""
    sizes = [sum(chunk.num_rows for chunk in part.stored.chunks) for part in parts]
    shares = [size ** (1 / temperature) for size in sizes]
    factor = sum(sizes) / sum(shares)
    return [
        part._replace(weight=factor * share / size)
        for part, share, size in zip(parts, shares, sizes, strict=True)
    ]


def _name(source: Source, options: Options) -> str:
    """Return the name of a store; it differs if the content may differ."""
    unused = {"weight", *(() if options.tag else ("tag",))}
    corpus = options.corpus.model_dump(mode="json", exclude=unused)
    filters = None if options.limits is None else options.limits.model_dump(mode="json")
    vocabularies = [vocabulary.fingerprint for vocabulary in options.vocabularies]
    data = options.data
    reading = [data.languages, data.bad_lines, data.truncate.model_dump(mode="json")]
    return digest([FORMAT, source.state, corpus, *reading, filters, vocabularies])


class _Made:
    """What is known of a store while it is made."""

    def __init__(self, options: Options) -> None:
        self._aligned = options.corpus.aligned
        fingerprints = "".join(vocabulary.fingerprint for vocabulary in options.vocabularies)
        self.content, self.seen = hashlib.sha256(fingerprints.encode()), SeenPairs()
        self.read = 0  # pairs
        self.report = Report()  # of filters

    def recover(self, part: FilePart) -> None:
        """Take a part over from the process that has written it."""
        flags = np.frombuffer(base64.b64decode(part.notes["truncated"]), np.uint8)
        begin = 0
        for batch in part.batches:
            truncated = np.unpackbits(flags)[begin : begin + len(batch)].astype(bool)
            begin += len(batch)
            self.content.update(content_of(Rows(batch, truncated), self._aligned))
            texts = (batch.column(name).to_pylist() for name in ("source_text", "target_text"))
            self.seen.add(keys_of(*texts))
        self.read, self.report = part.notes["read"], Report.from_dict(part.notes["report"])

    def part(self, rows: Sequence[Rows]) -> FilePart:
        """Return the part that these rows are."""
        import pyarrow

        for one in rows:
            self.content.update(content_of(one, self._aligned))
        batches = pyarrow.Table.from_batches([one.batch for one in rows]).combine_chunks().to_batches()
        flags = np.packbits(np.concatenate([one.truncated for one in rows]))
        notes = {"read": self.read, "report": self.report.to_dict()}
        return FilePart(batches, {**notes, "truncated": base64.b64encode(flags.tobytes()).decode()})


def _write(
    source: Source, options: Options, progress: Callable[[Report], object], folder: Path
) -> tuple[GrowingFile, Notes]:
    """Write the rows of a corpus to a file in a folder, or go on with it."""
    file, made = GrowingFile(folder, columns(options.corpus.aligned)), _Made(options)
    for part in file.recovered():
        made.recover(part)
    reading = Report(stop=options.data.bad_lines == "stop", progress=progress)
    total, rows = reading, list[Rows]()
    read = units(source, options, reading, made.read)
    stream = encoded(read, lambda unit: unit.texts, options.vocabularies, workers(options.data))
    with contextlib.closing(stream):
        for unit, ids in stream:
            if unit.pairs:
                rows.append(rows_of(unit, ids, source.name, options, made.seen, made.report))
                made.read += len(unit.pairs)
            total = unit.reading
            total.add(made.report)
            if unit.pairs:
                progress(total)
            if unit.ends_part and rows:
                file.write(made.part(rows))
                rows = []
    if not total.kept:
        raise DataError(f"no pair is left of {source.name}: {total}")
    return file, Notes(total, made.content.hexdigest(), {})


def workers(data: Any) -> int:
    """Return the number of processes that tokenise: `data.workers`, or that of the cores."""
    given: int | None = getattr(data, "workers", None)
    if given is not None:
        return given
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
