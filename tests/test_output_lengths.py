"""The largest length of outputs: from the recipe, a call, or the training data; an output that has it says so."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
from click.testing import CliRunner

from seq2attn.cli import cli
from seq2attn.errors import LengthWarning
from seq2attn.recipe import DecodingRecipe, read
from seq2attn.runs.dry_run import check
from seq2attn.training.run_folder import RunFolder

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SPELLING = ["decoding={max_length: 256}", "text={model: char, byte_fallback: false}", "data.test=null"]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A recipe whose targets are far more than three times as long as their sources."""
    path = tmp_path_factory.mktemp("numbers") / "numbers.tsv"
    pairs = [(str(n), " ".join(2 * [DIGITS[int(digit)] for digit in str(n)])) for n in range(1000, 9999, 37)]
    path.write_text("".join(f"{n}\t{words}\n" for n, words in pairs), encoding="utf-8")
    tables = [f"data.{use}={{table: {path}, limit: 60}}" for use in ("train", "dev")]
    return [
        *tiny_runs.MODELS["lstm"],
        *SPELLING,
        *tables,
        "training.max_steps=2",
        "training.validate_every=2",
    ]


def lengths(*numbers: int) -> Any:
    return np.array(numbers, dtype=np.int32)


@pytest.mark.parametrize(
    ("source", "target", "ratio"),
    [
        ([4, 4], [30, 50], 20.0),  # twice 80 / 8
        ([4, 40], [70, 10], 18.73),  # 1.25 (70 - 10) / 4, of which 99.9 %
        ([10, 20], [2, 4], 0.4),
        ([5] * 5000, [30] * 4999 + [4000], 12.32),  # one of 5,000 counts little
        ([801], [1], 0.01),  # a label of a long text
    ],
)
def test_the_ratio_is_that_of_the_training_pairs(source: list[int], target: list[int], ratio: float) -> None:
    fitted = DecodingRecipe().fitted(lengths(*source), lengths(*target))
    assert fitted.max_length_ratio == pytest.approx(ratio, rel=0.01)
    assert DecodingRecipe.model_validate(fitted.model_dump()) == fitted  # it can be read again
    chosen = DecodingRecipe(max_length_ratio=7.0)
    assert chosen.fitted(lengths(*source), lengths(*target)) == chosen


def test_limits() -> None:
    decoding = DecodingRecipe(max_length_ratio=2.0, max_length=50, min_length=14)
    assert decoding.limits(lengths(1, 3, 15, 20, 100)).tolist() == [14, 16, 40, 50, 50]
    assert DecodingRecipe().limits(lengths(4)).tolist() == [22]  # without training data: 3


def test_long_targets_need_no_setting(numbers: list[str], tmp_path: Path) -> None:
    trained = tiny_runs.train(tmp_path / "run", *numbers)
    ratio = RunFolder.open(tmp_path / "run").recipe.decoding.max_length_ratio
    assert ratio is not None and 3 < ratio < 20
    pieces = len(trained.model.target.encode([" ".join(["seven"] * 8)])[0])
    (limit,) = trained.model.decoding.limits(lengths(len(trained.model.source.encode(["7777"])[0]) + 1))
    assert pieces <= limit < 3 * pieces
    # the recipe is still silent when the run is resumed, and the ratio is kept
    again = tiny_runs.train(tmp_path / "run", *numbers, "training.max_steps=4", resume=True)
    assert again.progress.step == 4
    assert RunFolder.open(tmp_path / "run").recipe.decoding.max_length_ratio == ratio


def test_check_counts_the_targets_that_are_too_long(numbers: list[str]) -> None:
    def said(*overrides: str) -> list[str]:
        recipe = read("quickstart", [*tiny_runs.SMALL, *numbers, *overrides])
        return [text for _, text in check(recipe, device="cpu") if " dev targets are" in text]

    assert said() == []
    (note,) = said("decoding.max_length_ratio=2")
    assert note.endswith(
        " dev targets are longer than outputs may be: raise decoding.max_length_ratio (2) or max_length (256)"
    )


def test_an_output_of_the_largest_length_says_so(translators: dict[str, Any]) -> None:
    model = translators["lstm"]
    with pytest.warns(LengthWarning, match="the output of sentence 1 has the largest length") as caught:
        result = model.translate("Guten Tag!", max_length=3, min_length=3)
    assert "(3)" in str(caught[0].message)
    assert result.truncated and result.to_json()["truncated"] and len(result.target.ids) == 3
    with pytest.warns(LengthWarning, match="sentence 2 and 1 others have"):
        model.translate(["", "Guten Tag!", "Ja."], max_length=3, min_length=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not model.translate("", max_length=3, min_length=3).truncated


def test_the_ratio_is_an_option_of_calls_and_commands(
    translators: dict[str, Any], runs: dict[str, Path]
) -> None:
    text, shorter = "Guten Tag!", {"max_length_ratio": 0.01, "min_length": 0}
    whole = translators["lstm"].translate(text, max_length=200, max_length_ratio=40.0, min_length=60)
    assert len(whole.target.ids) >= 60
    assert len(translators["lstm"].translate(text, max_length=200, **shorter).target.ids) <= 10
    said = list[str]()
    for ratio in (0.01, 4.0):
        words = ["--max-length-ratio", str(ratio), "--min-length", "0", "--device", "cpu", "--format", "json"]
        done = CliRunner().invoke(cli, ["translate", str(runs["lstm"]), *words], input=f"{text}\n")
        assert done.exit_code == 0, done.output
        said.append(json.loads(done.stdout.splitlines()[0])["text"])
        assert said[-1] == translators["lstm"].translate(text, max_length_ratio=ratio, min_length=0).text
    assert len(said[0]) < len(said[1])
