"""The laws of blocks, over every block of the registry and its options: what they compute, and on what."""

import pytest
import safetensors.torch
import torch
from shapes import unchecked
from torch import Tensor
from torch.testing import assert_close

from laws.blocks import CASES, DEFAULTS, GATES, SINGLE, Case, features, padded
from seq2attn.attention import Attention
from seq2attn.attention.blocks import BLOCKS, Block, Map
from seq2attn.errors import Seq2attnError


def over(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=str)


CHANNELS = [1, 3, 8, 12, 48, 64]
GRIDS = [(1, 1), (1, 7), (7, 5), (14, 14), (33, 17)]


@pytest.fixture(autouse=True)
def deterministic():
    """All laws hold where torch refuses whatever is not deterministic."""
    torch.use_deterministic_algorithms(True)
    with unchecked():
        yield
    torch.use_deterministic_algorithms(False)


def test_no_block_is_left_out():
    assert {case.name for case in CASES} == set(BLOCKS) and len(CASES) >= 55 and len(GATES) >= 35


def shape_of(map: Map, x: Tensor, channels: int) -> tuple[int, ...]:
    """The shape that the weights of a map have by its kind; -1 is any size."""
    (B, _, H, W), C = x.shape, channels
    return {
        "channel": (B, C, 1, 1),
        "place": (B, 1, H, W),
        "rows": (B, C, H, 1),
        "columns": (B, C, 1, W),
        "full": (B, C, H, W),
        "branch": (B, -1, C),
        "affinity": (B, -1, H * W, -1),
        "channels": (B, C, C),
    }[map.kind]


def assert_same(case: Case, features: Tensor, looked: Tensor) -> None:
    """`forward` is `look` without maps: bit for bit, or by the faster path of an attention."""
    if case.has_attention:
        assert_close(features, looked, atol=1e-5, rtol=1e-5)
    else:
        assert torch.equal(features, looked)


# Each number of channels on one grid, and each grid with one number of channels.
SIZES = [*((channels, GRIDS[2]) for channels in CHANNELS), *((3, grid) for grid in GRIDS if grid != GRIDS[2])]


@over(CASES)
def test_every_number_of_channels_and_every_grid(case):
    for channels, grid in SIZES:
        block, x = case.trained(channels), features(2, channels, *grid)
        with torch.no_grad():
            looked = block.look(x)
            assert looked.features.shape == x.shape
            assert_same(case, block(x), looked.features)
        assert bool(looked.maps) != (case.name == "aspp" and not case.has_gate)
        for map in looked.maps.values():
            expected = shape_of(map, x, case.weighted(channels))
            assert map.weights.dim() == len(expected) and map.grid == grid
            for size, wanted in zip(map.weights.shape, expected, strict=True):
                assert wanted in (-1, size)
            assert map.weights.isfinite().all()
            if map.distribution:
                assert (map.weights >= 0).all()
                assert_close(map.total(), torch.ones_like(map.total()))


@over(GATES)
def test_a_gate_multiplies_once_and_keeps_the_sign(case):
    block, x = case.trained(12), features(2, 12, 7, 5)
    with torch.no_grad():
        y, maps = block.look(x)
        assert_close(y, x * block.gate(maps))
    if block.positive:
        assert (block.gate(maps) > 0).all() and torch.equal(y.sign(), x.sign())


def test_signs_are_kept_by_all_but_one():
    assert [name for name, block in BLOCKS.items() if not getattr(block, "positive", True)] == ["lka"]


@over(CASES)
def test_maps_depend_on_the_image(case):
    block = case.trained(12)
    with torch.no_grad():
        maps = block.look(features(2, 12, 7, 5)).maps
    for map in maps.values():
        assert (map.weights[0] - map.weights[1]).abs().max() > 1e-4


def part_of_affinity(map: Map, alone: Map, row: int) -> Tensor:
    """The weights of an image's own queries and keys, of those in a padded batch."""
    whole = map.weights[row].unflatten(1, map.grid).unflatten(3, map.keys)
    (height, width), (key_height, key_width) = alone.grid, alone.keys
    part = whole[:, :height, :width, :key_height, :key_width]
    return part.flatten(3).flatten(1, 2)


@over(CASES)
def test_an_image_in_a_padded_batch_is_the_image_alone(case):
    block = case.trained(8)
    images = [features(8, *grid, seed=seed) for seed, grid in enumerate([(7, 9), (5, 4), (1, 1), (1, 7)])]
    batch, mask = padded(images)
    with torch.no_grad():
        together = block.look(batch, mask)
        assert_same(case, block(batch, mask), together.features)
        for row, image in enumerate(images):
            height, width = image.shape[1:]
            alone = block.look(image[None])
            inside = together.features[row, :, :height, :width]
            assert_close(inside, alone.features[0], atol=1e-5, rtol=1e-5)
            for name, map in together.maps.items():
                part = map.weights[row]
                if map.kind in ("place", "full", "rows", "columns"):
                    part = part[:, :height, :width]
                if map.kind == "affinity":
                    part = part_of_affinity(map, alone.maps[name], row)
                assert_close(part, alone.maps[name].weights[0], atol=1e-5, rtol=1e-5)
    assert not together.features.masked_select(~mask).any()
    for map in together.maps.values():
        if map.kind in ("place", "full"):
            assert not map.weights.masked_select(~mask).any()


