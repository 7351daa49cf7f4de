"""What a page of the viewer shows of models that write texts: hypotheses, steps, the tree of the beam, words."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_pages
import torch
from numpy.testing import assert_allclose
from tiny_cli import MODEL, fails, pair_files, run
from tiny_translator import KINDS, SENTENCES, assert_same, one

from seq2attn.alignment.word_alignment import by_words, parse_gold
from seq2attn.errors import Seq2attnError
from seq2attn.inference.viewing import ViewOptions, page_of, tree_of
from seq2attn.views.viewer.packing import unpacked

TEXT = SENTENCES[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_shows_what_translate_returns(translators: Any, kind: str) -> None:
    model = translators[kind]
    result = one(model, beam=3, nbest=2)
    page = model.view(TEXT, decoding={"beam": 3, "nbest": 2})
    (entry,) = page.items[0].entries
    for output, hypothesis in zip(entry.outputs, result.nbest, strict=True):
        assert output.text == hypothesis.text and output.score == pytest.approx(hypothesis.score)
        assert output.target.pieces == hypothesis.tokens
        (group,) = output.groups
        layer, head = group.chosen
        of_head = group.layers[layer].weights
        weights = of_head.mean(0) if head is None else of_head[head]
        own = weights[group.shift : group.shift + len(hypothesis.tokens)]
        assert_allclose(own, hypothesis.weights, atol=1e-6)
    tiny_pages.validated(page.html())


def test_steps_have_the_models_most_probable_pieces(translators: Any) -> None:
    model = translators["model"]
    (entry,) = model.view(TEXT, decoding={"beam": 1}).items[0].entries
    (output,) = entry.outputs
    assert [step.piece for step in output.steps] == [*output.target.pieces, "</s>"]
    for step in output.steps:
        probabilities = [probability for _, probability in step.top]
        assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) <= 1 + 1e-6
        assert step.rank == 0 and step.top[0][0] == step.piece  # greedy search
    total = sum(step.log_p for step in output.steps)
    assert total == pytest.approx(one(model, beam=1).log_probability, abs=1e-4)
    given = model.entry(TEXT, ViewOptions("Tom is here here.")).outputs[0]
    assert max(step.rank for step in given.steps) > 0
    for step in given.steps:
        if step.rank < len(step.top):
            assert step.top[step.rank][0] == step.piece


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_changes_no_result_and_every_hypothesis_is_in_the_tree(translators: Any, kind: str) -> None:
    model = translators[kind]
    decoding = model.settings({"beam": 4, "nbest": 4})
    source = model._tokenize(TEXT)
    (plain,) = model.generator.search([source.ids], decoding)
    traced, trace = model.generator.traced(source.ids, decoding)
    assert plain == traced
    tree = tree_of(trace, model.target, source.tokens.pieces)
    shown = 0
    for hypothesis in traced:
        at = tree.ends.get(tuple(hypothesis.tokens))
        if at is None:  # of greedy search, which the beam had dropped
            continue
        shown += 1
        step, node = at
        assert step == len(hypothesis.tokens)
        assert tree.nodes[step][node].end and tree.nodes[step][node].log_p == pytest.approx(
            hypothesis.log_probability
        )
        pieces = []
        while step >= 0:
            pieces.insert(0, tree.nodes[step][node].piece)
            node, step = tree.nodes[step][node].parent, step - 1
        assert pieces == [*model.target.join(hypothesis.tokens).pieces, "</s>"]
    assert shown >= len(traced) - 1
    for nodes in tree.nodes:  # a hypothesis ends if that is one of its step's best 4 continuations
        ranked = sorted(nodes, key=lambda node: -node.log_p)
        assert all(ranked.index(node) < 4 for node in nodes if node.end)
    for before, after in zip(tree.nodes, tree.nodes[1:], strict=False):
        assert all(not before[node.parent].end and node.log_p <= before[node.parent].log_p for node in after)


def test_self_attention_is_shown_if_it_is_wanted(translators: Any) -> None:
    model = translators["transformer"]
    plain, page = (model.view(TEXT, self_attention=own) for own in (False, True))
    names = ["attention to the source", "encoder's self-attention", "decoder's self-attention"]
    assert [group.name for group in plain.items[0].entries[0].outputs[0].groups] == names[:1]
    entry = page.items[0].entries[0]
    assert [group.name for group in entry.outputs[0].groups] == names
    assert [len(group.layers) for group in entry.outputs[0].groups] == [3, 1, 3]
    for group, side in zip(entry.outputs[0].groups[1:], (entry.source, entry.outputs[0].target), strict=True):
        assert {layer.weights.shape[1:] for layer in group.layers} == {(len(side.pieces) + 1,) * 2}
    tiny_pages.validated(page.html())


def test_a_blank_text_and_a_list_of_texts_are_shown(translators: Any) -> None:
    page = translators["model"].view(["", TEXT])
    assert [item.entries[0].outputs[0].text for item in page.items] == ["", one(translators["model"]).text]
    tiny_pages.validated(page.html())


def test_a_result_shows_its_alignment_in_notebooks(translators: Any, tmp_path: Path) -> None:
    result = one(translators["transformer"], beam=3, nbest=2)
    result.view(tmp_path / "page.html")
    data = tiny_pages.validated((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert tiny_pages.data_of(result._repr_html_()) == data
    outputs = data["items"][0]["of"][0]["outputs"]
    assert [output["text"] for output in outputs] == [one.text for one in result.nbest]
    assert_allclose(unpacked(outputs[0]["groups"][0]["layers"][0])[0], result.weights, atol=1 / 500)
    with pytest.raises(Seq2attnError, match="this translation has no alignment"):
        one(translators["lstm"], alignment=False).view()
    assert_same(result, one(translators["transformer"], beam=3, nbest=2))


def test_words_of_gold_links_are_what_white_space_separates(translators: Any) -> None:
    model, target = translators["model"], "Tom  is not here ."
    options = ViewOptions(target, spaces=True)
    page = page_of({"model": model}, [TEXT], [options], {}, [parse_gold("0-0 2?1")])
    entry = page.items[0].entries[0]
    output = entry.outputs[0]
    assert (entry.source.words, output.target.words) == (TEXT.split(), target.split())
    (pair,) = model.align_pairs([(TEXT, target)])
    (group,) = output.groups
    weights = group.layers[0].weights[0][: len(output.target.pieces)]
    found = by_words(torch.tensor(weights), output.target.word_of, entry.source.word_of, True)
    assert_allclose(found.weights, pair.alignment.weights, atol=1e-6)


def test_a_page_compares_two_models_and_no_more(translators: Any) -> None:
    two = {kind: translators[kind] for kind in ("model", "transformer")}
    page = page_of(two, [TEXT], [ViewOptions("Tom is here.")], {})
    assert page.runs == [*two] and len(page.items[0].entries) == 2
    with pytest.raises(Seq2attnError, match="a page shows one model or compares two, got 3"):
        page_of({**two, "lstm": translators["lstm"]}, [TEXT], [ViewOptions()], {})
    with pytest.raises(Seq2attnError, match="a target is of one text, got 2"):
        translators["model"].view([TEXT, TEXT], target="a")


# ---- the commands ----------------------------------------------------------------------------------------


def test_view_writes_a_page(tmp_path: Path, runs: dict[str, Path]) -> None:
    source, target = pair_files(tmp_path)
    page, gold = tmp_path / "page.html", tmp_path / "gold"
    assert run("view", MODEL, TEXT, "Ja.", "-o", str(page), "--nbest", "2").stdout == f"{page}\n"
    data = tiny_pages.validated(page.read_text(encoding="utf-8"))
    assert [len(item["of"][0]["outputs"]) for item in data["items"]] == [2, 2]
    gold.write_text("0-0\n\n1-1 2?0\n")
    options = [
        "--file",
        source,
        "--targets",
        target,
        "--gold",
        str(gold),
        "--compare",
        str(runs["transformer"]),
    ]
    run("view", MODEL, *options, "--self", "--exact", "-o", str(page))
    data = tiny_pages.validated(page.read_text(encoding="utf-8"))
    assert [one["name"] for one in data["runs"]] == ["run", "transformer"]
    assert [item["gold"] for item in data["items"]] == [[[0, 0, "S"]], [], [[1, 1, "S"], [2, 0, "P"]]]
    assert "f32" in data["items"][0]["of"][1]["outputs"][0]["groups"][1]["layers"][0]


def test_translate_writes_a_page_to_standard_output() -> None:
    data = tiny_pages.validated(run("translate", MODEL, "--format", "view", stdin=f"{TEXT}\nJa.\n").stdout)
    texts = run("translate", MODEL, stdin=f"{TEXT}\nJa.\n").stdout.splitlines()
    assert [item["of"][0]["outputs"][0]["text"] for item in data["items"]] == texts
    assert json.dumps(data["runs"]) == '[{"name": "run"}]'


def test_a_page_of_translate_begins_with_the_prefix() -> None:
    words = ["translate", MODEL, "--prefix", "We ", "--nbest", "2"]
    texts = run(*words, stdin=f"{TEXT}\n").stdout.splitlines()
    data = tiny_pages.validated(run(*words, "--format", "view", stdin=f"{TEXT}\n\n").stdout)
    first, blank = (item["of"][0]["outputs"] for item in data["items"])
    assert [output["text"] for output in first] == texts and all(text.startswith("We ") for text in texts)
    assert [output["text"] for output in blank] == [""]


def test_view_says_what_is_wrong(tmp_path: Path) -> None:
    source, target = pair_files(tmp_path)
    beyond = str(tmp_path / "gold")
    Path(beyond).write_text("0-0 0-1\n")
    for words, status, message in [
        ([], 2, "give at least one SENTENCE or IMAGE, a --file of sentences, or --seed"),
        (["Ja.", "Nein.", "--target", "Yes."], 2, "expected a translation for each of 2 sentences, got 1"),
        (["Ja.", "--target", "Yes.", "--targets", target], 2, "give either --target or --targets"),
        (["-f", source, "--gold", target], 2, "--gold links the words of given translations"),
        (["Ja.", "--target", "Yes.", "--gold", target], 1, "expected links such as 0-0"),
        (["Ja.", "--target", "Yes.", "--gold", beyond], 1, "gold:1: the link 0-1 leads beyond the sentence"),
        (["Ja.", "--compare", MODEL], 2, "--compare takes another run"),
        (["Ja.", "-o", str(tmp_path / "no" / "page.html")], 1, "cannot write"),
    ]:
        found, error = fails("view", MODEL, *words)
        assert (found, message in error) == (status, True), error
