"""Preparing in several processes, in parts: whatever their number and sizes, the store is the same."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_corpora import PACK, recipe, table, write

from seq2attn.data import DataError, prepare
from seq2attn.data import pair_rows as rows_module
from seq2attn.data.growing_file import GrowingFile
from seq2attn.data.seen_pairs import FIRST, SeenPairs, keys_of
from seq2attn.runtime.files import COMPRESSED
from seq2attn.text import encoding_processes
from seq2attn.text.encoding_processes import EncodingError, encoded
from seq2attn.text.given_ids import Numbering
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.training.display import progress_bar

ROOT = Path(__file__).parents[1]
needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc, which lists processes")


def lines(count: int) -> list[str]:
    """Lines of a table: sentences, some of them twice, some too long or empty, blank and bad lines."""
    generator = np.random.default_rng(3)
    words = ["Haus", "Katze", "lacht", "ñ", "weiß", "x\u00a0y", "日本", "", "Straße", "und"]
    made = []
    for number in range(count):
        kind = number % 11
        if kind == 5:
            made.append("" if number % 2 else "without a tab")
        elif kind == 7 and number > 20:
            made.append(made[number - 11])
        else:
            sizes = generator.integers(0, 12, 2)
            made.append("\t".join(" ".join(generator.choice(words, size)) for size in sizes))
    return made


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Any]:
    return {"table": write(tmp_path / "x.tsv", "\n".join(lines(150)) + "\n")}


def content(cache: Path) -> list[bytes]:
    """What is in the only store of a cache folder: the file, and the notes beside it."""
    (store,) = cache.glob("*.arrow")
    assert sorted(path.suffix for path in cache.iterdir()) == [".arrow", ".json"]
    return [path.read_bytes() for path in (store, store.with_suffix(".json"))]


def made(monkeypatch: pytest.MonkeyPatch, cache: Path, data: Any, vocabularies: Any, **sizes: int) -> Any:
    """The content of a store that is made anew, its fingerprint and its report."""
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(cache))
    monkeypatch.setattr(rows_module, "PART", 60)
    for name, size in sizes.items():
        monkeypatch.setattr(rows_module if name == "ROWS" else encoding_processes, name, size)
    examples = prepare(data.train, data, vocabularies, "train")
    return content(cache), examples.fingerprint, str(examples.report)


OPTIONS = [
    {
        "filter": {"max_length": 40, "max_ratio": 6},
        "truncate": {"source": 5, "target": {"head": 2, "tail": 1}},
    },
    {"filter": {"duplicates": True, "min_length": 2}},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["all filters", "duplicates kept"])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_size_of_a_unit_changes_nothing(monkeypatch, tmp_path, corpus, vocabularies, rows, options):
    data = recipe({**corpus, "limit": 121}, bad_lines="skip", **options)
    whole = made(monkeypatch, tmp_path / "whole", data, vocabularies, ROWS=60)
    assert made(monkeypatch, tmp_path / "parts", data, vocabularies, ROWS=rows) == whole
    reasons = json.loads(whole[0][1].split(b"\n", 1)[1])["report"]["reasons"]
    assert {"blank line", "wrong number of columns", "empty"} <= reasons.keys()
    assert ("duplicate" in reasons) == ("truncate" in options)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_processes_changes_nothing(monkeypatch, tmp_path, corpus, vocabularies, workers):
    alone, several = (recipe(corpus, bad_lines="skip", workers=count, **OPTIONS[0]) for count in (1, workers))
    whole = made(monkeypatch, tmp_path / "whole", alone, vocabularies, ROWS=1000)
    assert made(monkeypatch, tmp_path / "parts", several, vocabularies, ROWS=9, ALONE=2) == whole


@needs_proc
def test_a_process_that_is_killed_is_named(vocabularies):
    before = children()
    units = [(["Es regnet."], ["It rains."])] * 40

    def kill(number):
        for process in children() - before:
            os.kill(process, signal.SIGKILL)
        return units[number]

    with pytest.raises(EncodingError, match=r"has ended \(exit status -9\).*lower data\.workers"):
        for _ in encoded(range(40), lambda n: kill(n) if n == 35 else units[n], vocabularies, 2):
            pass
    assert children() == before


def children(process: int = os.getpid()) -> set[int]:
    """The processes that the first thread of a process has started, and that have not ended."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8")
    return {int(number) for number in text.split()}


