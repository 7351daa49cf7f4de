"""Recipes: every fault is found, with its path, its line and a guess; what is written reads back the same."""

import ast
import os
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import seq2attn.recipe
from seq2attn.attention.scorers import SCORERS, General
from seq2attn.layers.basic import ACTIVATIONS
from seq2attn.layers.recurrent import CELLS
from seq2attn.metrics import METRICS, Metric
from seq2attn.optim import OPTIMIZERS
from seq2attn.recipe import (
    Part,
    Recipe,
    RecipeError,
    Section,
    TrainingRecipe,
    TransformerDecoderRecipe,
    head,
    read,
    schema,
    shipped,
    write,
)
from seq2attn.recipe.training import ClassificationTrainingRecipe, TaggingTrainingRecipe
from seq2attn.recipe.wording import closest
from seq2attn.recipe.yaml_source import dump, parse
from seq2attn.runtime.devices import PRECISIONS
from seq2attn.text.tag_schemes import SCHEMES

DATA = Path(__file__).parent / "data"
SHIPPED = shipped()
KEPT = {name: DATA / f"{name}.yaml" for name in ("quickstart", "multi30k_additive")}
words = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["no", "1e-3", "0x1", "~", "=", "<<", "1:2"]
)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words
trees = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(words, inner), max_leaves=9)

FILES = [
    *(f"multi30k/{name}.{side}.gz" for name in ("train", "val", "test_2016_flickr") for side in ("en", "de")),
    *(f"g2p/fre_{role}.tsv.gz" for role in ("train", "dev", "test")),
    *(f"scan_simple/{role}.tsv" for role in ("train", "dev", "test")),
    *(f"{name}/{role}.jsonl.gz" for name in ("samsum", "scitldr") for role in ("train", "dev")),
    *(f"conll2003/eng.{role}.gz" for role in ("train", "testa")),
    *(f"wnut17/{role}.conll.gz" for role in ("train", "dev", "test")),
]
OTHERS = "; others by --import MODULE, SEQ2ATTN_IMPORT or an entry point"  # parts that may be anywhere


