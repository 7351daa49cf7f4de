"""Greedy search and sampling. They use a model only through `step`, and its state through `reorder`.

The model's device computes logits and what is as wide as the vocabulary. Everything else is a few numbers for
each sentence, and kept in arrays on the host: an operation on those costs a device far more than it computes.

The result of a sentence does not depend on the other sentences of its batch, their number or their order, as
far as the logits do not: in bf16 and fp16 they are rounded otherwise in batches of another size.
Finished sentences leave the batch. Every score is the model's own log-probability of the tokens, so that
forced decoding of the tokens gives the same number.

Letters: B sentences, K hypotheses of each, N = B K rows of the decoder's batch, V tokens, t tokens so far.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.attention.state import reorder
from seq2attn.errors import Seq2attnError, for_caller

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]  # token (N,), state -> logits (N, V), state
Coverage = Callable[[Any], Tensor | None]  # state -> (N, S), the sum of the weights of each source position
Watch = Callable[[int, list[int]], None]  # sentence, tokens that its result begins with, whatever comes
Ids = NDArray[np.int64]  # of tokens, sentences or rows
Floats = NDArray[np.floating[Any]]
Choose = Callable[[Tensor, Ids], Tensor]  # log-probabilities (N, V), sentences (N,) -> tokens (N,)

IMPOSSIBLE = float("-inf")  # the log-probability of a forbidden token
# At lower temperatures, logits overflow; at higher ones, all tokens are equally probable.
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-6, 1e6
MIN_COVERAGE = 1e-6  # the floor in the coverage penalty: with sparse weights, a coverage of 0 is common


class Hypothesis(NamedTuple):
    """A finished target. Its tokens are without <s> and </s>; its log-probability includes that of </s>."""

    tokens: list[int]
    log_probability: float
    score: float  # ranks hypotheses: the log-probability normalised for length, and the coverage penalty
    truncated: bool = False  # whether it ended because it has the largest length allowed


class NotNumbersError(Seq2attnError):
    """A model's probabilities are nan."""


WORD_START = -2  # in a prefix: any token that begins a word, or </s>


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
    renormalize: bool = False  # divide probabilities by the sum of those of the allowed tokens
    # End a beam search by the estimate of the library Transformers; </s> at the limit then costs nothing.
    estimated_end: bool = False
    word_starts: Tensor | None = None  # (V,), bool; required if a prefix has WORD_START

    def score(self, log_probability: Floats | float, length: Ids | int) -> Any:
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

    def restrict(self, log_p: Tensor, history: Ids, limits: Ids, prefix: Ids | None) -> Tensor:
        """Set the log-probabilities (N, V) of tokens that may not follow a history (N, t) to IMPOSSIBLE, in
        place, and return them.

        limits (N,): the largest number of tokens before </s>; prefix (N, P): forced tokens, -1 = free, or
            WORD_START.
        """
        length, device, forced, full = history.shape[1], log_p.device, None, history.shape[1] >= limits
        # Otherwise </s> is allowed, so that no row is left without a token.
        ending = log_p[:, self.eos].clone() if length < self.min_length or full.any() else None
        if prefix is not None and length < prefix.shape[1]:
            given = prefix[:, length]
            forced_rows = np.flatnonzero(given >= 0)
            forced = on_device(forced_rows, device), on_device(given[forced_rows], device)
            forced_log_p = log_p[forced]
            if self.word_starts is not None:
                inner = ~F.pad(self.word_starts, (0, log_p.shape[1] - len(self.word_starts)))
                log_p.masked_fill_(on_device(given == WORD_START, device)[:, None] & inner, IMPOSSIBLE)
        for token in self.never:
            log_p[:, token] = IMPOSSIBLE
        if length < self.min_length:
            log_p[:, self.eos] = IMPOSSIBLE
        if 0 < self.no_repeat_ngram <= length:
            self._forbid_repeats(log_p, history)
        # Where no token is allowed, a target that is too short is better than a forbidden token.
        if ending is not None:
            at_limit = on_device(full, device)
            if self.estimated_end:
                ending = ending.masked_fill(at_limit, 0.0)
            rows = ((log_p.amax(1) == IMPOSSIBLE) | at_limit).nonzero().squeeze(1)
            log_p[rows] = IMPOSSIBLE
            log_p[rows, self.eos] = ending[rows]
        if self.renormalize:
            total = log_p.logsumexp(1, keepdim=True)  # (N, 1)
            log_p -= total.masked_fill(total == IMPOSSIBLE, 0.0)
        if forced is not None:
            log_p[forced[0]] = IMPOSSIBLE
            log_p[forced] = forced_log_p
        return log_p

    def _forbid_repeats(self, log_p: Tensor, history: Ids) -> None:
        grams = sliding_window_view(history, self.no_repeat_ngram, axis=1)  # (N, t - n + 1, n)
        begun = history[:, None, history.shape[1] - self.no_repeat_ngram + 1 :]  # (N, 1, n - 1)
        row, start = (grams[..., :-1] == begun).all(-1).nonzero()
        repeated = on_device(row, log_p.device), on_device(grams[row, start, -1], log_p.device)
        log_p[repeated] = IMPOSSIBLE


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array of the host as a tensor on a device."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def on_host(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array on the host."""
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array


