"""Source texts as ids: of one text (`SourceIds`), and of a batch (`Source`), which is what encoders read."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.data.batch_plan import Indices, by_length, fill
from seq2attn.recipe import TruncateRecipe
from seq2attn.text.sentence_splitter import numbered
from seq2attn.text.vocabulary import Tokens, Vocabulary

Row = Sequence[int] | NDArray[np.int32]


class SourceIds(NamedTuple):
    """The ids of one source text, without </s>."""

    ids: Row  # S of them
    pieces: list[str] | None = None  # S of them, unknown ones as in the text; None: nothing is copied
    sentence_ids: list[int] | None = None  # S of them, the line of each piece; None: nothing attends to lines


class Source(NamedTuple):
    """A batch of sources, padded on the right; each ends with </s>."""

    tokens: Tensor  # (B, S)
    mask: Tensor  # (B, S), bool, True = a token
    # (B, S), for pointer generators: the target id of each token, or the target's size + the position of the
    # first occurrence of a piece that the target's vocabulary lacks
    copy_ids: Tensor | None = None
    sentence_ids: Tensor | None = None  # (B, S), for sentence attention: from 0; -1 on padding

    @property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """What the encoder reads."""
        return self.tokens, self.mask

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the batch, for messages."""
        return tuple(self.tokens.shape)

    def to(self, device: torch.device) -> "Source":
        """Move to a device."""
        tokens, mask = self.tokens.to(device, non_blocking=True), self.mask.to(device, non_blocking=True)
        copy_ids, sentence_ids = (
            None if ids is None else ids.to(device, non_blocking=True)
            for ids in (self.copy_ids, self.sentence_ids)
        )
        return Source(tokens, mask, copy_ids, sentence_ids)


@runtime_checkable
class AnySource(Protocol):
    """A batch of what a sequence-to-sequence model reads: texts, or images."""

    @property
    def inputs(self) -> tuple[Tensor, Tensor | None]:
        """What the encoder reads, and its mask."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the batch, for messages."""

    @property
    def mask(self) -> Tensor:
        """(B, S), bool, True = a position that the decoder may attend to."""

    @property
    def copy_ids(self) -> Tensor | None:
        """See `Source`."""

    @property
    def sentence_ids(self) -> Tensor | None:
        """See `Source`."""

    def to(self, device: torch.device) -> "AnySource":
        """Move to a device."""


@runtime_checkable
class Collator(Protocol):
    """Makes batches of sources, whatever they are. A source has as many positions as the encoder has states
    for it."""

    @property
    def target(self) -> Vocabulary:
        """The vocabulary of targets."""

    @property
    def smaller(self) -> str:
        """Sources that need less memory, for messages: shorter texts."""

    def lengths(self, sources: Sequence[Any]) -> NDArray[np.int32]:
        """Return the number of positions of each source, without that of </s>."""

    def plan(
        self, sources: Sequence[Any], batch_tokens: int, target_lengths: NDArray[np.int32] | None = None
    ) -> list[Indices]:
        """Return batches of sources, as indices: of at most this many positions, padding included; if there
        are targets, also of at most this many of their tokens."""

    def collate(self, sources: Sequence[Any]) -> AnySource:
        """Pad sources to a batch."""


