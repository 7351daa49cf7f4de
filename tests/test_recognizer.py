"""Words in, entities and labels out: whole runs of both tasks, from the command line and from Python."""

import io
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from click.testing import CliRunner
from rich.console import Console

import seq2attn
import seq2attn.runs.training_run
from seq2attn.cli import cli
from seq2attn.data.word_batches import collate_words
from seq2attn.errors import Seq2attnError
from seq2attn.inference.label_results import Annotation
from seq2attn.inference.recognizer import Categorizer, Recognizer
from seq2attn.runs.evaluation import held_out
from seq2attn.tasks.loading import reopen
from seq2attn.text.word_vocabulary import Word
from seq2attn.training.display import Display
from seq2attn.training.run_folder import RunFolder

FIRST, LAST, PLACES = ["Anna", "Bo", "Cem", "Dora"], ["Lund", "Meyer", "Nyman"], ["Oslo", "Rome", "Kyiv"]
TAGGING = """
task: tagging
data: {train: {conll: train.conll}, dev: {conll: dev.conll}, test: {conll: dev.conll}}
model:
  embedding: {size: 16, characters: {kind: cnn, embedding: 8, size: 8}, dropout: 0.1}
  encoder: {kind: recurrent, size: 16, dropout: 0.1}
  attention: {score: scaled_dot, heads: 2, exclude_self: true}
  head: {kind: crf}
training: {optimizer: adam, learning_rate: 0.02, batch_tokens: 120, max_steps: 60, validate_every: 30,
  schedule: {name: constant, warmup: 0}}
"""


def sentences(count: int, seed: int) -> str:
    """CoNLL lines about people and places."""
    draw, text = random.Random(seed), ""
    for _ in range(count):
        person = [(draw.choice(FIRST), "B-PER"), (draw.choice(LAST), "I-PER")][: draw.randint(1, 2)]
        place = (draw.choice(PLACES), "B-LOC")
        rows = [*person, ("went", "O"), ("to", "O"), place, (".", "O")]
        text += "".join(f"{word}\t{tag}\n" for word, tag in rows) + "\n"
    return text


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt to tell people from places."""
    folder = tmp_path_factory.mktemp("tagging")
    (folder / "train.conll").write_text(sentences(120, 1), encoding="utf-8")
    (folder / "dev.conll").write_text(sentences(30, 2), encoding="utf-8")
    (folder / "people.yaml").write_text(TAGGING, encoding="utf-8")
    trained = seq2attn.runs.training_run.train(
        folder / "people.yaml", folder / "run", display=tiny_runs.silent()
    )
    assert {one.name: one.value for one in trained.scores} == {"F1": 100, "precision": 100, "recall": 100}
    return trained.run


@pytest.fixture(scope="module")
def languages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt to tell German from English."""
    small = [
        "training.batch_tokens=400",
        "data.train.limit=1000",
        "data.dev.limit=100",
        "data.test.limit=100",
        "training.max_epochs=8",
    ]
    folder = tmp_path_factory.mktemp("languages") / "run"
    trained = seq2attn.runs.training_run.train("languages", folder, small, display=tiny_runs.silent())
    assert trained.scores[0].value > 95
    return trained.run


