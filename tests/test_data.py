"""Corpora to examples: every fault by file and line, the same pairs from every kind of storage, the cache."""

import bz2
import gzip
import http.server
import importlib.util
import io
import itertools
import json
import lzma
import os
import re
import socket
import threading
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import datasets
import huggingface_hub.constants
import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import seq2attn.data.examples
import seq2attn.data.hub
import seq2attn.data.store
from seq2attn.alignment.word_alignment import Link
from seq2attn.data import DataError, Report, known_alignment, pairs, prepare, training_text
from seq2attn.data.batches import BatchLoader
from seq2attn.data.corpora import Use, open_corpus
from seq2attn.data.gold_alignments import between_pieces, words
from seq2attn.data.report import Reason
from seq2attn.recipe import DataRecipe, SamplingRecipe, TaggedDataRecipe
from seq2attn.recipe.labelled_data import CategorizedDataRecipe
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.vocabulary_training import train_vocabulary
from seq2attn.text.word_vocabulary import Labels, WordVocabulary

PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
SENTENCES = [("Es regnet.", "It's raining."), ("Tom lacht.", "Tom laughs."), ("Gute Nacht!", "Good night!")]
ROWS = [{"id": i, "translation": {"de": de, "en": en}} for i, (de, en) in enumerate(SENTENCES)]
COLUMNS = ["translation.de", "translation.en"]
SAMPLE = {"sample": "tatoeba_de_en"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(folder))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    return folder


@pytest.fixture(scope="module")
def vocabularies():
    data = recipe(SAMPLE | {"split": "dev"})
    return tuple(train_vocabulary(training_text(data, (side,)), size=500) for side in (0, 1))


def recipe(*train, dev=SAMPLE, **options):
    return DataRecipe.model_validate({"languages": ["de", "en"], "train": [*train], "dev": dev, **options})


def read(corpus, report=None, languages=("de", "en"), role="train", place="data.train.0"):
    """The pairs of a corpus, without line numbers."""
    found = pairs(recipe(corpus).train[0], languages, report or Report(), role, place)
    return [pair[:2] for pair in found]


def skipped(corpus):
    """Pairs and report if bad lines are skipped."""
    report = Report(stop=False)
    return read(corpus, report), report


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


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


# ---- datasets ---------------------------------------------------------------------------------------


@pytest.fixture
def copies(tmp_path):
    """The same rows in all kinds of local datasets: their corpora."""
    features = datasets.Features(id=datasets.Value("int32"), translation=datasets.Translation(["de", "en"]))
    hub = tmp_path / "hub"
    (hub / "data").mkdir(parents=True)
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS, features=features).to_parquet(hub / "data" / "validation-0.parquet")
    write(
        hub / "README.md",
        "---\nconfigs:\n- config_name: de-en\n  data_files:\n  - {split: validation, path: data/validation-*}\n---\n",
    )
    rows = write(
        tmp_path / "rows.jsonl.gz", gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode())
    )
    table = write(tmp_path / "table.csv", "de,en\n" + "".join(f"{de},{en}\n" for de, en in SENTENCES))
    return {
        "parquet": {"dataset": "parquet", "data_files": str(hub / "data" / "*.parquet"), "columns": COLUMNS},
        "json": {"dataset": "json", "data_files": [rows], "columns": COLUMNS},
        "csv": {"dataset": "csv", "data_files": table, "columns": ["de", "en"]},
        "hub": {"dataset": str(hub), "config": "de-en", "split": "validation", "columns": COLUMNS},
    }


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "json", "csv", "hub"])
def test_every_kind_of_local_dataset_gives_the_same_pairs(copies, kind, streaming, monkeypatch):
    def connect(*_):
        raise ConnectionError("local data need no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    corpus = copies[kind] | {"streaming": streaming}
    assert read(corpus) == SENTENCES
    assert read(corpus | {"limit": 1}) == SENTENCES[:1]


def test_a_dataset_can_be_sliced(copies):
    assert read(copies["hub"] | {"split": "validation[1:]"}) == SENTENCES[1:]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_missing_column_lists_those_that_exist(copies, streaming):
    corpus = copies["hub"] | {"columns": ["translation.de", "translation.fr"], "streaming": streaming}
    message = r"data\.train\.0\.columns: no column translation\.fr; there are: id, translation\.de, translation\.en$"
    with pytest.raises(DataError, match=message):
        read(corpus)


def test_rows_that_are_no_text_are_named(tmp_path):
    path = write(
        tmp_path / "x.jsonl", '{"a": "x", "b": ["y"]}\n{"a": null, "b": ["z"]}\n{"a": "x", "b": []}\n'
    )
    corpus = {"dataset": "json", "data_files": path, "columns": ["a", "b.0"]}
    found, report = skipped(corpus)
    assert found == [("x", "y")]
    assert report.reasons["not a text"].examples == [
        "json[train]:1: a is null where a text, or a list of texts, was expected"
    ]
    assert report.reasons["missing column"].examples == ["json[train]:2: no column b.0; there are: a, b"]
    with pytest.raises(DataError, match=r"json\[train\]:1: a is null .* data\.bad_lines: skip"):
        read(corpus)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"split": "test"},
            r"""hub' cannot be loaded: Unknown split "test"\. Should be one of \['validation'\]""",
        ),
        (
            {"config": "de-fr"},
            r"hub' cannot be loaded: BuilderConfig 'de-fr' not found\. Available: \['de-en'\]",
        ),
        ({"dataset": "/no/where"}, r"data\.train\.0\.dataset: no such folder: /no/where"),
        (
            {"dataset": "a name"},
            r"no dataset 'a name' on the hub, .* data\.train\.0\.dataset=/path/to/folder",
        ),
        (
            {"dataset": "parquet", "data_files": __file__},
            r"'parquet' \(.*test_data\.py\) cannot be loaded: Parquet",
        ),
    ],
)
def test_a_dataset_that_cannot_be_loaded_says_why(copies, change, message):
    with pytest.raises(DataError, match=message):
        read(copies["hub"] | change)


