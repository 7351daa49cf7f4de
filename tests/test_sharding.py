"""A model that is divided among processes learns what a whole one does, and what is saved does not show it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_detector
import torch
import torch._dynamo  # what FSDP imports when it runs: once here, and not in each process
from processes import in_processes
from tiny_reversal import PIECES, RECIPE, records
from tiny_training import KINDS, batch, trainer
from torch.distributed.tensor import DTensor

from seq2attn.errors import Seq2attnError
from seq2attn.recipe import read
from seq2attn.recipe.detection import DetectionTrainingRecipe
from seq2attn.runs.training_run import train
from seq2attn.runtime.distributed import ALONE, Group, joined
from seq2attn.training.run_folder import RunFolder
from seq2attn.training.sharding import clip, gathered, shard
from seq2attn.training.trainer import Trainer

SETTINGS = {"sharded": True, "ema": 0.5, "clip": 0.5, "weight_decay": 0.1}
UPDATES = [PIECES, PIECES[:1], PIECES[1:]]  # of 5 batches, 1, and 4


def step(one: Trainer, pieces: list[range], number: int) -> None:
    """An update of which a process computes its share."""
    group = one.group
    own = [batch(rows) for _, rows in group.share(pieces)]
    company = batch(pieces[0]) if one.sharded and len(own) * group.size < len(pieces) else None
    one.update(own, number, company)


def plain(value: Any) -> Any:
    """Tensors as arrays, which a process can send."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.numpy() if isinstance(value, torch.Tensor) else value


def trained(group: Group, kind: str, updates: list[list[range]]) -> Any:
    """The state after some updates: weights, moments, and moving averages."""
    one = trainer(kind, 9, torch.float64, group=group, **SETTINGS)
    for number, pieces in enumerate(updates, 1):
        step(one, pieces, number)
    return plain(one.state())


def close(value: Any, expected: Any) -> None:
    """The same keys, and numbers to rounding."""
    if isinstance(expected, dict):
        assert value.keys() == expected.keys()
        for key in expected:
            close(value[key], expected[key])
    elif isinstance(expected, np.ndarray):
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_moments_and_averages_are_those_of_one_process(kind: str) -> None:
    expected = trained(ALONE, kind, UPDATES)

    def work() -> Any:
        with joined() as group:
            return trained(group, kind, UPDATES)

    for state in in_processes(2, work):
        close(state["model"], expected["model"])
        close(state["moving"], expected["moving"])
        close(state["optimizer"]["state"], expected["optimizer"]["state"])


def test_a_process_has_only_its_part_and_goes_on_from_a_whole_state() -> None:
    first = trainer(KINDS[1], 9, torch.float64, **SETTINGS)
    step(first, UPDATES[0], 1)
    begun = copy.deepcopy(first.state())
    step(first, UPDATES[1], 2)
    expected = plain(first.state())

    def work() -> Any:
        with joined() as group:
            one = trainer(KINDS[1], 9, torch.float64, group=group, **SETTINGS)
            one.restore(begun)
            step(one, UPDATES[1], 2)
            moments = [part for parts in one.optimizers[""].state.values() for part in parts.values()]
            moving = one.moving_average or {}
            held = [
                sum(part.to_local().numel() for part in parts if isinstance(part, DTensor))
                for parts in (one.model.parameters(), moments, moving.values())
            ]
            return plain(one.state()), held

    size = sum(part.numel() for part in first.model.parameters())
    for state, held in in_processes(2, work):
        close(state["model"], expected["model"])
        close(state["optimizer"]["state"], expected["optimizer"]["state"])
        for count, whole in zip(held, (size, 2 * size, size), strict=True):
            assert 0.3 * whole < count < 0.7 * whole


class Scaled(torch.nn.Module):
    """Parameters with and without a dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scale = torch.nn.Linear(3, 3), torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.scale * self.linear(x)
        return result


def test_parameters_without_a_dimension_stay_whole_and_count_in_the_norm() -> None:
    def gradients(group: Group) -> Any:
        torch.manual_seed(1)
        model = Scaled()
        if group.size > 1:
            shard(model)
        for row in range(group.rank, 2, group.size):
            model(torch.full((1, 3), row + 1.0)).square().sum().backward()
        group.add_gradients([model.scale])
        norm = clip(model.parameters(), 1.0)
        with gathered(model):
            output = model(torch.ones(1, 3)).tolist()
        return norm, model.scale.grad.item(), output, isinstance(model.scale, DTensor)

    def work() -> Any:
        with joined() as group:
            return gradients(group)

    norm, scale, output, _ = gradients(ALONE)
    for other in in_processes(2, work):
        assert other[:2] == pytest.approx((norm, scale), rel=1e-5) and not other[3]
        np.testing.assert_allclose(other[2], output, rtol=1e-6)


def test_a_gathered_model_is_used_as_often_as_each_process_likes() -> None:
    def work() -> Any:
        with joined() as group:
            one = trainer(KINDS[1], 9, torch.float64, group=group, **SETTINGS)
            results = []
            for _ in range(2):
                with gathered(one.model), torch.inference_mode():
                    for rows in PIECES[: 1 + 2 * group.rank]:
                        part = batch(rows)
                        results.append(one.model(part.source, part.target_input).logits.sum().item())
                step(one, PIECES, 1)
            return results

    few, many = in_processes(2, work)
    assert len(few) == 2 and len(many) == 6 and few[0] == many[0] and few[1] == many[3] != many[0]


def test_detectors_learn_alike(tmp_path: Path) -> None:
    def movement(group: Group) -> Any:
        model = tiny_detector.moved_weights(tiny_detector.detector("points")).double()
        settings = {"optimizer": "sgd", "learning_rate": 1.0, "max_steps": 1, "sharded": True}
        recipe = DetectionTrainingRecipe.model_validate(settings)
        one = Trainer(model, tiny_detector.objective("points"), recipe, torch.device("cpu"), 1, group=group)
        own = [tiny_detector.batch([tiny_detector.scene(seed)]) for _, seed in group.share(range(3, 7))]
        one.update([part._replace(images=part.images.double()) for part in own], 1)
        return plain(one.state()["model"])

    def work() -> Any:
        with joined() as group:
            return movement(group)

    expected = movement(ALONE)
    for state in in_processes(2, work):
        close(state, expected)


def test_a_run_of_two_processes_resumes_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / "cache"))
    recipe = copy.deepcopy(RECIPE)
    recipe["model"]["decoder"]["attention"] = {"score": {"name": "additive", "normalize": True}}  # a scalar
    recipe["training"] |= {"sharded": True, "optimizer": "adam", "learning_rate": 0.01}
    train(recipe, tmp_path / "one", device="cpu")

    def work() -> Any:
        done = train(recipe, tmp_path / "two", {"training.max_steps": 3}, device="cpu")
        return isinstance(next(done.model.model.parameters()), DTensor)

    assert in_processes(2, work) == [False, False]
    train(recipe, tmp_path / "two", resume=True, device="cpu")
    one, two = RunFolder.open(tmp_path / "one"), RunFolder.open(tmp_path / "two")
    assert records(one.path)[-1]["exact"] == records(two.path)[-1]["exact"]
    for name in ("best", "last"):
        other = two.load_weights(name)
        for key, value in one.load_weights(name).items():
            torch.testing.assert_close(other[key], value, rtol=0, atol=1e-5)


def test_fp16_is_refused() -> None:
    recipe = copy.deepcopy(RECIPE)
    recipe["training"] |= {"sharded": True, "precision": "fp16"}
    with pytest.raises(Seq2attnError, match=r"sharded: fp16 scales losses in each process: use bf16"):
        read(recipe)
