"""Strings to ids and back: subword vocabularies, word vocabularies with characters, tag schemes."""

from seq2attn.text.vocabulary import Tokens, Vocabulary, VocabularyError
from seq2attn.text.vocabulary_training import train_vocabulary

__all__ = [
    "Tokens",
    "Vocabulary",
    "VocabularyError",
    "train_vocabulary",
]
