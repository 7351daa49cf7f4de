"""Predictors of labels: from texts to `Annotation`s (a tag for each word) or `Category`s (a single label)."""

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seq2attn.data.batch_plan import by_length, fill
from seq2attn.data.word_batches import collate_words
from seq2attn.errors import Seq2attnError
from seq2attn.inference.activations import recorded
from seq2attn.inference.attention_maps import SELF_TITLES, AttentionMaps, self_attentions
from seq2attn.inference.label_activations import LabelActivations, label_activations
from seq2attn.inference.label_results import Annotation, Category, Entity
from seq2attn.inference.predictor import (
    DEFAULT_PLOT,
    NO_OPTIONS,
    OF_IMAGES,
    PlotOptions,
    Predictor,
    all_texts,
    require_lines,
)
from seq2attn.inference.result_list import Results
from seq2attn.inference.shortening import shortened
from seq2attn.inference.viewing import DEFAULT_VIEW, ViewOptions
from seq2attn.metrics.entities import parted
from seq2attn.models.encoders import EncoderLayer
from seq2attn.models.taggers import Classifier, LabelScores, SpanPrediction, SpanTagger, Tagger
from seq2attn.runtime.devices import autocast, explain_out_of_memory, require_float32
from seq2attn.text.tag_schemes import Span, tags
from seq2attn.text.word_vocabulary import Labels, Word, WordVocabulary, join_words, split_words, tokenize
from seq2attn.text.words import WORD
from seq2attn.views.viewer import Entry, Group, Layer, Side
from seq2attn.views.viewer.document import SOURCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHUNK = 2000  # texts that are read at a time, so that batches can have similar lengths
BATCH_WORDS = 4096  # words in a batch, padding included, and the most that are read of a text
Model = TypeVar("Model", bound=Tagger | SpanTagger | Classifier)
Result = TypeVar("Result", bound=Annotation | Category)


class TokenizedText(NamedTuple):
    """A text and its words."""

    text: str
    words: list[Word]

    @classmethod
    def of(cls, words: Sequence[str]) -> "TokenizedText":
        """Return the text of these words, separated by single spaces."""
        located, start = [], 0
        for word in words:
            located.append(Word(word, start, start + len(word)))
            start += len(word) + 1
        return cls(" ".join(words), located)


