// The history of a model as a table with four tracks: graph, version, layer strip, metric.
// 
// An AFM module: `render({ model, el })` with `model.get("data")`, the JSON of `lmvp.views.history.history_data`, and
// `model.get("selected")`, the keys of the selected rows. It runs in a notebook cell and in a page of the console. To
// query other rows, it sends `{ kind: "query", where, order, first, text }` and gets new data. Actions (`pull`,
// `alias`, `diff`, `columns`) get the reply `{ kind: "done" | "failed" | "confirm", of, words }`.
import { Actions } from "./actions.js";
import { emptiness, guardKeys, make } from "./dom.js";
import { view } from "./mount.js";
import { fillStrip, fold, legend } from "./strip.js";
import { centre, graphCell, metricCell, metricLine } from "./tracks.js";
import { ago, number, plural } from "./words.js";

const FIRST_ROWS = 15;
const PAGE = 200;
const FIELDS = /\b(metrics|params|tags|number|name|message|author|aliases|created_at|size|text)\b/;

/** Whether the input is a filter and not only words. */
const isFilter = (text) => FIELDS.test(text) && /[<>=]|\bin\b|\bis\b/.test(text);

/** A field of a version in the filter language. */
const field = (key) => (key.startsWith("params.") ? `params[${JSON.stringify(key.slice(7))}]` : `metrics[${JSON.stringify(key)}]`);

function titleFact(data, chosen) {
  const part = data.rows.length < data.total ? `${data.rows.length.toLocaleString("en")} of ` : "";
  const versions = `${part}${plural(data.total, "version")}`;
  return chosen ? `${versions}, ${chosen} chosen` : versions;
}

/** View settings of the user by the place of the widget, so that an output that is rendered again keeps them. */
const kept = new Map();

function keptOf(model) {
  const fresh = { sort: { by: "order", down: true }, all: false };
  const place = model.get("place");
  if (!place) return fresh;
  if (!kept.has(place)) kept.set(place, fresh);
  return kept.get(place);
}

