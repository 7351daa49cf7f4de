"""`train --seeds`: a run for each seed, resumed where it stopped; mean and standard deviation."""

import json
from pathlib import Path
from statistics import fmean, stdev

import pytest
from tiny_cli import fails, run
from tiny_runs import READY, SMALL, weights_hash

from seq2attn.training.run_folder import RunFolder

TINY = [
    *SMALL,
    *READY,
    "model.encoder={kind: recurrent, embedding: 8, size: 6}",
    "model.decoder={kind: recurrent, order: luong, embedding: 8, size: 8, attention: {score: additive}}",
    "model.tied=none",
    "training.max_steps=2",
    "training.validate_every=2",
    "training.metrics=[exact, chrf]",
    "training.metric=loss",
    "data.train.0.limit=40",
    "decoding.beam=1",
]


def test_a_run_for_each_seed(tmp_path: Path) -> None:
    words = [
        "train",
        "quickstart",
        *TINY,
        "--run",
        str(tmp_path / "a.b"),
        "--seeds",
        "3,1",
        "--device",
        "cpu",
    ]
    report = json.loads(run(*words, "--format", "json").stdout)
    folders = [tmp_path / "a.b-seed3", tmp_path / "a.b-seed1"]
    assert [Path(entry["run"]) for entry in report["runs"]] == folders
    assert [RunFolder.open(folder).recipe.seed for folder in folders] == [3, 1]
    assert weights_hash(folders[0]) != weights_hash(folders[1])
    values = [[score["value"] for score in entry["scores"]] for entry in report["runs"]]
    assert report["summary"]["chrF2"] == {
        "mean": fmean(value[1] for value in values),
        "deviation": stdev(value[1] for value in values),
    }
    code, message = fails(*words)
    assert code and "a.b-seed3" in message  # it is there already
    before = {folder: weights_hash(folder) for folder in folders}
    output = run(*words[:-4], "--seeds", "3,1,2", "--device", "cpu", "--resume").stdout
    assert {folder: weights_hash(folder) for folder in folders} == before
    assert (tmp_path / "a.b-seed2").is_dir() and output.startswith("seeds 3, 1, 2\nexact = ")
    assert "standard deviation" in output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--seeds", "1,x"], "expected numbers, as in 1,2,3; got '1,x'"),
        (["--seeds", "1,1"], "expected each seed once"),
        (["--seeds", "1,2"], "leave out --processes"),
    ],
)
def test_what_is_no_list_of_seeds(given: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")  # as torchrun does
    code, error = fails("train", "copy_additive", *given)
    assert code and message in error
