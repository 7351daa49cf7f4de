// Images, and where on them the words of a text, or the parts of a network, look.

const loaded = new Map();

/** The image of a look, once it is decoded; `then` is called when it is. */
function imageOf(look, then) {
  const known = loaded.get(look.image.src);
  if (known) return known.complete && known.naturalWidth ? known : (known.addEventListener("load", then, { once: true }), null);
  const image = new Image();
  loaded.set(look.image.src, image);
  image.addEventListener("load", then, { once: true });
  image.src = look.image.src;
  return image.complete && image.naturalWidth ? image : null;
}

const sizeOf = (look, longest) => {
  const scale = longest / Math.max(look.image.width, look.image.height);
  return [Math.max(24, look.image.width * scale), Math.max(24, look.image.height * scale)];
};

/** A canvas with the image in grey, and weights (rows times columns of a grid) over it. */
function overlayOf(look, weights, grid, longest, limits = null) {
  const [width, height] = sizeOf(look, longest);
  const { canvas, context } = canvasOf(width, height);
  const paint = () => {
    const image = imageOf(look, paint);
    if (!image) return;
    context.imageSmoothingEnabled = look.image.width >= width;
    if (weights) context.filter = "grayscale(1)";
    context.drawImage(image, 0, 0, width, height);
    context.filter = "none";
    if (!weights) return;
    context.fillStyle = "rgba(255,255,255,0.12)";
    context.fillRect(0, 0, width, height);
    const small = canvasOf(1, 1).canvas;
    [small.height, small.width] = grid;
    const pixels = small.getContext("2d").createImageData(grid[1], grid[0]);
    const [low, high] = limits ?? [Math.min(0, Math.min(...weights)), Math.max(...weights)];
    weights.forEach((weight, index) => {
      const share = (weight - low) / (high - low || 1);
      const [red, green, blue] = colourAt(HEAT, share).match(/\d+/g).map(Number);
      pixels.data.set([red, green, blue, 170], 4 * index);
    });
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, width, height);
  };
  paint();
  return canvas;
}

/** The places that a word looked at, or the mean of all words. */
function rowOf(matrix, row) {
  const count = matrix.columns.length;
  if (row !== null) return matrix.values.subarray(row * count, (row + 1) * count);
  const mean = new Float32Array(count);
  matrix.values.forEach((weight, index) => (mean[index % count] += weight / matrix.rows.length));
  return mean;
}

/** An image, the words that were written from it, and the image once for each word. */
function drawImage(host, context) {
  const { look, matrix } = context;
  const large = make("div", { class: "large" });
  const strip = make("div", { class: "strip" });
  const cards = matrix.rows.map((word, row) => {
    const card = make("button", { class: "card", "data-kind": "row", "data-index": row }, make("span", { dir: "auto" }, shown(word)));
    strip.append(pointed(card, { row, column: null }));
    return card;
  });
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      entry.target.prepend(overlayOf(look, rowOf(matrix, Number(entry.target.dataset.index)), matrix.grid, 108));
    }
  });
  cards.forEach((card) => seen.observe(card));
  host.replaceChildren(make("div", { class: "gallery" }, large, strip));
  let drawn;
  return {
    canvas: () => large.querySelector("canvas"),
    update() {
      const row = marks().find((mark) => mark.row !== null)?.row ?? null;
      cards.forEach((card, index) => card.classList.toggle("now", index === row));
      if (row === drawn) return;
      drawn = row;
      large.replaceChildren(overlayOf(look, rowOf(matrix, row), matrix.grid, 420),
        make("p", { class: "note" }, row === null ? "the mean of all words" : shown(matrix.rows[row])));
    },
  };
}

/** Weights of a map of a network: over the image, as bars of channels, or as a matrix. */
function pictureOf(look, map, longest, query = null) {
  const [heads, rows, columns] = map.shape;
  const values = headWeights(map, null);
  if (map.kind === "channel") return barsOf(map, values, longest);
  if (map.kind === "matrix") return thumbnail(map, null, longest, longest);
  if (!map.queries) return overlayOf(look, values, map.grid, longest, map.limits);
  const weights = new Float32Array(columns);
  const [from, to] = query === null ? [0, rows] : [query, query + 1];
  for (let row = from; row < to; row++) {
    for (let column = 0; column < columns; column++) weights[column] += values[row * columns + column] / (to - from);
  }
  return overlayOf(look, weights, map.grid, longest);
}

function barsOf(map, values, longest) {
  const [, branches, count] = map.shape;
  const [width, height] = [longest, longest * 0.6];
  const { canvas, context } = canvasOf(width, height);
  const high = Math.max(...values, 1e-9);
  for (let index = 0; index < branches * count; index++) {
    const [branch, channel] = [Math.floor(index / count), index % count];
    context.fillStyle = branches === 1 ? palette().accent : colourAt(HEAT, (branch + 0.5) / branches);
    const size = (height * Math.max(0, values[index])) / high;
    const left = (width * (channel * branches + branch)) / (count * branches);
    context.fillRect(left, height - size, Math.max(0.5, width / (count * branches) - 0.5), size);
  }
  return canvas;
}

/** The maps of a network: one of them large, all of them small. */
function drawMaps(host, context) {
  const { look, output, choice } = context;
  choice.map = Math.min(choice.map, output.maps.length - 1);
  const map = output.maps[choice.map];
  const picture = make("div", { class: "picture" });
  const note = make("p", { class: "note" });
  const show = (query) => {
    state.query = query;
    picture.replaceChildren(pictureOf(look, map, 420, query));
    const [, columns] = map.queries ?? [];
    const asked = !map.queries ? "" : query === null ? "; point at the image to ask from a place"
      : `; asked from row ${Math.floor(query / columns)}, column ${query % columns}`;
    note.textContent = `${map.name}, ${digits(map.range[0])} to ${digits(map.range[1])}${asked}`;
  };
  if (map.queries) {
    picture.addEventListener("pointermove", (event) => {
      const box = picture.getBoundingClientRect();
      const at = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
      const [rows, columns] = map.queries;
      const query = at((event.clientY - box.top) / box.height, rows) * columns + at((event.clientX - box.left) / box.width, columns);
      if (state.query !== query) show(query);
    });
    picture.addEventListener("pointerleave", () => show(null));
  }
  const large = make("div", { class: "large" }, picture, note);
  const strip = make("div", { class: "strip" }, ...output.maps.map((one, index) => make("button",
    { class: `card${index === choice.map ? " now" : ""}`, click: () => choose(context.run, { map: index }) },
    pictureOf(look, one, 108), make("span", {}, one.name))));
  host.replaceChildren(make("div", { class: "gallery" }, large, strip));
  show(map.queries ? state.query : null);
  return { canvas: () => large.querySelector("canvas"), update() {} };
}
