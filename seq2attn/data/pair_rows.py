"""Pairs of texts -> rows of a store: read in units, filtered, truncated, and named by what is in them."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from seq2attn.alignment.word_alignment import Link
from seq2attn.data.corpora import Source
from seq2attn.data.files import Pair
from seq2attn.data.gold_alignments import between_pieces
from seq2attn.data.report import Report
from seq2attn.data.seen_pairs import SeenPairs, keys_of
from seq2attn.recipe import AnyCorpus, AnyLabelled, DataRecipe, FilterRecipe, LabelledDataRecipe
from seq2attn.text.encoding_processes import Ids
from seq2attn.text.given_ids import with_tag
from seq2attn.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pyarrow

Flags = NDArray[np.bool_]

ROWS = 1000  # pairs that are encoded at a time
PART = 50_000  # pairs that are written at a time; what is written survives a kill
NOTICES: Sequence[str] = ("", "empty, but kept")
REASONS: Sequence[str] = ("", "empty", "too short", "too long", "length ratio", "duplicate")


class Coder(Protocol):
    """Turns texts into ids: a vocabulary of pieces, a word vocabulary, or labels."""

    @property
    def fingerprint(self) -> str:
        """A hash that is equal if the ids of all texts are equal."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""


Coders = tuple[Coder, Coder]


class Options(NamedTuple):
    """The settings on which the store of a corpus depends, besides its data."""

    corpus: AnyCorpus | AnyLabelled
    data: DataRecipe | LabelledDataRecipe
    vocabularies: Coders
    training: bool

    @property
    def tag(self) -> str | None:
        """The word that sources begin with; labelled words have none."""
        tag: str | None = getattr(self.corpus, "tag", None)
        return tag

    @property
    def limits(self) -> FilterRecipe | None:
        """The filters; None: pairs stay as they are."""
        return self.data.filter if self.training else None


class Unit(NamedTuple):
    """Pairs that are encoded together."""

    pairs: list[Pair]
    reading: Report  # as it was after the last of them
    ends_part: bool

    @property
    def texts(self) -> tuple[list[str], list[str]]:
        """The source and target texts."""
        return [pair.source for pair in self.pairs], [pair.target for pair in self.pairs]


def units(source: Source, options: Options, report: Report, begin: int = 0) -> Iterator[Unit]:
    """Read the pairs of a corpus, after the first `begin`; the last unit has none.

    Units do not go beyond the end of a part, so that a part does not depend on the size of a unit.
    """
    limit = options.corpus.limit
    read = islice(source.read(report), limit)
    stream: Iterator[Pair] = (_tagged(pair, options.tag) for pair in read)
    if options.training:
        stream = chain.from_iterable(pair.per_reference() if pair.references else (pair,) for pair in stream)
    for _ in islice(stream, begin):
        pass
    count = report.read = begin
    while pairs := list(islice(stream, min(ROWS, PART - count % PART))):
        count += len(pairs)
        report.read = count
        reading = report.copy()
        reading.share = min(1.0, max(report.share, count / limit if limit else 0.0))
        yield Unit(pairs, reading, count % PART == 0)
    yield Unit([], report.copy(), count % PART != 0)


def _tagged(pair: Pair, tag: str | None) -> Pair:
    """Return a pair whose source begins with a tag, which is a word of its own."""
    if tag is None or not pair.source.strip():
        return pair
    links = None if pair.links is None else tuple(Link(source + 1, target) for source, target in pair.links)
    return pair._replace(source=with_tag(pair.source, tag), links=links)


class Rows(NamedTuple):
    """Rows of a store."""

    batch: "pyarrow.RecordBatch"
    truncated: Flags  # the ids are not those of the whole texts


def columns(aligned: bool) -> "pyarrow.Schema":
    """Return the columns of a store."""
    import pyarrow

    ids, text = pyarrow.list_(pyarrow.int32()), pyarrow.string()
    listed = [("source", ids), ("target", ids), ("source_text", text), ("target_text", text)]
    # references: further targets; in training each has its own row. ended: the ids have the target's end.
    listed += [("references", pyarrow.list_(text)), ("ended", pyarrow.bool_())]
    # links between pieces: source, target, source, target, ...
    return pyarrow.schema(listed + ([("links", ids)] if aligned else []))


