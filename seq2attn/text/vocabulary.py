"""Sentences <-> pieces <-> ids (SentencePiece, Kudo & Richardson 2018), and pieces <-> words.

A vocabulary is one SentencePiece model. How text is normalised is compiled into that model, so that its
file alone is complete.
"""

import random
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from hashlib import sha256
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2attn.errors import Seq2attnError
from seq2attn.text.subword_sampling import Subwords

if TYPE_CHECKING:
    pass

Words = Literal["auto", "spaces", "pieces"]
Ids = Sequence[int] | NDArray[np.int32]
LONGEST_SENTENCE = 1 << 16  # in bytes; SentencePiece would leave out longer ones than 4192 without a word

# Scripts written without spaces: Thai, Lao, Tibetan, Myanmar, Khmer, Tai, Han, kana.
_SPACELESS = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029"
    "\u3031-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
_WORDS = re.compile("▁?[^▁]+|▁")  # of an unknown piece


class VocabularyError(Seq2attnError):
    """A vocabulary that cannot be trained, read, or used as asked."""


class Tokens(NamedTuple):
    """A sentence in all its forms.

    `word_of` never decreases, and every word has at least one piece. The words, put together, are the text.
    """

    ids: list[int]  # one for each piece, without <s> and </s>
    pieces: list[str]
    words: list[str]
    word_of: list[int]  # for each piece, the index of its word

    def at(self, places: Sequence[int]) -> "Tokens":
        """Only the pieces at these places, which increase, and the words that they are of."""
        kept = {word: number for number, word in enumerate(sorted({self.word_of[i] for i in places}))}
        return Tokens(
            [self.ids[i] for i in places],
            [self.pieces[i] for i in places],
            [self.words[word] for word in kept],
            [kept[self.word_of[i]] for i in places],
        )


