"""Trainings that cannot learn are noticed before they begin."""

from typing import Any

import pytest
import torch

from seq2attn.recipe import read
from seq2attn.runtime.devices import emulates_bf16
from seq2attn.training.advice import advice

CPU = torch.device("cpu")


def said(total: int | None, *overrides: str, per_epoch: int = 50) -> list[str]:
    settings = read("quickstart", overrides).training
    return list(advice(settings, CPU, total, per_epoch, "pairs"))


@pytest.mark.parametrize("total", [300, 1155, None])
def test_a_training_that_can_learn_is_not_commented_on(total: Any) -> None:
    assert said(total, "training.schedule.warmup=100", "training.validate_every=200") == []


def test_too_few_updates() -> None:
    (line,) = said(60, "training.schedule=constant", "training.validate_every=60")
    assert line == (
        "training: 60 updates, 50 an epoch, are few: if the scores on the dev set stay low, raise max_epochs, "
        f"lower training.batch_tokens (now {read('quickstart').training.batch_tokens:,}), or use more pairs"
    )
    (line,) = said(60, "training.schedule=constant", "training.validate_every=60", "training.max_epochs=null",
                   "training.max_steps=60")  # fmt: skip
    assert "raise max_steps, lower" in line
    for steps, limit in ((60, "max_steps"), (61, "max_epochs")):  # the one that ends training
        (line,) = said(60, "training.schedule=constant", "training.validate_every=60",
                       f"training.max_steps={steps}")  # fmt: skip
        assert f"raise {limit}, lower" in line


@pytest.mark.parametrize(("warmup", "never"), [(500, False), (1000, False), (4000, True)])
def test_a_warmup_that_takes_most_of_the_training(warmup: int, never: bool) -> None:
    (line,) = said(1000, f"training.schedule={{name: inverse_sqrt, warmup: {warmup}}}")
    assert line.startswith(
        f"training.schedule.warmup: the learning rate rises for {warmup:,} of 1,000 updates"
    )
    assert ("never reaches training.learning_rate" in line) == never
    assert line.endswith(": leave it out, for 100")


def test_no_validation_before_the_end() -> None:
    (line,) = said(1000, "training.validate_every=1001")
    assert line == (
        "training.validate_every: 1,001 is more than all 1,000 updates, so that only the last weights are validated: "
        "leave it out, for 100"
    )
    assert said(1000, "training.validate_every=1000") == []


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_an_update_without_effect_is_noticed_where_it_counts(name: str) -> None:
    def noticed(total: int, final: float) -> bool:
        lines = said(total, f"training.schedule={{name: {name}, warmup: 0, final: {final}}}")
        return any(line.startswith("training.schedule: at the last of") for line in lines)

    assert noticed(1, 0.0) and noticed(19, 0.0)
    assert not noticed(20, 0.0) and not noticed(1, 0.1)


def test_processes_without_a_batch_in_an_update() -> None:
    settings = read("quickstart", ["training.accumulate=2"]).training
    (line,) = advice(settings, CPU, None, 50, "pairs", processes=4)
    assert line == (
        "training.accumulate: 2 of 4 processes have a batch in an update, and the others are idle: set it to 4 or "
        "a multiple"
    )
    assert not [*advice(settings, CPU, None, 50, "pairs", processes=2)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "known", [{}, {"amx_bf16": True}, {"avx512_bf16": True}, {"architecture": "aarch64"}]
)
def test_bf16_is_advised_against_where_it_is_slow(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, Any], precision: str
) -> None:
    capabilities = {"architecture": "x86_64", "amx_bf16": False, "avx512_bf16": False, **known}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    lines = said(
        300, "training.schedule=constant", "training.validate_every=200", f"training.precision={precision}"
    )
    expected = "training.precision: this processor has no instructions for bf16"
    assert [line.startswith(expected) for line in lines] == [True] * (precision == "bf16" and not known)


def test_no_advice_for_gpus_and_older_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not emulates_bf16(torch.device("cpu"))
    assert not emulates_bf16(torch.device("cuda"))
