"""Optimizers, and the learning rate as a function of the step.

A schedule's keyword-only parameters are its options in a recipe. `factor(step)` multiplies the recipe's
`learning_rate`; the step counts updates from 1. Only `plateau` looks at validation.
"""

import math
from collections.abc import Iterable
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import nn

Count = Annotated[int, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]

OPTIMIZERS = ("adamw", "adam", "sgd")
FUSED = ("cpu", "cuda", "mps")  # devices for which torch has Adam as one kernel


class Schedule:
    """The constant learning rate, and the base of the others; `warmup` steps rise linearly from 0."""

    needs_total = False  # True: the last step must be known

    def __init__(self, *, warmup: Count = 0) -> None:
        self.warmup = warmup

    def factor(self, step: int, total: int | None) -> float:
        """The factor at a step, of `total` steps if that is known."""
        return (
            min(1.0, step / self.warmup) * self.after(step, total) if self.warmup else self.after(step, total)
        )

    def after(self, step: int, total: int | None) -> float:
        """The factor without the warm-up."""
        return 1.0

    def validated(self, improved: bool) -> None:
        """Told after each validation whether it was the best so far."""

    def state(self) -> dict[str, float]:
        """What must be kept to go on exactly."""
        return {}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from a state."""


class InverseSqrt(Schedule):
    """Peaks at the end of the warm-up, then falls as 1 / sqrt(step) (Vaswani et al. 2017)."""

    def __init__(self, *, warmup: Count = 4000) -> None:
        super().__init__(warmup=warmup)

    def after(self, step: int, total: int | None) -> float:
        """sqrt(warmup / step) behind the warm-up."""
        return math.sqrt(max(self.warmup, 1) / max(step, self.warmup, 1))


class Linear(Schedule):
    """Falls linearly to `final` at the last step; needs max_steps or max_epochs."""

    needs_total = True

    def __init__(self, *, warmup: Count = 0, final: Share = 0.0) -> None:
        super().__init__(warmup=warmup)
        self.final = final

    def progress(self, step: int, total: int | None) -> float:
        """0 at the end of the warm-up, 1 at the last step."""
        return min(1.0, max(0, step - self.warmup) / max(1, (total or step) - self.warmup))

    def after(self, step: int, total: int | None) -> float:
        """A line from 1 to `final`."""
        return 1.0 + (self.final - 1.0) * self.progress(step, total)


class Cosine(Linear):
    """Falls as half a cosine to `final` at the last step (Loshchilov & Hutter 2017)."""

    def after(self, step: int, total: int | None) -> float:
        """Half a cosine from 1 to `final`."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * self.progress(step, total))) / 2


class Plateau(Schedule):
    """Multiplied by `decay` whenever `patience` validations in a row have brought nothing better."""

    def __init__(
        self, *, warmup: Count = 0, decay: Annotated[float, Gt(0), Le(1)] = 0.5, patience: Count = 2
    ) -> None:
        super().__init__(warmup=warmup)
        self.decay, self.patience = decay, patience
        self.current, self.waited = 1.0, 0

    def after(self, step: int, total: int | None) -> float:
        """The factor that validation has led to."""
        return self.current

    def validated(self, improved: bool) -> None:
        """See the class."""
        self.waited = 0 if improved else self.waited + 1
        if self.waited > self.patience:
            self.current, self.waited = self.current * self.decay, 0

    def state(self) -> dict[str, float]:
        """The factor and how long nothing has improved."""
        return {"current": self.current, "waited": self.waited}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from a state."""
        self.current, self.waited = state["current"], int(state["waited"])


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Schedule,
    "inverse_sqrt": InverseSqrt,
    "linear": Linear,
    "cosine": Cosine,
    "plateau": Plateau,
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
    """One of OPTIMIZERS, for parameters where they are to stay. Weight decay spares vectors (biases, norms),
    as is usual for Adam."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)
    adam = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    fused = all(parameter.device.type in FUSED for parameter in parameters)
    return adam(groups, lr=learning_rate, betas=betas, eps=eps, fused=fused)
