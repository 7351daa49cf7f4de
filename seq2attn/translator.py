"""A trained model that translates: strings in, `Translation`s out, with exact alignments."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from seq2attn.alignment import by_words, shifted
from seq2attn.attention import reorder
from seq2attn.batches import Row, batch, by_length, fill, pad
from seq2attn.checkpoint import RunFolder, put_weights
from seq2attn.errors import Seq2attnError
from seq2attn.models import Seq2Seq, autocast, build, pick_device
from seq2attn.recipe import DecodingRecipe
from seq2attn.results import Translation
from seq2attn.search import Hypothesis, Rules, beam_search, greedy, sample
from seq2attn.text import Tokens, Vocabulary

# Sentences that are read before the first is translated, so that batches are of about one length.
CHUNK = 2000
DRAWING = {"temperature", "top_k", "top_p"}  # settings that do nothing without `sample`


class Forced(NamedTuple):
    """A given target, forced through the model."""

    log_probability: float  # of all its tokens and the end
    weights: Tensor | None  # (T + 1, S + 1): every step on every source piece and the end-of-sentence


class Translator:
    """A model with its vocabularies. Make one with `seq2attn.load(run)`.

    alignment_layer, alignment_head: the cross-attention that makes alignments, from 0 (-1 = the last). None,
    as they are at first, is the layer before the last, which aligns best in Transformers (Garg et al. 2019),
    and the mean of its heads. Either may be set.
    """

    def __init__(
        self,
        model: Seq2Seq,
        source: Vocabulary,
        target: Vocabulary,
        decoding: DecodingRecipe | None = None,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.device, self.precision = torch.device(device), precision
        autocast(self.device, precision)  # an error now, if the device cannot
        self.model = model.to(self.device)
        self.source, self.target = source, target
        self.decoding = decoding or DecodingRecipe()
        self.alignment_layer: int | None = None
        self.alignment_head: int | None = None

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return f"Translator({parameters:,} parameters, on {self.device})"

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
            self._rules(self.decoding).score(forced.log_probability, len(wanted.ids) + 1),
        )
        return self._result(tokens, wanted, target, hypothesis, forced.weights)

    def log_probabilities(self, sources: Sequence[str], targets: Sequence[str]) -> list[float]:
        """The model's log-probability of each target given its source, the end included, in nats."""
        forced = self.force(self.source.encode(sources), self.target.encode(targets), weights=False)
        return [one.log_probability for one in forced]

    def hypotheses(
        self,
        sources: Sequence[Row],
        decoding: DecodingRecipe,
        prefixes: Sequence[Row] = (),
        numbers: Sequence[int] = (),
    ) -> list[list[Hypothesis]]:
        """Search for sources given as ids, in their order; no batch mates change a result.

        numbers: of the sentences, by which sampling draws; from 0, if not given.
        """
        found: list[list[Hypothesis]] = [[] for _ in sources]
        lengths = np.array([len(row) for row in sources], dtype=np.int32)
        order = np.argsort(-lengths, kind="stable")
        forced, numbers = prefixes or [[]] * len(sources), numbers or range(len(sources))
        width = decoding.nbest if decoding.sample else decoding.beam
        for chosen in fill(order, lengths, lengths, max(1, decoding.batch_tokens // width)):
            rows = chosen.tolist()
            some = self._search(
                [sources[row] for row in rows],
                decoding,
                [forced[row] for row in rows],
                [numbers[row] for row in rows],
            )
            for row, hypotheses in zip(rows, some, strict=True):
                found[row] = hypotheses
        return found

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
            text = self.target.decode(hypothesis.tokens)
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

    def _result(
        self, source: Tokens, target: Tokens, text: str, hypothesis: Hypothesis, weights: Tensor | None
    ) -> Translation:
        if weights is None:
            return Translation(source, target, text, hypothesis.score, hypothesis.log_probability)
        pieces = shifted(weights, self.model.decoder.alignment_shift)
        words = by_words(pieces, target.word_of, source.word_of, source_eos=True)
        return Translation(source, target, text, hypothesis.score, hypothesis.log_probability, *words, pieces)

    # ---- the model ----------------------------------------------------------------------------------

    def _rules(self, decoding: DecodingRecipe) -> Rules:
        return Rules(
            self.target.bos,
            self.target.eos,
            (self.target.pad, self.target.bos),
            decoding.min_length,
            decoding.no_repeat_ngram,
            decoding.length_normalization,
            decoding.length_penalty,
            decoding.coverage_penalty,
            self.model.decoder.coverage,
        )

    @torch.inference_mode()
    def _search(
        self, sources: list[Row], decoding: DecodingRecipe, prefixes: list[Row], numbers: list[int]
    ) -> list[list[Hypothesis]]:
        self.model.eval()
        rules = self._rules(decoding)
        tokens, mask = pad([np.append(row, self.source.eos) for row in sources], self.source.pad)
        limits = (decoding.max_length_ratio * mask.sum(1) + 10).long().clamp(max=decoding.max_length)
        limits = limits.clamp(min=decoding.min_length).to(self.device)
        longest = max(len(row) for row in prefixes)
        forced = None
        if longest:
            ids, given = pad(prefixes, -1)
            forced = ids.masked_fill(~given, -1).to(self.device)
            limits = torch.maximum(limits, given.sum(1).to(self.device) + 1)
        with self._autocast():
            state = self.model.start(tokens.to(self.device), mask.to(self.device))
            if decoding.sample:
                return self._sample(state, rules, limits, decoding, numbers, forced)
            if decoding.beam == 1:
                return [[one] for one in greedy(self.model.step, state, rules, limits, forced)]
            beams = beam_search(self.model.step, state, rules, limits, decoding.beam, forced)
        return [some[: decoding.nbest] for some in beams]

    def _sample(
        self,
        state: Any,
        rules: Rules,
        limits: Tensor,
        decoding: DecodingRecipe,
        numbers: list[int],
        forced: Tensor | None,
    ) -> list[list[Hypothesis]]:
        """`nbest` draws for each sentence, best first, each from a seed of its own."""
        draws = decoding.nbest
        each = torch.arange(len(numbers), device=self.device).repeat_interleave(draws)
        seeds = [
            int(np.random.SeedSequence([decoding.seed, number, draw]).generate_state(1)[0])
            for number in numbers
            for draw in range(draws)
        ]
        drawn = sample(
            self.model.step,
            reorder(state, each),
            rules,
            limits[each],
            seeds,
            decoding.temperature,
            decoding.top_k,
            decoding.top_p,
            None if forced is None else forced[each],
        )
        groups = [drawn[begin : begin + draws] for begin in range(0, len(drawn), draws)]
        return [sorted(group, key=lambda one: -one.score) for group in groups]

    @torch.inference_mode()
    def force(
        self,
        sources: Sequence[Row],
        targets: Sequence[Row],
        layer: int | None = None,
        head: int | None = None,
        weights: bool = True,
    ) -> list[Forced]:
        """Run given targets through the model at once: exact scores, and exact weights of one layer."""
        self.model.eval()
        look = (self._layer(layer),) if weights else ()
        forced: list[Forced] = [Forced(0.0, None)] * len(sources)
        S, T = (np.array([len(row) for row in rows], dtype=np.int32) for rows in (sources, targets))
        for numbers in fill(by_length(S, T), S, T, self.decoding.batch_tokens):
            rows = numbers.tolist()
            some = batch([sources[r] for r in rows], [targets[r] for r in rows], self.source, self.target)
            some = some.to(self.device)
            with self._autocast():
                decoded = self.model(some.source, some.source_mask, some.reads, look)
            gold = decoded.logits.float().log_softmax(-1).gather(-1, some.gold[..., None]).squeeze(-1)
            totals = (gold * some.gold_mask).sum(1).tolist()
            looked = None if decoded.weights is None else self._head(decoded.weights[:, 0], head).cpu()
            for place, row in enumerate(rows):
                own = None if looked is None else looked[place, : T[row] + 1, : S[row] + 1].clone()
                forced[row] = Forced(totals[place], own)
        return forced

    def _layer(self, layer: int | None) -> int:
        count = self.model.decoder.attention_layers
        if not count:
            raise Seq2attnError(
                "this model has no attention (order cho or sutskever), so it cannot be aligned"
            )
        layer = self.alignment_layer if layer is None else layer
        if layer is None:
            return max(0, count - 2)
        if not -count <= layer < count:
            raise Seq2attnError(
                f"the model has {count} attention layers, 0 to {count - 1}; got layer {layer}"
            )
        return layer % count

    def _head(self, weights: Tensor, head: int | None) -> Tensor:
        count = weights.shape[1]
        head = self.alignment_head if head is None else head
        if head is None:
            return weights.mean(1)
        if not -count <= head < count:
            raise Seq2attnError(f"the layer has {count} heads, 0 to {count - 1}; got head {head}")
        return weights[:, head]

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, self.precision)


def load(
    run: str | Path, checkpoint: str = "best", device: str = "auto", precision: str = "fp32"
) -> Translator:
    """The model of a run folder. checkpoint: best, last, average, or a file's name below weights/."""
    folder = RunFolder.open(run)
    recipe = folder.recipe
    source, target = vocabularies(folder)
    model = build(recipe.model, source.size, target.size)
    put_weights(model, folder.load_weights(checkpoint))
    return Translator(model, source, target, recipe.decoding, pick_device(device), precision)


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


def translate(text: str | Sequence[str], model: str | Path | Translator) -> Translation | list[Translation]:
    """Translate with a run's folder (or a loaded model) in one line; a list in, a list out.

    A folder is read at every call: to translate often, `load` it once.
    """
    return (model if isinstance(model, Translator) else load(model)).translate(text)
