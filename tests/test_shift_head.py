"""The shift head (Chen et al. 2020): attention for alignments alone, trained by links of its own model."""

import itertools
import lzma
import shutil
from pathlib import Path
from typing import Any

import decoder_laws as laws
import pytest
import tiny
import tiny_runs
import torch
from tiny_cli import run
from torch import Tensor
from torch.testing import assert_close

import seq2attn
from seq2attn.alignment.word_alignment import Gold, error_rate, parse_pharaoh
from seq2attn.data.corpora import SAMPLES
from seq2attn.data.sources import Source
from seq2attn.errors import Seq2attnError
from seq2attn.inference.generator import AlignmentHead
from seq2attn.models.decoders import Decoded
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.recipe import RecipeError, read
from seq2attn.runs.alignment_choice import candidates
from seq2attn.training.objectives import AttentionLosses, guided
from seq2attn.training.run_folder import RunFolder

RECIPES: dict[str, dict[str, Any]] = {
    "bahdanau": {
        "encoder": tiny.recurrent_encoder(),
        "decoder": tiny.recurrent_decoder("bahdanau", "additive", readout="maxout"),
    },
    "luong": {"encoder": tiny.recurrent_encoder(), "decoder": tiny.recurrent_decoder("luong", "additive")},
    "heads": {
        "encoder": tiny.recurrent_encoder(),
        "decoder": {**tiny.recurrent_decoder("luong"), "attention": {"heads": 2}},
    },
    "transformer": {"encoder": tiny.transformer(), "decoder": tiny.transformer(decoder=True)},
}


def model(kind: str, **section: Any) -> Seq2Seq:
    recipe = RECIPES[kind]
    return tiny.model({**recipe, "decoder": {**recipe["decoder"], "shift_head": section}})


def without_head(kind: str, other: Seq2Seq) -> Seq2Seq:
    plain = tiny.model(RECIPES[kind])
    plain.load_state_dict(
        {name: tensor for name, tensor in other.state_dict().items() if "shift" not in name}
    )
    return plain


def of_head(built: Seq2Seq, source: Source, tokens: Tensor) -> Tensor:
    """The weights (B, H, T, S) of the head."""
    weights = built(source, tokens, [built.decoder.attention_layers - 1]).weights
    assert weights is not None
    return weights[:, 0]


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_nothing_that_the_model_writes_depends_on_the_head(kind: str) -> None:
    built = model(kind)
    plain, source, tokens = without_head(kind, built), tiny.sources(7, 3), tiny.reads(2, 5)
    layers = list(range(plain.decoder.attention_layers))
    with_head, before = built(source, tokens, [*layers, len(layers)]), plain(source, tokens, layers)
    assert torch.equal(with_head.logits, before.logits)
    assert torch.equal(with_head.weights[:, :-1], before.weights)
    laws.steps_and_forward_agree(built)
    laws.weights_are_a_distribution_over_the_source(built)
    laws.padding_has_no_weights(built)


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_a_row_is_of_the_token_that_its_step_has_read(kind: str) -> None:
    built, source, tokens = model(kind), tiny.sources(7, 5), tiny.reads(2, 5)
    before, after = (of_head(built, source, text) for text in (tokens, laws.changed(tokens, 3)))
    assert_close(after[:, :, :3], before[:, :, :3], atol=1e-6, rtol=0)
    assert ((after - before)[:, :, 3].abs().amax(-1) > 1e-5).all()


def test_its_weights_are_those_of_the_equation() -> None:
    """softmax of scaled dot products of projected states, in each head, with loops."""
    built, source, tokens = model("transformer", layer=1), tiny.sources(4), tiny.reads(1, 3)
    decoder, states = built.decoder, list[Tensor]()
    decoder.layers[1].register_forward_hook(lambda _, __, output: states.append(output[0]))
    weights, head = of_head(built, source, tokens), decoder.shift_head
    keys = head.key(built.encode(source).states)[0]
    queries = head.query(head.norm(states[0]))[0]
    width = 20 // 5
    for number, step in itertools.product(range(5), range(3)):
        part = slice(number * width, (number + 1) * width)
        expected = (keys[:, part] @ queries[step, part] / width**0.5).softmax(0)
        assert_close(weights[0, number, step], expected)


