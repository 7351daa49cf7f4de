"""The plan of batches of images, as pure as that of texts: (seed, epoch, sizes of images) determine it."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2attn.data.batch_plan import Indices

# Images whose sides are equal to a quarter of an octave (19 %) are mixed at random: fine enough that batches
# have little padding (16 % on handwritten formulas), coarse enough that they are others in every epoch.
STEPS = 4


class BatchLimits(NamedTuple):
    """The largest size of a batch."""

    images: int
    pixels: int | None = None  # of all its images, padding included, in one channel; None: any number


def image_plan(
    heights: NDArray[np.int32],
    widths: NDArray[np.int32],
    examples: Indices,
    limits: BatchLimits,
    seed: Sequence[int],
    lengths: NDArray[np.int32] | None = None,
) -> list[Indices]:
    """Return batches of images of about one size, in random order, for one epoch.

    seed: what the order depends on, for example (recipe's seed, epoch). lengths: of the texts of the images,
    if those of a batch are to be about the same, too.
    """
    generator = np.random.default_rng(list(seed))
    order = by_size(heights, widths, generator.permutation(examples), lengths)
    batches = fill_images(order, heights, widths, limits)
    return [batches[number] for number in generator.permutation(len(batches))]


def by_size(
    heights: NDArray[np.int32],
    widths: NDArray[np.int32],
    examples: Indices,
    lengths: NDArray[np.int32] | None = None,
) -> Indices:
    """Return examples ordered roughly by the size of their images, then by the length of their texts, if it
    is given; those that are equal stay in their order."""
    sizes = (heights, widths) if lengths is None else (lengths + 1, heights, widths)
    return examples[np.lexsort(tuple(np.rint(STEPS * np.log2(size[examples])) for size in sizes))]


def fill_images(
    order: Indices, heights: NDArray[np.int32], widths: NDArray[np.int32], limits: BatchLimits
) -> list[Indices]:
    """Cut an order of examples into batches.

    Without a limit of pixels these are as few as possible, and all of one size up to one image: no last batch
    of a single image, whose variance no normalisation could compute. An image that is larger than the limit
    makes a batch of its own.
    """
    if limits.pixels is None:
        return list(np.array_split(order, math.ceil(len(order) / limits.images))) if len(order) else []
    ends = _ends(heights[order].astype(np.int64), widths[order].astype(np.int64), limits)
    return [order[begin:end] for begin, end in pairwise([0, *ends])]


def _ends(heights: NDArray[np.int64], widths: NDArray[np.int64], limits: BatchLimits) -> Iterator[int]:
    """Yield where each batch ends."""
    begin = 0
    while begin < len(heights):
        window = slice(begin, begin + limits.images)
        tallest, widest = np.maximum.accumulate(heights[window]), np.maximum.accumulate(widths[window])
        padded = tallest * widest * np.arange(1, len(tallest) + 1)  # of each beginning of the window: rises
        begin += max(1, int(np.count_nonzero(padded <= (limits.pixels or 0))))
        yield begin
