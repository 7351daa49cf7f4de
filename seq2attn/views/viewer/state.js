// What is chosen and pointed at, the colours, and how elements are made.

const SVG = "http://www.w3.org/2000/svg";
const LINES = 2000; // that are drawn at once

const PALETTES = {
  light: {
    paper: "#fbfbf9", card: "#ffffff", ink: "#1c2530", pale: "#667280", line: "#e2e6ea", soft: "#eef2f5",
    accent: "#1c6cae", warm: "#b9501a", ramp: ["#e3f0f6", "#86cbe8", "#3a94cd", "#235797", "#1b2650"],
    less: ["#fbe9da", "#e59a58", "#a6480f"],
  },
  dark: {
    paper: "#10151b", card: "#161c24", ink: "#e3e8ed", pale: "#8f9ba8", line: "#29323c", soft: "#1e2731",
    accent: "#6bb5e8", warm: "#f2a36b", ramp: ["#182634", "#1f4a70", "#2f7fb6", "#77c4e8", "#e8f7fd"],
    less: ["#33251a", "#a65f28", "#ffc79a"],
  },
};
const HEAT = ["#1b1464", "#6a1b8f", "#c2306b", "#f5803a", "#fde25a"];

const system = matchMedia("(prefers-color-scheme: dark)");
const state = {
  item: 0, view: null, unit: "words", threshold: 0.08, step: 0, query: null, table: false, theme: null,
  hover: null, // {row, column}: what is pointed at; either may be null
  cursor: null, // {row, column}: what the arrow keys have chosen
  pins: [], // as hover
  runs: page.runs.map(() => ({ output: 0, group: 0, layer: 0, head: null, map: 0 })),
};

const isDark = () => (state.theme ?? (system.matches ? "dark" : "light")) === "dark";
const palette = () => PALETTES[isDark() ? "dark" : "light"];

const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

/** The colour at a share, 0 to 1, of a list of colours. */
function colourAt(colours, share) {
  const place = Math.min(1, Math.max(0, share)) * (colours.length - 1);
  const lower = Math.min(colours.length - 2, Math.floor(place));
  const [from, to] = [channels(colours[lower]), channels(colours[lower + 1])];
  const mixed = from.map((value, index) => Math.round(value + (to[index] - value) * (place - lower)));
  return `rgb(${mixed.join(",")})`;
}

/** The colour of a weight; exactly 0 is the paper. */
function colourOf(weight, high) {
  if (!weight) return palette().card;
  return weight < 0 ? colourAt(palette().less, -weight / high) : colourAt(palette().ramp, weight / high);
}

/** An element with attributes, listeners (functions, named by their events) and children. */
function make(name, attributes = {}, ...children) {
  const [, svg, tag] = /^(svg:)?(.*)$/.exec(name);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function styled(element, styles) {
  for (const [key, value] of Object.entries(styles)) element.style.setProperty(key, value);
  return element;
}

/** A canvas of a size in CSS pixels, sharp on fine screens. */
function canvasOf(width, height) {
  const canvas = document.createElement("canvas");
  const ratio = Math.min(3, devicePixelRatio || 1);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  styled(canvas, { width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { canvas, context };
}

const measuring = document.createElement("canvas").getContext("2d");
const FONT = 'Inter, system-ui, "Segoe UI", "Noto Sans", "Noto Sans Arabic", "Noto Sans CJK SC", sans-serif';

function widthOf(text, size) {
  measuring.font = `${size}px ${FONT}`;
  return measuring.measureText(text).width;
}

/** A text that is at most so wide, cut between graphemes. */
function cut(text, size, most) {
  if (widthOf(text, size) <= most) return text;
  const graphemes = Intl.Segmenter
    ? [...new Intl.Segmenter(undefined, { granularity: "grapheme" }).segment(text)].map((part) => part.segment)
    : [...text];
  while (graphemes.length > 1 && widthOf(`${graphemes.join("")}\u2026`, size) > most) graphemes.pop();
  return `${graphemes.join("")}\u2026`;
}

const same = (one, other) => one && other && one.row === other.row && one.column === other.column;
const matches = (mark, row, column) =>
  (mark.row === null || mark.row === row) && (mark.column === null || mark.column === column);
const marks = () => [...state.pins, ...[state.hover ?? state.cursor].filter(Boolean)];

/** Whether a weight is of what is pointed at or pinned; all are if nothing is. */
const isActive = (row, column, all = marks()) => !all.length || all.some((mark) => matches(mark, row, column));

/** What a run has for the item that is shown, and the head that is chosen of it. */
function contextOf(run) {
  const look = page.items[state.item].of[run];
  const choice = state.runs[run];
  look.run = run;
  choice.output = Math.min(choice.output, look.outputs.length - 1);
  const output = look.outputs[choice.output];
  const groups = output.groups ?? [];
  choice.group = Math.max(0, Math.min(choice.group, groups.length - 1));
  const group = groups[choice.group] ?? null;
  if (group) {
    choice.layer = Math.min(choice.layer, group.layers.length - 1);
    const heads = group.layers[choice.layer].shape[0];
    if (choice.head !== null) choice.head = Math.min(choice.head, heads - 1);
  }
  const unit = state.unit;
  return { run, look, output, group, choice, unit,
    gold: group && group.rows === "target" && group.columns === "source" ? page.items[state.item].gold : null,
    matrix: group ? matrixOf(look, output, choice, unit) : null };
}

/** The names of a group's layer and head. */
function headName(group, choice) {
  const layer = group.layers[choice.layer];
  const heads = layer.shape[0];
  const head = heads === 1 ? "" : choice.head === null ? `, mean of ${heads} heads` : `, head ${choice.head}`;
  return `${layer.name}${head}`;
}

function isChosen(group, layer, head) {
  return Boolean(group.chosen && group.chosen[0] === layer && group.chosen[1] === head);
}
