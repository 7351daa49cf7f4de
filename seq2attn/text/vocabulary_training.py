"""Train subword vocabularies."""

import io
import math
import random
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from seq2attn.text.vocabulary import LONGEST_SENTENCE, Vocabulary, VocabularyError, Words
from seq2attn.text.words import refuse_text

if TYPE_CHECKING:
    import sentencepiece

PieceModel = Literal["unigram", "bpe", "char", "word"]

MOST_SENTENCES = 1_000_000  # to learn a vocabulary from: more take gigabytes and change little
SPECIALS = 4  # <pad>, <unk>, <s>, </s>
BYTES = 256
LEAST_COVERAGE = 0.98  # of characters, SentencePiece's own limit
# The size that follows the text: different words, and so useful pieces, grow about as the square root of a
# text's length (Heaps 1978). 100,000 words get some 2,000 learned pieces, as in Sennrich & Zhang (2019).
PIECES_PER_ROOT = 3.0
MOST_LEARNED = 32_000

_FIXED_OPTIONS: dict[str, Any] = {
    "max_sentence_length": LONGEST_SENTENCE,
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": 2,
    "eos_id": 3,
    "num_threads": 16,  # the model depends on it, so that it must be the same on all machines
    "minloglevel": 2,
}
SIDES = "; if no size fits source and target, give each its own, as in text.size: [300, 400]"
_TOO_LARGE = re.compile(r"value <= (\d+)")  # SentencePiece's error, with the largest size that is possible
_NON_JOINER = "\u200c"
_BREAKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"  # become spaces


def train_vocabulary(
    texts: Iterable[str],
    *,
    model: PieceModel = "unigram",
    size: int | None = None,
    byte_fallback: bool = True,
    character_coverage: float = 1.0,
    lowercase: bool = False,
    nfkc: bool = True,
    words: Words = "auto",
    seed: int = 1,
) -> Vocabulary:
    """Train a vocabulary on sentences. Its special pieces are <pad> 0, <unk> 1, <s> 2, </s> 3.

    The same texts and arguments give the same model. More than a million sentences are sampled to a million.

    Args:
        texts: sentences of one language or more, in any order; blank ones do not count.
        model: unigram (Kudo 2018), bpe (Sennrich et al. 2016), char (single characters), or word (the most
            frequent words, separated by spaces, with their punctuation).
        size: number of pieces; for char and word models, the largest number. None = from the texts: special
            pieces, bytes (of `byte_fallback`) and all characters, and 3 times the square root of the texts'
            length in characters, at most MOST_LEARNED, or as many as the texts give; for word, MOST_LEARNED.
        byte_fallback: unknown characters become UTF-8 bytes instead of <unk>. Not for word models, where each
            unknown word is one <unk>.
        character_coverage: share of the text whose characters have a piece; rarer characters are unknown.
        lowercase: lower-case each letter as `str.lower` does (ß stays ß).
        nfkc: normalise to NFKC without control characters; if false, only spaces and line breaks change, so
            that `decode` gives back what `encode` was given.
        words: see `Vocabulary`.
        seed: of sampling sentences.

    Raises:
        VocabularyError: no text, or a `size` too large or too small for it; the message has the limit. Or a
            `character_coverage` below LEAST_COVERAGE.
    """
    byte_fallback = byte_fallback and model != "word"  # SentencePiece would encode the space before, too
    _check(size, byte_fallback, character_coverage)
    refuse_text(texts, VocabularyError)
    sentences = _sample(texts, seed)
    if not sentences:
        raise VocabularyError("no text to learn a vocabulary from: there is no sentence, or all are blank")
    options = {
        "model_type": model,
        "hard_vocab_limit": model != "word",  # a text may have fewer words
        "byte_fallback": byte_fallback,
        "character_coverage": character_coverage,
        "normalizer": _normalizer(lowercase, nfkc),
    }
    chosen = size or _size(normalized(sentences, lowercase=lowercase, nfkc=nfkc), model, byte_fallback)
    try:
        trained = _train(sentences, chosen, options)
    except RuntimeError as error:
        most = _TOO_LARGE.search(str(error))
        if size is not None or most is None:
            raise VocabularyError(_explain(str(error), chosen)) from error
        trained = _train(sentences, int(most[1]), options)
    return Vocabulary(trained, words)


