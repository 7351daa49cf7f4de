"""Read datasets with `datasets.load_dataset`: from the hub, a folder, or parquet, json, csv, text files."""

import glob
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswer
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from math import inf
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from seq2attn.data.files import Pair, Pick, file_state, names, pick
from seq2attn.data.remote_files import is_remote, network_error, read_fault, remote_state
from seq2attn.data.report import DataError, Report
from seq2attn.recipe import FORMATS, DatasetCorpus

if TYPE_CHECKING:
    import datasets

PATIENCE = 8.0  # seconds to wait for the hub, whose client would retry for minutes
ROWS = 1000  # read at a time


class Loaded(NamedTuple):
    """A dataset, and its commit, if the hub was asked for it and has answered."""

    dataset: Any  # a Dataset, or an IterableDataset
    commit: str | None


def load(corpus: DatasetCorpus, key: str) -> Loaded:
    """Load a dataset. `key` is that of the corpus in the recipe, for errors.

    Raises:
        DataError: it cannot be loaded. If the hub cannot be reached, this is raised within seconds.
    """
    library = _library()
    name = corpus.dataset
    local = _is_local(name)
    for field, message in missing_parts(corpus):
        raise DataError(f"{key}.{field}: {message}")
    answer = None if local else _commit(name, corpus.revision, key)
    unreached = answer if isinstance(answer, BaseException) else None
    try:
        with _from_cache_alone(unreached is not None):
            options = {
                "name": corpus.config,
                "data_files": _literal(corpus.data_files),
                "revision": corpus.revision,
            }
            text = _as_text(library, name, options, corpus.columns)
            options |= text.options
            dataset = library.load_dataset(name, **options, split=corpus.split, streaming=corpus.streaming)
            dataset = dataset.cast(text.features) if text.features else dataset
            return Loaded(dataset, answer if isinstance(answer, str) else None)
    except Exception as error:
        if not _is_failure(error):
            raise
        raise _fault(corpus, key, error, unreached) from error


class _AsText(NamedTuple):
    """How a dataset is loaded so that texts stay as they are written."""

    options: dict[str, Any]
    features: "datasets.Features | None" = None  # to which it is cast after loading; None: it is not


def _as_text(library: ModuleType, name: str, options: dict[str, Any], columns: Sequence[str]) -> _AsText:
    """Return how the texts of CSV and JSON files are read as they stand, in which types are guessed.

    Columns whose types the dataset declares itself keep them.
    """
    from datasets.packaged_modules.csv.csv import Csv
    from datasets.packaged_modules.json.json import Json

    builder = library.load_dataset_builder(name, **options)
    if not isinstance(builder, Csv | Json):
        return _AsText({})
    declared = builder.info.features
    if declared is not None and isinstance(builder, Csv):
        return _AsText({"keep_default_na": False, "na_values": [""]})
    split = next(iter(builder.config.data_files or {}), None)
    load = partial(library.load_dataset, name, **options, split=split)
    return _csv_as_text(library, load) if isinstance(builder, Csv) else _json_as_text(load, declared, columns)


def _csv_as_text(library: ModuleType, load: Callable[..., Any]) -> _AsText:
    """Read all cells of CSV files as text. By default pandas guesses the types of columns from each 10,000
    lines, so that `null` is lost and `007` becomes 7.

    Raises ValueError if rows are longer than the header, which pandas would read as shifted columns.
    """
    columns = list(next(iter(load(na_filter=False, streaming=True)), {}))
    if "__index_level_0__" in columns:
        raise ValueError(
            "lines have more cells than the header: put cells with commas in double quotes, and give each "
            "column a name"
        )
    features = library.Features({column: library.Value("string") for column in columns})
    return _AsText({"na_filter": False, **({"features": features} if columns else {})})


def _json_as_text(
    load: Callable[..., Any], declared: "datasets.Features | None", columns: Sequence[str]
) -> _AsText:
    """Read the texts of these columns as bytes, and then as text. By default pyarrow guesses the types of
    each block of lines: one with nothing but dates would become `2009-01-05 00:00:00`. It cannot be cast to
    bytes, so that loading fails instead (`_explained` says what to do)."""
    features = declared or load(streaming=True).features or load().features  # a stream of a list has none
    if features is None:
        return _AsText({})
    return _AsText({"features": type(features)(_as_bytes(features, columns))}, features)


def _as_bytes(feature: Any, keys: Sequence[str]) -> Any:
    """Return a feature whose texts under these dotted keys are bytes, also those that look like times. The
    key "" is that of everything."""
    from datasets import List, Value

    if isinstance(feature, dict):
        below = {
            name: [key[len(name) + 1 :] for key in keys if not key or _begins(key, name)] for name in feature
        }
        return {name: _as_bytes(value, below[name]) for name, value in feature.items()}
    if isinstance(feature, List):
        return List(_as_bytes(feature.feature, [key.partition(".")[2] for key in keys]), feature.length)
    is_text = isinstance(feature, Value) and feature.dtype.startswith(("string", "large_string", "time"))
    return Value("binary") if keys and is_text else feature


