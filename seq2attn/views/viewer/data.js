// The data of a page: packed weights, the words of sentences, and matrices between them.

const page = JSON.parse(document.getElementById("data").textContent);

const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

/** The weights of a head of a layer, rows times columns; of none, the mean of all. */
function headWeights(layer, head) {
  const [heads, rows, columns] = layer.shape;
  const [low, high] = layer.range;
  layer.values ??= layer.f32 ? new Float32Array(bytesOf(layer.f32).buffer) : bytesOf(layer.u8);
  if (layer.columns) layer.places ??= new Uint16Array(bytesOf(layer.columns).buffer);
  const [base, unit] = layer.f32 ? [0, 1] : [low, (high - low) / 255];
  const kept = layer.values.length / heads / rows; // of a row; all, or the largest
  const first = head === null ? 0 : Math.min(head, heads - 1);
  const last = head === null ? heads : first + 1;
  const sum = new Float32Array(rows * columns);
  for (let one = first; one < last; one++) {
    for (let at = 0; at < rows * kept; at++) {
      const index = one * rows * kept + at;
      const place = layer.places ? Math.floor(at / kept) * columns + layer.places[index] : at;
      sum[place] += (base + unit * layer.values[index]) / (last - first);
    }
  }
  return sum;
}

/** What the rows or columns of a group stand for: a text, a list of names, or null for places of an image. */
function sideOf(look, output, name) {
  if (Array.isArray(name)) return { words: name, text: name.join(" ") };
  return { source: look.source, target: output.target }[name] ?? null;
}

const labelsOf = (side, unit) => (unit === "pieces" && side.pieces) || side.words;
const count = (length) => [...Array(length).keys()];

/** Where the weights of each piece go: to its word, or to itself. */
function placesOf(side, unit) {
  return unit === "words" && side.word_of ? side.word_of : count((side.pieces ?? side.words).length);
}

const kept = new Map(); // the last matrices
let numbered = 0;

/** Weights between the words, or the pieces, of a sentence and its output: columns of a word are summed, rows
 * averaged. The places of an image stay as they are. */
function matrixOf(look, output, choice, unit) {
  output.id ??= ++numbered;
  const key = `${output.id} ${choice.group} ${choice.layer} ${choice.head} ${unit}`;
  if (!kept.has(key)) {
    const group = output.groups[choice.group];
    const layer = group.layers[Math.min(choice.layer, group.layers.length - 1)];
    if (kept.size > 7) kept.delete(kept.keys().next().value);
    kept.set(key, between(look, output, group, layer, headWeights(layer, choice.head), unit));
  }
  return kept.get(key);
}

function between(look, output, group, layer, weights, unit) {
  const [, , given] = layer.shape;
  const { before = [], after = [], shift = 0 } = group;
  const rowSide = sideOf(look, output, group.rows);
  const side = sideOf(look, output, group.columns) ?? { words: count(given).map(String) };
  const rows = labelsOf(rowSide, unit);
  const rowOf = placesOf(rowSide, unit);
  const names = labelsOf(side, unit);
  const columns = [...before, ...names, ...after];
  const columnOf = [...count(before.length), ...placesOf(side, unit).map((at) => at + before.length),
    ...after.map((_, at) => at + before.length + names.length)];
  const width = columns.length;
  const values = new Float32Array(rows.length * width);
  const pieces = new Float32Array(rows.length); // of each row
  for (const row of rowOf) pieces[row]++;
  rowOf.forEach((row, piece) => {
    const from = (piece + shift) * given;
    for (let column = 0; column < given; column++) {
      values[row * width + columnOf[column]] += (weights[from + column] ?? 0) / pieces[row];
    }
  });
  const high = values.reduce((most, one) => Math.max(most, one), 0) || 1;
  const low = values.reduce((least, one) => Math.min(least, one), 0);
  return { rows, columns, values, low, high, grid: layer.grid, before: before.length,
    at: (row, column) => values[row * width + column],
    special: (column) => column < before.length || column >= width - after.length,
    rowDirection: directionOf(rowSide), columnDirection: layer.grid ? "ltr" : directionOf(side) };
}

/** The links of a matrix between words: of each row the column with the largest weight, unless that of a
 * special token, as </s>, is larger. */
function linksOf(matrix) {
  const links = [];
  matrix.rows.forEach((_, row) => {
    let [best, special] = [-1, 0];
    matrix.columns.forEach((_, column) => {
      const weight = matrix.at(row, column);
      if (matrix.special(column)) special = Math.max(special, weight);
      else if (weight > (best < 0 ? 0 : matrix.at(row, best))) best = column;
    });
    if (best >= 0 && matrix.at(row, best) >= special) links.push([best - matrix.before, row]);
  });
  return links;
}

/** 1 - (|A and S| + |A and P|) / (|A| + |S|), with links A, sure links S and possible links P (Och & Ney). */
function errorRate(links, gold) {
  const found = new Set(links.map((link) => link.join("-")));
  const sure = gold.filter((link) => link[2] === "S");
  const right = (part) => part.filter((link) => found.has(`${link[0]}-${link[1]}`)).length;
  return found.size + sure.length ? 1 - (right(sure) + right(gold)) / (found.size + sure.length) : 0;
}

/** The direction of the first letter of a text, as dir="auto" has it. */
function directionOf(side) {
  const letter = /\p{L}/u.exec(side.text ?? side.words.join(" "));
  return letter && /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/.test(letter[0]) ? "rtl" : "ltr";
}

const digits = (weight) => (Math.abs(weight) >= 0.005 || !weight ? weight.toFixed(2) : weight.toExponential(0));
const shown = (piece) => piece.replaceAll("\u2581", "\u00b7"); // SentencePiece's sign for a space
const placeName = (grid, at) => `row ${Math.floor(at / grid[1])}, column ${at % grid[1]}`;
