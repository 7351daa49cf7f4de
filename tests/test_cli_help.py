"""Help, completion, and the commands that list recipes and their schema."""

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_cli import ENGLISH, ENVIRONMENT, GERMAN, MODEL, ROOT, run

import seq2attn
from seq2attn.__main__ import main
from seq2attn.cli import cli
from seq2attn.metrics import METRICS
from seq2attn.recipe import RECIPES, shipped

OPTIONS = {
    "train": "--run --resume --seeds --format --device",
    "check": "--pairs --format --device",
    "translate": "--beam --length-penalty --coverage-penalty --nbest --sample --top-k --top-p --temperature --seed --batch-tokens "
    "--scores --format --markup --tag --checkpoint --device --engine --quantize --verbose",
    "summarize": "--key --whole --format --beam --no-repeat-ngram --min-length --scores --checkpoint --device",
    "tag": "--format --words --conll --checkpoint --device",
    "caption": "--beam --nbest --prefix --scores --format --checkpoint --device --engine --quantize --verbose",
    "detect": "--output --threshold --checkpoint --device --precision",
    "segment": "--output --checkpoint --device --precision",
    "classify": "--format --checkpoint --device",
    "score": "--data --source --key --hypotheses --references --metric --features --beam --length-penalty --format --checkpoint --device "
    "--engine --quantize",
    "compare": "--data --source --references --metric --parts --training --most --samples --trials --seed --plot --format --output "
    "--beam --length-penalty --checkpoint --device",
    "export": "--out --quantize --check --source --references --format --checkpoint",
    "generate": "--output --count --columns --seed --class --truncation --interpolate --checkpoint --device --precision",
    "heatmap": "--target --seed --output --pieces --self --layer --head --scale --right-to-left --method --beam --checkpoint --device",
    "view": "--file --seed --target --targets --gold --compare --self --exact --output --beam --nbest --checkpoint --device",
    "align": "--output --format --layer --head --shift --method --threshold --reverse --symmetrize --gold --choose --checkpoint --with --learn "
    "--device",
    "average": "--last --format --device",
    "bench attention": "--scorers --normalizers --also --seeds --budget --gold --faithful --out --format",
    "bench blocks": "--blocks --at --seeds --budget --out --format",
    "serve": "--host --port --token-file --cors --max-lines --max-characters --max-images --max-pixels --max-body "
    "--max-waiting --max-beam --timeout --batch-seconds --grace --checkpoint --device --precision --engine --quantize",
    "graph": "",
    "graph show": "--size --format",
    "graph import": "--scale --output",
    "import": "",
    "import marian": "--output",
    "pull": "--output",
    "push": "--license --private --data",
    "recipes": "--format",
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


def completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What bash offers for the last word."""
    monkeypatch.setenv("_SEQ2ATTN_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["seq2attn", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    monkeypatch.setattr(sys, "argv", ["seq2attn"])
    with pytest.raises(SystemExit, match="0"):
        main()
    return capsys.readouterr().out.split()


def test_completion_knows_recipes_runs_and_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert completed(monkeypatch, capsys, "train", "qui") == ["plain,quickstart", "file,qui"]
    for command in ("train", "check"):
        keys = completed(monkeypatch, capsys, command, "quickstart", "training.max_")
        assert keys == [
            "plain,training.max_steps=",
            "plain,training.max_epochs=",
            "plain,training.max_minutes=",
        ]
    assert "plain,data.train.0.sample=" in completed(
        monkeypatch, capsys, "train", "quickstart", "data.train.0."
    )
    assert completed(monkeypatch, capsys, "train", "nowhere", "training.") == []
    shutil.copytree(MODEL, tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    for command in ("translate", "score", "heatmap"):
        assert completed(monkeypatch, capsys, command, "ru") == ["plain,runs/mine", "dir,ru"]


def test_recipes_as_json() -> None:
    listed = json.loads(run("recipes", "--format", "json").stdout)
    assert [entry["name"] for entry in listed] == [*shipped()]
    assert all(entry["about"] and Path(entry["file"]).exists() for entry in listed)


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
    assert len(recipes) == len(RECIPES) and all(
        {"data", "model", "training"} <= keys.keys() for keys in recipes
    )


def test_a_module_may_be_imported_after_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noted_module.py").write_text("import sys\nsys.noted = True\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEQ2ATTN_IMPORT", "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    for words in (
        ["recipes", "--import", "noted_module"],
        ["bench", "attention", "--import", "noted_module", "-h"],
    ):
        sys.modules.pop("noted_module", None)
        run(*words)
        assert "noted_module" in sys.modules
