// Tracks of a history beside its rows: the version graph and the line of a metric. Coordinates are 0 to 100 per row, so
// that rows can have any height.
import { drawing, make } from "./dom.js";
import { number } from "./words.js";

const LANE = 16;

export const centre = (lane) => 12 + LANE * lane;

export function graphCell(data, i, row, width) {
  const place = data.graph[i];
  const lane = centre(place.lane);
  const wire = (at, d) => drawing("path", { d, ...(at === 0 ? { class: "main" } : {}) });
  const picture = drawing("svg", { viewBox: `0 0 ${width} 100`, preserveAspectRatio: "none", "aria-hidden": "true" },
    ...place.pass.map((at) => wire(at, `M${centre(at)} 0V100`)),
    ...place.in.map((at) => wire(at, `M${centre(at)} 0C${centre(at)} 30 ${lane} 20 ${lane} 50`)),
    ...place.out.map((at) => wire(at, `M${lane} 50C${lane} 80 ${centre(at)} 70 ${centre(at)} 100`)));
  const isProtected = row.aliases.some((alias) => alias.protected);
  const kind = isProtected ? "best" : row.parents.length > 1 ? "two" : place.lane ? "side" : "";
  return [picture, make("b", { class: kind, style: `left:calc(${lane} / ${width} * 100%)` })];
}

function along(value, { low, high }) {
  return 100 * Math.min(1, Math.max(0, (value - low) / (high - low)));
}

/** The line through the main lane: from each version to the next one below with a finite value. */
export function metricLine(data) {
  const points = data.rows.map((row, i) => ({ i, value: number(row.value) }))
    .filter(({ i }) => data.graph.length && data.graph[i].lane === 0 && data.rows[i].value !== null);
  return points.slice(1).map((older, at) => [points[at], older])
    .filter(([a, b]) => Number.isFinite(a.value) && Number.isFinite(b.value))
    .map(([a, b]) => ({ top: a.i, bottom: b.i, from: along(a.value, data.scale), to: along(b.value, data.scale) }));
}

export function metricCell(data, lines, i, row, ordered) {
  const paths = [0, 50, 100].map((x) => drawing("path", { class: "faint", d: `M${x} 0V100` }));
  for (const { top, bottom, from, to } of ordered ? lines.filter(({ top, bottom }) => top <= i && i <= bottom) : []) {
    const ends = [Math.max(top, i - 0.5), Math.min(bottom, i + 0.5)]
      .map((at) => `${(from + ((to - from) * (at - top)) / (bottom - top)).toFixed(1)} ${100 * (at - i) + 50}`);
    paths.push(drawing("path", { d: `M${ends[0]}L${ends[1]}` }));
  }
  const picture = drawing("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" }, ...paths);
  const value = number(row.value);
  if (row.value === null || Number.isNaN(value)) return [picture];
  const off = value < data.scale.low || value > data.scale.high;
  const best = row.aliases.some((alias) => alias.name === "best");
  const side = data.graph.length && data.graph[i].lane > 0;
  const kind = off ? "off" : best ? "best" : side ? "side" : "";
  return [picture, make("b", { class: `dot ${kind}`, style: `left:${along(value, data.scale).toFixed(1)}%` })];
}
