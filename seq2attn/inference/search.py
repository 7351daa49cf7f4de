"""Greedy search, beam search and sampling. They use a model only through `step`, and its state through
`reorder`.

The result of a sentence does not depend on the other sentences of its batch, their number or their order.
Finished sentences leave the batch. Every score is the model's own log-probability of the tokens, so that
forced decoding of the tokens gives the same number.

Letters: B sentences, K hypotheses of each, N = B K rows of the decoder's batch, V tokens, t tokens so far.
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
Coverage = Callable[[Any], Tensor | None]  # state -> (N, S), the sum of the weights of each source position
Choose = Callable[[Tensor, Tensor], Tensor]  # log-probabilities (N, V), sentences (N,) -> tokens (N,)

IMPOSSIBLE = float("-inf")  # the log-probability of a forbidden token
GROUP_SIZE = 64  # tokens; `_top_continuations` first compares the best of each group
# At lower temperatures, logits overflow; at higher ones, all tokens are equally probable.
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-6, 1e6
MIN_COVERAGE = 1e-6  # the floor in the coverage penalty: with sparse weights, a coverage of 0 is common


class Hypothesis(NamedTuple):
    """A finished target. Its tokens are without <s> and </s>; its log-probability includes that of </s>."""

    tokens: list[int]
    log_probability: float
    score: float  # ranks hypotheses: the log-probability normalised for length, and the coverage penalty


@dataclass(frozen=True)
class Rules:
    """The constraints on targets, and the ranking of targets of different lengths."""

    bos: int
    eos: int
    never: tuple[int, ...] = ()  # tokens that are never produced (padding, <s>)
    min_length: int = 0
    no_repeat_ngram: int = 0
    length_normalization: str = "simple"
    length_penalty: float = 1.0
    coverage_penalty: float = 0.0
    coverage: Coverage | None = None  # required if there is a coverage penalty

    def score(self, log_probability: Tensor | float, length: Tensor | int) -> Any:
        """Return the score of a hypothesis of `length` tokens with </s>, without the coverage penalty."""
        if self.length_normalization == "gnmt":
            return log_probability / ((5 + length) / 6) ** self.length_penalty
        if self.length_normalization == "simple":
            return log_probability / length**self.length_penalty
        return log_probability

    def coverage_scores(self, state: Any, count: int) -> list[float]:
        """Return the coverage term of the score of each of a state's `count` hypotheses, if they end now."""
        if not self.coverage_penalty:
            return [0.0] * count
        coverage = None if self.coverage is None else self.coverage(state)
        if coverage is None:
            raise Seq2attnError(
                "a coverage penalty needs steps that track coverage: a decoder with attention, and a state "
                "from decoder.track_coverage(state) at the start"
            )
        return self.penalty(coverage).tolist()

    def penalty(self, coverage: Tensor) -> Tensor:
        """Return beta sum_i log min(c_i, 1) over the source positions of coverage c (..., S).

        Wu et al. 2016, eq. 14; c_i is at least MIN_COVERAGE.
        """
        return self.coverage_penalty * coverage.float().clamp(MIN_COVERAGE, 1.0).log().sum(-1)

    def restrict(self, log_p: Tensor, history: Tensor, limits: Tensor, prefix: Tensor | None) -> Tensor:
        """Set the log-probabilities (N, V) of tokens that may not follow a history (N, t) to IMPOSSIBLE, in
        place, and return them.

        limits (N,): the largest number of tokens before </s>; prefix (N, P): forced tokens, -1 = free.
        """
        length, end = history.shape[1], torch.full_like(limits, self.eos)
        ending, forced = log_p[:, self.eos].clone(), None
        if prefix is not None and length < prefix.shape[1]:
            forced = prefix[:, length]
            forced_log_p = log_p.gather(1, forced.clamp(min=0)[:, None]).squeeze(1)
        for token in self.never:
            log_p[:, token] = IMPOSSIBLE
        if length < self.min_length:
            log_p[:, self.eos] = IMPOSSIBLE
        if self.no_repeat_ngram and length >= self.no_repeat_ngram:
            self._forbid_repeats(log_p, history)
        # Where no token is allowed, a target that is too short is better than a forbidden token.
        _allow_only(log_p, (log_p.amax(1) == IMPOSSIBLE) | (length >= limits), end, ending)
        if forced is not None:
            _allow_only(log_p, forced >= 0, forced, forced_log_p)
        return log_p

    def _forbid_repeats(self, log_p: Tensor, history: Tensor) -> None:
        n = self.no_repeat_ngram
        if n == 1:
            log_p.scatter_(1, history, IMPOSSIBLE)
            return
        grams = history.unfold(1, n, 1)  # (N, t - n + 1, n), every n-gram so far
        repeated = (grams[..., :-1] == history[:, None, 1 - n :]).all(-1)  # (N, t - n + 1)
        row, start = repeated.nonzero(as_tuple=True)
        log_p[row, grams[row, start, -1]] = IMPOSSIBLE


