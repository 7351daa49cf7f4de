// The matrix of weights, of which only the part is drawn that can be seen; and small ones of all heads.

const LETTERS = 13;

/** Draw a matrix with rulers into a scrolling box. */
function drawMatrix(host, context) {
  const { matrix } = context;
  const { rows, columns } = matrix;
  const widest = (labels, most) => Math.min(most, Math.max(24, ...labels.slice(0, 3000).map((one) => widthOf(shown(one), LETTERS))) + 12);
  const view = { ruler: widest(rows, 180), upright: widest(columns, 150) };
  const wide = Math.max(200, host.clientWidth - 14);
  const tall = Math.max(280, Math.min(640, innerHeight - 320));
  const fits = Math.min((wide - view.ruler) / columns.length, (tall - view.upright) / rows.length);
  view.cell = Math.max(Math.max(rows.length, columns.length) > 400 ? 8 : 13, Math.min(38, fits));
  view.at = (column) => (matrix.columnDirection === "rtl" ? columns.length - 1 - column : column);
  const spacer = make("div");
  const frame = make("div.scroll", { tabindex: 0, role: "img", label: "matrix of weights" }, spacer);
  let canvas = null;
  const paint = () => {
    [view.left, view.top] = [Math.max(0, frame.scrollLeft), Math.max(0, frame.scrollTop)];
    paintMatrix(context, view);
  };
  const resize = () => {
    const [full, high] = [view.ruler + view.cell * columns.length, view.upright + view.cell * rows.length];
    [view.width, view.height] = [Math.min(wide, full + 2), Math.min(tall, high + 2)];
    styled(frame, { width: `${view.width + 14}px`, height: `${view.height + 14}px` });
    styled(spacer, { width: `${full}px`, height: `${high}px` });
    canvas?.remove();
    ({ canvas, context: view.paper } = canvasOf(view.width, view.height));
    frame.prepend(canvas);
  };
  const pointedAt = (act) => (event) => {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left - view.ruler, event.clientY - box.top - view.upright];
    const [row, column] = [Math.floor((y + frame.scrollTop) / view.cell), Math.floor((x + frame.scrollLeft) / view.cell)];
    const mark = { row: y > 0 && row < rows.length ? row : null, column: x > 0 && column < columns.length ? view.at(column) : null };
    act(mark.row === null && mark.column === null ? null : mark, event.shiftKey);
  };
  frame.addEventListener("scroll", paint);
  frame.addEventListener("pointermove", pointedAt(hover));
  frame.addEventListener("pointerleave", () => hover(null));
  frame.addEventListener("click", pointedAt((mark, more) => mark && pin(mark, more)));
  host.replaceChildren(frame);
  resize();
  const into = (scrolled, start, length) => Math.min(start, Math.max(scrolled, start + view.cell - length));
  return {
    update: paint,
    canvas: () => canvas,
    zoom(factor) {
      view.cell = Math.max(2, Math.min(60, view.cell * factor));
      resize();
      paint();
    },
    reveal({ row, column }) {
      if (row !== null) frame.scrollTop = into(frame.scrollTop, row * view.cell, view.height - view.upright);
      if (column !== null) frame.scrollLeft = into(frame.scrollLeft, view.at(column) * view.cell, view.width - view.ruler);
    },
  };
}

