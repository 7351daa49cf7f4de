"""Sections of a recipe: labelled data (tags of words, labels of sentences) and word vocabularies."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from seq2attn.recipe.data import (
    BAD_LINES,
    DEV,
    TEST,
    TRAIN,
    Corpus,
    DatasetCorpus,
    FilterRecipe,
    Limit,
    SampleCorpus,
    TableCorpus,
    TruncateRecipe,
    Weight,
)
from seq2attn.recipe.markers import FilePath, OneOrMore
from seq2attn.recipe.sections import Fault, Name, Section, Size, by_key, fault
from seq2attn.text.tag_schemes import SCHEMES

Columns = tuple[int, int] | tuple[str, str]

# ---- data -------------------------------------------------------------------------------------------


class ColumnsCorpus(Corpus):
    """A CoNLL file: one word per line, with its tag in a column, and blank lines between sentences."""

    conll: FilePath = Field(description="The file, plain or compressed (.gz, .xz, .bz2).")
    columns: tuple[int, int] = Field((0, -1), description="Columns of words and tags, from 0; -1 = the last.")
    weight: Weight = 1.0
    limit: Limit = None

    def faults(self) -> Iterator[Fault]:
        """Find words and tags in the same column."""
        if self.columns[0] == self.columns[1]:
            yield Fault("columns", f"expected different columns for words and tags, got {list(self.columns)}")


class LabelledTable(TableCorpus):
    """One file with words and tags: JSONL (columns by dotted key: lists of words and of tags), or TSV
    (columns by number: words and tags separated by spaces)."""

    columns: Columns = Field(("tokens", "tags"), description="Columns of words and tags.")


class LabelledDataset(DatasetCorpus):
    """A dataset that `datasets.load_dataset` loads; class labels are read as their names."""

    columns: tuple[str, str] = Field(("tokens", "ner_tags"), description="Columns of words and tags.")


class CategorizedTable(LabelledTable):
    """One file with texts and their labels: JSONL (columns by dotted key; a text may be a list of words), or
    TSV (columns by number)."""

    columns: Columns = Field(("text", "label"), description="Columns of texts and labels.")


class CategorizedDataset(LabelledDataset):
    """A dataset that `datasets.load_dataset` loads; class labels are read as their names."""

    columns: tuple[str, str] = Field(("text", "label"), description="Columns of texts and labels.")


class LanguagesSample(SampleCorpus):
    """Sentences that ship with seq2attn, labelled with their language."""


def _without(key: str, why: str) -> BeforeValidator:
    """Refuse corpora with a key that belongs to another task."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and key in value:
            raise fault(why)
        return value

    return BeforeValidator(check)


AnyTagged = Annotated[
    ColumnsCorpus | LabelledTable | LabelledDataset,
    by_key({"conll": ColumnsCorpus, "table": LabelledTable, "dataset": LabelledDataset}),
    _without(
        "sample", "labels sentences with their language and has no tags of words: set task: classification"
    ),
]
AnyCategorized = Annotated[
    CategorizedTable | CategorizedDataset | LanguagesSample,
    by_key({"table": CategorizedTable, "dataset": CategorizedDataset, "sample": LanguagesSample}),
    _without("conll", "labels words and has no labels of sentences: set task: tagging"),
]
AnyLabelled = AnyTagged | AnyCategorized


class LabelledFilterRecipe(FilterRecipe):
    """Filters of training sentences. The report counts what each filter leaves out. Lengths are in words."""

    min_length: Size = Field(1, description="Shortest sentence, in words.")
    max_length: Size = Field(200, description="Longest sentence, in words.")
    max_ratio: float | None = Field(None, gt=1, description="Not used here: only for pairs of texts.")
    duplicates: bool = Field(True, description="Keep sentences that have occurred before.")

    def faults(self) -> Iterator[Fault]:
        """Find lengths in the wrong order, and a ratio of lengths, which needs two texts."""
        yield from super().faults()
        if self.max_ratio is not None:
            yield Fault(
                "max_ratio", "compares the lengths of two texts, and labels are not a text: leave it out"
            )


class LabelledDataRecipe(Section):
    """The base class of the data sections of tagging and classification."""

    train: Sequence[AnyLabelled] = Field(description=TRAIN)
    dev: AnyLabelled = Field(description=DEV)
    test: AnyLabelled | None = Field(None, description=TEST)
    filter: LabelledFilterRecipe = Field(LabelledFilterRecipe(), description="Filters of training sentences.")
    bad_lines: Literal["stop", "skip"] = Field("stop", description=BAD_LINES)

    @property
    def filtered(self) -> tuple[int, str]:
        """The number of sides whose lengths `filter` limits, and the unit of the lengths."""
        return 1, "words"

    @property
    def languages(self) -> tuple[str, str]:
        """Return the names of the two sides of an example."""
        return "words", "labels"

    @property
    def tag_scheme(self) -> str | None:
        """Return the scheme of the tags; None if sentences have a label."""
        return None

    @property
    def truncate(self) -> TruncateRecipe:
        """Return no truncation: sentences are read whole."""
        return TruncateRecipe()

    def faults(self) -> Iterator[Fault]:
        """Find weights of corpora that are not for training."""
        for use, corpus in (("dev", self.dev), ("test", self.test)):
            if corpus is not None and corpus.weight != 1:
                yield Fault(f"{use}.weight", "only training corpora have weights")


class TaggedDataRecipe(LabelledDataRecipe):
    """Corpora of tagged words."""

    train: Annotated[list[AnyTagged], Field(min_length=1), OneOrMore()] = Field(description=TRAIN)
    dev: AnyTagged = Field(description=DEV)
    test: AnyTagged | None = Field(None, description=TEST)
    scheme: Annotated[str, Name(lambda: ["auto", *SCHEMES])] = Field(
        "auto",
        description="Tag scheme of the data; auto = that of most of the first thousand training sentences.",
    )

    @property
    def tag_scheme(self) -> str | None:
        """See the base class."""
        return self.scheme


class CategorizedDataRecipe(LabelledDataRecipe):
    """Corpora of labelled sentences."""

    train: Annotated[list[AnyCategorized], Field(min_length=1), OneOrMore()] = Field(description=TRAIN)
    dev: AnyCategorized = Field(description=DEV)
    test: AnyCategorized | None = Field(None, description=TEST)


# ---- words ------------------------------------------------------------------------------------------


class WordsRecipe(Section):
    """The word vocabulary. Words outside of it share one embedding and differ only in their characters."""

    size: Size = Field(50_000, description="Largest number of words: the most frequent of the training data.")
    min_count: Size = Field(1, description="Fewest occurrences of a word in the training data.")
    lowercase: bool = Field(True, description="Look words up in lower case; characters stay as they are.")
    digits: bool = Field(True, description="Look words up with every digit replaced by 0.")
    vectors: FilePath | None = Field(
        None,
        description="Pre-trained word vectors (GloVe, fastText): a text file, plain or .gz, with lines `word "
        "v1 v2 ...`.",
    )
    words: Literal["auto", "spaces"] = Field(
        "auto",
        description="Tokenization of raw text. auto: split off punctuation and clitics; spaces: split at "
        "spaces only.",
    )
