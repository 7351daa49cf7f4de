"""Tasks that are made: pairs whose alignment is known, so that an attention can be told right from wrong.

Words are letters. The target is the source in another order, and the order is the alignment:

    copy     c a b     -> c a b    left to right: monotonic
    reverse  c a b     -> b a c    right to left: no monotonic attention can
    sort     c2 a3 b1  -> b c a    by the number at each letter: content alone tells where to look
"""

from collections.abc import Callable, Iterator
from hashlib import blake2b
from random import Random

from seq2attn.alignment.word_alignment import Link
from seq2attn.data.files import Pair
from seq2attn.data.report import DataError, Report
from seq2attn.recipe import TaskCorpus

MAKING = 1  # what is made of the same settings; another number makes the stores anew
PATIENCE = 10_000  # draws in a row that bring nothing new, until there is nothing new

# The source position of each target word.
ORDERS: dict[str, Callable[[list[str]], list[int]]] = {
    "copy": lambda words: list(range(len(words))),
    "reverse": lambda words: list(range(len(words)))[::-1],
    "sort": lambda words: sorted(range(len(words)), key=lambda place: int(words[place][1:])),
}


def known_alignment(task: str, source: str) -> list[int]:
    """For each word of the target, the position (from 0) of the source word that it is made of."""
    return ORDERS[task](source.split())


def make(corpus: TaskCorpus, split: str, report: Report) -> Iterator[Pair]:
    """The pairs of a made corpus: `count` different ones, a pure function of its settings and the split.

    Lengths are uniform, and so are the sentences of a length, as far as there are enough of them. Which split
    a sentence belongs to is told by its hash (train 8 of 10, dev and test 1), so that none is in two.

    Raises:
        DataError: there are not so many different sentences.
    """
    random = Random(corpus.seed).random  # the one draw that Python promises never to change
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
                    f"{corpus.task}: expected {corpus.count:,} different sentences for {split}, found "
                    f"{len(made):,}: lower count, or raise symbols or lengths"
                )
            continue
        made.add(source)
        idle = 0
        alignment = known_alignment(corpus.task, source)
        target = " ".join(source.split()[place][0] for place in alignment)
        links = tuple(Link(place, number) for number, place in enumerate(alignment))
        yield Pair(source, target, len(made), links if corpus.alignments else None)


def _words(corpus: TaskCorpus, length: int, random: Callable[[], float]) -> list[str]:
    """A source of the task."""
    if corpus.distinct:
        letters = _shuffled(corpus.symbols, random)[:length]
    else:
        letters = [int(corpus.symbols * random()) for _ in range(length)]
    words = [chr(ord("a") + letter) for letter in letters]
    if corpus.task == "sort":
        words = [f"{word}{key + 1}" for word, key in zip(words, _shuffled(length, random), strict=True)]
    return words


def _shuffled(size: int, random: Callable[[], float]) -> list[int]:
    """The numbers below `size` in an order drawn at random."""
    keys = [random() for _ in range(size)]
    return sorted(range(size), key=keys.__getitem__)


def _split(source: str) -> str:
    """The split that a sentence belongs to."""
    return {0: "dev", 1: "test"}.get(blake2b(source.encode()).digest()[0] % 10, "train")
