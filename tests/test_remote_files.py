"""Corpora that are named by URLs: fsspec's memory file system stands for object storage."""

import copy
import gzip
import http.server
import json
import os
import shutil
import threading
import time
from functools import partial
from types import SimpleNamespace

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from huggingface_hub import HfApi
from tiny_corpora import SENTENCES, local_datasets, read, recipe
from tiny_reversal import RECIPE
from tiny_runs import silent, weights_hash

from seq2attn.data import DataError, hub, pair_rows, prepare
from seq2attn.data.corpora import Use, open_corpus
from seq2attn.data.growing_file import JOURNAL, partial_folder
from seq2attn.data.remote_files import local_copy
from seq2attn.data.report import UnreachableError
from seq2attn.recipe import DatasetCorpus
from seq2attn.runs.training_run import train as run_training
from seq2attn.training.run_folder import RunError

pytestmark = pytest.mark.usefixtures("own_cache")


class NetworkError(Exception):
    """An error of a client of networks; most are no OSError."""

    __module__ = "httpx"


@pytest.fixture
def bucket():
    """Writes a file, and returns its URL."""
    files = fsspec.filesystem("memory")

    def put(name, content):
        files.pipe(f"/bucket/{name}", content if isinstance(content, bytes) else content.encode())
        return f"memory://bucket/{name}"

    yield put
    if files.exists("/bucket"):
        files.rm("/bucket", recursive=True)


def test_files_and_tables_are_read_from_anywhere(bucket):
    sides = ["".join(f"{pair[side]}\n" for pair in SENTENCES) for side in (0, 1)]
    files = {"files": [bucket("a/x.de", sides[0]), bucket("b/x.de", sides[1])]}
    rows = {"table": bucket("x.tsv", "".join(f"{de}\t{en}\n" for de, en in SENTENCES))}
    assert read(files) == read(rows) == SENTENCES


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_are_read_from_anywhere(bucket, tmp_path, streaming):
    corpus = local_datasets(tmp_path / "local")["parquet"]
    (file,) = (tmp_path / "local").rglob("*.parquet")
    url = bucket("part.parquet", file.read_bytes())
    assert read({**corpus, "data_files": url, "streaming": streaming}) == SENTENCES


def test_a_file_that_has_changed_is_copied_and_tokenised_again(bucket, own_cache, vocabularies):
    def prepared():
        data = recipe({"table": url})
        return prepare(data.train, data, vocabularies, "train").fingerprint

    url = bucket("x.tsv", "Ja.\tYes.\n")
    first = prepared()
    assert prepared() == first and len([*own_cache.glob("*.arrow")]) == 1
    bucket("x.tsv", "Ja.\tYes.\nNein.\tNo.\n")
    assert prepared() != first and len([*own_cache.glob("*.arrow")]) == 2


def test_what_cannot_be_read_is_named(bucket):
    for url, reason in (
        ("memory://bucket/none.tsv", "cannot be read: "),
        ("nowhere://x.tsv", "cannot be read: Protocol not known: nowhere"),
        ("s3://bucket/x.tsv", r"needs a package that is not installed: .*s3fs"),
    ):
        with pytest.raises(DataError, match=rf"^data\.train\.0\.table: {url} {reason}"):
            read({"table": url})


def test_a_copy_that_is_the_same_keeps_its_date_for_ever(bucket, monkeypatch):
    url, now = bucket("x.tsv", "Ja.\tYes.\n"), time.time
    before = local_copy(url, "k").stat().st_mtime_ns
    monkeypatch.setattr(time, "time", lambda: now() + 400 * 24 * 3600)
    assert local_copy(url, "k").stat().st_mtime_ns == before
    bucket("x.tsv", "Ja.\tYeah.\n")
    assert local_copy(url, "k").read_text() == "Ja.\tYeah.\n"


@pytest.fixture(params=["memory", "http"])
def put(request, bucket, tmp_path):
    """Writes a file, in memory or for a web server on this machine, and returns its URL."""
    if request.param == "memory":
        yield bucket
        return
    pytest.importorskip("aiohttp", reason="fsspec needs it for http")
    (tmp_path / "www").mkdir()

    class Files(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=tmp_path / "www"))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def put(name, content):
        (tmp_path / "www" / name).write_text(content)
        return f"http://127.0.0.1:{server.server_port}/{name}"

    yield put
    server.shutdown()
    server.server_close()


