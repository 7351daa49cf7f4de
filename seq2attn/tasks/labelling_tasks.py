"""Tasks from words to labels."""

from itertools import chain
from pathlib import Path
from typing import Any

import torch

from seq2attn.data import Coders, Examples, Report, pairs, training_text
from seq2attn.data.batches import LabelledFeed
from seq2attn.data.corpora import find
from seq2attn.data.pretrained_vectors import known_words, word_vectors
from seq2attn.inference.recognizer import Categorizer, Recognizer
from seq2attn.models.tagger_factory import build_labeller
from seq2attn.recipe import (
    LabellingRecipe,
    TaggingRecipe,
)
from seq2attn.recipe.tagger_model import AttentivePoolingRecipe
from seq2attn.tasks.task import Task
from seq2attn.text.tag_schemes import Scheme
from seq2attn.text.word_vocabulary import Labels, Lexicon, LexiconError
from seq2attn.training.label_objectives import Labeller, Labelling, labelling
from seq2attn.training.run_folder import RunFolder


class Labellings(Task[LabellingRecipe]):
    """From words to labels, of each word or of all together."""

    counted = "sentences"

    def __init__(self, recipe: LabellingRecipe, lexicon: Lexicon, labels: Labels) -> None:
        self.recipe, self.lexicon, self.labels = recipe, lexicon, labels

    @classmethod
    def learn(cls, recipe: LabellingRecipe) -> "Labellings":
        """With the words of the training data, and the labels of these and of the dev set."""
        data, text = recipe.data, recipe.text
        report = Report(stop=data.bad_lines == "stop")
        held = pairs(data.dev, data.languages, report, "dev", "data.dev", data.tag_scheme, text.words)
        try:
            lexicon = Lexicon.learn(
                training_text(data, (0,), text.words),
                size=text.size,
                min_count=text.min_count,
                lowercase=text.lowercase,
                digits=text.digits,
                known=() if text.vectors is None else known_words(Path(text.vectors)),
            )
        except LexiconError as error:
            found = (find(one, data.languages, "train", "data.train", data.tag_scheme) for one in data.train)
            raise LexiconError(f"{' and '.join(one.name for one in found)}: {error}") from error
        scheme: Scheme | None = "bioes" if isinstance(recipe, TaggingRecipe) else None
        known = chain(training_text(data, (1,), text.words), (pair.target for pair in held))
        labels = Labels.learn(known, scheme)
        return cls(recipe, lexicon, labels)

    @classmethod
    def open(cls, recipe: LabellingRecipe, folder: RunFolder) -> "Labellings":
        """With the words and labels of a run."""
        lexicon, labels = (folder.content(f"text/{name}.json") for name in ("words", "labels"))
        return cls(recipe, Lexicon.read(lexicon), Labels.read(labels))

    @property
    def vocabulary(self) -> str:
        """See the base class."""
        counts = f"{len(self.lexicon.words):,} words, {len(self.lexicon.characters):,} characters"
        return f"{counts}, {len(self.labels.names)} labels"

    @property
    def coders(self) -> Coders:
        """See the base class."""
        return self.lexicon, self.labels

    def files(self) -> dict[str, bytes]:
        """See the base class."""
        return {"text/words.json": self.lexicon.content, "text/labels.json": self.labels.content}

    def feed(self, examples: Examples, training: bool = False) -> LabelledFeed:
        """See the base class."""
        tokens = self.recipe.training.batch_tokens
        return LabelledFeed(examples, self.lexicon, self.labels, tokens, self.recipe.seed)

    def build(self) -> Labeller:
        """See the base class."""
        return self._build(self.recipe.text.vectors)

    def empty(self) -> Labeller:
        """See the base class: vectors that others have learnt need not be there."""
        return self._build(None)

    def _build(self, vectors: str | None) -> Labeller:
        return build_labeller(
            self.recipe.model,
            self.lexicon.size,
            len(self.lexicon.characters) + 2,
            self.labels.names,
            self.labels.scheme,
            None
            if vectors is None
            else word_vectors(Path(vectors), self.lexicon, self.recipe.model.embedding.size),
        )

    def objective(self, model: Labeller, training: bool = False) -> Labelling:
        """See the base class."""
        if not training:
            return labelling(model)
        pooling = self.recipe.model.pooling
        penalty = pooling.penalty if isinstance(pooling, AttentivePoolingRecipe) else 0.0
        return labelling(model, self.recipe.training.label_smoothing, penalty)

    def face(
        self, model: Any, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> Recognizer | Categorizer:
        """See the base class."""
        kind = Recognizer if isinstance(self.recipe, TaggingRecipe) else Categorizer
        return kind(model, self.lexicon, self.labels, self.recipe.text.words, device, precision)
