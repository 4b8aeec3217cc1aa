// The layer strip with its legend and its description in words. `fold` equals lmvp.views.layer_strip.fold in Python.
import { make } from "./dom.js";

export const RANK = ".0123x45-+";
export const KIND = { 0: "c0", 1: "c1", 2: "c2", 3: "c3", 4: "c4", 5: "c5", x: "c3", "+": "new", ".": "none" };
export const CHANGE = {
  0: "identical", 1: "changed by less than 0.1 %", 2: "changed by 0.1 % to 1 %", 3: "changed by 1 % to 5 %",
  4: "changed by 5 % to 20 %", 5: "changed by more than 20 %", x: "changed", "+": "new or reshaped",
};

export function blocksOf(axis) {
  const blocks = [];
  axis.forEach(([, group], i) => {
    if (i && group === axis[i - 1][1]) blocks.at(-1)[1] = i + 1;
    else blocks.push([i, i + 1]);
  });
  return blocks;
}

function cut(first, last, wanted) {
  const parts = Math.min(wanted, last - first);
  const at = Array.from({ length: parts + 1 }, (_, i) => first + Math.floor(((last - first) * i) / parts));
  return at.slice(1).map((end, i) => [at[i], end]);
}

/** Divide the axis into segments that fit a width: layers, else parts of blocks, else blocks, else several blocks. */
export function fold(axis, width) {
  const blocks = blocksOf(axis);
  // A segment needs 3 px, and a block boundary 2 px.
  const room = Math.floor((width - 2 * blocks.length) / 3);
  let parts = 0;
  let most = blocks.reduce((size, [a, b]) => Math.max(size, b - a), 0);
  while (parts < most) { // a binary search, because a manifest can have 100,000 layers
    const middle = Math.floor((parts + most + 1) / 2);
    if (blocks.reduce((sum, [a, b]) => sum + Math.min(b - a, middle), 0) <= room) parts = middle;
    else most = middle - 1;
  }
  const cuts = parts
    ? blocks.flatMap(([a, b]) => cut(a, b, parts))
    : cut(0, blocks.length, Math.max(Math.floor(width / 3), 1)).map(([a, b]) => [blocks[a][0], blocks[b - 1][1]]);
  const starts = new Set(parts ? blocks.slice(1).map(([a]) => a) : []);
  return cuts.map(([first, last]) => ({
    first, last, begins: starts.has(first),
    weight: axis.slice(first, last).reduce((sum, [, , weight]) => sum + weight, 0),
  }));
}

function segmentTitle(axis, segment, codes) {
  const seen = [...codes].filter((code) => code !== ".");
  if (seen.length === 0) return null;
  if (segment.last - segment.first === 1) return `${axis[segment.first][0]}: ${CHANGE[codes]}`;
  const changed = seen.filter((code) => code !== "0").length;
  return `${axis[segment.first][0]} to ${axis[segment.last - 1][0]}: ${changed} of ${seen.length} changed`;
}

export function fillStrip(strip, axis, segments, codes) {
  strip.replaceChildren(...segments.map((segment) => {
    const part = codes.slice(segment.first, segment.last);
    // A segment shows the greatest change of its layers.
    const top = [...part].reduce((a, b) => (RANK.indexOf(b) > RANK.indexOf(a) ? b : a), ".");
    const bar = make("i", { class: `${KIND[top] ?? "none"}${segment.begins ? " g" : ""}`, title: segmentTitle(axis, segment, part) });
    bar.style.flexGrow = segment.weight;
    return bar;
  }));
}

export function legend(layers) {
  const key = (word, ...kinds) => make("span", { class: "key" }, ...kinds, word);
  const swatch = (kind) => make("i", { class: kind });
  const ramp = make("span", { class: "ramp" }, ...["c1", "c2", "c3", "c4", "c5"].map(swatch));
  const words = `Layers from input to output; width: parameters${layers.amounts ? "; shade: change" : ""}`;
  return make("p", { class: "legend" },
    make("span", {}, words), key("identical", swatch("c0")),
    layers.amounts ? make("span", { class: "key" }, "0.1 %", ramp, "20 %") : key("changed", swatch("c3")),
    key("new or reshaped", swatch("new")));
}
