"""What the README shows is what happens: its commands and its Python are run as they stand."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from seq2attn.cli import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = "training.max_steps=2 training.max_epochs=null training.validate_every=2 data.train.limit=300 text.size=400"
SMALLER = "data.dev.limit=20 data.test.limit=20 training.schedule=constant decoding.max_length=5"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small trained run where the README has its own."""
    shutil.copytree(ROOT / "tests" / "model_0.1" / "run", tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python(here: Path) -> None:
    (example,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)  # noqa: S102 - the project's own README
    assert (here / "hunger.png").stat().st_size > 1000
    assert str(names["result"])


def test_commands(here: Path) -> None:
    lines = re.findall(r"^\$ (.*seq2attn .*?)(?:\s+#.*)?$", "\n".join(blocks("console")), re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        if "mine.yaml" in line:
            continue  # a faulty recipe that the reader is to imagine; tests/test_recipe.py has many
        echo, _, command = line.rpartition("| ")
        words = shlex.split(command)[1:]
        if words[0] == "train":
            words += [*QUICK.split(), *SMALLER.split(), "--run", "runs/new"]
        given = " ".join(shlex.split(echo)[1:])
        result = CliRunner().invoke(cli, words, input=given or None, catch_exceptions=False)
        assert result.exit_code == 0, (line, result.output)
        assert result.output.strip(), line
    assert (here / "hunger.png").exists()


def test_the_recipe_is_one(tmp_path: Path) -> None:
    from seq2attn.recipe import read

    (example,) = blocks("yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(example, encoding="utf-8")
    assert read(path).name == "mine"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
