"""Blocks with a channel part and a spatial part: CBAM, scSE, BAM, polarized self-attention."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2attn.attention.blocks.block import Block, Gate, Looked, Map, grid_of
from seq2attn.attention.blocks.channel import CSE, CBAMChannel
from seq2attn.attention.blocks.context import attended
from seq2attn.attention.blocks.grid import mean, softmax, wide_dtype, zeroed
from seq2attn.attention.blocks.parts import (
    BatchNorm,
    Bottleneck,
    Positive,
    Start,
    VectorNorm,
    hidden_width,
    vector_norm,
)
from seq2attn.attention.blocks.spatial import SSE, CBAMSpatial


class CBAM(Gate):
    """x * M_c * M_s: M_c = sigmoid(MLP(mean) + MLP(max)) over the grid, then M_s = sigmoid(BN(f [max; mean]))
    over the channels of x * M_c.

    ratio: C / r hidden units, at least 4. kernel: of f, odd. norm: batch, as released, or none, as in the
    paper. order: which part is first; parallel: both see x. start: half, or open (0.9 each) for fine-tuning.
    round_to: the hidden width is rounded up to a multiple.
    """

    paper = "Woo et al. 2018, 1807.06521"

    def __init__(
        self,
        channels: int,
        *,
        ratio: Positive = 16,
        kernel: Positive = 7,
        norm: Literal["batch", "none"] = "batch",
        order: Literal["channel_first", "spatial_first", "parallel"] = "channel_first",
        start: Start = "half",
        round_to: Positive = 1,
    ) -> None:
        super().__init__(channels)
        self.channel = CBAMChannel(channels, ratio=ratio, start=start, round_to=round_to)
        self.spatial = CBAMSpatial(channels, kernel=kernel, norm=norm, start=start)
        self.order = order

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class."""
        parts = (
            [self.channel, self.spatial] if self.order != "spatial_first" else [self.spatial, self.channel]
        )
        maps = parts[0].gates(x, mask)
        refined = x if self.order == "parallel" else x * parts[0].gate(maps).to(x.dtype)
        return {**maps, **parts[1].gates(refined, mask)}


class SCSE(Block):
    """x * cse + x * sse: a gate for each channel and one for each place.

    combine: add, as first published, which starts at about x; max, multiply, or concat, with a 1 x 1
    convolution to C. ratio: C / r hidden units of cse, at least 4. bias: of sse. start: of both gates, half,
    or open (0.9). round_to: the hidden width is rounded up to a multiple.
    """

    at = "after"
    paper = "Roy et al. 2018, 1803.02579"

    def __init__(
        self,
        channels: int,
        *,
        ratio: Positive = 2,
        combine: Literal["add", "max", "multiply", "concat"] = "add",
        bias: bool = True,
        start: Start = "half",
        round_to: Positive = 1,
    ) -> None:
        super().__init__(channels)
        self.channel = CSE(channels, ratio=ratio, start=start, round_to=round_to)
        self.spatial = SSE(channels, bias=bias, start=start)
        self.combine = combine
        self.join = nn.Conv2d(2 * channels, channels, 1) if combine == "concat" else nn.Identity()

    def attend(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> Looked:
        """See the class."""
        maps = {**self.channel.gates(x, mask), **self.spatial.gates(x, mask)}
        channel, place = (maps[name].weights.to(x.dtype) for name in ("channel", "place"))
        if self.combine == "add":
            return Looked(x * (channel + place), maps)
        if self.combine == "multiply":
            return Looked(x * (channel * place), maps)
        if self.combine == "max":
            return Looked(torch.maximum(x * channel, x * place), maps)
        return Looked(self.join(torch.cat([x * channel, x * place], 1)), maps)


class BAM(Gate):
    """x + x * sigmoid(M_c + M_s), M_c = W2 relu(norm(W1 mean)), M_s of dilated 3 x 3 convolutions in C / r
    channels: the bottleneck attention module.

    ratio: r, both of the MLP and of the convolutions, with at least 4 channels. dilation: of two 3 x 3
    convolutions. combine: the sum, as in the paper, or the product, as released. norm: of the MLP's hidden
    layer; batch is the paper's, and cannot train on a batch of one. round_to: C / r is rounded up to a
    multiple. Layers are those of the release, with batch normalisation inside the branches and not after
    them.
    """

    at = "between"
    paper = "Park et al. 2018, 1807.06514"

    def __init__(
        self,
        channels: int,
        *,
        ratio: Positive = 16,
        dilation: Positive = 4,
        combine: Literal["sum", "product"] = "sum",
        norm: VectorNorm = "layer",
        round_to: Positive = 1,
    ) -> None:
        super().__init__(channels)
        hidden = hidden_width(channels, ratio, round_to)
        self.combine = combine
        self.channel = Bottleneck(channels, hidden, norm=vector_norm(norm, hidden))
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.dilated = nn.ModuleList(
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation) for _ in range(2)
        )
        self.norms = nn.ModuleList(BatchNorm(hidden) for _ in range(3))
        self.score = nn.Conv2d(hidden, 1, 1)

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class. `channel` and `place` are M_c and M_s, before the sigmoid."""
        channel = self.channel(mean(x, mask).flatten(1))[..., None, None]  # (B, C, 1, 1)
        hidden = F.relu(self.norms[0](self.reduce(x)))
        for convolve, norm in zip(self.dilated, self.norms[1:], strict=True):
            hidden = F.relu(norm(convolve(zeroed(hidden, mask))))
        place = self.score(hidden)  # (B, 1, H, W)
        scores = channel + place if self.combine == "sum" else channel * place
        return {
            "full": Map("full", torch.sigmoid(scores), grid_of(x)),
            "channel": Map("channel", channel, grid_of(x)),
            "place": Map("place", place, grid_of(x)),
        }

    def gate(self, maps: dict[str, Map]) -> Tensor:
        """Return 1 + M: the paper's formula has a residual."""
        return 1 + maps["full"].weights


