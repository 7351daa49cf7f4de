"""Measure what gradient checkpointing saves and costs: memory kept for the backward pass, and time.

    python scripts/bench_recomputing.py                                   # a Transformer of 3 layers of 256
    python scripts/bench_recomputing.py --model base --tokens 4096

Memory is what autograd has stored when the loss is known, counted once for each storage and without the
weights; it is the same on any device, but for fused kernels. Time is CPU time of updates in turns, with and
without; each model makes one update before.
"""

import argparse
import statistics
import time

import torch
from bench_models import MODELS, Synthetic, positive, task
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from seq2attn.data.batches import Batch
from seq2attn.training.trainer import Trainer

LENGTH = 31  # tokens of a sentence, without </s>


def main() -> None:
    """Print memory and time without and with recomputing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", choices=[name for name, one in MODELS.items() if "feed" in str(one)])
    parser.add_argument("--tokens", type=positive, default=1024, help="of a batch; 1024 by default")
    parser.add_argument("--turns", type=positive, default=3)
    options = parser.parse_args()
    trainers = [_trainer(options.model or "transformer", flag) for flag in (False, True)]
    batch = _batch(options.model or "transformer", options.tokens)
    kept = [_kept(trainer, batch) for trainer in trainers]
    seconds: list[list[float]] = [[], []]
    for turn in range(options.turns + 1):
        for number, trainer in enumerate(trainers):
            begun = time.process_time()
            trainer.update([batch], turn + 1)
            if turn:
                seconds[number].append(time.process_time() - begun)
    without, with_it = map(statistics.median, seconds)
    print(f"{options.model or 'transformer'}, {batch.shape}, {torch.get_num_threads()} threads")
    print(f"kept for the backward pass: {kept[0] / 2**20:.0f} MiB without, {kept[1] / 2**20:.0f} MiB with")
    print(
        f"CPU time of an update: {without:.2f} s without, {with_it:.2f} s with, {with_it / without:.2f} times"
    )


def _trainer(model: str, recomputing: bool) -> Trainer:
    made = task(model, None, gradient_checkpointing=recomputing)
    torch.manual_seed(1)
    network, device = made.build(), torch.device("cpu")
    return Trainer(network, made.objective(network, training=True), made.recipe.training, device, 1000)


def _batch(model: str, tokens: int) -> Batch:
    made = task(model, None, batch_tokens=tokens)
    loader = made.loader(Synthetic(LENGTH, LENGTH, 8000, count=tokens), training=True)  # type: ignore[arg-type]
    return loader.batch(loader.epoch(0)[0])


def _kept(trainer: Trainer, batch: Batch) -> int:
    """Return the bytes that are stored for the backward pass."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    stored: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    trainer.model.train()
    with saved_tensors_hooks(count, lambda tensor: tensor):
        output = trainer.objective.forward(trainer.model, batch)
        loss = trainer.objective.loss(output, batch).whole
    loss.backward()
    trainer.model.zero_grad()
    return sum(stored.values())


if __name__ == "__main__":
    main()
