"""The recipe of each task as a whole, and the checks across its sections."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator
from typing_extensions import Self

from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.recipe.data import DataRecipe, NoCorpora, SummaryDataRecipe
from seq2attn.recipe.decoding import DecodingRecipe
from seq2attn.recipe.image_data import FITTED, ImageDataRecipe, ImageTextDataRecipe
from seq2attn.recipe.image_text import ImageTextTrainingRecipe, ImageToTextModelRecipe, TargetTextRecipe
from seq2attn.recipe.image_training import ImageTrainingRecipe
from seq2attn.recipe.labelled_data import CategorizedDataRecipe, TaggedDataRecipe, WordsRecipe
from seq2attn.recipe.root import LEARNING, TASK, AnyRecipe
from seq2attn.recipe.sections import Fault, Section, filled, learned_positions
from seq2attn.recipe.seq2seq_model import ModelRecipe, RecurrentDecoderRecipe
from seq2attn.recipe.tagger_model import (
    AttentivePoolingRecipe,
    ClassifierRecipe,
    SpanHeadRecipe,
    TaggerRecipe,
)
from seq2attn.recipe.text import TextRecipe
from seq2attn.recipe.training import (
    ClassificationTrainingRecipe,
    SummaryTrainingRecipe,
    TaggingTrainingRecipe,
    TrainingRecipe,
)
from seq2attn.recipe.vision_model import ImageClassifierRecipe

NEGATIVE = (
    "needs weights that are probabilities, and those of talking heads may be negative: set talking to false"
)


class WritingRecipe(AnyRecipe):
    """The base class of the recipes of models that write a text, token by token."""

    decoding: DecodingRecipe = Field(DecodingRecipe(), description="Beam search or sampling.")

    @property
    def attention_path(self) -> str | None:
        """The key of the attention to the source, which comparisons vary; None if there is none."""
        key = self.model.decoder.attention_key
        return None if key is None else f"model.decoder.{key}"

    def fitted_as(self, begun: AnyRecipe) -> Self:
        """See the base class."""
        recipe = super().fitted_as(begun)
        if not isinstance(begun, WritingRecipe):
            return recipe
        decoding = filled(self.decoding, begun.decoding, "max_length_ratio")
        return recipe.model_copy(update={"decoding": decoding})

    def faults(self) -> Iterator[Fault]:
        """See the base class; also find what does not fit the attention to the source."""
        yield from super().faults()
        yield from self._of_attention()

    def _of_attention(self) -> Iterator[Fault]:
        """Find settings that need attention to the source, where there is none or it does not fit."""
        decoder, losses = self.model.decoder, self.training.attention_losses
        if not (attentions := decoder.cross_attentions):
            owner = f"decoder {decoder.kind}"
            if isinstance(decoder, RecurrentDecoderRecipe):
                owner = f"order {decoder.order}"
            settings = {
                "decoding.replace_unknown": self.decoding.replace_unknown,
                "decoding.coverage_penalty": self.decoding.coverage_penalty,
                "training.attention_losses": losses,
            }
            for path in (path for path, value in settings.items() if value):
                yield Fault(path, f"needs attention, and the {owner} has none")
            return
        tracking_layer = -1 if decoder.copying is None else decoder.copying.layer
        if self.decoding.coverage_penalty and attentions[tracking_layer].talking:
            yield Fault("decoding.coverage_penalty", NEGATIVE)
        for fault in self._of_losses():
            yield Fault(f"training.attention_losses.{fault.path}", fault.message)

    def _of_losses(self) -> Iterator[Fault]:
        """Find attention losses of layers and heads that do not exist, or of unsuitable weights."""
        decoder, losses = self.model.decoder, self.training.attention_losses
        if losses is None:
            return
        attentions = decoder.cross_attentions
        layers, heads = len(attentions), attentions[0].heads
        if losses.layer is not None and not -layers <= losses.layer < layers:
            yield Fault(
                "layer", f"the decoder's layers with attention are 0 to {layers - 1}, got {losses.layer}"
            )
        if losses.head is not None and losses.head >= heads:
            yield Fault("head", f"the heads are 0 to {heads - 1}, got {losses.head}")
        last, before = -1, -min(2, layers)
        if losses.layer is not None:
            last = before = losses.layer % layers
        elif decoder.copying is not None:
            last = before = decoder.copying.layer % layers
        for name in losses.factors():
            trained = {"coverage": [last], "doubly_stochastic": [last], "guided": [before]}
            if decoder.shift_head is not None and losses.layer is None:
                trained["guided"] = []
            if any(attentions[layer].talking for layer in trained.get(name, range(layers))):
                yield Fault(name, NEGATIVE)
        if losses.reinforce and self.training.sharded:
            yield Fault(
                "reinforce",
                "counts the reward of each example once, and processes of a sharded model repeat batches: "
                "leave out one of the two",
            )
        sampling = [name for name, part in NORMALIZERS.items() if part.samples()]
        used = dict.fromkeys(attention.normalize.name for attention in attentions)
        if losses.reinforce and not used.keys() & sampling:
            yield Fault(
                "reinforce",
                f"needs sampled positions, and {' and '.join(used)} samples none: set "
                f"{self.attention_path}.normalize to {' or '.join(sampling)}",
            )


class Recipe(WritingRecipe):
    """The recipe of a model that translates texts."""

    task: Literal["translation", "summarization"] = Field("translation", description=TASK)
    data: SerializeAsAny[DataRecipe] = Field(description="Corpora of sentence pairs.")
    text: TextRecipe = Field(TextRecipe(), description="Vocabulary of subword pieces.")
    model: ModelRecipe = Field(description="Encoder and decoder.")
    training: TrainingRecipe = Field(description=LEARNING)

    @field_validator("data", mode="before")
    @classmethod
    def _of_imported(cls, value: Any, info: ValidationInfo) -> Any:
        """Let an imported model have no corpora."""
        imported = info.data.get("origin") is not None and isinstance(value, dict)
        return NoCorpora.model_validate(value) if imported and not value.get("train") else value

    def fitted_as(self, begun: AnyRecipe) -> Self:
        """See the base class."""
        recipe = super().fitted_as(begun)
        if not isinstance(begun, Recipe):
            return recipe
        return recipe.model_copy(update={"text": filled(self.text, begun.text, "size")})

    def faults(self) -> Iterator[Fault]:
        """What sections ask of each other."""
        yield from super().faults()
        if self.origin and self.data.train:
            yield Fault("origin", "is that of an imported run: leave it out, and start from that run (init)")
        if self.model.tied == "all" and not self.text.joint:
            yield Fault("model.tied", "all needs one vocabulary for both languages: set text.joint: true")
        yield from self._of_tags()
        needed = {"encoder": self.data.filter.max_length}
        needed["decoder"] = max(self.data.filter.max_length, self.decoding.max_length)
        for side, part in (("encoder", self.model.encoder), ("decoder", self.model.decoder)):
            lower = "data.filter.max_length and decoding.max_length"
            yield from _too_few_positions(side, part, needed[side], lower)
        yield from self._of_alignments()

    def _of_tags(self) -> Iterator[Fault]:
        """Find tags of corpora that are no tags of the vocabulary."""
        if self.text.tags == "marked":
            return
        corpora = [(f"train.{number}", corpus) for number, corpus in enumerate(self.data.train)]
        for key, corpus in (*corpora, ("dev", self.data.dev), ("test", self.data.test)):
            if corpus is not None and corpus.tag is not None and corpus.tag not in self.text.tags:
                yield Fault(f"data.{key}.tag", f"{corpus.tag} is none of text.tags: list it there")

    def _of_alignments(self) -> Iterator[Fault]:
        """Find alignments without guided attention, guided attention without alignments, and a shift head
        that nothing trains."""
        losses = self.training.attention_losses
        guided = losses is not None and losses.guided > 0
        if self.model.decoder.shift_head is not None and not guided and self.init is None:
            yield Fault(
                "model.decoder.shift_head",
                "is trained by guided attention only: set training.attention_losses.guided, or leave it out",
            )
        for number, corpus in enumerate(self.data.train):
            if corpus.aligned and not guided:
                yield Fault(
                    f"data.train.{number}.alignments",
                    "are not used without guided attention: set training.attention_losses.guided, or "
                    "remove them",
                )
            if guided and not corpus.aligned:
                yield Fault(
                    f"data.train.{number}",
                    "has no alignments, and training.attention_losses.guided needs them of every training "
                    "corpus: give it alignments, which files and synthetic tasks can have",
                )
        if guided and self.text.sampling:
            yield Fault(
                "text.sampling",
                "splits words anew in each epoch, but alignments need constant pieces: remove sampling, "
                "or training.attention_losses.guided",
            )


def _too_few_positions(side: str, part: Section, needed: int, lower: str) -> Iterator[Fault]:
    """Find learned positions of an encoder or decoder that texts of `needed` pieces do not have.

    lower: the settings that limit the texts.
    """
    length = learned_positions(part)
    if length is not None and length <= needed:  # one more for the end of the sentence
        yield Fault(
            f"model.{side}.positions",
            f"{length} are learned, but a sentence may have {needed} pieces and an end: set length to "
            f"{needed + 1}, or lower {lower}",
        )


class SummaryRecipe(Recipe):
    """The recipe of a model that summarizes texts."""

    task: Literal["summarization"] = Field(description=TASK)
    data: SummaryDataRecipe = Field(description="Corpora of texts and their summaries.")
    training: SummaryTrainingRecipe = Field(description=LEARNING)


def _of_words(recipe: "TaggingRecipe | ClassificationRecipe") -> Iterator[Fault]:
    """Find frozen embeddings without pre-trained vectors, and too few learned positions."""
    if recipe.model.embedding.frozen and recipe.text.vectors is None:
        yield Fault(
            "model.embedding.frozen",
            "embeddings would keep their random initial values: name a file of vectors in text.vectors, or "
            "set frozen to false",
        )
    encoder, needed = recipe.model.encoder, recipe.data.filter.max_length
    length = learned_positions(encoder)
    if length is not None and length < needed:
        yield Fault(
            "model.encoder.positions",
            f"{length} are learned, but a sentence may have {needed} words: set length to {needed}, or lower "
            "data.filter.max_length",
        )


class TaggingRecipe(AnyRecipe):
    """The recipe of a model that tags words: named entities, chunks."""

    task: Literal["tagging"] = Field(description=TASK)
    data: TaggedDataRecipe = Field(description="Corpora of tagged words.")
    text: WordsRecipe = Field(WordsRecipe(), description="Vocabulary of words.")
    model: TaggerRecipe = Field(TaggerRecipe(), description="Words, encoder, attention and head.")
    training: TaggingTrainingRecipe = Field(description=LEARNING)

    @property
    def attention_path(self) -> str | None:
        """The key of the attention within the sentence, or within spans; None if there is none."""
        if isinstance(self.model.head, SpanHeadRecipe):
            return "model.head.attention"
        return None if self.model.attention is None else "model.attention"

    def faults(self) -> Iterator[Fault]:
        """What sections ask of each other."""
        yield from super().faults()
        yield from _of_words(self)
        if self.model.head.kind != "crf":
            return
        if self.training.label_smoothing:
            yield Fault(
                "training.label_smoothing",
                "a CRF predicts all labels together, and none can be smoothed: set it to 0, or the head to "
                "linear",
            )
        if self.training.loss.name != "cross_entropy":
            yield Fault(
                "training.loss",
                "a CRF predicts all labels together, and has its own loss: leave it out, or set the head to "
                "linear",
            )


class ClassificationRecipe(AnyRecipe):
    """The recipe of a model that labels sentences."""

    task: Literal["classification"] = Field(description=TASK)
    data: CategorizedDataRecipe = Field(description="Corpora of labelled sentences.")
    text: WordsRecipe = Field(WordsRecipe(), description="Vocabulary of words.")
    model: ClassifierRecipe = Field(ClassifierRecipe(), description="Words, encoder and pooling.")
    training: ClassificationTrainingRecipe = Field(description=LEARNING)

    @property
    def attention_path(self) -> str | None:
        """The key of the pooling, if it has attention."""
        return "model.pooling" if isinstance(self.model.pooling, AttentivePoolingRecipe) else None

    def faults(self) -> Iterator[Fault]:
        """What sections ask of each other."""
        yield from super().faults()
        yield from _of_words(self)


LabellingRecipe = TaggingRecipe | ClassificationRecipe


class ImageClassificationRecipe(AnyRecipe):
    """The recipe of a network that labels images."""

    task: Literal["image_classification"] = Field(description=TASK)
    data: ImageDataRecipe = Field(description="Corpora of labelled images.")
    text: None = Field(None, description="Images have no vocabulary: leave it out.")
    model: ImageClassifierRecipe = Field(ImageClassifierRecipe(), description="Network.")
    training: ImageTrainingRecipe = Field(description=LEARNING)

    @property
    def attention_path(self) -> str | None:
        """The key of the pooling's attention, which comparisons vary; None if there is none."""
        return "model.pooling" if isinstance(self.model.pooling, AttentivePoolingRecipe) else None

    @property
    def blocks_path(self) -> str | None:
        """See the base class."""
        return "model.backbone.blocks" if self.model.backbone.takes_blocks else None

    def fitted_as(self, begun: AnyRecipe) -> Self:
        """See the base class."""
        recipe = super().fitted_as(begun)
        if not isinstance(begun, ImageClassificationRecipe):
            return recipe
        return recipe.model_copy(update={"data": filled(self.data, begun.data, *FITTED)})


