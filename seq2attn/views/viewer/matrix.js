// The matrix of weights, of which only the part is drawn that can be seen; and small ones of all heads.

/** Draw a matrix with rulers into a scrolling box. */
function drawMatrix(host, context) {
  const { matrix } = context;
  const letters = 13;
  const widest = (labels, most) => Math.min(most, Math.max(24, ...labels.slice(0, 3000).map((one) => widthOf(shown(one), letters))) + 12);
  const ruler = widest(matrix.rows, 180);
  const upright = widest(matrix.columns, 150);
  const wide = Math.max(200, host.clientWidth);
  const tall = Math.max(260, Math.min(620, innerHeight - 330));
  const fits = Math.min((wide - ruler - 16) / matrix.columns.length, (tall - upright - 8) / matrix.rows.length);
  const smallest = Math.max(matrix.rows.length, matrix.columns.length) > 400 ? 7 : 13;
  let cell = Math.max(smallest, Math.min(34, fits));
  const flipped = matrix.columnDirection === "rtl";
  const frame = make("div", { class: "scroll", tabindex: 0, role: "img", "aria-label": "matrix of weights" });
  const spacer = make("div");
  let width, height, view;
  const resize = () => {
    width = Math.min(wide, ruler + cell * matrix.columns.length + 2);
    height = Math.min(tall, upright + cell * matrix.rows.length + 2);
    styled(frame, { width: `${width + 14}px`, height: `${height + 14}px` });
    styled(spacer, { width: `${ruler + cell * matrix.columns.length}px`, height: `${upright + cell * matrix.rows.length}px` });
    const made = canvasOf(width, height);
    view?.canvas.remove();
    view = made;
    frame.prepend(made.canvas);
  };
  const at = (column) => (flipped ? matrix.columns.length - 1 - column : column);
  const paint = () => {
    const seen = { left: Math.max(0, frame.scrollLeft), top: Math.max(0, frame.scrollTop), width, height };
    paintMatrix(view.context, context, { ruler, upright, cell, at, letters, ...seen });
  };
  const markAt = (event) => {
    const box = view.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const column = Math.floor((x - ruler + frame.scrollLeft) / cell);
    const row = Math.floor((y - upright + frame.scrollTop) / cell);
    const inside = { row: y > upright && row < matrix.rows.length, column: x > ruler && column < matrix.columns.length };
    if (!inside.row && !inside.column) return null;
    return { row: inside.row ? row : null, column: inside.column ? at(column) : null };
  };
  frame.append(spacer);
  frame.addEventListener("scroll", paint);
  frame.addEventListener("pointermove", (event) => hover(markAt(event)));
  frame.addEventListener("pointerleave", () => hover(null));
  frame.addEventListener("click", (event) => markAt(event) && pin(markAt(event), event.shiftKey));
  host.replaceChildren(frame);
  resize();
  return {
    update: paint,
    canvas: () => view.canvas,
    zoom(factor) {
      cell = Math.max(2, Math.min(60, cell * factor));
      resize();
      paint();
    },
    reveal(mark) {
      if (mark.row !== null) frame.scrollTop = into(frame.scrollTop, mark.row * cell, height - upright, cell);
      if (mark.column !== null) frame.scrollLeft = into(frame.scrollLeft, at(mark.column) * cell, width - ruler, cell);
    },
  };
}

/** Where to scroll so that a cell can be seen. */
function into(scrolled, start, length, cell) {
  if (start < scrolled) return start;
  return start + cell > scrolled + length ? start + cell - length : scrolled;
}

function paintMatrix(paper, context, view) {
  const { matrix } = context;
  const { ruler, upright, cell, at, left, top, width, height, letters } = view;
  const colours = palette();
  const range = (scrolled, length, count) => [Math.floor(scrolled / cell), Math.min(count, Math.ceil((scrolled + length) / cell))];
  const [firstRow, lastRow] = range(top, height - upright, matrix.rows.length);
  const [firstColumn, lastColumn] = range(left, width - ruler, matrix.columns.length);
  paper.fillStyle = colours.card;
  paper.fillRect(0, 0, width, height);
  const [x, y] = [(place) => ruler + place * cell - left, (row) => upright + row * cell - top];
  paper.save();
  paper.beginPath();
  paper.rect(ruler, upright, width - ruler, height - upright);
  paper.clip();
  const gap = cell > 9 ? 1 : 0;
  const all = marks();
  for (let row = firstRow; row < lastRow; row++) {
    for (let place = firstColumn; place < lastColumn; place++) {
      const column = at(place);
      const weight = matrix.at(row, column);
      paper.globalAlpha = isActive(row, column, all) ? 1 : 0.28;
      paper.fillStyle = weight ? colourOf(weight, Math.max(matrix.high, -matrix.low)) : colours.soft;
      paper.globalAlpha *= weight ? 1 : 0.55;
      paper.fillRect(x(place), y(row), cell - gap, cell - gap);
    }
  }
  paper.globalAlpha = 1;
  paintGold(paper, context, (column) => x(at(column + matrix.before)), y, cell);
  const pointer = state.hover ?? state.cursor;
  if (pointer && pointer.row !== null && pointer.column !== null) {
    paper.strokeStyle = colours.warm;
    paper.lineWidth = 2;
    paper.strokeRect(x(at(pointer.column)), y(pointer.row), cell - gap, cell - gap);
  }
  paper.restore();
  paintRulers(paper, context, { ...view, x, y, firstRow, lastRow, firstColumn, lastColumn });
}

