"""Settings that cannot be combined are reported, each with its key and its line."""

from pathlib import Path

import pytest
from tiny_recipes import Case, check_one_fault

pytestmark = pytest.mark.usefixtures("corpora")

CASES: dict[str, Case] = {
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
        "model.decoder.input_feeding: is for the order luong, not for bahdanau",
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
        "wmt_bahdanau", "  max_steps: .*\n.*", "  max_minutes: 5\n  schedule: linear", "schedule:",
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
def test_one_fault(case: Case, tmp_path: Path, corpora: Path) -> None:
    check_one_fault(case, tmp_path, corpora)


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 20