class ImageToTextRecipe(WritingRecipe):
    """The recipe of a model that writes a text from an image: a caption, or a formula."""

    task: Literal["image_to_text"] = Field(description=TASK)
    data: ImageTextDataRecipe = Field(description="Corpora of images and texts.")
    text: TargetTextRecipe = Field(TargetTextRecipe(), description="Vocabulary of subword pieces.")
    model: ImageToTextModelRecipe = Field(description="Encoder of images, and decoder.")
    training: ImageTextTrainingRecipe = Field(description=LEARNING)

    @property
    def blocks_path(self) -> str | None:
        """See the base class."""
        return "model.encoder.backbone.blocks" if self.model.encoder.backbone.takes_blocks else None

    def fitted_as(self, begun: AnyRecipe) -> Self:
        """See the base class."""
        recipe = super().fitted_as(begun)
        if not isinstance(begun, ImageToTextRecipe):
            return recipe
        update = {
            "text": filled(self.text, begun.text, "size"),
            "data": filled(self.data, begun.data, *FITTED),
        }
        return recipe.model_copy(update=update)

    def faults(self) -> Iterator[Fault]:
        """What sections ask of each other."""
        yield from super().faults()
        needed = self.decoding.max_length
        yield from _too_few_positions("decoder", self.model.decoder, needed, "decoding.max_length")
        if self.decoding.replace_unknown:
            yield Fault("decoding.replace_unknown", "takes words from a source text, and there is none")
