"""Batches of source and target sentences, and what training needs of any batch."""

from collections.abc import Sequence
from functools import partial
from math import inf
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from seq2attn.data.batch_plan import Aligned, Batches, Corpus, Indices
from seq2attn.data.sources import AnySource, Collator, PairTokenizer, Row, pad
from seq2attn.errors import Seq2attnError
from seq2attn.recipe import SamplingRecipe


class AnyBatch(Protocol):
    """What training needs of a batch, whatever the task."""

    @property
    def num_targets(self) -> int:
        """The number of predictions that the loss is the mean of: tokens, words, sentences."""

    @property
    def shape(self) -> str:
        """The batch's shape in words, for out-of-memory messages."""

    def to(self, device: torch.device) -> "AnyBatch":
        """Move to a device."""


class AnyBatchLoader(Protocol):
    """What training needs of a batch loader."""

    def epoch(self, epoch: int) -> Sequence[Indices]:
        """Return the batches of an epoch, as indices of examples."""

    def epoch_size(self, epoch: int) -> int:
        """Return the number of batches of an epoch, which may differ between epochs."""

    def evaluation_batches(self) -> list[Indices]:
        """Return batches that hold every example once, by length."""

    def batch(self, indices: Indices, epoch: int | None = None) -> AnyBatch:
        """Return the examples with these indices; in an epoch of training they may be changed at random."""


class Batch(NamedTuple):
    """Pairs of sources and target texts, padded on the right, for teacher forcing."""

    source: AnySource
    target_input: Tensor  # (B, T), begins with <s>
    target: Tensor  # (B, T), ends with </s>, unless the target was truncated there
    target_mask: Tensor  # (B, T), bool, True = a token
    links: Tensor | None = None  # (B, T, S), bool, a gold alignment of target tokens and source positions

    @property
    def num_targets(self) -> int:
        """The number of target tokens, </s> included."""
        return int(self.target_mask.sum())

    @property
    def shape(self) -> str:
        """The batch's shape in words, for out-of-memory messages."""
        return f"source by target {self.source.shape} by {tuple(self.target_input.shape)}"

    def to(self, device: torch.device) -> "Batch":
        """Move to a device."""
        target_input, target, target_mask = (
            part.to(device, non_blocking=True) for part in (self.target_input, self.target, self.target_mask)
        )
        links = None if self.links is None else self.links.to(device, non_blocking=True)
        return Batch(self.source.to(device), target_input, target, target_mask, links)


class PairIds(NamedTuple):
    """One example: a source, and the ids of its target, without special tokens."""

    source: Any  # SourceIds, or pixels
    target: Row
    ended: bool = True  # truncated targets get no </s>: the model would learn to stop mid-sentence


class BatchLoader(Batches):
    """Loads pairs of sentences as batches of their pieces.

    Where the examples are `Aligned`, batches have links; then pieces cannot be sampled (Seq2attnError).

    max_lengths: the most pieces of a source and of a target that the model can read. A sampled segmentation
        may have more; then the pair keeps its usual one.
    """

    def __init__(
        self,
        examples: Corpus,
        tokenizer: PairTokenizer,
        batch_tokens: int,
        seed: int = 1,
        sampling: SamplingRecipe | None = None,
        max_lengths: tuple[float, float] = (inf, inf),
    ) -> None:
        super().__init__(examples, batch_tokens, seed)
        self.tokenizer, self.sampling, self.max_lengths = tokenizer, sampling, max_lengths
        self.aligned = examples if isinstance(examples, Aligned) and examples.aligned else None
        if self.aligned is not None and sampling is not None:
            raise Seq2attnError(
                "text.sampling splits words anew in each epoch, but alignments need constant pieces: "
                "use examples without alignments, or no sampling"
            )

    def batch(self, indices: Indices, epoch: int | None = None) -> Batch:
        """Return the pairs with these indices. In an epoch of training their pieces may be sampled anew, by
        (seed, epoch, first index), so that resuming sees the same."""
        rows = indices.tolist()
        sampled: list[tuple[list[int], list[int]] | None] = [None] * len(rows)
        if self.sampling is not None and epoch is not None:
            seed = int(np.random.SeedSequence([self.seed, epoch, rows[0]]).generate_state(1)[0])
            options = seed, self.sampling.nbest, self.sampling.alpha
            sources = self.tokenizer.source.sample([self.examples.source_text(row) for row in rows], *options)
            targets = self.tokenizer.target.sample([self.examples.target_text(row) for row in rows], *options)
            sampled = [pair if self._readable(pair) else None for pair in zip(sources, targets, strict=True)]
        pairs = [self._pair(row, ids) for row, ids in zip(rows, sampled, strict=True)]
        batch = collate(self.tokenizer, pairs)
        if self.aligned is None:
            return batch
        links = torch.zeros(*batch.target.shape, batch.source.mask.shape[1], dtype=torch.bool, device="cpu")
        for number, row in enumerate(rows):
            linked = torch.from_numpy(self.aligned.links(row).astype(np.int64))  # (n, 2)
            links[number, linked[:, 1], linked[:, 0]] = True
        return batch._replace(links=links)

    def _readable(self, sampled: tuple[list[int], list[int]]) -> bool:
        cut = self.tokenizer.truncate.cut
        return all(
            len(cut(side, ids)) <= limit
            for side, (ids, limit) in enumerate(zip(sampled, self.max_lengths, strict=True))
        )

    def _pair(self, row: int, sampled: tuple[list[int], list[int]] | None) -> PairIds:
        """Return an example as the store has it, or as its pieces were sampled."""
        examples, truncate = self.examples, self.tokenizer.truncate
        texts = partial(examples.source_text, row), partial(examples.target_text, row)
        if sampled is None:
            ids, target = examples.source(row), examples.target(row)
            ended = truncate.target is None or examples.ended(row)
            source = self.tokenizer.source_ids(ids, texts[0])
            return PairIds(source, self.tokenizer.target_ids(target, texts[1], source), ended)
        whole_source, whole_target = sampled
        ids, target = (np.array(truncate.cut(side, row), dtype=np.int32) for side, row in enumerate(sampled))
        source = self.tokenizer.source_ids(ids, texts[0], whole_source)
        target_ids = self.tokenizer.target_ids(target, texts[1], source, whole_target)
        return PairIds(source, target_ids, truncate.ends(whole_target))


def collate(collator: Collator, pairs: Sequence[PairIds]) -> Batch:
    """Pad pairs to a batch and add their special tokens.

    A target id that stands for a copied piece (from the vocabulary's size on) is <unk> in `target_input`.
    Truncated targets have no </s> (as in See et al. 2017).
    """
    vocabulary = collator.target
    ended = [np.append(pair.target, vocabulary.eos) if pair.ended else pair.target for pair in pairs]
    target, target_mask = pad(ended, vocabulary.pad)
    before = target[:, :-1].masked_fill(~target_mask[:, 1:], vocabulary.pad)
    target_input = torch.cat([torch.full_like(target[:, :1], vocabulary.bos), before], 1)
    target_input = target_input.masked_fill(target_input >= vocabulary.size, vocabulary.unk)
    return Batch(collator.collate([pair.source for pair in pairs]), target_input, target, target_mask)
