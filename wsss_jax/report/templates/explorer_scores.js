// Sums of counts, and how the explorer draws them: a curve by threshold and a confusion matrix.
const percent = (value) => (value === null || Number.isNaN(value) ? "–" : (100 * value).toFixed(1));

// The counts of a layer over images, in the form in which each image has them.
const summed = (entries, layer) => {
  const sums = new Map();
  for (const entry of entries) {
    for (const [truth, winner, byRank] of entry.layers[layer]?.pairs ?? []) {
      const key = truth * PAIR + winner;
      const sum = sums.get(key) ?? sums.set(key, [truth, winner, byRank.map(() => 0)]).get(key);
      byRank.forEach((pixels, rank) => { sum[2][rank] += pixels; });
    }
  }
  return { pairs: [...sums.values()] };
};

const element = (tag, text = "", attributes = {}) => {
  const made = document.createElement(tag);
  made.textContent = text;
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  return made;
};

const drawing = (svg, tag, attributes, text = "") => {
  const made = document.createElementNS(svg.namespaceURI, tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  made.textContent = text;
  return made;
};

// The plot within the SVG's 560 by 260 units.
const PLOT = { left: 44, width: 500, bottom: 222, height: 205 };

const drawCurve = (svg, levels, values, level) => {
  const across = (threshold) => PLOT.left + PLOT.width * threshold;
  const top = Math.max(0.1, Math.ceil(10 * Math.max(...values)) / 10);
  const up = (value) => PLOT.bottom - PLOT.height * (value / top);
  const right = PLOT.left + PLOT.width;
  const parts = [0, 0.5, 1].flatMap((part) => [
    drawing(svg, "path", { d: `M${PLOT.left} ${up(part * top)}H${right}`, class: "x-grid" }),
    drawing(svg, "text", { x: 36, y: up(part * top) + 5, "text-anchor": "end" }, (100 * part * top).toFixed(0)),
  ]);
  [0, 0.2, 0.4, 0.6, 0.8, 1].forEach((at) =>
    parts.push(drawing(svg, "text", { x: across(at), y: 248, "text-anchor": "middle" }, String(at))));
  const path = values.map((value, i) => `${across(levels[i]).toFixed(1)} ${up(value).toFixed(1)}`);
  const [x, y] = [across(levels[level]), up(values[level])];
  const told = `${percent(values[level])} at ${levels[level].toFixed(2)}`;
  parts.push(
    drawing(svg, "path", { d: `M${path.join("L")}`, class: "x-line" }),
    drawing(svg, "path", { d: `M${x} ${PLOT.bottom - PLOT.height}V${PLOT.bottom}`, class: "x-grid" }),
    drawing(svg, "circle", { cx: x, cy: y, r: 9, class: "x-point" }),
    drawing(svg, "text", {
      x: Math.min(480, Math.max(110, x)), y: y > 60 ? y - 16 : y + 28, "text-anchor": "middle", class: "x-told",
    }, told),
  );
  svg.replaceChildren(...parts);
  svg.setAttribute("aria-valuemin", levels[0]);
  svg.setAttribute("aria-valuemax", levels.at(-1));
  svg.setAttribute("aria-valuenow", levels[level]);
  svg.setAttribute("aria-valuetext", `threshold ${levels[level].toFixed(2)}, mIoU ${percent(values[level])}`);
};

// The level nearest to a place in the curve.
const levelUnder = (svg, levels, clientX) => {
  const box = svg.getBoundingClientRect();
  const wanted = (560 * (clientX - box.left) / box.width - PLOT.left) / PLOT.width;
  return levels.reduce((best, level, i) =>
    (Math.abs(level - wanted) < Math.abs(levels[best] - wanted) ? i : best), 0);
};

// Rows are true classes, columns predicted ones; cells are shares of the row's pixels.
const MOST_CLASSES = 40;
const drawMatrix = (table, counts, classes) => {
  const weight = new Map();
  const rows = new Map();
  for (const [key, pixels] of counts) {
    const truth = Math.floor(key / PAIR);
    const prediction = key - PAIR * truth;
    if (truth < 0) continue;
    for (const index of new Set([truth, prediction])) weight.set(index, (weight.get(index) ?? 0) + pixels);
    const row = rows.get(truth) ?? rows.set(truth, { total: 0, cells: new Map() }).get(truth);
    row.total += pixels;
    row.cells.set(prediction, pixels);
  }
  const shown = [...weight].sort((a, b) => b[1] - a[1]).slice(0, MOST_CLASSES)
    .map(([index]) => index).sort((a, b) => a - b);
  const head = element("tr");
  head.append(element("td", "truth ↓"), ...shown.map((index) => element("th", classes[index], { scope: "col" })));
  const lines = shown.map((truth) => {
    const line = element("tr");
    line.append(element("th", classes[truth], { scope: "row" }));
    const { total, cells } = rows.get(truth) ?? { total: 0, cells: new Map() };
    line.append(...shown.map((prediction) => {
      const share = total ? (cells.get(prediction) ?? 0) / total : 0;
      const cell = element("td", share >= 0.005 ? (100 * share).toFixed(0) : "", {
        title: `${percent(share)} % of ${classes[truth]} is ${classes[prediction]}`,
        class: `${truth === prediction ? "hit" : ""} ${share > 0.4 ? "strong" : ""}`,
      });
      cell.style.setProperty("--share", Math.sqrt(share).toFixed(3));
      return cell;
    }));
    return line;
  });
  const [top, body] = [element("thead"), element("tbody")];
  top.append(head);
  body.append(...lines);
  table.replaceChildren(top, body);
  return { shown: shown.length, found: weight.size };
};
