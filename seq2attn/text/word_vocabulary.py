"""Tokenization of raw text into words; indices of words, characters and labels."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from seq2attn.errors import Seq2attnError
from seq2attn.text.tag_schemes import OUTSIDE, Scheme, TagError, convert, read
from seq2attn.text.words import WORD, refuse_text

MOST_TYPES = 500  # of spans; transitions between their tags are counted one by one
PADDING, UNKNOWN = 0, 1  # indices of words and of characters
_SPACE = re.compile(r"\s")
_DIGIT = re.compile(r"\d")
_MARK, _JOINER = "\u0300", "\u200d"  # as _TOKEN reads marks; ZERO WIDTH JOINER
_W = rf"[\w{_MARK}{_JOINER}]"
_LETTER = rf"[^\W\d_]{_MARK}*"
_TOKEN = re.compile(
    rf"""
    (?:
      (?:https?://|www\.)\S*[^\s.,;:!?'"’”»)\]}}>]   # addresses, without punctuation after them
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
    | [^\w\s]{_MARK}*(?:{_JOINER}[^\w\s]{_MARK}*)*   # a sign, or signs that are joined into one
    )
    [{_MARK}{_JOINER}]*
    """,
    re.VERBOSE | re.IGNORECASE,
)


class _Seen(dict[int, int]):
    """Maps each character to the one that _TOKEN sees: characters that modify the one before become marks.

    These are marks of all kinds (accents, vowel signs, variation selectors), ZERO WIDTH NON-JOINER, skin
    tones of emoji, and the tag letters of flags. Python's \\w matches none of them.
    """

    def __missing__(self, sign: int) -> int:
        skin_tone, tag = 0x1F3FB <= sign <= 0x1F3FF, 0xE0020 <= sign <= 0xE007F
        mark = unicodedata.category(chr(sign))[0] == "M" or sign == 0x200C or skin_tone or tag
        self[sign] = ord(_MARK) if mark else sign
        return self[sign]


_SEEN = _Seen()


class WordVocabularyError(Seq2attnError):
    """Words or labels from which no vocabulary can be made."""


class Word(NamedTuple):
    """A word and its characters in the text: start, start + 1, ..., end - 1, counted from 0."""

    text: str
    start: int
    end: int


def tokenize(text: str, words: str = "auto") -> list[Word]:
    """Split a raw text into words.

    words: auto = punctuation and clitics (it|'s, did|n't) are words, as in the Penn Treebank and most tagged
    data; spaces = words are separated by ASCII white space.

    Marks stay with the character that they modify: a word begins with a mark only at the start of the text or
    after white space.
    """
    pattern = WORD if words == "spaces" else _TOKEN
    spans = [match.span() for match in pattern.finditer(text.translate(_SEEN))]
    return [Word(text[start:end], start, end) for start, end in spans]


def join_words(words: Iterable[str]) -> str:
    """Join words with single spaces; a space within a word becomes a no-break space (U+00A0)."""
    refuse_text(words, WordVocabularyError, "a list of words")
    return " ".join(_SPACE.sub("\u00a0", word) for word in words)


def split_words(text: str) -> list[str]:
    """Split a text that `join_words` has made."""
    return text.split(" ") if text else []


class WordVocabulary:
    """Indices of words and characters. Make it with `learn`, or with `read` from the `content` of another.

    Words and characters that it does not have are UNKNOWN.
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
        """Make a vocabulary from texts of `join_words`.

        known: further words, which have pre-trained vectors; they do not count towards `size`.
        """
        refuse_text(texts, WordVocabularyError)
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split_words(text))
        if not counts:
            raise WordVocabularyError("no words to learn from: data.train has no sentence, or all are blank")
        characters: Counter[str] = Counter()
        keys: Counter[str] = Counter()
        empty = cls([], [], lowercase, digits)
        for word, count in counts.items():
            keys[empty.key(word)] += count
            spelling = Counter(unicodedata.normalize("NFC", word))
            characters.update({sign: count * number for sign, number in spelling.items()})
        frequent = [key for key, count in keys.most_common(size) if count >= min_count]
        more = dict.fromkeys(empty.key(word) for word in known)
        words = list(dict.fromkeys([*frequent, *(key for key in more if key not in keys)]))
        return cls(words, [sign for sign, _ in characters.most_common()], lowercase, digits)

    @property
    def size(self) -> int:
        """Return the number of word indices, with padding and the unknown word."""
        return len(self.words) + 2

    def key(self, word: str) -> str:
        """Return the form in which a word is looked up: in NFC (composed accents), as vectors are."""
        word = unicodedata.normalize("NFC", word.lower() if self.lowercase else word)
        return _DIGIT.sub("0", word) if self.digits else word

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the indices of the words of texts of `join_words`."""
        refuse_text(texts, WordVocabularyError)
        return [[self._numbers.get(self.key(word), UNKNOWN) for word in split_words(text)] for text in texts]

    def spell(self, word: str) -> list[int]:
        """Return the indices of a word's characters, in NFC."""
        return [self._characters.get(sign, UNKNOWN) for sign in unicodedata.normalize("NFC", word)]

    @cached_property
    def content(self) -> bytes:
        """Return the content of a file from which `read` makes the same vocabulary."""
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
        """Make it from its `content`. WordVocabularyError, which names the field, if it is another."""
        return cls(**_checked(_WORDS_FILE, content))

    @property
    def fingerprint(self) -> str:
        """Return a hash that is equal for equal vocabularies."""
        return sha256(self.content).hexdigest()


