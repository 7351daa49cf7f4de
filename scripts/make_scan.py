"""Write the simple split of SCAN (Lake & Baroni 2018) as tables: python scripts/make_scan.py ARCHIVE FOLDER

ARCHIVE is scan.tar.xz (or .tar.gz) of https://github.com/brendenlake/SCAN, with simple_split/ in it. Writes
train.tsv, dev.tsv and test.tsv, command<TAB>actions, to FOLDER. The test set is SCAN's own. SCAN has no dev
set, so every 32nd pair of its training set, which is in random order, becomes one.
"""

import re
import sys
import tarfile
from pathlib import Path

DEV = 32  # every 32nd training pair
LINE = re.compile(r"IN: (.+) OUT: (.+)")

Pair = tuple[str, str]


def read(archive: Path, split: str) -> list[Pair]:
    """Return the pairs of train or test."""
    name = f"simple_split/tasks_{split}_simple.txt"
    with tarfile.open(archive) as members:
        matches = [member for member in members if member.name.endswith(name)]
        content = members.extractfile(matches[0]) if matches else None
        if content is None:
            raise SystemExit(f"{archive}: expected the file {name} in it, got none")
        lines = content.read().decode("utf-8").splitlines()
    pairs = []
    for number, line in enumerate(lines, 1):
        match = LINE.fullmatch(line)
        if match is None:
            raise SystemExit(f"{name}:{number}: expected IN: ... OUT: ..., got {line!r}")
        pairs.append((match[1], match[2]))
    return pairs


def tables(archive: Path) -> dict[str, list[Pair]]:
    """Return the pairs of each table."""
    train = read(archive, "train")
    return {
        "train": [pair for number, pair in enumerate(train) if number % DEV],
        "dev": train[::DEV],
        "test": read(archive, "test"),
    }


def main() -> None:
    """Read the archive and write the tables."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    archive, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in tables(archive).items():
        path = folder / f"{name}.tsv"
        path.write_text("".join(f"{command}\t{actions}\n" for command, actions in pairs), encoding="utf-8")
        print(f"{path}: {len(pairs):,} pairs")


if __name__ == "__main__":
    main()
