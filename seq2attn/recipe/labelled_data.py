"""What a recipe may say about labelled data (tags of words, labels of sentences) and about words."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from seq2attn.recipe.data import (
    Corpus,
    DatasetCorpus,
    FilterRecipe,
    Limit,
    SampleCorpus,
    TableCorpus,
    TruncateRecipe,
    Weight,
)
from seq2attn.recipe.sections import Fault, FilePath, Name, OneOrMore, Section, Size, fault, told_by_key
from seq2attn.text.tag_schemes import SCHEMES

Columns = tuple[int, int] | tuple[str, str]
TRAIN, DEV = "One corpus or a list of several.", "The corpus that training is validated on."
TEST = "The corpus that is scored at the end."

# ---- data -------------------------------------------------------------------------------------------


class ColumnsCorpus(Corpus):
    """A CoNLL file: a word a line, its tag in a column, blank lines between sentences."""

    conll: FilePath = Field(description="The file, plain or .gz, .xz, .bz2.")
    columns: tuple[int, int] = Field((0, -1), description="Columns of words and tags; -1 is the last.")
    weight: Weight = 1.0
    limit: Limit = None

    def faults(self) -> Iterator[Fault]:
        """Two columns."""
        if self.columns[0] == self.columns[1]:
            yield Fault("columns", f"words and tags stand in two columns, got {list(self.columns)}")


class LabelledTable(TableCorpus):
    """One file with both sides: JSONL (columns by dotted key: lists of words and of tags), or TSV (columns by
    number: words and tags with spaces between)."""

    columns: Columns = Field(("tokens", "tags"), description="Columns of words and of tags.")


class LabelledDataset(DatasetCorpus):
    """Anything that `datasets.load_dataset` loads; class labels are read by their names."""

    columns: tuple[str, str] = Field(("tokens", "ner_tags"), description="Columns of words and of tags.")


class CategorizedTable(LabelledTable):
    """One file with texts and their labels: JSONL (columns by dotted key; a text may be a list of words), or
    TSV (columns by number)."""

    columns: Columns = Field(("text", "label"), description="Columns of texts and of labels.")


class CategorizedDataset(LabelledDataset):
    """Anything that `datasets.load_dataset` loads; class labels are read by their names."""

    columns: tuple[str, str] = Field(("text", "label"), description="Columns of texts and of labels.")


class LanguagesSample(SampleCorpus):
    """Sentences that ship with seq2attn, labelled with their languages."""


def _without(key: str, why: str) -> BeforeValidator:
    """Corpora of this key belong to another task."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and key in value:
            raise fault(why)
        return value

    return BeforeValidator(check)


AnyTagged = Annotated[
    ColumnsCorpus | LabelledTable | LabelledDataset,
    told_by_key({"conll": ColumnsCorpus, "table": LabelledTable, "dataset": LabelledDataset}),
    _without("sample", "its sentences have a language each, and its words no tags: set task: classification"),
]
AnyCategorized = Annotated[
    CategorizedTable | CategorizedDataset | LanguagesSample,
    told_by_key({"table": CategorizedTable, "dataset": CategorizedDataset, "sample": LanguagesSample}),
    _without("conll", "its words have a tag each, and its sentences no label: set task: tagging"),
]
AnyLabelled = AnyTagged | AnyCategorized


class LabelledFilterRecipe(FilterRecipe):
    """Which training sentences are left out; each is counted by reason. Lengths are in words."""

    min_length: Size = Field(1, description="Shortest sentence, in words.")
    max_length: Size = Field(200, description="Longest sentence, in words.")
    max_ratio: float | None = Field(None, gt=1, description="Belongs to pairs: leave it null.")
    duplicates: bool = Field(True, description="Keep sentences that occurred before.")

    def faults(self) -> Iterator[Fault]:
        """Lengths in order, and of one side."""
        yield from super().faults()
        if self.max_ratio is not None:
            yield Fault("max_ratio", "compares the lengths of two texts, and labels are none: leave it out")


class LabelledDataRecipe(Section):
    """Where labelled words come from: what is the same for words with tags and sentences with a label."""

    train: Sequence[AnyLabelled] = Field(description=TRAIN)
    dev: AnyLabelled = Field(description=DEV)
    test: AnyLabelled | None = Field(None, description=TEST)
    filter: LabelledFilterRecipe = Field(
        LabelledFilterRecipe(), description="Which training sentences are left out."
    )
    bad_lines: Literal["stop", "skip"] = Field("stop", description="What a line that cannot be read does.")

    @property
    def languages(self) -> tuple[str, str]:
        """The two sides of an example."""
        return "words", "labels"

    @property
    def tag_scheme(self) -> str | None:
        """How words are tagged; None if sentences have a label."""
        return None

    @property
    def truncate(self) -> TruncateRecipe:
        """All of a sentence is read."""
        return TruncateRecipe()

    def faults(self) -> Iterator[Fault]:
        """Only training weighs its corpora."""
        for use, corpus in (("dev", self.dev), ("test", self.test)):
            if corpus is not None and corpus.weight != 1:
                yield Fault(f"{use}.weight", "only training corpora have weights")


class TaggedDataRecipe(LabelledDataRecipe):
    """Where tagged words come from."""

    train: Annotated[list[AnyTagged], Field(min_length=1), OneOrMore()] = Field(description=TRAIN)
    dev: AnyTagged = Field(description=DEV)
    test: AnyTagged | None = Field(None, description=TEST)
    scheme: Annotated[str, Name(lambda: ["auto", *SCHEMES])] = Field(
        "auto", description="How the data write tags; auto = as the first thousand sentences tell."
    )

    @property
    def tag_scheme(self) -> str | None:
        """See the base class."""
        return self.scheme


class CategorizedDataRecipe(LabelledDataRecipe):
    """Where labelled sentences come from."""

    train: Annotated[list[AnyCategorized], Field(min_length=1), OneOrMore()] = Field(description=TRAIN)
    dev: AnyCategorized = Field(description=DEV)
    test: AnyCategorized | None = Field(None, description=TEST)


# ---- words ------------------------------------------------------------------------------------------


class WordsRecipe(Section):
    """Which words have a vector of their own; the others share one, and are told by their characters."""

    size: Size = Field(50_000, description="The most frequent words of the training data, so many at most.")
    min_count: Size = Field(1, description="Occurrences that a word needs.")
    lowercase: bool = Field(True, description="Look words up lower-cased; characters stay as they are.")
    digits: bool = Field(True, description="Look words up with every digit as 0.")
    vectors: FilePath | None = Field(
        None,
        description="A text file of word vectors (GloVe, fastText), .gz or plain: word v1 v2 ... a line.",
    )
    words: Literal["auto", "spaces"] = Field(
        "auto", description="How raw text is cut: auto = punctuation and clitics by themselves; or at spaces."
    )
