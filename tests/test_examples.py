"""Examples: tokenized, filtered, truncated, cached on disk."""

import json
import os
from itertools import islice

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_corpora import SAMPLE, SENTENCES, recipe, table, write

from seq2attn.data import DataError, Report, pairs, prepare, training_text
from seq2attn.data.batches import BatchLoader
from seq2attn.data.sources import PairTokenizer
from seq2attn.recipe import SamplingRecipe, TaggedDataRecipe
from seq2attn.recipe.labelled_data import CategorizedDataRecipe
from seq2attn.text.word_vocabulary import Labels, WordVocabulary

pytestmark = pytest.mark.usefixtures("own_cache")


def test_examples_are_the_encoded_pairs(vocabularies):
    data = recipe(SAMPLE | {"limit": 2500})
    examples = prepare(data.train, data, vocabularies, "train")
    found = list(islice(pairs(data.train[0], data.languages, Report()), 2500))
    assert len(examples) == 2500 == examples.report.read == examples.report.kept
    for number in (0, 999, 1000, 2499):
        assert examples.source_text(number) == found[number].source
        assert examples.target_text(number) == found[number].target
        assert examples.source(number).tolist() == vocabularies[0].encode([found[number].source])[0]
        assert examples.target(number).tolist() == vocabularies[1].encode([found[number].target])[0]
    assert (
        examples.source_lengths.dtype == examples.target_lengths.dtype == examples.source(0).dtype == np.int32
    )
    assert examples.source_lengths.tolist() == [len(examples.source(number)) for number in range(2500)]
    assert examples.target_lengths.tolist() == [len(examples.target(number)) for number in range(2500)]
    assert not examples.source(0).flags.owndata  # read where it lies
    for number in (-1, 2500):
        with pytest.raises(IndexError, match=f"example {number} of 2500"):
            examples.source(number)


def test_filters_count_what_they_leave_out(tmp_path, vocabularies):
    long = "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 2
    rows = [
        ("Es regnet.", "It's raining."),
        ("Es regnet.", ""),  # 2
        ("\u200b", "It's raining."),  # 3
        ("Es regnet.", "It's raining."),  # 4
        ("Es regnet.", "It is raining."),
        (long, long),  # 6
        ("a b c d e f g h i j k", "No."),  # 7
        ("d", "No."),  # 8
    ]
    corpus = table(tmp_path / "x.tsv", rows)
    limits = {"min_length": 3, "max_length": 50, "max_ratio": 5}
    data = recipe(corpus, filter=limits)
    examples = prepare(data.train, data, vocabularies, "train")
    assert [examples.target_text(number) for number in range(len(examples))] == [
        "It's raining.",
        "It is raining.",
    ]
    lines = {
        reason: [int(example.split(":")[1]) for example in entry.examples]
        for reason, entry in examples.report.reasons.items()
    }
    assert lines == {
        "empty": [2, 3],
        "duplicate": [4],
        "too long": [6],
        "length ratio": [7],
        "too short": [8],
    }
    assert (examples.report.read, examples.report.kept) == (8, 2)
    data = recipe(corpus, filter={"duplicates": True})
    assert len(prepare(data.train, data, vocabularies, "train")) == 6


def test_what_is_measured_on_stays_as_it_is(tmp_path, vocabularies):
    rows = [("Es regnet.", "It's raining.")] * 2 + [("", "Nothing."), ("x " * 300, "x")]
    data = recipe(SAMPLE, dev=table(tmp_path / "x.tsv", rows), filter={"max_length": 50})
    examples = prepare([data.dev], data, vocabularies, "dev")
    assert [examples.target_text(number) for number in range(4)] == [target for _, target in rows]
    assert examples.source(2).tolist() == []
    assert examples.report.reasons["empty, but kept"].count == 1


@pytest.mark.parametrize("role", ["train", "dev"])
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(
    ("window", "ends"), [(7, [True, False]), ({"head": 4, "tail": 3}, [True, True]), (None, [True, True])]
)
def test_the_end_of_a_target_that_was_cut_off_is_not_learnt(
    tmp_path, vocabularies, role, sampled, window, ends
):
    corpus = table(tmp_path / "x.tsv", [("Ja.", "Yes."), ("Ja.", "It's raining cats and dogs in London.")])
    data = recipe(corpus, dev=corpus, truncate={"target": window})
    examples = prepare([data.dev], data, vocabularies, role)
    assert [examples.ended(number) for number in range(2)] == ends
    sampling = SamplingRecipe(alpha=0.9) if sampled else None
    loader = BatchLoader(examples, PairTokenizer(*vocabularies, data.truncate), 99, sampling=sampling)
    made = loader.batch(np.arange(2), 0)
    assert (made.target == vocabularies[1].eos).any(1).tolist() == ends
    learnt = [row[mask].tolist() for row, mask in zip(made.target, made.target_mask, strict=True)]
    read = [row[mask].tolist() for row, mask in zip(made.target_input, made.target_mask, strict=True)]
    assert read == [[vocabularies[1].bos, *row[:-1]] for row in learnt]
    assert made.num_targets == sum(map(len, learnt)) and (window is None or len(learnt[1]) == 7 + ends[1])


