// The data of a page: packed weights, the words of sentences, and matrices between them.

const page = JSON.parse(document.getElementById("data").textContent);

const unpacked = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

/** The weights of one head of a layer, rows times columns; of all heads their mean. */
function headWeights(layer, head) {
  const [heads, rows, columns] = layer.shape;
  const size = rows * columns;
  const sum = new Float32Array(size);
  const chosen = head === null ? [...Array(heads).keys()] : [Math.min(head, heads - 1)];
  for (const one of chosen) addHead(layer, one, size, columns, sum);
  if (chosen.length > 1) for (let i = 0; i < size; i++) sum[i] /= chosen.length;
  return sum;
}

function addHead(layer, head, size, columns, sum) {
  if (layer.f32) {
    layer.floats ??= new Float32Array(unpacked(layer.f32).buffer);
    for (let i = 0; i < size; i++) sum[i] += layer.floats[head * size + i];
    return;
  }
  layer.bytes ??= unpacked(layer.u8);
  const [low, high] = layer.range;
  const unit = (high - low) / 255;
  if (!layer.columns) {
    for (let i = 0; i < size; i++) sum[i] += low + unit * layer.bytes[head * size + i];
    return;
  }
  layer.indices ??= new Uint16Array(unpacked(layer.columns).buffer); // of the largest weights of each row
  const rows = size / columns;
  const kept = layer.bytes.length / layer.shape[0] / rows;
  for (let row = 0; row < rows; row++) {
    for (let k = 0; k < kept; k++) {
      const at = (head * rows + row) * kept + k;
      sum[row * columns + layer.indices[at]] += low + unit * layer.bytes[at];
    }
  }
}

/** The pieces and words that the rows or columns of a group stand for. */
function sideOf(look, output, name) {
  if (Array.isArray(name)) return { words: name, text: name.join(" ") };
  return name === "source" ? look.source : name === "target" ? output.target : null;
}

function labelsOf(side, unit) {
  return unit === "pieces" && side.pieces ? side.pieces : side.words;
}

/** Where the rows (or columns) of pieces go: the index of the word of each, or its own. */
function indexOf(side, unit) {
  if (unit === "words" && side.word_of) return side.word_of;
  return [...Array(labelsOf(side, side.pieces ? "pieces" : "words").length).keys()];
}

const kept = new Map(); // the last matrices
let numbered = 0;

/** Weights between the words, or the pieces, of a sentence and its output: columns of a word are summed, rows
 * averaged. The places of an image stay as they are. */
function matrixOf(look, output, choice, unit) {
  output.id ??= ++numbered;
  const key = `${output.id} ${choice.group} ${choice.layer} ${choice.head} ${unit}`;
  if (kept.has(key)) return kept.get(key);
  const group = output.groups[choice.group];
  const layer = group.layers[Math.min(choice.layer, group.layers.length - 1)];
  const made = between(look, output, group, layer, headWeights(layer, choice.head), unit);
  if (kept.size > 7) kept.delete(kept.keys().next().value);
  kept.set(key, made);
  return made;
}

function between(look, output, group, layer, weights, unit) {
  const rowSide = sideOf(look, output, group.rows);
  const side = sideOf(look, output, group.columns);
  const before = group.before ?? [];
  const after = group.after ?? [];
  const given = layer.shape[2];
  const rowOf = indexOf(rowSide, unit);
  const rows = labelsOf(rowSide, unit);
  const inner = side ? indexOf(side, unit) : [...Array(given).keys()];
  const names = side ? labelsOf(side, unit) : inner.map(String);
  const columns = [...before, ...names, ...after];
  const columnOf = (column) => {
    if (column < before.length) return column;
    if (column < before.length + inner.length) return before.length + inner[column - before.length];
    return column - inner.length + names.length;
  };
  const target = Array.from({ length: given }, (_, column) => columnOf(column));
  const values = new Float32Array(rows.length * columns.length);
  const counts = new Uint16Array(rows.length);
  for (let piece = 0; piece < rowOf.length; piece++) {
    const row = rowOf[piece];
    const from = (piece + (group.shift ?? 0)) * given;
    if (from >= weights.length) continue;
    counts[row]++;
    for (let column = 0; column < given; column++) {
      values[row * columns.length + target[column]] += weights[from + column];
    }
  }
  let low = 0;
  let high = 0;
  for (let row = 0; row < rows.length; row++) {
    for (let column = 0; column < columns.length; column++) {
      const at = row * columns.length + column;
      const value = (values[at] /= Math.max(1, counts[row]));
      if (value > high) high = value;
      if (value < low) low = value;
    }
  }
  const special = (column) => column < before.length || column >= columns.length - after.length;
  const at = (row, column) => values[row * columns.length + column];
  return { rows, columns, values, at, special, before: before.length, low, high: high || 1,
    grid: layer.grid, rowDirection: directionOf(rowSide), columnDirection: side ? directionOf(side) : "ltr" };
}

/** The links of a matrix between words: of each row the column with the largest weight, unless that of a
 * special token, as </s>, is larger. */
function linksOf(matrix) {
  const links = [];
  for (let row = 0; row < matrix.rows.length; row++) {
    let best = -1;
    let special = 0;
    for (let column = 0; column < matrix.columns.length; column++) {
      const weight = matrix.at(row, column);
      if (matrix.special(column)) special = Math.max(special, weight);
      else if (weight > 0 && (best < 0 || weight > matrix.at(row, best))) best = column;
    }
    if (best >= 0 && matrix.at(row, best) >= special) links.push([best - matrix.before, row]);
  }
  return links;
}

/** 1 - (|A and S| + |A and P|) / (|A| + |S|), with links A, sure links S and possible links P (Och & Ney). */
function errorRate(links, gold) {
  const name = (link) => `${link[0]}-${link[1]}`;
  const found = new Set(links.map(name));
  const possible = new Set(gold.map(name));
  const sure = new Set(gold.filter((link) => link[2] === "S").map(name));
  const count = (set) => [...found].filter((link) => set.has(link)).length;
  return found.size + sure.size ? 1 - (count(sure) + count(possible)) / (found.size + sure.size) : 0;
}

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
const LETTER = /\p{L}/u;

/** The direction of the first letter of a text, as dir="auto" has it. */
function directionOf(side) {
  const letter = LETTER.exec(side.text ?? side.words.join(" "));
  return letter && RIGHT_TO_LEFT.test(letter[0]) ? "rtl" : "ltr";
}

const digits = (weight) => (Math.abs(weight) >= 0.005 || weight === 0 ? weight.toFixed(2) : weight.toExponential(0));
const shown = (piece) => piece.replaceAll("\u2581", "\u00b7"); // SentencePiece's sign for a space