def test_processes_know_tags_and_given_ids(vocabularies):
    tagged = [Vocabulary(one.model, numbering=Numbering(tags=["<2en>", "<2de>"])) for one in vocabularies]
    assert all(Numbering.of(one.numbering.identity()) == one.numbering for one in tagged)
    units = [(["<2en> Es regnet.", "<2de> x"], ["It rains.", f"{number}"]) for number in range(40)]
    found = [[ids.values.tolist() for ids in sides] for _, sides in encoded(units, tuple, tagged, 2)]
    assert found == [
        [[*chain(*one.encode(side))] for one, side in zip(tagged, unit, strict=True)] for unit in units
    ]


@needs_proc
def test_processes_end_with_whoever_stops_reading(vocabularies):
    before = children()
    units = [(["Es regnet."], ["It rains."])] * 100
    stream = encoded(units, lambda unit: unit, vocabularies, 2)
    assert len(list(islice(stream, 40))) == 40 and len(children() - before) == 2
    stream.close()
    assert children() == before


# ---- a kill ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=["all filters", "duplicates kept"])
@pytest.mark.parametrize(
    "damage", ["none", "half a part", "a flipped byte", "half a line", "another number", "no file"]
)
def test_what_was_finished_before_a_kill_is_kept(
    monkeypatch, tmp_path, corpus, vocabularies, options, damage
):
    data = recipe(corpus, bad_lines="skip", **options)
    whole = made(monkeypatch, tmp_path / "whole", data, vocabularies, ROWS=60)
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / "parts"))
    monkeypatch.setattr(rows_module, "ROWS", 20)

    def interrupt(report):
        if report.read > 120:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(data.train, data, vocabularies, "train", interrupt)
    (folder,) = (tmp_path / "parts").iterdir()
    file, journal = folder / "rows.arrow", folder / "journal.jsonl"
    entries = [json.loads(line.partition(" ")[2]) for line in journal.read_text().splitlines()]
    assert [entry["notes"]["read"] for entry in entries] == [60, 120]
    first = 60
    match damage:
        case "none":
            first = 120
        case "half a part":
            os.truncate(file, file.stat().st_size - 30)
        case "a flipped byte":
            changed = bytearray(file.read_bytes())
            changed[-40] ^= 1
            file.write_bytes(changed)
        case "half a line":
            journal.write_bytes(journal.read_bytes()[:-20])
        case "another number":
            journal.write_text('"read": 121'.join(journal.read_text().rsplit('"read": 120', 1)))
        case "no file":
            file.unlink()
            first = 0
    read = []
    result = made(monkeypatch, tmp_path / "parts", data, counted(vocabularies, read), ROWS=13)
    total = json.loads(whole[0][1].split(b"\n", 1)[1])["report"]["read"]
    assert result == whole and sum(read) == 2 * (total - first)


def test_a_kill_behind_the_last_part_leaves_the_report_whole(monkeypatch, tmp_path, corpus, vocabularies):
    data = recipe(corpus, bad_lines="skip")
    whole = made(monkeypatch, tmp_path / "whole", data, vocabularies, ROWS=60)
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / "parts"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(GrowingFile, "finish", MagicMock(side_effect=KeyboardInterrupt))
        prepare(data.train, data, vocabularies, "train")
    assert made(monkeypatch, tmp_path / "parts", data, vocabularies, ROWS=60) == whole


