"""Parts of other packages: found by their entry point, at home everywhere at once."""

from pathlib import Path

import pytest
import torch
from tiny import SOURCE, TARGET, reads, recurrent_decoder, recurrent_encoder, sources, transformer

from seq2attn.errors import Seq2attnError
from seq2attn.models import build
from seq2attn.recipe import ModelRecipe, schema
from seq2attn.recipe.plugins import load_plugins
from seq2attn.scorers import SCORERS
from seq2attn.search import Rules, beam_search

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
def test_a_package_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    install(tmp_path, "harmonic_part", monkeypatch)
    with pytest.raises(
        Seq2attnError, match=r"harmonic-parts brings parts .*harmonic_part.*mend or uninstall"
    ):
        schema()
