"""Find and read the files of images: in folders, and in .tar archives."""

import lzma
import os
import posixpath
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import IO, NamedTuple

from typing_extensions import Self

from seq2attn.data.report import DataError, Report
from seq2attn.images.decoding import ImageError
from seq2attn.runtime.files import COMPRESSED, read

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm")
_DAMAGED = (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error)


class ImagePath(NamedTuple):
    """Where an image lies: the path of its file, or its name in an archive."""

    archive: Path | None
    name: str

    def __str__(self) -> str:
        return self.name if self.archive is None else f"{self.archive}::{self.name}"


class _Archive(NamedTuple):
    """An open .tar archive."""

    tar: tarfile.TarFile
    members: dict[str, tarfile.TarInfo]  # its files, by name


class ImageFiles:
    """Reads the files of images. A context: archives stay open until its end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._archives: dict[Path, _Archive] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, path: ImagePath) -> bytes:
        """Return the content of an image's file. ImageError if it does not exist or cannot be read, DataError
        if its archive cannot be."""
        if path.archive is not None:
            return self._read_member(path.archive, path.name)
        try:
            return read(Path(path.name))
        except FileNotFoundError as error:
            raise ImageError("missing image", "no such file") from error
        except (OSError, ValueError) as error:  # ValueError: a name with a null character
            reason = getattr(error, "strerror", None) or error
            raise ImageError("missing image", f"cannot be read: {reason}") from error

    def names(self, path: Path) -> list[str]:
        """Return the names of all files in an archive, sorted."""
        return sorted(self._archive(path).members)

    def _read_member(self, path: Path, name: str) -> bytes:
        archive = self._archive(path)
        member = archive.members.get(posixpath.normpath(name))
        try:
            stream = None if member is None else archive.tar.extractfile(member)
            if stream is not None:
                return stream.read()
        except _DAMAGED as error:
            raise DataError(f"{path}: damaged: {error}") from error
        raise ImageError("missing image", "no such file")

    def _archive(self, path: Path) -> _Archive:
        if path not in self._archives:
            self._archives[path] = self._stack.enter_context(_opened(path))
        return self._archives[path]


@contextmanager
def _opened(path: Path) -> Iterator[_Archive]:
    """Open a .tar archive. A compressed one is first unpacked to a temporary file, for random access."""
    with ExitStack() as stack:
        try:
            stream: IO[bytes] = stack.enter_context(path.open("rb"))
            if (opener := COMPRESSED.get(path.suffix)) is not None:
                packed, stream = stream, stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(stack.enter_context(opener(packed, "rb")), stream)
                stream.seek(0)
            tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r:"))
            files = [member for member in tar if member.isreg() and not member.issparse()]
        except _DAMAGED as error:
            raise DataError(f"{path}: expected a .tar archive: {error}") from error
        yield _Archive(tar, {posixpath.normpath(member.name): member for member in files})


def classes(folder: str, archive: Path | None, key: str, report: Report) -> list[tuple[str, ImagePath]]:
    """Return the images of a folder with their classes, which are its sub-folders: of each class the first,
    then of each the second, and so on, so that any beginning has all classes.

    Files that are no images by their names are noted, images outside of the sub-folders are bad lines.

    Raises:
        DataError: there is no such folder, or no image in a sub-folder; and at the first bad line if
            `report.stop`.
    """
    names = names_below(folder, archive, f"{key}.folder")
    by_class: dict[str, list[ImagePath]] = {}
    for name in names:
        path = ImagePath(archive, posixpath.normpath(posixpath.join(folder, name)))
        first, separator, _ = name.partition("/")
        if not name.lower().endswith(SUFFIXES) or name.rpartition("/")[2].startswith("."):
            report.note("no image by its name", str(path))
        elif not separator:
            report.bad("no class", str(path), f"expected it in a sub-folder of {folder}, named as its class")
        else:
            by_class.setdefault(first, []).append(path)
    if not by_class:
        where = folder if archive is None else f"{archive}::{folder}"
        raise DataError(f"{key}.folder: expected sub-folders with images in {where}, one for each class")
    rows = zip_longest(*([(name, path) for path in paths] for name, paths in sorted(by_class.items())))
    return [image for row in rows for image in row if image is not None]


def names_below(folder: str, archive: Path | None, key: str) -> list[str]:
    """Return the names of all files below a folder, or one of an archive, relative to it, sorted.

    key: of the folder in the recipe. DataError if there is no such folder.
    """
    return _files_below(Path(folder), key) if archive is None else _members_below(folder, archive)


def _files_below(folder: Path, key: str) -> list[str]:
    """Return the names of all files below a folder, relative to it, sorted. Links between folders are
    followed to the sub-folders, but not from there."""
    if not folder.is_dir():
        raise DataError(f"{key}: no such folder: {folder}")
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    for entry in folder.iterdir():
        if entry.is_dir():
            names += [path.relative_to(folder).as_posix() for path in _walk(entry)]
    return sorted(names)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, _, files in os.walk(folder):
        yield from (Path(parent) / file for file in files)


def _members_below(folder: str, archive: Path) -> list[str]:
    """Return the names of all files below a folder of an archive, relative to it, sorted."""
    inside = posixpath.normpath(folder)
    prefix = "" if inside == "." else f"{inside}/"
    with ImageFiles() as files:
        return [name.removeprefix(prefix) for name in files.names(archive) if name.startswith(prefix)]
