"""Tasks: what a run must know of what is learnt. Training, scoring and loading are the same for all.

A task has its vocabularies. It makes batches of examples, a model, what that learns by, and the face with
which people use it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import torch
from torch import nn

from seq2attn.batches import AnyFeed, Feed, LabelledFeed
from seq2attn.building import build_labeller
from seq2attn.checkpoint import RunFolder, put_weights
from seq2attn.data import Coders, Examples, Report, Role, pairs, prepare, training_text
from seq2attn.data.corpora import find
from seq2attn.errors import Seq2attnError
from seq2attn.faces import COMMANDS
from seq2attn.labelling import Labeller, Labelling, labelling
from seq2attn.lexicon import Labels, Lexicon, LexiconError
from seq2attn.losses import Objective, Prediction, Taught
from seq2attn.models import Seq2Seq, build, pick_device
from seq2attn.recipe import (
    AnyRecipe,
    LabellingRecipe,
    Recipe,
    TaggingRecipe,
    TrainingRecipe,
)
from seq2attn.recipe.labelling import AttentivePoolingRecipe
from seq2attn.recognizer import Categorizer, Recognizer
from seq2attn.results import Translation
from seq2attn.tags import Scheme
from seq2attn.text import Vocabulary, train_vocabulary
from seq2attn.translator import Summarizer, Translator
from seq2attn.vectors import known_words, word_vectors

R = TypeVar("R", bound=AnyRecipe)
Face = Translator | Recognizer | Categorizer


class Task(ABC, Generic[R]):
    """What a recipe's `task` means. Made by `learn` for a new run, or by `reopen` for one that is there."""

    recipe: R
    counted: str  # what its examples are

    @property
    @abstractmethod
    def vocabulary(self) -> str:
        """What is known of words and labels, in a line."""

    @property
    @abstractmethod
    def coders(self) -> Coders:
        """What makes ids of sources and targets."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """The vocabularies, by the names of their files in a run's folder."""

    @abstractmethod
    def feed(self, examples: Examples, training: bool = False) -> AnyFeed:
        """Examples as batches; for training, as the recipe changes them at random."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The model, freshly initialised. Seed torch before."""

    def empty(self) -> nn.Module:
        """A model that is about to be given weights."""
        return self.build()

    @abstractmethod
    def objective(self, model: Any, training: bool = False) -> Objective:
        """What the model is measured by; for training, with all that it learns by besides."""

    @abstractmethod
    def face(
        self, model: Any, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> Face:
        """The model as people use it; while validating, as fast as the recipe allows."""

    def examples(self, role: Role) -> Examples:
        """The tokenised examples of train, dev or test."""
        data = self.recipe.data
        corpora = data.train if role == "train" else [getattr(data, role)]
        return prepare(corpora, data, self.coders, role, words=self.recipe.text.words)


class Sequences(Task[Recipe]):
    """From text to text: an encoder and a decoder."""

    counted = "pairs"

    def __init__(self, recipe: Recipe, vocabularies: list[Vocabulary]) -> None:
        self.recipe, self.vocabularies = recipe, vocabularies
        self.source, self.target = vocabularies[0], vocabularies[-1]

    @classmethod
    def learn(cls, recipe: Recipe) -> "Sequences":
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
    def open(cls, recipe: Recipe, folder: RunFolder) -> "Sequences":
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

    def feed(self, examples: Examples, training: bool = False) -> Feed:
        """See the base class."""
        sampling = self.recipe.text.sampling if training else None
        tokens, truncate = self.recipe.training.batch_tokens, self.recipe.data.truncate
        feed = Feed(examples, self.source, self.target, tokens, self.recipe.seed, sampling, truncate)
        decoder = self.recipe.model.decoder
        feed.copying = decoder.copying is not None
        feed.hierarchical = any(part.sentences is not None for part in decoder.source_attentions)
        return feed

    def build(self) -> Seq2Seq:
        """See the base class."""
        return build(self.recipe.model, self.source.size, self.target.size)

    def objective(self, model: Seq2Seq, training: bool = False) -> Prediction:
        """See the base class."""
        return prediction(model, self.recipe.training) if training else Prediction()

    def face(
        self, model: Seq2Seq, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> Translator:
        """See the base class."""
        decoding, taught = self.recipe.decoding, prediction(model, self.recipe.training).taught
        if validating:
            changes = {"beam": decoding.validation_beam, "nbest": 1, "sample": False}
            decoding = decoding.model_copy(update=changes)
        truncate = self.recipe.data.truncate
        kind = Summarizer if self.recipe.task == "summarization" else Translator
        translator = kind(model, self.source, self.target, decoding, device, precision, truncate)
        if taught is not None and "guided" in taught.factors:  # what was taught to align, aligns
            translator.alignment_layer, translator.alignment_head = taught.guided_layer, taught.guided_head
        return translator


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


def prediction(model: Seq2Seq, recipe: TrainingRecipe) -> Prediction:
    """All that a recipe has an encoder and a decoder learn."""
    losses = recipe.attention_losses
    if losses is None:
        return Prediction(recipe.label_smoothing)
    taught = Taught(losses.factors(), model.decoder, losses.layer, losses.head)
    return Prediction(recipe.label_smoothing, taught)


def learn(recipe: AnyRecipe) -> Task[Any]:
    """The task of a recipe, its vocabularies learnt from the training data."""
    return Sequences.learn(recipe) if isinstance(recipe, Recipe) else Labellings.learn(recipe)


def reopen(folder: RunFolder) -> Task[Any]:
    """The task of a run, with its vocabularies."""
    recipe = folder.recipe
    return Sequences.open(recipe, folder) if isinstance(recipe, Recipe) else Labellings.open(recipe, folder)


def load(run: str | Path, checkpoint: str = "best", device: str = "auto", precision: str = "fp32") -> Any:
    """The model of a run folder: a Translator, Summarizer, Recognizer or Categorizer, by its task.

    checkpoint: best, last, average, or a file's name below weights/.
    """
    return _load(run, checkpoint, device, precision)


def load_for(
    command: str, run: str | Path, checkpoint: str = "best", device: str = "auto", precision: str = "fp32"
) -> Any:
    """The same for one of COMMANDS; Seq2attnError if the run's task is another's."""
    return _load(run, checkpoint, device, precision, command)


def _load(run: str | Path, checkpoint: str, device: str, precision: str, command: str | None = None) -> Face:
    folder = RunFolder.open(run)
    task = reopen(folder)
    name: str = task.recipe.task
    if command not in (None, COMMANDS[name]):
        raise Seq2attnError(f"{run} was trained for {name}: use `seq2attn {COMMANDS[name]}`, not {command}")
    model = task.empty()
    put_weights(model, folder.load_weights(checkpoint), folder.path)
    return task.face(model, pick_device(device), precision)


@overload
def translate(  # type: ignore[overload-overlap]
    text: str, model: str | Path | Translator
) -> Translation:
    """One in, one out."""


@overload
def translate(text: Sequence[str], model: str | Path | Translator) -> list[Translation]:
    """A list in, a list out."""


def translate(text: str | Sequence[str], model: str | Path | Translator) -> Translation | list[Translation]:
    """Translate with a run's folder (or a loaded model) in one line; a list in, a list out.

    A folder is read at every call: to translate often, `load` it once. Refuses models of other tasks.
    """
    face = load(model) if isinstance(model, str | Path) else model
    if face.task != "translation":
        raise face.wrong("translate")
    return face.translate(text)
