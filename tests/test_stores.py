"""The stores of tokenised pairs in the cache: hashed, checked when they are opened, and made anew."""

import os

import pytest
from tiny_corpora import SAMPLE, recipe, write

from seq2attn.data import DataError, cache, prepare


def test_a_store_is_hashed_while_it_is_written_and_once_when_it_is_opened(
    own_cache, vocabularies, monkeypatch
):
    hashed = []
    plain = cache.checksum_of
    monkeypatch.setattr(cache, "checksum_of", lambda path: hashed.append(path.name) or plain(path))
    data = recipe(SAMPLE | {"limit": 30})
    made = prepare(data.train, data, vocabularies, "train")
    (path,) = own_cache.glob("*.arrow")
    assert hashed == []
    opened = prepare(data.train, data, vocabularies, "train")
    assert hashed == [path.name] and opened.fingerprint == made.fingerprint
    assert opened.report == made.report


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def replaced(path, make):
    path.unlink()
    make(path)


DAMAGES = {
    **{
        f"flip {place}": lambda path, place=place: flipped(path, place)
        for place in (0, 0.1, 0.3, 0.5, 0.8, 0.999)
    },
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "json": lambda path: path.write_text('{"size": 3}'),
    "list": lambda path: path.write_text("x\n[1]"),
    "nested": lambda path: path.write_text("x\n" + "[" * 100_000),
    "folder": lambda path: replaced(path, os.mkdir),
    "pipe": lambda path: replaced(path, os.mkfifo),
    "device": lambda path: replaced(path, lambda path: path.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("suffix", [".arrow", ".json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_damaged_in_a_store_it_is_made_anew_with_a_note(own_cache, vocabularies, damage, suffix):
    def rows():  # copied: the store is memory-mapped
        examples = prepare(data.train, data, vocabularies, "train")
        ids = [[*examples.source(row), *examples.target(row)] for row in range(30)]
        return ids, examples.target_text(9), examples.fingerprint, str(examples.report)

    data = recipe(SAMPLE | {"limit": 30})
    whole = rows()
    (store,) = own_cache.glob("*.arrow")
    DAMAGES[damage](store.with_suffix(suffix))
    with pytest.warns(UserWarning, match=f"{store} is damaged: it is made again from the data"):
        assert rows() == whole
    assert sorted(path.suffix for path in own_cache.iterdir()) == [".arrow", ".json"]


def test_a_large_store_is_checked_while_it_is_used(own_cache, vocabularies, monkeypatch):
    monkeypatch.setattr(cache, "LARGE", 100)
    data = recipe(SAMPLE | {"limit": 30})
    whole = prepare(data.train, data, vocabularies, "train")
    assert whole.source(3).size
    (store,) = own_cache.glob("*.arrow")
    opened = prepare(data.train, data, vocabularies, "train")
    for check in opened._checks:
        check.thread.join()
    assert opened.target_text(7) == whole.target_text(7) and store.with_suffix(".json").exists()
    assert (len(whole._checks), len(opened._checks)) == (0, 1)
    flipped(store, 0.5)
    damaged = prepare(data.train, data, vocabularies, "train")
    for check in damaged._checks:
        check.thread.join()
    with pytest.raises(DataError, match=rf"^{store} is damaged: start again"):
        damaged.source(3)
    assert prepare(data.train, data, vocabularies, "train").fingerprint == whole.fingerprint
    assert store.with_suffix(".json").exists()


def test_the_store_of_other_data_in_its_place_is_damaged(own_cache, vocabularies):
    data, other = recipe(SAMPLE | {"limit": 30}), recipe(SAMPLE | {"limit": 40})
    prepare(data.train, data, vocabularies, "train")
    (store,) = own_cache.glob("*.arrow")
    prepare(other.train, other, vocabularies, "train")
    (second,) = {*own_cache.glob("*.arrow")} - {store}
    second.replace(store)
    with pytest.warns(UserWarning, match="made again"):
        assert len(prepare(data.train, data, vocabularies, "train")) == 30


def test_a_store_on_a_full_disk_is_named(own_cache, vocabularies, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("seq2attn.data.growing_file.append", full)
    data = recipe(SAMPLE | {"limit": 30})
    with pytest.raises(OSError, match=rf"No space left on device: .*{own_cache}/.*\.arrow"):
        prepare(data.train, data, vocabularies, "train")
    assert not list(own_cache.iterdir())


def test_a_cache_that_cannot_be_made_is_named(tmp_path, monkeypatch, vocabularies):
    write(tmp_path / "file", "")
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / "file" / "cache"))
    data = recipe(SAMPLE)
    with pytest.raises(
        DataError, match=r"file/cache: cannot be made \(Not a directory\): set SEQ2ATTN_CACHE"
    ):
        prepare(data.train, data, vocabularies, "train")
