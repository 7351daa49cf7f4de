"""Recipes that ship: each passes `check` with small local data in the place of its own."""

import gzip
import io
import itertools
import json
import lzma
import os
import re
import socket
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from seq2attn.data.corpora import SAMPLES
from seq2attn.recipe import AnyRecipe, DatasetCorpus, head, read, shipped
from seq2attn.runs.dry_run import check

SPLITS = {"train": ("train", 200), "dev": ("validation", 10), "test": ("test", 10)}
HUB = {  # what a row has besides the columns that are read, which may be within others
    "wmt_bahdanau": {},
    "wmt_transformer": {},
    "iwslt14_transformer": {},
    "cnn_dailymail_pointer": {"id": "42c027e4"},
    "xsum_transformer": {"id": "35232142"},
}
CAMVID = ("unet_scse", "se_aspp", "danet", "criss_cross")
MULTI30K = {"train": "train", "dev": "val", "test": "test_2016_flickr"}
TABLES = {
    "g2p_additive": ("g2p/fre_{}.tsv.gz", "spelling\ts ɔ̃"),
    "scan_additive": ("scan_simple/{}.tsv", "walk\tI_WALK"),
}
SMALLER = {  # sizes that would take too long here; everything else is as it ships
    "wmt_bahdanau": [
        "{encoder,decoder}.embedding=62",
        "{encoder,decoder}.size=100",
        "decoder.readout_size=50",
    ],
    "wmt_transformer": ["{encoder,decoder}.size=64", "{encoder,decoder}.feed_forward=128"],
    "cnn_dailymail_pointer": ["{encoder,decoder}.size=64"],
    "xsum_transformer": ["{encoder,decoder}.size=64", "{encoder,decoder}.feed_forward=128"],
    "mnist_sagan": ["{generator,discriminator}.sizes=[4,4]"],
    "mnist_dcgan": ["{generator,discriminator}.sizes=[4,4]"],
    "cifar10_sagan": ["{generator,discriminator}.sizes=[4,4,4]"],
    "crohme_transformer": ["encoder.backbone.layers=[2]", "{encoder,decoder}.size=64"],
    "camvid_unet_scse": ["levels=2"],
    "nuclei_unet_scse": ["levels=2"],
    **{f"camvid_{net}": ["backbone.width=0.1"] for net in ("se_aspp", "danet", "criss_cross")},
}
PARTED = ("cifar10_resnet20", "cifar10_sagan", "mnist_attention_pooling", "mnist_dcgan", "mnist_sagan")
FEWER = {  # the dev set is a part of the training images; or images are large
    "bccd_yolo": ["data.size=[64, 80]"],
    "bccd_yolo_cbam": ["data.size=[64, 80]"],
    **{name: ["data.train.0.limit=200", "data.dev.skip=200"] for name in PARTED},
}
ENTITIES = "EU NNP I-NP {0}ORG\nrejects VBZ I-VP O\nGerman JJ I-NP {0}MISC\nlamb NN I-NP O\n{1} NN I-NP O\n\n"


def copy_of_mnist(folder: Path) -> None:
    """The four files of MNIST, with 210 and 10 grey images."""
    (folder / "mnist").mkdir()
    for name, count in (("train", 210), ("t10k", 10)):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            head = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
            values = np.resize(np.arange(10, dtype=np.uint8), shape)
            with gzip.open(folder / "mnist" / f"{name}-{kind}-ubyte.gz", "wb") as file:
                file.write(head + values.tobytes())


def copy_of_cifar10(folder: Path) -> None:
    """Its archive, with 210 and 10 empty images of two classes."""
    counts = {"train": 210, "test": 10}
    names = [
        f"{name}/{('cat', 'dog')[n % 2]}/{n:04}.jpg" for name, count in counts.items() for n in range(count)
    ]
    archive_of_images(folder / "cifar10/cifar10-jpg.tar.xz", names, (32, 32))