class Labels:
    """Indices of labels: of tags in a scheme (texts have tags in bio), or of the labels of sentences."""

    def __init__(self, names: Sequence[str], scheme: Scheme | None = None) -> None:
        self.names, self.scheme = list(names), scheme
        self._numbers = {name: number for number, name in enumerate(self.names)}

    @classmethod
    def learn(cls, texts: Iterable[str], scheme: Scheme | None = None) -> "Labels":
        """Make it from labels; or, if there is a scheme, from tags in bio with spaces between."""
        refuse_text(texts, WordVocabularyError)
        seen = sorted(set(texts))
        if scheme is None:
            if len(seen) < 2:
                raise WordVocabularyError(f"expected at least two labels, got {', '.join(seen) or 'none'}")
            return cls(seen)
        types = sorted({span.type for text in seen for span in read(split_words(text))})
        if not types:
            raise WordVocabularyError("expected tags such as B-PER in the training data, got only O")
        if len(types) > MOST_TYPES:
            raise WordVocabularyError(
                f"expected at most {MOST_TYPES} types of spans, got {len(types):,} ({', '.join(types[:3])}, "
                "...): is the column of tags right?"
            )
        return cls(list(_tags(types, scheme)), scheme)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the indices of labels. An unknown label, which is never predicted, has that of the first
        (O)."""
        refuse_text(texts, WordVocabularyError)
        if self.scheme is None:
            return [[self._numbers.get(text, 0)] for text in texts]
        return [
            [self._numbers.get(tag, 0) for tag in convert(split_words(text), "bio", self.scheme)]
            for text in texts
        ]

    @cached_property
    def content(self) -> bytes:
        """Return the content of a file from which `read` makes the same labels."""
        return _json({"names": self.names, "scheme": self.scheme})

    @classmethod
    def read(cls, content: bytes) -> "Labels":
        """Make it from its `content`. WordVocabularyError, which names the field, if it is another."""
        fields = _checked(_LABELS_FILE, content)
        names, scheme = fields["names"], fields["scheme"]
        if len({*names}) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise WordVocabularyError(f"names: expected each label once, got {twice!r} twice")
        try:
            read(names if scheme else [], scheme)
        except TagError as error:
            raise WordVocabularyError(f"names: {error}") from error
        if scheme and names[0] != OUTSIDE:
            raise WordVocabularyError(f"names: expected {OUTSIDE} as the first, got {names[0]!r}")
        return cls(names, scheme)

    @property
    def fingerprint(self) -> str:
        """Return a hash that is equal for equal labels."""
        return sha256(self.content).hexdigest()


def _tags(types: Sequence[str], scheme: Scheme) -> Iterator[str]:
    yield OUTSIDE
    letters = dict.fromkeys(
        tag.partition("-")[0]
        for size in (1, 3)
        for tag in convert(["B-X", *["I-X"] * (size - 1)], "bio", scheme)
    )
    yield from (f"{letter}-{type}" for type in types for letter in letters)


class _WordsFile(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]
    words: list[str]
    characters: list[str]
    lowercase: bool
    digits: bool


class _LabelsFile(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]
    names: Annotated[list[str], Field(min_length=1)]
    scheme: Scheme | None


_WORDS_FILE: TypeAdapter[Any] = TypeAdapter(_WordsFile)
_LABELS_FILE: TypeAdapter[Any] = TypeAdapter(_LabelsFile)


def _checked(fields: TypeAdapter[Any], content: bytes) -> Any:
    """Return the fields of a JSON file. WordVocabularyError with the first that is of another type."""
    try:
        return fields.validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(map(str, fault["loc"]))
        raise WordVocabularyError(
            f"{field + ': ' if field else ''}{fault['msg']}, got {fault['input']!r:.60}"
        ) from error


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=0) + "\n").encode()