def said(*arguments: Any, input: str | None = None) -> str:
    result = CliRunner().invoke(cli, [str(one) for one in arguments], input=input, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_types_and_words_with_spaces() -> None:
    """In files spaces separate columns; a type is as it is in the data all the same."""
    annotation = Annotation("a\tb went", [Word("a\tb", 0, 3), Word("went", 4, 8)], ["B-big name", "O"], [])
    assert str(annotation) == "B-big\u00a0name O"
    assert annotation.conll() == "a\u00a0b\tB-big\u00a0name\nwent\tO\n\n"
    assert annotation.to_json()["tags"] == ["B-big name", "O"]


def test_entities_have_their_characters_in_the_text(tagged: Path) -> None:
    model = seq2attn.load(tagged)
    assert isinstance(model, Recognizer)
    text = "  Cem Meyer went\tto Rome."
    found = model.tag(text)
    assert [(one.type, one.text) for one in found.entities] == [("PER", "Cem Meyer"), ("LOC", "Rome")]
    assert all(text[one.start : one.end] == one.text for one in found.entities)
    assert all(0.9 < one.probability <= 1 for one in found.entities)
    assert str(found) == "B-PER I-PER O O B-LOC O"
    assert found.conll() == "Cem\tB-PER\nMeyer\tI-PER\nwent\tO\nto\tO\nRome\tB-LOC\n.\tO\n\n"
    assert found.weights.shape == (6, 6) and not found.weights.diagonal().any()  # no word looks at itself
    assert torch.allclose(found.weights.sum(-1), torch.ones(6))
    assert json.loads(json.dumps(found.to_json()))["entities"][0]["start"] == 2


def test_batch_mates_change_nothing(tagged: Path) -> None:
    model = seq2attn.load(tagged)
    texts = ["Bo went to Oslo .", "", "Anna", "Dora Lund went to Kyiv to Rome to Oslo with Bo Meyer ."]
    together = model.tag([*texts, *texts[::-1]])
    for text, found, again in zip(texts, together, together[::-1], strict=False):
        alone = model.tag(text)
        assert str(found) == str(again) == str(alone)
        assert [one[:4] for one in found.entities] == [one[:4] for one in alone.entities]
        ours, theirs = ([one.probability for one in some.entities] for some in (found, alone))
        assert ours == pytest.approx(theirs, abs=1e-5)
        torch.testing.assert_close(found.weights, alone.weights)


def test_words_that_are_given_stay_as_they_are(tagged: Path) -> None:
    model = seq2attn.load(tagged)
    (found,) = model.tag([["Bo", "went", "to", "Oslo."]])
    assert [word.text for word in found.words] == ["Bo", "went", "to", "Oslo."]
    assert found.text == "Bo went to Oslo." and found.entities[0].end == 2
    with pytest.raises(Seq2attnError, match="expected a text or a list of words"):
        model.tag([["Bo", " "]])
    (found,) = model.tag([["\u00a0", "Bo"]])  # a no-break space is part of a word, and may be one
    assert [word.text for word in found.words] == ["\u00a0", "Bo"]


NO_TEXTS: list[tuple[Any, str]] = [
    (None, "None"), (5, "5"), (b"EU", "b'EU'"), ({"a": 1}, "{'a': 1}"), (["a", None], "None at texts[1]"),
    (["a", ["a", 3]], "3 at texts[1][1]"), ([b"a"], "b'a' at texts[0]"), ([{"a": 1}], "{'a': 1} at texts[0]"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "came"), NO_TEXTS, ids=[came for _, came in NO_TEXTS])
def test_what_is_no_text_is_refused(tagged: Path, languages: Path, wrong: Any, came: str) -> None:
    for predictor in (seq2attn.load(tagged).tag, seq2attn.load(languages).classify):
        with pytest.raises(Seq2attnError) as caught:
            predictor(wrong)
        assert str(caught.value) == f"expected a text or a list of texts (str, or lists of words), got {came}"


def test_what_another_task_does_is_refused_by_what_this_one_does(tagged: Path, languages: Path) -> None:
    for run, task, own in ((tagged, "tagging", "tag"), (languages, "classification", "classify")):
        model = seq2attn.load(run)
        for method in {"translate", "summarize", "tag", "classify"} - {own}:
            expected = f"this model was trained for {task}, not to {method}: use its method {own}"
            with pytest.raises(AttributeError, match=expected):
                getattr(model, method)
        with pytest.raises(
            Seq2attnError, match=f"trained for {task}, not to translate: use its method {own}"
        ):
            seq2attn.translate("Ja.", model)


def test_words_of_a_found_span_look_where_the_span_did(tagged: Path, tmp_path: Path) -> None:
    settings = ["model.head={kind: spans, width: 3}", "model.attention=null", "training.max_steps=80"]
    trained = seq2attn.runs.training_run.train(
        tagged.parent / "people.yaml", tmp_path / "run", settings, display=tiny_runs.silent()
    )
    found = trained.model.tag("Cem Meyer went to Rome .")
    assert str(found) == "B-PER I-PER O O B-LOC O"
    rows = found.weights
    assert rows.shape == (6, 6) and torch.equal(rows[0], rows[1]) and not rows[2:4].any()
    assert rows[0, :2].sum() == pytest.approx(1) and rows[4].tolist() == [0, 0, 0, 0, 1, 0]


def test_the_command_prints_spans_columns_and_json(tagged: Path) -> None:
    text = "Bo went to Oslo.\n\nAnna Nyman went to Rome .\n"
    rows = [line.split("\t") for line in said("tag", tagged, "-", input=text).splitlines()]
    assert [(row[:4], row[5]) for row in rows] == [
        (["1", "0", "2", "PER"], "Bo"),
        (["1", "11", "15", "LOC"], "Oslo"),
        (["3", "0", "10", "PER"], "Anna Nyman"),
        (["3", "19", "23", "LOC"], "Rome"),
    ]
    marked = b"\xef\xbb\xbfBo went\n".decode()  # by a byte order mark, which is no part of the first word
    assert said("tag", tagged, "-", "--format", "conll", input=marked) == "Bo\tB-PER\nwent\tO\n\n"
    entry = json.loads(said("tag", tagged, "-", "--format", "json", "--words", input="Bo, Lund\n"))
    assert entry["words"] == ["Bo,", "Lund"]


def test_lines_are_numbered_by_file(tagged: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one.txt", "two.txt")]
    files[0].write_text("went\nCem\tMeyer went\n", "utf-8")  # a tab is no column of its own
    files[1].write_text("\ufeffBo went\n", "utf-8")
    rows = [line.split("\t") for line in said("tag", tagged, *files).splitlines()]
    assert [row[:4] + row[5:] for row in rows] == [
        [f"{files[0]}:2", "0", "9", "PER", "Cem Meyer"],
        [f"{files[1]}:1", "0", "2", "PER", "Bo"],
    ]
    assert said("tag", tagged, files[1]).startswith("1\t0\t2\tPER\t")


def test_a_conll_file_is_tagged_again(tagged: Path, tmp_path: Path) -> None:
    """Its words stay as they are, and its lines have a column more."""
    one, two = tmp_path / "one.conll", tmp_path / "two.conll"
    one.write_text("Bo\tNNP\twrong\nwent\tVBD\tO\n\n\nwent\tVBD\tO\n", "utf-8")
    two.write_text("Rome NNP\n. .\n\n", "utf-8")
    assert said("tag", tagged, "--conll", one, two) == (
        "Bo\tNNP\twrong\tB-PER\nwent\tVBD\tO\tO\n\n\nwent\tVBD\tO\tO\n\nRome NNP B-LOC\n. . O\n\n"
    )
    one.write_text(
        "# of 2\n-DOCSTART- -X- O\n\n \n# id = 1\nBo NNP\n# NN\n\n\n# 2\tx y\n# NN\n-DOCSTART- -X-\nBo\tNNP"
    )
    assert said("tag", tagged, "--conll", one) == (
        "# of 2\n-DOCSTART- -X- O\n\n \n# id = 1\nBo NNP B-PER\n# NN O\n\n\n# 2\tx y\n# NN O\n-DOCSTART- -X-\nBo\tNNP\tB-PER\n\n"
    )
    result = CliRunner().invoke(cli, ["tag", str(tagged), "--conll", "--format", "json", str(one)])
    assert result.exit_code == 2 and "leave out --words and --format" in result.output


def test_scores_are_those_of_training(tagged: Path) -> None:
    printed = said("score", tagged)
    lines = printed.splitlines()
    assert lines[:3] == [f"{name} = 100.0 [100.0, 100.0]" for name in ("F1", "precision", "recall")]
    assert lines[3].startswith(
        "F1, precision, recall |nrefs:1|bs:1000|seed:12345|ci:percentile|case:mixed|unit:entity|"
    )
    assert lines[4].startswith("processed ") and lines[-1].startswith("recipe:people|checkpoint:best|seed:1|")
    counts = {kind: len(re.findall(f"\tB-{kind}\n", sentences(30, 2))) for kind in ("LOC", "PER")}
    perfect = "precision: 100.00%; recall: 100.00%; FB1: 100.00"
    assert lines[6:-1] == [f"{kind:>17}: {perfect}  {count}" for kind, count in counts.items()]
    entities = json.loads(said("score", tagged, "--format", "json"))["entities"]
    assert {kind: one["gold"] for kind, one in entities["types"].items()} == counts
    assert entities["overall"]["f1"] == 100 and entities["tokens"] == sentences(30, 2).count("\t")
    assert len(said("score", tagged, "--metric", "tag-accuracy").splitlines()) == 2  # it has no types
    model = seq2attn.load(tagged)
    task = reopen(RunFolder.open(tagged))
    evaluation = task.evaluate(model, held_out(task, "test"), ["tag-accuracy"])
    assert [(name, one.value) for name, one in evaluation.scores.items()] == [("tag-accuracy", 100.0)]
    with pytest.raises(Seq2attnError, match="beam: only for models that write text"):
        said("score", tagged, "--beam", "3")
    with pytest.raises(Seq2attnError) as caught:
        said("score", tagged, "--metric", "bleu")
    assert str(caught.value) == (
        f"bleu is a metric of texts; {tagged} was trained for tagging: use one of f1, precision, recall, tag-accuracy"
    )


def test_files_are_scored_if_each_word_has_a_tag(tagged: Path, languages: Path, tmp_path: Path) -> None:
    for name, text in (("in", "Bo  went to Oslo\n"), ("tags", "B-PER O O B-LOC\n"), ("raw", "Wo ist er?\n")):
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "label").write_text("de\n", "utf-8")
    files = ["--source", tmp_path / "in", "--references"]
    assert said("score", tagged, *files, tmp_path / "tags").startswith("F1 = 100.0\n")
    raw = ["--source", tmp_path / "raw", "--references", tmp_path / "label", "--metric", "accuracy"]
    assert said("score", languages, *raw).startswith("accuracy = 100.0 |")
    (tmp_path / "conll").write_text("Bo B-PER\n", "utf-8")
    with pytest.raises(Seq2attnError) as caught:
        said("score", tagged, *files, tmp_path / "conll")
    assert str(caught.value).startswith(
        f"{tmp_path}/conll:1: expected a tag for each of the 4 words in {tmp_path}/in:1, got 2: a line has the words"
    )


def test_weights_are_the_mean_of_the_heads(tagged: Path) -> None:
    model, text = seq2attn.load(tagged), "Bo went to Oslo ."
    found = model.tag(text)
    rows = [text.split()]
    with torch.no_grad():
        answer = model.model(
            collate_words(rows, model.word_vocabulary.encode([text]), model.word_vocabulary),
            need_weights=True,
        )
    assert answer.weights.shape == (1, 2, 5, 5)
    torch.testing.assert_close(found.weights, answer.weights[0].mean(0))
    assert not torch.allclose(answer.weights[0, 0], answer.weights[0, 1], atol=0.01)


def test_lines_are_numbered_on_in_every_chunk(tagged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seq2attn.inference.recognizer.CHUNK", 2)
    rows = said("tag", tagged, "-", input="Bo went\n\nwent\nCem went\nAnna went\n").splitlines()
    assert [row.split("\t")[0] for row in rows] == ["1", "4", "5"]


def test_a_label_of_dev_alone_is_a_label_and_words_are_cut_as_the_recipe_says(
    tagged: Path, tmp_path: Path
) -> None:
    (tmp_path / "dev.conll").write_text("Bo\tB-ORG\nwent\tO\n\n", "utf-8")
    settings = [f"data.dev={{conll: {tmp_path}/dev.conll}}", "text.words=spaces", "training.max_steps=1"]
    recipe = tagged.parent / "people.yaml"
    model = seq2attn.runs.training_run.train(
        recipe, tmp_path / "run", settings, display=tiny_runs.silent()
    ).model
    assert {name.partition("-")[2] for name in model.labels.names} == {"", "LOC", "ORG", "PER"}
    for predictor in (model, seq2attn.load(tmp_path / "run")):
        assert [word.text for word in predictor.tag("Bo, went.").words] == ["Bo,", "went."]
    assert [word.text for word in seq2attn.load(tagged).tag("Bo, went.").words] == ["Bo", ",", "went", "."]


def test_types_may_have_a_space(tmp_path: Path) -> None:
    """From the data to the scores; a no-break space in a file parts nothing."""
    rows = [{"tokens": ["Bo", "Ek", "went"], "tags": ["B-big name", "I-big name", "O"]}] * 20
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    corpus = "{table: x.jsonl}"
    text = re.sub("data: .*", f"data: {{train: {corpus}, dev: {corpus}, test: {corpus}}}", TAGGING)
    (tmp_path / "big.yaml").write_text(text, "utf-8")
    trained = seq2attn.runs.training_run.train(
        tmp_path / "big.yaml", tmp_path / "run", display=tiny_runs.silent()
    )
    assert trained.scores[0].value == 100
    assert "\n         big\u00a0name: precision: 100.00%" in said("score", tmp_path / "run")
    (tmp_path / "in").write_text("Bo Ek went\n", "utf-8")
    (tmp_path / "gold").write_text("B-big\u00a0name\tI-big\u00a0name O\n", "utf-8")
    files = ["--source", tmp_path / "in", "--references", tmp_path / "gold"]
    assert said("score", tmp_path / "run", *files).startswith("F1 = 100.0\n")


def test_a_decision_can_be_drawn(tagged: Path, languages: Path, tmp_path: Path) -> None:
    for run, name in ((tagged, "a.png"), (languages, "b.svg")):
        said("heatmap", run, "Bo went to Oslo.", "-o", tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    for words in (["--self"], ["--head", "all"], ["--layer", "all", "--head", "0"]):
        said("heatmap", tagged, "Bo went to Oslo.", *words, "-o", tmp_path / "c.svg")
        assert ">layer 0, " in (tmp_path / "c.svg").read_text()
    with pytest.raises(Seq2attnError, match="head 9"):
        said("heatmap", languages, "Bo went", "--head", "9", "-o", tmp_path / "c.png")
    for words in (["--target", "x"], ["--pieces"]):
        with pytest.raises(Seq2attnError, match=f"{words[0][2:]}: only for models that write text"):
            said("heatmap", tagged, "Bo went", *words, "-o", tmp_path / "c.png")
    with pytest.raises(Seq2attnError, match="beam: only for models that write text"):
        said("heatmap", tagged, "Bo went", "--beam", "2", "-o", tmp_path / "c.png")


def test_whole_texts_have_a_label(languages: Path) -> None:
    model = seq2attn.load(languages)
    assert isinstance(model, Categorizer)
    german, english = model.classify(["Wo ist der Bahnhof?", "Where is the station?"])
    assert (german.label, english.label) == ("de", "en")
    assert german.probability == german.probabilities["de"] > 0.8
    assert sum(german.probabilities.values()) == pytest.approx(1)
    assert german.weights.shape == (1, len(german.words)) and german.weights.sum() == pytest.approx(1)
    label, probability = said("classify", languages, "-", input="Ich bin hier.\n").split("\t")
    assert label == "de" and float(probability) > 0.5
    assert said("classify", languages, "-", input="\n\nJa.\n").count("\n") == 3  # a label of no words, too
    entry = json.loads(said("classify", languages, "-", "--format", "json", input="I am here.\n"))
    assert entry["label"] == "en" and entry["probabilities"].keys() == {"de", "en"}


@pytest.mark.parametrize(
    ("command", "right"), [("translate", "tag"), ("summarize", "tag"), ("classify", "tag")]
)
def test_a_wrong_command_says_which_one_is_right(tagged: Path, command: str, right: str) -> None:
    with pytest.raises(
        Seq2attnError, match=f"was trained for tagging: use `seq2attn {right}`, not {command}"
    ):
        said(command, tagged, "-", input="a\n")


def test_a_stopped_training_goes_on_exactly(tagged: Path, tmp_path: Path) -> None:
    recipe = tagged.parent / "people.yaml"
    for steps, again in ((25, False), (60, True)):
        seq2attn.runs.training_run.train(
            recipe, tmp_path / "run", [f"training.max_steps={steps}"], again, display=tiny_runs.silent()
        )
    assert tiny_runs.weights_hash(tmp_path / "run") == tiny_runs.weights_hash(tagged)


def test_check_tries_everything_once(tagged: Path) -> None:
    printed = said("check", tagged.parent / "people.yaml")
    assert (
        "13 words, 26 characters" in printed and "9 labels" in printed and "decoding    8 examples" in printed
    )


def test_vectors_that_others_learnt_are_a_start(tagged: Path, tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text(
        "3 16\n"
        + "".join(f"{word} {' '.join([str(n)] * 16)}\n" for n, word in enumerate(["Paris", "rome", "Rome"]))
    )
    settings = [f"text.vectors={file}", "training.max_steps=1", "model.embedding.frozen=true"]
    shown = io.StringIO()
    trained = seq2attn.runs.training_run.train(
        tagged.parent / "people.yaml", tmp_path / "run", settings, display=Display(Console(file=shown))
    )
    lines = shown.getvalue().splitlines()
    assert any(line.startswith("120 sentences, ") for line in lines)
    assert re.fullmatch(r"best: .* \(f1 \d+\.\d\d\)", lines[-1])
    file.unlink()  # a run needs it no more
    model = seq2attn.load(trained.run)
    table = model.model.encoder.embedding.table.weight
    assert table[model.word_vocabulary.encode(["Rome"])[0]].unique().tolist() == [1.0]  # its key's own vector
    assert table[model.word_vocabulary.encode(["Paris"])[0]].unique().tolist() == [0.0]  # though never seen
