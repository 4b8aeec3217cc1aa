// Curves of one or more runs, updated while they are logged.
// 
// An AFM module: `render({ model, el })` with `model.get("data")`, the JSON of `lmvp.views.curves.curves_data`. While
// a run is active, messages bring new data: `{ kind: "news", head, lines }`, with complete lines that the kernel
// downsampled. A zoom requests its range with `{ kind: "zoom", from, to }` and gets finer lines when the kernel is
// free. System metrics are a nested view below the charts: `data.system`, and messages with `section: "system"`. The
// module needs a global `uPlot`: in a notebook, both are in one text; a page of the console loads the vendored script
// first.
/* global uPlot */
import { bounds, labels, logBounds, logTicks, metricLabels, stepLabels, TIMES, timeLabels } from "./axes.js";
import { drawing, guardKeys, make } from "./dom.js";
import { view } from "./mount.js";
import { onTheme, Paint } from "./paint.js";
import { savers } from "./saving.js";
import { Tip } from "./tip.js";
import { clock, number, written } from "./words.js";

const CHART_HEIGHT = 192;
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 2], [1, 2]];
const SMOOTH = [0, 5, 15, 50, 200];
const COLOURED = 6;
const CHARTS = 8;
const READ = 6;
const TOLD = 10;
const WHOLE = Array.from({ length: 16 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

/** Models whose system metrics are visible. They stay visible when a finished run is drawn again. */
const OPENED = new WeakSet();

/** Format the ticks that uPlot did not omit. */
const where = (ticks, write) => {
  const words = write(ticks.filter((at) => at !== null));
  return ticks.map((at) => (at === null ? "" : words.shift()));
};

/** The part before the last `/` in the name of a metric: `val` of `val/loss`. */
const prefixOf = (key) => key.slice(0, Math.max(0, key.lastIndexOf("/")));

/** An exponential moving average over a number of points, with bias correction at the start. */
function smoothed(values, over) {
  const keep = 1 - 2 / (Math.min(over, Math.max(2, values.length / 12)) + 1); // a longer average would lag behind
  let mean = 0;
  let weight = 0;
  return values.map((value) => {
    if (Number.isFinite(value)) {
      mean = keep * mean + (1 - keep) * value;
      weight = keep * weight + (1 - keep);
    }
    return weight ? mean / weight : null;
  });
}

/** One chart: the lines of a group. */
class Chart {
  constructor(view, group) {
    this.view = view;
    this.name = group.name;
    this.lines = group.lines;
    this.heading = make("h3", { class: "mono" }, view.short(group.name));
    this.note = make("span", { class: "small quiet" });
    this.box = make("div", { class: "plot", role: "img", tabindex: "0", onkeydown: (event) => this.key(event), ondblclick: () => view.zoom(null),
      onmouseenter: () => view.enter(this), onmouseleave: () => view.enter(null), onblur: () => this.tip.hide() });
    this.tip = new Tip(this.box);
    this.legend = make("div", { class: "legend" });
    this.root = make("figure", { class: "chart" }, make("figcaption", {}, this.heading, this.note), this.box, this.legend);
  }

  /** Align the lines to one X axis: uPlot needs the union of all X values, and gaps where a line has no point. */
  columns() {
    const { axis, log, smooth, range } = this.view;
    const shown = this.shown();
    const own = shown.map((line) => {
      const xs = axis === "time" ? line.times : axis === "step" || !line.axis.length ? line.steps : line.axis.map(number);
      // A logarithmic axis cannot show values ≤ 0.
      const value = (i) => { const y = number(line.values[i]); return log && !(y > 0) ? null : y; };
      // The Map keeps the last value of each X: uPlot needs distinct, ascending X values.
      const points = [...new Map(xs.map((x, i) => [x, value(i)]))].filter(([x]) => Number.isFinite(x)).sort((a, b) => a[0] - b[0]);
      return { xs: points.map(([x]) => x), ys: points.map(([, y]) => y) };
    });
    const all = [...new Set(own.flatMap(({ xs }) => xs))].sort((a, b) => a - b);
    const place = new Map(all.map((x, i) => [x, i]));
    const spread = (xs, ys) => {
      const column = new Array(all.length);
      xs.forEach((x, i) => { column[place.get(x)] = Number.isFinite(ys[i]) ? ys[i] : null; });
      return column;
    };
    const columns = [all];
    for (const { xs, ys } of own) {
      columns.push(spread(xs, ys));
      if (smooth > 1) columns.push(spread(xs, smoothed(ys, smooth)));
    }
    this.range = range;
    return columns;
  }

  shown() { return this.lines.filter((line) => !this.view.off.has(this.view.entryOf(line))); }

  draw() {
    const { view } = this;
    const columns = this.columns();
    const key = JSON.stringify([this.shown().map((line) => [line.id, this.order(line), this.alone(line)]), view.axis, view.smooth, view.log, this.width()]);
    // Only the data changed: keep the plot with its cursor, which is much faster than a new one.
    if (this.plot && key === this.drawn) {
      this.plot.setData(columns, false);
      this.plot.setScale("x", this.across(columns[0]));
    } else {
      this.plot?.destroy();
      this.drawn = key;
      this.plot = new uPlot(this.options(columns), columns, this.box);
    }
    this.box.setAttribute("aria-label", this.summary());
    this.note.textContent = this.oddities();
    this.legend.hidden = !view.legends || this.lines.length < 2;
    this.legend.replaceChildren(...(this.legend.hidden ? [] : this.lines.map((line) => view.entry(view.entryOf(line), line.label, this.order(line)))));
  }

  across(xs) {
    if (this.view.range) return { min: this.view.range[0], max: this.view.range[1] };
    const [min, max] = [xs[0] ?? 0, xs.at(-1) ?? 1];
    const room = Math.max(0.5, Math.abs(min) * 1e-9); // near 2**62, the next step is the same float64
    return max > min ? { min, max } : { min: min - room, max: max + room };
  }

  options(columns) {
    const { view } = this;
    const { paint } = view;
    const ink = (token) => () => paint.colour(token);
    const axis = { stroke: ink("ink-3"), font: paint.font(), ticks: { show: false } };
    const series = [{}];
    for (const line of this.shown()) {
      const token = this.token(line);
      // The raw line is drawn faintly behind the smoothed one.
      if (view.smooth > 1) series.push({ stroke: () => paint.faint(token), width: 1, spanGaps: false, points: { show: false } });
      series.push({ stroke: ink(token), width: 1.6, dash: DASHES[this.order(line) % DASHES.length], spanGaps: false, points: { show: this.alone(line), size: 6, fill: ink(token) } });
    }
    const ends = this.endNames();
    return {
      width: this.width(), height: CHART_HEIGHT, legend: { show: false }, padding: [8, ends ? 112 : 16, 0, 0],
      cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { show: false }, sync: { key: view.sync, setSeries: false } },
      select: { show: true },
      scales: {
        x: { time: false, ...this.across(columns[0]) },
        y: view.log ? { distr: 3, range: (_, low, high) => logBounds(low, high) } : { range: (_, low, high) => bounds(low, high) },
      },
      axes: [
        { ...axis, size: 28, gap: 6, space: view.axis === "time" ? 76 : 56, grid: { show: false }, ...({ step: { incrs: WHOLE }, time: { incrs: TIMES } }[view.axis] ?? {}),
          values: (_, ticks) => where(ticks, view.axis === "time" ? timeLabels : stepLabels) },
        { ...axis, size: (_, texts) => 14 + 7 * Math.max(3, ...(texts ?? []).map((text) => (text ?? "").length)), gap: 8, space: 30, grid: { stroke: ink("line"), width: 1 }, ...(view.log ? { splits: (plot) => logTicks(plot.scales.y.min, plot.scales.y.max), filter: (_, ticks) => ticks } : {}), 
          values: (_, ticks) => where(ticks, (given) => (view.log ? given.flatMap((at) => labels([at])) : metricLabels(this.lines[0]?.key ?? "", given))) },
      ],
      series,
      hooks: {
        draw: [(plot) => this.names(plot)],
        setCursor: [(plot) => view.tell(this, plot)],
        setSelect: [(plot) => this.selected(plot)],
      },
    };
  }

  width() { return Math.max(220, Math.floor(this.box.clientWidth || this.view.width() || 560)); }

  /** The colour index of a line: that of its run or its prefix, equal in all charts. */
  order(line) { return this.view.legends ? this.lines.indexOf(line) : this.view.orderOf(line); }

  token(line) { return this.view.lit !== null ? (this.view.lit === this.view.entryOf(line) ? `s${(this.order(line) % COLOURED) + 1}` : "line-2") : this.order(line) < COLOURED ? `s${this.order(line) + 1}` : "ink-3"; }

  alone(line) { return line.values.filter((value) => Number.isFinite(number(value))).length === 1; }

  endNames() { return !this.view.data.several && this.shown().length > 1 && this.shown().length <= COLOURED && this.width() > 380; }

  /** Draw names at the ends of the lines, moved apart if they overlap. */
  names(plot) {
    if (!this.endNames()) return;
    const scale = uPlot.pxRatio;
    const step = this.view.smooth > 1 ? 2 : 1;
    const { left, top, width, height } = plot.bbox;
    const ends = [];
    this.shown().forEach((line, i) => {
      const column = plot.data[1 + i * step + (step - 1)];
      let at = column.length - 1;
      while (at >= 0 && (column[at] === null || column[at] === undefined || plot.data[0][at] > plot.scales.x.max)) at -= 1;
      if (at >= 0) ends.push({ y: Math.min(top + height, Math.max(top, plot.valToPos(column[at], "y", true))), line });
    });
    // Names need 14 px each. If the last one is below the plot, all names move up.
    ends.sort((a, b) => a.y - b.y);
    for (let i = 1; i < ends.length; i += 1) ends[i].y = Math.max(ends[i].y, ends[i - 1].y + 14 * scale);
    const over = ends.length ? Math.max(0, ends.at(-1).y - (top + height)) : 0;
    const { ctx } = plot;
    ctx.save();
    ctx.font = this.view.paint.font().replace("11px", `${11 * scale}px`);
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    for (const { y, line } of ends) {
      ctx.fillStyle = this.view.paint.colour(this.token(line));
      const label = this.view.inner ? this.view.prefix(line) : line.label;
      const words = label.length > 17 ? `${label.slice(0, 16)}…` : label;
      ctx.fillText(words, left + width + 8 * scale, y - over);
    }
    ctx.restore();
  }

  selected(plot) {
    // A click with a small movement is not a zoom.
    if (plot.select.width < 4) return;
    const from = plot.posToVal(plot.select.left, "x");
    const to = plot.posToVal(plot.select.left + plot.select.width, "x");
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.view.zoom([from, to]);
  }

  summary() {
    const told = this.shown().slice(0, COLOURED).map((line) => {
      const finite = line.values.map(number).filter(Number.isFinite);
      return `${line.label}: ${finite.length ? `${written(finite[0])} to ${written(finite.at(-1))}` : "no finite number"}`;
    });
    return `${this.name} by ${this.view.axis}. ${told.join("; ")}`;
  }

  /** Describe the values that a line cannot show. */
  oddities() {
    const values = this.shown().flatMap((line) => line.values.map(number));
    const odd = values.filter((value) => !Number.isFinite(value)).length;
    if (!odd) return "";
    return odd === values.length ? "no finite number" : `${odd.toLocaleString("en")} not finite`;
  }

  key(event) {
    const xs = this.plot.data[0];
    const at = this.plot.cursor.idx ?? null;
    const { min, max } = this.plot.scales.x;
    const first = xs.findIndex((x) => x >= min);
    const last = xs.findLastIndex((x) => x <= max);
    const to = { ArrowRight: at === null ? first : Math.min(last, at + 1), ArrowLeft: at === null ? last : Math.max(first, at - 1), Home: first, End: last }[event.key];
    if (event.key === "Escape") this.view.zoom(null);
    if (to === undefined) return;
    event.preventDefault();
    this.plot.setCursor({ left: this.plot.valToPos(xs[to], "x"), top: 10 });
  }

  /** The points at an X value: for each line, the last one before it. */
  points(x) {
    const xs = this.plot.data[0];
    const index = xs.findLastIndex((each) => each <= x);
    const step = this.view.smooth > 1 ? 2 : 1;
    return this.shown().flatMap((line, i) => {
      const column = this.plot.data[1 + i * step];
      let near = index;
      while (near >= 0 && (column[near] === null || column[near] === undefined)) near -= 1;
      return near < 0 ? [] : [{ line, x: xs[near], raw: column[near], value: this.plot.data[i * step + step][near] }];
    });
  }

  at(x) { return this.points(x).map(({ line, raw }) => `${line.label} ${written(raw)}`); }

  /** Show the values at the pointer, sorted, with the nearest in bold and the raw value after a smoothed one. */
  tell(x) {
    const { plot } = this;
    const found = this.points(x);
    if (!found.length) { this.tip.hide(); return; }
    const { left, top } = plot.cursor;
    const off = ({ value }) => Math.abs(plot.valToPos(value, "y") - top);
    const nearest = found.reduce((a, b) => (off(b) < off(a) ? b : a));
    const some = [...found].sort((a, b) => off(a) - off(b)).slice(0, TOLD).sort((a, b) => b.value - a.value);
    const rows = some.map((point) => {
      return make("div", { class: point === nearest && found.length > 1 ? "near" : "" }, this.view.swatch(this.order(point.line)), make("span", { class: "clip" }, point.line.label),
        make("b", {}, written(point.value)), this.view.smooth > 1 ? make("span", { class: "quiet" }, written(point.raw)) : null);
    });
    const more = found.length > some.length ? make("p", { class: "quiet" }, `${found.length - some.length} more`) : "";
    this.tip.show(plot.over.offsetLeft + left, plot.over.offsetTop + top, make("p", {}, this.view.placed(x, nearest)), ...rows, more);
  }

  close() { this.plot?.destroy(); }
}

class CurvesView {
  constructor(model, el, { inner = false } = {}) {
    this.model = model;
    this.inner = inner;
    this.root = make("div", { class: "lmvp in-notebook lmvp-plot lmvp-curves" });
    el.replaceChildren(this.root);
    const data = model.get("data");
    // uPlot synchronizes the cursors of all charts with the same key, so each view needs a unique one.
    this.sync = `lmvp-${Math.random().toString(36).slice(2)}`;
    this.axis = data.axis;
    this.log = data.log;
    this.smooth = data.smooth;
    this.range = null;
    this.off = new Set();
    this.lit = null;
    this.read = null;
    this.under = null;
    this.lines = new Map();
    this.endKeys = guardKeys(this.root);
    this.onData = () => this.build();
    this.onNews = (message, buffers) => this.take(message, buffers);
    model.on("change:data", this.onData);
    model.on("msg:custom", this.onNews);
    this.endTheme = onTheme(() => this.charts.forEach((chart) => chart.plot?.redraw(false, true)));
    // Deferred, because resizing inside the observer would trigger it again.
    this.resized = new ResizeObserver(() => requestAnimationFrame(() => this.fit()));
    this.charts = [];
    this.build();
    this.resized.observe(this.root);
    // The kernel sends new data only after this message.
    this.model.send?.({ kind: "hello" });
  }

  close() {
    this.model.off("change:data", this.onData);
    this.model.off("msg:custom", this.onNews);
    this.endKeys();
    this.endTheme();
    this.resized.disconnect();
    this.charts.forEach((chart) => chart.close());
    this.section?.close();
  }

  width() { return this.root.clientWidth; }

  /** Draw all parts again. */
  build() {
    // A copy, because new points change it, and the model's data must not change.
    const data = this.data = structuredClone(this.model.get("data"));
    this.charts.forEach((chart) => chart.close());
    this.titleLine = make("div", { class: "title" });
    this.readout = make("output", { class: "readout hidden", "aria-live": "polite" }); // for screen readers; the tip shows the same
    this.hinted = make("span", { class: "small quiet" });
    this.legend = make("div", { class: "legend lmvp-lines" });
    this.grid = make("div", { class: "grid2" });
    this.table = make("details", { class: "small", ontoggle: () => this.fill() }, make("summary", {}, "the numbers as a table"));
    this.rest = make("button", { class: "btn bare", type: "button", onclick: () => { this.every = true; this.draw(); } });
    this.empty = make("p", { class: "quiet lmvp-none" });
    this.saver = savers(() => data.title, () => this.charts.filter((chart) => chart.plot && !chart.root.hidden).map((chart) => ({ title: chart.name, plot: chart.plot })), () => this.numbers());
    this.root.replaceChildren(this.titleLine, this.empty, this.legend, this.grid, make("div", { class: "below" }, this.rest), this.readout, make("div", { class: "lmvp-under" }, this.table, this.saver, this.hinted));
    this.section?.close();
    this.section = null;
    if (data.system) this.open(data.system);
    this.paint = new Paint(this.root);
    this.charts = data.groups.map((group) => new Chart(this, group));
    this.lines = new Map(data.groups.flatMap((group) => group.lines).map((line) => [line.id, line]));
    this.grid.replaceChildren(...this.charts.map((chart) => chart.root));
    this.tellTitle();
    this.draw();
  }

  /** Add a section with the charts of system metrics below the other charts. It stays open when the data changes. */
  open(data) {
    const part = make("details", { class: "lmvp-system", open: OPENED.has(this.model),
      ontoggle: () => { if (part.open) OPENED.add(this.model); else OPENED.delete(this.model); } }, make("summary", {}, "System metrics"));
    const el = part.appendChild(make("div"));
    this.root.append(part);
    const send = (message) => this.model.send?.({ ...message, section: "system" });
    this.section = new CurvesView({ get: () => data, on() {}, off() {}, send: (message) => { if (message.kind === "zoom") send(message); } }, el, { inner: true });
  }

  // ---- one legend for all charts: names of several runs, or prefixes of one run's metrics that share a chart

  /** Determine the entries of the legend. With more prefixes than colours, each chart has a legend instead. */
  sort() {
    const { several } = this.data;
    const named = several ? [...this.lines.values()] : this.charts.filter((chart) => chart.lines.length > 1).flatMap((chart) => chart.lines);
    this.entries = new Map([...named].sort((a, b) => (several ? a.run - b.run : 0)).map((line) => [this.entryOf(line), several ? line.label : this.prefix(line) || "no prefix"]));
    this.places = new Map(several ? named.map((line) => [this.entryOf(line), line.run]) : [...this.entries.keys()].map((id, at) => [id, at]));
    this.legends = !several && this.entries.size > COLOURED;
    this.legend.hidden = this.legends || this.entries.size < 2;
    this.legend.replaceChildren(...(this.legend.hidden ? [] : [...this.entries].map(([id, label]) => this.entry(id, label, this.places.get(id)))));
  }

  /** A name without `system/` in the section of system metrics, because its heading says so. */
  short(name) { return this.inner ? name.replace(/^system\//, "") : name; }

  /** The legend name of a line of one run: its prefix; for system metrics `machine`, `process` or a GPU. */
  prefix(line) { return this.inner ? prefixOf(this.short(line.key)) || "machine" : prefixOf(line.key); }

  entryOf(line) { return this.data.several ? `run ${line.run}` : this.legends ? line.id : `prefix ${prefixOf(line.key)}`; }

  orderOf(line) { return this.places.get(this.entryOf(line)) ?? 0; }

  /** A sample of a line with its colour and its dashes. */
  swatch(order) {
    const line = drawing("path", { d: "M0 2H20", "stroke-width": 2, "stroke-dasharray": DASHES[order % DASHES.length].join(" ") });
    line.style.stroke = order < COLOURED ? `var(--s${order + 1})` : "var(--ink-3)";
    return drawing("svg", { class: "lmvp-swatch", viewBox: "0 0 20 4", width: 20, height: 4, "aria-hidden": "true" }, line);
  }

  /** A legend entry: a click hides or shows its lines in all charts. */
  entry(id, label, order) {
    const off = this.off.has(id);
    return make("button", { class: "btn bare key", type: "button", "aria-pressed": String(!off), title: `${off ? "show" : "hide"} ${label}`,
      onclick: () => this.toggle(id), onmouseenter: () => this.entries.size > 2 && this.light(id), onmouseleave: () => this.lit !== null && this.light(null) }, this.swatch(order), label);
  }

  draw() {
    this.sort();
    this.empty.textContent = this.charts.length ? "" : this.data.empty;
    this.empty.hidden = Boolean(this.charts.length);
    this.charts.forEach((chart, i) => { chart.root.hidden = i >= CHARTS && !this.every; });
    this.charts.forEach((chart) => { if (!chart.root.hidden) chart.draw(); });
    const more = this.charts.length - CHARTS;
    this.rest.hidden = this.every || more <= 0;
    this.rest.textContent = `show all ${this.charts.length} charts`;
    this.table.hidden = !this.charts.length;
    this.saver.hidden = !this.charts.length;
    this.fill();
    this.told = undefined;
    const { read } = this;
    if (read && this.charts.includes(read.chart)) read.chart.plot?.setCursor({ left: read.chart.plot.valToPos(read.x, "x"), top: 10 });
    else this.readout.textContent = "";
    this.hinted.textContent = this.hint();
  }

  /** The drawn values as rows. */
  numbers() {
    const rows = [...this.lines.values()].flatMap((line) => line.steps.map((step, i) => [line.label, line.key, step, line.times[i], number(line.values[i])]));
    return [["line", "metric", "step", "seconds", "value"], rows];
  }

  /** Fill the table of values when it is opened. */
  fill() {
    if (!this.table.open) return;
    const head = make("tr", {}, ...["Metric", "First", "Last", "Least", "Greatest", "Points"].map((label, i) => make("th", { scope: "col", class: i ? "num" : "" }, label)));
    const rows = [...this.lines.values()].map((line) => {
      const finite = line.values.map(number).filter(Number.isFinite);
      const ends = finite.length ? [number(line.values[0]), number(line.values.at(-1)), finite.reduce((a, b) => Math.min(a, b)), finite.reduce((a, b) => Math.max(a, b))] : [];
      const cells = [0, 1, 2, 3].map((i) => make("td", { class: "num" }, i < ends.length ? written(ends[i]) : ""));
      return make("tr", {}, make("th", { scope: "row" }, line.label), ...cells, make("td", { class: "num" }, line.count.toLocaleString("en")));
    });
    this.table.querySelector(".scroll")?.remove();
    this.table.append(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))));
  }

  hint() {
    if (!this.charts.length) return "";
    const more = this.data.hidden ? ` · ${this.data.hidden} metrics more` : "";
    return `${this.range ? "" : "drag to zoom, "}hover for values${more}`;
  }

  tellTitle() {
    const { data } = this;
    const parts = [];
    if (!this.inner) parts.push(make("h3", { class: "mono" }, data.title));
    if (!this.inner && data.status) parts.push(make("span", { class: `status ${data.status}` }, data.status));
    if (!this.inner) parts.push(make("span", { class: "quiet small lmvp-fact" }, data.fact));
    const acts = make("span", { class: "end acts" },
      this.range ? this.button("reset zoom", "show all again: double click or Esc", () => this.zoom(null)) : null,
      this.button(`x: ${this.axis}`, "change the axis", () => this.turn()),
      this.button("log axis", "logarithmic values", () => { this.log = !this.log; this.restart(); }, this.log),
      this.button(this.smooth > 1 ? `smooth ${this.smooth}` : "smooth", "smooth the lines", () => { this.smooth = SMOOTH[(SMOOTH.indexOf(this.smooth) + 1) % SMOOTH.length]; this.restart(); }, this.smooth > 1));
    this.titleLine.replaceChildren(...parts, ...(data.groups.length ? [acts] : []));
  }

  button(words, title, act, pressed) {
    return make("button", { class: "btn bare", type: "button", title, "aria-pressed": pressed === undefined ? null : String(pressed), onclick: act }, words);
  }

  /** Switch to the next X axis: step, time, or the metric that the lines were joined with, such as epochs. */
  turn() {
    const axes = ["step", "time", ...(this.data.joined ? [this.data.joined] : [])];
    this.axis = axes[(axes.indexOf(this.axis) + 1) % axes.length];
    this.range = null;
    this.restart();
  }

  restart() { this.tellTitle(); this.draw(); }

  toggle(id) {
    if (!this.off.delete(id)) this.off.add(id);
    this.draw();
  }

  light(id) {
    this.lit = id;
    this.charts.forEach((chart) => chart.plot?.redraw(false, true));
  }

  zoom(range) {
    for (const line of this.lines.values()) { Object.assign(line, line.wide); delete line.wide; } // until the finer lines arrive
    this.range = range;
    this.read = null;
    this.restart();
    if (this.axis === "step") this.model.send?.({ kind: "zoom", from: range?.[0] ?? null, to: range?.[1] ?? null });
  }

  fit() {
    const width = this.width();
    if (!width || width === this.fitted) return; // hidden, for example while JupyterLab changes its theme
    this.fitted = width;
    this.charts.forEach((chart) => { if (!chart.root.hidden) chart.draw(); });
  }

  /** Record the chart under the pointer, if any, and hide the tips of the others. */
  enter(chart) {
    this.under = chart;
    this.charts.forEach((each) => { if (each !== chart) each.tip.hide(); });
  }

  /** Describe an X value in words, with its step and time. */
  placed(x, { line, x: at }) {
    const i = line.steps.findIndex((step, n) => (this.axis === "time" ? line.times[n] : this.axis === "step" || !line.axis.length ? step : number(line.axis[n])) === at);
    const parts = [this.axis === "time" ? clock(x) : `${this.axis} ${x.toLocaleString("en")}`];
    if (i >= 0 && this.axis !== "step") parts.push(`step ${line.steps[i].toLocaleString("en")}`);
    if (i >= 0 && this.axis !== "time") parts.push(clock(line.times[i]));
    if (i >= 0 && this.axis === "step" && line.axis.length && this.data.joined) parts.push(`${this.data.joined} ${written(number(line.axis[i]))}`);
    return parts.join(", ");
  }

  /** Show the values under the cursor: in a tip for the chart under the pointer, in words for all charts. */
  tell(chart, plot) {
    const at = plot.cursor.idx;
    const under = this.under ?? (chart.box === document.activeElement ? chart : null);
    if (chart === under) {
      if (at === null || at === undefined || plot.cursor.left < 0) chart.tip.hide();
      else chart.tell(plot.data[0][at]);
    }
    if (at === this.told) return;
    this.told = at;
    if (at === null || at === undefined) {
      this.read = null;
      this.readout.textContent = "";
      return;
    }
    const x = plot.data[0][at];
    this.read = { chart, x };
    const place = this.axis === "time" ? clock(x) : `${this.axis} ${x.toLocaleString("en")}`;
    const shown = this.charts.filter((each) => each.plot && !each.root.hidden).slice(0, READ);
    this.readout.textContent = `${place}: ${shown.flatMap((each) => each.at(x)).slice(0, 2 * READ).join(", ")}`;
  }

  /** Handle new data of a run: complete lines, with their columns as bytes. */
  take(message, buffers) {
    if (message.kind !== "news" && message.kind !== "finer") return;
    if (message.section === "system") { this.takeSystem(message, buffers); return; }
    // A late reply to an earlier zoom.
    if (message.kind === "finer" && JSON.stringify(message.range) !== JSON.stringify(this.range)) return;
    if (message.head) Object.assign(this.data, message.head);
    message.lines.forEach((line, i) => this.put(line, buffers[i], message.kind));
    this.tellTitle();
    this.draw();
  }

  takeSystem(message, buffers) {
    if (!this.section && message.kind === "finer") return;
    if (!this.section) this.open({ ...this.data, ...message.head, axis: "time", joined: "", log: false, smooth: 0, hidden: 0, system: null, groups: [] });
    this.section.take({ ...message, section: "" }, buffers);
  }

  put(line, buffer, kind) {
    const view = buffer instanceof DataView ? buffer : new DataView(buffer.buffer ?? buffer);
    // Float64Array needs an aligned buffer, and the message can start at any offset.
    const bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
    const numbers = new Float64Array(bytes);
    // Four columns of equal length: steps, times, values and the joined axis (NaN where it has no value).
    const n = numbers.length / 4;
    const [steps, times, values, axis] = [0, 1, 2, 3].map((i) => [...numbers.subarray(i * n, (i + 1) * n)]);
    const columns = { steps, times, values, axis: Number.isNaN(axis[0]) ? [] : axis };
    const known = this.lines.get(line.id);
    if (known) {
      // The coarse line of the full range is restored when the zoom changes.
      if (kind === "finer") known.wide ??= { steps: known.steps, times: known.times, values: known.values, axis: known.axis };
      Object.assign(known, columns, { count: line.count });
      return;
    }
    const fresh = { ...line, ...columns };
    this.lines.set(line.id, fresh);
    this.place(fresh, line.group);
  }

  /** Find or create the chart of a new line. */
  place(line, group) {
    let chart = this.charts.find((each) => each.name === group) ?? this.charts.find((each) => each.lines.length === 1 && each.lines[0].key.split("/").at(-1) === group);
    if (!chart) {
      chart = new Chart(this, { name: group, lines: [] });
      this.charts.push(chart);
      this.grid.append(chart.root);
      this.data.groups.push({ name: group, lines: chart.lines });
    }
    chart.name = group;
    chart.heading.textContent = this.short(group);
    chart.lines.push(line);
  }
}

export default view(CurvesView);
