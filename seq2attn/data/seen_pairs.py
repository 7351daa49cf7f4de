"""Which pairs have occurred before, in 8 bytes a pair."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

FIRST = 1 << 16  # keys of the smallest block


def keys_of(sources: Sequence[str], targets: Sequence[str]) -> Keys:
    """Return 64 bits of the BLAKE2 hash of each pair of texts.

    Of n different pairs, two have the same key with a probability of about n² / 2⁶⁵: 4e-5 of 36 million.
    """
    digests = [
        # with the size of the source: texts may have line feeds
        hashlib.blake2b(f"{len(source)} {source}{target}".encode(), digest_size=8).digest()
        for source, target in zip(sources, targets, strict=True)
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


class SeenPairs:
    """A set of keys, in sorted blocks.

    A block is merged with the one before it as soon as it is at least half as large, so that there are about
    log2(n / FIRST) blocks, and each key is moved as often. Merging takes as much memory again.
    """

    def __init__(self) -> None:
        self._blocks: list[Keys] = []

    def add(self, keys: Keys) -> NDArray[np.bool_]:
        """Add keys; return for each whether it is new, which of equal ones only the first is."""
        found, first = np.unique(keys, return_index=True)
        new = np.ones(len(found), dtype=bool)
        for block in self._blocks:
            positions = np.searchsorted(block, found)
            positions[positions == len(block)] = 0
            new &= block[positions] != found
        is_new = np.zeros(len(keys), dtype=bool)
        is_new[first[new]] = True
        if new.any():
            self._append(found[new])
        return is_new

    def _append(self, keys: Keys) -> None:
        while self._blocks and (len(self._blocks[-1]) < FIRST or len(self._blocks[-1]) <= 2 * len(keys)):
            keys = np.concatenate([self._blocks.pop(), keys])
            keys.sort(kind="stable")  # merges two sorted runs
        self._blocks.append(keys)
