"""A model while it is trained: one update, with optimizer, schedule, scaler and moving average."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from seq2attn.data.batches import AnyBatch
from seq2attn.optim import SCHEDULES, Schedule, optimizer
from seq2attn.recipe import AnyLearningRecipe
from seq2attn.runtime.devices import autocast
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.training.buffers import SharedBuffers
from seq2attn.training.objectives import Losses, Objective
from seq2attn.training.weights import Weights, load_weights, move_average, tensors_of, weights_of


class UpdateStats(NamedTuple):
    """The loss, the gradient and the learning rate of one update."""

    loss: float  # smoothed, per token, in nats
    norm: float  # of the gradient, before clipping
    learning_rate: float
    tokens: int  # target tokens
    parts: dict[str, float]  # the additional losses by name, per token, before their factors


class Trainer:
    """A model with everything that changes while it is trained: optimizer, schedule, moving average.

    Random numbers of an update (dropout, sampled attention) are seeded by (seed, step, index of the batch in
    the update). So a checkpoint needs no generator states, and a batch gives the same result in any process.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        recipe: AnyLearningRecipe,
        device: torch.device,
        total: int | None,
        seed: int = 1,
        group: Group = ALONE,
    ) -> None:
        self.model, self.objective = model.to(device), objective
        self.recipe, self.device, self.total, self.seed = recipe, device, total, seed
        self.group = group
        load_weights(self.model, group.from_first(lambda: weights_of(self.model)))  # all start alike
        self.optimizer = optimizer(
            recipe.optimizer,
            model.parameters(),
            recipe.learning_rate,
            recipe.weight_decay,
            recipe.betas,
            recipe.eps,
            recipe.momentum,
        )
        self.schedule: Schedule = recipe.schedule.make(SCHEDULES)
        self.moving_average: Weights | None = None
        if recipe.ema:
            self.moving_average = {name: tensor.clone() for name, tensor in tensors_of(self.model).items()}
        autocast(device, recipe.precision)  # raises now if the device does not support the precision
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")

    def update(self, batches: Sequence[AnyBatch], step: int) -> UpdateStats:
        """Make one update from its batches: those that are this process's share.

        Losses are summed over the tokens of all batches and divided once, so that the gradient does not
        depend on how an update is split into batches and processes. Where only the losses tell by what
        (`Losses.divisor`), the gradient is corrected after the last batch. Raises FloatingPointError if the
        loss or the gradient is not finite; the weights are then unchanged.
        """
        self.model.train()
        rate = self.recipe.learning_rate * self.schedule.factor(step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        counts = self.group.all([sum(batch.num_targets for batch in batches), len(batches)])
        tokens, num_batches = map(sum, zip(*counts, strict=True))
        divided = max(1, tokens)
        buffers = SharedBuffers(self.model, num_batches)
        sums = dict[int, tuple[float, float, dict[str, float]]]()  # by the index of the batch in the update
        for number, batch in enumerate(batches):
            index = self.group.rank + number * self.group.size
            seed_batch(self.seed, step, index)
            losses = self._losses(batch.to(self.device))
            self.scaler.scale(losses.whole / divided).backward()
            parts = {name: part.item() / divided for name, part in losses.parts.items()}
            sums[index] = losses.loss.item() / divided, losses.divisor_in(batch), parts
            buffers.batch_done()
        buffers.update_done(self.group)
        self.group.add_gradients(self.model.parameters())
        total, divisor, parts = 0.0, 0.0, dict[str, float]()
        for loss, of_batch, others in self.group.merged(sums):
            total, divisor = total + loss, divisor + of_batch
            parts = {name: parts.get(name, 0.0) + part for name, part in others.items()}
        self.scaler.unscale_(self.optimizer)
        if (rescaled := divided / max(divisor, 1.0)) != 1:
            total, parts = rescaled * total, {name: rescaled * part for name, part in parts.items()}
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(rescaled)
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip or math.inf))
        # With fp16 the scaler handles infinite gradients: it skips the step and lowers its scale.
        finite = math.isfinite(total + sum(parts.values()))
        if not finite or not (self.scaler.is_enabled() or math.isfinite(norm)):
            raise FloatingPointError(f"the loss is {total}, the gradient's norm {norm}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.moving_average is not None:
            move_average(self.moving_average, tensors_of(self.model), self.recipe.ema, step)
        self.objective.updated(self.group)
        return UpdateStats(total, norm, rate, tokens, parts)

    def _losses(self, batch: AnyBatch) -> Losses:
        with autocast(self.device, self.recipe.precision):
            output = self.objective.forward(self.model, batch)
        return self.objective.loss(output, batch)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[Weights]:
        """Give the model the moving average, if there is one, for validation; yield the model's weights."""
        trained = weights_of(self.model)
        if self.moving_average is None:
            yield trained
            return
        load_weights(self.model, self.moving_average)
        try:
            yield self.moving_average
        finally:
            load_weights(self.model, trained)

    def state(self) -> dict[str, Any]:
        """Return everything that changes in training, for `restore`."""
        return {
            "model": weights_of(self.model),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state(),
            "moving": self.moving_average,
            "scaler": self.scaler.state_dict(),
            "objective": self.objective.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly from a state that `state` returned."""
        load_weights(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.restore(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        if self.moving_average is not None:
            self.moving_average = {name: tensor.to(self.device) for name, tensor in state["moving"].items()}
        self.objective.restore(state["objective"])


def seed_batch(seed: int, step: int, index: int) -> None:
    """Seed torch, on all devices, for one batch of an update."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, index]).generate_state(1)[0]))