@over(CASES)
def test_an_image_without_any_position_gives_zero_and_no_nan(case):
    block, x = case.trained(8), features(2, 8, 4, 5).requires_grad_()
    mask = torch.tensor([True, False]).view(2, 1, 1, 1).expand(2, 1, 4, 5)
    y, maps = block.look(x, mask)
    assert not y[1].any() and all(map.weights.isfinite().all() for map in maps.values())
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert gradient.isfinite().all() and not gradient[1].any()


@over(CASES)
def test_no_image_depends_on_the_others(case):
    block, x = case.trained(8), features(3, 8, 7, 5)
    changed = torch.cat([x[:1], 9 * x[1:2] + 1, x[2:]])
    with torch.no_grad():
        before, after = block(x), block(changed)
    assert_close(after[[0, 2]], before[[0, 2]], atol=1e-6, rtol=1e-6)
    assert (after[1] - before[1]).abs().max() > 1e-3


@over(SINGLE)
@pytest.mark.parametrize("grid", [(1, 1), (7, 5)])
def test_a_batch_of_one_trains(case, grid):
    block, x = case.build(8).train(), features(1, 8, *grid).requires_grad_()
    y = block(x)
    y.square().sum().backward()
    assert y.isfinite().all() and x.grad is not None and x.grad.isfinite().all()
    for parameter in block.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@over([case for case in CASES if any(True for _ in case.build(8).parameters())])
def test_every_parameter_learns(case):
    block, x = case.trained(12), features(2, 12, 7, 5)
    block(x).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A bias of keys adds the same to all scores of a query, which a softmax does not see: rounding, or 0.
        assert parameter.grad.any() or name.endswith("key.bias"), name
    block.zero_grad()


@over(CASES)
def test_gradients_are_those_of_the_formula(case):
    block = case.build(4).double().eval()
    block.load_state_dict(case.trained(4).state_dict())
    x = features(1, 4, 5, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(block, (x,), fast_mode=True)


IDENTITIES = [case for case in CASES if case.build(8).identity_at_start]


@over(IDENTITIES)
def test_what_starts_as_the_identity_returns_its_input(case):
    block, x = case.build(8).train(), features(2, 8, 7, 5)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert any(parameter.grad.any() for parameter in block.parameters() if parameter.grad is not None)


@over(CASES)
def test_only_these_start_as_the_identity(case):
    block, x = case.build(8).eval(), features(2, 8, 7, 5)
    assert torch.equal(block(x), x) == block.identity_at_start == (case in IDENTITIES)


def permuted(case: Case, channels: int, order: Tensor) -> Block:
    """The block with all its channels in another order: each axis as long as there are channels."""
    block = case.build(channels).eval()
    state = {}
    for name, tensor in case.trained(channels).state_dict().items():
        for axis, size in enumerate(tensor.shape):
            tensor = tensor.index_select(axis, order) if size == channels else tensor
        state[name] = tensor
    block.load_state_dict(state)
    return block


def mixes_groups(case: Case) -> bool:
    """Channels have neighbours, or belong to groups; or another axis, of distances, is as long."""
    return (
        case.name in ("eca", "triplet", "ema", "sk", "window", "aspp")
        or case.has(combine="concat")
        or case.has(form="ela")
    )


@over(CASES)
def test_the_order_of_channels_matters_to_these_alone(case):
    order = torch.randperm(13, generator=torch.Generator().manual_seed(1))
    x = features(2, 13, 7, 5)
    with torch.no_grad():
        expected = case.trained(13)(x)[:, order]
        difference = (permuted(case, 13, order)(x[:, order]) - expected).abs().max()
    if case.name in ("eca", "triplet"):
        assert difference > 1e-3
    elif not mixes_groups(case):
        assert difference < 1e-5


TRANSPOSABLE = [
    case
    for case in CASES
    if case.name in ("se", "cse", "eca", "gc", "cbam_channel", "sse", "scse", "simam", "polarized")
    or (case.name == "ge" and not case.has(gather="conv"))
]


@over(TRANSPOSABLE)
def test_transposing_the_image_transposes_the_features(case):
    block, x = case.trained(8), features(2, 8, 7, 5)
    with torch.no_grad():
        assert_close(block(x.mT), block(x).mT, atol=1e-5, rtol=1e-5)


@over([case for case in CASES if case.name in ("coord", "strip", "lka") and not case.has(form="lska")])
def test_transposing_kernels_and_exchanging_rows_and_columns_transposes_the_features(case):
    block, x = case.build(8).eval(), features(2, 8, 7, 5)
    state, exchanged = case.trained(8).state_dict(), {}
    names = {"rows": "columns", "columns": "rows", "norm_rows": "norm_columns", "norm_columns": "norm_rows"}
    if case.has(form="ela"):
        names |= {"norms.0": "norms.1", "norms.1": "norms.0"}
    for name, tensor in state.items():
        stem, _, last = name.rpartition(".")
        exchanged[f"{names.get(stem, stem)}.{last}"] = tensor.mT if tensor.dim() == 4 else tensor
    block.load_state_dict(exchanged)
    with torch.no_grad():
        assert_close(block(x.mT), case.trained(8)(x).mT, atol=1e-5, rtol=1e-5)


@over(CASES)
def test_a_saved_and_loaded_block_is_the_same(case):
    block = case.build(8).train()
    with torch.no_grad():
        block(features(4, 8, 7, 5))  # statistics move
    other = case.kind(8, **dict(case.options)).eval()  # with other random numbers
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(block.state_dict())))
    x = features(2, 8, 7, 5)
    with torch.no_grad():
        assert torch.equal(other(x), block.eval()(x))


