"""The batch plan, global and pure: the same (seed, epoch, lengths, world) give the same batches anywhere.

A plan is a list of batches, a batch a list of example numbers. Every process makes the whole plan and takes
its own share of it, so that no two need to agree on anything, and training resumes from a number.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.errors import Seq2attnError
from seq2attn.layers.word_embedding import LabelledBatch, Words
from seq2attn.recipe import SamplingRecipe, TruncateRecipe
from seq2attn.text.sentence_splitter import numbered
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.word_vocabulary import PADDING, Labels, WordVocabulary, split_words

Row = Sequence[int] | NDArray[np.int32]
Indices = NDArray[np.int64]
Drawn = tuple[list[list[int]], list[list[int]]]  # sampled ids of sources and of targets

# Batches are cut from stretches of this many examples sorted by length: long enough that a batch holds
# sentences of one length, short enough that a batch is not the same one in every epoch.
STRETCH = 50_000


class AnyBatch(Protocol):
    """What training needs of a batch, whatever is learnt from it."""

    @property
    def units(self) -> int:
        """How many things the loss is the mean of: tokens, words, sentences."""

    @property
    def shape(self) -> str:
        """How large it is, in words: for who must make it smaller."""

    def to(self, device: torch.device) -> "AnyBatch":
        """On a device."""


class AnyBatchLoader(Protocol):
    """What training needs of a feed."""

    def epoch(self, epoch: int) -> list[Indices]:
        """The batches of an epoch, as numbers of examples."""

    def evaluation_batches(self) -> list[Indices]:
        """Batches that hold every example once, by length."""

    def batch(self, numbers: Indices, epoch: int | None = None) -> AnyBatch:
        """The examples with these numbers; in an epoch of training they may be changed at random."""


class Batch(NamedTuple):
    """Padded on the right. The decoder reads `reads` and is to predict `gold`."""

    source: Tensor  # (B, S), ends with the end-of-sentence
    source_mask: Tensor  # (B, S), bool, True = a token
    reads: Tensor  # (B, T), begins with the begin-of-sentence
    gold: Tensor  # (B, T), ends with the end-of-sentence, unless the target was cut off there
    gold_mask: Tensor  # (B, T), bool
    links: Tensor | None = (
        None  # (B, T, S), bool, a gold alignment: which slots the gold token of a step means
    )
    # (B, S), for models that copy: the target's id of each slot's piece, or its size + the first such slot
    copies: Tensor | None = None
    # (B, S), for models that look at sentences: the number of each slot's, from 0; -1 on padding
    sentences: Tensor | None = None

    @property
    def units(self) -> int:
        """Target tokens, ends included where there are."""
        return int(self.gold_mask.sum())

    @property
    def shape(self) -> str:
        """How large it is."""
        return f"source by target {tuple(self.source.shape)} by {tuple(self.reads.shape)}"

    def to(self, device: torch.device) -> "Batch":
        """On a device."""
        return Batch(*(None if part is None else part.to(device, non_blocking=True) for part in self))  # type: ignore[arg-type]


def plan(
    source_lengths: NDArray[np.int32],
    target_lengths: NDArray[np.int32],
    examples: Indices,
    batch_tokens: int,
    seed: Sequence[int],
) -> list[Indices]:
    """Batches of examples of about one length, in random order, for one epoch.

    Lengths are without special tokens. A batch holds at most `batch_tokens` tokens on its longer side,
    padding and one special token included; an example longer than that makes a batch of its own.
    seed: what the order depends on, for example (recipe's seed, epoch).
    """
    generator = np.random.default_rng(list(seed))
    order = generator.permutation(examples)
    batches: list[Indices] = []
    for begin in range(0, len(order), STRETCH):
        stretch = order[begin : begin + STRETCH]
        order_within = by_length(source_lengths[stretch], target_lengths[stretch])
        batches += fill(stretch[order_within], source_lengths, target_lengths, batch_tokens)
    return [batches[number] for number in generator.permutation(len(batches))]


def by_length(source_lengths: NDArray[np.int32], target_lengths: NDArray[np.int32]) -> Indices:
    """The order in which neighbours need least padding: by the longer side, then by the target's length."""
    keys = source_lengths, target_lengths, np.maximum(source_lengths, target_lengths)
    return np.lexsort(keys).astype(np.int64)


def fill(
    order: Indices, source_lengths: NDArray[np.int32], target_lengths: NDArray[np.int32], batch_tokens: int
) -> list[Indices]:
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

    def ended(self, number: int) -> bool:
        """Whether the ids of a target sentence go on to its end."""

    def source_text(self, number: int) -> str:
        """A source sentence."""

    def target_text(self, number: int) -> str:
        """A target sentence."""

    def epoch(self, epoch: int, seed: int) -> Indices:
        """The examples of an epoch, in any order."""


@runtime_checkable
class Aligned(Protocol):
    """What a corpus may know besides: gold alignments."""

    aligned: bool  # whether it does

    def links(self, number: int) -> NDArray[np.int32]:
        """(n, 2), which source id which target id means, by their places in the sentences."""


class Batches:
    """Which examples are in a batch: whole epochs in random order for training, or once through by length."""

    def __init__(self, examples: Corpus, batch_tokens: int, seed: int = 1) -> None:
        self.examples, self.batch_tokens, self.seed = examples, batch_tokens, seed

    def epoch(self, epoch: int) -> list[Indices]:
        """The batches of an epoch: a pure function of the examples, the seed and the epoch."""
        lengths = self.examples.source_lengths, self.examples.target_lengths
        return plan(*lengths, self.examples.epoch(epoch, self.seed), self.batch_tokens, (self.seed, epoch))

    def evaluation_batches(self) -> list[Indices]:
        """Batches that hold every example once, by length."""
        lengths = self.examples.source_lengths, self.examples.target_lengths
        return fill(by_length(*lengths), *lengths, self.batch_tokens)


class BatchLoader(Batches):
    """Pairs of sentences as batches of their pieces.

    Where the examples are `Aligned`, batches have links; then pieces cannot be sampled (Seq2attnError).
    copying: whether batches have copies, for a model that copies; may be set.
    hierarchical: whether batches have sentences, for a model that looks at them; may be set.
    """

    def __init__(
        self,
        examples: Corpus,
        source: Vocabulary,
        target: Vocabulary,
        batch_tokens: int,
        seed: int = 1,
        sampling: SamplingRecipe | None = None,
        truncate: TruncateRecipe | None = None,
    ) -> None:
        super().__init__(examples, batch_tokens, seed)
        self.source, self.target, self.sampling = source, target, sampling
        self.truncate, self.copying, self.hierarchical = truncate or TruncateRecipe(), False, False
        self.aligned = examples if isinstance(examples, Aligned) and examples.aligned else None
        if self.aligned is not None and sampling is not None:
            raise Seq2attnError(
                "text.sampling cuts words anew, and the alignments are between pieces that stay as they are: "
                "use examples without alignments, or no sampling"
            )

    def batch(self, numbers: Indices, epoch: int | None = None) -> Batch:
        """The sentences with these numbers. In an epoch of training their pieces may be sampled anew, by
        (seed, epoch, first number), so that resuming sees the same."""
        rows, drawn = numbers.tolist(), None
        if self.sampling is None or epoch is None:
            sources = [self.examples.source(row) for row in rows]
            targets = [self.examples.target(row) for row in rows]
            ended = [self.truncate.target is None or self.examples.ended(row) for row in rows]
        else:
            seed = int(np.random.SeedSequence([self.seed, epoch, rows[0]]).generate_state(1)[0])
            options, cut = (seed, self.sampling.nbest, self.sampling.alpha), self.truncate.cut
            drawn = (
                self.source.sample([self.examples.source_text(row) for row in rows], *options),
                self.target.sample([self.examples.target_text(row) for row in rows], *options),
            )
            sources, targets = (
                _arrays([cut(side, row) for row in whole]) for side, whole in enumerate(drawn)
            )
            ended = [self.truncate.ends(row) for row in drawn[1]]
        if self.copying:
            copies, said = self._copied(rows, sources, targets, drawn)
            made = batch(sources, said, self.source, self.target, copies, ended)
        else:
            made = batch(sources, targets, self.source, self.target, ended=ended)
        if self.hierarchical:
            texts = [self.examples.source_text(row) for row in rows]
            whole = [None] * len(rows) if drawn is None else drawn[0]
            lines = [
                in_sentences(*source, self.source, self.truncate)
                for source in zip(texts, sources, whole, strict=True)
            ]
            made = made._replace(sentences=numbered_slots(lines))
        if self.aligned is None:
            return made
        links = torch.zeros(*made.gold.shape, made.source.shape[1], dtype=torch.bool)
        for place, row in enumerate(rows):
            known = torch.from_numpy(self.aligned.links(row).astype(np.int64))
            links[place, known[:, 1], known[:, 0]] = True
        return made._replace(links=links)

    def _copied(
        self, rows: list[int], sources: Sequence[Row], targets: Sequence[Row], drawn: Drawn | None
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Copies and targets: unknown pieces of a target are copied from where its source has them."""
        copies, gold = [], []
        for place, row in enumerate(rows):
            whole = (None, None) if drawn is None else (drawn[0][place], drawn[1][place])
            there = self._pieces(0, row, sources[place], whole[0])
            said = self._pieces(1, row, targets[place], whole[1])
            copies.append(self.target.copies(there))
            gold.append(self.target.copied(targets[place], said, there))
        return copies, gold

    def _pieces(self, side: int, row: int, ids: Row, drawn: list[int] | None) -> list[str]:
        """The pieces whose ids are read of a side of an example. Only unknown ones need its text."""
        vocabulary = (self.source, self.target)[side]
        if vocabulary.unk not in ids:
            return vocabulary.pieces(ids)
        text = (self.examples.source_text, self.examples.target_text)[side](row)
        whole = vocabulary.surfaces(text) if drawn is None else vocabulary.pieces(drawn, text)
        return [*self.truncate.cut(side, whole)]


class LabelledBatchLoader(Batches):
    """Labelled words as batches. Labels with a scheme are of words; without, of sentences."""

    def __init__(
        self,
        examples: Corpus,
        word_vocabulary: WordVocabulary,
        labels: Labels,
        batch_tokens: int,
        seed: int = 1,
    ) -> None:
        super().__init__(examples, batch_tokens, seed)
        self.word_vocabulary, self.labels = word_vocabulary, labels

    def batch(self, numbers: Indices, epoch: int | None = None) -> LabelledBatch:
        """The sentences with these numbers."""
        rows = numbers.tolist()
        ids = [self.examples.source(row) for row in rows]
        words = collate_words(
            [split_words(self.examples.source_text(row)) for row in rows], ids, self.word_vocabulary
        )
        labels, _ = pad([self.examples.target(row) for row in rows], 0)
        shape = f"sentences by words {tuple(words.ids.shape)}"
        if self.labels.scheme is None:
            return LabelledBatch(words, labels[:, 0], len(rows), shape)
        return LabelledBatch(words, labels, int(words.mask.sum()), shape)


def collate_words(
    sentences: Sequence[Sequence[str]], ids: Sequence[Row], word_vocabulary: WordVocabulary
) -> Words:
    """Words with their ids in the lexicon and, once for each that differs, their characters."""
    distinct = sorted(
        {word for sentence in sentences for word in sentence}, key=lambda word: (len(word), word)
    )
    places = {word: place for place, word in enumerate(distinct)}
    rows = [[places[word] for word in sentence] for sentence in sentences]
    alike = groupby(distinct or [""], lambda word: max(2, (len(word) - 1).bit_length()))
    spellings = [pad([word_vocabulary.spell(word) for word in some], PADDING)[0] for _, some in alike]
    padded, mask = pad(ids, PADDING)
    return Words(padded, mask, pad(rows, 0)[0], tuple(spellings))


def batch(
    sources: Sequence[Row],
    targets: Sequence[Row],
    source: Vocabulary,
    target: Vocabulary,
    copies: Sequence[Row] | None = None,
    ended: Sequence[bool] | None = None,
) -> Batch:
    """Ids without special tokens, padded and with them.

    copies: what the pieces of each source and its end are copied as (`Vocabulary.copies`); then targets may
    have such ids, and are read with <unk> in their place;
    ended: whether each target is whole to its end, as all are if not given; who learnt an end from others
    would stop in mid-sentence (as in See et al. 2017, they have none).
    """
    source_ids, source_mask = pad([np.append(row, source.eos) for row in sources], source.pad)
    whole = zip(targets, ended or [True] * len(targets), strict=True)
    wanted = [np.append(row, target.eos) if end else row for row, end in whole]
    gold, gold_mask = pad(wanted, target.pad)
    reads, _ = pad([np.insert(row[:-1], 0, target.bos) for row in wanted], target.pad)
    made = Batch(source_ids, source_mask, reads, gold, gold_mask)
    if copies is None:
        return made
    return made._replace(
        reads=reads.masked_fill(reads >= target.size, target.unk), copies=pad(copies, target.pad)[0]
    )


def in_sentences(
    text: str, ids: Row, drawn: Row | None, vocabulary: Vocabulary, truncate: TruncateRecipe
) -> list[int]:
    """For each of the ids that are read of a source text, the number of the line that its piece stands in.

    drawn: the ids of all of the text, if they were sampled.
    """
    if "\n" not in text:
        return [0] * len(ids)
    pieces = vocabulary.surfaces(text) if drawn is None else vocabulary.pieces(drawn, text)
    return [*truncate.cut(0, numbered(pieces, text, vocabulary.normalize))][: len(ids)]


def numbered_slots(rows: Sequence[Row]) -> Tensor:
    """Numbers of pieces' lines -> (B, S) numbers of slots' sentences, none left out, -1 on padding.

    The end of a source, which is a slot too, belongs to its last sentence.
    """
    ended = [[*row, row[-1] if len(row) else 0] for row in rows]
    return pad([np.unique(row, return_inverse=True)[1].tolist() for row in ended], -1)[0]


def _arrays(rows: Sequence[Sequence[int]]) -> list[NDArray[np.int32]]:
    return [np.array(row, dtype=np.int32) for row in rows]
