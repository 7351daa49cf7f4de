"""`init: {run, vocabulary, take, freeze}`: vocabularies that are kept or matched, parts that are taken or frozen."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from safetensors.torch import load_file

import seq2attn
from seq2attn.pretrained.marian import import_marian
from seq2attn.recipe import RecipeError
from seq2attn.runs.dry_run import check
from seq2attn.runs.initial_weights import InitialWeights, freeze
from seq2attn.runs.recipe_argument import recipe_of
from seq2attn.tasks.loading import reopen
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.training.run_folder import RunError, RunFolder

DATA = Path(__file__).parent / "data" / "marian"
TRAINING = {"optimizer": "adamw", "weight_decay": 0.1, "learning_rate": 0.01, "batch_tokens": 100, "ema": 0.9}
SAMPLE = {"sample": "tatoeba_de_en", "limit": 20}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported model."""
    return import_marian(DATA / "joint", tmp_path_factory.mktemp("given") / "run").folder.path


def sections(run: Path, steps: int = 1, **init: Any) -> dict[str, Any]:
    """A recipe without a model and a vocabulary: they are those of the run."""
    data = {"languages": ["de", "en"], "train": SAMPLE, "dev": {**SAMPLE, "limit": 2}}
    training = {**TRAINING, "max_steps": steps, "validate_every": steps}
    return {"init": {"run": str(run), **init}, "data": data, "training": training}


def train(path: Path, recipe: dict[str, Any], *overrides: str, **options: Any) -> RunFolder:
    display = options.pop("display", tiny_runs.silent())
    return RunFolder.open(
        seq2attn.train(recipe, path, overrides, device="cpu", display=display, **options).run
    )


def test_without_an_update_the_outputs_are_those_of_the_run(tmp_path: Path, given: Path) -> None:
    still = [
        f"training.{key}" for key in ("learning_rate=1e-30", "weight_decay=0", "ema=0", "optimizer=adam")
    ]
    folder = train(tmp_path / "run", sections(given), *still)
    before, after = RunFolder.open(given), folder
    assert after.recipe.model == before.recipe.model and after.recipe.text == before.recipe.text
    texts = ["Tom ist hier.", "Wo?"]
    options: Any = {"beam": 3, "max_length": 5, "max_length_ratio": 9.0}
    results = [[r.text for r in seq2attn.load(path.path, device="cpu").translate(texts, **options)]
               for path in (before, after)]  # fmt: skip
    assert results[0] == results[1]


def test_frozen_tensors_are_equal_to_the_bit_after_fifty_updates(tmp_path: Path, given: Path) -> None:
    """By a name, a part, and a pattern; also in the moving average, and with weight decay."""
    frozen = ["encoder.embedding", "decoder.layers.0.feed_forward.inner.weight", "*.cross_attention_residual"]
    display = tiny_runs.recording()
    folder = train(tmp_path / "run", sections(given, 50, freeze=frozen), display=display)
    before, after = RunFolder.open(given).load_weights(), folder.load_weights("last")
    names = ("encoder.embedding.", "decoder.layers.0.feed_forward.inner.weight")
    still = {name for name in before if name.startswith(names) or ".cross_attention_residual." in name}
    assert {name for name in before if torch.equal(before[name], after[name])} == still
    assert len(still) == 6 and "6 tensors are not trained" in tiny_runs.said(display)
    state = folder.load_state()
    assert state is not None
    assert len(state["trainer"]["optimizer"]["state"]) == len(before) - len(still)


def test_what_is_frozen_stays_so_when_training_is_resumed(tmp_path: Path, given: Path) -> None:
    recipe = sections(given, 2, freeze=["encoder"])
    train(tmp_path / "run", recipe)
    folder = train(tmp_path / "run", recipe, "training.max_steps=4", resume=True)
    before, after = RunFolder.open(given).load_weights(), folder.load_weights("last")
    assert torch.equal(before["encoder.layers.0.feed_forward.inner.weight"],
                       after["encoder.layers.0.feed_forward.inner.weight"])  # fmt: skip
    assert not torch.equal(before["decoder.output.bias"], after["decoder.output.bias"])


