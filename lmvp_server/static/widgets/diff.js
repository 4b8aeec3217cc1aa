// The diff of two versions: the layer chart, the tree of layers, then metrics, params, packages and code.
// 
// An AFM module: `render({ model, el })` with `model.get("data")`, the JSON of `lmvp.views.diff.diff_data`. When
// a layer is opened, the view requests histograms with `{ kind: "histograms", tensors }` and gets `{ kind:
// "histograms", tensors, before }`, each a dict of `{ low, high, counts }` by name.
import { guardKeys, make } from "./dom.js";
import { view } from "./mount.js";
import { fold, KIND, RANK } from "./strip.js";
import { histogram, patchLine, percentage } from "./tree.js";
import { plural } from "./words.js";

const OPEN_ROWS = 30;
const CODE_ROWS = 60;
const HISTOGRAMS = 64;

const [LETTER, NARROWEST, LONGEST, FEW] = [6.5, 10.5, 14, 10];

/** Shorten a long name in the middle. */
const clipped = (name, most) => (name.length <= most ? name : `${name.slice(0, Math.ceil(most / 2) - 1)}…${name.slice(-Math.floor(most / 2))}`);

/** Names of groups in one row if they fit; else their last parts, and a second row with the common prefixes. */
function groupRows(spans, fits) {
  if (spans.every((span) => !span.name || fits(span))) return [spans];
  const cut = ({ name }) => name.lastIndexOf(".");
  const shared = [];
  for (const span of spans) {
    const stem = span.name.slice(0, Math.max(0, cut(span)));
    if (shared.at(-1)?.name === stem) shared.at(-1).last = span.last;
    else shared.push({ ...span, name: stem, title: stem });
  }
  return [spans.map((span) => ({ ...span, name: span.name.slice(cut(span) + 1) })), shared];
}

const shadeOf = ({ code }) => (code === "-" ? "gone" : KIND[code]);

const changed = ({ kind, percent, counter }) => (kind === "changed" && percent ? `changed by ${percent}` : counter ? `${kind}: ${counter}` : kind);

export class DiffView {
  constructor(model, el) {
    this.model = model;
    this.root = make("div", { class: "lmvp in-notebook lmvp-diff" });
    el.replaceChildren(this.root);
    this.only = true;
    this.open = new Map();
    this.spread = new Map();
    this.here = null;
    this.onData = () => this.draw();
    this.onMessage = (message) => this.take(message);
    model.on("change:data", this.onData);
    model.on("msg:custom", this.onMessage);
    this.endKeys = guardKeys(this.root);
    this.resized = new ResizeObserver(() => requestAnimationFrame(() => this.fit()));
    this.draw();
  }

  close() {
    this.model.off("change:data", this.onData);
    this.model.off("msg:custom", this.onMessage);
    this.endKeys();
    this.resized.disconnect();
  }

  get data() { return this.model.get("data"); }

  draw() {
    const { data } = this;
    this.layers = data.blocks.flatMap((block) => block.groups.flatMap((group) => group.layers.map((layer) => ({ ...layer, block, group }))));
    const same = this.layers.some((layer) => layer.kind === "identical");
    const box = make("input", { type: "checkbox", onchange: () => { this.only = box.checked; this.drawTree(); } });
    box.checked = this.only;
    const acts = same ? make("span", { class: "end acts" }, make("label", { class: "small" }, box, " only what differs")) : null;
    const title = make("div", { class: "title", style: "align-items:center" }, make("h3", { class: "mono" }, data.title),
      make("span", { class: "quiet small" }, data.sentence), acts);
    this.tree = make("div", { class: "scroll lmvp-tree" });
    this.root.replaceChildren(title, ...(this.layers.length ? [this.sky(), this.tree] : []), this.tables(), ...this.code());
    this.drawTree();
    this.fit();
  }

  // ---- the layer chart

  sky() {
    const { data } = this;
    const kinds = new Set(this.layers.map((layer) => layer.kind));
    const key = (word, css) => make("span", { class: "key" }, make("i", { class: css }), word);
    const legend = make("p", { class: "legend", style: "margin-bottom:var(--3)" }, make("span", {}, `Each bar is a layer: width is parameters${data.measured ? ", height and shade are change" : ""}`),
      kinds.has("identical") ? key("identical", "c0") : null, key("new or reshaped", "new"), kinds.has("removed") ? key("removed", "gone") : null);
    this.bars = make("div", { class: "sky", role: "img", tabindex: "0", "aria-label": data.sentence,
      onkeydown: (event) => this.key(event), onmouseleave: () => this.point(null) });
    this.names = make("div", { class: "groups", "aria-hidden": "true" });
    this.readout = make("output", { class: "readout", "aria-live": "polite" });
    this.resized.disconnect();
    this.resized.observe(this.bars);
    this.fitted = 0;
    return make("div", {}, legend, this.bars, this.names, this.readout);
  }

