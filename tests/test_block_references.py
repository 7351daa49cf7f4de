"""Blocks against timm's, with the same weights.

timm asks for torchvision, which is not needed here: `pip install --no-deps timm`. Modules that are empty stand in
for it while timm is imported.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from laws.blocks import Case, features
from torch import Tensor, nn
from torch.testing import assert_close

from seq2attn.attention.blocks import Block

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from absent_torchvision import absent_torchvision

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed: pip install --no-deps timm"
)


@pytest.fixture(scope="module")
def layers() -> Iterator[Any]:
    """timm.layers, whether torchvision is installed or not."""
    with absent_torchvision():
        import timm.layers

        yield timm.layers


def copied(theirs: nn.Module, ours: Block, names: dict[str, str]) -> nn.Module:
    """Their module with our parameters and statistics, by the names of its layers."""
    state = ours.state_dict()
    new = {}
    for name, tensor in theirs.state_dict().items():
        layer, _, last = name.rpartition(".")
        new[name] = state[f"{names[layer]}.{last}"].view(tensor.shape)
    theirs.load_state_dict(new)
    return theirs.eval()


def check(theirs: nn.Module, ours: Block) -> None:
    for grid in ((7, 5), (1, 1), (14, 14)):
        x: Tensor = features(2, ours.channels, *grid)
        with torch.no_grad():
            assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def trained(name: str, channels: int = 64, **options: Any) -> Block:
    return Case(name, tuple(options.items())).trained(channels)


MLP = {"fc1": "excite.inner", "fc2": "excite.outer"}


@pytest.mark.parametrize("pool", ["mean", "mean_max"])
def test_se(layers, pool):
    ours = trained("se", pool=pool)
    check(copied(layers.SEModule(64, rd_divisor=1, add_maxpool=pool == "mean_max"), ours, MLP), ours)


def test_the_width_of_se_is_rounded_to_a_multiple(layers):
    ours = trained("se", round_to=8)
    check(copied(layers.SEModule(64), ours, MLP), ours)


def test_ese(layers):
    ours = trained("se", ratio=None, gate="hard_sigmoid")
    check(copied(layers.EffectiveSEModule(64), ours, {"fc": "excite"}), ours)


@pytest.mark.parametrize("channels", [16, 64, 128])
def test_eca(layers, channels):
    ours = trained("eca", channels)
    check(copied(layers.EcaModule(channels), ours, {"conv": "convolve"}), ours)
    ours = trained("eca", channels, circular=True)
    check(copied(layers.CecaModule(channels), ours, {"conv": "convolve"}), ours)


@pytest.mark.parametrize("fuse", ["scale", "add"])
def test_gc(layers, fuse):
    ours = trained("gc", fuse=fuse, ratio=8)
    getattr(ours, fuse).norm.eps = 1e-6
    theirs = layers.GlobalContext(64, fuse_add=fuse == "add", fuse_scale=fuse == "scale", rd_ratio=1 / 8)
    mlp = f"mlp_{fuse}"
    names = {"conv_attn": "key", f"{mlp}.fc1": f"{fuse}.inner", f"{mlp}.norm": f"{fuse}.norm"}
    check(copied(theirs, ours, names | {f"{mlp}.fc2": f"{fuse}.outer"}), ours)


def test_cbam(layers):
    from timm.layers.cbam import CbamModule

    ours = trained("cbam")
    names = {
        "channel.fc1": "channel.mlp.inner",
        "channel.fc2": "channel.mlp.outer",
        "spatial.conv.conv": "spatial.convolve",
        "spatial.conv.bn": "spatial.norm",
    }
    theirs = copied(CbamModule(64, mlp_bias=True), ours, names)
    with torch.no_grad():  # the released one has [max; mean], theirs [mean; max]
        kernel = theirs.spatial.conv.conv.weight
        kernel.copy_(kernel.flip(1))
    check(theirs, ours)


def test_coord(layers):
    from timm.layers.coord_attn import CoordAttn

    ours = trained("coord")
    names = {"conv1": "shared", "bn1": "norm", "conv_h": "rows", "conv_w": "columns"}
    check(copied(CoordAttn(64, rd_channels=8, bias=True), ours, names), ours)


def test_simple_coord(layers):
    from timm.layers.coord_attn import SimpleCoordAttn

    ours = trained("coord", form="simple")
    names = {"fc1": "shared", "fc_h": "rows", "fc_w": "columns"}
    check(copied(SimpleCoordAttn(64, rd_channels=8), ours, names), ours)


def test_ela(layers):
    from timm.layers.coord_attn import EfficientLocalAttn

    ours = trained("coord", form="ela", groups=1)  # as theirs; and without the SiLU that theirs has
    names = {"conv_h": "rows", "conv_w": "columns", "norm_h": "norms.0", "norm_w": "norms.1"}
    check(copied(EfficientLocalAttn(64, act_layer=nn.Identity), ours, names), ours)


def test_sk(layers):
    ours = trained("sk", norm="batch")
    theirs = layers.SelectiveKernel(64, groups=32, split_input=False, rd_channels=32)
    names = {"attn.fc_reduce": "squeeze", "attn.bn": "norm", "attn.fc_select": "select"}
    for m in range(2):
        names |= {f"paths.{m}.conv": f"convolve.{m}", f"paths.{m}.bn": f"norms.{m}"}
    check(copied(theirs, ours, names), ours)
