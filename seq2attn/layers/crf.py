"""A linear-chain conditional random field: all labels of a sentence are chosen together.

Letters: B batch, T tokens, K labels, n the tokens of one sentence. Within, time comes first.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seq2attn.errors import Seq2attnError

IMPOSSIBLE = float("-inf")
May = Tensor | Sequence[bool] | Sequence[Sequence[bool]]


class Best(NamedTuple):
    """The most probable labels of sentences."""

    labels: Tensor  # (B, T), 0 on padding
    log_probability: Tensor  # (B,), of all labels of a sentence together, in nats


class Windows(NamedTuple):
    """Tokens side by side, and which labels they may have; N windows, the largest of W tokens."""

    rows: Tensor  # (N,), the sentence of each
    starts: Tensor  # (N,), its first token
    sizes: Tensor  # (N,), how many; none is beyond its sentence
    allowed: Tensor  # (N, W, K), bool; anything behind the last


class _Chain(NamedTuple):
    """What all sums run over; padding has emissions of 0, and there is at least one slot."""

    emissions: Tensor  # (T, B, K)
    start: Tensor  # (K,)
    transition: Tensor  # (K, K)
    end: Tensor  # (K,)
    last: Tensor  # (B,), the slot of the last token; 0 if there is none
    mask: Tensor  # (T, B)


class CRF(nn.Module):
    """p(y | e) = exp(s(e, y)) / Z(e), Z the sum over all y (Lafferty et al. 2001; Lample et al. 2016),

    s(e, y) = start[y_1] + sum_t e_t[y_t] + sum_t transition[y_{t-1}, y_t] + end[y_n].

    start, transition, end: which of the K labels may come first (K,), follow each other (K, K; from row to
    column) and come last (K,), such as the `constraints` of a tag scheme; None: all. What may not is no part
    of Z either: its probability is 0 in training as in decoding.

    Masks are True on tokens, and padding is behind them. A sentence of no tokens has one labelling, none, of
    probability 1 and cost 0. Everything runs in float32 at least, also under autocast.
    """

    may_start: Tensor
    may_follow: Tensor
    may_end: Tensor

    def __init__(
        self, size: int, start: May | None = None, transition: May | None = None, end: May | None = None
    ) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.empty(size).uniform_(-0.1, 0.1))
        self.transition = nn.Parameter(torch.empty(size, size).uniform_(-0.1, 0.1))
        self.end = nn.Parameter(torch.empty(size).uniform_(-0.1, 0.1))
        self.register_buffer("may_start", _bools("start", start, (size,)), persistent=False)
        self.register_buffer("may_follow", _bools("transition", transition, (size, size)), persistent=False)
        self.register_buffer("may_end", _bools("end", end, (size,)), persistent=False)

    def forward(
        self, emissions: Float[Tensor, "B T K"], labels: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, " B"]:
        """-log p(labels) of each sentence, in nats. What stands on padding does not matter.

        Seq2attnError at labels that may not stand where they do: their cost would be infinite.
        """
        self._check_constraints(labels, mask)
        return self.log_partition(emissions, mask) - self.score(emissions, labels, mask)

    def score(
        self, emissions: Float[Tensor, "B T K"], labels: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, " B"]:
        """s(e, labels), -inf if they may not stand where they do. Seq2attnError at numbers of no label."""
        chain = self._chain(emissions, mask)
        y = _first_slot(_known(labels, mask, emissions.shape[-1])).T
        e = chain.emissions.gather(-1, y.unsqueeze(-1)).squeeze(-1)
        steps = chain.transition[y[:-1], y[1:]].masked_fill(~chain.mask[1:], 0)  # times 0 would be nan
        ends = chain.start[y[0]] + chain.end[y.gather(0, chain.last.unsqueeze(0)).squeeze(0)]
        return e.sum(0) + steps.sum(0) + ends.masked_fill(~chain.mask[0], 0)

    def log_partition(
        self,
        emissions: Float[Tensor, "B T K"],
        mask: Bool[Tensor, "B T"],
        allowed: Bool[Tensor, "B T K"] | None = None,
    ) -> Float[Tensor, " B"]:
        """log Z; with `allowed` the sum over the labellings whose labels are all allowed, -inf if none is.

        Its gradient is the marginals (of `emissions`) and the expected counts (of what the CRF learns).
        """
        chain = self._chain(emissions, mask, allowed)
        log_z: Tensor = _LogPartition.apply(*chain[:5])  # type: ignore[no-untyped-call]
        return log_z.masked_fill(~chain.mask[0], 0)

    @torch.no_grad()
    def probability(
        self,
        emissions: Float[Tensor, "B T K"],
        mask: Bool[Tensor, "B T"],
        allowed: Bool[Tensor, "B T K"],
    ) -> Float[Tensor, " B"]:
        """How probable it is that all labels are allowed: exact, such as of one entity (`tags.allowed`)."""
        return (self.log_partition(emissions, mask, allowed) - self.log_partition(emissions, mask)).exp()

    @torch.no_grad()
    def within(
        self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"], windows: Windows
    ) -> Float[Tensor, " N"]:
        """`probability` of many windows beyond which all is allowed, such as all entities: one pass through
        the sentences forwards and one backwards serve all, and each window costs its tokens alone.

        log p = logsumexp(a_s + allowed steps from s to t + b_t) - log Z, a as in `_sums`, b in `_remaining`.
        """
        chain = self._chain(emissions, mask)
        sums, remaining = _sums(*chain[:3]), _remaining(chain)
        rows, starts, sizes, allowed = windows
        scores = sums[starts, rows].masked_fill(~allowed[:, 0], IMPOSSIBLE)
        for place in range(1, allowed.shape[1]):
            some = (sizes > place).nonzero().squeeze(-1)
            here = chain.emissions[starts[some] + place, rows[some]]
            reached = (scores[some].unsqueeze(-1) + chain.transition).logsumexp(-2) + here
            scores[some] = reached.masked_fill(~allowed[some, place], IMPOSSIBLE)
        log_z = (_at(sums, chain.last) + chain.end).logsumexp(-1)
        return ((scores + remaining[starts + sizes - 1, rows]).logsumexp(-1) - log_z[rows]).exp()

    @torch.no_grad()
    def marginals(
        self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T K"]:
        """p(y_t = k | e), 0 on padding. Written out, so that it needs no gradients; it has none either."""
        e, start, transition, end, last, there = self._chain(emissions, mask)
        sums = _sums(e, start, transition)
        found = _expected(sums, transition, end, last, weight=there[0].to(e.dtype))
        return found.labels.transpose(0, 1)[:, : mask.shape[1]]

    @torch.no_grad()
    def decode(self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"]) -> Best:
        """The labels of the highest probability (Viterbi 1967).

        Seq2attnError if the constraints leave a sentence none at all.
        """
        e, start, transition, end, last, there = self._chain(emissions, mask)
        scores, came = [start + e[0]], []
        for here in e[1:]:
            best, before = (scores[-1].unsqueeze(-1) + transition).max(-2)
            scores.append(best + here)
            came.append(before)
        score, label = (_at(torch.stack(scores), last) + end).max(-1)
        score = score.masked_fill(~there[0], 0)
        if (score == IMPOSSIBLE).any():
            row = int((score == IMPOSSIBLE).nonzero()[0])
            raise Seq2attnError(
                f"no labels of sentence {row} ({int(mask[row].sum())} tokens) keep to the constraints; let "
                "one come first, follow itself and come last"
            )
        path = [label]
        for before, real in zip(reversed(came), there[1:].flip(0), strict=True):
            # on padding nothing happens: the last label waits there
            path.append(path[-1].where(~real, before.gather(-1, path[-1].unsqueeze(-1)).squeeze(-1)))
        labels = torch.stack(path[::-1], 1)[:, : mask.shape[1]].masked_fill(~mask, 0)
        return Best(labels, score - self.log_partition(emissions, mask))

    def _chain(self, emissions: Tensor, mask: Tensor, allowed: Tensor | None = None) -> _Chain:
        if (mask[:, 1:] & ~mask[:, :-1]).any():
            row = int((mask[:, 1:] & ~mask[:, :-1]).any(-1).nonzero()[0])
            raise Seq2attnError(
                f"the mask of sentence {row} has a hole, or padding before tokens: a CRF needs them side by "
                "side; gather them (such as the first pieces of words) to the front"
            )
        dtype = torch.promote_types(emissions.dtype, torch.float32)
        e = emissions.to(dtype)
        if allowed is not None:
            e = e.masked_fill(~allowed, IMPOSSIBLE)
        e, mask = _first_slot(e.masked_fill(~mask.unsqueeze(-1), 0)), _first_slot(mask)
        return _Chain(
            e.transpose(0, 1).contiguous(),
            self.start.to(dtype).masked_fill(~self.may_start, IMPOSSIBLE),
            self.transition.to(dtype).masked_fill(~self.may_follow, IMPOSSIBLE),
            self.end.to(dtype).masked_fill(~self.may_end, IMPOSSIBLE),
            (mask.sum(1) - 1).clamp(min=0),
            mask.T,
        )

    def _check_constraints(self, labels: Tensor, mask: Tensor) -> None:
        y = _known(labels, mask, len(self.start))
        begins = torch.cat([~self.may_start[y[:, :1]], ~self.may_follow[y[:, :-1], y[:, 1:]]], 1)
        ends = ~self.may_end[y] & ~F.pad(mask[:, 1:], (0, 1))
        wrong = (begins | ends) & mask
        if wrong.any():
            row, t = wrong.nonzero()[0].tolist()
            after = f"follow label {int(y[row, t - 1])}" if t else "come first"
            raise Seq2attnError(
                f"token {t} of sentence {row} has label {int(y[row, t])}, which may not "
                f"{after if begins[row, t] else 'come last'}: what the constraints forbid cannot be learnt; "
                "repair the tags (tags.repair) before they become labels"
            )


class _LogPartition(torch.autograd.Function):
    """log Z, whose gradient is what is expected of the labels: composed operations would make it nan where
    nothing is possible, and keep a tensor (B, K, K) for each token."""

    @staticmethod
    def forward(
        ctx: Any, emissions: Tensor, start: Tensor, transition: Tensor, end: Tensor, last: Tensor
    ) -> Tensor:
        sums = _sums(emissions, start, transition)
        ctx.save_for_backward(sums, transition, end, last)
        return (_at(sums, last) + end).logsumexp(-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        sums, transition, end, last = ctx.saved_tensors
        labels, pairs, ends = _expected(sums, transition, end, last, weight=grad)
        return labels, labels[0].sum(0), pairs, ends, None


def _sums(emissions: Tensor, start: Tensor, transition: Tensor) -> Tensor:
    """a_t[k] (T, B, K): log of the sum over all labels before t, for label k at t.

    a_1 = e_1 + start, a_t[j] = e_t[j] + logsumexp_i(a_{t-1}[i] + transition[i, j]).
    """
    sums = [emissions[0] + start]
    for e in emissions[1:]:
        sums.append((sums[-1].unsqueeze(-1) + transition).logsumexp(-2) + e)
    return torch.stack(sums)


def _remaining(chain: _Chain) -> Tensor:
    """b_t[k] (T, B, K): log of the sum over all labels behind t, for label k at t.

    b_n = end, b_t[i] = logsumexp_j(transition[i, j] + e_{t+1}[j] + b_{t+1}[j]).
    """
    found = [chain.end.expand_as(chain.emissions[0])]
    for e, real in zip(chain.emissions[1:].flip(0), chain.mask[1:].flip(0), strict=True):
        before = (chain.transition + (e + found[-1]).unsqueeze(-2)).logsumexp(-1)
        found.append(before.where(real.unsqueeze(-1), chain.end))  # at the last token nothing has been seen
    return torch.stack(found[::-1])


class _Expected(NamedTuple):
    """Probabilities, each times the weight of its sentence."""

    labels: Tensor  # (T, B, K), p(y_t = k)
    pairs: Tensor  # (K, K), p(y_{t-1} = i, y_t = j), of all tokens together
    ends: Tensor  # (K,), p(y_n = k), of all sentences together


def _expected(sums: Tensor, transition: Tensor, end: Tensor, last: Tensor, weight: Tensor) -> _Expected:
    """The chain read backwards: p(y_{t-1}) = sum_j p(y_{t-1} | y_t = j) p(y_t = j), from the last label on.

    All that is multiplied is a probability, so nothing drowns, however long the sentence.
    """
    labels, pairs = torch.zeros_like(sums), torch.zeros_like(transition)
    nowhere = sums == IMPOSSIBLE  # there softmax may be nan, and is not needed
    rare = nowhere.flatten(1).any(1).tolist()
    final = _at(sums, last) + end
    ends = final.softmax(-1).masked_fill(final == IMPOSSIBLE, 0) * weight.unsqueeze(-1)
    labels[last, torch.arange(len(last), device=last.device)] = ends
    for t in range(len(sums) - 1, 0, -1):
        before = (sums[t - 1].unsqueeze(-1) + transition).softmax(-2)
        if rare[t]:
            before.masked_fill_(nowhere[t].unsqueeze(-2), 0)
        both = before.mul_(labels[t].unsqueeze(-2))
        labels[t - 1] += both.sum(-1)
        pairs += both.sum(0)
    return _Expected(labels, pairs, ends.sum(0))


def _at(values: Tensor, slots: Tensor) -> Tensor:
    """Of (T, B, K) the slot of each sentence, (B, K)."""
    return values[slots, torch.arange(len(slots), device=slots.device)]


def _first_slot(values: Tensor) -> Tensor:
    """(B, T, ...) with a slot of padding if there is none at all."""
    return values if values.shape[1] else values.new_zeros(len(values), 1, *values.shape[2:])


def _known(labels: Tensor, mask: Tensor, size: int) -> Tensor:
    """The labels, 0 on padding. Seq2attnError at others than 0 ... size - 1."""
    labels = labels.long().masked_fill(~mask, 0)
    wrong = (labels < 0) | (labels >= size)
    if wrong.any():
        row, t = wrong.nonzero()[0].tolist()
        raise Seq2attnError(
            f"token {t} of sentence {row} has label {int(labels[row, t])}: expected one of 0 ... {size - 1}"
        )
    return labels


def _bools(name: str, may: May | None, shape: tuple[int, ...]) -> Tensor:
    found = torch.ones(shape, dtype=torch.bool) if may is None else torch.as_tensor(may)
    if found.shape != shape or found.dtype != torch.bool:
        raise Seq2attnError(
            f"the constraints {name!r} of a CRF are bools {shape}, True = may, got {found.dtype} "
            f"{tuple(found.shape)}"
        )
    return found
