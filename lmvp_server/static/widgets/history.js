// The history of a model as a table with four tracks: graph, version, layer strip, metric.
//
// An AFM module: `render({ model, el })` with `model.get("data")`, the JSON of `lmvp.render.data.history_data`, and
// `model.get("selected")`, the keys of the chosen rows. It runs in a notebook cell and in a page of the console alike.
import { copyButton, drawing, emptiness, guardKeys, make } from "./dom.js";
import { mount } from "./mount.js";
import { fillStrip, fold, legend } from "./strip.js";
import { ago, number, plural } from "./words.js";

const FIRST_ROWS = 15;
const LANE = 16;

function titleFact(data, chosen) {
  const part = data.rows.length < data.total ? `${data.rows.length.toLocaleString("en")} of ` : "";
  const versions = `${part}${plural(data.total, "version")}`;
  return chosen ? `${versions}, ${chosen} chosen` : versions;
}

// ---- graph and metric tracks: lines in 0..100 of the row, so that rows may have any height ---------------------------

const centre = (lane) => 12 + LANE * lane;

function graphCell(data, i, row, width) {
  const place = data.graph[i];
  const lane = centre(place.lane);
  const wire = (at, d) => drawing("path", { d, ...(at === 0 ? { class: "main" } : {}) });
  const picture = drawing("svg", { viewBox: `0 0 ${width} 100`, preserveAspectRatio: "none", "aria-hidden": "true" },
    ...place.pass.map((at) => wire(at, `M${centre(at)} 0V100`)),
    ...place.in.map((at) => wire(at, `M${centre(at)} 0C${centre(at)} 30 ${lane} 20 ${lane} 50`)),
    ...place.out.map((at) => wire(at, `M${lane} 50C${lane} 80 ${centre(at)} 70 ${centre(at)} 100`)));
  const guarded = row.aliases.some((alias) => alias.guarded);
  const kind = guarded ? "best" : row.parents.length > 1 ? "two" : place.lane ? "side" : "";
  return [picture, make("b", { class: kind, style: `left:calc(${lane} / ${width} * 100%)` })];
}

function along(value, { low, high }) {
  return 100 * Math.min(1, Math.max(0, (value - low) / (high - low)));
}

/** The line through the main lane: from each version to the next one below that has a finite value. */
function metricLine(data) {
  const points = data.rows.map((row, i) => ({ i, value: number(row.value) }))
    .filter(({ i }) => data.graph.length && data.graph[i].lane === 0 && data.rows[i].value !== null);
  return points.slice(1).map((older, at) => [points[at], older])
    .filter(([a, b]) => Number.isFinite(a.value) && Number.isFinite(b.value))
    .map(([a, b]) => ({ top: a.i, bottom: b.i, from: along(a.value, data.scale), to: along(b.value, data.scale) }));
}

