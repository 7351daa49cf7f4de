"""Beam search. It uses a model only through `step`, and its state through `reorder`, as `search` does.

Letters: B sentences, K hypotheses in the beam of each, V tokens, t tokens so far. W hypotheses of each
sentence are continued: K, or K + 1 while greedy search's goes on beside the beam of any sentence.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.attention.state import reorder
from seq2attn.errors import Seq2attnError
from seq2attn.inference.decided import DecidedTokens, OpenHypotheses
from seq2attn.inference.search import (
    IMPOSSIBLE,
    Floats,
    Hypothesis,
    Ids,
    Rules,
    Step,
    Watch,
    on_device,
    on_host,
    require_numbers,
)
from seq2attn.runtime.chunks import blocks

GROUP_SIZE = 64  # tokens; `_top_continuations` first compares the best of each group


def _first_hypotheses(count: int, beam: int, nbest: int, rules: Rules) -> OpenHypotheses:
    """Return empty hypotheses. Seq2attnError for an empty beam, or an n-best list that is longer."""
    if not 1 <= nbest <= beam:
        raise Seq2attnError(
            "a beam holds at least one hypothesis, and an n-best list at most as many as the beam; got "
            f"beam={beam}, nbest={nbest}"
        )
    total = np.full((count, beam), IMPOSSIBLE, np.float32)
    total[:, 0] = 0.0  # at first the K hypotheses are equal: only one of them may be continued
    history = np.empty((count, beam, 0), np.int64)
    greedy = np.full(count, -1 if rules.estimated_end else 0)
    return OpenHypotheses(np.arange(count), history, total, greedy)


class BeamStep(NamedTuple):
    """A step of the search of one sentence: (origin, token, log-probability so far) of each hypothesis that
    is kept, best first, and of each that ends. Origins are indices among those kept by the step before."""

    kept: list[tuple[int, int, float]]
    ended: list[tuple[int, int, float]]


class _Continuations(NamedTuple):
    """The best 2 K continuations of the beam of each sentence, best first, and the best one of the hypothesis
    of greedy search, which may be one of them."""

    total: Floats  # (B, 2K + 1), log-probabilities
    origin: Ids  # (B, 2K + 1), the hypothesis that is continued, 0 to W - 1
    token: Ids  # (B, 2K + 1)

    def at(self, places: Ids) -> "_Continuations":
        """Return those at some places (B, n) of each sentence."""
        rows = np.arange(len(places))[:, None]
        return _Continuations(self.total[rows, places], self.origin[rows, places], self.token[rows, places])

    @property
    def same(self) -> NDArray[np.bool_]:
        """Which are greedy search's (B, 2K + 1)."""
        same: NDArray[np.bool_] = (self.origin == self.origin[:, -1:]) & (self.token == self.token[:, -1:])
        return same

    def listed(self, count: int) -> list[tuple[int, int, float]]:
        """Return those among the first `count` of the first sentence that are possible."""
        fields = (field[0, :count].tolist() for field in (self.origin, self.token, self.total))
        return [one for one in zip(*fields, strict=True) if one[2] > IMPOSSIBLE]


def beam_search(
    step: Step,
    state: Any,
    rules: Rules,
    limits: Tensor,
    beam: int,
    prefix: Tensor | None = None,
    nbest: int | None = None,
    trace: list[BeamStep] | None = None,
    watch: Watch | None = None,
) -> list[list[Hypothesis]]:
    """Return the best `nbest` (`beam` if None) hypotheses of each sentence, best first. limits (B,): the
    largest length of each. trace: gets each step of the first sentence; watch: is told what is decided of
    each best hypothesis (`DecidedTokens`). They change nothing.

    A hypothesis ends if </s> after it is among the best `beam` continuations of its sentence. A sentence is
    finished when no open hypothesis could still enter its n-best list if it were as long as the limit allows.
    If the beam drops the hypothesis of greedy search, that one goes on beside it: so no beam is worse than
    greedy search.

    With `rules.estimated_end`, as in the library Transformers, a sentence is finished when `beam` hypotheses
    have ended and no open one is better at its present length; this may miss better ones.
    """
    nbest, count, device = beam if nbest is None else nbest, len(limits), limits.device
    listed = beam if rules.estimated_end else nbest
    most, forced = on_host(limits), None if prefix is None else on_host(prefix)
    hypotheses = _first_hypotheses(count, beam, nbest, rules)
    finished = [list[Hypothesis]() for _ in range(count)]
    decided = None if watch is None else DecidedTokens(watch, rules, most, finished)
    sources = torch.arange(count, device=device)
    state = reorder(state, sources.repeat_interleave(beam), sources)
    token = torch.full((count * beam,), rules.bos, device=device)
    while len(hypotheses.sentences):
        logits, state = step(token, state)
        continuations = _continuations(logits, hypotheses, beam, rules, most, forced)
        _collect_finished(finished, continuations, hypotheses, state, rules, most, listed)
        kept, greedy = _kept(continuations, hypotheses, rules)
        _add_step(trace, hypotheses, continuations, kept, rules)
        total = _open(kept.total, hypotheses, finished, rules, most, listed)
        remaining = np.flatnonzero((total > IMPOSSIBLE).any(1))
        before, beside = hypotheses, total[remaining, beam] > IMPOSSIBLE
        columns = slice(beam + bool(beside.any()))
        origin, tokens = (part[remaining, columns] for part in (kept.origin, kept.token))
        history = before.history[remaining[:, None], origin]
        hypotheses = OpenHypotheses(
            before.sentences[remaining],
            np.concatenate([history, tokens[..., None]], 2),
            total[remaining, columns],
            np.where((greedy[remaining] < beam) | beside, greedy[remaining], -1),
        )
        if decided is not None:
            decided.step(before.sentences, hypotheses)
        rows = (remaining[:, None] * before.history.shape[1] + origin).ravel()
        state = reorder(state, on_device(rows, device), on_device(remaining, device))
        token = on_device(tokens.ravel(), device)
    return [found[:nbest] for found in finished]


