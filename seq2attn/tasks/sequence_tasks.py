"""Tasks that generate text from text: translation and summarization."""

from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import ClassVar

import torch
from typing_extensions import Self

from seq2attn.data import Coders, Examples
from seq2attn.data.batches import BatchLoader
from seq2attn.data.sources import PairTokenizer
from seq2attn.inference.baselines import BASELINES
from seq2attn.inference.generator import DEFAULT_HEAD, AlignmentHead, Generator
from seq2attn.inference.translator import Summarizer, TextPredictor, Translator
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import DecodingRecipe, Recipe, TaskCorpus, TrainingRecipe
from seq2attn.recipe.image_text import ImageTextTrainingRecipe
from seq2attn.recipe.sections import learned_positions
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.tasks.pair_vocabularies import learned_vocabularies, opened_vocabularies, vocabulary_files
from seq2attn.tasks.task import Rows, TextTask, Units
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.training.objectives import AttentionLosses, TokenObjective, guided_head
from seq2attn.training.run_folder import RunFolder

ALIKE = 1000  # training pairs whose sources are compared with their targets


class SequenceTask(TextTask[Recipe]):
    """The base class of tasks whose model generates a text from a text."""

    units = Units("pairs", "target pieces a sentence", "target tokens")
    vocabulary_tensors = ("encoder.embedding.table.", "decoder.embedding.table.", "decoder.output.")
    predictor_class: ClassVar[type[TextPredictor]]

    def __init__(self, recipe: Recipe, vocabularies: list[Vocabulary]) -> None:
        self.recipe, self.vocabularies = recipe, vocabularies
        decoder = recipe.model.decoder
        self.tokenizer = PairTokenizer(
            vocabularies[0],
            vocabularies[-1],
            recipe.data.truncate,
            copying=decoder.copying is not None,
            hierarchical=any(attention.sentences is not None for attention in decoder.cross_attentions),
        )

    @classmethod
    def learn(cls, recipe: Recipe) -> Self:
        """See the base class. Source and target have a joint vocabulary, or each its own."""
        vocabularies = learned_vocabularies(recipe)
        sizes = vocabularies[0].size - len(recipe.text.tags), vocabularies[-1].size  # as they are trained
        return cls(_with_size(recipe, sizes[0] if recipe.text.joint else sizes), vocabularies)

    @classmethod
    def keep(cls, recipe: Recipe, folder: RunFolder) -> Self:
        """See the base class."""
        return cls.open(recipe, folder)

    @classmethod
    def open(cls, recipe: Recipe, folder: RunFolder) -> Self:
        """See the base class."""
        return cls(recipe, opened_vocabularies(recipe, folder))

    def rows_of(self, other: Self) -> Mapping[str, Rows]:
        """See the base class."""
        source, target = (
            vocabulary.rows_in(old)
            for vocabulary, old in (
                (self.tokenizer.source, other.tokenizer.source),
                (self.tokenizer.target, other.tokenizer.target),
            )
        )
        of_target = ("decoder.embedding.table.weight", "decoder.output.weight", "decoder.output.bias")
        return {"encoder.embedding.table.weight": source, **dict.fromkeys(of_target, target)}

    def files(self) -> dict[str, bytes]:
        """See the base class."""
        return vocabulary_files(self.recipe, self.vocabularies)

    @property
    def vocabulary(self) -> str:
        """See the base class."""
        kind = "joint" if self.recipe.text.joint else "source and target"
        vocabularies = self.vocabularies[:1] if self.recipe.text.joint else self.vocabularies
        return f"{kind}: {' and '.join(f'{vocabulary.size:,}' for vocabulary in vocabularies)} pieces"

    @property
    def coders(self) -> Coders:
        """See the base class."""
        return self.tokenizer.source, self.tokenizer.target

    def fitted(self, training: Examples) -> Self:
        """See the base class; also the longest output as a multiple of the source length."""
        decoding = self.recipe.decoding.fitted(training.source_lengths + 1, training.target_lengths)
        fitted = super().fitted(training)
        return fitted.with_recipe(fitted.recipe.model_copy(update={"decoding": decoding}))

    @property
    def max_lengths(self) -> dict[str, int]:
        """See the base class; one position is for </s> or <s>."""
        model = self.recipe.model
        parts = {"encoder": model.encoder, "decoder": model.decoder}
        lengths = {name: learned_positions(part) for name, part in parts.items()}
        return {name: length - 1 for name, length in lengths.items() if length is not None}

    def loader(self, examples: Examples, training: bool = False, group: Group = ALONE) -> BatchLoader:
        """See the base class."""
        sampling = self.recipe.text.sampling if training else None
        batch_tokens = self.recipe.training.batch_size
        longest = self.max_lengths.get("encoder", inf), self.max_lengths.get("decoder", inf)
        return BatchLoader(examples, self.tokenizer, batch_tokens, self.recipe.seed, sampling, longest)

    def build(self) -> Seq2Seq:
        """See the base class."""
        return build(self.recipe.model, self.tokenizer.source.size, self.tokenizer.target.size)

    def objective(self, model: Seq2Seq, training: bool = False) -> TokenObjective:
        """See the base class: in training the losses of the recipe, else cross-entropy."""
        return token_objective(model, self.recipe.training) if training else TokenObjective()

    def predictor(
        self, model: Seq2Seq, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> TextPredictor:
        """See the base class."""
        decoding = self.recipe.decoding
        decoding = validating_settings(decoding) if validating else decoding
        losses, head = self.recipe.training.attention_losses, DEFAULT_HEAD
        if losses is not None and losses.guided:  # alignments come from the head that was trained on them
            head = AlignmentHead(*guided_head(model.decoder, losses.layer, losses.head))
        return self.predictor_class(Generator(model, self.tokenizer, device, precision), decoding, head)

    def summary(self, training: Examples, dev: Examples) -> Iterator[tuple[str, str]]:
        """See the base class: targets that are longer than outputs may be, and those that the vocabulary
        cannot write."""
        yield from super().summary(training, dev)
        if _all_alike(training) and not any(isinstance(one, TaskCorpus) for one in self.recipe.data.train):
            yield (
                "note",
                "source and target are the same text in each of the first "
                f"{min(len(training), ALIKE):,} training pairs: do data.train's columns or files name the "
                "same twice?",
            )
        decoding, temperature = self.recipe.decoding, self.recipe.data.temperature
        if temperature is not None:
            passes = ", ".join(f"{weight:.2g}" for weight in training.weights)
            yield "mixing", f"passes through each corpus in an epoch: {passes} (temperature {temperature:g})"
        cut = int((dev.target_lengths > decoding.limits(dev.source_lengths + 1)).sum())
        if cut:
            yield (
                "note",
                f"{cut:,} of {len(dev):,} dev targets are longer than outputs may be: raise decoding."
                f"max_length_ratio ({decoding.max_length_ratio:g}) or max_length ({decoding.max_length})",
            )
        pairs = [(dev.source_text(row), text) for row in range(len(dev)) for text in dev.references(row)]
        # white space does not count, as in metrics
        lost = [pair for pair in pairs if pair[1].split() != self.tokenizer.rewritten(*pair).split()]
        if lost:
            text, written = lost[0][1], self.tokenizer.rewritten(*lost[0])
            letters = enumerate(zip(text, written, strict=False))
            first = next((index for index, (left, right) in letters if left != right), 0)
            start = max(0, first - 10)
            before, after = (side[start : start + 30] for side in (text, written))
            yield (
                "targets",
                f"{len(lost):,} of {len(pairs):,} in dev cannot be written as they are (see text.nfkc, "
                f"lowercase, byte_fallback, model): {before!r} becomes {after!r}",
            )

    @classmethod
    def learned(cls, recipe: Recipe) -> str:
        """See the base class."""
        return "the vocabulary" if recipe.text.files is None else ""

    @classmethod
    def warnings(cls, recipe: Recipe) -> Iterator[str]:
        """See the base class."""
        yield from super().warnings(recipe)
        if recipe.model.decoder.copying and recipe.text.files is None and recipe.text.nfkc == "source":
            yield (
                "text.nfkc: source, so that words are copied as NFKC writes them, which may not be as in the "
                "target: set false, or true for both sides"
            )
        decoding = recipe.decoding
        if decoding.sample and decoding.coverage_penalty:
            yield (
                "decoding.coverage_penalty: does not change samples, only ranks those of a sentence (nbest)"
            )

    @classmethod
    def reinforced(cls, recipe: Recipe, path: str) -> bool:
        """See the base class."""
        losses = recipe.training.attention_losses
        return losses is not None and losses.reinforce > 0 and "self_attention" not in path


class TranslationTask(SequenceTask):
    """Translation of sentences."""

    predictor_class = Translator


class SummarizationTask(SequenceTask):
    """Summarization of texts."""

    units = SequenceTask.units._replace(lengths="target pieces a summary")
    predictor_class = Summarizer

    @property
    def baselines(self) -> Mapping[str, Callable[[str], str]]:
        """See the base class: the first and the longest sentences."""
        return BASELINES


def _all_alike(examples: Examples) -> bool:
    """Return whether the source of each of the first ALIKE pairs is its target."""
    rows = range(min(len(examples), ALIKE))
    return all(examples.source_text(row).split() == examples.target_text(row).split() for row in rows)


def _with_size(recipe: Recipe, size: int | tuple[int, int]) -> Recipe:
    """Return a recipe with the size of its vocabularies, if it leaves it to the training data."""
    if recipe.text.size is not None or recipe.text.files is not None:
        return recipe
    return recipe.model_copy(update={"text": recipe.text.model_copy(update={"size": size})})


def validating_settings(decoding: DecodingRecipe) -> DecodingRecipe:
    """Return the faster settings of validation."""
    changes = {"beam": decoding.validation_beam, "nbest": 1, "sample": False}
    return decoding.model_copy(update=changes)


def token_objective(model: Seq2Seq, settings: TrainingRecipe | ImageTextTrainingRecipe) -> TokenObjective:
    """Return the loss of a recipe: that of tokens, and attention losses if the recipe has them."""
    token_loss, losses = settings.token_loss(), settings.attention_losses
    if losses is None:
        return TokenObjective(token_loss)
    attention_losses = AttentionLosses(losses.factors(), model.decoder, losses.layer, losses.head)
    return TokenObjective(token_loss, attention_losses)
