// What is chosen and pointed at, the colours, and how elements are made.

const SVG = "http://www.w3.org/2000/svg";
const LINES = 2000; // that are drawn at once
const FONT = getComputedStyle(document.body).fontFamily;

const PALETTES = {
  light: { paper: "#fbfbf9", card: "#ffffff", ink: "#1c2530", pale: "#667280", line: "#e2e6ea", soft: "#eef2f5",
    accent: "#1c6cae", warm: "#b9501a", ramp: ["#e3f0f6", "#86cbe8", "#3a94cd", "#235797", "#1b2650"],
    less: ["#fbe9da", "#e59a58", "#a6480f"] },
  dark: { paper: "#10151b", card: "#161c24", ink: "#e3e8ed", pale: "#8f9ba8", line: "#29323c", soft: "#1e2731",
    accent: "#6bb5e8", warm: "#f2a36b", ramp: ["#182634", "#1f4a70", "#2f7fb6", "#77c4e8", "#e8f7fd"],
    less: ["#33251a", "#a65f28", "#ffc79a"] },
};
const HEAT = ["#1b1464", "#6a1b8f", "#c2306b", "#f5803a", "#fde25a"];

const system = matchMedia("(prefers-color-scheme: dark)");
const state = {
  item: 0, view: null, unit: "words", threshold: 0.08, step: 0, query: null, table: false, theme: null,
  hover: null, // {row, column}: what is pointed at; either may be null
  cursor: null, // what the arrow keys have chosen, as hover
  pins: [], // of the same kind
  runs: page.runs.map(() => ({ output: 0, group: 0, layer: 0, head: null, map: 0 })),
};

const isDark = () => (state.theme ?? (system.matches ? "dark" : "light")) === "dark";
const palette = () => PALETTES[isDark() ? "dark" : "light"];

const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
const tint = (colour, share) => `rgba(${channels(colour).join(",")},${share.toFixed(3)})`;

/** Red, green and blue at a share, 0 to 1, of a list of colours. */
function mixed(colours, share) {
  const place = Math.min(1, Math.max(0, share)) * (colours.length - 1);
  const lower = Math.min(colours.length - 2, Math.floor(place));
  const [from, to] = [channels(colours[lower]), channels(colours[lower + 1])];
  return from.map((value, index) => Math.round(value + (to[index] - value) * (place - lower)));
}

/** The colour of a weight; that of exactly 0 is set apart. */
function colourOf(weight, high) {
  const { soft, less, ramp } = palette();
  return weight ? `rgb(${mixed(weight < 0 ? less : ramp, Math.abs(weight) / high)})` : soft;
}

/** An element, named as "button.class", with attributes (label: what it is called), listeners (functions, named
 * by their events) and children. */
function make(name, attributes = {}, ...children) {
  const [, svg, tag, kind] = /^(svg:)?([^.]*)\.?(.*)$/.exec(name);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  if (kind) element.setAttribute("class", kind.replaceAll(".", " "));
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key === "label" ? "aria-label" : key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function styled(element, styles) {
  for (const key in styles) element.style.setProperty(key, styles[key]);
  return element;
}

/** A canvas of a size in CSS pixels, sharp on fine screens, and its context. */
function canvasOf(width, height) {
  const canvas = styled(make("canvas"), { width: `${width}px`, height: `${height}px` });
  const ratio = Math.min(3, devicePixelRatio || 1);
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { canvas, context };
}

const measuring = make("canvas").getContext("2d");

function widthOf(text, size) {
  measuring.font = `${size}px ${FONT}`;
  return measuring.measureText(text).width;
}

/** A text that is at most so wide, cut between graphemes. */
function cut(text, size, most) {
  if (widthOf(text, size) <= most) return text;
  const parts = Intl.Segmenter ? Array.from(new Intl.Segmenter().segment(text), (part) => part.segment) : [...text];
  let [low, high] = [1, parts.length];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (widthOf(`${parts.slice(0, middle).join("")}\u2026`, size) <= most) low = middle;
    else high = middle - 1;
  }
  return `${parts.slice(0, low).join("")}\u2026`;
}

/** A curve from one point to another that leaves and arrives downwards, or sideways. */
function curve(x1, y1, x2, y2, down) {
  const middle = down ? (y1 + y2) / 2 : (x1 + x2) / 2;
  const between = down ? [x1, middle, x2, middle] : [middle, y1, middle, y2];
  const [first, ...others] = [[x1, y1], between, [x2, y2]].map((part) => part.map((one) => one.toFixed(1)).join(" "));
  return `M${first}C${others.join(" ")}`;
}

const same = (one, other) => one === other || (one && other && one.row === other.row && one.column === other.column);
const marks = () => [...state.pins, ...[state.hover ?? state.cursor].filter(Boolean)];

/** Whether a weight is of what is pointed at or pinned; all are if nothing is. */
const isActive = (row, column, all) => !all.length ||
  all.some((mark) => (mark.row ?? row) === row && (mark.column ?? column) === column);

/** What a run has for the item that is shown, and the head that is chosen of it. */
function contextOf(run) {
  const { of, gold } = page.items[state.item];
  const [look, choice, unit] = [of[run], state.runs[run], state.unit];
  choice.output = Math.min(choice.output, look.outputs.length - 1);
  const output = look.outputs[choice.output];
  const groups = output.groups ?? [];
  choice.group = Math.max(0, Math.min(choice.group, groups.length - 1));
  const group = groups[choice.group] ?? null;
  if (group) {
    choice.layer = Math.min(choice.layer, group.layers.length - 1);
    if (choice.head !== null) choice.head = Math.min(choice.head, group.layers[choice.layer].shape[0] - 1);
  }
  const links = group?.rows === "target" && group.columns === "source";
  return { run, look, output, group, choice, links, gold: (links && gold) || null,
    matrix: group && matrixOf(look, output, choice, unit) };
}

function headName({ layers }, choice) {
  const { name, shape } = layers[choice.layer];
  if (shape[0] === 1) return name;
  return `${name}, ${choice.head === null ? `mean of ${shape[0]} heads` : `head ${choice.head}`}`;
}
