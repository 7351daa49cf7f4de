"""Files as corpora: the same pairs from every kind of file, every fault with file and line."""

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_corpora import COLUMNS, PACK, ROWS, SAMPLE, SENTENCES, read, skipped, write

from seq2attn.data import DataError, Report

pytestmark = pytest.mark.usefixtures("own_cache")


# ---- the sample -------------------------------------------------------------------------------------


def test_the_sample_has_three_splits_in_either_direction():
    german = {role: read(SAMPLE, role=role) for role in ("train", "dev", "test")}
    assert {role: len(found) for role, found in german.items()} == {
        "train": 50_000,
        "dev": 1000,
        "test": 1000,
    }
    assert german["dev"][0] == ("Er sagt, er wird kommen.", "He says he will come.")
    assert read(SAMPLE | {"split": "dev"}, languages=("en", "de")) == [pair[::-1] for pair in german["dev"]]
    with pytest.raises(DataError, match=r"data\.languages: tatoeba_de_en has de and en, not fr and en"):
        read(SAMPLE, languages=("fr", "en"))


def test_no_sentence_of_the_sample_is_in_two_splits():
    plain = re.compile(r"[A-Za-zÄÖÜäöüß0-9 .,!?'’:;\"„“–-]+")
    seen = [set(), set()]
    for role, size in (("train", None), ("dev", 1000), ("test", 1000)):
        found = read(SAMPLE, role=role)
        assert all(plain.fullmatch(text) and 3 <= len(text.split()) <= 15 for pair in found for text in pair)
        for side in (0, 1):
            bare = {" ".join(re.findall(r"\w+", pair[side].casefold())) for pair in found}
            assert size is None or len(bare) == size
            assert not bare & seen[side]
            seen[side] |= bare