def _patterns(corpus: DatasetCorpus) -> list[str]:
    """Return the data files of the corpus, which may have wildcards."""
    files = corpus.data_files or []
    return [files] if isinstance(files, str) else files


def local_paths(corpus: DatasetCorpus) -> list[Path]:
    """Return the local files of the dataset that exist, sorted."""
    paths = [path for file in _patterns(corpus) for path in _matches(file)]
    folder = Path(corpus.dataset)
    if corpus.dataset not in FORMATS and folder.is_dir():
        paths += folder.rglob("*")
    return sorted(path for path in paths if path.is_file())


def dataset_state(dataset: Any, corpus: DatasetCorpus, key: str, commit: str | None) -> Any:
    """Return a JSON value that changes when a dataset does, which may be changed after `load`. A stream has
    the state of its files: that of local ones, the versions of those that are named by URLs, the commit of
    those on the hub."""
    if fingerprint := getattr(dataset, "_fingerprint", None):
        return fingerprint
    local = [file_state(path) for path in local_paths(corpus)]
    remote = [remote_state(file, f"{key}.data_files") for file in _patterns(corpus) if is_remote(file)]
    return [*local, *remote, *([] if _is_local(corpus.dataset) else [commit])]


def missing_parts(corpus: DatasetCorpus) -> Iterator[tuple[str, str]]:
    """Yield (field, message) for every local file or folder that is named and does not exist."""
    if corpus.dataset not in FORMATS and _is_path(corpus.dataset) and not Path(corpus.dataset).is_dir():
        yield "dataset", f"no such folder: {corpus.dataset}"
    elif corpus.dataset in FORMATS:
        if not corpus.data_files:
            yield "data_files", f"the dataset {corpus.dataset} needs files: name them here"
        for file in _patterns(corpus):
            if "://" not in file and not _matches(file):
                yield "data_files", f"no such file: {file}"


def dataset_pairs(
    dataset: Any, corpus: DatasetCorpus, key: str, report: Report, read: Pick = pick
) -> Iterator[Pair]:
    """Yield the pairs of a dataset from `load`; `read` makes the pair of a row. DataError as in `rows`."""
    total = _size(dataset)
    for number, row in enumerate(rows(dataset, corpus, key)):
        report.share = number / total
        pair = read(row, corpus.columns, number, f"{corpus.dataset}[{corpus.split}]:{number}", report)
        if pair is not None:
            yield pair


def _size(dataset: Any) -> float:
    """Return the number of rows of a dataset; infinity if it does not say it, as some streams."""
    if hasattr(dataset, "__len__"):
        return max(1, len(dataset))
    splits = getattr(dataset.info, "splits", None) or {}
    split = splits.get(str(dataset.split))
    return getattr(split, "num_examples", None) or inf


def class_names(dataset: Any, column: str) -> list[str] | None:
    """Return the names of the class labels in a column (a dotted key), single or in lists; None if it has no
    class labels."""
    feature: Any = dataset.features or {}
    for key in [column] if column in feature else column.split("."):
        if key.isdigit() and not isinstance(feature, dict):
            feature = _item(feature)
        else:
            fields = feature if isinstance(feature, dict) else _item(feature)
            feature = fields.get(key) if isinstance(fields, dict) else None
    feature = _item(feature)
    return list(labels) if (labels := getattr(feature, "names", None)) else None


def _item(feature: Any) -> Any:
    """Return the feature of the items of a list; any other feature as it is."""
    if isinstance(feature, list):  # an old notation
        return feature[0]
    return getattr(feature, "feature", feature)


def rows(dataset: Any, corpus: DatasetCorpus, key: str, count: int = ROWS) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset from `load`, with only the columns of the corpus; `count` are read at a
    time.

    Raises:
        DataError: a column does not exist (the message lists those that do), or a row cannot be read.
    """
    try:
        # A stream may have no features.
        first: dict[str, Any] = dataset.features or next(iter(dataset), {})
        columns = _names(dataset.features) if dataset.features else names(first)
        absent = [name for name in corpus.columns if not any(_begins(name, column) for column in columns)]
        heads = dict.fromkeys(name if name in first else name.split(".")[0] for name in corpus.columns)
        if not absent:
            yield from selected_rows(dataset, list(heads), count)
    except Exception as error:
        if not _is_failure(error):
            raise
        raise _fault(corpus, key, error) from error
    if absent:
        raise DataError(f"{key}.columns: no column {absent[0]}; there are: {', '.join(columns) or 'none'}")


def _names(features: "datasets.Features") -> list[str]:
    """Return the dotted names of all columns; an image is a single one, whatever it is made of."""
    from datasets import Image

    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    others = [name for name in features.flatten() if name.rpartition(".")[0] not in images]
    return [*dict.fromkeys([*others, *images])]


def selected_rows(dataset: Any, columns: list[str], count: int = ROWS) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset, with only these columns, `count` at a time from the file."""
    for batch in dataset.select_columns(columns).iter(count):
        for row in zip(*batch.values(), strict=True):
            yield dict(zip(batch, row, strict=True))


