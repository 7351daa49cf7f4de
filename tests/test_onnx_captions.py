"""The engine onnx for models that write texts from images: torch encodes them, and the rest is as for texts."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_images
import tiny_runs
from shapes import unchecked
from tiny_cli import fails, run

import seq2attn
from seq2attn.inference.captioner import Captioner
from seq2attn.inference.engines import EngineError
from seq2attn.inference.engines.onnx_support import unsupported_keys
from seq2attn.recipe import read
from seq2attn.runs.evaluation import score_run

pytestmark = pytest.mark.usefixtures("own_cache")
ADDITIVE = 'model.decoder.attention={"score": "additive", "normalize": "sparsemax"}'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("strips")
    tiny_images.write_tables(folder, {"train": 60, "dev": 6, "test": 20})
    steps = [ADDITIVE, "training.max_epochs=2"]
    options: dict[str, Any] = {"display": tiny_runs.silent(), "device": "cpu"}
    return seq2attn.train(tiny_images.recipe(folder), folder / "run", steps, **options).run


@pytest.fixture(scope="module")
def images(trained: Path) -> list[str]:
    """Strips of three widths, so that some are padded."""
    return [str(trained.parent / f"test{number}.png") for number in range(20)]


def loaded(run: Path, **options: Any) -> Captioner:
    with unchecked():
        return seq2attn.load(run, device="cpu", kind=Captioner, **options)


def test_captions_are_torchs_and_have_its_scores_and_weights(trained: Path, images: list[str]) -> None:
    own, made = loaded(trained), loaded(trained, engine="onnx")
    with unchecked():
        for settings in ({"beam": 4, "nbest": 3}, {"beam": 1, "prefix": "red"}):
            pairs = zip(made.caption(images, **settings), own.caption(images, **settings), strict=True)
            for found, expected in pairs:
                assert [one.text for one in found.nbest] == [one.text for one in expected.nbest]
                assert found.score == pytest.approx(expected.score, abs=1e-4)
                assert found.weights is not None and expected.weights is not None
                assert (found.weights - expected.weights).abs().max() < 1e-5
    assert made.signature.endswith("|engine:onnx float32")


def test_commands_let_it_search(trained: Path, images: list[str]) -> None:
    with unchecked():
        expected = run("caption", str(trained), *images, "--scores").output.splitlines()
        result = run("caption", str(trained), *images, "--scores", "--engine", "onnx", "--verbose")
        assert "onnx float32 searched for 20 of 20" in result.stderr
        for found, line in zip(result.stdout.splitlines(), expected, strict=True):
            (name, score, text), (own_name, own_score, own_text) = found.split("\t"), line.split("\t")
            assert (name, text) == (own_name, own_text) and float(score) == pytest.approx(
                float(own_score), abs=2e-4
            )
        quantized = run("caption", str(trained), images[0], "--engine", "onnx", "--quantize", "int8")
        assert quantized.stdout.strip()
        own, other = (score_run(trained, ["bleu"], engine=engine) for engine in ("torch", "onnx"))
    assert own.evaluation.scores["bleu"].value == other.evaluation.scores["bleu"].value


def test_what_images_cannot_have_is_refused(trained: Path, tmp_path: Path) -> None:
    sections = json.loads(json.dumps(tiny_images.recipe(trained.parent)))
    (fault,) = unsupported_keys(read(sections))
    assert fault == ("model.decoder.attention.score", "it has no filters over the grid of an image")
    with pytest.raises(EngineError, match="writes texts from texts, and this is image_to_text"):
        loaded(trained, engine="ctranslate2")
    status, said = fails("export", str(trained), "onnx", "-o", str(tmp_path / "out"))
    assert status == 1 and "exports are of texts from texts, and this is image_to_text" in said
    assert not (tmp_path / "out").exists()
