"""Every command, as a user types it."""

import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
from click.testing import CliRunner, Result

import seq2attn
from seq2attn.__main__ import main
from seq2attn.cli import cli
from seq2attn.metrics import METRICS
from seq2attn.recipe import shipped
from seq2attn.training.run_folder import RunFolder

MODEL = str(tiny_runs.MODEL)
GERMAN = "Tom ist nicht hier.\n\nWo ist Tom?\n"
ENGLISH = "Tom isn't here.\n\nWhere's Tom?\n"
ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(*words: str, stdin: str | bytes = "") -> Result:
    """A command that succeeds."""
    result = CliRunner().invoke(cli, words, input=stdin, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Runs a command that fails; its exit status and what it says about that."""

    def failed(*words: str, stdin: bytes = b"") -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["seq2attn", *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as status:
            main()
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return int(status.value.code or 0), said

    return failed


@pytest.fixture
def copy(tmp_path: Path, runs: dict[str, Path]) -> str:
    return str(shutil.copytree(runs["lstm"], tmp_path / "run"))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """A file and its translation."""
    for name, text in (("in.de", GERMAN), ("out.en", ENGLISH)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / "in.de"), str(tmp_path / "out.en")


# ---- help -------------------------------------------------------------------------------------------

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
    said = run(*command.split(), "-h").output
    assert said == run(*command.split(), "--help").output
    assert set(OPTIONS[command].split()) <= set(re.findall(r"--[a-z-]+", said))
    assert re.search(rf"^  (echo .* \| )?seq2attn {command}( |$)", said, re.MULTILINE)


def test_help_is_quick() -> None:
    """Half a second of computing, whatever else the machine does; that is, no torch."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    code = "import sys; from seq2attn.__main__ import main\ntry: main()\nfinally: print(*sys.modules)"
    for words in (["--help"], ["translate", "--help"], ["--version"]):
        said = subprocess.run(
            [sys.executable, "-c", code, *words], env=ENVIRONMENT, capture_output=True, text=True, check=True
        ).stdout
        loaded = set(said.splitlines()[-1].split())
        assert not loaded & {"torch", "numpy", "sentencepiece", "datasets", "pydantic", "rich"}
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 3 * 0.5
    assert f"seq2attn, version {seq2attn.__version__}" in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(fails, monkeypatch: pytest.MonkeyPatch, capsys, shell: str) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("_SEQ2ATTN_COMPLETE", f"{shell}_source")
    monkeypatch.setattr(sys, "argv", ["seq2attn"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "_seq2attn_completion" in capsys.readouterr().out


# ---- translate --------------------------------------------------------------------------------------


def test_translate_stdin() -> None:
    assert run("translate", MODEL, stdin=GERMAN).stdout == ENGLISH
    assert run("translate", MODEL, "-", stdin=GERMAN.replace("\n", "\r\n")).stdout == ENGLISH
    assert run("translate", MODEL, stdin=GERMAN.strip()).stdout == ENGLISH
    assert run("translate", MODEL, stdin="").stdout == ""
    assert run("translate", MODEL, "--precision", "bf16", stdin=GERMAN).stdout == ENGLISH


def test_the_precision_is_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    load_for = seq2attn.tasks.loading.load_for
    monkeypatch.setattr(
        seq2attn.tasks.loading, "load_for", lambda *words: asked.append(words) or load_for(*words)
    )
    run("translate", MODEL, "--precision", "bf16", stdin="")
    assert [words[-1] for words in asked] == ["bf16"]


def test_translate_files_in_their_order(pair: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "more.de").write_text("Ich liebe dich.", encoding="utf-8")
    said = run("translate", MODEL, str(tmp_path / "more.de"), pair[0]).stdout
    assert said == "I love you.\n" + ENGLISH


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "in.de").write_bytes(b"\xef\xbb\xbfWo ist Tom?\n\xef\xbb\xbfJa.\n")
    rows = run("translate", MODEL, *[f"{tmp_path}/in.de"] * 2, "--format", "json", "--beam", "1").stdout
    sources = [json.loads(row)["source"] for row in rows.splitlines()]
    assert sources == ["Wo ist Tom?", "\ufeffJa."] * 2
    assert run("translate", MODEL, stdin=b"\xef\xbb\xbf" + GERMAN.encode()).stdout == ENGLISH


def test_translate_with_scores_and_alignments() -> None:
    said = run("translate", MODEL, "--scores", "--format", "pharaoh", stdin=GERMAN).stdout
    rows = [line.split("\t") for line in said.splitlines()]
    model = seq2attn.load(MODEL, device="cpu")
    expected = model.translate(GERMAN.splitlines())
    assert isinstance(expected, list)
    assert rows == [[f"{one.score:.4f}", one.text, one.pharaoh()] for one in expected]
    lines = run("translate", MODEL, "--format", "json", "--nbest", "2", stdin=GERMAN).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["text"] for one in found[::2]] == ENGLISH.splitlines()
    assert [one["number"] for one in found] == [1, 1, 2, 2, 3, 3]
    assert [one["source"] for one in found[::2]] == GERMAN.splitlines()
    for one in found:
        assert len(one["alignment"]) == len(one["words"]) == len(one["end_of_sentence"])
        for row, end in zip(one["alignment"], one["end_of_sentence"], strict=True):
            assert len(row) == len(one["source_words"])
            assert sum(row) + end == pytest.approx(1, abs=1e-2)


def test_translate_nbest_gives_every_sentence_as_many_lines() -> None:
    lines = run("translate", MODEL, "--nbest", "3", stdin=GERMAN).stdout.split("\n")
    assert len(lines) == 9 + 1
    assert [lines[0], *lines[3:6], lines[6]] == ["Tom isn't here.", "", "", "", "Where's Tom?"]
    assert len({*lines[:3]}) == 3


def test_translate_settings() -> None:
    model = seq2attn.load(MODEL, device="cpu")

    def same(words: str, **settings: object) -> str:
        said = run("translate", MODEL, *words.split(), stdin=GERMAN).stdout
        texts = [one.text for one in model.translate(GERMAN.splitlines(), **settings)]  # type: ignore[arg-type, union-attr]
        assert said.split("\n")[:-1] == texts
        return said

    same("--beam 1", beam=1)
    same("--beam 9 --length-penalty 0.2 --batch-tokens 60", beam=9, length_penalty=0.2)
    sampling = "--sample --seed 5 --top-k 9 --top-p 0.9 --temperature 2"
    drawn = same(sampling, sample=True, seed=5, top_k=9, top_p=0.9, temperature=2.0)
    assert drawn not in (ENGLISH, same("--sample --seed 6", sample=True, seed=6))
    same("--min-length 9 --no-repeat-ngram 2", min_length=9, no_repeat_ngram=2)
    same("--max-length 2 --replace-unknown", max_length=2, replace_unknown=True)


def test_translate_another_checkpoint(runs: dict[str, Path]) -> None:
    name = "step-00000024.safetensors"
    said = run("translate", str(runs["lstm"]), "--checkpoint", name, "--scores", stdin=GERMAN).stdout
    expected = seq2attn.load(runs["lstm"], name).translate("Tom ist nicht hier.")
    assert said.split("\t")[0] == f"{expected.score:.4f}"  # type: ignore[union-attr]


def test_translate_says_what_is_wrong(fails, tmp_path: Path, runs: dict[str, Path]) -> None:  # type: ignore[no-untyped-def]
    assert fails("translate", "nowhere") == (
        1,
        "seq2attn: nowhere does not exist: expected a run folder, as `seq2attn train` makes it\n",
    )
    assert fails("translate", MODEL, stdin=b"Ja.\nNein\xff.\n") == (
        1,
        "seq2attn: standard input:2: expected UTF-8, got the byte 0xff at position 5 of the line\n",
    )
    (tmp_path / "bad.de").write_bytes(b"\xc3")
    message = f"seq2attn: {tmp_path}/bad.de:1: expected UTF-8, got the byte 0xc3 at position 1 of the line\n"
    assert fails("translate", MODEL, str(tmp_path / "bad.de")) == (1, message)
    assert fails("translate", MODEL, "--top-k", "3") == (
        1,
        "seq2attn: decoding: top_k would do nothing: set sample, too\n",
    )
    assert fails("translate", MODEL, "--beam", "0") == (
        1,
        "seq2attn: decoding: beam: expected at least 1, got 0\n",
    )
    status, said = fails("translate", MODEL, "--beam", "many")
    assert (status, "'many' is not a valid integer" in said) == (2, True)
    status, said = fails("translate", MODEL, "nowhere.de")
    assert (status, "'nowhere.de' does not exist" in said) == (2, True)
    status, said = fails("translate", MODEL, "--device", "nowhere")
    assert (status, "unknown device 'nowhere': expected cpu, cuda, cuda:1, mps or auto" in said) == (1, True)
    status, said = fails("translate", MODEL, "--checkpoint", "average")
    assert (status, "no weights 'average'; there are: step-" in said) == (1, True)


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    (tmp_path / "in.de").write_text("Ja.\n" * 5000)
    command = (
        f"{sys.executable} -m seq2attn translate {MODEL} {tmp_path}/in.de --beam 1 --nbest 1; echo $? >&2"
    )
    found = subprocess.run(
        f"({command}) | head -n 1", shell=True, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert len(found.stdout.splitlines()) == 1
    assert found.stderr == "1\n"  # and not a word


# ---- score ------------------------------------------------------------------------------------------


def test_score_files(pair: tuple[str, str]) -> None:
    said = run("score", "--hypotheses", pair[1], "--references", pair[1]).stdout.splitlines()
    assert [line.partition(" = ")[0] for line in said] == ["BLEU", "chrF2", "TER"]
    assert said[0].startswith("BLEU = 100.0 [")
    both = ["--references", pair[1], "--references", pair[0]]
    found = json.loads(run("score", "--hypotheses", pair[1], *both, "--format", "json").stdout)
    assert found["signature"] is None
    assert "nrefs:2" in found["scores"][0]["signature"]


def test_score_a_run(pair: tuple[str, str]) -> None:
    files = ["--source", pair[0], "--references", pair[1]]
    said = run("score", MODEL, *files, "--beam", "3", "--length-penalty", "0.5").stdout.splitlines()
    assert said[0].startswith("BLEU = 100.0")
    made = f"recipe:model|checkpoint:best|beam:3|length:simple^0.5|seed:1|seq2attn:{seq2attn.__version__}"
    assert said[3] == made
    found = json.loads(run("score", MODEL, *files, "--format", "json").stdout)
    assert [score["name"] for score in found["scores"]] == ["BLEU", "chrF2", "TER"]
    assert found["signature"].startswith("recipe:model|checkpoint:best|beam:5|")
    dev, test = (run("score", MODEL, "--data", which).stdout for which in ("dev", "test"))
    assert dev != test == run("score", MODEL).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("score", "give either a RUN, or --hypotheses and --references"),
        (
            "score MODEL --hypotheses FILE --references FILE",
            "give either a RUN, or --hypotheses and --references",
        ),
        ("score --hypotheses FILE", "--references goes with --source or --hypotheses"),
        ("score MODEL --source FILE", "--references goes with --source or --hypotheses"),
        ("score MODEL --references FILE", "--references goes with --source or --hypotheses"),
        ("score MODEL --data train", "'train' is not one of 'dev', 'test'"),
        ("score --hypotheses nowhere --references FILE", "'nowhere' does not exist"),
    ],
)
def test_score_says_how_it_is_used(fails, pair: tuple[str, str], words: str, message: str) -> None:  # type: ignore[no-untyped-def]
    status, said = fails(*words.replace("FILE", pair[0]).replace("MODEL", MODEL).split())
    assert (status, message in said) == (2, True), said


