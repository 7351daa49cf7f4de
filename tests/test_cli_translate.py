"""The command `translate`, as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_cli import ENGLISH, ENVIRONMENT, GERMAN, MODEL, fails, pair_files, run

import seq2attn
import seq2attn.tasks.loading


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    return pair_files(tmp_path)


def test_translate_stdin() -> None:
    assert run("translate", MODEL, stdin=GERMAN).stdout == ENGLISH
    assert run("translate", MODEL, "-", stdin=GERMAN.replace("\n", "\r\n")).stdout == ENGLISH
    assert run("translate", MODEL, stdin=GERMAN.strip()).stdout == ENGLISH
    assert run("translate", MODEL, stdin="").stdout == ""
    assert run("translate", MODEL, "--precision", "bf16", stdin=GERMAN).stdout == ENGLISH


def test_the_precision_is_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    load_for = seq2attn.tasks.loading.load_for
    monkeypatch.setattr(
        seq2attn.tasks.loading, "load_for", lambda *words: calls.append(words) or load_for(*words)
    )
    run("translate", MODEL, "--precision", "bf16", stdin="")
    assert [words[4] for words in calls] == ["bf16"]


def test_a_prefix_is_the_beginning_of_each_output() -> None:
    lines = run("translate", MODEL, "--prefix", "I ", stdin=GERMAN.replace("\n\n", "\n")).stdout.splitlines()
    assert len(lines) == 2 and all(line.split(" ")[0] == "I" for line in lines)
    status, said = fails("translate", MODEL, "--prefix", "I", "--markup", "html")
    assert status == 2 and said.endswith("leave out --prefix\n")


def test_translate_files_in_their_order(pair: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "more.de").write_text("Ich liebe dich.", encoding="utf-8")
    output = run("translate", MODEL, str(tmp_path / "more.de"), pair[0]).stdout
    assert output == "I love you.\n" + ENGLISH


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "in.de").write_bytes(b"\xef\xbb\xbfWo ist Tom?\n\xef\xbb\xbfJa.\n")
    rows = run("translate", MODEL, *[f"{tmp_path}/in.de"] * 2, "--format", "json", "--beam", "1").stdout
    sources = [json.loads(row)["source"] for row in rows.splitlines()]
    assert sources == ["Wo ist Tom?", "\ufeffJa."] * 2
    assert run("translate", MODEL, stdin=b"\xef\xbb\xbf" + GERMAN.encode()).stdout == ENGLISH


def test_translate_with_scores_and_alignments() -> None:
    output = run("translate", MODEL, "--scores", "--format", "pharaoh", stdin=GERMAN).stdout
    rows = [line.split("\t") for line in output.splitlines()]
    model = seq2attn.load(MODEL, device="cpu")
    expected = model.translate(GERMAN.splitlines())
    assert isinstance(expected, list)
    assert rows == [[f"{result.score:.4f}", result.text, result.pharaoh()] for result in expected]
    lines = run("translate", MODEL, "--format", "json", "--nbest", "2", stdin=GERMAN).stdout.splitlines()
    entries = [json.loads(line) for line in lines]
    best = {entry["number"]: entry for entry in reversed(entries)}
    assert [best[number]["text"] for number in (1, 2, 3)] == ENGLISH.splitlines()
    assert [entry["number"] for entry in entries] == [1, 1, 2, 3, 3]
    assert [best[number]["source"] for number in (1, 2, 3)] == GERMAN.splitlines()
    for entry in entries:
        assert len(entry["alignment"]) == len(entry["words"]) == len(entry["end_of_sentence"])
        for row, end in zip(entry["alignment"], entry["end_of_sentence"], strict=True):
            assert len(row) == len(entry["source_words"])
            assert sum(row) + end == pytest.approx(1, abs=1e-2)


def test_translate_nbest_gives_every_sentence_as_many_lines() -> None:
    lines = run("translate", MODEL, "--nbest", "3", stdin=GERMAN).stdout.split("\n")
    assert len(lines) == 9 + 1
    assert [lines[0], *lines[3:6], lines[6]] == ["Tom isn't here.", "", "", "", "Where's Tom?"]
    assert len({*lines[:3]}) == 3


def test_missing_hypotheses_are_not_the_best() -> None:
    """Three texts of which the second is blank: lines stay aligned, and no empty line has a probability."""
    asked = ["--nbest", "3", "--scores"]
    rows = [line.split("\t") for line in run("translate", MODEL, *asked, stdin=GERMAN).stdout.splitlines()]
    assert rows[3:6] == [
        ["0.0000", ""],
        ["-inf", ""],
        ["-inf", ""],
    ]  # its empty translation, and nothing else
    assert all(float(score) < 0 for score, text in rows if text)
    assert float(rows[0][0]) >= float(rows[1][0]) >= float(rows[2][0])
    links = run("translate", MODEL, *asked, "--format", "pharaoh", stdin=GERMAN).stdout.splitlines()
    assert links[3:6] == ["0.0000\t\t", "-inf\t\t", "-inf\t\t"]
    entries = run("translate", MODEL, *asked, "--format", "json", stdin=GERMAN).stdout.splitlines()
    assert [json.loads(entry)["number"] for entry in entries] == [1, 1, 1, 2, 3, 3, 3]


def test_translate_settings() -> None:
    model = seq2attn.load(MODEL, device="cpu")

    def same(words: str, **settings: object) -> str:
        output = run("translate", MODEL, *words.split(), stdin=GERMAN).stdout
        texts = [result.text for result in model.translate(GERMAN.splitlines(), **settings)]  # type: ignore[arg-type, union-attr]
        assert output.split("\n")[:-1] == texts
        return output

    same("--beam 1", beam=1)
    same("--beam 9 --length-penalty 0.2 --batch-tokens 60", beam=9, length_penalty=0.2)
    sampling = "--sample --seed 5 --top-k 9 --top-p 0.9 --temperature 2"
    drawn = same(sampling, sample=True, seed=5, top_k=9, top_p=0.9, temperature=2.0)
    assert drawn not in (ENGLISH, same("--sample --seed 6", sample=True, seed=6))
    same("--min-length 9 --no-repeat-ngram 2", min_length=9, no_repeat_ngram=2)
    same("--max-length 2 --replace-unknown", max_length=2, replace_unknown=True)


def test_translate_another_checkpoint(runs: dict[str, Path]) -> None:
    name = "step-00000024.safetensors"
    output = run("translate", str(runs["lstm"]), "--checkpoint", name, "--scores", stdin=GERMAN).stdout
    expected = seq2attn.load(runs["lstm"], name).translate("Tom ist nicht hier.")
    assert output.split("\t")[0] == f"{expected.score:.4f}"  # type: ignore[union-attr]


def test_translate_says_what_is_wrong(tmp_path: Path, runs: dict[str, Path]) -> None:
    assert fails("translate", "nowhere") == (
        1,
        "seq2attn: nowhere does not exist: expected a run folder, as `seq2attn train` makes it\n",
    )
    assert fails("translate", MODEL, stdin=b"Ja.\nNein\xff.\n") == (
        1,
        "seq2attn: standard input:2: expected UTF-8, got the byte 0xff at position 5 of the line: convert "
        "it, for example with iconv -f latin1 -t utf-8\n",
    )
    convert = "convert it, for example with iconv -f"
    for content, message in {
        b"\xc3": f"got the byte 0xc3 at position 1 of the line: {convert} latin1 -t utf-8",
        "Ja.".encode("utf-16"): f"got UTF-16: {convert} utf-16 -t utf-8",
    }.items():
        (tmp_path / "bad.de").write_bytes(content)
        message = f"seq2attn: {tmp_path}/bad.de:1: expected UTF-8, {message}\n"
        assert fails("translate", MODEL, str(tmp_path / "bad.de")) == (1, message)
    assert fails("translate", MODEL, "--top-k", "3") == (
        1,
        "seq2attn: decoding: top_k has no effect: set sample, too\n",
    )
    assert fails("translate", MODEL, "--beam", "0") == (
        1,
        "seq2attn: decoding: beam: expected at least 1, got 0\n",
    )
    status, error = fails("translate", MODEL, "--beam", "many")
    assert (status, "'many' is not a valid integer" in error) == (2, True)
    status, error = fails("translate", MODEL, "nowhere.de")
    assert (status, "'nowhere.de' does not exist" in error) == (2, True)
    status, error = fails("translate", MODEL, "--device", "nowhere")
    assert (status, "unknown device 'nowhere': expected cpu, cuda, cuda:1, mps or auto" in error) == (1, True)
    status, error = fails("translate", MODEL, "--checkpoint", "average")
    assert (status, "no weights 'average'; there are: step-" in error) == (1, True)


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    (tmp_path / "in.de").write_text("Ja.\n" * 5000)
    command = (
        f"{sys.executable} -m seq2attn translate {MODEL} {tmp_path}/in.de --beam 1 --nbest 1; echo $? >&2"
    )
    piped = subprocess.run(
        f"({command}) | head -n 1", shell=True, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert len(piped.stdout.splitlines()) == 1
    assert piped.stderr == "1\n"  # and not a word
