"""Tasks whose alignment is known: what an attention learns, and that it looked where it had to.

`learn` trains a small model in seconds; give it another attention, task or order to see what that can do.
"""

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny_runs
import torch
from click.testing import CliRunner

import seq2attn.runs.training_run
from seq2attn.cli import cli
from seq2attn.data import Pair, Report, known_alignment
from seq2attn.data.batches import PairIds, collate
from seq2attn.data.sources import PairTokenizer, SourceIds
from seq2attn.data.synthetic import ORDERS, make
from seq2attn.errors import Seq2attnError
from seq2attn.inference.generator import Generator
from seq2attn.inference.translator import Translator
from seq2attn.layers.token_loss import cross_entropy
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import (
    DecodingRecipe,
    ModelRecipe,
    RecurrentDecoderRecipe,
    TaggingRecipe,
    TaskCorpus,
    read,
)
from seq2attn.tasks.labelling_tasks import TaggingTask
from seq2attn.tasks.loading import load, reopen
from seq2attn.text.vocabulary_training import train_vocabulary
from seq2attn.text.word_vocabulary import WordVocabularyError
from seq2attn.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

LETTERS = {"symbols": 12, "lengths": [3, 6]}  # distinct: only the true alignment explains the target


class Learned(NamedTuple):
    """Shares of the test set, from 0 to 1."""

    exact: float  # of its sentences are right
    aligned: float  # of its target words look at their source word most, when they are forced


def pairs(task: str, split: str, count: int) -> list[Pair]:
    corpus = TaskCorpus.model_validate({"task": task, "count": count, **LETTERS})
    return list(make(corpus, split, Report()))


