"""Beam search. It uses a model only through `step`, and its state through `reorder`, as `search` does.

Letters: B sentences, K hypotheses of each, V tokens, t tokens so far.
"""

from collections.abc import Iterator
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
    greedy,
    on_device,
    on_host,
    require_numbers,
)
from seq2attn.runtime.chunks import blocks

GROUP_SIZE = 64  # tokens; `_top_continuations` first compares the best of each group


def _first_hypotheses(count: int, beam: int, nbest: int) -> OpenHypotheses:
    """Return empty hypotheses. Seq2attnError for an empty beam, or an n-best list that is longer."""
    if not 1 <= nbest <= beam:
        raise Seq2attnError(
            "a beam holds at least one hypothesis, and an n-best list at most as many as the beam; got "
            f"beam={beam}, nbest={nbest}"
        )
    total = np.full((count, beam), IMPOSSIBLE, np.float32)
    total[:, 0] = 0.0  # at first the K hypotheses are equal: only one of them may be continued
    history, path = np.empty((count, beam, 0), np.int64), np.zeros(count, np.int64)
    return OpenHypotheses(np.arange(count), history, total, path)


class BeamStep(NamedTuple):
    """A step of the search of one sentence: (origin, token, log-probability so far) of each hypothesis that
    is kept, best first, and of each that ends. Origins are indices among those kept by the step before."""

    kept: list[tuple[int, int, float]]
    ended: list[tuple[int, int, float]]


