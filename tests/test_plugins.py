"""Parts of other packages: found by their entry point, at home everywhere at once."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tiny import SOURCE, TARGET, reads, recurrent_decoder, recurrent_encoder, sources, transformer
from tiny_cli import fails

from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import SCORERS
from seq2attn.cli import cli
from seq2attn.errors import Seq2attnError
from seq2attn.inference.beam_search import beam_search
from seq2attn.inference.search import Rules
from seq2attn.metrics import METRICS
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import ModelRecipe, read, schema
from seq2attn.recipe.plugins import load_plugins
from seq2attn.runs.attention_bench import compare, variants
from seq2attn.tasks.loading import load

PACKAGE = '''
from torch import Tensor

from seq2attn.attention import Past
from seq2attn.attention.scorers import SCORERS, Dot


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
        weights = model.eval()(sources(5, 3), reads(2, 4), weights_of=(0,)).weights
        assert torch.allclose(weights.sum(-1), torch.ones(()))
        found = beam_search(
            model.step, model.start(sources(5, 3)), Rules(bos=2, eos=3), torch.tensor([6, 6]), 3
        )
        assert len(found) == 2 and all(found)


def test_a_package_of_old_names_is_told_the_new_ones(tmp_path):
    code = PACKAGE.replace('"harmonic"', '"former"') + "\n\nclass Old(Dot):\n    looks_back = True\n"
    (tmp_path / "former_parts.py").write_text(code)
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    words = [sys.executable, "-m", "seq2attn", "--import", "former_parts", "recipes"]
    done = subprocess.run(words, env=os.environ | paths, capture_output=True, text=True, check=True)
    assert "seq2attn: warning: Old.looks_back is deprecated: use its new name, Old.stateful" in done.stderr


@pytest.mark.usefixtures("forgetful")
def test_it_is_in_bench_and_heat_map(tmp_path, monkeypatch):
    install(tmp_path, "harmonic_parts", monkeypatch)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))  # training is a process
    small = ["data.train.0.count=200", "data.dev.count=20", "data.test.count=20", "training.max_steps=2"]
    variant = variants(read("copy_additive"), [{"name": "harmonic", "gain": 2.0}])
    (row,) = compare("copy_additive", variant, tmp_path / "bench", overrides=small, report=str)
    assert not row.failed and row.name == "harmonic (gain 2.0)" and row.numbers["updates"] == 2
    model = load(tmp_path / "bench" / "harmonic__gain_2.0_-1")
    assert type(model.model.decoder.attention.score).__name__ == "Harmonic"
    model.align("a b c", "a b c").plot(tmp_path / "harmonic.png")
    assert (tmp_path / "harmonic.png").stat().st_size > 1000
    SCORERS.pop("harmonic")  # as in a process that has not imported it
    message = "score.name: unknown 'harmonic' .*; others by importing their module, SEQ2ATTN_IMPORT or an entry point"
    with pytest.raises(Seq2attnError, match=message):
        load(tmp_path / "bench" / "harmonic__gain_2.0_-1")


@pytest.mark.usefixtures("forgetful")
def test_a_package_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    install(tmp_path, "harmonic_part", monkeypatch)
    with pytest.raises(Seq2attnError, match=r"harmonic-parts has parts .*harmonic_part.*fix or uninstall"):
        schema()
    (tmp_path / "harmonic_part.py").write_text("\n1 / 0\n")
    with pytest.raises(
        Seq2attnError, match=r"in harmonic_part, .*part\.py:2: ZeroDivisionError: .* uninstall it$"
    ):
        schema()


# ---- modules of one's own, by --import ------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a module into the working directory and imports it as the command line does; what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))  # so that sys.path is restored
    monkeypatch.setenv("SEQ2ATTN_IMPORT", "")
    before = {*sys.modules}

    def imported(name, **modules):
        for module, text in modules.items():
            (tmp_path / f"{module}.py").write_text(text)
        importlib.invalidate_caches()
        result = CliRunner().invoke(cli, ["--import", name, "recipes"])
        if result.exception is not None and not isinstance(result.exception, Seq2attnError):
            raise result.exception
        return str(result.exception or "")

    yield imported
    for module in {*sys.modules} - before:
        if str(tmp_path) in str(getattr(sys.modules[module], "__file__", "")):
            del sys.modules[module]


@pytest.mark.usefixtures("forgetful")
def test_a_module_of_ones_own_is_imported_also_by_the_processes_of_a_command(mine):
    assert mine("harmonic_parts", harmonic_parts=PACKAGE) == ""
    assert "harmonic" in SCORERS and os.environ["SEQ2ATTN_IMPORT"] == "harmonic_parts"


@pytest.mark.usefixtures("forgetful")
def test_a_module_in_the_working_directory_comes_first(mine, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "harmonic_parts.py").write_text("1 / 0")
    assert mine("harmonic_parts", harmonic_parts=PACKAGE) == ""


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("my_scorer.py", "give --import my_scorer"),
        ("parts/my_scorer.py", "give --import my_scorer, and put parts on PYTHONPATH"),
        ("/a/b/my_scorer.py", "give --import my_scorer, and put /a/b on PYTHONPATH"),
        ("./my_scorer", "give --import my_scorer"),
    ],
)
def test_a_file_is_no_module(mine, given, advice):
    """And is not run: to Python, my_scorer.py is the module py of the package my_scorer."""
    expected = "expected the name of a module, as Python imports it, not a file"
    assert mine(given, my_scorer="raise AssertionError") == f"--import {given}: {expected}: {advice}"


def test_what_is_no_class_is_refused_in_its_line(mine, tmp_path):
    code = "from seq2attn import SCORERS\n\nSCORERS['notaclass'] = 3\n"
    expected = "SCORERS['notaclass']: expected a subclass of Scorer (seq2attn.attention.interfaces), got 3"
    assert mine("mine", mine=code) == f"--import mine: {tmp_path}/mine.py:3: {expected}"


COMMAND = """
import click
from seq2attn.cli.options import cli