def test_a_stream_goes_on_behind_the_rows_that_were_finished(monkeypatch, tmp_path, vocabularies):
    files = [
        write(
            tmp_path / f"{name}.jsonl",
            "".join(json.dumps({"s": f"{name} {number}", "t": f"{number}"}) + "\n" for number in range(90)),
        )
        for name in "ab"
    ]
    corpus = {"dataset": "json", "data_files": files, "columns": ["s", "t"], "streaming": True, "limit": 170}
    data = recipe(corpus)
    whole = made(monkeypatch, tmp_path / "whole", data, vocabularies, ROWS=30)
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / "parts"))

    def interrupt(report):
        if report.read >= 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(data.train, data, vocabularies, "train", interrupt)
    read = []
    assert made(monkeypatch, tmp_path / "parts", data, counted(vocabularies, read), ROWS=30) == whole
    assert sum(read) == 2 * (170 - 120)


def counted(vocabularies, read):
    """The vocabularies, which note how many texts they encode."""

    class Counting:
        def __init__(self, vocabulary):
            self.fingerprint, self._encode = vocabulary.fingerprint, vocabulary.encode

        def encode(self, texts):
            read.append(len(texts))
            return self._encode(texts)

    return [Counting(vocabulary) for vocabulary in vocabularies]


def test_a_bad_line_leaves_nothing(monkeypatch, tmp_path, own_cache, vocabularies):
    monkeypatch.setattr(rows_module, "PART", 2)
    monkeypatch.setattr(rows_module, "ROWS", 1)
    data = recipe(
        {"table": write(tmp_path / "x.tsv", "a\tb\n" * 5 + "no tab\n")}, filter={"duplicates": True}
    )
    with pytest.raises(DataError, match="1 column where"):
        prepare(data.train, data, vocabularies, "train")
    assert not [*own_cache.iterdir()]


def test_a_store_that_another_makes_is_waited_for(monkeypatch, own_cache, corpus, vocabularies):
    monkeypatch.setattr("seq2attn.data.growing_file.POLL", 0.001)
    data, begun, go_on, read = recipe(corpus, bad_lines="skip"), Event(), Event(), []

    def pause(report):
        begun.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(prepare, data.train, data, vocabularies, "train", pause)
        assert begun.wait(60)
        second = pool.submit(prepare, data.train, data, counted(vocabularies, read), "train")
        time.sleep(0.05)
        assert not second.done()
        go_on.set()
        assert first.result().fingerprint == second.result().fingerprint and not read
    assert sorted(path.suffix for path in own_cache.iterdir()) == [".arrow", ".json"]


def test_what_nobody_goes_on_with_is_removed_after_a_week(own_cache, vocabularies):
    own_cache.mkdir()
    for name, days in (("old", 8), ("new", 6)):
        folder = own_cache / f".partial.{name}"
        folder.mkdir()
        for path in (folder / "journal.jsonl", own_cache / f".partial.{name}.lock", folder):
            path.touch()
            os.utime(path, (time.time() - 24 * 3600 * days,) * 2)
    data = recipe({"sample": "tatoeba_de_en", "limit": 5})
    prepare(data.train, data, vocabularies, "train")
    left = sorted(path.name for path in own_cache.iterdir() if path.name.startswith("."))
    assert left == [".partial.new", ".partial.new.lock"]


# ---- progress ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", ".gz", ".xz", ".bz2", "limit", "json", "task"])
def test_progress_knows_the_end(monkeypatch, copies, tmp_path, vocabularies, kind):
    monkeypatch.setattr("seq2attn.data.files.TOLD", 1)
    monkeypatch.setattr(rows_module, "ROWS", 1)
    if kind == "task":
        corpus = {"task": "copy", "count": 5}
    elif kind == "json":
        corpus = copies["json"]
    else:
        text = "".join(f"Satz {number}.\t{number}\n" for number in range(20)).encode()
        compressed = PACK["" if kind == "limit" else kind](text)
        corpus = {"table": write(tmp_path / f"x.tsv{kind.replace('limit', '')}", compressed)}
        corpus |= {"limit": 4} if kind == "limit" else {}
    shares = []
    data = recipe(corpus)
    prepare(data.train, data, vocabularies, "train", lambda report: shares.append(report.share))
    assert shares == sorted(shares) and (kind in COMPRESSED or 0 <= shares[0] < 1)  # read ahead
    assert shares[-1] == 1 or (kind == "json" and shares[-1] == 2 / 3)  # rows before this one
    if kind == "limit":
        assert shares == [0.25, 0.5, 0.75, 1]


