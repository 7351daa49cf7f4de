"""Gates from depthwise convolutions of large kernels."""

from typing import Literal

from torch import Tensor, nn

from seq2attn.attention.blocks.block import Gate, Map, grid_of
from seq2attn.attention.blocks.grid import zeroed
from seq2attn.attention.blocks.parts import Positive
from seq2attn.errors import Seq2attnError


class LKA(Gate):
    """x * W (D f x), a depthwise convolution f, a dilated one D, and a 1 x 1 one W: large kernel attention.

    form: lka, or lska (Lau et al. 2023, 2309.01439), where f and D are a row and a column each. kernel: k,
    the size of f and D together; null: 21 of lka, 23 of lska. D has dilation d = 3 (2 below 20) and floor(k /
    d) positions, which must be odd; f has 2 d - 1. The gate is not bounded, and may be negative.
    """

    positive = False
    paper = "Guo et al. 2022, 2202.09741"

    def __init__(
        self, channels: int, *, form: Literal["lka", "lska"] = "lka", kernel: Positive | None = None
    ) -> None:
        super().__init__(channels)
        size = kernel or {"lka": 21, "lska": 23}[form]
        dilation = 3 if size >= 20 else 2
        long = size // dilation
        if long % 2 == 0:
            raise Seq2attnError(
                f"LKA needs a kernel k with an odd floor(k / {dilation}), got {size}; take "
                "7, 11, 21, 23 or 35"
            )
        shapes = [(2 * dilation - 1, 1), (long, dilation)]
        self.depthwise = nn.ModuleList(
            nn.Conv2d(channels, channels, shape, padding="same", dilation=step, groups=channels)
            for width, step in shapes
            for shape in ([(width, width)] if form == "lka" else [(1, width), (width, 1)])
        )
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class."""
        for convolve in self.depthwise:
            x = convolve(zeroed(x, mask))
        return {"full": Map("full", self.pointwise(x), grid_of(x))}
