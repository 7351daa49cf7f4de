"""Files on object storage or on a hub: each is copied to the cache folder, by fsspec."""

import hashlib
from pathlib import Path

from seq2attn.data.cache import cache_folder
from seq2attn.data.report import DataError

FOLDER = "remote"  # in the cache folder


def is_remote(file: str) -> bool:
    """Return whether a file is named by a URL: hf://datasets/..., s3://bucket/..., https://..."""
    return "://" in file


def local_copy(url: str, key: str) -> Path:
    """Return the path of a copy, which is made again if the file has changed.

    key: of the file in the recipe, for errors.

    Raises:
        DataError: the file cannot be read, or the package for its protocol is not installed.
    """
    import fsspec

    folder = cache_folder(f"{FOLDER}/{hashlib.sha256(url.encode()).hexdigest()[:16]}")
    options = {"cache_storage": str(folder), "same_names": True, "check_files": True}
    try:
        return Path(fsspec.open_local(f"filecache::{url}", mode="rb", filecache=options))
    except ImportError as error:
        raise DataError(f"{key}: {url} needs a package that is not installed: {error}") from error
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(f"{key}: {url} cannot be read: {reason}") from error
