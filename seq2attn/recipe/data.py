"""What a recipe may say about data and text, section by section."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from seq2attn.recipe.sections import (
    Count,
    Fault,
    FilePath,
    OneOrMore,
    PathField,
    Section,
    Size,
    fault,
    told_by_key,
)
from seq2attn.recipe.wording import shown, unknown
from seq2attn.text.vocabulary import Words
from seq2attn.text.vocabulary_training import PieceModel

FORMATS = ("parquet", "json", "csv", "text", "arrow")  # that the datasets library reads from data_files
PACKED = (".gz", ".xz", ".bz2")
JSON_LINES = (".jsonl", ".json", ".ndjson")

Weight = Annotated[float, Field(gt=0, description="How often an epoch sees the corpus (training only).")]
Limit = Annotated[int | None, Field(ge=1, description="Take only the first so many pairs.")]
Item = TypeVar("Item")

# ---- data -------------------------------------------------------------------------------------------


class Corpus(Section):
    """What all corpora have."""

    @property
    def aligned(self) -> bool:
        """Whether it brings links between the words of each pair."""
        return False


class SampleCorpus(Corpus):
    """Sentences that ship with seq2attn."""

    sample: Literal["tatoeba_de_en"] = Field(description="Their name.")
    split: Literal["train", "dev", "test"] | None = Field(None, description="As the corpus is used, if null.")
    weight: Weight = 1.0
    limit: Limit = None

    @property
    def languages(self) -> tuple[str, str]:
        """The two languages that its name ends with."""
        first, second = self.sample.split("_")[-2:]
        return first, second


class FilesCorpus(Corpus):
    """Two parallel text files, a sentence a line; .gz, .xz and .bz2 are unpacked."""

    files: tuple[FilePath, FilePath] = Field(description="Source and target file.")
    alignments: FilePath | None = Field(
        None, description="Links between words (0-0 1-2 ...), a line for each pair: for guided attention."
    )
    weight: Weight = 1.0
    limit: Limit = None

    @property
    def aligned(self) -> bool:
        """See the base class."""
        return self.alignments is not None


class TableCorpus(Corpus):
    """One file with both sides: TSV (columns by number, from 0) or JSONL (columns by dotted key)."""

    table: FilePath = Field(description="A .tsv or .jsonl file, plain or .gz, .xz, .bz2.")
    columns: tuple[Count, Count] | tuple[str, str] = Field(
        (0, 1),
        description="Source and target column. In JSONL a source may be a list of sentences or turns, and a "
        "target a list of references.",
    )
    weight: Weight = 1.0
    limit: Limit = None

    @field_validator("columns", mode="before")
    @classmethod
    def _two_of_a_kind(cls, value: Any) -> Any:
        """One message for the two kinds."""
        if isinstance(value, list | tuple) and {type(column) for column in value} not in ({int}, {str}):
            raise fault(f"expected two column numbers or two keys, got {shown(value)}")
        return value

    def faults(self) -> Iterator[Fault]:
        """Columns have numbers in TSV, keys in JSONL."""
        suffixes = [suffix for suffix in PurePath(self.table).suffixes if suffix not in PACKED]
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


DataFile = Annotated[str, PathField(applies=_reads_files)]


class DatasetCorpus(Corpus):
    """Anything that `datasets.load_dataset` loads."""

    dataset: Annotated[str, PathField("folder", _is_local)] = Field(
        description="A name on the hub, a local folder, or parquet, json, csv, text."
    )
    config: str | None = Field(None, description="The configuration (for example de-en).")
    revision: str | None = Field(None, description="A branch or commit, often refs/convert/parquet.")
    split: str = Field("train", description="The split, also sliced: train[:10000].")
    data_files: DataFile | list[DataFile] | None = Field(
        None, description="Files for parquet, json, csv, text."
    )
    columns: tuple[str, str] = Field(
        description="Source and target column, dotted: translation.de. A source may be a list of sentences "
        "or turns, and a target a list of references."
    )
    streaming: bool = Field(False, description="Read as a stream, so that `limit` need not load it all.")
    weight: Weight = 1.0
    limit: Limit = None

    def faults(self) -> Iterator[Fault]:
        """A stream has no length, and so no slices."""
        if self.streaming and "[" in self.split:
            yield Fault("split", "a stream cannot be sliced; use limit, or streaming: false")


class TaskCorpus(Corpus):
    """Pairs that are made, not read: a source of random letters, and a target whose alignment is known."""

    task: Literal["copy", "reverse", "sort"] = Field(
        description="copy: c a b -> c a b; reverse: c a b -> b a c; sort (every letter tells its place): "
        "c2 a3 b1 -> b c a."
    )
    symbols: Annotated[int, Field(ge=2, le=26)] = Field(12, description="So many letters, from a.")
    lengths: tuple[Size, Size] = Field((3, 6), description="Shortest and longest source, in words.")
    distinct: bool = Field(True, description="No letter twice in a sentence: only one alignment explains it.")
    count: Size = Field(10_000, description="So many pairs, all different.")
    seed: Count = Field(1, description="Of the letters.")
    split: Literal["train", "dev", "test"] | None = Field(
        None, description="As the corpus is used, if null; no sentence is in two splits, whatever the seeds."
    )
    alignments: bool = Field(False, description="Bring the known alignment: for guided attention.")
    weight: Weight = 1.0
    limit: Limit = None

    @property
    def aligned(self) -> bool:
        """See the base class."""
        return self.alignments

    def faults(self) -> Iterator[Fault]:
        """Lengths in order, and letters enough."""
        if self.lengths[0] > self.lengths[1]:
            yield Fault(
                "lengths", f"the shortest, {self.lengths[0]}, is more than the longest, {self.lengths[1]}"
            )
        if self.distinct and self.lengths[1] > self.symbols:
            yield Fault(
                "lengths",
                f"{self.lengths[1]} distinct letters of {self.symbols}: raise symbols, or distinct: false",
            )


AnyCorpus = Annotated[
    SampleCorpus | FilesCorpus | TableCorpus | DatasetCorpus | TaskCorpus,
    told_by_key(
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
    """Which training pairs are left out; each is counted by reason."""

    min_length: Size = Field(1, description="Shortest sentence, in pieces.")
    max_length: Size = Field(200, description="Longest sentence, in pieces.")
    max_ratio: float | None = Field(None, gt=1, description="Largest ratio of the two lengths, in pieces.")
    duplicates: bool = Field(False, description="Keep pairs that occurred before.")

    def faults(self) -> Iterator[Fault]:
        """Lengths in order."""
        if self.min_length > self.max_length:
            yield Fault("min_length", f"{self.min_length} is more than max_length {self.max_length}")


class WindowRecipe(Section):
    """The pieces of a long text that are kept; those between are as if they were not there."""

    head: Count = Field(description="So many of its beginning.")
    tail: Count = Field(0, description="So many of its end.")

    @property
    def size(self) -> int:
        """The most pieces that are kept."""
        return self.head + self.tail

    def faults(self) -> Iterator[Fault]:
        """Something is kept."""
        if not self.size:
            yield Fault("", "keeps nothing: set head or tail")

    def cut(self, row: Sequence[Item]) -> Sequence[Item]:
        """What is kept of a row of pieces."""
        return row if len(row) <= self.size else [*row[: self.head], *row[len(row) - self.tail :]]

    def ends(self, row: Sequence[Item]) -> bool:
        """Whether the end of a row is kept."""
        return self.tail > 0 or len(row) <= self.size


class HeadAlone:
    """Marks a window that may also be given as the number of its `head`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.window, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "integer", "minimum": 1}, handler(schema)]}

    def window(self, value: Any) -> Any:
        """A window, of a head if it was a number."""
        if isinstance(value, WindowRecipe | dict | None):
            return value
        if type(value) is not int or value < 1:
            raise fault(
                f"expected a whole number of at least 1, or {{head: ..., tail: ...}}, got {shown(value)}"
            )
        return {"head": value}


