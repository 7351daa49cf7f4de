"""Examples by number, read from memory-mapped Arrow chunks; and which of them an epoch sees."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2attn.data.cache import Stored
from seq2attn.data.report import DataError, Report
from seq2attn.errors import NotDefinedError

Indices = NDArray[np.int64]
Ids = NDArray[np.int32]


class Part(NamedTuple):
    """One corpus, and its passes in an epoch."""

    stored: Stored
    weight: float


class ExampleSet:
    """Examples by number, from 0; of several corpora, one after the other. What they are, subclasses know."""

    def __init__(self, parts: Sequence[Part]) -> None:
        chunks = [chunk for part in parts for chunk in part.stored.chunks]
        self._starts = np.cumsum([0, *(chunk.num_rows for chunk in chunks)])
        self._sizes = [sum(chunk.num_rows for chunk in part.stored.chunks) for part in parts]
        self._weights = [part.weight for part in parts]
        for corpus, (size, weight) in enumerate(zip(self._sizes, self._weights, strict=True)):
            if round(weight * size) < 1:
                raise DataError(
                    f"data.train.{corpus}.weight: {weight:g} of {size:,} examples is none of them: raise it "
                    f"to {1 / size:g} or more, or leave the corpus out"
                )
        self.report = Report()
        for part in parts:
            self.report.add(part.stored.notes.report)
        #: Names the examples: equal for equal content, order and weights, wherever they are stored.
        self.fingerprint = digest([[part.stored.notes.content, part.weight] for part in parts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def weights(self) -> list[float]:
        """The passes through each corpus in an epoch."""
        return list(self._weights)

    def target_text(self, number: int) -> str:
        """Return the target of an example: what a model shall write, or a label."""
        raise NotDefinedError(f"{type(self).__name__} must define target_text()")

    def references(self, number: int) -> list[str]:
        """Return all targets of an example."""
        return [self.target_text(number)]

    def epoch(self, epoch: int, seed: int) -> Indices:
        """The examples of an epoch: each corpus `weight` times, whole for the integer part of the weight, and
        for the rest a random part of it, which differs between epochs. A pure function of (seed, epoch).
        """
        numbers, begin = [], 0
        for corpus, (size, weight) in enumerate(zip(self._sizes, self._weights, strict=True)):
            whole, rest = divmod(weight, 1)
            generator = np.random.default_rng([seed, epoch, corpus])
            some = generator.choice(size, round(rest * size), replace=False)
            numbers.append(begin + np.concatenate([np.tile(np.arange(size), int(whole)), np.sort(some)]))
            begin += size
        return np.concatenate(numbers).astype(np.int64)

    def _find(self, number: int) -> tuple[int, int]:
        if not 0 <= number < len(self):
            raise IndexError(f"example {number} of {len(self)}")
        chunk = int(np.searchsorted(self._starts, number, side="right")) - 1
        return chunk, number - int(self._starts[chunk])


class Examples(ExampleSet):
    """Tokenised pairs by number. Made by `prepare`.

    Ids are without special tokens, and are read from the disk when they are asked for.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__(parts)
        chunks = [chunk for part in parts for chunk in part.stored.chunks]
        self._texts = [(chunk.column("source_text"), chunk.column("target_text")) for chunk in chunks]
        self._references = [chunk.column("references") for chunk in chunks]
        self._ended = [chunk.column("ended") for chunk in chunks]
        self._sources = [_flat(chunk.column("source")) for chunk in chunks]
        self._targets = [_flat(chunk.column("target")) for chunk in chunks]
        #: Whether all know the links between their pieces.
        self.aligned = all("links" in chunk.schema.names for chunk in chunks)
        self._links = [_flat(chunk.column("links")) for chunk in chunks] if self.aligned else []
        self.source_lengths = _lengths(self._sources)
        self.target_lengths = _lengths(self._targets)

    def source(self, number: int) -> Ids:
        """Ids of the source of an example, as far as it is read (`data.truncate`)."""
        return self._ids(self._sources, number)

    def target(self, number: int) -> Ids:
        """Ids of the target of an example, as far as it is read."""
        return self._ids(self._targets, number)

    def ended(self, number: int) -> bool:
        """Whether the target of an example is read to its end."""
        chunk, row = self._find(number)
        return bool(self._ended[chunk][row].as_py())

    def links(self, number: int) -> Ids:
        """Links between pieces, (n, 2): source, target. Of examples that are `aligned`."""
        return self._ids(self._links, number).reshape(-1, 2)

    def source_text(self, number: int) -> str:
        """The source of an example as it stands in the data."""
        chunk, row = self._find(number)
        return str(self._texts[chunk][0][row])

    def target_text(self, number: int) -> str:
        """The target of an example as it stands in the data."""
        chunk, row = self._find(number)
        return str(self._texts[chunk][1][row])

    def references(self, number: int) -> list[str]:
        """All targets of an example as they stand in the data, `target_text` first; each is as good."""
        chunk, row = self._find(number)
        others: list[str] = self._references[chunk][row].as_py()
        return [self.target_text(number), *others]

    def _ids(self, flats: list[tuple[Ids, Ids]], number: int) -> Ids:
        chunk, row = self._find(number)
        offsets, values = flats[chunk]
        return values[offsets[row] : offsets[row + 1]]


def digest(value: Any) -> str:
    """Names a JSON value: equal for equal values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _flat(column: Any) -> tuple[Ids, Ids]:
    """Offsets and values of a column of lists, where they lie."""
    return column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=True)


def _lengths(flats: list[tuple[Ids, Ids]]) -> Ids:
    return np.concatenate([np.diff(offsets) for offsets, _ in flats]).astype(np.int32)