  /** Fold the bars to the available width. */
  fit() {
    const width = this.bars?.clientWidth;
    if (!width || width === this.fitted) return; // hidden
    this.fitted = width;
    const axis = this.layers.map((layer) => [layer.path, layer.group.name, layer.weight]);
    this.segments = fold(axis, width);
    const rules = [0.1, 1, 10, 100].map((percent, i) => make("div", { class: "rule", style: `bottom:${25 * (i + 1)}%` }, make("span", {}, `${percent} %`)));
    this.bars.replaceChildren(...(this.data.measured ? rules : []), ...this.segments.map((segment, i) => this.bar(segment, i)));
    this.label();
    this.point(null);
  }

  bar(segment, i) {
    const part = this.layers.slice(segment.first, segment.last);
    // A segment of several layers shows the layer with the greatest change.
    const top = part.reduce((a, b) => ((b.height ?? -1) > (a.height ?? -1) || RANK.indexOf(b.code) > RANK.indexOf(a.code) ? b : a));
    const height = top.kind === "identical" ? "" : `;height:${top.kind === "changed" && top.height !== undefined ? Math.max(1.5, top.height) : 100}%`;
    const bar = make("i", { class: `${shadeOf(top)}${segment.begins ? " g" : ""}`, title: this.words(part),
      style: `flex-grow:${segment.weight}${height}`, onmouseenter: () => this.point(i), onclick: () => this.show(top) });
    segment.bar = bar;
    segment.top = top;
    return bar;
  }

  words(part) {
    if (part.length === 1) return `${part[0].path}: ${changed(part[0])}`;
    const other = part.filter((layer) => layer.kind !== "identical").length;
    return `${part[0].path} to ${part.at(-1).path}: ${other} of ${part.length} differ`;
  }

  /** Names below the bars: of the layers, then of their groups. lmvp.views.layer_chart has the same rules in Python. */
  label() {
    const own = this.segments.map(({ first, last, bar }) => {
      const { path, group } = this.layers[first];
      const name = last - first > 1 ? "" : path.slice(path.startsWith(group.name) ? group.name.length : 0).replace(/^[./]+/, "") || path;
      return { first: bar.offsetLeft, last: bar.offsetLeft + bar.offsetWidth, name, group, title: name ? path : group.name };
    });
    // Widths are estimated, because measuring thousands of names is slow.
    const fits = ({ first, last, name }) => last - first > LETTER * name.length;
    const rows = [];
    let named = true;
    const room = ({ first, last }) => Math.floor((last - first) / LETTER);
    if (own.every((one) => !one.name || fits(one) || room(one) >= FEW)) rows.push(own.map((one) => (fits(one) ? one : { ...one, name: clipped(one.name, room(one)) })));
    else if (own.filter((one) => one.name && one.last - one.first >= NARROWEST).length > own.length / 2) rows.push(own.filter((one) => one.last - one.first >= NARROWEST).map((one) => ({ ...one, name: clipped(one.name, LONGEST), upright: true })));
    else named = false;
    const groups = [];
    for (const one of own) {
      if (groups.at(-1)?.group === one.group) groups.at(-1).parts.push(one);
      else groups.push({ group: one.group, parts: [one] });
    }
    const spans = groups.map(({ group, parts }) => ({ first: parts[0].first, last: parts.at(-1).last, title: group.name,
      name: named && parts.length === 1 && parts[0].name === group.name ? "" : group.name }));
    rows.push(...groupRows(spans, fits).map((row) => row.filter(fits)));
    this.names.replaceChildren(...rows.filter((row) => row.some(({ name }) => name)).map((row) => {
      const upright = row.some((one) => one.upright);
      const spans = row.filter(({ name }) => name).map(({ first, last, name, title }) => make("span", { class: upright ? "up" : "", style: `left:${(first + last) / 2}px`, title }, name));
      const longest = Math.max(...row.map(({ name }) => name.length));
      return make("div", { style: upright ? `height:${(LETTER * longest + 4).toFixed()}px` : "" }, ...spans);
    }));
  }

  point(at) {
    if (this.here !== null) this.segments[this.here]?.bar.classList.remove("here");
    this.here = at;
    const segment = at === null ? null : this.segments[at];
    segment?.bar.classList.add("here");
    this.readout.replaceChildren(...(segment ? this.told(segment) : [this.hint()]));
  }

  hint() { return "point at a bar, or use ← and → on the bars, to read it; Enter opens it"; }