def _kept(
    continuations: _Continuations, hypotheses: OpenHypotheses, rules: Rules
) -> tuple[_Continuations, Ids]:
    """Return the best K open continuations (B, K + 1), and beside them greedy search's, impossible if it has
    ended or is one of them; and which one that is (B,), -1 if it has ended."""
    beam = continuations.total.shape[1] // 2
    open_total = np.where(continuations.token == rules.eos, IMPOSSIBLE, continuations.total)
    # A stable sort moves ended hypotheses to the end; the others keep their order.
    order = np.argsort(-open_total[:, :-1], axis=1, kind="stable")[:, :beam]  # (B, K)
    last = np.full_like(order[:, :1], 2 * beam)
    kept = continuations._replace(total=open_total).at(np.concatenate([order, last], 1))
    among = kept.same[:, :-1] & (kept.total[:, :-1] > IMPOSSIBLE)  # (B, K)
    greedy = np.where(among.any(1), among.argmax(1), np.where(kept.total[:, -1] > IMPOSSIBLE, beam, -1))
    kept.total[greedy != beam, -1] = IMPOSSIBLE
    return kept, greedy


def _open(
    total: Floats,
    hypotheses: OpenHypotheses,
    finished: list[list[Hypothesis]],
    rules: Rules,
    limits: Ids,
    listed: int,
) -> Floats:
    """Return the log-probabilities (B, K + 1) of the hypotheses after a step, IMPOSSIBLE where these could
    not enter an n-best list of `listed` any more: in the beam if the best of it could not, and beside it.
    """
    # A log-probability only falls and the coverage term is never positive: no score can be higher than that
    # of the present log-probability at the limit.
    longest = hypotheses.history.shape[2] if rules.estimated_end else limits[hypotheses.sentences][:, None]
    lowest = [_lowest(finished[sentence], listed) for sentence in hypotheses.sentences.tolist()]
    able = rules.score(total, longest + 1) > np.array(lowest)[:, None]  # (B, K + 1)
    able[:, :-1] = able[:, :1]
    return np.where(able, total, IMPOSSIBLE)


def _add_step(
    trace: list[BeamStep] | None,
    hypotheses: OpenHypotheses,
    continuations: _Continuations,
    kept: _Continuations,
    rules: Rules,
) -> None:
    """Add the step of the first sentence to a trace, if there is one and its beam is not finished."""
    if trace is None or hypotheses.sentences[0] or hypotheses.total[0, 0] == IMPOSSIBLE:
        return
    best, ended = (part.listed(kept.total.shape[1] - 1) for part in (kept, continuations))
    trace.append(BeamStep(best, [one for one in ended if one[1] == rules.eos]))


def _keep(hypothesis: Hypothesis, kept: list[Hypothesis], nbest: int) -> None:
    """Add a hypothesis to an n-best list, in its order."""
    kept.append(hypothesis)
    kept.sort(key=lambda hypothesis: -hypothesis.score)
    del kept[nbest:]


def _lowest(kept: list[Hypothesis], nbest: int) -> float:
    """Return the score that a hypothesis must exceed to enter an n-best list."""
    return kept[-1].score if len(kept) == nbest else IMPOSSIBLE


