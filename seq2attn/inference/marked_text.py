"""Translation of marked texts: the markup is taken out, and put back where the words went."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seq2attn.alignment.markup import Kind, Segment, parse
from seq2attn.alignment.markup_transfer import transfer
from seq2attn.inference.results import Translation


@dataclass(frozen=True)
class MarkedTranslation:
    """A translation with the markup of its source, and the translations of its segments."""

    text: str
    segments: tuple[Translation, ...]

    def __str__(self) -> str:
        return self.text


def translate_marked(
    texts: Sequence[str], kind: Kind, translate: Callable[[list[str]], Sequence[Translation]]
) -> list[MarkedTranslation]:
    """Return the translations of marked texts.

    translate: called once, with the plain texts of all segments; returns their translations with alignments.
    """
    parsed = [parse(text, kind) for text in texts]
    plain = [part.text for parts in parsed for part in parts if isinstance(part, Segment)]
    results = iter(translate(plain) if plain else ())
    translations = []
    for parts in parsed:
        written, segments = list[str](), list[Translation]()
        for part in parts:
            if isinstance(part, str):
                written.append(part)
                continue
            result = next(results)
            segments.append(result)
            words = result.source_words, result.words
            written.append(transfer(part, result.text, words, result.links(), kind))
        translations.append(MarkedTranslation("".join(written), tuple(segments)))
    return translations