  told(segment) {
    const part = this.layers.slice(segment.first, segment.last);
    if (part.length > 1) return [this.words(part)];
    const [layer] = part;
    return [make("code", {}, layer.path), ` ${changed(layer)} `, make("span", { class: "unit" }, `${layer.shape}, ${layer.parameters} parameters`)];
  }

  key(event) {
    const last = this.segments.length - 1;
    const to = { ArrowRight: this.here === null ? 0 : Math.min(last, this.here + 1), ArrowLeft: this.here === null ? last : Math.max(0, this.here - 1), Home: 0, End: last }[event.key];
    if (to !== undefined) this.point(to);
    else if (event.key === "Enter" && this.here !== null) this.show(this.segments[this.here].top);
    else if (event.key === "Escape") this.point(null);
    else return;
    event.preventDefault();
  }

  /** Open a layer in the tree and scroll to it. */
  show(layer) {
    // The layer is hidden while only differences are shown.
    if (layer.kind === "identical") this.only = false;
    this.open.set(layer.block, true);
    this.open.set(layer.group, true);
    this.drawTree();
    const box = this.root.querySelector("label input");
    if (box) box.checked = this.only;
    const row = [...this.tree.querySelectorAll("tr")].find((each) => each.dataset.path === layer.path);
    row?.querySelector("button")?.focus({ preventScroll: true });
    row?.scrollIntoView({ block: "nearest" });
  }

  // ---- the tree

