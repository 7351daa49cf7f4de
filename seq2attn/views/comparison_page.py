"""A comparison of systems as a figure, and as one HTML page that needs nothing else."""

import re
from collections.abc import Iterable, Sequence
from html import escape

from matplotlib.figure import Figure

from seq2attn.metrics.comparison_report import (
    ComparisonReport,
    Differing,
    Measured,
    Section,
    difference_text,
    ngram_title,
    value_text,
)
from seq2attn.views.pictures import DARK, PALE, Picture, PlotError, render, text_style

COLORS = ("#235797", "#c2542d", "#3f8f5b", "#8d5aa8", "#a58a1f", "#4aa3bf")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root { color-scheme: light dark; --line: rgba(128,128,128,.3); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { text-align: start; vertical-align: top; padding: .25rem .75rem; }
tr { border-bottom: 1px solid var(--line); }
td.number { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
small, .pale { opacity: .65; }
mark { background: rgba(194,84,45,.22); color: inherit; border-radius: .2em; }
figure { margin: 0; overflow-x: auto; background: white; }
figure svg { max-width: 100%; height: auto; }
""".strip()


def length_figure(report: ComparisonReport) -> Figure:
    """Draw the first metric by the length of the source, a line for each system, with 95 % intervals; as
    Bahdanau et al. 2015, figure 2.

    PlotError if the report has no parts by length.
    """
    section = next((section for section in report.sections if section.key == "by_length"), None)
    if section is None:
        raise PlotError("nothing to draw: these inputs have no lengths; give the inputs, and the part length")
    figure = Picture(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    style = text_style("".join(report.systems))
    for number, system in enumerate(report.systems):
        values = [part.comparison.values[number] for part in section.parts]
        shift = 0.06 * (number - (len(report.systems) - 1) / 2)
        places = [place + shift for place in range(len(values))]
        heights = [value.value for value in values]
        color = COLORS[number % len(COLORS)]
        axes.plot(places, heights, color=color, marker="o", markersize=4, label=system)
        for place, value in zip(places, values, strict=True):
            if value.low is not None and value.high is not None:
                axes.vlines(place, value.low, value.high, color=color, alpha=0.45, linewidth=2)
    ticks = [f"{part.name}\n({part.size:,})" for part in section.parts]
    axes.set_xticks(range(len(ticks)), ticks, color=DARK, size=9)
    metric = section.title.partition(" by ")[0]
    axes.set_xlabel("words of the source (number of sources)", color=PALE)
    axes.set_ylabel(metric, color=PALE)
    axes.grid(axis="y", color="#e9edf1")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, prop={"family": style["family"]})
    return figure


def page(report: ComparisonReport) -> str:
    """Return a report as one HTML page, which loads nothing and runs nothing."""
    title = f"{', '.join(report.systems[1:])} compared with {report.systems[0]}"
    blocks = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='pale'>{report.count:,} inputs; intervals of 95 %; {escape(report.described)}</p>",
        _table(report.systems, "metric", "", report.metrics),
        "".join(
            f"<p><small>{escape(measured.name)} |{escape(measured.signature)}|</small></p>"
            for measured in report.metrics
        ),
        *(_section(report, section) for section in report.sections),
        _ngrams(report),
        _differing(report),
    ]
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(filter(None, blocks))
        + "\n</body></html>"
    )


def _section(report: ComparisonReport, section: Section) -> str:
    """Return the table of a section, below its figure if it has one."""
    figure = ""
    if section.key == "by_length":
        svg = render(length_figure(report), "svg").decode()
        figure = f"<figure>{svg[svg.index('<svg') :]}</figure>"
    table = _table(report.systems, "part", section.unit, section.parts)
    return f"<h2>{escape(section.title)}</h2>{figure}{table}"


def _table(systems: Sequence[str], kind: str, unit: str, measured: Iterable[Measured]) -> str:
    """Return a table with a row for each metric or part."""
    counted = [unit] if unit else []
    compared = [f"{system} - {systems[0]}" for system in systems[1:]]
    headings = "".join(f"<th>{escape(name)}</th>" for name in (kind, *counted, *systems, *compared))
    rows = []
    for part in measured:
        values, differences = part.comparison
        cells = [
            *([f"{part.size:,}"] if unit else []),
            *(value_text(value, part.digits) for value in values),
            *(difference_text(difference, part.digits) for difference in differences),
        ]
        numbers = "".join(f"<td class='number'>{escape(cell.strip())}</td>" for cell in cells)
        rows.append(f"<tr><th>{escape(part.name)}</th>{numbers}</tr>")
    return f"<table><tr>{headings}</tr>{''.join(rows)}</table>"


def _ngrams(report: ComparisonReport) -> str:
    """Return tables of n-grams that one of two systems has right more often."""
    blocks = []
    for system, (first, other) in report.ngrams:
        names = report.systems[0], system
        headings = "".join(f"<th>{escape(name)}</th>" for name in ("n-gram", *names, "references"))
        for ngrams, better in zip((first, other), names, strict=True):
            rows = [
                f"<tr><td dir='auto'>{escape(ngram.text)}</td>"
                + "".join(f"<td class='number'>{count:g}</td>" for count in (*ngram.matched, ngram.reference))
                + "</tr>"
                for ngram in ngrams
            ]
            title = escape(ngram_title(better, *names))
            blocks += [f"<h2>{title}</h2><table><tr>{headings}</tr>{''.join(rows)}</table>"] if rows else []
    return "".join(blocks)


def _differing(report: ComparisonReport) -> str:
    """Return the inputs that differ most: words of an output that the reference has not are marked."""
    if not report.differing:
        return ""
    blocks = [f"<h2>Inputs that differ most, by {escape(report.ranked_by)}</h2>"]
    for differing in report.differing:
        rows = [
            _row(name, "", escape(text))
            for name, text in (("source", differing.source), ("reference", differing.reference))
            if text
        ]
        for number, system in enumerate(report.systems):
            score = f"{differing.scores[number]:.1f}"
            rows.append(_row(system, score, _marked(differing, number)))
        blocks.append(f"<p class='pale'>number {differing.row + 1:,}</p><table>{''.join(rows)}</table>")
    return "".join(blocks)


def _row(name: str, score: str, html: str) -> str:
    text = html.replace("\n", "<br>")
    return f"<tr><th>{escape(name)}</th><td class='number'>{score}</td><td dir='auto'>{text}</td></tr>"


def _marked(differing: Differing, number: int) -> str:
    """Return the HTML of an output with marks on words that the reference has not."""
    known = set(re.findall(r"\w+", differing.reference))
    parts = re.split(r"(\w+)", differing.outputs[number])
    return "".join(
        f"<mark>{escape(part)}</mark>"
        if place % 2 and differing.reference and part not in known
        else escape(part)
        for place, part in enumerate(parts)
    )
