// The frame of the page: head, choices, views of one run or two, keys.

const VIEWS = {
  words: { name: "Words", when: (c) => c.matrix && !c.matrix.grid, draw: drawWords },
  image: { name: "Image", when: (c) => c.matrix && c.matrix.grid && c.look.image, draw: drawImage },
  maps: { name: "Maps", when: (c) => c.output.maps?.length, draw: drawMaps },
  matrix: { name: "Matrix", when: (c) => c.matrix && !c.matrix.grid, draw: drawMatrix },
  heads: { name: "Heads", draw: drawHeads,
    when: (c) => c.group && !c.matrix.grid && c.group.layers.length * c.group.layers[0].shape[0] > 1 },
  steps: { name: "Steps", when: (c) => c.output.steps?.length, draw: drawSteps },
  beam: { name: "Beam", when: (c) => c.look.beam?.length, draw: drawBeam },
  difference: { name: "A \u2212 B", draw: drawMatrix, when: (c) => comparable() },
};
const KEYS = [["\u2190 \u2191 \u2192 \u2193", "move over the weights; in Steps, to another step"], ["Enter", "pin what is pointed at (Shift: one more)"],
  ["Esc", "let go"], ["L, H", "next layer, head (Shift: the one before)"], ["M", "mean of the heads"], ["W", "words or pieces"],
  ["1 \u2026 7", "views"], ["N, P", "next, previous sentence"], ["+, \u2212", "size of the cells"], ["A", "the weights as a table"], ["T", "light or dark"], ["?", "this list"]];

const root = document.getElementById("page");
const speaker = make("p", { class: "say", role: "status", "aria-live": "polite" });
let panels = []; // of each run: {context, drawn}

const say = (text) => { if (speaker.textContent !== text) speaker.textContent = text; };

/** Whether both runs have weights between the same words of source and target. */
function comparable() {
  if (page.runs.length !== 2) return false;
  const [one, two] = [0, 1].map((run) => contextOf(run).matrix);
  const equal = (a, b) => a.length === b.length && a.every((word, index) => word === b[index]);
  return Boolean(one && two && equal(one.rows, two.rows) && equal(one.columns, two.columns));
}

/** The context of the difference of both runs. */
function differenceOf() {
  const [one, two] = [0, 1].map((run) => contextOf(run));
  const values = one.matrix.values.map((weight, index) => weight - two.matrix.values[index]);
  const high = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6);
  const at = (row, column) => values[row * one.matrix.columns.length + column];
  return { ...one, matrix: { ...one.matrix, values, at, high, low: -high } };
}

function hover(mark) {
  if (same(mark, state.hover) || mark === state.hover) return;
  state.hover = mark;
  update();
}

function pin(mark, more) {
  const there = state.pins.findIndex((one) => same(one, mark));
  if (there >= 0) state.pins.splice(there, 1);
  else if (more) state.pins.push(mark);
  else state.pins = [mark];
  update();
}

function pointAt(mark) {
  state.cursor = mark;
  state.hover = null;
  for (const { drawn } of panels) drawn.reveal?.(mark);
  update();
}

function choose(run, changes) {
  Object.assign(state.runs[run], changes);
  if ("output" in changes) letGo();
  render();
}

function letGo() {
  state.hover = state.cursor = null;
  state.pins = [];
}

/** Show what has changed in what is pointed at, without drawing anew. */
function update() {
  for (const { drawn } of panels) drawn.update();
  const { context } = panels[0];
  const mark = state.hover ?? state.cursor ?? state.pins.at(-1);
  say(mark && context.matrix ? spoken(context.matrix, mark) : "");
}