@pytest.mark.parametrize("tagged", [False, True])
def test_labels_have_no_length_and_sentences_may_come_twice(tmp_path, tagged):
    rows = ["a b c", "a", "a b c", "d e f g h", "a b c d"]
    labels = [" ".join(["B-big\u00a0name", *["O"] * row.count(" ")]) if tagged else "x" for row in rows]
    corpus = table(tmp_path / "x.tsv", zip(rows, labels, strict=True)) | {"columns": [0, 1]}
    kind, scheme = (TaggedDataRecipe, "bioes") if tagged else (CategorizedDataRecipe, None)
    coders = WordVocabulary.learn(rows), Labels.learn([*labels, "O" if tagged else "y"], scheme)

    def kept(**limits):
        data = kind.model_validate({"train": [corpus], "dev": corpus, "filter": limits})
        found = prepare(data.train, data, coders, "train")
        reasons = {reason: entry.examples for reason, entry in found.report.reasons.items()}
        return [found.source_text(number) for number in range(len(found))], reasons

    assert kept() == (rows, {})
    left, reasons = kept(min_length=2, max_length=4)
    assert left == ["a b c", "a b c", "a b c d"]
    assert reasons == {
        "too short": [f"{tmp_path}/x.tsv:2: 1 words"],
        "too long": [f"{tmp_path}/x.tsv:4: 5 words"],
    }
    assert kept(duplicates=False)[0] == [*rows[:2], *rows[3:]]
    with pytest.raises(ValidationError, match=r"max_ratio.*\n.*compares the lengths of two texts"):
        kept(max_ratio=3.0)


