"""Words and their characters -> vectors, and batches of words that have labels.

Letters: B batch, S words of a sentence, U distinct words (of a block), C characters of its longest.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention.positions import Position
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Dropout, Gate
from seq2attn.layers.recurrent import Recurrent
from seq2attn.text.word_vocabulary import PADDING, UNKNOWN


class Words(NamedTuple):
    """Sentences of words. Each distinct word is spelt once, so that its characters are read once, in blocks
    of words about as long, so that one long word does not make all others long."""

    ids: Tensor  # (B, S), long, words in the lexicon
    mask: Tensor  # (B, S), bool, True = a word
    places: Tensor  # (B, S), long, the row of each word in the blocks of `spellings`, one below the other
    spellings: tuple[Tensor, ...]  # (U, C) each, long, characters, PADDING behind them; at least one row

    def to(self, device: torch.device) -> "Words":
        """On a device."""
        ids, mask, places = (part.to(device, non_blocking=True) for part in self[:3])
        return Words(ids, mask, places, tuple(some.to(device, non_blocking=True) for some in self.spellings))


class LabelledBatch(NamedTuple):
    """What a labeller learns from."""

    words: Words
    labels: Tensor  # (B, S), long, of words, anything on padding; or (B,), of sentences
    num_targets: int  # words or sentences that the loss is the mean of
    shape: str  # how large it is, in words

    def to(self, device: torch.device) -> "LabelledBatch":
        """On a device."""
        labels = self.labels.to(device, non_blocking=True)
        return self._replace(words=self.words.to(device), labels=labels)


# ---- characters ------------------------------------------------------------------------------------------


class CharacterEncoder(nn.Module):
    """The base of what makes a vector of each word from its characters: `size` is the vector's width.

    characters: how many there are; embedding: the width of theirs; dropout: of those.
    """

    size: int

    def __init__(self, characters: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.table = nn.Embedding(characters, embedding)
        _start(self.table)
        self.dropout = Dropout(dropout)

    def forward(self, spellings: Int[Tensor, "U C"]) -> Float[Tensor, "U M"]:
        """Vectors of words; of a word without characters, zeros."""
        raise NotImplementedError(f"{type(self).__name__} must say how it reads characters: write forward()")


class CharLSTM(CharacterEncoder):
    """The last states of an LSTM in each direction (Lample et al. 2016, section 4.1): width 2 size."""

    def __init__(self, characters: int, embedding: int, size: int, dropout: float = 0.0) -> None:
        super().__init__(characters, embedding, dropout)
        self.rnn = Recurrent("lstm", embedding, size, bidirectional=True)
        self.size = self.rnn.size

    def forward(self, spellings: Int[Tensor, "U C"]) -> Float[Tensor, "U M"]:
        """See the class."""
        there = spellings != PADDING
        last: Tensor = self.rnn(self.dropout(self.table(spellings)), there).last
        return last * there.any(-1, keepdim=True)


class CharCNN(CharacterEncoder):
    """tanh(max over places of a convolution over `window` characters) (Ma & Hovy 2016, section 2.1).

    Beyond a word's ends stand zeros, so that a word shorter than the window is read too.
    """

    def __init__(
        self, characters: int, embedding: int, size: int, window: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__(characters, embedding, dropout)
        self.size = size
        self.around = (window - 1) // 2, window // 2
        self.convolution = nn.Conv1d(embedding, size, window)

    def forward(self, spellings: Int[Tensor, "U C"]) -> Float[Tensor, "U M"]:
        """See the class."""
        there = (spellings != PADDING).unsqueeze(1)
        x = self.dropout(self.table(spellings)).mT * there
        found: Tensor = self.convolution(F.pad(x, self.around))
        return found.masked_fill(~there, float("-inf")).amax(-1).tanh() * there.any(-1)


# ---- words -----------------------------------------------------------------------------------------------


class WordEmbedding(nn.Module):
    """Vectors of words: from a table, and from their characters if there is a speller.

    joined: concat: [x; m] (Lample et al. 2016); gate: z * x + (1 - z) * tanh(W m), where each value chooses
        (Rei et al. 2016, section 4).
    word_dropout: the rate at which words are unknown in training; their characters stay.
    size: project to this width, times its root as in `Embedding`; None: as wide as they are.
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
        self.table, self.dropout, self.character_encoder, self.positions = (
            table,
            dropout,
            character_encoder,
            positions,
        )
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

    def forward(self, words: Words) -> Float[Tensor, "B S E"]:
        """See the class; what stands on padding does not matter."""
        ids = words.ids
        if self.training and self.word_dropout:
            lost = torch.rand(ids.shape, device=ids.device) < self.word_dropout
            ids = ids.masked_fill(lost, UNKNOWN)
        x = self.table(ids)
        if self.character_encoder is not None:
            m = torch.cat([self.character_encoder(some) for some in words.spellings])
            m = m if self.enter is None else self.enter(m)
            collate_words = F.embedding(words.places, m)
            x = torch.cat([x, collate_words], -1) if self.gate is None else self.gate(x, collate_words)
        if self.project is not None:
            x = self.project(x) * math.sqrt(self.size)
        if self.positions is not None:
            x = self.positions(x, 0)
        return self.dropout(x)  # type: ignore[no-any-return]


def word_table(words: int, size: int, vectors: Tensor | None = None, frozen: bool = False) -> nn.Embedding:
    """A vector (size,) for each word, uniform in +-sqrt(3 / size) (Lample et al. 2016; Ma & Hovy 2016); zeros
    for the unknown one.

    vectors (words, size): what to start from; words whose rows are nan have none. frozen: nothing is learnt.
    Seq2attnError if the vectors are of another number or size.
    """
    table = nn.Embedding(words, size)
    _start(table)
    if vectors is not None:
        if vectors.shape != (words, size):
            raise Seq2attnError(
                f"expected vectors of {words} words with {size} values each, got {tuple(vectors.shape)}: set "
                "model.embedding.size to that of the vectors"
            )
        with torch.no_grad():
            known = ~vectors.isnan().any(-1, keepdim=True)
            table.weight.copy_(vectors.where(known, table.weight))
    table.weight.requires_grad_(not frozen)
    return table


def _start(table: nn.Embedding) -> None:
    """Nothing is said of what is unknown: where training never meets it, chance would stay in it for good."""
    bound = math.sqrt(3 / table.embedding_dim)
    nn.init.uniform_(table.weight, -bound, bound)
    nn.init.zeros_(table.weight[UNKNOWN])
