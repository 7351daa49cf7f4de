"""Pairs of texts -> a tokenised Arrow store, cached on disk and memory-mapped -> examples."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from seq2attn.alignment.word_alignment import Link
from seq2attn.data.cache import Notes, stored
from seq2attn.data.corpora import Role, Source, Use, open_corpus
from seq2attn.data.examples import Examples, Part, digest
from seq2attn.data.files import Pair
from seq2attn.data.gold_alignments import between_pieces
from seq2attn.data.report import DataError, Report, silent
from seq2attn.recipe import AnyCorpus, AnyLabelled, DataRecipe, FilterRecipe, LabelledDataRecipe
from seq2attn.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    import datasets
    from datasets.arrow_writer import ArrowWriter


class Coder(Protocol):
    """Turns texts into ids: a vocabulary of pieces, a word vocabulary, or labels."""

    @property
    def fingerprint(self) -> str:
        """A hash that is equal if the ids of all texts are equal."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""


Coders = tuple[Coder, Coder]

FORMAT = 6  # version of the store's format; stores of other versions are made again
ROWS = 1000  # encoded and written at a time


class _Row(NamedTuple):
    source: Sequence[int]
    target: Sequence[int]
    source_text: str
    target_text: str
    references: tuple[str, ...]  # further targets; in training each has its own row
    links: list[int]  # between pieces: source, target, source, target, ...
    truncated: bool  # the ids are not those of the whole texts
    ended: bool  # the ids have the end of the target


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
    which is named by a hash of the data, the vocabularies and the options. One that is damaged is made again.

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
        options = _Options(corpus, data, vocabularies, role == "train")
        columns = partial(_columns, corpus.aligned)
        store = stored(options.name(source), columns, partial(_write, source, options, progress))
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


def _tag(corpus: AnyCorpus | AnyLabelled) -> str | None:
    tag: str | None = getattr(corpus, "tag", None)  # labelled words have none
    return tag


def _tagged(pair: Pair, tag: str | None) -> Pair:
    """Return a pair whose source begins with a tag, which is a word of its own."""
    if tag is None or not pair.source.strip():
        return pair
    links = None if pair.links is None else tuple(Link(source + 1, target) for source, target in pair.links)
    return pair._replace(source=f"{tag} {pair.source}", links=links)


class _Options(NamedTuple):
    """The settings on which the store of a corpus depends, besides its data."""

    corpus: AnyCorpus | AnyLabelled
    data: DataRecipe | LabelledDataRecipe
    vocabularies: Coders
    training: bool

    def name(self, source: Source) -> str:
        """Return the name of the store; it differs if the content may differ."""
        unused = {"weight", *(() if _tag(self.corpus) else ("tag",))}
        corpus = self.corpus.model_dump(mode="json", exclude=unused)
        filters = self.data.filter.model_dump(mode="json") if self.training else None
        vocabularies = [vocabulary.fingerprint for vocabulary in self.vocabularies]
        reading = [self.data.languages, self.data.bad_lines, self.data.truncate.model_dump(mode="json")]
        return digest([FORMAT, source.state, corpus, *reading, filters, vocabularies])


def _columns(aligned: bool) -> "datasets.Features":
    """Return the columns of the table."""
    import datasets

    ids, text = datasets.Sequence(datasets.Value("int32")), datasets.Value("string")
    columns = {"source": ids, "target": ids, "source_text": text, "target_text": text}
    columns |= {"references": datasets.Sequence(text), "ended": datasets.Value("bool")}
    return datasets.Features(columns | ({"links": ids} if aligned else {}))


