"""Imported Marian models: logits, ids and beam outputs are those of Transformers, and nothing is guessed.

What is expected is in tests/data/marian, which scripts/make_tiny_marian.py has written with Transformers.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_cli import fails
from tiny_cli import run as command
from torch.testing import assert_close

import seq2attn
from seq2attn.data.sources import Source
from seq2attn.inference.translator import Translator
from seq2attn.pretrained.marian import FILE, import_marian
from seq2attn.training.run_folder import RunError, RunFolder

DATA = Path(__file__).parent / "data" / "marian"
KINDS = ["joint", "separate"]
END = 0


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / kind
    import_marian(DATA / kind, path)
    return path


@pytest.fixture(scope="module")
def model(run: Path) -> Translator:
    translator = seq2attn.load(run, device="cpu", kind=Translator)
    translator.model.eval()
    return translator


@pytest.fixture(scope="module")
def expected(kind: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / kind / "expected.json").read_text(encoding="utf-8"))
    return content


def changed(tmp_path: Path, change: Callable[[Path], object], kind: str = "joint") -> Path:
    """A copy of a model in which something was changed."""
    folder = Path(shutil.copytree(DATA / kind, tmp_path / "model"))
    change(folder)
    return folder


def edited(file: str, **values: Any) -> Callable[[Path], object]:
    """Set keys of a JSON file; those that are ... are taken out."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text(encoding="utf-8")) | values
        kept = {key: value for key, value in content.items() if value is not ...}
        (folder / file).write_text(json.dumps(kept), encoding="utf-8")

    return edit


def both(**values: Any) -> Callable[[Path], object]:
    """Set keys of both files of configuration."""
    edits = [edited(file, **values) for file in ("config.json", "generation_config.json")]
    return lambda folder: [edit(folder) for edit in edits]


def tensors(**values: torch.Tensor | None) -> Callable[[Path], object]:
    """Set tensors of the weights, with _ for each dot; those that are None are taken out."""

    def edit(folder: Path) -> None:
        given = load_file(folder / "model.safetensors")
        given |= {name.replace("__", "."): tensor for name, tensor in values.items() if tensor is not None}
        for name in (name.replace("__", ".") for name, tensor in values.items() if tensor is None):
            del given[name]
        save_file(given, folder / "model.safetensors")

    return edit


# ---- equal to Transformers ------------------------------------------------------------------------------


def test_logits_are_those_of_transformers(model: Translator, kind: str) -> None:
    given = load_file(DATA / kind / "logits.safetensors")
    source = Source(given["tokens"], given["mask"].bool())
    with torch.no_grad():
        logits = model.model(source, given["target"]).logits
    assert_close(logits, given["logits"], atol=1e-5, rtol=0)
    assert given["logits"].std() > 0.5


def test_ids_of_nasty_texts_are_those_of_transformers(model: Translator, expected: dict[str, Any]) -> None:
    assert len(expected["texts"]) == 200
    for vocabulary, side in ((model.source, "source"), (model.target, "target")):
        for text, ids in zip(expected["texts"], expected[side], strict=True):
            assert [*vocabulary.encode([text])[0], END] == ids, (side, text)
            tokens = vocabulary.split(text)
            assert [*tokens.ids, END] == ids, (side, text)
            assert tokens.pieces == vocabulary.surfaces(text)
            assert len(tokens.word_of) == len(tokens.ids)


def test_beam_outputs_are_those_of_transformers(model: Translator, expected: dict[str, Any]) -> None:
    decoded = expected["decoded"]
    results = model.translate([row["source"] for row in decoded], nbest=4, beam=4)
    assert len({text for row in decoded for text in row["texts"]}) > 6
    for result, row in zip(results, decoded, strict=True):
        ids = [[*hypothesis.target.ids, END] for hypothesis in result.nbest]
        assert ids == row["ids"], row["source"]
        assert [hypothesis.score for hypothesis in result.nbest] == pytest.approx(row["scores"], abs=1e-5)
        assert [hypothesis.text.strip() for hypothesis in result.nbest] == row["texts"]


def test_every_tensor_is_copied_as_it_is(run: Path, kind: str) -> None:
    given, own = load_file(DATA / kind / "model.safetensors"), RunFolder.open(run).load_weights()
    bits = sorted(tensor.numpy().tobytes() for tensor in given.values())
    assert sorted(tensor.numpy().tobytes() for tensor in own.values()) == bits


# ---- an ordinary run ------------------------------------------------------------------------------------


def test_an_imported_run_says_where_it_comes_from(run: Path, kind: str) -> None:
    folder = RunFolder.open(run)
    origin = folder.recipe.origin
    assert origin is not None
    assert (origin.kind, origin.name, origin.revision) == ("marian", kind, None)
    assert folder.version.best == FILE and folder.version.origin["sha256"] == origin.sha256
    assert folder.recipe.data.languages == ("de", "en")
    for name, file in (("source.model", "source.spm"), ("target.model", "target.spm")):
        assert folder.content(f"text/{name}") == (DATA / kind / file).read_bytes()


