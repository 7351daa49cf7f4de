"""Translation probabilities of words, t(target | source), as statistical aligners learn them.

Only words that occur together in some pair have a probability: a sorted table of their keys is made once, and
its size bounds the memory. Numbers are float64: expected counts of frequent words sum millions of tiny terms,
and float32 loses those below 1e-7 of the sum.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

NULL = 0  # the id of the empty source word, which target words without a counterpart are aligned to
UNKNOWN = 1 << 31  # the id of words that were not learnt; its keys are in no table
BATCH_CELLS = 1 << 20  # cells (pairs x target x source positions) that are computed at once


class PairBatch(NamedTuple):
    """Pairs with the same number of source words, so that all have the same positions to align to."""

    rows: list[int]  # the numbers of the pairs
    source: Ids  # (B, I)
    target: Ids  # (B, J), -1 beyond the end of a target

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(B, J), True for words."""
        return self.target >= 0


class Numbering:
    """Numbers words from 1; 0 is NULL."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def learn(self, words: Sequence[str]) -> Ids:
        """Return the ids of words; new words get new ones."""
        numbers = self.numbers
        return np.array([numbers.setdefault(word, len(numbers) + 1) for word in words], dtype=np.int64)

    def encode(self, words: Sequence[str]) -> Ids:
        """Return the ids of words, UNKNOWN for those that were not learnt."""
        return np.array([self.numbers.get(word, UNKNOWN) for word in words], dtype=np.int64)


def batches(sources: Sequence[Ids], targets: Sequence[Ids], cells: int = BATCH_CELLS) -> Iterator[PairBatch]:
    """Yield all pairs without an empty side, those of similar lengths together."""
    order = sorted(
        (row for row in range(len(sources)) if len(sources[row]) and len(targets[row])),
        key=lambda row: (len(sources[row]), len(targets[row])),
    )
    start = 0
    while start < len(order):
        length = len(sources[order[start]])
        end = start + 1
        while (
            end < len(order)
            and len(sources[order[end]]) == length
            and (end + 1 - start) * (length + 1) * len(targets[order[end]]) <= cells
        ):
            end += 1
        rows = order[start:end]
        target = np.full((len(rows), max(len(targets[row]) for row in rows)), -1, dtype=np.int64)
        for line, row in enumerate(rows):
            target[line, : len(targets[row])] = targets[row]
        yield PairBatch(rows, np.stack([sources[row] for row in rows]), target)
        start = end


class Lexicon:
    """A table t(target | source) of the words that occur together, NULL with every target word.

    prior: the parameter of a symmetric Dirichlet prior over the targets of a source word; variational Bayes
        then keeps rare source words from explaining everything (Riley & Gildea 2012). 0: maximum likelihood.
    """

    def __init__(self, keys: Ids, num_targets: int, prior: float = 0.0) -> None:
        self.keys, self.num_targets, self.prior = keys, num_targets, prior
        self.sources = keys // num_targets
        self.counts: Floats = np.ones(len(keys))
        self.update()  # uniform

    @classmethod
    def of(cls, pairs: Iterable[PairBatch], num_targets: int, prior: float = 0.0) -> "Lexicon":
        """Return a table with uniform probabilities of the words of these pairs. num_targets: the number of
        target words, and one for NULL."""
        keys, parts, size = np.zeros(0, dtype=np.int64), list[Ids](), 0
        for batch in pairs:
            parts.append(np.unique(_keys(batch, num_targets)))
            size += len(parts[-1])
            if size > max(len(keys), 1 << 22):  # merge rarely, and never hold much more than the table
                keys, parts, size = np.unique(np.concatenate([keys, *parts])), [], 0
        keys = np.unique(np.concatenate([keys, *parts]))
        return cls(keys[keys >= 0], num_targets, prior)

    def look_up(self, batch: PairBatch) -> tuple[Floats, Ids]:
        """Return t (B, J, I + 1) of each target word given NULL and each source word, 0 for words that never
        occurred together; and the places of these in the table, that of the last entry for the others."""
        keys = _keys(batch, self.num_targets)
        distinct, inverse = np.unique(keys, return_inverse=True)
        places = np.minimum(np.searchsorted(self.keys, distinct), len(self.keys) - 1)
        found = self.probabilities[places] * (self.keys[places] == distinct)
        inverse = inverse.reshape(keys.shape)
        return found[inverse], places[inverse]

    def count(self, places: Ids, posteriors: Floats) -> None:
        """Add expected counts at places of the table."""
        self.counts += np.bincount(places.ravel(), posteriors.ravel(), len(self.counts))

    def update(self) -> None:
        """Make new probabilities of the expected counts, and set these to 0."""
        totals = np.bincount(self.sources, self.counts)  # of each source word
        if self.prior:
            kinds = np.bincount(self.sources)
            numerators = _exp_digamma(self.counts + self.prior)
            self.probabilities = numerators / _exp_digamma(totals + self.prior * kinds)[self.sources]
        else:
            self.probabilities = self.counts / np.maximum(totals[self.sources], 1e-300)
        self.counts = np.zeros_like(self.counts)


def _keys(batch: PairBatch, num_targets: int) -> Ids:
    """Return a key (B, J, I + 1) of each target word with NULL and each source word; -1, which no table has,
    beyond its end and for unknown words."""
    source = np.pad(batch.source, ((0, 0), (1, 0)), constant_values=NULL)
    keys = source[:, None, :] * num_targets + batch.target[:, :, None]
    known = batch.mask & (batch.target != UNKNOWN)
    return np.where(known[:, :, None], keys, -1)


def _exp_digamma(x: Floats) -> Floats:
    return torch.from_numpy(x).digamma_().exp_().numpy()
