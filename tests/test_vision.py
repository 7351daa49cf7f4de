"""Networks of images: their sizes, their blocks, and the same features in any batch."""

import pytest
import torch
from pydantic import ValidationError
from tiny_graphs import graph
from torch import nn
from torch.testing import assert_close

from seq2attn.attention.blocks import BLOCKS, Block
from seq2attn.layers.convolution import MaskedBatchNorm
from seq2attn.models.vision.factory import build_backbone, build_image_classifier
from seq2attn.recipe.vision_model import (
    ConvNetRecipe,
    ImageClassifierRecipe,
    ResNetRecipe,
    ViTRecipe,
)

SMALL = {"kind": "resnet", "depth": 8}
GRAPH = {"inside": {"c3": "se"}, "insert": [{"after": "c3", "module": "window", "size": 3}]}
NETWORKS = {
    "graph": graph(**GRAPH),
    "graph-masked": graph(**GRAPH, norm="masked_batch"),
    "graph-group": graph(**GRAPH, norm="group"),
    "resnet": ResNetRecipe.model_validate({**SMALL, "blocks": [{"block": "cbam"}, {"block": "pam"}]}),
    "resnet-group": ResNetRecipe.model_validate({**SMALL, "norm": "group", "blocks": [{"block": "sk"}]}),
    "resnet-masked": ResNetRecipe.model_validate({**SMALL, "norm": "masked_batch"}),
    "resnet-18": ResNetRecipe.model_validate(
        {"kind": "resnet", "depth": 18, "blocks": [{"block": "bam"}, {"block": "window", "stages": [4]}]}
    ),
    "convolutional": ConvNetRecipe(kind="convolutional", sizes=[8, 16]),
    "vit": ViTRecipe(kind="vit", size=24, layers=2, feed_forward=32, dropout=0.0),
    "vit-stem-rotary": ViTRecipe.model_validate(
        {
            "kind": "vit",
            "size": 24,
            "layers": 2,
            "feed_forward": 32,
            "dropout": 0.0,
            "stem": [8],
            "positions": "rotary_2d",
            "self_attention": {"heads": 2, "normalize": "entmax"},
        }
    ),
    "vit-swin": ViTRecipe.model_validate(
        {"kind": "vit", "size": 24, "layers": 1, "feed_forward": 32, "dropout": 0.0, "positions": "swin"}
    ),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def made(name: str) -> nn.Module:
    """With parameters and statistics away from where they start."""
    network = build_backbone(NETWORKS[name], 3)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.bias.normal_(std=0.2)
                module.weight.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize(
    ("depth", "block", "count"),
    [
        (20, None, 269_722),
        (56, None, 853_018),
        (18, None, 11_689_512),
        (50, None, 25_557_032),
        (20, "se", 272_782),
        (20, "cbam", 273_682),
        (20, "eca", 269_749),
        (20, "coord", 278_674),
        (20, "triplet", 272_422),
        (20, "gc", 273_199),
        (18, "cbam", 11_779_392),
        (50, "se", 28_088_024),
    ],
)
def test_numbers_of_parameters_of_papers_and_releases(depth, block, count):
    labels = [str(label) for label in range(1000 if depth in (18, 50) else 10)]
    blocks = [{"block": block, "at": "residual"}] if block else []
    recipe = ImageClassifierRecipe.model_validate(
        {"backbone": {"kind": "resnet", "depth": depth, "blocks": blocks}}
    )
    network = build_image_classifier(recipe, 3, labels)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("name", NETWORKS)
def test_an_image_has_the_same_features_in_any_batch(name):
    network = made(name)
    sizes = [(32, 40), (21, 32), (17, 9), (32, 40)]
    images = [torch.randn(3, *size) for size in sizes]
    batch, mask = torch.zeros(4, 3, 32, 40), torch.zeros(4, 1, 32, 40, dtype=torch.bool)
    for row, image in enumerate(images):
        batch[row, :, : image.shape[1], : image.shape[2]] = image
        mask[row, :, : image.shape[1], : image.shape[2]] = True
    with torch.no_grad():
        together = network(batch, mask)
        for row, image in enumerate(images):
            for stage, of_batch in zip(network(image[None]), together, strict=True):
                height, width = stage.states.shape[2:]
                inside = of_batch.states[row, :, :height, :width]
                assert_close(inside, stage.states[0], atol=2e-5, rtol=1e-4)
                assert int(of_batch.mask[row].sum()) == height * width
    for stage, size, stride in zip(together, network.sizes, network.strides, strict=True):
        assert stage.states.shape == (4, size, -(-32 // stride), -(-40 // stride))
        assert not stage.states.masked_select(~stage.mask).any()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_of_one_small_image_trains(name):
    network = build_backbone(NETWORKS[name], 3).train()
    sum(stage.states.square().mean() for stage in network(torch.randn(1, 3, 8, 8))).backward()
    assert all(
        parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None
    )


def test_statistics_leave_padding_out():
    norm, plain = MaskedBatchNorm(4).train(), nn.BatchNorm2d(4).train()
    images = torch.randn(3, 4, 5, 6)
    padded, mask = torch.full((3, 4, 9, 8), 7.0), torch.zeros(3, 1, 9, 8, dtype=torch.bool)
    padded[..., :5, :6], mask[..., :5, :6] = images, True
    assert_close(norm(padded, mask)[..., :5, :6], plain(images))
    assert_close((norm.running_mean, norm.running_var), (plain.running_mean, plain.running_var))
    assert torch.equal(norm.num_batches_tracked, plain.num_batches_tracked)


def where(recipe: dict[str, object]) -> list[str]:
    network = build_backbone(ResNetRecipe.model_validate({**SMALL, "depth": 14, **recipe}), 3)
    return [name for name, module in network.named_modules() if isinstance(module, Block)]


def test_blocks_stand_where_the_recipe_says():
    assert where({"blocks": [{"block": "se", "stages": [2]}]}) == [
        "stages.1.0.residual.0",
        "stages.1.1.residual.0",
    ]
    assert where({"blocks": [{"block": "se", "stages": [1, 3], "every": 2, "at": "after"}]}) == [
        "stages.0.1.after.0",
        "stages.2.1.after.0",
    ]
    assert where({"blocks": [{"block": "bam"}]}) == [f"between.{stage}.0" for stage in range(3)]
    assert where({"blocks": [{"block": "sk", "stages": [1]}]}) == [
        "stages.0.0.convolutions.1.conv.0",
        "stages.0.1.convolutions.1.conv.0",
    ]


def test_two_blocks_at_one_place_are_their_composition():
    both = {"blocks": [{"block": "se", "ratio": 4}, {"block": "eca"}]}
    network = build_backbone(ResNetRecipe.model_validate({**SMALL, **both}), 3)
    first = network.stages[0][0].residual
    x = torch.randn(2, 16, 4, 4)
    assert [type(block) for block in first] == [BLOCKS["se"], BLOCKS["eca"]]
    assert_close(first(x, None), first[1](first[0](x)))


def test_a_unit_may_start_as_its_shortcut():
    network = build_backbone(ResNetRecipe.model_validate({**SMALL, "last_norm_zero": True}), 3).eval()
    x = torch.randn(2, 16, 5, 5).relu()
    assert_close(network.stages[0][0]((x, None))[0], x)


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ({"depth": 21}, r"depth\n.*expected 18, 34, 50, 101, or 6 k \+ 2"),
        ({"blocks": [{"block": "sse", "stages": [4]}]}, "there are 3 stages, and none with number 4"),
        ({"blocks": [{"block": "seh"}]}, r"unknown 'seh' \(did you mean se"),
        ({"blocks": [{"block": "se", "ration": 4}]}, "ration"),
        ({"blocks": [{"block": "sk", "at": "after"}]}, "sk stands in the place of a convolution"),
        (
            {"blocks": [{"block": "nonlocal", "score": "dott"}]},
            "unknown part 'dott'.*stage 1 has 16 channels",
        ),
        (
            {"kind": "convolutional", "blocks": [{"block": "se"}]},
            "no place residual .* the place of se: use after",
        ),
        ({"kind": "vit", "patch": 6, "stem": [8, 8]}, "need a patch of a multiple of 4, got 6"),
        ({"kind": "vit", "positions": "rotary"}, None),
        ({"kind": "vit", "size": 30, "positions": "rotary_2d"}, "multiple of 4"),
    ],
)
def test_faults_of_networks(section, fault):
    recipe = {"backbone": {"kind": "resnet", **section}}
    if fault is None:
        ImageClassifierRecipe.model_validate(recipe)
        return
    with pytest.raises(ValidationError, match=fault):
        ImageClassifierRecipe.model_validate(recipe)


def test_options_may_stand_beside_the_name_of_a_block():
    beside = ResNetRecipe.model_validate({**SMALL, "blocks": [{"block": "se", "ratio": 8, "stages": [1]}]})
    within = ResNetRecipe.model_validate(
        {**SMALL, "blocks": [{"block": {"name": "se", "ratio": 8}, "stages": [1]}]}
    )
    assert beside == within and beside.blocks[0].block.options["ratio"] == 8
    assert ResNetRecipe.model_validate(beside.model_dump(mode="json")) == beside


def test_attention_pooling_weights_the_positions():
    recipe = ImageClassifierRecipe.model_validate(
        {"backbone": {"kind": "convolutional", "sizes": [8, 8]}, "pooling": {"kind": "attention"}}
    )
    network = build_image_classifier(recipe, 1, ["a", "b", "c"]).eval()
    output = network(torch.randn(2, 1, 28, 28), need_weights=True)
    assert output.scores.shape == (2, 3) and output.grid == (14, 14)
    assert_close(output.weights.sum(-1), torch.ones(2, 1))
