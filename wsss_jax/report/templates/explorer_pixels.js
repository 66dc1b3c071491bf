// What wsss_jax/report/planes.py packed: unpacking, and counts by pairs of classes.
const IGNORE = 255;
const PAIR = 65536; // pairs of classes are truth * PAIR + prediction

const inflate = async (bytes) => {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

// A plane's rows are differences to the row above, modulo 256.
const unpack = async (bytes, width) => {
  const plane = await inflate(bytes);
  for (let i = width; i < plane.length; i += 1) plane[i] += plane[i - width];
  return plane;
};

// The photograph as a blob URL, and the truth and the layers as planes.
const chunksOf = (index, entry) => {
  const text = atob(document.getElementById(`pixels-${index}`).textContent);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  let start = 0;
  return entry.lengths.map((length) => bytes.subarray(start, (start += length)));
};

const photographOf = (index, entry) =>
  URL.createObjectURL(new Blob([chunksOf(index, entry)[0]], { type: "image/webp" }));

const decodeImage = async (index, entry) => {
  const width = entry.size[1];
  const chunks = chunksOf(index, entry);
  const photo = await createImageBitmap(new Blob([chunks[0]], { type: "image/webp" }));
  const truth = entry.truth ? await unpack(chunks[1], width) : null;
  const layers = await Promise.all(entry.layers.map(async (layer) => {
    if (layer === null) return null;
    const planes = await Promise.all(layer.parts.map((part) => unpack(chunks[part], width)));
    if (!layer.keys) return { mask: planes[0] };
    const winner = Uint16Array.from(planes[0], (place) => layer.keys[place]);
    return { winner, rank: planes[1] };
  }));
  return { width, height: entry.size[0], photo, truth, layers };
};

// The mask of a layer at a level: foreground where the rank is above the level.
const maskAt = (layer, level) => (layer.mask
  ? layer.mask
  : layer.winner.map((index, pixel) => (layer.rank[pixel] > level ? index : 0)));

// Counts are a Map from pairs to pixels; an unknown truth is -1.
const addPair = (counts, truth, prediction, pixels) => {
  if (!pixels) return;
  const key = truth * PAIR + prediction;
  counts.set(key, (counts.get(key) ?? 0) + pixels);
};

const countPixels = (truth, mask) => {
  const counts = new Map();
  const table = new Uint32Array(256 * 256);
  for (let i = 0; i < mask.length; i += 1) {
    if (truth[i] !== IGNORE) table[truth[i] * 256 + (mask[i] === IGNORE ? 0 : mask[i])] += 1;
  }
  table.forEach((pixels, i) => addPair(counts, i >> 8, i & 255, pixels));
  return counts;
};

// Adds an image's counts of a layer at a level, from the counts by rank that the page holds.
const addCounts = (counts, layer, level) => {
  for (const [truth, winner, byRank] of layer.pairs) {
    let below = 0;
    let all = 0;
    byRank.forEach((pixels, rank) => {
      all += pixels;
      if (rank <= level) below += pixels;
    });
    const masked = byRank.length === 1;
    addPair(counts, truth, winner, masked ? all : all - below);
    if (!masked) addPair(counts, truth, 0, below);
  }
  return counts;
};

// IoU by class, and its mean over the classes that occur ("present") or over all ("strict").
const scoresOf = (counts, protocol, classes) => {
  const hits = new Map();
  const sums = new Map();
  const add = (where, index, pixels) => where.set(index, (where.get(index) ?? 0) + pixels);
  for (const [key, pixels] of counts) {
    const truth = Math.floor(key / PAIR);
    const prediction = key - truth * PAIR;
    if (truth < 0) continue;
    add(sums, truth, pixels);
    if (truth === prediction) add(hits, truth, pixels);
    else add(sums, prediction, pixels);
  }
  const iou = new Map([...sums.keys()].sort((a, b) => a - b)
    .map((index) => [index, (hits.get(index) ?? 0) / sums.get(index)]));
  const total = [...iou.values()].reduce((a, b) => a + b, 0);
  const number = protocol === "strict" ? classes : iou.size;
  return { iou, miou: number ? total / number : null, known: iou.size > 0 };
};