def rows(count, word=""):
    return "".join(
        json.dumps({"s": f"{word} Satz {number}", "t": f"{number}"}) + "\n" for number in range(count)
    )


@pytest.mark.parametrize("changed", [False, True])
def test_a_stream_that_was_interrupted_goes_on_unless_its_file_has_changed(
    put, monkeypatch, tmp_path, vocabularies, changed
):
    def prepared(cache, url, progress=lambda report: None):
        monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / cache))
        data = recipe({"dataset": "json", "data_files": url, "columns": ["s", "t"], "streaming": True})
        examples = prepare(data.train, data, vocabularies, "train", progress)
        return examples.fingerprint, examples.report.read

    def interrupt(report):
        if report.read > 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(pair_rows, "PART", 10)
    monkeypatch.setattr(pair_rows, "ROWS", 5)
    url, read = put("x.jsonl", rows(40)), []
    with pytest.raises(KeyboardInterrupt):
        prepared("cache", url, interrupt)
    if changed:
        put("x.jsonl", rows(44, "Ein"))
    found = prepared("cache", url, lambda report: read.append(report.read))
    assert found == prepared("new", url) and found[1] == (44 if changed else 40)
    assert changed or read[0] == 25  # behind the first two parts


def test_a_training_on_a_stream_resumes_exactly_without_a_cache_and_not_on_other_data(
    put, tmp_path, own_cache
):
    def train(name, steps, **options):
        shutil.rmtree(own_cache, ignore_errors=True)
        stream = {"dataset": "json", "data_files": url, "columns": ["s", "t"], "streaming": True, "limit": 60}
        changed = copy.deepcopy(RECIPE)
        changed["data"]["train"] = stream
        changed["training"] |= {"max_steps": steps, "average": 0}
        run_training(changed, tmp_path / name, device="cpu", display=silent(), **options)
        return weights_hash(tmp_path / name)

    url = put("x.jsonl", rows(70))
    whole = train("whole", 6)
    train("parts", 3)
    assert train("parts", 6, resume=True) == whole
    put("x.jsonl", rows(70, "Kein"))
    with pytest.raises(RunError, match="the training data are not those with which"):
        train("parts", 9, resume=True)


def test_a_stream_of_the_hub_has_the_state_of_its_commit_which_is_asked_for_once(monkeypatch):
    corpus = DatasetCorpus.model_validate({"dataset": "u/n", "columns": ["a", "b"], "streaming": True})
    library = SimpleNamespace(
        load_dataset=lambda *_, **__: Failing(), load_dataset_builder=lambda *_, **__: None
    )
    monkeypatch.setattr(hub, "_library", lambda: library)
    asked = []

    def state(commit):
        def answer(api, name, **options):
            asked.append(name)
            return SimpleNamespace(sha=commit)

        monkeypatch.setattr(HfApi, "dataset_info", answer)
        return open_corpus(corpus, Use(("de", "en"), "train", "data.train.0")).state

    assert state("a") == state("a") != state("b")
    assert asked == ["u/n"] * 3


class Web(MemoryFileSystem):
    """A web server: its key never changes, as fsspec has it; details of a file are given."""

    protocol = ("http", "https", "web")
    details: dict[str, object] = {}
    broken = False

    def ukey(self, path):
        return "always the same"

    def info(self, path, **kwargs):
        if self.broken:
            raise FileNotFoundError(path) from NetworkError("Name or service not known")
        return {"name": path, "type": "file", "size": self.store[path].size, **self.details}


@pytest.fixture
def web(monkeypatch):
    """A web server under web://, with a function that puts a file there with details."""
    fsspec.register_implementation("web", Web, clobber=True)
    files = Web()

    def put(content, **details):
        files.pipe_file("web://x.gz?token=1/2", gzip.compress(content))
        monkeypatch.setattr(Web, "details", details)
        return "web://x.gz?token=1/2"

    yield put
    Web.store.pop("web://x.gz?token=1/2", None)


