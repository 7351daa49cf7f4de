"""Each fault of a recipe is reported with its key, its line and a suggestion."""

import re
from pathlib import Path

import pytest
from tiny_recipes import OTHERS, Case, check_one_fault

from seq2attn.attention.scorers import SCORERS
from seq2attn.recipe import RecipeError, read

pytestmark = pytest.mark.usefixtures("corpora")

CASES: dict[str, Case] = {
    "misspelt section": (
        "quickstart", "^training:", "trainning:", "trainning:",
        "trainning: unknown key 'trainning' (did you mean training? one of name, task, seed, init, origin, data, "
        "text, model, ...)",
    ),
    "a metric twice": (
        "quickstart", "^training:", "training:\n  metrics: [bleu, chrf, bleu]", "metrics:",
        "training.metrics: bleu occurs twice: each metric has one score",
    ),
    "a weight beyond all epochs": (
        "quickstart", "- sample: tatoeba_de_en", "- {sample: tatoeba_de_en, weight: 1e300}", "1e300",
        "data.train.0.weight: expected at most 1000, got 1e+300",
    ),
    "misspelt key": (
        "quickstart", "batch_tokens: .*", "batch_token: 20", "batch_token:",
        "training.batch_token: unknown key 'batch_token' (did you mean batch_tokens? one of optimizer, "
        "learning_rate, schedule, weight_decay, betas, eps, momentum, clip, ...)",
    ),
    "initials of a key": (
        "quickstart", "learning_rate:", "lr:", "lr:",
        "training.lr: unknown key 'lr' (did you mean learning_rate? one of optimizer, learning_rate, schedule, "
        "weight_decay, betas, eps, momentum, clip, ...)",
    ),
    "key with a hyphen": (
        "wmt_transformer", "label_smoothing:", "label-smoothing:", "label-smoothing:",
        "training.label-smoothing: unknown key 'label-smoothing' (did you mean label_smoothing? one of optimizer, "
        "learning_rate, schedule, weight_decay, betas, eps, momentum, clip, ...)",
    ),
    "a key from elsewhere": (
        "quickstart", "^text:", "text:\n  volume: 11", "volume:",
        "text.volume: unknown key 'volume' (one of model, size, joint, files, ids, start, tags, lowercase, "
        "nfkc, byte_fallback, character_coverage, sampling, words)",
    ),
    "width that has no middle": (
        "quickstart", "score: additive", "score: {name: location_sensitive, width: 4}", "location_sensitive",
        "model.decoder.attention.score: LocationSensitive needs an odd width, as many positions before as after; "
        "got 4; take 5 (the decoder has 256, the encoder's states 512)",
    ),
    "misspelt option of a part": (
        "quickstart", "schedule: .*", "schedule: {name: cosine, warmpu: 200}", "warmpu:",
        "training.schedule.warmpu: unknown key 'warmpu' (did you mean warmup? one of name, warmup, final)",
    ),
    "option of a part that has none": (
        "wmt_bahdanau", "score: .*size: 1000}", "score: {name: dot, size: 3}", "dot",
        "model.decoder.attention.score.size: unknown key 'size' (there are no options)",
    ),
    "misspelt scorer": (
        "quickstart", "score: additive", "score: additve", "additve",
        "model.decoder.attention.score: unknown 'additve' (did you mean additive? one of additive, concat, "
        f"cosine, coverage, dot, fertility, gaussian, general, ...{OTHERS})",
    ),
    "unknown scorer": (
        "quickstart", "score: additive", "score: telepathy", "telepathy",
        f"model.decoder.attention.score: unknown 'telepathy' (one of {', '.join(SCORERS)}{OTHERS})",
    ),
    "misspelt scorer with options": (
        "wmt_bahdanau", "name: additive", "name: Additive", "Additive",
        "model.decoder.attention.score.name: unknown 'Additive' (did you mean additive? one of additive, concat, "
        f"cosine, coverage, dot, fertility, gaussian, general, ...{OTHERS})",
    ),
    "scorer of the wrong type": (
        "quickstart", "score: additive", "score: 3", "score: 3",
        "model.decoder.attention.score: expected a name, or {name: ..., and its options}, got 3",
    ),
    "part without a name": (
        "quickstart", "schedule: .*", "schedule: {warmup: 3}", "schedule:",
        "training.schedule: missing key 'name' (one of constant, inverse_sqrt, linear, cosine, plateau)",
    ),
    "option of the wrong type": (
        "quickstart", "schedule: .*", "schedule: {name: cosine, warmup: soon}", "soon",
        "training.schedule.warmup: expected a whole number, got 'soon'",
    ),
    "misspelt kind": (
        "quickstart", "kind: recurrent, cell", "kind: recurent, cell", "recurent",
        f"model.encoder.kind: unknown 'recurent' (did you mean recurrent? one of recurrent, transformer{OTHERS})",
    ),
    "missing kind": (
        "wmt_transformer", "  encoder:\n    kind: transformer\n", "  encoder:\n", "  encoder:",
        "model.encoder: missing key 'kind' (one of recurrent, transformer)",
    ),
    "missing key": (
        "quickstart", "    order: luong\n", "", "  decoder:",
        "model.decoder: missing key 'order' (one of bahdanau, luong, cho, sutskever)",
    ),
    "missing section": (
        "wmt_bahdanau", "(?s)^model:.*?(?=^training:)", "", "# English to French",
        "missing key 'model'",
    ),
    "empty section": (
        "quickstart", "^decoding: .*", "decoding:", "decoding:",
        "decoding: expected a section of keys and values, got null",
    ),
    "text for a number": (
        "quickstart", "size: 4000", "size: ten", "size: ten",
        "text.size: expected a whole number or a list, got 'ten'",
    ),
    "quoted number": (
        "quickstart", "size: 4000", "size: '4000'", "size: '4000'",
        "text.size: expected a whole number or a list, got '4000'",
    ),
    "number with a fraction": (
        "quickstart", "size: 4000", "size: 3.7", "size: 3.7",
        "text.size: expected a whole number or a list, got 3.7",
    ),
    "true for a number": (
        "quickstart", "size: 4000", "size: true", "size: true",
        "text.size: expected a whole number or a list, got true",
    ),
    "a leading zero, octal to YAML 1.1": (
        "quickstart", "size: 4000", "size: 0100", "size: 0100",
        "text.size: expected a whole number or a list, got '0100'",
    ),
    "yes for true": (
        "multi30k_transformer", "joint: true", "joint: yes", "joint: yes",
        "text.joint: expected true or false, got 'yes'",
    ),
    "null": (
        "quickstart", "batch_tokens: .*", "batch_tokens: ~", "batch_tokens:",
        "training.batch_tokens: expected a whole number, or auto, got null",
    ),
    "infinity": (
        "quickstart", "learning_rate: .*", "learning_rate: .inf", "learning_rate:",
        "training.learning_rate: expected a finite number, got inf",
    ),
    "number for text": (
        "quickstart", r"languages: \[de, en\]", "languages: [de, 3]", "languages:",
        "data.languages.1: expected text, got 3",
    ),
    "text for a section": (
        "quickstart", "^text:\n(  .*\n)*", "text: bpe\n", "text: bpe",
        "text: expected a section of keys and values, got 'bpe'",
    ),
    "list for a section": (
        "quickstart", "^decoding: .*", "decoding: [1, 2]", "decoding:",
        "decoding: expected a section of keys and values, got [1, 2]",
    ),
    "too small": (
        "quickstart", "batch_tokens: .*", "batch_tokens: 0", "batch_tokens:",
        "training.batch_tokens: expected at least 1, got 0",
    ),
    "too large": (
        "quickstart", "    dropout: .*", "    dropout: 1.0", "    dropout:",
        "model.decoder.dropout: expected less than 1, got 1.0",
    ),
    "not positive": (
        "quickstart", "learning_rate: .*", "learning_rate: -1e-3", "learning_rate:",
        "training.learning_rate: expected more than 0, got -0.001",
    ),
    "wrong word": (
        "quickstart", "validate_every:.*", "metric: blue", "metric: blue",
        "training.metric: unknown 'blue' (did you mean bleu? one of loss, bleu, bleu-zh, bleu-char, chrf, "
        "chrf++, ter, exact, ...)",
    ),
    "list too short": (
        "quickstart", r"languages: \[de, en\]", "languages: [de]", "languages:",
        "data.languages: expected a list of 2, got ['de']",
    ),
    "no training corpus": (
        "quickstart", "train:\n    - sample: tatoeba_de_en", "train: []", "train:",
        "data.train: expected a list of at least 1, got []",
    ),
    "corpus of two kinds": (
        "wmt_bahdanau", "test: {", "test: {sample: tatoeba_de_en, ", "test:",
        "data.test: expected a section with one of the keys sample, files, table, dataset, task; got sample and "
        "dataset together",
    ),
    "corpus of no kind": (
        "quickstart", "dev: .*", "dev: {limit: 3}", "dev:",
        "data.dev: expected a section with one of the keys sample, files, table, dataset, task; got a section with "
        "limit",
    ),
    "corpus that is a word": (
        "quickstart", "dev: .*", "dev: tatoeba_de_en", "dev:",
        "data.dev: expected a section with one of the keys sample, files, table, dataset, task; got 'tatoeba_de_en'",
    ),
    "key of another kind of corpus": (
        "quickstart", "dev: .*", "dev: {sample: tatoeba_de_en, columns: [0, 1]}", "dev:",
        "data.dev.columns: unknown key 'columns' (one of sample, split, tag, weight, limit)",
    ),
    "missing file": (
        "multi30k_additive", "test_2016_flickr.de.gz", "test_2017_flickr.de.gz", "test_2017",
        "data.test.files.1: no such file: DATA/multi30k/test_2017_flickr.de.gz",
    ),
    "missing file beside the recipe": (
        "quickstart", "dev: .*", "dev: {table: dev.tsv}", "dev:",
        "data.dev.table: no such file: FOLDER/dev.tsv",
    ),
    "folder that is a URL": (
        "digits", "train: .*", "train: {folder: 's3://bucket/digits'}", "train:",
        "data.train.folder: a folder cannot be a URL: copy s3://bucket/digits to this machine, or name an archive",
    ),
    "missing dataset folder": (
        "quickstart", "dev: .*", "dev: {dataset: ./dev, columns: [de, en]}", "dev:",
        "data.dev.dataset: no such folder: FOLDER/dev",
    ),
    "missing data files": (
        "quickstart", "dev: .*", "dev: {dataset: parquet, data_files: ['dev/*.parquet'], columns: [de, en]}", "dev:",
        "data.dev.data_files.0: no such file: FOLDER/dev/*.parquet",
    ),
    "missing vocabulary": (
        "quickstart", "size: 4000", "files: [de.model, /]", "files:",
        "text.files.0: no such file: FOLDER/de.model",
    ),
    "variable that is not set": (
        "multi30k_additive", r"train: *\n *files: \[\"\$\{SEQ2ATTN_DATA\}", r'train:\n    files: ["${NOWHERE}', "NOWHERE",
        "data.train.files.0: ${NOWHERE} is not set: give the environment variable NOWHERE a value",
    ),
    "key twice": (
        "quickstart", "size: 4000", "size: 4000\n  size: 3", "size: 3",
        "text.size: occurs twice (first in line ABOVE)",
    ),
    "tab": (
        "quickstart", "  model: unigram", "\tmodel: unigram", "\tmodel",
        "column 1: found character '\\t' that cannot start any token; indent with spaces, not with tabs",
    ),
    "open bracket": (
        "quickstart", r"languages: \[de, en\]", "languages: [de, en", "  train:",
        "column 8: expected ',' or ']', but got ':'",
    ),
    "tag": (
        "quickstart", "size: 4000", "size: !!python/name:os.system", "size: !!",
        "column 9: could not determine a constructor for the tag 'tag:yaml.org,2002:python/name:os.system'",
    ),
    "list as a key": (
        "quickstart", "size: 4000", "[a]: 3", "[a]:",
        "text: a key must be a word",
    ),
    "itself within itself": (
        "quickstart", "^decoding: .*", "decoding: &all {beam: *all}", "decoding:",
        "decoding.beam: is an alias of a node that contains it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_fault(case: Case, tmp_path: Path, corpora: Path) -> None:
    check_one_fault(case, tmp_path, corpora)


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 30


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.encoder.kind=lstm", "unknown 'lstm' (did you mean recurrent with cell: lstm? one of"),
        ("model.encoder.kind=GRU", "unknown 'GRU' (did you mean recurrent with cell: gru? one of"),
        ("model.decoder.attention=bahdanau", "got 'bahdanau' (did you mean {score: additive}?)"),
        ("model.decoder.attention=dot", "got 'dot' (did you mean {score: dot}?)"),
        ("model.decoder.attention.score=luong", "unknown 'luong' (did you mean general? one of"),
        ("vocab_size=4000", "unknown key 'vocab_size' (did you mean text.size? one of"),
        ("text.vocab_size=4000", "unknown key 'vocab_size' (did you mean size? one of"),
        ("learning_rate=0.1", "unknown key 'learning_rate' (did you mean training.learning_rate? one of"),
        ("beam=1", "unknown key 'beam' (did you mean decoding.beam? one of"),
        ("data.train=train.tsv", "got 'train.tsv' (did you mean {table: train.tsv}?)"),
        ("data.dev=x/dev.jsonl.gz", "got 'x/dev.jsonl.gz' (did you mean {table: x/dev.jsonl.gz}?)"),
    ],
)
def test_names_of_papers_and_other_toolkits_are_understood(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        read("quickstart", [override])
