"""What all tests share: shapes are types, one thread, stores of their own, tiny trained runs."""

import contextlib
import itertools
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import install_import_hook
from shapes import unchecked

PACKAGE = Path(__file__).parents[1] / "seq2attn"

# Every module that writes shapes has them checked at every call; the hook must come before their import.
install_import_hook(
    [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if re.search("^from jaxtyping import", path.read_text(encoding="utf-8"), re.MULTILINE)
    ],
    "beartype.beartype",
)
torch.set_num_threads(1)  # tensors in tests are too small to share


@pytest.fixture(scope="session", autouse=True)
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tokenised data go into a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQ2ATTN_CACHE", str(tmp_path_factory.mktemp("stores")))
        yield


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Without checks of shapes, for tests that repeat calls of the same shapes many times."""
    with unchecked():
        yield


@pytest.fixture(scope="session", autouse=True)
def _first_updates_are_checked() -> Iterator[None]:
    """In a training, the shapes of the first two updates are checked: the others repeat them."""
    from seq2attn.training.trainer import Trainer

    update = Trainer.update

    def checked_at_first(self: Trainer, batches: Any, step: int, company: Any = None) -> Any:
        with unchecked() if step > 2 else contextlib.nullcontext():
            return update(self, batches, step, company)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", checked_at_first)
        yield


@pytest.fixture(scope="session", autouse=True)
def _first_steps_are_checked() -> Iterator[None]:
    """In a search, the shapes of the first two steps are checked, likewise."""
    from seq2attn.inference.generator import Generator

    search, step = Generator._search, Generator._step
    steps = itertools.count(1)

    def search_anew(self: Generator, *arguments: Any, **options: Any) -> Any:
        nonlocal steps
        steps = itertools.count(1)
        return search(self, *arguments, **options)

    def checked_at_first(self: Generator, token: Any, state: Any) -> Any:
        with unchecked() if next(steps) > 2 else contextlib.nullcontext():
            return step(self, token, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generator, "_search", search_anew)
        patch.setattr(Generator, "_step", checked_at_first)
        yield


@pytest.fixture(scope="session")
def runs(stores: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny trained run of each kind; not to be changed: copy what you change."""
    import tiny_runs

    folder = tmp_path_factory.mktemp("runs")
    return {kind: tiny_runs.train(folder / kind, *tiny_runs.MODELS[kind]).run for kind in tiny_runs.MODELS}


@pytest.fixture
def corpora(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder $SEQ2ATTN_DATA of the shipped recipes, with empty files."""
    import tiny_recipes

    folder = tiny_recipes.empty_corpora(tmp_path_factory.getbasetemp() / "corpora")
    monkeypatch.setenv("SEQ2ATTN_DATA", str(folder))
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that no other test uses."""
    import datasets

    folder = tmp_path / "cache"
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(folder))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    return folder


@pytest.fixture
def copies(tmp_path: Path, own_cache: Path) -> dict[str, dict[str, Any]]:
    """Local datasets of all kinds with the same rows: their corpora."""
    import tiny_corpora

    return tiny_corpora.local_datasets(tmp_path)


@pytest.fixture(scope="session")
def vocabularies() -> tuple[Any, Any]:
    """Vocabularies of the two languages of the sample corpus."""
    import tiny_corpora

    return tiny_corpora.sample_vocabularies()


@pytest.fixture(scope="session")
def translators(runs: dict[str, Path]) -> dict[str, Any]:
    """The tiny runs, and the model that says something sensible, as translators."""
    import tiny_runs

    from seq2attn.tasks.loading import load

    return {kind: load(run, device="cpu") for kind, run in {"model": tiny_runs.MODEL, **runs}.items()}


@pytest.fixture
def handlers() -> Iterator[list[Any]]:
    """What handles signals before; it must be so again."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield before
    assert [signal.getsignal(number) for number in numbers] == before
