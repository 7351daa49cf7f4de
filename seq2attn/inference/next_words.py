"""The words by which a text that a model writes may go on, with their probabilities.

Letters: N hypotheses, V tokens.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seq2attn.errors import Seq2attnError, require_type
from seq2attn.inference.beam_search import beam_search
from seq2attn.inference.decoding_options import require_prefixes
from seq2attn.inference.search import IMPOSSIBLE, Rules, Step
from seq2attn.inference.viewing import ViewedInput
from seq2attn.runtime.devices import autocast
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.words import SPACELESS, word_starts

_PIECES = 20  # of a word, at most
_WIDER = 2  # the beam, by words that are wanted


class NextWord(NamedTuple):
    """A word by which a text may go on."""

    text: str  # empty: the text ends
    probability: float  # of the word and its end, given the words before it
    prefix: str  # the text up to the end of the word: a `prefix` for a further search


class _Boundaries(NamedTuple):
    """Which tokens begin a word, and which are words of their own, of scripts without spaces. (V,) each."""

    begins: Tensor
    alone: Tensor

    @classmethod
    def of(cls, target: Vocabulary, copied: list[str], device: torch.device) -> "_Boundaries":
        """Return those of a vocabulary and of copied pieces. </s> begins a word: it ends the one before."""
        names = [*target.names, *copied]
        begins = word_starts(names, target.eos)
        alone = [target.words == "pieces" or number == target.bos for number, _ in enumerate(names)]
        if target.words == "auto":
            alone = [one or bool(SPACELESS.search(name)) for one, name in zip(alone, names, strict=True)]
        return cls(torch.tensor(begins, device=device), torch.tensor(alone, device=device))


class _WordState(NamedTuple):
    """The state of a decoder, and whether a piece of the word has been read (N,)."""

    own: Any
    begun: Tensor


class _WordSteps:
    """The steps of a model, of which a search finds single words: in the place of </s> is the end of a word,
    whatever follows it. Before the first piece, all that begins no word is left out."""

    def __init__(self, step: Step, boundaries: _Boundaries, eos: int) -> None:
        self.step, self.boundaries, self.eos = step, boundaries, eos

    def __call__(self, token: Tensor, state: _WordState) -> tuple[Tensor, _WordState]:
        """Return the log-probabilities (N, V) of what follows."""
        logits, own = self.step(token, state.own)
        log_p = logits.float().log_softmax(-1)
        begins, alone = (F.pad(one, (0, log_p.shape[1] - len(one))) for one in self.boundaries)
        # A word of a script without spaces ends before any piece, and any piece ends before it.
        begins = begins | alone | alone[token][:, None]  # (N, V)
        inner, outer = log_p.masked_fill(begins, IMPOSSIBLE), log_p.masked_fill(~begins, IMPOSSIBLE)
        inner[:, self.eos] = outer.logsumexp(-1)
        found = torch.where(state.begun[:, None], inner, outer.log_softmax(-1))
        return found, _WordState(own, torch.ones_like(state.begun))


@torch.no_grad()
def next_words(viewed: ViewedInput, prefix: str, count: int) -> list[NextWord]:
    """Return the most probable words after a prefix, most probable first; none for a blank source.

    The words of the prefix have ended: probabilities are those given that, and of words with their ends, so
    that those of all words and of the end of the text have the sum 1. A beam finds them.
    """
    require_type(prefix, str, "a prefix (str)")
    require_type(count, int, "a number of words")
    if count < 1:
        raise Seq2attnError(f"expected a number of words from 1 on, got {count}")
    if not viewed.names:
        return []
    generator, target, copied = viewed.generator, viewed.target, viewed.copied
    ids = viewed.tokenize(prefix).ids
    require_prefixes([ids], viewed.decoding, ["the text"])
    readable = generator.model.decoder.max_length
    if readable is not None and len(ids) + 1 >= readable:
        raise Seq2attnError(f"the prefix has {len(ids):,} pieces, and the decoder reads {readable - 1:,}")
    limit = _PIECES if readable is None else min(_PIECES, readable - 1 - len(ids))

    def step(token: Tensor, state: Any) -> tuple[Tensor, Any]:
        return generator.model.step(token.masked_fill(token >= target.size, target.unk), state)

    generator.model.eval()
    boundaries = _Boundaries.of(target, copied, generator.device)
    source = generator.tokenizer.collate([viewed.source]).to(generator.device)
    *read, last = target.bos, *ids
    with autocast(generator.device, generator.precision):
        state = generator.model.start(source)
        for token in read:
            _, state = step(torch.tensor([token], device=generator.device), state)
        rules = Rules(last, target.eos, (target.pad, target.bos), length_normalization="none")
        begun = torch.zeros(1, dtype=torch.bool, device=generator.device)
        limits = torch.tensor([limit], device=generator.device)
        steps = _WordSteps(step, boundaries, target.eos)
        (found,) = beam_search(steps, _WordState(state, begun), rules, limits, _WIDER * count)
    alone, before, words = boundaries.alone.tolist(), viewed.write(ids, copied), dict[str, NextWord]()
    for hypothesis in found:
        text, probability = viewed.write([*ids, *hypothesis.tokens], copied), hypothesis.log_probability
        after = " " * bool(hypothesis.tokens and not alone[hypothesis.tokens[-1]])
        same = words.get(text)  # in other pieces
        total = math.exp(probability) + (same.probability if same else 0.0)
        words[text] = NextWord(text.removeprefix(before).strip(), total, text + after)
    return sorted(words.values(), key=lambda word: -word.probability)[:count]