class Vocabulary:
    """One SentencePiece model: sentences to ids and back.

    A model that lacks <pad>, <s> or </s> gets them after its own pieces (in this order; `size` grows).

    Args:
        model: what spm_train writes, as bytes.
        words: what a word is: "spaces" = what stands between spaces; "pieces" = every piece; "auto" = every
            piece in scripts without spaces (Han, kana, Thai, ...), by spaces in all others.

    Raises:
        VocabularyError: the bytes are no SentencePiece model, or `words` is none of the three.
    """

    def __init__(self, model: bytes, words: Words = "auto") -> None:
        if words not in ("auto", "spaces", "pieces"):
            raise VocabularyError(f"unknown words '{words}': expected auto, spaces or pieces")
        self.model = model
        self.words: Words = words
        import sentencepiece  # waits: whoever imports only words and tags needs none

        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise VocabularyError(
                f"not a SentencePiece model, or a damaged one ({len(model)} bytes): "
                "expected a .model file as spm_train or `seq2attn train` writes it"
            ) from error
        own = [self._processor.pad_id(), self._processor.bos_id(), self._processor.eos_id()]
        pieces = self._processor.get_piece_size()
        appended = iter(range(pieces, pieces + len(own)))
        self.pad, self.bos, self.eos = (i if i >= 0 else next(appended) for i in own)
        self.unk: int = self._processor.unk_id()
        self._unknown = str(self._processor.id_to_piece(self.unk))
        self.size: int = pieces + own.count(-1)
        self._subwords: dict[tuple[int, float], Subwords] = {}

    @classmethod
    def load(cls, path: Path, words: Words = "auto") -> "Vocabulary":
        """Read a .model file; VocabularyError names the file if it is missing or damaged."""
        try:
            return cls(path.read_bytes(), words)
        except OSError as error:
            raise VocabularyError(f"{path}: cannot be read: {error.strerror}") from error
        except VocabularyError as error:
            raise VocabularyError(f"{path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write the .model file, which other tools read too."""
        path.write_bytes(self.model)

    @property
    def fingerprint(self) -> str:
        """Names what `encode` does: equal for equal models."""
        return sha256(self.model).hexdigest()[:16]

    def normalize(self, text: str) -> str:
        """The text as the model sees it; `decode(encode(text))` gives it back, but for unknown characters."""
        return str(self._processor.normalize(text)).replace("▁", " ").strip(" ")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each sentence, without <s> and </s>."""
        encoded: list[list[int]] = self._processor.encode([_whole(text) for text in texts])
        pairs = zip(encoded, texts, strict=True)
        return [_each(ids, self._parts(text)) if self.unk in ids else ids for ids, text in pairs]

    def sample(self, texts: Sequence[str], seed: int, nbest: int = -1, alpha: float = 0.1) -> list[list[int]]:
        """Like `encode`, with one of the possible segmentations of each sentence, drawn at random: a pure
        function of its arguments.

        Unigram: from the `nbest` best (-1: from all), with probability proportional to p^alpha (Kudo 2018).
        BPE: every merge is left out with probability `alpha` (BPE-dropout, Provilkov et al. 2020).

        Raises:
            VocabularyError: the model knows only one segmentation (char, word), or `nbest` is above 512.
        """
        if nbest in (0, 1):
            return self.encode(texts)
        drawn = random.Random(seed).random
        try:
            subwords = self._subwords.get((nbest, alpha)) or Subwords(self._processor, nbest, alpha)
            self._subwords[nbest, alpha] = subwords
            return [subwords.sample(text, drawn) for text in texts]
        except RuntimeError as error:
            raise VocabularyError(
                "text.sampling: sentences cannot be sampled with this vocabulary: expected a unigram or bpe "
                f"model and nbest of at most 512 (SentencePiece: {error})"
            ) from error

    def decode(self, ids: Sequence[int], beyond: Sequence[str] = ()) -> str:
        """The text of ids; <pad>, <s> and </s> are dropped, <unk> is shown as ⁇.

        beyond: the pieces that ids from `size` on stand for, see `copies`.
        """
        return str(self._decoded(ids, beyond)["text"])

    def split(self, text: str) -> Tokens:
        """The text as ids, pieces and words, which are cut from the text as it is, before normalisation.

        A piece belongs to the word in which its first visible character lies; one that is only a space, to
        the word that follows. What normalisation deletes wholly is part of the word before it.
        """
        found = self._processor.encode(_whole(text), return_type="offset_mapping")
        normalized, origins = self._processor.normalize(text, with_offsets=True)
        visible = [
            origin
            for character, origin in zip(normalized, origins, strict=False)  # one more origin: the end
            if character != "▁" and not text[origin].isspace()
        ]
        parts, offsets = self._parts(text), list[tuple[int, int]]()
        for (begin, end), some in zip(found["offsets"], parts, strict=True):
            places = [*accumulate(map(len, some), initial=bisect_left(origins, begin))]
            offsets += pairwise([begin, *(origins[place] for place in places[1:-1]), end])
        found = {"ids": _each(found["ids"], parts), "pieces": [*chain(*parts)], "offsets": offsets}
        return self._tokens(found, text, visible)

    def join(self, ids: Sequence[int], beyond: Sequence[str] = ()) -> Tokens:
        """The same for produced ids: the words of `decode(ids)`; <pad>, <s> and </s> are dropped."""
        found = self._decoded(ids, beyond)
        text = found["text"]
        return self._tokens(found, text, [i for i, character in enumerate(text) if not character.isspace()])

    def surfaces(self, text: str) -> list[str]:
        """The pieces of a text, one for each id of `encode`; an unknown one as it stands in the text."""
        return [*chain(*self._parts(text))]

    def pieces(self, ids: Ids, text: str = "") -> list[str]:
        """The pieces of ids, into which a text is cut in whatever way (`sample`). An unknown one is as it
        stands in the text; <unk>, if there it does not."""
        found: list[str] = self._processor.id_to_piece([int(number) for number in ids])
        if self.unk in ids:
            unknown = (one for one in self.surfaces(text) if self._processor.piece_to_id(one) == self.unk)
            pairs = zip(ids, found, strict=True)
            found = [next(unknown, piece) if number == self.unk else piece for number, piece in pairs]
        return found

    def copies(self, pieces: Sequence[str]) -> list[int]:
        """What the pieces of a source, and its end, are to who copies them into a text of this vocabulary.

        The id of the same piece and of the end; of a piece that is not in this vocabulary, `size` + its place
        in the source, the first one's if it comes again.
        """
        first: dict[str, int] = {}
        places = (first.setdefault(piece, place) for place, piece in enumerate(pieces))
        known = self._processor.piece_to_id(list(pieces))
        return [
            self.size + place if number == self.unk and piece != self._unknown else number
            for piece, number, place in zip(pieces, known, places, strict=True)
        ] + [self.eos]

    def copied(self, ids: Ids, pieces: Sequence[str], source: Sequence[str]) -> list[int]:
        """The ids of a text with these pieces, where each unknown one that is a piece of the source has the
        id under which it is copied."""
        return [
            self.size + source.index(piece) if number == self.unk and piece in source else int(number)
            for number, piece in zip(ids, pieces, strict=True)
        ]

    def _parts(self, text: str) -> list[list[str]]:
        """The pieces of a text, each cut into its words if it is unknown: those in a row are one piece to
        SentencePiece, and could not be copied one by one."""
        found = self._processor.encode(_whole(text), out_type=str)
        unknown = [number == self.unk for number in self._processor.piece_to_id(found)]
        return [_WORDS.findall(one) if cut else [one] for one, cut in zip(found, unknown, strict=True)]

    def _decoded(self, ids: Sequence[int], beyond: Sequence[str]) -> dict[str, Any]:
        """Text, ids, pieces and their offsets of what is said by ids."""
        kept = [int(number) for number in ids if number not in (self.pad, self.bos, self.eos)]
        if max(kept, default=0) < self.size:
            return dict(self._processor.decode(kept, return_type="offset_mapping"))
        pieces = [
            beyond[number - self.size] if number >= self.size else self._processor.id_to_piece(number)
            for number in kept
        ]
        found = self._processor.decode(pieces, return_type="offset_mapping")
        return {**found, "ids": kept, "text": found["text"].replace("▁", " ")}

    def _tokens(self, found: dict[str, Any], text: str, visible: list[int]) -> Tokens:
        """Group pieces to words; `visible` are the positions of the characters that pieces stand for."""
        starts: list[int] = []
        for begin, _ in found["offsets"]:
            index = bisect_left(visible, begin)
            starts.append(visible[index] if index < len(visible) else starts[-1] if starts else 0)
        if not starts:
            return Tokens([], [], [], [])
        marks = [*dict.fromkeys(starts), len(text)]  # bytes of one character begin at the same mark
        words_at = {marks[0]: 0}  # the mark of a word's first piece -> where the word itself begins
        for before, mark, after in zip(marks, marks[1:], marks[2:], strict=False):
            cut = self._cut(text, before, mark, after)
            if cut is not None:
                words_at[mark] = cut
        firsts, cuts = list(words_at), [*words_at.values(), len(text)]
        words = [" ".join(text[cut:end].split()) for cut, end in pairwise(cuts)]
        word_of = [bisect_right(firsts, start) - 1 for start in starts]
        return Tokens(found["ids"], found["pieces"], words, word_of)

    def _cut(self, text: str, before: int, mark: int, after: int) -> int | None:
        """Where the word begins to which the piece at `mark` belongs; None if the word before goes on."""
        spaces = [i for i in range(before, mark) if text[i].isspace()]
        if spaces:
            return spaces[-1] + 1
        if self.words == "pieces":
            return mark
        if self.words == "spaces" or unicodedata.category(text[mark]).startswith("M"):
            return None
        return mark if _SPACELESS.search(text, before, after) else None


def _each(ids: Sequence[int], parts: Sequence[Sequence[str]]) -> list[int]:
    """The id of each part."""
    return [number for number, some in zip(ids, parts, strict=True) for _ in some]


def _whole(text: str) -> str:
    """The text, if it has no half of a surrogate pair, which SentencePiece cannot take."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise VocabularyError(
            f"expected text, got half a surrogate pair at character {error.start} of {text!r}: decode bytes "
            "as UTF-8 with errors='replace'"
        ) from error
    return text
