"""Search and forced decoding with a sequence-to-sequence model, from ids to hypotheses and weights."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from seq2attn.attention.state import reorder
from seq2attn.data.batches import PairIds, collate
from seq2attn.data.sources import Collator, Row, pad
from seq2attn.errors import Seq2attnError
from seq2attn.inference.attention_norms import recorded_vectors
from seq2attn.inference.beam_search import BeamStep, beam_search
from seq2attn.inference.decided import of_rows
from seq2attn.inference.decoding_options import require_prefixes
from seq2attn.inference.engines.engine import Engine, Request
from seq2attn.inference.engines.ranking import Found, exactly_ranked, search_with
from seq2attn.inference.forced import ForcedDecoding, head_name, numbered, of_head
from seq2attn.inference.search import WORD_START, Hypothesis, Rules, Watch, greedy, sample, sample_seeds
from seq2attn.models.decoders.base import Decoder
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.recipe import DecodingRecipe
from seq2attn.runtime.devices import autocast, explain_out_of_memory, require_float32
from seq2attn.text.words import word_starts

Method = Literal["attention", "norms"]  # how alignments are made of attention


class AlignmentHead(NamedTuple):
    """The cross-attention layer and head that alignments are taken from, and how.

    If the layer is None and the model has a shift head or a pointer generator, they are those of the first
    that it has.
    """

    layer: int | None = None  # from 0, -1 = the last; None: the second to last (Garg et al. 2019)
    head: int | None = None  # from 0, -1 = the last; None: the mean of all
    # 0: weights belong to the token that their step predicts, 1: that it has read; None: as the decoder says
    shift: int | None = None
    method: Method = "attention"  # attention: weights; norms: those of weighted vectors (attention_norms)

    def shift_of(self, decoder: Decoder) -> int:
        """Return the shift: unless it is given, the decoder's, or 1 for a shift head."""
        if self.shift is not None:
            return self.shift
        return 1 if decoder.is_shift_head(self.layer) else decoder.alignment_shift


DEFAULT_HEAD = AlignmentHead()


C = TypeVar("C", bound=Collator)


