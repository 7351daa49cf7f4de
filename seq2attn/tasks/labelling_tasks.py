"""Tasks from words to labels."""

from itertools import chain
from pathlib import Path
from typing import Any

import torch

from seq2attn.data import Coders, Examples, Report, pairs, training_text
from seq2attn.data.batches import LabelledBatchLoader
from seq2attn.data.corpora import Use, open_corpus
from seq2attn.data.pretrained_vectors import known_words, word_vectors
from seq2attn.inference.recognizer import Categorizer, Recognizer
from seq2attn.models.tagger_factory import build_tagger
from seq2attn.recipe import (
    LabellingRecipe,
    TaggingRecipe,
)
from seq2attn.recipe.tagger_model import AttentivePoolingRecipe
from seq2attn.tasks.task import Task
from seq2attn.text.tag_schemes import Scheme
from seq2attn.text.word_vocabulary import Labels, WordVocabulary, WordVocabularyError
from seq2attn.training.label_objectives import AnyTagger, LabelObjective, label_objective
from seq2attn.training.run_folder import RunFolder


class LabellingTask(Task[LabellingRecipe]):
    """From words to labels, of each word or of all together."""

    counted = "sentences"

    def __init__(self, recipe: LabellingRecipe, word_vocabulary: WordVocabulary, labels: Labels) -> None:
        self.recipe, self.word_vocabulary, self.labels = recipe, word_vocabulary, labels

    @classmethod
    def learn(cls, recipe: LabellingRecipe) -> "LabellingTask":
        """With the words of the training data, and the labels of these and of the dev set."""
        data, text = recipe.data, recipe.text
        report = Report(stop=data.bad_lines == "stop")
        held = pairs(data.dev, data.languages, report, "dev", "data.dev", data.tag_scheme, text.words)
        try:
            word_vocabulary = WordVocabulary.learn(
                training_text(data, (0,), text.words),
                size=text.size,
                min_count=text.min_count,
                lowercase=text.lowercase,
                digits=text.digits,
                known=() if text.vectors is None else known_words(Path(text.vectors)),
            )
        except WordVocabularyError as error:
            use = Use(data.languages, "train", "data.train", data.tag_scheme)
            names = [open_corpus(corpus, use).name for corpus in data.train]
            raise WordVocabularyError(f"{' and '.join(names)}: {error}") from error
        scheme: Scheme | None = "bioes" if isinstance(recipe, TaggingRecipe) else None
        known = chain(training_text(data, (1,), text.words), (pair.target for pair in held))
        labels = Labels.learn(known, scheme)
        return cls(recipe, word_vocabulary, labels)

    @classmethod
    def open(cls, recipe: LabellingRecipe, folder: RunFolder) -> "LabellingTask":
        """With the words and labels of a run."""
        word_vocabulary, labels = (folder.content(f"text/{name}.json") for name in ("words", "labels"))
        return cls(recipe, WordVocabulary.read(word_vocabulary), Labels.read(labels))

    @property
    def vocabulary(self) -> str:
        """See the base class."""
        counts = (
            f"{len(self.word_vocabulary.words):,} words, {len(self.word_vocabulary.characters):,} characters"
        )
        return f"{counts}, {len(self.labels.names)} labels"

    @property
    def coders(self) -> Coders:
        """See the base class."""
        return self.word_vocabulary, self.labels

    def files(self) -> dict[str, bytes]:
        """See the base class."""
        return {"text/words.json": self.word_vocabulary.content, "text/labels.json": self.labels.content}

    def loader(self, examples: Examples, training: bool = False) -> LabelledBatchLoader:
        """See the base class."""
        tokens = self.recipe.training.batch_tokens
        return LabelledBatchLoader(examples, self.word_vocabulary, self.labels, tokens, self.recipe.seed)

    def build(self) -> AnyTagger:
        """See the base class."""
        return self._build(self.recipe.text.vectors)

    def empty(self) -> AnyTagger:
        """See the base class: vectors that others have learnt need not be there."""
        return self._build(None)

    def _build(self, vectors: str | None) -> AnyTagger:
        return build_tagger(
            self.recipe.model,
            self.word_vocabulary.size,
            len(self.word_vocabulary.characters) + 2,
            self.labels.names,
            self.labels.scheme,
            None
            if vectors is None
            else word_vectors(Path(vectors), self.word_vocabulary, self.recipe.model.embedding.size),
        )

    def objective(self, model: AnyTagger, training: bool = False) -> LabelObjective:
        """See the base class."""
        if not training:
            return label_objective(model)
        pooling = self.recipe.model.pooling
        penalty = pooling.penalty if isinstance(pooling, AttentivePoolingRecipe) else 0.0
        return label_objective(model, self.recipe.training.label_smoothing, penalty)

    def predictor(
        self, model: Any, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> Recognizer | Categorizer:
        """See the base class."""
        kind = Recognizer if isinstance(self.recipe, TaggingRecipe) else Categorizer
        return kind(model, self.word_vocabulary, self.labels, self.recipe.text.words, device, precision)