class PairTokenizer:
    """Turns source and target texts into ids.

    Args:
        source, target: the vocabularies.
        truncate: how much of a text is read.
        copying: whether the model copies from its source (`model.decoder.copying`).
        hierarchical: whether it attends to the source's sentences (`sentences` of an attention).
    """

    smaller = "shorter texts"

    def __init__(
        self,
        source: Vocabulary,
        target: Vocabulary,
        truncate: TruncateRecipe | None = None,
        copying: bool = False,
        hierarchical: bool = False,
    ) -> None:
        self.source, self.target, self.truncate = source, target, truncate or TruncateRecipe()
        self.copying, self.hierarchical = copying, hierarchical

    def tokenize_source(self, text: str) -> Tokens:
        """Return the part of a source text that is read."""
        tokens = self.source.split(text)
        return tokens.at(self.truncate.cut(0, range(len(tokens.ids))))

    def tokenize_target(self, text: str, source: SourceIds) -> Tokens:
        """Return a whole target text; unknown pieces that can be copied from the source have those ids."""
        tokens = self.target.split(text)
        return tokens._replace(ids=self.copied(tokens.ids, tokens.pieces, source))

    def rewritten(self, source: str, target: str) -> str:
        """Return a target text as a model can at best write it, given its source: encoded and decoded."""
        tokens = self.tokenize_source(source)
        source_ids = SourceIds(tokens.ids, tokens.pieces if self.copying else None)
        return self.target.decode(self.tokenize_target(target, source_ids).ids, source_ids.pieces or ())

    def source_ids(
        self, ids: Row, text: Callable[[], str] | None = None, sampled: Row | None = None
    ) -> SourceIds:
        """Return ids with all that the model has to know of the text that they are of.

        text: gives the whole text, and is called only if it is needed; without it, unknown pieces are <unk>
            and all is one sentence;
        sampled: the ids of the whole text, if its segmentation was sampled.
        """
        sentence_ids = None
        if self.hierarchical:
            sentence_ids = [0] * len(ids) if text is None else self._lines(ids, text(), sampled)
        return SourceIds(ids, self.pieces(0, ids, text, sampled) if self.copying else None, sentence_ids)

    def target_ids(
        self, ids: Row, text: Callable[[], str], source: SourceIds, sampled: Row | None = None
    ) -> Row:
        """Return the ids of a target; unknown pieces that can be copied from the source have those ids."""
        if source.pieces is None:
            return ids
        return self.copied(ids, self.pieces(1, ids, text, sampled), source)

    def copied(self, ids: Row, pieces: Sequence[str], source: SourceIds) -> list[int]:
        """Return the ids of target pieces, where each unknown one that is in the source is copied."""
        return list(ids) if source.pieces is None else self.target.copied(ids, pieces, source.pieces)

    def pieces(self, side: int, ids: Row, text: Callable[[], str] | None, sampled: Row | None) -> list[str]:
        """Return the pieces of ids of the source (0) or the target (1). Only unknown ones need the text."""
        vocabulary = (self.source, self.target)[side]
        if text is None or vocabulary.unk not in ids:
            return vocabulary.pieces(ids)
        whole = vocabulary.surfaces(text()) if sampled is None else vocabulary.pieces(sampled, text())
        return [*self.truncate.cut(side, whole)][: len(ids)]

    def lengths(self, sources: Sequence[SourceIds]) -> NDArray[np.int32]:
        """See Collator."""
        return np.array([len(source.ids) for source in sources], dtype=np.int32)

    def plan(
        self, sources: Sequence[SourceIds], batch_tokens: int, target_lengths: NDArray[np.int32] | None = None
    ) -> list[Indices]:
        """See Collator."""
        lengths = self.lengths(sources)
        if target_lengths is None:
            return fill(np.argsort(-lengths, kind="stable"), lengths, lengths, batch_tokens)
        return fill(by_length(lengths, target_lengths), lengths, target_lengths, batch_tokens)

    def collate(self, sources: Sequence[SourceIds]) -> Source:
        """Pad sources to a batch; this is the one place where </s> is added to them."""
        tokens, mask = pad([np.append(source.ids, self.source.eos) for source in sources], self.source.pad)
        copy_ids = sentence_ids = None
        if self.copying:
            pieces = [self.source.pieces(one.ids) if one.pieces is None else one.pieces for one in sources]
            copy_ids = pad([self.target.copies(row) for row in pieces], self.target.pad)[0]
        if self.hierarchical:
            lines = [source.sentence_ids or [0] * len(source.ids) for source in sources]
            sentence_ids = number_sentences(lines)
        return Source(tokens, mask, copy_ids, sentence_ids)

    def _lines(self, ids: Row, text: str, sampled: Row | None) -> list[int]:
        """Return the line of the text in which the piece of each id stands, from 0."""
        if "\n" not in text:
            return [0] * len(ids)
        pieces = self.source.surfaces(text) if sampled is None else self.source.pieces(sampled, text)
        return [*self.truncate.cut(0, numbered(pieces, text, self.source.normalize))][: len(ids)]


def number_sentences(lines: Sequence[Sequence[int]]) -> Tensor:
    """Return the sentence (B, S) of each source position from the line numbers of its pieces: without gaps,
    -1 on padding. </s> belongs to the last sentence."""
    ended = [[*row, row[-1] if len(row) else 0] for row in lines]
    return pad([np.unique(row, return_inverse=True)[1].tolist() for row in ended], -1)[0]


def pad(rows: Sequence[Row], value: int) -> tuple[Tensor, Tensor]:
    """Pad rows of ids on the right: ids (B, longest), and their mask, True on ids."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(max(lengths.max(initial=0), 1)) < lengths[:, None]
    padded = np.full(mask.shape, value, dtype=np.int64)
    if lengths.sum():
        padded[mask] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return torch.from_numpy(padded), torch.from_numpy(mask)
