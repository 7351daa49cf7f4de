"""A run folder: whole or not there, whenever the power goes; damage is named; nothing in it is executed."""

import json
import re
import shutil
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import tiny
import torch
from tiny_runs import log
from tiny_training import steps
from torch.testing import assert_close

import seq2attn
from seq2attn.errors import LengthWarning
from seq2attn.recipe import read
from seq2attn.training.empty_folder import require_empty
from seq2attn.training.run_folder import (
    FORMAT,
    READABLE,
    RunError,
    RunFolder,
    Version,
    average,
    load_weights,
    tensors_of,
    weights_of,
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", read("quickstart"), Version(seq2attn="0.1.0"))


@pytest.fixture
def copy(tmp_path: Path, runs: dict[str, Path]) -> Path:
    """A trained run to be damaged."""
    return Path(shutil.copytree(runs["lstm"], tmp_path / "copy"))


def weights() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(3.0), "b": torch.ones(2, 5)}


# ---- making and opening -----------------------------------------------------------------------------


def test_a_new_run_explains_itself(run: RunFolder) -> None:
    opened = RunFolder.open(run.path)
    assert opened.version == run.version
    assert (opened.version.format, opened.version.seq2attn) == (FORMAT, "0.1.0")
    assert opened.version.torch == torch.__version__
    assert opened.recipe == read("quickstart")
    assert (run.path.stat().st_mode & 0o777, [*run.path.parent.iterdir()]) == (0o755, [run.path])


def create(path: Path) -> RunFolder:
    return RunFolder.create(path, read("quickstart"), Version(seq2attn="0.1.0"))


def test_a_run_is_not_overwritten(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x.txt").write_text("mine")
    for path, fault in {
        run.path: "exists and is not overwritten: continue it with resume=True, or choose another with run=",
        tmp_path / "file": "is a file; choose another folder with run=",
        tmp_path / "notes": "is no run folder and not empty: choose another with run=",
        tmp_path
        / "file"
        / "a"
        / "b": f"cannot be made: {tmp_path / 'file'} is a file; choose another folder with run=",
        tmp_path / ("a" * 300): "cannot be made: File name too long; choose another folder with run=",
        Path("/proc/run"): "cannot be made: No such file or directory; choose another folder with run=",
    }.items():
        if path.parent == Path("/proc") and not path.parent.is_dir():
            continue  # not on macOS
        for make in (lambda path=path: require_empty(path), lambda path=path: create(path)):
            with pytest.raises(RunError) as error:
                make()
            assert str(error.value) == f"{path} {fault}"
    (tmp_path / "empty").mkdir()
    create(tmp_path / "empty")
    assert RunFolder.open(tmp_path / "empty").recipe.name == "quickstart"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no version.json: expected a run folder, as `seq2attn train` makes it"),
        (
            b'{"format": "9.9"}',
            f"this seq2attn reads the run formats 0.1, 0.2 and {FORMAT}, the folder has 9.9: install",
        ),
        (b"{}", r"version.json is damaged: it names no format; copy it again$"),
        (b'{"format": "0.1", "colour": 3}', "version.json is damaged: .*colour"),
        (b"[]", "version.json is damaged"),
        (b'{"format":', "version.json is damaged"),
        (b"\xff\xfe", "version.json is damaged"),
    ],
)
def test_what_is_no_run_is_said(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "version.json").write_bytes(content)
    with pytest.raises(RunError, match=message):
        RunFolder.open(tmp_path)


def test_a_run_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere does not exist: expected a run folder"):
        seq2attn.load(tmp_path / "nowhere")


# ---- weights ----------------------------------------------------------------------------------------


def test_weights_come_back(run: RunFolder) -> None:
    run.save_weights("step-00000001.safetensors", weights())
    run.version.last = "step-00000001.safetensors"
    run.commit()
    opened = RunFolder.open(run.path)
    for which in ("last", "step-00000001.safetensors"):
        assert_close(opened.load_weights(which), weights(), rtol=0, atol=0)
    for which in ("best", "average", "step-00000002.safetensors"):
        with pytest.raises(RunError, match=rf"no weights '{which}'; there are: step-00000001.safetensors"):
            opened.load_weights(which)


def test_a_run_without_weights_says_why(run: RunFolder) -> None:
    with pytest.raises(RunError, match="there are: none yet"):
        run.load_weights()


