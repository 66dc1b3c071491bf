"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const node = (tag, name, text) => {
    const made = document.createElement(tag);
    made.className = name;
    made.textContent = text ?? "";
    return made;
  };

  // Colors: as the system, light, dark.
  const themes = ["light dark", "light", "dark"];
  const spoken = ["as the system", "light", "dark"];
  const shown = ["Auto", "Light", "Dark"];
  const button = byId("theme");
  const read = () => {
    try { return Number(localStorage.getItem("wsss-theme")) || 0; } catch { return 0; }
  };
  const apply = (index) => {
    document.documentElement.style.colorScheme = themes[index];
    button.textContent = shown[index];
    button.setAttribute("aria-label", `Colors: ${spoken[index]}`);
    try { localStorage.setItem("wsss-theme", index); } catch { /* private files have no storage */ }
  };
  let theme = read();
  button.hidden = false;
  apply(theme);
  button.addEventListener("click", () => apply((theme = (theme + 1) % themes.length)));

  // Charts: a line and a box with the values under the pointer, or at the arrow keys' position.
  const format = (value) => {
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size < 1e-4) return value.toExponential(1);
    return size >= 1000 ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
  };
  const colored = (made, color) => {
    made.style.setProperty("--c", color);
    return made;
  };
  for (const chart of all("[data-chart]")) {
    const data = JSON.parse(chart.dataset.chart);
    const plot = chart.querySelector(".plot");
    const area = chart.querySelector(".area");
    const cross = node("div", "cross");
    const tip = node("div", "tip");
    tip.setAttribute("aria-live", "polite");
    area.append(cross, tip);
    const across = (x) => (x - data.ax[0]) / (data.ax[1] - data.ax[0]);
    const up = (y) => (data.log
      ? Math.log(y / data.ay[0]) / Math.log(data.ay[1] / data.ay[0])
      : (y - data.ay[0]) / (data.ay[1] - data.ay[0]));
    const dots = data.s.map((series) => {
      const dot = colored(node("i", "dot"), series.c);
      area.append(dot);
      return dot;
    });
    let at = -1;
    const show = (index) => {
      at = index;
      const left = 100 * across(data.x[at]);
      cross.style.left = `${left}%`;
      tip.replaceChildren(node("b", "", `${data.u} ${format(data.x[at])}`));
      data.s.forEach((series, i) => {
        const value = series.y[at];
        dots[i].hidden = value === null;
        if (value === null) return;
        dots[i].style.left = `${left}%`;
        dots[i].style.top = `${100 - 100 * up(value)}%`;
        const line = node("span", "", `${series.n} ${format(value)}`);
        line.prepend(colored(node("i", "key"), series.c));
        tip.append(line);
      });
      tip.classList.toggle("flip", left > 55);
      tip.style.left = `${left}%`;
      plot.classList.add("reading");
    };
    const nearest = (fraction) => {
      let best = 0;
      data.x.forEach((x, i) => {
        if (Math.abs(across(x) - fraction) < Math.abs(across(data.x[best]) - fraction)) best = i;
      });
      return best;
    };
    area.addEventListener("pointermove", (event) => {
      const box = area.getBoundingClientRect();
      show(nearest((event.clientX - box.left) / box.width));
    });
    const leave = () => plot.classList.remove("reading");
    area.addEventListener("pointerleave", leave);
    plot.addEventListener("blur", leave);
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const stride = event.shiftKey ? 10 : 1;
      show(Math.min(data.x.length - 1, Math.max(0, at + step * stride)));
    });
  }

  // Tables: sorted by the heading that is chosen, the other way round the second time.
  for (const heading of all(".classes th[aria-sort]")) {
    heading.querySelector("button").addEventListener("click", () => {
      const table = heading.closest("table");
      const column = [...heading.parentElement.children].indexOf(heading);
      const numeric = column > 0;
      const was = heading.getAttribute("aria-sort");
      const order = was === "none" ? (numeric ? "descending" : "ascending")
        : (was === "ascending" ? "descending" : "ascending");
      all("th[aria-sort]", table).forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.children[column].dataset.value;
      const rows = all("tbody tr", table).sort((a, b) => sign * (numeric
        ? value(a) - value(b)
        : value(a).localeCompare(value(b))));
      table.tBodies[0].append(...rows);
    });
  }

  // Measures of classes: the table shows one of them at a time.
  for (const group of all(".measures")) {
    const buttons = all("button", group);
    const table = group.parentElement.querySelector("table");
    group.hidden = buttons.length < 2;
    buttons.forEach((choice, measure) => choice.addEventListener("click", () => {
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === choice)));
      all("th[aria-sort]", table).forEach((heading) => heading.setAttribute("aria-sort", "none"));
      for (const row of all("[data-measures]", table)) {
        JSON.parse(row.dataset.measures)[measure].forEach((value, column) => {
          const cell = row.children[column + 1];
          cell.dataset.value = value ?? -1;
          cell.querySelector("i").style.width = `${100 * (value ?? 0)}%`;
          cell.querySelector("b").textContent = value === null ? "–" : (100 * value).toFixed(1);
        });
      }
    }));
  }

  // Texts to copy; a page from a file may not be allowed to use the clipboard.
  for (const button of all("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = byId(button.dataset.copy);
      getSelection().selectAllChildren(text);
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
      }
    });
  }

  // Pictures: a dialog with the views of an image; left and right change the image.
  const box = byId("box");
  const samples = all(".sample");
  let sample = 0;
  let kind = "image";
  const draw = () => {
    const row = samples[sample];
    const tiles = all(".tile", row);
    const tile = tiles.find((one) => one.dataset.kind === kind) ?? tiles[0];
    kind = tile.dataset.kind;
    const picture = tile.querySelector("img");
    byId("box-picture").src = picture.src;
    byId("box-picture").alt = picture.alt;
    byId("box-name").textContent = row.dataset.id;
    byId("box-score").textContent = row.querySelector(".score")?.textContent.replace("mIoU", " mIoU") ?? "";
    const views = byId("box-views");
    const focused = views.contains(document.activeElement);
    views.replaceChildren(...tiles.map((one) => {
      const choice = node("button", "", one.querySelector("figcaption").textContent);
      choice.type = "button";
      choice.setAttribute("aria-pressed", String(one === tile));
      choice.addEventListener("click", () => { kind = one.dataset.kind; draw(); });
      return choice;
    }));
    if (focused) focusChoice();
  };
  const focusChoice = () => byId("box-views").querySelector("[aria-pressed=true]").focus();
  const move = (step) => { sample = (sample + step + samples.length) % samples.length; draw(); };
  const turn = (step) => {
    const kinds = all(".tile", samples[sample]).map((tile) => tile.dataset.kind);
    kind = kinds[(kinds.indexOf(kind) + step + kinds.length) % kinds.length];
    draw();
  };
  samples.forEach((row, index) => all(".tile", row).forEach((tile) => {
    tile.querySelector("button").addEventListener("click", () => {
      sample = index;
      kind = tile.dataset.kind;
      draw();
      box.showModal();
      focusChoice();
    });
  }));
  byId("box-close").addEventListener("click", () => box.close());
  byId("box-previous").addEventListener("click", () => move(-1));
  byId("box-next").addEventListener("click", () => move(1));
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
  box.addEventListener("keydown", (event) => {
    const act = {
      ArrowLeft: () => move(-1), ArrowRight: () => move(1),
      ArrowUp: () => turn(-1), ArrowDown: () => turn(1),
    }[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  // A printed page shows what is folded away.
  addEventListener("beforeprint", () => all("details").forEach((fold) => { fold.open = true; }));
})();
