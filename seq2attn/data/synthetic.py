"""Synthetic tasks: pairs whose alignment is known, by which attention weights can be judged.

Words are letters. The target is the source in another order, and that order is the alignment:

    copy     c a b     -> c a b    left to right: monotonic
    reverse  c a b     -> b a c    right to left: no monotonic attention can
    sort     c2 a3 b1  -> b c a    by the number at each letter: only content determines the alignment
"""

from collections.abc import Callable, Iterator
from hashlib import blake2b
from random import Random

from seq2attn.alignment.word_alignment import Link
from seq2attn.data.files import Pair
from seq2attn.data.report import DataError, Report
from seq2attn.recipe import TaskCorpus

MAKING = 1  # version of this file: another number makes stores anew
PATIENCE = 10_000  # samples in a row without a new sentence, after which there are no more

# The source position of each target word.
ORDERS: dict[str, Callable[[list[str]], list[int]]] = {
    "copy": lambda words: list(range(len(words))),
    "reverse": lambda words: list(range(len(words)))[::-1],
    "sort": lambda words: sorted(range(len(words)), key=lambda position: int(words[position][1:])),
}


def known_alignment(task: str, source: str) -> list[int]:
    """Return for each word of the target the position (from 0) of its source word."""
    return ORDERS[task](source.split())


def make(corpus: TaskCorpus, split: str, report: Report) -> Iterator[Pair]:
    """Generate `count` different pairs: a pure function of the settings and the split.

    Lengths are uniform, and so are the sentences of a length, as far as there are enough of them. The split
    of a sentence follows from its hash (train 8 of 10, dev and test 1 each), so that no sentence is in two
    splits.

    Raises:
        DataError: there are fewer different sentences.
    """
    random = Random(corpus.seed).random  # the only method whose results Python promises never to change
    shortest, longest = corpus.lengths
    made: set[str] = set()
    idle = 0
    while len(made) < corpus.count:
        length = shortest + int((longest - shortest + 1) * random())
        source = " ".join(_words(corpus, length, random))
        idle += 1
        if source in made or _split(source) != split:
            if idle == PATIENCE:
                raise DataError(
                    f"{corpus.task}: expected {corpus.count:,} different sentences for {split}, got "
                    f"{len(made):,}: lower count, or raise symbols or lengths"
                )
            continue
        made.add(source)
        report.share = len(made) / corpus.count
        idle = 0
        alignment = known_alignment(corpus.task, source)
        target = " ".join(source.split()[position][0] for position in alignment)
        links = tuple(Link(position, index) for index, position in enumerate(alignment))
        yield Pair(source, target, len(made), links if corpus.alignments else None)


def _words(corpus: TaskCorpus, length: int, random: Callable[[], float]) -> list[str]:
    """Return the words of a random source."""
    if corpus.distinct:
        letters = _shuffled(corpus.symbols, random)[:length]
    else:
        letters = [int(corpus.symbols * random()) for _ in range(length)]
    words = [chr(ord("a") + letter) for letter in letters]
    if corpus.task == "sort":
        words = [f"{word}{key + 1}" for word, key in zip(words, _shuffled(length, random), strict=True)]
    return words


def _shuffled(size: int, random: Callable[[], float]) -> list[int]:
    """Return the numbers below `size` in random order."""
    keys = [random() for _ in range(size)]
    return sorted(range(size), key=keys.__getitem__)


def _split(source: str) -> str:
    """Return the split of a sentence."""
    return {0: "dev", 1: "test"}.get(blake2b(source.encode()).digest()[0] % 10, "train")
