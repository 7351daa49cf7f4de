"""Blocks against their papers' formulas, written out once more; and what is special to one of them."""

import pytest
import torch
import torch.nn.functional as F
from laws.blocks import Case, features
from torch import Tensor, nn
from torch.testing import assert_close

from seq2attn.attention.blocks import BLOCKS, Block
from seq2attn.attention.blocks.channel import eca_kernel
from seq2attn.errors import Seq2attnError

X = features(2, 12, 7, 5)
MEAN, MAX = X.mean((2, 3)), X.amax((2, 3))


def trained(name: str, channels: int = 12, **options) -> Block:
    return Case(name, tuple(options.items())).trained(channels)


def times(x: Tensor, *gates: Tensor) -> Tensor:
    """Features times gates (B, C) of channels, or (B, H, W) of places."""
    for gate in gates:
        x = x * (gate[:, :, None, None] if gate.shape == x.shape[:2] else gate[:, None])
    return x


def mlp(part, z: Tensor) -> Tensor:
    """W2 relu(W1 z + b1) + b2."""
    inner, outer = part.inner, part.outer
    return (z @ inner.weight.T + inner.bias).clamp(min=0) @ outer.weight.T + outer.bias


def check(block: Block, expected: Tensor) -> None:
    with torch.no_grad():
        assert_close(block(X), expected, atol=1e-5, rtol=1e-5)


def test_se():
    block = trained("se")
    check(block, times(X, mlp(block.excite, MEAN).sigmoid()))
    block = trained("se", pool="mean_max")
    check(block, times(X, mlp(block.excite, (MEAN + MAX) / 2).sigmoid()))
    block = trained("se", ratio=None, gate="hard_sigmoid")
    scores = MEAN @ block.excite.weight.T + block.excite.bias
    check(block, times(X, ((scores + 3) / 6).clamp(0, 1)))


@pytest.mark.parametrize("circular", [False, True])
def test_eca(circular):
    block = trained("eca", kernel=5, circular=circular)
    gate = torch.zeros(2, 12)
    for channel in range(12):
        for tap in range(5):
            other = channel + tap - 2
            if circular or 0 <= other < 12:
                gate[:, channel] += block.convolve.weight[0, 0, tap].item() * MEAN[:, other % 12]
    check(block, times(X, gate.sigmoid()))


