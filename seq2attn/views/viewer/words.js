// The words of source and target with a line for each weight: beside each other, or as two texts.

const SIZE = 17; // of letters, in pixels
const GAP = 15;
const MANY = 170; // words, from which on they are two flowing texts

/** The weights from the threshold on, strongest first. */
function strongest(matrix, threshold) {
  const found = [];
  for (let row = 0; row < matrix.rows.length; row++) {
    for (let column = 0; column < matrix.columns.length; column++) {
      const weight = matrix.at(row, column);
      if (weight > 0 && weight >= threshold) found.push([row, column, weight]);
    }
  }
  return found.sort((one, other) => other[2] - one[2]).slice(0, LINES);
}

/** Where words stand in two rows; null if they need more width. */
function inRows(matrix, width) {
  const place = (labels, direction) => {
    const widths = labels.map((label) => widthOf(shown(label), SIZE));
    const total = widths.reduce((sum, one) => sum + one, 0) + GAP * Math.max(0, labels.length - 1);
    let left = (width - total) / 2;
    const boxes = Array(labels.length);
    const order = [...labels.keys()];
    for (const index of direction === "rtl" ? order.reverse() : order) {
      boxes[index] = { x: left + widths[index] / 2, width: widths[index] };
      left += widths[index] + GAP;
    }
    return { total, boxes };
  };
  const columns = place(matrix.columns, matrix.columnDirection);
  const rows = place(matrix.rows, matrix.rowDirection);
  if (Math.max(columns.total, rows.total) > width - 24) return null;
  const height = Math.min(260, 150 + 6 * Math.max(matrix.rows.length, matrix.columns.length));
  const at = (box, y) => ({ ...box, y, anchor: "middle" });
  return {
    width, height: height + 12,
    columns: columns.boxes.map((box) => at(box, 28)),
    rows: rows.boxes.map((box) => at(box, height - 10)),
    path(row, column) {
      const [from, to] = [this.columns[column], this.rows[row]];
      const [top, bottom] = [from.y + 11, to.y - 21];
      const middle = (top + bottom) / 2;
      return `M${from.x.toFixed(1)} ${top}C${from.x.toFixed(1)} ${middle} ${to.x.toFixed(1)} ${middle} ${to.x.toFixed(1)} ${bottom}`;
    },
  };
}

/** Where words stand in two columns. */
function inColumns(matrix, width) {
  const most = Math.min(240, (width - 160) / 2);
  const widest = (labels) => Math.min(most, Math.max(...labels.map((label) => widthOf(shown(label), SIZE - 2)), 20));
  const [left, right] = [widest(matrix.columns), widest(matrix.rows)];
  const span = Math.max(90, Math.min(340, width - left - right - 60));
  const start = Math.max(0, (width - left - right - span) / 2);
  const count = Math.max(matrix.columns.length, matrix.rows.length);
  const place = (labels, x, anchor) => {
    const step = count > 1 ? (24 * (count - 1)) / Math.max(1, labels.length - 1) : 0;
    const each = Math.min(step, 44);
    const top = 24 + (24 * (count - 1) - each * (labels.length - 1)) / 2;
    return labels.map((label, index) => ({ x, y: top + index * each, anchor,
      width: Math.min(most, widthOf(shown(label), SIZE - 2)) }));
  };
  return {
    width, height: 24 * count + 24, small: true, most,
    columns: place(matrix.columns, start + left, "end"),
    rows: place(matrix.rows, start + left + span, "start"),
    path(row, column) {
      const [from, to] = [this.columns[column], this.rows[row]];
      const [x1, x2] = [from.x + 10, to.x - 10];
      const middle = (x1 + x2) / 2;
      return `M${x1.toFixed(1)} ${from.y - 5}C${middle.toFixed(1)} ${from.y - 5} ${middle.toFixed(1)} ${to.y - 5} ${x2.toFixed(1)} ${to.y - 5}`;
    },
  };
}

function drawWords(host, context) {
  const { matrix } = context;
  if (matrix.rows.length + matrix.columns.length > MANY) return drawTexts(host, context);
  const width = Math.max(280, host.clientWidth);
  const layout = inRows(matrix, width) ?? inColumns(matrix, width);
  const colours = palette();
  const svg = make("svg:svg", { width: layout.width, height: layout.height, role: "presentation",
    viewBox: `0 0 ${layout.width} ${layout.height}`, "font-family": FONT });
  const size = layout.small ? SIZE - 2 : SIZE;
  const gold = context.gold && state.unit === "words" ? context.gold : [];
  for (const [source, target, kind] of gold) {
    if (!layout.columns[source + matrix.before] || !layout.rows[target]) continue;
    svg.append(make("svg:path", { d: layout.path(target, source + matrix.before), fill: "none", stroke: colours.warm,
      "stroke-width": kind === "S" ? 1.6 : 1.2, "stroke-dasharray": kind === "S" ? "none" : "2 4", opacity: 0.75 }));
  }
  const lines = strongest(matrix, state.threshold).map(([row, column, weight]) => {
    const share = weight / Math.max(matrix.high, 0.3);
    const path = make("svg:path", { d: layout.path(row, column), fill: "none", stroke: colours.accent,
      "stroke-width": (0.7 + 6.5 * share).toFixed(2), "stroke-linecap": "round" });
    svg.append(path);
    return { path, row, column, opacity: 0.14 + 0.76 * share };
  });
  const words = [];
  for (const kind of ["column", "row"]) {
    const labels = kind === "row" ? matrix.rows : matrix.columns;
    labels.forEach((label, index) => {
      const box = (kind === "row" ? layout.rows : layout.columns)[index];
      const left = box.anchor === "middle" ? box.x - box.width / 2 : box.anchor === "end" ? box.x - box.width : box.x;
      const back = make("svg:rect", { x: left - 5, y: box.y - size - 1, width: box.width + 10, height: size + 9, rx: 6,
        fill: colours.soft, opacity: 0 });
      const text = make("svg:text", { x: box.x, y: box.y, "text-anchor": box.anchor, "font-size": size,
        fill: kind === "column" && matrix.special(index) ? colours.pale : colours.ink });
      text.textContent = layout.most ? cut(shown(label), size, layout.most) : shown(label);
      const mark = kind === "row" ? { row: index, column: null } : { row: null, column: index };
      svg.append(pointed(make("svg:g", { class: "word", "data-kind": kind, "data-index": index }, back, text), mark));
      words.push({ kind, index, back, text });
    });
  }
  host.replaceChildren(svg);
  return {
    export: svg,
    update() {
      const all = marks();
      for (const line of lines) {
        const active = isActive(line.row, line.column, all);
        line.path.setAttribute("opacity", active ? line.opacity : 0.05);
      }
      for (const word of words) shade(word, matrix);
    },
  };
}

