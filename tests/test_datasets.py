"""Datasets as corpora: local ones in every format, the hub, and what is said if it cannot be reached."""

import http.server
import json
import socket
import threading

import datasets
import huggingface_hub.constants
import pytest
from tiny_corpora import COLUMNS, ROWS, SENTENCES, read, recipe, skipped, write

import seq2attn.data.hub
from seq2attn.data import DataError, Report
from seq2attn.data.corpora import Use, open_corpus
from seq2attn.recipe import RecipeError
from seq2attn.recipe import read as read_recipe
from seq2attn.recipe.labelled_data import CategorizedDataset

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "json", "csv", "hub"])
def test_every_kind_of_local_dataset_gives_the_same_pairs(copies, kind, streaming, monkeypatch):
    def connect(*_):
        raise ConnectionError("local data need no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    corpus = copies[kind] | {"streaming": streaming}
    assert read(corpus) == SENTENCES
    assert read(corpus | {"limit": 1}) == SENTENCES[:1]


@pytest.mark.parametrize("streaming", [False, True])
def test_csv_is_read_as_text(tmp_path, streaming):
    odd = [
        "null",
        "NA",
        "None",
        "nan",
        "01",
        "1e5",
        "0x1",
        "true",
        "1.0",
        "-",
        '"a ""b"", c"',
        '"a\nb"',
        "",
        "007",
    ]
    rows = [f"{number},{number},{number}" for number in range(10_001)]
    rows += [f"x,{cell},{odd[index - 1]}" for index, cell in enumerate(odd)]
    corpus = {"dataset": "csv", "data_files": write(tmp_path / "x.csv", "\n".join(["id,de,en", *rows]))}
    plain = [cell.strip('"').replace('""', '"') for cell in odd]
    found = read(corpus | {"columns": ["de", "en"], "streaming": streaming})
    assert found[10_000:] == [("10000", "10000"), *((cell, plain[n - 1]) for n, cell in enumerate(plain))]


@pytest.mark.parametrize("name", ["part[1].csv", "a*b.csv", "what?.csv"])
def test_a_file_whose_name_looks_like_a_pattern_is_read(tmp_path, name):
    for file, text in ((name, "de,en\nx,y\n"), ("part1.csv", "de,en\nwrong,file\n")):
        write(tmp_path / file, text)
    for files in (str(tmp_path / name), [str(tmp_path / name)]):
        assert read({"dataset": "csv", "data_files": files, "columns": ["de", "en"]}) == [("x", "y")]


def test_only_data_files_may_be_patterns(tmp_path):
    write(tmp_path / "x.tsv", "a\tb\n")
    with pytest.raises(RecipeError, match=r"data\.dev\.table: no such file: .*/\*\.tsv"):
        read_recipe("quickstart", [f"data.dev={{table: '{tmp_path}/*.tsv'}}"])


def test_csv_in_a_folder_is_text_and_so_are_labels(tmp_path):
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "train.csv", "text,label\nNA,01\nnull,1\n")
    use = Use(("words", "labels"), "train", "data.train.0")
    corpus = CategorizedDataset(dataset=str(tmp_path / "folder"))
    assert [pair[:2] for pair in open_corpus(corpus, use).read(Report())] == [("NA", "01"), ("null", "1")]


def test_csv_with_longer_lines_than_its_header_is_refused(tmp_path):
    corpus = {
        "dataset": "csv",
        "data_files": write(tmp_path / "x.csv", "de,en\na,b,c\n"),
        "columns": ["de", "en"],
    }
    with pytest.raises(DataError, match=r"x\.csv\) cannot be loaded: lines have more cells than the header"):
        read(corpus)


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
            r"'parquet' \(.*test_datasets\.py\) cannot be loaded: Parquet",
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
    """Stands in for the hub; `answer` is the status it gives, None = it never answers; it counts requests."""

    class Hub(http.server.BaseHTTPRequestHandler):
        answer, requests = None, 0

        def do_GET(self):
            Hub.requests += 1
            if Hub.answer is None:
                done.wait()
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
    reason = r"\((no answer in 0\.5 s|.*timed out.*)\)" if answer is None else r"\(.*503.*\)"
    message = rf"the hub cannot be reached for 'wmt/wmt14' {reason}.* data\.train\.0\.dataset=/path/to/folder"
    with pytest.raises(DataError, match=message):
        read({"dataset": "wmt/wmt14", "config": "de-en", "columns": COLUMNS, "streaming": streaming})
    assert hub.requests == 1  # nothing is tried again
    assert not datasets.config.HF_HUB_OFFLINE and not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_name_server_that_hangs_is_not_waited_for(hub, monkeypatch):
    released, answered = threading.Event(), threading.Event()

    def dataset_info(*_, **__):
        released.wait()
        answered.set()

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    with pytest.raises(DataError, match=r"cannot be reached for 'wmt/wmt14' \(no answer in 0\.5 s\)"):
        read({"dataset": "wmt/wmt14", "columns": COLUMNS})
    assert not answered.is_set()
    released.set()
    assert answered.wait(60)


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


def test_what_save_to_disk_wrote_says_how_it_is_read(tmp_path):
    folder = tmp_path / "saved"
    datasets.Dataset.from_list(ROWS).save_to_disk(folder)
    message = rf"'{folder}' was written by save_to_disk: set dataset: arrow, data_files: {folder}/\*\.arrow$"
    with pytest.raises(DataError, match=message):
        read({"dataset": str(folder), "columns": COLUMNS})
    assert read({"dataset": "arrow", "data_files": f"{folder}/*.arrow", "columns": COLUMNS}) == SENTENCES


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["lines", "list"])
def test_json_is_read_as_text_or_refused(tmp_path, streaming, form):
    """pyarrow takes a block of dates for times; other columns than those of the corpus may have them."""

    def corpus(rows, *columns):
        texts = [json.dumps(row) for row in rows]
        content = "\n".join(texts) if form == "lines" else f"[{', '.join(texts)}]"
        path = write(tmp_path / f"{len(rows)}.json", content)
        return {"dataset": "json", "data_files": path, "columns": columns, "streaming": streaming}

    odd = ["null", "NA", "007", "1.0", "5", "true", "[1]", "2009-01-05", "x\u00e4\U0001f600"]
    rows = [{"a": {"de": text, "on": "2009-01-05"}, "on": "2009-01-05", "b": [text]} for text in odd]
    assert read(corpus(rows, "a.de", "b.0")) == [(text, text) for text in odd]
    for column in ("on", "a.on"):
        with pytest.raises(
            DataError, match=r"json\) has texts that `datasets` takes for dates.* table: FILE"
        ):
            read(corpus(rows, "a.de", column))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_later_block_of_dates_is_refused(tmp_path, streaming):
    rows = [{"de": "x" * 500_000, "en": "y"}] * 21 + [{"de": "2009-01-05", "en": "y"}] * 3
    path = write(tmp_path / "x.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    table = {"table": path, "columns": ["de", "en"]}
    assert read(table)[-1] == ("2009-01-05", "y")
    with pytest.raises(DataError, match="takes for dates"):
        read({"dataset": "json", "data_files": path, "columns": ["de", "en"], "streaming": streaming})
