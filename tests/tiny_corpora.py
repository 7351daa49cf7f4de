"""Small corpora for tests, in every kind of storage."""

import bz2
import gzip
import json
import lzma

import datasets

from seq2attn.data import Report, pairs, training_text
from seq2attn.recipe import DataRecipe
from seq2attn.text.vocabulary_training import train_vocabulary

PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
SENTENCES = [("Es regnet.", "It's raining."), ("Tom lacht.", "Tom laughs."), ("Gute Nacht!", "Good night!")]
ROWS = [{"id": i, "translation": {"de": de, "en": en}} for i, (de, en) in enumerate(SENTENCES)]
COLUMNS = ["translation.de", "translation.en"]
SAMPLE = {"sample": "tatoeba_de_en"}


def recipe(*train, dev=SAMPLE, **options):
    return DataRecipe.model_validate({"languages": ["de", "en"], "train": [*train], "dev": dev, **options})


def read(corpus, report=None, languages=("de", "en"), role="train", place="data.train.0"):
    """The pairs of a corpus, without line numbers."""
    found = pairs(recipe(corpus).train[0], languages, report or Report(), role, place)
    return [pair[:2] for pair in found]


def skipped(corpus):
    """Pairs and report if bad lines are skipped."""
    report = Report(stop=False)
    return read(corpus, report), report


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def table(path, rows):
    return {"table": write(path, "".join(f"{source}\t{target}\n" for source, target in rows))}


def local_datasets(folder):
    """Write the same rows as local datasets of all kinds; return their corpora."""
    features = datasets.Features(id=datasets.Value("int32"), translation=datasets.Translation(["de", "en"]))
    hub = folder / "hub"
    (hub / "data").mkdir(parents=True)
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS, features=features).to_parquet(hub / "data" / "validation-0.parquet")
    write(
        hub / "README.md",
        "---\nconfigs:\n- config_name: de-en\n  data_files:\n  - {split: validation, path: data/validation-*}\n---\n",
    )
    rows = write(
        folder / "rows.jsonl.gz", gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode())
    )
    csv = write(folder / "table.csv", "de,en\n" + "".join(f"{de},{en}\n" for de, en in SENTENCES))
    return {
        "parquet": {"dataset": "parquet", "data_files": str(hub / "data" / "*.parquet"), "columns": COLUMNS},
        "json": {"dataset": "json", "data_files": [rows], "columns": COLUMNS},
        "csv": {"dataset": "csv", "data_files": csv, "columns": ["de", "en"]},
        "hub": {"dataset": str(hub), "config": "de-en", "split": "validation", "columns": COLUMNS},
    }


def sample_vocabularies():
    """Train small vocabularies of the sample corpus: of source and target."""
    data = recipe(SAMPLE | {"split": "dev"})
    return tuple(train_vocabulary(training_text(data, (side,)), size=500) for side in (0, 1))
