"""The engine onnx: steps with torch's own numbers, for every scorer and normalizer that it takes."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from shapes import unchecked
from tiny_cli import ROOT, run
from tiny_recurrent import REFUSED, VARIANTS, model
from tiny_transformers import load_vocabularies, task_of
from tiny_translator import SENTENCES, assert_same
from torch import Tensor, nn
from torch.testing import assert_close

import seq2attn
from seq2attn.attention import Past
from seq2attn.attention.interfaces import Normalizer, Scorer
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import SCORERS
from seq2attn.attention.state import reorder
from seq2attn.data.sources import Source
from seq2attn.inference.engines import EngineError, onnx_engine, onnx_support
from seq2attn.inference.engines.exported_folder import NOTES
from seq2attn.inference.engines.onnx_engine import OnnxModel
from seq2attn.inference.engines.onnx_graph import OnnxGraph
from seq2attn.inference.engines.onnx_model import save_model
from seq2attn.inference.engines.onnx_state import with_leaves
from seq2attn.inference.engines.onnx_trace import Traced
from seq2attn.inference.translator import Translator
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import ModelRecipe

TEXTS = [text for text in SENTENCES if text]
V = 30
# The rows and the sources that go on after each step: a third hypothesis of each source comes and goes, and
# a source is finished.
GROWING = [
    ([1, 1, 0, 2, 3, 3, 5, 4, 5], [0, 1, 2]),
    ([2, 1, 3, 5, 8, 7], [0, 1, 2]),
    ([0, 1, 5, 4], [0, 2]),
    ([1, 0, 3, 3], [0, 1]),
]


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")


def assert_same_steps(section: dict[str, Any], folder: Path) -> None:
    """Of three sources with padding, and some hypotheses of each, which change places."""
    torch.manual_seed(3)
    own = build(ModelRecipe.model_validate(section), V, V).eval()
    for parameter in own.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    with unchecked():
        names = save_model(own, folder)
    notes = {"state": names.state, "memory": names.memory}
    (folder / NOTES).write_text(json.dumps(notes), encoding="utf-8")
    other = OnnxModel(own, folder)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2, [True] + [False] * 5])
    source = Source(torch.randint(3, V, (3, 6)), mask)
    with torch.no_grad(), unchecked():
        states = [one.start(source) for one in (own, other)]
        rows = torch.arange(3).repeat_interleave(2)
        states = [reorder(state, rows, torch.arange(3)) for state in states]
        for rows, kept in GROWING:
            token = torch.randint(3, V, (len(states[0].hidden[0]),))
            (expected, after), (found, next_after) = (
                one.step(token, state) for one, state in zip((own, other), states, strict=True)
            )
            assert_close(found.log_softmax(-1), expected.log_softmax(-1), atol=2e-5, rtol=2e-5)
            order, kept = torch.tensor(rows), torch.tensor(kept)
            states = [reorder(state, order, kept) for state in (after, next_after)]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_model_has_the_same_steps(name: str, tmp_path: Path) -> None:
    assert_same_steps(VARIANTS[name], tmp_path)


class Scored(nn.Module):
    """The keys, scores and next trace of a scorer, with a past whose leaves are given."""

    def __init__(self, score: Scorer) -> None:
        super().__init__()
        self.score, self.past = score, Past(*[torch.ones(1)] * 2, 0)

    def forward(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        query, states, *past = given
        keys, known = self.score.keys(states), with_leaves(self.past, iter(past))
        scores = self.score(query, keys, known)
        trace = self.score.update_trace(query, keys, scores.softmax(-1), known)
        return keys, scores, *([] if trace is None else [trace])


class Normalized(nn.Module):
    """The weights and the next alignment state of a normalizer."""

    def __init__(self, normalize: Normalizer) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        scores, mask, query = given
        return (self.normalize(scores, mask, Past(None, None, 0), query),)


def assert_same_outputs(module: nn.Module, examples: Sequence[Sequence[Tensor]], axes: Any) -> None:
    """Traced with inputs of one size, and computed with others of another."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    with unchecked():
        traced = Traced(module.eval(), examples[0], axes)
        with torch.no_grad():
            expected = module(examples[1])
    graph = OnnxGraph()
    shapes = [[None] * tensor.dim() for tensor in (*examples[0], *expected)]
    names = [
        graph.input(f"in{place}", tensor.dtype, shape)
        for place, (tensor, shape) in enumerate(zip(examples[0], shapes, strict=False))
    ]
    written = traced.write(graph, names, range(len(expected)))
    for place, value in enumerate(written):
        graph.output(f"out{place}", value, torch.float32, shapes[len(names) + place])
    session = onnx_engine.onnx_session(graph.model("part").SerializeToString())
    inputs = {name: x.numpy() for name, x in zip(names, examples[1], strict=True)}
    for found, own in zip(session.run(None, inputs), expected, strict=True):
        assert_close(torch.from_numpy(found), own, atol=1e-5, rtol=1e-5)


