"""Images into text from recipe to result: encoders, batches, training, captions and their pictures."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_cli
import tiny_images
import tiny_pages
import tiny_runs
import torch
from PIL import Image
from torch.testing import assert_close

import seq2attn
from seq2attn.attention.state import reorder
from seq2attn.data.image_plan import BatchLimits
from seq2attn.data.image_texts import ImageTextLoader, ImageTokenizer
from seq2attn.data.report import DataError
from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import ImageError
from seq2attn.inference.captioner import Captioner
from seq2attn.models.vision.factory import build_image_to_text
from seq2attn.recipe import RecipeError, read
from seq2attn.recipe.image_data import NormalizeRecipe
from seq2attn.recipe.image_text import ImageToTextModelRecipe
from seq2attn.runs.evaluation import score_run
from seq2attn.tasks.image_to_text import ImageToTextTask
from seq2attn.training.run_folder import RunFolder

BACKBONES: dict[str, dict[str, Any]] = {
    "convolutional": {"kind": "convolutional", "sizes": [4, 6, 8]},
    "densenet": {"kind": "densenet", "layers": [2, 2], "growth": 4, "stem": 8, "norm": "masked_batch"},
    "resnet": {"kind": "resnet", "depth": 8, "width": 0.5, "stem": "large", "blocks": [{"block": "se"}]},
    "vit": {"kind": "vit", "patch": 8, "size": 12, "layers": 2, "feed_forward": 16},
}
DECODERS: dict[str, dict[str, Any]] = {
    "coverage on the grid": {
        "kind": "recurrent", "cell": "lstm", "embedding": 8, "size": 12, "order": "bahdanau",
        "attention": {"score": {"name": "location_sensitive", "width": [3, 5], "cumulative": "only"}},
    },
    "input feeding": {
        "kind": "recurrent", "cell": "gru", "embedding": 8, "size": 12, "order": "luong", "input_feeding": True,
        "attention": {"score": "additive", "normalize": "sparsemax"},
    },
    "transformer": {
        "kind": "transformer", "size": 12, "layers": 2, "feed_forward": 16,
        "self_attention": {"heads": 2}, "cross_attention": {"heads": 2},
    },
}  # fmt: skip
NORMALIZE = NormalizeRecipe(mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.3])


def network(backbone: str, decoder: str = "coverage on the grid") -> Any:
    section = {"encoder": {"backbone": BACKBONES[backbone], "size": 12}, "decoder": DECODERS[decoder]}
    recipe = ImageToTextModelRecipe.model_validate(section)
    torch.manual_seed(3)
    model = build_image_to_text(recipe, 3, 11)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(part.running_mean)
            torch.nn.init.uniform_(part.bias, -1, 1)
    return model.eval(), recipe.encoder.backbone.stride


def pictures(*sizes: tuple[int, int]) -> list[Any]:
    random = np.random.default_rng(2)
    return [random.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strips")
    tiny_images.write_tables(folder, {"train": 60, "dev": 6, "test": 30})
    tiny_images.write_tables(folder, {"twotrain": 40, "twodev": 6, "twotest": 8})
    return folder


def train(sections: Any, run: Path, *overrides: str, **options: Any) -> Path:
    options = {"display": tiny_runs.silent(), "device": "cpu", **options}
    return seq2attn.train(sections, run, list(overrides), **options).run


@pytest.fixture(scope="module")
def run(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned its task, in a hundred updates."""
    steps = ["training.learning_rate=0.02", "training.max_epochs=13", "training.validate_every=104"]
    return train(tiny_images.recipe(tables), tmp_path_factory.mktemp("runs") / "strips", *steps)


@pytest.fixture(scope="module")
def captioner(run: Path) -> Captioner:
    return seq2attn.load(run, device="cpu", kind=Captioner)


# ---- the network -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_image_has_the_same_states_in_any_batch(backbone: str) -> None:
    model, stride = network(backbone)
    images = pictures((21, 37), (32, 16), (9, 50))
    tokenizer = ImageTokenizer(None, NORMALIZE, stride)  # type: ignore[arg-type]
    source = tokenizer.collate(images)
    with torch.no_grad():
        encoded = model.encode(source)
        assert encoded.states[~source.mask].abs().max() == 0 and encoded.mask[:, 0].equal(source.mask)
        for row, image in enumerate(images):
            alone = model.encode(tokenizer.collate([image]))
            assert alone.grid == tokenizer.grid(image) and alone.mask.all()
            assert_close(encoded.states[row, source.mask[row]], alone.states[0], atol=1e-5, rtol=1e-5)
            assert_close(encoded.summary[row], alone.summary[0], atol=1e-5, rtol=1e-5)
    assert tokenizer.lengths(images).tolist() == source.mask.sum(1).tolist()


