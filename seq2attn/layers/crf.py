"""A linear-chain conditional random field: all labels of a sentence are chosen together.

Letters: B batch, T tokens, K labels, n the number of tokens of a sentence. Internally, time comes first.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seq2attn.attention.masks import check_mask
from seq2attn.errors import Seq2attnError
from seq2attn.layers.labels import checked_labels

IMPOSSIBLE = float("-inf")
Allowed = Tensor | Sequence[bool] | Sequence[Sequence[bool]]


class Best(NamedTuple):
    """The most probable labels of sentences."""

    labels: Tensor  # (B, T), 0 at padding
    log_probability: Tensor  # (B,), of all labels of a sentence together, in nats


class Windows(NamedTuple):
    """N windows of at most W adjacent tokens, and the labels that these may have."""

    rows: Tensor  # (N,), the sentence of each
    starts: Tensor  # (N,), its first token
    sizes: Tensor  # (N,), its number of tokens; it ends within its sentence
    allowed: Tensor  # (N, W, K), bool; arbitrary behind the last token

    def to(self, device: torch.device) -> "Windows":
        """Move to a device."""
        return Windows(
            self.rows.to(device), self.starts.to(device), self.sizes.to(device), self.allowed.to(device)
        )


class _Chain(NamedTuple):
    """The scores of labels, -inf where constraints forbid them; emissions are 0 at padding, and T >= 1."""

    emissions: Tensor  # (T, B, K)
    start: Tensor  # (K,)
    transition: Tensor  # (K, K)
    end: Tensor  # (K,)
    last: Tensor  # (B,), the position of the last token; 0 if there is none
    mask: Tensor  # (T, B)


class CRF(nn.Module):
    """p(y | e) = exp(s(e, y)) / Z(e), Z the sum over all y (Lafferty et al. 2001; Lample et al. 2016),

    s(e, y) = start[y_1] + sum_t e_t[y_t] + sum_t transition[y_{t-1}, y_t] + end[y_n].

    start, transition, end: which of the K labels may come first (K,), follow each other (K, K; from row to
    column) and come last (K,), such as the `constraints` of a tag scheme; None: all. Labellings that are not
    allowed are no part of Z either: their probability is 0 in training as in decoding.

    Masks are True at tokens, and padding is behind them. A sentence without tokens has one labelling, the
    empty one, of probability 1 and loss 0. Everything is computed in float32 or wider, also under autocast.
    """

    may_start: Tensor
    may_follow: Tensor
    may_end: Tensor

    def __init__(
        self,
        size: int,
        start: Allowed | None = None,
        transition: Allowed | None = None,
        end: Allowed | None = None,
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
        """Return -log p(labels) of each sentence, in nats. Labels at padding are ignored.

        Seq2attnError for labels that the constraints forbid: their loss would be infinite.
        """
        chain = self._chain(emissions, mask)
        y = checked_labels(labels, mask, emissions.shape[:2], len(self.start))  # (B, T)
        self._check_constraints(y, mask)
        return _log_z(chain) - _score(chain, y)

    def score(
        self, emissions: Float[Tensor, "B T K"], labels: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, " B"]:
        """Return s(e, labels), -inf if the constraints forbid them. Seq2attnError for ids of no label."""
        chain = self._chain(emissions, mask)
        return _score(chain, checked_labels(labels, mask, emissions.shape[:2], len(self.start)))

    def log_partition(
        self,
        emissions: Float[Tensor, "B T K"],
        mask: Bool[Tensor, "B T"],
        allowed: Bool[Tensor, "B T K"] | None = None,
    ) -> Float[Tensor, " B"]:
        """Return log Z; with `allowed` the sum over the labellings whose labels are all allowed, -inf if none
        is.

        Its gradient is the marginals (of `emissions`) and the expected counts (of the CRF's parameters).
        """
        return _log_z(self._chain(emissions, mask, allowed))

    @torch.no_grad()
    def probability(
        self,
        emissions: Float[Tensor, "B T K"],
        mask: Bool[Tensor, "B T"],
        allowed: Bool[Tensor, "B T K"],
    ) -> Float[Tensor, " B"]:
        """Return the exact probability that all labels are allowed, such as of one entity
        (`tags.allowed`)."""
        return (self.log_partition(emissions, mask, allowed) - self.log_partition(emissions, mask)).exp()

    @torch.no_grad()
    def within(
        self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"], windows: Windows
    ) -> Float[Tensor, " N"]:
        """Return `probability` for many windows outside of which all labels are allowed, such as all
        entities.

        One pass through the sentences forwards and one backwards serve all windows, and each window costs
        only its own tokens: log p = logsumexp(a_s + allowed steps from s to t + b_t) - log Z, with a as in
        `_forward_sums` and b as in `_backward_sums`.
        """
        chain = self._chain(emissions, mask)
        forward = _forward_sums(chain.emissions, chain.start, chain.transition)  # (T, B, K)
        backward = _backward_sums(chain)  # (T, B, K)
        rows, starts, allowed = windows.rows, windows.starts, windows.allowed
        scores = forward[starts, rows].masked_fill(~allowed[:, 0], IMPOSSIBLE)  # (N, K)
        for offset in range(1, allowed.shape[1]):
            longer = (windows.sizes > offset).nonzero().squeeze(-1)  # (M,), windows with a token here
            e = chain.emissions[starts[longer] + offset, rows[longer]]  # (M, K)
            sums = (scores[longer].unsqueeze(-1) + chain.transition).logsumexp(-2) + e  # (M, K)
            scores[longer] = sums.masked_fill(~allowed[longer, offset], IMPOSSIBLE)
        log_z = (_at(forward, chain.last) + chain.end).logsumexp(-1)  # (B,)
        return ((scores + backward[starts + windows.sizes - 1, rows]).logsumexp(-1) - log_z[rows]).exp()

    @torch.no_grad()
    def marginals(
        self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T K"]:
        """Return p(y_t = k | e), 0 at padding. Written out, so that it needs no gradients; it has none
        either."""
        chain = self._chain(emissions, mask)
        sums = _forward_sums(chain.emissions, chain.start, chain.transition)
        weight = chain.mask[0].to(sums.dtype)  # (B,), 0 without tokens
        expected = _expectations(sums, chain.transition, chain.end, chain.last, weight)
        return expected.labels.transpose(0, 1)[:, : mask.shape[1]]

    @torch.no_grad()
    def decode(self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"]) -> Best:
        """Return the labels of the highest probability (Viterbi 1967).

        Seq2attnError if the constraints allow a sentence no labels at all.
        """
        chain = self._chain(emissions, mask)
        scores, pointers = [chain.start + chain.emissions[0]], []  # (B, K) each
        for e in chain.emissions[1:]:
            best, previous = (scores[-1].unsqueeze(-1) + chain.transition).max(-2)
            scores.append(best + e)
            pointers.append(previous)
        score, label = (_at(torch.stack(scores), chain.last) + chain.end).max(-1)  # (B,) each
        score = score.masked_fill(~chain.mask[0], 0)
        if (score == IMPOSSIBLE).any():
            row = int((score == IMPOSSIBLE).nonzero()[0])
            raise Seq2attnError(
                f"no labels of sentence {row} ({int(mask[row].sum())} tokens) keep to the constraints; let "
                "one come first, follow itself and come last"
            )
        path = [label]  # from the last label to the first
        for previous, real in zip(reversed(pointers), chain.mask[1:].flip(0), strict=True):
            # at padding the path stays at the last label
            path.append(path[-1].where(~real, previous.gather(-1, path[-1].unsqueeze(-1)).squeeze(-1)))
        labels = torch.stack(path[::-1], 1)[:, : mask.shape[1]].masked_fill(~mask, 0)  # (B, T)
        return Best(labels, score - self.log_partition(emissions, mask))

    def _chain(self, emissions: Tensor, mask: Tensor, allowed: Tensor | None = None) -> _Chain:
        size = len(self.start)
        if not isinstance(emissions, Tensor) or emissions.dim() != 3 or emissions.shape[-1] != size:
            came = tuple(emissions.shape) if isinstance(emissions, Tensor) else type(emissions).__name__
            raise Seq2attnError(f"expected emissions (B, T, {size}), a score for each label; got {came}")
        check_mask(mask, emissions.shape[:2], "(B, T), True = a token")
        if (mask[:, 1:] & ~mask[:, :-1]).any():
            row = int((mask[:, 1:] & ~mask[:, :-1]).any(-1).nonzero()[0])
            raise Seq2attnError(
                f"the mask of sentence {row} has a hole, or padding before tokens: a CRF needs adjacent "
                "tokens; gather them (such as the first pieces of words) to the front"
            )
        dtype = torch.promote_types(emissions.dtype, torch.float32)
        e = emissions.to(dtype)
        if allowed is not None:
            check_mask(allowed, emissions.shape, "(B, T, K), True = an allowed label")
            e = e.masked_fill(~allowed, IMPOSSIBLE)
        e, mask = _at_least_one(e.masked_fill(~mask.unsqueeze(-1), 0)), _at_least_one(mask)
        return _Chain(
            e.transpose(0, 1).contiguous(),
            self.start.to(dtype).masked_fill(~self.may_start, IMPOSSIBLE),
            self.transition.to(dtype).masked_fill(~self.may_follow, IMPOSSIBLE),
            self.end.to(dtype).masked_fill(~self.may_end, IMPOSSIBLE),
            (mask.sum(1) - 1).clamp(min=0),
            mask.T,
        )

    def _check_constraints(self, y: Tensor, mask: Tensor) -> None:
        begins = torch.cat([~self.may_start[y[:, :1]], ~self.may_follow[y[:, :-1], y[:, 1:]]], 1)  # (B, T)
        ends = ~self.may_end[y] & ~F.pad(mask[:, 1:], (0, 1))  # (B, T)
        wrong = (begins | ends) & mask
        if wrong.any():
            row, t = wrong.nonzero()[0].tolist()
            after = f"follow label {int(y[row, t - 1])}" if t else "come first"
            raise Seq2attnError(
                f"token {t} of sentence {row} has label {int(y[row, t])}, which may not "
                f"{after if begins[row, t] else 'come last'}: labels that are forbidden cannot be learnt; "
                "repair the tags (tags.repair) before they become labels"
            )


def _score(chain: _Chain, labels: Tensor) -> Tensor:
    """Return s(e, y) (B,) of labels (B, T)."""
    y = _at_least_one(labels).T  # (T, B)
    e = chain.emissions.gather(-1, y.unsqueeze(-1)).squeeze(-1)  # (T, B)
    steps = chain.transition[y[:-1], y[1:]].masked_fill(~chain.mask[1:], 0)  # (T - 1, B); times 0 is nan
    ends = chain.start[y[0]] + chain.end[y.gather(0, chain.last.unsqueeze(0)).squeeze(0)]  # (B,)
    return e.sum(0) + steps.sum(0) + ends.masked_fill(~chain.mask[0], 0)


def _log_z(chain: _Chain) -> Tensor:
    """Return log Z (B,)."""
    log_z: Tensor = _LogPartition.apply(  # type: ignore[no-untyped-call]
        chain.emissions, chain.start, chain.transition, chain.end, chain.last
    )
    return log_z.masked_fill(~chain.mask[0], 0)


class _LogPartition(torch.autograd.Function):
    """log Z, whose gradient is the expectation of the labels.

    That of composed operations would be nan where nothing is possible, and would keep a tensor (B, K, K) for
    each token.
    """

    @staticmethod
    def forward(
        ctx: Any, emissions: Tensor, start: Tensor, transition: Tensor, end: Tensor, last: Tensor
    ) -> Tensor:
        sums = _forward_sums(emissions, start, transition)  # (T, B, K)
        ctx.save_for_backward(sums, transition, end, last)
        return (_at(sums, last) + end).logsumexp(-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        sums, transition, end, last = ctx.saved_tensors
        expected = _expectations(sums, transition, end, last, weight=grad)
        return expected.labels, expected.labels[0].sum(0), expected.pairs, expected.ends, None


def _forward_sums(emissions: Tensor, start: Tensor, transition: Tensor) -> Tensor:
    """Return a_t[k] (T, B, K): log of the sum over all labels before t, for label k at t.

    a_1 = e_1 + start, a_t[j] = e_t[j] + logsumexp_i(a_{t-1}[i] + transition[i, j]).
    """
    sums = [emissions[0] + start]
    for e in emissions[1:]:
        sums.append((sums[-1].unsqueeze(-1) + transition).logsumexp(-2) + e)
    return torch.stack(sums)


def _backward_sums(chain: _Chain) -> Tensor:
    """Return b_t[k] (T, B, K): log of the sum over all labels after t, for label k at t.

    b_n = end, b_t[i] = logsumexp_j(transition[i, j] + e_{t+1}[j] + b_{t+1}[j]).
    """
    sums = [chain.end.expand_as(chain.emissions[0])]  # from the last to the first, (B, K) each
    for e, real in zip(chain.emissions[1:].flip(0), chain.mask[1:].flip(0), strict=True):
        before = (chain.transition + (e + sums[-1]).unsqueeze(-2)).logsumexp(-1)
        sums.append(before.where(real.unsqueeze(-1), chain.end))  # b_n at the last token and behind it
    return torch.stack(sums[::-1])


class _Expectations(NamedTuple):
    """Probabilities, each times the weight of its sentence."""

    labels: Tensor  # (T, B, K), p(y_t = k)
    pairs: Tensor  # (K, K), p(y_{t-1} = i, y_t = j), of all tokens together
    ends: Tensor  # (K,), p(y_n = k), of all sentences together


def _expectations(
    sums: Tensor, transition: Tensor, end: Tensor, last: Tensor, weight: Tensor
) -> _Expectations:
    """Go backwards through the chain: p(y_{t-1}) = sum_j p(y_{t-1} | y_t = j) p(y_t = j), from the last
    label.

    All factors are probabilities, so nothing underflows, however long the sentence.
    """
    labels, pairs = torch.zeros_like(sums), torch.zeros_like(transition)  # (T, B, K), (K, K)
    impossible = sums == IMPOSSIBLE  # there softmax may be nan, and is not needed
    any_impossible = impossible.flatten(1).any(1).tolist()
    final = _at(sums, last) + end  # (B, K)
    ends = final.softmax(-1).masked_fill(final == IMPOSSIBLE, 0) * weight.unsqueeze(-1)
    labels[last, torch.arange(len(last), device=last.device)] = ends
    for t in range(len(sums) - 1, 0, -1):
        before = (sums[t - 1].unsqueeze(-1) + transition).softmax(-2)  # (B, K, K), p(y_{t-1} | y_t)
        if any_impossible[t]:
            before.masked_fill_(impossible[t].unsqueeze(-2), 0)
        both = before.mul_(labels[t].unsqueeze(-2))  # (B, K, K), p(y_{t-1}, y_t)
        labels[t - 1] += both.sum(-1)
        pairs += both.sum(0)
    return _Expectations(labels, pairs, ends.sum(0))


def _at(values: Tensor, positions: Tensor) -> Tensor:
    """Select a position of each sentence: (T, B, K) at (B,) -> (B, K)."""
    return values[positions, torch.arange(len(positions), device=positions.device)]


def _at_least_one(values: Tensor) -> Tensor:
    """Return values (B, T, ...), with one position of padding if T is 0."""
    return values if values.shape[1] else values.new_zeros(len(values), 1, *values.shape[2:])


def _bools(name: str, allowed: Allowed | None, shape: tuple[int, ...]) -> Tensor:
    device = torch.get_default_device()  # as that of the parameters
    bools = torch.ones(shape, dtype=torch.bool, device=device)
    if allowed is not None:
        bools = torch.as_tensor(allowed, device=device)
    if bools.shape != shape or bools.dtype != torch.bool:
        raise Seq2attnError(
            f"the constraints {name!r} of a CRF are bools {shape}, True = allowed, got {bools.dtype} "
            f"{tuple(bools.shape)}"
        )
    return bools
