"""Several processes train as one does: the same gradients, losses, buffers and scores."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_adversarial
import tiny_detector
import torch
from processes import in_processes
from tiny_reversal import PIECES, RECIPE, records
from tiny_runs import recording, said
from tiny_training import KINDS, batch, moved, sgd
from torch import nn
from torch.distributed import TCPStore

from seq2attn.data.batches import Batch
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Dropout
from seq2attn.recipe.detection import DetectionTrainingRecipe
from seq2attn.runs.training_run import train
from seq2attn.runtime import distributed
from seq2attn.runtime.distributed import ALONE, Group, GroupError, joined, require_equal
from seq2attn.training.buffers import SharedBuffers
from seq2attn.training.run_folder import RunFolder, weights_of
from seq2attn.training.trainer import Trainer


def shared(group: Group, kind: str, pieces: list[range], dropout: float) -> Any:
    """The movement of the weights in an update of which a process computes its share, and its losses."""
    one = sgd(kind, torch.float64)
    one.group = group
    for part in one.model.modules():
        if isinstance(part, Dropout):
            part.rate = dropout
    own: list[Batch] = [batch(rows) for _, rows in group.share(pieces)]
    steps, stats = moved(one, own)
    return {name: step.numpy() for name, step in steps.items()}, stats._asdict()


@pytest.mark.parametrize("size", [2, 3, 6])  # 6: one process has nothing to do
@pytest.mark.parametrize("kind", KINDS)
def test_an_update_does_not_depend_on_the_number_of_processes(kind: str, size: int) -> None:
    alone, stats = shared(ALONE, kind, PIECES, 0.2)

    def work() -> Any:
        with joined() as group:
            return shared(group, kind, PIECES, 0.2)

    for steps, others in in_processes(size, work):
        assert others["loss"] == stats["loss"] and others["tokens"] == stats["tokens"]  # to the bit
        assert others["norm"] == pytest.approx(stats["norm"], rel=1e-12)
        for name, step in alone.items():
            np.testing.assert_allclose(steps[name], step, rtol=0, atol=1e-13)


def of_detector(group: Group) -> Any:
    """The gradients of a detector, whose divisor is known only after the last batch; and the loss."""
    model = tiny_detector.moved_weights(tiny_detector.detector("points")).double()
    settings = {"optimizer": "sgd", "learning_rate": 1.0, "clip": None, "max_steps": 1}
    recipe = DetectionTrainingRecipe.model_validate(settings)
    one = Trainer(model, tiny_detector.objective("points"), recipe, torch.device("cpu"), 1, group=group)
    own = [tiny_detector.batch([tiny_detector.scene(seed)]) for _, seed in group.share(range(3, 7))]
    before = {name: part.detach().clone() for name, part in model.named_parameters()}
    stats = one.update([part._replace(images=part.images.double()) for part in own], 1)
    return {
        name: (part - before[name]).detach().numpy() for name, part in model.named_parameters()
    }, stats.loss


def of_players(group: Group) -> Any:
    """The movements of generator and discriminator, with batch norm and spectral norms; and the loss."""
    model = tiny_adversarial.pair(generator="batch").double()
    one = tiny_adversarial.trainer(model)
    one.group = group
    whole = tiny_adversarial.batch(9, dtype=torch.float64)
    cuts = [slice(0, 2), slice(2, 6), slice(6, 9)]
    stats = one.update([tiny_adversarial.part_of(whole, rows) for _, rows in group.share(cuts)], 1)
    return {name: part.numpy() for name, part in weights_of(model).items()}, stats.loss


@pytest.mark.parametrize("update", [of_detector, of_players])
def test_images_are_learned_alike_by_any_number_of_processes(update: Callable[[Group], Any]) -> None:
    alone, loss = update(ALONE)

    def work() -> Any:
        with joined() as group:
            return update(group)

    for values, other in in_processes(2, work):
        assert other == loss
        for name, value in alone.items():
            np.testing.assert_allclose(values[name], value, rtol=0, atol=1e-12, err_msg=name)


def test_gradients_that_no_process_has_stay_none() -> None:
    def work() -> Any:
        with joined() as group:
            used, half, unused = (nn.Parameter(torch.ones(3)) for _ in range(3))
            used.grad = torch.full((3,), float(group.rank + 1))
            half.grad = torch.ones(3) if group.first else None
            group.add_gradients([used, half, unused])
            return [None if part.grad is None else part.grad.tolist() for part in (used, half, unused)]

    assert in_processes(2, work) == [[[3.0] * 3, [1.0] * 3, None]] * 2


@pytest.mark.parametrize("count", [1, 2, 5])
def test_running_statistics_are_the_mean_over_the_batches_of_an_update(count: int) -> None:
    batches = torch.randn(count, 4, 3, generator=torch.Generator().manual_seed(1)) + 2

    def buffers(group: Group) -> list[Any]:
        norm = nn.BatchNorm1d(3, momentum=0.3)
        norm(batches[0])
        kept = SharedBuffers(norm, len(batches), group)
        for _, part in group.share(batches):
            norm(part)
            kept.batch_done()
        kept.update_done()
        return [buffer.tolist() for buffer in norm.buffers()]

    def work() -> Any:
        with joined() as group:
            return buffers(group)

    mean, variance, count = buffers(ALONE)
    by_hand = 0.7 * (0.3 * batches[0].mean(0)) + 0.3 * batches.mean((0, 1))
    assert mean == pytest.approx(by_hand.tolist(), rel=1e-5) and count == 2
    for others in in_processes(2, work):
        np.testing.assert_allclose(others[0], mean, rtol=1e-6)
        np.testing.assert_allclose(others[1], variance, rtol=1e-6)
        assert others[2] == count


def test_values_come_in_the_order_of_processes_and_of_items() -> None:
    def work() -> Any:
        with joined() as group:
            own = {index: [letter, group.rank] for index, letter in group.share("abcde")}
            tensor = group.from_first(lambda: {"a": torch.arange(3)})["a"].tolist()
            return group.all({"rank": group.rank}), group.merged(own), tensor

    letters = [["a", 0], ["b", 1], ["c", 2], ["d", 0], ["e", 1]]
    expected = [{"rank": 0}, {"rank": 1}, {"rank": 2}], letters, [0, 1, 2]
    assert in_processes(3, work) == [expected] * 3


def test_what_fails_in_the_first_process_fails_in_all() -> None:
    def fail() -> Any:
        raise ValueError("the disk is full")

    def work() -> Any:
        with joined() as group:
            try:
                group.from_first(fail)
            except (ValueError, GroupError) as error:
                return f"{type(error).__name__}: {error}"

    first, second = in_processes(2, work)
    assert first == "ValueError: the disk is full" and second == "GroupError: process 0: the disk is full"


@pytest.mark.parametrize("wait", ["announced", "meet"])
def test_who_waits_without_a_limit_learns_that_another_has_failed(wait: str) -> None:
    kept = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def work() -> Any:
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(kept.port)}
        try:
            with joined() as group:
                if group.first:
                    raise ValueError("no such file")
                getattr(group, wait)()
        except (ValueError, GroupError) as error:
            return f"{type(error).__name__}: {error}"

    first, *others = in_processes(3, work)
    assert first == "ValueError: no such file" and others == ["GroupError: process 0: no such file"] * 2


def test_what_is_announced_comes_in_order_and_processes_wait_longer_than_for_an_exchange(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEQ2ATTN_TIMEOUT", "1")

    def work() -> Any:
        with joined() as group:
            if group.first:
                time.sleep(1.5)
                group.announce([1])
                group.announce("b")
                values = [[1], "b"]
            else:
                values = [group.announced(), group.announced()]
            if group.rank == 1:
                time.sleep(1.5)
            group.meet()
            return values

    assert in_processes(2, work) == [[[1], "b"]] * 2


def test_processes_that_start_again_do_not_meet_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun keeps its store, with the addresses of processes that have ended."""
    kept = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def work(rounds: int) -> Any:
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(kept.port)}
        results = []
        for number in range(rounds):
            with joined() as group:
                results.append(group.all([group.rank, number]))
        return results

    first = in_processes(3, lambda: work(1))
    assert first == [[[[0, 0], [1, 0], [2, 0]]]] * 3
    second = in_processes(3, lambda: (time.sleep(0.3 * (os.environ["RANK"] == "0")), work(2))[1])
    assert second == [[[[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 1], [2, 1]]]] * 3


