"""How fast processes are together, and which is the slowest: by a clock that tests wind themselves."""

from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch._dynamo  # noqa: F401 - what optimizers import: once here, and not in each process
from processes import in_processes
from tiny_runs import log
from tiny_training import loader, scripted, trainer

from seq2attn.recipe import read
from seq2attn.runtime.distributed import ALONE, Group, Processes, joined
from seq2attn.training import pace
from seq2attn.training import trainer as training
from seq2attn.training.loop import fit
from seq2attn.training.pace import Pace
from seq2attn.training.run_folder import RunFolder, Version


class Three(Group):
    """A group of whose processes the second has no batches, and the third is three times as slow."""

    size = 3

    def all(self, value: Any) -> list[Any]:
        return [value, 0.0, 3 * value]


def wind(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let so much time pass from one look at the clock to the next."""
    clock = count(5.0, seconds)
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: next(clock)))


def test_a_line_is_of_the_updates_since_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    wind(monkeypatch, 2.0)
    one = Pace()
    for batches, tokens in ((1, 100), (3, 200)):
        for _ in range(batches):
            with one.own():
                pass
        one.add(tokens, 10.0)
    line = one.line(Three())
    assert line == {"tokens_per_second": 15, "slowest_process": 2, "slowest_seconds": 12, "mean_seconds": 8}
    with one.own():
        pass
    one.add(80, 8.0)
    assert one.line(Three(), sharded=True) == {"tokens_per_second": 10}
    one.add(80, 8.0)
    assert one.line(Three())["slowest_seconds"] == 0 and one.line(ALONE) == {}


def test_a_line_names_the_slowest_process_by_one_exchange_and_an_update_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanges, before, really = [0], list[int](), Processes.all

    def counted(self: Processes, value: Any) -> list[Any]:
        exchanges[0] += 1
        return really(self, value)

    class Noting(Pace):
        def add(self, tokens: int, seconds: float) -> None:
            before.append(exchanges[0])
            super().add(tokens, seconds)

    def work() -> Any:
        monkeypatch.setattr(Processes, "all", counted)
        monkeypatch.setattr(training, "Pace", Noting)
        with joined() as group:
            wind(monkeypatch, 1.0 + group.rank)
            run = RunFolder.create(tmp_path / str(group.rank), read("quickstart"), Version())
            one = trainer(group=group, accumulate=2, max_steps=4, validate_every=4, log_every=2)
            fit(run, one, loader(), scripted(1.0))
        records = [record for record in log(run.path) if "norm" in record]
        return [after - now for now, after in pairwise(before)], records

    for between, lines in in_processes(2, work):
        # an update exchanges counts, which gradients there are, losses, and the end; the second one has a line
        assert between == [4, 5, 4]
        assert len(lines) == 2 and all(line["tokens_per_second"] > 0 for line in lines)
        for line in lines:  # each process makes a batch, and computes it: a second each, or two
            assert (line["slowest_process"], line["slowest_seconds"], line["mean_seconds"]) == (1, 4, 3)