def test_lines_of_a_text_are_part_of_it_when_duplicates_are_found(tmp_path, vocabularies):
    rows = [{"s": "Ja.\nGut.", "t": "Yes."}, {"s": "Ja.", "t": "Gut.\nYes."}, {"s": "Ja.", "t": "Yes."}]
    path = write(tmp_path / "x.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    data = recipe({"table": path, "columns": ["s", "t"]})
    examples = prepare(data.train, data, vocabularies, "train")
    assert len(examples) == 3 and examples.report.reasons["duplicate"].count == 1


def test_nothing_left_is_an_error(tmp_path, vocabularies):
    data = recipe(table(tmp_path / "x.tsv", [("", "a"), ("b", "")]))
    with pytest.raises(DataError, match=r"no pair is left of .*x\.tsv: 2 examples read, 0 kept\n +2  empty"):
        prepare(data.train, data, vocabularies, "train")


def test_a_bad_line_stops_or_is_skipped(tmp_path, vocabularies):
    corpus = {"table": write(tmp_path / "x.tsv", b"Es regnet.\tIt's raining.\n\xff\tx\n")}
    data = recipe(corpus)
    with pytest.raises(DataError, match=r"x\.tsv:2: byte 0xff in column 1 is no UTF-8"):
        prepare(data.train, data, vocabularies, "train")
    with pytest.raises(DataError, match=r"x\.tsv:2: byte 0xff"):
        list(training_text(data))
    assert not list((tmp_path / "cache").iterdir())
    data = recipe(corpus, bad_lines="skip")
    for _ in range(2):  # from the cache, too
        report = prepare(data.train, data, vocabularies, "train").report
        assert report.reasons["broken UTF-8"].count == 1
    assert list(training_text(data)) == ["Es regnet.", "It's raining."]
    assert list(training_text(data, (1,))) == ["It's raining."]


def test_an_epoch_sees_each_corpus_as_often_as_its_weight(tmp_path, vocabularies):
    corpora = [
        table(tmp_path / f"{size}.tsv", [(f"{size} {i}", f"{i}") for i in range(size)]) | {"weight": weight}
        for size, weight in ((7, 1.0), (11, 2.5), (13, 0.25))
    ]
    data = recipe(*corpora)
    examples = prepare(data.train, data, vocabularies, "train")
    assert len(examples) == 31
    assert examples.source_text(7) == "11 0" and examples.source_text(30) == "13 12"
    seen = [np.bincount(examples.epoch(epoch, seed=5), minlength=31) for epoch in range(200)]
    for counts in seen:
        assert set(counts[:7]) == {1} and set(counts[7:18]) == {2, 3} and set(counts[18:]) == {0, 1}
        assert (counts[7:18].sum(), counts[18:].sum()) == (22 + round(5.5), round(3.25))
    shares = np.mean(seen, axis=0)
    assert np.abs(shares[7:18] - 2 - 6 / 11).max() < 0.15 and np.abs(shares[18:] - 3 / 13).max() < 0.15
    first = examples.epoch(3, seed=5)
    assert first.dtype == np.int64
    assert (first == prepare(data.train, data, vocabularies, "train").epoch(3, seed=5)).all()
    assert (first != examples.epoch(4, seed=5)).any() and (first != examples.epoch(3, seed=6)).any()


@pytest.mark.parametrize("weight", [0.05, 1e-300])
def test_a_weight_that_leaves_nothing_of_a_corpus_is_named(tmp_path, vocabularies, weight):
    pairs = [(f"Tag {i}", f"day {i}") for i in range(8)]
    first, second = (table(tmp_path / f"{name}.tsv", pairs) for name in "ab")
    data = recipe(first, second | {"weight": weight})
    with pytest.raises(DataError, match=r"^data\.train\.1\.weight: .* of 8 examples .* raise it to 0\.125"):
        prepare(data.train, data, vocabularies, "train")


# ---- the cache --------------------------------------------------------------------------------------


class Counting:
    """A vocabulary that counts what it encodes."""

    def __init__(self, vocabulary):
        self.vocabulary, self.encoded = vocabulary, 0

    def __getattr__(self, name):
        return getattr(self.vocabulary, name)

    def encode(self, texts):
        self.encoded += len(texts)
        return self.vocabulary.encode(texts)


@pytest.mark.parametrize("kind", ["sample", "parquet", "json", "hub"])
def test_a_second_start_takes_the_cache(copies, kind, vocabularies):
    corpus = SAMPLE | {"limit": 2100} if kind == "sample" else copies[kind]
    data, counting, read = recipe(corpus), tuple(map(Counting, vocabularies)), []

    def progress(report):
        read.append(report.read)

    first = prepare(data.train, data, counting, "train", progress)
    seen = list(read)
    assert seen[-1] == counting[0].encoded == len(first) and len(first) in (2100, 3)
    again = prepare(data.train, data, counting, "train", progress)
    heavier = recipe(corpus | {"weight": 3.0})
    assert len(prepare(heavier.train, heavier, counting, "train", progress).epoch(1, 1)) == 3 * len(first)
    assert read == seen and counting[0].encoded == len(again)
    assert again.fingerprint == first.fingerprint and again.report == first.report
    assert again.target(2).tolist() == first.target(2).tolist()


def test_what_changes_the_examples_changes_their_fingerprint(tmp_path, vocabularies):
    def fingerprint(role="train", given=vocabularies, **options):
        data = recipe(corpus | {"weight": options.pop("weight", 1)}, dev=corpus, **options)
        return prepare(data.train if role == "train" else [data.dev], data, given, role).fingerprint

    corpus = table(
        tmp_path / "x.tsv", [*SENTENCES, SENTENCES[0], ("Das ist ein langer Satz.", "It is long.")]
    )
    first = fingerprint()
    assert fingerprint(bad_lines="skip") == fingerprint(filter={"max_length": 199}) == first  # no difference
    others = [
        fingerprint("dev"),
        fingerprint(filter={"duplicates": True, "max_length": 9}),
        fingerprint(filter={"max_length": 10}),
        fingerprint(given=vocabularies[::-1]),
        fingerprint(weight=2),
    ]
    table(tmp_path / "x.tsv", SENTENCES[::-1])  # one line less, in another order
    others.append(fingerprint())
    os.utime(tmp_path / "x.tsv", ns=(1, 1))
    assert fingerprint() == others[-1]  # made anew, but the same
    assert len({first, *others}) == 1 + len(others)
    moved = tmp_path / "moved.tsv"
    moved.write_bytes((tmp_path / "x.tsv").read_bytes())
    corpus = {"table": str(moved)}
    assert fingerprint() == others[-1]


def test_a_damaged_or_unfinished_store_is_made_anew(own_cache, vocabularies, monkeypatch):
    data = recipe(SAMPLE | {"limit": 30})
    whole = prepare(data.train, data, vocabularies, "train").fingerprint
    (store,) = own_cache.glob("*.arrow")
    for damage in (
        lambda: store.write_bytes(store.read_bytes()[:-50]),
        lambda: store.with_suffix(".json").unlink(),
    ):
        damage()
        counting = tuple(map(Counting, vocabularies))
        assert prepare(data.train, data, counting, "train").fingerprint == whole
        assert counting[0].encoded == 30
    for path in own_cache.iterdir():
        path.unlink()

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(data.train, data, vocabularies, "train", interrupt)
    assert not list(own_cache.iterdir())


def test_progress_is_reported_also_where_nothing_is_kept(tmp_path, vocabularies):
    """Now and then: the lines that are read, and those that are left out before they make an example."""
    first, *rows = (f"{number}\tone\n" for number in range(1501))
    write(tmp_path / "x.tsv", first + "\n" * 3500 + "without a tab\n" * 4500 + "".join(rows))
    data = recipe({"table": str(tmp_path / "x.tsv")}, bad_lines="skip")
    reports = []
    prepare(data.train, data, vocabularies, "train", lambda report: reports.append(report.so_far))
    blank = [f"0 examples read, {count},000 blank line" for count in (1, 2, 3)]
    bad = [f"{count},000 wrong number of columns" for count in (1, 2, 3, 4)]
    assert reports[:3] == blank and reports[6] == f"0 examples read, {bad[3]}"
    kept = [f"{count} examples read, 4,500 wrong number of columns" for count in ("1,000", "1,501")]
    assert reports[7:] == kept