def test_pruning_keeps_what_is_named(run: RunFolder) -> None:
    for step in range(1, 7):
        run.save_weights(f"step-{step:08d}.safetensors", weights())
        run.version.scores[f"step-{step:08d}.safetensors"] = [float(step)]
    run.save_weights("average-2.safetensors", weights())
    run.version.best, run.version.last = "step-00000001.safetensors", "step-00000006.safetensors"
    run.version.average = "average-2.safetensors"
    run.prune(["step-00000003.safetensors"])
    assert steps(run) == [1, 3, 6]
    assert [*run.version.scores] == [f"step-{step:08d}.safetensors" for step in (1, 3, 6)]
    assert run.load_weights("average").keys() == weights().keys()
    assert run.last_weights(2) == ["step-00000003.safetensors", "step-00000006.safetensors"]


def test_tied_matrices_are_kept_once() -> None:
    one = tiny.model(
        {"encoder": tiny.transformer(), "decoder": tiny.transformer(decoder=True), "tied": "decoder"}
    )
    tied = {"decoder.embedding.table.weight", "decoder.output.weight"}
    assert len(tied & tensors_of(one).keys()) == 1
    other = tiny.model(
        {"encoder": tiny.transformer(), "decoder": tiny.transformer(decoder=True), "tied": "decoder"}, seed=2
    )
    load_weights(other, weights_of(one))
    assert_close(other.state_dict(), one.state_dict(), rtol=0, atol=0)
    assert other.decoder.output.weight is other.decoder.embedding.table.weight


def test_weights_that_do_not_fit_are_named() -> None:
    model = tiny.model(tiny.MODELS["luong-additive-gru-1-tanh"])
    given = weights_of(model)
    given["decoder.output.bias"] = torch.zeros(3)
    given["decoder.colour"] = given.pop("decoder.output.weight")
    before = weights_of(model)
    with pytest.raises(RunError) as caught:
        load_weights(model, given)
    assert str(caught.value) == (
        "the weights do not fit the recipe's model: decoder.colour is not part of the model; decoder.output.bias "
        "has shape (3,), the model's has (17,); decoder.output.weight is missing. They were made with another "
        "recipe, or by another version of seq2attn; train the model again"
    )
    assert_close(weights_of(model), before, rtol=0, atol=0)


def test_a_recipe_of_another_size_is_named(copy: Path) -> None:
    path = copy / "recipe.yaml"
    path.write_text(path.read_text().replace("size: 14", "size: 15"))
    RunFolder.open(copy).accept_recipe()
    whole = path.read_bytes()
    path.write_bytes(whole + b"\n")
    with pytest.raises(RunError, match=r"recipe\.yaml is damaged or was edited"):  # again
        seq2attn.load(copy)
    path.write_bytes(whole)
    with pytest.raises(RunError) as caught:
        seq2attn.load(copy)
    said = str(caught.value)
    assert said.startswith(f"the weights of {copy} do not fit the recipe's model: decoder.")
    assert re.search(r" has shape \((\d+, )?14,?\), the model's has \((\d+, )?15,?\);", said)
    assert len(said) < 700 and re.search(
        r"; and \d+ more\. They were made with another recipe, or by another", said
    )
    assert said.endswith(f"train the model again: train('{copy}/recipe.yaml', run='{copy}-again')")


def test_the_average_is_the_mean() -> None:
    several = [{"a": torch.tensor([value])} for value in (1.0, 2.0, 6.0)]
    assert average(several) == {"a": torch.tensor([3.0])}
    large = [
        {"a": torch.tensor([value])} for value in (2.0**25, 1.0, 1.0, 1.0, 1.0)
    ]  # float32 would lose them
    assert float(average(large)["a"]) == float(torch.tensor((2.0**25 + 4) / 5))
    with pytest.raises(RunError, match="nothing to average"):
        average([])


def test_rewinding_forgets_what_came_later(run: RunFolder) -> None:
    for step in (1, 2, 3):
        run.save_weights(f"step-{step:08d}.safetensors", weights())
        run.version.scores[f"step-{step:08d}.safetensors"] = [float(3 + 2 * step)]
        run.log({"step": step})
    run.save_weights("average-2.safetensors", weights())
    run.version.scores["average-2.safetensors"] = [99]
    run.log({"average": 2})
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while it wrote
    run.version.last, run.version.best = "step-00000003.safetensors", "step-00000003.safetensors"
    run.commit()
    (run.path / "weights" / ".unfinished.step-4").touch()
    run.rewind(2)
    run.prune(run.version.scores)  # nothing is deleted before
    opened = RunFolder.open(run.path)
    assert (opened.version.best, opened.version.last) == ("step-00000002.safetensors",) * 2
    assert steps(run) == [1, 2]
    assert log(run.path) == [{"step": 1}, {"step": 2}]


