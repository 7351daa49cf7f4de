"""Data given in Python train as the same data in a file do, and are the same corpus whenever they are given."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import tiny_runs

import seq2attn
from seq2attn.data import DataError, Report, pairs
from seq2attn.recipe import RecipeError, read
from seq2attn.runs.evaluation import score_run
from seq2attn.runs.recipe_argument import recipe_of
from seq2attn.runs.training_run import Trained, average_run
from seq2attn.training.run_folder import RunError, RunFolder

END = {"max_steps": 2, "validate_every": 2}
RECURRENT = {"kind": "recurrent", "embedding": 6, "size": 6}
RECIPES: dict[str, dict[str, Any]] = {  # without corpora
    "translation": {
        "data": {"languages": ["de", "en"]},
        "text": {"files": [f"{tiny_runs.MODEL}/text/{side}.model" for side in ("source", "target")]},
        "model": {"encoder": RECURRENT, "decoder": {**RECURRENT, "order": "cho"}},
        "training": {**END, "keep_last": 2, "metric": "exact", "metrics": ["exact"]},
        "decoding": {"max_length": 5},
    },
    "tagging": {"task": "tagging", "training": {**END, "metric": "f1"}},
    "classification": {"task": "classification", "training": {**END, "metric": "accuracy"}},
}
PAIRS = [(f"Guten Tag {n}!", f"Good day {n}!") for n in range(40)]
TAGGED = [(["EU", "rejects", "Berlin"], ["B-ORG", "O", "B-LOC"]), (["Bo", "Li"], ["B-PER", "I-PER"])]
LABELLED = [("I won't.", "en"), ("Ich will.", "de"), ("", "de")]
ROWS: dict[str, list[Any]] = {"translation": PAIRS, "tagging": TAGGED, "classification": LABELLED}

pytestmark = pytest.mark.usefixtures("own_cache")


def train(run: Path, recipe: Any = RECIPES["translation"], **options: Any) -> Trained:
    return seq2attn.train(recipe, run, device="cpu", display=tiny_runs.silent(), **options)


def given(task: str, rows: Any) -> tuple[list[Any], list[tuple[str, ...]]]:
    """The rows of the table of given data, and the pairs that a run reads from it."""
    recipe = recipe_of(RECIPES[task], data={"train": rows, "dev": ROWS[task]})
    (corpus,) = recipe.data.train
    lines = Path(corpus.table).read_text(encoding="utf-8").splitlines()
    found = pairs(corpus, recipe.data.languages, Report(), scheme=recipe.data.tag_scheme)
    return [json.loads(line) for line in lines], [(p.source, p.target, *p.references) for p in found]


def dataset(rows: list[dict[str, Any]], **features: Any) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows, features=datasets.Features(features) if features else None)


# ---- forms -------------------------------------------------------------------------------------------

DICTS = [{"id": n, "de": source, "en": target} for n, (source, target) in enumerate(PAIRS)]
NESTED = [{"translation": {"de": source, "en": target}} for source, target in PAIRS]
FORMS: dict[str, Callable[[], Any]] = {
    "pairs": lambda: PAIRS,
    "lists": lambda: [list(pair) for pair in PAIRS],
    "generator": lambda: (pair for pair in PAIRS),
    "columns of numpy": lambda: zip(*np.array(PAIRS).T, strict=True),
    "numpy": lambda: np.array(PAIRS),
    "source and target": lambda: [{"source": s, "target": t} for s, t in PAIRS],
    "languages": lambda: DICTS,
    "nested": lambda: iter(NESTED),
    "dataset": lambda: dataset(DICTS),
    "nested dataset": lambda: dataset(NESTED, translation=datasets.Translation(["de", "en"])),
    "stream": lambda: dataset(DICTS).to_iterable_dataset(),
    "stream without features": lambda: datasets.IterableDataset.from_generator(lambda: iter(NESTED)),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_one_corpus(form: str) -> None:
    lines, found = given("translation", FORMS[form]())
    assert found == PAIRS
    assert lines == [{"source": source, "target": target} for source, target in PAIRS]
    tables = {
        recipe_of(RECIPES["translation"], data={"train": r(), "dev": PAIRS}).data.train[0].table
        for r in (FORMS[form], FORMS["pairs"])
    }
    assert len(tables) == 1


def test_references_and_turns_are_those_of_a_table() -> None:
    rows = [(["Hi.\n", "Oh?"], ("a", "b")), {"source": "x\r\ny", "target": ["c"]}, ("", "")]
    lines, found = given("translation", rows)
    assert found == [("Hi. \nOh?", "a", "b"), ("x\ny", "c"), ("", "")]
    assert lines[0] == {"source": "Hi. \nOh?", "target": ["a", "b"]}


@pytest.mark.parametrize("task", ["tagging", "classification"])
def test_labelled_rows_are_those_of_a_file(task: str, tmp_path: Path) -> None:
    columns = {"tagging": ("tokens", "tags"), "classification": ("text", "label")}[task]
    table = [dict(zip(columns, row, strict=True)) for row in ROWS[task]]
    (tmp_path / "x.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in table), encoding="utf-8")
    corpus = {"table": tmp_path / "x.jsonl"}
    recipe = recipe_of(RECIPES[task], data={"train": corpus, "dev": ROWS[task]})
    scheme = recipe.data.tag_scheme
    of_file = [pair[:2] for pair in pairs(recipe.data.train[0], ("", ""), Report(), scheme=scheme)]
    for rows in (ROWS[task], table, dataset(table), (row for row in table)):
        assert given(task, rows)[1] == of_file


def test_class_labels_have_their_names() -> None:
    label = datasets.ClassLabel(names=["de", "en"])
    text = datasets.Value("string")
    rows = [{"text": text, "label": ["de", "en"].index(name)} for text, name in LABELLED]
    assert given("classification", dataset(rows, text=text, label=label)) == given("classification", LABELLED)
    names = ["O", "B-ORG", "B-LOC", "B-PER", "I-PER"]
    numbered = [
        {"words": words, "ner_tags": list(map(names.index, tags)), "tokens": words} for words, tags in TAGGED
    ]
    features = {"words": datasets.List(text), "ner_tags": datasets.List(datasets.ClassLabel(names=names))}
    rows = dataset(numbered, tokens=datasets.List(text), **features)
    assert given("tagging", rows) == given("tagging", TAGGED)
    numbers = [("a", np.int64(3)), (("b", "c"), True)]
    assert given("classification", numbers)[1] == [("a", "3"), ("b c", "true")]


# ---- what is no data ---------------------------------------------------------------------------------

GOOD = ("a", "b")
FAULTS: list[tuple[str, Any, str]] = [
    ("translation", [GOOD, ("a", None)], r'data\["train"\]:1: target is null where a text'),
    ("translation", [GOOD, (3, "b")], r":1: source is 3 where a text"),
    (
        "translation",
        [GOOD, ("a", "b", "c")],
        r":1: expected a pair \(source, target\), or a dict, got 3 values",
    ),
    ("translation", [GOOD, "ab"], r":1: expected a pair .*, got 'ab'"),
    ("translation", [GOOD, ("a", [])], r":1: target is an empty list"),
    ("translation", [GOOD, ("a\ud800", "b")], r":1: source has half a surrogate pair"),
    ("translation", [{"de": "a", "en": "b"}, {"de": "a"}], r":1: no column en; there are: de"),
    (
        "translation",
        [{"src": "a", "x": {"y": "b"}}],
        r"de and en, or translation\.de .*; there are: src, x\.y",
    ),
    (
        "translation",
        dataset([{"a": "b", "c": "d"}]),
        r"there are: a, c\. .*rename_columns\(\{'\.\.\.': 'de', '",
    ),
    ("translation", [], r'data\["train"\] is empty'),
    ("translation", dataset([]), r'data\["train"\] is empty'),
    ("translation", {GOOD}, r'data\["train"\]: expected a list or an iterator'),
    ("translation", 5, r'data\["train"\]: expected a list or an iterator'),
    ("tagging", [*TAGGED, (["a"], ["O", "O"])], r":2: 1 words and 2 tags"),
    (
        "tagging",
        [*TAGGED, (["O"], ["the"])],
        r":2: word 1, 'O', has 'the'.*is the order of words and tags right",
    ),
    ("tagging", [*TAGGED, (["a"], ["O\ud800"])], r":2: tags has half a surrogate"),
    ("classification", [*LABELLED, ("a", "")], r":3: label has an empty text"),
    ("classification", [*LABELLED, ("a", None)], r":3: label is null where a label"),
    ("classification", [*LABELLED, ("a", ["x", "y"])], r":3: label is .* where one label was expected"),
]


@pytest.mark.parametrize(("task", "rows", "message"), FAULTS, ids=[message for *_, message in FAULTS])
def test_faults_name_the_row(task: str, rows: Any, message: str, own_cache: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        recipe_of(RECIPES[task], data={"train": rows, "dev": ROWS[task]})
    assert "bad_lines" not in str(caught.value)  # which is for files
    assert not list(own_cache.glob("given/*"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PAIRS, r'data: expected a dict .* as in \{"train": pairs\[:-500\], "dev".*; got a list'),
        ({"train": PAIRS, "validation": PAIRS}, r"data: unknown 'validation' \(did you mean dev\?"),
        ({"train": PAIRS}, r"data: missing key 'dev'"),
        (
            {"train": PAIRS, "dev": None},
            "^data: expected rows or a corpus as dev, got None; only test may be None$",
        ),
        ({"train": 3, "dev": PAIRS}, r'^data\["train"\]: expected a list'),
        ({"train": "x.tsv", "dev": PAIRS}, r"^data: data\.train: .*did you mean \{table: x\.tsv\}"),
        ({"train": {"table": "none.tsv"}, "dev": PAIRS}, r"^data: data\.train\.table: no such file"),
    ],
)
def test_data_are_by_their_use(data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises((DataError, RecipeError), match=message):
        train(tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()


def test_faults_of_a_recipe_come_before_any_row_is_read() -> None:
    rows = iter(PAIRS)
    with pytest.raises(RecipeError, match=r"^overrides: training\.max_step: unknown key 'max_step'"):
        recipe_of(RECIPES["translation"], {"training.max_step": 3}, {"train": rows, "dev": PAIRS})
    assert next(rows) == PAIRS[0]


def test_columns_of_one_language_are_named_by_their_side() -> None:
    """No two columns can have one name."""
    recipe = {"data.languages": ["letters", "letters"]}
    rows = [{"source": "a", "target": "b"}]
    (corpus,) = recipe_of(RECIPES["translation"], recipe, {"train": rows, "dev": PAIRS}).data.train
    assert corpus.columns == ("source", "target")
    expected = r"expected rows with source and target; .*\(\{'\.\.\.': 'source', '\.\.\.': 'target'\}\)"
    with pytest.raises(DataError, match=expected):
        recipe_of(RECIPES["translation"], recipe, {"train": [{"letters": "a"}], "dev": PAIRS})


def test_what_a_generator_raises_goes_through(own_cache: Path) -> None:
    def rows() -> Any:
        yield GOOD
        raise OSError("no network")

    with pytest.raises(OSError, match=r"^no network$"):
        recipe_of(RECIPES["translation"], data={"train": rows(), "dev": PAIRS})
    assert not list(own_cache.glob("given/*"))


# ---- in recipes --------------------------------------------------------------------------------------


def test_the_recipe_keeps_what_is_not_given(tmp_path: Path) -> None:
    shipped = read("quickstart")
    found = recipe_of("quickstart", {"data.train.limit": 3}, {"train": PAIRS})
    assert found.data.train[0].limit == 3 and found.data.train[0].columns == ("source", "target")
    assert (found.data.dev, found.data.test, found.model) == (
        shipped.data.dev,
        shipped.data.test,
        shipped.model,
    )
    assert recipe_of("quickstart", data={"test": None}).data.test is None
    assert (
        recipe_of(shipped, data={"train": PAIRS, "dev": shipped.data.dev}).data
        == recipe_of("quickstart", data={"train": PAIRS}).data
    )
    assert recipe_of(shipped) is shipped and recipe_of(shipped, data={}) is shipped


def test_a_table_stays_until_it_is_damaged(own_cache: Path) -> None:
    """Its date is part of the name of the tokenised store, which would be made again."""
    table = Path(recipe_of(RECIPES["translation"], data={"train": PAIRS, "dev": PAIRS}).data.dev.table)
    assert [*own_cache.glob("given/*")] == [table]
    first, content = table.stat(), table.read_bytes()
    given("translation", PAIRS)
    assert (table.stat().st_ino, table.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    table.write_bytes(content[:-3])
    given("translation", PAIRS)
    assert table.read_bytes() == content


def test_a_run_trains_resumes_averages_and_scores(tmp_path: Path, own_cache: Path) -> None:
    run = tmp_path / "run"
    data = {"train": iter(PAIRS), "dev": PAIRS[:4], "test": PAIRS[4:8]}
    assert train(run, data=data).scores
    (tmp_path / "x.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in PAIRS), encoding="utf-8")
    file = train(tmp_path / "file", data={"train": {"table": tmp_path / "x.tsv"}, "dev": PAIRS[:4]}).run
    assert tiny_runs.weights_hash(run) == tiny_runs.weights_hash(file)
    assert RunFolder.open(run).version.data == RunFolder.open(file).version.data
    (corpus,) = RunFolder.open(run).recipe.data.train
    assert (
        Path(corpus.table).parent == own_cache / "given" and corpus.table in (run / "recipe.yaml").read_text()
    )

    more = {"overrides": {"training.max_steps": 4}, "resume": True}
    with pytest.raises(RunError, match=r"begun with another recipe: data\.train\.0\.table was"):
        train(run, data={**data, "train": PAIRS[:-1]}, **more)
    assert train(run, data={**data, "train": iter(PAIRS)}, **more).progress.step == 4
    assert average_run(run, 2, "cpu").version.average
    assert score_run(run, device="cpu").evaluation.scores
    again = train(run, run / "recipe.yaml", overrides={"training.max_steps": 5}, resume=True)
    assert again.progress.step == 5


@pytest.mark.parametrize("task", ["tagging", "classification"])
def test_labelled_data_train(task: str, tmp_path: Path) -> None:
    small = {"model.encoder": {"kind": "recurrent", "size": 4}, "model.embedding.size": 4}
    trained = train(
        tmp_path / "run", RECIPES[task], overrides=small, data=dict.fromkeys(("train", "dev"), ROWS[task])
    )
    assert trained.progress.step == 2