class Generator(Generic[C]):
    """A model on a device, with the tokenizer of its sources and targets. It searches for targets
    and scores given ones, in batches.

    No result of a sentence depends on the other sentences of its batch in fp32; in bf16 and fp16, batches of
    another size are rounded otherwise, and a few results differ. Sources are what the tokenizer takes: ids
    without special tokens, or pixels. Targets are ids without special tokens.

    engine: searches in the place of torch, where it can; None: torch searches. Log-probabilities and weights
        are torch's in either case.
    """

    def __init__(
        self,
        model: Seq2Seq,
        tokenizer: C,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        engine: Engine | None = None,
    ) -> None:
        self.device, self.precision, self.engine = torch.device(device), precision, engine
        autocast(self.device, precision)  # raises now if the device does not support the precision
        self.model, self.tokenizer = model.to(self.device), tokenizer

    def _explaining_memory(self, batch_tokens: int) -> AbstractContextManager[None]:
        advice = f"lower decoding.batch_tokens (now {batch_tokens}), or give {self.tokenizer.smaller}"
        return explain_out_of_memory(f"out of memory: {advice}")

    def rules(self, decoding: DecodingRecipe) -> Rules:
        """Return the rules of a search: the constraints on targets, and their ranking."""
        target = self.tokenizer.target
        return Rules(
            target.bos,
            target.eos,
            (target.pad, target.bos),
            decoding.min_length,
            decoding.no_repeat_ngram,
            decoding.length_normalization,
            decoding.length_penalty,
            decoding.coverage_penalty,
            self.model.decoder.coverage,
            decoding.renormalize,
            decoding.search_end == "estimated",
        )

    def with_engine(self, engine: Engine | None) -> "Generator[C]":
        """Return a generator with the same model, and an engine that searches."""
        return Generator(self.model, self.tokenizer, self.device, self.precision, engine)

    def search(
        self,
        sources: Sequence[Any],
        decoding: DecodingRecipe,
        prefixes: Sequence[Row] = (),
        indices: Sequence[int] = (),
    ) -> list[list[Hypothesis]]:
        """Return the n-best list of each source, in the order of the sources, best hypothesis first.

        prefixes: the ids that each target must begin with; after them may be WORD_START;
        indices: the positions of the sentences in the input, which seed their samples; from 0 if not given.
        """
        found = self.decode(sources, decoding, prefixes, indices, None)
        return [[hypothesis for hypothesis, _ in nbest] for nbest in found]

    def decode(
        self,
        sources: Sequence[Any],
        decoding: DecodingRecipe,
        prefixes: Sequence[Row] = (),
        indices: Sequence[int] = (),
        head: AlignmentHead | None = DEFAULT_HEAD,
        exact: bool = True,
        watch: Watch | None = None,
    ) -> list[list[Found]]:
        """Return the n-best list of each source as `search`, with the forced decoding of each hypothesis.

        head: the layer and head of the weights; None skips forced decoding;
        exact: False leaves the log-probabilities of an engine as they are, if there is no head. Then the
            order is still that of exact ones, but for engines without `rounding`;
        watch: is told what is decided of the best hypothesis of each source that torch searches for.
        """
        prefixes, indices = prefixes or [[]] * len(sources), indices or range(len(sources))
        self._require_readable(prefixes, indices, "prefix")
        require_prefixes(prefixes, decoding, [f"sentence {index + 1:,}" for index in indices])
        by_engine = dict[int, list[Hypothesis]]()
        if self.engine is not None:
            requests = self.requests(sources, decoding, prefixes)
            batches = self.tokenizer.plan(sources, max(1, decoding.batch_tokens // decoding.beam))
            by_engine = search_with(self.engine, requests, batches, decoding, self.rules(decoding))
        rest = [row for row in range(len(sources)) if row not in by_engine]
        hypotheses = by_engine | self._by_torch(sources, decoding, prefixes, indices, rest, watch)
        nbest_lists = [hypotheses[row] for row in range(len(sources))]
        forcing: Iterable[int] = range(len(sources))
        if head is None:
            ranking = self.engine is not None and self.engine.rounding > 0
            forcing = [row for row, found in by_engine.items() if exact or (ranking and len(found) > 1)]
        pairs = [(row, place) for row in forcing for place in range(len(nbest_lists[row]))]
        chosen = [sources[row] for row, _ in pairs]
        targets = [nbest_lists[row][place].tokens for row, place in pairs]
        forced = self.forced_decoding(chosen, targets, decoding.batch_tokens, head) if pairs else []
        by_pair, rules = dict(zip(pairs, forced, strict=True)), self.rules(decoding)
        results: list[list[Found]] = []
        for row, nbest in enumerate(nbest_lists):
            found = [Found(one, by_pair.get((row, place))) for place, one in enumerate(nbest)]
            results.append((exactly_ranked(found, rules) if row in by_engine else found)[: decoding.nbest])
        return results

    def traced(
        self, source: Any, decoding: DecodingRecipe, prefix: Row = ()
    ) -> tuple[list[Hypothesis], list[BeamStep]]:
        """Return the n-best list of one source as `search`, by torch, and the steps of a beam search."""
        self._require_readable([prefix], [0], "prefix")
        trace: list[BeamStep] = []
        with self._explaining_memory(decoding.batch_tokens):
            (nbest,) = self._search([source], decoding, [prefix], [0], trace)
        return nbest, trace

    def requests(
        self, sources: Sequence[Any], decoding: DecodingRecipe, prefixes: Sequence[Row] = ()
    ) -> list[Request]:
        """Return what an engine is asked for, for each source."""
        prefixes = prefixes or [[]] * len(sources)
        limits = self._output_limits(sources, decoding, prefixes)
        return [Request(*parts) for parts in zip(sources, prefixes, limits, strict=True)]

    def _by_torch(
        self,
        sources: Sequence[Any],
        decoding: DecodingRecipe,
        prefixes: Sequence[Row],
        indices: Sequence[int],
        chosen: Sequence[int],
        watch: Watch | None,
    ) -> dict[int, list[Hypothesis]]:
        """Return the n-best lists of the chosen rows of the sources, by row."""
        width = decoding.nbest if decoding.sample else decoding.beam
        found = dict[int, list[Hypothesis]]()
        plan = self.tokenizer.plan([sources[row] for row in chosen], max(1, decoding.batch_tokens // width))
        for batch in plan:
            rows = [chosen[index] for index in batch.tolist()]
            with self._explaining_memory(decoding.batch_tokens):
                batch_lists = self._search(
                    [sources[row] for row in rows],
                    decoding,
                    [prefixes[row] for row in rows],
                    [indices[row] for row in rows],
                    watch=None if watch is None else of_rows(watch, rows),
                )
            found |= dict(zip(rows, batch_lists, strict=True))
        return found

    @torch.no_grad()
    def forced_decoding(
        self,
        sources: Sequence[Any],
        targets: Sequence[Row],
        batch_tokens: int,
        head: AlignmentHead | None = DEFAULT_HEAD,
        others: Sequence[AlignmentHead] = (),
    ) -> list[ForcedDecoding]:
        """Score given targets, all tokens at once, and return the exact attention weights of a head.

        targets: may contain ids of copied pieces (`PairTokenizer.copied`);
        head: the layer and head of the weights; None returns no weights, which is faster;
        others: further heads, of the same pass.
        """
        self._require_readable(targets, range(len(targets)), "target")
        self.model.eval()
        require_float32(self.model)
        results = [ForcedDecoding(0.0, None)] * len(sources)
        T = np.array([len(target) for target in targets], dtype=np.int32)
        for indices in self.tokenizer.plan(sources, batch_tokens, T):
            rows = indices.tolist()
            with self._explaining_memory(batch_tokens):
                pairs = [PairIds(sources[row], targets[row]) for row in rows]
                heads = [] if head is None else [head, *others]
                for row, result in zip(rows, self._forced_batch(pairs, heads), strict=True):
                    results[row] = result
        return results

    def _forced_batch(self, pairs: list[PairIds], heads: Sequence[AlignmentHead]) -> list[ForcedDecoding]:
        """Return the results of pairs that are computed together."""
        decoder = self.model.decoder
        pointer_generator = decoder.pointer_generator
        chosen = [self.alignment_head(head) for head in heads]
        layers = sorted({layer for layer, _ in chosen})
        norms = {layer for head, (layer, _) in zip(heads, chosen, strict=True) if head.method == "norms"}
        copying = [] if pointer_generator is None or not heads else [pointer_generator.layer]
        batch = collate(self.tokenizer, pairs).to(self.device)
        with recorded_vectors(decoder, norms) as vectors, autocast(self.device, self.precision):
            decoded = self.model(batch.source, batch.target_input, [*layers, *copying])
        log_p = decoded.logits.float().log_softmax(-1)  # (B, T, V)
        target_log_p = log_p.gather(-1, batch.target[..., None]).squeeze(-1)  # (B, T)
        totals, of_tokens = (target_log_p * batch.target_mask).sum(1).tolist(), target_log_p.cpu()
        weights, attention = list[Tensor](), ""
        for head, (layer, number) in zip(heads, chosen, strict=True):
            if decoded.weights is None:
                break
            of_layer = decoded.weights[:, layers.index(layer)]  # (B, H, T, S)
            weighted = vectors[layer] if head.method == "norms" else None
            weights.append(of_head(of_layer, number, weighted).cpu())
            name = head_name(layer, decoder.attention_layers, number, of_layer.shape[1])
            attention = attention or name + ", norms" * (head.method == "norms")
        copied = None
        if pointer_generator is not None and copying and batch.source.copy_ids is not None:
            copied = pointer_generator.copied(
                decoded.gate, decoded.weights[:, -1], batch.source.copy_ids, batch.target, target_log_p
            ).cpu()  # (B, T)
        positions, results = batch.source.mask.cpu(), []
        for row, pair in enumerate(pairs):
            steps = len(pair.target) + 1
            own_weights = [matrix[row, :steps][:, positions[row]] for matrix in weights]
            own_copied = None if copied is None else copied[row, :steps].clone()
            first, others = own_weights[0] if own_weights else None, tuple(own_weights[1:])
            own_tokens = of_tokens[row, :steps].clone()
            results.append(ForcedDecoding(totals[row], first, own_copied, attention, others, own_tokens))
        return results

    def alignment_head(self, head: AlignmentHead) -> tuple[int, int | None]:
        """Return the index of the layer, from 0, and the head (None: the mean of all).

        Seq2attnError if the model has no such layer, or no attention.
        """
        decoder = self.model.decoder
        count, pointer_generator = decoder.attention_layers, decoder.pointer_generator
        if not count:
            raise Seq2attnError("this model's decoder has no attention to the source: it cannot be aligned")
        if decoder.is_shift_head(head.layer):
            return count - 1, head.head
        if head.layer is None:
            if pointer_generator is None:
                return max(0, count - 2), head.head
            return pointer_generator.layer, pointer_generator.head if head.head is None else head.head
        if not -count <= head.layer < count:
            raise Seq2attnError(f"the model has {numbered(count, 'attention layer')}; got layer {head.layer}")
        return head.layer % count, head.head

    def _output_limits(
        self, sources: Sequence[Any], decoding: DecodingRecipe, prefixes: Sequence[Row]
    ) -> list[int]:
        """Return the largest number of pieces of the target of each source: by the settings, but at least its
        prefix and one more, and at most what the decoder can read."""
        lengths = self.tokenizer.lengths(sources).astype(np.int64) + 1
        limits: list[int] = decoding.limits(lengths).tolist()
        for row, prefix in enumerate(prefixes):
            limits[row] = max(limits[row], len(prefix) + 1) if len(prefix) else limits[row]
        readable = self.model.decoder.max_length
        if readable is None:
            return limits
        if decoding.min_length >= readable:
            raise Seq2attnError(
                f"min_length is {decoding.min_length}, and the decoder has positions for {readable - 1:,} "
                "pieces: lower it"
            )
        return [min(limit, readable - 1) for limit in limits]  # the decoder reads <s>, too

    def _require_readable(self, targets: Sequence[Row], indices: Sequence[int], name: str) -> None:
        """Raise Seq2attnError for given targets, of sentences with these indices, that have no position."""
        readable = self.model.decoder.max_length
        for index, target in zip(indices, targets, strict=True):
            if readable is not None and len(target) >= readable:  # the decoder reads <s>, too
                raise Seq2attnError(
                    f"the {name} of sentence {index + 1:,} has {len(target):,} pieces, and the decoder has "
                    f"positions for {readable - 1:,}: give a shorter one"
                )

    @torch.no_grad()
    def _search(
        self,
        sources: list[Any],
        decoding: DecodingRecipe,
        prefixes: list[Row],
        indices: list[int],
        trace: list[BeamStep] | None = None,
        watch: Watch | None = None,
    ) -> list[list[Hypothesis]]:
        self.model.eval()
        require_float32(self.model)
        rules, source = self.rules(decoding), self.tokenizer.collate(sources)
        limits = torch.tensor(self._output_limits(sources, decoding, prefixes), device=self.device)  # (B,)
        forced = None
        if any(len(prefix) for prefix in prefixes):
            ids, mask = pad(prefixes, -1)
            forced = ids.masked_fill(~mask, -1).to(self.device)  # (B, P)
            if (forced == WORD_START).any():
                rules = replace(rules, word_starts=self._word_starts())
        with autocast(self.device, self.precision):
            state = self.model.start(source.to(self.device))
            if decoding.coverage_penalty:
                state = self._track_coverage(state)
            if decoding.sample:
                return self._sample(state, rules, limits, decoding, indices, forced, watch)
            if decoding.beam == 1:
                return [[best] for best in greedy(self._step, state, rules, limits, forced, watch)]
            options = forced, decoding.nbest, trace, watch
            return beam_search(self._step, state, rules, limits, decoding.beam, *options)

    def _word_starts(self) -> Tensor:
        """Return which tokens (V,) begin a word, or end the text."""
        target = self.tokenizer.target
        return torch.tensor(word_starts(target.names, target.eos), device=self.device)

    def _track_coverage(self, state: Any) -> Any:
        if not self.model.decoder.attention_layers:
            raise Seq2attnError(
                "this model's decoder has no attention to the source, so it has no coverage to penalize: set "
                "coverage_penalty to 0"
            )
        return self.model.decoder.track_coverage(state)

    def _step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Run a step of the model. The decoder reads copied pieces outside its vocabulary as <unk>."""
        target = self.tokenizer.target
        return self.model.step(token.masked_fill(token >= target.size, target.unk), state)

    def _sample(
        self,
        state: Any,
        rules: Rules,
        limits: Tensor,
        decoding: DecodingRecipe,
        indices: list[int],
        forced: Tensor | None,
        watch: Watch | None,
    ) -> list[list[Hypothesis]]:
        """Return `nbest` samples of each sentence, best first. Each sample has its own seed."""
        count = decoding.nbest
        rows = torch.arange(len(indices), device=self.device).repeat_interleave(count)
        samples = sample(
            self._step,
            reorder(state, rows),
            rules,
            limits[rows],
            sample_seeds(decoding.seed, indices, count),
            decoding.temperature,
            decoding.top_k,
            decoding.top_p,
            None if forced is None else forced[rows],
            watch if count == 1 else None,
        )
        groups = [samples[start : start + count] for start in range(0, len(samples), count)]
        return [sorted(group, key=lambda hypothesis: -hypothesis.score) for group in groups]
