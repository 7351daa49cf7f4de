"""Predictors that write text: strings in, `Translation`s out, with exact alignments."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypedDict, overload

import torch
from pydantic import ValidationError
from torch import Tensor
from typing_extensions import Self, Unpack

from seq2attn.alignment.word_alignment import Link, by_words, shifted
from seq2attn.data.sources import SourceIds
from seq2attn.errors import Seq2attnError
from seq2attn.inference.generator import DEFAULT_HEAD, AlignmentHead, ForcedDecoding, Generator
from seq2attn.inference.predictor import PlotOptions, Predictor
from seq2attn.inference.results import Translation
from seq2attn.inference.search import Hypothesis
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.recipe import DecodingRecipe
from seq2attn.text.vocabulary import Tokens, Vocabulary

CHUNK = 2000  # sentences that are read before the first is translated: their batches are of one length
SAMPLING_OPTIONS = {"temperature", "top_k", "top_p"}  # they do nothing without `sample`


class DecodingOptions(TypedDict, total=False):
    """The options of `translate` and `summarize`. One that is None or not given is as in the recipe's
    `decoding` section, where each is explained."""

    beam: int | None
    nbest: int | None
    length_penalty: float | None
    coverage_penalty: float | None
    min_length: int | None
    max_length: int | None
    no_repeat_ngram: int | None
    replace_unknown: bool | None
    sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None
    batch_tokens: int | None


@dataclass(frozen=True, eq=False, repr=False)
class TextPredictor(Predictor):
    """A predictor that writes text: from strings to strings by way of a `Generator`.

    generator: the model with its vocabularies, on a device;
    decoding: how it searches, unless a call says otherwise;
    alignment: the attention head that alignments are taken from.
    """

    generator: Generator
    decoding: DecodingRecipe
    alignment: AlignmentHead = DEFAULT_HEAD

    aligns = True

    # ---- what it is made of ------------------------------------------------------------------------

    @property
    def model(self) -> Seq2Seq:
        """The network."""
        return self.generator.model

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self.generator.device

    @property
    def source(self) -> Vocabulary:
        """The vocabulary of source texts."""
        return self.generator.tokenizer.source

    @property
    def target(self) -> Vocabulary:
        """The vocabulary of what it writes."""
        return self.generator.tokenizer.target

    @property
    def alignment_layer(self) -> int | None:
        """The layer that alignments are taken from; None: the default of `AlignmentHead`."""
        return self.alignment.layer

    @property
    def alignment_head(self) -> int | None:
        """The head that alignments are taken from; None: the mean of all."""
        return self.alignment.head

    # ---- as a predictor ----------------------------------------------------------------------------

    def configured(self, options: Mapping[str, object]) -> Self:
        """See the base class."""
        return replace(self, decoding=self.settings(options))

    def with_alignment(self, layer: int | None = None, head: int | None = None) -> Self:
        """Return this predictor with alignments from another layer and head (`AlignmentHead`)."""
        return replace(self, alignment=AlignmentHead(layer, head))

    def settings(self, options: Mapping[str, object]) -> DecodingRecipe:
        """Return the recipe's decoding with other options, those that are not None. Seq2attnError for a bad
        one."""
        changes = {name: value for name, value in options.items() if value is not None}
        nbest = changes.get("nbest")
        if isinstance(nbest, int) and nbest > self.decoding.beam:
            changes.setdefault("beam", nbest)
        try:
            decoding = DecodingRecipe.model_validate({**self.decoding.model_dump(), **changes})
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise Seq2attnError("decoding: " + "; ".join(faults)) from error
        if not decoding.sample and (idle := SAMPLING_OPTIONS & changes.keys()):
            raise Seq2attnError(f"decoding: {', '.join(sorted(idle))} would do nothing: set sample, too")
        return decoding

    def num_targets(self, texts: Sequence[str]) -> int:
        """See the base class: pieces, ends included."""
        return sum(len(ids) + 1 for ids in self.target.encode(texts))

    def attention_weights(self, sources: Sequence[str], targets: Sequence[str]) -> list[Tensor]:
        """See the base class; (T + 1, S + 1) of each pair."""
        if not self.model.decoder.attention_layers:
            return []
        return [forced.weights for forced in self._forced(sources, targets) if forced.weights is not None]

    def links(self, source: str, target: str) -> list[Link]:
        """See the base class."""
        return self.align(source, target).links()

    @property
    def signature(self) -> str:
        """See the base class."""
        decoding = self.decoding
        search = f"sample:{decoding.temperature}" if decoding.sample else f"beam:{decoding.beam}"
        length = f"{decoding.length_normalization}^{decoding.length_penalty:g}"
        coverage = f"|coverage:{decoding.coverage_penalty:g}" if decoding.coverage_penalty else ""
        return f"{search}|length:{length}{coverage}"

    @property
    def memory_advice(self) -> str:
        """See the base class."""
        return f"decoding.batch_tokens (now {self.decoding.batch_tokens})"

    def plot(self, text: str, path: Path, options: PlotOptions) -> Translation:
        """See the base class."""
        if options.target is None:
            head = AlignmentHead(options.layer, options.head)
            predictor = self if head == DEFAULT_HEAD else self.with_alignment(*head)
            decoding = self.settings({"nbest": 1})
            (result,) = predictor.stream([text], decoding, alignment=True)
        else:
            result = self.align(text, options.target, options.layer, options.head)
        result.plot(path, pieces=options.pieces)
        return result

    # ---- writing -----------------------------------------------------------------------------------

    @overload
    def _write(  # type: ignore[overload-overlap]  # a str is a Sequence[str], and is meant first
        self,
        text: str,
        *,
        prefix: str | Sequence[str] = "",
        alignment: bool = True,
        **options: Unpack[DecodingOptions],
    ) -> Translation: ...

    @overload
    def _write(
        self,
        text: Sequence[str] | Sequence[Sequence[str]],
        *,
        prefix: str | Sequence[str] = "",
        alignment: bool = True,
        **options: Unpack[DecodingOptions],
    ) -> list[Translation]: ...

    def _write(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        prefix: str | Sequence[str] = "",
        alignment: bool = True,
        **options: Unpack[DecodingOptions],
    ) -> Translation | list[Translation]:
        """Return the result of a text, or those of a list of texts in their order; a blank text gives an
        empty result.

        prefix: what the result must begin with, one for all or one for each;
        alignment: False saves the time of aligning;
        options: decoding options that replace the recipe's (`DecodingOptions`).
        """
        texts = [one if isinstance(one, str) else "\n".join(one) for one in self.texts(text)]
        prefixes = [prefix] * len(texts) if isinstance(prefix, str) else list(prefix)
        if len(prefixes) != len(texts):
            raise Seq2attnError(f"expected a prefix for each of {len(texts)} texts, got {len(prefixes)}")
        results = self._results(texts, self.settings(options), alignment, prefixes, 0)
        return results[0] if isinstance(text, str) else results

    def stream(
        self,
        lines: Iterable[str],
        decoding: DecodingRecipe | None = None,
        alignment: bool = False,
        chunk: int = CHUNK,
    ) -> Iterator[Translation]:
        """Yield the results of lines as they come, in their order, `chunk` lines at a time.

        decoding: instead of the predictor's own.
        """
        lines, first, decoding = iter(lines), 0, decoding or self.decoding
        while texts := list(islice(lines, chunk)):
            yield from self._results(texts, decoding, alignment, [""] * len(texts), first)
            first += len(texts)

    def align(
        self, source: str, target: str, layer: int | None = None, head: int | None = None
    ) -> Translation:
        """Force a given target through the model: its score (without a coverage penalty) and alignment.

        layer, head: instead of the predictor's `alignment`.
        """
        tokens, source_ids = self._read(source)
        wanted = self.generator.tokenizer.tokenize_target(target, source_ids)
        chosen = AlignmentHead(
            self.alignment.layer if layer is None else layer, self.alignment.head if head is None else head
        )
        (forced,) = self.generator.forced_decoding(
            [source_ids], [wanted.ids], self.decoding.batch_tokens, chosen
        )
        score = self.generator.rules(self.decoding).score(forced.log_probability, len(wanted.ids) + 1)
        hypothesis = Hypothesis(wanted.ids, forced.log_probability, score)
        return self._result(tokens, wanted, target, hypothesis, forced)

    def log_probabilities(self, sources: Sequence[str], targets: Sequence[str]) -> list[float]:
        """Return the model's log-probability of each target given its source, </s> included, in nats."""
        return [forced.log_probability for forced in self._forced(sources, targets, None)]

    def _forced(
        self, sources: Sequence[str], targets: Sequence[str], head: AlignmentHead | None = DEFAULT_HEAD
    ) -> list[ForcedDecoding]:
        """Score given targets, with the weights of the predictor's alignment head unless `head` is None."""
        tokenizer = self.generator.tokenizer
        read = [self._read(source)[1] for source in sources]
        ids = [tokenizer.tokenize_target(text, one).ids for text, one in zip(targets, read, strict=True)]
        chosen = None if head is None else self.alignment
        return self.generator.forced_decoding(read, ids, self.decoding.batch_tokens, chosen)

    def _results(
        self, texts: list[str], decoding: DecodingRecipe, alignment: bool, prefixes: list[str], first: int
    ) -> list[Translation]:
        """Translate texts; `first` is the index of the first one in the input."""
        tokenizer = self.generator.tokenizer
        read = [self._read(text, decoding.max_source, first + n) for n, text in enumerate(texts, 1)]
        wanted = [number for number, (tokens, _) in enumerate(read) if tokens.ids]  # not blank
        sources = [read[number][1] for number in wanted]
        forced = [tokenizer.tokenize_target(prefixes[number], read[number][1]).ids for number in wanted]
        found = self.generator.search(sources, decoding, forced, [first + number for number in wanted])
        pairs = [(number, h) for number, nbest in zip(wanted, found, strict=True) for h in nbest]
        aligned: list[ForcedDecoding | None] = [None] * len(pairs)
        if (alignment or decoding.replace_unknown) and self.model.decoder.attention_layers:
            sources, targets = [read[n][1] for n, _ in pairs], [h.tokens for _, h in pairs]
            aligned = [
                *self.generator.forced_decoding(sources, targets, decoding.batch_tokens, self.alignment)
            ]
        nbest: list[list[Translation]] = [[] for _ in texts]
        for (number, hypothesis), weights in zip(pairs, aligned, strict=True):
            source, _ = read[number]
            target = self.target.join(hypothesis.tokens, source.pieces)
            text = self._text(hypothesis.tokens, source.pieces)
            result = self._result(source, target, text, hypothesis, weights)
            nbest[number].append(result.known(self.target.unk) if decoding.replace_unknown else result)
        return [
            results[0].among(results) if results else Translation.empty(tokens)
            for results, (tokens, _) in zip(nbest, read, strict=True)
        ]

    def _read(self, text: str, longest: int | None = None, number: int = 0) -> tuple[Tokens, SourceIds]:
        """Return a source, truncated as in training and to `longest` pieces; with a warning that names the
        number of its line."""
        tokens = self.generator.tokenizer.tokenize_source(text)
        length = len(tokens.ids)
        if longest is not None and length > longest:
            warnings.warn(
                f"sentence {number} has {length:,} pieces and was cut to {longest:,} (decoding.max_source): "
                "is it a line of its own?",
                stacklevel=2,
            )
            tokens = tokens.at(range(longest))
        return tokens, self.generator.tokenizer.source_ids(tokens.ids, lambda: text)

    def _text(self, ids: Sequence[int], copied: Sequence[str] = ()) -> str:
        """Return the text of produced ids with single spaces: SentencePiece puts two of them round its sign
        for an unknown piece, and a model may write pieces that are nothing else."""
        return " ".join(filter(None, self.target.decode(ids, copied).split(" ")))

    def _result(
        self,
        source: Tokens,
        target: Tokens,
        text: str,
        hypothesis: Hypothesis,
        forced: ForcedDecoding | None,
    ) -> Translation:
        result = Translation(source, target, text, hypothesis.score, hypothesis.log_probability)
        if forced is None or forced.weights is None:
            return result
        pieces, copied = shifted(forced.weights, self.model.decoder.alignment_shift), None
        words, end = by_words(pieces, target.word_of, source.word_of, source_eos=True)
        if forced.copied is not None:  # a word's is the mean of its pieces'
            column = forced.copied[:-1, None]
            copied = by_words(column, target.word_of, [0], source_eos=False).weights.squeeze(1)
        return replace(result, alignment=words, end_of_sentence=end, weights=pieces, copied=copied)


class Translator(TextPredictor):
    """Translates texts. `seq2attn.load(run)` makes one."""

    task, command = "translation", "translate"
    translate = TextPredictor._write


class Summarizer(TextPredictor):
    """Summarizes texts, whose sentences or turns of a dialogue are separated by line feeds.

    A text in a list may be a list of its sentences or turns: `summarize([turns])` returns one result.
    """

    task, command, parts = "summarization", "summarize", "sentences or turns"
    summarize = TextPredictor._write
