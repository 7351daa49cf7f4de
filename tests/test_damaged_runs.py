"""Damaged files of a run are named, and nothing in a run is executed."""

import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import seq2attn
from seq2attn.errors import Seq2attnError
from seq2attn.training.run_folder import (
    RunError,
    RunFolder,
)


@pytest.fixture
def copy(tmp_path: Path, runs: dict[str, Path]) -> Path:
    """A trained run to be damaged."""
    return Path(shutil.copytree(runs["lstm"], tmp_path / "copy"))


def flip(path: Path, place: float = 0.5) -> None:
    """Turn over a byte at a part of the file; in an archive, of the contents of one of its parts, for what
    fills the room between them means nothing."""
    content = bytearray(path.read_bytes())
    at = int(len(content) * place)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            kept = [part for part in archive.infolist() if part.file_size]
        inside = kept[int(len(kept) * place)]
        at = inside.header_offset + inside.file_size // 2
        at += 30 + sum(struct.unpack_from("<HH", content, inside.header_offset + 26))  # name and filling
    content[at] ^= 0xFF
    path.write_bytes(content)


PARTS = ["weights", "text", "version.json", "training_state.pt"]


def part(run: Path, name: str) -> Path:
    """A file of the run."""
    path = run / name
    return path if path.is_file() else sorted(path.iterdir())[0]


def use(run: Path) -> None:
    """Read everything."""
    folder = RunFolder.open(run)
    folder.load_weights("last")
    for name in folder.version.checksums:
        folder.content(name)
    seq2attn.load(run, "last")
    folder.load_state()


def test_a_state_that_was_cut_says_what_to_do(copy: Path) -> None:
    file = copy / "training_state.pt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(
        RunError, match=rf"{file} is damaged .*\. Copy it again, or train with run='{copy}-again', "
    ):
        RunFolder.open(copy).load_state()


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("name", PARTS)
def test_a_flipped_byte_is_found_and_its_file_named(copy: Path, name: str, place: float) -> None:
    use(copy)
    file = part(copy, name)
    flip(file, place)
    with pytest.raises(RunError, match=rf"{file} is damaged"):
        use(copy)


@pytest.mark.parametrize("name", PARTS)
def test_half_a_file_is_named(copy: Path, name: str) -> None:
    file = part(copy, name)
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(RunError, match=rf"{file} is damaged"):
        use(copy)


@pytest.mark.parametrize("name", ["weights", "text", "recipe.yaml"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    file = part(copy, name)
    file.unlink()
    with pytest.raises(Seq2attnError, match=str(file)):
        use(copy)


def test_a_missing_state_begins_anew(copy: Path) -> None:
    (copy / "training_state.pt").unlink()
    assert RunFolder.open(copy).load_state() is None


class Payload:
    """What a pickle could do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def payloads(path: Path) -> Iterator[bytes]:
    """The payload as a bare pickle, and as torch.save packs it."""
    yield pickle.dumps(Payload(path))
    packed = io.BytesIO()
    torch.save({"learner": Payload(path)}, packed)
    yield packed.getvalue()


@pytest.mark.parametrize("form", [0, 1])
@pytest.mark.parametrize("name", ["training_state.pt", "weights"])
def test_a_pickle_is_not_executed(copy: Path, tmp_path: Path, name: str, form: int) -> None:
    made = tmp_path / "made"
    file, payload = part(copy, name), [*payloads(made)][form]
    file.write_bytes(payload)
    version = json.loads((copy / "version.json").read_text())
    if name == "weights":  # whoever plants it mends the checksum, too
        version["checksums"][f"weights/{file.name}"] = hashlib.sha256(payload).hexdigest()
        version["last"] = file.name
        del version["checksum"]
        (copy / "version.json").write_text(json.dumps(version))
    # torch recognises a program in the form of its own files
    fault = "holds something other than tensors" if (name, form) == ("training_state.pt", 1) else "is damaged"
    with pytest.raises(RunError, match=rf"{file} {fault}"):
        use(copy)
    assert not made.exists()
    pickle.loads(next(payloads(made)))  # noqa: S301 - it is one that would be
    assert made.exists()


@pytest.mark.parametrize(
    ("run", "name", "content"),
    [
        ("model_0.2/tagger/run", "labels.json", b'{"names": null, "scheme": "bioes"}'),
        ("model_0.2/tagger/run", "labels.json", b'{"names": ["x", "y"], "scheme": null}'),
        ("model_0.2/tagger/run", "words.json", b"[]"),
        ("model_0.3/run", "source.model", b""),
    ],
)
def test_a_text_file_of_another_content_is_named_even_if_its_checksum_is_right(
    tmp_path: Path, run: str, name: str, content: bytes
) -> None:
    crafted = Path(shutil.copytree(Path(__file__).parent / run, tmp_path / "run"))
    folder = RunFolder.open(crafted)
    folder.add(f"text/{name}", content)
    folder.commit()
    with pytest.raises(RunError, match=rf"{crafted / 'text' / name} is damaged: "):
        seq2attn.load(crafted, device="cpu")
