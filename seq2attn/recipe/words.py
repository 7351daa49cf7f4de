"""What a recipe may say about labelled data (tags of words, labels of sentences) and about words."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

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
from seq2attn.recipe.parts import Fault, OneOrMore, Section, Size, told_by_key

Columns = tuple[int, int] | tuple[str, str]

# ---- data -------------------------------------------------------------------------------------------


class ColumnsCorpus(Corpus):
    """A CoNLL file: a word a line, its tag in a column, blank lines between sentences."""

    conll: str = Field(description="The file, plain or .gz, .xz, .bz2.")
    columns: tuple[int, int] = Field((0, -1), description="Columns of words and tags; -1 is the last.")
    weight: Weight = 1.0
    limit: Limit = None

    def faults(self) -> Iterator[Fault]:
        """Two columns."""
        if self.columns[0] == self.columns[1]:
            yield Fault("columns", f"words and tags stand in two columns, got {list(self.columns)}")


class LabelledTable(TableCorpus):
    """One file with both sides: JSONL (columns by dotted key: lists of words and tags, or a text and its
    label), or TSV (columns by number: texts and labels, or words and tags with spaces between)."""

    columns: Columns = Field(("tokens", "tags"), description="Columns of words (or text) and of tags.")


class LabelledDataset(DatasetCorpus):
    """Anything that `datasets.load_dataset` loads; class labels are read by their names."""

    columns: tuple[str, str] = Field(("tokens", "ner_tags"), description="Columns of words and of tags.")


class LanguagesSample(SampleCorpus):
    """Sentences that ship with seq2attn, labelled with their languages."""


AnyLabelled = Annotated[
    ColumnsCorpus | LabelledTable | LabelledDataset | LanguagesSample,
    told_by_key(
        {
            "conll": ColumnsCorpus,
            "table": LabelledTable,
            "dataset": LabelledDataset,
            "sample": LanguagesSample,
        }
    ),
]


class LabelledDataRecipe(Section):
    """Where labelled words come from."""

    train: Annotated[list[AnyLabelled], Field(min_length=1), OneOrMore()] = Field(
        description="One corpus or a list of several."
    )
    dev: AnyLabelled = Field(description="The corpus that training is validated on.")
    test: AnyLabelled | None = Field(None, description="The corpus that is scored at the end.")
    filter: FilterRecipe = Field(
        FilterRecipe(duplicates=True), description="Which training sentences are left out; lengths in words."
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

    scheme: Literal["auto", "iob1", "bio", "bioes", "bioul"] = Field(
        "auto", description="How the data write tags; auto = as the first thousand sentences tell."
    )

    @property
    def tag_scheme(self) -> str | None:
        """See the base class."""
        return self.scheme

    def faults(self) -> Iterator[Fault]:
        """Words have tags."""
        yield from super().faults()
        corpora: dict[str, Any] = {f"train.{number}": corpus for number, corpus in enumerate(self.train)}
        for use, corpus in (corpora | {"dev": self.dev, "test": self.test}).items():
            if isinstance(corpus, LanguagesSample):
                yield Fault(use, "its sentences have a language each, and its words no tags")


# ---- words ------------------------------------------------------------------------------------------


class WordsRecipe(Section):
    """Which words have a vector of their own; the others share one, and are told by their characters."""

    size: Size = Field(50_000, description="The most frequent words of the training data, so many at most.")
    min_count: Size = Field(1, description="Occurrences that a word needs.")
    lowercase: bool = Field(True, description="Look words up lower-cased; characters stay as they are.")
    digits: bool = Field(True, description="Look words up with every digit as 0.")
    vectors: str | None = Field(
        None,
        description="A text file of word vectors (GloVe, fastText), .gz or plain: word v1 v2 ... a line.",
    )
    words: Literal["auto", "spaces"] = Field(
        "auto", description="How raw text is cut: auto = punctuation and clitics by themselves; or at spaces."
    )