function spoken(matrix, { row, column }) {
  const name = (at) => (matrix.grid ? `row ${Math.floor(at / matrix.grid[1])}, column ${at % matrix.grid[1]}` : shown(matrix.columns[at]));
  if (row !== null && row >= matrix.rows.length) return "";
  if (row !== null && column !== null) return `${name(column)} to ${shown(matrix.rows[row])} ${digits(matrix.at(row, column))}`;
  const all = row !== null ? matrix.columns.map((_, at) => [matrix.at(row, at), name(at)])
    : matrix.rows.map((word, at) => [matrix.at(at, column), shown(word)]);
  const best = all.sort((one, two) => two[0] - one[0]).slice(0, 4).filter(([weight]) => weight >= 0.01);
  return `${row !== null ? shown(matrix.rows[row]) : name(column)}: ${best.map(([weight, word]) => `${word} ${digits(weight)}`).join(", ")}`;
}

function render() {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  const colours = palette();
  for (const name of ["paper", "card", "ink", "pale", "line", "soft", "accent", "warm"]) {
    document.documentElement.style.setProperty(`--${name}`, colours[name]);
  }
  const first = contextOf(0);
  const there = Object.keys(VIEWS).filter((view) => VIEWS[view].when(first));
  if (!there.includes(state.view)) state.view = there[0] ?? null;
  const focus = document.activeElement?.dataset?.focus;
  root.replaceChildren(headOf(), ...(state.view ? [toolsOf(first, there)] : []), viewsBox(), make("footer", {}, speaker, exportsBox()));
  render.views();
  if (focus) root.querySelector(`[data-focus="${focus}"]`)?.focus();
}

/** Draw the views of all runs, and the tables beside them. */
render.views = () => {
  const frame = root.querySelector(".views");
  const single = state.view === "difference";
  const contexts = single ? [differenceOf()] : page.runs.map((_, run) => contextOf(run));
  frame.classList.toggle("two", contexts.length > 1);
  frame.replaceChildren();
  panels = contexts.map((context) => {
    const host = make("div", { class: `view ${state.view}` });
    const panel = make("section", { class: "panel", "aria-label": page.runs[context.run].name },
      titleOf(context, single), state.view ? host : make("p", { class: "note" }, "This model has no attention."));
    frame.append(panel);
    const view = VIEWS[state.view];
    const drawn = view && view.when(context) ? view.draw(host, context) : { update() {} };
    const twin = make("div", { class: `twin${state.table ? "" : " unseen"}` });
    panel.append(twin);
    setTimeout(() => twin.replaceChildren(tableOf(context)));
    return { context, drawn, twin };
  });
  const { context, drawn } = panels[0];
  for (const button of root.querySelectorAll("[data-export]")) button.hidden = !EXPORTS[button.dataset.export].when(drawn, context);
  update();
};

const toggle = (name, pressed, act, label = name) => make("button", { class: "plain", "aria-pressed": String(pressed), "data-focus": name, "aria-label": label, click: act }, name);

function headOf() {
  const item = page.items[state.item];
  const count = page.items.length;
  const go = (by) => () => show(state.item + by);
  const sentences = count < 2 ? null : make("nav", { "aria-label": "sentences" },
    make("button", { class: "plain", "aria-label": "previous sentence", click: go(-1) }, "\u2190"),
    make("select", { "aria-label": "sentence", "data-focus": "sentence", change: (event) => show(event.target.selectedIndex) },
      ...page.items.map((one, index) => make("option", { selected: index === state.item }, `${index + 1}  ${cut(nameOf(one), 13, 300)}`))),
    make("button", { class: "plain", "aria-label": "next sentence", click: go(1) }, "\u2192"));
  const source = item.of[0].source;
  return make("header", {},
    make("div", { class: "bar" }, make("h1", {}, page.title), sentences, make("span", { class: "space" }),
      toggle("\u25d0", isDark(), switchTheme, "dark colours"), toggle("?", false, help, "keys")),
    source && source.text ? make("p", { class: "sentence", dir: "auto" }, cut(source.text, 21, 3000)) : null);
}

const nameOf = (item) => item.of[0].source?.text || item.of[0].image?.name || "image";