@pytest.mark.parametrize(
    ("channels", "kernel"), [(1, 3), (16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_the_kernel_of_eca_follows_the_number_of_channels(channels, kernel):
    assert eca_kernel(channels) == kernel
    assert sum(parameter.numel() for parameter in BLOCKS["eca"](channels).parameters()) == kernel


def context(block, x: Tensor) -> Tensor:
    scores = torch.einsum("bchw,c->bhw", x, block.key.weight[0, :, 0, 0]) + block.key.bias
    return torch.einsum("bchw,bhw->bc", x, scores.flatten(1).softmax(1).view_as(scores))


def transformed(part, z: Tensor) -> Tensor:
    hidden = F.layer_norm(z @ part.inner.weight.T + part.inner.bias, (4,), part.norm.weight, part.norm.bias)
    return hidden.clamp(min=0) @ part.outer.weight.T + part.outer.bias


def test_gc():
    block = trained("gc")
    check(block, X + transformed(block.add, context(block, X))[..., None, None])
    block = trained("gc", fuse="scale", pool="mean")  # se with a norm
    check(block, times(X, transformed(block.scale, MEAN).sigmoid()))
    block = trained("gc", fuse="both")
    scaled = times(X, transformed(block.scale, context(block, X)).sigmoid())
    check(block, scaled + transformed(block.add, context(block, X))[..., None, None])


def normed(norm, x: Tensor) -> Tensor:
    """Batch normalisation in evaluation."""
    weight, bias, average, variance = (
        part.view(-1, 1, 1) for part in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    return (x - average) / (variance + norm.eps).sqrt() * weight + bias


def spatial(part, x: Tensor) -> Tensor:
    pooled = torch.stack([x.amax(1), x.mean(1)], 1)
    return normed(part.norm, F.conv2d(pooled, part.convolve.weight, padding=3)).sigmoid()[:, 0]


def test_cbam():
    block = trained("cbam")
    channel = (mlp(block.channel.mlp, MEAN) + mlp(block.channel.mlp, MAX)).sigmoid()
    refined = times(X, channel)
    check(block, times(refined, spatial(block.spatial, refined)))
    with torch.no_grad():
        assert_close(block(X), block.spatial(block.channel(X)))
    block = trained("cbam", order="spatial_first")
    with torch.no_grad():
        assert_close(block(X), block.channel(block.spatial(X)))


def test_scse():
    block = trained("scse")
    channel = mlp(block.channel.excite, MEAN).sigmoid()
    weight, bias = block.spatial.score.weight[0, :, 0, 0], block.spatial.score.bias
    place = (torch.einsum("bchw,c->bhw", X, weight) + bias).sigmoid()
    check(block, times(X, channel) + times(X, place))
    for combine, expected in (
        ("max", torch.maximum(times(X, channel), times(X, place))),
        ("multiply", times(X, channel, place)),
    ):
        other = BLOCKS["scse"](12, combine=combine).eval()
        other.load_state_dict(block.state_dict())
        check(other, expected)


def test_coord():
    block = trained("coord")
    shared = block.shared.weight[..., 0, 0]
    rows, columns = (
        F.hardswish(
            normed(
                block.norm, (torch.einsum("mc,bcl->bml", shared, z) + block.shared.bias[:, None])[..., None]
            )
        )
        for z in (X.mean(3), X.mean(2))
    )
    rows, columns = (
        F.conv2d(f, part.weight, part.bias).sigmoid()
        for f, part in ((rows, block.rows), (columns, block.columns))
    )
    check(block, X * rows * columns.mT)


def test_ela():
    block = trained("coord", form="ela", groups=4)
    rows = F.conv1d(X.mean(3), block.rows.weight[..., 0], padding=3, groups=12)
    columns = F.conv1d(X.mean(2), block.columns.weight[..., 0, :], padding=3, groups=12)
    rows, columns = (
        F.group_norm(z, 4, norm.weight, norm.bias).sigmoid()
        for z, norm in zip((rows, columns), block.norms, strict=True)
    )
    check(block, X * rows[..., None] * columns[..., None, :])


@pytest.mark.parametrize("combine", ["sum", "product"])
def test_bam(combine):
    block = trained("bam", combine=combine, dilation=2, norm="none")
    channel = mlp(block.channel, MEAN)[..., None, None]
    hidden = normed(block.norms[0], F.conv2d(X, block.reduce.weight, block.reduce.bias)).clamp(min=0)
    for convolve, norm in zip(block.dilated, block.norms[1:], strict=True):
        convolved = F.conv2d(hidden, convolve.weight, convolve.bias, padding=2, dilation=2)
        hidden = normed(norm, convolved).clamp(min=0)
    place = F.conv2d(hidden, block.score.weight, block.score.bias)
    scores = channel + place if combine == "sum" else channel * place
    check(block, X + X * scores.sigmoid())


@pytest.mark.parametrize("extent", [2, 4])
def test_ge_gathers_means_around_every_eth_position(extent):
    expected = torch.zeros_like(X)
    for row in range(7):
        for column in range(5):
            top, left = (place // extent * extent for place in (row, column))
            rows = slice(max(top - extent + 1, 0), top + extent)
            columns = slice(max(left - extent + 1, 0), left + extent)
            expected[..., row, column] = X[..., rows, columns].mean((2, 3)).sigmoid()
    check(trained("ge", extent=extent), X * expected)


def test_ge_over_the_grid_is_the_mean_and_with_an_mlp_se():
    check(trained("ge"), times(X, MEAN.sigmoid()))
    check(trained("ge", extent=8), times(X, MEAN.sigmoid()))
    block, se = BLOCKS["ge"](12, mlp=True), trained("se")
    block.mlp.load_state_dict(se.excite.state_dict())
    check(block, se(X).detach())


def test_ge_with_convolutions():
    block = trained("ge", extent=4, gather="conv")
    first, second = block.convolve
    gathered = F.conv2d(X, first.weight, stride=2, padding=1, groups=12)
    gathered = normed(block.norms[0], gathered).clamp(min=0)
    gathered = normed(block.norms[1], F.conv2d(gathered, second.weight, stride=2, padding=1, groups=12))
    enlarged = gathered.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., :7, :5]
    check(block, X * enlarged.sigmoid())
    with pytest.raises(Seq2attnError, match="set extent to 2, 4 or 8, or gather: mean"):
        BLOCKS["ge"](12, gather="conv")


def test_simam():
    block, x = BLOCKS["simam"](12), X.double()
    energy = (x - x.mean((2, 3), keepdim=True)) ** 2 / (4 * (x.var((2, 3), keepdim=True) + 1e-4)) + 0.5
    check(block, (x * energy.sigmoid()).float())
    gate = block.gate(block.look(X).maps)
    assert gate.min() >= 0.62245 and block.look(X[..., :1, :1]).features.isfinite().all()
    assert_close(block.gate(block.look(X + 3).maps), gate, atol=1e-5, rtol=1e-5)  # a constant changes nothing
    large = block.look((6 * features(1, 12, 56, 56)).half()).maps["full"].weights
    assert 0.66 < large.mean() < 0.69  # where squares overflow, it is 0.6225 everywhere


@pytest.mark.parametrize("is_spatial", [True, False])
def test_triplet(is_spatial):
    block = trained("triplet", spatial=is_spatial)

    def gated(name: str, x: Tensor) -> Tensor:
        pooled = torch.stack([x.amax(1), x.mean(1)], 1)
        return (
            x * normed(block.norm[name], F.conv2d(pooled, block.convolve[name].weight, padding=3)).sigmoid()
        )

    parts = [
        gated("columns", X.transpose(1, 2)).transpose(1, 2),
        gated("rows", X.transpose(1, 3)).transpose(1, 3),
    ]
    parts += [gated("place", X)] if is_spatial else []
    check(block, sum(parts) / len(parts))


@pytest.mark.parametrize("order", ["parallel", "sequential"])
@pytest.mark.parametrize("form", ["paper", "release"])
def test_polarized(form, order):
    block = trained("polarized", form=form, order=order)

    def project(layer, x: Tensor) -> Tensor:
        projected = torch.einsum("bchw,dc->bdhw", x, layer.weight[..., 0, 0]).flatten(2)
        return projected if layer.bias is None else projected + layer.bias[:, None]

    weights = project(block.query, X).softmax(2)
    channel = block.excite(torch.einsum("bdn,bkn->bd", project(block.value, X), weights)).sigmoid()
    x = times(X, channel) if order == "sequential" else X
    query, value = project(block.place_query, x).mean(2), project(block.place_value, x)
    if form == "paper":
        place = torch.einsum("bd,bdn->bn", query.softmax(1), value)
    elif order == "parallel":
        place = torch.einsum("bd,bdn->bn", query, value).softmax(1)
    else:
        place = torch.einsum("bd,bdn->bn", query, value.softmax(2))
    gated = times(x, place.sigmoid().view(2, 7, 5))
    check(block, gated if order == "sequential" else times(X, channel) + gated)


def test_the_release_of_parallel_polarized_attention_hardly_sees_places():
    block = BLOCKS["polarized"](64, form="release").eval()
    weights = block.look(features(2, 64, 14, 14)).maps["place"].weights
    assert weights.min() >= 0.5 and weights.max() < 0.52


@pytest.mark.parametrize("form", ["release", "one_group"])
def test_ema(form):
    block = trained("ema", form=form, groups=3)
    expected = torch.zeros_like(X)
    weighting = torch.zeros(2, 3, 4)
    for row in range(2):
        for group in range(3):
            z = X[row : row + 1, 4 * group : 4 * group + 4]
            strip = torch.cat([z.mean(3), z.mean(2)], 2)
            strip = (
                torch.einsum("dc,bcl->bdl", block.strip.weight[..., 0, 0], strip) + block.strip.bias[:, None]
            )
            gated = z * strip[..., :7, None].sigmoid() * strip[..., None, 7:].sigmoid()
            first = F.group_norm(gated, 4 if form == "release" else 1, block.norm.weight, block.norm.bias)
            second = F.conv2d(z, block.local.weight, block.local.bias, padding=1)
            one, other = first.mean((2, 3)).softmax(1), second.mean((2, 3)).softmax(1)
            scores = torch.einsum("bc,bchw->bhw", one, second) + torch.einsum("bc,bchw->bhw", other, first)
            expected[row, 4 * group : 4 * group + 4] = (z * scores.sigmoid()).detach()
            weighting[row, group] = one.detach()
    check(block, expected)
    spread = (weighting - block.norm.bias.softmax(0).detach()).abs().max()
    assert (spread < 1e-6) == (form == "release")  # there the norm leaves nothing but its bias


def test_groups_of_ema_divide_the_channels():
    assert [BLOCKS["ema"](channels).groups for channels in (1, 3, 12, 48, 64, 80)] == [1, 3, 12, 24, 32, 20]


def test_lka():
    block = trained("lka")
    x = F.conv2d(X, block.depthwise[0].weight, block.depthwise[0].bias, padding=2, groups=12)
    x = F.conv2d(x, block.depthwise[1].weight, block.depthwise[1].bias, padding=9, dilation=3, groups=12)
    check(block, X * F.conv2d(x, block.pointwise.weight, block.pointwise.bias))


def test_lska_is_lka_with_kernels_that_are_products():
    block, wide = BLOCKS["lka"](12, form="lska", kernel=21), BLOCKS["lka"](12)
    with torch.no_grad():
        for number, layer in enumerate(wide.depthwise):
            row, column = block.depthwise[2 * number : 2 * number + 2]
            row.bias.zero_()  # it would be cut off at the border
            layer.weight.copy_(column.weight @ row.weight)
            layer.bias.copy_(column.bias)
        wide.pointwise.load_state_dict(block.pointwise.state_dict())
        check(block, wide(X))
    with pytest.raises(Seq2attnError, match="LKA needs a kernel k with an odd floor"):
        BLOCKS["lka"](12, kernel=8)


def test_strip():
    block = trained("strip")
    rows = normed(block.norm_rows, F.conv1d(X.mean(3), block.rows.weight[..., 0], padding=1)[..., None])
    columns = F.conv1d(X.mean(2), block.columns.weight[..., 0, :], padding=1)[..., None, :]
    scores = F.conv2d(
        (rows + normed(block.norm_columns, columns)).clamp(min=0), block.join.weight, block.join.bias
    )
    check(block, X * scores.sigmoid())


def test_sk():
    block = trained("sk", branches=3, norm="none")
    branches = [
        normed(norm, F.conv2d(X, layer.weight, padding=m, dilation=m, groups=12)).clamp(min=0)
        for m, (layer, norm) in enumerate(zip(block.convolve, block.norms, strict=True), 1)
    ]
    z = (sum(branches).mean((2, 3)) @ block.squeeze.weight.T).clamp(min=0)
    weights = torch.stack([z @ part.T for part in block.select.weight.split(12)], 1).softmax(1)
    check(block, torch.einsum("bmc,mbchw->bchw", weights, torch.stack(branches)))
    assert_close(weights.sum(1), torch.ones(2, 12))


def test_a_single_value_is_normed_by_the_running_statistics():
    block = BLOCKS["cbam_spatial"](3).train()
    nn.init.ones_(block.norm.weight)
    before = {name: tensor.clone() for name, tensor in block.norm.state_dict().items()}
    x = features(1, 3, 1, 1)
    assert_close(block(x), block.eval()(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.norm.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options"), [("eca", {"kernel": 4}), ("cbam", {"kernel": 2}), ("triplet", {"kernel": 6})]
)
def test_even_kernels_are_refused(name, options):
    kernel = options["kernel"]
    with pytest.raises(Seq2attnError, match=f"needs an odd kernel.*got {kernel}; take {kernel + 1}"):
        BLOCKS[name](8, **options)
