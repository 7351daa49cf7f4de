"""The batch size `auto`: the largest that fits into the memory of the device, found by trial."""

import gc
from collections.abc import Callable
from typing import Any

import torch

from seq2attn.data.batch_plan import Indices
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.data.examples import ExampleSet
from seq2attn.errors import Seq2attnError
from seq2attn.recipe import AnyLearningRecipe
from seq2attn.runtime.devices import out_of_memory
from seq2attn.tasks.task import Task
from seq2attn.training.run_folder import RunError
from seq2attn.training.trainer import Trainer

AUTO = "auto"
USED = 0.9  # share of the memory: the rest is for what differs between batches and gets fragmented
SMALLEST, LARGEST = 64, 1 << 22  # sizes that are tried
PRECISION = 16  # the size is found to a 16th of it
UPDATES = 1000  # that the trial's training would have
PLANNED = 20_000  # batches among which the widest one is looked for


def with_batch_size(
    task: Task[Any], training: ExampleSet, device: torch.device, say: Callable[[str], object]
) -> Task[Any]:
    """Return the task with the largest size of a batch that the device's memory holds, if its recipe leaves
    that to the device; `say` is then called with a line about it.

    Raises:
        RunError: the device is no GPU, or holds no batch at all.
    """
    settings = task.recipe.training
    key = settings.batch_key
    if getattr(settings, key) != AUTO:
        return task
    require_gpu(settings, device)

    def with_size(size: int) -> Task[Any]:
        sized = settings.model_copy(update={key: size})
        return task.with_recipe(task.recipe.model_copy(update={"training": sized}))

    size = largest(lambda size: _peak(with_size(size), training, device) <= USED)
    if not size:
        raise RunError(
            f"training.{key}: auto: not even {SMALLEST} fit into the memory of {device}: make the model "
            "smaller"
        )
    say(f"training.{key}: {size:,}, the largest that fits into {USED:.0%} of the memory of {device}")
    return with_size(size)


def require_gpu(settings: AnyLearningRecipe, device: torch.device) -> None:
    """Raise RunError if the size of a batch is left to the device, and that is no GPU."""
    key = settings.batch_key
    if getattr(settings, key) == AUTO and device.type != "cuda":
        raise RunError(
            f"training.{key}: auto needs a GPU, and this is {device.type}: there the largest batch is no "
            "faster, and a process that takes more memory than there is gets killed: set a number"
        )


def largest(fits: Callable[[int], bool]) -> int:
    """Return the largest size that fits, to a 16th of it; 0 if the smallest one does not.

    Sizes are doubled until one does not fit, and then halved between the last two.
    """
    size, step = 0, SMALLEST
    while step <= LARGEST and fits(step):
        size, step = step, 2 * step
    if not size or step > LARGEST:
        return size
    above = step
    while above - size > max(1, size // PRECISION):
        middle = (size + above) // 2
        size, above = (middle, above) if fits(middle) else (size, middle)
    return size


def _peak(task: Task[Any], training: ExampleSet, device: torch.device) -> float:
    """Return the share of the memory that an update with the widest batch takes; infinity: it is too much."""
    _free(device)
    torch.cuda.reset_peak_memory_stats(device)
    total = torch.cuda.get_device_properties(device).total_memory
    others = total - torch.cuda.mem_get_info(device)[0] - torch.cuda.memory_reserved(device)
    try:
        try_update(task, training, device)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return float("inf")
    finally:
        _free(device)
    return float((torch.cuda.max_memory_allocated(device) + others) / total)


def try_update(task: Task[Any], training: ExampleSet, device: torch.device) -> None:
    """Make an update of a new model with the widest batch, without an effect on random numbers."""
    settings = task.recipe.training.fitted(UPDATES, UPDATES)
    loader = task.loader(training, training=True)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        model = task.build()
        trainer = Trainer(model, task.objective(model, training=True), settings, device, UPDATES)
        batch = loader.batch(widest(loader, task.costs(training)), 0)
        try:
            trainer.update([batch], 1)
        except FloatingPointError as error:
            raise Seq2attnError(f"the first update of a trial of the batch size: {error}") from error


def widest(loader: AnyBatchLoader, costs: Any) -> Indices:
    """Return the batch of an epoch whose examples, padded, take most memory."""
    batches = loader.epoch(0)[:PLANNED]
    return max(batches, key=lambda indices: len(indices) * int(costs[indices].max()))


def _free(device: torch.device) -> None:
    gc.collect()
    torch.cuda.empty_cache()