function titleOf(context, single) {
  const { output, look, run } = context;
  const error = context.gold ? ` \u00b7 AER ${(100 * errorRate(linksOf(matrixOf(look, output, context.choice, "words")), context.gold)).toFixed(1)} %` : "";
  const numbers = output.score === undefined ? "" : `score ${output.score.toFixed(3)}`;
  const several = look.outputs.length < 2 || single ? null : make("span", { class: "nbest", role: "group", "aria-label": "hypotheses" },
    ...look.outputs.map((_, index) => make("button", { class: "plain", "aria-pressed": String(index === context.choice.output), "aria-label": `hypothesis ${index + 1}`,
      "data-focus": `output${run}-${index}`, click: () => choose(run, { output: index }) }, String(index + 1))));
  const label = single ? `${page.runs[0].name} \u2212 ${page.runs[1].name}` : page.runs.length > 1 ? page.runs[run].name : null;
  return make("div", { class: "title" }, label ? make("h2", {}, label) : null,
    make("p", { class: "result", dir: "auto" }, cut(output.text, 21, 3000)),
    make("p", { class: "note" }, several, `${numbers}${error}${output.note ? (numbers ? " \u00b7 " : "") + output.note : ""}`, make("span", {}, context.group ? headLine(context) : "")));
}

const headLine = ({ group, choice }) => ` \u00b7 ${headName(group, choice)}`;

function toolsOf(context, there) {
  const tabs = make("div", { class: "tabs", role: "tablist" }, ...there.map((view) => make("button", {
    role: "tab", "aria-selected": String(view === state.view), "data-focus": view, click: () => open(view) }, VIEWS[view].name)));
  const { group, output, look, choice } = context;
  const tools = [];
  if (output.groups?.length > 1) tools.push(make("select", { "aria-label": "attention", "data-focus": "group", change: (event) => chooseAll({ group: event.target.selectedIndex, layer: 99, head: null }) },
    ...output.groups.map((one, index) => make("option", { selected: index === choice.group }, one.name))));
  if (group && state.view !== "heads") tools.push(...headTools(context));
  if (look.source?.pieces || output.target?.pieces) tools.push(toggle("pieces", state.unit === "pieces", switchUnit, "pieces instead of words"));
  if (state.view === "words") tools.push(make("label", { class: "threshold" }, "from ", make("input", { type: "range", min: 0, max: 0.5, step: 0.01, value: state.threshold, "data-focus": "threshold",
    "aria-label": "threshold of lines", input: (event) => { state.threshold = Number(event.target.value); event.target.nextSibling.textContent = state.threshold.toFixed(2); render.views(); } }),
    make("output", {}, state.threshold.toFixed(2))));
  return make("div", { class: "tools" }, tabs, make("span", { class: "space" }), ...tools);
}

function headTools({ group, choice }) {
  const heads = group.layers[choice.layer].shape[0];
  const tools = [];
  if (group.layers.length > 1) tools.push(make("select", { "aria-label": "layer", "data-focus": "layer", change: (event) => chooseAll({ layer: event.target.selectedIndex }) },
    ...group.layers.map((layer, index) => make("option", { selected: index === choice.layer }, layer.name))));
  if (heads > 1) tools.push(make("select", { "aria-label": "head", "data-focus": "head", change: (event) => chooseAll({ head: event.target.selectedIndex ? event.target.selectedIndex - 1 : null }) },
    make("option", { selected: choice.head === null }, "mean of heads"),
    ...Array.from({ length: heads }, (_, head) => make("option", { selected: choice.head === head }, `head ${head}`))));
  return tools;
}

const viewsBox = () => make("div", { class: "views" });

function exportsBox() {
  return make("div", { class: "exports" }, ...Object.entries(EXPORTS).map(([name, one]) => make("button", { class: "plain", "data-export": name,
    click: () => one.run(panels[0].drawn, panels[0].context) }, name)), toggle("table", state.table, switchTable, "the weights as a table"));
}

function chooseAll(changes) {
  for (const run of state.runs) Object.assign(run, changes);
  if ("group" in changes) letGo();
  render();
}

function open(view) {
  state.view = view;
  render();
}

function show(item) {
  if (item < 0 || item >= page.items.length || item === state.item) return;
  state.item = item;
  state.step = 0;
  state.runs.forEach((run) => (run.output = 0));
  letGo();
  render();
}

