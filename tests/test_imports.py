"""The rooms of the package in their order: imports go upward, nothing goes in circles, heavy imports wait."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "seq2attn"
ORDER = [  # a room is a folder, or a file of the package itself
    *(
        "version",
        "errors",
        "registry",
        "optim",
        "runtime",
        "text",
        "images",
        "alignment",
        "attention",
        "layers",
    ),
    *(
        "metrics",
        "recipe",
        "data",
        "models",
        "views",
        "training",
        "pretrained",
        "inference",
        "tasks",
        "runs",
        "serving",
        "cli",
        "__main__",
    ),
]
HEAVY = {"torch", "numpy", "datasets", "matplotlib", "sacrebleu", "sentencepiece", "pydantic", "rich"}
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES
}


def room(module: str) -> str:
    """The room of a module; that of the package itself is empty."""
    return module.split(".")[1] if "." in module else ""


def imported(tree: ast.AST) -> Iterator[str]:
    """All modules of the package that the code imports: lazily, for type checkers only, or at once."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "seq2attn")
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            for alias in node.names if (node.module or "").split(".")[0] == "seq2attn" else ():
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


GRAPH = {
    module: set(imported(ast.parse(path.read_text(encoding="utf-8")))) - {module}
    for module, path in MODULES.items()
}


def loaded(code: str) -> set[str]:
    """What a fresh Python has imported after the code."""
    code = f"import sys\ntry:\n    {code}\nfinally:\n    print('\\n' + ' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.splitlines()[-1].split())


def test_every_module_has_its_room():
    assert {room(module) for module in MODULES} == {"", *ORDER} and len(set(ORDER)) == len(ORDER)


def test_imports_go_only_upwards():
    """One test for all files, as are those of their lines below: hundreds would take longer to report."""
    downwards = [
        (module, other)
        for module in MODULES
        if room(module)
        for other in GRAPH[module]
        if room(other) not in ORDER[: ORDER.index(room(module)) + 1]
    ]
    assert not downwards and len(GRAPH) > 200


@pytest.mark.parametrize("name", [name for name in ORDER if (PACKAGE / name).is_dir()])
def test_nothing_within_a_room_goes_in_a_circle(name):
    inside = {module for module in MODULES if room(module) == name}
    try:
        TopologicalSorter({module: GRAPH[module] & inside for module in inside}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_an_init_only_re_exports():
    for path in FILES:
        if path.name != "__init__.py" or path.parent == PACKAGE:
            continue
        docstring, *body = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(docstring, ast.Expr), path
        for node in body:
            is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            assert is_all or isinstance(node, ast.ImportFrom), (path, ast.unparse(node))


def test_the_design_lists_the_rooms_in_their_order():
    listing = re.search(
        r"```\n(version .*?)```", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), re.S
    )
    assert listing
    assert re.findall(r"^(\w+)", listing[1], re.MULTILINE) == ORDER


def test_the_design_names_every_file_of_a_room():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    listing = re.search(r"```\n(version .*?)```", text, re.S)
    assert listing
    for entry in re.split(r"\n(?=\w)", listing[1].strip()):
        name, *words = entry.split()
        if (PACKAGE / name).is_dir():
            inside = {path.stem for path in (PACKAGE / name).glob("*.py")} - {"__init__"}
            inside |= {path.parent.name for path in (PACKAGE / name).glob("*/__init__.py")}
            assert inside <= {word.strip(",:;()/") for word in words}, name


def test_importing_the_package_imports_nothing_heavy():
    assert not loaded("import seq2attn") & HEAVY


def test_help_imports_nothing_heavy():
    modules = loaded("from seq2attn.cli import cli; cli(['--help'], standalone_mode=False)")
    assert "click" in modules and not modules & HEAVY


def test_scoring_texts_imports_no_torch(tmp_path):
    (tmp_path / "texts").write_text("a b\n")
    options = ["--hypotheses", str(tmp_path / "texts"), "--references", str(tmp_path / "texts")]
    words = ["score", *options, "--metric", "exact"]
    modules = loaded(f"from seq2attn.cli import cli; cli({words}, standalone_mode=False)")
    assert "seq2attn.metrics" in modules and "torch" not in modules


@pytest.mark.parametrize(
    ("modules", "waits"),
    [
        (["text"], HEAVY - {"numpy", "sentencepiece"}),
        (["metrics"], HEAVY - {"numpy"}),
        (["views.heatmaps"], HEAVY - {"numpy", "matplotlib"}),
        # What none of them imports: one Python, of which each start imports torch.
        (["inference.results", "data", "models.seq2seq"], {"matplotlib", "datasets", "sacrebleu"}),
    ],
)
def test_what_is_heavy_waits_until_it_is_needed(modules, waits):
    assert not loaded(f"import {', '.join(f'seq2attn.{module}' for module in modules)}") & waits


def test_public_names_are_there_when_asked_for():
    modules = loaded(
        "import seq2attn; assert set(seq2attn.__all__) <= set(dir(seq2attn)), dir(seq2attn); "
        "[getattr(seq2attn, name) for name in seq2attn.__all__]"
    )
    assert "torch" in modules


def test_names_of_modules_that_moved_still_work():
    moved = [
        ("flow.BidirectionalFlow", "attention.bidirectional"),
        ("normalizers.NORMALIZERS", "attention.normalizers"),
        ("pooling.Pooling", "attention.pooling"),
        ("positions.POSITIONS", "attention.positions"),
        ("process.settle", "runtime.process"),
        ("scorers.SCORERS", "attention.scorers"),
        ("scorers.products.General", "attention.scorers.products"),
        ("normalizers.dense.Softmax", "attention.normalizers.dense"),
    ]
    forget = "[sys.modules.pop(name) for name in list(sys.modules) if name.split('.')[0] == 'seq2attn']"
    lines = []
    for old, new in moved:
        module, _, name = old.rpartition(".")
        lines += [
            forget,  # each is the first that is asked for
            f"import seq2attn.{module}; from seq2attn.{module} import {name}; import seq2attn.{new} as new",
            f"assert seq2attn.{module} is new and new.{name} is {name}, {old!r}",
            "assert new.__spec__.name == new.__name__, new",
        ]
    loaded("; ".join(lines))


def test_other_names_are_an_error():
    import seq2attn

    with pytest.raises(AttributeError, match="module 'seq2attn' has no attribute 'atention'"):
        _ = seq2attn.atention


TESTS = sorted((ROOT / "tests").rglob("*.py"))


def test_files_are_short():
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in (*FILES, *TESTS)}
    assert not {path: count for path, count in lines.items() if count > 400}


def test_no_test_imports_a_test():
    for path in TESTS:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        ]
        assert not [module for module in modules if module.split(".")[-1].startswith("test_")], path