@pytest.mark.parametrize(
    ("layers", "layer", "expected"), [(6, None, 2), (3, None, 1), (1, None, 0), (3, -1, 2)]
)
def test_it_reads_the_middle_layer_unless_another_is_named(layers: int, layer: int, expected: int) -> None:
    decoder = {**tiny.transformer(decoder=True, layers=layers), "shift_head": {"layer": layer}}
    built = tiny.model({"encoder": tiny.transformer(), "decoder": decoder})
    assert built.decoder.shift_head is not None and built.decoder.shift_head.layer == expected


# ---- its loss ----------------------------------------------------------------------------------------


def test_the_loss_takes_the_row_after_the_one_that_predicts() -> None:
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(2, 4, 5, generator=generator).softmax(-1)
    links = torch.rand(2, 4, 5, generator=generator) > 0.6
    mask = torch.arange(4) < torch.tensor([4, 2])[:, None]
    expected = 0.0
    for b, t in itertools.product(range(2), range(3)):
        linked = links[b, t].nonzero()[:, 0].tolist()
        if mask[b, t + 1] and linked:
            expected -= sum(weights[b, t + 1, s].log().item() for s in linked) / len(linked)
    assert guided(weights, links, mask, shift=1).item() == pytest.approx(expected, rel=1e-5)


def test_it_is_what_guided_attention_trains_and_other_losses_leave_it_alone() -> None:
    built, source, tokens = model("transformer"), tiny.sources(7, 3), tiny.reads(2, 5)
    losses = AttentionLosses({"guided": 1.0, "entropy": 1.0, "coverage": 1.0}, built.decoder)
    assert (losses.guided_layer, losses.guided_head, losses.layer) == (2, None, 1)
    decoded: Decoded = built(source, tokens, losses.layers)
    mask, links = torch.ones(2, 5, dtype=torch.bool), torch.eye(5, 7).bool().expand(2, 5, 7)
    terms = losses.terms(decoded, tokens, mask, source.mask, links)
    head = list(built.decoder.shift_head.parameters())
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, head, retain_graph=True, allow_unused=True)
        assert all((part is not None and part.abs().sum() > 0) == (name == "guided") for part in gradients), (
            name
        )
    assert AttentionLosses({"guided": 1.0}, built.decoder, layer=0).guided_layer == 0


# ---- recipes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.decoder.shift_head={}"], "trained by guided attention only"),
        (["model.decoder.shift_head={layer: 3}"], "the decoder's layers are 0 to 0, got 3"),
        (["model.decoder.shift_head={score: location}"], "shift_head"),
        (
            ["model.decoder={kind: recurrent, order: cho, shift_head: {}}"],
            "needs a decoder with attention to the source",
        ),
    ],
)
def test_a_head_that_cannot_be_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read("quickstart", overrides)


# ---- from a trained model to alignments ----------------------------------------------------------------

