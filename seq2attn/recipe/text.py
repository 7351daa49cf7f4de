"""Sections of a recipe: subword vocabularies."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from seq2attn.recipe.markers import FilePath
from seq2attn.recipe.sections import Fault, Section, Size, fault
from seq2attn.recipe.wording import shown, unknown
from seq2attn.text.vocabulary import Words
from seq2attn.text.vocabulary_training import LEAST_COVERAGE, PieceModel


class SamplingRecipe(Section):
    """Subword regularisation in training (Kudo 2018; BPE-dropout, Provilkov et al. 2020)."""

    nbest: int = Field(-1, ge=-1, description="Sample from this many best segmentations; -1 = from all.")
    alpha: float = Field(0.1, ge=0, description="Smoothing parameter (unigram) or merge dropout rate (bpe).")


class TextRecipe(Section):
    """The vocabulary: how texts are split into pieces (SentencePiece)."""

    model: PieceModel | tuple[PieceModel, PieceModel] = Field(
        "unigram",
        description="SentencePiece model type; word: words are separated by spaces. A list of two: of source "
        "and target.",
    )
    size: Size | tuple[Size, Size] | None = Field(
        None,
        description="Size of the vocabulary; for char and word, the largest size. A list of two: of source "
        "and target, if not joint. null = from the training data: special pieces, bytes and all characters, "
        "and 3 times the square root of the text's length in characters, at most 32,000, or as many as the "
        "text gives; for word, at most 32,000 words.",
    )
    joint: bool = Field(False, description="One vocabulary for both languages.")
    files: tuple[FilePath, FilePath] | None = Field(
        None, description="Existing SentencePiece .model files of source and target; null = train them."
    )
    ids: FilePath | tuple[FilePath, FilePath] | None = Field(
        None,
        description="JSON file with the id of each piece, for models of other tools whose ids are not those "
        "of `files`: {</s>: 0, <unk>: 1, ...}. A list of two: of source and target, if not joint. null = the "
        "ids of the .model files.",
    )
    start: str | None = Field(None, description="Piece of `ids` that the decoder reads first; null = <s>.")
    tags: list[Annotated[str, Field(min_length=1)]] | Literal["marked"] = Field(
        [],
        description="Pieces that a source may begin with, such as the target language: [<2en>, <2fr>]. "
        "SentencePiece never sees them. marked: any >>text<<, if `ids` has it.",
    )
    lowercase: bool = Field(
        False, description="Lower-case source and target; outputs are then in lower case."
    )
    nfkc: bool | Literal["source"] = Field(
        "source",
        description="Unicode NFKC normalisation of the source alone, or of both sides (true); what the model "
        "writes is then in NFKC, too.",
    )
    byte_fallback: bool = Field(
        True, description="Encode unknown characters as bytes, so that nothing is lost; not for word models."
    )
    character_coverage: float = Field(
        1.0,
        ge=LEAST_COVERAGE,
        le=1,
        description="Share of the characters of the training text that the vocabulary covers.",
    )
    sampling: SamplingRecipe | None = Field(
        None, description="Subword regularisation in training; null = none."
    )
    words: Words = Field(
        "auto",
        description="Words in alignments. spaces: separated by spaces; pieces: each piece is a word; auto: "
        "pieces in scripts without spaces, otherwise spaces.",
    )

    @property
    def models(self) -> tuple[PieceModel, PieceModel]:
        """Return the model types of source and target."""
        return self.model if isinstance(self.model, tuple) else (self.model, self.model)

    @property
    def sizes(self) -> tuple[int | None, int | None]:
        """Return the sizes of source and target; None follows the training data."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    @property
    def normalized(self) -> tuple[bool, bool]:
        """Whether source and target are normalised to NFKC."""
        return self.nfkc is not False, self.nfkc is True

    @property
    def one_model(self) -> bool:
        """Whether source and target have the same model, in pieces and in normalisation."""
        if self.files is not None:
            return self.joint and self.files[0] == self.files[1]
        return self.joint and self.nfkc != "source"

    @property
    def ids_files(self) -> tuple[str, ...]:
        """Return the files of ids: one of both languages, one of source and one of target, or none."""
        return () if self.ids is None else (self.ids,) if isinstance(self.ids, str) else self.ids

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """Return the names of the files of the models, and of those of ids, in a run folder."""
        models = ["joint"] if self.one_model else ["source", "target"]
        ids = ["joint"] if self.joint else ["source", "target"]
        return (
            [f"text/{side}.model" for side in models],
            [f"text/{side}.ids.json" for side in ids[: len(self.ids_files)]],
        )

    @field_validator("model", mode="before")
    @classmethod
    def _one_or_two(cls, value: Any) -> Any:
        """Raise the same message for a name and for a list of two."""
        names = get_args(PieceModel)
        if isinstance(value, list | tuple) and len(value) != 2:
            raise fault(f"expected a name, or two for source and target, got {shown(value)}")
        for name in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(name, str):
                raise fault(f"expected one of {', '.join(names)}, or a list of two, got {shown(name)}")
            if name not in names:
                raise fault(unknown(name, names))
        return value

    @field_validator("nfkc", mode="before")
    @classmethod
    def _which_sides(cls, value: Any) -> Any:
        if not isinstance(value, bool) and value != "source":
            raise fault(f"expected true, false or source, got {shown(value)}")
        return value

    def faults(self) -> Iterator[Fault]:
        """Find sampling from models with a single segmentation, and two models for a joint vocabulary."""
        rigid = next((model for model in self.models if model in ("char", "word")), None)
        if self.sampling and rigid:
            yield Fault(
                "sampling", f"a {rigid} model has only one segmentation; use unigram or bpe, or no sampling"
            )
        if self.joint and self.models[0] != self.models[1]:
            yield Fault("model", "a joint vocabulary is one model: give one name, or joint: false")
        if self.joint and self.sizes[0] != self.sizes[1]:
            yield Fault("size", "a joint vocabulary has one size: give one number, or joint: false")
        if self.sampling and "bpe" in self.models and self.sampling.alpha > 1:
            yield Fault(
                "sampling.alpha", f"is the dropout rate of bpe merges, at most 1; got {self.sampling.alpha:g}"
            )
        if self.joint and self.files and not self.ids and self.files[0] != self.files[1]:
            yield Fault(
                "files", "a joint vocabulary is one .model: give the same file twice, or joint: false"
            )
        if self.ids and not self.files:
            yield Fault("ids", "are those of the pieces of `files`: name the .model files, too")
        if self.ids and self.joint != isinstance(self.ids, str):
            expected = "one file for both languages" if self.joint else "a list of two, or joint: true"
            yield Fault("ids", f"expected {expected}")
        if not self.ids and (self.start or self.tags == "marked"):
            yield Fault("start" if self.start else "tags", "needs `ids`")