@cli.command()
def shout():
    click.echo("LOUD")
"""


def test_a_module_adds_a_command(mine):
    try:
        assert mine("loud", loud=COMMAND) == ""
        assert CliRunner().invoke(cli, ["--import", "loud", "shout"]).output == "LOUD\n"
        assert "shout" in CliRunner().invoke(cli, ["--import", "loud", "--help"]).output
    finally:
        cli.commands.pop("shout", None)


def test_a_command_of_a_module_is_looked_up_after_the_import(mine, tmp_path):
    (tmp_path / "loud.py").write_text(COMMAND)
    try:
        assert CliRunner().invoke(cli, ["--import", "loud", "shout"]).output == "LOUD\n"
    finally:
        cli.commands.pop("shout", None)


HOOKS = """
from seq2attn.attention import Normalizer, Scorer

class Mine({base}):
    def {method}:
        return None
"""


@pytest.mark.parametrize(
    ("base", "method", "said"),
    [
        (
            "Normalizer",
            "forward(self, scores, mask, query=None)",
            "Mine.forward must take the parameters (self, scores, mask, past, query), as in Normalizer; it takes "
            "(self, scores, mask, query)",
        ),
        (
            "Scorer",
            "keys(self)",
            "Mine.keys must take the parameters (self, states), as in Scorer; it takes (self)",
        ),
        (
            "Scorer",
            "forward(self, query, keys, past, more)",
            "Mine.forward must take the parameters (self, query",
        ),
        ("Scorer", "forward(self, query, keys, past, more=1)", ""),
        ("Scorer", "forward(self, *everything)", ""),
        ("Scorer", "helper(self, anything)", ""),
    ],
)
def test_a_hook_of_other_parameters_is_refused_where_it_is_defined(mine, base, method, said):
    found = mine("mine", mine=HOOKS.format(base=base, method=method))
    assert said in found and ("mine.py:4: Mine." in found) == bool(said)


def test_a_metric_of_other_parameters_is_refused_where_it_is_registered(mine):
    text = "from seq2attn.metrics import Metric\n\nMetric(lambda hypotheses, references: None, 'texts')\n"
    found = mine("mine", mine=text)
    assert "mine.py:3: a metric is called as function(hypotheses, references, bootstrap," in found


HELD = "class Mine:\n    width = 1\n    height = 2 * wdth\n"


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({"mine": "x = 1\nclass Mine(:\n    pass\n"}, "mine.py:2: SyntaxError: "),
        ({"mine": "import torch\n\ntorch.zeros(-1)\n"}, "mine.py:3: RuntimeError: "),
        ({"mine": "import torch\n\ntorch.nn.Linear(3, 'x')\n"}, "mine.py:3: TypeError: "),
        (
            {"mine": "import no_such_module_at_all\n"},
            "mine.py:1: ModuleNotFoundError: No module named 'no_such_mod",
        ),
        ({"mine": HELD}, "mine.py:3: NameError: name 'wdth'"),
        ({"mine": "\nimport held\n", "held": HELD}, "held.py:3: NameError: name 'wdth'"),
        ({"mine": "def fill():\n    return {}['a']\n\nfill()\n"}, "mine.py:2: KeyError: 'a'"),
        ({"mine": "raise ValueError('one\\ntwo')\n"}, "mine.py:1: ValueError: one"),
        ({"mine": "raise RuntimeError\n"}, "mine.py:1: RuntimeError"),
    ],
)
def test_what_a_module_raises_is_one_line_with_its_place(mine, tmp_path, modules, said):
    found = mine("mine", **modules)
    assert found.startswith(f"--import mine: {tmp_path}/{said}") and "\n" not in found


def test_a_module_that_is_not_there(mine):
    where = "searched here, on PYTHONPATH and in the installed packages"
    assert mine("no_such_module") == f"--import no_such_module: No module named 'no_such_module'; {where}"


BROKEN = """
import torch

