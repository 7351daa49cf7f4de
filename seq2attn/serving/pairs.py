"""The pairs of languages that a model translates, by its recipe: from its tags, or from its two languages."""

import re
from pathlib import PurePath
from typing import NamedTuple

from seq2attn.recipe import AnyRecipe
from seq2attn.recipe.data import Corpus, FilesCorpus
from seq2attn.serving.languages import code_of, is_language, same_language
from seq2attn.text.given_ids import CLOSE, OPEN
from seq2attn.text.vocabulary import Vocabulary

_TAG = re.compile(r"\W*(?:2|to[ _]?|_)*(?P<code>[A-Za-z]{2,3}(?:[-_][A-Za-z]{2,4})?)[\W_]*")


class Pair(NamedTuple):
    """A language that is translated into another one."""

    source: str
    target: str
    tag: str | None = None  # with which sources of this pair begin

    def fits(self, source: str | None, target: str | None) -> bool:
        """Whether it is a pair of these languages; None is any."""
        return (source is None or same_language(self.source, source)) and (
            target is None or same_language(self.target, target)
        )


def pairs_of(recipe: AnyRecipe, source: Vocabulary) -> tuple[Pair, ...]:
    """Return the pairs of a model that translates.

    Tags that name a language (<2de>, >>deu<<) are targets. The source of each is told by the names of the
    files that have the tag (train.en.gz), or it is the recipe's source language, unless that is a target,
    too: then each language is translated into each other one.
    """
    train, (first, second) = recipe.data.train, recipe.data.languages
    if recipe.text.tags == "marked":
        named = [name for name in source.names if name.startswith(OPEN) and name.endswith(CLOSE)]
    else:
        named = [tag for tag in recipe.text.tags if source.has_tag(tag)]
    tags = {tag: code for tag in named if (code := _language(tag))}
    if not tags:
        return (Pair(first, second),)
    every = [*dict.fromkeys([*filter(is_language, (first, second)), *tags.values()])]
    one_source = is_language(first) and not any(same_language(first, code) for code in tags.values())
    pairs = list[Pair]()
    for tag, code in tags.items():
        told = [own for corpus in train if corpus.tag == tag and (own := _of_file(corpus))]
        others = [first] if one_source else [own for own in every if not same_language(own, code)]
        pairs += [Pair(code_of(own), code, tag) for own in dict.fromkeys(told or others)]
    return tuple(pairs)


def _language(tag: str) -> str:
    """Return the code of the language that a tag names; empty if it names none."""
    match = _TAG.fullmatch(tag)
    return code_of(match["code"]) if match and is_language(match["code"]) else ""


def _of_file(corpus: Corpus) -> str:
    """Return the language that the name of a corpus' source file ends with; empty if it tells none."""
    if not isinstance(corpus, FilesCorpus):
        return ""
    suffixes = (suffix[1:] for suffix in reversed(PurePath(str(corpus.files[0])).suffixes))
    return next(filter(is_language, suffixes), "")
