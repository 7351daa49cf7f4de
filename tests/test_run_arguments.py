"""Every argument and option that names a run takes one of the hub, or says that it must be one's own."""

from pathlib import Path

import pytest
from tiny_cli import MODEL, fails

from seq2attn.cli import cli
from seq2attn.cli.completion import run_folders
from seq2attn.pretrained import hub
from seq2attn.pretrained.located import located
from seq2attn.recipe import read
from seq2attn.runs.publishing import push
from seq2attn.runs.training_run import average_run
from seq2attn.training.run_folder import RunError, RunFolder
from seq2attn.training.version_file import Version
from seq2attn.version import __version__

NAME = "hf://nobody/nothing"
READ = {  # by command and parameter: words of a command line; RUN is the name on the hub
    "align files": "RUN {a} {b}",
    "align reverse": "{model} {a} {b} --reverse RUN",
    "caption run": "RUN x.png",
    "classify run": "RUN",
    "compare systems": "{model} other=RUN",
    "detect run": "RUN x.png",
    "export run": "RUN onnx -o {out}",
    "generate run": "RUN",
    "heatmap run": "RUN Hallo",
    "score features": "{model} --features RUN",
    "score run": "RUN",
    "segment run": "RUN x.png -o {out}",
    "serve runs": "name=RUN",
    "summarize run": "RUN",
    "tag run": "RUN",
    "translate run": "RUN",
    "view compare": "{model} Hallo --compare RUN",
    "view run": "RUN Hallo",
}
WRITTEN = {
    "align files": "RUN {a} {b} --choose {a}",
    "align reverse": "{model} {a} {b} --choose agreement --reverse RUN",
    "average run": "RUN --last 2",
    "push run": "RUN hf://me/model --license mit",
    "train run": "quickstart --run RUN",
}


def words_of(key: str, line: str, folder: Path) -> list[str]:
    """Return the words of a command line."""
    for name in ("a", "b"):
        (folder / name).write_text("Hallo\n")
    line = line.format(a=folder / "a", b=folder / "b", out=folder / "out", model=MODEL)
    return [key.split()[0], *(word.replace("RUN", NAME) for word in line.split())]


def test_these_are_all_parameters_that_name_a_run() -> None:
    found = set()
    for name, command in cli.commands.items():
        for parameter in command.params:
            named = parameter.name == "run" or "RUN" in (parameter.metavar or "")
            if named or parameter._custom_shell_complete is run_folders:
                found.add(f"{name} {parameter.name}")
    assert found == {*READ, *WRITTEN}


@pytest.mark.parametrize("key", sorted(READ))
def test_a_run_that_is_read_is_fetched(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: hub.HubName, patterns: list[str]) -> Path:
        raise RunError(f"asked for {name}")

    monkeypatch.setattr(hub, "_download", refuse)
    assert f"asked for {NAME}\n" in fails(*words_of(key, READ[key], tmp_path))[1]


@pytest.mark.parametrize("key", sorted(WRITTEN))
def test_a_run_that_is_written_to_is_ones_own(key: str, tmp_path: Path) -> None:
    status, message = fails(*words_of(key, WRITTEN[key], tmp_path))
    assert status == 2 and f"expected a folder of your own, got {NAME}, which is on the hub" in message


def test_commands_take_models_of_their_tasks_and_compare_those_of_one(tmp_path: Path) -> None:
    """Before weights are read: here are none."""
    text, page = tmp_path / "a", tmp_path / "page"
    text.write_text("a\n", encoding="utf-8")
    recipe = read("languages", check_files=False)
    other = str(RunFolder.create(tmp_path / "run", recipe, Version(seq2attn=__version__)).path)
    for words, message in (
        (["align", other, text, text], "was trained for classification: use `seq2attn classify`, not align"),
        (["translate", other], "was trained for classification: use `seq2attn classify`, not translate"),
        (["compare", MODEL, other], "for translation, and "),
        (["view", MODEL, "Hallo", "--compare", other, "-o", page], "for classification: compare runs of one"),
    ):
        assert message in fails(*map(str, words))[1]
    assert not page.exists()


def test_functions_read_paths_of_the_hub_too_and_write_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seq2attn.pretrained.located.fetched_run", lambda name: Path(name, "fetched"))
    assert located(Path(NAME)) == located(NAME) == Path(NAME, "fetched")
    assert located(Path("hf/nothing")) == Path("hf/nothing")
    for written in (lambda: average_run(NAME, 2), lambda: push(NAME, "hf://me/model", "mit")):
        with pytest.raises(RunError, match="is on the hub, and its copy in the cache is not written to"):
            written()