@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
def test_a_web_server_tells_by_version_or_size_that_a_file_has_changed(web, name):
    url = web(b"one", **{name: "1"})
    first = local_copy(url, "k")
    assert first.name == "x.gz" and gzip.decompress(first.read_bytes()) == b"one"
    web(b"two", **{name: "1"})
    assert gzip.decompress(local_copy(url, "k").read_bytes()) == b"one"  # as the server says
    web(b"two", **{name: "2", "url": "signed"})
    date = local_copy(url, "k").stat().st_mtime_ns
    web(b"two", **{name: "2", "url": "signed again"})
    assert local_copy(url, "k").stat().st_mtime_ns == date
    web(b"a longer one")
    assert gzip.decompress(local_copy(url, "k").read_bytes()) == b"a longer one"


def test_without_a_network_there_is_one_line_or_the_copy(web, monkeypatch):
    url = web(b"one", ETag="1")
    monkeypatch.setattr(Web, "broken", True)
    with pytest.raises(
        UnreachableError,
        match=r"^k: web://x\.gz.* cannot be read: Name or service not known \(NetworkError\): check",
    ):
        local_copy(url, "k")
    monkeypatch.setattr(Web, "broken", False)
    copy = local_copy(url, "k")
    monkeypatch.setattr(Web, "broken", True)
    with pytest.warns(UserWarning, match=r"cannot be read: .*; its copy in .* is used"):
        assert local_copy(url, "k") == copy


class Slow(LocalFileSystem):
    """A network that brings a file in two halves."""

    protocol = "slow"
    copies: list[str] = []
    half, go_on = threading.Event(), threading.Event()

    def get_file(self, rpath, lpath, callback=None, outfile=None, **kwargs):
        self.copies.append(rpath)
        with open(lpath, "w") as file:
            file.write("Ja.\t")
            file.flush()
            self.half.set()
            assert self.go_on.wait(30)
            file.write("Yes.\n")


def test_one_process_copies_a_file_and_others_never_see_half_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("seq2attn.data.remote_files.POLL", 0.01)
    fsspec.register_implementation("slow", Slow, clobber=True)
    (tmp_path / "x.tsv").write_text("Ja.\tYes.\n")
    found = []

    def copy():
        found.append(local_copy(f"slow://{tmp_path}/x.tsv", "k").read_text())

    threads = [threading.Thread(target=copy) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert Slow.half.wait(30)
    cache = tmp_path / os.environ["SEQ2ATTN_CACHE"]
    assert not [*cache.glob("remote/*/x.tsv")]  # only a draft
    Slow.go_on.set()
    for thread in threads:
        thread.join()
    assert found == ["Ja.\tYes.\n"] * 2 and len(Slow.copies) == 1
    assert {path.name for path in cache.glob("remote/*/*")} == {"x.tsv", ".state.json"}


class Failing:
    """A stream whose network fails after a row."""

    features = None

    def __iter__(self):
        return iter([{"a": "x", "b": "y"}])

    def select_columns(self, columns):
        return self

    def iter(self, count):
        yield {"a": ["x"], "b": ["y"]}
        raise NetworkError("the network is gone")


def test_a_stream_whose_network_fails_keeps_the_parts_that_are_finished(tmp_path):
    corpus = DatasetCorpus.model_validate({"dataset": "u/n", "columns": ["a", "b"], "streaming": True})
    message = r"^data\.train\.0\.dataset: 'u/n' cannot be read: the network is gone \(NetworkError\): check"
    with pytest.raises(UnreachableError, match=message), partial_folder(tmp_path, "store") as (folder, _):
        folder.mkdir()
        (folder / JOURNAL).write_text("a part\n")
        list(hub.rows(Failing(), corpus, "data.train.0"))
    assert (folder / JOURNAL).exists()


def test_a_package_that_is_missing_is_named_for_datasets_too():
    corpus = {"dataset": "json", "data_files": "s3://bucket/x.jsonl", "columns": ["a", "b"]}
    with pytest.raises(DataError, match=r"data_files: 'json' \(s3://.*s3fs.*: pip install s3fs$"):
        read(corpus)


def test_vocabularies_and_vectors_are_read_from_anywhere(bucket, vocabularies):
    from seq2attn.recipe import Recipe
    from seq2attn.recipe import read as read_recipe
    from seq2attn.tasks.pair_vocabularies import learned_vocabularies

    urls = [bucket(f"{side}.model", vocabulary.model) for side, vocabulary in enumerate(vocabularies)]
    made = read_recipe("quickstart", [f"text.files=[{urls[0]}, {urls[1]}]"])
    assert isinstance(made, Recipe)
    found = learned_vocabularies(made)
    assert [one.model for one in found] == [one.model for one in vocabularies]
