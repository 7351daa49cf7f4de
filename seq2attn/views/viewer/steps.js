// Decoding, step by step: what could have been written, and the tree of a beam search.

function drawSteps(host, context) {
  const { steps } = context.output;
  const go = (step) => {
    state.step = Math.max(0, Math.min(steps.length - 1, step));
    update();
  };
  const slider = make("input", { type: "range", min: 0, max: steps.length - 1, label: "step", input: () => go(Number(slider.value)) });
  const number = make("output.number");
  const prefix = make("p.prefix", { dir: "auto" });
  const candidates = make("ol.candidates", { label: "candidates of this step" });
  const looked = make("div");
  const arrow = (name, sign, by) => make("button", { label: `${name} step`, click: () => go(state.step + by) }, sign);
  const single = steps.length < 2; // as the labels of a text
  host.replaceChildren(
    single ? "" : make("div.bar", {}, arrow("previous", "\u2190", -1), slider, arrow("next", "\u2192", 1), number), single ? "" : prefix,
    make("div.stepping", {}, make("section", {}, make("h3", {}, single ? "Labels" : "Next"), candidates),
      make("section", {}, make("h3", {}, "Where it looked"), looked)));
  return {
    move: (by) => go(state.step + by),
    update() {
      const step = (state.step = Math.min(state.step, steps.length - 1));
      slider.value = step;
      number.textContent = `${step + 1} of ${steps.length}`;
      prefix.replaceChildren(...steps.map(({ piece }, index) => make(`button.piece${["", ".now", ".later"][1 + Math.sign(index - step)]}`, { click: () => go(index) }, shown(piece))));
      candidates.replaceChildren(...candidateRows(steps[step]));
      looked.replaceChildren(readAt(context, step));
    },
  };
}

function candidateRows({ piece, log_p, rank, top }) {
  const rows = rank < top.length ? top : [...top, [piece, Math.exp(log_p)]];
  return rows.map(([name, probability], index) => make(index === Math.min(rank, top.length) ? "li.written" : "li", {},
    make("b", { dir: "auto" }, shown(name)),
    make("span.track", {}, styled(make("span"), { width: `${(100 * probability).toFixed(1)}%` })),
    make("span.number", {}, probability.toFixed(3)), index === top.length ? make("small", {}, `rank ${rank + 1}`) : null));
}

/** Where a step of the decoder looked: the step that predicts the piece with its number. */
function readAt({ look, group, choice, matrix, output }, step) {
  if (!group) return make("p.note", {}, "this model has no attention");
  const layer = group.layers[choice.layer];
  const [, rows, columns] = layer.shape;
  const own = group.rows === "target" ? step : 0;
  if (own >= rows) return "";
  const weights = headWeights(layer, choice.head).subarray(own * columns, (own + 1) * columns);
  if (layer.grid) return overlayOf(look, weights, layer.grid, 300);
  const { before = [], after = [] } = group;
  const names = [...before, ...labelsOf(sideOf(look, output, group.columns), "pieces"), ...after];
  const high = Math.max(0.3, ...weights);
  return make("p.read", { dir: matrix.columnDirection }, ...names.flatMap((name, index) => [
    styled(make("span", { title: digits(weights[index]) }, shown(name)), { "background-color": tint(palette().accent, 0.75 * Math.max(0, weights[index] / high)) }), " "]));
}

/** The tree of a beam search: a column for each step, a node for each hypothesis that was kept. */
function drawBeam(host, { look, output }) {
  const { beam } = look;
  const colours = palette();
  const [across, down, size] = [94, 30, 13];
  const [width, height] = [across * (beam.length + 1) + 20, down * Math.max(...beam.map((step) => step.length)) + 30];
  const best = new Set(); // the nodes of the hypothesis that is shown
  for (let [step, node] = output.end ?? [-1]; step >= 0; step--) {
    best.add(beam[step][node]);
    node = beam[step][node].parent;
  }
  const label = (node) => cut(shown(node.piece), size, across - 18);
  const svg = make("svg:svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": FONT, role: "presentation" },
    make("svg:circle", { cx: 10, cy: 22, r: 4, fill: colours.accent }));
  const texts = beam.flatMap((nodes, step) => nodes.map((node, number) => {
    const [x, y] = [across * (step + 1) + 6, 26 + down * number];
    const parent = beam[step - 1]?.[node.parent];
    const from = parent ? x - across + 6 + widthOf(label(parent), size) : 18;
    const chosen = best.has(node);
    svg.append(make("svg:path", { d: curve(from, 22 + down * (parent ? node.parent : 0), x - 5, y - 4, false), fill: "none",
      stroke: chosen ? colours.accent : colours.line, "stroke-width": chosen ? 2.5 : 1.4 }));
    return make("svg:text", { x, y, "font-size": size, "font-weight": chosen ? 600 : 400, opacity: chosen || node.end ? 1 : 0.8,
      fill: chosen ? colours.accent : node.end ? colours.warm : colours.ink, pointerenter: () => say(`${shown(node.piece)}: log-probability ${node.log_p.toFixed(3)}`) }, label(node));
  }));
  svg.append(...texts);
  const word = (text, colour) => styled(make("b", {}, text), { color: colours[colour] });
  host.replaceChildren(make("div.wide", { tabindex: 0 }, svg), make("p.note", {}, "A column for each step, the most probable hypothesis on top: ",
    word("those that end", "warm"), ", and ", word("the one that is shown", "accent"), "."));
  return { svg, update() {} };
}