Window = Annotated[WindowRecipe | None, HeadAlone()]


class TruncateRecipe(Section):
    """How much of long texts is read: in training, in validation and, of the source, afterwards."""

    source: Window = Field(None, description="Pieces: 400, or {head: 300, tail: 100}; null = all.")
    target: Window = Field(None, description="The same; what a model is scored by stays whole.")

    def cut(self, side: int, row: Sequence[Item]) -> Sequence[Item]:
        """What is read of a row of pieces of the source (0) or the target (1)."""
        window = (self.source, self.target)[side]
        return row if window is None else window.cut(row)

    def ends(self, target: Sequence[Item]) -> bool:
        """Whether a row of pieces of the target is read to its end."""
        return self.target is None or self.target.ends(target)


class DataRecipe(Section):
    """Where the sentences come from."""

    languages: tuple[str, str] = Field(description="Source and target language, as in [de, en].")
    train: Annotated[list[AnyCorpus], Field(min_length=1), OneOrMore()] = Field(
        description="One corpus or a list of several."
    )
    dev: AnyCorpus = Field(description="The corpus that training is validated on.")
    test: AnyCorpus | None = Field(None, description="The corpus that is scored at the end.")
    truncate: TruncateRecipe = Field(TruncateRecipe(), description="How much of long texts is read.")
    filter: FilterRecipe = Field(FilterRecipe(), description="Which training pairs are left out then.")
    bad_lines: Literal["stop", "skip"] = Field("stop", description="What a line that cannot be read does.")

    @property
    def tag_scheme(self) -> str | None:
        """How words are tagged: they are not."""
        return None

    def faults(self) -> Iterator[Fault]:
        """Samples are in the languages asked for; only training weighs its corpora, and learns alignments."""
        corpora = (*self.train, self.dev, self.test)
        samples = {corpus.sample: corpus.languages for corpus in corpora if isinstance(corpus, SampleCorpus)}
        for sample, languages in samples.items():
            if sorted(languages) != sorted(self.languages):
                yield Fault("languages", f"{sample} has {list(languages)}, not {list(self.languages)}")
        for use, corpus in (("dev", self.dev), ("test", self.test)):
            if corpus is not None and corpus.weight != 1:
                yield Fault(f"{use}.weight", "only training corpora have weights")
            if corpus is not None and corpus.aligned:
                yield Fault(f"{use}.alignments", "only training corpora bring alignments: leave them out")
        for side, window in (("source", self.truncate.source), ("target", self.truncate.target)):
            if window is not None and window.size > self.filter.max_length:
                yield Fault(
                    f"truncate.{side}",
                    f"keeps {window.size} pieces, but filter.max_length leaves out what has more than "
                    f"{self.filter.max_length}: raise it to {window.size}, or lower this",
                )