SIZES = (3, 7), (2, 4)  # rows and source positions


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_every_scorer_scores_the_same(name: str) -> None:
    """Whatever the past is."""
    assert name in onnx_support.SCORERS
    assert_same_scores(SCORERS[name](12, 12))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("additive", {"normalize": True, "score_bias": 0.1}),
        ("cosine", {"strength": "query"}),
        ("location", {"length": 5}),
    ],
)
def test_options_of_scorers_score_the_same(name: str, options: dict[str, Any]) -> None:
    assert_same_scores(SCORERS[name](12, 12, **options))


def assert_same_scores(score: Scorer) -> None:
    torch.manual_seed(1)
    scored, examples = Scored(score), []
    for size in SIZES:
        query, states = torch.randn(size[0], 1, 12), torch.randn(*size, 12)
        trace = scored.score.initial_state(scored.score.keys(states))
        past = [torch.rand(size), torch.rand(size), *([] if trace is None else [torch.rand_like(trace)])]
        scored.past = Past(*past[:2], 0, None, trace)
        examples.append([query, states, *past])
    axes = [{0: "rows"}, *[{0: "rows", 1: "positions"}] * (len(examples[0]) - 1)]
    assert_same_outputs(scored, examples, axes)


@pytest.mark.parametrize("name", sorted(NORMALIZERS))
def test_every_normalizer_normalizes_the_same_or_is_refused(name: str) -> None:
    """With padding, and a row that is all masked."""
    torch.manual_seed(2)
    if name in onnx_support.NORMALIZERS:
        examples = []
        for rows, positions in SIZES:
            mask = (torch.arange(positions) < torch.tensor([2, positions, 0])[:rows, None])[:, None]
            examples.append([torch.rand(rows, 1, positions), mask, torch.randn(rows, 1, 12)])
        axes = {0: "rows", 2: "positions"}
        assert_same_outputs(Normalized(NORMALIZERS[name](12)), examples, [axes, axes, {0: "rows"}])
        return
    score = "linear" if NORMALIZERS[name].needs_positive else "dot"
    task = task_of(model({"score": score, "normalize": name}), load_vocabularies())
    (fault,) = onnx_support.unsupported_keys(task.recipe)
    assert fault[0] == "model.decoder.attention.normalize"


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_is_refused_by_key(name: str) -> None:
    section, keys = REFUSED[name]
    task = task_of(section, load_vocabularies())
    assert [path for path, _ in onnx_support.unsupported_keys(task.recipe)] == keys


# ---- the engine ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own() -> Translator:
    found: Translator = seq2attn.load(tiny_runs.MODEL, device="cpu")
    return found


