"""Run commands as a user types them."""

import contextlib
import io
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from seq2attn.__main__ import main
from seq2attn.cli import cli

GERMAN = "Tom ist nicht hier.\n\nWo ist Tom?\n"
ENGLISH = "Tom isn't here.\n\nWhere's Tom?\n"
ROOT = Path(__file__).parents[1]
MODEL = str(ROOT / "tests" / "model_0.2" / "run")  # a run of an older format, as users have them
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(*words: str, stdin: str | bytes = "") -> Result:
    """Run a command that succeeds."""
    result = CliRunner().invoke(cli, words, input=stdin, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def fails(*words: str, stdin: bytes = b"") -> tuple[int, str]:
    """Run a command that fails. Return its exit status and its error message."""
    stderr = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(stderr),
        pytest.raises(SystemExit) as status,
    ):
        patch.setattr(sys, "argv", ["seq2attn", *words])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        main()
    assert "Traceback" not in stderr.getvalue()
    return int(status.value.code or 0), stderr.getvalue()


def pair_files(folder: Path) -> tuple[str, str]:
    """Write a file of German sentences and its translation; return their paths."""
    for name, text in (("in.de", GERMAN), ("out.en", ENGLISH)):
        (folder / name).write_text(text, encoding="utf-8")
    return str(folder / "in.de"), str(folder / "out.en")
