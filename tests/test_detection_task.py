"""Object detection from recipe to result: training, scoring, checking, finding objects, and their pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_boxes
import tiny_cli
import tiny_runs
import torch
from PIL import Image

import seq2attn
from seq2attn.data.coco_ids import category_ids
from seq2attn.errors import Seq2attnError
from seq2attn.inference.detector import MOST, Detector, best_boxes
from seq2attn.inference.predictor import PlotOptions
from seq2attn.runs.dry_run import check
from seq2attn.runs.evaluation import score_run
from seq2attn.runs.training_run import Trained
from seq2attn.tasks.detection import DetectionTask
from seq2attn.tasks.loading import reopen
from seq2attn.training.run_folder import RunFolder, Version

SE = [{"block": "se", "at": "after", "stages": [3]}]
BACKBONE = {"kind": "convolutional", "sizes": [8, 16, 32], "norm": "group", "blocks": SE}
HEADS: dict[str, dict[str, Any]] = {
    "points": {"kind": "points", "grids": 1, "width": 24, "bins": 6, "norm": "group"},
    "queries": {"kind": "queries", "queries": 6, "size": 32, "feed_forward": 32},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boxes")
    tiny_boxes.write_scenes(folder, {"train": 4, "dev": 3, "test": 2}, height=48, width=60)
    return folder


def recipe(images: Path, head: str = "points", **training: Any) -> dict[str, Any]:
    tables = {role: {"table": str(images / f"{role}.jsonl")} for role in ("train", "dev", "test")}
    steps = {"learning_rate": 0.01, "batch_images": 4, "max_steps": 2, "validate_every": 2, "log_every": 1}
    return {
        "name": "rectangles",
        "task": "detection",
        "data": {**tables, "size": [32, 32]},  # so the network sees 26 x 32 pixels
        "model": {"backbone": BACKBONE, "head": HEADS[head]},
        "training": {**steps, **training},
    }


def train(sections: dict[str, Any], run: Path, **options: Any) -> Trained:
    return seq2attn.train(sections, run, display=tiny_runs.silent(), device="cpu", **options)


@pytest.fixture(scope="module")
def overfitted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows its four images, which are its dev and test sets, too."""
    steps = {"schedule": {"name": "cosine", "warmup": 10}, "max_steps": 120, "validate_every": 120}
    sections = recipe(images, metrics=["ap", "ap50"], **steps)
    for role in ("dev", "test"):
        sections["data"][role] = sections["data"]["train"]
    return train(sections, tmp_path_factory.mktemp("runs") / "rectangles").run


@pytest.fixture(scope="module")
def model(overfitted: Path) -> Detector:
    return seq2attn.load(overfitted, device="cpu", kind=Detector)


@pytest.fixture(scope="module")
def queries(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe(images, "queries"), tmp_path_factory.mktemp("runs") / "queries").run


def gold(images: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (images / "train.jsonl").read_text().splitlines()]


# ---- training and scores ---------------------------------------------------------------------------------


def test_a_few_rectangles_are_learned_by_heart(overfitted: Path) -> None:
    scores = score_run(overfitted, device="cpu").evaluation
    assert scores.scores["ap50"].value > 90, scores.scores
    assert "iou:.50" in scores.scores["ap50"].signature and scores.scores["ap50"].low is not None
    assert "red" in str(scores.tables["boxes"])


def test_a_log_has_the_parts_of_the_loss_and_no_perplexity(overfitted: Path) -> None:
    update, *_, validation = tiny_runs.log(overfitted)
    assert {"box", "distances", "classes", "loss"} <= update.keys()
    assert validation.keys() == {"step", "loss", "ap", "ap50"}


