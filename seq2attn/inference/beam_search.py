"""Beam search. It uses a model only through `step`, and its state through `reorder`, as `search` does.

Letters: B sentences, K hypotheses of each, V tokens, t tokens so far.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seq2attn.attention.state import reorder
from seq2attn.errors import Seq2attnError
from seq2attn.inference.search import IMPOSSIBLE, Hypothesis, Rules, Step, greedy, require_numbers
from seq2attn.runtime.chunks import blocks

GROUP_SIZE = 64  # tokens; `_top_continuations` first compares the best of each group


class _OpenHypotheses(NamedTuple):
    """The unfinished hypotheses: K for each unfinished sentence."""

    sentences: Tensor  # (B,), index of each sentence
    history: Tensor  # (B, K, t)
    total: Tensor  # (B, K), log-probabilities
    path: Tensor  # (B,), the hypothesis that greedy search would have, 0 to K - 1; -1 = it has left the beam


def _first_hypotheses(count: int, beam: int, nbest: int, device: torch.device) -> _OpenHypotheses:
    """Return empty hypotheses. Seq2attnError for an empty beam, or an n-best list that is longer."""
    if not 1 <= nbest <= beam:
        raise Seq2attnError(
            "a beam holds at least one hypothesis, and an n-best list at most as many as the beam; got "
            f"beam={beam}, nbest={nbest}"
        )
    total = torch.full((count, beam), IMPOSSIBLE, device=device)
    total[:, 0] = 0.0  # at first the K hypotheses are equal: only one of them may be continued
    sentences = torch.arange(count, device=device)
    history = sentences.new_empty(count, beam, 0)
    return _OpenHypotheses(sentences, history, total, torch.zeros_like(sentences))


class _Continuations(NamedTuple):
    """The best 2 K continuations of each sentence, best first."""

    total: Tensor  # (B, 2K), log-probabilities
    origin: Tensor  # (B, 2K), the hypothesis that is continued, 0 to K - 1
    token: Tensor  # (B, 2K)


def beam_search(
    step: Step,
    state: Any,
    rules: Rules,
    limits: Tensor,
    beam: int,
    prefix: Tensor | None = None,
    nbest: int | None = None,
) -> list[list[Hypothesis]]:
    """Return the best `nbest` (`beam` if None) hypotheses of each sentence, best first. limits (B,): the
    largest length of each.

    A hypothesis ends if </s> after it is among the best `beam` continuations of its sentence. A sentence is
    finished when no open hypothesis could still enter its n-best list if it were as long as the limit allows.
    If the beam drops the hypothesis of greedy search, that hypothesis is completed beside it: so no beam
    is worse than greedy search.

    With `rules.estimated_end`, as in the library Transformers, a sentence is finished when `beam` hypotheses
    have ended and no open one is better at its present length; this may miss better ones.
    """
    nbest, count, device = beam if nbest is None else nbest, len(limits), limits.device
    kept = beam if rules.estimated_end else nbest
    hypotheses = _first_hypotheses(count, beam, nbest, device)
    sentences = hypotheses.sentences
    dropped: list[int] = []  # the sentences whose greedy hypothesis has left the beam before its end
    finished: list[list[Hypothesis]] = [[] for _ in range(count)]
    start, state = state, reorder(state, sentences.repeat_interleave(beam), sentences)
    token = torch.full((count * beam,), rules.bos, dtype=torch.long, device=device)
    while len(hypotheses.sentences):
        logits, state = step(token, state)
        continuations = _continuations(logits, hypotheses, rules, limits, prefix)
        _collect_finished(finished, continuations, hypotheses, state, rules, limits, kept)
        # A stable sort moves ended hypotheses to the end; the others keep their order.
        total = continuations.total.masked_fill(continuations.token == rules.eos, IMPOSSIBLE)
        order = total.sort(dim=1, descending=True, stable=True).indices[:, :beam]
        path, lost = _greedy_path(hypotheses, continuations, order, rules)
        dropped += [] if rules.estimated_end else hypotheses.sentences[lost].tolist()
        total, origin, token = (
            x.gather(1, order) for x in (total, continuations.origin, continuations.token)
        )
        length = hypotheses.history.shape[2]
        # A log-probability only falls and the coverage term is never positive: no score can be higher than
        # that of the present log-probability at the limit.
        longest = length + 1 if rules.estimated_end else limits[hypotheses.sentences] + 1
        highest = rules.score(total[:, 0], longest)
        lowest = [_lowest_kept(finished[sentence], kept) for sentence in hypotheses.sentences.tolist()]
        remaining = (highest > torch.tensor(lowest, device=device)).nonzero().squeeze(1)
        origin, token = origin[remaining], token[remaining]  # (B, K), of the sentences that remain
        history = hypotheses.history[remaining].gather(1, origin[..., None].expand(-1, -1, length))
        history = torch.cat([history, token[..., None]], 2)
        sentences = hypotheses.sentences[remaining]
        hypotheses = _OpenHypotheses(sentences, history, total[remaining], path[remaining])
        state = reorder(state, (remaining[:, None] * beam + origin).flatten(), remaining)
        token = token.flatten()
    rows = torch.tensor(dropped, dtype=torch.long, device=device)
    forced = None if prefix is None else prefix[rows]
    completed = greedy(step, reorder(start, rows), rules, limits[rows], forced) if dropped else []
    for sentence, hypothesis in zip(dropped, completed, strict=True):
        _keep(hypothesis, finished[sentence], nbest)
    return [found[:nbest] for found in finished]


def _greedy_path(
    hypotheses: _OpenHypotheses, continuations: _Continuations, order: Tensor, rules: Rules
) -> tuple[Tensor, Tensor]:
    """Return which of the kept continuations (B, K) is the one of greedy search (B,), -1 if none; and whether
    it has been dropped with this step (B,).

    order: (B, K), indices of the kept continuations.
    """
    of_path = continuations.origin == hypotheses.path[:, None]  # (B, 2K), best first: the first is greedy's
    first = of_path.byte().argmax(1, keepdim=True)  # (B, 1)
    begun = hypotheses.path >= 0
    exists = begun & of_path.any(1) & continuations.total.gather(1, first).squeeze(1).isfinite()
    kept = (order == first) & exists[:, None]  # (B, K)
    ends = (continuations.token.gather(1, first).squeeze(1) == rules.eos) & exists
    collected = ends & (first.squeeze(1) < order.shape[1])
    stays = kept.any(1) & ~ends
    return kept.byte().argmax(1).masked_fill(~stays, -1), begun & ~stays & ~collected


def _keep(hypothesis: Hypothesis, kept: list[Hypothesis], nbest: int) -> None:
    """Add a hypothesis to an n-best list, in its order."""
    kept.append(hypothesis)
    kept.sort(key=lambda hypothesis: -hypothesis.score)
    del kept[nbest:]


def _lowest_kept(kept: list[Hypothesis], nbest: int) -> float:
    """Return the score that a hypothesis must exceed to enter an n-best list."""
    return kept[-1].score if len(kept) == nbest else IMPOSSIBLE


def _continuations(
    logits: Tensor, hypotheses: _OpenHypotheses, rules: Rules, limits: Tensor, prefix: Tensor | None
) -> _Continuations:
    """Return the best continuations by one token, from logits (B K, V)."""
    count, beam, length = hypotheses.history.shape
    history = hypotheses.history.view(count * beam, length)
    sentences = hypotheses.sentences.repeat_interleave(beam)  # (B K,)
    forced = None if prefix is None else prefix[sentences]
    parts = []
    for block in blocks(count, logits.device, beam):
        rows = slice(block.start * beam, block.stop * beam)
        log_p = logits[rows].float().log_softmax(-1)
        forced_rows = None if forced is None else forced[rows]
        log_p = rules.restrict(log_p, history[rows], limits[sentences[rows]], forced_rows)
        parts.append(_top_continuations(log_p.unflatten(0, (-1, beam)), hypotheses.total[block]))
        require_numbers(parts[-1].total)
    return _Continuations(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


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
    best, index = totals.topk(2 * beam, dim=1)  # (B, 2K)
    group = chosen.gather(1, index // GROUP_SIZE)
    token = group % per_hypothesis * GROUP_SIZE + index % GROUP_SIZE
    return _Continuations(best, group // per_hypothesis, token.clamp(max=size - 1))  # padding is IMPOSSIBLE


def _collect_finished(
    finished: list[list[Hypothesis]],
    continuations: _Continuations,
    hypotheses: _OpenHypotheses,
    state: Any,
    rules: Rules,
    limits: Tensor,
    nbest: int,
) -> None:
    """Add the hypotheses that end with this step to the n-best lists of their sentences."""
    beam, length = hypotheses.history.shape[1], hypotheses.history.shape[2] + 1
    ends = (continuations.token == rules.eos) & continuations.total.isfinite()
    ends[:, beam:] = False
    if not bool(ends.any()):
        return
    row, rank = ends.nonzero(as_tuple=True)
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