class LabelPredictor(Predictor, Generic[Model, Result]):
    """The base class of predictors of labels: a tagger or classifier with its vocabularies, on a device."""

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
        autocast(self.device, precision)  # raises now if the device does not support the precision
        self.model, self.word_vocabulary, self.labels = model, word_vocabulary, labels
        model.to(self.device)

    def num_targets(self, texts: Sequence[str]) -> int:
        """See the base class: a label for each word, or one for each text."""
        return sum(len(text.split(" ")) if self.labels.scheme else 1 for text in texts)

    def attention_weights(self, sources: Sequence[str], targets: Sequence[str]) -> list[Tensor]:
        """See the base class."""
        results = self.label([TokenizedText.of(split_words(source)) for source in sources], weights=True)
        weights = [result.weights for result in results if result.weights is not None]
        return [matrix for matrix in weights if matrix.numel()]

    @property
    def max_words(self) -> int:
        """The largest number of words of a text that are read; those after it get no label."""
        return min(BATCH_WORDS, self.model.encoder.max_length or BATCH_WORDS)

    def _warn_of_cut(self, text: str) -> None:
        warnings.warn(
            f"only the beginning of {text[:40]!r}... was read (at most {self.max_words:,} words): is it a "
            "single sentence?",
            stacklevel=4,
        )

    @property
    def memory_advice(self) -> str:
        """See the base class."""
        return f"the length of the longest sentence (batches have {BATCH_WORDS} words)"

    def draw(
        self, text: str, options: PlotOptions = DEFAULT_PLOT, decoding: Mapping[str, object] = NO_OPTIONS
    ) -> tuple[Result, "Figure"]:
        """See the base class. The queries of a pooling count as heads, after those of self-attention."""
        self.configured(decoding)
        options.refuse(OF_IMAGES, "models of images")
        options.refuse(("method",), "models that write text from text")
        if options.target is not None or options.pieces:
            name = "pieces" if options.target is None else "target"
            raise Seq2attnError(
                f"{name}: only for models that write text, and this one was trained for {self.task}"
            )
        sentence = self.read(text)
        (result,) = self.label([sentence], weights=True)
        if not options.self_attention and options.layer is options.head is None:
            return result, result.plot(scale=options.text_scale, right_to_left=options.right_to_left)
        return result, self._maps(sentence, result, options.self_attention).draw(options)

    @torch.no_grad()
    def _maps(self, sentence: TokenizedText, result: Result, self_attention: bool) -> AttentionMaps:
        """Return the weights of all layers and heads for a text: of the model's own attention, or of all
        self-attentions."""
        from seq2attn.views.heatmaps import Texts

        words = [word.text for word in sentence.words]
        if self_attention:
            with recorded(self_attentions(self.model)) as layers:
                self._output([sentence], weights=True)
            return AttentionMaps([layer[0] for layer in layers], words, words, Texts(*SELF_TITLES))
        weights = self._heads(self._output([sentence], weights=True), 0, result)
        if weights is None:
            raise Seq2attnError("this model has no attention; use a recipe with attention")
        rows = result.rows if weights.shape[1] > 1 else [str(result)]
        return AttentionMaps([weights], words, rows, Texts("words attended to", ""))

    def look(self, text: str | Sequence[str], gradients: bool = False) -> LabelActivations:
        """Return all attention weights and hidden states for a text, or for a list of words.

        gradients: whether they are parts of a graph (`LabelActivations`). Seq2attnError for a blank text.
        """
        sentence = self.read(text)
        if not sentence.words:
            raise Seq2attnError("expected a text with words to look at, got a blank one")
        require_float32(self.model.eval())
        names = [word.text for word in sentence.words[: self.max_words]], self.labels.names
        return label_activations(self.model, lambda: self._output([sentence], weights=True), names, gradients)

    @torch.no_grad()
    def entry(
        self, text: Any, options: ViewOptions = DEFAULT_VIEW, decoding: Mapping[str, object] = NO_OPTIONS
    ) -> Entry:
        """See the base class: the attention of the model's own heads, of a pooling's queries, and with
        options.self_attention of the encoder's layers."""
        self.configured(decoding)
        if options.target is not None:
            raise Seq2attnError(f"a target is for models that write text, and this one is for {self.task}")
        sentence = self.read(text)
        attentions = [part.self_attention for part in self.model.modules() if isinstance(part, EncoderLayer)]
        with recorded(attentions if options.self_attention else []) as layers:
            output = self._output([sentence], weights=True)
        (result,) = self._results([sentence], output)
        heads, columns = self._heads(output, 0, result), [word.text for word in sentence.words]
        groups = []
        if heads is not None:
            rows = result.rows if heads.shape[1] > 1 else [str(result)]
            groups.append(Group("attention", rows, SOURCE, [Layer("attention", heads.numpy())]))
        if layers:
            stack = [Layer(f"layer {number}", layer[0].numpy()) for number, layer in enumerate(layers)]
            groups.append(Group("encoder's self-attention", SOURCE, SOURCE, stack))
        return Entry([result.output(groups)], Side(columns, sentence.text))

    def read(self, text: str | Sequence[str], words: str | None = None) -> TokenizedText:
        """Tokenize a text into words: of a very long one, with a warning, into those that the model reads.
        A list of words is tokenized already.

        words: the tokenization, auto or spaces, instead of the recipe's `text.words`.
        """
        if isinstance(text, str):
            begun = shortened(text, self.max_words)
            located = tokenize(begun, self.words if words is None else words)
            if begun != text or len(located) > self.max_words:
                self._warn_of_cut(text)
            return TokenizedText(text, located[: self.max_words])
        if not all(isinstance(word, str) and WORD.search(word) for word in text):
            raise Seq2attnError(f"expected a text or a list of words (str, not blank), got {text!r:.60}")
        return TokenizedText.of(text)

    def stream(self, lines: Iterable[str], chunk: int = CHUNK) -> Iterator[Result]:
        """See the base class: lines are words that are separated by single spaces, as in data sets."""
        require_lines(lines)
        lines = iter(lines)
        while texts := list(islice(lines, chunk)):
            words = [split_words(text) for text in all_texts(texts, "lines")]
            yield from self.label([TokenizedText.of(text) for text in words], weights=False)

    @torch.no_grad()
    def label(self, sentences: Sequence[TokenizedText], weights: bool) -> list[Result]:
        """Return the results of sentences in their order. In fp32, no result depends on the other
        sentences."""
        self.model.eval()
        require_float32(self.model)
        results: dict[int, Result] = {}
        limit = self.max_words
        lengths = np.array([min(limit, len(sentence.words)) for sentence in sentences], dtype=np.int32)
        for indices in fill(by_length(lengths, lengths), lengths, lengths, BATCH_WORDS):
            rows = indices.tolist()
            batch = [sentences[row] for row in rows]
            with explain_out_of_memory(f"out of memory: lower {self.memory_advice}"):
                results |= zip(rows, self._results(batch, self._output(batch, weights)), strict=True)
        return [results[row] for row in range(len(sentences))]

    def _output(self, sentences: Sequence[TokenizedText], weights: bool) -> LabelScores:
        """Return the model's output for a batch of sentences, from the first `max_words` of each."""
        for sentence in sentences:
            if len(sentence.words) > self.max_words:
                self._warn_of_cut(sentence.text)
        word_lists = [[word.text for word in sentence.words[: self.max_words]] for sentence in sentences]
        ids = self.word_vocabulary.encode([join_words(words) for words in word_lists])
        model_input = collate_words(word_lists, ids, self.word_vocabulary).to(self.device)
        with autocast(self.device, self.precision):
            output: LabelScores = self.model(model_input, need_weights=weights)
        return output

    def _label_texts(self, text: object, weights: bool) -> Result | list[Result]:
        """Return the result of a text, or those of a list of texts, each of which may be a list of words."""
        results = Results(self.label([self.read(words) for words in self.texts(text)], weights))
        return results[0] if isinstance(text, str) else results

    @abstractmethod
    def _results(self, sentences: Sequence[TokenizedText], output: LabelScores) -> list[Result]:
        """Return the results of a batch of sentences from the model's output."""

    @abstractmethod
    def _heads(self, output: LabelScores, row: int, result: Result) -> Tensor | None:
        """Return the attention weights (H, T, Sw) of a sentence of a batch, of each head or query of the
        pooling, if there are any."""


