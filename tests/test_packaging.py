"""What is in the checkout is in the package."""

from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parent.parent


def setup() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_every_package_is_listed() -> None:
    listed = set(setup()["options"]["packages"].split()) - {"seq2attn.recipes"}  # recipes/, by package_dir
    there = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "seq2attn").rglob("__init__.py")
    }
    assert listed == there


def test_every_file_that_is_no_code_is_listed() -> None:
    patterns = setup()["options.package_data"]["seq2attn"].split()
    listed = {path for pattern in patterns for path in (ROOT / "seq2attn").glob(pattern)}
    there = {
        path
        for path in (ROOT / "seq2attn").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert listed == there


def test_no_version_has_a_ceiling() -> None:
    requirements = setup()["options"]["install_requires"].split("\n")
    assert not [one for one in requirements if "<" in one or "==" in one or "~=" in one]