def _continuations(
    logits: Tensor, hypotheses: OpenHypotheses, beam: int, rules: Rules, limits: Ids, prefix: Ids | None
) -> _Continuations:
    """Return the best continuations by one token, from logits (B W, V)."""
    count, width, length = hypotheses.history.shape
    history, of_beam = hypotheses.history.reshape(count * width, length), hypotheses.total.copy()
    of_beam[:, beam:] = IMPOSSIBLE
    total = on_device(of_beam, logits.device)
    sentences = hypotheses.sentences.repeat(width)  # (B W,)
    limits, forced = limits[sentences], None if prefix is None else prefix[sentences]
    parts = []
    for block in blocks(count, logits.device, width):
        rows = slice(block.start * width, block.stop * width)
        log_p = logits[rows].float().log_softmax(-1)
        forced_rows = None if forced is None else forced[rows]
        log_p = rules.restrict(log_p, history[rows], limits[rows], forced_rows)
        best = _top_continuations(log_p.unflatten(0, (-1, width)), total[block], beam)
        of_greedy = _greedy_continuation(log_p, hypotheses.total[block], hypotheses.greedy[block], rules.eos)
        parts.append([np.concatenate(pair, 1) for pair in zip(best, of_greedy, strict=True)])
    found = _Continuations(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    require_numbers(found.total)
    return found


def _greedy_continuation(log_p: Tensor, total: Floats, greedy: Ids, eos: int) -> tuple[Floats, Ids, Ids]:
    """Return the total, the origin and the token (B, 1) of the best continuation of the hypotheses of greedy
    search, from log-probabilities (B W, V) of the next tokens; it is impossible if there is none."""
    origin = np.maximum(greedy, 0)[:, None]
    rows = np.arange(len(greedy))[:, None]
    chosen = log_p.index_select(0, on_device((rows * total.shape[1] + origin).ravel(), log_p.device))
    best, token = (on_host(found) for found in chosen.max(-1, keepdim=True))
    best = np.where(greedy[:, None] < 0, IMPOSSIBLE, total[rows, origin] + best)
    return best, origin, np.where(best == IMPOSSIBLE, eos, token)  # where nothing may follow, it ends


def _top_continuations(log_p: Tensor, total: Tensor, beam: int) -> tuple[Floats, Ids, Ids]:
    """Return the totals, origins and tokens (B, 2K) of the best continuations, from log-probabilities
    (B, W, V) of the next tokens and totals (B, W).

    Tokens are compared in groups. The best 2 K tokens are in the 2 K groups with the largest maxima, so that
    only the maxima need a full pass over the V tokens.
    """
    count, width, size = log_p.shape
    padding = -size % GROUP_SIZE
    groups = F.pad(log_p, (0, padding), value=IMPOSSIBLE) if padding else log_p
    groups = groups.reshape(count, -1, GROUP_SIZE)  # (B, W G, GROUP_SIZE)
    maxima = (groups.amax(-1).view(count, width, -1) + total[..., None]).flatten(1)  # (B, W G)
    per_hypothesis = maxima.shape[1] // width  # G
    chosen = maxima.topk(min(2 * beam, maxima.shape[1]), dim=1).indices  # (B, 2K)
    members = groups.gather(1, chosen[..., None].expand(-1, -1, GROUP_SIZE))
    totals = (members + total.gather(1, chosen // per_hypothesis)[..., None]).flatten(1)
    best, place = (on_host(found) for found in totals.topk(2 * beam, dim=1))  # (B, 2K)
    group = on_host(chosen)[np.arange(count)[:, None], place // GROUP_SIZE]
    token = group % per_hypothesis * GROUP_SIZE + place % GROUP_SIZE
    return best, group // per_hypothesis, np.minimum(token, size - 1)  # padding is IMPOSSIBLE


def _collect_finished(
    finished: list[list[Hypothesis]],
    continuations: _Continuations,
    hypotheses: OpenHypotheses,
    state: Any,
    rules: Rules,
    limits: Ids,
    listed: int,
) -> None:
    """Add the hypotheses that end with this step to the n-best lists of their sentences."""
    beam, (_, width, length) = continuations.total.shape[1] // 2, hypotheses.history.shape
    ends = (continuations.token == rules.eos) & np.isfinite(continuations.total)
    collected = (ends & continuations.same)[:, :beam].any(1)
    ends[:, beam:-1] = False
    ends[:, -1] = (hypotheses.greedy >= 0) & (continuations.token[:, -1] == rules.eos) & ~collected
    row, rank = ends.nonzero()
    if not len(row):
        return
    origin = continuations.origin[row, rank]
    coverage_scores = rules.coverage_scores(state, len(ends) * width)
    truncated = length >= limits[hypotheses.sentences[row]]
    for sentence, tokens, total, index, cut in zip(
        hypotheses.sentences[row].tolist(),
        hypotheses.history[row, origin].tolist(),
        continuations.total[row, rank].tolist(),
        (row * width + origin).tolist(),
        truncated.tolist(),
        strict=True,
    ):
        score = rules.score(total, length + 1) + coverage_scores[index]
        _keep(Hypothesis(tokens, total, score, cut), finished[sentence], listed)