@pytest.fixture(autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with (empty) files of the names that the shipped recipes ask for."""
    folder = tmp_path_factory.getbasetemp() / "corpora"
    for file in FILES:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    monkeypatch.setenv("SEQ2ATTN_DATA", str(folder))
    return folder


def faults(file: Path, *overrides: str) -> list[str]:
    """The faults of a recipe, without the folder of its file."""
    with pytest.raises(RecipeError) as error:
        read(file, overrides)
    assert [str(fault) for fault in error.value.faults] == str(error.value).split("\n")
    return str(error.value).replace(f"{file.parent}/", "").split("\n")


def line_of(text: str, marker: str) -> int:
    assert text.count(marker) == 1, f"{marker!r} is not unique in the recipe"
    return text[: text.index(marker)].count("\n") + 1


# ---- one fault each: recipe, what is replaced, by what, on which line the fault is, the fault -----------

Case = tuple[str, str, str, str, str]
CASES: dict[str, Case] = {
    "misspelt section": (
        "quickstart", "^training:", "trainning:", "trainning:",
        "trainning: unknown key 'trainning' (did you mean training? one of name, task, seed, data, text, model, "
        "training, decoding)",
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
        "text.volume: unknown key 'volume' (one of model, size, joint, files, lowercase, nfkc, byte_fallback, "
        "character_coverage, sampling, words)",
    ),
    "width that has no middle": (
        "quickstart", "score: additive", "score: {name: location_sensitive, width: 4}", "location_sensitive",
        "model.decoder.attention.score: LocationSensitive needs an odd width, as many positions before as behind; "
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
        "model.encoder.kind: unknown 'recurent' (did you mean recurrent? one of recurrent, transformer)",
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
        "text.size: expected a whole number, got 'ten'",
    ),
    "quoted number": (
        "quickstart", "size: 4000", "size: '4000'", "size: '4000'",
        "text.size: expected a whole number, got '4000'",
    ),
    "number with a fraction": (
        "quickstart", "size: 4000", "size: 3.7", "size: 3.7",
        "text.size: expected a whole number, got 3.7",
    ),
    "true for a number": (
        "quickstart", "size: 4000", "size: true", "size: true",
        "text.size: expected a whole number, got true",
    ),
    "a leading zero, octal to YAML 1.1": (
        "quickstart", "size: 4000", "size: 0100", "size: 0100",
        "text.size: expected a whole number, got '0100'",
    ),
    "yes for true": (
        "multi30k_transformer", "joint: true", "joint: yes", "joint: yes",
        "text.joint: expected true or false, got 'yes'",
    ),
    "null": (
        "quickstart", "batch_tokens: .*", "batch_tokens: ~", "batch_tokens:",
        "training.batch_tokens: expected a whole number, got null",
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
        "data.dev.columns: unknown key 'columns' (one of sample, split, weight, limit)",
    ),
    "missing file": (
        "multi30k_additive", "test_2016_flickr.de.gz", "test_2017_flickr.de.gz", "test_2017",
        "data.test.files.1: no such file: DATA/multi30k/test_2017_flickr.de.gz",
    ),
    "missing file beside the recipe": (
        "quickstart", "dev: .*", "dev: {table: dev.tsv}", "dev:",
        "data.dev.table: no such file: FOLDER/dev.tsv",
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
    "attention that the order lacks": (
        "quickstart", "order: luong", "order: cho", "attention:",
        "model.decoder.attention: the order cho has no attention: set it to null, or use bahdanau or luong",
    ),
    "order without its attention": (
        "quickstart", "    attention: .*\n", "", "  decoder:",
        "model.decoder.attention: the order luong needs an attention, for example {score: additive}",
    ),
    "input feeding in another order": (
        "wmt_bahdanau", "readout: maxout", "input_feeding: true", "input_feeding:",
        "model.decoder.input_feeding: is for the order luong; bahdanau reads its context anyway",
    ),
    "heads that do not divide": (
        "wmt_transformer", "cross_attention: .*", "cross_attention: {heads: 7}", "cross_attention:",
        "model.decoder.cross_attention.heads: 7 heads do not divide the size 512",
    ),
    "odd heads with rotary positions": (
        "wmt_transformer", "(?s)size: 512(.*?)heads: 8(.*?)dropout", r"size: 24\1heads: 8\2positions: rotary\n    dropout",
        "heads: 8}\n    positions",
        "model.encoder.self_attention.heads: rotary positions need an even head size, got 3",
    ),
    "dot product of unequal sizes": (
        "quickstart", "score: additive", "score: dot", "score: dot",
        "model.decoder.attention.score: Dot needs queries and keys of one size, got 256 and 512; use general or "
        "additive, or make the sizes equal (the decoder has 256, the encoder's states 512)",
    ),
    "tied across vocabularies": (
        "multi30k_transformer", "joint: true", "joint: false", "tied:",
        "model.tied: all needs one vocabulary for both languages: set text.joint: true",
    ),
    "tied to another size": (
        "quickstart", "    order: luong", "    order: luong\n    readout_size: 100", "tied:",
        "model.tied: the output layer reads 100 values, embeddings have 256; set decoder.readout_size to the "
        "embedding's size",
    ),
    "no end": (
        "wmt_bahdanau", "  max_steps: .*\n", "", "training:",
        "training: needs an end: set max_steps, max_epochs, max_minutes or early_stopping",
    ),
    "schedule without an end": (
        "wmt_bahdanau", "  max_steps: .*", "  max_minutes: 5\n  schedule: linear", "schedule:",
        "training.schedule: linear depends on the number of steps: set max_steps or max_epochs",
    ),
    "more averaged than kept": (
        "wmt_transformer", "keep_last: 5", "keep_last: 2", "average:",
        "training.average: averages 5 checkpoints but keep_last keeps 2",
    ),
    "momentum of adam": (
        "quickstart", "optimizer: adam", "optimizer: adam\n  momentum: 0.9", "momentum:",
        "training.momentum: is an option of sgd, not of adam",
    ),
    "sampling of characters": (
        "quickstart", "model: unigram", "model: char\n  sampling: {alpha: 0.2}", "sampling:",
        "text.sampling: a char model has only one segmentation; use unigram or bpe, or no sampling",
    ),
    "sampling of words on one side": (
        "quickstart", "model: unigram", "model: [unigram, word]\n  sampling: {alpha: 0.2}", "sampling:",
        "text.sampling: a word model has only one segmentation; use unigram or bpe, or no sampling",
    ),
    "misspelt model of one side": (
        "quickstart", "model: unigram", "model: [char, wrod]", "model: [char",
        "text.model: unknown 'wrod' (did you mean word? one of unigram, bpe, char, word)",
    ),
    "three models for two sides": (
        "quickstart", "model: unigram", "model: [char, word, char]", "model: [char",
        "text.model: expected a name, or two for source and target, got ['char', 'word', 'char']",
    ),
    "a number for a model": (
        "quickstart", "model: unigram", "model: 3", "model: 3",
        "text.model: expected one of unigram, bpe, char, word, or a list of two, got 3",
    ),
    "two models of one vocabulary": (
        "multi30k_transformer", "model: bpe", "model: [char, word]", "model: [char",
        "text.model: a joint vocabulary is one model: give one name, or joint: false",
    ),
    "misspelt metric of several": (
        "quickstart", "validate_every:.*", "metrics: [bleu, exat]", "metrics:",
        "training.metrics.1: unknown 'exat' (did you mean exact? one of bleu, bleu-zh, bleu-char, chrf, chrf++, "
        "ter, exact, wer, ...)",
    ),
    "misspelt task": (
        "copy_additive", "dev: {task: copy", "dev: {task: kopy", "kopy",
        "data.dev.task: unknown 'kopy' (did you mean copy? one of copy, reverse, sort)",
    ),
    "more distinct letters than there are": (
        "copy_additive", "dev: {task: copy, symbols: 16", "dev: {task: copy, symbols: 5", "symbols: 5",
        "data.dev.lengths: 10 distinct letters of 5: raise symbols, or set distinct to false",
    ),
    "lengths of a task in disorder": (
        "copy_additive", r"dev: {task: copy, symbols: 16, lengths: \[3", "dev: {task: copy, symbols: 16, lengths: [11",
        "lengths: [11", "data.dev.lengths: the shortest length 11 is more than the longest 10",
    ),
    "too few positions": (
        "wmt_transformer", "(?s)size: 512(.*?)dropout", r"size: 512\1positions: {name: learned, length: 100}\n    dropout",
        "positions:",
        "model.encoder.positions: 100 are learned, but a sentence may have 200 pieces and an end: set length to "
        "201, or lower data.filter.max_length and decoding.max_length",
    ),
    "languages that the sample lacks": (
        "quickstart", r"languages: \[de, en\]", "languages: [de, no]", "languages:",
        "data.languages: tatoeba_de_en has ['de', 'en'], not ['de', 'no']",
    ),
    "weight of a test corpus": (
        "quickstart", "test: .*", "test: {sample: tatoeba_de_en, weight: 2}", "test:",
        "data.test.weight: only training corpora have weights",
    ),
    "columns of two kinds": (
        "quickstart", "dev: .*", "dev: {table: quickstart.yaml, columns: [de, 1]}", "dev:",
        "data.dev.columns: expected two column numbers or two keys, got ['de', 1]",
    ),
    "slice of a stream": (
        "wmt_bahdanau", "dev: {", "dev: {streaming: true, ", "dev:",
        "data.dev.split: a stream cannot be sliced; use limit, or streaming: false",
    ),
    "posterior that nothing follows": (
        "quickstart", "order: luong", "order: luong\n    latent: posterior", "latent:",
        "model.decoder.latent: posterior would equal marginal: nothing here depends on the posterior of the last "
        "step; use input_feeding, the scorer coverage or fertility or location_sensitive, or the normalizer "
        "monotonic or hard_monotonic or ntm",
    ),
    "posterior of a chunk": (
        "quickstart", "score: additive}", "score: additive, normalize: mocha}\n    latent: posterior", "latent:",
        "model.decoder.latent: posterior: the state of mocha is not the distribution that it attends by",
    ),
    "latent alignment of several heads": (
        "quickstart", "score: additive}", "score: additive, heads: 2}\n    latent: marginal", "latent:",
        "model.decoder.latent: needs one alignment, and 2 heads make 2: set heads to 1",
    ),
    "latent alignment without probabilities": (
        "quickstart", "score: additive}", "score: additive, normalize: sigmoid}\n    latent: marginal", "latent:",
        "model.decoder.latent: needs weights that sum to 1, and those of sigmoid may sum to less or more",
    ),
    "latent alignment that is drawn": (
        "quickstart", "score: additive}", "score: additive, normalize: hard}\n    latent: marginal", "latent:",
        "model.decoder.latent: sums over the positions, and hard samples one: use only one of them",
    ),
    "latent alignment without attention": (
        "quickstart", r"order: luong\n    attention: .*", "order: cho\n    latent: marginal", "latent:",
        "model.decoder.latent: the order cho has no alignment: use bahdanau or luong",
    ),
    "top of nothing": (
        "quickstart", "order: luong", "order: luong\n    top: 5", "top:",
        "model.decoder.top: is for a latent alignment: set latent to marginal or posterior",
    ),
    "losses of nothing": (
        "quickstart", "optimizer: adam", "optimizer: adam\n  attention_losses: {layer: 1}", "attention_losses:",
        "training.attention_losses: turns no loss on: give one a factor, as in {coverage: 1.0}, or set it to null",
    ),
    "misspelt loss": (
        "quickstart", "optimizer: adam", "optimizer: adam\n  attention_losses: {covrage: 1.0}", "attention_losses:",
        "training.attention_losses.covrage: unknown key 'covrage' (did you mean coverage? one of coverage, "
        "doubly_stochastic, guided, reinforce, entropy, layer, head)",
    ),
    "name with a slash": (
        "quickstart", "^text:", "name: ../quick\ntext:", "name: ..",
        "name: names a folder of its own: no slashes, got '../quick'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_fault(case: Case, tmp_path: Path, data: Path) -> None:
    recipe, pattern, replacement, marker, fault = case
    text = (SHIPPED | KEPT)[recipe].read_text(encoding="utf-8")
    if "slice" in fault or "sliced" in fault:
        text = text.replace("split: validation", "split: 'validation[:100]'")
    text, found = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert found == 1, f"{pattern!r} is not in {recipe}"
    file = tmp_path / f"{recipe}.yaml"
    file.write_text(text, encoding="utf-8")
    fault = fault.replace("FOLDER", str(tmp_path)).replace("DATA", str(data)).replace(f"{tmp_path}/", "")
    line = line_of(text, marker)
    assert faults(file) == [f"{recipe}.yaml:{line}  {fault}".replace("ABOVE", str(line - 1))]


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 30


def keys_of(text: str) -> Iterator[tuple[str, int, yaml.ScalarNode]]:
    """Each key of a YAML text: the path of its section, its line, its node."""

    def walk(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[str, int, yaml.ScalarNode]]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield ".".join(path), key.start_mark.line + 1, key
                yield from walk(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                yield from walk(item, (*path, str(index)))

    yield from walk(yaml.compose(text), ())


@pytest.mark.parametrize("recipe", SHIPPED)
def test_every_key_misspelt(recipe: str, tmp_path: Path) -> None:
    text = SHIPPED[recipe].read_text(encoding="utf-8")
    file = tmp_path / "recipe.yaml"
    for section, line, node in keys_of(text):
        key, start = str(node.value), node.start_mark.index
        for drop in range(len(key)) if recipe == "quickstart" else [len(key) // 2]:
            wrong = key[:drop] + key[drop + 1 :]
            file.write_text(text[:start] + wrong + text[start + len(key) :], encoding="utf-8")
            path = f"{section}.{wrong}" if section else wrong
            found = faults(file)
            expected = f"recipe.yaml:{line}  {path}: unknown key '{wrong}' (did you mean {key}? one of "
            assert any(fault.startswith(expected) for fault in found), found
            assert len(found) == 1 or key == "task"  # without its task a recipe is one of translation


def test_all_faults_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "many.yaml"
    file.write_text(
        """
data:
  languages: [de, no]
  train:
    - {sampl: tatoeba_de_en, limt: 3}
    - {table: x.tsv, columns: [0, 1, 2]}
  dev: {sample: tatoeba_de_en}
text: {size: 3, size: 4, joint: on}
model:
  encoder: {kind: recurent, sizee: 3}
  decoder:
    kind: transformer
    self_attention: {score: {name: dott, scale: 2}}
training:
  betas: [2, x]
  early_stopping: {patience: 0}
nonsense: 1
""",
        encoding="utf-8",
    )
    assert faults(file, "seed=x", "training.max_steps=0") == [
        "many.yaml:5  data.train.0.sampl: unknown key 'sampl' (did you mean sample? one of sample, split, weight, "
        "limit)",
        "many.yaml:5  data.train.0.limt: unknown key 'limt' (did you mean limit? one of sample, split, weight, limit)",
        "many.yaml:6  data.train.1.table: no such file: x.tsv",
        "many.yaml:6  data.train.1.columns: expected a list of 2, got [0, 1, 2]",
        "many.yaml:8  text.size: occurs twice (first in line 8)",
        "many.yaml:8  text.joint: expected true or false, got 'on'",
        "many.yaml:10  model.encoder.kind: unknown 'recurent' (did you mean recurrent? one of recurrent, "
        "transformer)",
        "many.yaml:10  model.encoder.sizee: unknown key 'sizee' (did you mean size? one of kind, cell, embedding, "
        "layers, dropout, embedding_dropout, word_dropout, variational, ...)",
        "many.yaml:11  model.decoder: missing key 'cross_attention'",
        "many.yaml:13  model.decoder.self_attention.score.name: unknown 'dott' (did you mean dot? one of additive, "
        "concat, cosine, "
        f"coverage, dot, fertility, gaussian, general, ...{OTHERS})",
        "many.yaml:13  model.decoder.self_attention.score.scale: unknown key 'scale' (there are no options)",
        "many.yaml:15  training.betas.0: expected less than 1, got 2",
        "many.yaml:15  training.betas.1: expected a number, got 'x'",
        "many.yaml:16  training.early_stopping.patience: expected at least 1, got 0",
        "many.yaml:17  nonsense: unknown key 'nonsense' (one of name, task, seed, data, text, model, training, decoding)",
        "command line: training.max_steps: expected at least 1, got 0",
        "command line: seed: expected a whole number, got 'x'",
    ]


@given(recipe=st.sampled_from(list(SHIPPED)), place=st.randoms(use_true_random=False), value=trees)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_any_value_anywhere_is_taken_or_refused_in_plain_words(
    tmp_path: Path, recipe: str, place: Random, value: Any
) -> None:
    tree = parse(SHIPPED[recipe].read_text(encoding="utf-8")).tree
    holder, key = tree, place.choice(list(tree))
    while isinstance(holder[key], dict | list) and place.random() < 0.8:
        holder = holder[key]
        key = place.choice(list(holder)) if isinstance(holder, dict) else place.randrange(len(holder))
    holder[key] = value
    file = tmp_path / "recipe.yaml"
    file.write_text(dump(tree), encoding="utf-8")
    try:
        read(file)
    except RecipeError as error:
        for fault in error.faults:
            assert not re.search(
                r"\b(Input|valid|instance|dict|tuple|NoneType|type|another value)\b", fault.message
            )


# ---- files that are no recipes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "r.yaml:1  is empty; it needs at least data, model and training"),
        (b"# only this\n", "r.yaml:1  is empty; it needs at least data, model and training"),
        (b"- data\n- model\n", "r.yaml:1  expected sections (data: ..., model: ...), got ['data', 'model']"),
        (b"hello", "r.yaml:1  expected sections (data: ..., model: ...), got 'hello'"),
        (b"a: 1\nb: \xff\n", "r.yaml:2  is not UTF-8 text"),
        (b"a: 1\nb: \x07\n", "r.yaml:2  the character '\\x07' cannot stand in YAML"),
        (b"a: 1\n---\nb: 2\n", "r.yaml:2  column 1: but found another document"),
    ],
)
def test_not_a_recipe(content: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    assert faults(tmp_path / "r.yaml") == [fault]


def test_not_a_file(tmp_path: Path) -> None:
    ships = ", ".join(SHIPPED)
    assert faults(tmp_path) == [
        f"{tmp_path}  is a folder; give the recipe's file".replace(f"{tmp_path.parent}/", "")
    ]
    with pytest.raises(RecipeError, match=re.escape(f"no.yaml  no such file (recipes that ship: {ships})")):
        read(tmp_path / "no.yaml")
    with pytest.raises(
        RecipeError, match=re.escape("quikstart  no such file (did you mean quickstart? recipes ")
    ):
        read("quikstart")


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "recipes/quickstart.yaml"])
def test_shipped_by_name_from_anywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read(name) == read(SHIPPED["quickstart"])


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    text = SHIPPED["quickstart"].read_text(encoding="utf-8").replace("\n", "\r\n")
    (tmp_path / "quickstart.yaml").write_text(text, encoding="utf-8-sig", newline="")
    assert read(tmp_path / "quickstart.yaml") == read("quickstart")


# ---- YAML as people mean it -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1E5", 1e5), ("-.5", -0.5), ("+3", 3), ("10_000", 10000), ("1_0.5", 10.5), ("no", "no"),
        ("[en, no, on, y]", ["en", "no", "on", "y"]), ("True", True), ("false", False), ("~", None), ("", None),
        ("12:30", "12:30"), ("2020-01-01", "2020-01-01"), ("0x10", "0x10"), ("010", "010"), ("1e", "1e"), ("=", "="),
        (".nan", pytest.approx(float("nan"), nan_ok=True)), ("a: &x {b: 1}\nc: {<<: *x, d: 2}",
        {"a": {"b": 1}, "c": {"b": 1, "d": 2}}), ("a: {b: 1, <<: {b: 2, c: 3}}", {"a": {"b": 1, "c": 3}}),
        ("{1: 2, true: 3}", {"1": 2, "true": 3}),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    parsed = parse(text)
    assert parsed.tree == value
    assert type(parsed.tree) is type(value) or "nan" in text
    assert parsed.faults == []


@given(st.dictionaries(words.filter(lambda word: word != "<<"), trees, min_size=1))
@settings(max_examples=40, deadline=None)
def test_what_is_dumped_parses_back(tree: Any) -> None:
    assert parse(dump(tree)).tree == tree


# ---- overrides ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "of"),
    [
        ("training.learning_rate=1e-4", lambda recipe: recipe.training.learning_rate == 1e-4),
        ("data.train.0.limit=100", lambda recipe: recipe.data.train[0].limit == 100),
        ("data.train.1={sample: tatoeba_de_en, split: dev}", lambda recipe: len(recipe.data.train) == 2),
        ("data.train={sample: tatoeba_de_en, limit: 7}", lambda recipe: recipe.data.train[0].limit == 7),
        ("data.languages.0=en", None),
        ("data.languages=[en, de]", lambda recipe: recipe.data.languages == ("en", "de")),
        (
            "model.decoder.attention.score.size=7",
            lambda recipe: recipe.model.decoder.attention.score.size == 7,
        ),
        ("training.early_stopping.patience=3", lambda recipe: recipe.training.early_stopping.patience == 3),
        ("decoding={beam: 2}", lambda recipe: recipe.decoding.beam == 2),
        ("name=other", lambda recipe: recipe.name == "other"),
        ("data.test=null", lambda recipe: recipe.data.test is None),
        (" seed = 5 ", lambda recipe: recipe.seed == 5),
    ],
)
def test_override(override: str, of: Callable[[Any], bool] | None) -> None:
    if of is None:
        with pytest.raises(RecipeError, match="tatoeba_de_en has"):
            read(KEPT["quickstart"], [override])
    else:
        assert of(read(KEPT["quickstart"], [override]))


def test_one_training_corpus_is_number_0_in_a_list_or_not(tmp_path: Path) -> None:
    for override in ("data.train.0.limit=5", "data.train.limit=5"):
        assert read("multi30k_additive", [override]).data.train[0].limit == 5
    assert read("multi30k_additive", ["data.train.0={sample: tatoeba_de_en}"]).data.train[0].weight == 1


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("training.lr=3", "training.lr: unknown key 'lr' (did you mean learning_rate? one of optimizer, "
         "learning_rate, schedule, weight_decay, betas, eps, momentum, clip, ...)"),
        ("trainin.max_steps=3", "trainin: unknown key 'trainin' (did you mean training? one of name, task, seed, data, "
         "text, model, training, decoding)"),
        ("training.max_steps=ten", "training.max_steps: expected a whole number, got 'ten'"),
        ("data.train.3.limit=3", "data.train.3.limit: data.train is a list: give the number of an item, 0 to 0"),
        ("data.train.limit=3", "data.train.limit: data.train is a list: give the number of an item, 0 to 0"),
        ("data.train.0.limt=3", "data.train.0.limt: unknown key 'limt' (did you mean limit? one of sample, split, "
         "weight, limit)"),
        ("text.size.x=3", "text.size.x: text.size is 4000, which has no keys"),
        ("beam", "expected key=value, got 'beam'"),
        ("=3", "expected key=value, got '=3'"),
        ("seed=[", "seed: the value is not YAML: column 2: expected the node content, but found '<stream end>'"),
        ("model.decoder.attention=null", "model.decoder.attention: the order luong needs an attention, for example "
         "{score: additive}"),
        ("data.dev={table: '${NOWHERE}/x'}", "data.dev.table: ${NOWHERE} is not set: give the environment variable "
         "NOWHERE a value"),
    ],
)  # fmt: skip
def test_fault_of_an_override(override: str, fault: str) -> None:
    assert faults(KEPT["quickstart"], override) == [f"command line: {fault}"]


# ---- places ---------------------------------------------------------------------------------------------


def test_paths_are_relative_to_the_recipe_or_to_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("recipe", "here"):
        (tmp_path / folder / "hub").mkdir(parents=True)
        for name in ("a.tsv", "b.parquet", "de.model", "en.model"):
            (tmp_path / folder / name).touch()
    text = KEPT["quickstart"].read_text(encoding="utf-8")
    text = re.sub("  dev: .*", "  dev: {dataset: parquet, data_files: '*.parquet', columns: [de, en]}", text)
    text = re.sub("  test: .*", "  test: {dataset: hub, columns: [de, en]}", text)
    text = text.replace("size: 4000", "files: [de.model, en.model]")
    (tmp_path / "recipe" / "r.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    recipe = read("../recipe/r.yaml", ["data.train={table: a.tsv}"]).model_dump()
    assert recipe["data"]["train"][0]["table"] == str(tmp_path / "here" / "a.tsv")
    assert recipe["data"]["dev"]["data_files"] == str(tmp_path / "recipe" / "*.parquet")
    assert recipe["data"]["test"]["dataset"] == str(tmp_path / "recipe" / "hub")
    assert recipe["text"]["files"] == (f"{tmp_path}/recipe/de.model", f"{tmp_path}/recipe/en.model")


def test_hub_names_and_addresses_stay() -> None:
    corpus = "{dataset: json, data_files: ['https://example.org/a.jsonl'], columns: [de, en]}"
    recipe = read("wmt_transformer", [f"data.dev={corpus}"]).model_dump()
    assert recipe["data"]["train"][0]["dataset"] == "wmt/wmt14"
    assert recipe["data"]["dev"]["data_files"] == ["https://example.org/a.jsonl"]


def test_files_need_not_be_there(tmp_path: Path) -> None:
    recipe = read("quickstart", [f"data.dev={{table: {tmp_path}/x.tsv}}"], check_files=False)
    assert recipe.model_dump()["data"]["dev"]["table"] == f"{tmp_path}/x.tsv"


def test_an_unset_variable_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEQ2ATTN_DATA")
    (fault,) = faults(KEPT["multi30k_additive"])
    assert fault.endswith("${SEQ2ATTN_DATA} is not set: give the environment variable SEQ2ATTN_DATA a value")


# ---- what is written ------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", SHIPPED)
def test_written_recipes_read_back(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read(recipe)
    write(before, tmp_path / "recipe.yaml")
    monkeypatch.delenv("SEQ2ATTN_DATA")
    monkeypatch.chdir(tmp_path)
    assert read("recipe.yaml") == before
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@given(
    name=words.filter(lambda word: word and not set(word) & set("/\\")),
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(0, exclude_min=True, allow_infinity=False),
    language=words,
    size=st.none() | st.integers(1),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_any_recipe_reads_back(
    tmp_path: Path, name: str, seed: int, rate: float, language: str, size: int | None
) -> None:
    tree = read("wmt_bahdanau").model_dump()
    tree |= {"name": name, "seed": seed}
    tree["data"]["languages"] = ["no", language]
    tree["training"]["learning_rate"] = rate
    tree["model"]["decoder"]["attention"]["score"]["size"] = size
    recipe = Recipe.model_validate(tree)
    write(recipe, tmp_path / "recipe.yaml")
    assert read(tmp_path / "recipe.yaml") == recipe


def test_a_written_recipe_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read("quickstart")
    write(recipe, tmp_path / "recipe.yaml")

    def broken(handle: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="no space left"):
        write(recipe.model_copy(update={"seed": 9}), tmp_path / "recipe.yaml")
    assert read(tmp_path / "recipe.yaml") == recipe


# ---- parts of one's own, and the schema ------------------------------------------------------------------


class Mine(General):
    """q . W k, sharper."""

    def __init__(
        self, query_size: int, key_size: int, *, sharpness: float, sizes: tuple[int, int] = (2, 3)
    ) -> None:
        super().__init__(query_size, key_size)
        self.sharpness, self.sizes = sharpness, sizes


def test_a_scorer_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SCORERS, "mine", Mine)
    recipe = read("quickstart", ["model.decoder.attention.score={name: mine, sharpness: 2, sizes: [5, 7]}"])
    write(recipe, tmp_path / "recipe.yaml")
    assert read(tmp_path / "recipe.yaml") == recipe
    scorer = recipe.model_dump()["model"]["decoder"]["attention"]["score"]
    assert scorer == {"name": "mine", "sharpness": 2.0, "sizes": (5, 7)}
    made = recipe.model.decoder.attention.score.make(SCORERS, 3, 5)  # type: ignore[union-attr]
    assert (made.sharpness, made.sizes) == (2.0, (5, 7))
    score = schema()["$defs"]["AttentionRecipe"]["properties"]["score"]["anyOf"]
    assert "mine" in score[0]["enum"]
    assert score[-1]["properties"]["sharpness"]["type"] == "number"
    assert score[-1]["required"] == ["name", "sharpness"]


def test_faults_of_a_scorer_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORERS, "mine", Mine)
    score = "model.decoder.attention.score"
    assert faults(KEPT["quickstart"], f"{score}=mine") == [f"command line: {score}: missing key 'sharpness'"]
    assert faults(KEPT["quickstart"], f"{score}={{name: mine, sharpness: x, sizes: [1]}}") == [
        f"command line: {score}.sizes: expected a list of 2, got [1]",
        f"command line: {score}.sharpness: expected a number, got 'x'",
    ]
    with pytest.raises(RecipeError, match="did you mean mine"):
        read("quickstart", [f"{score}=mien"])


def test_schema_takes_what_ships_and_refuses_what_read_refuses() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    whole = schema()
    jsonschema.Draft202012Validator.check_schema(whole)
    validator = jsonschema.Draft202012Validator(whole)
    for path in SHIPPED.values():
        tree = parse(path.read_text(encoding="utf-8")).tree
        validator.validate(tree)
        tree["training"]["lr"] = 1
        assert not validator.is_valid(tree)
    tree = parse(KEPT["quickstart"].read_text(encoding="utf-8")).tree
    for score, valid in [("additive", True), ("additve", False), ({"name": "additive", "size": 3}, True),
                         ({"name": "additive", "sise": 3}, False), ({"size": 3}, False)]:  # fmt: skip
        tree["model"]["decoder"]["attention"]["score"] = score
        assert validator.is_valid(tree) is valid, score


def sections(of: type[Section] = Section) -> Iterator[type[Section]]:
    for section in of.__subclasses__():
        yield section
        yield from sections(section)


def test_every_key_is_described() -> None:
    described = [section for section in sections() if not issubclass(section, Part)]
    assert len(described) > 15
    for section in described:
        for key, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{key}"


def test_the_reference_is_up_to_date() -> None:
    script = Path(__file__).parents[1] / "scripts" / "write_recipe_reference.py"
    written = (script.parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(script))["reference"]() == written, "run make docs"


def choices(section: type[Section], key: str) -> list[str]:
    """The names that the JSON schema allows for a key."""
    field = section.model_json_schema()["properties"][key]
    names: list[str] = field.get("enum") or field["anyOf"][0]["enum"]
    return names


def test_choices_are_those_of_the_registries() -> None:
    assert choices(TrainingRecipe, "optimizer") == [*OPTIMIZERS]
    assert choices(TrainingRecipe, "precision") == [*PRECISIONS]
    assert choices(seq2attn.recipe.TransformerEncoderRecipe, "activation") == [*ACTIVATIONS]
    assert choices(seq2attn.recipe.RecurrentEncoderRecipe, "cell") == [*CELLS]
    assert choices(seq2attn.recipe.TaggedDataRecipe, "scheme") == ["auto", *SCHEMES]
    kinds = (TrainingRecipe, TaggingTrainingRecipe, ClassificationTrainingRecipe)
    assert [name for kind in kinds for name in choices(kind, "metrics")] == [*METRICS]
    for kind in kinds:
        assert choices(kind, "metric") == ["loss", *kind.measurable()] == ["loss", *choices(kind, "metrics")]


def test_a_metric_that_is_added_can_be_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    training = {"max_steps": 1, "metric": "shout", "metrics": ["shout"]}
    with pytest.raises(ValidationError, match="unknown 'shout'"):
        TrainingRecipe.model_validate(training)
    monkeypatch.setitem(METRICS, "shout", Metric(METRICS["exact"], "texts", lower_is_better=True))
    assert TrainingRecipe.model_validate(training).metrics == ["shout"]
    assert "shout" in choices(TrainingRecipe, "metric") and "shout" in TrainingRecipe.measurable()
    assert "shout" not in TaggingTrainingRecipe.measurable()
    with pytest.raises(ValidationError, match=r"unknown 'shuot' \(did you mean shout\?"):
        TrainingRecipe.model_validate({"max_steps": 1, "metric": "shuot"})


@pytest.mark.parametrize("recipe", SHIPPED)
def test_heads(recipe: str) -> None:
    """What, how long on which machine, which score."""
    what, how_long, score = head(SHIPPED[recipe])
    assert what.endswith(".")
    assert how_long.startswith("How long: ")
    assert score.startswith("Score: ")


def test_guesses() -> None:
    names = ["learning_rate", "size", "batch_tokens", "embedding"]
    assert [closest(word, names) for word in ("learning-rate", "LR", "bt", "sise", "embed", "xyz", "")] == [
        "learning_rate", "learning_rate", "batch_tokens", "size", "embedding", None, None
    ]  # fmt: skip


def test_small_files_small_functions() -> None:
    for path in Path(seq2attn.recipe.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}: {node.name}"


# ---- self-attention and cross-attention ------------------------------------------------------------------

OWN, ACROSS = "model.decoder.self_attention", "model.decoder.cross_attention"


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ([f"{ACROSS}.window=3"],
         f"{ACROSS}.window: only self-attention can have a window, which moves with its query: set it to null"),
        ([f"{OWN}.key_heads=3"], f"{OWN}.key_heads: 3 key heads do not divide 8 heads"),
        ([f"{OWN}.window=4", f"{OWN}.score=location"],
         f"{OWN}.window: a decoder keeps only the keys of its window, so location would see other positions in "
         "decoding than in training: set it to null"),
        ([f"{OWN}.window=4", f"{OWN}.score=location", f"{OWN}.normalize=local_p"],
         f"{OWN}.window: a decoder keeps only the keys of its window, so location and local_p would see other "
         "positions in decoding than in training: set it to null"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, {{heads: 8, window: 4, normalize: local_p}}]"],
         f"{OWN}.1.window: a decoder keeps only the keys of its window, so local_p would see other positions in "
         "decoding than in training: set it to null"),
        ([f"{OWN}.talking=true", f"{OWN}.score=location"],
         f"{OWN}.talking: Location has a score for positions that get no weight, which mixing heads would lose: no "
         "talking"),
        ([f"{OWN}.sinks=3"], f"{OWN}.sinks: without a window every token stays visible: set window, or sinks to 0"),
        ([f"{OWN}={{talking: true}}"], f"{OWN}.talking: talking heads need at least two heads: set heads"),
        ([f"{OWN}.talking=true", f"{OWN}.normalize=sum", f"{OWN}.score=linear"],
         f"{OWN}.talking: Sum divides by the scores' sum, and mixed scores may be negative: no talking"),
        ([f"{ACROSS}.talking=true", f"{ACROSS}.normalize=monotonic"],
         f"{ACROSS}.talking: Monotonic follows the weights of its own head, which mixing heads would change: no talking"),
        (["model.decoder.positions=alibi", f"{OWN}.normalize=sum", f"{OWN}.score=linear"],
         f"{OWN}.normalize: divides by the sum of the scores, and with alibi positions scores may be negative; use others"),
        (["model.decoder.positions=t5", f"{OWN}.window=5", f"{OWN}.sinks=3"],
         f"{OWN}.sinks: a decoder keeps no keys between the sinks and the window, so t5 positions would "
         "take the sinks for near tokens: use rotary, or no sinks"),
        (["model.decoder.positions={name: t5, max_distance: 31}"],
         "model.decoder.positions: 32 buckets are more than max_distance 31 has distances: raise it to 32, or "
         "lower buckets"),
        (["model.encoder.positions={name: t5, max_distance: 15}"],
         "model.encoder.positions: 32 buckets, 16 for each direction, are more than max_distance 15 has "
         "distances: raise it to 16, or lower buckets"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}]"],
         f"{OWN}: expected a section for each of the 2 layers, got a list of 1; a section without a list is "
         "for all layers"),
        (["model.decoder.layers=2", f"{ACROSS}=[]"],
         f"{ACROSS}: expected a section for each of the 2 layers, got a list of 0; a section without a list is "
         "for all layers"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, {{heads: 7}}]"],
         f"{OWN}.1.heads: 7 heads do not divide the size 512"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, {{heads: 512}}]", "model.decoder.positions=rotary"],
         f"{OWN}.1.heads: rotary positions need an even head size, got 1"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, {{heads: 4}}]", "model.decoder.positions=t5"],
         f"{OWN}.1.heads: the layers share one table of t5 positions: all need 8 heads"),
        (["model.decoder.layers=2", f"{ACROSS}=[{{heads: 8}}, {{heads: 4}}]"],
         f"{ACROSS}.1.heads: weights of all layers are put into one tensor: all layers need 8 heads"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, {{heads: 8, normalize: monotonic}}]"],
         f"{OWN}.1.normalize: monotonic needs a target that is written step by step; self-attention has none"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, {{haeds: 8}}]"],
         f"{OWN}.1.haeds: unknown key 'haeds' (did you mean heads? one of score, normalize, heads, dropout, "
         "key_heads, query_key_norm, talking, window, ...)"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, 3]"],
         f"{OWN}.1: expected a section of keys and values, got 3"),
        ([f"{OWN}=3"], f"{OWN}: expected a section of keys and values, got 3"),
        (["model.encoder.positions=nowhere"],
         "model.encoder.positions: unknown 'nowhere' (one of sinusoidal, learned, rotary, alibi, t5, shaw, none"
         f"{OTHERS})"),
    ],
)  # fmt: skip
def test_faults_of_how_a_transformer_sees(overrides: list[str], fault: str) -> None:
    assert faults(SHIPPED["wmt_transformer"], *overrides) == [f"command line: {fault}"]


def test_what_counts_places_goes_without_a_window_or_in_an_encoder() -> None:
    assert read(SHIPPED["wmt_transformer"], [f"{OWN}.score=location", f"{OWN}.normalize=local_p"])
    read_on_both_sides = [
        "model.encoder.self_attention.window=4",
        "model.encoder.self_attention.score=location",
    ]
    assert read(SHIPPED["wmt_transformer"], read_on_both_sides)


def test_an_encoder_has_half_of_t5s_buckets_for_each_direction() -> None:
    near = [f"model.{side}.positions={{name: t5, max_distance: {most}}}"
            for side, most in (("encoder", 16), ("decoder", 32))]  # fmt: skip
    assert read(SHIPPED["wmt_transformer"], near)


def test_one_head_of_a_recurrent_decoder_has_nothing_to_norm_or_share() -> None:
    attention = "model.decoder.attention"
    assert faults(KEPT["quickstart"], f"{attention}.query_key_norm=true") == [
        f"command line: {attention}.query_key_norm: a single head has no projections to normalize: set "
        "heads, or use cosine"
    ]
    assert faults(KEPT["quickstart"], f"{attention}.window=2") == [
        f"command line: {attention}.window: only self-attention can have a window, which moves with its "
        "query: set it to null"
    ]
    assert read(KEPT["quickstart"], [f"{attention}.query_key_norm=true", f"{attention}.heads=2"])


def test_one_section_is_for_all_layers_and_a_list_for_each(tmp_path: Path) -> None:
    several = "[{heads: 8, window: 5, sinks: 2}, {heads: 4}]"
    each = ["model.decoder.layers=2", f"{OWN}={several}", f"{ACROSS}.key_heads=2", f"{OWN}.1.heads=2"]
    recipe = read(SHIPPED["wmt_transformer"], each)
    write(recipe, tmp_path / "recipe.yaml")
    again = read(tmp_path / "recipe.yaml", [f"{ACROSS}.heads=4"], check_files=False)  # still no list
    decoder = again.model.decoder
    assert isinstance(decoder, TransformerDecoderRecipe)
    assert decoder.self_attention == recipe.model.decoder.self_attention  # type: ignore[union-attr]
    assert [section.heads for section in decoder.self_attentions] == [8, 2]
    assert [section.key_heads for section in decoder.cross_attentions] == [2, 2]
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())
    validator.validate(parse((tmp_path / "recipe.yaml").read_text(encoding="utf-8")).tree)


# ---- attention and alignments ---------------------------------------------------------------------------

ALIGNED = ["data.train.alignments=true", "training.attention_losses={guided: 0.5}"]
NONE = ["model.decoder.order=cho", "model.decoder.attention=null"]
LOSSES = "training.attention_losses"


def test_paths_are_those_of_the_recipe_as_it_is_written() -> None:
    """What may be one or a list is named by number only where it is one of a list."""
    for value, place in (("{task: kopy}", "data.train.task"), ("[{task: kopy}]", "data.train.0.task")):
        assert faults(SHIPPED["copy_additive"], f"data.train={value}")[0].startswith(
            f"command line: {place}: "
        )
    assert faults(SHIPPED["copy_additive"], "data.train=kopy")[0].startswith("command line: data.train: ")
    for value, place in (("blue", "training.metrics"), ("[exact, blue]", "training.metrics.1")):
        said = faults(SHIPPED["copy_additive"], f"training.metrics={value}")
        assert said[0].startswith(f"command line: {place}: unknown 'blue'")


UNALIGNED = (
    "has no alignments, and training.attention_losses.guided needs them of every training corpus: give it "
    "alignments, which files and made tasks can have"
)

NEGATIVE = (
    "needs weights that are probabilities, and those of heads that talk may be negative: set talking to false"
)
LAYERS = f"model.decoder.layers=2+{ACROSS}=[{{{{heads: 8, talking: {{first}}}}}}, {{{{heads: 8, talking: {{last}}}}}}]"


@pytest.mark.parametrize(
    ("recipe", "overrides", "expected"),
    [
        ("copy_additive", [*NONE, f"{LOSSES}={{coverage: 1}}", "decoding.coverage_penalty=0.2",
                           "decoding.replace_unknown=true"],
         [f"{path}: needs attention, and the order cho has none"
          for path in ("decoding.replace_unknown", "decoding.coverage_penalty", LOSSES)]),
        ("copy_additive", [f"{LOSSES}={{coverage: 1, layer: 1, head: 1}}"],
         [f"{LOSSES}.layer: the decoder's layers with attention are 0 to 0, got 1",
          f"{LOSSES}.head: the heads are 0 to 0, got 1"]),
        ("wmt_transformer", [f"{LOSSES}={{coverage: 1, layer: -7, head: 8}}"],
         [f"{LOSSES}.layer: the decoder's layers with attention are 0 to 5, got -7",
          f"{LOSSES}.head: the heads are 0 to 7, got 8"]),
        ("copy_additive", [f"{LOSSES}={{reinforce: 1}}"],
         [f"{LOSSES}.reinforce: needs slots that are drawn, not weighed by softmax: set "
          "model.decoder.attention.normalize to hard"]),
        ("wmt_transformer", [f"{LOSSES}={{reinforce: 1}}", "model.encoder.self_attention.normalize=hard"],
         [f"{LOSSES}.reinforce: needs slots that are drawn, not weighed by softmax: set "
          "model.decoder.cross_attention.normalize to hard"]),
        ("wmt_transformer", [f"{LOSSES}={{coverage: 1, doubly_stochastic: 1, entropy: 1}}", f"{ACROSS}.talking=true",
                             "decoding.coverage_penalty=0.2"],
         [f"{path}: {NEGATIVE}" for path in (f"{LOSSES}.coverage", f"{LOSSES}.doubly_stochastic",
                                             f"{LOSSES}.entropy", "decoding.coverage_penalty")]),
        ("wmt_transformer", [f"{LOSSES}={{coverage: 1, guided: 1}}", "data.train=[{task: copy, alignments: true}]",
                             *LAYERS.format(first="true", last="false").split("+")],
         [f"{LOSSES}.guided: {NEGATIVE}"]),
        ("wmt_transformer", [f"{LOSSES}={{coverage: 1, guided: 1, layer: 0}}",
                             "data.train=[{task: copy, alignments: true}]",
                             *LAYERS.format(first="false", last="true").split("+"), "decoding.coverage_penalty=0.2"],
         [f"decoding.coverage_penalty: {NEGATIVE}"]),
        ("copy_additive", ALIGNED[1:], [f"data.train: {UNALIGNED}"]),
        ("copy_additive", ["data.train=[{task: copy}]", *ALIGNED[1:]], [f"data.train.0: {UNALIGNED}"]),
        ("copy_additive", [f"data.train=[{{task: copy, alignments: true}}, {{table: {__file__}}}]", *ALIGNED[1:]],
         [f"data.train.1: {UNALIGNED}"]),
        ("copy_additive", [*ALIGNED[:1], f"{LOSSES}={{coverage: 1}}"],
         ["data.train.alignments: nothing would learn from them: set training.attention_losses.guided, or leave "
          "them out"]),
        ("copy_additive", [f"data.train={{files: [{__file__}, {__file__}], alignments: {__file__}}}"],
         ["data.train.alignments: nothing would learn from them: set training.attention_losses.guided, or leave "
          "them out"]),
        ("copy_additive", ["data.dev.alignments=true", "data.test.alignments=true"],
         [f"data.{use}.alignments: only training corpora have alignments: leave them out"
          for use in ("dev", "test")]),
        ("copy_additive", [*ALIGNED, "text={sampling: {alpha: 0.1}}"],
         ["text.sampling: cuts words anew, and alignments are between pieces that stay as they are: leave "
          "sampling out, or training.attention_losses.guided"]),
        ("copy_additive", [f"data.train={{files: [{__file__}, {__file__}], alignments: /no/where}}", *ALIGNED[1:]],
         ["data.train.alignments: no such file: /no/where"]),
        ("copy_additive", ["data.train={table: x.tsv, alignments: x}"],
         ["data.train.table: no such file: HERE/x.tsv", "data.train.alignments: no such file: HERE/x",
          "data.train.alignments: unknown key 'alignments' (one of table, columns, weight, limit)"]),
    ],
)  # fmt: skip
def test_faults_of_attention_and_alignments(recipe: str, overrides: list[str], expected: list[str]) -> None:
    found = [fault.removeprefix("command line: ") for fault in faults(SHIPPED[recipe], *overrides)]
    found = [re.sub(r"^\S+yaml:[0-9]+  ", "", fault) for fault in found]
    assert sorted(found) == sorted(fault.replace("HERE", str(Path.cwd())) for fault in expected)


def test_coverage_is_of_the_layer_that_copies() -> None:
    layers = LAYERS.format(first="false", last="true").split("+")
    read("wmt_transformer", ["model.decoder.copying={layer: 0}", "decoding.coverage_penalty=0.2", *layers])


@pytest.mark.parametrize(
    ("recipe", "overrides", "expected"),
    [
        (recipe, overrides, fault)
        for recipe in ("conll2003_pooling", "languages")
        for overrides, fault in (
            (["model.embedding.frozen=true", "text.vectors=null"],
             "model.embedding.frozen: vectors would stay as they are drawn at random: name a file of others in "
             "text.vectors, or set frozen to false"),
            (["model.encoder={kind: transformer, positions: {name: learned, length: 40}}", "data.filter.max_length=41"],
             "model.encoder.positions: 40 are learned, but a sentence may have 41 words: set length to 41, or lower "
             "data.filter.max_length"),
            (["data.filter.max_ratio=3.0"],
             "data.filter.max_ratio: compares the lengths of two texts, and labels are not a text: leave it out"),
        )
    ],
)  # fmt: skip
def test_faults_of_labelling(recipe: str, overrides: list[str], expected: str, data: Path) -> None:
    found = [
        re.sub(r"^(command line: |\S+yaml:[0-9]+  )", "", one) for one in faults(SHIPPED[recipe], *overrides)
    ]
    assert found == [expected] and read(recipe)


def test_what_labelling_takes(data: Path) -> None:
    """Positions for all words of a sentence (none for its end); and one limit leaves the others as they are."""
    near = [
        "model.encoder={kind: transformer, positions: {name: learned, length: 41}}",
        "data.filter.max_length=41",
    ]
    recipe = read("languages", near)
    assert recipe.data.filter.duplicates and not read("quickstart").data.filter.duplicates
    with pytest.raises(
        RecipeError, match=r"encoder\.positions: 200 are learned, but a sentence may have 200 pieces"
    ):
        read("wmt_transformer", ["model.encoder.positions={name: learned, length: 200}"])


def test_losses_are_taught_where_copying_looks() -> None:
    """There no head may talk, and elsewhere it may."""
    layers = [*LAYERS.format(first="false", last="true").split("+"), f"{LOSSES}={{coverage: 1}}"]
    assert read("wmt_transformer", [*layers, "model.decoder.copying={layer: 0}"])
    named = [*layers, f"{LOSSES}.layer=1", "model.decoder.copying={layer: 0}"]
    assert faults(SHIPPED["wmt_transformer"], *named) == [f"command line: {LOSSES}.coverage: {NEGATIVE}"]


def test_attention_that_can_be_taught() -> None:
    recipe = read("copy_additive", ALIGNED)
    assert [corpus.aligned for corpus in recipe.data.train] == [True] and not recipe.data.dev.aligned
    drawn = ["model.decoder.attention.normalize=hard", f"{LOSSES}={{reinforce: 1, layer: -1, head: 0}}"]
    assert read("copy_additive", [*drawn, "decoding.coverage_penalty=0.1"])
    across = "model.decoder.cross_attention"
    drawn = [f"{across}.normalize=hard", f"{LOSSES}={{reinforce: 1, coverage: 1, layer: 5, head: 7}}"]
    assert read("wmt_transformer", [*drawn, "decoding.coverage_penalty=0.1"])


def test_heads_may_talk_where_nobody_reads_their_weights() -> None:
    layers = LAYERS.format(first="true", last="false").split("+")
    assert read("wmt_transformer", [*layers, f"{LOSSES}={{coverage: 1}}", "decoding.coverage_penalty=0.1"])


def test_alignments_lie_where_the_recipe_does(tmp_path: Path) -> None:
    for name in ("x.de", "x.en", "links.pharaoh.gz"):
        (tmp_path / name).touch()
    text = SHIPPED["copy_additive"].read_text(encoding="utf-8")
    corpus = "{files: [x.de, x.en], alignments: links.pharaoh.gz}"
    text = re.sub("train: {.*", f"train: {corpus}", text)
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    recipe = read(tmp_path / "r.yaml", ALIGNED[1:]).model_dump()
    assert recipe["data"]["train"][0]["alignments"] == str(tmp_path / "links.pharaoh.gz")
    write(read(tmp_path / "r.yaml", ALIGNED[1:]), tmp_path / "again.yaml")
    assert read(tmp_path / "again.yaml").data.train[0].aligned
