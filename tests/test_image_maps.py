"""Maps of image networks: those that the network has computed, rollout, Grad-CAM, and what is drawn of them."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from seq2attn.attention.blocks import BLOCKS, Block, Looked
from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import ImageReader
from seq2attn.inference.image_input import ReadImage
from seq2attn.inference.image_maps import ImageMaps, image_maps, rollout
from seq2attn.inference.predictor import PlotOptions
from seq2attn.models.vision.classifier import ImageClassifier
from seq2attn.models.vision.factory import build_image_classifier
from seq2attn.recipe.vision_model import ImageClassifierRecipe
from seq2attn.views.image_maps import Bars, Matrix, Overlay, enlarged, picture
from seq2attn.views.pictures import PlotError

LABELS = ["cat", "dog", "owl"]
PIXELS = np.random.default_rng(3).integers(0, 256, (18, 24, 1), np.uint8)
CONVOLUTIONAL = {
    "kind": "convolutional",
    "sizes": [8, 16],
    "blocks": [
        {"block": "cbam", "at": "after"},
        {"block": "cbam", "at": "after"},
        {"block": "pam", "stages": [2]},
    ],
}
EVERY_KIND = ["sk", "cam", "coord", "nonlocal", "gc", "mhsa", "lka", "bam"]
RESNET = {"kind": "resnet", "depth": 8, "blocks": [{"block": name, "stages": [2]} for name in EVERY_KIND]}
VIT = {"kind": "vit", "size": 12, "layers": 2, "feed_forward": 8, "patch": 6, "self_attention": {"heads": 3}}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(7)


def made(backbone: dict[str, object], **sections: object) -> ImageClassifier:
    """A network away from where it starts: there, many gates are the same everywhere."""
    recipe = ImageClassifierRecipe.model_validate({"backbone": backbone, **sections})
    network = build_image_classifier(recipe, 1, LABELS).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return network


def images() -> torch.Tensor:
    return torch.tensor(PIXELS).permute(2, 0, 1)[None] / 128.0 - 1


def maps_of(model: ImageClassifier) -> ImageMaps:
    return ImageMaps(PIXELS, "owl", image_maps(model, images()).maps, "owl")


# ---- what the maps are -----------------------------------------------------------------------------------


def test_maps_are_those_that_look_gives_for_what_the_block_was_given() -> None:
    model = made(CONVOLUTIONAL)
    maps, network = maps_of(model), model.backbone
    with torch.no_grad():
        x, _ = network.convolutions[0](images(), None)
        looked = network.after[0][0].look(x)
        second = network.after[0][1].look(looked.features)
    first = "stage 1, unit 1, after, cbam"
    for kind in ("channel", "place"):
        assert_close(maps[f"{first}: {kind}"].weights, looked.maps[kind].weights)
        assert_close(maps[f"{first}: {kind} (2)"].weights, second.maps[kind].weights)
    assert [name for name in maps if "pam" in name] == ["stage 2, unit 1, after, pam: affinity"]
    assert len(maps) == 2 * 4 + 1 + 1 and [*maps][-1] == "Grad-CAM"


def test_gates_times_the_input_are_the_output_of_the_block() -> None:
    model = made(CONVOLUTIONAL)
    seen: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
    block = model.backbone.after[1][0]
    block.register_forward_hook(lambda _, given, result: seen.update({block: (given[0], result)}))
    maps = maps_of(model)
    given, result = seen[block]
    gate = (
        maps["stage 2, unit 1, after, cbam: channel"].weights
        * maps["stage 2, unit 1, after, cbam: place"].weights
    )
    assert_close(given * gate, result)


class Doubled(Block):
    """A block that calls another."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.inner = BLOCKS["se"](channels)

    def attend(self, x: torch.Tensor, mask: torch.Tensor | None, need_weights: bool) -> Looked:
        return Looked(2 * self.inner(x, mask), self.inner.look(x, mask).maps)


def test_blocks_within_blocks_have_no_maps_of_their_own() -> None:
    model = made({"kind": "convolutional", "sizes": [8]})
    model.backbone.after[0].append(Doubled(8))
    assert [*maps_of(model)] == ["stage 1, unit 1, after, Doubled: channel", "Grad-CAM"]


def test_the_network_stays_as_it_was() -> None:
    model = made({**VIT, "dropout": 0.5}, pooling={"kind": "attention"})
    with torch.no_grad():
        before = model(images()).scores
        seen = image_maps(model, images())
        assert_close(seen.output.scores, before)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not seen.output.scores.requires_grad and not seen.output.weights.requires_grad


def test_self_attention_is_the_softmax_of_the_projections() -> None:
    model = made(VIT)
    layer = model.backbone.encoder.layers[0]
    with torch.no_grad():
        vectors, _, grid = model.backbone.embedding(images(), None)
        x = layer.self_attention_residual.enter(vectors)
        query, key = (
            part(x).unflatten(-1, (3, 4)).transpose(1, 2)
            for part in (layer.self_attention.query, layer.self_attention.key)
        )
    map = maps_of(model)["layer 0, self-attention"]
    assert_close(map.weights, (query @ key.mT / 2).softmax(-1))
    assert map.grid == map.keys == grid == (3, 4)