SENTENCES = 40


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose shift head alone was trained by the links of its own model, and the texts."""
    folder = tmp_path_factory.mktemp("shift_head")
    table = (
        lzma.decompress((SAMPLES / "tatoeba_de_en" / "train.tsv.xz").read_bytes())
        .decode()
        .splitlines()[:SENTENCES]
    )
    texts = [line.split("\t")[:2] for line in table]
    files = [folder / name for name in ("de", "en")]
    for file, column in zip(files, zip(*texts, strict=True), strict=True):
        file.write_text("".join(f"{text}\n" for text in column), encoding="utf-8")
    plain, pairs = str(tiny_runs.MODEL), {"files": [str(file) for file in files]}
    run("align", plain, *pairs["files"], "-o", str(folder / "links"))
    data = {"train": {**pairs, "alignments": str(folder / "links")}, "dev": {**pairs, "limit": 3}}
    settings = {"max_steps": 40, "validate_every": 20, "learning_rate": 0.03, "batch_tokens": 300}
    recipe = {
        "init": {"run": plain, "freeze": ["*", "!decoder.shift_head"]},
        "data": {"languages": ["de", "en"], **data},
        "model": {"decoder": {"shift_head": {}}},  # all else is that of the run
        "training": {"attention_losses": {"guided": 1.0}, "metrics": "exact", "metric": "loss", **settings},
    }
    seq2attn.train(recipe, folder / "run", device="cpu", display=tiny_runs.silent())
    return folder


def test_only_the_head_is_trained_and_its_last_weights_are_the_best(trained: Path) -> None:
    folder, plain = RunFolder.open(trained / "run"), RunFolder.open(tiny_runs.MODEL)
    assert folder.version.best == folder.version.last  # no score tells them apart
    after, before = folder.load_weights("best"), plain.load_weights("best")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name for name in after if name not in before} == {
        f"decoder.shift_head.{name}.weight" for name in ("norm", "query", "key")
    } | {"decoder.shift_head.norm.bias"}
    model = folder.recipe.model.model_dump()
    assert model.pop("decoder") == {
        **plain.recipe.model.model_dump()["decoder"],
        "shift_head": model_of(folder),
    }
    assert model == {
        name: part for name, part in plain.recipe.model.model_dump().items() if name != "decoder"
    }


def model_of(folder: RunFolder) -> Any:
    return folder.recipe.model.decoder.shift_head.model_dump()


def test_align_takes_it_and_it_has_learnt_the_links(trained: Path) -> None:
    texts = [str(trained / name) for name in ("de", "en")]
    found = [parse_pharaoh(line) for line in run("align", str(trained / "run"), *texts).stdout.splitlines()]
    links = [frozenset(parse_pharaoh(line)) for line in (trained / "links").read_text().splitlines()]
    gold = [Gold(row, row) for row in links]
    before = run("align", str(trained / "run"), *texts, "--shift", "0").stdout.splitlines()
    assert error_rate(found, gold) < 0.25  # 0.8 without training
    assert error_rate([parse_pharaoh(line) for line in before], gold) > error_rate(found, gold)
    with pytest.raises(Seq2attnError, match="weights no vectors"):
        seq2attn.load(trained / "run", device="cpu").with_alignment(method="norms").align("Ja.", "Yes.")


def test_the_choice_pictures_and_pages_find_it(trained: Path, tmp_path: Path) -> None:
    model = seq2attn.load(trained / "run", device="cpu")
    heads = candidates(model.model.decoder)
    assert [head for head in heads if head.layer == 1] == [AlignmentHead(1, None, shift) for shift in (0, 1)]
    texts = [str(trained / name) for name in ("de", "en")]
    copied = shutil.copytree(trained / "run", tmp_path / "run")
    printed = run("align", str(copied), *texts, "--choose", str(trained / "links")).stdout.splitlines()
    assert printed[2].split()[:2] == ["1", "mean"] and printed[2].split()[-2:] == ["-", "-"]
    pair = "Tom ist hier.", "Tom is here."
    seen, page = model.look(*pair), model.view(pair[0], target=pair[1]).to_json()
    first, second = page["items"][0]["of"][0]["outputs"][0]["groups"]
    assert (first["name"], first["shift"], first["chosen"]) == ("shift head", 1, (0, None))
    assert (second["name"], second["shift"], "chosen" in second) == ("attention to the source", 0, False)
    alignment = model.align(*pair)
    assert_close(alignment.weights, seen.cross_attention[0, 1, 0, 1:])
    assert_close(model.align(*pair, layer=0).weights, seen.cross_attention[0, 0, 0, :-1])
    run("heatmap", str(copied), pair[0], "--layer", "all", "-o", str(tmp_path / "all.png"))
