"""Summarization from end to end: made dialogues, one tiny run, every command and call that uses it."""

import gzip
import io
import json
import lzma
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from click.testing import CliRunner, Result
from tiny_summaries import train, write_corpus
from torch.testing import assert_close

import seq2attn
from seq2attn.__main__ import main
from seq2attn.cli import cli
from seq2attn.errors import Seq2attnError
from seq2attn.inference.translator import Summarizer
from seq2attn.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, its recipe and its data beside it; not to be changed."""
    folder = tmp_path_factory.mktemp("summaries")
    return train(folder / "run", write_corpus(folder))


@pytest.fixture(scope="module")
def model(run: Path) -> Summarizer:
    found = seq2attn.load(run, device="cpu")
    assert isinstance(found, Summarizer)
    return found


@pytest.fixture
def chats(run: Path, tmp_path: Path) -> Path:
    """The dev set, as another program might have written it."""
    path = tmp_path / "chats.jsonl"
    shutil.copy(run.parent / "dev.jsonl", path)
    return path


def said(*words: str | Path, stdin: str | bytes = "") -> Result:
    """What a command that succeeds says."""
    found = CliRunner().invoke(cli, [str(word) for word in words], input=stdin, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that fails; what it says about that."""

    def failed(*words: str | Path, stdin: bytes = b"") -> str:
        monkeypatch.setattr(sys, "argv", ["seq2attn", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as status:
            main()
        error = capsys.readouterr().err
        assert status.value.code == 1 and "Traceback" not in error
        return error

    return failed


def sources(path: Path) -> list[str]:
    """The documents of a JSONL file."""
    rows = [json.loads(line)["turns"] for line in path.read_text("utf-8").splitlines()]
    return ["\n".join(turns) if isinstance(turns, list) else turns for turns in rows]


# ---- in Python --------------------------------------------------------------------------------------


def test_one_in_one_out_and_a_list_in_a_list_out(model: Summarizer, chats: Path) -> None:
    texts = sources(chats)
    together = model.summarize(texts)
    assert isinstance(together, list) and len(together) == len(texts) == 17
    for text, found in zip(texts, together, strict=True):
        alone = model.summarize(text)  # a batch is a list of documents
        assert alone.text == found.text and "\n" not in found.text
        assert alone.score == pytest.approx(found.score, abs=1e-5)
        assert_close((alone.alignment, alone.copied), (found.alignment, found.copied), atol=1e-5, rtol=1e-5)
        assert found.copied is not None and found.alignment is not None
        assert ((found.copied >= 0) & (found.copied <= 1)).all()
        assert found.alignment.shape == (len(found.words), len(found.source_words))
    assert model.summarize([]) == [] and model.summarize("").text == model.summarize("\n").text == ""
    wrong: list[tuple[Any, str]] = [([["a", 3]], "3 at texts[0][1]"), (3, "3"), ({"a": "b"}, "{'a': 'b'}")]
    for one, came in wrong:
        with pytest.raises(Seq2attnError) as caught:
            model.summarize(one)
        expected = f"expected a text or a list of texts (str, or lists of sentences or turns), got {came}"
        assert str(caught.value) == expected


def test_a_document_may_be_a_list_of_turns(model: Summarizer) -> None:
    turns = ["Anna: can you bring a book ?", "Ben: yes of course"]
    found, other, nothing = model.summarize([turns, "Eve: nice day today", []])
    assert str(found) == str(model.summarize("\n".join(turns))) and nothing.text == ""
    assert found.source.words == "\n".join(turns).split() and other.source.words[0] == "Eve:"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_end_within_a_turn_does_not_split_it(
    model: Summarizer, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """As in training data, where a document is a list of turns, too."""
    read, tokenize = [], Summarizer._tokenize
    monkeypatch.setattr(
        Summarizer, "_tokenize", lambda self, text, *more: (read.append(text), tokenize(self, text, *more))[1]
    )
    model.summarize([[f"Anna: can you{end}bring a book ?", "Ben: yes of course"]])
    assert read == ["Anna: can you bring a book ?\nBen: yes of course"]


def test_what_another_task_does_is_refused(model: Summarizer, run: Path) -> None:
    assert repr(model).startswith("Summarizer(")
    for method in ("tag", "classify"):
        with pytest.raises(
            AttributeError, match=f"for summarization, not to {method}: use its method summarize"
        ):
            getattr(model, method)
    for one in (model, run):
        with pytest.raises(
            Seq2attnError, match="for summarization, not to translate: use its method summarize"
        ):
            seq2attn.translate("Eve: nice day today", one)


def test_line_feeds_are_spaces_to_the_model(model: Summarizer) -> None:
    text = "Anna: can you bring a book ?\nBen: yes of course"
    assert model.summarize(text).text == model.summarize(text.replace("\n", "  ")).text
    assert model.summarize(text.replace("\n", "\r\n\n")).source.ids == model.summarize(text).source.ids


def test_decoding_keeps_its_limits(model: Summarizer, chats: Path) -> None:
    texts = sources(chats)
    for settings in ({}, {"beam": 1}, {"nbest": 3}, {"sample": True, "temperature": 3.0, "nbest": 2}):
        for found in model.summarize(texts, min_length=9, **settings):  # type: ignore[call-overload]
            for one in found.nbest:
                ids = one.target.ids
                grams = [*zip(ids, ids[1:], ids[2:], strict=False)]
                assert 9 <= len(ids) <= 12 and len(set(grams)) == len(grams)
    free = model.summarize(texts, min_length=11, no_repeat_ngram=1)
    assert all(len(set(one.target.ids)) == len(one.target.ids) for one in free)


def test_a_given_summary_longer_than_the_limits_is_aligned_whole(model: Summarizer, chats: Path) -> None:
    text = " ".join(["Anna asks Ben for the blue car ."] * 5)
    found = model.align(sources(chats)[0], text)
    assert found.text == text and len(found.words) == 40 and found.copied is not None


def test_what_training_read_is_read_again_without_a_word(model: Summarizer, run: Path) -> None:
    """As much of a long source as `data.truncate` says, silently: it was the recipe's will."""
    long = "\n".join(f"Eve: nice day number {number}" for number in range(40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.summarize(long)
    words = long.split()
    assert found.source_words == [*words[:30], *words[-13:]]
    with pytest.warns(
        UserWarning, match=r"sentence 1 has 43 pieces and was truncated to 20 \(decoding.max_source"
    ):
        decoding = model.decoding.model_copy(update={"max_source": 20})
        seen = replace(model, decoding=decoding).summarize(long)
    assert seen.source_words == words[:20]


def test_new_words_side_by_side_can_be_copied_one_by_one(model: Summarizer) -> None:
    text = "Zorkon Blubber: can you bring zibzab zork ?"
    given = model.align(text, "Zorkon asks zork .")
    assert given.target.ids[0] == model.target.size and given.target.ids[2] == model.target.size + 6
    (unknown, known) = model.log_probabilities([text] * 2, ["Gnurk asks zork .", "Zorkon asks zork ."])
    assert unknown != pytest.approx(known, abs=1e-3)


# ---- seq2attn summarize -------------------------------------------------------------------------------


def test_rows_of_json_are_documents(run: Path, model: Summarizer, chats: Path) -> None:
    """Texts and lists of sentences; plain, or packed as training takes them."""
    expected = "".join(f"{one.text}\n" for one in model.summarize(sources(chats)))
    assert said("summarize", run, chats, "--key", "turns").output == expected
    for suffix, pack in ((".gz", gzip.compress), (".xz", lzma.compress)):
        packed = chats.with_name(chats.name + suffix)
        packed.write_bytes(pack(chats.read_bytes()))
        assert said("summarize", run, packed, "--key", "turns").output == expected


def test_a_line_is_a_document_or_a_whole_file(run: Path, model: Summarizer, tmp_path: Path) -> None:
    text = "Anna: can you bring a book ?\nBen: yes of course\n"
    path = tmp_path / "chat.txt"
    path.write_text(text, "utf-8")
    each = [model.summarize(line).text for line in text.splitlines()]
    whole = model.summarize(text).text
    assert said("summarize", run, path).output.splitlines() == each
    assert said("summarize", run, stdin=text).output.splitlines() == each
    assert said("summarize", run, "-", stdin=text.encode()).output.splitlines() == each
    packed = tmp_path / "chat.txt.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert said("summarize", run, packed).output.splitlines() == each
    assert said("summarize", run, path, path, "--whole").output.splitlines() == [whole, whole]
    assert said("summarize", run, "--whole", stdin=text).output.splitlines() == [whole]


def test_json_has_what_was_copied(run: Path, chats: Path) -> None:
    words = ["summarize", run, chats, "--key", "turns", "--format", "json", "--nbest", "2"]
    rows = [json.loads(line) for line in said(*words).output.splitlines()]
    assert [row["number"] for row in rows] == [number for number in range(1, 18) for _ in "ab"]
    assert [row["source"] for row in rows[::2]] == [one.replace("\r\n", "\n") for one in sources(chats)]
    for found in rows:
        assert "nbest" not in found and len(found["copied"]) == len(found["words"]) == len(found["alignment"])
        assert all(0 <= share <= 1 for share in found["copied"])


def test_empty_documents_have_empty_summaries(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    rows = ["", "\n\n", [], ["", " "], "Anna: can you bring a book ?"]
    path.write_text("".join(json.dumps({"source": row}) + "\n" for row in rows), "utf-8")
    lines = said("summarize", run, path).output.split("\n")
    assert lines[:4] == ["", "", "", ""] and lines[4] and lines[5:] == [""]
    (tmp_path / "empty.txt").write_text("\n\n\n", "utf-8")
    assert said("summarize", run, tmp_path / "empty.txt", "--whole").output == "\n"
    assert said("summarize", run, stdin="").output == ""
    assert json.loads(said("summarize", run, "--format", "json", stdin="\n").output)["text"] == ""


def test_several_of_each_and_drawn_ones(run: Path, chats: Path) -> None:
    lines = said("summarize", run, chats, "--key", "turns", "--nbest", "4", "--scores").output.splitlines()
    assert len(lines) == 4 * 17
    for begin in range(0, len(lines), 4):
        scores = [float(line.split("\t")[0]) for line in lines[begin : begin + 4]]
        assert all(first >= second for first, second in pairwise(scores))
    drawn = [said("summarize", run, chats, "--key", "turns", "--sample", "--seed", "5").output for _ in "ab"]
    assert drawn[0] == drawn[1] and len(drawn[0].splitlines()) == 17


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"text": "a"}\n',
            r":1: no key source (keys: text); name the key of the documents with --key",
        ),
        (b'\n{"source": 3}\n', r":2: source is 3 where a text, or a list of texts, was expected"),
        (b'{"source": ["a", 3]}\n', r":1: source is [\"a\", 3] where a text"),
        (b"no json\n", ":1: not JSON: "),
        (b'["a"]\n', ":1: no key source (keys: none)"),
        (b'{"source": "caf\xe9"}\n', ":1: byte 0xe9 in column 16 is no UTF-8"),
        (b'{"source": "\\ud83d"}\n', ":1: source has half a surrogate pair"),
    ],
)
def test_faults_of_rows(fails: Any, run: Path, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    error = fails("summarize", run, path)
    assert "bad_lines" not in error  # which is of recipes
    assert error.startswith(f"seq2attn: {path}:") and message.replace('\\"', '"') in error


def test_faults_of_files(fails: Any, run: Path, tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Café\n".encode("latin-1"))
    for more in ([], ["--whole"]):
        assert f"{latin}:1: expected UTF-8, got the byte 0xe9" in fails("summarize", run, latin, *more)
    (tmp_path / "damaged.jsonl.gz").write_bytes(b"{}")
    assert "damaged, or not compressed as its name says" in fails(
        "summarize", run, tmp_path / "damaged.jsonl.gz"
    )
    (tmp_path / "rows.jsonl").write_text('{"source": "a"}\n', "utf-8")
    error = fails("summarize", run, tmp_path / "rows.jsonl", "--whole")
    assert f"--whole: each row of {tmp_path}/rows.jsonl is a document" in error


def test_a_byte_order_mark_is_no_part_of_a_text(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "chat.txt"
    path.write_bytes(b"\xef\xbb\xbfAnna: yes\nBen: no\n")
    words = ["--whole", "--format", "json"]
    for line in said("summarize", run, path, path, *words).output.splitlines():
        assert json.loads(line)["source"] == "Anna: yes\nBen: no"
    assert json.loads(said("summarize", run, *words, stdin=path.read_bytes()).output)["source"][:4] == "Anna"


def test_a_wrong_command_says_which_is_right(fails: Any, run: Path) -> None:
    for command in ("translate", "tag", "classify"):
        error = fails(command, run, stdin=b"a\n")
        assert f"{run} was trained for summarization: use `seq2attn summarize`, not {command}" in error
    error = fails("summarize", tiny_runs.MODEL, stdin=b"a\n")
    assert "was trained for translation: use `seq2attn translate`, not summarize" in error


# ---- score, heatmap, train, bench ---------------------------------------------------------------------


def test_score_shows_what_needs_no_model(run: Path) -> None:
    lines = said("score", run, "--data", "dev").output.splitlines()
    names = ["ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum"]
    beside = [f"{which}: {name}" for which in ("lead-3", "longest-3") for name in names]
    assert [line.split(" = ")[0] for line in lines[:12]] == [*beside, *names]
    assert not any("|" in line for line in lines[:12])  # what makes the numbers comes once, below them
    assert lines[12].startswith("ROUGE-1, ROUGE-2, ROUGE-L |nrefs:var|bs:1000|")
    assert lines[13].startswith("ROUGE-Lsum |nrefs:var|") and "|split:" in lines[13]
    assert lines[14].startswith("recipe:chats|") and len(lines) == 15
    report = json.loads(said("score", run, "--data", "dev", "--format", "json", "--metric", "rouge-l").output)
    assert [*report["baselines"]] == ["lead-3", "longest-3"]
    shown = {name: report["baselines"][name][0]["value"] for name in report["baselines"]}
    assert f"lead-3: ROUGE-L = {shown['lead-3']:.1f} " in "\n".join(lines)
    assert report["scores"][0]["name"] == "ROUGE-L" and len(report["scores"]) == 1
    every = [*report["scores"], *(one for some in report["baselines"].values() for one in some)]
    assert all(one["signature"].startswith("nrefs:var|") for one in every)


def test_score_of_files(run: Path, tmp_path: Path, fails: Any) -> None:
    (tmp_path / "in").write_text("Anna: can you bring a book ?\nBen: nice day\n", "utf-8")
    (tmp_path / "gold").write_text("Anna asks for a book .\nBen is happy .\n", "utf-8")
    (tmp_path / "кириллица").write_text("Анна\nБен\n", "utf-8")
    words = ["score", run, "--source", tmp_path / "in", "--references"]
    assert "lead-3: ROUGE-1 = " in said(*words, tmp_path / "gold").output
    assert "rouge counts only words of the letters a to z" in fails(*words, tmp_path / "кириллица")


def test_score_reads_jsonl_as_summarize_does(run: Path, tmp_path: Path, fails: Any) -> None:
    texts = [["Anna: can you bring", "a book ?"], "Ben: nice day"]
    rows, gold = tmp_path / "in.jsonl", tmp_path / "gold"
    rows.write_text("".join(json.dumps({"a": {"b": text}}) + "\n" for text in texts), "utf-8")
    gold.write_text("Anna: can you bring a book ?\nBen: nice day\n", "utf-8")
    words = ["--references", gold, "--metric", "exact"]
    assert "lead-3: exact = 100.0" in said("score", run, "--source", rows, "--key", "a.b", *words).output
    assert "no key source (keys: a.b)" in fails("score", run, "--source", rows, *words)
    jsonl = ["--references", rows]
    assert "in.jsonl: expected one text a line, and this is JSONL" in fails(
        "score", "--hypotheses", gold, *jsonl
    )


def test_an_empty_list_of_references_is_a_bad_line(run: Path, tmp_path: Path, fails: Any) -> None:
    for name in ("chats.yaml", "train.jsonl"):
        shutil.copy(run.parent / name, tmp_path)
    (tmp_path / "dev.jsonl").write_text('{"turns": "a", "summary": []}\n', "utf-8")
    error = fails("train", tmp_path / "chats.yaml", "--run", tmp_path / "run")
    assert "dev.jsonl:1: summary is an empty list where at least one text was expected" in error


def test_the_heat_map_has_a_column_of_what_was_copied(run: Path, model: Summarizer, tmp_path: Path) -> None:
    text, path = "Anna: can you bring a book ?\nBen: yes of course", tmp_path / "map.svg"
    shown = said("heatmap", run, text, "-o", path).output
    assert shown.splitlines() == [model.summarize(text).text, str(path)]
    assert ">copied</text>" in path.read_text("utf-8")


def test_resume_is_exact(run: Path, tmp_path: Path) -> None:
    path = train(tmp_path / "run", run.parent / "chats.yaml", "training.max_steps=12")
    train(path, run.parent / "chats.yaml", resume=True)
    assert tiny_runs.weights_hash(path) == tiny_runs.weights_hash(run)
    assert RunFolder.open(path).recipe == RunFolder.open(run).recipe
