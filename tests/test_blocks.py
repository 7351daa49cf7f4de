"""What blocks cost, where their gates start, and how a recipe names them."""

import inspect
from typing import Annotated

import pytest
import torch
from laws.blocks import features
from pydantic import ValidationError

from seq2attn.attention.blocks import BLOCKS
from seq2attn.attention.blocks.parts import divisor, hidden_width
from seq2attn.errors import Seq2attnError
from seq2attn.recipe.sections import Choice, Part, Section


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("se", {}, 580),
        ("se", {"bias": False}, 512),
        ("se", {"round_to": 8}, 1096),
        ("se", {"ratio": None}, 4160),
        ("eca", {}, 3),
        ("gc", {}, 653),
        ("gc", {"fuse": "scale", "ratio": 8}, 1177),
        ("cbam", {}, 680),
        ("cbam_channel", {}, 580),
        ("cbam_spatial", {}, 100),
        ("scse", {}, 4257),
        ("scse", {"ratio": 16}, 645),
        ("cse", {}, 4192),
        ("sse", {}, 65),
        ("sse", {"bias": False}, 64),
        ("coord", {}, 1688),
        ("coord", {"form": "simple"}, 1672),
        ("bam", {}, 1173),
        ("ge", {}, 0),
        ("ge", {"extent": 2, "gather": "conv"}, 704),
        ("ge", {"extent": 4, "gather": "conv"}, 1408),
        ("ge", {"extent": 2, "gather": "conv", "mlp": True}, 1284),
        ("simam", {}, 0),
        ("triplet", {}, 300),
        ("polarized", {}, 8545),
        ("polarized", {"form": "release"}, 8256),
        ("polarized", {"form": "release", "order": "sequential"}, 7064),
        ("ema", {}, 48),
        ("ema", {"groups": 8}, 672),
        ("lka", {}, 9024),
        ("lka", {"form": "lska"}, 5952),
        ("lka", {"form": "lska", "kernel": 7}, 5184),
        ("lka", {"form": "lska", "kernel": 35}, 6464),
        ("strip", {}, 28992),
    ],
)
def test_parameters_of_64_channels(name, options, parameters):
    assert count(BLOCKS[name](64, **options)) == parameters


def test_parameters_of_selective_kernels():
    block = BLOCKS["sk"](64)
    assert sum(map(count, (block.squeeze, block.norm, block.select))) == 6208
    assert count(block) == 6208 + 2 * (64 * 2 * 9 + 2 * 64)


@pytest.mark.parametrize(
    ("channels", "ratio", "round_to", "hidden"),
    [(1, 16, 1, 4), (63, 16, 1, 4), (64, 16, 1, 4), (128, 16, 1, 8), (64, 16, 8, 8), (144, 16, 8, 16)],
)
def test_hidden_width_is_never_zero(channels, ratio, round_to, hidden):
    assert hidden_width(channels, ratio, round_to) == hidden


def test_the_largest_divisor():
    assert [divisor(channels, 32) for channels in (1, 7, 33, 48, 64)] == [1, 7, 11, 24, 32]


STARTING = [name for name, block in BLOCKS.items() if "start" in inspect.signature(block).parameters]
OPTIONS = {"gc": {"fuse": "scale"}, "ge": {"mlp": True}}


def starting(name: str, start: str) -> list[torch.Tensor]:
    torch.random.default_generator.manual_seed(0)
    block = BLOCKS[name](64, start=start, **OPTIONS.get(name, {})).eval()
    maps = block.look(features(4, 64, 7, 5)).maps.values()
    return [map.weights for map in maps if not map.distribution]


def test_most_gates_say_where_they_start():
    assert len(STARTING) >= 12


@pytest.mark.parametrize("name", STARTING)
def test_gates_start_half_open(name):
    for weights in starting(name, "half"):
        assert 0.4 < weights.mean() < 0.6


@pytest.mark.parametrize("name", STARTING)
def test_gates_can_start_open(name):
    for weights in starting(name, "open"):
        assert 0.88 < weights.mean() < 0.92 and weights.min() > 0.75


@pytest.mark.parametrize(("name", "options"), [("se", {"bias": False}), ("ge", {}), ("sse", {"bias": False})])
def test_what_has_no_bias_cannot_start_open(name, options):
    with pytest.raises(Seq2attnError, match="start: open sets the bias of the last layer"):
        BLOCKS[name](8, start="open", **options)


class Model(Section):
    block: Annotated[Part, Choice(BLOCKS)]


@pytest.mark.parametrize("name", BLOCKS)
def test_a_recipe_names_a_block(name):
    part = Model(block=name).block
    assert Model(block=part.model_dump()).block == part
    assert isinstance(part.make(BLOCKS, 8), BLOCKS[name])


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("cbma", r"unknown 'cbma' \(did you mean cbam\?"),
        ({"name": "se", "ratio": 0}, "expected at least 1, got 0"),
        ({"name": "ge", "extent": 3}, "expected 0, 2, 4 or 8, got 3"),
        ({"name": "coord", "form": "elas"}, r"unknown .elas. \(did you mean ela\?"),
        ({"name": "eca", "kernal": 3}, "unknown key 'kernal' .*did you mean kernel"),
    ],
)
def test_faults_of_a_recipe_are_explained(block, reason):
    with pytest.raises(ValidationError, match=reason):
        Model(block=block)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_says_where_it_goes_and_where_it_is_from(name):
    block = BLOCKS[name]
    assert (
        block.at in ("residual", "middle", "after", "between", "replace")
        and block.paper
        and block.multiple == 1
    )
