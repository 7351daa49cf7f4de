"""Search: greedy, beam and sampling. It knows only two words, `step` and `reorder`.

A sentence's result depends on that sentence alone: not on its batch mates, their number or their order.
Finished sentences leave the batch. Every score is the model's own log-probability of the tokens, so that
forcing the tokens through the model gives the same number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seq2attn.attention.state import reorder
from seq2attn.errors import Seq2attnError
from seq2attn.runtime.chunks import blocks

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]  # token (N,), state -> logits (N, V), state
Coverage = Callable[[Any], Tensor | None]  # state -> (N, S), how much each slot has been looked at
Choose = Callable[[Tensor, Tensor], Tensor]  # log-probabilities (N, V), rows (N,) -> tokens (N,)

NEVER = float("-inf")
GROUP = 64  # tokens of which the best one is found first
LEAST = 1e-6  # coverage of what has never been looked at: zeros are common where weights are sparse


class Hypothesis(NamedTuple):
    """A finished sentence. Tokens are without begin and end; the log-probability includes the end's."""

    tokens: list[int]
    log_probability: float
    score: float  # the log-probability, normalised for length, and the coverage penalty: what ranks


@dataclass(frozen=True)
class Rules:
    """What a translation may look like, and how lengths are weighed against each other."""

    bos: int
    eos: int
    never: tuple[int, ...] = ()  # tokens that are never produced (padding, begin-of-sentence)
    min_length: int = 0
    no_repeat_ngram: int = 0
    length_normalization: str = "simple"
    length_penalty: float = 1.0
    coverage_penalty: float = 0.0
    coverage: Coverage | None = None  # needed where there is a penalty

    def score(self, log_probability: Tensor | float, length: int) -> Any:
        """The score of a hypothesis of `length` tokens, its end included, without the coverage penalty."""
        if self.length_normalization == "gnmt":
            return log_probability / ((5 + length) / 6) ** self.length_penalty
        if self.length_normalization == "simple":
            return log_probability / length**self.length_penalty
        return log_probability

    def covered(self, state: Any, count: int) -> list[float]:
        """What coverage adds to the scores of the `count` hypotheses of a state, were they to end now."""
        if not self.coverage_penalty:
            return [0.0] * count
        looked = None if self.coverage is None else self.coverage(state)
        if looked is None:
            raise Seq2attnError(
                "a coverage penalty needs steps that track coverage: a decoder with attention, and "
                "decoder.track_coverage(state) to begin with"
            )
        return self.penalty(looked).tolist()

    def penalty(self, coverage: Tensor) -> Tensor:
        """beta sum_i log min(c_i, 1) over the slots (..., S) (Wu et al. 2016, eq. 14), where a slot that has
        never been looked at counts as LEAST."""
        return self.coverage_penalty * coverage.float().clamp(LEAST, 1.0).log().sum(-1)

    def restrict(self, log_p: Tensor, history: Tensor, limits: Tensor, prefix: Tensor | None) -> Tensor:
        """Log-probabilities (N, V) of tokens, NEVER where they may not follow a history (N, t); written over
        what came in.

        limits (N,): most tokens before the end; prefix (N, P): tokens that are forced, -1 = free.
        """
        length, end = history.shape[1], torch.full_like(limits, self.eos)
        ending, forced = log_p[:, self.eos].clone(), None
        if prefix is not None and length < prefix.shape[1]:
            forced = prefix[:, length]
            given = log_p.gather(1, forced.clamp(min=0)[:, None]).squeeze(1)
        for token in self.never:
            log_p[:, token] = NEVER
        if length < self.min_length:
            log_p[:, self.eos] = NEVER
        if self.no_repeat_ngram and length >= self.no_repeat_ngram:
            self._forbid_repeats(log_p, history)
        # Rather too short than something that is never produced.
        _only(log_p, (log_p.amax(1) == NEVER) | (length >= limits), end, ending)
        if forced is not None:
            _only(log_p, forced >= 0, forced, given)
        return log_p

    def _forbid_repeats(self, log_p: Tensor, history: Tensor) -> None:
        n = self.no_repeat_ngram
        if n == 1:
            log_p.scatter_(1, history, NEVER)
            return
        grams = history.unfold(1, n, 1)  # (N, t - n + 1, n), every n-gram so far
        again = (grams[..., :-1] == history[:, None, 1 - n :]).all(-1)
        row, place = again.nonzero(as_tuple=True)
        log_p[row, grams[row, place, -1]] = NEVER