/** Sure links are filled squares, possible ones outlines. */
function paintGold(paper, context, x, y, cell) {
  if (!context.gold || state.unit !== "words") return;
  paper.strokeStyle = paper.fillStyle = palette().warm;
  paper.lineWidth = 1.5;
  for (const [source, target, kind] of context.gold) {
    const [left, top, size] = [x(source) + cell * 0.31, y(target) + cell * 0.31, cell * 0.34];
    if (kind === "S") paper.fillRect(left, top, size, size);
    else paper.strokeRect(left, top, size, size);
  }
}

function paintRulers(paper, context, view) {
  const { matrix } = context;
  const { ruler, upright, cell, at, letters, x, y } = view;
  const colours = palette();
  const size = Math.min(letters, Math.max(6, cell - 1));
  const bright = (kind, index) => {
    const active = marks();
    if (!active.length) return { colour: colours.ink, weight: 400 };
    const own = active.some((mark) => mark[kind] === index);
    return { colour: own ? colours.warm : strengthOf(kind, index, matrix).strength > 0.1 ? colours.ink : colours.pale,
      weight: own ? 600 : 400 };
  };
  const write = (kind, index, text, most) => {
    const style = bright(kind, index);
    if (cell < 7 && style.weight === 400) return;
    paper.font = `${style.weight} ${cell < 7 ? 11 : size}px ${FONT}`;
    paper.fillStyle = kind === "column" && matrix.special(index) && style.weight === 400 ? colours.pale : style.colour;
    paper.fillText(cut(shown(text), size, most), 0, 0);
  };
  paper.textBaseline = "middle";
  paper.save();
  paper.beginPath();
  paper.rect(0, upright, ruler, view.height - upright);
  paper.clip();
  paper.textAlign = "right";
  for (let row = view.firstRow; row < view.lastRow; row++) {
    paper.save();
    paper.translate(ruler - 7, y(row) + cell / 2);
    write("row", row, matrix.rows[row], ruler - 10);
    paper.restore();
  }
  paper.restore();
  paper.save();
  paper.beginPath();
  paper.rect(ruler, 0, view.width - ruler, upright);
  paper.clip();
  paper.textAlign = "left";
  for (let place = view.firstColumn; place < view.lastColumn; place++) {
    const column = at(place);
    paper.save();
    paper.translate(x(place) + cell / 2, upright - 6);
    paper.rotate(-Math.PI / 2);
    write("column", column, matrix.columns[column], upright - 10);
    paper.restore();
  }
  paper.restore();
}

/** A thumbnail of a head: the largest weight of the cells under each pixel. */
function thumbnail(layer, head, width, height) {
  const [, rows, columns] = layer.shape;
  const values = headWeights(layer, head);
  const { canvas, context } = canvasOf(width, height);
  const image = context.createImageData(canvas.width, canvas.height);
  const high = values.reduce((most, one) => Math.max(most, one), 1e-9);
  const [across, down] = [Math.max(1, Math.min(columns, canvas.width)), Math.max(1, Math.min(rows, canvas.height))];
  const pooled = new Float32Array(across * down);
  for (let row = 0; row < rows; row++) {
    const base = Math.floor((row * down) / rows) * across;
    for (let column = 0; column < columns; column++) {
      const cell = base + Math.floor((column * across) / columns);
      pooled[cell] = Math.max(pooled[cell], values[row * columns + column]);
    }
  }
  const steps = Array.from({ length: 256 }, (_, level) => colourOf(level / 255, 1).match(/^#/)
    ? channels(palette().card) : colourAt(palette().ramp, level / 255).match(/\d+/g).map(Number));
  for (let y = 0; y < canvas.height; y++) {
    const row = Math.floor((y * down) / canvas.height) * across;
    for (let x = 0; x < canvas.width; x++) {
      const level = Math.round((255 * pooled[row + Math.floor((x * across) / canvas.width)]) / high);
      const [red, green, blue] = steps[Math.max(0, Math.min(255, level))];
      image.data.set([red, green, blue, 255], 4 * (y * canvas.width + x));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** All layers and heads, with the mean of each layer. */
function drawHeads(host, context) {
  const { group, choice } = context;
  const most = Math.max(...group.layers.map((layer) => layer.shape[0]));
  const across = most > 1 ? most + 1 : 1;
  const [, rows, columns] = group.layers[0].shape;
  const side = Math.max(34, Math.min(120, (host.clientWidth - 90) / across - 12));
  const share = Math.min(2.2, Math.max(0.5, rows / columns));
  const [width, height] = share > 1 ? [side / share, side] : [side, side * share];
  const pictures = [];
  const table = make("div", { class: "heads", role: "radiogroup", "aria-label": "layers and heads" });
  group.layers.forEach((layer, number) => {
    const line = make("div", { class: "layer" }, make("span", { class: "name" }, layer.name));
    const heads = layer.shape[0] > 1 ? [null, ...Array(layer.shape[0]).keys()] : [null];
    for (const head of heads) {
      const chosen = choice.layer === number && choice.head === head;
      const label = head === null ? (layer.shape[0] > 1 ? "mean" : "") : String(head);
      const button = make("button", { class: "head", role: "radio", "aria-checked": String(chosen),
        "aria-label": `${layer.name}, ${head === null ? "mean of heads" : `head ${head}`}`,
        click: () => choose(context.run, { layer: number, head }) },
        thumbnail(layer, head, width, height),
        make("small", {}, label + (isChosen(group, number, head) ? " \u2605" : "")));
      line.append(button);
      pictures.push(button);
    }
    table.append(line);
  });
  const note = group.chosen ? make("p", { class: "note" }, "\u2605 the layer and head that alignments are taken from") : null;
  host.replaceChildren(table, ...(note ? [note] : []));
  return { update() {} };
}