def greedy(
    step: Step,
    state: Any,
    rules: Rules,
    limits: Tensor,
    prefix: Tensor | None = None,
    watch: Watch | None = None,
) -> list[Hypothesis]:
    """Take the most probable token at every step. limits (B,): the largest length of each target. watch: is
    told each token, and changes nothing."""
    return _decode(step, state, rules, limits, prefix, lambda scores, rows: scores.argmax(-1), watch)


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
    watch: Watch | None = None,
) -> list[Hypothesis]:
    """Sample tokens from the model (by inverting its distribution), each sentence from its own seed.

    top_k: only from the k most probable tokens (0 = all); top_p: only from the most probable tokens that
    together have probability p (Holtzman et al. 2020); temperature divides the logits first. The length and
    coverage penalties of the rules rank the samples and do not change them. watch: see `greedy`.
    """
    if not MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE or top_k < 0 or not 0 < top_p <= 1:
        raise Seq2attnError(
            f"sampling needs a temperature from {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}, top_k >= 0 and "
            "0 < top_p <= 1; "
            f"got temperature={temperature}, top_k={top_k}, top_p={top_p}"
        )
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def choose(scores: Tensor, rows: Ids) -> Tensor:
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

    return _decode(step, state, rules, limits, prefix, choose, watch)


def sample_seeds(seed: int, indices: Sequence[int], count: int) -> list[int]:
    """Return the seeds of `count` samples of each sentence with these indices, one after another."""
    return [
        int(np.random.SeedSequence([seed, index, number]).generate_state(1)[0])
        for index in indices
        for number in range(count)
    ]


def _decode(
    step: Step,
    state: Any,
    rules: Rules,
    limits: Tensor,
    prefix: Tensor | None,
    choose: Choose,
    watch: Watch | None = None,
) -> list[Hypothesis]:
    """Decode one hypothesis per sentence; `choose` picks its token at every step."""
    device, most = limits.device, on_host(limits)
    forced = None if prefix is None else on_host(prefix)
    sentences = np.arange(len(most))  # (N,), the unfinished ones
    history, total = np.empty((len(most), 0), np.int64), np.zeros(len(most), np.float32)
    token = torch.full((len(most),), rules.bos, device=device)
    finished: dict[int, Hypothesis] = {}
    while len(sentences):
        logits, state = step(token, state)
        log_p, limit = logits.float().log_softmax(-1), most[sentences]
        log_p = rules.restrict(log_p, history, limit, None if forced is None else forced[sentences])
        # Every target ends with its limit, even if </s> has the probability 0.
        full = history.shape[1] >= limit  # (N,)
        token = choose(log_p, sentences).masked_fill(on_device(full, device), rules.eos)
        total = total + on_host(log_p.gather(1, token[:, None]).squeeze(1))
        chosen = on_host(token)
        ends = chosen == rules.eos
        if watch is not None:
            for sentence, tokens, last in zip(
                *(x.tolist() for x in (sentences, history, chosen)), strict=True
            ):
                watch(sentence, [*tokens, last])
        if (ends | np.isnan(total)).any():
            require_numbers(total)
            length, remaining = history.shape[1] + 1, np.flatnonzero(~ends)
            coverage_scores = rules.coverage_scores(state, len(sentences))
            for row in np.flatnonzero(ends).tolist():
                log_probability = float(total[row])
                score = rules.score(log_probability, length) + coverage_scores[row]
                tokens, truncated = history[row].tolist(), bool(full[row])
                finished[int(sentences[row])] = Hypothesis(tokens, log_probability, score, truncated)
            sentences, chosen = sentences[remaining], chosen[remaining]
            history, total = history[remaining], total[remaining]
            rows = on_device(remaining, device)
            token, state = token[rows], reorder(state, rows)
        history = np.concatenate([history, chosen[:, None]], 1)
    return [finished[sentence] for sentence in range(len(most))]


def require_numbers(log_probabilities: Floats) -> None:
    """Raise NotNumbersError if any of the log-probabilities is nan."""
    if np.isnan(log_probabilities).any():
        raise NotNumbersError(
            "the model's probabilities are not numbers (nan): its weights are damaged or training diverged; "
            f"use other weights ({for_caller('--checkpoint', 'checkpoint=')}), or precision fp32"
        )
