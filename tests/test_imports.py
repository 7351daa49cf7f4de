"""Modules import only from those above them, and what is heavy waits until it is needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "seq2attn"
ORDER = [  # the way of the data; a package counts as one module
    *("__init__", "errors", "atomic", "blocks", "states"),
    *(
        "attention",
        "hierarchy",
        "heads",
        "scorers",
        "normalizers",
        "positions",
        "layers",
        "recurrent",
        "encoders",
    ),
    "decoders",
    *("pooling", "flow", "tags", "crf", "lexicon", "words", "labellers"),
    *(
        "cross_entropy",
        "losses",
        "labelling",
        "schedules",
        "recipe",
        "sentences",
        "subwords",
        "text",
        "alignment",
    ),
    *(
        "data",
        "batches",
        "models",
        "building",
        "search",
        "inference",
        "metrics",
        "baselines",
        "plots",
        "results",
        "annotations",
        "checkpoint",
        "faces",
        "translator",
        "recognizer",
        "vectors",
        "tasks",
    ),
    *("training", "display", "runs", "checking", "bench", "cli", "process", "__main__"),
]
HEAVY = {"torch", "numpy", "datasets", "matplotlib", "sacrebleu", "sentencepiece", "pydantic", "rich"}


def name(path: Path) -> str:
    """The module or package of a file, as in ORDER."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(node: ast.AST) -> Iterator[str]:
    """The modules of ORDER that are imported when this code runs, outside of functions."""
    for child in ast.iter_child_nodes(node):
        found = []
        if isinstance(child, ast.Import):
            found = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            origin = "." * child.level + (child.module or "")
            found = [f"{origin}.{alias.name}" for alias in child.names]
        elif not isinstance(child, ast.FunctionDef) and not (
            isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        ):
            yield from imports(child)
        for first, second in (f"{module}.".split(".")[:2] for module in found):
            if first in ("seq2attn", ""):
                yield second if second in ORDER else "__init__" if first else "a relative import"


def loaded(code: str) -> set[str]:
    """What a fresh Python has imported after the code."""
    code = f"import sys\ntry:\n    {code}\nfinally:\n    print('\\n' + ' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.splitlines()[-1].split())


def test_every_module_has_its_place():
    modules = {name(path) for path in PACKAGE.rglob("*.py")}
    assert modules == set(ORDER) and len(ORDER) == len(modules)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_go_only_upwards(path):
    above = ORDER[: ORDER.index(name(path))]
    here = [name(path)] if path.parent != PACKAGE else []  # within a package
    assert set(imports(ast.parse(path.read_text(encoding="utf-8")))) <= {*above, *here}


def test_importing_the_package_imports_nothing_heavy():
    assert not loaded("import seq2attn") & HEAVY


def test_help_imports_nothing_heavy():
    modules = loaded("from seq2attn.cli import cli; cli(['--help'], standalone_mode=False)")
    assert "click" in modules and not modules & HEAVY


@pytest.mark.parametrize(
    ("module", "waits"),
    [
        ("text", HEAVY - {"numpy", "sentencepiece"}),
        ("metrics", HEAVY - {"numpy"}),
        ("plots", HEAVY - {"numpy", "matplotlib"}),
        ("results", {"matplotlib", "datasets", "sacrebleu"}),
        ("data", {"datasets", "matplotlib", "sacrebleu"}),
        ("models", {"datasets", "matplotlib", "sacrebleu"}),
    ],
)
def test_what_is_heavy_waits_until_it_is_needed(module, waits):
    assert not loaded(f"import seq2attn.{module}") & waits


def test_public_names_are_there_when_asked_for():
    modules = loaded("import seq2attn; [getattr(seq2attn, name) for name in seq2attn.__all__]")
    assert "torch" in modules
    assert loaded("import seq2attn; assert set(seq2attn.__all__) <= set(dir(seq2attn)), dir(seq2attn)")


def test_other_names_are_an_error():
    import seq2attn

    with pytest.raises(AttributeError, match="module 'seq2attn' has no attribute 'atention'"):
        _ = seq2attn.atention