@over(CASES)
def test_a_block_works_without_memory_for_its_numbers(case):
    block = case.build(8).to("meta")
    mask = torch.ones(2, 1, 7, 5, dtype=torch.bool, device="meta")
    x = torch.empty(2, 8, 7, 5, device="meta")
    assert block(x).shape == block.look(x, mask).features.shape == x.shape


@over(DEFAULTS)
def test_a_block_can_be_exported(case):
    block, x = case.trained(8), features(2, 8, 7, 5)
    exported = torch.export.export(block, (x,), strict=False).module()
    other = features(2, 8, 7, 5, seed=8)
    with torch.no_grad():
        assert_close(exported(other), block(other))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@over(CASES)
def test_half_precision_stays_within_two_percent_of_the_range(case, dtype):
    block = case.trained(12)
    for scale in (1, 6, 100):
        x = scale * features(2, 12, 14, 14)
        with torch.no_grad():
            exact = block(x)
            with torch.autocast("cpu", dtype):
                narrow = block(x)
        assert narrow.isfinite().all()
        error = (narrow.float() - exact).abs() / (exact.max() - exact.min())
        # Sigmoids of large scores are steps, and softmaxes choose one key: at some positions the 8 bits of
        # bf16, or the 11 of fp16, decide which.
        steep = (scale == 100 and dtype == torch.bfloat16) or (scale > 1 and case.has_attention)
        assert (error.mean() if steep else error.max()) < (0.003 if steep else 0.02), scale


# The parameters of an attention's parts stay in float32, as everywhere: their inputs are widened.
NARROW = [
    case
    for case in CASES
    if not any([*part.parameters()] for part in case.build(8).modules() if isinstance(part, Attention))
]


@over(NARROW)
def test_a_block_of_half_precision_returns_half_precision(case):
    block = case.build(8).eval()
    block.load_state_dict(case.trained(8).state_dict())
    block, x = block.bfloat16(), features(2, 8, 7, 5).bfloat16()
    mask = torch.ones(2, 1, 7, 5, dtype=torch.bool)
    with torch.no_grad():
        assert block(x).dtype == block(x, mask).dtype == torch.bfloat16
        assert all(map.weights.dtype == torch.float32 for map in block.look(x).maps.values())
        assert_close(block(x, mask), block(x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("x", "mask", "reason"),
    [
        (torch.zeros(2, 4, 5, 6), None, r"SE: expected features \(B, 8, H, W\), got \(2, 4, 5, 6\)"),
        (torch.zeros(8, 5, 6), None, r"SE: expected features \(B, 8, H, W\), got \(8, 5, 6\)"),
        (torch.zeros(2, 8, 5, 6), torch.ones(2, 1, 5, 6), "expected a boolean mask .*, True = a position"),
        (torch.zeros(2, 8, 5, 6), torch.ones(2, 5, 6).bool(), r"here \(2, 1, 5, 6\); got \(2, 5, 6\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, mask, reason):
    block = BLOCKS["se"](8)
    for call in (block, block.look):
        with pytest.raises(Seq2attnError, match=reason):
            call(x, mask)


@pytest.mark.parametrize("name", BLOCKS)
def test_no_channels_are_an_error(name):
    with pytest.raises(Seq2attnError, match="needs at least one channel, got channels=0"):
        BLOCKS[name](0)
