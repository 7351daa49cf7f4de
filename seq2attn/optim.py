"""Optimizers, and the learning rate as a function of the step.

A schedule's keyword-only parameters are its options in a recipe. `factor(step)` multiplies the recipe's
`learning_rate`; the step counts updates from 1. Only `plateau` depends on validation.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Gt, Le
from torch import nn

from seq2attn.registry import Registry

Count = Annotated[int, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]

FUSED = ("cpu", "cuda", "mps")  # devices on which torch has a fused kernel for Adam


class Schedule:
    """A constant learning rate, after a linear rise from 0 over `warmup` steps.

    In a recipe, warmup: null follows the training data; here it is `unfitted`.
    """

    needs_total = False  # True: the number of the last step must be known
    unfitted = 0  # warm-up where there are no training data

    def __init__(self, *, warmup: Count | None = None) -> None:
        self.warmup = self.unfitted if warmup is None else warmup

    def factor(self, step: int, total: int | None) -> float:
        """Return the factor at a step; `total` is the number of steps, None if it is not known."""
        return (
            min(1.0, step / self.warmup) * self.after(step, total) if self.warmup else self.after(step, total)
        )

    def after(self, step: int, total: int | None) -> float:
        """Return the factor without the warm-up."""
        return 1.0

    def validated(self, improved: bool) -> None:
        """Called after each validation; `improved` if its score is the best so far."""

    def state(self) -> dict[str, float]:
        """Return the state that a checkpoint keeps, from which training resumes exactly."""
        return {}

    def restore(self, state: dict[str, float]) -> None:
        """Resume from a state."""


class InverseSqrt(Schedule):
    """Peaks at the end of the warm-up, then falls as 1 / sqrt(step) (Vaswani et al. 2017)."""

    unfitted = 4000

    def after(self, step: int, total: int | None) -> float:
        """Return sqrt(warmup / step) after the warm-up, 1 within it."""
        return math.sqrt(max(self.warmup, 1) / max(step, self.warmup, 1))


class Linear(Schedule):
    """Falls linearly to `final` at the last step, a share of the learning rate; needs max_steps or
    max_epochs."""

    needs_total = True

    def __init__(self, *, warmup: Count | None = None, final: Share = 0.0) -> None:
        super().__init__(warmup=warmup)
        self.final = final

    def progress(self, step: int, total: int | None) -> float:
        """Return the share of the steps after the warm-up that are done: from 0 to 1."""
        return min(1.0, max(0, step - self.warmup) / max(1, (total or step) - self.warmup))

    def after(self, step: int, total: int | None) -> float:
        """Return a point on a line from 1 to `final`."""
        return 1.0 + (self.final - 1.0) * self.progress(step, total)


class Cosine(Linear):
    """Falls as half a cosine to `final` at the last step, a share of the learning rate (Loshchilov & Hutter
    2017)."""

    def after(self, step: int, total: int | None) -> float:
        """Return a point on half a cosine from 1 to `final`."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * self.progress(step, total))) / 2


class Plateau(Schedule):
    """Multiplied by `decay` whenever more than `patience` validations in a row brought no improvement."""

    def __init__(
        self,
        *,
        warmup: Count | None = None,
        decay: Annotated[float, Gt(0), Le(1)] = 0.5,
        patience: Count = 2,
    ) -> None:
        super().__init__(warmup=warmup)
        self.decay, self.patience = decay, patience
        self.current, self.waited = 1.0, 0

    def after(self, step: int, total: int | None) -> float:
        """Return the factor that the validations so far have led to."""
        return self.current

    def validated(self, improved: bool) -> None:
        """Count validations without improvement; lower the factor when there are too many."""
        self.waited = 0 if improved else self.waited + 1
        if self.waited > self.patience:
            self.current, self.waited = self.current * self.decay, 0

    def state(self) -> dict[str, float]:
        """Return the factor and the number of validations since the last improvement."""
        return {"current": self.current, "waited": self.waited}

    def restore(self, state: dict[str, float]) -> None:
        """Resume from a state."""
        self.current, self.waited = state["current"], int(state["waited"])


SCHEDULES: Registry[type[Schedule]] = Registry("SCHEDULES", Schedule)
SCHEDULES |= {
    "constant": Schedule,
    "inverse_sqrt": InverseSqrt,
    "linear": Linear,
    "cosine": Cosine,
    "plateau": Plateau,
}


class Hyperparameters(NamedTuple):
    """The settings of all optimizers; each uses those that it has."""

    learning_rate: float
    betas: tuple[float, float]
    eps: float
    momentum: float
    fused: bool  # use torch's fused kernel


Groups = list[dict[str, Any]]


def _adam(kind: type[torch.optim.Adam], groups: Groups, settings: Hyperparameters) -> torch.optim.Optimizer:
    return kind(
        groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps, fused=settings.fused
    )


def _sgd(groups: Groups, settings: Hyperparameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


OPTIMIZERS: dict[str, Callable[[Groups, Hyperparameters], torch.optim.Optimizer]] = {
    "adamw": partial(_adam, torch.optim.AdamW),
    "adam": partial(_adam, torch.optim.Adam),
    "sgd": _sgd,
}


def optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.0,
) -> torch.optim.Optimizer:
    """Make one of OPTIMIZERS. Call it once the parameters are on their device.

    Weight decay applies to matrices only, not to vectors (biases, norms), as is usual for Adam.
    """
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = all(parameter.device.type in FUSED for parameter in parameters)
    return OPTIMIZERS[name](groups, Hyperparameters(learning_rate, betas, eps, momentum, fused))
