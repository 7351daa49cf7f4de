"""Ids of pieces that do not come from the SentencePiece model: those of another tool, and of tags."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from seq2attn.errors import Seq2attnError

if TYPE_CHECKING:
    import sentencepiece

UNKNOWN, END, PADDING, START = "<unk>", "</s>", "<pad>", "<s>"  # the pieces that are no text
OPEN, CLOSE = ">>", "<<"  # around tags that are `marked`

Tags = Sequence[str] | Literal["marked"]


class Numbering(NamedTuple):
    """The ids of a vocabulary's pieces, where they are not those of the SentencePiece model, and its tags."""

    ids: Mapping[str, int] | None = (
        None  # 0, 1, ... by piece, special ones and tags included; None: the model's
    )
    start: str | None = None  # the piece that the decoder reads first; None: <s>
    # A tag at the beginning of a text is one piece, which SentencePiece never sees. Without `ids`, tags have
    # ids after all pieces; "marked": any >>text<< is one, those that have no id as <unk>.
    tags: Tags = ()

    def split(self, text: str) -> tuple[str, str]:
        """Return the tag that a text begins with, which may be empty, and the rest of the text."""
        if self.tags == "marked":
            end = text.find(CLOSE) if text.startswith(OPEN) else -1
            length = 0 if end < 0 else end + len(CLOSE)
        else:
            length = max((len(tag) for tag in self.tags if text.startswith(tag)), default=0)
        return text[:length], text[length:]

    def identity(self) -> str:
        """Return a text that is equal for equal numberings."""
        ids = None if self.ids is None else sorted(self.ids.items())
        return json.dumps([ids, self.start, self.tags if self.tags == "marked" else [*self.tags]])

    @classmethod
    def of(cls, identity: str) -> "Numbering":
        """Return the numbering that has this identity."""
        ids, start, tags = json.loads(identity)
        return cls(None if ids is None else dict(ids), start, tags)


def with_tag(text: str, tag: str | None) -> str:
    """Return a text that begins with a tag, a word of its own; a blank text stays as it is."""
    return text if tag is None or not text.strip() else f"{tag} {text}"


class FaultyIdsError(Seq2attnError):
    """Ids of pieces that no vocabulary can have."""


def read_ids(content: bytes) -> dict[str, int]:
    """Return the ids of pieces from JSON: {"</s>": 0, "<unk>": 1, ...}. FaultyIdsError if they are none."""
    try:
        ids = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FaultyIdsError(f"not JSON: {error or 'nested too deeply'}") from error
    if not isinstance(ids, dict) or not all(type(number) is int for number in ids.values()):
        raise FaultyIdsError('expected the id of each piece, as in {"</s>": 0, "<unk>": 1}')
    return ids


def dump_ids(ids: Mapping[str, int]) -> bytes:
    """Return ids as JSON, in their order: what `read_ids` reads."""
    ordered = dict(sorted(ids.items(), key=lambda item: item[1]))
    return json.dumps(ordered, ensure_ascii=False, indent=0).encode()