def test_training_of_an_earlier_format_cannot_go_on(copy: Path) -> None:
    content = json.loads((copy / "version.json").read_text(encoding="utf-8"))
    del content["checksum"]
    (copy / "version.json").write_text(json.dumps({**content, "format": "0.1"}), encoding="utf-8")
    with pytest.raises(
        RunError, match=r"begun by an earlier seq2attn \(format 0\.1\): its weights can be used"
    ):
        RunFolder.open(copy).load_state()


def test_an_interrupted_training_of_format_02_goes_on_and_says_what_differs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(Path(__file__).parent / "model_0.2" / "interrupted" / "run", run)
    folder = RunFolder.open(run)
    with pytest.warns(UserWarning, match=r"begun with run format 0\.2: its training continues, but random"):
        state = folder.load_state()
    assert state is not None and state["progress"]["step"] == 4
    last = folder.load_weights("last")
    assert state["trainer"]["model"].keys() == last.keys()
    assert all(torch.equal(last[name], tensor) for name, tensor in state["trainer"]["model"].items())
    with pytest.warns(UserWarning, match="will differ from those of an uninterrupted training"):
        trained = seq2attn.train(
            run / "recipe.yaml", run, ["training.max_steps=6"], resume=True, device="cpu"
        )
    assert trained.progress.step == 6
    assert RunFolder.open(run).version.format == FORMAT
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", LengthWarning)  # of a model that has hardly learned
        again = seq2attn.train(run / "recipe.yaml", run, ["training.max_steps=8"], resume=True, device="cpu")
    assert again.progress.step == 8


def test_an_averaged_run_of_format_02_gets_the_new_format(tmp_path: Path) -> None:
    source = Path(__file__).parent / "model_0.2" / "transformer" / "run"
    run = RunFolder.open(Path(shutil.copytree(source, tmp_path / "run")))
    weights = run.load_weights()
    assert run.version.format == "0.2"
    run.save_weights("average.safetensors", weights)
    run.version.average = "average.safetensors"
    run.commit()
    again = RunFolder.open(run.path)
    assert again.version.format == FORMAT
    assert again.load_weights("average").keys() == weights.keys() == again.load_weights().keys()


@pytest.mark.parametrize("form", ["lstm", "transformer"])
def test_tensor_names_of_the_new_format_are_kept(runs: dict[str, Path], form: str) -> None:
    run = RunFolder.open(runs[form])
    stored = safetensors.torch.load(run.content(f"weights/{run.version.best}"))
    assert run.version.format == FORMAT
    assert run.load_weights().keys() == stored.keys()


def test_the_fixtures_of_all_formats_load() -> None:
    folders = {path.parent for path in Path(__file__).parent.glob("model_*/**/expected.json")}
    names = {str(folder.relative_to(Path(__file__).parent)) for folder in folders}
    assert names == {
        *(f"model_{version}" for version in READABLE),
        "model_0.2/transformer",
        "model_0.2/tagger",
    }
    for folder in folders:
        model = seq2attn.load(folder / "run", device="cpu")
        for entry in json.loads((folder / "expected.json").read_text(encoding="utf-8")):
            if folder.name == "tagger":
                tagged = model.tag(entry["source"]).to_json()
                for entity in (*tagged["entities"], *entry["entities"]):
                    entity["probability"] = pytest.approx(entity["probability"], abs=1e-4)
                assert tagged == {key: value for key, value in entry.items() if key != "source"}
                continue
            said = model.translate(entry["source"])
            assert isinstance(said, seq2attn.Translation)
            assert (said.text, said.pharaoh()) == (entry["text"], entry["alignment"])
            assert said.score == pytest.approx(entry["score"], abs=1e-4)


def test_weights_that_a_training_replaces_meanwhile_are_those_it_has_now(run: RunFolder) -> None:
    old, new = "step-00000008.safetensors", "step-00000016.safetensors"
    for name in (old, new):
        reader = RunFolder.open(run.path)
        run.save_weights(name, weights() if name == old else {"a": torch.zeros(1)})
        run.version.best, run.version.scores[name] = name, [1.0]
        run.prune([])
    assert list(reader.load_weights("best")) == ["a"]
    with pytest.raises(RunError, match=f"{old} cannot be read: No such file"):
        reader.load_weights(old)
    (run.path / "weights" / new).unlink()
    for folder in (reader, RunFolder.open(run.path)):
        with pytest.raises(RunError, match=f"{new} cannot be read: No such file"):
            folder.load_weights("best")