function switchUnit() {
  state.unit = state.unit === "words" ? "pieces" : "words";
  letGo();
  render();
}

function switchTheme() {
  state.theme = isDark() ? "light" : "dark";
  render();
}

function switchTable() {
  state.table = !state.table;
  for (const { twin } of panels) twin.classList.toggle("unseen", !state.table);
  root.querySelector('[data-focus="table"]').setAttribute("aria-pressed", String(state.table));
}

function help() {
  const list = make("dl", {}, ...KEYS.flatMap(([key, text]) => [make("dt", {}, key), make("dd", {}, text)]));
  const about = make("p", { class: "note" }, page.about);
  const dialog = make("dialog", { close: () => dialog.remove(), click: () => dialog.close() }, make("h2", {}, "Keys"), list, about);
  root.append(dialog);
  dialog.showModal();
}

const ARROWS = { ArrowUp: { row: -1, column: 0 }, ArrowDown: { row: 1, column: 0 }, ArrowLeft: { row: 0, column: -1 }, ArrowRight: { row: 0, column: 1 } };

function move(by) {
  const { matrix } = panels[0].context;
  if (!matrix) return;
  const from = state.cursor ?? state.hover ?? { row: null, column: null };
  const across = matrix.columnDirection === "rtl" ? -by.column : by.column;
  if (matrix.grid) return pointAt({ row: within((from.row ?? -1) + by.row + by.column, matrix.rows), column: null });
  const row = from.row === null && !by.row ? null : within((from.row ?? -1) + by.row, matrix.rows);
  const column = from.column === null && !across ? null : within((from.column ?? -1) + across, matrix.columns);
  pointAt({ row, column });
}

const within = (at, labels) => Math.max(0, Math.min(labels.length - 1, at));

function turn(key, by) {
  const { group, choice } = contextOf(0);
  if (!group) return;
  if (key === "l") return chooseAll({ layer: (choice.layer + by + group.layers.length) % group.layers.length });
  const heads = group.layers[choice.layer].shape[0];
  chooseAll({ head: ((choice.head ?? (by > 0 ? -1 : 0)) + by + heads) % heads });
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog")) return;
  const focused = document.activeElement;
  if (focused?.matches("select, input")) return;
  const by = ARROWS[event.key];
  if (by && focused?.matches("td[data-row]")) moveInTable(focused, by);
  else if (by && panels[0].drawn.move) panels[0].drawn.move(by.row + by.column);
  else if (by && !focused?.matches(".wide")) move(by);
  else if (event.key === "Enter" && !focused?.matches("button") && (state.cursor ?? state.hover)) pin(state.cursor ?? state.hover, event.shiftKey);
  else if (event.key === "Escape") { letGo(); update(); }
  else if (!press(event.key.toLowerCase(), event.shiftKey ? -1 : 1)) return;
  event.preventDefault();
});

/** Do what a letter or digit is for; false if it is for nothing. */
function press(key, by) {
  const tabs = [...root.querySelectorAll('[role="tab"]')];
  const act = {
    l: () => turn("l", by), h: () => turn("h", by), m: () => chooseAll({ head: null }), w: switchUnit, t: switchTheme, a: switchTable,
    n: () => show(state.item + 1), p: () => show(state.item - 1), "?": help,
    "+": () => panels.forEach(({ drawn }) => drawn.zoom?.(1.25)), "-": () => panels.forEach(({ drawn }) => drawn.zoom?.(0.8)),
  }[key] ?? (/^[1-9]$/.test(key) ? () => tabs[Number(key) - 1]?.click() : null);
  act?.();
  return Boolean(act);
}

let width = 0;
addEventListener("resize", () => {
  if (width !== innerWidth && panels.length) render.views();
  width = innerWidth;
});
system.addEventListener("change", render);
for (const [run, choice] of state.runs.entries()) {
  const [layer, head] = contextOf(run).group?.chosen ?? [0, null];
  Object.assign(choice, { layer, head });
}
if (location.hash.slice(1) in VIEWS) state.view = location.hash.slice(1);
render();