class Recognizer(LabelPredictor[Tagger | SpanTagger, Annotation]):
    """Tags words: named entities, or other spans of the training data. Returned by `seq2attn.load(run)`."""

    task, command = "tagging", "tag"

    @overload
    def tag(self, text: str, *, weights: bool = True) -> Annotation: ...  # type: ignore[overload-overlap]

    @overload
    def tag(
        self, text: Sequence[str] | Sequence[Sequence[str]], *, weights: bool = True
    ) -> list[Annotation]: ...

    def tag(self, text: object, *, weights: bool = True) -> Annotation | list[Annotation]:
        """Return the tags and entities of a text, or of each of a list of texts.

        A text may be given as a list of its words. weights=False saves the time and the memory of keeping the
        attention weights.
        """
        return self._label_texts(text, weights)

    def example_text(self, line: str) -> str:
        """See the base class: words that are separated by spaces or tabs."""
        return join_words(parted(line))

    def _results(self, sentences: Sequence[TokenizedText], output: LabelScores) -> list[Annotation]:
        """See the base class."""
        annotations = []
        predicted = self.model.predicted_spans(output)
        for row, (sentence, predictions) in enumerate(zip(sentences, predicted, strict=True)):
            entities = [_entity(sentence, prediction) for prediction in predictions]
            spans = [_named(prediction.span) for prediction in predictions]
            word_tags = tags(spans, len(sentence.words), "bio")
            annotation = Annotation(sentence.text, sentence.words, word_tags, entities)
            weights = self._heads(output, row, annotation)
            if weights is not None:
                name = f"mean of {len(weights)} heads" if len(weights) > 1 else ""
                annotation = replace(annotation, weights=weights.mean(0), attention=name)
            annotations.append(annotation)
        return annotations

    def _heads(self, output: LabelScores, row: int, result: Annotation) -> Tensor | None:
        """See the base class: (H, Sw, Sw)."""
        if output.weights is None:
            return None
        weights, count = output.weights[row].float().cpu(), len(result.words)  # (H, S or N, S)
        if output.spans is not None:
            weights = _weights_of_words(weights, output.spans.tolist(), result.entities)
        return weights[:, :count, :count]