@pytest.fixture(scope="module")
def made() -> Translator:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    with unchecked():
        found: Translator = seq2attn.load(tiny_runs.MODEL, device="cpu", engine="onnx")
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"beam": 1},
        {"beam": 4, "nbest": 3},
        {"min_length": 9, "no_repeat_ngram": 1, "beam": 3},
        {"max_length": 5},
    ],
    ids=str,
)
def test_its_search_is_torchs(own: Translator, made: Translator, settings: dict[str, Any]) -> None:
    """With all settings that only read logits; also of prefixes."""
    prefixes = [text[:3] if place % 2 else "" for place, text in enumerate(TEXTS)]
    with unchecked():
        pairs = zip(
            made.translate(TEXTS, prefix=prefixes, **settings),
            own.translate(TEXTS, prefix=prefixes, **settings),
            strict=True,
        )
    for found, expected in pairs:
        assert_same(found, expected)
        assert found.truncated == expected.truncated


def test_what_reads_more_than_logits_is_torchs(
    own: Translator, made: Translator, caplog: pytest.LogCaptureFixture
) -> None:
    for settings, reason in (({"sample": True}, "sample"), ({"coverage_penalty": 0.2}, "coverage_penalty")):
        with caplog.at_level(logging.INFO, "seq2attn"):
            found = made.translate(TEXTS[:2], **settings)
        for one, expected in zip(found, own.translate(TEXTS[:2], **settings), strict=True):
            assert_same(one, expected)
        assert f"torch for 2 (2 for {reason})" in caplog.records[-1].getMessage()


def test_export_is_the_same_twice_and_decodes_without_torch(
    own: Translator, made: Translator, tmp_path: Path
) -> None:
    """By the script, which imports neither torch nor this package."""
    with unchecked():
        words = "export", str(tiny_runs.MODEL), "onnx", "-o", str(tmp_path / "made")
        report = json.loads(run(*words, "--check", "5", "--format", "json").output)
    parity = report["parity"]
    assert parity["same"] == parity["compared"] > 0 and parity["largest_difference"] < 1e-4
    (cached,) = Path(os.environ["SEQ2ATTN_CACHE"]).glob("engines/onnx-*")
    a, b = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (cached, tmp_path / "made")
    )
    assert a == b and {"encoder.onnx", "step.onnx", "export.json", "source.model", "target.model"} == set(a)
    script = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['seq2attn'] = None; "
        f"sys.argv = ['greedy', {str(tmp_path / 'made')!r}]; "
        f"runpy.run_path({str(ROOT / 'scripts' / 'greedy_onnx.py')!r}, run_name='__main__')"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], input="\n".join(SENTENCES), capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == [one.text for one in own.translate(SENTENCES, beam=1)]


def test_int8_is_smaller_and_torch_scores(
    own: Translator, made: Translator, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    with unchecked():
        quantized: Translator = seq2attn.load(tiny_runs.MODEL, device="cpu", engine="onnx", quantize="int8")
    assert logging.root.handlers == []  # one would print what seq2attn's own has printed
    found = quantized.translate(TEXTS)
    scores = own.log_probabilities(TEXTS, [one.text for one in found])
    ended = [
        (one.log_probability, score)
        for one, score in zip(found, scores, strict=True)
        if own.target.encode([one.text])[0] == one.target.ids
    ]
    assert ended and all(a == pytest.approx(b, abs=1e-4) for a, b in ended)
    assert quantized.signature.endswith("|engine:onnx int8")
    (folder,) = own_cache.glob("engines/onnx-*")
    weights = sum(parameter.numel() for parameter in own.model.parameters())
    assert sum(file.stat().st_size for file in folder.glob("*.onnx")) < 2 * weights  # float32: 4 each


def test_damaged_files_and_other_devices_are_refused(made: Translator, tmp_path: Path) -> None:
    engine: Any = made.generator.engine
    with pytest.raises(EngineError, match=r"has no readable export\.json"):
        OnnxModel(made.model, tmp_path)
    (tmp_path / NOTES).write_text('{"state": [], "memory": []}', encoding="utf-8")
    (tmp_path / "encoder.onnx").write_bytes(b"nothing")
    with pytest.raises(EngineError, match="onnxruntime cannot load"):
        OnnxModel(made.model, tmp_path)
    assert engine.name == "onnx float32"
