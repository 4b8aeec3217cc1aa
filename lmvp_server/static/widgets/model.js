// One version of a model: layer strip, tree of tensors with histograms on demand, origin and children.
// 
// An AFM module: `render({ model, el })` with `model.get("data")`, the JSON of `lmvp.views.version.showing_data`.
// Histograms are requested as in diff.js with `{ kind: "histograms", tensors }`; the reply is `{ kind, tensors }`.
import { copyButton, guardKeys, make } from "./dom.js";
import { view } from "./mount.js";
import { fillStrip, fold, KIND, legend } from "./strip.js";
import { histogram, percentage } from "./tree.js";
import { ago, brief, written } from "./words.js";

const OPEN_ROWS = 24;
const HISTOGRAMS = 64;

const CARD_TAGS = new Set("a blockquote br code del em h3 h4 h5 h6 hr li ol p pre strong table tbody td th thead tr ul".split(" "));

/** An element of a model card. Cards are untrusted: only the tags above are allowed, and no attribute but the URL. */
function element(node) {
  if (typeof node === "string") return node;
  const [tag, address, children] = node;
  const inside = children.map(element);
  if (!CARD_TAGS.has(tag)) return make("span", {}, ...inside);
  if (tag === "a") return /^(https?:\/\/|mailto:)/i.test(address) ? make("a", { href: address, rel: "nofollow noopener noreferrer", target: "_blank" }, ...inside) : make("span", {}, ...inside);
  if (tag === "table") return make("div", { class: "scroll", tabindex: "0" }, make("table", {}, ...inside));
  return make(tag, tag === "pre" ? { tabindex: "0" } : {}, ...inside);
}

class ModelView {
  constructor(model, el) {
    this.model = model;
    this.root = make("div", { class: "lmvp in-notebook lmvp-model" });
    this.said = make("span", { class: "hidden", role: "status" });
    el.replaceChildren(this.root);
    this.open = new Map();
    this.spread = new Map();
    this.filter = "";
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
    if (data.only === "tensors") { // the page of the console shows the other parts
      this.root.replaceChildren(this.tensors(), this.said);
      this.drawTree();
      return;
    }
    const aliases = data.aliases.map(({ name, protected: isProtected }) => make("span", { class: `alias${isProtected ? " protected" : ""}` }, name));
    const title = make("div", { class: "title", style: "align-items:center" }, make("h3", { class: "mono" }, data.title), ...aliases,
      make("span", { class: "lmvp-message" }, data.message),
      make("span", { class: "quiet small" }, data.author ? `${data.author}, ` : "", ago(data.at, new Date())), this.said);
    const sides = make("div", { class: "cols" }, make("div", {}, this.tensors(), ...this.code()), make("div", {}, ...this.facts()));
    this.root.replaceChildren(title, ...this.strip(), ...this.card(), make("div", { class: "lmvp-sides" }, sides));
    this.drawTree();
    this.fit();
  }

  strip() {
    const { data } = this;
    if (!data.layers || !data.codes) return [];
    this.bar = make("div", { class: "strip tall", role: "img", "aria-label": data.said });
    this.resized.disconnect();
    this.resized.observe(this.bar);
    this.fitted = 0;
    return [make("div", {}, this.bar, legend(data.layers))];
  }

  fit() {
    const width = this.bar?.clientWidth;
    if (!width || width === this.fitted) return;
    this.fitted = width;
    fillStrip(this.bar, this.data.layers.axis, fold(this.data.layers.axis, width), this.data.codes);
  }

  /** The model card, as a tree of texts and `[tag, address, children]`. Only the allowed tags become elements. */
  card() {
    const { card } = this.data;
    return card.length ? [make("div", { class: "lmvp-card prose" }, ...card.map(element))] : [];
  }

  // ---- tensors

  tensors() {
    const { data } = this;
    if (!data.groups.length) return make("section", {}, this.pairs("File", data.files, data.sentence));
    const count = data.groups.reduce((sum, group) => sum + group.tensors.length, 0);
    const find = make("input", { type: "search", placeholder: "Filter by name", "aria-label": "Filter tensors by name", style: "width:11rem",
      oninput: () => { this.filter = find.value.trim().toLowerCase(); this.drawTree(); } });
    find.value = this.filter;
    this.tree = make("div", { class: "scroll" });
    this.few = count + data.groups.length <= OPEN_ROWS;
    return make("section", {}, make("div", { class: "title", style: "align-items:center" }, make("h3", {}, "Tensors"), make("span", { class: "quiet small" }, data.sentence),
      count > 8 ? make("span", { class: "end" }, find) : null), this.tree);
  }

  drawTree() {
    if (!this.tree) return;
    const { data } = this;
    const column = (label, css, title) => make("th", { scope: "col", class: css, title }, label);
    const heads = [column("Tensor", ""), column("Shape", ""), column("Type", "opt1"), column("Parameters", "num opt2"), column("Size", "num opt2"),
      data.measured ? column(`Since ${data.against}`, "num", "‖after − before‖ / ‖before‖") : null, column("Values", "opt2")];
    this.wanted = [];
    const rows = data.groups.flatMap((group) => this.rows(group));
    const none = make("p", { class: "quiet small" }, `no tensor has ${this.filter} in its name`);
    const table = make("table", { class: "tree", "aria-label": `Tensors of ${data.title}` }, make("thead", {}, make("tr", {}, ...heads.filter(Boolean))), make("tbody", {}, ...rows));
    const focused = this.tree.contains(document.activeElement) ? document.activeElement.dataset.at : null;
    this.tree.replaceChildren(rows.length ? table : none);
    if (focused) [...this.tree.querySelectorAll("button")].find((each) => each.dataset.at === focused)?.focus();
    this.ask();
  }