/** Let an element be pointed at and pinned. */
function pointed(element, mark) {
  element.addEventListener("pointerenter", () => hover(mark));
  element.addEventListener("pointerleave", () => hover(null));
  element.addEventListener("click", (event) => pin(mark, event.shiftKey));
  return element;
}

/** How strongly a word is attended to by what is pointed at, and whether it is pointed at itself. */
function strengthOf(kind, index, matrix) {
  let strength = 0;
  let own = false;
  for (const mark of marks()) {
    if (mark[kind] === index) own = true;
    const other = kind === "row" ? mark.column : mark.row;
    if (other === null || (mark[kind] !== null && mark[kind] !== index)) continue;
    const [row, column] = kind === "row" ? [index, other] : [other, index];
    if (row < matrix.rows.length && column < matrix.columns.length) strength = Math.max(strength, matrix.at(row, column));
  }
  return { strength, own };
}

function shade({ kind, index, back, text }, matrix) {
  const colours = palette();
  const { strength, own } = strengthOf(kind, index, matrix);
  back.setAttribute("fill", own ? colours.warm : colours.accent);
  back.setAttribute("opacity", own ? 0.2 : Math.min(0.45, 0.5 * (strength / matrix.high)));
  text.setAttribute("font-weight", own ? 600 : 400);
}

/** Long texts: both flow, and what is pointed at shades the words of the other. */
function drawTexts(host, context) {
  const { matrix } = context;
  const spans = { column: [], row: [] };
  const textOf = (kind) => {
    const labels = kind === "row" ? matrix.rows : matrix.columns;
    const direction = kind === "row" ? matrix.rowDirection : matrix.columnDirection;
    const box = make("div", { class: "flow", dir: direction, "aria-label": kind === "row" ? "target" : "source" });
    labels.forEach((label, index) => {
      const span = make("span", { "data-kind": kind, "data-index": index });
      span.textContent = state.unit === "pieces" ? shown(label) : label;
      spans[kind].push(span);
      box.append(span, " ");
    });
    const markOf = (event) => {
      const span = event.target.closest("span[data-kind]");
      if (!span) return null;
      const at = Number(span.dataset.index);
      return kind === "row" ? { row: at, column: null } : { row: null, column: at };
    };
    box.addEventListener("pointerover", (event) => hover(markOf(event)));
    box.addEventListener("pointerleave", () => hover(null));
    box.addEventListener("click", (event) => markOf(event) && pin(markOf(event), event.shiftKey));
    return box;
  };
  const overlay = make("svg:svg", { class: "overlay", "aria-hidden": "true" });
  const frame = make("div", { class: "flows" }, textOf("column"), textOf("row"), overlay);
  host.replaceChildren(frame);
  let shaded = [];
  return {
    update() {
      for (const span of shaded) span.removeAttribute("style");
      shaded = [];
      overlay.replaceChildren();
      const active = marks();
      if (!active.length) return;
      const found = [];
      for (const mark of active) {
        for (const [kind, own, other] of [["row", mark.row, "column"], ["column", mark.column, "row"]]) {
          if (own === null || !spans[kind][own]) continue;
          shadeSpan(spans[kind][own], palette().warm, 0.28, shaded);
          spans[other].forEach((span, index) => {
            const weight = kind === "row" ? matrix.at(own, index) : matrix.at(index, own);
            if (weight >= 0.02 * matrix.high) found.push([weight, spans[kind][own], span]);
          });
        }
      }
      found.sort((one, two) => two[0] - one[0]);
      const box = frame.getBoundingClientRect();
      for (const [weight, from, to] of found.slice(0, LINES)) {
        shadeSpan(to, palette().accent, 0.08 + 0.5 * (weight / matrix.high), shaded);
      }
      for (const [weight, from, to] of found.slice(0, 12)) overlay.append(lineBetween(from, to, box, weight / matrix.high));
    },
  };
}

function shadeSpan(span, colour, share, shaded) {
  const [red, green, blue] = channels(colour);
  span.style.backgroundColor = `rgba(${red},${green},${blue},${share.toFixed(2)})`;
  shaded.push(span);
}

function lineBetween(from, to, box, share) {
  const [one, two] = [from.getBoundingClientRect(), to.getBoundingClientRect()];
  const [first, second] = one.left < two.left ? [one, two] : [two, one];
  const [x1, y1] = [first.right - box.left, first.top + first.height / 2 - box.top];
  const [x2, y2] = [second.left - box.left, second.top + second.height / 2 - box.top];
  const middle = (x1 + x2) / 2;
  return make("svg:path", { d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`, fill: "none",
    stroke: palette().accent, "stroke-width": 0.6 + 3 * share, opacity: 0.15 + 0.6 * share });
}
