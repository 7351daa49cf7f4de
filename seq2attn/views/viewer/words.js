// The words of source and target with a line for each weight: beside each other, or as two texts.

const MANY = 170; // words, from which on they are two flowing texts

/** The weights from the threshold on, strongest first: [row, column, weight]. */
function strongest(matrix) {
  const found = [];
  matrix.values.forEach((weight, at) => {
    if (weight > 0 && weight >= state.threshold) found.push([Math.floor(at / matrix.columns.length), at % matrix.columns.length, weight]);
  });
  return found.sort((one, other) => other[2] - one[2]).slice(0, LINES);
}

/** Where words stand in two rows of the same width; null if they need more than there is. */
function inRows({ rows, columns, rowDirection, columnDirection }, width) {
  const size = 19;
  const widths = [columns, rows].map((labels) => labels.map((label) => widthOf(shown(label), size)));
  const totals = widths.map((all) => all.reduce((sum, one) => sum + one, 0));
  const gaps = widths.map((all) => Math.max(1, all.length - 1));
  const full = Math.max(...totals.map((total, side) => total + 18 * gaps[side]));
  if (full > width - 24) return null;
  const wide = Math.min(width - 24, full * 1.25, full + 220);
  const height = Math.min(300, 170 + 6 * Math.max(rows.length, columns.length));
  const place = (side, direction, y) => {
    const gap = Math.min(90, (wide - totals[side]) / gaps[side]);
    let left = (width - totals[side] - gap * (widths[side].length - 1)) / 2;
    const boxes = [];
    for (const index of direction === "rtl" ? count(widths[side].length).reverse() : count(widths[side].length)) {
      boxes[index] = { x: left + widths[side][index] / 2, y, width: widths[side][index], anchor: "middle" };
      left += widths[side][index] + gap;
    }
    return boxes;
  };
  return { height: height + 14, size, columns: place(0, columnDirection, 30), rows: place(1, rowDirection, height - 8),
    path: (from, to) => curve(from.x, from.y + 11, to.x, to.y - 24, true) };
}

/** Where words stand in two columns. */
function inColumns({ rows, columns }, width) {
  const size = 15;
  const most = Math.min(240, (width - 160) / 2);
  const widest = (labels) => Math.min(most, Math.max(...labels.map((label) => widthOf(shown(label), size)), 20));
  const [left, right] = [widest(columns), widest(rows)];
  const span = Math.max(90, Math.min(340, width - left - right - 60));
  const start = Math.max(0, (width - left - right - span) / 2);
  const tall = 24 * (Math.max(columns.length, rows.length) - 1);
  const place = (labels, x, anchor) => {
    const each = Math.min(44, tall / Math.max(1, labels.length - 1));
    return labels.map((label, index) => ({ x, y: 24 + (tall - each * (labels.length - 1)) / 2 + index * each, anchor,
      width: Math.min(most, widthOf(shown(label), size)) }));
  };
  return { height: tall + 48, size, most, columns: place(columns, start + left, "end"), rows: place(rows, start + left + span, "start"),
    path: (from, to) => curve(from.x + 10, from.y - 5, to.x - 10, to.y - 5, false) };
}

function drawWords(host, context) {
  const { matrix } = context;
  if (matrix.rows.length + matrix.columns.length > MANY) return drawTexts(host, context);
  const width = Math.max(280, host.clientWidth);
  const layout = inRows(matrix, width) ?? inColumns(matrix, width);
  const colours = palette();
  const svg = make("svg:svg", { width, height: layout.height, viewBox: `0 0 ${width} ${layout.height}`, role: "presentation", "font-family": FONT });
  const line = (row, column, style) => {
    const [from, to] = [layout.columns[column], layout.rows[row]];
    const path = make("svg:path", { d: from && to ? layout.path(from, to) : "", fill: "none", "stroke-linecap": "round", ...style });
    svg.append(path);
    return path;
  };
  for (const [source, target, kind] of (state.unit === "words" && context.gold) || []) {
    line(target, source + matrix.before, { stroke: colours.warm, "stroke-width": 1.6, opacity: 0.8, "stroke-dasharray": kind === "S" ? null : "1 5" });
  }
  const lines = strongest(matrix).map(([row, column, weight]) => {
    const share = weight / Math.max(matrix.high, 0.3);
    const path = line(row, column, { stroke: colours.accent, "stroke-width": (0.7 + 6.5 * share).toFixed(2) });
    return { path, row, column, opacity: 0.14 + 0.76 * share };
  });
  const words = ["column", "row"].flatMap((kind) => matrix[`${kind}s`].map((label, index) => {
    const { x, y, width, anchor } = layout[`${kind}s`][index];
    const left = x - { start: 0, middle: width / 2, end: width }[anchor];
    const back = make("svg:rect", { x: left - 6, y: y - layout.size - 2, width: width + 12, height: layout.size + 11, rx: 7 });
    const text = make("svg:text", { x, y, "text-anchor": anchor, "font-size": layout.size, "unicode-bidi": "plaintext",
      fill: kind === "column" && matrix.special(index) ? colours.pale : colours.ink },
      layout.most ? cut(shown(label), layout.size, layout.most) : shown(label));
    svg.append(pointed(make("svg:g.word", { "data-kind": kind, "data-index": index }, back, text), kind, index));
    return { kind, index, back, text };
  }));
  host.replaceChildren(svg);
  return {
    svg,
    update() {
      const all = marks();
      for (const one of lines) one.path.setAttribute("opacity", isActive(one.row, one.column, all) ? one.opacity : 0.05);
      for (const { kind, index, back, text } of words) {
        const { strength, own } = strengthOf(kind, index, matrix);
        back.setAttribute("fill", own ? colours.warm : colours.accent);
        back.setAttribute("opacity", own ? 0.2 : Math.min(0.45, 0.5 * (strength / matrix.high)));
        text.setAttribute("font-weight", own ? 600 : 400);
      }
    },
  };
}

