"""Translation of marked texts: the markup is taken out, and put back where the words went."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seq2attn.alignment.markup import Kind, Segment, parse
from seq2attn.alignment.markup_transfer import Part, parts, transfer_parts
from seq2attn.alignment.word_alignment import Link
from seq2attn.inference.results import Translation
from seq2attn.text.sentence_splitter import in_sentences


@dataclass(frozen=True)
class MarkedTranslation:
    """A translation with the markup of its source, and the translations of the sentences of its segments."""

    text: str
    segments: tuple[Translation, ...]

    def __str__(self) -> str:
        return self.text


def translate_marked(
    texts: Sequence[str],
    kind: Kind,
    translate: Callable[[list[str]], Sequence[Translation]],
    split: bool = True,
) -> list[MarkedTranslation]:
    """Return the translations of marked texts.

    translate: called once, with the plain texts of all sentences; returns their translations with alignments;
    split: False leaves each segment whole.
    """
    marked = MarkedTexts(texts, kind, split)
    return marked.translated(translate(marked.plain) if marked.plain else ())


class MarkedTexts:
    """Texts whose markup was taken out. Segments are divided into sentences, unless `split` is False."""

    def __init__(self, texts: Sequence[str], kind: Kind, split: bool = True) -> None:
        self.kind = kind
        self.parsed = [
            [
                part
                if isinstance(part, str)
                else (part, in_sentences(part.text) if split else [(part.text, "")])
                for part in parse(text, kind)
            ]
            for text in texts
        ]

    @property
    def plain(self) -> list[str]:
        """The plain texts of the sentences of all segments."""
        pairs = (part for parsed in self.parsed for part in parsed if not isinstance(part, str))
        return [sentence for _, sentences in pairs for sentence, _ in sentences]

    def translated(self, results: Sequence[Translation]) -> list[MarkedTranslation]:
        """Return the translations of the texts, of those of the sentences, which have alignments."""
        left, translations = iter(results), []
        for parsed in self.parsed:
            written, used = list[str](), list[Translation]()
            for part in parsed:
                if isinstance(part, str):
                    written.append(part)
                    continue
                segment, sentences = part
                of_segment = [next(left) for _ in sentences]
                used += of_segment
                written.append(_marked(segment, sentences, of_segment, self.kind))
            translations.append(MarkedTranslation("".join(written), tuple(used)))
        return translations


def _marked(
    segment: Segment, sentences: Sequence[tuple[str, str]], results: Sequence[Translation], kind: Kind
) -> str:
    """Return the translation of a segment, of those of its sentences, each with the white space after it."""
    text, links, source, target = "", list[Link](), list[Part](), list[Part]()
    offset = source_words = target_words = 0
    for (sentence, after), result in zip(sentences, results, strict=True):
        source += _shifted(parts(sentence, result.source_words), offset, source_words)
        target += _shifted(parts(result.text, result.words), len(text), target_words)
        links += [Link(source_words + link.source, target_words + link.target) for link in result.links()]
        text, offset = text + result.text + after, offset + len(sentence + after)
        source_words, target_words = source_words + len(result.source_words), target_words + len(result.words)
    return transfer_parts(segment, text, (source, target), links, kind)


def _shifted(found: Sequence[Part], offset: int, words: int) -> list[Part]:
    """Return the parts of a sentence as those of its text, before which are so many characters and words."""
    return [Part(offset + part.start, offset + part.end, words + part.word, part.kind) for part in found]
