"""Networks that are written as graphs: sizes, wiring, edits, and weights by the names of rows."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_graphs import ROWS, graph, network
from torch import Tensor, nn
from torch.testing import assert_close

from seq2attn.attention.blocks import BLOCKS
from seq2attn.models.vision.graph import GraphNetwork
from seq2attn.recipe.graph import shipped_graphs

X = torch.randn(2, 3, 48, 40, generator=torch.Generator().manual_seed(3))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def with_anchors(**keys: Any) -> int:
    """The parameters of YOLOv5 as released: those of the graph, and of its head for 80 classes: for each
    output a 1x1 convolution to 3 anchors with 4 sides, an objectness and the classes."""
    with torch.device("meta"):
        made = network(**keys)
        head = [nn.Conv2d(size, 3 * (5 + 80), 1) for size in made.sizes]
    return count(made) + sum(map(count, head))


@pytest.mark.parametrize(
    ("keys", "parameters"),
    [
        ({"base": "yolov5s"}, 7_235_389),
        ({"base": "yolov5n"}, 1_872_157),
        ({"base": "yolov5s", "insert": {"after": "c5", "module": "cbam"}}, 7_268_801),
        ({"base": "yolov5s", "insert": {"before": "sppf", "module": "cbam"}}, 7_268_801),
        ({"base": "yolov5s", "replace": {"rows": ["c2", "c3", "c4", "c5"], "module": "cbam"}}, 5_337_929),
    ],
)
def test_numbers_of_parameters_of_releases(keys: dict[str, Any], parameters: int) -> None:
    assert with_anchors(**keys) == parameters


def test_the_small_graph_is_for_small_images() -> None:
    with torch.device("meta"):
        made = network(base="yolo_small")
    assert count(made) == 991_808 and made.strides == [8, 16, 32] and made.sizes == [48, 96, 192]
    assert set(shipped_graphs()) == {"yolov5s", "yolov5n", "yolo_small"}


# ---- what the modules compute, written again with functions of torch ------------------------------------


def unit(module: Any, x: Tensor, stride: int = 1) -> Tensor:
    kernel = module.conv.kernel_size[0]
    y = F.conv2d(x, module.conv.weight, None, stride, kernel // 2 if kernel % 2 else 2)
    norm = module.norm
    return F.silu(F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias))


def bottleneck(module: Any, x: Tensor, shortcut: bool) -> Tensor:
    return unit(module.wide, unit(module.narrow, x)) + (x if shortcut else 0)


def csp(module: Any, x: Tensor, shortcut: bool = True) -> Tensor:
    y = unit(module.narrow, x)
    for inner in module.bottlenecks:
        y = bottleneck(inner, y, shortcut)
    return unit(module.join, torch.cat([y, unit(module.beside, x)], 1))


def by_hand(rows: Any, x: Tensor) -> list[Tensor]:
    c2 = csp(rows.c2, unit(rows.p2.unit, unit(rows.stem.unit, x, 2), 2))
    y = unit(rows.c3.split, unit(rows.p3.unit, c2, 2))
    made = [*y.chunk(2, 1)]
    made.append(made[-1] + unit(rows.c3.bottlenecks[0].second, unit(rows.c3.bottlenecks[0].first, made[-1])))
    y = unit(rows.sppf.narrow, unit(rows.c3.join, torch.cat(made, 1)))
    pools = [y, *(F.max_pool2d(y, size, 1, size // 2) for size in (5, 9, 13))]
    y = unit(rows.sppf.join, torch.cat(pools, 1))
    n2 = csp(rows.n2, torch.cat([y.repeat_interleave(2, 2).repeat_interleave(2, 3), c2], 1), shortcut=False)
    fit = rows.n3.fit
    skipped = F.conv2d(c2, fit.conv.weight, None, 2)
    norm = fit.norm
    skipped = F.batch_norm(skipped, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return [n2, unit(rows.down.unit, n2, 2) + skipped]


def test_a_graph_computes_what_its_rows_say() -> None:
    made = moved(network())
    with torch.no_grad():
        for stage, expected in zip(made(X), by_hand(made.rows, X), strict=True):
            assert_close(stage.states, expected, atol=1e-5, rtol=1e-5)
    assert made.sizes == [16, 24] and made.strides == [4, 8]


def moved(made: GraphNetwork) -> GraphNetwork:
    """With statistics away from where they start."""
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_(std=0.2)
                module.bias.normal_(std=0.2)
                module.weight.uniform_(0.5, 1.5)
    return made


# ---- edits ----------------------------------------------------------------------------------------------


def wiring(**keys: Any) -> dict[str, tuple[str, ...]]:
    with torch.device("meta"):
        return network(**keys).sources


def test_all_that_read_a_row_read_what_is_inserted_after_it() -> None:
    plain, edited = wiring(), wiring(insert={"after": "c2", "module": "cbam"})
    assert edited.pop("c2_cbam") == ("c2",)
    assert edited == {
        name: tuple("c2_cbam" if read == "c2" else read for read in reads) for name, reads in plain.items()
    }


def test_only_the_row_reads_what_is_inserted_before_it() -> None:
    plain, edited = wiring(), wiring(insert={"before": "p3", "module": "cbam"})
    assert edited.pop("cbam_p3") == ("c2",)
    assert edited == {**plain, "p3": ("cbam_p3",)}


def test_a_second_row_after_the_same_stands_behind_the_first() -> None:
    edits = [{"after": "n3", "module": "se"}, {"after": "n3", "module": "eca", "name": "last"}]
    with torch.device("meta"):
        made = network(insert=edits)
    assert made.sources["n3_se"] == ("n3",) and made.sources["last"] == ("n3_se",)
    assert made.outputs == ["n2", "last"]


def test_rows_without_names_are_called_after_the_row_above() -> None:
    rows = [{"module": "conv"}, {"name": "a", "module": "conv"}, *[{"module": "se"}] * 2, {"module": "eca"}]
    assert wiring(rows=rows) == {
        "conv": ("",), "a": ("conv",), "a_se": ("a",), "a_se_2": ("a_se",), "a_eca": ("a_se_2",)
    }  # fmt: skip


def test_rows_of_a_base_that_no_output_needs_are_left_out() -> None:
    assert [*wiring(base="yolov5s", outputs=["c4"])] == ["stem", "p2", "c2", "p3", "c3", "p4", "c4"]


def test_blocks_stand_inside_each_bottleneck() -> None:
    with torch.device("meta"):
        made = network(inside={"c3": ["se", {"name": "cbam", "ratio": 2}]})
    names = [name for name, module in made.named_modules() if type(module) is BLOCKS["cbam"]]
    assert names == [
        f"rows.{place}.inside.1" for place in ("c2.bottlenecks.0", "c2.bottlenecks.1", "n2.bottlenecks.0")
    ]


def test_sizes_and_repeats_are_scaled() -> None:
    rows = [
        {"name": "a", "module": "conv", "size": 100},
        {"name": "b", "module": "c3", "size": 8, "repeat": 9},
    ]
    with torch.device("meta"):
        made = network(rows=rows, scale={"width": 0.25, "depth": 0.5, "divisor": 8})
        plain = network(rows=rows)
    assert [made.shapes[name].channels for name in "ab"] == [32, 8]
    assert (len(made.rows["b"].bottlenecks), len(plain.rows["b"].bottlenecks)) == (4, 9)
    assert plain.sizes == [8] and plain.shapes["a"].channels == 100


@pytest.mark.parametrize("width", [0.25, 0.37, 0.5, 1.0])
def test_every_block_can_be_a_row_without_a_number(width: float) -> None:
    rows = [{"name": "a", "module": "conv", "size": 64}, *({"module": block} for block in BLOCKS)]
    with torch.device("meta"):
        made = network(rows=rows, scale={"width": width, "divisor": 8})
    assert made.sizes == [-(-64 * width // 8) * 8]


# ---- weights --------------------------------------------------------------------------------------------

IDENTITIES = [name for name, block in BLOCKS.items() if block.identity_at_start]


def test_weights_are_found_by_the_names_of_rows_whatever_stands_between() -> None:
    """Blocks that are the identity at the start leave outputs bit for bit as they were."""
    plain, edits = moved(network()), list[dict[str, str]]()
    for number, name in enumerate(IDENTITIES):
        edits.append({"after": ("c2", "c3", "sppf", "n2")[number % 4], "module": name})
    edited = network(insert=edits)
    missing, unexpected = edited.load_state_dict(plain.state_dict(), strict=False)
    new = {f"rows.{edit['after']}_{edit['module']}" for edit in edits}
    assert len(new) > 3 and not unexpected
    assert {".".join(name.split(".")[:2]) for name in missing} == new
    with torch.no_grad():
        for stage, same in zip(plain(X), edited(X), strict=True):
            assert torch.equal(stage.states, same.states)


def test_a_recipe_with_all_values_is_the_same_graph() -> None:
    recipe = graph(insert={"after": "c2", "module": "cbam", "ratio": 4}, inside={"c3": "se"})
    assert type(recipe).model_validate(recipe.model_dump(mode="json")) == recipe
    assert ROWS[7]["from"] == recipe.model_dump(mode="json")["rows"][7]["from"]