def copy_of_crohme(folder: Path) -> None:
    for name, count in (("train", 200), ("test2014", 10)):
        names = [f"{name}/{number}.png" for number in range(count)]
        archive_of_images(folder / f"crohme/{name}.images.tar.xz", names, (40, 20))
        strokes = [[0, 0, 120, 50], [7, 30, 60, 0]]
        rows = (
            {"id": str(number), "tokens": f"x ^ {number % 9}", "strokes": strokes} for number in range(count)
        )
        packed(folder / f"crohme/{name}.jsonl.gz", "".join(json.dumps(row) + "\n" for row in rows))


def copy_of_flickr8k(folder: Path) -> None:
    names = {role: [f"{role}{n}.jpg" for n in range(SPLITS[role][1])] for role in ("train", "dev")}
    archive_of_images(folder / "flickr8k_1000/images.tar", [*names["train"], *names["dev"]], (30, 20))
    for role, images in names.items():
        rows = [{"image": image, "captions": ["A dog runs .", "A dog ."]} for image in images]
        table = folder / f"flickr8k_1000/{role}.jsonl"
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))


def copy_of_masks(folder: Path, name: str) -> None:
    """Images with masks of one class, under the names of their rows."""
    for role, part in (("train", "train"), ("dev", "val")):
        rows = [{"image": f"{role}{n}.png", "mask": f"{role}{n}_mask.png"} for n in range(SPLITS[role][1])]
        table = folder / name / f"{part}.jsonl"
        table.parent.mkdir(exist_ok=True)
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = [
        f"{role}{n}{kind}.png"
        for role in ("train", "dev")
        for n in range(SPLITS[role][1])
        for kind in ("", "_mask")
    ]
    archive_of_images(folder / name / "images.tar", names, (24, 18), "L", "PNG", 1)


def archive_of_images(
    path: Path, names: list[str], size: tuple[int, int], mode: str = "RGB", form: str = "JPEG", value: int = 0
) -> None:
    """An archive of images of one value with these names."""
    Image.new(mode, size, value).save(content := io.BytesIO(), form)
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w:") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content.getvalue())
            archive.addfile(member, io.BytesIO(content.getvalue()))


def pairs(role: str) -> list[list[str]]:
    with lzma.open(SAMPLES / "tatoeba_de_en" / f"{role}.tsv.xz", "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n").split("\t") for _, line in zip(range(SPLITS[role][1]), lines, strict=False)]


def documents(role: str) -> Iterator[tuple[list[str], str]]:
    """Sentences, and one of them in the other language as if it were their summary."""
    turn = itertools.cycle(pairs(role))
    for number in range(SPLITS[role][1]):
        some = [next(turn) for _ in range(2 + number % 3)]
        yield [f"{source} {number}" for _, source in some], some[0][0]


