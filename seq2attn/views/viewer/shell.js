// The frame of the page: head, choices, views of one run or two, keys.

const VIEWS = {
  words: { name: "Words", when: (c) => c.matrix && !c.matrix.grid, draw: drawWords },
  image: { name: "Image", when: (c) => c.matrix?.grid && c.look.image, draw: drawImage },
  maps: { name: "Maps", when: (c) => c.output.maps, draw: drawMaps },
  matrix: { name: "Matrix", when: (c) => c.matrix && !c.matrix.grid, draw: drawMatrix },
  heads: { name: "Heads", when: (c) => c.matrix && !c.matrix.grid && c.group.layers.length * c.group.layers[0].shape[0] > 1, draw: drawHeads },
  steps: { name: "Steps", when: (c) => c.output.steps, draw: drawSteps },
  beam: { name: "Beam", when: (c) => c.look.beam, draw: drawBeam },
  difference: { name: "A \u2212 B", when: () => differenceOf(), draw: drawMatrix },
};
const KEYS = { "\u2190 \u2191 \u2192 \u2193": "over the weights, or the steps", Enter: "pin what is pointed at (Shift: one more)",
  Esc: "let go", "L, H": "next layer, head (Shift: back)", M: "mean of the heads", W: "words or pieces", "1 \u2026 7": "views",
  "N, P": "next, previous sentence", "+, \u2212": "size of cells", A: "table", T: "light or dark", "?": "this list" };

const root = document.getElementById("page");
const speaker = make("p.say", { role: "status", "aria-live": "polite" });
let panels = []; // of each run: {context, drawn, twin}

function say(text) {
  if (speaker.textContent !== text) speaker.textContent = text;
}

/** The context of the first run's weights less the second's; null unless they are between the same words. */
function differenceOf() {
  if (page.runs.length !== 2) return null;
  const [one, two] = [0, 1].map(contextOf);
  const words = ({ matrix }) => matrix && JSON.stringify([matrix.rows, matrix.columns]);
  if (!one.matrix || words(one) !== words(two)) return null;
  const values = one.matrix.values.map((weight, index) => weight - two.matrix.values[index]);
  const high = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6);
  return { ...one, matrix: { ...one.matrix, values, high, low: -high, at: (row, column) => values[row * one.matrix.columns.length + column] } };
}

function hover(mark) {
  if (same(mark, state.hover)) return;
  state.hover = mark;
  update();
}

function pin(mark, more) {
  const there = state.pins.findIndex((one) => same(one, mark));
  if (there >= 0) state.pins.splice(there, 1);
  else state.pins = more ? [...state.pins, mark] : [mark];
  update();
}

function pointAt(mark) {
  [state.cursor, state.hover] = [mark, null];
  for (const { drawn } of panels) drawn.reveal?.(mark);
  update();
}

function letGo() {
  state.hover = state.cursor = null;
  state.pins = [];
}

/** Show what is pointed at, without drawing anew. */
function update() {
  if (!panels.length) return;
  for (const { drawn } of panels) drawn.update();
  const { matrix } = panels[0].context;
  const mark = state.hover ?? state.cursor ?? state.pins.at(-1);
  say(mark && matrix ? spoken(matrix, mark) : "");
}

/** Change what is shown, and draw the page anew. */
function set(changes, forget = true) {
  Object.assign(state, changes);
  if (forget) letGo();
  render();
}

function choose(run, changes) {
  Object.assign(state.runs[run], changes);
  set({}, "output" in changes);
}

function chooseAll(changes) {
  for (const run of state.runs) Object.assign(run, changes);
  set({}, "group" in changes);
}

function render() {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  for (const [name, colour] of Object.entries(palette())) styled(document.documentElement, { [`--${name}`]: colour });
  const first = contextOf(0);
  const there = Object.keys(VIEWS).filter((view) => VIEWS[view].when(first));
  if (!there.includes(state.view)) state.view = there[0] ?? null;
  const focus = document.activeElement?.getAttribute("aria-label");
  const exports = Object.keys(EXPORTS).map((name) => button(name, name, () => EXPORTS[name].run(panels[0].drawn, panels[0].context), null));
  const frame = make("div.views");
  root.replaceChildren(headOf(), there.length ? toolsOf(first, there) : "", frame,
    make("footer", {}, speaker, make("div.bar", {}, ...exports, button("table", "table", switchTable, state.table))));
  drawViews(frame);
  exports.forEach((one, index) => (one.hidden = !Object.values(EXPORTS)[index].when(panels[0].drawn, panels[0].context)));
  if (focus) root.querySelector(`[aria-label="${CSS.escape(focus)}"]`)?.focus();
}