@pytest.mark.skipif(not os.environ.get("SEQ2ATTN_DATA"), reason="needs tatoeba_de_en in $SEQ2ATTN_DATA")
def test_the_sample_can_be_made_again():
    script = Path(__file__).parent.parent / "scripts" / "make_sample.py"
    spec = importlib.util.spec_from_file_location("make_sample", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.choose(Path(os.environ["SEQ2ATTN_DATA"]) / "tatoeba_de_en")
    assert made == {role: read(SAMPLE, role=role) for role in ("train", "dev", "test")}


# ---- files and their faults -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", PACK)
def test_every_kind_of_file_gives_the_same_pairs(tmp_path, suffix):
    def packed(name, lines):
        return write(
            tmp_path / (name + suffix), PACK[suffix]("".join(f"{line}\n" for line in lines).encode())
        )

    german, english = (
        packed(name, [pair[i] for pair in SENTENCES]) for i, name in enumerate(("de.txt", "en.txt"))
    )
    assert read({"files": [german, english]}) == SENTENCES
    assert read({"files": [english, german], "limit": 2}) == [pair[::-1] for pair in SENTENCES[:2]]
    table = packed("x.tsv", [f"{i}\t{de}\t{en}" for i, (de, en) in enumerate(SENTENCES)])
    assert read({"table": table, "columns": [1, 2]}) == SENTENCES
    rows = packed("x.jsonl", map(json.dumps, ROWS))
    assert read({"table": rows, "columns": COLUMNS}) == SENTENCES


@given(st.lists(st.tuples(*[st.text(st.characters(exclude_characters="\r\n", codec="utf-8"))] * 2)))
@settings(deadline=None, max_examples=50)
def test_any_text_is_read_as_it_stands(tmp_path_factory, sentences):
    folder = tmp_path_factory.mktemp("any")
    sentences = [("\ufeffone", "x"), ("\ufefftwo", "x"), *sentences]  # a mark is one at the very start alone
    sides = [
        write(folder / str(i), "\ufeff" + "".join(f"{pair[i]}\r\n" for pair in sentences)) for i in (0, 1)
    ]
    assert read({"files": sides}) == sentences


def test_csv_is_no_table_and_the_message_says_what_to_do(tmp_path):
    path = write(tmp_path / "x.csv", b"eins,one\n")
    with pytest.raises(
        DataError, match=rf"x\.csv:1: 1 column .* CSV is read by dataset: csv, data_files: {path}"
    ):
        read({"table": path})


def test_faults_of_a_table(tmp_path):
    path = write(
        tmp_path / "x.tsv",
        b"eins\tone\n"
        b"zwei\ttwo\tzwo\n"  # 2
        b"drei\tth\xffree\n"  # 3
        b"vier\n"  # 4
        b"\n"  # 5
        b"f\xc3\xbcnf\tfive\n"
        b"sechs\tsix\xc3\n",  # 7
    )
    found, report = skipped({"table": path})
    assert found == [("eins", "one"), ("fünf", "five")]
    assert (report.read, report.kept) == (2, 2)
    assert {reason: entry.examples for reason, entry in report.reasons.items()} == {
        "wrong number of columns": [
            f"{path}:2: 3 columns where 2 were expected, as before",
            f"{path}:4: 1 column where at least 2 were expected",
        ],
        "broken UTF-8": [
            f"{path}:3: byte 0xff in column 8 is no UTF-8",
            f"{path}:7: byte 0xc3 in column 10 is no UTF-8",
        ],
        "blank line": [f"{path}:5"],
    }
    with pytest.raises(DataError) as error:
        read({"table": path})
    assert str(error.value) == (
        f"{path}:2: 3 columns where 2 were expected, as before; fix it, or set data.bad_lines: skip"
    )


def test_faults_of_json_lines(tmp_path):
    lines = [
        '{"a": {"de": "eins"}, "b": ["one"]}',
        '{"a": {"de": "zwei"}}',
        '{"a": {"de": null}, "b": ["three"]}',
        '{"a": {"de": "vier"}, "b": [4]}',
        '{"a": {"de": "fünf", "b": "five"',
        '["sechs", "six"]',
        '{"a": {"de": "\\ud83d"}, "b": ["seven"]}',
        '{"a.de": "acht", "b.0": "eight"}',
    ]
    path = write(tmp_path / "x.jsonl", "\n".join(lines))
    found, report = skipped({"table": path, "columns": ["a.de", "b.0"]})
    assert found == [("eins", "one"), ("acht", "eight")]
    assert [example for entry in report.reasons.values() for example in entry.examples] == [
        f"{path}:2: no column b.0; there are: a.de",
        f"{path}:6: no column a.de; there are: none",
        f"{path}:3: a.de is null where a text, or a list of texts, was expected",
        f"{path}:4: b.0 is 4 where a text, or a list of texts, was expected",
        f"{path}:5: not JSON: Expecting ',' delimiter: line 1 column 33 (char 32)",
        f"{path}:7: a.de has half a surrogate pair, which is no character",
    ]
    with pytest.raises(DataError, match=r"x\.jsonl:2: no column b\.0"):
        read({"table": path, "columns": ["a.de", "b.0"]})


def test_faults_of_parallel_files(tmp_path):
    source = write(tmp_path / "x.de", b"eins\nzw\xe4i\ndrei\nvier\n")
    target = write(tmp_path / "x.en", b"one\ntwo\n\xf0\n")
    found, report = skipped({"files": [source, target]})
    assert found == [("eins", "one")]
    assert {reason: (entry.count, entry.examples) for reason, entry in report.reasons.items()} == {
        "broken UTF-8": (
            2,
            [
                f"{source}:2: byte 0xe4 in column 3 is no UTF-8",
                f"{target}:3: byte 0xf0 in column 1 is no UTF-8",
            ],
        ),
        "unequal number of lines": (
            1,
            [f"{source}:4: no counterpart: this file has 4 lines, but {target} has 3"],
        ),
    }
    write(tmp_path / "x.de", "eins\nzwei\n")
    write(tmp_path / "x.en", "one\n" * 7)
    with pytest.raises(
        DataError, match=r"x\.en:3: no counterpart: this file has 7 lines, but .*x\.de has 2; fix"
    ):
        read({"files": [source, target]})
    assert skipped({"files": [source, target]})[1].reasons["unequal number of lines"].count == 5


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])
def test_a_damaged_packed_file_is_named(tmp_path, suffix):
    path = tmp_path / f"x.tsv{suffix}"
    whole = PACK[suffix](b"eins\tone\n" * 999)
    for damaged in (b"eins\tone\n", whole[:-9], whole[:10] + b"\xff" * 20):
        write(path, damaged)
        with pytest.raises(DataError, match=rf"x\.tsv\{suffix}: (damaged|cannot be read)"):
            read({"table": str(path)})


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])
@pytest.mark.parametrize("ending", [b"junk that is no stream", b"cut"])
def test_what_follows_a_packed_text_is_no_text(tmp_path, suffix, ending):
    """Several streams in a row are one text, as with zcat; anything else is damage."""
    table, packed = tmp_path / f"x.tsv{suffix}", PACK[suffix](b"a\tb\n")
    assert read({"table": write(table, packed + packed)}) == [("a", "b")] * 2
    assert read({"table": write(table, packed * 5 + PACK[suffix](b""))}) == [("a", "b")] * 5
    with pytest.raises(DataError, match=f"x\\.tsv{suffix}: "):
        read({"table": write(table, packed + (ending if ending != b"cut" else packed[:-3]))})
    with pytest.raises(DataError, match=f"x\\.tsv{suffix}: damaged, or not compressed as its name says"):
        read({"table": write(table, b"")})


