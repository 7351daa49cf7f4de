"""Corpora that are named by URLs: fsspec's memory file system stands for object storage."""

import fsspec
import pytest
from tiny_corpora import SENTENCES, local_datasets, read, recipe

from seq2attn.data import DataError, prepare

pytestmark = pytest.mark.usefixtures("own_cache")


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