const markOf = (kind, index) => ({ row: null, column: null, [kind]: index });

/** Let the element of a word be pointed at and pinned. */
function pointed(element, kind, index) {
  element.addEventListener("pointerenter", () => hover(markOf(kind, index)));
  element.addEventListener("pointerleave", () => hover(null));
  element.addEventListener("click", (event) => pin(markOf(kind, index), event.shiftKey));
  return element;
}

/** How strongly a word is attended to by what is pointed at, and whether it is pointed at itself. */
function strengthOf(kind, index, matrix) {
  const other = kind === "row" ? "column" : "row";
  let [strength, own] = [0, false];
  for (const mark of marks()) {
    own ||= mark[kind] === index;
    if (mark[other] === null || (mark[kind] ?? index) !== index) continue;
    const at = { ...mark, [kind]: index };
    strength = Math.max(strength, (at.column < matrix.columns.length && matrix.at(at.row, at.column)) || 0);
  }
  return { strength, own };
}

/** Long texts: both flow, and what is pointed at shades the words of the other. */
function drawTexts(host, { matrix }) {
  const spans = {};
  const textOf = (kind) => {
    spans[kind] = matrix[`${kind}s`].map((label, index) => make("span", { "data-kind": kind, "data-index": index }, shown(label)));
    const on = (act) => (event) => {
      const span = event.target.closest("span[data-kind]");
      if (span) act(markOf(kind, Number(span.dataset.index)), event.shiftKey);
    };
    return make("div.flow", { dir: matrix[`${kind}Direction`], label: kind === "row" ? "target" : "source", pointerover: on(hover), pointerleave: () => hover(null), click: on(pin) },
      ...spans[kind].flatMap((span) => [span, " "]));
  };
  const overlay = make("svg:svg.overlay", { "aria-hidden": true });
  const frame = make("div.flows", {}, textOf("column"), textOf("row"), overlay);
  host.replaceChildren(frame);
  let shaded = [];
  const shade = (span, colour, share) => {
    span.style.backgroundColor = tint(colour, share);
    shaded.push(span);
  };
  return {
    update() {
      const colours = palette();
      for (const span of shaded) span.removeAttribute("style");
      shaded = [];
      const found = [];
      for (const mark of marks()) {
        for (const [kind, other] of [["row", "column"], ["column", "row"]]) {
          const own = spans[kind][mark[kind]];
          if (!own) continue;
          shade(own, colours.warm, 0.28);
          spans[other].forEach((span, index) => {
            const at = { ...mark, [other]: index };
            const share = matrix.at(at.row, at.column) / matrix.high;
            if (share >= 0.02) found.push([share, own, span]);
          });
        }
      }
      found.sort((one, two) => two[0] - one[0]);
      for (const [share, , span] of found.slice(0, LINES)) shade(span, colours.accent, 0.08 + 0.5 * share);
      overlay.replaceChildren(...found.slice(0, 12).map(([share, from, to]) => lineBetween(from, to, frame, share)));
    },
  };
}

function lineBetween(from, to, frame, share) {
  const box = frame.getBoundingClientRect();
  const [first, second] = [from, to].map((span) => span.getBoundingClientRect()).sort((one, two) => one.left - two.left);
  const y = (one) => one.top + one.height / 2 - box.top;
  return make("svg:path", { d: curve(first.right - box.left, y(first), second.left - box.left, y(second), false), fill: "none",
    stroke: palette().accent, "stroke-width": 0.8 + 3.5 * share, opacity: 0.2 + 0.6 * share });
}