def _named(span: Span) -> Span:
    """Return a span with its type as it is in the data: `join_words` has made spaces no-break spaces."""
    return span._replace(type=span.type.replace("\u00a0", " "))


def _entity(sentence: TokenizedText, prediction: SpanPrediction) -> Entity:
    """Return a span of words as an entity of the text."""
    span = _named(prediction.span)
    start, end = sentence.words[span.start].start, sentence.words[span.end - 1].end
    return Entity(
        span.type, sentence.text[start:end], start, end, prediction.probability, span.start, span.end - 1
    )


def _weights_of_words(
    weights: Float[Tensor, "1 N S"], spans: list[list[int]], entities: Sequence[Entity]
) -> Float[Tensor, "1 S S"]:
    """Return weights of words from those of all N candidate spans: the words of an entity have its weights,
    all others zeros."""
    of_words = weights.new_zeros(1, weights.shape[-1], weights.shape[-1])
    for entity in entities:
        candidate = spans.index([entity.first, entity.last])
        of_words[:, entity.first : entity.last + 1] = weights[:, [candidate]]
    return of_words


class Categorizer(LabelPredictor[Classifier, Category]):
    """Labels whole texts. Returned by `seq2attn.load(run)`."""

    task, command = "classification", "classify"

    @overload
    def classify(self, text: str, *, weights: bool = True) -> Category: ...  # type: ignore[overload-overlap]

    @overload
    def classify(
        self, text: Sequence[str] | Sequence[Sequence[str]], *, weights: bool = True
    ) -> list[Category]: ...

    def classify(self, text: object, *, weights: bool = True) -> Category | list[Category]:
        """Return the label of a text, or of each of a list of texts. A text may be a list of its words."""
        return self._label_texts(text, weights)

    def example_text(self, line: str) -> str:
        """See the base class: tokenized as by `classify`."""
        return join_words(word.text for word in self.read(line).words)

    def _results(self, sentences: Sequence[TokenizedText], output: LabelScores) -> list[Category]:
        """See the base class."""
        batch_probabilities = output.scores.float().softmax(-1).tolist()
        categories = []
        for row, (sentence, probabilities) in enumerate(zip(sentences, batch_probabilities, strict=True)):
            by_label: dict[str, float] = dict(zip(self.labels.names, probabilities, strict=True))
            label = max(by_label, key=by_label.__getitem__)
            category = Category(sentence.text, sentence.words, label, by_label)
            weights = self._heads(output, row, category)
            categories.append(category if weights is None else replace(category, weights=weights[:, 0]))
        return categories

    def _heads(self, output: LabelScores, row: int, result: Category) -> Tensor | None:
        """See the base class: (r, 1, Sw), of each query of the pooling."""
        if output.weights is None:
            return None
        return output.weights[row].float().cpu()[:, None, : len(result.words)]
