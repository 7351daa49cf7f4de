"""Sections of a recipe: corpora of pairs of texts, and how they are filtered and truncated."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from seq2attn.recipe.markers import FilePath, OneOrMore, PathField
from seq2attn.recipe.sections import Count, Fault, Section, Size, by_key, fault
from seq2attn.recipe.wording import shown
from seq2attn.runtime.files import COMPRESSED

FORMATS = ("parquet", "json", "csv", "text", "arrow")  # that the library `datasets` reads from data_files
JSON_LINES = (".jsonl", ".json", ".ndjson")

Weight = Annotated[
    float,
    Field(
        gt=0,
        le=1000,
        description="Passes through the corpus in an epoch, which may be a fraction (training only).",
    ),
]
Tag = Annotated[
    str | None,
    Field(min_length=1, description="Tag of `text.tags` that each of its sources begins with; null = none."),
]
TRAIN = "A corpus, or a list of corpora."
DEV = "Corpus for validation."
TEST = "Corpus for the final score; null = none."
BAD_LINES = "Whether a line that cannot be read stops the program or is skipped."
Limit = Annotated[
    int | None,
    Field(ge=1, description="Use only the first examples of the corpus, up to this number; null = all."),
]
Item = TypeVar("Item")


class Corpus(Section):
    """Base class of all corpora."""

    @property
    def aligned(self) -> bool:
        """Whether pairs have word alignments."""
        return False


class SampleCorpus(Corpus):
    """A sample corpus that ships with seq2attn."""

    sample: Literal["tatoeba_de_en"] = Field(description="Name of the sample.")
    split: Literal["train", "dev", "test"] | None = Field(
        None, description="Split of the sample; null = the one that the corpus is used for."
    )
    tag: Tag = None
    weight: Weight = 1.0
    limit: Limit = None

    @property
    def languages(self) -> tuple[str, str]:
        """Return the two languages, with which its name ends."""
        first, second = self.sample.split("_")[-2:]
        return first, second


class FilesCorpus(Corpus):
    """Two parallel text files with one sentence per line, plain or compressed (.gz, .xz, .bz2)."""

    files: tuple[FilePath, FilePath] = Field(description="Source and target file.")
    alignments: FilePath | None = Field(
        None,
        description="File of word alignments for guided attention, with one line per pair: 0-0 1-2 ... "
        "(source-target).",
    )
    tag: Tag = None
    weight: Weight = 1.0
    limit: Limit = None

    @property
    def aligned(self) -> bool:
        """See the base class."""
        return self.alignments is not None


class TableCorpus(Corpus):
    """One file with source and target: TSV (columns by number, from 0) or JSONL (columns by dotted key)."""

    table: FilePath = Field(description="A .tsv or .jsonl file, plain or compressed (.gz, .xz, .bz2).")
    columns: tuple[Count, Count] | tuple[str, str] = Field(
        (0, 1),
        description="Source and target column. In JSONL a source may be a list of sentences or turns, and a "
        "target a list of references.",
    )
    tag: Tag = None
    weight: Weight = 1.0
    limit: Limit = None

    @field_validator("columns", mode="before")
    @classmethod
    def _two_of_a_kind(cls, value: Any) -> Any:
        """Raise the same message for numbers and for keys."""
        if isinstance(value, list | tuple) and {type(column) for column in value} not in ({int}, {str}):
            raise fault(f"expected two column numbers or two keys, got {shown(value)}")
        return value

    def faults(self) -> Iterator[Fault]:
        """Find columns by key in TSV, or by number in JSONL."""
        suffixes = [suffix for suffix in PurePath(self.table).suffixes if suffix not in COMPRESSED]
        json = bool(suffixes) and suffixes[-1] in JSON_LINES
        if json and isinstance(self.columns[0], int):
            yield Fault("columns", "JSONL has columns by key, as in [source, target]")
        elif not json and isinstance(self.columns[0], str):
            yield Fault("columns", "TSV has columns by number, as in [0, 1]; for keys give a .jsonl file")


def _is_local(corpus: Mapping[str, Any], dataset: str, path: Path) -> bool:
    """Whether the name of a dataset is that of a folder: by its form, or because there is such a folder."""
    return dataset not in FORMATS and (dataset.startswith((".", "/", "~")) or path.is_dir())


def _reads_files(corpus: Mapping[str, Any], file: str, path: Path) -> bool:
    """Whether a dataset is made of files on this machine; those of other datasets are on the hub."""
    return str(corpus.get("dataset")) in FORMATS


DataFile = Annotated[str, PathField(applies=_reads_files, wildcards=True)]


class DatasetCorpus(Corpus):
    """A dataset that `datasets.load_dataset` loads."""

    dataset: Annotated[str, PathField("folder", _is_local)] = Field(
        description="Name on the Hugging Face hub, local folder, or file format: parquet, json, csv, text or "
        "arrow."
    )
    config: str | None = Field(None, description="Configuration of the dataset, for example de-en.")
    revision: str | None = Field(None, description="Branch or commit on the hub, often refs/convert/parquet.")
    split: str = Field("train", description="Split, which may be sliced: train[:10000].")
    data_files: DataFile | list[DataFile] | None = Field(
        None, description="Files, if `dataset` is a file format; may have wildcards."
    )
    columns: tuple[str, str] = Field(
        description="Source and target column, by dotted key: translation.de. A source may be a list of "
        "sentences or turns, and a target a list of references."
    )
    streaming: bool = Field(
        False, description="Stream the dataset, so that with `limit` it is not loaded whole."
    )
    tag: Tag = None
    weight: Weight = 1.0
    limit: Limit = None

    def faults(self) -> Iterator[Fault]:
        """Find a slice of a stream, which has no length."""
        if self.streaming and "[" in self.split:
            yield Fault("split", "a stream cannot be sliced; use limit, or streaming: false")


class TaskCorpus(Corpus):
    """A synthetic task: sources are random letters, and the alignment with the target is known."""

    task: Literal["copy", "reverse", "sort"] = Field(
        description="copy: c a b -> c a b; reverse: c a b -> b a c; sort (by the numbers): c2 a3 b1 -> b c a."
    )
    symbols: Annotated[int, Field(ge=2, le=26)] = Field(
        12, description="Number of different letters, from a."
    )
    lengths: tuple[Size, Size] = Field(
        (3, 6), description="Length of the shortest and the longest source, in words."
    )
    distinct: bool = Field(
        True, description="Use no letter twice in a sentence, so that the alignment is unique."
    )
    count: Size = Field(10_000, description="Number of pairs, all different.")
    seed: Count = Field(1, description="Random seed.")
    split: Literal["train", "dev", "test"] | None = Field(
        None,
        description="Split; null = the one that the corpus is used for. Splits have no sentence in common, "
        "even with different seeds.",
    )
    alignments: bool = Field(False, description="Provide the known alignment, for guided attention.")
    tag: Tag = None
    weight: Weight = 1.0
    limit: Limit = None

    @property
    def aligned(self) -> bool:
        """See the base class."""
        return self.alignments

    def faults(self) -> Iterator[Fault]:
        """Find lengths in the wrong order, and too few letters."""
        if self.lengths[0] > self.lengths[1]:
            yield Fault(
                "lengths", f"the shortest length {self.lengths[0]} is more than the longest {self.lengths[1]}"
            )
        if self.distinct and self.lengths[1] > self.symbols:
            yield Fault(
                "lengths",
                f"{self.lengths[1]} distinct letters of {self.symbols}: raise symbols, or set distinct to "
                "false",
            )


AnyCorpus = Annotated[
    SampleCorpus | FilesCorpus | TableCorpus | DatasetCorpus | TaskCorpus,
    by_key(
        {
            "sample": SampleCorpus,
            "files": FilesCorpus,
            "table": TableCorpus,
            "dataset": DatasetCorpus,
            "task": TaskCorpus,
        }
    ),
]


class FilterRecipe(Section):
    """Filters of training pairs. The report counts what each filter leaves out."""

    min_length: Size = Field(1, description="Shortest text, in pieces.")
    max_length: Size = Field(200, description="Longest text, in pieces.")
    max_ratio: float | None = Field(
        None, gt=1, description="Largest ratio of the longer to the shorter text, in pieces; null = any."
    )
    duplicates: bool = Field(False, description="Keep pairs that have occurred before.")

    def faults(self) -> Iterator[Fault]:
        """Find lengths in the wrong order."""
        if self.min_length > self.max_length:
            yield Fault("min_length", f"{self.min_length} is more than max_length {self.max_length}")


class WindowRecipe(Section):
    """The pieces of a long text that are kept: its first and last ones. Those between are dropped."""

    head: Count = Field(description="Number of pieces kept at the beginning.")
    tail: Count = Field(0, description="Number of pieces kept at the end.")

    @property
    def size(self) -> int:
        """Return the largest number of pieces that are kept."""
        return self.head + self.tail

    def faults(self) -> Iterator[Fault]:
        """Find a window that keeps nothing."""
        if not self.size:
            yield Fault("", "keeps nothing: set head or tail")

    def cut(self, row: Sequence[Item]) -> Sequence[Item]:
        """Return the pieces that are kept."""
        return row if len(row) <= self.size else [*row[: self.head], *row[len(row) - self.tail :]]

    def ends(self, row: Sequence[Item]) -> bool:
        """Whether the last piece is kept."""
        return self.tail > 0 or len(row) <= self.size


class HeadAlone:
    """Marks a window that may also be given as a number, which is its `head`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.window, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "integer", "minimum": 1}, handler(schema)]}

    def window(self, value: Any) -> Any:
        """Return a number as a window."""
        if isinstance(value, WindowRecipe | dict | None):
            return value
        if type(value) is not int or value < 1:
            raise fault(
                f"expected a whole number of at least 1, or {{head: ..., tail: ...}}, got {shown(value)}"
            )
        return {"head": value}