class _Continuations(NamedTuple):
    """The best 2 K continuations of each sentence, best first."""

    total: Floats  # (B, 2K), log-probabilities
    origin: Ids  # (B, 2K), the hypothesis that is continued, 0 to K - 1
    token: Ids  # (B, 2K)

    def at(self, places: Ids) -> "_Continuations":
        """Return those at some places (B, n) of each sentence."""
        rows = np.arange(len(places))[:, None]
        return _Continuations(self.total[rows, places], self.origin[rows, places], self.token[rows, places])


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
    If the beam drops the hypothesis of greedy search, that hypothesis is completed beside it: so no beam
    is worse than greedy search.

    With `rules.estimated_end`, as in the library Transformers, a sentence is finished when `beam` hypotheses
    have ended and no open one is better at its present length; this may miss better ones.
    """
    nbest, count, device = beam if nbest is None else nbest, len(limits), limits.device
    kept = beam if rules.estimated_end else nbest
    most, forced = on_host(limits), None if prefix is None else on_host(prefix)
    hypotheses = _first_hypotheses(count, beam, nbest)
    finished = [list[Hypothesis]() for _ in range(count)]
    dropped: list[int] = []  # the sentences whose greedy hypothesis has left the beam before its end
    decided = None if watch is None else DecidedTokens(watch, rules, most, finished)
    sources = torch.arange(count, device=device)
    start, state = state, reorder(state, sources.repeat_interleave(beam), sources)
    token = torch.full((count * beam,), rules.bos, device=device)
    while len(hypotheses.sentences):
        logits, state = step(token, state)
        continuations = _continuations(logits, hypotheses, rules, most, forced)
        _collect_finished(finished, continuations, hypotheses, state, rules, most, kept)
        # A stable sort moves ended hypotheses to the end; the others keep their order.
        open_total = np.where(continuations.token == rules.eos, IMPOSSIBLE, continuations.total)
        order = np.argsort(-open_total, axis=1, kind="stable")[:, :beam]  # (B, K)
        path, lost = _greedy_path(hypotheses, continuations, order, rules)
        _add_step(trace, hypotheses, continuations, order, rules)
        dropped += hypotheses.sentences[lost].tolist()
        total, origin, tokens = continuations._replace(total=open_total).at(order)
        remaining = _unfinished(hypotheses, total, finished, rules, most, kept)
        origin, tokens, sentences = origin[remaining], tokens[remaining], hypotheses.sentences[remaining]
        history = hypotheses.history[remaining[:, None], origin]
        history = np.concatenate([history, tokens[..., None]], 2)
        before = hypotheses
        hypotheses = OpenHypotheses(sentences, history, total[remaining], path[remaining])
        if decided is not None:
            decided.step(before, lost, hypotheses)
        rows = (remaining[:, None] * beam + origin).ravel()
        state = reorder(state, on_device(rows, device), on_device(remaining, device))
        token = on_device(tokens.ravel(), device)
    for sentence, hypothesis in _completed(step, start, rules, limits, prefix, dropped):
        _keep(hypothesis, finished[sentence], nbest)
    return [found[:nbest] for found in finished]


def _unfinished(
    hypotheses: OpenHypotheses,
    total: Floats,
    finished: list[list[Hypothesis]],
    rules: Rules,
    limits: Ids,
    kept: int,
) -> Ids:
    """Return the rows of the sentences of which an open hypothesis could still be kept.

    total: (B, K), log-probabilities of the open hypotheses after this step, best first.
    """
    # A log-probability only falls and the coverage term is never positive: no score can be higher than that
    # of the present log-probability at the limit.
    longest = hypotheses.history.shape[2] if rules.estimated_end else limits[hypotheses.sentences]
    highest: Floats = rules.score(total[:, 0], longest + 1)
    lowest = [_lowest_kept(finished[sentence], kept) for sentence in hypotheses.sentences.tolist()]
    return np.flatnonzero(highest > lowest)


def _completed(
    step: Step, start: Any, rules: Rules, limits: Tensor, prefix: Tensor | None, sentences: list[int]
) -> Iterator[tuple[int, Hypothesis]]:
    """Yield some sentences, each with its hypothesis of greedy search. start: the state before the first
    token."""
    if sentences:
        rows = torch.tensor(sentences, device=limits.device)
        forced = None if prefix is None else prefix[rows]
        found = greedy(step, reorder(start, rows), rules, limits[rows], forced)
        yield from zip(sentences, found, strict=True)


def _add_step(
    trace: list[BeamStep] | None,
    hypotheses: OpenHypotheses,
    continuations: _Continuations,
    order: Ids,
    rules: Rules,
) -> None:
    """Add the step of the first sentence to a trace, if there is one and the sentence is not finished.

    order: (B, K), indices of the kept continuations.
    """
    if trace is None or hypotheses.sentences[0]:
        return
    parts = continuations.origin[0], continuations.token[0], continuations.total[0]
    found = list(zip(*(part.tolist() for part in parts), strict=True))
    kept = [found[index] for index in order[0].tolist() if found[index][1] != rules.eos]
    ended = [one for one in found[: order.shape[1]] if one[1] == rules.eos]
    trace.append(BeamStep(*([one for one in part if one[2] > IMPOSSIBLE] for part in (kept, ended))))


def _greedy_path(
    hypotheses: OpenHypotheses, continuations: _Continuations, order: Ids, rules: Rules
) -> tuple[Ids, NDArray[np.bool_]]:
    """Return which of the kept continuations (B, K) is the one of greedy search (B,), -1 if none; and whether
    it has been dropped with this step, and is to be completed (B,).

    order: (B, K), indices of the kept continuations.
    """
    of_path = continuations.origin == hypotheses.path[:, None]  # (B, 2K), best first: the first is greedy's
    first = of_path.argmax(1)[:, None]  # (B, 1)
    total, _, token = (part[:, 0] for part in continuations.at(first))
    begun = hypotheses.path >= 0
    exists = begun & of_path.any(1) & np.isfinite(total)
    kept = (order == first) & exists[:, None]  # (B, K)
    ends = (token == rules.eos) & exists
    collected = ends & (first[:, 0] < order.shape[1])
    stays = kept.any(1) & ~ends
    lost = begun & ~stays & ~collected & (not rules.estimated_end)
    return np.where(stays, kept.argmax(1), -1), lost


def _keep(hypothesis: Hypothesis, kept: list[Hypothesis], nbest: int) -> None:
    """Add a hypothesis to an n-best list, in its order."""
    kept.append(hypothesis)
    kept.sort(key=lambda hypothesis: -hypothesis.score)
    del kept[nbest:]


def _lowest_kept(kept: list[Hypothesis], nbest: int) -> float:
    """Return the score that a hypothesis must exceed to enter an n-best list."""
    return kept[-1].score if len(kept) == nbest else IMPOSSIBLE


def _continuations(
    logits: Tensor, hypotheses: OpenHypotheses, rules: Rules, limits: Ids, prefix: Ids | None
) -> _Continuations:
    """Return the best continuations by one token, from logits (B K, V)."""
    count, beam, length = hypotheses.history.shape
    history, total = (
        hypotheses.history.reshape(count * beam, length),
        on_device(hypotheses.total, logits.device),
    )
    sentences = hypotheses.sentences.repeat(beam)  # (B K,)
    limits, forced = limits[sentences], None if prefix is None else prefix[sentences]
    parts = []
    for block in blocks(count, logits.device, beam):
        rows = slice(block.start * beam, block.stop * beam)
        log_p = logits[rows].float().log_softmax(-1)
        forced_rows = None if forced is None else forced[rows]
        log_p = rules.restrict(log_p, history[rows], limits[rows], forced_rows)
        parts.append(_top_continuations(log_p.unflatten(0, (-1, beam)), total[block]))
    found = _Continuations(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    require_numbers(found.total)
    return found


def _top_continuations(log_p: Tensor, total: Tensor) -> _Continuations:
    """Return the best continuations, from log-probabilities (B, K, V) of the next tokens and totals (B, K).

    Tokens are compared in groups. The best 2 K tokens are in the 2 K groups with the largest maxima, so that
    only the maxima need a full pass over the V tokens.
    """
    count, beam, size = log_p.shape
    padding = -size % GROUP_SIZE
    groups = F.pad(log_p, (0, padding), value=IMPOSSIBLE) if padding else log_p
    groups = groups.reshape(count, -1, GROUP_SIZE)  # (B, K G, GROUP_SIZE)
    maxima = (groups.amax(-1).view(count, beam, -1) + total[..., None]).flatten(1)  # (B, K G)
    per_hypothesis = maxima.shape[1] // beam  # G
    chosen = maxima.topk(min(2 * beam, maxima.shape[1]), dim=1).indices  # (B, 2K)
    members = groups.gather(1, chosen[..., None].expand(-1, -1, GROUP_SIZE))
    totals = (members + total.gather(1, chosen // per_hypothesis)[..., None]).flatten(1)
    best, place = (on_host(found) for found in totals.topk(2 * beam, dim=1))  # (B, 2K)
    group = on_host(chosen)[np.arange(count)[:, None], place // GROUP_SIZE]
    token = group % per_hypothesis * GROUP_SIZE + place % GROUP_SIZE
    return _Continuations(best, group // per_hypothesis, np.minimum(token, size - 1))  # padding is IMPOSSIBLE


def _collect_finished(
    finished: list[list[Hypothesis]],
    continuations: _Continuations,
    hypotheses: OpenHypotheses,
    state: Any,
    rules: Rules,
    limits: Ids,
    nbest: int,
) -> None:
    """Add the hypotheses that end with this step to the n-best lists of their sentences."""
    beam, length = hypotheses.history.shape[1], hypotheses.history.shape[2] + 1
    ends = (continuations.token == rules.eos) & np.isfinite(continuations.total)
    row, rank = ends[:, :beam].nonzero()
    if not len(row):
        return
    origin = continuations.origin[row, rank]
    coverage_scores = rules.coverage_scores(state, len(hypotheses.sentences) * beam)
    truncated = length - 1 >= limits[hypotheses.sentences[row]]
    for sentence, tokens, total, index, cut in zip(
        hypotheses.sentences[row].tolist(),
        hypotheses.history[row, origin].tolist(),
        continuations.total[row, rank].tolist(),
        (row * beam + origin).tolist(),
        truncated.tolist(),
        strict=True,
    ):
        score = rules.score(total, length) + coverage_scores[index]
        _keep(Hypothesis(tokens, total, score, cut), finished[sentence], nbest)
