"""Warnings of trainings that are too short to learn, or slow without need, before their time is spent."""

from collections.abc import Iterator

import torch

from seq2attn.optim import SCHEDULES
from seq2attn.recipe.training import AnyLearningRecipe, fitted_interval, fitted_warmup
from seq2attn.runtime.devices import emulates_bf16

FEW_UPDATES = 300  # enough only for simple tasks, such as `languages`
FEW_STEPS = 20  # of which an update without effect is a noticeable part
LONG_WARMUP = 0.5  # a larger share of all updates leaves too few at the learning rate that was chosen


def advice(
    settings: AnyLearningRecipe,
    device: torch.device,
    total: int | None,
    per_epoch: int,
    examples: str,
    processes: int = 1,
) -> Iterator[str]:
    """Yield warnings of settings with which a training is unlikely to learn, or slow, or processes are idle,
    and what to set.

    total: the number of updates, None if it is unknown; per_epoch: of one epoch; examples: what they are
    called; processes: that train together.
    """
    if settings.precision == "bf16" and emulates_bf16(device):
        yield (
            "training.precision: this processor has no instructions for bf16, and is three times as fast "
            "in fp32: set fp32"
        )
    if settings.accumulate < processes:
        yield (
            f"training.accumulate: {settings.accumulate} of {processes} processes have a batch in an update, "
            f"and the others are idle: set it to {processes} or a multiple"
        )
    if total is None:
        return
    warmup = settings.schedule.options.get("warmup") or 0
    if total < FEW_UPDATES:
        # of two limits, the first that is reached
        limit = "max_steps" if total == settings.max_steps else "max_epochs"
        yield (
            f"training: {total:,} updates, {per_epoch:,} an epoch, are few: if the scores on the "
            f"dev set stay low, raise {limit}, lower {settings.batch_setting}, or use more {examples}"
        )
    if total < FEW_STEPS and not settings.schedule.make(SCHEDULES).factor(total, total):
        yield (
            f"training.schedule: at the last of {total:,} updates the learning rate is 0, so that it changes "
            "nothing: set `final`, for example to 0.1, or take constant"
        )
    if warmup >= LONG_WARMUP * total:
        yield (
            f"training.schedule.warmup: the learning rate rises for {warmup:,} of {total:,} updates"
            + (", and never reaches training.learning_rate" if warmup > total else "")
            + f": leave it out, for {fitted_warmup(total):,}"
        )
    if settings.validate_every is not None and settings.validate_every > total:
        yield (
            f"training.validate_every: {settings.validate_every:,} is more than all {total:,} updates, so "
            f"that only the last weights are validated: leave it out, for {fitted_interval(total):,}"
        )
