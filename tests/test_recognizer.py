"""Words in, entities and labels out: whole runs of both tasks, from the command line and from Python."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from click.testing import CliRunner

import seq2attn
import seq2attn.runs
from seq2attn.cli import cli
from seq2attn.errors import Seq2attnError
from seq2attn.recognizer import Categorizer, Recognizer
from seq2attn.runs import held_out, score_pairs

FIRST, LAST, PLACES = ["Anna", "Bo", "Cem", "Dora"], ["Lund", "Meyer", "Nyman"], ["Oslo", "Rome", "Kyiv"]
TAGGING = """
task: tagging
data: {train: {conll: train.conll}, dev: {conll: dev.conll}, test: {conll: dev.conll}}
model:
  embedding: {size: 16, characters: {kind: cnn, embedding: 8, size: 8}, dropout: 0.1}
  encoder: {kind: recurrent, size: 16, dropout: 0.1}
  attention: {score: scaled_dot, heads: 2, exclude_self: true}
  head: {kind: crf}
training: {optimizer: adam, learning_rate: 0.02, batch_tokens: 120, max_steps: 60, validate_every: 30}
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
    trained = seq2attn.runs.train(folder / "people.yaml", folder / "run", display=tiny_runs.silent())
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
    trained = seq2attn.runs.train("languages", folder, small, display=tiny_runs.silent())
    assert trained.scores[0].value > 95
    return trained.run


def said(*arguments: Any, input: str | None = None) -> str:
    result = CliRunner().invoke(cli, [str(one) for one in arguments], input=input, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


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


def test_words_of_a_found_span_look_where_the_span_did(tagged: Path, tmp_path: Path) -> None:
    settings = ["model.head={kind: spans, width: 3}", "model.attention=null", "training.max_steps=80"]
    trained = seq2attn.runs.train(
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
    assert said("tag", tagged, "-", "--format", "conll", input="Bo went\n") == "Bo\tB-PER\nwent\tO\n\n"
    entry = json.loads(said("tag", tagged, "-", "--format", "json", "--words", input="Bo, Lund\n"))
    assert entry["words"] == ["Bo,", "Lund"]


def test_scores_are_those_of_training(tagged: Path) -> None:
    printed = said("score", tagged)
    assert "F1 = 100.0 [100.0, 100.0] |" in printed and "recipe:people|checkpoint:best|seed:1|" in printed
    model = seq2attn.load(tagged)
    sources, references = held_out(tagged, "test")
    assert [one.value for one in score_pairs(model, sources, references, ["tag-accuracy"])] == [100.0]
    with pytest.raises(Seq2attnError, match="settings of models that write text"):
        said("score", tagged, "--beam", "3")


def test_a_decision_can_be_drawn(tagged: Path, languages: Path, tmp_path: Path) -> None:
    for run, name in ((tagged, "a.png"), (languages, "b.svg")):
        said("heatmap", run, "Bo went to Oslo.", "-o", tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(Seq2attnError, match="--target is for models that write text"):
        said("heatmap", tagged, "Bo went", "--target", "x", "-o", tmp_path / "c.png")


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
    entry = json.loads(said("classify", languages, "-", "--json", input="I am here.\n"))
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
        seq2attn.runs.train(
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
    trained = seq2attn.runs.train(
        tagged.parent / "people.yaml", tmp_path / "run", settings, display=tiny_runs.silent()
    )
    file.unlink()  # a run needs it no more
    model = seq2attn.load(trained.run)
    table = model.model.encoder.embedding.table.weight
    assert table[model.lexicon.encode(["Rome"])[0]].unique().tolist() == [1.0]  # its key's own vector
    assert table[model.lexicon.encode(["Paris"])[0]].unique().tolist() == [0.0]  # though never seen