def test_a_process_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQ2ATTN_TIMEOUT", "1")
    monkeypatch.setattr(distributed, "NOTICED", 0.5)

    def work() -> Any:
        with joined() as group:
            if group.rank == 1:
                time.sleep(2)
                return "hung"
            with pytest.raises(GroupError) as raised:
                group.all(0)
            return str(raised.value)

    first, second, third = in_processes(3, work)
    assert second == "hung"
    for rank, message in ((0, first), (2, third)):
        assert message.startswith(f"process {rank} of 3: process 1 has ended or does not answer (")


@pytest.mark.parametrize("said", ["soon", "0", "-3", "nan"])
def test_a_timeout_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "SEQ2ATTN_TIMEOUT": said}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Seq2attnError, match=f"seconds above 0, got {said}"), joined():
        pass


def test_processes_with_other_data_are_named() -> None:
    def work() -> Any:
        with joined() as group:
            with pytest.raises(GroupError, match=r"same training data.*process 2 has c"):
                require_equal(group, "training data", "aac"[group.rank])
            return True

    assert all(in_processes(3, work))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / "cache"))
    yield tmp_path


def test_a_run_is_that_of_one_process_also_when_it_is_resumed_with_another_number(folder: Path) -> None:
    train(RECIPE, folder / "one", device="cpu")

    def first() -> Any:
        train(RECIPE, folder / "several", {"training.max_steps": 3}, device="cpu")

    def second() -> Any:
        display = recording()
        trained = train(RECIPE, folder / "several", resume="auto", device="cpu", display=display)
        return trained.progress.step, len(RunFolder.open(folder / "several").weights), said(display)

    in_processes(2, first)
    step, weights, notes = in_processes(3, second)[0]
    assert (step, weights) == (6, 3)
    assert "note: 2 processes trained until update 3, and 3 processes from here on" in notes
    one, several = RunFolder.open(folder / "one"), RunFolder.open(folder / "several")
    assert records(one.path)[-1]["exact"] == records(several.path)[-1]["exact"]
    for name in ("best", "last"):
        other = several.load_weights(name)
        for key, value in one.load_weights(name).items():
            torch.testing.assert_close(other[key], value, rtol=0, atol=1e-6)


def test_the_first_process_alone_writes_for_tensorboard(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    overrides = {"training.tensorboard": True, "training.max_steps": 1, "training.average": 0}
    in_processes(2, lambda: train(RECIPE, folder / "run", overrides, device="cpu").progress.step)
    assert len([*(folder / "run" / "tensorboard").iterdir()]) == 1
