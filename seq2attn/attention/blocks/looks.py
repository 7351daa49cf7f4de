"""Blocks in which the positions of an image attend to each other: `Attention` on a grid.

Letters: B batch, C channels, H x W the grid, N = H W queries, M keys, h heads, K width of keys, V of values.
"""

from math import prod
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from seq2attn.attention.attention import Attention
from seq2attn.attention.blocks.block import Block, Looked, Map, grid_of
from seq2attn.attention.blocks.options import Part, part
from seq2attn.attention.blocks.parts import BatchNorm, Positive
from seq2attn.attention.compatibility import incompatibilities
from seq2attn.attention.interfaces import Normalizer, Scorer
from seq2attn.attention.memory import Grid, Memory, Past
from seq2attn.attention.normalizers import NORMALIZERS, Softmax
from seq2attn.attention.precision import full_precision
from seq2attn.attention.scorers import SCORERS, Dot
from seq2attn.errors import NotDefinedError, Seq2attnError


class Widths(NamedTuple):
    """The widths of the projections of a look; values None: they are not projected."""

    keys: int  # of queries and keys, all heads together; 0: neither is projected
    values: int  # of values, all heads together


class Looks(Block):
    """The base class of blocks that hold an `Attention`: y = merge(x, sum over keys of weight times value).

    attention: the attention of one head; widths: of queries, keys and values, which are projections of the
    features; bias: whether projections have one; heads: the number of heads side by side. A subclass defines
    `merge`, and may change what is attended to (`source`) or how (`attended`).
    """

    def __init__(
        self, channels: int, attention: Attention, widths: Widths, *, bias: bool = True, heads: int = 1
    ) -> None:
        super().__init__(channels)
        for _, why in incompatibilities(attention.score, attention.normalize, "self-attention"):
            raise Seq2attnError(why)
        self.attention, self.heads = attention, heads
        sizes = (widths.keys, widths.keys, widths.values)
        self.query, self.key, self.value = (
            nn.Linear(channels, size, bias=bias) if size else nn.Identity() for size in sizes
        )

    def pairs(self, grid: Grid) -> int:
        """See the base class: each position weighs all."""
        return self.heads * prod(grid) ** 2

    def merge(self, x: Tensor, context: Tensor) -> Tensor:
        """Return the features (B, C, H, W) that follow from the input and the context (B, N, V)."""
        raise NotDefinedError(f"{type(self).__name__} must define its output: write merge()")

    def source(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Grid]:
        """Return keys (B, M, K), values (B, M, V), their mask (B, M), and their grid."""
        states = rows(x)
        allowed = states.new_ones(states.shape[:2], dtype=torch.bool) if mask is None else mask.flatten(1)
        return self.key(states), self.value(states), allowed, grid_of(x)

    def attended(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> tuple[Tensor, Map | None]:
        """Return the context (B, N, V) and, if they are needed, the weights."""
        keys, values, allowed, grid = self.source(x, mask)
        memory = self.remember(keys, values, allowed.unsqueeze(1), grid)
        context, weights = self.ask(self.query(rows(x)), memory, need_weights)
        return context, None if weights is None else self.affinity(weights, grid_of(x), grid)

    def remember(self, keys: Tensor, values: Tensor, mask: Tensor, grid: Grid) -> Memory:
        """Return the memory of keys and values, with a mask (B, 1 or N, M)."""
        mask = mask if self.heads == 1 else mask.unsqueeze(1)
        return self.attention.remember(self.split(keys), mask, self.split(values), grid=grid)

    def ask(self, queries: Tensor, memory: Memory, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Return the context (B, N, V) and the weights (B, [h,] N, M) of queries (B, N, K)."""
        attended = self.attention(self.split(queries), memory, need_weights=need_weights)
        context = attended.context
        return context if self.heads == 1 else context.transpose(1, 2).flatten(2), attended.weights

    def affinity(self, weights: Tensor, grid: Grid, keys: Grid) -> Map:
        """Return weights (B, [h,] N, M) as a map."""
        of_heads = weights if self.heads > 1 else weights.unsqueeze(1)
        return Map("affinity", of_heads, grid, keys, self.attention.normalize.sums_to_one)

    def split(self, x: Tensor) -> Tensor:
        """Return (B, N, h D) as (B, h, N, D); as it is, if there is one head."""
        if self.heads == 1:
            return x
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)

    def attend(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> Looked:
        """See the base class."""
        context, weights = self.attended(x, mask, need_weights)
        return Looked(self.merge(x, context), {} if weights is None else {"affinity": weights})


def rows(x: Tensor) -> Tensor:
    """Return features (B, C, H, W) as states (B, N, C), row by row."""
    return x.flatten(2).mT


def on_grid(states: Tensor, grid: Grid) -> Tensor:
    """Return states (B, N, C) as features (B, C, H, W)."""
    features: Tensor = states.mT.unflatten(-1, grid)
    return features


class ScaledResidual(nn.Module):
    """x + gamma y, with a learned number gamma that starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """See the class."""
        return x + self.gamma.to(x.dtype) * y.to(x.dtype)


class NonLocal(Looks):
    """x + W sum_j f(x_i, x_j) g(x_j), over all positions j: non-local means with learned similarity.

    form: f is, with projections q and k to C / ratio channels: embedded, the softmax of q . k / sqrt(d);
    dot, q . k / N; concat, relu(w . [q; k]) / N; gaussian, the softmax of x_i . x_j without projections.
    sagan is that of Zhang et al. 2019, 1805.08318: the softmax of q . k with C / 8 channels, values of C / 2,
    spectral norms, keys pooled after their projection, gamma in the place of the norm.
    score, normalize: any of SCORERS and NORMALIZERS, as a name or with options, in the place of the form's.
    pool: keys and values are the maxima of pool x pool positions. norm: of the output; starts at 0.
    """

    paper = "Wang et al. 2018, 1711.07971"
    at = "after"
    identity_at_start = True

    def __init__(
        self,
        channels: int,
        *,
        form: Literal["embedded", "dot", "concat", "gaussian", "sagan"] = "embedded",
        score: Part | None = None,
        normalize: Part | None = None,
        ratio: Positive | None = None,
        pool: Positive | None = None,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        sagan = form == "sagan"
        width = max(channels // (ratio or (8 if sagan else 2)), 1)
        key_width = 0 if form == "gaussian" else width
        values = max(channels // 2, 1) if sagan else width
        named = {"embedded": "scaled_dot"}.get(form, "dot")
        size = key_width or channels
        scorer: Scorer = (
            _Concat(size) if form == "concat" and score is None else part(SCORERS, score or named, size, size)
        )
        unbounded = form in ("dot", "concat") and normalize is None
        normalizer: Normalizer = _Mean() if unbounded else part(NORMALIZERS, normalize or "softmax", size)
        widths = Widths(key_width, values)
        super().__init__(channels, Attention(scorer, normalizer), widths, bias=not sagan)
        self.pool, self.sagan = pool or (2 if sagan else 1), sagan
        self.out = nn.Linear(values, channels, bias=not sagan)
        self.norm: nn.Module = ScaledResidual() if sagan else _Added(channels, norm)
        for layer in (self.query, self.key, self.value, self.out):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight) if sagan else nn.init.normal_(layer.weight, std=0.01)
                if sagan:
                    spectral_norm(layer)
        if not sagan and norm == "none":
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def pairs(self, grid: Grid) -> int:
        """See the base class: keys are pooled."""
        return prod(grid) * prod(-(-side // self.pool) for side in grid)

    def source(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Grid]:
        """See the base class."""
        if self.pool == 1:
            return super().source(x, mask)
        if not self.sagan:
            return super().source(*pooled(x, mask, self.pool))
        keys, values, _, grid = super().source(x, mask)
        (keys, smaller), (values, _) = (
            pooled(on_grid(part, grid), mask, self.pool) for part in (keys, values)
        )
        allowed = keys.new_ones(keys[:, :1].shape, dtype=torch.bool) if smaller is None else smaller
        return rows(keys), rows(values), allowed.flatten(1), grid_of(keys)

    def attend(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> Looked:
        """See the base class. Weights without a bound, such as q . k / N, overflow half precision."""
        if self.attention.normalize.sums_to_one:
            return super().attend(x, mask, need_weights)
        with full_precision(x.device):
            wide = super().attend(x.to(self.out.weight.dtype), mask, need_weights)
        return wide._replace(features=wide.features.to(x.dtype))

    def merge(self, x: Tensor, context: Tensor) -> Tensor:
        """See the base class."""
        return self.norm(x, on_grid(self.out(context), grid_of(x)))  # type: ignore[no-any-return]


class PAM(Looks):
    """x + gamma sum_j softmax_j(q_i . k_j) v_j: position attention.

    ratio: queries and keys have C / ratio channels, values C. gamma starts at 0.
    """

    paper = "Fu et al. 2019, 1809.02983"
    at = "after"
    identity_at_start = True

    def __init__(self, channels: int, *, ratio: Positive = 8) -> None:
        width = max(channels // ratio, 1)
        super().__init__(channels, Attention(Dot(width, width), Softmax()), Widths(width, channels))
        self.residual = ScaledResidual()

    def merge(self, x: Tensor, context: Tensor) -> Tensor:
        """See the base class."""
        return self.residual(x, on_grid(context, grid_of(x)))  # type: ignore[no-any-return]


class CAM(Block):
    """x_c + gamma sum_d softmax_d(+- x_c . x_d) x_d: channel attention, without projections.

    sign: dissimilar channels are attended to, as in the release, or similar ones, as in the paper's equation.
    normalize: channels are scaled to length 1 before they are compared; otherwise products over all positions
    are so large that a channel attends to few others. gamma starts at 0.
    """

    paper = "Fu et al. 2019, 1809.02983"
    at = "after"
    identity_at_start = True

    def __init__(
        self, channels: int, *, sign: Literal["dissimilar", "similar"] = "dissimilar", normalize: bool = False
    ) -> None:
        super().__init__(channels)
        self.sign, self.normalize = -1.0 if sign == "dissimilar" else 1.0, normalize
        self.attention = Attention(Dot(1, 1), Softmax())
        self.residual = ScaledResidual()

    def attend(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> Looked:
        """See the base class. Positions outside the mask are 0, and add nothing to the products."""
        with full_precision(x.device):
            channels = x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))  # (B, C, N)
            keys = F.normalize(channels, dim=-1) if self.normalize else channels
            allowed = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            memory = self.attention.remember(keys, allowed, channels)
            attended = self.attention(self.sign * keys, memory)
        features = self.residual(x, attended.context.view_as(x))
        return Looked(features, {"channels": Map("channels", attended.weights, grid_of(x), None, True)})


class _Added(nn.Module):
    """x + norm(y), with a norm that starts at 0."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.norm = BatchNorm(channels) if norm == "batch" else nn.Identity()
        if isinstance(self.norm, BatchNorm):
            nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """See the class."""
        return x + self.norm(y).to(x.dtype)  # type: ignore[no-any-return]


class _Concat(Scorer):
    """relu(w . [q; k]) (Wang et al. 2018, eq. 6), which is relu(u . q + v . k)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.of_query, self.of_key = (nn.Linear(size, 1, bias=False) for _ in range(2))

    def keys(self, states: Tensor) -> Tensor:
        """Return v . k."""
        return self.of_key(states)  # type: ignore[no-any-return]

    def forward(self, query: Tensor, keys: Tensor, past: Past) -> Tensor:
        """See the class."""
        return F.relu(self.of_query(query) + keys.mT)


class _Mean(Normalizer):
    """e / n for n unmasked positions (Wang et al. 2018, section 3.2). Not in NORMALIZERS, because weights
    may be negative, and sum to anything."""

    sums_to_one = False

    def forward(self, scores: Tensor, mask: Tensor, past: Past, query: Tensor) -> Tensor:
        """See the class."""
        return scores.masked_fill(~mask, 0.0) / mask.sum(-1, keepdim=True).clamp(min=1)


def pooled(x: Tensor, mask: Tensor | None, size: int) -> tuple[Tensor, Tensor | None]:
    """Return the maxima (B, C, H', W') of size x size positions, and whether any of them is in the mask."""
    if mask is None:
        return F.max_pool2d(x, size, ceil_mode=True), None
    lowest = torch.finfo(x.dtype).min
    smaller = F.max_pool2d(mask.to(x.dtype), size, ceil_mode=True) > 0
    largest = F.max_pool2d(x.masked_fill(~mask, lowest), size, ceil_mode=True)
    return largest.masked_fill(~smaller, 0.0), smaller