class HistoryView {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.kept = keptOf(model);
    this.segments = [];
    this.said = make("span", { class: "hidden", role: "status" });
    this.name = make("h3", { class: "mono" });
    this.fact = make("span", { class: "quiet small" });
    this.find = make("input", { type: "search", class: "find", placeholder: "Filter", "aria-label": "Filter versions: words, or metrics.val_acc > 0.9", title: "words, or metrics.val_acc > 0.9 and \"frozen\" in message", oninput: () => this.soon() });
    this.find.value = this.data?.asked?.text ?? "";
    this.actions = new Actions(this);
    this.body = make("div", { class: "lmvp-body" });
    this.root = make("div", { class: "lmvp in-notebook lmvp-history" },
      make("div", { class: "title", style: "align-items:center" }, this.name, this.fact, make("span", { class: "end acts" }, this.find, this.actions.buttons), this.said),
      this.actions.panel, this.body, this.actions.below);
    el.replaceChildren(this.root);
    this.onData = () => this.draw();
    this.onSelected = () => this.mark();
    this.onMessage = (message) => this.actions.take(message);
    model.on("change:data", this.onData);
    model.on("change:selected", this.onSelected);
    model.on("msg:custom", this.onMessage);
    this.resized = new ResizeObserver(() => requestAnimationFrame(() => this.fit()));
    this.keys = guardKeys(this.root);
    this.draw();
    if (this.data.pages) model.send?.({ kind: "hello" });
  }

  close() {
    this.resized.disconnect();
    this.keys();
    this.actions.close();
    clearTimeout(this.typing);
    this.model.off("change:data", this.onData);
    this.model.off("change:selected", this.onSelected);
    this.model.off("msg:custom", this.onMessage);
  }

  get data() { return this.model.get("data"); }

  get all() { return this.kept.all; }

  get sort() { return this.kept.sort; }

  get selected() { return new Set(this.model.get("selected") ?? []); }

  get asked() { return { first: 0, where: "", order: "", text: "", ...this.data.asked }; }

  /** Whether all versions, without a filter, are loaded. */
  get whole() { return !this.data.pages || !this.model.send || (this.data.rows.length === this.data.total && !this.asked.where && !this.asked.order); }

  draw() {
    const { data } = this;
    this.now = new Date();
    this.lines = metricLine(data);
    this.name.textContent = data.title;
    this.find.hidden = data.total < 2 && !this.asked.where;
    const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.by ?? null : null;
    this.body.replaceChildren(...(data.empty && !this.asked.where ? [emptiness(data.empty, this.said)] : [this.table(), this.below()]));
    if (focused) [...this.body.querySelectorAll("button")].find((each) => each.dataset.by === focused)?.focus();
    this.fit();
    this.mark();
  }

  below() {
    const { data } = this;
    const bare = (words, act) => make("button", { class: "btn bare", type: "button", onclick: act }, words);
    const shown = this.shown.length;
    const more = !this.all && shown > FIRST_ROWS ? bare(`Show all ${shown.toLocaleString("en")}`, () => { this.kept.all = true; this.draw(); this.focusRow(FIRST_ROWS); }) : null;
    const end = data.first + data.rows.length;
    const canAsk = data.pages && this.model.send;
    const place = !more && (data.first || data.older) && canAsk
      ? make("span", { class: "quiet small" }, `${(data.first + 1).toLocaleString("en")} to ${end.toLocaleString("en")} of ${data.total.toLocaleString("en")}`) : null;
    const newer = !more && data.first && canAsk ? bare("newer", () => this.ask({ first: Math.max(0, data.first - PAGE) })) : null;
    const older = !more && data.older && canAsk ? bare("older", () => this.ask({ first: end })) : null;
    const rest = !more && data.older && !canAsk
      ? make("span", { class: "quiet small" }, `${data.older.toLocaleString("en")} older: `, make("code", {}, `history[${end}:]`)) : null;
    return make("div", { class: "below" }, more, place, newer, older, rest, data.layers ? legend(data.layers) : null);
  }

  // ---- filter, order, page: in the browser if all versions are loaded, else requested

  soon() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.search(), 200);
  }

  search() {
    const text = this.find.value.trim();
    if (this.whole && !isFilter(text)) { this.draw(); return; }
    if (!this.data.pages || !this.model.send) return;
    this.ask({ first: 0, text, where: isFilter(text) || !text ? text : `${JSON.stringify(text.toLowerCase())} in text` });
  }

  ask(change) { this.actions.send({ kind: "query", ...this.asked, ...change }, "asking the server"); }

  matches(row) {
    const text = this.whole && !isFilter(this.find.value) ? this.find.value.trim().toLowerCase() : "";
    return !text || [`v${row.number}`, row.model, row.message, row.author, ...row.aliases.map(({ name }) => name)].join(" ").toLowerCase().includes(text);
  }

  order() {
    const rows = this.data.rows.map((row, i) => ({ row, i })).filter(({ row }) => this.matches(row));
    const { by, down } = this.sort;
    if (!this.whole) return rows;
    if (by === "order") return down ? rows : rows.reverse();
    const value = ({ row }) => { const found = number(row.cells[by]?.[0]); return found === null || found === "" || Number.isNaN(found) ? null : found; };
    return rows.sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === null || right === null) return (left === null) - (right === null);
      return (down ? -1 : 1) * (left > right ? 1 : left < right ? -1 : 0) || a.i - b.i;
    });
  }

  sortBy(by) {
    const column = this.data.columns[by];
    const first = by === "order" || column.better >= 0;
    this.kept.sort = { by, down: this.sort.by === by ? !this.sort.down : first };
    if (this.whole) { this.draw(); return; }
    const { down } = this.sort;
    this.ask({ first: 0, order: by === "order" ? (down ? "" : "created_at") : `${down ? "-" : ""}${field(column.key)}` });
  }

  head(by, label, css) {
    const active = this.sort.by === by;
    const direction = active ? (this.sort.down ? "descending" : "ascending") : null;
    const button = make("button", { type: "button", "data-by": String(by), title: `Sort by ${label}`, onclick: () => this.sortBy(by) },
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
    const measured = data.columns.some(({ key }) => key === data.metric) && data.rows.some((row) => row.value !== null);
    const heads = [
      unseen("Choose", "check"), graph, column("Version", "what"), column("Published", "meta"),
      data.layers ? column("Layers changed against the parent", "strips") : null,
      ...data.columns.map((each, at) => this.head(at, each.label, at ? "num opt" : "num metric")),
      measured ? column(make("span", { class: "ends" }, ...data.scale.ends.map((end) => make("span", {}, end))), "value") : null,
      column("By", "opt"), this.head("order", "When", "num opt"), column("Sent", "num opt opt1"),
    ];
    this.bars = new Map();
    this.marks = new Map();
    this.shown = this.order();
    const ordered = this.sort.by === "order" && this.sort.down && this.shown.length === data.rows.length;
    const rows = this.shown.slice(0, this.all ? undefined : FIRST_ROWS).map(({ row, i }) => this.row(row, i, ordered, measured));
    this.rowsBody = make("tbody", { role: "rowgroup", onkeydown: (event) => this.key(event) }, ...rows);
    const table = make("table", { role: "table", class: `history${data.layers ? "" : " bare"}`, "aria-label": `Versions of ${data.title}` },
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)), this.rowsBody);
    const scroll = make("div", { class: "scroll" }, table, this.shown.length ? null : make("p", { class: "quiet small" }, "no version matches"));
    this.resized.disconnect();
    this.resized.observe(scroll);
    return scroll;
  }

  row(row, i, ordered, measured) {
    const { data } = this;
    const name = data.several ? `${row.model} v${row.number}` : `v${row.number}`;
    const box = make("input", { type: "checkbox", "aria-label": `Choose ${name}`, onchange: () => this.choose(row.key, box.checked) });
    const cell = (css, ...children) => make("td", { role: "cell", class: css }, ...children);
    const aliases = row.aliases.map(({ name: alias, protected: isProtected }) => make("span",
      { class: `alias${isProtected ? " protected" : ""}`, title: isProtected ? `${alias}: protected, only maintainers can move it` : alias }, alias));
    const version = data.several ? [make("span", { class: "clip", title: row.model }, row.model), " ", make("span", {}, `v${row.number}`)] : [name];
    const what = make("th", { role: "rowheader", scope: "row", class: "what" }, make("div", {},
      make("span", { class: "v" }, ...version), make("span", { class: "clip", title: row.message }, row.message), ...aliases));
    const line = make("tr", { role: "row" }, cell("check", box),
      data.graph.length ? cell("track graph", ...(ordered ? graphCell(data, i, row, this.wide) : this.dot(row))) : null,
      what, cell("meta", row.author ? `${row.author}, ` : "", ago(row.at, this.now), `, ${row.sent} sent`),
      data.layers ? cell("strips", this.strip(row)) : null,
      ...row.cells.map(([, written, best], at) => cell(`${at ? "num opt" : "num metric"}${best ? " name" : ""}`, best ? make("span", { title: "the best of these" }, written) : written)),
      measured ? cell("track value", ...metricCell(data, this.lines, i, row, ordered)) : null,
      cell("opt", row.author), cell("opt num", ago(row.at, this.now)), cell("num opt opt1", row.sent));
    this.marks.set(row.key, { line, box });
    return line;
  }

  /** In another order, the graph has no lines, only the dots of the versions. */
  dot(row) {
    const isProtected = row.aliases.some((alias) => alias.protected);
    return [make("b", { class: isProtected ? "best" : "", style: `left:calc(12 / ${this.wide} * 100%)` })];
  }

  strip(row) {
    const { layers } = this.data;
    const codes = layers.strips[row.number];
    if (!codes) return make("span", { class: "quiet small" }, "not read");
    const strip = make("div", { class: "strip", role: "img", "aria-label": layers.said[row.number] });
    this.bars.set(strip, codes);
    return strip;
  }

  /** Fold the strips to their width. Redraw only if the number of segments changes. */
  fit() {
    const { layers } = this.data;
    const first = this.bars?.keys().next().value;
    if (!layers || !first) return;
    if (!first.clientWidth && first.childElementCount) return; // hidden
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
    this.fact.textContent = this.data.empty && !this.asked.where ? "" : titleFact(this.data, chosen.size);
    this.actions.draw(this.data.rows.filter((row) => chosen.has(row.key)));
  }

  focusRow(i) { this.rowsBody.querySelectorAll("input")[i]?.focus(); }

  /** J and K, or the arrow keys, move between the rows; X selects a row. */
  key(event) {
    const boxes = [...this.rowsBody.querySelectorAll("input")];
    const at = boxes.indexOf(document.activeElement);
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    if (step) boxes[at + step]?.focus();
    else if (event.key === "x") boxes[at].click();
    else return;
    event.preventDefault();
  }
}

export default view(HistoryView);
