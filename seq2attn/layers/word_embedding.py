"""Words and their characters -> vectors.

Letters: B batch, S words of a sentence, E width of an embedding, U distinct words (of a block), C characters
of its longest word, M width of a word's vector from its characters.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention.positions import Position
from seq2attn.errors import NotDefinedError, Seq2attnError
from seq2attn.layers.basic import Dropout, Gate
from seq2attn.layers.recurrent import Recurrent
from seq2attn.text.word_vocabulary import PADDING, UNKNOWN


class Words(NamedTuple):
    """Sentences of words, and the characters of each distinct word.

    Each distinct word is encoded once, in blocks of words of similar length, so that one long word does not
    add padding to all others.
    """

    ids: Tensor  # (B, S), long, in the vocabulary of words
    mask: Tensor  # (B, S), bool, True = a word
    character_rows: Tensor  # (B, S), long, the row of each word in the concatenated blocks of `characters`
    characters: tuple[Tensor, ...]  # (U, C) each, long, ids, PADDING behind them; at least one row

    def to(self, device: torch.device) -> "Words":
        """Move to a device."""
        ids, mask, character_rows = (
            part.to(device, non_blocking=True) for part in (self.ids, self.mask, self.character_rows)
        )
        characters = tuple(block.to(device, non_blocking=True) for block in self.characters)
        return Words(ids, mask, character_rows, characters)


# ---- characters ------------------------------------------------------------------------------------------


class CharacterEncoder(nn.Module):
    """The base class of encoders of a word from its characters: `size` is the width M of its vector.

    characters: the size of their vocabulary; embedding: the width of their vectors; dropout: on those.
    """

    size: int

    def __init__(self, characters: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.table = nn.Embedding(characters, embedding)
        _initialise(self.table)
        self.dropout = Dropout(dropout)

    def forward(self, characters: Int[Tensor, "U C"]) -> Float[Tensor, "U M"]:
        """Return the vectors of words; zeros for a word without characters."""
        raise NotDefinedError(f"{type(self).__name__} must implement forward()")


class CharLSTM(CharacterEncoder):
    """The last states of an LSTM in each direction (Lample et al. 2016, section 4.1): width 2 size."""

    def __init__(self, characters: int, embedding: int, size: int, dropout: float = 0.0) -> None:
        super().__init__(characters, embedding, dropout)
        self.rnn = Recurrent("lstm", embedding, size, bidirectional=True)
        self.size = self.rnn.size

    def forward(self, characters: Int[Tensor, "U C"]) -> Float[Tensor, "U M"]:
        """See the class."""
        mask = characters != PADDING  # (U, C)
        last: Tensor = self.rnn(self.dropout(self.table(characters)), mask).last  # (U, M)
        return last * mask.any(-1, keepdim=True)


class CharCNN(CharacterEncoder):
    """tanh(max over positions of a convolution over `window` characters) (Ma & Hovy 2016, section 2.1).

    Words are padded with zeros on both sides, so that words shorter than the window work, too.
    """

    def __init__(
        self, characters: int, embedding: int, size: int, window: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__(characters, embedding, dropout)
        self.size = size
        self.padding = (window - 1) // 2, window // 2
        self.convolution = nn.Conv1d(embedding, size, window)

    def forward(self, characters: Int[Tensor, "U C"]) -> Float[Tensor, "U M"]:
        """See the class."""
        mask = (characters != PADDING).unsqueeze(1)  # (U, 1, C)
        x = self.dropout(self.table(characters)).mT * mask  # (U, embedding, C)
        features: Tensor = self.convolution(F.pad(x, self.padding))  # (U, M, C)
        return features.masked_fill(~mask, float("-inf")).amax(-1).tanh() * mask.any(-1)


# ---- words -----------------------------------------------------------------------------------------------


class WordEmbedding(nn.Module):
    """Vectors of words: x from a table, and m from their characters if there is a character encoder.

    joined: concat: [x; m] (Lample et al. 2016); gate: z * x + (1 - z) * tanh(W m), a choice for each value
        (Rei et al. 2016, section 4).
    word_dropout: the rate at which words become unknown in training; their characters stay.
    size: project to this width, times its root as in `Embedding`; None: no projection.
    """

    def __init__(
        self,
        table: nn.Embedding,
        dropout: Dropout,
        character_encoder: CharacterEncoder | None = None,
        joined: Literal["concat", "gate"] = "concat",
        word_dropout: float = 0.0,
        size: int | None = None,
        positions: Position | None = None,
    ) -> None:
        super().__init__()
        self.table, self.dropout = table, dropout
        self.character_encoder, self.positions = character_encoder, positions
        self.word_dropout, width = word_dropout, table.embedding_dim
        self.enter: nn.Module | None = None
        self.gate: Gate | None = None
        if character_encoder is not None and joined == "gate":
            self.enter = nn.Sequential(nn.Linear(character_encoder.size, width), nn.Tanh())
            self.gate = Gate(width)
        elif character_encoder is not None:
            width += character_encoder.size
        self.project = None if size is None else nn.Linear(width, size)
        self.size = width if size is None else size
        self.max_length = None if positions is None else positions.max_length

    def forward(self, words: Words) -> Float[Tensor, "B S E"]:
        """See the class; vectors at padding are arbitrary."""
        ids = words.ids
        if self.training and self.word_dropout:
            dropped = torch.rand(ids.shape, device=ids.device) < self.word_dropout
            ids = ids.masked_fill(dropped, UNKNOWN)
        x = self.table(ids)  # (B, S, W), W the table's width
        if self.character_encoder is not None:
            distinct = torch.cat([self.character_encoder(block) for block in words.characters])  # (sum U, M)
            distinct = distinct if self.enter is None else self.enter(distinct)
            m = F.embedding(words.character_rows, distinct)  # (B, S, M)
            x = torch.cat([x, m], -1) if self.gate is None else self.gate(x, m)
        if self.project is not None:
            x = self.project(x) * math.sqrt(self.size)
        if self.positions is not None:
            x = self.positions(x, 0)
        return self.dropout(x)  # type: ignore[no-any-return]


def word_table(words: int, size: int, vectors: Tensor | None = None, frozen: bool = False) -> nn.Embedding:
    """Return a table of word vectors, uniform in +-sqrt(3 / size) (Lample et al. 2016; Ma & Hovy 2016); zeros
    for the unknown word.

    vectors (words, size): initial values; words whose rows are nan have none. frozen: they are not trained.
    Seq2attnError if the vectors are of another number or size.
    """
    table = nn.Embedding(words, size)
    _initialise(table)
    if vectors is not None:
        if vectors.shape != (words, size):
            raise Seq2attnError(
                f"expected vectors of {words} words with {size} values each, got {tuple(vectors.shape)}: set "
                "model.embedding.size to that of the vectors"
            )
        with torch.no_grad():
            has_vector = ~vectors.isnan().any(-1, keepdim=True)  # (words, 1)
            table.weight.copy_(vectors.where(has_vector, table.weight))
    table.weight.requires_grad_(not frozen)
    return table


def _initialise(table: nn.Embedding) -> None:
    """Draw vectors, and set that of the unknown entry to zero: if it does not occur in training, random
    values would stay in it for good."""
    bound = math.sqrt(3 / table.embedding_dim)
    nn.init.uniform_(table.weight, -bound, bound)
    nn.init.zeros_(table.weight[UNKNOWN])