@pytest.mark.parametrize("name", ["wmt.py", "other.py"])
def test_a_dataset_made_by_a_script_says_what_to_do(tmp_path, name):
    folder = tmp_path / "wmt"
    folder.mkdir()
    write(folder / name, "import this")
    with pytest.raises(
        DataError, match=r"made by a script, .* data\.train\.0\.revision=refs/convert/parquet"
    ):
        read({"dataset": str(folder), "columns": COLUMNS})


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the hub; `answer` is the status it gives, None = it never answers."""

    class Hub(http.server.BaseHTTPRequestHandler):
        answer = None

        def do_GET(self):
            if Hub.answer is None:
                done.wait(30)
                return
            self.send_response(Hub.answer)
            self.send_header("X-Error-Code", "RepoNotFound" if Hub.answer == 404 else "")
            self.end_headers()

        def log_message(self, *_):
            pass

    done = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(seq2attn.data.hub, "PATIENCE", 0.5)
    yield Hub
    done.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("answer", [None, 503])
def test_an_unreachable_hub_ends_soon_with_advice(hub, answer, streaming):
    hub.answer = answer
    begin = time.monotonic()
    message = r"the hub cannot be reached for 'wmt/wmt14' .* data\.train\.0\.dataset=/path/to/folder"
    with pytest.raises(DataError, match=message):
        read({"dataset": "wmt/wmt14", "config": "de-en", "columns": COLUMNS, "streaming": streaming})
    assert time.monotonic() - begin < 5
    assert not datasets.config.HF_HUB_OFFLINE and not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_name_server_that_hangs_is_not_waited_for(hub, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: released.wait(20))
    begin = time.monotonic()
    with pytest.raises(DataError, match=r"cannot be reached for 'wmt/wmt14' \(no answer in 0\.5 s\)"):
        read({"dataset": "wmt/wmt14", "columns": COLUMNS})
    released.set()
    assert time.monotonic() - begin < 5


def test_an_unknown_dataset_is_not_called_unreachable(hub):
    hub.answer = 404
    with pytest.raises(
        DataError, match=r"there is no dataset 'wmt/wmt41' on the hub, or it is closed to you"
    ):
        read({"dataset": "wmt/wmt41", "columns": COLUMNS})


def test_without_the_hub_what_was_loaded_before_is_taken(hub, copies, tmp_path):
    assert read(copies["hub"]) == SENTENCES
    (tmp_path / "hf" / "hub").rename(tmp_path / "hf" / "acme___hub")  # as if it had come from the hub
    corpus = copies["hub"] | {"dataset": "acme/hub"}
    assert read(corpus) == SENTENCES
    assert open_corpus(
        recipe(corpus).train[0], Use(("de", "en"), "train", "data.train.0")
    ).state  # for the cache


# ---- examples ---------------------------------------------------------------------------------------


def table(path, rows):
    return {"table": write(path, "".join(f"{source}\t{target}\n" for source, target in rows))}


def test_examples_are_the_encoded_pairs(vocabularies):
    data = recipe(SAMPLE | {"limit": 2500})
    examples = prepare(data.train, data, vocabularies, "train")
    found = list(islice(pairs(data.train[0], data.languages, Report()), 2500))
    assert len(examples) == 2500 == examples.report.read == examples.report.kept
    for number in (0, 999, 1000, 2499):
        assert examples.source_text(number) == found[number].source
        assert examples.target_text(number) == found[number].target
        assert examples.source(number).tolist() == vocabularies[0].encode([found[number].source])[0]
        assert examples.target(number).tolist() == vocabularies[1].encode([found[number].target])[0]
    assert (
        examples.source_lengths.dtype == examples.target_lengths.dtype == examples.source(0).dtype == np.int32
    )
    assert examples.source_lengths.tolist() == [len(examples.source(number)) for number in range(2500)]
    assert examples.target_lengths.tolist() == [len(examples.target(number)) for number in range(2500)]
    assert not examples.source(0).flags.owndata  # read where it lies
    for number in (-1, 2500):
        with pytest.raises(IndexError, match=f"example {number} of 2500"):
            examples.source(number)


def test_filters_count_what_they_leave_out(tmp_path, vocabularies):
    long = "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 2
    rows = [
        ("Es regnet.", "It's raining."),
        ("Es regnet.", ""),  # 2
        ("\u200b", "It's raining."),  # 3
        ("Es regnet.", "It's raining."),  # 4
        ("Es regnet.", "It is raining."),
        (long, long),  # 6
        ("a b c d e f g h i j k", "No."),  # 7
        ("d", "No."),  # 8
    ]
    corpus = table(tmp_path / "x.tsv", rows)
    limits = {"min_length": 3, "max_length": 50, "max_ratio": 5}
    data = recipe(corpus, filter=limits)
    examples = prepare(data.train, data, vocabularies, "train")
    assert [examples.target_text(number) for number in range(len(examples))] == [
        "It's raining.",
        "It is raining.",
    ]
    lines = {
        reason: [int(example.split(":")[1]) for example in entry.examples]
        for reason, entry in examples.report.reasons.items()
    }
    assert lines == {
        "empty": [2, 3],
        "duplicate": [4],
        "too long": [6],
        "length ratio": [7],
        "too short": [8],
    }
    assert (examples.report.read, examples.report.kept) == (8, 2)
    data = recipe(corpus, filter={"duplicates": True})
    assert len(prepare(data.train, data, vocabularies, "train")) == 6


def test_what_is_measured_on_stays_as_it_is(tmp_path, vocabularies):
    rows = [("Es regnet.", "It's raining.")] * 2 + [("", "Nothing."), ("x " * 300, "x")]
    data = recipe(SAMPLE, dev=table(tmp_path / "x.tsv", rows), filter={"max_length": 50})
    examples = prepare([data.dev], data, vocabularies, "dev")
    assert [examples.target_text(number) for number in range(4)] == [target for _, target in rows]
    assert examples.source(2).tolist() == []
    assert examples.report.reasons["empty, but kept"].count == 1


@pytest.mark.parametrize("role", ["train", "dev"])
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(
    ("window", "ends"), [(7, [True, False]), ({"head": 4, "tail": 3}, [True, True]), (None, [True, True])]
)
def test_the_end_of_a_target_that_was_cut_off_is_not_learnt(
    tmp_path, vocabularies, role, sampled, window, ends
):
    corpus = table(tmp_path / "x.tsv", [("Ja.", "Yes."), ("Ja.", "It's raining cats and dogs in London.")])
    data = recipe(corpus, dev=corpus, truncate={"target": window})
    examples = prepare([data.dev], data, vocabularies, role)
    assert [examples.ended(number) for number in range(2)] == ends
    sampling = SamplingRecipe(alpha=0.9) if sampled else None
    loader = BatchLoader(examples, *vocabularies, 99, sampling=sampling, truncate=data.truncate)
    made = loader.batch(np.arange(2), 0)
    assert (made.gold == vocabularies[1].eos).any(1).tolist() == ends
    learnt = [row[mask].tolist() for row, mask in zip(made.gold, made.gold_mask, strict=True)]
    read = [row[mask].tolist() for row, mask in zip(made.reads, made.gold_mask, strict=True)]
    assert read == [[vocabularies[1].bos, *row[:-1]] for row in learnt]
    assert made.units == sum(map(len, learnt)) and (window is None or len(learnt[1]) == 7 + ends[1])


@pytest.mark.parametrize("tagged", [False, True])
def test_labels_have_no_length_and_sentences_may_come_twice(tmp_path, tagged):
    rows = ["a b c", "a", "a b c", "d e f g h", "a b c d"]
    labels = [" ".join(["B-big\u00a0name", *["O"] * row.count(" ")]) if tagged else "x" for row in rows]
    corpus = table(tmp_path / "x.tsv", zip(rows, labels, strict=True)) | {"columns": [0, 1]}
    kind, scheme = (TaggedDataRecipe, "bioes") if tagged else (CategorizedDataRecipe, None)
    coders = WordVocabulary.learn(rows), Labels.learn([*labels, "O" if tagged else "y"], scheme)

    def kept(**limits):
        data = kind.model_validate({"train": [corpus], "dev": corpus, "filter": limits})
        found = prepare(data.train, data, coders, "train")
        reasons = {reason: entry.examples for reason, entry in found.report.reasons.items()}
        return [found.source_text(number) for number in range(len(found))], reasons

    assert kept() == (rows, {})
    left, reasons = kept(min_length=2, max_length=4)
    assert left == ["a b c", "a b c", "a b c d"]
    assert reasons == {
        "too short": [f"{tmp_path}/x.tsv:2: 1 words"],
        "too long": [f"{tmp_path}/x.tsv:4: 5 words"],
    }
    assert kept(duplicates=False)[0] == [*rows[:2], *rows[3:]]
    with pytest.raises(ValidationError, match=r"max_ratio.*\n.*compares the lengths of two texts"):
        kept(max_ratio=3.0)


def test_lines_of_a_text_are_part_of_it_when_duplicates_are_found(tmp_path, vocabularies):
    rows = [{"s": "Ja.\nGut.", "t": "Yes."}, {"s": "Ja.", "t": "Gut.\nYes."}, {"s": "Ja.", "t": "Yes."}]
    path = write(tmp_path / "x.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    data = recipe({"table": path, "columns": ["s", "t"]})
    examples = prepare(data.train, data, vocabularies, "train")
    assert len(examples) == 3 and examples.report.reasons["duplicate"].count == 1


def test_nothing_left_is_an_error(tmp_path, vocabularies):
    data = recipe(table(tmp_path / "x.tsv", [("", "a"), ("b", "")]))
    with pytest.raises(DataError, match=r"no pair is left of .*x\.tsv: 2 examples read, 0 kept\n +2  empty"):
        prepare(data.train, data, vocabularies, "train")


def test_a_bad_line_stops_or_is_skipped(tmp_path, vocabularies):
    corpus = {"table": write(tmp_path / "x.tsv", b"Es regnet.\tIt's raining.\n\xff\tx\n")}
    data = recipe(corpus)
    with pytest.raises(DataError, match=r"x\.tsv:2: byte 0xff in column 1 is no UTF-8"):
        prepare(data.train, data, vocabularies, "train")
    with pytest.raises(DataError, match=r"x\.tsv:2: byte 0xff"):
        list(training_text(data))
    assert not list((tmp_path / "cache").iterdir())
    data = recipe(corpus, bad_lines="skip")
    for _ in range(2):  # from the cache, too
        report = prepare(data.train, data, vocabularies, "train").report
        assert report.reasons["broken UTF-8"].count == 1
    assert list(training_text(data)) == ["Es regnet.", "It's raining."]
    assert list(training_text(data, (1,))) == ["It's raining."]


def test_an_epoch_sees_each_corpus_as_often_as_its_weight(tmp_path, vocabularies):
    corpora = [
        table(tmp_path / f"{size}.tsv", [(f"{size} {i}", f"{i}") for i in range(size)]) | {"weight": weight}
        for size, weight in ((7, 1.0), (11, 2.5), (13, 0.25))
    ]
    data = recipe(*corpora)
    examples = prepare(data.train, data, vocabularies, "train")
    assert len(examples) == 31
    assert examples.source_text(7) == "11 0" and examples.source_text(30) == "13 12"
    seen = [np.bincount(examples.epoch(epoch, seed=5), minlength=31) for epoch in range(200)]
    for counts in seen:
        assert set(counts[:7]) == {1} and set(counts[7:18]) == {2, 3} and set(counts[18:]) == {0, 1}
        assert (counts[7:18].sum(), counts[18:].sum()) == (22 + round(5.5), round(3.25))
    shares = np.mean(seen, axis=0)
    assert np.abs(shares[7:18] - 2 - 6 / 11).max() < 0.15 and np.abs(shares[18:] - 3 / 13).max() < 0.15
    first = examples.epoch(3, seed=5)
    assert first.dtype == np.int64
    assert (first == prepare(data.train, data, vocabularies, "train").epoch(3, seed=5)).all()
    assert (first != examples.epoch(4, seed=5)).any() and (first != examples.epoch(3, seed=6)).any()


# ---- the cache --------------------------------------------------------------------------------------


class Counting:
    """A vocabulary that counts what it encodes."""

    def __init__(self, vocabulary):
        self.vocabulary, self.encoded = vocabulary, 0

    def __getattr__(self, name):
        return getattr(self.vocabulary, name)

    def encode(self, texts):
        self.encoded += len(texts)
        return self.vocabulary.encode(texts)


@pytest.mark.parametrize("kind", ["sample", "parquet", "json", "hub"])
def test_a_second_start_takes_the_cache(copies, kind, vocabularies):
    corpus = SAMPLE | {"limit": 2100} if kind == "sample" else copies[kind]
    data, counting, steps = recipe(corpus), tuple(map(Counting, vocabularies)), []
    first = prepare(data.train, data, counting, "train", steps.append)
    assert sum(steps) == counting[0].encoded == len(first) and len(first) in (2100, 3)
    again = prepare(data.train, data, counting, "train", steps.append)
    heavier = recipe(corpus | {"weight": 3.0})
    assert len(prepare(heavier.train, heavier, counting, "train", steps.append).epoch(1, 1)) == 3 * len(first)
    assert sum(steps) == counting[0].encoded == len(again)
    assert again.fingerprint == first.fingerprint and again.report == first.report
    assert again.target(2).tolist() == first.target(2).tolist()


def test_what_changes_the_examples_changes_their_fingerprint(tmp_path, vocabularies):
    def fingerprint(role="train", given=vocabularies, **options):
        data = recipe(corpus | {"weight": options.pop("weight", 1)}, dev=corpus, **options)
        return prepare(data.train if role == "train" else [data.dev], data, given, role).fingerprint

    corpus = table(
        tmp_path / "x.tsv", [*SENTENCES, SENTENCES[0], ("Das ist ein langer Satz.", "It is long.")]
    )
    first = fingerprint()
    assert fingerprint(bad_lines="skip") == fingerprint(filter={"max_length": 199}) == first  # no difference
    others = [
        fingerprint("dev"),
        fingerprint(filter={"duplicates": True, "max_length": 9}),
        fingerprint(filter={"max_length": 10}),
        fingerprint(given=vocabularies[::-1]),
        fingerprint(weight=2),
    ]
    table(tmp_path / "x.tsv", SENTENCES[::-1])  # one line less, in another order
    others.append(fingerprint())
    os.utime(tmp_path / "x.tsv", ns=(1, 1))
    assert fingerprint() == others[-1]  # made anew, but the same
    assert len({first, *others}) == 1 + len(others)
    moved = tmp_path / "moved.tsv"
    moved.write_bytes((tmp_path / "x.tsv").read_bytes())
    corpus = {"table": str(moved)}
    assert fingerprint() == others[-1]


def test_a_damaged_or_unfinished_store_is_made_anew(cache, vocabularies, monkeypatch):
    data = recipe(SAMPLE | {"limit": 30})
    whole = prepare(data.train, data, vocabularies, "train").fingerprint
    (store,) = cache.glob("*.arrow")
    for damage in (
        lambda: store.write_bytes(store.read_bytes()[:-50]),
        lambda: store.with_suffix(".json").unlink(),
    ):
        damage()
        counting = tuple(map(Counting, vocabularies))
        assert prepare(data.train, data, counting, "train").fingerprint == whole
        assert counting[0].encoded == 30
    for path in cache.iterdir():
        path.unlink()

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(data.train, data, vocabularies, "train", interrupt)
    assert not list(cache.iterdir())


def test_a_cache_that_cannot_be_made_is_named(tmp_path, monkeypatch, vocabularies):
    write(tmp_path / "file", "")
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / "file" / "cache"))
    data = recipe(SAMPLE)
    with pytest.raises(
        DataError, match=r"file/cache: cannot be made \(Not a directory\): set SEQ2ATTN_CACHE"
    ):
        prepare(data.train, data, vocabularies, "train")


# ---- made tasks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "source", "target", "order"),
    [
        ("copy", "c a b", "c a b", [0, 1, 2]),
        ("reverse", "c a b", "b a c", [2, 1, 0]),
        ("sort", "c2 a3 b1", "b c a", [2, 0, 1]),
    ],
)
def test_a_task_is_its_definition(task, source, target, order):
    assert known_alignment(task, source) == order
    assert " ".join(source.split()[place][0] for place in order) == target
    options = {"task": task, "symbols": 7, "lengths": [2, 5], "count": 300}
    found = read(options)
    assert len(found) == len({pair[0] for pair in found}) == 300
    for made, answer in found:
        words = made.split()
        assert 2 <= len(words) <= 5 and {word[0] for word in words} <= set("abcdefg")
        assert len({word[0] for word in words}) == len(words)
        if task == "sort":
            assert sorted(word[1:] for word in words) == [str(n + 1) for n in range(len(words))]
            by_key = {word[1:]: word[0] for word in words}
            assert answer.split() == [by_key[str(n + 1)] for n in range(len(words))]
        else:
            assert answer.split() == (words if task == "copy" else words[::-1])
    lengths = Counter(len(made.split()) for made, _ in found)
    assert set(lengths) == {2, 3, 4, 5} and {
        word for made, _ in found for word in made if word.isalpha()
    } == {*"abcdefg"}


def test_letters_may_come_twice():
    found = read({"task": "copy", "symbols": 2, "lengths": [6, 9], "distinct": False, "count": 200})
    assert {len(made.split()) for made, _ in found} == {6, 7, 8, 9}
    with pytest.raises(ValidationError, match="9 distinct letters of 2"):
        recipe({"task": "copy", "symbols": 2, "lengths": [6, 9]})


def test_a_task_is_the_same_everywhere_and_lies_nowhere(cache):
    expected = [("g f k", "k f g"), ("c k d", "d k c"), ("d h e l g b", "b g l e h d")]
    corpus = {"task": "reverse", "count": 50}
    assert read(corpus)[:3] == expected  # of every Python on every machine
    assert read(corpus | {"limit": 3}) == expected
    assert read(corpus | {"seed": 2})[:3] != expected
    assert not cache.exists()


def test_no_sentence_of_a_task_is_in_two_splits():
    corpus = {"task": "copy", "symbols": 5, "lengths": [3, 4], "count": 12}
    made = {
        role: {pair[0] for seed in range(20) for pair in read(corpus | {"seed": seed}, role=role)}
        for role in ("train", "dev", "test")
    }
    assert all(len(sentences) > 10 for sentences in made.values())
    assert not (made["train"] & made["dev"] or made["dev"] & made["test"] or made["train"] & made["test"])
    assert read(corpus | {"split": "dev"}) == read(corpus, role="dev")


def test_a_task_has_no_more_sentences_than_there_are():
    corpus = {"task": "copy", "symbols": 3, "lengths": [1, 3], "count": 100}
    with pytest.raises(
        DataError,
        match=r"copy: expected 100 different sentences for train, found \d+: lower count, or raise symbols or l",
    ) as error:
        read(corpus)
    assert int(re.search(r"found (\d+)", str(error.value))[1]) <= 3 + 6 + 6


def test_a_task_is_stored_by_what_it_is(vocabularies):
    def fingerprint(role="train", **options):
        corpus = {"task": "copy", "count": 20} | options
        data = recipe(corpus, dev=corpus)
        return prepare(data.train if role == "train" else [data.dev], data, vocabularies, role).fingerprint

    assert fingerprint() == fingerprint(split="train")
    variants = [fingerprint(), fingerprint("dev"), fingerprint(seed=2), fingerprint(task="reverse")]
    assert len({*variants}) == 4 and fingerprint("dev") == variants[1]


# ---- alignments -------------------------------------------------------------------------------------

LINKS = ["0-0 1-1", "", "1-0 0-1 1-0"]


def aligned(folder, links, sentences=SENTENCES, suffix=""):
    """A corpus of files with links between its words."""
    german, english = (
        write(folder / name, "".join(f"{pair[i]}\n" for pair in sentences))
        for i, name in enumerate(("x.de", "x.en"))
    )
    content = "".join(f"{line}\n" for line in links).encode()
    path = write(folder / f"links.pharaoh{suffix}", PACK[suffix](content))
    return {"files": [german, english], "alignments": path}


def read_links(corpus, report=None):
    found = pairs(recipe(corpus).train[0], ("de", "en"), report or Report(), "train", "data.train.0")
    return [[str(link) for link in pair.links] for pair in found]


@pytest.mark.parametrize("suffix", PACK)
def test_links_come_with_their_pair(tmp_path, suffix):
    corpus = aligned(tmp_path, LINKS, suffix=suffix)
    assert read_links(corpus) == [["0-0", "1-1"], [], ["1-0", "0-1", "1-0"]]
    assert read(corpus | {"limit": 2}) == SENTENCES[:2]
    (first, *_) = pairs(recipe({"files": corpus["files"]}).train[0], ("de", "en"), Report())
    assert first.links is None


def test_faults_of_links(tmp_path):
    sentences = [("a b c", "x y")] * 7
    lines = ["0-0 2-1", "0-0 1:1", "3-0", "0-2", "-1-0", "0?1", "2-0"]
    corpus = aligned(tmp_path, lines, sentences)
    report = Report(stop=False)
    assert read_links(corpus, report) == [["0-0", "2-1"], ["2-0"]]
    path = corpus["alignments"]
    expected = "expected links such as 0-0 1-2 (source-target, from 0), got"
    sizes = "words count from 0, the source has 3 and the target 2"
    assert {reason: (entry.count, entry.examples) for reason, entry in report.reasons.items()} == {
        "not an alignment": (
            3,
            [
                f"{path}:2: {expected} '1:1'",
                f"{path}:5: {expected} '-1-0'",
                f"{path}:6: {expected} '0?1'",
            ],
        ),
        "link beyond the sentence": (
            2,
            [
                f"{path}:3: the link 3-0 leads beyond the sentence: {sizes}",
                f"{path}:4: the link 0-2 leads beyond the sentence: {sizes}",
            ],
        ),
    }
    with pytest.raises(DataError, match=r"links\.pharaoh:2: expected links such as .* data\.bad_lines: skip"):
        read(corpus)
    write(tmp_path / "links.pharaoh", b"0-0\n\xff\n")
    found, report = skipped(corpus)
    assert found == sentences[:1]
    assert report.reasons["broken UTF-8"].examples == [f"{path}:2: byte 0xff in column 1 is no UTF-8"]
    assert (report.reasons["unequal number of lines"].count, report.kept) == (5, 1)
    with pytest.raises(DataError, match=rf"data\.train\.0\.alignments: no such file: {tmp_path}/gone"):
        read(corpus | {"alignments": str(tmp_path / "gone")})


def test_lines_without_links_are_counted_and_a_file_of_them_is_an_error(tmp_path):
    report = Report()
    read_links(aligned(tmp_path, LINKS), report)
    (reason,) = report.reasons.items()
    assert reason == ("without links", Reason(1, [f"{tmp_path}/links.pharaoh:2"]))
    corpus = aligned(tmp_path, ["", " ", ""])
    message = (
        r"links\.pharaoh: expected links such as 0-0 1-2, and no line has any, so that nothing can be learnt"
    )
    for stop in (True, False):
        with pytest.raises(DataError, match=message):
            read_links(corpus, Report(stop=stop))
    assert read_links(corpus | {"limit": 2}) == [[], []]  # links may come later
    broken = aligned(tmp_path, ["x"] * 3)  # no line of this is blank
    assert read_links(broken, Report(stop=False)) == []


@pytest.mark.parametrize(("count", "longer", "shorter"), [(2, "x.de", "links"), (5, "links", "x.de")])
def test_as_many_lines_of_links_as_of_sentences(tmp_path, count, longer, shorter):
    corpus = aligned(tmp_path, ["0-0"] * count)
    message = rf"{longer}.*:{min(3, count) + 1}: no counterpart: this file has {max(3, count)} lines, but .*{shorter}"
    with pytest.raises(DataError, match=message):
        read(corpus)
    assert skipped(corpus)[0] == SENTENCES[:count]


def between(source, target, *links, sides):
    """Links between the pieces, as texts."""
    found = between_pieces([Link(*link) for link in links], (source, target), sides)
    first, second = sides[0].split(source).pieces, sides[1].split(target).pieces
    return [(first[link.source], second[link.target]) for link in found]


@pytest.fixture(scope="module")
def letters():
    """Every character is a piece, so that pieces can be told by eye."""
    return [train_vocabulary(["abcdefgh日本語"], size=20, model="char", byte_fallback=False)] * 2


def test_pieces_are_linked_as_their_words_are(letters):
    assert between("ab c", "d ef", (0, 1), (1, 1), sides=letters) == [
        *itertools.product("▁ab", "▁ef"),
        *itertools.product("▁c", "▁ef"),
    ]
    assert between("ab c", "d ef", sides=letters) == []
    assert between("a b", "c d", (0, 1), (0, 1), sides=letters) == [*itertools.product("▁a", "▁d")]


def test_words_are_what_stands_between_ascii_spaces(letters):
    """As fast_align and GIZA++ count them: a no-break space is no space, and Han is not cut."""
    assert words(" a\u00a0b \t c\u3000d\n") == ["a\u00a0b", "c\u3000d"]
    assert between("a\u00a0b c", "d", (0, 0), sides=letters) == [*itertools.product("▁a▁b", "▁d")]
    assert between("a\u00a0b c", "d", (1, 0), sides=letters) == [*itertools.product("▁c", "▁d")]
    assert letters[0].split("a日本 b").words == ["a", "日", "本", "b"]
    assert between("a日本 b", "d", (0, 0), sides=letters) == [*itertools.product("▁a日本", "▁d")]
    assert between("a日本 b", "d", (1, 0), sides=letters) == [*itertools.product("▁b", "▁d")]


def test_what_has_no_piece_has_no_link(letters):
    text = "a \u200b b"  # a word that normalisation deletes still counts
    assert len(words(text)) == 3
    assert between(text, "d", (1, 0), sides=letters) == []
    assert between(text, "d", (2, 0), sides=letters) == [*itertools.product("▁b", "▁d")]
    assert between("\u200b", "d", (0, 0), sides=letters) == []


def test_a_piece_of_several_words_has_the_links_of_all():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["ja ja so nun"]), model_writer=model, vocab_size=20, hard_vocab_limit=False,
        split_by_whitespace=False, user_defined_symbols=["▁ja", "▁so▁so"], minloglevel=2,
    )  # fmt: skip
    sides = [Vocabulary(model.getvalue())] * 2
    assert sides[0].split("ja so so ja").pieces == ["▁ja", "▁so▁so", "▁ja"]
    for word, piece in enumerate(("▁ja", "▁so▁so", "▁so▁so", "▁ja")):
        assert between("ja so so ja", "ja", (word, 0), sides=sides) == [(piece, "▁ja")]


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("mode", ["auto", "spaces", "pieces"])
def test_the_pieces_of_a_word_are_those_that_it_has_alone(model, mode):
    """SentencePiece cuts at spaces first, so that the pieces of a sentence are those of its words in turn."""
    sentences = read(SAMPLE | {"split": "dev"})
    sides = [
        train_vocabulary([pair[side] for pair in sentences], model=model, size=400, words=mode)
        for side in (0, 1)
    ]
    generator = np.random.default_rng(1)
    for pair in sentences[:50]:
        spans = []
        for text, side in zip(pair, sides, strict=True):
            ends = np.cumsum([0, *(len(side.encode([word])[0]) for word in text.split())])
            assert ends[-1] == len(side.encode([text])[0])
            spans.append([range(*span) for span in itertools.pairwise(ends)])
        links = {Link(*(int(generator.integers(len(side))) for side in spans)) for _ in range(7)}
        expected = {cell for s, t in links for cell in itertools.product(spans[0][s], spans[1][t])}
        assert between_pieces(links, pair, sides) == sorted(expected)


def test_links_are_stored_with_their_pair_and_left_out_with_it(tmp_path, vocabularies):
    sentences = [*SENTENCES, ("", "Nothing."), SENTENCES[0], ("Tom regnet.", "Tom rains.")]
    corpus = aligned(tmp_path, [*LINKS, "", "1-0", "0-1"], sentences)
    data = recipe(corpus)
    for _ in range(2):  # from the cache, too
        examples = prepare(data.train, data, vocabularies, "train")
        assert examples.aligned and len(examples) == 4  # without the empty one and the duplicate
        for number, links in enumerate([[(0, 0), (1, 1)], [], [(1, 0), (0, 1)], [(0, 1)]]):
            texts = examples.source_text(number), examples.target_text(number)
            expected = between_pieces([Link(*link) for link in links], texts, vocabularies)
            assert [tuple(link) for link in examples.links(number).tolist()] == expected
        assert examples.links(1).shape == (0, 2) and examples.links(0).dtype == np.int32
    limited = recipe(corpus | {"limit": 1})
    assert len(prepare(limited.train, limited, vocabularies, "train").links(0)) == len(examples.links(0))


def test_links_are_stored_for_who_asks(tmp_path, cache, vocabularies):
    corpus = aligned(tmp_path, LINKS)

    def prepared(*train):
        data = recipe(*train)
        return prepare(data.train, data, vocabularies, "train")

    without = prepared({"files": corpus["files"]})
    assert not without.aligned
    (store,) = cache.glob("*.arrow")
    assert datasets.Dataset.from_file(str(store)).column_names == [
        "source",
        "target",
        "source_text",
        "target_text",
        "references",
        "ended",
    ]
    first = prepared(corpus)
    assert (
        first.aligned
        and first.fingerprint != without.fingerprint == prepared(table(tmp_path / "y", SENTENCES)).fingerprint
    )
    assert not prepared(corpus, table(tmp_path / "z", SENTENCES)).aligned
    write(Path(corpus["alignments"]), "0-1\n\n\n")  # made anew, and other examples
    again = prepared(corpus)
    assert again.fingerprint != first.fingerprint and again.links(0).tolist() != first.links(0).tolist()


@pytest.mark.parametrize("task", ["copy", "reverse", "sort"])
def test_a_task_brings_its_alignment_when_asked(task, letters):
    corpus = {"task": task, "symbols": 8, "count": 30}
    assert read(corpus | {"alignments": True}) == read(corpus)
    assert all(pair.links is None for pair in pairs(recipe(corpus).train[0], ("x", "y"), Report()))
    for pair in pairs(recipe(corpus | {"alignments": True}).train[0], ("x", "y"), Report()):
        assert [tuple(link) for link in pair.links] == [
            (place, number) for number, place in enumerate(known_alignment(task, pair.source))
        ]
        for link in pair.links:
            assert pair.source.split()[link.source][0] == pair.target.split()[link.target]
    data = recipe(corpus | {"alignments": True})
    assert prepare(data.train, data, letters, "train").aligned


# ---- what save_to_disk wrote ------------------------------------------------------------------------


def test_what_save_to_disk_wrote_says_how_it_is_read(tmp_path):
    folder = tmp_path / "saved"
    datasets.Dataset.from_list(ROWS).save_to_disk(folder)
    message = rf"'{folder}' was written by save_to_disk: set dataset: arrow, data_files: {folder}/\*\.arrow$"
    with pytest.raises(DataError, match=message):
        read({"dataset": str(folder), "columns": COLUMNS})
    assert read({"dataset": "arrow", "data_files": f"{folder}/*.arrow", "columns": COLUMNS}) == SENTENCES
