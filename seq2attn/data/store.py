"""Pairs -> a tokenised Arrow store, memory-mapped and cached -> examples."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from seq2attn.data.corpora import Role, Source, Use, open_corpus
from seq2attn.data.examples import Examples, Part, digest
from seq2attn.data.files import Pair
from seq2attn.data.gold_alignments import between_pieces
from seq2attn.data.report import DataError, Report
from seq2attn.recipe import AnyCorpus, AnyLabelled, DataRecipe, FilterRecipe, LabelledDataRecipe
from seq2attn.text.vocabulary import Vocabulary


class Coder(Protocol):
    """What makes ids of texts: a vocabulary of pieces, a lexicon of words, labels."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal ids of all texts."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""


Coders = tuple[Coder, Coder]

FORMAT = 4  # of a store; another one makes it anew
ROWS = 1000  # encoded and written at a time


class _Row(NamedTuple):
    source: Sequence[int]
    target: Sequence[int]
    source_text: str
    target_text: str
    references: tuple[str, ...]  # beyond the target; in training each is a row of its own
    links: list[int]  # between pieces: source, target, source, target, ...
    truncated: bool  # its ids are not those of the whole texts
    ended: bool  # its target is read to its end


def _silent(_: int) -> None:
    """Progress that nobody watches."""


def prepare(
    corpora: Sequence[AnyCorpus | AnyLabelled],
    data: DataRecipe | LabelledDataRecipe,
    vocabularies: Coders,
    role: Role,
    progress: Callable[[int], None] = _silent,
    words: str = "auto",
) -> Examples:
    """Read, filter and tokenise corpora, or take the result from the cache if nothing has changed since.

    Ids are what `data.truncate` leaves; texts are whole. Pairs are filtered for training alone, where each of
    several references makes a pair of its own: what the model is measured on stays as it is, all references
    included, and its empty sentences are only reported. Each corpus has a store of its own, in
    $SEQ2ATTN_CACHE or the cache folder of `datasets`; the data, the vocabularies and the options give its
    name.

    Args:
        corpora: `data.train`, or `[data.dev]`.
        role: what they are for.
        progress: is called now and then with the number of pairs read since; not if the cache has them.
        words: how raw text that has labels is cut into words, as the recipe's `text.words` says.

    Raises:
        DataError: data that cannot be read, a bad line if `data.bad_lines` is stop, or no pair at all.
    """
    parts = []
    for number, corpus in enumerate(corpora):
        place = f"data.{role}" + (f".{number}" if role == "train" else "")
        source = open_corpus(corpus, Use(data.languages, role, place, data.tag_scheme, words))
        options = _Options(corpus, data, vocabularies, role == "train")
        path = _cache() / f"{options.name(source)}.arrow"
        report_path = path.with_suffix(".json")
        if not _complete(path, report_path):
            _write(path, report_path, source, options, progress)
        parts.append(_open(path, report_path, corpus.weight))
    return Examples(parts)


class _Options(NamedTuple):
    """What the store of a corpus depends on, beside its data."""

    corpus: AnyCorpus | AnyLabelled
    data: DataRecipe | LabelledDataRecipe
    vocabularies: Coders
    training: bool

    @property
    def measured(self) -> tuple[int, str]:
        """How many sides have a length that counts (of labelled data only the source), and of what."""
        return (1, "words") if isinstance(self.data, LabelledDataRecipe) else (2, "pieces")

    def name(self, source: Source) -> str:
        """Of the store; different if its content could be."""
        corpus = self.corpus.model_dump(mode="json", exclude={"weight"})
        filters = self.data.filter.model_dump(mode="json") if self.training else None
        vocabularies = [vocabulary.fingerprint for vocabulary in self.vocabularies]
        reading = [self.data.languages, self.data.bad_lines, self.data.truncate.model_dump(mode="json")]
        return digest([FORMAT, source.state, corpus, *reading, filters, vocabularies])


def _cache() -> Path:
    """Where stores lie."""
    import datasets

    folder = Path(os.environ.get("SEQ2ATTN_CACHE") or Path(datasets.config.HF_DATASETS_CACHE) / "seq2attn")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be made ({error.strerror}): set SEQ2ATTN_CACHE to a folder"
        ) from error
    return folder


def _complete(path: Path, report_path: Path) -> bool:
    """Whether the store was written to its end: its report is written last and knows its size."""
    try:
        return bool(path.stat().st_size == json.loads(report_path.read_text(encoding="utf-8"))["size"])
    except (OSError, ValueError, LookupError):
        return False


