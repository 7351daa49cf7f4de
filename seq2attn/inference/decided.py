"""What can no longer change of the results of a search while it goes on.

Letters: as in `beam_search`.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from seq2attn.inference.search import IMPOSSIBLE, Floats, Hypothesis, Ids, Rules, Watch


class OpenHypotheses(NamedTuple):
    """The unfinished hypotheses of each unfinished sentence: the K of the beam, best first, and beside them
    greedy search's if the beam of any sentence has dropped that."""

    sentences: Ids  # (B,), index of each sentence
    history: Ids  # (B, W, t)
    total: Floats  # (B, W), log-probabilities; IMPOSSIBLE = there is no such hypothesis
    greedy: Ids  # (B,), which one is greedy search's, 0 to W - 1; -1 = it has ended, or cannot win


class DecidedTokens:
    """Tells how the best hypothesis of each sentence of a beam search begins, whatever comes.

    That is what all hypotheses have in common that may still become the best: the best one that has ended,
    and the open ones whose score could be higher if they were as long as the limit allows.

    Args:
        watch: is told.
        rules: of the search.
        limits: (B,), the largest length of each sentence.
        finished: the hypotheses of each sentence that have ended, best first; the search adds to them.
    """

    def __init__(
        self, watch: Watch, rules: Rules, limits: Ids, finished: Sequence[Sequence[Hypothesis]]
    ) -> None:
        self.watch, self.rules, self.limits, self.finished = watch, rules, limits, finished
        self._told = [0] * len(limits)  # tokens of each sentence

    def step(self, before: Ids, after: OpenHypotheses) -> None:
        """Tell what is decided after a step. before: its sentences; after: of those that remain."""
        remaining = after.sentences.tolist()
        best = np.array([self._best(sentence) for sentence in remaining])
        lengths = self.limits[after.sentences][:, None] + 1
        # In double precision, as scores of ended hypotheses are: none is left out that differs by rounding.
        highest = self.rules.score(after.total.astype(np.float64), lengths)
        possible = (highest >= best[:, None]) & (highest > IMPOSSIBLE)  # (B, W)
        history, rows = after.history, np.arange(len(remaining))
        first = history[rows, possible.argmax(1)]  # (B, t)
        same = (history == first[:, None]) | ~possible[..., None]
        counts = np.minimum.accumulate(same.all(1), 1).sum(1).tolist()
        for row, sentence in enumerate(remaining):
            self._tell(sentence, [first[row, : counts[row]].tolist()] if possible[row].any() else [])
        for sentence in before.tolist():
            if sentence not in remaining:
                self._tell(sentence, [])

    def _best(self, sentence: int) -> float:
        """Return the score of the best hypothesis that has ended."""
        return self.finished[sentence][0].score if self.finished[sentence] else IMPOSSIBLE

    def _tell(self, sentence: int, open_tokens: list[list[int]]) -> None:
        """Tell what is decided of a sentence, if it is more than before. open_tokens: those that the
        open hypotheses have in common, if one of them may become the best."""
        ended = [[*one.tokens, self.rules.eos] for one in self.finished[sentence][:1]]
        candidates = zip(*open_tokens, *ended, strict=False)
        decided = [token for token, *_ in takewhile(lambda column: len({*column}) == 1, candidates)]
        if len(decided) > self._told[sentence]:
            self._told[sentence] = len(decided)
            self.watch(sentence, decided)


def of_rows(watch: Watch, rows: Sequence[int]) -> Watch:
    """Return a watch of a batch that tells of its sentences by their rows."""
    return lambda sentence, tokens: watch(rows[sentence], tokens)
