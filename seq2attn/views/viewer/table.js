// The table beside every view, for screen readers and for reading numbers; and what leaves the page as a file.

const CELLS = 2500; // of a table; a larger matrix is a list of the strongest weights of each row

/** Weights as a table with a name for each cell, or as a list. */
function tableOf({ matrix }) {
  if (!matrix) return "";
  if (matrix.values.length > CELLS || matrix.grid) return listOf(matrix);
  const heading = (word, scope) => make("th", { scope, role: scope === "col" ? "columnheader" : "rowheader", dir: "auto" }, shown(word));
  const cell = (row, column) => make("td", { role: "gridcell", tabindex: row || column ? -1 : 0, label: spoken(matrix, { row, column }),
    "data-row": row, "data-column": column }, digits(matrix.at(row, column)));
  const line = (...cells) => make("tr", { role: "row" }, ...cells);
  return make("div.wide", {}, make("table", { role: "grid", label: "weights", dir: matrix.columnDirection },
    line(make("td"), ...matrix.columns.map((word) => heading(word, "col"))),
    ...matrix.rows.map((word, row) => line(heading(word, "row"), ...matrix.columns.map((_, column) => cell(row, column))))));
}

function listOf(matrix) {
  return make("ol", { label: "the strongest weights of each word" }, ...matrix.rows.slice(0, 1000).map((_, row) => make("li", { dir: "auto" }, spoken(matrix, { row, column: null }))));
}

/** What is said of a weight, or of the strongest weights of a row or a column. */
function spoken(matrix, { row, column }) {
  const nameOf = (at) => (matrix.grid ? placeName(matrix.grid, at) : shown(matrix.columns[at]));
  if ((row ?? 0) >= matrix.rows.length || (column ?? 0) >= matrix.columns.length) return "";
  if (row !== null && column !== null) return `${nameOf(column)} to ${shown(matrix.rows[row])} ${digits(matrix.at(row, column))}`;
  const all = row === null ? matrix.rows.map((_, at) => [matrix.at(at, column), at]) : matrix.columns.map((_, at) => [matrix.at(row, at), at]);
  const best = all.sort((one, two) => two[0] - one[0]).slice(0, 4).filter(([weight]) => weight >= 0.005);
  return `${row === null ? nameOf(column) : shown(matrix.rows[row])}: ${best.map(([weight, at]) => `${row === null ? shown(matrix.rows[at]) : nameOf(at)} ${digits(weight)}`).join(", ")}`;
}

/** Move the focus within a table by the arrow keys. */
function moveInTable(cell, by) {
  const mark = { row: Number(cell.dataset.row) + by.row, column: Number(cell.dataset.column) + by.column };
  const next = cell.closest("table").querySelector(`[data-row="${mark.row}"][data-column="${mark.column}"]`);
  if (!next) return;
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  pointAt(mark);
}

function download(ending, content) {
  const name = page.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "attention";
  const link = make("a", { href: URL.createObjectURL(content), download: `${name}-${state.item + 1}.${ending}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** The drawing of a view as an SVG file, with the colours that it has on the page. */
function svgText(svg) {
  const copy = svg.cloneNode(true);
  copy.prepend(make("svg:rect", { width: "100%", height: "100%", fill: palette().paper }));
  return new XMLSerializer().serializeToString(copy);
}

/** The links of the shown head in Pharaoh's format: source-target, counted from 0. */
function pharaohOf({ look, output, choice }) {
  return linksOf(matrixOf(look, output, choice, "words")).map((link) => link.join("-")).join(" ");
}

function savePicture({ svg, canvas }) {
  const save = (made) => made.toBlob((blob) => download("png", blob));
  if (canvas) return save(canvas());
  const size = ["width", "height"].map((side) => Number(svg.getAttribute(side)));
  const made = canvasOf(...size);
  const image = new Image();
  image.addEventListener("load", () => {
    made.context.drawImage(image, 0, 0, ...size);
    save(made.canvas);
  });
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText(svg))}`;
}

const EXPORTS = {
  SVG: { when: (drawn) => drawn.svg, run: (drawn) => download("svg", new Blob([svgText(drawn.svg)])) },
  PNG: { when: (drawn) => drawn.canvas || drawn.svg, run: savePicture },
  Pharaoh: { when: (drawn, context) => context.links, run: (drawn, context) => download("pharaoh", new Blob([`${pharaohOf(context)}\n`])) },
};