def learn(
    attention: dict[str, Any],
    task: str,
    order: str = "luong",
    *,
    updates: int = 200,
    size: int = 48,
    seed: int = 1,
    **decoder: Any,
) -> Learned:
    """Train an LSTM with this attention (as a recipe has it) for `updates` batches of 32 pairs, and test it."""
    torch.manual_seed(seed)
    train, test = pairs(task, "train", 2000), pairs(task, "test", 100)
    sides = [train_vocabulary([pair[side] for pair in train], model="word", size=100) for side in (0, 1)]
    recipe = ModelRecipe.model_validate(
        {
            "encoder": {"kind": "recurrent", "embedding": 32, "size": size // 2},
            "decoder": {
                "kind": "recurrent", "order": order, "embedding": 32, "size": size, "attention": attention,
                **decoder,
            },
        }
    )  # fmt: skip
    model = build(recipe, sides[0].size, sides[1].size)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, updates)
    tokenizer = PairTokenizer(*sides)
    ids = [vocabulary.encode([pair[side] for pair in train]) for side, vocabulary in enumerate(sides)]
    generator = np.random.default_rng(seed)
    for _ in range(updates):
        some = generator.integers(len(train), size=32).tolist()
        one = collate(tokenizer, [PairIds(SourceIds(ids[0][i]), ids[1][i]) for i in some])
        logits = model(one.source, one.target_input).logits
        optimizer.zero_grad()
        (cross_entropy(logits, one.target, one.target_mask).smoothed / one.target_mask.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        falling.step()
    translator = Translator(Generator(model, tokenizer), DecodingRecipe())
    found = translator.translate([pair.source for pair in test], beam=1, alignment=False)
    right = [one.text == pair.target for one, pair in zip(found, test, strict=True)]
    forced = [translator.align(pair.source, pair.target).alignment.argmax(1) for pair in test]
    true = [known_alignment(task, pair.source) for pair in test]
    return Learned(float(np.mean(right)), float(np.mean(np.concatenate(forced) == np.concatenate(true))))


@pytest.mark.parametrize("order", ["luong", "bahdanau"])
@pytest.mark.parametrize("task", ["copy", "reverse"])
def test_additive_attention_learns_where_to_look(task: str, order: str) -> None:
    exact, aligned = learn({"score": "additive"}, task, order)
    assert exact >= 0.99 and aligned >= 0.99


@pytest.mark.parametrize(
    ("normalize", "task"),
    [
        ("entmax", "reverse"),
        ("monotonic", "copy"),
        ("milk", "reverse"),  # it looks back as far as it likes
    ],
)
def test_who_can_make_the_alignment_learns_it(normalize: Any, task: str) -> None:
    exact, aligned = learn({"score": "additive", "normalize": normalize}, task)
    assert exact >= 0.99 and aligned >= 0.99


@pytest.mark.parametrize("normalize", ["monotonic", {"name": "local_m", "reach": 2}])
def test_who_goes_left_to_right_cannot_reverse(normalize: Any) -> None:
    exact, aligned = learn({"score": "additive", "normalize": normalize}, "reverse")
    assert exact < 0.3 and aligned < 0.5


def test_without_learning_it_looks_anywhere() -> None:
    exact, aligned = learn({"score": "additive"}, "copy", updates=1)
    assert exact == 0.0 and aligned < 0.5


# ---- the recipes ------------------------------------------------------------------------------------


def small(task: str) -> list[str]:
    """A recipe of a task in seconds."""
    corpora = (("train", 300), ("dev", 20), ("test", 30))
    return [
        *(f"data.{role}={{task: {task}, symbols: 8, lengths: [2, 4], count: {n}}}" for role, n in corpora),
        "training={max_steps: 30, validate_every: 10, learning_rate: 0.02, metric: wer, metrics: exact}",
        "model.encoder.size=8",
        "model.decoder.size=16",
    ]


@pytest.mark.parametrize("task", ORDERS)
def test_a_task_has_a_recipe(task: str) -> None:
    recipe = read(f"{task}_additive")
    corpora = (*recipe.data.train, recipe.data.dev, recipe.data.test)
    assert all(isinstance(corpus, TaskCorpus) and corpus.task == task for corpus in corpora)
    decoder = recipe.model.decoder
    assert isinstance(decoder, RecurrentDecoderRecipe) and decoder.attention
    assert decoder.attention.score.name == "additive"
    assert recipe.training.metric == "exact" and recipe.text.models == ("word", "word")


def test_a_run_is_measured_as_its_recipe_says(tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = seq2attn.runs.training_run.train(
        "copy_additive", run, small("copy"), display=tiny_runs.silent()
    )
    assert [score.name for score in trained.scores] == ["exact"]
    validated = [record for record in tiny_runs.log(run) if "norm" not in record and "exact" in record]
    assert len(validated) == 3 and not any({"bleu", "chrf"} & record.keys() for record in validated)
    best = min(
        validated, key=lambda record: (record["wer"], record["loss"])
    )  # the least errors, not the most
    assert json.loads((run / "version.json").read_text())["best"] == f"step-{best['step']:08d}.safetensors"

    def said(*options: str) -> list[str]:
        result = CliRunner().invoke(cli, ["score", str(run), *options], catch_exceptions=False)
        return [line.split(" = ")[0] for line in result.stdout.splitlines() if " = " in line]

    assert said() == ["exact"]
    assert said("--metric", "wer", "--metric", "bleu", "--data", "dev") == ["WER", "BLEU"]


def test_each_side_has_its_own_model(tmp_path: Path) -> None:

    collate_words = {"de": "d ɛ", "des": "d ɛ", "ma": "m a", "mare": "m aː ʁ", "arme": "aː ʁ m"}
    table = tmp_path / "g2p.tsv"
    table.write_text(
        "".join(f"{word}\t{sounds}\n" for word, sounds in collate_words.items()), encoding="utf-8"
    )
    corpora = [f"data.{role}={{table: {table}}}" for role in ("train", "dev", "test")]
    overrides = [*corpora, "training={max_steps: 2}", "decoding.max_length=4", "data.languages=[fr, ipa]"]
    overrides.append("text={model: [char, word], size: 40, byte_fallback: false, nfkc: false}")
    seq2attn.runs.training_run.train("copy_additive", tmp_path / "run", overrides, display=tiny_runs.silent())
    translator = load(tmp_path / "run")
    assert translator.source.split("mare").pieces == ["▁", "m", "a", "r", "e"]
    assert translator.target.split("m aː ʁ").pieces == ["▁m", "▁aː", "▁ʁ"]
    assert translator.align("mare", "m aː ʁ").words == ["m", "aː", "ʁ"]


# ---- SCAN -------------------------------------------------------------------------------------------


def test_scan_becomes_tables(tmp_path: Path) -> None:
    folder = tmp_path / "SCAN-master" / "simple_split"
    folder.mkdir(parents=True)
    for split, count in (("train", 70), ("test", 3)):
        lines = [f"IN: {split} {n} twice OUT: I_RUN I_RUN\n" for n in range(count)]
        (folder / f"tasks_{split}_simple.txt").write_text("".join(lines))
    archive = tmp_path / "scan.tar.xz"
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(folder.parent, "SCAN-master")
    script = Path(__file__).parents[1] / "scripts" / "make_scan.py"

    def made(archive: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), str(archive), str(tmp_path / "scan_simple")]
        return subprocess.run(command, capture_output=True, text=True)

    assert made(archive).returncode == 0
    tables = {path.stem: path.read_text().splitlines() for path in (tmp_path / "scan_simple").iterdir()}
    assert {name: len(lines) for name, lines in tables.items()} == {"train": 67, "dev": 3, "test": 3}
    assert tables["dev"] == [f"train {n} twice\tI_RUN I_RUN" for n in (0, 32, 64)]
    assert not {*tables["dev"]} & {*tables["train"]}
    with tarfile.open(archive, "w:xz"):
        pass
    assert "expected the file simple_split/tasks_train_simple.txt in it, got none" in made(archive).stderr


# ---- words and labels -------------------------------------------------------------------------------


def labelling(folder: Path, conll: str, **sections: Any) -> TaggingRecipe:
    """A recipe that tags the words of one file, tiny.conll."""
    (folder / "tiny.conll").write_text(conll, encoding="utf-8")
    corpus = {"conll": str(folder / "tiny.conll")}
    return TaggingRecipe.model_validate(
        {
            "task": "tagging",
            "data": {"train": corpus, "dev": corpus},
            "training": {"max_steps": 1},
            **sections,
        }
    )


def test_a_file_without_words_is_named(tmp_path: Path) -> None:
    message = f"{tmp_path}/tiny.conll: no words to learn from: data.train has no sentence"
    with pytest.raises(WordVocabularyError, match=re.escape(message)):
        TaggingTask.learn(labelling(tmp_path, "\n"))


def test_vectors_of_another_width_say_which_to_set(tmp_path: Path) -> None:
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("Bo 1 2 3\n", encoding="utf-8")
    recipe = labelling(
        tmp_path, "Bo B-PER\n", text={"vectors": str(vectors)}, model={"embedding": {"size": 7}}
    )
    message = f"{vectors}: its vectors have 3 values, and word embeddings 7: set model.embedding.size to 3"
    with pytest.raises(Seq2attnError, match=re.escape(message)):
        TaggingTask.learn(recipe).build()


def test_training_reads_the_words_that_people_read_afterwards(tmp_path: Path) -> None:
    """Whichever way the recipe cuts a text: a model would be asked about words it has never seen."""
    (tmp_path / "a.tsv").write_text("It's a test.\tham\nIs it?\tspam\n", encoding="utf-8")
    recipe = tmp_path / "words.yaml"
    recipe.write_text(
        "task: classification\n"
        "data: {train: {table: a.tsv, columns: [0, 1]}, dev: {table: a.tsv, columns: [0, 1]}}\n"
        "model: {embedding: {size: 5, characters: null}, encoder: {kind: recurrent, size: 3}}\n"
        "training: {max_steps: 1, validate_every: 1}\n",
        encoding="utf-8",
    )
    for words, cut in (("spaces", "It's a test."), ("auto", "It 's a test .")):
        run = seq2attn.runs.training_run.train(
            recipe, tmp_path / words, [f"text.words={words}"], display=tiny_runs.silent()
        ).run
        task, model = reopen(RunFolder.open(run)), load(run)
        examples = task.examples("train")
        assert examples.source_text(0) == cut == model.example_text("It's a test.")
        assert [word.text for word in model.classify("It's a test.").words] == cut.split()
        assert 1 not in examples.source(0)  # all are in the lexicon
