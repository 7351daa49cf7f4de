"""Laws over run folders that somebody damaged or crafted: nothing outside is touched, and every fault is named."""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from tiny_training import loader, scripted, trainer

import seq2attn
from seq2attn.errors import Seq2attnError
from seq2attn.recipe import read
from seq2attn.runs.training_run import average_run
from seq2attn.training.loop import fit
from seq2attn.training.run_folder import RunError, RunFolder, Version

SETTINGS: dict[str, Any] = {"max_steps": 6, "validate_every": 2, "keep_last": 1}
STEP = "step-00000002.safetensors"
DIGITS = "0" * 64
BOOKKEEPING = ["version.json", "recipe.yaml", "log.jsonl", "training_state.pt"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- crafted folders --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stands at step 2 of 6."""
    folder = tmp_path_factory.mktemp("interrupted")
    run = RunFolder.create(folder / "whole", read("quickstart"), Version(seq2attn="0.1.0"))

    def report(record: dict[str, Any]) -> None:
        if record["step"] == 3 and not (folder / "run").exists():
            shutil.copytree(run.path, folder / "run")

    fit(run, trainer(**SETTINGS), loader(), scripted(1, 3, 2), report)
    return folder / "run"


@pytest.fixture
def place(tmp_path: Path, interrupted: Path) -> tuple[Path, Path]:
    """A copy of the run, and a folder outside it, in which a run's files lie, too."""
    outside = Path(shutil.copytree(interrupted, tmp_path / "outside"))
    for name in ("mine.txt", "weights/mine.txt", "weights/step-00000004.safetensors", ".unfinished.mine"):
        (outside / name).write_text("mine")
    return Path(shutil.copytree(interrupted, tmp_path / "run")), outside


def go_on(run: Path) -> str:
    """Do everything that writes to a run; return the first error."""
    said = ""
    for use in (
        lambda: fit(RunFolder.open(run), trainer(**SETTINGS), loader(), scripted(3, 2)),
        lambda: RunFolder.open(run).rewind(0),
        lambda: RunFolder.open(run).prune([]),
        lambda: RunFolder.open(run).log({"step": 1}),
        lambda: RunFolder.open(run).save_state({}),
        lambda: RunFolder.open(run).add("text/x", b""),
        lambda: RunFolder.open(run).replace_recipe(read("copy_additive")),
        lambda: average_run(run, 1),
    ):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                use()
        except (Seq2attnError, OSError) as error:
            said = said or str(error)
    return said


def crafted_names(outside: Path) -> list[str]:
    mine = f"{outside}/mine.txt"
    return [mine, f"/{mine}", "../outside/mine.txt", "../../outside/mine.txt", "..", ".", "a/b", "a\\b", "a\0", ".lock", "a\n"]  # fmt: skip


@pytest.mark.parametrize("field", ["weights", "text", "plain", "best", "last", "average", "scores"])
@pytest.mark.parametrize("number", range(11))
def test_names_lead_nowhere(place: tuple[Path, Path], field: str, number: int) -> None:
    run, outside = place
    name = crafted_names(outside)[number]
    version = json.loads((run / "version.json").read_text())
    del version["checksum"]
    if field in ("weights", "text", "plain"):
        version["checksums"][{"plain": name}.get(field, f"{field}/{name}")] = DIGITS
    elif field == "scores":
        version["scores"][name] = [1.0, 1.0]
    else:
        version[field] = name
    (run / "version.json").write_text(json.dumps(version))
    before = contents(outside)
    assert go_on(run).startswith(
        f"{run / 'version.json'} is damaged: {field if field in version else 'checksums'}"
    )
    assert contents(outside) == before


@pytest.mark.parametrize(
    "name",
    ["weights", "text", f"weights/{STEP}", *BOOKKEEPING, "log.damaged.jsonl", ".unfinished.link", ".lock"],
)
@pytest.mark.parametrize("damaged_log", [False, True])
def test_links_are_not_written_through(place: tuple[Path, Path], name: str, damaged_log: bool) -> None:
    run, outside = place
    if damaged_log:
        (run / "log.jsonl").write_text("x\n")
    if (run / name).is_dir():
        shutil.rmtree(run / name)
    else:
        (run / name).unlink(missing_ok=True)
    target = {"log.damaged.jsonl": "mine.txt", ".unfinished.link": "mine.txt", ".lock": "mine.txt"}.get(
        name, name
    )
    (run / name).symlink_to(outside / target)
    before = contents(outside)
    said = go_on(run)
    assert contents(outside) == before
    assert str(run / name) in said or name in (f"weights/{STEP}", ".unfinished.link", "log.damaged.jsonl")


@pytest.mark.parametrize(
    "wrong",
    [
        *({field: value} for field in ("checksums", "scores", "best", "data", "recipe", "id", "log", "origin", "environment") for value in (None, 3, [None], True)),
        {"scores": {STEP: 3}}, {"scores": {STEP: []}}, {"scores": {STEP: ["x"]}}, {"checksums": {f"weights/{STEP}": 3}}, {"recipe": ["x"]},
        {"alignment": []}, {"alignment": {"layer": "x"}}, {"torch": None}, {"colour": 1}, {"log": [1, 2, 3]},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_types_name_file_and_field(place: tuple[Path, Path], wrong: dict[str, Any]) -> None:
    run, _ = place
    version = json.loads((run / "version.json").read_text())
    del version["checksum"]
    (run / "version.json").write_text(json.dumps({**version, **wrong}))
    with pytest.raises(RunError, match=rf"^{run / 'version.json'} is damaged: {next(iter(wrong))}.*, got "):
        RunFolder.open(run)


@pytest.mark.parametrize("text", ["", "x", "[]", "3", "null", '{"format": [', "[" * 100_000, f'{{"a": {"1" * 5000}}}', '{"format": "0.3", "best": "\\ud800"}'])  # fmt: skip
def test_wrong_json_names_the_file(place: tuple[Path, Path], text: str) -> None:
    run, _ = place
    (run / "version.json").write_text(text)
    with pytest.raises(RunError, match=rf"^{run / 'version.json'}( is damaged: |: this seq2attn reads)"):
        RunFolder.open(run)


# ---- damaged files ----------------------------------------------------------------------------------


def flip(place: float) -> Callable[[Path, Path], None]:
    def damage(path: Path, other: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= 4
        path.write_bytes(content)

    return damage


def instead(make: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    def damage(path: Path, other: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    **{f"flip {place}": flip(place) for place in (0, 0.23, 0.5, 0.77, 0.999)},
    "gone": instead(lambda path: None),
    "folder": instead(os.mkdir),
    "pipe": instead(os.mkfifo),
    "device": instead(lambda path: path.symlink_to("/dev/zero")),
    "cut": lambda path, other: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path, other: path.write_bytes(b""),
    "swapped": lambda path, other: shutil.copy(other, path),
    "other json": lambda path, other: path.write_text('{"a": [1, null]}\n'),
    "binary": lambda path, other: path.write_bytes(b"\xff\x00" * 50),
}
FILES = [*BOOKKEEPING, "text/source.model", "text/target.model", "weights/best"]
SMALL = ["training={max_steps: 4, validate_every: 2, keep_last: 1}", "data.test=null", "data.dev.limit=2"]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory, stores: None) -> list[Path]:
    """Two trained runs, with other seeds and vocabularies."""
    folder = tmp_path_factory.mktemp("two")
    settings = [*tiny_runs.MODELS["lstm"], *SMALL]
    others = ["seed=2", "training.learning_rate=0.02", "data.train.0.limit=190"]
    return [
        tiny_runs.train(folder / name, *settings, *more).run
        for name, more in (("run", []), ("other", others))
    ]


def part(run: Path, name: str) -> Path:
    return run / "weights" / RunFolder.open(run).version.best if name == "weights/best" else run / name


def uses(run: Path) -> tuple[Any, ...]:
    """Translate and resume; return all that they give."""
    said = seq2attn.load(run, device="cpu").translate("Guten Tag!")
    trained = tiny_runs.train(run, *tiny_runs.MODELS["lstm"], *SMALL, resume=True)
    version = RunFolder.open(run).version
    return said.text, said.score, trained.progress.step, version, tiny_runs.weights_hash(run)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, two_runs: list[Path]) -> tuple[Any, ...]:
    """All that the first run gives."""
    return uses(Path(shutil.copytree(two_runs[0], tmp_path_factory.mktemp("whole") / "run")))


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_changes_nothing_or_is_named(
    tmp_path: Path, two_runs: list[Path], whole: tuple[Any, ...], name: str
) -> None:
    run, other = two_runs
    for number, (damage, change) in enumerate(DAMAGES.items()):
        copy = Path(shutil.copytree(run, tmp_path / f"run-{number}"))
        path = part(copy, name)
        change(path, part(other, name))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                assert uses(copy) == whole, damage
                assert name != "log.jsonl" or str(path) in " ".join(str(one.message) for one in caught), (
                    damage
                )
            except (Seq2attnError, OSError) as error:
                said = f"{error.filename}: {error}" if isinstance(error, OSError) else str(error)
                assert str(path) in said or (damage == "gone" and str(copy) in said), (damage, said)


def test_a_flip_in_any_line_of_version_json_and_recipe_is_found(tmp_path: Path, two_runs: list[Path]) -> None:
    copy = Path(shutil.copytree(two_runs[0], tmp_path / "run"))
    for name in ("version.json", "recipe.yaml"):
        content = (copy / name).read_bytes()
        for at in range(0, len(content), 7):
            for bit in (1, 16):
                changed = bytearray(content)
                changed[at] ^= bit
                (copy / name).write_bytes(changed)
                try:
                    folder = RunFolder.open(copy)
                    before = folder.recipe
                except Seq2attnError as error:
                    assert str(copy / name) in str(error)
                else:  # of white space in JSON
                    assert name == "version.json" and folder.version == RunFolder.open(two_runs[0]).version
                    assert before
        (copy / name).write_bytes(content)