function paintMatrix(context, view) {
  const { matrix, gold } = context;
  const { ruler, upright, cell, at, left, top, width, height, paper } = view;
  const colours = palette();
  const seen = (scrolled, length, total) => count(total).slice(Math.floor(scrolled / cell), Math.ceil((scrolled + length) / cell));
  const rows = seen(top, height - upright, matrix.rows.length);
  const columns = seen(left, width - ruler, matrix.columns.length).map(at);
  const [x, y] = [(column) => ruler + at(column) * cell - left, (row) => upright + row * cell - top];
  const within = (startX, startY, act) => {
    paper.save();
    paper.beginPath();
    paper.rect(startX, startY, startX ? width : ruler, startY ? height : upright);
    paper.clip();
    act();
    paper.restore();
  };
  const all = marks();
  const size = cell - (cell > 9 ? 1 : 0);
  const most = Math.max(matrix.high, -matrix.low);
  paper.fillStyle = colours.paper;
  paper.fillRect(0, 0, width, height);
  within(ruler, upright, () => {
    for (const row of rows) {
      for (const column of columns) {
        const weight = matrix.at(row, column);
        paper.globalAlpha = (isActive(row, column, all) ? 1 : 0.28) * (weight ? 1 : 0.55);
        paper.fillStyle = colourOf(weight, most);
        paper.fillRect(x(column), y(row), size, size);
      }
    }
    paper.globalAlpha = 1;
    paper.lineWidth = 2;
    paper.strokeStyle = paper.fillStyle = colours.warm;
    for (const [source, target, kind] of (state.unit === "words" && gold) || []) { // sure: filled, possible: an outline
      const square = [x(source + matrix.before) + cell * 0.32, y(target) + cell * 0.32, cell * 0.32, cell * 0.32];
      if (kind === "S") paper.fillRect(...square);
      else paper.strokeRect(...square);
    }
    const pointer = state.hover ?? state.cursor;
    if (pointer?.row != null && pointer.column != null) paper.strokeRect(x(pointer.column), y(pointer.row), size, size);
  });
  paper.textBaseline = "middle";
  const write = (kind, index, most) => {
    const { own, strength } = all.length ? strengthOf(kind, index, matrix) : { strength: 1 };
    if (cell < 8 && !own) return;
    paper.direction = matrix[`${kind}Direction`];
    paper.font = `${own ? 600 : 400} ${cell < 8 ? 11 : Math.min(LETTERS, cell - 1)}px ${FONT}`;
    const pale = strength < 0.1 || (kind === "column" && matrix.special(index));
    paper.fillStyle = own ? colours.warm : pale ? colours.pale : colours.ink;
    paper.fillText(cut(shown(matrix[`${kind}s`][index]), LETTERS, most), 0, 0);
  };
  within(0, upright, () => {
    paper.textAlign = "right";
    for (const row of rows) {
      paper.save();
      paper.translate(ruler - 7, y(row) + cell / 2);
      write("row", row, ruler - 10);
      paper.restore();
    }
  });
  within(ruler, 0, () => {
    paper.textAlign = "left";
    for (const column of columns) {
      paper.save();
      paper.translate(x(column) + cell / 2, upright - 6);
      paper.rotate(-Math.PI / 2);
      write("column", column, upright - 10);
      paper.restore();
    }
  });
}

/** A small picture of weights: under each pixel the largest of its cells. */
function thumbnail(layer, head, width, height) {
  const [, rows, columns] = layer.shape;
  const values = headWeights(layer, head);
  const high = values.reduce((most, one) => Math.max(most, Math.abs(one)), 1e-9);
  const [across, down] = [Math.min(columns, 120), Math.min(rows, 120)];
  const pooled = new Float32Array(across * down);
  values.forEach((value, at) => {
    const cell = Math.floor((Math.floor(at / columns) * down) / rows) * across + Math.floor(((at % columns) * across) / columns);
    if (Math.abs(value) > Math.abs(pooled[cell])) pooled[cell] = value;
  });
  const canvas = styled(make("canvas.cells", { width: across, height: down }), { width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d");
  pooled.forEach((value, at) => {
    context.fillStyle = colourOf(value, high);
    context.fillRect(at % across, Math.floor(at / across), 1, 1);
  });
  return canvas;
}

/** All layers and heads, with the mean of each layer. */
function drawHeads(host, { group, choice, run }) {
  const most = Math.max(...group.layers.map((layer) => layer.shape[0]));
  const [, rows, columns] = group.layers[0].shape;
  const side = Math.max(34, Math.min(140, (host.clientWidth - 90) / (most + 1) - 18));
  const share = Math.min(2, Math.max(0.5, rows / columns));
  const chosen = (layer, head) => group.chosen?.[0] === layer && group.chosen[1] === head;
  host.replaceChildren(make("div.heads", { role: "radiogroup", label: "layers and heads" }, ...group.layers.map((layer, number) => {
    const heads = layer.shape[0] > 1 ? [null, ...count(layer.shape[0])] : [null];
    return make("div.layer", {}, make("span.name", {}, layer.name), ...heads.map((head) => {
      const name = head !== null ? `head ${head}` : heads.length > 1 ? "mean" : "";
      return make("button.head", { role: "radio", "aria-checked": String(choice.layer === number && choice.head === head),
        label: `${layer.name}, ${name}`, click: () => choose(run, { layer: number, head }) },
        thumbnail(layer, head, side / Math.max(1, share), side * Math.min(1, share)), make("small", {}, chosen(number, head) ? `${name} \u2605` : name));
    }));
  })), group.chosen ? make("p.note", {}, "\u2605 the layer and head that alignments are taken from") : "");
  return { update() {} };
}
