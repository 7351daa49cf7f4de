"""Words as a tagger knows them: their numbers, their characters, and where they stand in a text."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple

from seq2attn.errors import Seq2attnError
from seq2attn.text.tag_schemes import OUTSIDE, Scheme, convert, read

PADDING, UNKNOWN = 0, 1  # of words and of characters
_SPACE = re.compile(r"\s")
_DIGIT = re.compile(r"\d")
_MARK, _JOINER = "\u0300", "\u200d"  # as _TOKEN reads marks; ZERO WIDTH JOINER
_W = rf"[\w{_MARK}{_JOINER}]"
_LETTER = rf"[^\W\d_]{_MARK}*"
_TOKEN = re.compile(
    rf"""
    (?:
      (?:https?://|www\.)\S*[^\s.,;:!?'"’”»)\]}}>]   # addresses, without what closes behind them
    | [\w{_MARK}.+-]+@\w[\w{_MARK}-]*(?:\.\w[\w{_MARK}-]*)+  # mail
    | [@\#]{_W}+                                     # names and topics of social media
    | (?:{_LETTER}\.){{2,}}(?:-{_W}+)*               # U.S.  U.S.-led
    | (?-i:[A-Z])\.(?=\s+\S)                         # J. Smith
    | (?:mr|mrs|ms|dr|prof|st|jr|sr|vs|inc|corp|ltd|co)\.(?!\s*\Z)
    | ^\d+\.(?=\s+\S)                                # 1. Who leads
    | (?-i:[A-Z]{{1,3}})\$                            # US$
    | (?:(?<![^\s(])[+-])?(?:(?<!{_W})\.)?            # +44  .500  1,000.50  10:30  90s  12-year-old
      \d+(?:[.,:/-]\d+)*{_W}*(?:-{_W}+)*
    | {_W}+?(?=n['’]t(?!{_W}))                       # did|n't
    | n['’]t(?!{_W})
    | ['’](?:s|m|d|re|ve|ll)(?!{_W})                 # it|'s
    | {_W}+(?:(?:[-_&]|['’](?!(?:s|m|d|re|ve|ll)(?!{_W}))){_W}+)*  # EU-wide  S&P  O'Brien
    | \.{{2,}} | -{{2,}}
    | [\U0001f1e6-\U0001f1ff]{{2}}                     # flags
    | [^\w\s]{_MARK}*(?:{_JOINER}[^\w\s]{_MARK}*)*   # a sign, or several in one
    )
    [{_MARK}{_JOINER}]*
    """,
    re.VERBOSE | re.IGNORECASE,
)


class _Seen(dict[int, int]):
    """Characters as _TOKEN sees them, one for one: what changes the one before it is a mark.

    Such are marks of all kinds (accents, vowel signs, variation selectors), ZERO WIDTH NON-JOINER, the tints
    of emoji, and the letters of tags in flags. Python's \\w knows none of them.
    """

    def __missing__(self, sign: int) -> int:
        tint, tag = 0x1F3FB <= sign <= 0x1F3FF, 0xE0020 <= sign <= 0xE007F
        mark = unicodedata.category(chr(sign))[0] == "M" or sign == 0x200C or tint or tag
        self[sign] = ord(_MARK) if mark else sign
        return self[sign]


_SEEN = _Seen()


class WordVocabularyError(Seq2attnError):
    """Words or labels that cannot be read."""


class Word(NamedTuple):
    """A word and where it stands: characters start, start + 1, ..., end - 1 of its text, from 0."""

    text: str
    start: int
    end: int


def tokenize(text: str, words: str = "auto") -> list[Word]:
    """The words of a raw text. auto: punctuation stands by itself, as do clitics (it|'s, did|n't), as in the
    Penn Treebank and most tagged data; spaces: what stands between white space.

    Marks belong to what they stand on: no word begins with one, unless there is nothing before it.
    """
    pattern = re.compile(r"\S+") if words == "spaces" else _TOKEN
    places = [found.span() for found in pattern.finditer(text.translate(_SEEN))]
    return [Word(text[start:end], start, end) for start, end in places]


def join_words(words: Iterable[str]) -> str:
    """Words as one text with single spaces; a space within a word becomes a no-break space (U+00A0)."""
    return " ".join(_SPACE.sub("\u00a0", word) for word in words)


def split_words(text: str) -> list[str]:
    """The inverse of `joined`."""
    return text.split(" ") if text else []


class WordVocabulary:
    """Numbers of words and characters. Make it with `learn`, or from the `content` of another.

    A word that is not in it is UNKNOWN; the same of a character.
    """

    def __init__(
        self, words: Sequence[str], characters: Sequence[str], lowercase: bool = True, digits: bool = True
    ) -> None:
        self.words, self.characters = list(words), list(characters)
        self.lowercase, self.digits = lowercase, digits
        self._numbers = {word: number for number, word in enumerate(self.words, UNKNOWN + 1)}
        self._characters = {sign: number for number, sign in enumerate(self.characters, UNKNOWN + 1)}

    @classmethod
    def learn(
        cls,
        texts: Iterable[str],
        *,
        size: int = 50_000,
        min_count: int = 1,
        lowercase: bool = True,
        digits: bool = True,
        known: Iterable[str] = (),
    ) -> "WordVocabulary":
        """From texts as `joined` makes them. known: words that get a number whatever the texts say, because
        there are vectors of them; beyond size."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split_words(text))
        if not counts:
            raise WordVocabularyError("no words to learn from: data.train has no sentence, or all are blank")
        characters: Counter[str] = Counter()
        looked_up: Counter[str] = Counter()
        empty = cls([], [], lowercase, digits)
        for word, count in counts.items():
            looked_up[empty.key(word)] += count
            spelling = Counter(unicodedata.normalize("NFC", word))
            characters.update({sign: count * number for sign, number in spelling.items()})
        often = [word for word, count in looked_up.most_common(size) if count >= min_count]
        more = dict.fromkeys(empty.key(word) for word in known)
        words = list(dict.fromkeys([*often, *(word for word in more if word not in looked_up)]))
        return cls(words, [sign for sign, _ in characters.most_common()], lowercase, digits)

    @property
    def size(self) -> int:
        """Numbers of words in all, padding and the unknown word included."""
        return len(self.words) + 2

    def key(self, word: str) -> str:
        """How a word is looked up: in NFC, as vectors are, whether or not its accents are written apart."""
        word = unicodedata.normalize("NFC", word.lower() if self.lowercase else word)
        return _DIGIT.sub("0", word) if self.digits else word

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The numbers of the words of texts as `joined` makes them."""
        return [[self._numbers.get(self.key(word), UNKNOWN) for word in split_words(text)] for text in texts]

    def spell(self, word: str) -> list[int]:
        """The numbers of a word's characters, in NFC."""
        return [self._characters.get(sign, UNKNOWN) for sign in unicodedata.normalize("NFC", word)]

    @cached_property
    def content(self) -> bytes:
        """The lexicon as a file, from which `read` makes it again."""
        return _json(
            {
                "words": self.words,
                "characters": self.characters,
                "lowercase": self.lowercase,
                "digits": self.digits,
            }
        )

    @classmethod
    def read(cls, content: bytes) -> "WordVocabulary":
        """From its content."""
        return cls(**json.loads(content))

    @property
    def fingerprint(self) -> str:
        """Equal for equal lexicons."""
        return sha256(self.content).hexdigest()


class Labels:
    """Numbers of labels. Of words: the tags of the types in a scheme, whatever scheme texts are in (bio); of
    whole sentences: their names.
    """

    def __init__(self, names: Sequence[str], scheme: Scheme | None = None) -> None:
        self.names, self.scheme = list(names), scheme
        self._numbers = {name: number for number, name in enumerate(self.names)}

    @classmethod
    def learn(cls, texts: Iterable[str], scheme: Scheme | None = None) -> "Labels":
        """From labels, or from tags (bio) with spaces between if there is a scheme."""
        seen = sorted(set(texts))
        if scheme is None:
            if len(seen) < 2:
                raise WordVocabularyError(
                    f"expected two labels or more to tell apart, got {', '.join(seen) or 'none'}"
                )
            return cls(seen)
        types = sorted({span.type for text in seen for span in read(split_words(text))})
        if not types:
            raise WordVocabularyError("expected tags such as B-PER in the training data, got none but O")
        return cls(list(_tags(types, scheme)), scheme)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Their numbers; a label that is not known counts as the first (O), as it can never be predicted."""
        if self.scheme is None:
            return [[self._numbers.get(text, 0)] for text in texts]
        return [
            [self._numbers.get(tag, 0) for tag in convert(split_words(text), "bio", self.scheme)]
            for text in texts
        ]

    @cached_property
    def content(self) -> bytes:
        """The labels as a file, from which `read` makes them again."""
        return _json({"names": self.names, "scheme": self.scheme})

    @classmethod
    def read(cls, content: bytes) -> "Labels":
        """From its content."""
        return cls(**json.loads(content))

    @property
    def fingerprint(self) -> str:
        """Equal for equal labels."""
        return sha256(self.content).hexdigest()


def _tags(types: Sequence[str], scheme: Scheme) -> Iterator[str]:
    yield OUTSIDE
    letters = dict.fromkeys(
        tag.partition("-")[0]
        for size in (1, 3)
        for tag in convert(["B-X", *["I-X"] * (size - 1)], "bio", scheme)
    )
    yield from (f"{letter}-{type}" for type in types for letter in letters)


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=0) + "\n").encode()