@pytest.mark.parametrize("decoder", DECODERS)
def test_steps_over_a_grid_give_the_logits_of_all_at_once(decoder: str) -> None:
    model, stride = network("convolutional", decoder)
    images = pictures((21, 37), (32, 16))
    source = ImageTokenizer(None, NORMALIZE, stride).collate(images)  # type: ignore[arg-type]
    tokens = torch.randint(4, 11, (2, 5))
    with torch.no_grad():
        weights_of = list(range(model.decoder.attention_layers))
        whole = model(source, tokens, weights_of)
        state = reorder(model.start(source), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1]))
        state = reorder(state, torch.tensor([1, 0, 3, 2]), torch.tensor([0, 1]))
        for step in range(5):
            logits, state = model.step(tokens[:, step].repeat_interleave(2), state)
            assert_close(logits[::2], whole.logits[:, step], atol=1e-5, rtol=1e-5)
    weights = whole.weights
    assert weights.shape[-1] == source.mask.shape[1]
    assert not weights.movedim(-1, 1)[~source.mask].any()
    assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_coverage_reaches_neighbours_in_rows_and_in_columns() -> None:
    """A decoder that knew the positions as a sequence would take the end of a row for a neighbour of the next."""
    model, stride = network("convolutional")
    source = ImageTokenizer(None, NORMALIZE, stride).collate(pictures((32, 32)))  # type: ignore[arg-type]
    state = model.start(source)
    assert state.past.grid == (32 // stride, 32 // stride) == state.memory.value.grid


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.tied", "all", "tied"),
        ("model.decoder.copying", {}, "there is none"),
        ("model.decoder.attention", {"score": "additive", "sentences": {"score": "additive"}}, "sentences"),
        ("model.encoder.positions", "sinusoidal", "sinusoidal_2d"),
        ("model.encoder.backbone", {"kind": "resnet", "depth": 21}, "depth"),
        ("training.attention_losses", {"guided": 1.0}, "alignments"),
        ("decoding.replace_unknown", True, "source text"),
        ("data.augment", ["mixup"], "one label each can be mixed"),
        ("data.train.path", "photo.png", "needs {}"),
        ("model.decoder.positions", "learned", "positions"),
    ],
)
def test_settings_that_images_do_not_have_are_faults(
    tables: Path, key: str, value: Any, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        read(tiny_images.recipe(tables), [f"{key}={json.dumps(value)}"])


# ---- data ------------------------------------------------------------------------------------------------


def test_each_epoch_draws_one_of_the_texts_of_an_image(tables: Path) -> None:
    recipe = read(tiny_images.recipe(tables, "two"))
    task = ImageToTextTask.learn(recipe)
    examples = task.examples("train")
    task = task.fitted(examples)
    loader = ImageTextLoader(examples, task.tokenizer, task.recipe.data, BatchLimits(40), seed=7)
    rows = np.arange(40)

    def texts(epoch: int | None) -> list[str]:
        return [task.target.decode(ids) for ids in loader.batch(rows, epoch).target.tolist()]

    assert texts(None) == examples.targets  # validation takes the first
    drawn = [texts(epoch) for epoch in range(16)]
    for row, seen in enumerate(zip(*drawn, strict=True)):
        assert {*seen} == {*examples.references(row)}
    assert texts(3) == drawn[3] and any(first != second for first, second in pairwise(drawn))
    alone = loader.batch(rows[5:6], 3)
    assert task.target.decode(alone.target[0].tolist()) == drawn[3][5]  # whichever batch it is in


def test_batches_have_texts_of_about_one_length(tables: Path) -> None:
    recipe = read(tiny_images.recipe(tables, size=[8, 16], resize="stretch"))
    task = ImageToTextTask.learn(recipe)
    examples = task.examples("train")
    loader = task.fitted(examples).loader(examples)
    lengths = loader.lengths  # type: ignore[attr-defined]
    assert sorted(np.concatenate(loader.epoch(0)).tolist()) == list(range(60))
    spread = [int(np.ptp(lengths[batch])) for batch in loader.epoch(0)]
    assert max(spread) <= 1 < np.ptp(lengths)


def test_long_texts_are_left_out_of_training_alone(tables: Path) -> None:
    whole, short = (
        ImageToTextTask.learn(read(tiny_images.recipe(tables, "two"), settings))
        for settings in ([], ["data.max_words=2"])
    )
    texts = [whole.examples("train").references(row) for row in range(40)]
    kept = [few for few in ([text for text in row if len(text.split()) <= 2] for row in texts) if few]
    examples = short.examples("train")
    assert [[*examples.references(row)] for row in range(len(examples))] == kept
    assert 0 < len(kept) < 40 and any(len(text.split()) > 2 for text in whole.examples("dev").targets)
    assert short.examples("dev").targets == whole.examples("dev").targets
    left_out = sum(map(len, texts)) - sum(map(len, kept))
    assert (examples.report.read, examples.report.kept) == (40, len(kept))
    assert examples.report.reasons["text of more than 2 words"].count == left_out


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "train0"}, "no column 'text'"),
        ({"id": "train0", "text": 5}, "a text or a list of texts was expected"),
        ({"id": "train0", "text": []}, "a text or a list of texts was expected"),
        ({"id": "train0", "text": ["a", " "]}, "an empty one"),
        ({"id": "nowhere", "text": "a"}, "nowhere.png: no such file"),
        ({"id": 3, "text": "a"}, "the path of an image was expected"),
    ],
)
def test_bad_rows_are_named_with_their_line(tables: Path, tmp_path: Path, row: Any, message: str) -> None:
    lines = (tables / "train.jsonl").read_text().splitlines()
    Path(tables / "bad.jsonl").write_text("\n".join([*lines[:2], json.dumps(row)]))
    recipe = read(tiny_images.recipe(tables), [f"data.train.table={tables / 'bad.jsonl'}"])
    with pytest.raises(DataError, match=rf"bad\.jsonl:3.*{message}"):
        ImageToTextTask.learn(recipe)


