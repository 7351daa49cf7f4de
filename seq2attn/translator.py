"""A trained model that translates: strings in, `Translation`s out, with exact alignments."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

from pydantic import ValidationError
from torch import Tensor

from seq2attn.alignment import by_words, shifted
from seq2attn.checkpoint import RunFolder, put_weights
from seq2attn.errors import Seq2attnError
from seq2attn.inference import Inference
from seq2attn.models import build, pick_device
from seq2attn.recipe import DecodingRecipe
from seq2attn.results import Translation
from seq2attn.search import Hypothesis
from seq2attn.text import Tokens, Vocabulary

# Sentences that are read before the first is translated, so that batches are of about one length.
CHUNK = 2000
DRAWING = {"temperature", "top_k", "top_p"}  # settings that do nothing without `sample`


class Translator(Inference):
    """Inference from strings to translations. Make one with `seq2attn.load(run)`."""

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return f"Translator({parameters:,} parameters, on {self.device})"

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
        text: Sequence[str],
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
        text: str | Sequence[str],
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
        """Translate a sentence, or a list of them in their order; a blank one gives an empty translation.

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
        texts = [text] if isinstance(text, str) else list(text)
        if not all(isinstance(one, str) for one in texts):
            raise Seq2attnError(f"expected a sentence or a list of sentences (str), got {text!r:.60}")
        prefixes = [prefix] * len(texts) if isinstance(prefix, str) else list(prefix)
        if len(prefixes) != len(texts):
            raise Seq2attnError(f"expected a prefix for each of {len(texts)} sentences, got {len(prefixes)}")
        found = self._translate(texts, self.settings(given), alignment, prefixes, 0)
        return found[0] if isinstance(text, str) else found

    def stream(
        self, lines: Iterable[str], decoding: DecodingRecipe, alignment: bool = False, chunk: int = CHUNK
    ) -> Iterator[Translation]:
        """Translate lines as they come, in their order, `chunk` lines at a time."""
        lines, first = iter(lines), 0
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
        tokens, wanted = self.source.split(source), self.target.split(target)
        forced = self.force([tokens.ids], [wanted.ids], layer, head)[0]
        hypothesis = Hypothesis(
            wanted.ids,
            forced.log_probability,
            self.rules(self.decoding).score(forced.log_probability, len(wanted.ids) + 1),
        )
        return self._result(tokens, wanted, target, hypothesis, forced.weights)

    def log_probabilities(self, sources: Sequence[str], targets: Sequence[str]) -> list[float]:
        """The model's log-probability of each target given its source, the end included, in nats."""
        forced = self.force(self.source.encode(sources), self.target.encode(targets), weights=False)
        return [one.log_probability for one in forced]

    def _translate(
        self, texts: list[str], decoding: DecodingRecipe, alignment: bool, prefixes: list[str], first: int
    ) -> list[Translation]:
        sources = [
            self._cut(self.source.split(text), decoding, first + number)
            for number, text in enumerate(texts, 1)
        ]
        wanted = [number for number, tokens in enumerate(sources) if tokens.ids]
        forced = self.target.encode([prefixes[number] for number in wanted])
        places = [first + number for number in wanted]
        found = self.hypotheses([sources[number].ids for number in wanted], decoding, forced, places)
        pairs = [(number, h) for number, some in zip(wanted, found, strict=True) for h in some]
        alignment = alignment or decoding.replace_unknown
        weights: list[Tensor | None] = [None] * len(pairs)
        if alignment and self.model.decoder.attention_layers:
            forcing = self.force([sources[n].ids for n, _ in pairs], [h.tokens for _, h in pairs])
            weights = [one.weights for one in forcing]
        nbest: list[list[Translation]] = [[] for _ in texts]
        for (number, hypothesis), looked in zip(pairs, weights, strict=True):
            tokens = self.target.join(hypothesis.tokens)
            text = self._text(hypothesis.tokens)
            result = self._result(sources[number], tokens, text, hypothesis, looked)
            nbest[number].append(result.known(self.target.unk) if decoding.replace_unknown else result)
        return [
            some[0].among(some) if some else Translation.empty(tokens)
            for some, tokens in zip(nbest, sources, strict=True)
        ]

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
        words = tokens.words[: tokens.word_of[most - 1] + 1]
        return Tokens(tokens.ids[:most], tokens.pieces[:most], words, tokens.word_of[:most])

    def _text(self, ids: Sequence[int]) -> str:
        """The text of produced ids with single spaces: SentencePiece puts two of them round its sign for an
        unknown piece, and a model may say pieces that are nothing else."""
        return " ".join(filter(None, self.target.decode(ids).split(" ")))

    def _result(
        self, source: Tokens, target: Tokens, text: str, hypothesis: Hypothesis, weights: Tensor | None
    ) -> Translation:
        if weights is None:
            return Translation(source, target, text, hypothesis.score, hypothesis.log_probability)
        pieces = shifted(weights, self.model.decoder.alignment_shift)
        words = by_words(pieces, target.word_of, source.word_of, source_eos=True)
        return Translation(source, target, text, hypothesis.score, hypothesis.log_probability, *words, pieces)


def load(
    run: str | Path, checkpoint: str = "best", device: str = "auto", precision: str = "fp32"
) -> Translator:
    """The model of a run folder. checkpoint: best, last, average, or a file's name below weights/."""
    folder = RunFolder.open(run)
    recipe = folder.recipe
    source, target = vocabularies(folder)
    model = build(recipe.model, source.size, target.size)
    put_weights(model, folder.load_weights(checkpoint))
    translator = Translator(model, source, target, recipe.decoding, pick_device(device), precision)
    losses = recipe.training.attention_losses
    if losses is not None and losses.guided:  # what was taught to align, aligns
        translator.alignment_layer, translator.alignment_head = losses.layer, losses.head or 0
    return translator


def vocabularies(folder: RunFolder) -> tuple[Vocabulary, Vocabulary]:
    """Source and target vocabulary of a run; one object twice if they are joint."""
    words = folder.recipe.text.words
    if folder.recipe.text.joint:
        joint = Vocabulary(folder.content("text/joint.model"), words)
        return joint, joint
    return (
        Vocabulary(folder.content("text/source.model"), words),
        Vocabulary(folder.content("text/target.model"), words),
    )


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

    A folder is read at every call: to translate often, `load` it once.
    """
    return (model if isinstance(model, Translator) else load(model)).translate(text)
