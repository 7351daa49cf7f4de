"""Help, completion, and the commands that list recipes and their schema."""

import json
import re
import resource
import subprocess
import sys

import pytest
from tiny_cli import ENGLISH, ENVIRONMENT, GERMAN, MODEL, ROOT, run

import seq2attn
from seq2attn.__main__ import main
from seq2attn.cli import cli
from seq2attn.metrics import METRICS
from seq2attn.recipe import shipped

OPTIONS = {
    "train": "--run --resume --device",
    "check": "--pairs --device",
    "translate": "--beam --length-penalty --coverage-penalty --nbest --sample --top-k --top-p --temperature --seed --batch-tokens "
    "--scores --format --checkpoint --device",
    "summarize": "--key --whole --format --beam --no-repeat-ngram --min-length --scores --checkpoint --device",
    "tag": "--format --words --conll --checkpoint --device",
    "classify": "--format --checkpoint --device",
    "score": "--data --source --hypotheses --references --metric --beam --length-penalty --format --checkpoint --device",
    "heatmap": "--target --output --pieces --layer --head --beam --checkpoint --device",
    "average": "--last --device",
    "bench attention": "--scorers --normalizers --also --seeds --budget --gold --out",
    "recipes": "",
    "schema": "",
}


def test_these_are_all_commands() -> None:
    assert set(cli.commands) == {command.split()[0] for command in OPTIONS}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_every_option_and_has_an_example(command: str) -> None:
    output = run(*command.split(), "-h").output
    assert output == run(*command.split(), "--help").output
    assert set(OPTIONS[command].split()) <= set(re.findall(r"--[a-z-]+", output))
    assert re.search(rf"^  (echo .* \| )?seq2attn {command}( |$)", output, re.MULTILINE)


def test_help_names_the_metrics_of_every_task() -> None:
    output = re.sub(r"-\n +", "-", run("score", "--help").output)
    assert set(METRICS) <= set(re.findall(r"[a-z0-9+-]+", output.partition("--metric ")[2]))


def test_help_is_quick() -> None:
    """Half a second of computing, whatever else the machine does; that is, no torch."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    code = "import sys; from seq2attn.__main__ import main\ntry: main()\nfinally: print(*sys.modules)"
    for words in (["--help"], ["translate", "--help"], ["--version"]):
        output = subprocess.run(
            [sys.executable, "-c", code, *words], env=ENVIRONMENT, capture_output=True, text=True, check=True
        ).stdout
        loaded = set(output.splitlines()[-1].split())
        assert not loaded & {"torch", "numpy", "sentencepiece", "datasets", "pydantic", "rich"}
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 3 * 0.5
    assert f"seq2attn, version {seq2attn.__version__}" in output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(monkeypatch: pytest.MonkeyPatch, capsys, shell: str) -> None:
    monkeypatch.setenv("_SEQ2ATTN_COMPLETE", f"{shell}_source")
    monkeypatch.setattr(sys, "argv", ["seq2attn"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "_seq2attn_completion" in capsys.readouterr().out


def test_the_script_is_the_command() -> None:
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert "seq2attn = seq2attn.__main__:main" in setup
    output = subprocess.run(
        [sys.executable, "-m", "seq2attn", "translate", MODEL],
        input=GERMAN, env=ENVIRONMENT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (output.stdout, output.stderr) == (ENGLISH, "")


def test_recipes_lists_what_ships() -> None:
    output = run("recipes").stdout
    for name, path in shipped().items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        assert f"{name}\n    {first}\n" in output


def test_schema_is_one() -> None:
    schema = json.loads(run("schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    recipes = [schema["$defs"][of["$ref"].split("/")[-1]]["properties"] for of in schema["anyOf"]]
    assert len(recipes) == 4 and all({"data", "model", "training"} <= keys.keys() for keys in recipes)