class Polarized(Gate):
    """x * A_c + x * A_s: A_c = sigmoid(LN(W_z v softmax_N(q))), A_s = sigmoid(softmax_C(mean q') . v'):
    polarized self-attention, with q, v, q', v' of 1 and C / 2 channels.

    order: parallel, the sum; or sequential, where A_s sees x * A_c and multiplies it. form: paper, or
    release, which has no biases; where parallel, no LN and a softmax over the positions within the last
    sigmoid, so that A_s is hardly more than 0.5; where sequential, an MLP with LN in the place of W_z, and a
    softmax of v' over the positions.
    """

    at = "middle"
    paper = "Liu et al. 2021, 2107.00782"

    def __init__(
        self,
        channels: int,
        *,
        form: Literal["paper", "release"] = "paper",
        order: Literal["parallel", "sequential"] = "parallel",
    ) -> None:
        super().__init__(channels)
        self.paper_form, self.parallel = form == "paper", order == "parallel"
        half, bias = max(channels // 2, 1), self.paper_form
        self.query = nn.Conv2d(channels, 1, 1, bias=bias)
        self.value, self.place_query, self.place_value = (
            nn.Conv2d(channels, half, 1, bias=bias) for _ in range(3)
        )
        for layer in (self.query, self.value, self.place_query, self.place_value):
            nn.init.kaiming_normal_(layer.weight)
        self.excite: nn.Module
        if self.paper_form:
            self.excite = nn.Sequential(nn.Linear(half, channels), nn.LayerNorm(channels))
        elif self.parallel:
            self.excite = nn.Linear(half, channels, bias=False)
        else:
            hidden = hidden_width(half, 4)
            self.excite = Bottleneck(half, hidden, out=channels, norm=nn.LayerNorm(hidden))

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class. `attention` is the softmax over positions of the channel part."""
        attention = softmax(self.query(x), mask)  # (B, 1, H, W)
        channel = torch.sigmoid(self.excite(attended(self.value(x), attention)))[..., None, None]
        refined = x if self.parallel else x * channel.to(x.dtype)
        return {
            "attention": Map("place", attention, grid_of(x), distribution=True),
            "channel": Map("channel", channel, grid_of(x)),
            "place": Map("place", torch.sigmoid(self.place_scores(refined, mask)), grid_of(x)),
        }

    def place_scores(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the scores of places (B, 1, H, W), before the sigmoid."""
        query, values = (
            mean(self.place_query(x), mask),
            self.place_value(x),
        )  # (B, C / 2, 1, 1), (B, C / 2, H, W)
        if self.paper_form:
            query = query.to(wide_dtype(query)).softmax(1)
        elif not self.parallel:
            values = softmax(values, mask)
        scores = (query * values).sum(1, keepdim=True)
        return softmax(scores, mask) if self.parallel and not self.paper_form else scores

    def gate(self, maps: dict[str, Map]) -> Tensor:
        """Return A_c + A_s, or A_c A_s."""
        channel, place = maps["channel"].weights, maps["place"].weights
        return channel + place if self.parallel else channel * place