def _only(log_p: Tensor, where: Tensor, token: Tensor, value: Tensor) -> None:
    """In some rows nothing may come but one token each."""
    rows = where.nonzero().squeeze(1)
    if not len(rows):
        return
    log_p[rows] = NEVER
    log_p[rows, token[rows]] = value[rows]


def greedy(
    step: Step, state: Any, rules: Rules, limits: Tensor, prefix: Tensor | None = None
) -> list[Hypothesis]:
    """The likeliest token at every step; limits (B,): most tokens of each sentence."""
    return _walk(step, state, rules, limits, prefix, lambda scores, rows: scores.argmax(-1))


def sample(
    step: Step,
    state: Any,
    rules: Rules,
    limits: Tensor,
    seeds: Sequence[int],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    prefix: Tensor | None = None,
) -> list[Hypothesis]:
    """Tokens drawn from the model (by inverting its distribution), each sentence from its own seed.

    top_k: only from the k likeliest (0 = all); top_p: only from the likeliest that together have
    probability p (Holtzman et al. 2020); temperature divides the logits first. What the rules say of lengths
    and coverage makes the score by which draws are ranked, and changes no draw.
    """
    if temperature <= 0 or top_k < 0 or not 0 < top_p <= 1:
        raise Seq2attnError(
            "sampling needs temperature > 0, top_k >= 0 and 0 < top_p <= 1; "
            f"got temperature={temperature}, top_k={top_k}, top_p={top_p}"
        )
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def choose(scores: Tensor, rows: Tensor) -> Tensor:
        scores = (scores / temperature).log_softmax(-1)
        if top_k:
            scores = scores.masked_fill(
                scores < scores.topk(min(top_k, scores.shape[-1])).values[:, -1:], NEVER
            )
        if top_p < 1:
            ordered, places = scores.softmax(-1).sort(descending=True, stable=True)
            beyond = ordered.cumsum(-1) - ordered >= top_p  # the first is always kept
            scores = scores.masked_fill(torch.zeros_like(beyond).scatter(1, places, beyond), NEVER)
        # One number decides, however many tokens there are: batch mates with more of them change nothing.
        uniform = torch.stack(
            [torch.rand(1, generator=generators[row], dtype=torch.double) for row in rows.tolist()]
        )
        sums = scores.softmax(-1).cpu().double().cumsum(-1)
        return (sums > uniform * sums[:, -1:]).byte().argmax(-1).to(scores.device)

    return _walk(step, state, rules, limits, prefix, choose)


def _walk(
    step: Step, state: Any, rules: Rules, limits: Tensor, prefix: Tensor | None, choose: Choose
) -> list[Hypothesis]:
    """One token after the other, one hypothesis per sentence."""
    device = limits.device
    rows = torch.arange(len(limits), device=device)
    token = torch.full_like(rows, rules.bos)
    history = token.new_empty(len(rows), 0)
    total = torch.zeros(len(rows), device=device)
    found: dict[int, Hypothesis] = {}
    while len(rows):
        logits, state = step(token, state)
        given = None if prefix is None else prefix[rows]
        log_p = rules.restrict(logits.float().log_softmax(-1), history, limits[rows], given)
        token = choose(log_p, rows)
        total = total + log_p.gather(1, token[:, None]).squeeze(1)
        ends = token == rules.eos
        if bool(ends.any()):
            length, stay = history.shape[1] + 1, (~ends).nonzero().squeeze(1)
            covered = rules.covered(state, len(rows))
            for place in ends.nonzero().squeeze(1).tolist():
                value = total[place].item()
                score = rules.score(value, length) + covered[place]
                found[int(rows[place])] = Hypothesis(history[place].tolist(), value, score)
            rows, token, history, total = rows[stay], token[stay], history[stay], total[stay]
            state = reorder(state, stay)
        history = torch.cat([history, token[:, None]], 1)
    return [found[row] for row in range(len(limits))]


class _Beams(NamedTuple):
    """The hypotheses that are still open: K for each of the sentences that are left."""

    rows: Tensor  # (B,), the sentence's number
    history: Tensor  # (B, K, t)
    total: Tensor  # (B, K)