def _allow_only(log_p: Tensor, where: Tensor, token: Tensor, value: Tensor) -> None:
    """In the rows of log_p (N, V) where `where` (N,) is True, allow only `token` (N,), with `value` (N,)."""
    rows = where.nonzero().squeeze(1)
    if not len(rows):
        return
    log_p[rows] = IMPOSSIBLE
    log_p[rows, token[rows]] = value[rows]


def greedy(
    step: Step, state: Any, rules: Rules, limits: Tensor, prefix: Tensor | None = None
) -> list[Hypothesis]:
    """Take the most probable token at every step. limits (B,): the largest length of each target."""
    return _decode(step, state, rules, limits, prefix, lambda scores, rows: scores.argmax(-1))


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
    """Sample tokens from the model (by inverting its distribution), each sentence from its own seed.

    top_k: only from the k most probable tokens (0 = all); top_p: only from the most probable tokens that
    together have probability p (Holtzman et al. 2020); temperature divides the logits first. The length and
    coverage penalties of the rules rank the samples and do not change them.
    """
    if not MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE or top_k < 0 or not 0 < top_p <= 1:
        raise Seq2attnError(
            f"sampling needs a temperature from {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}, top_k >= 0 and "
            "0 < top_p <= 1; "
            f"got temperature={temperature}, top_k={top_k}, top_p={top_p}"
        )
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def choose(scores: Tensor, rows: Tensor) -> Tensor:
        scores = (scores / temperature).log_softmax(-1)
        if top_k:
            kth = scores.topk(min(top_k, scores.shape[-1])).values[:, -1:]  # (N, 1)
            scores = scores.masked_fill(scores < kth, IMPOSSIBLE)
        if top_p < 1:
            ordered, order = scores.softmax(-1).sort(descending=True, stable=True)
            excluded = ordered.cumsum(-1) - ordered >= top_p  # never the most probable token
            excluded = torch.zeros_like(excluded).scatter(1, order, excluded)
            scores = scores.masked_fill(excluded, IMPOSSIBLE)
        # One random number per sentence and step, however large V is: V depends on the other sentences of
        # the batch if the model copies.
        uniform = torch.stack(
            [
                torch.rand(1, generator=generators[row], dtype=torch.double, device="cpu")
                for row in rows.tolist()
            ]
        )
        sums = scores.softmax(-1).cpu().double().cumsum(-1)
        return (sums > uniform * sums[:, -1:]).byte().argmax(-1).to(scores.device)

    return _decode(step, state, rules, limits, prefix, choose)


