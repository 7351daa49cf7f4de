"""What predictors that write a text share, whether it is written from a text or from an image."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic, get_args

import torch
from typing_extensions import Self

from seq2attn.errors import Seq2attnError, require_type
from seq2attn.inference.activations import Activations
from seq2attn.inference.decoding_options import changed
from seq2attn.inference.engines.engine import Engine
from seq2attn.inference.forced import ForcedDecoding
from seq2attn.inference.generator import DEFAULT_HEAD, AlignmentHead, C, Generator, Method
from seq2attn.inference.next_words import NextWord, next_words
from seq2attn.inference.predictor import NO_OPTIONS, Predictor
from seq2attn.inference.search import WORD_START, Hypothesis, Watch
from seq2attn.inference.viewing import DEFAULT_VIEW, ViewedInput, ViewOptions
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.recipe import DecodingRecipe
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.views.viewer import Entry

CHUNK = 2000  # lines that are read at a time, so that batches can have similar lengths
Listener = Callable[[str], None]  # called with the beginning of a text, whenever more words are decided


@dataclass(frozen=True, eq=False, repr=False)
class WritingPredictor(Predictor, Generic[C]):
    """The base class of predictors that write a text with a `Generator`.

    generator: the model with its tokenizer, on a device;
    decoding: the default decoding options;
    alignment: the attention layer and head that alignments are taken from.
    """

    generator: Generator[C]
    decoding: DecodingRecipe
    alignment: AlignmentHead = DEFAULT_HEAD

    @property
    def model(self) -> Seq2Seq:
        """The model of the generator."""
        return self.generator.model

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.generator.device

    @property
    def target(self) -> Vocabulary:
        """The vocabulary of the texts that are written."""
        return self.generator.tokenizer.target

    @property
    def alignment_layer(self) -> int | None:
        """The layer that alignments are taken from; None is the default of `AlignmentHead`."""
        return self.alignment.layer

    @property
    def alignment_head(self) -> int | None:
        """The head that alignments are taken from; None is the mean of all."""
        return self.alignment.head

    def configured(self, options: Mapping[str, object]) -> Self:
        """See the base class."""
        return replace(self, decoding=self.settings(options))

    def with_alignment(
        self,
        layer: int | None = None,
        head: int | None = None,
        shift: int | None = None,
        method: Method = "attention",
    ) -> Self:
        """Return this predictor with alignments from another layer and head, shifted or by another method
        (`AlignmentHead`)."""
        for number in (layer, head, shift):
            require_type(number, (int, type(None)), "the number of a layer or head, or a shift, or None")
        if method not in get_args(Method):
            raise Seq2attnError(f"expected the method attention or norms, got {method!r:.60}")
        if shift not in (None, 0, 1):
            raise Seq2attnError(
                "expected the shift 0 (weights of the step that predicts a word), 1 (of the one that has "
                f"read it) or None, got {shift}"
            )
        return replace(self, alignment=AlignmentHead(layer, head, shift, method))

    def with_engine(self, engine: Engine | None) -> Self:
        """Return this predictor with an engine that searches; None: torch. Scores and alignments are torch's
        in either case."""
        return replace(self, generator=self.generator.with_engine(engine))

    def settings(self, options: Mapping[str, object]) -> DecodingRecipe:
        """Return the decoding settings changed by the options that are not None. Seq2attnError for a bad
        option."""
        return changed(self.decoding, options)

    @abstractmethod
    def results(
        self,
        given: Sequence[Any],
        decoding: DecodingRecipe,
        alignment: bool,
        prefixes: Sequence[str],
        indices: Sequence[int],
    ) -> list[Any]:
        """Return the results of texts or images that are computed together, with these prefixes; `indices`
        are those of the texts or images in their inputs, which may be several: samples depend on them."""

    def stream_share(self, lines: Iterable[Any], first: int, step: int) -> Iterator[Any]:
        """See the base class."""
        for chunk in self._chunks(lines):
            indices = range(first, first + step * len(chunk), step)
            yield from self.results(chunk, self.decoding, False, [""] * len(chunk), indices)
            first += step * len(chunk)

    def _chunks(self, lines: Iterable[Any]) -> Iterator[list[Any]]:
        """Yield lines as `results` takes them, as many as are computed together."""
        rest = iter(lines)
        return iter(lambda: list(islice(rest, CHUNK)), [])

    def look(self, source: Any, target: str | None = None, gradients: bool = False) -> Activations:
        """Return all attention weights and hidden states for a source, a text or an image, and a target.

        target: None is the model's own output; gradients: whether they are parts of a graph (`Activations`).
        """
        viewed = self._viewed(source, NO_OPTIONS)
        tokens = viewed.best() if target is None else viewed.tokenize(target)
        return viewed.activations(tokens, gradients)

    def next_words(self, source: Any, prefix: str = "", count: int = 8) -> list[NextWord]:
        """Return the most probable words by which the text of a source, a text or an image, goes on after the
        words of a prefix; none for a blank text. See `NextWord`."""
        return next_words(self._viewed(source, NO_OPTIONS), prefix, count)

    def entry(
        self, text: Any, options: ViewOptions = DEFAULT_VIEW, decoding: Mapping[str, object] = NO_OPTIONS
    ) -> Entry:
        """See the base class."""
        return self._viewed(text, decoding).entry(options)

    def _viewed(self, text: Any, decoding: Mapping[str, object]) -> ViewedInput:
        """Return a text or an image as the viewer takes it. decoding: options that replace the recipe's."""
        parts, settings = self._viewed_parts(text), self.settings(decoding)
        return ViewedInput(self.generator, settings, self.alignment, self._text, self._prefixes, *parts)

    @abstractmethod
    def _viewed_parts(self, text: Any) -> tuple[Any, ...]:
        """Return the last parts of a `ViewedInput`, from `source` on."""

    def num_targets(self, texts: Sequence[str]) -> int:
        """See the base class: pieces, </s> included."""
        return sum(len(ids) + 1 for ids in self.target.encode(texts))

    @property
    def signature(self) -> str:
        """See the base class."""
        engine = self.generator.engine
        return self.decoding.signature + ("" if engine is None else f"|engine:{engine.name}")

    @property
    def memory_advice(self) -> str:
        """See the base class."""
        return f"decoding.batch_tokens (now {self.decoding.batch_tokens})"

    def _prefixes(self, prefixes: Sequence[str], ids: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """Return the ids of prefixes, as search takes them: white space at the end of one ends its last word.

        Warns of those with pieces that the vocabulary lacks: a model writes them as it reads them.
        """
        self._warn_of_unknown("prefix", prefixes, ids)
        return [
            [*pieces, WORD_START] if len(pieces) and prefix[-1].isspace() else pieces
            for prefix, pieces in zip(prefixes, ids, strict=True)
        ]

    def _warn_of_unknown(self, what: str, texts: Sequence[str], ids: Sequence[Sequence[int]]) -> None:
        """Warn of texts with pieces that the vocabulary lacks."""
        unknown = [text for text, pieces in zip(texts, ids, strict=True) if self.target.unk in pieces]
        if unknown:
            others = f" and {len(unknown) - 1:,} others have" if len(unknown) > 1 else " has"
            seen = ", which are \u2047 in the output" if what == "prefix" else ", and reads as unknown"
            warnings.warn(
                f"the {what} {unknown[0]!r:.60}{others} characters or words that the vocabulary lacks{seen}",
                stacklevel=3,
            )

    def _chosen(self, layer: int | None, head: int | None) -> AlignmentHead:
        """Return the layer and the head of alignments; those that are None are the predictor's."""
        given = self.with_alignment(layer, head).alignment  # raises for what is no number
        own = self.alignment
        return own._replace(
            layer=own.layer if given.layer is None else given.layer,
            head=own.head if given.head is None else given.head,
        )

    def _given(self, ids: list[int], forced: ForcedDecoding) -> Hypothesis:
        """Return a given target as a hypothesis with its score, without a coverage penalty."""
        score = self.generator.rules(self.decoding).score(forced.log_probability, len(ids) + 1)
        return Hypothesis(ids, forced.log_probability, score)

    def _text(self, ids: Sequence[int], copied: Sequence[str] = ()) -> str:
        """Return the text of generated ids, with single spaces between its words.

        SentencePiece puts a space on each side of its symbol for an unknown piece, and a model may generate
        pieces that consist of a space only.
        """
        return " ".join(filter(None, self.target.decode(ids, copied).split(" ")))

    def _watch(self, heard: Mapping[int, tuple[Listener, Sequence[str]]], known: bool) -> Watch | None:
        """Return what tells listeners of the results of some rows, each with the pieces that it may copy.

        known: unknown words are replaced in the end, so that only those before the first one are told.
        """

        def watch(row: int, decided: list[int]) -> None:
            if row in heard:
                listen, copied = heard[row]
                listen(self._text(self._whole_words(decided, copied, known), copied))

        return watch if heard else None

    def _whole_words(self, ids: list[int], copied: Sequence[str], known: bool) -> list[int]:
        """Return decided ids without those of the last word, which may go on unless </s> ends it."""
        if known and self.target.unk in ids:
            ids = ids[: ids.index(self.target.unk)]
        if not ids or ids[-1] == self.target.eos:
            return ids
        word_of = self.target.join(ids, copied).word_of
        return ids[: word_of.index(word_of[-1])]