def _open(path: Path, report_path: Path, weight: float) -> Part:
    import datasets

    notes = json.loads(report_path.read_text(encoding="utf-8"))
    table = datasets.Dataset.from_file(str(path)).with_format("arrow")[:]
    return Part(table.to_batches(), Report.from_dict(notes["report"]), notes["content"], weight)


def _write(
    path: Path, report_path: Path, source: Source, options: _Options, progress: Callable[[int], None]
) -> None:
    """Write a store beside its place and then move it there, so that it is never seen half done."""
    import datasets
    from datasets.arrow_writer import ArrowWriter

    ids, text = datasets.Sequence(datasets.Value("int32")), datasets.Value("string")
    columns = {"source": ids, "target": ids, "source_text": text, "target_text": text}
    columns |= {"references": datasets.Sequence(text), "ended": datasets.Value("bool")}
    columns |= {"links": ids} if options.corpus.aligned else {}
    report = Report(stop=options.data.bad_lines == "stop")
    content = hashlib.sha256("".join(vocabulary.fingerprint for vocabulary in options.vocabularies).encode())
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        with ArrowWriter(path=str(draft), features=datasets.Features(columns)) as writer:
            for rows in _rows(source, options, report, progress):
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
                    writer.write_batch({name: [getattr(row, name) for row in rows] for name in columns})
            if not report.kept:
                raise DataError(f"no pair is left of {source.name}: {report}")
            writer.finalize()
        notes = {"size": draft.stat().st_size, "content": content.hexdigest(), "report": report.to_dict()}
        draft.replace(path)
        draft.write_text(json.dumps(notes, indent=1), encoding="utf-8")
        draft.replace(report_path)


def _rows(
    source: Source, options: _Options, report: Report, progress: Callable[[int], None]
) -> Iterator[list[_Row]]:
    """Encoded pairs, some at a time; without those that the filters leave out."""
    limits = options.data.filter if options.training else None
    cut, ends, (count, unit) = options.data.truncate.cut, options.data.truncate.ends, options.measured
    seen: set[bytes] = set()
    stream: Iterator[Pair] = islice(source.read(report), options.corpus.limit)
    if options.training:
        stream = chain.from_iterable(pair.apart() for pair in stream)
    while pairs := list(islice(stream, ROWS)):
        report.read += len(pairs)
        source_ids = options.vocabularies[0].encode([pair.source for pair in pairs])
        target_ids = options.vocabularies[1].encode([pair.target for pair in pairs])
        rows = []
        for pair, *whole in zip(pairs, source_ids, target_ids, strict=True):
            sides = cut(0, whole[0]), cut(1, whole[1])
            lengths = len(sides[0]), len(sides[1])
            place = f"{source.name}:{pair.line}"
            reason = _reason(pair, lengths[:count], limits, seen)
            if reason is not None:
                report.note(reason, f"{place}: {' and '.join(map(str, lengths[:count]))} {unit}")
            if reason is None or limits is None:
                truncated = lengths != (len(whole[0]), len(whole[1]))
                if truncated:
                    came = f"{place}: {len(whole[0])} and {len(whole[1])} pieces"
                    report.note("truncated, but kept", came)
                texts, links = (pair.source, pair.target), _links(pair, options, whole)
                rows.append(_Row(*sides, *texts, pair.references, links, truncated, ends(whole[1])))
        report.kept += len(rows)
        progress(len(pairs))
        yield rows


def _links(pair: Pair, options: _Options, whole: Sequence[Sequence[int]]) -> list[int]:
    """The links between the pieces of a pair that are read, one behind the other."""
    if pair.links is None:
        return []
    source, target = (
        {piece: place for place, piece in enumerate(options.data.truncate.cut(side, range(len(pieces))))}
        for side, pieces in enumerate(whole)
    )
    found = between_pieces(pair.links, pair[:2], cast("tuple[Vocabulary, Vocabulary]", options.vocabularies))
    kept = [link for link in found if link.source in source and link.target in target]
    return [place for link in kept for place in (source[link.source], target[link.target])]


def _reason(
    pair: Pair, lengths: tuple[int, ...], limits: FilterRecipe | None, seen: set[bytes]
) -> str | None:
    """Why a pair is left out or worth a notice, if it is; `seen` holds the pairs before."""
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
