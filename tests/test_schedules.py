"""Learning rates at the steps that show the formula, and which parameters decay."""

import json
import math

import pytest
import torch
from torch import nn

from seq2attn.optim import (
    OPTIMIZERS,
    SCHEDULES,
    Cosine,
    InverseSqrt,
    Linear,
    Plateau,
    Schedule,
    optimizer,
)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Schedule(), {1: 1.0, 100: 1.0}),
        (Schedule(warmup=4), {1: 0.25, 3: 0.75, 4: 1.0, 5: 1.0, 100: 1.0}),
        (InverseSqrt(warmup=4), {1: 0.25, 2: 0.5, 4: 1.0, 16: 0.5, 64: 0.25}),
        (InverseSqrt(warmup=0), {1: 1.0, 4: 0.5, 100: 0.1}),
        (InverseSqrt(), {40: 0.01, 4000: 1.0, 16000: 0.5}),
        (Linear(), {1: 0.9, 5: 0.5, 10: 0.0, 11: 0.0}),
        (Linear(warmup=2, final=0.2), {1: 0.5, 2: 1.0, 4: 0.8, 6: 0.6, 10: 0.2, 20: 0.2}),
        (Cosine(), {5: 0.5, 10: 0.0, 11: 0.0}),
        (Cosine(warmup=2, final=0.2), {1: 0.5, 2: 1.0, 4: 0.6 + 0.4 * math.sqrt(0.5), 6: 0.6, 10: 0.2}),
        (Plateau(warmup=2), {1: 0.5, 2: 1.0, 100: 1.0}),
    ],
    ids=lambda value: type(value).__name__.lower() if isinstance(value, Schedule) else "",
)
def test_factors_are_the_formulas(schedule, factors):
    assert {step: schedule.factor(step, 10) for step in factors} == pytest.approx(factors)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_rises_to_its_warm_up_and_never_after(name):
    schedule = SCHEDULES[name](warmup=7)
    factors = [schedule.factor(step, 50) for step in range(1, 51)]
    assert all(0 <= factor <= 1 for factor in factors) and factors[6] == 1
    assert factors[:7] == sorted(factors[:7]) and factors[6:] == sorted(factors[6:], reverse=True)
    assert schedule.needs_total == (name in ("linear", "cosine"))
    if not schedule.needs_total:
        assert schedule.factor(30, None) == schedule.factor(30, 50)


def after(schedule: Plateau, validations: str) -> list[float]:
    """The factor after each validation: + is the best so far, - is not."""
    factors = []
    for validation in validations:
        schedule.validated(validation == "+")
        factors.append(schedule.factor(9, None))
    return factors


def test_plateau_falls_when_patience_is_over():
    assert after(Plateau(), "+--+---+---") == [1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]
    assert after(Plateau(decay=0.1, patience=0), "+--") == pytest.approx([1, 0.1, 0.01])


def test_plateau_goes_on_exactly():
    whole, first, second = Plateau(), Plateau(), Plateau()
    expected = after(whole, "+---+------+--")
    begun = after(first, "+---+--")
    second.restore(json.loads(json.dumps(first.state())))
    assert begun + after(second, "----+--") == expected
    assert second.state() == whole.state()


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "plateau"])
def test_other_schedules_remember_nothing(name):
    schedule = SCHEDULES[name]()
    before = schedule.factor(30, 50)
    schedule.validated(improved=False)
    schedule.restore(schedule.state())
    assert schedule.state() == {} and schedule.factor(30, 50) == before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_matrices_decay_and_vectors_do_not(name):
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Embedding(11, 3))
    made = optimizer(name, model.parameters(), learning_rate=0.01, weight_decay=0.1)
    assert {group["weight_decay"]: {p.dim() for p in group["params"]} for group in made.param_groups} == {
        0.1: {2},
        0.0: {1},
    }
    assert sum(len(group["params"]) for group in made.param_groups) == len(list(model.parameters()))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert moved == [parameter.dim() > 1 for parameter in model.parameters()]


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.9), "eps": 1e-6}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.9), "eps": 1e-6}),
        ("sgd", torch.optim.SGD, {"momentum": 0.7}),
    ],
)
def test_options_reach_the_optimizer(name, kind, options):
    made = optimizer(name, nn.Linear(5, 7).parameters(), 0.01, **options)
    assert type(made) is kind
    for group in made.param_groups:
        assert {"lr": 0.01, **options}.items() <= group.items()
