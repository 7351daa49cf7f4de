"""Segmentation from recipe to result: training, scoring, pictures, heat maps, and images of several sizes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_cli
import tiny_runs
import torch
from PIL import Image
from torch.testing import assert_close

import seq2attn
from seq2attn.errors import Seq2attnError
from seq2attn.inference.segmenter import Segmenter, restored
from seq2attn.metrics.segmentation import confusion
from seq2attn.runs.dry_run import check
from seq2attn.runs.training_run import Trained
from seq2attn.views.masks import blended, legend_picture, palette

CLASSES = ["background", "square", "disc"]
NETWORK = {"kind": "unet", "base": 6, "levels": 3, "decoder_blocks": [{"block": "scse", "stages": [1]}]}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red squares and green discs on blue, in images of several sizes, with some pixels that do not count."""
    folder, random = tmp_path_factory.mktemp("shapes"), np.random.default_rng(8)
    rows = []
    for number in range(6):
        height, width = random.integers(16, 25, size=2).tolist()
        mask, (y, x) = np.zeros((height, width), np.uint8), np.mgrid[:height, :width]
        mask[2:8, 2 + number % 3 : 8 + number % 3] = 1
        mask[(y - height + 6) ** 2 + (x - width + 7) ** 2 < 17] = 2
        colours = np.array([[20, 40, 200], [200, 40, 40], [60, 190, 60]])[mask]
        pixels = (colours + random.integers(-15, 15, colours.shape)).clip(0, 255).astype(np.uint8)
        mask[0] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"{number}_mask.png")
        rows.append({"image": f"{number}.png", "mask": f"{number}_mask.png"})
    (folder / "shapes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe(images: Path, **data: Any) -> dict[str, Any]:
    table = {"table": str(images / "shapes.jsonl")}
    return {
        "name": "shapes",
        "task": "segmentation",
        "data": {"train": table, "dev": table, "test": table, "classes": CLASSES, **data},
        "model": NETWORK,
        "training": {
            "max_steps": 40, "batch_images": 6, "learning_rate": 0.02, "schedule": "constant", "dice": 0.5,
            "validate_every": 40, "metrics": ["miou", "pixel-accuracy", "dice"],
        },
    }  # fmt: skip


def train(sections: dict[str, Any], run: Path, *overrides: str, **options: Any) -> Trained:
    return seq2attn.train(
        sections, run, list(overrides), **{"display": tiny_runs.silent(), "device": "cpu", **options}
    )


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe(images), tmp_path_factory.mktemp("runs") / "shapes").run


@pytest.fixture(scope="module")
def model(run: Path) -> Segmenter:
    return seq2attn.load(run, device="cpu", kind=Segmenter)


def test_a_small_network_learns_six_images_by_heart(images: Path, model: Segmenter) -> None:
    for number in range(6):
        truth = np.asarray(Image.open(images / f"{number}_mask.png"))
        result = model.segment(images / f"{number}.png")
        assert result.mask.shape == truth.shape
        assert (result.mask == truth)[truth < 3].mean() > 0.97
        assert result.probabilities is not None
        assert_close(result.probabilities.sum(0), torch.ones(truth.shape))
        assert np.array_equal(result.probabilities.argmax(0), result.mask)
    assert repr(result).startswith("Segmentation(") and str(result).startswith("background ")
    assert result.mask_of("disc").sum() == (result.mask == 2).sum()
    assert result.shares["disc"] == pytest.approx((result.mask == 2).mean())
    assert "<img" in result._repr_html_() and result.to_json()["width"] == result.mask.shape[1]


def test_an_image_has_the_same_result_in_any_company(images: Path, model: Segmenter) -> None:
    paths = [images / f"{number}.png" for number in range(6)]
    for path, together in zip(paths, model.segment(paths), strict=True):
        assert_close(together.probabilities, model.segment(path).probabilities, atol=1e-5, rtol=1e-4)
        assert together.name == str(path)
    assert model.segment(paths[0], probabilities=False).probabilities is None
    grey = np.zeros((1, 3), np.uint8)  # any size, and from memory
    assert model.segment(grey).mask.shape == (1, 3)