from seq2attn import SCORERS
from seq2attn.attention import Normalizer, Scorer
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.metrics import METRICS, Metric


class Silent(Scorer):
    def __init__(self, query_size, key_size):
        super().__init__()


class Misspelt(Silent):
    def forward(self, query, keys, past):
        return query @ kays.mT


class Narrow(Silent):
    def keys(self, states):
        return states @ torch.zeros(3, 4)


class Picky(Silent):
    def __init__(self, query_size, key_size):
        raise ValueError("no such size")


class Still(Normalizer):
    pass


def broken(hypotheses, references, bootstrap=1000, seed=1):
    return {}["a"]


SCORERS |= {"silent": Silent, "misspelt": Misspelt, "narrow": Narrow, "picky": Picky}
NORMALIZERS["still"] = Still
METRICS["broken"] = Metric(broken, "texts")
"""
SMALL = """
data: {languages: [a, b], train: {task: copy, count: 20}, dev: {task: copy, count: 5}}
text: {model: word, size: 40, byte_fallback: false}
model:
  encoder: {kind: recurrent, embedding: 4, size: 4}
  decoder: {kind: recurrent, embedding: 4, size: 8, order: luong, attention: {score: dot}}
training: {max_steps: 1, metric: exact}
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "model.decoder.attention.score=silent",
            "Silent must define how it scores: write forward() or dot()",
        ),
        ("model.decoder.attention.score=misspelt", "{}:17: NameError: name 'kays' is not defined"),
        ("model.decoder.attention.score=narrow", "{}:22: RuntimeError: mat1 and mat2 shapes cannot be mult"),
        ("model.decoder.attention.score=picky", "score: Picky: {}:27: ValueError: no such size (the decod"),
        ("model.decoder.attention.normalize=still", "Still must define how it normalizes: write forward()"),
        ("training.metrics=[exact, broken]", "{}:35: KeyError: 'a'"),
    ],
)
def test_what_a_part_raises_is_one_line_with_its_place(mine, tmp_path, change, said):
    (tmp_path / "recipe.yaml").write_text(SMALL)
    (tmp_path / "broken_parts.py").write_text(BROKEN)
    before = [(registry, dict(registry)) for registry in (SCORERS, NORMALIZERS, METRICS)]
    try:
        status, error = fails("--import", "broken_parts", "train", "recipe.yaml", change)
    finally:
        for registry, known in before:
            registry.clear()
            registry.update(known)
    assert status == 1 and said.format(tmp_path / "broken_parts.py") in error.splitlines()[-1]


def test_an_error_of_seq2attn_itself_keeps_its_traceback(mine, tmp_path):
    inner = "from seq2attn.text.words import words\n" + COMMAND.replace('click.echo("LOUD")', "words(3)")
    (tmp_path / "loud.py").write_text(inner)
    try:
        with pytest.raises(TypeError, match="expected string"):
            fails("--import", "loud", "shout")
    finally:
        cli.commands.pop("shout", None)