def test_pooling_has_a_map_for_each_query_and_a_mean_has_none() -> None:
    model = made(VIT, pooling={"kind": "attention", "queries": 2})
    maps = maps_of(model)
    with torch.no_grad():
        weights = model(images(), need_weights=True).weights
    for number in range(2):
        map = maps[f"pooling {number}"]
        assert_close(map.weights.flatten(), weights[0, number])
        assert map.distribution and map.weights.shape == (1, 1, 3, 4)
    assert not [name for name in maps_of(made(VIT)) if "pooling" in name]


def test_rollout_is_the_product_of_the_layers_with_the_identity() -> None:
    layers = torch.rand(2, 3, 5, 5)
    expected = np.eye(5)
    for heads in layers.double().numpy():
        mean = sum(heads) / 3
        mixed = np.array([(mean[i] + np.eye(5)[i]) / (mean[i].sum() + 1) for i in range(5)])
        expected = mixed.dot(expected)
    assert_close(rollout([*layers]).double().numpy(), expected, atol=1e-6, rtol=1e-5)
    maps = maps_of(made(VIT))
    attentions = [maps[f"layer {number}, self-attention"].weights[0] for number in range(2)]
    assert_close(maps["rollout"].weights[0, 0], rollout(attentions))
    assert_close(maps["rollout"].total(), torch.ones(1, 1, 12))
    titles = [axes.get_title(loc="left") for axes in maps.draw(PlotOptions(map="rollout", head=0)).axes]
    assert [title for title in titles if title.startswith("rollout, mean of queries\n")]  # it has no heads


@pytest.mark.parametrize("label", [None, 0, 1])
def test_grad_cam_of_mean_and_linear_layer_is_cam_over_the_number_of_positions(label: int | None) -> None:
    model = made({"kind": "convolutional", "sizes": [4, 6]}).double()
    with torch.no_grad():
        states = model.backbone(images().double())[-1].states[0]
        index = int(model(images().double()).scores.argmax()) if label is None else label
    cam = torch.einsum("c,chw->hw", model.output.weight.detach()[index], states)
    seen = image_maps(model, images().double(), label).maps[-1].map
    assert_close(seen.weights[0, 0].double(), F.relu(cam) / cam.numel(), atol=1e-7, rtol=1e-6)
    assert seen.weights.any() or not (cam > 0).any()