def test_a_trained_run_is_scored_in_pixels_of_the_originals(overfitted: Path, model: Detector) -> None:
    """The objects themselves, as detections, have AP 100; in the pixels that the network reads they have not."""
    task = reopen(RunFolder.open(overfitted))
    examples = task.examples("test")

    class Perfect(Detector):
        def detections(self, images: Any, threshold: float = 0.0) -> Any:
            for row, _ in enumerate(images):
                objects = examples.objects(row)
                yield tiny_boxes_detections(objects.boxes, objects.labels)

    perfect = Perfect(model.model, task.recipe.data)
    assert task.evaluate(perfect, examples, ["ap"]).scores["ap"].value == pytest.approx(100)


def tiny_boxes_detections(boxes: Any, labels: Any) -> Any:
    from seq2attn.metrics.detection import Detections

    return Detections(boxes, labels, np.ones(len(labels)))


def test_a_resumed_run_ends_with_the_same_weights(images: Path, tmp_path: Path) -> None:
    sections = recipe(images, max_steps=4, ema=0.9)
    sections["data"]["augment"] = ["mosaic", "flip"]
    whole = train(sections, tmp_path / "whole").run
    train(sections, tmp_path / "part", overrides=["training.max_steps=2"])
    part = train(sections, tmp_path / "part", resume=True).run
    assert tiny_runs.weights_hash(part) == tiny_runs.weights_hash(whole)


def test_images_without_boxes_are_trained_and_scored_on(images: Path, tmp_path: Path) -> None:
    rows = [{**row, "boxes": [], "labels": []} for row in gold(images)]
    content = "".join(json.dumps(row) + "\n" for row in [*rows, *gold(images)])
    (images / "some.jsonl").write_text(content)
    sections = recipe(images, batch_images=1)
    for role in ("train", "dev"):
        sections["data"][role] = {"table": str(images / "some.jsonl")}
    trained = train(sections, tmp_path / "run")
    assert trained.progress.step == 2 and trained.scores[0].value >= 0


