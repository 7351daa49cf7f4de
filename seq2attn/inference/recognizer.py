"""Trained models that label: strings in, `Annotation`s (words with tags) or `Category`s (sentences) out."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seq2attn.data.batch_plan import by_length, fill
from seq2attn.data.word_batches import collate_words
from seq2attn.errors import Seq2attnError
from seq2attn.inference.label_results import Annotation, Category, Entity
from seq2attn.inference.predictor import PlotOptions, Predictor
from seq2attn.metrics.entities import parted
from seq2attn.models.taggers import Classifier, LabelScores, SpanTagger, Tagger
from seq2attn.runtime.devices import autocast
from seq2attn.text.tag_schemes import tags
from seq2attn.text.word_vocabulary import Labels, Word, WordVocabulary, join_words, split_words, tokenize

CHUNK = 2000  # texts that are read before the first is labelled, so that batches are of about one length
BATCH_WORDS = 4096  # words, padding included, that are worked on at once
Model = TypeVar("Model", bound=Tagger | SpanTagger | Classifier)
Result = TypeVar("Result", bound=Annotation | Category)


class Read(NamedTuple):
    """A text and its words."""

    text: str
    words: list[Word]

    @classmethod
    def of(cls, words: Sequence[str]) -> "Read":
        """Words that are given: a text with single spaces between them."""
        places, start = [], 0
        for word in words:
            places.append(Word(word, start, start + len(word)))
            start += len(word) + 1
        return cls(" ".join(words), places)


class LabelPredictor(Predictor, Generic[Model, Result]):
    """A predictor of labels: a tagger or classifier with its vocabulary and labels, on a device."""

    parts = "words"

    def __init__(
        self,
        model: Model,
        word_vocabulary: WordVocabulary,
        labels: Labels,
        words: str = "auto",
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.device, self.precision, self.words = torch.device(device), precision, words
        autocast(self.device, precision)  # an error now, if the device cannot
        self.model, self.word_vocabulary, self.labels = model, word_vocabulary, labels
        model.to(self.device)

    def num_targets(self, texts: Sequence[str]) -> int:
        """See the base class: labels."""
        return sum(len(text.split(" ")) if self.labels.scheme else 1 for text in texts)

    def attention_weights(self, sources: Sequence[str], targets: Sequence[str]) -> list[Tensor]:
        """See the base class."""
        results = self.label([Read.of(split_words(source)) for source in sources], weights=True)
        return [one.weights for one in results if one.weights is not None and one.weights.numel()]

    @property
    def memory_advice(self) -> str:
        """See the base class."""
        return f"the length of the longest sentence (batches have {BATCH_WORDS} words)"

    def plot(self, text: str, path: Path, options: PlotOptions) -> Result:
        """See the base class."""
        plain = PlotOptions()
        given = [name for name in options._fields if getattr(options, name) != getattr(plain, name)]
        if given:
            raise Seq2attnError(
                f"{given[0]}: only for models that write text, and this one was trained for {self.task}"
            )
        (result,) = self.label([self.read(text)], weights=True)
        result.plot(path)
        return result

    def read(self, text: str | Sequence[str], words: str | None = None) -> Read:
        """Return a text tokenized into words, or a list of words as it is.

        words: how a text is tokenized, instead of the recipe's `text.words`.
        """
        if isinstance(text, str):
            return Read(text, tokenize(text, self.words if words is None else words))
        if not all(isinstance(word, str) and word.strip() for word in text):
            raise Seq2attnError(f"expected a text or a list of words (str, not blank), got {text!r:.60}")
        return Read.of(text)

    def stream(self, lines: Iterable[str], chunk: int = CHUNK) -> Iterator[Result]:
        """Label sentences whose words have single spaces between, as data have them, in their order."""
        lines = iter(lines)
        while texts := list(islice(lines, chunk)):
            yield from self.label([Read.of(split_words(text)) for text in texts], weights=False)

    @torch.no_grad()
    def label(self, sentences: Sequence[Read], weights: bool) -> list[Result]:
        """The results of sentences in their order; no batch mates change one."""
        self.model.eval()
        found: dict[int, Result] = {}
        lengths = np.array([len(sentence.words) for sentence in sentences], dtype=np.int32)
        for numbers in fill(by_length(lengths, lengths), lengths, lengths, BATCH_WORDS):
            rows = numbers.tolist()
            some = [sentences[row] for row in rows]
            spelled = [[word.text for word in one.words] for one in some]
            ids = self.word_vocabulary.encode([join_words(words) for words in spelled])
            words = collate_words(spelled, ids, self.word_vocabulary).to(self.device)
            with autocast(self.device, self.precision):
                answer = self.model(words, need_weights=weights)
            found |= zip(rows, self.results(some, answer), strict=True)
        return [found[row] for row in range(len(sentences))]

    def one_or_all(self, text: object, weights: bool) -> Result | list[Result]:
        """The result of a text, or those of a list of texts; a text of a list may be a list of words."""
        found = self.label([self.read(one) for one in self.texts(text)], weights)
        return found[0] if isinstance(text, str) else found

    def results(self, sentences: Sequence[Read], answer: LabelScores) -> list[Result]:
        """What an answer says of each sentence."""
        raise NotImplementedError(f"{type(self).__name__} must say what answers mean: write results()")

    def _weights(self, answer: LabelScores, row: int) -> Tensor | None:
        return None if answer.weights is None else answer.weights[row].float().cpu()


class Recognizer(LabelPredictor[Tagger | SpanTagger, Annotation]):
    """Finds named entities, or whatever its tags are of. Made by `seq2attn.load(run)`."""

    task, command = "tagging", "tag"

    @overload
    def tag(self, text: str, *, weights: bool = True) -> Annotation: ...  # type: ignore[overload-overlap]

    @overload
    def tag(
        self, text: Sequence[str] | Sequence[Sequence[str]], *, weights: bool = True
    ) -> list[Annotation]: ...

    def tag(self, text: object, *, weights: bool = True) -> Annotation | list[Annotation]:
        """The entities of a text, or of each of a list of texts, with their characters in it.

        A text that is a list of words is taken as cut already. weights=False saves the time and the memory of
        keeping where was looked.
        """
        return self.one_or_all(text, weights)

    def example_text(self, line: str) -> str:
        """See the base class: a tag is of a word, and the words of a line have spaces or tabs between."""
        return join_words(parted(line))

    def results(self, sentences: Sequence[Read], answer: LabelScores) -> list[Annotation]:
        """See the base class."""
        found = []
        for row, (sentence, spans) in enumerate(
            zip(sentences, self.model.predicted_spans(answer), strict=True)
        ):
            text, words = sentence
            count = len(words)
            entities = []
            for (kind, first, end), probability in spans:
                start, stop = words[first].start, words[end - 1].end
                entities.append(Entity(kind, text[start:stop], start, stop, probability, first, end - 1))
            written = tags([span for span, _ in spans], count, "bio")
            looked = self._weights(answer, row)
            if looked is not None and answer.spans is not None:
                looked = _of_words(looked, answer.spans.tolist(), entities)
            looked = None if looked is None else looked[:, :count, :count].mean(0)
            found.append(Annotation(text, words, written, entities, looked))
        return found


def _of_words(
    looked: Float[Tensor, "1 N S"], spans: list[list[int]], entities: Sequence[Entity]
) -> Float[Tensor, "1 S S"]:
    """The weights of candidate spans as those of words: of the words of each that was found."""
    rows = looked.new_zeros(1, looked.shape[-1], looked.shape[-1])
    for one in entities:
        rows[:, one.first : one.last + 1] = looked[:, [spans.index([one.first, one.last])]]
    return rows


class Categorizer(LabelPredictor[Classifier, Category]):
    """Labels whole texts. Made by `seq2attn.load(run)`."""

    task, command = "classification", "classify"

    @overload
    def classify(self, text: str, *, weights: bool = True) -> Category: ...  # type: ignore[overload-overlap]

    @overload
    def classify(
        self, text: Sequence[str] | Sequence[Sequence[str]], *, weights: bool = True
    ) -> list[Category]: ...

    def classify(self, text: object, *, weights: bool = True) -> Category | list[Category]:
        """The label of a text, or of each of a list of texts; a text may be a list of words."""
        return self.one_or_all(text, weights)

    def example_text(self, line: str) -> str:
        """See the base class: cut as `classify` does."""
        return join_words(word.text for word in self.read(line).words)

    def results(self, sentences: Sequence[Read], answer: LabelScores) -> list[Category]:
        """See the base class."""
        shares = answer.scores.float().softmax(-1).tolist()
        found = []
        for row, ((text, words), probabilities) in enumerate(zip(sentences, shares, strict=True)):
            by_name: dict[str, Any] = dict(zip(self.labels.names, probabilities, strict=True))
            looked = self._weights(answer, row)
            looked = None if looked is None else looked[:, : len(words)]
            found.append(Category(text, words, max(by_name, key=by_name.__getitem__), by_name, looked))
        return found
