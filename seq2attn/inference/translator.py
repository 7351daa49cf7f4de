"""Predictors that generate text: from strings to `Translation`s, with exact alignments."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from torch import Tensor
from typing_extensions import Unpack

from seq2attn.alignment.aligned_pair import AlignedPair, all_pairs, unaligned
from seq2attn.alignment.markup import Kind
from seq2attn.alignment.word_alignment import Link, shifted
from seq2attn.data.sources import PairTokenizer, SourceIds
from seq2attn.errors import Seq2attnError, require_type
from seq2attn.inference.attention_maps import drawn_maps
from seq2attn.inference.attributed_text import AttributedText, attributed
from seq2attn.inference.decoding_options import DecodingOptions, published, warn_of_limits
from seq2attn.inference.forced import ForcedDecoding
from seq2attn.inference.generator import AlignmentHead
from seq2attn.inference.marked_text import MarkedTranslation, translate_marked
from seq2attn.inference.pair_limits import PairLimits
from seq2attn.inference.predictor import (
    DEFAULT_PLOT,
    NO_OPTIONS,
    OF_IMAGES,
    PlotOptions,
    all_texts,
    require_lines,
)
from seq2attn.inference.result_list import Results
from seq2attn.inference.results import Translation
from seq2attn.inference.search import Hypothesis
from seq2attn.inference.shortening import shortened
from seq2attn.inference.text_words import between_texts, translation_of
from seq2attn.inference.writing_predictor import CHUNK, Listener, WritingPredictor
from seq2attn.recipe import DecodingRecipe
from seq2attn.text.vocabulary import Tokens, Vocabulary
from seq2attn.text.words import as_lines
from seq2attn.views.viewer import Side

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_LISTENERS: Mapping[int, Listener] = {}


class _SourceText(NamedTuple):
    """A tokenized source, and its ids as the model reads them."""

    tokens: Tokens
    ids: SourceIds


class TextPredictor(WritingPredictor[PairTokenizer]):
    """A predictor that writes a text from a text."""

    command, aligns = "continue", True  # a subclass has the command of its task

    @property
    def source(self) -> Vocabulary:
        """The vocabulary of source texts."""
        return self.generator.tokenizer.source

    # ---- as a predictor ----------------------------------------------------------------------------

    def attention_weights(self, sources: Sequence[str], targets: Sequence[str]) -> list[Tensor]:
        """See the base class: (T + 1, S + 1) of each pair."""
        if not self.model.decoder.attention_layers:
            return []
        forced = self._force(sources, targets, self.alignment)
        return [decoding.weights for decoding in forced if decoding.weights is not None]

    def links(self, source: str, target: str) -> list[Link]:
        """See the base class."""
        return self.align(source, target).links()

    def draw(
        self, text: str, options: PlotOptions = DEFAULT_PLOT, decoding: Mapping[str, object] = NO_OPTIONS
    ) -> tuple[Translation, "Figure"]:
        """See the base class."""
        options.refuse(OF_IMAGES, "models of images")
        predictor = self.configured({**decoding, "nbest": 1})
        if isinstance(options.layer, int) or isinstance(options.head, int):
            layer, head = (None if choice == "all" else choice for choice in (options.layer, options.head))
            predictor = replace(predictor, alignment=predictor.alignment._replace(layer=layer, head=head))
        if options.method is not None:
            return predictor.attribute(text, options.target, options.method).drawn(options)
        if options.target is None:
            (result,) = predictor.stream([text], alignment=not options.self_attention)
        else:
            result = predictor.align(text, options.target)
        figure = None
        if "all" in (options.layer, options.head) or options.self_attention:
            source = self.generator.tokenizer.source_ids(result.source.ids, lambda: text)
            figure = drawn_maps(self.generator, source, result, options, predictor.alignment)
        if figure is None:
            figure = result.plot(**options.of_results)
        return result, figure

    def _viewed_parts(self, text: str) -> tuple[Any, ...]:
        """See the base class."""
        tokens, ids = self._tokenize(text)
        tokenizer = self.generator.tokenizer
        return ids, Side.of(tokens, text), lambda target: tokenizer.tokenize_target(target, ids)

    # ---- generating --------------------------------------------------------------------------------

    @overload
    def _generate(  # type: ignore[overload-overlap]  # a str is also a Sequence[str]; this overload is first
        self,
        text: str,
        *,
        prefix: str | Sequence[str] = "",
        alignment: bool = True,
        **options: Unpack[DecodingOptions],
    ) -> Translation: ...

    @overload
    def _generate(
        self,
        text: Sequence[str] | Sequence[Sequence[str]],
        *,
        prefix: str | Sequence[str] = "",
        alignment: bool = True,
        **options: Unpack[DecodingOptions],
    ) -> list[Translation]: ...

    @overload
    def _generate(  # type: ignore[overload-overlap]
        self, text: str, *, markup: Kind, **options: Unpack[DecodingOptions]
    ) -> MarkedTranslation: ...

    @overload
    def _generate(
        self, text: Sequence[str], *, markup: Kind, **options: Unpack[DecodingOptions]
    ) -> list[MarkedTranslation]: ...

    def _generate(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        prefix: str | Sequence[str] = "",
        alignment: bool = True,
        markup: Kind | None = None,
        **options: Unpack[DecodingOptions],
    ) -> Translation | list[Translation] | MarkedTranslation | list[MarkedTranslation]:
        """Return the result of a text, or the results of a list of texts in their order.

        A blank text has an empty result.

        prefix: the beginning, a text for all or for each; its last word may go on, unless a space ends it;
        alignment: False skips the alignment, which saves time;
        markup: html, xml or placeholders: tags go where their words went; returns `MarkedTranslation`s;
        all others: decoding options that replace the recipe's (`DecodingOptions`).
        """
        texts = [line if isinstance(line, str) else as_lines(line) for line in self.texts(text)]
        prefixes = [prefix] * len(texts) if isinstance(prefix, str) else all_texts(prefix, "prefixes")
        if len(prefixes) != len(texts):
            raise Seq2attnError(f"expected a prefix for each of {len(texts)} texts, got {len(prefixes)}")
        if markup is not None:
            if any(prefixes) or not alignment:
                given = "prefix" if any(prefixes) else "alignment=False"
                raise Seq2attnError(f"markup needs alignments, and knows no prefixes: leave {given} out")
            marked = translate_marked(
                texts, markup, lambda plain: self._generate(plain, **options), split=not self.parts
            )
            return marked[0] if isinstance(text, str) else marked
        results = self.results(texts, self.settings(options), alignment, prefixes, range(len(texts)))
        return results[0] if isinstance(text, str) else Results(results)

    def stream(
        self,
        lines: Iterable[str],
        decoding: DecodingRecipe | None = None,
        alignment: bool = False,
        chunk: int = CHUNK,
    ) -> Iterator[Translation]:
        """Yield the results of lines in their order, reading `chunk` lines at a time.

        decoding: replaces the predictor's own settings.
        """
        require_lines(lines)
        lines = iter(lines)
        return self.stream_chunks(iter(lambda: list(islice(lines, chunk)), []), decoding, alignment)

    def stream_chunks(
        self,
        chunks: Iterable[list[str]],
        decoding: DecodingRecipe | None = None,
        alignment: bool = False,
        exact: bool = True,
        first: int = 0,
        prefix: str = "",
    ) -> Iterator[Translation]:
        """Yield the results of lines in their order. The lines of a chunk are computed together.

        exact: False leaves the scores of an engine as they are, which saves time where they are not shown;
        first: the number of lines before these, which seeds samples and names lines in warnings;
        prefix: the beginning of each result.
        """
        decoding = decoding or self.decoding
        for chunk in chunks:
            texts = all_texts(chunk, "lines")
            indices = range(first, first + len(texts))
            yield from self.results(texts, decoding, alignment, [prefix] * len(texts), indices, exact)
            first += len(texts)

    def align(
        self, source: str, target: str, layer: int | None = None, head: int | None = None
    ) -> Translation:
        """Return the score (without a coverage penalty) and the alignment of a given target.

        layer, head: replace those of the predictor's `alignment`.
        """
        require_type(source, str, "a source text (str); many pairs are aligned by `align_pairs`")
        require_type(target, str, "a target text (str)")
        chosen = self._chosen(layer, head)
        source_text = self._tokenize(source)
        target_tokens = self.generator.tokenizer.tokenize_target(target, source_text.ids)
        (forced,) = self.generator.forced_decoding(
            [source_text.ids], [target_tokens.ids], self.decoding.batch_tokens, chosen
        )
        hypothesis = self._given(target_tokens.ids, forced)
        return self._result(source_text.tokens, target_tokens, target, hypothesis, forced, chosen)

    def attribute(self, source: str, target: str | None = None, method: str = "integrated") -> AttributedText:
        """Return what a target, by default the model's own, owes to its source by one of ATTRIBUTIONS."""
        require_type(source, str, "a source text (str)")
        result = next(self.stream([source])) if target is None else self.align(source, target)
        return attributed(self.generator, self._tokenize(source).ids, result, method, self.alignment)

    def align_pairs(
        self, pairs: Iterable[tuple[str, str]], heads: Sequence[AlignmentHead] = (), chunk: int = CHUNK
    ) -> Iterator[AlignedPair]:
        """Yield the alignment of each (source, target) of a parallel corpus, in order, reading `chunk` pairs
        at a time.

        Words are separated by ASCII white space, as in alignment files. A pair with a blank text has no
        links, nor has one whose texts have more pieces than `PairLimits`, which is warned of.

        heads: the heads of the alignment and of the `others`; the predictor's own if not given.
        """
        chosen, first, pairs = [*heads] or [self.alignment], 1, iter(pairs)
        while listed := all_pairs(islice(pairs, chunk)):
            yield from self._aligned(listed, chosen, first)
            first += len(listed)

    def _aligned(
        self, pairs: list[tuple[str, str]], heads: list[AlignmentHead], first: int
    ) -> Iterator[AlignedPair]:
        """Yield the alignments of pairs that are computed together; `first` is the line of the first."""
        tokenizer, decoder = self.generator.tokenizer, self.model.decoder
        sources = [self._tokenize(source, line=line).ids for line, (source, _) in enumerate(pairs, first)]
        texts = zip(pairs, sources, strict=True)
        targets = [tokenizer.tokenize_target(target, source).ids for (_, target), source in texts]
        lengths = [(len(source.ids), len(target)) for source, target in zip(sources, targets, strict=True)]
        limits = PairLimits.of(self.model, self.decoding)
        fits = [limits.fit(*pair) for pair in lengths]
        rows = [row for row, pair in enumerate(lengths) if fits[row] and min(pair)]
        limits.warn([first + row for row, fit in enumerate(fits) if not fit])
        forced = self.generator.forced_decoding(
            [sources[row] for row in rows],
            [targets[row] for row in rows],
            self.decoding.batch_tokens,
            heads[0],
            heads[1:],
        )
        decoded = dict(zip(rows, forced, strict=True))
        for row, (source, target) in enumerate(pairs):
            if row not in decoded or decoded[row].weights is None:
                empty = unaligned(source, target)
                yield empty._replace(others=(empty.alignment,) * (len(heads) - 1))
                continue
            matrices = zip((decoded[row].weights, *decoded[row].others), heads, strict=True)
            alignment, *others = [
                between_texts(shifted(matrix, head.shift_of(decoder)), source, target, tokenizer)
                for matrix, head in matrices
                if matrix is not None
            ]
            yield AlignedPair(source, target, alignment, decoded[row].log_probability, tuple(others))

    def log_probabilities(self, sources: Sequence[str], targets: Sequence[str]) -> list[float]:
        """Return the model's log-probability of each target given its source, </s> included, in nats."""
        return [forced.log_probability for forced in self._force(sources, targets, None)]

    def _force(
        self, sources: Sequence[str], targets: Sequence[str], head: AlignmentHead | None
    ) -> list[ForcedDecoding]:
        """Return the forced decoding of each pair, with the weights of `head`; without weights if None."""
        tokenize = self.generator.tokenizer.tokenize_target
        sources, targets = all_texts(sources, "sources"), all_texts(targets, "targets")
        if len(sources) != len(targets):
            raise Seq2attnError(f"expected a target for each of {len(sources)} sources, got {len(targets)}")
        source_ids = [self._tokenize(source, line=line).ids for line, source in enumerate(sources, 1)]
        ids = [tokenize(text, source).ids for text, source in zip(targets, source_ids, strict=True)]
        return self.generator.forced_decoding(source_ids, ids, self.decoding.batch_tokens, head)

    def results(
        self,
        texts: Sequence[str],
        decoding: DecodingRecipe,
        alignment: bool,
        prefixes: Sequence[str],
        indices: Sequence[int],
        exact: bool = True,
        listeners: Mapping[int, Listener] = NO_LISTENERS,
    ) -> list[Translation]:
        """Return the results of texts that are computed together, with these prefixes; `indices` are those of
        the texts in their inputs, which may be several: samples depend on them.

        listeners: of some texts, by their places: told of whole words that can no longer change, while torch
            searches.
        """
        tokenizer = self.generator.tokenizer
        numbered = zip(texts, indices, strict=True)
        sources = [self._tokenize(text, decoding.max_source, index + 1) for text, index in numbered]
        rows = [row for row, source in enumerate(sources) if source.tokens.ids]  # of texts that are not blank
        given = [sources[row].ids for row in rows]
        ids = [tokenizer.tokenize_target(prefixes[row], sources[row].ids).ids for row in rows]
        prefix_ids = self._prefixes([prefixes[row] for row in rows], ids)
        numbers = [indices[row] for row in rows]
        aligned = (alignment or decoding.replace_unknown) and self.model.decoder.attention_layers
        head = self.alignment if aligned else None
        heard = {
            place: (listeners[row], sources[row].tokens.pieces)
            for place, row in enumerate(rows)
            if row in listeners
        }
        watch = self._watch(heard, decoding.replace_unknown)
        nbest_lists = self.generator.decode(given, decoding, prefix_ids, numbers, head, exact, watch)
        results: list[list[Translation]] = [[] for _ in texts]
        for row, nbest in zip(rows, nbest_lists, strict=True):
            tokens = sources[row].tokens
            for hypothesis, forced in nbest:
                target = self.target.join(hypothesis.tokens, tokens.pieces)
                text = self._text(hypothesis.tokens, tokens.pieces)
                result = self._result(tokens, target, text, hypothesis, forced, self.alignment)
                results[row].append(result.known(self.target.unk) if decoding.replace_unknown else result)
        longest = [i + 1 for i, nbest in zip(indices, results, strict=True) if nbest and nbest[0].truncated]
        warn_of_limits(longest, decoding, self.model.decoder.max_length)
        return [
            nbest[0].among(nbest) if nbest else Translation.empty(source.tokens)
            for nbest, source in zip(results, sources, strict=True)
        ]

    def _tokenize(self, text: str, max_pieces: int | None = None, line: int = 1) -> _SourceText:
        """Return a source, truncated as in training. If it has more than `max_pieces` then, or more than the
        encoder can read, truncate it to these, and warn with the number of its line."""
        tokenizer, readable = self.generator.tokenizer, self.model.encoder.max_length
        limits = [] if max_pieces is None else [(max_pieces, "decoding.max_source")]
        limits += [] if readable is None else [(readable - 1, "the encoder's positions")]
        limit, reason = min(limits, default=(len(text), ""))
        window = tokenizer.truncate.source
        begun = shortened(text, limit) if window is None or not window.tail else text
        tokens = tokenizer.tokenize_source(begun)
        length = len(tokens.ids)
        if limits and (length > limit or begun != text):
            size, unit = (
                (f"{len(text):,} characters", " pieces") if begun != text else (f"{length:,} pieces", "")
            )
            tokens = tokens.at(range(min(length, limit)))
            warnings.warn(
                f"sentence {line} has {size} and was truncated to {len(tokens.ids):,}{unit} ({reason}): "
                "is it a single sentence?",
                stacklevel=2,
            )
        return _SourceText(tokens, tokenizer.source_ids(tokens.ids, lambda: begun))

    def _result(
        self,
        source: Tokens,
        target: Tokens,
        text: str,
        hypothesis: Hypothesis,
        forced: ForcedDecoding | None,
        head: AlignmentHead,
    ) -> Translation:
        shift = head.shift_of(self.model.decoder)
        return translation_of((source, target), text, hypothesis, forced, shift)


class Translator(TextPredictor):
    """Translates texts. Returned by `seq2attn.load(run)`."""

    task, command = "translation", "translate"
    translate = published(TextPredictor._generate, "Translator.translate")


class Summarizer(TextPredictor):
    """Summarizes texts, whose sentences or turns of a dialogue are separated by line feeds.

    A text in a list may be a list of its sentences or turns: `summarize([turns])` returns one result.
    """

    task, command, parts = "summarization", "summarize", "sentences or turns"
    summarize = published(TextPredictor._generate, "Summarizer.summarize")
