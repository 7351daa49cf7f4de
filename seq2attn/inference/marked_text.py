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
    marked = MarkedTexts(texts, kind)
    return marked.translated(translate(marked.plain) if marked.plain else ())


class MarkedTexts:
    """Texts whose markup was taken out."""

    def __init__(self, texts: Sequence[str], kind: Kind) -> None:
        self.kind, self.parsed = kind, [parse(text, kind) for text in texts]

    @property
    def plain(self) -> list[str]:
        """The plain texts of all segments."""
        return [part.text for parts in self.parsed for part in parts if isinstance(part, Segment)]

    def translated(self, results: Sequence[Translation]) -> list[MarkedTranslation]:
        """Return the translations of the texts, of those of the segments, which have alignments."""
        left, translations = iter(results), []
        for parts in self.parsed:
            written, segments = list[str](), list[Translation]()
            for part in parts:
                if isinstance(part, str):
                    written.append(part)
                    continue
                result = next(left)
                segments.append(result)
                words = result.source_words, result.words
                written.append(transfer(part, result.text, words, result.links(), self.kind))
            translations.append(MarkedTranslation("".join(written), tuple(segments)))
        return translations
