"""Charts of trained variants: a number of each with its interval, and another as a bar beside it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from seq2attn.views.pictures import DARK, PALE, Picture, shortened, text_style

_POINT, _BAR, _LINE = "#235797", "#bfdfee", "#e9edf1"
_ROW, _WIDTH, _MARGINS = 0.34, 9.0, 0.9  # inches
_LEAST_SPAN = 1.0  # of an axis: nothing is seen in differences of a hundredth


class Panel(NamedTuple):
    """Numbers of variants, and the name of their axis."""

    label: str
    values: NDArray[np.float64]  # (variants,); or (variants, 3): value, low, high


def variant_chart(names: Sequence[str], intervals: Panel, bars: Panel, signed: bool = False) -> Picture:
    """Return a picture of numbers with their intervals, and of others as bars, a row for each variant.

    A number that is nan is left out. signed: the numbers are differences, and 0 has a line.
    """
    figure = Picture(figsize=(_WIDTH, _MARGINS + _ROW * len(names)), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    for axes, panel in ((left, intervals), (right, bars)):
        axes.set_title(panel.label, loc="left", size=10, pad=8, **text_style(panel.label) | {"color": PALE})
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=8, labelcolor=PALE)
        axes.hlines(
            range(len(names)), 0, 1, transform=axes.get_yaxis_transform(), color=_LINE, lw=0.8, zorder=0
        )
    left.set_yticks(range(len(names)), [shortened(name) for name in names])
    for label, name in zip(left.get_yticklabels(), names, strict=True):
        label.set(size=9, **text_style(name))
    left.set_ylim(len(names) - 0.5, -0.5)
    _draw_intervals(left, intervals.values, signed)
    _draw_bars(right, bars.values)
    return figure


def _draw_intervals(axes: Axes, values: NDArray[np.float64], signed: bool) -> None:
    """Draw a point and a line from low to high in each row of values (N, 3), and the number beside them."""
    known = values[np.isfinite(values).all(1)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    span = max(high - low, _LEAST_SPAN)
    first = low - 0.06 * span if signed else max(0.0, low - 0.06 * span)
    axes.set_xlim(first - 0.02 * span, first + 1.3 * span)
    if signed:
        axes.axvline(0, color=PALE, lw=0.8)
    for row, (value, start, end) in enumerate(values):
        if np.isfinite(value):
            axes.plot([start, end], [row, row], color=_POINT, lw=1.6, alpha=0.55)
            axes.plot(value, row, "o", color=_POINT, ms=5.5)
            number = f"{value:+.2f}" if signed else f"{value:.1f}"
            _write(axes, end, row, number)


def _draw_bars(axes: Axes, values: NDArray[np.float64]) -> None:
    """Draw a bar in each row, and its number beside it."""
    rows = np.flatnonzero(np.isfinite(values))
    axes.barh(rows, values[rows], height=0.56, color=_BAR)
    axes.set_xlim(0, 1.25 * max(float(values[rows].max(initial=0.0)), 1e-9))
    axes.set_xticks([])
    for row, value in zip(rows.tolist(), values[rows].tolist(), strict=True):
        _write(axes, value, row, f"{value:,.0f}" if value >= 100 else f"{value:.3g}")


def _write(axes: Axes, x: float, row: int, number: str) -> None:
    style: dict[str, Any] = text_style(number) | {"color": DARK}
    axes.annotate(number, (x, row), (5, 0), textcoords="offset points", va="center", size=8.5, **style)
