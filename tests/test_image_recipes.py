"""Recipes of labelled images: what they take, and what they say about their faults."""

import inspect
import re
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from seq2attn.images import AUGMENTATIONS
from seq2attn.recipe import (
    RECIPES,
    AnyRecipe,
    ImageDataRecipe,
    LearningRecipe,
    RecipeError,
    Section,
    read,
    write,
)


class PictureRecipe(AnyRecipe):
    task: Literal["pictures"] = Field(description="A task for these tests.")
    data: ImageDataRecipe = Field(description="Labelled images.")
    model: Section = Field(Section(), description="None.")
    training: LearningRecipe = Field(description="None.")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "pictures", PictureRecipe)


def recipe(folder: Path, data: str) -> Path:
    path = folder / "pictures.yaml"
    training = "{max_steps: 1, metric: loss, metrics: []}"
    path.write_text(f"task: pictures\ntraining: {training}\ndata:\n  dev: {{sample: digits}}\n  {data}\n")
    return path


def test_a_recipe_of_images_is_read_and_written(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("t.jsonl", "a.tar", "images.gz", "labels.gz"):
        (tmp_path / name).write_bytes(b"")
    data = read(
        recipe(
            tmp_path,
            "train: [{folder: pictures}, {folder: in/it, archive: a.tar}, {table: t.jsonl, archive: a.tar}, "
            "{idx: [images.gz, labels.gz]}, {dataset: mnist, columns: [image, label]}, {sample: digits}]\n"
            "  size: [32, 48]\n  augment: [flip, {name: crop, padding: 2}]\n"
            "  normalize: {mean: [0, 0, 0], std: [1, 1, 1]}",
        )
    )  # fmt: skip
    assert data.data.shape == (32, 48) and data.data.fixed_size and data.data.num_channels == 3
    folder, inside, table, idx, _, _ = data.data.train
    assert folder.folder == str(tmp_path / "pictures")
    assert (inside.folder, inside.archive) == ("in/it", str(tmp_path / "a.tar"))  # the folder is not here
    assert table.table == str(tmp_path / "t.jsonl") and idx.idx[1] == str(tmp_path / "labels.gz")
    assert [part.name for part in data.data.augment] == ["flip", "crop"]
    write(data, tmp_path / "again.yaml")
    assert read(tmp_path / "again.yaml") == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("train: {folder: gone}", "data.train.folder: no such folder: .*gone"),
        ("train: {folder: x, archive: gone.tar}", "data.train.archive: no such file: .*gone.tar"),
        ("train: {samples: digits}", "unknown key 'samples'"),
        ("train: {sample: digit}", r"unknown 'digit' \(did you mean digits"),
        ("train: {sample: digits}\n  size: 0", "data.size: expected .*, got 0"),
        ("train: {sample: digits}\n  size: [1, 2, 3]", r"data.size: expected .*, got \[1, 2, 3\]"),
        ("train: {sample: digits}\n  resize: squeeze", r"data.resize: unknown 'squeeze'"),
        ("train: {sample: digits}\n  channels: gray", r"data.channels: unknown 'gray' \(did you mean grey"),
        ("train: {sample: digits}\n  augment: [flop]", r"data.augment.0: unknown 'flop' \(did you mean flip"),
        ("train: {sample: digits}\n  augment: {name: crop, padding: 0}", "data.augment.padding: expected .* 1"),
        ("train: {sample: digits}\n  augment: {name: flip, share: 1}", "unknown key 'share'"),
        ("train: {sample: digits}\n  augment: [mixup, flip]", "data.augment: mixup comes last, and once"),
        ("train: {sample: digits}\n  size: 32\n  resize: fit\n  augment: mixup", "data.augment: mixup needs images of one"),
        ("train: {sample: digits}\n  channels: grey\n  normalize: {mean: [0, 0, 0], std: [1]}", "data.normalize.mean: expected a list of 1, .*, got 3"),
        ("train: {sample: digits}\n  normalize: {mean: [0, 0, 0], std: [1, 1, 0]}", "data.normalize.std.*: expected .* 0"),
        ("train: {sample: digits}\n  test: {sample: digits, weight: 2}", "data.test.weight: only training corpora"),
    ],
)  # fmt: skip
def test_faults_are_named(tmp_path, data, message):
    with pytest.raises(RecipeError, match=message):
        read(recipe(tmp_path, data))


DOCS = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
IMAGES = DOCS.partition("\n## Images\n")[2].partition("\n## ")[0]


def test_the_docs_have_every_augmentation_with_its_options():
    rows = dict(re.findall(r"^\| `(\w+)` (\|.*)", IMAGES, re.MULTILINE))
    assert list(rows) == list(AUGMENTATIONS)
    for name, kind in AUGMENTATIONS.items():
        for option, parameter in inspect.signature(kind).parameters.items():
            default = str(parameter.default).removesuffix(".0")
            assert f"`{option}`" in rows[name] and default in rows[name], (name, option)


def test_the_python_of_the_docs_runs(stores, capsys):
    try:
        for block in re.findall(r"```python\n(.*?)```", IMAGES, re.DOTALL):
            exec(block, {})  # noqa: S102 (the docs are ours)
    finally:
        assert AUGMENTATIONS.pop("invert")
    assert capsys.readouterr().out.startswith("2000 (28, 28, 1)")


def test_a_list_of_options_that_is_none_is_told_in_plain_words(corpora: Path) -> None:
    with pytest.raises(RecipeError, match=r"model\.head\.rates: expected a list, got null"):
        read("camvid_se_aspp", ["model.head.rates=null"])


def test_all_faults_of_a_list_of_blocks_are_found_at_once() -> None:
    blocks = "[{block: se, stages: [4]}, {block: cbm}, {block: sk, at: residual}, {block: eca, kernel: 4}]"
    with pytest.raises(RecipeError) as error:
        read("digits", [f"model.backbone.blocks={blocks}"])
    for part in ("0.stages: there are 3", "1.block: unknown 'cbm'", "2.at: sk stands", "3.block: ECA needs"):
        assert f"model.backbone.blocks.{part}" in str(error.value)
    rows = [
        "model.encoder_blocks=[{block: cbm}, {block: eca, kernel: 4}]",
        "model.decoder_blocks=[{block: se, stages: [9]}]",
    ]
    with pytest.raises(RecipeError) as error:
        read("camvid_unet_scse", rows, check_files=False)
    for part in (
        "encoder_blocks.0.block: unknown",
        "encoder_blocks.1.block: ECA",
        "decoder_blocks.0.stages: there",
    ):
        assert f"model.{part}" in str(error.value)