def rows_of_hub(role: str, recipe: AnyRecipe, more: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows with the columns that a recipe reads: pairs of sentences, or texts and summaries."""
    corpus = recipe.data.dev
    assert isinstance(corpus, DatasetCorpus)
    texts = pairs(role) if recipe.task == "translation" else ((" ".join(t), s) for t, s in documents(role))
    for pair in texts:
        row: dict[str, Any] = {**more}
        for column, text in zip(corpus.columns, pair, strict=True):
            *outer, name = column.split(".")
            (row.setdefault(*outer, {}) if outer else row)[name] = text
        yield row


def copy_of_hub(folder: Path, recipe: AnyRecipe, more: dict[str, Any]) -> None:
    """A dataset with the features of a recipe's own, in the hub's layout."""
    config = recipe.data.dev.config
    for role, (split, _) in SPLITS.items():
        rows = [*rows_of_hub(role, recipe, more)]
        path = folder / (config or "data") / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    if config:
        files = "".join(f"  - {{split: {split}, path: {config}/{split}-*}}\n" for split, _ in SPLITS.values())
        (folder / "README.md").write_text(
            f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n"
        )


def copy_of_multi30k(folder: Path) -> None:
    for role, name in MULTI30K.items():
        for side, language in enumerate(("de", "en")):
            text = "".join(f"{pair[side]}\n" for pair in pairs(role))
            packed(folder / f"multi30k/{name}.{language}.gz", text)


def copy_of_tables(folder: Path, name: str, row: str) -> None:
    """Tables that differ from row to row in what the first column ends with."""
    for role, (_, count) in SPLITS.items():
        path = folder / name.format(role)
        path.parent.mkdir(exist_ok=True)
        text = "".join(
            row.replace("\t", f" {number % 13}{number // 13:x}\t") + "\n" for number in range(count)
        )
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def packed(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


def copy_of_samsum(folder: Path) -> None:
    for role in ("train", "dev"):
        rows = ({"source": "\r\n".join(turns), "target": summary} for turns, summary in documents(role))
        packed(folder / f"samsum/{role}.jsonl.gz", "".join(json.dumps(row) + "\n" for row in rows))


def copy_of_scitldr(folder: Path) -> None:
    for role, count in (("train", 1), ("dev", 3)):
        rows = ({"source": texts, "targets": [summary] * count} for texts, summary in documents(role))
        packed(folder / f"scitldr/{role}.jsonl.gz", "".join(json.dumps(row) + "\n" for row in rows))


def copy_of_conll2003(folder: Path) -> None:
    for role, name in (("train", "train"), ("dev", "testa")):
        text = "".join(ENTITIES.format("I-", f"w{number}") for number in range(SPLITS[role][1]))
        packed(folder / f"conll2003/eng.{name}.gz", f"-DOCSTART- -X- O O\n\n{text}")


def copy_of_wnut17(folder: Path) -> None:
    for role, (_, count) in SPLITS.items():
        text = "".join(ENTITIES.format("B-", f"w{number}") for number in range(count))
        lines = ("\t".join(line.split(" ")[::3]) for line in text.split("\n"))
        packed(folder / f"wnut17/{role}.conll.gz", "\n".join(lines))


def copy_of_bccd(folder: Path) -> None:
    """Empty images with a box each."""
    names = {
        table: [f"images/{table}{n}.jpg" for n in range(count)]
        for table, count in (("train", 200), ("val", 10))
    }
    archive_of_images(folder / "bccd/images.tar", [*names["train"], *names["val"]], (64, 48))
    for table, images in names.items():
        rows = [
            {"image": image, "boxes": [[9, 9, 30, 40]], "labels": [("RBC", "WBC")[number % 2]]}
            for number, image in enumerate(images)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"bccd/{table}.jsonl").write_text(text)


def copy_of_scenes(folder: Path) -> None:
    (folder / "mnist_scenes").mkdir()
    for role, (_, count) in SPLITS.items():
        boxes = np.array([[number, 4, 5, 30, 40, number % 10] for number in range(count)], np.int32)
        images = np.random.default_rng(1).integers(0, 256, (count, 128, 128)).astype(np.uint8)
        np.savez_compressed(folder / f"mnist_scenes/{role}.npz", images=images, boxes=boxes)


def copy_of_hansards(folder: Path) -> None:
    """Pairs, with links as `align` finds them."""
    (folder / "hansards_en_fr").mkdir()
    for role, name in (("train", "train200k"), ("dev", "dev")):
        for side, language in enumerate(("en", "fr")):
            text = "".join(f"{pair[side]}\n" for pair in pairs(role))
            path = folder / f"hansards_en_fr/{name}.{language}.xz"
            path.write_bytes(lzma.compress(text.encode()))
    (folder / "hansards.links").write_text("0-0\n" * SPLITS["train"][1])


COPIES = {
    "hansards_guided": copy_of_hansards,
    "multi30k_additive": copy_of_multi30k,
    "multi30k_transformer": copy_of_multi30k,
    "multi30k_both_ways": copy_of_multi30k,
    "samsum_pointer": copy_of_samsum,
    "scitldr_pointer": copy_of_scitldr,
    "conll2003_pooling": copy_of_conll2003,
    "wnut17_pooling": copy_of_wnut17,
    "mnist_attention_pooling": copy_of_mnist,
    "mnist_sagan": copy_of_mnist,
    "mnist_dcgan": copy_of_mnist,
    "cifar10_resnet20": copy_of_cifar10,
    "cifar10_sagan": copy_of_cifar10,
    "crohme_wap": copy_of_crohme,
    "crohme_transformer": copy_of_crohme,
    "flickr8k_show_attend_tell": copy_of_flickr8k,
    "bccd_yolo": copy_of_bccd,
    "bccd_yolo_cbam": copy_of_bccd,
    "mnist_scenes_yolo": copy_of_scenes,
    "mnist_scenes_queries": copy_of_scenes,
    **{f"camvid_{net}": partial(copy_of_masks, name="camvid") for net in CAMVID},
    "nuclei_unet_scse": partial(copy_of_masks, name="nuclei"),
}


def braces(word: str) -> list[str]:
    """What bash makes of a word with braces."""
    before, *rest = re.split("[{}]", word)
    return [f"{before}{choice}{rest[1]}" for choice in rest[0].split(",")] if rest else [before]


@pytest.mark.parametrize("name", shipped())
def test_a_recipe_passes_check(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQ2ATTN_DATA", str(tmp_path))
    recipe = read(name, check_files=False)
    words = "batch_tokens" in type(recipe.training).model_fields
    small = ["training.batch_tokens=60", "text.size=400"] if words else []
    small += [one for word in SMALLER.get(name, []) for one in braces(f"model.{word}")]
    if name in HUB:
        copy_of_hub(tmp_path / "copy", recipe, HUB[name])
        # Exactly as the recipe's own comment says.
        (advice,) = re.findall(r"^ +#   seq2attn train \w+ (\S+)", shipped()[name].read_text(), re.MULTILINE)
        assert advice.partition("=")[0] == "data.{train.0,dev,test}.dataset"
        small += braces(re.sub("=.*", f"={tmp_path}/copy", advice))
    elif name in COPIES:
        COPIES[name](tmp_path)
    elif name in TABLES:
        copy_of_tables(tmp_path, *TABLES[name])
    else:
        small += [
            f"data.{role}.limit={count}" for role, count in (("train.0", 200), ("dev", 10), ("test", 10))
        ]
    report = list(check(read(name, [*small, *FEWER.get(name, [])]), device="cpu"))
    lines = "\n".join(text for _, text in report)
    assert "no gradient comes to" not in lines
    assert f"; {200 * len(recipe.data.train)} examples read" in lines
    assert lines.count("; 10 examples read, 10 kept") == (1 if recipe.data.test is None else 2)
    assert report[-1][0] == "memory"


@pytest.mark.parametrize("name", shipped())
def test_a_recipe_opens_with_what_how_long_and_how_good(name: str) -> None:
    what, long, good = head(shipped()[name])
    assert what.endswith(".")
    assert long.startswith("How long: ")
    assert good.startswith("Score: ")


def reachable() -> bool:
    try:
        with socket.create_connection(("huggingface.co", 443), timeout=3):
            return True
    except OSError:
        return False


def test_without_a_network_it_says_how_to_do_without(tmp_path: Path) -> None:
    if reachable():
        pytest.skip("there is a network")
    offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    environment = {key: value for key, value in os.environ.items() if key not in offline}
    environment |= {
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", "seq2attn", "check", name],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in HUB
    }  # fmt: skip
    for name, process in started.items():
        said = process.communicate(timeout=120)[1]  # it ends by itself, and does not wait for the network
        assert process.returncode == 1
        assert said.startswith("seq2attn: data.train.0.dataset: the hub cannot be reached for ")
        assert said.endswith("name a local copy: data.train.0.dataset=/path/to/folder\n"), (name, said)
        assert "Traceback" not in said
