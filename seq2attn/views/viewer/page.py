"""A page: one HTML file with its data, style and scripts, which loads nothing and sends nothing."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from seq2attn.version import __version__
from seq2attn.views.viewer.document import FORMAT, Item
from seq2attn.views.viewer.packing import ViewError

# In the order in which they use each other.
SCRIPTS = ("data", "state", "words", "matrix", "steps", "images", "table", "shell")
LARGEST = 50_000_000  # bytes of a page
_HEIGHT = 560  # pixels of a page in a notebook
_ABOUT = (
    f"Made with seq2attn {__version__}. Weights are rounded to the nearest of 256 steps between the smallest "
    "and the largest of a layer. This page loads nothing from a network."
)


class Page:
    """Results as one HTML file, which notebooks show.

    title: of the page; runs: the names of the runs that are compared, or of the only one; items: sentences or
    images, each with an entry of each run; exact: weights as float32, instead of a byte for each.
    """

    def __init__(self, title: str, runs: Sequence[str], items: Sequence[Item], exact: bool = False) -> None:
        self.title, self.runs, self.items, self.exact = title, list(runs), list(items), exact

    def to_json(self) -> dict[str, Any]:
        """Return the data of the page, for json.dumps; `schema.json` describes them."""
        items = [item.to_json(self.exact) for item in self.items]
        runs = [{"name": name} for name in self.runs]
        return {"format": FORMAT, "title": self.title, "about": _ABOUT, "runs": runs, "items": items}

    def html(self, static: str = "") -> str:
        """Return the file's content. ViewError if there is nothing to show, or too much.

        static: HTML that is shown in the place of the page where scripts are off.
        """
        if not self.items:
            raise ViewError("there is nothing to show: give at least one sentence or image")
        data = _harmless(json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":")))
        static = static or f"<p>{escape(self.title)}: this page needs JavaScript.</p>"
        page = (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{_policy()}\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n"
            f'<noscript>{static}</noscript>\n<main id="page"></main>\n'
            f'<script type="application/json" id="data">{data}</script>\n<script>{_script()}</script>\n'
            "</body>\n</html>\n"
        )
        if len(page) > LARGEST:
            raise ViewError(
                f"the page would have {len(page) / 1e6:.0f} MB, more than {LARGEST // 1_000_000}: give fewer "
                "or shorter sentences, or leave out self-attention, exact weights or other hypotheses"
            )
        return page

    def save(self, path: str | Path) -> None:
        """Write the file. ViewError if it cannot be written."""
        path, content = Path(path), self.html().encode()
        try:
            path.write_bytes(content)
        except OSError as error:
            raise ViewError(f"cannot write {path}: {error.strerror}") from error

    def in_notebook(self, static: str = "") -> str:
        """Return HTML that shows the page within another one, as that of a notebook: neither can reach the
        other. static: HTML that is shown instead where scripts are off."""
        return (
            f'<iframe srcdoc="{escape(self.html(static))}" sandbox="allow-scripts allow-downloads" '
            f'title="seq2attn" style="width:100%;height:{_HEIGHT}px;border:0"></iframe>'
        )

    def _repr_html_(self) -> str:
        return self.in_notebook()


@lru_cache(maxsize=1)
def _script() -> str:
    """Return the code of all scripts, whose names are their own."""
    folder = files("seq2attn.views.viewer")
    code = "".join(folder.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    code = re.sub(r"^ *(//| \*|/\*).*\n", "", code, flags=re.MULTILINE)  # comments
    return f'(() => {{\n"use strict";\n{code}}})();'


@lru_cache(maxsize=1)
def _style() -> str:
    return files("seq2attn.views.viewer").joinpath("page.css").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _policy() -> str:
    """Return the rule that nothing but this script runs, and that nothing is loaded or sent."""
    checksum = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    rules = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; "
        f"img-src data: blob:; script-src 'sha256-{checksum}'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


def _harmless(data: str) -> str:
    """Return JSON that cannot end the element that it stands in, whatever the sentences are."""
    for sign in "<>&\u2028\u2029":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    return data