def test_a_bar_has_the_share_and_the_time_that_is_left():
    assert progress_bar(0.0, 5.0) == ""
    assert progress_bar(0.25, 60.0) == "━━━━━┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄  25%  3:00 left  "
    assert progress_bar(1.0, 60.0).startswith("━" * 20 + " 100%  0:00")


SCRIPT = """
from seq2attn.data import pair_rows, prepare
from seq2attn.recipe import DataRecipe
from seq2attn.text import Vocabulary, encoding_processes

encoding_processes.ALONE, pair_rows.ROWS, pair_rows.PART = 1, 50, 100
data = DataRecipe.model_validate({recipe})
vocabularies = [Vocabulary.load(path) for path in {paths}]
prepare(data.train, data, vocabularies, "train", lambda report: print(report.read, flush=True))
"""


@needs_proc
def test_a_plain_script_that_is_killed_leaves_no_process_and_what_it_finished(
    monkeypatch, tmp_path, own_cache, vocabularies
):
    """The script has no `if __name__ == "__main__"`, and two processes wait for it to end."""
    paths = [str(tmp_path / f"{side}.model") for side in (0, 1)]
    for path, vocabulary in zip(paths, vocabularies, strict=True):
        vocabulary.save(path)
    corpus = table(tmp_path / "x.tsv", [(f"Satz {number}.", f"{number}") for number in range(2000)])
    given = {"languages": ["de", "en"], "train": [corpus], "dev": corpus, "workers": 2}
    write(tmp_path / "script.py", SCRIPT.format(recipe=given, paths=paths))
    command = [sys.executable, str(tmp_path / "script.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 500:
            pass
        started = children(process.pid)
        process.kill()
    assert len(started) == 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{number}").exists() for number in started):
        assert time.monotonic() < deadline, "processes outlive the program"
        time.sleep(0.01)
    data, read = recipe(corpus), []
    monkeypatch.setattr(rows_module, "PART", 100)
    fingerprint = prepare(data.train, data, counted(vocabularies, read), "train").fingerprint
    assert sum(read) <= 2 * 1600
    for path in own_cache.iterdir():
        path.unlink()
    assert prepare(data.train, data, vocabularies, "train").fingerprint == fingerprint


# ---- duplicates ------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=8), st.sampled_from([1, 3, FIRST]))
def test_a_pair_is_new_once(batches, smallest):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seq2attn.data.seen_pairs.FIRST", smallest)
        seen, known = SeenPairs(), set[int]()
        for batch in batches:
            new = seen.add(np.array(batch, dtype=np.uint64))
            expected = []
            for key in batch:
                expected.append(key not in known)
                known.add(key)
            assert new.tolist() == expected


def test_blocks_of_keys_are_few_and_hold_each_once():
    seen, generator = SeenPairs(), np.random.default_rng(1)
    keys = generator.integers(0, 2**63, 400_000, dtype=np.uint64)
    for begin in range(0, len(keys), 1000):
        assert seen.add(keys[begin : begin + 1000]).all()
    assert not seen.add(keys[::7]).any()
    sizes = [len(block) for block in seen._blocks]
    assert sum(sizes) == len(keys) and len(sizes) < 8


def test_keys_tell_pairs_apart():
    assert len({*keys_of(["a", "ab", "a", ""], ["bc", "c", "b c", "abc"]).tolist()}) == 4
    assert keys_of(["ä"], ["b"]) == keys_of(["ä"], ["b"]) and keys_of([], []).size == 0
