"""The commands `heatmap` and `average`, as a user types them."""

import json
import re
import shutil
from pathlib import Path

import pytest
from tiny_cli import GERMAN, MODEL, fails, run

from seq2attn.training.run_folder import RunFolder


@pytest.fixture
def copy(tmp_path: Path, runs: dict[str, Path]) -> str:
    return str(shutil.copytree(runs["lstm"], tmp_path / "run"))


MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.mark.parametrize("form", MAGIC)
def test_heatmap(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"map.{form}"
    assert run("heatmap", MODEL, "Wo ist Tom?", "-o", str(path)).stdout == f"Where's Tom?\n{path}\n"
    assert path.read_bytes().startswith(MAGIC[form])


def test_heatmap_shows_what_is_asked_for(tmp_path: Path, runs: dict[str, Path]) -> None:
    def drawn(*words: str, run_folder: str = MODEL) -> str:
        path = tmp_path / "map.svg"
        assert run("heatmap", run_folder, "Wo ist Tom?", "-o", str(path), *words).stdout.endswith(f"{path}\n")
        return path.read_text()

    maps = [drawn(), drawn("--pieces"), drawn("--target", "This is a table."), drawn("--beam", "1")]
    assert len({*maps[:3]}) == 3
    assert drawn("--layer", "all", "--head", "all") == maps[0]  # all are one: </s> is apart there, too
    transformer = str(runs["transformer"])
    words = ["--target", "Where is he?"]
    layers = [
        drawn(*words, "--layer", str(layer), "--head", "1", run_folder=transformer) for layer in range(3)
    ]
    assert len({*layers, drawn(*words, run_folder=transformer)}) == 4


def test_heatmap_has_a_file_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("heatmap", MODEL, "Ja.").stdout.endswith("\nheatmap.png\n")
    first = (tmp_path / "heatmap.png").read_bytes()
    run("heatmap", MODEL, "Ja.")
    assert (tmp_path / "heatmap.png").read_bytes() == first


def names(svg: Path) -> list[str]:
    """The layers and heads that a picture names."""
    return re.findall(r">((?:layer|head) \d[^<]*)</text>", svg.read_text())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], ["layer 1 (0 to 2), mean of 2 heads"]),
        (["--layer", "-1", "--head", "0"], ["layer 2 (0 to 2), head 0 (0 to 1)"]),
        (["--head", "all"], ["layer 1, head 0", "layer 1, head 1"]),
        (["--layer", "all"], [f"layer {layer}, mean of heads" for layer in range(3)]),
        (["--layer", "all", "--head", "-1"], [f"layer {layer}, head 1" for layer in range(3)]),
        (
            ["--layer", "all", "--head", "all"],
            [f"layer {layer}, head {head}" for layer in range(3) for head in range(2)],
        ),
        (["--self"], ["layer 0, mean of 2 heads"]),
        (["--self", "--head", "all"], [f"layer 0, head {head}" for head in range(2)]),
        (["--self", "--layer", "0", "--head", "1", "--pieces"], ["layer 0, head 1 (0 to 1)"]),
    ],
)
def test_a_picture_names_its_layers_and_heads(
    tmp_path: Path, runs: dict[str, Path], words: list[str], named: list[str]
) -> None:
    path = tmp_path / "map.svg"
    run("heatmap", str(runs["transformer"]), "Wo ist Tom?", *words, "-o", str(path))
    assert names(path) == named


def test_scale_and_direction_are_the_users(tmp_path: Path, runs: dict[str, Path]) -> None:
    def drawn(*words: str) -> tuple[str, float, float]:
        path = str(tmp_path / "map.svg")
        run("heatmap", str(runs["transformer"]), "Wo ist Tom?", "--target", "a b c d", *words, "-o", path)
        svg = (tmp_path / "map.svg").read_text()
        first, second = (
            float(re.findall(rf'x="([\d.]+)"[^>]*>{word}</text>', svg)[0]) for word in ("Wo", "ist")
        )
        return svg, first, second

    plain, automatic, reverse = drawn(), drawn("--scale", "auto"), drawn("--right-to-left")
    assert plain[0] != automatic[0] and plain[1] < plain[2] and reverse[1] > reverse[2]


def test_heatmap_with_a_beam_below_the_nbest_of_the_recipe(tmp_path: Path, copy: str) -> None:
    recipe = Path(copy, "recipe.yaml")
    recipe.write_text(recipe.read_text().replace("nbest: 1", "nbest: 3"))
    assert "nbest: 3" in recipe.read_text()
    RunFolder.open(copy).accept_recipe()
    path = tmp_path / "map.svg"
    assert run("heatmap", copy, "Wo ist Tom?", "--beam", "2", "-o", str(path)).stdout.endswith(f"{path}\n")


def test_heatmap_says_what_is_wrong(tmp_path: Path, runs: dict[str, Path]) -> None:
    path = str(tmp_path / "map.png")
    for words, message in [
        (["Ja.", "-o", str(tmp_path / "map.docx")], ".png, .svg or .pdf"),
        (["", "-o", path], "nothing to draw"),
        (["Ja.", "-o", path, "--layer", "7"], "the model has 1 attention layer, number 0; got layer 7"),
        (["Ja.", "-o", path, "--method", "gradient", "--head", "0"], "head: only for methods of attention"),
        (["Ja.", "-o", path, "--head", "7"], "the layer has 1 head, number 0; got head 7"),
    ]:
        status, error = fails("heatmap", MODEL, *words)
        assert (status, message in error) == (1, True), error
    for option in ("--layer", "--head"):
        status, error = fails("heatmap", MODEL, "Ja.", option, "x")
        assert (status, "expected a number from 0, or all; got 'x'" in error) == (2, True)
    status, error = fails("heatmap", MODEL, "Ja.", "--self", "-o", path)
    assert (status, "no self-attention on its source, as its encoder is no Transformer" in error) == (1, True)


def test_average(copy: str) -> None:
    error = run("average", copy, "--last", "3").stdout
    assert error.startswith(f"{copy}/weights/average-3.safetensors; best: ")
    assert run("translate", copy, "--checkpoint", "average", stdin=GERMAN).stdout.count("\n") == 3
    report = json.loads(run("average", copy, "--last", "2", "--format", "json").stdout)
    assert report["average"] == f"{copy}/weights/average-2.safetensors" and report["best"]
    status, message = fails("average", copy, "--last", "9")
    assert (status, "cannot average the last 9 weights" in message) == (1, True)
