// The table beside every view, for screen readers and for reading numbers; and what leaves the page as a file.

const CELLS = 2500; // of a table; a larger matrix is a list of the strongest weights of each row

/** Weights as a table with a name for each cell, or as a list. */
function tableOf(context) {
  const { matrix } = context;
  if (!matrix) return make("p", { class: "note" }, "This view has no weights.");
  if (matrix.rows.length * matrix.columns.length > CELLS || matrix.grid) return listOf(matrix);
  const name = (row, column) => `${shown(matrix.columns[column])} to ${shown(matrix.rows[row])} ${digits(matrix.at(row, column))}`;
  const head = make("tr", { role: "row" }, make("td"), ...matrix.columns.map((word) => make("th", { scope: "col", role: "columnheader", dir: "auto" }, shown(word))));
  const rows = matrix.rows.map((word, row) => make("tr", { role: "row" }, make("th", { scope: "row", role: "rowheader", dir: "auto" }, shown(word)),
    ...matrix.columns.map((_, column) => make("td", { role: "gridcell", tabindex: -1, "aria-label": name(row, column), "data-row": row, "data-column": column }, digits(matrix.at(row, column))))));
  const table = make("table", { role: "grid", "aria-label": "weights", "aria-rowcount": matrix.rows.length + 1, "aria-colcount": matrix.columns.length + 1,
    dir: matrix.columnDirection }, make("thead", {}, head), make("tbody", {}, ...rows));
  table.querySelector("td[data-row]")?.setAttribute("tabindex", "0");
  return make("div", { class: "wide" }, table);
}

function listOf(matrix) {
  const rows = matrix.rows.slice(0, 1000).map((word, row) => {
    const found = [];
    for (let column = 0; column < matrix.columns.length; column++) found.push([matrix.at(row, column), column]);
    found.sort((one, two) => two[0] - one[0]);
    const place = (column) => (matrix.grid ? `row ${Math.floor(column / matrix.grid[1])} column ${column % matrix.grid[1]}` : shown(matrix.columns[column]));
    return make("li", {}, make("b", { dir: "auto" }, shown(word)), `: ${found.slice(0, 5).filter(([weight]) => weight > 0)
      .map(([weight, column]) => `${place(column)} ${digits(weight)}`).join(", ")}`);
  });
  return make("ol", { "aria-label": "the strongest weights of each word" }, ...rows);
}

/** Move the focus within a table by the arrow keys. */
function moveInTable(cell, by) {
  const row = Number(cell.dataset.row) + by.row;
  const column = Number(cell.dataset.column) + by.column;
  const next = cell.closest("table").querySelector(`td[data-row="${row}"][data-column="${column}"]`);
  if (!next) return;
  cell.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
  pointAt({ row, column });
}

function download(name, content) {
  const link = make("a", { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const fileName = (ending) => `${page.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "attention"}-${state.item + 1}.${ending}`;

/** The drawing of a view as an SVG file, with the colours that it has on the page. */
function svgText(svg) {
  const copy = svg.cloneNode(true);
  copy.setAttribute("xmlns", SVG);
  const back = make("svg:rect", { width: "100%", height: "100%", fill: palette().paper });
  copy.prepend(back);
  return new XMLSerializer().serializeToString(copy);
}

/** The links of the shown head in Pharaoh's format: source-target, counted from 0. */
function pharaohOf(context) {
  const matrix = matrixOf(context.look, context.output, context.choice, "words");
  return linksOf(matrix).map((link) => link.join("-")).join(" ");
}

const EXPORTS = {
  SVG: { when: (drawn) => drawn.export, run: (drawn) => download(fileName("svg"), new Blob([svgText(drawn.export)], { type: "image/svg+xml" })) },
  PNG: { when: (drawn) => drawn.canvas || drawn.export, run: (drawn) => savePicture(drawn) },
  Pharaoh: { when: (drawn, context) => context.group && context.group.rows === "target" && context.group.columns === "source",
    run: (drawn, context) => download(fileName("pharaoh"), new Blob([`${pharaohOf(context)}\n`], { type: "text/plain" })) },
};

function savePicture(drawn) {
  const save = (canvas) => canvas.toBlob((blob) => download(fileName("png"), blob));
  if (drawn.canvas) return save(drawn.canvas());
  const [width, height] = [Number(drawn.export.getAttribute("width")), Number(drawn.export.getAttribute("height"))];
  const { canvas, context } = canvasOf(width, height);
  const image = new Image();
  image.addEventListener("load", () => {
    context.drawImage(image, 0, 0, width, height);
    save(canvas);
  });
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText(drawn.export))}`;
}