def test_the_commands_work_on_it(run: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "a.de", tmp_path / "a.en"
    source.write_text("Tom ist hier.\nWo ist Tom?\n", encoding="utf-8")
    target.write_text("Tom is here.\nWhere is Tom?\n", encoding="utf-8")
    assert len(command("translate", str(run), str(source)).stdout.splitlines()) == 2
    assert command("align", str(run), str(source), str(target)).stdout.count("\n") == 2
    assert (
        command("heatmap", str(run), "Tom.", "--target", "Tom.", "-o", str(tmp_path / "a.png")).exit_code == 0
    )
    scored = command("score", str(run), "--source", str(source), "--references", str(target))
    assert "BLEU" in scored.stdout
    assert "an imported model has no data" in fails("score", str(run), "--data", "dev")[1]


def test_the_command_imports(tmp_path: Path) -> None:
    result = command("import", "marian", str(DATA / "joint"), "-o", str(tmp_path / "run"))
    assert "tensors of the file are used" in result.stdout and result.exit_code == 0
    assert RunFolder.open(tmp_path / "run").version.best == FILE


def test_old_weights_are_loaded_as_tensors_only(tmp_path: Path, run: Path, kind: str) -> None:
    def converted(folder: Path) -> None:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()

    folder = changed(tmp_path, converted, kind)
    again = import_marian(folder, tmp_path / "again").folder.load_weights()
    for name, tensor in RunFolder.open(run).load_weights().items():
        assert torch.equal(again[name], tensor)


def test_weights_that_are_code_are_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (tmp_path / "touched",)

    def poisoned(folder: Path) -> None:
        torch.save({"model.shared.weight": Evil()}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()

    with pytest.raises(RunError, match="holds more than tensors"):
        import_marian(changed(tmp_path, poisoned), tmp_path / "run")
    assert not (tmp_path / "touched").exists() and not (tmp_path / "run").exists()


# ---- refusals -------------------------------------------------------------------------------------------

ONES = torch.ones(16)
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown key": (edited("config.json", new_layer=True), "config.json: new_layer: true .an unknown key"),
    "value": (edited("config.json", normalize_before=True), "config.json: normalize_before: true .expected false"),
    "two": (edited("config.json", scale_embedding=False, a=1), "scale_embedding: false .*; config.json: a: 1"),
    "missing": (edited("config.json", scale_embedding=...), "scale_embedding is missing"),
    "size": (edited("config.json", d_model=0.5), "d_model: 0.5 .expected a number"),
    "activation": (edited("config.json", activation_function="mish"), 'activation_function: "mish" .expected swish'),
    "start": (both(decoder_start_token_id=3), "config.json: decoder_start_token_id: 3 .expected 274"),
    "two starts": (edited("config.json", decoder_start_token_id=3), "generation_config.json: decoder_start_token_id: 274 .config.json has 3"),
    "generation": (edited("generation_config.json", repetition_penalty=1.2), "generation_config.json: repetition_penalty"),
    "end": (both(eos_token_id=7, forced_eos_token_id=7), "eos_token_id: 7, and vocab.json gives </s> 0"),
    "other model": (edited("config.json", model_type="t5"), 'model_type: "t5" .expected "marian"'),
    "vocabulary": (edited("vocab.json", more=900), "vocab.json has .* pieces, and config.json gives"),
    "holes": (edited("vocab.json", **{">>eng<<": 900}), "expected the ids 0 to"),
    "no ids": (lambda folder: (folder / "vocab.json").write_text("[]"), "vocab.json is damaged: expected the id"),
    "more tensors": (tensors(model__encoder__layernorm_embedding__weight=ONES), "model.encoder.layernorm_embedding.weight .16,. has no use"),
    "fewer tensors": (tensors(model__decoder__layers__1__fc2__bias=None), "model.decoder.layers.1.fc2.bias is missing"),
    "shape": (tensors(model__decoder__layers__1__fc1__bias=ONES), "fc1.bias has the shape .16,., and by config.json it is .20,."),
    "untied": (tensors(lm_head__weight=torch.zeros(3, 16)), "lm_head.weight differs from model.shared.weight"),
    "positions": (tensors(model__encoder__embed_positions__weight=torch.ones(64, 16)), "embed_positions.weight is not the table"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights: expected model.safetensors or"),
    "no model": (lambda folder: (folder / "target.spm").unlink(), "target.spm cannot be read"),
    "damaged": (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "model.safetensors is damaged"),
    "no folder": (shutil.rmtree, "has no config.json: expected a Marian model"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    change, message = REFUSED[name]
    with pytest.raises(seq2attn.Seq2attnError, match=message):
        import_marian(changed(tmp_path, change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_licence_is_that_of_the_card(tmp_path: Path) -> None:
    card = "---\nlicense: cc-by-4.0\ntags: [translation]\n---\n# A model\n"
    folder = changed(tmp_path, lambda folder: (folder / "README.md").write_text(card))
    origin = import_marian(folder, tmp_path / "run").folder.recipe.origin
    assert origin is not None and origin.license == "cc-by-4.0"
