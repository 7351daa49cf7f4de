"""HTML for notebooks: attention weights as a shaded table, and results as blocks of text."""

from collections.abc import Sequence
from html import escape

_HEADING = "border:none;background:none;font-weight:400;padding:2px 6px"
_CELL = "border:1px solid rgba(128,128,128,.15);min-width:1.6em;height:1.6em;padding:0"
MAX_CELLS = 10_000  # of a table; a page with more is slow
_LISTED = "border:none;padding:2px 6px;text-align:start;vertical-align:top"
_MAX_LETTERS = 300  # of a text in a table of results
_MAX_HEADING_LETTERS = 80  # of all columns together; beyond it the table would be wider than the page


def pale(text: str) -> str:
    """Return HTML of a text in small, pale letters."""
    return f"<span style='font-size:.85em;opacity:.6'>{text}</span>"


def block(html: str) -> str:
    """Return HTML of a result in the letters of a notebook, in the direction of its text."""
    return f"<div dir='auto' style='font-family:system-ui,sans-serif;overflow-x:auto'>{html}</div>"


def marked(html: str) -> str:
    """Return HTML of a part of a text, shaded."""
    return f"<mark style='background:rgba(35,117,184,.18);color:inherit;border-radius:.3em'>{html}</mark>"


def table(weights: Sequence[Sequence[float]], columns: Sequence[str], rows: Sequence[str]) -> str:
    """Return an HTML table in which a cell is as blue as its weight is large; its tooltip is the weight."""
    vertical = "writing-mode:vertical-rl;" if sum(map(len, columns)) > _MAX_HEADING_LETTERS else ""
    span = f"<span dir='auto' style='{vertical}white-space:nowrap'>"
    headings = "".join(f"<th style='{_HEADING}'>{span}{escape(word)}</span></th>" for word in columns)
    lines = f"<tr style='background:none;vertical-align:bottom'><th style='{_HEADING}'></th>{headings}</tr>"
    for word, row in zip(rows, weights, strict=True):
        cells = "".join(
            f"<td title='{weight:.2f}' style='{_CELL};background:rgba(35,117,184,{weight:.2f})'></td>"
            for weight in row
        )
        heading = f"<th dir='auto' style='{_HEADING};text-align:right'>{escape(word)}</th>"
        lines += f"<tr style='background:none'>{heading}{cells}</tr>"
    return f"<table style='border-collapse:collapse;border:none;margin:0'>{lines}</table>"


def beginning(text: str) -> str:
    """Return HTML of a text; of a long one, of its beginning."""
    return escape(text if len(text) <= _MAX_LETTERS else f"{text[:_MAX_LETTERS]}...")


def listing(headings: Sequence[str], rows: Sequence[Sequence[str]], more: int = 0) -> str:
    """Return an HTML table of results, which are numbered from 0.

    rows: the HTML of the cells below each heading.
    more: the number of rows that the table leaves out.
    """
    lines = "".join(f"<th style='{_LISTED}'>{pale(heading)}</th>" for heading in ("", *headings))
    lines = f"<tr style='background:none'>{lines}</tr>"
    for number, row in enumerate(rows):
        cells = "".join(f"<td dir='auto' style='{_LISTED}'>{cell}</td>" for cell in row)
        lines += f"<tr style='background:none'><th style='{_LISTED}'>{pale(str(number))}</th>{cells}</tr>"
    rest = f"<div>{pale(f'and {more:,} more')}</div>" if more else ""
    return f"<table style='border-collapse:collapse;border:none;margin:0'>{lines}</table>{rest}"
