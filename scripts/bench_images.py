"""Measure image networks against plain modules of PyTorch: training steps of classifiers, and what a detector
finds in one image; and blocks against timm's.

    python scripts/bench_images.py [--rounds 40] [--threads 1] [--images 64]

A residual network of 20 layers and a small vision Transformer, and modules of the same layers that are
written here without masks, maps and choices. Both get the same images and take turns, so that other work on
the machine affects them alike; the clock is CPU seconds of the process. A step is forward, cross-entropy,
backward and SGD. Prints the median of the ratios, with quartiles. Blocks are compared with those of timm, if
it can be imported (`pip install --no-deps timm`; torchvision is not needed): forward and backward.
"""

import argparse
import importlib.util
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from absent_torchvision import absent_torchvision
from plain_detector import CLASSES, HEIGHT_AND_WIDTH, PlainDetector
from torch import Tensor, nn

from seq2attn.attention.blocks import BLOCKS
from seq2attn.data.image_batches import ImageBatch
from seq2attn.models.vision.detector_factory import build_detector
from seq2attn.models.vision.factory import build_image_classifier
from seq2attn.recipe.detection import DetectorRecipe
from seq2attn.recipe.vision_model import ImageClassifierRecipe
from seq2attn.training.image_objective import ImageObjective

LABELS = 10
SIDE = 32  # pixels
PATCH, SIZE, LAYERS, HEADS, INNER = 4, 96, 4, 3, 192  # of the Transformer
SHAPES = [(16, 32), (64, 8), (256, 14)]  # channels and sides of the features of blocks


# ---- plain modules -----------------------------------------------------------------------------------


