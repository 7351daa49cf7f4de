"""Sentences of words with characters and labels, and tiny taggers and classifiers, for their tests."""

from typing import Any

import torch

from seq2attn.layers.word_embedding import Words
from seq2attn.models.tagger_factory import build_tagger
from seq2attn.models.taggers import Classifier, SpanTagger, Tagger
from seq2attn.recipe import ClassifierRecipe, TaggerRecipe

WORDS, CHARACTERS = 23, 13  # sizes of the vocabularies
TYPES = ("LOC", "PER")
LABELS = ["O", *(f"{letter}-{kind}" for kind in TYPES for letter in "BI")]
TINY: dict[str, Any] = {
    "embedding": {"size": 7, "characters": {"kind": "lstm", "embedding": 5, "size": 3}, "dropout": 0.0},
    "encoder": {"kind": "recurrent", "size": 5, "dropout": 0.0},
}
TRANSFORMER: dict[str, Any] = {
    "kind": "transformer",
    "size": 10,
    "layers": 2,
    "feed_forward": 17,
    "self_attention": {"heads": 2},
    "dropout": 0.0,
}


def characters_of(word: int) -> list[int]:
    """The characters of a word, from 1 to 6 of them."""
    return [2 + (word * 5 + position * (word + 1)) % (CHARACTERS - 2) for position in range(1 + word % 6)]


def batch(*sentences: list[int], garbage: bool = False, width: int = 0) -> Words:
    """Sentences of word ids, padded; with garbage at padding if that is wanted."""
    distinct = sorted({word for sentence in sentences for word in sentence}) or [1]
    longest = max([1, width, *map(len, sentences)])
    mask = torch.arange(longest) < torch.tensor([len(sentence) for sentence in sentences])[:, None]
    ids, character_rows = torch.zeros(2, *mask.shape, dtype=torch.long)
    if garbage:
        ids += WORDS - 1
        character_rows += len(distinct) - 1
    for row, sentence in enumerate(sentences):
        ids[row, : len(sentence)] = torch.tensor(sentence, dtype=torch.long)
        character_rows[row, : len(sentence)] = torch.tensor([distinct.index(w) for w in sentence]).long()
    words = [characters_of(word) for word in distinct]
    characters = torch.zeros(len(words), max(map(len, words)) + 2 * garbage, dtype=torch.long)
    for row, word in enumerate(words):
        characters[row, : len(word)] = torch.tensor(word)
    half = len(words) // 2
    blocks = (characters[:half], characters[half:]) if half else (characters,)
    return Words(ids, mask, character_rows, blocks)


def sentences(*lengths: int, seed: int = 1) -> list[list[int]]:
    """Random sentences of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, WORDS, (length,), generator=generator).tolist() for length in lengths]


def tagger(seed: int = 1, scheme: Any = "bio", **sections: Any) -> Any:
    """A Tagger or SpanTagger in float64, in evaluation; its scores are sharpened so that they differ."""
    return _sharp(TaggerRecipe.model_validate({**TINY, **sections}), LABELS, scheme, seed)


def classifier(seed: int = 1, **sections: Any) -> Any:
    """A Classifier in float64, in evaluation."""
    return _sharp(ClassifierRecipe.model_validate({**TINY, **sections}), ["ham", "news", "spam"], None, seed)


def _sharp(
    recipe: TaggerRecipe | ClassifierRecipe, labels: list[str], scheme: Any, seed: int
) -> Tagger | SpanTagger | Classifier:
    torch.manual_seed(seed)
    model = build_tagger(recipe, WORDS, CHARACTERS, labels, scheme).double().eval()
    with torch.no_grad():
        model.output.weight.mul_(5)
    return model
