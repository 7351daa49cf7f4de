"""The forms of residual networks, by depth (He et al. 2016, table 1 and section 4.2)."""

from typing import Literal, NamedTuple

Stem = Literal["small", "large"]


class Form(NamedTuple):
    """What the depth of a residual network says."""

    units: tuple[int, ...]  # of each stage
    bottleneck: bool  # units of 1x1, 3x3, 1x1 convolutions; otherwise of two 3x3
    stem: Stem
    widths: tuple[int, ...]  # channels of the 3x3 convolutions of each stage
    output_stride: int | None = None  # no stage has a larger stride: see `dilations`

    @property
    def first_stride(self) -> int:
        """How many pixels there are between two positions of the first stage."""
        return 1 if self.stem == "small" else 4

    @property
    def strides(self) -> list[int]:
        """How many pixels there are between two positions of each stage."""
        limit = self.output_stride
        return [stride if limit is None else min(stride, limit) for stride in self._unlimited]

    @property
    def dilations(self) -> list[int]:
        """The dilation of the 3x3 convolutions of each stage: where the stride is limited, they reach as far
        as without the limit (Chen et al. 2017, section 3.1)."""
        return [whole // limited for whole, limited in zip(self._unlimited, self.strides, strict=True)]

    @property
    def _unlimited(self) -> list[int]:
        return [self.first_stride * 2**stage for stage in range(len(self.widths))]


LARGE: dict[int, tuple[tuple[int, ...], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}
EXPANSION = 4  # of the channels of a bottleneck
DEPTHS = f"{', '.join(map(str, LARGE))}, or 6 k + 2, such as 20, 32, 44, 56, 110"


def form_of(depth: int) -> Form | None:
    """Return the form of a residual network of this depth; None if there is none."""
    if depth in LARGE:
        units, bottleneck = LARGE[depth]
        return Form(units, bottleneck, "large", (64, 128, 256, 512))
    if depth >= 8 and depth % 6 == 2:
        return Form(((depth - 2) // 6,) * 3, False, "small", (16, 32, 64))
    return None
