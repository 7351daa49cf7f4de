"""Cut the sample that ships with seq2attn from the Tatoeba pairs: python scripts/make_sample.py FOLDER

FOLDER holds {train,dev,test}.tsv.gz, english<TAB>german, split so that no sentence is in two of them. The
same criteria hold for all three splits:

- both sides have 3 to 15 words and only the characters of PLAIN;
- the order is that of the SHA-256 of the pair: random, yet the same everywhere, so that any first N are a
  random sample.

Dev and test are stricter, because they test: each sentence is there once, on either side, and none is in the
whole training file or in the other of the two, also when case and punctuation are not looked at. The result
is german<TAB>english.
"""

import gzip
import hashlib
import lzma
import re
import sys
from pathlib import Path

SIZES = {"train": 50_000, "dev": 1_000, "test": 1_000}
WORDS = range(3, 16)
PLAIN = re.compile(r"[A-Za-zÄÖÜäöüß0-9 .,!?'’:;\"„“–-]+")
SAMPLE = Path(__file__).parent.parent / "seq2attn" / "samples" / "tatoeba_de_en"

Pair = tuple[str, str]


def read(path: Path) -> list[Pair]:
    """The pairs of a file, German first."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        return [(german, english) for english, german in (line.rstrip("\n").split("\t") for line in lines)]


def fits(pair: Pair) -> bool:
    """Both sides are of everyday length and characters."""
    return all(len(side.split()) in WORDS and PLAIN.fullmatch(side) for side in pair)


def order(pair: Pair) -> str:
    """Sorts pairs at random."""
    return hashlib.sha256("\t".join(pair).encode()).hexdigest()


def bare(sentence: str) -> str:
    """The words alone: sentences that differ only in case and punctuation are the same here."""
    return " ".join(re.findall(r"\w+", sentence.casefold()))


def choose(folder: Path) -> dict[str, list[Pair]]:
    """The pairs of each split."""
    pairs = {split: read(folder / f"{split}.tsv.gz") for split in SIZES}
    seen = [{bare(pair[side]) for pair in pairs["train"]} for side in (0, 1)]
    chosen: dict[str, list[Pair]] = {
        "train": sorted(filter(fits, pairs["train"]), key=order)[: SIZES["train"]]
    }
    for split in ("dev", "test"):
        chosen[split] = []
        for pair in sorted(filter(fits, pairs[split]), key=order):
            if len(chosen[split]) < SIZES[split] and not any(
                bare(pair[side]) in seen[side] for side in (0, 1)
            ):
                chosen[split].append(pair)
                for side in (0, 1):
                    seen[side].add(bare(pair[side]))
    return chosen


def main(folder: Path) -> None:
    """Write the three files."""
    for split, pairs in choose(folder).items():
        text = "".join(f"{german}\t{english}\n" for german, english in pairs)
        path = SAMPLE / f"{split}.tsv.xz"
        path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
        print(f"{path}: {len(pairs)} pairs, {path.stat().st_size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
