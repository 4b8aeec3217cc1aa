// Actions for the selected rows of a history: pull, set alias, copy, compare, and choose columns.
// 
// With a kernel, the widget sends messages; the kernel handles them when no cell is running. Without a kernel, it
// offers the code to copy.
import { copyButton, make } from "./dom.js";
import { DiffView } from "./diff.js";

// Milliseconds without a reply after which the user is informed that the kernel is busy.
const PATIENCE = 1500;
const CHOICES = 40;

export class Actions {
  constructor(table) {
    this.table = table;
    this.buttons = make("span", { class: "acts" });
    this.state = make("p", { class: "lmvp-state small", role: "status" });
    this.lost = make("p", { class: "note warn small" });
    this.form = make("div", {});
    this.panel = make("div", { class: "lmvp-panel" }, this.lost, this.form, this.state);
    this.below = make("div", { class: "lmvp-beneath" });
    this.lost.hidden = true;
    this.tell("");
  }

  close() { clearTimeout(this.waiting); this.diff?.close(); }

  get live() { return Boolean(this.table.data.pages && this.table.model.send); }

  // ---- messages to and from the kernel

  send(message, words) {
    this.tell(`${words} …`);
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.tell(`${words}: the kernel answers when no cell is running`), PATIENCE);
    this.table.model.send(message);
  }

  take(message) {
    if (message.kind === "server") { this.lost.textContent = message.words; this.lost.hidden = !message.words; }
    else if (message.kind === "diff") this.showDiff(message.data);
    else if (message.kind === "histograms") this.hear?.(message);
    else if (message.kind === "confirm") this.confirm(message);
    else if (message.kind === "failed") this.tell([message.words, message.hint].filter(Boolean).join(": "), "bad");
    else if (message.kind === "done" && !["hello", "histograms"].includes(message.of)) this.tell(message.words);
  }

  tell(words, kind = "") {
    clearTimeout(this.waiting);
    this.state.textContent = words;
    this.state.className = `lmvp-state small ${kind === "bad" ? "down" : "quiet"}`;
    this.state.hidden = !words;
  }

  // ---- buttons

  draw(chosen) {
    const { data } = this.table;
    if (data.empty && !this.table.asked.where) { this.buttons.replaceChildren(); return; }
    const made = this.live ? this.doing(chosen) : this.copying(chosen);
    const columns = this.live && data.keys.length > 1 ? [this.button("Columns", () => this.choose(), "bare")] : [];
    this.buttons.replaceChildren(...made, ...columns);
    if (this.form.firstChild && this.formKeys !== chosen.map((row) => row.key).join() && this.formKeys !== "columns") this.form.replaceChildren();
  }

  label(row) { return this.table.data.several ? `${row.model} v${row.number}` : `v${row.number}`; }

  button(words, act, css = "") { return make("button", { class: `btn ${css}`, type: "button", onclick: act }, words); }

  /** Without a kernel: code to copy. */
  copying(chosen) {
    const newest = chosen[0] ?? this.table.data.rows[0];
    if (!newest) return [];
    const pull = copyButton(`Copy pull ${this.label(newest)}`, newest.pull, "bare", this.table.said);
    if (chosen.length !== 2) return [pull];
    const [after, before] = chosen;
    return [pull, copyButton(`Copy diff ${this.label(before)} → ${this.label(after)}`, this.table.data.diff.replace("BEFORE", before.reference).replace("AFTER", after.reference), "", this.table.said)];
  }

  doing(chosen) {
    if (chosen.length === 1) {
      const [row] = chosen;
      return [copyButton("Copy reference", row.reference, "bare", this.table.said),
        this.button("Alias…", () => this.ask(row, "alias", `Alias at ${this.label(row)}`, "production", "Set alias"), "bare"),
        this.button("Pull…", () => this.ask(row, "pull", `Pull ${this.label(row)} into`, "model", "Pull"), "bare")];
    }
    if (chosen.length !== 2) return [];
    const [after, before] = chosen;
    return [this.button(`Diff ${this.label(before)} → ${this.label(after)}`, () => this.send({ kind: "diff", before: before.key, after: after.key }, "comparing"))];
  }

  /** An inline form with a text field, because a notebook has no space for a dialog. */
  ask(row, kind, words, value, verb) {
    const name = make("input", { type: "text", value, spellcheck: "false", "aria-label": words, style: "width:9rem" });
    const form = make("form", { class: "acts lmvp-ask", onsubmit: (event) => {
      event.preventDefault();
      this.send({ kind, key: row.key, name: name.value.trim() }, `${verb.toLowerCase()} ${row.reference}`);
      this.form.replaceChildren();
    } }, make("label", { class: "small" }, words), name, make("button", { class: "btn", type: "submit" }, verb), this.button("Cancel", () => this.form.replaceChildren(), "bare"));
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.form.replaceChildren();
      if (event.key !== "Enter" || event.target !== name) return; // JupyterLab handles Enter before the form does
      event.preventDefault();
      form.requestSubmit();
    });
    this.tell("");
    this.formKeys = row.key.toString();
    this.form.replaceChildren(form);
    name.select();
    name.focus();
  }

  /** Ask for a confirmation before a protected alias moves; the kernel has refused the move without one. */
  confirm({ of, words, asked }) {
    const act = () => { this.form.replaceChildren(); this.send({ kind: of, ...asked, yes: true }, `moving ${asked.name}`); };
    const move = this.button(`Move ${asked.name}`, act);
    this.tell("");
    this.formKeys = String(asked.key);
    this.form.replaceChildren(make("div", { class: "acts lmvp-ask", role: "alert" }, make("span", { class: "small" }, `${words}.`), move,
      this.button("Cancel", () => this.form.replaceChildren(), "bare")));
    move.focus();
  }

  /** Choose the visible columns among all metrics and params. */
  choose() {
    if (this.formKeys === "columns" && this.form.firstChild) { this.form.replaceChildren(); return; }
    const { data } = this.table;
    const chosen = new Set(data.columns.map(({ key }) => key));
    const list = make("div", { class: "lmvp-choices" });
    const fill = (text) => {
      const keys = data.keys.filter((key) => key.toLowerCase().includes(text.toLowerCase()));
      list.replaceChildren(...keys.slice(0, CHOICES).map((key) => {
        const box = make("input", { type: "checkbox", onchange: () => {
          if (box.checked) chosen.add(key); else chosen.delete(key);
          this.send({ kind: "columns", keys: [...chosen] }, "changing columns");
        } });
        box.checked = chosen.has(key);
        return make("label", { class: "small mono" }, box, ` ${key}`);
      }), keys.length > CHOICES ? make("span", { class: "quiet small" }, `and ${keys.length - CHOICES} more`) : "");
    };
    const find = make("input", { type: "search", placeholder: "Filter columns", "aria-label": "Filter columns", style: "width:11rem", oninput: () => fill(find.value.trim()) });
    fill("");
    this.formKeys = "columns";
    this.form.replaceChildren(make("div", { class: "lmvp-columns" }, data.keys.length > 12 ? find : "", list));
    (data.keys.length > 12 ? find : list.querySelector("input"))?.focus();
  }

  // ---- the diff of two rows, below the table

  showDiff(data) {
    this.tell("");
    this.diff?.close();
    const listeners = [];
    this.hear = (message) => listeners.forEach((listener) => listener(message));
    const model = {
      get: () => data,
      on: (event, listener) => { if (event === "msg:custom") listeners.push(listener); },
      off: () => {},
      send: (message) => this.table.model.send(message),
    };
    const el = make("div", {});
    const close = this.button("Close", () => { this.diff?.close(); this.diff = null; this.below.replaceChildren(); this.table.find.focus(); }, "bare");
    this.below.replaceChildren(make("div", { class: "acts lmvp-close" }, close), el);
    this.diff = new DiffView(model, el);
    close.focus({ preventScroll: true });
  }
}
