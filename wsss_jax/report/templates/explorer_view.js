// The canvas with two layers over a photograph, a wipe between them, zoom and pan.
class Viewer {
  constructor(canvas, data, changed) {
    this.canvas = canvas;
    this.data = data;
    this.changed = changed; // called when the wipe, the zoom or the pixel at the pointer changes
    this.wipe = 0.5;
    this.zoom = 1;
    this.center = [0.5, 0.5]; // of the image, in 0…1
    this.image = null;
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  show(image, sides) {
    if (this.image?.width !== image.width || this.image?.height !== image.height) this.fit();
    this.image = image;
    this.overlays = sides;
    this.draw();
  }

  fit() {
    this.zoom = 1;
    this.center = [0.5, 0.5];
  }

  // The image's rectangle in pixels of the canvas.
  place() {
    const { width, height } = this.canvas;
    const scale = this.zoom * Math.min(width / this.image.width, height / this.image.height);
    const size = [scale * this.image.width, scale * this.image.height];
    this.center = this.center.map((at, axis) => {
      const half = Math.min(0.5, [width, height][axis] / size[axis] / 2);
      return Math.min(1 - half, Math.max(half, at));
    });
    return { scale, left: width / 2 - this.center[0] * size[0], top: height / 2 - this.center[1] * size[1] };
  }

  draw() {
    const box = this.canvas.getBoundingClientRect();
    const dense = Math.min(devicePixelRatio || 1, 2);
    const [width, height] = [box.width, box.height].map((side) => Math.round(side * dense));
    if (!this.image || !width || !height) return;
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    const pen = this.canvas.getContext("2d");
    const { scale, left, top } = this.place();
    const [wide, high] = [scale * this.image.width, scale * this.image.height];
    pen.clearRect(0, 0, width, height);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(this.image.photo, left, top, wide, high);
    pen.imageSmoothingEnabled = scale < 1;
    const cut = this.edge();
    [[0, cut], [cut, width - cut]].forEach(([from, across], side) => {
      const overlay = this.overlays[side];
      if (!overlay || across <= 0) return;
      pen.save();
      pen.beginPath();
      pen.rect(from, 0, across, height);
      pen.clip();
      pen.drawImage(overlay, left, top, wide, high);
      pen.restore();
    });
    pen.fillStyle = "#fff";
    pen.fillRect(cut - dense, 0, 2 * dense, height);
    pen.beginPath();
    pen.arc(cut, height / 2, 13 * dense, 0, 7);
    pen.fill();
    pen.fillStyle = "#14122e";
    pen.font = `${13 * dense}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillText("◂ ▸", cut, height / 2);
  }

  // The place of the wipe in the canvas; it moves over the part of the image that is visible.
  edge() {
    const { scale, left } = this.place();
    const from = Math.max(0, left);
    const to = Math.min(this.canvas.width, left + scale * this.image.width);
    return Math.round(from + this.wipe * (to - from));
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const factor = this.canvas.width / box.width;
    return [(event.clientX - box.left) * factor, (event.clientY - box.top) * factor];
  }

  // The pixel of the image at a place of the canvas, or null outside.
  pixel([x, y]) {
    const { scale, left, top } = this.place();
    const column = Math.floor((x - left) / scale);
    const row = Math.floor((y - top) / scale);
    const inside = column >= 0 && row >= 0 && column < this.image.width && row < this.image.height;
    return inside ? { row, column, index: row * this.image.width + column } : null;
  }

  wipeTo(x) {
    const { scale, left } = this.place();
    const from = Math.max(0, left);
    const to = Math.min(this.canvas.width, left + scale * this.image.width);
    this.wipe = Math.min(1, Math.max(0, (x - from) / (to - from)));
    this.redraw();
  }

  // Zooms by a factor so that a place of the canvas keeps its pixel; by default the middle.
  zoomBy(factor, [x, y] = [this.canvas.width / 2, this.canvas.height / 2]) {
    const before = this.place();
    this.zoom = Math.min(16, Math.max(1, this.zoom * factor));
    const after = this.place();
    const under = [(x - before.left) / before.scale, (y - before.top) / before.scale];
    const now = [(x - after.left) / after.scale, (y - after.top) / after.scale];
    this.center[0] += (under[0] - now[0]) / this.image.width;
    this.center[1] += (under[1] - now[1]) / this.image.height;
    this.redraw();
  }

  pan(dx, dy) {
    const { scale } = this.place();
    this.center[0] -= dx / scale / this.image.width;
    this.center[1] -= dy / scale / this.image.height;
    this.redraw();
  }

  redraw() {
    // A finger scrolls the page over an image that is not zoomed.
    this.canvas.style.touchAction = this.zoom > 1 ? "none" : "pan-y";
    this.draw();
    this.changed(null);
  }

  listen() {
    const { canvas, pointers } = this;
    let wiping = false;
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.image) return;
      pointers.set(event.pointerId, this.at(event));
      canvas.setPointerCapture(event.pointerId);
      const near = Math.abs(this.at(event)[0] - this.edge()) < 24 * (devicePixelRatio || 1);
      wiping = pointers.size === 1 && (near || this.zoom === 1);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.image) return;
      const now = this.at(event);
      const before = pointers.get(event.pointerId);
      if (!before) {
        this.changed(this.pixel(now));
        return;
      }
      pointers.set(event.pointerId, now);
      if (pointers.size === 2) {
        wiping = false;
        const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
        const distance = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]) || 1;
        this.zoomBy(distance(now) / distance(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
      } else if (wiping) {
        this.wipeTo(now[0]);
      } else {
        this.pan(now[0] - before[0], now[1] - before[1]);
      }
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    }
    canvas.addEventListener("pointerleave", () => this.changed(null));
    canvas.addEventListener("wheel", (event) => {
      if (!this.image || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.zoomBy(2 ** (-event.deltaY / 200), this.at(event));
    }, { passive: false });
    canvas.addEventListener("dblclick", (event) => {
      if (this.image) this.zoomBy(this.zoom > 1 ? 1 / this.zoom : 3, this.at(event));
    });
  }
}

// A pixel of image data as one number, with red in the lowest byte.
const packed = ([red, green, blue], opacity) =>
  ((Math.round(255 * Math.min(1, opacity)) << 24) | (blue << 16) | (green << 8) | red) >>> 0;

// A picture as large as the planes: classes in color with a white outline, the rest dimmed.
const paintMask = (image, mask, colors, opacity) => paint(image, (pixels) => {
  const { width } = image;
  const table = colors.map((color, index) => packed(color, index ? opacity : 0.6 * opacity));
  table[IGNORE] = packed([226, 222, 214], 0.6 * opacity);
  const outline = packed([255, 255, 255], 1.6 * opacity);
  const last = mask.length - width;
  for (let i = 0, column = 0; i < mask.length; i += 1, column = column + 1 === width ? 0 : column + 1) {
    const index = mask[i];
    const edge = index !== 0 && index !== IGNORE
      && ((column > 0 && mask[i - 1] !== index) || (column < width - 1 && mask[i + 1] !== index)
        || (i >= width && mask[i - width] !== index) || (i < last && mask[i + width] !== index));
    pixels[i] = edge ? outline : table[index];
  }
});

// Heat colors by the score, which a rank tells up to the distance of two thresholds.
const paintHeat = (image, rank, levels, heat, opacity) => {
  const byRank = Array.from({ length: levels.length + 1 }, (_, r) => {
    const score = r === 0 ? 0 : Math.max(0, Math.min(1, levels[r - 1]));
    return packed(heat[Math.round(score * (heat.length - 1))], (0.35 + 0.65 * Math.sqrt(score)) * opacity);
  });
  return paint(image, (pixels) => rank.forEach((r, i) => { pixels[i] = byRank[r]; }));
};

const paint = (image, fill) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const pen = canvas.getContext("2d");
  const made = pen.createImageData(image.width, image.height);
  fill(new Uint32Array(made.data.buffer));
  pen.putImageData(made, 0, 0);
  return canvas;
};
