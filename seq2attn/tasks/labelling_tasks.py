"""Tasks that label words or sentences: tagging and classification."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar

import torch
from typing_extensions import Self

from seq2attn.data import Coders, Examples, Report, Role, pairs, training_text, with_scheme
from seq2attn.data.corpora import Use, open_corpus
from seq2attn.data.files import fetched
from seq2attn.data.pretrained_vectors import coverage, known_words, word_vectors
from seq2attn.data.word_batches import LabelledBatchLoader
from seq2attn.inference.recognizer import Categorizer, Recognizer
from seq2attn.metrics.entities import parted
from seq2attn.models.tagger_factory import build_tagger
from seq2attn.recipe import LabellingRecipe
from seq2attn.recipe.sections import learned_positions
from seq2attn.recipe.tagger_model import AttentivePoolingRecipe
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.tasks.task import LABELS, Rows, TextTask, Units, read_part
from seq2attn.text.tag_schemes import Scheme, read
from seq2attn.text.word_vocabulary import UNKNOWN, Labels, WordVocabulary, WordVocabularyError, split_words
from seq2attn.training.label_objectives import AnyTagger, LabelObjective
from seq2attn.training.run_folder import RunError, RunFolder

VECTORS = "text.vectors"  # the key of pre-trained vectors
MOST_FREQUENT, RAREST = 12, 3  # the number of labels whose counts `check` reports


class LabellingTask(TextTask[LabellingRecipe]):
    """The base class of tasks whose model reads words, and labels each word or the sentence."""

    units = Units("sentences", "words a sentence", "words")
    label_tensors = ("output.", "crf.", "label_attention.labels")
    vocabulary_tensors = ("encoder.embedding.table.", "encoder.embedding.character_encoder.table.")
    predictor_class: ClassVar[type[Recognizer] | type[Categorizer]]
    scheme: ClassVar[Scheme | None]  # of the tags; None: sentences are labelled

    def __init__(self, recipe: LabellingRecipe, word_vocabulary: WordVocabulary, labels: Labels) -> None:
        self.recipe, self.word_vocabulary, self.labels = recipe, word_vocabulary, labels

    @classmethod
    def learn(cls, recipe: LabellingRecipe) -> Self:
        """See the base class: the words of the training data, and the labels of training data and dev set."""
        return cls._learned(recipe, None)

    @classmethod
    def keep(cls, recipe: LabellingRecipe, folder: RunFolder) -> Self:
        """See the base class."""
        return cls._learned(recipe, read_part(folder, "text/words.json", WordVocabulary.read))

    @classmethod
    def _learned(cls, recipe: LabellingRecipe, word_vocabulary: WordVocabulary | None) -> Self:
        """Return the task with the labels of the data, and their words if no vocabulary is given."""
        data, text = recipe.data, recipe.text
        report = Report(stop=data.bad_lines == "stop")
        scheme = with_scheme(data).tag_scheme
        dev = pairs(data.dev, data.languages, report, "dev", "data.dev", scheme, text.words)
        try:
            word_vocabulary = word_vocabulary or WordVocabulary.learn(
                training_text(data, (0,), text.words),
                size=text.size,
                min_count=text.min_count,
                lowercase=text.lowercase,
                digits=text.digits,
                known=() if text.vectors is None else known_words(fetched(text.vectors, VECTORS)),
            )
            targets = chain(training_text(data, (1,), text.words), (pair.target for pair in dev))
            labels = Labels.learn(targets, cls.scheme)
        except WordVocabularyError as error:
            use = Use(data.languages, "train", "data.train", data.tag_scheme)
            names = [open_corpus(corpus, use).name for corpus in data.train]
            raise WordVocabularyError(f"{' and '.join(names)}: {error}") from error
        return cls(recipe, word_vocabulary, labels)

    def rows_of(self, other: Self) -> Mapping[str, Rows]:
        """See the base class: words and characters that both have."""
        new, old = self.word_vocabulary, other.word_vocabulary
        return {
            "encoder.embedding.table.weight": shared_rows(new.words, old.words),
            "encoder.embedding.character_encoder.table.weight": shared_rows(new.characters, old.characters),
        }

    @classmethod
    def open(cls, recipe: LabellingRecipe, folder: RunFolder) -> Self:
        """See the base class."""
        words = read_part(folder, "text/words.json", WordVocabulary.read)
        labels = read_part(folder, LABELS, Labels.read)
        if labels.scheme != cls.scheme:
            raise RunError(
                f"{folder.path / LABELS} is damaged: scheme: expected {cls.scheme} for "
                f"{recipe.task}, got {labels.scheme}"
            )
        return cls(recipe, words, labels)

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
        return {"text/words.json": self.word_vocabulary.content, LABELS: self.labels.content}

    @property
    def max_lengths(self) -> dict[str, int]:
        """See the base class."""
        length = learned_positions(self.recipe.model.encoder)
        return {} if length is None else {"encoder": length}

    def reading(self, role: Role) -> Any:
        """See the base class. Tags of dev and test are read in the scheme of the training data."""
        return self.recipe.data if role == "train" else self._held_out_data

    @cached_property
    def _held_out_data(self) -> Any:
        return with_scheme(self.recipe.data)  # reads the beginning of the training data

    def loader(self, examples: Examples, training: bool = False, group: Group = ALONE) -> LabelledBatchLoader:
        """See the base class."""
        tokens = self.recipe.training.batch_size
        return LabelledBatchLoader(examples, self.word_vocabulary, self.labels, tokens, self.recipe.seed)

    def build(self) -> AnyTagger:
        """See the base class."""
        return self._build(self.recipe.text.vectors)

    def empty(self) -> AnyTagger:
        """See the base class: the file of pre-trained vectors is not needed, as the weights contain them."""
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
            else word_vectors(
                fetched(vectors, VECTORS), self.word_vocabulary, self.recipe.model.embedding.size
            ),
        )

    def objective(self, model: AnyTagger, training: bool = False) -> LabelObjective:
        """See the base class."""
        if not training:
            return LabelObjective(model)
        pooling = self.recipe.model.pooling
        penalty = pooling.penalty if isinstance(pooling, AttentivePoolingRecipe) else 0.0
        token_loss = None if model.crf is not None else self.recipe.training.token_loss()
        return LabelObjective(model, token_loss, penalty)

    def predictor(
        self, model: Any, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> Recognizer | Categorizer:
        """See the base class."""
        words = self.recipe.text.words
        return self.predictor_class(model, self.word_vocabulary, self.labels, words, device, precision)

    def lengths(self, examples: Examples) -> Any:
        """See the base class."""
        return examples.source_lengths

    def summary(self, training: Examples, dev: Examples) -> Iterator[tuple[str, str]]:
        """See the base class: how many words have pre-trained vectors, and how often each label occurs."""
        if (vectors := self.recipe.text.vectors) is not None:
            texts = map(training.source_text, range(len(training)))
            yield "vectors", str(coverage(fetched(vectors, VECTORS), self.word_vocabulary, texts))
        yield "labels", self._label_counts(training, dev)

    def _label_counts(self, training: Examples, dev: Examples) -> str:
        """Return the count of each label (of tags: of spans, by type), and which labels only dev has."""
        counts, dev_counts = self._count_labels(training), self._count_labels(dev)
        ranked = counts.most_common()
        text = _format_counts(ranked[:MOST_FREQUENT])
        if len(ranked) > MOST_FREQUENT:
            rarest = _format_counts(ranked[max(MOST_FREQUENT, len(ranked) - RAREST) :])
            text += f", and {len(ranked) - MOST_FREQUENT} more, the rarest {rarest}"
        if training.report.schemes:
            text += f"; tags written in {' and '.join(training.report.schemes)}"
        if only_dev := dev_counts.keys() - counts.keys():
            absent = _format_counts((label, dev_counts[label]) for label in sorted(only_dev))
            text += f"; only in data.dev, and so never learned: {absent}"
        return text

    def _count_labels(self, examples: Examples) -> Counter[str]:
        texts = map(examples.target_text, range(len(examples)))
        if self.scheme is None:
            return Counter(texts)
        return Counter(span.type for text in texts for span in read(split_words(text)))


class TaggingTask(LabellingTask):
    """Tagging: a tag for each word, as of named entities or chunks."""

    predictor_class, scheme = Recognizer, "bioes"
    hub_name = "token-classification"

    @classmethod
    def pair_fault(cls, source: str, reference: str) -> str | None:
        """See the base class: a pair is valid if there is a tag for each word."""
        words, tags = len(split_words(source)), len(parted(reference))
        if words == tags:
            return None
        return (
            f"expected a tag for each of the {words} words in {{source}}, got {tags}: a line has the words "
            "or the tags of a whole sentence, separated by spaces (a CoNLL file, with one word per line, is "
            "scored as data.test of a recipe)"
        )


class ClassificationTask(LabellingTask):
    """Classification: a label for each sentence."""

    units = LabellingTask.units._replace(targets="sentences")
    predictor_class, scheme = Categorizer, None
    hub_name = "text-classification"


def shared_rows(new: Sequence[str], old: Sequence[str]) -> Rows:
    """Return the old row of each new entry. The first two, padding and the unknown one, are in all."""
    special = range(UNKNOWN + 1)
    known = {entry: [row] for row, entry in enumerate(old, len(special))}
    return [*([row] for row in special), *(known.get(entry, []) for entry in new)]


def _format_counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{label} {count:,}" for label, count in counts)
