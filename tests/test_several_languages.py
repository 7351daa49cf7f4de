"""Several languages in one model: tags of sources, and the mixture of corpora by a temperature."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
from tiny_cli import fails
from tiny_cli import run as command

import seq2attn
from seq2attn.recipe import RecipeError, read
from seq2attn.runs.dry_run import check
from seq2attn.tasks.loading import reopen
from seq2attn.text.given_ids import FaultyIdsError, Numbering, read_ids
from seq2attn.text.vocabulary import Vocabulary, VocabularyError
from seq2attn.training.run_folder import RunFolder

MODEL = (tiny_runs.MODEL / "text" / "source.model").read_bytes()
TAGS = ["<2en>", "<2de>"]


def recipe(tmp_path: Path, **data: Any) -> dict[str, Any]:
    """Two directions in one model: the same files, turned round."""
    for name, text in (
        ("de", "Wo ist Tom?\nTom ist hier.\nJa.\n"),
        ("en", "Where is Tom?\nTom is here.\nYes.\n"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    files = [str(tmp_path / "de"), str(tmp_path / "en")]
    there, back = {"files": files, "tag": "<2en>"}, {"files": files[::-1], "tag": "<2de>", "limit": 1}
    part = {"kind": "transformer", "size": 8, "layers": 1, "feed_forward": 8, "self_attention": {"heads": 2}}
    return {
        "data": {"languages": ["x", "y"], "train": [there, back], "dev": there, **data},
        "text": {"tags": TAGS, "joint": True, "nfkc": False, "size": 26, "byte_fallback": False},
        "model": {"encoder": part, "decoder": {**part, "cross_attention": {"heads": 2}}, "tied": "all"},
        "training": {"max_steps": 1, "batch_tokens": 60},
    }


def test_a_tag_is_one_piece_and_never_seen_by_sentencepiece() -> None:
    plain, tagged = Vocabulary(MODEL), Vocabulary(MODEL, numbering=Numbering(tags=TAGS))
    assert tagged.size == plain.size + 2
    text = "Tom ist nicht hier."
    (ids,) = plain.encode([text])
    for number, tag in enumerate(TAGS):
        assert tagged.encode([f"{tag} {text}", f"{tag}{text}", text]) == [
            [plain.size + number, *ids], [plain.size + number, *ids], ids
        ]  # fmt: skip
        tokens = tagged.split(f"{tag} {text}")
        assert tokens.ids == [plain.size + number, *ids] and tokens.pieces[0] == tag
        assert tokens.words == [tag, *plain.split(text).words]
        assert tokens.word_of == [0, *(word + 1 for word in plain.split(text).word_of)]
        assert tagged.surfaces(f"{tag} {text}") == tokens.pieces == tagged.pieces(tokens.ids, f"{tag} {text}")
        assert tagged.decode(tokens.ids) == f"{tag}{text}" or tagged.decode(tokens.ids) == f"{tag} {text}"
    assert tagged.fingerprint != plain.fingerprint
    assert tagged.encode(["Tom <2en>"])[0][:1] == plain.encode(["Tom"])[0][:1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"[]", "expected the id of each piece"),
        (b'{"a": 1.5}', "expected the id of each piece"),
        (b'{"a": true}', "expected the id of each piece"),
    ],
)
def test_what_is_no_map_of_ids_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(FaultyIdsError, match=message):
        read_ids(content)


@pytest.mark.parametrize(
    ("ids", "start", "message"),
    [
        ({"</s>": 0, "<unk>": 1, "<pad>": 2}, None, r"<s> has no id .*text.start"),
        ({"</s>": 0, "<unk>": 1}, "</s>", "<pad> has no id"),
        ({"</s>": 0, "<unk>": 1, "<pad>": 1}, "<pad>", "expected the ids 0 to 2, each once"),
        ({"</s>": 0, "<unk>": 1, "<pad>": 3}, "<pad>", "expected the ids 0 to 2, each once"),
    ],
)
def test_ids_are_those_of_all_special_pieces(ids: dict[str, int], start: str | None, message: str) -> None:
    with pytest.raises(VocabularyError, match=f"the ids of the pieces: .*{message}"):
        Vocabulary(MODEL, numbering=Numbering(ids, start))


def test_sources_of_a_corpus_begin_with_its_tag(tmp_path: Path) -> None:
    folder = RunFolder.open(
        seq2attn.train(recipe(tmp_path), tmp_path / "run", display=tiny_runs.silent()).run
    )
    task = reopen(folder)
    training = task.examples("train")
    assert [training.source_text(row) for row in range(4)] == [
        "<2en> Wo ist Tom?", "<2en> Tom ist hier.", "<2en> Ja.", "<2de> Where is Tom?"
    ]  # fmt: skip
    source = task.tokenizer.source
    assert source.size == 28 and source.encode(["<2de>"]) == [[27]]
    assert not any("2" in piece for piece in source.pieces(range(26)))  # tags are not learned from
    assert folder.recipe.text.size == 26
    lines = ["Tom ist hier.", "", "Ja."]
    by_hand = command("translate", str(folder.path), stdin="<2en> Tom ist hier.\n\n<2en> Ja.\n").stdout
    assert (
        command("translate", str(folder.path), "--tag", "<2en>", stdin="\n".join(lines) + "\n").stdout
        == by_hand
    )
    assert (
        "the model has no tag <2fr>"
        in fails("translate", str(folder.path), "--tag", "<2fr>", stdin=b"a\n")[1]
    )


def test_a_tag_moves_the_links_of_its_source(tmp_path: Path) -> None:
    sections = recipe(tmp_path)
    (tmp_path / "links").write_text("0-0 1-1 2-2\n0-0 1-1 2-2\n0-0\n", encoding="utf-8")
    sections["data"]["train"] = {**sections["data"]["train"][0], "alignments": str(tmp_path / "links")}
    sections["training"]["attention_losses"] = {"guided": 0.1}
    run = seq2attn.train(sections, tmp_path / "run", display=tiny_runs.silent()).run
    task = reopen(RunFolder.open(run))
    training = task.examples("train")
    source, target = (
        task.tokenizer.source.split(training.source_text(0)),
        task.tokenizer.target.split("Where is Tom?"),
    )
    links = {
        (source.words[source.word_of[s]], target.words[target.word_of[t]])
        for s, t in np.reshape(training.links(0), (-1, 2)).tolist()
    }
    assert links == {("Wo", "Where"), ("ist", "is"), ("Tom?", "Tom?")}


@pytest.mark.parametrize("temperature", [1, 2, 5])
def test_a_temperature_mixes_corpora_by_roots_of_their_sizes(tmp_path: Path, temperature: float) -> None:
    sections = recipe(tmp_path, temperature=temperature)
    report = dict(check(read(sections)))
    shares = np.array([3, 1]) ** (1 / temperature)
    passes = 4 * shares / shares.sum() / np.array([3, 1])
    expected = ", ".join(f"{weight:.2g}" for weight in passes)
    assert (
        report["mixing"] == f"passes through each corpus in an epoch: {expected} (temperature {temperature})"
    )


def test_faults_of_tags_and_temperature(tmp_path: Path) -> None:
    sections = recipe(tmp_path, temperature=2)
    sections["data"]["train"][0] |= {"weight": 2}
    with pytest.raises(RecipeError, match=r"temperature: decides how often corpora are used"):
        read(sections)
    sections = recipe(tmp_path)
    sections["text"]["tags"] = ["<2fr>"]
    with pytest.raises(
        RecipeError, match=r"data.train.0.tag: <2en> is none of text.tags.*\n.*train.1.tag.*\n.*dev.tag"
    ):
        read(sections)
    sections["text"]["tags"] = "marked"
    with pytest.raises(RecipeError, match=r"text.tags: needs `ids`"):
        read(sections)
