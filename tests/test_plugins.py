"""Parts of other packages: found by their entry point, at home everywhere at once."""

import os
import sys
from pathlib import Path

import pytest
import torch
from tiny import SOURCE, TARGET, reads, recurrent_decoder, recurrent_encoder, sources, transformer

from seq2attn.bench import compare, variants
from seq2attn.errors import Seq2attnError
from seq2attn.models import build
from seq2attn.recipe import ModelRecipe, read, schema
from seq2attn.recipe.plugins import load_plugins
from seq2attn.scorers import SCORERS
from seq2attn.search import Rules, beam_search
from seq2attn.translator import load

PACKAGE = '''
from torch import Tensor

from seq2attn.attention import Past
from seq2attn.scorers import SCORERS, Dot


class Harmonic(Dot):
    """q . k / (1 + |k|^2)."""

    def __init__(self, query_size: int, key_size: int, *, gain: float = 1.0) -> None:
        super().__init__(query_size, key_size)
        self.gain = gain

    def keys(self, states: Tensor) -> Tensor:
        return self.gain * states / (1 + states.square().sum(-1, keepdim=True))


SCORERS["harmonic"] = Harmonic
'''


def install(folder: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in a folder, as pip would leave it."""
    (folder / "harmonic_parts.py").write_text(PACKAGE)
    info = folder / "harmonic_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: harmonic-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[seq2attn]\nharmonic = {module}\n")
    monkeypatch.syspath_prepend(str(folder))
    load_plugins.cache_clear()


@pytest.fixture
def forgetful():
    yield
    SCORERS.pop("harmonic", None)
    sys.modules.pop("harmonic_parts", None)
    load_plugins.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_a_package_brings_a_scorer(tmp_path, monkeypatch):
    install(tmp_path, "harmonic_parts", monkeypatch)
    assert "harmonic" in str(schema()) and [point.name for point in load_plugins()] == ["harmonic"]
    score = {"name": "harmonic", "gain": 2.0}
    recurrent = recurrent_decoder("luong", attention=None, size=10) | {"attention": {"score": score}}
    crossed = transformer(decoder=True) | {"cross_attention": {"score": score, "heads": 5}}
    for decoder, encoder in ((recurrent, recurrent_encoder()), (crossed, transformer())):
        torch.manual_seed(1)
        model = build(ModelRecipe.model_validate({"encoder": encoder, "decoder": decoder}), SOURCE, TARGET)
        tokens, mask = sources(5, 3)
        weights = model.eval()(tokens, mask, reads(2, 4), look=(0,)).weights
        assert torch.allclose(weights.sum(-1), torch.ones(()))
        found = beam_search(
            model.step, model.start(tokens, mask), Rules(bos=2, eos=3), torch.tensor([6, 6]), 3
        )
        assert len(found) == 2 and all(found)


@pytest.mark.usefixtures("forgetful")
def test_it_is_in_bench_and_heat_map(tmp_path, monkeypatch):
    install(tmp_path, "harmonic_parts", monkeypatch)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))  # training is a process
    small = ["data.train.0.count=200", "data.dev.count=20", "data.test.count=20", "training.max_steps=2"]
    variant = variants(read("copy_additive"), [{"name": "harmonic", "gain": 2.0}])
    (row,) = compare("copy_additive", variant, tmp_path / "bench", overrides=small, say=str)
    assert not row.failed and row.name == "harmonic (gain 2.0)" and row.updates == 2
    model = load(tmp_path / "bench" / "harmonic__gain_2.0_-1")
    assert type(model.model.decoder.attention.score).__name__ == "Harmonic"
    model.align("a b c", "a b c").plot(tmp_path / "harmonic.png")
    assert (tmp_path / "harmonic.png").stat().st_size > 1000


@pytest.mark.usefixtures("forgetful")
def test_a_package_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    install(tmp_path, "harmonic_part", monkeypatch)
    with pytest.raises(
        Seq2attnError, match=r"harmonic-parts brings parts .*harmonic_part.*mend or uninstall"
    ):
        schema()
