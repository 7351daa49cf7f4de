"""Files on object storage or on a hub: each is copied to the cache folder, by fsspec."""

import contextlib
import hashlib
import json
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seq2attn.data.cache import cache_folder, move
from seq2attn.data.report import DataError, UnreachableError
from seq2attn.errors import Seq2attnError
from seq2attn.runtime.drafts import draft_folder
from seq2attn.runtime.locks import LockError, locked

FOLDER = "remote"  # in the cache folder
POLL = 0.5  # seconds between two looks at whether another process has copied the file
STATE = ".state.json"  # beside a copy: what the file was when it was copied
# What tells versions of a file apart, as servers name it. The rest of what they say may change by itself: the
# address to which https:// is redirected, or the date of a scan.
VERSIONS = ("ETag", "etag", "Content-MD5", "Digest", "Last-Modified", "blob_id", "md5Hash")
CLIENTS = ("aiohttp", "azure", "botocore", "gcsfs", "google", "httpx", "httpx2", "huggingface_hub", "urllib3")
PACKAGES = {"http": "aiohttp requests", "https": "aiohttp requests", "s3": "s3fs", "gs": "gcsfs"}


def is_remote(file: str) -> bool:
    """Return whether a file is named by a URL: hf://datasets/..., s3://bucket/..., https://..."""
    return "://" in file


def local_copy(url: str, key: str) -> Path:
    """Return the path of a copy, which is made again if the file has changed.

    One process at a time copies a file; others wait. A copy gets its name when it is whole, and keeps its
    date as long as it is not made again. If the file cannot be reached, its copy is used, with a warning.

    key: of the file in the recipe, for errors.

    Raises:
        DataError: the file cannot be read, or the package for its protocol is not installed.
    """
    folder = cache_folder(f"{FOLDER}/{hashlib.sha256(url.encode()).hexdigest()[:16]}")
    with _alone(folder):
        before = _before(folder)
        try:
            files, path = _file(url)
            state = _state(files, path)
            copy = folder / _name(files, path)
            if before == {"name": copy.name, **state}:
                return copy
            with draft_folder(folder, copy.name) as draft:
                files.get_file(path, str(draft / copy.name))
                (draft / STATE).write_text(json.dumps({"name": copy.name, **state}))
                (folder / STATE).unlink(missing_ok=True)  # it says that there is a copy: written last
                move(draft / copy.name, copy)
                move(draft / STATE, folder / STATE)
        except Exception as error:
            fault = read_fault(f"{key}: {url}", error)
            if before is None or not isinstance(fault, UnreachableError):
                raise fault from error
            warnings.warn(f"{fault}; its copy in {folder} is used", stacklevel=2)
            return folder / str(before["name"])
        return copy


def remote_state(url: str, key: str) -> Any:
    """Return a JSON value that changes when the file of a URL does, or one of those of a pattern.

    key: of the URL in the recipe, for errors. DataError as of `local_copy`.
    """
    try:
        files, path = _file(url)
        return [url, {name: _state(files, name) for name in sorted(files.glob(path))}]
    except Exception as error:
        raise read_fault(f"{key}: {url}", error) from error


def read_fault(what: str, error: Exception) -> DataError:
    """Return the error for data that another package could not read: what they are, why, and what to do.

    An UnreachableError if it was the network or the server.
    """
    if isinstance(error, Seq2attnError):
        return error if isinstance(error, DataError) else DataError(str(error))
    network = network_error(error)
    reason = _first_line(network or error)
    if isinstance(error, ImportError):
        scheme = what.partition("://")[0].rpartition(" ")[2].strip("(")
        install = f": pip install {PACKAGES[scheme]}" if scheme in PACKAGES else ""
        return DataError(f"{what} needs a package that is not installed: {_first_line(error)}{install}")
    if network is None:
        return DataError(f"{what} cannot be read: {reason}")
    return UnreachableError(
        f"{what} cannot be read: {reason} ({type(network).__name__}): check the address, your rights and the "
        "network, and start again; or copy the file yourself, and name its path"
    )


def network_error(error: BaseException) -> BaseException | None:
    """Return the error of the network or of a server that an error is, or comes from; None: it does not.

    Errors of clients of networks are known by their packages: most have no class in common, not even OSError.
    """
    network = ConnectionError, TimeoutError, socket.gaierror
    one: BaseException | None = error
    seen = list[BaseException]()
    while one is not None and one not in seen:
        if isinstance(one, network) or type(one).__module__.partition(".")[0] in CLIENTS:
            return one
        seen.append(one)
        one = one.__cause__ or one.__context__
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a copy; wait if another process has it."""
    with contextlib.ExitStack() as context:
        while True:
            try:
                context.enter_context(locked(folder / ".lock", lambda line: None))
                break
            except LockError:
                time.sleep(POLL)
        yield


def _file(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path there."""
    from fsspec.core import url_to_fs

    files, path = url_to_fs(url)
    return files, str(path)


def _is_http(files: Any) -> bool:
    return "http" in ([files.protocol] if isinstance(files.protocol, str) else files.protocol)


def _name(files: Any, path: str) -> str:
    """Return the name of a file, without the query of an address, which may be long."""
    return (path.partition("?")[0] if _is_http(files) else path).rstrip("/").rpartition("/")[2]


def _state(files: Any, path: str) -> dict[str, Any]:
    """Return a JSON object that changes when a file does, as far as its server lets one know."""
    details = files.info(path)
    versions = {name: str(details[name]) for name in VERSIONS if details.get(name)}
    if not versions and not _is_http(files):  # whose key is always the same
        versions = {"ukey": files.ukey(path)}
    return {"size": details.get("size"), **versions}


def _before(folder: Path) -> dict[str, Any] | None:
    """Return the state of the file when it was copied; None: there is no copy."""
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_bytes())
        return state if (folder / str(state["name"])).is_file() else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
