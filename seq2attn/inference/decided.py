"""What can no longer change of the results of a search while it goes on.

Letters: B sentences, K hypotheses of each, t tokens so far.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2attn.inference.search import IMPOSSIBLE, Floats, Hypothesis, Ids, Rules, Watch

_ROUNDING = 1e-3  # of a log-probability that is computed once more, in a batch of another size


class OpenHypotheses(NamedTuple):
    """The unfinished hypotheses: K for each unfinished sentence, best first."""

    sentences: Ids  # (B,), index of each sentence
    history: Ids  # (B, K, t)
    total: Floats  # (B, K), log-probabilities
    path: Ids  # (B,), the hypothesis that greedy search would have, 0 to K - 1; -1 = it has left the beam


class _Dropped(NamedTuple):
    """A hypothesis of greedy search as it was when the beam dropped it: it is completed in the end."""

    tokens: list[int]
    highest: float  # score that it can still get


class DecidedTokens:
    """Tells how the best hypothesis of each sentence of a beam search begins, whatever comes.

    That is what all hypotheses have in common that may still become the best: the best one that has ended,
    the open ones whose score could be higher if they were as long as the limit allows, and that of greedy
    search if the beam has dropped it.

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
        self._dropped: dict[int, _Dropped] = {}
        self._told = [0] * len(limits)  # tokens of each sentence

    def step(self, before: OpenHypotheses, lost: NDArray[np.bool_], after: OpenHypotheses) -> None:
        """Tell what is decided after a step.

        lost: (B,), whether the beam has dropped the hypothesis of greedy search with this step; after: of the
        sentences that remain.
        """
        for row in np.flatnonzero(lost).tolist():
            sentence, place = int(before.sentences[row]), int(before.path[row])
            length, total = int(self.limits[sentence]) + 1, float(before.total[row, place]) + _ROUNDING
            tokens = before.history[row, place].tolist()
            self._dropped[sentence] = _Dropped(tokens, float(self.rules.score(total, length)))
        remaining = after.sentences.tolist()
        best = np.array([self._best(sentence) for sentence in remaining])
        lengths = self.limits[after.sentences][:, None] + 1
        # In double precision, as scores of ended hypotheses are: none is left out that differs by rounding.
        highest = self.rules.score(after.total.astype(np.float64), lengths)
        possible = (highest >= best[:, None]) & (highest > IMPOSSIBLE)  # (B, K)
        history = after.history
        same = (history == history[:, :1]) | ~possible[..., None]
        counts = np.minimum.accumulate(same.all(1), 1).sum(1).tolist()
        for row, sentence in enumerate(remaining):
            first = [history[row, 0, : counts[row]].tolist()] if possible[row, 0] else []
            self._tell(sentence, first)
        for sentence in before.sentences.tolist():
            if sentence not in remaining:
                self._tell(sentence, [])

    def _best(self, sentence: int) -> float:
        """Return the score of the best hypothesis that has ended."""
        return self.finished[sentence][0].score if self.finished[sentence] else IMPOSSIBLE

    def _tell(self, sentence: int, open_tokens: list[list[int]]) -> None:
        """Tell what is decided of a sentence, if it is more than before. open_tokens: those that the
        open hypotheses have in common, if one of them may become the best."""
        ended = [[*one.tokens, self.rules.eos] for one in self.finished[sentence][:1]]
        dropped = self._dropped.get(sentence)
        greedy = [dropped.tokens] if dropped and dropped.highest >= self._best(sentence) else []
        candidates = zip(*open_tokens, *ended, *greedy, strict=False)
        decided = [token for token, *_ in takewhile(lambda column: len({*column}) == 1, candidates)]
        if len(decided) > self._told[sentence]:
            self._told[sentence] = len(decided)
            self.watch(sentence, decided)


def of_rows(watch: Watch, rows: Sequence[int]) -> Watch:
    """Return a watch of a batch that tells of its sentences by their rows."""
    return lambda sentence, tokens: watch(rows[sentence], tokens)