# ---- what is drawn ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "size"), [((3, 5), (18, 24)), ((1, 4), (7, 9)), ((6, 1), (6, 1)), ((9, 9), (4, 5))]
)
def test_maps_are_enlarged_bilinearly_to_the_exact_size(grid: tuple[int, int], size: tuple[int, int]) -> None:
    weights = torch.randn(grid, dtype=torch.float64)
    expected = F.interpolate(weights[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    assert_close(enlarged(weights.numpy(), size), expected.numpy())


@pytest.mark.parametrize(
    ("scale", "limits"), [("fixed", (0.0, 1.0)), ("auto", (0.0, 0.514)), ("range", (0.5, 0.514))]
)
def test_a_scale_is_the_users_and_the_range_is_written(scale: str, limits: tuple[float, float]) -> None:
    figure = picture(PIXELS, "owl", [Overlay("gate", [[0.5, 0.514]], scale)])
    _, axes, _ = figure.axes
    assert axes.images[-1].get_clim() == limits
    assert axes.get_title(loc="left") == "gate\n0.5 to 0.514"
    assert axes.images[-1].get_array().shape == (198, 264)


def test_a_scale_reaches_beyond_0_and_1_where_weights_do() -> None:
    panels = [
        Overlay("a", [[-2.0, 3.0]], "fixed"),
        Bars("b", [[0.0, 0.0]], "auto"),
        Matrix("c", [[0.25]], "auto"),
    ]
    _, over, _, bars, matrix, _ = picture(PIXELS, "owl", panels).axes
    assert over.images[-1].get_clim() == (-2.0, 3.0)
    assert bars.get_ylim() == (0.0, 1.0) and matrix.images[0].get_clim() == (0.0, 0.25)


def test_bars_of_branches_are_as_high_as_the_weights() -> None:
    weights = np.array([[0.25, 0.5, 1.0], [0.75, 0.5, 0.0]])
    axes = picture(PIXELS, "owl", [Bars("branch", weights, "fixed")]).axes[1]
    for patch, row in zip(axes.patches, weights, strict=True):
        values, edges, _ = patch.get_data()
        assert len(edges) == len(values) + 1
        assert [value for value in values if value] == [value for value in row if value]


def test_every_kind_of_map_is_drawn() -> None:
    maps = maps_of(made(RESNET))
    assert {map.kind for map in maps.values()} == {
        *("affinity", "branch", "channel", "channels", "columns", "full", "place", "rows")
    }
    figure = maps.draw(PlotOptions(map="all", query=(5, 7)))
    titles = [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes]
    assert any(re.search(r"mhsa: affinity, mean of 4 heads, query 5,7 [\d.]+ to", title) for title in titles)
    assert any("lka: full, mean of 32 channels" in title for title in titles)
    assert any(title.startswith("Grad-CAM of owl") for title in titles)


def test_a_query_is_a_pixel_of_the_image_before_it_is_resized() -> None:
    """A dot in a large image is on the same position as the pixel of the query, however images are resized."""
    for size, resize in [((16, 16), "crop"), ((16, 16), "fit"), ((16, 12), "stretch"), ((40, 40), "shrink")]:
        reader = ImageReader("grey", size, resize)
        for x, y in [(50, 30), (37, 12), (64, 47)]:
            pixels = np.zeros((60, 90, 1), np.uint8)
            pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
            read = ReadImage(reader.read(pixels), reader.geometry(60, 90)[0], (60, 90))
            row, column = np.unravel_index(read.pixels[..., 0].argmax(), read.pixels.shape[:2])
            found = read.pixel(x, y)
            assert abs(found[0] - column) <= 1 and abs(found[1] - row) <= 1
    middle = ImageReader("grey", (16, 16), "crop")
    read = ReadImage(middle.read(pixels), middle.geometry(60, 90)[0], (60, 90))
    assert read.pixel(15, 0) == (0, 0) and read.pixel(74, 59) == (15, 15)
    with pytest.raises(Seq2attnError, match=r"which data\.resize crops: x from 15 to 74 and y from 0 to 59"):
        read.pixel(14, 30)
    with pytest.raises(
        Seq2attnError, match="x from 0 to 89 and y from 0 to 59, a pixel of the image; got 90,3"
    ):
        read.pixel(90, 3)


def test_a_query_is_the_row_of_the_position_over_its_pixel() -> None:
    maps = maps_of(made(VIT))  # a grid of 3 x 4 over 18 x 24 pixels
    whole = maps["layer 1, self-attention"].weights[0]
    at = {"map": "affinity", "at": "layer 1", "head": 2}
    for query, position in [((0, 0), 0), ((5, 5), 0), ((6, 5), 1), ((23, 17), 11), ((12, 6), 6)]:
        (panel,) = maps._panels(maps.chosen(PlotOptions(**at))[0], PlotOptions(query=query, head=2))
        assert_close(torch.tensor(panel.weights).flatten(), whole[2, position])
        assert panel.marked
    (panel,) = maps._panels(maps.chosen(PlotOptions(**at))[0], PlotOptions())
    assert_close(torch.tensor(panel.weights).flatten(), whole.mean((0, 1)))


def test_what_is_drawn_is_what_the_network_has() -> None:
    def kinds(model: ImageClassifier, **options: object) -> list[str]:
        return sorted({made.choice for made in maps_of(model).chosen(PlotOptions(**options))})

    assert kinds(made(CONVOLUTIONAL)) == ["place"]
    assert kinds(made(CONVOLUTIONAL, pooling={"kind": "attention"})) == ["pooling"]
    assert kinds(made(VIT)) == ["gradcam"]
    assert kinds(made(VIT), map="all") == ["affinity", "gradcam", "rollout"]
    assert kinds(made(CONVOLUTIONAL), at="stage 2") == ["affinity", "channel", "place"]
    assert kinds(made(CONVOLUTIONAL), at="backbone.after.0.1", map="channel") == ["channel"]


def test_faults_of_a_choice_say_what_there_is() -> None:
    maps = maps_of(made(CONVOLUTIONAL))
    for options, message in [
        ({"map": "affinty"}, "unknown map 'affinty': expected one of pooling, place"),
        ({"map": "rollout"}, "no map of the kind rollout; it has place, channel, affinity, gradcam"),
        (
            {"at": "stage 9"},
            r"no map is at 'stage 9'[^$]*stage 1, unit 1, after, cbam: place \(backbone.after.0.0\)",
        ),
        ({"map": "place", "query": (1, 1)}, "choose the map affinity or rollout"),
        ({"map": "affinity", "query": (24, 0)}, "x from 0 to 23 and y from 0 to 17, .* got 24,0"),
        ({"map": "affinity", "query": (0, -1)}, "got 0,-1"),
        ({"scale": "wide"}, "expected one of the scales fixed, auto, range; got 'wide'"),
    ]:
        with pytest.raises(Seq2attnError, match=message):
            maps.draw(PlotOptions(**options))
    with pytest.raises(Seq2attnError, match=r"layer 0, self-attention has 3 heads, .* got head 3"):
        maps_of(made(VIT)).draw(PlotOptions(map="affinity", head=3))


def test_a_picture_refuses_what_it_cannot_show() -> None:
    for weights in ([[0.0, float("nan")]], [], [0.5]):
        with pytest.raises(PlotError, match="finite weights"):
            picture(PIXELS, "owl", [Overlay("gate", weights, "auto")])
    with pytest.raises(PlotError, match="at most 60 maps, got 61: choose some by map or at"):
        picture(PIXELS, "owl", [Overlay("gate", [[0.5]], "auto")] * 61)
