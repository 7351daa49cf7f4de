"""Inference: a model on a device, from ids to ids. It searches for targets, or forces given ones."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seq2attn.attention.state import reorder
from seq2attn.data.batches import Row, batch, by_length, fill, in_sentences, numbered_slots, pad
from seq2attn.errors import Seq2attnError
from seq2attn.inference.search import Hypothesis, Rules, beam_search, greedy, sample
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.recipe import DecodingRecipe, TruncateRecipe
from seq2attn.runtime.devices import autocast
from seq2attn.text.vocabulary import Tokens, Vocabulary


class ForcedDecoding(NamedTuple):
    """A given target, forced through the model."""

    log_probability: float  # of all its tokens and the end
    weights: Tensor | None  # (T + 1, S + 1): every step on every source piece and the end-of-sentence
    copied: Tensor | None = None  # (T + 1,), how much of each token's probability was copied, if it copies


class Generator:
    """A model with its vocabularies, on a device.

    truncate: how much of a source is read, as in training.
    alignment_layer, alignment_head: the cross-attention that makes alignments, from 0 (-1 = the last). None,
    as they are at first, is the layer before the last, which aligns best in Transformers (Garg et al. 2019),
    and the mean of its heads; where a model copies, the layer and the head that say what. Either may
    be set.
    """

    def __init__(
        self,
        model: Seq2Seq,
        source: Vocabulary,
        target: Vocabulary,
        decoding: DecodingRecipe | None = None,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        truncate: TruncateRecipe | None = None,
    ) -> None:
        self.device, self.precision = torch.device(device), precision
        autocast(self.device, precision)  # an error now, if the device cannot
        self.model = model.to(self.device)
        self.source, self.target = source, target
        self.decoding, self.truncate = decoding or DecodingRecipe(), truncate or TruncateRecipe()
        self.alignment_layer: int | None = None
        self.alignment_head: int | None = None

    def rules(self, decoding: DecodingRecipe) -> Rules:
        """What a translation may look like, and how it is ranked."""
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

    def hypotheses(
        self,
        sources: Sequence[Row],
        decoding: DecodingRecipe,
        prefixes: Sequence[Row] = (),
        numbers: Sequence[int] = (),
        copies: Sequence[Row] = (),
        sentences: Sequence[Row] = (),
    ) -> list[list[Hypothesis]]:
        """Search for sources given as ids, in their order; no batch mates change a result.

        numbers: of the sentences, by which sampling draws; from 0, if not given;
        copies: what each source is copied as, see `copies`;
        sentences: of each source, see `sentences`; one, if not given.
        """
        found: list[list[Hypothesis]] = [[] for _ in sources]
        lengths = np.array([len(row) for row in sources], dtype=np.int32)
        order = np.argsort(-lengths, kind="stable")
        forced, numbers = prefixes or [[]] * len(sources), numbers or range(len(sources))
        copies, sentences = copies or self.copies(sources), sentences or [[0] * len(row) for row in sources]
        width = decoding.nbest if decoding.sample else decoding.beam
        for chosen in fill(order, lengths, lengths, max(1, decoding.batch_tokens // width)):
            rows = chosen.tolist()
            some = self._search(
                [sources[row] for row in rows],
                decoding,
                [forced[row] for row in rows],
                [numbers[row] for row in rows],
                [copies[row] for row in rows],
                [sentences[row] for row in rows],
            )
            for row, hypotheses in zip(rows, some, strict=True):
                found[row] = hypotheses
        return found

    @torch.no_grad()
    def forced_decoding(
        self,
        sources: Sequence[Row],
        targets: Sequence[Row],
        layer: int | None = None,
        head: int | None = None,
        weights: bool = True,
        copies: Sequence[Row] = (),
        sentences: Sequence[Row] = (),
    ) -> list[ForcedDecoding]:
        """Run given targets through the model at once: exact scores, and exact weights of one layer.

        copies: what each source is copied as, see `copies`; targets may have such ids.
        sentences: of each source, see `sentences`; one, if not given.
        """
        self.model.eval()
        look, pointer_generator = list[int](), self.model.decoder.pointer_generator
        if weights:
            layer, head = self._place(layer, head)
            look = [layer] if pointer_generator is None else [layer, pointer_generator.layer]
        copies, sentences = copies or self.copies(sources), sentences or [[0] * len(row) for row in sources]
        forced: list[ForcedDecoding] = [ForcedDecoding(0.0, None)] * len(sources)
        S, T = (np.array([len(row) for row in rows], dtype=np.int32) for rows in (sources, targets))
        for numbers in fill(by_length(S, T), S, T, self.decoding.batch_tokens):
            rows = numbers.tolist()
            some = batch(
                [sources[r] for r in rows],
                [targets[r] for r in rows],
                self.source,
                self.target,
                None if pointer_generator is None else [copies[r] for r in rows],
            )
            if self.model.decoder.hierarchical:
                some = some._replace(sentences=numbered_slots([sentences[r] for r in rows]))
            some = some.to(self.device)
            with self._autocast():
                beside = some.copies, some.sentences
                decoded = self.model(some.source, some.source_mask, some.reads, look, *beside)
            gold = decoded.logits.float().log_softmax(-1).gather(-1, some.gold[..., None]).squeeze(-1)
            totals = (gold * some.gold_mask).sum(1).tolist()
            looked = None if decoded.weights is None else self._head(decoded.weights[:, 0], head).cpu()
            copied = None
            if pointer_generator is not None and weights and some.copies is not None:
                shares = pointer_generator.copied(
                    decoded.gate, decoded.weights[:, 1], some.copies, some.gold, gold
                )
                copied = shares.cpu()
            for place, row in enumerate(rows):
                steps = T[row] + 1
                own = None if looked is None else looked[place, :steps, : S[row] + 1].clone()
                share = None if copied is None else copied[place, :steps].clone()
                forced[row] = ForcedDecoding(totals[place], own, share)
        return forced

    def copies(self, sources: Sequence[Row], texts: Sequence[Tokens] = ()) -> list[list[int]]:
        """What each source is to a model that copies (`Vocabulary.copies`); nothing to others.

        texts: of which the sources are the ids; without them, an unknown piece is copied as <unk>.
        """
        if self.model.decoder.pointer_generator is None:
            return [[]] * len(sources)
        pieces = [one.pieces for one in texts] if texts else map(self.source.pieces, sources)
        return [self.target.copies(some) for some in pieces]

    def sentences(self, sources: Sequence[Row], texts: Sequence[str]) -> list[list[int]]:
        """The number of each id's line in the text, for a model that looks at sentences; nothing for others.

        sources: the ids that are read of the texts.
        """
        if not self.model.decoder.hierarchical:
            return []
        return [
            in_sentences(text, row, None, self.source, self.truncate)
            for text, row in zip(texts, sources, strict=True)
        ]

    @torch.no_grad()
    def _search(
        self,
        sources: list[Row],
        decoding: DecodingRecipe,
        prefixes: list[Row],
        numbers: list[int],
        copies: list[Row],
        sentences: list[Row],
    ) -> list[list[Hypothesis]]:
        self.model.eval()
        rules = self.rules(decoding)
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
            state = self._start(tokens, mask, copies, sentences, decoding)
            if decoding.sample:
                return self._sample(state, rules, limits, decoding, numbers, forced)
            if decoding.beam == 1:
                return [[one] for one in greedy(self._step, state, rules, limits, forced)]
            beams = beam_search(self._step, state, rules, limits, decoding.beam, forced)
        return [some[: decoding.nbest] for some in beams]

    def _start(
        self,
        tokens: Tensor,
        mask: Tensor,
        copies: list[Row],
        sentences: list[Row],
        decoding: DecodingRecipe,
    ) -> Any:
        decoder, place = self.model.decoder, self.device
        ids = None if decoder.pointer_generator is None else pad(copies, self.target.pad)[0].to(place)
        numbers = numbered_slots(sentences).to(place) if decoder.hierarchical else None
        state = self.model.start(tokens.to(place), mask.to(place), ids, numbers)
        if not decoding.coverage_penalty:
            return state
        if not self.model.decoder.attention_layers:
            raise Seq2attnError(
                "this model has no attention (order cho or sutskever), so a coverage penalty has nothing to "
                "count: set coverage_penalty to 0"
            )
        return self.model.decoder.track_coverage(state)

    def _step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The model's step; a piece that was copied from beyond the vocabulary is read as <unk>."""
        return self.model.step(token.masked_fill(token >= self.target.size, self.target.unk), state)

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
            self._step,
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

    def _place(self, layer: int | None, head: int | None) -> tuple[int, int | None]:
        """The layer and the head (None: the mean of all) whose weights are meant."""
        count = self.model.decoder.attention_layers
        if not count:
            raise Seq2attnError(
                "this model has no attention (order cho or sutskever), so it cannot be aligned"
            )
        layer = self.alignment_layer if layer is None else layer
        head = self.alignment_head if head is None else head
        if layer is None and (pointer_generator := self.model.decoder.pointer_generator) is not None:
            return pointer_generator.layer, pointer_generator.head if head is None else head
        if layer is None:
            return max(0, count - 2), head
        if not -count <= layer < count:
            raise Seq2attnError(
                f"the model has {count} attention layers, 0 to {count - 1}; got layer {layer}"
            )
        return layer % count, head

    def _head(self, weights: Tensor, head: int | None) -> Tensor:
        count = weights.shape[1]
        if head is None:
            return weights.mean(1)
        if not -count <= head < count:
            raise Seq2attnError(f"the layer has {count} heads, 0 to {count - 1}; got head {head}")
        return weights[:, head]

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, self.precision)
