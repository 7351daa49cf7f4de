// Decoding, step by step: what could have been written, and the tree of a beam search.

/** The weights of a step of the decoder, which predicts the piece with its number. */
function weightsOfStep(context, step) {
  const { group, choice, look } = context;
  if (!group || group.rows !== "target") return null;
  const layer = group.layers[choice.layer];
  const columns = layer.shape[2];
  if (step >= layer.shape[1]) return null;
  const before = group.before ?? [];
  const names = group.columns === "source" ? [...before, ...labelsOf(look.source, "pieces"), ...(group.after ?? [])] : null;
  return { weights: headWeights(layer, choice.head).subarray(step * columns, (step + 1) * columns), names, grid: layer.grid };
}

function drawSteps(host, context) {
  const { output, look } = context;
  const steps = output.steps;
  state.step = Math.min(state.step, steps.length - 1);
  const slider = make("input", { type: "range", min: 0, max: steps.length - 1, value: state.step, "aria-label": "step",
    input: (event) => go(Number(event.target.value)) });
  const number = make("output", { class: "number" });
  const prefix = make("p", { class: "prefix", dir: "auto" });
  const candidates = make("ol", { class: "candidates", "aria-label": "candidates of this step" });
  const looked = make("div", { class: "looked" });
  const go = (step) => {
    state.step = Math.max(0, Math.min(steps.length - 1, step));
    render.views();
  };
  const button = (name, sign, by) => make("button", { class: "plain", "aria-label": name, click: () => go(state.step + by) }, sign);
  host.replaceChildren(
    make("div", { class: "slider" }, button("previous step", "\u2190", -1), slider, button("next step", "\u2192", 1), number),
    prefix, make("div", { class: "stepping" }, make("section", {}, make("h3", {}, "Next"), candidates),
      make("section", {}, make("h3", {}, look.image ? "Where it looked" : "What it read"), looked)));
  return {
    update() {
      const step = state.step;
      slider.value = step;
      number.textContent = `${step + 1} of ${steps.length}`;
      prefix.replaceChildren(...steps.map((one, index) => make("button", {
        class: `piece${index === step ? " now" : index > step ? " later" : ""}`, click: () => go(index) }, shown(one.piece))));
      candidates.replaceChildren(...candidateRows(steps[step]));
      looked.replaceChildren(readAt(context, step) ?? "");
    },
    move: (by) => go(state.step + by),
  };
}

function candidateRows(step) {
  const rows = step.top.map(([piece, probability]) => ({ piece, probability }));
  const own = { piece: step.piece, probability: Math.exp(step.log_p), rank: step.rank };
  if (step.rank >= rows.length) rows.push(own);
  return rows.map((row, index) => {
    const written = index === Math.min(step.rank, rows.length - 1);
    const bar = styled(make("span", { class: "bar" }), { width: `${(100 * row.probability).toFixed(1)}%` });
    return make("li", { class: written ? "written" : null },
      make("b", { dir: "auto" }, shown(row.piece)), make("span", { class: "track" }, bar),
      make("span", { class: "number" }, row.probability.toFixed(3)), row.rank ? make("small", {}, `rank ${row.rank + 1}`) : null);
  });
}

function readAt(context, step) {
  const read = weightsOfStep(context, step);
  if (!read) return make("p", { class: "note" }, "no weights of the source");
  if (!read.names) return overlayOf(context.look, read.weights, read.grid, 300);
  const high = Math.max(...read.weights, 1e-9);
  const box = make("p", { class: "read", dir: context.matrix.columnDirection });
  read.names.forEach((name, index) => {
    const weight = read.weights[index];
    const [red, green, blue] = channels(palette().accent);
    const span = make("span", { title: digits(weight) }, shown(name));
    span.style.backgroundColor = `rgba(${red},${green},${blue},${(0.75 * Math.max(0, weight / Math.max(high, 0.3))).toFixed(3)})`;
    box.append(span, " ");
  });
  return box;
}

/** The tree of a beam search: a column for each step, a node for each hypothesis that was kept. */
function drawBeam(host, context) {
  const { beam } = context.look;
  const colours = palette();
  const [across, down, size] = [92, 30, 13];
  const widest = Math.max(...beam.map((step) => step.length));
  const [width, height] = [across * (beam.length + 1) + 20, down * widest + 30];
  const svg = make("svg:svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": FONT, role: "presentation" });
  const best = new Set(); // the nodes of the hypothesis that is shown
  for (let [step, node] = context.output.end ?? [-1, 0]; step >= 0; step--) {
    best.add(`${step}:${node}`);
    node = beam[step][node].parent;
  }
  const place = (step, node) => (step < 0 ? [10, 26] : [across * (step + 1) + 6, 26 + down * node]);
  const nodes = [];
  beam.forEach((step, index) => step.forEach((node, number) => {
    const [x, y] = place(index, number);
    const [fromX, fromY] = place(index - 1, node.parent);
    const chosen = best.has(`${index}:${number}`);
    const start = index ? fromX + Math.min(across - 16, widthOf(shown(beam[index - 1][node.parent].piece), size)) + 6 : fromX + 8;
    svg.append(make("svg:path", { d: `M${start} ${fromY - 4}C${(start + x) / 2} ${fromY - 4} ${(start + x) / 2} ${y - 4} ${x - 5} ${y - 4}`,
      fill: "none", stroke: chosen ? colours.accent : colours.line, "stroke-width": chosen ? 2.5 : 1.4 }));
    const text = make("svg:text", { x, y, "font-size": size, "font-weight": chosen ? 600 : 400,
      fill: chosen ? colours.accent : node.end ? colours.warm : colours.ink, opacity: chosen || node.end ? 1 : 0.75 });
    text.textContent = cut(shown(node.piece), size, across - 16);
    text.append(make("svg:title", {}, `${shown(node.piece)}: log-probability ${node.log_p.toFixed(3)}`));
    text.addEventListener("pointerenter", () => say(`${node.piece}  ${node.log_p.toFixed(3)}`));
    nodes.push(text);
  }));
  svg.append(make("svg:circle", { cx: 10, cy: 22, r: 4, fill: colours.accent }), ...nodes);
  host.replaceChildren(make("div", { class: "wide", tabindex: 0 }, svg),
    make("p", { class: "note" }, "A column for each step, the most probable hypothesis on top. Those that end are ",
      styled(make("b", {}, "coloured"), { color: colours.warm }), "; the one that is shown is ",
      styled(make("b", {}, "drawn thick"), { color: colours.accent }), "."));
  return { export: svg, update() {} };
}
