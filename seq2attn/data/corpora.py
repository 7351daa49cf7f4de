"""Corpora of a recipe -> pairs of sentences, whatever they are stored in."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from seq2attn.data.files import Pair, json_lines, missing, parallel, table
from seq2attn.data.hub import class_names, dataset_pairs, load, local_paths
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

SAMPLES = Path(__file__).parent.parent / "samples"


class Source(NamedTuple):
    """A corpus that has been found, and can be read as often as wanted."""

    name: str  # what line numbers belong to
    state: Any  # JSON; changes when the data change
    read: Callable[[Report], Iterator[Pair]]


def find(
    corpus: AnyCorpus | AnyLabelled,
    languages: tuple[str, str],
    role: Role,
    place: str,
    scheme: str | None = None,
    words: str = "auto",
) -> Source:
    """Find a corpus.

    Args:
        languages: source and target, as in the recipe.
        role: which split of a sample or a task is meant if the corpus does not say.
        place: the corpus's path in the recipe, for errors.
        scheme: of the tags of words, if it has some.
        words: how raw text that has labels is cut into words, as the recipe's `text.words` says.

    Raises:
        DataError: it is not there, or cannot be what the recipe says.
    """
    if isinstance(corpus, LanguagesSample):
        path = _sample(corpus, role)
        state = [_state(path), "languages", words]
        return Source(
            f"{corpus.sample}/{path.name}", state, partial(each_side, path, corpus.languages, words)
        )
    if isinstance(corpus, ColumnsCorpus | LabelledTable | LabelledDataset):
        return _labelled(corpus, place, scheme, words)
    if isinstance(corpus, SampleCorpus):
        path = _sample(corpus, role)
        places = _sample_columns(corpus, languages)
        return Source(f"{corpus.sample}/{path.name}", [_state(path)], partial(table, path, places))
    if isinstance(corpus, FilesCorpus):
        source, target = (_path(file, f"{place}.files.{side}") for side, file in enumerate(corpus.files))
        links = corpus.alignments and _path(corpus.alignments, f"{place}.alignments")
        state = [_state(path) for path in (source, target, links) if path]
        return Source(str(source), state, partial(parallel, source, target, links or None))
    if isinstance(corpus, TableCorpus):
        path = _path(corpus.table, f"{place}.table")
        keys: Any = corpus.columns  # all numbers or all text; the recipe has seen to it
        reader: Any = json_lines if isinstance(keys[0], str) else table
        return Source(str(path), [_state(path)], partial(reader, path, keys))
    if isinstance(corpus, TaskCorpus):
        split = corpus.split or role
        return Source(f"{corpus.task}[{split}]", [MAKING, split], partial(make, corpus, split))
    return _dataset(corpus, place)


def _dataset(corpus: DatasetCorpus, place: str, words: str = "auto") -> Source:
    """A dataset; what is labelled in it is read by the names of its class labels."""
    dataset = load(corpus, place)
    read = partial(dataset_pairs, dataset, corpus, place)
    if isinstance(corpus, LabelledDataset):
        read = partial(read, read=partial(pick, names=class_names(dataset, corpus.columns[1]), words=words))
    state = getattr(dataset, "_fingerprint", None) or [_state(path) for path in local_paths(corpus)]
    return Source(f"{corpus.dataset}[{corpus.split}]", state, read)


def _labelled(
    corpus: ColumnsCorpus | LabelledTable | LabelledDataset, place: str, scheme: str | None, words: str
) -> Source:
    """A corpus of labelled words."""
    if isinstance(corpus, LabelledDataset):
        name, state, read = _dataset(corpus, place, words)
    else:
        file, key = (corpus.conll, "conll") if isinstance(corpus, ColumnsCorpus) else (corpus.table, "table")
        path = _path(file, f"{place}.{key}")
        name, state = str(path), [_state(path)]
        keys: Any = corpus.columns
        if isinstance(corpus, ColumnsCorpus):
            read = partial(columns, path, keys)
        elif isinstance(keys[0], str):
            read = partial(json_lines, path, keys, read=partial(pick, words=words))
        else:
            read = partial(cells, path, keys, scheme is not None, words)
    state = [state, scheme, words]
    if scheme is None:
        return Source(name, state, lambda report: labelled(read(report), name, report))
    asked = f"{place}.columns {list(corpus.columns)}"
    return Source(name, state, lambda report: tagged(read(report), scheme, name, asked, report))


def pairs(
    corpus: AnyCorpus | AnyLabelled,
    languages: tuple[str, str],
    report: Report,
    role: Role = "train",
    place: str = "data",
    scheme: str | None = None,
    words: str = "auto",
) -> Iterator[Pair]:
    """The pairs of a corpus in its order, as a stream; `corpus.limit` ends it. Nothing is filtered.

    Raises:
        DataError: as `find` does, and at the first bad line if `report.stop`.
    """
    for pair in islice(find(corpus, languages, role, place, scheme, words).read(report), corpus.limit):
        report.read += 1
        report.kept += 1
        yield pair


def training_text(
    data: DataRecipe | LabelledDataRecipe, sides: tuple[int, ...] = (0, 1), words: str = "auto"
) -> Iterator[str]:
    """The raw text of the training corpora, to learn a vocabulary from: of the source (0), the target (1), or
    both in turn; what has labels is cut into `words`. All references count. Bad lines do what
    `data.bad_lines` says.
    """
    report = Report(stop=data.bad_lines == "stop")
    for number, corpus in enumerate(data.train):
        place = f"data.train.{number}"
        for pair in pairs(corpus, data.languages, report, "train", place, data.tag_scheme, words):
            for side in sides:
                yield from (pair.target, *pair.references) if side else (pair.source,)


def _sample(corpus: SampleCorpus, role: Role) -> Path:
    return SAMPLES / corpus.sample / f"{corpus.split or role}.tsv.xz"


def _sample_columns(corpus: SampleCorpus, languages: tuple[str, str]) -> tuple[int, int]:
    there = corpus.languages
    if sorted(languages) != sorted(there):
        raise DataError(
            f"data.languages: {corpus.sample} has {' and '.join(there)}, not {' and '.join(languages)}"
        )
    return there.index(languages[0]), there.index(languages[1])


def _path(file: str, place: str) -> Path:
    fault = missing(file)
    if fault is not None:
        raise DataError(f"{place}: {fault}")
    return Path(file)


def _state(path: Path) -> list[Any]:
    """Changes when the file does."""
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]
