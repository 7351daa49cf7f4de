"""A hub of folders, in the place of the functions of huggingface_hub that seq2attn calls."""

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

COMMIT = "c0ffee" * 6 + "c0ff"


class _Answer:
    """What errors of the hub's client want to know of an answer."""

    headers: dict[str, str] = {}
    request = None
    status_code = 404


class FakeHub:
    """Repositories are folders of `root`; what was fetched is in `cache`, and there even without connection."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.cache = root / "hub", root / "cache"
        self.connected, self.requests = True, list[tuple[str, str | None]]()
        self.uploads = list[dict[str, Any]]()
        patch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)
        patch.setattr(huggingface_hub, "HfApi", lambda: self)

    def add(self, name: str, folder: Path) -> Path:
        return Path(shutil.copytree(folder, self.root / name))

    def snapshot_download(
        self, repo_id: str, revision: str | None = None, allow_patterns: list[str] | None = None
    ) -> str:
        self.requests.append((repo_id, revision))
        snapshot = self.cache / repo_id / COMMIT
        if not self.connected:
            if snapshot.exists():
                return str(snapshot)
            raise errors.LocalEntryNotFoundError("no connection, and nothing in the cache")
        if not (self.root / repo_id).exists():
            raise self.fault(errors.RepositoryNotFoundError)
        if revision not in (None, "main", COMMIT):
            raise self.fault(errors.RevisionNotFoundError)
        snapshot.mkdir(parents=True, exist_ok=True)
        for path in sorted((self.root / repo_id).rglob("*")):
            name = path.relative_to(self.root / repo_id).as_posix()
            if path.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns or ["*"]):
                blob = self.cache / "blobs" / repo_id / name
                blob.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, blob)
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                (snapshot / name).unlink(missing_ok=True)
                (snapshot / name).symlink_to(blob)  # as the client does
        return str(snapshot)

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> None:
        self.uploads.append({"repo_id": repo_id, "private": private})
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        if not self.connected:
            raise OSError("no connection")
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    @staticmethod
    def fault(kind: type[errors.HfHubHTTPError]) -> errors.HfHubHTTPError:
        return kind("404", response=_Answer())  # type: ignore[arg-type]