def test_a_text_longer_than_learned_positions_is_found_before_training(tables: Path) -> None:
    decoder = {**DECODERS["transformer"], "positions": {"name": "learned", "length": 3}}
    overrides = [f"model.decoder={json.dumps(decoder)}", "decoding.max_length=2"]
    task = ImageToTextTask.learn(read(tiny_images.recipe(tables), overrides))
    with pytest.raises(DataError, match=r"data\.train: a text has 3 pieces.*length to 4"):
        task.examples("train")


def test_so_is_a_long_one_that_is_not_the_first_of_its_image(tables: Path) -> None:
    row = {"id": "train0", "text": ["red", "red blue green"]}
    (tables / "second.jsonl").write_text(json.dumps(row) + "\n")
    decoder = {**DECODERS["transformer"], "positions": {"name": "learned", "length": 3}}
    overrides = [f"model.decoder={json.dumps(decoder)}", "decoding.max_length=2"]
    overrides += [f"data.train.table={tables / 'second.jsonl'}"]
    with pytest.raises(DataError, match=r"data\.train: a text has 3 pieces"):
        ImageToTextTask.learn(read(tiny_images.recipe(tables), overrides)).examples("train")


# ---- training and captions -------------------------------------------------------------------------------


def test_resuming_is_exact(tables: Path, tmp_path: Path) -> None:
    sections = tiny_images.recipe(tables, "two")
    whole = train(sections, tmp_path / "whole")
    half = train(sections, tmp_path / "half", "training.max_steps=3")
    train(sections, half, resume=True)
    first, second = (RunFolder.open(folder).load_weights("last") for folder in (whole, half))
    assert first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def test_a_network_learns_to_name_squares_and_looks_at_the_one_that_it_names(
    run: Path, captioner: Captioner
) -> None:
    evaluation = score_run(run, ["exact"]).evaluation
    assert evaluation.scores["exact"].value >= 90
    for words in (["red", "blue", "green"], ["green", "green", "red"]):
        result = captioner.caption(tiny_images.strip(words, np.random.default_rng(9)))
        assert result.alignment is not None
        assert result.words == words and result.alignment.squeeze(1).argmax(-1).tolist() == [0, 1, 2]


def test_a_caption_does_not_depend_on_other_images(captioner: Captioner, tables: Path) -> None:
    files = [tables / f"test{number}.png" for number in range(6)]
    together = captioner.caption(files)
    for file, result in zip(files, together, strict=True):
        alone = captioner.caption(file)
        assert alone.text == result.text and alone.name == str(file)
        assert alone.log_probability == pytest.approx(result.log_probability, abs=1e-4)
        assert_close(alone.weights, result.weights, atol=1e-5, rtol=1e-5)


