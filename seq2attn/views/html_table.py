"""Weights as a shaded HTML table, for notebooks."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def pale(text: str) -> str:
    return f"<span style='font-size:.85em;opacity:.6'>{text}</span>"


_PLAIN = "border:none;background:none;font-weight:400;padding:2px 6px"


_CELL = "border:1px solid rgba(128,128,128,.15);min-width:1.6em;height:1.6em;padding:0"


def table(weights: Sequence[Sequence[float]], columns: Sequence[str], rows: Sequence[str]) -> str:
    """An HTML table; a cell is as blue as its weight is large, and tells it under the mouse."""
    # upright heads would make the table of a long sentence wider than the page
    turned = "writing-mode:vertical-rl;" if sum(map(len, columns)) > 80 else ""
    heads = "".join(
        f"<th style='{_PLAIN}'><span dir='auto' style='{turned}white-space:nowrap'>{escape(word)}</span></th>"
        for word in columns
    )
    lines = f"<tr style='background:none;vertical-align:bottom'><th style='{_PLAIN}'></th>{heads}</tr>"
    for word, row in zip(rows, weights, strict=True):
        cells = "".join(
            f"<td title='{weight:.2f}' style='{_CELL};background:rgba(35,117,184,{weight:.2f})'></td>"
            for weight in row
        )
        head = f"<th dir='auto' style='{_PLAIN};text-align:right'>{escape(word)}</th>"
        lines += f"<tr style='background:none'>{head}{cells}</tr>"
    return f"<table style='border-collapse:collapse;border:none;margin:0'>{lines}</table>"
