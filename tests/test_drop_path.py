"""Stochastic depth: which samples lose a branch, how often, and where in a network."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seq2attn.layers.basic import DropPath
from seq2attn.models.vision.factory import build_backbone
from seq2attn.models.vision.resnet import ResidualUnit
from seq2attn.recipe.vision_model import ResNetRecipe, ViTRecipe

RESNET = {"kind": "resnet", "depth": 20}
VIT = {
    "kind": "vit",
    "size": 8,
    "layers": 4,
    "feed_forward": 8,
    "dropout": 0.0,
    "self_attention": {"heads": 2},
}
X = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(4)


def made(section: dict, **options) -> nn.Module:
    """The same network for all options."""
    torch.manual_seed(3)
    kind = ResNetRecipe if section["kind"] == "resnet" else ViTRecipe
    return build_backbone(kind.model_validate({**section, **options}), 3)


def rates(network: nn.Module) -> list[float]:
    return [part.rate for part in network.modules() if isinstance(part, DropPath)]


def test_a_branch_is_dropped_as_a_whole_or_scaled_up():
    x = torch.rand(500, 3, 4) + 1
    factor = DropPath(0.3)(x) / x
    kept = factor.flatten(1)
    assert_close(kept, kept[:, :1].expand_as(kept))  # one decision for each sample
    dropped = kept[:, 0] == 0
    assert_close(kept[~dropped, 0], torch.full([int((~dropped).sum())], 1 / 0.7), atol=1e-4, rtol=0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_the_expected_value_is_the_branch(rate):
    kept = DropPath(rate)(torch.ones(40_000, 1))
    share = (kept > 0).double().mean().item()
    assert abs(share - (1 - rate)) < 5 * (rate * (1 - rate) / 40_000) ** 0.5
    assert_close(kept.max().item() * (1 - rate), 1.0, atol=1e-4, rtol=0)


def test_rates_rise_linearly_with_depth():
    assert rates(made(RESNET, drop_path=0.9)) == pytest.approx([0.1 * unit for unit in range(1, 10)])
    both = [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4]  # of self-attention and of feed-forward
    assert rates(made(VIT, drop_path=0.4)) == pytest.approx(both)


@pytest.mark.parametrize("section", [RESNET, VIT], ids=["resnet", "vit"])
def test_a_rate_of_0_changes_nothing_and_draws_nothing(section):
    plain, none = made(section).train(), made(section, drop_path=0.0).train()
    before = torch.get_rng_state()
    assert torch.equal(plain(X)[-1].states, none(X)[-1].states)
    assert torch.equal(torch.get_rng_state(), before) and not any(rates(none))


@pytest.mark.parametrize("section", [RESNET, VIT], ids=["resnet", "vit"])
def test_it_is_for_training_alone_and_has_no_parameters(section):
    plain, network = made(section).eval(), made(section, drop_path=0.5)
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert not torch.equal(network.train()(X)[-1].states, network(X)[-1].states)
    network.load_state_dict(plain.state_dict())
    assert torch.equal(network.eval()(X)[-1].states, plain(X)[-1].states)


def test_a_unit_without_its_branch_is_its_shortcut():
    unit = next(part for part in made(RESNET, drop_path=0.5).modules() if isinstance(part, ResidualUnit))
    x = torch.randn(64, 16, 4, 4).relu()
    whole = {}
    for rate, factor in ((0.0, 1.0), (0.5, 2.0)):
        unit.drop_path = DropPath(rate)
        whole[factor] = unit.train()((x, None))[0]
    branch = _branch(unit, x)
    assert_close(whole[1.0], (x + branch).relu())
    kept = (x + 2 * branch).relu()
    is_shortcut, is_kept = (
        (whole[2.0] - other).abs().amax((1, 2, 3)) < 1e-3 for other in (x, kept)
    )  # of each image
    assert (is_shortcut ^ is_kept).all() and 16 < is_shortcut.sum() < 48


def _branch(unit: ResidualUnit, x: torch.Tensor) -> torch.Tensor:
    for convolution in unit.convolutions:
        x, _ = convolution(x, None)
    return x


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_layer_loses_either_branch_of_an_image(norm):
    layer = made(VIT, norm=norm, drop_path=0.9).train().encoder.layers[-1]
    x, mask = torch.randn(64, 5, 8), torch.ones(64, 1, 5, dtype=torch.bool)
    y = layer(x, mask)
    if norm == "post":
        for residual in (layer.self_attention_residual, layer.feed_forward_residual):
            x = residual.norm(x)
    unchanged = (y - x).abs().amax((1, 2)) < 1e-5
    assert 40 < unchanged.sum() < 63  # 0.81 of 64 on average