def test_weights_lie_on_the_grid_of_the_image_and_words_average_their_pieces(captioner: Captioner) -> None:
    image = tiny_images.strip(["red", "blue", "green"], np.random.default_rng(4))
    result = captioner.align(image, "red blue")
    assert result.weights is not None and result.alignment is not None
    assert result.weights.shape == (2, 1, 3) and result.words == ["red", "blue"]
    assert_close(result.weights.sum((1, 2)), torch.ones(2))
    assert_close(result.alignment, result.weights)  # a piece a word
    again = captioner.caption(image, prefix="red blue")
    assert again.text.startswith("red blue")
    assert_close(again.weights[:2], result.weights)  # type: ignore[index]


def test_a_caption_has_the_log_probability_of_its_forced_decoding(captioner: Captioner) -> None:
    images = [tiny_images.strip(words, np.random.default_rng(6)) for words in (["red"], ["blue", "green"])]
    for result in captioner.caption(images, nbest=2, alignment=False):
        assert result.weights is None and len(result.nbest) == 2
        for one in result.nbest:
            (expected,) = captioner.log_probabilities([result.pixels], [one.text])
            if captioner.target.encode([one.text])[0] == one.target.ids and not one.truncated:
                assert one.log_probability == pytest.approx(expected, abs=1e-4)


def test_bad_calls_are_errors_that_say_what_to_do(captioner: Captioner, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match=r"text\.png"):
        captioner.caption(tmp_path / "text.png")
    with pytest.raises(Seq2attnError, match="expected the path of an image"):
        captioner.caption(3)  # type: ignore[call-overload]
    with pytest.raises(Seq2attnError, match="source text"):
        captioner.caption(np.zeros((8, 8), np.uint8), replace_unknown=True)
    with pytest.raises(Seq2attnError, match="a text for each"):
        captioner.log_probabilities([np.zeros((8, 8), np.uint8)], [])
    with pytest.raises(Seq2attnError, match="use its method caption"):
        captioner.translate  # noqa: B018


def test_a_page_shows_the_image_and_where_each_word_looked(captioner: Captioner, tmp_path: Path) -> None:
    image = tiny_images.strip(["red", "blue", "green"], np.random.default_rng(4))
    result = captioner.caption(image, beam=2)
    (entry,) = captioner.view(image, tmp_path / "page.html", decoding={"beam": 2}).items[0].entries
    (layer,) = entry.outputs[0].groups[0].layers
    assert (entry.outputs[0].text, layer.grid) == (result.text, (1, 3)) and entry.beam
    pieces = len(result.tokens)
    np.testing.assert_allclose(layer.weights.mean(0)[:pieces], result.weights.flatten(1), atol=1e-6)  # type: ignore[union-attr]
    tiny_pages.validated((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert tiny_pages.data_of(result._repr_html_()) == tiny_pages.validated(result.view().html())
    found = captioner.look(image, "red blue", gradients=True)
    assert found.source == ["0,0", "0,1", "0,2"] and found.target[-1] == "</s>"
    assert found.encoder_states[-1].shape[1] == 3 and found.target_log_probabilities.requires_grad


def test_the_commands_caption_score_and_heatmap(run: Path, tables: Path, tmp_path: Path) -> None:
    files = [str(tables / f"test{number}.png") for number in range(3)]
    lines = tiny_cli.run("caption", str(run), *files, "--beam", "1").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == files
    entry = json.loads(tiny_cli.run("caption", str(run), files[0], "--format", "json", "--beam", "1").stdout)
    assert entry["text"] == lines[0].split("\t")[1] and len(entry["alignment"]) == len(entry["words"])
    scored = tiny_cli.run("score", str(run), "--format", "json", "--metric", "token-er").stdout
    report = json.loads(scored)
    assert report["scores"][0]["value"] <= 10 and "most frequent" in report["baselines"]
    tiny_cli.run("heatmap", str(run), files[0], "--target", "red blue", "-o", str(tmp_path / "strip.png"))
    numbers = tmp_path / "strip.json"
    with pytest.warns(UserWarning, match="the target 'red mauve' has .* lacks, and reads as unknown"):
        tiny_cli.run("heatmap", str(run), files[0], "--target", "red mauve", "-o", str(numbers))
    made = json.loads(numbers.read_text())
    assert made["words"] == ["red", "mauve"] and np.shape(made["alignment"])[0] == 2
    with Image.open(tmp_path / "strip.png") as picture:
        assert min(picture.size) > 100
    status, error = tiny_cli.fails(
        "heatmap", str(run), files[0], "--map", "gradcam", "-o", str(tmp_path / "x.png")
    )
    assert status and "map: only for other models" in error
    status, error = tiny_cli.fails("classify", str(run), files[0])
    assert status and "use `seq2attn caption`" in error
