"""Subword vocabularies: sentences <-> pieces <-> ids (Kudo & Richardson 2018), pieces <-> words.

A vocabulary is a SentencePiece model. The rules of text normalisation are compiled into the model, so that
its file is complete.
"""

import random
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import accumulate, chain, pairwise
from operator import index
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2attn.errors import Seq2attnError
from seq2attn.runtime.files import read
from seq2attn.text.given_ids import FaultyIdsError, Numbering, RenumberedProcessor
from seq2attn.text.subword_sampling import Subwords
from seq2attn.text.words import SEPARATORS, SPACELESS, refuse_text
from seq2attn.text.words import words as split_words

Words = Literal["auto", "spaces", "pieces"]
Ids = Sequence[int] | NDArray[np.int32]
LONGEST_SENTENCE = 1 << 16  # in bytes; by default SentencePiece silently leaves out more than 4192

_WORDS = re.compile("▁?[^▁]+|▁")  # the words of an unknown piece


class VocabularyError(Seq2attnError):
    """A vocabulary cannot be trained, read, or used in this way."""


class Tokens(NamedTuple):
    """A sentence as ids, pieces and words.

    `word_of` never decreases, and every word has at least one piece. The words together are the text.
    """

    ids: list[int]  # of the pieces, without <s> and </s>
    pieces: list[str]
    words: list[str]
    word_of: list[int]  # index of the word of each piece

    def at(self, positions: Sequence[int]) -> "Tokens":
        """Return only the pieces at these increasing positions, and their words."""
        kept = {word: index for index, word in enumerate(sorted({self.word_of[i] for i in positions}))}
        return Tokens(
            [self.ids[i] for i in positions],
            [self.pieces[i] for i in positions],
            [self.words[word] for word in kept],
            [kept[self.word_of[i]] for i in positions],
        )