/** Draw the views of all runs, and the tables beside them. */
function drawViews(frame = root.querySelector(".views")) {
  const contexts = state.view === "difference" ? [differenceOf()] : page.runs.map((_, run) => contextOf(run));
  frame.classList.toggle("two", contexts.length > 1);
  frame.replaceChildren();
  panels = contexts.map((context) => {
    const host = make(`div.view.${state.view}`, {}, state.view ? "" : make("p.note", {}, "This model has no attention."));
    const twin = make(`div.twin${state.table ? "" : ".unseen"}`);
    frame.append(make("section.panel", {}, titleOf(context), host, twin));
    const drawn = VIEWS[state.view]?.when(context) ? VIEWS[state.view].draw(host, context) : { update() {} };
    setTimeout(() => twin.replaceChildren(tableOf(context)));
    return { context, drawn, twin };
  });
  update();
}

const button = (label, text, click, pressed) => make("button", { label, click, "aria-pressed": pressed === null ? null : String(pressed) }, text);

function select(label, names, chosen, act) {
  return make("select", { label, change: (event) => act(event.target.selectedIndex) },
    ...names.map((name, index) => make("option", { selected: index === chosen }, name)));
}

const nameOf = ({ of: [look] }) => look.source?.text || look.image?.name || "image";

function headOf() {
  const { items, title } = page;
  const sentences = items.length < 2 ? "" : make("nav.bar", {}, button("previous sentence", "\u2190", () => show(state.item - 1), null),
    select("sentence", items.map((one, index) => `${index + 1}  ${cut(nameOf(one), 13, 200)}`), state.item, show),
    button("next sentence", "\u2192", () => show(state.item + 1), null));
  const text = items[state.item].of[0].source?.text;
  return make("header", {}, make("div.bar", {}, make("h1", {}, title), sentences, make("span.space"),
    button("dark colours", "\u25d0", switchTheme, isDark()), button("keys", "?", help, null)), text ? make("p.text.pale", { dir: "auto" }, cut(text, 21, 1600)) : "");
}

function titleOf({ run, look, output, group, choice, gold }) {
  const single = state.view === "difference";
  const names = page.runs.map(({ name }) => name);
  const error = gold && errorRate(linksOf(matrixOf(look, output, choice, "words")), gold);
  const notes = [output.score !== undefined && `score ${output.score.toFixed(3)}`, output.note, group && headName(group, choice), gold && `AER ${(100 * error).toFixed(1)} %`];
  const others = look.outputs.length < 2 || single ? "" : make("span.bar", { role: "group", label: "hypotheses" }, ...look.outputs.map((_, index) =>
    button(`hypothesis ${index + 1}${run ? " of the second run" : ""}`, String(index + 1), () => choose(run, { output: index }), index === choice.output)));
  return make("div.title", {}, names.length > 1 ? make("h2", {}, single ? names.join(" \u2212 ") : names[run]) : "",
    make("p.text", { dir: "auto" }, cut(output.text, 21, 1600)), make("div.bar.note", {}, others, notes.filter(Boolean).join(" \u00b7 ")));
}

function toolsOf({ group, output, look, choice }, there) {
  const tabs = there.map((view) => make("button", { role: "tab", "aria-selected": String(view === state.view), label: VIEWS[view].name,
    click: () => set({ view }, false) }, VIEWS[view].name));
  const tools = [];
  if (output.groups?.length > 1) tools.push(select("attention", output.groups.map(({ name }) => name), choice.group, (group) => chooseAll({ group, layer: 99, head: null })));
  if (group && state.view !== "heads" && state.view !== "beam") {
    const heads = group.layers[choice.layer].shape[0];
    if (group.layers.length > 1) tools.push(select("layer", group.layers.map(({ name }) => name), choice.layer, (layer) => chooseAll({ layer })));
    if (heads > 1) tools.push(select("head", ["mean of heads", ...count(heads).map((head) => `head ${head}`)], (choice.head ?? -1) + 1, (index) => chooseAll({ head: index ? index - 1 : null })));
  }
  const written = state.view === "steps" || state.view === "beam"; // of pieces, always
  if (!written && (look.source?.pieces || output.target?.pieces)) tools.push(button("pieces instead of words", "pieces", switchUnit, state.unit === "pieces"));
  if (state.view === "words") {
    const number = make("span.note", {}, state.threshold.toFixed(2));
    tools.push(make("label.bar.note", {}, "from", make("input", { type: "range", min: 0, max: 0.5, step: 0.01, value: state.threshold, label: "threshold of lines", input: (event) => {
      state.threshold = Number(event.target.value);
      number.textContent = state.threshold.toFixed(2);
      drawViews();
    } }), number));
  }
  return make("div.tools", {}, make("div.tabs", { role: "tablist" }, ...tabs), make("span.space"), ...tools);
}

