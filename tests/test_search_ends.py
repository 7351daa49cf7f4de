"""Every search ends, whatever the model computes, and on whichever device torch makes tensors."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_runs
import torch
from tiny_search import EOS, RULES, Toy, ToyState, limits

import seq2attn
from seq2attn.errors import Seq2attnError
from seq2attn.inference.beam_search import beam_search
from seq2attn.inference.search import greedy, sample

SEARCHES = {
    "greedy": lambda toy: greedy(toy.step, toy.start(0, 1), RULES, limits(9, 9)),
    "beam": lambda toy: [
        nbest[0] for nbest in beam_search(toy.step, toy.start(0, 1), RULES, limits(9, 9), 3)
    ],
    **{
        f"sample at {temperature}": lambda toy, temperature=temperature: sample(
            toy.step, toy.start(0, 1), RULES, limits(9, 9), [1, 2], temperature
        )
        for temperature in (1e-6, 1.0, 1e6)
    },
}


class Broken(Toy):
    """A toy whose logits are broken from a step on: `value` for all tokens, or for </s> alone."""

    def __init__(self, value: float, first: int, only_end: bool = False) -> None:
        super().__init__()
        self.value, self.first, self.only_end = value, first, only_end

    def step(self, token: torch.Tensor, state: ToyState) -> tuple[torch.Tensor, ToyState]:
        logits, state = super().step(token, state)
        logits = logits.clone()
        logits[:, EOS] = -1e9  # long targets, at any temperature
        if len(self.rows) > self.first:
            logits[:, EOS if self.only_end else slice(None)] = self.value
        return logits, state


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("search", SEARCHES)
def test_logits_that_are_no_numbers_are_an_error(search: str, value: float, first: int) -> None:
    with pytest.raises(Seq2attnError, match="probabilities are not numbers"):
        SEARCHES[search](Broken(value, first))


@pytest.mark.parametrize("search", SEARCHES)
def test_targets_end_where_the_end_is_impossible(search: str) -> None:
    found = SEARCHES[search](Broken(float("-inf"), 0, only_end=True))
    assert [len(hypothesis.tokens) for hypothesis in found] == [9, 9]


@pytest.fixture
def on_meta() -> Iterator[None]:
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def test_the_default_device_changes_nothing(on_meta: None, tmp_path: Path) -> None:
    options = {"beam": 2, "nbest": 2}, {"sample": True, "seed": 3}
    results = [seq2attn.load(tiny_runs.MODEL, device="cpu").translate("Wo ist Tom?", **o) for o in options]
    tagger = tiny_runs.MODEL.parents[1] / "model_0.2" / "tagger" / "run"
    tagged = seq2attn.load(tagger, device="cpu").tag(["Tom lives in Oslo .", ""])
    weights = tiny_runs.train(tmp_path / "meta", *tiny_runs.MODELS["lstm"], "training.max_steps=2").run
    torch.set_default_device(None)
    expected = [seq2attn.load(tiny_runs.MODEL, device="cpu").translate("Wo ist Tom?", **o) for o in options]
    assert [str(result) for result in results] == [str(result) for result in expected]
    assert str(tagged[0]) == str(seq2attn.load(tagger, device="cpu").tag("Tom lives in Oslo ."))
    plain = tiny_runs.train(tmp_path / "plain", *tiny_runs.MODELS["lstm"], "training.max_steps=2").run
    assert tiny_runs.weights_hash(weights) == tiny_runs.weights_hash(plain)


FACTORIES = {"arange", "as_tensor", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn"}
FACTORIES |= {"randperm", "tensor", "zeros"}
SOURCES = sorted(Path(seq2attn.__file__).parent.rglob("*.py"))


def unsaid(node: ast.AST, constructing: bool = False) -> Iterator[int]:
    """The lines that make a tensor on no given device. In a constructor, parameters are made where modules
    of torch are."""
    if isinstance(node, ast.FunctionDef):
        constructing = node.name == "__init__"
    if isinstance(node, ast.Call) and isinstance(function := node.func, ast.Attribute) and not constructing:
        of_torch = isinstance(function.value, ast.Name) and function.value.id == "torch"
        if of_torch and function.attr in FACTORIES and "device" not in {word.arg for word in node.keywords}:
            yield node.lineno
    for child in ast.iter_child_nodes(node):
        yield from unsaid(child, constructing)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_device_of_every_tensor_is_said(path: Path) -> None:
    assert not list(unsaid(ast.parse(path.read_text(encoding="utf-8"))))
