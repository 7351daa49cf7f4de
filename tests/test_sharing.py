"""Several processes print what one does: their shares of the lines, in order."""

from pathlib import Path
from typing import Any

import pytest
import torch
from processes import in_processes
from tiny_cli import MODEL, run

from seq2attn.cli import sharing
from seq2attn.inference import writing_predictor
from seq2attn.runtime.devices import pick_device
from seq2attn.runtime.distributed import joined
from seq2attn.tasks.loading import load_with_task

LINES = "\n".join(
    ["Wo ist Tom?", "", "Tom ist nicht hier.", "Ich habe Hunger.", "Wo?", "Tom hat Hunger.", "Ja."]
)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--format", "json"),
        ("--nbest", "2", "--scores"),
        ("--sample", "--seed", "3"),
        ("--markup", "xml"),
    ],
)
def test_translations_are_those_of_one_process(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_predictor, "CHUNK", 2)
    monkeypatch.setattr("seq2attn.cli.translate.MARKED", 2)
    file = tmp_path / "in.de"
    file.write_text(LINES, encoding="utf-8")
    command = ["translate", MODEL, str(file), "--device", "cpu", *options]
    alone = run(*command).stdout

    def work() -> Any:
        return run(*command).stdout

    assert in_processes(3, work) == [alone, "", ""] and alone.count("\n") >= 7


def test_scores_are_those_of_one_process(tmp_path: Path) -> None:
    for name in ("in.de", "out.en"):
        (tmp_path / name).write_text(LINES, encoding="utf-8")
    files = ["--source", str(tmp_path / "in.de"), "--references", str(tmp_path / "out.en")]
    command = ["score", MODEL, *files, "--device", "cpu"]
    alone = run(*command).stdout

    def work() -> Any:
        return run(*command).stdout

    assert in_processes(2, work) == [alone, ""] and "BLEU" in alone


def test_samples_of_a_data_set_are_those_of_one_process() -> None:
    task, translator = load_with_task(MODEL, device="cpu")
    sampling = translator.configured({"sample": True})

    def texts() -> Any:
        with joined() as group:
            return task.output_texts(sampling, LINES.split("\n") * 2, group)

    alone = texts()
    assert in_processes(3, texts) == [alone] * 3 and [*alone[:7]] != [*alone[7:]]


def test_chunks_are_rendered_with_the_number_of_items_before_them(capsys: pytest.CaptureFixture[str]) -> None:
    chunks = [["a", "b"], ["c"], ["d", "e", "f"], ["g"], ["h"]]

    def lines(first: int, chunk: list[str]) -> list[str]:
        return [f"{number} {item}" for number, item in enumerate(chunk, first)] if chunk != ["c"] else []

    def work() -> Any:
        sharing.print_lines(chunks, lines)
        return capsys.readouterr().out

    expected = "".join(f"{number} {item}\n" for number, item in enumerate("abcdefgh") if item != "c")
    assert work() == expected
    for size in (2, 3, 6):
        assert in_processes(size, work) == [expected, *[""] * (size - 1)]


def test_the_option_starts_processes_with_the_words_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start(count: int, words: list[str]) -> None:
        started.append((count, words))
        raise SystemExit(0)

    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr("seq2attn.runtime.process.start_processes", start)
    monkeypatch.setattr("sys.argv", ["seq2attn", "tag", "RUN", "--processes", "3"])
    run("tag", "RUN", "--processes", "3")
    assert started == [(3, ["tag", "RUN", "--processes", "3"])]


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *size, device: torch.zeros(1))
    current = list[torch.device]()
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert pick_device("auto") == torch.device("cuda")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda:2")
    assert pick_device("cuda:1") == torch.device("cuda:1") and pick_device("cpu") == torch.device("cpu")
    assert [device.index for device in current] == [2, 2, 1]  # FSDP2 and collectives take the current one