def rows_of(
    unit: Unit, whole: Sequence[Ids], name: str, options: Options, seen: SeenPairs, report: Report
) -> Rows:
    """Return the rows of a unit, without those that the filters leave out; the report counts these.

    whole: the ids of sources and targets.
    """
    import pyarrow

    read = [_cut(ids, side, options) for side, ids in enumerate(whole)]
    truncated = np.any([one.lengths != ids.lengths for one, ids in zip(read, whole, strict=True)], axis=0)
    kept = _kept(unit, read, whole, truncated, (name, options), seen, report)
    whole_lengths = [ids.lengths.tolist() for ids in whole]
    values: dict[str, Any] = dict(zip(("source_text", "target_text"), unit.texts, strict=True))
    for key, ids in zip(("source", "target"), read, strict=True):
        values[key] = pyarrow.ListArray.from_arrays(pyarrow.array(ids.offsets), pyarrow.array(ids.values))
    values["references"] = [pair.references for pair in unit.pairs]
    values["ended"] = [options.data.truncate.ends(range(length)) for length in whole_lengths[1]]
    if options.corpus.aligned:
        values["links"] = [
            _links(pair, options, lengths)
            for pair, lengths in zip(unit.pairs, zip(*whole_lengths, strict=True), strict=True)
        ]
    schema = columns(options.corpus.aligned)
    arrays = [pyarrow.array(values[field.name], field.type) for field in schema]
    batch = pyarrow.RecordBatch.from_arrays(arrays, schema=schema)
    return Rows(batch if kept.all() else batch.filter(pyarrow.array(kept)), truncated[kept])


def content_of(rows: Rows, aligned: bool) -> bytes:
    """Return bytes that differ if rows do; from them a store has its fingerprint."""
    texts = [rows.batch.column(name).to_pylist() for name in ("source_text", "target_text")]
    pairs = [f"{len(source)} {len(target)} {source}{target}" for source, target in zip(*texts, strict=True)]
    referenced = rows.batch.column("references").value_lengths().to_numpy(zero_copy_only=False) > 0
    special = np.ones_like(referenced) if aligned else referenced | rows.truncated
    for row in np.flatnonzero(special).tolist():
        value = {name: rows.batch.column(name)[row].as_py() for name in rows.batch.schema.names}
        if value["references"]:
            pairs[row] += json.dumps(value["references"])
        if rows.truncated[row]:
            ended = "" if value["ended"] else " cut off"
            pairs[row] += f"{value['source']} {value['target']}{ended}"
        if aligned:
            pairs[row] += f"{len(value['links'])} {value['links']}"
    return "".join(pairs).encode()


def _cut(ids: Ids, side: int, options: Options) -> Ids:
    """Return the ids that are read."""
    truncate = options.data.truncate
    if (truncate.source, truncate.target)[side] is None:
        return ids
    return Ids.of([truncate.cut(side, row) for row in ids.rows()])  # type: ignore[arg-type]


def _kept(
    unit: Unit,
    read: Sequence[Ids],
    whole: Sequence[Ids],
    truncated: Flags,
    of: tuple[str, Options],
    seen: SeenPairs,
    report: Report,
) -> Flags:
    """Return which pairs are kept; the report counts the others, and those that are worth a notice."""
    name, options = of
    count, what = options.data.filtered
    lengths = np.stack([ids.lengths for ids in read[:count]])
    limits = options.limits
    if limits is None:
        reasons, texts = (lengths == 0).any(0).astype(int), NOTICES
        kept = np.ones(len(unit.pairs), dtype=bool)
    else:
        reasons, texts = _reasons(lengths, limits), REASONS
        if not limits.duplicates and (passed := np.flatnonzero(reasons == 0)).size:
            new = seen.add(keys_of(*([side[row] for row in passed.tolist()] for side in unit.texts)))
            reasons[passed[~new]] = REASONS.index("duplicate")
        kept = reasons == 0
    for row in np.flatnonzero((reasons > 0) | truncated).tolist():
        where = f"{name}:{unit.pairs[row].line}"
        if reasons[row]:
            report.note(texts[reasons[row]], f"{where}: {' and '.join(map(str, lengths[:, row]))} {what}")
        if truncated[row] and kept[row]:
            sizes = " and ".join(str(ids.lengths[row]) for ids in whole)
            report.note("truncated, but kept", f"{where}: {sizes} pieces")
    report.kept += int(kept.sum())
    return kept


def _reasons(lengths: NDArray[np.int32], limits: FilterRecipe) -> NDArray[np.int64]:
    """Return why pairs are left out for their lengths (sides, N), as indices of REASONS; 0: they are not."""
    shortest, longest = lengths.min(0), lengths.max(0)
    ratio = np.inf if limits.max_ratio is None else limits.max_ratio
    with np.errstate(invalid="ignore"):  # 0 times infinity, which is an empty text
        faults = [
            shortest == 0,
            shortest < limits.min_length,
            longest > limits.max_length,
            longest > ratio * shortest,
        ]
    return np.select(faults, [1, 2, 3, 4], 0)


def _links(pair: Pair, options: Options, lengths: Sequence[int]) -> list[int]:
    """Return the links between the kept pieces of a pair: source, target, source, target, ..."""
    if pair.links is None:
        return []
    source, target = (
        {piece: index for index, piece in enumerate(options.data.truncate.cut(side, range(length)))}
        for side, length in enumerate(lengths)
    )
    links = between_pieces(pair.links, pair[:2], cast("tuple[Vocabulary, Vocabulary]", options.vocabularies))
    kept = [link for link in links if link.source in source and link.target in target]
    return [index for link in kept for index in (source[link.source], target[link.target])]