def test_a_metric_without_an_object_of_its_size_is_left_out_of_validations(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images are of 48 x 60 pixels: none of their objects is large."""
    sections = recipe(images, metric="ap", metrics=["ap", "ap-large"])
    trained = seq2attn.train(sections, tmp_path / "run", device="cpu")
    assert tiny_runs.log(trained.run)[-1].keys() == {"step", "loss", "ap"}
    assert [score.name for score in trained.scores] == ["AP"]
    assert (
        "ap-large is left out of validations, as it has no value on data.dev: no image has large objects"
        in (" ".join(capsys.readouterr().err.split()))
    )
    evaluation = score_run(trained.run, ["ap-large", "ap50"], device="cpu").evaluation
    assert [*evaluation.scores] == ["ap50"]
    assert evaluation.undefined == {"ap-large": "no image has large objects to find"}
    with pytest.raises(Seq2attnError, match="ap-large has no value: no image has large objects to find"):
        score_run(trained.run, ["ap-large"], device="cpu")


def test_the_metric_that_chooses_needs_an_object_before_training(images: Path, tmp_path: Path) -> None:
    sections = recipe(images, metric="ap-large")
    words = (
        "training.metric: ap-large has no value on data.dev, so choose another: no image has large objects"
    )
    with pytest.raises(Seq2attnError, match=words):
        list(check(seq2attn.recipe.read(sections), device="cpu"))
    with pytest.raises(Seq2attnError, match=words):
        train(sections, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_check_reports_boxes_and_what_no_point_can_predict(images: Path) -> None:
    def report(head: dict[str, Any]) -> str:
        sections = recipe(images)
        sections["model"] = {"backbone": {"kind": "convolutional", "sizes": [8]}, "head": head}
        return "\n".join(text for _, text in check(seq2attn.recipe.read(sections), device="cpu"))

    of_points = report({**HEADS["points"], "bins": 3})
    assert "red" in of_points and "up to" in of_points
    assert "a side of more than 4 pixels, which no point can predict: raise model.head.bins" in of_points
    assert "raise model.head.queries" in report({**HEADS["queries"], "queries": 1})


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"kind": "points", "grids": 4}, "the network has 3 grids, got 4"),
        ({"kind": "queries", "grid": 3}, "the network has 3 grids, 0 to 2; got 3"),
        ({"kind": "queries", "size": 30}, "4 heads do not divide the size 30"),
        ({"kind": "queries", "positions": "sinusoidal"}, "expected positions of rows and columns"),
        ({"kind": "queries", "cross_attention": {"score": "coverage", "heads": 4}}, "head.cross_attention"),
    ],
    ids=str,
)
def test_a_head_that_does_not_fit_is_a_fault(images: Path, head: dict[str, Any], words: str) -> None:
    sections = recipe(images)
    sections["model"]["head"] = head
    with pytest.raises(Seq2attnError, match=words.replace("(", r"\(")):
        seq2attn.recipe.read(sections)


# ---- finding objects -------------------------------------------------------------------------------------


def test_boxes_are_in_pixels_of_the_image_as_it_is(images: Path, model: Detector) -> None:
    """Though the network reads it resized."""
    overlaps = []
    for row in gold(images):
        found = model.detect(str(images / row["image"]))
        for box, label in zip(row["boxes"], row["labels"], strict=True):
            same = [one.box for one in found.objects if one.label == label]
            overlaps.append(max((iou(box, other) for other in same), default=0.0))
    assert np.mean(np.array(overlaps) > 0.5) > 0.8 and len(overlaps) > 5


def iou(a: Any, b: Any) -> float:
    sides = [min(a[axis + 2], b[axis + 2]) - max(a[axis], b[axis]) for axis in (0, 1)]
    both = max(0.0, sides[0]) * max(0.0, sides[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(both / (sum(areas) - both))


def test_an_image_has_the_same_objects_in_a_list(images: Path, model: Detector) -> None:
    random = np.random.default_rng(2)
    scenes: list[Any] = [
        tiny_boxes.scene(random, height, width)[0] for height, width in ((48, 60), (60, 40), (20, 60))
    ]
    together = model.detect(scenes, threshold=0.05)
    assert sum(map(len, together)) > 2
    for scene, found in zip(scenes, together, strict=True):
        alone = model.detect(scene, threshold=0.05)
        assert [one.label for one in alone.objects] == [one.label for one in found.objects]
        np.testing.assert_allclose(
            [one.score for one in alone.objects], [one.score for one in found.objects], atol=1e-5
        )
        for one, other in zip(alone.objects, found.objects, strict=True):
            np.testing.assert_allclose(one.box, other.box, atol=1e-2)


def test_the_command_prints_results_as_coco_has_them(images: Path, overfitted: Path, model: Detector) -> None:
    file = str(images / "train0.png")
    lines = [json.loads(line) for line in tiny_cli.run("detect", str(overfitted), file).stdout.splitlines()]
    found = model.detect(file)
    assert len(lines) == len(found) > 0
    for line, one in zip(lines, found.objects, strict=True):
        left, top, right, bottom = one.box
        assert (
            line["image_id"] == "train0"
            and model.labels[line["category_id"] - 1] == one.label == line["label"]
        )
        assert line["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=0.01)
        assert line["score"] == pytest.approx(one.score, abs=1e-4)
    assert str(found) in repr(found) and found.to_json()["objects"][0]["label"] == found.objects[0].label


def test_the_command_draws_pictures(images: Path, overfitted: Path, tmp_path: Path) -> None:
    files = [str(images / f"train{number}.png") for number in range(2)]
    lines = tiny_cli.run("detect", str(overfitted), *files, "-o", str(tmp_path / "found")).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == files
    for number in range(2):
        with Image.open(tmp_path / "found" / f"train{number}.boxes.png") as picture:
            assert picture.mode == "RGB" and picture.size[0] % 60 == 0
    with pytest.raises(Seq2attnError, match=r"ends in \.png"):
        seq2attn.load(overfitted, device="cpu").detect(files[0]).plot(tmp_path / "found.gif")


def test_the_command_refuses_two_pictures_of_one_name(images: Path, overfitted: Path, tmp_path: Path) -> None:
    file = str(images / "train0.png")
    status, message = tiny_cli.fails("detect", str(overfitted), file, file, "-o", str(tmp_path))
    assert status == 1 and "2 images are called train0" in message


def test_no_command_overwrites_an_image_that_it_reads(
    images: Path, overfitted: Path, queries: Path, tmp_path: Path
) -> None:
    file, drawn = tmp_path / "cell.png", tmp_path / "cell.boxes.png"
    file.write_bytes(content := (images / "train0.png").read_bytes())
    tiny_cli.run("detect", str(overfitted), str(file), "-o", str(tmp_path))
    assert file.read_bytes() == content and (before := drawn.read_bytes()) != content
    status, message = tiny_cli.fails("detect", str(overfitted), str(file), str(drawn), "-o", str(tmp_path))
    assert status == 1 and "cell.boxes.png is an input" in message and drawn.read_bytes() == before
    beside = tmp_path / "beside.png"
    beside.symlink_to(file)
    status, message = tiny_cli.fails("heatmap", str(queries), str(file), "-o", str(beside))
    assert status == 1 and "would be overwritten" in message and file.read_bytes() == content


def test_results_have_the_ids_of_files_of_coco(images: Path, overfitted: Path, tmp_path: Path) -> None:
    colours = {"red": 90, "green": 2, "blue": 18, "grey": 1}
    folders = [tmp_path / name for name in ("a", "b")]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "7.png").write_bytes((images / f"train{number}.png").read_bytes())
    files = [str(folder / "7.png") for folder in folders]
    content = {
        "images": [{"id": 30, "file_name": "a/7.png"}, {"id": 40, "file_name": "b/7.png"}],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in colours.items()],
    }
    (coco := tmp_path / "instances.json").write_text(json.dumps(content))
    given = ["detect", str(overfitted), *files]
    lines = [json.loads(line) for line in tiny_cli.run(*given, "--coco", str(coco)).stdout.splitlines()]
    assert {line["image_id"] for line in lines} == {30, 40} and len({line["label"] for line in lines}) > 1
    assert all(line["category_id"] == colours[line["label"]] for line in lines)
    status, message = tiny_cli.fails(*given)
    assert status == 1 and "a/7.png and" in message and "b/7.png would both have the image_id 7" in message
    assert len(tiny_cli.run(*given, "--format", "text").stdout.splitlines()) == 2
    status, message = tiny_cli.fails(*given[:2], str(images / "train0.png"), "--coco", str(coco))
    assert status == 1 and "has no image with this file_name" in message
    content["images"][1:] = [{"id": 40}, {"id": 5, "file_name": "c/7.png"}]
    coco.write_text(json.dumps(content))
    assert "has no image with" not in (message := tiny_cli.fails(*given, "--coco", str(coco))[1])
    assert "2 images of this file_name" in message


def test_a_run_keeps_the_category_ids_of_its_corpora(images: Path, overfitted: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (images / "train.jsonl").read_text().splitlines()]
    colours = {"red": 90, "green": 2, "blue": 18}
    boxes = [
        {"image_id": number, "category_id": colours[label], "bbox": [x, y, right - x, bottom - y]}
        for number, row in enumerate(rows)
        for (x, y, right, bottom), label in zip(row["boxes"], row["labels"], strict=True)
    ]
    content = {
        "images": [{"id": number, "file_name": row["image"]} for number, row in enumerate(rows)],
        "annotations": boxes,
        "categories": [{"id": number, "name": name} for name, number in colours.items()],
    }
    (images / "instances.json").write_text(json.dumps(content))
    sections = recipe(images)
    corpus = {"coco": str(images / "instances.json")}
    normalize = {"mean": [0.5] * 3, "std": [0.5] * 3}
    sections["data"] |= {"train": corpus, "dev": corpus, "test": None, "normalize": normalize}
    task = DetectionTask.learn(seq2attn.recipe.read(sections))
    folder = RunFolder.create(tmp_path / "run", task.recipe, Version(), task.files())
    again = reopen(RunFolder.open(folder.path))
    detector = again.predictor(again.build(), torch.device("cpu"))
    assert detector.category_ids == {name: colours[name] for name in detector.labels}
    found = detector.detect(images / "train0.png", threshold=0)
    assert {(line["label"], line["category_id"]) for line in found.to_coco()} <= {*colours.items()}
    assert seq2attn.load(overfitted, device="cpu").category_ids == {"blue": 1, "green": 2, "red": 3}
    assert category_ids(["a", "b", "c"], {"b": 1}, {"a": 1, "c": 7}) == {"b": 1, "c": 7, "a": 8}


def test_the_command_has_both_formats(images: Path, overfitted: Path, tmp_path: Path) -> None:
    given = ["detect", str(overfitted), str(images / "train0.png")]
    printed = tiny_cli.run(*given).stdout
    assert tiny_cli.run(*given, "--format", "json", "-o", str(tmp_path)).stdout == printed
    assert (tmp_path / "train0.boxes.png").exists()
    assert tiny_cli.run(*given, "--format", "text").stdout == tiny_cli.run(*given, "-o", str(tmp_path)).stdout


def test_other_commands_name_the_right_one(overfitted: Path, model: Detector) -> None:
    assert "use `seq2attn detect`" in tiny_cli.fails("classify", str(overfitted), __file__)[1]
    with pytest.raises(Seq2attnError, match="use its method detect"):
        model.classify("x.png")  # type: ignore[attr-defined]
    with pytest.raises(Seq2attnError, match="from 0 to 1"):
        model.detect("x.png", threshold=2)
    status, message = tiny_cli.fails("score", str(overfitted), "--source", __file__, "--references", __file__)
    assert status == 1 and "boxes are no texts" not in message and "images with boxes" in message


def test_the_best_boxes_are_few_solid_and_sorted() -> None:
    generator = torch.Generator().manual_seed(4)
    low = torch.rand(500, 2, generator=generator) * 400
    boxes = torch.cat([low, low + 1 + torch.rand(500, 2, generator=generator)], 1)
    boxes[7, 2] = boxes[7, 0]  # empty
    scores = torch.rand(500, 2, generator=generator)
    found, classes, values = best_boxes(boxes, scores, 0.2, suppress=False)
    assert len(found) == MOST and values.tolist() == sorted(values.tolist(), reverse=True)
    assert {*classes.tolist()} == {0, 1} and (found[:, 2] > found[:, 0]).all() and values.min() > 0.2


# ---- maps ------------------------------------------------------------------------------------------------


def test_heat_maps_show_blocks_and_where_queries_attend(images: Path, queries: Path, tmp_path: Path) -> None:
    file, out = str(images / "train0.png"), tmp_path / "maps.json"
    tiny_cli.run("heatmap", str(queries), file, "-o", str(out), "--map", "all")
    maps = {made["name"]: made for made in json.loads(out.read_text())["maps"]}
    assert any("se: " in name for name in maps)
    of_query = next(made for name, made in maps.items() if name.startswith("query "))
    assert of_query["module"].startswith("head.queries.") and of_query["grid"] == [7, 8]
    assert np.sum(of_query["weights"]) == pytest.approx(1, abs=1e-3)
    tiny_cli.run("heatmap", str(queries), file, "-o", str(tmp_path / "maps.png"))
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_pictures_of_maps_show_the_objects_and_the_numbers_of_the_original(
    images: Path, model: Detector
) -> None:
    result, figure = model.draw(images / "train0.png")
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert (
        len(result) and max(shown.shape) >= 480 and shown.shape[0] % 26 == 0
    )  # read as 26 x 32, then enlarged
    maps = model.maps(images / "train0.png")
    assert not np.array_equal(shown, maps.pixels.repeat(15, 0).repeat(15, 1))
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["0", "59"]  # of 60 x 48
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["0", "47"]
    with pytest.raises(Seq2attnError, match=r"no map of the kind gradcam \(Grad-CAM is for classification\)"):
        model.draw(images / "train0.png", PlotOptions(map="gradcam"))