def _decode(
    step: Step, state: Any, rules: Rules, limits: Tensor, prefix: Tensor | None, choose: Choose
) -> list[Hypothesis]:
    """Decode one hypothesis per sentence; `choose` picks its token at every step."""
    device = limits.device
    sentences = torch.arange(len(limits), device=device)  # (N,), the unfinished ones
    token = torch.full_like(sentences, rules.bos)
    history = token.new_empty(len(sentences), 0)
    total = torch.zeros(len(sentences), device=device)
    finished: dict[int, Hypothesis] = {}
    while len(sentences):
        logits, state = step(token, state)
        forced = None if prefix is None else prefix[sentences]
        log_p = rules.restrict(logits.float().log_softmax(-1), history, limits[sentences], forced)
        # Every target ends with its limit, even if </s> has the probability 0.
        token = choose(log_p, sentences).masked_fill(history.shape[1] >= limits[sentences], rules.eos)
        total = total + log_p.gather(1, token[:, None]).squeeze(1)
        ends = token == rules.eos
        if bool((ends | total.isnan()).any()):
            _require_numbers(total)
            length, remaining = history.shape[1] + 1, (~ends).nonzero().squeeze(1)
            coverage_scores = rules.coverage_scores(state, len(sentences))
            for row in ends.nonzero().squeeze(1).tolist():
                log_probability = total[row].item()
                score = rules.score(log_probability, length) + coverage_scores[row]
                finished[int(sentences[row])] = Hypothesis(history[row].tolist(), log_probability, score)
            sentences, token = sentences[remaining], token[remaining]
            history, total = history[remaining], total[remaining]
            state = reorder(state, remaining)
        history = torch.cat([history, token[:, None]], 1)
    return [finished[sentence] for sentence in range(len(limits))]


def _require_numbers(log_probabilities: Tensor) -> None:
    if bool(log_probabilities.isnan().any()):
        raise Seq2attnError(
            "the model's probabilities are not numbers (nan): its weights are damaged or training diverged; "
            "use other weights (--checkpoint), or precision fp32"
        )


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
    """
    nbest, count, device = beam if nbest is None else nbest, len(limits), limits.device
    hypotheses = _first_hypotheses(count, beam, nbest, device)
    sentences = hypotheses.sentences
    dropped: list[int] = []  # the sentences whose greedy hypothesis has left the beam before its end
    finished: list[list[Hypothesis]] = [[] for _ in range(count)]
    start = state
    state = reorder(state, sentences.repeat_interleave(beam), sentences)
    token = torch.full((count * beam,), rules.bos, dtype=torch.long, device=device)
    while len(hypotheses.sentences):
        logits, state = step(token, state)
        continuations = _continuations(logits, hypotheses, rules, limits, prefix)
        _collect_finished(finished, continuations, hypotheses, state, rules, nbest)
        # A stable sort moves ended hypotheses to the end; the others keep their order.
        total = continuations.total.masked_fill(continuations.token == rules.eos, IMPOSSIBLE)
        order = total.sort(dim=1, descending=True, stable=True).indices[:, :beam]
        path, lost = _greedy_path(hypotheses, continuations, order, rules)
        dropped += hypotheses.sentences[lost].tolist()
        total, origin, token = (
            x.gather(1, order) for x in (total, continuations.origin, continuations.token)
        )
        length = hypotheses.history.shape[2]
        # A log-probability only falls and the coverage term is never positive: no score can be higher than
        # that of the present log-probability at the limit.
        highest = rules.score(total[:, 0], limits[hypotheses.sentences] + 1)
        lowest = [_lowest_kept(finished[sentence], nbest) for sentence in hypotheses.sentences.tolist()]
        remaining = (highest > torch.tensor(lowest, device=device)).nonzero().squeeze(1)
        origin, token = origin[remaining], token[remaining]  # (B, K), of the sentences that remain
        history = hypotheses.history[remaining].gather(1, origin[..., None].expand(-1, -1, length))
        history = torch.cat([history, token[..., None]], 2)
        sentences = hypotheses.sentences[remaining]
        hypotheses = _OpenHypotheses(sentences, history, total[remaining], path[remaining])
        state = reorder(state, (remaining[:, None] * beam + origin).flatten(), remaining)
        token = token.flatten()
    if dropped:
        rows = torch.tensor(dropped, device=device)
        forced = None if prefix is None else prefix[rows]
        completed = greedy(step, reorder(start, rows), rules, limits[rows], forced)
        for sentence, hypothesis in zip(dropped, completed, strict=True):
            _keep(hypothesis, finished[sentence], nbest)
    return finished


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
        _require_numbers(parts[-1].total)
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
    for sentence, tokens, total, index in zip(
        hypotheses.sentences[row].tolist(),
        hypotheses.history[row, origin].tolist(),
        continuations.total[row, rank].tolist(),
        (row * beam + origin).tolist(),
        strict=True,
    ):
        score = rules.score(total, length) + coverage_scores[index]
        _keep(Hypothesis(tokens, total, score), finished[sentence], nbest)
