"""Subword vocabularies trained on a text."""

import io
import random
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from seq2attn.text.vocabulary import LONGEST_SENTENCE, Vocabulary, VocabularyError, Words

if TYPE_CHECKING:
    import sentencepiece

PieceModel = Literal["unigram", "bpe", "char", "word"]

MOST_SENTENCES = 1_000_000  # to learn a vocabulary from: more take gigabytes and change little
SPECIALS = 4  # <pad>, <unk>, <s>, </s>
BYTES = 256

_SETTLED: dict[str, Any] = {  # of every training
    "max_sentence_length": LONGEST_SENTENCE,
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": 2,
    "eos_id": 3,
    "num_threads": 16,  # the model depends on it, so it must not depend on the machine
    "minloglevel": 2,
}
_BREAKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"  # a sentence stays on one line


def train_vocabulary(
    texts: Iterable[str],
    *,
    model: PieceModel = "unigram",
    size: int = 8000,
    byte_fallback: bool = True,
    character_coverage: float = 1.0,
    lowercase: bool = False,
    nfkc: bool = True,
    words: Words = "auto",
    seed: int = 1,
) -> Vocabulary:
    """Learn the pieces of a language from sentences: <pad> 0, <unk> 1, <s> 2, </s> 3.

    The same texts and arguments give the same model. Of more than a million sentences, a million are drawn.

    Args:
        texts: one or several languages, in any order; blank ones do not count.
        model: how pieces are found: unigram (Kudo 2018), bpe (Sennrich et al. 2016), single characters, or
            whole words (the most frequent; what stands between spaces, punctuation and all).
        size: pieces in all; of a char or word model, at most.
        byte_fallback: a character outside the vocabulary becomes its UTF-8 bytes instead of <unk>. Not of a
            word model: each of its unknown words is one <unk>.
        character_coverage: share of the text whose characters get a piece; rarer ones are outside.
        lowercase: letter by letter, as `str.lower` does (ß stays ß).
        nfkc: Unicode NFKC, without control characters; if not, only spaces and line breaks change.
        words: see `Vocabulary`.
        seed: of the draw of sentences.

    Raises:
        VocabularyError: no text, or `size` is more or less than the text can give; the message says how much.
    """
    byte_fallback = byte_fallback and model != "word"  # SentencePiece would spell the space before it, too
    least = SPECIALS + BYTES * byte_fallback
    if size <= least:
        raise VocabularyError(
            f"text.size: {size} is too small: special pieces{' and bytes' * byte_fallback} alone are {least}"
        )
    sentences = _draw(texts, seed)
    if not sentences:
        raise VocabularyError("no text to learn a vocabulary from: there is no sentence, or all are blank")
    import sentencepiece

    sentencepiece.set_min_log_level(2)  # warnings and up
    trained = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=trained,
            model_type=model,
            vocab_size=size,
            hard_vocab_limit=model != "word",  # a text may have fewer words
            byte_fallback=byte_fallback,
            character_coverage=character_coverage,
            normalizer=_normalizer(lowercase, nfkc),
            **_SETTLED,
        )
    except RuntimeError as error:
        raise VocabularyError(_explain(str(error), size)) from error
    return Vocabulary(trained.getvalue(), words)


def _draw(texts: Iterable[str], seed: int) -> list[str]:
    """At most MOST_SENTENCES of the texts that are not blank, each with the same chance (Vitter 1985, R)."""
    generator = random.Random(seed)
    drawn: list[str] = []
    for count, text in enumerate(text for text in texts if text.strip()):
        if count < MOST_SENTENCES:
            drawn.append(text)
        elif (place := generator.randrange(count + 1)) < MOST_SENTENCES:
            drawn[place] = text
    return drawn


def _normalizer(lowercase: bool, nfkc: bool) -> "sentencepiece.SentencePieceNormalizer":
    """Rules for SentencePiece. Its own lower-casing rules fold case (ß to ss), which nobody wants to read."""
    import sentencepiece

    named = sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc")
    if nfkc and not lowercase:
        return named
    rules = dict.fromkeys(_BREAKS, " ")
    if lowercase:
        letters = (chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
        rules |= {letter: letter.lower() for letter in letters if letter.lower() != letter}
    if nfkc:
        rules |= {source: target.lower() for source, target in named.decompile()}
    return sentencepiece.SentencePieceNormalizer(norm_map=list(rules.items()))


def _explain(failure: str, size: int) -> str:
    """What SentencePiece's message means for the recipe."""
    if most := re.search(r"value <= (\d+)", failure):
        return (
            f"text.size: {size} pieces are more than this text can give: the largest possible size is "
            f"{most[1]}; lower text.size or give more text"
        )
    if least := re.search(r"required_chars\. \d+ vs (\d+)", failure):
        return (
            f"text.size: {size} pieces are too few: the characters of this text need {least[1]}; "
            "raise text.size or lower text.character_coverage"
        )
    return f"SentencePiece cannot learn a vocabulary from this text: {failure}"
