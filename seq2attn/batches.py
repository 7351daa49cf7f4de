"""The batch plan, global and pure: the same (seed, epoch, lengths, world) give the same batches anywhere.

A plan is a list of batches, a batch a list of example numbers. Every process makes the whole plan and takes
its own share of it, so that no two need to agree on anything, and training resumes from a number.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.errors import Seq2attnError
from seq2attn.recipe import SamplingRecipe
from seq2attn.text import Vocabulary

Row = Sequence[int] | NDArray[np.int32]
Numbers = NDArray[np.int64]

# Batches are cut from stretches of this many examples sorted by length: long enough that a batch holds
# sentences of one length, short enough that a batch is not the same one in every epoch.
STRETCH = 50_000


class Batch(NamedTuple):
    """Padded on the right. The decoder reads `reads` and is to predict `gold`."""

    source: Tensor  # (B, S), ends with the end-of-sentence
    source_mask: Tensor  # (B, S), bool, True = a token
    reads: Tensor  # (B, T), begins with the begin-of-sentence
    gold: Tensor  # (B, T), ends with the end-of-sentence
    gold_mask: Tensor  # (B, T), bool
    links: Tensor | None = (
        None  # (B, T, S), bool, a gold alignment: which slots the gold token of a step means
    )

    def to(self, device: torch.device) -> "Batch":
        """On a device."""
        links = None if self.links is None else self.links.to(device, non_blocking=True)
        return Batch(*(part.to(device, non_blocking=True) for part in self[:5]))._replace(links=links)


def plan(
    source_lengths: NDArray[np.int32],
    target_lengths: NDArray[np.int32],
    examples: Numbers,
    batch_tokens: int,
    seed: Sequence[int],
) -> list[Numbers]:
    """Batches of examples of about one length, in random order, for one epoch.

    Lengths are without special tokens. A batch holds at most `batch_tokens` tokens on its longer side,
    padding and one special token included; an example longer than that makes a batch of its own.
    seed: what the order depends on, for example (recipe's seed, epoch).
    """
    generator = np.random.default_rng(list(seed))
    order = generator.permutation(examples)
    batches: list[Numbers] = []
    for begin in range(0, len(order), STRETCH):
        stretch = order[begin : begin + STRETCH]
        order_within = by_length(source_lengths[stretch], target_lengths[stretch])
        batches += fill(stretch[order_within], source_lengths, target_lengths, batch_tokens)
    return [batches[number] for number in generator.permutation(len(batches))]


def by_length(source_lengths: NDArray[np.int32], target_lengths: NDArray[np.int32]) -> Numbers:
    """The order in which neighbours need least padding: by the longer side, then by the target's length."""
    keys = source_lengths, target_lengths, np.maximum(source_lengths, target_lengths)
    return np.lexsort(keys).astype(np.int64)


def fill(
    order: Numbers, source_lengths: NDArray[np.int32], target_lengths: NDArray[np.int32], batch_tokens: int
) -> list[Numbers]:
    """Cut an order of examples into batches of at most `batch_tokens` tokens on the longer side."""
    longest = np.maximum(source_lengths[order], target_lengths[order]).astype(np.int64) + 1
    batches, begin, width = [], 0, 0
    for end, length in enumerate(longest.tolist()):
        width = max(width, length)
        if end > begin and width * (end - begin + 1) > batch_tokens:
            batches.append(order[begin:end])
            begin, width = end, length
    if len(order):
        batches.append(order[begin:])
    return batches


def pad(rows: Sequence[Row], value: int) -> tuple[Tensor, Tensor]:
    """Rows of ids -> (B, longest) ids padded on the right, and the mask that is True on ids."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(max(lengths.max(initial=0), 1)) < lengths[:, None]
    padded = np.full(mask.shape, value, dtype=np.int64)
    if lengths.sum():
        padded[mask] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return torch.from_numpy(padded), torch.from_numpy(mask)


class Corpus(Protocol):
    """What a feed needs of tokenised examples (`data.Examples`)."""

    source_lengths: NDArray[np.int32]
    target_lengths: NDArray[np.int32]

    def source(self, number: int) -> NDArray[np.int32]:
        """Ids of a source sentence."""

    def target(self, number: int) -> NDArray[np.int32]:
        """Ids of a target sentence."""

    def source_text(self, number: int) -> str:
        """A source sentence."""

    def target_text(self, number: int) -> str:
        """A target sentence."""

    def epoch(self, epoch: int, seed: int) -> Numbers:
        """The examples of an epoch, in any order."""


@runtime_checkable
class Aligned(Protocol):
    """What a corpus may know besides: gold alignments."""

    aligned: bool  # whether it does

    def links(self, number: int) -> NDArray[np.int32]:
        """(n, 2), which source id which target id means, by their places in the sentences."""


class Feed:
    """Examples as batches: whole epochs in random order for training, or once through by length.

    Where the examples are `Aligned`, batches have links; then pieces cannot be sampled (Seq2attnError).
    """

    def __init__(
        self,
        examples: Corpus,
        source: Vocabulary,
        target: Vocabulary,
        batch_tokens: int,
        seed: int = 1,
        sampling: SamplingRecipe | None = None,
    ) -> None:
        self.examples, self.source, self.target = examples, source, target
        self.batch_tokens, self.seed, self.sampling = batch_tokens, seed, sampling
        self.aligned = examples if isinstance(examples, Aligned) and examples.aligned else None
        if self.aligned is not None and sampling is not None:
            raise Seq2attnError(
                "text.sampling cuts words anew, and the alignments are between pieces that stay as they are: "
                "use examples without alignments, or no sampling"
            )

    def epoch(self, epoch: int) -> list[Numbers]:
        """The batches of an epoch: a pure function of the examples, the seed and the epoch."""
        lengths = self.examples.source_lengths, self.examples.target_lengths
        return plan(*lengths, self.examples.epoch(epoch, self.seed), self.batch_tokens, (self.seed, epoch))

    def once(self) -> list[Numbers]:
        """Batches that hold every example once, by length."""
        lengths = self.examples.source_lengths, self.examples.target_lengths
        return fill(by_length(*lengths), *lengths, self.batch_tokens)

    def batch(self, numbers: Numbers, epoch: int | None = None) -> Batch:
        """The sentences with these numbers. In an epoch of training their pieces may be sampled anew, by
        (seed, epoch, first number), so that resuming sees the same."""
        rows = numbers.tolist()
        if self.sampling is None or epoch is None:
            sources = [self.examples.source(row) for row in rows]
            targets = [self.examples.target(row) for row in rows]
        else:
            seed = int(np.random.SeedSequence([self.seed, epoch, rows[0]]).generate_state(1)[0])
            options = seed, self.sampling.nbest, self.sampling.alpha
            sources = _arrays(self.source.sample([self.examples.source_text(row) for row in rows], *options))
            targets = _arrays(self.target.sample([self.examples.target_text(row) for row in rows], *options))
        made = batch(sources, targets, self.source, self.target)
        if self.aligned is None:
            return made
        links = torch.zeros(*made.gold.shape, made.source.shape[1], dtype=torch.bool)
        for place, row in enumerate(rows):
            known = torch.from_numpy(self.aligned.links(row).astype(np.int64))
            links[place, known[:, 1], known[:, 0]] = True
        return made._replace(links=links)


def batch(sources: Sequence[Row], targets: Sequence[Row], source: Vocabulary, target: Vocabulary) -> Batch:
    """Ids without special tokens, padded and with them."""
    source_ids, source_mask = pad([np.append(row, source.eos) for row in sources], source.pad)
    reads, _ = pad([np.insert(row, 0, target.bos) for row in targets], target.pad)
    gold, gold_mask = pad([np.append(row, target.eos) for row in targets], target.pad)
    return Batch(source_ids, source_mask, reads, gold, gold_mask)


def _arrays(rows: Sequence[Sequence[int]]) -> list[NDArray[np.int32]]:
    return [np.array(row, dtype=np.int32) for row in rows]
