"""Recipes for tests: shipped ones, ones kept beside the tests, and the empty data files that they name."""

import re
from pathlib import Path

import pytest
from hypothesis import strategies as st

from seq2attn.recipe import RecipeError, read, shipped

DATA = Path(__file__).parent / "data"
SHIPPED = shipped()
KEPT = {name: DATA / f"{name}.yaml" for name in ("quickstart", "multi30k_additive")}
words = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["no", "1e-3", "0x1", "~", "=", "<<", "1:2"]
)
leaves = st.none() | st.booleans() | st.integers(-(10**10), 10**10) | st.floats(allow_nan=False) | words
trees = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(words, inner), max_leaves=9)

CORPORA = [
    *(f"multi30k/{name}.{side}.gz" for name in ("train", "val", "test_2016_flickr") for side in ("en", "de")),
    *(f"g2p/fre_{role}.tsv.gz" for role in ("train", "dev", "test")),
    *(f"scan_simple/{role}.tsv" for role in ("train", "dev", "test")),
    *(
        f"mnist/{part}-ubyte.gz"
        for name in ("train", "t10k")
        for part in (f"{name}-images-idx3", f"{name}-labels-idx1")
    ),
    "cifar10/cifar10-jpg.tar.xz",
    *(f"crohme/{name}.{kind}" for name in ("train", "test2014") for kind in ("jsonl.gz", "images.tar.xz")),
    *(f"flickr8k_1000/{name}" for name in ("train.jsonl", "dev.jsonl", "images.tar")),
    *(f"mnist_scenes/{role}.npz" for role in ("train", "dev", "test")),
    *(
        f"{name}/{file}"
        for name in ("bccd", "camvid", "nuclei")
        for file in ("train.jsonl", "val.jsonl", "images.tar")
    ),
    *(f"{name}/{role}.jsonl.gz" for name in ("samsum", "scitldr") for role in ("train", "dev")),
    *(f"conll2003/eng.{role}.gz" for role in ("train", "testa")),
    *(f"hansards_en_fr/{name}.{side}.xz" for name in ("train200k", "dev") for side in ("en", "fr")),
    "hansards.links",
    *(f"wnut17/{role}.conll.gz" for role in ("train", "dev", "test")),
]
OTHERS = "; others by importing their module, SEQ2ATTN_IMPORT or an entry point"  # parts that may be anywhere


def empty_corpora(folder: Path) -> Path:
    """Make a folder with empty files of the names in the shipped recipes."""
    for file in CORPORA:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def faults(file: Path, *overrides: str) -> list[str]:
    """The faults of a recipe, without the folder of its file."""
    with pytest.raises(RecipeError) as error:
        read(file, overrides)
    assert [str(fault) for fault in error.value.faults] == str(error.value).split("\n")
    return str(error.value).replace(f"{file.parent}/", "").split("\n")


def line_of(text: str, marker: str) -> int:
    assert text.count(marker) == 1, f"{marker!r} is not unique in the recipe"
    return text[: text.index(marker)].count("\n") + 1


Case = tuple[
    str, str, str, str, str
]  # recipe, pattern, its replacement, a text in the faulty line, the fault


def check_one_fault(case: Case, folder: Path, corpora: Path) -> None:
    """Check that a recipe that is changed in one way has exactly one fault, on the right line."""
    recipe, pattern, replacement, marker, fault = case
    text = (SHIPPED | KEPT)[recipe].read_text(encoding="utf-8")
    if "slice" in fault or "sliced" in fault:
        text = text.replace("split: validation", "split: 'validation[:100]'")
    text, found = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert found == 1, f"{pattern!r} is not in {recipe}"
    file = folder / f"{recipe}.yaml"
    file.write_text(text, encoding="utf-8")
    fault = fault.replace("FOLDER", str(folder)).replace("DATA", str(corpora)).replace(f"{folder}/", "")
    line = line_of(text, marker)
    assert faults(file) == [f"{recipe}.yaml:{line}  {fault}".replace("ABOVE", str(line - 1))]