class RenumberedProcessor:
    """A SentencePiece processor whose pieces have given ids. A piece without an id is <unk>.

    It has those of the processor's methods that `Vocabulary` calls. The model itself is as it was: so texts
    are split as it splits them, also where it has pieces that have no id.

    Raises:
        FaultyIdsError: the ids are not 0, 1, ..., or special pieces or tags have none.
    """

    def __init__(self, processor: "sentencepiece.SentencePieceProcessor", numbering: Numbering) -> None:
        self.original = processor
        ids = dict(_own_ids(processor) if numbering.ids is None else numbering.ids)
        if numbering.ids is None:
            for piece in (PADDING, START, END, *dict.fromkeys(numbering.tags)):
                ids.setdefault(piece, len(ids))
        self._pieces = sorted(ids, key=ids.__getitem__)
        if [ids[piece] for piece in self._pieces] != list(range(len(ids))):
            raise FaultyIdsError(f"expected the ids 0 to {len(ids) - 1:,}, each once")
        start, tags = numbering.start or START, () if numbering.tags == "marked" else numbering.tags
        for piece in (UNKNOWN, END, PADDING, start, *tags):
            if piece not in ids:
                name = " (name the piece that targets start with: text.start)" if piece == START else ""
                raise FaultyIdsError(f"the piece {piece} has no id{name}")
        self._ids, self._start, self._unknown = ids, start, ids[UNKNOWN]
        pieces = processor.id_to_piece(list(range(processor.get_piece_size())))
        self._of_original = [ids.get(piece, self._unknown) for piece in pieces]
        self._of_original[processor.unk_id()] = self._unknown

    def pad_id(self) -> int:
        """Return the id of padding."""
        return self._ids[PADDING]

    def bos_id(self) -> int:
        """Return the id of the piece that the decoder reads first."""
        return self._ids[self._start]

    def eos_id(self) -> int:
        """Return the id of the end."""
        return self._ids[END]

    def unk_id(self) -> int:
        """Return the id of unknown pieces."""
        return self._unknown

    def get_piece_size(self) -> int:
        """Return the number of ids."""
        return len(self._pieces)

    def id_to_piece(self, ids: int | Sequence[int]) -> Any:
        """Return the piece of an id, or a list of those of several."""
        return self._pieces[ids] if isinstance(ids, int) else [self._pieces[number] for number in ids]

    def piece_to_id(self, pieces: str | Sequence[str]) -> Any:
        """Return the id of a piece, or a list of those of several."""
        if isinstance(pieces, str):
            return self._ids.get(pieces, self._unknown)
        return [self._ids.get(piece, self._unknown) for piece in pieces]

    def renumbered(self, ids: Sequence[int]) -> list[int]:
        """Return the ids of pieces from those that the model itself gives them, <unk> for unknown ones."""
        return [self._of_original[number] for number in ids]

    def normalize(self, text: str, *, with_offsets: bool = False) -> Any:
        """Return the normalised text."""
        return self.original.normalize(text, with_offsets=with_offsets)

    def encode(
        self,
        texts: str | Sequence[str],
        out_type: type = int,
        return_type: Literal["offset_mapping"] | None = None,
        num_threads: int = -1,
    ) -> Any:
        """Return ids of texts, the pieces of a text (out_type str), or both with offsets (return_type)."""
        if out_type is str:
            return self.original.encode(texts, out_type=str)
        if return_type is not None:
            encoded = self.original.encode(texts, return_type=return_type)
            return {**encoded, "ids": self._numbered(encoded["ids"], texts)}
        encoded = self.original.encode(texts, num_threads=num_threads)
        return [self._numbered(ids, text) for ids, text in zip(encoded, texts, strict=True)]

    def _numbered(self, ids: Sequence[int], text: Any) -> list[int]:
        """Return the ids of pieces from those that the model gives them. A piece that is unknown to the model
        may have an id all the same: that of a piece of the other language's model."""
        if self.original.unk_id() in ids:
            return list(self.piece_to_id(self.original.encode(text, out_type=str)))
        return self.renumbered(ids)

    def decode(
        self, given: Sequence[int] | Sequence[str], return_type: Literal["offset_mapping"]
    ) -> dict[str, Any]:
        """Return the text of ids or of pieces, with the offsets of the pieces."""
        numbers = [number for number in given if isinstance(number, int)]
        pieces = [piece for piece in given if isinstance(piece, str)] or self.id_to_piece(numbers)
        decoded = dict(self.original.decode(pieces, return_type=return_type))
        text = decoded["text"].replace("▁", " ")  # of pieces that the model does not have
        return {**decoded, "text": text, "ids": numbers or self.piece_to_id(pieces), "pieces": pieces}


def _own_ids(processor: "sentencepiece.SentencePieceProcessor") -> dict[str, int]:
    """Return the ids of all pieces of a model, the unknown one and the special ones by their usual names."""
    size = processor.get_piece_size()
    ids = dict(zip(processor.id_to_piece(list(range(size))), range(size), strict=True))
    usual = {UNKNOWN: processor.unk_id(), PADDING: processor.pad_id(), START: processor.bos_id()}
    for piece, number in {**usual, END: processor.eos_id()}.items():
        if number >= 0 and piece not in ids:
            del ids[processor.id_to_piece(number)]
            ids[piece] = number
    return ids
