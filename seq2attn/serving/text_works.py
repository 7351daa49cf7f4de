"""What is computed for texts: translations and summaries, alignments, tags and labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from seq2attn.alignment.aligned_pair import AlignedPair
from seq2attn.errors import Seq2attnError
from seq2attn.inference.decoding_options import require_prefixes
from seq2attn.inference.label_results import Annotation, Category
from seq2attn.inference.next_words import NextWord
from seq2attn.inference.pair_limits import PairLimits
from seq2attn.inference.recognizer import BATCH_WORDS, LabelPredictor
from seq2attn.inference.results import Translation
from seq2attn.inference.shortening import shortened
from seq2attn.inference.translator import TextPredictor
from seq2attn.inference.writing_predictor import Listener
from seq2attn.recipe import DecodingRecipe
from seq2attn.serving.limits import CHARACTERS_OF_A_LINE
from seq2attn.serving.waiting import Line, Work


class Draft(NamedTuple):
    """A text, and the beginning of what is written from it."""

    text: str
    prefix: str = ""
    listen: Listener | None = None  # told of the beginning of the result while it is written


def weight(text: str) -> int:
    """Return what a text counts for among the lines that wait."""
    return 1 + len(text) // CHARACTERS_OF_A_LINE


@dataclass(frozen=True)
class OfDrafts(Work):
    """The base class of works that compute a result for each `Draft`."""

    predictor: TextPredictor
    decoding: DecodingRecipe

    @property
    def budget(self) -> int:
        """See the base class: in pieces, as in `Generator.search`."""
        return max(1, self.decoding.batch_tokens // max(self.decoding.beam, self.decoding.nbest))

    @property
    def limit(self) -> int:
        """The most pieces of a text that are read."""
        readable = self.predictor.model.encoder.max_length
        most = self.decoding.max_source
        return most if readable is None else min(most, readable - 1)

    def lines(self, items: Sequence[Draft]) -> list[Line]:
        """See the base class. Seq2attnError for a prefix that is longer than outputs may be, or than the
        decoder can read."""
        limit, readable = self.limit, self.predictor.model.decoder.max_length
        prefixes = [*dict.fromkeys(item.prefix for item in items)]
        ids_of_prefix = dict(zip(prefixes, self.predictor.target.encode(prefixes), strict=True))
        texts = [shortened(item.text, limit) for item in items]
        all_ids, lines = self.predictor.source.encode(texts), list[Line]()
        for number, (item, text, ids) in enumerate(zip(items, texts, all_ids, strict=True)):
            prefix = ids_of_prefix[item.prefix]
            require_prefixes([prefix], self.decoding, [f"text {number}"])
            if readable is not None and len(prefix) >= readable:
                raise Seq2attnError(f"the prefix of text {number} is longer than the decoder can read")
            length = max(min(len(ids), limit), len(prefix))
            cut = len(ids) > limit or text != item.text
            lines.append(Line(item, length, number, weight(item.text) + weight(item.prefix) - 1, cut))
        return lines


@dataclass(frozen=True)
class Writing(OfDrafts):
    """Translations or summaries of `Draft`s."""

    alignment: bool = False

    def compute(self, lines: Sequence[Line]) -> list[Translation]:
        """See the base class."""
        return self.predictor.results(
            [line.item.text for line in lines],
            self.decoding,
            self.alignment,
            [line.item.prefix for line in lines],
            [line.number for line in lines],
            listeners={row: line.item.listen for row, line in enumerate(lines) if line.item.listen},
        )


@dataclass(frozen=True)
class Continuing(OfDrafts):
    """The words by which the results of `Draft`s may go on after their prefixes."""

    count: int = 8

    def compute(self, lines: Sequence[Line]) -> list[list[NextWord]]:
        """See the base class."""
        drafts = [line.item for line in lines]
        return [self.predictor.next_words(one.text, one.prefix, self.count) for one in drafts]


@dataclass(frozen=True)
class Aligning(Work):
    """Links between the words of pairs of a source and a target."""

    predictor: TextPredictor

    @property
    def budget(self) -> int:
        """See the base class: in pieces of the longer text."""
        return self.predictor.decoding.batch_tokens

    def lines(self, items: Sequence[tuple[str, str]]) -> list[Line]:
        """See the base class. Seq2attnError for a pair that is longer than those that are aligned."""
        sources = self.predictor.source.encode([source for source, _ in items])
        targets = self.predictor.target.encode([target for _, target in items])
        limits, lines = PairLimits.of(self.predictor.model, self.predictor.decoding), list[Line]()
        for number, lengths in enumerate(zip(map(len, sources), map(len, targets), strict=True)):
            if not limits.fit(*lengths):
                raise Seq2attnError(f"pair {number} is too long: expected at most {limits}")
            pair = items[number]
            lines.append(Line(pair, max(lengths), number, weight(max(pair, key=len))))
        return lines

    def compute(self, lines: Sequence[Line]) -> list[AlignedPair]:
        """See the base class."""
        return list(self.predictor.align_pairs([line.item for line in lines]))


@dataclass(frozen=True)
class Labelling(Work):
    """The tags of texts, or their labels."""

    predictor: LabelPredictor[Any, Any]
    weights: bool = False

    @property
    def budget(self) -> int:
        """See the base class: in words."""
        return BATCH_WORDS

    def lines(self, items: Sequence[str | Sequence[str]]) -> list[Line]:
        """See the base class. Items are texts, or lists of their words."""
        lines = []
        for number, item in enumerate(items):
            sentence = self.predictor.read(item)
            count = len(sentence.words)
            cut = count >= self.predictor.max_words
            lines.append(Line(sentence, count, number, weight(sentence.text), cut))
        return lines

    def compute(self, lines: Sequence[Line]) -> list[Annotation] | list[Category]:
        """See the base class."""
        results: list[Annotation] | list[Category] = self.predictor.label(
            [line.item for line in lines], self.weights
        )
        return results
