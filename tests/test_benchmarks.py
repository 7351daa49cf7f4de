"""The benchmarks run, say what they measured, and count operations as torch does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[1]
SCRIPTS, RUN = ROOT / "scripts", tiny_runs.MODEL
sys.path.insert(0, str(SCRIPTS))

import bench_decode  # noqa: E402
import bench_images  # noqa: E402
import bench_models  # noqa: E402
import bench_train  # noqa: E402
from bench_models import Measured  # noqa: E402

CPU = torch.device("cpu")


def here(cases: Any, prepare: Any, device: torch.device, repeat: int) -> list[Measured]:
    """`in_turns` in this process."""
    return [Measured([prepare(case)(turn) for turn in range(repeat)], 10**8) for case in cases]


def test_training_is_measured_beside_the_reference(tmp_path, monkeypatch, capsys):
    words = (
        "luong --reference --clock cpu --lengths 5,3 --batch-tokens 24 --threads 1 --repeat 2 --device cpu"
    )
    monkeypatch.setattr(sys, "argv", ["bench_train.py", *words.split(), "--json", str(tmp_path / "speed")])
    monkeypatch.setattr(bench_models, "in_turns", here)
    bench_train.main()
    table, found = capsys.readouterr().out, json.loads((tmp_path / "speed").read_text(encoding="utf-8"))
    ours, reference = found["measured"]
    assert [one["by"] for one in (ours, reference)] == ["seq2attn", "reference"]
    for one in (ours, reference):
        assert (one["model"], one["precision"], one["padding"]) == ("luong", "fp32", 0.0)
        assert len(one["peak"]) == 2 and all(0 < share < 1 for share in one["share_of_peak"])
        for speed, seconds in zip(one["tokens_per_second"], one["seconds_per_update"], strict=True):
            assert speed * seconds == pytest.approx(4 * 4)  # four pairs, whose targets have 3 ids and the end
        assert one["seconds_per_update"] == pytest.approx(one["cpu_seconds_per_update"], rel=0.05)
    pairs = zip(ours["tokens_per_second"], reference["tokens_per_second"], strict=True)
    assert ours["ratio"] == pytest.approx([one / other for one, other in pairs])
    assert "ratio" not in reference
    assert table.startswith("| model | precision | by |") and found["signature"] in table
    assert found["signature"].startswith(
        "data:lengths:5,3|batch-tokens:24|repeat:2x4|clock:cpu|date:"
    )  # and then the machine


@pytest.mark.parametrize("name", ["additive", "transformer"])
@pytest.mark.parametrize("by", [bench_train.OURS, bench_train.REFERENCE])
def test_an_update_learns(name, by):
    case = bench_train.Case(name, "bf16", by, CPU, 1, "wall", 20, 1, (3, 4), None)
    _, loader, trainer = bench_train.learning(case)
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.update([loader.batch(loader.epoch(0)[0], 0)], 1)
    changed = [not one.equal(old) for one, old in zip(trainer.model.parameters(), before, strict=True)]
    assert sum(changed) > 0.9 * len(changed)


def test_decoding_is_measured_in_processes_and_so_are_starts(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPTS / "bench_decode.py"), "--run", str(RUN), "--device", "cpu"]
    command += ["--beams", "2", "--batches", "3", "--length", "2", "--sentences", "5"]
    command += ["--threads", "1", "--repeat", "1", "--json", str(tmp_path / "speed"), "--engine", "torch"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "speed").read_text(encoding="utf-8"))
    (one,) = found["measured"]
    assert (one["model"], one["engine"], one["beam"], one["batch"]) == (str(RUN), "torch", 2, 3)
    assert one["tokens_per_second"] == pytest.approx([3 * one["sentences_per_second"][0]])  # two, and the end
    assert 0 < one["p50"][0] <= one["p95"][0] and one["memory"] > 1e8
    names = ["python -c pass", "import seq2attn", "seq2attn --help", "first translation"]
    assert list(found["starts"]) == names
    assert all(len(some) == 1 and some[0] > 0 for some in found["starts"].values())
    assert found["signature"].startswith("data:run|sentences:5|length:2|repeat:1|clock:wall|date:")
    assert all(name in done.stdout for name in [*names, found["signature"]])


def test_random_weights_write_only_pieces_that_there_are():
    case = bench_decode.Case("luong", "fp32", 2, 2, CPU, 1, "wall", 4, 5, RUN / "text" / "source.model")
    model = bench_decode.translator(case)
    assert model.target.size == bench_models.PIECES > 400
    found = model.translate(["Wo ist Tom?"] * 2, beam=3, min_length=5, max_length=5, alignment=False)
    assert all(len(one.target.ids) == 5 and max(one.target.ids) < 400 for one in found)


def test_the_run_that_starts_are_measured_with_translates(tmp_path):
    bench_decode.save(RUN / "text" / "source.model", tmp_path / "run")
    model = bench_decode.load(tmp_path / "run")
    assert model.translate("Wo ist Tom?", beam=1, min_length=3, max_length=3).target.ids


@pytest.mark.parametrize("name", ["additive", "luong", "transformer"])
def test_operations_are_those_that_torch_counts(name):
    task = bench_models.task(name, None, batch_tokens=60)
    recipe, model = task.recipe.model, task.build()
    loader = task.loader(bench_models.Synthetic(28, 28, task.tokenizer.source.size, 6), training=True)
    batch = loader.batch(loader.epoch(0)[0])
    objective = task.objective(model, True)
    with (
        torch.backends.mkldnn.flags(enabled=False),  # fused layers are not counted
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        objective.loss(objective.forward(model, batch), batch).whole.backward()
    lengths = batch.source.mask.sum(1), batch.target_mask.sum(1)
    counted = bench_train.operations(recipe, task.tokenizer.source.size, *lengths)
    # Not counted are the masked half of causal attention, and the gradient of what needs none.
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_padding_is_the_share_of_an_epoch():
    examples = bench_models.Synthetic(4, 2, 10, count=3)
    examples.source_lengths[:] = 4, 1, 3
    plan = [np.array([0, 1]), np.array([2])]
    assert bench_train.padding(examples, plan) == pytest.approx(3 / (2 * (5 + 3) + 4 + 3))


@pytest.mark.parametrize("script", [bench_train, bench_decode])
def test_an_unknown_model_is_named(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "biggest"])
    with pytest.raises(SystemExit):
        script.arguments()
    assert (
        "unknown model biggest: expected additive, luong, transformer, base, big" in capsys.readouterr().err
    )


def test_image_networks_take_turns_with_plain_modules(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_images.py", "--rounds", "2", "--images", "2"])
    monkeypatch.setattr(bench_images, "timm_blocks", lambda: [("se", None, None)])
    monkeypatch.setattr(bench_images, "SHAPES", [])
    bench_images.main()
    written = capsys.readouterr().out
    assert re.findall(r"^\| (\S+) \| [\d.]+ \| [\d.]+ \[", written, re.MULTILINE) == [
        "ResNet-20",
        "ViT",
        "detector",
    ]
