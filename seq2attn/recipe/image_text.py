"""Sections of a recipe: models that write a text from an image, their vocabulary and their training."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from seq2attn.attention.positions import POSITIONS
from seq2attn.recipe.image_training import ImageBatchesRecipe
from seq2attn.recipe.markers import FilePath, OneOrMore
from seq2attn.recipe.sections import Choice, Fault, Part, Rate, Section, Size
from seq2attn.recipe.seq2seq_model import AnyModelRecipe
from seq2attn.recipe.training import (
    BEST,
    MEASURED,
    AttentionLossesRecipe,
    BestBy,
    PredictionTrainingRecipe,
    TextMetric,
)
from seq2attn.recipe.vision_model import AnyBackbone, grid_positions
from seq2attn.text.vocabulary import Words
from seq2attn.text.vocabulary_training import LEAST_COVERAGE, PieceModel


class TargetTextRecipe(Section):
    """The vocabulary of the texts that are written: how they are split into pieces (SentencePiece)."""

    model: PieceModel = Field(
        "unigram", description="SentencePiece model type; word: words are separated by spaces."
    )
    size: Size | None = Field(
        None,
        description="Size of the vocabulary; for char and word, the largest size. null = from the training "
        "data, as for translation.",
    )
    file: FilePath | None = Field(
        None, description="An existing SentencePiece .model file; null = train one."
    )
    lowercase: bool = Field(False, description="Lower-case texts; outputs are then in lower case.")
    nfkc: bool = Field(
        False, description="Unicode NFKC normalisation; what the model writes is then in NFKC, too."
    )
    byte_fallback: bool = Field(
        True, description="Encode unknown characters as bytes, so that nothing is lost; not for word models."
    )
    character_coverage: float = Field(
        1.0,
        ge=LEAST_COVERAGE,
        le=1,
        description="Share of the characters of the training texts that the vocabulary covers.",
    )
    words: Words = Field(
        "auto",
        description="Words in heat maps. spaces: separated by spaces; pieces: each piece is a word; auto: "
        "pieces in scripts without spaces, otherwise spaces.",
    )


class ImageEncoderRecipe(Section):
    """An encoder of images: a network, whose last stage gives a state for each position of its grid."""

    backbone: AnyBackbone = Field(description="Network of the features.")
    size: Size = Field(256, description="Size of the states, to which features are projected.")
    positions: Annotated[Part, Choice(POSITIONS)] | None = Field(
        "sinusoidal_2d",
        validate_default=True,
        description="Positions of rows and columns that are added to the states; null = none.",
    )
    dropout: Rate = Field(0.1, description="Dropout rate of the states.")

    @property
    def output_size(self) -> int:
        """Return the size of its states."""
        return self.size

    def faults(self) -> Iterator[Fault]:
        """Find positions that are not added to states, or not on a grid."""
        if self.positions is not None:
            yield from grid_positions(self.positions, ", or null")


class ImageToTextModelRecipe(AnyModelRecipe):
    """An encoder of images, and a decoder that writes a text."""

    encoder: ImageEncoderRecipe = Field(description="Encoder of the image.")

    def faults(self) -> Iterator[Fault]:
        """See the base class; also find what only texts as sources have."""
        yield from super().faults()
        if self.tied == "all":
            yield Fault("tied", "an image has no embeddings to be tied: set decoder or none")
        if self.decoder.copying is not None:
            yield Fault("decoder.copying", "copies pieces of a source text, and there is none: leave it out")
        if self.decoder.shift_head is not None:
            why = "is trained on links between words, and an image has none: leave it out"
            yield Fault("decoder.shift_head", why)
        if any(section.sentences is not None for section in self.decoder.cross_attentions):
            key = self.decoder.attention_key
            yield Fault(f"decoder.{key}.sentences", "is for sources with sentences: leave it out")


class ImageTextTrainingRecipe(PredictionTrainingRecipe, ImageBatchesRecipe):
    """Training settings of models that write a text from an image."""

    attention_losses: AttentionLossesRecipe | None = Field(
        None, description="Auxiliary losses of the attention weights; null = none."
    )
    metric: Annotated[str, BestBy("texts")] = Field("bleu", description=BEST)
    metrics: Annotated[list[TextMetric], Field(min_length=1), OneOrMore()] = Field(
        ["bleu", "chrf"], description=MEASURED
    )

    def faults(self) -> Iterator[Fault]:
        """See the base class; also find guided attention, for which there are no gold alignments."""
        yield from super().faults()
        if self.attention_losses is not None and self.attention_losses.guided:
            yield Fault("attention_losses.guided", "needs gold alignments, and images have none: set it to 0")
