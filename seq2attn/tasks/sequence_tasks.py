"""Tasks: what a run must know of what is learnt. Training, scoring and loading are the same for all.

A task has its vocabularies. It makes batches of examples, a model, what that learns by, and the face with
which people use it.
"""

from pathlib import Path

import torch

from seq2attn.data import Coders, Examples, training_text
from seq2attn.data.batches import BatchLoader
from seq2attn.inference.translator import Summarizer, Translator
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import (
    Recipe,
    TrainingRecipe,
)
from seq2attn.tasks.task import Task
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.vocabulary_training import train_vocabulary
from seq2attn.training.objectives import AttentionLosses, TokenObjective
from seq2attn.training.run_folder import RunFolder


class SequenceTask(Task[Recipe]):
    """From text to text: an encoder and a decoder."""

    counted = "pairs"

    def __init__(self, recipe: Recipe, vocabularies: list[Vocabulary]) -> None:
        self.recipe, self.vocabularies = recipe, vocabularies
        self.source, self.target = vocabularies[0], vocabularies[-1]

    @classmethod
    def learn(cls, recipe: Recipe) -> "SequenceTask":
        """With source and target vocabulary as the recipe wants them; one if they are joint."""
        text = recipe.text
        if text.files is not None:
            files = text.files[:1] if text.joint else text.files
            return cls(recipe, [Vocabulary.load(Path(file), text.words) for file in files])
        languages: list[tuple[int, ...]] = [(0, 1)] if text.joint else [(0,), (1,)]
        learned = [
            train_vocabulary(
                training_text(recipe.data, sides),
                model=text.models[sides[0]],
                size=text.size,
                byte_fallback=text.byte_fallback,
                character_coverage=text.character_coverage,
                lowercase=text.lowercase,
                nfkc=text.nfkc,
                words=text.words,
                seed=recipe.seed,
            )
            for sides in languages
        ]
        return cls(recipe, learned)

    @classmethod
    def open(cls, recipe: Recipe, folder: RunFolder) -> "SequenceTask":
        """With the vocabularies of a run."""
        contents = [folder.content(name) for name in cls._names(recipe)]
        return cls(recipe, [Vocabulary(content, recipe.text.words) for content in contents])

    @staticmethod
    def _names(recipe: Recipe) -> list[str]:
        return [f"text/{side}.model" for side in (["joint"] if recipe.text.joint else ["source", "target"])]

    @property
    def vocabulary(self) -> str:
        """See the base class."""
        kind = "joint" if self.recipe.text.joint else "source and target"
        return f"{kind}: {' and '.join(f'{one.size:,}' for one in self.vocabularies)} pieces"

    def files(self) -> dict[str, bytes]:
        """See the base class."""
        names = self._names(self.recipe)
        return {name: one.model for name, one in zip(names, self.vocabularies, strict=True)}

    @property
    def coders(self) -> Coders:
        """See the base class."""
        return self.source, self.target

    def loader(self, examples: Examples, training: bool = False) -> BatchLoader:
        """See the base class."""
        sampling = self.recipe.text.sampling if training else None
        tokens, truncate = self.recipe.training.batch_tokens, self.recipe.data.truncate
        loader = BatchLoader(examples, self.source, self.target, tokens, self.recipe.seed, sampling, truncate)
        decoder = self.recipe.model.decoder
        loader.copying = decoder.copying is not None
        loader.hierarchical = any(part.sentences is not None for part in decoder.cross_attentions)
        return loader

    def build(self) -> Seq2Seq:
        """See the base class."""
        return build(self.recipe.model, self.source.size, self.target.size)

    def objective(self, model: Seq2Seq, training: bool = False) -> TokenObjective:
        """See the base class."""
        return token_objective(model, self.recipe.training) if training else TokenObjective()

    def predictor(
        self, model: Seq2Seq, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> Translator:
        """See the base class."""
        decoding, attention_losses = (
            self.recipe.decoding,
            token_objective(model, self.recipe.training).attention_losses,
        )
        if validating:
            changes = {"beam": decoding.validation_beam, "nbest": 1, "sample": False}
            decoding = decoding.model_copy(update=changes)
        truncate = self.recipe.data.truncate
        kind = Summarizer if self.recipe.task == "summarization" else Translator
        translator = kind(model, self.source, self.target, decoding, device, precision, truncate)
        if (
            attention_losses is not None and "guided" in attention_losses.factors
        ):  # what was taught to align, aligns
            translator.alignment_layer, translator.alignment_head = (
                attention_losses.guided_layer,
                attention_losses.guided_head,
            )
        return translator


def token_objective(model: Seq2Seq, recipe: TrainingRecipe) -> TokenObjective:
    """All that a recipe has an encoder and a decoder learn."""
    losses = recipe.attention_losses
    if losses is None:
        return TokenObjective(recipe.label_smoothing)
    attention_losses = AttentionLosses(losses.factors(), model.decoder, losses.layer, losses.head)
    return TokenObjective(recipe.label_smoothing, attention_losses)
