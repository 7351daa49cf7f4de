"""ASPP and DANet: their formulas, what they cost, other numbers of channels, and a block by its name inside."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from laws.blocks import Case, features
from pydantic import ValidationError
from torch import Tensor, nn
from torch.testing import assert_close

from seq2attn.attention.blocks import BLOCKS, Block
from seq2attn.errors import Seq2attnError
from seq2attn.recipe import read
from seq2attn.recipe.vision_model import ConvNetRecipe, ResNetRecipe
from seq2attn.tasks.image_tasks import ImageClassificationTask
from seq2attn.text.word_vocabulary import Labels

X = features(2, 12, 7, 5)


def trained(name: str, **options) -> Block:
    return Case(name, tuple(options.items())).trained(12)


def convolved(layers: nn.Sequential, x: Tensor, dilation: int = 1) -> Tensor:
    """relu(BN(f x)), by the sum over the taps of a kernel, each with the image moved."""
    kernel, norm = layers[0].weight, layers[1]
    reach = kernel.shape[-1] // 2 * dilation
    wide, (height, width) = F.pad(x, (reach,) * 4), x.shape[2:]
    y = torch.zeros(len(x), len(kernel), height, width)
    for row in range(kernel.shape[2]):
        for column in range(kernel.shape[3]):
            top, left = row * dilation, column * dilation
            moved = wide[:, :, top : top + height, left : left + width]
            y += torch.einsum("oc,bchw->bohw", kernel[:, :, row, column], moved)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    y = (y - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
    return y.clamp(min=0)


@torch.no_grad()
@pytest.mark.parametrize("gate", [None, "se"])
def test_aspp_is_its_branches_side_by_side(gate):
    block = trained("aspp", rates=(1, 3), gate=gate)
    branches = [convolved(block.branches[0], X)]
    branches += [convolved(layers, X, rate) for layers, rate in zip(block.branches[1:], (1, 3), strict=True)]
    pooled = X.mean((2, 3)) @ block.pool.weight.T
    pooled = F.layer_norm(pooled, (12,), block.pool_norm.weight, block.pool_norm.bias).clamp(min=0)
    joined = torch.cat([*branches, pooled[..., None, None].expand(2, 12, 7, 5)], 1)
    if gate is not None:
        inner, outer = block.gate.excite.inner, block.gate.excite.outer
        hidden = (joined.mean((2, 3)) @ inner.weight.T + inner.bias).clamp(min=0)
        joined = joined * (hidden @ outer.weight.T + outer.bias).sigmoid()[..., None, None]
    assert_close(block(X), convolved(block.project, joined), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_danet_is_the_sum_of_both_attentions():
    block = trained("danet")
    first, second = (convolved(layers, X) for layers in block.enter)
    rows = first.flatten(2).mT
    query, key, value = (
        rows @ part.weight.T + part.bias
        for part in (block.position.query, block.position.key, block.position.value)
    )
    context = ((query @ key.mT).softmax(-1) @ value).mT.view_as(first)
    first = first + block.position.residual.gamma * context
    flat = second.flatten(2)
    energy = torch.einsum("bcn,bdn->bcd", flat, flat)
    context = ((energy.amax(-1, keepdim=True) - energy).softmax(-1) @ flat).view_as(second)
    second = second + block.channel.residual.gamma * context
    joined = convolved(block.leave[0], first) + convolved(block.leave[1], second)
    expected = torch.einsum("oc,bchw->bohw", block.project.weight[..., 0, 0], joined)
    assert_close(block(X), expected + block.project.bias[:, None, None], atol=1e-5, rtol=1e-5)


BRANCHES = 64 * 64 + 3 * 9 * 64 * 64 + 4 * 2 * 64  # of ASPP: convolutions, and their norms
POOLED, JOINED = 64 * 64 + 2 * 64, 5 * 64 * 64 + 2 * 64


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("aspp", {}, BRANCHES + POOLED + JOINED),
        ("aspp", {"norm": "none"}, BRANCHES + POOLED - 64 + JOINED),
        ("aspp", {"gate": "se"}, BRANCHES + POOLED + JOINED + 13_140),
        ("aspp", {"rates": (2,), "size": 32}, 32 * (64 + 9 * 64 + 64 + 3 * 32) + 8 * 32),
        ("danet", {}, 2 * (9 * 64 * 16 + 32) + 341 + 1 + 2 * (9 * 16 * 16 + 32) + 16 * 64 + 64),
        ("danet", {"size": 11}, 2 * (9 * 64 * 16 + 32) + 341 + 1 + 2 * (9 * 16 * 16 + 32) + 16 * 11 + 11),
    ],
)
def test_parameters_of_64_channels(name, options, count):
    assert sum(parameter.numel() for parameter in BLOCKS[name](64, **options).parameters()) == count


@pytest.mark.parametrize("name", ["aspp", "danet"])
def test_a_head_may_return_another_number_of_channels(name):
    block, mask = BLOCKS[name](12, size=5).eval(), torch.ones(2, 1, 7, 5, dtype=torch.bool)
    mask[0, :, 4:] = False
    with torch.no_grad():
        y = block(X, mask)
    assert y.shape == (2, 5, 7, 5) and not y[0, :, 4:].any() and block.out_channels == 5


def test_dropout_is_for_training_alone():
    for name in ("aspp", "danet"):
        block = BLOCKS[name](12, dropout=0.5)
        assert not torch.equal(block.train()(X), block(X))
        assert torch.equal(block.eval()(X), block(X))


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        ("seh", "unknown part 'seh': expected one of se, eca, "),
        ({"name": "se", "ratio": 0}, "ratio of se should be greater than or equal to 1.*; got 0"),
        ({"name": "coord", "form": "elas"}, "form of coord should be 'paper', 'simple' or 'ela'; got 'elas'"),
        ({"name": "se", "ration": 4}, "se does not take these options: .*'ration'"),
        ({"name": "danet", "size": 3}, "features keep their 60 channels, and DANet returns 3"),
    ],
)
def test_faults_of_a_gate_are_explained(gate, reason):
    with pytest.raises(Seq2attnError, match=reason):
        BLOCKS["aspp"](12, gate=gate)
    section = {"kind": "convolutional", "sizes": [12], "blocks": [{"block": "aspp", "gate": gate}]}
    with pytest.raises(ValidationError, match=rf"blocks.0.block\n.*{reason}"):
        ConvNetRecipe.model_validate(section)


def test_in_a_network_heads_keep_the_number_of_channels():
    section = {"kind": "resnet", "depth": 8, "blocks": [{"block": "aspp", "size": 8}]}
    with pytest.raises(ValidationError, match="keep their 16 channels, and ASPP returns 8: leave its size"):
        ResNetRecipe.model_validate(section)


class Examples(NamedTuple):
    """What `summary` reads of a corpus of images."""

    targets: list[str]
    heights: np.ndarray
    widths: np.ndarray


def test_rates_beyond_half_of_the_grid_are_found():
    blocks = [{"block": "aspp", "rates": [2, 6], "stages": [1, 3]}, {"block": "se"}]
    recipe = ResNetRecipe.model_validate({"kind": "resnet", "depth": 8, "blocks": blocks})
    assert not [*recipe.grid_notes(20, 48)]  # the grids are 20 x 48 and 5 x 12
    (line,) = recipe.grid_notes(20, 44)
    assert line.startswith(
        "aspp in stage 3: of 3x3 convolutions with the rates 6, most positions of a grid of 5x11"
    )
    first, second = recipe.grid_notes(4, 4)
    assert "stage 1" in first and "rates 6," in first and "stage 3" in second and "rates 2, 6," in second


def test_check_says_so_for_the_largest_image():
    recipe = read("digits", ["model.backbone.blocks=[{block: aspp, stages: [3]}]"])
    task = ImageClassificationTask(recipe, Labels(["0", "1"]))
    examples = Examples(["0", "1"], np.array([28, 20]), np.array([9, 28]))
    notes = [line for heading, line in task.summary(examples, examples) if heading == "note"]
    assert [line.partition(" see ")[0] for line in notes] == [
        "aspp in stage 3: of 3x3 convolutions with the rates 6, 12, 18, most positions of a grid of 7x7"
    ]
