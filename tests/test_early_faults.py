"""What can be known before data are read is said before; what is probably not meant is said by `check`."""

from pathlib import Path

import pytest
import tiny_runs

from seq2attn.errors import Seq2attnError
from seq2attn.recipe import RecipeError, read
from seq2attn.runs.dry_run import check
from seq2attn.runtime.locks import LockError, locked

SETTINGS = [*tiny_runs.SMALL, *tiny_runs.MODELS["lstm"], *tiny_runs.READY]


def test_a_precision_that_the_device_lacks_is_told_before_data_are_read(tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").write_text("")  # an error, once it is read
    settings = ["training.precision=fp16", f"data.train={{table: {tmp_path}/empty.tsv}}"]
    with pytest.raises(Seq2attnError, match="precision fp16 needs a GPU"):
        tiny_runs.train(tmp_path / "run", *settings, device="cpu")
    with pytest.raises(Seq2attnError, match="precision fp16 needs a GPU"):
        next(check(read("quickstart", [*SETTINGS, *settings]), device="cpu"))


def test_an_override_without_a_value_is_a_fault_of_its_own() -> None:
    with pytest.raises(RecipeError) as caught:
        read("quickstart", ["training.max_epochs="])
    assert (
        str(caught.value) == "overrides: training.max_epochs: expected a value after =; null stands for none"
    )
    assert read("quickstart", ["training.max_epochs=1e3"]).training.max_epochs == 1000


def test_a_lock_that_is_a_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(LockError, match=r"\.lock is not a file \(Is a directory\), .*: delete it$"):
        locked(tmp_path / ".lock", print).__enter__()


@pytest.mark.parametrize(("columns", "noted"), [("[0, 0]", True), ("[0, 1]", False)])
def test_a_source_that_is_its_target_is_noted(tmp_path: Path, columns: str, noted: bool) -> None:
    (tmp_path / "x.tsv").write_text("".join(f"Das {n}.\tThe {n}.\n" for n in range(30)))
    corpus = f"data.train={{table: {tmp_path}/x.tsv, columns: {columns}}}"
    report = list(check(read("quickstart", [*SETTINGS, corpus, "data.test=null"]), device="cpu"))
    notes = [
        text for about, text in report if about == "note" and "the same text in each of the first 30" in text
    ]
    assert len(notes) == noted
