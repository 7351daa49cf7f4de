"""Make the sample that ships with seq2attn from Tatoeba pairs: python scripts/make_sample.py FOLDER

FOLDER has {train,dev,test}.tsv.gz, english<TAB>german, split so that no sentence is in two of them. For all
three splits:

- both sides have 3 to 15 words and only the characters of PLAIN;
- pairs are sorted by their SHA-256: in random order, but the same on every machine, so that the first N are a
  random sample.

In dev and test, each sentence occurs once, on either side, and none occurs in the whole training file or in
the other of the two, ignoring case and punctuation. The result is german<TAB>english.
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
    """Return the pairs of a file, German first."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        return [(german, english) for english, german in (line.rstrip("\n").split("\t") for line in lines)]


def fits(pair: Pair) -> bool:
    """Whether both sides have few enough words, and common characters only."""
    return all(len(side.split()) in WORDS and PLAIN.fullmatch(side) for side in pair)


def order(pair: Pair) -> str:
    """Return the key that sorts pairs in random order."""
    return hashlib.sha256("\t".join(pair).encode()).hexdigest()


def bare(sentence: str) -> str:
    """Return the words of a sentence, without case and punctuation."""
    return " ".join(re.findall(r"\w+", sentence.casefold()))


def choose(folder: Path) -> dict[str, list[Pair]]:
    """Return the pairs of each split."""
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
