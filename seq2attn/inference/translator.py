"""A trained model that translates: strings in, `Translation`s out, with exact alignments."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, overload

from pydantic import ValidationError
from torch import Tensor

from seq2attn.alignment.word_alignment import by_words, shifted
from seq2attn.errors import Seq2attnError
from seq2attn.inference.generator import ForcedDecoding, Generator
from seq2attn.inference.predictor import Predictor
from seq2attn.inference.results import Translation
from seq2attn.inference.search import Hypothesis
from seq2attn.recipe import DecodingRecipe
from seq2attn.text.vocabulary import Tokens

# Sentences that are read before the first is translated, so that batches are of about one length.
CHUNK = 2000
DRAWING = {"temperature", "top_k", "top_p"}  # settings that do nothing without `sample`


class Translator(Generator, Predictor):
    """Inference from strings to translations. Make one with `seq2attn.load(run)`."""

    task = "translation"

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return f"{type(self).__name__}({parameters:,} parameters, on {self.device})"

    def adopt(self, given: dict[str, Any]) -> None:
        """Search with these settings from now on (`settings`)."""
        self.decoding = self.settings(given)

    def units(self, texts: Sequence[str]) -> int:
        """How many pieces it would have to write these, ends included."""
        return sum(len(ids) + 1 for ids in self.target.encode(texts))

    def looks(self, sources: Sequence[str], targets: Sequence[str]) -> list[Tensor]:
        """What each step of given targets looks at, (T + 1, S + 1) of each; nothing without attention."""
        if not self.model.decoder.attention_layers:
            return []
        read = [self._read(source) for source in sources]
        ids = [tokens.ids for tokens in read]
        given = [self._given(target, tokens).ids for target, tokens in zip(targets, read, strict=True)]
        copies, sentences = self.copies(ids, read), self.sentences(ids, sources)
        forced = self.forced_decoding(ids, given, copies=copies, sentences=sentences)
        return [one.weights for one in forced if one.weights is not None]

    @property
    def how(self) -> str:
        """How it searches, as part of a score's signature."""
        decoding = self.decoding
        how = f"sample:{decoding.temperature}" if decoding.sample else f"beam:{decoding.beam}"
        length = f"{decoding.length_normalization}^{decoding.length_penalty:g}"
        coverage = f"|coverage:{decoding.coverage_penalty:g}" if decoding.coverage_penalty else ""
        return f"{how}|length:{length}{coverage}"

    @property
    def limit(self) -> str:
        """What to lower when memory ends."""
        return f"decoding.batch_tokens (now {self.decoding.batch_tokens})"

    @overload
    def translate(  # type: ignore[overload-overlap]  # a str is a Sequence[str], and is meant first
        self,
        text: str,
        *,
        beam: int | None = None,
        nbest: int | None = None,
        length_penalty: float | None = None,
        coverage_penalty: float | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
        no_repeat_ngram: int | None = None,
        replace_unknown: bool | None = None,
        sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        batch_tokens: int | None = None,
        prefix: str | Sequence[str] = "",
        alignment: bool = True,
    ) -> Translation: ...

    @overload
    def translate(
        self,
        text: Sequence[str] | Sequence[Sequence[str]],
        *,
        beam: int | None = None,
        nbest: int | None = None,
        length_penalty: float | None = None,
        coverage_penalty: float | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
        no_repeat_ngram: int | None = None,
        replace_unknown: bool | None = None,
        sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        batch_tokens: int | None = None,
        prefix: str | Sequence[str] = "",
        alignment: bool = True,
    ) -> list[Translation]: ...

    def translate(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        beam: int | None = None,
        nbest: int | None = None,
        length_penalty: float | None = None,
        coverage_penalty: float | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
        no_repeat_ngram: int | None = None,
        replace_unknown: bool | None = None,
        sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        batch_tokens: int | None = None,
        prefix: str | Sequence[str] = "",
        alignment: bool = True,
    ) -> Translation | list[Translation]:
        """Translate a text, or a list of them in their order; a blank one gives an empty translation.

        What is None is as in the recipe's `decoding` section, which explains each. prefix: how the
        translation must begin (one for all, or one for each). alignment=False saves the time of aligning.
        """
        given = {
            "beam": beam,
            "nbest": nbest,
            "length_penalty": length_penalty,
            "coverage_penalty": coverage_penalty,
            "min_length": min_length,
            "max_length": max_length,
            "no_repeat_ngram": no_repeat_ngram,
            "replace_unknown": replace_unknown,
            "sample": sample,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "seed": seed,
            "batch_tokens": batch_tokens,
        }
        texts = [one if isinstance(one, str) else "\n".join(one) for one in self.listed(text)]
        prefixes = [prefix] * len(texts) if isinstance(prefix, str) else list(prefix)
        if len(prefixes) != len(texts):
            raise Seq2attnError(f"expected a prefix for each of {len(texts)} texts, got {len(prefixes)}")
        found = self._translate(texts, self.settings(given), alignment, prefixes, 0)
        return found[0] if isinstance(text, str) else found

    def stream(
        self,
        lines: Iterable[str],
        decoding: DecodingRecipe | None = None,
        alignment: bool = False,
        chunk: int = CHUNK,
    ) -> Iterator[Translation]:
        """Translate lines as they come, in their order, `chunk` lines at a time (with `self.decoding`, if no
        other is given)."""
        lines, first, decoding = iter(lines), 0, decoding or self.decoding
        while texts := list(islice(lines, chunk)):
            yield from self._translate(texts, decoding, alignment, [""] * len(texts), first)
            first += len(texts)

    def settings(self, given: dict[str, Any]) -> DecodingRecipe:
        """The recipe's decoding with what is given (and not None) instead; checked."""
        changes = {name: value for name, value in given.items() if value is not None}
        nbest = changes.get("nbest")
        if isinstance(nbest, int) and nbest > self.decoding.beam:
            changes.setdefault("beam", nbest)
        try:
            decoding = DecodingRecipe.model_validate({**self.decoding.model_dump(), **changes})
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise Seq2attnError("decoding: " + "; ".join(faults)) from error
        if not decoding.sample and (idle := DRAWING & changes.keys()):
            raise Seq2attnError(f"decoding: {', '.join(sorted(idle))} would do nothing: set sample, too")
        return decoding

    def align(
        self, source: str, target: str, layer: int | None = None, head: int | None = None
    ) -> Translation:
        """Force a given target through the model: its score (without a coverage penalty) and its alignment.

        layer, head: instead of alignment_layer and alignment_head.
        """
        tokens = self._read(source)
        wanted, copies = self._given(target, tokens), self.copies([tokens.ids], [tokens])
        sentences = self.sentences([tokens.ids], [source])
        forced = self.forced_decoding(
            [tokens.ids], [wanted.ids], layer, head, copies=copies, sentences=sentences
        )[0]
        hypothesis = Hypothesis(
            wanted.ids,
            forced.log_probability,
            self.rules(self.decoding).score(forced.log_probability, len(wanted.ids) + 1),
        )
        return self._result(tokens, wanted, target, hypothesis, forced)

    def log_probabilities(self, sources: Sequence[str], targets: Sequence[str]) -> list[float]:
        """The model's log-probability of each target given its source, the end included, in nats."""
        texts = [self._read(source) for source in sources]
        wanted = [self._given(target, text).ids for target, text in zip(targets, texts, strict=True)]
        read = [text.ids for text in texts]
        copies, sentences = self.copies(read, texts), self.sentences(read, sources)
        forced = self.forced_decoding(read, wanted, weights=False, copies=copies, sentences=sentences)
        return [one.log_probability for one in forced]

    def _translate(
        self, texts: list[str], decoding: DecodingRecipe, alignment: bool, prefixes: list[str], first: int
    ) -> list[Translation]:
        sources = [
            self._cut(self._read(text), decoding, first + number) for number, text in enumerate(texts, 1)
        ]
        wanted = [number for number, tokens in enumerate(sources) if tokens.ids]
        read = [sources[number] for number in wanted]
        ids = [tokens.ids for tokens in read]
        forced = [self._given(prefixes[number], sources[number]).ids for number in wanted]
        places, copies = [first + number for number in wanted], self.copies(ids, read)
        sentences = self.sentences(ids, [texts[number] for number in wanted])
        found = self.hypotheses(ids, decoding, forced, places, copies, sentences)
        pairs = [(number, h) for number, some in zip(wanted, found, strict=True) for h in some]
        alignment = alignment or decoding.replace_unknown
        looked: list[ForcedDecoding | None] = [None] * len(pairs)
        if alignment and self.model.decoder.attention_layers:
            read = [sources[number] for number, _ in pairs]
            ids = [tokens.ids for tokens in read]
            copies, sentences = self.copies(ids, read), self.sentences(ids, [texts[n] for n, _ in pairs])
            looked = [
                *self.forced_decoding(ids, [h.tokens for _, h in pairs], copies=copies, sentences=sentences)
            ]
        nbest: list[list[Translation]] = [[] for _ in texts]
        for (number, hypothesis), one in zip(pairs, looked, strict=True):
            tokens = self.target.join(hypothesis.tokens, sources[number].pieces)
            text = self._text(hypothesis.tokens, sources[number].pieces)
            result = self._result(sources[number], tokens, text, hypothesis, one)
            nbest[number].append(result.known(self.target.unk) if decoding.replace_unknown else result)
        return [
            some[0].among(some) if some else Translation.empty(tokens)
            for some, tokens in zip(nbest, sources, strict=True)
        ]

    def _read(self, text: str) -> Tokens:
        """A source, or as much of it as was read in training."""
        tokens = self.source.split(text)
        return tokens.at(self.truncate.cut(0, range(len(tokens.ids))))

    def _cut(self, tokens: Tokens, decoding: DecodingRecipe, number: int) -> Tokens:
        """The sentence, or as much of it as `max_source` allows."""
        length, most = len(tokens.ids), decoding.max_source
        if length <= most:
            return tokens
        warnings.warn(
            f"sentence {number} has {length:,} pieces and was cut to {most:,} (decoding.max_source): "
            "is it a line of its own?",
            stacklevel=2,
        )
        return tokens.at(range(most))

    def _given(self, target: str, source: Tokens) -> Tokens:
        """A given target. A model that copies can say its unknown pieces that the source has."""
        tokens = self.target.split(target)
        if self.model.decoder.pointer_generator is None:
            return tokens
        return tokens._replace(ids=self.target.copied(tokens.ids, tokens.pieces, source.pieces))

    def _text(self, ids: Sequence[int], copied: Sequence[str] = ()) -> str:
        """The text of produced ids with single spaces: SentencePiece puts two of them round its sign for an
        unknown piece, and a model may say pieces that are nothing else."""
        return " ".join(filter(None, self.target.decode(ids, copied).split(" ")))

    def _result(
        self, source: Tokens, target: Tokens, text: str, hypothesis: Hypothesis, forced: ForcedDecoding | None
    ) -> Translation:
        found = Translation(source, target, text, hypothesis.score, hypothesis.log_probability)
        if forced is None or forced.weights is None:
            return found
        pieces, copied = shifted(forced.weights, self.model.decoder.alignment_shift), None
        words, end = by_words(pieces, target.word_of, source.word_of, source_eos=True)
        if forced.copied is not None:  # a word's is the mean of its pieces'
            column = forced.copied[:-1, None]
            copied = by_words(column, target.word_of, [0], source_eos=False).weights.squeeze(1)
        return replace(found, alignment=words, end_of_sentence=end, weights=pieces, copied=copied)


class Summarizer(Translator):
    """The same of texts and their summaries: sentences or turns of a dialogue are parted by line feeds.

    A text in a list may be a list itself, of its sentences or turns: `summarize([turns])` gives one result.
    """

    task, parts = "summarization", "sentences or turns"
    summarize = Translator.translate
