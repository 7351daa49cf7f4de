// Images, and where on them the words of a text, or the parts of a network, look.

const loaded = new Map();

/** Call a function with the image of a look, once it is decoded. */
function withImage({ src }, act) {
  if (!loaded.has(src)) loaded.set(src, Object.assign(new Image(), { src }));
  const image = loaded.get(src);
  if (image.complete) act(image);
  else image.addEventListener("load", () => act(image), { once: true });
}

/** A canvas with the image in grey, and weights (rows times columns of a grid) over it. */
function overlayOf({ image }, weights, grid, longest, limits = null) {
  const scale = longest / Math.max(image.width, image.height);
  const [width, height] = [image.width, image.height].map((side) => Math.max(24, side * scale));
  const { canvas, context } = canvasOf(width, height);
  const [low, high] = limits ?? [Math.min(0, ...weights), Math.max(...weights)];
  const small = make("canvas", { width: grid[1], height: grid[0] });
  const pixels = small.getContext("2d").createImageData(grid[1], grid[0]);
  weights.forEach((weight, at) => pixels.data.set([...mixed(HEAT, (weight - low) / (high - low || 1)), 170], 4 * at));
  small.getContext("2d").putImageData(pixels, 0, 0);
  withImage(image, (picture) => {
    context.imageSmoothingEnabled = image.width >= width;
    context.filter = "grayscale(1)";
    context.drawImage(picture, 0, 0, width, height);
    context.filter = "none";
    context.fillStyle = "rgba(255,255,255,0.12)"; // on black, the colours could not be told apart
    context.fillRect(0, 0, width, height);
    context.imageSmoothingEnabled = true;
    context.drawImage(small, 0, 0, width, height);
  });
  return canvas;
}

/** The mean of rows from one to another. */
function meanOf(values, columns, from, to) {
  const mean = new Float32Array(columns);
  for (let at = from * columns; at < to * columns; at++) mean[at % columns] += values[at] / (to - from);
  return mean;
}

/** An image, the words that were written from it, and the image once for each word. */
function drawImage(host, { look, matrix }) {
  const weightsOf = (row) => meanOf(matrix.values, matrix.columns.length, row ?? 0, row === null ? matrix.rows.length : row + 1);
  const large = make("div.large");
  const cards = matrix.rows.map((word, row) => pointed(make("button.card", { "data-kind": "row", "data-index": row }, make("span", { dir: "auto" }, shown(word))), "row", row));
  const seen = new IntersectionObserver((entries) => entries.filter((one) => one.isIntersecting).forEach(({ target }) => {
    seen.unobserve(target);
    target.prepend(overlayOf(look, weightsOf(Number(target.dataset.index)), matrix.grid, 108));
  }));
  cards.forEach((card) => seen.observe(card));
  host.replaceChildren(make("div.gallery", {}, large, make("div.strip", {}, ...cards)));
  let drawn;
  return {
    canvas: () => large.querySelector("canvas"),
    update() {
      const row = marks().findLast((mark) => mark.row !== null)?.row ?? null;
      cards.forEach((card, index) => card.classList.toggle("now", index === row));
      if (row === drawn) return;
      drawn = row;
      large.replaceChildren(overlayOf(look, weightsOf(row), matrix.grid, 420), make("p.note", {}, row === null ? "the mean of all words" : shown(matrix.rows[row])));
    },
  };
}

/** Weights of a map of a network: over the image, as bars of channels, or as a matrix. */
function pictureOf(look, map, longest, query = null) {
  const [, rows, columns] = map.shape;
  if (map.kind === "matrix") return thumbnail(map, null, longest, longest);
  const values = headWeights(map, null);
  if (map.kind === "channel") return barsOf(map, values, longest);
  const [from, to] = query === null ? [0, rows] : [query, query + 1];
  return overlayOf(look, meanOf(values, columns, from, to), map.grid, longest, map.limits);
}

function barsOf({ shape }, values, width) {
  const [, branches, channels] = shape;
  const { canvas, context } = canvasOf(width, 0.6 * width);
  const high = Math.max(...values, 1e-9);
  const each = width / (branches * channels);
  values.forEach((value, at) => {
    const branch = Math.floor(at / channels);
    const size = (0.6 * width * Math.max(0, value)) / high;
    context.fillStyle = branches === 1 ? palette().accent : `rgb(${mixed(HEAT, (branch + 0.5) / branches)})`;
    context.fillRect(each * ((at % channels) * branches + branch), 0.6 * width - size, Math.max(0.5, each - 0.5), size);
  });
  return canvas;
}

/** The maps of a network: one of them large, all of them small. */
function drawMaps(host, { look, output, choice, run }) {
  choice.map = Math.min(choice.map, output.maps.length - 1);
  const map = output.maps[choice.map];
  const [picture, note] = [make("div"), make("p.note")];
  const show = (query) => {
    state.query = query;
    picture.replaceChildren(pictureOf(look, map, 420, query));
    const asked = query !== null ? `; asked from ${placeName(map.queries, query)}` : map.queries ? "; point at the image to ask from a place" : "";
    note.textContent = `${map.name}, ${map.range.map(digits).join(" to ")}${asked}`;
  };
  if (map.queries) {
    picture.addEventListener("pointermove", (event) => {
      const box = picture.getBoundingClientRect();
      const [row, column] = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width].map(
        (share, axis) => Math.min(map.queries[axis] - 1, Math.max(0, Math.floor(share * map.queries[axis]))));
      if (state.query !== row * map.queries[1] + column) show(row * map.queries[1] + column);
    });
    picture.addEventListener("pointerleave", () => show(null));
  }
  host.replaceChildren(make("div.gallery", {}, make("div.large", {}, picture, note), make("div.strip", {}, ...output.maps.map((one, index) =>
    make(`button.card${index === choice.map ? ".now" : ""}`, { click: () => choose(run, { map: index }) }, pictureOf(look, one, 108), make("span", {}, one.name))))));
  show(map.queries ? state.query : null);
  return { canvas: () => picture.firstChild, update() {} };
}