function metricCell(data, lines, i, row, ordered) {
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

// ---- the widget ------------------------------------------------------------------------------------------------------

class HistoryView {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.sort = { by: "order", down: true };
    this.all = false;
    this.segments = [];
    this.root = make("div", { class: "lmvp in-notebook lmvp-history" });
    this.said = make("span", { class: "hidden", role: "status" });
    el.replaceChildren(this.root);
    this.onData = () => this.draw();
    this.onSelected = () => this.mark();
    model.on("change:data", this.onData);
    model.on("change:selected", this.onSelected);
    this.resized = new ResizeObserver(() => requestAnimationFrame(() => this.fit()));
    this.keys = guardKeys(this.root);
    this.draw();
  }

  close() {
    this.resized.disconnect();
    this.keys();
    this.model.off("change:data", this.onData);
    this.model.off("change:selected", this.onSelected);
  }

  get data() { return this.model.get("data"); }

  get selected() { return new Set(this.model.get("selected") ?? []); }

  draw() {
    const { data } = this;
    this.now = new Date();
    this.lines = metricLine(data);
    this.fact = make("span", { class: "quiet small" });
    this.acts = make("span", { class: "end acts" });
    const title = make("div", { class: "title", style: "align-items:center" },
      make("h3", { class: "mono" }, data.title), this.fact, this.acts, this.said);
    this.root.replaceChildren(title, ...(data.empty ? [emptiness(data.empty, this.said)] : [this.table(), this.below()]));
    this.fit();
    this.mark();
  }

  below() {
    const { data } = this;
    const more = !this.all && data.rows.length > FIRST_ROWS
      ? make("button", { class: "btn bare", type: "button", onclick: () => { this.all = true; this.draw(); this.focusRow(FIRST_ROWS); } },
        `Show all ${data.rows.length.toLocaleString("en")}`)
      : null;
    const older = data.older && (this.all || !more)
      ? make("span", { class: "quiet small" }, `${data.older.toLocaleString("en")} older: `,
        make("code", {}, `history[${data.rows.length}:]`))
      : null;
    return make("div", { class: "below" }, more, older, data.layers ? legend(data.layers) : null);
  }

  order() {
    const rows = this.data.rows.map((row, i) => ({ row, i }));
    const sign = this.sort.down ? -1 : 1;
    if (this.sort.by === "order") return this.sort.down ? rows : rows.reverse();
    const rank = ({ row }) => (row.value === null || Number.isNaN(number(row.value)) ? null : number(row.value));
    return rows.sort((a, b) => {
      if (rank(a) === null || rank(b) === null) return (rank(a) === null) - (rank(b) === null);
      return sign * (rank(a) - rank(b)) || a.i - b.i;
    });
  }

  sortBy(by) {
    const first = by === "order" || this.data.better >= 0;
    this.sort = { by, down: this.sort.by === by ? !this.sort.down : first };
    this.draw();
    this.root.querySelector(`button[data-by="${by}"]`)?.focus();
  }

  head(by, label, css) {
    const active = this.sort.by === by;
    const direction = active ? (this.sort.down ? "descending" : "ascending") : null;
    const button = make("button", { type: "button", "data-by": by, title: `Sort by ${label}`, onclick: () => this.sortBy(by) },
      make("span", { class: "clip" }, label));
    return make("th", { role: "columnheader", scope: "col", class: css, "aria-sort": direction }, button);
  }

  table() {
    const { data } = this;
    const column = (label, css, ...more) => make("th", { role: "columnheader", scope: "col", class: css }, label, ...more);
    const unseen = (label, css) => column(make("span", { class: "hidden" }, label), css);
    const lanes = Math.max(0, ...data.graph.map((place) => Math.max(place.lane, ...place.in, ...place.out, ...place.pass)));
    this.wide = Math.max(centre(lanes) + 12, 24);
    const graph = data.graph.length ? unseen("Graph", "graph") : null;
    if (graph) graph.style.minWidth = `${this.wide}px`;
    const measured = data.rows.some((row) => row.value !== null);
    const heads = [
      unseen("Choose", "check"), graph, column("Version", "what"), column("Published", "meta"),
      data.layers ? column("Layers changed against the parent", "strips") : null,
      measured ? this.head("value", data.metric, "num metric") : null,
      measured ? column(make("span", { class: "ends" }, ...data.scale.ends.map((end) => make("span", {}, end))), "value") : null,
      column("By", "opt"), this.head("order", "When", "num opt"), column("Sent", "num opt opt1"),
    ];
    this.bars = new Map();
    this.marks = new Map();
    const ordered = this.sort.by === "order" && this.sort.down;
    const rows = this.order().slice(0, this.all ? undefined : FIRST_ROWS).map(({ row, i }) => this.row(row, i, ordered, measured));
    this.body = make("tbody", { role: "rowgroup", onkeydown: (event) => this.key(event) }, ...rows);
    const table = make("table", { role: "table", class: `history${data.layers ? "" : " bare"}`, "aria-label": `Versions of ${data.title}` },
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)), this.body);
    const scroll = make("div", { class: "scroll" }, table);
    this.resized.disconnect();
    this.resized.observe(scroll);
    return scroll;
  }

  row(row, i, ordered, measured) {
    const { data } = this;
    const name = data.several ? `${row.model} v${row.number}` : `v${row.number}`;
    const box = make("input", { type: "checkbox", "aria-label": `Choose ${name}`, onchange: () => this.choose(row.key, box.checked) });
    const cell = (css, ...children) => make("td", { role: "cell", class: css }, ...children);
    const aliases = row.aliases.map(({ name: alias, guarded }) => make("span",
      { class: `alias${guarded ? " guarded" : ""}`, title: guarded ? `${alias}: protected, only maintainers move it` : alias }, alias));
    const version = data.several ? [make("span", { class: "clip", title: row.model }, row.model), " ", make("span", {}, `v${row.number}`)] : [name];
    const what = make("th", { role: "rowheader", scope: "row", class: "what" }, make("div", {},
      make("span", { class: "v" }, ...version), make("span", { class: "clip", title: row.message }, row.message), ...aliases));
    const line = make("tr", { role: "row" }, cell("check", box),
      data.graph.length ? cell("track graph", ...(ordered ? graphCell(data, i, row, this.wide) : this.dot(row))) : null,
      what, cell("meta", row.author ? `${row.author}, ` : "", ago(row.at, this.now), `, ${row.sent} sent`),
      data.layers ? cell("strips", this.strip(row)) : null,
      measured ? cell("num metric", row.written) : null,
      measured ? cell("track value", ...metricCell(data, this.lines, i, row, ordered)) : null,
      cell("opt", row.author), cell("opt num", ago(row.at, this.now)), cell("num opt opt1", row.sent));
    this.marks.set(row.key, { line, box });
    return line;
  }

  /** In another order the graph has no lines to draw; the versions keep their dots. */
  dot(row) {
    const guarded = row.aliases.some((alias) => alias.guarded);
    return [make("b", { class: guarded ? "best" : "", style: `left:calc(12 / ${this.wide} * 100%)` })];
  }

  strip(row) {
    const { layers } = this.data;
    const codes = layers.strips[row.number];
    if (!codes) return make("span", { class: "quiet small" }, "not read");
    const strip = make("div", { class: "strip", role: "img", "aria-label": layers.said[row.number] });
    this.bars.set(strip, codes);
    return strip;
  }

  /** Fill the strips for the width they have; only when another number of segments fits. */
  fit() {
    const { layers } = this.data;
    const first = this.bars?.keys().next().value;
    if (!layers || !first) return;
    if (!first.clientWidth && first.childElementCount) return; // out of sight
    const segments = fold(layers.axis, first.clientWidth || 300);
    if (segments.length === this.segments.length && first.childElementCount) return;
    this.segments = segments;
    for (const [strip, codes] of this.bars) fillStrip(strip, layers.axis, segments, codes);
  }

  choose(key, on) {
    const chosen = this.selected;
    if (on) chosen.add(key);
    else chosen.delete(key);
    this.model.set("selected", this.data.rows.map((row) => row.key).filter((each) => chosen.has(each)));
    this.model.save_changes();
    this.mark();
  }

  mark() {
    const chosen = this.selected;
    for (const [key, { line, box }] of this.marks ?? []) {
      box.checked = chosen.has(key);
      if (box.checked) line.setAttribute("aria-selected", "true");
      else line.removeAttribute("aria-selected");
    }
    this.fact.textContent = this.data.empty ? "" : titleFact(this.data, chosen.size);
    this.acts.replaceChildren(...this.actions(this.data.rows.filter((row) => chosen.has(row.key))));
  }

  /** What can be done with the chosen rows, as code to copy: a page cannot start code in a kernel that is busy. */
  actions(chosen) {
    const { data } = this;
    if (data.empty) return [];
    const newest = chosen[0] ?? data.rows[0];
    const label = (row) => (data.several ? `${row.model} v${row.number}` : `v${row.number}`);
    const pull = copyButton(`Copy pull ${label(newest)}`, `%lmvp pull ${newest.reference}`, "bare", this.said);
    if (chosen.length !== 2) return [pull];
    const [after, before] = chosen;
    const code = `%lmvp diff ${before.reference} ${after.reference}`;
    return [pull, copyButton(`Copy diff ${label(before)} → ${label(after)}`, code, "", this.said)];
  }

  focusRow(i) { this.body.querySelectorAll("input")[i]?.focus(); }

  /** J and K, or the arrows, move between the rows, X chooses. */
  key(event) {
    const boxes = [...this.body.querySelectorAll("input")];
    const at = boxes.indexOf(document.activeElement);
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    if (step) boxes[at + step]?.focus();
    else if (event.key === "x") boxes[at].click();
    else return;
    event.preventDefault();
  }
}

function render({ model, el }) {
  const view = new HistoryView(model, el);
  return () => view.close();
}

export default {
  /** Only a notebook calls this. */
  initialize: ({ model }) => mount(model, render),
  render,
};
