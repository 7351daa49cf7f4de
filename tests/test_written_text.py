"""What a model writes can equal what it was given: which texts a vocabulary changes, and what says so."""

from pathlib import Path
from typing import Any

import pytest

from seq2attn.recipe import read
from seq2attn.runs.dry_run import check
from seq2attn.tasks.loading import learn

PAIRS = {
    "Ich liebe dich, ½ ﬁn": "我爱你，好吗？",
    "می\u200cروم １０": "نمی\u200cخواهم 👩\u200d👩\u200d👧",
    "Laut": "tʰuː ＡＢ ﬁ ½ … ①",
}


def recipe(folder: Path, **text: Any) -> Any:
    for name, texts in (("a", PAIRS), ("b", PAIRS.values())):
        (folder / name).write_text("".join(f"{line}\n" for line in texts), encoding="utf-8")
    files = f"{{files: [{folder}/a, {folder}/b]}}"
    vocabulary = {"model": "char", "size": 500, **text}
    return read(
        "quickstart",
        [
            f"data={{languages: [de, zh], train: {files}, dev: {files}}}",
            *(f"text.{key}={str(value).lower()}" for key, value in vocabulary.items()),
            *(f"model.{part}.{key}=8" for part in ("encoder", "decoder") for key in ("embedding", "size")),
        ],
    )


@pytest.mark.parametrize("joint", [False, True])
def test_targets_are_written_as_they_are_and_sources_are_read_in_nfkc(tmp_path: Path, joint: bool) -> None:
    task = learn(recipe(tmp_path, joint=joint))
    source, target = task.coders
    assert [target.decode(target.encode([text])[0]) for text in PAIRS.values()] == [*PAIRS.values()]
    assert [source.normalize(text) for text in PAIRS] == ["Ich liebe dich, 1⁄2 fin", "می\u200cروم 10", "Laut"]
    assert source.unk not in source.encode(["Ich liebe dich, 1⁄2 fin"])[0]
    if joint:
        assert source.pieces(range(source.size)) == target.pieces(range(target.size))
    assert [*task.files()] == ["text/source.model", "text/target.model"]


@pytest.mark.parametrize("nfkc", [True, False])
@pytest.mark.parametrize("joint", [False, True])
def test_both_sides_or_none(tmp_path: Path, joint: bool, nfkc: bool) -> None:
    task = learn(recipe(tmp_path, joint=joint, nfkc=nfkc))
    expected = "fin, 10 می\u200cروم" if nfkc else "ﬁn， １０ می\u200cروم"
    assert {vocabulary.normalize("ﬁn， １０ می\u200cروم") for vocabulary in task.coders} == {expected}
    assert len(task.files()) == 2 - joint


def test_check_counts_what_cannot_be_written(tmp_path: Path) -> None:
    def said(**text: Any) -> str:
        return dict(check(recipe(tmp_path, **text), device="cpu")).get("targets", "")

    assert said() == ""
    assert said(nfkc=True) == (
        "2 of 3 in dev cannot be written as they are (see text.nfkc, lowercase, byte_fallback, "
        "model): '我爱你，好吗？' becomes '我爱你,好吗?'"
    )
    assert "'tʰuː ＡＢ ﬁ' becomes" in said(lowercase=True).replace(" ½ … ①'", "'")
    assert said(model="word", size=6).startswith("3 of 3 in dev")