Window = Annotated[WindowRecipe | None, HeadAlone()]


class TruncateRecipe(Section):
    """Truncation of long texts. It applies to training and validation, and for sources also to later use."""

    source: Window = Field(
        None, description="Pieces of a source to keep: 400, or {head: 300, tail: 100}; null = all."
    )
    target: Window = Field(
        None, description="Pieces of a target to keep, likewise; references of scores are never truncated."
    )

    def cut(self, side: int, row: Sequence[Item]) -> Sequence[Item]:
        """Return the pieces of the source (side 0) or the target (side 1) that are kept."""
        window = (self.source, self.target)[side]
        return row if window is None else window.cut(row)

    def ends(self, target: Sequence[Item]) -> bool:
        """Whether the last piece of a target is kept."""
        return self.target is None or self.target.ends(target)


class DataRecipe(Section):
    """Corpora of pairs of texts."""

    languages: tuple[str, str] = Field(description="Source and target language, for example [de, en].")
    train: Annotated[list[AnyCorpus], Field(min_length=1), OneOrMore()] = Field(description=TRAIN)
    dev: AnyCorpus = Field(description=DEV)
    test: AnyCorpus | None = Field(None, description=TEST)
    truncate: TruncateRecipe = Field(TruncateRecipe(), description="Truncation of long texts.")
    filter: FilterRecipe = Field(
        FilterRecipe(), description="Filters of training pairs, applied after truncation."
    )
    bad_lines: Literal["stop", "skip"] = Field("stop", description=BAD_LINES)
    temperature: float | None = Field(
        None,
        ge=1,
        description="Mix training corpora by their sizes n in proportion to n^(1/temperature), instead of by "
        "weights: 1 = as they are, 5 = small ones far more often (Arivazhagan et al. 2019).",
    )

    @property
    def filtered(self) -> tuple[int, str]:
        """The number of sides whose lengths `filter` limits, and the unit of the lengths."""
        return 2, "pieces"

    @property
    def tag_scheme(self) -> str | None:
        """Return None: words have no tags."""
        return None

    def faults(self) -> Iterator[Fault]:
        """Find samples in other languages, misplaced weights and alignments, and impossible lengths."""
        corpora = (*self.train, self.dev, self.test)
        samples = {corpus.sample: corpus.languages for corpus in corpora if isinstance(corpus, SampleCorpus)}
        for sample, languages in samples.items():
            if sorted(languages) != sorted(self.languages):
                yield Fault("languages", f"{sample} has {list(languages)}, not {list(self.languages)}")
        if self.temperature is not None and any(corpus.weight != 1 for corpus in self.train):
            yield Fault("temperature", "decides how often corpora are used: leave out their weights")
        for use, corpus in (("dev", self.dev), ("test", self.test)):
            if corpus is not None and corpus.weight != 1:
                yield Fault(f"{use}.weight", "only training corpora have weights")
            if corpus is not None and corpus.aligned:
                yield Fault(f"{use}.alignments", "only training corpora have alignments: leave them out")
        for side, window in (("source", self.truncate.source), ("target", self.truncate.target)):
            if window is not None and window.size > self.filter.max_length:
                yield Fault(
                    f"truncate.{side}",
                    f"keeps {window.size} pieces, but filter.max_length leaves out texts of more than "
                    f"{self.filter.max_length}: raise it to {window.size}, or lower this",
                )


class NoCorpora(DataRecipe):
    """The languages of an imported model, which was trained on data that are not here."""

    train: list[AnyCorpus] = Field([], max_length=0, description="None.")
    dev: Any = Field(None, description="None.")

    def faults(self) -> Iterator[Fault]:
        """Find a dev set without training data."""
        for role in ("dev", "test"):
            if getattr(self, role) is not None:
                yield Fault(role, "an imported model has no data: start a training from it (init)")


class SummaryDataRecipe(DataRecipe):
    """Corpora of texts and their summaries."""

    languages: tuple[str, str] = Field(("text", "summary"), description="Names of source and target.")