def _train(sentences: list[str], size: int, options: dict[str, Any]) -> bytes:
    """Return a serialised model. RuntimeError if SentencePiece refuses the size."""
    import sentencepiece

    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=trained, vocab_size=size, **options, **_FIXED_OPTIONS
    )
    return trained.getvalue()


def _size(texts: Iterable[str], model: PieceModel, byte_fallback: bool) -> int:
    """Return the size of a vocabulary that follows normalised texts; see `train_vocabulary`."""
    if model == "word":
        return MOST_LEARNED
    characters, total = {" "}, 0
    for text in texts:
        characters.update(text)
        total += len(text)
    learned = min(MOST_LEARNED, math.ceil(PIECES_PER_ROOT * math.sqrt(total)))
    return SPECIALS + BYTES * byte_fallback + len(characters) + learned


def _check(size: int | None, byte_fallback: bool, character_coverage: float) -> None:
    """Raise VocabularyError for arguments that SentencePiece refuses for any text."""
    if not LEAST_COVERAGE <= character_coverage <= 1:
        raise VocabularyError(
            f"text.character_coverage: expected {LEAST_COVERAGE} to 1, got {character_coverage}"
        )
    least = SPECIALS + BYTES * byte_fallback
    if size is not None and size <= least:
        raise VocabularyError(
            f"text.size: {size} is too small: special pieces{' and bytes' * byte_fallback} alone are {least}"
        )


def _sample(texts: Iterable[str], seed: int) -> list[str]:
    """Sample at most MOST_SENTENCES texts that are not blank, uniformly (reservoir sampling: Vitter 1985,
    R)."""
    generator = random.Random(seed)
    sample: list[str] = []
    for count, text in enumerate(text for text in texts if text.strip()):
        if count < MOST_SENTENCES:
            sample.append(text)
        elif (index := generator.randrange(count + 1)) < MOST_SENTENCES:
            sample[index] = text
    return sample


def normalized(texts: Iterable[str], *, lowercase: bool = False, nfkc: bool = True) -> Iterator[str]:
    """Yield texts as a vocabulary that is trained with these arguments normalises them."""
    normalizer = _normalizer(lowercase, nfkc)
    for text in texts:
        yield str(normalizer.normalize(text)).replace("▁", " ").strip(" ")


def with_normalization(vocabulary: Vocabulary, *, lowercase: bool = False, nfkc: bool = True) -> Vocabulary:
    """Return a vocabulary with the same pieces that normalises texts as these arguments say."""
    # The parts of two serialised models in a row are merged, and the later part takes precedence.
    rules = _normalizer(lowercase, nfkc).serialized_model_proto()
    return Vocabulary(vocabulary.model + rules, vocabulary.words)


@cache  # compiling takes a second
def _normalizer(lowercase: bool, nfkc: bool) -> "sentencepiece.SentencePieceNormalizer":
    """Make normalisation rules. SentencePiece's own rules differ: they fold case (ß to ss), which reads
    badly, and make a space of ZERO WIDTH NON-JOINER, which joins parts of a word."""
    import sentencepiece

    sentencepiece.set_min_log_level(2)  # warnings and up
    named = sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc")
    rules = dict.fromkeys(_BREAKS, " ")
    if lowercase:
        letters = (chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
        rules |= {letter: letter.lower() for letter in letters if letter.lower() != letter}
    if nfkc:
        nfkc_rules = {source: target for source, target in named.decompile() if source != _NON_JOINER}
        rules |= {source: target.lower() if lowercase else target for source, target in nfkc_rules.items()}
    return sentencepiece.SentencePieceNormalizer(norm_map=list(rules.items()))


def _explain(failure: str, size: int) -> str:
    """Return SentencePiece's error message in terms of the recipe."""
    if most := _TOO_LARGE.search(failure):
        return (
            f"text.size: {size} pieces are more than this text can give: the largest possible size is "
            f"{most[1]}; lower text.size or give more text{SIDES}"
        )
    if least := re.search(r"required_chars\. \d+ vs (\d+)", failure):
        return (
            f"text.size: {size} pieces are too few: the characters of this text need {least[1]}; "
            f"raise text.size or lower text.character_coverage{SIDES}"
        )
    return f"SentencePiece cannot learn a vocabulary from this text: {failure}"
