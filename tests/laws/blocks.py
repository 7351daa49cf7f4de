"""The blocks that the laws of blocks are checked on: every name, and every option that makes it another one."""

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seq2attn.attention.blocks import BLOCKS, Block, Gate
from seq2attn.attention.blocks.looks import Looks

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "se": [
        {"ratio": None, "gate": "hard_sigmoid"},
        {"pool": "mean_max"},
        {"bias": False, "ratio": 4},
        {"round_to": 8},
    ],
    "eca": [{"circular": True}, {"kernel": 5}],
    "gc": [{"fuse": "scale"}, {"fuse": "both"}, {"pool": "mean"}],
    "cbam": [{"order": "spatial_first"}, {"order": "parallel"}, {"norm": "none", "kernel": 3}],
    "scse": [{"combine": "max"}, {"combine": "multiply"}, {"combine": "concat", "bias": False}],
    "coord": [{"form": "simple"}, {"form": "ela"}],
    "bam": [{"combine": "product", "dilation": 2}, {"norm": "batch"}],
    "ge": [
        {"extent": 2},
        {"extent": 4, "gather": "conv"},
        {"extent": 2, "gather": "conv", "mlp": True},
        {"mlp": True},
    ],
    "simam": [{"regularizer": 0.1}],
    "triplet": [{"spatial": False}],
    "polarized": [
        {"order": "sequential"},
        {"form": "release"},
        {"form": "release", "order": "sequential"},
    ],
    "ema": [{"form": "one_group", "groups": 4}],
    "lka": [{"form": "lska"}, {"form": "lska", "kernel": 11}],
    "sk": [{"branches": 3}, {"norm": "batch"}],
    "nonlocal": [
        {"form": "dot", "pool": 2},
        {"form": "concat", "norm": "none"},
        {"form": "gaussian"},
        {"form": "sagan"},
        {"score": "additive", "normalize": "entmax"},
    ],
    "criss_cross": [{"repeats": 1}],
    "pam": [{"ratio": 2}],
    "cam": [{"sign": "similar", "normalize": True}],
    "window": [{"size": 3, "shift": True}],
    "aspp": [{"gate": "se", "rates": (1, 3)}, {"gate": "cbam_spatial", "rates": (2,)}, {"norm": "batch"}],
    "danet": [{"sign": "similar", "normalize": True, "ratio": 2}],
}


class Case(NamedTuple):
    """A block by its name, and its options as pairs."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{name}={value}" for name, value in self.options)])

    @property
    def kind(self) -> type[Block]:
        return BLOCKS[self.name]

    def has(self, **options: Any) -> bool:
        """Whether these are among its options."""
        return options.items() <= dict(self.options).items()

    @property
    def has_attention(self) -> bool:
        """Whether positions attend to each other."""
        return any(isinstance(inner, Looks) for inner in self.build(8).modules())

    @property
    def has_gate(self) -> bool:
        """Whether a head has a block inside by an option."""
        return any(name == "gate" for name, _ in self.options)

    def weighted(self, channels: int) -> int:
        """The number of channels that its maps are of: heads have a block inside."""
        if self.name == "aspp":
            return (2 + len(dict(self.options).get("rates", (6, 12, 18)))) * channels
        return max(channels // dict(self.options).get("ratio", 4), 1) if self.name == "danet" else channels

    def build(self, channels: int) -> Block:
        """As a network has it before training."""
        torch.random.default_generator.manual_seed(3)
        return self.kind(channels, **dict(self.options))

    def trained(self, channels: int) -> Block:
        """In evaluation, with parameters and statistics moved from where they start: many blocks start as the
        identity, or as a constant gate."""
        return _moved(self, channels)


DEFAULTS = [Case(name) for name in BLOCKS]
CASES = DEFAULTS + [Case(name, tuple(options.items())) for name, many in VARIANTS.items() for options in many]
GATES = [case for case in CASES if issubclass(case.kind, Gate)]
# What is left of a batch of one after global pooling cannot be normalised over the batch.
SINGLE = [case for case in CASES if not case.has(norm="batch")]


@functools.cache
def _moved(case: Case, channels: int) -> Block:
    block = case.build(channels).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in block.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.2 * torch.randn(buffer.shape, generator=generator)
            elif name.endswith("running_var"):
                buffer *= 0.5 + torch.rand(buffer.shape, generator=generator)
    return block


def features(*shape: int, seed: int = 7) -> Tensor:
    """Features of both signs."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def padded(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Images (C, H, W) as one batch at their upper left, on a larger grid, with anything outside; and its mask."""
    height, width = (max(image.shape[axis] for image in images) + 2 for axis in (1, 2))
    batch = 50 * features(len(images), len(images[0]), height, width, seed=11)
    mask = torch.zeros(len(images), 1, height, width, dtype=torch.bool)
    for row, image in enumerate(images):
        batch[row, :, : image.shape[1], : image.shape[2]] = image
        mask[row, :, : image.shape[1], : image.shape[2]] = True
    return batch, mask