def beam_search(
    step: Step, state: Any, rules: Rules, limits: Tensor, beam: int, prefix: Tensor | None = None
) -> list[list[Hypothesis]]:
    """The best `beam` hypotheses of each sentence, best first; limits (B,): most tokens of each.

    A sentence is done when `beam` hypotheses have ended. One ends when its end is among the best `beam`
    continuations of all its sentence's hypotheses.
    """
    if beam < 1:
        raise Seq2attnError(f"a beam holds at least one hypothesis, got beam={beam}")
    count, device = len(limits), limits.device
    total = torch.full((count, beam), NEVER, device=device)
    total[:, 0] = 0.0
    rows = torch.arange(count, device=device)
    beams = _Beams(rows, rows.new_empty(count, beam, 0), total)
    state = reorder(state, rows.repeat_interleave(beam), rows)
    token = torch.full((count * beam,), rules.bos, dtype=torch.long, device=device)
    found: list[list[Hypothesis]] = [[] for _ in range(count)]
    while len(beams.rows):
        logits, state = step(token, state)
        best, origin, token = _continuations(logits, beams, rules, limits, prefix)
        _collect(found, best, origin, token, beams, state, rules)
        # The end is worth nothing as a continuation; a stable sort keeps the others in their order.
        best = best.masked_fill(token == rules.eos, NEVER)
        order = best.sort(dim=1, descending=True, stable=True).indices[:, :beam]
        best, origin, token = (x.gather(1, order) for x in (best, origin, token))
        open_ = torch.tensor([len(found[row]) < beam for row in beams.rows.tolist()], device=device)
        stay = (open_ & best.isfinite().any(1)).nonzero().squeeze(1)
        origin, token = origin[stay], token[stay]
        history = beams.history[stay].gather(1, origin[..., None].expand(-1, -1, beams.history.shape[2]))
        beams = _Beams(beams.rows[stay], torch.cat([history, token[..., None]], 2), best[stay])
        state = reorder(state, (stay[:, None] * beam + origin).flatten(), stay)
        token = token.flatten()
    return [sorted(some, key=lambda hypothesis: -hypothesis.score)[:beam] for some in found]


def _continuations(
    logits: Tensor, beams: _Beams, rules: Rules, limits: Tensor, prefix: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The best 2 K continuations of each sentence: total, the hypothesis continued, the token; (B, 2K)."""
    count, beam, length = beams.history.shape
    past, each = beams.history.view(count * beam, length), beams.rows.repeat_interleave(beam)
    given = None if prefix is None else prefix[each]
    found = []
    for some in blocks(count, logits.device, beam):
        rows = slice(some.start * beam, some.stop * beam)
        log_p = logits[rows].float().log_softmax(-1)
        allowed = rules.restrict(
            log_p, past[rows], limits[each[rows]], None if given is None else given[rows]
        )
        found.append(_best(allowed.unflatten(0, (-1, beam)), beams.total[some]))
    totals, origin, token = (torch.cat(parts) for parts in zip(*found, strict=True))
    return totals, origin, token


def _best(log_p: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`_continuations` from log-probabilities (B, K, V) of the next tokens, and totals (B, K) of the last.

    In groups of tokens: none of the best 2 K stands in a group whose best is not among the best 2 K of
    groups, so that most numbers are looked at once.
    """
    count, beam, size = log_p.shape
    groups = F.pad(log_p, (0, -size % GROUP), value=NEVER) if size % GROUP else log_p
    groups = groups.reshape(count, -1, GROUP)
    tops = (groups.amax(-1).view(count, beam, -1) + total[..., None]).flatten(1)
    each = tops.shape[1] // beam
    chosen = tops.topk(min(2 * beam, tops.shape[1]), dim=1).indices
    members = groups.gather(1, chosen[..., None].expand(-1, -1, GROUP))
    totals = (members + total.gather(1, chosen // each)[..., None]).flatten(1)
    best, place = totals.topk(2 * beam, dim=1)
    group = chosen.gather(1, place // GROUP)
    token = (group % each * GROUP + place % GROUP).clamp(max=size - 1)  # beyond it there is only NEVER
    return best, group // each, token


def _collect(
    found: list[list[Hypothesis]],
    best: Tensor,
    origin: Tensor,
    token: Tensor,
    beams: _Beams,
    state: Any,
    rules: Rules,
) -> None:
    """Put hypotheses that end here to their sentence's."""
    beam, length = beams.history.shape[1], beams.history.shape[2] + 1
    ends = (token == rules.eos) & best.isfinite()
    ends[:, beam:] = False
    if not bool(ends.any()):
        return
    sentence, place = ends.nonzero(as_tuple=True)
    rank = origin[sentence, place]
    tokens = beams.history[sentence, rank]
    covered = rules.covered(state, len(beams.rows) * beam)
    for row, some, value, number in zip(
        *(x.tolist() for x in (beams.rows[sentence], tokens, best[sentence, place], sentence * beam + rank)),
        strict=True,
    ):
        if len(found[row]) < beam:
            found[row].append(Hypothesis(some, value, rules.score(value, length) + covered[number]))