def test_a_run_is_scored_by_one_matrix_in_the_size_of_the_images(
    images: Path, run: Path, model: Segmenter
) -> None:
    report = json.loads(tiny_cli.run("score", str(run), "--device", "cpu", "--format", "json").output)
    total = np.zeros((3, 3), int)
    for number in range(6):
        truth = np.asarray(Image.open(images / f"{number}_mask.png"))
        total += confusion(truth, model.segment(images / f"{number}.png").mask, 3)
    iou = total.diagonal() / (total.sum(0) + total.sum(1) - total.diagonal())
    assert report["scores"][0]["name"] == "mIoU"
    assert report["scores"][0]["value"] == pytest.approx(100 * iou.mean())
    assert [row["class"] for row in report["masks"]] == CLASSES
    assert [row["iou"][0] for row in report["masks"]] == pytest.approx((100 * iou).tolist())
    background = 100 * total[0].sum() / total.sum()
    assert report["baselines"]["majority"][1]["value"] == pytest.approx(background)
    assert report["baselines"]["majority"][0]["value"] == pytest.approx(background / 3)
    code, message = tiny_cli.fails("score", str(run), "--metric", "top-1", "--device", "cpu")
    assert code == 1 and "top-1 is a metric of labelled images" in message
    some = images / "some.txt"
    some.write_text("0.png\n")
    code, message = tiny_cli.fails(
        "score", str(run), "--source", str(some), "--references", str(some), "--device", "cpu"
    )
    assert code == 1 and "is scored on images with masks, not on texts" in message


def test_segment_writes_masks_and_overlays(images: Path, run: Path, model: Segmenter, tmp_path: Path) -> None:
    paths = [str(images / f"{number}.png") for number in (0, 1)]
    out = tmp_path / "new" / "masks"
    lines = tiny_cli.run("segment", str(run), *paths, "-o", str(out), "--device", "cpu").output.splitlines()
    assert [line.split("\t")[0] for line in lines] == paths and "square " in lines[0]
    assert sorted(path.name for path in out.iterdir()) == [
        "0.mask.png", "0.overlay.png", "1.mask.png", "1.overlay.png",
    ]  # fmt: skip
    with Image.open(out / "0.mask.png") as mask:
        assert mask.mode == "P" and mask.getpalette()[:6] == [0, 0, 0, *palette(CLASSES)[1]]
        assert np.array_equal(np.asarray(mask), model.segment(paths[0]).mask)
    given = ["segment", str(run), paths[0], "-o", str(out), "--device", "cpu", "--format", "json"]
    line = json.loads(tiny_cli.run(*given).stdout)
    assert line["image"] == paths[0] and line["mask"] == str(out / "0.mask.png") and line["width"] > 0
    code, message = tiny_cli.fails("segment", str(run), paths[0], paths[0], "-o", str(out))
    assert code == 1 and "2 images are called 0" in message


def test_what_a_segmentation_has_not_is_named(images: Path, model: Segmenter, tmp_path: Path) -> None:
    result = model.segment(images / "0.png")
    with pytest.raises(Seq2attnError, match="unknown class 'nix': this model has background, "):
        result.mask_of("nix")
    with pytest.raises(Seq2attnError, match=r"ends in \.png, got 'm\.jpg'"):
        result.save_mask(tmp_path / "m.jpg")
    assert not any(tmp_path.iterdir())


def test_heat_maps_are_those_of_blocks_and_of_a_clicked_point(
    images: Path, run: Path, model: Segmenter, tmp_path: Path
) -> None:
    picture = str(images / "0.png")
    tiny_cli.run("heatmap", str(run), picture, "-o", str(tmp_path / "gates.png"), "--device", "cpu")
    assert list(model.maps(picture)) == ["decoder 1, scse: channel", "decoder 1, scse: place"]
    assert (tmp_path / "gates.png").stat().st_size > 1000
    backbone = {"kind": "resnet", "depth": 8, "width": 0.5, "output_stride": 2}
    sections = recipe(images) | {"model": {"kind": "fcn", "backbone": backbone, "head": "criss_cross"}}
    look = train(sections, tmp_path / "look", "training.max_steps=1").model
    (name,) = list(look.maps(picture))
    assert name.startswith("head.block, criss_cross: ") and look.maps(picture)[name].kind == "affinity"
    numbers = tmp_path / "affinity.json"
    tiny_cli.run(
        "heatmap", str(tmp_path / "look"), picture, "-o", str(numbers), "--query", "3,5", "--device", "cpu"
    )
    assert json.loads(numbers.read_text())["maps"][0]["name"] == name
    clicked = look.draw(picture, seq2attn.inference.predictor.PlotOptions(query=(3, 5)))[1]
    assert any("query 3,5" in axes.get_title(loc="left").replace("\n", " ") for axes in clicked.axes)
    with pytest.raises(Seq2attnError, match="expected a query x,y with x from 0"):
        look.draw(picture, seq2attn.inference.predictor.PlotOptions(query=(300, 5)))


def test_a_network_without_attention_has_no_heat_map(images: Path, tmp_path: Path) -> None:
    plain = train(recipe(images), tmp_path / "run", "training.max_steps=1", "model.decoder_blocks=[]").model
    with pytest.raises(Seq2attnError, match=r"this network has no attention.*key blocks.*a graph, by insert"):
        plain.plot(images / "0.png", tmp_path / "map.png")