def test_only_what_is_named_is_taken(tmp_path: Path, given: Path) -> None:
    lines = [
        text for heading, text in check(recipe_of(sections(given, take=["encoder"]))) if heading == "init"
    ]
    assert lines[0].endswith(": encoder") and "new tensors: decoder" in lines[1]
    assert "left: decoder" in lines[2]


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"take": ["coder"]}, "init.take: .* has no tensor or part coder; it has decoder.layers.0, "),
        ({"freeze": ["encoder.nothing"]}, "init.freeze: the model has no tensor or part encoder.nothing"),
        ({"freeze": ["*"]}, "names all that the model has"),
    ],
)
def test_names_of_nothing_are_refused(
    tmp_path: Path, given: Path, init: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        train(tmp_path / "run", sections(given, **init))
    assert not (tmp_path / "run").exists()


# ---- another vocabulary ---------------------------------------------------------------------------------


def matched(given: Path, *text: str) -> tuple[Any, Any, dict[str, tuple[int, int]]]:
    """The old and the new task, and how many rows were matched, after which the new model is checked."""
    model = {"model": RunFolder.open(given).recipe.model.model_dump(mode="json")}
    recipe = recipe_of({**sections(given, vocabulary="match"), **model}, [*text])
    start = InitialWeights(recipe.init)  # type: ignore[arg-type]
    task = start.task(recipe)
    network = task.build()
    counts = start.give(network, task).matched
    return reopen(RunFolder.open(given)), (task, network), counts


def test_matched_pieces_keep_their_rows_and_others_get_the_mean_of_their_pieces(given: Path) -> None:
    old, (task, network), counts = matched(
        given, "text={joint: true, size: 250, nfkc: true, byte_fallback: false}"
    )
    table = RunFolder.open(given).load_weights()["encoder.embedding.table.weight"]
    new, source = task.tokenizer.source, old.tokenizer.source
    rows = network.encoder.embedding.table.weight
    pieces = [new.pieces([number])[0] for number in range(new.size)]
    ids = {source.pieces([number])[0]: number for number in range(source.size)}
    both = [number for number, piece in enumerate(pieces) if piece in ids and piece[0] != "<"]
    assert len(both) > 100
    for number in both:
        assert torch.equal(rows[number], table[ids[pieces[number]]])
    others = [number for number, piece in enumerate(pieces) if piece not in ids and piece[0] != "<"]
    written = {
        number: [i for i in source.encode([pieces[number].replace("▁", " ")])[0] if i != source.unk]
        for number in others
    }
    assert any(len(found) > 1 for found in written.values())
    for number, found in written.items():
        if found:
            assert torch.allclose(rows[number], table[found].mean(0), atol=1e-6)
    assert torch.equal(rows[new.bos], table[source.bos]) and torch.equal(rows[new.eos], table[source.eos])
    count, size = counts["encoder.embedding.table.weight"]
    assert size == new.size and len(both) < count <= size
    bias = RunFolder.open(given).load_weights()["decoder.output.bias"]
    assert network.decoder.output.bias[both[0]] == bias[ids[pieces[both[0]]]]


def test_matching_the_same_vocabulary_is_keeping_it(tmp_path: Path, given: Path) -> None:
    text = RunFolder.open(given).recipe.text.model_dump(mode="json")
    recipe = recipe_of({**sections(given, vocabulary="match"), "text": text})
    start = InitialWeights(recipe.init)  # type: ignore[arg-type]
    task = start.task(recipe)
    network = task.build()
    taken = start.give(network, task)
    assert not taken.new and not taken.left
    for name, tensor in RunFolder.open(given).load_weights().items():
        assert torch.equal(network.state_dict()[name], tensor)


def test_a_vocabulary_that_is_kept_is_not_described_again(tmp_path: Path, given: Path) -> None:
    with pytest.raises(RunError, match=r"text.lowercase is true, there false. Leave out text, or"):
        train(tmp_path / "run", sections(given), "text={lowercase: true}")


def test_sampling_is_no_part_of_the_vocabulary(given: Path) -> None:
    recipe = recipe_of(sections(given), ["text.sampling={alpha: 0.2}"])
    task = InitialWeights(recipe.init).task(recipe)  # type: ignore[arg-type]
    source, texts = task.tokenizer.source, json.loads((DATA / "joint" / "expected.json").read_text())["texts"]
    whole = (line for line in texts if source.decode(source.encode([line])[0]) == line)
    text = next(line for line in whole if line.count(" ") > 2)
    sampled = {tuple(task.tokenizer.source.sample([text], seed)[0]) for seed in range(20)}
    assert len(sampled) > 3
    assert {task.tokenizer.source.decode(list(ids)) for ids in sampled} == {text}


def test_without_the_run_a_recipe_has_no_model(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="missing key 'model'"):
        recipe_of(sections(tmp_path / "nowhere"))


def test_freezing_nothing_changes_nothing(given: Path) -> None:
    recipe = recipe_of(sections(given))
    network = InitialWeights(given).task(recipe).build()
    assert freeze(network, recipe) == [] and all(part.requires_grad for part in network.parameters())


def test_rows_of_added_pieces(given: Path) -> None:
    """<pad>, <s> and </s> that a model lacks have ids after its pieces, and are matched with those of others."""
    bare = Vocabulary((DATA / "joint" / "source.spm").read_bytes())
    other = reopen(RunFolder.open(given)).tokenizer.source
    rows = bare.rows_in(other)
    assert rows[bare.pad] == [other.pad] and rows[bare.bos] == [other.bos] and rows[bare.eos] == [other.eos]
    assert len(load_file(DATA / "joint" / "model.safetensors")["model.shared.weight"]) == other.size
