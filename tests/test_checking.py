"""`check` does once what training does many times, and leaves nothing behind."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch

from seq2attn.data import DataError
from seq2attn.data.sources import Source
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import Recipe, read
from seq2attn.recipe.registry import RECIPES
from seq2attn.runs.dry_run import check
from seq2attn.text.vocabulary import VocabularyError
from seq2attn.training.loop import TrainingError


def recipe(*overrides: str, kind: str = "lstm") -> Recipe:
    return read("quickstart", [*tiny_runs.SMALL, *tiny_runs.MODELS[kind], *overrides])


def said(*overrides: str, kind: str = "lstm", **options: Any) -> dict[str, str]:
    """What is said under each title."""
    found: dict[str, str] = {}
    for heading, text in check(recipe(*overrides, kind=kind), device="cpu", **options):
        found[heading] = f"{found[heading]}\n{text}" if heading in found else text
    return found


def notes(*overrides: str, kind: str = "lstm") -> list[str]:
    """What the check notes before it reads any data."""
    lines = itertools.takewhile(
        lambda line: line[0] in ("recipe", "note"), check(recipe(*overrides, kind=kind))
    )
    return [text for _, text in lines][1:]


def test_draws_that_nothing_reinforces_are_noted() -> None:
    """Half of the batches teach hard attention where to look by themselves, so that this is no fault."""
    looks = "model.decoder.attention.normalize"
    (said,) = notes(f"{looks}=hard")
    assert (
        said.startswith(f"{looks}: no loss reinforces the samples of hard")
        and "attention_losses.reinforce" in said
    )
    assert notes(f"{looks}=hard", "training.attention_losses={coverage: 1}") == [said]
    assert notes(f"{looks}=hard", "training.attention_losses={reinforce: 1}") == notes() == []
    own = [
        "model.encoder.self_attention=[{heads: 2, normalize: hard}]",
        "model.decoder.cross_attention.normalize=hard",
    ]
    places = [said.partition(":")[0] for said in notes(*own, kind="transformer")]
    assert places == ["model.encoder.self_attention.0.normalize", "model.decoder.cross_attention.normalize"]
    (said,) = notes(*own, "training.attention_losses={reinforce: 1}", kind="transformer")  # not the encoder's
    assert said.startswith("model.encoder.self_attention.0.normalize")


def test_a_coverage_penalty_of_samples_is_noted() -> None:
    (said,) = notes("decoding.sample=true", "decoding.coverage_penalty=0.2")
    assert said.startswith("decoding.coverage_penalty: does not change samples")
    assert notes("decoding.sample=true") == notes("decoding.coverage_penalty=0.2") == []


@pytest.mark.parametrize("kind", tiny_runs.MODELS)
def test_everything_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    found = said(kind=kind)
    assert [*found] == [
        "recipe", "vocabulary", "defaults", "data.train", "data.dev", "data.test", "note",
        "model", "training", "time", "decoding", "memory",
    ]  # fmt: skip
    joint = kind == "transformer"
    assert found["vocabulary"] == ("joint: 400 pieces" if joint else "source and target: 400 and 400 pieces")
    assert re.fullmatch(
        r"\d+ of 15 dev targets are longer than outputs may be: raise decoding.max_length_ratio \(\d\.?\d*\) or "
        r"max_length \(12\)\ntraining: 48 updates, .*",
        found["note"],
    )
    model = build(recipe(kind=kind).model, 400, 400)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert found["model"].startswith(f"{parameters:,} parameters (")
    assert re.fullmatch(r"[\d,]+ target tokens/s on cpu", found["training"])
    assert re.search(r"^\d+:\d\d per epoch of these examples \(\d+ batches\)$", found["time"], re.MULTILINE)
    assert found["time"].endswith("in total for 48 steps, without validation")
    assert re.fullmatch(r"8 examples in \d+\.\d\d s, untrained", found["decoding"])
    assert re.fullmatch(r"[\d,]+ MiB at the peak, with the widest batch", found["memory"])
    assert not [*tmp_path.iterdir()]


def labelled(tmp_path: Path, task: str, lines: str, **sections: Any) -> dict[str, str]:
    """What is said of a tiny labeller of a file, of which all but the last line is training data."""
    train, dev = tmp_path / "train.tsv", tmp_path / "dev.tsv"
    *rows, last = lines.splitlines()
    train.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    dev.write_text(f"{last}\n", encoding="utf-8")
    tree = {
        "task": task,
        "data": {
            use: {"table": str(file), "columns": [0, 1]} for use, file in (("train", train), ("dev", dev))
        },
        "model": {"embedding": {"size": 5}, "encoder": {"kind": "recurrent", "size": 7}},
        "training": {"max_steps": 2},
        **sections,
    }
    recipe = RECIPES[task].model_validate(tree)
    return dict(check(recipe, device="cpu"))


def test_the_labels_of_words_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / "cache"))
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("jo 1 2 3 4 5\nelse 1 2 3 4 5\n", encoding="utf-8")
    rows = ["Jo Do\tI-PER I-PER", "Jo in Rome\tI-PER O I-LOC", "on\tO", "Fifa\tI-ORG"]
    found = labelled(tmp_path, "tagging", "\n".join(rows), text={"vectors": str(vectors)})
    assert found["labels"] == (
        "PER 2, LOC 1; tags written in iob1; only in data.dev, and so never learned: ORG 1"
    )
    assert found["vectors"] == "1 of 5 words (20.0 %)"
    assert found["data.train"] == "2.0 words a sentence; 3 examples read, 3 kept"
    assert re.fullmatch(r"[\d,]+ words/s on cpu", found["training"])


def test_the_labels_of_sentences_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / "cache"))
    rows = [f"a\t{letter}" for number, letter in enumerate("abcdefghijklmnop") for _ in range(17 - number)]
    found = labelled(tmp_path, "classification", "\n".join([*rows, "b b\ta"]))
    assert found["labels"] == (
        "a 17, b 16, c 15, d 14, e 13, f 12, g 11, h 10, i 9, j 8, k 7, l 6, and 4 more, the rarest n 4, o 3, p 2"
    )
    assert found["data.dev"] == "2.0 words a sentence; 1 examples read, 1 kept" and "vectors" not in found
    assert re.fullmatch(r"[\d,]+ sentences/s on cpu", found["training"])


def test_no_more_is_read_than_asked_for() -> None:
    found = said(
        *tiny_runs.READY, "training.max_steps=null", "training.max_epochs=2", "data.test=null", pairs=30
    )
    assert "; 30 examples read, 30 kept" in found["data.train"]
    assert "; 15 examples read, 15 kept" in found["data.dev"]
    assert "data.test" not in found
    assert found["time"].endswith("steps on these examples, without validation")
    assert "; 20 examples read" in said(*tiny_runs.READY, "data.train.0.limit=20", pairs=30)["data.train"]


def test_the_widest_batch_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    plain = Seq2Seq.forward

    def forward(self: Seq2Seq, source: Source, target_input: torch.Tensor, *more: Any) -> Any:
        sizes.append(source.tokens.numel() + target_input.numel())
        return plain(self, source, target_input, *more)

    monkeypatch.setattr(Seq2Seq, "forward", forward)
    said(*tiny_runs.READY)
    assert len(sizes) == 4
    assert sizes[0] == max(sizes)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["data.train={table: /nowhere.tsv}"], DataError, r"data.train.0.table: no such file: /nowhere.tsv"),
        (
            ["text.size=40_000"],
            VocabularyError,
            r"vocabulary of the source: text.size: 40000 pieces are more than this text can give.* give each its own",
        ),
    ],
)
def test_what_is_wrong_is_said(overrides: list[str], error: type[Exception], message: str) -> None:
    settings = [*tiny_runs.SMALL, *tiny_runs.MODELS["lstm"], *overrides]
    with pytest.raises(error, match=message):
        [*check(read("quickstart", settings, check_files=False))]


def test_a_batch_that_is_too_large_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Seq2Seq, "forward", forward)
    with pytest.raises(
        TrainingError,
        match=r"out of memory at step 1, .* Lower training.batch_tokens \(now 200\) .* lower data.filter.max_length",
    ):
        said(*tiny_runs.READY)