  rows(group) {
    const found = group.tensors.filter((tensor) => tensor.path.toLowerCase().includes(this.filter));
    if (!found.length) return [];
    if (group.tensors.length === 1) return [this.row(found[0], found[0].path, false)];
    const open = this.filter ? true : this.open.get(group.name) ?? this.few;
    const twig = make("button", { class: "twig", type: "button", "aria-expanded": String(open), "data-at": group.name,
      onclick: () => { this.open.set(group.name, !open); this.drawTree(); } }, group.name);
    const head = make("tr", {}, make("th", { scope: "rowgroup" }, twig), make("td", { class: "quiet" }, group.count), make("td", { class: "opt1" }),
      make("td", { class: "num opt2" }, group.parameters), make("td", { class: "num opt2" }, group.size), this.change(group), make("td", { class: "opt2" }));
    return [head, ...(open ? found.map((tensor) => this.row(tensor, tensor.name, true)) : [])];
  }

  row(tensor, name, inner) {
    this.wanted.push(tensor.path);
    return make("tr", {}, make("th", { scope: "row" }, make("span", { class: inner ? "dent" : "" }, name)), make("td", { class: "shape" }, tensor.shape),
      make("td", { class: "opt1" }, tensor.dtype), make("td", { class: "num opt2" }, tensor.parameters), make("td", { class: "num opt2" }, tensor.size),
      this.change(tensor), make("td", { class: "opt2" }, this.values(tensor.path)));
  }

  change({ code, change }) {
    if (!this.data.measured) return null;
    return make("td", { class: "num" }, make("i", { class: `amount ${KIND[code]}` }), make("span", {}, ...percentage(change)));
  }

  values(path) {
    const known = this.spread.get(path);
    if (!known) return null;
    if (!known.count) return make("span", { class: "quiet small" }, "empty");
    if (known.odd === known.count) return make("span", { class: "quiet small" }, "none finite");
    const odd = known.odd ? `, ${known.odd.toLocaleString("en")} not finite` : "";
    const title = `mean ${written(known.mean)}, deviation ${written(known.deviation)}, ${known.zeros.toLocaleString("en")} zero${odd}${known.sampled ? ", of a sample" : ""}`;
    return make("div", { class: "ranged", title }, make("span", {}, brief(known.low)), histogram(path, known), make("span", {}, brief(known.high)));
  }

  ask() {
    const missing = this.wanted.filter((path) => !this.spread.has(path)).slice(0, HISTOGRAMS);
    if (!missing.length || !this.model.send) return;
    missing.forEach((path) => this.spread.set(path, null));
    this.model.send({ kind: "histograms", tensors: missing });
  }

  take(message) {
    if (message.kind !== "histograms") return;
    for (const [path, spread] of Object.entries(message.tensors)) this.spread.set(path, spread);
    this.drawTree();
  }

  // ---- origin, children and other facts

  facts() {
    const { data } = this;
    const head = (label) => make("h3", { class: "lmvp-head" }, label);
    const code = make("div", { class: "code" }, make("pre", { tabindex: "0" }, make("code", {}, data.pull)), copyButton("Copy", data.pull, "bare copy", this.said));
    return [make("section", {}, head("Pull"), code), this.metrics(head), this.facet(head, "Params", data.params), this.facet(head, "Where from", data.origin),
      this.facet(head, "Made with", data.provenance), data.groups.length ? this.facet(head, "Files", data.files) : null].filter(Boolean);
  }

  metrics(head) {
    const { metrics, against } = this.data;
    if (!metrics.length) return null;
    const body = metrics.map(([key, value, step, better]) => make("tr", {}, make("th", { scope: "row", class: "mono wide" }, key), make("td", { class: "num" }, value),
      against ? make("td", { class: "num" }, make("span", { class: { 1: "up", "-1": "down" }[better] ?? "" }, step)) : null));
    const heads = ["Metric", "Value", ...(against ? [`against ${against}`] : [])].map((label, i) => make("th", { scope: "col", class: i ? "num" : "wide" }, label));
    return make("section", {}, head("Metrics"), make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body)));
  }

  facet(head, label, pairs) {
    if (!pairs.length) return null;
    return make("section", {}, head(label), make("dl", { class: "facts" }, ...pairs.map(([key, value]) => make("div", {}, make("dt", {}, key), make("dd", {}, value)))));
  }

  pairs(label, rows, sentence) {
    const body = rows.map(([name, size]) => make("tr", {}, make("th", { scope: "row", class: "mono wide" }, name), make("td", { class: "num" }, size)));
    return make("div", { class: "scroll" }, make("table", { "aria-label": sentence }, make("thead", {}, make("tr", {}, make("th", { scope: "col", class: "wide" }, label), make("th", { scope: "col", class: "num" }, "Size"))), make("tbody", {}, ...body)));
  }

  code() {
    const { code } = this.data;
    if (!code.length) return [];
    const text = code.join("\n");
    return [make("section", {}, make("h3", { class: "lmvp-head" }, "Code"), make("div", { class: "code" }, make("pre", { tabindex: "0" }, make("code", {}, text)), copyButton("Copy", text, "bare copy", this.said)))];
  }
}

export default view(ModelView);
