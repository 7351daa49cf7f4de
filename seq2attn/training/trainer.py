"""A model while it is trained: one update, with optimizer, schedule, scaler and moving average."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from seq2attn.data.batches import AnyBatch
from seq2attn.layers.spectral_norm import power_iterations
from seq2attn.models.recomputing import recompute_layers
from seq2attn.optim import SCHEDULES, Schedule, optimizer
from seq2attn.recipe import AnyLearningRecipe
from seq2attn.runtime.devices import autocast
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.training.buffers import SharedBuffers
from seq2attn.training.objectives import Losses, Objective
from seq2attn.training.pace import Pace
from seq2attn.training.sharding import (
    clip,
    like,
    load_state,
    shard,
    summed_here,
    syncs_after,
    unfuse,
    whole,
)
from seq2attn.training.turns import ALL, Turn, averaged_of, only, players_of, turns_of
from seq2attn.training.weights import Weights, load_weights, move_average, tensors_of, weights_of

# Power iterations for averaged weights: the mean of singular vectors is none, and shorter than 1.
SETTLING = 10


class UpdateStats(NamedTuple):
    """The loss, the gradient and the learning rate of one update."""

    loss: float  # smoothed, per token, in nats; the sum over all turns
    norm: float  # of the gradient, before clipping; over all turns
    learning_rate: float  # that of the recipe, as the schedule has it
    tokens: int  # target tokens
    parts: dict[str, float]  # the additional losses by name, per token, before their factors
    # names of trained parameters that have got no gradient from any batch: in the first turn of each player
    unused: list[str]


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
        self.group, self.pace = group, Pace()
        self.unused: dict[str, list[str]] = {}  # see UpdateStats; by player, if it has had a turn
        group.copy_from_first(tensors_of(self.model).values())  # all start alike
        if recipe.gradient_checkpointing:
            recompute_layers(self.model)
        self.sharded = recipe.sharded and group.size > 1
        if self.sharded:
            shard(self.model)
        self.optimizers = {
            player: optimizer(
                recipe.optimizer,
                model.get_submodule(player).parameters(),
                recipe.rate_of(player),
                recipe.weight_decay,
                recipe.betas,
                recipe.eps,
                recipe.momentum,
            )
            for player in players_of(objective)
        }
        if self.sharded:
            unfuse(self.optimizers.values())
        self.schedule: Schedule = recipe.schedule.make(SCHEDULES)
        self.still = [module for module in model.modules() if _is_frozen_norm(module)]
        self.moving_average: Weights | None = None
        if recipe.ema:
            self.moving_average = {name: tensor.clone() for name, tensor in self._averaged_tensors().items()}
        autocast(device, recipe.precision)  # raises now if the device does not support the precision
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")

    def update(self, batches: Sequence[AnyBatch], step: int, company: AnyBatch | None = None) -> UpdateStats:
        """Make one update from its batches: those that are this process's share.

        Losses are summed over the tokens of all batches and divided once, so that the gradient does not
        depend on how an update is split into batches and processes. Where only the losses tell by what
        (`Losses.divisor`), the gradient is corrected after the last batch. Raises FloatingPointError if the
        loss or the gradient is not finite; the weights of who had that turn, and of those after, are then
        unchanged.

        company: the update's first batch, in a process that has one batch less than others: a sharded model
        computes in all processes together. It does not count.
        """
        self.model.train()
        for module in self.still:
            module.eval()
        factor = self.schedule.factor(step, self.total)
        counts = self.group.all([sum(batch.num_targets for batch in batches), len(batches)])
        tokens, num_batches = map(sum, zip(*counts, strict=True))
        loss, norms, parts = 0.0, list[float](), dict[str, float]()
        turns, seen = turns_of(self.objective, step), {*self.unused}
        for number, turn in enumerate(turns):
            buffers = SharedBuffers(self.model, num_batches, self.group)
            at = step, number
            own_loss, norm, own_parts = self._take(turn, batches, company, at, buffers, factor, tokens)
            loss, parts = loss + own_loss, parts | own_parts
            norms.append(norm)
        self.scaler.update()
        if self.moving_average is not None and averaged_of(self.objective) in {turn.player for turn in turns}:
            move_average(self.moving_average, self._averaged_tensors(), self.recipe.ema, step)
        self.objective.updated(self.group)
        unused = [name for player, names in self.unused.items() if player not in seen for name in names]
        learning_rate = self.recipe.learning_rate * factor
        return UpdateStats(loss, math.hypot(*norms), learning_rate, tokens, parts, unused)

    def _take(
        self,
        turn: Turn,
        batches: Sequence[AnyBatch],
        company: AnyBatch | None,
        at: tuple[int, int],
        buffers: SharedBuffers,
        factor: float,
        tokens: int,
    ) -> tuple[float, float, dict[str, float]]:
        """Take a turn, with its step and number; return its loss, norm, and additional losses."""
        mover, targets = self.optimizers[turn.player], max(1, tokens)
        for group in mover.param_groups:
            group["lr"] = self.recipe.rate_of(turn.player) * factor
        sums = dict[int, tuple[float, float, dict[str, float]]]()  # by the index of the batch in the update
        with only(self.model, turn.player) as player:
            for number, batch in enumerate(batches):
                index = self.group.rank + number * self.group.size
                seed_batch(self.seed, at[0], index, at[1])
                syncs_after(self.model, company is None and number == len(batches) - 1)
                with self.pace.own():
                    losses = self._losses(turn, batch.to(self.device))
                    self.scaler.scale(losses.whole / targets).backward()
                    others = {name: part.item() / targets for name, part in losses.parts.items()}
                    sums[index] = losses.loss.item() / targets, losses.divisor_in(batch), others
                buffers.batch_done()
            if company is not None:
                seed_batch(self.seed, at[0], 0, at[1])
                syncs_after(self.model, True)
                (0 * self._losses(turn, company.to(self.device)).whole).backward()  # no buffer, no loss
            buffers.update_done()
            self.group.add_gradients(summed_here(player))
            if turn.player not in self.unused:
                self.unused[turn.player] = _without_gradient(self.model)
            self.scaler.unscale_(mover)
            total, parts = _divided(player, self.group.merged(sums), targets)
            norm = clip(player.parameters(), self.recipe.clip or math.inf)
        # With fp16 the scaler handles infinite gradients: it skips the step and lowers its scale.
        finite = math.isfinite(total + sum(parts.values()))
        if not finite or not (self.scaler.is_enabled() or math.isfinite(norm)):
            raise FloatingPointError(f"the loss is {total}, the gradient's norm {norm}")
        self.scaler.step(mover)
        mover.zero_grad(set_to_none=True)
        return total, norm, parts

    def _losses(self, turn: Turn, batch: AnyBatch) -> Losses:
        with autocast(self.device, self.recipe.precision):
            output = turn.forward(self.model, batch)
        return turn.loss(output, batch)

    def _averaged_tensors(self) -> Weights:
        """Return the tensors that the moving average is of, not copied."""
        prefix = averaged_of(self.objective)
        return {name: tensor for name, tensor in tensors_of(self.model).items() if name.startswith(prefix)}

    @contextlib.contextmanager
    def averaged(self) -> Iterator[Weights]:
        """Give the model the moving average, if there is one, for validation; yield the model's weights."""
        trained = weights_of(self.model)
        if self.moving_average is None:
            yield trained
            return
        load_weights(self.model, trained | self.moving_average)
        power_iterations(self.model, SETTLING)
        try:
            yield weights_of(self.model)
        finally:
            load_weights(self.model, trained)

    def state(self) -> dict[str, Any]:
        """Return everything that changes in training, for `restore`."""
        states = {player: whole(one.state_dict()) for player, one in self.optimizers.items()}
        return {
            "model": weights_of(self.model),
            "optimizer": states.get(ALL, states),
            "schedule": self.schedule.state(),
            "moving": whole(self.moving_average),
            "scaler": self.scaler.state_dict(),
            "objective": self.objective.state(),
            "unused": {**self.unused},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly from a state that `state` returned."""
        load_weights(self.model, state["model"])
        for player, one in self.optimizers.items():
            load_state(one, state["optimizer"][player] if player else state["optimizer"])
        self.schedule.restore(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        if self.moving_average is not None:
            trained = self._averaged_tensors()
            self.moving_average = {
                name: like(trained[name], tensor.to(self.device)) for name, tensor in state["moving"].items()
            }
        self.objective.restore(state["objective"])
        self.unused = {**state.get("unused", {})}


def _is_frozen_norm(module: nn.Module) -> bool:
    """Whether a module has buffers, such as running statistics, and only parameters that are not trained: it
    then stays as it is."""
    parameters = [*module.parameters(recurse=False)]
    has_buffers = next(module.buffers(recurse=False), None) is not None
    return has_buffers and bool(parameters) and not any(part.requires_grad for part in parameters)


def _without_gradient(model: nn.Module) -> list[str]:
    """Return the names of parameters that should get a gradient, and have none."""
    return [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]


def _divided(
    player: nn.Module, sums: Sequence[tuple[float, float, dict[str, float]]], targets: int
) -> tuple[float, dict[str, float]]:
    """Return the loss and the additional losses of an update from those of its batches, which are already
    divided by the number of targets. Where another number divides them, gradients are corrected, too."""
    total, divisor, parts = 0.0, 0.0, dict[str, float]()
    for loss, of_batch, others in sums:
        total, divisor = total + loss, divisor + of_batch
        parts = {name: parts.get(name, 0.0) + part for name, part in others.items()}
    if (factor := targets / max(divisor, 1.0)) != 1:
        total, parts = factor * total, {name: factor * part for name, part in parts.items()}
        for parameter in player.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
    return total, parts


def seed_batch(seed: int, step: int, index: int, turn: int = 0) -> None:
    """Seed torch, on all devices, for one batch of a turn of an update."""
    entropy = [seed, step, index, *([turn] if turn else [])]
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
