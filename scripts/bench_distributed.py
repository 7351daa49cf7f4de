"""Measure training in several processes on the cores of one machine, beside one process with as many threads.

    python scripts/bench_distributed.py                          # up to 2 processes, a small Transformer
    python scripts/bench_distributed.py --processes 1,2,4 --model additive --tokens 2048 --updates 20

Each case computes the same updates: `accumulate` batches of random ids, over all of its processes. One case
is a single process with as many threads as the largest case has processes; the others have one thread in
each. Wall time is measured, so nothing else may use the cores; cases take turns, and medians are shown.
Cases with several processes train as seq2attn does, with `training.sharded`, and, to compare, with torch's
`DistributedDataParallel` in a plain loop. Exchanges are the share of an update in which gradients are summed,
with the wait for the slowest process; those of a sharded model and of DDP lie within their passes and are not
seen. Memory is the peak of the resident set of a process.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from bench_models import MODELS, Synthetic, peak_memory, positive, positives, table, task
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seq2attn.runtime.distributed import Group, joined
from seq2attn.training.trainer import Trainer

LENGTH = 31  # tokens of a sentence, without </s>


class Case(NamedTuple):
    """Processes, the threads of each, and what they train with: "" (the default), "sharded", or "DDP"."""

    processes: int
    threads: int
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.processes} x {self.threads}{', ' if self.kind else ''}{self.kind}"


def main() -> None:
    """Print a table of all cases."""
    options = _options()
    if options.stage is not None:
        _stage(options)
        return
    most = max(options.processes)
    cases = [Case(1, most), *(Case(number, 1) for number in options.processes)]
    cases += [
        Case(number, 1, kind) for kind in ("DDP", "sharded") for number in options.processes if number > 1
    ]
    found: dict[Case, list[dict[str, float]]] = {case: [] for case in cases}
    for _ in range(options.turns):
        for case in cases:
            found[case].append(_run(case, options))
    base = statistics.median(one["tokens/s"] for one in found[cases[0]])
    rows = []
    for case, turns in found.items():
        medians = {key: statistics.median(one[key] for one in turns) for key in turns[0]}
        speed = medians["tokens/s"]
        rows.append(
            [
                str(case),
                f"{speed:,.0f}",
                f"{speed / base:.2f}",
                f"{medians['exchanges']:.1%}",
                f"{medians['MB']:,.0f}",
            ]
        )
    heads = ["processes x threads", "target tokens/s", "of the first case", "exchanges", "MB a process"]
    print(f"{options.model}, {options.accumulate} batches of {options.tokens} tokens in an update")
    print(table(heads, rows))


def _run(case: Case, options: argparse.Namespace) -> dict[str, float]:
    """Return what the first process of a case measures."""
    arguments = [f"--stage={case.kind}", f"--model={options.model}", f"--tokens={options.tokens}"]
    arguments += [f"--accumulate={options.accumulate}", f"--updates={options.updates}"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(case.processes)]
    command = [sys.executable, *torchrun, __file__, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": str(case.threads)}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(run.stdout.strip().splitlines()[-1])
    return figures


def _stage(options: argparse.Namespace) -> None:
    """Train in this process of a case; the first one prints its figures."""
    with joined() as group:
        size = {"batch_tokens": options.tokens, "accumulate": options.accumulate}
        made = task(options.model, None, **size, sharded=options.stage == "sharded")
        torch.manual_seed(1)
        network, device = made.build(), torch.device("cpu")
        objective = made.objective(network, training=True)
        trainer = Trainer(network, objective, made.recipe.training, device, 1000, 1, group)
        update = _with_ddp(trainer) if options.stage == "DDP" else lambda *of: trainer.update(*of).tokens
        loader = made.loader(Synthetic(LENGTH, LENGTH, 8000), training=True)  # type: ignore[arg-type]
        planned = loader.epoch(0)
        updates = [
            planned[row * options.accumulate :][: options.accumulate] for row in range(options.updates + 1)
        ]
        exchanging = _timed(group)
        begun, tokens = 0.0, 0
        for step, plan in enumerate(updates, 1):
            if step == 2:  # the first update is not measured
                group.all(0)
                exchanging[0], begun, tokens = 0.0, time.perf_counter(), 0
            batches = [loader.batch(indices, 0) for _, indices in group.share(plan)]
            tokens += update(batches, step)
        seconds = time.perf_counter() - begun
        figures = {
            "tokens/s": tokens / seconds,
            "exchanges": exchanging[0] / seconds,
            "MB": peak_memory(device) / 1e6,
        }
        if group.first:
            print(json.dumps(figures), flush=True)


class _Root(nn.Module):
    """A model with its objective, since DDP wants the loss to come out of what it wraps."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.model, self.objective = trainer.model, trainer.objective

    def forward(self, batch: Any) -> Tensor:
        output = self.objective.forward(self.model, batch)
        return self.objective.loss(output, batch).whole


def _with_ddp(trainer: Trainer) -> Callable[[Sequence[Any], int], int]:
    """Return a function that makes an update with DDP and returns its number of targets.

    It is the same update if every process has as many batches as the others: DDP takes the mean over
    processes, where the losses are divided by all targets.
    """
    group, (mover,) = trainer.group, trainer.optimizers.values()
    root = DistributedDataParallel(_Root(trainer), gradient_as_bucket_view=True)

    def update(batches: Sequence[Any], step: int) -> int:
        root.train()
        targets = int(sum(group.all(sum(batch.num_targets for batch in batches))))
        for number, batch in enumerate(batches, 1):
            with contextlib.nullcontext() if number == len(batches) else root.no_sync():
                (root(batch) * (group.size / targets)).backward()
        nn.utils.clip_grad_norm_(root.parameters(), trainer.recipe.clip or math.inf)
        mover.step()
        mover.zero_grad(set_to_none=True)
        return targets

    return update


def _timed(group: Group) -> list[float]:
    """Let a group measure how long it sums gradients; return a list with the seconds so far."""
    seconds, plain = [0.0], group.add_gradients

    def add_gradients(parameters: object) -> None:
        begun = time.perf_counter()
        plain(parameters)  # type: ignore[arg-type]
        seconds[0] += time.perf_counter() - begun

    group.add_gradients = add_gradients  # type: ignore[method-assign]
    return seconds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--processes", type=positives, default=[1, 2], help="1,2 by default")
    parser.add_argument("--model", choices=MODELS, default="transformer")
    parser.add_argument("--tokens", type=positive, default=1024, help="of a batch; 1024 by default")
    parser.add_argument("--accumulate", type=positive, default=4, help="batches of an update; 4 by default")
    parser.add_argument("--updates", type=positive, default=5)
    parser.add_argument("--turns", type=positive, default=3)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
