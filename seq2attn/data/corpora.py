"""Open the corpora of a recipe: pairs of texts, whatever they are stored in."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from seq2attn.data.files import Pair, existing, file_state, json_lines, parallel, table
from seq2attn.data.hub import class_names, dataset_pairs, dataset_state, load
from seq2attn.data.labelled import cells, columns, each_side, labelled, pick, tagged
from seq2attn.data.report import DataError, Report
from seq2attn.data.synthetic import MAKING, make
from seq2attn.recipe import (
    AnyCorpus,
    AnyLabelled,
    ColumnsCorpus,
    DataRecipe,
    DatasetCorpus,
    FilesCorpus,
    LabelledDataRecipe,
    LabelledDataset,
    LabelledTable,
    LanguagesSample,
    SampleCorpus,
    TableCorpus,
    TaskCorpus,
)

Role = Literal["train", "dev", "test"]
Read = Callable[[Report], Iterator[Pair]]

SAMPLES = Path(__file__).parent.parent / "samples"


class Source(NamedTuple):
    """An open corpus, which can be read any number of times."""

    name: str  # of the file or dataset, to which line numbers refer
    state: Any  # JSON; changes when the data change
    read: Read


class Use(NamedTuple):
    """How a recipe uses a corpus: all that its own section does not say."""

    languages: tuple[str, str]  # source and target
    role: Role  # the split of a sample or synthetic task, if the corpus does not name one
    key: str  # the corpus's key in the recipe, for errors
    scheme: str | None = None  # of the tags, if words are tagged
    words: str = "auto"  # how labelled raw text is tokenized, see the recipe's `text.words`


def open_corpus(corpus: AnyCorpus | AnyLabelled, use: Use) -> Source:
    """Open a corpus by the opener of its class, or of the nearest base class that has one.

    Raises:
        DataError: it does not exist, or does not fit what the recipe says.
    """
    opener = next(OPENERS[kind] for kind in type(corpus).__mro__ if kind in OPENERS)
    return opener(corpus, use)


def _open_sample(corpus: SampleCorpus, use: Use) -> Source:
    there = corpus.languages
    if sorted(use.languages) != sorted(there):
        raise DataError(
            f"data.languages: {corpus.sample} has {' and '.join(there)}, not {' and '.join(use.languages)}"
        )
    path = _sample_path(corpus, use.role)
    sides = there.index(use.languages[0]), there.index(use.languages[1])
    return Source(f"{corpus.sample}/{path.name}", [file_state(path)], partial(table, path, sides))


def _open_languages_sample(corpus: LanguagesSample, use: Use) -> Source:
    path = _sample_path(corpus, use.role)
    state = [file_state(path), "languages", use.words]
    read = partial(each_side, path, corpus.languages, use.words)
    return Source(f"{corpus.sample}/{path.name}", state, read)


def _open_files(corpus: FilesCorpus, use: Use) -> Source:
    source, target = (existing(file, f"{use.key}.files.{side}") for side, file in enumerate(corpus.files))
    links = corpus.alignments and existing(corpus.alignments, f"{use.key}.alignments")
    state = [file_state(path) for path in (source, target, links) if path]
    return Source(str(source), state, partial(parallel, source, target, links or None))


def _open_table(corpus: TableCorpus, use: Use) -> Source:
    path = existing(corpus.table, f"{use.key}.table")
    keys: Any = corpus.columns  # all numbers or all text, as the recipe has checked
    reader: Any = json_lines if isinstance(keys[0], str) else table
    return Source(str(path), [file_state(path)], partial(reader, path, keys))


def _open_task(corpus: TaskCorpus, use: Use) -> Source:
    split = corpus.split or use.role
    return Source(f"{corpus.task}[{split}]", [MAKING, split], partial(make, corpus, split))


def _open_dataset(corpus: DatasetCorpus, use: Use) -> Source:
    dataset, commit = load(corpus, use.key)
    read = partial(dataset_pairs, dataset, corpus, use.key)
    state = dataset_state(dataset, corpus, use.key, commit)
    return Source(f"{corpus.dataset}[{corpus.split}]", state, read)


def _open_columns(corpus: ColumnsCorpus, use: Use) -> Source:
    path = existing(corpus.conll, f"{use.key}.conll")
    return _labelled(
        corpus, use, Source(str(path), [file_state(path)], partial(columns, path, corpus.columns))
    )


def _open_labelled_table(corpus: LabelledTable, use: Use) -> Source:
    path = existing(corpus.table, f"{use.key}.table")
    keys: Any = corpus.columns
    read: Read = (
        partial(json_lines, path, keys, read=partial(pick, words=use.words, tags=use.scheme is not None))
        if isinstance(keys[0], str)
        else partial(cells, path, keys, use.scheme is not None, use.words)
    )
    return _labelled(corpus, use, Source(str(path), [file_state(path)], read))


def _open_labelled_dataset(corpus: LabelledDataset, use: Use) -> Source:
    """Class labels, which are numbers in the dataset, are read by their names."""
    dataset, commit = load(corpus, use.key)
    names = class_names(dataset, corpus.columns[1])
    read_row = partial(pick, names=names, words=use.words, tags=use.scheme is not None)
    read = partial(dataset_pairs, dataset, corpus, use.key, read=read_row)
    state = dataset_state(dataset, corpus, use.key, commit)
    return _labelled(corpus, use, Source(f"{corpus.dataset}[{corpus.split}]", state, read))


def _labelled(corpus: ColumnsCorpus | LabelledTable | LabelledDataset, use: Use, rows: Source) -> Source:
    """Check the labels of the rows of a corpus, or its tags if there is a scheme."""
    name, scheme = rows.name, use.scheme
    state = [rows.state, scheme, use.words]
    if scheme is None:
        return Source(name, state, lambda report: labelled(rows.read(report), name, report))
    key = f"{use.key}.columns {list(corpus.columns)}"
    return Source(name, state, lambda report: tagged(rows.read(report), scheme, name, key, report))


OPENERS: dict[type, Callable[[Any, Use], Source]] = {
    SampleCorpus: _open_sample,
    FilesCorpus: _open_files,
    TableCorpus: _open_table,
    DatasetCorpus: _open_dataset,
    TaskCorpus: _open_task,
    ColumnsCorpus: _open_columns,
    LabelledTable: _open_labelled_table,
    LabelledDataset: _open_labelled_dataset,
    LanguagesSample: _open_languages_sample,
}


def pairs(
    corpus: AnyCorpus | AnyLabelled,
    languages: tuple[str, str],
    report: Report,
    role: Role = "train",
    key: str = "data",
    scheme: str | None = None,
    words: str = "auto",
) -> Iterator[Pair]:
    """Stream the pairs of a corpus in its order, up to `corpus.limit`. Nothing is filtered.

    The other arguments are the fields of `Use`.

    Raises:
        DataError: as `open_corpus` does, and at the first bad line if `report.stop`.
    """
    source = open_corpus(corpus, Use(languages, role, key, scheme, words))
    for pair in islice(source.read(report), corpus.limit):
        report.read += 1
        report.kept += 1
        yield pair


def with_scheme(data: DataRecipe | LabelledDataRecipe) -> DataRecipe | LabelledDataRecipe:
    """Return the data of a recipe with the tag scheme of its training corpora, if it is to be guessed.

    Data stay as they are if training corpora have different schemes, or cannot be read.
    """
    if data.tag_scheme != "auto":
        return data
    report = Report(stop=False)
    for number, corpus in enumerate(data.train):
        first = corpus.model_copy(update={"limit": 1})  # tags are guessed before any is used
        try:
            next(pairs(first, data.languages, report, "train", f"data.train.{number}", data.tag_scheme), None)
        except DataError:
            return data
    schemes = report.schemes
    return data.model_copy(update={"scheme": schemes[0]}) if len(schemes) == 1 else data


def training_text(
    data: DataRecipe | LabelledDataRecipe,
    sides: tuple[int, ...] = (0, 1),
    words: str = "auto",
    normalize_source: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Iterator[str]:
    """Stream the raw text of the training corpora, from which a vocabulary is learned.

    sides: the source (0), the target (1) with all its references, or both in turn.
    words: how labelled raw text is tokenized, see the recipe's `text.words`.
    normalize_source: returns source texts as the vocabulary will see them.
    Bad lines are treated as `data.bad_lines` says.
    """
    report = Report(stop=data.bad_lines == "stop")
    for number, corpus in enumerate(data.train):
        key = f"data.train.{number}"
        for pair in pairs(corpus, data.languages, report, "train", key, data.tag_scheme, words):
            for side in sides:
                yield from (pair.target, *pair.references) if side else normalize_source([pair.source])


def _sample_path(corpus: SampleCorpus, role: Role) -> Path:
    return SAMPLES / corpus.sample / f"{corpus.split or role}.tsv.xz"