def test_first_batches_without_the_class_of_the_metric_do_not_end_a_training(
    images: Path, tmp_path: Path
) -> None:
    """Validation is tried on two batches before the first update; Dice of two classes is that of the second."""
    Image.new("RGB", (16, 16)).save(tmp_path / "image.png")
    masks = np.zeros((5, 16, 16), np.uint8)
    masks[4, :8] = 1
    for number, mask in enumerate(masks):
        Image.fromarray(mask).save(tmp_path / f"{number}.png")
    rows = [{"image": "image.png", "mask": f"{number}.png"} for number in range(5)]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "none.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))
    some, none = ({"table": str(tmp_path / f"{name}.jsonl")} for name in ("some", "none"))
    sections = recipe(images, train=some, dev=some, test=none, classes=["ground", "square"])
    sections["training"] |= {"batch_images": 1, "max_steps": 1, "validate_every": 1, "metric": "dice"}
    trained = train(sections, tmp_path / "run")
    assert tiny_runs.log(trained.run)[-1]["dice"] >= 0
    assert [score.name for score in trained.scores] == [
        "mIoU",
        "pixel-accuracy",
    ]  # the test set has no square
    sections["data"]["dev"] = none
    with pytest.raises(Seq2attnError, match=r"training.metric: dice has no value on data.dev"):
        train(sections, tmp_path / "other")


def test_a_recipe_is_checked(images: Path) -> None:
    lines = dict(check(seq2attn.recipe.read(recipe(images)), device="cpu"))
    assert lines["vocabulary"] == "3 classes" and lines["classes"].startswith("background ")
    assert lines["training"].endswith("pixels/s on cpu")


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(images: Path, tmp_path: Path) -> None:
    augment = [{"name": "random_crop", "size": 12}, "flip"]
    sections = recipe(images, augment=augment) | {"model": {**NETWORK, "dropout": 0.2}}
    for name, steps in (("whole", [4]), ("parts", [2, 4])):
        for part, count in enumerate(steps):
            train(
                sections,
                tmp_path / name,
                f"training.max_steps={count}",
                "training.save_every=2",
                resume=part > 0,
            )
    assert tiny_runs.weights_hash(tmp_path / "whole") == tiny_runs.weights_hash(tmp_path / "parts")


# ---- results in the size of the image --------------------------------------------------------------------


def test_probabilities_go_back_to_the_pixels_that_they_came_from() -> None:
    coarse = torch.rand(2, 3, 4)
    matrix = np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    whole = torch.nn.functional.interpolate(coarse[None], (6, 8), mode="bilinear", align_corners=False)[0]
    assert_close(restored(coarse, matrix, (6, 8)), whole)
    window = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])  # a crop: beyond it, the nearest values
    back = restored(coarse, window, (5, 8))
    assert_close(back[:, 1:4, 2:6], coarse)
    assert_close(back[:, 0, :2], coarse[:, 0, :1].expand(2, 2))


def test_images_that_are_resized_have_masks_of_their_own_size(images: Path, tmp_path: Path) -> None:
    trained = train(recipe(images, size=16, resize="stretch"), tmp_path / "run", "training.max_steps=30")
    truth = np.asarray(Image.open(images / "3_mask.png"))
    mask = trained.model.segment(images / "3.png").mask
    assert mask.shape == truth.shape and (mask == truth)[truth < 3].mean() > 0.9


# ---- pictures --------------------------------------------------------------------------------------------


def test_an_overlay_has_a_legend_of_the_classes_that_there_are() -> None:
    names = [f"class {number}" for number in range(40)]
    colors = palette(names)
    assert len(set(colors)) == 40
    assert palette(["a", "b"], {"b": (1, 2, 3), "a": (9, 9, 9), "ignore": (0, 0, 0)}) == [
        (9, 9, 9),
        (1, 2, 3),
    ]
    mask = np.full((6, 9), 5, np.uint8)
    mask[:2] = 30
    figure = legend_picture(np.zeros((6, 9, 3), np.uint8), mask, names, colors)
    assert [text.get_text() for text in figure.axes[2].texts] == ["class 5", "66.7 %", "class 30", "33.3 %"]


def test_classes_in_black_are_clear_in_an_overlay() -> None:
    pixels = np.full((4, 4, 1), 200, np.uint8)
    mask = np.zeros((4, 4), np.uint8)
    mask[:2] = 1
    over = blended(pixels, mask, [(0, 0, 0), (250, 0, 0)])
    assert (over[2:] == over[3, 3]).all() and np.ptp(over[3, 3]) == 0
    assert (over[0, :, 0] > over[0, :, 1]).all()