  drawTree() {
    const { data } = this;
    if (!this.layers.length) return;
    const rows = this.rows();
    this.measured = data.measured;
    const column = (label, css, title) => make("th", { scope: "col", class: css, title }, label);
    const heads = [column("Layer", ""), column("Shape", ""), column("Parameters", "num opt2"), column("Change", "num", "‖after − before‖ / ‖before‖")];
    if (data.measured) {
      heads.push(make("th", { scope: "col", class: "wide opt2" }, make("span", { class: "ends" }, ...["0.01 %", "1 %", "100 %"].map((end) => make("span", {}, end)))),
        column("Cosine", "num opt1"), column("Largest step", "num opt1", "of any one weight"), column("Before, after", "opt1"));
    }
    const table = make("table", { class: "tree", "aria-label": `Layers of ${data.title}` }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
    // Redrawing replaces the rows, so the focus is restored by position.
    const focused = this.tree.contains(document.activeElement) ? document.activeElement.dataset.at : null;
    this.tree.replaceChildren(rows.length ? table : make("p", { class: "quiet small" }, "every layer is identical"));
    if (focused) [...this.tree.querySelectorAll("button")].find((each) => each.dataset.at === focused)?.focus();
    this.ask();
  }

  /** Whether a part of the tree is open: as the user left it; by default, if the tree is small. */
  isOpen(part, otherwise) { return this.open.get(part) ?? otherwise; }

  rows() {
    const blocks = this.data.blocks.filter((block) => !(this.only && block.identical));
    // A small tree is open at first, so that users see the changes without a click.
    const few = blocks.reduce((sum, block) => sum + this.height(block), 0) <= OPEN_ROWS;
    this.wanted = [];
    return blocks.flatMap((block, i) => {
      if (block.groups.length === 1) return this.groupRows(block.groups[0], few && !block.identical, 0, `${i}`);
      const open = this.isOpen(block, few && block.top !== "");
      const inner = open ? block.groups.flatMap((group, j) => this.groupRows(group, few, 1, `${i}.${j}`)) : [];
      return [this.head(block, open, 0, `${i}`), ...inner];
    });
  }

  /** The number of rows of an open part. Repeated blocks that were not compared stay closed. */
  height(block) {
    if (block.groups.length > 1 && !block.top) return 1;
    const rows = block.groups.map((group) => 1 + group.layers.filter((layer) => layer.kind !== "identical").length);
    return rows.reduce((sum, count) => sum + count, block.groups.length > 1 ? 1 : 0);
  }

  groupRows(group, otherwise, depth, at) {
    const layers = group.layers.filter((layer) => !(this.only && layer.kind === "identical"));
    if (group.layers.length === 1 && group.layers[0].path === group.name) return this.layerRows(group.layers[0], depth, at, true);
    const open = this.isOpen(group, otherwise);
    return [this.head(group, open, depth, at), ...(open ? layers.flatMap((layer, i) => this.layerRows(layer, depth + 1, `${at}.${i}`)) : [])];
  }

  layerRows(layer, depth, at, whole = false) {
    const tensors = layer.tensors ?? [];
    const open = tensors.length > 1 && this.isOpen(layer, false);
    const name = whole ? layer.path : layer.name;
    if (tensors.length === 1) this.wanted.push(tensors[0].path);
    if (open) this.wanted.push(...tensors.map((tensor) => tensor.path));
    const twig = tensors.length > 1 ? this.twig(name, layer, open, at) : make("button", { class: "twig leaf", type: "button", "data-at": at, tabindex: "-1" }, name);
    const first = this.row(layer, twig, depth, tensors.length === 1 ? tensors[0].path : null);
    return [first, ...(open ? tensors.map((tensor) => this.row(tensor, make("span", { class: "leaf" }, tensor.name), depth + 1, tensor.path)) : [])];
  }

  twig(name, part, open, at) {
    return make("button", { class: "twig", type: "button", "aria-expanded": String(open), "data-at": at,
      onclick: () => { this.open.set(part, !open); this.drawTree(); } }, name);
  }

  head(part, open, depth, at) {
    const blank = (css) => make("td", { class: css });
    const rest = this.data.measured ? [blank("wide opt2"), blank("opt1"), blank("opt1"), blank("opt1")] : [];
    return make("tr", {}, make("th", { scope: "rowgroup" }, make("span", { style: `padding-left:${1.1 * depth}rem` }, this.twig(part.name, part, open, at))),
      make("td", { class: "quiet" }, part.story), make("td", { class: "num opt2" }, part.parameters), make("td", { class: "num quiet" }, ...percentage(part.top)), ...rest);
  }

  row(part, name, depth, tensor) {
    const cell = (css, ...children) => make("td", { class: css }, ...children);
    const bar = part.counter ? null : make("i", { class: shadeOf(part), style: part.height === undefined ? (part.kind === "identical" ? "" : "width:2rem") : `width:${part.height}%` });
    const rest = this.data.measured ? [cell("wide opt2", make("span", { class: "scale" }, bar)), cell("num opt1", part.cosine ?? ""), cell("num opt1", part.step ?? ""), cell("opt1", this.values(tensor))] : [];
    const shape = part.dtype ? `${part.shape}, ${part.dtype}` : part.shape;
    return make("tr", { "data-path": part.path }, make("th", { scope: "row" }, make("span", { style: `padding-left:${1.1 * depth}rem` }, name)),
      cell("shape", shape), cell("num opt2", part.parameters), cell("num", ...(part.percent ? percentage(part.percent) : [part.counter ?? part.kind])), ...rest);
  }

  // ---- histograms

  values(tensor) {
    const known = tensor === null ? null : this.spread.get(tensor);
    return known ? histogram(tensor, known.now, known.was) : null;
  }

  /** Request the histograms that are visible and unknown. The reply comes when the kernel or server is free. */
  ask() {
    const missing = this.data.measured ? this.wanted.filter((path) => !this.spread.has(path)).slice(0, HISTOGRAMS) : [];
    if (!missing.length || !this.model.send) return;
    // null means requested, so that redrawing does not request it again.
    missing.forEach((path) => this.spread.set(path, null));
    this.model.send({ kind: "histograms", tensors: missing });
  }

  take(message) {
    if (message.kind !== "histograms") return;
    for (const [path, now] of Object.entries(message.tensors)) this.spread.set(path, { now, was: message.before[path] });
    this.drawTree();
  }

  // ---- tables

  tables() {
    const tables = this.data.tables.map(({ heads, rows, better, notes }) => {
      const head = heads.map((label, i) => make("th", { scope: "col", class: i ? "num" : "" }, label));
      const body = rows.map((row, at) => make("tr", {}, make("th", { scope: "row", class: "mono" }, row[0]), ...row.slice(1).map((word, i) => {
        const css = better && i === 2 ? { 1: "up", "-1": "down" }[better[at]] : null;
        return make("td", { class: word.length > 24 ? "num wrap" : "num" }, css ? make("span", { class: css, title: css === "up" ? "better" : "worse" }, word) : word);
      })));
      return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)),
        ...notes.map((note) => make("p", { class: "quiet small" }, note)));
    });
    return make("div", { class: "grid2 lmvp-values" }, ...tables);
  }

  code() {
    const { code } = this.data;
    if (!code.length) return [];
    const patch = make("div", { class: "patch", role: "group", tabindex: "0", "aria-label": "Code that differs" }, ...code.slice(0, CODE_ROWS).map(patchLine));
    const more = code.length > CODE_ROWS
      ? make("button", { class: "btn bare", type: "button", onclick: (event) => { patch.append(...code.slice(CODE_ROWS).map(patchLine)); event.target.remove(); patch.focus(); } }, `Show all ${plural(code.length, "line")}`)
      : null;
    return [make("div", { class: "lmvp-code" }, make("h3", {}, "Code that differs"), patch, more)];
  }
}

export default view(DiffView);