class SummaryDataRecipe(DataRecipe):
    """Where texts and their summaries come from."""

    languages: tuple[str, str] = Field(("text", "summary"), description="What the two sides are called.")


# ---- text -------------------------------------------------------------------------------------------


class SamplingRecipe(Section):
    """Subword regularisation in training (Kudo 2018; BPE-dropout, Provilkov et al. 2020)."""

    nbest: int = Field(-1, ge=-1, description="Sample from so many best segmentations; -1 from all.")
    alpha: float = Field(0.1, ge=0, description="Smoothing (unigram) or dropout rate (bpe).")


class TextRecipe(Section):
    """How sentences become pieces (SentencePiece)."""

    model: PieceModel | tuple[PieceModel, PieceModel] = Field(
        "unigram",
        description="How pieces are found; word: what stands between spaces. Two: of source and target.",
    )
    size: Size = Field(
        8000,
        description="Pieces in the vocabulary (of each language if not joint); of char and word, at most.",
    )
    joint: bool = Field(False, description="One vocabulary for both languages.")
    files: tuple[FilePath, FilePath] | None = Field(
        None, description="Existing .model files, source and target."
    )
    lowercase: bool = Field(False, description="Lower-case both sides; translations are lower-case, too.")
    nfkc: bool = Field(True, description="Unicode NFKC normalisation.")
    byte_fallback: bool = Field(
        True, description="Unknown characters become bytes: nothing is lost; not of word models."
    )
    character_coverage: float = Field(
        1.0, gt=0.9, le=1, description="Share of the characters of the text that get pieces of their own."
    )
    sampling: SamplingRecipe | None = Field(None, description="Subword sampling in training.")
    words: Words = Field(
        "auto",
        description="What a word is in alignments: auto = by spaces, a piece in scripts without spaces.",
    )

    @property
    def models(self) -> tuple[PieceModel, PieceModel]:
        """How the pieces of the source are found, and of the target."""
        return self.model if isinstance(self.model, tuple) else (self.model, self.model)

    @field_validator("model", mode="before")
    @classmethod
    def _one_or_two(cls, value: Any) -> Any:
        """One message for the two ways to say it."""
        names = get_args(PieceModel)
        if isinstance(value, list | tuple) and len(value) != 2:
            raise fault(f"expected a name, or two for source and target, got {shown(value)}")
        for name in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(name, str):
                raise fault(f"expected one of {', '.join(names)}, or a list of two, got {shown(name)}")
            if name not in names:
                raise fault(unknown(name, names))
        return value

    def faults(self) -> Iterator[Fault]:
        """Subword sampling needs models with more than one segmentation; a joint vocabulary is one model."""
        rigid = next((model for model in self.models if model in ("char", "word")), None)
        if self.sampling and rigid:
            yield Fault(
                "sampling", f"a {rigid} model has only one segmentation; use unigram or bpe, or no sampling"
            )
        if self.joint and self.models[0] != self.models[1]:
            yield Fault("model", "a joint vocabulary is one model: give one name, or joint: false")
        if self.sampling and "bpe" in self.models and self.sampling.alpha > 1:
            yield Fault(
                "sampling.alpha", f"is the rate of bpe's dropout, at most 1; got {self.sampling.alpha:g}"
            )
        if self.joint and self.files and self.files[0] != self.files[1]:
            yield Fault(
                "files", "a joint vocabulary is one .model: give the same file twice, or joint: false"
            )