def _begins(name: str, column: str) -> bool:
    """Whether a dotted key is that of a column or of a value in it."""
    return f"{name}.".startswith(f"{column}.")


def _library() -> ModuleType:
    library = import_module("datasets")  # imported late: it takes a second, and most commands do not need it
    library.disable_progress_bars()
    return library


def _is_failure(error: Exception) -> bool:
    """Return whether loading raises such an error for data that cannot be read."""
    from datasets.exceptions import DatasetsError

    failures = OSError, ValueError, RuntimeError, LookupError, ImportError, DatasetsError
    return isinstance(error, failures) or network_error(error) is not None


def _matches(pattern: str) -> list[Path]:
    if Path(pattern).exists():
        return [Path(pattern)]
    return [Path(path) for path in glob.glob(pattern, recursive=True)]  # noqa: PTH207 (Path takes no absolute one)


def _literal(files: str | list[str] | None) -> str | list[str] | None:
    """Return data files as `datasets` takes them: names of existing files with [ and the like are no
    patterns."""
    if isinstance(files, list):
        return [str(_literal(file)) for file in files]
    return glob.escape(files) if files is not None and Path(files).exists() else files


def _is_path(name: str) -> bool:
    """Whether a dataset's name is a local folder, which `datasets` would prefer, too."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or Path(name).is_dir()


def _is_local(name: str) -> bool:
    """Whether a dataset is made of files that the recipe names, and not on the hub."""
    return name in FORMATS or _is_path(name)


def _commit(name: str, revision: str | None, key: str) -> str | BaseException | None:
    """Return the commit of a dataset on the hub, or why the hub cannot be reached. DataError if it has no
    such dataset."""
    from huggingface_hub import HfApi, errors

    pool = ThreadPoolExecutor(1)
    try:
        answer = pool.submit(HfApi().dataset_info, name, revision=revision, timeout=PATIENCE)
        fault = answer.exception(PATIENCE)
    except NoAnswer:
        return TimeoutError(f"no answer in {PATIENCE:g} s")
    finally:
        pool.shutdown(wait=False)
    if isinstance(fault, errors.RevisionNotFoundError):
        raise DataError(
            f"{key}.revision: the dataset '{name}' has no revision {revision} on the hub"
        ) from fault
    if isinstance(fault, errors.RepositoryNotFoundError | errors.HFValidationError):
        raise DataError(
            f"{key}.dataset: there is no dataset '{name}' on the hub, or it is closed to you: check the "
            f"name (as in wmt/wmt14), log in with `hf auth login`, or name a local copy: {_advice(key)}"
        ) from fault
    return fault or answer.result().sha


@contextmanager
def _from_cache_alone(alone: bool) -> Iterator[None]:
    """Let `datasets` load only what is in its cache, without requests to the hub."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if alone:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _advice(key: str) -> str:
    return f"{key}.dataset=/path/to/folder"


def _fault(
    corpus: DatasetCorpus, key: str, error: Exception, unreached: BaseException | None = None
) -> DataError:
    """Return the error that says what is wrong with a dataset, and what to do."""
    files = f" ({', '.join(_patterns(corpus))})" if corpus.data_files else ""
    if explained := _explained(corpus, key, error, unreached, files):
        return DataError(explained)
    if isinstance(error, ImportError) or network_error(error) is not None:
        return read_fault(f"{key}.{'data_files' if files else 'dataset'}: '{corpus.dataset}'{files}", error)
    return DataError(f"{key}.dataset: '{corpus.dataset}'{files} cannot be loaded: {_root(error)}")


def _explained(
    corpus: DatasetCorpus, key: str, error: Exception, unreached: BaseException | None, files: str
) -> str | None:
    """Return what is wrong with a dataset, and what to do, if it is one of the known faults."""
    name = corpus.dataset
    if "Dataset scripts are no longer supported" in str(error) or any(Path(name).glob("*.py")):
        return (
            f"{key}.dataset: '{name}' is made by a script, which `datasets` no longer runs: take it from "
            f"the hub with {key}.revision=refs/convert/parquet, or name a copy in parquet: {_advice(key)}"
        )
    if (Path(name) / "state.json").is_file():
        return (
            f"{key}.dataset: '{name}' was written by save_to_disk: set dataset: arrow, data_files: "
            f"{name}/*.arrow"
        )
    if unreached is not None:
        return (
            f"{key}.dataset: the hub cannot be reached for '{name}' ({_root(unreached)}), and it has not "
            f"been loaded on this machine before: name a local copy: {_advice(key)}"
        )
    if "cast from timestamp" in _root(error):
        return (
            f"{key}.dataset: '{name}'{files} has texts that `datasets` takes for dates, and would write in "
            "another way: give its files one by one, as table: FILE.jsonl, or a copy in parquet"
        )
    return None


def _root(error: BaseException) -> str:
    """Return the first line of an error; of its cause, if `datasets` only says that something failed."""
    from datasets.exceptions import DatasetGenerationError

    if isinstance(error, DatasetGenerationError) and error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