function show(item) {
  if (item < 0 || item >= page.items.length || item === state.item) return;
  state.runs.forEach((run) => (run.output = 0));
  set({ item, step: 0, query: null });
}

const switchUnit = () => set({ unit: state.unit === "words" ? "pieces" : "words" });
const switchTheme = () => set({ theme: isDark() ? "light" : "dark" }, false);
const switchTable = () => set({ table: !state.table }, false);

function help() {
  const list = Object.entries(KEYS).flatMap(([key, text]) => [make("dt", {}, key), make("dd", {}, text)]);
  const dialog = make("dialog", { close: () => dialog.remove(), click: () => dialog.close() }, make("h2", {}, "Keys"), make("dl", {}, ...list), make("p.note", {}, page.about ?? ""));
  root.append(dialog);
  dialog.showModal();
}

const ARROWS = { ArrowUp: { row: -1, column: 0 }, ArrowDown: { row: 1, column: 0 }, ArrowLeft: { row: 0, column: -1 }, ArrowRight: { row: 0, column: 1 } };

/** Move the cursor over the weights. */
function move(by) {
  const { matrix } = panels[0].context;
  if (!matrix) return;
  const from = state.cursor ?? state.hover ?? { row: null, column: null };
  const within = (at, change, labels) => (at === null && !change ? null : Math.max(0, Math.min(labels.length - 1, (at ?? -1) + change)));
  const across = matrix.columnDirection === "rtl" ? -by.column : by.column;
  if (matrix.grid) return pointAt({ row: within(from.row, by.row + by.column, matrix.rows), column: null });
  pointAt({ row: within(from.row, by.row, matrix.rows), column: within(from.column, across, matrix.columns) });
}

/** To the next layer or head, or the one before. */
function turn(what, by) {
  const { group, choice } = contextOf(0);
  if (!group) return;
  const total = what === "layer" ? group.layers.length : group.layers[choice.layer].shape[0];
  chooseAll({ [what]: ((choice[what] ?? (by > 0 ? -1 : 0)) + by + total) % total });
}

/** Do what a letter or digit is for, and return it; undefined or false if it is for nothing. */
function press(key, by) {
  const zoom = (factor) => panels.forEach(({ drawn }) => drawn.zoom?.(factor));
  const act = { l: () => turn("layer", by), h: () => turn("head", by), m: () => chooseAll({ head: null }), w: switchUnit, t: switchTheme,
    a: switchTable, n: () => show(state.item + 1), p: () => show(state.item - 1), "?": help, "+": () => zoom(1.25), "-": () => zoom(0.8) }[key]
    ?? (/^[1-9]$/.test(key) && (() => root.querySelectorAll('[role="tab"]')[key - 1]?.click()));
  act && act();
  return act;
}

addEventListener("keydown", (event) => {
  const focused = document.activeElement;
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog") || focused?.matches("select, input")) return;
  const by = ARROWS[event.key];
  const mark = state.cursor ?? state.hover;
  if (by && focused?.matches("td")) moveInTable(focused, by);
  else if (by && panels[0].drawn.move) panels[0].drawn.move(by.row + by.column);
  else if (by && !focused?.matches(".wide")) move(by);
  else if (event.key === "Enter" && mark && !focused?.matches("button")) pin(mark, event.shiftKey);
  else if (event.key === "Escape") {
    letGo();
    update();
  } else if (!press(event.key.toLowerCase(), event.shiftKey ? -1 : 1)) return;
  event.preventDefault();
});

addEventListener("resize", () => drawViews());
system.addEventListener("change", render);
state.runs.forEach((run, index) => ([run.layer, run.head] = contextOf(index).group?.chosen ?? [0, null]));
if (location.hash.slice(1) in VIEWS) state.view = location.hash.slice(1);
render();
