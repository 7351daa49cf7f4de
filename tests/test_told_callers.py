"""Errors tell what can be done where they are read: options at the command line, arguments in Python; and they do
not pass on what other libraries advise."""

import ast
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_runs
import torch
from tiny_cli import fails
from tiny_training import loader, scripted, trainer

import seq2attn
from seq2attn.errors import for_caller, speaking_to_command_line
from seq2attn.recipe import RecipeError, read
from seq2attn.runs.dry_run import check
from seq2attn.training.loop import TrainingError, fit, save
from seq2attn.training.run_folder import RunError, RunFolder, Version

PACKAGE = Path(seq2attn.__file__).parent
OPTION = re.compile(r"(?<![\w(-])--[a-z][a-z-]*(?![a-z:-])|`seq2attn [a-z]")
# Files whose messages only commands give, beside those of cli/.
OF_COMMANDS = (
    "__main__.py",
    "recipe/plugins.py",
    "recipe/graph_import.py",
    "runs/comparison.py",
    "runtime/launcher.py",
    "runtime/process.py",
    "serving/server.py",
)
# Words about a command that are no advice, or of functions that only the command `score` calls.
OTHERS = ("as `seq2attn train` ", "spm_train or `seq2attn train`", "score a run (`seq2attn score RUN`)", "score its dev set with --data dev", "--features are for",
          "leave --source and --references out", "score the run by itself, or with --data dev")  # fmt: skip


def begun(path: Path) -> RunFolder:
    return RunFolder.create(path, read("quickstart"), Version(seq2attn="0.1.0"))


def strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """The texts of a module, without docstrings and those that `for_caller` chooses from."""
    for node in ast.iter_child_nodes(tree):
        named = (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "for_caller"
        )
        if named or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node
        yield from strings(node)


def test_no_message_of_the_library_names_an_option_only() -> None:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if name.startswith("cli/") or name in OF_COMMANDS:
            continue
        found += [
            f"{name}:{text.lineno}: {text.value}"
            for text in strings(ast.parse(file.read_text(encoding="utf-8")))
            if OPTION.search(str(text.value)) and not any(other in str(text.value) for other in OTHERS)
        ]
    assert not found


def test_words_are_those_of_the_caller() -> None:
    assert for_caller("--resume", "resume=True") == "resume=True"
    with speaking_to_command_line():
        assert for_caller("--resume", "resume=True") == "--resume"
    assert for_caller("--resume", "resume=True") == "resume=True"


def test_a_run_that_exists_says_how_to_go_on_here(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", read("quickstart"), Version(seq2attn="0.1.0")).path
    with pytest.raises(RunError, match=r"continue it with resume=True, or choose another with run=$"):
        tiny_runs.train(run)
    status, said = fails("train", "quickstart", "--run", str(run))
    assert status == 1 and said.endswith("continue it with --resume, or choose another with --run\n")


def test_an_edited_recipe_is_kept_only_where_it_can_be(tmp_path: Path) -> None:
    run = begun(tmp_path / "run").path
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text() + "\n# mine\n")
    with pytest.raises(
        RunError, match=rf"as arguments; RunFolder.open\('{run}'\).accept_recipe\(\) keeps a change$"
    ):
        RunFolder.open(run).recipe  # noqa: B018 - it is read
    status, said = fails("translate", str(run))
    assert status == 1 and said.endswith("are given on the command line\n") and "accept_recipe" not in said


def test_faults_of_given_data_are_not_of_a_command_line() -> None:
    pairs = [("Hallo.", "Hello.")]
    with pytest.raises(RecipeError) as caught:
        seq2attn.train({"task": "translation", "model": {}}, data={"train": pairs, "dev": pairs})
    assert "overrides: data: missing key 'languages'" in str(caught.value)
    status, said = fails("check", "quickstart", "seed=x")
    assert (status, said) == (1, "seq2attn: command line: seed: expected a whole number, got 'x'\n")


class Program:
    """An object that would run something when it is loaded."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (print, ("loaded",))


def test_a_program_in_a_training_state_is_not_loaded_and_torch_is_not_quoted(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    torch.save({"run": run.version.id, "trainer": Program()}, run.path / "training_state.pt")
    with pytest.raises(RunError) as caught:
        run.load_state()
    assert str(caught.value) == (
        f"{run.path}/training_state.pt holds something other than tensors and numbers, which may be a program: it "
        f"was not loaded. Copy it again from who trained the run, or train with run='{run.path}-again', without resume"
    )


def test_what_torch_says_of_a_state_is_one_line(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    with zipfile.ZipFile(run.path / "training_state.pt", "w") as archive:
        archive.writestr("x", "no state of torch")
    with pytest.raises(RunError, match="is damaged") as caught:
        run.load_state()
    assert "\n" not in str(caught.value)
    other = trainer(max_steps=2)
    state = other.state() | {
        "scaler": {"scale": torch.ones(2, 2)},
        "optimizer": {"state": {}, "param_groups": []},
    }
    other.state = lambda: state  # type: ignore[method-assign]
    fit_run = begun(tmp_path / "other")
    fit(fit_run, trainer(max_steps=1), loader(), scripted(1))
    save(fit_run, other, fit(fit_run, trainer(max_steps=1), loader(), scripted(1)))
    with pytest.raises(RunError, match="does not fit the recipe's model and optimizer") as caught:
        fit(fit_run, trainer(max_steps=2), loader(), scripted(1))
    assert "\n" not in str(caught.value) and io.StringIO(str(caught.value)).readline()


def test_check_advises_as_training_does_where_it_diverges() -> None:
    settings = [*tiny_runs.SMALL, *tiny_runs.MODELS["lstm"], *tiny_runs.READY, "training.learning_rate=1e37"]
    with pytest.raises(TrainingError, match=r"Lower training\.learning_rate, raise the schedule's warmup"):
        list(check(read("quickstart", settings), pairs=20, device="cpu"))
