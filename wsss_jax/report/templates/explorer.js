// The explorer: filters, thumbnails, sliders and scores around the viewer.
const startExplorer = () => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("explorer-data").textContent);
  const { classes, layers, images, levels, splits } = data;
  const color = (index) => `rgb(${data.colors[index].join(" ")})`;
  const mapsAt = layers.findIndex((layer) => layer.kind === "maps");
  const truths = images.some((image) => image.truth);
  const start = mapsAt < 0 ? 0 : levels.reduce((best, level, i) =>
    (Math.abs(level - layers[mapsAt].threshold) < Math.abs(levels[best] - layers[mapsAt].threshold) ? i : best), 0);
  const state = { level: start, opacity: 0.7, chosen: [], image: -1, decoded: null, drawing: 0 };

  // What a side of the viewer can show.
  const views = [{ name: "Photograph", kind: "photo" }];
  if (truths) views.push({ name: "Ground truth", kind: "truth" });
  layers.forEach((layer, index) => {
    if (layer.kind === "maps") {
      views.push({ name: `${layer.title}: activation`, kind: "heat", layer: index });
      views.push({ name: `${layer.title}: at the threshold`, kind: "mask", layer: index });
    } else {
      views.push({ name: layer.title, kind: "mask", layer: index });
    }
  });

  const fill = (select, options, value) => {
    select.replaceChildren(...options.map(([key, text]) => element("option", text, { value: key })));
    select.value = String(value);
  };
  const named = classes.map((name, index) => [index, name]).slice(1);
  const occurring = new Set(images.flatMap((image) => image.label));
  const choices = named.filter(([index]) => occurring.has(index));
  const reset = () => {
    fill(byId("x-split"), splits.map((split, i) => [i, split.name]), 0);
    fill(byId("x-with"), [["", "any class"], ...choices], "");
    fill(byId("x-also"), [["", "any other"], ...choices], "");
    fill(byId("x-order"), [["list", "as in the list"], ["worst", "worst first"], ["best", "best first"]], "list");
  };
  // The last masks of a split, which are the network's where there is one, or otherwise its maps.
  const layersOf = (split) => layers.map((_, i) => i)
    .filter((i) => images.some((image) => image.split === split && image.layers[i]));
  const bestLayer = (split) => layersOf(split).reverse()
    .sort((a, b) => Boolean(layers[b].scores[split]) - Boolean(layers[a].scores[split]))
    .find((i) => layers[i].kind === "mask") ?? layersOf(split)[0];
  reset();
  byId("x-split-row").hidden = splits.length < 2;
  byId("x-iou-row").hidden = byId("x-scores").hidden = byId("x-matrix-card").hidden = !truths;
  for (const id of ["x-scored", "x-order"]) byId(id).closest("label").hidden = !truths;
  const sides = () => {
    const here = new Set(layersOf(Number(byId("x-split").value)));
    const options = views.map((view, i) => [i, view.name])
      .filter(([i]) => views[i].layer === undefined || here.has(views[i].layer));
    const maps = views.findIndex((view) => view.kind === "mask" && layers[view.layer].kind === "maps" && here.has(view.layer));
    const truth = views.findIndex((view) => view.kind === "truth");
    const shown = options.map(([i]) => i);
    const right = shown.includes(maps) ? maps : shown.at(-1);
    fill(byId("x-left"), options, truth > 0 ? truth : (maps > 1 && shown.includes(maps - 1) ? maps - 1 : 0));
    fill(byId("x-right"), options, right);
    scoreRight();
  };
  // What is scored is what the right side shows, until something else is chosen.
  const scoreRight = () => {
    const { layer } = views[byId("x-right").value];
    if (layer !== undefined) byId("x-scored").value = layer;
  };

  const scored = () => Number(byId("x-scored").value);
  const countsOf = (entry, layer) => addCounts(new Map(), entry.layers[layer] ?? { pairs: [] }, state.level);
  const imageScore = (entry) => {
    if (!entry.truth || !entry.layers[scored()]) return null;
    const { iou, miou } = scoresOf(countsOf(entry, scored()), "present", classes.length);
    const wanted = byId("x-with").value;
    return wanted === "" ? miou : (iou.get(Number(wanted)) ?? null);
  };
  // The share of an image that a class covers, or the whole foreground, as truth or mask tell.
  const shareOf = (entry, wanted) => {
    const layer = entry.layers.findLast((one) => one !== null);
    if (!layer) return 0;
    let covered = 0;
    for (const [key, pixels] of addCounts(new Map(), layer, state.level)) {
      const truth = Math.floor(key / PAIR);
      const index = truth < 0 ? key - PAIR * truth : truth;
      if (index > 0 && (wanted === "" || index === Number(wanted))) covered += pixels;
    }
    return covered / (entry.size[0] * entry.size[1]);
  };
  // Sums over the chosen images are kept until others are chosen.
  const sums = new Map();
  const chosenSum = (layer) => sums.get(layer)
    ?? sums.set(layer, summed(state.chosen.map((index) => images[index]), layer)).get(layer);
  const sizes = { "": () => true, small: (s) => s > 0 && s < 0.05, medium: (s) => s >= 0.05 && s <= 0.25, large: (s) => s > 0.25 };

  const choose = () => {
    const split = Number(byId("x-split").value);
    const wanted = [byId("x-with").value, byId("x-also").value].filter(Boolean).map(Number);
    const size = byId("x-size").value;
    const [least, most] = ["x-least", "x-most"].map((id) => Number(byId(id).value) / 100);
    const ranged = least > 0 || most < 1;
    const found = images.map((entry, index) => ({ entry, index, score: imageScore(entry) }))
      .filter(({ entry, score }) => entry.split === split
        && wanted.every((index) => entry.label.includes(index))
        && sizes[size](size ? shareOf(entry, byId("x-with").value) : 1)
        && (!ranged || (score !== null && score >= least && score <= most)));
    const order = { list: 0, worst: 1, best: -1 }[byId("x-order").value];
    if (order) found.sort((a, b) => (a.score === null) - (b.score === null) || order * (a.score - b.score));
    state.chosen = found.map(({ index }) => index);
    sums.clear();
    byId("x-count").textContent = `${found.length} of ${images.filter((e) => e.split === split).length} images`
      + (found.length ? "" : ": no image fits, clear a filter");
    showThumbs();
    if (found.length && !state.chosen.includes(state.image)) open(state.chosen[0]);
    else showScores();
  };

  // Thumbnails are decoded when they come into sight.
  const urls = new Map();
  const seen = new IntersectionObserver((entries) => entries.forEach(({ isIntersecting, target }) => {
    if (!isIntersecting) return;
    const index = Number(target.dataset.index);
    if (!urls.has(index)) urls.set(index, photographOf(index, images[index]));
    target.querySelector("img").src = urls.get(index);
    seen.unobserve(target);
  }), { rootMargin: "300px" });
  const thumbs = new Map();
  const thumbOf = (index) => {
    if (!thumbs.has(index)) {
      const entry = images[index];
      const button = element("button", "", { type: "button", role: "option", "data-index": index });
      button.append(element("img", "", { alt: "" }), element("b"), element("span", entry.id));
      button.addEventListener("click", () => open(index));
      thumbs.set(index, button);
      seen.observe(button);
    }
    return thumbs.get(index);
  };
  const showThumbs = () => {
    byId("x-thumbs").replaceChildren(...state.chosen.map(thumbOf));
    showBadges();
  };
  const showBadges = () => state.chosen.forEach((index) => {
    const score = imageScore(images[index]);
    const button = thumbOf(index);
    button.querySelector("b").textContent = score === null ? "" : percent(score);
    button.setAttribute("aria-selected", String(index === state.image));
  });

  // The viewer.
  const viewer = new Viewer(byId("x-canvas"), data, (pixel) => {
    byId("x-wipe").value = Math.round(100 * viewer.wipe);
    byId("x-pixel").textContent = pixel ? told(pixel) : "";
  });
  const nameOf = (index) => (index === IGNORE ? "ignored" : classes[index]);
  const told = ({ row, column, index }) => {
    const { truth, layers: planes } = state.decoded;
    const parts = [`column ${column}, row ${row}`];
    if (truth) parts.push(`truth ${nameOf(truth[index])}`);
    planes.forEach((plane, number) => {
      if (!plane) return;
      const title = layers[number].title;
      if (plane.mask) {
        parts.push(`${title} ${nameOf(plane.mask[index])}`);
      } else {
        const rank = plane.rank[index];
        const score = rank === 0 ? "0" : `above ${levels[rank - 1].toFixed(2)}`;
        parts.push(`${title} ${rank > state.level ? nameOf(plane.winner[index]) : "background"} (${nameOf(plane.winner[index])} ${score})`);
      }
    });
    return parts.join(" · ");
  };
  const overlay = (view, image) => {
    const plane = view.layer === undefined ? null : image.layers[view.layer];
    if (view.kind === "truth") return image.truth && paintMask(image, image.truth, data.colors, state.opacity);
    if (!plane) return null;
    return view.kind === "heat"
      ? paintHeat(image, plane.rank, levels, data.heat, state.opacity)
      : paintMask(image, maskAt(plane, state.level), data.colors, state.opacity);
  };
  const paintSides = () => {
    if (!state.decoded) return;
    viewer.show(state.decoded, ["x-left", "x-right"].map((id) => overlay(views[byId(id).value], state.decoded)));
  };
  const open = async (index) => {
    const drawing = (state.drawing += 1);
    state.image = index;
    const entry = images[index];
    showBadges();
    const thumb = thumbOf(index);
    const list = byId("x-thumbs");
    list.scrollTo({ left: thumb.offsetLeft - list.clientWidth / 2, top: thumb.offsetTop - list.clientHeight / 2 });
    const decoded = await decodeImage(index, entry);
    if (drawing !== state.drawing) return; // another image was opened meanwhile
    state.decoded = decoded;
    byId("x-name").textContent = entry.id;
    byId("x-label").textContent = entry.label.map((i) => classes[i]).join(", ");
    byId("x-canvas").setAttribute("aria-label", `Image ${entry.id} with its layers`);
    paintSides();
    showScores();
    byId("explorer").dataset.image = entry.id;
  };
  const move = (step) => {
    if (!state.chosen.length) return;
    const at = state.chosen.indexOf(state.image);
    open(state.chosen[(at + step + state.chosen.length) % state.chosen.length]);
  };

  // Scores of the layer that is scored, all at the threshold of the slider.
  const showScores = () => {
    const layer = scored();
    const split = Number(byId("x-split").value);
    const list = state.chosen.map((index) => images[index]);
    const entry = images[state.image];
    byId("x-scored-name").textContent = layers[layer].title;
    const plane = state.decoded?.layers[layer];
    let own = { iou: new Map(), miou: null, known: false };
    if (plane && state.decoded.truth) {
      own = scoresOf(countPixels(state.decoded.truth, maskAt(plane, state.level)), "present", classes.length);
    }
    byId("x-image-miou").textContent = percent(own.miou);
    byId("x-tags").replaceChildren(...[...own.iou].map(([index, iou]) => {
      const tag = element("li", classes[index]);
      const swatch = element("i", "", { class: "swatch" });
      swatch.style.background = color(index);
      tag.prepend(swatch);
      tag.append(element("b", percent(iou)));
      return tag;
    }));
    const sum = chosenSum(layer);
    const total = scoresOf(addCounts(new Map(), sum, state.level), data.protocol, classes.length);
    byId("x-chosen-name").textContent = `${list.length} chosen image${list.length === 1 ? "" : "s"}`;
    byId("x-chosen-miou").textContent = total.known ? percent(total.miou) : "–";
    byId("x-chosen-miou").dataset.value = total.known ? total.miou : "";
    const found = layers[layer].scores[split];
    let whole = found?.miou ?? null;
    if (found?.curve) {
      const place = found.thresholds.findIndex((t) => Math.abs(t - levels[state.level]) < 1e-9);
      whole = place >= 0 ? found.curve[place] : (found.threshold === levels[state.level] ? found.miou : null);
    }
    byId("x-split-name").textContent = found ? `Whole split, ${found.images} images` : "Whole split, not scored";
    byId("x-split-miou").textContent = percent(whole);
    byId("x-scores-note").textContent = layers[layer].kind === "maps"
      ? `At the background threshold ${levels[state.level].toFixed(2)}.` : "These masks do not depend on the threshold.";
    if (entry && !entry.layers[layer]) byId("x-scores-note").textContent += " This image has none of them.";
    showCurve(split);
    const of = Number(byId("x-matrix-of").value);
    showMatrix(chosenSum(of));
  };

  // The curve is of the maps that are scored, or of the first ones of the split.
  const curve = byId("x-curve");
  let drawn = {};
  const showCurve = (split) => {
    if (byId("x-curve-card").hidden) return;
    const of = layers[scored()].kind === "maps" ? scored()
      : layersOf(split).find((i) => layers[i].kind === "maps");
    const key = `${of} ${state.chosen.join()}`;
    if (drawn.key !== key) {
      const sum = chosenSum(of);
      drawn = { key, values: levels.map((_, level) =>
        scoresOf(addCounts(new Map(), sum, level), data.protocol, classes.length).miou ?? 0) };
    }
    drawCurve(curve, levels, drawn.values, state.level);
  };
  const drag = (event) => setLevel(levelUnder(curve, levels, event.clientX));
  curve.addEventListener("pointerdown", (event) => { curve.setPointerCapture(event.pointerId); drag(event); });
  curve.addEventListener("pointermove", (event) => { if (curve.hasPointerCapture(event.pointerId)) drag(event); });
  curve.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    setLevel(state.level + step * (event.shiftKey ? 10 : 1));
  });
  const showMatrix = (sum) => {
    if (byId("x-matrix-card").hidden) return;
    const { shown, found } = drawMatrix(byId("x-matrix"), addCounts(new Map(), sum, state.level), classes);
    byId("x-matrix-note").textContent = "Of the chosen images. Each row is a true class: the percentage of its pixels that got the class of the column."
      + (shown < found ? ` Shown are the ${shown} of ${found} classes with the most pixels.` : "");
  };

  // Controls.
  let waiting = false;
  const later = (work) => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; work(); });
  };
  const showLevel = () => {
    byId("x-threshold").value = state.level;
    byId("x-threshold-value").textContent = levels[state.level].toFixed(2);
    byId("x-opacity-value").textContent = `${Math.round(100 * state.opacity)} %`;
  };
  const setLevel = (level) => {
    state.level = Math.min(levels.length - 1, Math.max(0, level));
    showLevel();
    later(() => { paintSides(); showBadges(); showScores(); });
  };
  byId("x-threshold").max = levels.length - 1;
  byId("x-threshold").addEventListener("input", (event) => setLevel(Number(event.target.value)));
  byId("x-opacity").addEventListener("input", (event) => {
    state.opacity = Number(event.target.value) / 100;
    showLevel();
    later(paintSides);
  });
  byId("x-wipe").addEventListener("input", (event) => { viewer.wipe = Number(event.target.value) / 100; viewer.draw(); });
  byId("x-left").addEventListener("change", paintSides);
  byId("x-right").addEventListener("change", () => { scoreRight(); paintSides(); choose(); });
  byId("x-matrix-of").addEventListener("change", showScores);
  for (const id of ["x-with", "x-also", "x-size", "x-scored", "x-least", "x-most", "x-order"]) {
    byId(id).addEventListener("change", choose);
  }
  const ofSplit = () => {
    const split = Number(byId("x-split").value);
    const options = layersOf(split).map((i) => [i, layers[i].title]);
    const mapped = layersOf(split).some((i) => layers[i].kind === "maps");
    byId("x-threshold-row").hidden = !mapped;
    byId("x-curve-card").hidden = !mapped || !truths;
    fill(byId("x-scored"), options, bestLayer(split));
    fill(byId("x-matrix-of"), options, bestLayer(split));
    sides();
    choose();
    paintSides();
  };
  byId("x-split").addEventListener("change", ofSplit);
  document.querySelector(".x-filters").addEventListener("reset", (event) => {
    const split = byId("x-split").value;
    event.preventDefault();
    reset();
    byId("x-size").value = "";
    [byId("x-least").value, byId("x-most").value] = [0, 100];
    byId("x-split").value = split;
    ofSplit();
  });
  document.querySelector(".x-filters").addEventListener("submit", (event) => event.preventDefault());
  const acts = { previous: () => move(-1), next: () => move(1), in: () => viewer.zoomBy(1.5), out: () => viewer.zoomBy(1 / 1.5), fit: () => { viewer.fit(); viewer.redraw(); } };
  Object.entries(acts).forEach(([name, act]) => byId(`x-${name}`).addEventListener("click", act));
  const wipe = (step) => { viewer.wipe = Math.min(1, Math.max(0, viewer.wipe + step)); viewer.redraw(); };
  byId("x-canvas").addEventListener("keydown", (event) => {
    const act = {
      ArrowLeft: acts.previous, ArrowRight: acts.next, "+": acts.in, "=": acts.in, "-": acts.out, 0: acts.fit,
      "[": () => setLevel(state.level - 1), "]": () => setLevel(state.level + 1), ",": () => wipe(-0.05), ".": () => wipe(0.05),
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey || !state.decoded) return;
    event.preventDefault();
    act();
  });
  byId("explorer").hidden = false;
  showLevel();
  ofSplit();
};

if (document.getElementById("explorer-data")) {
  if ("DecompressionStream" in window) {
    startExplorer();
  } else {
    const told = document.getElementById("x-error");
    told.hidden = false;
    told.textContent = "This browser is too old for the explorer: it needs a version of 2023 or later.";
  }
}
