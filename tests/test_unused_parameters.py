"""Trained parameters to which no gradient comes are named: once, and only those."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny_adversarial
import torch
from processes import in_processes
from tiny_reversal import RECIPE, records
from tiny_runs import recording, said
from torch import Tensor, nn

from seq2attn.recipe import TrainingRecipe, read
from seq2attn.runs import dry_run, opening, training_run
from seq2attn.runs.training_run import train
from seq2attn.runtime.distributed import ALONE, Group, joined
from seq2attn.training.objectives import Losses, TokenObjective
from seq2attn.training.trainer import Trainer


class Number(NamedTuple):
    """A batch: a number."""

    value: float
    num_targets: int = 1

    def to(self, device: torch.device) -> "Number":
        return self


class Parts(nn.Module):
    """Parameters that all batches use, only those of large numbers, or none."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("always", "rare", "never", "frozen"):
            self.register_parameter(name, nn.Parameter(torch.ones(2), requires_grad=name != "frozen"))

    def forward(self, value: float) -> Tensor:
        used = self.always + self.rare if value > 2 else self.always  # type: ignore[operator]
        total: Tensor = (value * used).sum()
        return total


class Minimal(TokenObjective):
    """Makes the output smaller."""

    def forward(self, model: Any, batch: Any) -> Any:
        return model(batch.value)

    def loss(self, output: Any, batch: Any) -> Losses:
        return Losses(output, output.detach(), None)


def trainer(group: Group) -> Trainer:
    recipe = TrainingRecipe.model_validate({"max_steps": 3})
    return Trainer(Parts(), Minimal(), recipe, torch.device("cpu"), 3, group=group)


def unused(group: Group, *numbers: float) -> list[list[str]]:
    """The names after the first and second update of these batches, and after that of a resumed trainer."""
    one, other = trainer(group), trainer(group)
    own: Any = [Number(value) for _, value in group.share(numbers)]
    names = [one.update(own, 1).unused, one.update(own, 2).unused]
    other.restore(one.state())
    return [*names, other.update(own, 3).unused]


def test_what_no_batch_of_the_first_update_uses_is_named_once() -> None:
    assert unused(ALONE, 1.0, 3.0) == [["never"], [], []]
    assert unused(ALONE, 1.0) == [["rare", "never"], [], []]


def test_what_one_process_uses_is_used() -> None:
    def work() -> Any:
        with joined() as group:
            return unused(group, 1.0, 3.0), unused(group, 3.0), unused(group, 1.0, 1.0)

    used, names = [["never"], [], []], [["rare", "never"], [], []]
    assert in_processes(2, work) == [(used, used, names)] * 2


def test_each_player_is_asked_in_its_own_first_turn() -> None:
    model = tiny_adversarial.pair()
    model.generator.register_parameter("spare", nn.Parameter(torch.ones(1)))
    one = tiny_adversarial.trainer(model, discriminator_steps=3)
    found = [one.update([tiny_adversarial.batch(seed=step)], step).unused for step in range(1, 7)]
    assert found == [[], [], ["generator.spare"], [], [], []]


def with_spare(model: nn.Module, names: list[str]) -> None:
    model.spare = nn.Linear(2, 3)
    names += ["spare.weight", "spare.bias"]


@pytest.fixture
def spare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Gives all models that are trained a part that they do not use; returns its parameters' names."""
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / "cache"))
    names = list[str]()

    def built(*arguments: Any) -> nn.Module:
        with_spare(model := opening.built(*arguments), names)
        return model

    monkeypatch.setattr(training_run, "built", built)
    monkeypatch.setattr(dry_run, "freeze", lambda model, recipe: with_spare(model, names))
    return names


NOTE = "no gradient comes to spare, so that training leaves them as they are: "


def test_a_run_tells_it_in_the_terminal_and_in_its_log(tmp_path: Path, spare: list[str]) -> None:
    display, seen = recording(), list[Any]()
    train(RECIPE, tmp_path / "whole", device="cpu", display=display, callbacks=[seen.append])
    assert said(display).count(f"note: {NOTE}") == 1
    log = records(tmp_path / "whole")
    assert log[0] == {"step": 1, "unused": spare} and not any("unused" in record for record in seen[1:])
    assert [record.get("step") for record in seen] == [record.get("step") for record in log[1:]]

    train(RECIPE, tmp_path / "parts", {"training.max_steps": 3}, device="cpu", display=recording())
    display = recording()
    train(RECIPE, tmp_path / "parts", resume=True, device="cpu", display=display)
    assert NOTE not in said(display) and records(tmp_path / "parts") == log


def test_check_tells_it(spare: list[str]) -> None:
    notes = [text for heading, text in dry_run.check(read(RECIPE), device="cpu") if heading == "note"]
    assert any(NOTE in note for note in notes)