def test_padding_of_xz_is_no_damage(tmp_path):
    packed = PACK[".xz"](b"a\tb\n")
    content = packed + bytes(8) + packed + bytes(4)
    assert read({"table": write(tmp_path / "x.tsv.xz", content)}) == [("a", "b")] * 2


def test_lines_that_end_in_cr_alone_are_refused(tmp_path):
    for content in (b"a\tb\rc\td\r", b"a\tb\rc\td"):
        with pytest.raises(DataError, match=r"x\.tsv: its lines end in CR alone, as on an old Mac"):
            read({"table": write(tmp_path / "x.tsv", content)})
    assert read({"table": write(tmp_path / "x.tsv", b"a\tb\r\nc\td")}) == [("a", "b"), ("c", "d")]
    assert read({"table": write(tmp_path / "x.tsv", b"a\tb\r")}) == [("a", "b")]


def test_a_key_that_occurs_twice_is_a_bad_line(tmp_path):
    rows = b'{"s": "a", "t": "b"}\n{"s": "a", "t": "b", "s": "c"}\n'
    with pytest.raises(DataError, match=r"x\.jsonl:2: not JSON: the key 's' occurs twice"):
        read({"table": write(tmp_path / "x.jsonl", rows), "columns": ["s", "t"]})


def test_a_missing_file_is_named(tmp_path):
    here, gone = write(tmp_path / "here", ""), str(tmp_path / "gone")
    with pytest.raises(DataError, match=rf"data\.train\.0\.files\.1: no such file: {gone}"):
        read({"files": [here, gone]})
    with pytest.raises(DataError, match=rf"data\.train\.0\.table: {tmp_path} is a folder"):
        read({"table": str(tmp_path)})
    for corpus, message in (
        (
            {"dataset": "json", "data_files": [here, str(tmp_path / "g*ne")]},
            "data_files: no such file: .*g.ne",
        ),
        ({"dataset": "csv"}, "data_files: the dataset csv needs files: name them here"),
        ({"dataset": gone}, f"dataset: no such folder: {gone}"),
    ):
        with pytest.raises(DataError, match=rf"data\.train\.0\.{message}"):
            read({**corpus, "columns": COLUMNS})


def test_a_report_is_a_table(tmp_path):
    report = Report(stop=False, read=12345, kept=12340)
    for line in range(4):
        report.note("too long", f"x.tsv:{line}: 201 and 7 pieces")
    report.bad("broken UTF-8", "x.tsv:9", "byte 0xff in column 1 is no UTF-8")
    table = """\
12,345 examples read, 12,340 kept
        4  too long      x.tsv:0: 201 and 7 pieces
                         x.tsv:1: 201 and 7 pieces
                         x.tsv:2: 201 and 7 pieces
        1  broken UTF-8  x.tsv:9: byte 0xff in column 1 is no UTF-8"""
    assert str(report) == table
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    twice = Report()
    twice.add(report)
    twice.add(report)
    assert (twice.read, twice.reasons["too long"].count, len(twice.reasons["too long"].examples)) == (
        24690,
        8,
        3,
    )