class PlainUnit(nn.Module):
    """A residual unit of two 3x3 convolutions, with a shortcut of option A (He et al. 2016)."""

    def __init__(self, channels: int, size: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, size, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(size, size, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(size) for _ in range(2))
        self.stride, self.more = stride, (size - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(shortcut + branch)."""
        y = self.norms[1](self.second(F.relu(self.norms[0](self.first(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return F.relu(x + y)


class PlainResNet(nn.Module):
    """ResNet-20 for small images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        sizes = [16, *[16] * 3, *[32] * 3, *[64] * 3]
        self.units = nn.Sequential(
            *(
                PlainUnit(before, size, 1 if before == size else 2)
                for before, size in itertools.pairwise(sizes)
            )
        )
        self.output = nn.Linear(64, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of labels."""
        features = self.units(F.relu(self.norm(self.stem(x))))
        return self.output(features.mean((2, 3)))  # type: ignore[no-any-return]


class PlainViT(nn.Module):
    """A vision Transformer of torch's own layers, with added positions and the mean of all states."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, SIZE, PATCH, PATCH)
        self.positions = nn.Buffer(torch.randn((SIDE // PATCH) ** 2, SIZE))
        layer = nn.TransformerEncoderLayer(SIZE, HEADS, INNER, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(SIZE), enable_nested_tensor=False)
        self.output = nn.Linear(SIZE, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of labels."""
        states = self.encoder(self.patches(x).flatten(2).mT + self.positions)
        return self.output(states.mean(1))  # type: ignore[no-any-return]


def ours(backbone: dict[str, Any]) -> nn.Module:
    """Return the classifier of a recipe."""
    recipe = ImageClassifierRecipe.model_validate({"backbone": backbone})
    return build_image_classifier(recipe, 3, [str(label) for label in range(LABELS)])


def detector_of(graph: str) -> nn.Module:
    """Return the detector of a graph that ships, with points on three grids."""
    sections = {"backbone": {"kind": "graph", "base": graph}, "head": {"kind": "points", "width": 64}}
    labels = [str(label) for label in range(CLASSES)]
    return build_detector(DetectorRecipe.model_validate(sections), 3, labels)


def check_sizes(name: str, *networks: nn.Module) -> None:
    """Exit unless two networks have as many parameters."""
    counts = [sum(part.numel() for part in network.parameters()) for network in networks]
    if counts[0] != counts[1]:
        sys.exit(f"{name}: the modules differ, with {counts[0]:,} and {counts[1]:,} parameters")


# ---- measurements ------------------------------------------------------------------------------------

Step = Callable[[], object]


def training_step(network: nn.Module, images: Tensor, labels: Tensor, plain: bool) -> Step:
    """Return a function that trains a network by one step."""
    optimizer = torch.optim.SGD(network.train().parameters(), lr=0.01, momentum=0.9)
    objective, batch = ImageObjective(), ImageBatch(images, None, labels, None)

    def step() -> None:
        optimizer.zero_grad()
        if plain:
            loss = F.cross_entropy(network(images), labels, reduction="sum")
        else:
            loss = objective.loss(objective.forward(network, batch), batch).whole  # type: ignore[arg-type]
        (loss / len(images)).backward()
        optimizer.step()

    return step


def finding(network: nn.Module, image: Tensor) -> Step:
    """Return a function that goes forward through a network in use."""
    network.eval()
    return torch.inference_mode()(lambda: network(image))


def passes(block: nn.Module, x: Tensor) -> Step:
    """Return a function that goes forward and backward through a block."""
    inputs = x.clone().requires_grad_()
    return lambda: block(inputs).sum().backward()


def compare(first: Step, second: Step, rounds: int) -> tuple[float, list[float]]:
    """Return the median milliseconds of the first, and the quartiles of its ratio to the second."""
    times: tuple[list[float], list[float]] = ([], [])
    for step in (first, second, first, second):  # allocates memory
        step()
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 else (1, 0):
            begun = time.process_time()
            (first, second)[which]()
            times[which].append(time.process_time() - begun)
    ratios = [one / other for one, other in zip(*times, strict=True)]
    return 1000 * statistics.median(times[0]), statistics.quantiles(ratios, n=4)


def print_row(name: str, milliseconds: float, quartiles: Sequence[float]) -> None:
    """Print a row of a table in Markdown."""
    low, middle, high = quartiles
    print(f"| {name} | {milliseconds:.2f} | {middle:.2f} [{low:.2f}, {high:.2f}] |", flush=True)


# ---- timm --------------------------------------------------------------------------------------------


def timm_blocks() -> Iterator[tuple[str, Callable[[int], nn.Module], Callable[[int], nn.Module]]]:
    """Yield names, our blocks and timm's, with the same layers; nothing if timm cannot be imported."""
    if importlib.util.find_spec("timm") is None:
        print("timm is not installed: no comparison of blocks", file=sys.stderr)
        return
    with absent_torchvision():
        import timm.layers
        from timm.layers.cbam import CbamModule

    yield (
        "se",
        BLOCKS["se"],
        lambda channels: timm.layers.SEModule(channels, rd_channels=max(channels // 16, 4)),
    )
    yield "eca", BLOCKS["eca"], timm.layers.EcaModule
    yield (
        "cbam",
        BLOCKS["cbam"],
        lambda channels: CbamModule(channels, mlp_bias=True, rd_channels=max(channels // 16, 4)),
    )


def main() -> None:
    """Measure, and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    images = torch.randn(options.images, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    labels = torch.randint(LABELS, (options.images,))
    vit = {"kind": "vit", "patch": PATCH, "size": SIZE, "layers": LAYERS, "feed_forward": INNER}
    vit |= {"dropout": 0.0, "self_attention": {"heads": HEADS}}
    networks = [
        ("ResNet-20", ours({"kind": "resnet", "depth": 20}), PlainResNet()),
        ("ViT", ours(vit), PlainViT()),
    ]
    print(f"| network, {options.images} images | ms a step | to plain PyTorch |\n|---|---|---|")
    for name, network, plain in networks:
        check_sizes(name, network, plain)
        steps = (training_step(network, images, labels, False), training_step(plain, images, labels, True))
        print_row(name, *compare(*steps, options.rounds))
    print("\n| network, one image of 320x256 | ms forward | to plain PyTorch |\n|---|---|---|")
    detector, plain = detector_of("yolo_small"), PlainDetector()
    check_sizes("yolo_small", detector, plain)
    image = torch.randn(1, 3, *HEIGHT_AND_WIDTH).to(memory_format=torch.channels_last)
    print_row("detector", *compare(finding(detector, image), finding(plain, image), options.rounds))
    print(f"\n| block, {options.images} images | ms forward and backward | to timm's |\n|---|---|---|")
    for name, block, theirs in timm_blocks():
        for channels, side in SHAPES:
            x = torch.randn(options.images, channels, side, side)
            steps = (passes(block(channels), x), passes(theirs(channels), x))
            print_row(f"{name}, {channels} channels, {side}x{side}", *compare(*steps, options.rounds))


if __name__ == "__main__":
    main()
