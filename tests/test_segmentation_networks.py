"""U-Net and heads over a backbone: sizes, padding, dilation, auxiliary classifiers, and what a recipe may say."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torch.testing import assert_close

from seq2attn.layers.resnet_forms import form_of
from seq2attn.models.vision.enlarging import doubled, enlarged
from seq2attn.models.vision.factory import build_segmenter
from seq2attn.models.vision.resnet import ResNet
from seq2attn.models.vision.segmenters import SegmentationNet, UNet
from seq2attn.recipe.segmentation import AnySegmenterRecipe
from seq2attn.recipe.vision_model import ResNetRecipe

CLASSES = ["sky", "road", "car"]
BACKBONE = {"kind": "resnet", "depth": 8, "width": 0.5, "output_stride": 2}
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"kind": "unet", "base": 4, "levels": 3},
    "unet_scse": {
        "kind": "unet", "base": 4, "levels": 3,
        "encoder_blocks": [{"block": "scse"}], "decoder_blocks": [{"block": "scse", "stages": [1]}],
    },
    "unet_nonlocal": {"kind": "unet", "base": 4, "levels": 2, "encoder_blocks": [{"block": "pam"}]},
    "aspp": {"kind": "fcn", "backbone": BACKBONE, "head": {"name": "aspp", "rates": [1, 3], "gate": "se"}},
    "danet": {"kind": "fcn", "backbone": BACKBONE, "head": "danet"},
    "criss_cross": {"kind": "fcn", "backbone": BACKBONE, "head": "criss_cross"},
    "vit": {
        "kind": "fcn", "head": "se", "auxiliary": 0,
        "backbone": {"kind": "vit", "size": 12, "layers": 1, "feed_forward": 12, "patch": 4},
    },
}  # fmt: skip


def section(network: dict[str, Any]) -> Any:
    return TypeAdapter(AnySegmenterRecipe).validate_python(network)


def trained(name: str) -> SegmentationNet:
    """A network in evaluation, of which no weight is as at the start, where gates of residuals are 0."""
    torch.manual_seed(4)
    network = build_segmenter(section(NETWORKS[name]), 3, CLASSES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_an_image_in_a_padded_batch_has_the_scores_that_it_has_alone(name: str) -> None:
    network, images = trained(name), torch.randn(3, 3, 22, 27)
    mask = torch.zeros(3, 1, 22, 27, dtype=torch.bool)
    sizes = [(22, 27), (13, 9), (7, 26)]
    for row, (height, width) in enumerate(sizes):
        mask[row, :, :height, :width] = True
    together = network(images * mask, mask).scores
    for row, (height, width) in enumerate(sizes):
        alone = network(images[row : row + 1, :, :height, :width]).scores[0]
        assert_close(together[row, :, :height, :width], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (16, 16)])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_images_of_any_size_have_scores_of_their_size(name: str, size: tuple[int, int]) -> None:
    assert trained(name)(torch.randn(1, 3, *size)).scores.shape == (1, 3, *size)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_network_learns_from_a_single_image(name: str) -> None:
    network = build_segmenter(section(NETWORKS[name]), 3, CLASSES)
    output = network(torch.randn(1, 3, 9, 8))
    sum(scores.square().mean() for scores in (output.scores, *output.auxiliary)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_auxiliary_classifiers_are_for_training() -> None:
    images = torch.randn(2, 3, 9, 8)
    for name, count in (("danet", 2), ("criss_cross", 1), ("unet", 0), ("vit", 0)):
        network = build_segmenter(section(NETWORKS[name]), 3, CLASSES)
        assert [scores.shape for scores in network(images).auxiliary] == [(2, 3, 9, 8)] * count
        assert network.eval()(images).auxiliary == ()
    without = build_segmenter(section({**NETWORKS["danet"], "auxiliary": 0}), 3, CLASSES)
    assert without(images).auxiliary == ()


# ---- enlarging -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(6, 10), (5, 9), (6, 9)])
def test_doubled_is_the_nearest_position_of_a_grid_that_was_halved(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 3, 5)
    assert torch.equal(doubled(x, size), F.interpolate(x, size, mode="nearest"))


def test_enlarged_is_bilinear_between_corners_that_coincide() -> None:
    x = torch.randn(2, 3, 4, 5)
    whole = F.interpolate(x, scale_factor=8, mode="bilinear", align_corners=False)
    assert_close(enlarged(x, None, 8, (32, 40)), whole)
    assert_close(enlarged(x, None, 8, (27, 33)), whole[..., :27, :33])


def test_beyond_the_mask_there_is_the_value_of_its_last_position() -> None:
    x, mask = torch.randn(1, 2, 4, 5), torch.zeros(1, 1, 4, 5, dtype=torch.bool)
    mask[..., :3, :2] = True
    alone = enlarged(x[..., :3, :2], None, 4, (11, 7))
    assert_close(enlarged(x, mask, 4, (16, 20))[..., :11, :7], alone)


# ---- dilation --------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(
    ("depth", "limit", "step"), [(8, 1, 4), (8, 2, 2), (18, 8, 4), (18, 16, 2), (50, 8, 4)]
)
def test_a_limited_stride_keeps_the_features_of_the_network_without_the_limit(
    depth: int, limit: int, step: int
) -> None:
    form = form_of(depth)
    assert form is not None
    form = form._replace(widths=tuple(width // 8 for width in form.widths), units=(2,) * len(form.units))
    torch.manual_seed(3)
    coarse, fine = ResNet(form).eval(), ResNet(form._replace(output_stride=limit)).eval()
    fine.load_state_dict(coarse.state_dict())
    images = torch.randn(1, 3, 75, 66)
    strided, dilated = coarse(images), fine(images)
    assert fine.strides[-1] == limit and coarse.strides[-1] == limit * step
    for one, other, stride, less in zip(dilated, strided, fine.strides, coarse.strides, strict=True):
        every = less // stride
        assert_close(one.states[..., ::every, ::every], other.states, atol=1e-4, rtol=1e-4)


def test_the_limit_is_no_finer_than_the_first_stage() -> None:
    with pytest.raises(ValidationError, match="the first stage has a position for every 4 pixels"):
        ResNetRecipe.model_validate({"kind": "resnet", "depth": 18, "output_stride": 2})
    assert ResNetRecipe.model_validate({"kind": "resnet", "depth": 18, "output_stride": 8}).stride == 8


# ---- the networks that papers have -----------------------------------------------------------------------


def parameters(network: dict[str, Any]) -> int:
    return sum(p.numel() for p in build_segmenter(section(network), 3, CLASSES).parameters())


def convolution(channels: int, size: int, kernel: int = 3) -> int:
    """Parameters of a convolution without a bias, and of its norm."""
    return channels * size * kernel**2 + 2 * size


def test_parameters_of_networks_are_those_of_their_layers() -> None:
    rows = [convolution(a, b) + convolution(b, b) for a, b in ((3, 8), (8, 16), (16, 32), (24, 8), (48, 16))]
    unet = {"kind": "unet", "base": 8, "levels": 3}
    assert parameters(unet) == sum(rows) + 8 * 3 + 3
    scse = [2 * c * (c // 2) + c // 2 + c + c + 1 for c in (8, 16)]
    assert parameters({**unet, "decoder_blocks": [{"block": "scse"}]}) == sum(rows) + 27 + sum(scse)
    criss = parameters(NETWORKS["criss_cross"]) - parameters({**NETWORKS["criss_cross"], "head": "sse"})
    assert criss == (2 * (8 * 1 + 1) + 8 * 8 + 8 + 1) - (8 + 1)  # C / 4 = 8 channels


def test_a_decoder_row_reads_the_encoder_row_of_its_size() -> None:
    """Without the way down, the first row of the decoder still sees single pixels."""
    network = trained("unet")
    assert isinstance(network, UNet)
    images: Tensor = torch.randn(1, 3, 8, 8, requires_grad=True)
    network(images).scores[0, 0, 4, 4].backward()
    assert images.grad is not None and images.grad[0, :, 4, 4].abs().min() > 0


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"kind": "unet", "decoder_blocks": [{"block": "se", "stages": [4]}]}, "there are 3 stages"),
        (
            {"kind": "unet", "encoder_blocks": [{"block": "danet", "size": 3}]},
            "features keep their 16 channels",
        ),
        ({"kind": "unet", "encoder_blocks": [{"block": "se", "at": "between"}]}, "unknown 'between'"),
        ({**NETWORKS["danet"], "size": 3}, "danet takes its width from its ratio"),
        ({**NETWORKS["aspp"], "head": {"name": "aspp", "size": 3}}, "is a key of the section"),
        ({**NETWORKS["vit"], "auxiliary": 0.4}, "needs a stage before the last one"),
        ({"kind": "fcn", "head": "wilson"}, "wilson"),
    ],
)
def test_faults_of_a_network_are_found(network: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section(network)


def test_rates_beyond_the_grid_are_noted() -> None:
    head = {"name": "aspp", "rates": [2, 40]}
    (line,) = section({"kind": "fcn", "backbone": BACKBONE, "head": head}).grid_notes(60, 60)
    assert line.startswith(
        "model.head: of 3x3 convolutions with the rates 40, most positions of a grid of 30x30"
    )


def test_blocks_that_weigh_too_many_pairs_of_positions_are_noted_with_their_size() -> None:
    """An image of 180 x 240 has 43,200 positions in the first row, and 10,800 in the second."""
    blocks = [{"block": "nonlocal", "stages": [1, 2]}, {"block": "criss_cross"}]
    (line,) = section({"kind": "unet", "levels": 3, "encoder_blocks": blocks}).grid_notes(180, 240)
    assert line.startswith(
        "nonlocal in stage 1: on a grid of 180x240 it weighs 1,866,240,000 pairs of positions"
    )
    assert "takes 7.0 GiB for each image" in line
    pooled = [{"block": "nonlocal", "pool": 3, "stages": [1]}]
    assert not [*section({"kind": "unet", "levels": 3, "decoder_blocks": pooled}).grid_notes(180, 240)]
    (line,) = section({"kind": "fcn", "backbone": BACKBONE, "head": "danet"}).grid_notes(400, 400)
    assert line.startswith("model.head: on a grid of 200x200")