class Vocabulary:
    """A SentencePiece model: sentences to ids and back.

    If the model lacks <pad>, <s> or </s>, they are added after its pieces, in this order; `size` counts them.

    Args:
        model: the content of a .model file, as spm_train writes it.
        words: how words are found: "spaces" = they are separated by ASCII white space; "pieces" = every
            piece is a word; "auto" = pieces in scripts without spaces (Han, kana, Thai, ...), spaces in all
            others.
        numbering: ids of pieces that are not those of the model, and tags that a text may begin with.

    Raises:
        VocabularyError: the bytes are no SentencePiece model, `words` has another value, or ids are faulty.
    """

    def __init__(self, model: bytes, words: Words = "auto", numbering: Numbering | None = None) -> None:
        if words not in ("auto", "spaces", "pieces"):
            raise VocabularyError(f"unknown words '{words}': expected auto, spaces or pieces")
        self.model = model
        self.words: Words = words
        self.numbering = numbering if numbering and (numbering.ids or numbering.tags) else None
        import sentencepiece  # imported late: words and tags do not need it

        self._processor: Any = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
            if self.numbering is not None:
                self._processor = RenumberedProcessor(self._processor, self.numbering)
        except FaultyIdsError as error:
            raise VocabularyError(f"the ids of the pieces: {error}") from error
        except RuntimeError as error:
            raise VocabularyError(
                f"not a SentencePiece model, or a damaged one ({len(model)} bytes): "
                "expected a .model file as spm_train or `seq2attn train` writes it"
            ) from error
        own = [self._processor.pad_id(), self._processor.bos_id(), self._processor.eos_id()]
        size = self._processor.get_piece_size()
        appended = iter(range(size, size + len(own)))
        self.pad, self.bos, self.eos = (i if i >= 0 else next(appended) for i in own)
        self.unk: int = self._processor.unk_id()
        self._unknown = str(self._processor.id_to_piece(self.unk))
        self.size: int = size + own.count(-1)
        self._subwords: dict[tuple[int, float], Subwords] = {}

    @classmethod
    def load(
        cls, path: str | Path, words: Words = "auto", numbering: Numbering | None = None
    ) -> "Vocabulary":
        """Read a .model file. Raises VocabularyError with the file's name if it is missing or damaged."""
        try:
            return cls(read(Path(path)), words, numbering)
        except OSError as error:
            raise VocabularyError(f"{path}: cannot be read: {error.strerror}") from error
        except VocabularyError as error:
            raise VocabularyError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the .model file, which other SentencePiece tools can read."""
        Path(path).write_bytes(self.model)

    @property
    def fingerprint(self) -> str:
        """Return a hash that is equal for equal models and ids, and so for equal results of `encode`."""
        ids = b"" if self.numbering is None else self.numbering.identity().encode()
        return sha256(self.model + ids).hexdigest()[:16]

    def normalize(self, text: str) -> str:
        """Return the text as the model normalises it: `decode(encode(text))`, but for unknown characters."""
        tag, text = self._tag(text)
        return tag + str(self._processor.normalize(text)).replace("▁", " ").strip(" ")

    def encode(self, texts: Iterable[str], threads: int = -1) -> list[list[int]]:
        """Return the ids of each sentence, without <s> and </s>.

        threads: that SentencePiece may use; -1 = as many as there are cores.
        """
        tagged = [self._tag(_whole(text)) for text in _listed(texts)]
        plain = [text for _, text in tagged]
        encoded: list[list[int]] = self._processor.encode(plain, num_threads=threads)
        return [
            self._tag_ids(tag) + (_each(ids, self._parts(text)) if self.unk in ids else ids)
            for ids, (tag, text) in zip(encoded, tagged, strict=True)
        ]

    def sample(self, texts: Iterable[str], seed: int, nbest: int = -1, alpha: float = 0.1) -> list[list[int]]:
        """Return the ids of a random segmentation of each sentence: a pure function of the arguments.

        Unigram: sample from the `nbest` best segmentations (-1: from all), with probability proportional to
        p^alpha (Kudo 2018). BPE: leave out each merge with probability `alpha` (BPE-dropout, Provilkov et al.
        2020).

        Raises:
            VocabularyError: the model has only one segmentation (char, word), or `nbest` is above 512.
        """
        texts = _listed(texts)
        if nbest in (0, 1):
            return self.encode(texts)
        drawn = random.Random(seed).random
        try:
            given = isinstance(self._processor, RenumberedProcessor)
            processor = self._processor.original if given else self._processor
            subwords = self._subwords.get((nbest, alpha)) or Subwords(processor, nbest, alpha)
            self._subwords[nbest, alpha] = subwords
            if not given:
                return [subwords.sample(_whole(text), drawn) for text in texts]
            best, samples = self.encode(texts), list[list[int]]()
            for ids, text in zip(best, texts, strict=True):
                tag, rest = self._tag(text)
                sampled = self._tag_ids(tag) + self._processor.renumbered(subwords.sample(rest, drawn))
                # A piece that has no id would be unknown: such a sample is not used.
                samples.append(ids if sampled.count(self.unk) > ids.count(self.unk) else sampled)
            return samples
        except RuntimeError as error:
            raise VocabularyError(
                "text.sampling: sentences cannot be sampled with this vocabulary: expected a unigram or bpe "
                f"model and nbest of at most 512 (SentencePiece: {error})"
            ) from error

    def decode(self, ids: Sequence[int], beyond: Sequence[str] = ()) -> str:
        """Return the text of ids. <pad>, <s> and </s> are dropped, <unk> becomes ⁇.

        beyond: the pieces of the ids from `size` on, see `copies`.
        """
        return str(self._decoded(ids, beyond)["text"])

    def split(self, text: str) -> Tokens:
        """Return the ids, pieces and words of a text. Words are those of the text before normalisation.

        A piece belongs to the word that has its first visible character; a piece that is only a space, to the
        next word. Characters that normalisation deletes are part of the word before them.
        """
        tag, text = self._tag(_whole(text))
        tokens = self._split(text)
        if not tag:
            return tokens
        ids, pieces, words, word_of = tokens
        return Tokens(
            [*self._tag_ids(tag), *ids], [tag, *pieces], [tag, *words], [0, *(word + 1 for word in word_of)]
        )

    def _split(self, text: str) -> Tokens:
        """Return what `split` does, of a text without a tag."""
        encoded = self._processor.encode(_whole(text), return_type="offset_mapping")
        normalized, origins = self._processor.normalize(text, with_offsets=True)
        visible = [
            origin
            for character, origin in zip(normalized, origins, strict=False)  # the last origin is the end
            if character != "▁" and text[origin] not in SEPARATORS
        ]
        parts, offsets = self._parts(text), list[tuple[int, int]]()
        for (begin, end), pieces in zip(encoded["offsets"], parts, strict=True):
            starts = [*accumulate(map(len, pieces), initial=bisect_left(origins, begin))]
            offsets += pairwise([begin, *(origins[start] for start in starts[1:-1]), end])
        tokens = {"ids": _each(encoded["ids"], parts), "pieces": [*chain(*parts)], "offsets": offsets}
        return self._tokens(tokens, text, visible)

    def join(self, ids: Sequence[int], beyond: Sequence[str] = ()) -> Tokens:
        """Return the pieces and words of generated ids, without <pad>, <s> and </s>."""
        decoded = self._decoded(ids, beyond)
        text = decoded["text"]
        return self._tokens(decoded, text, [i for i, sign in enumerate(text) if sign not in SEPARATORS])

    def surfaces(self, text: str) -> list[str]:
        """Return the pieces of the ids of `encode`; unknown pieces as they are in the text."""
        tag, text = self._tag(text)
        return [*([tag] if tag else []), *chain(*self._parts(text))]

    def pieces(self, ids: Ids, text: str = "") -> list[str]:
        """Return the pieces of ids, in any segmentation of a text (`sample`). Unknown pieces are as they are
        in the text, or <unk> if it does not have them."""
        pieces: list[str] = self._processor.id_to_piece(self._numbers(ids, self.size))
        if self.unk in ids:
            unknown = (
                piece for piece in self.surfaces(text) if self._processor.piece_to_id(piece) == self.unk
            )
            pairs = zip(ids, pieces, strict=True)
            pieces = [next(unknown, piece) if number == self.unk else piece for number, piece in pairs]
        return pieces

    @property
    def names(self) -> list[str]:
        """The piece of each id, all different; those that were added to the model are <pad>, <s> and </s>."""
        names: list[str] = self._processor.id_to_piece(list(range(self._processor.get_piece_size())))
        added = {self.pad: "<pad>", self.bos: "<s>", self.eos: "</s>"}
        for number in range(len(names), self.size):
            name = added[number]
            while name in names:  # a piece that has no function
                name = f"<{name}>"
            names.append(name)
        return names

    def copies(self, pieces: Sequence[str]) -> list[int]:
        """Return the ids by which the pieces of a source, and its end, are copied into texts of this
        vocabulary.

        A piece that is not in this vocabulary has the id `size` + its first position in the source.
        """
        refuse_text(pieces, VocabularyError, "a list of pieces")
        first: dict[str, int] = {}
        positions = (first.setdefault(piece, position) for position, piece in enumerate(pieces))
        known = self._processor.piece_to_id(list(pieces))
        return [
            self.size + position if number == self.unk and piece != self._unknown else number
            for piece, number, position in zip(pieces, known, positions, strict=True)
        ] + [self.eos]

    def copied(self, ids: Ids, pieces: Sequence[str], source: Sequence[str]) -> list[int]:
        """Return the ids of a text with these pieces; an unknown piece that the source has gets the id of
        `copies`."""
        return [
            self.size + source.index(piece) if number == self.unk and piece in source else int(number)
            for number, piece in zip(ids, pieces, strict=True)
        ]

    def has_tag(self, tag: str) -> bool:
        """Whether a text may begin with a tag."""
        return self._tag(tag) == (tag, "") and self._tag_ids(tag) not in ([], [self.unk])

    def rows_in(self, other: "Vocabulary") -> list[list[int]]:
        """Return, for each id, the ids by which another vocabulary writes its piece; none if it cannot."""
        special = {self.pad: other.pad, self.bos: other.bos, self.eos: other.eos, self.unk: other.unk}
        pieces, known = self.names, {piece: number for number, piece in enumerate(other.names)}
        written = other.encode([piece.replace("▁", " ") for piece in pieces])
        return [
            [special[number]]
            if number in special
            else [known[piece]]
            if piece in known
            else [part for part in parts if part != other.unk]
            for number, (piece, parts) in enumerate(zip(pieces, written, strict=True))
        ]

    def _parts(self, text: str) -> list[list[str]]:
        """Return the pieces of a text; unknown ones are split into words, which can then be copied one by one
        (SentencePiece joins adjacent unknown characters into one piece). With given ids, they are not."""
        pieces: list[str] = self._processor.encode(_whole(text), out_type=str)
        if self.numbering is not None and self.numbering.ids is not None:
            return [[piece] for piece in pieces]
        unknown = [number == self.unk for number in self._processor.piece_to_id(pieces)]
        return [_WORDS.findall(piece) if cut else [piece] for piece, cut in zip(pieces, unknown, strict=True)]

    def _tag(self, text: str) -> tuple[str, str]:
        """Return the tag that a text begins with, which may be empty, and the rest of the text."""
        return ("", text) if self.numbering is None else self.numbering.split(text)

    def _tag_ids(self, tag: str) -> list[int]:
        return [self._processor.piece_to_id(tag)] if tag else []

    def _numbers(self, ids: Ids, size: int) -> list[int]:
        """Return the ids of one text as numbers. Raises VocabularyError if they are anything else."""
        refuse_text(ids, VocabularyError, f"the ids of a text, 0 to {size - 1}")
        try:
            numbers = [index(number) for number in ids]  # 1.7 is no id
        except (TypeError, ValueError) as error:
            raise VocabularyError(
                f"expected the ids of one text, 0 to {size - 1}, got {ids!r:.60}: call it for each text"
            ) from error
        wrong = next((number for number in numbers if not 0 <= number < size), None)
        if wrong is not None:
            raise VocabularyError(f"expected ids from 0 to {size - 1}, got {wrong}")
        return numbers

    def _decoded(self, ids: Sequence[int], beyond: Sequence[str]) -> dict[str, Any]:
        """Return the text, ids, pieces and offsets of pieces of generated ids."""
        refuse_text(beyond, VocabularyError, "a list of pieces")
        numbers = self._numbers(ids, self.size + len(beyond))
        kept = [number for number in numbers if number not in (self.pad, self.bos, self.eos)]
        if max(kept, default=0) < self.size:
            return dict(self._processor.decode(kept, return_type="offset_mapping"))
        pieces = [
            beyond[number - self.size] if number >= self.size else self._processor.id_to_piece(number)
            for number in kept
        ]
        decoded = self._processor.decode(pieces, return_type="offset_mapping")
        return {**decoded, "ids": kept, "text": decoded["text"].replace("▁", " ")}

    def _tokens(self, encoded: dict[str, Any], text: str, visible: list[int]) -> Tokens:
        """Group pieces into words; `visible` are the positions of the characters that pieces stand for."""
        starts: list[int] = []
        for begin, _ in encoded["offsets"]:
            index = bisect_left(visible, begin)
            starts.append(visible[index] if index < len(visible) else starts[-1] if starts else 0)
        if not starts:
            return Tokens([], [], [], [])
        marks = [*dict.fromkeys(starts), len(text)]  # bytes of one character begin at the same mark
        words_at = {marks[0]: 0}  # start of a word's first piece -> start of the word itself
        for before, mark, after in zip(marks, marks[1:], marks[2:], strict=False):
            cut = self._cut(text, before, mark, after)
            if cut is not None:
                words_at[mark] = cut
        firsts, cuts = list(words_at), [*words_at.values(), len(text)]
        words = [" ".join(split_words(text[cut:end])) for cut, end in pairwise(cuts)]
        word_of = [bisect_right(firsts, start) - 1 for start in starts]
        return Tokens(encoded["ids"], encoded["pieces"], words, word_of)

    def _cut(self, text: str, before: int, mark: int, after: int) -> int | None:
        """Return where the word of the piece at `mark` begins; None if it continues the word before."""
        spaces = [i for i in range(before, mark) if text[i] in SEPARATORS]
        if spaces:
            return spaces[-1] + 1
        if self.words == "pieces":
            return mark
        if self.words == "spaces" or unicodedata.category(text[mark]).startswith("M"):
            return None
        return mark if SPACELESS.search(text, before, after) else None


def _each(ids: Sequence[int], parts: Sequence[Sequence[str]]) -> list[int]:
    """Return the id of each part of each piece."""
    return [number for number, pieces in zip(ids, parts, strict=True) for _ in pieces]


def _listed(texts: Iterable[str]) -> Sequence[str]:
    """Return texts as a list. Raises VocabularyError for a single text, and for what has none."""
    refuse_text(texts, VocabularyError)
    if not isinstance(texts, Iterable):
        raise VocabularyError(f"expected a list of texts, got {texts!r:.60}")
    return texts if isinstance(texts, Sequence) else list(texts)


def _whole(text: str) -> str:
    """Return the text. Raises VocabularyError for anything else, and for half a surrogate pair, which has no
    bytes."""
    if not isinstance(text, str):
        raise VocabularyError(f"expected a text (str), got {text!r:.60}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise VocabularyError(
            f"expected text, got half a surrogate pair at character {error.start} of {text!r}: decode bytes "
            "as UTF-8 with errors='replace'"
        ) from error
    return text