def test_help_names_the_metrics_of_every_task() -> None:
    said = re.sub(r"-\n +", "-", run("score", "--help").output)
    assert set(METRICS) <= set(re.findall(r"[a-z0-9+-]+", said.partition("--metric ")[2]))


def test_metrics_are_those_of_the_task(fails) -> None:  # type: ignore[no-untyped-def]
    status, said = fails("score", MODEL, "--metric", "chrf", "--metric", "f1")
    expected = f"seq2attn: f1 is of tagged words; {MODEL} was trained for translation: one of bleu, bleu-zh, bleu-char"
    assert (status, said[: len(expected)]) == (1, expected)
    status, said = fails("score", MODEL, "--metric", "bleau")
    assert (status, "unknown metric 'bleau' (did you mean bleu? one of bleu, " in said) == (1, True)


def test_score_files_of_unequal_length(fails, pair: tuple[str, str], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "short").write_text("one\n")
    status, said = fails("score", "--hypotheses", pair[1], "--references", str(tmp_path / "short"))
    assert (status, "expected a reference for each of 3 hypotheses, got 1" in said) == (1, True)


# ---- heatmap, average -------------------------------------------------------------------------------

MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.mark.parametrize("form", MAGIC)
def test_heatmap(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"map.{form}"
    assert run("heatmap", MODEL, "Wo ist Tom?", "-o", str(path)).stdout == f"Where's Tom?\n{path}\n"
    assert path.read_bytes().startswith(MAGIC[form])


def test_heatmap_shows_what_is_asked_for(tmp_path: Path, runs: dict[str, Path]) -> None:
    def drawn(*words: str, run_folder: str = MODEL) -> str:
        path = tmp_path / "map.svg"
        assert run("heatmap", run_folder, "Wo ist Tom?", "-o", str(path), *words).stdout.endswith(f"{path}\n")
        return path.read_text()

    maps = [drawn(), drawn("--pieces"), drawn("--target", "This is a table."), drawn("--beam", "1")]
    assert len({*maps[:3]}) == 3
    transformer = str(runs["transformer"])
    words = ["--target", "Where is he?"]
    layers = [
        drawn(*words, "--layer", str(layer), "--head", "1", run_folder=transformer) for layer in range(3)
    ]
    assert len({*layers, drawn(*words, run_folder=transformer)}) == 4


def test_heatmap_says_what_is_wrong(fails, tmp_path: Path, runs: dict[str, Path]) -> None:  # type: ignore[no-untyped-def]
    path = str(tmp_path / "map.png")
    for words, message in [
        (["Ja.", "-o", str(tmp_path / "map.docx")], ".png, .svg or .pdf"),
        (["", "-o", path], "nothing to draw"),
        (["Ja.", "-o", path, "--layer", "7"], "the model has 1 attention layers, 0 to 0; got layer 7"),
        (["Ja.", "-o", path, "--head", "7"], "the layer has 1 heads, 0 to 0; got head 7"),
    ]:
        status, said = fails("heatmap", MODEL, *words)
        assert (status, message in said) == (1, True), said
    assert fails("heatmap", MODEL, "Ja.")[0] == 2


def test_average(copy: str, fails) -> None:  # type: ignore[no-untyped-def]
    said = run("average", copy, "--last", "3").stdout
    assert said.startswith(f"{copy}/weights/average-3.safetensors; best: ")
    assert run("translate", copy, "--checkpoint", "average", stdin=GERMAN).stdout.count("\n") == 3
    status, message = fails("average", copy, "--last", "9")
    assert (status, "cannot average the last 9 weights" in message) == (1, True)


# ---- recipes ----------------------------------------------------------------------------------------


def test_recipes_lists_what_ships() -> None:
    said = run("recipes").stdout
    for name, path in shipped().items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        assert f"{name}\n    {first}\n" in said


def test_schema_is_one() -> None:
    schema = json.loads(run("schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    recipes = [schema["$defs"][of["$ref"].split("/")[-1]]["properties"] for of in schema["anyOf"]]
    assert len(recipes) == 4 and all({"data", "model", "training"} <= keys.keys() for keys in recipes)


def test_train_to_its_end_and_on(tmp_path: Path, fails) -> None:  # type: ignore[no-untyped-def]
    path = str(tmp_path / "run")
    words = [
        "train",
        "quickstart",
        *tiny_runs.SMALL,
        *tiny_runs.MODELS["lstm"],
        *tiny_runs.READY,
        "--run",
        path,
    ]
    words.append("training.validate_every=2")
    result = run(*words, "training.max_steps=2", "--device", "cpu")
    lines = result.stdout.splitlines()
    assert [line.partition(" = ")[0] for line in lines[:3]] == ["BLEU", "chrF2", "TER"]
    assert lines[3].startswith("recipe:quickstart|checkpoint:best|beam:5|length:simple^1|seed:1|")
    assert "step 2: dev loss" in result.stderr and re.search(
        "[0-9] pairs, [0-9,]+ parameters, ", result.stderr
    )
    assert re.search(r"^best: step-00000002\.safetensors \(bleu \d+\.\d\d\)$", result.stderr, re.MULTILINE)
    assert result.stderr.endswith(f"the run is in {path}\n")
    status, said = fails(*words)
    assert (status, said.startswith(f"seq2attn: {path} exists and is not overwritten")) == (1, True)
    run(*words, "training.max_steps=4", "--resume")
    assert RunFolder.open(path).version.last == "step-00000004.safetensors"


def test_check_tries_everything(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*tiny_runs.SMALL, *tiny_runs.MODELS["lstm"], *tiny_runs.READY, "--pairs", "50"]
    said = run("check", "quickstart", *words).stdout
    for title in (
        "recipe",
        "vocabulary",
        "data.train",
        "data.dev",
        "data.test",
        "model",
        "training",
        "decoding",
    ):
        assert re.search(rf"^{title} ", said, re.MULTILINE), title
    assert "50 examples read" in said


@pytest.mark.parametrize("command", ["train", "check"])
def test_an_unknown_recipe_lists_those_that_ship(fails, command: str) -> None:  # type: ignore[no-untyped-def]
    status, said = fails(command, "quikstart")
    assert status == 1
    assert (
        said
        == f"seq2attn: quikstart  no such file (did you mean quickstart? recipes that ship: {', '.join(shipped())})\n"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "task: taging",
            "unknown 'taging' (did you mean tagging? one of translation, summarization, tagging, ",
        ),
        ("task: 3", "expected one of translation, summarization, tagging, classification, got 3"),
        ("", "is missing, and this reads as tagging: without it, it would be translation"),
    ],
)
def test_without_its_task_a_recipe_has_one_fault(fails, tmp_path: Path, line: str, message: str) -> None:  # type: ignore[no-untyped-def]
    path, place = tmp_path / "mine.yaml", f"{{conll: {__file__}, columns: [0, -1]}}"
    data = f"data: {{train: {place}, dev: {place}}}\nmodel: {{head: {{kind: crf}}}}\ntraining: {{max_steps: 3}}\n"
    path.write_text(f"{line}\n{data}", encoding="utf-8")
    status, said = fails("check", str(path))
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith(f"seq2attn: {path}:1  task: {message}")


@pytest.mark.parametrize("part", ["--scorers", "--normalizers"])
@pytest.mark.parametrize("name", ["additve, dot", "{name: additve, size: 3}"])
def test_a_comparison_of_unknown_parts_does_not_begin(fails, tmp_path: Path, part: str, name: str) -> None:  # type: ignore[no-untyped-def]
    status, said = fails("bench", "attention", "copy_additive", part, name, "--out", str(tmp_path / "out"))
    assert (status, said.startswith(f"seq2attn: {part}: unknown 'additve' (")) == (1, True)
    assert not (tmp_path / "out").exists()
    assert part == "--normalizers" or "did you mean additive?" in said


@pytest.mark.parametrize("command", ["train", "check"])
def test_a_faulty_recipe_has_a_line_for_each_fault(fails, tmp_path: Path, command: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "mine.yaml"
    text = shipped()["quickstart"].read_text(encoding="utf-8")
    text = text.replace("score: additive", "score: additve").replace("batch_tokens:", "batch_token:")
    path.write_text(text + "colour: red\n", encoding="utf-8")
    status, said = fails(command, str(path), "training.max_epochs=many")
    assert status == 1
    lines = said.removeprefix("seq2attn: ").splitlines()
    assert [
        re.sub(r"^.*?mine.yaml:\d+  |^command line: ", "", line).partition(": ")[0] for line in lines
    ] == [
        "model.decoder.attention.score",
        "training.batch_token",
        "colour",
        "training.max_epochs",
    ]
    assert "did you mean additive?" in lines[0]


def test_the_script_is_the_command() -> None:
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert "seq2attn = seq2attn.__main__:main" in setup
    said = subprocess.run(
        [sys.executable, "-m", "seq2attn", "translate", MODEL],
        input=GERMAN, env=ENVIRONMENT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (said.stdout, said.stderr) == (ENGLISH, "")