def _write(
    source: Source, options: _Options, progress: Callable[[Report], object], writer: "ArrowWriter"
) -> Notes:
    """Write the rows of a corpus."""
    report = Report(stop=options.data.bad_lines == "stop", progress=progress)
    content = hashlib.sha256("".join(vocabulary.fingerprint for vocabulary in options.vocabularies).encode())
    for rows in _rows(source, options, report):
        for row in rows:
            sizes = f"{len(row.source_text)} {len(row.target_text)} "
            content.update(f"{sizes}{row.source_text}{row.target_text}".encode())
            if row.references:
                content.update(json.dumps(row.references).encode())
            if row.truncated:
                ended = "" if row.ended else " cut off"
                content.update(f"{list(row.source)} {list(row.target)}{ended}".encode())
            if options.corpus.aligned:
                content.update(f"{len(row.links)} {row.links}".encode())
        if rows:
            columns = _columns(options.corpus.aligned)
            writer.write_batch({name: [getattr(row, name) for row in rows] for name in columns})
    if not report.kept:
        raise DataError(f"no pair is left of {source.name}: {report}")
    return Notes(report, content.hexdigest(), {})


def _rows(source: Source, options: _Options, report: Report) -> Iterator[list[_Row]]:
    """Yield batches of encoded pairs, without those that the filters leave out."""
    limits = options.data.filter if options.training else None
    cut, ends, (count, unit) = options.data.truncate.cut, options.data.truncate.ends, options.data.filtered
    seen: set[bytes] = set()
    tag = _tag(options.corpus)
    stream: Iterator[Pair] = (
        _tagged(pair, tag) for pair in islice(source.read(report), options.corpus.limit)
    )
    if options.training:
        stream = chain.from_iterable(pair.per_reference() for pair in stream)
    while pairs := list(islice(stream, ROWS)):
        report.read += len(pairs)
        source_ids = options.vocabularies[0].encode([pair.source for pair in pairs])
        target_ids = options.vocabularies[1].encode([pair.target for pair in pairs])
        rows = []
        for pair, *whole in zip(pairs, source_ids, target_ids, strict=True):
            sides = cut(0, whole[0]), cut(1, whole[1])
            lengths = len(sides[0]), len(sides[1])
            where = f"{source.name}:{pair.line}"
            reason = _reason(pair, lengths[:count], limits, seen)
            if reason is not None:
                report.note(reason, f"{where}: {' and '.join(map(str, lengths[:count]))} {unit}")
            if reason is None or limits is None:
                truncated = lengths != (len(whole[0]), len(whole[1]))
                if truncated:
                    message = f"{where}: {len(whole[0])} and {len(whole[1])} pieces"
                    report.note("truncated, but kept", message)
                texts, links = (pair.source, pair.target), _links(pair, options, whole)
                rows.append(_Row(*sides, *texts, pair.references, links, truncated, ends(whole[1])))
        report.kept += len(rows)
        report.progress(report)
        yield rows


def _links(pair: Pair, options: _Options, whole: Sequence[Sequence[int]]) -> list[int]:
    """Return the links between the kept pieces of a pair: source, target, source, target, ..."""
    if pair.links is None:
        return []
    source, target = (
        {piece: index for index, piece in enumerate(options.data.truncate.cut(side, range(len(pieces))))}
        for side, pieces in enumerate(whole)
    )
    links = between_pieces(pair.links, pair[:2], cast("tuple[Vocabulary, Vocabulary]", options.vocabularies))
    kept = [link for link in links if link.source in source and link.target in target]
    return [index for link in kept for index in (source[link.source], target[link.target])]


def _reason(
    pair: Pair, lengths: tuple[int, ...], limits: FilterRecipe | None, seen: set[bytes]
) -> str | None:
    """Return why a pair is left out or worth a notice; None if neither. `seen` has hashes of the pairs
    before."""
    if limits is None:
        return "empty, but kept" if 0 in lengths else None
    if 0 in lengths:
        return "empty"
    if min(lengths) < limits.min_length:
        return "too short"
    if max(lengths) > limits.max_length:
        return "too long"
    if limits.max_ratio is not None and max(lengths) > limits.max_ratio * min(lengths):
        return "length ratio"
    if not limits.duplicates:
        sides = f"{len(pair.source)} {pair.source}{pair.target}"  # texts may have line feeds
        digest = hashlib.blake2b(sides.encode(), digest_size=16).digest()
        if digest in seen:
            return "duplicate"
        seen.add(digest)
    return None
